// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Control messages of a lane: all but DATA.
 *
 * Theory of operation. They have a queue pair of their own, since every SEND uses
 * up a receive buffer, and a guest's are promised to data. Its receive buffers are
 * ours, and have a credit of their own: every message between agents says, in
 * lane_limit, how many control messages its writer can take in all. One buffer of
 * the peer's is kept back for the NOP that returns ours.
 *
 * What is to be said waits in a FIFO until the peer has a buffer and we have a
 * slot. CREDIT does not queue: the path is on lane->credits until there is room,
 * and is stamped then. Stamping is where a guest's grant becomes a promise
 * (iba_vvm_grant()).
 *
 * FIN may overtake the data in front of it, and REP be overtaken by the data
 * behind it: verbs_rx.c.
 *
 * Threat model. The peer's agent is authenticated, not trusted: a message is a
 * row of the table with its exact length; reserved fields are zero; a CID counts
 * only on the lane it belongs to; a count in an RST must fit what we promised and
 * received. What is wrong ends the lane. How much a peer can make us queue is
 * bounded: one answer a path, and one REJ for a REQ, of which FIFO_MAX wait.
 */
#include "verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FIFO_FIRST 64u
#define FIFO_MAX (1u << 17)

/* ---- buffers ---- */

static uint8_t *rx_at(struct iba_vlane *lane, unsigned int index)
{
	return lane->ctrl_mem + index * IBA_V_CTRL_MAX;
}

static uint8_t *tx_at(struct iba_vlane *lane, unsigned int index)
{
	return rx_at(lane, IBA_V_CTRL_RX + index);
}

int iba_vctrl_post_rx(struct iba_vlane *lane, unsigned int index)
{
	struct ibv_sge sge = { (uintptr_t)rx_at(lane, index), IBA_V_CTRL_MAX,
			       lane->ctrl_mr->lkey };
	struct ibv_recv_wr wr = {
		.wr_id = iba_v_id(IBA_V_CTRL_RX_WORK, 0, (uint16_t)index, 0),
		.sg_list = &sge,
		.num_sge = 1,
	}, *bad;

	return -ibv_post_recv(lane->qp[IBA_V_CONTROL].id->qp, &wr, &bad);
}

static int alloc_buffers(struct iba_vlane *lane)
{
	size_t size = (IBA_V_CTRL_RX + IBA_V_CTRL_TX) * IBA_V_CTRL_MAX;
	int err = iba_vdev_reserve(lane->dev, iba_vlane_cqes(lane));

	if (err)
		return err;
	lane->ctrl_mem = calloc(1, size);
	if (!lane->ctrl_mem) {
		iba_vdev_release(lane->dev, iba_vlane_cqes(lane));
		return -ENOMEM;
	}
	lane->ctrl_mr = ibv_reg_mr(lane->dev->pd, lane->ctrl_mem, size,
				   IBV_ACCESS_LOCAL_WRITE);
	return lane->ctrl_mr ? 0 : -errno;
}

/* A control queue pair has been made: it can receive before it is connected. */
int iba_vctrl_init(struct iba_vlane *lane)
{
	int err = lane->ctrl_mem ? 0 : alloc_buffers(lane);

	for (unsigned int i = 0; i < IBA_V_CTRL_RX && !err; i++)
		err = iba_vctrl_post_rx(lane, i);
	lane->ctrl_granted = lane->ctrl_told = IBA_V_CTRL_RX;
	return err;
}

/* ---- credit of the lane ---- */

void iba_vctrl_stamp(struct iba_vlane *lane, struct vtoe_msg_hdr *hdr)
{
	hdr->lane_limit = htole32(lane->ctrl_granted);
	lane->ctrl_told = lane->ctrl_granted;
	lane->said_us = loop_now_us();
}

/* The peer has used up half of what it knows that we can take. */
static bool owes_credit(const struct iba_vlane *lane)
{
	return lane->ctrl_granted - lane->ctrl_told >= IBA_V_CTRL_RX / 2;
}

