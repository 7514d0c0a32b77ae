// SPDX-License-Identifier: GPL-2.0-only
/*
 * Receiving. A message lies in the device's buffer it came in, on the socket's
 * queue sorted by stream offset (messages of two classes may overtake each
 * other), until the program has read it; then the buffer goes back into the
 * ring and the peer may use it again.
 *
 *   consumed <= rcv_nxt: what can be read. Behind rcv_nxt there may be a hole.
 *   rcv_final: where the peer's FIN says the stream ends.
 */
#include "vtoe.h"

#include <linux/sched/signal.h>
#include <linux/tcp.h>
#include <net/busy_poll.h>
#include <net/inet_common.h>

/* vs->lock. The queue's end is far more often right than wrong. */
static bool rx_insert(struct vtoe_sock *vs, struct vtoe_rxbuf *buf)
{
	u64 end = buf->offset + buf->len;
	struct vtoe_rxbuf *prev;

	if (buf->offset < vs->rcv_nxt || end > vs->rcv_final)
		return false;
	list_for_each_entry_reverse(prev, &vs->rx_queue, node)
		if (prev->offset <= buf->offset)
			break;
	if (!list_entry_is_head(prev, &vs->rx_queue, node) &&
	    prev->offset + prev->len > buf->offset)
		return false;
	list_add(&buf->node, &prev->node);
	if (!list_is_last(&buf->node, &vs->rx_queue) &&
	    end > list_next_entry(buf, node)->offset) {
		list_del(&buf->node);
		return false;
	}
	while (buf->offset == vs->rcv_nxt) {
		WRITE_ONCE(vs->rcv_nxt, vs->rcv_nxt + buf->len);
		if (list_is_last(&buf->node, &vs->rx_queue))
			break;
		buf = list_next_entry(buf, node);
	}
	return true;
}

/* The FIN takes effect when everything before it is here. vs->lock; true: now. */
bool vtoe_rx_check_fin(struct vtoe_sock *vs)
{
	struct sock *sk = vtoe_sock(vs);

	/* RCV_SHUTDOWN says nothing here: close() and SHUT_RD set it, too. */
	if (vs->rcv_nxt != vs->rcv_final ||
	    !((1 << sk->sk_state) & (TCPF_ESTABLISHED | TCPF_FIN_WAIT1 | TCPF_FIN_WAIT2)))
		return false;
	WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | RCV_SHUTDOWN);
	sock_set_flag(sk, SOCK_DONE);
	vtoe_set_state(vs, VTOE_SOCK_T_FIN);
	return true;
}

static void wake_fin(struct sock *sk)
{
	sk->sk_state_change(sk);
	if (sk->sk_shutdown == SHUTDOWN_MASK || sk->sk_state == VTOE_SOCK_CLOSE)
		sk_wake_async(sk, SOCK_WAKE_WAITD, POLL_HUP);
	else
		sk_wake_async(sk, SOCK_WAKE_WAITD, POLL_IN);
}

/* A peer that has shut down waits for our last acknowledgement. */
static bool owes_last_ack(const struct vtoe_sock *vs)
{
	return vs->rcv_final == vs->rx.consumed && vs->rx.acked != vs->rx.consumed;
}

/* DISCONNECTED with FIN. */
void vtoe_rx_fin(struct vtoe_sock *vs, const struct vtoe_event *ev)
{
	u64 final = le64_to_cpu(ev->u.disconnected.final_offset);
	bool now = false, bad, kick = false;

	spin_lock_bh(&vs->lock);
	bad = vs->rcv_final != U64_MAX || final < vs->rcv_nxt ||
	      !vtoe_tx_credit(vs, &ev->u.disconnected.credit, &kick);
	if (!bad) {
		vs->rcv_final = final;
		/* A FIN in SYN_SENT or SYN_RECV waits for the state to get on. */
		now = vtoe_rx_check_fin(vs);
		if (now && owes_last_ack(vs))
			kick |= vtoe_send_credit(vs, 0);
		vtoe_close_check(vs);
	}
	spin_unlock_bh(&vs->lock);
	if (bad) {
		vtoe_reset(vs, VTOE_REASON_PROTOCOL);
		return;
	}
	if (kick)
		vtoe_kick_swq(vs->conn->dev);
	vtoe_sock(vs)->sk_write_space(vtoe_sock(vs));
	if (unlikely(READ_ONCE(vs->deferred)))
		vtoe_child_ready(vs, true);
	if (now)
		wake_fin(vtoe_sock(vs));
}

