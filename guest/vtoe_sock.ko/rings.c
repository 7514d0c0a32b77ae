// SPDX-License-Identifier: GPL-2.0-only
/*
 * The virtqueues of a device: NAPI, send ring, receive buffers, event buffers.
 *
 * One NAPI instance serves them all. Its order matters: events and answers are
 * taken out of their rings first, then the RWQs are drained, then events and
 * answers are applied. So nothing that the host delivered before an event (or
 * before the answer to CLOSE) is missed.
 *
 * The SWQ is reaped when something is posted, and here; its interrupt is on
 * only while somebody waits for room. That of the CR is on while there is a
 * command whose answer cannot wait, cmd.c.
 */
#include "vtoe.h"

#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/slab.h>

#define EVENTS_AT_ONCE 8

/*
 * The next buffer that the host has given back. After a reset of the device it has
 * none any more: what is still posted comes back empty.
 */
void *vtoe_get_buf(struct vtoe_dev *dev, struct virtqueue *vq, u32 *len)
{
	void *buf = virtqueue_get_buf(vq, len);

	if (likely(buf) || likely(!READ_ONCE(dev->vtoe->reset)))
		return buf;
	*len = 0;
	return virtqueue_detach_unused_buf(vq);
}

void vtoe_kick(struct vtoe_dev *dev, struct virtqueue *vq, spinlock_t *lock)
{
	bool needed = false;

	/* vtoe_remove() waits a grace period after the epoch, then vq may go. */
	rcu_read_lock();
	spin_lock_bh(lock);
	if (READ_ONCE(dev->epoch))
		needed = virtqueue_kick_prepare(vq);
	spin_unlock_bh(lock);
	if (needed) {
		vtoe_stat_add(dev_net(dev->netdev), VTOE_STAT_KICKS, 1);
		virtqueue_notify(vq);
	}
	rcu_read_unlock();
}

void vtoe_kick_swq(struct vtoe_dev *dev)
{
	vtoe_kick(dev, dev->swq, &dev->swq_lock);
}

/* ---- pool ---- */

/* Does the epoch that the connection belongs to still last? */
bool vtoe_epoch_ok(const struct vtoe_sid *entry)
{
	return READ_ONCE(entry->dev->ready) && entry->epoch == READ_ONCE(entry->dev->epoch);
}

/* vs->conn is new: nobody else looks at it yet */
bool vtoe_pool_open(struct vtoe_dev *dev, struct vtoe_sock *vs)
{
	u32 window = max_t(u32, READ_ONCE(vtoe_sock(vs)->sk_rcvbuf), 4096);
	bool ok = false, more;

	spin_lock_bh(&dev->pool_lock);
	if (vtoe_epoch_ok(vs->conn))
		ok = vtoe_rx_open(&dev->pool, &vs->rx, window);
	more = dev->pool.free[VNET_RWQ_SMALL] < dev->pool.total[VNET_RWQ_SMALL] / 4;
	/* In here: vtoe_remove() ends the epoch, then cancels the work. */
	if ((!ok || more) && vtoe_epoch_ok(vs->conn))
		queue_work(vtoe_wq, &dev->grow_work);
	spin_unlock_bh(&dev->pool_lock);
	return ok;
}

/* vs->lock is not needed: the entry is closing, nobody grants for it */
void vtoe_pool_close(struct vtoe_sid *entry)
{
	struct vtoe_dev *dev = entry->dev;

	if (entry->listener)
		return;
	spin_lock_bh(&dev->pool_lock);
	if (vtoe_epoch_ok(entry))
		vtoe_rx_close(&dev->pool, &entry->vs->rx);
	spin_unlock_bh(&dev->pool_lock);
}

/* ---- SWQ ---- */

/* swq_lock */
static void swq_reap(struct vtoe_dev *dev)
{
	struct vtoe_chunk *chunk;
	u32 len;

	while ((chunk = vtoe_get_buf(dev, dev->swq, &len))) {
		struct vtoe_sock *vs = chunk->vs;

		dev->swq_used--;
		chunk->vs = NULL;
		vtoe_chunk_put(chunk);
		sock_put(vtoe_sock(vs));
	}
}

