// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The in-band carrier of the vendor block (proto/vnet_hello.h).
 *
 *            HELLO on tx0, answered
 *   stock ---------------------------> in band (dev.in_band)
 *    ^  ^ <---------------------------  GOODBYE, rings that begin anew
 *    │  │
 *    │  └ a frame in stock framing, or ASK_MS without any
 *   asking <-------------------------- rings in use, by somebody we do not know
 *
 * Changing between stock and in band changes what the reserved queues are, so
 * they are stopped before and started again behind it (queue.c says which are
 * what). Pair 0 goes on.
 *
 * Asking. A restarted shim finds rings that are not at their beginning. That is
 * a stock driver or vnet_pv, which differ in what stands in front of each frame.
 * ASK is the first thing that rx0 gets. Until the answer no frame is delivered,
 * since vnet_pv would take a stock header for a train's, and of the tx queues only
 * tx0 is looked at: a frame with this VM's source address where the stock framing
 * has it is a stock driver's, and the VM's network goes on at once. vnet_pv's trains
 * fail that check and are dropped; it resets the device and says HELLO.
 *
 * QEMU's protocol has a memory of rings for a restarted back end, in-flight
 * records; it would tell about used buffers, but not what the driver is, and the
 * offload's queues were with the agent, which has let the VM go. A reset gives all
 * of their buffers back in a way that every device has.
 *
 * Threat model. Messages come from the guest, maybe from a raw socket under a
 * stock driver: its administrator can make his VM speechless, as with
 * `ip link set down`. Each is copied once. There is room for one answer at a time,
 * and none is built before there is a buffer for it, so many cost no more than one.
 */
#include <endian.h>
#include <string.h>

#include "log.h"
#include "shim.h"

#define ASK_MS 1000

struct message {
	struct virtio_net_hdr_v1 virtio;
	uint8_t dst[VNET_MAC_LEN], src[VNET_MAC_LEN];
	__be16 type;
	struct vnet_hello hello;
} __attribute__((packed));

static const uint8_t address[VNET_MAC_LEN] = VNET_HELLO_DST;
/* Locally administered; "VNET". Frames need a source. */
static const uint8_t our_address[VNET_MAC_LEN] = { 0x02, 'V', 'N', 'E', 'T', 0 };

static void asked_for_long(void *ctx);

int shim_hello_init(struct shim *shim)
{
	shim->hello.timer = loop_timer_create(shim->loop, asked_for_long, shim);
	if (shim->hello.timer)
		return 0;
	log_err("no memory");
	return -1;
}

void shim_hello_destroy(struct shim *shim)
{
	loop_timer_destroy(shim->hello.timer);
}

void shim_hello_reset(struct shim *shim)
{
	struct shim_hello *h = &shim->hello;

	h->pending = 0;
	h->asking = false;
	loop_timer_disarm(h->timer);
	shim->dev.in_band = false;
	shim_queues_assign(shim);
}

/* ---- stock or in band ---- */

static void set_in_band(struct shim *shim, bool in_band)
{
	const unsigned int from = shim_queues_reserved(shim);
	const unsigned int to = from + 2 * VNET_HELLO_RESERVED_PAIRS;
	unsigned int i;

	shim_attach_reset(shim); /* if there was an agent, it has let go */
	for (i = from; i < to; i++)
		shim_queue_stop(&shim->queue[i]);
	/* what has arrived is laid out for the other framing */
	shim_rx_flush(shim);
	shim->dev.in_band = in_band;
	shim->dev.encap_types = 1u << shim->conf->encap;
	shim_queues_assign(shim);
	for (i = from; i < to; i++)
		shim_queue_update(&shim->queue[i]);
}

static void decided(struct shim *shim)
{
	struct shim_hello *h = &shim->hello;

	if (!h->asking)
		return;
	h->asking = false;
	loop_timer_disarm(h->timer);
	shim_rx_resume(shim);
}

static void leave(struct shim *shim, const char *why)
{
	if (!shim->dev.in_band)
		return;
	log_info("vm %s: vnet_pv leaves the device: %s", shim->conf->vm, why);
	shim->hello.pending = 0;
	shim->hello.leaving = true;
	set_in_band(shim, false);
	shim->hello.leaving = false;
}

/* ---- to the driver ---- */

