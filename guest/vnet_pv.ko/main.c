// SPDX-License-Identifier: GPL-2.0-only
/*
 * vnet_pv: driver of the paravirtual network device.
 *
 * A virtio network device that offers VNET_F_PARAVIRT_BIT and has a vendor
 * block, or behind which a shim answers in band (hello.c), lets its driver build
 * and strip the overlay's encapsulation, so that the host only moves bytes between
 * guest memory and sockets. This module is that driver. It also owns the queues of
 * the virtual TCP offload engine, which it shows to vtoe_sock on the auxiliary bus.
 *
 * Start-up and shut-down are here, what happens between two lives of the device
 * in restart.c; a packet's way is in tx.c and rx.c, the header formats are in
 * encap.c, the vendor block in vendor.c, vendor_pci.c and hello.c.
 */
#include <linux/etherdevice.h>
#include <linux/ethtool.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "vnet_pv.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

/* ---- network device ---- */

int vnpv_open(struct net_device *netdev)
{
	struct vnpv_dev *vd = netdev_priv(netdev);
	u16 i;

	for (i = 0; i < vd->pairs; i++) {
		if (i < vnpv_rx_pairs(vd) && !vnpv_rx_fill(&vd->rq[i], GFP_KERNEL))
			schedule_delayed_work(&vd->rq[i].refill, 0);
		vnpv_napi_enable(&vd->rq[i].napi, vd->rq[i].vq);
		vnpv_napi_enable(&vd->sq[i].napi, vd->sq[i].vq);
	}
	netif_tx_start_all_queues(netdev);
	return 0;
}

int vnpv_stop(struct net_device *netdev)
{
	struct vnpv_dev *vd = netdev_priv(netdev);
	u16 i;

	if (vd->halted) /* it was done then */
		return 0;
	/* Posted buffers stay; the device fills them and stops. */
	netif_tx_disable(netdev);
	for (i = 0; i < vd->pairs; i++) {
		napi_disable(&vd->sq[i].napi);
		napi_disable(&vd->rq[i].napi);
		cancel_delayed_work_sync(&vd->rq[i].refill);
	}
	return 0;
}

static void vnpv_get_stats64(struct net_device *netdev,
			     struct rtnl_link_stats64 *stats)
{
	struct vnpv_dev *vd = netdev_priv(netdev);
	u64 packets, bytes, drops;
	unsigned int start;
	u16 i, j;

	for (i = 0; i < vd->pairs; i++) {
		struct vnpv_rq *rq = &vd->rq[i];
		struct vnpv_sq *sq = &vd->sq[i];

		do {
			start = u64_stats_fetch_begin(&rq->syncp);
			packets = u64_stats_read(&rq->stats.packets);
			bytes = u64_stats_read(&rq->stats.bytes);
			for (drops = 0, j = 0; j < VNPV_RX_DROP_COUNT; j++)
				drops += u64_stats_read(&rq->stats.drops[j]);
		} while (u64_stats_fetch_retry(&rq->syncp, start));
		stats->rx_packets += packets;
		stats->rx_bytes += bytes;
		stats->rx_dropped += drops;

		do {
			start = u64_stats_fetch_begin(&sq->syncp);
			packets = u64_stats_read(&sq->stats.packets);
			bytes = u64_stats_read(&sq->stats.bytes);
			for (drops = 0, j = 0; j < VNPV_TX_DROP_COUNT; j++)
				drops += u64_stats_read(&sq->stats.drops[j]);
		} while (u64_stats_fetch_retry(&sq->syncp, start));
		stats->tx_packets += packets;
		stats->tx_bytes += bytes;
		stats->tx_dropped += drops;
	}
}

/* The host routes and checks addresses; the device takes all that it is sent. */
static void vnpv_set_rx_mode(struct net_device *netdev)
{
}

