// SPDX-License-Identifier: GPL-2.0-or-later
/* shutdown() of each half and of both, while connecting too; connect(AF_UNSPEC); what poll() says after each. */
#include "sock_common.h"

static struct addr nobody; /* an address of the subnet that nobody has */

static void read_half(void)
{
	int fd = call(ECHO);
	char buf[16];

	/* what is here can still be read, then it is the end */
	write_all(fd, "before", 6);
	check(wait_poll(fd, POLLIN, 5000) == POLLIN);
	check(shutdown(fd, SHUT_RD) == 0);
	check(wait_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 0) == (POLLIN | POLLOUT | POLLRDHUP));
	check(read_full(fd, buf, 6) == 6 && !memcmp(buf, "before", 6));
	check(recv(fd, buf, 1, 0) == 0 && recv(fd, buf, 1, MSG_DONTWAIT) == 0);
	/* the other half is as it was */
	write_all(fd, "after", 5);
	check(shutdown(fd, SHUT_WR) == 0);
	close(fd);

	/* a reader that waits is told */
	fd = call(ECHO);
	pid_t pid = fork();

	if (!pid) {
		usleep(100000);
		shutdown(fd, SHUT_RD);
		_exit(0);
	}
	check(recv(fd, buf, 1, 0) == 0);
	check(waitpid(pid, NULL, 0) == pid);
	close(fd);
}

