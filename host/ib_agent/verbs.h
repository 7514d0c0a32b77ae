/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fabric `verbs`: connections over reliable connected (RC) queue pairs that the
 * RDMA connection manager sets up. Beside the agent's other fabrics this is the
 * one place that knows of <infiniband/verbs.h>.
 *
 * Objects, and the file that owns each:
 *
 *   iba_verbs   a tenant's all (verbs_dev.c)
 *    ├─ iba_vport  an address of ours: where lanes come in and start
 *    ├─ iba_vdev   an open device: protection domain, completion queue (CQ)
 *    ├─ iba_vvm    a VM on a device: its registered memory, a shared receive
 *    │             queue (SRQ) a class, what is promised of them (verbs_mem.c);
 *    │             what the other fabrics need of it (verbs_loop.c)
 *    └─ iba_vlane  three queue pairs between two VMs (verbs_open.c, verbs_cm.c,
 *        │          verbs_lane.c); what the peer writes into (verbs_ring.c)
 *        └─ iba_vpath  a connection's half on its lane; may outlive it
 *
 * Messages go out by fabric_verbs.c (DATA) and verbs_ctrl.c (all others), and
 * come in by verbs_rx.c.
 */
#ifndef IBA_VERBS_H
#define IBA_VERBS_H

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include "agent.h"
#include "conf.h"

#define IBA_V_CONTROL VNET_LANE_QP_CONTROL
#define IBA_V_KINDS (VNET_LANE_QP_CONTROL + 1)
_Static_assert(VNET_LANE_QP_SMALL == VNET_RWQ_SMALL &&
		       VNET_LANE_QP_LARGE == VNET_RWQ_LARGE,
	       "a queue pair's kind is its class");

#define IBA_V_SGE_MAX 24 /* with the agent's header in front */
#define IBA_V_HDR_PIECES 4 /* that a guest may cut the header of a buffer into */
#define IBA_V_CTRL_RX 128 /* control messages that a lane can take at once */
#define IBA_V_CTRL_TX 64  /* and have under way */
#define IBA_V_EARLY 32	  /* inline SENDs of a queue pair whose slots are free again */
#define IBA_V_CTRL_MAX (sizeof(struct vtoe_msg_hdr) + sizeof(struct vnet_lane_req))
#define IBA_V_INLINE 256u /* wanted; devices give less, or more */
#define IBA_V_BUCKETS 256u
#define IBA_V_WC 32 /* completions taken at once */
#define IBA_V_VMS_MAX 256u
#define IBA_V_PORT_TRIES 32 /* local ports, until one is free */

/* What the channel will tell of. */
enum iba_varmed { IBA_V_NOTHING, IBA_V_MESSAGES, IBA_V_COMPLETIONS };

struct iba_vdev {
	struct iba_verbs *v;
	struct ibv_context *ctx; /* librdmacm's */
	struct ibv_pd *pd;
	struct ibv_comp_channel *channel;
	struct ibv_cq *cq;
	struct loop_fd *channel_source, *async_source;
	struct ibv_device_attr attr;
	bool immediates; /* it has them: not iWARP */
	uint32_t cqe_needed;
	struct ibv_wc wc[IBA_V_WC]; /* taken, not handled yet */
	unsigned int wc_next, wc_count;
	enum iba_varmed armed;
	uint32_t awaited;  /* SENDs that have a guest's buffers */
	uint32_t lanes_short; /* that wait for one of their IBA_V_CTRL_TX */
	bool dying, dead;
	LIST_HEAD(, iba_vqp) qp[IBA_V_BUCKETS]; /* by number */
	LIST_ENTRY(iba_vdev) link;
};

struct iba_vport {
	struct sockaddr_storage addr; /* with the port that we got */
	unsigned int prefix;	      /* bits of it that all on its link have */
	struct rdma_cm_id *listen;    /* NULL: the device is gone */
	struct iba_vdev *dev;
	int gid_index; /* of it there; -1: it has none (InfiniBand without GRH) */
};

