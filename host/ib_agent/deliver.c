// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * RWQ: messages from a peer into the guest's receive buffers.
 *
 * Theory of operation. A fabric that has a DATA header asks for a buffer
 * (iba_deliver_begin): the header is checked against the connection, a chain of
 * the right class is taken from the VM's RWQ, and the header, naming our guest's
 * SID, is written to its front. The fabric puts the payload behind it, in one or
 * more steps, and iba_deliver_end() returns the chain as used. The guest is
 * interrupted once for all that a pass delivered (iba_vm_publish).
 *
 * Between begin and end the buffer belongs to no connection, only to the VM: one
 * that is closed meanwhile leaves a message for a SID that the guest no longer
 * knows, which it drops. While the VM's rings rest hold.c has the buffers.
 *
 * Threat model. The peer's agent is authenticated, not trusted: offset, length
 * and credit are checked here against what *our* guest has granted. Our guest is
 * hostile as well: it may grant what it has not posted, or post buffers that are
 * too small. Then it loses the connection; whatever was on its way is thrown
 * away, and nobody else waits for it.
 */
#include "agent.h"

#include <errno.h>
#include <string.h>

unsigned int iba_deliver_class(const struct iba_vm *vm, uint32_t len)
{
	return len <= vm->rwq_buf_size[VNET_RWQ_SMALL] ? VNET_RWQ_SMALL :
							 VNET_RWQ_LARGE;
}

static int peer_violation(struct iba_conn *conn, enum vtoe_reason reason,
			  const char *what)
{
	struct iba_vm *vm = conn->vm;

	iba_vm_drop(vm, IBA_DROP_PEER_VIOLATION);
	if (log_ratelimited_ok(&vm->log_limit, 10, 10))
		log_warn("vm %s: conn %#x sid %#x: peer breaks the rules: %s",
			 vm->name, conn->cid, conn->sid, what);
	iba_conn_fail(conn, reason, true);
	return -EPROTO;
}

static int guest_fault(struct iba_conn *conn, enum iba_drop why,
		       const char *what)
{
	struct iba_vm *vm = conn->vm;

	iba_vm_drop(vm, why);
	if (log_ratelimited_ok(&vm->log_limit, 10, 10))
		log_warn("vm %s: conn %#x sid %#x: guest: %s", vm->name,
			 conn->cid, conn->sid, what);
	iba_conn_fail(conn, VTOE_REASON_CREDIT, true);
	return -ENOBUFS;
}

static bool may_receive(const struct iba_conn *conn)
{
	return conn->state == VTOE_CONN_ESTABLISHED ||
	       conn->state == VTOE_CONN_LOCAL_FIN;
}

/* Credit that rides on any message. */
static int merge_credit(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr)
{
	if (!iba_credit_merge(&conn->tx_credit, &hdr->credit, conn->tx_offset))
		return peer_violation(conn, VTOE_REASON_PROTOCOL,
				      "acknowledges what it did not get");
	return 0;
}

static int check_data(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr,
		      unsigned int class, bool ordered)
{
	uint64_t offset = le64toh(hdr->offset);
	uint32_t len = le32toh(hdr->len);

	/* unordered, the guest sees whether every byte comes once */
	if (ordered && offset != conn->rx_offset)
		return peer_violation(conn, VTOE_REASON_PROTOCOL,
				      "stream offset");
	if (offset > UINT64_MAX - len ||
	    offset + len > conn->rx_credit.byte_limit)
		return peer_violation(conn, VTOE_REASON_CREDIT,
				      "more bytes than it was granted");
	if (len > conn->vm->rwq_buf_size[class])
		return peer_violation(conn, VTOE_REASON_CREDIT,
				      "longer than our buffers");
	if ((int32_t)(conn->rx_credit.msg_limit[class] -
		      conn->rx_msgs[class]) <= 0)
		return peer_violation(conn, VTOE_REASON_CREDIT,
				      "more than it was granted");
	return 0;
}

