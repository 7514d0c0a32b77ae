/* SPDX-License-Identifier: GPL-2.0-only */
/* What guest/vnet_pv.ko/encap.c needs of the kernel, for user space. */
#ifndef ENCAP_USER_H
#define ENCAP_USER_H

#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;

#define le16_to_cpu le16toh
#define le32_to_cpu le32toh
#define cpu_to_le16 htole16
#define cpu_to_le32 htole32
#define be32_to_cpu be32toh
#define cpu_to_be32 htobe32

#endif /* ENCAP_USER_H */
