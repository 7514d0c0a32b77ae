/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the scripts of sock_diff are made of: the calls and how often they come, options, values, flags; results, and what
 * is known of sockets.
 */
#ifndef SOCK_DIFF_H
#define SOCK_DIFF_H

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define SLOTS 6
#define STEPS 100
#define DATA_MAX 2000 /* of a step */

/* ---- scripts ---- */

enum kind {
	SOCKET, BIND, LISTEN, CONNECT, CONNECT_NOBODY, DISCONNECT, ACCEPT, SEND, SENDV, RECV, RECVV, POLL, GETOPT, SETOPT,
	NAME, PEER_NAME, SHUTDOWN, CLOSE, DUP, LINGER_CLOSE, IOCTL, KINDS,
};

static const char *const kind_names[KINDS] = {
	"socket", "bind", "listen", "connect", "connect to nobody", "disconnect", "accept", "send", "sendmsg", "recv",
	"recvmsg", "poll", "getsockopt", "setsockopt", "getsockname", "getpeername", "shutdown", "close", "dup",
	"linger 0, close", "ioctl",
};

/* How often; sockets have to come into being, data to move. */
static const uint8_t weights[KINDS] = {
	[SOCKET] = 6, [BIND] = 4, [LISTEN] = 8, [CONNECT] = 14, [CONNECT_NOBODY] = 1, [DISCONNECT] = 1, [ACCEPT] = 14,
	[SEND] = 16, [SENDV] = 4, [RECV] = 14, [RECVV] = 4, [POLL] = 4, [GETOPT] = 6, [SETOPT] = 5, [NAME] = 3,
	[PEER_NAME] = 3, [SHUTDOWN] = 4, [CLOSE] = 4, [DUP] = 1, [LINGER_CLOSE] = 1, [IOCTL] = 3,
};

struct step {
	uint8_t kind, slot, other;
	uint32_t a, b;
};

static uint64_t random_state;

static uint32_t rnd(uint32_t below)
{
	/* xorshift64* */
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t)((random_state * 2685821657736338717ull) >> 33) % below;
}

static void make_script(struct step *script, uint64_t seed)
{
	unsigned int total = 0;

	random_state = seed * 0x9e3779b97f4a7c15ull + 1;
	for (int k = 0; k < KINDS; k++)
		total += weights[k];
	for (int i = 0; i < STEPS; i++) {
		unsigned int at = rnd(total), k = 0;

		while (at >= weights[k])
			at -= weights[k++];
		script[i] = (struct step){ .kind = (uint8_t)k, .slot = (uint8_t)rnd(SLOTS),
					   .other = (uint8_t)rnd(SLOTS), .a = rnd(1u << 30), .b = rnd(1u << 30) };
	}
}

/* ---- options and flags that steps choose from ---- */

struct option {
	int level, name;
	const char *text;
	bool get_only;
};

#define OPT(level, name) { level, name, #name, false }
#define GET(level, name) { level, name, #name, true }
static const struct option options[] = {
	OPT(SOL_SOCKET, SO_REUSEADDR), OPT(SOL_SOCKET, SO_REUSEPORT), OPT(SOL_SOCKET, SO_KEEPALIVE),
	OPT(SOL_SOCKET, SO_OOBINLINE), OPT(SOL_SOCKET, SO_RCVLOWAT), OPT(SOL_SOCKET, SO_SNDLOWAT),
	OPT(SOL_SOCKET, SO_PRIORITY), OPT(SOL_SOCKET, SO_DONTROUTE), OPT(SOL_SOCKET, SO_BROADCAST),
	GET(SOL_SOCKET, SO_TIMESTAMP), /* set, it is TCP */
	OPT(SOL_SOCKET, SO_LINGER), OPT(SOL_SOCKET, SO_RCVTIMEO),
	GET(SOL_SOCKET, SO_ERROR), GET(SOL_SOCKET, SO_TYPE), GET(SOL_SOCKET, SO_ACCEPTCONN),
	GET(SOL_SOCKET, SO_DOMAIN), GET(SOL_SOCKET, SO_PROTOCOL), GET(SOL_SOCKET, SO_PEERCRED),
	OPT(SOL_TCP, TCP_NODELAY), OPT(SOL_TCP, TCP_CORK), OPT(SOL_TCP, TCP_QUICKACK),
	OPT(SOL_TCP, TCP_KEEPIDLE), OPT(SOL_TCP, TCP_KEEPINTVL), OPT(SOL_TCP, TCP_KEEPCNT),
	OPT(SOL_TCP, TCP_USER_TIMEOUT), GET(SOL_TCP, TCP_DEFER_ACCEPT), /* set, it is all timing */
	OPT(SOL_TCP, TCP_SYNCNT),
	GET(SOL_TCP, TCP_LINGER2), /* set, it may reset the peer */
	OPT(SOL_TCP, TCP_WINDOW_CLAMP), GET(SOL_TCP, 9999),
	OPT(SOL_IP, IP_TOS), OPT(SOL_IP, IP_TTL), OPT(SOL_IP, IP_RECVTTL), OPT(SOL_IP, IP_FREEBIND),
	OPT(SOL_IPV6, IPV6_V6ONLY), OPT(SOL_IPV6, IPV6_UNICAST_HOPS), OPT(SOL_IPV6, IPV6_TCLASS),
	GET(4711, 1),
};
#define OPTIONS (sizeof(options) / sizeof(options[0]))

