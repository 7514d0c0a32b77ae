/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The vhost-user front door: one front end (VMM) at a time. */
#ifndef SHIM_VHOST_USER_H
#define SHIM_VHOST_USER_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "unix_msg.h"

#define SHIM_VU_PAYLOAD_MAX 512 /* GET_CONFIG of 256 bytes, 8 regions */

/* A message of the protocol; native byte order, as its specification has it. */
struct shim_vu_msg {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* of the payload */
	uint8_t payload[SHIM_VU_PAYLOAD_MAX];
};

struct shim_front {
	struct shim *shim;
	int listen_fd;
	struct loop_fd *listen_source;
	/* the session */
	int fd;
	struct loop_fd *source;
	uint64_t protocol_features;
	bool enable_needed; /* SET_VRING_ENABLE rules */
	int req_fd;	    /* to the front end */
	struct loop_timer *req_timer;
	bool config_pending; /* a change that it has not been told */
	/* the message under way */
	struct shim_vu_msg msg;
	uint32_t have; /* bytes of it */
	int fds[UNIX_FDS_MAX];
	unsigned int nfds;
};

/* Listens. 0 or -errno, logged. */
int shim_front_init(struct shim *shim);
/* Ends the session and stops listening; removes the socket file. */
void shim_front_destroy(struct shim *shim);
/* Tells the guest that the config space has changed. */
void shim_front_config_changed(struct shim_front *front);

#endif /* SHIM_VHOST_USER_H */
