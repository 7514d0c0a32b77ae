/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the operator decides: the configuration file and the pre-shared key.
 */
#ifndef IBA_CONFIG_H
#define IBA_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "vnet_attach.h"

#define IBA_KEY_LEN 32
#define IBA_FABRICS_MAX 3
#define IBA_RDMA_MAX 8
#define IBA_USER_LEN 33

/* A VM that may attach: all of it as its shim says it. */
struct iba_config_vm {
	char name[VNET_NAME_LEN];
	uint32_t tenant;
	uint8_t mac[VNET_MAC_LEN];
};

/* The order of fabrics to one host's agent. */
struct iba_config_peer {
	struct sockaddr_storage addr;
	uint16_t fabric[IBA_FABRICS_MAX];
	unsigned int fabric_count;
};

struct iba_config {
	const char *file; /* that it was read from; the caller's */
	char host[VNET_NAME_LEN];
	struct sockaddr_storage listen; /* control channel */
	struct sockaddr_storage data;	/* lanes: listen's address unless `data` is given */
	bool data_set;
	uint16_t data_port_first, data_port_last; /* 0: ephemeral */
	/* RDMA ports, by address; data's address unless `rdma` is given */
	struct sockaddr_storage rdma[IBA_RDMA_MAX];
	unsigned int rdma_count;
	bool rdma_set;
	bool rdma_write; /* peers are to write DATA, not to send it */
	char key_file[PATH_MAX];
	char socket_path[108];
	uint16_t fabric[IBA_FABRICS_MAX]; /* VTOE_FABRIC_*, in the order to try */
	unsigned int fabric_count;
	uint32_t spin_us; /* 0: event driven */
#define IBA_SPIN_BUSY UINT32_MAX /* never sleep */
	uint32_t max_connections; /* of one VM */
	bool progress_events;
	char user[IBA_USER_LEN]; /* to become after start-up */
	struct iba_config_vm *vm; /* none: whoever may open the socket */
	unsigned int vm_count;
	struct iba_config_peer *peer;
	unsigned int peer_count;
	bool sandbox;
};

/*
 * 0 or -errno; every bad line has been reported. cfg holds path, and memory
 * until iba_config_free(), in either case.
 */
int iba_config_load(const char *path, struct iba_config *cfg);
void iba_config_free(struct iba_config *cfg);
/* 64 hexadecimal digits; refuses a file that others may read. 0 or -errno, logged. */
int iba_key_load(const char *path, uint8_t key[IBA_KEY_LEN]);

/* May a shim say this of its VM? */
bool iba_config_vm_ok(const struct iba_config *cfg,
		      const char name[VNET_NAME_LEN], uint32_t tenant,
		      const uint8_t mac[VNET_MAC_LEN]);
bool iba_config_allows(const struct iba_config *cfg, uint16_t fabric);
/* The fabrics to try to the agent at this address (NULL: none is known), in order. */
const uint16_t *iba_config_order(const struct iba_config *cfg,
				 const struct sockaddr_storage *agent,
				 unsigned int *count);
/* 1 << VTOE_FABRIC_* of all that are allowed. */
uint16_t iba_config_fabrics(const struct iba_config *cfg);

#endif /* IBA_CONFIG_H */