/* One that a message was to fill which did not end, else the next one: as
 * virtq_pop(). */
int iba_deliver_next(struct iba_queue *q, struct virtq_chain *chain)
{
	while (q->kept_count) {
		uint16_t head = q->kept[--q->kept_count];

		if (virtq_reread(&q->vq, head, chain))
			return 1;
		virtq_push(&q->vq, head, 0);
		iba_tenant_dirty(q->vm);
	}
	return virtq_pop(&q->vq, chain);
}

static int take_buffer(struct iba_conn *conn, unsigned int class, uint32_t len,
		       struct virtq_chain *chain)
{
	struct iba_vm *vm = conn->vm;
	struct virtq *rwq = &vm->queue[IBA_Q_RWQ + class].vq;
	int ret = iba_deliver_next(&vm->queue[IBA_Q_RWQ + class], chain);

	if (ret == 0 && iba_verbs_reclaim(vm, class))
		ret = iba_deliver_next(&vm->queue[IBA_Q_RWQ + class], chain);
	if (ret < 0) {
		iba_vm_fault(vm, "receive queue broken");
		return -EPROTO;
	}
	if (ret == 0)
		return guest_fault(conn, IBA_DROP_RWQ_EMPTY,
				   "granted a buffer that it did not post");
	if (chain->in_bytes >= sizeof(struct vtoe_msg_hdr) + len)
		return 0;
	virtq_push(rwq, chain->head, 0);
	iba_tenant_dirty(vm);
	return guest_fault(conn, IBA_DROP_RWQ_SMALL,
			   "posted a buffer smaller than its class");
}

static int hold(struct iba_conn *conn, unsigned int class, uint32_t len,
		struct virtq_chain *chain)
{
	if (iba_hold_begin(conn, class, len, chain) == 0)
		return 0;
	return guest_fault(conn, IBA_DROP_RWQ_EMPTY,
			   "rests, and has granted more than can be held");
}

/* Moves the start of the payload's room behind the header. */
static unsigned int skip_header(struct virtq_chain *chain)
{
	size_t skip = sizeof(struct vtoe_msg_hdr);
	unsigned int i = chain->out_count;

	while (skip >= chain->iov[i].iov_len)
		skip -= chain->iov[i++].iov_len;
	chain->iov[i].iov_base = (char *)chain->iov[i].iov_base + skip;
	chain->iov[i].iov_len -= skip;
	return i;
}

/* May it receive this at all? */
static int check_open(struct iba_conn *conn)
{
	/* its VM may have gone; it only waits for the answer to its REQ */
	if (conn->flags & IBA_CONN_F_ORPHAN)
		return -ENOTCONN;
	if (may_receive(conn))
		return 0;
	/* failed ones have been reset; nothing else may get data */
	if (conn->state == VTOE_CONN_ERROR)
		return -ENOTCONN;
	return peer_violation(conn, VTOE_REASON_PROTOCOL, "data out of place");
}

/* Counts the message; the header that its guest shall see. */
static void take_header(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr,
			unsigned int class, struct vtoe_msg_hdr *out)
{
	uint32_t len = le32toh(hdr->len);

	conn->rx_offset += len;
	conn->rx_msgs[class]++;
	memset(out, 0, sizeof(*out));
	out->type = VTOE_MSG_DATA;
	out->flags = hdr->flags;
	if (conn->flags & IBA_CONN_F_RX_WANT)
		out->flags |= VTOE_MSG_F_WANT_CREDIT;
	out->len = hdr->len;
	out->id = htole32(conn->sid);
	out->offset = hdr->offset;
	iba_credit_put(&out->credit, &conn->tx_credit);
	/* the message says what a CREDIT event would */
	conn->pending &= (uint16_t)~IBA_PEND_CREDIT;
	conn->flags &= (uint16_t)~IBA_CONN_F_RX_WANT;
	conn->vm->stats.rx_msgs++;
	conn->vm->stats.rx_bytes += len;
}

