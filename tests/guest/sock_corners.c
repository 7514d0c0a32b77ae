// SPDX-License-Identifier: GPL-2.0-or-later
/* What few programs do, and TCP has an answer to: an option that comes late, names taken twice, odd limits. */
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/utsname.h>

#include "sock_common.h"

#ifndef TCP_INQ
#define TCP_INQ 36
#endif
#ifndef TCP_CM_INQ
#define TCP_CM_INQ TCP_INQ
#endif

static struct addr own_at(int port)
{
	struct addr at;

	check(own_addr(&at, peer.v6));
	set_port(&at, port);
	return at;
}

/* Nobody who comes now may be offloaded past what the listener demands. */
static void pinned_listener(void)
{
	struct addr at = own_at(7025);
	int listener = listener_on(&at, 5), fd, one;

	if (peer.v6)
		set_int(listener, IPPROTO_IPV6, IPV6_MINHOPCOUNT, 1);
	else
		set_int(listener, IPPROTO_IP, IP_MINTTL, 1);
	fd = vnet_socket(peer.v6);
	check(connect(fd, sa(&at), at.len) == 0);
	if (way == OFFLOAD)
		expect_tcp(fd, VTOE_REASON_OPTION);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	close(one);
	close(fd);
	close(listener);
}

static int bound(struct addr *at)
{
	int fd = vnet_socket(peer.v6);

	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	check(bind(fd, sa(at), at->len) == 0);
	return fd;
}

static void same_names(void)
{
	struct addr at = own_at(7026);
	int first = bound(&at), second = bound(&at);
	struct linger none = { .l_onoff = 1 };

	check(connect(first, sa(&peer), peer.len) == 0);
	check_offloaded(first);
	check(connect(second, sa(&peer), peer.len) == -1 && errno == EADDRNOTAVAIL);
	close(second);
	check(setsockopt(first, SOL_SOCKET, SO_LINGER, &none, sizeof(none)) == 0); /* no TIME_WAIT for who comes next */
	close(first);
}

static void *polls(void *arg)
{
	return (void *)(intptr_t)wait_poll(*(int *)arg, POLLIN, 20000);
}

/* It is never more than the buffer may come to hold, and counts at once. */
static void low_water(void)
{
	struct addr at = own_at(7027);
	int listener = listener_on(&at, 5), fd, one;
	static char data[65536];
	pthread_t thread;
	void *ready;

	set_int(listener, SOL_SOCKET, SO_RCVBUF, 65536);
	fd = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	set_int(one, SOL_SOCKET, SO_RCVLOWAT, 262144);
	check(get_int(one, SOL_SOCKET, SO_RCVLOWAT) == 65536);
	for (int i = 0; i < 16; i++)
		if (send(fd, data, sizeof(data), MSG_DONTWAIT) < 0)
			break;
	check(wait_poll(one, POLLIN, 20000) == POLLIN);
	close(one);
	close(fd);

	fd = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	set_int(one, SOL_SOCKET, SO_RCVLOWAT, 100);
	write_all(fd, data, 50);
	check(pthread_create(&thread, NULL, polls, &one) == 0);
	check(wait_poll(one, POLLIN, 300) == 0);
	set_int(one, SOL_SOCKET, SO_RCVLOWAT, 10);
	check(pthread_join(thread, &ready) == 0);
	check((intptr_t)ready == POLLIN);
	close(one);
	close(fd);
	close(listener);
}

/* TCP_NOTSENT_LOWAT: what has not been sent does not pile up. */
static void unsent(void)
{
	int fd = call(MUTE), value;

	set_int(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 16384);
	choke(fd);
	check(ioctl(fd, 0x894B /* SIOCOUTQNSD */, &value) == 0 && value > 0 && value < 200000);
	close(fd);
}

