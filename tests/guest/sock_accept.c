// SPDX-License-Identifier: GPL-2.0-or-later
/* Listeners: accept4's flags, waiting and not, several who wait, names, a full backlog, what children inherit. */
#include "sock_common.h"

#define OWN_PORT 7003

static struct addr at; /* of listeners of our own */

static void flags(void)
{
	int listener = listener_on(&at, 10), fd, one;
	struct timeval tv = { .tv_usec = 100000 };
	int64_t start;

	check(accept4(listener, NULL, NULL, 0x40000000) == -1 && errno == EINVAL);
	check(fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
	check(accept(listener, NULL, NULL) == -1 && errno == EAGAIN);
	fd = dial(&at);
	check(wait_poll(listener, POLLIN, 5000) == POLLIN);
	one = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	check(one >= 0);
	check(fcntl(one, F_GETFL) & O_NONBLOCK && fcntl(one, F_GETFD) & FD_CLOEXEC);
	check(recv(one, &start, 1, 0) == -1 && errno == EAGAIN);
	check_offloaded(fd);
	close(one);
	close(fd);

	/* the listener's O_NONBLOCK is not the child's */
	fd = dial(&at);
	check(wait_poll(listener, POLLIN, 5000) == POLLIN);
	one = accept(listener, NULL, NULL);
	check(one >= 0 && !(fcntl(one, F_GETFL) & O_NONBLOCK) && !(fcntl(one, F_GETFD) & FD_CLOEXEC));
	close(one);
	close(fd);

	check(fcntl(listener, F_SETFL, 0) == 0);
	check(setsockopt(listener, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	start = now_ms();
	check(accept(listener, NULL, NULL) == -1 && errno == EAGAIN);
	check(now_ms() - start >= 90);
	close(listener);

	fd = vnet_socket(at.v6);
	check(accept(fd, NULL, NULL) == -1 && errno == EINVAL);
	close(fd);
}

/* Two processes wait in accept(): each gets one. */
static void processes(void)
{
	int listener = listener_on(&at, 10), fd[2], status, i;
	char c;

	for (i = 0; i < 2; i++) {
		if (fork())
			continue;
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		alarm(60);
		fd[0] = accept(listener, NULL, NULL);
		check(fd[0] >= 0);
		write_all(fd[0], "k", 1);
		check(recv(fd[0], &c, 1, 0) == 0);
		_exit(0);
	}
	for (i = 0; i < 2; i++)
		fd[i] = dial(&at);
	for (i = 0; i < 2; i++)
		check(recv(fd[i], &c, 1, 0) == 1 && c == 'k');
	for (i = 0; i < 2; i++)
		close(fd[i]);
	for (i = 0; i < 2; i++)
		check(wait(&status) > 0 && status == 0);
	close(listener);
}

/* What the server's dual-stack listener and its child say of both ends. */
static void names(void)
{
	struct addr told[3], own, there = peer;
	struct sockaddr_in6 *sin6;
	int fd = call(NAMES), i;

	check(read_full(fd, told, sizeof(told)) == sizeof(told));
	own = name_of(fd);
	check(own.len == peer.len && own.ss.ss_family == (peer.v6 ? AF_INET6 : AF_INET));
	for (i = 0; i < 3; i++) {
		sin6 = (struct sockaddr_in6 *)&told[i].ss;
		check(told[i].len == sizeof(*sin6) && sin6->sin6_family == AF_INET6);
		if (peer.v6)
			continue;
		check(IN6_IS_ADDR_V4MAPPED(&sin6->sin6_addr));
		struct sockaddr_in sin = { .sin_family = AF_INET, .sin_port = sin6->sin6_port };

		memcpy(&sin.sin_addr, &sin6->sin6_addr.s6_addr[12], 4);
		memcpy(&told[i].ss, &sin, sizeof(sin));
		told[i].len = sizeof(sin);
	}
	check(same_addr(&told[0], &own));
	check(same_addr(&told[1], &own));
	check(same_addr(&told[2], &there));
	close(fd);
}

/* The same at a listener of one family, bound to the one address. */
static void own_names(void)
{
	struct addr from = { .len = sizeof(from.ss) }, name;
	int listener = listener_on(&at, 10), fd = dial(&at), one;
	socklen_t len = 4;

	one = accept(listener, sa(&from), &from.len);
	name = name_of(fd);
	check(one >= 0 && same_addr(&from, &name));
	name = name_of(one);
	check(same_addr(&name, &at));
	close(one);
	close(fd);
	fd = dial(&at);
	/* too little room: cut off, and the length it would have had */
	memset(&from, 0x55, sizeof(from));
	one = accept(listener, sa(&from), &len);
	check(one >= 0 && len == at.len && ((uint8_t *)&from.ss)[4] == 0x55);
	close(one);
	close(fd);
	close(listener);
}

/* Connections until the backlog is full: over the offload, then over TCP, then one that has to wait. */
static void backlog(void)
{
	int listener = listener_on(&at, 1), fd[8], one, n = 0, offloaded = 0, seen = 0, i;
	const int fit = way == OFFLOAD ? 4 : 2; /* one more than the backlog, in each of the two queues */
	char c;

	for (;;) {
		check(n < 8);
		fd[n] = vnet_socket(at.v6);
		check(fcntl(fd[n], F_SETFL, O_NONBLOCK) == 0);
		check(connect(fd[n], sa(&at), at.len) == 0 || errno == EINPROGRESS);
		if (!(wait_poll(fd[n], POLLOUT, n < fit ? 10000 : 400) & POLLOUT))
			break;
		if (way != PLAIN && path_of(fd[n]).path == VNET_PATH_VTOE)
			offloaded++;
		else if (way == OFFLOAD)
			expect_tcp(fd[n], VTOE_REASON_BACKLOG);
		n++;
	}
	check(n == fit && offloaded == (way == OFFLOAD ? 2 : 0));
	for (i = 0; i < n; i++) {
		c = (char)(1 << i);
		check(send(fd[i], &c, 1, MSG_NOSIGNAL) == 1);
	}
	for (i = 0; i <= n; i++) {
		if (i == n) { /* TCP asks again after a second, then after two */
			check(wait_poll(fd[n], POLLOUT, 10000) == POLLOUT);
			c = (char)(1 << n);
			check(send(fd[n], &c, 1, MSG_NOSIGNAL) == 1);
		}
		one = accept(listener, NULL, NULL);
		check(one >= 0 && recv(one, &c, 1, 0) == 1);
		check(!(seen & c));
		seen |= c;
		close(one);
	}
	check(seen == (1 << (n + 1)) - 1);
	for (i = 0; i <= n; i++)
		close(fd[i]);
	close(listener);

	/* a backlog of 0 still lets one in */
	listener = listener_on(&at, 0);
	fd[0] = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	close(one);
	close(fd[0]);
	close(listener);
}

static void inherit(void)
{
	static const int option[][3] = {
		{ IPPROTO_TCP, TCP_NODELAY, 1 },     { IPPROTO_TCP, TCP_KEEPIDLE, 55 },
		{ IPPROTO_TCP, TCP_KEEPINTVL, 7 },   { IPPROTO_TCP, TCP_KEEPCNT, 3 },
		{ IPPROTO_TCP, TCP_USER_TIMEOUT, 900 },
		{ SOL_SOCKET, SO_KEEPALIVE, 1 },     { SOL_SOCKET, SO_RCVBUF, 70000 },
		{ SOL_SOCKET, SO_SNDBUF, 90000 },    { SOL_SOCKET, SO_RCVLOWAT, 2 },
		{ SOL_SOCKET, SO_REUSEADDR, 1 },     { SOL_SOCKET, SO_BROADCAST, 1 },
		{ SOL_SOCKET, SO_DONTROUTE, 1 },     { SOL_SOCKET, SO_RXQ_OVFL, 1 },
		{ SOL_SOCKET, SO_DEBUG, 1 },	     { SOL_SOCKET, SO_WIFI_STATUS, 1 },
		{ SOL_SOCKET, SO_LOCK_FILTER, 1 },   { SOL_SOCKET, SO_SELECT_ERR_QUEUE, 1 },
		{ SOL_SOCKET, SO_PREFER_BUSY_POLL, 1 }, { SOL_SOCKET, SO_MAX_PACING_RATE, 100000000 },
		{ IPPROTO_TCP, TCP_SYNCNT, 3 },	     { IPPROTO_TCP, TCP_LINGER2, 7 },
		{ IPPROTO_TCP, TCP_INQ, 1 },	     { IPPROTO_IP, IP_FREEBIND, 1 },
		{ IPPROTO_IP, IP_RECVTTL, 1 },	     { IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO },
		{ IPPROTO_IP, IP_TOS, 0x10 },	     { IPPROTO_IPV6, IPV6_TCLASS, 7 },
		{ IPPROTO_IPV6, IPV6_UNICAST_HOPS, 9 },
	};
	static const int more[4] = { 1, 2, 3, 4 };
	struct linger set = { .l_onoff = 1, .l_linger = 3 }, got = {};
	struct timeval tv = { .tv_sec = 5 }, back = {};
	int listener = listener_on(&at, 5), fd, one;
	socklen_t len = sizeof(got);
	size_t i, options = sizeof(option) / sizeof(option[0]) - (at.v6 ? 0 : 2);

	for (i = 0; i < options; i++)
		set_int(listener, option[i][0], option[i][1], option[i][2]);
	/* more room than a number takes */
	check(setsockopt(listener, IPPROTO_IP, IP_RECVTOS, more, sizeof(more)) == 0);
	check(setsockopt(listener, SOL_SOCKET, SO_LINGER, &set, sizeof(set)) == 0);
	check(setsockopt(listener, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) == 0);
	fd = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	for (i = 0; i < options; i++) {
		int want = get_int(listener, option[i][0], option[i][1]);
		int is = get_int(one, option[i][0], option[i][1]);

		if (is != want)
			printf("level %d option %d: %d, not %d\n", option[i][0], option[i][1], is,
			       want);
		check(is == want);
	}
	check(getsockopt(one, SOL_SOCKET, SO_LINGER, &got, &len) == 0);
	check(got.l_onoff == 1 && got.l_linger == 3);
	check(get_int(one, IPPROTO_IP, IP_RECVTOS) == 1);
	len = sizeof(back);
	check(getsockopt(one, SOL_SOCKET, SO_SNDTIMEO, &back, &len) == 0 && back.tv_sec == 5);
	/* not this one */
	set_int(listener, SOL_SOCKET, SO_PRIORITY, 3);
	close(one);
	close(fd);
	fd = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0 && get_int(one, SOL_SOCKET, SO_PRIORITY) == 0);
	close(one);
	close(fd);
	close(listener);
}

/* What an accepted socket keeps when it is no connection any more: its address, no port, options. */
static void keep(void)
{
	struct sockaddr unspec = { .sa_family = AF_UNSPEC };
	struct addr name = { .len = at.len, .v6 = at.v6 };
	int listener, fd, one;
	char dev[16];
	socklen_t len;

	listener = listener_on(&at, 5);
	fd = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	check(connect(one, &unspec, sizeof(unspec)) == 0 && listen(one, 1) == 0);
	len = sizeof(name.ss);
	check(getsockname(one, sa(&name), &len) == 0 && port_of(&name) != port_of(&at));
	set_port(&name, port_of(&at));
	check(same_addr(&name, &at));
	close(one);
	close(fd);
	close(listener);

	listener = vnet_socket(at.v6);
	set_int(listener, SOL_SOCKET, SO_REUSEADDR, 1);
	set_int(listener, SOL_SOCKET, SO_REUSEPORT, 1);
	check(bind(listener, sa(&at), at.len) == 0 && listen(listener, 5) == 0);
	fd = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	check(setsockopt(one, SOL_SOCKET, SO_BINDTODEVICE, "vnet0", 6) == 0);
	check(connect(one, &unspec, sizeof(unspec)) == 0);
	check(bind(one, sa(&at), at.len) == 0 && listen(one, 1) == 0);
	len = sizeof(dev);
	check(getsockopt(one, SOL_SOCKET, SO_BINDTODEVICE, dev, &len) == 0 && !strcmp(dev, "vnet0"));
	close(one);
	close(fd);
	close(listener);
}

/* SO_TIMESTAMP of an accepted socket is of use once it goes over TCP, where it sends who has it. */
static void stamped(void)
{
	struct sockaddr unspec = { .sa_family = AF_UNSPEC };
	int listener = listener_on(&at, 5), fd, one, two;
	uint8_t control[64];
	char c;
	struct iovec iov = { &c, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };

	fd = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	set_int(one, SOL_SOCKET, SO_TIMESTAMP, 1);
	check(connect(one, &unspec, sizeof(unspec)) == 0 && connect(one, sa(&at), at.len) == 0);
	if (way == OFFLOAD)
		expect_tcp(one, VTOE_REASON_OPTION);
	two = accept(listener, NULL, NULL);
	check(two >= 0);
	write_all(two, "t", 1);
	check(recvmsg(one, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg) && CMSG_FIRSTHDR(&msg)->cmsg_type == SO_TIMESTAMP);
	close(two);
	close(one);
	close(fd);
	close(listener);
}

/* One family only, and two listeners at one port. */
static void shared(void)
{
	struct addr four, six = { .len = sizeof(struct sockaddr_in6), .v6 = true }, other;
	int listener[2], fd, one, i;
	struct pollfd pfd[2];

	check(own_addr(&four, false));
	set_port(&four, OWN_PORT);
	((struct sockaddr_in6 *)&six.ss)->sin6_family = AF_INET6;
	set_port(&six, OWN_PORT);
	listener[0] = vnet_socket(true);
	set_int(listener[0], SOL_SOCKET, SO_REUSEADDR, 1);
	set_int(listener[0], IPPROTO_IPV6, IPV6_V6ONLY, 1);
	check(get_int(listener[0], IPPROTO_IPV6, IPV6_V6ONLY) == 1);
	check(bind(listener[0], sa(&six), six.len) == 0 && listen(listener[0], 5) == 0);
	fd = vnet_socket(false);
	check(connect(fd, sa(&four), four.len) == -1 && errno == ECONNREFUSED);
	close(fd);
	/* the port is free in the other family */
	listener[1] = listener_on(&four, 5);
	fd = dial(&four);
	one = accept(listener[1], NULL, NULL);
	check(one >= 0);
	close(one);
	close(fd);
	other = at;
	if (at.v6) {
		fd = dial(&other);
		one = accept(listener[0], NULL, NULL);
		check(one >= 0);
		close(one);
		close(fd);
	}
	close(listener[0]);
	close(listener[1]);

	/* SO_REUSEPORT: whoever gets it; when one closes, the other */
	for (i = 0; i < 2; i++) {
		listener[i] = vnet_socket(at.v6);
		set_int(listener[i], SOL_SOCKET, SO_REUSEADDR, 1);
		set_int(listener[i], SOL_SOCKET, SO_REUSEPORT, 1);
		check(bind(listener[i], sa(&at), at.len) == 0 && listen(listener[i], 5) == 0);
		pfd[i].fd = listener[i];
		pfd[i].events = POLLIN;
	}
	fd = vnet_socket(at.v6);
	check(bind(fd, sa(&at), at.len) == -1 && errno == EADDRINUSE);
	close(fd);
	for (i = 0; i < 10; i++) {
		fd = dial(&at);
		check(poll(pfd, 2, 5000) == 1);
		one = accept(pfd[pfd[0].revents ? 0 : 1].fd, NULL, NULL);
		check(one >= 0);
		close(one);
		close(fd);
	}
	close(listener[0]);
	for (i = 0; i < 3; i++) {
		fd = dial(&at);
		one = accept(listener[1], NULL, NULL);
		check(one >= 0);
		close(one);
		close(fd);
	}
	close(listener[1]);
}

#define DEFER_S 3 /* what comes before may take a busy machine more than one */

/* TCP_DEFER_ACCEPT: who has not said anything is not accepted, for a while. */
static void deferred(void)
{
	int listener = listener_on(&at, 10), fd, silent, one;
	char c;

	set_int(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, DEFER_S);
	fd = dial(&at);
	silent = dial(&at);
	check(wait_poll(listener, POLLIN, 200) == 0);
	write_all(fd, "x", 1);
	check(wait_poll(listener, POLLIN, 5000) == POLLIN);
	one = accept(listener, NULL, NULL);
	check(one >= 0 && recv(one, &c, 1, MSG_DONTWAIT) == 1 && c == 'x');
	close(one);
	close(fd);
	/* the end of its stream says something, too */
	fd = dial(&at);
	check(shutdown(fd, SHUT_WR) == 0);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	close(one);
	close(fd);
	/* one that goes by a reset was never here */
	fd = dial(&at);
	check(setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 },
			 sizeof(struct linger)) == 0);
	close(fd);
	/* the silent one is, in the end */
	check(wait_poll(listener, POLLIN, 20000) == POLLIN);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	write_all(silent, "y", 1);
	check(recv(one, &c, 1, MSG_WAITALL) == 1 && c == 'y');
	check(fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
	check(accept(listener, NULL, NULL) == -1 && errno == EAGAIN);
	close(one);
	close(silent);
	close(listener);
}

static void client(void)
{
	check(own_addr(&at, peer.v6));
	set_port(&at, OWN_PORT);
	names();
	own_names();
	flags();
	processes();
	backlog();
	inherit();
	keep();
	stamped();
	shared();
	deferred();
}
