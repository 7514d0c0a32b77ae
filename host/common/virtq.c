// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Device side of a split virtqueue; the threat model stands in virtq.h.
 *
 * Theory of operation. Three free-running 16-bit positions of ours move along
 * the rings: last_avail (taken up to there), used_idx (used elements written up
 * to there) and published (used->idx as the guest sees it).
 *
 *     avail->idx  >= last_avail      pop: read avail->idx (acquire), then the
 *                                    ring entry, then the descriptors
 *     used_idx    >= published       push: write the element
 *                                    publish: store used->idx (release)
 *
 * Both directions of notification have the same race and the same cure: write
 * one's own index, full fence, read what the other side wants to be told. The
 * guest does the same in the opposite order, so at least one of both sees the
 * other (virtio 1.2 sections 2.7.7.1 and 2.7.13.4.1).
 *
 * The rings are read with single atomic loads into locals; descriptors are
 * copied out whole, behind which a compiler barrier keeps the compiler from
 * reading them again. Nothing here allocates or, but for the two eventfds, makes
 * a system call.
 *
 * The in-flight record (vnet_dev.h) is written in the order that it documents;
 * the writer may die between any two stores, and the reader is another process
 * on the same machine, so release stores suffice.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "virtq.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

_Static_assert((VIRTQ_NUM_MAX & (VIRTQ_NUM_MAX - 1)) == 0,
	       "ring positions are masked");

/* ---- guest memory, one access each ---- */

static inline uint16_t load16(const __virtio16 *field)
{
	return le16toh(__atomic_load_n(field, __ATOMIC_RELAXED));
}

static inline uint16_t load16_acquire(const __virtio16 *field)
{
	return le16toh(__atomic_load_n(field, __ATOMIC_ACQUIRE));
}

static inline void store16(__virtio16 *field, uint16_t value)
{
	__atomic_store_n(field, htole16(value), __ATOMIC_RELAXED);
}

static inline void store16_release(__virtio16 *field, uint16_t value)
{
	__atomic_store_n(field, htole16(value), __ATOMIC_RELEASE);
}

static inline void full_fence(void)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* An indirect table may stand at any address: no alignment is presumed. */
static inline void read_desc(const struct vring_desc *table, uint32_t i,
			     struct vring_desc *desc)
{
	memcpy(desc, (const char *)table + (size_t)i * sizeof(*desc),
	       sizeof(*desc));
	/* The guest may have changed it by now; *desc is what counts. */
	__asm__ volatile("" ::: "memory");
}

/* The write is done: see dirty_log.h. Of the used ring's fields. */
static inline void log_used(struct virtq *vq, const void *field, size_t len)
{
	if (unlikely(vq->log && vq->log->on))
		dirty_log_mark(vq->log,
			       vq->used_gpa + ((const char *)field -
					       (const char *)vq->used),
			       len);
}

static inline uint16_t slot(const struct virtq *vq, uint16_t position)
{
	return position & (vq->num - 1);
}

/* The guest's wish: an interrupt when the used index passes this. */
static inline const __virtio16 *used_event(const struct virtq *vq)
{
	return &vq->avail->ring[vq->num];
}

/* Ours: a doorbell when the available index passes this. */
static inline __virtio16 *avail_event(const struct virtq *vq)
{
	return (__virtio16 *)&vq->used->ring[vq->num];
}

/* ---- the in-flight record ---- */

static inline void record_take(struct virtq *vq, uint16_t head)
{
	struct vnet_inflight *record = vq->inflight;

	__atomic_store_n(&record->taken[head], 1, __ATOMIC_RELAXED);
	store16_release(&record->last_avail, vq->last_avail);
}

/* Opposite order: in between, the head is both taken and available. */
static inline void record_untake(struct virtq *vq, uint16_t head)
{
	struct vnet_inflight *record = vq->inflight;

	store16(&record->last_avail, vq->last_avail);
	__atomic_store_n(&record->taken[head], 0, __ATOMIC_RELEASE);
}

