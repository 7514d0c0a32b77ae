// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A virtual machine's whole software: it drives a virtio network device with MSI-X,
 * and exchanges frames, of which it checks every byte, with a second machine of
 * its kind. It is small and 32-bit because that runs on every KVM (docs/kvm.md).
 *
 * The test (tests/kvm/run) commands both machines over their serial ports, a byte
 * at a time; each is answered by one line that begins with @, and the next is not
 * given before both have answered:
 *
 *   p, e, v   reset the device and set it up with the features of a set
 *   0 .. 4    one round of frames
 *   q         end
 *
 * In a round the machine whose address ends in 01 sends frames, no more than a
 * window ahead of what it has received, and the other sends a frame of its own
 * for each that it gets. So no frame can be lost for want of buffers, and one
 * that is lost, or an interrupt or doorbell that is, stops the round for ever:
 * the test gives up. Between frames a machine sleeps, and looks at its rings only
 * after an interrupt (with EVENT_IDX, also before it goes to sleep).
 */
#include <linux/virtio_config.h>

#include "frames.h"
#include "virtio.h"
#include "vnet_train.h"

#define FIRST_MACHINE 0x01 /* last byte of its MAC address */
#define OTHER_MACHINE(byte) ((byte) ^ 0x03)
#define MTU_DEFAULT 1500
#define HEADER_MAX (sizeof(struct vnet_train_hdr) + VNET_VXLAN_LEN)
#define TX_SLOTS 64 /* of two descriptors each */
#define RX_BUFFERS 256
#define RX_SMALL 2048	 /* mergeable: a frame takes several */
#define RX_LARGE (FRAME_MAX + 256)

enum lengths {
	SHORTEST,
	LONGEST,
	EACH,  /* from the shortest on, one more each time */
	MIXED, /* by chance, as it seems */
};

static const struct round {
	uint32_t frames, window;
	enum lengths first, second; /* of the two machines' frames */
} rounds[] = {
	{ 600, 1, MIXED, MIXED }, /* one at a time: nothing coalesces */
	{ 1405, 32, EACH, EACH }, /* with an MTU of 1450: all lengths there are */
	{ 300, 32, LONGEST, SHORTEST },
	{ 300, 32, SHORTEST, LONGEST },
	{ 500, 32, MIXED, MIXED },
};
#define ROUNDS (sizeof(rounds) / sizeof(rounds[0]))

static struct device dev;
static uint8_t peer[VNET_MAC_LEN];
static uint32_t frame_max; /* bytes, with the Ethernet header */
static uint32_t sets;	   /* done so far; tells the rounds of different sets apart */

static struct {
	uint8_t header[HEADER_MAX];
	uint8_t frame[FRAME_MAX];
	struct vring_desc table[2]; /* indirect */
} tx_slot[TX_SLOTS] __attribute__((aligned(16)));
static uint16_t tx_free[TX_SLOTS], tx_free_count;
static uint8_t rx_buffer[RX_BUFFERS][RX_LARGE] __attribute__((aligned(16)));
static uint32_t rx_size; /* of each buffer that is used */

/* The round under way. */
static struct {
	const struct round *round;
	uint32_t number;
	uint32_t sent, received, bytes;
	uint32_t taken[VECTORS]; /* interrupts that have been acted upon */
} now;

static bool is_first(const uint8_t *mac)
{
	return mac[VNET_MAC_LEN - 1] == FIRST_MACHINE;
}

static bool paravirt(void)
{
	return device_has(&dev, VNET_F_PARAVIRT_BIT);
}

/* ---- what is in front of a frame ---- */

static uint32_t header_len(void)
{
	if (paravirt())
		return sizeof(struct vnet_train_hdr) + dev.vendor.encap_len;
	return sizeof(struct virtio_net_hdr_v1);
}

