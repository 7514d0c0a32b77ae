// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * EQ: events to the guest.
 *
 * Theory of operation. An event is not an object: a connection has a mask of
 * what its guest has not been told (conn->pending), and the event is made from
 * the connection when there is a buffer for it. So nothing is lost however slow
 * the guest is, memory is bounded by the number of connections, and what can be
 * merged (credit) merges by itself. A connection with something pending is on
 * vm->events, in the order in which it came.
 *
 * When the EQ has no buffer, doorbells are switched on for it and the guest's
 * next post continues the work.
 *
 * Threat model: the guest owns the buffers. One that is too small goes back
 * with length 0, and is counted; a guest that goes on with such while it is
 * being served loses its session.
 */
#include "agent.h"

#include <string.h>

void iba_event_pend(struct iba_conn *conn, uint16_t what)
{
	if (what == IBA_PEND_FAIL) /* progress and credit do not matter now */
		conn->pending &= IBA_PEND_ESTABLISHED | IBA_PEND_FIN;
	conn->pending |= what;
	if (!(conn->flags & IBA_CONN_F_ON_EVENTS)) {
		TAILQ_INSERT_TAIL(&conn->vm->events, conn, event_link);
		conn->flags |= IBA_CONN_F_ON_EVENTS;
	}
	iba_tenant_dirty(conn->vm);
}

void iba_event_cancel(struct iba_conn *conn)
{
	conn->pending = 0;
	if (!(conn->flags & IBA_CONN_F_ON_EVENTS))
		return;
	TAILQ_REMOVE(&conn->vm->events, conn, event_link);
	conn->flags &= (uint16_t)~IBA_CONN_F_ON_EVENTS;
}

static void put_type(struct vtoe_event *ev, enum vtoe_event_type type)
{
	ev->type = htole16(type);
}

static void put_request(struct iba_conn *conn, struct vtoe_event *ev)
{
	put_type(ev, VTOE_EV_CONNECT_REQUEST);
	ev->sid = htole32(conn->listener->sid);
	ev->u.request.local = conn->local;
	ev->u.request.remote = conn->remote;
	iba_credit_put(&ev->u.request.credit, &conn->tx_credit);
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		ev->u.request.rwq_buf_size[i] = htole32(conn->peer_buf_size[i]);
	memcpy(ev->u.request.remote_mac, conn->remote_mac, VNET_MAC_LEN);
}

static void put_established(struct iba_conn *conn, struct vtoe_event *ev)
{
	put_type(ev, VTOE_EV_CONNECT_ESTABLISHED);
	iba_credit_put(&ev->u.established.credit, &conn->tx_credit);
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		ev->u.established.rwq_buf_size[i] =
			htole32(conn->peer_buf_size[i]);
	ev->u.established.fabric = htole16(conn->fabric->id);
	/* this event says what a pending CREDIT would */
	conn->pending &= (uint16_t)~IBA_PEND_CREDIT;
}

static void put_credit(struct iba_conn *conn, struct vtoe_event *ev)
{
	put_type(ev, VTOE_EV_CREDIT);
	if (conn->flags & IBA_CONN_F_RX_WANT)
		ev->flags = htole16(VTOE_EV_F_WANT_CREDIT);
	conn->flags &= (uint16_t)~IBA_CONN_F_RX_WANT;
	iba_credit_put(&ev->u.credit.credit, &conn->tx_credit);
}

static void put_fin(struct iba_conn *conn, struct vtoe_event *ev)
{
	put_type(ev, VTOE_EV_DISCONNECTED);
	ev->flags = htole16(VTOE_DISC_F_FIN);
	ev->u.disconnected.final_offset = htole64(conn->rx_final);
	/* The last acknowledgement often comes with the FIN. */
	iba_credit_put(&ev->u.disconnected.credit, &conn->tx_credit);
	if (!(conn->flags & IBA_CONN_F_RX_WANT))
		conn->pending &= (uint16_t)~IBA_PEND_CREDIT;
}

static void put_fail(struct iba_conn *conn, struct vtoe_event *ev)
{
	put_type(ev, conn->fail_event);
	ev->reason = htole32(conn->reason);
}

/* Makes the first of what is pending. */
static void make_event(struct iba_conn *conn, struct vtoe_event *ev)
{
	uint16_t what = conn->pending & (uint16_t)-conn->pending;

	memset(ev, 0, sizeof(*ev));
	ev->sid = htole32(conn->sid);
	ev->cid = htole32(conn->cid);
	conn->pending &= (uint16_t)~what;
	switch (what) {
	case IBA_PEND_REQUEST:
		put_request(conn, ev);
		break;
	case IBA_PEND_ADDR:
		put_type(ev, VTOE_EV_ADDRESS_RESOLVED);
		break;
	case IBA_PEND_ROUTE:
		put_type(ev, VTOE_EV_ROUTE_RESOLVED);
		break;
	case IBA_PEND_ESTABLISHED:
		put_established(conn, ev);
		break;
	case IBA_PEND_CREDIT:
		put_credit(conn, ev);
		break;
	case IBA_PEND_FIN:
		put_fin(conn, ev);
		break;
	default:
		put_fail(conn, ev);
		break;
	}
}

/* A buffer for one event: 1, or 0 when there is none and the guest must kick. */
static int take_buffer(struct iba_vm *vm, struct virtq_chain *chain,
		       unsigned int *patience)
{
	struct virtq *eq = &vm->queue[IBA_Q_EQ].vq;

	for (;;) {
		uint64_t malformed = eq->stats.malformed;
		int ret = virtq_pop(eq, chain);

		malformed = eq->stats.malformed - malformed;
		if (ret < 0) {
			iba_vm_fault(vm, "event queue broken");
			return 0;
		}
		if (ret == 0) {
			vm->eq_starved = true;
			if (!virtq_enable_kicks(eq))
				return 0;
		} else if (chain->in_bytes >= sizeof(struct vtoe_event)) {
			return 1;
		} else {
			virtq_push(eq, chain->head, 0);
			iba_vm_drop(vm, IBA_DROP_EQ_MALFORMED);
		}
		/* nothing, then something, or one that is no use */
		if (malformed >= *patience) {
			iba_vm_fault(vm, "event queue flooded");
			return 0;
		}
		*patience -= (unsigned int)malformed + 1;
	}
}

/* Tells as much as there are buffers for; the caller publishes. */
void iba_event_flush(struct iba_vm *vm)
{
	struct virtq_chain *chain = &vm->tenant->chain;
	struct virtq *eq = &vm->queue[IBA_Q_EQ].vq;
	/* A guest that posts nonsense as fast as it comes back gets one ring. */
	unsigned int patience = eq->num;
	struct vtoe_event ev;
	struct iba_conn *conn;

	/* data that is held goes before what ends its stream */
	if (!eq->running || !vm->hello || vm->paused)
		return;
	while ((conn = TAILQ_FIRST(&vm->events))) {
		if (!conn->pending) {
			iba_event_cancel(conn);
			continue;
		}
		if (!take_buffer(vm, chain, &patience))
			return;
		make_event(conn, &ev);
		virtq_copy_in(chain, 0, &ev, sizeof(ev));
		virtq_push(eq, chain->head, sizeof(ev));
		vm->stats.events++;
	}
	if (vm->eq_starved) {
		vm->eq_starved = false;
		virtq_disable_kicks(eq);
	}
}
