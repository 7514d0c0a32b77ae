/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A stranger who asks an agent for queue pairs, by the connection manager. */
#ifndef RDMA_CM_BY_HAND_H
#define RDMA_CM_BY_HAND_H

#include "hosts.h"

/* Where the agent takes lanes, as its log says; 0: it does not. */
uint16_t cm_port_in_log(const struct test_agent *agent);
/*
 * From host number `from` to `to` of agent_net(). The reason by which it is
 * refused, 0 if it is accepted, -1 for any other end.
 */
int cm_request(unsigned int from, unsigned int to, uint16_t port,
	       const void *data, uint8_t len);

#endif /* RDMA_CM_BY_HAND_H */
