/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the parts of the ABI spike share: see verbs_spike.c.
 */
#ifndef SPIKE_H
#define SPIKE_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#include "vnet_vtoe.h"

#define N_CONNS 4
#define N_LANES 2 /* connection c uses lane c % N_LANES */

/* Names of connection c: deliberately different on both sides and levels. */
#define SID_OF(host, c) ((7u << VTOE_SID_INDEX_BITS) | (0x100u * ((host) + 1) + (c)))
#define CID_OF(host, c) ((3u << VTOE_SID_INDEX_BITS) | (0x500u * ((host) + 1) + (c)))

#define SMALL_SIZE 2048u
#define LARGE_SIZE 65536u
#define SMALL_BUFS 128u
#define LARGE_BUFS 32u

#define GUEST_GPA 0x40000000ull /* guest memory does not begin at 0 */
#define GUEST_MEM (8u << 20)

/* Most pieces of guest memory one message may lie in, its header included. */
#define SEGS_MAX 8

enum { Q_SWQ, Q_RWQ_SMALL, Q_RWQ_LARGE, Q_EQ, Q_CR, Q_COUNT };

struct queue_place {
	uint16_t num;
	uint64_t desc, avail, used; /* guest physical */
	int kick, call;		    /* eventfds; kick is the agent's from the start on */
};

struct agent_config {
	int host; /* 0 listens, 1 connects */
	const char *local, *remote, *device;
	int mem_fd;
	struct queue_place queue[Q_COUNT];
};

struct agent_stats {
	uint64_t tx_msgs[VNET_RWQ_CLASSES], rx_msgs[VNET_RWQ_CLASSES];
	uint64_t ctrl_tx, ctrl_rx, nops;
	uint64_t grants_deferred; /* until messages of a dead connection have come */
	uint64_t recycled;	  /* buffers that messages of a dead connection took */
	uint64_t violations_tx;	  /* our guest exceeded what it was granted */
	uint64_t violations_grant; /* our guest granted more than it posted */
	uint64_t violations_rx;	  /* the peer exceeded it */
	uint64_t malformed;
	uint32_t last_wqe_events;
	uint32_t max_sge, max_srq_sge, max_inline;
	uint32_t cm_private_len; /* what arrived of what we sent */
	double reg_ms;
};

struct agent;

/* The agent's thread runs until agent_join(). NULL on failure (said). */
struct agent *agent_start(const struct agent_config *config);
const struct agent_stats *agent_get_stats(struct agent *a);
/* What went wrong in the agent's thread, or NULL. */
const char *agent_fault(struct agent *a);

/*
 * Orders to the agent's thread, for the scenes. Return 0, or what went wrong.
 *   WAIT_UP    all lanes are up, a connection with a wrong token was refused
 *   SINK       what arrives is kept from the guest: the shared queues run dry
 *   BLAST      sends on the small queue pair of lane 1 whatever credit says,
 *              until it fails; *result is how many succeeded
 *   TEARDOWN   disconnects, waits for LAST_WQE_REACHED, destroys everything
 */
enum agent_order { AGENT_WAIT_UP = 1, AGENT_SINK, AGENT_BLAST, AGENT_TEARDOWN };
const char *agent_order(struct agent *a, enum agent_order order, uint32_t *result);
void agent_join(struct agent *a);

struct guest;

struct guest *guest_create(int host, struct agent_config *config);
/* Scene number n on this guest: NULL or what went wrong; info gets a remark. */
const char *guest_scene(struct guest *g, struct agent *a, unsigned int n, char *info,
			size_t info_size);

/* The scenes, played by both guests at once. */
#define SCENES(X)                                                                         \
	X(UP, "lanes of three queue pairs come up by RDMA CM, a wrong token is refused")  \
	X(GRANT, "buffers reach the shared receive queues before the credit for them")    \
	X(BULK, "mixed sizes on four connections both ways: every byte at its offset")    \
	X(ONE_BYTE, "one-byte messages use one buffer each")                              \
	X(STUCK, "a reader that does not read stalls its own connection alone")           \
	X(RESUME, "it goes on where it stopped")                                          \
	X(FIN, "the final offset orders a FIN that overtakes data")                       \
	X(VIOLATE, "one message more than granted is stopped by the sender's agent")      \
	X(OVERGRANT, "credit for a buffer that is not posted is stopped by its own agent") \
	X(REGRANT, "buffers of ended connections serve the one that is left")

enum {
#define X(name, text) SCENE_##name,
	SCENES(X)
#undef X
	SCENE_COUNT,
};

double now_s(void);

#endif /* SPIKE_H */
