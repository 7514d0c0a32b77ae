// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Shadow connections: the tables that name them, their state, their end.
 *
 * Theory of operation. A connection (or listener) is in up to two tables: the
 * VM's by SID, which the guest chose, and the tenant's by CID, which we choose.
 * Both numbers carry a generation, so a late message finds nothing rather than
 * a successor. Tables are arrays of chunks that are made when first needed.
 *
 * State changes go through iba_conn_step() and the table in proto/vtoe_states.h
 * alone; it notes when each state was entered, and at LOG_DEBUG the whole life
 * is printed when the connection ends.
 *
 * An end has two halves. The *fault* half (iba_conn_fail): the peer is told, the
 * path is left, the guest gets an event; the SID stays until the guest's CLOSE.
 * The *close* half (iba_conn_close): the SID is free. What is unlinked is freed
 * by iba_conn_bury() at the end of the pass.
 *
 * Orphans. When the guest gives up while our REQ is out, the CID must live until
 * the answer comes: only the REP names the peer's CID that has to be reset. Such
 * a connection has no SID, counts against its VM's limit, and ends with the
 * answer, with its lane, or after IBA_ORPHAN_LIFE_US.
 *
 * Threat model: SIDs and CIDs come from a guest or a peer. An index is bounded
 * by its mask, the generation must match, and a CID counts only on the VM or
 * lane that it belongs to (checked by the callers, who know them).
 */
#include "agent.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_CHUNKS ((VTOE_SID_INDEX_MASK + 1) / IBA_TABLE_CHUNK)
#define CID_GENERATION_MAX (UINT32_MAX >> VTOE_SID_INDEX_BITS)
#define LISTENER_EXACT 3 /* rank of the very address */

/* ---- CID table ---- */

static struct iba_cid_entry *cid_entry(struct iba_tenant *t, uint32_t index)
{
	return &t->cid[index / IBA_TABLE_CHUNK][index % IBA_TABLE_CHUNK];
}

static bool cid_assign(struct iba_tenant *t, struct iba_conn *conn)
{
	struct iba_cid_entry *entry;
	uint32_t index = t->cid_free_head;

	if (index) {
		entry = cid_entry(t, index);
		t->cid_free_head = entry->next_free;
		if (!t->cid_free_head)
			t->cid_free_tail = 0;
	} else {
		index = t->cid_used + 1; /* 0 is no CID */
		if (index > VTOE_SID_INDEX_MASK)
			return false;
		if (!t->cid[index / IBA_TABLE_CHUNK]) {
			t->cid[index / IBA_TABLE_CHUNK] =
				calloc(IBA_TABLE_CHUNK, sizeof(*entry));
			if (!t->cid[index / IBA_TABLE_CHUNK])
				return false;
		}
		t->cid_used = index;
		entry = cid_entry(t, index);
	}
	entry->conn = conn;
	entry->next_free = 0;
	entry->generation = entry->generation == CID_GENERATION_MAX ?
				    1 : entry->generation + 1;
	conn->cid = entry->generation << VTOE_SID_INDEX_BITS | index;
	return true;
}

/* Oldest first, so that a number rests as long as possible. */
static void cid_release(struct iba_tenant *t, uint32_t cid)
{
	uint32_t index = cid & VTOE_SID_INDEX_MASK;

	cid_entry(t, index)->conn = NULL;
	if (t->cid_free_tail)
		cid_entry(t, t->cid_free_tail)->next_free = index;
	else
		t->cid_free_head = index;
	t->cid_free_tail = index;
}

struct iba_conn *iba_conn_by_cid(struct iba_tenant *t, uint32_t cid)
{
	uint32_t index = cid & VTOE_SID_INDEX_MASK;
	struct iba_conn *conn;

	if (!index || index > t->cid_used)
		return NULL;
	conn = cid_entry(t, index)->conn;
	return conn && conn->cid == cid ? conn : NULL;
}

void iba_conn_tables_free(struct iba_tenant *t)
{
	for (unsigned int i = 0; i < TABLE_CHUNKS; i++)
		free(t->cid[i]);
}

/* ---- SID table ---- */

static struct iba_conn **sid_entry(struct iba_vm *vm, uint32_t sid)
{
	uint32_t index = sid & VTOE_SID_INDEX_MASK;
	struct iba_conn **chunk = vm->sid[index / IBA_TABLE_CHUNK];

	return chunk ? &chunk[index % IBA_TABLE_CHUNK] : NULL;
}