/* Now, or as soon as there are a slot and a buffer of the peer's for it. */
static bool has_to_say(const struct iba_vlane *lane)
{
	return lane->fifo_count || !TAILQ_EMPTY(&lane->credits) ||
	       owes_credit(lane);
}

void iba_vctrl_told(struct iba_vlane *lane, const struct vtoe_msg_hdr *hdr)
{
	uint32_t limit = le32toh(hdr->lane_limit);

	lane->heard_us = iba_clock_us(lane->v->t);
	if ((int32_t)(limit - lane->ctrl_limit) <= 0)
		return;
	lane->ctrl_limit = limit;
	if (has_to_say(lane))
		iba_vlane_mark_dirty(lane);
}

void iba_vlane_short(struct iba_vlane *lane, bool is)
{
	lane->dev->lanes_short += (uint32_t)is - lane->ctrl_short;
	lane->ctrl_short = is;
}

static bool may_send(struct iba_vlane *lane, bool nop)
{
	if (lane->tx_pending >= IBA_V_CTRL_TX) {
		iba_vlane_short(lane, true);
		return false;
	}
	return (int32_t)(lane->ctrl_limit - lane->ctrl_sent) >= (nop ? 1 : 2);
}

static void post(struct iba_vlane *lane, struct vtoe_msg_hdr *hdr,
		 const void *body, uint32_t len)
{
	uint8_t *at = tx_at(lane, lane->tx_next);
	struct ibv_sge sge = { (uintptr_t)at, (uint32_t)sizeof(*hdr) + len,
			       lane->ctrl_mr->lkey };
	struct ibv_send_wr wr = {
		.wr_id = iba_v_id(IBA_V_CTRL_TX_WORK, 0, 0, 0),
		.sg_list = &sge,
		.num_sge = 1,
		.opcode = IBV_WR_SEND,
		.send_flags = IBV_SEND_SOLICITED |
			      (sge.length <= lane->inline_max ? IBV_SEND_INLINE : 0),
	}, *bad;

	iba_vctrl_stamp(lane, hdr);
	memcpy(at, hdr, sizeof(*hdr));
	if (len)
		memcpy(at + sizeof(*hdr), body, len);
	if (ibv_post_send(lane->qp[IBA_V_CONTROL].id->qp, &wr, &bad)) {
		iba_vlane_fail(lane, VTOE_REASON_LANE_LOST,
			       "a control message cannot be posted");
		return;
	}
	lane->tx_next = (lane->tx_next + 1) % IBA_V_CTRL_TX;
	lane->tx_pending++;
	lane->ctrl_sent++;
	lane->stats.ctrl_tx++;
}

void iba_vctrl_done(struct iba_vlane *lane)
{
	if (lane->tx_pending)
		lane->tx_pending--;
	iba_vlane_short(lane, false);
	if (has_to_say(lane))
		iba_vlane_mark_dirty(lane);
}

void iba_vctrl_nop(struct iba_vlane *lane)
{
	struct vtoe_msg_hdr hdr = { .type = VTOE_MSG_NOP };

	if (lane->failed || !may_send(lane, true))
		return;
	post(lane, &hdr, NULL, 0);
	lane->stats.nops++;
}

/* ---- the FIFO ---- */

static struct iba_vctrl *fifo_at(struct iba_vlane *lane, uint32_t i)
{
	return &lane->fifo[(lane->fifo_first + i) & (lane->fifo_size - 1)];
}

static bool fifo_grow(struct iba_vlane *lane)
{
	uint32_t size = lane->fifo_size ? 2 * lane->fifo_size : FIFO_FIRST;
	struct iba_vctrl *fifo;

	if (size > FIFO_MAX)
		return false;
	fifo = malloc(size * sizeof(*fifo));
	if (!fifo)
		return false;
	for (uint32_t i = 0; i < lane->fifo_count; i++)
		fifo[i] = *fifo_at(lane, i);
	free(lane->fifo);
	lane->fifo = fifo;
	lane->fifo_size = size;
	lane->fifo_first = 0;
	return true;
}

