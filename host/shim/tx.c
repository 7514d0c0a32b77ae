// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The way of a frame from the guest's tx ring to the links: take a chain, copy
 * its headers, verify the copies, look the links up, send (wire.c).
 *
 * A vnet_pv guest puts a struct vnet_train_hdr and its own encapsulation in
 * front; the frames are one of up to 64 KB (whole) or several of one size
 * (segmented). A stock guest puts a struct virtio_net_hdr_v1 in front and no
 * encapsulation. Both become a struct shim_frames. Messages of the in-band carrier
 * (vnet_hello.h) go to hello.c instead, and never to a link.
 *
 * Threat model: the guest writes to the chain while we look. Each header byte
 * that decides anything is copied once, and the copy is checked, used and sent.
 * Payload goes from guest memory to the kernel unseen: it is the guest's own.
 * What must hold before anything is sent:
 *  - lengths: the chain holds exactly what its header says, every frame at
 *    least an Ethernet header;
 *  - encapsulation: byte for byte this VM's;
 *  - source MAC: this VM's;
 *  - metadata: offsets within the frame (shim_meta_sane()).
 * A chain that fails is counted and returned like any other.
 */
#include <endian.h>
#include <string.h>
#include <sys/random.h>

#include "log.h"
#include "shim.h"
#include "wire.h"

#define BATCH 64
/* More bytes than this in one segmented train are refused. */
#define SEGMENTED_MAX (2u * 65536)

void shim_tx_init(struct shim *shim)
{
	/* not the ids that a predecessor's trains have in a peer's table */
	if (getrandom(&shim->tx.next_train_id, sizeof(shim->tx.next_train_id),
		      GRND_NONBLOCK) < 0)
		shim->tx.next_train_id = loop_now_us();
}

static void start_data(struct shim_frames *f, const struct virtq_chain *chain,
		       uint32_t offset)
{
	f->data = (struct shim_cursor){ .iov = chain->iov,
					.left = chain->out_count };
	shim_cursor_skip(&f->data, offset);
}

/* ---- stock driver ---- */

static bool read_stock(struct shim *shim, unsigned int pair,
		       const struct virtq_chain *chain, struct shim_frames *f)
{
	struct virtio_net_hdr_v1 h;
	uint32_t frame_len;

	if (virtq_copy_out(chain, 0, &h, sizeof(h)) != sizeof(h) ||
	    virtq_copy_out(chain, sizeof(h), f->eth, SHIM_ETH_LEN) !=
		    SHIM_ETH_LEN)
		goto malformed;
	frame_len = chain->out_bytes - sizeof(h);
	shim_meta_from_virtio(&f->meta, &h);
	if (!shim_meta_sane(&f->meta, frame_len))
		goto malformed;
	f->count = 1;
	f->skip = SHIM_ETH_LEN;
	f->payload = frame_len - SHIM_ETH_LEN;
	f->last_payload = f->payload;
	start_data(f, chain, sizeof(h));
	if (shim_hello_is_message(f->eth)) {
		shim_hello_received(shim, pair, chain);
		return false;
	}
	shim_hello_stock_frame(shim, f->eth);
	return true;

malformed:
	shim->stats.tx_drop_malformed++;
	return false;
}

/* ---- vnet_pv ---- */

/*
 * Which encapsulation a header of this length is, given what this VM has used
 * since its driver came up: a train in flight during a change has the old one.
 * -1: none.
 */
static int encap_type_of(const struct shim *shim,
			 const struct vnet_train_hdr *h)
{
	const uint16_t len = le16toh(h->encap_len);
	unsigned int type;

	if (len == shim_encap_len(shim->conf->encap))
		return shim->conf->encap;
	if (le32toh(h->generation) == shim->dev.generation)
		return -1;
	for (type = 0; type <= VNET_ENCAP_VXLAN; type++)
		if ((shim->dev.encap_types & (1u << type)) &&
		    shim_encap_len(type) == len)
			return type;
	return -1;
}

/* Copies and verifies the headers of the frame at `offset`. */
static bool read_headers(struct shim *shim, const struct virtq_chain *chain,
			 uint32_t offset, int type, uint8_t eth[SHIM_ETH_LEN])
{
	const uint16_t encap_len = shim_encap_len(type);
	uint8_t copy[SHIM_ENCAP_MAX + SHIM_ETH_LEN];
	const uint32_t len = encap_len + SHIM_ETH_LEN;

	if (virtq_copy_out(chain, offset, copy, len) != len) {
		shim->stats.tx_drop_malformed++;
		return false;
	}
	if (!shim_encap_is_ours(type, shim->conf->tenant, copy)) {
		shim->stats.tx_drop_encap++;
		return false;
	}
	memcpy(eth, copy + encap_len, SHIM_ETH_LEN);
	return true;
}

static bool read_whole(struct shim *shim, const struct vnet_train_hdr *h,
		       uint16_t encap_len, struct shim_frames *f)
{
	const uint32_t frame_len = le32toh(h->train_len) - encap_len;

	shim_meta_from_train(&f->meta, h);
	if (le16toh(h->seg_size) || !shim_meta_sane(&f->meta, frame_len)) {
		shim->stats.tx_drop_malformed++;
		return false;
	}
	f->count = 1;
	f->payload = frame_len - SHIM_ETH_LEN;
	f->last_payload = f->payload;
	return true;
}