/* What poll() and SO_RCVLOWAT ask. */
bool vtoe_rx_ready(const struct vtoe_sock *vs)
{
	u64 readable = vtoe_readable(vs);

	/* An urgent byte that is not in line is nothing to read. */
	if (vtoe_urg_at_mark(vs) && readable && !sock_flag(&vs->inet.sk, SOCK_URGINLINE))
		readable--;
	return readable >= sock_rcvlowat(&vs->inet.sk, 0, INT_MAX) ||
	       (readable && vtoe_rx_starved(vs));
}

void vtoe_credit_event(struct vtoe_sock *vs, const struct vtoe_event *ev)
{
	bool kick = false, starved = false, ok;

	spin_lock_bh(&vs->lock);
	ok = vtoe_tx_credit(vs, &ev->u.credit.credit, &kick);
	if (le16_to_cpu(ev->flags) & VTOE_EV_F_WANT_CREDIT) {
		struct vtoe_dev *dev = vs->conn->dev;
		bool due;

		vs->rx.want = true;
		spin_lock_bh(&dev->pool_lock);
		due = vtoe_rx_due(&dev->pool, &vs->rx, vs->rcv_nxt == vs->rx.consumed);
		spin_unlock_bh(&dev->pool_lock);
		if (due)
			kick |= vtoe_send_credit(vs, 0);
		else if (vs->rx.on_demand)
			vtoe_credit_wait(vs);
		starved = vtoe_readable(vs) && vtoe_rx_starved(vs);
	}
	vtoe_close_check(vs);
	spin_unlock_bh(&vs->lock);
	if (!ok) {
		vtoe_reset(vs, VTOE_REASON_PROTOCOL);
		return;
	}
	if (kick)
		vtoe_kick_swq(vs->conn->dev);
	if (starved)
		vtoe_sock(vs)->sk_data_ready(vtoe_sock(vs));
	vtoe_sock(vs)->sk_write_space(vtoe_sock(vs));
}

static bool length_ok(const struct vtoe_dev *dev, const struct vtoe_rxbuf *buf, u32 len)
{
	return buf->len && buf->len <= dev->rwq_buf_size[buf->class] &&
	       len == sizeof(buf->hdr) + buf->len && buf->offset <= U64_MAX - buf->len;
}

static u8 last_byte(const struct vtoe_rxbuf *buf)
{
	u32 at = buf->len - 1, size = PAGE_SIZE << buf->order;

	return ((u8 *)page_address(buf->page[at / size]))[at % size];
}

/* Closed by the program, or shut both ways: TCP resets who sends to such a one. */
static bool nobody_reads(const struct sock *sk)
{
	if (sock_flag(sk, SOCK_DEAD))
		return sk->sk_state != VTOE_SOCK_CLOSE;
	return sk->sk_shutdown & RCV_SHUTDOWN &&
	       (1 << sk->sk_state) & (TCPF_FIN_WAIT1 | TCPF_FIN_WAIT2);
}

/*
 * A message (softirq); len: what the ring says was written. The header is the
 * host's: it may be wrong, but it cannot make us read outside the buffer.
 */
