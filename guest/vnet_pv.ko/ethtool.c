// SPDX-License-Identifier: GPL-2.0-only
/*
 * ethtool: driver information, rings, channels, and statistics: the counters
 * of every queue, why packets were dropped, and the vendor block in numbers.
 */
#include <linux/ethtool.h>
#include <linux/netdevice.h>
#include <linux/virtio_config.h>

#include "vnet_pv.h"

const char *const vnpv_rx_drop_names[] = {
#define X(name, str) [VNPV_RX_DROP_##name] = str,
	VNPV_RX_DROPS(X)
#undef X
};

static_assert(ARRAY_SIZE(vnpv_rx_drop_names) == VNPV_RX_DROP_COUNT);

const char *const vnpv_tx_drop_names[] = {
#define X(name, str) [VNPV_TX_DROP_##name] = str,
	VNPV_TX_DROPS(X)
#undef X
};

static_assert(ARRAY_SIZE(vnpv_tx_drop_names) == VNPV_TX_DROP_COUNT);

static const char *const tx_stat_names[] = {
#define X(name) #name,
	VNPV_TX_STATS(X)
#undef X
};

static const char *const rx_stat_names[] = {
#define X(name) #name,
	VNPV_RX_STATS(X)
#undef X
};

#define TX_STATS (ARRAY_SIZE(tx_stat_names) + VNPV_TX_DROP_COUNT)
#define RX_STATS (ARRAY_SIZE(rx_stat_names) + VNPV_RX_DROP_COUNT)
static_assert(sizeof(struct vnpv_tx_stats) == TX_STATS * sizeof(u64_stats_t));
static_assert(sizeof(struct vnpv_rx_stats) == RX_STATS * sizeof(u64_stats_t));

/* Of the device; in the order of the values in get_ethtool_stats(). */
static const char *const dev_stat_names[] = {
	"vnet_generation", "vnet_tenant",     "vnet_encap_type",
	"vnet_encap_len",  "vnet_form",	      "vnet_vtoe_state",
	"vnet_vtoe_epoch", "vnet_refused_changes",
};

static int get_sset_count(struct net_device *netdev, int sset)
{
	const struct vnpv_dev *vd = netdev_priv(netdev);

	if (sset != ETH_SS_STATS)
		return -EOPNOTSUPP;
	return ARRAY_SIZE(dev_stat_names) + vd->pairs * (TX_STATS + RX_STATS);
}

static void get_strings(struct net_device *netdev, u32 sset, u8 *data)
{
	const struct vnpv_dev *vd = netdev_priv(netdev);
	unsigned int i, j;

	if (sset != ETH_SS_STATS)
		return;
	for (i = 0; i < ARRAY_SIZE(dev_stat_names); i++)
		ethtool_puts(&data, dev_stat_names[i]);
	for (i = 0; i < vd->pairs; i++) {
		for (j = 0; j < ARRAY_SIZE(rx_stat_names); j++)
			ethtool_sprintf(&data, "rx%u_%s", i, rx_stat_names[j]);
		for (j = 0; j < VNPV_RX_DROP_COUNT; j++)
			ethtool_sprintf(&data, "rx%u_drop_%s", i,
					vnpv_rx_drop_names[j]);
		for (j = 0; j < ARRAY_SIZE(tx_stat_names); j++)
			ethtool_sprintf(&data, "tx%u_%s", i, tx_stat_names[j]);
		for (j = 0; j < VNPV_TX_DROP_COUNT; j++)
			ethtool_sprintf(&data, "tx%u_drop_%s", i,
					vnpv_tx_drop_names[j]);
	}
}

static u64 *copy_stats(u64 *to, const struct u64_stats_sync *syncp,
		       const u64_stats_t *from, unsigned int n)
{
	unsigned int start, i;

	do {
		start = u64_stats_fetch_begin(syncp);
		for (i = 0; i < n; i++)
			to[i] = u64_stats_read(&from[i]);
	} while (u64_stats_fetch_retry(syncp, start));
	return to + n;
}

static void get_ethtool_stats(struct net_device *netdev,
			      struct ethtool_stats *stats, u64 *data)
{
	struct vnpv_dev *vd = netdev_priv(netdev);
	const struct vnpv_block *block;
	unsigned int i;

	rcu_read_lock();
	block = &rcu_dereference(vd->conf)->block;
	*data++ = block->generation;
	*data++ = block->tenant;
	*data++ = block->encap_type;
	*data++ = block->encap_len;
	*data++ = block->train_form;
	*data++ = block->vtoe_state;
	*data++ = block->vtoe_epoch;
	*data++ = vd->vendor_errors;
	rcu_read_unlock();
	for (i = 0; i < vd->pairs; i++) {
		data = copy_stats(data, &vd->rq[i].syncp,
				  (const u64_stats_t *)&vd->rq[i].stats,
				  RX_STATS);
		data = copy_stats(data, &vd->sq[i].syncp,
				  (const u64_stats_t *)&vd->sq[i].stats,
				  TX_STATS);
	}
}

static void get_drvinfo(struct net_device *netdev,
			struct ethtool_drvinfo *info)
{
	const struct vnpv_dev *vd = netdev_priv(netdev);

	strscpy(info->driver, KBUILD_MODNAME, sizeof(info->driver));
	/* the host has no version: say what of it the driver reads */
	snprintf(info->fw_version, sizeof(info->fw_version),
		 "vendor block in %s", vd->carrier->name);
	strscpy(info->bus_info, dev_name(&vd->vdev->dev),
		sizeof(info->bus_info));
}

static void get_ringparam(struct net_device *netdev,
			  struct ethtool_ringparam *ring,
			  struct kernel_ethtool_ringparam *kernel_ring,
			  struct netlink_ext_ack *extack)
{
	const struct vnpv_dev *vd = netdev_priv(netdev);

	ring->rx_max_pending = vd->rq[0].slots.num;
	ring->tx_max_pending = vd->sq[0].slots.num;
	ring->rx_pending = ring->rx_max_pending;
	ring->tx_pending = ring->tx_max_pending;
}

static void get_channels(struct net_device *netdev,
			 struct ethtool_channels *channels)
{
	const struct vnpv_dev *vd = netdev_priv(netdev);

	channels->max_combined = vd->pairs;
	channels->combined_count = vd->active_pairs;
}

static int set_channels(struct net_device *netdev,
			struct ethtool_channels *channels)
{
	struct vnpv_dev *vd = netdev_priv(netdev);

	if (channels->rx_count || channels->tx_count || channels->other_count)
		return -EINVAL;
	/* The core has checked it against 1 and max_combined. */
	return vnpv_set_pairs(vd, channels->combined_count);
}

/* Memory and sockets have no speed that would be true. */
static int get_link_ksettings(struct net_device *netdev,
			      struct ethtool_link_ksettings *settings)
{
	settings->base.speed = SPEED_UNKNOWN;
	settings->base.duplex = DUPLEX_FULL;
	settings->base.port = PORT_OTHER;
	return 0;
}

const struct ethtool_ops vnpv_ethtool_ops = {
	.get_drvinfo = get_drvinfo,
	.get_link = ethtool_op_get_link,
	.get_link_ksettings = get_link_ksettings,
	.get_ringparam = get_ringparam,
	.get_channels = get_channels,
	.set_channels = set_channels,
	.get_sset_count = get_sset_count,
	.get_strings = get_strings,
	.get_ethtool_stats = get_ethtool_stats,
	.get_ts_info = ethtool_op_get_ts_info,
};