/*
 * X(NAME, "name")
 */
#define IBA_VLANE_STATES(X)                                                    \
	X(ASKED, "asked")	    /* main asks the peer's main for a token */    \
	X(CONNECTING, "connecting") /* the connection manager is at work */       \
	X(ACCEPTING, "accepting")   /* passive: not all queue pairs have come */   \
	X(UP, "up")                                                            \
	X(CLOSING, "closing")	    /* no VM any more: last words */              \
	X(DRAINING, "draining")	    /* disconnected: LAST_WQE_REACHED is awaited */ \
	X(FAILED, "failed")	    /* active: not tried again for a while */     \
	X(DEAD, "dead")		    /* to be freed at the end of the pass */

enum iba_vlane_state {
#define X(name, str) IBA_VLANE_##name,
	IBA_VLANE_STATES(X)
#undef X
};

struct iba_vqp {
	struct iba_vlane *lane;
	uint8_t kind; /* VNET_LANE_QP_* */
	bool established, hashed;
	bool last_wqe; /* nothing of the SRQ will complete on it any more */
	uint8_t port_tries; /* of IBA_V_PORT_TRIES, that were taken */
	uint16_t early; /* SENDs under way whose slots are free again */
	struct rdma_cm_id *id;
	uint32_t number;
	LIST_ENTRY(iba_vqp) link;
};

struct iba_vctrl { /* a control message that waits */
	struct vtoe_msg_hdr hdr;
	uint8_t body[IBA_V_CTRL_MAX - sizeof(struct vtoe_msg_hdr)];
	uint32_t len;
};
_Static_assert(offsetof(struct iba_vctrl, body) == sizeof(struct vtoe_msg_hdr),
	       "sent as one piece");

struct iba_wring { /* ours, of a class; mem NULL: there is none */
	uint8_t *mem;
	struct ibv_mr *mr;
	uint32_t slots, slot_size; /* bytes */
	uint32_t next; /* that will be written */
};

struct iba_wring_peer { /* slots 0, slot_size 0: none was offered */
	uint64_t addr;
	uint32_t rkey, slots, slot_size;
	uint32_t next; /* to be written */
};

struct iba_vlane_stats {
	uint64_t tx_msgs, tx_bytes, tx_inline, tx_inline_bytes;
	uint64_t tx_writes; /* of tx_msgs, by WRITE */
	uint64_t rx_msgs, rx_bytes, rx_early, rx_recycled;
	uint64_t rx_writes, rx_copied_bytes; /* out of our ring */
	uint64_t ctrl_tx, ctrl_rx, ctrl_waits, nops;
};

TAILQ_HEAD(iba_vpath_list, iba_vpath);

struct iba_vlane {
	struct iba_verbs *v;
	struct iba_vport *port;
	struct iba_vdev *dev;
	struct iba_vvm *vvm; /* NULL: the VM has left */
	uint8_t state; /* enum iba_vlane_state */
	bool active, dirty;
	bool on_srqs; /* counted in vvm->lanes */
	bool ring_due, ring_said; /* the peer owes us a RING; we have said ours */
	bool ctrl_short; /* counted in dev->lanes_short */
	uint16_t early_max; /* IBA_V_EARLY, or what the device has room for */
	const char *failed; /* ends when the pass flushes it */
	enum vtoe_reason reason, failed_reason;
	struct vtoe_addr agent; /* active: whose */
	uint32_t ask_seq;
	uint8_t token[VNET_TOKEN_LEN];
	uint8_t local_mac[VNET_MAC_LEN], remote_mac[VNET_MAC_LEN];
	struct sockaddr_storage peer; /* passive: who asked */
	uint64_t deadline_us; /* of what the state waits for */
	uint64_t heard_us, said_us; /* UP */
	char name[SOCKADDR_STRLEN + 32];
	struct iba_vqp qp[IBA_V_KINDS];
	uint32_t inline_max;
	struct iba_vpath_list path[IBA_V_BUCKETS]; /* by CID */
	unsigned int path_count;
	struct iba_vpath_list credits; /* that have a CREDIT to say */
	struct iba_vpath_list leaving; /* without a connection, oldest first */
	/* control messages in all, wrapping: how many the peer can take, ... */
	uint32_t ctrl_limit, ctrl_sent;
	uint32_t ctrl_granted, ctrl_told; /* we can, and the peer knows */
	uint8_t *ctrl_mem; /* registered: CTRL_RX buffers, then CTRL_TX */
	struct ibv_mr *ctrl_mr;
	uint32_t tx_pending; /* control SENDs that have not completed */
	uint32_t tx_next;    /* slot of the next; they complete in order */
	struct iba_vctrl *fifo; /* size is a power of two */
	uint32_t fifo_size, fifo_first, fifo_count;
	struct iba_wring in_ring[VNET_RWQ_CLASSES];
	struct iba_wring_peer out_ring[VNET_RWQ_CLASSES];
	struct iba_vlane_stats stats;
	TAILQ_ENTRY(iba_vlane) link, dirty_link, dead_link;
};

