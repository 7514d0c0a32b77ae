// SPDX-License-Identifier: GPL-2.0-only
/*
 * The VTOE queues of a device, shown to vtoe_sock as an auxiliary device.
 *
 * Lifetimes. The port, which contains the auxiliary device, lives from before
 * the virtqueues can raise interrupts until after they are deleted, and then
 * as long as somebody holds the device. publish() registers the auxiliary
 * device, withdraw() unregisters it: the driver core unbinds vtoe_sock, whose
 * remove clears ops. A port is published once; freeze makes a new one.
 *
 * Locks. ops is read under RCU by virtqueue callbacks, in interrupts;
 * set_ops() waits for them. state_changed() may sleep and is called under
 * state_lock, which set_ops() takes too, so none is running after it and no
 * change is lost between binding and the first callback.
 */
#include <linux/auxiliary_bus.h>
#include <linux/export.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>

#include "vnet_pv.h"

struct vnpv_vtoe_port {
	struct vnpv_vtoe vtoe;
	const struct vnpv_vtoe_ops __rcu *ops;
	struct mutex state_lock; /* orders state_changed() and set_ops() */
	bool published;
};

static struct vnpv_vtoe_port *to_port(struct vnpv_vtoe *vtoe)
{
	return container_of(vtoe, struct vnpv_vtoe_port, vtoe);
}

void vnpv_vtoe_set_ops(struct vnpv_vtoe *vtoe, const struct vnpv_vtoe_ops *ops)
{
	struct vnpv_vtoe_port *port = to_port(vtoe);

	mutex_lock(&port->state_lock);
	rcu_assign_pointer(port->ops, ops);
	mutex_unlock(&port->state_lock);
	synchronize_rcu();
}
EXPORT_SYMBOL_GPL(vnpv_vtoe_set_ops);

void vnpv_vtoe_event(struct virtqueue *vq)
{
	struct vnpv_dev *vd = vq->vdev->priv;
	const struct vnpv_vtoe_ops *ops;
	struct vnpv_vtoe_port *port;

	/* While find_vqs() runs there is no port yet. */
	port = READ_ONCE(vd->vtoe_port);
	if (!port)
		return;
	rcu_read_lock();
	ops = rcu_dereference(port->ops);
	if (ops)
		ops->vq_event(&port->vtoe, vq);
	rcu_read_unlock();
}

static void port_release(struct device *dev)
{
	struct vnpv_vtoe *vtoe = vnpv_vtoe_from_adev(to_auxiliary_dev(dev));

	kfree(to_port(vtoe));
}

int vnpv_vtoe_create(struct vnpv_dev *vd, struct virtqueue *vqs[])
{
	const struct vnpv_block *block;
	struct vnpv_vtoe_port *port;
	struct vnpv_vtoe *vtoe;
	int i, err;

	port = kzalloc(sizeof(*port), GFP_KERNEL);
	if (!port)
		return -ENOMEM;
	mutex_init(&port->state_lock);
	vtoe = &port->vtoe;
	vtoe->adev.name = VNPV_VTOE_DEV_NAME;
	vtoe->adev.id = vd->vdev->index;
	vtoe->adev.dev.parent = &vd->vdev->dev;
	vtoe->adev.dev.release = port_release;
	err = auxiliary_device_init(&vtoe->adev);
	if (err) {
		kfree(port);
		return err;
	}
	vtoe->netdev = vd->netdev;
	vtoe->vdev = vd->vdev;
	vtoe->cr = vqs[0];
	vtoe->eq = vqs[1];
	vtoe->swq = vqs[2];
	rcu_read_lock();
	block = &rcu_dereference(vd->conf)->block;
	for (i = 0; i < VNET_RWQ_CLASSES; i++) {
		vtoe->rwq[i] = vqs[3 + i];
		vtoe->rwq_buf_size[i] = block->rwq_buf_size[i];
	}
	vtoe->tenant = block->tenant;
	vtoe->state = block->vtoe_state;
	vtoe->epoch = block->vtoe_epoch;
	rcu_read_unlock();
	WRITE_ONCE(vd->vtoe_port, port);
	return 0;
}

void vnpv_vtoe_publish(struct vnpv_dev *vd)
{
	struct vnpv_vtoe_port *port = vd->vtoe_port;
	int err;

	if (!port)
		return;
	err = auxiliary_device_add(&port->vtoe.adev);
	if (err) {
		netdev_err(vd->netdev, "no offload: the auxiliary device failed (%d)\n",
			   err);
		return;
	}
	port->published = true;
}

void vnpv_vtoe_lost(struct vnpv_dev *vd)
{
	if (vd->vtoe_port)
		WRITE_ONCE(vd->vtoe_port->vtoe.reset, true);
}

void vnpv_vtoe_withdraw(struct vnpv_dev *vd)
{
	struct vnpv_vtoe_port *port = vd->vtoe_port;

	if (!port || !port->published)
		return;
	port->published = false;
	auxiliary_device_delete(&port->vtoe.adev);
}

void vnpv_vtoe_destroy(struct vnpv_dev *vd)
{
	struct vnpv_vtoe_port *port = vd->vtoe_port;

	if (!port)
		return;
	WRITE_ONCE(vd->vtoe_port, NULL);
	auxiliary_device_uninit(&port->vtoe.adev);
}

/* Config work. */
void vnpv_vtoe_state(struct vnpv_dev *vd, const struct vnpv_block *block)
{
	struct vnpv_vtoe_port *port = vd->vtoe_port;
	const struct vnpv_vtoe_ops *ops;
	u8 state = block->vtoe_state;

	if (!port) {
		if (state != VNET_VTOE_ABSENT)
			netdev_info(vd->netdev,
				    "the VM has an offload now: reload vnet_pv to use it\n");
		return;
	}
	/* The queues stay, and nobody serves them. */
	if (state == VNET_VTOE_ABSENT)
		state = VNET_VTOE_DOWN;

	mutex_lock(&port->state_lock);
	if (port->vtoe.state != state || port->vtoe.epoch != block->vtoe_epoch) {
		WRITE_ONCE(port->vtoe.epoch, block->vtoe_epoch);
		WRITE_ONCE(port->vtoe.state, state);
		/* Changed under state_lock alone, so it stays while we use it. */
		ops = rcu_dereference_protected(port->ops,
						lockdep_is_held(&port->state_lock));
		if (ops)
			ops->state_changed(&port->vtoe, state, block->vtoe_epoch);
	}
	mutex_unlock(&port->state_lock);
}