/*
 * No ndo_set_mac_address: the host knows the VM by its MAC and drops frames
 * from another, so the kernel's answer, EOPNOTSUPP, is the right one.
 */
const struct net_device_ops vnpv_netdev_ops = {
	.ndo_open = vnpv_open,
	.ndo_stop = vnpv_stop,
	.ndo_start_xmit = vnpv_start_xmit,
	.ndo_features_check = vnpv_features_check,
	.ndo_validate_addr = eth_validate_addr,
	.ndo_set_rx_mode = vnpv_set_rx_mode,
	.ndo_get_stats64 = vnpv_get_stats64,
	.ndo_tx_timeout = vnpv_tx_timeout,
};

/* Under rtnl. */
int vnpv_set_pairs(struct vnpv_dev *vd, u16 pairs)
{
	int err;
	u16 i;

	if (virtio_has_feature(vd->vdev, VIRTIO_NET_F_MQ)) {
		err = vnpv_ctrl_set_pairs(vd, vnpv_in_band(vd) ?
						      vnpv_all_pairs(vd) : pairs);
		if (err)
			return err;
	}
	vd->active_pairs = pairs;
	if (netif_running(vd->netdev) && !vd->halted)
		for (i = 0; i < pairs; i++)
			schedule_delayed_work(&vd->rq[i].refill, 0);
	netif_set_real_num_tx_queues(vd->netdev, pairs);
	netif_set_real_num_rx_queues(vd->netdev, vnpv_rx_pairs(vd));
	return 0;
}

/*
 * Toward the stack the same in both forms: the whole form carries what is left
 * to be done in the train header, in the segmented form this driver does it.
 * virtio's own CSUM and HOST_TSO bits say what the host would do for a driver
 * without trains.
 */
static void set_features(struct net_device *netdev)
{
	netdev->hw_features = NETIF_F_RXCSUM | NETIF_F_HW_CSUM | NETIF_F_SG |
			      NETIF_F_TSO | NETIF_F_TSO6 | NETIF_F_TSO_ECN;
	/* What a receiver is told about segmentation, it checks. */
	netdev->features = netdev->hw_features | NETIF_F_HIGHDMA |
			   NETIF_F_GSO_ROBUST;
	netdev->vlan_features = netdev->features;
}

static int set_mtu(struct vnpv_dev *vd)
{
	struct net_device *netdev = vd->netdev;
	u16 mtu;

	netdev->min_mtu = VNET_MTU_MIN;
	netdev->max_mtu = VNET_MTU_MAX;
	if (vnpv_in_band(vd))
		mtu = vd->hello.mtu;
	else if (virtio_has_feature(vd->vdev, VIRTIO_NET_F_MTU))
		virtio_cread(vd->vdev, struct virtio_net_config, mtu, &mtu);
	else
		return 0;
	if (mtu < VNET_MTU_MIN) {
		dev_err(&vd->vdev->dev, "the device has an MTU of %u, at least %u is needed\n",
			mtu, VNET_MTU_MIN);
		return -EINVAL;
	}
	netdev->max_mtu = min_t(u16, mtu, VNET_MTU_MAX);
	netdev->mtu = netdev->max_mtu;
	return 0;
}

static void set_mac(struct vnpv_dev *vd)
{
	u8 mac[ETH_ALEN];
	int i;

	if (!virtio_has_feature(vd->vdev, VIRTIO_NET_F_MAC)) {
		eth_hw_addr_random(vd->netdev);
		dev_warn(&vd->vdev->dev, "the device has no MAC; made up %pM\n",
			 vd->netdev->dev_addr);
		return;
	}
	for (i = 0; i < ETH_ALEN; i++)
		vd->vdev->config->get(vd->vdev,
				      offsetof(struct virtio_net_config, mac) + i,
				      &mac[i], 1);
	eth_hw_addr_set(vd->netdev, mac);
}

/* ---- virtio device ---- */

/* Most queues of a device: virtio_uml's limit, and far from any need. */
#define QUEUES_MAX 64

