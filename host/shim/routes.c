// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Routing as in VNET/P: a route matches by source and destination MAC, each
 * exact, not, any or none; of those that match, the most specific rank wins and
 * every route of that rank receives. Ranks (either way round):
 *
 *   exact with exact 8    exact with not 7    exact with any 6
 *   not with any 5        not with not 4      any with any 3
 *   none never matches
 *
 * So an unknown station's frames go to all `any` routes, and a known one's only
 * to it. A group address is no station: every matching route receives, whatever
 * its rank. Two routes to one link are one copy.
 *
 * The table is scanned on a miss of a direct-mapped cache over (dst, src),
 * which a reload empties. A guest that sprays addresses only makes its own
 * lookups slower (at most SHIM_ROUTES_MAX compares).
 */
#include <string.h>

#include "routes.h"

static bool matches(const struct shim_mac_match *m, const uint8_t *mac)
{
	switch (m->qual) {
	case SHIM_MAC_ANY:
		return true;
	case SHIM_MAC_EXACT:
		return !memcmp(m->mac, mac, VNET_MAC_LEN);
	case SHIM_MAC_NOT:
		return memcmp(m->mac, mac, VNET_MAC_LEN);
	case SHIM_MAC_NONE:
		break;
	}
	return false;
}

unsigned int shim_route_rank(const struct shim_route_conf *route,
			     const uint8_t *dst, const uint8_t *src)
{
	static const uint8_t rank[3][3] = {
		[SHIM_MAC_ANY] = { 3, 6, 5 },
		[SHIM_MAC_EXACT] = { 6, 8, 7 },
		[SHIM_MAC_NOT] = { 5, 7, 4 },
	};

	if (!matches(&route->dst, dst) || !matches(&route->src, src))
		return 0;
	return rank[route->dst.qual][route->src.qual];
}

static uint64_t scan(const struct shim_config *conf, const uint8_t *dst,
		     const uint8_t *src)
{
	const bool group = dst[0] & 1;
	unsigned int best = 0, i;
	uint64_t links = 0;

	for (i = 0; i < conf->route_count; i++) {
		const struct shim_route_conf *r = &conf->route[i];
		unsigned int rank = shim_route_rank(r, dst, src);

		if (!rank || (!group && rank < best))
			continue;
		if (!group && rank > best) {
			best = rank;
			links = 0;
		}
		links |= 1ULL << r->link;
	}
	return links;
}

static unsigned int hash(const uint8_t *key)
{
	uint32_t a, b, c;

	memcpy(&a, key, 4);
	memcpy(&b, key + 4, 4);
	memcpy(&c, key + 8, 4);
	a ^= b * 0x9e3779b1u ^ c * 0x85ebca6bu;
	a *= 0x9e3779b1u;
	return a >> 24;
}
_Static_assert(SHIM_ROUTE_CACHE == 256, "the hash has 8 bits");

void shim_routes_set(struct shim_routes *routes, const struct shim_config *conf)
{
	memset(routes, 0, sizeof(*routes));
	routes->conf = conf;
}

uint64_t shim_routes_lookup(struct shim_routes *routes, const uint8_t *eth)
{
	struct shim_route_entry *e = &routes->cache[hash(eth)];

	if (e->valid && !memcmp(e->key, eth, sizeof(e->key)))
		return e->links;
	e->links = scan(routes->conf, eth, eth + VNET_MAC_LEN);
	memcpy(e->key, eth, sizeof(e->key));
	e->valid = 1;
	return e->links;
}
