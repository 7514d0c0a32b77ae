/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vhost-user protocol as far as it is spoken here: numbers and payloads of
 * QEMU's docs/interop/vhost-user.rst. Native byte order.
 */
#ifndef SHIM_VHOST_USER_PROTO_H
#define SHIM_VHOST_USER_PROTO_H

#include <stdint.h>

#define VU_VERSION 0x1
#define VU_FLAG_REPLY 0x4
#define VU_FLAG_NEED_REPLY 0x8

/* Among the device features. */
#define VU_F_LOG_ALL_BIT 26
#define VU_F_PROTOCOL_FEATURES_BIT 30

#define VU_PROTOCOL_F_MQ_BIT 0
#define VU_PROTOCOL_F_LOG_SHMFD_BIT 1
#define VU_PROTOCOL_F_REPLY_ACK_BIT 3
#define VU_PROTOCOL_F_BACKEND_REQ_BIT 5
#define VU_PROTOCOL_F_CONFIG_BIT 9
#define VU_PROTOCOL_F_RESET_DEVICE_BIT 13
#define VU_PROTOCOL_F_STATUS_BIT 16

enum vu_request {
	VU_GET_FEATURES = 1,
	VU_SET_FEATURES = 2,
	VU_SET_OWNER = 3,
	VU_RESET_OWNER = 4,
	VU_SET_MEM_TABLE = 5,
	VU_SET_LOG_BASE = 6,
	VU_SET_LOG_FD = 7,
	VU_SET_VRING_NUM = 8,
	VU_SET_VRING_ADDR = 9,
	VU_SET_VRING_BASE = 10,
	VU_GET_VRING_BASE = 11,
	VU_SET_VRING_KICK = 12,
	VU_SET_VRING_CALL = 13,
	VU_SET_VRING_ERR = 14,
	VU_GET_PROTOCOL_FEATURES = 15,
	VU_SET_PROTOCOL_FEATURES = 16,
	VU_GET_QUEUE_NUM = 17,
	VU_SET_VRING_ENABLE = 18,
	VU_SET_BACKEND_REQ_FD = 21,
	VU_GET_CONFIG = 24,
	VU_SET_CONFIG = 25,
	VU_RESET_DEVICE = 34,
	VU_SET_STATUS = 39,
	VU_GET_STATUS = 40,
};

/* From the back end. */
#define VU_BACKEND_CONFIG_CHANGE_MSG 2

/* In the value of SET_VRING_KICK, _CALL, _ERR. */
#define VU_VRING_INDEX_MASK 0xffull
#define VU_VRING_NOFD_MASK 0x100ull

struct vu_vring_state {
	uint32_t index, num;
};

struct vu_log {
	uint64_t mmap_size, mmap_offset;
};

/* In vu_vring_addr.flags. */
#define VU_VRING_F_LOG 0x1

struct vu_vring_addr {
	uint32_t index, flags;
	uint64_t desc, used, avail; /* front-end addresses */
	uint64_t log; /* the guest physical one of used, if that is logged */
};
_Static_assert(sizeof(struct vu_vring_addr) == 40, "no holes");

struct vu_mem_region {
	uint64_t gpa, size, user_addr, mmap_offset;
};

#define VU_MEM_REGIONS_MAX 8
struct vu_mem_table {
	uint32_t count, padding;
	struct vu_mem_region region[VU_MEM_REGIONS_MAX];
};
_Static_assert(sizeof(struct vu_mem_table) == 8 + 32 * VU_MEM_REGIONS_MAX,
	       "no holes");

struct vu_config {
	uint32_t offset, size, flags;
	/* size bytes follow */
};

#endif /* SHIM_VHOST_USER_PROTO_H */
