/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The data-plane process of one tenant: its objects, and what each file does
 * with them. One thread; nothing here is locked.
 *
 * Who owns what:
 *   tenant ─┬─ vm (an attached shim: memory, rings)  ── sid table, listeners
 *           ├─ conn (cid table)  ── points to its vm, its path, its listener
 *           ├─ lane (fabric_tcp) ── list of the conns that use it
 *           └─ verbs (fabric_verbs, verbs.h) ── devices, lanes between VMs
 * A conn or lane that ends is unlinked at once and freed at the end of the
 * pass (iba_tenant_bury*), so a pointer stays good until the loop sleeps.
 */
#ifndef IBA_AGENT_H
#define IBA_AGENT_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "accept.h"
#include "config.h"
#include "fabric.h"
#include "guest_mem.h"
#include "internal.h"
#include "log.h"
#include "loop.h"
#include "unix_msg.h"
#include "virtq.h"
#include "vnet_attach.h"
#include "vnet_peer.h"
#include "vnet_vtoe.h"
#include "vtoe_states.h"

#define IBA_OPEN_TIMEOUT_US (5 * 1000000ull)  /* of every step of an open */
#define IBA_ORPHAN_LIFE_US (30 * 1000000ull)  /* waiting for a REP nobody wants */
#define IBA_LANE_RETRY_US (1000000ull)	      /* a failed lane is not tried before */
#define IBA_TOKEN_LIFE_US (10 * 1000000ull)
#define IBA_TOKENS_MAX 64
#define IBA_LISTEN_HASH 256
#define IBA_ROUTE_BITS 8
#define IBA_ROUTE_BUCKETS (1u << IBA_ROUTE_BITS)
#define IBA_LANES_MAX 4096u /* of a tenant */
#define IBA_TABLE_CHUNK 1024 /* entries */
#define IBA_SLOT_IOV 18	     /* buffers of a chain kept without allocation */
#define IBA_PIECES_MAX 64     /* descriptors that the payload of a chain may have */

/*
 * Why something a guest or a peer sent was not acted on.
 * X(name, "json name")
 */
#define IBA_DROPS(X)                                                               \
	X(SWQ_MALFORMED, "swq_malformed")    /* chain too short, or writable */    \
	X(UNKNOWN_SID, "unknown_sid")	     /* SWQ message for a SID that is gone */ \
	X(BROKEN_CONN, "broken_conn")	     /* SWQ message on a failed connection */ \
	X(GUEST_VIOLATION, "guest_violation") /* offset, credit, state: connection failed */ \
	X(CMD_MALFORMED, "cmd_malformed")                                          \
	X(EQ_MALFORMED, "eq_malformed")	     /* event buffer too small */          \
	X(RWQ_EMPTY, "rwq_empty")	     /* granted but not posted */          \
	X(RWQ_SMALL, "rwq_small")	     /* buffer too small for its class */  \
	X(UNKNOWN_CID, "unknown_cid")	     /* lane message for a CID that is gone */ \
	X(PEER_VIOLATION, "peer_violation")  /* offset or credit: connection failed */ \
	X(REQ_REFUSED, "req_refused")	     /* answered REJ by the agent */       \
	X(LANE_MALFORMED, "lane_malformed")  /* ended its lane */                  \
	X(LANE_REFUSED, "lane_refused")      /* bad hello or token */

enum iba_drop {
#define X(name, str) IBA_DROP_##name,
	IBA_DROPS(X)
#undef X
	IBA_DROP_COUNT,
};

struct iba_credit { /* struct vtoe_credit in host order */
	uint64_t ack;
	uint64_t byte_limit;
	uint32_t msg_limit[VNET_RWQ_CLASSES];
};

/* struct iba_conn.pending, in the order of delivery. */
#define IBA_PEND_REQUEST 0x01
#define IBA_PEND_ADDR 0x02  /* progress */
#define IBA_PEND_ROUTE 0x04 /* progress */
#define IBA_PEND_ESTABLISHED 0x08
#define IBA_PEND_CREDIT 0x10
#define IBA_PEND_FIN 0x20
#define IBA_PEND_FAIL 0x40 /* conn->fail_event, conn->reason */

