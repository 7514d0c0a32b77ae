// SPDX-License-Identifier: GPL-2.0-or-later
/* MSG_PEEK, WAITALL, TRUNC, DONTWAIT, MORE, TCP_CORK, SO_RCVLOWAT, SO_RCVTIMEO, FIONREAD, iovecs. */
#include <sys/uio.h>

#include "sock_common.h"

/*
 * Small writes use up the receiver's buffers, long before the low-water mark:
 * poll() and MSG_PEEK say what there is, or nobody would ever go on.
 */
static void starved(void)
{
	struct pollfd pfd = { .events = POLLIN };
	static char buf[5000];
	int fd = call(ECHO), value = 1 << 20, sent, i;

	check(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value)) == 0);
	for (sent = 1; sent < (int)sizeof(buf); sent++) {
		write_all(fd, "x", 1);
		for (i = 0; i < 300; i++) {
			check(ioctl(fd, FIONREAD, &value) == 0);
			if (value == sent)
				break;
			usleep(1000);
		}
		if (value != sent)
			break;
	}
	check(sent < (int)sizeof(buf));
	pfd.fd = fd;
	check(poll(&pfd, 1, 10000) == 1);
	check(recv(fd, buf, (size_t)sent, MSG_PEEK | MSG_WAITALL) >= value);
	value = 1;
	check(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value)) == 0);
	check(read_full(fd, buf, (size_t)sent) == (size_t)sent);
	close(fd);
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

	/* held back until the rest comes, or 200 ms have gone */
	check(send(fd, "a", 1, MSG_MORE) == 1);
	check(poll(&pfd, 1, 50) == 0);
	check(send(fd, "b", 1, 0) == 1);
	check(recv(fd, buf, 2, MSG_WAITALL) == 2 && !memcmp(buf, "ab", 2));
	value = 1;
	check(setsockopt(fd, IPPROTO_TCP, TCP_CORK, &value, sizeof(value)) == 0);
	write_all(fd, "c", 1);
	check(poll(&pfd, 1, 50) == 0);
	value = 0;
	check(setsockopt(fd, IPPROTO_TCP, TCP_CORK, &value, sizeof(value)) == 0);
	check(recv(fd, buf, 1, 0) == 1 && buf[0] == 'c');
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

	starved();
}
