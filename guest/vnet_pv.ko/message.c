// SPDX-License-Identifier: GPL-2.0-only
/*
 * Messages of the in-band carrier. Who is trusted: see encap.c; before the first
 * answer the bytes may come from any network, too.
 */
#include "message.h"
#include "vnet_train.h"

static const u8 hello_dst[VNET_MAC_LEN] = VNET_HELLO_DST;
static const u8 hello_ethertype[2] = {
	VNET_HELLO_ETHERTYPE >> 8, VNET_HELLO_ETHERTYPE & 0xff,
};

#define DST 12 /* behind struct virtio_net_hdr_v1 */
#define SRC (DST + VNET_MAC_LEN)
#define ETHERTYPE (SRC + VNET_MAC_LEN)

void vnpv_message_build(void *to, const u8 *mac, u8 type, u16 pairs, u32 cookie)
{
	struct vnet_hello hello;
	u8 *bytes = to;

	memset(bytes, 0, VNPV_MESSAGE_LEN);
	memcpy(bytes + DST, hello_dst, sizeof(hello_dst));
	memcpy(bytes + SRC, mac, VNET_MAC_LEN);
	memcpy(bytes + ETHERTYPE, hello_ethertype, sizeof(hello_ethertype));
	memset(&hello, 0, sizeof(hello));
	hello.magic = cpu_to_le32(VNET_HELLO_MAGIC);
	hello.version = cpu_to_le16(VNET_HELLO_VERSION);
	hello.size = cpu_to_le16(sizeof(hello));
	hello.type = type;
	hello.pairs = cpu_to_le16(pairs);
	hello.cookie = cpu_to_le32(cookie);
	memcpy(bytes + VNPV_MESSAGE_FRONT, &hello, sizeof(hello));
}

bool vnpv_message_parse(const void *from, u32 len, struct vnpv_message *m)
{
	const u8 *bytes = from;
	struct vnet_hello hello;
	u32 have;

	if (len < VNPV_MESSAGE_FRONT + offsetof(struct vnet_hello, block) ||
	    bytes[0] ||
	    memcmp(bytes + DST, hello_dst, sizeof(hello_dst)) ||
	    memcmp(bytes + ETHERTYPE, hello_ethertype, sizeof(hello_ethertype)))
		return false;
	have = len < VNPV_MESSAGE_LEN ? len : VNPV_MESSAGE_LEN;
	memset(&hello, 0, sizeof(hello));
	memcpy(&hello, bytes + VNPV_MESSAGE_FRONT, have - VNPV_MESSAGE_FRONT);
	if (le32_to_cpu(hello.magic) != VNET_HELLO_MAGIC)
		return false;
	m->type = hello.type;
	m->reason = hello.reason;
	m->whole = have == VNPV_MESSAGE_LEN &&
		   le16_to_cpu(hello.version) == VNET_HELLO_VERSION &&
		   le16_to_cpu(hello.size) >= sizeof(hello) &&
		   !hello.reserved && !hello.reserved1;
	m->pairs = le16_to_cpu(hello.pairs);
	m->mtu = le16_to_cpu(hello.mtu);
	m->cookie = le32_to_cpu(hello.cookie);
	m->block = hello.block;
	return true;
}

int vnpv_message_block(const struct vnpv_message *m, u16 pairs,
		       struct vnpv_block *block, const char **why)
{
	int err;

	if (!m->whole) {
		*why = "the message is malformed";
		return -EPROTO;
	}
	err = vnpv_block_parse(&m->block, block, why);
	if (err)
		return err;
	if (block->vtoe_state != VNET_VTOE_ABSENT &&
	    block->vtoe_first_queue != 2 * pairs) {
		*why = "the VTOE queues are not the reserved ones";
		return -EPROTO;
	}
	return 0;
}

static const char *refusal(u8 reason)
{
	switch (reason) {
	case VNET_HELLO_R_VERSION:
		return "vnet-shim speaks another version of the in-band carrier";
	case VNET_HELLO_R_LAYOUT:
		return "vnet-shim is not set up for it ('in-band' in its line 'front')";
	case VNET_HELLO_R_PAIRS:
		return "the VM was started with another number of queue pairs than vnet-shim has";
	case VNET_HELLO_R_MAC:
		return "the MAC is not the one that vnet-shim has";
	case VNET_HELLO_R_QUEUE:
		return "vnet-shim got the hello on another queue";
	}
	return "vnet-shim refuses this driver";
}

int vnpv_message_answer(const struct vnpv_message *m, u16 pairs, u32 cookie,
			struct vnpv_block *block, const char **why)
{
	if (m->cookie != cookie)
		return -EAGAIN;
	if (m->type == VNET_HELLO_REFUSE) {
		*why = refusal(m->reason);
		return -ENODEV;
	}
	if (m->type != VNET_HELLO_ANSWER)
		return -EAGAIN;
	if (m->pairs != pairs || m->mtu < VNET_MTU_MIN || m->mtu > VNET_MTU_MAX) {
		*why = "the answer of vnet-shim makes no sense";
		return -EPROTO;
	}
	return vnpv_message_block(m, pairs, block, why);
}
