// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The spike's guest: what vtoe_sock does, in user space on the real rings, and
 * the scenes that it plays.
 *
 * Stream c of host h carries pattern[(offset + seed(h, c)) % period], so the
 * receiver knows every byte. Messages lie in guest memory at odd addresses and
 * in one, two or three pieces.
 *
 * Reordering: each class is in order, so what waits for its turn is two queues
 * per connection, and the next byte is at the head of one of them.
 */
#include "spike.h"

#include <endian.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "ring_driver.h"

#define SWQ_SLOTS 48u
#define EQ_BUFS 16u
#define PERIOD 65521u
#define BYTE_WINDOW (1u << 20)
#define SCENE_LIMIT_S 60
#define RX_QUEUE 256u /* power of two, more than buffers of a class */

struct rx_buf {
	struct vtoe_msg_hdr *hdr; /* 48 bytes, at any alignment */
	uint8_t *payload;
	uint64_t table; /* room for an indirect descriptor table */
	unsigned int class, index;
};

struct stream { /* a connection's state in the guest */
	uint32_t sid;
	/* sending */
	uint64_t next, end;
	uint32_t sent[VNET_RWQ_CLASSES], next_len, max_len;
	struct vtoe_credit peer;
	/* receiving */
	uint64_t consumed, expect;
	bool reading;
	struct rx_buf *queue[VNET_RWQ_CLASSES][RX_QUEUE];
	uint32_t received[VNET_RWQ_CLASSES], taken[VNET_RWQ_CLASSES];
	uint32_t share[VNET_RWQ_CLASSES];
	struct vtoe_credit told;
	uint64_t final_offset;
	bool fin, closed, broken;
	uint32_t reason;
};

struct guest {
	int host;
	struct agent *agent;
	struct ring_memory mem;
	struct ring_driver ring[Q_COUNT];
	uint32_t random;
	uint8_t *pattern;
	struct rx_buf rx[VNET_RWQ_CLASSES][SMALL_BUFS];
	uint8_t *slot[SWQ_SLOTS];
	uint64_t slot_table[SWQ_SLOTS];
	bool slot_busy[SWQ_SLOTS];
	struct stream stream[N_CONNS];
	struct vtoe_event *event[EQ_BUFS];
	struct vtoe_cmd *cmd;
	struct vtoe_reply *reply;
	bool reply_come;
	char fault[160];
	/* for the remarks */
	uint64_t reordered, early_fins, credit_msgs, msgs[VNET_RWQ_CLASSES], late;
};

double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec * 1e-9;
}

static uint32_t draw(struct guest *g, uint32_t below)
{
	g->random = g->random * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)g->random * below >> 32);
}

static void *take_mem(struct guest *g, size_t size, size_t align)
{
	return ring_memory_at(&g->mem, ring_memory_alloc(&g->mem, size, align));
}

static uint64_t gpa_of(const struct guest *g, const void *p)
{
	return g->mem.gpa + ((const uint8_t *)p - g->mem.map);
}

static const uint8_t *bytes_at(const struct guest *g, int host, unsigned int c, uint64_t offset)
{
	return g->pattern + (offset + 7919u * (c + 1) + 104729u * host) % PERIOD;
}

/* ---- rings ---- */

/* The pieces of a message at a header and its payload: 1, 2 or 3, by shape. */
static unsigned int cut(const struct guest *g, struct ring_piece *seg, unsigned int shape,
			void *hdr, uint8_t *payload, uint32_t len)
{
	const uint32_t hdr_len = sizeof(struct vtoe_msg_hdr);
	bool together = (uint8_t *)hdr + hdr_len == payload;

	if (!len || (shape == 0 && together)) {
		seg[0] = (struct ring_piece){ gpa_of(g, hdr), hdr_len + len };
		return 1;
	}
	if (shape == 1 || !together || len < 3) {
		seg[0] = (struct ring_piece){ gpa_of(g, hdr), hdr_len };
		seg[1] = (struct ring_piece){ gpa_of(g, payload), len };
		return 2;
	}
	/* The header itself in two pieces, the payload too. */
	seg[0] = (struct ring_piece){ gpa_of(g, hdr), 20 };
	seg[1] = (struct ring_piece){ gpa_of(g, hdr) + 20, hdr_len - 20 + len / 3 };
	seg[2] = (struct ring_piece){ gpa_of(g, payload) + len / 3, len - len / 3 };
	return 3;
}

