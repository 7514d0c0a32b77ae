/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The front door: the socket at which one front end (VMM) at a time sets up the
 * device. What is common to the protocols is here: listening, one session, a
 * message collected whole before anybody looks at it. What a protocol is stands
 * in its struct shim_front_ops.
 */
#ifndef SHIM_FRONT_H
#define SHIM_FRONT_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "unix_msg.h"

struct shim;
struct shim_queue;

struct shim_front_ops {
	const char *name; /* of the directive `front NAME PATH` */
	uint32_t hdr_len; /* of a message */
	/* 0 or -errno. Sets front.msg, where messages are collected. */
	int (*init)(struct shim *shim);
	void (*destroy)(struct shim *shim);
	/* A session begins (0 or -errno), and ends: the device is to be as if
	 * there had never been a driver. */
	int (*begin)(struct shim *shim);
	void (*end)(struct shim *shim);
	/* Bytes of the message whose header is there, header included. 0: it is
	 * malformed (logged). */
	uint32_t (*msg_len)(struct shim *shim);
	/* The message is whole. 0, or -errno: the session must end. */
	int (*handle)(struct shim *shim);
	/* The config space has changed: the guest is to be told. */
	void (*config_changed)(struct shim *shim);
	/* A queue has broken, for good until the next reset. */
	void (*queue_broken)(struct shim_queue *q);
	/* What the front end said lets this queue run. */
	bool (*may_run)(const struct shim_queue *q);
	/* Guest physical address of len bytes that the front end calls addr;
	 * UINT64_MAX: outside the guest's memory. */
	uint64_t (*to_gpa)(const struct shim *shim, uint64_t addr, uint64_t len);
};

extern const struct shim_front_ops shim_vhost_user_ops, shim_vfio_user_ops;

struct shim_front {
	const struct shim_front_ops *ops;
	struct shim *shim;
	int listen_fd;
	struct loop_fd *listen_source;
	/* the session */
	int fd;
	struct loop_fd *source;
	/* the message under way */
	void *msg;
	uint32_t have, want; /* bytes of it */
	int fds[UNIX_FDS_MAX];
	unsigned int nfds;
};

/* Listens. 0 or -errno, logged. */
int shim_front_init(struct shim *shim);
/* Ends the session and stops listening; removes the socket file. */
void shim_front_destroy(struct shim *shim);
/* Takes the i-th descriptor of the message, which the caller owns then. */
int shim_front_take_fd(struct shim_front *front, unsigned int i);

static inline bool shim_front_connected(const struct shim_front *front)
{
	return front->fd >= 0;
}

#endif /* SHIM_FRONT_H */
