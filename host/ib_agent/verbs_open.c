// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Making lanes, from both sides, up to where the connection manager takes over.
 *
 *  active                                        passive
 *  ASKED       main's control channel  ------->  ACCEPTING: a token for the VM that is
 *                                                asked for, and a port of ours
 *  CONNECTING  verbs_cm.c              ------->  checked; the token is used up
 *  UP                                            UP
 *
 * An active lane that does not come up stays in FAILED for IBA_LANE_RETRY_US and
 * refuses at once; its connections go on to the next fabric. A passive one that
 * nobody comes for ends with its token.
 *
 * Ports are taken in turn by who asks; the answer names one on the same link, if
 * there is one. So rails that do not meet need no settings.
 *
 * Threat model. A peer's agent is authenticated, not trusted: it gets lanes to VMs
 * that are attached here, for VMs that are not; how many tokens are out is bounded,
 * the oldest gives way. A guest makes us ask for lanes to hosts that its shim has
 * named, one at a time for each MAC.
 */
#include "verbs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define ACCEPTING_MAX 64u

/* ---- active ---- */

static struct iba_vlane *find_active(struct iba_conn *conn,
				     const struct vtoe_addr *agent)
{
	struct iba_vlane *lane;

	TAILQ_FOREACH(lane, &conn->tenant->verbs->lanes, link)
		if (lane->active && lane->state != IBA_VLANE_DRAINING &&
		    lane->state != IBA_VLANE_CLOSING &&
		    !memcmp(lane->local_mac, conn->vm->mac, VNET_MAC_LEN) &&
		    !memcmp(lane->remote_mac, conn->remote_mac, VNET_MAC_LEN) &&
		    !memcmp(&lane->agent, agent, sizeof(*agent)))
			return lane;
	return NULL;
}

static void name_lane(struct iba_vlane *lane, const struct sockaddr_storage *peer)
{
	const uint8_t *m = lane->remote_mac;
	char addr[SOCKADDR_STRLEN];

	snprintf(lane->name, sizeof(lane->name),
		 "%s/%02x:%02x:%02x:%02x:%02x:%02x", sockaddr_format(peer, addr),
		 m[0], m[1], m[2], m[3], m[4], m[5]);
}

static struct iba_vlane *lane_ask(struct iba_conn *conn,
				  const struct vtoe_addr *agent,
				  enum vtoe_reason *reason)
{
	struct iba_lane_want want = { .fabric = VTOE_FABRIC_VERBS };
	struct iba_verbs *v = conn->tenant->verbs;
	struct iba_vport *port = iba_vport_next(v);
	struct iba_vlane *lane;
	struct iba_vvm *vvm;

	*reason = VTOE_REASON_NO_LANE;
	if (!port)
		return NULL;
	vvm = iba_vvm_get(v, conn->vm, port->dev, reason);
	if (!vvm)
		return NULL;
	*reason = VTOE_REASON_LIMIT;
	lane = iba_vlane_create(v, IBA_VLANE_ASKED);
	if (!lane)
		return NULL;
	lane->active = true;
	lane->port = port;
	lane->dev = port->dev;
	lane->vvm = vvm;
	lane->agent = *agent;
	memcpy(lane->local_mac, conn->vm->mac, VNET_MAC_LEN);
	memcpy(lane->remote_mac, conn->remote_mac, VNET_MAC_LEN);
	sockaddr_from_vtoe(agent, &lane->peer);
	name_lane(lane, &lane->peer);
	memcpy(want.local_mac, lane->local_mac, VNET_MAC_LEN);
	memcpy(want.remote_mac, lane->remote_mac, VNET_MAC_LEN);
	sockaddr_to_vtoe(&port->addr, &want.from);
	if (iba_tenant_ask_lane(v->t, agent, &want, &lane->ask_seq) < 0)
		iba_vlane_end(lane, VTOE_REASON_NO_LANE, "main does not listen");
	return lane;
}

static bool is_ourselves(const struct iba_tenant *t, const struct vtoe_addr *agent)
{
	struct sockaddr_storage addr;

	return sockaddr_from_vtoe(agent, &addr) == 0 &&
	       sockaddr_equal(&addr, &t->cfg->listen);
}

int iba_vlane_get(struct iba_conn *conn, const struct vtoe_addr *agent,
		  enum vtoe_reason *reason)
{
	struct iba_vlane *lane;

	if (!agent)
		return -EHOSTUNREACH;
	*reason = VTOE_REASON_NO_LANE;
	if (!conn->tenant->verbs)
		return -EHOSTUNREACH;
	if (is_ourselves(conn->tenant, agent)) {
		*reason = VTOE_REASON_PEER_NO_VTOE;
		return -EHOSTUNREACH;
	}
	lane = find_active(conn, agent);
	if (!lane)
		lane = lane_ask(conn, agent, reason);
	if (!lane)
		return -EHOSTUNREACH;
	if (lane->state == IBA_VLANE_FAILED) {
		*reason = lane->reason;
		return -EHOSTUNREACH;
	}
	if (!iba_vpath_join(lane, conn)) {
		*reason = VTOE_REASON_LIMIT;
		return -EHOSTUNREACH;
	}
	return lane->state == IBA_VLANE_UP ? 0 : -EINPROGRESS;
}