static void post_rx(struct guest *g, struct rx_buf *buf)
{
	struct ring_piece seg[3];
	unsigned int n = cut(g, seg, buf->index % 3, buf->hdr, buf->payload,
			     buf->class == VNET_RWQ_SMALL ? SMALL_SIZE : LARGE_SIZE);

	if (ring_driver_add(&g->ring[Q_RWQ_SMALL + buf->class], seg, 0, n, buf, n == 3 ? buf->table : 0) < 0)
		snprintf(g->fault, sizeof(g->fault), "the RWQ is full");
}

static void post_event(struct guest *g, struct vtoe_event *event)
{
	struct ring_piece seg = { gpa_of(g, event), sizeof(*event) };

	ring_driver_add(&g->ring[Q_EQ], &seg, 0, 1, event, 0);
}

/* What a connection grants now: what it consumed and its share of the buffers. */
static struct vtoe_credit credit_now(const struct stream *s)
{
	struct vtoe_credit credit = {
		.ack = htole64(s->consumed),
		.byte_limit = htole64(s->consumed + BYTE_WINDOW),
	};
	unsigned int c;

	for (c = 0; c < VNET_RWQ_CLASSES; c++)
		credit.msg_limit[c] = htole32(s->taken[c] + s->share[c]);
	return credit;
}

/* Puts a message of len bytes on the SWQ; false: no slot. */
static bool send_msg(struct guest *g, unsigned int c, uint8_t type, uint32_t len,
		     const struct vtoe_credit *credit)
{
	struct stream *s = &g->stream[c];
	struct vtoe_msg_hdr hdr = {
		.type = type,
		.len = htole32(len),
		.id = htole32(s->sid),
		.offset = htole64(s->next),
		.credit = *credit,
	};
	struct ring_piece seg[3];
	unsigned int i, n;

	for (i = 0; i < SWQ_SLOTS && g->slot_busy[i]; i++)
		;
	if (i == SWQ_SLOTS)
		return false;
	memcpy(g->slot[i], &hdr, sizeof(hdr));
	memcpy(g->slot[i] + sizeof(hdr), bytes_at(g, g->host, c, s->next), len);
	n = cut(g, seg, i % 3, g->slot[i], g->slot[i] + sizeof(hdr), len);
	if (ring_driver_add(&g->ring[Q_SWQ], seg, n, 0, &g->slot_busy[i], n == 3 ? g->slot_table[i] : 0) < 0)
		return false;
	g->slot_busy[i] = true;
	s->told = *credit;
	s->next += len;
	if (type == VTOE_MSG_CREDIT)
		g->credit_msgs++;
	return true;
}

/* ---- receiving ---- */

static void take_peer(struct stream *s, const struct vtoe_credit *credit)
{
	unsigned int c;

	for (c = 0; c < VNET_RWQ_CLASSES; c++)
		if ((int32_t)(le32toh(credit->msg_limit[c]) - le32toh(s->peer.msg_limit[c])) > 0)
			s->peer.msg_limit[c] = credit->msg_limit[c];
	if (le64toh(credit->ack) > le64toh(s->peer.ack))
		s->peer.ack = credit->ack;
	if (le64toh(credit->byte_limit) > le64toh(s->peer.byte_limit))
		s->peer.byte_limit = credit->byte_limit;
}

static struct vtoe_msg_hdr read_hdr(const struct rx_buf *buf)
{
	struct vtoe_msg_hdr hdr;

	memcpy(&hdr, buf->hdr, sizeof(hdr));
	return hdr;
}