/* struct iba_conn.flags */
#define IBA_CONN_F_AWAIT_REP 0x01   /* REQ is out, neither REP nor REJ came */
#define IBA_CONN_F_ORPHAN 0x02	    /* no SID any more: only waits for the REP */
#define IBA_CONN_F_FIN_SENT 0x04
#define IBA_CONN_F_RX_WANT 0x08	    /* the peer wants credit: tell the guest */
#define IBA_CONN_F_CREDIT_QUEUED 0x10 /* on lane->credits */
#define IBA_CONN_F_TX_WANT 0x20	    /* our guest wants credit: tell the peer */
#define IBA_CONN_F_ON_EVENTS 0x40   /* on vm->events */
#define IBA_CONN_F_ON_OPENING 0x80  /* on tenant->opening */
#define IBA_CONN_F_ON_ORPHANS 0x100 /* on tenant->orphans */
#define IBA_CONN_F_ANSWERS 0x200    /* ends by an answer to what the peer sent */

struct iba_lane;
struct iba_route;
struct iba_verbs;
struct iba_vpath;
struct iba_vvm;

/* A shadow connection, or a listener. */
struct iba_conn {
	struct iba_tenant *tenant;
	struct iba_vm *vm; /* NULL: orphan of a VM that left */
	const struct iba_fabric *fabric; /* NULL until a path is chosen */
	struct iba_lane *lane;		 /* fabric tcp */
	struct iba_vpath *vpath;	 /* fabric verbs */
	struct iba_conn *mate;		 /* fabric local */
	struct iba_conn *listener;	 /* REQ_RCVD: whose request it is */
	struct iba_route *route;	 /* ADDR_WAIT: whose answer it awaits */
	uint32_t cid, sid, peer_cid;
	uint8_t state; /* enum vtoe_conn_state; iba_conn_step() alone writes it */
	uint8_t fabric_next; /* index in the configured order */
	uint8_t fail_event;  /* enum vtoe_event_type */
	uint8_t reason;	     /* enum vtoe_reason */
	uint16_t flags;
	uint16_t pending;
	struct vtoe_addr local, remote;
	uint8_t remote_mac[VNET_MAC_LEN];
	uint32_t peer_buf_size[VNET_RWQ_CLASSES];
	/* our guest to the peer */
	uint64_t tx_offset; /* next byte that the guest may give */
	uint64_t tx_final;
	struct iba_credit tx_credit; /* granted by the peer */
	uint32_t tx_msgs[VNET_RWQ_CLASSES];
	/* the peer to our guest */
	uint64_t rx_offset; /* bytes that have come; verbs: in any order */
	uint64_t rx_final;
	struct iba_credit rx_credit; /* granted by our guest */
	uint32_t rx_msgs[VNET_RWQ_CLASSES];
	uint32_t backlog, waiting; /* LISTEN: requests not answered yet */
	/* life */
	uint64_t born_us, deadline_us;
	uint32_t entered_us[VTOE_CONN_STATE_COUNT]; /* after birth, + 1; 0: never */
	LIST_ENTRY(iba_conn) vm_link;
	TAILQ_ENTRY(iba_conn) listen_link, route_link, lane_link, event_link,
		time_link, credit_link, dead_link;
};
_Static_assert(sizeof(struct iba_conn) <= 512, "many connections must fit");
TAILQ_HEAD(iba_conn_list, iba_conn);
LIST_HEAD(iba_conn_set, iba_conn); /* removal does not need the head */

/* A chain of the SWQ that a fabric still reads. One per descriptor head. */
struct iba_slot {
	struct iba_vm *vm; /* NULL: it has left */
	uint16_t head;
	bool busy;
	bool own; /* a copy in our memory, allocated, not one of the VM's slots */
	uint16_t niov;
	uint32_t len; /* payload bytes */
	struct iovec *iov; /* of the payload: small[], or allocated if longer */
	struct iovec small[IBA_SLOT_IOV];
};

enum iba_queue_slot {
	IBA_Q_CR,
	IBA_Q_EQ,
	IBA_Q_SWQ,
	IBA_Q_RWQ, /* one a class */
	IBA_Q_COUNT = IBA_Q_RWQ + VNET_RWQ_CLASSES,
};

