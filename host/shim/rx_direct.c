// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Receiving straight into the guest's rx buffers.
 *
 * A train of form whole that UDP_GRO has joined comes out of recvmsg() as
 *
 *   [seg_hdr][meta encap eth .......][seg_hdr][.........][seg_hdr][.....]
 *
 * and must lie in the guest as [header][encap eth .........................].
 * So the buffers for recvmsg() are laid out by a guess: segment headers, meta,
 * encapsulation and Ethernet header go to our own memory, the rest to the
 * window, each part right behind the one before. The guess is the length of a
 * part, which is a property of the path and was learnt from the last train, and
 * the length of the encapsulation. When all segment headers agree with it, the
 * train is where it should be; the guest's header and our verified copy of
 * encapsulation and Ethernet header are written in front and it is delivered.
 * A train may take several calls (one carries at most 64 KB): it stays open, and
 * the next call goes on behind it.
 *
 * When the guess was wrong (another train in between, a part lost, another
 * size), what arrived is gathered into the linear buffer and takes the slow
 * path of rx_linear.c; an open train moves to the reassembly table. Unused
 * buffers stay in the window, as if nothing had been written to them: what a
 * frame that is dropped leaves there is seen by the guest alone, whose link it
 * came over.
 *
 * The last buffer of each call is our own, large enough for any batch, so that
 * nothing is ever truncated.
 */
#include <endian.h>
#include <string.h>

#include "shim.h"

#define IOV_MAX_CALL 1024 /* UIO_MAXIOV */
/* After so many single datagrams in a row no more than one is prepared for: a
 * long layout has its price, and the train that comes in spite of it is copied. */
#define SMALL_RUN 16

/* Buffers of one call, and the guess behind them. */
struct layout {
	struct iovec iov[IOV_MAX_CALL];
	unsigned int iov_count;
	unsigned int first_part; /* index of the first one laid out */
	unsigned int parts;
	uint16_t part_len;	 /* 0: one part, of any length */
	uint16_t encap_len;
	uint32_t first_room, last_room; /* bytes behind seg_hdr that fit */
	/* where the headers go */
	struct {
		struct vnet_seg_hdr seg;
		uint8_t head[SHIM_HEAD_MAX];
	} front;
	struct vnet_seg_hdr seg[SHIM_SEGS_MAX];
	uint8_t overflow[SHIM_RX_LINEAR_MAX];
};

static uint32_t head_len(uint16_t encap_len)
{
	return sizeof(struct vnet_wire_meta) + encap_len + SHIM_ETH_LEN;
}

/* Where in the window a byte of a train lies, less its offset in the train. */
static uint32_t window_delta(const struct shim *shim, uint16_t encap_len)
{
	return shim_rx_lead(shim, encap_len) + SHIM_ETH_LEN -
	       head_len(encap_len);
}

static void put(struct layout *l, void *base, size_t len)
{
	l->iov[l->iov_count].iov_base = base;
	l->iov[l->iov_count++].iov_len = len;
}

/* The rest of a part in the window; false: the window ends there. */
static bool put_part(struct layout *l, const struct shim_window *w,
		     struct shim_window_pos *pos, uint32_t len, uint32_t *room)
{
	/* two are kept for the next segment header and the overflow */
	*room = shim_window_iov(w, pos, len, l->iov, &l->iov_count,
				IOV_MAX_CALL - 2);
	return *room == len;
}

