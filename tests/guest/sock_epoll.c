// SPDX-License-Identifier: GPL-2.0-or-later
/* epoll, level and edge: readable, writable after EAGAIN, RDHUP, HUP, a listener. */
#include "sock_common.h"

static int ep;

static uint32_t wait_for(int timeout)
{
	struct epoll_event ev = {};

	return epoll_wait(ep, &ev, 1, timeout) == 1 ? ev.events : 0;
}

static void add(int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events };

	check(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
}

static void client(void)
{
	static char big[1 << 20];
	char buf[65536];
	size_t sent = 0, got = 0;
	ssize_t n;
	int fd;

	ep = epoll_create1(0);

	/* level: readable as long as there is something */
	fd = call(ECHO);
	add(fd, EPOLLIN);
	check(wait_for(0) == 0);
	write_all(fd, "ab", 2);
	check(wait_for(5000) == EPOLLIN);
	check(recv(fd, buf, 1, 0) == 1);
	check(wait_for(0) == EPOLLIN);
	while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	/* the second byte may have come on its own; it is read by now or comes */
	check(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL) == 0);
	close(fd);

	/* edge: once per arrival */
	fd = call(ECHO);
	add(fd, EPOLLIN | EPOLLET);
	write_all(fd, "a", 1);
	check(wait_for(5000) == EPOLLIN);
	check(wait_for(100) == 0);
	write_all(fd, "b", 1);
	check(wait_for(5000) == EPOLLIN);
	check(read_full(fd, buf, 2) == 2);
	close(fd);

	/* edge: writable again after EAGAIN, with a peer that echoes */
	fd = call(ECHO);
	check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	add(fd, EPOLLIN | EPOLLOUT | EPOLLET);
	for (;;) {
		uint32_t ev;

		while (sent < 20u << 20 && (n = send(fd, big, sizeof(big), 0)) > 0)
			sent += (size_t)n;
		check(sent >= 20u << 20 || errno == EAGAIN);
		while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
			got += (size_t)n;
		check(n == -1 && errno == EAGAIN);
		if (got >= sent && sent >= 20u << 20)
			break;
		ev = wait_for(20000);
		check(ev & (EPOLLIN | EPOLLOUT));
	}
	check(got == sent);
	close(fd);

	/* the peer's half closes: RDHUP and IN, not HUP; both halves: HUP */
	fd = call(SHUT);
	add(fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
	check(wait_for(5000) == (EPOLLIN | EPOLLRDHUP));
	check(recv(fd, buf, 1, 0) == 0);
	check(shutdown(fd, SHUT_WR) == 0);
	check(wait_for(5000) & EPOLLHUP);
	close(fd);

	/* reset: ERR */
	fd = call(RESET);
	add(fd, EPOLLIN);
	check((wait_for(5000) & (EPOLLERR | EPOLLHUP)) == (EPOLLERR | EPOLLHUP));
	check(recv(fd, buf, 1, 0) == -1 && errno == ECONNRESET);
	check(recv(fd, buf, 1, 0) == 0);
	close(fd);
}