/*
 * Clears the heads of the used entries [from, to), which the guest can see. It
 * could also have changed them: that would cost it heads of its own, no more.
 */
static void record_used(struct virtq *vq, uint16_t from, uint16_t to)
{
	struct vnet_inflight *record = vq->inflight;
	uint16_t i;

	for (i = from; i != to; i++) {
		uint32_t head = le32toh(__atomic_load_n(
			&vq->used->ring[slot(vq, i)].id, __ATOMIC_RELAXED));

		if (head < vq->num)
			__atomic_store_n(&record->taken[head], 0,
					 __ATOMIC_RELEASE);
	}
	store16_release(&record->used_idx, to);
}

/* A fresh record gets this queue's positions; false: it is of another queue. */
static bool record_start(struct virtq *vq, struct vnet_inflight *record)
{
	uint16_t version = load16(&record->version);

	if (version == VNET_INFLIGHT_VERSION)
		return load16(&record->num) == vq->num;
	if (version)
		return false;
	memset(record->taken, 0, sizeof(record->taken));
	store16(&record->num, vq->num);
	store16(&record->last_avail, vq->last_avail);
	store16(&record->used_idx, vq->used_idx);
	store16_release(&record->version, VNET_INFLIGHT_VERSION);
	return true;
}

/* ---- start and stop ---- */

void virtq_init(struct virtq *vq)
{
	memset(vq, 0, sizeof(*vq));
	vq->kick_fd = -1;
	vq->call_fd = -1;
}

/*
 * Whoever made the descriptor must not be able to block us: it may be a full
 * pipe (user-mode Linux), or an eventfd that somebody else has drained.
 */
static void make_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags >= 0 && !(flags & O_NONBLOCK))
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static void replace_fd(int *place, int fd)
{
	if (*place >= 0 && *place != fd)
		close(*place);
	*place = fd;
	if (fd >= 0)
		make_nonblocking(fd);
}

void virtq_set_kick(struct virtq *vq, int fd)
{
	replace_fd(&vq->kick_fd, fd);
}

void virtq_set_call(struct virtq *vq, int fd)
{
	replace_fd(&vq->call_fd, fd);
}

void virtq_set_log(struct virtq *vq, struct dirty_log *log)
{
	vq->log = log;
}

static void *ring_area(const struct guest_mem *mem, uint64_t gpa, uint64_t len,
		       uint64_t align)
{
	void *area = guest_mem_at(mem, gpa, len);

	/* the mapping need not be aligned as the address is: look at both */
	if (!area || gpa % align || (uintptr_t)area % align)
		return NULL;
	return area;
}

int virtq_start(struct virtq *vq, const struct guest_mem *mem, uint16_t num,
		uint64_t desc_gpa, uint64_t avail_gpa, uint64_t used_gpa,
		uint16_t last_avail, bool event_idx, bool indirect,
		struct vnet_inflight *inflight)
{
	const uint64_t event_len = event_idx ? sizeof(__virtio16) : 0;

	vq->running = false;
	if (!num || num > VIRTQ_NUM_MAX || (num & (num - 1)))
		return -EINVAL;
	vq->desc = ring_area(mem, desc_gpa, sizeof(struct vring_desc) * num,
			     VRING_DESC_ALIGN_SIZE);
	vq->avail = ring_area(mem, avail_gpa,
			      sizeof(struct vring_avail) +
				      sizeof(__virtio16) * num + event_len,
			      VRING_AVAIL_ALIGN_SIZE);
	vq->used = ring_area(mem, used_gpa,
			     sizeof(struct vring_used) +
				     sizeof(struct vring_used_elem) * num +
				     event_len,
			     VRING_USED_ALIGN_SIZE);
	if (!vq->desc || !vq->avail || !vq->used)
		goto forget;

