// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's memory over vfio-user: windows of guest physical addresses that
 * come and go one by one.
 *
 * A window with a descriptor that may be read and written is mapped, and the
 * agent is told with the whole table. One without (a ROM, another device's BAR,
 * memory that is not shared) is only remembered, so that its end is no error; a
 * ring or buffer in it is outside the guest's memory. Firmware maps and unmaps
 * the area below 1 MB several times while it starts.
 *
 * A window is given back only when nobody uses it: queues are stopped, the
 * agent's too, before it is unmapped, and go on behind it. A queue whose ring
 * was in it waits, in case the ring comes back with the next window.
 *
 * There is room for GUEST_MEM_REGIONS_MAX windows, as many as the agent is told
 * of in one message. QEMU uses 3 for a small machine, 4 with memory above 4 GB,
 * one more for each further memory device, and up to 2 more while firmware
 * runs. One too many is answered with ENOSPC and counted; QEMU prints that and
 * goes on, so for us that memory is outside the guest.
 *
 * Threat model: any numbers, any descriptor. guest_mem_add() checks them; both
 * tables are bounded.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/vfio.h>
#include <string.h>

#include "log.h"
#include "shim.h"

#define READ_WRITE (VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE)

static bool meets(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
	return a < b + b_size && b < a + a_size;
}

static bool occupied(const struct shim *shim, uint64_t gpa, uint64_t size)
{
	const struct shim_vfio *v = &shim->vfio;
	unsigned int i;

	for (i = 0; i < shim->mem.count; i++)
		if (meets(gpa, size, shim->mem.region[i].gpa,
			  shim->mem.region[i].size))
			return true;
	for (i = 0; i < v->blind_count; i++)
		if (meets(gpa, size, v->blind[i].gpa, v->blind[i].size))
			return true;
	return false;
}

static int refuse(const struct shim *shim, const struct vfu_dma_map *m, int error)
{
	log_warn("vm %s: front end: memory at %#" PRIx64 ", %#" PRIx64 " bytes: %s",
		 shim->conf->vm, m->address, m->size, strerror(error));
	return error;
}

static int too_many(struct shim *shim, const struct vfu_dma_map *m, unsigned int most)
{
	shim->stats.front_memory_refused++;
	log_warn("vm %s: front end: no room for memory at %#" PRIx64 ", %#" PRIx64 " bytes: the most is %u regions; a ring or buffer there breaks its queue",
		 shim->conf->vm, m->address, m->size, most);
	return ENOSPC;
}

static int remember(struct shim *shim, const struct vfu_dma_map *m)
{
	struct shim_vfio *v = &shim->vfio;

	if (v->blind_count == SHIM_VFIO_BLIND_MAX)
		return too_many(shim, m, SHIM_VFIO_BLIND_MAX);
	v->blind[v->blind_count].gpa = m->address;
	v->blind[v->blind_count].size = m->size;
	v->blind_count++;
	return 0;
}

int shim_vfio_dma_map(struct shim *shim)
{
	struct vfu_dma_map m;
	int ret;

	memcpy(&m, shim->vfio.msg.payload, sizeof(m));
	if ((m.flags & ~READ_WRITE) || !m.size || m.size > UINT64_MAX - m.address)
		return EINVAL;
	if (occupied(shim, m.address, m.size))
		return refuse(shim, &m, EEXIST);
	log_debug("vm %s: window %#" PRIx64 ", %#" PRIx64 " bytes%s", shim->conf->vm,
		  m.address, m.size, shim->front.nfds ? "" : ", no descriptor");
	if (!shim->front.nfds || (m.flags & READ_WRITE) != READ_WRITE)
		return remember(shim, &m);
	if (shim->mem.count == GUEST_MEM_REGIONS_MAX)
		return too_many(shim, &m, GUEST_MEM_REGIONS_MAX);
	shim_queues_pause(shim);
	ret = guest_mem_add(&shim->mem, m.address, m.size, 0, m.offset,
			    shim_front_take_fd(&shim->front, 0));
	shim_queues_resume(shim);
	return ret < 0 ? refuse(shim, &m, -ret) : 0;
}

static bool forget(struct shim_vfio *v, uint64_t gpa, uint64_t size)
{
	unsigned int i;

	for (i = 0; i < v->blind_count; i++) {
		if (v->blind[i].gpa != gpa || v->blind[i].size != size)
			continue;
		v->blind[i] = v->blind[--v->blind_count];
		return true;
	}
	return false;
}

static bool is_mapped(const struct guest_mem *mem, uint64_t gpa, uint64_t size)
{
	unsigned int i;

	for (i = 0; i < mem->count; i++)
		if (mem->region[i].gpa == gpa && mem->region[i].size == size)
			return true;
	return false;
}

int shim_vfio_dma_unmap(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	struct vfu_dma_unmap u;

	memcpy(&u, v->msg.payload, sizeof(u));
	v->reply_len = sizeof(u);
	if (u.flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP)
		return ENOTSUP;
	if (u.flags & ~VFIO_DMA_UNMAP_FLAG_ALL)
		return EINVAL;
	if (u.flags & VFIO_DMA_UNMAP_FLAG_ALL) {
		shim_queues_pause(shim);
		guest_mem_clear(&shim->mem);
		v->blind_count = 0;
		return 0;
	}
	if (forget(v, u.address, u.size))
		return 0;
	if (!is_mapped(&shim->mem, u.address, u.size))
		return ENOENT;
	log_debug("vm %s: no window %#" PRIx64 " any more", shim->conf->vm, u.address);
	shim_queues_pause(shim);
	guest_mem_remove(&shim->mem, u.address, u.size);
	shim_queues_resume(shim);
	return 0;
}