/* vs->lock */
int vtoe_swq_post(struct vtoe_sock *vs, struct vtoe_chunk *chunk)
{
	struct scatterlist sg[VTOE_CHUNK_FRAGS + 1], *sgs[] = { sg };
	struct vtoe_dev *dev = vs->conn->dev;
	int err;
	u16 i;

	sg_init_table(sg, chunk->nr_frags + 1);
	sg_set_buf(&sg[0], &chunk->hdr, sizeof(chunk->hdr));
	for (i = 0; i < chunk->nr_frags; i++)
		sg_set_page(&sg[i + 1], chunk->frag[i].bv_page, chunk->frag[i].bv_len,
			    chunk->frag[i].bv_offset);

	spin_lock_bh(&dev->swq_lock);
	if (dev->swq->num_free < virtqueue_get_vring_size(dev->swq) / 2)
		swq_reap(dev);
	err = virtqueue_add_sgs(dev->swq, sgs, 1, 0, chunk, GFP_ATOMIC);
	if (!err) {
		refcount_inc(&chunk->refs);
		chunk->vs = vs;
		sock_hold(vtoe_sock(vs));
		dev->swq_used++;
	}
	spin_unlock_bh(&dev->swq_lock);
	return err;
}

void vtoe_swq_wait(struct vtoe_sock *vs)
{
	struct vtoe_dev *dev = vs->conn->dev;

	spin_lock_bh(&dev->swq_lock);
	if (list_empty(&vs->swq_node)) {
		sock_hold(vtoe_sock(vs));
		list_add_tail(&vs->swq_node, &dev->swq_waiters);
	}
	if (!virtqueue_enable_cb(dev->swq))
		napi_schedule(&dev->napi);
	spin_unlock_bh(&dev->swq_lock);
}

static void swq_run_waiters(struct vtoe_dev *dev)
{
	struct vtoe_sock *vs;
	LIST_HEAD(waiters);
	bool kick = false;

	spin_lock_bh(&dev->swq_lock);
	swq_reap(dev);
	list_splice_init(&dev->swq_waiters, &waiters);
	while (!list_empty(&waiters)) {
		vs = list_first_entry(&waiters, struct vtoe_sock, swq_node);
		list_del_init(&vs->swq_node);
		spin_unlock_bh(&dev->swq_lock);

		spin_lock_bh(&vs->lock);
		kick |= vtoe_xmit(vs);
		if (vs->credit_owed || vs->rx.acked != vs->rx.consumed)
			kick |= vtoe_send_credit(vs, 0);
		vtoe_close_check(vs);
		spin_unlock_bh(&vs->lock);
		sock_put(vtoe_sock(vs));

		spin_lock_bh(&dev->swq_lock);
	}
	spin_unlock_bh(&dev->swq_lock);
	if (kick)
		vtoe_kick_swq(dev);
}

/* ---- who waits for credit to grant, credit.c ---- */

void vtoe_credit_wait(struct vtoe_sock *vs)
{
	struct vtoe_dev *dev = vs->conn->dev;

	spin_lock_bh(&dev->pool_lock);
	if (list_empty(&vs->credit_node) && vtoe_rx_waits(&dev->pool, &vs->rx)) {
		sock_hold(vtoe_sock(vs));
		list_add_tail(&vs->credit_node, &dev->credit_waiters);
	}
	spin_unlock_bh(&dev->pool_lock);
}

static struct vtoe_sock *next_credit_waiter(struct vtoe_dev *dev, bool all)
{
	struct vtoe_sock *vs = NULL;

	spin_lock_bh(&dev->pool_lock);
	if (all || dev->pool.free[VNET_RWQ_SMALL] > dev->pool.reserved[VNET_RWQ_SMALL])
		vs = list_first_entry_or_null(&dev->credit_waiters, struct vtoe_sock,
					      credit_node);
	if (vs)
		list_del_init(&vs->credit_node);
	spin_unlock_bh(&dev->pool_lock);
	return vs;
}

/* As long as there are buffers; all: the epoch has ended, nobody waits any more. */
static void run_credit_waiters(struct vtoe_dev *dev, bool all)
{
	struct vtoe_sock *vs;
	bool kick = false, due;

	while ((vs = next_credit_waiter(dev, all))) {
		spin_lock_bh(&vs->lock);
		spin_lock(&dev->pool_lock);
		/* It may be another connection by now, or none. */
		due = vs->conn && vs->conn->dev == dev && vtoe_epoch_ok(vs->conn) &&
		      vtoe_rx_due(&dev->pool, &vs->rx, false);
		spin_unlock(&dev->pool_lock);
		if (due)
			kick |= vtoe_send_credit(vs, 0);
		spin_unlock_bh(&vs->lock);
		sock_put(vtoe_sock(vs));
	}
	if (kick)
		vtoe_kick_swq(dev);
}

/* ---- RWQ ---- */

