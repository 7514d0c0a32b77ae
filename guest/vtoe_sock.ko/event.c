// SPDX-License-Identifier: GPL-2.0-only
/*
 * Events: the EQ. NAPI copies an event out of its buffer, drains the RWQ, and
 * only then applies it: data that was delivered before a disconnect is seen
 * before it.
 */
#include "vtoe.h"

static void connection_event(struct vtoe_sid *entry, const struct vtoe_event *ev)
{
	struct vtoe_sock *vs = entry->vs;
	u32 reason = le32_to_cpu(ev->reason);

	/* An id that the host guessed before it was told. */
	if (READ_ONCE(vs->conn) != entry)
		return;
	switch (le16_to_cpu(ev->type)) {
	case VTOE_EV_CONNECT_RESPONSE:
	case VTOE_EV_ADDRESS_RESOLVED:
	case VTOE_EV_ROUTE_RESOLVED:
		break; /* progress */
	case VTOE_EV_ADDRESS_ERROR:
		vtoe_connect_failed(vs, reason ?: VTOE_REASON_NO_ROUTE);
		break;
	case VTOE_EV_ROUTE_ERROR:
		vtoe_connect_failed(vs, reason ?: VTOE_REASON_NO_LANE);
		break;
	case VTOE_EV_CONNECT_ERROR:
		vtoe_connect_failed(vs, reason ?: VTOE_REASON_PROTOCOL);
		break;
	case VTOE_EV_UNREACHABLE:
		vtoe_connect_failed(vs, reason ?: VTOE_REASON_TIMEOUT);
		break;
	case VTOE_EV_CONNECT_REJECTED:
		vtoe_connect_failed(vs, reason ?: VTOE_REASON_NO_LISTENER);
		break;
	case VTOE_EV_CONNECT_ESTABLISHED:
		/* A child learns its fabric; it is established when ACCEPT is answered. */
		if (vtoe_sock(vs)->sk_state == VTOE_SOCK_SYN_SENT)
			vtoe_connect_established(vs, ev);
		else
			vs->fabric = le16_to_cpu(ev->u.established.fabric);
		break;
	case VTOE_EV_DISCONNECTED:
		if (le16_to_cpu(ev->flags) & VTOE_DISC_F_FIN)
			vtoe_rx_fin(vs, ev);
		else
			vtoe_reset(vs, reason ?: VTOE_REASON_RESET);
		break;
	case VTOE_EV_CREDIT:
		vtoe_credit_event(vs, ev);
		break;
	default:
		vtoe_count(vtoe_sock(vs), VTOE_STAT_RX_MALFORMED);
	}
}

void vtoe_event(struct vtoe_dev *dev, const struct vtoe_event *ev)
{
	u16 type = le16_to_cpu(ev->type);
	struct vtoe_sid *entry;

	vtoe_stat_add(dev_net(dev->netdev), VTOE_STAT_EVENTS, 1);
	if (type == VTOE_EV_DEVICE_REMOVAL) {
		vtoe_dev_removal(dev);
		return;
	}
	entry = vtoe_sid_find(dev, le32_to_cpu(ev->sid));
	if (type == VTOE_EV_CONNECT_REQUEST) {
		if (entry && entry->listener)
			vtoe_connect_request(dev, entry, ev);
		else
			vtoe_cmd_reject(dev, le32_to_cpu(ev->cid), VTOE_REASON_NO_LISTENER);
	} else if (!entry || entry->listener) {
		vtoe_stat_add(dev_net(dev->netdev), VTOE_STAT_RX_STRAY, 1);
	} else {
		connection_event(entry, ev);
	}
	if (entry) {
		sock_put(vtoe_sock(entry->vs));
		vtoe_sid_put(entry);
	}
}
