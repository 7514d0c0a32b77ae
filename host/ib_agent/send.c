// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * SWQ: messages from the guest to its peers.
 *
 * Theory of operation. A pass takes what is in the ring, up to a budget. The
 * message header is read once into our memory and checked against the
 * connection: state, offset, length, and what the peer has granted (which this
 * agent saw pass by). The payload is not touched: its buffers stay in the slot
 * of the chain's head, and the fabric sends from there. When the fabric says
 * iba_slot_done() the chain goes back to the guest, in whatever order that is: a
 * slow host does not hold up the others.
 *
 * How much of a VM the fabrics hold at once is bounded: on a lane it stands in
 * front of what other VMs send. A VM that has QUEUED_MAX bytes there is throttled,
 * its SWQ (and a command that waits for it) left alone until half of that has
 * gone. It is one bound for all lanes, so a host that does not take what it is
 * sent holds up this VM's other connections too, once its share is used up; the
 * end of the lane, after TCP_USER_TIMEOUT at the latest, gives all of it back. The
 * fabric `local` holds nothing.
 *
 * Credit that rides on a message is merged into conn->rx_credit, from which
 * every message to the peer is stamped: a CREDIT that has to wait is replaced by
 * newer ones and never queues.
 *
 * Threat model: the guest is hostile, and owns this memory while we read it. A
 * head that is given again while its slot is in use would let it change the
 * length of a message under way, and with that the framing of a lane that others
 * share: such a guest loses its session. Everything else that is wrong in a
 * message costs it the connection (VTOE_REASON_PROTOCOL, _CREDIT), or, where
 * there is none, the message.
 */
#include "agent.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PASS_MESSAGES 128
#define PASS_BYTES (512u << 10)
#define QUEUED_MAX (2u << 20) /* and what the last message has more */

/* ---- slots ---- */

int iba_send_slots_create(struct iba_vm *vm)
{
	uint16_t num = vm->queue[IBA_Q_SWQ].vq.num;

	vm->slot = calloc(num, sizeof(*vm->slot));
	if (!vm->slot)
		return -ENOMEM;
	for (unsigned int i = 0; i < num; i++) {
		vm->slot[i].vm = vm;
		vm->slot[i].head = (uint16_t)i;
	}
	return 0;
}

/* Every slot has been given up (iba_fabric.forget_vm). */
void iba_send_slots_destroy(struct iba_vm *vm)
{
	free(vm->slot);
	vm->slot = NULL;
}

static void free_iov(struct iba_slot *slot)
{
	if (slot->iov != slot->small)
		free(slot->iov);
	slot->iov = NULL;
}

static void count_out(struct iba_vm *vm, uint32_t len)
{
	vm->tx_queued -= len;
	if (vm->tx_throttled && vm->tx_queued <= QUEUED_MAX / 2) {
		vm->tx_throttled = false;
		iba_tenant_ready(vm);
	}
}

void iba_slot_leave(struct iba_slot *slot)
{
	if (slot->vm)
		count_out(slot->vm, slot->len);
	slot->vm = NULL;
}

void iba_slot_done(struct iba_slot *slot)
{
	struct iba_vm *vm = slot->vm;

	if (slot->own) {
		iba_slot_leave(slot);
		free(slot->iov[0].iov_base);
		free_iov(slot);
		free(slot);
		return;
	}
	free_iov(slot);
	slot->busy = false;
	count_out(vm, slot->len);
	virtq_push(&vm->queue[IBA_Q_SWQ].vq, slot->head, 0);
	iba_tenant_dirty(vm);
}

/* Nothing more may be taken from its SWQ before iba_slot_done() says so. */
static bool throttled(struct iba_vm *vm)
{
	if (vm->tx_queued >= QUEUED_MAX && !vm->tx_throttled) {
		vm->tx_throttled = true;
		vm->stats.tx_throttled++;
	}
	return vm->tx_throttled;
}

