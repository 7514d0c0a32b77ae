/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The vhost-user front door. */
#ifndef SHIM_VHOST_USER_H
#define SHIM_VHOST_USER_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"

#define SHIM_VU_PAYLOAD_MAX 512 /* GET_CONFIG of 256 bytes, 8 regions */

/* A message of the protocol; native byte order, as its specification has it. */
struct shim_vu_msg {
	uint32_t request;
	uint32_t flags;
	uint32_t size; /* of the payload */
	uint8_t payload[SHIM_VU_PAYLOAD_MAX];
};

/* A session. */
struct shim_vu {
	uint64_t protocol_features;
	bool enable_needed; /* SET_VRING_ENABLE rules */
	int req_fd;	    /* to the front end */
	struct loop_timer *req_timer;
	bool config_pending; /* a change that it has not been told */
	struct shim_vu_msg msg;
};

#endif /* SHIM_VHOST_USER_H */
