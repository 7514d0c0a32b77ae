/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * For the tests of AF_INET_VNET sockets that run in a guest, one program per
 * topic. Exit status 0, 1 (a check failed, which is printed) or 77 (skipped).
 *
 *   sock_X              server and client in this guest, over its own vnet0
 *   sock_X server       the server alone; prints READY
 *   sock_X client ADDR  against a server in another guest
 *   -6 in front: over IPv6
 *   -p in front: over plain TCP, whose behaviour is what is expected of ours
 *   -t in front: sockets of ours that go over TCP (VNET_MODE_TCP)
 *
 * The server is the same for all: the first byte of a connection says what it
 * does (enum verb), so nobody ever has to sleep for the other side.
 */
#ifndef SOCK_COMMON_H
#define SOCK_COMMON_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "vnet_sock.h"
#include "vnet_vtoe.h"

#define PORT server_port()

enum verb {
	ECHO = 'E',	/* sends back what comes until end of file, then closes */
	SUM = 'S',	/* reads to the end of file, then sends a 64-bit sum */
	RESET = 'R',	/* closes with linger time zero */
	UNREAD = 'U',	/* waits for data, closes without reading it */
	SHUT = 'H',	/* shuts down its half, then reads to the end, then closes */
	MUTE = 'M',	/* never reads, until the client is gone */
	SOURCE = 'O',	/* reads a 64-bit count, sends as many bytes of a pattern */
	NAMES = 'N',	/* sends what accept(), getpeername() and getsockname() said */
};

enum way { OFFLOAD, THROUGH, PLAIN };

#define check(cond)                                                              \
	do {                                                                     \
		if (!(cond)) {                                                   \
			printf("%s:%d: failed: %s (errno %s)\n", __FILE__, __LINE__, #cond, \
			       strerror(errno));                                 \
			fflush(stdout);                                          \
			_exit(1);                                                \
		}                                                                \
	} while (0)

struct addr {
	struct sockaddr_storage ss;
	socklen_t len;
	bool v6;
};

static struct addr peer; /* where the server is */
static enum way way;

/* The server's, $SOCK_PORT where there are two. */
__attribute__((unused)) static int server_port(void)
{
	const char *env = getenv("SOCK_PORT");

	return env ? atoi(env) : 7000;
}

__attribute__((unused)) static int family(void)
{
	const char *env = getenv("VNET_FAMILY");

	return env ? atoi(env) : AF_INET_VNET_DEFAULT;
}

static int try_socket(bool v6)
{
	if (way == PLAIN)
		return socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	return socket(family(), SOCK_STREAM, v6 ? VNETPROTO_IP6 : VNETPROTO_IP4);
}

__attribute__((unused)) static int vnet_socket(bool v6)
{
	int mode = VNET_MODE_TCP, fd = try_socket(v6);

	check(fd >= 0);
	if (way == THROUGH)
		check(setsockopt(fd, SOL_VNET, VNET_SO_MODE, &mode, sizeof(mode)) == 0);
	return fd;
}

__attribute__((unused)) static void set_addr(struct addr *a, const char *text, int port)
{
	struct sockaddr_in *sin = (void *)&a->ss;
	struct sockaddr_in6 *sin6 = (void *)&a->ss;

	memset(a, 0, sizeof(*a));
	if (inet_pton(AF_INET, text, &sin->sin_addr) == 1) {
		sin->sin_family = AF_INET;
		sin->sin_port = htons((uint16_t)port);
		a->len = sizeof(*sin);
		return;
	}
	check(inet_pton(AF_INET6, text, &sin6->sin6_addr) == 1);
	sin6->sin6_family = AF_INET6;
	sin6->sin6_port = htons((uint16_t)port);
	a->len = sizeof(*sin6);
	a->v6 = true;
}

__attribute__((unused)) static struct sockaddr *sa(struct addr *a)
{
	return (struct sockaddr *)&a->ss;
}

