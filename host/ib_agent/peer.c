// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Control channels to the agents of other hosts.
 *
 * Theory of operation. A channel is made when a tenant's process asks for a
 * lane to an agent that we have none to; then it stays, with a PING when it is
 * quiet. Each side says HELLO first; the lower of both versions is spoken. On a
 * channel that we made we ask (LANE_ASK, LANE_ANSWER); on one that a peer made
 * the peer asks: two hosts whose VMs call each other have one channel in each
 * direction. A channel that fails answers what it was asked with NO_LANE, and
 * the next question makes a new one.
 *
 *   CONNECTING -> HANDSHAKE -> HELLO -> UP      (ours)
 *                 HANDSHAKE -> HELLO -> UP      (accepted)
 *
 * Threat model. The network may connect and say anything: until the handshake
 * has proved that the peer knows the key only OpenSSL reads its bytes; how many
 * such peers there are at once is bounded, and each has five seconds. One that
 * knows the key is an agent, but perhaps a broken one: a message is a row of
 * the table with its exact length, reserved fields are zero, what it may ask
 * at once is bounded. A peer whose HELLO bears our own name is our reflection
 * (or a copied configuration): refused.
 */
#include "control.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "conf.h"
#include "tls.h"

#define INCOMING_MAX 64
#define PEERS_MAX 4096
#define QUESTIONS_MAX 256 /* not answered yet, of one peer, either direction */
#define OPEN_TIMEOUT_US (5 * 1000000ull)
#define PING_AFTER_US (5 * 1000000ull)
#define SILENCE_MAX_US (15 * 1000000ull)
#define TX_MAX (64u << 10)
#define BODY_MAX sizeof(struct vnet_peer_lane_answer)
#define USER_TIMEOUT_MS 10000

enum peer_state { PEER_CONNECTING, PEER_HANDSHAKE, PEER_HELLO, PEER_UP };

struct question {
	struct iba_ask ask;
	uint32_t seq; /* on the channel */
	bool sent;
	uint64_t deadline_us;
	TAILQ_ENTRY(question) link;
};

struct iba_peer {
	struct iba_control *c;
	uint64_t id;
	enum peer_state state;
	bool ours; /* we connected */
	struct sockaddr_storage addr;
	char name[SOCKADDR_STRLEN + VNET_NAME_LEN]; /* address, then host too */
	int fd;
	struct loop_fd *source;
	struct iba_tls *tls;
	uint64_t deadline_us; /* until UP */
	uint64_t heard_us, pinged_us;
	uint32_t seq;
	TAILQ_HEAD(, question) questions; /* ours to it */
	unsigned int question_count;
	unsigned int asked; /* its to us, with a tenant's process now */
	uint8_t rx[sizeof(struct vnet_peer_hdr) + BODY_MAX];
	uint32_t rx_len;
	uint8_t *tx;
	uint32_t tx_len, tx_room;
	bool dead;
	TAILQ_ENTRY(iba_peer) link;
};

static void peer_event(int fd, uint32_t events, void *ctx);
static void peer_flush(struct iba_peer *peer);

/* ---- the object ---- */

static struct iba_peer *peer_create(struct iba_control *c, int fd, bool ours,
				    const struct sockaddr_storage *addr)
{
	struct iba_peer *peer = calloc(1, sizeof(*peer));

	if (!peer)
		return NULL;
	peer->c = c;
	peer->id = ++c->next_id;
	peer->ours = ours;
	peer->addr = *addr;
	peer->fd = fd;
	peer->state = ours ? PEER_CONNECTING : PEER_HANDSHAKE;
	peer->heard_us = loop_now_us();
	peer->deadline_us = peer->heard_us + OPEN_TIMEOUT_US;
	sockaddr_format(addr, peer->name);
	TAILQ_INIT(&peer->questions);
	peer->tls = iba_tls_create(c->tls, fd, !ours);
	peer->source = loop_add_fd(c->loop, fd, ours ? EPOLLOUT : EPOLLIN,
				   peer_event, peer);
	if (!peer->tls || !peer->source) {
		iba_tls_destroy(peer->tls);
		loop_remove_fd(peer->source);
		free(peer);
		return NULL;
	}
	TAILQ_INSERT_TAIL(&c->peers, peer, link);
	if (!ours)
		c->incoming++;
	iba_control_need_tick(c);
	return peer;
}

