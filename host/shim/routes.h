/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Which links a frame goes to: the VNET route table and its cache. */
#ifndef SHIM_ROUTES_H
#define SHIM_ROUTES_H

#include <stdint.h>

#include "config.h"

#define SHIM_ROUTE_CACHE 256

struct shim_route_entry {
	uint8_t key[2 * VNET_MAC_LEN]; /* dst, src */
	uint8_t valid;
	uint64_t links;
};

struct shim_routes {
	const struct shim_config *conf; /* not owned */
	struct shim_route_entry cache[SHIM_ROUTE_CACHE];
};

/* Takes the table of conf into use and empties the cache. */
void shim_routes_set(struct shim_routes *routes, const struct shim_config *conf);
/* Mask of links (1 << index) that receive a frame; key: its first 12 bytes. */
uint64_t shim_routes_lookup(struct shim_routes *routes, const uint8_t *eth);
/* How well a route matches; 0: not at all. For tests. */
unsigned int shim_route_rank(const struct shim_route_conf *route,
			     const uint8_t *dst, const uint8_t *src);

#endif /* SHIM_ROUTES_H */
