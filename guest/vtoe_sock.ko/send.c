// SPDX-License-Identifier: GPL-2.0-only
/*
 * Sending. sendmsg() copies into page fragments; these make chunks, and a chunk
 * becomes one message. The queue runs from the first byte that the peer's
 * program has not read (una) over the first that is not posted (snd_nxt, in
 * chunk tx_next) to the end. A chunk leaves it when it is acknowledged; it is
 * freed when the SWQ has given it back, too.
 *
 * A chunk is posted at once if the peer's credit allows. If not, or if the
 * program said that more follows (MSG_MORE, TCP_CORK), the last chunk stays
 * open and what is written next goes into it. Credit that comes in softirq
 * posts from there (vtoe_tx_credit).
 *
 * MSG_ZEROCOPY: the fragments are the program's own pages, and the chunk has a
 * reference to what completes the call on the error queue. The pages are free
 * again when the chunk is: the peer's program has read them.
 */
#include "vtoe.h"

#include <linux/sched/signal.h>
#include <net/tcp.h>

void vtoe_chunk_put(struct vtoe_chunk *chunk)
{
	u16 i;

	if (!refcount_dec_and_test(&chunk->refs))
		return;
	for (i = 0; i < chunk->nr_frags; i++)
		put_page(chunk->frag[i].bv_page);
	net_zcopy_put(chunk->uarg);
	kmem_cache_free(vtoe_chunk_cache, chunk);
}

static struct vtoe_chunk *chunk_alloc(gfp_t gfp)
{
	struct vtoe_chunk *chunk = kmem_cache_alloc(vtoe_chunk_cache, gfp);

	if (!chunk)
		return NULL;
	refcount_set(&chunk->refs, 1);
	chunk->vs = NULL;
	chunk->offset = 0;
	chunk->len = 0;
	chunk->truesize = 0;
	chunk->nr_frags = 0;
	chunk->urgent = false;
	chunk->uarg = NULL;
	return chunk;
}

static void set_uarg(struct vtoe_chunk *chunk, struct ubuf_info *uarg)
{
	if (uarg)
		net_zcopy_get(uarg);
	chunk->uarg = uarg;
}

static void charge(struct sock *sk, struct vtoe_chunk *chunk, u32 bytes)
{
	sk_mem_charge(sk, bytes);
	sk_wmem_queued_add(sk, bytes);
	chunk->truesize += bytes;
}

/* Takes a chunk out of the queue. */
static void chunk_done(struct vtoe_sock *vs, struct vtoe_chunk *chunk)
{
	struct sock *sk = vtoe_sock(vs);

	list_del(&chunk->node);
	sk_wmem_queued_add(sk, -(int)chunk->truesize);
	sk_mem_uncharge(sk, chunk->truesize);
	vtoe_chunk_put(chunk);
}

/* vs->lock */
void vtoe_tx_purge(struct vtoe_sock *vs)
{
	struct vtoe_chunk *chunk, *next;

	list_for_each_entry_safe(chunk, next, &vs->tx_queue, node)
		chunk_done(vs, chunk);
	vs->tx_next = NULL;
	vs->tx_blocked = false;
	vs->tx_full = false;
}

static u32 max_chunk(const struct vtoe_sock *vs)
{
	return max(vs->tx.buf_size[VNET_RWQ_LARGE], vs->tx.buf_size[VNET_RWQ_SMALL]);
}

static bool is_last(const struct vtoe_sock *vs, const struct vtoe_chunk *chunk)
{
	return list_is_last(&chunk->node, &vs->tx_queue);
}

/* The chunk that may grow, if there is one. */
static struct vtoe_chunk *open_chunk(const struct vtoe_sock *vs)
{
	struct vtoe_chunk *chunk;

	if (!vs->tx_next)
		return NULL;
	chunk = list_last_entry(&vs->tx_queue, struct vtoe_chunk, node);
	return chunk->len < max_chunk(vs) && chunk->nr_frags < VTOE_CHUNK_FRAGS &&
	       !chunk->urgent ? chunk : NULL;
}

/*
 * The first len bytes of a chunk as a chunk of their own, in front of it. The
 * pages are shared; the bytes are charged where they are.
 */
