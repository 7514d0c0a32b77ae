/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A driver of a modern virtio-pci network device (virtio 1.2 sections 4.1 and 5.1)
 * with one pair of split queues (2.7): the rings and what the device wants to be
 * told, not what is in the frames. What does not fit ends the payload.
 */
#ifndef KVM_VIRTIO_H
#define KVM_VIRTIO_H

#include <linux/virtio_net.h>
#include <linux/virtio_ring.h>

#include "hw.h"
#include "vnet_dev.h"

#define RING_MAX 256

struct queue {
	uint16_t index, num;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	volatile uint16_t *doorbell;
	bool event_idx;
	uint16_t avail_idx; /* what the device sees is avail->idx */
	uint16_t told;	    /* avail_idx at the last decision about the doorbell */
	uint16_t used_idx;  /* next used entry to take */
	uint32_t kicks;	    /* doorbells rung, of all sessions */
};

struct device {
	uint64_t offered, features;
	uint8_t mac[VNET_MAC_LEN];
	uint16_t mtu; /* 0: it does not say */
	struct vnet_vendor_block vendor; /* if VNET_F_PARAVIRT_BIT is offered */
	struct queue rx, tx;
};

/* Finds the device, switches MSI-X on, reads what there is to be read. */
void device_find(struct device *dev);
/* Resets it, negotiates of the wanted features those that are offered, and sets
 * the queues up; ready for device_go() when rx buffers have been posted. */
void device_reset(struct device *dev, uint64_t wanted);
void device_go(struct device *dev);
/* Reads a register: all doorbells rung have arrived, for a read does not pass
 * posted writes. Costs one exit to user space, whatever the device. */
void device_flush(void);

static inline bool device_has(const struct device *dev, unsigned int bit)
{
	return dev->features & VNET_BIT_MASK(bit);
}

/* Makes the chain that begins at a descriptor available. */
void queue_post(struct queue *q, uint16_t head);
/* Rings the doorbell for all that was posted, if the device wants it. */
void queue_kick(struct queue *q);
/* Takes a used entry; false: there is none. */
bool queue_take(struct queue *q, uint16_t *head, uint32_t *len);
/*
 * To be called before sleeping: asks for an interrupt when `count` more entries
 * have been used. True: there are some already, do not sleep. Without EVENT_IDX
 * every entry interrupts, and the answer is false.
 */
bool queue_arm(struct queue *q, uint16_t count);

#endif /* KVM_VIRTIO_H */
