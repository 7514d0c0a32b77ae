// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * PCI config space (virtio 1.2 section 4.1) and the regions of the function.
 *
 * Config space is an array of bytes with a mask of those bits that may be
 * written. Three places of it do something:
 *  - the vendor capability is filled in anew for each read, so it is always what
 *    the device config says (device.c);
 *  - the window of VIRTIO_PCI_CAP_PCI_CFG, for who cannot reach a BAR, does the
 *    access it describes when its data is read or written (section 4.1.4.9);
 *  - nothing else: where BARs lie, whether memory access and MSI-X are enabled,
 *    is the client's business. It keeps the MSI-X table, too (QEMU shows the
 *    guest one of its own); ours is memory for clients that do not.
 *
 * There is no INTx (interrupt pin 0): a driver without MSI-X has to poll.
 */
#include <endian.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>
#include <stddef.h>
#include <string.h>

#include "shim.h"

#define VIRTIO_VENDOR 0x1af4
#define VIRTIO_MODERN(id) (0x1040 + (id))
#define SUBSYSTEM_ID 0x1100 /* as QEMU's; modern devices: 0x40 or more */

/* The capabilities. */
#define CAP_COMMON 0x40
#define CAP_ISR 0x50
#define CAP_DEVICE 0x60
#define CAP_NOTIFY 0x70
#define CAP_WINDOW 0x84
#define CAP_MSIX 0x98
#define CAP_VENDOR 0xa8
_Static_assert(CAP_NOTIFY + sizeof(struct virtio_pci_notify_cap) <= CAP_WINDOW &&
		       CAP_WINDOW + sizeof(struct virtio_pci_cfg_cap) <= CAP_MSIX &&
		       CAP_MSIX + PCI_CAP_MSIX_SIZEOF <= CAP_VENDOR &&
		       CAP_VENDOR + sizeof(struct vnet_pci_vendor_cap) <=
			       SHIM_PCI_CONFIG,
	       "capabilities do not overlap");

#define WINDOW_DATA (CAP_WINDOW + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data))
#define WINDOW_DATA_LEN 4

static uint8_t writable[SHIM_PCI_CONFIG];

static void put16(uint8_t *config, unsigned int at, uint16_t value)
{
	config[at] = value;
	config[at + 1] = value >> 8;
}

static void put32(uint8_t *config, unsigned int at, uint32_t value)
{
	put16(config, at, value);
	put16(config, at + 2, value >> 16);
}

/* ---- as after power-on ---- */

static void put_cap(uint8_t *config, uint8_t at, uint8_t next, uint8_t len,
		    uint8_t type, uint32_t offset, uint32_t length)
{
	const struct virtio_pci_cap cap = {
		.cap_vndr = PCI_CAP_ID_VNDR,
		.cap_next = next,
		.cap_len = len,
		.cfg_type = type,
		.offset = htole32(offset),
		.length = htole32(length),
	};

	memcpy(config + at, &cap, sizeof(cap));
}

static void put_caps(const struct shim *shim, uint8_t *config)
{
	config[PCI_CAPABILITY_LIST] = CAP_COMMON;
	put_cap(config, CAP_COMMON, CAP_ISR, sizeof(struct virtio_pci_cap),
		VIRTIO_PCI_CAP_COMMON_CFG, SHIM_BAR0_COMMON,
		sizeof(struct virtio_pci_common_cfg));
	put_cap(config, CAP_ISR, CAP_DEVICE, sizeof(struct virtio_pci_cap),
		VIRTIO_PCI_CAP_ISR_CFG, SHIM_BAR0_ISR, 1);
	put_cap(config, CAP_DEVICE, CAP_NOTIFY, sizeof(struct virtio_pci_cap),
		VIRTIO_PCI_CAP_DEVICE_CFG, SHIM_BAR0_DEVICE, SHIM_CONFIG_SPACE);
	put_cap(config, CAP_NOTIFY, CAP_WINDOW,
		sizeof(struct virtio_pci_notify_cap), VIRTIO_PCI_CAP_NOTIFY_CFG,
		SHIM_BAR0_NOTIFY, shim->queue_count * SHIM_NOTIFY_STRIDE);
	put32(config,
	      CAP_NOTIFY + offsetof(struct virtio_pci_notify_cap,
				    notify_off_multiplier),
	      SHIM_NOTIFY_STRIDE);
	put_cap(config, CAP_WINDOW, CAP_MSIX, sizeof(struct virtio_pci_cfg_cap),
		VIRTIO_PCI_CAP_PCI_CFG, 0, 0);
	config[CAP_MSIX] = PCI_CAP_ID_MSIX;
	config[CAP_MSIX + PCI_CAP_LIST_NEXT] = CAP_VENDOR;
	put16(config, CAP_MSIX + PCI_MSIX_FLAGS, shim_vfio_vectors(shim) - 1);
	put32(config, CAP_MSIX + PCI_MSIX_TABLE, 1);
	put32(config, CAP_MSIX + PCI_MSIX_PBA, SHIM_BAR1_PBA | 1);
}

