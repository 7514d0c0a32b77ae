// SPDX-License-Identifier: GPL-2.0-only
/*
 * /sys/class/net/IFACE/vnet/: the vendor block as the driver uses it now.
 */
#include <linux/netdevice.h>
#include <linux/sysfs.h>

#include "vnet_pv.h"

const char *vnpv_encap_type_name(u8 type)
{
	return type == VNET_ENCAP_VXLAN ? "vxlan" : "vnet-udp";
}

const char *vnpv_train_form_name(u8 form)
{
	return form == VNET_TRAIN_SEGMENTED ? "segmented" : "whole";
}

const char *vnpv_vtoe_state_name(u8 state)
{
	static const char *const names[] = {
		[VNET_VTOE_ABSENT] = "absent",
		[VNET_VTOE_DOWN] = "down",
		[VNET_VTOE_UP] = "up",
	};

	return state < ARRAY_SIZE(names) ? names[state] : "?";
}

static struct vnpv_block current_block(struct device *dev)
{
	struct vnpv_dev *vd = netdev_priv(to_net_dev(dev));
	struct vnpv_block block;

	rcu_read_lock();
	block = rcu_dereference(vd->conf)->block;
	rcu_read_unlock();
	return block;
}

#define VNPV_ATTR(name, format, value)                                    \
	static ssize_t name##_show(struct device *dev,                    \
				   struct device_attribute *attr,         \
				   char *buf)                             \
	{                                                                 \
		struct vnpv_block block = current_block(dev);             \
									  \
		return sysfs_emit(buf, format "\n", value);               \
	}                                                                 \
	static DEVICE_ATTR_RO(name)

/* Where the block is read. */
static ssize_t carrier_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	const struct vnpv_dev *vd = netdev_priv(to_net_dev(dev));

	return sysfs_emit(buf, "%s\n", vd->carrier->name);
}
static DEVICE_ATTR_RO(carrier);

VNPV_ATTR(encap_len, "%u", block.encap_len);
VNPV_ATTR(encap_len_max, "%u", block.encap_len_max);
VNPV_ATTR(encap_type, "%s", vnpv_encap_type_name(block.encap_type));
VNPV_ATTR(generation, "%u", block.generation);
VNPV_ATTR(tenant, "%u", block.tenant);
VNPV_ATTR(train_form, "%s", vnpv_train_form_name(block.train_form));
VNPV_ATTR(vtoe_epoch, "%u", block.vtoe_epoch);
VNPV_ATTR(vtoe_state, "%s", vnpv_vtoe_state_name(block.vtoe_state));

static struct attribute *vnpv_attrs[] = {
	&dev_attr_carrier.attr,	       &dev_attr_encap_len.attr,
	&dev_attr_encap_len_max.attr,  &dev_attr_encap_type.attr,
	&dev_attr_generation.attr,     &dev_attr_tenant.attr,
	&dev_attr_train_form.attr,     &dev_attr_vtoe_epoch.attr,
	&dev_attr_vtoe_state.attr,     NULL
};

const struct attribute_group vnpv_sysfs_group = {
	.name = "vnet",
	.attrs = vnpv_attrs,
};
