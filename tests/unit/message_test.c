// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest/vnet_pv.ko/message.c: messages of the in-band carrier against bytes written
 * by hand, and each rule broken once.
 */
#include "../../guest/vnet_pv.ko/encap.c"
#include "../../guest/vnet_pv.ko/message.c"

#include "tap.h"

#define HELLO 26 /* where struct vnet_hello begins */
#define BLOCK (HELLO + 24)

/* ANSWER to 0x31323334: two pairs, MTU 1450; VXLAN, VTOE up at queue 4. */
static const u8 answer_bytes[114] = {
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0,	/* virtio_net_hdr_v1, one buffer */
	0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e,	/* dst */
	0x02, 'V', 'N', 'E', 'T', 0,		/* src */
	0x88, 0xb5,
	'N', 'V', 'H', 'I', 1, 0, 88, 0,	/* magic, version, size */
	3, 0, 2, 0, 0xaa, 0x05, 0, 0,		/* ANSWER, pairs, mtu */
	0x34, 0x33, 0x32, 0x31, 0, 0, 0, 0,	/* cookie */
	'V', 'N', 'E', 'T', 1, 0, 64, 0,	/* the block: magic, version, size */
	0, 0, 0, 0, 0, 0, 0, 0,
	7, 0, 0, 0, 0x56, 0x34, 0x12, 0,	/* generation, tenant */
	8, 0, 0x4a, 1, 1, 0, 2, 0,		/* VXLAN, whole, UP */
	4, 0, 1, 0, 2, 0, 0, 0,			/* first queue, counts */
	0, 4, 0, 0, 0, 0, 1, 0,
	5, 0, 0, 0,				/* epoch */
};

static const u8 hello_bytes[114] = {
	0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e,
	0x52, 0x54, 0x00, 0x4e, 0x50, 0x01,
	0x88, 0xb5,
	'N', 'V', 'H', 'I', 1, 0, 88, 0,
	1, 0, 5, 0, 0, 0, 0, 0,			/* HELLO, pairs */
	0x34, 0x33, 0x32, 0x31, 0, 0, 0, 0,
};

static void test_build(void)
{
	u8 out[sizeof(hello_bytes)];

	is_int(VNPV_MESSAGE_LEN, sizeof(hello_bytes), "length");
	memset(out, 0xff, sizeof(out));
	vnpv_message_build(out, &hello_bytes[18], VNET_HELLO_HELLO, 5, 0x31323334);
	ok(!memcmp(out, hello_bytes, sizeof(out)), "HELLO is built");
}

static void test_answer(void)
{
	struct vnpv_message m;
	struct vnpv_block block;
	const char *why = "";

	ok(vnpv_message_parse(answer_bytes, sizeof(answer_bytes), &m),
	   "ANSWER is a message");
	ok(m.type == VNET_HELLO_ANSWER && m.whole && m.pairs == 2 &&
		   m.mtu == 1450 && m.cookie == 0x31323334, "its fields");
	is_int(vnpv_message_answer(&m, 2, 0x31323334, &block, &why), 0,
	       "it is the answer");
	ok(block.generation == 7 && block.tenant == 0x123456 &&
		   block.vtoe_first_queue == 4 && block.vtoe_state == VNET_VTOE_UP,
	   "with the block");
	is_int(vnpv_message_answer(&m, 2, 0x31323335, &block, &why), -EAGAIN,
	       "but not to another HELLO");
	m.type = VNET_HELLO_ASK;
	is_int(vnpv_message_answer(&m, 2, 0x31323334, &block, &why), -EAGAIN,
	       "ASK is no answer");
}

/* One byte changed: what the answer is then worth. */
static void broken(unsigned int at, u8 value, int want, const char *name)
{
	u8 bytes[sizeof(answer_bytes)];
	struct vnpv_block block;
	struct vnpv_message m;
	const char *why = NULL;
	int got = 1; /* no message */

	memcpy(bytes, answer_bytes, sizeof(bytes));
	bytes[at] = value;
	if (vnpv_message_parse(bytes, sizeof(bytes), &m))
		got = vnpv_message_answer(&m, 2, 0x31323334, &block, &why);
	is_int(got, want, name);
	if (want < 0)
		ok(why && *why, "%s: with a reason", name);
}

static void test_broken(void)
{
	broken(0, 1, 1, "a frame with flags");
	broken(0, VNET_TRAIN_VERSION, 1, "a train");
	broken(17, 0x0f, 1, "another address");
	broken(24, 0x08, 1, "another EtherType");
	broken(HELLO, 'X', 1, "another magic");
	broken(HELLO + 4, 2, -EPROTO, "another version");
	broken(HELLO + 6, 87, -EPROTO, "a shorter struct");
	broken(HELLO + 6, 96, 0, "a longer one");
	broken(HELLO + 14, 1, -EPROTO, "a reserved field");
	broken(HELLO + 20, 1, -EPROTO, "the other one");
	broken(HELLO + 10, 3, -EPROTO, "another number of pairs");
	broken(HELLO + 13, 0, 0, "an MTU of 170");
	broken(HELLO + 13, 0xff, -EPROTO, "one of 65450");
	broken(BLOCK, 'X', -ENODEV, "no block");
	broken(BLOCK + 32, 5, -EPROTO, "VTOE queues that are not reserved");
	broken(BLOCK + 30, VNET_VTOE_ABSENT, 0, "no VTOE queues");
}

static void test_refused(void)
{
	u8 bytes[sizeof(answer_bytes)];
	struct vnpv_block block;
	struct vnpv_message m;
	const char *why, *last = "";
	unsigned int reason, different = 0;

	memcpy(bytes, answer_bytes, sizeof(bytes));
	bytes[HELLO + 8] = VNET_HELLO_REFUSE;
	bytes[HELLO + 4] = 9; /* of another version, and shorter */
	for (reason = 0; reason <= VNET_HELLO_REASONS; reason++) {
		bytes[HELLO + 9] = reason;
		why = "";
		if (!vnpv_message_parse(bytes, BLOCK, &m) || m.whole ||
		    vnpv_message_answer(&m, 2, 0x31323334, &block, &why) != -ENODEV)
			break;
		different += !!strcmp(why, last);
		last = why;
	}
	is_int(reason, VNET_HELLO_REASONS + 1, "REFUSE of any version is understood");
	is_int(different, VNET_HELLO_REASONS + 1, "and each reason has words");
	bytes[HELLO + 8] = VNET_HELLO_ANSWER;
	ok(vnpv_message_parse(bytes, BLOCK, &m) &&
		   vnpv_message_answer(&m, 2, 0x31323334, &block, &why) == -EPROTO,
	   "an ANSWER without its block is not");
}

/* No length may make it look further. The bytes end where the memory does. */
static void test_lengths(void)
{
	struct vnpv_message m;
	unsigned int len, messages = 0, whole = 0;

	for (len = 0; len <= sizeof(answer_bytes); len++) {
		u8 *bytes = malloc(len);

		memcpy(bytes, answer_bytes, len);
		if (vnpv_message_parse(bytes, len, &m)) {
			messages++;
			whole += m.whole;
		}
		free(bytes);
	}
	is_int(messages, sizeof(answer_bytes) - BLOCK + 1, "what ends early is no message");
	is_int(whole, 1, "or not a whole one");
}

int main(void)
{
	test_build();
	test_answer();
	test_broken();
	test_refused();
	test_lengths();
	return tap_done();
}
