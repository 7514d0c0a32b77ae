// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lanes as objects: birth, who is on them, what happens when one ends.
 *
 * Theory of operation. There is one active lane per (tenant, peer agent);
 * connections that open wait on its list (lane_open.c). A lane that could not be
 * made stays in FAILED for IBA_LANE_RETRY_US and refuses at once, so that a burst
 * of connects does not become a burst of attempts. One that breaks when it was up
 * is forgotten: its connections are told LANE_LOST, the next connect makes a new
 * one.
 *
 * References: the tenant's list owns a lane; a connection on it is on
 * lane->conns and has conn->lane. One that ends is unlinked here and freed by
 * iba_lane_bury() at the end of the pass.
 */
#include "lane.h"

#include <stdlib.h>
#include <unistd.h>

#include <openssl/crypto.h>

const char *iba_lane_state_name(unsigned int state)
{
	static const char *const names[] = {
#define X(name, str) [IBA_LANE_##name] = str,
		IBA_LANE_STATES(X)
#undef X
	};

	return state < sizeof(names) / sizeof(names[0]) ? names[state] : "?";
}

/* ---- the object ---- */

struct iba_lane *iba_lane_create(struct iba_tenant *t, enum iba_lane_state state)
{
	struct iba_lane *lane = NULL;

	/* a guest whose shim names many agents, or a peer, can want many */
	if (t->lane_count < IBA_LANES_MAX)
		lane = calloc(1, sizeof(*lane));
	if (!lane)
		return NULL;
	lane->rx.stage = malloc(IBA_STAGE_SIZE);
	if (!lane->rx.stage) {
		free(lane);
		return NULL;
	}
	lane->tenant = t;
	lane->state = state;
	lane->fd = -1;
	TAILQ_INIT(&lane->conns);
	TAILQ_INIT(&lane->credits);
	lane->deadline_us = iba_clock_us(t) + IBA_OPEN_TIMEOUT_US;
	TAILQ_INSERT_TAIL(&t->lanes, lane, link);
	t->lane_count++;
	iba_tenant_need_tick(t);
	return lane;
}

static void lane_close(struct iba_lane *lane)
{
	if (lane->state == IBA_LANE_ACCEPTED)
		lane->tenant->lanes_greeting--;
	loop_remove_fd(lane->source);
	lane->source = NULL;
	if (lane->fd >= 0)
		close(lane->fd);
	lane->fd = -1;
	OPENSSL_cleanse(lane->token, sizeof(lane->token));
}

void iba_lane_kill(struct iba_lane *lane)
{
	struct iba_tenant *t = lane->tenant;

	lane_close(lane);
	lane->state = IBA_LANE_DEAD;
	if (lane->dirty)
		TAILQ_REMOVE(&t->dirty_lanes, lane, dirty_link);
	lane->dirty = false;
	TAILQ_REMOVE(&t->lanes, lane, link);
	t->lane_count--;
	TAILQ_INSERT_TAIL(&t->dead_lanes, lane, dead_link);
}

void iba_lane_bury(struct iba_tenant *t)
{
	struct iba_lane *lane;

	while ((lane = TAILQ_FIRST(&t->dead_lanes))) {
		TAILQ_REMOVE(&t->dead_lanes, lane, dead_link);
		free(lane->tx.ring);
		free(lane->rx.stage);
		free(lane);
	}
}

void iba_lane_join(struct iba_lane *lane, struct iba_conn *conn)
{
	conn->lane = lane;
	TAILQ_INSERT_TAIL(&lane->conns, conn, lane_link);
}

void iba_lane_leave(struct iba_conn *conn)
{
	struct iba_lane *lane = conn->lane;

	if (!lane)
		return;
	if (conn->flags & IBA_CONN_F_CREDIT_QUEUED)
		TAILQ_REMOVE(&lane->credits, conn, credit_link);
	conn->flags &= (uint16_t)~IBA_CONN_F_CREDIT_QUEUED;
	TAILQ_REMOVE(&lane->conns, conn, lane_link);
	conn->lane = NULL;
}

void iba_lane_watch(struct iba_lane *lane, uint32_t events)
{
	if (lane->events == events || !lane->source)
		return;
	lane->events = events;
	loop_set_events(lane->source, events);
}

/* ---- ends ---- */

static void drop_conn(struct iba_conn *conn, bool was_up,
		      enum vtoe_reason reason)
{
	conn->flags &= (uint16_t)~IBA_CONN_F_AWAIT_REP;
	iba_lane_leave(conn);
	if (conn->flags & IBA_CONN_F_ORPHAN)
		iba_conn_orphan_done(conn);
	else if (was_up)
		iba_conn_fail(conn, VTOE_REASON_LANE_LOST, false);
	else if (conn->state == VTOE_CONN_ROUTE_WAIT)
		iba_open_path_failed(conn, reason);
}

void iba_lane_end(struct iba_lane *lane, enum vtoe_reason reason,
		  const char *why)
{
	bool was_up = lane->state == IBA_LANE_UP;
	struct iba_conn_list conns = TAILQ_HEAD_INITIALIZER(conns);
	struct iba_conn *conn;

	if (lane->state == IBA_LANE_FAILED || lane->state == IBA_LANE_DEAD)
		return;
	if (was_up || lane->active ||
	    log_ratelimited_ok(&lane->tenant->lane_log, 10, 10))
		log_info("lane %s: tenant %u: ends when %s: %s (%s)", lane->name,
			 lane->tenant->id, iba_lane_state_name(lane->state), why,
			 vtoe_reason_name(reason));
	iba_tcp_release(lane);
	if (lane->active && !was_up) {
		lane_close(lane);
		lane->state = IBA_LANE_FAILED;
		lane->reason = reason;
		lane->deadline_us = iba_clock_us(lane->tenant) +
				    IBA_LANE_RETRY_US;
	} else {
		iba_lane_kill(lane);
	}
	while ((conn = TAILQ_FIRST(&lane->conns)))
		drop_conn(conn, was_up, reason);
}

void iba_lane_destroy_all(struct iba_tenant *t)
{
	struct iba_lane *lane;

	while ((lane = TAILQ_FIRST(&t->lanes))) {
		iba_lane_end(lane, VTOE_REASON_LANE_LOST, "agent stops");
		if (lane->state == IBA_LANE_FAILED)
			iba_lane_kill(lane);
	}
	iba_acceptor_stop(&t->data_in);
	OPENSSL_cleanse(t->token, sizeof(t->token));
}

/* ---- time ---- */

bool iba_lane_tick(struct iba_tenant *t, uint64_t now_us)
{
	struct iba_lane *lane, *next;
	bool more = false;

	for (lane = TAILQ_FIRST(&t->lanes); lane; lane = next) {
		next = TAILQ_NEXT(lane, link);
		if (lane->state == IBA_LANE_UP)
			continue;
		more = true;
		if (lane->deadline_us > now_us)
			continue;
		if (lane->state == IBA_LANE_FAILED)
			iba_lane_kill(lane);
		else
			iba_lane_end(lane, VTOE_REASON_TIMEOUT, "no answer");
	}
	for (unsigned int i = 0; i < IBA_TOKENS_MAX && !more; i++)
		more = t->token[i].expires_us > now_us;
	return more;
}