static void lay_out(struct layout *l, const struct shim_rx *rx,
		    const struct shim_sock *sock)
{
	const struct shim *shim = rx->shim;
	const struct shim_rx_open *open = &rx->open;
	const struct shim_window *w = &rx->window;
	struct shim_window_pos pos;
	uint32_t limit; /* parts of the longest train */
	bool more;

	l->iov_count = 0;
	l->encap_len = shim_encap_len(shim->conf->encap);
	if (open->sock) {
		const uint32_t offset = open->next * open->part_len;
		const uint32_t left = open->len - offset;

		l->first_part = open->next;
		l->part_len = open->part_len;
		limit = (left + open->part_len - 1) / open->part_len;
		put(l, &l->seg[0], sizeof(l->seg[0]));
		shim_window_seek(w, offset + window_delta(shim, l->encap_len),
				 &pos);
		more = put_part(l, w, &pos, left < l->part_len ? left : l->part_len,
				&l->first_room);
	} else {
		const uint32_t head = head_len(l->encap_len);

		l->first_part = 0;
		l->part_len = sock->part_len;
		limit = l->part_len && sock->small < SMALL_RUN ?
				SHIM_TRAIN_MAX / l->part_len + 1 :
				1;
		put(l, &l->front, sizeof(l->front.seg) + head);
		shim_window_seek(w, shim_rx_lead(shim, l->encap_len) +
				 SHIM_ETH_LEN, &pos);
		more = put_part(l, w, &pos, l->part_len ? l->part_len - head :
							  SHIM_RX_LINEAR_MAX,
				&l->first_room);
		/* our copies of the headers must fit in front, too */
		if (w->bytes < shim_rx_lead(shim, l->encap_len) + SHIM_ETH_LEN)
			l->first_room = 0;
		else
			l->first_room += head;
	}
	l->last_room = l->first_room;
	for (l->parts = 1; more && l->parts < limit && l->parts < SHIM_SEGS_MAX;
	     l->parts++) {
		put(l, &l->seg[l->parts], sizeof(l->seg[0]));
		more = put_part(l, w, &pos, l->part_len, &l->last_room);
	}
	put(l, l->overflow, sizeof(l->overflow));
}

static const struct vnet_seg_hdr *seg_hdr(const struct layout *l,
					  unsigned int i)
{
	return i == 0 && l->first_part == 0 ? &l->front.seg : &l->seg[i];
}

/* Every datagram lies where the layout meant it to. */
static bool sizes_match(const struct layout *l, const struct shim_batch *b)
{
	const uint32_t hdr = sizeof(struct vnet_seg_hdr);
	uint32_t last;

	if (b->count == 1)
		return b->bytes > hdr && b->bytes - hdr <= l->first_room;
	if (!l->part_len || b->size != hdr + l->part_len || b->count > l->parts ||
	    l->first_room < l->part_len)
		return false;
	last = b->bytes - (b->count - 1) * b->size;
	return last > hdr &&
	       (b->count < l->parts || last - hdr <= l->last_room);
}

/*
 * The parts of a batch are those that come next, of one train. In *part the
 * last of them.
 */
static bool parts_match(const struct layout *l, const struct shim_rx_open *open,
			const struct shim_batch *b, struct shim_part *part)
{
	uint32_t id = open->id, len = open->len;
	uint16_t part_len = open->part_len;
	unsigned int i;

	for (i = 0; i < b->count; i++) {
		const size_t bytes = i + 1 < b->count ?
					     b->size :
					     b->bytes - i * (size_t)b->size;

		if (!shim_part_parse(part, seg_hdr(l, i),
				     bytes - sizeof(struct vnet_seg_hdr)) ||
		    part->index != l->first_part + i)
			return false;
		if (i == 0 && !open->sock) {
			id = part->train_id;
			len = part->train_len;
			part_len = part->part_len;
		}
		if (part->train_id != id || part->train_len != len ||
		    part->part_len != part_len)
			return false;
	}
	return true;
}

/* Copies what came, in order, to where the slow path takes it from. */
static void gather(struct shim_rx *rx, const struct layout *l,
		   const struct shim_batch *b)
{
	struct shim_rx_linear *lin = &rx->linear;
	size_t left = b->bytes;
	uint8_t *to = lin->data;
	unsigned int i;

	for (i = 0; left; i++) {
		const size_t n = left < l->iov[i].iov_len ? left :
							    l->iov[i].iov_len;

		memcpy(to, l->iov[i].iov_base, n);
		to += n;
		left -= n;
	}
	lin->link = b->link;
	lin->bytes = b->bytes;
	lin->size = b->size;
	lin->at = 0;
}

/* All parts are in the window. */
static void complete(struct shim_rx *rx, struct shim_link *link,
		     const uint8_t *head, uint32_t head_bytes, uint32_t train_len)
{
	struct shim_arrival a = { .link = link };

	if (!shim_rx_verify_whole(rx->shim, head, head_bytes, train_len, &a))
		return;
	shim_rx_deliver(rx, &a);
	rx->shim->stats.rx_direct++;
}

