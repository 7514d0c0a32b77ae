// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Trains on the wire (proto/vnet_train.h).
 *
 * Sending builds one list of buffers a system call and copies no payload:
 *
 *   whole      [seg_hdr 0][meta encap eth][guest ....][seg_hdr 1][guest ....]...
 *   segmented  [encap eth][guest ....][encap eth][guest ....]...
 *
 * where meta, encapsulation and Ethernet header are our own memory (what was
 * verified is what goes out) and the same bytes stand in for each frame of a
 * segmented train. The encapsulation is always written anew, as this VM's
 * configuration has it now: a train that the guest built for the one before is
 * thereby carried over.
 *
 * Threat model of the parser: any bytes from a link's remote. The part's place
 * follows from the header alone, is bounded by the train's length, which is
 * bounded by SHIM_TRAIN_MAX, and the number of parts by SHIM_PARTS_MAX.
 */
#include <endian.h>
#include <string.h>

#include "shim.h"
#include "wire.h"

void shim_cursor_skip(struct shim_cursor *c, size_t n)
{
	c->offset += n;
	while (c->left && c->offset >= c->iov->iov_len) {
		c->offset -= c->iov->iov_len;
		c->iov++;
		c->left--;
	}
}

#define CALL_IOV 1024 /* UIO_MAXIOV */

/* One system call under construction. */
struct call {
	struct iovec iov[CALL_IOV];
	unsigned int count;
	unsigned int segs;
	size_t bytes;
};

/*
 * Single datagrams of several chains that go out in one call: all of one size,
 * but the last. Their chains stay with us until shim_wire_flush().
 */
static struct {
	struct shim_link *link; /* NULL: empty */
	uint16_t size;
	bool closed; /* the last one was shorter */
	struct call call;
	struct vnet_seg_hdr hdr[SHIM_SEGS_MAX];
	uint8_t head[SHIM_SEGS_MAX][SHIM_HEAD_MAX];
} batch;

static bool put(struct call *call, const void *base, size_t len)
{
	if (call->count == CALL_IOV)
		return false;
	call->iov[call->count].iov_base = (void *)base;
	call->iov[call->count++].iov_len = len;
	call->bytes += len;
	return true;
}

/* Moves n bytes from the cursor to the call. */
static bool put_from(struct call *call, struct shim_cursor *c, size_t n)
{
	while (n) {
		size_t here;

		if (!c->left)
			return false;
		here = c->iov->iov_len - c->offset;
		if (here > n)
			here = n;
		if (!put(call, (const char *)c->iov->iov_base + c->offset, here))
			return false;
		shim_cursor_skip(c, here);
		n -= here;
	}
	return true;
}

static void put_seg_hdr(struct vnet_seg_hdr *h, uint32_t id, unsigned int index,
			uint32_t train_len, uint16_t part_len)
{
	*h = (struct vnet_seg_hdr){
		.version = VNET_SEG_VERSION,
		.index = htobe16(index),
		.train_id = htobe32(id),
		.train_len = htobe32(train_len),
		.part_len = htobe16(part_len),
	};
}

static void begin(struct call *call)
{
	call->count = 0;
	call->bytes = 0;
	call->segs = 0;
}

/* One more datagram of this length goes with the call. */
static bool has_room(const struct shim *shim, const struct call *call, size_t len)
{
	return call->segs < shim->links.max_segs &&
	       call->bytes + len <= SHIM_UDP_MAX;
}

/* head_len bytes of head, then payload bytes from the cursor, as one train. */
static bool send_train(struct shim *shim, struct shim_link *link,
		       const uint8_t *head, uint16_t head_len,
		       struct shim_cursor *data, uint32_t payload)
{
	static struct vnet_seg_hdr hdr[SHIM_SEGS_MAX];
	static struct call call;
	const uint16_t part_len = link->conf->payload - sizeof(hdr[0]);
	const uint32_t train_len = head_len + payload;
	const uint32_t id = shim->tx.next_train_id++;
	uint32_t left = train_len;
	unsigned int index = 0;

	while (left) {
		begin(&call);
		for (; left; index++, call.segs++) {
			struct vnet_seg_hdr *h = &hdr[call.segs];
			uint32_t n = left < part_len ? left : part_len;

			if (!has_room(shim, &call, sizeof(*h) + n))
				break;
			put_seg_hdr(h, id, index, train_len, part_len);
			if (!put(&call, h, sizeof(*h)))
				return false;
			left -= n;
			if (index == 0) {
				if (!put(&call, head, head_len))
					return false;
				n -= head_len;
			}
			if (!put_from(&call, data, n))
				return false;
		}
		if (shim_link_send(shim, link, call.iov, call.count, call.bytes,
				   link->conf->payload) < 0)
			return false;
	}
	return true;
}

/* ---- frames that fit a datagram ---- */

static uint32_t payload_of(const struct shim_frames *f, unsigned int i)
{
	return i + 1 < f->count ? f->payload : f->last_payload;
}

/* Meta, encapsulation and Ethernet header; the last two are at *encap. */
static uint16_t build_head(const struct shim *shim, const struct shim_frames *f,
			   uint8_t head[SHIM_HEAD_MAX])
{
	const struct shim_config *conf = shim->conf;
	const uint16_t encap_len = shim_encap_len(conf->encap);
	struct vnet_wire_meta meta;

	shim_meta_to_wire(&f->meta, conf->encap, encap_len, &meta);
	memcpy(head, &meta, sizeof(meta));
	shim_encap_build(conf->encap, conf->tenant, head + sizeof(meta));
	memcpy(head + sizeof(meta) + encap_len, f->eth, SHIM_ETH_LEN);
	return sizeof(meta) + encap_len + SHIM_ETH_LEN;
}

