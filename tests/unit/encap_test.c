// SPDX-License-Identifier: GPL-2.0-only
/*
 * guest/vnet_pv.ko/encap.c: vendor block, train header and encapsulation
 * headers against bytes written by hand, and each rule broken once.
 */
#include "../../guest/vnet_pv.ko/encap.c"

#include "tap.h"

/* Tenant 0x123456, VXLAN, whole, VTOE up at queue 3, epoch 5, generation 7. */
static const u8 block_bytes[64] = {
	'V', 'N', 'E', 'T', 1, 0, 64, 0, /* magic, version, size */
	0, 0, 0, 0, 0, 0, 0, 0,		 /* features */
	7, 0, 0, 0, 0x56, 0x34, 0x12, 0, /* generation, tenant */
	8, 0, 0x4a, 1, 1, 0, 2, 0,	 /* 8 of at most 330, VXLAN, whole, UP */
	3, 0, 1, 0, 2, 0, 0, 0,		 /* first queue, counts */
	0, 4, 0, 0, 0, 0, 1, 0,		 /* 1024, 65536 */
	5, 0, 0, 0,			 /* epoch */
};

/* RFC 7348 section 5: I flag, VNI 0x123456. */
static const u8 vxlan_bytes[8] = { 0x08, 0, 0, 0, 0x12, 0x34, 0x56, 0 };

/* A TCP/IPv4 frame of 3014 bytes, to be cut to 1448, behind VXLAN. */
static const u8 whole_bytes[32] = {
	1,    0,    1,	  1,		/* version, whole, NEEDS_CSUM, TCPV4 */
	8,    0,    0xa8, 0x05,		/* encap_len, gso_size 1448 */
	66,   0,    34,	  0,		/* hdr_len, csum_start */
	16,   0,    2,	  0,		/* csum_offset, num_buffers */
	7,    0,    0,	  0,		/* generation */
	4,    0,    0,	  0,		/* link */
	0xce, 0x0b, 0,	  0,		/* train_len 3022 */
	0,    0,    0,	  0,		/* seg_size, reserved */
};

/* Two segments of 1522 and one of 100. */
static const u8 segmented_bytes[32] = {
	1,    1,    0,	  0, 8,	   0,	 0, 0, 0, 0, 0, 0, 0, 0, 1, 0,
	7,    0,    0,	  0, 4,	   0,	 0, 0, 0x48, 0x0c, 0, 0, 0xf2, 0x05, 0, 0,
};

static struct vnet_vendor_block good_block(void)
{
	struct vnet_vendor_block wire;

	memcpy(&wire, block_bytes, sizeof(wire));
	return wire;
}

static void test_block(void)
{
	struct vnet_vendor_block wire = good_block();
	struct vnpv_block block;
	const char *why = "";

	is_int(vnpv_block_parse(&wire, &block, &why), 0, "a vendor block is read");
	is_int(block.generation, 7, "generation");
	is_int(block.tenant, 0x123456, "tenant");
	is_int(block.encap_len, 8, "encap_len");
	is_int(block.encap_len_max, 330, "encap_len_max");
	is_int(block.encap_type, VNET_ENCAP_VXLAN, "encap_type");
	is_int(block.train_form, VNET_TRAIN_WHOLE, "train_form");
	is_int(block.vtoe_state, VNET_VTOE_UP, "vtoe_state");
	is_int(block.vtoe_first_queue, 3, "vtoe_first_queue");
	is_int(block.rwq_buf_size[VNET_RWQ_SMALL], 1024, "rwq_buf_size, small");
	is_int(block.rwq_buf_size[VNET_RWQ_LARGE], 65536, "rwq_buf_size, large");
	is_int(block.vtoe_epoch, 5, "vtoe_epoch");

	wire.size = htole16(80);
	is_int(vnpv_block_parse(&wire, &block, &why), 0,
	       "a longer block of the same version is read");
	wire = good_block();
	wire.vtoe_swq_count = htole16(2);
	is_int(vnpv_block_parse(&wire, &block, &why), 0,
	       "VTOE queue counts we do not know are no error");
	is_int(block.vtoe_state, VNET_VTOE_ABSENT, "but no offload either");
	wire = good_block();
	wire.encap_type = VNET_ENCAP_VNET_UDP;
	wire.encap_len = 0;
	is_int(vnpv_block_parse(&wire, &block, &why), 0, "VNET-UDP");
}

