// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The structs of proto/ against the hand-written bytes in vectors/, both ways.
 *
 * A function per vector names each field and its value. It runs twice over a
 * struct: once it writes the fields into zeros, and the result must be the
 * vector; once it reads the vector, and each field must have its value. What no
 * function names (reserved fields) must be zero in the vector.
 *
 * usage: abi_test [DIRECTORY OF *.hex]
 */
#include <ctype.h>
#include <endian.h>
#include <glob.h>
#include <stdint.h>

#include "abi_fields.h"
#include "tap.h"
#include "vnet_attach.h"
#include "vnet_dev.h"
#include "vnet_hello.h"
#include "vnet_peer.h"
#include "vnet_sock.h"
#include "vnet_train.h"
#include "vnet_vtoe.h"
#include "vtoe_states.h"

#define BYTES_MAX 16384

#define FEATURES 0x0102030405060708
#define SID 0x00300102
#define CID 0x41424344
#define CID2 0x45464748
#define OFFSET 0x5152535455565758

static void addr4(struct vtoe_addr *a)
{
	U8(a->family, 4);
	BE16(a->port, 8080);
	LE32(a->scope, 0);
	BYTES(a->addr, "\x0a\x01\x02\x03");
}

static void addr6(struct vtoe_addr *a)
{
	U8(a->family, 6);
	BE16(a->port, 5432);
	LE32(a->scope, 7);
	BYTES(a->addr, "\xfd\0\0\0\0\0\0\0\0\0\0\0\0\0\x0a\x0b");
}

static void credit(struct vtoe_credit *c)
{
	LE64(c->ack, 0x0102030405060708);
	LE64(c->byte_limit, 0x1112131415161718);
	LE32(c->msg_limit[VNET_RWQ_SMALL], 0x21222324);
	LE32(c->msg_limit[VNET_RWQ_LARGE], 0x31323334);
}

static void buf_sizes(__le32 size[VNET_RWQ_CLASSES])
{
	LE32(size[VNET_RWQ_SMALL], 4096);
	LE32(size[VNET_RWQ_LARGE], 65536);
}

#define MAC_AA "\x02\xaa\xbb\xcc\xdd\xee"
#define MAC_1 "\x02\0\0\0\0\x01"
#define MAC_2 "\x02\0\0\0\0\x02"
#define TOKEN                                                              \
	"\xa0\xa1\xa2\xa3\xa4\xa5\xa6\xa7\xa8\xa9\xaa\xab\xac\xad\xae\xaf" \
	"\xb0\xb1\xb2\xb3\xb4\xb5\xb6\xb7\xb8\xb9\xba\xbb\xbc\xbd\xbe\xbf"

/* ---- vnet_dev.h ---- */

static void vendor_block(struct vnet_vendor_block *b)
{
	LE32(b->magic, VNET_VENDOR_MAGIC);
	BYTES(b->magic, "VNET");
	LE16(b->version, VNET_VENDOR_VERSION);
	LE16(b->size, sizeof(*b));
	LE64(b->features, FEATURES);
	LE32(b->generation, 0x11121314);
	LE32(b->tenant, 0x123456);
	LE16(b->encap_len, VNET_VXLAN_LEN);
	LE16(b->encap_len_max, VNET_ENCAP_LEN_MAX);
	U8(b->encap_type, VNET_ENCAP_VXLAN);
	U8(b->train_form, VNET_TRAIN_SEGMENTED);
	U8(b->vtoe_state, VNET_VTOE_UP);
	LE16(b->vtoe_first_queue, 5);
	LE16(b->vtoe_swq_count, 1);
	LE16(b->vtoe_rwq_count, VNET_RWQ_CLASSES);
	buf_sizes(b->rwq_buf_size);
	LE32(b->vtoe_epoch, 9);
}

static void inflight(struct vnet_inflight *r)
{
	LE16(r->version, VNET_INFLIGHT_VERSION);
	LE16(r->num, 256);
	LE16(r->last_avail, 65534);
	LE16(r->used_idx, 65533);
	U8(r->taken[5], 1);
}

/* ---- vnet_hello.h ---- */