static void build(struct shim *shim, struct message *m)
{
	const struct shim_hello *h = &shim->hello;
	struct vnet_vendor_block block = { 0 };

	*m = (struct message){
		.virtio.num_buffers = htole16(1),
		.type = htobe16(VNET_HELLO_ETHERTYPE),
		.hello = {
			.magic = htole32(VNET_HELLO_MAGIC),
			.version = htole16(VNET_HELLO_VERSION),
			.size = htole16(sizeof(m->hello)),
			.type = h->pending,
		},
	};
	memcpy(m->dst, address, VNET_MAC_LEN);
	memcpy(m->src, our_address, VNET_MAC_LEN);
	switch (h->pending) {
	case VNET_HELLO_ANSWER:
		m->hello.pairs = htole16(shim->conf->pairs);
		m->hello.mtu = htole16(shim->conf->mtu);
		m->hello.cookie = htole32(h->cookie);
		break;
	case VNET_HELLO_REFUSE:
		m->hello.reason = h->reason;
		m->hello.pairs = htole16(shim_config_net_pairs(shim->conf));
		m->hello.cookie = htole32(h->cookie);
		break;
	}
	if (h->pending == VNET_HELLO_ANSWER || h->pending == VNET_HELLO_CHANGE)
		shim_device_block(shim, &block);
	m->hello.block = block;
}

static void count(struct shim *shim)
{
	switch (shim->hello.pending) {
	case VNET_HELLO_ANSWER:
		shim->stats.hello_answers++;
		break;
	case VNET_HELLO_REFUSE:
		shim->stats.hello_refusals++;
		break;
	case VNET_HELLO_CHANGE:
		shim->stats.hello_changes++;
		break;
	case VNET_HELLO_ASK:
		shim->stats.hello_asks++;
		break;
	}
}

void shim_hello_flush(struct shim *shim)
{
	struct shim_rx *rx = &shim->rx[0];
	struct shim_queue *q = rx->queue;
	struct message m;

	if (!shim->hello.pending || q->state != SHIM_QUEUE_LOCAL ||
	    q->vq.broken)
		return;
	/* the window's first buffer is wanted */
	shim_rx_close_open(rx);
	do {
		if (!shim_window_fill(&rx->window, &q->vq, sizeof(m))) {
			shim_queue_broken(q);
			return;
		}
		/* the guest rings when it has posted one */
	} while (!rx->window.count && virtq_enable_kicks(&q->vq));
	if (!rx->window.count)
		return;
	if (shim_window_room(&rx->window, false) >= sizeof(m)) {
		build(shim, &m);
		shim_window_copy_in(&rx->window, 0, &m, sizeof(m));
		shim_window_use(&rx->window, &q->vq, sizeof(m));
		virtq_publish_notify(&q->vq);
		count(shim);
	} else {
		log_warn("vm %s: the driver's receive buffers are too small for a message",
			 shim->conf->vm);
		shim->stats.hello_malformed++;
	}
	shim->hello.pending = 0;
}

static void say(struct shim *shim, uint8_t type)
{
	shim->hello.pending = type;
	shim_hello_flush(shim);
}

void shim_hello_changed(struct shim *shim)
{
	/* an ANSWER that waits will have the newest block */
	if (shim->dev.in_band && !shim->hello.leaving && !shim->hello.pending)
		say(shim, VNET_HELLO_CHANGE);
}

/* ---- from the driver ---- */

static void refuse(struct shim *shim, uint8_t reason)
{
	static const char *const words[] = {
		[VNET_HELLO_R_NONE] = "",
		[VNET_HELLO_R_VERSION] = "it speaks another version",
		[VNET_HELLO_R_LAYOUT] = "'front' is not 'in-band' here",
		[VNET_HELLO_R_PAIRS] = "the VM was started with another number of queue pairs",
		[VNET_HELLO_R_MAC] = "its MAC is not this VM's",
		[VNET_HELLO_R_QUEUE] = "it came on another queue than tx0",
	};

	_Static_assert(sizeof(words) / sizeof(words[0]) == VNET_HELLO_REASONS,
		       "words for each reason");
	if (shim->hello.pending != VNET_HELLO_REFUSE)
		log_warn("vm %s: vnet_pv's hello is refused: %s",
			 shim->conf->vm, words[reason]);
	shim->hello.reason = reason;
	say(shim, VNET_HELLO_REFUSE);
}

