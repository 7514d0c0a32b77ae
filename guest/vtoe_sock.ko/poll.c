// SPDX-License-Identifier: GPL-2.0-only
/*
 * poll, SIGIO, and the ioctls that ask how much is queued. The masks are those
 * of tcp_poll(). Waiters are always on our wait queue (fallback.c).
 */
#include "vtoe.h"

#include <asm/ioctls.h>
#include <linux/sockios.h>
#include <linux/uaccess.h>

static __poll_t poll_inner(struct vtoe_sock *vs, struct file *file)
{
	__poll_t mask;

	vtoe_inner_sync_err(vs, 0);
	mask = vs->inner->ops->poll(file, vs->inner, NULL);
	if (mask & EPOLLERR) /* SO_ERROR, asked next, must know it */
		vtoe_inner_copy_err(vs);
	/* A listener's is an earlier connection's. */
	if (READ_ONCE(vtoe_sock(vs)->sk_err) && vs->inner->sk->sk_state != TCP_LISTEN)
		mask |= EPOLLERR;
	return mask;
}

__poll_t vtoe_poll(struct file *file, struct socket *sock, poll_table *wait)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);
	__poll_t mask = 0;
	u8 shutdown;
	int state;

	/* On our queue before looking at anything, the path included. */
	sock_poll_wait(file, sock, wait);
	/* Before the path: an opening that fell back has one. Pairs with vtoe_set_state(). */
	state = smp_load_acquire(&sk->sk_state);
	if (vtoe_is_tcp(vs))
		return poll_inner(vs, file);

	if (state == VTOE_SOCK_LISTEN) {
		if (!list_empty_careful(&vs->accept_queue))
			return EPOLLIN | EPOLLRDNORM;
		return poll_inner(vs, file);
	}
	shutdown = READ_ONCE(sk->sk_shutdown);
	if (shutdown == SHUTDOWN_MASK || state == VTOE_SOCK_CLOSE)
		mask |= EPOLLHUP;
	if (shutdown & RCV_SHUTDOWN)
		mask |= EPOLLIN | EPOLLRDNORM | EPOLLRDHUP;

	if (state != VTOE_SOCK_SYN_SENT && state != VTOE_SOCK_SYN_RECV) {
		if (vtoe_rx_ready(vs))
			mask |= EPOLLIN | EPOLLRDNORM;
		if (shutdown & SEND_SHUTDOWN || sk_stream_is_writeable(sk)) {
			mask |= EPOLLOUT | EPOLLWRNORM;
		} else {
			sk_set_bit(SOCKWQ_ASYNC_NOSPACE, sk);
			set_bit(SOCK_NOSPACE, &sock->flags);
			/* Room may have come before the flag did. */
			smp_mb__after_atomic();
			if (sk_stream_is_writeable(sk))
				mask |= EPOLLOUT | EPOLLWRNORM;
		}
	}
	if (READ_ONCE(vs->urg) == VTOE_URG_VALID)
		mask |= EPOLLPRI;
	/* pairs with the order of sk_err and state in vtoe_abort() */
	smp_rmb();
	if (READ_ONCE(sk->sk_err) || !skb_queue_empty_lockless(&sk->sk_error_queue))
		mask |= EPOLLERR;
	return mask;
}

/* sk_stream_write_space(), which is not exported. Any context. */
void vtoe_write_space(struct sock *sk)
{
	struct socket_wq *wq;
	struct socket *sock;

	rcu_read_lock();
	/* The struct socket goes after a grace period. */
	sock = READ_ONCE(sk->sk_socket);
	/* Room was made before; pairs with vtoe_poll() and sk_stream_wait_memory(). */
	smp_mb();
	if (sock && test_bit(SOCK_NOSPACE, &sock->flags) && sk_stream_is_writeable(sk)) {
		clear_bit(SOCK_NOSPACE, &sock->flags);
		wq = rcu_dereference(sk->sk_wq);
		if (skwq_has_sleeper(wq)) {
			vtoe_count(sk, VTOE_STAT_WAKEUPS);
			wake_up_interruptible_poll(&wq->wait,
						   EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND);
		}
		if (wq && wq->fasync_list && !(sk->sk_shutdown & SEND_SHUTDOWN))
			sock_wake_async(wq, SOCK_WAKE_SPACE, POLL_OUT);
	}
	rcu_read_unlock();
}

/* What the ioctls ask that are about a connection. */
static int queued_of(struct vtoe_sock *vs, int cmd, int *value)
{
	u64 n;

	switch (cmd) {
	case SIOCINQ:
		n = vtoe_urg_inq(vs);
		break;
	case SIOCOUTQ: /* what the peer's program has not read */
		n = READ_ONCE(vs->snd_end) - READ_ONCE(vs->tx.una);
		break;
	case SIOCOUTQNSD:
		n = READ_ONCE(vs->snd_end) - READ_ONCE(vs->snd_nxt);
		break;
	case SIOCATMARK:
		n = vtoe_urg_at_mark(vs);
		break;
	default:
		return -ENOIOCTLCMD;
	}
	*value = min_t(u64, n, INT_MAX);
	return 0;
}

/* io_uring's way to the same. */
int vtoe_queued(struct sock *sk, int cmd, int *value)
{
	struct vtoe_sock *vs = vtoe_sk(sk);
	int err;

	lock_sock(sk);
	if (vs->conn && !vtoe_is_tcp(vs)) {
		err = queued_of(vs, cmd, value);
		release_sock(sk);
		return err;
	}
	err = vtoe_need_inner(vs);
	release_sock(sk);
	return err ?: vtoe_ask_inner(vs->inner->sk, cmd, value);
}

int vtoe_ioctl(struct socket *sock, unsigned int cmd, unsigned long arg)
{
	struct vtoe_sock *vs = vtoe_sk(sock->sk);
	int err, value;
	bool ours;

	ours = cmd == SIOCINQ || cmd == SIOCOUTQ || cmd == SIOCOUTQNSD || cmd == SIOCATMARK;
	lock_sock(sock->sk);
	ours = ours && vs->conn && !vtoe_is_tcp(vs);
	/* What asks for interfaces and routes, not for this socket, inet answers. */
	err = ours ? 0 : vtoe_need_inner(vs);
	release_sock(sock->sk);
	if (err)
		return err;
	if (!ours)
		return vs->inner->ops->ioctl(vs->inner, cmd, arg);

	err = queued_of(vs, cmd, &value);
	return err ?: put_user(value, (int __user *)arg);
}
