// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The grant policy of vtoe_sock (guest/vtoe_sock.ko/credit.c), compiled in user
 * space: its invariants under random traffic of many connections that share a
 * pool, that no connection starves, and the sender's arithmetic.
 */
#include <endian.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tap.h"

#include "../../guest/vtoe_sock.ko/credit.c"

#define CONNS 40
#define SMALL 4096u
#define LARGE 65536u
#define RCVBUF (4u << 20)

/* Both ends of a stream, with what is between them. */
struct stream {
	struct vtoe_rx_credit rx;
	struct vtoe_tx_credit tx;
	uint64_t nxt, queued, arrived;
	struct { uint32_t class, len; } wire[4096], held[4096];
	unsigned int wire_head, wire_tail, held_head, held_tail;
	bool open;
};

static struct vtoe_pool pool;
static struct stream streams[CONNS];
static uint32_t posted[VNET_RWQ_CLASSES]; /* in the ring, as the host sees it */

static void pool_init(uint32_t small, uint32_t large)
{
	memset(&pool, 0, sizeof(pool));
	memset(streams, 0, sizeof(streams));
	vtoe_pool_add(&pool, VNET_RWQ_SMALL, small);
	vtoe_pool_add(&pool, VNET_RWQ_LARGE, large);
	posted[0] = small;
	posted[1] = large;
}

static void tell(struct stream *s)
{
	struct vtoe_credit update;

	vtoe_rx_grant(&pool, &s->rx, &update);
	if (!vtoe_tx_update(&s->tx, &update, s->nxt))
		abort();
}

static bool stream_open(struct stream *s)
{
	memset(s, 0, sizeof(*s));
	s->tx.buf_size[VNET_RWQ_SMALL] = SMALL;
	s->tx.buf_size[VNET_RWQ_LARGE] = LARGE;
	if (!vtoe_rx_open(&pool, &s->rx, RCVBUF))
		return false;
	s->open = true;
	tell(s);
	return true;
}

/* As vtoe_xmit() does; the message is on the wire. */
static bool stream_send(struct stream *s)
{
	uint32_t class, n, len = s->queued > LARGE ? LARGE : s->queued;

	n = vtoe_tx_may_send(&s->tx, s->nxt, len, &class);
	if (!n)
		return false;
	s->tx.sent[class]++;
	s->nxt += n;
	s->queued -= n;
	s->wire[s->wire_tail % 4096].class = class;
	s->wire[s->wire_tail++ % 4096].len = n;
	return true;
}

/* The host takes a buffer, the guest's NAPI gets it. */
static bool stream_arrive(struct stream *s)
{
	uint32_t class, len;

	if (s->wire_head == s->wire_tail)
		return true;
	class = s->wire[s->wire_head % 4096].class;
	len = s->wire[s->wire_head++ % 4096].len;
	if (!posted[class])
		return false; /* receiver not ready: what credit is to prevent */
	posted[class]--;
	s->arrived += len;
	s->held[s->held_tail % 4096].class = class;
	s->held[s->held_tail++ % 4096].len = len;
	return vtoe_rx_got(&pool, &s->rx, class, s->arrived);
}

/* The program reads one message. */
static void stream_read(struct stream *s)
{
	uint32_t class;

	if (s->held_head == s->held_tail)
		return;
	class = s->held[s->held_head % 4096].class;
	s->rx.consumed += s->held[s->held_head++ % 4096].len;
	posted[class]++;
	vtoe_rx_reposted(&pool, &s->rx, class);
}

static void stream_close(struct stream *s)
{
	while (s->wire_head != s->wire_tail)
		stream_arrive(s);
	/* as the kernel does: what is held may go back before or after */
	if (rand() & 1) {
		while (s->held_head != s->held_tail)
			stream_read(s);
		vtoe_rx_close(&pool, &s->rx);
	} else {
		vtoe_rx_close(&pool, &s->rx);
		while (s->held_head != s->held_tail)
			stream_read(s);
	}
	s->open = false;
}

static bool invariants(void)
{
	uint32_t class, i;

	for (class = 0; class < VNET_RWQ_CLASSES; class++) {
		uint32_t granted = 0, reserved = 0, conns = 0;

		for (i = 0; i < CONNS; i++) {
			struct vtoe_rx_credit *rx = &streams[i].rx;
			uint32_t out = rx->limit[class] - rx->got[class];

			if (!streams[i].open)
				continue;
			conns++;
			granted += out;
			if (class == VNET_RWQ_SMALL && out + rx->held[class] < rx->min)
				reserved += rx->min - out - rx->held[class];
		}
		if (granted > posted[class] || pool.free[class] != posted[class] - granted ||
		    pool.reserved[class] != reserved || pool.reserved[class] > pool.free[class] ||
		    pool.conns != conns)
			return false;
	}
	return true;
}

