// SPDX-License-Identifier: GPL-2.0-only
/*
 * The ways out: shutdown(), close(), reset.
 *
 * close() of a connection with nothing unread shuts it down; the sock then
 * lives on without its file, held by its SID, until the peer has read
 * everything and shut down too. For the latter it waits VTOE_ORPHAN_TIMEOUT, as
 * TCP does; while the peer reads, much longer: it may be slow, and if it is gone
 * the agent says so.
 * With unread data, or with a linger time of zero, the peer is reset.
 *
 * CLOSE overtakes nothing that was posted to the SWQ before it (the last
 * acknowledgement above all): the agent sees to that, vnet_vtoe.h.
 */
#include "vtoe.h"

#include <linux/sched/signal.h>

/* The connection is over for good. vs->lock; true: wake everybody. */
bool vtoe_abort(struct vtoe_sock *vs, u32 reason)
{
	struct sock *sk = vtoe_sock(vs);
	int err = reason == VTOE_REASON_TIMEOUT ? ETIMEDOUT : ECONNRESET;
	bool open = sk->sk_state != VTOE_SOCK_CLOSE;

	if (sk->sk_state == VTOE_SOCK_LISTEN || !vs->conn)
		return false;
	if (sk->sk_state == VTOE_SOCK_CLOSE_WAIT && err == ECONNRESET)
		err = EPIPE;
	if (open) {
		vs->reason = reason;
		WRITE_ONCE(sk->sk_err, err);
		WRITE_ONCE(sk->sk_shutdown, SHUTDOWN_MASK);
		vtoe_set_state(vs, VTOE_SOCK_T_RESET);
		vtoe_tx_purge(vs);
	}
	vtoe_cmd_close(vs->conn, true);
	return open;
}

void vtoe_reset(struct vtoe_sock *vs, u32 reason)
{
	struct sock *sk = vtoe_sock(vs);
	bool wake;

	spin_lock_bh(&vs->lock);
	if (sk->sk_state == VTOE_SOCK_SYN_SENT && !sock_flag(sk, SOCK_DEAD)) {
		spin_unlock_bh(&vs->lock);
		vtoe_connect_failed(vs, reason);
		return;
	}
	wake = vtoe_abort(vs, reason);
	spin_unlock_bh(&vs->lock);
	if (unlikely(READ_ONCE(vs->deferred))) /* never accepted, as in TCP */
		vtoe_child_ready(vs, false);
	if (!wake)
		return;
	vtoe_count(sk, VTOE_STAT_RESETS);
	sk->sk_write_space(sk);
	if (!sock_flag(sk, SOCK_DEAD))
		sk_error_report(sk);
	sk->sk_state_change(sk);
}

/* Both sides are done and everything is read: the SID may go. vs->lock */
void vtoe_close_check(struct vtoe_sock *vs)
{
	struct vtoe_sid *conn = vs->conn;

	if (!conn || conn->closing || vs->path != VNET_PATH_VTOE ||
	    vtoe_sock(vs)->sk_state != VTOE_SOCK_CLOSE)
		return;
	if (vs->rx.consumed != vs->rcv_final || vs->rx.acked != vs->rx.consumed ||
	    vs->tx.una != vs->snd_end)
		return;
	vtoe_cmd_close(conn, false);
}

unsigned long vtoe_orphan_timeout(const struct vtoe_sock *vs)
{
	/* A peer that reads slowly is no fault; one that is gone the agent tells. */
	return vs->tx.una == vs->snd_end ? VTOE_ORPHAN_TIMEOUT : VTOE_UNREAD_TIMEOUT;
}

/* lock_sock. Our half of the stream ends here. */
static int shut_send(struct vtoe_sock *vs)
{
	struct sock *sk = vtoe_sock(vs);
	bool kick = false;
	int err;

	if (!((1 << sk->sk_state) & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT)))
		return 0;
	/* Nobody adds to snd_end while we have the lock. */
	err = vtoe_cmd_shutdown(vs->conn, vs->snd_end, GFP_KERNEL);
	if (err)
		return err;
	spin_lock_bh(&vs->lock);
	if ((1 << sk->sk_state) & (TCPF_ESTABLISHED | TCPF_CLOSE_WAIT)) {
		WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | SEND_SHUTDOWN);
		vtoe_set_state(vs, VTOE_SOCK_T_SHUTDOWN);
		vs->tx_hold = false;
		vs->tx_full = false; /* no more comes */
		kick = vtoe_xmit(vs);
		if (vs->tx.una == vs->snd_end)
			vtoe_set_state(vs, VTOE_SOCK_T_ACKED);
		vtoe_close_check(vs);
	}
	spin_unlock_bh(&vs->lock);
	if (kick)
		vtoe_kick_swq(vs->conn->dev);
	return 0;
}

