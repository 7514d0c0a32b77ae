// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Completions of a device, and DATA that has come.
 *
 * Theory of operation. One completion queue has everything of a device, in the
 * order in which it happened. A receive completion on an SRQ means that a message
 * lies in a guest's buffer, and its header in our memory (verbs_mem.c). The queue
 * pair's number tells the lane, the header's CID the path. The header is checked
 * as on any fabric (iba_deliver_placed()), written in front of the payload with
 * our guest's SID, and the buffer is used. Nothing else is copied. What the peer
 * has written in place of sending it is copied into that buffer first
 * (verbs_ring.c).
 *
 * Three queue pairs keep their own order only:
 *  - messages of the two classes overtake each other: the guest orders by offset;
 *  - FIN may overtake data: it is held until all bytes before it have come, so that
 *    DISCONNECTED follows what it ends;
 *  - data may overtake the REP it follows: it waits (path->early) for the REP.
 *
 * Data for a connection that has ended, or for a lane that is not there any more,
 * only frees its buffer, which is posted again.
 *
 * Threat model. The peer's agent is authenticated, not trusted. It can send only
 * into buffers that a guest has posted, and uses up one a message: a message
 * that was not promised ends its lane at once. (Write: verbs_ring.c.) A guest
 * cannot touch what is judged here: the header is ours.
 */
#include "verbs.h"

#include <string.h>

#define HDR ((uint32_t)sizeof(struct vtoe_msg_hdr))

/* ---- DATA ---- */

static void malformed(struct iba_vlane *lane, const char *what)
{
	lane->v->t->drops[IBA_DROP_LANE_MALFORMED]++;
	iba_vlane_end(lane, VTOE_REASON_PROTOCOL, what);
}

/* What is wrong with it; NULL: nothing. */
static const char *check(const struct iba_vlane *lane, const struct iba_vrx *rx,
			 uint32_t bytes)
{
	const struct vtoe_msg_hdr *hdr = rx->hdr;
	uint32_t len = le32toh(hdr->len);

	if (bytes <= HDR || bytes - HDR != len || len > VTOE_MSG_LEN_MAX)
		return "length of DATA";
	if (hdr->type != VTOE_MSG_DATA || hdr->reserved ||
	    (hdr->flags & ~iba_msg_flags(VTOE_MSG_DATA)))
		return "header of DATA";
	if (iba_deliver_class(lane->vvm->vm, len) != rx->class)
		return "class of DATA";
	return NULL;
}

static void put_header(const struct iba_vrx *rx, const struct vtoe_msg_hdr *hdr)
{
	const char *from = (const char *)hdr;

	for (unsigned int i = 0; i < rx->hdr_count; i++) {
		memcpy(rx->hdr_iov[i].iov_base, from, rx->hdr_iov[i].iov_len);
		from += rx->hdr_iov[i].iov_len;
	}
}

static void fin_due(struct iba_vpath *path)
{
	if (!path->fin_held || !path->conn ||
	    path->conn->rx_offset < le64toh(path->fin.offset))
		return;
	path->fin_held = false;
	path->rx_complete = path->conn->rx_offset == le64toh(path->fin.offset);
	iba_recv_fin(path->conn, &path->fin);
}

/* Counted already. The path may be gone behind this. */
static void deliver(struct iba_vpath *path, struct iba_vrx *rx)
{
	struct iba_vlane *lane = path->lane;
	struct iba_vm *vm = lane->vvm->vm;
	uint32_t len = le32toh(rx->hdr->len);
	struct vtoe_msg_hdr out;

	if (iba_deliver_placed(path->conn, rx->hdr, &out)) {
		if (lane->vvm)
			iba_vvm_recycle(lane->vvm, rx);
		return;
	}
	put_header(rx, &out);
	rx->posted = false;
	iba_deliver_end(vm, rx->class, rx->head, len);
	lane->stats.rx_msgs++;
	lane->stats.rx_bytes += len;
	fin_due(path);
}

static bool before_rep(const struct iba_conn *conn)
{
	return conn->state == VTOE_CONN_REQ_SENT;
}