	vq->mem = mem;
	vq->num = num;
	vq->used_gpa = used_gpa;
	vq->event_idx = event_idx;
	vq->indirect = indirect;
	vq->broken = false;
	vq->blocked = false;
	vq->last_avail = last_avail;
	vq->seen_avail = last_avail;
	vq->used_idx = load16(&vq->used->idx);
	vq->published = vq->used_idx;
	vq->signalled = vq->used_idx;
	vq->signalled_valid = false;
	vq->unsignalled = false;
	if (inflight && !record_start(vq, inflight))
		goto forget;
	vq->inflight = inflight;
	virtq_set_kick(vq, vq->kick_fd);
	virtq_set_call(vq, vq->call_fd);
	vq->running = true;
	/* Whoever served the ring before may have died with doorbells off. */
	virtq_enable_kicks(vq);
	return 0;

forget:
	vq->desc = NULL;
	vq->avail = NULL;
	vq->used = NULL;
	vq->inflight = NULL;
	return -EINVAL;
}

uint16_t virtq_stop(struct virtq *vq)
{
	vq->running = false;
	vq->desc = NULL;
	vq->avail = NULL;
	vq->used = NULL;
	vq->inflight = NULL;
	vq->mem = NULL;
	virtq_set_kick(vq, -1);
	virtq_set_call(vq, -1);
	return vq->last_avail;
}

/* ---- taking chains ---- */

/* Appends what desc points to. False: malformed. */
static inline bool chain_add(const struct virtq *vq, struct virtq_chain *chain,
			     const struct vring_desc *desc, uint16_t flags)
{
	const unsigned int count = chain->out_count + chain->in_count;
	const uint32_t len = le32toh(desc->len);
	uint32_t *bytes;
	void *base;

	if (count == VIRTQ_CHAIN_MAX)
		return false;
	base = guest_mem_at(vq->mem, le64toh(desc->addr), len);
	if (!base) /* not in one region, or of length 0 */
		return false;
	if (flags & VRING_DESC_F_WRITE) {
		chain->in_count++;
		bytes = &chain->in_bytes;
	} else {
		if (chain->in_count) /* readable behind writable */
			return false;
		chain->out_count++;
		bytes = &chain->out_bytes;
	}
	if (__builtin_add_overflow(*bytes, len, bytes))
		return false;
	chain->iov[count].iov_base = base;
	chain->iov[count].iov_len = len;
	return true;
}

/* The table that an indirect descriptor points to; NULL: malformed. */
static const struct vring_desc *indirect_table(const struct virtq *vq,
					       const struct vring_desc *desc,
					       uint32_t *entries)
{
	const uint32_t len = le32toh(desc->len);

	*entries = len / sizeof(struct vring_desc);
	if (!len || len % sizeof(struct vring_desc) ||
	    *entries > VIRTQ_CHAIN_MAX)
		return NULL;
	return guest_mem_at(vq->mem, le64toh(desc->addr), len);
}

/*
 * Follows the chain from head. Direct descriptors may be followed by one that
 * is indirect (2.7.5.3.2); in its table there is none. A table is left after as
 * many steps as it has entries: a longer chain is a loop.
 */
static bool read_chain(const struct virtq *vq, uint16_t head,
		       struct virtq_chain *chain)
{
	const struct vring_desc *table = vq->desc;
	uint32_t entries = vq->num;
	uint32_t steps = 0;
	uint32_t i = head;
	bool within = false; /* an indirect table, which may be the ring's own */
	struct vring_desc desc;
	uint16_t flags;

