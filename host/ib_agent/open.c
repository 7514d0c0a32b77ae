// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Opening a connection: from CONNECT, or from a peer's REQ, to ESTABLISHED.
 *
 *  active                                           passive
 *  CONNECT  -> ADDR_WAIT   which host? (shim)
 *           -> ROUTE_WAIT  the first fabric, in the configured order, that
 *                          has or can make a path
 *           -> REQ_SENT    REQ ------------------>  REQ_RCVD, CONNECT_REQUEST
 *           -> ESTABLISHED <------------------ REP  ACCEPT -> ESTABLISHED
 *
 * Every step has IBA_OPEN_TIMEOUT_US. A fabric that fails while the guest waits
 * gives way to the next one; the guest sees only the last reason. A VM of this
 * tenant that is attached here is reached without asking the shim when `local`
 * is the first fabric.
 *
 * Threat model. A REQ comes from an authenticated agent, but what it says about
 * its VM is that agent's word. It is taken only for a VM that is attached here,
 * whose driver has said HELLO and which listens; an asking VM that claims the
 * MAC of a VM attached *here* is refused, so the MAC in CONNECT_REQUEST tells a
 * guest for certain whether it is its own peer. A request to or from a loopback
 * address is taken only then, one from an address that nobody can have never:
 * programs trust 127.0.0.1. Requests that the guest has not answered are bounded
 * per listener. A late REP for a connection that nobody wants any more is
 * answered with RST, so that the peer does not wait for ever.
 */
#include "agent.h"
#include "conf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#define BACKLOG_MIN 64
#define BACKLOG_MAX 4096

/* ---- active open ---- */

static void fail_open(struct iba_conn *conn, enum vtoe_reason reason)
{
	iba_conn_fail(conn, reason, false);
}

/* What there is to try to the agent; NULL: the VM is here, or nobody knows. */
static const uint16_t *fabric_order(const struct iba_conn *conn,
				    const struct vtoe_addr *agent,
				    unsigned int *count)
{
	struct sockaddr_storage addr;

	return iba_config_order(conn->tenant->cfg,
				agent && !sockaddr_from_vtoe(agent, &addr) ?
					&addr : NULL, count);
}

/*
 * A fabric that does not come up gives way. That a VM is elsewhere is no fault of
 * `local`; another one is told of, or an operator wonders where his link is.
 */
static void next_fabric(struct iba_conn *conn, const struct vtoe_addr *agent,
			enum vtoe_reason reason)
{
	const struct iba_fabric *fabric = conn->fabric;
	unsigned int count;

	fabric_order(conn, agent, &count);
	if (conn->fabric_next + 1u < count && fabric->id != VTOE_FABRIC_LOCAL) {
		conn->vm->stats.gave_way++;
		if (log_ratelimited_ok(&conn->tenant->lane_log, 10, 10))
			log_info("vm %s: conn %#x: not by %s: %s", conn->vm->name,
				 conn->cid, fabric->name, vtoe_reason_name(reason));
	}
	log_debug("conn %#x: not by %s: %s", conn->cid, fabric->name,
		  vtoe_reason_name(reason));
	conn->fabric = NULL;
	conn->fabric_next++;
}

/* Tries the fabrics from conn->fabric_next on. agent NULL: the VM is here. */
static void try_fabrics(struct iba_conn *conn, const struct vtoe_addr *agent,
			enum vtoe_reason reason)
{
	unsigned int count;
	const uint16_t *order = fabric_order(conn, agent, &count);

	while (conn->fabric_next < count) {
		const struct iba_fabric *fabric =
			iba_fabric_by_id(order[conn->fabric_next]);
		int ret;

		conn->fabric = fabric;
		ret = fabric->get_path(conn, agent, &reason);
		if (ret == 0)
			iba_open_path_up(conn);
		if (ret == 0 || ret == -EINPROGRESS)
			return;
		next_fabric(conn, agent, reason);
	}
	fail_open(conn, reason);
}

static void address_known(struct iba_conn *conn, const struct vtoe_addr *agent)
{
	iba_conn_step(conn, VTOE_CONN_T_ADDR);
	iba_conn_deadline(conn, IBA_OPEN_TIMEOUT_US);
	if (conn->tenant->cfg->progress_events)
		iba_event_pend(conn, IBA_PEND_ADDR);
	try_fabrics(conn, agent, VTOE_REASON_NO_LANE);
}

/* CONNECT: addresses, MAC and credit are in conn, which is IDLE. */
void iba_open_start(struct iba_conn *conn)
{
	struct iba_tenant *t = conn->tenant;
	struct vtoe_addr agent;
	int ret;

	conn->vm->stats.opened++;
	iba_conn_step(conn, VTOE_CONN_T_CONNECT);
	iba_conn_deadline(conn, IBA_OPEN_TIMEOUT_US);
	if (t->cfg->fabric[0] == VTOE_FABRIC_LOCAL &&
	    iba_tenant_vm_by_mac(t, conn->remote_mac)) {
		address_known(conn, NULL);
		return;
	}
	ret = iba_route_ask(conn, &agent);
	if (ret == 1)
		address_known(conn, &agent);
	else if (ret < 0)
		fail_open(conn, VTOE_REASON_NO_ROUTE);
}

