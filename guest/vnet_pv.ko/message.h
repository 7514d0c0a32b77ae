/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Messages of the in-band carrier (vnet_hello.h), built and understood. Pure
 * functions over memory, as those of encap.h.
 */
#ifndef VNPV_MESSAGE_H
#define VNPV_MESSAGE_H

#include "encap.h"
#include "vnet_hello.h"

/* In front of struct vnet_hello: struct virtio_net_hdr_v1 and an Ethernet header. */
#define VNPV_MESSAGE_FRONT (12 + VNPV_ETH_HLEN)
#define VNPV_MESSAGE_LEN (VNPV_MESSAGE_FRONT + sizeof(struct vnet_hello))

/* A received message in host order. */
struct vnpv_message {
	u8 type;
	u8 reason;
	bool whole; /* of our version, with all of its fields */
	u16 pairs;
	u16 mtu;
	u32 cookie;
	struct vnet_vendor_block block; /* if whole */
};

/* Writes VNPV_MESSAGE_LEN bytes. mac: of the driver's interface. */
void vnpv_message_build(void *to, const u8 *mac, u8 type, u16 pairs, u32 cookie);
/* len bytes that a buffer of the ring began with. False: they are no message. */
bool vnpv_message_parse(const void *from, u32 len, struct vnpv_message *m);
/*
 * The block of an ANSWER or CHANGE, for a device with so many pairs for frames.
 * 0, -EPROTO or -ENODEV, *why.
 */
int vnpv_message_block(const struct vnpv_message *m, u16 pairs,
		       struct vnpv_block *block, const char **why);
/*
 * The answer to the HELLO with this cookie. As vnpv_message_block(); -EAGAIN: this
 * is not the answer.
 */
int vnpv_message_answer(const struct vnpv_message *m, u16 pairs, u32 cookie,
			struct vnpv_block *block, const char **why);

#endif /* VNPV_MESSAGE_H */