/*
 * A connection on its lane. It stays, without the connection, while messages
 * that the peer was granted may still be on their way.
 */
struct iba_vpath {
	struct iba_vlane *lane;
	struct iba_conn *conn; /* NULL: it has left */
	uint32_t cid, peer_cid;
	bool peer_known;    /* peer_cid is */
	bool rst_sent;
	bool counted;	    /* an RST has come: peer_sent is known */
	bool rx_complete;   /* its FIN has come, and all before it */
	bool fin_held;	    /* fin has overtaken data */
	bool credit_queued; /* on lane->credits */
	bool tx_want;	    /* that CREDIT wants some */
	bool credit_owed;   /* one was due before there was a peer to tell */
	bool starved;	    /* on vvm->starved */
	uint64_t dry_us;    /* starved: since when its peer cannot send; 0: it can */
	uint64_t deadline_us; /* conn NULL: of the answer to its RST */
	uint32_t granted[VNET_RWQ_CLASSES];  /* what the peer was told, in all */
	uint32_t received[VNET_RWQ_CLASSES]; /* of that */
	uint32_t sent[VNET_RWQ_CLASSES];     /* to the peer */
	uint32_t peer_sent[VNET_RWQ_CLASSES];
	struct vtoe_msg_hdr fin;
	/* DATA that has overtaken the REP */
	struct iba_vrx *early_first, **early_last;
	TAILQ_ENTRY(iba_vpath) link, credit_link, starved_link, leave_link;
};

/* A receive buffer of the guest's. One per descriptor head. */
struct iba_vrx {
	uint16_t head;
	uint8_t class;
	bool posted; /* on the SRQ, or early */
	uint8_t hdr_count, sge_count;
	uint32_t room;
	struct iovec hdr_iov[IBA_V_HDR_PIECES]; /* where the guest's header goes */
	struct vtoe_msg_hdr *hdr; /* ours, where it lands */
	struct ibv_sge *sge;
	struct iba_vrx *next; /* early */
};