static void random_traffic(void)
{
	bool ok = true, ready = true;
	uint64_t total = 0;
	int i;

	pool_init(128, 16);
	for (i = 0; i < 400000 && ok && ready; i++) {
		struct stream *s = &streams[rand() % CONNS];

		if (!s->open) {
			if (rand() % 8 == 0)
				stream_open(s);
			continue;
		}
		switch (rand() % 12) {
		case 0:
			s->queued += rand() % 3 ? rand() % 200 : rand() % 300000;
			break;
		case 1: case 2: case 3:
			while (stream_send(s) && rand() % 3)
				;
			s->rx.want = s->queued;
			break;
		case 4: case 5: case 6:
			ready = stream_arrive(s);
			break;
		case 7: case 8: case 9:
			stream_read(s);
			if (vtoe_rx_due(&pool, &s->rx, s->held_head == s->held_tail))
				tell(s);
			break;
		case 10:
			if (rand() % 4 == 0)
				tell(s);
			break;
		case 11:
			if (rand() % 200 == 0) {
				total += s->arrived;
				stream_close(s);
			}
		}
		ok = invariants();
	}
	ok(ready, "a message never finds the ring empty or exceeds its grant");
	ok(ok, "free, granted and reserved always add up");
	ok(total > 1000000, "and data flowed");
	for (i = 0; i < CONNS; i++)
		if (streams[i].open)
			stream_close(&streams[i]);
	ok(pool.free[0] == 128 && pool.free[1] == 16 && !pool.reserved[0] && !pool.conns,
	       "after all closed the pool is whole");
}

/* Everything queued gets through, with no update but those that are due. */
static bool drain(struct stream *s, unsigned int rounds)
{
	while (rounds-- && (s->queued || s->wire_head != s->wire_tail ||
			    s->held_head != s->held_tail)) {
		while (stream_send(s))
			;
		s->rx.want = s->queued;
		if (!stream_arrive(s))
			return false;
		stream_read(s);
		if (vtoe_rx_due(&pool, &s->rx, s->held_head == s->held_tail))
			tell(s);
	}
	return !s->queued && s->rx.consumed == s->nxt;
}

#define CROWD 2000

/*
 * More connections than buffers, and as many programs that do not read: the
 * others get everything through, as the kernel does it (rings.c): a buffer of
 * one on demand is replaced at once, who waits is served when there is one.
 */
static void crowd(void)
{
	static struct stream many[CROWD];
	unsigned int i, opened = 0, demand = 0, done = 0, rounds;
	uint32_t granted = 0;

	pool_init(256, 16);
	for (i = 0; i < CROWD; i++) {
		opened += stream_open(&many[i]);
		demand += many[i].rx.on_demand;
		many[i].queued = 20000;
	}
	is_int(opened, CROWD, "two thousand connections share 256 buffers");
	ok(demand > CROWD - 256 && demand < CROWD, "most of them on demand");
	for (rounds = 0; rounds < 1000 && done < CROWD / 2; rounds++) {
		done = 0;
		for (i = 0; i < CROWD; i++) {
			struct stream *s = &many[i];

			while (stream_send(s))
				;
			s->rx.want = s->queued;
			if (s->wire_head != s->wire_tail && !stream_arrive(s))
				rounds = 1000;
			if (s->rx.on_demand && s->rx.held[0]) {
				posted[0]++;
				vtoe_rx_reposted(&pool, &s->rx, VNET_RWQ_SMALL);
				s->rx.lent++;
			}
			/* every second program reads */
			if (i % 2 && s->rx.on_demand && s->held_head != s->held_tail) {
				s->rx.consumed += s->held[s->held_head++ % 4096].len;
				s->rx.lent--;
			} else if (i % 2) {
				stream_read(s);
			}
			if (vtoe_rx_due(&pool, &s->rx, s->held_head == s->held_tail))
				tell(s);
			done += i % 2 && !s->queued && s->rx.consumed == s->nxt;
		}
	}
	is_int(done, CROWD / 2, "all that read get all of it");
	for (i = 0; i < CROWD; i++)
		granted += many[i].rx.limit[0] - many[i].rx.got[0];
	ok(pool.free[0] == posted[0] - granted && pool.reserved[0] <= pool.free[0],
	   "and the account is right");
}

static void nobody_starves(void)
{
	struct stream *hog = &streams[0], *meek = &streams[1];
	unsigned int i;
	bool ok = true;

	pool_init(64, 8);
	ok(stream_open(hog) && stream_open(meek), "two connections open");
	/* The hog's program never reads. */
	hog->queued = 100u << 20;
	for (i = 0; i < 10000; i++) {
		while (stream_send(hog))
			;
		hog->rx.want = true;
		if (!stream_arrive(hog))
			break;
		if (vtoe_rx_due(&pool, &hog->rx, false))
			tell(hog);
	}
	ok(hog->rx.held[0] < 64 && hog->rx.held[1] < 8, "one that does not read leaves buffers");
	meek->queued = 3u << 20;
	ok(drain(meek, 100000), "and another gets its 3 MB through");
	for (i = 2; i < CONNS && ok; i++)
		ok = stream_open(&streams[i]);
	ok(!ok, "when no minimum is left a connection is refused");
	ok = true;
	while (--i > 1) {
		if (!streams[i].open)
			continue;
		streams[i].queued = 200000;
		ok = ok && drain(&streams[i], 100000);
	}
	ok(ok, "each one taken in gets its bytes through, small buffers alone if need be");
	ok(invariants(), "the pool adds up");
}

