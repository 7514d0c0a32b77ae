// SPDX-License-Identifier: GPL-2.0-only
/*
 * The grant policy.
 *
 * Receive buffers belong to the device and are shared by its connections. A
 * grant is a promise that cannot be taken back (a sender may use it at any
 * time), so the sum of unused grants must never exceed the buffers in the ring.
 * Per class of buffers:
 *
 *   free = posted - granted and not used        >= reserved  >= 0
 *   usage of a connection = granted and not used + received and not reposted
 *
 * Receiving takes a buffer out of the ring and uses up a grant, so free stays;
 * reposting adds one to free; granting takes from it.
 *
 * - Minimum. Each connection has VTOE_CREDIT_MIN small buffers (one, when half
 *   of them are spoken for) that nobody else can have: what it does not use of
 *   them is in reserved. So no connection can starve another, and a long message
 *   gets through in small pieces.
 * - More by demand. A connection's target doubles when its sender used up most
 *   of what it had or says that it wants more.
 * - Dynamic threshold (Choudhury and Hahne, 1998): beyond the minimum a
 *   connection's usage may not exceed what is left free. One alone gets half of
 *   the pool, n hungry ones 1/(n+1) each, and whoever does not read is limited
 *   by the buffers it holds.
 *
 * - On demand. More connections than buffers: who opens when nothing but an
 *   eighth of the pool is left has no minimum and begins without credit. When its
 *   peer says that it has something, it gets one buffer of that eighth, as soon as
 *   there is one (rings.c keeps a list). What arrives in it is kept while another
 *   buffer takes its place in the ring, so a slow reader holds none, nor does who
 *   is idle. When buffers are free again it becomes one like the others.
 *
 * The peer is told along with any message we send. Alone (vtoe_rx_due) when
 * the news is worth a message: half of what it should have, a sender that is
 * about to stop, or bytes it keeps for us.
 */
#ifdef __KERNEL__
#include <linux/kernel.h>
#include <asm/byteorder.h>
#include "credit.h"
#else
#include <endian.h>
#include "credit.h"
#define le32_to_cpu(x) le32toh(x)
#define le64_to_cpu(x) le64toh(x)
#define cpu_to_le32(x) htole32(x)
#define cpu_to_le64(x) htole64(x)
#endif

/* To begin with: what is granted to a connection that then idles is gone. */
#define TARGET_SMALL VTOE_CREDIT_MIN
#define TARGET_LARGE 2
/* Connections on demand, for each buffer that there is. */
#define ON_DEMAND_MAX 64
/* Their messages that wait to be read, each. */
#define LENT_MAX 16

static __u32 outstanding(const struct vtoe_rx_credit *rx, __u32 class)
{
	return rx->limit[class] - rx->got[class];
}

static __u32 usage(const struct vtoe_rx_credit *rx, __u32 class)
{
	return outstanding(rx, class) + rx->held[class];
}

/* What of the minimum is not in use, hence must stay in reserve. */
static __u32 shortfall(const struct vtoe_rx_credit *rx, __u32 class)
{
	__u32 in_use = usage(rx, class);

	if (rx->closed || class != VNET_RWQ_SMALL || in_use >= rx->min)
		return 0;
	return rx->min - in_use;
}

/* For connections on demand. */
static __u32 kept(const struct vtoe_pool *pool, __u32 class)
{
	__u32 total = pool->total[class];

	return class == VNET_RWQ_SMALL && total >= 128 ? total / 8 : 0;
}

/* What is free for everybody. Less than nothing when buffers were lost. */
static __u32 common_of(const struct vtoe_pool *pool, __u32 class)
{
	__u32 spoken_for = pool->reserved[class] + kept(pool, class);

	return pool->free[class] > spoken_for ? pool->free[class] - spoken_for : 0;
}

void vtoe_pool_add(struct vtoe_pool *pool, __u32 class, __u32 count)
{
	pool->total[class] += count;
	pool->free[class] += count;
}

