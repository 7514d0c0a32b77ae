// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The registers of virtio over PCI behind BAR 0 (virtio 1.2 section 4.1.4).
 *
 * Reads are served from an image that is made for the occasion, so any offset,
 * length and alignment will do; only the ISR has a side effect. Writes count if
 * they are of exactly one field (64-bit ones also by halves); others are ignored,
 * as hardware does.
 *
 *   status 0          everything that the driver set up is forgotten
 *   FEATURES_OK       stays off unless the driver's features are a part of the
 *                     offer with VIRTIO_F_VERSION_1 in it; then they are fixed
 *   queue_enable      the queue's registers are fixed
 *   DRIVER_OK         enabled queues start (queue.c)
 *   NEEDS_RESET       ours: a queue could not be started, or has broken
 *
 * Threat model: the guest writes anything in any order. Queue indices pass
 * shim_queue_at(), vectors are bounded when they are written, addresses when
 * the queue starts.
 */
#include <endian.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <stddef.h>
#include <string.h>
#include <sys/eventfd.h>
#include <fcntl.h>

#include "log.h"
#include "shim.h"

#define ISR_CONFIG 0x2
#define FIELD(name) offsetof(struct virtio_pci_common_cfg, name)

/* ---- reset ---- */

void shim_virtio_reset(struct shim *shim)
{
	struct shim_pci *pci = &shim->vfio.pci;
	unsigned int i;

	shim_device_reset_all(shim);
	shim->dev.offered = shim_device_offer(shim);
	pci->device_feature_select = 0;
	pci->driver_feature_select = 0;
	pci->driver_features = 0;
	pci->foreign_features = false;
	pci->queue_select = 0;
	pci->config_vector = SHIM_NO_VECTOR;
	pci->isr = 0;
	for (i = 0; i < shim->queue_count; i++) {
		struct shim_queue *q = &shim->queue[i];

		pci->vector[i] = SHIM_NO_VECTOR;
		q->num = SHIM_PCI_RING_MAX;
		q->desc_addr = 0;
		q->avail_addr = 0;
		q->used_addr = 0;
	}
}

/* ---- to the driver ---- */

void shim_virtio_config_changed(struct shim *shim)
{
	shim->vfio.pci.isr |= ISR_CONFIG;
	shim_vfio_fire(shim, shim->vfio.pci.config_vector);
}