struct iba_vvm {
	struct iba_vm *vm;
	struct iba_vdev *dev;
	struct iba_vvm *next; /* of the VM */
	uint32_t number;
	struct ibv_mr *mr[GUEST_MEM_REGIONS_MAX];
	unsigned int mr_count;
	void *own; /* the agent's headers, registered */
	struct ibv_mr *own_mr;
	struct vtoe_msg_hdr *tx_hdr; /* one per descriptor head of the SWQ */
	struct iba_vlane **tx_lane; /* whose SEND or WRITE has not completed; NULL: none */
	uint16_t tx_num;
	struct ibv_srq *srq[VNET_RWQ_CLASSES];
	struct iba_vrx *rx[VNET_RWQ_CLASSES];
	struct ibv_sge *rx_sge;
	uint16_t rx_num[VNET_RWQ_CLASSES];
	uint32_t cqe;
	/*
	 * Of each class: buffers on the SRQ; messages that peers may still
	 * send; those of them whose connection has left; buffers that a broken
	 * queue pair may have kept.
	 */
	uint32_t posted[VNET_RWQ_CLASSES], promised[VNET_RWQ_CLASSES];
	uint32_t ghosts[VNET_RWQ_CLASSES], suspect[VNET_RWQ_CLASSES];
	/* queue pairs to themselves, and what they were sent (verbs_loop.c) */
	struct ibv_qp *loop[VNET_RWQ_CLASSES];
	uint32_t loop_pending[VNET_RWQ_CLASSES];
	bool loop_broken[VNET_RWQ_CLASSES];
	uint64_t loop_rest_us; /* no waiting before that */
	bool robbed; /* buffers are missed that only broken queue pairs can have */
	unsigned int lanes; /* with queue pairs on these SRQs */
	struct iba_vpath_list starved; /* a grant waits for buffers */
	uint64_t grants_deferred;
};

struct iba_verbs {
	struct iba_tenant *t;
	struct rdma_event_channel *cm;
	struct loop_fd *cm_source;
	struct iba_vport port[IBA_RDMA_MAX];
	unsigned int port_count, port_next;
	LIST_HEAD(, iba_vdev) devs;
	struct iba_vvm *vvm[IBA_V_VMS_MAX];
	uint32_t vvm_generation;
	TAILQ_HEAD(, iba_vlane) lanes, dirty_lanes, dead_lanes;
	unsigned int lane_count, lanes_accepting;
	struct log_ratelimit log;
	uint64_t memlock; /* RLIMIT_MEMLOCK, which the sandbox does not let us ask */
	uint64_t refused; /* requests for queue pairs */
	size_t ring_bytes; /* of all rings that peers may write into */
};

/* ---- work request ids ---- */

enum iba_v_work { IBA_V_RX = 1, IBA_V_TX, IBA_V_TX_EARLY, IBA_V_CTRL_RX_WORK,
		  IBA_V_CTRL_TX_WORK, IBA_V_LOOP, IBA_V_WRITE /* a SEND follows */ };

static inline uint64_t iba_v_id(enum iba_v_work work, unsigned int class,
				uint16_t head, uint32_t vvm)
{
	return (uint64_t)work << 56 | (uint64_t)class << 48 |
	       (uint64_t)head << 32 | vvm;
}

/* ---- verbs_dev.c ---- */

/* 0, or -errno: the device cannot have n more completions under way. */
int iba_vdev_reserve(struct iba_vdev *dev, uint32_t n);
void iba_vdev_release(struct iba_vdev *dev, uint32_t n);
/* Work requests that n messages may take. */
uint32_t iba_vdev_sends(const struct iba_vdev *dev, uint32_t n);
/* Completions of a lane beside those of its VMs' chains. */
uint32_t iba_vlane_cqes(const struct iba_vlane *lane);
struct iba_vqp *iba_vdev_qp(struct iba_vdev *dev, uint32_t number);
void iba_vdev_dead(struct iba_vdev *dev, const char *why);
/* One whose device lives, in turn; NULL: there is none. */
struct iba_vport *iba_vport_next(struct iba_verbs *v);
/* The same, of those on whose link `to` is; if there is none, of its family. */
struct iba_vport *iba_vport_toward(struct iba_verbs *v,
				   const struct sockaddr_storage *to);
bool iba_vport_meets(const struct iba_vport *port,
		     const struct sockaddr_storage *to);

/* ---- verbs_mem.c ---- */

/* Makes it when there is none: memory is registered. NULL and the reason. */
struct iba_vvm *iba_vvm_get(struct iba_verbs *v, struct iba_vm *vm,
			    struct iba_vdev *dev, enum vtoe_reason *reason);
