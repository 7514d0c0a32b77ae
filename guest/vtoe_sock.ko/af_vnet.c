// SPDX-License-Identifier: GPL-2.0-only
/*
 * The family: making and ending a struct sock, and the tables that the core
 * calls. struct proto has what every protocol that is to be registered with
 * inet needs, so that one implementation serves both front doors.
 */
#include "vtoe.h"

#include <linux/mm.h>
#include <linux/swap.h>
#include <net/inet_common.h>
#include <net/ipv6.h>

#define CREATE_TRACE_POINTS
#include "trace.h"

struct kmem_cache *vtoe_chunk_cache;

static struct percpu_counter sockets_allocated;
static atomic_long_t memory_allocated;
static DEFINE_PER_CPU(int, per_cpu_fw_alloc);
static unsigned long memory_pressure;
static long sysctl_mem[3];
static int sysctl_wmem[3] = { 4096, VTOE_SNDBUF_DEFAULT, 8 << 20 };
static int sysctl_rmem[3] = { 4096, VTOE_RCVBUF_DEFAULT, 8 << 20 };
static struct lock_class_key slock_key, lock_key;

static void enter_memory_pressure(struct sock *sk)
{
	if (!READ_ONCE(memory_pressure))
		WRITE_ONCE(memory_pressure, jiffies ?: 1);
}

static void leave_memory_pressure(struct sock *sk)
{
	if (READ_ONCE(memory_pressure))
		WRITE_ONCE(memory_pressure, 0);
}

struct proto vtoe_prot = {
	.name = "VNET_TCP",
	.owner = THIS_MODULE,
	.init = vtoe_inet_init_sock,
	VTOE_PROTO_IOCTL
	.stream_memory_free = vtoe_stream_memory_free,
	.destroy = vtoe_inet_destroy_sock,
	.unhash = vtoe_inet_unhash,
	VTOE_PROTO_SIZE(struct vtoe_sock, pinet6)
	.enter_memory_pressure = enter_memory_pressure,
	.leave_memory_pressure = leave_memory_pressure,
	.sockets_allocated = &sockets_allocated,
	.memory_allocated = &memory_allocated,
	.per_cpu_fw_alloc = &per_cpu_fw_alloc,
	.memory_pressure = &memory_pressure,
	.sysctl_mem = sysctl_mem,
	.sysctl_wmem = sysctl_wmem,
	.sysctl_rmem = sysctl_rmem,
};

void vtoe_set_state(struct vtoe_sock *vs, enum vtoe_sock_trigger trigger)
{
	struct sock *sk = vtoe_sock(vs);
	u8 from = sk->sk_state, to = vtoe_sock_next(from, trigger);

	lockdep_assert_held(&vs->lock);
	trace_vtoe_state(sk, vs->conn ? vs->conn->sid : 0, from, trigger, to);
	if (WARN_ONCE(to == VTOE_STATE_ILLEGAL, "trigger %d in state %s\n", trigger,
		      vtoe_sock_state_name(from)))
		return;
	/* pairs with the acquire in vtoe_poll() */
	smp_store_release(&sk->sk_state, to);
}

void vtoe_work_in(struct vtoe_sock *vs, unsigned long delay)
{
	unsigned long now = jiffies;

	smp_mb(); /* one that begins without being queued again sees why it was asked */
	spin_lock_bh(&vs->work_lock);
	if (delayed_work_pending(&vs->work)) {
		if (!timer_pending(&vs->work.timer)) /* it is about to run */
			goto out;
		if (time_after(now, vs->work_at))
			delay = 0; /* long timers are late, by an eighth */
		else if (!time_before(now + delay, vs->work_at))
			goto out;
	}
	vs->work_at = now + delay;
	sock_hold(vtoe_sock(vs));
	if (mod_delayed_work(vtoe_wq, &vs->work, delay))
		sock_put(vtoe_sock(vs)); /* it was pending, with a reference */
out:
	spin_unlock_bh(&vs->work_lock);
}

/* Any context; one that runs goes on. */
void vtoe_work_cancel(struct vtoe_sock *vs)
{
	bool cancelled;

	spin_lock_bh(&vs->work_lock);
	cancelled = cancel_delayed_work(&vs->work);
	spin_unlock_bh(&vs->work_lock);
	if (cancelled)
		sock_put(vtoe_sock(vs));
}

