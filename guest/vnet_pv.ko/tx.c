// SPDX-License-Identifier: GPL-2.0-only
/*
 * Transmission.
 *
 * A descriptor chain is a train: [vnet_train_hdr][encapsulation][frame] in the
 * whole form; in the segmented form one train header and then every segment
 * with an encapsulation header of its own. Headers are pushed in front of the
 * packet, so that they share its first descriptor.
 *
 *  whole      the packet as the stack gave it, checksum and segmentation left
 *             to be done, described in the train header: nobody segments it
 *  segmented  what is to be segmented is segmented here, once for the train,
 *             with finished checksums
 *
 * Which form, and how long the encapsulation is, comes from the snapshot of
 * the vendor block that the packet found (RCU); the train header repeats it.
 *
 * Sent packets are freed at the next transmission, from the tx NAPI instance
 * (interrupt, raised when 3/4 of what is outstanding was used), and from the
 * poll of the rx queue beside it. Byte queue limits count inner frames.
 */
#include <linux/if_vlan.h>
#include <linux/netdevice.h>
#include <linux/skbuff.h>
#include <linux/tcp.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>

#include "vnet_pv.h"

/*
 * What TCP is asked to keep a packet to in the segmented form, so that with
 * headers on every segment it still is one train.
 */
#define SEGMENTED_TSO_SIZE 61440

/* What one call of ndo_start_xmit added to the ring, and lost. */
struct sent {
	u32 packets;
	u32 bytes;
	u32 drops[VNPV_TX_DROP_COUNT];
};

void vnpv_tx_init(struct vnpv_dev *vd, struct vnpv_sq *sq)
{
	u32 num = virtqueue_get_vring_size(sq->vq);

	sq->indirect = virtio_has_feature(vd->vdev, VIRTIO_RING_F_INDIRECT_DESC);
	sq->room = MAX_SKB_FRAGS + 2;
	/* Segments, one ring entry each, where indirect tables do not help. */
	if (!sq->indirect)
		sq->room = max_t(u32, sq->room, num / 4 + 2);
	sg_init_table(sq->sg, VNPV_TX_SG_MAX);
}

void vnpv_tx_limits(struct vnpv_dev *vd, const struct vnpv_block *block)
{
	u32 segs = GSO_MAX_SEGS;

	if (block->train_form == VNET_TRAIN_SEGMENTED) {
		netif_set_tso_max_size(vd->netdev, SEGMENTED_TSO_SIZE);
		segs = VNPV_TRAIN_SEGS_MAX;
	}
	if (!vd->sq[0].indirect)
		segs = min(segs, vd->sq[0].slots.num / 4);
	netif_set_tso_max_segs(vd->netdev, segs);
}

netdev_features_t vnpv_features_check(struct sk_buff *skb,
				      struct net_device *netdev,
				      netdev_features_t features)
{
	if (skb_is_gso(skb) && skb->len > VNET_FRAME_MAX)
		features &= ~NETIF_F_GSO_MASK;
	return vlan_features_check(skb, features);
}

/* ---- completion ---- */

void vnpv_tx_release(struct vnpv_slot *slot)
{
	kfree_skb_list(slot->skbs);
}

/* Under the tx queue's lock. */
static void free_sent(struct vnpv_sq *sq, struct netdev_queue *txq, int budget)
{
	u32 packets = 0, bytes = 0, trains = 0;
	struct sk_buff *skb, *next;
	struct vnpv_slot *slot;
	unsigned int len;

	while ((slot = virtqueue_get_buf(sq->vq, &len))) {
		for (skb = slot->skbs; skb; skb = next) {
			next = skb->next;
			skb_mark_not_on_list(skb);
			napi_consume_skb(skb, budget);
		}
		packets += slot->packets;
		bytes += slot->bytes;
		trains++;
		vnpv_slot_put(&sq->slots, slot);
	}
	if (!trains)
		return;
	netdev_tx_completed_queue(txq, packets, bytes);
	u64_stats_update_begin(&sq->syncp);
	u64_stats_add(&sq->stats.packets, packets);
	u64_stats_add(&sq->stats.bytes, bytes);
	u64_stats_add(&sq->stats.trains, trains);
	u64_stats_update_end(&sq->syncp);
}

static void wake(struct vnpv_sq *sq, struct netdev_queue *txq)
{
	if (sq->vq->num_free < sq->room || !netif_tx_queue_stopped(txq))
		return;
	u64_stats_update_begin(&sq->syncp);
	u64_stats_inc(&sq->stats.wakes);
	u64_stats_update_end(&sq->syncp);
	netif_tx_wake_queue(txq);
}

