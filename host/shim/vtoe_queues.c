// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The VTOE queues while the agent does not have them, and their in-flight
 * records (struct vnet_inflight), which outlive whoever serves them.
 *
 * Without an agent this process serves the queues in the one way that is right
 * without understanding them: what the guest posts comes back with length 0.
 * After the agent's death the records say what it had taken; that comes back
 * too, each buffer once, and the first event buffer that is free says why.
 *
 * Threat model: the records lie in memory that the agent writes. A head or an
 * index in them is bounded before it is used (virtq_recover()).
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>

#include "shim.h"
#include "vtoe_queues.h"

unsigned int shim_vtoe_index(const struct shim_queue *q)
{
	return q->unit;
}

bool shim_vtoe_continues(const struct shim_attach *a, const struct shim_queue *q)
{
	const struct vnet_inflight *r = &a->inflight[shim_vtoe_index(q)];

	return le16toh(r->version) == VNET_INFLIGHT_VERSION &&
	       le16toh(r->num) == q->num && q->base &&
	       le16toh(r->last_avail) == q->base;
}

/*
 * The agent may have died between making used entries visible and writing that
 * down. virtq_recover() would do this; it must be done before anything is
 * pushed, too.
 */
static void account_used(struct virtq *vq)
{
	struct vnet_inflight *r = vq->inflight;
	uint16_t i = le16toh(r->used_idx);

	if ((uint16_t)(vq->published - i) > vq->num)
		return; /* virtq_recover() will say so */
	for (; i != vq->published; i++) {
		uint32_t head = le32toh(__atomic_load_n(
			&vq->used->ring[i & (vq->num - 1)].id, __ATOMIC_RELAXED));

		if (head < vq->num)
			r->taken[head] = 0;
	}
	r->used_idx = htole16(i);
}

/* Tells the guest, if it left a buffer for events. */
static void announce_removal(struct shim_queue *eq)
{
	static struct virtq_chain chain;
	struct vtoe_event ev = {
		.type = htole16(VTOE_EV_DEVICE_REMOVAL),
		.reason = htole32(VTOE_REASON_REMOVED),
	};

	account_used(&eq->vq);
	if (virtq_pop(&eq->vq, &chain) <= 0)
		return;
	virtq_push(&eq->vq, chain.head,
		   virtq_copy_in(&chain, 0, &ev, sizeof(ev)));
	virtq_publish(&eq->vq);
}

/*
 * Returns whatever is in a queue that is served here. A guest that posts as fast
 * as we return is looked at again when it rings.
 */
static void give_back(struct shim_queue *q)
{
	unsigned int rounds = 16;

	do {
		if (virtq_recover(&q->vq) < 0) {
			shim_queue_broken(q);
			return;
		}
	} while (virtq_enable_kicks(&q->vq) && --rounds);
}

int shim_vtoe_serve_here(struct shim *shim, bool removal)
{
	struct shim_attach *a = &shim->attach;
	unsigned int i;

	for (i = 0; i < SHIM_VTOE_QUEUES; i++) {
		struct shim_queue *q = shim_queue_vtoe(shim, i);
		struct vnet_inflight *r = &a->inflight[i];

		if (q->state != SHIM_QUEUE_READY)
			continue;
		/* What the agent had is in the record, whatever the position. */
		if (!removal && !shim_vtoe_continues(a, q))
			r->version = 0; /* virtq_start() fills it in */
		if (shim_queue_start_local(q, r) < 0) {
			r->version = 0; /* the agent left nonsense in it? */
			if (shim_queue_start_local(q, r) < 0)
				return -EINVAL;
		}
		if (removal && i == VNET_QUEUE_EQ - VNET_QUEUE_CR)
			announce_removal(q);
		give_back(q);
	}
	return 0;
}

void shim_vtoe_kicked(struct shim_queue *q)
{
	if (!q->vq.broken)
		give_back(q);
}

void shim_vtoe_take_back(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < SHIM_VTOE_QUEUES; i++) {
		struct shim_queue *q = shim_queue_vtoe(shim, i);

		if (q->state != SHIM_QUEUE_AGENT)
			continue;
		q->base = le16toh(shim->attach.inflight[i].last_avail);
		shim_queue_set_state(q, SHIM_QUEUE_READY);
	}
}

void shim_vtoe_reread(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < SHIM_VTOE_QUEUES; i++) {
		struct shim_queue *q = shim_queue_vtoe(shim, i);
		const struct vnet_inflight *r = &shim->attach.inflight[i];

		/* else the driver has begun anew meanwhile */
		if (q->state == SHIM_QUEUE_READY &&
		    le16toh(r->version) == VNET_INFLIGHT_VERSION &&
		    le16toh(r->num) == q->num)
			q->base = le16toh(r->last_avail);
	}
}