static void vtoe_destruct(struct sock *sk)
{
	struct vtoe_sock *vs = vtoe_sk(sk);

	vtoe_sks_del(vs); /* first: who lists sockets looks at all of this */
	spin_lock_bh(&vs->lock);
	vtoe_rx_purge(vs);
	vtoe_tx_purge(vs);
	spin_unlock_bh(&vs->lock);
	if (vs->conn)
		vtoe_sid_put(vs->conn);
	if (vs->neigh)
		neigh_release(vs->neigh);
	vtoe_told_put(vs->told);
	sk_sockets_allocated_dec(sk);
	inet_sock_destruct(sk);
}

static void init_pinet6(struct vtoe_sock *vs)
{
#if IS_ENABLED(CONFIG_IPV6)
	struct sock *sk = vtoe_sock(vs);

	if (sk->sk_family != AF_INET6)
		return;
	vs->inet.pinet6 = &vs->pinet6;
	vs->pinet6.hop_limit = -1;
	vs->pinet6.mcast_hops = IPV6_DEFAULT_MCASTHOPS;
	vs->pinet6.pmtudisc = IPV6_PMTUDISC_WANT;
	sk->sk_ipv6only = sock_net(sk)->ipv6.sysctl.bindv6only;
#endif
}

/* After sock_init_data(); any context. */
void vtoe_sk_init(struct sock *sk)
{
	struct vtoe_sock *vs = vtoe_sk(sk);

	sock_lock_init_class_and_name(sk, "slock-AF_VNET", &slock_key,
				      "sk_lock-AF_VNET", &lock_key);
	sk->sk_type = SOCK_STREAM;
	sk->sk_protocol = IPPROTO_TCP;
	sk->sk_state = VTOE_SOCK_CLOSE;
	/* No congestion control: a BPF program that sets one on us gets EPERM. */
	vtoe_sk(sk)->as_tcp.inet_conn.icsk_ca_dst_locked = 1;
	sk->sk_destruct = vtoe_destruct;
	sk->sk_write_space = vtoe_write_space;
	sk->sk_sndbuf = sysctl_wmem[1];
	sk->sk_rcvbuf = sysctl_rmem[1];
	sock_set_flag(sk, SOCK_RCU_FREE); /* SID lookups are lockless */
	sock_set_flag(sk, SOCK_USE_WRITE_QUEUE);
	vtoe_init_user_frags(sk);
	vs->inet.uc_ttl = -1;
	vs->inet.mc_ttl = 1;
	init_pinet6(vs);

	spin_lock_init(&vs->lock);
	spin_lock_init(&vs->work_lock);
	INIT_LIST_HEAD(&vs->announced);
	INIT_LIST_HEAD(&vs->listeners);
	INIT_LIST_HEAD(&vs->neigh_node);
	INIT_LIST_HEAD(&vs->tx_queue);
	INIT_LIST_HEAD(&vs->swq_node);
	INIT_LIST_HEAD(&vs->credit_node);
	INIT_LIST_HEAD(&vs->rx_queue);
	INIT_LIST_HEAD(&vs->accept_queue);
	INIT_LIST_HEAD(&vs->accept_node);
	INIT_DELAYED_WORK(&vs->work, vtoe_sock_work);
	vs->rcv_final = U64_MAX;
	vs->quickack = true; /* as TCP says until it knows better */
	sk_sockets_allocated_inc(sk);
	vtoe_sks_add(vs);
}

/* Any context; the caller gives it a struct socket, or will. */
struct sock *vtoe_sk_alloc(struct net *net, int family, gfp_t gfp, int kern)
{
	struct sock *sk = sk_alloc(net, family, gfp, &vtoe_prot, kern);

	if (!sk)
		return NULL;
	sock_init_data(NULL, sk);
	vtoe_sk_init(sk);
	return sk;
}

void vtoe_socket_init(struct socket *sock)
{
	/* SOL_SOCKET options reach the inner socket too: sockopt.c */
	vtoe_custom_sockopt(sock);
	set_bit(SOCK_SUPPORT_ZC, &sock->flags); /* io_uring asks for it */
}