void vnpv_tx_clean(struct vnpv_dev *vd, u16 index, int budget)
{
	struct netdev_queue *txq = netdev_get_tx_queue(vd->netdev, index);
	struct vnpv_sq *sq = &vd->sq[index];

	if (vnpv_tx_trylock(txq)) {
		do {
			virtqueue_disable_cb(sq->vq);
			free_sent(sq, txq, budget);
		} while (unlikely(!virtqueue_enable_cb_delayed(sq->vq)) &&
			 !virtqueue_is_broken(sq->vq));
		wake(sq, txq);
		__netif_tx_unlock(txq);
	}
}

int vnpv_tx_poll(struct napi_struct *napi, int budget)
{
	struct vnpv_sq *sq = container_of(napi, struct vnpv_sq, napi);
	struct net_device *netdev = napi->dev;
	struct vnpv_dev *vd = netdev_priv(netdev);
	struct netdev_queue *txq = netdev_get_tx_queue(netdev, sq - vd->sq);
	unsigned int opaque;
	bool done;

	__netif_tx_lock(txq, raw_smp_processor_id());
	virtqueue_disable_cb(sq->vq);
	free_sent(sq, txq, budget);
	wake(sq, txq);
	opaque = virtqueue_enable_cb_prepare(sq->vq);
	done = napi_complete_done(napi, 0);
	if (!done)
		virtqueue_disable_cb(sq->vq);
	__netif_tx_unlock(txq);

	if (done && unlikely(virtqueue_poll(sq->vq, opaque)) &&
	    napi_schedule_prep(napi)) {
		__netif_tx_lock(txq, raw_smp_processor_id());
		virtqueue_disable_cb(sq->vq);
		__netif_tx_unlock(txq);
		__napi_schedule(napi);
	}
	return 0;
}

void vnpv_tx_timeout(struct net_device *netdev, unsigned int index)
{
	struct vnpv_dev *vd = netdev_priv(netdev);
	struct vnpv_sq *sq = &vd->sq[index];

	u64_stats_update_begin(&sq->syncp);
	u64_stats_inc(&sq->stats.timeouts);
	u64_stats_update_end(&sq->syncp);
	netdev_err(netdev, "tx queue %u: the host has not taken a packet for %u ms\n",
		   index,
		   jiffies_to_msecs(jiffies -
				    READ_ONCE(netdev_get_tx_queue(netdev, index)->trans_start)));
	if (virtqueue_is_broken(sq->vq))
		vnpv_lost(vd);
	else
		vnpv_napi_schedule(&sq->napi, sq->vq); /* an interrupt may be lost */
}

/* ---- trains ---- */

static enum vnpv_tx_drop add_train(struct vnpv_sq *sq, struct sk_buff *skbs,
				   unsigned int num_sg, u32 packets, u32 bytes)
{
	struct vnpv_slot *slot = vnpv_slot_get(&sq->slots);
	int err;

	if (unlikely(!slot))
		return VNPV_TX_DROP_RING;
	slot->skbs = skbs;
	slot->packets = packets;
	slot->bytes = bytes;
	sg_mark_end(&sq->sg[num_sg - 1]);
	err = virtqueue_add_outbuf(sq->vq, sq->sg, num_sg, slot, GFP_ATOMIC);
	sg_unmark_end(&sq->sg[num_sg - 1]);
	if (likely(!err))
		return VNPV_TX_DROP_COUNT;
	vnpv_slot_put(&sq->slots, slot);
	return err == -EIO ? VNPV_TX_DROP_BROKEN : VNPV_TX_DROP_RING;
}

/* Adds a packet's bytes to the list; how many entries, or negative. */
static int add_sg(struct vnpv_sq *sq, unsigned int at, struct sk_buff *skb)
{
	int num;

	if (at + skb_shinfo(skb)->nr_frags + 1 > VNPV_TX_SG_MAX)
		return -EMSGSIZE;
	num = skb_to_sgvec(skb, sq->sg + at, 0, skb->len);
	if (num > 0)
		sg_unmark_end(&sq->sg[at + num - 1]);
	return num;
}

static void push_train_hdr(struct sk_buff *skb, const struct vnpv_train *train)
{
	struct vnet_train_hdr wire;

	vnpv_train_build(train, &wire);
	memcpy(skb_push(skb, sizeof(wire)), &wire, sizeof(wire));
}

/* What virtio_net_hdr_from_skb() does, for this header. */
static bool describe_offload(const struct sk_buff *skb,
			     struct vnpv_train *train)
{
	const struct skb_shared_info *shinfo = skb_shinfo(skb);

