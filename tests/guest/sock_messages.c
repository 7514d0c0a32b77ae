// SPDX-License-Identifier: GPL-2.0-or-later
/* sendmsg, sendmmsg, recvmmsg and the flags that a stream can do without: EOR, OOB, ZEROCOPY, FASTOPEN, ERRQUEUE. */
#include <sys/uio.h>

#include <linux/errqueue.h>

#include "sock_common.h"

#define PIECES 1000

static void pieces(void)
{
	static uint8_t out[PIECES * 3], in[PIECES * 3];
	static struct iovec iov[PIECES], into[PIECES];
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = PIECES };
	struct msghdr take = { .msg_iov = into, .msg_iovlen = PIECES };
	int fd = call(ECHO), i;
	size_t at;

	fill(out, sizeof(out), 5, 0);
	/* lengths 1 .. 5: the pages of two pieces are never the same */
	for (i = 0, at = 0; i < PIECES; i++) {
		size_t len = i == PIECES - 1 ? sizeof(out) - at : (size_t)(i % 5 + 1);

		iov[i] = (struct iovec){ out + at, len };
		into[PIECES - 1 - i].iov_len = len;
		at += len;
	}
	for (i = 0, at = 0; i < PIECES; i++) {
		into[i].iov_base = in + at;
		at += into[i].iov_len;
	}
	check(sendmsg(fd, &msg, MSG_EOR | MSG_NOSIGNAL) == sizeof(out));
	check(recvmsg(fd, &take, MSG_WAITALL) == sizeof(in));
	check(!memcmp(in, out, sizeof(in)));
	check(take.msg_flags == 0 || take.msg_flags == MSG_EOR);

	/* nothing to send, nothing to take */
	check(send(fd, out, 0, MSG_NOSIGNAL) == 0);
	check(recv(fd, in, 0, MSG_DONTWAIT) == -1 && errno == EAGAIN);
	write_all(fd, "x", 1);
	check(wait_poll(fd, POLLIN, 5000) == POLLIN);
	check(recv(fd, in, 0, 0) == 0 && read(fd, in, 0) == 0);
	check(recv(fd, in, 1, 0) == 1);
	close(fd);
}

static void many(void)
{
	char a[] = "abc", b[] = "defgh", c[] = "ij", in[3][4];
	struct iovec iov[4] = { { a, 3 }, { b, 5 }, { c, 2 }, { a, 2 } }, into[3];
	struct mmsghdr out[3] = {}, back[3] = {};
	struct timespec ts = { .tv_sec = 5 };
	int fd = call(ECHO), i;

	for (i = 0; i < 3; i++) {
		out[i].msg_hdr.msg_iov = &iov[i];
		out[i].msg_hdr.msg_iovlen = i == 2 ? 2 : 1;
		into[i] = (struct iovec){ in[i], 4 };
		back[i].msg_hdr.msg_iov = &into[i];
		back[i].msg_hdr.msg_iovlen = 1;
	}
	check(sendmmsg(fd, out, 3, MSG_NOSIGNAL) == 3);
	check(out[0].msg_len == 3 && out[1].msg_len == 5 && out[2].msg_len == 4);
	check(recvmmsg(fd, back, 3, MSG_WAITALL, &ts) == 3);
	check(back[0].msg_len == 4 && back[1].msg_len == 4 && back[2].msg_len == 4);
	check(!memcmp(in, "abcdefghijab", 12));
	/* as many as there are */
	write_all(fd, "12345", 5);
	check(recv(fd, in, 5, MSG_PEEK | MSG_WAITALL) == 5);
	check(recvmmsg(fd, back, 3, MSG_WAITFORONE, NULL) == 2);
	check(back[0].msg_len == 4 && back[1].msg_len == 1);
	check(recvmmsg(fd, back, 3, MSG_DONTWAIT, NULL) == -1 && errno == EAGAIN);
	close(fd);
}

static void flags(void)
{
	char name[64];
	struct iovec iov = { name, sizeof(name) };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_name = name, .msg_namelen = 20 };
	int fd = call(ECHO);
	char c;

	check(recv(fd, &c, 1, MSG_OOB) == -1 && errno == EINVAL);
	/* without SO_ZEROCOPY the flag means nothing */
	check(send(fd, "z", 1, MSG_ZEROCOPY | MSG_NOSIGNAL) == 1);
	check(recv(fd, &c, 1, 0) == 1 && c == 'z');
	check(recvmsg(fd, &msg, MSG_ERRQUEUE) == -1 && errno == EAGAIN);
	check(send(fd, "c", 1, MSG_CONFIRM | MSG_DONTROUTE | MSG_NOSIGNAL) == 1);
	msg.msg_namelen = 20;
	check(recvmsg(fd, &msg, MSG_CMSG_CLOEXEC) == 1 && msg.msg_controllen == 0);
	/* an address says nothing on a stream */
	check(sendto(fd, "d", 1, MSG_NOSIGNAL, sa(&peer), peer.len) == 1);
	check(recv(fd, &c, 1, MSG_WAITALL) == 1 && c == 'd');
	check(sendto(fd, "f", 1, MSG_FASTOPEN | MSG_NOSIGNAL, sa(&peer), peer.len) == -1 &&
	      errno == EISCONN);
	close(fd);
}