struct iba_vvm *iba_vvm_by_number(struct iba_verbs *v, uint32_t number);
/* No queue pair refers to it any more. Its buffers go back to the VM. */
void iba_vvm_destroy(struct iba_vvm *vvm);
/* The key of guest memory. */
uint32_t iba_vvm_lkey(const struct iba_vvm *vvm, const void *at);
/*
 * Promises to the peer what its guest has granted, as far as there are buffers.
 * False: the guest granted what it has not posted; the connection has failed.
 */
bool iba_vvm_grant(struct iba_vpath *path);
/* Buffers on the SRQ that nobody was promised. */
uint32_t iba_vvm_spare(const struct iba_vvm *vvm, unsigned int class);
/* On the SRQ again, for whoever comes. */
void iba_vvm_recycle(struct iba_vvm *vvm, struct iba_vrx *rx);
/* What a path was promised and will not use. */
void iba_vvm_unpromise(struct iba_vvm *vvm, unsigned int class, uint32_t n);
/* A lane has left the SRQs; broken: the device may have kept a buffer of each. */
void iba_vvm_lane_gone(struct iba_vvm *vvm, bool broken);
/* There may be buffers for those who wait. */
void iba_vvm_feed_starved(struct iba_vvm *vvm);
/* The queue pairs of this lane are gone: its SENDs are over. */
void iba_vvm_forget_tx(struct iba_vvm *vvm, const struct iba_vlane *lane);
/* A SEND has the buffers of this chain. */
void iba_vvm_tx_start(struct iba_vvm *vvm, uint16_t head, struct iba_vlane *lane);
/* It has completed; nothing, if it had been forgotten. */
void iba_vvm_tx_done(struct iba_vvm *vvm, uint16_t head);
/* False: grants wait in vain until its lanes have ended. */
bool iba_vvm_tick(struct iba_vvm *vvm, uint64_t now_us);

/* ---- verbs_loop.c ---- */

bool iba_vloop_is(const struct iba_vvm *vvm, unsigned int class,
		  uint32_t qp_num);
/* An empty message has used up this buffer: it is the RWQ's again. */
void iba_vloop_received(struct iba_vvm *vvm, struct iba_vrx *rx);
void iba_vloop_sent(struct iba_vdev *dev, const struct ibv_wc *wc);
void iba_vloop_destroy(struct iba_vvm *vvm, unsigned int class);

/* ---- verbs_lane.c ---- */

const char *iba_vlane_state_name(unsigned int state);
/* The setter. */
void iba_vlane_set_state(struct iba_vlane *lane, enum iba_vlane_state state);
struct iba_vlane *iba_vlane_create(struct iba_verbs *v,
				   enum iba_vlane_state state);
void iba_vlane_up(struct iba_vlane *lane);
/* Ends it; its connections hear of it, or go on to another fabric. */
void iba_vlane_end(struct iba_vlane *lane, enum vtoe_reason reason,
		   const char *why);
/* The same when the pass flushes it: for those in the middle of a connection. */
void iba_vlane_fail(struct iba_vlane *lane, enum vtoe_reason reason,
		    const char *why);
void iba_vlane_mark_dirty(struct iba_vlane *lane);
/* Everything that a lane has of the device goes, at once. */
void iba_vlane_release(struct iba_vlane *lane);
/* The VM leaves: what its connections have said last still goes out. */
void iba_vlane_leave_vm(struct iba_vlane *lane);
struct iba_vpath *iba_vpath_join(struct iba_vlane *lane, struct iba_conn *conn);
void iba_vpath_leave(struct iba_vpath *path);
struct iba_vpath *iba_vpath_find(struct iba_vlane *lane, uint32_t cid);
/* One that has left ends when nothing can come for it any more. */
void iba_vpath_settle(struct iba_vpath *path);

/* ---- verbs_open.c ---- */

/* As iba_fabric.get_path. */
int iba_vlane_get(struct iba_conn *conn, const struct vtoe_addr *agent,
		  enum vtoe_reason *reason);