static void rx_used(struct guest *g, struct rx_buf *buf, uint32_t len)
{
	struct vtoe_msg_hdr hdr = read_hdr(buf);
	struct stream *s = NULL;
	unsigned int c;

	for (c = 0; c < N_CONNS; c++)
		if (g->stream[c].sid == le32toh(hdr.id))
			s = &g->stream[c];
	if (!s || hdr.type != VTOE_MSG_DATA || hdr.reserved || hdr.lane_limit ||
	    len != sizeof(hdr) + le32toh(hdr.len)) {
		snprintf(g->fault, sizeof(g->fault), "RWQ: %u bytes, type %u, sid %#x", len, hdr.type,
			 le32toh(hdr.id));
		return;
	}
	take_peer(s, &hdr.credit);
	g->reordered += le64toh(hdr.offset) != s->expect;
	s->expect = le64toh(hdr.offset) + le32toh(hdr.len);
	g->msgs[buf->class]++;
	s->queue[buf->class][s->received[buf->class]++ % RX_QUEUE] = buf;
}

static bool verify(struct guest *g, unsigned int c, const struct rx_buf *buf, uint64_t offset, uint32_t len)
{
	if (!memcmp(buf->payload, bytes_at(g, !g->host, c, offset), len))
		return true;
	snprintf(g->fault, sizeof(g->fault), "conn %u: wrong bytes at offset %llu, %u long", c,
		 (unsigned long long)offset, len);
	return false;
}

/* The program reads: everything that continues the stream. */
static void deliver(struct guest *g, unsigned int c)
{
	struct stream *s = &g->stream[c];
	unsigned int class;
	bool any = true;

	while (any && (s->reading || s->broken)) {
		any = false;
		for (class = 0; class < VNET_RWQ_CLASSES; class++) {
			struct rx_buf *buf = s->queue[class][s->taken[class] % RX_QUEUE];
			struct vtoe_msg_hdr hdr;

			if (s->taken[class] == s->received[class])
				continue;
			hdr = read_hdr(buf);
			if (!s->broken) {
				if (le64toh(hdr.offset) != s->consumed)
					continue;
				if (!verify(g, c, buf, s->consumed, le32toh(hdr.len)))
					return;
				s->consumed += le32toh(hdr.len);
			}
			s->taken[class]++;
			post_rx(g, buf);
			any = true;
		}
	}
}

static void event_used(struct guest *g, const struct vtoe_event *event)
{
	struct stream *s = NULL;
	unsigned int c;

	for (c = 0; c < N_CONNS; c++)
		if (g->stream[c].sid == le32toh(event->sid))
			s = &g->stream[c];
	if (s && le16toh(event->type) == VTOE_EV_CREDIT) {
		take_peer(s, &event->u.credit.credit);
	} else if (s && le16toh(event->type) == VTOE_EV_DISCONNECTED) {
		if (le16toh(event->flags) & VTOE_DISC_F_FIN) {
			s->fin = true;
			s->final_offset = le64toh(event->u.disconnected.final_offset);
			g->early_fins += s->final_offset > s->consumed;
		} else {
			s->broken = true;
			s->reason = le32toh(event->reason);
		}
	} else {
		snprintf(g->fault, sizeof(g->fault), "event %u for sid %#x", le16toh(event->type),
			 le32toh(event->sid));
	}
}

/* ---- sending ---- */

static unsigned int class_of(uint32_t len)
{
	return len <= SMALL_SIZE ? VNET_RWQ_SMALL : VNET_RWQ_LARGE;
}

static uint32_t next_len(struct guest *g, struct stream *s)
{
	uint32_t kind = draw(g, 10), len;

	len = 1 + (kind < 3 ? draw(g, 64) : kind < 7 ? draw(g, SMALL_SIZE) : draw(g, LARGE_SIZE));
	if (kind == 9)
		len = draw(g, 2) ? LARGE_SIZE : SMALL_SIZE; /* the limits themselves */
	if (len > s->max_len)
		len = 1 + len % s->max_len;
	return len;
}

