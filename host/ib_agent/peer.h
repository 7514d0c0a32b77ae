/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A control channel to another host's agent: peer.c keeps it, peer_msg.c speaks
 * on it.
 */
#ifndef IBA_PEER_H
#define IBA_PEER_H

#include "conf.h"
#include "control.h"
#include "tls.h"

#define IBA_PEER_BODY_MAX sizeof(struct vnet_peer_lane_answer)

enum iba_peer_state { PEER_CONNECTING, PEER_HANDSHAKE, PEER_HELLO, PEER_UP };

struct iba_question {
	struct iba_ask ask;
	uint32_t seq; /* on the channel */
	bool sent;
	uint64_t deadline_us;
	TAILQ_ENTRY(iba_question) link;
};

struct iba_peer {
	struct iba_control *c;
	uint64_t id;
	enum iba_peer_state state;
	bool ours; /* we connected */
	struct sockaddr_storage addr;
	char name[SOCKADDR_STRLEN + VNET_NAME_LEN]; /* address, then host too */
	int fd;
	struct loop_fd *source;
	struct iba_tls *tls;
	uint64_t deadline_us; /* until UP */
	uint64_t heard_us, pinged_us;
	uint32_t seq;
	TAILQ_HEAD(, iba_question) questions; /* ours to it */
	unsigned int question_count;
	unsigned int asked; /* its to us, with a tenant's process now */
	uint8_t rx[sizeof(struct vnet_peer_hdr) + IBA_PEER_BODY_MAX];
	uint32_t rx_len;
	uint8_t *tx;
	uint32_t tx_len, tx_room;
	bool dead;
	TAILQ_ENTRY(iba_peer) link;
};

#define FROM_EITHER 0
#define FROM_ASKER 1	/* only on channels that the peer made */
#define FROM_ANSWERER 2 /* only on those that we made */

/* What a message of one type must be. */
struct iba_peer_row {
	uint32_t len; /* of the body */
	enum iba_peer_state state;
	int from;
	void (*fn)(struct iba_peer *peer, uint32_t seq, const void *body);
};

/* ---- peer.c ---- */

/* NULL, and logged, if there can be none. */
struct iba_peer *iba_peer_connect(struct iba_control *c,
				  const struct sockaddr_storage *addr);
void iba_peer_send(struct iba_peer *peer, enum vnet_peer_type type, uint32_t seq,
		   const void *body, uint32_t len);
/*
 * Ends the channel; its memory goes with the next tick, since callers are in
 * the middle of it.
 */
void iba_peer_end(struct iba_peer *peer, enum vtoe_reason reason,
		  const char *why);

/* ---- peer_msg.c ---- */

void iba_peer_hello(struct iba_peer *peer);
/* NULL: this header may not come now. */
const struct iba_peer_row *iba_peer_row(const struct iba_peer *peer,
					const struct vnet_peer_hdr *hdr);
void iba_peer_answer_question(struct iba_peer *peer, struct iba_question *q,
			      const struct vnet_peer_lane_answer *answer);

#endif /* IBA_PEER_H */
