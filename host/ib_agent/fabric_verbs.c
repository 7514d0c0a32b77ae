// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fabric `verbs`: the ops, and how DATA goes out.
 *
 * Theory of operation. A DATA message is one SEND on the queue pair of its class
 * (or one WRITE, if the peer has offered a ring: verbs_ring.c):
 * [header, in our memory][the guest's buffers]. The header was copied out of guest
 * memory once and checked (send.c); what is sent is ours, so a guest cannot change
 * it on its way. Short messages go inline: the device's driver copies them into
 * the work request, so their slots are done at once (IBA_V_EARLY of them; more wait
 * as the others do). Else a slot is done when its SEND has completed. A queue pair
 * takes that many SENDs and as many as the guest's ring has descriptors: it is
 * never full.
 *
 * All other messages: verbs_ctrl.c. Receiving: verbs_rx.c. Lanes: verbs_lane.c.
 */
#include "verbs.h"

#include <errno.h>
#include <string.h>

#define HDR ((uint32_t)sizeof(struct vtoe_msg_hdr))

/* Payload behind the header. 0, or what the guest was told not to exceed. */
static int fill_sge(const struct iba_vvm *vvm, const struct iba_slot *slot,
		    struct ibv_sge sge[IBA_V_SGE_MAX])
{
	unsigned int max = iba_verbs_pieces(vvm->vm->tenant) + 1u;
	uint32_t left = slot->len;
	int n = 1;

	for (unsigned int i = 0; i < slot->niov && left; i++) {
		const struct iovec *iov = &slot->iov[i];

		if ((unsigned int)n == max)
			return 0;
		sge[n].addr = (uintptr_t)iov->iov_base;
		sge[n].length = (uint32_t)iov->iov_len;
		sge[n++].lkey = iba_vvm_lkey(vvm, iov->iov_base);
		left -= (uint32_t)iov->iov_len;
	}
	return n;
}

/* False: the lane is broken, and the slot still the caller's. */
static bool post(struct iba_vpath *path, struct iba_slot *slot,
		 struct ibv_sge *sge, int n)
{
	struct iba_vlane *lane = path->lane;
	struct iba_vvm *vvm = lane->vvm;
	unsigned int class = slot->len <= path->conn->peer_buf_size[VNET_RWQ_SMALL] ?
				     VNET_RWQ_SMALL : VNET_RWQ_LARGE;
	struct iba_vqp *qp = &lane->qp[class];
	bool in_line = HDR + slot->len <= lane->inline_max;
	/* it is copied, and room is left in the queue for the ring's chains */
	bool early = in_line && qp->early < lane->early_max;
	struct ibv_send_wr wr = {
		.wr_id = iba_v_id(early ? IBA_V_TX_EARLY : IBA_V_TX, class,
				  slot->head, vvm->number),
		.sg_list = sge,
		.num_sge = n,
		.opcode = IBV_WR_SEND,
		.send_flags = IBV_SEND_SOLICITED |
			      (in_line ? IBV_SEND_INLINE : 0),
	}, tell, *bad;
	bool write = iba_wring_place(lane, class, HDR + slot->len, &wr, &tell);

	if (ibv_post_send(qp->id->qp, &wr, &bad)) {
		iba_vlane_fail(lane, VTOE_REASON_LANE_LOST,
			       "a message cannot be posted");
		return false;
	}
	if (early)
		qp->early++;
	else
		iba_vvm_tx_start(vvm, slot->head, lane);
	path->sent[class]++;
	lane->stats.tx_msgs++;
	lane->stats.tx_bytes += slot->len;
	lane->stats.tx_writes += write;
	lane->stats.tx_inline += in_line;
	lane->stats.tx_inline_bytes += in_line ? slot->len : 0;
	if (early)
		iba_slot_done(slot);
	return true;
}

static void verbs_send_data(struct iba_conn *conn, uint8_t flags,
			    uint64_t offset, struct iba_slot *slot)
{
	struct iba_vpath *path = conn->vpath;
	struct ibv_sge sge[IBA_V_SGE_MAX];
	struct vtoe_msg_hdr *hdr;
	struct iba_vvm *vvm;
	int n;

	if (!path || path->lane->state != IBA_VLANE_UP || path->lane->failed ||
	    !iba_vvm_grant(path)) {
		iba_slot_done(slot);
		return;
	}
	vvm = path->lane->vvm;
	n = fill_sge(vvm, slot, sge);
	if (!n) {
		iba_vm_drop(conn->vm, IBA_DROP_GUEST_VIOLATION);
		iba_slot_done(slot);
		iba_conn_fail(conn, VTOE_REASON_PROTOCOL, true);
		return;
	}
	hdr = &vvm->tx_hdr[slot->head];
	memset(hdr, 0, sizeof(*hdr));
	hdr->type = VTOE_MSG_DATA;
	hdr->flags = flags;
	if (path->tx_want)
		hdr->flags |= VTOE_MSG_F_WANT_CREDIT;
	hdr->len = htole32(slot->len);
	hdr->id = htole32(conn->peer_cid);
	hdr->offset = htole64(offset);
	iba_vctrl_data_credit(path, hdr);
	sge[0] = (struct ibv_sge){ (uintptr_t)hdr, sizeof(*hdr),
				   vvm->own_mr->lkey };
	if (!post(path, slot, sge, n))
		iba_slot_done(slot);
}

static void verbs_send_req(struct iba_conn *conn)
{
	struct vnet_lane_req req = { .cid = htole32(conn->cid) };

	req.local = conn->local;
	req.remote = conn->remote;
	memcpy(req.local_mac, conn->vm->mac, VNET_MAC_LEN);
	memcpy(req.remote_mac, conn->remote_mac, VNET_MAC_LEN);
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		req.rwq_buf_size[i] = htole32(conn->vm->rwq_buf_size[i]);
	iba_vctrl_send(conn->vpath, VTOE_MSG_REQ, 0, &req, sizeof(req));
	if (conn->vpath) /* else its grant was refused */
		conn->flags |= IBA_CONN_F_AWAIT_REP;
}

static void verbs_send_rep(struct iba_conn *conn)
{
	struct vnet_lane_rep rep = { .cid = htole32(conn->cid) };

	if (!conn->vpath)
		return;
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		rep.rwq_buf_size[i] = htole32(conn->vm->rwq_buf_size[i]);
	iba_vctrl_send(conn->vpath, VTOE_MSG_REP, 0, &rep, sizeof(rep));
}

static void verbs_send_rej(struct iba_conn *conn, enum vtoe_reason reason)
{
	if (conn->vpath)
		iba_vctrl_answer(conn->vpath->lane, VTOE_MSG_REJ,
				 conn->peer_cid, reason, NULL);
}

static void verbs_send_rst(struct iba_conn *conn, enum vtoe_reason reason)
{
	struct iba_vpath *path = conn->vpath;

	if (!path || path->rst_sent || !path->peer_known)
		return;
	path->rst_sent = true;
	iba_vctrl_answer(path->lane, VTOE_MSG_RST, path->peer_cid, reason,
			 path->sent);
}

static void verbs_send_fin(struct iba_conn *conn)
{
	if (conn->vpath)
		iba_vctrl_send(conn->vpath, VTOE_MSG_FIN, conn->tx_final, NULL,
			       0);
}

static void verbs_send_credit(struct iba_conn *conn, uint8_t flags)
{
	if (conn->vpath)
		iba_vctrl_credit(conn->vpath, flags & VTOE_MSG_F_WANT_CREDIT);
}

/* A credit that waits for the end of the pass may be the acknowledgement that
 * the peer's close waits for. */
static void verbs_put_path(struct iba_conn *conn)
{
	struct iba_vpath *path = conn->vpath;

	if (!path)
		return;
	if (path->credit_queued && path->peer_known && !path->rst_sent)
		iba_vctrl_last_credit(path);
	iba_vpath_leave(path);
}

static void verbs_forget_vm(struct iba_vm *vm)
{
	struct iba_verbs *v = vm->tenant->verbs;
	struct iba_vlane *lane, *next;

	if (!v || !vm->vvm)
		return;
	for (lane = TAILQ_FIRST(&v->lanes); lane; lane = next) {
		next = TAILQ_NEXT(lane, link);
		if (lane->vvm && lane->vvm->vm == vm)
			iba_vlane_leave_vm(lane);
	}
	while (vm->vvm)
		iba_vvm_destroy(vm->vvm);
}

void iba_verbs_vm_ready(struct iba_vm *vm)
{
	struct iba_verbs *v = vm->tenant->verbs;
	enum vtoe_reason reason;
	struct iba_vport *port = v ? iba_vport_next(v) : NULL;

	if (!port)
		return;
	if (!vm->balloon)
		iba_vvm_get(v, vm, port->dev, &reason);
	else if (log_ratelimited_ok(&vm->log_limit, 10, 10))
		log_warn("vm %s: not over verbs: it has a memory balloon or virtio-mem, and pages that it gives away would stay the device's; start it without",
			 vm->name);
}

const struct iba_fabric iba_fabric_verbs = {
	.name = "verbs",
	.id = VTOE_FABRIC_VERBS,
	.get_path = iba_vlane_get,
	.put_path = verbs_put_path,
	.send_req = verbs_send_req,
	.send_rep = verbs_send_rep,
	.send_rej = verbs_send_rej,
	.send_data = verbs_send_data,
	.send_credit = verbs_send_credit,
	.send_fin = verbs_send_fin,
	.send_rst = verbs_send_rst,
	.forget_vm = verbs_forget_vm,
};