bool vtoe_rx_open(struct vtoe_pool *pool, struct vtoe_rx_credit *rx, __u32 window)
{
	static const struct vtoe_rx_credit fresh = {
		.target = { TARGET_SMALL, TARGET_LARGE },
	};
	__u32 common = common_of(pool, VNET_RWQ_SMALL);
	__u32 min = common > pool->total[VNET_RWQ_SMALL] / 2 ? VTOE_CREDIT_MIN : 1;

	if (common < min) {
		if (pool->on_demand >= pool->total[VNET_RWQ_SMALL] * ON_DEMAND_MAX ||
		    !kept(pool, VNET_RWQ_SMALL))
			return false;
		min = 0;
		pool->on_demand++;
	}
	*rx = fresh;
	rx->on_demand = !min;
	rx->window = window;
	rx->min = min;
	pool->reserved[VNET_RWQ_SMALL] += min;
	pool->conns++;
	return true;
}

void vtoe_rx_close(struct vtoe_pool *pool, struct vtoe_rx_credit *rx)
{
	__u32 class;

	if (rx->closed)
		return;
	for (class = 0; class < VNET_RWQ_CLASSES; class++) {
		pool->reserved[class] -= shortfall(rx, class);
		pool->free[class] += outstanding(rx, class);
		rx->limit[class] = rx->got[class];
	}
	rx->closed = true;
	pool->conns--;
	pool->on_demand -= rx->on_demand;
}

/* It gets a minimum, now that there is enough. */
static void promote(struct vtoe_pool *pool, struct vtoe_rx_credit *rx)
{
	if (!rx->on_demand || rx->closed ||
	    common_of(pool, VNET_RWQ_SMALL) <= pool->total[VNET_RWQ_SMALL] / 4)
		return;
	rx->on_demand = false;
	pool->on_demand--;
	rx->min = 1;
	pool->reserved[VNET_RWQ_SMALL] += shortfall(rx, VNET_RWQ_SMALL);
}

bool vtoe_rx_got(struct vtoe_pool *pool, struct vtoe_rx_credit *rx, __u32 class,
		 __u64 end)
{
	if (rx->closed || !outstanding(rx, class) || end > rx->byte_limit)
		return false;
	/* From granted to held: neither usage nor free changes. */
	rx->got[class]++;
	rx->held[class]++;
	if (!rx->on_demand && outstanding(rx, class) <= rx->target[class] / 4 &&
	    rx->target[class] < pool->total[class])
		rx->target[class] *= 2;
	return true;
}

void vtoe_rx_reposted(struct vtoe_pool *pool, struct vtoe_rx_credit *rx, __u32 class)
{
	__u32 before = shortfall(rx, class);

	rx->held[class]--;
	pool->free[class]++;
	pool->reserved[class] += shortfall(rx, class) - before;
}

void vtoe_rx_lost(struct vtoe_pool *pool, struct vtoe_rx_credit *rx, __u32 class)
{
	__u32 before = shortfall(rx, class);

	rx->held[class]--;
	pool->total[class]--;
	pool->reserved[class] += shortfall(rx, class) - before;
}

__u32 vtoe_rx_grantable(const struct vtoe_pool *pool,
			const struct vtoe_rx_credit *rx, __u32 class)
{
	__u32 in_use = usage(rx, class), min = shortfall(rx, class);
	__u32 common = common_of(pool, class);
	__u32 more, wanted;

	if (rx->closed || rx->target[class] <= in_use)
		return 0;
	if (rx->on_demand)
		return class == VNET_RWQ_SMALL && rx->want && !in_use &&
		       rx->lent < LENT_MAX && pool->free[class] > pool->reserved[class];
	if (min > pool->free[class])
		min = pool->free[class];
	wanted = rx->target[class] - in_use;
	/* in_use + min + more may be at most what is then left in common */
	more = common > in_use + min ? (common - in_use - min) / 2 : 0;
	/* The last common buffer is worth more in use than in reserve. */
	if (!more && common && !in_use && !min)
		more = 1;
	return wanted < min + more ? wanted : min + more;
}

bool vtoe_rx_waits(const struct vtoe_pool *pool, const struct vtoe_rx_credit *rx)
{
	return rx->on_demand && !rx->closed && rx->want && !usage(rx, VNET_RWQ_SMALL) &&
	       rx->lent < LENT_MAX &&
	       pool->free[VNET_RWQ_SMALL] <= pool->reserved[VNET_RWQ_SMALL];
}