struct iba_conn *iba_conn_by_sid(struct iba_vm *vm, uint32_t sid)
{
	struct iba_conn **entry = sid_entry(vm, sid);

	return entry && *entry && (*entry)->sid == sid ? *entry : NULL;
}

/* False: no memory, or another connection has that index. */
bool iba_conn_bind_sid(struct iba_conn *conn, uint32_t sid)
{
	uint32_t chunk = (sid & VTOE_SID_INDEX_MASK) / IBA_TABLE_CHUNK;
	struct iba_vm *vm = conn->vm;
	struct iba_conn **entry;

	if (!vm->sid[chunk]) {
		vm->sid[chunk] = calloc(IBA_TABLE_CHUNK, sizeof(*entry));
		if (!vm->sid[chunk])
			return false;
	}
	entry = sid_entry(vm, sid);
	if (*entry)
		return false;
	*entry = conn;
	conn->sid = sid;
	return true;
}

static void unbind_sid(struct iba_conn *conn)
{
	if (!conn->sid)
		return;
	*sid_entry(conn->vm, conn->sid) = NULL;
	conn->sid = 0;
}

/* ---- birth ---- */

/* sid 0: it has none yet (passive open). NULL: a limit, or sid is taken. */
struct iba_conn *iba_conn_create(struct iba_vm *vm, uint32_t sid)
{
	struct iba_tenant *t = vm->tenant;
	struct iba_conn *conn;

	if (vm->conn_count >= t->cfg->max_connections)
		return NULL;
	conn = calloc(1, sizeof(*conn));
	if (!conn)
		return NULL;
	conn->tenant = t;
	conn->vm = vm;
	conn->state = VTOE_CONN_IDLE;
	conn->born_us = loop_now_us();
	if (!cid_assign(t, conn)) {
		free(conn);
		return NULL;
	}
	if (sid && !iba_conn_bind_sid(conn, sid)) {
		cid_release(t, conn->cid);
		free(conn);
		return NULL;
	}
	LIST_INSERT_HEAD(&vm->conns, conn, vm_link);
	vm->conn_count++;
	return conn;
}

/* ---- state ---- */

static uint32_t age_us(const struct iba_conn *conn)
{
	uint64_t age = loop_now_us() - conn->born_us;

	return age < UINT32_MAX - 1 ? (uint32_t)age : UINT32_MAX - 1;
}

bool iba_conn_step(struct iba_conn *conn, enum vtoe_conn_trigger trigger)
{
	uint8_t next = vtoe_conn_next(conn->state, trigger);

	if (next == VTOE_STATE_ILLEGAL) {
		log_err("conn %#x: trigger %d in state %s is not in the table",
			conn->cid, trigger, vtoe_conn_state_name(conn->state));
		return false;
	}
	if (!conn->entered_us[next])
		conn->entered_us[next] = age_us(conn) + 1;
	log_debug("conn %#x: vm %s sid %#x: %s -> %s", conn->cid,
		  conn->vm ? conn->vm->name : "-", conn->sid,
		  vtoe_conn_state_name(conn->state), vtoe_conn_state_name(next));
	conn->state = next;
	iba_route_leave(conn); /* it was entered before the shim was asked */
	return true;
}

/* The life of a connection on one line. */
static void log_life(const struct iba_conn *conn)
{
	char line[512];
	int n = 0;

	if (!log_enabled(LOG_DEBUG))
		return;
	for (unsigned int s = 0; s < VTOE_CONN_STATE_COUNT; s++)
		if (conn->entered_us[s] && n < (int)sizeof(line) - 32)
			n += snprintf(line + n, sizeof(line) - n, " %s +%u us",
				      vtoe_conn_state_name(s),
				      conn->entered_us[s] - 1);
	line[n] = '\0';
	log_debug("conn %#x: vm %s sid %#x over %s: life:%s; tx %llu B in %u, rx %llu B in %u, reason %s",
		  conn->cid, conn->vm ? conn->vm->name : "-", conn->sid,
		  conn->fabric ? conn->fabric->name : "none", line,
		  (unsigned long long)conn->tx_offset,
		  conn->tx_msgs[0] + conn->tx_msgs[1],
		  (unsigned long long)conn->rx_offset,
		  conn->rx_msgs[0] + conn->rx_msgs[1],
		  vtoe_reason_name(conn->reason));
}

/*
 * All opening steps last as long, so the list stays sorted by deadline when the
 * restarted one goes to its end.
 */
