// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fabric `tcp`: the messages of many connections over one lane.
 *
 * Theory of operation. A lane has a FIFO of entries: the header, in our
 * memory, a short body for control messages, and for DATA the slot whose buffers
 * in guest memory are the payload. A pass queues, iba_tcp_flush() then gives all
 * of it to sendmsg() at once. What the socket does not take stays in the FIFO,
 * slots and all, until EPOLLOUT; how much one VM may have there, send.c knows.
 * CREDIT does not queue: the connection is on
 * lane->credits until the lane can send, and is stamped then.
 *
 * Receiving: lane_rx.c.
 *
 * References: an entry owns its slot until it is sent or cancelled. The entry's
 * vm pointer is for forget_vm(), which finds and ends all of them; a message that
 * is partly sent is completed from a copy, because the lane's framing belongs to
 * the other connections too. pause_vm() makes such copies of all.
 */
#include "lane.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define TX_RING_FIRST 64u
#define TX_RING_MAX (1u << 21)
#define TX_ANSWERS_MAX 16384
#define TX_IOV 256
#define TX_IOV_SYSCALL 1024
#define TX_BYTES (1u << 20)

/* ---- sending: the FIFO ---- */

static struct iba_tx_entry *tx_at(struct iba_lane_tx *tx, uint32_t i)
{
	return &tx->ring[(tx->first + i) & (tx->size - 1)];
}

static bool tx_grow(struct iba_lane_tx *tx)
{
	uint32_t size = tx->size ? 2 * tx->size : TX_RING_FIRST;
	struct iba_tx_entry *ring;

	if (size > TX_RING_MAX)
		return false;
	ring = malloc(size * sizeof(*ring));
	if (!ring)
		return false;
	for (uint32_t i = 0; i < tx->count; i++)
		ring[i] = *tx_at(tx, i);
	free(tx->ring);
	tx->ring = ring;
	tx->size = size;
	tx->first = 0;
	return true;
}

static void mark_dirty(struct iba_lane *lane)
{
	if (lane->dirty || lane->tx.blocked || lane->state != IBA_LANE_UP)
		return;
	lane->dirty = true;
	TAILQ_INSERT_TAIL(&lane->tenant->dirty_lanes, lane, dirty_link);
}

/*
 * Ends the lane when the pass flushes it: the callers are in the middle of a
 * connection's life, and an end here would come back to that very connection.
 */
static void tx_fail(struct iba_lane *lane, const char *why)
{
	lane->tx.failed = why;
	lane->tx.blocked = false;
	mark_dirty(lane);
}

/* A new last entry with its header, but for what the caller adds; or NULL. */
static struct iba_tx_entry *tx_append(struct iba_lane *lane, struct iba_vm *vm,
				      enum vtoe_msg_type type, uint32_t id,
				      uint32_t len, const void *body)
{
	struct iba_lane_tx *tx = &lane->tx;
	struct iba_tx_entry *entry;

	if (tx->count == tx->size && !tx_grow(tx)) {
		tx_fail(lane, "no memory");
		return NULL;
	}
	entry = tx_at(tx, tx->count++);
	memset(&entry->hdr, 0, sizeof(entry->hdr));
	entry->hdr.type = type;
	entry->hdr.id = htole32(id);
	entry->hdr.len = htole32(len);
	entry->head_len = sizeof(entry->hdr);
	if (body) {
		memcpy(entry->body, body, len);
		entry->head_len += (uint16_t)len;
	}
	entry->counted = false;
	entry->slot = NULL;
	entry->vm = vm;
	mark_dirty(lane);
	return entry;
}

/* The same for a message of a connection, stamped with its credit. */
static struct iba_tx_entry *tx_conn(struct iba_conn *conn,
				    enum vtoe_msg_type type, uint32_t len,
				    const void *body)
{
	struct iba_tx_entry *entry;

	if (!conn->lane)
		return NULL;
	entry = tx_append(conn->lane, conn->vm, type, conn->peer_cid, len, body);
	if (entry)
		iba_credit_put(&entry->hdr.credit, &conn->rx_credit);
	return entry;
}