/* connect(AF_UNSPEC), one that tells of an end, or shutdown() while connecting. lock_sock */
void vtoe_disconnect(struct vtoe_sock *vs)
{
	struct sock *sk = vtoe_sock(vs);
	int err = ECONNRESET;

	vtoe_neigh_stop(vs);
	spin_lock_bh(&vs->lock);
	if ((1 << sk->sk_state) & (TCPF_CLOSE | TCPF_CLOSING | TCPF_LAST_ACK))
		err = sk->sk_err; /* it was over for the program: no reset */
	vtoe_abort(vs, VTOE_REASON_RESET);
	vtoe_rx_purge(vs);
	/* Nothing of it can be read any more: what is queued must agree. */
	WRITE_ONCE(vs->rcv_nxt, vs->rx.consumed);
	WRITE_ONCE(vs->urg, VTOE_URG_NONE);
	/* A connect() that waits learns of it, as does SO_ERROR. */
	WRITE_ONCE(sk->sk_err, err);
	WRITE_ONCE(sk->sk_shutdown, 0);
	sock_reset_flag(sk, SOCK_DONE);
	spin_unlock_bh(&vs->lock);
	vtoe_inner_unbind(vs);
	sk->sk_state_change(sk);
}

int vtoe_shutdown(struct socket *sock, int how)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);
	int err = 0, mask = how + 1;

	if (how < SHUT_RD || how > SHUT_RDWR)
		return -EINVAL;
	lock_sock(sk);
	if (vtoe_is_tcp(vs)) {
		release_sock(sk);
		err = vs->inner->ops->shutdown(vs->inner, how);
		sock->state = vs->inner->state;
		sk->sk_state_change(sk);
		return err;
	}
	/* As inet_shutdown(); a SYN_SENT is SS_UNCONNECTED in the end. */
	if (sock->state == SS_CONNECTING)
		sock->state = (1 << sk->sk_state) & (TCPF_SYN_SENT | TCPF_CLOSE) ?
			      SS_DISCONNECTING : SS_CONNECTED;

	switch (sk->sk_state) {
	case VTOE_SOCK_CLOSE:
		WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | mask);
		if (!vs->conn && vs->inner) /* for a fallback */
			vs->inner->ops->shutdown(vs->inner, how);
		err = -ENOTCONN;
		break;
	case VTOE_SOCK_LISTEN:
		if (mask & RCV_SHUTDOWN) {
			vs->inner->ops->shutdown(vs->inner, how);
			vtoe_unlisten(vs);
			WRITE_ONCE(sk->sk_shutdown, 0); /* as tcp_disconnect() */
		}
		break;
	case VTOE_SOCK_SYN_SENT:
		vtoe_disconnect(vs);
		sock->state = SS_UNCONNECTED;
		break;
	case VTOE_SOCK_CLOSING:
	case VTOE_SOCK_LAST_ACK:
		/* Only the peer's program is not through: TCP would be CLOSE. */
		err = -ENOTCONN;
		break;
	default:
		if (mask & RCV_SHUTDOWN) {
			spin_lock_bh(&vs->lock);
			WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | RCV_SHUTDOWN);
			spin_unlock_bh(&vs->lock);
		}
		if (mask & SEND_SHUTDOWN)
			err = shut_send(vs);
	}
	sk->sk_state_change(sk);
	release_sock(sk);
	return err;
}

static void linger(struct sock *sk)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	long timeo = sk->sk_lingertime;

	add_wait_queue(sk_sleep(sk), &wait);
	while ((1 << sk->sk_state) & (TCPF_FIN_WAIT1 | TCPF_CLOSING | TCPF_LAST_ACK)) {
		if (sk_wait_event(sk, &timeo, !((1 << READ_ONCE(sk->sk_state)) &
				  (TCPF_FIN_WAIT1 | TCPF_CLOSING | TCPF_LAST_ACK)), &wait) < 0)
			break;
		if (signal_pending(current) || !timeo)
			break;
	}
	remove_wait_queue(sk_sleep(sk), &wait);
}

