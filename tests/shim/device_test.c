// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The device between a front end and one shim: offer, config space, control
 * queue, receive filter, offloads of a driver that accepts few, changes of the
 * configuration under a running VM, front ends that come and go.
 */
#include "shim_rig.h"

static struct vm a, b;
static const uint8_t stranger[6] = { 0x52, 0x54, 0, 0x4e, 0x50, 9 };

static void body(char *text, const char *encap, int me, const char *more)
{
	sprintf(text,
		"tenant 5\nmtu 1450\nencap %s\nqueues 2\n"
		"link peer udp local 127.0.0.1:%d remote 127.0.0.1:%d%s"
		"route dst any link peer\n",
		encap, 21030 + me, 21031 - me, more);
}

static void config_space(void)
{
	uint8_t buf[sizeof(struct vu_config) + 256] = { 0 };
	const struct vu_config c = { 0, 256, 0 };
	struct virtio_net_config net;
	struct vnet_vendor_block block;

	memcpy(buf, &c, sizeof(c));
	vu_send(a.sock, VU_GET_CONFIG, VU_VERSION, buf, sizeof(buf), NULL, 0);
	is_int(vu_recv(a.sock, VU_GET_CONFIG, buf, sizeof(buf)), sizeof(buf),
	       "the whole config space in one read");
	memcpy(&net, buf + sizeof(c), sizeof(net));
	ok(!memcmp(net.mac, a.mac, 6) && le16toh(net.status) == 1 &&
		   le16toh(net.max_virtqueue_pairs) == 2 && le16toh(net.mtu) == 1450,
	   "virtio's part");
	memcpy(&block, buf + sizeof(c) + VNET_VENDOR_CONFIG_OFFSET, sizeof(block));
	ok(le32toh(block.magic) == VNET_VENDOR_MAGIC && le16toh(block.version) == 1 &&
		   le16toh(block.size) == 64 && !block.features &&
		   le32toh(block.tenant) == 5 && le16toh(block.encap_len) == 8 &&
		   le16toh(block.encap_len_max) >= 8 &&
		   block.encap_type == VNET_ENCAP_VXLAN &&
		   block.train_form == VNET_TRAIN_WHOLE &&
		   block.vtoe_state == VNET_VTOE_ABSENT && !block.vtoe_first_queue,
	   "and the vendor block of a VM without offload");
}

/* A control command; its answer, or -1. */
static int command(uint8_t class, uint8_t cmd, const void *data, uint32_t len)
{
	struct buf *out = buf_new(&a, 64), *in = buf_new(&a, 1);
	const struct ring_piece pieces[] = { { out->gpa, 2 },
					     { out->gpa + 2, len },
					     { in->gpa, 1 } };
	uint8_t *bytes = ring_memory_at(&a.mem, out->gpa);
	int answer = -1;
	uint32_t n;

	bytes[0] = class;
	bytes[1] = cmd;
	memcpy(bytes + 2, data, len);
	ring_driver_add(&a.q[4], pieces, 2, 1, out, 0);
	ring_driver_kick(&a.q[4]);
	if (wait_until(ring_driver_get_used(&a.q[4], &n)) && n == 1)
		answer = *(uint8_t *)ring_memory_at(&a.mem, in->gpa);
	free(out);
	free(in);
	return answer;
}

static void send_to_a(const uint8_t *dst, uint32_t len)
{
	static uint8_t frame[2000], out[2100];
	struct vnet_vendor_block block;

	vm_block(&b, &block);
	make_frame(frame, dst, b.mac, len, 1);
	vm_send(&b, out, make_train(out, &block, frame, len), 4096);
}

static void control(void)
{
	static struct frame got;
	long long n;

	is_int(command(VIRTIO_NET_CTRL_MQ, 0, "\x02\x00", 2), 0, "two pairs");
	is_int(command(VIRTIO_NET_CTRL_MQ, 0, "\x03\x00", 2), 1, "three are too many");
	is_int(command(VIRTIO_NET_CTRL_MQ, 0, "\x01\x00", 2), 0, "one pair");
	is_int(command(VIRTIO_NET_CTRL_MQ, 0, "\x01\x00\x00", 3), 1, "one, too long");
	is_int(command(99, 0, "\x01", 1), 1, "an unknown class");
	n = vm_stat(&a, "rx_drop_not_ours");
	send_to_a(stranger, 100);
	ok(wait_until(vm_stat(&a, "rx_drop_not_ours") == n + 1),
	   "a frame for another station is dropped");
	is_int(command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, "\x01", 1), 0,
	       "promiscuous");
	send_to_a(stranger, 101);
	ok(vm_receive(&a, &got) && got.len == 101, "now it is delivered");
	is_int(command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, "\x00", 1), 0,
	       "and no more");
	is_int(command(VIRTIO_NET_CTRL_RX, VIRTIO_NET_CTRL_RX_PROMISC, "\x02", 1), 1,
	       "a mode that is no bool");
}

