// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Mapping of guest memory, and the checked accessor; see the threat model in
 * guest_mem.h.
 *
 * Who gives us the descriptors (the front end, for the agent the shim) can
 * shorten the file behind a mapping at any time; the access then ends this
 * process with SIGBUS. That is why one process serves one VM (shim) or one
 * tenant (agent) and no more.
 */
#include <errno.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "guest_mem.h"

void guest_mem_init(struct guest_mem *mem)
{
	memset(mem, 0, sizeof(*mem));
}

static void release_region(struct guest_region *r)
{
	munmap(r->map, r->map_size);
	close(r->fd);
}

void guest_mem_clear(struct guest_mem *mem)
{
	unsigned int i;

	for (i = 0; i < mem->count; i++)
		release_region(&mem->region[i]);
	guest_mem_init(mem);
}

static int check_region(const struct guest_mem *mem, uint64_t gpa, uint64_t size,
			uint64_t mmap_offset)
{
	unsigned int i;

	if (!size || size > UINT64_MAX - gpa || size > INT64_MAX ||
	    mmap_offset > INT64_MAX - size)
		return -EINVAL;
	for (i = 0; i < mem->count; i++) {
		const struct guest_region *r = &mem->region[i];

		if (gpa < r->gpa + r->size && r->gpa < gpa + size)
			return -EINVAL;
	}
	return mem->count == GUEST_MEM_REGIONS_MAX ? -ENOSPC : 0;
}

/* Huge page files are mapped, and unmapped, in whole pages of theirs. */
static int map_granule(int fd, uint64_t *granule)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) < 0)
		return -errno;
	*granule = sysconf(_SC_PAGESIZE);
	if (fs.f_type == HUGETLBFS_MAGIC && fs.f_bsize > 0)
		*granule = fs.f_bsize;
	return 0;
}

static int map_region(struct guest_region *r)
{
	uint64_t granule = 0, start, delta;
	struct stat st;
	int ret;

	if (fstat(r->fd, &st) < 0)
		return -errno;
	/* Access behind the end would be a SIGBUS. Devices (DAX) have no size. */
	if (S_ISREG(st.st_mode) &&
	    (uint64_t)st.st_size < r->mmap_offset + r->size)
		return -EINVAL;
	ret = map_granule(r->fd, &granule);
	if (ret < 0)
		return ret;
	start = r->mmap_offset / granule * granule;
	delta = r->mmap_offset - start;
	if (r->size + delta > SIZE_MAX - granule)
		return -EINVAL;
	r->map_size = (r->size + delta + granule - 1) / granule * granule;
	r->map = mmap(NULL, r->map_size, PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_NORESERVE, r->fd, start);
	if (r->map == MAP_FAILED)
		return -errno;
	/* A tenant's memory has no place in our core dumps. Advice only. */
	madvise(r->map, r->map_size, MADV_DONTDUMP);
	r->host = (uint8_t *)r->map + delta;
	return 0;
}

int guest_mem_add(struct guest_mem *mem, uint64_t gpa, uint64_t size,
		  uint64_t user_addr, uint64_t mmap_offset, int fd)
{
	struct guest_region r = {
		.gpa = gpa,
		.size = size,
		.user_addr = user_addr,
		.mmap_offset = mmap_offset,
		.fd = fd,
	};
	int ret;

	ret = check_region(mem, gpa, size, mmap_offset);
	if (!ret)
		ret = map_region(&r);
	if (ret < 0) {
		close(fd);
		return ret;
	}
	mem->region[mem->count++] = r;
	return 0;
}

int guest_mem_remove(struct guest_mem *mem, uint64_t gpa, uint64_t size)
{
	unsigned int i;

	for (i = 0; i < mem->count; i++) {
		struct guest_region *r = &mem->region[i];

		if (r->gpa != gpa || r->size != size)
			continue;
		release_region(r);
		*r = mem->region[--mem->count];
		return 0;
	}
	return -ENOENT;
}

void *guest_mem_at(const struct guest_mem *mem, uint64_t gpa, uint64_t len)
{
	unsigned int i;

	if (!len)
		return NULL;
	for (i = 0; i < mem->count; i++) {
		const struct guest_region *r = &mem->region[i];
		uint64_t offset = gpa - r->gpa; /* huge if gpa is below */

		if (offset < r->size)
			return len <= r->size - offset ? r->host + offset : NULL;
	}
	return NULL;
}

uint64_t guest_mem_gpa(const struct guest_mem *mem, const void *at)
{
	unsigned int i;

	for (i = 0; i < mem->count; i++) {
		const struct guest_region *r = &mem->region[i];
		uint64_t offset = (uintptr_t)at - (uintptr_t)r->host;

		if (offset < r->size)
			return r->gpa + offset;
	}
	return UINT64_MAX;
}

uint64_t guest_mem_user_to_gpa(const struct guest_mem *mem, uint64_t user_addr,
			       uint64_t len)
{
	unsigned int i;

	for (i = 0; i < mem->count; i++) {
		const struct guest_region *r = &mem->region[i];
		uint64_t offset = user_addr - r->user_addr;

		if (len && r->user_addr && offset < r->size)
			return len <= r->size - offset ? r->gpa + offset :
							 UINT64_MAX;
	}
	return UINT64_MAX;
}
