/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside of the spike's agent: rings and credit (agent.c), queue pairs and
 * their connection manager (lane.c). One thread owns all of it.
 */
#ifndef SPIKE_AGENT_H
#define SPIKE_AGENT_H

#include <infiniband/verbs.h>
#include <pthread.h>
#include <rdma/rdma_cma.h>

#include "spike.h"
#include "virtq.h"
#include "vnet_peer.h"
#include "vtoe_states.h"

/*
 * A lane has a queue pair per class, bound to the shared receive queue of that
 * class, and one for control messages with receive buffers of the agent's own:
 * a SEND always uses up a receive buffer, and a guest's are spoken for.
 */
enum lane_kind {
	KIND_SMALL = VNET_LANE_QP_SMALL,
	KIND_LARGE = VNET_LANE_QP_LARGE,
	KIND_CTRL = VNET_LANE_QP_CONTROL,
	KINDS,
};
_Static_assert(VNET_LANE_QP_SMALL == VNET_RWQ_SMALL && VNET_LANE_QP_LARGE == VNET_RWQ_LARGE,
	       "a queue pair's kind is its class");

#define CTRL_BUFS 16
#define RWQ_NUM_MAX 512
#define SWQ_NUM_MAX 256

/* A control message: the common header and, for a reset, what was sent in all. */
struct ctrl_msg {
	struct vtoe_msg_hdr hdr;
	struct {
		__le32 reason;
		__le32 reserved;
		__le32 sent[VNET_RWQ_CLASSES];
	} rst;
};
VNET_ASSERT_SIZE(ctrl_msg, 64);

struct lane {
	unsigned int number;
	struct lane_port {
		struct lane *lane;
		struct rdma_cm_id *id;
		enum lane_kind kind;
		bool up, down, last_wqe;
	} port[KINDS];
	/* Control messages in all, wrapping: how many the peer can take, ... */
	uint32_t ctrl_limit;
	uint32_t ctrl_sent;
	uint32_t ctrl_granted; /* ... we can take, and what the peer knows of it */
	uint32_t ctrl_told;
	struct ctrl_msg *ctrl_rx; /* CTRL_BUFS */
};

struct conn {
	unsigned int number;
	uint32_t sid, cid, peer_cid;
	struct lane *lane;
	enum vtoe_conn_state state;
	/* What the peer granted us, and what we used of it. */
	struct vtoe_credit peer;
	uint32_t sent[VNET_RWQ_CLASSES];
	/* What our guest granted, what of it the peer was told, and what was used. */
	struct vtoe_credit wanted, granted;
	uint32_t received[VNET_RWQ_CLASSES];
	uint64_t received_bytes;
	/* After a reset: how many messages the peer had sent in all. */
	bool peer_reset;
	uint32_t peer_sent[VNET_RWQ_CLASSES];
	uint64_t final_offset, peer_final;
	enum vtoe_reason reason;
	bool credit_pending, fin_pending, rst_pending; /* control messages to send */
	double rst_after;			       /* not before */
	bool ev_credit, ev_fin, ev_reset;	       /* events to deliver */
};

/* A chain that a queue pair works on. */
struct slot {
	bool busy;
	uint16_t head;
	uint32_t total;
	struct vtoe_msg_hdr *hdr; /* registered, ours: what counts is never re-read from the guest */
	unsigned int hdr_iovs;
	struct iovec hdr_iov[SEGS_MAX]; /* where the guest wants the header */
};

struct agent {
	struct agent_config cfg;
	struct agent_stats stats;
	pthread_t thread;
	int order_fd[2]; /* [0] ours */
	bool stop, sink;
	char failure[160];
	const char *failed; /* set once failure is written */

	struct guest_mem mem;
	struct virtq vq[Q_COUNT];
	struct virtq_chain chain; /* the one looked at */
	struct slot rx[VNET_RWQ_CLASSES][RWQ_NUM_MAX];
	struct slot tx[SWQ_NUM_MAX];
	void *own; /* the agent's registered memory: headers, control buffers */
	size_t own_used;

	struct ibv_context *verbs;
	struct ibv_pd *pd;
	struct ibv_mr *guest_mr, *own_mr;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct ibv_srq *srq[VNET_RWQ_CLASSES];
	struct rdma_event_channel *cm;
	struct rdma_cm_id *listen_id, *bad_id;
	bool refused;
	struct lane lane[N_LANES];

	struct conn conn[N_CONNS];
	/* Per class: buffers posted and not used yet; what live connections of
	 * our guest want of them; what any connection may still send us. */
	uint32_t avail[VNET_RWQ_CLASSES];
	uint32_t wanted[VNET_RWQ_CLASSES];
	uint32_t outstanding[VNET_RWQ_CLASSES];

	uint32_t blast_ok; /* order BLAST */
	enum ibv_wc_status blast_status;
};

#define WR_KIND_SHIFT 32
enum wr_kind { WR_RX = 1, WR_TX, WR_CTRL_RX, WR_CTRL_TX, WR_BLAST };
#define WR_ID(kind, a, b) ((uint64_t)(kind) << WR_KIND_SHIFT | (uint64_t)(a) << 16 | (b))

/* The first failure is kept: it ends the scene that waits. */
void agent_fail(struct agent *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void *agent_own_alloc(struct agent *a, size_t size);

/* lane.c */
int lanes_open(struct agent *a);
int lanes_connect(struct agent *a);
bool lanes_up(const struct agent *a);
void lanes_poll_cm(struct agent *a);
void lanes_poll_async(struct agent *a);
int lane_post_ctrl_rx(struct agent *a, struct lane *lane, unsigned int index);
/* -EAGAIN: the peer has no buffer left. */
int lane_send_ctrl(struct agent *a, struct lane *lane, struct ctrl_msg *msg);
void lane_told(struct lane *lane, uint32_t limit);
void lanes_disconnect(struct agent *a);
/* All are disconnected and, unless without_event, LAST_WQE_REACHED has come. */
bool lanes_drained(const struct agent *a, bool without_event);
const char *lanes_close(struct agent *a);

#endif /* SPIKE_AGENT_H */