	if (skb->ip_summed == CHECKSUM_PARTIAL) {
		train->flags = VNET_TRAIN_F_NEEDS_CSUM;
		train->csum_start = skb_checksum_start_offset(skb);
		train->csum_offset = skb->csum_offset;
	}
	if (!skb_is_gso(skb))
		return true;
	if (shinfo->gso_type & SKB_GSO_TCPV4)
		train->gso_type = VNET_GSO_TCPV4;
	else if (shinfo->gso_type & SKB_GSO_TCPV6)
		train->gso_type = VNET_GSO_TCPV6;
	else
		return false;
	if (shinfo->gso_type & SKB_GSO_TCP_ECN)
		train->gso_type |= VNET_GSO_ECN;
	train->gso_size = shinfo->gso_size;
	train->hdr_len = skb_transport_offset(skb) + tcp_hdrlen(skb);
	return train->flags & VNET_TRAIN_F_NEEDS_CSUM;
}

static enum vnpv_tx_drop send_whole(struct vnpv_sq *sq,
				    const struct vnpv_block *block,
				    struct sk_buff *skb, struct sent *sent)
{
	struct vnpv_train train = {
		.form = VNET_TRAIN_WHOLE,
		.encap_len = block->encap_len,
		.generation = block->generation,
	};
	u32 bytes = skb->len;
	enum vnpv_tx_drop err;
	int num;

	if (unlikely(!describe_offload(skb, &train)))
		return VNPV_TX_DROP_OFFLOAD;
	if (unlikely(skb_cow_head(skb, sizeof(struct vnet_train_hdr) +
					       block->encap_len)))
		return VNPV_TX_DROP_NOMEM;
	vnpv_encap_build(block, skb_push(skb, block->encap_len));
	train.train_len = skb->len;
	push_train_hdr(skb, &train);
	num = add_sg(sq, 0, skb);
	if (unlikely(num < 0))
		return VNPV_TX_DROP_OFFLOAD;
	err = add_train(sq, skb, num, 1, bytes);
	if (likely(err == VNPV_TX_DROP_COUNT)) {
		sent->packets++;
		sent->bytes += bytes;
	}
	return err;
}

/*
 * Puts a train together from the head of a list of finished frames: as many as
 * have one size, fit, and have descriptors; the first shorter one ends it.
 * Returns the rest of the list. The train is freed if it cannot be sent.
 */
static struct sk_buff *send_train(struct vnpv_sq *sq,
				  const struct vnpv_block *block,
				  struct sk_buff *first, struct sent *sent)
{
	struct vnpv_train train = {
		.form = VNET_TRAIN_SEGMENTED,
		.encap_len = block->encap_len,
		.generation = block->generation,
		.seg_size = first->len + block->encap_len,
	};
	u32 sg_max = sq->indirect ? min_t(u32, VNPV_TX_SG_MAX, sq->slots.num) :
				    sq->room - 1;
	struct sk_buff *skb, *next, *last = NULL;
	enum vnpv_tx_drop err = VNPV_TX_DROP_NOMEM;
	u32 packets = 0, bytes = 0, num_sg = 0;
	int num;

	for (skb = first; skb; skb = next) {
		u32 seg = skb->len + block->encap_len;

		next = skb->next;
		if (packets &&
		    (seg > train.seg_size || packets == VNPV_TRAIN_SEGS_MAX ||
		     train.train_len + seg > VNPV_TRAIN_SEGMENTED_LEN_MAX ||
		     num_sg + skb_shinfo(skb)->nr_frags + 1 > sg_max))
			break;
		if (unlikely(skb_cow_head(skb, sizeof(struct vnet_train_hdr) +
						       block->encap_len)))
			goto drop;
		bytes += skb->len;
		vnpv_encap_build(block, skb_push(skb, block->encap_len));
		train.train_len += seg;
		/* The train header's place now, its contents at the end. */
		if (!packets)
			skb_push(skb, sizeof(struct vnet_train_hdr));
		num = add_sg(sq, num_sg, skb);
		if (unlikely(num < 0)) {
			err = VNPV_TX_DROP_OFFLOAD;
			goto drop;
		}
		num_sg += num;
		packets++;
		last = skb;
		if (seg < train.seg_size) {
			skb = next;
			break;
		}
	}
	last->next = NULL;
	skb_pull(first, sizeof(struct vnet_train_hdr));
	push_train_hdr(first, &train);
	err = add_train(sq, first, num_sg, packets, bytes);
	if (likely(err == VNPV_TX_DROP_COUNT)) {
		sent->packets += packets;
		sent->bytes += bytes;
		return skb;
	}
	kfree_skb_list(first);
	sent->drops[err] += packets;
	return skb;

drop:
	/* The frame that failed goes with those before it. */
	skb->next = NULL;
	kfree_skb_list(first);
	sent->drops[err] += packets + 1;
	return next;
}