/* The payload's buffers, without the header in front. */
static bool fill_slot(struct iba_slot *slot, const struct virtq_chain *chain,
		      uint32_t len)
{
	size_t skip = sizeof(struct vtoe_msg_hdr);
	unsigned int i = 0, n;

	while (skip >= chain->iov[i].iov_len)
		skip -= chain->iov[i++].iov_len;
	n = chain->out_count - i;
	slot->iov = slot->small;
	if (n > IBA_SLOT_IOV) {
		slot->iov = malloc(n * sizeof(*slot->iov));
		if (!slot->iov)
			return false;
	}
	memcpy(slot->iov, &chain->iov[i], n * sizeof(*slot->iov));
	slot->iov[0].iov_base = (char *)slot->iov[0].iov_base + skip;
	slot->iov[0].iov_len -= skip;
	slot->niov = (uint16_t)n;
	slot->len = len;
	slot->busy = true;
	slot->vm->tx_queued += len;
	return true;
}

/* ---- credit ---- */

static bool later32(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b) > 0;
}

bool iba_credit_merge(struct iba_credit *have, const struct vtoe_credit *in,
		      uint64_t ack_max)
{
	struct iba_credit new;

	iba_credit_get(&new, in);
	if (new.ack > ack_max)
		return false;
	if (new.ack > have->ack)
		have->ack = new.ack;
	if (new.byte_limit > have->byte_limit)
		have->byte_limit = new.byte_limit;
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		if (later32(new.msg_limit[i], have->msg_limit[i]))
			have->msg_limit[i] = new.msg_limit[i];
	return true;
}

/* ---- messages ---- */

static void violation(struct iba_conn *conn, enum vtoe_reason reason,
		      const char *what)
{
	struct iba_vm *vm = conn->vm;

	iba_vm_drop(vm, IBA_DROP_GUEST_VIOLATION);
	if (log_ratelimited_ok(&vm->log_limit, 10, 10))
		log_warn("vm %s: conn %#x sid %#x: guest breaks the rules: %s",
			 vm->name, conn->cid, conn->sid, what);
	iba_conn_fail(conn, reason, true);
}

static bool may_send(const struct iba_conn *conn)
{
	return conn->state >= VTOE_CONN_ESTABLISHED &&
	       conn->state <= VTOE_CONN_BOTH_FIN;
}

/* What is wrong with this DATA; NULL: nothing. */
static const char *check_data(const struct iba_conn *conn,
			      const struct vtoe_msg_hdr *hdr, uint32_t len,
			      uint32_t chain_bytes, unsigned int *class,
			      enum vtoe_reason *reason)
{
	*reason = VTOE_REASON_PROTOCOL;
	if (!len || len > VTOE_MSG_LEN_MAX || chain_bytes != sizeof(*hdr) + len)
		return "length";
	if (le64toh(hdr->offset) != conn->tx_offset)
		return "stream offset";
	if ((conn->state == VTOE_CONN_LOCAL_FIN ||
	     conn->state == VTOE_CONN_BOTH_FIN) &&
	    conn->tx_offset + len > conn->tx_final)
		return "data behind its own FIN";
	*reason = VTOE_REASON_CREDIT;
	*class = len <= conn->peer_buf_size[VNET_RWQ_SMALL] ? VNET_RWQ_SMALL :
							      VNET_RWQ_LARGE;
	if (len > conn->peer_buf_size[*class])
		return "longer than the peer's buffers";
	if (conn->tx_offset + len > conn->tx_credit.byte_limit)
		return "byte limit";
	if (!later32(conn->tx_credit.msg_limit[*class], conn->tx_msgs[*class]))
		return "message limit";
	return NULL;
}

/* True: the slot now belongs to the fabric. */
static bool send_data(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr,
		      const struct virtq_chain *chain)
{
	struct iba_vm *vm = conn->vm;
	struct iba_slot *slot = &vm->slot[chain->head];
	uint32_t len = le32toh(hdr->len);
	uint64_t offset = conn->tx_offset;
	enum vtoe_reason reason;
	unsigned int class;
	const char *wrong;

	wrong = check_data(conn, hdr, len, chain->out_bytes, &class, &reason);
	if (wrong) {
		violation(conn, reason, wrong);
		return false;
	}
	if (!fill_slot(slot, chain, len)) {
		iba_conn_fail(conn, VTOE_REASON_LIMIT, true);
		return false;
	}
	conn->tx_offset += len;
	conn->tx_msgs[class]++;
	vm->stats.tx_msgs++;
	vm->stats.tx_bytes += len;
	conn->fabric->send_data(conn, hdr->flags, offset, slot);
	if (conn->tx_offset == conn->tx_final &&
	    (conn->state == VTOE_CONN_LOCAL_FIN ||
	     conn->state == VTOE_CONN_BOTH_FIN)) {
		conn->flags |= IBA_CONN_F_FIN_SENT;
		conn->fabric->send_fin(conn);
	}
	return true;
}