static void put_writable(void)
{
	put16(writable, PCI_COMMAND,
	      PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
	writable[PCI_CACHE_LINE_SIZE] = 0xff;
	writable[PCI_LATENCY_TIMER] = 0xff;
	writable[PCI_INTERRUPT_LINE] = 0xff;
	put32(writable, PCI_BASE_ADDRESS_0, ~(SHIM_BAR0_SIZE - 1));
	put32(writable, PCI_BASE_ADDRESS_1, ~(SHIM_BAR1_SIZE - 1));
	put16(writable, CAP_MSIX + PCI_MSIX_FLAGS,
	      PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL);
	writable[CAP_WINDOW + offsetof(struct virtio_pci_cap, bar)] = 0xff;
	memset(writable + CAP_WINDOW + offsetof(struct virtio_pci_cap, offset),
	       0xff, sizeof(struct virtio_pci_cfg_cap) -
			     offsetof(struct virtio_pci_cap, offset));
}

void shim_pci_init(struct shim *shim)
{
	struct shim_pci *pci = &shim->vfio.pci;
	uint8_t *config = pci->config;
	unsigned int i;

	memset(pci, 0, sizeof(*pci));
	put_writable();
	put16(config, PCI_VENDOR_ID, VIRTIO_VENDOR);
	put16(config, PCI_DEVICE_ID, VIRTIO_MODERN(VIRTIO_ID_NET));
	put16(config, PCI_STATUS, PCI_STATUS_CAP_LIST);
	config[PCI_REVISION_ID] = 1;
	config[PCI_CLASS_DEVICE + 1] = 0x02; /* network, Ethernet */
	put16(config, PCI_SUBSYSTEM_VENDOR_ID, VIRTIO_VENDOR);
	put16(config, PCI_SUBSYSTEM_ID, SUBSYSTEM_ID);
	put_caps(shim, config);
	for (i = 0; i < shim_vfio_vectors(shim); i++)
		pci->msix_table[i * SHIM_MSIX_ENTRY + PCI_MSIX_ENTRY_VECTOR_CTRL] =
			PCI_MSIX_ENTRY_CTRL_MASKBIT;
	shim_virtio_reset(shim);
}

/* ---- the window to the BARs ---- */

static uint32_t get32(const uint8_t *config, unsigned int at)
{
	uint32_t value;

	memcpy(&value, config + at, sizeof(value));
	return le32toh(value);
}

/* What the driver asked for; false: nothing that there is. */
static bool window(const struct shim_pci *pci, uint32_t *bar, uint32_t *offset,
		   uint32_t *len)
{
	uint64_t size;

	*bar = pci->config[CAP_WINDOW + offsetof(struct virtio_pci_cap, bar)];
	*offset = get32(pci->config,
			CAP_WINDOW + offsetof(struct virtio_pci_cap, offset));
	*len = get32(pci->config,
		     CAP_WINDOW + offsetof(struct virtio_pci_cap, length));
	if (*bar > VFIO_PCI_BAR5_REGION_INDEX ||
	    (*len != 1 && *len != 2 && *len != 4) || *offset % *len)
		return false;
	size = shim_pci_region_size(*bar);
	return size && *offset <= size - *len;
}

static bool touches_window(uint32_t offset, uint32_t len)
{
	return offset < WINDOW_DATA + WINDOW_DATA_LEN && WINDOW_DATA < offset + len;
}

/* ---- config space ---- */

static void config_read(struct shim *shim, uint32_t offset, uint32_t len,
			uint8_t *data)
{
	struct shim_pci *pci = &shim->vfio.pci;
	struct vnet_pci_vendor_cap cap = {
		.cap_vndr = VNET_PCI_CAP_VNDR,
		.cap_len = sizeof(cap),
		.cfg_type = VNET_PCI_CAP_VENDOR_CFG,
		.vendor_id = htole16(VNET_PCI_CAP_VENDOR_ID),
	};
	uint32_t bar, at, n;

	if (touches_window(offset, len) && window(pci, &bar, &at, &n))
		shim_pci_read(shim, bar, at, n, pci->config + WINDOW_DATA);
	memcpy(data, pci->config + offset, len);
	if (offset + len > CAP_VENDOR) {
		uint8_t space[SHIM_CONFIG_SPACE];

		shim_device_config(shim, space);
		memcpy(&cap.block, space + VNET_VENDOR_CONFIG_OFFSET,
		       sizeof(cap.block));
		shim_virtio_overlay(data, offset, len, CAP_VENDOR, &cap,
				    sizeof(cap));
	}
}

static void config_write(struct shim *shim, uint32_t offset, uint32_t len,
			 const uint8_t *data)
{
	struct shim_pci *pci = &shim->vfio.pci;
	uint32_t bar, at, n, i;

	for (i = 0; i < len; i++) {
		uint8_t *byte = &pci->config[offset + i];
		const uint8_t mask = writable[offset + i];

		*byte = (*byte & ~mask) | (data[i] & mask);
	}
	if (touches_window(offset, len) && window(pci, &bar, &at, &n))
		shim_pci_write(shim, bar, at, n, pci->config + WINDOW_DATA);
}

/* ---- BAR 1 ---- */

static void msix_read(const struct shim *shim, uint32_t offset, uint32_t len,
		      uint8_t *data)
{
	memset(data, 0, len); /* the pending bits, too */
	shim_virtio_overlay(data, offset, len, 0, shim->vfio.pci.msix_table,
			    shim_vfio_vectors(shim) * SHIM_MSIX_ENTRY);
}

static void msix_write(struct shim *shim, uint32_t offset, uint32_t len,
		       const uint8_t *data)
{
	const uint32_t size = shim_vfio_vectors(shim) * SHIM_MSIX_ENTRY;

	if (offset >= size)
		return;
	memcpy(shim->vfio.pci.msix_table + offset, data,
	       len < size - offset ? len : size - offset);
}

/* ---- regions ---- */

uint64_t shim_pci_region_size(uint32_t region)
{
	switch (region) {
	case VFIO_PCI_BAR0_REGION_INDEX:
		return SHIM_BAR0_SIZE;
	case VFIO_PCI_BAR1_REGION_INDEX:
		return SHIM_BAR1_SIZE;
	case VFIO_PCI_CONFIG_REGION_INDEX:
		return SHIM_PCI_CONFIG;
	}
	return 0;
}

void shim_pci_read(struct shim *shim, uint32_t region, uint32_t offset,
		   uint32_t len, uint8_t *data)
{
	if (region == VFIO_PCI_BAR0_REGION_INDEX)
		shim_virtio_read(shim, offset, len, data);
	else if (region == VFIO_PCI_BAR1_REGION_INDEX)
		msix_read(shim, offset, len, data);
	else
		config_read(shim, offset, len, data);
}

void shim_pci_write(struct shim *shim, uint32_t region, uint32_t offset,
		    uint32_t len, const uint8_t *data)
{
	if (region == VFIO_PCI_BAR0_REGION_INDEX)
		shim_virtio_write(shim, offset, len, data);
	else if (region == VFIO_PCI_BAR1_REGION_INDEX)
		msix_write(shim, offset, len, data);
	else
		config_write(shim, offset, len, data);
}