static void send_segmented(struct vnpv_sq *sq, const struct vnpv_block *block,
			   struct sk_buff *skb, struct sent *sent)
{
	struct sk_buff *segs = skb;

	if (skb_is_gso(skb)) {
		/* With an indirect table a frame may have several pieces. */
		segs = skb_gso_segment(skb, sq->indirect ? NETIF_F_SG : 0);
		if (IS_ERR_OR_NULL(segs)) {
			dev_kfree_skb_any(skb);
			sent->drops[VNPV_TX_DROP_OFFLOAD]++;
			return;
		}
		dev_consume_skb_any(skb);
	} else if (skb->ip_summed == CHECKSUM_PARTIAL &&
		   unlikely(skb_checksum_help(skb))) {
		dev_kfree_skb_any(skb);
		sent->drops[VNPV_TX_DROP_OFFLOAD]++;
		return;
	}
	while (segs)
		segs = send_train(sq, block, segs, sent);
}

static void send(struct vnpv_dev *vd, struct vnpv_sq *sq, struct sk_buff *skb,
		 struct sent *sent)
{
	enum vnpv_tx_drop err = VNPV_TX_DROP_LENGTH;
	const struct vnpv_block *block;

	if (unlikely(skb->len < ETH_HLEN || skb->len > VNET_FRAME_MAX)) {
		sent->drops[err]++;
		dev_kfree_skb_any(skb);
		return;
	}
	rcu_read_lock();
	block = &rcu_dereference(vd->conf)->block;
	if (block->train_form == VNET_TRAIN_SEGMENTED) {
		send_segmented(sq, block, skb, sent);
	} else {
		err = send_whole(sq, block, skb, sent);
		if (unlikely(err != VNPV_TX_DROP_COUNT)) {
			sent->drops[err]++;
			dev_kfree_skb_any(skb);
		}
	}
	rcu_read_unlock();
}

/* ---- the stack's door ---- */

static void stop_if_full(struct vnpv_sq *sq, struct netdev_queue *txq)
{
	if (likely(sq->vq->num_free >= sq->room))
		return;
	netif_tx_stop_queue(txq);
	u64_stats_update_begin(&sq->syncp);
	u64_stats_inc(&sq->stats.stops);
	u64_stats_update_end(&sq->syncp);
	if (unlikely(!virtqueue_enable_cb_delayed(sq->vq)))
		vnpv_napi_schedule(&sq->napi, sq->vq);
}

static void account_drops(struct vnpv_dev *vd, struct vnpv_sq *sq,
			  const struct sent *sent)
{
	u32 i, all = 0;

	for (i = 0; i < VNPV_TX_DROP_COUNT; i++)
		all += sent->drops[i];
	if (likely(!all))
		return;
	u64_stats_update_begin(&sq->syncp);
	for (i = 0; i < VNPV_TX_DROP_COUNT; i++)
		u64_stats_add(&sq->stats.drops[i], sent->drops[i]);
	u64_stats_update_end(&sq->syncp);
	if (sent->drops[VNPV_TX_DROP_BROKEN])
		vnpv_lost(vd);
}

netdev_tx_t vnpv_start_xmit(struct sk_buff *skb, struct net_device *netdev)
{
	struct vnpv_dev *vd = netdev_priv(netdev);
	u16 index = skb_get_queue_mapping(skb);
	struct netdev_queue *txq = netdev_get_tx_queue(netdev, index);
	struct vnpv_sq *sq = &vd->sq[index];
	bool more = netdev_xmit_more();
	struct sent sent = {};

	do {
		virtqueue_disable_cb(sq->vq);
		free_sent(sq, txq, 0);
	} while (!more && unlikely(!virtqueue_enable_cb_delayed(sq->vq)) &&
		 !virtqueue_is_broken(sq->vq));

	skb_tx_timestamp(skb);
	send(vd, sq, skb, &sent);
	account_drops(vd, sq, &sent);
	stop_if_full(sq, txq);

	if (__netdev_tx_sent_queue(txq, sent.bytes, more) &&
	    virtqueue_kick_prepare(sq->vq) && virtqueue_notify(sq->vq)) {
		u64_stats_update_begin(&sq->syncp);
		u64_stats_inc(&sq->stats.kicks);
		u64_stats_update_end(&sq->syncp);
	}
	return NETDEV_TX_OK;
}
