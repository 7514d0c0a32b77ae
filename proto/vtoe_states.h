/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * The state machines of an offloaded connection, as data: the guest's socket,
 * the agent's shadow connection, and the queue pair state that goes with each
 * state of the latter. A unit test walks the tables; both sides change state
 * by vtoe_sock_next() and vtoe_conn_next() alone.
 *
 * Deviations from the published figure, and why:
 *  - the queue pair stays in INIT while the request is out: RTR needs the
 *    peer's queue pair number, which comes with the reply (IBTA vol. 1,
 *    section 12.9.7.1);
 *  - on a lane that was connected beforehand the reply itself establishes the
 *    passive side (RTU is implied: the lane is in order and already in RTS);
 *  - closing is two independent FINs that carry the final stream offset, so
 *    that data queued before them is delivered first.
 */
#ifndef VTOE_STATES_H
#define VTOE_STATES_H

#include "vnet_types.h"

/*
 * ---- the guest's socket ----
 * The numbers are those of Linux' TCP states (include/net/tcp_states.h).
 * There is no TIME_WAIT: SIDs have generations.
 */
#define VTOE_SOCK_STATES(X)                                                   \
	X(ESTABLISHED, 1, "ESTABLISHED") /* both directions open */           \
	X(SYN_SENT, 2, "SYN_SENT")     /* CONNECT given */                    \
	X(SYN_RECV, 3, "SYN_RECV")     /* CONNECT_REQUEST seen, ACCEPT given */ \
	X(FIN_WAIT1, 4, "FIN_WAIT1")   /* we shut down; not all consumed */   \
	X(FIN_WAIT2, 5, "FIN_WAIT2")   /* we shut down; all consumed */       \
	X(CLOSE, 7, "CLOSE")	       /* no connection */                    \
	X(CLOSE_WAIT, 8, "CLOSE_WAIT") /* the peer shut down */               \
	X(LAST_ACK, 9, "LAST_ACK")     /* both shut down, the peer first */   \
	X(LISTEN, 10, "LISTEN")                                               \
	X(CLOSING, 11, "CLOSING")      /* both shut down, not all consumed */

enum vtoe_sock_state {
#define X(name, num, str) VTOE_SOCK_##name = (num),
	VTOE_SOCK_STATES(X)
#undef X
	VTOE_SOCK_STATE_COUNT = 12,
};

enum vtoe_sock_trigger {
	VTOE_SOCK_T_LISTEN,	 /* LISTEN answered, or the TCP half listens */
	VTOE_SOCK_T_UNLISTEN,	 /* the listener closes */
	VTOE_SOCK_T_CONNECT,	 /* connect(): CONNECT is given, or is about to be */
	VTOE_SOCK_T_REQUEST,	 /* a listener makes a child for a CONNECT_REQUEST */
	VTOE_SOCK_T_ESTABLISHED, /* CONNECT_ESTABLISHED, or ACCEPT answered */
	VTOE_SOCK_T_FAILED,	 /* an event or answer that ends the opening */
	VTOE_SOCK_T_SHUTDOWN,	 /* shutdown(SHUT_WR) or close() */
	VTOE_SOCK_T_ACKED,	 /* the peer consumed everything we sent */
	VTOE_SOCK_T_FIN,	 /* DISCONNECTED with VTOE_DISC_F_FIN, data before it read off the queue */
	VTOE_SOCK_T_RESET,	 /* DISCONNECTED without FIN, DEVICE_REMOVAL, or our own abort */
	VTOE_SOCK_T_COUNT,
};

/*
 * ---- the agent's shadow connection ----
 * X(NAME, number, "name", queue pair state)
 */
#define VTOE_CONN_STATES(X)                                                      \
	X(IDLE, 0, "IDLE", RESET)	     /* SOCKET, no address yet */        \
	X(LISTEN, 1, "LISTEN", RESET)        /* a listener: no queue pair */     \
	X(ADDR_WAIT, 2, "ADDR_WAIT", RESET)  /* the shim is asked for the host */ \
	X(ROUTE_WAIT, 3, "ROUTE_WAIT", RESET) /* a lane to the host is being made */ \
	X(REQ_SENT, 4, "REQ_SENT", INIT)                                         \
	X(REQ_RCVD, 5, "REQ_RCVD", INIT)     /* the guest is asked */            \
	X(REP_RCVD, 6, "REP_RCVD", RTR)      /* fabrics with RTU: moving to RTS */ \
	X(REP_SENT, 7, "REP_SENT", RTR)      /* fabrics with RTU: waiting for it */ \
	X(ESTABLISHED, 8, "ESTABLISHED", RTS)                                    \
	X(LOCAL_FIN, 9, "LOCAL_FIN", RTS)    /* our guest shut down */           \
	X(REMOTE_FIN, 10, "REMOTE_FIN", RTS) /* the peer shut down */            \
	X(BOTH_FIN, 11, "BOTH_FIN", RTS)     /* CLOSE is awaited */              \
	X(ERROR, 12, "ERROR", ERR)	     /* broken; the guest is told, CLOSE is awaited */ \
	X(CLOSED, 13, "CLOSED", RESET)	     /* the CID is gone */

