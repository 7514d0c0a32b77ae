// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which host has a MAC: what a VM's shim said about it.
 *
 * Theory of operation. The first connect to a MAC asks the shim (RESOLVE), the
 * others wait for the same answer on route->waiting, and so does everybody again
 * when the shim says that its routes have changed. What is known stays until then,
 * or until the table is full: then all that nobody waits for goes.
 *
 * References: a connection in ADDR_WAIT is on the list of its route and points
 * to it; leaving that state takes it off (iba_conn_step()).
 *
 * Threat model: the guest chooses the MACs, so how many are kept is bounded, and
 * what one connect or answer costs does not depend on how many there are, nor on
 * how many connections of the tenant are opening: the table is hashed by a key
 * that the guest does not know (multiply-shift), and the number of a RESOLVE
 * names its bucket. The shim may have been taken over: an answer that was not
 * asked for finds nothing.
 */
#include "agent.h"
#include "conf.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define ROUTES_MAX 4096

/* ---- the table ---- */

int iba_routes_init(struct iba_vm *vm)
{
	if (getrandom(&vm->route_key, sizeof(vm->route_key), 0) !=
	    (ssize_t)sizeof(vm->route_key))
		return -EAGAIN;
	vm->route_key |= 1; /* odd: no bit of a MAC is lost */
	return 0;
}

static uint32_t bucket_of(const struct iba_vm *vm,
			  const uint8_t mac[VNET_MAC_LEN])
{
	uint64_t number = 0;

	memcpy(&number, mac, VNET_MAC_LEN);
	return (uint32_t)((number * vm->route_key) >> (64 - IBA_ROUTE_BITS));
}

static struct iba_route *find(struct iba_vm *vm,
			      const uint8_t mac[VNET_MAC_LEN])
{
	struct iba_route *route;

	LIST_FOREACH(route, &vm->routes[bucket_of(vm, mac)], link)
		if (!memcmp(route->mac, mac, VNET_MAC_LEN))
			return route;
	return NULL;
}

static struct iba_route *find_asked(struct iba_vm *vm, uint32_t seq)
{
	struct iba_route *route;

	LIST_FOREACH(route, &vm->routes[seq % IBA_ROUTE_BUCKETS], link)
		if (route->asked && route->seq == seq)
			return route;
	return NULL;
}

static void forget(struct iba_vm *vm, struct iba_route *route)
{
	LIST_REMOVE(route, link);
	vm->route_count--;
	free(route);
}

static void forget_idle(struct iba_vm *vm)
{
	struct iba_route *route, *next;

	for (unsigned int i = 0; i < IBA_ROUTE_BUCKETS; i++)
		for (route = LIST_FIRST(&vm->routes[i]); route; route = next) {
			next = LIST_NEXT(route, link);
			if (TAILQ_EMPTY(&route->waiting))
				forget(vm, route);
		}
}

/* Nobody waits any more: the VM's connections have ended. */
void iba_routes_free(struct iba_vm *vm)
{
	forget_idle(vm);
}

static struct iba_route *create(struct iba_vm *vm,
				const uint8_t mac[VNET_MAC_LEN])
{
	struct iba_route *route;

	if (vm->route_count >= ROUTES_MAX)
		forget_idle(vm);
	if (vm->route_count >= ROUTES_MAX)
		return NULL;
	route = calloc(1, sizeof(*route));
	if (!route)
		return NULL;
	memcpy(route->mac, mac, VNET_MAC_LEN);
	TAILQ_INIT(&route->waiting);
	LIST_INSERT_HEAD(&vm->routes[bucket_of(vm, mac)], route, link);
	vm->route_count++;
	return route;
}

/* ---- questions ---- */

static int ask_shim(struct iba_vm *vm, struct iba_route *route)
{
	struct vnet_attach_resolve resolve = { { 0 }, { 0 } };
	int ret;

	memcpy(resolve.mac, route->mac, VNET_MAC_LEN);
	route->seq = ++vm->seq << IBA_ROUTE_BITS | bucket_of(vm, route->mac);
	ret = attach_send(vm->fd, VNET_ATTACH_RESOLVE, route->seq, &resolve,
			  NULL, 0);
	route->asked = ret == 0;
	return ret;
}

bool iba_route_known(struct iba_vm *vm, const uint8_t mac[VNET_MAC_LEN],
		     struct vtoe_addr *agent)
{
	struct iba_route *route = find(vm, mac);

	if (!route || !route->known)
		return false;
	*agent = route->agent;
	return true;
}

int iba_route_ask(struct iba_conn *conn, struct vtoe_addr *agent)
{
	struct iba_vm *vm = conn->vm;
	struct iba_route *route = find(vm, conn->remote_mac);
	int err = 0;

	if (!route)
		route = create(vm, conn->remote_mac);
	if (!route)
		return -ENOMEM;
	if (route->known) {
		*agent = route->agent;
		return 1;
	}
	if (!route->asked)
		err = ask_shim(vm, route);
	if (err)
		return err;
	conn->route = route;
	TAILQ_INSERT_TAIL(&route->waiting, conn, route_link);
	return 0;
}

void iba_route_leave(struct iba_conn *conn)
{
	if (conn->route)
		TAILQ_REMOVE(&conn->route->waiting, conn, route_link);
	conn->route = NULL;
}

/* ---- answers ---- */

int iba_route_answer(struct iba_vm *vm, uint32_t seq,
		     const struct vnet_attach_resolve_reply *reply)
{
	struct iba_route *route = find_asked(vm, seq);
	uint32_t status = le32toh(reply->status);
	struct vtoe_addr agent = reply->agent;
	struct sockaddr_storage addr;
	struct iba_conn *conn;

	if (!route) /* asked before a ROUTE_CHANGED */
		return 0;
	if (!status && (sockaddr_from_vtoe(&agent, &addr) < 0 || !agent.port))
		return -EPROTO;
	if (status >= VTOE_REASON_COUNT)
		status = VTOE_REASON_NO_ROUTE;
	route->asked = false;
	route->known = !status;
	route->agent = agent;
	/* what this does asks nothing, so the route stays */
	while ((conn = TAILQ_FIRST(&route->waiting))) {
		iba_route_leave(conn);
		iba_open_resolved(conn, status ? NULL : &agent, status);
	}
	if (status)
		forget(vm, route);
	return 0;
}

void iba_routes_changed(struct iba_vm *vm)
{
	struct iba_route *route;

	forget_idle(vm);
	for (unsigned int i = 0; i < IBA_ROUTE_BUCKETS; i++)
		LIST_FOREACH(route, &vm->routes[i], link)
			ask_shim(vm, route);
}