static void hello_hello(struct vnet_hello *h)
{
	LE32(h->magic, VNET_HELLO_MAGIC);
	BYTES(h->magic, "NVHI");
	LE16(h->version, VNET_HELLO_VERSION);
	LE16(h->size, sizeof(*h));
	U8(h->type, VNET_HELLO_HELLO);
	LE16(h->pairs, 2 + VNET_HELLO_RESERVED_PAIRS);
	LE32(h->cookie, 0x31323334);
}

static void hello_answer(struct vnet_hello *h)
{
	LE32(h->magic, VNET_HELLO_MAGIC);
	LE16(h->version, VNET_HELLO_VERSION);
	LE16(h->size, sizeof(*h));
	U8(h->type, VNET_HELLO_ANSWER);
	LE16(h->pairs, 2);
	LE16(h->mtu, 1450);
	LE32(h->cookie, 0x31323334);
	vendor_block(&h->block);
}

static void hello_refuse(struct vnet_hello *h)
{
	LE32(h->magic, VNET_HELLO_MAGIC);
	LE16(h->version, VNET_HELLO_VERSION);
	LE16(h->size, sizeof(*h));
	U8(h->type, VNET_HELLO_REFUSE);
	U8(h->reason, VNET_HELLO_R_PAIRS);
	LE16(h->pairs, 4);
	LE32(h->cookie, 0x31323334);
}

/* ---- vnet_train.h ---- */

static void train_hdr(struct vnet_train_hdr *h)
{
	U8(h->version, VNET_TRAIN_VERSION);
	U8(h->form, VNET_TRAIN_SEGMENTED);
	U8(h->flags, VNET_TRAIN_F_NEEDS_CSUM | VNET_TRAIN_F_DATA_VALID);
	U8(h->gso_type, VNET_GSO_TCPV4 | VNET_GSO_ECN);
	LE16(h->encap_len, 8);
	LE16(h->gso_size, 1400);
	LE16(h->hdr_len, 54);
	LE16(h->csum_start, 34);
	LE16(h->csum_offset, 16);
	LE16(h->num_buffers, 3);
	LE32(h->generation, 0x11121314);
	LE32(h->link, 0x15161718);
	LE32(h->train_len, 0x25262728);
	LE16(h->seg_size, 1500);
}

static void seg_hdr(struct vnet_seg_hdr *h)
{
	U8(h->version, VNET_SEG_VERSION);
	BE16(h->index, 258);
	BE32(h->train_id, 0x11121314);
	BE32(h->train_len, 65634);
	BE16(h->part_len, 1400);
}

static void wire_meta(struct vnet_wire_meta *m)
{
	U8(m->version, VNET_WIRE_META_VERSION);
	U8(m->flags, VNET_TRAIN_F_NEEDS_CSUM);
	U8(m->gso_type, VNET_GSO_TCPV6);
	U8(m->encap_type, VNET_ENCAP_VXLAN);
	BE16(m->encap_len, 8);
	BE16(m->gso_size, 1400);
	BE16(m->hdr_len, 74);
	BE16(m->csum_start, 54);
	BE16(m->csum_offset, 16);
}

struct vxlan_frame {
	struct vnet_vxlan_hdr vxlan;
	__u8 frame[46];
} __attribute__((packed));

static void vxlan_frame(struct vxlan_frame *f)
{
	BE32(f->vxlan.flags, VNET_VXLAN_FLAG_VNI);
	BE32(f->vxlan.vni, 0x123456 << 8);
	BYTES(f->frame, MAC_2 MAC_1 "\x08\0"
	      "\x45\0\0\x20\x12\x34\x40\0\x40\x11\x14\x95"
	      "\x0a\x01\0\x01\x0a\x01\0\x02"
	      "\x10\0\x20\0\0\x0c\0\0" "vnet");
}

/* ---- vnet_vtoe.h: commands ---- */

static void cmd(struct vtoe_cmd *c, enum vtoe_opcode opcode, unsigned int flags,
		uint32_t sid)
{
	LE16(c->opcode, opcode);
	LE16(c->flags, flags);
	LE32(c->sid, sid);
}