static struct vtoe_chunk *split(struct vtoe_sock *vs, struct vtoe_chunk *chunk, u32 len)
{
	struct vtoe_chunk *head = chunk_alloc(GFP_ATOMIC);
	u32 left = len, overhead;
	u16 done = 0;

	if (!head)
		return NULL;
	head->offset = chunk->offset;
	head->len = len;
	set_uarg(head, chunk->uarg);
	while (left) {
		struct bio_vec *from = &chunk->frag[done], *to;

		to = &head->frag[head->nr_frags++];
		*to = *from;
		if (from->bv_len > left) {
			get_page(from->bv_page);
			to->bv_len = left;
			from->bv_offset += left;
			from->bv_len -= left;
		} else {
			done++; /* the page reference moves along */
		}
		left -= to->bv_len;
	}
	chunk->nr_frags -= done;
	memmove(chunk->frag, chunk->frag + done, chunk->nr_frags * sizeof(chunk->frag[0]));
	chunk->offset += len;
	chunk->len -= len;
	overhead = min(chunk->truesize, len);
	head->truesize = overhead;
	chunk->truesize -= overhead;
	list_add_tail(&head->node, &chunk->node);
	return head;
}

static void fill_hdr(struct vtoe_sock *vs, struct vtoe_chunk *chunk, u8 type, u8 flags)
{
	struct vtoe_dev *dev = vs->conn->dev;
	struct vtoe_msg_hdr *hdr = &chunk->hdr;

	memset(hdr, 0, sizeof(*hdr));
	hdr->type = type;
	hdr->flags = flags;
	hdr->len = cpu_to_le32(chunk->len);
	hdr->id = cpu_to_le32(vs->conn->sid);
	hdr->offset = cpu_to_le64(chunk->offset);
	spin_lock_bh(&dev->pool_lock);
	if (vtoe_epoch_ok(vs->conn))
		vtoe_rx_grant(&dev->pool, &vs->rx, &hdr->credit);
	spin_unlock_bh(&dev->pool_lock);
}

static bool can_send(const struct vtoe_sock *vs)
{
	const struct vtoe_sid *conn = vs->conn;

	return conn && !conn->closing && vtoe_epoch_ok(conn) &&
	       !((1 << vs->inet.sk.sk_state) & (TCPF_SYN_SENT | TCPF_SYN_RECV));
}

/* A message that carries credit and acknowledgement alone. */
bool vtoe_send_credit(struct vtoe_sock *vs, u8 flags)
{
	struct vtoe_chunk *chunk;
	bool kick;

	if (!can_send(vs))
		return false;
	chunk = chunk_alloc(GFP_ATOMIC);
	if (!chunk) {
		vtoe_work_in(vs, VTOE_ACK_DELAY);
		return false;
	}
	chunk->offset = vs->snd_nxt;
	fill_hdr(vs, chunk, VTOE_MSG_CREDIT, flags);
	kick = !vtoe_swq_post(vs, chunk);
	if (kick) {
		vs->credit_owed = false;
		vs->want_told = flags & VTOE_MSG_F_WANT_CREDIT;
		vtoe_count(vtoe_sock(vs), VTOE_STAT_TX_CREDITS);
	} else {
		/* What was granted stays granted: the next message tells. */
		vs->credit_owed = true;
		vs->rx.acked = min(vs->rx.acked, vs->rx.consumed - !!vs->rx.consumed);
		vtoe_swq_wait(vs);
	}
	vtoe_chunk_put(chunk);
	return kick;
}

/* What TCP's kernel takes, and acknowledges, for a program that does not read. */
#define TCP_TAKES (64u << 10)

/* For the peer to read, not for a ring or memory: TCP's would be a window of 0. */
static bool waits_for_peer(const struct vtoe_sock *vs)
{
	u32 class;

	if (vs->snd_end - vs->tx.una < TCP_TAKES || vs->tx.una == vs->snd_nxt)
		return false;
	if (vs->tx_next)
		return !vtoe_tx_may_send(&vs->tx, vs->snd_nxt, vs->tx_next->len, &class);
	return vs->tx_full;
}

/* Jiffies; 0: for ever. TCP does not look before its first timer either. */
static unsigned long user_timeout(const struct vtoe_sock *vs)
{
	int ms = READ_ONCE(vs->user_timeout);

	return ms ? max_t(unsigned long, msecs_to_jiffies(ms), TCP_RTO_MIN) : 0;
}

