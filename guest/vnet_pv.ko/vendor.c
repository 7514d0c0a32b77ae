// SPDX-License-Identifier: GPL-2.0-only
/*
 * The vendor block: reading it, and what happens when it changes.
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

/*
 * virtio_pci ends the kernel's life on a read behind the config space that the
 * device has, so look how long it is. Other transports answer with an error.
 */
static bool config_reaches(struct virtio_device *vdev, u32 end)
{
	struct pci_dev *pdev;
	u32 length;
	u8 type;
	int pos;

	if (!vdev->dev.parent || !dev_is_pci(vdev->dev.parent))
		return true;
	pdev = to_pci_dev(vdev->dev.parent);
	for (pos = pci_find_capability(pdev, PCI_CAP_ID_VNDR); pos > 0;
	     pos = pci_find_next_capability(pdev, pos, PCI_CAP_ID_VNDR)) {
		pci_read_config_byte(pdev,
				     pos + offsetof(struct virtio_pci_cap,
						    cfg_type),
				     &type);
		if (type != VIRTIO_PCI_CAP_DEVICE_CFG)
			continue;
		pci_read_config_dword(pdev,
				      pos + offsetof(struct virtio_pci_cap,
						     length),
				      &length);
		return length >= end;
	}
	return false;
}

static u32 read_generation(struct virtio_device *vdev)
{
	__le32 generation = 0;

	vdev->config->get(vdev,
			  VNET_VENDOR_CONFIG_OFFSET +
				  offsetof(struct vnet_vendor_block, generation),
			  &generation, sizeof(generation));
	return le32_to_cpu(generation);
}

int vnpv_vendor_read(struct virtio_device *vdev, struct vnpv_block *block,
		     const char **why)
{
	struct vnet_vendor_block wire;
	u32 before;
	int try, i;

	if (!config_reaches(vdev, VNET_VENDOR_CONFIG_OFFSET + sizeof(wire))) {
		*why = "its config space ends before the vendor block";
		return -ENODEV;
	}
	for (try = 0; try < READ_TRIES; try++) {
		memset(&wire, 0, sizeof(wire));
		before = read_generation(vdev);
		/* Reads of up to 8 bytes are what every transport has. */
		for (i = 0; i < sizeof(wire); i += 8)
			vdev->config->get(vdev, VNET_VENDOR_CONFIG_OFFSET + i,
					  (u8 *)&wire + i, 8);
		if (le32_to_cpu(wire.generation) == before &&
		    read_generation(vdev) == before)
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

	if (vd->carrier == VNPV_CARRIER_IN_BAND)
		err = vnpv_hello_block(vd, &block, &why);
	else
		err = vnpv_vendor_read(vd->vdev, &block, &why);
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