static void check_encapsulation(void)
{
	const uint32_t want =
		dev.vendor.encap_type == VNET_ENCAP_VXLAN ? VNET_VXLAN_LEN : 0;

	if (dev.vendor.encap_len != want)
		fail("length of the encapsulation", dev.vendor.encap_len, want);
}

static void vxlan_header(struct vnet_vxlan_hdr *h)
{
	h->flags = __builtin_bswap32(VNET_VXLAN_FLAG_VNI);
	h->vni = __builtin_bswap32(dev.vendor.tenant << 8);
}

static void build_header(uint8_t *to, uint32_t frame_len)
{
	struct vnet_train_hdr *train = (void *)to;

	memset(to, 0, header_len());
	if (!paravirt())
		return; /* no checksum, no segmentation: zeros */
	train->version = VNET_TRAIN_VERSION;
	train->form = VNET_TRAIN_WHOLE;
	train->encap_len = dev.vendor.encap_len;
	train->generation = dev.vendor.generation;
	train->train_len = dev.vendor.encap_len + frame_len;
	if (dev.vendor.encap_type == VNET_ENCAP_VXLAN)
		vxlan_header((void *)(train + 1));
}

/* Length of what is in front of the frame in `data`, which says how many buffers
 * the frame takes. */
static uint32_t check_header(const uint8_t *data, uint32_t len,
			     uint16_t *buffers)
{
	const struct vnet_train_hdr *train = (const void *)data;
	struct vnet_vxlan_hdr vxlan;

	if (len < header_len())
		fail("received less than the header", len, header_len());
	if (!paravirt()) {
		*buffers = ((const struct virtio_net_hdr_v1 *)data)->num_buffers;
		return header_len();
	}
	if (train->version != VNET_TRAIN_VERSION || train->form != VNET_TRAIN_WHOLE ||
	    train->encap_len != dev.vendor.encap_len)
		fail("train header, encapsulation's length", train->encap_len,
		     dev.vendor.encap_len);
	*buffers = train->num_buffers;
	if (dev.vendor.encap_type == VNET_ENCAP_VXLAN) {
		vxlan_header(&vxlan);
		if (memcmp(train + 1, &vxlan, sizeof(vxlan)) != 0)
			fail("received encapsulation is not this tenant's", 0, 0);
	}
	return header_len();
}

/* ---- frames of a round ---- */

static uint32_t frame_len(bool first, uint32_t number)
{
	const uint32_t range = frame_max - FRAME_MIN + 1;

	switch (first ? now.round->first : now.round->second) {
	case SHORTEST:
		return FRAME_MIN;
	case LONGEST:
		return frame_max;
	case EACH:
		return FRAME_MIN + number % range;
	case MIXED:
		break;
	}
	return FRAME_MIN + (number * 2654435761u >> 8) % range;
}

static void name_frame(struct frame_id *id, const uint8_t *from,
		       const uint8_t *to, uint32_t number)
{
	memcpy(id->from, from, VNET_MAC_LEN);
	memcpy(id->to, to, VNET_MAC_LEN);
	id->round = sets << 8 | now.number;
	id->number = number;
}

static void describe(struct vring_desc *d, const void *data, uint32_t len,
		     uint16_t flags, uint16_t next)
{
	*d = (struct vring_desc){
		.addr = (uint32_t)data, .len = len, .flags = flags, .next = next
	};
}

static void send_frame(void)
{
	const uint16_t slot = tx_free[--tx_free_count];
	const uint32_t len = frame_len(is_first(dev.mac), now.sent);
	struct vring_desc *d = &dev.tx.desc[2 * slot];
	struct frame_id id;
	const bool indirect = device_has(&dev, VIRTIO_RING_F_INDIRECT_DESC);

	name_frame(&id, dev.mac, peer, now.sent);
	build_header(tx_slot[slot].header, len);
	frame_build(tx_slot[slot].frame, len, &id);
	if (indirect) {
		describe(d, tx_slot[slot].table, sizeof(tx_slot[slot].table),
			 VRING_DESC_F_INDIRECT, 0);
		d = tx_slot[slot].table;
	}
	describe(&d[0], tx_slot[slot].header, header_len(), VRING_DESC_F_NEXT,
		 indirect ? 1 : 2 * slot + 1);
	describe(&d[1], tx_slot[slot].frame, len, 0, 0);
	queue_post(&dev.tx, 2 * slot);
	queue_kick(&dev.tx);
	now.sent++;
}