static void answer_question(struct iba_peer *peer, struct question *q,
			    const struct vnet_peer_lane_answer *answer)
{
	TAILQ_REMOVE(&peer->questions, q, link);
	peer->question_count--;
	iba_control_lane_answer(peer->c, &q->ask, answer);
	free(q);
}

static void refuse(struct iba_control *c, const struct iba_ask *ask,
		   enum vtoe_reason reason)
{
	struct vnet_peer_lane_answer answer = { .status = htole32(reason) };

	iba_control_lane_answer(c, ask, &answer);
}

/*
 * Ends the channel; its memory goes with the next tick, since callers are in
 * the middle of it.
 */
static void peer_end(struct iba_peer *peer, enum vtoe_reason reason,
		     const char *why)
{
	struct vnet_peer_lane_answer answer = { .status = htole32(reason) };
	struct iba_control *c = peer->c;
	struct question *q;

	if (peer->dead)
		return;
	peer->dead = true;
	if (!peer->ours && peer->state != PEER_UP) {
		c->incoming--;
		c->stats.refused++;
	}
	if (peer->ours || peer->state == PEER_UP ||
	    log_ratelimited_ok(&c->log_limit, 10, 10))
		log_warn("peer %s: control channel ends: %s (%s)", peer->name,
			 why, vtoe_reason_name(reason));
	loop_remove_fd(peer->source);
	iba_tls_destroy(peer->tls);
	close(peer->fd);
	peer->source = NULL;
	peer->tls = NULL;
	peer->fd = -1;
	while ((q = TAILQ_FIRST(&peer->questions)))
		answer_question(peer, q, &answer);
	iba_control_need_tick(c);
}

static void peer_free(struct iba_peer *peer)
{
	TAILQ_REMOVE(&peer->c->peers, peer, link);
	free(peer->tx);
	free(peer);
}

/* ---- sending ---- */

static void peer_watch(struct iba_peer *peer)
{
	uint32_t events = EPOLLIN;

	if (peer->tx_len || iba_tls_wants_write(peer->tls))
		events |= EPOLLOUT;
	loop_set_events(peer->source, events);
}

static bool tx_reserve(struct iba_peer *peer, uint32_t len)
{
	uint32_t room = peer->tx_room ? peer->tx_room : 256;
	uint8_t *tx;

	if (peer->tx_len + len > TX_MAX)
		return false;
	while (room < peer->tx_len + len)
		room *= 2;
	if (room == peer->tx_room)
		return true;
	tx = realloc(peer->tx, room);
	if (!tx)
		return false;
	peer->tx = tx;
	peer->tx_room = room;
	return true;
}

static void peer_send(struct iba_peer *peer, enum vnet_peer_type type,
		      uint32_t seq, const void *body, uint32_t len)
{
	struct vnet_peer_hdr hdr = {
		.magic = htole32(VNET_PEER_MAGIC),
		.type = htole16(type),
		.len = htole32(len),
		.seq = htole32(seq),
	};

	if (peer->dead)
		return;
	if (!tx_reserve(peer, sizeof(hdr) + len)) {
		peer_end(peer, VTOE_REASON_LIMIT, "it does not read");
		return;
	}
	memcpy(peer->tx + peer->tx_len, &hdr, sizeof(hdr));
	if (len)
		memcpy(peer->tx + peer->tx_len + sizeof(hdr), body, len);
	peer->tx_len += (uint32_t)sizeof(hdr) + len;
	peer_flush(peer);
}

static void peer_flush(struct iba_peer *peer)
{
	while (peer->tx_len) {
		ssize_t n = iba_tls_write(peer->tls, peer->tx, peer->tx_len);

		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			peer_end(peer, VTOE_REASON_NO_LANE, iba_tls_error());
			return;
		}
		peer->tx_len -= (uint32_t)n;
		memmove(peer->tx, peer->tx + n, peer->tx_len);
	}
	peer_watch(peer);
}

static void send_hello(struct iba_peer *peer)
{
	struct vnet_peer_hello hello = {
		.version = htole16(VNET_PEER_VERSION),
		.fabrics = htole16(iba_config_fabrics(peer->c->cfg) &
				   (uint16_t)~(1u << VTOE_FABRIC_LOCAL)),
	};

	memcpy(hello.host, peer->c->cfg->host, sizeof(hello.host));
	peer_send(peer, VNET_PEER_HELLO, ++peer->seq, &hello, sizeof(hello));
}

