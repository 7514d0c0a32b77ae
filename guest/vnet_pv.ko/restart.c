// SPDX-License-Identifier: GPL-2.0-only
/*
 * Another life of the device under the same interface: after suspend, and when a
 * new shim asks for it (hello.c). The interface keeps its name, addresses and
 * routes; packets in the rings are lost, offloaded connections are reset.
 *
 * A reset makes the host let go of every buffer, those of the VTOE queues too,
 * which nobody could give back: the shim and the agent that had them are gone.
 */
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_config.h>

#include "vnet_pv.h"

static void halt_device(struct vnpv_dev *vd)
{
	rtnl_lock();
	netif_device_detach(vd->netdev);
	if (netif_running(vd->netdev))
		vnpv_stop(vd->netdev);
	vd->halted = true;
	rtnl_unlock();
}

/* Features are negotiated, the queues are not there. */
static int begin(struct vnpv_dev *vd, const char **why)
{
	int err;

	/* Under rtnl, so that nobody opens or closes what is half there. */
	rtnl_lock();
	*why = "no queues";
	err = vnpv_queues_create(vd);
	if (err)
		goto out;
	virtio_device_ready(vd->vdev);
	if (vnpv_in_band(vd))
		err = vnpv_hello(vd, why);
	if (err)
		goto destroy;
	*why = "the device refuses its queue pairs";
	err = vnpv_set_pairs(vd, vd->active_pairs);
	if (err)
		goto destroy;
	vd->halted = false;
	if (netif_running(vd->netdev))
		vnpv_open(vd->netdev);
	netif_device_attach(vd->netdev);
	rtnl_unlock();
	vnpv_vtoe_publish(vd);
	return 0;

destroy:
	vnpv_queues_destroy(vd);
out:
	rtnl_unlock();
	return err;
}

/* As the core does it in front of probe: virtio 1.2 section 3.1.1. */
static int negotiate_again(struct virtio_device *vdev)
{
	const struct virtio_config_ops *ops = vdev->config;
	u8 status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	int err;

	ops->set_status(vdev, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	ops->set_status(vdev, status);
	err = ops->finalize_features(vdev);
	if (err)
		return err;
	ops->set_status(vdev, status | VIRTIO_CONFIG_S_FEATURES_OK);
	return ops->get_status(vdev) & VIRTIO_CONFIG_S_FEATURES_OK ? 0 :
								     -ENODEV;
}

int vnpv_restart(struct vnpv_dev *vd, const char **why)
{
	int err;

	halt_device(vd);
	virtio_break_device(vd->vdev); /* vtoe_sock posts nothing any more */
	virtio_reset_device(vd->vdev);
	vnpv_vtoe_lost(vd);
	vnpv_vtoe_withdraw(vd);
	vnpv_queues_destroy(vd);
	*why = "it refuses the features it had";
	err = negotiate_again(vd->vdev);
	return err ?: begin(vd, why);
}

#ifdef CONFIG_PM_SLEEP
int vnpv_freeze(struct virtio_device *vdev)
{
	struct vnpv_dev *vd = vdev->priv;

	vnpv_stop_config_work(vd);
	vnpv_vtoe_withdraw(vd);
	halt_device(vd);
	vnpv_queues_destroy(vd);
	return 0;
}

int vnpv_restore(struct virtio_device *vdev)
{
	struct vnpv_dev *vd = vdev->priv;
	const char *why = "";
	int err;

	err = begin(vd, &why);
	if (err) {
		netdev_err(vd->netdev, "the device is not restored: %s (%d)\n",
			   why, err);
		return err;
	}
	WRITE_ONCE(vd->leaving, false);
	schedule_work(&vd->config_work);
	return 0;
}
#endif