	chain->head = head;
	chain->out_count = 0;
	chain->in_count = 0;
	chain->out_bytes = 0;
	chain->in_bytes = 0;
	for (;;) {
		if (i >= entries || steps++ == entries)
			return false;
		read_desc(table, i, &desc);
		flags = le16toh(desc.flags);
		if (flags & VRING_DESC_F_INDIRECT) {
			if (!vq->indirect || within ||
			    flags & VRING_DESC_F_NEXT)
				return false;
			within = true;
			table = indirect_table(vq, &desc, &entries);
			if (!table)
				return false;
			steps = 0;
			i = 0;
			continue;
		}
		if (!chain_add(vq, chain, &desc, flags))
			return false;
		if (!(flags & VRING_DESC_F_NEXT))
			return true;
		i = le16toh(desc.next);
	}
}

static int break_queue(struct virtq *vq)
{
	vq->broken = true;
	return -EPROTO;
}

/* 1: there is something to take, 0: nothing, -EPROTO. */
static inline int look_at_avail(struct virtq *vq)
{
	if (vq->seen_avail != vq->last_avail)
		return 1;
	vq->seen_avail = load16_acquire(&vq->avail->idx);
	if (vq->seen_avail == vq->last_avail)
		return 0;
	if (unlikely((uint16_t)(vq->seen_avail - vq->last_avail) > vq->num))
		return break_queue(vq);
	return 1;
}

/* 1: taken, 0: none, -EPROTO, -EINVAL: one was malformed and is pushed back. */
static inline int pop_one(struct virtq *vq, struct virtq_chain *chain)
{
	int ret = look_at_avail(vq);
	uint16_t head;

	if (ret <= 0)
		return ret;
	head = load16(&vq->avail->ring[slot(vq, vq->last_avail)]);
	if (unlikely(head >= vq->num))
		return break_queue(vq);
	chain->position = vq->last_avail++;
	if (vq->inflight)
		record_take(vq, head);
	if (likely(read_chain(vq, head, chain))) {
		vq->stats.chains++;
		return 1;
	}
	vq->stats.malformed++;
	virtq_push(vq, head, 0);
	/* Before the next is taken: it may be the same head, offered twice. */
	virtq_publish(vq);
	return -EINVAL;
}

int virtq_pop(struct virtq *vq, struct virtq_chain *chain)
{
	/* A guest that adds bad chains as fast as we return them gets no more. */
	unsigned int bad = 0;
	int ret;

	if (unlikely(vq->broken || !vq->running))
		return vq->broken ? -EPROTO : 0;
	do {
		ret = pop_one(vq, chain);
	} while (unlikely(ret == -EINVAL && ++bad < VIRTQ_SKIP_MAX));
	if (unlikely(bad))
		virtq_publish_notify(vq);
	if (unlikely(vq->blocked))
		return -EPROTO;
	return ret == -EINVAL ? 0 : ret;
}

bool virtq_reread(struct virtq *vq, uint16_t head, struct virtq_chain *chain)
{
	if (vq->broken || !vq->running || head >= vq->num)
		return false;
	chain->position = vq->last_avail; /* which it never had: see virtq.h */
	return read_chain(vq, head, chain);
}

/*
 * Malformed chains skipped between this one and the next are met, and returned,
 * once more: a guest that makes such is beyond caring.
 */
void virtq_unpop(struct virtq *vq, const struct virtq_chain *chain)
{
	vq->last_avail = chain->position;
	if (vq->inflight)
		record_untake(vq, chain->head);
}

bool virtq_has_work(const struct virtq *vq)
{
	if (!vq->running || vq->broken)
		return false;
	return vq->seen_avail != vq->last_avail ||
	       load16_acquire(&vq->avail->idx) != vq->last_avail;
}

uint16_t virtq_mark(const struct virtq *vq)
{
	return vq->running ? load16_acquire(&vq->avail->idx) : vq->last_avail;
}

/* A mark that makes no sense is behind us; virtq_pop() will say what is wrong. */
bool virtq_before(const struct virtq *vq, uint16_t mark)
{
	uint16_t left = (uint16_t)(mark - vq->last_avail);

	return vq->running && !vq->broken && left && left <= vq->num;
}

/* ---- giving them back ---- */