static bool has_credit(const struct stream *s, uint32_t len)
{
	unsigned int class = class_of(len);

	return s->sent[class] != le32toh(s->peer.msg_limit[class]) &&
	       s->next + len <= le64toh(s->peer.byte_limit);
}

static void send_some(struct guest *g, unsigned int c)
{
	struct stream *s = &g->stream[c];
	struct vtoe_credit credit;
	unsigned int class, budget = 4;

	while (!s->broken && s->next < s->end && budget--) {
		uint32_t len = s->next_len ? s->next_len : next_len(g, s);

		if (len > s->end - s->next)
			len = s->end - s->next;
		s->next_len = len;
		credit = credit_now(s);
		if (!has_credit(s, len) || !send_msg(g, c, VTOE_MSG_DATA, len, &credit))
			break;
		s->sent[class_of(len)]++;
		s->next_len = 0;
	}
	/* Credit alone, if half a share is unsaid or the reader has caught up. */
	if (s->broken)
		return;
	credit = credit_now(s);
	for (class = 0; class < VNET_RWQ_CLASSES; class++)
		if ((le32toh(credit.msg_limit[class]) - le32toh(s->told.msg_limit[class])) * 2 >=
			    s->share[class] && credit.msg_limit[class] != s->told.msg_limit[class])
			break;
	if (class < VNET_RWQ_CLASSES ||
	    (credit.ack != s->told.ack && s->taken[0] == s->received[0] && s->taken[1] == s->received[1]) ||
	    s->consumed - le64toh(s->told.ack) >= BYTE_WINDOW / 2)
		send_msg(g, c, VTOE_MSG_CREDIT, 0, &credit);
}

/* One round over the rings. True if anything had been used. */
static bool work(struct guest *g)
{
	unsigned int c, q;
	uint32_t len;
	bool any = false;
	void *token;

	while ((token = ring_driver_get_used(&g->ring[Q_SWQ], &len))) {
		*(bool *)token = false;
		any = true;
	}
	for (q = Q_RWQ_SMALL; q <= Q_RWQ_LARGE; q++)
		while ((token = ring_driver_get_used(&g->ring[q], &len))) {
			rx_used(g, token, len);
			any = true;
		}
	while ((token = ring_driver_get_used(&g->ring[Q_EQ], &len))) {
		event_used(g, token);
		post_event(g, token);
		any = true;
	}
	while (ring_driver_get_used(&g->ring[Q_CR], &len))
		g->reply_come = any = true;
	for (c = 0; c < N_CONNS; c++)
		deliver(g, c);
	for (c = 0; c < N_CONNS; c++)
		send_some(g, c);
	/* Buffers are visible on the RWQ before the credit for them is on the SWQ. */
	ring_driver_publish(&g->ring[Q_RWQ_SMALL]);
	ring_driver_publish(&g->ring[Q_RWQ_LARGE]);
	for (q = 0; q < Q_COUNT; q++)
		ring_driver_kick(&g->ring[q]);
	return any;
}

/*
 * Works until done() says so. Sleeps on the interrupt alone; the long time-out
 * only exists to find a lost one.
 */
static bool run_until(struct guest *g, bool (*done)(const struct guest *g))
{
	double limit = now_s() + SCENE_LIMIT_S;
	struct pollfd fds[Q_COUNT];
	bool slept_out = false;
	unsigned int q;

	for (q = 0; q < Q_COUNT; q++)
		fds[q] = (struct pollfd){ g->ring[q].call_fd, POLLIN, 0 };

	while (!g->fault[0]) {
		bool any = work(g), more = false;

		if (slept_out && any)
			g->late++;
		slept_out = false;
		if (done(g))
			return true;
		if (agent_fault(g->agent)) {
			snprintf(g->fault, sizeof(g->fault), "agent: %s", agent_fault(g->agent));
			break;
		}
		if (now_s() > limit) {
			snprintf(g->fault, sizeof(g->fault), "not done after %d s", SCENE_LIMIT_S);
			break;
		}
		for (q = 0; q < Q_COUNT; q++)
			more |= ring_driver_enable_calls(&g->ring[q]);
		if (any || more)
			continue;
		slept_out = poll(fds, Q_COUNT, 2000) == 0;
		for (q = 0; q < Q_COUNT; q++)
			ring_driver_ack_call(&g->ring[q]);
	}
	return false;
}

