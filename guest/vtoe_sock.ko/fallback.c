// SPDX-License-Identifier: GPL-2.0-only
/*
 * The inner TCP socket, and going on over it.
 *
 * Whoever waits for our socket (poll, epoll, SIGIO, a blocking call) waits on
 * *our* wait queue, whatever way the socket takes. So the inner socket's
 * callbacks are ours from the start: each does what it did and then wakes our
 * waiters. No epoll registration is ever lost by a fallback.
 *
 * SO_ERROR reads our sk_err. An error of the inner socket is copied to it; once
 * it was read there, the inner one is cleared too (vtoe_inner_sync_err).
 */
#include "vtoe.h"

#include <linux/file.h>
#include <net/tcp.h>

static void wake_writers(struct sock *sk)
{
	struct socket_wq *wq;

	rcu_read_lock();
	wq = rcu_dereference(sk->sk_wq);
	if (skwq_has_sleeper(wq))
		wake_up_interruptible_poll(&wq->wait, EPOLLOUT | EPOLLWRNORM | EPOLLWRBAND);
	if (wq && wq->fasync_list)
		sock_wake_async(wq, SOCK_WAKE_SPACE, POLL_OUT);
	rcu_read_unlock();
}

static void copy_error(struct vtoe_sock *vs, const struct sock *isk)
{
	int err = READ_ONCE(isk->sk_err);

	if (err && vtoe_is_tcp(vs)) {
		WRITE_ONCE(vs->inner_err_copied, true);
		WRITE_ONCE(vtoe_sock(vs)->sk_err, err);
	}
}

/*
 * An inner listener's children have our callbacks too, without our socket,
 * until accept() adopts them; nobody waits for them.
 */
#define INNER_CALLBACK(name, ...)                                              \
	static void name(struct sock *isk)                                     \
	{                                                                      \
		struct vtoe_sock *vs;                                          \
		struct sock *sk;                                               \
									       \
		read_lock_bh(&isk->sk_callback_lock);                          \
		vs = rcu_dereference_check(*(void __rcu **)&isk->sk_user_data, 1); \
		vs = (void *)((uintptr_t)vs & SK_USER_DATA_PTRMASK);           \
		if (vs) {                                                      \
			vs->name(isk);                                         \
			sk = vtoe_sock(vs);                                    \
			__VA_ARGS__                                            \
		}                                                              \
		read_unlock_bh(&isk->sk_callback_lock);                        \
	}

INNER_CALLBACK(inner_data_ready, {
#ifdef CONFIG_NET_RX_BUSY_POLL
	WRITE_ONCE(sk->sk_napi_id, READ_ONCE(isk->sk_napi_id));
#endif
	WRITE_ONCE(sk->sk_incoming_cpu, READ_ONCE(isk->sk_incoming_cpu));
	sk->sk_data_ready(sk);
})
INNER_CALLBACK(inner_state_change, {
	copy_error(vs, isk);
	sk->sk_state_change(sk);
})
INNER_CALLBACK(inner_write_space, {
	if (sk_stream_is_writeable(isk))
		wake_writers(sk);
})
INNER_CALLBACK(inner_error_report, {
	copy_error(vs, isk);
	sk_error_report(sk);
})

static void attach(struct vtoe_sock *vs, struct socket *inner, struct vtoe_sock *from)
{
	struct sock *isk = inner->sk;

	write_lock_bh(&isk->sk_callback_lock);
	vs->inner_data_ready = from ? from->inner_data_ready : isk->sk_data_ready;
	vs->inner_state_change = from ? from->inner_state_change : isk->sk_state_change;
	vs->inner_write_space = from ? from->inner_write_space : isk->sk_write_space;
	vs->inner_error_report = from ? from->inner_error_report : isk->sk_error_report;
	isk->sk_data_ready = inner_data_ready;
	isk->sk_state_change = inner_state_change;
	isk->sk_write_space = inner_write_space;
	isk->sk_error_report = inner_error_report;
	__rcu_assign_sk_user_data_with_flags(isk, vs, SK_USER_DATA_NOCOPY);
	write_unlock_bh(&isk->sk_callback_lock);
	vs->inner = inner;
}

/* For who saw an error of the inner socket before its callback told us. */
void vtoe_inner_copy_err(struct vtoe_sock *vs)
{
	struct sock *isk = vs->inner->sk;

	if (READ_ONCE(vs->inner_err_copied))
		return;
	/* Once, and not together with the callbacks: SO_ERROR may have read it since. */
	write_lock_bh(&isk->sk_callback_lock);
	if (!vs->inner_err_copied)
		copy_error(vs, isk);
	write_unlock_bh(&isk->sk_callback_lock);
}