struct iba_queue {
	struct iba_vm *vm;
	struct virtq vq;
	uint16_t number; /* of the device */
	struct loop_fd *kick;
	void *inflight;
	/* RWQ: taken for messages that never ended; the next ones go there */
	uint16_t *kept; /* vq.num of them, NULL: there never was one */
	uint16_t kept_count;
};

struct iba_route { /* what the shim said about a MAC */
	uint8_t mac[VNET_MAC_LEN];
	bool asked, known;
	uint32_t seq; /* of the RESOLVE */
	struct vtoe_addr agent;
	struct iba_conn_list waiting;
	LIST_ENTRY(iba_route) link;
};
LIST_HEAD(iba_route_set, iba_route);

struct iba_vm_stats {
	uint64_t cmds, cmd_errors, events;
	uint64_t tx_msgs, tx_bytes, tx_credits, tx_throttled;
	uint64_t rx_msgs, rx_bytes, rx_held;
	uint64_t opened, accepted, failed, closed;
	uint64_t gave_way; /* a fabric to the next one */
	uint64_t drops[IBA_DROP_COUNT];
};

TAILQ_HEAD(iba_held_list, iba_held); /* oldest first */

struct iba_vm {
	struct iba_tenant *tenant;
	char name[VNET_NAME_LEN];
	uint8_t mac[VNET_MAC_LEN];
	uint32_t rwq_buf_size[VNET_RWQ_CLASSES];
	int fd; /* to the shim */
	struct loop_fd *source;
	uint32_t seq; /* of our RESOLVEs */
	struct guest_mem mem;
	struct iba_queue queue[IBA_Q_COUNT];
	struct iba_slot *slot; /* queue[IBA_Q_SWQ].vq.num of them */
	struct iba_vvm *vvm; /* fabric verbs: one a device */
	uint64_t tx_queued; /* payload bytes in those that are busy */
	bool hello; /* the driver said HELLO */
	bool balloon; /* and VTOE_HELLO_F_BALLOON */
	bool gone;  /* being torn down */
	bool fault; /* to be torn down at the end of the pass */
	bool ready; /* on tenant->ready: its rings may have work */
	bool dirty; /* on tenant->dirty: events or used buffers to show */
	bool eq_starved; /* events wait for buffers */
	bool paused; /* the rings rest, the connections live: hold.c */
	bool memory_lost; /* the kernel did not find what was sent of it */
	bool tx_throttled; /* the fabrics have enough of it: send.c */
	bool cmd_waits; /* the next command, for what was sent before it ... */
	uint16_t cmd_mark; /* ... which ends here */
	struct iba_held_list held;
	uint32_t held_count[VNET_RWQ_CLASSES], held_bytes;
	uint16_t held_next; /* number */
	uint32_t conn_count;
	struct iba_conn_set conns; /* without orphans */
	struct iba_conn_list events;
	struct iba_conn_list listen[IBA_LISTEN_HASH]; /* by port */
	struct iba_conn **sid[(VTOE_SID_INDEX_MASK + 1) / IBA_TABLE_CHUNK];
	struct iba_route_set routes[IBA_ROUTE_BUCKETS]; /* by MAC */
	uint64_t route_key;
	uint32_t route_count;
	struct log_ratelimit log_limit;
	struct iba_vm_stats stats;
	TAILQ_ENTRY(iba_vm) link, ready_link, dirty_link;
};
TAILQ_HEAD(iba_vm_list, iba_vm);

struct iba_cid_entry {
	struct iba_conn *conn;
	uint32_t next_free;
	uint32_t generation;
};

struct iba_token {
	uint8_t bytes[VNET_TOKEN_LEN];
	struct sockaddr_storage source;
	uint64_t expires_us; /* 0: unused */
};

