// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The life of a queue.
 *
 *            front end said all of it            the shim's own kinds
 *   IDLE ------------------------------> READY ----------------------> LOCAL
 *    ^                                    │ ^                            │
 *    │ GET_VRING_BASE, disabled, reset,   │ │ agent lost, agent not up   │
 *    │ session over                       v │ (VTOE queues only)         │
 *    └----- from any state -------------- AGENT                          │
 *    ^-------------------------------------------------------------------┘
 *
 * "All of it" is: ring size, ring addresses, a kick descriptor, memory in which
 * the rings lie, and what the protocol has besides: over vhost-user enabled (if
 * PROTOCOL_FEATURES was negotiated, which brings SET_VRING_ENABLE), over
 * vfio-user enabled and DRIVER_OK. A disabled queue's rings are not touched:
 * user-mode Linux frees them after SET_VRING_ENABLE 0 and never sends
 * GET_VRING_BASE. The position in the ring survives in `base`.
 *
 * Who serves a ring may suppress doorbells, so pending work is looked for when
 * a queue starts.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "ctrl.h"
#include "log.h"
#include "shim.h"
#include "vtoe_queues.h"

const char *shim_queue_kind_name(enum shim_queue_kind kind)
{
	static const char *const names[] = { "rx", "tx", "ctrl", "vtoe",
					     "unused" };

	_Static_assert(sizeof(names) / sizeof(names[0]) == SHIM_QUEUE_KINDS,
		       "one name a kind");
	return names[kind];
}

const char *shim_queue_state_name(enum shim_queue_state state)
{
	static const char *const names[] = { "idle", "ready", "local", "agent" };

	_Static_assert(sizeof(names) / sizeof(names[0]) == SHIM_QUEUE_STATES,
		       "one name a state");
	return names[state];
}

/* Where CR, EQ, SWQ, RWQ.. are among the reserved queues (vnet_hello.h). */
static const uint8_t in_band_order[SHIM_VTOE_QUEUES] = {
	VNET_HELLO_CR, VNET_HELLO_EQ, VNET_HELLO_SWQ, VNET_HELLO_RWQ_SMALL,
	VNET_HELLO_RWQ_LARGE,
};

unsigned int shim_queues_reserved(const struct shim *shim)
{
	return 2 * shim->conf->pairs;
}

bool shim_queues_vtoe(const struct shim *shim)
{
	return shim->conf->agent[0] &&
	       (!shim->conf->in_band || shim->dev.in_band);
}

/*
 * From the number of a queue to what it is; the one place that knows. Layouts
 * are those of vnet_dev.h and, where pairs are reserved, vnet_hello.h.
 */
static void assign(struct shim_queue *q)
{
	const struct shim *shim = q->shim;
	const unsigned int ctrl = 2 * shim_config_net_pairs(shim->conf);
	const unsigned int net = shim->dev.in_band ?
					 shim_queues_reserved(shim) : ctrl;
	unsigned int i;

	if (q->index < net) {
		q->kind = q->index & 1 ? SHIM_QUEUE_TX : SHIM_QUEUE_RX;
		q->unit = q->index / 2;
	} else if (q->index == ctrl) {
		q->kind = SHIM_QUEUE_CTRL;
		q->unit = 0;
	} else if (q->index > ctrl) {
		q->kind = SHIM_QUEUE_VTOE;
		q->unit = q->index - ctrl - 1;
	} else {
		q->kind = SHIM_QUEUE_UNUSED;
		q->unit = 0;
		for (i = 0; i < SHIM_VTOE_QUEUES && shim->conf->agent[0]; i++)
			if (q->index - net == in_band_order[i]) {
				q->kind = SHIM_QUEUE_VTOE;
				q->unit = i;
			}
	}
}

void shim_queues_assign(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < shim->queue_count; i++)
		assign(&shim->queue[i]);
}

void shim_queues_init(struct shim *shim)
{
	unsigned int i;

	shim->queue_count = 2 * shim_config_net_pairs(shim->conf) + 1;
	if (shim->conf->agent[0] && !shim->conf->in_band)
		shim->queue_count += SHIM_VTOE_QUEUES;
	for (i = 0; i < shim->queue_count; i++) {
		struct shim_queue *q = &shim->queue[i];

		q->shim = shim;
		q->index = i;
		q->kick_fd = -1;
		q->call_fd = -1;
		virtq_init(&q->vq);
	}
	shim_queues_assign(shim);
}

struct shim_queue *shim_queue_at(struct shim *shim, uint32_t index)
{
	return index < shim->queue_count ? &shim->queue[index] : NULL;
}