int iba_deliver_begin(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr,
		      struct virtq_chain *chain, unsigned int *iov_at)
{
	uint32_t len = le32toh(hdr->len);
	struct vtoe_msg_hdr out;
	unsigned int class;
	int ret;

	ret = check_open(conn);
	if (ret)
		return ret;
	class = iba_deliver_class(conn->vm, len);
	ret = check_data(conn, hdr, class, true);
	if (!ret)
		ret = merge_credit(conn, hdr);
	if (!ret && conn->vm->paused)
		ret = hold(conn, class, len, chain);
	else if (!ret)
		ret = take_buffer(conn, class, len, chain);
	if (ret)
		return ret;
	take_header(conn, hdr, class, &out);
	virtq_copy_in(chain, 0, &out, sizeof(out));
	*iov_at = skip_header(chain);
	return 0;
}

int iba_deliver_placed(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr,
		       struct vtoe_msg_hdr *out)
{
	unsigned int class;
	int ret;

	ret = check_open(conn);
	if (ret)
		return ret;
	class = iba_deliver_class(conn->vm, le32toh(hdr->len));
	ret = check_data(conn, hdr, class, false);
	if (!ret)
		ret = merge_credit(conn, hdr);
	if (!ret)
		take_header(conn, hdr, class, out);
	return ret;
}

void iba_deliver_end(struct iba_vm *vm, unsigned int class, uint16_t head,
		     uint32_t len)
{
	if (iba_hold_has(head)) {
		iba_hold_end(vm, head);
		return;
	}
	virtq_push(&vm->queue[IBA_Q_RWQ + class].vq, head,
		   (uint32_t)sizeof(struct vtoe_msg_hdr) + len);
	iba_tenant_dirty(vm);
}

void iba_deliver_held(struct iba_vm *vm, unsigned int class, uint32_t sid,
		      const void *msg, uint32_t bytes)
{
	struct virtq_chain *chain = &vm->tenant->chain;
	uint32_t len = bytes - (uint32_t)sizeof(struct vtoe_msg_hdr);
	struct iba_conn *conn = iba_conn_by_sid(vm, sid);

	if (!conn || take_buffer(conn, class, len, chain) < 0)
		return;
	virtq_copy_in(chain, 0, msg, bytes);
	iba_deliver_end(vm, class, chain->head, len);
}

void iba_recv_credit(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr)
{
	if (conn->state < VTOE_CONN_ESTABLISHED ||
	    conn->state > VTOE_CONN_BOTH_FIN)
		return;
	if (merge_credit(conn, hdr))
		return;
	if (hdr->flags & VTOE_MSG_F_WANT_CREDIT)
		conn->flags |= IBA_CONN_F_RX_WANT;
	iba_event_pend(conn, IBA_PEND_CREDIT);
}

void iba_recv_fin(struct iba_conn *conn, const struct vtoe_msg_hdr *hdr)
{
	if (conn->state == VTOE_CONN_ERROR || conn->state == VTOE_CONN_CLOSED)
		return;
	if (!may_receive(conn) || le64toh(hdr->offset) != conn->rx_offset) {
		peer_violation(conn, VTOE_REASON_PROTOCOL, "FIN out of place");
		return;
	}
	if (merge_credit(conn, hdr))
		return;
	conn->rx_final = conn->rx_offset;
	iba_conn_step(conn, VTOE_CONN_T_REMOTE_FIN);
	iba_event_pend(conn, IBA_PEND_FIN);
}

void iba_recv_rst(struct iba_conn *conn, enum vtoe_reason reason)
{
	conn->flags &= (uint16_t)~IBA_CONN_F_AWAIT_REP;
	if (conn->flags & IBA_CONN_F_ORPHAN)
		iba_conn_orphan_done(conn);
	else
		iba_conn_fail(conn, reason, false);
}
