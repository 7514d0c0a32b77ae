/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * AF_UNIX sockets with descriptor passing, and the messages of vnet_attach.h.
 */
#ifndef COMMON_UNIX_MSG_H
#define COMMON_UNIX_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vnet_attach.h"

#define UNIX_FDS_MAX 16

/*
 * type: SOCK_STREAM or SOCK_SEQPACKET. Listening replaces a stale socket file
 * (nobody accepts there), never another kind of file. The fd, non-blocking and
 * close-on-exec, or -errno.
 */
int unix_listen(const char *path, int type);
int unix_connect(const char *path, int type);

/*
 * One recvmsg() with room for descriptors. Returns bytes, 0 at end of file,
 * -errno. *nfds is how many are in fds[]; the caller owns them. More than
 * UNIX_FDS_MAX, or truncated data: -EPROTO and all are closed. Fewer than were
 * sent, since this process may not have more: -EMFILE, likewise; the message is
 * gone, the socket is good.
 */
ssize_t unix_recv_fds(int sock, void *buf, size_t len, int fds[UNIX_FDS_MAX],
		      unsigned int *nfds, int flags);
/*
 * Sends all of buf with copies of fds (not closed here). 0 or -errno; after
 * -EAGAIN nothing was sent, after any other error the socket is of no use.
 */
int unix_send_fds(int sock, const void *buf, size_t len, const int *fds,
		  unsigned int nfds);
void close_fds(int *fds, unsigned int nfds);

/* A message of vnet_attach.h. */
struct attach_msg {
	struct vnet_attach_hdr hdr;
	union {
		struct vnet_attach_hello hello;
		struct vnet_attach_hello_reply hello_reply;
		struct vnet_attach_mem_table mem_table;
		struct vnet_attach_queue_start queue_start;
		struct vnet_attach_queue_stop queue_stop;
		struct vnet_attach_done done;
		struct vnet_attach_resolve resolve;
		struct vnet_attach_resolve_reply resolve_reply;
	} u;
	int fds[UNIX_FDS_MAX]; /* owned by whoever holds the message */
	unsigned int nfds;
};

/*
 * Receives and checks one message: magic, known type, length and number of
 * descriptors of that type, reserved fields zero. 1: got one; 0: end of file;
 * -EAGAIN; -EPROTO malformed (fds closed); -EMFILE as above; -errno.
 */
int attach_recv(int sock, struct attach_msg *msg);
/* That check, of len bytes that stand in hdr and u (fds: only their number). */
int attach_check(const struct attach_msg *msg, size_t len);
/*
 * Fills in the header and sends body and fds of type. 0 or -errno; -EINVAL:
 * the receiver would refuse it.
 */
int attach_send(int sock, enum vnet_attach_type type, uint32_t seq,
		const void *body, const int *fds, unsigned int nfds);

#endif /* COMMON_UNIX_MSG_H */
