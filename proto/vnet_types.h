/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * Base of every ABI and wire header in proto/: fixed-width, endian-typed
 * fields for kernel and user space, C and C++, 32 and 64 bit.
 *
 * Rules for the structs here: no bitfields, enums, pointers or bool; reserved
 * fields are zero when written and checked when read; the size and the offsets
 * that matter are asserted beside the struct. __le fields are used between a
 * guest and its host, __be fields on networks that other people's tools read.
 */
#ifndef VNET_TYPES_H
#define VNET_TYPES_H

#include <linux/types.h>

#ifdef __KERNEL__
#include <linux/build_bug.h>
#include <linux/stddef.h>
#define VNET_STATIC_ASSERT(cond) static_assert(cond)
#else
#include <stddef.h>
#ifdef __cplusplus
#define VNET_STATIC_ASSERT(cond) static_assert(cond, #cond)
#else
#define VNET_STATIC_ASSERT(cond) _Static_assert(cond, #cond)
#endif
#endif

#define VNET_ASSERT_SIZE(type, bytes) \
	VNET_STATIC_ASSERT(sizeof(struct type) == (bytes))
#define VNET_ASSERT_OFFSET(type, member, bytes) \
	VNET_STATIC_ASSERT(offsetof(struct type, member) == (bytes))

#define VNET_MAC_LEN 6

/*
 * Feature bit *numbers* are named VNET_..._BIT, *masks* VNET_..._MASK; they
 * meet only here.
 */
#define VNET_BIT_MASK(bit) (1ULL << (bit))

#endif /* VNET_TYPES_H */