/* Sets one field and expects a refusal with just these words. */
#define REFUSED(field, value, err, name, words)                          \
	do {                                                             \
		struct vnet_vendor_block wire = good_block();            \
		struct vnpv_block block;                                 \
		const char *why = NULL;                                  \
									 \
		wire.field = value;                                      \
		is_int(vnpv_block_parse(&wire, &block, &why), err,       \
		       "refused: " name);                                \
		ok(why && !strcmp(why, words), "with the words: %s",     \
		   why ? why : "none");                                  \
	} while (0)

/* Buffer sizes that are no good cost the VM its offload, not its Ethernet. */
static void test_block_sizes(void)
{
	static const u32 bad[][2] = {
		{ 0, 65536 }, { 1024, 0 }, { 65536, 1024 }, { 1024, (1 << 20) + 1 },
		{ 0xffffffff, 0xffffffff },
	};
	struct vnpv_block block;
	const char *why = "";
	unsigned int i;

	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct vnet_vendor_block wire = good_block();

		wire.rwq_buf_size[VNET_RWQ_SMALL] = htole32(bad[i][0]);
		wire.rwq_buf_size[VNET_RWQ_LARGE] = htole32(bad[i][1]);
		ok(!vnpv_block_parse(&wire, &block, &why) &&
		       block.vtoe_state == VNET_VTOE_ABSENT,
		   "buffers of %u and %u bytes: no offload", bad[i][0], bad[i][1]);
	}
}

#define RESERVED "a reserved field of the vendor block is not zero"
#define BOUNDS "encap_len or encap_len_max is out of bounds"
#define LENGTH "encap_len is not that of the encapsulation type"
#define VERSION "the vendor block has a version this driver does not know"

static void test_block_refused(void)
{
	REFUSED(magic, 0, -ENODEV, "no magic", "there is no vendor block");
	REFUSED(version, htole16(2), -EPROTO, "version 2", VERSION);
	REFUSED(version, 0, -EPROTO, "version 0", VERSION);
	REFUSED(size, htole16(63), -EPROTO, "too short",
		"the vendor block is too short for its version");
	REFUSED(features, htole64(1), -EPROTO, "unknown features",
		"the vendor block requires features this driver does not know");
	REFUSED(tenant, htole32(1u << 24), -EPROTO, "tenant over 24 bits",
		"the tenant does not fit 24 bits");
	REFUSED(encap_len, htole16(9), -EPROTO, "encap_len not VXLAN's", LENGTH);
	REFUSED(encap_len, htole16(331), -EPROTO, "encap_len over its maximum", BOUNDS);
	REFUSED(encap_len_max, htole16(7), -EPROTO, "encap_len_max too small", BOUNDS);
	REFUSED(encap_len_max, htole16(331), -EPROTO, "encap_len_max over 330", BOUNDS);
	REFUSED(encap_type, 2, -EPROTO, "unknown encapsulation",
		"the encapsulation type is unknown");
	REFUSED(encap_type, VNET_ENCAP_VNET_UDP, -EPROTO, "VNET-UDP with a header", LENGTH);
	REFUSED(train_form, 2, -EPROTO, "unknown form", "the train form is unknown");
	REFUSED(vtoe_state, 3, -EPROTO, "unknown VTOE state", "the VTOE state is unknown");
	REFUSED(reserved0, 1, -EPROTO, "reserved0", RESERVED);
	REFUSED(reserved1, htole16(1), -EPROTO, "reserved1", RESERVED);
	REFUSED(reserved2[11], 1, -EPROTO, "reserved2", RESERVED);
}