void iba_conn_deadline(struct iba_conn *conn, uint64_t after_us)
{
	struct iba_tenant *t = conn->tenant;

	if (conn->flags & IBA_CONN_F_ON_OPENING)
		TAILQ_REMOVE(&t->opening, conn, time_link);
	conn->flags &= (uint16_t)~IBA_CONN_F_ON_OPENING;
	if (!after_us)
		return;
	conn->deadline_us = iba_clock_us(t) + after_us;
	TAILQ_INSERT_TAIL(&t->opening, conn, time_link);
	conn->flags |= IBA_CONN_F_ON_OPENING;
	iba_tenant_need_tick(t);
}

/* ---- listeners ---- */

static struct iba_conn_list *listen_bucket(struct iba_vm *vm, uint16_t port)
{
	return &vm->listen[be16toh(port) % IBA_LISTEN_HASH];
}

void iba_listener_add(struct iba_conn *conn)
{
	TAILQ_INSERT_HEAD(listen_bucket(conn->vm, conn->local.port), conn,
			  listen_link);
}

static void listener_remove(struct iba_conn *conn)
{
	TAILQ_REMOVE(listen_bucket(conn->vm, conn->local.port), conn,
		     listen_link);
}

static bool addr_is_any(const struct vtoe_addr *addr)
{
	static const uint8_t any[16];

	return !memcmp(addr->addr, any, sizeof(any));
}

/* How well a listener fits a request to `local`; 0: not at all. */
static int listener_rank(const struct iba_conn *conn,
			 const struct vtoe_addr *local)
{
	bool same_family = conn->local.family == local->family;

	if (conn->local.port != local->port)
		return 0;
	if (same_family &&
	    !memcmp(conn->local.addr, local->addr, sizeof(local->addr)))
		return LISTENER_EXACT;
	if (!addr_is_any(&conn->local))
		return 0;
	if (same_family)
		return 2;
	return conn->local.family == 6 ? 1 : 0;
}

/*
 * The listener for a request to `local`: of that address, else of the wildcard
 * of its family, else (IPv4) of the IPv6 wildcard, whose guest decides. Port 0
 * matches none. Several of one address (SO_REUSEPORT) are asked in turn: the one
 * that is goes behind the others.
 */
struct iba_conn *iba_listener_next(struct iba_vm *vm,
				   const struct vtoe_addr *local)
{
	struct iba_conn_list *bucket = listen_bucket(vm, local->port);
	struct iba_conn *conn, *best = NULL;
	int best_rank = 0;

	TAILQ_FOREACH(conn, bucket, listen_link) {
		int rank = listener_rank(conn, local);

		if (rank > best_rank) {
			best_rank = rank;
			best = conn;
		}
		if (rank == LISTENER_EXACT)
			break;
	}
	if (best) {
		TAILQ_REMOVE(bucket, best, listen_link);
		TAILQ_INSERT_TAIL(bucket, best, listen_link);
	}
	return best;
}

/* ---- death ---- */

/* Unlinks it from everything but its tables, keeps the CID for an orphan. */
static void leave_guest(struct iba_conn *conn)
{
	iba_event_cancel(conn);
	iba_conn_deadline(conn, 0);
	if (conn->state == VTOE_CONN_LISTEN)
		listener_remove(conn);
	if (conn->listener) {
		conn->listener->waiting--;
		conn->listener = NULL;
	}
	unbind_sid(conn);
}

static void destroy(struct iba_conn *conn)
{
	struct iba_tenant *t = conn->tenant;

	if (conn->fabric)
		conn->fabric->put_path(conn);
	if (conn->flags & IBA_CONN_F_ON_ORPHANS)
		TAILQ_REMOVE(&t->orphans, conn, time_link);
	if (!(conn->flags & IBA_CONN_F_ORPHAN))
		LIST_REMOVE(conn, vm_link);
	if (conn->vm)
		conn->vm->conn_count--;
	cid_release(t, conn->cid);
	TAILQ_INSERT_TAIL(&t->dead, conn, dead_link);
}

static void make_orphan(struct iba_conn *conn)
{
	struct iba_tenant *t = conn->tenant;

	/* still counted, but no more the guest's */
	LIST_REMOVE(conn, vm_link);
	conn->flags |= IBA_CONN_F_ORPHAN | IBA_CONN_F_ON_ORPHANS;
	conn->deadline_us = iba_clock_us(t) + IBA_ORPHAN_LIFE_US;
	TAILQ_INSERT_TAIL(&t->orphans, conn, time_link);
	iba_tenant_need_tick(t);
}

