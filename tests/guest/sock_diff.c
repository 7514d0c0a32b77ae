// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Differential fuzzer: plays one random script of socket calls in two worlds, with sockets of AF_INET over this guest's
 * loopback, and with sockets of ours, offloaded; and compares what a program can see: results, errnos, data, SIGPIPE,
 * poll masks, bytes to read, names, options.
 *
 *   sock_diff [-6] [-t | -p] [-v] SEED [COUNT]        COUNT scripts from SEED on
 *   sock_diff [-6] [-t | -p] [-v] -s SECONDS SEED     as many as go into that time
 *   sock_diff -x                                      checks itself: sees, and shrinks, a difference that it makes
 *   -t: ours go over TCP (VNET_MODE_TCP); -p: the second world is AF_INET, too, where nothing may differ
 *
 * Theory of operation. A script is a list of steps on SLOTS places that hold a socket each. A step is done in the first
 * world, then in the second, always without blocking. Then both must come to rest: what the step must bring about (a
 * connection at the listener, bytes at the peer, an end of file) is waited for in each world, and then until poll
 * masks and readable bytes of all sockets are the same in both. If they do not become so in PATIENCE, that is a
 * difference. TCP over loopback acts at once, so what ours come to agree with is where TCP is at rest.
 *
 * Ports differ between the worlds: a port is compared as the slot that has it. A script that found a difference is
 * shrunk, by leaving out steps as long as the same kind of step still differs, and printed. What differs on purpose
 * stands in differences[], with the reason.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <linux/sockios.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "sock_diff.h"
#include "vnet_sock.h"

#define PATIENCE 5000	 /* ms; of one that differs for good */
#define IMPATIENCE 300	 /* while shrinking that: a wrong guess only makes it longer */
#define UNREAD_MAX 12000 /* of a direction: what fits differs */

enum second { OURS, OURS_OVER_TCP, PLAIN };

static enum second second;
static bool v6, verbose, sabotage;
static struct sockaddr_storage own; /* this guest's address on vnet0 */
static socklen_t addr_len;
static int patience = PATIENCE;
static volatile sig_atomic_t sigpipes;
static unsigned long offloaded, over_tcp, steps_done;

/* ---- a world ---- */

struct world {
	int family, fd[SLOTS];
};

static struct world worlds[2];
static struct knowledge known[SLOTS];

/*
 * What differs on purpose, or because it must: a difference of a step's result that fits a row is none. If it makes the
 * sockets different for good, the script ends there.
 */
struct difference {
	uint8_t kind;
	int level, name; /* of an option; else 0 */
	bool (*when)(const struct knowledge *k);
	bool ends;
	const char *why;
};

static bool was_connected(const struct knowledge *k)
{
	return k->connected || k->dialed;
}

static const struct difference differences[] = {
	{ GETOPT, SOL_TCP, TCP_QUICKACK, NULL, false,
	  "TCP turns it off by itself, by timing; ours has no delayed acknowledgements to turn off" },
	{ GETOPT, SOL_TCP, TCP_WINDOW_CLAMP, NULL, false, "TCP keeps the window it has now there; ours has credit" },
	{ SETOPT, SOL_TCP, TCP_WINDOW_CLAMP, was_connected, false, "nor has it a window that 0 would be wrong for" },
	{ SETOPT, SOL_IPV6, IPV6_V6ONLY, was_connected, false, "the same: TCP allows it once the port is forgotten" },
	{ BIND, 0, 0, was_connected, true, "ours has to be disconnected first; TCP has forgotten the port of a broken one" },
};

