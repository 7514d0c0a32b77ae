// SPDX-License-Identifier: GPL-2.0-or-later
/* MSG_PEEK, WAITALL, TRUNC, DONTWAIT, MORE, TCP_CORK, SO_RCVLOWAT, SO_RCVTIMEO, FIONREAD, iovecs. */
#include <sys/uio.h>

#include "sock_common.h"

/* A counter of this guest. */
static long stat_of(const char *name)
{
	char line[64], found[32];
	long value = -1;
	FILE *f = fopen("/proc/net/vnet_stat", "r");

	check(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%31s %ld", found, &value) == 2 && !strcmp(found, name))
			break;
	fclose(f);
	return value;
}

/*
 * Small writes use up the receiver's buffers, long before the low-water mark:
 * poll() and MSG_PEEK say what there is, or nobody would ever go on. The
 * receiver is of this guest, as is the sender then: its counter tells that it
 * is out of credit, and not slow.
 */
static void starved(void)
{
	static char buf[5000];
	int listener, fd, from, value, sent;
	struct addr at;
	int64_t start;
	long blocked = 0;

	check(own_addr(&at, peer.v6));
	set_port(&at, 7003);
	listener = listener_on(&at, 5);
	from = dial(&at);
	fd = accept(listener, NULL, NULL);
	check(fd >= 0);
	set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1 << 20);
	for (sent = 1; sent < (int)sizeof(buf); sent++) {
		blocked = stat_of("tx_no_credit");
		write_all(from, "x", 1);
		start = now_ms();
		do
			check(ioctl(fd, FIONREAD, &value) == 0);
		while (value < sent &&
		       now_ms() - start < (stat_of("tx_no_credit") == blocked ? 30000 : 1000));
		/* blocked for good: credit that only takes its time would have come */
		if (value < sent)
			break;
	}
	check(sent < (int)sizeof(buf) && stat_of("tx_no_credit") > blocked);
	check(wait_poll(fd, POLLIN, 10000) == POLLIN);
	check(recv(fd, buf, (size_t)sent, MSG_PEEK | MSG_WAITALL) >= value);
	set_int(fd, SOL_SOCKET, SO_RCVLOWAT, 1);
	check(read_full(fd, buf, (size_t)sent) == (size_t)sent);
	close(from);
	close(fd);
	close(listener);
}

/*
 * Held back until the rest comes, or until 200 ms have gone: those that were
 * slow to look cannot tell, and try again.
 */
static void held(int fd, bool cork)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	int64_t start;
	bool early;
	char buf[2];
	int i;

	for (i = 0; i < 20; i++) {
		if (cork)
			set_int(fd, IPPROTO_TCP, TCP_CORK, 1);
		start = now_ms();
		check(send(fd, "a", 1, cork ? 0 : MSG_MORE) == 1);
		early = poll(&pfd, 1, 50) == 1;
		if (now_ms() - start < 190)
			check(!early);
		if (!early)
			break;
		check(recv(fd, buf, 1, 0) == 1);
	}
	check(i < 20);
	if (cork)
		set_int(fd, IPPROTO_TCP, TCP_CORK, 0);
	else
		check(send(fd, "b", 1, 0) == 1);
	check(recv(fd, buf, cork ? 1 : 2, MSG_WAITALL) == (cork ? 1 : 2));
	check(buf[0] == 'a' && (cork || buf[1] == 'b'));
}