/*
 * Where the chain's buffers are is in its descriptors still, which are the
 * driver's again only when it sees the used element. One that has changed them
 * gets what it asked for: its buffers' old content on the new host.
 */
static void log_buffers(struct virtq *vq, uint16_t head, uint32_t len)
{
	struct virtq_chain chain;
	unsigned int i;

	if (head >= vq->num || !read_chain(vq, head, &chain))
		return;
	for (i = 0; i < chain.in_count && len; i++) {
		const struct iovec *iov = &chain.iov[chain.out_count + i];
		const uint32_t n = len < iov->iov_len ? len : iov->iov_len;

		dirty_log_mark(vq->log, guest_mem_gpa(vq->mem, iov->iov_base), n);
		len -= n;
	}
}

void virtq_push(struct virtq *vq, uint16_t head, uint32_t len)
{
	struct vring_used_elem *elem = &vq->used->ring[slot(vq, vq->used_idx)];

	if (unlikely(vq->log && vq->log->on && len))
		log_buffers(vq, head, len);
	__atomic_store_n(&elem->id, htole32(head), __ATOMIC_RELAXED);
	__atomic_store_n(&elem->len, htole32(len), __ATOMIC_RELAXED);
	log_used(vq, elem, sizeof(*elem));
	vq->used_idx++;
}

void virtq_publish(struct virtq *vq)
{
	const uint16_t from = vq->published, to = vq->used_idx;

	if (from == to)
		return;
	store16_release(&vq->used->idx, to);
	log_used(vq, &vq->used->idx, sizeof(vq->used->idx));
	vq->published = to;
	vq->unsignalled = true;
	/* 65536 elements and no interrupt decision: nothing to compare with. */
	if (unlikely((uint16_t)(to - vq->signalled) < (uint16_t)(to - from)))
		vq->signalled_valid = false;
	if (vq->inflight)
		record_used(vq, from, to);
}