static const struct difference *on_purpose(const struct step *s)
{
	const struct option *o = &options[s->a % OPTIONS];

	for (size_t i = 0; i < sizeof(differences) / sizeof(differences[0]); i++) {
		const struct difference *d = &differences[i];

		if (d->kind == s->kind && (!d->level || (d->level == o->level && d->name == o->name)) &&
		    (!d->when || d->when(&known[s->slot])))
			return d;
	}
	return NULL;
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* A listener with somebody to accept, a connection that has an end, bytes that have come: in both worlds, in time. */
static bool wait_for(int slot, short events, int bytes)
{
	int64_t end = now_ms() + patience;

	for (int w = 0; w < 2 && (events || bytes > 0); w++)
		for (;;) {
			struct pollfd pfd = { .fd = worlds[w].fd[slot], .events = events };

			if (bytes > 0 ? readable(pfd.fd) >= bytes || mask_of(pfd.fd) & (POLLERR | POLLHUP) :
				    poll(&pfd, 1, 20) > 0)
				break;
			if (now_ms() > end)
				return false;
			if (bytes > 0)
				poll(NULL, 0, 1);
		}
	return true;
}

static int state_of(int w, int slot)
{
	struct tcp_info info = { 0 };
	socklen_t len = sizeof(info);

	return getsockopt(worlds[w].fd[slot], SOL_TCP, TCP_INFO, &info, &len) ? -1 : info.tcpi_state;
}

/* For what poll() does not say again to who has shut down himself. states: 1 << TCP_* */
static bool wait_while(int slot, int states)
{
	int64_t end = now_ms() + patience;

	for (int w = 0; w < 2; w++)
		for (int state; (state = state_of(w, slot)) > 0 && 1 << state & states; poll(NULL, 0, 1))
			if (now_ms() > end)
				return false;
	return true;
}

/* The end of the peer's stream has come. */
static bool wait_for_end(int slot)
{
	return wait_while(slot, 1 << TCP_ESTABLISHED | 1 << TCP_FIN_WAIT1 | 1 << TCP_FIN_WAIT2);
}

static bool same_now(char *what, size_t size)
{
	for (int i = 0; i < SLOTS; i++) {
		int mask[2], bytes[2];

		if (!known[i].open)
			continue;
		for (int w = 0; w < 2; w++) {
			mask[w] = mask_of(worlds[w].fd[i]);
			bytes[w] = readable(worlds[w].fd[i]);
		}
		if (mask[0] == mask[1] && bytes[0] == bytes[1])
			continue;
		snprintf(what, size, "socket %d: poll %#x, %d to read; ours %#x, %d", i, mask[0], bytes[0], mask[1],
			 bytes[1]);
		return false;
	}
	return true;
}

static bool come_to_rest(char *what, size_t size)
{
	int64_t end = now_ms() + patience;

	while (!same_now(what, size)) {
		if (now_ms() > end)
			return false;
		poll(NULL, 0, 1);
	}
	return true;
}

/* ---- steps ---- */

/* Ports differ between worlds, slots do not. */
static int port_as_slot(const struct world *w, int port)
{
	if (!port)
		return 0;
	for (int i = 0; i < SLOTS; i++)
		if (known[i].open && own_port(w->fd[i]) == port)
			return 1000 + i;
	return 999;
}

static void put_name(const struct world *w, struct result *r, struct sockaddr_storage *ss, socklen_t len)
{
	int as = port_as_slot(w, port_of(ss));

	/* two may have it, a listener and its child: the first is named */
	set_port(ss, as);
	r->len = len < DATA_MAX ? len : DATA_MAX;
	memcpy(r->data, ss, r->len);
}

static void do_socket(struct world *w, const struct step *s, struct result *r)
{
	int mode = VNET_MODE_TCP;

	if (w->family == AF_INET || w->family == AF_INET6)
		r->ret = socket(w->family, SOCK_STREAM | SOCK_NONBLOCK, 0);
	else
		r->ret = socket(w->family, SOCK_STREAM | SOCK_NONBLOCK, v6 ? VNETPROTO_IP6 : VNETPROTO_IP4);
	r->err = errno;
	w->fd[s->slot] = r->ret;
	if (r->ret < 0)
		return;
	if (second == OURS_OVER_TCP && w == &worlds[1])
		setsockopt(r->ret, SOL_VNET, VNET_SO_MODE, &mode, sizeof(mode));
	r->ret = 0;
}

static void do_connect(struct world *w, const struct step *s, struct result *r)
{
	struct sockaddr_storage to = own;

	if (s->kind == CONNECT_NOBODY)
		set_port(&to, 9);
	else
		set_port(&to, own_port(w->fd[s->other]));
	r->ret = connect(w->fd[s->slot], (struct sockaddr *)&to, addr_len);
}

static void do_send(struct world *w, const struct step *s, struct result *r)
{
	uint8_t data[DATA_MAX];
	uint32_t len = s->a % DATA_MAX + 1, cut = s->b % len;
	struct iovec iov[3] = { { data, cut }, { data + cut, 0 }, { data + cut, len - cut } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 3 };
	int flags = PICK(send_flags, s->b >> 8) | (s->b & 1 ? MSG_NOSIGNAL : 0);

	for (uint32_t i = 0; i < len; i++)
		data[i] = (uint8_t)((s->b >> 3) + i * 7 + i / 256);
	if (s->kind == SENDV)
		r->ret = (int)sendmsg(w->fd[s->slot], &msg, flags);
	else
		r->ret = (int)send(w->fd[s->slot], data, len, flags);
}

static void do_recv(struct world *w, const struct step *s, struct result *r)
{
	int flags = PICK(recv_flags, s->b >> 8);
	uint32_t len = s->b & 1 ? DATA_MAX : s->a % 300, cut = s->b % (len + 1);
	uint8_t control[256];
	struct sockaddr_storage from;
	struct iovec iov[2] = { { r->data, cut }, { r->data + cut, len - cut } };
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2, .msg_control = control, .msg_controllen = sizeof(control),
			      .msg_name = &from, .msg_namelen = sizeof(from) };

	if (s->kind == RECVV) {
		r->ret = (int)recvmsg(w->fd[s->slot], &msg, flags);
		/* what else it says goes into the comparison */
		if (r->ret >= 0)
			r->pipes += (int)msg.msg_namelen * 100 + (int)msg.msg_controllen * 10000 + msg.msg_flags * 7;
	} else {
		r->ret = (int)recv(w->fd[s->slot], r->data, len, flags);
	}
	if (sabotage && w == &worlds[1] && r->ret > 1)
		r->ret--;
	if (r->ret > 0 && !(flags & MSG_TRUNC))
		r->len = (uint32_t)r->ret;
}