struct guest *guest_create(int host, struct agent_config *config)
{
	static const uint16_t num[Q_COUNT] = { 256, 512, 128, EQ_BUFS, 8 };
	static const uint32_t bufs[] = { SMALL_BUFS, LARGE_BUFS }, size[] = { SMALL_SIZE, LARGE_SIZE };
	const size_t hdr = sizeof(struct vtoe_msg_hdr), table = 3 * sizeof(struct vring_desc);
	struct guest *g = calloc(1, sizeof(*g));
	unsigned int i, c;

	if (!g || ring_memory_create(&g->mem, GUEST_GPA, GUEST_MEM))
		return NULL;
	g->host = host;
	g->random = host + 1;
	g->pattern = malloc(PERIOD + LARGE_SIZE);
	if (!g->pattern)
		return NULL;
	for (i = 0; i < PERIOD + LARGE_SIZE; i++)
		g->pattern[i] = (i % PERIOD * 2654435761u) >> 13;
	config->host = host;
	config->mem_fd = dup(g->mem.fd);
	for (i = 0; i < Q_COUNT; i++) {
		struct ring_driver *ring = &g->ring[i];

		if (ring_driver_create(ring, &g->mem, num[i], true))
			return NULL;
		config->queue[i] = (struct queue_place){ num[i], ring->desc_gpa, ring->avail_gpa,
							 ring->used_gpa, dup(ring->kick_fd), dup(ring->call_fd) };
	}
	for (c = 0; c < VNET_RWQ_CLASSES; c++)
		for (i = 0; i < bufs[c]; i++) {
			struct rx_buf *buf = &g->rx[c][i];

			buf->class = c;
			buf->index = i;
			buf->table = ring_memory_alloc(&g->mem, table, 16);
			/* Every second header lies apart; all at odd addresses. */
			buf->hdr = take_mem(g, hdr + (i % 2 ? 0 : size[c]) + 13, 1);
			buf->payload = i % 2 ? take_mem(g, size[c] + 7, 1) : (uint8_t *)buf->hdr + hdr;
		}
	for (i = 0; i < SWQ_SLOTS; i++) {
		g->slot_table[i] = ring_memory_alloc(&g->mem, table, 16);
		g->slot[i] = take_mem(g, hdr + LARGE_SIZE + 11, 1);
	}
	for (i = 0; i < EQ_BUFS; i++)
		g->event[i] = take_mem(g, sizeof(struct vtoe_event), 8);
	g->cmd = take_mem(g, sizeof(*g->cmd), 8);
	g->reply = take_mem(g, sizeof(*g->reply), 8);
	for (i = 0; i < N_CONNS; i++) {
		g->stream[i].sid = SID_OF(host, i);
		g->stream[i].reading = true;
	}
	return g;
}

/* ---- scenes ---- */

static bool all_granted(const struct guest *g)
{
	unsigned int c;

	for (c = 0; c < N_CONNS; c++)
		if (!g->stream[c].peer.msg_limit[0] || !g->stream[c].peer.msg_limit[1])
			return false;
	return true;
}

/* Everything we sent was consumed, and as much came: both sides send alike. */
static bool stream_done(const struct stream *s)
{
	return s->broken || s->closed || (le64toh(s->peer.ack) == s->end && s->consumed == s->end);
}

static bool all_done(const struct guest *g)
{
	unsigned int c;

	for (c = 0; c < N_CONNS; c++)
		if (!stream_done(&g->stream[c]))
			return false;
	return true;
}