static void send_question(struct iba_peer *peer, struct question *q)
{
	struct vnet_peer_lane_ask ask = {
		.tenant = htole32(q->ask.tenant),
		.fabric = htole16(q->ask.fabric),
	};

	q->sent = true;
	q->seq = ++peer->seq;
	peer_send(peer, VNET_PEER_LANE_ASK, q->seq, &ask, sizeof(ask));
}

/* ---- messages ---- */

static bool name_ok(const char name[VNET_NAME_LEN])
{
	size_t len = strnlen(name, VNET_NAME_LEN);

	if (!len || len == VNET_NAME_LEN)
		return false;
	for (size_t i = 0; i < VNET_NAME_LEN; i++)
		if (i < len ? name[i] <= ' ' || name[i] > '~' : name[i] != 0)
			return false;
	return true;
}

static void do_hello(struct iba_peer *peer, uint32_t seq, const void *body)
{
	struct vnet_peer_hello hello;
	struct question *q, *next;
	size_t len;

	(void)seq;
	memcpy(&hello, body, sizeof(hello));
	if (hello.reserved || !name_ok(hello.host)) {
		peer_end(peer, VTOE_REASON_PROTOCOL, "bad HELLO");
		return;
	}
	if (le16toh(hello.version) < VNET_PEER_VERSION) {
		peer_end(peer, VTOE_REASON_VERSION,
			 "it speaks an older version of the protocol");
		return;
	}
	if (!strcmp(hello.host, peer->c->cfg->host)) {
		peer_end(peer, VTOE_REASON_PROTOCOL,
			 "it has our own host name");
		return;
	}
	len = strlen(peer->name);
	snprintf(peer->name + len, sizeof(peer->name) - len, " %s", hello.host);
	peer->state = PEER_UP;
	if (!peer->ours)
		peer->c->incoming--;
	log_info("peer %s: control channel up, %s", peer->name,
		 peer->ours ? "ours" : "theirs");
	for (q = TAILQ_FIRST(&peer->questions); q && !peer->dead; q = next) {
		next = TAILQ_NEXT(q, link);
		send_question(peer, q);
	}
}

static void do_lane_ask(struct iba_peer *peer, uint32_t seq, const void *body)
{
	struct vnet_peer_lane_answer answer = { 0 };
	static const uint8_t zero[sizeof(((struct vnet_peer_lane_ask *)0)->reserved1)];
	struct vnet_peer_lane_ask ask;
	uint16_t fabric;
	enum vtoe_reason reason;

	memcpy(&ask, body, sizeof(ask));
	if (ask.reserved || memcmp(ask.reserved1, zero, sizeof(zero))) {
		peer_end(peer, VTOE_REASON_PROTOCOL, "bad LANE_ASK");
		return;
	}
	fabric = le16toh(ask.fabric);
	if (peer->asked >= QUESTIONS_MAX)
		reason = VTOE_REASON_LIMIT;
	else if (fabric == VTOE_FABRIC_LOCAL ||
		 !iba_config_allows(peer->c->cfg, fabric))
		reason = VTOE_REASON_NO_LANE;
	else
		reason = iba_control_token_ask(peer->c, le32toh(ask.tenant),
					       fabric, &peer->addr, peer->id,
					       seq);
	if (!reason) {
		peer->asked++;
		return;
	}
	answer.status = htole32(reason);
	peer_send(peer, VNET_PEER_LANE_ANSWER, seq, &answer, sizeof(answer));
}

static void do_lane_answer(struct iba_peer *peer, uint32_t seq, const void *body)
{
	struct vnet_peer_lane_answer answer;
	struct question *q;

	memcpy(&answer, body, sizeof(answer));
	if (answer.reserved || answer.addr.reserved) {
		peer_end(peer, VTOE_REASON_PROTOCOL, "bad LANE_ANSWER");
		return;
	}
	TAILQ_FOREACH(q, &peer->questions, link)
		if (q->sent && q->seq == seq)
			break;
	if (q) /* else it was given up */
		answer_question(peer, q, &answer);
	explicit_bzero(&answer, sizeof(answer));
}

static void do_ping(struct iba_peer *peer, uint32_t seq, const void *body)
{
	(void)body;
	peer_send(peer, VNET_PEER_PONG, seq, NULL, 0);
}