/* ---- reload ---- */

static void reload(const char *text)
{
	vm_config(&a, text);
	kill(a.pid, SIGHUP);
}

static void reloads(void)
{
	static uint8_t frame[300], out[400];
	static struct frame got;
	struct vnet_vendor_block before, after;
	char text[1024];
	uint32_t n;

	vm_block(&a, &before);
	vm_config_changes(&a);
	body(text, "vxlan", 0, "\nbad line\n");
	reload(text);
	ok(wait_until(log_has(&a, "stays in force")) &&
		   log_has(&a, "a.conf:9: there is no directive"),
	   "a bad file is refused with its line");
	body(text, "vnet-udp", 0, " form whole mtu 1400\n");
	reload(text);
	ok(wait_until(vm_block(&a, &after) && after.generation != before.generation),
	   "a new encapsulation is a new generation");
	ok(after.encap_type == VNET_ENCAP_VNET_UDP && !after.encap_len &&
		   vm_config_changes(&a) == 1,
	   "the guest is told");
	/* a train of the old generation in flight */
	make_frame(frame, b.mac, a.mac, 200, 4);
	n = make_train(out, &before, frame, 200);
	ok(vm_send(&a, out, n, 4096) && vm_receive(&b, &got) && got.len == 200 &&
		   !got.encap_len && !memcmp(got.data, frame, 200),
	   "a train with the old encapsulation is carried over");
	((struct vnet_train_hdr *)out)->generation = after.generation;
	vm_send(&a, out, n, 4096);
	is_int(vm_stat(&a, "tx_drop_encap"), 1,
	       "one that claims to be new is not");
	n = make_train(out, &after, frame, 200);
	ok(vm_send(&a, out, n, 4096) && vm_receive(&b, &got) && got.len == 200,
	   "one with the new encapsulation is sent");
	body(text, "vnet-udp", 0, " form segmented\n");
	reload(text);
	ok(wait_until(vm_block(&a, &after) &&
		      after.train_form == VNET_TRAIN_SEGMENTED),
	   "a segmented link changes the form");
	body(text, "vxlan", 0, "\n");
	reload(text);
	ok(wait_until(vm_block(&a, &after) && after.train_form == VNET_TRAIN_WHOLE),
	   "and back");
}

/* ---- drivers that accept little ---- */

static void few_features(void)
{
	static uint8_t frame[200], out[300];
	static struct frame got;
	struct vnet_vendor_block block;
	struct vnet_train_hdr *h = (void *)out;
	const uint64_t offloads = vm_stat(&a, "rx_drop_offload");
	uint32_t sum = 0;
	char text[1024];
	int i;

	vm_free_bufs(&a);
	vm_disconnect(&a);
	ok(vm_connect(&a, STOCK_FEATURES & ~VNET_BIT_MASK(VIRTIO_NET_F_MRG_RXBUF), 5),
	   "another front end, a stock driver without offloads");
	vm_post_rx(&a, 16, 1600);
	vm_block(&b, &block);
	make_frame(frame, a.mac, b.mac, 200, 7);
	frame[40] = 0;
	frame[41] = 0;
	vm_send(&b, out, make_train(out, &block, frame, 200), 4096);
	ok(vm_receive(&a, &got) && got.len == 200, "a plain frame arrives");
	/* checksum left to us */
	make_train(out, &block, frame, 200);
	h->flags = 1;
	h->csum_start = htole16(34);
	h->csum_offset = htole16(6);
	vm_send(&b, out, sizeof(*h) + 8 + 200, 4096);
	ok(vm_receive(&a, &got) && got.len == 200 && got.virtio.flags == 0,
	   "one whose checksum is open arrives");
	for (i = 34; i < 200; i += 2)
		sum += got.data[i] << 8 | got.data[i + 1];
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	is_int(sum, 0xffff, "with the checksum filled in");
	h->gso_type = VNET_GSO_TCPV4;
	h->gso_size = htole16(100);
	vm_send(&b, out, sizeof(*h) + 8 + 200, 4096);
	ok(wait_until(vm_stat(&a, "rx_drop_offload") == (long long)offloads + 1),
	   "an unsegmented one does not");
	body(text, "vxlan", 0, " form segmented\n");
	reload(text);
	ok(wait_until(!(vu_get(a.sock, VU_GET_FEATURES) &
			VNET_BIT_MASK(VIRTIO_NET_F_CSUM))),
	   "no offloads in use: a segmented link may come");
}