/* ---- verbs_cm.c ---- */

int iba_vcm_connect(struct iba_vlane *lane);
void iba_vcm_event(int fd, uint32_t events, void *ctx);
void iba_vcm_destroy(struct iba_vqp *qp);

/* ---- verbs_ctrl.c ---- */

int iba_vctrl_init(struct iba_vlane *lane);
int iba_vctrl_post_rx(struct iba_vlane *lane, unsigned int index);
void iba_vctrl_done(struct iba_vlane *lane); /* a SEND has completed */
void iba_vctrl_received(struct iba_vlane *lane, unsigned int index,
			uint32_t bytes);
/* Queues a message of a connection, stamped with its credit. */
void iba_vctrl_send(struct iba_vpath *path, enum vtoe_msg_type type,
		    uint64_t offset, const void *body, uint32_t len);
void iba_vctrl_credit(struct iba_vpath *path, bool want);
/* The credit that rides on DATA; a CREDIT is not needed then. */
void iba_vctrl_data_credit(struct iba_vpath *path, struct vtoe_msg_hdr *hdr);
/* The CREDIT that waits goes into the FIFO: the connection leaves. */
void iba_vctrl_last_credit(struct iba_vpath *path);
/* REJ or RST to a CID. */
void iba_vctrl_answer(struct iba_vlane *lane, enum vtoe_msg_type type,
		      uint32_t cid, enum vtoe_reason reason,
		      const uint32_t sent[VNET_RWQ_CLASSES]);
/* RING, once, if the operator wants to be written to. */
void iba_vctrl_offer(struct iba_vlane *lane);
void iba_vctrl_flush(struct iba_vlane *lane);
/* It waits for the completion of a control message, or does not any more. */
void iba_vlane_short(struct iba_vlane *lane, bool is);
void iba_vctrl_nop(struct iba_vlane *lane);
/* What every message says of control messages. */
void iba_vctrl_stamp(struct iba_vlane *lane, struct vtoe_msg_hdr *hdr);
void iba_vctrl_told(struct iba_vlane *lane, const struct vtoe_msg_hdr *hdr);

/* ---- verbs_ring.c ---- */

/* If the operator wants rings, and there is room; without one the peer sends. */
void iba_wring_create(struct iba_vlane *lane, unsigned int class);
/* No queue pair lets the peer write any more. */
void iba_wring_destroy(struct iba_vlane *lane);
void iba_wring_fill_offer(const struct iba_vlane *lane,
			  struct vnet_lane_ring *offer);
/* Does this completion say that the peer has written? */
bool iba_wring_written(const struct iba_vdev *dev, const struct ibv_wc *wc);
/* The slot of a WRITE that has come; NULL: out of place. */
const void *iba_wring_take(struct iba_vlane *lane, unsigned int class,
			   const struct ibv_wc *wc);
/* len bytes, which fit, behind the header of a buffer. */
void iba_wring_copy(const struct iba_vrx *rx, const void *payload, uint32_t len);
/* False: malformed. */
bool iba_wring_offered(struct iba_vlane *lane,
		       const struct vnet_lane_ring *offer);
/*
 * Makes wr a WRITE of so many bytes, and tell the SEND behind it if the device
 * wants one. False: there is no ring, or no room in it.
 */
bool iba_wring_place(struct iba_vlane *lane, unsigned int class, uint32_t bytes,
		     struct ibv_send_wr *wr, struct ibv_send_wr *tell);

/* ---- verbs_rx.c ---- */

/* At most max completions of a device. How many there were. */
unsigned int iba_vrx_poll(struct iba_vdev *dev, unsigned int max);
void iba_vrx_drain(struct iba_vdev *dev); /* all */
/* What came for a connection that was not established. */
void iba_vrx_early(struct iba_vpath *path);
void iba_vrx_fin(struct iba_vpath *path, const struct vtoe_msg_hdr *hdr);

#endif /* IBA_VERBS_H */