static void cmd_hello(struct vtoe_cmd *c)
{
	cmd(c, VTOE_CMD_HELLO, 0, 0);
	LE16(c->u.hello.version, VTOE_VERSION);
	LE64(c->u.hello.features, FEATURES);
}

static void cmd_socket(struct vtoe_cmd *c)
{
	cmd(c, VTOE_CMD_SOCKET, 0, 3 << VTOE_SID_INDEX_BITS | 0x102);
}

static void cmd_bind(struct vtoe_cmd *c)
{
	cmd(c, VTOE_CMD_BIND, 0, SID);
	addr4(&c->u.bind.local);
}

static void cmd_listen(struct vtoe_cmd *c)
{
	cmd(c, VTOE_CMD_LISTEN, 0, SID);
	LE32(c->u.listen.backlog, 128);
}

static void cmd_connect(struct vtoe_cmd *c)
{
	cmd(c, VTOE_CMD_CONNECT, 0, SID);
	addr4(&c->u.connect.local);
	addr6(&c->u.connect.remote);
	BYTES(c->u.connect.next_hop, MAC_AA);
	credit(&c->u.connect.credit);
}

static void cmd_accept(struct vtoe_cmd *c)
{
	cmd(c, VTOE_CMD_ACCEPT, 0, SID);
	LE32(c->u.accept.cid, CID);
	credit(&c->u.accept.credit);
}

static void cmd_reject(struct vtoe_cmd *c)
{
	cmd(c, VTOE_CMD_REJECT, 0, SID);
	LE32(c->u.reject.cid, CID);
	LE32(c->u.reject.reason, VTOE_REASON_BACKLOG);
}

static void cmd_shutdown(struct vtoe_cmd *c)
{
	cmd(c, VTOE_CMD_SHUTDOWN, 0, SID);
	LE64(c->u.shutdown.final_offset, OFFSET);
}

static void cmd_close(struct vtoe_cmd *c)
{
	cmd(c, VTOE_CMD_CLOSE, VTOE_CLOSE_F_ABORT, SID);
}

static void cmd_info(struct vtoe_cmd *c)
{
	cmd(c, VTOE_CMD_INFO, 0, SID);
}

static void cmd_bye(struct vtoe_cmd *c)
{
	cmd(c, VTOE_CMD_BYE, 0, 0);
}

static void reply_refused(struct vtoe_reply *r)
{
	LE32(r->status, VTOE_REASON_LIMIT);
	LE32(r->sid, SID);
}

static void reply_hello(struct vtoe_reply *r)
{
	LE32(r->status, VTOE_REASON_NONE);
	LE16(r->u.hello.version, VTOE_VERSION);
	LE16(r->u.hello.fabrics, 1 << VTOE_FABRIC_LOCAL | 1 << VTOE_FABRIC_TCP |
					 1 << VTOE_FABRIC_VERBS);
	LE32(r->u.hello.max_sockets, 1 << VTOE_SID_INDEX_BITS);
	LE64(r->u.hello.features, FEATURES);
	LE16(r->u.hello.max_pieces, 0x0506);
}

static void reply_info(struct vtoe_reply *r)
{
	LE32(r->sid, SID);
	LE32(r->u.info.cid, CID);
	LE16(r->u.info.fabric, VTOE_FABRIC_VERBS);
	LE16(r->u.info.state, VTOE_CONN_ESTABLISHED);
	LE64(r->u.info.tx_bytes, 0x6162636465666768);
	LE64(r->u.info.rx_bytes, 0x7172737475767778);
	LE64(r->u.info.tx_msgs, 0x8182838485868788);
	LE64(r->u.info.rx_msgs, 0x9192939495969798);
}

/* ---- vnet_vtoe.h and vnet_peer.h: messages ---- */

static void msg(struct vtoe_msg_hdr *h, enum vtoe_msg_type type, uint32_t len,
		uint32_t id)
{
	U8(h->type, type);
	LE32(h->len, len);
	LE32(h->id, id);
}

struct msg_data {
	struct vtoe_msg_hdr hdr;
	char payload[8];
};

static void msg_data(struct msg_data *m)
{
	msg(&m->hdr, VTOE_MSG_DATA, 8, SID);
	U8(m->hdr.flags, VTOE_MSG_F_WANT_CREDIT);
	LE64(m->hdr.offset, OFFSET);
	credit(&m->hdr.credit);
	BYTES(m->payload, "8 bytes!");
}