__attribute__((unused)) static void set_port(struct addr *a, int port)
{
	((struct sockaddr_in *)&a->ss)->sin_port = htons((uint16_t)port);
}

__attribute__((unused)) static int port_of(const struct addr *a)
{
	return ntohs(((const struct sockaddr_in *)&a->ss)->sin_port);
}

/* The same family, address and port. */
__attribute__((unused)) static bool same_addr(const struct addr *a, const struct addr *b)
{
	const struct sockaddr_in *a4 = (const void *)&a->ss, *b4 = (const void *)&b->ss;
	const struct sockaddr_in6 *a6 = (const void *)&a->ss, *b6 = (const void *)&b->ss;

	if (a->ss.ss_family != b->ss.ss_family || a->len != b->len || a4->sin_port != b4->sin_port)
		return false;
	if (a->ss.ss_family == AF_INET)
		return a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	return !memcmp(&a6->sin6_addr, &b6->sin6_addr, sizeof(a6->sin6_addr));
}

__attribute__((unused)) static struct addr name_of(int fd)
{
	struct addr a = { .len = sizeof(a.ss) };

	check(getsockname(fd, (struct sockaddr *)&a.ss, &a.len) == 0);
	return a;
}

/* This guest's own address on vnet0. */
static bool own_addr(struct addr *a, bool v6)
{
	struct ifaddrs *list, *i;
	char text[INET6_ADDRSTRLEN];
	bool found = false;

	check(getifaddrs(&list) == 0);
	for (i = list; i && !found; i = i->ifa_next) {
		if (!i->ifa_addr || strcmp(i->ifa_name, "vnet0"))
			continue;
		if (!v6 && i->ifa_addr->sa_family == AF_INET) {
			inet_ntop(AF_INET, &((struct sockaddr_in *)i->ifa_addr)->sin_addr, text,
				  sizeof(text));
			found = true;
		}
		if (v6 && i->ifa_addr->sa_family == AF_INET6) {
			struct in6_addr *ip = &((struct sockaddr_in6 *)i->ifa_addr)->sin6_addr;

			if (IN6_IS_ADDR_LINKLOCAL(ip))
				continue;
			inet_ntop(AF_INET6, ip, text, sizeof(text));
			found = true;
		}
	}
	freeifaddrs(list);
	if (found)
		set_addr(a, text, PORT);
	return found;
}

__attribute__((unused)) static struct vnet_so_path path_of(int fd)
{
	struct vnet_so_path path;
	socklen_t len = sizeof(path);

	check(getsockopt(fd, SOL_VNET, VNET_SO_PATH, &path, &len) == 0 && len == sizeof(path));
	return path;
}

__attribute__((unused)) static void expect_tcp(int fd, uint32_t reason)
{
	struct vnet_so_path path = path_of(fd);

	if (path.path != VNET_PATH_TCP || path.reason != reason)
		printf("path %u, reason %s\n", path.path, path.reason_name);
	check(path.path == VNET_PATH_TCP && path.reason == reason);
	check(!strcmp(path.reason_name, vtoe_reason_name(reason)));
}

/* Or, where this program is told to, not. */
__attribute__((unused)) static void check_offloaded(int fd)
{
	struct vnet_so_path path;

	if (way == PLAIN)
		return;
	if (way == THROUGH) {
		expect_tcp(fd, VTOE_REASON_POLICY);
		return;
	}
	path = path_of(fd);
	if (path.path != VNET_PATH_VTOE)
		printf("not offloaded: %s\n", path.reason_name);
	check(path.path == VNET_PATH_VTOE);
}

__attribute__((unused)) static void write_all(int fd, const void *data, size_t len)
{
	const char *p = data;

	while (len) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		check(n > 0);
		p += n;
		len -= (size_t)n;
	}
}

__attribute__((unused)) static size_t read_full(int fd, void *data, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = recv(fd, (char *)data + done, len - done, 0);

		check(n >= 0);
		if (!n)
			break;
		done += (size_t)n;
	}
	return done;
}