static bool all_but_first_done(const struct guest *g)
{
	const struct stream *s = &g->stream[0];
	unsigned int c;

	for (c = 1; c < N_CONNS; c++)
		if (!stream_done(&g->stream[c]))
			return false;
	if (g->host == 1) /* the other's reader stands: we have used up its credit */
		return s->next < s->end && s->next_len && !has_credit(s, s->next_len);
	return s->received[0] + s->received[1] > s->taken[0] + s->taken[1];
}

static bool fins_come(const struct guest *g)
{
	return g->stream[1].fin && g->stream[1].consumed == g->stream[1].final_offset && g->reply_come;
}

static bool second_stuck(const struct guest *g)
{
	const struct stream *s = &g->stream[2];
	unsigned int i;

	if (g->host == 1)
		return s->broken;
	for (i = 0; i < SWQ_SLOTS; i++)
		if (g->slot_busy[i]) /* the agent has not looked at all of it yet */
			return false;
	return s->sent[VNET_RWQ_SMALL] == le32toh(s->peer.msg_limit[VNET_RWQ_SMALL]);
}

static bool second_broken(const struct guest *g)
{
	return g->stream[2].broken;
}

static bool third_flows(const struct guest *g)
{
	return g->stream[3].end - g->stream[3].consumed < 60 << 20;
}

static bool third_broken(const struct guest *g)
{
	return g->stream[3].broken;
}

static void add_bytes(struct guest *g, unsigned int c, uint64_t bytes, uint32_t max_len)
{
	g->stream[c].end += bytes;
	g->stream[c].max_len = max_len;
	g->stream[c].next_len = 0;
}

static void scene_grant(struct guest *g)
{
	static const unsigned int bufs[] = { SMALL_BUFS, LARGE_BUFS };
	unsigned int i, c;

	for (i = 0; i < EQ_BUFS; i++)
		post_event(g, g->event[i]);
	for (c = 0; c < VNET_RWQ_CLASSES; c++) {
		for (i = 0; i < bufs[c]; i++)
			post_rx(g, &g->rx[c][i]);
		for (i = 0; i < N_CONNS; i++)
			g->stream[i].share[c] = bufs[c] / N_CONNS;
	}
	run_until(g, all_granted);
}

static void command(struct guest *g, unsigned int c, enum vtoe_opcode opcode)
{
	struct ring_piece seg[2] = { { gpa_of(g, g->cmd), sizeof(*g->cmd) },
				     { gpa_of(g, g->reply), sizeof(*g->reply) } };

	memset(g->cmd, 0, sizeof(*g->cmd));
	g->cmd->opcode = htole16(opcode);
	g->cmd->sid = htole32(g->stream[c].sid);
	if (opcode == VTOE_CMD_SHUTDOWN)
		g->cmd->u.shutdown.final_offset = htole64(g->stream[c].end);
	g->reply_come = false;
	ring_driver_add(&g->ring[Q_CR], seg, 1, 1, g->cmd, 0);
}

static bool reply_come(const struct guest *g)
{
	return g->reply_come;
}

static void scene_fin(struct guest *g)
{
	add_bytes(g, 1, 256 << 10, LARGE_SIZE);
	work(g);
	command(g, 1, VTOE_CMD_SHUTDOWN);
	if (run_until(g, fins_come) && g->reply->status)
		snprintf(g->fault, sizeof(g->fault), "SHUTDOWN: %s",
			 vtoe_reason_name(le32toh(g->reply->status)));
	run_until(g, all_done);
	command(g, 1, VTOE_CMD_CLOSE);
	if (run_until(g, reply_come) && g->reply->status)
		snprintf(g->fault, sizeof(g->fault), "CLOSE: %s",
			 vtoe_reason_name(le32toh(g->reply->status)));
	g->stream[1].closed = true;
}

/* The shares of ended connections go to connection 0, as soon as they can. */
static void inherit(struct guest *g)
{
	unsigned int c, i;

	for (i = 1; i < N_CONNS; i++) {
		if (!g->stream[i].broken && !g->stream[i].closed)
			continue;
		deliver(g, i); /* gives the unread buffers of a broken one back */
		for (c = 0; c < VNET_RWQ_CLASSES; c++) {
			g->stream[0].share[c] += g->stream[i].share[c];
			g->stream[i].share[c] = 0;
		}
	}
}

