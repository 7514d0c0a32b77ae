// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Two shims over loopback: frames of all sizes, both forms, both encapsulations,
 * guests of both kinds.
 */
#include "shim_rig.h"

static struct vm a, b;

struct setup {
	const char *name;
	const char *encap, *form;
	bool a_pv, b_pv;
	uint32_t rx_len;
	unsigned int rx_count;
	uint16_t mtu;
	const char *addr; /* NULL: 127.0.0.1 */
};

static const uint8_t broadcast[6] = { 255, 255, 255, 255, 255, 255 };

static void body(char *text, size_t size, const struct setup *s, int me,
		 const char *peer_mac)
{
	const char *addr = s->addr ? s->addr : "127.0.0.1";

	snprintf(text, size,
		 "tenant 77\nmtu %u\nencap %s\n"
		 "link peer udp local %s:%d remote %s:%d form %s mtu 1500\n"
		 "route dst %s link peer\nroute dst any link peer\n",
		 s->mtu, s->encap, addr, 21000 + me, addr, 21001 - me, s->form,
		 peer_mac);
}

static void up(const struct setup *s)
{
	char text[512];

	body(text, sizeof(text), s, 0, "52:54:00:4e:50:02");
	vm_start(&a, "a", 1, text);
	body(text, sizeof(text), s, 1, "52:54:00:4e:50:01");
	vm_start(&b, "b", 2, text);
	ok(vm_connect(&a, s->a_pv ? PV_FEATURES : STOCK_FEATURES | OFFLOADS, 3) &&
		   vm_connect(&b, s->b_pv ? PV_FEATURES :
					    STOCK_FEATURES | OFFLOADS, 3),
	   "%s: front ends connect", s->name);
	vm_post_rx(&a, s->rx_count, s->rx_len);
	vm_post_rx(&b, s->rx_count, s->rx_len);
}

static void down(const struct setup *s)
{
	vm_free_bufs(&a);
	vm_free_bufs(&b);
	vm_disconnect(&a);
	vm_disconnect(&b);
	ok(vm_stop(&a) == 0, "%s: shim a ends well", s->name);
	ok(vm_stop(&b) == 0, "%s: shim b ends well", s->name);
}

static bool header_right(struct vm *to, const struct frame *f,
			 const struct vnet_vendor_block *block)
{
	if (!to->pv)
		return f->virtio.flags == 0 &&
		       f->virtio.gso_type == VIRTIO_NET_HDR_GSO_NONE;
	return f->train.version == VNET_TRAIN_VERSION &&
	       f->train.form == VNET_TRAIN_WHOLE && f->train.gso_type == 0 &&
	       f->train.encap_len == block->encap_len &&
	       le32toh(f->train.link) == 1 && f->train.seg_size == 0 &&
	       le32toh(f->train.train_len) ==
		       f->len + le16toh(block->encap_len) &&
	       (!block->encap_len ||
		!memcmp(f->encap, (uint8_t[]){ 8, 0, 0, 0, 0, 0, 77, 0 }, 8));
}

/* One frame of a length, in pieces. True if it arrived as it was sent. */
static bool one(struct vm *from, struct vm *to, const uint8_t *dst, uint32_t len,
		uint32_t piece, uint8_t seed)
{
	static uint8_t frame[70000], out[70100];
	struct vnet_vendor_block block;
	static struct frame got;
	uint32_t n;

	if (!vm_block(from, &block))
		return false;
	make_frame(frame, dst, from->mac, len, seed);
	n = from->pv ? make_train(out, &block, frame, len) :
		       make_stock(out, frame, len);
	if (!vm_send(from, out, n, piece)) {
		note("not taken");
		return false;
	}
	if (!vm_receive(to, &got)) {
		note("nothing arrived");
		return false;
	}
	if (got.len != len || memcmp(got.data, frame, len)) {
		note("wrong frame: %u bytes of %u", got.len, len);
		return false;
	}
	return header_right(to, &got, &block);
}

/* TCP metadata of an unsegmented frame arrives with it. */
static bool offload(struct vm *from, struct vm *to)
{
	static uint8_t frame[60000], out[60100];
	struct vnet_vendor_block block;
	static struct frame got;
	uint32_t n, len = sizeof(frame);

	vm_block(from, &block);
	make_frame(frame, to->mac, from->mac, len, 9);
	if (from->pv) {
		struct vnet_train_hdr *h = (void *)out;

		n = make_train(out, &block, frame, len);
		h->flags = VNET_TRAIN_F_NEEDS_CSUM;
		h->gso_type = VNET_GSO_TCPV4;
		h->gso_size = htole16(1398);
		h->hdr_len = htole16(66);
		h->csum_start = htole16(34);
		h->csum_offset = htole16(16);
	} else {
		struct virtio_net_hdr_v1 *h = (void *)out;

		n = make_stock(out, frame, len);
		h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		h->gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
		h->gso_size = htole16(1398);
		h->hdr_len = htole16(66);
		h->csum_start = htole16(34);
		h->csum_offset = htole16(16);
	}
	if (!vm_send(from, out, n, 4096) || !vm_receive(to, &got) ||
	    got.len != len || memcmp(got.data, frame, len))
		return false;
	if (to->pv)
		return got.train.flags == 1 && got.train.gso_type == 1 &&
		       le16toh(got.train.gso_size) == 1398 &&
		       le16toh(got.train.hdr_len) == 66 &&
		       le16toh(got.train.csum_start) == 34 &&
		       le16toh(got.train.csum_offset) == 16;
	return got.virtio.flags == 1 && got.virtio.gso_type == 1 &&
	       le16toh(got.virtio.gso_size) == 1398 &&
	       le16toh(got.virtio.csum_start) == 34;
}