enum vtoe_conn_state {
#define X(name, num, str, qp) VTOE_CONN_##name = (num),
	VTOE_CONN_STATES(X)
#undef X
	VTOE_CONN_STATE_COUNT = 14,
};

/* IBTA vol. 1 section 10.3.1; numbers of enum ibv_qp_state. */
enum vtoe_qp_state {
	VTOE_QP_RESET = 0,
	VTOE_QP_INIT = 1,
	VTOE_QP_RTR = 2,
	VTOE_QP_RTS = 3,
	VTOE_QP_ERR = 6,
};

enum vtoe_conn_trigger {
	VTOE_CONN_T_LISTEN,	/* LISTEN command */
	VTOE_CONN_T_CONNECT,	/* CONNECT command */
	VTOE_CONN_T_ADDR,	/* the shim answered */
	VTOE_CONN_T_LANE,	/* a lane is up: REQ goes out */
	VTOE_CONN_T_REQ,	/* a REQ has come */
	VTOE_CONN_T_REP,	/* a REP has come */
	VTOE_CONN_T_REP_RTU,	/* a REP has come on a fabric with RTU */
	VTOE_CONN_T_ACCEPT,	/* ACCEPT command, REP goes out */
	VTOE_CONN_T_ACCEPT_RTU, /* the same on a fabric with RTU */
	VTOE_CONN_T_RTU,	/* RTU sent, or come, or implied by data */
	VTOE_CONN_T_LOCAL_FIN,	/* SHUTDOWN command */
	VTOE_CONN_T_REMOTE_FIN, /* a FIN has come */
	VTOE_CONN_T_FAIL,	/* REJ, RST, lane lost, timeout, violation: the guest must be told */
	VTOE_CONN_T_CLOSE,	/* CLOSE or REJECT command, or the VM is gone */
	VTOE_CONN_T_COUNT,
};

struct vtoe_transition {
	__u8 from;
	__u8 trigger;
	__u8 to;
};

#define VTOE_STATE_ILLEGAL 0xff

