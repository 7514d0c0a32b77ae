// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The spike's agent: serves a guest's VTOE rings on verbs.
 *
 * Receive: each chain of an RWQ becomes one element of the shared receive queue
 * of its class: [our header slot][the guest's payload areas]. Payload lands in
 * guest memory; the header lands in our memory, because credit and connection
 * are read from it and the guest could change its own copy first. It is then
 * copied to the guest with the SID in place of the CID.
 * Send: the header is copied out of guest memory once, checked, and sent from
 * our slot, [slot][the guest's payload areas], on the queue pair of its class.
 *
 * Credit. Per class, `avail` counts elements of the shared receive queue that
 * are posted and not used up, `outstanding` the messages that peers may still
 * send us, and `wanted` those that live connections of our guest have granted.
 * A guest keeps wanted <= avail, or loses the connection. The agent keeps
 * outstanding <= avail by telling peers of a grant only while there is room:
 * messages of a connection that has ended may still be under way. So the shared
 * receive queues never run dry, whatever a guest does.
 */
#include "agent.h"

#include <endian.h>
#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void agent_fail(struct agent *a, const char *fmt, ...)
{
	va_list args;

	if (a->failed)
		return;
	va_start(args, fmt);
	vsnprintf(a->failure, sizeof(a->failure), fmt, args);
	va_end(args);
	__atomic_store_n(&a->failed, a->failure, __ATOMIC_RELEASE);
}

const char *agent_fault(struct agent *a)
{
	return __atomic_load_n(&a->failed, __ATOMIC_ACQUIRE);
}

void *agent_own_alloc(struct agent *a, size_t size)
{
	void *area = (char *)a->own + a->own_used;

	a->own_used += (size + 63) & ~(size_t)63;
	return area;
}

/* ---- connections ---- */

static struct conn *conn_by_sid(struct agent *a, uint32_t sid)
{
	unsigned int i;

	for (i = 0; i < N_CONNS; i++)
		if (a->conn[i].sid == sid)
			return &a->conn[i];
	return NULL;
}

static struct conn *conn_by_cid(struct agent *a, uint32_t cid)
{
	unsigned int i;

	for (i = 0; i < N_CONNS; i++)
		if (a->conn[i].cid == cid)
			return &a->conn[i];
	return NULL;
}

static bool conn_live(const struct conn *conn)
{
	return conn->state >= VTOE_CONN_ESTABLISHED && conn->state <= VTOE_CONN_BOTH_FIN;
}

static void conn_set_state(struct agent *a, struct conn *conn, enum vtoe_conn_trigger trigger)
{
	uint8_t next = vtoe_conn_next(conn->state, trigger);

	if (next == VTOE_STATE_ILLEGAL)
		agent_fail(a, "conn %u: no transition from %s by trigger %d", conn->number,
			   vtoe_conn_state_name(conn->state), trigger);
	else
		conn->state = next;
}

/* Tells peers of grants that found no room before. */
static void forward_grants(struct agent *a)
{
	unsigned int i, c;

	for (i = 0; i < N_CONNS; i++) {
		struct conn *conn = &a->conn[i];

		if (!conn_live(conn))
			continue;
		for (c = 0; c < VNET_RWQ_CLASSES; c++) {
			uint32_t granted = le32toh(conn->granted.msg_limit[c]);
			uint32_t add = le32toh(conn->wanted.msg_limit[c]) - granted;
			uint32_t room = a->avail[c] - a->outstanding[c];

			if (!add)
				continue;
			if (add > room) {
				a->stats.grants_deferred++;
				add = room;
			}
			if (add)
				conn->credit_pending = true;
			a->outstanding[c] += add;
			conn->granted.msg_limit[c] = htole32(granted + add);
		}
		conn->granted.ack = conn->wanted.ack;
		conn->granted.byte_limit = conn->wanted.byte_limit;
	}
}

/* After both sides know what the other sent: nothing more can come. */
static void release_outstanding(struct agent *a, struct conn *conn)
{
	unsigned int c;

	for (c = 0; c < VNET_RWQ_CLASSES; c++) {
		uint32_t granted = le32toh(conn->granted.msg_limit[c]);

		if (granted - conn->peer_sent[c] > granted - conn->received[c]) {
			agent_fail(a, "conn %u: a reset counts messages wrongly", conn->number);
			return;
		}
		a->outstanding[c] -= granted - conn->peer_sent[c];
		conn->granted.msg_limit[c] = htole32(conn->peer_sent[c]);
	}
	forward_grants(a);
}

/* Ends a connection; what the peer may still send stays outstanding. */
static void conn_break(struct agent *a, struct conn *conn, enum vtoe_reason reason)
{
	unsigned int c;

	if (!conn_live(conn))
		return;
	for (c = 0; c < VNET_RWQ_CLASSES; c++)
		a->wanted[c] -= le32toh(conn->wanted.msg_limit[c]) - conn->received[c];
	conn_set_state(a, conn, VTOE_CONN_T_FAIL);
	conn->reason = reason;
	conn->ev_reset = true;
	conn->rst_pending = true;
	conn->credit_pending = conn->fin_pending = false;
}

/* CLOSE after both FINs: all bytes have come, so nothing is under way. */
static bool conn_close(struct agent *a, struct conn *conn)
{
	unsigned int c;

	if (conn->state != VTOE_CONN_BOTH_FIN || conn->received_bytes != conn->peer_final)
		return false;
	for (c = 0; c < VNET_RWQ_CLASSES; c++) {
		a->wanted[c] -= le32toh(conn->wanted.msg_limit[c]) - conn->received[c];
		a->outstanding[c] -= le32toh(conn->granted.msg_limit[c]) - conn->received[c];
	}
	/* A last acknowledgement that is still pending goes out: the peer waits for it. */
	conn_set_state(a, conn, VTOE_CONN_T_CLOSE);
	forward_grants(a);
	return true;
}

/* Takes the guest's grant from a message: wanted, then as far as it may granted. */
static void take_grant(struct agent *a, struct conn *conn, const struct vtoe_credit *credit)
{
	unsigned int c;

	for (c = 0; c < VNET_RWQ_CLASSES; c++) {
		uint32_t old = le32toh(conn->wanted.msg_limit[c]);
		uint32_t add = le32toh(credit->msg_limit[c]) - old;

		if ((int32_t)add <= 0)
			continue;
		if (add > a->avail[c] - a->wanted[c]) {
			a->stats.violations_grant++;
			conn_break(a, conn, VTOE_REASON_CREDIT);
			return;
		}
		a->wanted[c] += add;
		conn->wanted.msg_limit[c] = credit->msg_limit[c];
	}
	if (le64toh(credit->ack) > le64toh(conn->wanted.ack))
		conn->wanted.ack = credit->ack;
	if (le64toh(credit->byte_limit) > le64toh(conn->wanted.byte_limit))
		conn->wanted.byte_limit = credit->byte_limit;
	forward_grants(a);
}

/* Takes the peer's grant; it may come late or twice. */
static void take_credit(struct conn *conn, const struct vtoe_credit *credit, bool event)
{
	unsigned int c;

	for (c = 0; c < VNET_RWQ_CLASSES; c++)
		if ((int32_t)(le32toh(credit->msg_limit[c]) - le32toh(conn->peer.msg_limit[c])) > 0)
			conn->peer.msg_limit[c] = credit->msg_limit[c];
	if (le64toh(credit->ack) > le64toh(conn->peer.ack))
		conn->peer.ack = credit->ack;
	if (le64toh(credit->byte_limit) > le64toh(conn->peer.byte_limit))
		conn->peer.byte_limit = credit->byte_limit;
	conn->ev_credit |= event;
}

/* ---- receive ---- */

static bool slot_take(struct agent *a, struct slot *slot, bool *any)
{
	*any = true;
	/*
	 * A head that is still in flight: its slot, with a header that was
	 * checked and may be on its way, would be overwritten.
	 */
	if (slot->busy)
		agent_fail(a, "the guest offered a buffer twice");
	return !slot->busy;
}

/* Splits a chain at the header: its place goes to slot, the rest to sge. */
static int split_chain(struct agent *a, const struct virtq_chain *chain, struct slot *slot,
		       struct ibv_sge *sge)
{
	uint32_t left = sizeof(struct vtoe_msg_hdr);
	unsigned int i, n = 0, count = chain->out_count + chain->in_count;

	slot->head = chain->head;
	slot->total = chain->out_bytes + chain->in_bytes;
	slot->hdr_iovs = 0;
	sge[n++] = (struct ibv_sge){ (uintptr_t)slot->hdr, sizeof(*slot->hdr), a->own_mr->lkey };
	for (i = 0; i < count; i++) {
		uintptr_t base = (uintptr_t)chain->iov[i].iov_base;
		uint32_t len = chain->iov[i].iov_len, hdr = len < left ? len : left;

		if (hdr) {
			if (slot->hdr_iovs == SEGS_MAX)
				return -E2BIG;
			slot->hdr_iov[slot->hdr_iovs].iov_base = (void *)base;
			slot->hdr_iov[slot->hdr_iovs++].iov_len = hdr;
			left -= hdr;
		}
		if (len == hdr)
			continue;
		if (n == SEGS_MAX)
			return -E2BIG;
		sge[n++] = (struct ibv_sge){ base + hdr, len - hdr, a->guest_mr->lkey };
	}
	return left ? -EINVAL : (int)n;
}

static int post_rx(struct agent *a, unsigned int class, struct slot *slot, struct ibv_sge *sge, int n)
{
	struct ibv_recv_wr wr = { .wr_id = WR_ID(WR_RX, class, slot->head), .sg_list = sge,
				  .num_sge = n }, *bad;

	if (ibv_post_srq_recv(a->srq[class], &wr, &bad)) {
		agent_fail(a, "posting to a shared receive queue failed");
		return -EIO;
	}
	a->avail[class]++;
	return 0;
}

/* The work requests of a class, kept to post one again. */
static struct {
	struct ibv_sge sge[SEGS_MAX];
	int n;
} rx_wr[VNET_RWQ_CLASSES][RWQ_NUM_MAX];

static bool feed_srq(struct agent *a, unsigned int class)
{
	uint32_t want = sizeof(struct vtoe_msg_hdr) + (class == VNET_RWQ_SMALL ? SMALL_SIZE : LARGE_SIZE);
	struct virtq *vq = &a->vq[Q_RWQ_SMALL + class];
	bool any = false;

	while (virtq_pop(vq, &a->chain) == 1) {
		struct slot *slot = &a->rx[class][a->chain.head];
		int n;

		if (!slot_take(a, slot, &any))
			return true;
		n = split_chain(a, &a->chain, slot, rx_wr[class][a->chain.head].sge);
		if (n < 0 || a->chain.out_count || a->chain.in_bytes != want) {
			a->stats.malformed++;
			virtq_push(vq, a->chain.head, 0);
			continue;
		}
		slot->busy = true;
		rx_wr[class][slot->head].n = n;
		post_rx(a, class, slot, rx_wr[class][slot->head].sge, n);
	}
	return any;
}

static void rx_done(struct agent *a, const struct ibv_wc *wc)
{
	unsigned int class = wc->wr_id >> 16 & 0xffff, head = wc->wr_id & 0xffff, i;
	struct slot *slot = &a->rx[class][head];
	struct vtoe_msg_hdr *hdr = slot->hdr;
	uint32_t len = le32toh(hdr->len);
	const uint8_t *from = (void *)hdr;
	struct conn *conn;

	a->avail[class]--;
	if (a->sink)
		return;
	conn = conn_by_cid(a, le32toh(hdr->id));
	if (wc->byte_len < sizeof(*hdr) || wc->byte_len - sizeof(*hdr) != len || !len || !conn ||
	    hdr->type != VTOE_MSG_DATA || hdr->reserved || wc->qp_num != conn->lane->port[class].id->qp->qp_num ||
	    class != (len <= SMALL_SIZE ? VNET_RWQ_SMALL : VNET_RWQ_LARGE)) {
		agent_fail(a, "a message of %u bytes for %#x makes no sense", wc->byte_len,
			   le32toh(hdr->id));
		return;
	}
	lane_told(conn->lane, le32toh(hdr->lane_limit));
	if (conn->received[class] == le32toh(conn->granted.msg_limit[class]) ||
	    le64toh(hdr->offset) + len > le64toh(conn->granted.byte_limit)) {
		a->stats.violations_rx++;
		agent_fail(a, "conn %u: the peer's agent let a message too many pass", conn->number);
		return;
	}
	conn->received[class]++;
	conn->received_bytes += len;
	a->outstanding[class]--;
	if (!conn_live(conn)) {
		a->stats.recycled++;
		post_rx(a, class, slot, rx_wr[class][head].sge, rx_wr[class][head].n);
		forward_grants(a);
		return;
	}
	a->wanted[class]--;
	a->stats.rx_msgs[class]++;
	take_credit(conn, &hdr->credit, false);
	hdr->id = htole32(conn->sid);
	hdr->lane_limit = 0;
	for (i = 0; i < slot->hdr_iovs; i++) {
		memcpy(slot->hdr_iov[i].iov_base, from, slot->hdr_iov[i].iov_len);
		from += slot->hdr_iov[i].iov_len;
	}
	slot->busy = false;
	virtq_push(&a->vq[Q_RWQ_SMALL + class], slot->head, wc->byte_len);
}

static void ctrl_rx_done(struct agent *a, const struct ibv_wc *wc)
{
	struct lane *lane = &a->lane[wc->wr_id >> 16 & 0xffff];
	struct ctrl_msg msg = lane->ctrl_rx[wc->wr_id & 0xffff];
	struct conn *conn = conn_by_cid(a, le32toh(msg.hdr.id));
	unsigned int c;

	a->stats.ctrl_rx++;
	lane_post_ctrl_rx(a, lane, wc->wr_id & 0xffff);
	lane->ctrl_granted++;
	lane_told(lane, le32toh(msg.hdr.lane_limit));
	if (msg.hdr.type == VTOE_MSG_NOP)
		return;
	if (!conn || conn->lane != lane || wc->byte_len - sizeof(msg.hdr) != le32toh(msg.hdr.len)) {
		agent_fail(a, "a control message of type %u makes no sense", msg.hdr.type);
		return;
	}
	switch (msg.hdr.type) {
	case VTOE_MSG_CREDIT:
		if (conn_live(conn))
			take_credit(conn, &msg.hdr.credit, true);
		break;
	case VTOE_MSG_FIN:
		if (!conn_live(conn))
			break;
		take_credit(conn, &msg.hdr.credit, false);
		conn->peer_final = le64toh(msg.hdr.offset);
		conn->ev_fin = true;
		conn_set_state(a, conn, VTOE_CONN_T_REMOTE_FIN);
		break;
	case VTOE_MSG_RST:
		/* Host 0 answers late, so that host 1 has something to wait for. */
		if (conn_live(conn) && a->cfg.host == 0)
			conn->rst_after = now_s() + 0.02;
		conn_break(a, conn, VTOE_REASON_RESET);
		conn->peer_reset = true;
		for (c = 0; c < VNET_RWQ_CLASSES; c++)
			conn->peer_sent[c] = le32toh(msg.rst.sent[c]);
		release_outstanding(a, conn);
		break;
	default:
		agent_fail(a, "a control message of type %u", msg.hdr.type);
	}
}

static bool poll_cq(struct agent *a)
{
	struct ibv_wc wc[32];
	bool any = false;
	int i, n;

	while ((n = ibv_poll_cq(a->cq, 32, wc)) > 0) {
		any = true;
		for (i = 0; i < n; i++) {
			enum wr_kind kind = wc[i].wr_id >> WR_KIND_SHIFT;

			if (wc[i].status) {
				if (kind == WR_BLAST && !a->blast_status)
					a->blast_status = wc[i].status;
				/* A flushed element ends what waited for it. */
				if (wc[i].status == IBV_WC_WR_FLUSH_ERR || kind == WR_BLAST)
					continue;
				agent_fail(a, "work of kind %d failed: %s", kind,
					   ibv_wc_status_str(wc[i].status));
				continue;
			}
			switch (kind) {
			case WR_RX:
				rx_done(a, &wc[i]);
				break;
			case WR_TX:
				a->tx[wc[i].wr_id & 0xffff].busy = false;
				virtq_push(&a->vq[Q_SWQ], wc[i].wr_id & 0xffff, 0);
				break;
			case WR_CTRL_RX:
				ctrl_rx_done(a, &wc[i]);
				break;
			case WR_CTRL_TX:
				break;
			case WR_BLAST:
				a->blast_ok++;
				break;
			}
		}
	}
	return any;
}

/* ---- send ---- */

/* A DATA message of the guest: 1 sent, 0 not (the element is given back). */
static int send_data(struct agent *a, struct conn *conn, struct slot *slot, struct ibv_sge *sge, int n)
{
	struct vtoe_msg_hdr *hdr = slot->hdr;
	uint32_t len = le32toh(hdr->len);
	unsigned int class = len <= SMALL_SIZE ? VNET_RWQ_SMALL : VNET_RWQ_LARGE;
	struct ibv_send_wr wr = { .wr_id = WR_ID(WR_TX, 0, slot->head), .sg_list = sge,
				  .num_sge = n, .opcode = IBV_WR_SEND }, *bad;

	if (conn->sent[class] == le32toh(conn->peer.msg_limit[class]) ||
	    le64toh(hdr->offset) + len > le64toh(conn->peer.byte_limit)) {
		a->stats.violations_tx++;
		conn_break(a, conn, VTOE_REASON_CREDIT);
		return 0;
	}
	hdr->id = htole32(conn->peer_cid);
	hdr->credit = conn->granted;
	hdr->lane_limit = htole32(conn->lane->ctrl_granted);
	conn->lane->ctrl_told = conn->lane->ctrl_granted;
	conn->credit_pending = false;
	if (ibv_post_send(conn->lane->port[class].id->qp, &wr, &bad)) {
		agent_fail(a, "ibv_post_send failed");
		return 0;
	}
	slot->busy = true;
	conn->sent[class]++;
	a->stats.tx_msgs[class]++;
	return 1;
}

static bool serve_swq(struct agent *a)
{
	struct virtq *vq = &a->vq[Q_SWQ];
	bool any = false;

	while (virtq_pop(vq, &a->chain) == 1) {
		struct slot *slot = &a->tx[a->chain.head];
		struct ibv_sge sge[SEGS_MAX];
		struct vtoe_msg_hdr *hdr = slot->hdr;
		struct conn *conn = NULL;
		int n;

		if (!slot_take(a, slot, &any))
			return true;
		n = split_chain(a, &a->chain, slot, sge);
		if (n > 0) {
			/* The one read of the guest's header. */
			virtq_copy_out(&a->chain, 0, hdr, sizeof(*hdr));
			conn = conn_by_sid(a, le32toh(hdr->id));
		}
		if (!conn || !conn_live(conn) || a->chain.in_count) {
			a->stats.malformed += !conn;
			virtq_push(vq, slot->head, 0);
			continue;
		}
		/* A grant is about buffers that were posted before it: take them first. */
		feed_srq(a, VNET_RWQ_SMALL);
		feed_srq(a, VNET_RWQ_LARGE);
		if (hdr->reserved || hdr->lane_limit ||
		    le32toh(hdr->len) != slot->total - sizeof(*hdr) ||
		    (hdr->type != VTOE_MSG_DATA && hdr->type != VTOE_MSG_CREDIT) ||
		    (hdr->type == VTOE_MSG_DATA) != !!hdr->len) {
			conn_break(a, conn, VTOE_REASON_PROTOCOL);
			virtq_push(vq, slot->head, 0);
			continue;
		}
		take_grant(a, conn, &hdr->credit);
		if (hdr->type == VTOE_MSG_CREDIT)
			conn->credit_pending = conn_live(conn);
		if (hdr->type == VTOE_MSG_CREDIT || !conn_live(conn) || !send_data(a, conn, slot, sge, n))
			virtq_push(vq, slot->head, 0);
	}
	return any;
}

static bool serve_cr(struct agent *a)
{
	struct virtq *vq = &a->vq[Q_CR];
	struct virtq_chain chain;
	bool any = false;

	while (virtq_pop(vq, &chain) == 1) {
		struct vtoe_reply reply = { 0 };
		struct vtoe_cmd cmd = { 0 };
		struct conn *conn;

		any = true;
		/* A command comes after what was sent before it: the last credit, say. */
		serve_swq(a);
		virtq_copy_out(&chain, 0, &cmd, sizeof(cmd));
		conn = conn_by_sid(a, le32toh(cmd.sid));
		reply.sid = cmd.sid;
		if (le16toh(cmd.opcode) == VTOE_CMD_SHUTDOWN && conn && conn_live(conn)) {
			conn->final_offset = le64toh(cmd.u.shutdown.final_offset);
			conn->fin_pending = true;
			conn_set_state(a, conn, VTOE_CONN_T_LOCAL_FIN);
		} else if (le16toh(cmd.opcode) != VTOE_CMD_CLOSE || !conn || !conn_close(a, conn)) {
			reply.status = htole32(VTOE_REASON_PROTOCOL);
		}
		virtq_push(vq, chain.head, virtq_copy_in(&chain, 0, &reply, sizeof(reply)));
	}
	return any;
}

/* What waits for a control buffer of the peer. */
static void flush_ctrl(struct agent *a)
{
	unsigned int i, c;

	for (i = 0; i < N_CONNS; i++) {
		struct conn *conn = &a->conn[i];
		struct ctrl_msg msg = { .hdr = { .id = htole32(conn->peer_cid), .credit = conn->granted } };

		if (conn->rst_pending) {
			if (now_s() < conn->rst_after)
				continue;
			msg.hdr.type = VTOE_MSG_RST;
			msg.rst.reason = htole32(conn->reason);
			for (c = 0; c < VNET_RWQ_CLASSES; c++)
				msg.rst.sent[c] = htole32(conn->sent[c]);
			if (!lane_send_ctrl(a, conn->lane, &msg))
				conn->rst_pending = false;
		} else if (conn->fin_pending) { /* it may overtake data: the offset tells */
			msg.hdr.type = VTOE_MSG_FIN;
			msg.hdr.offset = htole64(conn->final_offset);
			if (!lane_send_ctrl(a, conn->lane, &msg))
				conn->fin_pending = conn->credit_pending = false;
		} else if (conn->credit_pending) {
			msg.hdr.type = VTOE_MSG_CREDIT;
			if (!lane_send_ctrl(a, conn->lane, &msg))
				conn->credit_pending = false;
		}
	}
	for (i = 0; i < N_LANES; i++) {
		struct ctrl_msg nop = { .hdr.type = VTOE_MSG_NOP };

		if (a->lane[i].ctrl_granted - a->lane[i].ctrl_told >= CTRL_BUFS / 2)
			lane_send_ctrl(a, &a->lane[i], &nop);
	}
}

static bool put_event(struct agent *a, struct conn *conn, struct vtoe_event *event)
{
	event->sid = htole32(conn->sid);
	event->cid = htole32(conn->cid);
	if (virtq_pop(&a->vq[Q_EQ], &a->chain) != 1)
		return false;
	virtq_push(&a->vq[Q_EQ], a->chain.head, virtq_copy_in(&a->chain, 0, event, sizeof(*event)));
	return true;
}

static void flush_events(struct agent *a)
{
	unsigned int i;

	for (i = 0; i < N_CONNS; i++) {
		struct conn *conn = &a->conn[i];
		struct vtoe_event event = { 0 };

		if (conn->ev_credit) {
			event.type = htole16(VTOE_EV_CREDIT);
			event.u.credit.credit = conn->peer;
			if (put_event(a, conn, &event))
				conn->ev_credit = false;
		}
		memset(&event, 0, sizeof(event));
		event.type = htole16(VTOE_EV_DISCONNECTED);
		if (conn->ev_fin) {
			event.flags = htole16(VTOE_DISC_F_FIN);
			event.u.disconnected.final_offset = htole64(conn->peer_final);
			if (put_event(a, conn, &event))
				conn->ev_fin = false;
		}
		if (conn->ev_reset) {
			event.flags = 0;
			event.u.disconnected.final_offset = 0;
			event.reason = htole32(conn->reason);
			if (put_event(a, conn, &event))
				conn->ev_reset = false;
		}
	}
}

/* ---- orders ---- */

static const char *blast(struct agent *a)
{
	struct vtoe_msg_hdr *hdr = a->tx[0].hdr;
	struct ibv_sge sge = { (uintptr_t)hdr, sizeof(*hdr), a->own_mr->lkey };
	struct ibv_send_wr wr = { .wr_id = WR_ID(WR_BLAST, 0, 0), .sg_list = &sge, .num_sge = 1,
				  .opcode = IBV_WR_SEND }, *bad;
	unsigned int i;

	memset(hdr, 0, sizeof(*hdr));
	for (i = 0; i < SMALL_BUFS + 1; i++)
		if (ibv_post_send(a->lane[1].port[KIND_SMALL].id->qp, &wr, &bad))
			return "posting failed";
	return NULL;
}

/* Answers an order when it is done; order 0 is none. */
static void serve_order(struct agent *a, enum agent_order *order, double *since)
{
	const char *answer = NULL;
	bool done = false;

	if (!*order) {
		if (recv(a->order_fd[0], order, sizeof(*order), MSG_DONTWAIT) != sizeof(*order))
			return;
		*since = now_s();
		if (*order == AGENT_BLAST)
			answer = blast(a);
		if (*order == AGENT_TEARDOWN)
			lanes_disconnect(a);
	}
	switch (*order) {
	case AGENT_WAIT_UP:
		done = lanes_up(a);
		break;
	case AGENT_SINK:
		a->sink = done = true;
		break;
	case AGENT_BLAST:
		done = a->blast_status;
		break;
	case AGENT_TEARDOWN:
		/* rxe of Linux 6.1 never says so: do not wait for ever. */
		done = lanes_drained(a, now_s() - *since > 3);
		break;
	}
	if (!done && !answer && !a->failed && now_s() - *since < 30)
		return;
	if (a->failed)
		answer = a->failed;
	else if (!done && !answer)
		answer = "it was not done after 30 s";
	if (*order == AGENT_TEARDOWN) {
		const char *fault;

		poll_cq(a);
		fault = lanes_close(a);
		answer = answer ? answer : fault;
		a->stop = true;
	}
	*order = 0;
	if (send(a->order_fd[0], &answer, sizeof(answer), 0) < 0)
		perror("agent: order");
}

const char *agent_order(struct agent *a, enum agent_order order, uint32_t *result)
{
	const char *answer = "the agent does not answer";

	if (send(a->order_fd[1], &order, sizeof(order), 0) < 0 ||
	    recv(a->order_fd[1], &answer, sizeof(answer), 0) != sizeof(answer))
		return "the agent does not answer";
	if (order == AGENT_BLAST && !answer && a->blast_status != IBV_WC_RNR_RETRY_EXC_ERR)
		answer = ibv_wc_status_str(a->blast_status);
	if (result)
		*result = a->blast_ok;
	return answer;
}

/* ---- the thread ---- */

static bool work(struct agent *a)
{
	bool any = poll_cq(a);
	unsigned int q;

	any |= feed_srq(a, VNET_RWQ_SMALL);
	any |= feed_srq(a, VNET_RWQ_LARGE);
	any |= serve_swq(a);
	any |= serve_cr(a);
	flush_ctrl(a);
	flush_events(a);
	for (q = 0; q < Q_COUNT; q++)
		virtq_publish_notify(&a->vq[q]);
	return any;
}

static void *agent_main(void *arg)
{
	struct agent *a = arg;
	enum agent_order order = 0;
	struct pollfd fds[Q_COUNT + 4];
	double since = 0;
	unsigned int q;

	for (q = 0; q < Q_COUNT; q++)
		fds[q] = (struct pollfd){ a->vq[q].kick_fd, POLLIN, 0 };
	fds[q++] = (struct pollfd){ a->channel->fd, POLLIN, 0 };
	fds[q++] = (struct pollfd){ a->cm->fd, POLLIN, 0 };
	fds[q++] = (struct pollfd){ a->verbs->async_fd, POLLIN, 0 };
	fds[q++] = (struct pollfd){ a->order_fd[0], POLLIN, 0 };
	while (!a->stop) {
		struct ibv_cq *cq;
		void *context;
		bool again = work(a), rst_waits = false;

		for (q = 0; q < Q_COUNT; q++)
			again |= virtq_enable_kicks(&a->vq[q]) && q != Q_EQ;
		for (q = 0; q < N_CONNS; q++)
			rst_waits |= a->conn[q].rst_pending;
		poll(fds, Q_COUNT + 4, again ? 0 : order || rst_waits ? 20 : -1);
		for (q = 0; q < Q_COUNT; q++)
			if (fds[q].revents)
				virtq_ack_kick(&a->vq[q]);
		if (fds[Q_COUNT].revents && !ibv_get_cq_event(a->channel, &cq, &context)) {
			ibv_ack_cq_events(cq, 1);
			ibv_req_notify_cq(cq, 0);
		}
		if (fds[Q_COUNT + 1].revents)
			lanes_poll_cm(a);
		if (fds[Q_COUNT + 2].revents)
			lanes_poll_async(a);
		serve_order(a, &order, &since);
	}
	return NULL;
}

struct agent *agent_start(const struct agent_config *config)
{
	struct agent *a = calloc(1, sizeof(*a));
	unsigned int i, c;
	int err;

	if (!a)
		return NULL;
	a->cfg = *config;
	guest_mem_init(&a->mem);
	err = guest_mem_add(&a->mem, GUEST_GPA, GUEST_MEM, 0, 0, dup(config->mem_fd));
	for (i = 0; i < Q_COUNT && !err; i++) {
		const struct queue_place *place = &config->queue[i];

		virtq_init(&a->vq[i]);
		a->vq[i].kick_fd = place->kick;
		a->vq[i].call_fd = place->call;
		err = virtq_start(&a->vq[i], &a->mem, place->num, place->desc, place->avail,
				  place->used, 0, true, true, NULL);
	}
	if (!err)
		err = socketpair(AF_UNIX, SOCK_SEQPACKET, 0, a->order_fd) ? -errno : 0;
	if (!err)
		err = lanes_open(a);
	if (err) {
		printf("# host %d: the agent does not start: %s\n", config->host, strerror(-err));
		return NULL;
	}
	for (c = 0; c < VNET_RWQ_CLASSES; c++)
		for (i = 0; i < RWQ_NUM_MAX; i++)
			a->rx[c][i].hdr = agent_own_alloc(a, sizeof(struct vtoe_msg_hdr));
	for (i = 0; i < SWQ_NUM_MAX; i++)
		a->tx[i].hdr = agent_own_alloc(a, sizeof(struct vtoe_msg_hdr));
	for (i = 0; i < N_CONNS; i++) {
		struct conn *conn = &a->conn[i];

		conn->number = i;
		conn->sid = SID_OF(config->host, i);
		conn->cid = CID_OF(config->host, i);
		conn->peer_cid = CID_OF(!config->host, i);
		conn->lane = &a->lane[i % N_LANES];
		conn->state = VTOE_CONN_ESTABLISHED; /* REQ and REP are not part of the spike */
	}
	err = lanes_connect(a);
	if (!err)
		err = pthread_create(&a->thread, NULL, agent_main, a);
	if (err) {
		printf("# host %d: the agent does not start: error %d\n", config->host, err);
		return NULL;
	}
	return a;
}

const struct agent_stats *agent_get_stats(struct agent *a)
{
	return &a->stats;
}

void agent_join(struct agent *a)
{
	unsigned int i;

	pthread_join(a->thread, NULL);
	for (i = 0; i < Q_COUNT; i++)
		virtq_stop(&a->vq[i]);
	guest_mem_clear(&a->mem);
	free(a);
}
