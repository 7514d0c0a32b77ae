// SPDX-License-Identifier: GPL-2.0-only
/*
 * The vendor block: reading it, and what happens when it changes.
 *
 * Several carriers may have the block (proto/vnet_dev.h). The first of the list
 * below that the device has is used for as long as the driver has the device.
 * All are read in pieces, by the generation: before, after, and again if it
 * differs.
 *
 * A change raises a configuration-change interrupt. Reading config space may
 * sleep (virtio_uml sends a message), so the interrupt schedules a work item,
 * which reads the block, swaps the snapshot that packets are built by, and
 * tells vtoe_sock. Packets already queued carry the header length that they
 * were built with, so nothing has to be drained.
 *
 * Where the block comes in band (hello.c), a message takes the interrupt's place.
 */
#include <linux/delay.h>
#include <linux/netdevice.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "vnet_pv.h"
#include "trace.h"

#define READ_TRIES 10

/* ---- the carrier in device config ---- */

/*
 * virtio_pci ends the kernel's life on a read behind the config space that the
 * device has, so look how long it is. Other transports answer with an error.
 */
static bool config_reaches(struct virtio_device *vdev, u32 end)
{
	u32 length;
	int pos;

	if (!vnpv_on_pci(vdev))
		return true;
	pos = vnpv_pci_cap_find(vdev, VIRTIO_PCI_CAP_DEVICE_CFG);
	if (!pos)
		return false;
	pci_read_config_dword(to_pci_dev(vdev->dev.parent),
			      pos + offsetof(struct virtio_pci_cap, length),
			      &length);
	return length >= end;
}

static int config_find(struct virtio_device *vdev)
{
	if (!config_reaches(vdev, VNET_VENDOR_CONFIG_OFFSET +
					  sizeof(struct vnet_vendor_block)))
		return -ENODEV;
	return VNET_VENDOR_CONFIG_OFFSET;
}

static void config_get(struct virtio_device *vdev, u32 at, void *to, u32 len)
{
	vdev->config->get(vdev, at, to, len);
}

static const struct vnpv_carrier device_config = {
	.name = "device-config",
	.find = config_find,
	.get = config_get,
};

/* ---- reading ---- */

/* In the order of preference. */
static const struct vnpv_carrier *const carriers[] = {
	&vnpv_pci_config,
	&device_config,
};

const struct vnpv_carrier *vnpv_vendor_carrier(struct virtio_device *vdev)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(carriers); i++)
		if (carriers[i]->find(vdev) >= 0)
			return carriers[i];
	return NULL;
}

static u32 read_generation(const struct vnpv_carrier *carrier,
			   struct virtio_device *vdev, u32 at)
{
	__le32 generation = 0;

	carrier->get(vdev, at + offsetof(struct vnet_vendor_block, generation),
		     &generation, sizeof(generation));
	return le32_to_cpu(generation);
}

int vnpv_vendor_read(const struct vnpv_carrier *carrier,
		     struct virtio_device *vdev, struct vnpv_block *block,
		     const char **why)
{
	struct vnet_vendor_block wire;
	u32 before;
	int at, try, i;

	at = carrier->find(vdev);
	if (at < 0) {
		*why = "the vendor block is gone";
		return at;
	}
	for (try = 0; try < READ_TRIES; try++) {
		memset(&wire, 0, sizeof(wire));
		before = read_generation(carrier, vdev, at);
		/* Reads of up to 8 bytes are what every transport has. */
		for (i = 0; i < sizeof(wire); i += 8)
			carrier->get(vdev, at + i, (u8 *)&wire + i, 8);
		if (le32_to_cpu(wire.generation) == before &&
		    read_generation(carrier, vdev, at) == before)
			return vnpv_block_parse(&wire, block, why);
		usleep_range(100, 200);
	}
	*why = "the vendor block does not hold still";
	return -EAGAIN;
}

int vnpv_vendor_apply(struct vnpv_dev *vd, const struct vnpv_block *block)
{
	struct vnpv_conf *conf, *old;

	conf = kmalloc(sizeof(*conf), GFP_KERNEL);
	if (!conf)
		return -ENOMEM;
	conf->block = *block;
	WRITE_ONCE(vd->netdev->needed_headroom,
		   sizeof(struct vnet_train_hdr) + block->encap_len);
	old = rcu_replace_pointer(vd->conf, conf, true);
	if (old)
		kfree_rcu(old, rcu);
	return 0;
}

void vnpv_vendor_forget(struct vnpv_dev *vd)
{
	kfree(rcu_replace_pointer(vd->conf, NULL, true));
}

static void update_block(struct vnpv_dev *vd)
{
	struct vnpv_block block;
	const char *why = "";
	u32 generation;
	int err;

	rcu_read_lock();
	generation = rcu_dereference(vd->conf)->block.generation;
	rcu_read_unlock();

	if (vnpv_in_band(vd))
		err = vnpv_hello_block(vd, &block, &why);
	else
		err = vnpv_vendor_read(vd->carrier, vd->vdev, &block, &why);
	if (err == -ENODATA)
		return;
	if (err == -EAGAIN) {
		schedule_work(&vd->config_work);
		return;
	}
	if (err) {
		vd->vendor_errors++;
		netdev_err(vd->netdev,
			   "change of the vendor block refused: %s; going on with generation %u\n",
			   why, generation);
		return;
	}
	if (block.generation == generation)
		return;

	err = vnpv_vendor_apply(vd, &block);
	if (err) {
		schedule_work(&vd->config_work);
		return;
	}
	trace_vnpv_vendor_change(vd->netdev, generation, &block);
	netdev_dbg(vd->netdev, "generation %u: %s, %u bytes, %s, VTOE %s\n",
		   block.generation, vnpv_encap_type_name(block.encap_type),
		   block.encap_len, vnpv_train_form_name(block.train_form),
		   vnpv_vtoe_state_name(block.vtoe_state));
	vnpv_vtoe_state(vd, &block);
}

static void update_link(struct vnpv_dev *vd)
{
	u16 status = VIRTIO_NET_S_LINK_UP;

	if (virtio_has_feature(vd->vdev, VIRTIO_NET_F_STATUS))
		virtio_cread(vd->vdev, struct virtio_net_config, status,
			     &status);
	if (status & VIRTIO_NET_S_LINK_UP && !READ_ONCE(vd->lost))
		netif_carrier_on(vd->netdev);
	else
		netif_carrier_off(vd->netdev);
}

void vnpv_config_work(struct work_struct *work)
{
	struct vnpv_dev *vd = container_of(work, struct vnpv_dev, config_work);

	if (READ_ONCE(vd->leaving) || vnpv_hello_asked(vd))
		return;
	update_block(vd);
	update_link(vd);
}
