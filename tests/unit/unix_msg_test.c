// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sockets with descriptors, and the attach messages: every type there and back;
 * every way to send a wrong one is refused, and no descriptor stays open.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "fd_count.h"
#include "tap.h"
#include "unix_msg.h"

static int ends[2];
static int null_fds[32];

static void open_pair(int type)
{
	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends))
		bail_out("socketpair");
}

static void close_pair(void)
{
	close(ends[0]);
	close(ends[1]);
}

/* ---- descriptors ---- */

static void test_fds(void)
{
	int before = count_fds(), fds[UNIX_FDS_MAX];
	unsigned int nfds = 99;
	char buf[16];

	open_pair(SOCK_SEQPACKET);
	is_int(unix_recv_fds(ends[1], buf, 16, fds, &nfds, 0), -EAGAIN,
	       "nothing there");
	is_int(nfds, 0, "and no descriptors");
	is_int(unix_send_fds(ends[0], "abc", 3, null_fds, UNIX_FDS_MAX), 0,
	       "sends sixteen");
	is_int(unix_recv_fds(ends[1], buf, 16, fds, &nfds, 0), 3, "received");
	ok(nfds == UNIX_FDS_MAX && memcmp(buf, "abc", 3) == 0, "all sixteen");
	ok(fcntl(fds[0], F_GETFD) & FD_CLOEXEC, "close on exec");
	close_fds(fds, nfds);
	ok(fds[0] == -1 && fds[15] == -1, "closed ones are forgotten");
	is_int(unix_send_fds(ends[0], "a", 1, null_fds, UNIX_FDS_MAX + 1),
	       -EINVAL, "does not send seventeen");
	is_int(unix_send_fds(ends[0], "", 0, NULL, 0), -EINVAL,
	       "nor nothing, which would look like the end");
	unix_send_fds(ends[0], "12345678", 8, null_fds, 2);
	is_int(unix_recv_fds(ends[1], buf, 7, fds, &nfds, 0), -EPROTO,
	       "truncated data");
	is_int(nfds, 0, "its descriptors are gone");
	close(ends[0]);
	is_int(unix_recv_fds(ends[1], buf, 7, fds, &nfds, 0), 0, "end of file");
	is_int(unix_send_fds(ends[1], "a", 1, NULL, 0), -EPIPE,
	       "a closed peer is no signal");
	close(ends[1]);
	is_int(count_fds(), before, "no descriptor leaked");
}

