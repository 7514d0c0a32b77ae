// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Driver side of a split virtqueue; see ring_driver.h. Free descriptors are
 * chained through next, as Linux' virtio_ring.c does; the barriers are those of
 * virtio 1.2 section 2.7.13.
 */
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ring_driver.h"

static void die(const char *why)
{
	fprintf(stderr, "ring_driver: %s\n", why);
	abort();
}

static uint16_t load16(const __virtio16 *field, int order)
{
	return le16toh(__atomic_load_n(field, order));
}

static void store16(__virtio16 *field, uint16_t value, int order)
{
	__atomic_store_n(field, htole16(value), order);
}

/* ---- memory ---- */

int ring_memory_create(struct ring_memory *memory, uint64_t gpa, uint64_t size)
{
	int ret;

	memset(memory, 0, sizeof(*memory));
	memory->gpa = gpa;
	memory->size = size;
	memory->fd = memfd_create("guest", getenv("GUEST_HUGEPAGES") ?
						   MFD_CLOEXEC | MFD_HUGETLB :
						   MFD_CLOEXEC);
	if (memory->fd < 0)
		return -errno;
	if (ftruncate(memory->fd, size) < 0)
		goto failed;
	memory->map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
			   memory->fd, 0);
	if (memory->map == MAP_FAILED)
		goto failed;
	return 0;

failed:
	ret = -errno;
	close(memory->fd);
	return ret;
}

void ring_memory_destroy(struct ring_memory *memory)
{
	munmap(memory->map, memory->size);
	close(memory->fd);
}

uint64_t ring_memory_alloc(struct ring_memory *memory, uint64_t size,
			   uint64_t align)
{
	uint64_t start = (memory->used + align - 1) / align * align;

	if (start > memory->size || size > memory->size - start)
		die("out of guest memory");
	memory->used = start + size;
	return memory->gpa + start;
}

void *ring_memory_at(const struct ring_memory *memory, uint64_t gpa)
{
	if (gpa < memory->gpa || gpa - memory->gpa >= memory->size)
		die("no such guest address");
	return memory->map + (gpa - memory->gpa);
}

/* ---- the ring ---- */

int ring_driver_create(struct ring_driver *driver, struct ring_memory *memory,
		       uint16_t num, bool event_idx)
{
	unsigned int i;

	memset(driver, 0, sizeof(*driver));
	driver->memory = memory;
	driver->num = num;
	driver->event_idx = event_idx;
	driver->desc_gpa = ring_memory_alloc(
		memory, sizeof(struct vring_desc) * num, VRING_DESC_ALIGN_SIZE);
	driver->avail_gpa = ring_memory_alloc(
		memory, sizeof(struct vring_avail) + 2 * num + 2,
		VRING_AVAIL_ALIGN_SIZE);
	driver->used_gpa = ring_memory_alloc(
		memory,
		sizeof(struct vring_used) +
			sizeof(struct vring_used_elem) * num + 2,
		VRING_USED_ALIGN_SIZE);
	driver->desc = ring_memory_at(memory, driver->desc_gpa);
	driver->avail = ring_memory_at(memory, driver->avail_gpa);
	driver->used = ring_memory_at(memory, driver->used_gpa);
	for (i = 0; i < num; i++)
		driver->desc[i].next = htole16(i + 1);
	driver->free_count = num;
	driver->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	driver->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (driver->kick_fd < 0 || driver->call_fd < 0) {
		int ret = -errno;

		ring_driver_destroy(driver);
		return ret;
	}
	return 0;
}

void ring_driver_destroy(struct ring_driver *driver)
{
	if (driver->kick_fd >= 0)
		close(driver->kick_fd);
	if (driver->call_fd >= 0)
		close(driver->call_fd);
}

static void set_desc(struct vring_desc *desc, const struct ring_piece *piece,
		     uint16_t flags, uint16_t next)
{
	desc->addr = htole64(piece->gpa);
	desc->len = htole32(piece->len);
	desc->flags = htole16(flags);
	desc->next = htole16(next);
}

static uint16_t piece_flags(unsigned int i, unsigned int out, unsigned int count)
{
	return (i >= out ? VRING_DESC_F_WRITE : 0) |
	       (i + 1 < count ? VRING_DESC_F_NEXT : 0);
}

/* An indirect table may stand at any address. */
static void write_table(uint8_t *table, const struct ring_piece *pieces,
			unsigned int out, unsigned int count)
{
	struct vring_desc desc;
	unsigned int i;

	for (i = 0; i < count; i++) {
		set_desc(&desc, &pieces[i], piece_flags(i, out, count), i + 1);
		memcpy(table + i * sizeof(desc), &desc, sizeof(desc));
	}
}

