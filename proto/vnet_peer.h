/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * Agent to agent. Little-endian.
 *
 * Control channel: one TLS 1.3 connection per pair of hosts, authenticated on
 * both sides by a pre-shared key (RFC 8446 section 4.2.11), between the agents'
 * main processes. It carries vnet_peer_hdr messages and makes lanes.
 *
 * Lane: a data path between the processes that serve one tenant on two hosts.
 * The asking side presents the one-time token that the control channel gave it;
 * then both sides exchange vtoe_msg_hdr messages, whose id is the CID of the
 * receiver. A lane is reliable and in order. It is not encrypted, as RDMA is
 * not. Connections are opened in band, so an open costs one exchange:
 *
 *  active                                    passive
 *  REQ id 0, vnet_lane_req ------------------>  CONNECT_REQUEST to the guest
 *  <--------- REP id cid, vnet_lane_rep  or  REJ id cid, vnet_lane_rej
 *  DATA, CREDIT <------------------------------> DATA, CREDIT
 *  FIN (offset = final offset) <---------------> FIN
 *  RST (vnet_lane_rej) at any time
 *
 * A CID that the receiver does not know is answered with nothing: the RST that
 * ended it is on its way.
 *
 * The tcp fabric has one lane for each pair of tenant processes. A verbs lane
 * joins two VMs, because a queue pair is bound to one shared receive queue and
 * that is the VM's: three queue pairs, one a receive class and one for control
 * messages, made by the RDMA connection manager with vnet_lane_cm as private
 * data. There an RST is answered by an RST, once, and its counts tell how many
 * messages are still on their way (docs/abi-spike.md).
 *
 * A side that wants DATA written into memory of its agent's says so when the
 * lane is made, and where by a RING before its first REQ or REP; the passive side
 * after it has heard the active one. Then the other side may carry DATA of a
 * class by RDMA WRITE with immediate (IBTA vol. 1 section 9.4.3) of header and
 * payload into the next slot, in place of a SEND. The immediate is the number of
 * the slot, big-endian. Over iWARP, which has none, an empty SEND behind the WRITE
 * takes its place. An element of the shared receive queue is used up either way,
 * so the credit is the same.
 */
#ifndef VNET_PEER_H
#define VNET_PEER_H

#include "vnet_types.h"
#include "vnet_attach.h"

#define VNET_PEER_MAGIC 0x50454e56u /* "VNEP" */
#define VNET_PEER_VERSION 2
#define VNET_PEER_PORT 7470
#define VNET_PEER_PSK_IDENTITY "vnet-agent"
#define VNET_TOKEN_LEN 32

enum vnet_peer_type {
	VNET_PEER_HELLO = 1, /* first from both sides */
	VNET_PEER_LANE_ASK = 2,
	VNET_PEER_LANE_ANSWER = 3,
	VNET_PEER_PING = 4, /* no body; answered by PONG */
	VNET_PEER_PONG = 5, /* no body */
};

struct vnet_peer_hdr {
	__le32 magic;
	__le16 type; /* enum vnet_peer_type */
	__le16 reserved;
	__le32 len; /* bytes of body, exactly those of the type */
	__le32 seq; /* of the request; a reply repeats it */
};
VNET_ASSERT_SIZE(vnet_peer_hdr, 16);

struct vnet_peer_hello {
	__le16 version;
	__le16 fabrics;	 /* mask of 1 << VTOE_FABRIC_* that lanes may use */
	__le32 reserved;
	__le64 features; /* none defined yet: zero */
	char host[VNET_NAME_LEN];
};
VNET_ASSERT_SIZE(vnet_peer_hello, 48);

struct vnet_peer_lane_ask {
	__le32 tenant;
	__le16 fabric; /* VTOE_FABRIC_* */
	__le16 reserved;
	/* VTOE_FABRIC_VERBS: the VMs that the lane joins; else zero */
	__u8 local_mac[VNET_MAC_LEN];
	__u8 remote_mac[VNET_MAC_LEN];
	__u8 reserved1[4];
	/* VERBS: of the RDMA port that asks; the answer names one that meets it */
	struct vtoe_addr from;
};
VNET_ASSERT_SIZE(vnet_peer_lane_ask, 48);

