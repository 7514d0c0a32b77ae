// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Descriptor passing, and the messages between shim and agent.
 *
 * Threat model: who connects to the agent's socket may be a shim that its guest
 * has taken over. It may send any bytes, of any length, with any descriptors.
 * A message is a row of the table below: exact length, exact number of
 * descriptors, and a check of the fields that have but one right value
 * (reserved ones above all). What a row does not know is a matter of the
 * handler: versions, features, addresses, ring sizes. Descriptors that came with a
 * message which is refused are closed here, whatever the reason.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "unix_msg.h"

/* How long unix_send_fds() waits to finish a message that has left in part. */
#define SEND_REST_MS 1000

/* ---- sockets ---- */

static int set_path(struct sockaddr_un *addr, const char *path)
{
	size_t len = strlen(path);

	memset(addr, 0, sizeof(*addr));
	addr->sun_family = AF_UNIX;
	if (!len)
		return -EINVAL;
	if (len >= sizeof(addr->sun_path))
		return -ENAMETOOLONG;
	memcpy(addr->sun_path, path, len);
	return 0;
}

static int unix_socket(int type)
{
	int sock = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return sock < 0 ? -errno : sock;
}

int unix_connect(const char *path, int type)
{
	struct sockaddr_un addr;
	int sock, ret;

	ret = set_path(&addr, path);
	if (ret < 0)
		return ret;
	sock = unix_socket(type);
	if (sock < 0)
		return sock;
	/* Never in progress for AF_UNIX: a full backlog is EAGAIN. */
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		ret = -errno;
		close(sock);
		return ret;
	}
	return sock;
}

