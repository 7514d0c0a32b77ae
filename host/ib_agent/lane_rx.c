// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fabric `tcp`, receiving.
 *
 * Theory of operation. Headers come through a staging buffer; the payload of a
 * DATA is received into the guest's buffer, with the staging buffer as the last
 * element of the same recvmsg(), so that in steady state each call ends one large
 * message and brings the next header. Only what the staging buffer has already
 * caught is copied twice; behind large messages it offers little room, so that
 * this is little.
 *
 * References: rx owns the receive chain from iba_deliver_begin() to its end, and
 * gives it up when the VM goes (iba_lane_rx_abandon) or rests (iba_lane_rx_hold).
 *
 * Threat model: the peer is an authenticated agent, and not trusted. A header is
 * copied out of the staging buffer and checked: type, reserved fields, the one
 * length that a type has, DATA up to VTOE_MSG_LEN_MAX. A malformed one ends the
 * lane. A CID counts only on its own lane; for another it is unknown, and the
 * payload is thrown away. What a DATA may do to a connection: deliver.c.
 */
#include "lane.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define RX_BUDGET (512u << 10)
#define LARGE_MESSAGE (8u << 10)
#define LARGE_TAIL 256u /* of the staging buffer, behind a large message */

/* ---- messages ---- */

static int malformed(struct iba_lane *lane, const char *what)
{
	lane->tenant->drops[IBA_DROP_LANE_MALFORMED]++;
	iba_lane_end(lane, VTOE_REASON_PROTOCOL, what);
	return -EPROTO;
}

static struct iba_conn *find_conn(struct iba_lane *lane, uint32_t cid)
{
	struct iba_conn *conn = iba_conn_by_cid(lane->tenant, cid);

	if (conn && conn->lane == lane)
		return conn;
	lane->tenant->drops[IBA_DROP_UNKNOWN_CID]++;
	return NULL;
}

static bool sizes_ok(const __le32 size[VNET_RWQ_CLASSES])
{
	uint32_t small = le32toh(size[VNET_RWQ_SMALL]);
	uint32_t large = le32toh(size[VNET_RWQ_LARGE]);

	return small && small <= large && large <= VTOE_MSG_LEN_MAX;
}

static int rx_req(struct iba_lane *lane, const struct vtoe_msg_hdr *hdr,
		  const void *body)
{
	struct iba_conn *conn = NULL;
	struct vnet_lane_req req;
	enum vtoe_reason reason;

	memcpy(&req, body, sizeof(req));
	if (hdr->id || req.reserved || !sizes_ok(req.rwq_buf_size))
		return malformed(lane, "bad REQ");
	reason = iba_open_req(lane->tenant, &iba_fabric_tcp, hdr, &req, &conn);
	if (reason) {
		lane->tenant->drops[IBA_DROP_REQ_REFUSED]++;
		iba_tcp_reject(lane, le32toh(req.cid), reason);
		return 0;
	}
	iba_lane_join(lane, conn);
	return 0;
}

static int rx_rep(struct iba_lane *lane, const struct vtoe_msg_hdr *hdr,
		  const void *body)
{
	struct iba_conn *conn;
	struct vnet_lane_rep rep;

	memcpy(&rep, body, sizeof(rep));
	if (rep.reserved || !sizes_ok(rep.rwq_buf_size))
		return malformed(lane, "bad REP");
	conn = find_conn(lane, le32toh(hdr->id));
	if (conn && !(conn->flags & IBA_CONN_F_AWAIT_REP))
		return malformed(lane, "REP out of place");
	if (conn)
		iba_open_rep(conn, hdr, &rep);
	return 0;
}

static int rx_rej(struct iba_lane *lane, const struct vtoe_msg_hdr *hdr,
		  const void *body)
{
	struct iba_conn *conn;
	struct vnet_lane_rej rej;
	uint32_t reason;

	memcpy(&rej, body, sizeof(rej));
	if (rej.reserved)
		return malformed(lane, "bad REJ or RST");
	reason = le32toh(rej.reason);
	if (reason == VTOE_REASON_NONE || reason >= VTOE_REASON_COUNT)
		reason = VTOE_REASON_RESET; /* a newer version's */
	conn = find_conn(lane, le32toh(hdr->id));
	if (!conn)
		return 0;
	if (hdr->type == VTOE_MSG_RST) {
		iba_recv_rst(conn, reason);
		return 0;
	}
	if (!(conn->flags & IBA_CONN_F_AWAIT_REP))
		return malformed(lane, "REJ out of place");
	iba_open_rej(conn, reason);
	return 0;
}

static int rx_bare(struct iba_lane *lane, const struct vtoe_msg_hdr *hdr,
		   const void *body)
{
	struct iba_conn *conn;

	(void)body;
	if (hdr->type == VTOE_MSG_NOP)
		return 0;
	conn = find_conn(lane, le32toh(hdr->id));
	if (conn && hdr->type == VTOE_MSG_CREDIT)
		iba_recv_credit(conn, hdr);
	else if (conn)
		iba_recv_fin(conn, hdr);
	return 0;
}

