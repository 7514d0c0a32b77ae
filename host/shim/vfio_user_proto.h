/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vfio-user protocol as far as it is spoken here: numbers and payloads of
 * QEMU's docs/interop/vfio-user.rst. Native byte order. What it takes from the
 * kernel's VFIO (indices, flags) stands in <linux/vfio.h>.
 */
#ifndef SHIM_VFIO_USER_PROTO_H
#define SHIM_VFIO_USER_PROTO_H

#include <stdint.h>

#define VFU_MAJOR 0
#define VFU_MINOR 1

enum vfu_command {
	VFU_VERSION = 1,
	VFU_DMA_MAP = 2,
	VFU_DMA_UNMAP = 3,
	VFU_DEVICE_GET_INFO = 4,
	VFU_DEVICE_GET_REGION_INFO = 5,
	VFU_DEVICE_GET_REGION_IO_FDS = 6,
	VFU_DEVICE_GET_IRQ_INFO = 7,
	VFU_DEVICE_SET_IRQS = 8,
	VFU_REGION_READ = 9,
	VFU_REGION_WRITE = 10,
	VFU_DMA_READ = 11, /* from server to client, as the next: not used */
	VFU_DMA_WRITE = 12,
	VFU_DEVICE_RESET = 13,
	VFU_DIRTY_PAGES = 14, /* of older versions */
	VFU_REGION_WRITE_MULTI = 15,
	VFU_DEVICE_FEATURE = 16, /* migration, as the next two */
	VFU_MIG_DATA_READ = 17,
	VFU_MIG_DATA_WRITE = 18,
};

/* struct vfu_hdr.flags */
#define VFU_TYPE_MASK 0xfu
#define VFU_TYPE_COMMAND 0x0u
#define VFU_TYPE_REPLY 0x1u
#define VFU_NO_REPLY 0x10u
#define VFU_ERROR 0x20u

struct vfu_hdr {
	uint16_t id, command;
	uint32_t size; /* of the whole message */
	uint32_t flags;
	uint32_t error; /* errno, of a reply with VFU_ERROR */
};
_Static_assert(sizeof(struct vfu_hdr) == 16, "no holes");

struct vfu_version {
	uint16_t major, minor;
	/* JSON with a NUL at its end may follow */
};

struct vfu_dma_map {
	uint32_t argsz, flags; /* VFIO_DMA_MAP_FLAG_* */
	uint64_t offset, address, size;
};
_Static_assert(sizeof(struct vfu_dma_map) == 32, "no holes");

struct vfu_dma_unmap {
	uint32_t argsz, flags; /* VFIO_DMA_UNMAP_FLAG_* */
	uint64_t address, size;
};
_Static_assert(sizeof(struct vfu_dma_unmap) == 24, "no holes");

struct vfu_device_info {
	uint32_t argsz, flags, num_regions, num_irqs;
};
_Static_assert(sizeof(struct vfu_device_info) == 16, "no holes");

struct vfu_region_info {
	uint32_t argsz, flags, index, cap_offset;
	uint64_t size, offset;
};
_Static_assert(sizeof(struct vfu_region_info) == 32, "no holes");

struct vfu_region_io_fds {
	uint32_t argsz, flags, index, count;
	/* in a reply: count of struct vfu_ioeventfd */
};
_Static_assert(sizeof(struct vfu_region_io_fds) == 16, "no holes");

#define VFU_IO_FD_TYPE_IOEVENTFD 0

struct vfu_ioeventfd {
	uint64_t offset, size; /* in the region */
	uint32_t fd_index, type, flags, padding;
	uint64_t datamatch;
};
_Static_assert(sizeof(struct vfu_ioeventfd) == 40, "no holes");

struct vfu_irq_info {
	uint32_t argsz, flags, index, count;
};
_Static_assert(sizeof(struct vfu_irq_info) == 16, "no holes");

struct vfu_irq_set {
	uint32_t argsz, flags, index, start, count;
	/* count bytes with VFIO_IRQ_SET_DATA_BOOL */
};
_Static_assert(sizeof(struct vfu_irq_set) == 20, "no holes");

struct vfu_region_access {
	uint64_t offset;
	uint32_t region, count;
	/* count bytes: of a write, and of the reply to a read */
};
_Static_assert(sizeof(struct vfu_region_access) == 16, "no holes");

struct vfu_write_one {
	uint64_t offset;
	uint32_t region, count; /* at most 8 */
	uint8_t data[8];
};
_Static_assert(sizeof(struct vfu_write_one) == 24, "no holes");

#define VFU_WRITE_MULTI_MAX 200 /* as many as QEMU puts into one message */
struct vfu_write_multi {
	uint64_t count;
	/* count of struct vfu_write_one */
};

#endif /* SHIM_VFIO_USER_PROTO_H */
