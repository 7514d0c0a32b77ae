/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The requests of the vhost-user protocol. */
#ifndef SHIM_VU_REQUESTS_H
#define SHIM_VU_REQUESTS_H

#include <stdbool.h>
#include <stdint.h>

struct shim;

struct shim_vu_row {
	const char *name;
	/* 0; 1: could not be done; -EPROTO: the session must end. */
	int (*handle)(struct shim *shim);
	uint16_t size_min, size_max; /* of the payload */
	uint8_t fds_min, fds_max;
	bool answers;	/* with a payload */
	int8_t feature; /* protocol feature that brings it; -1: none */
};

/* NULL: there is no such request. */
const struct shim_vu_row *shim_vu_find(uint32_t request);
/* A log line about the message at hand. Returns -EPROTO. */
int shim_vu_bad(const struct shim *shim, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#endif /* SHIM_VU_REQUESTS_H */