/* After a full fence behind the store of used->idx. */
static bool guest_wants_call(struct virtq *vq)
{
	const uint16_t from = vq->signalled, to = vq->published;
	const bool compare = vq->signalled_valid;

	vq->signalled = to;
	vq->signalled_valid = true;
	vq->unsignalled = false;
	if (!vq->event_idx)
		return !(load16(&vq->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	return !compare || vring_need_event(load16(used_event(vq)), to, from);
}

/* EINTR: it waited, though what is non-blocking does not (virtq.h). */
static void block_queue(struct virtq *vq)
{
	vq->blocked = true;
	break_queue(vq);
}

static bool raise_call(struct virtq *vq)
{
	const uint64_t one = 1;

	if (vq->call_fd < 0 || vq->blocked)
		return false;
	/* EAGAIN: full, so an interrupt is already on its way. */
	if (write(vq->call_fd, &one, sizeof(one)) < 0 && errno != EAGAIN) {
		if (errno == EINTR)
			block_queue(vq);
		return false;
	}
	vq->stats.calls++;
	return true;
}

bool virtq_publish_notify(struct virtq *vq)
{
	virtq_publish(vq);
	if (!vq->unsignalled)
		return false;
	full_fence();
	if (!guest_wants_call(vq)) {
		vq->stats.calls_suppressed++;
		return false;
	}
	return raise_call(vq);
}

void virtq_call(struct virtq *vq)
{
	raise_call(vq);
}

/* ---- doorbells ---- */

void virtq_disable_kicks(struct virtq *vq)
{
	/* With EVENT_IDX an index that stays behind is as good (until it wraps). */
	if (!vq->running || vq->event_idx)
		return;
	store16(&vq->used->flags, VRING_USED_F_NO_NOTIFY);
	log_used(vq, &vq->used->flags, sizeof(vq->used->flags));
}

bool virtq_enable_kicks(struct virtq *vq)
{
	if (!vq->running)
		return false;
	if (vq->event_idx) {
		store16(avail_event(vq), vq->last_avail);
		log_used(vq, avail_event(vq), sizeof(__virtio16));
	} else {
		store16(&vq->used->flags, 0);
		log_used(vq, &vq->used->flags, sizeof(vq->used->flags));
	}
	full_fence();
	return virtq_has_work(vq);
}

bool virtq_ack_kick(struct virtq *vq)
{
	uint64_t count;
	ssize_t n;

	if (vq->kick_fd < 0 || vq->blocked)
		return true;
	n = read(vq->kick_fd, &count, sizeof(count));
	if (n == sizeof(count)) {
		vq->stats.kicks++;
		vq->stats.rings += count;
	} else if (n < 0 && errno == EINTR) {
		block_queue(vq);
	}
	return n >= 0 || errno == EAGAIN || errno == EINTR;
}

/* ---- copying ---- */

uint32_t virtq_copy_out(const struct virtq_chain *chain, uint32_t offset,
			void *dst, uint32_t len)
{
	char *to = dst;
	uint32_t done = 0;
	unsigned int i;

	for (i = 0; i < chain->out_count && done < len; i++) {
		const struct iovec *iov = &chain->iov[i];
		size_t n;

		if (offset >= iov->iov_len) {
			offset -= iov->iov_len;
			continue;
		}
		n = iov->iov_len - offset;
		if (n > len - done)
			n = len - done;
		memcpy(to + done, (const char *)iov->iov_base + offset, n);
		done += n;
		offset = 0;
	}
	return done;
}

uint32_t virtq_copy_in(const struct virtq_chain *chain, uint32_t offset,
		       const void *src, uint32_t len)
{
	const char *from = src;
	uint32_t done = 0;
	unsigned int i;

	for (i = 0; i < chain->in_count && done < len; i++) {
		const struct iovec *iov = &chain->iov[chain->out_count + i];
		size_t n;

		if (offset >= iov->iov_len) {
			offset -= iov->iov_len;
			continue;
		}
		n = iov->iov_len - offset;
		if (n > len - done)
			n = len - done;
		memcpy((char *)iov->iov_base + offset, from + done, n);
		done += n;
		offset = 0;
	}
	return done;
}

/* ---- recovery ---- */

/*
 * Takes what is available, in the protocol of the record, so that a survivor
 * that dies here has a successor too. A head may already be taken: the server
 * died between its two stores.
 */
static int recover_available(struct virtq *vq)
{
	const uint16_t end = load16_acquire(&vq->avail->idx);

	if ((uint16_t)(end - vq->last_avail) > vq->num)
		return break_queue(vq);
	while (vq->last_avail != end) {
		uint16_t head =
			load16(&vq->avail->ring[slot(vq, vq->last_avail)]);

		if (head >= vq->num)
			return break_queue(vq);
		vq->last_avail++;
		record_take(vq, head);
	}
	vq->seen_avail = end;
	return 0;
}

int virtq_recover(struct virtq *vq)
{
	struct vnet_inflight *record = vq->inflight;
	uint16_t used_idx, head;
	int returned = 0;
	int ret;

	if (!vq->running || vq->broken || !record)
		return -EPROTO;
	virtq_publish(vq);
	/* The guest has these back, though the record does not know it. */
	used_idx = load16(&record->used_idx);
	if ((uint16_t)(vq->published - used_idx) > vq->num)
		return break_queue(vq);
	record_used(vq, used_idx, vq->published);

	vq->last_avail = load16(&record->last_avail);
	ret = recover_available(vq);
	if (ret < 0)
		return ret;
	for (head = 0; head < vq->num; head++) {
		if (!__atomic_load_n(&record->taken[head], __ATOMIC_RELAXED))
			continue;
		virtq_push(vq, head, 0);
		returned++;
	}
	virtq_publish_notify(vq);
	/* whatever the guest wants: see virtq.h */
	raise_call(vq);
	return returned;
}