struct shim_queue *shim_queue_rx(struct shim *shim, unsigned int pair)
{
	return &shim->queue[2 * pair];
}

struct shim_queue *shim_queue_tx(struct shim *shim, unsigned int pair)
{
	return &shim->queue[2 * pair + 1];
}

struct shim_queue *shim_queue_ctrl(struct shim *shim)
{
	return &shim->queue[2 * shim_config_net_pairs(shim->conf)];
}

struct shim_queue *shim_queue_vtoe(struct shim *shim, unsigned int i)
{
	if (shim->conf->in_band)
		return &shim->queue[shim_queues_reserved(shim) +
				    in_band_order[i]];
	return &shim->queue[2 * shim->conf->pairs + 1 + i];
}

void shim_queue_set_state(struct shim_queue *q, enum shim_queue_state state)
{
	if (q->state == state)
		return;
	log_debug("vm %s: queue %u (%s): %s -> %s", q->shim->conf->vm, q->index,
		  shim_queue_kind_name(q->kind), shim_queue_state_name(q->state),
		  shim_queue_state_name(state));
	q->state = state;
}

void shim_queue_broken(struct shim_queue *q)
{
	if (!q->kick_source)
		return;
	q->shim->stats.queues_broken++;
	log_warn("vm %s: queue %u (%s) is broken: the driver put nonsense into the available ring",
		 q->shim->conf->vm, q->index, shim_queue_kind_name(q->kind));
	loop_remove_fd(q->kick_source);
	q->kick_source = NULL;
	q->shim->front.ops->queue_broken(q);
}

/* ---- served here ---- */

static void kicked(int fd, uint32_t events, void *ctx)
{
	struct shim_queue *q = ctx;
	struct shim *shim = q->shim;

	(void)fd;
	if (!virtq_ack_kick(&q->vq) || events & (EPOLLHUP | EPOLLERR)) {
		/* not to be read, or the guest's end is gone: level-triggered, it
		 * would spin */
		loop_remove_fd(q->kick_source);
		q->kick_source = NULL;
	}
	switch (q->kind) {
	case SHIM_QUEUE_RX:
		shim_rx_kicked(shim, q->unit);
		break;
	case SHIM_QUEUE_TX:
		shim_tx_run(shim, q->unit);
		break;
	case SHIM_QUEUE_CTRL:
		shim_ctrl_run(shim, q);
		break;
	case SHIM_QUEUE_VTOE:
		shim_vtoe_kicked(q);
		break;
	case SHIM_QUEUE_UNUSED:
	case SHIM_QUEUE_KINDS:
		break;
	}
}

int shim_queue_ring(const struct shim_queue *q, struct shim_ring *ring)
{
	const struct shim *shim = q->shim;
	const struct shim_front_ops *front = shim->front.ops;
	const uint64_t num = q->num;

	ring->desc = front->to_gpa(shim, q->desc_addr,
				   sizeof(struct vring_desc) * num);
	ring->avail = front->to_gpa(shim, q->avail_addr,
				    sizeof(struct vring_avail) +
					    sizeof(__virtio16) * num);
	ring->used = front->to_gpa(shim, q->used_addr,
				   sizeof(struct vring_used) +
					   sizeof(struct vring_used_elem) * num);
	if (ring->desc == UINT64_MAX || ring->avail == UINT64_MAX ||
	    ring->used == UINT64_MAX) {
		log_warn("vm %s: queue %u: its rings lie outside the guest's memory",
			 q->shim->conf->vm, q->index);
		return -EINVAL;
	}
	return 0;
}

static int dup_fd(int fd)
{
	return fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
}

int shim_queue_start_local(struct shim_queue *q, struct vnet_inflight *inflight)
{
	struct shim *shim = q->shim;
	struct shim_ring ring;
	int ret;

	if (shim_queue_ring(q, &ring) < 0)
		return -EINVAL;
	virtq_set_kick(&q->vq, dup_fd(q->kick_fd));
	virtq_set_call(&q->vq, dup_fd(q->call_fd));
	virtq_set_log(&q->vq, &shim->log);
	if (q->vq.kick_fd < 0) {
		log_err("vm %s: queue %u: %s", shim->conf->vm, q->index,
			strerror(errno));
		return -EINVAL;
	}
	ret = virtq_start(&q->vq, &shim->mem, q->num, ring.desc, ring.avail,
			  ring.used, q->base,
			  shim_device_has(&shim->dev, VIRTIO_RING_F_EVENT_IDX),
			  shim_device_has(&shim->dev, VIRTIO_RING_F_INDIRECT_DESC),
			  inflight);
	if (ret < 0) {
		log_warn("vm %s: queue %u: bad ring (size %u)", shim->conf->vm,
			 q->index, q->num);
		virtq_stop(&q->vq);
		return -EINVAL;
	}
	q->kick_source = loop_add_fd(shim->loop, q->vq.kick_fd, EPOLLIN, kicked,
				     q);
	if (!q->kick_source) {
		/* a regular file, for one, cannot be watched */
		log_warn("vm %s: queue %u: cannot watch its kick descriptor: %s",
			 shim->conf->vm, q->index, strerror(errno));
		virtq_stop(&q->vq);
		return -EINVAL;
	}
	shim_queue_set_state(q, SHIM_QUEUE_LOCAL);
	return 0;
}