static void take_sent(void)
{
	uint16_t head;
	uint32_t len;

	while (queue_take(&dev.tx, &head, &len)) {
		if (head % 2 || head / 2 >= TX_SLOTS)
			fail("returned tx descriptor", head, 0);
		tx_free[tx_free_count++] = head / 2;
	}
}

static void post_rx(uint16_t i)
{
	describe(&dev.rx.desc[i], rx_buffer[i], rx_size, VRING_DESC_F_WRITE, 0);
	queue_post(&dev.rx, i);
}

static uint8_t *take_rx(uint32_t *len)
{
	uint16_t head;

	if (!queue_take(&dev.rx, &head, len))
		return NULL;
	if (head >= RX_BUFFERS || *len > rx_size)
		fail("received into a buffer, bytes", *len, rx_size);
	/* posted now, told to the device after the frame has been looked at */
	post_rx(head);
	return rx_buffer[head];
}

/* Takes a frame, of one or more buffers, and compares it. False: there is none. */
static bool receive_frame(void)
{
	const uint32_t want = frame_len(is_first(peer), now.received);
	uint32_t len, at = 0;
	const uint8_t *data = take_rx(&len);
	struct frame_id id;
	uint16_t buffers;
	uint32_t header;

	if (!data)
		return false;
	header = check_header(data, len, &buffers);
	data += header;
	len -= header;
	name_frame(&id, peer, dev.mac, now.received);
	for (;;) {
		if (len > want - at)
			fail("received frame is too long", at + len, want);
		if (!frame_check(data, at, len, want, &id))
			fail("received frame has wrong bytes at", at, now.received);
		at += len;
		if (buffers-- <= 1)
			break;
		data = take_rx(&len);
		if (!data)
			fail("received frame lacks buffers", buffers, at);
	}
	if (at != want)
		fail("length of a received frame", at, want);
	now.received++;
	now.bytes += at;
	return true;
}

/* ---- rounds ---- */

/* The end of a line: what has been since the machine came up. */
static void print_totals(void)
{
	device_flush();
	print_value("config_interrupts", interrupts[VECTOR_CONFIG]);
	print_value("rx_interrupts", interrupts[VECTOR_RX]);
	print_value("tx_interrupts", interrupts[VECTOR_TX]);
	print_value("rx_kicks", dev.rx.kicks);
	print_value("tx_kicks", dev.tx.kicks);
	print("\n");
}

static bool may_send(void)
{
	if (now.sent == now.round->frames || !tx_free_count)
		return false;
	if (is_first(dev.mac))
		return now.sent < now.received + now.round->window;
	return now.sent < now.received;
}

static bool interrupted(enum vector vector)
{
	return now.taken[vector] != interrupts[vector];
}

static void act_on_interrupts(void)
{
	if (interrupted(VECTOR_TX)) {
		now.taken[VECTOR_TX] = interrupts[VECTOR_TX];
		take_sent();
	}
	if (interrupted(VECTOR_RX)) {
		now.taken[VECTOR_RX] = interrupts[VECTOR_RX];
		while (receive_frame())
			;
		queue_kick(&dev.rx);
	}
}

/* Asks for interrupts; true: there is something already. */
static bool armed_too_late(void)
{
	const uint16_t under_way = TX_SLOTS - tx_free_count;
	bool late = false;

	if (queue_arm(&dev.rx, 1)) {
		while (receive_frame())
			;
		queue_kick(&dev.rx);
		late = true;
	}
	if (under_way && queue_arm(&dev.tx, under_way - under_way / 4)) {
		take_sent();
		late = true;
	}
	return late;
}