static int count_queues(struct vnpv_dev *vd, const struct vnpv_block *block)
{
	u32 first = block->vtoe_first_queue;

	if (block->vtoe_state == VNET_VTOE_ABSENT)
		return 0;
	if (first < 2 * vd->pairs + 1 || first + VNPV_VTOE_QUEUES > QUEUES_MAX) {
		dev_err(&vd->vdev->dev,
			"VTOE queues at %u do not fit behind %u queue pairs\n",
			first, vd->pairs);
		return -EINVAL;
	}
	vd->vtoe_queue = first;
	return 0;
}

/* Of another's make, but with queues enough: is there a shim behind it? */
static bool may_be_in_band(struct virtio_device *vdev)
{
	u16 pairs = 0;

	if (virtio_has_feature(vdev, VIRTIO_F_VERSION_1) &&
	    virtio_has_feature(vdev, VIRTIO_NET_F_CTRL_VQ) &&
	    virtio_has_feature(vdev, VIRTIO_NET_F_MQ))
		virtio_cread(vdev, struct virtio_net_config,
			     max_virtqueue_pairs, &pairs);
	return pairs > VNET_HELLO_RESERVED_PAIRS;
}

static int vnpv_validate(struct virtio_device *vdev)
{
	if (!virtio_has_feature(vdev, VNET_F_PARAVIRT_BIT)) {
		if (may_be_in_band(vdev))
			return 0;
		dev_info(&vdev->dev,
			 "an ordinary virtio network device (no feature bit %d, no queues reserved): left to virtio_net\n",
			 VNET_F_PARAVIRT_BIT);
		return -ENODEV;
	}
	if (!virtio_has_feature(vdev, VIRTIO_F_VERSION_1) ||
	    !virtio_has_feature(vdev, VIRTIO_NET_F_CTRL_VQ)) {
		dev_err(&vdev->dev,
			"a VNET device without virtio 1 or control queue: update the host's vnet-shim\n");
		return -ENODEV;
	}
	return 0;
}

static struct vnpv_dev *dev_create(struct virtio_device *vdev, u16 pairs,
				   const struct vnpv_carrier *carrier)
{
	struct net_device *netdev;
	struct vnpv_dev *vd;
	u16 i;

	netdev = alloc_netdev_mqs(sizeof(*vd), "vnet%d", NET_NAME_ENUM,
				  ether_setup, pairs, pairs);
	if (!netdev)
		return NULL;
	vd = netdev_priv(netdev);
	vd->netdev = netdev;
	vd->vdev = vdev;
	vd->pairs = pairs;
	vd->carrier = carrier;
	vd->ctrl = kzalloc(sizeof(*vd->ctrl), GFP_KERNEL);
	vd->sq = kvcalloc(pairs, sizeof(*vd->sq), GFP_KERNEL);
	vd->rq = kvcalloc(pairs, sizeof(*vd->rq), GFP_KERNEL);
	if (vnpv_hello_init(vd) || !vd->ctrl || !vd->sq || !vd->rq) {
		vnpv_hello_exit(vd);
		kvfree(vd->rq);
		kvfree(vd->sq);
		kfree(vd->ctrl);
		free_netdev(netdev);
		return NULL;
	}
	INIT_WORK(&vd->config_work, vnpv_config_work);
	for (i = 0; i < pairs; i++) {
		vd->rq[i].vd = vd;
		vnpv_rx_init(&vd->rq[i]);
		u64_stats_init(&vd->rq[i].syncp);
		u64_stats_init(&vd->sq[i].syncp);
		netif_napi_add(netdev, &vd->rq[i].napi, vnpv_rx_poll);
		netif_napi_add_tx(netdev, &vd->sq[i].napi, vnpv_tx_poll);
	}
	SET_NETDEV_DEV(netdev, &vdev->dev);
	netdev->netdev_ops = &vnpv_netdev_ops;
	netdev->ethtool_ops = &vnpv_ethtool_ops;
	netdev->sysfs_groups[0] = &vnpv_sysfs_group;
	/* Headers are written in front of the packet. */
	netdev->priv_flags &= ~IFF_TX_SKB_SHARING;
	vdev->priv = vd;
	return vd;
}