static void msg_credit(struct vtoe_msg_hdr *h)
{
	msg(h, VTOE_MSG_CREDIT, 0, SID);
	credit(&h->credit);
}

struct msg_req {
	struct vtoe_msg_hdr hdr;
	struct vnet_lane_req req;
};

static void msg_req(struct msg_req *m)
{
	msg(&m->hdr, VTOE_MSG_REQ, sizeof(m->req), 0);
	credit(&m->hdr.credit);
	LE32(m->req.cid, CID);
	addr4(&m->req.local);
	addr6(&m->req.remote);
	BYTES(m->req.local_mac, MAC_1);
	BYTES(m->req.remote_mac, MAC_2);
	buf_sizes(m->req.rwq_buf_size);
}

struct msg_rep {
	struct vtoe_msg_hdr hdr;
	struct vnet_lane_rep rep;
};

static void msg_rep(struct msg_rep *m)
{
	msg(&m->hdr, VTOE_MSG_REP, sizeof(m->rep), CID);
	credit(&m->hdr.credit);
	LE32(m->rep.cid, CID2);
	buf_sizes(m->rep.rwq_buf_size);
}

struct msg_rej {
	struct vtoe_msg_hdr hdr;
	struct vnet_lane_rej rej;
};

static void msg_rej(struct msg_rej *m)
{
	msg(&m->hdr, VTOE_MSG_REJ, sizeof(m->rej), CID);
	LE32(m->rej.reason, VTOE_REASON_NO_LISTENER);
}

static void msg_fin(struct vtoe_msg_hdr *h)
{
	msg(h, VTOE_MSG_FIN, 0, CID2);
	LE64(h->offset, OFFSET);
}

static void msg_rst(struct msg_rej *m)
{
	msg(&m->hdr, VTOE_MSG_RST, sizeof(m->rej), CID2);
	LE32(m->hdr.lane_limit, 0x33343536);
	LE32(m->rej.reason, VTOE_REASON_RESET);
	LE32(m->rej.sent[VNET_RWQ_SMALL], 0x61626364);
	LE32(m->rej.sent[VNET_RWQ_LARGE], 0x65666768);
}

static void msg_nop(struct vtoe_msg_hdr *h)
{
	msg(h, VTOE_MSG_NOP, 0, 0);
}

struct msg_ring {
	struct vtoe_msg_hdr hdr;
	struct vnet_lane_ring ring;
};

static void msg_ring(struct msg_ring *m)
{
	struct vnet_lane_ring_class *large = &m->ring.ring[VNET_RWQ_LARGE];

	msg(&m->hdr, VTOE_MSG_RING, sizeof(m->ring), 0);
	LE64(large->addr, 0x7172737475767778);
	LE32(large->rkey, 0x61626364);
	LE32(large->slots, 256);
	LE32(large->slot_size, 65600);
}

/* ---- vnet_vtoe.h: events ---- */

static void ev(struct vtoe_event *e, enum vtoe_event_type type,
	       enum vtoe_reason reason)
{
	LE16(e->type, type);
	LE32(e->sid, SID);
	LE32(e->cid, CID);
	LE32(e->reason, reason);
}

static void ev_connect_request(struct vtoe_event *e)
{
	ev(e, VTOE_EV_CONNECT_REQUEST, VTOE_REASON_NONE);
	addr6(&e->u.request.local);
	addr4(&e->u.request.remote);
	credit(&e->u.request.credit);
	buf_sizes(e->u.request.rwq_buf_size);
	BYTES(e->u.request.remote_mac, MAC_AA);
}

static void ev_connect_response(struct vtoe_event *e)
{
	ev(e, VTOE_EV_CONNECT_RESPONSE, VTOE_REASON_NONE);
}

static void ev_address_resolved(struct vtoe_event *e)
{
	ev(e, VTOE_EV_ADDRESS_RESOLVED, VTOE_REASON_NONE);
}

static void ev_route_resolved(struct vtoe_event *e)
{
	ev(e, VTOE_EV_ROUTE_RESOLVED, VTOE_REASON_NONE);
}