static void queue(struct iba_vlane *lane, const struct vtoe_msg_hdr *hdr,
		  const void *body, uint32_t len)
{
	struct iba_vctrl *entry;

	if (lane->state != IBA_VLANE_UP)
		return;
	if (lane->fifo_count == lane->fifo_size && !fifo_grow(lane)) {
		iba_vlane_fail(lane, VTOE_REASON_LIMIT,
			       "the peer does not read control messages");
		return;
	}
	entry = fifo_at(lane, lane->fifo_count++);
	entry->hdr = *hdr;
	entry->len = len;
	if (len)
		memcpy(entry->body, body, len);
	iba_vlane_mark_dirty(lane);
}

/* What the connection grants: as far as it is promised. */
static void put_credit(const struct iba_vpath *path, struct vtoe_msg_hdr *hdr)
{
	struct iba_credit credit = path->conn->rx_credit;

	for (int c = 0; c < VNET_RWQ_CLASSES; c++)
		credit.msg_limit[c] = path->granted[c];
	iba_credit_put(&hdr->credit, &credit);
}

static void forget_credit(struct iba_vpath *path)
{
	if (path->credit_queued)
		TAILQ_REMOVE(&path->lane->credits, path, credit_link);
	path->credit_queued = false;
	path->tx_want = false;
}

void iba_vctrl_send(struct iba_vpath *path, enum vtoe_msg_type type,
		    uint64_t offset, const void *body, uint32_t len)
{
	struct vtoe_msg_hdr hdr = {
		.type = type,
		.len = htole32(len),
		.id = htole32(path->peer_cid),
		.offset = htole64(offset),
	};

	if (!iba_vvm_grant(path))
		return; /* the connection has failed */
	put_credit(path, &hdr);
	if (path->tx_want)
		hdr.flags |= VTOE_MSG_F_WANT_CREDIT;
	if (type != VTOE_MSG_REQ && type != VTOE_MSG_REP)
		forget_credit(path);
	queue(path->lane, &hdr, body, len);
}

void iba_vctrl_credit(struct iba_vpath *path, bool want)
{
	path->tx_want |= want;
	if (path->credit_queued)
		return;
	path->credit_queued = true;
	TAILQ_INSERT_TAIL(&path->lane->credits, path, credit_link);
	iba_vlane_mark_dirty(path->lane);
}

void iba_vctrl_data_credit(struct iba_vpath *path, struct vtoe_msg_hdr *hdr)
{
	put_credit(path, hdr);
	iba_vctrl_stamp(path->lane, hdr);
	forget_credit(path);
}

/* Without a new promise: nothing will be received any more. */
void iba_vctrl_last_credit(struct iba_vpath *path)
{
	struct vtoe_msg_hdr hdr = {
		.type = VTOE_MSG_CREDIT,
		.id = htole32(path->peer_cid),
	};

	put_credit(path, &hdr);
	queue(path->lane, &hdr, NULL, 0);
}

void iba_vctrl_answer(struct iba_vlane *lane, enum vtoe_msg_type type,
		      uint32_t cid, enum vtoe_reason reason,
		      const uint32_t sent[VNET_RWQ_CLASSES])
{
	struct vnet_lane_rej rej = { .reason = htole32(reason) };
	struct vtoe_msg_hdr hdr = {
		.type = type,
		.len = htole32(sizeof(rej)),
		.id = htole32(cid),
	};

	for (int c = 0; sent && c < VNET_RWQ_CLASSES; c++)
		rej.sent[c] = htole32(sent[c]);
	queue(lane, &hdr, &rej, sizeof(rej));
}

void iba_vctrl_offer(struct iba_vlane *lane)
{
	struct vtoe_msg_hdr hdr = {
		.type = VTOE_MSG_RING,
		.len = htole32(sizeof(struct vnet_lane_ring)),
	};
	struct vnet_lane_ring offer;

	if (!lane->v->t->cfg->rdma_write || lane->ring_said)
		return;
	lane->ring_said = true;
	iba_wring_fill_offer(lane, &offer);
	queue(lane, &hdr, &offer, sizeof(offer));
}

