// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Making lanes, from both sides.
 *
 *  active                                        passive
 *  ASKED       main's control channel  ------->  a token for that host's address
 *  CONNECTING  TCP                     ------->  ACCEPTED
 *  GREETING    vnet_lane_hello, token  ------->  checked; the token is used up
 *  UP          <------- vnet_lane_hello_reply    UP
 *
 * Threat model. The data port is open to the network. Before its token is
 * accepted a peer has said 48 bytes, which are compared, never interpreted:
 * magic, version, tenant, token. Tokens are 256 random bits, good once and for
 * IBA_TOKEN_LIFE_US, compared in constant time against all that are out, and
 * (unless the operator has a separate data network) only from the address whose
 * agent was given it. How many such peers there are at once is bounded, and each
 * has five seconds, or less when others come: the oldest gives way.
 */
#include "lane.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/crypto.h>

#define GREETING_MAX 64
#define USER_TIMEOUT_MS 5000
#define KEEP_IDLE_S 3
#define KEEP_INTERVAL_S 1
#define KEEP_COUNT 3
#define OTHER_VERSION_LEN 64

/* ---- sockets ---- */

/*
 * Not the host's default: that may be one that paces (bbr), which spaces out by
 * timers what guests wait for. Where cubic is restricted to privileged processes
 * (tcp_allowed_congestion_control) or absent, reno is there.
 */
static void set_congestion(int fd)
{
	static const char *const names[] = { "cubic", "reno" };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, names[i],
			       (socklen_t)strlen(names[i])) == 0)
			return;
	log_warn("lane: the host's default congestion control stays: %s",
		 strerror(errno));
}

static void set_options(int fd)
{
	const struct {
		int level, name, value;
	} options[] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS },
		{ IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S },
		{ IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL_S },
		{ IPPROTO_TCP, TCP_KEEPCNT, KEEP_COUNT },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },
	};

	set_congestion(fd);
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
		if (setsockopt(fd, options[i].level, options[i].name,
			       &options[i].value, sizeof(int)) < 0)
			log_warn("lane: setsockopt %d/%d: %s", options[i].level,
				 options[i].name, strerror(errno));
}

static void set_port(struct sockaddr_storage *addr, uint16_t port)
{
	if (addr->ss_family == AF_INET6)
		((struct sockaddr_in6 *)addr)->sin6_port = htobe16(port);
	else
		((struct sockaddr_in *)addr)->sin_port = htobe16(port);
}

static bool same_host(const struct sockaddr_storage *a,
		      const struct sockaddr_storage *b)
{
	struct sockaddr_storage x = *a, y = *b;

	set_port(&x, 0);
	set_port(&y, 0);
	return sockaddr_equal(&x, &y);
}

static void lane_event(int fd, uint32_t events, void *ctx);

static int start_watching(struct iba_lane *lane, int fd, uint32_t events)
{
	lane->fd = fd;
	lane->events = events;
	lane->source = loop_add_fd(lane->tenant->loop, fd, events, lane_event,
				   lane);
	return lane->source ? 0 : -errno;
}

/* ---- active ---- */

static bool is_ourselves(const struct iba_tenant *t, const struct vtoe_addr *agent)
{
	struct sockaddr_storage addr;

	return sockaddr_from_vtoe(agent, &addr) == 0 &&
	       sockaddr_equal(&addr, &t->cfg->listen);
}

static struct iba_lane *lane_find(struct iba_tenant *t,
				  const struct vtoe_addr *agent)
{
	struct iba_lane *lane;

	TAILQ_FOREACH(lane, &t->lanes, link)
		if (lane->active && !memcmp(&lane->agent, agent, sizeof(*agent)))
			return lane;
	return NULL;
}

static struct iba_lane *lane_ask(struct iba_tenant *t,
				 const struct vtoe_addr *agent)
{
	const struct iba_lane_want want = { .fabric = VTOE_FABRIC_TCP };
	struct iba_lane *lane = iba_lane_create(t, IBA_LANE_ASKED);

	if (!lane)
		return NULL;
	lane->active = true;
	lane->agent = *agent;
	sockaddr_from_vtoe(agent, &lane->peer);
	sockaddr_format(&lane->peer, lane->name);
	if (iba_tenant_ask_lane(t, agent, &want, &lane->ask_seq) < 0)
		iba_lane_end(lane, VTOE_REASON_NO_LANE, "main does not listen");
	return lane;
}

int iba_lane_get(struct iba_conn *conn, const struct vtoe_addr *agent,
		 enum vtoe_reason *reason)
{
	struct iba_tenant *t = conn->tenant;
	struct iba_lane *lane;

