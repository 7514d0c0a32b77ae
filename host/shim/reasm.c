// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The reassembly table. It serves what the direct path of rx.c does not: parts
 * that were lost, reordered or interleaved with other trains'.
 *
 * Bounds: SHIM_REASM_TRAINS trains of SHIM_TRAIN_MAX bytes; a train that is not
 * whole SHIM_REASM_MS after its first part is dropped; when all are in use, the
 * oldest is. Memory is taken at the first use of a place and kept.
 *
 * Threat model: a remote may begin trains that it never completes. That costs
 * it its own and other remotes' incomplete trains, never a complete one and
 * never more memory.
 */
#include <stdlib.h>
#include <string.h>

#include "shim.h"

static void tick(void *ctx)
{
	struct shim_reasm *r = ctx;
	const uint64_t now = loop_now_us();
	bool left = false;
	unsigned int i;

	for (i = 0; i < SHIM_REASM_TRAINS; i++) {
		struct shim_train *t = &r->train[i];

		/* a complete one waits for buffers; rx.c sees to it */
		if (!t->used || !t->missing)
			continue;
		if (now - t->born_us < SHIM_REASM_MS * 1000) {
			left = true;
			continue;
		}
		r->shim->stats.rx_drop_timeout++;
		shim_train_release(t);
	}
	r->timer_armed = left;
	if (left)
		loop_timer_arm(r->timer, SHIM_REASM_MS);
}

int shim_reasm_init(struct shim *shim)
{
	shim->reasm.shim = shim;
	shim->reasm.timer = loop_timer_create(shim->loop, tick, &shim->reasm);
	return shim->reasm.timer ? 0 : -1;
}

void shim_reasm_destroy(struct shim *shim)
{
	unsigned int i;

	loop_timer_destroy(shim->reasm.timer);
	for (i = 0; i < SHIM_REASM_TRAINS; i++)
		free(shim->reasm.train[i].data);
}

void shim_reasm_flush(struct shim_reasm *r)
{
	unsigned int i;

	for (i = 0; i < SHIM_REASM_TRAINS; i++)
		shim_train_release(&r->train[i]);
}

/* A free place, or that of the oldest incomplete train; NULL: none. */
static struct shim_train *take_place(struct shim_reasm *r)
{
	struct shim_train *oldest = NULL;
	unsigned int i;


	for (i = 0; i < SHIM_REASM_TRAINS; i++) {
		struct shim_train *t = &r->train[i];

		if (!t->used)
			return t;
		if (t->missing && (!oldest || t->born_us < oldest->born_us))
			oldest = t;
	}
	r->shim->stats.rx_drop_table_full++;
	return oldest;
}

static struct shim_train *begin(struct shim_reasm *r, uint32_t link,
				const struct shim_part *part)
{
	struct shim_train *t = take_place(r);
	uint8_t *data;

	if (!t)
		return NULL;
	data = t->data ? t->data : malloc(SHIM_TRAIN_MAX);
	if (!data) {
		r->shim->stats.rx_drop_table_full++;
		return NULL;
	}
	*t = (struct shim_train){
		.used = true,
		.link = link,
		.id = part->train_id,
		.len = part->train_len,
		.part_len = part->part_len,
		.parts = part->count,
		.missing = part->count,
		.born_us = loop_now_us(),
		.data = data,
	};
	if (!r->timer_armed) {
		r->timer_armed = true;
		loop_timer_arm(r->timer, SHIM_REASM_MS);
	}
	return t;
}

struct shim_train *shim_reasm_find(struct shim_reasm *r, uint32_t link,
				   const struct shim_part *part)
{
	unsigned int i;

	for (i = 0; i < SHIM_REASM_TRAINS; i++) {
		struct shim_train *t = &r->train[i];

		if (!t->used || t->id != part->train_id || t->link != link)
			continue;
		if (t->len == part->train_len && t->part_len == part->part_len)
			return t;
		r->shim->stats.rx_drop_malformed++;
		return NULL;
	}
	return begin(r, link, part);
}

void shim_train_have(struct shim_train *train, unsigned int i)
{
	const uint64_t bit = 1ULL << (i % 64);

	if (train->have[i / 64] & bit)
		return;
	train->have[i / 64] |= bit;
	train->missing--;
}

void shim_train_add(struct shim_train *train, const struct shim_part *part,
		    const uint8_t *bytes)
{
	if (train->have[part->index / 64] & (1ULL << (part->index % 64)))
		return;
	memcpy(train->data + part->offset, bytes, part->len);
	shim_train_have(train, part->index);
}

void shim_train_release(struct shim_train *train)
{
	train->used = false;
}