/*
 * TCP_USER_TIMEOUT: what waits for so long and does not move ends the connection.
 * Whether the peer is there at all is the agents' concern. vs->lock
 */
static void check_blocked(struct vtoe_sock *vs)
{
	unsigned long limit = user_timeout(vs);

	if (likely(!limit)) /* if it is set later, the clock starts then */
		return;
	if (vs->tx_full && sk_stream_is_writeable(vtoe_sock(vs)))
		vs->tx_full = false;
	if (!waits_for_peer(vs)) {
		vs->tx_blocked = false;
	} else if (!vs->tx_blocked) {
		vs->tx_blocked = true;
		vs->blocked_since = jiffies;
		vtoe_work_in(vs, limit);
	}
}

/* By the work, which is armed anew as long as it waits. vs->lock */
bool vtoe_tx_timed_out(struct vtoe_sock *vs)
{
	unsigned long limit = user_timeout(vs), waited;

	check_blocked(vs);
	if (!vs->tx_blocked || !limit)
		return false;
	waited = jiffies - vs->blocked_since;
	if (waited >= limit)
		return true;
	vtoe_work_in(vs, limit - waited);
	return false;
}

/* Posts what may be posted. vs->lock; true: kick the SWQ. */
bool vtoe_xmit(struct vtoe_sock *vs)
{
	struct sock *sk = vtoe_sock(vs);
	struct vtoe_chunk *chunk, *head;
	bool kick = false, want;
	u32 class, n, dummy;

	while (can_send(vs) && vs->tx_next) {
		chunk = vs->tx_next;
		if (vs->tx_hold && is_last(vs, chunk) && chunk->len < max_chunk(vs) &&
		    !chunk->urgent)
			break;
		n = vtoe_tx_may_send(&vs->tx, vs->snd_nxt, chunk->len, &class);
		if (!n) {
			vtoe_count(sk, VTOE_STAT_TX_BLOCKED);
			if (!vs->want_told)
				kick |= vtoe_send_credit(vs, VTOE_MSG_F_WANT_CREDIT);
			break;
		}
		head = chunk;
		if (n < chunk->len) {
			head = split(vs, chunk, n);
			if (!head) {
				vtoe_work_in(vs, VTOE_ACK_DELAY);
				break;
			}
			vs->tx_next = head;
		}

		vs->tx.sent[class]++;
		want = vs->snd_nxt + n < vs->snd_end &&
		       !vtoe_tx_may_send(&vs->tx, vs->snd_nxt + n, vs->snd_end - vs->snd_nxt - n,
					 &dummy);
		want |= sk->sk_wmem_queued > sk->sk_sndbuf / 4 * 3;
		fill_hdr(vs, head, VTOE_MSG_DATA, (want ? VTOE_MSG_F_WANT_CREDIT : 0) |
			 (head->urgent ? VTOE_MSG_F_URGENT : 0));
		if (vtoe_swq_post(vs, head)) {
			vs->tx.sent[class]--;
			vtoe_count(sk, VTOE_STAT_TX_RING_FULL);
			vtoe_swq_wait(vs);
			break;
		}
		kick = true;
		vs->tx_blocked = false;
		vs->credit_owed = false;
		vs->want_told = want;
		WRITE_ONCE(vs->snd_nxt, vs->snd_nxt + n);
		vs->tx_next = is_last(vs, head) ? NULL : list_next_entry(head, node);
		vtoe_count(sk, VTOE_STAT_TX_MSGS);
		vtoe_stat_add(sock_net(sk), VTOE_STAT_TX_BYTES, n);
	}
	check_blocked(vs);
	return kick;
}