/* SO_PEEK_OFF: each look begins where the last ended, and reading takes it along. */
static void peek_offset(int fd)
{
	char buf[16];
	int value = 0;

	if (setsockopt(fd, SOL_SOCKET, SO_PEEK_OFF, &value, sizeof(value))) {
		check(errno == EOPNOTSUPP); /* TCP has it since 6.10 */
		return;
	}
	write_all(fd, "123456", 6);
	check(recv(fd, buf, 2, MSG_PEEK | MSG_WAITALL) == 2 && !memcmp(buf, "12", 2));
	check(recv(fd, buf, 2, MSG_PEEK | MSG_WAITALL) == 2 && !memcmp(buf, "34", 2));
	check(get_int(fd, SOL_SOCKET, SO_PEEK_OFF) == 4);
	check(recv(fd, buf, 1, 0) == 1 && buf[0] == '1');
	check(get_int(fd, SOL_SOCKET, SO_PEEK_OFF) == 3);
	check(recv(fd, buf, 2, MSG_PEEK | MSG_WAITALL) == 2 && !memcmp(buf, "56", 2));
	check(recv(fd, buf, 1, MSG_PEEK | MSG_DONTWAIT) == -1 && errno == EAGAIN);
	check(recv(fd, buf, 5, MSG_WAITALL) == 5 && !memcmp(buf, "23456", 5));
	check(get_int(fd, SOL_SOCKET, SO_PEEK_OFF) == 0);
	set_int(fd, SOL_SOCKET, SO_PEEK_OFF, -1);
}

static void client(void)
{
	struct timeval tv = { .tv_usec = 100000 };
	struct pollfd pfd = { .events = POLLIN };
	char buf[64] = "", a[3], b[4];
	struct iovec out[3] = { { "ab", 2 }, { "", 0 }, { "cdefg", 5 } };
	struct iovec in[2] = { { a, 3 }, { b, 4 } };
	int fd = call(ECHO), value, i;

	/* nothing there */
	check(recv(fd, buf, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	check(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	check(recv(fd, buf, 1, 0) == -1 && errno == EAGAIN);
	tv.tv_usec = 0;
	check(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	check(recv(fd, buf, 1, MSG_OOB) == -1 && errno == EINVAL);

	/* peek sees it twice, FIONREAD counts it */
	write_all(fd, "12345678", 8);
	pfd.fd = fd;
	check(poll(&pfd, 1, 10000) == 1);
	check(recv(fd, buf, 8, MSG_PEEK | MSG_WAITALL) == 8 && !memcmp(buf, "12345678", 8));
	check(ioctl(fd, FIONREAD, &value) == 0 && value == 8);
	check(recv(fd, buf, 4, 0) == 4 && !memcmp(buf, "1234", 4));
	check(recv(fd, buf, 64, MSG_PEEK) == 4 && !memcmp(buf, "5678", 4));
	/* truncation throws bytes of a stream away */
	memset(buf, 'z', 4);
	check(recv(fd, buf, 2, MSG_TRUNC) == 2 && buf[0] == 'z');
	check(recv(fd, buf, 64, 0) == 2 && !memcmp(buf, "78", 2));

	/* wait for all: in pieces over there */
	for (i = 0; i < 10; i++)
		write_all(fd, "x", 1);
	check(recv(fd, buf, 10, MSG_WAITALL) == 10);

	/* low-water mark: poll says nothing before */
	value = 5;
	check(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value)) == 0);
	write_all(fd, "1234", 4);
	check(poll(&pfd, 1, 200) == 0);
	write_all(fd, "5", 1);
	check(poll(&pfd, 1, 10000) == 1);
	check(recv(fd, buf, 64, 0) == 5);
	value = 1;
	check(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value)) == 0);

	peek_offset(fd);
	held(fd, false);
	held(fd, true);
	check(send(fd, "d", 1, MSG_MORE) == 1);
	check(poll(&pfd, 1, 5000) == 1 && recv(fd, buf, 1, 0) == 1 && buf[0] == 'd');

	/* scatter and gather */
	check(writev(fd, out, 3) == 7);
	check(recv(fd, buf, 7, MSG_PEEK | MSG_WAITALL) == 7);
	check(readv(fd, in, 2) == 7 && !memcmp(a, "abc", 3) && !memcmp(b, "defg", 4));

	/* a bad address */
	check(send(fd, (void *)8, 10, MSG_NOSIGNAL) == -1 && errno == EFAULT);
	write_all(fd, "e", 1);
	check(poll(&pfd, 1, 10000) == 1);
	check(recv(fd, (void *)8, 1, 0) == -1 && errno == EFAULT);
	check(recv(fd, buf, 1, 0) == 1 && buf[0] == 'e');
	close(fd);

	if (way == OFFLOAD)
		starved();
}
