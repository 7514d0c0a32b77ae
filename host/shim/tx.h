/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From the guest to the links. */
#ifndef SHIM_TX_H
#define SHIM_TX_H

#include <stdbool.h>
#include <stdint.h>

#include "virtq.h"

struct shim;

struct shim_tx {
	struct virtq_chain chain; /* the one at hand */
	uint32_t next_train_id;
};

void shim_tx_init(struct shim *shim);
/* Forwards a batch of what a pair's tx ring has. True if there was any. */
bool shim_tx_run(struct shim *shim, unsigned int pair);

#endif /* SHIM_TX_H */