static const struct vtoe_transition vtoe_sock_transitions[] = {
#define T(from, trigger, to) \
	{ VTOE_SOCK_##from, VTOE_SOCK_T_##trigger, VTOE_SOCK_##to }
	T(CLOSE, LISTEN, LISTEN),
	T(LISTEN, UNLISTEN, CLOSE),
	T(CLOSE, CONNECT, SYN_SENT),
	T(SYN_SENT, ESTABLISHED, ESTABLISHED),
	T(SYN_SENT, FAILED, CLOSE),
	T(SYN_SENT, RESET, CLOSE),
	T(CLOSE, REQUEST, SYN_RECV),
	T(SYN_RECV, ESTABLISHED, ESTABLISHED),
	T(SYN_RECV, FAILED, CLOSE),
	T(SYN_RECV, RESET, CLOSE),
	T(ESTABLISHED, SHUTDOWN, FIN_WAIT1),
	T(ESTABLISHED, FIN, CLOSE_WAIT),
	T(ESTABLISHED, RESET, CLOSE),
	T(FIN_WAIT1, ACKED, FIN_WAIT2),
	T(FIN_WAIT1, FIN, CLOSING),
	T(FIN_WAIT1, RESET, CLOSE),
	T(FIN_WAIT2, FIN, CLOSE),
	T(FIN_WAIT2, RESET, CLOSE),
	T(CLOSING, ACKED, CLOSE),
	T(CLOSING, RESET, CLOSE),
	T(CLOSE_WAIT, SHUTDOWN, LAST_ACK),
	T(CLOSE_WAIT, RESET, CLOSE),
	T(LAST_ACK, ACKED, CLOSE),
	T(LAST_ACK, RESET, CLOSE),
#undef T
};

static const struct vtoe_transition vtoe_conn_transitions[] = {
#define T(from, trigger, to) \
	{ VTOE_CONN_##from, VTOE_CONN_T_##trigger, VTOE_CONN_##to }
	T(IDLE, LISTEN, LISTEN),
	T(IDLE, CLOSE, CLOSED),
	T(LISTEN, CLOSE, CLOSED),
	/* active open */
	T(IDLE, CONNECT, ADDR_WAIT),
	T(ADDR_WAIT, ADDR, ROUTE_WAIT),
	T(ADDR_WAIT, FAIL, ERROR),
	T(ADDR_WAIT, CLOSE, CLOSED),
	T(ROUTE_WAIT, LANE, REQ_SENT),
	T(ROUTE_WAIT, FAIL, ERROR),
	T(ROUTE_WAIT, CLOSE, CLOSED),
	T(REQ_SENT, REP, ESTABLISHED),
	T(REQ_SENT, REP_RTU, REP_RCVD),
	T(REQ_SENT, FAIL, ERROR),
	T(REQ_SENT, CLOSE, CLOSED),
	T(REP_RCVD, RTU, ESTABLISHED),
	T(REP_RCVD, FAIL, ERROR),
	T(REP_RCVD, CLOSE, CLOSED),
	/* passive open */
	T(IDLE, REQ, REQ_RCVD),
	T(REQ_RCVD, ACCEPT, ESTABLISHED),
	T(REQ_RCVD, ACCEPT_RTU, REP_SENT),
	T(REQ_RCVD, FAIL, CLOSED), /* the guest has no SID for it */
	T(REQ_RCVD, CLOSE, CLOSED),
	T(REP_SENT, RTU, ESTABLISHED),
	T(REP_SENT, FAIL, ERROR),
	T(REP_SENT, CLOSE, CLOSED),
	/* closing */
	T(ESTABLISHED, LOCAL_FIN, LOCAL_FIN),
	T(ESTABLISHED, REMOTE_FIN, REMOTE_FIN),
	T(ESTABLISHED, FAIL, ERROR),
	T(ESTABLISHED, CLOSE, CLOSED),
	T(LOCAL_FIN, REMOTE_FIN, BOTH_FIN),
	T(LOCAL_FIN, FAIL, ERROR),
	T(LOCAL_FIN, CLOSE, CLOSED),
	T(REMOTE_FIN, LOCAL_FIN, BOTH_FIN),
	T(REMOTE_FIN, FAIL, ERROR),
	T(REMOTE_FIN, CLOSE, CLOSED),
	T(BOTH_FIN, FAIL, ERROR),
	T(BOTH_FIN, CLOSE, CLOSED),
	T(ERROR, CLOSE, CLOSED),
#undef T
};

static inline __u8 vtoe_next_state(const struct vtoe_transition *table,
				   __u32 rows, __u32 from, __u32 trigger)
{
	__u32 i;

	for (i = 0; i < rows; i++)
		if (table[i].from == from && table[i].trigger == trigger)
			return table[i].to;
	return VTOE_STATE_ILLEGAL;
}

/* The state after trigger, VTOE_STATE_ILLEGAL if the table has no such row. */
static inline __u8 vtoe_sock_next(__u32 from, __u32 trigger)
{
	return vtoe_next_state(vtoe_sock_transitions,
			       sizeof(vtoe_sock_transitions) /
				       sizeof(vtoe_sock_transitions[0]),
			       from, trigger);
}

static inline __u8 vtoe_conn_next(__u32 from, __u32 trigger)
{
	return vtoe_next_state(vtoe_conn_transitions,
			       sizeof(vtoe_conn_transitions) /
				       sizeof(vtoe_conn_transitions[0]),
			       from, trigger);
}

static inline const char *vtoe_sock_state_name(__u32 state)
{
	switch (state) {
#define X(name, num, str) case num: return str;
	VTOE_SOCK_STATES(X)
#undef X
	}
	return "?";
}

static inline const char *vtoe_conn_state_name(__u32 state)
{
	switch (state) {
#define X(name, num, str, qp) case num: return str;
	VTOE_CONN_STATES(X)
#undef X
	}
	return "?";
}

/* The queue pair state that belongs to a state of the shadow connection. */
static inline enum vtoe_qp_state vtoe_conn_qp_state(__u32 state)
{
	switch (state) {
#define X(name, num, str, qp) case num: return VTOE_QP_##qp;
	VTOE_CONN_STATES(X)
#undef X
	}
	return VTOE_QP_ERR;
}

#endif /* VTOE_STATES_H */
