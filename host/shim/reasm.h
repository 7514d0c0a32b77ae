/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Trains whose parts did not come in one go: the slow path of receiving. */
#ifndef SHIM_REASM_H
#define SHIM_REASM_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "wire.h"

#define SHIM_REASM_TRAINS 32
#define SHIM_REASM_MS 100

struct shim;

struct shim_train {
	bool used;
	uint32_t link; /* number of the source */
	uint32_t id, len;
	uint16_t part_len;
	unsigned int parts, missing;
	uint64_t born_us;
	uint64_t have[(SHIM_PARTS_MAX + 63) / 64];
	uint8_t *data; /* SHIM_TRAIN_MAX bytes, kept for the next one */
};

struct shim_reasm {
	struct shim *shim;
	struct loop_timer *timer;
	bool timer_armed;
	struct shim_train train[SHIM_REASM_TRAINS];
};

int shim_reasm_init(struct shim *shim);
void shim_reasm_destroy(struct shim *shim);
/* Forgets all trains: the links are about to change. */
void shim_reasm_flush(struct shim_reasm *r);

/* The train that a part belongs to, new if need be. NULL: the part contradicts
 * others of its train, or no memory; counted. */
struct shim_train *shim_reasm_find(struct shim_reasm *r, uint32_t link,
				   const struct shim_part *part);
/* Part i of train->data is in place. */
void shim_train_have(struct shim_train *train, unsigned int i);
/* The same with a copy. A duplicate does nothing. */
void shim_train_add(struct shim_train *train, const struct shim_part *part,
		    const uint8_t *bytes);
void shim_train_release(struct shim_train *train);

#endif /* SHIM_REASM_H */
