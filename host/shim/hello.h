/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The in-band carrier of the vendor block (proto/vnet_hello.h), the shim's side. */
#ifndef SHIM_HELLO_H
#define SHIM_HELLO_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "virtq.h"
#include "vnet_hello.h"

struct shim;
struct shim_queue;

struct shim_hello {
	uint8_t pending; /* VNET_HELLO_* to be delivered, 0: none; built when it is */
	uint8_t reason;	 /* VNET_HELLO_R_*, if that is REFUSE */
	uint32_t cookie; /* of the HELLO that it answers */
	bool leaving;	 /* changes of the block are of no interest any more */
	bool asking;	 /* whose the rings are that we found in use */
	struct loop_timer *timer; /* ends that */
};

/* 0, or -1, logged. */
int shim_hello_init(struct shim *shim);
void shim_hello_destroy(struct shim *shim);
/* There is no driver any more, and no queue runs. */
void shim_hello_reset(struct shim *shim);

/* The Ethernet header in a stock driver's framing is that of a message. */
bool shim_hello_is_message(const uint8_t *eth);
/*
 * A chain of a pair's tx queue that is no train, or is a message: handles it.
 * False: it is no message.
 */
bool shim_hello_received(struct shim *shim, unsigned int pair,
			 const struct virtq_chain *chain);
/* A frame in a stock driver's framing; it answers the question. */
void shim_hello_stock_frame(struct shim *shim, const uint8_t *eth);
/* Before the front end's position for a queue replaces q->base: a driver that
 * goes on, one that begins, or one from before our time. */
void shim_hello_base_set(struct shim_queue *q, uint16_t base);
/* The vendor block has changed. */
void shim_hello_changed(struct shim *shim);
/* Delivers what is pending, if rx0 has a buffer for it. */
void shim_hello_flush(struct shim *shim);
/* Nothing is taken from this pair's tx queue, or given to rx, until it is known
 * what the driver is. */
bool shim_hello_holds(const struct shim *shim, unsigned int pair);
bool shim_hello_holds_rx(const struct shim *shim);

#endif /* SHIM_HELLO_H */
