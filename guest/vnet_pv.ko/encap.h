/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What vnet_pv understands of the bytes in front of a frame: vendor block,
 * train header, encapsulation header. Pure functions over memory, so that
 * tests/unit/encap_test.c compiles encap.c in user space.
 */
#ifndef VNPV_ENCAP_H
#define VNPV_ENCAP_H

#ifdef __KERNEL__
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/string.h>
#include <linux/types.h>
#else
#include "encap_user.h"
#endif

#include "vnet_dev.h"
#include "vnet_train.h"

#define VNPV_ETH_HLEN 14

/* A whole train with its header, and what the segmented form may fill. */
#define VNPV_TRAIN_LEN_MAX (VNET_FRAME_MAX + VNET_ENCAP_LEN_MAX)

/*
 * A segmented train becomes one UDP send with segmentation offload: at most
 * 64 segments (UDP_MAX_SEGMENTS of Linux before 6.9) and one UDP payload over
 * IPv6, 65535 - 40 - 8 bytes.
 */
#define VNPV_TRAIN_SEGS_MAX 64
#define VNPV_TRAIN_SEGMENTED_LEN_MAX 65487

/*
 * Why a received train was dropped.
 * X(NAME, "name of the counter")
 */
#define VNPV_RX_DROPS(X)                                                       \
	X(VERSION, "version")	  /* not VNET_TRAIN_VERSION */                 \
	X(LENGTH, "length")	  /* lengths that do not fit each other */     \
	X(CHAIN, "chain")	  /* num_buffers is not what the ring has */   \
	X(FORM, "form")		  /* unknown, or with fields of the other */   \
	X(ENCAP, "encap")	  /* encapsulation header of no known kind */  \
	X(TENANT, "tenant")	  /* a VNI that is not ours */                 \
	X(METADATA, "metadata")	  /* checksum or segmentation request */       \
	X(NOMEM, "nomem")

enum vnpv_rx_drop {
#define X(name, str) VNPV_RX_DROP_##name,
	VNPV_RX_DROPS(X)
#undef X
	VNPV_RX_DROP_COUNT,
	VNPV_RX_OK = VNPV_RX_DROP_COUNT,
};

/* The vendor block in host order, checked. */
struct vnpv_block {
	u32 generation;
	u32 tenant;
	u16 encap_len;
	u16 encap_len_max;
	u8 encap_type;
	u8 train_form;
	u8 vtoe_state; /* ABSENT if the queues it announces are not usable */
	u16 vtoe_first_queue;
	u32 rwq_buf_size[VNET_RWQ_CLASSES];
	u32 vtoe_epoch;
};

/* A train header in host order. */
struct vnpv_train {
	u8 form;
	u8 flags;
	u8 gso_type;
	u16 encap_len;
	u16 gso_size;
	u16 hdr_len;
	u16 csum_start;
	u16 csum_offset;
	u16 num_buffers;
	u32 generation;
	u32 link;
	u32 train_len;
	u16 seg_size;
};

/*
 * Parses the block that the device shows. 0, or -ENODEV (no vendor block at
 * all) or -EPROTO (one that this driver cannot serve); *why then says it.
 */
int vnpv_block_parse(const struct vnet_vendor_block *wire,
		     struct vnpv_block *block, const char **why);

/* Writes the block's encapsulation header, block->encap_len bytes. */
void vnpv_encap_build(const struct vnpv_block *block, void *to);

/*
 * Checks len bytes of encapsulation header of a received frame; a header tells
 * by its length what it is. VNPV_RX_OK or the reason to drop the frame.
 */
enum vnpv_rx_drop vnpv_encap_verify(const void *from, u16 len, u32 tenant);

/* Writes a train header for the wire. */
void vnpv_train_build(const struct vnpv_train *train,
		      struct vnet_train_hdr *wire);

/* Checks and parses a received train header. VNPV_RX_OK or why it is bad. */
enum vnpv_rx_drop vnpv_train_parse(const struct vnet_train_hdr *wire,
				   struct vnpv_train *train);

#endif /* VNPV_ENCAP_H */
