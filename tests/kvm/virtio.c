// SPDX-License-Identifier: GPL-2.0-or-later
/* The virtio-pci driver; see virtio.h. */
#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>

#include "virtio.h"

#define VIRTIO_VENDOR 0x1af4
#define MODERN_NET (0x1040 + VIRTIO_ID_NET)

/* Where the structures of section 4.1.4 lie. */
static struct {
	uint32_t function;
	volatile struct virtio_pci_common_cfg *common;
	volatile uint8_t *config;
	uint32_t config_len;
	uint32_t doorbells, doorbell_stride;
} pci;

static struct {
	struct vring_desc desc[RING_MAX] __attribute__((aligned(4096)));
	struct vring_avail avail;
	uint16_t avail_ring[RING_MAX + 1]; /* with used_event */
	struct vring_used used __attribute__((aligned(4)));
	struct vring_used_elem used_ring[RING_MAX];
	uint16_t avail_event;
} rings[2];

/* ---- capabilities ---- */

static void take_capability(uint32_t at)
{
	const uint32_t f = pci.function;
	const uint8_t type = pci_read8(f, at + offsetof(struct virtio_pci_cap, cfg_type));
	const uint8_t bar = pci_read8(f, at + offsetof(struct virtio_pci_cap, bar));
	uint32_t where;

	if (type != VIRTIO_PCI_CAP_COMMON_CFG && type != VIRTIO_PCI_CAP_NOTIFY_CFG &&
	    type != VIRTIO_PCI_CAP_DEVICE_CFG)
		return;
	where = pci_bar(f, bar) +
		pci_read32(f, at + offsetof(struct virtio_pci_cap, offset));
	if (type == VIRTIO_PCI_CAP_COMMON_CFG) {
		pci.common = (void *)where;
	} else if (type == VIRTIO_PCI_CAP_NOTIFY_CFG) {
		pci.doorbells = where;
		pci.doorbell_stride = pci_read32(
			f, at + offsetof(struct virtio_pci_notify_cap,
					 notify_off_multiplier));
	} else {
		pci.config = (void *)where;
		pci.config_len = pci_read32(
			f, at + offsetof(struct virtio_pci_cap, length));
	}
}

static void read_capabilities(void)
{
	uint32_t msix = 0, at;

	for (at = pci_read8(pci.function, PCI_CAPABILITY_LIST); at;
	     at = pci_read8(pci.function, at + PCI_CAP_LIST_NEXT)) {
		const uint8_t id = pci_read8(pci.function, at);

		if (id == PCI_CAP_ID_VNDR)
			take_capability(at);
		else if (id == PCI_CAP_ID_MSIX)
			msix = at;
	}
	if (!pci.common || !pci.doorbells || !pci.config || !msix)
		fail("a capability is missing", msix, 1);
	msix_enable(pci.function, msix);
}

/* ---- the device ---- */

static uint64_t offered_features(void)
{
	uint64_t low;

	pci.common->device_feature_select = 0;
	low = pci.common->device_feature;
	pci.common->device_feature_select = 1;
	return (uint64_t)pci.common->device_feature << 32 | low;
}

static void read_config(void *to, uint32_t offset, uint32_t len)
{
	uint32_t i;

	if (offset + len > pci.config_len)
		fail("device config is too short", pci.config_len, offset + len);
	for (i = 0; i < len; i++)
		((uint8_t *)to)[i] = pci.config[offset + i];
}

/* The vendor block's other carrier, which must say the same (vnet_dev.h). */
static void check_vendor_capability(const struct vnet_vendor_block *block)
{
	const uint32_t words = sizeof(*block) / 4;
	uint32_t at, i;

	for (at = pci_read8(pci.function, PCI_CAPABILITY_LIST); at;
	     at = pci_read8(pci.function, at + PCI_CAP_LIST_NEXT))
		if (pci_read8(pci.function, at) == VNET_PCI_CAP_VNDR &&
		    pci_read8(pci.function, at + 3) == VNET_PCI_CAP_VENDOR_CFG)
			break;
	if (!at)
		fail("no vendor capability", 0, 1);
	at += offsetof(struct vnet_pci_vendor_cap, block);
	for (i = 0; i < words; i++)
		if (pci_read32(pci.function, at + 4 * i) != ((uint32_t *)block)[i])
			fail("the carriers of the vendor block differ, word", i, 0);
}

void device_find(struct device *dev)
{
	pci.function = pci_find(VIRTIO_VENDOR, MODERN_NET);
	if (pci.function == PCI_NOT_FOUND)
		fail("no virtio network device", 0, 1);
	pci_write32(pci.function, PCI_COMMAND,
		    PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
			    PCI_COMMAND_INTX_DISABLE);
	read_capabilities();
	dev->offered = offered_features();
	read_config(dev->mac, offsetof(struct virtio_net_config, mac),
		    sizeof(dev->mac));
	if (dev->offered & VNET_BIT_MASK(VIRTIO_NET_F_MTU))
		read_config(&dev->mtu, offsetof(struct virtio_net_config, mtu),
			    sizeof(dev->mtu));
	if (!(dev->offered & VNET_BIT_MASK(VNET_F_PARAVIRT_BIT)))
		return;
	read_config(&dev->vendor, VNET_VENDOR_CONFIG_OFFSET, sizeof(dev->vendor));
	if (dev->vendor.magic != VNET_VENDOR_MAGIC)
		fail("the vendor block's magic", dev->vendor.magic,
		     VNET_VENDOR_MAGIC);
	check_vendor_capability(&dev->vendor);
}