/* More than our own functions would send. */
static void send_raw(const void *buf, size_t len, unsigned int nfds)
{
	union {
		char buf[CMSG_SPACE(sizeof(null_fds))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { (void *)buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	struct cmsghdr *cmsg;

	memset(&control, 0, sizeof(control));
	if (nfds) {
		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), null_fds, nfds * sizeof(int));
	}
	if (sendmsg(ends[0], &msg, MSG_NOSIGNAL) < 0)
		bail_out("sendmsg");
}

static void test_too_many(void)
{
	int before = count_fds(), fds[UNIX_FDS_MAX];
	unsigned int nfds;
	char buf[4];

	open_pair(SOCK_SEQPACKET);
	send_raw("abc", 3, UNIX_FDS_MAX + 1);
	is_int(unix_recv_fds(ends[1], buf, 4, fds, &nfds, 0), -EPROTO,
	       "seventeen");
	send_raw("abc", 3, 32);
	is_int(unix_recv_fds(ends[1], buf, 4, fds, &nfds, 0), -EPROTO,
	       "thirty-two");
	send_raw("", 0, 1);
	is_int(unix_recv_fds(ends[1], buf, 4, fds, &nfds, 0), -EPROTO,
	       "a descriptor without a byte");
	close_pair();
	is_int(count_fds(), before, "no descriptor leaked");
}

/* This process may have one more, and gets three. */
static void test_no_room(void)
{
	struct rlimit all, few;
	int before = count_fds(), fds[UNIX_FDS_MAX], next;
	unsigned int nfds;
	char buf[4];

	open_pair(SOCK_SEQPACKET);
	next = dup(ends[0]);
	close(next);
	getrlimit(RLIMIT_NOFILE, &all);
	few = all;
	few.rlim_cur = (rlim_t)next + 1;
	send_raw("abc", 3, 3);
	send_raw("def", 3, 1);
	if (next < 0 || setrlimit(RLIMIT_NOFILE, &few) < 0)
		bail_out("limit of descriptors");
	is_int(unix_recv_fds(ends[1], buf, 4, fds, &nfds, 0), -EMFILE,
	       "three, and no number for two of them");
	is_int(nfds, 0, "none is given");
	is_int(unix_recv_fds(ends[1], buf, 4, fds, &nfds, 0), 3,
	       "the next message");
	is_int(nfds, 1, "has its one");
	close_fds(fds, nfds);
	setrlimit(RLIMIT_NOFILE, &all);
	close_pair();
	is_int(count_fds(), before, "no descriptor leaked");
}

/* ---- a stream that is full ---- */

static void *drain_slowly(void *ctx)
{
	char *buf = ctx;
	size_t got = 0;
	ssize_t n;

	while (got < 1000000) {
		struct pollfd pfd = { .fd = ends[1], .events = POLLIN };

		poll(&pfd, 1, 5000);
		n = read(ends[1], buf + got, 50000);
		if (n <= 0)
			break;
		got += n;
		usleep(1000);
	}
	return (void *)got;
}

static void test_stream(void)
{
	char *out = malloc(1000000), *in = malloc(1000000);
	pthread_t reader;
	void *got;
	int i, ret;

	for (i = 0; i < 1000000; i++)
		out[i] = i * 31;
	open_pair(SOCK_STREAM);
	pthread_create(&reader, NULL, drain_slowly, in);
	is_int(unix_send_fds(ends[0], out, 1000000, NULL, 0), 0,
	       "a megabyte through a small socket buffer");
	pthread_join(reader, &got);
	ok((size_t)got == 1000000 && memcmp(in, out, 1000000) == 0,
	   "arrives whole");
	do {
		ret = unix_send_fds(ends[0], out, 1000, NULL, 0);
	} while (ret == 0);
	ok(ret == -EAGAIN || ret == -ETIMEDOUT, "a peer that does not read");
	close_pair();
	free(out);
	free(in);
}

/* ---- listening ---- */

static char dir[] = "/tmp/unix_msg_test.XXXXXX";

static const char *in_dir(const char *name)
{
	static char path[200];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static void test_listen(void)
{
	char longest[200];
	int a, b, before = count_fds();
	struct stat st;

	a = unix_listen(in_dir("s"), SOCK_SEQPACKET);
	ok(a >= 0, "listens");
	ok(fcntl(a, F_GETFL) & O_NONBLOCK && fcntl(a, F_GETFD) & FD_CLOEXEC,
	   "non-blocking, close on exec");
	is_int(unix_listen(in_dir("s"), SOCK_SEQPACKET), -EADDRINUSE,
	       "not where somebody listens");
	is_int(unix_listen(in_dir("s"), SOCK_STREAM), -EADDRINUSE,
	       "even with another type");
	b = unix_connect(in_dir("s"), SOCK_SEQPACKET);
	ok(b >= 0 && fcntl(b, F_GETFL) & O_NONBLOCK, "connects");
	is_int(unix_connect(in_dir("s"), SOCK_STREAM), -EPROTOTYPE,
	       "not with another type");
	close(a);
	close(b);
	is_int(unix_connect(in_dir("s"), SOCK_SEQPACKET), -ECONNREFUSED,
	       "nobody there");
	a = unix_listen(in_dir("s"), SOCK_STREAM);
	ok(a >= 0, "replaces a stale socket file");
	close(a);
	is_int(unix_connect(in_dir("t"), SOCK_STREAM), -ENOENT, "no such file");

	close(open(in_dir("file"), O_CREAT | O_WRONLY, 0600));
	is_int(unix_listen(in_dir("file"), SOCK_STREAM), -EEXIST,
	       "not in place of a file");
	ok(stat(in_dir("file"), &st) == 0 && S_ISREG(st.st_mode),
	   "which is still there");
	if (symlink("s", in_dir("link")))
		bail_out("symlink");
	is_int(unix_listen(in_dir("link"), SOCK_STREAM), -EEXIST,
	       "nor of a symbolic link");
	memset(longest, 'x', sizeof(longest));
	longest[108] = '\0';
	is_int(unix_listen(longest, SOCK_STREAM), -ENAMETOOLONG, "too long");
	is_int(unix_connect("", SOCK_STREAM), -EINVAL, "an empty path");
	unlink(in_dir("s"));
	unlink(in_dir("file"));
	unlink(in_dir("link"));
	is_int(count_fds(), before, "no descriptor leaked");
}

/* ---- attach messages ---- */

static union {
	struct vnet_attach_hello hello;
	struct vnet_attach_hello_reply hello_reply;
	struct vnet_attach_mem_table mem_table;
	struct vnet_attach_queue_start queue_start;
	struct vnet_attach_queue_stop queue_stop;
	struct vnet_attach_done done;
	struct vnet_attach_resolve resolve;
	struct vnet_attach_resolve_reply resolve_reply;
	__u8 bytes[512];
} body;

static void fill_hello(void)
{
	body.hello.version = htole16(1);
	strcpy(body.hello.vm, "g1");
}

static void fill_hello_reply(void)
{
	strcpy(body.hello_reply.host, "h1");
}

static void fill_mem_table(void)
{
	body.mem_table.count = htole32(2);
}

static void fill_queue_start(void)
{
	body.queue_start.kind = VNET_QUEUE_RWQ;
	body.queue_start.flags = htole16(3);
}

static void fill_nothing(void)
{
}

/* What breaks a message of this type: byte at of the body becomes value. */
struct breakage {
	unsigned int at;
	__u8 value;
};

static const struct kind {
	const char *name;
	enum vnet_attach_type type;
	size_t len;
	unsigned int nfds;
	void (*fill)(void);
	struct breakage breakage[7]; /* until both are 0 */
} kinds[] = {
	{ "HELLO", VNET_ATTACH_HELLO, 64, 0, fill_hello,
	  /* reserved fields; name empty, with a blank, without end, junk behind */
	  { { 2, 1 }, { 23, 1 }, { 32, 0 }, { 33, ' ' }, { 33, '\n' }, { 63, 'x' } } },
	{ "HELLO_REPLY", VNET_ATTACH_HELLO_REPLY, 48, 0, fill_hello_reply,
	  { { 16, 0 }, { 17, 0x80 }, { 40, 'x' } } },
	{ "MEM_TABLE", VNET_ATTACH_MEM_TABLE, 200, 2, fill_mem_table,
	  { { 0, 1 }, { 0, 3 }, { 0, 9 }, { 3, 0x80 }, { 4, 1 } } },
	{ "QUEUE_START", VNET_ATTACH_QUEUE_START, 40, 3, fill_queue_start,
	  { { 2, 0 }, { 2, 5 }, { 6, 4 }, { 7, 1 } } },
	{ "QUEUE_STOP", VNET_ATTACH_QUEUE_STOP, 8, 0, fill_nothing,
	  { { 2, 1 }, { 7, 1 } } },
	{ "DONE", VNET_ATTACH_DONE, 8, 0, fill_nothing, { { 4, 1 } } },
	{ "RESOLVE", VNET_ATTACH_RESOLVE, 8, 0, fill_nothing,
	  { { 6, 1 }, { 7, 1 } } },
	{ "RESOLVE_REPLY", VNET_ATTACH_RESOLVE_REPLY, 32, 0, fill_nothing,
	  { { 4, 1 }, { 9, 1 } } },
	{ "ROUTE_CHANGED", VNET_ATTACH_ROUTE_CHANGED, 0, 0, fill_nothing,
	  { { 0, 0 } } },
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

/* A good message as bytes; returns its length. */
static size_t raw_message(const struct kind *k, __u8 raw[600])
{
	struct vnet_attach_hdr hdr = {
		.magic = htole32(VNET_ATTACH_MAGIC),
		.type = htole16(k->type),
		.len = htole32(k->len),
		.seq = htole32(77),
	};

	memset(raw, 0, 600);
	memset(&body, 0, sizeof(body));
	k->fill();
	memcpy(raw, &hdr, sizeof(hdr));
	memcpy(raw + sizeof(hdr), &body, k->len);
	return sizeof(hdr) + k->len;
}

static struct attach_msg msg;

static void refused(const char *kind, const char *why)
{
	ok(attach_recv(ends[1], &msg) == -EPROTO && msg.nfds == 0, "%s: %s",
	   kind, why);
}

static void test_kind(const struct kind *k)
{
	const struct breakage *b;
	__u8 raw[600];
	size_t len = raw_message(k, raw);
	char why[64];

	ok(attach_send(ends[0], k->type, 77, &body, null_fds, k->nfds) == 0 &&
		   attach_recv(ends[1], &msg) == 1 &&
		   le16toh(msg.hdr.type) == k->type &&
		   le32toh(msg.hdr.seq) == 77 && msg.nfds == k->nfds &&
		   memcmp(&msg, raw, len) == 0,
	   "%s: there and back", k->name);
	close_fds(msg.fds, msg.nfds);
	is_int(attach_send(ends[0], k->type, 0, &body, null_fds, k->nfds + 1),
	       -EINVAL, "is not sent with one descriptor more");

	send_raw(raw, len - 1, k->nfds);
	refused(k->name, "one byte short");
	send_raw(raw, len + 1, k->nfds);
	refused(k->name, "one byte long");
	send_raw(raw, 600, k->nfds);
	refused(k->name, "far too long");
	send_raw(raw, 15, k->nfds);
	refused(k->name, "not even a header");
	send_raw(raw, len, k->nfds + 1);
	refused(k->name, "a descriptor more");
	if (k->nfds) {
		send_raw(raw, len, k->nfds - 1);
		refused(k->name, "a descriptor less");
		send_raw(raw, len, 0);
		refused(k->name, "no descriptors");
	}
	raw[0] ^= 1;
	send_raw(raw, len, k->nfds);
	refused(k->name, "magic");
	raw[0] ^= 1;
	raw[6] = 1;
	send_raw(raw, len, k->nfds);
	refused(k->name, "reserved in the header");
	raw[6] = 0;
	raw[8] ^= 1;
	send_raw(raw, len, k->nfds);
	refused(k->name, "length in the header");
	for (b = k->breakage; b->at || b->value; b++) {
		raw_message(k, raw);
		raw[16 + b->at] = b->value;
		send_raw(raw, len, k->nfds);
		snprintf(why, sizeof(why), "byte %u is 0x%02x", b->at, b->value);
		refused(k->name, why);
	}
}

static void test_attach(void)
{
	int before = count_fds();
	__u8 raw[600];
	unsigned int i;

	open_pair(SOCK_SEQPACKET);
	for (i = 0; i < KINDS; i++)
		test_kind(&kinds[i]);
	for (i = 0; i < 3; i++) {
		static const __u8 types[] = { 0, VNET_ATTACH_ROUTE_CHANGED + 1,
					      255 };
		size_t len = raw_message(&kinds[KINDS - 1], raw);

		raw[4] = types[i];
		send_raw(raw, len, 0);
		refused("unknown type", "refused");
		is_int(attach_send(ends[0], types[i], 0, &body, NULL, 0), -EINVAL,
		       "and not sent");
	}

	memset(&body, 0, sizeof(body));
	body.mem_table.count = htole32(VNET_ATTACH_REGIONS_MAX);
	ok(attach_send(ends[0], VNET_ATTACH_MEM_TABLE, 0, &body, null_fds, 8) ==
			   0 &&
		   attach_recv(ends[1], &msg) == 1 && msg.nfds == 8,
	   "MEM_TABLE with all regions");
	close_fds(msg.fds, msg.nfds);
	raw_message(&kinds[2], raw);
	raw[16] = VNET_ATTACH_REGIONS_MAX + 1;
	send_raw(raw, 16 + 200, VNET_ATTACH_REGIONS_MAX + 1);
	refused("MEM_TABLE", "with one region more, and its descriptor");
	memset(&body, 0, sizeof(body));
	ok(attach_send(ends[0], VNET_ATTACH_MEM_TABLE, 0, &body, NULL, 0) == 0 &&
		   attach_recv(ends[1], &msg) == 1,
	   "MEM_TABLE with none");
	body.hello_reply.status = htole32(22);
	is_int(attach_send(ends[0], VNET_ATTACH_HELLO_REPLY, 0, &body, NULL, 0),
	       0, "HELLO_REPLY that refuses needs no name");
	is_int(attach_recv(ends[1], &msg), 1, "and is understood");

	is_int(attach_recv(ends[1], &msg), -EAGAIN, "nothing there");
	close(ends[0]);
	is_int(attach_recv(ends[1], &msg), 0, "end of file");
	close(ends[1]);
	is_int(count_fds(), before, "no descriptor leaked");
}

int main(void)
{
	unsigned int i;

	if (!mkdtemp(dir))
		bail_out("mkdtemp");
	for (i = 0; i < 32; i++)
		null_fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
	test_fds();
	test_too_many();
	test_no_room();
	test_stream();
	test_listen();
	test_attach();
	rmdir(dir);
	return tap_done();
}
