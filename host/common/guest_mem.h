/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A guest's memory as this process maps it: the one checked way from a guest
 * physical address to a pointer.
 *
 * Threat model: the guest chooses every address and length, and writes to the
 * memory while we look. A pointer from here is only good for the length asked
 * for, inside one region; what is read through it may change between two reads.
 */
#ifndef COMMON_GUEST_MEM_H
#define COMMON_GUEST_MEM_H

#include <stdint.h>
#include <stddef.h>

#define GUEST_MEM_REGIONS_MAX 8

struct guest_region {
	uint64_t gpa;	      /* guest physical address */
	uint64_t size;	      /* bytes */
	uint64_t user_addr;   /* the front end's address (vhost-user rings), else 0 */
	uint64_t mmap_offset; /* of the region in its fd */
	int fd;		      /* owned */
	void *map;	      /* of the page-aligned mapping, owned */
	uint64_t map_size;
	uint8_t *host;	      /* where gpa is mapped here */
};

struct guest_mem {
	unsigned int count;
	struct guest_region region[GUEST_MEM_REGIONS_MAX];
};

void guest_mem_init(struct guest_mem *mem);
/* Unmaps all and closes the fds. */
void guest_mem_clear(struct guest_mem *mem);
/*
 * Maps one more region; takes fd whatever the result. -EINVAL: zero or
 * overflowing size, overlap with another region in gpa, file too short;
 * -ENOSPC: no slot; -errno of mmap.
 */
int guest_mem_add(struct guest_mem *mem, uint64_t gpa, uint64_t size,
		  uint64_t user_addr, uint64_t mmap_offset, int fd);
/* Unmaps the region that is exactly this, and closes its fd. 0 or -ENOENT. */
int guest_mem_remove(struct guest_mem *mem, uint64_t gpa, uint64_t size);
/* NULL unless [gpa, gpa + len) lies within one region. len 0 is NULL. */
void *guest_mem_at(const struct guest_mem *mem, uint64_t gpa, uint64_t len);
/* The way back: where a pointer that came from guest_mem_at() is; UINT64_MAX:
 * from nowhere in it. */
uint64_t guest_mem_gpa(const struct guest_mem *mem, const void *at);
/* Front-end address to guest physical; UINT64_MAX if in no region. */
uint64_t guest_mem_user_to_gpa(const struct guest_mem *mem, uint64_t user_addr,
			       uint64_t len);

#endif /* COMMON_GUEST_MEM_H */
