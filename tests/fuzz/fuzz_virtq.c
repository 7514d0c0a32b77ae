// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Any bytes as rings, and as what device and guest do with them in turn.
 *
 *	byte 0	ring size: 2^(n % 9)
 *	byte 1	bit 0: EVENT_IDX, 1: indirect, 2: with an in-flight record
 *	byte 2	number of operations, one byte each, from byte 3
 *	then	the descriptor table, the avail ring, and data at gpa 0x3000
 *
 * Guest memory is two regions that meet at 0x10000. Each chain that is taken is
 * checked to lie within one of them, piece by piece, and is read and written.
 */
#include <errno.h>
#include <linux/virtio_ring.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "virtq.h"

#define DESC_GPA 0x0
#define AVAIL_GPA 0x1000
#define USED_GPA 0x2000
#define DATA_GPA 0x3000
#define REGION_SIZE 0x10000
#define REGION2_SIZE 0x1000
#define HELD_MAX 64

static struct guest_mem mem;
static uint8_t *region[2];
static struct vnet_inflight record;
static struct virtq vq;
static struct virtq_chain held[HELD_MAX];
static unsigned int held_count;

static void set_up(void)
{
	static const uint64_t size[2] = { REGION_SIZE, REGION2_SIZE };
	unsigned int i;
	int fd;

	if (mem.count)
		return;
	guest_mem_init(&mem);
	for (i = 0; i < 2; i++) {
		fd = memfd_create("guest", MFD_CLOEXEC);
		must(fd >= 0 && ftruncate(fd, size[i]) == 0);
		must(guest_mem_add(&mem, i * REGION_SIZE, size[i], 0, 0, fd) == 0);
		region[i] = guest_mem_at(&mem, i * REGION_SIZE, size[i]);
		must(region[i]);
	}
	virtq_init(&vq);
	virtq_set_kick(&vq, eventfd(0, EFD_CLOEXEC));
	virtq_set_call(&vq, eventfd(0, EFD_CLOEXEC));
}

static size_t take_bytes(const uint8_t **data, size_t *size, void *to, size_t len)
{
	if (len > *size)
		len = *size;
	memcpy(to, *data, len);
	*data += len;
	*size -= len;
	return len;
}

static bool in_region(const struct iovec *iov, unsigned int i, size_t size)
{
	const uint8_t *base = iov->iov_base;

	return base >= region[i] && iov->iov_len <= size &&
	       base + iov->iov_len <= region[i] + size;
}

static void check_chain(const struct virtq_chain *chain)
{
	uint64_t out = 0, in = 0;
	unsigned int i;

	must(chain->head < vq.num);
	must(chain->out_count + chain->in_count >= 1);
	must(chain->out_count + chain->in_count <= VIRTQ_CHAIN_MAX);
	for (i = 0; i < chain->out_count + chain->in_count; i++) {
		const struct iovec *iov = &chain->iov[i];

		must(iov->iov_len > 0);
		must(in_region(iov, 0, REGION_SIZE) ||
		     in_region(iov, 1, REGION2_SIZE));
		if (i < chain->out_count)
			out += iov->iov_len;
		else
			in += iov->iov_len;
	}
	must(out == chain->out_bytes && in == chain->in_bytes);
	must(!vq.inflight || record.taken[chain->head] == 1);
}

static void copy_some(const struct virtq_chain *chain, uint32_t offset)
{
	static uint8_t buf[300];
	uint32_t n, rest;

	n = virtq_copy_out(chain, offset, buf, sizeof(buf));
	rest = chain->out_bytes > offset ? chain->out_bytes - offset : 0;
	must(n == (rest < sizeof(buf) ? rest : sizeof(buf)));
	n = virtq_copy_in(chain, offset, buf, sizeof(buf));
	rest = chain->in_bytes > offset ? chain->in_bytes - offset : 0;
	must(n == (rest < sizeof(buf) ? rest : sizeof(buf)));
}