static void sender(void)
{
	struct vtoe_credit in = { .byte_limit = htole64(10000), .msg_limit = { htole32(2), 0 } };
	struct vtoe_tx_credit tx = { .buf_size = { SMALL, LARGE } };
	uint32_t class = 9;

	ok(vtoe_tx_may_send(&tx, 0, 1, &class) == 0, "no credit, no message");
	ok(vtoe_tx_update(&tx, &in, 0), "an update is taken");
	ok(vtoe_tx_may_send(&tx, 0, 50000, &class) == SMALL && class == VNET_RWQ_SMALL,
	       "a long message goes as a small one where only that is granted");
	in.msg_limit[VNET_RWQ_LARGE] = htole32(1);
	vtoe_tx_update(&tx, &in, 0);
	ok(vtoe_tx_may_send(&tx, 0, 50000, &class) == 10000 && class == VNET_RWQ_LARGE,
	       "the byte limit cuts it");
	in.ack = htole64(1);
	ok(!vtoe_tx_update(&tx, &in, 0), "an acknowledgement of what was not sent is refused");
	in.ack = 0;
	in.byte_limit = htole64(5000);
	in.msg_limit[0] = htole32(1);
	ok(vtoe_tx_update(&tx, &in, 0) && tx.byte_limit == 10000 && tx.limit[0] == 2,
	       "a late update takes nothing back");
	tx.sent[0] = tx.limit[0] = 0xfffffffe;
	in.msg_limit[0] = htole32(1);
	ok(vtoe_tx_update(&tx, &in, 0) && tx.limit[0] == 1 &&
	       vtoe_tx_may_send(&tx, 0, 10, &class) == 10, "message numbers wrap");
	ok(vtoe_tx_may_send(&tx, 9990, 5000, &class) == 0, "no silly little piece");
	tx.una = 9990;
	ok(vtoe_tx_may_send(&tx, 9990, 5000, &class) == 10, "unless nothing is on its way");
}

/* How many of 1000 messages of size bytes had an update of their own. */
static unsigned int own_updates(uint32_t size, bool answered)
{
	struct stream *s = &streams[0];
	unsigned int i, updates = 0;

	pool_init(64, 8);
	stream_open(s);
	for (i = 0; i < 1000; i++) {
		s->queued += size;
		if (!stream_send(s) || s->queued || !stream_arrive(s))
			return 1000;
		s->rx.want = false;
		stream_read(s);
		if (vtoe_rx_due(&pool, &s->rx, true)) {
			updates++;
			tell(s);
		} else if (answered) {
			tell(s);
		}
	}
	return updates;
}

static void alone_or_along(void)
{
	unsigned int small = own_updates(1, false), large = own_updates(20000, false);

	ok(!own_updates(1, true) && !own_updates(20000, true),
	   "what is answered at once takes no update of its own");
	ok(small > 0 && small < 300, "what is not never runs out of credit, with few updates");
	ok(large > 0 && large < 300, "and long messages neither");
}

/* Buffers that cannot be posted again leave the pool; what is left still serves. */
static void lost_buffers(void)
{
	struct stream *s = &streams[0];
	unsigned int i;

	pool_init(4, 0);
	stream_open(s);
	for (i = 0; i < 4; i++) {
		s->queued = 1;
		if (!stream_send(s) || !stream_arrive(s))
			break;
		s->held_head++;
		s->rx.consumed++;
		vtoe_rx_lost(&pool, &s->rx, VNET_RWQ_SMALL);
		tell(s);
	}
	ok(i == 4 && pool.total[0] == 0 && pool.free[0] == 0 &&
	       !vtoe_rx_grantable(&pool, &s->rx, VNET_RWQ_SMALL),
	   "lost buffers are used up, never granted again");
	vtoe_pool_add(&pool, VNET_RWQ_SMALL, 4);
	posted[0] += 4;
	tell(s);
	ok(s->rx.limit[0] != s->rx.got[0], "and granted when they are back");
	vtoe_rx_close(&pool, &s->rx);
	ok(pool.free[0] == 4 && !pool.reserved[0], "the pool is whole");
}

static void peer_sizes(void)
{
	struct vtoe_tx_credit tx = {};
	__le32 size[2] = { htole32(SMALL), htole32(LARGE) };

	ok(vtoe_tx_open(&tx, size) && tx.buf_size[0] == SMALL && tx.buf_size[1] == LARGE,
	   "the peer's buffer sizes are taken");
	size[0] = htole32(LARGE + 1);
	ok(!vtoe_tx_open(&tx, size), "not a small one that is larger");
	size[0] = 0;
	ok(!vtoe_tx_open(&tx, size), "not one of nothing");
	size[0] = size[1] = htole32(VTOE_MSG_LEN_MAX + 1);
	ok(!vtoe_tx_open(&tx, size), "not one above the largest message");
}

int main(void)
{
	srand(1);
	random_traffic();
	nobody_starves();
	crowd();
	alone_or_along();
	lost_buffers();
	peer_sizes();
	sender();
	return tap_done();
}
