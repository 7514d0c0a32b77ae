/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * Virtual TCP offload engine: commands, messages and events between a guest's
 * vtoe_sock and the host's agent. Little-endian.
 *
 * Names. A guest calls a connection or listener by its socket id (SID), which
 * it chooses: a table index in the low VTOE_SID_INDEX_BITS, a generation above
 * so that a late message never meets a reused entry; 0 is no SID. The agent
 * calls a connection by its shadow connection id (CID), likewise made.
 *
 * Streams. Each direction of a connection is a stream of bytes with 64-bit
 * offsets from 0. Every message carries the offset of its first byte. Messages
 * of different classes may overtake each other; the receiver orders by offset.
 *
 * Credit counts buffers and bytes, cumulatively since the connection began, so
 * a repeated or reordered update does no harm. The receiving guest grants:
 *  - byte_limit: the first stream offset that may not be sent;
 *  - msg_limit[class]: how many messages of the class may be sent in all, as
 *    an unsigned 32-bit number that wraps. A message of up to the *receiver's*
 *    rwq_buf_size[VNET_RWQ_SMALL] bytes is of class small, a longer one (up to
 *    rwq_buf_size[VNET_RWQ_LARGE]) large; one byte uses one buffer.
 * The buffers granted over all connections of a guest never exceed those it
 * has posted to the RWQ of the class, so no sender ever finds the receive
 * queue empty and no connection starves another. Who exceeds a limit loses the
 * connection (VTOE_REASON_CREDIT).
 *
 * Acknowledgement. ack is the first stream offset that the receiving *program*
 * has not consumed. The sending guest keeps the bytes from there on. A used SWQ
 * entry only says that the agent needs the ring slot and the memory no longer.
 *
 * When a grant ends. Granted buffers are promised until CLOSE is answered or a
 * DISCONNECTED event without VTOE_DISC_F_FIN has come; FIN does not end a grant.
 *
 * Order between queues. Each queue is in order by itself; between queues:
 *  - the guest makes RWQ buffers available before it publishes the message or
 *    command that grants them, and the agent, having taken that message, looks
 *    at the RWQs before it forwards the grant;
 *  - the guest publishes what stands on the SWQ before a command that must not
 *    overtake it, and the agent takes the whole SWQ before it executes a
 *    command: CLOSE overtakes no acknowledgement;
 *  - EQ and RWQ are not ordered: DISCONNECTED with FIN may come before the data
 *    it ends (final_offset tells), and data before CONNECT_ESTABLISHED or
 *    before the answer to ACCEPT.
 *
 * Credit and ack ride on every message; a message of type VTOE_MSG_CREDIT, and
 * the event VTOE_EV_CREDIT at the other end, carry them alone.
 */
#ifndef VNET_VTOE_H
#define VNET_VTOE_H

#include "vnet_types.h"
#include "vnet_dev.h"

#define VTOE_VERSION 1

#define VTOE_SID_INDEX_BITS 20
#define VTOE_SID_INDEX_MASK ((1u << VTOE_SID_INDEX_BITS) - 1)

/*
 * Why a connection is not offloaded, was refused, or ended. The numbers are
 * ABI; the names appear in /proc/net/vnet_sock, counters and logs.
 *
 * X(NAME, number, "name", "what it means")
 */