static void rxbuf_free(struct vtoe_rxbuf *buf)
{
	u16 i;

	for (i = 0; i < buf->nr_pages; i++)
		__free_pages(buf->page[i], buf->order);
	kfree(buf);
}

static struct vtoe_rxbuf *rxbuf_try(u32 bytes, u8 order, gfp_t gfp)
{
	u16 nr = DIV_ROUND_UP(bytes, PAGE_SIZE << order);
	struct vtoe_rxbuf *buf = kmalloc(struct_size(buf, page, nr), gfp);

	if (!buf)
		return NULL;
	buf->order = order;
	buf->lent = false;
	for (buf->nr_pages = 0; buf->nr_pages < nr; buf->nr_pages++) {
		struct page *page = alloc_pages(gfp | __GFP_NOWARN |
						(order ? __GFP_COMP | __GFP_NORETRY : 0), order);

		if (!page) {
			rxbuf_free(buf);
			return NULL;
		}
		buf->page[buf->nr_pages] = page;
	}
	return buf;
}

/* One piece of memory if there is one, else as many as a chunk may have. */
static struct vtoe_rxbuf *rxbuf_alloc(u32 bytes, gfp_t gfp)
{
	u8 order = get_order(bytes);
	u8 least = get_order(DIV_ROUND_UP(bytes, VTOE_CHUNK_FRAGS));
	struct vtoe_rxbuf *buf = rxbuf_try(bytes, order, gfp);

	return buf || least == order ? buf : rxbuf_try(bytes, least, gfp);
}

/* rwq_lock */
static int rwq_add(struct vtoe_dev *dev, struct vtoe_rxbuf *buf)
{
	u32 left = dev->rwq_buf_size[buf->class];
	struct scatterlist sg[VTOE_CHUNK_FRAGS + 1], *sgs[] = { sg };
	u16 i;
	int err;

	if (buf->nr_pages + 1 > ARRAY_SIZE(sg))
		return -EINVAL;
	sg_init_table(sg, buf->nr_pages + 1);
	sg_set_buf(&sg[0], &buf->hdr, sizeof(buf->hdr));
	for (i = 0; i < buf->nr_pages; i++) {
		u32 n = min_t(u32, left, PAGE_SIZE << buf->order);

		sg_set_page(&sg[i + 1], buf->page[i], n, 0);
		left -= n;
	}
	buf->epoch = dev->epoch;
	err = virtqueue_add_sgs(dev->rwq[buf->class], sgs, 0, 1, buf, GFP_ATOMIC);
	if (!err)
		dev->rwq_posted[buf->class]++;
	return err;
}

/* Nobody's buffer is not in the ring any more. pool_lock */
static void lose_one(struct vtoe_dev *dev, u32 class)
{
	if (dev->pool.free[class] > dev->pool.reserved[class]) {
		dev->pool.free[class]--;
		dev->pool.total[class]--;
	}
}

/*
 * Buffers back into the ring. vs, with vs->lock: whose they were; NULL: they
 * came unasked for, and no account knows them. Those of an earlier epoch go.
 */
void vtoe_rx_repost(struct vtoe_dev *dev, struct vtoe_sock *vs, struct list_head *bufs)
{
	struct vtoe_rxbuf *buf, *next;
	bool posted, current_epoch;
	u32 classes = 0;

	list_for_each_entry_safe(buf, next, bufs, node) {
		u8 class = buf->class;

		list_del(&buf->node);
		if (buf->lent) {
			vs->rx.lent--;
			rxbuf_free(buf);
			continue;
		}
		spin_lock_bh(&dev->rwq_lock);
		current_epoch = READ_ONCE(dev->ready) && buf->epoch == dev->epoch;
		posted = current_epoch && !rwq_add(dev, buf);
		if (current_epoch && !posted) {
			list_add_tail(&buf->node, &dev->unposted);
			queue_work(vtoe_wq, &dev->grow_work);
		}
		spin_unlock_bh(&dev->rwq_lock);
		if (posted)
			classes |= 1u << class;
		else if (!current_epoch)
			rxbuf_free(buf);

		spin_lock_bh(&dev->pool_lock);
		if (vs && vtoe_epoch_ok(vs->conn)) {
			if (posted)
				vtoe_rx_reposted(&dev->pool, &vs->rx, class);
			else
				vtoe_rx_lost(&dev->pool, &vs->rx, class);
		} else if (!vs && current_epoch && !posted) {
			lose_one(dev, class);
		}
		spin_unlock_bh(&dev->pool_lock);
	}
	/* NAPI looks for them at its end anyway; a reader wakes it. */
	if (classes && !list_empty_careful(&dev->credit_waiters))
		napi_schedule(&dev->napi);
	while (classes) {
		u32 class = __ffs(classes);

		classes &= classes - 1;
		vtoe_kick(dev, dev->rwq[class], &dev->rwq_lock);
	}
}

