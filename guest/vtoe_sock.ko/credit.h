/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Who may send how much into this guest's receive buffers: the grant policy.
 * Theory of operation in credit.c. Pure: no kernel call, no lock; the caller
 * holds the connection's lock and, where a pool is passed, the pool's.
 */
#ifndef VTOE_CREDIT_H
#define VTOE_CREDIT_H

#ifndef __KERNEL__
#include <stdbool.h>
#endif
#include "vnet_vtoe.h"

/* Small buffers that a connection can always count on; one where they are scarce. */
#define VTOE_CREDIT_MIN 2
/* Unacknowledged bytes that are worth a message of their own. */
#define VTOE_CREDIT_ACK_BYTES (256u << 10)

/* Receive buffers of one device. */
struct vtoe_pool {
	__u32 total[VNET_RWQ_CLASSES];	  /* posted + held by connections */
	__u32 free[VNET_RWQ_CLASSES];	  /* posted and not granted */
	__u32 reserved[VNET_RWQ_CLASSES]; /* of free, kept for minimums not in use */
	__u32 conns;
	__u32 on_demand; /* of those, without a minimum */
};

/* What one connection was granted. */
struct vtoe_rx_credit {
	__u64 consumed;			  /* stream offset: read by the program */
	__u64 acked;			  /* consumed, as last told to the peer */
	__u64 byte_limit;		  /* as last told; never withdrawn */
	__u32 min;			  /* small buffers kept for it */
	__u32 window;			  /* bytes the receive buffer size allows */
	__u32 limit[VNET_RWQ_CLASSES];	  /* messages granted, as last told; wraps */
	__u32 got[VNET_RWQ_CLASSES];	  /* messages received; wraps */
	__u32 held[VNET_RWQ_CLASSES];	  /* received and not back in the ring */
	__u32 target[VNET_RWQ_CLASSES];	  /* buffers this connection should have */
	__u32 lent;			  /* messages in buffers that are not the ring's */
	bool on_demand;			  /* has no minimum: granted when the peer asks */
	bool want;			  /* the peer has more queued than it may send */
	bool closed;			  /* nothing is granted any more */
};

/* What the peer granted us. */
struct vtoe_tx_credit {
	__u64 una;			  /* first offset the peer's program has not read */
	__u64 byte_limit;
	__u32 limit[VNET_RWQ_CLASSES];
	__u32 sent[VNET_RWQ_CLASSES];
	__u32 buf_size[VNET_RWQ_CLASSES]; /* the peer's */
};

/* ---- receiving side ---- */

/* Buffers came into the ring, beyond those known, or left it for good. */
void vtoe_pool_add(struct vtoe_pool *pool, __u32 class, __u32 count);
/* Takes a connection in; false: the minimum is not there. */
bool vtoe_rx_open(struct vtoe_pool *pool, struct vtoe_rx_credit *rx, __u32 window);
/* No message can come any more: what was granted and not used is free again. */
void vtoe_rx_close(struct vtoe_pool *pool, struct vtoe_rx_credit *rx);
/* A message came; false: it was not granted. */
bool vtoe_rx_got(struct vtoe_pool *pool, struct vtoe_rx_credit *rx, __u32 class,
		 __u64 end);
/* A buffer of the connection is in the ring again. */
void vtoe_rx_reposted(struct vtoe_pool *pool, struct vtoe_rx_credit *rx, __u32 class);
/* How many more messages of a class would be granted now. */
__u32 vtoe_rx_grantable(const struct vtoe_pool *pool,
			const struct vtoe_rx_credit *rx, __u32 class);
/* Is it time to tell the peer? idle: nothing is left to read. */
bool vtoe_rx_due(const struct vtoe_pool *pool, const struct vtoe_rx_credit *rx,
		 bool idle);
/* Its peer wants credit, and there is none: it is granted when buffers come. */
bool vtoe_rx_waits(const struct vtoe_pool *pool, const struct vtoe_rx_credit *rx);
/* Grants what can be and writes it down for the peer. */
void vtoe_rx_grant(struct vtoe_pool *pool, struct vtoe_rx_credit *rx,
		   struct vtoe_credit *out);

/* A buffer of the connection could not be posted: it is not in the pool any more. */
void vtoe_rx_lost(struct vtoe_pool *pool, struct vtoe_rx_credit *rx, __u32 class);

/* ---- sending side ---- */

/* Takes the peer's buffer sizes. False: they are impossible. */
bool vtoe_tx_open(struct vtoe_tx_credit *tx, const __le32 *buf_size);
/* Takes the peer's update, nxt: our next offset. False: it is impossible. */
bool vtoe_tx_update(struct vtoe_tx_credit *tx, const struct vtoe_credit *in,
		    __u64 nxt);
/*
 * How many of len bytes at nxt may go as one message now, and of which class.
 * 0: none. A long message goes as a short one where only that is granted.
 */
__u32 vtoe_tx_may_send(const struct vtoe_tx_credit *tx, __u64 nxt, __u32 len,
		       __u32 *class);

#endif /* VTOE_CREDIT_H */