void iba_open_resolved(struct iba_conn *conn, const struct vtoe_addr *agent,
		       enum vtoe_reason reason)
{
	if (agent)
		address_known(conn, agent);
	else
		fail_open(conn, reason);
}

void iba_open_path_up(struct iba_conn *conn)
{
	iba_conn_step(conn, VTOE_CONN_T_LANE);
	iba_conn_deadline(conn, IBA_OPEN_TIMEOUT_US);
	if (conn->tenant->cfg->progress_events)
		iba_event_pend(conn, IBA_PEND_ROUTE);
	conn->fabric->send_req(conn);
}

void iba_open_path_failed(struct iba_conn *conn, enum vtoe_reason reason)
{
	struct vtoe_addr agent;

	bool known = iba_route_known(conn->vm, conn->remote_mac, &agent);

	next_fabric(conn, known ? &agent : NULL, reason);
	iba_conn_deadline(conn, IBA_OPEN_TIMEOUT_US);
	if (known)
		try_fabrics(conn, &agent, reason);
	else
		fail_open(conn, reason);
}

void iba_open_rep(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr,
		  const struct vnet_lane_rep *rep)
{
	conn->flags &= (uint16_t)~IBA_CONN_F_AWAIT_REP;
	conn->peer_cid = le32toh(rep->cid);
	if (conn->state != VTOE_CONN_REQ_SENT) {
		/* too late: timed out, or the guest has closed it */
		conn->flags |= IBA_CONN_F_ANSWERS;
		conn->fabric->send_rst(conn, VTOE_REASON_RESET);
		if (conn->flags & IBA_CONN_F_ORPHAN)
			iba_conn_orphan_done(conn);
		else
			conn->fabric->put_path(conn);
		return;
	}
	iba_credit_get(&conn->tx_credit, &hdr->credit);
	conn->tx_credit.ack = 0;
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		conn->peer_buf_size[i] = le32toh(rep->rwq_buf_size[i]);
	iba_conn_deadline(conn, 0);
	iba_conn_step(conn, VTOE_CONN_T_REP);
	iba_event_pend(conn, IBA_PEND_ESTABLISHED);
}

void iba_open_rej(struct iba_conn *conn, enum vtoe_reason reason)
{
	conn->flags &= (uint16_t)~IBA_CONN_F_AWAIT_REP;
	if (conn->flags & IBA_CONN_F_ORPHAN)
		iba_conn_orphan_done(conn);
	else if (conn->state == VTOE_CONN_REQ_SENT)
		iba_conn_fail_event(conn, VTOE_EV_CONNECT_REJECTED, reason,
				    false);
	else
		conn->fabric->put_path(conn);
}

/* ---- passive open ---- */

static bool addr_is(const struct vtoe_addr *addr, const char *text)
{
	struct in6_addr ip;

	return addr->family == 6 && inet_pton(AF_INET6, text, &ip) == 1 &&
	       !memcmp(addr->addr, &ip, sizeof(ip));
}

static bool addr_is_loopback(const struct vtoe_addr *addr)
{
	return addr->family == 4 ? addr->addr[0] == 127 : addr_is(addr, "::1");
}

/* One that a machine can have. IPv4 in IPv6 comes as IPv4 (cmd.c). */
static bool addr_ok(const struct vtoe_addr *addr)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	if (!addr->port)
		return false;
	if (addr->family == 4) /* not 0.0.0.0/8, 224.0.0.0/4 and beyond */
		return addr->addr[0] && addr->addr[0] < 224;
	return addr->family == 6 && addr->addr[0] != 0xff &&
	       !addr_is(addr, "::") && memcmp(addr->addr, mapped, sizeof(mapped));
}

static enum vtoe_reason check_req(struct iba_tenant *t,
				  const struct iba_fabric *fabric,
				  const struct vnet_lane_req *req)
{
	bool same_vm = fabric->id == VTOE_FABRIC_LOCAL &&
		       !memcmp(req->local_mac, req->remote_mac, VNET_MAC_LEN);

	if (!addr_ok(&req->local) || !addr_ok(&req->remote) ||
	    req->local.family != req->remote.family)
		return VTOE_REASON_ADDR_FAMILY;
	if (!same_vm && (addr_is_loopback(&req->local) ||
			 addr_is_loopback(&req->remote)))
		return VTOE_REASON_NOT_LOCAL;
	if (fabric->id != VTOE_FABRIC_LOCAL &&
	    iba_tenant_vm_by_mac(t, req->local_mac))
		return VTOE_REASON_PROTOCOL;
	return VTOE_REASON_NONE;
}

enum vtoe_reason iba_open_req(struct iba_tenant *t,
			      const struct iba_fabric *fabric,
			      const struct vtoe_msg_hdr *hdr,
			      const struct vnet_lane_req *req,
			      struct iba_conn **out)
{
	struct iba_vm *vm = iba_tenant_vm_by_mac(t, req->remote_mac);
	struct iba_conn *listener, *conn;
	enum vtoe_reason reason;

