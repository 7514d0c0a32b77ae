// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reception.
 *
 * The ring holds buffers of one size, pieces of larger pages. The host fills
 * as many as a train needs; the first begins with the train header, which says
 * how many. From the train header, never from the vendor block, comes how many
 * bytes of encapsulation stand before each frame. A frame becomes a packet
 * with its headers copied into the linear part and the payload where the host
 * put it. A small frame is copied whole and its buffer is posted again: that
 * is cheaper than a new buffer, and a socket is not charged for 4 KB.
 *
 * Threat model: see encap.c. The train header is copied once and then used;
 * every length is bounded by the bytes that the ring reported, and those by
 * the size of the buffers.
 */
#include <linux/etherdevice.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/tcp.h>
#include <linux/virtio_net.h>

#include "vnet_pv.h"
#include "trace.h"

static unsigned int rx_buf_size;
module_param(rx_buf_size, uint, 0444);
MODULE_PARM_DESC(rx_buf_size,
		 "Size of a receive buffer, a power of two from 4096 to 32768 (default 4096)");

/* Frames up to this are copied whole: alone in a buffer, or one of many. */
#define COPYBREAK_ALONE 1600
#define COPYBREAK_SHARED 256
/* At most this much is copied of a longer one, headers alone if they are known. */
#define HEADERS_MAX 256
#define REFILL_RETRY (HZ / 50)

#define BUF_LEN_MIN 4096
#define BUF_LEN_MAX 32768
static_assert(VNPV_RX_BUFS * BUF_LEN_MIN >=
	      sizeof(struct vnet_train_hdr) + VNPV_TRAIN_LEN_MAX);

/* What one poll did. */
struct tally {
	u32 packets, bytes, trains, copied, stale;
	u32 drops[VNPV_RX_DROP_COUNT];
};

/* ---- buffers ---- */

void vnpv_rx_init(struct vnpv_rq *rq)
{
	u32 size = rx_buf_size;

	if (size && (size < BUF_LEN_MIN || size > BUF_LEN_MAX ||
		     !is_power_of_2(size))) {
		pr_warn_once("vnet_pv: rx_buf_size %u is not a power of two from %u to %u; using %u\n",
			     size, BUF_LEN_MIN, BUF_LEN_MAX, BUF_LEN_MIN);
		size = 0;
	}
	rq->buf_len = size ?: BUF_LEN_MIN;
	INIT_DELAYED_WORK(&rq->refill, vnpv_rx_refill_work);
}

static void *buf_alloc(struct vnpv_rq *rq, gfp_t gfp)
{
	struct page_frag *frag = &rq->alloc;
	void *buf;

	if (rq->spares)
		return rq->spare[--rq->spares];
	/* It may give a single page when memory is short. */
	if (!skb_page_frag_refill(rq->buf_len, frag, gfp) ||
	    frag->size - frag->offset < rq->buf_len)
		return NULL;
	buf = page_address(frag->page) + frag->offset;
	get_page(frag->page);
	frag->offset += rq->buf_len;
	return buf;
}

static void buf_free(void *buf)
{
	put_page(virt_to_head_page(buf));
}

static void buf_reuse(struct vnpv_rq *rq, void *buf)
{
	if (rq->spares < VNPV_RX_SPARE)
		rq->spare[rq->spares++] = buf;
	else
		buf_free(buf);
}

bool vnpv_rx_fill_some(struct vnpv_rq *rq, u32 count, gfp_t gfp)
{
	struct vnpv_slot *slot;
	struct scatterlist sg;
	bool filled = true;
	bool kicked;

	while (rq->vq->num_free && count--) {
		slot = vnpv_slot_get(&rq->slots);
		if (unlikely(!slot))
			break;
		slot->buf = buf_alloc(rq, gfp);
		if (unlikely(!slot->buf)) {
			vnpv_slot_put(&rq->slots, slot);
			filled = false;
			break;
		}
		sg_init_one(&sg, slot->buf, rq->buf_len);
		if (unlikely(virtqueue_add_inbuf(rq->vq, &sg, 1, slot, gfp))) {
			buf_reuse(rq, slot->buf);
			vnpv_slot_put(&rq->slots, slot);
			break; /* broken */
		}
	}
	kicked = virtqueue_kick_prepare(rq->vq) && virtqueue_notify(rq->vq);
	if (kicked || !filled) {
		unsigned long flags;

		flags = u64_stats_update_begin_irqsave(&rq->syncp);
		u64_stats_add(&rq->stats.kicks, kicked);
		u64_stats_add(&rq->stats.refill_fails, !filled);
		u64_stats_update_end_irqrestore(&rq->syncp, flags);
	}
	return filled;
}