int ring_driver_add(struct ring_driver *driver, const struct ring_piece *pieces,
		    unsigned int out, unsigned int in, void *cookie,
		    uint64_t table)
{
	unsigned int i, count = out + in, need = table ? 1 : count;
	uint16_t head = driver->free_head, at = head;

	if (!cookie || !count)
		die("a buffer needs a cookie and a piece");
	if (driver->free_count < need)
		return -ENOSPC;
	if (table) {
		struct ring_piece piece = {
			table, count * sizeof(struct vring_desc)
		};
		uint16_t next = le16toh(driver->desc[at].next);

		write_table(ring_memory_at(driver->memory, table), pieces, out,
			    count);
		set_desc(&driver->desc[at], &piece, VRING_DESC_F_INDIRECT, next);
		at = next;
	} else {
		for (i = 0; i < count; i++) {
			uint16_t next = le16toh(driver->desc[at].next);

			set_desc(&driver->desc[at], &pieces[i],
				 piece_flags(i, out, count), next);
			at = next;
		}
	}
	driver->free_head = at;
	driver->free_count -= need;
	driver->cookie[head] = cookie;
	ring_driver_offer(driver, head);
	return head;
}

void ring_driver_offer(struct ring_driver *driver, uint16_t head)
{
	store16(&driver->avail->ring[driver->avail_idx % driver->num], head,
		__ATOMIC_RELAXED);
	driver->avail_idx++;
}

void ring_driver_publish(struct ring_driver *driver)
{
	store16(&driver->avail->idx, driver->avail_idx, __ATOMIC_RELEASE);
	driver->published = driver->avail_idx;
}

bool ring_driver_kick(struct ring_driver *driver)
{
	uint16_t old = driver->kicked;
	uint64_t one = 1;
	bool wanted;

	ring_driver_publish(driver);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	driver->kicked = driver->published;
	if (old == driver->kicked)
		return false;
	if (driver->event_idx) {
		__virtio16 *avail_event =
			(__virtio16 *)&driver->used->ring[driver->num];

		wanted = vring_need_event(load16(avail_event, __ATOMIC_RELAXED),
					  driver->kicked, old);
	} else {
		wanted = !(load16(&driver->used->flags, __ATOMIC_RELAXED) &
			   VRING_USED_F_NO_NOTIFY);
	}
	if (!wanted) {
		driver->kicks_suppressed++;
		return false;
	}
	driver->kicks++;
	if (write(driver->kick_fd, &one, sizeof(one)) < 0)
		die("cannot kick");
	return true;
}

/* Puts the direct descriptors of a chain back on the free list. */
static void free_chain(struct ring_driver *driver, uint16_t head)
{
	uint16_t at = head;

	driver->free_count++;
	while (le16toh(driver->desc[at].flags) & VRING_DESC_F_NEXT) {
		at = le16toh(driver->desc[at].next);
		driver->free_count++;
	}
	driver->desc[at].next = htole16(driver->free_head);
	driver->free_head = head;
}

void *ring_driver_get_used(struct ring_driver *driver, uint32_t *len)
{
	struct vring_used_elem *elem;
	uint32_t head;
	void *cookie;

	if (load16(&driver->used->idx, __ATOMIC_ACQUIRE) == driver->last_used)
		return NULL;
	elem = &driver->used->ring[driver->last_used % driver->num];
	head = le32toh(elem->id);
	if (len)
		*len = le32toh(elem->len);
	if (head >= driver->num || !driver->cookie[head])
		die("used element with a head that is not in flight");
	driver->last_used++;
	cookie = driver->cookie[head];
	driver->cookie[head] = NULL;
	free_chain(driver, head);
	return cookie;
}

static void set_used_event(struct ring_driver *driver, uint16_t value)
{
	store16(&driver->avail->ring[driver->num], value, __ATOMIC_RELAXED);
}

void ring_driver_disable_calls(struct ring_driver *driver)
{
	if (driver->event_idx) /* far away, as Linux does */
		set_used_event(driver, driver->last_used - 1);
	else
		store16(&driver->avail->flags, VRING_AVAIL_F_NO_INTERRUPT,
			__ATOMIC_RELAXED);
}

bool ring_driver_enable_calls(struct ring_driver *driver)
{
	if (driver->event_idx)
		set_used_event(driver, driver->last_used);
	else
		store16(&driver->avail->flags, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return load16(&driver->used->idx, __ATOMIC_ACQUIRE) !=
	       driver->last_used;
}

uint64_t ring_driver_ack_call(struct ring_driver *driver)
{
	uint64_t count;

	if (read(driver->call_fd, &count, sizeof(count)) != sizeof(count))
		return 0;
	return count;
}