bool vtoe_rx_due(const struct vtoe_pool *pool, const struct vtoe_rx_credit *rx,
		 bool idle)
{
	__u64 unacked = rx->consumed - rx->acked;
	__u64 limit = rx->consumed + rx->window;
	__u64 bytes = limit > rx->byte_limit ? limit - rx->byte_limit : 0;
	__u32 class, grantable;

	if (rx->closed)
		return false;
	if (unacked >= VTOE_CREDIT_ACK_BYTES || bytes >= rx->window / 2)
		return true;
	if (rx->want && idle && unacked)
		return true;
	for (class = 0; class < VNET_RWQ_CLASSES; class++) {
		__u32 left = outstanding(rx, class), half = rx->target[class] / 2;

		/*
		 * A class that the peer does not use is not news; and while half
		 * of it is left, the program's answer may take the news along.
		 */
		if (!rx->on_demand && (left > half || (left == half && !rx->want)))
			continue;
		grantable = vtoe_rx_grantable(pool, rx, class);
		if (!grantable)
			continue;
		if (rx->on_demand)
			return true;
		if (grantable >= half)
			return true;
		if (left <= 1 && rx->want)
			return true;
		if (class == VNET_RWQ_SMALL && !left)
			return true;
	}
	return false;
}

void vtoe_rx_grant(struct vtoe_pool *pool, struct vtoe_rx_credit *rx,
		   struct vtoe_credit *out)
{
	__u64 limit = rx->consumed + rx->window;
	__u32 class;

	promote(pool, rx);
	for (class = 0; class < VNET_RWQ_CLASSES; class++) {
		__u32 before = shortfall(rx, class);
		__u32 count = vtoe_rx_grantable(pool, rx, class);

		rx->limit[class] += count;
		pool->free[class] -= count;
		pool->reserved[class] -= before - shortfall(rx, class);
		out->msg_limit[class] = cpu_to_le32(rx->limit[class]);
	}
	if (limit > rx->byte_limit && !rx->closed)
		rx->byte_limit = limit;
	rx->acked = rx->consumed;
	out->byte_limit = cpu_to_le64(rx->byte_limit);
	out->ack = cpu_to_le64(rx->acked);
}

bool vtoe_tx_open(struct vtoe_tx_credit *tx, const __le32 *buf_size)
{
	__u32 small = le32_to_cpu(buf_size[VNET_RWQ_SMALL]);
	__u32 large = le32_to_cpu(buf_size[VNET_RWQ_LARGE]);

	if (!small || small > large || large > VTOE_MSG_LEN_MAX)
		return false;
	tx->buf_size[VNET_RWQ_SMALL] = small;
	tx->buf_size[VNET_RWQ_LARGE] = large;
	return true;
}

bool vtoe_tx_update(struct vtoe_tx_credit *tx, const struct vtoe_credit *in,
		    __u64 nxt)
{
	__u64 ack = le64_to_cpu(in->ack), limit = le64_to_cpu(in->byte_limit);
	__u32 class;

	if (ack > nxt)
		return false;
	/* Cumulative: a late update does no harm. */
	if (ack > tx->una)
		tx->una = ack;
	if (limit > tx->byte_limit)
		tx->byte_limit = limit;
	for (class = 0; class < VNET_RWQ_CLASSES; class++) {
		__u32 msgs = le32_to_cpu(in->msg_limit[class]);

		if ((__s32)(msgs - tx->limit[class]) > 0)
			tx->limit[class] = msgs;
	}
	return true;
}

__u32 vtoe_tx_may_send(const struct vtoe_tx_credit *tx, __u64 nxt, __u32 len,
		       __u32 *class)
{
	__u64 room = tx->byte_limit > nxt ? tx->byte_limit - nxt : 0;
	__u32 small = tx->buf_size[VNET_RWQ_SMALL], large = tx->buf_size[VNET_RWQ_LARGE];

	if (len > large)
		len = large;
	if (room < len) {
		/* Not a silly little piece, unless nothing else would move us. */
		if (room < small && nxt != tx->una)
			return 0;
		len = (__u32)room;
	}
	if (!len)
		return 0;
	*class = VNET_RWQ_LARGE;
	if (len > small && tx->limit[VNET_RWQ_LARGE] != tx->sent[VNET_RWQ_LARGE])
		return len;
	*class = VNET_RWQ_SMALL;
	if (tx->limit[VNET_RWQ_SMALL] == tx->sent[VNET_RWQ_SMALL])
		return 0;
	return len < small ? len : small;
}
