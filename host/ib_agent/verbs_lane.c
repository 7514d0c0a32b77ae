// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lanes between two VMs: birth, who is on them, what happens when one ends.
 *
 * Theory of operation. A queue pair belongs to the SRQ that it was made with, and
 * that to a VM: so a lane joins two VMs, by a queue pair a class, and one for
 * control messages with receive buffers of the agent's own. All connections
 * between the two share it; they are opened in band, and so cost no queue pair.
 * For each connection there is a path (struct iba_vpath): what the peer was
 * promised of our guest's buffers for it, and what has come.
 *
 *   made (verbs_open.c) -> UP -> DRAINING -> DEAD
 *   a VM that leaves: UP -> CLOSING (its connections' last words) -> DRAINING
 *
 * The end of a connection. Its messages may be under way on the class queue pairs
 * when the RST on the third arrives. An RST is answered by an RST, once, and each
 * says how many messages of a class were sent in all: when so many have come the
 * path is settled, and what was promised beyond that is free. A path whose FIN
 * and all before it have come needs none of this. A peer that does not answer
 * keeps buffers from our guest: its lane ends after LEAVE_US.
 *
 * The end of a lane. Queue pairs go to ERROR and the peer is told (DREQ). Until
 * LAST_WQE_REACHED a queue pair may still complete elements of the SRQ; then it is
 * destroyed, or after DRAIN_US, since rxe of Linux 6.1 never says so.
 *
 * References: a path is on lane->path until it is settled or the lane is
 * released; conn->vpath and path->conn point to each other while the connection
 * is on the lane. A lane is freed by iba_verbs_bury() at the end of the pass.
 */
#include "verbs.h"

#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#define MAKE_US (3 * 1000000ull) /* a lane, before another fabric is tried */
#define DRAIN_US (1000000ull)
#define CLOSE_US (1000000ull)
#define LEAVE_US (30 * 1000000ull) /* for the answer to an RST */
#define SILENCE_US (2 * 1000000ull) /* then a NOP shows whether the peer is there */
#define SILENCE_MAX_US (15 * 1000000ull) /* of the peer, which does the same */

const char *iba_vlane_state_name(unsigned int state)
{
	static const char *const names[] = {
#define X(name, str) [IBA_VLANE_##name] = str,
		IBA_VLANE_STATES(X)
#undef X
	};

	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

/* ---- the object ---- */

struct iba_vlane *iba_vlane_create(struct iba_verbs *v,
				   enum iba_vlane_state state)
{
	struct iba_vlane *lane;

	if (v->lane_count >= IBA_LANES_MAX)
		return NULL;
	lane = calloc(1, sizeof(*lane));
	if (!lane)
		return NULL;
	lane->v = v;
	lane->state = state;
	lane->deadline_us = iba_clock_us(v->t) + MAKE_US;
	for (unsigned int i = 0; i < IBA_V_BUCKETS; i++)
		TAILQ_INIT(&lane->path[i]);
	TAILQ_INIT(&lane->credits);
	TAILQ_INIT(&lane->leaving);
	for (unsigned int k = 0; k < IBA_V_KINDS; k++) {
		lane->qp[k].lane = lane;
		lane->qp[k].kind = (uint8_t)k;
	}
	if (state == IBA_VLANE_ACCEPTING)
		v->lanes_accepting++;
	TAILQ_INSERT_TAIL(&v->lanes, lane, link);
	v->lane_count++;
	iba_tenant_need_tick(v->t);
	return lane;
}

void iba_vlane_set_state(struct iba_vlane *lane,
			 enum iba_vlane_state state)
{
	log_debug("lane %s: tenant %u: %s -> %s", lane->name, lane->v->t->id,
		  iba_vlane_state_name(lane->state),
		  iba_vlane_state_name(state));
	if (lane->state == IBA_VLANE_ACCEPTING)
		lane->v->lanes_accepting--;
	lane->state = (uint8_t)state;
}

void iba_vlane_mark_dirty(struct iba_vlane *lane)
{
	if (lane->dirty || lane->state == IBA_VLANE_DEAD)
		return;
	lane->dirty = true;
	TAILQ_INSERT_TAIL(&lane->v->dirty_lanes, lane, dirty_link);
}

static void unlink_lane(struct iba_vlane *lane)
{
	struct iba_verbs *v = lane->v;

	iba_vlane_set_state(lane, IBA_VLANE_DEAD);
	if (lane->dirty)
		TAILQ_REMOVE(&v->dirty_lanes, lane, dirty_link);
	lane->dirty = false;
	TAILQ_REMOVE(&v->lanes, lane, link);
	v->lane_count--;
	OPENSSL_cleanse(lane->token, sizeof(lane->token));
	TAILQ_INSERT_TAIL(&v->dead_lanes, lane, dead_link);
}

void iba_verbs_bury(struct iba_tenant *t)
{
	struct iba_vlane *lane;

	while (t->verbs && (lane = TAILQ_FIRST(&t->verbs->dead_lanes))) {
		TAILQ_REMOVE(&t->verbs->dead_lanes, lane, dead_link);
		free(lane->fifo);
		free(lane);
	}
}

/* ---- paths ---- */

static struct iba_vpath_list *bucket_of(struct iba_vlane *lane, uint32_t cid)
{
	return &lane->path[cid % IBA_V_BUCKETS];
}

struct iba_vpath *iba_vpath_find(struct iba_vlane *lane, uint32_t cid)
{
	struct iba_vpath *path;

	TAILQ_FOREACH(path, bucket_of(lane, cid), link)
		if (path->cid == cid)
			return path;
	return NULL;
}

struct iba_vpath *iba_vpath_join(struct iba_vlane *lane, struct iba_conn *conn)
{
	struct iba_vpath *path = calloc(1, sizeof(*path));

	if (!path)
		return NULL;
	path->lane = lane;
	path->conn = conn;
	path->cid = conn->cid;
	path->early_last = &path->early_first;
	conn->vpath = path;
	TAILQ_INSERT_TAIL(bucket_of(lane, path->cid), path, link);
	lane->path_count++;
	return path;
}

static void forget_credit(struct iba_vpath *path)
{
	if (path->credit_queued)
		TAILQ_REMOVE(&path->lane->credits, path, credit_link);
	path->credit_queued = false;
}

static void path_free(struct iba_vpath *path)
{
	struct iba_vlane *lane = path->lane;

	forget_credit(path);
	if (path->starved)
		TAILQ_REMOVE(&lane->vvm->starved, path, starved_link);
	if (!path->conn)
		TAILQ_REMOVE(&lane->leaving, path, leave_link);
	TAILQ_REMOVE(bucket_of(lane, path->cid), path, link);
	lane->path_count--;
	free(path);
}

/* Of a path without connection: n messages more will not come. */
static void unpromise(struct iba_vpath *path, unsigned int class, uint32_t n)
{
	if (path->lane->vvm)
		iba_vvm_unpromise(path->lane->vvm, class, n);
	path->granted[class] -= n;
}

void iba_vpath_settle(struct iba_vpath *path)
{
	bool known = path->rx_complete || !path->peer_known || path->counted;
	struct iba_vvm *vvm = path->lane->vvm;
	bool open = false;

	for (unsigned int c = 0; c < VNET_RWQ_CLASSES; c++) {
		uint32_t left = path->granted[c] - path->received[c];

		if (known && path->counted && !path->rx_complete)
			left = path->granted[c] - path->peer_sent[c];
		if (known && left)
			unpromise(path, c, left);
		open |= path->granted[c] != path->received[c];
	}
	if (open)
		return;
	path_free(path);
	if (vvm)
		iba_vvm_feed_starved(vvm);
}

static void drop_early(struct iba_vpath *path)
{
	struct iba_vrx *rx;

	while ((rx = path->early_first)) {
		path->early_first = rx->next;
		if (path->lane->vvm)
			iba_vvm_recycle(path->lane->vvm, rx);
	}
	path->early_last = &path->early_first;
}

void iba_vpath_leave(struct iba_vpath *path)
{
	struct iba_vlane *lane = path->lane;
	struct iba_vvm *vvm = lane->vvm;

	path->conn->vpath = NULL;
	path->conn = NULL;
	path->deadline_us = iba_clock_us(lane->v->t) + LEAVE_US;
	TAILQ_INSERT_TAIL(&lane->leaving, path, leave_link);
	path->fin_held = false;
	forget_credit(path);
	drop_early(path);
	for (int c = 0; vvm && c < VNET_RWQ_CLASSES; c++)
		vvm->ghosts[c] += path->granted[c] - path->received[c];
	iba_vpath_settle(path);
}

static struct iba_vpath *any_path(struct iba_vlane *lane, bool with_conn)
{
	struct iba_vpath *path;

	for (unsigned int i = 0; i < IBA_V_BUCKETS; i++)
		TAILQ_FOREACH(path, &lane->path[i], link)
			if (!with_conn || path->conn)
				return path;
	return NULL;
}

/* ---- up ---- */

void iba_vlane_up(struct iba_vlane *lane)
{
	struct iba_vpath *path, *next;

	iba_vlane_set_state(lane, IBA_VLANE_UP);
	lane->heard_us = iba_clock_us(lane->v->t);
	lane->said_us = loop_now_us();
	OPENSSL_cleanse(lane->token, sizeof(lane->token));
	log_info("lane %s: tenant %u: up, verbs on %s, %s", lane->name,
		 lane->v->t->id, ibv_get_device_name(lane->dev->ctx->device),
		 lane->active ? "active" : "passive");
	if (lane->active) /* MPA (RFC 5044 section 7.1.2) wants the other side to wait */
		iba_vctrl_offer(lane);
	for (unsigned int i = 0; i < IBA_V_BUCKETS; i++)
		for (path = TAILQ_FIRST(&lane->path[i]); path; path = next) {
			next = TAILQ_NEXT(path, link);
			iba_open_path_up(path->conn);
		}
}

/* ---- ends ---- */

static void drop_conn(struct iba_conn *conn, bool was_up,
		      enum vtoe_reason reason)
{
	conn->flags &= (uint16_t)~IBA_CONN_F_AWAIT_REP;
	iba_vpath_leave(conn->vpath);
	if (conn->flags & IBA_CONN_F_ORPHAN)
		iba_conn_orphan_done(conn);
	else if (was_up)
		iba_conn_fail(conn, VTOE_REASON_LANE_LOST, false);
	else if (conn->state == VTOE_CONN_ROUTE_WAIT)
		iba_open_path_failed(conn, reason);
}

static void drop_conns(struct iba_vlane *lane, bool was_up,
		       enum vtoe_reason reason)
{
	struct iba_vpath *path;

	while ((path = any_path(lane, true)))
		drop_conn(path->conn, was_up, reason);
}

/* What was promised on it will not be sent. True: something was. */
static bool free_paths(struct iba_vlane *lane)
{
	struct iba_vpath *path;
	bool any = false;

	while ((path = any_path(lane, false))) {
		for (unsigned int c = 0; c < VNET_RWQ_CLASSES; c++) {
			uint32_t left = path->granted[c] - path->received[c];

			unpromise(path, c, left);
			any |= left > 0;
		}
		path_free(path);
	}
	return any;
}

static void leave_srqs(struct iba_vlane *lane, struct iba_vvm *vvm, bool broken)
{
	if (lane->on_srqs)
		iba_vvm_lane_gone(vvm, broken);
	lane->on_srqs = false;
}

/* Completes what is posted on it: flushed. */
static void stop_qp(const struct iba_vqp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };

	if (qp->id && qp->id->qp)
		ibv_modify_qp(qp->id->qp, &attr, IBV_QP_STATE);
}

/*
 * Some drivers drop completions of a queue pair that is destroyed (libmlx5), others
 * keep them (librxe): they are taken before and after it. False: the device has
 * gone meanwhile, and the lane with it.
 */
static bool destroy_qps(struct iba_vlane *lane)
{
	struct iba_vdev *dev = lane->dev;

	if (lane->on_srqs && !dev->dead) {
		for (unsigned int k = 0; k < IBA_V_KINDS; k++)
			stop_qp(&lane->qp[k]);
		iba_vrx_drain(dev);
	}
	for (unsigned int k = 0; k < IBA_V_KINDS; k++)
		iba_vcm_destroy(&lane->qp[k]);
	if (lane->on_srqs)
		iba_vrx_drain(dev);
	if (lane->state == IBA_VLANE_DEAD)
		return false;
	if (lane->vvm)
		iba_vvm_forget_tx(lane->vvm, lane);
	return true;
}

void iba_vlane_release(struct iba_vlane *lane)
{
	struct iba_vvm *vvm = lane->vvm;
	bool broken;

	if (lane->state == IBA_VLANE_DEAD)
		return;
	if (!destroy_qps(lane))
		return;
	broken = free_paths(lane);
	iba_vlane_short(lane, false);
	if (lane->ctrl_mr && !lane->dev->dead)
		ibv_dereg_mr(lane->ctrl_mr);
	if (lane->ctrl_mem)
		iba_vdev_release(lane->dev, iba_vlane_cqes(lane));
	free(lane->ctrl_mem);
	iba_wring_destroy(lane);
	lane->ctrl_mr = NULL;
	lane->ctrl_mem = NULL;
	lane->vvm = NULL;
	unlink_lane(lane);
	leave_srqs(lane, vvm, broken);
}

/* ERROR first, then the request to disconnect: rdma_disconnect() does both. */
static void disconnect(struct iba_vlane *lane)
{
	iba_vlane_set_state(lane, IBA_VLANE_DRAINING);
	lane->deadline_us = iba_clock_us(lane->v->t) + DRAIN_US;
	for (unsigned int k = 0; k < IBA_V_KINDS; k++)
		if (lane->qp[k].id)
			rdma_disconnect(lane->qp[k].id);
	iba_tenant_need_tick(lane->v->t);
}

static bool drained(const struct iba_vlane *lane)
{
	return !lane->vvm || (lane->qp[VNET_LANE_QP_SMALL].last_wqe &&
			      lane->qp[VNET_LANE_QP_LARGE].last_wqe);
}

void iba_vlane_end(struct iba_vlane *lane, enum vtoe_reason reason,
		   const char *why)
{
	struct iba_tenant *t = lane->v->t;
	bool was_up = lane->state == IBA_VLANE_UP;

	if (lane->state >= IBA_VLANE_DRAINING)
		return;
	if (was_up || lane->active || log_ratelimited_ok(&t->lane_log, 10, 10))
		log_info("lane %s: tenant %u: verbs: ends when %s: %s (%s)",
			 lane->name, t->id, iba_vlane_state_name(lane->state),
			 why, vtoe_reason_name(reason));
	lane->reason = reason;
	if (was_up || lane->state == IBA_VLANE_CLOSING) {
		disconnect(lane);
		drop_conns(lane, true, reason);
		return;
	}
	/* whoever sends on it already is not listened to */
	iba_vlane_set_state(lane, IBA_VLANE_FAILED);
	lane->deadline_us = iba_clock_us(t) + IBA_LANE_RETRY_US;
	iba_tenant_need_tick(t);
	if (!destroy_qps(lane))
		return;
	leave_srqs(lane, lane->vvm, false);
	drop_conns(lane, false, reason);
	if (!lane->active)
		iba_vlane_release(lane);
}

void iba_vlane_fail(struct iba_vlane *lane, enum vtoe_reason reason,
		    const char *why)
{
	if (!lane->failed) {
		lane->failed = why;
		lane->failed_reason = reason;
	}
	iba_vlane_mark_dirty(lane);
}

/*
 * Its memory goes now, so the queue pairs that refer to it go now; the third one
 * does not, and takes the resets of its connections to the peer first.
 */
void iba_vlane_leave_vm(struct iba_vlane *lane)
{
	if (lane->state != IBA_VLANE_UP) {
		iba_vlane_end(lane, VTOE_REASON_PEER_NO_VTOE, "the VM has left");
		iba_vlane_release(lane);
		return;
	}
	iba_vlane_set_state(lane, IBA_VLANE_CLOSING);
	lane->deadline_us = iba_clock_us(lane->v->t) + CLOSE_US;
	iba_tenant_need_tick(lane->v->t);
	drop_conns(lane, true, VTOE_REASON_PEER_GONE);
	free_paths(lane);
	for (unsigned int k = 0; k < IBA_V_CONTROL; k++)
		if (lane->qp[k].hashed) {
			LIST_REMOVE(&lane->qp[k], link);
			lane->qp[k].hashed = false;
			rdma_destroy_qp(lane->qp[k].id);
		}
	lane->vvm->lanes--;
	lane->on_srqs = false;
	lane->vvm = NULL;
	iba_vlane_mark_dirty(lane);
}

/* ---- time ---- */

/* Unless it was us who did not listen. */
static bool silent(struct iba_vlane *lane, uint64_t now_us)
{
	if (now_us - lane->heard_us < SILENCE_MAX_US)
		return false;
	iba_vrx_drain(lane->dev);
	return lane->state == IBA_VLANE_UP &&
	       iba_clock_us(lane->v->t) - lane->heard_us >= SILENCE_MAX_US;
}

static void tick_up(struct iba_vlane *lane, uint64_t now_us)
{
	const struct iba_vpath *oldest = TAILQ_FIRST(&lane->leaving);

	if (oldest && oldest->deadline_us <= now_us)
		iba_vlane_end(lane, VTOE_REASON_TIMEOUT,
			      "the peer does not answer a reset");
	else if (silent(lane, now_us))
		iba_vlane_end(lane, VTOE_REASON_TIMEOUT,
			      "nothing heard of the peer");
	else if (lane->state == IBA_VLANE_UP &&
		 loop_now_us() - lane->said_us >= SILENCE_US)
		iba_vctrl_nop(lane);
}

static void tick_lane(struct iba_vlane *lane, uint64_t now_us)
{
	switch (lane->state) {
	case IBA_VLANE_UP:
		tick_up(lane, now_us);
		return;
	case IBA_VLANE_CLOSING:
		if (lane->deadline_us <= now_us ||
		    (!lane->fifo_count && !lane->tx_pending))
			iba_vlane_end(lane, VTOE_REASON_PEER_GONE,
				      "the VM has left");
		return;
	case IBA_VLANE_DRAINING:
		if (lane->deadline_us <= now_us || drained(lane))
			iba_vlane_release(lane);
		return;
	case IBA_VLANE_FAILED:
		if (lane->deadline_us <= now_us)
			iba_vlane_release(lane);
		return;
	default:
		if (lane->deadline_us <= now_us)
			iba_vlane_end(lane, VTOE_REASON_TIMEOUT, "no answer");
		return;
	}
}

/* The last one that leaves has its receive queues made anew. */
static void end_lanes_of(struct iba_vvm *vvm)
{
	struct iba_verbs *v = vvm->dev->v;
	struct iba_vlane *lane, *next;

	for (lane = TAILQ_FIRST(&v->lanes); lane; lane = next) {
		next = TAILQ_NEXT(lane, link);
		if (lane->vvm != vvm)
			continue;
		iba_vlane_end(lane, VTOE_REASON_LANE_LOST,
			      "broken queue pairs have the guest's buffers");
		if (lane->state == IBA_VLANE_DRAINING)
			iba_vlane_release(lane);
	}
}

bool iba_verbs_tick(struct iba_tenant *t, uint64_t now_us)
{
	struct iba_vlane *lane, *next;

	if (!t->verbs)
		return false;
	for (unsigned int i = 0; i < IBA_V_VMS_MAX; i++)
		if (t->verbs->vvm[i] && !iba_vvm_tick(t->verbs->vvm[i], now_us))
			end_lanes_of(t->verbs->vvm[i]);
	for (lane = TAILQ_FIRST(&t->verbs->lanes); lane; lane = next) {
		next = TAILQ_NEXT(lane, link);
		tick_lane(lane, now_us);
	}
	return !TAILQ_EMPTY(&t->verbs->lanes);
}