/* The peer's credit and acknowledgement. False: it broke the protocol. vs->lock */
bool vtoe_tx_credit(struct vtoe_sock *vs, const struct vtoe_credit *credit, bool *kick)
{
	struct sock *sk = vtoe_sock(vs);
	struct vtoe_chunk *chunk, *next;
	u64 una = vs->tx.una;

	if (!vtoe_tx_update(&vs->tx, credit, vs->snd_nxt))
		return false;
	if (vs->tx.una != una) {
		list_for_each_entry_safe(chunk, next, &vs->tx_queue, node) {
			if (chunk->offset + chunk->len > vs->tx.una)
				break;
			chunk_done(vs, chunk);
		}
		vs->tx_blocked = false; /* it moves */
		if (vs->tx.una == vs->snd_end && (sk->sk_shutdown & SEND_SHUTDOWN) &&
		    (1 << sk->sk_state) & (TCPF_FIN_WAIT1 | TCPF_CLOSING | TCPF_LAST_ACK)) {
			vtoe_set_state(vs, VTOE_SOCK_T_ACKED);
			sk->sk_state_change(sk); /* close() may linger */
		}
		vs->deadline = jiffies + vtoe_orphan_timeout(vs);
	}
	if (vs->tx_next)
		*kick |= vtoe_xmit(vs);
	else
		check_blocked(vs);
	return true;
}

/* Sends what was held back. */
void vtoe_push(struct vtoe_sock *vs)
{
	bool kick;

	spin_lock_bh(&vs->lock);
	vs->tx_hold = false;
	kick = vtoe_xmit(vs);
	spin_unlock_bh(&vs->lock);
	if (kick)
		vtoe_kick_swq(vs->conn->dev);
}

/* What a piece of a message is: how it is completed, whether its end is urgent. */
struct piece {
	struct ubuf_info *uarg;
	bool oob;	/* the message is urgent: its last byte */
	bool full;	/* the chunk is, and may go */
};

/* n bytes at page + offset are in the stream. -EAGAIN: no memory now. */
static int tx_add(struct vtoe_sock *vs, struct page *page, u32 offset, u32 n,
		  struct piece *piece, bool last_piece)
{
	struct ubuf_info *uarg = piece->uarg;
	struct sock *sk = vtoe_sock(vs);
	struct vtoe_chunk *chunk, *fresh = NULL;
	struct bio_vec *last;

	spin_lock_bh(&vs->lock);
	chunk = open_chunk(vs);
	if (!chunk || chunk->len + n > max_chunk(vs) ||
	    (uarg && chunk->uarg && chunk->uarg != uarg)) {
		spin_unlock_bh(&vs->lock);
		fresh = chunk_alloc(sk->sk_allocation);
		if (!fresh)
			return -EAGAIN;
		spin_lock_bh(&vs->lock);
		chunk = NULL;
	}
	if (sk->sk_err || sk->sk_shutdown & SEND_SHUTDOWN ||
	    !sk_wmem_schedule(sk, n + sizeof(*chunk))) {
		spin_unlock_bh(&vs->lock);
		if (fresh)
			vtoe_chunk_put(fresh);
		return -EAGAIN;
	}
	if (!chunk) {
		chunk = fresh;
		chunk->offset = vs->snd_end;
		charge(sk, chunk, sizeof(*chunk));
		list_add_tail(&chunk->node, &vs->tx_queue);
		if (!vs->tx_next)
			vs->tx_next = chunk;
	}
	if (uarg && !chunk->uarg)
		set_uarg(chunk, uarg);
	last = chunk->nr_frags ? &chunk->frag[chunk->nr_frags - 1] : NULL;
	if (last && last->bv_page == page && last->bv_offset + last->bv_len == offset) {
		last->bv_len += n;
	} else {
		get_page(page);
		last = &chunk->frag[chunk->nr_frags++];
		last->bv_page = page;
		last->bv_offset = offset;
		last->bv_len = n;
	}
	chunk->len += n;
	charge(sk, chunk, n);
	WRITE_ONCE(vs->snd_end, vs->snd_end + n);
	chunk->urgent = piece->oob && last_piece;
	piece->full = chunk->len >= max_chunk(vs) || chunk->urgent;
	spin_unlock_bh(&vs->lock);
	return 0;
}

static u32 room(struct vtoe_sock *vs)
{
	struct vtoe_chunk *chunk;
	u32 n;

	spin_lock_bh(&vs->lock);
	chunk = open_chunk(vs);
	n = max_chunk(vs) - (chunk ? chunk->len : 0);
	spin_unlock_bh(&vs->lock);
	return n;
}