static const int values[] = { 0, 1, 2, 7, 100, 1000, -1, 0x10000, 0x7fffffff };
#define VALUES (sizeof(values) / sizeof(values[0]))

static const int send_flags[] = { 0, 0, 0, 0, MSG_DONTROUTE, MSG_EOR, MSG_OOB, 0, 0, 0, 0, MSG_MORE };
static const int recv_flags[] = { 0, 0, MSG_PEEK, MSG_TRUNC, MSG_WAITALL, MSG_PEEK | MSG_TRUNC, MSG_OOB, MSG_ERRQUEUE };
#define PICK(array, n) ((array)[(n) % (sizeof(array) / sizeof((array)[0]))])

/* ---- steps, as they are printed ---- */

static int backlog_of(const struct step *s)
{
	return (int)(s->a % 8) + 4;
}

static void print_step(int i, const struct step *s)
{
	printf("  %2d  %s, socket %u", i, kind_names[s->kind], s->slot);
	if (s->kind == CONNECT || s->kind == ACCEPT)
		printf(", listener %u", s->other);
	if (s->kind == SEND || s->kind == SENDV)
		printf(", %u bytes, flags %#x", s->a % DATA_MAX + 1,
		       (unsigned int)(PICK(send_flags, s->b >> 8) | (s->b & 1 ? MSG_NOSIGNAL : 0)));
	if (s->kind == RECV || s->kind == RECVV)
		printf(", %u bytes, flags %#x", s->b & 1 ? DATA_MAX : s->a % 300, (unsigned int)PICK(recv_flags, s->b >> 8));
	if (s->kind == GETOPT || s->kind == SETOPT)
		printf(", %s, %d, length %u", options[s->a % OPTIONS].text, PICK(values, s->b >> 4),
		       s->b % 5 == 0 ? s->b % 3 : s->b % 7 == 0 ? 16 : 4);
	if (s->kind == SHUTDOWN)
		printf(", %u", s->a % 7 == 0 ? 5 : s->a % 3);
	if (s->kind == IOCTL)
		printf(", %u", s->a % 4);
	if (s->kind == LISTEN)
		printf(", backlog %d", backlog_of(s));
	if (s->kind == BIND)
		printf(", %s%s", s->a % 3 ? "own address" : "any", s->a % 11 == 0 ? ", length 4" : "");
	printf("\n");
}

/* ---- what anybody sees of a socket ---- */

static int port_of(const struct sockaddr_storage *ss)
{
	return ntohs(((const struct sockaddr_in *)ss)->sin_port);
}

static void set_port(struct sockaddr_storage *ss, int port)
{
	((struct sockaddr_in *)ss)->sin_port = htons((uint16_t)port);
}

static int own_port(int fd)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);

	return getsockname(fd, (struct sockaddr *)&ss, &len) ? 0 : port_of(&ss);
}

static int mask_of(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN | POLLOUT | POLLPRI | POLLRDHUP | POLLRDNORM | POLLRDBAND |
							POLLWRNORM | POLLWRBAND };

	return poll(&pfd, 1, 0) < 0 ? -1 : pfd.revents;
}

static int readable(int fd)
{
	int n = -1;

	return ioctl(fd, FIONREAD, &n) ? -errno : n;
}

static bool at_mark(int fd)
{
	int at = 0;

	return !ioctl(fd, SIOCATMARK, &at) && at;
}

/* ---- what a step gives ---- */

struct result {
	int ret, err, pipes;
	uint32_t len;
	uint8_t data[DATA_MAX];
};

/* What we know of a socket. The same in both worlds, as long as nothing differs. */
struct knowledge {
	bool open, listens, connected;
	bool dialed;	   /* a connect() has begun */
	bool shut;	   /* by shutdown(), without a connection */
	int peer;	   /* slot, or -1: not accepted yet, closed, or never had one */
	int listener;	   /* slot that the last connect() went to */
	int backlog, queued; /* of one that listens; queued: not accepted yet */
	uint32_t sent, got; /* bytes of the stream */
	bool urgent;	   /* sent some, which FIONREAD counts in a way of its own */
};

#endif /* SOCK_DIFF_H */
