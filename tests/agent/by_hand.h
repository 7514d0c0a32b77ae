/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A peer's agent played by a test: control channel and lanes to agent 0 of a
 * bed, spoken word by word, from 127.0.0.3.
 */
#ifndef AGENT_BY_HAND_H
#define AGENT_BY_HAND_H

#include "bed.h"
#include "tls.h"

struct by_hand {
	int fd;
	struct iba_tls_ctx *ctx;
	struct iba_tls *tls;
};

struct lane_by_hand {
	struct by_hand control;
	struct vnet_peer_lane_answer answer;
	int fd;
};

/* The bed, and its key as bytes. */
void hand_init(struct bed *bed);
extern uint8_t hand_key[IBA_KEY_LEN];
extern bool small_buffer; /* of the next sockets: they are full soon */

int tcp_connect(unsigned int host, uint16_t port, unsigned int from);
bool ends(int fd);
bool hand_shake(struct by_hand *p, const uint8_t key[IBA_KEY_LEN]);
void hand_end(struct by_hand *p);
void hand_send(struct by_hand *p, unsigned int type, const void *body,
		      uint32_t len);
bool hand_read(struct by_hand *p, void *buf, size_t len);
bool hand_receive(struct by_hand *p, unsigned int type, void *body,
			 uint32_t len);
bool hand_hello(struct by_hand *p, const char *host, unsigned int version);
uint32_t hand_ask(struct by_hand *p, uint32_t tenant,
			 struct vnet_peer_lane_answer *answer);
void lane_ask(struct lane_by_hand *l);
uint32_t lane_greet(struct lane_by_hand *l, uint32_t tenant,
			   unsigned int version, unsigned int from);
void lane_end(struct lane_by_hand *l);
void make_req(struct vtoe_msg_hdr *hdr, struct vnet_lane_req *req);
void lane_send(struct lane_by_hand *l, const void *hdr, const void *body,
		      size_t len);
uint32_t lane_rejected(struct lane_by_hand *l, unsigned int type);
void open_lane(struct lane_by_hand *l);
/* A connection from a new hand-made lane to a guest. Its CID at the agent. */
uint32_t open_conn(struct lane_by_hand *l, struct guest *g, uint32_t sid,
			  const struct vtoe_credit *grant,
			  const struct vtoe_credit *ours);
/* Another one on that lane; ours has this CID, the first has 0x1234. */
uint32_t open_another(struct lane_by_hand *l, struct guest *g, uint32_t cid,
		      uint32_t sid, const struct vtoe_credit *grant,
		      const struct vtoe_credit *ours);
bool lane_read(struct lane_by_hand *l, void *buf, size_t len);

#endif /* AGENT_BY_HAND_H */