static void do_option(struct world *w, const struct step *s, struct result *r)
{
	const struct option *o = &options[s->a % OPTIONS];
	int value[4] = { PICK(values, s->b >> 4), PICK(values, s->b >> 9), 0, 0 };
	socklen_t len = s->b % 5 == 0 ? s->b % 3 : s->b % 7 == 0 ? 16 : 4;
	int fd = w->fd[s->slot];

	if (s->kind == SETOPT && !o->get_only) {
		if (o->name == SO_RCVTIMEO && o->level == SOL_SOCKET)
			value[0] = value[1] = 0; /* nothing blocks here */
		if (o->name == SO_LINGER && o->level == SOL_SOCKET)
			value[0] = 0;
		r->ret = setsockopt(fd, o->level, o->name, value, len);
		return;
	}
	memset(value, 0, sizeof(value));
	r->ret = getsockopt(fd, o->level, o->name, value, &len);
	r->len = r->ret ? 0 : len;
	memcpy(r->data, value, r->len);
}

static void do_accept(struct world *w, const struct step *s, struct result *r)
{
	struct sockaddr_storage from = { 0 };
	socklen_t len = sizeof(from);
	int fd = accept4(w->fd[s->other], (struct sockaddr *)&from, &len, SOCK_NONBLOCK);

	r->err = errno;
	r->ret = fd < 0 ? -1 : 0;
	w->fd[s->slot] = fd;
	if (fd >= 0)
		put_name(w, r, &from, len);
}

static void do_name(struct world *w, const struct step *s, struct result *r)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof(ss);

	r->ret = s->kind == NAME ? getsockname(w->fd[s->slot], (struct sockaddr *)&ss, &len) :
				   getpeername(w->fd[s->slot], (struct sockaddr *)&ss, &len);
	r->err = errno;
	if (!r->ret)
		put_name(w, r, &ss, len);
}