/* Host 0 sends to a reader that stands, until its credit ends; then one more. */
static void scene_violate(struct guest *g, struct agent *a)
{
	struct stream *s = &g->stream[2];
	struct vtoe_credit credit;
	uint64_t before;
	uint32_t received = s->received[VNET_RWQ_SMALL];

	if (g->host == 0) {
		add_bytes(g, 2, 64u << 10, 64);
		if (!run_until(g, second_stuck))
			return;
		before = agent_get_stats(a)->tx_msgs[VNET_RWQ_SMALL];
		credit = credit_now(s);
		s->end = s->next; /* nothing else goes out */
		send_msg(g, 2, VTOE_MSG_DATA, 1, &credit);
		run_until(g, second_broken);
		if (s->reason != VTOE_REASON_CREDIT)
			snprintf(g->fault, sizeof(g->fault), "broken for reason %s", vtoe_reason_name(s->reason));
		else if (agent_get_stats(a)->tx_msgs[VNET_RWQ_SMALL] != before)
			snprintf(g->fault, sizeof(g->fault), "the agent sent it");
		return;
	}
	s->reading = false;
	run_until(g, second_stuck);
	if (s->reason != VTOE_REASON_RESET)
		snprintf(g->fault, sizeof(g->fault), "broken for reason %s", vtoe_reason_name(s->reason));
	else if (s->received[VNET_RWQ_SMALL] - received != s->share[VNET_RWQ_SMALL])
		snprintf(g->fault, sizeof(g->fault), "%u messages came, %u were granted",
			 s->received[VNET_RWQ_SMALL] - received, s->share[VNET_RWQ_SMALL]);
}

/* Host 1 grants one buffer more than it has posted, under traffic from host 0. */
static void scene_overgrant(struct guest *g, struct agent *a)
{
	struct stream *s = &g->stream[3];
	struct vtoe_credit credit;
	unsigned int i, share = 0;

	add_bytes(g, 3, 64 << 20, LARGE_SIZE);
	if (g->host == 1) {
		if (!run_until(g, third_flows))
			return;
		/* More than all that the other connections leave. */
		for (i = 0; i < N_CONNS; i++)
			if (!g->stream[i].broken && !g->stream[i].closed && i != 3)
				share += g->stream[i].share[VNET_RWQ_LARGE];
		do {
			work(g);
			credit = credit_now(s);
			credit.msg_limit[VNET_RWQ_LARGE] =
				htole32(s->taken[VNET_RWQ_LARGE] + LARGE_BUFS - share + 1);
		} while (!send_msg(g, 3, VTOE_MSG_CREDIT, 0, &credit));
	}
	if (!run_until(g, third_broken))
		return;
	if (s->reason != (g->host == 1 ? VTOE_REASON_CREDIT : VTOE_REASON_RESET))
		snprintf(g->fault, sizeof(g->fault), "broken for reason %s", vtoe_reason_name(s->reason));
	else if (g->host == 1 && !agent_get_stats(a)->violations_grant)
		snprintf(g->fault, sizeof(g->fault), "nobody noticed");
	/* At once, while messages of the dead connection may still come. */
	inherit(g);
	work(g);
}

static void scene_regrant(struct guest *g, const struct agent_stats *stats)
{
	add_bytes(g, 0, 8 << 20, LARGE_SIZE);
	run_until(g, all_done);
	if (!g->fault[0] && g->host == 1 && !stats->grants_deferred)
		snprintf(g->fault, sizeof(g->fault), "no grant had to wait for a dead connection's messages");
	if (!g->fault[0] && (g->stream[0].share[0] != SMALL_BUFS || g->stream[0].share[1] != LARGE_BUFS))
		snprintf(g->fault, sizeof(g->fault), "not all buffers were inherited");
}