void shim_queue_stop_local(struct shim_queue *q)
{
	if (q->state != SHIM_QUEUE_LOCAL)
		return;
	if (q->kind == SHIM_QUEUE_RX)
		shim_rx_stop(q->shim, q->unit);
	loop_remove_fd(q->kick_source);
	q->kick_source = NULL;
	q->base = virtq_stop(&q->vq);
	shim_queue_set_state(q, SHIM_QUEUE_READY);
}

/* ---- as the front end says ---- */

static bool complete(const struct shim_queue *q)
{
	return q->num && q->addr_set && q->kick_fd >= 0 && q->shim->mem.count &&
	       q->shim->front.ops->may_run(q);
}

int shim_queue_update(struct shim_queue *q)
{
	struct shim_ring ring;
	int ret = 0;

	if (!complete(q)) {
		shim_queue_stop(q);
		return 0;
	}
	if (q->state != SHIM_QUEUE_IDLE)
		return 0;
	if (!shim_device_has(&q->shim->dev, VIRTIO_F_VERSION_1)) {
		log_warn("vm %s: the driver does not accept VIRTIO_F_VERSION_1 (legacy devices are not offered)",
			 q->shim->conf->vm);
		return -EINVAL;
	}
	if (shim_queue_ring(q, &ring) < 0)
		return -EINVAL;
	q->base_told = false;
	shim_queue_set_state(q, SHIM_QUEUE_READY);
	if (q->kind == SHIM_QUEUE_VTOE) {
		ret = shim_attach_queue_ready(q->shim);
	} else if (q->kind != SHIM_QUEUE_UNUSED) {
		ret = shim_queue_start_local(q, NULL);
		if (ret == 0 && q->kind == SHIM_QUEUE_RX)
			shim_rx_start(q->shim, q->unit);
		if (ret == 0 && q->kind == SHIM_QUEUE_CTRL)
			shim_ctrl_run(q->shim, q);
	}
	if (ret < 0)
		shim_queue_set_state(q, SHIM_QUEUE_IDLE);
	return ret;
}

void shim_queue_stop(struct shim_queue *q)
{
	if (q->state == SHIM_QUEUE_IDLE)
		return;
	if (q->kind == SHIM_QUEUE_VTOE)
		shim_attach_suspend(q->shim);
	shim_queue_stop_local(q);
	shim_queue_set_state(q, SHIM_QUEUE_IDLE);
}

void shim_queue_reset(struct shim_queue *q)
{
	shim_queue_stop(q);
	q->num = 0;
	q->base = 0;
	q->addr_set = false;
	q->enabled = false;
	if (q->kick_fd >= 0)
		close(q->kick_fd);
	if (q->call_fd >= 0)
		close(q->call_fd);
	q->kick_fd = -1;
	q->call_fd = -1;
	memset(&q->vq.stats, 0, sizeof(q->vq.stats));
}

int shim_queue_set_call(struct shim_queue *q, int fd)
{
	if (q->call_fd >= 0)
		close(q->call_fd);
	q->call_fd = fd;
	if (q->state == SHIM_QUEUE_LOCAL) {
		virtq_set_call(&q->vq, dup_fd(fd));
		/* QEMU starts a queue with a descriptor of its own, and changes
		 * it then: what the first one was told, the guest was not */
		virtq_call(&q->vq);
		return 0;
	}
	if (q->state != SHIM_QUEUE_AGENT)
		return 0;
	/* the agent holds the old one: take the queue back and hand it out anew */
	shim_attach_suspend(q->shim);
	return shim_attach_queue_ready(q->shim);
}

void shim_queues_pause(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < shim->queue_count; i++)
		shim_queue_stop(&shim->queue[i]);
}

int shim_queues_resume(struct shim *shim)
{
	unsigned int i;
	int ret = 0;

	for (i = 0; i < shim->queue_count; i++)
		if (shim_queue_update(&shim->queue[i]) < 0)
			ret = -EINVAL;
	return ret;
}
