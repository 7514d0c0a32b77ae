// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Interrupts over vfio-user: MSI-X vectors, each an eventfd of the client. Vector
 * 0 is as good as any other: the driver says which queue, and which change of
 * the configuration, uses which.
 *
 * A queue is given a duplicate of its vector's eventfd, so that whoever serves
 * it (the agent, too) interrupts the guest without us. A change of that, at any
 * time, is shim_queue_set_call()'s matter; for the agent's queues it costs a
 * round trip to the agent, so what is no change is found out.
 *
 * A masked vector has no eventfd for the queues that use it; when it is unmasked
 * it fires once, since there may have been something: virtio allows an interrupt
 * too many. Clients that do masking themselves (QEMU) never mask here, so
 * VFIO_IRQ_INFO_MASKABLE is not announced.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/vfio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "shim.h"

unsigned int shim_vfio_vectors(const struct shim *shim)
{
	return shim->queue_count + 1;
}

static struct shim_vfio_irq *irq_at(struct shim *shim, uint16_t vector)
{
	return vector < shim_vfio_vectors(shim) ? &shim->vfio.irq[vector] : NULL;
}

void shim_vfio_irqs_init(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < SHIM_VFIO_VECTORS_MAX; i++)
		shim->vfio.irq[i] = (struct shim_vfio_irq){ .fd = -1 };
}

void shim_vfio_irqs_close(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < SHIM_VFIO_VECTORS_MAX; i++)
		if (shim->vfio.irq[i].fd >= 0)
			close(shim->vfio.irq[i].fd);
	shim_vfio_irqs_init(shim);
}

void shim_vfio_fire(struct shim *shim, uint16_t vector)
{
	struct shim_vfio_irq *irq = irq_at(shim, vector);

	/* non-blocking: full means that it has been told */
	if (irq && irq->fd >= 0 && !irq->masked)
		eventfd_write(irq->fd, 1);
}

void shim_vfio_route(struct shim *shim, struct shim_queue *q)
{
	const struct shim_vfio_irq *irq =
		irq_at(shim, shim->vfio.pci.vector[q->index]);
	int fd = -1;

	if (irq && irq->fd >= 0 && !irq->masked)
		fd = fcntl(irq->fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0 && q->call_fd < 0)
		return;
	shim_queue_set_call(q, fd);
}

/* The vector's eventfd is another one, or masked, or unmasked. */
static void rerouted(struct shim *shim, uint16_t vector)
{
	unsigned int i;

	for (i = 0; i < shim->queue_count; i++)
		if (shim->vfio.pci.vector[i] == vector)
			shim_vfio_route(shim, &shim->queue[i]);
}

/* Two descriptors of one eventfd. False if that cannot be told. */
static bool same_file(int a, int b)
{
	const pid_t me = getpid();

	return a >= 0 && b >= 0 && syscall(SYS_kcmp, me, me, KCMP_FILE, a, b) == 0;
}

/* Takes fd; -1: none. */
static void set_eventfd(struct shim *shim, uint16_t vector, int fd)
{
	struct shim_vfio_irq *irq = &shim->vfio.irq[vector];
	int flags;

	if (fd < 0 && irq->fd < 0)
		return;
	/* QEMU repeats itself each time that the guest has moved an interrupt */
	if (same_file(fd, irq->fd)) {
		close(fd);
		return;
	}
	log_debug("vm %s: vector %u: %s", shim->conf->vm, vector,
		  fd < 0 ? "none" : irq->fd < 0 ? "set" : "another");
	if (irq->fd >= 0)
		close(irq->fd);
	irq->fd = fd;
	/* it must not be able to stop us */
	flags = fd < 0 ? -1 : fcntl(fd, F_GETFL);
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	rerouted(shim, vector);
}

static void set_mask(struct shim *shim, uint16_t vector, bool masked)
{
	struct shim_vfio_irq *irq = &shim->vfio.irq[vector];

	if (irq->masked == masked)
		return;
	irq->masked = masked;
	rerouted(shim, vector);
	if (!masked)
		shim_vfio_fire(shim, vector);
}