static void do_pong(struct iba_peer *peer, uint32_t seq, const void *body)
{
	(void)peer;
	(void)seq;
	(void)body;
}

#define FROM_EITHER 0
#define FROM_ASKER 1	/* only on channels that the peer made */
#define FROM_ANSWERER 2 /* only on those that we made */

static const struct peer_row {
	uint32_t len; /* of the body */
	enum peer_state state;
	int from;
	void (*fn)(struct iba_peer *peer, uint32_t seq, const void *body);
} peer_rows[] = {
	[VNET_PEER_HELLO] = { sizeof(struct vnet_peer_hello), PEER_HELLO,
			      FROM_EITHER, do_hello },
	[VNET_PEER_LANE_ASK] = { sizeof(struct vnet_peer_lane_ask), PEER_UP,
				 FROM_ASKER, do_lane_ask },
	[VNET_PEER_LANE_ANSWER] = { sizeof(struct vnet_peer_lane_answer),
				    PEER_UP, FROM_ANSWERER, do_lane_answer },
	[VNET_PEER_PING] = { 0, PEER_UP, FROM_EITHER, do_ping },
	[VNET_PEER_PONG] = { 0, PEER_UP, FROM_EITHER, do_pong },
};
#define PEER_ROWS (sizeof(peer_rows) / sizeof(peer_rows[0]))

/* NULL: this header may not come now. */
static const struct peer_row *find_row(const struct iba_peer *peer,
				       const struct vnet_peer_hdr *hdr)
{
	uint16_t type = le16toh(hdr->type);
	const struct peer_row *row;

	if (le32toh(hdr->magic) != VNET_PEER_MAGIC || hdr->reserved ||
	    type >= PEER_ROWS || !peer_rows[type].fn)
		return NULL;
	row = &peer_rows[type];
	if (le32toh(hdr->len) != row->len || row->state != peer->state ||
	    (row->from == FROM_ASKER && peer->ours) ||
	    (row->from == FROM_ANSWERER && !peer->ours))
		return NULL;
	return row;
}

/* Runs the message in rx, if it is whole. False: it is not, or the end. */
static bool peer_message(struct iba_peer *peer)
{
	struct vnet_peer_hdr hdr;
	const struct peer_row *row;

	if (peer->rx_len < sizeof(hdr))
		return false;
	memcpy(&hdr, peer->rx, sizeof(hdr));
	row = find_row(peer, &hdr);
	if (!row) {
		peer->c->stats.malformed++;
		peer_end(peer, VTOE_REASON_PROTOCOL, "malformed message");
		return false;
	}
	if (peer->rx_len < sizeof(hdr) + row->len)
		return false;
	peer->rx_len = 0; /* no more than one message is ever read */
	row->fn(peer, le32toh(hdr.seq), peer->rx + sizeof(hdr));
	explicit_bzero(peer->rx, sizeof(peer->rx));
	return !peer->dead;
}

/* Bytes that rx lacks for its header, then for its message. */
static uint32_t peer_wants(const struct iba_peer *peer)
{
	struct vnet_peer_hdr hdr;

	if (peer->rx_len < sizeof(hdr))
		return (uint32_t)sizeof(hdr) - peer->rx_len;
	memcpy(&hdr, peer->rx, sizeof(hdr));
	/* find_row() has seen it: the length is that of a row */
	return (uint32_t)sizeof(hdr) + le32toh(hdr.len) - peer->rx_len;
}

static void peer_receive(struct iba_peer *peer)
{
	for (;;) {
		uint32_t want = peer_wants(peer);
		ssize_t n = iba_tls_read(peer->tls, peer->rx + peer->rx_len,
					 want);

		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			peer_end(peer, VTOE_REASON_NO_LANE,
				 n ? iba_tls_error() : "closed by the peer");
			return;
		}
		peer->heard_us = loop_now_us();
		peer->rx_len += (uint32_t)n;
		peer_message(peer);
		if (peer->dead)
			return;
	}
	peer_watch(peer);
}

/* ---- making a channel ---- */

static void peer_handshake(struct iba_peer *peer)
{
	int ret = iba_tls_handshake(peer->tls);

	if (ret < 0) {
		peer->c->stats.handshake_failed++;
		peer_end(peer, VTOE_REASON_NO_LANE, iba_tls_error());
		return;
	}
	if (ret == 0) {
		peer_watch(peer);
		return;
	}
	peer->state = PEER_HELLO;
	send_hello(peer);
	if (!peer->dead)
		peer_receive(peer);
}

