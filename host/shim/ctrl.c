// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The control virtqueue (virtio 1.2 section 5.1.6.5): receive mode and number
 * of queue pairs. A command is a readable class, command and data, and one
 * writable byte for the answer.
 *
 * Threat model: the driver may send any bytes of any length. The first few are
 * copied out; a command of the wrong length is answered VIRTIO_NET_ERR.
 */
#include <endian.h>
#include <linux/virtio_net.h>

#include "ctrl.h"
#include "log.h"
#include "shim.h"

/* Enough for every command whose data is looked at. */
struct command {
	struct virtio_net_ctrl_hdr hdr;
	uint8_t data[2];
} __attribute__((packed));

#define COMMANDS_PER_KICK 64

static uint8_t rx_mode(struct shim *shim, const struct command *c, uint32_t len)
{
	if (len != 1 || c->data[0] > 1)
		return VIRTIO_NET_ERR;
	switch (c->hdr.cmd) {
	case VIRTIO_NET_CTRL_RX_PROMISC:
		shim->dev.promisc = c->data[0];
		return VIRTIO_NET_OK;
	case VIRTIO_NET_CTRL_RX_ALLMULTI:
		return VIRTIO_NET_OK; /* every group frame is delivered anyway */
	}
	return VIRTIO_NET_ERR;
}

static uint8_t set_pairs(struct shim *shim, const struct command *c,
			 uint32_t len)
{
	const unsigned int pairs = c->data[0] | c->data[1] << 8;

	if (c->hdr.cmd != VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET || len != 2 ||
	    !pairs || pairs > shim_config_net_pairs(shim->conf))
		return VIRTIO_NET_ERR;
	shim->dev.active_pairs = pairs;
	return VIRTIO_NET_OK;
}

static uint8_t execute(struct shim *shim, const struct command *c, uint32_t len)
{
	switch (c->hdr.class) {
	case VIRTIO_NET_CTRL_RX:
		return rx_mode(shim, c, len);
	case VIRTIO_NET_CTRL_MAC:
		/* the filter is advice, and this device has none for groups */
		return c->hdr.cmd == VIRTIO_NET_CTRL_MAC_TABLE_SET ?
			       VIRTIO_NET_OK :
			       VIRTIO_NET_ERR;
	case VIRTIO_NET_CTRL_MQ:
		return set_pairs(shim, c, len);
	}
	return VIRTIO_NET_ERR;
}

static uint32_t answer(struct shim *shim, const struct virtq_chain *chain)
{
	uint8_t ack = VIRTIO_NET_ERR;
	struct command c = { 0 };

	shim->stats.ctrl_commands++;
	if (virtq_copy_out(chain, 0, &c, sizeof(c)) >= sizeof(c.hdr))
		ack = execute(shim, &c, chain->out_bytes - sizeof(c.hdr));
	if (ack != VIRTIO_NET_OK)
		shim->stats.ctrl_errors++;
	return virtq_copy_in(chain, 0, &ack, sizeof(ack));
}

void shim_ctrl_run(struct shim *shim, struct shim_queue *q)
{
	static struct virtq_chain chain;
	unsigned int budget = COMMANDS_PER_KICK;
	int ret = 0;

	do {
		while (budget && (ret = virtq_pop(&q->vq, &chain)) > 0) {
			virtq_push(&q->vq, chain.head, answer(shim, &chain));
			budget--;
		}
		/* a round of nothing but malformed chains counts, too */
		if (budget)
			budget--;
		virtq_publish_notify(&q->vq);
		if (ret < 0) {
			shim_queue_broken(q);
			return;
		}
	} while (virtq_enable_kicks(&q->vq) && budget);
}
