// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What must hold before a frame from a link reaches the guest, and the header
 * that goes in front of it.
 *
 * Threat model: the bytes come from whoever can send as the link's remote.
 * Headers are looked at in our own copy. Of another tenant nothing is
 * delivered; nor are metadata that point outside the frame, nor offloads that
 * the driver did not accept, nor frames for other stations (unless the driver
 * wants all), nor our own frames come back.
 */
#include <endian.h>
#include <string.h>

#include "shim.h"

/* Interrupts may wait for this many bytes within one run. */
#define SIGNAL_BYTES (64 * 1024)

/* ---- checks ---- */

static bool offloads_accepted(struct shim *shim, const struct shim_meta *m)
{
	const struct shim_device *dev = &shim->dev;
	bool ok = true;

	if (shim_device_paravirt(dev))
		return true;
	switch (m->gso_type & ~VNET_GSO_ECN) {
	case VNET_GSO_TCPV4:
		ok = shim_device_has(dev, VIRTIO_NET_F_GUEST_TSO4);
		break;
	case VNET_GSO_TCPV6:
		ok = shim_device_has(dev, VIRTIO_NET_F_GUEST_TSO6);
		break;
	}
	if ((m->gso_type & VNET_GSO_ECN) &&
	    !shim_device_has(dev, VIRTIO_NET_F_GUEST_ECN))
		ok = false;
	if (!ok)
		shim->stats.rx_drop_offload++;
	return ok;
}

static bool for_us(struct shim *shim, const uint8_t *eth)
{
	const uint8_t *const mac = shim->conf->mac;
	/* Without a control queue the driver cannot ask for promiscuous mode:
	 * QEMU keeps the control queue of its own virtio-net to itself. */
	const bool all =
		shim->dev.promisc ||
		shim_queue_ctrl(shim)->state != SHIM_QUEUE_LOCAL;

	if (!memcmp(eth + VNET_MAC_LEN, mac, VNET_MAC_LEN)) {
		shim->stats.rx_drop_source++;
		return false;
	}
	/* nobody on a link may speak for this shim */
	if (shim_hello_is_message(eth) ||
	    (!all && !(eth[0] & 1) && memcmp(eth, mac, VNET_MAC_LEN))) {
		shim->stats.rx_drop_not_ours++;
		return false;
	}
	return true;
}

/* bytes: from the encapsulation on, its length and the Ethernet header's at
 * least. */
static bool verify_frame(struct shim *shim, uint8_t encap_type,
			 const uint8_t *bytes, struct shim_arrival *a)
{
	switch (shim_encap_check(encap_type, shim->conf->tenant, bytes,
				 a->encap_len)) {
	case SHIM_ENCAP_OK:
		break;
	case SHIM_ENCAP_BAD:
		shim->stats.rx_drop_encap++;
		return false;
	case SHIM_ENCAP_OTHER_TENANT:
		shim->stats.rx_drop_tenant++;
		return false;
	}
	if (!shim_meta_sane(&a->meta, a->frame_len)) {
		shim->stats.rx_drop_malformed++;
		return false;
	}
	a->encap = bytes;
	a->eth = bytes + a->encap_len;
	return for_us(shim, a->eth) && offloads_accepted(shim, &a->meta);
}

bool shim_rx_verify_whole(struct shim *shim, const uint8_t *head,
			  uint32_t head_len, uint32_t train_len,
			  struct shim_arrival *a)
{
	struct vnet_wire_meta meta;
	uint32_t front;

	if (head_len < sizeof(meta))
		goto malformed;
	memcpy(&meta, head, sizeof(meta));
	a->encap_len = be16toh(meta.encap_len);
	front = sizeof(meta) + a->encap_len;
	if (!shim_meta_from_wire(&a->meta, &meta) ||
	    front + SHIM_ETH_LEN > head_len || head_len > train_len)
		goto malformed;
	a->frame_len = train_len - front;
	return verify_frame(shim, meta.encap_type, head + sizeof(meta), a);

malformed:
	shim->stats.rx_drop_malformed++;
	return false;
}

bool shim_rx_verify_segment(struct shim *shim, const uint8_t *bytes,
			    uint32_t len, struct shim_arrival *a)
{
	a->encap_len = shim_encap_len(shim->conf->encap);
	if (len < (uint32_t)a->encap_len + SHIM_ETH_LEN) {
		shim->stats.rx_drop_malformed++;
		return false;
	}
	memset(&a->meta, 0, sizeof(a->meta));
	a->frame_len = len - a->encap_len;
	return verify_frame(shim, shim->conf->encap, bytes, a);
}

bool shim_rx_needs_checksum(const struct shim *shim,
			    const struct shim_arrival *a)
{
	return (a->meta.flags & VNET_TRAIN_F_NEEDS_CSUM) &&
	       !shim_device_paravirt(&shim->dev) &&
	       !shim_device_has(&shim->dev, VIRTIO_NET_F_GUEST_CSUM);
}