static void promise(void)
{
	char text[1024];
	uint64_t offer;

	offer = vu_get(a.sock, VU_GET_FEATURES);
	ok(!(offer & VNET_BIT_MASK(VIRTIO_NET_F_CSUM)) &&
		   !(offer & VNET_BIT_MASK(VIRTIO_NET_F_HOST_TSO4)) &&
		   (offer & VNET_BIT_MASK(VIRTIO_NET_F_GUEST_TSO4)),
	   "with it the host offers no checksum and no TSO");
	body(text, "vxlan", 0, "\n");
	reload(text);
	ok(wait_until(vu_get(a.sock, VU_GET_FEATURES) &
		      VNET_BIT_MASK(VIRTIO_NET_F_CSUM)),
	   "without it does");
	vm_free_bufs(&a);
	vm_disconnect(&a);
	ok(vm_connect(&a, STOCK_FEATURES | VNET_BIT_MASK(VIRTIO_NET_F_CSUM) |
				  VNET_BIT_MASK(VIRTIO_NET_F_HOST_TSO4), 5),
	   "a stock driver with them");
	body(text, "vxlan", 0, " form segmented\n");
	reload(text);
	ok(wait_until(log_has(&a, "segmented links cannot come")),
	   "then a segmented link may not come");
}

/* A driver without event indices, and buffers in single descriptors. */
static void plain_rings(void)
{
	static uint8_t frame[3000], out[3100];
	static struct frame got;
	struct vnet_vendor_block block;
	bool good = true;
	int i;

	vm_free_bufs(&a);
	vm_disconnect(&a);
	ok(vm_connect(&a, VNET_BIT_MASK(VIRTIO_F_VERSION_1) |
				  VNET_BIT_MASK(VNET_F_PARAVIRT_BIT), 5),
	   "a driver with flags instead of event indices");
	vm_post_rx(&a, 16, 500);
	vm_block(&a, &block);
	for (i = 0; i < 300 && good; i++) {
		make_frame(frame, b.mac, a.mac, 2900, i);
		good = vm_send(&a, out, make_train(out, &block, frame, 2900), 65536) &&
		       vm_receive(&b, &got) && !memcmp(got.data, frame, 2900);
		send_to_a(a.mac, 100 + i);
		good = good && vm_receive(&a, &got) && got.len == 100u + i;
	}
	ok(good, "300 frames each way");
	ok(vm_stat(&a, "rx_drop_no_buffer") == 0, "none was lost");
}

/* The second pair's tx queue. */
static void second_pair(void)
{
	static uint8_t frame[400], out[500];
	static struct frame got;
	struct vnet_vendor_block block;
	bool good = true;
	int i;

	vm_block(&a, &block);
	a.tx_queue = 3;
	for (i = 0; i < 20 && good; i++) {
		make_frame(frame, b.mac, a.mac, 300, i);
		good = vm_send(&a, out, make_train(out, &block, frame, 300), 4096) &&
		       vm_receive(&b, &got) && !memcmp(got.data, frame, 300);
	}
	a.tx_queue = 0;
	ok(good, "20 frames by the second pair");
}

/* To one with a config space of its own, as QEMU's virtio-net, these are pairs. */
static void queue_numbers(void)
{
	const uint64_t all = vu_get(a.sock, VU_GET_PROTOCOL_FEATURES);

	is_int(vu_get(a.sock, VU_GET_QUEUE_NUM), 5, "two pairs and control");
	vu_u64(a.sock, VU_SET_PROTOCOL_FEATURES,
	       all & ~VNET_BIT_MASK(VU_PROTOCOL_F_CONFIG_BIT));
	is_int(vu_get(a.sock, VU_GET_QUEUE_NUM), 2, "two pairs");
	vu_u64(a.sock, VU_SET_PROTOCOL_FEATURES, all);
}

int main(void)
{
	char text[1024];

	rig_init();
	body(text, "vxlan", 0, "\n");
	vm_start(&a, "a", 1, text);
	body(text, "vxlan", 1, "\n");
	vm_start(&b, "b", 2, text);
	ok(vm_connect(&a, PV_FEATURES, 5) && vm_connect(&b, PV_FEATURES, 5),
	   "front ends connect");
	queue_numbers();
	vm_post_rx(&a, 16, 2048);
	vm_post_rx(&b, 16, 2048);
	config_space();
	control();
	second_pair();
	reloads();
	few_features();
	promise();
	plain_rings();
	vm_free_bufs(&a);
	vm_free_bufs(&b);
	vm_disconnect(&a);
	vm_disconnect(&b);
	ok(vm_stop(&a) == 0, "shim a ends well");
	ok(vm_stop(&b) == 0, "shim b ends well");
	rig_done();
	return tap_done();
}