struct vnet_peer_lane_answer {
	__le32 status; /* enum vtoe_reason: NONE, PEER_NO_VTOE (no VM of the tenant), ... */
	__le32 reserved;
	struct vtoe_addr addr; /* where to connect the lane */
	__u8 token[VNET_TOKEN_LEN]; /* good once, for 10 s */
};
VNET_ASSERT_SIZE(vnet_peer_lane_answer, 64);

/* First on a lane, from the asking side. */
struct vnet_lane_hello {
	__le32 magic; /* VNET_PEER_MAGIC */
	__le16 version;
	__le16 reserved;
	__le32 tenant;
	__le32 reserved1;
	__u8 token[VNET_TOKEN_LEN];
};
VNET_ASSERT_SIZE(vnet_lane_hello, 48);

/* The answer; status other than NONE ends the lane. */
struct vnet_lane_hello_reply {
	__le32 magic;
	__le16 version;
	__le16 reserved;
	__le32 status; /* enum vtoe_reason */
	__le32 reserved1;
};
VNET_ASSERT_SIZE(vnet_lane_hello_reply, 16);

/* struct vnet_lane_cm.kind */
#define VNET_LANE_QP_SMALL 0   /* bound to the SRQ of VNET_RWQ_SMALL */
#define VNET_LANE_QP_LARGE 1   /* bound to the SRQ of VNET_RWQ_LARGE */
#define VNET_LANE_QP_CONTROL 2 /* receive buffers of the agent's own */

/* struct vnet_lane_cm.flags */
#define VNET_LANE_F_RING 0x01 /* the sender of this will say RING */

/*
 * RDMA CM private data of the requests and replies that make a verbs lane.
 * Always sent whole: the length does not survive (a request carries 56 bytes
 * at most, IBTA vol. 1 section 12.7.29, and arrives padded with zeros). A refusal
 * carries a struct vnet_lane_hello_reply.
 */
struct vnet_lane_cm {
	__le32 magic; /* VNET_PEER_MAGIC */
	__le16 version;
	__u8 kind; /* VNET_LANE_QP_* */
	__u8 flags; /* VNET_LANE_F_*, of the control queue pair */
	__le32 recv_bufs; /* control messages that the sender of this can take at first */
	__le32 reserved1;
	__u8 token[VNET_TOKEN_LEN];
};
VNET_ASSERT_SIZE(vnet_lane_cm, 48);

/* Payload of VTOE_MSG_REQ; the initial credit is in the message header. */
struct vnet_lane_req {
	__le32 cid; /* of the active side */
	__le32 reserved;
	struct vtoe_addr local; /* of the active side */
	struct vtoe_addr remote;
	__u8 local_mac[VNET_MAC_LEN]; /* the asking VM's */
	__u8 remote_mac[VNET_MAC_LEN]; /* the VM that is asked for */
	__le32 rwq_buf_size[VNET_RWQ_CLASSES]; /* of the asking VM */
	__u8 reserved1[4];
};
VNET_ASSERT_SIZE(vnet_lane_req, 80);

/* Payload of VTOE_MSG_REP. */
struct vnet_lane_rep {
	__le32 cid; /* of the passive side */
	__le32 rwq_buf_size[VNET_RWQ_CLASSES]; /* of the accepting VM */
	__le32 reserved;
};
VNET_ASSERT_SIZE(vnet_lane_rep, 16);

/* Payload of VTOE_MSG_REJ and VTOE_MSG_RST. */
struct vnet_lane_rej {
	__le32 reason; /* enum vtoe_reason */
	__le32 reserved;
	__le32 sent[VNET_RWQ_CLASSES]; /* RST: messages the sender has sent in all */
};
VNET_ASSERT_SIZE(vnet_lane_rej, 16);

/* Payload of VTOE_MSG_RING: a ring of slots for each class; slots 0: none. */
struct vnet_lane_ring_class {
	__le64 addr; /* of slot 0, as the device knows it */
	__le32 rkey;
	__le32 slots; /* DATA that is written goes to 0, 1, ... slots - 1, 0, ... */
	__le32 slot_size; /* bytes, the message header included */
	__le32 reserved;
};

struct vnet_lane_ring {
	struct vnet_lane_ring_class ring[VNET_RWQ_CLASSES];
};
VNET_ASSERT_SIZE(vnet_lane_ring, 48);

#endif /* VNET_PEER_H */