/* Of a WRITE: copied once, so that the peer cannot change what is judged. */
static const char *fetch_header(const struct iba_vrx *rx, const void *slot)
{
	if (!slot)
		return "WRITE out of place";
	memcpy(rx->hdr, slot, HDR);
	return NULL;
}

/* What check() has let pass fits both the slot and the guest's buffer. */
static void fetch_payload(struct iba_vlane *lane, const struct iba_vrx *rx,
			  const char *slot)
{
	uint32_t len = le32toh(rx->hdr->len);

	iba_wring_copy(rx, slot + HDR, len);
	lane->stats.rx_writes++;
	lane->stats.rx_copied_bytes += len;
}

static void data_received(struct iba_vlane *lane, struct iba_vrx *rx,
			  const struct ibv_wc *wc)
{
	bool written = iba_wring_written(lane->dev, wc);
	uint32_t bytes = wc->byte_len;
	struct iba_vvm *vvm = lane->vvm;
	struct iba_vpath *path = NULL;
	const char *wrong = NULL;
	const void *slot = NULL;

	if (written) {
		slot = iba_wring_take(lane, rx->class, wc);
		wrong = fetch_header(rx, slot);
		if (wc->opcode == IBV_WC_RECV) /* behind it: the length is not its own */
			bytes = HDR + le32toh(rx->hdr->len);
	}
	if (!wrong)
		wrong = check(lane, rx, bytes);
	if (!wrong)
		path = iba_vpath_find(lane, le32toh(rx->hdr->id));
	if (!wrong && (!path || path->received[rx->class] ==
				       path->granted[rx->class]))
		wrong = "more DATA than it was granted";
	if (wrong) {
		iba_vvm_recycle(vvm, rx);
		malformed(lane, wrong);
		return;
	}
	iba_vctrl_told(lane, rx->hdr);
	path->received[rx->class]++;
	vvm->promised[rx->class]--;
	if (written && path->conn)
		fetch_payload(lane, rx, slot);
	if (!path->conn) {
		vvm->ghosts[rx->class]--;
		lane->stats.rx_recycled++;
		iba_vvm_recycle(vvm, rx);
		iba_vpath_settle(path);
	} else if (before_rep(path->conn)) {
		rx->next = NULL;
		*path->early_last = rx;
		path->early_last = &rx->next;
		lane->stats.rx_early++;
	} else {
		deliver(path, rx);
	}
}

void iba_vrx_early(struct iba_vpath *path)
{
	struct iba_vlane *lane = path->lane;
	uint32_t cid = path->cid;
	struct iba_vrx *rx;

	while (path && path->conn && (rx = path->early_first)) {
		path->early_first = rx->next;
		if (!path->early_first)
			path->early_last = &path->early_first;
		deliver(path, rx);
		path = iba_vpath_find(lane, cid); /* if it has not ended */
	}
	if (path)
		fin_due(path);
}

void iba_vrx_fin(struct iba_vpath *path, const struct vtoe_msg_hdr *hdr)
{
	if (path->fin_held || path->rx_complete) {
		malformed(path->lane, "FIN twice");
		return;
	}
	path->fin = *hdr;
	path->fin_held = true;
	if (!before_rep(path->conn))
		fin_due(path);
}

/* ---- completions ---- */

/* The first message may come before the last of the RTUs, not of the queue pairs. */
static bool whole(const struct iba_vlane *lane)
{
	for (unsigned int k = 0; k < IBA_V_KINDS; k++)
		if (!lane->qp[k].id)
			return false;
	return true;
}

static void rx_done(struct iba_vdev *dev, const struct ibv_wc *wc,
		    struct iba_vlane *lane)
{
	struct iba_vvm *vvm = iba_vvm_by_number(dev->v, (uint32_t)wc->wr_id);
	unsigned int class = wc->wr_id >> 48 & 0xff;
	uint16_t head = (uint16_t)(wc->wr_id >> 32);
	struct iba_vrx *rx;