/* ---- delivery ---- */

uint32_t shim_rx_lead(const struct shim *shim, uint16_t encap_len)
{
	return shim_device_paravirt(&shim->dev) ?
		       sizeof(struct vnet_train_hdr) + encap_len :
		       sizeof(struct virtio_net_hdr_v1);
}

static uint32_t build_train_hdr(const struct shim *shim,
				const struct shim_arrival *a, uint16_t buffers,
				uint8_t *out)
{
	struct vnet_train_hdr h = {
		.version = VNET_TRAIN_VERSION,
		.form = VNET_TRAIN_WHOLE,
		.flags = a->meta.flags,
		.gso_type = a->meta.gso_type,
		.encap_len = htole16(a->encap_len),
		.gso_size = htole16(a->meta.gso_size),
		.hdr_len = htole16(a->meta.hdr_len),
		.csum_start = htole16(a->meta.csum_start),
		.csum_offset = htole16(a->meta.csum_offset),
		.num_buffers = htole16(buffers),
		.generation = htole32(shim->dev.generation),
		.link = htole32(a->link->number),
		.train_len = htole32(a->encap_len + a->frame_len),
	};

	memcpy(out, &h, sizeof(h));
	memcpy(out + sizeof(h), a->encap, a->encap_len);
	return sizeof(h) + a->encap_len;
}

static uint32_t build_virtio_hdr(const struct shim_arrival *a, uint16_t buffers,
				 uint8_t *out)
{
	struct virtio_net_hdr_v1 h;

	shim_meta_to_virtio(&a->meta, buffers, &h);
	memcpy(out, &h, sizeof(h));
	return sizeof(h);
}

void shim_rx_deliver(struct shim_rx *rx, const struct shim_arrival *a)
{
	struct shim *shim = rx->shim;
	struct virtq *vq = &rx->queue->vq;
	const uint32_t total = shim_rx_lead(shim, a->encap_len) + a->frame_len;
	const unsigned int buffers = shim_window_chains(&rx->window, total);
	uint8_t front[sizeof(struct vnet_train_hdr) + SHIM_ENCAP_MAX +
		      SHIM_ETH_LEN];
	uint32_t len;

	len = shim_device_paravirt(&shim->dev) ?
		      build_train_hdr(shim, a, buffers, front) :
		      build_virtio_hdr(a, buffers, front);
	memcpy(front + len, a->eth, SHIM_ETH_LEN);
	shim_window_copy_in(&rx->window, 0, front, len + SHIM_ETH_LEN);
	shim_window_use(&rx->window, vq, total);
	shim->stats.rx_trains++;
	shim->stats.rx_bytes += a->frame_len;
	rx->unsignalled += total;
	if (rx->unsignalled < SIGNAL_BYTES) {
		virtq_publish(vq);
		return;
	}
	virtq_publish_notify(vq);
	rx->unsignalled = 0;
}

/* RFC 1071 over the rest of the frame; the field holds the pseudo header's. */
static void complete_checksum(struct shim_meta *m, uint8_t *frame, uint32_t len)
{
	uint32_t sum = 0, i;
	uint16_t out;

	for (i = m->csum_start; i + 1 < len; i += 2)
		sum += frame[i] << 8 | frame[i + 1];
	if (i < len)
		sum += frame[i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	out = ~sum;
	if (!out) /* UDP: zero means none */
		out = 0xffff;
	frame[m->csum_start + m->csum_offset] = out >> 8;
	frame[m->csum_start + m->csum_offset + 1] = out;
	*m = (struct shim_meta){ 0 };
}

bool shim_rx_deliver_copy(struct shim_rx *rx, struct shim_arrival *a,
			  uint8_t *frame)
{
	struct shim *shim = rx->shim;
	const bool mergeable = shim_device_mergeable(&shim->dev);
	const uint32_t lead = shim_rx_lead(shim, a->encap_len);
	const uint32_t total = lead + a->frame_len;

	if (!shim_window_fill(&rx->window, &rx->queue->vq, total)) {
		shim_queue_broken(rx->queue);
		return true; /* nobody to deliver to any more */
	}
	if (shim_window_room(&rx->window, mergeable) < total) {
		if (mergeable || !rx->window.count)
			return false;
		shim->stats.rx_drop_no_buffer++; /* waiting would not help */
		return true;
	}
	if (shim_rx_needs_checksum(shim, a))
		complete_checksum(&a->meta, frame, a->frame_len);
	shim_window_copy_in(&rx->window, lead + SHIM_ETH_LEN,
			    frame + SHIM_ETH_LEN, a->frame_len - SHIM_ETH_LEN);
	shim_rx_deliver(rx, a);
	shim->stats.rx_copied++;
	return true;
}