/* The peer can have as many of these as it likes: it has to read them, too. */
static bool may_answer(struct iba_lane *lane)
{
	if (lane->tx.answers < TX_ANSWERS_MAX)
		return true;
	tx_fail(lane, "the peer does not read our answers");
	return false;
}

static void count_answer(struct iba_lane *lane, struct iba_tx_entry *entry)
{
	if (!entry)
		return;
	entry->counted = true;
	lane->tx.answers++;
}

/*
 * msgs: what the connection has sent in all, NULL: there is none. provoked: by
 * the peer. What our own connections say when they end is bounded by how many
 * there are, and must get through: a VM that leaves with many is nothing that
 * the others on the lane may suffer from.
 */
static void tx_answer(struct iba_lane *lane, enum vtoe_msg_type type,
		      uint32_t cid, enum vtoe_reason reason,
		      const uint32_t msgs[VNET_RWQ_CLASSES], bool provoked)
{
	struct vnet_lane_rej rej = { .reason = htole32(reason) };
	struct iba_tx_entry *entry;

	for (int i = 0; msgs && i < VNET_RWQ_CLASSES; i++)
		rej.sent[i] = htole32(msgs[i]);
	if (provoked && !may_answer(lane))
		return;
	entry = tx_append(lane, NULL, type, cid, sizeof(rej), &rej);
	if (provoked)
		count_answer(lane, entry);
}

/* ---- sending: the ops ---- */

static void tcp_send_req(struct iba_conn *conn)
{
	struct vnet_lane_req req = { .cid = htole32(conn->cid) };

	req.local = conn->local;
	req.remote = conn->remote;
	memcpy(req.local_mac, conn->vm->mac, VNET_MAC_LEN);
	memcpy(req.remote_mac, conn->remote_mac, VNET_MAC_LEN);
	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		req.rwq_buf_size[i] = htole32(conn->vm->rwq_buf_size[i]);
	if (tx_conn(conn, VTOE_MSG_REQ, sizeof(req), &req))
		conn->flags |= IBA_CONN_F_AWAIT_REP;
}

static void tcp_send_rep(struct iba_conn *conn)
{
	struct vnet_lane_rep rep = { .cid = htole32(conn->cid) };

	for (int i = 0; i < VNET_RWQ_CLASSES; i++)
		rep.rwq_buf_size[i] = htole32(conn->vm->rwq_buf_size[i]);
	if (conn->lane && may_answer(conn->lane))
		count_answer(conn->lane, tx_conn(conn, VTOE_MSG_REP, sizeof(rep),
						 &rep));
}

static void tcp_send_rej(struct iba_conn *conn, enum vtoe_reason reason)
{
	if (conn->lane)
		tx_answer(conn->lane, VTOE_MSG_REJ, conn->peer_cid, reason,
			  NULL, conn->flags & IBA_CONN_F_ANSWERS);
}

static void tcp_send_rst(struct iba_conn *conn, enum vtoe_reason reason)
{
	if (conn->lane)
		tx_answer(conn->lane, VTOE_MSG_RST, conn->peer_cid, reason,
			  conn->tx_msgs, conn->flags & IBA_CONN_F_ANSWERS);
}

void iba_tcp_reject(struct iba_lane *lane, uint32_t cid, enum vtoe_reason reason)
{
	tx_answer(lane, VTOE_MSG_REJ, cid, reason, NULL, true);
}

/* DATA and FIN say what a waiting CREDIT would. */
static void forget_credit(struct iba_conn *conn, struct iba_tx_entry *entry)
{
	if (conn->flags & IBA_CONN_F_TX_WANT)
		entry->hdr.flags |= VTOE_MSG_F_WANT_CREDIT;
	conn->flags &= (uint16_t)~IBA_CONN_F_TX_WANT;
	if (!(conn->flags & IBA_CONN_F_CREDIT_QUEUED))
		return;
	TAILQ_REMOVE(&conn->lane->credits, conn, credit_link);
	conn->flags &= (uint16_t)~IBA_CONN_F_CREDIT_QUEUED;
}