/* A segmented train of equal frames and a shorter last one. */
static bool segmented(struct vm *from, struct vm *to, unsigned int count,
		      uint32_t len, uint32_t last)
{
	static uint8_t out[140000], frame[2000];
	struct vnet_vendor_block block;
	static struct frame got;
	struct vnet_train_hdr h;
	uint16_t encap_len;
	uint32_t at = sizeof(h);
	unsigned int i;

	vm_block(from, &block);
	encap_len = le16toh(block.encap_len);
	for (i = 0; i < count; i++) {
		const uint32_t n = i + 1 < count ? len : last;
		uint8_t one_train[3000];

		make_frame(frame, to->mac, from->mac, n, i);
		make_train(one_train, &block, frame, n);
		memcpy(out + at, one_train + sizeof(h), encap_len + n);
		at += encap_len + n;
	}
	h = (struct vnet_train_hdr){
		.version = VNET_TRAIN_VERSION,
		.form = VNET_TRAIN_SEGMENTED,
		.encap_len = block.encap_len,
		.generation = block.generation,
		.train_len = htole32(at - sizeof(h)),
		.seg_size = htole16(encap_len + (count > 1 ? len : last)),
	};
	memcpy(out, &h, sizeof(h));
	if (!vm_send(from, out, at, 4096))
		return false;
	for (i = 0; i < count; i++) {
		const uint32_t n = i + 1 < count ? len : last;

		make_frame(frame, to->mac, from->mac, n, i);
		if (!vm_receive(to, &got) || got.len != n ||
		    memcmp(got.data, frame, n)) {
			note("segment %u: %u bytes of %u", i, got.len, n);
			return false;
		}
	}
	return true;
}

static void whole_sizes(const struct setup *s)
{
	static const uint32_t sizes[] = { 14,	15,    60,    1400,  1432, 1433,
					  1464, 1500,  4096,  9014,  32000, 60000,
					  64000, 64064, 65000, 65535, VNET_FRAME_MAX };
	unsigned int i;
	bool good = true;

	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		if (!one(&a, &b, b.mac, sizes[i], 4096, i) ||
		    !one(&b, &a, a.mac, sizes[i], 1000, i + 1)) {
			note("at %u bytes", sizes[i]);
			good = false;
			break;
		}
	}
	ok(good, "%s: frames of 14 to %u bytes both ways", s->name,
	   (unsigned int)VNET_FRAME_MAX);
	for (i = 0, good = true; i < 50 && good; i++)
		good = one(&a, &b, b.mac, 65000 - i, 4096, i);
	ok(good, "%s: 50 trains of 64 KB in a row", s->name);
	ok(one(&a, &b, broadcast, 60, 60, 3), "%s: broadcast", s->name);
	ok(offload(&a, &b) && offload(&b, &a), "%s: offload metadata", s->name);
	/* buffers smaller than a train's part cannot be predicted for */
	if (s->rx_count * s->rx_len > 200000)
		ok(vm_stat(&b, "rx_direct") > 50, "%s: received in place", s->name);
}

static void segmented_sizes(const struct setup *s)
{
	ok(one(&a, &b, b.mac, 60, 60, 1) && one(&b, &a, a.mac, s->mtu + 14, 4096, 2),
	   "%s: single frames both ways", s->name);
	if (s->a_pv)
		ok(segmented(&a, &b, 44, s->mtu + 14, 100) &&
			   segmented(&a, &b, 1, 0, 60) &&
			   segmented(&a, &b, 100, 700, 699),
		   "%s: segmented trains", s->name);
	ok(one(&a, &b, broadcast, 60, 60, 3), "%s: broadcast", s->name);
}