static void dev_destroy(struct vnpv_dev *vd)
{
	u16 i;

	for (i = 0; i < vd->pairs; i++) {
		__netif_napi_del(&vd->rq[i].napi);
		__netif_napi_del(&vd->sq[i].napi);
	}
	synchronize_net(); /* before the memory of the NAPI instances goes */
	vnpv_vendor_forget(vd);
	vd->vdev->priv = NULL;
	vnpv_hello_exit(vd);
	kvfree(vd->rq);
	kvfree(vd->sq);
	kfree(vd->ctrl);
	free_netdev(vd->netdev);
}

/* The netdev becomes visible and the device live, in one step for openers. */
static int dev_start(struct vnpv_dev *vd)
{
	int err;

	rtnl_lock();
	netif_set_real_num_tx_queues(vd->netdev, vd->active_pairs);
	netif_set_real_num_rx_queues(vd->netdev, vnpv_rx_pairs(vd));
	netif_carrier_off(vd->netdev);
	err = register_netdevice(vd->netdev);
	if (!err) {
		/* Who had to say hello did it before. */
		if (!vnpv_in_band(vd))
			virtio_device_ready(vd->vdev);
		err = vnpv_set_pairs(vd, vd->active_pairs);
		if (err) {
			dev_err(&vd->vdev->dev,
				"the device refuses %u queue pairs (%d)\n",
				vd->active_pairs, err);
			unregister_netdevice(vd->netdev);
		}
	}
	rtnl_unlock();
	return err;
}

/* The block of a device that shows it: what must be known before the queues. */
static int block_first(struct vnpv_dev *vd, const struct vnpv_block *block)
{
	int err;

	err = count_queues(vd, block);
	if (!err)
		err = set_mtu(vd);
	return err ?: vnpv_vendor_apply(vd, block);
}

/* The block of a device that must be asked, once it has queues. */
static int block_later(struct vnpv_dev *vd, struct vnpv_block *block)
{
	const char *why = "";
	int err;

	virtio_device_ready(vd->vdev);
	err = vnpv_hello(vd, &why);
	if (err) {
		dev_info(&vd->vdev->dev,
			 "a virtio network device without vendor block, and none in band: %s; left to virtio_net\n",
			 why);
		return err == -ENOMEM ? err : -ENODEV;
	}
	rcu_read_lock();
	*block = rcu_dereference(vd->conf)->block;
	rcu_read_unlock();
	return set_mtu(vd);
}

