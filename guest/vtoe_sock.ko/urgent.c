// SPDX-License-Identifier: GPL-2.0-only
/*
 * Urgent data: MSG_OOB, SO_OOBINLINE, SIOCATMARK, SIGURG, EPOLLPRI, as TCP has
 * them. A message whose last byte is urgent says so (VTOE_MSG_F_URGENT); it is
 * part of the stream like any other byte. There is one mark at a time, a later
 * one takes its place, and the byte of the earlier is then an ordinary one.
 *
 * The mark is set in softirq when the message comes, and goes when a reader has
 * passed it. Reading stops in front of it, and unless the byte is to stay in line
 * goes on behind it.
 */
#include "vtoe.h"

/* A message that ends in an urgent byte has come. vs->lock; true: tell. */
bool vtoe_urg_mark(struct vtoe_sock *vs, u64 pos, u8 byte)
{
	/* Overtaken by a later one, or read already. */
	if (pos < vs->rx.consumed || (vs->urg && pos <= vs->urg_pos))
		return false;
	vs->urg_pos = pos;
	vs->urg_byte = byte;
	WRITE_ONCE(vs->urg, VTOE_URG_VALID);
	return true;
}

/*
 * A reader is at pos and could take n bytes: how many it may, 0 to stop. What
 * of the mark it has to leave out is in *skip. lock_sock
 */
u32 vtoe_urg_limit(struct vtoe_sock *vs, u64 pos, u32 n, bool copied, u32 *skip)
{
	bool in_line = sock_flag(vtoe_sock(vs), SOCK_URGINLINE);
	u64 ahead;

	*skip = 0;
	if (likely(!READ_ONCE(vs->urg)))
		return n;
	spin_lock_bh(&vs->lock);
	ahead = vs->urg_pos - pos;
	if (vs->urg_pos < pos)
		ahead = U64_MAX;
	spin_unlock_bh(&vs->lock);
	if (ahead)
		return min_t(u64, n, ahead);
	if (copied)
		return 0;
	*skip = !in_line;
	return n;
}

/* The reader has passed it. vs->lock */
void vtoe_urg_passed(struct vtoe_sock *vs)
{
	if (unlikely(vs->urg) && vs->rx.consumed > vs->urg_pos)
		WRITE_ONCE(vs->urg, VTOE_URG_NONE);
}

/* The next byte to read is it, or would be. */
bool vtoe_urg_at_mark(const struct vtoe_sock *vs)
{
	return unlikely(READ_ONCE(vs->urg)) && vs->urg_pos == READ_ONCE(vs->rx.consumed);
}

/* What SIOCINQ tells: up to the mark. */
u64 vtoe_urg_inq(struct vtoe_sock *vs)
{
	u64 end;

	spin_lock_bh(&vs->lock);
	end = vs->rcv_nxt;
	if (vs->urg && !sock_flag(vtoe_sock(vs), SOCK_URGINLINE) &&
	    vs->urg_pos >= vs->rx.consumed && vs->urg_pos < end)
		end = vs->urg_pos;
	end -= vs->rx.consumed;
	spin_unlock_bh(&vs->lock);
	return end;
}

/* recv(MSG_OOB). lock_sock */
int vtoe_urg_recv(struct vtoe_sock *vs, struct msghdr *msg, size_t len, int flags)
{
	struct sock *sk = vtoe_sock(vs);
	int err = 0;
	u8 byte;

	spin_lock_bh(&vs->lock);
	byte = vs->urg_byte;
	if (sock_flag(sk, SOCK_URGINLINE) || vs->urg != VTOE_URG_VALID)
		err = -EINVAL;
	else if (sk->sk_state == VTOE_SOCK_CLOSE && !sock_flag(sk, SOCK_DONE))
		err = -ENOTCONN; /* reset */
	else if (!(flags & MSG_PEEK))
		WRITE_ONCE(vs->urg, VTOE_URG_READ);
	spin_unlock_bh(&vs->lock);

	if (err)
		return err;
	msg->msg_flags |= MSG_OOB;
	if (!len) {
		msg->msg_flags |= MSG_TRUNC;
		return 0;
	}
	if (!(flags & MSG_TRUNC) && memcpy_to_msg(msg, &byte, 1))
		return -EFAULT;
	return 1;
}