static void flush_fifo(struct iba_vlane *lane)
{
	while (lane->fifo_count && !lane->failed) {
		struct iba_vctrl *entry = fifo_at(lane, 0);

		if (!may_send(lane, false)) {
			lane->stats.ctrl_waits++;
			return;
		}
		lane->fifo_first = (lane->fifo_first + 1) & (lane->fifo_size - 1);
		lane->fifo_count--;
		post(lane, &entry->hdr, entry->body, entry->len);
	}
}

static bool is_open(const struct iba_conn *conn)
{
	return conn->state >= VTOE_CONN_ESTABLISHED &&
	       conn->state <= VTOE_CONN_BOTH_FIN;
}

static void flush_credits(struct iba_vlane *lane)
{
	struct iba_vpath *path;

	while ((path = TAILQ_FIRST(&lane->credits)) && !lane->failed &&
	       may_send(lane, false)) {
		struct vtoe_msg_hdr hdr = {
			.type = VTOE_MSG_CREDIT,
			.flags = path->tx_want ? VTOE_MSG_F_WANT_CREDIT : 0,
			.id = htole32(path->peer_cid),
		};

		if (!path->peer_known || !is_open(path->conn)) {
			path->credit_owed |= !path->peer_known;
			forget_credit(path);
			continue;
		}
		if (!iba_vvm_grant(path))
			continue; /* it has left the list, and the lane */
		put_credit(path, &hdr);
		forget_credit(path);
		post(lane, &hdr, NULL, 0);
	}
}

void iba_vctrl_flush(struct iba_vlane *lane)
{
	flush_fifo(lane);
	if (lane->state == IBA_VLANE_UP && !lane->fifo_count)
		flush_credits(lane);
	if (owes_credit(lane))
		iba_vctrl_nop(lane);
}

bool iba_verbs_dirty(const struct iba_tenant *t)
{
	return t->verbs && !TAILQ_EMPTY(&t->verbs->dirty_lanes);
}

void iba_verbs_flush(struct iba_tenant *t)
{
	struct iba_verbs *v = t->verbs;
	struct iba_vlane *lane;

	while (v && (lane = TAILQ_FIRST(&v->dirty_lanes))) {
		TAILQ_REMOVE(&v->dirty_lanes, lane, dirty_link);
		lane->dirty = false;
		if (lane->state != IBA_VLANE_UP &&
		    lane->state != IBA_VLANE_CLOSING)
			continue;
		if (!lane->failed)
			iba_vctrl_flush(lane);
		if (lane->failed)
			iba_vlane_end(lane, lane->failed_reason, lane->failed);
	}
}

/* ---- what comes ---- */

static int malformed(struct iba_vlane *lane, const char *what)
{
	lane->v->t->drops[IBA_DROP_LANE_MALFORMED]++;
	iba_vlane_end(lane, VTOE_REASON_PROTOCOL, what);
	return -EPROTO;
}

static struct iba_vpath *find_path(struct iba_vlane *lane,
				   const struct vtoe_msg_hdr *hdr)
{
	struct iba_vpath *path = iba_vpath_find(lane, le32toh(hdr->id));

	if (!path)
		lane->v->t->drops[IBA_DROP_UNKNOWN_CID]++;
	return path;
}

static bool sizes_ok(const __le32 size[VNET_RWQ_CLASSES])
{
	uint32_t small = le32toh(size[VNET_RWQ_SMALL]);
	uint32_t large = le32toh(size[VNET_RWQ_LARGE]);

	return small && small <= large && large <= VTOE_MSG_LEN_MAX;
}