/* True: the chain's slot is in use, it goes back later. */
static bool send_one(struct iba_vm *vm, const struct virtq_chain *chain)
{
	struct vtoe_msg_hdr hdr;
	struct iba_conn *conn;

	if (chain->in_count || chain->out_bytes < sizeof(hdr)) {
		iba_vm_drop(vm, IBA_DROP_SWQ_MALFORMED);
		return false;
	}
	virtq_copy_out(chain, 0, &hdr, sizeof(hdr));
	conn = iba_conn_by_sid(vm, le32toh(hdr.id));
	if (!conn) { /* also one that was closed while this was in the ring */
		iba_vm_drop(vm, IBA_DROP_UNKNOWN_SID);
		return false;
	}
	if (!may_send(conn)) {
		if (conn->state == VTOE_CONN_ERROR)
			iba_vm_drop(vm, IBA_DROP_BROKEN_CONN);
		else
			violation(conn, VTOE_REASON_PROTOCOL, "not established");
		return false;
	}
	if (hdr.reserved || hdr.lane_limit ||
	    (hdr.flags & ~iba_msg_flags(hdr.type))) {
		violation(conn, VTOE_REASON_PROTOCOL, "reserved field");
		return false;
	}
	if (!iba_credit_merge(&conn->rx_credit, &hdr.credit, conn->rx_offset)) {
		violation(conn, VTOE_REASON_PROTOCOL,
			  "acknowledges what it did not get");
		return false;
	}
	switch (hdr.type) {
	case VTOE_MSG_DATA:
		return send_data(conn, &hdr, chain);
	case VTOE_MSG_CREDIT:
		if (hdr.len || chain->out_bytes != sizeof(hdr)) {
			violation(conn, VTOE_REASON_PROTOCOL, "credit length");
			return false;
		}
		vm->stats.tx_credits++;
		conn->fabric->send_credit(conn, hdr.flags);
		return false;
	default:
		violation(conn, VTOE_REASON_PROTOCOL, "message type");
		return false;
	}
}

/* Takes one message. False: there was none (or malformed ones), or a fault. */
static bool take_one(struct iba_vm *vm, struct iba_send_budget *budget)
{
	struct virtq *swq = &vm->queue[IBA_Q_SWQ].vq;
	struct virtq_chain *chain = &vm->tenant->chain;
	int ret = virtq_pop(swq, chain);

	if (ret < 0)
		iba_vm_fault(vm, "send queue broken");
	if (ret <= 0)
		return false;
	budget->messages--;
	budget->bytes -= chain->out_bytes < budget->bytes ? chain->out_bytes :
							    budget->bytes;
	if (vm->slot[chain->head].busy) {
		iba_vm_fault(vm, "send queue entry reused while in use");
		return false;
	}
	if (!send_one(vm, chain)) {
		virtq_push(swq, chain->head, 0);
		iba_tenant_dirty(vm);
	}
	return true;
}

bool iba_send_run(struct iba_vm *vm)
{
	struct iba_send_budget budget = { PASS_MESSAGES, PASS_BYTES };
	struct virtq *swq = &vm->queue[IBA_Q_SWQ].vq;

	if (!swq->running || !vm->hello)
		return false;
	while (budget.messages && budget.bytes && !throttled(vm) &&
	       take_one(vm, &budget))
		if (budget.messages == PASS_MESSAGES - 1)
			virtq_disable_kicks(swq);
	return budget.messages < PASS_MESSAGES;
}

bool iba_send_until(struct iba_vm *vm, uint16_t mark,
		    struct iba_send_budget *budget)
{
	struct virtq *swq = &vm->queue[IBA_Q_SWQ].vq;

	if (!swq->running || !vm->hello)
		return true;
	if (virtq_before(swq, mark))
		virtq_disable_kicks(swq);
	while (virtq_before(swq, mark) && !vm->fault) {
		if (!budget->messages || !budget->bytes || throttled(vm))
			return false;
		/* none: it passed malformed ones, or the guest took its index
		 * back */
		if (!take_one(vm, budget) && !virtq_has_work(swq))
			break;
	}
	return true;
}