	if (!vm || !vm->hello)
		return VTOE_REASON_PEER_NO_VTOE;
	reason = check_req(t, fabric, req);
	if (reason)
		return reason;
	/* their remote is our local */
	listener = iba_listener_next(vm, &req->remote);
	if (!listener)
		return VTOE_REASON_NO_LISTENER;
	if (listener->waiting >= listener->backlog)
		return VTOE_REASON_BACKLOG;
	conn = iba_conn_create(vm, 0);
	if (!conn)
		return VTOE_REASON_LIMIT;
	conn->listener = listener;
	listener->waiting++;
	conn->fabric = fabric;
	conn->peer_cid = le32toh(req->cid);
	conn->local = req->remote;
	conn->remote = req->local;
	conn->local.scope = 0; /* of another machine's guest */
	conn->remote.scope = 0;
	memcpy(conn->remote_mac, req->local_mac, VNET_MAC_LEN);
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		conn->peer_buf_size[i] = le32toh(req->rwq_buf_size[i]);
	iba_credit_get(&conn->tx_credit, &hdr->credit);
	conn->tx_credit.ack = 0;
	iba_conn_step(conn, VTOE_CONN_T_REQ);
	iba_conn_deadline(conn, IBA_OPEN_TIMEOUT_US);
	iba_event_pend(conn, IBA_PEND_REQUEST);
	*out = conn;
	return VTOE_REASON_NONE;
}

/* NULL: it was never one of ours, or is gone: reset, timed out, listener closed. */
static struct iba_conn *find_request(struct iba_vm *vm, uint32_t cid)
{
	struct iba_conn *conn = iba_conn_by_cid(vm->tenant, cid);

	if (!conn || conn->vm != vm || conn->state != VTOE_CONN_REQ_RCVD)
		return NULL;
	return conn;
}

enum vtoe_reason iba_open_accept(struct iba_vm *vm, uint32_t cid, uint32_t sid,
				 const struct vtoe_credit *credit)
{
	struct iba_conn *conn = find_request(vm, cid);
	struct iba_conn *unused = iba_conn_by_sid(vm, sid);

	if (!sid)
		return VTOE_REASON_PROTOCOL;
	if (!conn)
		return VTOE_REASON_RESET;
	/* a guest may have made the SID by SOCKET before */
	if (unused && unused->state == VTOE_CONN_IDLE)
		iba_conn_close(unused, VTOE_REASON_NONE, false);
	if (!iba_conn_bind_sid(conn, sid))
		return VTOE_REASON_PROTOCOL;
	iba_credit_get(&conn->rx_credit, credit);
	conn->rx_credit.ack = 0;
	iba_event_cancel(conn);
	iba_conn_deadline(conn, 0);
	conn->listener->waiting--;
	conn->listener = NULL;
	iba_conn_step(conn, VTOE_CONN_T_ACCEPT);
	vm->stats.accepted++;
	conn->fabric->send_rep(conn);
	return VTOE_REASON_NONE;
}

enum vtoe_reason iba_open_reject(struct iba_vm *vm, uint32_t cid,
				 enum vtoe_reason reason)
{
	struct iba_conn *conn = find_request(vm, cid);

	if (!conn)
		return VTOE_REASON_NONE; /* it has ended already */
	conn->flags |= IBA_CONN_F_ANSWERS;
	iba_conn_close(conn, reason, false); /* sends the REJ */
	return VTOE_REASON_NONE;
}

void iba_open_listener_closed(struct iba_conn *listener)
{
	struct iba_conn *conn, *next;

	/* failing a request unlinks that one alone: its mate, if it is in this
	 * VM, has a SID and stays */
	for (conn = LIST_FIRST(&listener->vm->conns); conn && listener->waiting;
	     conn = next) {
		next = LIST_NEXT(conn, vm_link);
		if (conn->listener == listener)
			iba_conn_fail(conn, VTOE_REASON_NO_LISTENER, true);
	}
}

void iba_open_set_backlog(struct iba_conn *listener, uint32_t backlog)
{
	if (backlog < BACKLOG_MIN)
		backlog = BACKLOG_MIN;
	listener->backlog = backlog < BACKLOG_MAX ? backlog : BACKLOG_MAX;
}

/* ---- deadlines ---- */

bool iba_open_tick(struct iba_tenant *t, uint64_t now_us)
{
	struct iba_conn *conn;

	while ((conn = TAILQ_FIRST(&t->opening)) && conn->deadline_us <= now_us)
		iba_conn_fail(conn, VTOE_REASON_TIMEOUT, true);
	while ((conn = TAILQ_FIRST(&t->orphans)) && conn->deadline_us <= now_us)
		iba_conn_orphan_done(conn);
	return !TAILQ_EMPTY(&t->opening) || !TAILQ_EMPTY(&t->orphans);
}