/* Whether the first part's header is as guessed, so that the rest lies right. */
static bool head_matches(const struct shim *shim, const struct layout *l,
			 const struct shim_part *part)
{
	struct vnet_wire_meta meta;
	struct shim_arrival a = { 0 };

	memcpy(&meta, l->front.head, sizeof(meta));
	if (be16toh(meta.encap_len) != l->encap_len ||
	    part->train_len < head_len(l->encap_len))
		return false;
	a.meta.flags = meta.flags;
	return !shim_rx_needs_checksum(shim, &a);
}

static void open_train(struct shim_rx *rx, struct shim_sock *sock,
		       struct shim_link *link, const struct layout *l,
		       const struct shim_part *part)
{
	struct shim_rx_open *open = &rx->open;

	*open = (struct shim_rx_open){
		.sock = sock,
		.link = link,
		.id = part->train_id,
		.len = part->train_len,
		.part_len = part->part_len,
		.next = part->index + 1,
	};
	memcpy(open->head, l->front.head, sizeof(open->head));
	if (rx->open_timer_armed)
		return;
	rx->open_timer_armed = true;
	loop_timer_arm(rx->open_timer, SHIM_REASM_MS);
}

void shim_rx_close_open(struct shim_rx *rx)
{
	struct shim_rx_open *open = &rx->open;
	struct shim *shim = rx->shim;
	const uint16_t encap_len = shim_encap_len(shim->conf->encap);
	const uint32_t head = head_len(encap_len);
	struct shim_part part = { 0 };
	struct shim_train *train;
	unsigned int i;

	if (!open->sock)
		return;
	open->sock = NULL;
	part.train_id = open->id;
	part.train_len = open->len;
	part.part_len = open->part_len;
	part.count = (open->len + open->part_len - 1) / open->part_len;
	train = shim_reasm_find(&shim->reasm, open->link->number, &part);
	if (!train)
		return;
	memcpy(train->data, open->head, head);
	shim_window_copy_out(&rx->window, head + window_delta(shim, encap_len),
			     train->data + head,
			     open->next * open->part_len - head);
	for (i = 0; i < open->next; i++)
		shim_train_have(train, i);
}

/* The guess was wrong: what would have been right? */
static void learn(struct shim_sock *sock, const struct vnet_seg_hdr *hdr,
		  const struct shim_batch *b)
{
	struct shim_part part;

	if (b->size > sizeof(*hdr) &&
	    shim_part_parse(&part, hdr, b->size - sizeof(*hdr)))
		sock->part_len = part.part_len;
}

int shim_rx_direct(struct shim_rx *rx, struct shim_sock *sock)
{
	static struct layout layout;
	struct layout *l = &layout;
	struct shim_rx_open *open = &rx->open;
	struct shim_batch batch;
	struct shim_part part;
	int ret;

	if (open->sock && open->sock != sock)
		shim_rx_close_open(rx);
	lay_out(l, rx, sock);
	ret = shim_sock_recv(sock, l->iov, l->iov_count, &batch);
	if (ret <= 0 || !batch.link)
		return ret;
	sock->small = batch.count == 1 ? sock->small + 1 : 0;
	if ((open->sock && open->link != batch.link) ||
	    !sizes_match(l, &batch) || !parts_match(l, open, &batch, &part) ||
	    (!open->sock && !head_matches(rx->shim, l, &part))) {
		if (batch.bytes)
			gather(rx, l, &batch);
		else
			rx->shim->stats.rx_drop_malformed++;
		learn(sock, seg_hdr(l, 0), &batch);
		return 1;
	}
	sock->part_len = part.part_len;
	if (part.index + 1 < part.count) {
		if (open->sock)
			open->next = part.index + 1;
		else
			open_train(rx, sock, batch.link, l, &part);
		open->old = false;
		return 1;
	}
	if (open->sock) {
		open->sock = NULL;
		complete(rx, batch.link, open->head, head_len(l->encap_len),
			 part.train_len);
	} else {
		complete(rx, batch.link, l->front.head, head_len(l->encap_len),
			 part.train_len);
	}
	return 1;
}
