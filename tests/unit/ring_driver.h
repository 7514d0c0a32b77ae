/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Driver side of a split virtqueue (virtio 1.2 section 2.7) in user space, for
 * tests that play the guest. Uses nothing of host/common, so that what it checks
 * is checked by a second reading of the specification.
 *
 * The caller lays out "guest memory" with ring_memory, gives the same memfd to
 * the device side, and talks in guest physical addresses (gpa). The raw rings are
 * public: a test that wants to be hostile writes to them.
 */
#ifndef RING_DRIVER_H
#define RING_DRIVER_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

/* A memfd that stands for one region of guest memory. */
struct ring_memory {
	int fd; /* dup() it for whoever takes ownership */
	uint8_t *map;
	uint64_t gpa, size;
	uint64_t used; /* handed out by ring_memory_alloc() */
};

/*
 * 0 or -errno. size: a multiple of the page size. On hugepages if GUEST_HUGEPAGES
 * is in the environment.
 */
int ring_memory_create(struct ring_memory *memory, uint64_t gpa, uint64_t size);
void ring_memory_destroy(struct ring_memory *memory);
/* A zeroed piece, never given back; its gpa. Aborts when there is no more. */
uint64_t ring_memory_alloc(struct ring_memory *memory, uint64_t size,
			   uint64_t align);
void *ring_memory_at(const struct ring_memory *memory, uint64_t gpa);

/* One piece of a buffer. */
struct ring_piece {
	uint64_t gpa;
	uint32_t len;
};

struct ring_driver {
	struct ring_memory *memory; /* not owned */
	uint16_t num;
	bool event_idx;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	int kick_fd, call_fd; /* eventfds, owned; dup() them for the device */
	uint16_t free_head, free_count;
	uint16_t avail_idx; /* added up to here; the device sees it after a publish */
	uint16_t published;
	uint16_t kicked; /* available index at the last doorbell decision */
	uint16_t last_used;
	void *cookie[32768]; /* of each head in flight; NULL: none */
	uint64_t kicks, kicks_suppressed;
};

/* Lays the rings out in memory. 0 or -errno. */
int ring_driver_create(struct ring_driver *driver, struct ring_memory *memory,
		       uint16_t num, bool event_idx);
void ring_driver_destroy(struct ring_driver *driver);

/*
 * Adds one buffer: out pieces the device reads, then in pieces it writes.
 * cookie: not NULL, given back with the used element. table: 0, or the gpa of
 * room for out + in descriptors: then the buffer is an indirect one. The head,
 * or -ENOSPC.
 */
int ring_driver_add(struct ring_driver *driver, const struct ring_piece *pieces,
		    unsigned int out, unsigned int in, void *cookie,
		    uint64_t table);
/* Makes one head available that the caller made up. Not visible before publish. */
void ring_driver_offer(struct ring_driver *driver, uint16_t head);
/* Shows the device what was added. */
void ring_driver_publish(struct ring_driver *driver);
/* The same, then rings the doorbell if the device wants it: true if it did. */
bool ring_driver_kick(struct ring_driver *driver);

/*
 * The next used buffer's cookie, NULL if there is none. Aborts on an element
 * that no device may write: a head that is not in flight.
 */
void *ring_driver_get_used(struct ring_driver *driver, uint32_t *len);
/* Interrupts: enable returns true if something was used meanwhile. */
void ring_driver_disable_calls(struct ring_driver *driver);
bool ring_driver_enable_calls(struct ring_driver *driver);
/* How many interrupts came since the last time. */
uint64_t ring_driver_ack_call(struct ring_driver *driver);

#endif /* RING_DRIVER_H */