/* The payload follows in the stream: only prepares where it goes. */
static int rx_data(struct iba_lane *lane, const struct vtoe_msg_hdr *hdr,
		   const void *body)
{
	struct iba_lane_rx *rx = &lane->rx;
	uint32_t len = le32toh(hdr->len);
	struct iba_conn *conn;

	(void)body;
	if (!len || len > VTOE_MSG_LEN_MAX)
		return malformed(lane, "length of DATA");
	rx->len = rx->left = len;
	rx->large = len >= LARGE_MESSAGE;
	rx->vm = NULL;
	conn = find_conn(lane, le32toh(hdr->id));
	if (!conn)
		return 0;
	if (iba_deliver_begin(conn, hdr, &rx->chain, &rx->iov_at) < 0)
		return 0;
	rx->vm = conn->vm;
	rx->class = iba_deliver_class(rx->vm, len);
	return 0;
}

struct rx_row {
	uint32_t len; /* of the body */
	int (*fn)(struct iba_lane *lane, const struct vtoe_msg_hdr *hdr,
		  const void *body);
};

static const struct rx_row rx_rows[] = {
	[VTOE_MSG_DATA] = { 0, rx_data }, /* its length is the payload's */
	[VTOE_MSG_CREDIT] = { 0, rx_bare },
	[VTOE_MSG_REQ] = { sizeof(struct vnet_lane_req), rx_req },
	[VTOE_MSG_REP] = { sizeof(struct vnet_lane_rep), rx_rep },
	[VTOE_MSG_REJ] = { sizeof(struct vnet_lane_rej), rx_rej },
	[VTOE_MSG_FIN] = { 0, rx_bare },
	[VTOE_MSG_RST] = { sizeof(struct vnet_lane_rej), rx_rej },
	[VTOE_MSG_NOP] = { 0, rx_bare },
};
#define RX_ROWS (sizeof(rx_rows) / sizeof(rx_rows[0]))

/* One message (of DATA, the header). 1: done; 0: incomplete; -errno: lane ended. */
static int rx_parse(struct iba_lane *lane)
{
	struct iba_lane_rx *rx = &lane->rx;
	const struct rx_row *row;
	struct vtoe_msg_hdr hdr;
	const uint8_t *body;
	int ret;

	if (rx->end - rx->start < sizeof(hdr))
		return 0;
	memcpy(&hdr, rx->stage + rx->start, sizeof(hdr));
	if (hdr.type >= RX_ROWS || !rx_rows[hdr.type].fn)
		return malformed(lane, "message type");
	row = &rx_rows[hdr.type];
	if (hdr.reserved || hdr.lane_limit ||
	    (hdr.flags & ~iba_msg_flags(hdr.type)))
		return malformed(lane, "reserved field");
	if (hdr.type != VTOE_MSG_DATA && le32toh(hdr.len) != row->len)
		return malformed(lane, "message length");
	if (rx->end - rx->start < sizeof(hdr) + row->len)
		return 0;
	body = rx->stage + rx->start + sizeof(hdr);
	rx->start += (uint32_t)sizeof(hdr) + row->len;
	lane->stats.rx_msgs++;
	ret = row->fn(lane, &hdr, body);
	if (ret == 0 && lane->state != IBA_LANE_UP)
		ret = -EPIPE;
	return ret < 0 ? ret : 1;
}

/* ---- payload ---- */

/* bytes of the payload are in the guest's buffer (or thrown away). */
static void payload_came(struct iba_lane *lane, uint32_t bytes)
{
	struct iba_lane_rx *rx = &lane->rx;

	rx->left -= bytes;
	if (!rx->vm)
		return;
	if (!rx->left) {
		iba_deliver_end(rx->vm, rx->class, rx->chain.head, rx->len);
		rx->vm = NULL;
		return;
	}
	while (bytes) {
		struct iovec *iov = &rx->chain.iov[rx->iov_at];

		if (bytes < iov->iov_len) {
			iov->iov_base = (char *)iov->iov_base + bytes;
			iov->iov_len -= bytes;
			return;
		}
		bytes -= (uint32_t)iov->iov_len;
		rx->iov_at++;
	}
}

/* What the staging buffer has of the payload. */
static void payload_from_stage(struct iba_lane *lane)
{
	struct iba_lane_rx *rx = &lane->rx;
	uint32_t bytes = rx->end - rx->start;
	const uint8_t *from = rx->stage + rx->start;

	if (bytes > rx->left)
		bytes = rx->left;
	rx->start += bytes;
	if (rx->vm) {
		uint32_t left = bytes;

		for (unsigned int i = rx->iov_at; left; i++) {
			const struct iovec *iov = &rx->chain.iov[i];
			uint32_t n = left < iov->iov_len ? left :
							   (uint32_t)iov->iov_len;

			memcpy(iov->iov_base, from, n);
			from += n;
			left -= n;
		}
		lane->stats.rx_staged += bytes;
	}
	payload_came(lane, bytes);
}

