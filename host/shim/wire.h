/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Trains on a link: cutting them into datagrams, and what a datagram says. */
#ifndef SHIM_WIRE_H
#define SHIM_WIRE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "encap.h"
#include "link.h"

/* The longest train: meta, encapsulation, frame. */
#define SHIM_TRAIN_MAX (sizeof(struct vnet_wire_meta) + VNET_ENCAP_LEN_MAX + VNET_FRAME_MAX)
/* Shorter parts are not taken: a train has a bounded number of them. */
#define SHIM_PART_MIN 256
#define SHIM_PARTS_MAX (SHIM_TRAIN_MAX / SHIM_PART_MIN + 1)

/* ---- sending ---- */

/* A place in a list of buffers. */
struct shim_cursor {
	const struct iovec *iov;
	unsigned int left; /* buffers, this one included */
	size_t offset;	   /* in this one */
};

/* Goes on by n bytes, which the caller knows are there. */
void shim_cursor_skip(struct shim_cursor *c, size_t n);

/*
 * Frames of one size (but the last) that have the same Ethernet header, as a
 * verified tx chain gives them. One frame: a train of form whole, or a plain
 * one.
 */
struct shim_frames {
	struct shim_meta meta;	    /* of a single frame */
	uint8_t eth[SHIM_ETH_LEN];  /* our copy */
	struct shim_cursor data;    /* at the first frame's encapsulation */
	uint16_t skip;		    /* bytes before what follows eth, in each */
	unsigned int count;
	uint32_t payload;	    /* bytes behind eth in each frame but the last */
	uint32_t last_payload;
};

/*
 * Sends them over a link in its form; a single small one may wait for others
 * until shim_wire_flush(), before which the chain must not be returned. False:
 * dropped and counted.
 */
bool shim_wire_send(struct shim *shim, struct shim_link *link,
		    const struct shim_frames *frames);
void shim_wire_flush(struct shim *shim);

/* ---- receiving ---- */

/* A checked struct vnet_seg_hdr. */
struct shim_part {
	uint32_t train_id, train_len;
	uint16_t part_len;
	unsigned int index, count;
	uint32_t offset, len; /* of this part in the train */
};

/* len: bytes behind the header. False: malformed. */
bool shim_part_parse(struct shim_part *part, const struct vnet_seg_hdr *hdr,
		     size_t len);

#endif /* SHIM_WIRE_H */
