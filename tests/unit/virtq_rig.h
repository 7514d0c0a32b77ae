/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the virtqueue tests share: guest memory of two regions that meet (so that
 * a range can cross from one into the other), a driver in the first, and a
 * device side on both.
 */
#ifndef VIRTQ_RIG_H
#define VIRTQ_RIG_H

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "guest_mem.h"
#include "ring_driver.h"
#include "tap.h"
#include "virtq.h"

#define RIG_GPA 0x100000ull
#define RIG_SIZE (32ull << 20) /* sparse */
#define RIG_GPA2 (RIG_GPA + RIG_SIZE)
#define RIG_SIZE2 0x10000ull

struct rig {
	struct ring_memory memory, memory2;
	struct ring_driver driver;
	struct guest_mem mem;
	struct virtq vq;
	struct virtq_chain chain;
};

/* Everything but virtq_start(). */
static inline void rig_prepare(struct rig *rig, uint16_t num, bool event_idx)
{
	guest_mem_init(&rig->mem);
	virtq_init(&rig->vq);
	if (ring_memory_create(&rig->memory, RIG_GPA, RIG_SIZE) ||
	    ring_memory_create(&rig->memory2, RIG_GPA2, RIG_SIZE2) ||
	    ring_driver_create(&rig->driver, &rig->memory, num, event_idx) ||
	    guest_mem_add(&rig->mem, RIG_GPA, RIG_SIZE, 0, 0,
			  dup(rig->memory.fd)) ||
	    guest_mem_add(&rig->mem, RIG_GPA2, RIG_SIZE2, 0, 0,
			  dup(rig->memory2.fd)))
		bail_out("cannot set up guest memory");
	virtq_set_kick(&rig->vq, dup(rig->driver.kick_fd));
	virtq_set_call(&rig->vq, dup(rig->driver.call_fd));
}

static inline int rig_start(struct rig *rig, uint16_t last_avail, bool indirect,
			    struct vnet_inflight *record)
{
	return virtq_start(&rig->vq, &rig->mem, rig->driver.num,
			   rig->driver.desc_gpa, rig->driver.avail_gpa,
			   rig->driver.used_gpa, last_avail,
			   rig->driver.event_idx, indirect, record);
}

static inline void rig_up(struct rig *rig, uint16_t num, bool event_idx,
			  bool indirect)
{
	rig_prepare(rig, num, event_idx);
	if (rig_start(rig, 0, indirect, NULL))
		bail_out("cannot start a queue");
}

static inline void rig_down(struct rig *rig)
{
	virtq_stop(&rig->vq);
	guest_mem_clear(&rig->mem);
	ring_driver_destroy(&rig->driver);
	ring_memory_destroy(&rig->memory);
	ring_memory_destroy(&rig->memory2);
}

/* A piece of fresh guest memory. */
static inline struct ring_piece rig_piece(struct rig *rig, uint32_t len)
{
	return (struct ring_piece){ ring_memory_alloc(&rig->memory, len, 1),
				    len };
}

static inline int rig_pop(struct rig *rig)
{
	return virtq_pop(&rig->vq, &rig->chain);
}

#endif /* VIRTQ_RIG_H */
