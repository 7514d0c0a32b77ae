// SPDX-License-Identifier: GPL-2.0-or-later
#include <linux/if_ether.h>

#include "hw.h"
#include "frames.h"

#define ETHERTYPE 0x88b5 /* IEEE 802: for local experiments */
#define STARTS 8192

/* In front of the noise; little-endian, between two payloads. */
struct frame_head {
	uint8_t to[VNET_MAC_LEN], from[VNET_MAC_LEN];
	uint16_t type; /* big-endian */
	uint32_t round, number, len;
} __attribute__((packed));

static uint32_t noise[(STARTS + FRAME_MAX) / 4];

void frames_init(void)
{
	uint32_t i, state = 1;

	for (i = 0; i < sizeof(noise) / sizeof(noise[0]); i++) {
		state = state * 1664525 + 1013904223; /* the high bits are good */
		noise[i] = state ^ state >> 15;
	}
}

static void make_head(struct frame_head *h, uint32_t len,
		      const struct frame_id *id)
{
	memcpy(h->to, id->to, sizeof(h->to));
	memcpy(h->from, id->from, sizeof(h->from));
	h->type = __builtin_bswap16(ETHERTYPE);
	h->round = id->round;
	h->number = id->number;
	h->len = len;
}

/* The byte of the table for the byte of the frame behind the head. */
static const uint8_t *noise_at(const struct frame_id *id)
{
	const uint32_t seed = id->number * 97 + id->round * 1531 +
			      id->from[VNET_MAC_LEN - 1] * 4001;

	return (const uint8_t *)noise + seed % STARTS;
}

void frame_build(uint8_t *frame, uint32_t len, const struct frame_id *id)
{
	make_head((struct frame_head *)frame, len, id);
	memcpy(frame + sizeof(struct frame_head), noise_at(id),
	       len - sizeof(struct frame_head));
}

bool frame_check(const uint8_t *bytes, uint32_t at, uint32_t n, uint32_t len,
		 const struct frame_id *id)
{
	struct frame_head head;

	if (at == 0) {
		make_head(&head, len, id);
		if (n < sizeof(head) || memcmp(bytes, &head, sizeof(head)) != 0)
			return false;
		at = sizeof(head);
		bytes += sizeof(head);
		n -= sizeof(head);
	}
	return memcmp(bytes, noise_at(id) + at - sizeof(head), n) == 0;
}
