// SPDX-License-Identifier: GPL-2.0-or-later
/* Half close in both directions, resets, EPIPE and SIGPIPE, SO_LINGER, SIOCOUTQ. */
#include <linux/sockios.h>

#include "sock_common.h"

static volatile sig_atomic_t pipes;

static void on_pipe(int sig)
{
	(void)sig;
	pipes++;
}

static void client(void)
{
	struct linger soft = { .l_onoff = 1, .l_linger = 10 }, hard = { .l_onoff = 1 };
	struct pollfd pfd = { .events = POLLIN };
	static char buf[300000];
	uint64_t sum;
	time_t start;
	int fd, value, i;

	signal(SIGPIPE, on_pipe);

	/* ours first: the answer still comes */
	fd = call(SUM);
	write_all(fd, buf, sizeof(buf));
	check(shutdown(fd, SHUT_WR) == 0);
	check(send(fd, buf, 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	check(!pipes);
	check(send(fd, buf, 1, 0) == -1 && errno == EPIPE && pipes == 1);
	check(read_full(fd, &sum, sizeof(sum)) == sizeof(sum));
	check(recv(fd, buf, 1, 0) == 0);
	/* everything was read over there: nothing is left to acknowledge */
	check(ioctl(fd, SIOCOUTQ, &value) == 0 && value == 0);
	close(fd);

	/* theirs first: we may still send */
	fd = call(SHUT);
	check(recv(fd, buf, 1, 0) == 0);
	write_all(fd, buf, sizeof(buf));
	close(fd);

	/* linger: close() waits until it is read */
	fd = call(SUM);
	check(setsockopt(fd, SOL_SOCKET, SO_LINGER, &soft, sizeof(soft)) == 0);
	write_all(fd, buf, sizeof(buf));
	start = time(NULL);
	check(close(fd) == 0);
	check(time(NULL) - start < 5); /* and no longer */

	/* reset by the peer: an error once, then end of file; EPIPE */
	fd = call(RESET);
	pfd.fd = fd;
	check(poll(&pfd, 1, 10000) == 1);
	check(recv(fd, buf, 1, 0) == -1 && errno == ECONNRESET);
	check(recv(fd, buf, 1, 0) == 0);
	check(send(fd, buf, 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	close(fd);

	/* closed with our data unread: reset */
	fd = call(UNREAD);
	write_all(fd, "x", 1);
	pfd.fd = fd;
	check(poll(&pfd, 1, 10000) == 1);
	check(recv(fd, buf, 1, 0) == -1 && errno == ECONNRESET);
	close(fd);

	/* our own hard close, many times: nothing stays behind */
	for (i = 0; i < 50; i++) {
		fd = call(ECHO);
		write_all(fd, buf, 1000);
		check(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)) == 0);
		check(close(fd) == 0);
	}

	/* a full send buffer: would block, and SO_SNDTIMEO */
	fd = call(MUTE);
	choke(fd);
	struct timeval tv = { .tv_usec = 200000 };
	check(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) == 0);
	check(send(fd, buf, sizeof(buf), 0) == -1 && errno == EAGAIN);
	check(ioctl(fd, SIOCOUTQ, &value) == 0 && value > 0);
	check(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)) == 0);
	close(fd);
}
