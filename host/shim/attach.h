/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The attachment to the agent, which serves the VTOE queues. */
#ifndef SHIM_ATTACH_H
#define SHIM_ATTACH_H

#include <stdbool.h>
#include <stdint.h>

#include "loop.h"
#include "vnet_attach.h"

struct shim;
struct shim_queue;

enum shim_attach_state {
	SHIM_ATTACH_IDLE,      /* no connection, none wanted */
	SHIM_ATTACH_RETRY,     /* wanted; the timer runs */
	SHIM_ATTACH_HELLO,     /* HELLO is out */
	SHIM_ATTACH_MEM,       /* MEM_TABLE is out */
	SHIM_ATTACH_START,     /* QUEUE_STARTs are out */
	SHIM_ATTACH_UP,	       /* the agent serves the queues */
	SHIM_ATTACH_SUSPENDED, /* connected; the agent has let go of everything */
	SHIM_ATTACH_LEAVING,   /* given up with queues: until it has closed */
	SHIM_ATTACH_STATES,
};

#define SHIM_ATTACH_PENDING_MAX 8

struct shim_attach {
	struct shim *shim;
	enum shim_attach_state state;
	int sock;
	struct loop_fd *source;
	struct loop_timer *retry, *deadline;
	uint32_t seq;
	uint32_t pending[SHIM_ATTACH_PENDING_MAX]; /* seq of requests not DONE */
	unsigned int pending_count;
	bool same_epoch; /* the guest's connections went on meanwhile */
	bool complained; /* of not getting a connection */
	bool owes_removal; /* LEAVING: to the driver that had the queues */
	int inflight_fd;
	struct vnet_inflight *inflight; /* one for each VTOE queue */
};

/* 0 or -errno, logged. Does nothing if the VM has no agent. */
int shim_attach_init(struct shim *shim);
void shim_attach_destroy(struct shim *shim);

/*
 * A VTOE queue is READY. When all are: hands them to the agent, or serves them
 * here until there is one. 0 or -EINVAL.
 */
int shim_attach_queue_ready(struct shim *shim);
/* Takes all VTOE queues back; they are READY or IDLE. Waits for the agent, but
 * not for long. The connection stays, for a resume. */
void shim_attach_suspend(struct shim *shim);
/* Ends the attachment: the guest has begun anew, or is gone. */
void shim_attach_reset(struct shim *shim);
/* The front end says where a VTOE queue begins: anywhere but where it stopped
 * is a new beginning. */
void shim_attach_base_set(struct shim_queue *q);
/* A driver negotiates: a new one, if nobody asked where the last one's VTOE
 * queues had stopped. */
void shim_attach_features_set(struct shim *shim);
/* The VM begins to migrate: takes the VTOE queues back for as long as that
 * lasts. The guest's connections end. */
void shim_attach_log_started(struct shim *shim);
void shim_attach_routes_changed(struct shim *shim);

#endif /* SHIM_ATTACH_H */