static void ev_address_error(struct vtoe_event *e)
{
	ev(e, VTOE_EV_ADDRESS_ERROR, VTOE_REASON_NO_ROUTE);
}

static void ev_route_error(struct vtoe_event *e)
{
	ev(e, VTOE_EV_ROUTE_ERROR, VTOE_REASON_NO_LANE);
}

static void ev_connect_error(struct vtoe_event *e)
{
	ev(e, VTOE_EV_CONNECT_ERROR, VTOE_REASON_LANE_LOST);
}

static void ev_unreachable(struct vtoe_event *e)
{
	ev(e, VTOE_EV_UNREACHABLE, VTOE_REASON_TIMEOUT);
}

static void ev_connect_rejected(struct vtoe_event *e)
{
	ev(e, VTOE_EV_CONNECT_REJECTED, VTOE_REASON_NO_LISTENER);
}

static void ev_connect_established(struct vtoe_event *e)
{
	ev(e, VTOE_EV_CONNECT_ESTABLISHED, VTOE_REASON_NONE);
	credit(&e->u.established.credit);
	buf_sizes(e->u.established.rwq_buf_size);
	LE16(e->u.established.fabric, VTOE_FABRIC_LOCAL);
}

static void ev_disconnected_fin(struct vtoe_event *e)
{
	ev(e, VTOE_EV_DISCONNECTED, VTOE_REASON_NONE);
	LE16(e->flags, VTOE_DISC_F_FIN);
	LE64(e->u.disconnected.final_offset, OFFSET);
	credit(&e->u.disconnected.credit);
}

static void ev_disconnected_reset(struct vtoe_event *e)
{
	ev(e, VTOE_EV_DISCONNECTED, VTOE_REASON_RESET);
}

static void ev_device_removal(struct vtoe_event *e)
{
	LE16(e->type, VTOE_EV_DEVICE_REMOVAL);
	LE32(e->reason, VTOE_REASON_REMOVED);
}

static void ev_credit(struct vtoe_event *e)
{
	ev(e, VTOE_EV_CREDIT, VTOE_REASON_NONE);
	LE16(e->flags, VTOE_EV_F_WANT_CREDIT);
	credit(&e->u.credit.credit);
}

/* ---- vnet_attach.h ---- */