/* What a program that a cgroup has for new sockets has set. */
static void take_from_cgroup(struct vtoe_sock *vs, const struct sock *isk)
{
	struct sock *sk = vtoe_sock(vs);

	if (isk->sk_bound_dev_if)
		sk->sk_bound_dev_if = isk->sk_bound_dev_if;
	if (isk->sk_priority)
		WRITE_ONCE(sk->sk_priority, isk->sk_priority);
	if (isk->sk_mark) {
		WRITE_ONCE(sk->sk_mark, isk->sk_mark);
		vs->pinned = VTOE_REASON_OPTION;
	}
}

/* child: it was accepted, and had none until now */
int vtoe_inner_create(struct vtoe_sock *vs, bool child)
{
	struct sock *sk = vtoe_sock(vs);
	struct socket *inner;
	int err;

	/*
	 * Made as the program itself would make it: it holds its netns (TCP
	 * timers outlive us), and security modules and cgroups see it.
	 */
	err = __sock_create(sock_net(sk), sk->sk_family, SOCK_STREAM, IPPROTO_TCP,
			    &inner, 0);
	if (err)
		return err;
	/* A child's come from its listener, the others have none yet. */
	inner->sk->sk_ipv6only = sk->sk_ipv6only;
	inet_sk(inner->sk)->tos = vs->inet.tos;
	inet_sk(inner->sk)->uc_ttl = vs->inet.uc_ttl;
	tcp_sk(inner->sk)->rx_opt.user_mss = vs->as_tcp.rx_opt.user_mss;
	WRITE_ONCE(tcp_sk(inner->sk)->notsent_lowat, vs->as_tcp.notsent_lowat);
	tcp_sk(inner->sk)->recvmsg_inq = vs->as_tcp.recvmsg_inq;
	if (!child)
		take_from_cgroup(vs, inner->sk);
	attach(vs, inner, NULL);
	return 0;
}

/* inner: accepted by the inner listener of from. */
void vtoe_inner_adopt(struct vtoe_sock *vs, struct socket *inner, struct vtoe_sock *from)
{
	attach(vs, inner, from);
	/* What came before we listened. */
	copy_error(vs, inner->sk);
}

/*
 * Firewalls tell whose packet it is (meta skuid) by the file of the socket that
 * sends it, and SIGURG goes to that file's owner. It outlives our release().
 */
void vtoe_inner_set_file(struct vtoe_sock *vs)
{
	struct socket *sock = vtoe_sock(vs)->sk_socket;
	struct sock *isk = vs->inner->sk;

	write_lock_bh(&isk->sk_callback_lock);
	vs->inner->file = sock ? sock->file : NULL;
	write_unlock_bh(&isk->sk_callback_lock);
}

void vtoe_inner_release(struct vtoe_sock *vs)
{
	struct socket *inner = vs->inner;
	struct sock *isk;

	if (!inner)
		return;
	isk = inner->sk;
	write_lock_bh(&isk->sk_callback_lock);
	isk->sk_data_ready = vs->inner_data_ready;
	isk->sk_state_change = vs->inner_state_change;
	isk->sk_write_space = vs->inner_write_space;
	isk->sk_error_report = vs->inner_error_report;
	rcu_assign_sk_user_data(isk, NULL);
	inner->file = NULL;
	write_unlock_bh(&isk->sk_callback_lock);
	vs->inner = NULL;
	sock_release(inner);
}

/* lock_sock(isk), which is closed */
static void drop_name(struct sock *isk, bool port)
{
	/* A port goes with an opening that ends: modules have no other way. */
	if (port)
		WRITE_ONCE(isk->sk_state, TCP_SYN_SENT);
	isk->sk_prot->disconnect(isk, 0);
	WRITE_ONCE(isk->sk_err, 0);
}

void vtoe_inner_drop_port(struct sock *isk)
{
	lock_sock(isk);
	if (isk->sk_state == TCP_CLOSE)
		drop_name(isk, true);
	release_sock(isk);
}

/*
 * What tcp_disconnect() leaves of a connection's name: a port, and an address,
 * that the program has not chosen are free again, and the port is still shown.
 * lock_sock; the connection is over
 */
