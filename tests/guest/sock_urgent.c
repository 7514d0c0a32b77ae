// SPDX-License-Identifier: GPL-2.0-or-later
/* MSG_OOB, SO_OOBINLINE, SIOCATMARK, SIGURG, EPOLLPRI: urgent data as TCP has it. */
#include <linux/sockios.h>

#include "sock_common.h"

static volatile sig_atomic_t urgent;

static void on_urgent(int sig)
{
	(void)sig;
	urgent++;
}

static bool at_mark(int fd)
{
	int value = -1;

	check(ioctl(fd, SIOCATMARK, &value) == 0 && (value == 0 || value == 1));
	return value;
}

static int queued(int fd)
{
	int value = -1;

	check(ioctl(fd, FIONREAD, &value) == 0);
	return value;
}

/* Both ends of a connection with a listener of this guest. */
static void pair(int *fd, int *one)
{
	struct addr at;
	int listener;

	check(own_addr(&at, peer.v6));
	set_port(&at, 7003);
	listener = listener_on(&at, 5);
	*fd = dial(&at);
	*one = accept(listener, NULL, NULL);
	check(*one >= 0);
	check_offloaded(*fd);
	close(listener);
}

static void wait_urgent(int fd)
{
	check(wait_poll(fd, POLLPRI, 5000) == POLLPRI);
}

/* The byte is had by MSG_OOB; what is before and behind it is read as if it were not there. */
static void apart(int fd, int one)
{
	char buf[16];

	check(fcntl(one, F_SETOWN, getpid()) == 0);
	check(recv(one, buf, 1, MSG_OOB) == -1 && errno == EINVAL);
	write_all(fd, "abc", 3);
	check(send(fd, "de!", 3, MSG_OOB | MSG_NOSIGNAL) == 3);
	wait_urgent(one);
	write_all(fd, "fgh", 3);
	/* all of it is there, and told up to the mark */
	check(recv(one, buf, 5, MSG_PEEK | MSG_WAITALL) == 5);
	check(queued(one) == 5 && !at_mark(one));
	check(urgent == 1);
	check(recv(one, buf, 1, MSG_OOB | MSG_PEEK) == 1 && buf[0] == '!');
	check(recv(one, buf, 2, MSG_OOB) == 1 && buf[0] == '!');
	check(recv(one, buf, 1, MSG_OOB) == -1 && errno == EINVAL);
	check(wait_poll(one, POLLPRI, 0) == 0);
	/* a reader stops in front of it, and goes on behind it */
	check(recv(one, buf, sizeof(buf), 0) == 5 && !memcmp(buf, "abcde", 5));
	check(at_mark(one));
	check(recv(one, buf, 3, MSG_WAITALL) == 3 && !memcmp(buf, "fgh", 3));
	check(!at_mark(one) && queued(one) == 0);
	check(recv(one, buf, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
}

/* Nobody takes the byte: it is gone. A second one takes the first one's place, which is an ordinary byte then. */
static void passed(int fd, int one)
{
	char buf[16];

	check(send(fd, "x", 1, MSG_OOB | MSG_NOSIGNAL) == 1);
	wait_urgent(one);
	check(wait_poll(one, POLLIN, 0) == 0 && at_mark(one));
	write_all(fd, "y", 1);
	check(wait_poll(one, POLLIN, 5000) & POLLIN);
	check(recv(one, buf, sizeof(buf), 0) == 1 && buf[0] == 'y');
	check(recv(one, buf, 1, MSG_OOB) == -1 && errno == EINVAL);

	write_all(fd, "1", 1);
	check(send(fd, "2", 1, MSG_OOB | MSG_NOSIGNAL) == 1);
	check(send(fd, "3", 1, MSG_OOB | MSG_NOSIGNAL) == 1);
	write_all(fd, "4", 1);
	while (queued(one) < 2 || recv(one, buf, 1, MSG_OOB | MSG_PEEK) != 1 || buf[0] != '3')
		;
	check(recv(one, buf, 2, MSG_WAITALL) == 2 && !memcmp(buf, "12", 2));
	check(recv(one, buf, 1, MSG_WAITALL) == 1 && buf[0] == '4');
}

/* In line it is a byte like any other, but for the mark. */
static void in_line(int fd, int one)
{
	char buf[16];

	set_int(one, SOL_SOCKET, SO_OOBINLINE, 1);
	write_all(fd, "ab", 2);
	check(send(fd, "!", 1, MSG_OOB | MSG_NOSIGNAL) == 1);
	wait_urgent(one);
	write_all(fd, "c", 1);
	while (queued(one) < 4)
		;
	check(recv(one, buf, 1, MSG_OOB) == -1 && errno == EINVAL);
	check(recv(one, buf, sizeof(buf), 0) == 2 && !memcmp(buf, "ab", 2) && at_mark(one));
	check(recv(one, buf, sizeof(buf), 0) == 2 && !memcmp(buf, "!c", 2) && !at_mark(one));
	set_int(one, SOL_SOCKET, SO_OOBINLINE, 0);
}

/* A long one, in pieces: the last byte of all is urgent. */
static void long_one(int fd, int one)
{
	static uint8_t out[150000], in[150000];
	size_t done = 0;
	ssize_t n;

	fill(out, sizeof(out), 9, 0);
	check(send(fd, out, sizeof(out), MSG_OOB | MSG_NOSIGNAL) == (ssize_t)sizeof(out));
	while (done < sizeof(out) - 1) {
		n = recv(one, in + done, sizeof(in) - done, 0);
		check(n > 0);
		done += (size_t)n;
	}
	check(done == sizeof(out) - 1 && !memcmp(in, out, done) && at_mark(one));
	check(recv(one, in, 1, MSG_OOB) == 1 && in[0] == out[done]);
}

static void client(void)
{
	struct sigaction sa_urgent = { .sa_handler = on_urgent, .sa_flags = SA_RESTART };
	char buf[4];
	int fd, one;

	check(sigaction(SIGURG, &sa_urgent, NULL) == 0);
	pair(&fd, &one);
	apart(fd, one);
	passed(fd, one);
	in_line(fd, one);
	long_one(fd, one);
	close(fd);
	check(recv(one, buf, 1, 0) == 0);
	close(one);
	/* between two machines: the echo is of one that has no ear for it */
	fd = call(ECHO);
	check(send(fd, "ab!", 3, MSG_OOB | MSG_NOSIGNAL) == 3);
	write_all(fd, "c", 1);
	check(recv(fd, buf, 3, MSG_WAITALL) == 3 && !memcmp(buf, "abc", 3));
	close(fd);
}