/* The first bytes along with the connection: TCP's own, so it goes over TCP. */
static void fastopen(void)
{
	char buf[8] = "Efast";
	int fd = vnet_socket(peer.v6), mode = VNET_MODE_VNET;

	check(sendto(fd, buf, 5, MSG_FASTOPEN | MSG_NOSIGNAL, sa(&peer), peer.len) == 5);
	if (way == OFFLOAD)
		expect_tcp(fd, VTOE_REASON_OPTION);
	check(read_full(fd, buf, 4) == 4 && !memcmp(buf, "fast", 4));
	check(connect(fd, sa(&peer), peer.len) == -1 && errno == EISCONN);
	close(fd);
	if (way != OFFLOAD)
		return;
	fd = vnet_socket(peer.v6);
	check(setsockopt(fd, SOL_VNET, VNET_SO_MODE, &mode, sizeof(mode)) == 0);
	check(sendto(fd, buf, 5, MSG_FASTOPEN | MSG_NOSIGNAL, sa(&peer), peer.len) == -1 &&
	      errno == EOPNOTSUPP);
	close(fd);
}

#define ZEROCOPY_BYTES 200000
#define ZEROCOPY_CALLS 5

/* How many calls have been completed, without a copy where there should be none; 0: none yet. */
static unsigned int completed(int fd, unsigned int next)
{
	char control[128];
	struct msghdr msg = { .msg_control = control, .msg_controllen = sizeof(control) };
	struct sock_extended_err *err;
	struct cmsghdr *cmsg;

	check(wait_poll(fd, 0, 5000) == POLLERR);
	check(recvmsg(fd, &msg, MSG_ERRQUEUE) == 0 && msg.msg_flags & MSG_ERRQUEUE);
	cmsg = CMSG_FIRSTHDR(&msg);
	check(cmsg && cmsg->cmsg_level == (peer.v6 ? SOL_IPV6 : SOL_IP) &&
	      cmsg->cmsg_type == (peer.v6 ? IPV6_RECVERR : IP_RECVERR));
	err = (void *)CMSG_DATA(cmsg);
	check(err->ee_origin == SO_EE_ORIGIN_ZEROCOPY && err->ee_errno == 0);
	check(way != OFFLOAD || !(err->ee_code & SO_EE_CODE_ZEROCOPY_COPIED));
	check(err->ee_info == next && err->ee_data >= next);
	return err->ee_data - err->ee_info + 1;
}

/* The program's own pages go out; each call is completed once, in order. */
static void zerocopy(void)
{
	static uint8_t buf[ZEROCOPY_BYTES], back[ZEROCOPY_BYTES];
	int fd = vnet_socket(peer.v6), i;
	unsigned int done = 0;
	size_t at;
	ssize_t n;

	set_int(fd, SOL_SOCKET, SO_ZEROCOPY, 1);
	check(connect(fd, sa(&peer), peer.len) == 0);
	check_offloaded(fd);
	fill(buf, sizeof(buf), 3, 0);
	write_all(fd, "E", 1);
	for (i = 0; i < ZEROCOPY_CALLS; i++) {
		/* mixed with copied bytes */
		check(send(fd, buf, 7, MSG_NOSIGNAL) == 7);
		check(read_full(fd, back, 7) == 7 && !memcmp(back, buf, 7));
		n = send(fd, buf, sizeof(buf), MSG_ZEROCOPY | MSG_NOSIGNAL | MSG_DONTWAIT);
		check(n > 0);
		at = read_full(fd, back, (size_t)n);
		check(at == (size_t)n && !memcmp(back, buf, at));
	}
	while (done < ZEROCOPY_CALLS)
		done += completed(fd, done);
	check(done == ZEROCOPY_CALLS && wait_poll(fd, 0, 0) == 0);
	/* a call that sends nothing is none */
	check(send(fd, (void *)8, 10, MSG_ZEROCOPY | MSG_NOSIGNAL) == -1 && errno == EFAULT);
	check(send(fd, buf, 10, MSG_ZEROCOPY | MSG_NOSIGNAL) == 10);
	check(read_full(fd, back, 10) == 10);
	check(completed(fd, ZEROCOPY_CALLS) == 1);
	/* and afterwards without */
	set_int(fd, SOL_SOCKET, SO_ZEROCOPY, 0);
	check(send(fd, buf, 10, MSG_ZEROCOPY | MSG_NOSIGNAL) == 10);
	check(read_full(fd, back, 10) == 10 && wait_poll(fd, 0, 0) == 0);
	close(fd);
}

static void client(void)
{
	pieces();
	many();
	flags();
	fastopen();
	zerocopy();
}
