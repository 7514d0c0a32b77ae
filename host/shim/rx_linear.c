// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Receiving by copying: datagrams lie one after another in our memory, as
 * recvmsg() joined them or as the direct path gathered them when its guess was
 * wrong, and are taken one by one:
 *
 *   segmented link            a frame, delivered
 *   whole, train of one part  delivered
 *   whole, one of several     into the reassembly table; if that completes its
 *                             train, the train is delivered
 *
 * When the guest has too few buffers the rest waits where it is, and no socket
 * of this queue is read, until it posts some; then `at` goes on with the same
 * datagram (adding a part again does nothing). After its time the frame at
 * hand is dropped.
 */
#include <string.h>

#include "shim.h"

int shim_rx_receive_linear(struct shim_rx *rx, struct shim_sock *sock)
{
	struct shim_rx_linear *l = &rx->linear;
	struct iovec iov = { .iov_base = l->data, .iov_len = SHIM_RX_LINEAR_MAX };
	struct shim_batch batch;
	int ret = shim_sock_recv(sock, &iov, 1, &batch);

	if (ret <= 0 || !batch.link)
		return ret;
	if (!batch.bytes) {
		rx->shim->stats.rx_drop_malformed++;
		return 1;
	}
	l->link = batch.link;
	l->bytes = batch.bytes;
	l->size = batch.size;
	l->at = 0;
	return 1;
}

/* True: the frame is dealt with. */
static bool give(struct shim_rx *rx, struct shim_arrival *a, uint8_t *frame)
{
	if (shim_rx_deliver_copy(rx, a, frame))
		return true;
	if (!rx->force)
		return false;
	rx->force = false;
	rx->shim->stats.rx_drop_no_buffer++;
	return true;
}

static bool give_train(struct shim_rx *rx, uint8_t *bytes, uint32_t len)
{
	struct shim_arrival a = { .link = rx->linear.link };

	if (!shim_rx_verify_whole(rx->shim, bytes, len, len, &a))
		return true;
	return give(rx, &a, (uint8_t *)a.eth);
}

static bool take_segment(struct shim_rx *rx, uint8_t *bytes, uint32_t len)
{
	struct shim_arrival a = { .link = rx->linear.link };

	if (!shim_rx_verify_segment(rx->shim, bytes, len, &a))
		return true;
	return give(rx, &a, (uint8_t *)a.eth);
}

static bool take_part(struct shim_rx *rx, uint8_t *bytes, uint32_t len)
{
	struct shim *shim = rx->shim;
	struct vnet_seg_hdr hdr;
	struct shim_train *train;
	struct shim_part part;

	if (len < sizeof(hdr))
		goto malformed;
	memcpy(&hdr, bytes, sizeof(hdr));
	bytes += sizeof(hdr);
	if (!shim_part_parse(&part, &hdr, len - sizeof(hdr)))
		goto malformed;
	if (part.count == 1)
		return give_train(rx, bytes, part.len);
	train = shim_reasm_find(&shim->reasm, rx->linear.link->number, &part);
	if (!train)
		return true;
	shim_train_add(train, &part, bytes);
	if (train->missing)
		return true;
	if (!give_train(rx, train->data, train->len))
		return false;
	shim_train_release(train);
	return true;

malformed:
	shim->stats.rx_drop_malformed++;
	return true;
}

bool shim_rx_run_linear(struct shim_rx *rx)
{
	struct shim_rx_linear *l = &rx->linear;

	if (!l->link)
		return true;
	shim_rx_close_open(rx); /* the window's start is needed */
	while (l->at < l->bytes && !rx->queue->vq.broken) {
		const size_t left = l->bytes - l->at;
		const uint32_t len = left < l->size ? left : l->size;
		uint8_t *bytes = l->data + l->at;

		if (l->link->conf->form == VNET_TRAIN_SEGMENTED ?
			    !take_segment(rx, bytes, len) :
			    !take_part(rx, bytes, len))
			return false;
		l->at += len;
	}
	l->link = NULL;
	return true;
}