void vtoe_inner_unbind(struct vtoe_sock *vs)
{
	struct sock *sk = vtoe_sock(vs), *isk = vs->inner ? vs->inner->sk : NULL;
	u8 locks = sk->sk_userlocks;

	if (isk) {
		lock_sock(isk);
		locks |= isk->sk_userlocks;
		if (isk->sk_state == TCP_CLOSE)
			drop_name(isk, !(locks & SOCK_BINDPORT_LOCK));
		release_sock(isk);
	}
	if (!(locks & SOCK_BINDADDR_LOCK))
		vs->local = (struct vtoe_addr){
			.family = sk->sk_family == AF_INET6 ? 6 : 4,
			.port = vs->local.port,
		};
	vs->remote.family = 0;
	vtoe_set_addrs(vs);
}

/* It has chosen its address: /proc/net/vnet_sock shows ours. */
void vtoe_inner_named(struct vtoe_sock *vs)
{
	struct sock *sk = vtoe_sock(vs);

	lock_sock(sk);
	vtoe_addr_of_inner(vs);
	vtoe_set_addrs(vs);
	release_sock(sk);
}

/* What a mode that allows no TCP makes of a reason. */
int vtoe_reason_errno(u32 reason)
{
	switch (reason) {
	case VTOE_REASON_NO_LISTENER:
	case VTOE_REASON_BACKLOG:
		return -ECONNREFUSED;
	case VTOE_REASON_TIMEOUT:
		return -ETIMEDOUT;
	case VTOE_REASON_NO_NEIGH:
		return -EHOSTUNREACH;
	case VTOE_REASON_RESET:
		return -ECONNRESET;
	default:
		return -ENETUNREACH;
	}
}

bool vtoe_may_fall_back(const struct vtoe_sock *vs)
{
	return vs->mode != VNET_MODE_VNET && vs->inner;
}

/* lock_sock; no byte was sent yet. */
void vtoe_take_tcp(struct vtoe_sock *vs, u32 reason)
{
	struct sock *sk = vtoe_sock(vs);

	if (vtoe_is_tcp(vs))
		return;
	vtoe_inner_set_file(vs);
	vs->reason = reason;
	vtoe_count(sk, VTOE_STAT_FALLBACKS);
	vtoe_count(sk, VTOE_STAT_REASON0 + min_t(u32, reason, VTOE_REASON_COUNT - 1));
	/* Whoever sees the path sees the reason; pairs with vtoe_is_tcp(). */
	smp_store_release(&vs->path, VNET_PATH_TCP);
	if (vs->remote.family == 4)
		pr_info_ratelimited("connection to %pI4:%u goes over TCP: %s\n",
				    vs->remote.addr, ntohs(vs->remote.port),
				    vtoe_reason_name(reason));
	else if (vs->remote.family == 6)
		pr_info_ratelimited("connection to [%pI6c]:%u goes over TCP: %s\n",
				    vs->remote.addr, ntohs(vs->remote.port),
				    vtoe_reason_name(reason));
}

/* After (ret < 0: that error was given) and before a call on the inner socket. */
void vtoe_inner_sync_err(struct vtoe_sock *vs, int ret)
{
	struct sock *sk = vtoe_sock(vs);

	vtoe_sync_options(vs);
	if (!READ_ONCE(vs->inner_err_copied))
		return;
	if (ret < 0 && READ_ONCE(sk->sk_err) == -ret) {
		WRITE_ONCE(vs->inner_err_copied, false);
		WRITE_ONCE(sk->sk_err, 0);
	} else if (!READ_ONCE(sk->sk_err)) { /* read by SO_ERROR */
		WRITE_ONCE(vs->inner_err_copied, false);
		WRITE_ONCE(vs->inner->sk->sk_err, 0);
	}
}

int vtoe_inner_sendmsg(struct vtoe_sock *vs, struct msghdr *msg, size_t len)
{
	int ret;

	vtoe_inner_sync_err(vs, 0);
	ret = vs->inner->ops->sendmsg(vs->inner, msg, len);
	vtoe_inner_sync_err(vs, ret);
	return ret;
}

int vtoe_inner_recvmsg(struct vtoe_sock *vs, struct msghdr *msg, size_t len, int flags)
{
	int ret;

	vtoe_inner_sync_err(vs, 0);
	ret = vs->inner->ops->recvmsg(vs->inner, msg, len, flags);
	/* The core reads SO_PEEK_OFF from ours. */
	WRITE_ONCE(vtoe_sock(vs)->sk_peek_off, READ_ONCE(vs->inner->sk->sk_peek_off));
	vtoe_inner_sync_err(vs, ret);
	return ret;
}