static void flush(struct vtoe_sock *vs, bool hold)
{
	bool kick;

	spin_lock_bh(&vs->lock);
	vs->tx_hold = hold;
	if (hold)
		vs->hold_until = jiffies + VTOE_CORK_DELAY;
	kick = vtoe_xmit(vs);
	spin_unlock_bh(&vs->lock);
	if (kick)
		vtoe_kick_swq(vs->conn->dev);
	if (hold && READ_ONCE(vs->tx_next))
		vtoe_work_in(vs, VTOE_CORK_DELAY);
}

/* The program has more to send than there is room for. lock_sock */
static void flush_full(struct vtoe_sock *vs)
{
	flush(vs, false);
	spin_lock_bh(&vs->lock);
	vs->tx_full = true;
	check_blocked(vs);
	spin_unlock_bh(&vs->lock);
}

/* A piece of the program's own pages. lock_sock */
static int pin_piece(struct sock *sk, struct msghdr *msg, struct piece *piece)
{
	struct vtoe_sock *vs = vtoe_sk(sk);
	struct page *page;
	size_t offset;
	ssize_t n;
	int err;

	n = iov_iter_get_pages2(&msg->msg_iter, &page, room(vs), 1, &offset);
	if (n <= 0)
		return n ?: -EFAULT;
	err = tx_add(vs, page, offset, n, piece, !msg_data_left(msg));
	put_page(page);
	if (err) {
		iov_iter_revert(&msg->msg_iter, n);
		return err;
	}
	return n;
}

/* A piece that is copied. lock_sock */
static int copy_piece(struct sock *sk, struct msghdr *msg, struct piece *piece)
{
	struct vtoe_sock *vs = vtoe_sk(sk);
	struct page_frag *frag = sk_page_frag(sk);
	size_t n;
	int err;

	if (!sk_page_frag_refill(sk, frag))
		return -EAGAIN;
	n = min3(msg_data_left(msg), (size_t)(frag->size - frag->offset), (size_t)room(vs));
	if (copy_page_from_iter(frag->page, frag->offset, n, &msg->msg_iter) != n)
		return -EFAULT;
	err = tx_add(vs, frag->page, frag->offset, n, piece, !msg_data_left(msg));
	if (err) {
		iov_iter_revert(&msg->msg_iter, n);
		return err;
	}
	frag->offset += n;
	return n;
}

/* One piece of the message; its length. lock_sock */
static int send_piece(struct sock *sk, struct msghdr *msg, struct piece *piece)
{
	struct vtoe_sock *vs = vtoe_sk(sk);
	int n;

	if (!sk_stream_memory_free(sk))
		return -EAGAIN;
	piece->full = false;
	n = piece->uarg ? pin_piece(sk, msg, piece) : copy_piece(sk, msg, piece);
	if (piece->full)
		flush(vs, vs->tx_hold);
	return n;
}

/* What completes the call when its pages are free again. NULL: they are copied. */
static int get_uarg(struct sock *sk, struct msghdr *msg, struct ubuf_info **uarg)
{
	*uarg = NULL;
	/* io_uring brings its own, which a copy completes. */
	if (!(msg->msg_flags & MSG_ZEROCOPY) || !sock_flag(sk, SOCK_ZEROCOPY) ||
	    msg->msg_ubuf || !msg_data_left(msg) || !user_backed_iter(&msg->msg_iter))
		return 0;
	*uarg = vtoe_zerocopy_alloc(sk, msg_data_left(msg));
	return *uarg ? 0 : -ENOBUFS;
}

static bool is_open(const struct vtoe_sock *vs)
{
	const struct sock *sk = &vs->inet.sk;

	return vs->conn && !READ_ONCE(sk->sk_err) &&
	       !(READ_ONCE(sk->sk_shutdown) & SEND_SHUTDOWN) &&
	       (1 << READ_ONCE(sk->sk_state)) & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT);
}

/* The first bytes along with the SYN: TCP's own. 0: it is TCP's from here on. */
static int fast_open(struct vtoe_sock *vs, struct msghdr *msg)
{
	struct sock *sk = vtoe_sock(vs);

	if (sk->sk_state == VTOE_SOCK_SYN_SENT)
		return -EALREADY;
	if (sk->sk_state != VTOE_SOCK_CLOSE || vs->conn)
		return -EISCONN;
	if (!vtoe_may_fall_back(vs))
		return -EOPNOTSUPP;
	if (msg->msg_name) /* told with the reason; TCP says what is wrong with it */
		vtoe_addr_from_user(sk, msg->msg_name, msg->msg_namelen, &vs->remote);
	vtoe_take_tcp(vs, VTOE_REASON_OPTION);
	return 0;
}