/* Each frame in a datagram of its own, with or without a segment header. */
static bool send_one_each(struct shim *shim, struct shim_link *link,
			  const struct shim_frames *f, const uint8_t *head,
			  uint16_t head_len, bool whole)
{
	static struct vnet_seg_hdr hdr[SHIM_SEGS_MAX];
	static struct call call;
	const uint16_t fixed = head_len + (whole ? sizeof(hdr[0]) : 0);
	const uint16_t size = fixed + (f->count > 1 ? f->payload : f->last_payload);
	struct shim_cursor data = f->data;
	unsigned int i = 0;

	while (i < f->count) {
		begin(&call);
		for (; i < f->count; i++, call.segs++) {
			struct vnet_seg_hdr *h = &hdr[call.segs];
			const uint32_t n = payload_of(f, i);

			if (!has_room(shim, &call, fixed + n))
				break;
			if (whole) {
				put_seg_hdr(h, shim->tx.next_train_id++, 0,
					    head_len + n,
					    link->conf->payload - sizeof(*h));
				put(&call, h, sizeof(*h));
			}
			put(&call, head, head_len);
			shim_cursor_skip(&data, f->skip);
			if (!put_from(&call, &data, n))
				return false;
		}
		if (shim_link_send(shim, link, call.iov, call.count, call.bytes,
				   size) < 0)
			return false;
	}
	return true;
}

void shim_wire_flush(struct shim *shim)
{
	if (!batch.link)
		return;
	shim_link_send(shim, batch.link, batch.call.iov, batch.call.count,
		       batch.call.bytes, batch.size);
	batch.link = NULL;
}

/* One frame in one datagram, together with others before and after it. */
static bool send_batched(struct shim *shim, struct shim_link *link,
			 const struct shim_frames *f, const uint8_t *head,
			 uint16_t head_len, bool whole)
{
	struct call *call = &batch.call;
	struct shim_cursor data = f->data;
	const uint16_t size = head_len + f->payload +
			      (whole ? sizeof(struct vnet_seg_hdr) : 0);

	if (batch.link &&
	    (batch.link != link || batch.closed || size > batch.size ||
	     !has_room(shim, call, size) ||
	     call->count + 2 + data.left > CALL_IOV))
		shim_wire_flush(shim);
	if (!batch.link) {
		begin(call);
		batch.link = link;
		batch.size = size;
	}
	batch.closed = size < batch.size;
	if (whole) {
		struct vnet_seg_hdr *h = &batch.hdr[call->segs];

		put_seg_hdr(h, shim->tx.next_train_id++, 0,
			    head_len + f->payload,
			    link->conf->payload - sizeof(*h));
		put(call, h, sizeof(*h));
	}
	memcpy(batch.head[call->segs], head, head_len);
	put(call, batch.head[call->segs], head_len);
	shim_cursor_skip(&data, f->skip);
	put_from(call, &data, f->payload);
	call->segs++;
	return true;
}

static bool send_each(struct shim *shim, struct shim_link *link,
		      const struct shim_frames *f, const uint8_t *head,
		      uint16_t head_len, bool whole)
{
	if (f->count == 1)
		return send_batched(shim, link, f, head, head_len, whole);
	shim_wire_flush(shim); /* in order */
	return send_one_each(shim, link, f, head, head_len, whole);
}

static bool send_whole(struct shim *shim, struct shim_link *link,
		       const struct shim_frames *f, const uint8_t *head,
		       uint16_t head_len)
{
	struct shim_cursor data = f->data;
	bool ok = true;
	unsigned int i;

	if (sizeof(struct vnet_seg_hdr) + head_len + f->payload <=
	    link->conf->payload)
		return send_each(shim, link, f, head, head_len, true);
	shim_wire_flush(shim);
	for (i = 0; i < f->count; i++) {
		struct shim_cursor one;

		shim_cursor_skip(&data, f->skip);
		one = data;
		ok &= send_train(shim, link, head, head_len, &one,
				 payload_of(f, i));
		shim_cursor_skip(&data, payload_of(f, i));
	}
	return ok;
}

bool shim_wire_send(struct shim *shim, struct shim_link *link,
		    const struct shim_frames *f)
{
	uint8_t head[SHIM_HEAD_MAX];
	const uint16_t head_len = build_head(shim, f, head);
	const uint16_t meta_len = sizeof(struct vnet_wire_meta);

	if (link->conf->form == VNET_TRAIN_WHOLE)
		return send_whole(shim, link, f, head, head_len);
	if (f->meta.gso_type != VNET_GSO_NONE || f->meta.flags) {
		shim->stats.tx_drop_form++;
		return false;
	}
	if (head_len - meta_len + f->payload > link->conf->payload) {
		shim->stats.tx_drop_mtu++;
		return false;
	}
	return send_each(shim, link, f, head + meta_len, head_len - meta_len,
			 false);
}

/* ---- receiving ---- */

bool shim_part_parse(struct shim_part *part, const struct vnet_seg_hdr *hdr,
		     size_t len)
{
	*part = (struct shim_part){
		.train_id = be32toh(hdr->train_id),
		.train_len = be32toh(hdr->train_len),
		.part_len = be16toh(hdr->part_len),
		.index = be16toh(hdr->index),
		.len = len,
	};
	if (hdr->version != VNET_SEG_VERSION || hdr->reserved || hdr->reserved1 ||
	    part->part_len < SHIM_PART_MIN || !len || !part->train_len ||
	    part->train_len > SHIM_TRAIN_MAX)
		return false;
	part->count = (part->train_len + part->part_len - 1) / part->part_len;
	if (part->index >= part->count)
		return false;
	part->offset = part->index * part->part_len;
	return len == (part->index + 1 < part->count ?
			       part->part_len :
			       part->train_len - part->offset);
}
