/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The life of the device's queues: set up by the front end, served by us or by
 * the agent. */
#ifndef SHIM_QUEUE_H
#define SHIM_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

#include "config.h"
#include "loop.h"
#include "virtq.h"

#define SHIM_VTOE_QUEUES (2 + 1 + VNET_RWQ_CLASSES) /* CR EQ SWQ RWQ.. */
#define SHIM_QUEUES_MAX (2 * SHIM_NET_PAIRS_MAX + 1 + SHIM_VTOE_QUEUES)

struct shim;

enum shim_queue_kind {
	SHIM_QUEUE_RX,
	SHIM_QUEUE_TX,
	SHIM_QUEUE_CTRL,
	SHIM_QUEUE_VTOE,
	SHIM_QUEUE_UNUSED, /* nobody touches it */
	SHIM_QUEUE_KINDS,
};

enum shim_queue_state {
	SHIM_QUEUE_IDLE,  /* the front end has not set it up, or stopped it */
	SHIM_QUEUE_READY, /* set up; nobody touches its rings */
	SHIM_QUEUE_LOCAL, /* this process serves it */
	SHIM_QUEUE_AGENT, /* handed to the agent */
	SHIM_QUEUE_STATES,
};

struct shim_queue {
	struct shim *shim;
	uint16_t index;
	enum shim_queue_kind kind;
	uint16_t unit; /* rx, tx: which pair; VTOE: which of CR EQ SWQ RWQ.. */
	enum shim_queue_state state;
	/* what the front end said */
	uint16_t num;
	uint16_t base; /* next avail position to take, kept while not LOCAL */
	uint64_t desc_addr, avail_addr, used_addr; /* in its address space */
	bool addr_set, enabled;
	bool base_told; /* the front end asked for base after the last stop */
	int kick_fd, call_fd; /* owned; the virtq, the agent get duplicates */
	/* while served here */
	struct virtq vq;
	struct loop_fd *kick_source;
};

/* Guest physical addresses of the ring. */
struct shim_ring {
	uint64_t desc, avail, used;
};

const char *shim_queue_kind_name(enum shim_queue_kind kind);
const char *shim_queue_state_name(enum shim_queue_state state);

void shim_queues_init(struct shim *shim);
/*
 * Gives each queue its kind, which depends on whether the driver has said hello
 * (dev.in_band). None of those that change may run.
 */
void shim_queues_assign(struct shim *shim);
/* With an in-band carrier: from this queue on kinds change. */
unsigned int shim_queues_reserved(const struct shim *shim);
/* NULL unless the device has this queue: the one gate for indices. */
struct shim_queue *shim_queue_at(struct shim *shim, uint32_t index);
struct shim_queue *shim_queue_rx(struct shim *shim, unsigned int pair);
struct shim_queue *shim_queue_tx(struct shim *shim, unsigned int pair);
struct shim_queue *shim_queue_ctrl(struct shim *shim);
/* i-th of CR, EQ, SWQ, RWQ...: only while shim_queues_vtoe(). */
struct shim_queue *shim_queue_vtoe(struct shim *shim, unsigned int i);
/* There are VTOE queues now. */
bool shim_queues_vtoe(const struct shim *shim);

/*
 * After a change of what the front end said: if all is there, starts the
 * queue. 0; -EINVAL if it cannot be started (logged).
 */
int shim_queue_update(struct shim_queue *q);
/* Nobody touches the rings any more; base says where to go on. */
void shim_queue_stop(struct shim_queue *q);
/* Stops it and forgets all that the front end said. */
void shim_queue_reset(struct shim_queue *q);
/* A new call descriptor (or -1), which the queue owns from now on. */
int shim_queue_set_call(struct shim_queue *q, int fd);

/* Around a change of guest memory: stop all queues; start again all that can be
 * (-EINVAL: not all of them). */
void shim_queues_pause(struct shim *shim);
int shim_queues_resume(struct shim *shim);

/* READY to LOCAL: starts the ring here, inflight may be NULL. 0 or -EINVAL. */
int shim_queue_start_local(struct shim_queue *q, struct vnet_inflight *inflight);
/* LOCAL to READY. */
void shim_queue_stop_local(struct shim_queue *q);
/* 0, or -EINVAL if an area lies outside guest memory. */
int shim_queue_ring(const struct shim_queue *q, struct shim_ring *ring);
/* The setter of the state; traces. */
void shim_queue_set_state(struct shim_queue *q, enum shim_queue_state state);
/* To be called when a virtq function said -EPROTO: logs and counts once. */
void shim_queue_broken(struct shim_queue *q);

#endif /* SHIM_QUEUE_H */