static void got_hello(struct shim *shim, unsigned int pair,
		      const struct message *m)
{
	shim->hello.cookie = le32toh(m->hello.cookie);
	if (le16toh(m->hello.version) != VNET_HELLO_VERSION) {
		refuse(shim, VNET_HELLO_R_VERSION);
		return;
	}
	if (!shim->conf->in_band) {
		refuse(shim, VNET_HELLO_R_LAYOUT);
		return;
	}
	if (pair) {
		refuse(shim, VNET_HELLO_R_QUEUE);
		return;
	}
	if (le16toh(m->hello.pairs) != shim_config_net_pairs(shim->conf)) {
		refuse(shim, VNET_HELLO_R_PAIRS);
		return;
	}
	if (memcmp(m->src, shim->conf->mac, VNET_MAC_LEN)) {
		refuse(shim, VNET_HELLO_R_MAC);
		return;
	}
	if (!shim->dev.in_band) {
		log_info("vm %s: vnet_pv says hello in band", shim->conf->vm);
		set_in_band(shim, true);
	}
	/* before a frame can be delivered */
	say(shim, VNET_HELLO_ANSWER);
	decided(shim);
}

static void malformed(struct shim *shim)
{
	shim->stats.hello_malformed++;
}

static bool sane(const struct message *m)
{
	return le16toh(m->hello.version) == VNET_HELLO_VERSION &&
	       le16toh(m->hello.size) >= sizeof(m->hello) && !m->hello.reason &&
	       !m->hello.mtu && !m->hello.reserved && !m->hello.reserved1;
}

bool shim_hello_is_message(const uint8_t *eth)
{
	return eth[2 * VNET_MAC_LEN] == VNET_HELLO_ETHERTYPE >> 8 &&
	       eth[2 * VNET_MAC_LEN + 1] == (VNET_HELLO_ETHERTYPE & 0xff) &&
	       !memcmp(eth, address, VNET_MAC_LEN);
}

bool shim_hello_received(struct shim *shim, unsigned int pair,
			 const struct virtq_chain *chain)
{
	struct message m = { 0 };
	const uint32_t len = virtq_copy_out(chain, 0, &m, sizeof(m));

	if (len < offsetof(struct message, hello) || m.virtio.flags ||
	    !shim_hello_is_message(m.dst))
		return false;
	if (len < offsetof(struct message, hello.block) ||
	    le32toh(m.hello.magic) != VNET_HELLO_MAGIC) {
		malformed(shim);
		return true;
	}
	/* as much as this every version has in common */
	if (m.hello.type == VNET_HELLO_HELLO &&
	    le16toh(m.hello.version) != VNET_HELLO_VERSION) {
		got_hello(shim, pair, &m);
		return true;
	}
	if (len < sizeof(m) || !sane(&m)) {
		malformed(shim);
		return true;
	}
	if (m.hello.type == VNET_HELLO_HELLO) {
		got_hello(shim, pair, &m);
	} else if (m.hello.type == VNET_HELLO_GOODBYE && !pair &&
		   shim->dev.in_band) {
		shim->stats.hello_goodbyes++;
		leave(shim, "it says goodbye");
	} else {
		malformed(shim);
	}
	return true;
}

/* ---- who is it? ---- */

bool shim_hello_holds(const struct shim *shim, unsigned int pair)
{
	return shim->hello.asking && pair;
}

bool shim_hello_holds_rx(const struct shim *shim)
{
	return shim->hello.asking;
}

void shim_hello_stock_frame(struct shim *shim, const uint8_t *eth)
{
	if (shim->hello.asking &&
	    !memcmp(eth + VNET_MAC_LEN, shim->conf->mac, VNET_MAC_LEN))
		decided(shim);
}

static void asked_for_long(void *ctx)
{
	decided(ctx);
}

void shim_hello_base_set(struct shim_queue *q, uint16_t base)
{
	struct shim *shim = q->shim;
	struct shim_hello *h = &shim->hello;

	if (!shim->conf->in_band || base == q->base)
		return;
	leave(shim, "its queues begin anew");
	if (!base || h->asking)
		return;
	log_info("vm %s: rings are in use: asking the driver what it is",
		 shim->conf->vm);
	h->asking = true;
	loop_timer_arm(h->timer, ASK_MS);
	say(shim, VNET_HELLO_ASK);
}