void vtoe_rx_message(struct vtoe_dev *dev, struct vtoe_rxbuf *buf, u32 len)
{
	const struct vtoe_msg_hdr *hdr = &buf->hdr;
	bool ok = false, fin = false, kick = false, stray = false, urgent = false;
	struct vtoe_credit credit = hdr->credit;
	struct vtoe_sid *entry;
	struct vtoe_sock *vs;
	LIST_HEAD(back);
	struct sock *sk;

	buf->len = le32_to_cpu(hdr->len);
	buf->offset = le64_to_cpu(hdr->offset);
	entry = vtoe_sid_find(dev, le32_to_cpu(hdr->id));
	vs = entry && READ_ONCE(entry->vs->conn) == entry ? entry->vs : NULL;
	list_add(&buf->node, &back);
	if (!vs) {
		vtoe_stat_add(dev_net(dev->netdev), VTOE_STAT_RX_STRAY, 1);
		vtoe_rx_repost(dev, NULL, &back);
		goto out;
	}

	sk = vtoe_sock(vs);
	spin_lock_bh(&vs->lock);
	spin_lock(&dev->pool_lock);
	if (hdr->type == VTOE_MSG_DATA && length_ok(dev, buf, len))
		ok = vtoe_rx_got(&dev->pool, &vs->rx, buf->class, buf->offset + buf->len);
	spin_unlock(&dev->pool_lock);
	if (!ok) {
		/* It had no grant: the buffer goes back as nobody's. */
		spin_unlock_bh(&vs->lock);
		vtoe_rx_repost(dev, NULL, &back);
		vtoe_count(sk, VTOE_STAT_RX_MALFORMED);
		vtoe_reset(vs, VTOE_REASON_CREDIT);
		goto out;
	}
	vs->rx.want = hdr->flags & VTOE_MSG_F_WANT_CREDIT;
	if (nobody_reads(sk)) {
		stray = true;
	} else if (entry->closing || sk->sk_state == VTOE_SOCK_CLOSE) {
		/* late */
	} else {
		list_del(&buf->node);
		ok = rx_insert(vs, buf);
		if (!ok)
			list_add(&buf->node, &back);
		else if (vs->rx.on_demand)
			vtoe_rx_swap(dev, vs, buf);
		if (ok && unlikely(hdr->flags & VTOE_MSG_F_URGENT))
			urgent = vtoe_urg_mark(vs, buf->offset + buf->len - 1,
					       last_byte(buf));
		fin = vtoe_rx_check_fin(vs);
		ok = ok && vtoe_tx_credit(vs, &credit, &kick);
		vtoe_close_check(vs);
	}
	vtoe_count(sk, VTOE_STAT_RX_MSGS);
	vtoe_stat_add(sock_net(sk), VTOE_STAT_RX_BYTES, len - sizeof(*hdr));
	if (!list_empty(&back))
		vtoe_rx_repost(dev, vs, &back);
	spin_unlock_bh(&vs->lock);
	if (!ok || stray) {
		vtoe_reset(vs, ok ? VTOE_REASON_RESET : VTOE_REASON_PROTOCOL);
		goto out;
	}
	if (kick)
		vtoe_kick_swq(dev);
	sk_incoming_cpu_update(sk);
#ifdef CONFIG_NET_RX_BUSY_POLL
	if (READ_ONCE(sk->sk_napi_id) != dev->napi.napi_id)
		WRITE_ONCE(sk->sk_napi_id, dev->napi.napi_id);
#endif
	if (unlikely(urgent)) {
		/* Against sock_orphan(): behind it the file and its owner go. */
		read_lock_bh(&sk->sk_callback_lock);
		sk_send_sigurg(sk);
		read_unlock_bh(&sk->sk_callback_lock);
	}
	if (unlikely(READ_ONCE(vs->deferred)))
		vtoe_child_ready(vs, true);
	if (fin)
		wake_fin(sk);
	else if (unlikely(urgent))
		sk->sk_data_ready(sk);
	else if (vtoe_rx_ready(vs))
		sk->sk_data_ready(sk);
	sk->sk_write_space(sk);
out:
	if (entry) {
		sock_put(vtoe_sock(entry->vs));
		vtoe_sid_put(entry);
	}
}

/* vs->lock, or nobody else has it */
void vtoe_rx_purge(struct vtoe_sock *vs)
{
	LIST_HEAD(bufs);

	list_splice_init(&vs->rx_queue, &bufs);
	if (!list_empty(&bufs))
		vtoe_rx_repost(vs->conn->dev, vs, &bufs);
}

/* All or nothing: what the reader was not told of must not stay in its pipe. */
static int copy_out(const struct vtoe_rxbuf *buf, u32 skip, struct msghdr *msg, u32 n)
{
	u32 size = PAGE_SIZE << buf->order, left = n;

	while (left) {
		u32 in_page = skip % size, part = min(left, size - in_page), done;

		done = vtoe_page_to_iter(buf->page[skip / size], in_page, part,
					 &msg->msg_iter);
		left -= done;
		if (done != part) {
			iov_iter_revert(&msg->msg_iter, n - left);
			return -EFAULT;
		}
		skip += part;
	}
	return 0;
}