/* None of the peer's ports meets the one that asked: is there another that does? */
static int meet(struct iba_vlane *lane)
{
	struct iba_verbs *v = lane->v;
	enum vtoe_reason reason;
	struct iba_vport *port;
	struct iba_vvm *vvm;

	if (iba_vport_meets(lane->port, &lane->peer))
		return 0;
	port = iba_vport_toward(v, &lane->peer);
	if (!port)
		return -EHOSTUNREACH;
	/* the fabric has routers: it is as good as another */
	if (!iba_vport_meets(port, &lane->peer) &&
	    lane->port->addr.ss_family == lane->peer.ss_family)
		return 0;
	vvm = iba_vvm_get(v, lane->vvm->vm, port->dev, &reason);
	if (!vvm)
		return -EHOSTUNREACH;
	lane->port = port;
	lane->dev = port->dev;
	lane->vvm = vvm;
	return 0;
}

void iba_verbs_answer(struct iba_tenant *t, uint32_t seq,
		      const struct vnet_peer_lane_answer *answer)
{
	uint32_t status = le32toh(answer->status);
	struct iba_vlane *lane = NULL;
	int err;

	if (t->verbs)
		TAILQ_FOREACH(lane, &t->verbs->lanes, link)
			if (lane->state == IBA_VLANE_ASKED &&
			    lane->ask_seq == seq)
				break;
	if (!lane) /* it timed out, or is another fabric's */
		return;
	if (status) {
		iba_vlane_end(lane, status < VTOE_REASON_COUNT ? status :
								 VTOE_REASON_NO_LANE,
			      "the peer's agent says no");
		return;
	}
	memcpy(lane->token, answer->token, sizeof(lane->token));
	err = sockaddr_from_vtoe(&answer->addr, &lane->peer);
	if (!err)
		err = meet(lane);
	if (!err) {
		name_lane(lane, &lane->peer);
		iba_vlane_set_state(lane, IBA_VLANE_CONNECTING);
		err = iba_vcm_connect(lane);
	}
	if (err)
		iba_vlane_end(lane, VTOE_REASON_NO_LANE, strerror(-err));
}

/* ---- passive: a token is the lane that it will become ---- */

static void make_room(struct iba_verbs *v)
{
	struct iba_vlane *lane;

	TAILQ_FOREACH(lane, &v->lanes, link)
		if (lane->state == IBA_VLANE_ACCEPTING)
			break;
	if (lane)
		iba_vlane_end(lane, VTOE_REASON_LIMIT, "too many at once");
}

void iba_verbs_token(struct iba_tenant *t, const struct sockaddr_storage *source,
		     const struct iba_lane_want *want,
		     struct vnet_peer_lane_answer *answer)
{
	struct iba_vm *vm = iba_tenant_vm_by_mac(t, want->remote_mac);
	enum vtoe_reason reason = VTOE_REASON_NO_LANE;
	struct iba_verbs *v = t->verbs;
	struct iba_vlane *lane = NULL;
	struct iba_vport *port = NULL;
	struct iba_vvm *vvm = NULL;
	struct sockaddr_storage from;

	memset(answer, 0, sizeof(*answer));
	if (v)
		port = sockaddr_from_vtoe(&want->from, &from) ?
			       iba_vport_next(v) : iba_vport_toward(v, &from);
	if (!vm)
		reason = VTOE_REASON_PEER_NO_VTOE;
	else if (port && !iba_tenant_vm_by_mac(t, want->local_mac))
		vvm = iba_vvm_get(v, vm, port->dev, &reason);
	if (vvm) {
		reason = VTOE_REASON_LIMIT;
		if (v->lanes_accepting >= ACCEPTING_MAX)
			make_room(v);
		lane = iba_vlane_create(v, IBA_VLANE_ACCEPTING);
	}
	if (!lane) {
		answer->status = htole32(reason);
		return;
	}
	lane->port = port;
	lane->dev = port->dev;
	lane->vvm = vvm;
	lane->peer = *source;
	lane->deadline_us = iba_clock_us(v->t) + IBA_TOKEN_LIFE_US;
	memcpy(lane->local_mac, want->remote_mac, VNET_MAC_LEN);
	memcpy(lane->remote_mac, want->local_mac, VNET_MAC_LEN);
	name_lane(lane, source);
	if (getrandom(lane->token, sizeof(lane->token), 0) !=
	    (ssize_t)sizeof(lane->token)) {
		iba_vlane_end(lane, VTOE_REASON_LIMIT, "no random bytes");
		answer->status = htole32(VTOE_REASON_LIMIT);
		return;
	}
	memcpy(answer->token, lane->token, sizeof(answer->token));
	sockaddr_to_vtoe(&port->addr, &answer->addr);
}