	if (!vvm) /* the VM has left */
		return;
	rx = &vvm->rx[class][head];
	if (!rx->posted)
		return;
	vvm->posted[class]--;
	if (!wc->status && iba_vloop_is(vvm, class, wc->qp_num)) {
		iba_vloop_received(vvm, rx);
		return;
	}
	if (wc->status || !lane || lane->vvm != vvm) {
		iba_vvm_recycle(vvm, rx);
		if (wc->status && wc->status != IBV_WC_WR_FLUSH_ERR && lane)
			iba_vlane_end(lane, VTOE_REASON_LANE_LOST,
				      ibv_wc_status_str(wc->status));
		return;
	}
	if (lane->state == IBA_VLANE_ACCEPTING) {
		if (!whole(lane)) {
			iba_vvm_recycle(vvm, rx);
			iba_vlane_end(lane, VTOE_REASON_PROTOCOL,
				      "data before its queue pairs");
			return;
		}
		iba_vlane_up(lane);
	}
	data_received(lane, rx, wc);
}

static void tx_done(struct iba_vdev *dev, const struct ibv_wc *wc)
{
	struct iba_vvm *vvm = iba_vvm_by_number(dev->v, (uint32_t)wc->wr_id);
	uint16_t head = (uint16_t)(wc->wr_id >> 32);

	if (vvm)
		iba_vvm_tx_done(vvm, head);
}

static void ctrl_rx_done(struct iba_vlane *lane, const struct ibv_wc *wc)
{
	if (lane->state == IBA_VLANE_ACCEPTING && !wc->status) {
		if (!whole(lane)) {
			iba_vlane_end(lane, VTOE_REASON_PROTOCOL,
				      "a message before its queue pairs");
			return;
		}
		iba_vlane_up(lane);
	}
	if (!wc->status && (lane->state == IBA_VLANE_UP ||
			    lane->state == IBA_VLANE_CLOSING))
		iba_vctrl_received(lane, (uint16_t)(wc->wr_id >> 32),
				   wc->byte_len);
}

static void completed(struct iba_vdev *dev, const struct ibv_wc *wc)
{
	struct iba_vqp *qp = iba_vdev_qp(dev, wc->qp_num);
	struct iba_vlane *lane = qp ? qp->lane : NULL;
	enum iba_v_work work = wc->wr_id >> 56;

	if (work == IBA_V_RX) {
		rx_done(dev, wc, lane);
		return;
	}
	if (work == IBA_V_LOOP) {
		iba_vloop_sent(dev, wc);
		return;
	}
	if (work == IBA_V_TX)
		tx_done(dev, wc);
	else if (!lane) /* it is gone, and so is what waited for this */
		return;
	else if (work == IBA_V_TX_EARLY)
		qp->early -= qp->early > 0;
	else if (work == IBA_V_CTRL_TX_WORK)
		iba_vctrl_done(lane);
	else if (work == IBA_V_CTRL_RX_WORK)
		ctrl_rx_done(lane, wc);
	if (wc->status && wc->status != IBV_WC_WR_FLUSH_ERR && lane)
		iba_vlane_end(lane, VTOE_REASON_LANE_LOST,
			      ibv_wc_status_str(wc->status));
}

static bool next_completion(struct iba_vdev *dev, struct ibv_wc *wc)
{
	int n;

	if (dev->dead)
		return false;
	if (dev->wc_next == dev->wc_count) {
		n = ibv_poll_cq(dev->cq, IBA_V_WC, dev->wc);
		dev->wc_next = 0;
		dev->wc_count = n > 0 ? (unsigned int)n : 0;
		if (n < 0)
			iba_vdev_dead(dev, "its completion queue is lost");
		if (n <= 0)
			return false;
	}
	*wc = dev->wc[dev->wc_next++];
	return true;
}

/*
 * Also called while one of its completions is handled (a lane ends, a buffer is
 * fetched back): then those that were taken before go first, in their order.
 */
unsigned int iba_vrx_poll(struct iba_vdev *dev, unsigned int max)
{
	unsigned int done = 0;
	struct ibv_wc wc;

	while (done < max && next_completion(dev, &wc)) {
		completed(dev, &wc);
		done++;
	}
	return done;
}

void iba_vrx_drain(struct iba_vdev *dev)
{
	while (iba_vrx_poll(dev, IBA_V_WC))
		;
}