__attribute__((unused)) static int get_int(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	check(getsockopt(fd, level, name, &value, &len) == 0);
	return value;
}

__attribute__((unused)) static void set_int(int fd, int level, int name, int value)
{
	check(setsockopt(fd, level, name, &value, sizeof(value)) == 0);
}

/* Readable, writable or what else is asked, in time. */
__attribute__((unused)) static short wait_poll(int fd, short events, int ms)
{
	struct pollfd pfd = { .fd = fd, .events = events };

	return poll(&pfd, 1, ms) == 1 ? pfd.revents : 0;
}

__attribute__((unused)) static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* A listener of this test's own. */
__attribute__((unused)) static int listener_on(const struct addr *at, int backlog)
{
	int fd = vnet_socket(at->v6);

	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	check(bind(fd, (const struct sockaddr *)&at->ss, at->len) == 0);
	check(listen(fd, backlog) == 0);
	return fd;
}

/* One end of a connection to it. */
__attribute__((unused)) static int dial(const struct addr *at)
{
	int fd = vnet_socket(at->v6);

	check(connect(fd, (const struct sockaddr *)&at->ss, at->len) == 0);
	check_offloaded(fd);
	return fd;
}

__attribute__((unused)) static int call(enum verb verb)
{
	int fd = vnet_socket(peer.v6);
	char c = (char)verb;

	check(connect(fd, sa(&peer), peer.len) == 0);
	check_offloaded(fd);
	write_all(fd, &c, 1);
	return fd;
}

/*
 * Sends until nothing more fits, and nothing has for 300 ms: over TCP both
 * buffers still grow, and empty into one another, after the first EAGAIN.
 */
__attribute__((unused)) static void choke(int fd)
{
	static char buf[65536];
	bool more;

	do {
		for (more = false; send(fd, buf, sizeof(buf), MSG_DONTWAIT | MSG_NOSIGNAL) > 0;)
			more = true;
		check(errno == EAGAIN);
		wait_poll(fd, POLLOUT, 300); /* writable only when a third is free: asked again */
	} while (more);
}

/* ---- pattern: byte i of stream seed ---- */

__attribute__((unused)) static uint8_t pattern(uint64_t seed, uint64_t i)
{
	uint64_t x = (i + seed) * 0x9e3779b97f4a7c15ull;

	return (uint8_t)(x >> 56 ^ x >> 24);
}

__attribute__((unused)) static void fill(uint8_t *buf, size_t len, uint64_t seed, uint64_t from)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = pattern(seed, from + i);
}

__attribute__((unused)) static bool matches(const uint8_t *buf, size_t len, uint64_t seed,
					    uint64_t from)
{
	for (size_t i = 0; i < len; i++)
		if (buf[i] != pattern(seed, from + i))
			return false;
	return true;
}

#ifndef SOCK_OWN_MAIN /* a program that has one takes no more than what is above */

/* ---- server: a client that goes away is no fault ---- */

static bool give(int fd, const void *data, size_t len)
{
	const char *p = data;
	ssize_t n;

	while (len) {
		n = send(fd, p, len, MSG_NOSIGNAL);
		if (n <= 0)
			return false;
		p += n;
		len -= (size_t)n;
	}
	return true;
}

static void serve_echo(int fd)
{
	char buf[65536];
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
		if (!give(fd, buf, (size_t)n))
			break;
}

static void serve_sum(int fd)
{
	uint8_t buf[65536];
	uint64_t sum = 0, at = 0;
	ssize_t n, i;

	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
		for (i = 0; i < n; i++)
			sum = sum * 31 + buf[i] + at++;
	give(fd, &sum, sizeof(sum));
}

static void serve_source(int fd)
{
	uint64_t count, at = 0;
	static uint8_t buf[200000];

	if (recv(fd, &count, sizeof(count), MSG_WAITALL) != sizeof(count))
		return;
	while (at < count) {
		size_t n = count - at < sizeof(buf) ? count - at : sizeof(buf);

		fill(buf, n, 7, at);
		if (!give(fd, buf, n))
			return;
		at += n;
	}
}