/* Which connections must have been broken by the end of each scene. */
static bool broken_as_planned(struct guest *g, unsigned int scene)
{
	unsigned int c;

	for (c = 0; c < N_CONNS; c++) {
		bool plan = (c == 2 && scene >= SCENE_VIOLATE) || (c == 3 && scene >= SCENE_OVERGRANT);

		if (g->stream[c].broken == plan)
			continue;
		snprintf(g->fault, sizeof(g->fault), "conn %u is %s, reason %s", c,
			 plan ? "not broken" : "broken", vtoe_reason_name(g->stream[c].reason));
		return false;
	}
	return true;
}

const char *guest_scene(struct guest *g, struct agent *a, unsigned int n, char *info, size_t info_size)
{
	const struct agent_stats *stats = agent_get_stats(a);
	uint64_t reordered = g->reordered, credit_msgs = g->credit_msgs, late = g->late;
	uint64_t small = g->msgs[0], large = g->msgs[1], deferred = stats->grants_deferred;
	const char *fault;
	unsigned int c;

	info[0] = 0;
	g->agent = a;
	switch (n) {
	case SCENE_UP:
		fault = agent_order(a, AGENT_WAIT_UP, NULL);
		if (fault)
			return fault;
		snprintf(info, info_size, "%u MB registered in %.0f ms; max_sge %u, max_srq_sge %u; inline %u; %u bytes of private data came",
			 GUEST_MEM >> 20, stats->reg_ms, stats->max_sge, stats->max_srq_sge, stats->max_inline, stats->cm_private_len);
		return NULL;
	case SCENE_GRANT:
		scene_grant(g);
		break;
	case SCENE_BULK:
		for (c = 0; c < N_CONNS; c++)
			add_bytes(g, c, 16 << 20, LARGE_SIZE);
		run_until(g, all_done);
		if (!g->fault[0] && g->reordered == reordered)
			snprintf(g->fault, sizeof(g->fault), "no message overtook another: the test shows nothing");
		break;
	case SCENE_ONE_BYTE:
		for (c = 0; c < N_CONNS; c++)
			add_bytes(g, c, 1000, 1);
		if (run_until(g, all_done) && g->msgs[0] - small != 1000 * N_CONNS)
			snprintf(g->fault, sizeof(g->fault), "%llu messages", (unsigned long long)(g->msgs[0] - small));
		break;
	case SCENE_STUCK:
		g->stream[0].reading = g->host == 1;
		if (g->host == 1)
			add_bytes(g, 0, 4 << 20, LARGE_SIZE);
		for (c = 1; c < N_CONNS; c++)
			add_bytes(g, c, 2 << 20, LARGE_SIZE);
		run_until(g, all_but_first_done);
		break;
	case SCENE_RESUME:
		g->stream[0].reading = true;
		if (g->host == 0)
			add_bytes(g, 0, 4 << 20, LARGE_SIZE);
		run_until(g, all_done);
		break;
	case SCENE_FIN:
		scene_fin(g);
		break;
	case SCENE_VIOLATE:
		scene_violate(g, a);
		break;
	case SCENE_OVERGRANT:
		scene_overgrant(g, a);
		break;
	case SCENE_REGRANT:
		scene_regrant(g, stats);
		break;
	}
	snprintf(info, info_size, "got %llu small, %llu large, %llu out of turn; sent %llu credit messages; %llu grants deferred, %llu buffers recycled, %llu early FINs",
		 (unsigned long long)(g->msgs[0] - small), (unsigned long long)(g->msgs[1] - large),
		 (unsigned long long)(g->reordered - reordered), (unsigned long long)(g->credit_msgs - credit_msgs),
		 (unsigned long long)(stats->grants_deferred - deferred), (unsigned long long)stats->recycled,
		 (unsigned long long)g->early_fins);
	if (!g->fault[0])
		broken_as_planned(g, n);
	/* One may have come just when the time-out did. */
	if (!g->fault[0] && g->late > late + 1)
		snprintf(g->fault, sizeof(g->fault), "%llu interrupts were lost", (unsigned long long)(g->late - late));
	return g->fault[0] ? g->fault : NULL;
}