static void test_encap(void)
{
	struct vnpv_block block = { .encap_type = VNET_ENCAP_VXLAN,
				    .encap_len = 8,
				    .tenant = 0x123456 };
	u8 bytes[9];

	memset(bytes, 0xaa, sizeof(bytes));
	vnpv_encap_build(&block, bytes + 1); /* misaligned, as in a packet */
	ok(!memcmp(bytes + 1, vxlan_bytes, 8), "a VXLAN header is built");
	is_int(vnpv_encap_verify(bytes + 1, 8, 0x123456), VNPV_RX_OK,
	       "and accepted");
	is_int(vnpv_encap_verify(bytes + 1, 8, 0x123457), VNPV_RX_DROP_TENANT,
	       "not by another tenant");
	bytes[4] = bytes[8] = 0xff;
	is_int(vnpv_encap_verify(bytes + 1, 8, 0x123456), VNPV_RX_OK,
	       "reserved bits are ignored on receipt");
	bytes[1] = 0;
	is_int(vnpv_encap_verify(bytes + 1, 8, 0x123456), VNPV_RX_DROP_ENCAP,
	       "a header without a VNI is not");
	is_int(vnpv_encap_verify(bytes + 1, 9, 0x123456), VNPV_RX_DROP_ENCAP,
	       "nor one of a length we do not know");
	is_int(vnpv_encap_verify(bytes + 1, 0, 0x123456), VNPV_RX_OK,
	       "VNET-UDP has no header");

	block.encap_type = VNET_ENCAP_VNET_UDP;
	block.encap_len = 0;
	memset(bytes, 0xaa, sizeof(bytes));
	vnpv_encap_build(&block, bytes);
	is_int(bytes[0], 0xaa, "and none is built");
}

static void test_train(void)
{
	struct vnet_train_hdr wire;
	struct vnpv_train train;
	u8 again[32];

	memcpy(&wire, whole_bytes, sizeof(wire));
	is_int(vnpv_train_parse(&wire, &train), VNPV_RX_OK, "a whole train is read");
	is_int(train.form, VNET_TRAIN_WHOLE, "form");
	is_int(train.flags, VNET_TRAIN_F_NEEDS_CSUM, "flags");
	is_int(train.gso_type, VNET_GSO_TCPV4, "gso_type");
	is_int(train.encap_len, 8, "encap_len");
	is_int(train.gso_size, 1448, "gso_size");
	is_int(train.hdr_len, 66, "hdr_len");
	is_int(train.csum_start, 34, "csum_start");
	is_int(train.csum_offset, 16, "csum_offset");
	is_int(train.num_buffers, 2, "num_buffers");
	is_int(train.generation, 7, "generation");
	is_int(train.link, 4, "link");
	is_int(train.train_len, 3022, "train_len");
	is_int(train.seg_size, 0, "seg_size");
	memset(again, 0xaa, sizeof(again));
	vnpv_train_build(&train, (struct vnet_train_hdr *)again);
	ok(!memcmp(again, whole_bytes, sizeof(again)), "and written again");

	memcpy(&wire, segmented_bytes, sizeof(wire));
	is_int(vnpv_train_parse(&wire, &train), VNPV_RX_OK,
	       "a segmented train is read");
	is_int(train.train_len, 3144, "train_len");
	is_int(train.seg_size, 1522, "seg_size");
	vnpv_train_build(&train, (struct vnet_train_hdr *)again);
	ok(!memcmp(again, segmented_bytes, sizeof(again)), "and written again");
}

/* Sets one field of a good header and expects that reason. */
#define DROPPED(bytes, field, value, reason, name)                      \
	do {                                                            \
		struct vnet_train_hdr wire;                             \
		struct vnpv_train train;                                \
									\
		memcpy(&wire, bytes, sizeof(wire));                     \
		wire.field = value;                                     \
		is_int(vnpv_train_parse(&wire, &train), reason, name);  \
	} while (0)
