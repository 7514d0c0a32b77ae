// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fabric `local`: both VMs are attached to this process (one tenant, one host;
 * they may even be the same VM).
 *
 * Theory of operation. The two shadow connections point to each other
 * (conn->mate). What would be a message on a lane is a call of the other
 * connection's receive function; a payload is copied once, from the sender's
 * buffers to the receiver's, and the sender's slot is done at once. Nothing is
 * queued here, so there is nothing to flush and nothing to forget.
 *
 * conn->mate is cleared on both sides by put_path; a request that loses its
 * mate before it is answered ends.
 *
 * Threat model: both sides are hostile guests. Source and destination pointers
 * are of chains that virtq_pop() has checked; the length copied is the one that
 * send.c and deliver.c have bounded by both chains.
 */
#include "agent.h"

#include <errno.h>
#include <string.h>

static int local_get_path(struct iba_conn *conn, const struct vtoe_addr *agent,
			  enum vtoe_reason *reason)
{
	struct iba_vm *vm = iba_tenant_vm_by_mac(conn->tenant, conn->remote_mac);

	(void)agent;
	if (vm && vm->hello)
		return 0;
	if (vm) /* else: it is elsewhere, and another fabric knows more */
		*reason = VTOE_REASON_PEER_NO_VTOE;
	return -EHOSTUNREACH;
}

static void local_put_path(struct iba_conn *conn)
{
	struct iba_conn *mate = conn->mate;

	if (!mate)
		return;
	conn->mate = NULL;
	mate->mate = NULL;
	if (mate->state == VTOE_CONN_REQ_RCVD)
		iba_conn_fail(mate, VTOE_REASON_RESET, false);
}

static void make_header(const struct iba_conn *conn, struct vtoe_msg_hdr *hdr,
			enum vtoe_msg_type type, uint8_t flags, uint32_t len,
			uint64_t offset)
{
	memset(hdr, 0, sizeof(*hdr));
	hdr->type = type;
	hdr->flags = flags;
	hdr->len = htole32(len);
	hdr->offset = htole64(offset);
	iba_credit_put(&hdr->credit, &conn->rx_credit);
}

static void local_send_req(struct iba_conn *conn)
{
	struct vnet_lane_req req = { .cid = htole32(conn->cid) };
	struct iba_conn *mate;
	struct vtoe_msg_hdr hdr;
	enum vtoe_reason reason;

	req.local = conn->local;
	req.remote = conn->remote;
	memcpy(req.local_mac, conn->vm->mac, VNET_MAC_LEN);
	memcpy(req.remote_mac, conn->remote_mac, VNET_MAC_LEN);
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		req.rwq_buf_size[i] = htole32(conn->vm->rwq_buf_size[i]);
	make_header(conn, &hdr, VTOE_MSG_REQ, 0, sizeof(req), 0);
	reason = iba_open_req(conn->tenant, &iba_fabric_local, &hdr, &req, &mate);
	if (reason) {
		iba_open_rej(conn, reason);
		return;
	}
	conn->mate = mate;
	mate->mate = conn;
}

static void local_send_rep(struct iba_conn *conn)
{
	struct vnet_lane_rep rep = { .cid = htole32(conn->cid) };
	struct vtoe_msg_hdr hdr;

	if (!conn->mate)
		return;
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		rep.rwq_buf_size[i] = htole32(conn->vm->rwq_buf_size[i]);
	make_header(conn, &hdr, VTOE_MSG_REP, 0, sizeof(rep), 0);
	iba_open_rep(conn->mate, &hdr, &rep);
}

static void local_send_rej(struct iba_conn *conn, enum vtoe_reason reason)
{
	struct iba_conn *mate = conn->mate;

	if (!mate)
		return;
	conn->mate = NULL;
	mate->mate = NULL;
	iba_open_rej(mate, reason);
}

/* len bytes from src to dst, both long enough. */
static void copy_payload(const struct iovec *dst, const struct iovec *src,
			 uint32_t len)
{
	size_t d = 0, s = 0;

	while (len) {
		size_t n = len;

		if (n > dst->iov_len - d)
			n = dst->iov_len - d;
		if (n > src->iov_len - s)
			n = src->iov_len - s;
		memcpy((char *)dst->iov_base + d, (char *)src->iov_base + s, n);
		len -= (uint32_t)n;
		d += n;
		s += n;
		if (d == dst->iov_len) {
			dst++;
			d = 0;
		}
		if (s == src->iov_len) {
			src++;
			s = 0;
		}
	}
}

static void local_send_data(struct iba_conn *conn, uint8_t flags,
			    uint64_t offset, struct iba_slot *slot)
{
	struct virtq_chain *chain = &conn->tenant->chain_in;
	struct iba_conn *mate = conn->mate;
	struct vtoe_msg_hdr hdr;
	unsigned int iov_at;

	if (mate) {
		struct iba_vm *vm = mate->vm;

		make_header(conn, &hdr, VTOE_MSG_DATA, flags, slot->len, offset);
		if (iba_deliver_begin(mate, &hdr, chain, &iov_at) == 0) {
			copy_payload(&chain->iov[iov_at], slot->iov, slot->len);
			iba_deliver_end(vm, iba_deliver_class(vm, slot->len),
					chain->head, slot->len);
		}
	}
	iba_slot_done(slot);
}

static void local_send_credit(struct iba_conn *conn, uint8_t flags)
{
	struct vtoe_msg_hdr hdr;

	if (!conn->mate)
		return;
	make_header(conn, &hdr, VTOE_MSG_CREDIT, flags, 0, 0);
	iba_recv_credit(conn->mate, &hdr);
}

static void local_send_fin(struct iba_conn *conn)
{
	struct vtoe_msg_hdr hdr;

	if (!conn->mate)
		return;
	make_header(conn, &hdr, VTOE_MSG_FIN, 0, 0, conn->tx_final);
	iba_recv_fin(conn->mate, &hdr);
}

static void local_send_rst(struct iba_conn *conn, enum vtoe_reason reason)
{
	struct iba_conn *mate = conn->mate;

	if (!mate)
		return;
	conn->mate = NULL;
	mate->mate = NULL;
	iba_recv_rst(mate, reason);
}

static void local_forget_vm(struct iba_vm *vm)
{
	(void)vm;
}

const struct iba_fabric iba_fabric_local = {
	.name = "local",
	.id = VTOE_FABRIC_LOCAL,
	.get_path = local_get_path,
	.put_path = local_put_path,
	.send_req = local_send_req,
	.send_rep = local_send_rep,
	.send_rej = local_send_rej,
	.send_data = local_send_data,
	.send_credit = local_send_credit,
	.send_fin = local_send_fin,
	.send_rst = local_send_rst,
	.forget_vm = local_forget_vm,
	.pause_vm = local_forget_vm,
};
