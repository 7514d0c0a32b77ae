// SPDX-License-Identifier: GPL-2.0-only
/*
 * Virtqueues: making and deleting them, the tables of what their entries refer
 * to, NAPI scheduling in the manner of virtio_net, and control commands.
 */
#include <linux/delay.h>
#include <linux/netdevice.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>

#include "vnet_pv.h"

#define CTRL_SPINS 200
#define CTRL_TIMEOUT (5 * HZ)

/* ---- slots ---- */

static int slots_create(struct vnpv_slots *slots, u32 num)
{
	u32 i;

	slots->slot = kvcalloc(num, sizeof(*slots->slot), GFP_KERNEL);
	if (!slots->slot)
		return -ENOMEM;
	slots->num = num;
	slots->free = 0;
	for (i = 0; i < num; i++)
		slots->slot[i].next_free = i + 1;
	return 0;
}

struct vnpv_slot *vnpv_slot_get(struct vnpv_slots *slots)
{
	struct vnpv_slot *slot;

	if (unlikely(slots->free >= slots->num))
		return NULL;
	slot = &slots->slot[slots->free];
	slots->free = slot->next_free;
	slot->used = true;
	return slot;
}

void vnpv_slot_put(struct vnpv_slots *slots, struct vnpv_slot *slot)
{
	slot->used = false;
	slot->next_free = slots->free;
	slots->free = slot - slots->slot;
}

/* ---- NAPI ---- */

void vnpv_napi_schedule(struct napi_struct *napi, struct virtqueue *vq)
{
	if (napi_schedule_prep(napi)) {
		virtqueue_disable_cb(vq);
		__napi_schedule(napi);
	}
}

void vnpv_napi_enable(struct napi_struct *napi, struct virtqueue *vq)
{
	napi_enable(napi);
	/* What was used meanwhile raises no further interrupt. */
	local_bh_disable();
	vnpv_napi_schedule(napi, vq);
	local_bh_enable();
}

bool vnpv_napi_complete(struct napi_struct *napi, struct virtqueue *vq,
			int work)
{
	unsigned int opaque = virtqueue_enable_cb_prepare(vq);

	if (napi_complete_done(napi, work)) {
		if (unlikely(virtqueue_poll(vq, opaque)))
			vnpv_napi_schedule(napi, vq);
		return true;
	}
	virtqueue_disable_cb(vq);
	return false;
}

static void rx_event(struct virtqueue *vq)
{
	struct vnpv_dev *vd = vq->vdev->priv;

	vnpv_napi_schedule(&vd->rq[vq->index / 2].napi, vq);
}

static void tx_event(struct virtqueue *vq)
{
	struct vnpv_dev *vd = vq->vdev->priv;

	vnpv_napi_schedule(&vd->sq[vq->index / 2].napi, vq);
}

void vnpv_lost(struct vnpv_dev *vd)
{
	if (READ_ONCE(vd->lost))
		return;
	WRITE_ONCE(vd->lost, true);
	netif_carrier_off(vd->netdev);
	netdev_err(vd->netdev, "the device is lost\n");
}

/* ---- control commands, under rtnl ---- */

static bool ctrl_wait(struct vnpv_dev *vd)
{
	unsigned long end = jiffies + CTRL_TIMEOUT;
	unsigned int spins = 0, len;

	while (!virtqueue_get_buf(vd->cvq, &len)) {
		if (virtqueue_is_broken(vd->cvq))
			return false;
		if (spins++ < CTRL_SPINS) {
			cpu_relax();
			continue;
		}
		if (time_after(jiffies, end)) {
			vd->cvq_lost = true; /* its buffers are the device's */
			netdev_err(vd->netdev,
				   "the device does not answer control commands\n");
			return false;
		}
		usleep_range(20, 100);
	}
	return true;
}

int vnpv_ctrl_set_pairs(struct vnpv_dev *vd, u16 pairs)
{
	struct scatterlist hdr, mq, status, *sgs[] = { &hdr, &mq, &status };
	struct vnpv_ctrl *ctrl = vd->ctrl;
	int err;

	if (vd->cvq_lost)
		return -EIO;
	ctrl->hdr.class = VIRTIO_NET_CTRL_MQ;
	ctrl->hdr.cmd = VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET;
	ctrl->mq.virtqueue_pairs = cpu_to_virtio16(vd->vdev, pairs);
	ctrl->status = VIRTIO_NET_ERR;
	sg_init_one(&hdr, &ctrl->hdr, sizeof(ctrl->hdr));
	sg_init_one(&mq, &ctrl->mq, sizeof(ctrl->mq));
	sg_init_one(&status, &ctrl->status, sizeof(ctrl->status));
	err = virtqueue_add_sgs(vd->cvq, sgs, 2, 1, ctrl, GFP_KERNEL);
	if (err)
		return err;
	virtqueue_kick(vd->cvq);
	if (!ctrl_wait(vd))
		return -EIO;
	return ctrl->status == VIRTIO_NET_OK ? 0 : -EINVAL;
}

/* ---- all of them ---- */

static void unused_event(struct virtqueue *vq)
{
}

static const char *const vtoe_names[VNPV_VTOE_QUEUES] = {
	"vtoe-cr", "vtoe-eq", "vtoe-swq", "vtoe-rwq-small", "vtoe-rwq-large",
};

