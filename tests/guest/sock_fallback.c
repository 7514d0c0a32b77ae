// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * TCP where there is no offload: the port space is shared, a listener accepts
 * plain peers too, and a connection that falls back loses neither its waiters,
 * nor its options, nor its addresses. The reason is told.
 */
#include "sock_common.h"

#define PLAIN_PORT 7001 /* a plain TCP listener of this test's own */
#define CLOSED_PORT 7002

static void again(const struct addr *own, struct addr *at, bool unspec)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int fd, listener = vnet_socket(own->v6), one = 1;

	check(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0);
	check(bind(listener, sa(at), at->len) == 0);
	check(listen(listener, 5) == 0);
	check(unspec ? connect(listener, &none, sizeof(none)) == 0 :
		       shutdown(listener, SHUT_RD) == 0);
	fd = vnet_socket(own->v6);
	check(connect(fd, sa(at), at->len) == -1 && errno == ECONNREFUSED);
	close(fd);
	check(listen(listener, 5) == 0);
	fd = vnet_socket(own->v6);
	check(connect(fd, sa(at), at->len) == 0);
	check_offloaded(fd);
	close(fd);
	close(accept(listener, NULL, NULL));
	close(listener);
}

static void client(void)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLOUT };
	struct addr own, plain, closed;
	int fd, tcp, listener, ep, ret, one = 1, value;
	socklen_t len = sizeof(value);
	char buf[8];

	check(own_addr(&own, peer.v6));
	plain = closed = own;
	((struct sockaddr_in *)&plain.ss)->sin_port = htons(PLAIN_PORT);
	((struct sockaddr_in *)&closed.ss)->sin_port = htons(CLOSED_PORT);
	listener = listen_at(PLAIN_PORT, false);

	/* one port space */
	fd = vnet_socket(peer.v6);
	check(bind(fd, sa(&plain), plain.len) == -1 && errno == EADDRINUSE);
	close(fd);

	/* no offloading listener: TCP, waiter and option survive */
	fd = vnet_socket(peer.v6);
	check(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) == 0);
	check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	ep = epoll_create1(0);
	check(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
	ret = connect(fd, sa(&plain), plain.len);
	check(ret == 0 || errno == EINPROGRESS);
	do
		check(epoll_wait(ep, &ev, 1, 10000) == 1);
	while (ev.events & EPOLLHUP); /* not connected yet */
	check(ev.events == EPOLLOUT);
	expect_tcp(fd, VTOE_REASON_NO_LISTENER);
	check(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len) == 0 && value == 1);
	tcp = accept(listener, NULL, NULL);
	check(tcp >= 0);
	write_all(tcp, "hi", 2);
	do
		check(epoll_wait(ep, &ev, 1, 10000) == 1);
	while (!(ev.events & EPOLLIN));
	check(recv(fd, buf, sizeof(buf), 0) == 2);
	check(send(fd, "ho", 2, 0) == 2);
	check(read_full(tcp, buf, 2) == 2);
	close(tcp);
	do
		check(epoll_wait(ep, &ev, 1, 10000) == 1);
	while (!(ev.events & EPOLLIN));
	check(recv(fd, buf, sizeof(buf), 0) == 0);
	close(fd);

	/* blocking, too */
	fd = vnet_socket(peer.v6);
	check(connect(fd, sa(&plain), plain.len) == 0);
	expect_tcp(fd, VTOE_REASON_NO_LISTENER);
	close(fd);
	close(accept(listener, NULL, NULL));

	/* nobody listens at all: as TCP says it */
	fd = vnet_socket(peer.v6);
	check(connect(fd, sa(&closed), closed.len) == -1 && errno == ECONNREFUSED);
	close(fd);
	fd = vnet_socket(peer.v6);
	check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	ret = connect(fd, sa(&closed), closed.len);
	check(ret == -1 && (errno == EINPROGRESS || errno == ECONNREFUSED));
	if (errno == EINPROGRESS) {
		struct pollfd pfd = { .fd = fd, .events = POLLIN };

		do
			check(poll(&pfd, 1, 10000) == 1);
		while (!(pfd.revents & POLLERR));
		check(getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &len) == 0 &&
		      value == ECONNREFUSED);
		check(getsockopt(fd, SOL_SOCKET, SO_ERROR, &value, &len) == 0 && value == 0);
	}
	close(fd);

	/* the offload only: refused without TCP */
	fd = vnet_socket(peer.v6);
	value = VNET_MODE_VNET;
	check(setsockopt(fd, SOL_VNET, VNET_SO_MODE, &value, sizeof(value)) == 0);
	check(connect(fd, sa(&plain), plain.len) == -1);
	check(errno == ECONNREFUSED || errno == ENETUNREACH);
	/* such a socket takes no data, and may try again */
	check(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	check(connect(fd, sa(&plain), plain.len) == -1);
	check(connect(fd, sa(&peer), peer.len) == 0);
	check_offloaded(fd);
	buf[0] = ECHO;
	write_all(fd, buf, 1);
	write_all(fd, "again", 5);
	check(read_full(fd, buf, 5) == 5 && !memcmp(buf, "again", 5));
	close(fd);

	/* a listener shut down, or disconnected, may listen again over the offload */
	again(&own, &closed, false);
	again(&own, &closed, true);

	/* TCP only */
	fd = vnet_socket(peer.v6);
	value = VNET_MODE_TCP;
	check(setsockopt(fd, SOL_VNET, VNET_SO_MODE, &value, sizeof(value)) == 0);
	check(connect(fd, sa(&peer), peer.len) == 0);
	expect_tcp(fd, VTOE_REASON_POLICY);
	buf[0] = ECHO;
	write_all(fd, buf, 1);
	write_all(fd, "over", 4);
	check(read_full(fd, buf, 4) == 4 && !memcmp(buf, "over", 4));
	close(fd);

	/* loopback: nor does a listener there that does not offload */
	set_addr(&own, peer.v6 ? "::1" : "127.0.0.1", PLAIN_PORT);
	fd = vnet_socket(peer.v6);
	check(connect(fd, sa(&own), own.len) == 0);
	expect_tcp(fd, VTOE_REASON_NO_LISTENER);
	close(fd);

	/* a plain peer of an offloading listener */
	tcp = socket(peer.v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
	check(connect(tcp, sa(&peer), peer.len) == 0);
	buf[0] = ECHO;
	write_all(tcp, buf, 1);
	write_all(tcp, "plain", 5);
	check(read_full(tcp, buf, 5) == 5 && !memcmp(buf, "plain", 5));
	close(tcp);
	close(listener);
}
