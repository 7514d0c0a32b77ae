/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Differences between the kernels this module builds for (6.1 and newer); the
 * only place that knows kernel versions.
 */
#ifndef VNPV_COMPAT_H
#define VNPV_COMPAT_H

#include <linux/version.h>
#include <linux/ethtool.h>
#include <linux/netdevice.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>

/* Needed for skb_gso_segment(). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
#include <net/gso.h>
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define ethtool_puts(data, str) ethtool_sprintf(data, "%s", str)
#endif

/* virtio_find_vqs() takes one array of structs since 6.11. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
#define vnpv_find_vqs(vdev, n, vqs, info) \
	virtio_find_vqs(vdev, n, vqs, info, NULL)
#else
struct virtqueue_info {
	const char *name;
	vq_callback_t *callback;
};

static inline int vnpv_find_vqs(struct virtio_device *vdev, unsigned int n,
				struct virtqueue *vqs[],
				struct virtqueue_info *info)
{
	vq_callback_t **callbacks;
	const char **names;
	int err = -ENOMEM;
	unsigned int i;

	callbacks = kcalloc(n, sizeof(*callbacks), GFP_KERNEL);
	names = kcalloc(n, sizeof(*names), GFP_KERNEL);
	if (!callbacks || !names)
		goto out;
	for (i = 0; i < n; i++) {
		callbacks[i] = info[i].callback;
		names[i] = info[i].name;
	}
	err = virtio_find_vqs(vdev, n, vqs, callbacks, names, NULL);
out:
	kfree(callbacks);
	kfree(names);
	return err;
}
#endif

/* Since 6.11 a driver can be told nothing of changes; virtio_net leaves a closed device so. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 11, 0)
#define vnpv_config_enable(vdev) virtio_config_driver_enable(vdev)
#else
#define vnpv_config_enable(vdev) do { } while (0)
#endif

/* On a kernel without SMP sparse takes a failed trylock for a held lock. */
#ifdef __CHECKER__
#define vnpv_tx_trylock(txq) (__netif_tx_lock(txq, 0), true)
#else
#define vnpv_tx_trylock(txq) __netif_tx_trylock(txq)
#endif

#endif /* VNPV_COMPAT_H */