static void tcp_send_data(struct iba_conn *conn, uint8_t flags, uint64_t offset,
			  struct iba_slot *slot)
{
	struct iba_tx_entry *entry = tx_conn(conn, VTOE_MSG_DATA, slot->len,
					     NULL);

	if (!entry) {
		iba_slot_done(slot);
		return;
	}
	entry->hdr.flags = flags;
	entry->hdr.offset = htole64(offset);
	entry->slot = slot;
	forget_credit(conn, entry);
}

static void tcp_send_fin(struct iba_conn *conn)
{
	struct iba_tx_entry *entry = tx_conn(conn, VTOE_MSG_FIN, 0, NULL);

	if (!entry)
		return;
	entry->hdr.offset = htole64(conn->tx_final);
	forget_credit(conn, entry);
}

static void tcp_send_credit(struct iba_conn *conn, uint8_t flags)
{
	if (!conn->lane)
		return;
	if (flags & VTOE_MSG_F_WANT_CREDIT)
		conn->flags |= IBA_CONN_F_TX_WANT;
	if (conn->flags & IBA_CONN_F_CREDIT_QUEUED)
		return;
	conn->flags |= IBA_CONN_F_CREDIT_QUEUED;
	TAILQ_INSERT_TAIL(&conn->lane->credits, conn, credit_link);
	mark_dirty(conn->lane);
}

/* A credit that waits for the end of the pass may be the acknowledgement that
 * the peer's close waits for. */
static void tcp_put_path(struct iba_conn *conn)
{
	struct iba_tx_entry *entry;

	if (conn->flags & IBA_CONN_F_CREDIT_QUEUED) {
		entry = tx_conn(conn, VTOE_MSG_CREDIT, 0, NULL);
		if (entry)
			forget_credit(conn, entry);
	}
	iba_lane_leave(conn);
}

static void queue_credits(struct iba_lane *lane)
{
	struct iba_conn *conn;

	while ((conn = TAILQ_FIRST(&lane->credits))) {
		struct iba_tx_entry *entry = tx_conn(conn, VTOE_MSG_CREDIT, 0,
						     NULL);

		if (!entry)
			return;
		forget_credit(conn, entry);
	}
}

/* ---- sending: the socket ---- */

static uint32_t entry_len(const struct iba_tx_entry *entry)
{
	return entry->head_len + (entry->slot ? entry->slot->len : 0);
}

/* Moves the start of iov[] forward; bytes are fewer than it has. */
static void iov_skip(struct iovec **iov, unsigned int *count, size_t bytes)
{
	while (bytes >= (*iov)->iov_len) {
		bytes -= (*iov)->iov_len;
		(*iov)++;
		(*count)--;
	}
	(*iov)->iov_base = (char *)(*iov)->iov_base + bytes;
	(*iov)->iov_len -= bytes;
}

/*
 * As many entries as go into one call, of at most max_bytes but for the last.
 * Returns the elements, *bytes in them.
 */
static unsigned int tx_gather(struct iba_lane_tx *tx,
			      struct iovec iov[TX_IOV_SYSCALL], size_t max_bytes,
			      size_t *bytes)
{
	unsigned int n = 0;

	*bytes = 0;
	for (uint32_t i = 0; i < tx->count && n < TX_IOV && *bytes < max_bytes;
	     i++) {
		struct iba_tx_entry *entry = tx_at(tx, i);

		if (!entry->head_len)
			continue;
		iov[n].iov_base = &entry->hdr;
		iov[n++].iov_len = entry->head_len;
		if (entry->slot) {
			/* a chain has at most VIRTQ_CHAIN_MAX buffers: it fits */
			memcpy(&iov[n], entry->slot->iov,
			       entry->slot->niov * sizeof(*iov));
			n += entry->slot->niov;
		}
		*bytes += entry_len(entry);
	}
	return n;
}
_Static_assert(TX_IOV + 1 + VIRTQ_CHAIN_MAX <= TX_IOV_SYSCALL,
	       "the last entry gathered must fit");

