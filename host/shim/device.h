/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The virtio network device as the guest sees it: features, config space with
 * the vendor block. */
#ifndef SHIM_DEVICE_H
#define SHIM_DEVICE_H

#include <stdbool.h>
#include <stdint.h>
#include <linux/virtio_net.h>

#include "vnet_dev.h"

#define SHIM_CONFIG_SPACE 256 /* as a vhost-user device may have */

struct shim;

struct shim_device {
	uint64_t offered;  /* in this session */
	uint64_t features; /* that the driver accepted */
	uint8_t status;
	/* of the vendor block; they live as long as the shim */
	uint32_t generation;
	uint8_t vtoe_state; /* VNET_VTOE_* */
	uint32_t vtoe_epoch;
	/* lengths of encapsulation that trains of older generations may have */
	uint32_t encap_types; /* mask of 1 << VNET_ENCAP_* */
	/* by control queue */
	bool promisc;
	uint16_t active_pairs; /* reserved ones included */
	bool in_band; /* vnet_pv has said hello (hello.c) */
};

void shim_device_init(struct shim *shim);
/* What is offered now; a segmented link takes away what the host would have to
 * do for a stock driver. */
uint64_t shim_device_offer(const struct shim *shim);
/* The driver's choice: 0, or -EINVAL if it is not a part of the offer. */
int shim_device_accept(struct shim *shim, uint64_t features);
/* Forgets the driver. */
void shim_device_reset(struct shim *shim);
/* All queues, the offload and the features as if there had never been one. */
void shim_device_reset_all(struct shim *shim);

static inline bool shim_device_has(const struct shim_device *dev,
				   unsigned int bit)
{
	return dev->features & VNET_BIT_MASK(bit);
}

/* The driver encapsulates (vnet_pv), not the host (stock virtio_net). */
static inline bool shim_device_paravirt(const struct shim_device *dev)
{
	return dev->in_band || shim_device_has(dev, VNET_F_PARAVIRT_BIT);
}

/* A frame may take several rx buffers. */
static inline bool shim_device_mergeable(const struct shim_device *dev)
{
	return shim_device_paravirt(dev) ||
	       shim_device_has(dev, VIRTIO_NET_F_MRG_RXBUF);
}

/* Pairs that carry frames: of the device, and those of them in use. */
unsigned int shim_device_pairs(const struct shim *shim);
unsigned int shim_device_active_pairs(const struct shim *shim);

void shim_device_block(const struct shim *shim, struct vnet_vendor_block *b);
/* The whole config space as it is now. */
void shim_device_config(const struct shim *shim,
			uint8_t config[SHIM_CONFIG_SPACE]);
/* Something in the vendor block has changed: new generation, and the guest is
 * told. */
void shim_device_changed(struct shim *shim);
/* Setter of the VTOE state; attached: by a new attachment of an agent. */
void shim_device_set_vtoe(struct shim *shim, uint8_t state, bool new_epoch);

#endif /* SHIM_DEVICE_H */