#define VTOE_REASONS(X)                                                              \
	X(NONE, 0, "none", "no fault")                                               \
	X(NO_DEVICE, 1, "no-device", "no device with offload on the route")          \
	X(AGENT_DOWN, 2, "agent-down", "the host's agent is away")                   \
	X(NO_ROUTE, 3, "no-route", "the shim has no route to the next hop's MAC")    \
	X(NO_NEIGH, 4, "no-neighbour", "the next hop's MAC did not resolve")         \
	X(NO_LANE, 5, "no-lane", "no fabric reaches the peer's host")                \
	X(PEER_NO_VTOE, 6, "peer-no-vtoe", "the peer VM does not run the offload")   \
	X(NO_LISTENER, 7, "no-listener", "no offloading listener on that port")      \
	X(NOT_LOCAL, 8, "not-local", "the address is not local to the peer's listener") \
	X(BACKLOG, 9, "backlog-full", "the listener's backlog is full")              \
	X(NO_BUFFERS, 10, "no-buffers", "a side has no receive buffers to grant")    \
	X(POLICY, 11, "policy", "policy or socket option says TCP")                  \
	X(OPTION, 12, "option", "a socket option changes wire behaviour")            \
	X(TIMEOUT, 13, "timeout", "the peer did not answer in time")                 \
	X(RESET, 14, "reset", "the peer aborted")                                    \
	X(REMOVED, 15, "device-removed", "the agent went away under the connection") \
	X(LANE_LOST, 16, "lane-lost", "the path to the peer's host broke")           \
	X(PEER_GONE, 17, "peer-gone", "the peer VM went away")                       \
	X(CREDIT, 18, "credit", "a side sent more than it was granted")              \
	X(PROTOCOL, 19, "protocol", "a malformed message or command")                \
	X(LIMIT, 20, "limit", "a limit of this guest or agent was reached")          \
	X(TENANT, 21, "tenant", "the peer belongs to another tenant")                \
	X(VERSION, 22, "version", "the sides share no version of the protocol")      \
	X(ADDR_FAMILY, 23, "address-family", "an address the offload cannot carry")      \
	X(FIREWALL, 24, "firewall", "a guest's firewall, NAT or IPsec would stop or change it")

enum vtoe_reason {
#define X(name, num, str, text) VTOE_REASON_##name = (num),
	VTOE_REASONS(X)
#undef X
	VTOE_REASON_COUNT = 25,
};

/* The name of a reason, "unknown" for a number this version does not define. */
static inline const char *vtoe_reason_name(__u32 reason)
{
	switch (reason) {
#define X(name, num, str, text) case num: return str;
	VTOE_REASONS(X)
#undef X
	}
	return "unknown";
}

/* Which fabric carries a connection. */
#define VTOE_FABRIC_NONE 0
#define VTOE_FABRIC_LOCAL 1 /* both VMs on this host, one copy between them */
#define VTOE_FABRIC_TCP 2
#define VTOE_FABRIC_VERBS 3

struct vtoe_addr {
	__u8 family;	 /* 4 or 6; 0: none */
	__u8 reserved;
	__be16 port;
	__le32 scope;	 /* IPv6 scope id in the guest that uses it, else 0 */
	__u8 addr[16];	 /* IPv4: the first 4 bytes, the rest zero */
};
VNET_ASSERT_SIZE(vtoe_addr, 24);

struct vtoe_credit {
	__le64 ack;
	__le64 byte_limit;
	__le32 msg_limit[VNET_RWQ_CLASSES];
};
VNET_ASSERT_SIZE(vtoe_credit, 24);

/*
 * ---- CR: commands ----
 *
 * A chain of one readable struct vtoe_cmd and one writable struct vtoe_reply.
 * Commands are executed, and answered, in order; what takes time (CONNECT) is
 * answered when it has been started and ends in an event.
 */
enum vtoe_opcode {
	/*
	 * First command after the device comes up and after each new
	 * vtoe_epoch; anything else before it gets VTOE_REASON_PROTOCOL.
	 */
	VTOE_CMD_HELLO = 1,
	VTOE_CMD_SOCKET = 2,   /* sid comes to life, unbound */
	VTOE_CMD_BIND = 3,     /* local address of a socket that will listen */
	VTOE_CMD_LISTEN = 4,   /* CONNECT_REQUEST events may come for sid */
	VTOE_CMD_CONNECT = 5,  /* active open */
	VTOE_CMD_ACCEPT = 6,   /* passive open: cid of a CONNECT_REQUEST becomes sid */
	VTOE_CMD_REJECT = 7,   /* the answer to a CONNECT_REQUEST is no */
	VTOE_CMD_SHUTDOWN = 8, /* no byte at or behind final_offset will be sent */
	VTOE_CMD_CLOSE = 9,    /* sid is gone when this is answered */
	VTOE_CMD_INFO = 10,    /* what the agent knows of sid */
	/*
	 * The driver leaves: the agent resets every connection of this guest,
	 * gives back all EQ and RWQ buffers with length 0, and touches no
	 * queue but CR until the next HELLO.
	 */
	VTOE_CMD_BYE = 11,
};