void shim_virtio_needs_reset(struct shim *shim)
{
	if (shim->dev.status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	log_warn("vm %s: the device needs a reset by its driver", shim->conf->vm);
	shim->dev.status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	if (shim->dev.status & VIRTIO_CONFIG_S_DRIVER_OK)
		shim_virtio_config_changed(shim);
}

bool shim_virtio_may_run(const struct shim_queue *q)
{
	return q->enabled &&
	       (q->shim->dev.status & VIRTIO_CONFIG_S_DRIVER_OK);
}

/* ---- reading ---- */

void shim_virtio_overlay(uint8_t *data, uint32_t offset, uint32_t len,
			 uint32_t area_offset, const void *area,
			 uint32_t area_len)
{
	const uint32_t from = offset > area_offset ? offset : area_offset;
	const uint32_t data_end = offset + len, area_end = area_offset + area_len;
	const uint32_t to = data_end < area_end ? data_end : area_end;

	if (from < to)
		memcpy(data + (from - offset),
		       (const uint8_t *)area + (from - area_offset), to - from);
}

static uint32_t half(uint64_t value, uint32_t select)
{
	return select == 0 ? (uint32_t)value : select == 1 ? value >> 32 : 0;
}

static void common_image(struct shim *shim, struct virtio_pci_common_cfg *c)
{
	const struct shim_pci *pci = &shim->vfio.pci;
	const struct shim_queue *q = shim_queue_at(shim, pci->queue_select);

	*c = (struct virtio_pci_common_cfg){
		.device_feature_select = htole32(pci->device_feature_select),
		.device_feature = htole32(half(shim->dev.offered,
					       pci->device_feature_select)),
		.guest_feature_select = htole32(pci->driver_feature_select),
		.guest_feature = htole32(half(pci->driver_features,
					      pci->driver_feature_select)),
		.msix_config = htole16(pci->config_vector),
		.num_queues = htole16(shim->queue_count),
		.device_status = shim->dev.status,
		.config_generation = (uint8_t)shim->dev.generation,
		.queue_select = htole16(pci->queue_select),
		.queue_msix_vector = htole16(SHIM_NO_VECTOR),
	};
	if (!q)
		return; /* size 0: there is no such queue */
	c->queue_size = htole16(q->num);
	c->queue_msix_vector = htole16(pci->vector[q->index]);
	c->queue_enable = htole16(q->enabled);
	c->queue_notify_off = htole16(q->index);
	c->queue_desc_lo = htole32(half(q->desc_addr, 0));
	c->queue_desc_hi = htole32(half(q->desc_addr, 1));
	c->queue_avail_lo = htole32(half(q->avail_addr, 0));
	c->queue_avail_hi = htole32(half(q->avail_addr, 1));
	c->queue_used_lo = htole32(half(q->used_addr, 0));
	c->queue_used_hi = htole32(half(q->used_addr, 1));
}

void shim_virtio_read(struct shim *shim, uint32_t offset, uint32_t len,
		      uint8_t *data)
{
	struct shim_pci *pci = &shim->vfio.pci;
	struct virtio_pci_common_cfg common;
	uint8_t config[SHIM_CONFIG_SPACE];

	memset(data, 0, len);
	common_image(shim, &common);
	shim_virtio_overlay(data, offset, len, SHIM_BAR0_COMMON, &common,
			    sizeof(common));
	if (offset <= SHIM_BAR0_ISR && SHIM_BAR0_ISR < offset + len) {
		data[SHIM_BAR0_ISR - offset] = pci->isr;
		pci->isr = 0;
	}
	if (offset + len <= SHIM_BAR0_DEVICE ||
	    offset >= SHIM_BAR0_DEVICE + sizeof(config))
		return;
	shim_device_config(shim, config);
	shim_virtio_overlay(data, offset, len, SHIM_BAR0_DEVICE, config,
			    sizeof(config));
}

/* ---- status ---- */

/* True: the driver's features are in force. */
static bool features_ok(struct shim *shim)
{
	const struct shim_pci *pci = &shim->vfio.pci;

	/* a new configuration may have taken something away meanwhile */
	shim->dev.offered &= shim_device_offer(shim);
	if (pci->foreign_features ||
	    !(pci->driver_features & VNET_BIT_MASK(VIRTIO_F_VERSION_1))) {
		log_warn("vm %s: the driver accepts unknown features, or not VIRTIO_F_VERSION_1",
			 shim->conf->vm);
		return false;
	}
	if (shim_device_accept(shim, pci->driver_features) < 0)
		return false;
	shim_attach_features_set(shim);
	return true;
}

static void write_status(struct shim *shim, uint8_t status)
{
	struct shim_device *dev = &shim->dev;
	const uint8_t before = dev->status;

	log_debug("vm %s: status %#x -> %#x", shim->conf->vm, before, status);
	if (!status) {
		shim_virtio_reset(shim);
		return;
	}
	if (!before) /* a driver begins */
		dev->offered = shim_device_offer(shim);
	if ((status & ~before & VIRTIO_CONFIG_S_FEATURES_OK) && !features_ok(shim))
		status &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	if (!((status | before) & VIRTIO_CONFIG_S_FEATURES_OK))
		status &= ~VIRTIO_CONFIG_S_DRIVER_OK;
	/* bits go by a reset only; this one is ours */
	dev->status |= status & ~VIRTIO_CONFIG_S_NEEDS_RESET;
	if (!(dev->status & ~before & VIRTIO_CONFIG_S_DRIVER_OK))
		return;
	if (shim_queues_resume(shim) < 0)
		shim_virtio_needs_reset(shim);
}

/* ---- fields of a queue ---- */

static void enable_queue(struct shim_queue *q)
{
	struct shim *shim = q->shim;

	if (q->enabled || !(shim->dev.status & VIRTIO_CONFIG_S_FEATURES_OK))
		return;
	q->kick_fd = fcntl(shim->vfio.kick_fd[q->index], F_DUPFD_CLOEXEC, 0);
	q->addr_set = true;
	q->enabled = true;
	if (q->kick_fd < 0 || shim_queue_update(q) < 0)
		shim_virtio_needs_reset(shim);
}

static uint16_t valid_vector(const struct shim *shim, uint32_t vector)
{
	return vector < shim_vfio_vectors(shim) ? vector : SHIM_NO_VECTOR;
}

static void set_half(uint64_t *value, bool high, uint32_t part)
{
	if (high)
		*value = (uint32_t)*value | (uint64_t)part << 32;
	else
		*value = (*value & ~(uint64_t)UINT32_MAX) | part;
}

static void write_queue(struct shim_queue *q, uint32_t field, uint32_t value)
{
	struct shim_pci *pci = &q->shim->vfio.pci;

	/* may change while the queue runs */
	if (field == FIELD(queue_msix_vector)) {
		pci->vector[q->index] = valid_vector(q->shim, value);
		shim_vfio_route(q->shim, q);
		return;
	}
	if (q->enabled)
		return;
	switch (field) {
	case FIELD(queue_size):
		if (value && value <= SHIM_PCI_RING_MAX && !(value & (value - 1)))
			q->num = value;
		break;
	case FIELD(queue_enable):
		if (value == 1)
			enable_queue(q);
		break;
	case FIELD(queue_desc_lo):
	case FIELD(queue_desc_hi):
		set_half(&q->desc_addr, field == FIELD(queue_desc_hi), value);
		break;
	case FIELD(queue_avail_lo):
	case FIELD(queue_avail_hi):
		set_half(&q->avail_addr, field == FIELD(queue_avail_hi), value);
		break;
	case FIELD(queue_used_lo):
	case FIELD(queue_used_hi):
		set_half(&q->used_addr, field == FIELD(queue_used_hi), value);
		break;
	}
}

/* ---- writing ---- */

/* Length of the field at an offset; 0: none begins there, or none to write. */
static unsigned int field_len(uint32_t field)
{
	switch (field) {
	case FIELD(device_status):
		return 1;
	case FIELD(msix_config):
	case FIELD(queue_select):
	case FIELD(queue_size):
	case FIELD(queue_msix_vector):
	case FIELD(queue_enable):
		return 2;
	case FIELD(device_feature_select):
	case FIELD(guest_feature_select):
	case FIELD(guest_feature):
	case FIELD(queue_desc_lo):
	case FIELD(queue_desc_hi):
	case FIELD(queue_avail_lo):
	case FIELD(queue_avail_hi):
	case FIELD(queue_used_lo):
	case FIELD(queue_used_hi):
		return 4;
	}
	return 0;
}

static void write_features(struct shim *shim, uint32_t value)
{
	struct shim_pci *pci = &shim->vfio.pci;

	if (shim->dev.status & VIRTIO_CONFIG_S_FEATURES_OK)
		return;
	if (pci->driver_feature_select > 1)
		pci->foreign_features |= value != 0;
	else
		set_half(&pci->driver_features, pci->driver_feature_select, value);
}

static void write_field(struct shim *shim, uint32_t field, uint32_t value)
{
	struct shim_pci *pci = &shim->vfio.pci;
	struct shim_queue *q;

	switch (field) {
	case FIELD(device_feature_select):
		pci->device_feature_select = value;
		break;
	case FIELD(guest_feature_select):
		pci->driver_feature_select = value;
		break;
	case FIELD(guest_feature):
		write_features(shim, value);
		break;
	case FIELD(msix_config):
		pci->config_vector = valid_vector(shim, value);
		break;
	case FIELD(device_status):
		write_status(shim, value);
		break;
	case FIELD(queue_select):
		pci->queue_select = value;
		break;
	default:
		q = shim_queue_at(shim, pci->queue_select);
		if (q)
			write_queue(q, field, value);
	}
}

static uint32_t get_le(const uint8_t *data, uint32_t len)
{
	uint32_t value = 0;

	memcpy(&value, data, len);
	return le32toh(value);
}

static bool is_address(uint32_t field)
{
	return field == FIELD(queue_desc_lo) || field == FIELD(queue_avail_lo) ||
	       field == FIELD(queue_used_lo);
}

static void ring_doorbell(struct shim *shim, uint32_t offset)
{
	const struct shim_queue *q =
		shim_queue_at(shim, offset / SHIM_NOTIFY_STRIDE);

	if (q && offset % SHIM_NOTIFY_STRIDE == 0)
		eventfd_write(shim->vfio.kick_fd[q->index], 1);
}

void shim_virtio_write(struct shim *shim, uint32_t offset, uint32_t len,
		       const uint8_t *data)
{
	if (offset >= SHIM_BAR0_NOTIFY) {
		ring_doorbell(shim, offset - SHIM_BAR0_NOTIFY);
	} else if (len == 8 && is_address(offset)) {
		write_field(shim, offset, get_le(data, 4));
		write_field(shim, offset + 4, get_le(data + 4, 4));
	} else if (len <= 4 && len == field_len(offset)) {
		write_field(shim, offset, get_le(data, len));
	}
}
