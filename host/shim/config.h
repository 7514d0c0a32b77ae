/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The configuration file of one VM's shim; grammar in vnet-shim.8. */
#ifndef SHIM_CONFIG_H
#define SHIM_CONFIG_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/un.h>

#include "vnet_attach.h"
#include "vnet_dev.h"
#include "vnet_hello.h"

#define SHIM_LINKS_MAX 64 /* a set of links is a 64-bit mask */
#define SHIM_ROUTES_MAX 1024
#define SHIM_PAIRS_MAX 8
/* With those that the in-band carrier reserves (vnet_hello.h). */
#define SHIM_NET_PAIRS_MAX (SHIM_PAIRS_MAX + VNET_HELLO_RESERVED_PAIRS)

struct shim_link_conf {
	char name[VNET_NAME_LEN];
	struct sockaddr_storage local, remote;
	struct sockaddr_storage agent; /* of the remote host, for RESOLVE */
	uint8_t form;	      /* VNET_TRAIN_* */
	uint16_t payload;     /* largest UDP payload of the path */
	unsigned int line;
};

enum shim_front_kind {
	SHIM_FRONT_VHOST_USER,
	SHIM_FRONT_VFIO_USER,
};

/* Qualifiers of a MAC in a route (VNET/P). */
enum shim_mac_qual {
	SHIM_MAC_ANY,	/* every address */
	SHIM_MAC_EXACT, /* this one */
	SHIM_MAC_NOT,	/* every address but this one */
	SHIM_MAC_NONE,	/* no address: the route is switched off */
};

struct shim_mac_match {
	enum shim_mac_qual qual;
	uint8_t mac[VNET_MAC_LEN];
};

struct shim_route_conf {
	struct shim_mac_match src, dst;
	char link_name[VNET_NAME_LEN];
	unsigned int link; /* index in shim_config.link */
	unsigned int line;
};

struct shim_config {
	char vm[VNET_NAME_LEN];
	uint32_t tenant;
	uint8_t mac[VNET_MAC_LEN];
	uint16_t mtu; /* offered to the guest */
	enum shim_front_kind front_kind;
	char front[sizeof(((struct sockaddr_un *)0)->sun_path)];
	bool in_band; /* the VM has the queues of vnet_hello.h */
	char agent[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* "": no offload */
	uint32_t pairs; /* without reserved ones */
	uint8_t encap; /* VNET_ENCAP_* */
	uint32_t rwq_buf_size[VNET_RWQ_CLASSES];
	uint32_t poll_us;
	unsigned int link_count, route_count;
	struct shim_link_conf link[SHIM_LINKS_MAX];
	struct shim_route_conf route[SHIM_ROUTES_MAX];
	/* while parsing */
	uint32_t seen; /* directives that may stand once */
};

/* Reads and checks a file, and logs what is wrong. NULL on any error. */
struct shim_config *shim_config_load(const char *path);
/* The same from memory (tests, fuzzing). */
struct shim_config *shim_config_parse(const char *name, const char *text,
				      size_t len);
void shim_config_free(struct shim_config *conf);
/*
 * Whether next may replace conf while the VM runs: only links, routes, the
 * encapsulation and polling may differ. Logs the first that does not. 0 or
 * -EINVAL.
 */
int shim_config_may_replace(const struct shim_config *conf,
			    const struct shim_config *next, const char *path);
bool shim_config_has_segmented(const struct shim_config *conf);

/* Pairs of the device, which a stock driver may use all. */
static inline unsigned int shim_config_net_pairs(const struct shim_config *conf)
{
	return conf->pairs + (conf->in_band ? VNET_HELLO_RESERVED_PAIRS : 0);
}

#endif /* SHIM_CONFIG_H */