/* Behind the pairs for frames, where the block comes in band. */
static const char *const reserved_names[] = {
	[VNET_HELLO_EQ] = "vtoe-eq",
	[VNET_HELLO_CR] = "vtoe-cr",
	[VNET_HELLO_RWQ_SMALL] = "vtoe-rwq-small",
	[VNET_HELLO_SWQ] = "vtoe-swq",
	[VNET_HELLO_RWQ_LARGE] = "vtoe-rwq-large",
	[VNET_HELLO_UNUSED] = "unused",
};

static_assert(ARRAY_SIZE(reserved_names) == 2 * VNET_HELLO_RESERVED_PAIRS);

static u32 control_queue(const struct vnpv_dev *vd)
{
	return 2 * vnpv_all_pairs(vd);
}

static u32 queue_count(const struct vnpv_dev *vd)
{
	if (vnpv_in_band(vd))
		return control_queue(vd) + 1;
	return vd->vtoe_queue ? vd->vtoe_queue + VNPV_VTOE_QUEUES :
				2 * vd->pairs + 1;
}

/* Transports number the queues that have a name, one after the other. */
static void describe(struct vnpv_dev *vd, struct virtqueue_info *info, u32 n)
{
	u32 i;

	for (i = 0; i < vd->pairs; i++) {
		snprintf(vd->rq[i].name, sizeof(vd->rq[i].name), "rx.%u", i);
		snprintf(vd->sq[i].name, sizeof(vd->sq[i].name), "tx.%u", i);
		info[2 * i].name = vd->rq[i].name;
		info[2 * i].callback = rx_event;
		info[2 * i + 1].name = vd->sq[i].name;
		info[2 * i + 1].callback = tx_event;
	}
	for (i = 2 * vd->pairs; i < control_queue(vd); i++) {
		info[i].name = reserved_names[i - 2 * vd->pairs];
		info[i].callback = vnpv_vtoe_event;
	}
	info[control_queue(vd)].name = "control";
	for (i = control_queue(vd) + 1; i < n; i++) {
		info[i].name = "unused";
		info[i].callback = unused_event;
	}
	for (i = 0; vd->vtoe_queue && i < VNPV_VTOE_QUEUES; i++) {
		info[vd->vtoe_queue + i].name = vtoe_names[i];
		info[vd->vtoe_queue + i].callback = vnpv_vtoe_event;
	}
}

static int find_vqs(struct vnpv_dev *vd)
{
	u32 i, n = queue_count(vd);
	struct virtqueue_info *info;
	struct virtqueue **vqs;
	int err = -ENOMEM;

	vqs = kcalloc(n, sizeof(*vqs), GFP_KERNEL);
	info = kcalloc(n, sizeof(*info), GFP_KERNEL);
	if (!vqs || !info)
		goto out;
	describe(vd, info, n);
	err = vnpv_find_vqs(vd->vdev, n, vqs, info);
	if (err) {
		dev_err(&vd->vdev->dev,
			"the device does not have the %u queues it announces (%d)\n",
			n, err);
		goto out;
	}
	for (i = 0; i < vd->pairs; i++) {
		vd->rq[i].vq = vqs[2 * i];
		vd->sq[i].vq = vqs[2 * i + 1];
	}
	for (i = 2 * vd->pairs; i < control_queue(vd); i++)
		vd->hello.reserved[i - 2 * vd->pairs] = vqs[i];
	vd->cvq = vqs[control_queue(vd)];
	vd->cvq_lost = false;
	if (vd->vtoe_queue) {
		err = vnpv_vtoe_create(vd, &vqs[vd->vtoe_queue]);
		if (err)
			vd->vdev->config->del_vqs(vd->vdev);
	}
out:
	kfree(info);
	kfree(vqs);
	return err;
}

static void free_tables(struct vnpv_dev *vd)
{
	u32 i, j;

	for (i = 0; i < vd->pairs; i++) {
		struct vnpv_sq *sq = &vd->sq[i];

		for (j = 0; sq->slots.slot && j < sq->slots.num; j++)
			if (sq->slots.slot[j].used)
				vnpv_tx_release(&sq->slots.slot[j]);
		netdev_tx_reset_queue(netdev_get_tx_queue(vd->netdev, i));
		kvfree(sq->slots.slot);
		sq->slots.slot = NULL;

		vnpv_rx_release(&vd->rq[i]);
		kvfree(vd->rq[i].slots.slot);
		vd->rq[i].slots.slot = NULL;
	}
}

static int create_tables(struct vnpv_dev *vd)
{
	int err;
	u32 i;

	for (i = 0; i < vd->pairs; i++) {
		err = slots_create(&vd->rq[i].slots,
				   virtqueue_get_vring_size(vd->rq[i].vq));
		if (!err)
			err = slots_create(&vd->sq[i].slots,
					   virtqueue_get_vring_size(vd->sq[i].vq));
		if (err)
			return err;
		vnpv_tx_init(vd, &vd->sq[i]);
		if (vd->sq[i].room >= vd->sq[i].slots.num) {
			dev_err(&vd->vdev->dev,
				"a tx ring of %u entries is too small\n",
				vd->sq[i].slots.num);
			return -EINVAL;
		}
	}
	return 0;
}

int vnpv_queues_create(struct vnpv_dev *vd)
{
	int err;

	err = find_vqs(vd);
	if (err)
		return err;
	err = create_tables(vd);
	if (err)
		vnpv_queues_destroy(vd);
	return err;
}

void vnpv_queues_destroy(struct vnpv_dev *vd)
{
	virtio_reset_device(vd->vdev);
	vd->vdev->config->del_vqs(vd->vdev);
	/* Only now does every transport promise that the host is done. */
	free_tables(vd);
	vnpv_vtoe_destroy(vd);
}