static void queue_set_up(struct queue *q, uint16_t index, uint16_t vector,
			 bool event_idx)
{
	volatile struct virtio_pci_common_cfg *c = pci.common;

	memset(&rings[index], 0, sizeof(rings[index]));
	*q = (struct queue){
		.index = index,
		.desc = rings[index].desc,
		.avail = &rings[index].avail,
		.used = &rings[index].used,
		.event_idx = event_idx,
		.kicks = q->kicks,
	};
	c->queue_select = index;
	q->num = c->queue_size;
	if (!q->num || q->num > RING_MAX)
		fail("ring size", q->num, RING_MAX);
	q->doorbell = (void *)(pci.doorbells +
			       c->queue_notify_off * pci.doorbell_stride);
	c->queue_msix_vector = vector;
	if (c->queue_msix_vector != vector)
		fail("the queue's MSI-X vector", c->queue_msix_vector, vector);
	c->queue_desc_lo = (uint32_t)q->desc;
	c->queue_desc_hi = 0;
	c->queue_avail_lo = (uint32_t)q->avail;
	c->queue_avail_hi = 0;
	c->queue_used_lo = (uint32_t)q->used;
	c->queue_used_hi = 0;
	c->queue_enable = 1;
}

void device_reset(struct device *dev, uint64_t wanted)
{
	volatile struct virtio_pci_common_cfg *c = pci.common;
	const uint8_t ready = VIRTIO_CONFIG_S_ACKNOWLEDGE |
			      VIRTIO_CONFIG_S_DRIVER |
			      VIRTIO_CONFIG_S_FEATURES_OK;

	c->device_status = 0;
	while (c->device_status)
		;
	c->device_status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;
	dev->features = offered_features() & wanted;
	c->guest_feature_select = 0;
	c->guest_feature = (uint32_t)dev->features;
	c->guest_feature_select = 1;
	c->guest_feature = dev->features >> 32;
	c->device_status = ready;
	if (c->device_status != ready)
		fail("status after FEATURES_OK", c->device_status, ready);
	c->msix_config = VECTOR_CONFIG;
	queue_set_up(&dev->rx, 0, VECTOR_RX,
		     device_has(dev, VIRTIO_RING_F_EVENT_IDX));
	queue_set_up(&dev->tx, 1, VECTOR_TX,
		     device_has(dev, VIRTIO_RING_F_EVENT_IDX));
}

void device_go(struct device *dev)
{
	pci.common->device_status |= VIRTIO_CONFIG_S_DRIVER_OK;
	queue_kick(&dev->rx);
}

void device_flush(void)
{
	(void)pci.common->device_status;
}

/* ---- queues ---- */

static uint16_t *used_event(struct queue *q)
{
	return &q->avail->ring[q->num];
}

static uint16_t avail_event(const struct queue *q)
{
	return *(volatile uint16_t *)&q->used->ring[q->num];
}

static uint16_t device_used_idx(const struct queue *q)
{
	return *(volatile uint16_t *)&q->used->idx;
}

void queue_post(struct queue *q, uint16_t head)
{
	q->avail->ring[q->avail_idx % q->num] = head;
	q->avail_idx++;
}

void queue_kick(struct queue *q)
{
	const uint16_t old = q->told;
	bool wanted;

	if (old == q->avail_idx)
		return;
	fence();
	*(volatile uint16_t *)&q->avail->idx = q->avail_idx;
	q->told = q->avail_idx;
	fence();
	if (q->event_idx)
		wanted = vring_need_event(avail_event(q), q->avail_idx, old);
	else
		wanted = !(*(volatile uint16_t *)&q->used->flags &
			   VRING_USED_F_NO_NOTIFY);
	if (!wanted)
		return;
	*q->doorbell = q->index;
	q->kicks++;
}

bool queue_take(struct queue *q, uint16_t *head, uint32_t *len)
{
	const struct vring_used_elem *e = &q->used->ring[q->used_idx % q->num];

	if (q->used_idx == device_used_idx(q))
		return false;
	fence();
	if (e->id >= q->num)
		fail("used entry's descriptor", e->id, q->num);
	*head = e->id;
	*len = e->len;
	q->used_idx++;
	return true;
}

bool queue_arm(struct queue *q, uint16_t count)
{
	if (!q->event_idx)
		return false;
	*(volatile uint16_t *)used_event(q) = q->used_idx + count - 1;
	fence();
	return (uint16_t)(device_used_idx(q) - q->used_idx) >= count;
}
