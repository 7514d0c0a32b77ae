// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Messages for a VM whose rings rest.
 *
 * Theory of operation. When a VM is stopped and continued, gets more memory or
 * moves an interrupt, its shim takes the rings and the memory back for a while.
 * Its connections live on, as TCP ones do: what was under way from it is copied
 * (iba_fabric.pause_vm), and what comes for it is held here, in our own memory,
 * as the receive buffer would have it, header first. When all rings run again
 * the messages go into receive buffers in the order in which they began; one
 * that was still coming in then follows when it is whole.
 *
 * deliver.c and the fabrics know a held message by its `head`: one that no ring
 * has. So they fill, end and give it up as they would a receive buffer.
 *
 * Threat model: a front end may let its VM rest for ever, and a guest may have
 * granted what it likes. So no more is held than the receive rings have places,
 * and HELD_MAX bytes; whose message is beyond that loses the connection.
 */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_HELD 0x8000u /* above VIRTQ_NUM_MAX */
#define HELD_MAX (64u << 20)
_Static_assert(VIRTQ_NUM_MAX <= HEAD_HELD, "heads and held ones differ");
_Static_assert(VNET_RWQ_CLASSES * VIRTQ_NUM_MAX < HEAD_HELD,
	       "there is a number for each that is held");

struct iba_held {
	uint16_t id;
	uint8_t class;
	bool done;
	uint32_t sid, bytes; /* with the header */
	TAILQ_ENTRY(iba_held) link;
	uint8_t data[];
};

bool iba_hold_has(uint16_t head)
{
	return head & HEAD_HELD;
}

/* The newest ones are looked for. */
static struct iba_held *find(struct iba_vm *vm, uint16_t id)
{
	struct iba_held *held;

	TAILQ_FOREACH_REVERSE(held, &vm->held, iba_held_list, link)
		if (held->id == id)
			return held;
	return NULL;
}

static void drop(struct iba_vm *vm, struct iba_held *held)
{
	TAILQ_REMOVE(&vm->held, held, link);
	vm->held_count[held->class]--;
	vm->held_bytes -= held->bytes;
	free(held);
}

/* Room for a message of len bytes; NULL: none. */
static struct iba_held *make(struct iba_vm *vm, unsigned int class,
			     uint32_t sid, uint32_t len)
{
	uint32_t bytes = (uint32_t)sizeof(struct vtoe_msg_hdr) + len;
	struct iba_held *held;

	if (vm->held_count[class] >= vm->queue[IBA_Q_RWQ + class].vq.num ||
	    vm->held_bytes + bytes > HELD_MAX)
		return NULL;
	held = malloc(sizeof(*held) + bytes);
	if (!held)
		return NULL;
	/* one that does not end may have kept its number for long */
	do
		held->id = HEAD_HELD | vm->held_next++;
	while (find(vm, held->id));
	held->class = (uint8_t)class;
	held->done = false;
	held->sid = sid;
	held->bytes = bytes;
	TAILQ_INSERT_TAIL(&vm->held, held, link);
	vm->held_count[class]++;
	vm->held_bytes += bytes;
	vm->stats.rx_held++;
	return held;
}

/* From byte `from` on, as the writable part of a chain. */
static void as_chain(struct iba_held *held, uint32_t from,
		     struct virtq_chain *chain)
{
	chain->head = held->id;
	chain->out_count = 0;
	chain->out_bytes = 0;
	chain->in_count = 1;
	chain->in_bytes = held->bytes - from;
	chain->iov[0].iov_base = held->data + from;
	chain->iov[0].iov_len = held->bytes - from;
}

int iba_hold_begin(struct iba_conn *conn, unsigned int class, uint32_t len,
		   struct virtq_chain *chain)
{
	struct iba_held *held = make(conn->vm, class, conn->sid, len);

	if (!held)
		return -ENOBUFS;
	as_chain(held, 0, chain);
	return 0;
}

int iba_hold_move(struct iba_vm *vm, unsigned int class, uint32_t len,
		  uint32_t came, struct virtq_chain *chain)
{
	uint32_t want = (uint32_t)sizeof(struct vtoe_msg_hdr) + came;
	struct vtoe_msg_hdr hdr;
	uint16_t head = chain->head;
	struct iba_held *held = make(vm, class, 0, len);
	const struct iovec *iov;
	uint32_t done = 0;

	/* it has been written to up to somewhere; the guest may have changed it */
	if (!held)
		return -ENOBUFS;
	if (!virtq_reread(&vm->queue[IBA_Q_RWQ + class].vq, head, chain) ||
	    chain->in_bytes < want) {
		drop(vm, held);
		return -EPROTO;
	}
	for (iov = &chain->iov[chain->out_count]; done < want; iov++) {
		uint32_t n = want - done;

		if (n > iov->iov_len)
			n = (uint32_t)iov->iov_len;
		memcpy(held->data + done, iov->iov_base, n);
		done += n;
	}
	memcpy(&hdr, held->data, sizeof(hdr));
	held->sid = le32toh(hdr.id);
	as_chain(held, want, chain);
	iba_vm_keep(vm, class, head);
	return 0;
}

static void release(struct iba_vm *vm, struct iba_held *held)
{
	iba_deliver_held(vm, held->class, held->sid, held->data, held->bytes);
	drop(vm, held);
}

void iba_hold_end(struct iba_vm *vm, uint16_t head)
{
	struct iba_held *held = find(vm, head);

	held->done = true;
	if (!vm->paused)
		release(vm, held);
}

void iba_hold_release(struct iba_vm *vm)
{
	struct iba_held *held, *next;

	for (held = TAILQ_FIRST(&vm->held); held && !vm->fault; held = next) {
		next = TAILQ_NEXT(held, link);
		if (held->done)
			release(vm, held);
	}
}

void iba_hold_give_up(struct iba_vm *vm, uint16_t head)
{
	drop(vm, find(vm, head));
}

void iba_hold_free(struct iba_vm *vm)
{
	while (!TAILQ_EMPTY(&vm->held))
		drop(vm, TAILQ_FIRST(&vm->held));
}
