// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Control channels to the agents of other hosts.
 *
 * Theory of operation. A channel is made when a tenant's process asks for a
 * lane to an agent that we have none to; then it stays, with a PING when it is
 * quiet. Each side says HELLO first, and hears out only its own version. On a
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
 * such peers there are at once is bounded, and each has five seconds, or less when
 * others come: the oldest gives way, so that those who are many do not keep out
 * those who know the key. What one of these may say: peer_msg.c.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "conf.h"
#include "peer.h"

#define INCOMING_MAX 64
#define RX_READS 32 /* of one peer, before others are looked at */
#define OPEN_TIMEOUT_US (5 * 1000000ull)
#define PING_AFTER_US (5 * 1000000ull)
#define SILENCE_MAX_US (15 * 1000000ull)
#define TX_MAX (64u << 10)
#define USER_TIMEOUT_MS 10000

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

/*
 * Ends the channel; its memory goes with the next tick, since callers are in
 * the middle of it.
 */
void iba_peer_end(struct iba_peer *peer, enum vtoe_reason reason,
		  const char *why)
{
	struct vnet_peer_lane_answer answer = { .status = htole32(reason) };
	struct iba_control *c = peer->c;
	struct iba_question *q;

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
		iba_peer_answer_question(peer, q, &answer);
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

void iba_peer_send(struct iba_peer *peer, enum vnet_peer_type type,
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
		iba_peer_end(peer, VTOE_REASON_LIMIT, "it does not read");
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
			iba_peer_end(peer, VTOE_REASON_NO_LANE, iba_tls_error());
			return;
		}
		peer->tx_len -= (uint32_t)n;
		memmove(peer->tx, peer->tx + n, peer->tx_len);
	}
	peer_watch(peer);
}

/* Runs the message in rx, if it is whole. False: it is not, or the end. */
static bool peer_message(struct iba_peer *peer)
{
	struct vnet_peer_hdr hdr;
	const struct iba_peer_row *row;

	if (peer->rx_len < sizeof(hdr))
		return false;
	memcpy(&hdr, peer->rx, sizeof(hdr));
	row = iba_peer_row(peer, &hdr);
	if (!row) {
		peer->c->stats.malformed++;
		iba_peer_end(peer, VTOE_REASON_PROTOCOL, "malformed message");
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
	/* iba_peer_row() has seen it: the length is that of a row */
	return (uint32_t)sizeof(hdr) + le32toh(hdr.len) - peer->rx_len;
}

static void peer_receive(struct iba_peer *peer)
{
	/* what OpenSSL has taken from the socket, at most a record, epoll does
	 * not tell again */
	for (unsigned int i = 0; i < RX_READS || iba_tls_pending(peer->tls); i++) {
		uint32_t want = peer_wants(peer);
		ssize_t n = iba_tls_read(peer->tls, peer->rx + peer->rx_len,
					 want);

		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			iba_peer_end(peer, VTOE_REASON_NO_LANE,
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
		iba_peer_end(peer, VTOE_REASON_NO_LANE, iba_tls_error());
		return;
	}
	if (ret == 0) {
		peer_watch(peer);
		return;
	}
	peer->state = PEER_HELLO;
	iba_peer_hello(peer);
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
		iba_peer_end(peer, VTOE_REASON_NO_LANE, strerror(err));
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

/* The oldest of those that have not shown that they know the key. */
static void make_room(struct iba_control *c)
{
	struct iba_peer *peer, *oldest = NULL;

	TAILQ_FOREACH(peer, &c->peers, link) {
		if (peer->dead || peer->ours || peer->state == PEER_UP)
			continue;
		/* one that only lacks its HELLO goes when there is no other */
		if (!oldest || peer->state == PEER_HANDSHAKE)
			oldest = peer;
		if (oldest->state == PEER_HANDSHAKE)
			break;
	}
	if (!oldest)
		return;
	iba_peer_end(oldest, VTOE_REASON_LIMIT, "too many at once");
	peer_free(oldest); /* nobody is in the middle of it */
}

static void peer_accept(int fd, uint32_t events, void *ctx)
{
	struct iba_control *c = ctx;
	struct sockaddr_storage addr;
	int sock = iba_accept(&c->peer_in, &addr);

	(void)fd;
	(void)events;
	if (sock < 0)
		return;
	set_options(sock);
	if (c->incoming >= INCOMING_MAX)
		make_room(c);
	if (!peer_create(c, sock, false, &addr)) {
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

struct iba_peer *iba_peer_connect(struct iba_control *c,
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

/* ---- time ---- */

static void peer_tick(struct iba_peer *peer, uint64_t now_us)
{
	struct vnet_peer_lane_answer late = {
		.status = htole32(VTOE_REASON_TIMEOUT),
	};
	struct iba_question *q, *next;

	if (peer->state != PEER_UP) {
		if (peer->deadline_us <= now_us)
			iba_peer_end(peer, VTOE_REASON_TIMEOUT, "no answer");
		return;
	}
	for (q = TAILQ_FIRST(&peer->questions); q; q = next) {
		next = TAILQ_NEXT(q, link);
		if (q->deadline_us <= now_us)
			iba_peer_answer_question(peer, q, &late);
	}
	if (now_us - peer->heard_us >= SILENCE_MAX_US) {
		iba_peer_end(peer, VTOE_REASON_TIMEOUT, "silence");
	} else if (now_us - peer->heard_us >= PING_AFTER_US &&
		   now_us - peer->pinged_us >= PING_AFTER_US) {
		peer->pinged_us = now_us;
		iba_peer_send(peer, VNET_PEER_PING, ++peer->seq, NULL, 0);
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
	int fd, one = 1;

	TAILQ_INIT(&c->peers);
	if (!iba_config_allows(c->cfg, VTOE_FABRIC_TCP) &&
	    !iba_config_allows(c->cfg, VTOE_FABRIC_VERBS))
		return 0; /* nothing to talk about */
	c->tls = iba_tls_ctx_create(key);
	if (!c->tls) {
		log_err("TLS: %s", iba_tls_error());
		return -ENOMEM;
	}
	fd = socket(c->cfg->listen.ss_family,
		    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, (const struct sockaddr *)&c->cfg->listen,
		 sockaddr_len(&c->cfg->listen)) < 0 ||
	    listen(fd, INCOMING_MAX) < 0) {
		int err = -errno;

		log_err("listen %s: %s", sockaddr_format(&c->cfg->listen, name),
			strerror(-err));
		if (fd >= 0)
			close(fd);
		return err;
	}
	return iba_acceptor_start(&c->peer_in, c->loop, "peers", fd,
				  peer_accept, c);
}

/* Also in a forked child, which shares the sockets: nothing is said on them. */
void iba_peers_stop(struct iba_control *c)
{
	struct iba_peer *peer;
	struct iba_question *q;

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
	/* the rest of it is the loop's, which is not the child's */
	if (c->peer_in.fd >= 0)
		close(c->peer_in.fd);
	c->peer_in.fd = -1;
	iba_tls_ctx_destroy(c->tls);
	c->tls = NULL;
}