static void do_bind(struct world *w, const struct step *s, struct result *r)
{
	struct sockaddr_storage at = own;

	if (s->a % 3 == 0) /* any address */
		memset((char *)&at + sizeof(sa_family_t), 0, sizeof(at) - sizeof(sa_family_t));
	set_port(&at, 0);
	r->ret = bind(w->fd[s->slot], (struct sockaddr *)&at, s->a % 11 == 0 ? 4 : addr_len);
}

static void do_close(struct world *w, const struct step *s, struct result *r)
{
	struct linger linger = { 1, 0 };

	if (s->kind == LINGER_CLOSE)
		setsockopt(w->fd[s->slot], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	r->ret = close(w->fd[s->slot]);
	w->fd[s->slot] = -1;
}

static void do_ioctl(struct world *w, const struct step *s, struct result *r)
{
	static const unsigned long what[] = { FIONREAD, SIOCATMARK, SIOCGIFMTU, 0xdead };
	struct ifreq ifr = { .ifr_name = "vnet0" };
	int value = 0;

	if (PICK(what, s->a) == SIOCGIFMTU) {
		r->ret = ioctl(w->fd[s->slot], SIOCGIFMTU, &ifr);
		value = ifr.ifr_mtu;
	} else {
		r->ret = ioctl(w->fd[s->slot], PICK(what, s->a), &value);
	}
	r->err = errno;
	r->len = sizeof(value);
	memcpy(r->data, &value, sizeof(value));
}

static void do_step(struct world *w, const struct step *s, struct result *r)
{
	struct sockaddr unspec = { .sa_family = AF_UNSPEC };
	int fd = w->fd[s->slot];

	memset(r, 0, sizeof(*r));
	errno = 0;
	sigpipes = 0;
	switch (s->kind) {
	case SOCKET: do_socket(w, s, r); break;
	case BIND: do_bind(w, s, r); break;
	case LISTEN: r->ret = listen(fd, backlog_of(s)); break;
	case CONNECT:
	case CONNECT_NOBODY: do_connect(w, s, r); break;
	case DISCONNECT: r->ret = connect(fd, &unspec, sizeof(unspec)); break;
	case ACCEPT: do_accept(w, s, r); break;
	case SEND:
	case SENDV: do_send(w, s, r); break;
	case RECV:
	case RECVV: do_recv(w, s, r); break;
	case POLL: r->ret = mask_of(fd); break;
	case GETOPT:
	case SETOPT: do_option(w, s, r); break;
	case NAME:
	case PEER_NAME: do_name(w, s, r); break;
	case SHUTDOWN: r->ret = shutdown(fd, (int)(s->a % 7 == 0 ? 5 : s->a % 3)); break;
	case DUP: {
		int copy = dup(fd);

		close(fd);
		w->fd[s->slot] = copy;
		break;
	}
	case IOCTL: do_ioctl(w, s, r); break;
	default: do_close(w, s, r); break;
	}
	if (r->ret < 0 && !r->err)
		r->err = errno;
	if (r->ret >= 0)
		r->err = 0;
	r->pipes += sigpipes;
}

/*
 * Both sides have shut down, and one has not read everything. If that one goes, or the other uses its socket for something
 * else, ours is a reset, as of any connection with bytes that are not acknowledged; TCP's kernel has acknowledged them and
 * knows nothing any more.
 */
static bool leaves_unread(int slot)
{
	return (mask_of(worlds[0].fd[slot]) & (POLLHUP | POLLERR)) == POLLHUP &&
	       (readable(worlds[0].fd[slot]) > 0 || at_mark(worlds[0].fd[slot]));
}

/* A reset may come before bytes that nobody has waited for, since their receiver is not accepted yet. */
static bool outruns(const struct knowledge *k)
{
	return k->connected && k->peer < 0 && k->sent;
}

static bool may_set(const struct step *s, const struct knowledge *k)
{
	const struct option *o = &options[s->a % OPTIONS];

	/* before connect() it delays the last of the handshake, and so the order of accept() */
	if (o->level == SOL_TCP && o->name == TCP_QUICKACK)
		return k->connected;
	/* of a connection that is over TCP has forgotten the port, and takes it */
	if (o->level == SOL_IPV6 && o->name == IPV6_V6ONLY)
		return !k->connected || !(mask_of(worlds[0].fd[s->slot]) & (POLLERR | POLLHUP));
	return true;
}

/* Whether a step makes sense here, as far as the program knows: the same for both. */
static bool applies(const struct step *s)
{
	const struct knowledge *k = &known[s->slot], *o = &known[s->other];

	switch (s->kind) {
	case SOCKET: return !k->open;
	case ACCEPT: return !k->open && o->open;
	/* where the queue is full, TCP has it wait, and ours goes over TCP, whose queue counts by itself */
	case CONNECT:
		return k->open && o->open && o->listens && o->queued <= o->backlog && s->slot != s->other &&
		       !leaves_unread(s->slot);
	case CONNECT_NOBODY: return k->open && !leaves_unread(s->slot);
	/* the children of one that was shut before are born shut over TCP, by an accident of sk_clone() */
	case LISTEN: return k->open && !k->shut;
	case DISCONNECT:
		return k->open && !leaves_unread(s->slot) && (k->peer < 0 || !leaves_unread(k->peer)) && !outruns(k);
	case CLOSE: return k->open && !leaves_unread(s->slot);
	case LINGER_CLOSE: return k->open && !leaves_unread(s->slot) && !outruns(k);
	case SEND:
	case SENDV:
		if (k->peer < 0)
			return k->open;
		/*
		 * An urgent byte for who has shut down both ways comes before its reset; another in front of which the
		 * receiver stands is dropped by TCP, and is in the stream over ours.
		 */
		return k->open && readable(worlds[0].fd[k->peer]) < UNREAD_MAX &&
		       !(PICK(send_flags, s->b >> 8) & MSG_OOB &&
			 (mask_of(worlds[0].fd[k->peer]) & POLLRDHUP || at_mark(worlds[0].fd[k->peer])));
	case SETOPT: return k->open && may_set(s, k);
	default: return k->open;
	}
}

/* Where a step would do something: most go there, some anywhere. */
static bool is_good(const struct step *s)
{
	const struct knowledge *k = &known[s->slot], *o = &known[s->other];

	switch (s->kind) {
	case BIND:
	case LISTEN: return !k->connected && !k->listens;
	case CONNECT:
	case CONNECT_NOBODY: return !k->connected && !k->listens;
	case ACCEPT: return o->listens && mask_of(worlds[0].fd[s->other]) & POLLIN;
	case SEND:
	case SENDV:
	case SHUTDOWN: return k->connected;
	case RECV:
	case RECVV: return k->connected && (readable(worlds[0].fd[s->slot]) > 0 || s->a % 4 == 0);
	case CLOSE:
	case LINGER_CLOSE: return k->connected || s->a % 8 == 0;
	default: return true;
	}
}

/* Moves a step that makes no sense to sockets where it does. */
static bool resolve(struct step *s)
{
	struct step to = *s;

	for (int good = s->b % 10 != 0; good >= 0; good--)
		for (int i = 0; i < SLOTS * SLOTS; i++) {
			to.slot = (uint8_t)((s->slot + i) % SLOTS);
			to.other = (uint8_t)((s->other + i / SLOTS) % SLOTS);
			if (applies(&to) && (!good || is_good(&to))) {
				*s = to;
				return true;
			}
		}
	return false;
}

static void lose_peer(int slot)
{
	for (int i = 0; i < SLOTS; i++)
		if (known[i].peer == slot)
			known[i].peer = -1;
}

/* The path of a connection of ours, which nobody would otherwise miss. */
static bool check_path(int slot, char *what, size_t size)
{
	struct vnet_so_path path;
	socklen_t len = sizeof(path);

	if (second == PLAIN)
		return true;
	if (getsockopt(worlds[1].fd[slot], SOL_VNET, VNET_SO_PATH, &path, &len)) {
		snprintf(what, size, "socket %d: no VNET_SO_PATH", slot);
		return false;
	}
	if (path.path == VNET_PATH_VTOE)
		offloaded++;
	else
		over_tcp++;
	if ((path.path == VNET_PATH_VTOE) == (second == OURS))
		return true;
	snprintf(what, size, "socket %d: went the wrong way: %s", slot, path.reason_name);
	return false;
}

/*
 * What is on its way, or held back by MSG_MORE, a cork or Nagle's algorithm, would reset a peer that shuts down meanwhile.
 * TCP tells when it is through; ours holds back as long, and began a moment later.
 */
static void all_arrives(int slot)
{
	int left = 0, i = 0;

	while (i < 500 && !ioctl(worlds[0].fd[slot], SIOCOUTQ, &left) && left) {
		usleep(1000);
		i++;
	}
	if (second == OURS)
		usleep(i ? 50000 : 20000);
}

/* TCP may give two connections to different peers one port: then a name does not tell the slot. */
static bool shares_port(int slot)
{
	for (int w = 0; w < 2; w++)
		for (int i = 0; i < SLOTS; i++)
			if (i != slot && known[i].open && own_port(worlds[w].fd[i]) == own_port(worlds[w].fd[slot]))
				return true;
	return false;
}

/* What follows from a step that gave the same in both; waits for it. */
static bool follow(const struct step *s, const struct result *r, char *what, size_t size)
{
	struct knowledge *k = &known[s->slot];

	snprintf(what, size, "what %s brings about did not come", kind_names[s->kind]);
	switch (s->kind) {
	case SOCKET:
		*k = (struct knowledge){ .open = r->ret >= 0, .peer = -1 };
		return true;
	case LISTEN:
		if (r->ret == 0) {
			k->listens = true;
			k->backlog = backlog_of(s);
		}
		return true;
	case CONNECT:
	case CONNECT_NOBODY:
		if (r->err == ECONNRESET || r->err == ECONNREFUSED || r->err == ECONNABORTED) {
			/* The end of the connection is said here, and the socket as new. */
			lose_peer(s->slot);
			*k = (struct knowledge){ .open = true, .peer = -1 };
		}
		if (r->ret < 0 && r->err != EINPROGRESS)
			return true;
		if (r->ret < 0) { /* a new connection, whatever there was before */
			lose_peer(s->slot);
			*k = (struct knowledge){ .open = true, .dialed = true, .peer = -1, .shut = k->shut };
		}
		if (!wait_while(s->slot, 1 << TCP_SYN_SENT))
			return false;
		if (s->kind == CONNECT_NOBODY || state_of(0, s->slot) != TCP_ESTABLISHED)
			return true;
		if (k->connected) /* the call that says so */
			return true;
		k->connected = true;
		k->listener = s->other;
		known[s->other].queued++;
		return wait_for(s->other, POLLIN, 0) && check_path(s->slot, what, size);
	case ACCEPT:
		*k = (struct knowledge){ .open = r->ret >= 0, .connected = true, .peer = -1 };
		if (r->ret < 0)
			return true;
		known[s->other].queued--;
		/* whose port the name gave */
		k->peer = port_of((const struct sockaddr_storage *)r->data) - 1000;
		if (k->peer < 0 || k->peer >= SLOTS || !known[k->peer].connected || known[k->peer].listener != s->other)
			k->peer = -1; /* what connected is gone */
		else
			known[k->peer].peer = s->slot;
		/* what it had sent before */
		return k->peer < 0 || known[k->peer].urgent || wait_for(s->slot, 0, (int)known[k->peer].sent);
	case SEND:
	case SENDV:
		if (r->ret <= 0)
			return true;
		k->sent += (uint32_t)r->ret;
		k->urgent |= PICK(send_flags, s->b >> 8) & MSG_OOB;
		/* all of it, also what MSG_MORE holds back for a while */
		if (k->urgent)
			all_arrives(s->slot);
		return k->urgent || k->peer < 0 || wait_for(k->peer, 0, (int)(k->sent - known[k->peer].got));
	case RECV:
	case RECVV:
		if (r->ret > 0 && !(PICK(recv_flags, s->b >> 8) & (MSG_PEEK | MSG_OOB)))
			k->got += (uint32_t)r->ret;
		return true;
	case SHUTDOWN:
		k->shut |= !k->connected && !k->listens;
		if (r->ret == 0 && s->a % 3 != SHUT_RD && k->peer >= 0)
			return wait_for_end(k->peer);
		if (k->listens && mask_of(worlds[0].fd[s->slot])) {
			k->listens = false;
			k->queued = 0;
		}
		return true;
	case DISCONNECT:
		if (r->ret < 0)
			return true;
		lose_peer(s->slot);
		*k = (struct knowledge){ .open = true, .peer = -1 };
		return true;
	case CLOSE:
	case LINGER_CLOSE: {
		int peer = k->peer;

		lose_peer(s->slot);
		k->open = false;
		return peer < 0 || wait_for_end(peer);
	}
	default:
		return true;
	}
}

/* ---- playing ---- */

static bool same_result(const struct step *s, const struct result *r, bool *ends, char *what, size_t size)
{
	if (r[0].ret == r[1].ret && r[0].err == r[1].err && r[0].pipes == r[1].pipes && r[0].len == r[1].len &&
	    !memcmp(r[0].data, r[1].data, r[0].len))
		return true;
	if (on_purpose(s)) {
		*ends = on_purpose(s)->ends;
		return true;
	}
	snprintf(what, size, "%d (%s), ours %d (%s)%s%s", r[0].ret, strerror(r[0].err), r[1].ret, strerror(r[1].err),
		 r[0].pipes != r[1].pipes ? ", signals or message header differ" : "",
		 r[0].len != r[1].len || memcmp(r[0].data, r[1].data, r[0].len) ? ", data differs" : "");
	if (r[0].len == 4 && r[1].len == 4)
		snprintf(what + strlen(what), size - strlen(what), " (%d, ours %d)", *(const int *)r[0].data,
			 *(const int *)r[1].data);
	return false;
}

static void clean_up(void)
{
	for (int i = 0; i < SLOTS; i++)
		for (int w = 0; w < 2; w++)
			if (known[i].open)
				close(worlds[w].fd[i]);
	memset(known, 0, sizeof(known));
}

/* The step that gave different things, or -1. first: steps may still be moved to other sockets. */
static int play(struct step *script, int steps, bool first, char *what, size_t size)
{
	static struct result r[2];
	bool ends = false;
	int bad = -1;

	for (int i = 0; i < SLOTS; i++)
		known[i].peer = -1;
	for (int i = 0; i < steps && bad < 0 && !ends; i++) {
		struct step *s = &script[i];

		if (!(first ? resolve(s) : applies(s)))
			continue;
		steps_done++;
		for (int w = 0; w < 2; w++)
			do_step(&worlds[w], s, &r[w]);
		if (verbose) {
			print_step(i, s);
			printf("      -> %d (%s)\n", r[0].ret, strerror(r[0].err));
		}
		if (!same_result(s, r, &ends, what, size))
			bad = i;
		else if (!ends && (!follow(s, &r[0], what, size) || !come_to_rest(what, size)))
			bad = i;
		ends |= s->kind == CONNECT && known[s->slot].dialed && shares_port(s->slot);
	}
	clean_up();
	return bad;
}

/* Leaves out what is not needed for the last step to differ. */
static int shrink(struct step *script, int steps, char *what, size_t size)
{
	struct step shorter[STEPS];
	uint8_t kind = script[steps - 1].kind;
	bool again = true;

	patience = IMPATIENCE;
	while (again) {
		again = false;
		for (int i = steps - 2; i >= 0; i--) {
			int bad;

			memcpy(shorter, script, sizeof(*script) * (size_t)i);
			memcpy(shorter + i, script + i + 1, sizeof(*script) * (size_t)(steps - i - 1));
			bad = play(shorter, steps - 1, false, what, size);
			if (bad < 0 || shorter[bad].kind != kind)
				continue;
			steps = bad + 1;
			memcpy(script, shorter, sizeof(*script) * (size_t)steps);
			again = true;
			if (i > steps - 1)
				i = steps - 1;
		}
	}
	patience = PATIENCE;
	play(script, steps, false, what, size);
	return steps;
}

static bool play_seed(uint64_t seed)
{
	struct step script[STEPS];
	char what[256] = "";
	int bad;

	make_script(script, seed);
	bad = play(script, STEPS, true, what, sizeof(what));
	if (bad < 0)
		return true;
	printf("seed %llu: step %d, %s: %s\n", (unsigned long long)seed, bad, kind_names[script[bad].kind], what);
	bad = shrink(script, bad + 1, what, sizeof(what));
	printf("shrunk to %d steps: %s\n", bad, what);
	for (int i = 0; i < bad; i++)
		print_step(i, &script[i]);
	fflush(stdout);
	return false;
}

/* ---- start ---- */

static bool find_own(void)
{
	struct ifaddrs *list, *i;

	if (getifaddrs(&list))
		return false;
	for (i = list; i && !addr_len; i = i->ifa_next) {
		bool six = i->ifa_addr && i->ifa_addr->sa_family == AF_INET6;

		if (!i->ifa_addr || six != v6 || (!six && i->ifa_addr->sa_family != AF_INET))
			continue;
		if (strcmp(i->ifa_name, second == PLAIN ? "lo" : "vnet0"))
			continue;
		if (six && IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr))
			continue;
		addr_len = six ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
		memcpy(&own, i->ifa_addr, addr_len);
	}
	freeifaddrs(list);
	return addr_len;
}