struct guest {
	int fd;
	struct addr from;
};

static void serve_names(const struct guest *guest)
{
	struct addr peer_name = { .len = sizeof(peer_name.ss) }, own = { .len = sizeof(own.ss) };

	if (getpeername(guest->fd, (struct sockaddr *)&peer_name.ss, &peer_name.len) ||
	    getsockname(guest->fd, (struct sockaddr *)&own.ss, &own.len))
		return;
	if (give(guest->fd, &guest->from, sizeof(guest->from)) &&
	    give(guest->fd, &peer_name, sizeof(peer_name)))
		give(guest->fd, &own, sizeof(own));
}

static void *serve_one(void *arg)
{
	struct guest guest = *(struct guest *)arg;
	int fd = guest.fd;
	struct linger hard = { .l_onoff = 1 };
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	char c, verb = 0;

	free(arg);
	if (recv(fd, &verb, 1, 0) == 1) {
		switch (verb) {
		case ECHO:
			serve_echo(fd);
			break;
		case SUM:
			serve_sum(fd);
			break;
		case RESET:
			setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
			break;
		case UNREAD:
			poll(&pfd, 1, -1);
			break;
		case SHUT:
			shutdown(fd, SHUT_WR);
			while (recv(fd, &c, 1, 0) > 0)
				;
			break;
		case MUTE:
			pfd.events = POLLRDHUP;
			poll(&pfd, 1, -1);
			break;
		case SOURCE:
			serve_source(fd);
			break;
		case NAMES:
			serve_names(&guest);
			break;
		}
	}
	close(fd);
	return NULL;
}

static int listen_at(int port, bool vnet)
{
	struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port) };
	int one = 1, fd = vnet ? vnet_socket(true) : socket(AF_INET6, SOCK_STREAM, 0);

	check(fd >= 0);
	check(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
	check(bind(fd, (struct sockaddr *)&any, sizeof(any)) == 0);
	check(listen(fd, 512) == 0);
	return fd;
}

__attribute__((unused)) static void serve(int listener)
{
	pthread_attr_t attr;
	struct guest *guest;
	pthread_t thread;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 256 << 10);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	for (;;) {
		guest = calloc(1, sizeof(*guest));
		check(guest);
		guest->from.len = sizeof(guest->from.ss);
		guest->fd = accept(listener, (struct sockaddr *)&guest->from.ss, &guest->from.len);
		if (guest->fd < 0)
			return;
		check(pthread_create(&thread, &attr, serve_one, guest) == 0);
	}
}

/* A test may have a server of its own. */
#ifndef SOCK_SERVE
#define SOCK_SERVE serve
#endif

static void client(void);

int main(int argc, char **argv)
{
	bool v6 = false;
	pid_t pid, parent;
	int listener;

	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(120);
	for (; argc > 1 && argv[1][0] == '-'; argc--, argv++) {
		v6 |= !strcmp(argv[1], "-6");
		if (!strcmp(argv[1], "-p"))
			way = PLAIN;
		if (!strcmp(argv[1], "-t"))
			way = THROUGH;
	}
	if (argc > 2 && !strcmp(argv[1], "client")) {
		set_addr(&peer, argv[2], PORT);
		client();
		return 0;
	}
	listener = listen_at(PORT, true);
	if (argc > 1 && !strcmp(argv[1], "server")) {
		alarm(0);
		puts("READY");
		SOCK_SERVE(listener);
		return 1;
	}
	if (!own_addr(&peer, v6)) {
		puts("no address on vnet0");
		return 77;
	}
	parent = getpid();
	pid = fork();
	check(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		SOCK_SERVE(listener);
		_exit(1);
	}
	close(listener);
	client();
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0); /* its sockets are gone, too */
	return 0;
}

#endif /* SOCK_OWN_MAIN */
#endif /* SOCK_COMMON_H */