/* The buffer that holds the byte at pos. lock_sock keeps it there. */
static struct vtoe_rxbuf *find_buf(struct vtoe_sock *vs, u64 pos)
{
	struct vtoe_rxbuf *buf, *found = NULL;

	spin_lock_bh(&vs->lock);
	list_for_each_entry(buf, &vs->rx_queue, node) {
		if (buf->offset > pos)
			break;
		if (pos < buf->offset + buf->len) {
			found = buf;
			break;
		}
	}
	spin_unlock_bh(&vs->lock);
	return found;
}

static void consume(struct vtoe_sock *vs, u64 end, struct list_head *back)
{
	struct vtoe_rxbuf *buf, *next;

	spin_lock_bh(&vs->lock);
	WRITE_ONCE(vs->rx.consumed, end);
	vtoe_urg_passed(vs);
	list_for_each_entry_safe(buf, next, &vs->rx_queue, node) {
		if (buf->offset + buf->len > end)
			break;
		list_move_tail(&buf->node, back);
	}
	spin_unlock_bh(&vs->lock);
}

/* Gives back what was read and tells the peer if it is time. */
static void settle(struct vtoe_sock *vs, struct list_head *back)
{
	struct sock *sk = vtoe_sock(vs);
	struct vtoe_dev *dev = vs->conn->dev;
	bool due, kick = false, idle, later;

	/* In the middle of a buffer there is little to tell. */
	if (list_empty(back) && vtoe_readable(vs)) {
		vtoe_work_in(vs, VTOE_ACK_DELAY);
		return;
	}
	if (!list_empty(back)) {
		spin_lock_bh(&vs->lock);
		vtoe_rx_repost(dev, vs, back);
		spin_unlock_bh(&vs->lock);
	}
	spin_lock_bh(&vs->lock);
	idle = vs->rx.consumed == vs->rcv_nxt;
	vs->rx.window = max_t(u32, READ_ONCE(sk->sk_rcvbuf), 4096);
	spin_lock(&dev->pool_lock);
	due = vtoe_rx_due(&dev->pool, &vs->rx, idle);
	spin_unlock(&dev->pool_lock);
	if (due || owes_last_ack(vs))
		kick = vtoe_send_credit(vs, 0);
	if (vs->rx.on_demand)
		vtoe_credit_wait(vs);
	later = vs->rx.acked != vs->rx.consumed;
	vtoe_close_check(vs);
	spin_unlock_bh(&vs->lock);
	if (kick)
		vtoe_kick_swq(dev);
	if (later)
		vtoe_work_in(vs, VTOE_ACK_DELAY);
}

static int wait_data(struct sock *sk, long *timeo, u64 pos, bool peeked)
{
	struct vtoe_sock *vs = vtoe_sk(sk);
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	int rc;

	add_wait_queue(sk_sleep(sk), &wait);
	sk_set_bit(SOCKWQ_ASYNC_WAITDATA, sk);
	rc = sk_wait_event(sk, timeo, READ_ONCE(vs->rcv_nxt) > pos ||
			   READ_ONCE(sk->sk_err) || vtoe_is_tcp(vs) ||
			   (peeked && vtoe_rx_starved(vs)) ||
			   READ_ONCE(sk->sk_shutdown) & RCV_SHUTDOWN, &wait);
	sk_clear_bit(SOCKWQ_ASYNC_WAITDATA, sk);
	remove_wait_queue(sk_sleep(sk), &wait);
	return min(rc, 0);
}

/* Nothing more to read now: 0 to wait, 1 for the end, or an errno. */
static int why_stop(struct sock *sk, bool copied, long timeo)
{
	if (sock_flag(sk, SOCK_DONE))
		return 1;
	if (sk->sk_err)
		return copied ? 1 : sock_error(sk);
	if (sk->sk_shutdown & RCV_SHUTDOWN)
		return 1;
	if (sk->sk_state == VTOE_SOCK_CLOSE)
		return copied ? 1 : -ENOTCONN;
	if (!timeo)
		return copied ? 1 : -EAGAIN;
	if (signal_pending(current))
		return copied ? 1 : sock_intr_errno(timeo);
	return 0;
}