static void on_pipe(int sig)
{
	(void)sig;
	sigpipes++;
}

/* One byte of what the second world receives is hidden: must be seen, and be made small. */
static int check_itself(void)
{
	struct step script[STEPS];
	char what[256] = "";

	sabotage = true;
	for (uint64_t seed = 1; seed < 200; seed++) {
		int bad, steps;

		make_script(script, seed);
		bad = play(script, STEPS, true, what, sizeof(what));
		if (bad < 0)
			continue;
		steps = shrink(script, bad + 1, what, sizeof(what));
		printf("seed %llu, %d steps shrunk to %d: %s\n", (unsigned long long)seed, bad + 1, steps, what);
		/* two sockets, listen, connect, accept, send, recv, and a bind or an option it needs */
		return steps <= 9 && (script[steps - 1].kind == RECV || script[steps - 1].kind == RECVV) ? 0 : 1;
	}
	printf("nothing was seen\n");
	return 1;
}

int main(int argc, char **argv)
{
	const char *family = getenv("VNET_FAMILY");
	long seconds = 0, count = 1, played = 0, differ = 0;
	uint64_t seed;
	int64_t end;
	int c;

	while ((c = getopt(argc, argv, "6tpvxs:")) != -1) {
		switch (c) {
		case '6': v6 = true; break;
		case 't': second = OURS_OVER_TCP; break;
		case 'p': second = PLAIN; break;
		case 'v': verbose = true; break;
		case 'x': second = PLAIN; sabotage = true; break;
		case 's': seconds = atol(optarg); break;
		default: return 2;
		}
	}
	signal(SIGPIPE, on_pipe);
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!find_own()) {
		printf("no address on %s\n", second == PLAIN ? "lo" : "vnet0");
		return 77;
	}
	worlds[0].family = v6 ? AF_INET6 : AF_INET;
	worlds[1].family = second == PLAIN ? worlds[0].family : family ? atoi(family) : AF_INET_VNET_DEFAULT;
	if (sabotage)
		return check_itself();
	seed = optind < argc ? strtoull(argv[optind], NULL, 0) : 1;
	if (optind + 1 < argc)
		count = atol(argv[optind + 1]);
	end = now_ms() + seconds * 1000;
	while (seconds ? now_ms() < end : played < count) {
		differ += !play_seed(seed++);
		played++;
		if (differ >= 10)
			break;
	}
	printf("%ld scripts, %lu steps, %lu connections offloaded, %lu over TCP, %ld scripts differ\n", played, steps_done,
	       offloaded, over_tcp, differ);
	if (second == OURS && !offloaded)
		return 1;
	return differ ? 1 : 0;
}
