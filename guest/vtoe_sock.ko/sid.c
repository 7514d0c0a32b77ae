// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table of socket ids. An id is an index (the lowest that is free) and a
 * generation, which counts all ids ever made: a late message or event for an
 * earlier user of the index does not match. Lookups run under RCU in softirq.
 */
#include "vtoe.h"

#include <linux/wait_bit.h>

static DEFINE_XARRAY_FLAGS(table, XA_FLAGS_ALLOC1 | XA_FLAGS_LOCK_BH);
static atomic_t generation;

static void sid_free(struct vtoe_sid *entry)
{
	vtoe_dev_put(entry->dev);
	kfree_rcu(entry, rcu);
}

void vtoe_sid_get(struct vtoe_sid *entry)
{
	refcount_inc(&entry->refs);
}

void vtoe_sid_put(struct vtoe_sid *entry)
{
	if (refcount_dec_and_test(&entry->refs))
		sid_free(entry);
}

/* With a reference for the caller and one of the table; NULL: limit, memory, device gone. */
struct vtoe_sid *vtoe_sid_create(struct vtoe_sock *vs, struct vtoe_dev *dev, gfp_t gfp)
{
	u32 max = min_t(u32, READ_ONCE(dev->max_sockets), VTOE_SID_INDEX_MASK);
	struct vtoe_sid *entry = kzalloc(sizeof(*entry), gfp);
	u32 index;

	if (!entry)
		return NULL;
	refcount_set(&entry->refs, 2);
	INIT_LIST_HEAD(&entry->node);
	entry->vs = vs;
	entry->dev = dev;
	entry->epoch = READ_ONCE(dev->epoch);
	vtoe_dev_get(dev);
	sock_hold(vtoe_sock(vs));
	if (xa_alloc_bh(&table, &index, NULL, XA_LIMIT(1, max), gfp)) {
		sock_put(vtoe_sock(vs));
		vtoe_dev_put(dev);
		kfree(entry);
		return NULL;
	}
	entry->sid = index | (u32)atomic_inc_return(&generation) << VTOE_SID_INDEX_BITS;
	xa_store_bh(&table, index, entry, gfp); /* the slot is there: cannot fail */
	/* Either vtoe_sid_reset_all() sees the entry, or we see that it ran. */
	smp_mb();
	if (!vtoe_epoch_ok(entry)) {
		vtoe_sid_remove(entry);
		vtoe_sid_put(entry);
		return NULL;
	}
	return entry;
}

struct vtoe_sid *vtoe_sid_find(struct vtoe_dev *dev, u32 sid)
{
	struct vtoe_sid *entry;

	rcu_read_lock();
	entry = xa_load(&table, sid & VTOE_SID_INDEX_MASK);
	if (!entry || entry->sid != sid || entry->dev != dev || !vtoe_epoch_ok(entry) ||
	    !refcount_inc_not_zero(&entry->refs)) {
		entry = NULL;
	} else if (!refcount_inc_not_zero(&vtoe_sock(entry->vs)->sk_refcnt)) {
		vtoe_sid_put(entry);
		entry = NULL;
	}
	rcu_read_unlock();
	return entry;
}

/* Out of the table, once. */
bool vtoe_sid_remove(struct vtoe_sid *entry)
{
	if (xa_cmpxchg_bh(&table, entry->sid & VTOE_SID_INDEX_MASK, entry, NULL, 0) != entry)
		return false;
	WRITE_ONCE(entry->gone, true);
	smp_mb(); /* as wake_up_var() asks: forget_conn() waits */
	wake_up_var(&entry->gone);
	sock_put(vtoe_sock(entry->vs));
	vtoe_sid_put(entry);
	return true;
}

/* The device's connections are gone: its epoch has ended. */
void vtoe_sid_reset_all(struct vtoe_dev *dev)
{
	struct vtoe_sid *entry;
	unsigned long index;

	smp_mb(); /* pairs with vtoe_sid_create() */
	rcu_read_lock();
	xa_for_each(&table, index, entry) {
		struct sock *sk = vtoe_sock(entry->vs);

		if (entry->dev != dev || !refcount_inc_not_zero(&entry->refs))
			continue;
		if (!refcount_inc_not_zero(&sk->sk_refcnt)) {
			vtoe_sid_put(entry);
			continue;
		}
		if (!entry->listener)
			vtoe_reset(entry->vs, VTOE_REASON_REMOVED);
		vtoe_sid_remove(entry);
		vtoe_sid_put(entry);
		sock_put(sk);
	}
	rcu_read_unlock();
}