static int rx_req(struct iba_vlane *lane, const struct vtoe_msg_hdr *hdr,
		  const void *body)
{
	struct iba_conn *conn = NULL;
	struct vnet_lane_req req;
	enum vtoe_reason reason;

	memcpy(&req, body, sizeof(req));
	if (hdr->id || req.reserved || lane->ring_due ||
	    !sizes_ok(req.rwq_buf_size) ||
	    memcmp(req.local_mac, lane->remote_mac, VNET_MAC_LEN) ||
	    memcmp(req.remote_mac, lane->local_mac, VNET_MAC_LEN))
		return malformed(lane, "bad REQ");
	reason = iba_open_req(lane->v->t, &iba_fabric_verbs, hdr, &req, &conn);
	if (!reason && !iba_vpath_join(lane, conn)) {
		iba_conn_fail(conn, VTOE_REASON_LIMIT, false);
		reason = VTOE_REASON_LIMIT;
	}
	if (reason) {
		lane->v->t->drops[IBA_DROP_REQ_REFUSED]++;
		iba_vctrl_answer(lane, VTOE_MSG_REJ, le32toh(req.cid), reason,
				 NULL);
		return 0;
	}
	conn->vpath->peer_cid = conn->peer_cid;
	conn->vpath->peer_known = true;
	return 0;
}

/* Else its REQ has granted less than the guest would. */
static bool granted_all(const struct iba_vpath *path)
{
	return !memcmp(path->granted, path->conn->rx_credit.msg_limit,
		       sizeof(path->granted));
}

static int rx_rep(struct iba_vlane *lane, const struct vtoe_msg_hdr *hdr,
		  const void *body)
{
	struct iba_vpath *path;
	struct vnet_lane_rep rep;

	memcpy(&rep, body, sizeof(rep));
	if (rep.reserved || lane->ring_due || !sizes_ok(rep.rwq_buf_size))
		return malformed(lane, "bad REP");
	path = find_path(lane, hdr);
	if (!path)
		return 0;
	if (!path->conn || !(path->conn->flags & IBA_CONN_F_AWAIT_REP))
		return malformed(lane, "REP out of place");
	path->peer_cid = le32toh(rep.cid);
	path->peer_known = true;
	iba_open_rep(path->conn, hdr, &rep);
	/* the path is there still if the connection wanted it */
	path = iba_vpath_find(lane, le32toh(hdr->id));
	if (!path || !path->conn)
		return 0;
	if (path->credit_owed || !granted_all(path))
		iba_vctrl_credit(path, false);
	iba_vrx_early(path);
	return 0;
}

static int rx_rej(struct iba_vlane *lane, const struct vtoe_msg_hdr *hdr,
		  enum vtoe_reason reason)
{
	struct iba_vpath *path = find_path(lane, hdr);

	if (!path)
		return 0;
	if (!path->conn || !(path->conn->flags & IBA_CONN_F_AWAIT_REP))
		return malformed(lane, "REJ out of place");
	iba_open_rej(path->conn, reason);
	return 0;
}

/* Answered once, so that the peer knows as well what may still come. */
static int rx_rst(struct iba_vlane *lane, const struct vtoe_msg_hdr *hdr,
		  const struct vnet_lane_rej *rej, enum vtoe_reason reason)
{
	struct iba_vpath *path = find_path(lane, hdr);

	if (!path)
		return 0;
	if (path->counted || (path->conn && !path->peer_known))
		return malformed(lane, "RST out of place");
	for (int c = 0; c < VNET_RWQ_CLASSES; c++) {
		uint32_t sent = le32toh(rej->sent[c]);

		if (path->granted[c] - sent > path->granted[c] - path->received[c])
			return malformed(lane, "RST counts wrongly");
		path->peer_sent[c] = sent;
	}
	path->counted = true;
	if (!path->rst_sent)
		iba_vctrl_answer(lane, VTOE_MSG_RST, path->peer_cid,
				 VTOE_REASON_RESET, path->sent);
	path->rst_sent = true;
	if (path->conn)
		iba_recv_rst(path->conn, reason);
	else
		iba_vpath_settle(path);
	return 0;
}

