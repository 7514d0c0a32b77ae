// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The device model. The config space is built anew for each read: there is no
 * second copy that could disagree, and a read is one message, so the guest
 * never sees half a change.
 *
 *   0     struct virtio_net_config (virtio 1.2 section 5.1.4)
 *   0x80  struct vnet_vendor_block (not where it goes in band)
 *
 * Which driver runs is decided by VNET_F_PARAVIRT_BIT or, in band, by a message
 * (hello.c). The offer is the same for both. What a stock driver's frames would need done on the host (checksum,
 * segmentation) is offered only while every link takes whole frames, because
 * nobody here segments.
 */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/virtio_config.h>
#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "encap.h"
#include "log.h"
#include "shim.h"

#define MASK VNET_BIT_MASK

_Static_assert(VNET_VENDOR_CONFIG_OFFSET + sizeof(struct vnet_vendor_block) <=
		       SHIM_CONFIG_SPACE,
	       "the vendor block fits");
_Static_assert(sizeof(struct virtio_net_config) <= VNET_VENDOR_CONFIG_OFFSET,
	       "and lies behind virtio's own");

void shim_device_init(struct shim *shim)
{
	struct shim_device *dev = &shim->dev;

	dev->vtoe_state = shim->conf->agent[0] ? VNET_VTOE_DOWN :
						 VNET_VTOE_ABSENT;
	shim_device_reset(shim);
}

uint64_t shim_device_offer(const struct shim *shim)
{
	uint64_t offer = MASK(VIRTIO_F_VERSION_1) |
			 MASK(VIRTIO_RING_F_EVENT_IDX) |
			 MASK(VIRTIO_RING_F_INDIRECT_DESC) |
			 MASK(VIRTIO_NET_F_MAC) | MASK(VIRTIO_NET_F_MTU) |
			 MASK(VIRTIO_NET_F_STATUS) | MASK(VIRTIO_NET_F_CTRL_VQ) |
			 MASK(VIRTIO_NET_F_CTRL_RX) |
			 MASK(VIRTIO_NET_F_MRG_RXBUF) |
			 MASK(VIRTIO_NET_F_GUEST_CSUM) |
			 MASK(VIRTIO_NET_F_GUEST_TSO4) |
			 MASK(VIRTIO_NET_F_GUEST_TSO6) |
			 MASK(VIRTIO_NET_F_GUEST_ECN);

	if (!shim->conf->in_band)
		offer |= MASK(VNET_F_PARAVIRT_BIT);
	if (shim_config_net_pairs(shim->conf) > 1)
		offer |= MASK(VIRTIO_NET_F_MQ);
	if (!shim_config_has_segmented(shim->conf))
		offer |= MASK(VIRTIO_NET_F_CSUM) | MASK(VIRTIO_NET_F_HOST_TSO4) |
			 MASK(VIRTIO_NET_F_HOST_TSO6) |
			 MASK(VIRTIO_NET_F_HOST_ECN);
	return offer;
}

int shim_device_accept(struct shim *shim, uint64_t features)
{
	struct shim_device *dev = &shim->dev;

	if (features & ~dev->offered) {
		log_warn("vm %s: driver accepts features that were not offered: %#" PRIx64,
			 shim->conf->vm, features & ~dev->offered);
		return -EINVAL;
	}
	if (features != dev->features)
		log_info("vm %s: %s driver, features %#" PRIx64, shim->conf->vm,
			 features & MASK(VNET_F_PARAVIRT_BIT) ? "vnet_pv" :
								"stock",
			 features);
	dev->features = features;
	return 0;
}

void shim_device_reset(struct shim *shim)
{
	struct shim_device *dev = &shim->dev;

	dev->features = 0;
	dev->status = 0;
	dev->promisc = false;
	dev->active_pairs = 1;
	dev->encap_types = 1u << shim->conf->encap;
	shim_hello_reset(shim);
}

unsigned int shim_device_pairs(const struct shim *shim)
{
	return shim->dev.in_band ? shim->conf->pairs :
				   shim_config_net_pairs(shim->conf);
}

unsigned int shim_device_active_pairs(const struct shim *shim)
{
	const unsigned int pairs = shim_device_pairs(shim);
	const unsigned int active = shim->dev.active_pairs;

	return active < pairs ? active : pairs;
}

void shim_device_reset_all(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < shim->queue_count; i++)
		shim_queue_reset(&shim->queue[i]);
	shim_attach_reset(shim);
	shim_device_reset(shim);
}

void shim_device_block(const struct shim *shim, struct vnet_vendor_block *b)
{
	const struct shim_config *conf = shim->conf;
	const struct shim_device *dev = &shim->dev;
	unsigned int i;

	*b = (struct vnet_vendor_block){
		.magic = htole32(VNET_VENDOR_MAGIC),
		.version = htole16(VNET_VENDOR_VERSION),
		.size = htole16(sizeof(*b)),
		.generation = htole32(dev->generation),
		.tenant = htole32(conf->tenant),
		.encap_len = htole16(shim_encap_len(conf->encap)),
		.encap_len_max = htole16(SHIM_ENCAP_MAX),
		.encap_type = conf->encap,
		.train_form = shim_config_has_segmented(conf) ?
				      VNET_TRAIN_SEGMENTED :
				      VNET_TRAIN_WHOLE,
		.vtoe_state = dev->vtoe_state,
		.vtoe_epoch = htole32(dev->vtoe_epoch),
	};
	if (dev->vtoe_state == VNET_VTOE_ABSENT)
		return;
	b->vtoe_first_queue = htole16(conf->in_band ? shim_queues_reserved(shim) :
						      2 * conf->pairs + 1);
	b->vtoe_swq_count = htole16(1);
	b->vtoe_rwq_count = htole16(VNET_RWQ_CLASSES);
	for (i = 0; i < VNET_RWQ_CLASSES; i++)
		b->rwq_buf_size[i] = htole32(conf->rwq_buf_size[i]);
}

void shim_device_config(const struct shim *shim,
			uint8_t config[SHIM_CONFIG_SPACE])
{
	struct virtio_net_config net = {
		.status = htole16(VIRTIO_NET_S_LINK_UP),
		.max_virtqueue_pairs = htole16(shim_config_net_pairs(shim->conf)),
		.mtu = htole16(shim->conf->mtu),
	};
	struct vnet_vendor_block block;

	memcpy(net.mac, shim->conf->mac, VNET_MAC_LEN);
	memset(config, 0, SHIM_CONFIG_SPACE);
	memcpy(config, &net, sizeof(net));
	if (shim->conf->in_band)
		return;
	shim_device_block(shim, &block);
	memcpy(config + VNET_VENDOR_CONFIG_OFFSET, &block, sizeof(block));
}

void shim_device_changed(struct shim *shim)
{
	shim->dev.generation++;
	shim->stats.config_changes++;
	if (shim->conf->in_band)
		shim_hello_changed(shim);
	else if (shim_front_connected(&shim->front))
		shim->front.ops->config_changed(shim);
}

void shim_device_set_vtoe(struct shim *shim, uint8_t state, bool new_epoch)
{
	static const char *const names[] = { "absent", "down", "up" };
	struct shim_device *dev = &shim->dev;

	if (dev->vtoe_state == state && !new_epoch)
		return;
	if (new_epoch)
		dev->vtoe_epoch++;
	log_info("vm %s: offload %s -> %s, epoch %u", shim->conf->vm,
		 names[dev->vtoe_state], names[state], dev->vtoe_epoch);
	dev->vtoe_state = state;
	shim_device_changed(shim);
}