static void peer_connected(struct iba_peer *peer)
{
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(peer->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		err = errno;
	if (err) {
		peer_end(peer, VTOE_REASON_NO_LANE, strerror(err));
		return;
	}
	peer->state = PEER_HANDSHAKE;
	peer_handshake(peer);
}

static void peer_event(int fd, uint32_t events, void *ctx)
{
	struct iba_peer *peer = ctx;

	(void)fd;
	switch (peer->state) {
	case PEER_CONNECTING:
		peer_connected(peer);
		break;
	case PEER_HANDSHAKE:
		peer_handshake(peer);
		break;
	default:
		if (events & EPOLLOUT)
			peer_flush(peer);
		if (!peer->dead)
			peer_receive(peer);
		break;
	}
}

static void set_options(int fd)
{
	int one = 1, timeout = USER_TIMEOUT_MS;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0 ||
	    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout,
		       sizeof(timeout)) < 0)
		log_warn("control channel: setsockopt: %s", strerror(errno));
}

static void peer_accept(int fd, uint32_t events, void *ctx)
{
	struct iba_control *c = ctx;
	struct sockaddr_storage addr = { 0 };
	socklen_t len = sizeof(addr);
	int sock;

	(void)events;
	sock = accept4(fd, (struct sockaddr *)&addr, &len,
		       SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (sock < 0)
		return;
	set_options(sock);
	if (c->incoming >= INCOMING_MAX || !peer_create(c, sock, false, &addr)) {
		c->stats.refused++;
		close(sock);
	}
}

/* From the address that we listen on: the peer knows hosts by that. */
static int peer_socket(const struct iba_control *c,
		       const struct sockaddr_storage *addr)
{
	struct sockaddr_storage from = c->cfg->listen;
	int fd;

	if (from.ss_family != addr->ss_family)
		return -EAFNOSUPPORT;
	if (from.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&from)->sin6_port = 0;
	else
		((struct sockaddr_in *)&from)->sin_port = 0;
	fd = socket(addr->ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
		    0);
	if (fd < 0)
		return -errno;
	set_options(fd);
	if (bind(fd, (struct sockaddr *)&from, sockaddr_len(&from)) < 0 ||
	    (connect(fd, (const struct sockaddr *)addr, sockaddr_len(addr)) < 0 &&
	     errno != EINPROGRESS)) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

static struct iba_peer *peer_connect(struct iba_control *c,
				     const struct sockaddr_storage *addr)
{
	struct iba_peer *peer;
	int fd = peer_socket(c, addr);

	if (fd < 0) {
		char name[SOCKADDR_STRLEN];

		log_warn("peer %s: cannot connect: %s",
			 sockaddr_format(addr, name), strerror(-fd));
		return NULL;
	}
	peer = peer_create(c, fd, true, addr);
	if (!peer)
		close(fd);
	return peer;
}

/* ---- from control.c ---- */

static struct iba_peer *find_ours(struct iba_control *c,
				  const struct sockaddr_storage *addr,
				  unsigned int *count)
{
	struct iba_peer *peer;

	*count = 0;
	TAILQ_FOREACH(peer, &c->peers, link) {
		if (!peer->dead && peer->ours && sockaddr_equal(&peer->addr, addr))
			return peer;
		++*count;
	}
	return NULL;
}

void iba_peer_lane_ask(struct iba_control *c, const struct vtoe_addr *agent,
		       const struct iba_ask *ask)
{
	struct sockaddr_storage addr;
	struct iba_peer *peer = NULL;
	unsigned int count;
	struct question *q;

	if (sockaddr_from_vtoe(agent, &addr) == 0) {
		peer = find_ours(c, &addr, &count);
		if (!peer && count < PEERS_MAX)
			peer = peer_connect(c, &addr);
	}
	q = peer && peer->question_count < QUESTIONS_MAX ? calloc(1, sizeof(*q)) :
							   NULL;
	if (!q) {
		refuse(c, ask, VTOE_REASON_NO_LANE);
		return;
	}
	q->ask = *ask;
	q->deadline_us = loop_now_us() + OPEN_TIMEOUT_US;
	TAILQ_INSERT_TAIL(&peer->questions, q, link);
	peer->question_count++;
	if (peer->state == PEER_UP)
		send_question(peer, q);
}

void iba_peer_token_answer(struct iba_control *c, uint64_t id,
			   uint32_t peer_seq,
			   const struct vnet_peer_lane_answer *answer)
{
	struct iba_peer *peer;

	TAILQ_FOREACH(peer, &c->peers, link)
		if (peer->id == id && !peer->dead)
			break;
	if (!peer) /* it has gone meanwhile */
		return;
	peer->asked--;
	peer_send(peer, VNET_PEER_LANE_ANSWER, peer_seq, answer,
		  sizeof(*answer));
}

/* ---- time ---- */

static void peer_tick(struct iba_peer *peer, uint64_t now_us)
{
	struct vnet_peer_lane_answer late = {
		.status = htole32(VTOE_REASON_TIMEOUT),
	};
	struct question *q, *next;

	if (peer->state != PEER_UP) {
		if (peer->deadline_us <= now_us)
			peer_end(peer, VTOE_REASON_TIMEOUT, "no answer");
		return;
	}
	for (q = TAILQ_FIRST(&peer->questions); q; q = next) {
		next = TAILQ_NEXT(q, link);
		if (q->deadline_us <= now_us)
			answer_question(peer, q, &late);
	}
	if (now_us - peer->heard_us >= SILENCE_MAX_US) {
		peer_end(peer, VTOE_REASON_TIMEOUT, "silence");
	} else if (now_us - peer->heard_us >= PING_AFTER_US &&
		   now_us - peer->pinged_us >= PING_AFTER_US) {
		peer->pinged_us = now_us;
		peer_send(peer, VNET_PEER_PING, ++peer->seq, NULL, 0);
	}
}

/* True: there are peers, so ask again. */
bool iba_peers_tick(struct iba_control *c, uint64_t now_us)
{
	struct iba_peer *peer, *next;

	for (peer = TAILQ_FIRST(&c->peers); peer; peer = next) {
		next = TAILQ_NEXT(peer, link);
		if (!peer->dead)
			peer_tick(peer, now_us);
		if (peer->dead)
			peer_free(peer);
	}
	return !TAILQ_EMPTY(&c->peers);
}

/* ---- start and stop ---- */

int iba_peers_start(struct iba_control *c, const uint8_t key[IBA_KEY_LEN])
{
	char name[SOCKADDR_STRLEN];
	int one = 1;

	TAILQ_INIT(&c->peers);
	c->peer_fd = -1;
	if (!iba_config_allows(c->cfg, VTOE_FABRIC_TCP))
		return 0; /* nothing to talk about */
	c->tls = iba_tls_ctx_create(key);
	if (!c->tls) {
		log_err("TLS: %s", iba_tls_error());
		return -ENOMEM;
	}
	c->peer_fd = socket(c->cfg->listen.ss_family,
			    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->peer_fd < 0 ||
	    setsockopt(c->peer_fd, SOL_SOCKET, SO_REUSEADDR, &one,
		       sizeof(one)) < 0 ||
	    bind(c->peer_fd, (const struct sockaddr *)&c->cfg->listen,
		 sockaddr_len(&c->cfg->listen)) < 0 ||
	    listen(c->peer_fd, INCOMING_MAX) < 0) {
		int err = -errno;

		log_err("listen %s: %s", sockaddr_format(&c->cfg->listen, name),
			strerror(-err));
		return err;
	}
	c->peer_source = loop_add_fd(c->loop, c->peer_fd, EPOLLIN, peer_accept,
				     c);
	return c->peer_source ? 0 : -errno;
}

/* Also in a forked child, which shares the sockets: nothing is said on them. */
void iba_peers_stop(struct iba_control *c)
{
	struct iba_peer *peer;
	struct question *q;

	while ((peer = TAILQ_FIRST(&c->peers))) {
		while ((q = TAILQ_FIRST(&peer->questions))) {
			TAILQ_REMOVE(&peer->questions, q, link);
			free(q);
		}
		iba_tls_destroy(peer->tls);
		if (peer->fd >= 0)
			close(peer->fd);
		peer_free(peer);
	}
	if (c->peer_fd >= 0)
		close(c->peer_fd);
	c->peer_fd = -1;
	iba_tls_ctx_destroy(c->tls);
	c->tls = NULL;
}