/*
 * A message has come for a connection on demand. It stays where it is; another
 * buffer goes into the ring, which is as if it had been read. vs->lock, softirq
 */
void vtoe_rx_swap(struct vtoe_dev *dev, struct vtoe_sock *vs, struct vtoe_rxbuf *buf)
{
	struct vtoe_rxbuf *fresh = rxbuf_alloc(dev->rwq_buf_size[buf->class], GFP_ATOMIC);
	LIST_HEAD(bufs);

	if (!fresh) /* it will have to be read */
		return;
	fresh->class = buf->class;
	fresh->epoch = buf->epoch;
	list_add(&fresh->node, &bufs);
	buf->lent = true;
	vs->rx.lent++;
	vtoe_rx_repost(dev, vs, &bufs);
}

/* Once more for those that found no room. Process context. */
void vtoe_rwq_retry(struct vtoe_dev *dev)
{
	u32 added[VNET_RWQ_CLASSES] = {}, class;
	struct vtoe_rxbuf *buf, *next;

	spin_lock_bh(&dev->rwq_lock);
	list_for_each_entry_safe(buf, next, &dev->unposted, node) {
		if (rwq_add(dev, buf))
			break;
		list_del(&buf->node);
		added[buf->class]++;
	}
	spin_unlock_bh(&dev->rwq_lock);
	for (class = 0; class < VNET_RWQ_CLASSES; class++) {
		if (!added[class])
			continue;
		spin_lock_bh(&dev->pool_lock);
		vtoe_pool_add(&dev->pool, class, added[class]);
		spin_unlock_bh(&dev->pool_lock);
		vtoe_kick(dev, dev->rwq[class], &dev->rwq_lock);
	}
}

/* More buffers into the pool; how many there are now in the ring. */
u32 vtoe_rwq_fill(struct vtoe_dev *dev, u32 class, u32 count, gfp_t gfp)
{
	u32 bytes = dev->rwq_buf_size[class], added = 0;
	struct vtoe_rxbuf *buf;
	int err = 0;

	while (added < count && !err) {
		buf = rxbuf_alloc(bytes, gfp);
		if (!buf)
			break;
		buf->class = class;
		spin_lock_bh(&dev->rwq_lock);
		err = rwq_add(dev, buf);
		spin_unlock_bh(&dev->rwq_lock);
		if (err)
			rxbuf_free(buf);
		else
			added++;
	}
	spin_lock_bh(&dev->pool_lock);
	vtoe_pool_add(&dev->pool, class, added);
	spin_unlock_bh(&dev->pool_lock);
	if (added)
		vtoe_kick(dev, dev->rwq[class], &dev->rwq_lock);
	return added;
}

/* A buffer less in the ring, before the epoch ends or if the host thinks it bad. */
static void lose_buffer(struct vtoe_dev *dev, struct vtoe_rxbuf *buf)
{
	spin_lock(&dev->pool_lock);
	lose_one(dev, buf->class);
	spin_unlock(&dev->pool_lock);
	rxbuf_free(buf);
}

/* What was in the ring when we began. Returns the messages. */
static u32 rwq_poll(struct vtoe_dev *dev, u32 class)
{
	u32 max = virtqueue_get_vring_size(dev->rwq[class]), done, len;
	struct vtoe_rxbuf *buf;

	for (done = 0; done < max; done++) {
		spin_lock(&dev->rwq_lock);
		buf = virtqueue_get_buf(dev->rwq[class], &len);
		if (buf)
			dev->rwq_posted[class]--;
		spin_unlock(&dev->rwq_lock);
		if (!buf)
			break;
		if (len < sizeof(buf->hdr)) { /* given back: the agent is gone */
			lose_buffer(dev, buf);
			continue;
		}
		/* One that an earlier epoch left in the ring belongs to this one. */
		buf->epoch = dev->epoch;
		vtoe_rx_message(dev, buf, len);
	}
	return done;
}

/* ---- EQ ---- */

