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
#define IBA_USER_LEN 33

struct iba_config {
	char host[VNET_NAME_LEN];
	struct sockaddr_storage listen; /* control channel */
	struct sockaddr_storage data;	/* lanes: listen's address unless `data` is given */
	bool data_set;
	uint16_t data_port_first, data_port_last; /* 0: ephemeral */
	char key_file[PATH_MAX];
	char socket_path[108];
	uint16_t fabric[IBA_FABRICS_MAX]; /* VTOE_FABRIC_*, in the order to try */
	unsigned int fabric_count;
	uint32_t spin_us; /* 0: event driven */
	uint32_t max_connections; /* of one VM */
	bool progress_events;
	char user[IBA_USER_LEN]; /* to become after start-up */
	bool sandbox;
};

/* 0 or -errno; every bad line has been reported. */
int iba_config_load(const char *path, struct iba_config *cfg);
/* 64 hexadecimal digits; refuses a file that others may read. 0 or -errno, logged. */
int iba_key_load(const char *path, uint8_t key[IBA_KEY_LEN]);

bool iba_config_allows(const struct iba_config *cfg, uint16_t fabric);
/* 1 << VTOE_FABRIC_* of all that are allowed. */
uint16_t iba_config_fabrics(const struct iba_config *cfg);
const char *iba_fabric_name(uint16_t fabric);

#endif /* IBA_CONFIG_H */