	if (!agent)
		return -EHOSTUNREACH;
	if (is_ourselves(t, agent)) { /* a VM of this host that is not attached */
		*reason = VTOE_REASON_PEER_NO_VTOE;
		return -EHOSTUNREACH;
	}
	lane = lane_find(t, agent);
	if (lane && lane->state == IBA_LANE_FAILED &&
	    lane->deadline_us <= iba_clock_us(t)) {
		iba_lane_kill(lane);
		lane = NULL;
	}
	if (!lane)
		lane = lane_ask(t, agent);
	if (!lane || lane->state == IBA_LANE_FAILED) {
		*reason = lane ? lane->reason : VTOE_REASON_LIMIT;
		return -EHOSTUNREACH;
	}
	iba_lane_join(lane, conn);
	return lane->state == IBA_LANE_UP ? 0 : -EINPROGRESS;
}

/* From our data address, so that the other side recognises the host. */
static int lane_connect(struct iba_lane *lane)
{
	struct sockaddr_storage from = lane->tenant->cfg->data;
	int fd;

	if (from.ss_family != lane->peer.ss_family)
		return -EAFNOSUPPORT;
	fd = socket(lane->peer.ss_family,
		    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	set_options(fd);
	set_port(&from, 0);
	if (bind(fd, (struct sockaddr *)&from, sockaddr_len(&from)) < 0 ||
	    (connect(fd, (struct sockaddr *)&lane->peer,
		     sockaddr_len(&lane->peer)) < 0 && errno != EINPROGRESS)) {
		int err = -errno;

		close(fd);
		return err;
	}
	lane->state = IBA_LANE_CONNECTING;
	return start_watching(lane, fd, EPOLLOUT);
}

void iba_lane_answer(struct iba_tenant *t, uint32_t seq,
		     const struct vnet_peer_lane_answer *answer)
{
	uint32_t status = le32toh(answer->status);
	struct iba_lane *lane;
	int err;

	TAILQ_FOREACH(lane, &t->lanes, link)
		if (lane->state == IBA_LANE_ASKED && lane->ask_seq == seq)
			break;
	if (!lane) /* it timed out */
		return;
	if (status) {
		iba_lane_end(lane, status < VTOE_REASON_COUNT ? status :
								VTOE_REASON_NO_LANE,
			     "the peer's agent says no");
		return;
	}
	memcpy(lane->token, answer->token, sizeof(lane->token));
	err = sockaddr_from_vtoe(&answer->addr, &lane->peer);
	if (!err)
		err = lane_connect(lane);
	if (err)
		iba_lane_end(lane, VTOE_REASON_NO_LANE, strerror(-err));
}

static void lane_connected(struct iba_lane *lane)
{
	struct vnet_lane_hello hello = {
		.magic = htole32(VNET_PEER_MAGIC),
		.version = htole16(VNET_PEER_VERSION),
		.tenant = htole32(lane->tenant->id),
	};
	socklen_t len = sizeof(int);
	int err = 0;

	if (getsockopt(lane->fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		err = errno;
	if (err) {
		iba_lane_end(lane, VTOE_REASON_NO_LANE, strerror(err));
		return;
	}
	memcpy(hello.token, lane->token, sizeof(hello.token));
	/* an empty socket takes this whole */
	if (send(lane->fd, &hello, sizeof(hello), MSG_NOSIGNAL) !=
	    (ssize_t)sizeof(hello))
		err = EPIPE;
	OPENSSL_cleanse(&hello, sizeof(hello));
	OPENSSL_cleanse(lane->token, sizeof(lane->token));
	if (err) {
		iba_lane_end(lane, VTOE_REASON_NO_LANE, "hello not sent");
		return;
	}
	lane->state = IBA_LANE_GREETING;
	iba_lane_watch(lane, EPOLLIN);
}

/*
 * Receives up to want bytes of greeting in all, not one more: what follows is
 * the lane's. True when they are there.
 */
static bool greeting_read(struct iba_lane *lane, uint32_t want)
{
	struct iba_lane_rx *rx = &lane->rx;
	ssize_t n = recv(lane->fd, rx->stage + rx->end, want - rx->end, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		iba_lane_end(lane, VTOE_REASON_NO_LANE,
			     n ? strerror(errno) : "closed by the peer");
		return false;
	}
	rx->end += (uint32_t)n;
	if (rx->end < want)
		return false;
	rx->start = rx->end = 0;
	return true;
}

static void lane_up(struct iba_lane *lane)
{
	struct iba_conn *conn, *next;

	lane->state = IBA_LANE_UP;
	log_info("lane %s: tenant %u: up, %s", lane->name, lane->tenant->id,
		 lane->active ? "active" : "passive");
	for (conn = TAILQ_FIRST(&lane->conns); conn; conn = next) {
		next = TAILQ_NEXT(conn, lane_link);
		iba_open_path_up(conn);
	}
}

static void other_version(char why[OTHER_VERSION_LEN], uint16_t theirs)
{
	snprintf(why, OTHER_VERSION_LEN, "it speaks version %u, we speak %u",
		 theirs, VNET_PEER_VERSION);
}

static void lane_replied(struct iba_lane *lane)
{
	struct vnet_lane_hello_reply reply;
	char why[OTHER_VERSION_LEN];
	uint16_t version;
	uint32_t status;

	if (!greeting_read(lane, sizeof(reply)))
		return;
	memcpy(&reply, lane->rx.stage, sizeof(reply));
	status = le32toh(reply.status);
	version = le16toh(reply.version);
	/* before what else it says: that may mean another thing in its version */
	if (le32toh(reply.magic) != VNET_PEER_MAGIC) {
		iba_lane_end(lane, VTOE_REASON_PROTOCOL, "bad hello reply");
	} else if (version != VNET_PEER_VERSION || status == VTOE_REASON_VERSION) {
		other_version(why, version);
		iba_lane_end(lane, VTOE_REASON_VERSION, why);
	} else if (status) {
		iba_lane_end(lane, status < VTOE_REASON_COUNT ? status :
								VTOE_REASON_NO_LANE,
			     "refused by the peer");
	} else {
		lane_up(lane);
	}
}

/* ---- passive ---- */

/* The oldest of those that have not shown a token. */
static void make_room(struct iba_tenant *t)
{
	struct iba_lane *lane;

	TAILQ_FOREACH(lane, &t->lanes, link)
		if (lane->state == IBA_LANE_ACCEPTED)
			break;
	if (!lane)
		return;
	t->drops[IBA_DROP_LANE_REFUSED]++;
	iba_lane_end(lane, VTOE_REASON_LIMIT, "too many at once");
}

static void lane_accept(int fd, uint32_t events, void *ctx)
{
	struct iba_tenant *t = ctx;
	struct sockaddr_storage peer;
	int sock = iba_accept(&t->data_in, &peer);
	struct iba_lane *lane;

	(void)fd;
	(void)events;
	if (sock < 0)
		return;
	if (t->lanes_greeting >= GREETING_MAX)
		make_room(t);
	lane = iba_lane_create(t, IBA_LANE_ACCEPTED);
	if (!lane) {
		t->drops[IBA_DROP_LANE_REFUSED]++;
		close(sock);
		return;
	}
	t->lanes_greeting++;
	lane->peer = peer;
	sockaddr_format(&peer, lane->name);
	set_options(sock);
	if (start_watching(lane, sock, EPOLLIN) < 0)
		iba_lane_end(lane, VTOE_REASON_LIMIT, "no memory");
}

/* Uses up the token. False: unknown, expired, or another host's. */
static bool token_take(struct iba_tenant *t, const uint8_t bytes[VNET_TOKEN_LEN],
		       const struct sockaddr_storage *from)
{
	uint64_t now = iba_clock_us(t);
	struct iba_token *found = NULL;
	bool good;

	/* no early way out: the time tells nothing about a token */
	for (unsigned int i = 0; i < IBA_TOKENS_MAX; i++) {
		struct iba_token *token = &t->token[i];

		if (!CRYPTO_memcmp(token->bytes, bytes, VNET_TOKEN_LEN) &&
		    token->expires_us > now)
			found = token;
	}
	if (!found)
		return false;
	good = t->cfg->data_set || same_host(&found->source, from);
	OPENSSL_cleanse(found, sizeof(*found));
	return good;
}

static void send_reply(struct iba_lane *lane, enum vtoe_reason status)
{
	struct vnet_lane_hello_reply reply = {
		.magic = htole32(VNET_PEER_MAGIC),
		.version = htole16(VNET_PEER_VERSION),
		.status = htole32(status),
	};

	if (send(lane->fd, &reply, sizeof(reply), MSG_NOSIGNAL) !=
	    (ssize_t)sizeof(reply))
		iba_lane_end(lane, VTOE_REASON_NO_LANE, "reply not sent");
}

static void lane_greeted(struct iba_lane *lane)
{
	struct iba_tenant *t = lane->tenant;
	enum vtoe_reason status = VTOE_REASON_NONE;
	char version[OTHER_VERSION_LEN];
	const char *why = "";
	struct vnet_lane_hello hello;
	bool token_good;

	if (!greeting_read(lane, sizeof(hello)))
		return;
	memcpy(&hello, lane->rx.stage, sizeof(hello));
	OPENSSL_cleanse(lane->rx.stage, sizeof(hello));
	token_good = token_take(t, hello.token, &lane->peer);
	OPENSSL_cleanse(hello.token, sizeof(hello.token));
	if (le32toh(hello.magic) != VNET_PEER_MAGIC ||
	    (le16toh(hello.version) == VNET_PEER_VERSION &&
	     (hello.reserved || hello.reserved1))) {
		t->drops[IBA_DROP_LANE_REFUSED]++;
		iba_lane_end(lane, VTOE_REASON_PROTOCOL, "bad hello");
		return;
	}
	if (le16toh(hello.version) != VNET_PEER_VERSION) {
		status = VTOE_REASON_VERSION;
		other_version(version, le16toh(hello.version));
		why = version;
	} else if (le32toh(hello.tenant) != t->id) {
		status = VTOE_REASON_TENANT;
		why = "another tenant";
	} else if (!token_good) {
		status = VTOE_REASON_PROTOCOL;
		why = "bad token";
	}
	send_reply(lane, status);
	if (status) {
		t->drops[IBA_DROP_LANE_REFUSED]++;
		iba_lane_end(lane, status, why);
	} else if (lane->state == IBA_LANE_ACCEPTED) {
		t->lanes_greeting--;
		lane_up(lane);
	}
}

/* The peer's main asks ours, which asks us: may its tenant connect? */
void iba_lane_token(struct iba_tenant *t, const struct sockaddr_storage *source,
		    struct vnet_peer_lane_answer *answer)
{
	struct iba_token *token = &t->token[0];

	memset(answer, 0, sizeof(*answer));
	if (!t->vm_count)
		answer->status = htole32(VTOE_REASON_PEER_NO_VTOE);
	else if (t->data_in.fd < 0)
		answer->status = htole32(VTOE_REASON_NO_LANE);
	if (answer->status)
		return;
	/* an unused one, else the oldest gives way */
	for (unsigned int i = 1; i < IBA_TOKENS_MAX; i++)
		if (t->token[i].expires_us < token->expires_us)
			token = &t->token[i];
	if (getrandom(token->bytes, sizeof(token->bytes), 0) !=
	    (ssize_t)sizeof(token->bytes)) {
		OPENSSL_cleanse(token, sizeof(*token));
		answer->status = htole32(VTOE_REASON_LIMIT);
		return;
	}
	token->source = *source;
	token->expires_us = iba_clock_us(t) + IBA_TOKEN_LIFE_US;
	iba_tenant_need_tick(t);
	memcpy(answer->token, token->bytes, sizeof(answer->token));
	sockaddr_to_vtoe(&t->data_addr, &answer->addr);
}

static int bind_in_range(int fd, const struct iba_config *cfg)
{
	struct sockaddr_storage addr = cfg->data;
	uint32_t port = cfg->data_port_first;

	do {
		set_port(&addr, (uint16_t)port);
		if (bind(fd, (struct sockaddr *)&addr, sockaddr_len(&addr)) == 0 &&
		    listen(fd, GREETING_MAX) == 0)
			return 0;
	} while (errno == EADDRINUSE && port++ < cfg->data_port_last);
	return -errno;
}

int iba_lane_listen(struct iba_tenant *t)
{
	socklen_t len = sizeof(t->data_addr);
	int fd, err;

	fd = socket(t->cfg->data.ss_family,
		    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	err = bind_in_range(fd, t->cfg);
	if (!err && getsockname(fd, (struct sockaddr *)&t->data_addr, &len) < 0)
		err = -errno;
	if (err) {
		close(fd);
		return err;
	}
	return iba_acceptor_start(&t->data_in, t->loop, "lanes", fd, lane_accept,
				  t);
}

/* ---- the socket is ready ---- */

static void lane_event(int fd, uint32_t events, void *ctx)
{
	struct iba_lane *lane = ctx;

	(void)fd;
	switch (lane->state) {
	case IBA_LANE_CONNECTING:
		lane_connected(lane);
		break;
	case IBA_LANE_GREETING:
		lane_replied(lane);
		break;
	case IBA_LANE_ACCEPTED:
		lane_greeted(lane);
		break;
	case IBA_LANE_UP:
		iba_tcp_run(lane, events);
		break;
	default:
		break;
	}
}