static bool read_segmented(struct shim *shim, const struct virtq_chain *chain,
			   const struct vnet_train_hdr *h, int type,
			   struct shim_frames *f)
{
	const uint32_t train_len = le32toh(h->train_len);
	const uint32_t seg_size = le16toh(h->seg_size);
	const uint32_t headers = shim_encap_len(type) + SHIM_ETH_LEN;
	uint8_t eth[SHIM_ETH_LEN];
	uint32_t last;
	unsigned int i;

	shim_meta_from_train(&f->meta, h);
	if (seg_size < headers || train_len > SEGMENTED_MAX || f->meta.flags ||
	    f->meta.gso_type != VNET_GSO_NONE)
		goto malformed;
	f->count = (train_len + seg_size - 1) / seg_size;
	last = train_len - (f->count - 1) * seg_size;
	if (f->count > SHIM_SEGS_MAX || last < headers)
		goto malformed;
	/* the frame's own metadata is none */
	memset(&f->meta, 0, sizeof(f->meta));
	f->last_payload = last - headers;
	f->payload = f->count > 1 ? seg_size - headers : f->last_payload;
	for (i = 1; i < f->count; i++) {
		if (!read_headers(shim, chain, sizeof(*h) + i * seg_size, type,
				  eth))
			return false;
		/* segments of one frame have one Ethernet header */
		if (memcmp(eth, f->eth, SHIM_ETH_LEN))
			goto malformed;
	}
	return true;

malformed:
	shim->stats.tx_drop_malformed++;
	return false;
}

static bool train_hdr_sane(const struct vnet_train_hdr *h, uint32_t bytes)
{
	return h->version == VNET_TRAIN_VERSION &&
	       h->form <= VNET_TRAIN_SEGMENTED && !h->num_buffers && !h->link &&
	       !h->reserved && le32toh(h->train_len) == bytes - sizeof(*h) &&
	       le32toh(h->train_len) >=
		       (uint32_t)le16toh(h->encap_len) + SHIM_ETH_LEN;
}

static bool read_train(struct shim *shim, unsigned int pair,
		       const struct virtq_chain *chain, struct shim_frames *f)
{
	struct vnet_train_hdr h;
	int type;

	if (virtq_copy_out(chain, 0, &h, sizeof(h)) != sizeof(h)) {
		shim->stats.tx_drop_malformed++;
		return false;
	}
	if (!train_hdr_sane(&h, chain->out_bytes)) {
		if (!shim_hello_received(shim, pair, chain))
			shim->stats.tx_drop_malformed++;
		return false;
	}
	type = encap_type_of(shim, &h);
	if (type < 0) {
		shim->stats.tx_drop_encap++;
		return false;
	}
	if (!read_headers(shim, chain, sizeof(h), type, f->eth))
		return false;
	f->skip = shim_encap_len(type) + SHIM_ETH_LEN;
	start_data(f, chain, sizeof(h));
	if (h.form == VNET_TRAIN_SEGMENTED)
		return read_segmented(shim, chain, &h, type, f);
	return read_whole(shim, &h, shim_encap_len(type), f);
}

/* ---- both ---- */

static void forward(struct shim *shim, const struct shim_frames *f,
		    uint32_t bytes)
{
	const uint8_t *const mac = shim->conf->mac;
	bool sent = false;
	uint64_t links;

	if (memcmp(f->eth + VNET_MAC_LEN, mac, VNET_MAC_LEN)) {
		shim->stats.tx_drop_source++;
		return;
	}
	if (!memcmp(f->eth, mac, VNET_MAC_LEN)) {
		shim->stats.tx_drop_self++;
		return;
	}
	links = shim_routes_lookup(&shim->routes, f->eth);
	if (!links) {
		shim->stats.tx_drop_no_route++;
		return;
	}
	for (; links; links &= links - 1)
		sent |= shim_wire_send(
			shim, &shim->links.link[__builtin_ctzll(links)], f);
	if (sent) {
		shim->stats.tx_trains++;
		shim->stats.tx_bytes += bytes;
	}
}

bool shim_tx_run(struct shim *shim, unsigned int pair)
{
	struct shim_queue *q = shim_queue_tx(shim, pair);
	struct virtq_chain *chain = &shim->tx.chain;
	uint16_t heads[BATCH];
	unsigned int taken, i;
	int ret = 0;

	if (q->vq.broken || shim_hello_holds(shim, pair) ||
	    !virtq_has_work(&q->vq))
		return false;
	virtq_disable_kicks(&q->vq);
	for (taken = 0; taken < BATCH; taken++) {
		struct shim_frames frames = { 0 };

		ret = virtq_pop(&q->vq, chain);
		if (ret <= 0)
			break;
		/* a message may change it */
		if (shim_device_paravirt(&shim->dev) ?
			    read_train(shim, pair, chain, &frames) :
			    read_stock(shim, pair, chain, &frames))
			forward(shim, &frames, chain->out_bytes);
		heads[taken] = chain->head;
	}
	shim_wire_flush(shim);
	for (i = 0; i < taken; i++)
		virtq_push(&q->vq, heads[i], 0);
	virtq_publish_notify(&q->vq);
	if (ret < 0) {
		shim_queue_broken(q);
		return false;
	}
	return taken > 0;
}