bool vnpv_rx_fill(struct vnpv_rq *rq, gfp_t gfp)
{
	return vnpv_rx_fill_some(rq, U32_MAX, gfp);
}

/* Memory ran out, or a queue came into use: the poll fills the ring. */
void vnpv_rx_refill_work(struct work_struct *work)
{
	struct vnpv_rq *rq = container_of(to_delayed_work(work),
					  struct vnpv_rq, refill);

	local_bh_disable();
	vnpv_napi_schedule(&rq->napi, rq->vq);
	local_bh_enable();
}

void vnpv_rx_release(struct vnpv_rq *rq)
{
	u32 i;

	for (i = 0; rq->slots.slot && i < rq->slots.num; i++)
		if (rq->slots.slot[i].used)
			buf_free(rq->slots.slot[i].buf);
	while (rq->spares)
		buf_free(rq->spare[--rq->spares]);
	if (rq->alloc.page)
		put_page(rq->alloc.page);
	memset(&rq->alloc, 0, sizeof(rq->alloc));
}

static void *buf_take(struct vnpv_rq *rq, u32 *len)
{
	struct vnpv_slot *slot = virtqueue_get_buf(rq->vq, len);
	void *buf;

	if (!slot)
		return NULL;
	buf = slot->buf;
	vnpv_slot_put(&rq->slots, slot);
	return buf;
}

bool vnpv_rx_peek(struct vnpv_rq *rq, void *to, u32 max, u32 *len)
{
	void *buf = buf_take(rq, len);

	if (!buf)
		return false;
	*len = min(*len, rq->buf_len);
	memset(to, 0, max);
	memcpy(to, buf, min(*len, max));
	buf_reuse(rq, buf);
	return true;
}

/* ---- a train's buffers ---- */

/* Moves on to a buffer that has bytes left; false: there is none. */
static bool chain_seek(struct vnpv_chain *c)
{
	while (c->at < c->bufs && c->off >= c->buf[c->at].len) {
		c->at++;
		c->off = 0;
	}
	return c->at < c->bufs;
}

static void chain_copy(struct vnpv_chain *c, void *to, u32 len)
{
	while (len && chain_seek(c)) {
		u32 n = min(len, c->buf[c->at].len - c->off);

		memcpy(to, c->buf[c->at].data + c->off, n);
		to += n;
		len -= n;
		c->off += n;
	}
}

/*
 * Gives the packet len bytes in place. The last user of a buffer gets its
 * reference, those before it one of their own.
 */
static bool chain_attach(struct vnpv_rq *rq, struct vnpv_chain *c,
			 struct sk_buff *skb, u32 len)
{
	while (len && chain_seek(c)) {
		u8 *data = c->buf[c->at].data + c->off;
		u32 n = min(len, c->buf[c->at].len - c->off);
		struct page *page = virt_to_head_page(data);
		u32 offset = data - (u8 *)page_address(page);
		int frags = skb_shinfo(skb)->nr_frags;
		u32 truesize = n;
		bool last;

		last = c->off + n == c->buf[c->at].len;
		if (last)
			truesize += rq->buf_len - c->buf[c->at].len;
		if (skb_can_coalesce(skb, frags, page, offset)) {
			/* Covered by the reference of the fragment before. */
			skb_coalesce_rx_frag(skb, frags - 1, n, truesize);
		} else {
			if (frags >= MAX_SKB_FRAGS)
				return false;
			if (last)
				c->buf[c->at].data = NULL;
			else
				get_page(page);
			skb_add_rx_frag(skb, frags, page, offset, n, truesize);
		}
		c->buf[c->at].shared = true;
		len -= n;
		c->off += n;
	}
	return true;
}

static void chain_release(struct vnpv_rq *rq, struct vnpv_chain *c)
{
	u32 i;

	for (i = 0; i < c->bufs; i++) {
		if (!c->buf[i].data)
			continue;
		if (c->buf[i].shared)
			buf_free(c->buf[i].data);
		else
			buf_reuse(rq, c->buf[i].data);
	}
}

/* ---- packets ---- */

/* How much of a frame is headers, to be copied into the linear part. */
static u32 headers_len(struct vnpv_rq *rq, const struct vnpv_chain *c,
		       const struct vnpv_train *train, u32 frame_len)
{
	u8 *frame = c->buf[c->at].data + c->off;
	u32 have = min3(c->buf[c->at].len - c->off, frame_len,
			(u32)HEADERS_MAX);
	u32 len;

	if (have < ETH_HLEN + sizeof(struct tcphdr))
		return min_t(u32, frame_len, HEADERS_MAX / 2);
	if (train->flags & VNET_TRAIN_F_NEEDS_CSUM &&
	    train->csum_offset == offsetof(struct tcphdr, check) &&
	    train->csum_start + sizeof(struct tcphdr) <= have) {
		len = train->csum_start + (frame[train->csum_start + 12] >> 4) * 4;
		if (len >= train->csum_start + sizeof(struct tcphdr) &&
		    len <= have)
			return len;
	}
	return max_t(u32, eth_get_headlen(rq->vd->netdev, frame, have),
		     ETH_HLEN);
}