#define ATTACH(NAME, name)                                                   \
	struct attach_##name {                                               \
		struct vnet_attach_hdr hdr;                                  \
		struct vnet_attach_##name b;                                 \
	};                                                                   \
	static void attach_##name##_body(struct vnet_attach_##name *b);      \
	static void attach_##name(struct attach_##name *m)                   \
	{                                                                    \
		attach_hdr(&m->hdr, VNET_ATTACH_##NAME, sizeof(m->b));       \
		attach_##name##_body(&m->b);                                 \
	}                                                                    \
	static void attach_##name##_body(struct vnet_attach_##name *b)

static void attach_hdr(struct vnet_attach_hdr *h, enum vnet_attach_type type,
		       uint32_t len)
{
	LE32(h->magic, VNET_ATTACH_MAGIC);
	LE16(h->type, type);
	LE32(h->len, len);
	LE32(h->seq, 0x61626364);
}

ATTACH(HELLO, hello)
{
	LE16(b->version, VNET_ATTACH_VERSION);
	LE32(b->tenant, 0x123456);
	LE64(b->features, FEATURES);
	BYTES(b->mac, MAC_AA);
	buf_sizes(b->rwq_buf_size);
	BYTES(b->vm, "g1\0");
}

ATTACH(HELLO_REPLY, hello_reply)
{
	LE32(b->status, VTOE_REASON_VERSION);
	LE16(b->version, VNET_ATTACH_VERSION);
	LE16(b->fabrics, 1 << VTOE_FABRIC_LOCAL | 1 << VTOE_FABRIC_TCP);
	LE64(b->features, FEATURES);
	BYTES(b->host, "h1\0");
}

ATTACH(MEM_TABLE, mem_table)
{
	LE32(b->count, 2);
	LE64(b->region[0].gpa, 1 << 20);
	LE64(b->region[0].size, 128 << 20);
	LE64(b->region[0].mmap_offset, 0x2000);
	LE64(b->region[1].gpa, 1ull << 32);
	LE64(b->region[1].size, 1 << 30);
	LE64(b->region[1].mmap_offset, 0x123456789000);
}

ATTACH(QUEUE_START, queue_start)
{
	LE16(b->queue, 8);
	U8(b->kind, VNET_QUEUE_RWQ);
	U8(b->index, VNET_RWQ_LARGE);
	LE16(b->num, 256);
	LE16(b->flags, VNET_QUEUE_F_EVENT_IDX | VNET_QUEUE_F_INDIRECT);
	LE64(b->desc, 0x1112131415161710);
	LE64(b->avail, 0x2122232425262720);
	LE64(b->used, 0x3132333435363730);
	LE64(b->inflight_offset, 3 * VNET_INFLIGHT_STRIDE);
}

ATTACH(QUEUE_STOP, queue_stop)
{
	LE16(b->queue, 8);
}

ATTACH(DONE, done)
{
	LE32(b->status, VTOE_REASON_LIMIT);
}

ATTACH(RESOLVE, resolve)
{
	BYTES(b->mac, MAC_AA);
}

ATTACH(RESOLVE_REPLY, resolve_reply)
{
	LE32(b->status, VTOE_REASON_NO_ROUTE);
	addr6(&b->agent);
}

static void attach_route_changed(struct vnet_attach_hdr *h)
{
	attach_hdr(h, VNET_ATTACH_ROUTE_CHANGED, 0);
}

/* ---- vnet_peer.h ---- */

#define PEER(NAME, name)                                                 \
	struct peer_##name {                                             \
		struct vnet_peer_hdr hdr;                                \
		struct vnet_peer_##name b;                               \
	};                                                               \
	static void peer_##name##_body(struct vnet_peer_##name *b);      \
	static void peer_##name(struct peer_##name *m)                   \
	{                                                                \
		peer_hdr(&m->hdr, VNET_PEER_##NAME, sizeof(m->b));       \
		peer_##name##_body(&m->b);                               \
	}                                                                \
	static void peer_##name##_body(struct vnet_peer_##name *b)

static void peer_hdr(struct vnet_peer_hdr *h, enum vnet_peer_type type,
		     uint32_t len)
{
	LE32(h->magic, VNET_PEER_MAGIC);
	LE16(h->type, type);
	LE32(h->len, len);
	LE32(h->seq, 0x61626364);
}

PEER(HELLO, hello)
{
	LE16(b->version, VNET_PEER_VERSION);
	LE16(b->fabrics, 1 << VTOE_FABRIC_TCP | 1 << VTOE_FABRIC_VERBS);
	LE64(b->features, FEATURES);
	BYTES(b->host, "h2\0");
}

PEER(LANE_ASK, lane_ask)
{
	LE32(b->tenant, 0x123456);
	LE16(b->fabric, VTOE_FABRIC_VERBS);
	BYTES(b->local_mac, "RTNP\1\2");
	BYTES(b->remote_mac, "RTNP\3\4");
	addr4(&b->from);
}

PEER(LANE_ANSWER, lane_answer)
{
	LE32(b->status, VTOE_REASON_PEER_NO_VTOE);
	addr4(&b->addr);
	BYTES(b->token, TOKEN);
}

static void peer_ping(struct vnet_peer_hdr *h)
{
	peer_hdr(h, VNET_PEER_PING, 0);
}

static void peer_pong(struct vnet_peer_hdr *h)
{
	peer_hdr(h, VNET_PEER_PONG, 0);
}

static void lane_hello(struct vnet_lane_hello *h)
{
	LE32(h->magic, VNET_PEER_MAGIC);
	LE16(h->version, VNET_PEER_VERSION);
	LE32(h->tenant, 0x123456);
	BYTES(h->token, TOKEN);
}

static void lane_cm(struct vnet_lane_cm *m)
{
	LE32(m->magic, VNET_PEER_MAGIC);
	LE16(m->version, VNET_PEER_VERSION);
	U8(m->kind, VNET_LANE_QP_CONTROL);
	U8(m->flags, VNET_LANE_F_RING);
	LE32(m->recv_bufs, 0x00000100);
	BYTES(m->token, TOKEN);
}

static void lane_hello_reply(struct vnet_lane_hello_reply *h)
{
	LE32(h->magic, VNET_PEER_MAGIC);
	LE16(h->version, VNET_PEER_VERSION);
	LE32(h->status, VTOE_REASON_TENANT);
}

/* ---- vnet_sock.h ---- */

static void so_path(struct vnet_so_path *p)
{
	NATIVE32(p->path, VNET_PATH_TCP);
	NATIVE32(p->reason, VTOE_REASON_TIMEOUT);
	NATIVE32(p->sid, SID);
	NATIVE32(p->fabric, VTOE_FABRIC_VERBS);
	bytes_field(p->reason_name, vtoe_reason_name(VTOE_REASON_TIMEOUT), 8,
		    "reason_name");
}

/* ---- the vectors ---- */

struct vector {
	const char *name;
	size_t size;
	void (*fields)(void *);
	bool seen;
};

/* The cast is of a pointer parameter to void *: harmless where we run. */
#define VECTOR(type, name)                                         \
	{                                                          \
		#name, sizeof(struct type), (void (*)(void *))name, false \
	}

static struct vector vectors[] = {
	VECTOR(vnet_vendor_block, vendor_block),
	VECTOR(vnet_inflight, inflight),
	VECTOR(vnet_hello, hello_hello),
	VECTOR(vnet_hello, hello_answer),
	VECTOR(vnet_hello, hello_refuse),
	VECTOR(vnet_train_hdr, train_hdr),
	VECTOR(vnet_seg_hdr, seg_hdr),
	VECTOR(vnet_wire_meta, wire_meta),
	VECTOR(vxlan_frame, vxlan_frame),
	VECTOR(vtoe_cmd, cmd_hello),
	VECTOR(vtoe_cmd, cmd_socket),
	VECTOR(vtoe_cmd, cmd_bind),
	VECTOR(vtoe_cmd, cmd_listen),
	VECTOR(vtoe_cmd, cmd_connect),
	VECTOR(vtoe_cmd, cmd_accept),
	VECTOR(vtoe_cmd, cmd_reject),
	VECTOR(vtoe_cmd, cmd_shutdown),
	VECTOR(vtoe_cmd, cmd_close),
	VECTOR(vtoe_cmd, cmd_info),
	VECTOR(vtoe_cmd, cmd_bye),
	VECTOR(vtoe_reply, reply_refused),
	VECTOR(vtoe_reply, reply_hello),
	VECTOR(vtoe_reply, reply_info),
	VECTOR(msg_data, msg_data),
	VECTOR(vtoe_msg_hdr, msg_credit),
	VECTOR(msg_req, msg_req),
	VECTOR(msg_rep, msg_rep),
	VECTOR(msg_rej, msg_rej),
	VECTOR(vtoe_msg_hdr, msg_fin),
	VECTOR(msg_rej, msg_rst),
	VECTOR(vtoe_msg_hdr, msg_nop),
	VECTOR(msg_ring, msg_ring),
	VECTOR(vtoe_event, ev_connect_request),
	VECTOR(vtoe_event, ev_connect_response),
	VECTOR(vtoe_event, ev_address_resolved),
	VECTOR(vtoe_event, ev_route_resolved),
	VECTOR(vtoe_event, ev_address_error),
	VECTOR(vtoe_event, ev_route_error),
	VECTOR(vtoe_event, ev_connect_error),
	VECTOR(vtoe_event, ev_unreachable),
	VECTOR(vtoe_event, ev_connect_rejected),
	VECTOR(vtoe_event, ev_connect_established),
	VECTOR(vtoe_event, ev_disconnected_fin),
	VECTOR(vtoe_event, ev_disconnected_reset),
	VECTOR(vtoe_event, ev_device_removal),
	VECTOR(vtoe_event, ev_credit),
	VECTOR(attach_hello, attach_hello),
	VECTOR(attach_hello_reply, attach_hello_reply),
	VECTOR(attach_mem_table, attach_mem_table),
	VECTOR(attach_queue_start, attach_queue_start),
	VECTOR(attach_queue_stop, attach_queue_stop),
	VECTOR(attach_done, attach_done),
	VECTOR(attach_resolve, attach_resolve),
	VECTOR(attach_resolve_reply, attach_resolve_reply),
	VECTOR(vnet_attach_hdr, attach_route_changed),
	VECTOR(peer_hello, peer_hello),
	VECTOR(peer_lane_ask, peer_lane_ask),
	VECTOR(peer_lane_answer, peer_lane_answer),
	VECTOR(vnet_peer_hdr, peer_ping),
	VECTOR(vnet_peer_hdr, peer_pong),
	VECTOR(vnet_lane_hello, lane_hello),
	VECTOR(vnet_lane_hello_reply, lane_hello_reply),
	VECTOR(vnet_lane_cm, lane_cm),
	VECTOR(vnet_so_path, so_path),
};
#define VECTORS (sizeof(vectors) / sizeof(vectors[0]))

static void check_vector(const char *name, const uint8_t *bytes, size_t len)
{
	static union {
		uint8_t bytes[BYTES_MAX];
		uint64_t align;
	} buf;
	struct vector *v = NULL;
	size_t i;

	for (i = 0; i < VECTORS && !v; i++)
		if (strcmp(vectors[i].name, name) == 0)
			v = &vectors[i];
	if (!v || v->seen) {
		ok(false, "%s: a vector that one function checks", name);
		return;
	}
	v->seen = true;
	if (!ok(len == v->size, "%s: size", name)) {
		note("%zu bytes in the vector, %zu in the struct", len, v->size);
		return;
	}
	memset(buf.bytes, 0, len);
	reading = false;
	v->fields(buf.bytes);
	for (i = 0; i < len && buf.bytes[i] == bytes[i]; i++)
		;
	if (!ok(i == len, "%s: as written", name))
		note("byte %zu is 0x%02x, in the vector 0x%02x", i,
		     buf.bytes[i], bytes[i]);
	memcpy(buf.bytes, bytes, len);
	reading = true;
	wrong = 0;
	v->fields(buf.bytes);
	is_int(wrong, 0, "and as read");
}

/* ---- *.hex ---- */

static uint8_t bytes[BYTES_MAX];
static size_t byte_count;

/* "00" or "00*12" */
static void parse_bytes(const char *word, const char *file)
{
	unsigned int byte, times = 1;
	int end = 0;

	if (sscanf(word, "%2x%n*%u%n", &byte, &end, &times, &end) < 1 ||
	    word[end] || end < 2 || byte_count + times > BYTES_MAX) {
		note("%s: \"%s\"", file, word);
		bail_out("cannot read a vector");
	}
	while (times--)
		bytes[byte_count++] = byte;
}

static void check_file(const char *path)
{
	FILE *file = fopen(path, "r");
	char line[512], name[64] = "", *word, *save;

	if (!file)
		bail_out("cannot open a vector file");
	while (fgets(line, sizeof(line), file)) {
		line[strcspn(line, "#\n")] = '\0';
		if (strncmp(line, "== ", 3) == 0) {
			if (name[0])
				check_vector(name, bytes, byte_count);
			byte_count = 0;
			sscanf(line + 3, "%63s", name);
			continue;
		}
		for (word = strtok_r(line, " \t", &save); word;
		     word = strtok_r(NULL, " \t", &save))
			parse_bytes(word, path);
	}
	if (name[0])
		check_vector(name, bytes, byte_count);
	fclose(file);
}

int main(int argc, char **argv)
{
	const char *dir = argc > 1 ? argv[1] : "tests/proto/vectors";
	char pattern[512];
	glob_t files;
	size_t i;

	snprintf(pattern, sizeof(pattern), "%s/*.hex", dir);
	if (glob(pattern, 0, NULL, &files))
		bail_out("no vectors; give their directory");
	for (i = 0; i < files.gl_pathc; i++)
		check_file(files.gl_pathv[i]);
	globfree(&files);
	for (i = 0; i < VECTORS; i++)
		if (!vectors[i].seen)
			ok(false, "%s: has a vector", vectors[i].name);
	return tap_done();
}
