// SPDX-License-Identifier: GPL-2.0-only
/*
 * The vendor block in PCI config space: a vendor data capability of virtio
 * (virtio 1.2 section 4.1.4.8), struct vnet_pci_vendor_cap.
 *
 * Such a capability says by a vendor ID whose it is, and a device may have
 * several, so those of others are passed over. One of ours that is shorter than
 * the struct is none. Reads of config space that fail give all ones, which is
 * no magic number.
 */
#include <linux/pci.h>
#include <linux/virtio_pci.h>

#include "vnet_pv.h"

static_assert(VNET_PCI_CAP_VNDR == PCI_CAP_ID_VNDR);

bool vnpv_on_pci(const struct virtio_device *vdev)
{
	return vdev->dev.parent && dev_is_pci(vdev->dev.parent);
}

static bool is_ours(struct pci_dev *pdev, int pos)
{
	u16 vendor;
	u8 len;

	pci_read_config_byte(pdev,
			     pos + offsetof(struct vnet_pci_vendor_cap, cap_len),
			     &len);
	pci_read_config_word(pdev,
			     pos + offsetof(struct vnet_pci_vendor_cap, vendor_id),
			     &vendor);
	return len >= sizeof(struct vnet_pci_vendor_cap) &&
	       vendor == VNET_PCI_CAP_VENDOR_ID;
}

int vnpv_pci_cap_find(struct virtio_device *vdev, u8 cfg_type)
{
	struct pci_dev *pdev = to_pci_dev(vdev->dev.parent);
	u8 type;
	int pos;

	for (pos = pci_find_capability(pdev, PCI_CAP_ID_VNDR); pos > 0;
	     pos = pci_find_next_capability(pdev, pos, PCI_CAP_ID_VNDR)) {
		pci_read_config_byte(pdev,
				     pos + offsetof(struct virtio_pci_cap,
						    cfg_type),
				     &type);
		if (type == cfg_type && (type != VNET_PCI_CAP_VENDOR_CFG ||
					 is_ours(pdev, pos)))
			return pos;
	}
	return 0;
}

static int pci_config_find(struct virtio_device *vdev)
{
	int pos = 0;

	if (vnpv_on_pci(vdev))
		pos = vnpv_pci_cap_find(vdev, VNET_PCI_CAP_VENDOR_CFG);
	return pos ? pos + offsetof(struct vnet_pci_vendor_cap, block) : -ENODEV;
}

static void pci_config_get(struct virtio_device *vdev, u32 at, void *to, u32 len)
{
	__le32 *word = to;
	u32 i, value;

	for (i = 0; i < len / sizeof(*word); i++) {
		pci_read_config_dword(to_pci_dev(vdev->dev.parent),
				      at + i * sizeof(*word), &value);
		word[i] = cpu_to_le32(value);
	}
}

const struct vnpv_carrier vnpv_pci_config = {
	.name = "pci-config",
	.find = pci_config_find,
	.get = pci_config_get,
};