struct iba_tenant {
	const struct iba_config *cfg;
	uint32_t id;
	struct loop *loop;
	int ctl_fd; /* to the main process */
	struct loop_fd *ctl_source;
	uint32_t ctl_seq, attaches;
	struct log_ratelimit ctl_log;
	struct loop_timer *tick; /* armed while something has a deadline */
	struct loop_poller *poller;
	bool ticking;
	uint64_t tick_due_us, lost_us; /* of iba_clock_us() */
	bool received; /* a lane has: counts as work for adaptive polling */
	uint64_t last_work_us, empty_since_us;
	uint64_t spin_after_us; /* the CPU is needed by others until then */
	uint32_t spin_rest_ms;
	bool spinning;
	struct iba_vm_list vms, ready, dirty;
	unsigned int vm_count;
	/* connections */
	struct iba_cid_entry *cid[(VTOE_SID_INDEX_MASK + 1) / IBA_TABLE_CHUNK];
	uint32_t cid_used, cid_free_head, cid_free_tail; /* index; 0: none */
	struct iba_conn_list opening, orphans, dead;
	/* lanes (lane.c) */
	TAILQ_HEAD(, iba_lane) lanes, dirty_lanes, dead_lanes;
	unsigned int lane_count;
	struct iba_acceptor data_in;
	struct sockaddr_storage data_addr;
	struct iba_token token[IBA_TOKENS_MAX];
	unsigned int lanes_greeting; /* accepted, hello not seen */
	struct log_ratelimit lane_log;
	struct iba_verbs *verbs; /* NULL: not configured */
	uint64_t drops[IBA_DROP_COUNT]; /* that belong to no VM */
	struct virtq_chain chain_cmd; /* scratch of cmd.c */
	struct virtq_chain chain;     /* scratch of event.c, send.c, vm.c */
	struct virtq_chain chain_in;  /* scratch of fabric_local.c */
};

/* ---- tenant.c: the loop ---- */

void iba_tenant_ready(struct iba_vm *vm); /* look at its rings in this pass */
void iba_tenant_dirty(struct iba_vm *vm); /* show the guest what is new */
void iba_tenant_need_tick(struct iba_tenant *t);
/*
 * For a tenant's deadlines, in us, while a tick is needed. As loop_now_us(), but it
 * stands when the machine does, or this process, for more than half a second: who
 * was to answer may have stood, too, or waits for us. It never goes back.
 */
uint64_t iba_clock_us(const struct iba_tenant *t);
void iba_tenant_watchdog(bool on); /* while there are VMs; on again: from now */
int iba_tenant_ask_lane(struct iba_tenant *t, const struct vtoe_addr *agent,
			const struct iba_lane_want *want, uint32_t *seq);
struct iba_vm *iba_tenant_vm_by_mac(struct iba_tenant *t,
				    const uint8_t mac[VNET_MAC_LEN]);

/* ---- stats.c ---- */

void iba_stats_print(const struct iba_tenant *t);

/* ---- vm.c: an attachment ---- */

void iba_vm_attach(struct iba_tenant *t, int fd, uint32_t seq,
		   const struct vnet_attach_hello *hello);
/* Ends the session at the end of this pass; why is logged. */
void iba_vm_fault(struct iba_vm *vm, const char *why);
void iba_vm_destroy(struct iba_vm *vm);
/* Closes every SID of the VM; peers see reason. */
void iba_vm_reset_conns(struct iba_vm *vm, enum vtoe_reason reason);
/* BYE: gives back the buffers of all queues but CR. */
void iba_vm_return_buffers(struct iba_vm *vm);
/*
 * A receive buffer that was taken for a message that will not end. Not returned
 * empty: to the guest that would mean that the agent has gone.
 */
void iba_vm_keep(struct iba_vm *vm, unsigned int class, uint16_t head);
/* Shows used elements and interrupts the guest, once for all of a pass. */
void iba_vm_publish(struct iba_vm *vm);

static inline void iba_vm_drop(struct iba_vm *vm, enum iba_drop why)
{
	vm->stats.drops[why]++;
}

/* ---- hold.c: messages for a VM whose rings rest ---- */

/* Whether a chain's head stands for one of these. */
bool iba_hold_has(uint16_t head);
/* In place of a receive buffer: *chain is room for a message. 0 or -ENOBUFS. */
int iba_hold_begin(struct iba_conn *conn, unsigned int class, uint32_t len,
		   struct virtq_chain *chain);
/*
 * Of the message in the receive buffer *chain, of len bytes, `came` are there:
 * *chain becomes room for the rest, and the buffer is kept. 0 or -errno.
 */