/* TCP_NOTSENT_LOWAT */
bool vtoe_stream_memory_free(const struct sock *sk, int wake)
{
	const struct vtoe_sock *vs = vtoe_sk(sk);
	u64 unsent = READ_ONCE(vs->snd_end) - READ_ONCE(vs->snd_nxt);

	return unsent << wake < tcp_notsent_lowat(&vs->as_tcp);
}

/* What was spliced is all there is: its end, which came with MSG_MORE, goes out. */
void vtoe_splice_eof(struct socket *sock)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);

	if (vtoe_is_tcp(vs)) {
		vtoe_tell_splice_eof(vs->inner);
		return;
	}
	lock_sock(sk);
	if (vs->conn && !vtoe_is_tcp(vs))
		flush(vs, vs->cork);
	release_sock(sk);
}

/* As TCP: control messages of SOL_SOCKET are looked at, and none has an effect. */
static int check_control(struct sock *sk, struct msghdr *msg)
{
	struct sockcm_cookie cookie;

	if (!msg->msg_controllen)
		return 0;
	sockcm_init(&cookie, sk);
	return sock_cmsg_send(sk, msg, &cookie) ? -EINVAL : 0;
}

int vtoe_sendmsg(struct socket *sock, struct msghdr *msg, size_t len)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);
	int flags = msg->msg_flags, err = 0, n;
	struct piece piece = { .oob = flags & MSG_OOB };
	int copied = 0;
	bool hold;
	long timeo;

	if (vtoe_is_tcp(vs))
		return vtoe_inner_sendmsg(vs, msg, len);

	lock_sock(sk);
	timeo = sock_sndtimeo(sk, flags & MSG_DONTWAIT);
	if (flags & MSG_FASTOPEN) {
		err = fast_open(vs, msg);
		if (!err)
			goto inner;
		goto out_err;
	}
	if (sk->sk_state == VTOE_SOCK_SYN_SENT) {
		err = sk_stream_wait_connect(sk, &timeo);
		if (vtoe_is_tcp(vs))
			goto inner;
		if (err)
			goto out_err;
	}
	if (piece.oob && vs->conn && !(vs->conn->dev->features & VTOE_F_URGENT)) {
		err = -EOPNOTSUPP;
		goto out_err;
	}
	err = check_control(sk, msg) ?: get_uarg(sk, msg, &piece.uarg);
	if (err)
		goto out_err;
	sk_clear_bit(SOCKWQ_ASYNC_NOSPACE, sk);
	if (!is_open(vs)) {
		err = -EPIPE;
		goto out_err;
	}
	/* While we write, softirq posts full chunks only. */
	hold = len > PAGE_SIZE || piece.oob;
	if (hold)
		WRITE_ONCE(vs->tx_hold, true);
	while (msg_data_left(msg)) {
		if (!is_open(vs)) {
			err = -EPIPE;
			break;
		}
		n = send_piece(sk, msg, &piece);
		if (n == -EAGAIN) {
			flush_full(vs);
			err = sk_stream_wait_memory(sk, &timeo);
			if (err)
				break;
			if (hold)
				WRITE_ONCE(vs->tx_hold, true);
			continue;
		}
		if (n < 0) {
			err = n;
			break;
		}
		copied += n;
	}
	if (vs->conn)
		flush(vs, flags & MSG_MORE || vs->cork);
out_err:
	if (copied)
		net_zcopy_put(piece.uarg);
	else
		net_zcopy_put_abort(piece.uarg, true);
	/* Room may have come before SOCK_NOSPACE was set: no edge is lost. */
	if (err == -EAGAIN)
		sk->sk_write_space(sk);
	if (err && !copied)
		err = sk_stream_error(sk, flags, err);
	release_sock(sk);
	return copied ?: err;

inner:
	release_sock(sk);
	err = vtoe_inner_sendmsg(vs, msg, len);
	if (flags & MSG_FASTOPEN)
		vtoe_inner_named(vs);
	return err;
}
