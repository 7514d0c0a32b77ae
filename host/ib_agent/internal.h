/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Between the agent's main process and the data-plane process of one tenant:
 * fixed-size messages over an AF_UNIX SOCK_SEQPACKET pair.
 *
 *  main                                   tenant's process
 *  ATTACH (seq of HELLO) + 1 fd -------->  a shim's connection, HELLO read
 *  <------------------------- LANE_ASK     a lane to this agent, please
 *  LANE_ANSWER -------------------------->  token and address, or why not
 *  TOKEN_ASK ---------------------------->  a peer host asks for a lane
 *  <--------------------- TOKEN_ANSWER
 *  <----------------------------- IDLE     no VM for a while (attaches: how
 *                                          many ATTACH were seen, so that main
 *                                          notices one that crossed this)
 *  STATS -------------------------------->  print counters
 *
 * Threat model. A tenant's process eats its guests' bytes and may have been
 * taken over by one; main holds the key. So main takes the tenant's number
 * from its own table, never from a message, and checks length, type and seq;
 * what a tenant's process can obtain is lanes of that very tenant.
 */
#ifndef IBA_INTERNAL_H
#define IBA_INTERNAL_H

#include <stdint.h>
#include <sys/socket.h>

#include "vnet_attach.h"
#include "vnet_peer.h"

enum iba_ctl_type {
	IBA_CTL_ATTACH = 1,
	IBA_CTL_LANE_ASK,
	IBA_CTL_LANE_ANSWER,
	IBA_CTL_TOKEN_ASK,
	IBA_CTL_TOKEN_ANSWER,
	IBA_CTL_IDLE,
	IBA_CTL_STATS,
};

/* What kind of lane; "local" is the side that asks. */
struct iba_lane_want {
	uint16_t fabric;
	uint8_t local_mac[VNET_MAC_LEN]; /* of the VMs it joins: fabric verbs */
	uint8_t remote_mac[VNET_MAC_LEN];
	struct vtoe_addr from; /* the RDMA port that asks: fabric verbs */
};

struct iba_ctl {
	uint32_t type; /* enum iba_ctl_type */
	uint32_t seq;  /* of the request; an answer repeats it */
	union {
		struct vnet_attach_hello attach;
		struct {
			struct vtoe_addr agent;
			struct iba_lane_want want;
		} lane_ask;
		struct vnet_peer_lane_answer answer; /* LANE_ANSWER, TOKEN_ANSWER */
		struct {
			struct sockaddr_storage source; /* the peer's main process */
			struct iba_lane_want want;
		} token_ask;
		struct {
			uint32_t attaches;
		} idle;
	} u;
};

/* Data-plane process: does not return to its caller's loop; an exit status. */
struct iba_config;
int iba_tenant_main(const struct iba_config *cfg, uint32_t tenant, int ctl_fd);

/*
 * In main, before its sandbox: what libibverbs loads, and the limit on locked
 * memory; both pass on to the tenants' processes.
 */
void iba_verbs_prepare(const struct iba_config *cfg);

#endif /* IBA_INTERNAL_H */