/* As long as nobody reads at the other end. */
static void gives_up(int fd)
{
	char c;

	check(wait_poll(fd, POLLIN, 30000) & POLLERR);
	check(get_int(fd, SOL_SOCKET, SO_ERROR) == ETIMEDOUT);
	check(send(fd, "", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	check(recv(fd, &c, 1, 0) == 0);
	close(fd);
}

/* All that has been sent; `to` is the other end. */
static void drain(int fd, int to)
{
	static char buf[1 << 20];
	int unread;
	ssize_t n;

	do {
		wait_poll(to, POLLIN, 300);
		while ((n = recv(to, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
			;
		check(n == -1 && errno == EAGAIN);
		check(ioctl(fd, SIOCOUTQ, &unread) == 0);
	} while (unread);
}

/* TCP_USER_TIMEOUT: what the peer has no room for waits no longer. */
static void user_timeout(void)
{
	struct addr at = own_at(7031);
	int listener = listener_on(&at, 5), fd, one;
	static char buf[20000];

	/* Set when it waits already; and before, with a send buffer that is full first. */
	fd = call(MUTE);
	choke(fd);
	set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 300);
	gives_up(fd);
	fd = call(MUTE);
	set_int(fd, SOL_SOCKET, SO_SNDBUF, 65536);
	set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 4000);
	choke(fd);
	gives_up(fd);

	/* A listener's is its children's; the peer reads for a while, and then a little more. */
	set_int(listener, IPPROTO_TCP, TCP_USER_TIMEOUT, 60000);
	fd = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	check(get_int(one, IPPROTO_TCP, TCP_USER_TIMEOUT) == 60000);
	for (int i = 0; i < 4; i++) {
		choke(one);
		drain(one, fd);
	}
	choke(one);
	check(recv(fd, buf, sizeof(buf), MSG_WAITALL) == sizeof(buf));
	set_int(one, IPPROTO_TCP, TCP_USER_TIMEOUT, 500);
	gives_up(one);
	close(fd);

	/* It does not wait any more. */
	fd = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	choke(fd);
	drain(fd, one);
	set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 300);
	check(wait_poll(fd, POLLIN, 1000) == 0);
	write_all(fd, "", 1);
	check(wait_poll(one, POLLIN, 30000) & POLLIN);
	close(one);
	close(fd);
	close(listener);
}

/* sendfile() to the end of the file and beyond: nothing waits for more. */
static void end_of_file(void)
{
	int fd = call(MUTE), file = memfd_create("file", 0), value;
	struct utsname name;
	static char data[10000];

	check(file >= 0 && write(file, data, sizeof(data)) == sizeof(data) && lseek(file, 0, SEEK_SET) == 0);
	check(sendfile(fd, file, NULL, 1 << 30) == sizeof(data));
	check(uname(&name) == 0);
	if (strverscmp(name.release, "6.5") >= 0)
		check(ioctl(fd, 0x894B /* SIOCOUTQNSD */, &value) == 0 && value == 0);
	close(file);
	close(fd);
}

static void numbers(void)
{
	struct addr at = own_at(7028);
	int listener = listener_on(&at, 5), fd = dial(&at), one = accept(listener, NULL, NULL);
	int value = 200;

	check(one >= 0);
	check(setsockopt(one, IPPROTO_TCP, TCP_KEEPCNT, &value, sizeof(value)) == -1 && errno == EINVAL);
	check(get_int(one, IPPROTO_TCP, TCP_KEEPIDLE) == 7200);
	check(peer.v6 ? get_int(one, IPPROTO_IPV6, IPV6_MTU) >= 1280 : get_int(one, IPPROTO_IP, IP_MTU) >= 68);
	check(peer.v6 ? get_int(fd, IPPROTO_IPV6, IPV6_MTU) >= 1280 : get_int(fd, IPPROTO_IP, IP_MTU) >= 68);
	close(one);
	close(fd);
	close(listener);
}

static void control(void)
{
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u = {};
	char data[10] = "0123456789";
	struct iovec iov = { data, 10 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof(u.buf) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int fd = call(ECHO), value;

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = 9999;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	check(sendmsg(fd, &msg, 0) == -1 && errno == EINVAL);

	set_int(fd, IPPROTO_TCP, TCP_INQ, 1);
	write_all(fd, data, 10);
	do
		check(ioctl(fd, FIONREAD, &value) == 0);
	while (value < 10 && wait_poll(fd, POLLIN, 5000) == POLLIN);
	iov.iov_len = 4;
	msg.msg_controllen = sizeof(u.buf);
	check(recvmsg(fd, &msg, 0) == 4);
	c = CMSG_FIRSTHDR(&msg);
	check(c && c->cmsg_level == IPPROTO_TCP && c->cmsg_type == TCP_CM_INQ);
	memcpy(&value, CMSG_DATA(c), sizeof(value));
	check(value == 6);
	close(fd);
}

/* A link-local address says nothing without a link. */
static void no_link(void)
{
	struct addr at;
	int fd = vnet_socket(true);

	set_addr(&at, "fe80::1", 7000);
	check(connect(fd, sa(&at), at.len) == -1 && errno == EINVAL);
	close(fd);
}

/* A listener on an interface is not for who comes over lo. */
static void other_interface(void)
{
	struct addr any, lo;
	int listener, fd;

	set_addr(&any, peer.v6 ? "::" : "0.0.0.0", 7030);
	set_addr(&lo, peer.v6 ? "::1" : "127.0.0.1", 7030);
	listener = vnet_socket(peer.v6);
	check(setsockopt(listener, SOL_SOCKET, SO_BINDTODEVICE, "vnet0", 6) == 0);
	check(bind(listener, sa(&any), any.len) == 0 && listen(listener, 5) == 0);
	fd = vnet_socket(peer.v6);
	check(connect(fd, sa(&lo), lo.len) == -1 && errno == ECONNREFUSED);
	close(fd);
	close(listener);
}

static void client(void)
{
	pinned_listener();
	same_names();
	low_water();
	unsent();
	user_timeout();
	end_of_file();
	numbers();
	control();
	if (peer.v6)
		no_link();
	other_interface();
}
