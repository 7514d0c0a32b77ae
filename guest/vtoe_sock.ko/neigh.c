// SPDX-License-Identifier: GPL-2.0-only
/*
 * The next hop's MAC for CONNECT, by the kernel's own neighbour tables. A
 * socket whose MAC is not known yet waits in a list; the netevent notifier
 * (softirq) has its work look again, which also ends the wait in time.
 */
#include "vtoe.h"

#include <net/addrconf.h>
#include <net/arp.h>
#include <net/dst.h>
#include <net/ndisc.h>
#include <net/neighbour.h>
#include <net/netevent.h>

static LIST_HEAD(waiting);
static DEFINE_SPINLOCK(waiting_lock);

static const void *addr_key(const struct vtoe_addr *addr)
{
	return addr->addr;
}

/*
 * The kernel asks from the source of the packet that waits, and as ours is none,
 * from the link-local address: not at all while that is still being checked for
 * duplicates, in the first seconds of an interface. So ask from our address.
 */
static void solicit6(struct vtoe_sock *vs, struct neighbour *neigh)
{
#if IS_ENABLED(CONFIG_IPV6)
	const struct in6_addr *target = (const void *)neigh->primary_key;
	const struct in6_addr *saddr = (const void *)vs->local.addr;
	struct in6_addr group;
	struct sk_buff *skb;

	if (neigh->tbl->family != AF_INET6 || READ_ONCE(neigh->nud_state) & NUD_VALID)
		return;
	addrconf_addr_solict_mult(target, &group);
	skb = ndisc_ns_create(neigh->dev, target, saddr, 0);
	if (skb)
		ndisc_send_skb(skb, &group, saddr);
#endif
}

/* 0: vs->next_hop is filled in; -EAGAIN: the work will be called. */
int vtoe_neigh_start(struct vtoe_sock *vs, struct dst_entry *dst,
		     const struct vtoe_addr *addr)
{
	struct neighbour *neigh = dst_neigh_lookup(dst, addr_key(addr));
	int ret;

	if (IS_ERR_OR_NULL(neigh))
		return -EHOSTUNREACH;
	if (vs->neigh)
		neigh_release(vs->neigh);
	vs->neigh = neigh;
	spin_lock_bh(&waiting_lock);
	list_add_tail(&vs->neigh_node, &waiting);
	spin_unlock_bh(&waiting_lock);
	/* Also confirms an entry that is stale. */
	neigh_event_send(neigh, NULL);
	solicit6(vs, neigh);
	ret = vtoe_neigh_check(vs);
	if (ret != -EAGAIN)
		vtoe_neigh_stop(vs);
	return ret;
}

int vtoe_neigh_check(struct vtoe_sock *vs)
{
	u8 state = READ_ONCE(vs->neigh->nud_state);

	if (state & NUD_VALID) {
		neigh_ha_snapshot(vs->next_hop, vs->neigh, vs->neigh->dev);
		return 0;
	}
	return state & NUD_FAILED ? -EHOSTUNREACH : -EAGAIN;
}

/* lock_sock */
void vtoe_neigh_stop(struct vtoe_sock *vs)
{
	spin_lock_bh(&waiting_lock);
	list_del_init(&vs->neigh_node);
	spin_unlock_bh(&waiting_lock);
	if (vs->neigh)
		neigh_release(vs->neigh);
	vs->neigh = NULL;
}

static int neigh_event(struct notifier_block *nb, unsigned long event, void *ptr)
{
	struct vtoe_sock *vs;

	if (event != NETEVENT_NEIGH_UPDATE)
		return NOTIFY_DONE;
	spin_lock_bh(&waiting_lock);
	list_for_each_entry(vs, &waiting, neigh_node)
		if (vs->neigh == ptr)
			vtoe_work_in(vs, 0);
	spin_unlock_bh(&waiting_lock);
	return NOTIFY_DONE;
}

static struct notifier_block neigh_notifier = {
	.notifier_call = neigh_event,
};

int vtoe_neigh_init(void)
{
	return register_netevent_notifier(&neigh_notifier);
}

void vtoe_neigh_exit(void)
{
	unregister_netevent_notifier(&neigh_notifier);
}