static struct sk_buff *build(struct vnpv_rq *rq, struct vnpv_chain *c,
			     const struct vnpv_train *train, u32 len,
			     struct tally *tally)
{
	u32 copybreak = train->form == VNET_TRAIN_SEGMENTED ? COPYBREAK_SHARED :
							      COPYBREAK_ALONE;
	struct sk_buff *skb;
	u32 copy = len;

	if (len > copybreak)
		copy = headers_len(rq, c, train, len);
	else
		tally->copied++;
	skb = napi_alloc_skb(&rq->napi, copy);
	if (unlikely(!skb))
		return NULL;
	chain_copy(c, skb_put(skb, copy), copy);
	if (unlikely(!chain_attach(rq, c, skb, len - copy))) {
		kfree_skb(skb);
		return NULL;
	}
	return skb;
}

/* Checksum and segmentation metadata, checked against the packet. */
static bool describe_offload(struct vnpv_rq *rq, struct sk_buff *skb,
			     const struct vnpv_train *train)
{
	struct virtio_net_hdr hdr = {
		.flags = train->flags & VNET_TRAIN_F_NEEDS_CSUM,
		.gso_type = train->gso_type,
		.hdr_len = (__force __virtio16)cpu_to_le16(train->hdr_len),
		.gso_size = (__force __virtio16)cpu_to_le16(train->gso_size),
		.csum_start = (__force __virtio16)cpu_to_le16(train->csum_start),
		.csum_offset = (__force __virtio16)cpu_to_le16(train->csum_offset),
	};

	if (train->flags & VNET_TRAIN_F_DATA_VALID &&
	    rq->vd->netdev->features & NETIF_F_RXCSUM)
		skb->ip_summed = CHECKSUM_UNNECESSARY;
	return !virtio_net_hdr_to_skb(skb, &hdr, true);
}

static enum vnpv_rx_drop receive_frame(struct vnpv_rq *rq, struct vnpv_chain *c,
				       const struct vnpv_train *train,
				       u32 tenant, u32 len,
				       struct tally *tally)
{
	u8 encap[VNET_VXLAN_LEN];
	enum vnpv_rx_drop drop;
	struct sk_buff *skb;

	if (unlikely(train->encap_len > sizeof(encap)))
		return VNPV_RX_DROP_ENCAP;
	chain_copy(c, encap, train->encap_len);
	drop = vnpv_encap_verify(encap, train->encap_len, tenant);
	if (unlikely(drop != VNPV_RX_OK))
		return drop;
	len -= train->encap_len;
	skb = build(rq, c, train, len, tally);
	if (unlikely(!skb))
		return VNPV_RX_DROP_NOMEM;
	if (unlikely(!describe_offload(rq, skb, train))) {
		kfree_skb(skb);
		return VNPV_RX_DROP_METADATA;
	}
	tally->packets++;
	tally->bytes += len;
	skb_record_rx_queue(skb, rq - rq->vd->rq);
	skb->protocol = eth_type_trans(skb, rq->vd->netdev);
	napi_gro_receive(&rq->napi, skb);
	return VNPV_RX_OK;
}

/* ---- trains ---- */

/* Collects the buffers of the train that begins in buf. */
static enum vnpv_rx_drop collect(struct vnpv_rq *rq, void *buf, u32 len,
				 struct vnpv_chain *c, struct vnpv_train *train)
{
	struct vnet_train_hdr wire;
	enum vnpv_rx_drop drop;
	u32 missing, all;