static void run(const struct setup *s)
{
	up(s);
	if (!strcmp(s->form, "whole"))
		whole_sizes(s);
	else
		segmented_sizes(s);
	/* a whole-form link takes segmented trains, too */
	if (s->a_pv && !strcmp(s->form, "whole"))
		ok(segmented(&a, &b, 20, 1414, 100) &&
			   segmented(&a, &b, 20, 1450, 1450),
		   "%s: segmented trains over it", s->name);
	is_int(vm_stat(&a, "tx_drop_error"), 0, "nothing failed to be sent");
	is_int(vm_stat(&b, "rx_drop_malformed"), 0, "nothing arrived malformed");
	down(s);
}

/* Three VMs, one socket each: who gets what. */
static void three(void)
{
	static const char links[] =
		"tenant 77\nmtu 1450\nencap vnet-udp\npoll 100\n"
		"link x udp local 127.0.0.1:%d remote 127.0.0.1:%d\n"
		"link y udp local 127.0.0.1:%d remote 127.0.0.1:%d\n"
		"route dst 52:54:00:4e:50:%02x link x\n"
		"route dst any link x\nroute dst any link y\n";
	static const uint8_t unknown[6] = { 0x52, 0x54, 0, 0x4e, 0x50, 0x77 };
	static uint8_t frame[300], out[400];
	struct vnet_vendor_block block;
	static struct vm c;
	static struct frame got;
	char text[600];

	snprintf(text, sizeof(text), links, 21000, 21001, 21000, 21002, 2);
	vm_start(&a, "a", 1, text);
	snprintf(text, sizeof(text), links, 21001, 21000, 21001, 21002, 1);
	vm_start(&b, "b", 2, text);
	snprintf(text, sizeof(text), links, 21002, 21000, 21002, 21001, 1);
	vm_start(&c, "c", 3, text);
	ok(vm_connect(&a, PV_FEATURES, 3) && vm_connect(&b, PV_FEATURES, 3) &&
		   vm_connect(&c, PV_FEATURES, 3),
	   "three VMs");
	vm_post_rx(&a, 16, 2048);
	vm_post_rx(&b, 16, 2048);
	vm_post_rx(&c, 16, 2048);
	vm_block(&a, &block);
	make_frame(frame, broadcast, a.mac, 100, 1);
	vm_send(&a, out, make_train(out, &block, frame, 100), 4096);
	ok(vm_receive(&b, &got) && got.len == 100 && vm_receive(&c, &got) &&
		   got.len == 100,
	   "a broadcast reaches both");
	make_frame(frame, b.mac, a.mac, 101, 1);
	vm_send(&a, out, make_train(out, &block, frame, 101), 4096);
	ok(vm_receive(&b, &got) && got.len == 101, "a known station alone");
	make_frame(frame, unknown, a.mac, 102, 1);
	vm_send(&a, out, make_train(out, &block, frame, 102), 4096);
	ok(wait_until(vm_stat(&b, "rx_drop_not_ours") == 1) &&
		   wait_until(vm_stat(&c, "rx_drop_not_ours") == 1),
	   "an unknown one goes to both, who drop it");
	is_int(vm_stat(&c, "rx_trains"), 1, "the third saw the broadcast alone");
	is_int(vm_stat(&b, "tx_datagrams") + vm_stat(&c, "tx_datagrams"), 0,
	       "and nobody forwarded anything");
	make_frame(frame, b.mac, c.mac, 103, 1);
	vm_send(&c, out, make_train(out, &block, frame, 103), 4096);
	ok(vm_receive(&b, &got) && got.len == 103 && le32toh(got.train.link) == 2,
	   "the third speaks to the second over its own link");
	vm_free_bufs(&a);
	vm_free_bufs(&b);
	vm_free_bufs(&c);
	vm_disconnect(&a);
	vm_disconnect(&b);
	vm_disconnect(&c);
	ok(vm_stop(&a) == 0 && vm_stop(&b) == 0 && vm_stop(&c) == 0,
	   "all three end well");
}

int main(void)
{
	static const struct setup setups[] = {
		{ "pv vxlan whole", "vxlan", "whole", true, true, 4096, 128, 9000, NULL },
		{ "pv vnet-udp whole", "vnet-udp", "whole", true, true, 65700, 8,
		  9000, NULL },
		{ "pv to stock, whole", "vxlan", "whole", true, false, 2048, 128,
		  9000, NULL },
		{ "stock, whole", "vnet-udp", "whole", false, false, 1530, 128,
		  1500, NULL },
		{ "pv vxlan segmented", "vxlan", "segmented", true, true, 4096, 200,
		  1450, NULL },
		{ "pv to stock, segmented", "vnet-udp", "segmented", true, false,
		  2048, 200, 1458, NULL },
		{ "few rx buffers", "vxlan", "whole", true, true, 600, 120, 9000, NULL },
		{ "over IPv6", "vxlan", "whole", true, true, 4096, 128, 9000, "[::1]" },
	};
	unsigned int i;

	rig_init();
	for (i = 0; i < sizeof(setups) / sizeof(setups[0]); i++)
		run(&setups[i]);
	three();
	rig_done();
	return tap_done();
}