static int recv_locked(struct sock *sk, struct msghdr *msg, size_t len, int flags)
{
	struct vtoe_sock *vs = vtoe_sk(sk);
	long timeo = sock_rcvtimeo(sk, flags & MSG_DONTWAIT);
	int target = sock_rcvlowat(sk, flags & MSG_WAITALL, len);
	int copied = 0, err = 0;
	struct vtoe_rxbuf *buf;
	LIST_HEAD(back);
	int offset = flags & MSG_PEEK ? max(sk_peek_offset(sk, flags), 0) : 0;
	u64 start = vs->rx.consumed, pos = start + offset;

	do { /* as TCP does, waiting also for no bytes */
		if (READ_ONCE(vs->rcv_nxt) > pos) {
			u32 skip, n, hole;

			buf = find_buf(vs, pos);
			if (WARN_ON_ONCE(!buf)) {
				err = -EIO;
				break;
			}
			if (!len)
				break;
			skip = pos - buf->offset;
			n = vtoe_urg_limit(vs, pos, buf->len - skip, copied, &hole);
			if (!n)
				break;
			n = min_t(size_t, len, n - hole);
			if (!(flags & MSG_TRUNC)) {
				err = copy_out(buf, skip + hole, msg, n);
				if (err)
					break;
			}
			pos += hole + n;
			copied += n;
			len -= n;
			if (!(flags & MSG_PEEK))
				consume(vs, pos, &back);
			continue;
		}
		/* Peeking gives no buffer back: more may never come. */
		if (copied >= target || (copied && flags & MSG_PEEK && vtoe_rx_starved(vs)))
			break;
		err = why_stop(sk, copied, timeo);
		if (err)
			break;
		if (vs->conn)
			settle(vs, &back);
		err = wait_data(sk, &timeo, pos, copied && flags & MSG_PEEK);
		if (err || vtoe_is_tcp(vs))
			break;
		/* Somebody else may have read on. */
		if (!(flags & MSG_PEEK) || start != vs->rx.consumed) {
			start = vs->rx.consumed;
			pos = start + offset;
		}
	} while (len);
	if (flags & MSG_PEEK)
		sk_peek_offset_fwd(sk, copied);
	else
		sk_peek_offset_bwd(sk, copied);
	if (vs->conn && (copied || !list_empty(&back)) && !(flags & MSG_PEEK))
		settle(vs, &back);
	return copied ?: min(err, 0);
}

/* TCP_INQ: what is left, and how io_uring asks for it. A FIN is something to read, too. */
static void tell_inq(struct sock *sk, struct msghdr *msg)
{
	struct vtoe_sock *vs = vtoe_sk(sk);
	bool wanted = vs->as_tcp.recvmsg_inq;

	if (!wanted && !msg->msg_get_inq)
		return;
	msg->msg_inq = min_t(u64, vtoe_urg_inq(vs), INT_MAX);
	if (!msg->msg_inq && sock_flag(sk, SOCK_DONE))
		msg->msg_inq = 1;
	if (wanted)
		put_cmsg(msg, SOL_TCP, TCP_CM_INQ, sizeof(msg->msg_inq), &msg->msg_inq);
}

int vtoe_recvmsg(struct socket *sock, struct msghdr *msg, size_t len, int flags)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);
	int ret;

	if (vtoe_is_tcp(vs))
		return vtoe_inner_recvmsg(vs, msg, len, flags);
	if (unlikely(flags & MSG_ERRQUEUE))
		return vtoe_inet_recv_error(sk, msg, len);
	if (sk_can_busy_loop(sk) && !vtoe_readable(vs) && sk->sk_state == VTOE_SOCK_ESTABLISHED)
		sk_busy_loop(sk, flags & MSG_DONTWAIT);

	lock_sock(sk);
	if (sk->sk_state == VTOE_SOCK_LISTEN)
		ret = -ENOTCONN;
	else if (flags & MSG_OOB)
		ret = vtoe_urg_recv(vs, msg, len, flags);
	else
		ret = recv_locked(sk, msg, len, flags);
	release_sock(sk);
	/* A reader that waited through a fallback reads on there. */
	if (ret <= 0 && vtoe_is_tcp(vs))
		return vtoe_inner_recvmsg(vs, msg, len, flags);
	if (ret >= 0 && !(flags & MSG_OOB))
		tell_inq(sk, msg);
	return ret;
}