	c->bufs = 1;
	c->at = 0;
	c->off = sizeof(wire);
	c->buf[0].data = buf;
	c->buf[0].len = min(len, rq->buf_len);
	c->buf[0].shared = false;
	if (unlikely(len < sizeof(wire) || len > rq->buf_len)) {
		train->train_len = 0;
		return VNPV_RX_DROP_LENGTH;
	}
	memcpy(&wire, buf, sizeof(wire));
	drop = vnpv_train_parse(&wire, train);
	if (unlikely(drop == VNPV_RX_DROP_VERSION)) {
		train->train_len = 0;
		return drop; /* its num_buffers means nothing to us */
	}
	if (unlikely(!train->num_buffers))
		return VNPV_RX_DROP_CHAIN;
	all = len - sizeof(wire);
	for (missing = train->num_buffers - 1; missing; missing--) {
		buf = buf_take(rq, &len);
		if (unlikely(!buf))
			return VNPV_RX_DROP_CHAIN;
		if (unlikely(c->bufs == VNPV_RX_BUFS)) {
			buf_reuse(rq, buf);
			drop = VNPV_RX_DROP_CHAIN;
			continue;
		}
		if (unlikely(len > rq->buf_len)) {
			len = 0;
			drop = VNPV_RX_DROP_LENGTH;
		}
		c->buf[c->bufs].data = buf;
		c->buf[c->bufs].len = len;
		c->buf[c->bufs].shared = false;
		c->bufs++;
		all += len;
	}
	if (unlikely(drop == VNPV_RX_OK && all != train->train_len))
		drop = VNPV_RX_DROP_LENGTH;
	return drop;
}

static void drop_count(struct vnpv_rq *rq, struct tally *tally,
		       enum vnpv_rx_drop drop, const struct vnpv_train *train)
{
	tally->drops[drop]++;
	trace_vnpv_rx_drop(rq->vd->netdev, drop, train->train_len);
}

static void receive_train(struct vnpv_rq *rq, void *buf, u32 len,
			  const struct vnpv_block *block, struct tally *tally)
{
	struct vnpv_chain *c = &rq->chain;
	struct vnpv_train train;
	enum vnpv_rx_drop drop;
	u32 rest, seg;

	tally->trains++;
	drop = collect(rq, buf, len, c, &train);
	if (unlikely(drop != VNPV_RX_OK)) {
		if (drop != VNPV_RX_DROP_VERSION ||
		    !vnpv_hello_received(rq, c->buf[0].data, c->buf[0].len))
			drop_count(rq, tally, drop, &train);
		goto out;
	}
	if (unlikely(train.generation != block->generation))
		tally->stale++;
	seg = train.form == VNET_TRAIN_SEGMENTED ? train.seg_size :
						   train.train_len;
	for (rest = train.train_len; rest; rest -= seg) {
		seg = min(seg, rest);
		if (unlikely(seg < (u32)train.encap_len + ETH_HLEN))
			drop = VNPV_RX_DROP_LENGTH;
		else
			drop = receive_frame(rq, c, &train, block->tenant,
					     seg, tally);
		if (unlikely(drop != VNPV_RX_OK)) {
			/* Where the next frame begins is not known any more. */
			drop_count(rq, tally, drop, &train);
			break;
		}
	}
out:
	chain_release(rq, c);
}

static void account(struct vnpv_rq *rq, const struct tally *tally)
{
	u32 i;

	u64_stats_update_begin(&rq->syncp);
	u64_stats_add(&rq->stats.packets, tally->packets);
	u64_stats_add(&rq->stats.bytes, tally->bytes);
	u64_stats_add(&rq->stats.trains, tally->trains);
	u64_stats_add(&rq->stats.copied, tally->copied);
	u64_stats_add(&rq->stats.stale, tally->stale);
	for (i = 0; i < VNPV_RX_DROP_COUNT; i++)
		u64_stats_add(&rq->stats.drops[i], tally->drops[i]);
	u64_stats_update_end(&rq->syncp);
}

static u32 receive(struct vnpv_rq *rq, int budget)
{
	const struct vnpv_block *block;
	struct tally tally = {};
	void *buf;
	u32 len;

	rcu_read_lock();
	block = &rcu_dereference(rq->vd->conf)->block;
	while (tally.trains < budget && (buf = buf_take(rq, &len)))
		receive_train(rq, buf, len, block, &tally);
	rcu_read_unlock();
	if (tally.trains)
		account(rq, &tally);
	return tally.trains;
}

int vnpv_rx_poll(struct napi_struct *napi, int budget)
{
	struct vnpv_rq *rq = container_of(napi, struct vnpv_rq, napi);
	struct vnpv_dev *vd = rq->vd;
	u16 index = rq - vd->rq;
	u32 done;

	if (budget)
		virtqueue_disable_cb(rq->vq);
	vnpv_tx_clean(vd, index, budget);
	done = receive(rq, budget);

	/* Queues that are not in use have no buffers. */
	if (index < vnpv_rx_pairs(vd) && rq->vq->num_free > rq->slots.num / 4 &&
	    !vnpv_rx_fill(rq, GFP_ATOMIC))
		schedule_delayed_work(&rq->refill, REFILL_RETRY);
	if (done < budget)
		vnpv_napi_complete(napi, rq->vq, done);
	if (unlikely(virtqueue_is_broken(rq->vq)))
		vnpv_lost(vd);
	return done;
}