/* lock_sock; a connection over the offload */
static void close_conn(struct sock *sk)
{
	struct vtoe_sock *vs = vtoe_sk(sk);
	bool abort, kick = false;
	int err;

	vtoe_neigh_stop(vs);
	spin_lock_bh(&vs->lock);
	abort = !list_empty(&vs->rx_queue) || sk->sk_state == VTOE_SOCK_SYN_SENT ||
		(sock_flag(sk, SOCK_LINGER) && !sk->sk_lingertime);
	if (abort) {
		vtoe_abort(vs, VTOE_REASON_RESET);
		vtoe_rx_purge(vs);
	} else if (vs->rx.acked != vs->rx.consumed) {
		kick = vtoe_send_credit(vs, 0);
	}
	WRITE_ONCE(sk->sk_shutdown, sk->sk_shutdown | RCV_SHUTDOWN);
	spin_unlock_bh(&vs->lock);
	if (abort)
		return;

	err = shut_send(vs);
	/* After it: the agent, once awake, takes both in one go. */
	if (kick)
		vtoe_kick_swq(vs->conn->dev);
	if (err) { /* no memory: the hard way */
		vtoe_reset(vs, VTOE_REASON_LIMIT);
		return;
	}
	if (sock_flag(sk, SOCK_LINGER) && !(current->flags & PF_EXITING))
		linger(sk);
	spin_lock_bh(&vs->lock);
	vtoe_close_check(vs);
	vs->deadline = jiffies + vtoe_orphan_timeout(vs);
	spin_unlock_bh(&vs->lock);
	if (sk->sk_state != VTOE_SOCK_CLOSE)
		vtoe_work_in(vs, VTOE_ORPHAN_TIMEOUT);
}

int vtoe_release(struct socket *sock)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);

	if (!sk)
		return 0;
	if (!list_empty(&vs->listeners)) {
		mutex_lock(&vtoe_devs_mutex);
		list_del_init(&vs->listeners);
		mutex_unlock(&vtoe_devs_mutex);
	}
	sock_hold(sk); /* the SID may let go of it while we work */
	lock_sock(sk);
	if (sk->sk_state == VTOE_SOCK_LISTEN)
		vtoe_unlisten(vs);
	else if (vs->conn && !vtoe_is_tcp(vs))
		close_conn(sk);
	vtoe_sync_options(vs); /* SO_LINGER may be the last that was called */
	sock_orphan(sk);
	sock->sk = NULL;
	/* Data that came since the check finds SOCK_DEAD from here on. */
	spin_lock_bh(&vs->lock);
	if (!list_empty(&vs->rx_queue)) {
		vtoe_abort(vs, VTOE_REASON_RESET);
		vtoe_rx_purge(vs);
	}
	spin_unlock_bh(&vs->lock);
	release_sock(sk);
	vtoe_inner_release(vs);
	sock_put(sk);
	sock_put(sk);
	return 0;
}

/* All that happens to a socket by time, or must sleep. */
void vtoe_sock_work(struct work_struct *work)
{
	struct vtoe_sock *vs = container_of(to_delayed_work(work), struct vtoe_sock, work);
	struct sock *sk = vtoe_sock(vs);
	bool kick = false, timed_out = false;

	lock_sock(sk);
	if (sk->sk_state == VTOE_SOCK_SYN_SENT) {
		vtoe_connect_work(vs);
		goto out;
	}
	if (!vs->conn || vtoe_is_tcp(vs) || sk->sk_state == VTOE_SOCK_LISTEN)
		goto out;
	if (READ_ONCE(vs->deferred))
		vtoe_child_ready(vs, true);
	spin_lock_bh(&vs->lock);
	if (vs->tx_hold && vs->tx_next && time_before(jiffies, vs->hold_until))
		vtoe_work_in(vs, vs->hold_until - jiffies);
	else
		vs->tx_hold = false;
	kick = vtoe_xmit(vs);
	if (vs->rx.acked != vs->rx.consumed)
		kick |= vtoe_send_credit(vs, 0);
	vtoe_close_check(vs);
	timed_out = vtoe_tx_timed_out(vs);
	if (sock_flag(sk, SOCK_DEAD) && sk->sk_state != VTOE_SOCK_CLOSE) {
		timed_out |= time_after_eq(jiffies, vs->deadline);
		if (!timed_out) /* the deadline may come nearer: FIN_WAIT2 */
			vtoe_work_in(vs, min(vs->deadline - jiffies,
					     (unsigned long)VTOE_ORPHAN_TIMEOUT));
	}
	spin_unlock_bh(&vs->lock);
	if (kick)
		vtoe_kick_swq(vs->conn->dev);
	if (timed_out)
		vtoe_reset(vs, VTOE_REASON_TIMEOUT);
out:
	release_sock(sk);
	sock_put(sk);
}
