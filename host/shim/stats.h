/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Counters of one shim. Every frame that is not forwarded is counted under the
 * reason; SIGUSR1 writes all of them to the log as one line of JSON.
 */
#ifndef SHIM_STATS_H
#define SHIM_STATS_H

#include <stdint.h>

/* X(name): tx is from the guest to the links, rx the other way. */
#define SHIM_COUNTERS(X)                                                        \
	X(tx_trains)		   /* chains forwarded to at least one link */  \
	X(tx_bytes)		   /* encapsulation and frames of those */      \
	X(tx_sends)		   /* sendmsg() calls */                        \
	X(tx_datagrams)                                                         \
	X(tx_drop_malformed)	   /* train header, lengths, metadata */        \
	X(tx_drop_encap)	   /* not the encapsulation of this VM */       \
	X(tx_drop_source)	   /* source MAC is not this VM's */            \
	X(tx_drop_self)		   /* destination MAC is this VM's */           \
	X(tx_drop_no_route)                                                     \
	X(tx_drop_form)		   /* needs offloads that the link cannot do */ \
	X(tx_drop_mtu)		   /* larger than the link's path MTU */        \
	X(tx_drop_full)		   /* socket buffer full */                     \
	X(tx_drop_error)	   /* any other error of sendmsg() */           \
	X(rx_trains)		   /* frames delivered to the guest */          \
	X(rx_bytes)                                                             \
	X(rx_recvs)		   /* recvmsg() calls that returned data */     \
	X(rx_datagrams)                                                         \
	X(rx_direct)		   /* delivered where recvmsg() put them */     \
	X(rx_copied)		   /* delivered by copying */                   \
	X(rx_starved)		   /* waited for the guest to post buffers */   \
	X(rx_drop_unknown_source)  /* sender is no link's remote */             \
	X(rx_drop_malformed)	   /* segment header, lengths, metadata */      \
	X(rx_drop_encap)	   /* version or type of encapsulation */       \
	X(rx_drop_tenant)	   /* VNI of another tenant */                  \
	X(rx_drop_not_ours)	   /* destination MAC is another VM's */        \
	X(rx_drop_source)	   /* source MAC is this VM's own */            \
	X(rx_drop_offload)	   /* driver did not accept such frames */      \
	X(rx_drop_timeout)	   /* train incomplete after its time */        \
	X(rx_drop_table_full)	   /* too many trains in reassembly */          \
	X(rx_drop_no_buffer)	   /* guest posted too little for too long */   \
	X(rx_drop_truncated)	   /* larger than any datagram can be */        \
	X(rx_drop_no_driver)	   /* no driver serves the rx queue */          \
	X(ctrl_commands)                                                        \
	X(ctrl_errors)                                                          \
	X(front_sessions)	   /* connections of a front end */             \
	X(front_errors)		   /* sessions ended by a malformed message */  \
	X(front_memory_refused)	   /* memory there was no room for */           \
	X(queues_broken)                                                        \
	X(config_changes)	   /* generations of the vendor block */        \
	X(hello_answers)	   /* in band: HELLO answered */                \
	X(hello_refusals)	   /* HELLO refused */                          \
	X(hello_goodbyes)                                                       \
	X(hello_malformed)	   /* neither, or not what was due */           \
	X(hello_changes)	   /* CHANGE delivered */                       \
	X(hello_asks)		   /* ASK delivered: the driver was not known */ \
	X(agent_attaches)                                                       \
	X(agent_losses)

struct shim_stats {
#define X(name) uint64_t name;
	SHIM_COUNTERS(X)
#undef X
};

struct shim;

/* Logs all counters, those of links and queues too, as one line of JSON. */
void shim_stats_dump(const struct shim *shim);

#endif /* SHIM_STATS_H */