int iba_hold_move(struct iba_vm *vm, unsigned int class, uint32_t len,
		  uint32_t came, struct virtq_chain *chain);
void iba_hold_end(struct iba_vm *vm, uint16_t head);	  /* it is whole */
void iba_hold_give_up(struct iba_vm *vm, uint16_t head); /* it will not end */
void iba_hold_release(struct iba_vm *vm); /* the rings run: deliver what is whole */
void iba_hold_free(struct iba_vm *vm);

/* ---- route.c: which host has a MAC ---- */

int iba_routes_init(struct iba_vm *vm);
void iba_routes_free(struct iba_vm *vm);
/*
 * For a connection in ADDR_WAIT: asks the shim where remote_mac is, unless that
 * is known. 1: *agent; 0: iba_open_resolved() follows; -errno.
 */
int iba_route_ask(struct iba_conn *conn, struct vtoe_addr *agent);
bool iba_route_known(struct iba_vm *vm, const uint8_t mac[VNET_MAC_LEN],
		     struct vtoe_addr *agent);
void iba_route_leave(struct iba_conn *conn); /* it does not wait any more */
/* 0, or -EPROTO: no answer that a shim may give. */
int iba_route_answer(struct iba_vm *vm, uint32_t seq,
		     const struct vnet_attach_resolve_reply *reply);
void iba_routes_changed(struct iba_vm *vm);

/* ---- cmd.c: CR ---- */

bool iba_cmd_run(struct iba_vm *vm); /* true: did something */

/* ---- conn.c: shadow connections ---- */

struct iba_conn *iba_conn_create(struct iba_vm *vm, uint32_t sid); /* or NULL */
bool iba_conn_bind_sid(struct iba_conn *conn, uint32_t sid);
/* The state setter. False, and logged, if the table has no such row. */
bool iba_conn_step(struct iba_conn *conn, enum vtoe_conn_trigger trigger);
struct iba_conn *iba_conn_by_cid(struct iba_tenant *t, uint32_t cid);
struct iba_conn *iba_conn_by_sid(struct iba_vm *vm, uint32_t sid);
/*
 * Ends the connection for a fault: the guest gets the event that belongs to
 * its state, the peer a REJ or RST if tell_peer.
 */
void iba_conn_fail(struct iba_conn *conn, enum vtoe_reason reason,
		   bool tell_peer);
void iba_conn_fail_event(struct iba_conn *conn, enum vtoe_event_type event,
			 enum vtoe_reason reason, bool tell_peer);
/* CLOSE, or the VM is gone: the SID is free, the peer reset unless all was said. */
void iba_conn_close(struct iba_conn *conn, enum vtoe_reason reason, bool abort);
void iba_conn_orphan_done(struct iba_conn *conn);
/* Restarts the deadline of the opening step; 0 ends it. */
void iba_conn_deadline(struct iba_conn *conn, uint64_t after_us);
void iba_conn_bury(struct iba_tenant *t); /* frees the dead */
void iba_conn_tables_free(struct iba_tenant *t);
void iba_listener_add(struct iba_conn *conn);
/* Who is to be asked next; NULL: nobody listens there. */
struct iba_conn *iba_listener_next(struct iba_vm *vm,
				   const struct vtoe_addr *local);

/* ---- credit, between host order and the ABI ---- */

static inline void iba_credit_get(struct iba_credit *out,
				  const struct vtoe_credit *in)
{
	out->ack = le64toh(in->ack);
	out->byte_limit = le64toh(in->byte_limit);
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		out->msg_limit[i] = le32toh(in->msg_limit[i]);
}

static inline void iba_credit_put(struct vtoe_credit *out,
				  const struct iba_credit *in)
{
	out->ack = htole64(in->ack);
	out->byte_limit = htole64(in->byte_limit);
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		out->msg_limit[i] = htole32(in->msg_limit[i]);
}

/* ---- open.c: opening a connection ---- */

void iba_open_start(struct iba_conn *conn);
/* The shim's answer; agent NULL: it has none, for reason. */
void iba_open_resolved(struct iba_conn *conn, const struct vtoe_addr *agent,
		       enum vtoe_reason reason);