const struct proto_ops vtoe_ops = {
	.family = PF_INET,
	.owner = THIS_MODULE,
	.release = vtoe_release,
	.bind = vtoe_bind,
	.connect = vtoe_connect,
	.socketpair = sock_no_socketpair,
	.accept = vtoe_accept,
	.getname = vtoe_getname,
	.poll = vtoe_poll,
	.ioctl = vtoe_ioctl,
	.gettstamp = sock_gettstamp,
	.listen = vtoe_listen,
	.shutdown = vtoe_shutdown,
	.setsockopt = vtoe_setsockopt,
	.getsockopt = vtoe_getsockopt,
	.sendmsg = vtoe_sendmsg,
	.recvmsg = vtoe_recvmsg,
	.mmap = sock_no_mmap,
	.set_rcvlowat = vtoe_set_rcvlowat,
	VTOE_OPS_SENDPAGE
	VTOE_OPS_SPLICE_EOF
	VTOE_OPS_PEEK_OFF
};

static int vtoe_create(struct net *net, struct socket *sock, int protocol, int kern)
{
	struct vtoe_sock *vs;
	struct sock *sk;
	int family, err;

	if (sock->type != SOCK_STREAM)
		return -ESOCKTNOSUPPORT;
	switch (protocol) {
	case VNETPROTO_IP4:
	case IPPROTO_TCP:
		family = AF_INET;
		break;
	case VNETPROTO_IP6:
		if (!IS_ENABLED(CONFIG_IPV6))
			return -EAFNOSUPPORT;
		family = AF_INET6;
		break;
	default:
		return -EPROTONOSUPPORT;
	}

	sk = vtoe_sk_alloc(net, family, GFP_KERNEL, kern);
	if (!sk)
		return -ENOBUFS;
	vs = vtoe_sk(sk);
	err = vtoe_inner_create(vs, false);
	if (err) {
		sock_orphan(sk);
		sock_put(sk);
		return err;
	}
	sock->ops = &vtoe_ops;
	sock->state = SS_UNCONNECTED;
	vtoe_socket_init(sock);
	sock_graft(sk, sock);
	vtoe_count(sk, VTOE_STAT_SOCKETS);
	return 0;
}

static struct net_proto_family vtoe_family_ops = {
	.owner = THIS_MODULE,
	.create = vtoe_create,
};

int vtoe_af_init(void)
{
	unsigned long limit = max(nr_free_buffer_pages() / 8, 128UL);
	int err;

	sysctl_mem[0] = limit / 4 * 3;
	sysctl_mem[1] = limit;
	sysctl_mem[2] = limit / 2 * 3;

	vtoe_chunk_cache = KMEM_CACHE(vtoe_chunk, SLAB_HWCACHE_ALIGN);
	if (!vtoe_chunk_cache)
		return -ENOMEM;
	err = percpu_counter_init(&sockets_allocated, 0, GFP_KERNEL);
	if (err)
		goto err_cache;
	err = proto_register(&vtoe_prot, 1);
	if (err)
		goto err_counter;
	vtoe_family_ops.family = vtoe_family;
	err = sock_register(&vtoe_family_ops);
	if (err) {
		pr_err("socket family %u is taken (%d): use the parameter \"family\"\n",
		       vtoe_family, err);
		if (err == -EEXIST) /* for modprobe that is: loaded already, all is well */
			err = -EBUSY;
		goto err_proto;
	}
	err = vtoe_inet_init();
	if (err)
		goto err_family;
	return 0;

err_family:
	sock_unregister(vtoe_family);
err_proto:
	proto_unregister(&vtoe_prot);
err_counter:
	percpu_counter_destroy(&sockets_allocated);
err_cache:
	kmem_cache_destroy(vtoe_chunk_cache);
	return err;
}

void vtoe_af_exit(void)
{
	vtoe_inet_exit();
	sock_unregister(vtoe_family);
	rcu_barrier(); /* sockets that are being freed */
	proto_unregister(&vtoe_prot);
	percpu_counter_destroy(&sockets_allocated);
	kmem_cache_destroy(vtoe_chunk_cache);
}