/* struct vtoe_reply.u.hello.features: what the guest may send */
#define VTOE_F_URGENT 0x0000000000000001ull /* VTOE_MSG_F_URGENT */

/* struct vtoe_cmd.flags */
/*
 * HELLO: this VM has a memory balloon or virtio-mem, so pages that it gives away
 * may come back as other pages of the host: no device may be told where they are.
 */
#define VTOE_HELLO_F_BALLOON 0x0001
#define VTOE_CLOSE_F_ABORT 0x0001 /* CLOSE: the peer is reset, else both FINs have passed */

struct vtoe_cmd {
	__le16 opcode; /* enum vtoe_opcode */
	__le16 flags;
	__le32 sid;
	union {
		struct {
			__le16 version; /* VTOE_VERSION */
			__le16 reserved;
			__le32 reserved1;
			__le64 features; /* zero: the agent's say it all */
		} hello;
		struct {
			struct vtoe_addr local;
		} bind;
		struct {
			__le32 backlog;
		} listen;
		struct {
			struct vtoe_addr local;
			struct vtoe_addr remote;
			__u8 next_hop[VNET_MAC_LEN]; /* on the overlay */
			__u8 reserved[2];
			struct vtoe_credit credit; /* for the peer's first messages */
		} connect;
		struct {
			__le32 cid;
			__le32 reserved;
			struct vtoe_credit credit;
		} accept;
		struct {
			__le32 cid;
			__le32 reason; /* enum vtoe_reason */
		} reject;
		struct {
			__le64 final_offset;
		} shutdown;
		__u8 pad[88];
	} u;
};
VNET_ASSERT_SIZE(vtoe_cmd, 96);
VNET_ASSERT_OFFSET(vtoe_cmd, u, 8);

struct vtoe_reply {
	__le32 status; /* enum vtoe_reason; NONE is success */
	__le32 sid;
	union {
		struct {
			__le16 version;
			__le16 fabrics;	    /* mask of 1 << VTOE_FABRIC_* */
			__le32 max_sockets; /* SIDs that may live at once */
			__le64 features; /* VTOE_F_* */
			/* Descriptors that the payload of one SWQ chain, or
			 * one RWQ chain, may have; at least 5. */
			__le16 max_pieces;
			__le16 reserved[3];
		} hello;
		struct {
			__le32 cid;
			__le16 fabric; /* VTOE_FABRIC_* */
			__le16 state;  /* enum vtoe_conn_state, vtoe_states.h */
			__le64 tx_bytes;
			__le64 rx_bytes;
			__le64 tx_msgs;
			__le64 rx_msgs;
		} info;
		__u8 pad[40];
	} u;
};
VNET_ASSERT_SIZE(vtoe_reply, 48);

/*
 * ---- SWQ, RWQ: messages ----
 *
 * SWQ: a readable chain [vtoe_msg_hdr][len bytes], the payload in at most
 * vtoe_reply.u.hello.max_pieces descriptors. A DATA message has at least one
 * byte. RWQ: a writable chain of
 * sizeof(vtoe_msg_hdr) + rwq_buf_size[class] bytes; used with header and
 * payload length. The same header goes over lanes between agents.
 */
enum vtoe_msg_type {
	VTOE_MSG_DATA = 1,
	VTOE_MSG_CREDIT = 2, /* len 0; arrives as VTOE_EV_CREDIT, uses no buffer */
	/* Between agents only (vnet_peer.h): a guest that sends one is in error. */
	VTOE_MSG_REQ = 16,
	VTOE_MSG_REP = 17,
	VTOE_MSG_REJ = 18,
	VTOE_MSG_FIN = 19,
	VTOE_MSG_RST = 20,
	VTOE_MSG_NOP = 21,
	VTOE_MSG_RING = 22, /* verbs lanes: vnet_lane_ring, id 0 */
};

/* The sender has more bytes queued than it has credit for. */
#define VTOE_MSG_F_WANT_CREDIT 0x01
/* DATA: the last byte is urgent (MSG_OOB). Sent if HELLO has said VTOE_F_URGENT. */
#define VTOE_MSG_F_URGENT 0x02

/* Largest payload of any message, whatever the vendor block's buffer size. */
#define VTOE_MSG_LEN_MAX (1u << 20)