static void tx_pop(struct iba_lane *lane)
{
	struct iba_lane_tx *tx = &lane->tx;
	struct iba_tx_entry *entry = tx_at(tx, 0);

	if (entry->counted)
		tx->answers--;
	if (entry->slot)
		iba_slot_done(entry->slot);
	tx->first = (tx->first + 1) & (tx->size - 1);
	tx->count--;
	tx->offset = 0;
}

/* sent bytes have left, from the first entry on. */
static void tx_advance(struct iba_lane *lane, size_t sent)
{
	struct iba_lane_tx *tx = &lane->tx;

	lane->stats.tx_bytes += sent;
	while (tx->count) {
		struct iba_tx_entry *entry = tx_at(tx, 0);
		size_t left = entry->head_len ? entry_len(entry) - tx->offset : 0;

		if (left > sent) {
			tx->offset += (uint32_t)sent;
			return;
		}
		sent -= left;
		if (entry->head_len)
			lane->stats.tx_msgs++;
		tx_pop(lane);
	}
}

/* ---- guest memory that is not needed, or not there, any more ---- */

/* A slot with room for the payload, in no guest's memory. Zeroed. */
static struct iba_slot *slot_own(const struct iba_slot *slot,
				 struct iba_vm *vm)
{
	struct iba_slot *own = calloc(1, sizeof(*own));
	char *to = calloc(1, slot->len);

	if (!own || !to) {
		free(own);
		free(to);
		return NULL;
	}
	own->vm = vm;
	own->own = true;
	own->iov = own->small;
	own->niov = 1;
	own->len = slot->len;
	own->iov[0].iov_base = to;
	own->iov[0].iov_len = slot->len;
	if (vm)
		vm->tx_queued += slot->len;
	return own;
}

/* The payload in memory of our own, from now on sent for vm, NULL: nobody. */
static void entry_disown(struct iba_lane *lane, struct iba_tx_entry *entry,
			 bool readable, struct iba_vm *vm)
{
	struct iba_slot *slot = entry->slot;

	entry->vm = vm;
	if (slot && slot->own && !vm)
		iba_slot_leave(slot);
	if (!slot || slot->own)
		return;
	entry->slot = slot_own(slot, vm);
	if (!entry->slot) { /* the framing is lost with it */
		tx_fail(lane, "no memory");
	} else if (readable) {
		char *to = entry->slot->iov[0].iov_base;

		for (unsigned int i = 0; i < slot->niov; i++) {
			memcpy(to, slot->iov[i].iov_base, slot->iov[i].iov_len);
			to += slot->iov[i].iov_len;
		}
	}
	iba_slot_done(slot);
}

static void forget_entries(struct iba_lane *lane, struct iba_vm *vm)
{
	for (uint32_t i = 0; i < lane->tx.count; i++) {
		struct iba_tx_entry *entry = tx_at(&lane->tx, i);

		if (entry->vm != vm)
			continue;
		if (i == 0 && lane->tx.offset) {
			entry_disown(lane, entry, !vm->memory_lost, NULL);
			continue;
		}
		entry->vm = NULL;
		switch (entry->hdr.type) {
		case VTOE_MSG_DATA:
			iba_slot_done(entry->slot);
			entry->slot = NULL;
			/* fall through */
		case VTOE_MSG_FIN:
		case VTOE_MSG_CREDIT:
			entry->head_len = 0; /* RST follows */
			break;
		default:
			break;
		}
	}
}

/*
 * The kernel cannot read the first entry: the guest's memory, a file that
 * somebody has cut short, is not there. The lane is others' as well, so its
 * framing is kept with zeros, and the guest loses its session. False: the
 * memory is our own.
 */
static bool tx_unreadable(struct iba_lane *lane)
{
	struct iba_tx_entry *entry;
	struct iba_vm *vm;

	tx_advance(lane, 0); /* cancelled ones in front of it */
	entry = tx_at(&lane->tx, 0);
	vm = entry->vm;
	if (!vm || !entry->slot || entry->slot->own)
		return false;
	vm->memory_lost = true;
	iba_vm_fault(vm, "its memory is not there");
	entry_disown(lane, entry, false, NULL);
	forget_entries(lane, vm);
	return !lane->tx.failed;
}