static int rx_rej_rst(struct iba_vlane *lane, const struct vtoe_msg_hdr *hdr,
		      const void *body)
{
	struct vnet_lane_rej rej;
	uint32_t reason;

	memcpy(&rej, body, sizeof(rej));
	if (rej.reserved)
		return malformed(lane, "bad REJ or RST");
	reason = le32toh(rej.reason);
	if (reason == VTOE_REASON_NONE || reason >= VTOE_REASON_COUNT)
		reason = VTOE_REASON_RESET; /* a newer version's */
	return hdr->type == VTOE_MSG_RST ? rx_rst(lane, hdr, &rej, reason) :
					   rx_rej(lane, hdr, reason);
}

static int rx_bare(struct iba_vlane *lane, const struct vtoe_msg_hdr *hdr,
		   const void *body)
{
	struct iba_vpath *path;

	(void)body;
	if (hdr->type == VTOE_MSG_NOP)
		return 0;
	path = find_path(lane, hdr);
	if (!path || !path->conn)
		return 0;
	if (hdr->type == VTOE_MSG_CREDIT)
		iba_recv_credit(path->conn, hdr);
	else
		iba_vrx_fin(path, hdr);
	return 0;
}

static int rx_ring(struct iba_vlane *lane, const struct vtoe_msg_hdr *hdr,
		   const void *body)
{
	struct vnet_lane_ring offer;

	memcpy(&offer, body, sizeof(offer));
	if (hdr->id || !lane->ring_due || !iba_wring_offered(lane, &offer))
		return malformed(lane, "bad RING");
	lane->ring_due = false;
	return 0;
}

struct rx_row {
	uint32_t len; /* of the body */
	int (*fn)(struct iba_vlane *lane, const struct vtoe_msg_hdr *hdr,
		  const void *body);
};

static const struct rx_row rx_rows[] = {
	[VTOE_MSG_CREDIT] = { 0, rx_bare },
	[VTOE_MSG_REQ] = { sizeof(struct vnet_lane_req), rx_req },
	[VTOE_MSG_REP] = { sizeof(struct vnet_lane_rep), rx_rep },
	[VTOE_MSG_REJ] = { sizeof(struct vnet_lane_rej), rx_rej_rst },
	[VTOE_MSG_FIN] = { 0, rx_bare },
	[VTOE_MSG_RST] = { sizeof(struct vnet_lane_rej), rx_rej_rst },
	[VTOE_MSG_NOP] = { 0, rx_bare },
	[VTOE_MSG_RING] = { sizeof(struct vnet_lane_ring), rx_ring },
};
#define RX_ROWS (sizeof(rx_rows) / sizeof(rx_rows[0]))

void iba_vctrl_received(struct iba_vlane *lane, unsigned int index,
			uint32_t bytes)
{
	uint8_t msg[IBA_V_CTRL_MAX];
	struct vtoe_msg_hdr hdr;

	memcpy(msg, rx_at(lane, index), sizeof(msg));
	memcpy(&hdr, msg, sizeof(hdr));
	if (iba_vctrl_post_rx(lane, index)) {
		iba_vlane_end(lane, VTOE_REASON_LANE_LOST,
			      "a receive buffer cannot be posted");
		return;
	}
	lane->ctrl_granted++;
	lane->stats.ctrl_rx++;
	if (owes_credit(lane))
		iba_vlane_mark_dirty(lane);
	if (bytes < sizeof(hdr) || hdr.type >= RX_ROWS || !rx_rows[hdr.type].fn) {
		malformed(lane, "message type");
		return;
	}
	if (hdr.reserved || (hdr.flags & ~VTOE_MSG_F_WANT_CREDIT) ||
	    le32toh(hdr.len) != rx_rows[hdr.type].len ||
	    bytes != sizeof(hdr) + rx_rows[hdr.type].len) {
		malformed(lane, "message header");
		return;
	}
	iba_vctrl_told(lane, &hdr);
	iba_vctrl_offer(lane);
	/* no VM any more: only what lets us speak counts */
	if (lane->state == IBA_VLANE_UP)
		rx_rows[hdr.type].fn(lane, &hdr, msg + sizeof(hdr));
}
