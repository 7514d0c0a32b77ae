/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A lane: one TCP connection between the processes that serve one tenant on two
 * hosts. lane.c ends it, lane_open.c makes it, fabric_tcp.c sends and
 * lane_rx.c receives.
 */
#ifndef IBA_LANE_H
#define IBA_LANE_H

#include "agent.h"
#include "conf.h"

/*
 * X(NAME, "name")
 */
#define IBA_LANE_STATES(X)                                                  \
	X(ASKED, "asked")	    /* main asks the peer's main for a token */ \
	X(CONNECTING, "connecting") /* TCP */                               \
	X(GREETING, "greeting")	    /* hello sent, the reply is awaited */  \
	X(ACCEPTED, "accepted")	    /* passive: the hello is awaited */     \
	X(UP, "up")                                                         \
	X(FAILED, "failed")	    /* active: not tried again for a while */ \
	X(DEAD, "dead")		    /* to be freed at the end of the pass */

enum iba_lane_state {
#define X(name, str) IBA_LANE_##name,
	IBA_LANE_STATES(X)
#undef X
};

#define IBA_LANE_BODY_MAX sizeof(struct vnet_lane_req)
#define IBA_STAGE_SIZE (16u << 10)

/* A message to be sent. The payload of DATA is in the slot. */
struct iba_tx_entry {
	struct vtoe_msg_hdr hdr;
	uint8_t body[IBA_LANE_BODY_MAX];
	uint16_t head_len; /* of hdr and body; 0: cancelled */
	bool counted;	   /* among tx.answers */
	struct iba_slot *slot;
	struct iba_vm *vm; /* for whom; NULL: nobody's, or it has left */
};
_Static_assert(offsetof(struct iba_tx_entry, body) ==
		       sizeof(struct vtoe_msg_hdr), "sent as one piece");

struct iba_lane_tx {
	struct iba_tx_entry *ring; /* size is a power of two */
	uint32_t size, first, count;
	uint32_t offset; /* bytes of the first that are sent */
	uint32_t answers; /* REP, REJ and RST among them that the peer provoked */
	bool blocked; /* the socket is full */
	const char *failed; /* why the lane must end; NULL: all is well */
};

struct iba_lane_rx {
	uint8_t *stage; /* bytes [start, end) are received, not yet parsed */
	uint32_t start, end;
	uint32_t len;  /* payload of the DATA being received */
	uint32_t left; /* of that, not yet received */
	bool large;    /* it was: expect more of them */
	/* where it goes; vm NULL: nowhere */
	struct iba_vm *vm;
	unsigned int class, iov_at;
	struct virtq_chain chain;
};

struct iba_lane_stats {
	uint64_t tx_msgs, tx_bytes, tx_calls, tx_blocked;
	uint64_t rx_msgs, rx_bytes, rx_calls, rx_staged; /* staged: copied twice */
};

struct iba_lane {
	struct iba_tenant *tenant;
	uint8_t state; /* enum iba_lane_state */
	bool active;   /* we asked for it */
	bool dirty;    /* on tenant->dirty_lanes */
	uint32_t events;
	struct vtoe_addr agent; /* active: whose */
	uint32_t ask_seq;
	uint8_t token[VNET_TOKEN_LEN];
	uint64_t deadline_us; /* of making it, or of FAILED */
	enum vtoe_reason reason; /* FAILED */
	int fd;
	struct loop_fd *source;
	struct sockaddr_storage peer;
	char name[SOCKADDR_STRLEN];
	struct iba_conn_list conns, credits;
	struct iba_lane_tx tx;
	struct iba_lane_rx rx;
	struct iba_lane_stats stats;
	TAILQ_ENTRY(iba_lane) link, dirty_link, dead_link;
};

/* ---- lane.c ---- */

const char *iba_lane_state_name(unsigned int state);
struct iba_lane *iba_lane_create(struct iba_tenant *t, enum iba_lane_state state);
/* Unlinks it; nobody is on it any more. */
void iba_lane_kill(struct iba_lane *lane);
void iba_lane_join(struct iba_lane *lane, struct iba_conn *conn);
void iba_lane_leave(struct iba_conn *conn);
/* Ends it; every connection on it hears reason. */
void iba_lane_end(struct iba_lane *lane, enum vtoe_reason reason,
		  const char *why);
void iba_lane_watch(struct iba_lane *lane, uint32_t events);

/* ---- lane_open.c ---- */

/* The lane for an active open: as iba_fabric.get_path. */
int iba_lane_get(struct iba_conn *conn, const struct vtoe_addr *agent,
		 enum vtoe_reason *reason);

/* ---- fabric_tcp.c ---- */

void iba_tcp_run(struct iba_lane *lane, uint32_t events);
/* Gives back every slot and receive buffer that the lane holds. */
void iba_tcp_release(struct iba_lane *lane);
/* Answers a REQ that has no connection. */
void iba_tcp_reject(struct iba_lane *lane, uint32_t cid, enum vtoe_reason reason);

/* ---- lane_rx.c ---- */

void iba_lane_receive(struct iba_lane *lane);
/* Gives up the receive buffer of a message that has come in part. */
void iba_lane_rx_abandon(struct iba_lane *lane);
/* The rest of such a message is received into memory of our own. */
void iba_lane_rx_hold(struct iba_lane *lane);

#endif /* IBA_LANE_H */