void iba_conn_orphan_done(struct iba_conn *conn)
{
	destroy(conn);
}

void iba_conn_bury(struct iba_tenant *t)
{
	struct iba_conn *conn;

	while ((conn = TAILQ_FIRST(&t->dead))) {
		TAILQ_REMOVE(&t->dead, conn, dead_link);
		free(conn);
	}
}

/* The event by which an active open ends in this state. */
static enum vtoe_event_type fail_event(const struct iba_conn *conn,
				       enum vtoe_reason reason)
{
	switch (conn->state) {
	case VTOE_CONN_ADDR_WAIT:
		return VTOE_EV_ADDRESS_ERROR;
	case VTOE_CONN_ROUTE_WAIT:
		return reason == VTOE_REASON_PEER_NO_VTOE ? VTOE_EV_UNREACHABLE :
							    VTOE_EV_ROUTE_ERROR;
	case VTOE_CONN_REQ_SENT:
	case VTOE_CONN_REP_RCVD:
		return reason == VTOE_REASON_TIMEOUT ? VTOE_EV_UNREACHABLE :
						       VTOE_EV_CONNECT_ERROR;
	default:
		return VTOE_EV_DISCONNECTED;
	}
}

static bool has_failed(const struct iba_conn *conn)
{
	switch (conn->state) {
	case VTOE_CONN_IDLE:
	case VTOE_CONN_LISTEN:
	case VTOE_CONN_ERROR:
	case VTOE_CONN_CLOSED:
		return true; /* or never had anything that could */
	default:
		return false;
	}
}

/* REJ, RST or, while the REQ is out, nothing: the REP will be answered. */
static void tell_peer_failed(struct iba_conn *conn, enum vtoe_reason reason)
{
	if (!conn->fabric || !(conn->lane || conn->mate || conn->vpath))
		return;
	if (conn->state == VTOE_CONN_REQ_RCVD)
		conn->fabric->send_rej(conn, reason);
	else if (conn->state >= VTOE_CONN_REP_RCVD)
		conn->fabric->send_rst(conn, reason);
}

void iba_conn_fail(struct iba_conn *conn, enum vtoe_reason reason,
		   bool tell_peer)
{
	iba_conn_fail_event(conn, fail_event(conn, reason), reason, tell_peer);
}

void iba_conn_fail_event(struct iba_conn *conn, enum vtoe_event_type event,
			 enum vtoe_reason reason, bool tell_peer)
{
	if (has_failed(conn))
		return;
	conn->fail_event = (uint8_t)event;
	conn->reason = (uint8_t)reason;
	conn->vm->stats.failed++;
	log_debug("conn %#x: vm %s sid %#x: ends in %s: %s", conn->cid,
		  conn->vm->name, conn->sid, vtoe_conn_state_name(conn->state),
		  vtoe_reason_name(reason));
	if (tell_peer)
		tell_peer_failed(conn, reason);
	iba_conn_deadline(conn, 0);
	if (conn->fabric && !(conn->flags & IBA_CONN_F_AWAIT_REP))
		conn->fabric->put_path(conn);
	if (conn->state == VTOE_CONN_REQ_RCVD) {
		/* the guest has no SID for it: nothing to tell */
		leave_guest(conn);
		iba_conn_step(conn, VTOE_CONN_T_FAIL);
		log_life(conn);
		destroy(conn);
		return;
	}
	iba_conn_step(conn, VTOE_CONN_T_FAIL);
	iba_event_pend(conn, IBA_PEND_FAIL);
}

void iba_conn_close(struct iba_conn *conn, enum vtoe_reason reason, bool abort)
{
	bool said_all = conn->state == VTOE_CONN_BOTH_FIN &&
			(conn->flags & IBA_CONN_F_FIN_SENT);

	if (conn->state == VTOE_CONN_LISTEN)
		iba_open_listener_closed(conn);
	if (abort || !said_all) {
		if (!has_failed(conn))
			conn->reason = (uint8_t)reason;
		if (conn->state != VTOE_CONN_ERROR)
			tell_peer_failed(conn, reason);
	}
	log_life(conn);
	conn->vm->stats.closed++;
	leave_guest(conn);
	iba_conn_step(conn, VTOE_CONN_T_CLOSE);
	if (conn->flags & IBA_CONN_F_AWAIT_REP)
		make_orphan(conn);
	else
		destroy(conn);
}
