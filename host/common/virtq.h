/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Device side of a split virtqueue (virtio 1.2 section 2.7) with EVENT_IDX
 * (2.7.10) and indirect descriptors (2.7.5.3), used by the shim for its
 * Ethernet queues and by the agent for the VTOE queues.
 *
 * Threat model: the driver side is hostile. Each index, descriptor and length
 * is read once, bounded, and then used; a chain is at most VIRTQ_CHAIN_MAX
 * buffers and never longer than its table; writable after readable only. A
 * malformed chain is returned to the used ring with length 0 and counted; an
 * available index further ahead than the ring is long, or a head that is no
 * descriptor of it, breaks the queue (virtq.broken), which ends this VM's use
 * of it and nothing else.
 *
 * So is whoever made the two eventfds, for the flags of a file are shared by all
 * who have it: O_NONBLOCK may be gone again, and the next doorbell or interrupt
 * wait for ever. A process that serves more than one VM has a timer whose signal
 * ends that with EINTR; such a queue is broken as well (virtq.blocked), and its
 * descriptors are not touched any more.
 */
#ifndef COMMON_VIRTQ_H
#define COMMON_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "dirty_log.h"
#include "guest_mem.h"
#include "vnet_dev.h"

#define VIRTQ_NUM_MAX VNET_INFLIGHT_HEADS
#define VIRTQ_CHAIN_MAX 256
#define VIRTQ_SKIP_MAX 64

struct virtq_stats {
	uint64_t chains;    /* taken */
	uint64_t malformed; /* returned with length 0 */
	uint64_t kicks;	    /* times that the doorbell was found rung */
	uint64_t rings;	    /* how often it was, as its eventfd has counted */
	uint64_t calls;	    /* interrupts raised */
	uint64_t calls_suppressed;
};

struct virtq {
	const struct guest_mem *mem; /* not owned */
	uint16_t num;
	bool event_idx, indirect;
	bool broken;
	bool blocked; /* and broken: a descriptor made us wait */
	bool running;
	int kick_fd, call_fd; /* owned, -1: none */
	/* inside guest memory */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint64_t used_gpa;
	struct dirty_log *log; /* not owned; NULL: nobody migrates this VM */
	struct vnet_inflight *inflight; /* shared record or NULL; mapping not owned */
	uint16_t last_avail; /* next position to take */
	uint16_t seen_avail; /* avail->idx as last read */
	uint16_t used_idx;   /* next position to fill */
	uint16_t published;  /* used->idx as the guest sees it */
	uint16_t signalled;  /* used index at the last interrupt decision */
	bool signalled_valid;
	bool unsignalled; /* published since */
	struct virtq_stats stats;
};

/* A chain of buffers taken from the ring. */
struct virtq_chain {
	uint16_t head;
	uint16_t position; /* in the avail ring, for virtq_unpop() */
	uint16_t out_count, in_count; /* readable ones first in iov[] */
	uint32_t out_bytes, in_bytes;
	struct iovec iov[VIRTQ_CHAIN_MAX];
};

void virtq_init(struct virtq *vq); /* all zero but the fds */
/*
 * Takes a doorbell or interrupt eventfd (-1: none) in place of the one before,
 * which is closed, and makes it non-blocking. At any time, running or not.
 */
void virtq_set_kick(struct virtq *vq, int fd);
void virtq_set_call(struct virtq *vq, int fd);

/*
 * From now on what is written to guest memory is marked there, if it is on: the
 * used ring here, a chain's buffers when it is pushed, as far as len says. Who
 * writes into buffers must have done so by then.
 */
void virtq_set_log(struct virtq *vq, struct dirty_log *log);

/*
 * Starts on rings at guest physical addresses. num: a power of two up to
 * VIRTQ_NUM_MAX. last_avail: where to go on (0 on a fresh ring); the used
 * index is read from the ring. inflight: a record to keep, or NULL; a fresh one
 * (version 0) is initialised, one in use is left as it is. Doorbells are
 * enabled, but what is available already may have been rung for before: look.
 * -EINVAL: bad num, an area outside memory or misaligned, or another's record.
 */
int virtq_start(struct virtq *vq, const struct guest_mem *mem, uint16_t num,
		uint64_t desc_gpa, uint64_t avail_gpa, uint64_t used_gpa,
		uint16_t last_avail, bool event_idx, bool indirect,
		struct vnet_inflight *inflight);
/*
 * Forgets the rings, without touching them (publish before), and closes the
 * fds. Returns the next avail position.
 */
uint16_t virtq_stop(struct virtq *vq);

/*
 * Takes the next available chain. 1: taken; 0: none; -EPROTO: the queue is
 * broken. Malformed chains are returned to the guest here and skipped, but no
 * more than VIRTQ_SKIP_MAX a call: behind that many it is 0 although there is
 * something, which virtq_has_work() and virtq_enable_kicks() tell.
 */
int virtq_pop(struct virtq *vq, struct virtq_chain *chain);
/*
 * Reads once more the chain of a head that was taken and is not pushed. Not for
 * virtq_unpop(). False: the guest has made it malformed meanwhile.
 */
bool virtq_reread(struct virtq *vq, uint16_t head, struct virtq_chain *chain);
/* Gives back the newest chains taken, as if never taken (rx that did not need
 * them). Only those popped last and not yet pushed; in reverse order. */
void virtq_unpop(struct virtq *vq, const struct virtq_chain *chain);
/* Puts a used element in place; the guest sees it after virtq_publish(). */
void virtq_push(struct virtq *vq, uint16_t head, uint32_t len);
/* Makes pushed elements visible. */
void virtq_publish(struct virtq *vq);
/* virtq_publish(), then raises an interrupt if the guest wants one for them.
 * Returns true if it did. It and virtq_ack_kick() may find the queue blocked. */
bool virtq_publish_notify(struct virtq *vq);
/* Raises an interrupt whether the guest wants one or not: an earlier one may have
 * gone to a descriptor that nobody looked at. */
void virtq_call(struct virtq *vq);
/* The avail ring has something not yet taken. */
bool virtq_has_work(const struct virtq *vq);
/*
 * A place to stop at for who must not follow a guest that never ceases to post:
 * virtq_mark() is where the avail ring ends now, virtq_before() is true until
 * everything in front of that has been taken.
 */
uint16_t virtq_mark(const struct virtq *vq);
bool virtq_before(const struct virtq *vq, uint16_t mark);

/*
 * Doorbells. disable: the guest need not kick (advice only). enable: it must;
 * returns true if something became available meanwhile, so look again.
 */
void virtq_disable_kicks(struct virtq *vq);
bool virtq_enable_kicks(struct virtq *vq);
/* Drains the kick eventfd; counts it. False: it cannot be drained (another file
 * that can be watched), and would be found rung for ever. */
bool virtq_ack_kick(struct virtq *vq);

/* Copies out of / into a chain's readable / writable part. Bytes copied. */
uint32_t virtq_copy_out(const struct virtq_chain *chain, uint32_t offset,
			void *dst, uint32_t len);
uint32_t virtq_copy_in(const struct virtq_chain *chain, uint32_t offset,
		       const void *src, uint32_t len);

/*
 * Recovery of a queue whose server died, from its record (vnet_dev.h): returns
 * every head that is taken or available with length 0 and leaves the record
 * consistent. The queue must be started, by the survivor. Number of heads
 * returned, or -EPROTO if the record or the ring makes no sense.
 */
int virtq_recover(struct virtq *vq);

#endif /* COMMON_VIRTQ_H */