static void play(uint32_t number)
{
	now.round = &rounds[number];
	now.number = number;
	now.sent = now.received = now.bytes = 0;
	for (;;) {
		while (may_send())
			send_frame();
		if (now.received == now.round->frames &&
		    now.sent == now.round->frames && tx_free_count == TX_SLOTS)
			break;
		if (armed_too_late())
			continue;
		while (!interrupted(VECTOR_RX) && !interrupted(VECTOR_TX))
			wait_interrupt();
		act_on_interrupts();
	}
	print("@round");
	print_value("frames", now.round->frames);
	print_value("window", now.round->window);
	print_value("sent", now.sent);
	print_value("received", now.received);
	print_value("bytes", now.bytes);
	print_totals();
}

/* ---- sets ---- */

static void set_up(uint64_t features)
{
	uint16_t i;

	device_reset(&dev, VNET_BIT_MASK(VIRTIO_F_VERSION_1) |
				   VNET_BIT_MASK(VIRTIO_NET_F_MAC) |
				   VNET_BIT_MASK(VIRTIO_NET_F_MTU) | features);
	if (2 * TX_SLOTS > dev.tx.num || RX_BUFFERS > dev.rx.num)
		fail("ring size", dev.tx.num, 2 * TX_SLOTS);
	frame_max = (dev.mtu ? dev.mtu : MTU_DEFAULT) + 14;
	if (frame_max > FRAME_MAX)
		fail("MTU", dev.mtu, FRAME_MAX - 14);
	if (paravirt())
		check_encapsulation();
	/* of the session before, after whose end there are no more */
	drain_interrupts();
	for (i = 0; i < TX_SLOTS; i++)
		tx_free[i] = i;
	tx_free_count = TX_SLOTS;
	rx_size = paravirt() || device_has(&dev, VIRTIO_NET_F_MRG_RXBUF) ?
			  RX_SMALL :
			  RX_LARGE;
	for (i = 0; i < RX_BUFFERS; i++)
		post_rx(i);
	device_go(&dev);
	sets++;
	print("@set");
	print_hex("features_low", (uint32_t)dev.features);
	print_hex("features_high", dev.features >> 32);
	print_value("frame_max", frame_max);
	print_hex("rx_doorbell", (uint32_t)dev.rx.doorbell);
	print_hex("tx_doorbell", (uint32_t)dev.tx.doorbell);
	print_totals();
}

/* What the shim has raised for setting up: it rings when it is given an interrupt. */
static void settle(void)
{
	drain_interrupts();
	print("@settled");
	print_totals();
}

void payload_main(void);

void payload_main(void)
{
	const uint64_t rings = VNET_BIT_MASK(VIRTIO_RING_F_EVENT_IDX) |
			       VNET_BIT_MASK(VIRTIO_RING_F_INDIRECT_DESC);

	interrupts_init();
	frames_init();
	device_find(&dev);
	memcpy(peer, dev.mac, sizeof(peer));
	peer[VNET_MAC_LEN - 1] = OTHER_MACHINE(peer[VNET_MAC_LEN - 1]);
	print("@up");
	print_value("first", is_first(dev.mac));
	print_value("mtu", dev.mtu);
	print("\n");
	for (;;) {
		const char c = read_command();

		if (c == 'p')
			set_up(0);
		else if (c == 'e')
			set_up(rings | VNET_BIT_MASK(VIRTIO_NET_F_MRG_RXBUF));
		else if (c == 'v')
			set_up(rings | VNET_BIT_MASK(VNET_F_PARAVIRT_BIT));
		else if (c == 's')
			settle();
		else if (c >= '0' && c < (char)('0' + ROUNDS))
			play(c - '0');
		else if (c == 'q')
			quit(0);
		else
			fail("unknown command", c, 0);
	}
}