static void lane_flush(struct iba_lane *lane)
{
	struct iba_lane_tx *tx = &lane->tx;
	struct iovec space[TX_IOV_SYSCALL];
	size_t max_bytes = TX_BYTES;

	queue_credits(lane);
	if (tx->failed) {
		iba_lane_end(lane, VTOE_REASON_LIMIT, tx->failed);
		return;
	}
	while (tx->count && lane->state == IBA_LANE_UP) {
		struct msghdr msg = { .msg_iov = space };
		unsigned int count;
		size_t bytes;
		ssize_t n;

		count = tx_gather(tx, space, max_bytes, &bytes);
		if (!count) { /* only cancelled ones */
			tx_advance(lane, 0);
			break;
		}
		bytes -= tx->offset;
		if (tx->offset)
			iov_skip(&msg.msg_iov, &count, tx->offset);
		msg.msg_iovlen = count;
		n = sendmsg(lane->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
		lane->stats.tx_calls++;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EFAULT) {
			/* whose? alone, an entry shows */
			if (max_bytes > 1) {
				max_bytes = 1;
				continue;
			}
			max_bytes = TX_BYTES;
			if (tx_unreadable(lane))
				continue;
			errno = EFAULT;
		}
		if (n < 0 && errno != EAGAIN) {
			iba_lane_end(lane, VTOE_REASON_LANE_LOST,
				     strerror(errno));
			return;
		}
		if (n > 0)
			tx_advance(lane, (size_t)n);
		if (n < 0 || (size_t)n < bytes) {
			tx->blocked = true;
			lane->stats.tx_blocked++;
			iba_lane_watch(lane, EPOLLIN | EPOLLOUT);
			return;
		}
	}
}

void iba_tcp_flush(struct iba_tenant *t)
{
	struct iba_lane *lane;

	while ((lane = TAILQ_FIRST(&t->dirty_lanes))) {
		TAILQ_REMOVE(&t->dirty_lanes, lane, dirty_link);
		lane->dirty = false;
		lane_flush(lane);
	}
}

/* ---- the socket is ready ---- */

void iba_tcp_run(struct iba_lane *lane, uint32_t events)
{
	if ((events & EPOLLOUT) && lane->tx.blocked) {
		lane->tx.blocked = false;
		iba_lane_watch(lane, EPOLLIN);
		mark_dirty(lane);
	}
	if (events & (EPOLLIN | EPOLLERR | EPOLLHUP))
		iba_lane_receive(lane);
}

/* ---- giving up ---- */

void iba_tcp_release(struct iba_lane *lane)
{
	while (lane->tx.count)
		tx_pop(lane);
	iba_lane_rx_abandon(lane);
}

static void tcp_forget_vm(struct iba_vm *vm)
{
	struct iba_lane *lane, *next;

	for (lane = TAILQ_FIRST(&vm->tenant->lanes); lane; lane = next) {
		next = TAILQ_NEXT(lane, link);
		if (lane->rx.vm == vm)
			iba_lane_rx_abandon(lane);
		forget_entries(lane, vm);
	}
}

static void tcp_pause_vm(struct iba_vm *vm)
{
	struct iba_lane *lane;

	TAILQ_FOREACH(lane, &vm->tenant->lanes, link) {
		if (lane->rx.vm == vm)
			iba_lane_rx_hold(lane);
		for (uint32_t i = 0; i < lane->tx.count; i++) {
			struct iba_tx_entry *entry = tx_at(&lane->tx, i);

			if (entry->vm == vm)
				entry_disown(lane, entry, !vm->memory_lost, vm);
		}
	}
}

const struct iba_fabric iba_fabric_tcp = {
	.name = "tcp",
	.id = VTOE_FABRIC_TCP,
	.get_path = iba_lane_get,
	.put_path = tcp_put_path,
	.send_req = tcp_send_req,
	.send_rep = tcp_send_rep,
	.send_rej = tcp_send_rej,
	.send_data = tcp_send_data,
	.send_credit = tcp_send_credit,
	.send_fin = tcp_send_fin,
	.send_rst = tcp_send_rst,
	.forget_vm = tcp_forget_vm,
	.pause_vm = tcp_pause_vm,
};