/* Removes the socket file of a process that is gone. 0 or -errno. */
static int remove_stale(const char *path, int type)
{
	struct stat st;
	int sock;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	sock = unix_connect(path, type);
	if (sock >= 0)
		close(sock);
	/* Any other error comes from somebody who is there. */
	if (sock != -ECONNREFUSED)
		return -EADDRINUSE;
	return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int unix_listen(const char *path, int type)
{
	struct sockaddr_un addr;
	int sock, ret;

	ret = set_path(&addr, path);
	if (ret < 0)
		return ret;
	sock = unix_socket(type);
	if (sock < 0)
		return sock;
	ret = bind(sock, (struct sockaddr *)&addr, sizeof(addr));
	if (ret < 0 && errno == EADDRINUSE) {
		ret = remove_stale(path, type);
		if (ret < 0)
			goto close_sock;
		ret = bind(sock, (struct sockaddr *)&addr, sizeof(addr));
	}
	if (ret < 0 || listen(sock, SOMAXCONN) < 0) {
		ret = -errno;
		goto close_sock;
	}
	return sock;

close_sock:
	close(sock);
	return ret;
}

/* ---- descriptors ---- */

void close_fds(int *fds, unsigned int nfds)
{
	unsigned int i;

	for (i = 0; i < nfds; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
}

/* Collects the descriptors of all control messages; false: too many. */
static bool collect_fds(struct msghdr *msg, int fds[UNIX_FDS_MAX],
			unsigned int *nfds)
{
	struct cmsghdr *cmsg;
	bool ok = true;

	*nfds = 0;
	for (cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t i, count;

		if (cmsg->cmsg_level != SOL_SOCKET ||
		    cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
			if (*nfds < UNIX_FDS_MAX) {
				fds[(*nfds)++] = fd;
			} else {
				close(fd);
				ok = false;
			}
		}
	}
	return ok;
}

ssize_t unix_recv_fds(int sock, void *buf, size_t len, int fds[UNIX_FDS_MAX],
		      unsigned int *nfds, int flags)
{
	union {
		char buf[CMSG_SPACE(UNIX_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	ssize_t n;
	bool ok;

	*nfds = 0;
	do {
		n = recvmsg(sock, &msg, flags | MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	ok = collect_fds(&msg, fds, nfds);
	/* MSG_CTRUNC: the kernel has dropped some, which did not fit or, if there
	 * was room, for which this process has no number left */
	if (msg.msg_flags & MSG_CTRUNC && *nfds < UNIX_FDS_MAX)
		n = -EMFILE;
	else if (!ok || (msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) ||
		 (n == 0 && *nfds))
		n = -EPROTO;
	if (n < 0) {
		close_fds(fds, *nfds);
		*nfds = 0;
	}
	return n;
}

static ssize_t send_some(int sock, const void *buf, size_t len, const int *fds,
			 unsigned int nfds)
{
	union {
		char buf[CMSG_SPACE(UNIX_FDS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t n;

	if (nfds) {
		struct cmsghdr *cmsg;

		memset(&control, 0, sizeof(control));
		msg.msg_control = control.buf;
		msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nfds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, nfds * sizeof(int));
	}
	do {
		n = sendmsg(sock, &msg, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

int unix_send_fds(int sock, const void *buf, size_t len, const int *fds,
		  unsigned int nfds)
{
	const char *rest = buf;
	ssize_t n;

	if (!len || nfds > UNIX_FDS_MAX)
		return -EINVAL;
	n = send_some(sock, buf, len, fds, nfds);
	if (n < 0)
		return n; /* -EAGAIN: nothing has left */
	/* Only a stream takes a part; the descriptors went with its first byte. */
	for (rest += n, len -= n; len; rest += n, len -= n) {
		struct pollfd pfd = { .fd = sock, .events = POLLOUT };

		n = send_some(sock, rest, len, NULL, 0);
		if (n == -EAGAIN) {
			if (poll(&pfd, 1, SEND_REST_MS) == 0)
				return -ETIMEDOUT;
			n = 0;
		}
		if (n < 0)
			return n;
	}
	return 0;
}

/* ---- the messages of vnet_attach.h ---- */

/* Of one message type. A field with one right value has it: true. */
typedef bool check_fn(const struct attach_msg *msg);

#define FDS_ONE_PER_REGION (-1)

struct attach_row {
	size_t len; /* of the body */
	int nfds;
	check_fn *check; /* NULL: nothing to check */
};

/* 1 to VNET_NAME_LEN - 1 printable bytes, then NULs: it goes into log lines. */
static bool name_ok(const char name[VNET_NAME_LEN])
{
	size_t i, len = strnlen(name, VNET_NAME_LEN);

	if (!len || len == VNET_NAME_LEN)
		return false;
	for (i = 0; i < VNET_NAME_LEN; i++)
		if (i < len ? name[i] <= ' ' || name[i] > '~' : name[i] != 0)
			return false;
	return true;
}

static bool bytes_zero(const __u8 *bytes, size_t len)
{
	while (len)
		if (bytes[--len])
			return false;
	return true;
}

static bool check_hello(const struct attach_msg *msg)
{
	const struct vnet_attach_hello *b = &msg->u.hello;

	return !b->reserved && bytes_zero(b->reserved1, sizeof(b->reserved1)) &&
	       name_ok(b->vm);
}

static bool check_hello_reply(const struct attach_msg *msg)
{
	const struct vnet_attach_hello_reply *b = &msg->u.hello_reply;

	/* One that refuses need not say who it is. */
	return name_ok(b->host) ||
	       (b->status && bytes_zero((const __u8 *)b->host, sizeof(b->host)));
}

static bool check_mem_table(const struct attach_msg *msg)
{
	const struct vnet_attach_mem_table *b = &msg->u.mem_table;

	return le32toh(b->count) <= VNET_ATTACH_REGIONS_MAX && !b->reserved;
}

static bool check_queue_start(const struct attach_msg *msg)
{
	const struct vnet_attach_queue_start *b = &msg->u.queue_start;
	const unsigned int known = VNET_QUEUE_F_EVENT_IDX | VNET_QUEUE_F_INDIRECT;

	return b->kind >= VNET_QUEUE_CR && b->kind <= VNET_QUEUE_RWQ &&
	       !(le16toh(b->flags) & ~known);
}

static bool check_queue_stop(const struct attach_msg *msg)
{
	const struct vnet_attach_queue_stop *b = &msg->u.queue_stop;

	return bytes_zero(b->reserved, sizeof(b->reserved));
}

static bool check_done(const struct attach_msg *msg)
{
	return !msg->u.done.reserved;
}

static bool check_resolve(const struct attach_msg *msg)
{
	const struct vnet_attach_resolve *b = &msg->u.resolve;

	return bytes_zero(b->reserved, sizeof(b->reserved));
}

static bool check_resolve_reply(const struct attach_msg *msg)
{
	const struct vnet_attach_resolve_reply *b = &msg->u.resolve_reply;

	return !b->reserved && !b->agent.reserved;
}

#define BODY(member) sizeof(((struct attach_msg *)0)->u.member)

static const struct attach_row attach_rows[] = {
	[VNET_ATTACH_HELLO] = { BODY(hello), 0, check_hello },
	[VNET_ATTACH_HELLO_REPLY] = { BODY(hello_reply), 0, check_hello_reply },
	[VNET_ATTACH_MEM_TABLE] = { BODY(mem_table), FDS_ONE_PER_REGION,
				    check_mem_table },
	[VNET_ATTACH_QUEUE_START] = { BODY(queue_start), 3, check_queue_start },
	[VNET_ATTACH_QUEUE_STOP] = { BODY(queue_stop), 0, check_queue_stop },
	[VNET_ATTACH_DONE] = { BODY(done), 0, check_done },
	[VNET_ATTACH_RESOLVE] = { BODY(resolve), 0, check_resolve },
	[VNET_ATTACH_RESOLVE_REPLY] = { BODY(resolve_reply), 0,
					check_resolve_reply },
	[VNET_ATTACH_ROUTE_CHANGED] = { 0, 0, NULL },
};
#define ATTACH_ROWS (sizeof(attach_rows) / sizeof(attach_rows[0]))

/* Header and body as they are on the wire, one after the other. */
#define ATTACH_WIRE_MAX offsetof(struct attach_msg, fds)
_Static_assert(offsetof(struct attach_msg, u) == sizeof(struct vnet_attach_hdr),
	       "no hole between header and body");

/* NULL if there is no such type. */
static const struct attach_row *find_row(unsigned int type)
{
	if (type < VNET_ATTACH_HELLO || type >= ATTACH_ROWS)
		return NULL;
	return &attach_rows[type];
}

int attach_check(const struct attach_msg *msg, size_t len)
{
	const struct attach_row *row;
	unsigned int nfds;

	if (len < sizeof(msg->hdr) ||
	    le32toh(msg->hdr.magic) != VNET_ATTACH_MAGIC || msg->hdr.reserved)
		return -EPROTO;
	row = find_row(le16toh(msg->hdr.type));
	if (!row || le32toh(msg->hdr.len) != row->len ||
	    len != sizeof(msg->hdr) + row->len)
		return -EPROTO;
	if (row->check && !row->check(msg))
		return -EPROTO;
	/* after the check, which bounds count */
	nfds = row->nfds == FDS_ONE_PER_REGION ?
		       le32toh(msg->u.mem_table.count) :
		       (unsigned int)row->nfds;
	return msg->nfds == nfds ? 0 : -EPROTO;
}

int attach_recv(int sock, struct attach_msg *msg)
{
	ssize_t n;

	memset(msg, 0, sizeof(*msg));
	n = unix_recv_fds(sock, msg, ATTACH_WIRE_MAX, msg->fds, &msg->nfds, 0);
	if (n <= 0)
		return n;
	if (attach_check(msg, n) < 0) {
		close_fds(msg->fds, msg->nfds);
		msg->nfds = 0;
		return -EPROTO;
	}
	return 1;
}

int attach_send(int sock, enum vnet_attach_type type, uint32_t seq,
		const void *body, const int *fds, unsigned int nfds)
{
	const struct attach_row *row = find_row(type);
	struct attach_msg msg;

	if (!row)
		return -EINVAL;
	memset(&msg, 0, sizeof(msg));
	msg.hdr.magic = htole32(VNET_ATTACH_MAGIC);
	msg.hdr.type = htole16(type);
	msg.hdr.len = htole32(row->len);
	msg.hdr.seq = htole32(seq);
	if (row->len)
		memcpy(&msg.u, body, row->len);
	/* What the other side would refuse is a mistake of ours. */
	msg.nfds = nfds;
	if (attach_check(&msg, sizeof(msg.hdr) + row->len) < 0)
		return -EINVAL;
	return unix_send_fds(sock, &msg, sizeof(msg.hdr) + row->len, fds, nfds);
}