static int vnpv_probe(struct virtio_device *vdev)
{
	const struct vnpv_carrier *carrier = &vnpv_carrier_in_band;
	bool shown = virtio_has_feature(vdev, VNET_F_PARAVIRT_BIT);
	const char *why = "it has no vendor block";
	struct vnpv_block block;
	struct vnpv_dev *vd;
	u16 pairs = 1;
	int err = 0;

	vnpv_config_enable(vdev);
	if (shown) {
		carrier = vnpv_vendor_carrier(vdev);
		err = carrier ? vnpv_vendor_read(carrier, vdev, &block, &why) :
				-ENODEV;
	}
	if (err) {
		dev_err(&vdev->dev,
			"a VNET device this driver cannot serve: %s; update vnet_pv or the host's vnet-shim, or bind virtio_net\n",
			why);
		return -ENODEV;
	}
	if (virtio_has_feature(vdev, VIRTIO_NET_F_MQ))
		virtio_cread(vdev, struct virtio_net_config,
			     max_virtqueue_pairs, &pairs);
	if (!pairs || 2 * pairs + 1 > QUEUES_MAX) {
		dev_err(&vdev->dev, "%u queue pairs are not supported\n", pairs);
		return -EINVAL;
	}
	if (!shown)
		pairs -= VNET_HELLO_RESERVED_PAIRS; /* see vnpv_validate() */

	vd = dev_create(vdev, pairs, carrier);
	if (!vd)
		return -ENOMEM;
	vd->active_pairs = min_t(u16, pairs, num_online_cpus());
	set_features(vd->netdev);
	set_mac(vd);
	err = shown ? block_first(vd, &block) : 0;
	if (err)
		goto err_dev;
	err = vnpv_queues_create(vd);
	if (err)
		goto err_dev;
	err = shown ? 0 : block_later(vd, &block);
	if (err)
		goto err_queues;
	vnpv_tx_limits(vd, &block);
	err = dev_start(vd);
	if (err)
		goto err_queues;
	vnpv_vtoe_publish(vd);
	schedule_work(&vd->config_work);
	netdev_info(vd->netdev,
		    "tenant %u, %s, %u bytes of encapsulation (%s), form %s, %u queue pairs, VTOE %s\n",
		    block.tenant, vnpv_encap_type_name(block.encap_type),
		    block.encap_len, carrier->name,
		    vnpv_train_form_name(block.train_form), pairs,
		    vnpv_vtoe_state_name(block.vtoe_state));
	return 0;

err_queues:
	vnpv_queues_destroy(vd);
err_dev:
	dev_destroy(vd);
	return err;
}

void vnpv_stop_config_work(struct vnpv_dev *vd)
{
	WRITE_ONCE(vd->leaving, true);
	cancel_work_sync(&vd->config_work);
	cancel_delayed_work_sync(&vd->hello.again);
}

static void vnpv_remove(struct virtio_device *vdev)
{
	struct vnpv_dev *vd = vdev->priv;

	vnpv_stop_config_work(vd);
	vnpv_vtoe_withdraw(vd);
	unregister_netdev(vd->netdev);
	/* The last poll may have scheduled it, to do nothing. */
	cancel_work_sync(&vd->config_work);
	vnpv_goodbye(vd);
	vnpv_queues_destroy(vd);
	dev_destroy(vd);
}

static void vnpv_config_changed(struct virtio_device *vdev)
{
	struct vnpv_dev *vd = vdev->priv;

	schedule_work(&vd->config_work);
}

static const struct virtio_device_id vnpv_ids[] = {
	{ VIRTIO_ID_NET, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, vnpv_ids);

static const unsigned int vnpv_features[] = {
	VIRTIO_NET_F_CSUM,	 VIRTIO_NET_F_GUEST_CSUM,
	VIRTIO_NET_F_MTU,	 VIRTIO_NET_F_MAC,
	VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
	VIRTIO_NET_F_GUEST_ECN,	 VIRTIO_NET_F_HOST_TSO4,
	VIRTIO_NET_F_HOST_TSO6,	 VIRTIO_NET_F_HOST_ECN,
	VIRTIO_NET_F_MRG_RXBUF,	 VIRTIO_NET_F_STATUS,
	VIRTIO_NET_F_CTRL_VQ,	 VIRTIO_NET_F_MQ,
	VNET_F_PARAVIRT_BIT,
};

static struct virtio_driver vnpv_driver = {
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.id_table = vnpv_ids,
	.feature_table = vnpv_features,
	.feature_table_size = ARRAY_SIZE(vnpv_features),
	.validate = vnpv_validate,
	.probe = vnpv_probe,
	.remove = vnpv_remove,
	.config_changed = vnpv_config_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze = vnpv_freeze,
	.restore = vnpv_restore,
#endif
};
module_virtio_driver(vnpv_driver);

MODULE_DESCRIPTION("Paravirtual overlay network driver");
MODULE_LICENSE("GPL");