enum vtoe_reason iba_open_accept(struct iba_vm *vm, uint32_t cid, uint32_t sid,
				 const struct vtoe_credit *credit);
enum vtoe_reason iba_open_reject(struct iba_vm *vm, uint32_t cid,
				 enum vtoe_reason reason);
void iba_open_listener_closed(struct iba_conn *listener);
void iba_open_set_backlog(struct iba_conn *listener, uint32_t backlog);
bool iba_open_tick(struct iba_tenant *t, uint64_t now_us); /* true: more to come */

/* ---- deliver.c: RWQ; what fabrics use of it stands in fabric.h ---- */

/* The next receive buffer: as virtq_pop(). */
int iba_deliver_next(struct iba_queue *q, struct virtq_chain *chain);

/* ---- event.c: EQ ---- */

void iba_event_pend(struct iba_conn *conn, uint16_t what);
void iba_event_cancel(struct iba_conn *conn);
void iba_event_flush(struct iba_vm *vm);

/* ---- send.c: SWQ ---- */

struct iba_send_budget {
	unsigned int messages;
	uint32_t bytes;
};

bool iba_send_run(struct iba_vm *vm); /* true: did something */
/*
 * What stands on the SWQ before mark, for a command that may not overtake it.
 * False: the budget was used up before, or the VM is throttled.
 */
bool iba_send_until(struct iba_vm *vm, uint16_t mark,
		    struct iba_send_budget *budget);
int iba_send_slots_create(struct iba_vm *vm);
void iba_send_slots_destroy(struct iba_vm *vm);
/* False: our guest or the peer broke a rule with this update. */
bool iba_credit_merge(struct iba_credit *have, const struct vtoe_credit *in,
		      uint64_t ack_max);

/* ---- lane.c: lanes (fabric tcp) as objects ---- */

bool iba_lane_tick(struct iba_tenant *t, uint64_t now_us); /* true: more to come */
void iba_lane_bury(struct iba_tenant *t);
void iba_lane_destroy_all(struct iba_tenant *t);

/* ---- lane_open.c: making lanes ---- */

int iba_lane_listen(struct iba_tenant *t);
void iba_lane_answer(struct iba_tenant *t, uint32_t seq,
		     const struct vnet_peer_lane_answer *answer);
void iba_lane_token(struct iba_tenant *t, const struct sockaddr_storage *source,
		    struct vnet_peer_lane_answer *answer);

/* ---- fabric_tcp.c ---- */

void iba_tcp_flush(struct iba_tenant *t); /* sends what the pass has queued */

/* ---- fabric_verbs.c, verbs_*.c; nothing happens in a tenant without verbs ---- */

int iba_verbs_start(struct iba_tenant *t); /* before the tenant's sandbox */
void iba_verbs_stop(struct iba_tenant *t);
/* The driver is there and so are its queues: what takes time is done now. */
void iba_verbs_vm_ready(struct iba_vm *vm);
/* Takes completions, within a budget. True: there were some. */
bool iba_verbs_run(struct iba_tenant *t);
void iba_verbs_flush(struct iba_tenant *t); /* sends what the pass has queued */
bool iba_verbs_dirty(const struct iba_tenant *t); /* a flush has work */
/* Before the loop sleeps. True: do not, there is something. */
bool iba_verbs_rest(struct iba_tenant *t);
void iba_verbs_bury(struct iba_tenant *t);
bool iba_verbs_tick(struct iba_tenant *t, uint64_t now_us); /* true: more to come */
void iba_verbs_answer(struct iba_tenant *t, uint32_t seq,
		      const struct vnet_peer_lane_answer *answer);
void iba_verbs_token(struct iba_tenant *t, const struct sockaddr_storage *source,
		     const struct iba_lane_want *want,
		     struct vnet_peer_lane_answer *answer);
/* The RWQ is empty: buffers that connections over verbs have left. True: some. */
bool iba_verbs_reclaim(struct iba_vm *vm, unsigned int class);
/* Lanes as objects of the statistics, behind comma. */
void iba_verbs_print(const struct iba_tenant *t, FILE *out, const char *comma);
/* Descriptors that the payload of a chain may have. */
uint16_t iba_verbs_pieces(const struct iba_tenant *t);

#endif /* IBA_AGENT_H */