static void pop(void)
{
	int ret;

	if (held_count == HELD_MAX)
		return;
	ret = virtq_pop(&vq, &held[held_count]);
	must(ret == 0 || ret == 1 || ret == -EPROTO);
	must((ret == -EPROTO) == vq.broken);
	if (ret != 1)
		return;
	check_chain(&held[held_count]);
	copy_some(&held[held_count], 3);
	held_count++;
}

/* Gives back the one taken first. */
static void push(uint32_t len)
{
	if (!held_count)
		return;
	virtq_push(&vq, held[0].head, len);
	held_count--;
	memmove(&held[0], &held[1], held_count * sizeof(held[0]));
}

static void start(uint16_t num, uint8_t flags, uint16_t last_avail)
{
	must(virtq_start(&vq, &mem, num, DESC_GPA, AVAIL_GPA, USED_GPA,
			 last_avail, flags & 1, flags & 2,
			 flags & 4 ? &record : NULL) == 0);
}

/* The server is gone, and another comes. */
static void crash(uint8_t flags)
{
	uint16_t i;
	int ret;

	held_count = 0;
	start(vq.num, flags, flags & 4 ? record.last_avail : vq.last_avail);
	ret = virtq_recover(&vq);
	must(ret == -EPROTO || (ret >= 0 && ret <= vq.num));
	if (ret < 0)
		return;
	for (i = 0; i < vq.num; i++)
		must(!record.taken[i]);
	must(record.last_avail == vq.last_avail);
	must(record.used_idx == vq.published);
	must(!virtq_has_work(&vq));
}

static void operate(uint8_t op, uint8_t flags)
{
	struct vring_avail *avail = (void *)(region[0] + AVAIL_GPA);
	struct vring_used *used = (void *)(region[0] + USED_GPA);
	const uint8_t arg = op >> 4;
	const bool unpublished = vq.used_idx != vq.published;

	switch (op & 15) {
	case 0:
	case 1:
		pop();
		break;
	case 2:
		push(arg);
		break;
	case 3:
		virtq_publish(&vq);
		must(!unpublished || used->idx == vq.used_idx);
		break;
	case 4:
		virtq_publish_notify(&vq);
		break;
	case 5:
		if (held_count)
			virtq_unpop(&vq, &held[--held_count]);
		break;
	case 6:
		virtq_enable_kicks(&vq);
		break;
	case 7:
		virtq_disable_kicks(&vq);
		break;
	case 8: /* the guest adds */
	case 9:
		avail->idx += arg;
		break;
	case 10: /* the guest changes a descriptor, an entry, its wish */
		region[0][DESC_GPA + 16 * arg + 12] ^= VRING_DESC_F_NEXT;
		break;
	case 11:
		avail->ring[arg] += 1;
		break;
	case 12:
		used->idx -= arg; /* which is not the guest's to write */
		used->ring[arg].id ^= arg;
		break;
	case 13:
		if (held_count)
			copy_some(&held[arg % held_count], arg * 57);
		break;
	case 14:
		virtq_ack_kick(&vq);
		must(!vq.broken || !virtq_has_work(&vq));
		break;
	case 15:
		crash(flags);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t head[3] = { 0 }, ops[256];
	unsigned int i, count;
	uint16_t num;

	set_up();
	memset(region[0], 0, REGION_SIZE);
	memset(region[1], 0, REGION2_SIZE);
	memset(&record, 0, sizeof(record));
	held_count = 0;
	take_bytes(&data, &size, head, sizeof(head));
	num = 1 << head[0] % 9;
	count = take_bytes(&data, &size, ops, head[2]);
	take_bytes(&data, &size, region[0] + DESC_GPA, 16 * num);
	take_bytes(&data, &size, region[0] + AVAIL_GPA, 6 + 2 * num);
	take_bytes(&data, &size, region[0] + DATA_GPA, REGION_SIZE - DATA_GPA);

	start(num, head[1], 0);
	for (i = 0; i < count; i++)
		operate(ops[i], head[1]);
	return 0;
}