int shim_vfio_get_irq_info(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	struct vfu_irq_info info;

	memcpy(&info, v->msg.payload, sizeof(info));
	if (info.argsz < sizeof(info) || info.index >= VFIO_PCI_NUM_IRQS)
		return EINVAL;
	info.argsz = sizeof(info);
	info.flags = 0;
	info.count = 0;
	if (info.index == VFIO_PCI_MSIX_IRQ_INDEX) {
		info.flags = VFIO_IRQ_INFO_EVENTFD;
		info.count = shim_vfio_vectors(shim);
	}
	memcpy(v->msg.payload, &info, sizeof(info));
	v->reply_len = sizeof(info);
	return 0;
}

/* Eventfds for [start, start + count), or none: they are taken away. */
static int set_eventfds(struct shim *shim, const struct vfu_irq_set *s)
{
	const unsigned int nfds = shim->front.nfds;
	uint32_t i;

	if ((s->flags & VFIO_IRQ_SET_ACTION_TYPE_MASK) != VFIO_IRQ_SET_ACTION_TRIGGER)
		return ENOTSUP;
	if (nfds && nfds != s->count)
		return shim_vfio_bad(shim, "%u descriptors for %u vectors", nfds,
				     s->count);
	for (i = 0; i < s->count; i++)
		set_eventfd(shim, s->start + i,
			    nfds ? shim_front_take_fd(&shim->front, i) : -1);
	return 0;
}

static void act(struct shim *shim, uint32_t flags, uint16_t vector)
{
	if (flags & VFIO_IRQ_SET_ACTION_MASK)
		set_mask(shim, vector, true);
	else if (flags & VFIO_IRQ_SET_ACTION_UNMASK)
		set_mask(shim, vector, false);
	else
		shim_vfio_fire(shim, vector);
}

static bool one_of(uint32_t flags, uint32_t mask)
{
	return __builtin_popcount(flags & mask) == 1;
}

/* A whole index is switched off; the vectors begin anew, unmasked. */
static void disable_all(struct shim *shim, uint32_t vectors)
{
	uint32_t i;

	for (i = 0; i < vectors; i++) {
		set_eventfd(shim, i, -1);
		shim->vfio.irq[i].masked = false;
	}
}

int shim_vfio_set_irqs(struct shim *shim)
{
	struct shim_vfio *v = &shim->vfio;
	const uint8_t *wanted = v->msg.payload + sizeof(struct vfu_irq_set);
	const uint32_t len = v->msg.hdr.size - sizeof(struct vfu_hdr);
	struct vfu_irq_set s;
	uint32_t i, vectors;

	memcpy(&s, v->msg.payload, sizeof(s));
	vectors = s.index == VFIO_PCI_MSIX_IRQ_INDEX ? shim_vfio_vectors(shim) : 0;
	if (s.index >= VFIO_PCI_NUM_IRQS || s.start > vectors ||
	    s.count > vectors - s.start ||
	    (s.flags & ~(VFIO_IRQ_SET_DATA_TYPE_MASK |
			 VFIO_IRQ_SET_ACTION_TYPE_MASK)) ||
	    !one_of(s.flags, VFIO_IRQ_SET_DATA_TYPE_MASK) ||
	    !one_of(s.flags, VFIO_IRQ_SET_ACTION_TYPE_MASK))
		return EINVAL;
	if (s.flags & VFIO_IRQ_SET_DATA_EVENTFD)
		return set_eventfds(shim, &s);
	if (shim->front.nfds)
		return shim_vfio_bad(shim, "%u descriptors", shim->front.nfds);
	if ((s.flags & VFIO_IRQ_SET_DATA_BOOL) && len - sizeof(s) < s.count)
		return shim_vfio_bad(shim, "%u vectors in %u bytes", s.count, len);
	if (!s.count) {
		if ((s.flags & VFIO_IRQ_SET_DATA_NONE) &&
		    (s.flags & VFIO_IRQ_SET_ACTION_TRIGGER) && !s.start)
			disable_all(shim, vectors);
		return 0;
	}
	for (i = 0; i < s.count; i++)
		if ((s.flags & VFIO_IRQ_SET_DATA_NONE) || wanted[i])
			act(shim, s.flags, s.start + i);
	return 0;
}