static int eq_add(struct vtoe_dev *dev, struct vtoe_evbuf *buf)
{
	struct scatterlist sg, *sgs[] = { &sg };
	int err;

	sg_init_one(&sg, &buf->ev, sizeof(buf->ev));
	err = virtqueue_add_sgs(dev->eq, sgs, 0, 1, buf, GFP_ATOMIC);
	buf->posted = !err;
	return err;
}

int vtoe_eq_fill(struct vtoe_dev *dev)
{
	u32 i;

	for (i = 0; i < dev->nr_events; i++)
		if (!dev->events[i].posted && eq_add(dev, &dev->events[i]))
			return -EIO;
	virtqueue_kick(dev->eq);
	return 0;
}

/*
 * Takes out events, at most max. Their buffers go back at once; those that the
 * host gives back empty stay out until the next epoch.
 */
static u32 eq_collect(struct vtoe_dev *dev, struct vtoe_event *ev, u32 max)
{
	struct vtoe_evbuf *buf;
	u32 n = 0, len;

	while (n < max && (buf = vtoe_get_buf(dev, dev->eq, &len))) {
		buf->posted = false;
		if (len < offsetof(struct vtoe_event, u))
			continue;
		ev[n] = buf->ev;
		if (len < sizeof(buf->ev))
			memset((u8 *)&ev[n] + len, 0, sizeof(buf->ev) - len);
		n++;
		if (READ_ONCE(dev->epoch))
			eq_add(dev, buf);
	}
	if (n)
		virtqueue_kick(dev->eq);
	return n;
}

/* ---- NAPI ---- */

static u32 poll_once(struct vtoe_dev *dev)
{
	struct vtoe_event ev[EVENTS_AT_ONCE];
	u32 i, n, work = 0;
	LIST_HEAD(answers);

	n = eq_collect(dev, ev, EVENTS_AT_ONCE);
	vtoe_cr_collect(dev, &answers);
	for (i = 0; i < VNET_RWQ_CLASSES; i++)
		work += rwq_poll(dev, i);
	for (i = 0; i < n; i++)
		vtoe_event(dev, &ev[i]);
	work += n + !list_empty(&answers);
	vtoe_cr_complete(dev, &answers);
	return work;
}

/* Interrupts on again; true: something came in between. */
static bool arm(struct vtoe_dev *dev)
{
	bool more = false;
	u32 class;

	spin_lock(&dev->cr_lock);
	if (dev->cr_urgent)
		more |= !virtqueue_enable_cb(dev->cr);
	spin_unlock(&dev->cr_lock);
	more |= !virtqueue_enable_cb(dev->eq);
	spin_lock(&dev->rwq_lock);
	for (class = 0; class < VNET_RWQ_CLASSES; class++)
		more |= !virtqueue_enable_cb(dev->rwq[class]);
	spin_unlock(&dev->rwq_lock);
	return more;
}

int vtoe_poll_napi(struct napi_struct *napi, int budget)
{
	struct vtoe_dev *dev = container_of(napi, struct vtoe_dev, napi);
	u32 work = 0, n;

	if (!budget) /* netpoll: nothing of ours is its business */
		return 0;
	do {
		n = poll_once(dev);
		work += n;
	} while (n && work < budget);
	swq_run_waiters(dev);
	run_credit_waiters(dev, false);

	if (work >= budget)
		return budget;
	if (napi_complete_done(napi, work) && arm(dev))
		napi_schedule(napi);
	return work;
}

/*
 * Takes back everything that the host gave back, while NAPI is off and the
 * epoch has ended. Buffers of the old epoch are freed.
 */
void vtoe_rings_drain(struct vtoe_dev *dev)
{
	struct vtoe_rxbuf *unposted, *next;
	struct vtoe_event ev;
	LIST_HEAD(answers);
	u32 class, len;
	void *buf;

	local_bh_disable();
	while (eq_collect(dev, &ev, 1))
		;
	for (class = 0; class < VNET_RWQ_CLASSES; class++) {
		spin_lock(&dev->rwq_lock);
		while ((buf = vtoe_get_buf(dev, dev->rwq[class], &len))) {
			dev->rwq_posted[class]--;
			rxbuf_free(buf);
		}
		spin_unlock(&dev->rwq_lock);
	}
	spin_lock(&dev->rwq_lock);
	list_for_each_entry_safe(unposted, next, &dev->unposted, node) {
		list_del(&unposted->node);
		rxbuf_free(unposted);
	}
	spin_unlock(&dev->rwq_lock);
	swq_run_waiters(dev);
	run_credit_waiters(dev, true);
	vtoe_cr_collect(dev, &answers);
	vtoe_cr_complete(dev, &answers);
	local_bh_enable();
}
