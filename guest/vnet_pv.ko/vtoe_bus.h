/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What vnet_pv hands to vtoe_sock: the VTOE queues of one device, as an
 * auxiliary device named "vnet_pv.vtoe".
 *
 * vnet_pv owns the virtio device and the net_device; both outlive the auxiliary
 * device. The bound driver alone touches the queues. Queue callbacks and state
 * changes arrive through ops, which the driver sets in its probe and clears in
 * its remove by vnpv_vtoe_set_ops(); after that call returned none is running.
 *
 * Buffers: post to EQ and RWQ only while the state is VNET_VTOE_UP, and after
 * each new epoch again: when an agent goes away the host returns every buffer
 * of every VTOE queue with length 0. A driver that leaves an UP device sends
 * VTOE_CMD_BYE and waits until its buffers are back, unless `reset` is set: then
 * the host has let go of them all, but they are not in the used rings. The driver
 * takes them by virtqueue_detach_unused_buf().
 */
#ifndef VTOE_BUS_H
#define VTOE_BUS_H

#include <linux/auxiliary_bus.h>
#include <linux/netdevice.h>
#include <linux/virtio.h>

#include "vnet_dev.h"

#define VNPV_VTOE_DEV_NAME "vtoe" /* matched as KBUILD_MODNAME "." this: "vnet_pv.vtoe" */

struct vnpv_vtoe;

struct vnpv_vtoe_ops {
	/* Used buffers, hard interrupt or softirq context. */
	void (*vq_event)(struct vnpv_vtoe *vtoe, struct virtqueue *vq);
	/* The vendor block's vtoe_state or vtoe_epoch changed; process context. */
	void (*state_changed)(struct vnpv_vtoe *vtoe, u8 state, u32 epoch);
};

struct vnpv_vtoe {
	struct auxiliary_device adev;
	struct net_device *netdev; /* NAPI instances of the driver may be added to it */
	struct virtio_device *vdev;
	struct virtqueue *cr, *eq, *swq;
	struct virtqueue *rwq[VNET_RWQ_CLASSES];
	u32 rwq_buf_size[VNET_RWQ_CLASSES]; /* payload bytes of one buffer */
	u32 tenant;
	u8 state; /* VNET_VTOE_*, as last read; READ_ONCE */
	u32 epoch;
	bool reset; /* set before the driver's remove, if at all */
	void *priv; /* of the bound driver */
};

static inline struct vnpv_vtoe *vnpv_vtoe_from_adev(struct auxiliary_device *adev)
{
	return container_of(adev, struct vnpv_vtoe, adev);
}

/*
 * Binds (ops) or unbinds (NULL) the callbacks. On return from binding the
 * driver reads state and epoch itself; changes after that come as callbacks.
 * Process context, may sleep. Not from within an op, and not under a lock that
 * state_changed() takes: it waits for those that run.
 */
void vnpv_vtoe_set_ops(struct vnpv_vtoe *vtoe, const struct vnpv_vtoe_ops *ops);

#endif /* VTOE_BUS_H */