static void both_halves(void)
{
	int fd = call(ECHO);
	char buf[16];

	check(shutdown(fd, 3) == -1 && errno == EINVAL);
	check(shutdown(fd, SHUT_RDWR) == 0);
	check(wait_poll(fd, POLLIN | POLLOUT | POLLRDHUP, 5000) ==
	      (POLLIN | POLLOUT | POLLRDHUP | POLLHUP));
	check(recv(fd, buf, 1, 0) == 0);
	check(send(fd, buf, 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	close(fd);

	/* the peer sees our end of file, and we its answer's */
	fd = call(SUM);
	write_all(fd, "abc", 3);
	check(shutdown(fd, SHUT_WR) == 0);
	check(wait_poll(fd, POLLRDHUP, 5000) == POLLRDHUP + POLLHUP);
	check(read_full(fd, buf, 8) == 8 && recv(fd, buf, 1, 0) == 0);
	/* both are done */
	check(shutdown(fd, SHUT_RDWR) == -1 && errno == ENOTCONN);
	close(fd);

	fd = vnet_socket(peer.v6);
	check(shutdown(fd, SHUT_WR) == -1 && errno == ENOTCONN);
	close(fd);
}

static int start_connecting(void)
{
	int fd = vnet_socket(nobody.v6);

	check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	check(connect(fd, sa(&nobody), nobody.len) == -1 && errno == EINPROGRESS);
	check(connect(fd, sa(&nobody), nobody.len) == -1 && errno == EALREADY);
	check(wait_poll(fd, POLLIN | POLLOUT, 0) == 0);
	return fd;
}

/* One that waits in connect(). */
static void waiter(bool unspec, int want)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int fd = vnet_socket(nobody.v6), status;
	pid_t pid = fork();

	if (!pid) {
		int ret = connect(fd, sa(&nobody), nobody.len);

		_exit(ret == -1 ? errno : 0);
	}
	while (wait_poll(fd, POLLOUT, 0)) /* HUP: not yet connecting */
		usleep(1000);
	if (unspec)
		check(connect(fd, &none, sizeof(none)) == 0);
	else
		check(shutdown(fd, SHUT_RDWR) == 0);
	check(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	if (WEXITSTATUS(status) != want)
		printf("connect: %s\n", strerror(WEXITSTATUS(status)));
	check(WEXITSTATUS(status) == want);
	close(fd);
}

static void connecting(void)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int fd = start_connecting();
	char c;

	check(shutdown(fd, SHUT_WR) == 0);
	check(wait_poll(fd, POLLOUT, 5000) & POLLHUP);
	check(get_int(fd, SOL_SOCKET, SO_ERROR) == ECONNRESET);
	check(get_int(fd, SOL_SOCKET, SO_ERROR) == 0);
	/* and it can be used again */
	check(fcntl(fd, F_SETFL, 0) == 0);
	check(connect(fd, sa(&peer), peer.len) == 0);
	c = ECHO;
	write_all(fd, &c, 1);
	write_all(fd, "x", 1);
	check(recv(fd, &c, 1, 0) == 1 && c == 'x');
	close(fd);

	fd = start_connecting();
	check(connect(fd, &none, sizeof(none)) == 0);
	check(get_int(fd, SOL_SOCKET, SO_ERROR) == ECONNRESET);
	check(fcntl(fd, F_SETFL, 0) == 0);
	check(connect(fd, sa(&peer), peer.len) == 0);
	close(fd);

	waiter(false, ECONNRESET);
	waiter(true, EPIPE);
}

/* One that waits for data when its connection is dropped. */
static void reader(void)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int fd = call(ECHO), status;
	pid_t pid = fork();
	char c;

	if (!pid)
		_exit(recv(fd, &c, 1, 0) == -1 ? errno : 0);
	usleep(200000);
	check(connect(fd, &none, sizeof(none)) == 0);
	check(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
	if (WEXITSTATUS(status) != EPIPE)
		printf("recv: %s\n", strerror(WEXITSTATUS(status)));
	check(WEXITSTATUS(status) == EPIPE);
	close(fd);
}

/* A connection is dropped, with what is unread, and its socket connects anew. */
static void disconnect(void)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	struct sockaddr_storage ss;
	socklen_t len = sizeof(ss);
	int fd = call(ECHO), i;
	char buf[8];

	for (i = 0; i < 3; i++) {
		write_all(fd, "unread", 6);
		check(wait_poll(fd, POLLIN, 5000) == POLLIN);
		check(connect(fd, &none, sizeof(none)) == 0);
		check(wait_poll(fd, POLLIN, 0) & POLLHUP);
		check(get_int(fd, SOL_SOCKET, SO_ERROR) == ECONNRESET);
		check(recv(fd, buf, 1, 0) == -1 && errno == ENOTCONN);
		check(send(fd, buf, 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
		check(getpeername(fd, (struct sockaddr *)&ss, &len) == -1 && errno == ENOTCONN);
		check(ioctl(fd, FIONREAD, &len) == 0 && len == 0);
		check(connect(fd, sa(&peer), peer.len) == 0);
		check_offloaded(fd);
		buf[0] = ECHO;
		write_all(fd, buf, 1);
	}
	write_all(fd, "again", 5);
	check(read_full(fd, buf, 5) == 5 && !memcmp(buf, "again", 5));
	close(fd);
}

/* What accept() gave does, too. */
static void child(void)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	int listener, fd, one;
	struct addr at;
	char c = ECHO;

	check(own_addr(&at, peer.v6));
	set_port(&at, 7003);
	listener = listener_on(&at, 5);
	fd = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	close(listener);
	check(connect(one, &none, sizeof(none)) == 0);
	check(recv(fd, &c, 1, 0) == -1 && errno == ECONNRESET);
	close(fd);
	check(connect(one, sa(&peer), peer.len) == 0);
	if (way == OFFLOAD)
		check_offloaded(one);
	c = ECHO;
	write_all(one, &c, 1);
	write_all(one, "y", 1);
	check(recv(one, &c, 1, 0) == 1 && c == 'y');
	close(one);
}

/*
 * Both have shut down and everything is read: whatever one does then, the other is not reset. How long it took since the
 * data was read, in ms: an acknowledgement that waited would have come after 40.
 */
static int over(void)
{
	struct sockaddr none = { .sa_family = AF_UNSPEC };
	struct addr at;
	int listener, fd, one, i, took;
	int64_t start;
	char buf[4];

	check(own_addr(&at, peer.v6));
	set_port(&at, 7003);
	listener = listener_on(&at, 5);
	fd = dial(&at);
	write_all(fd, "all", 3);
	one = accept(listener, NULL, NULL);
	start = now_ms();
	check(one >= 0 && read_full(one, buf, 3) == 3);
	check(shutdown(one, SHUT_RDWR) == 0);
	check(wait_poll(fd, POLLRDHUP, 5000) & POLLRDHUP);
	check(shutdown(fd, SHUT_RDWR) == 0);
	for (i = 0; i < 5000; i++) {
		struct tcp_info info;
		socklen_t len = sizeof(info);

		check(getsockopt(one, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
		if (info.tcpi_state == TCP_CLOSE)
			break;
		usleep(1000);
	}
	check(i < 5000);
	check(connect(one, &none, sizeof(none)) == 0);
	took = (int)(now_ms() - start);
	usleep(100000);
	check(get_int(fd, SOL_SOCKET, SO_ERROR) == 0);
	close(one);
	close(fd);
	close(listener);
	return took;
}

static void client(void)
{
	check(own_addr(&nobody, peer.v6));
	if (peer.v6)
		((struct sockaddr_in6 *)&nobody.ss)->sin6_addr.s6_addr[15] = 99;
	else
		((uint8_t *)&((struct sockaddr_in *)&nobody.ss)->sin_addr)[3] = 99;
	read_half();
	both_halves();
	connecting();
	reader();
	disconnect();
	child();
	for (int tries = 0; over() > 30 && tries < 20; tries++)
		; /* on a busy machine */
}