/* The rest of the payload, then the staging buffer (which is empty). */
static unsigned int rx_gather(struct iba_lane_rx *rx,
			      struct iovec iov[VIRTQ_CHAIN_MAX + 1], size_t *room)
{
	uint32_t left = rx->left;
	unsigned int n = 0;

	iov[0].iov_base = rx->stage;
	if (!rx->vm) { /* thrown away */
		iov[0].iov_len = left < IBA_STAGE_SIZE ? left : IBA_STAGE_SIZE;
		*room = iov[0].iov_len;
		return 1;
	}
	for (unsigned int i = rx->iov_at; left; i++) {
		iov[n] = rx->chain.iov[i];
		if (iov[n].iov_len > left)
			iov[n].iov_len = left;
		left -= (uint32_t)iov[n++].iov_len;
	}
	iov[n].iov_base = rx->stage;
	iov[n].iov_len = rx->large ? LARGE_TAIL : IBA_STAGE_SIZE;
	*room = rx->left + iov[n].iov_len;
	return n + 1;
}

static ssize_t rx_payload(struct iba_lane *lane, size_t *room)
{
	struct iba_lane_rx *rx = &lane->rx;
	struct iovec iov[VIRTQ_CHAIN_MAX + 1];
	struct msghdr msg = { .msg_iov = iov };
	uint32_t taken;
	ssize_t n;

	rx->start = rx->end = 0;
	msg.msg_iovlen = rx_gather(rx, iov, room);
	n = recvmsg(lane->fd, &msg, MSG_DONTWAIT);
	if (n <= 0)
		return n;
	taken = (size_t)n < rx->left ? (uint32_t)n : rx->left;
	rx->end = (uint32_t)n - taken;
	payload_came(lane, taken);
	return n;
}

/* ---- the socket ---- */

static ssize_t rx_headers(struct iba_lane *lane, size_t *room)
{
	struct iba_lane_rx *rx = &lane->rx;
	ssize_t n;

	memmove(rx->stage, rx->stage + rx->start, rx->end - rx->start);
	rx->end -= rx->start;
	rx->start = 0;
	*room = (rx->large ? LARGE_TAIL : IBA_STAGE_SIZE) - rx->end;
	rx->large = false; /* if this one is not large, the next may have room */
	n = recv(lane->fd, rx->stage + rx->end, *room, MSG_DONTWAIT);
	if (n > 0)
		rx->end += (uint32_t)n;
	return n;
}

void iba_lane_receive(struct iba_lane *lane)
{
	struct iba_lane_rx *rx = &lane->rx;
	uint32_t budget = RX_BUDGET;
	bool drained = false;

	lane->tenant->received = true;
	for (;;) {
		size_t room;
		ssize_t n;
		int ret;

		if (rx->left && rx->end > rx->start)
			payload_from_stage(lane);
		if (!rx->left) {
			ret = rx_parse(lane);
			if (ret < 0)
				return;
			if (ret > 0)
				continue;
		}
		/* a short read has emptied the socket: epoll will tell */
		if (drained || !budget)
			return;
		n = rx->left ? rx_payload(lane, &room) : rx_headers(lane, &room);
		lane->stats.rx_calls++;
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0 && errno == EFAULT && rx->vm) {
			/* nothing was taken: the rest is thrown away */
			iba_vm_fault(rx->vm, "its memory is not there");
			rx->vm->memory_lost = true;
			iba_lane_rx_abandon(lane);
			continue;
		}
		if (n <= 0) {
			iba_lane_end(lane, VTOE_REASON_LANE_LOST,
				     n ? strerror(errno) : "closed by the peer");
			return;
		}
		lane->stats.rx_bytes += (uint64_t)n;
		drained = (size_t)n < room;
		budget -= (size_t)n < budget ? (uint32_t)n : budget;
	}
}

/* ---- giving up ---- */

/* The receive buffer of a message that will not end. */
void iba_lane_rx_abandon(struct iba_lane *lane)
{
	struct iba_lane_rx *rx = &lane->rx;

	if (rx->vm)
		iba_vm_keep(rx->vm, rx->class, rx->chain.head);
	rx->vm = NULL;
}

void iba_lane_rx_hold(struct iba_lane *lane)
{
	struct iba_lane_rx *rx = &lane->rx;

	if (iba_hold_has(rx->chain.head))
		return;
	if (iba_hold_move(rx->vm, rx->class, rx->len, rx->len - rx->left,
			  &rx->chain) == 0) {
		rx->iov_at = 0;
		return;
	}
	/* its stream would have a hole */
	iba_vm_fault(rx->vm, "a message for it cannot be held");
	iba_lane_rx_abandon(lane);
}
