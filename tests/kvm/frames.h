/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What is in the frames: an Ethernet header, who sent it in which round under
 * which number, and a piece of a table of noise. Where in the table it begins
 * follows from these, so that each byte of a frame is known before it comes.
 *
 * The noise is made once, and copied and compared with string instructions: where
 * KVM interprets the payload, a loop over the bytes would take ten times as long.
 */
#ifndef KVM_FRAMES_H
#define KVM_FRAMES_H

#include <stdbool.h>
#include <stdint.h>

#include "vnet_types.h"

#define FRAME_MIN 60
#define FRAME_MAX 9216

struct frame_id {
	uint8_t from[VNET_MAC_LEN], to[VNET_MAC_LEN];
	uint32_t round, number;
};

void frames_init(void);
/* Writes a frame of len (FRAME_MIN to FRAME_MAX) bytes. */
void frame_build(uint8_t *frame, uint32_t len, const struct frame_id *id);
/* Whether the bytes [at, at + n) of a frame of len bytes are as frame_build()
 * writes them; they may come in any pieces that do not begin inside the head. */
bool frame_check(const uint8_t *bytes, uint32_t at, uint32_t n, uint32_t len,
		 const struct frame_id *id);

#endif /* KVM_FRAMES_H */