#define WHOLE(field, value, reason, name) \
	DROPPED(whole_bytes, field, value, reason, "whole: " name)
#define SEGMENTED(field, value, reason, name) \
	DROPPED(segmented_bytes, field, value, reason, "segmented: " name)

static void test_train_dropped(void)
{
	WHOLE(version, 2, VNPV_RX_DROP_VERSION, "version 2");
	WHOLE(reserved, htole16(1), VNPV_RX_DROP_VERSION, "reserved");
	WHOLE(form, 2, VNPV_RX_DROP_FORM, "unknown form");
	WHOLE(seg_size, htole16(1), VNPV_RX_DROP_FORM, "a segment size");
	WHOLE(train_len, htole32(21), VNPV_RX_DROP_LENGTH,
	      "shorter than its headers");
	WHOLE(train_len, htole32(8 + VNET_FRAME_MAX + 1), VNPV_RX_DROP_LENGTH,
	      "longer than a frame can be");
	WHOLE(train_len, htole32(8 + VNET_FRAME_MAX), VNPV_RX_OK,
	      "the longest frame");
	WHOLE(train_len, htole32(0xffffffff), VNPV_RX_DROP_LENGTH, "2^32-1 bytes");
	WHOLE(encap_len, htole16(0xffff), VNPV_RX_DROP_LENGTH,
	      "all encapsulation");
	WHOLE(flags, 4, VNPV_RX_DROP_METADATA, "unknown flags");
	WHOLE(flags, 0, VNPV_RX_DROP_METADATA, "segmentation without checksum");
	WHOLE(gso_size, 0, VNPV_RX_DROP_METADATA, "segments of 0 bytes");
	WHOLE(gso_type, 3, VNPV_RX_DROP_METADATA, "UDP segmentation");
	WHOLE(gso_type, VNET_GSO_ECN, VNPV_RX_DROP_METADATA, "ECN alone");
	WHOLE(gso_type, VNET_GSO_TCPV4 | VNET_GSO_ECN, VNPV_RX_OK, "with ECN");
	WHOLE(csum_start, htole16(13), VNPV_RX_DROP_METADATA,
	      "checksum from within the Ethernet header");
	WHOLE(csum_start, htole16(3014 - 18 + 1), VNPV_RX_DROP_METADATA,
	      "checksum behind the end");
	WHOLE(csum_start, htole16(3014 - 18), VNPV_RX_OK,
	      "checksum in the last bytes");
	WHOLE(csum_offset, htole16(0xffff), VNPV_RX_DROP_METADATA,
	      "checksum far behind the end");

	SEGMENTED(gso_type, VNET_GSO_TCPV4, VNPV_RX_DROP_METADATA,
		  "segmentation");
	SEGMENTED(flags, VNET_TRAIN_F_NEEDS_CSUM, VNPV_RX_DROP_METADATA,
		  "checksum");
	SEGMENTED(flags, VNET_TRAIN_F_DATA_VALID, VNPV_RX_OK, "data valid");
	SEGMENTED(seg_size, 0, VNPV_RX_DROP_LENGTH, "segments of 0 bytes");
	SEGMENTED(seg_size, htole16(21), VNPV_RX_DROP_LENGTH,
		  "segments shorter than their headers");
	SEGMENTED(train_len, htole32(21), VNPV_RX_DROP_LENGTH,
		  "shorter than one segment's headers");
	SEGMENTED(train_len, htole32(VNPV_TRAIN_LEN_MAX + 1),
		  VNPV_RX_DROP_LENGTH, "too long");
	SEGMENTED(seg_size, htole16(0xffff), VNPV_RX_OK,
		  "one segment shorter than the size");
}

int main(void)
{
	test_block();
	test_block_refused();
	test_block_sizes();
	test_encap();
	test_train();
	test_train_dropped();
	return tap_done();
}