struct vtoe_msg_hdr {
	__u8 type;	/* enum vtoe_msg_type */
	__u8 flags;	/* VTOE_MSG_F_* */
	__le16 reserved;
	__le32 len;	/* bytes of payload */
	__le32 id;	/* SWQ, RWQ: SID of this guest; lane: CID of the receiving agent */
	/*
	 * Between agents, on fabrics where control messages take receive
	 * buffers: how many of them the writer can take in all (cumulative,
	 * wraps). Zero on rings and on the other fabrics.
	 */
	__le32 lane_limit;
	__le64 offset;	/* of the first payload byte */
	struct vtoe_credit credit;
};
VNET_ASSERT_SIZE(vtoe_msg_hdr, 48);
VNET_ASSERT_OFFSET(vtoe_msg_hdr, offset, 16);
VNET_ASSERT_OFFSET(vtoe_msg_hdr, credit, 24);

/*
 * ---- EQ: events ----
 *
 * A writable buffer of sizeof(struct vtoe_event) each. The agent merges what
 * it can (credit) and keeps what finds no buffer, per connection: no event is
 * lost, and the memory for them is bounded by the number of connections.
 */
enum vtoe_event_type {
	/* A peer wants to connect to listener sid: answer ACCEPT or REJECT with cid. */
	VTOE_EV_CONNECT_REQUEST = 1,
	/* Active side, fabrics with a handshake of their own: the peer's reply
	 * has come and the queue pair goes to RTR and RTS. Progress only. */
	VTOE_EV_CONNECT_RESPONSE = 2,
	VTOE_EV_ADDRESS_RESOLVED = 3, /* progress: the shim knows the peer's host */
	VTOE_EV_ROUTE_RESOLVED = 4,   /* progress: a lane to that host is up */
	VTOE_EV_ADDRESS_ERROR = 5,    /* the shim has no route: active open ends */
	VTOE_EV_ROUTE_ERROR = 6,      /* no fabric reaches the host: active open ends */
	VTOE_EV_CONNECT_ERROR = 7,    /* a fault while connecting: active open ends */
	VTOE_EV_UNREACHABLE = 8,      /* the peer's host or VM did not answer: active open ends */
	VTOE_EV_CONNECT_REJECTED = 9, /* the peer's guest or agent said no: active open ends */
	VTOE_EV_CONNECT_ESTABLISHED = 10,
	/* With VTOE_DISC_F_FIN: the peer will send nothing at or behind
	 * final_offset. Else the connection is broken, for reason. */
	VTOE_EV_DISCONNECTED = 11,
	/* The agent is gone, and every SID of this guest with it. sid is 0. */
	VTOE_EV_DEVICE_REMOVAL = 12,
	VTOE_EV_CREDIT = 13,
};

/* struct vtoe_event.flags */
#define VTOE_DISC_F_FIN 0x0001
#define VTOE_EV_F_WANT_CREDIT 0x0002 /* CREDIT: as VTOE_MSG_F_WANT_CREDIT */

struct vtoe_event {
	__le16 type; /* enum vtoe_event_type */
	__le16 flags;
	__le32 sid;
	__le32 cid;
	__le32 reason; /* enum vtoe_reason */
	union {
		struct {
			struct vtoe_addr local;  /* the listener's side */
			struct vtoe_addr remote;
			struct vtoe_credit credit;
			__le32 rwq_buf_size[VNET_RWQ_CLASSES]; /* the peer's */
			__u8 remote_mac[VNET_MAC_LEN]; /* of the VM that asks */
			__u8 reserved[2];
		} request;
		struct {
			struct vtoe_credit credit;
			__le32 rwq_buf_size[VNET_RWQ_CLASSES]; /* the peer's */
			__le16 fabric; /* VTOE_FABRIC_* */
			__le16 reserved;
			__le32 reserved1;
		} established;
		struct {
			__le64 final_offset;
			struct vtoe_credit credit; /* FIN: as it rode on the peer's */
		} disconnected;
		struct {
			struct vtoe_credit credit;
		} credit;
		__u8 pad[96];
	} u;
};
VNET_ASSERT_SIZE(vtoe_event, 112);
VNET_ASSERT_OFFSET(vtoe_event, u, 16);

#endif /* VNET_VTOE_H */
