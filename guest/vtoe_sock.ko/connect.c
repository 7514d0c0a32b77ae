// SPDX-License-Identifier: GPL-2.0-only
/*
 * bind() and connect().
 *
 * connect() decides the way. It asks the routing table which interface leads
 * to the peer; if that one belongs to a device with offload, the inner socket
 * is bound (the port is then ours in the guest's TCP as well), SOCKET and
 * CONNECT are given in one go, and an event ends the wait. Whatever goes wrong
 * before that event: TCP, over the inner socket, with the reason kept. A peer
 * without an offloading listener is such a reason, too: if nobody listens there
 * at all, TCP's reset will say so.
 *
 * What has to sleep or ends in softirq is done by the socket's work
 * (vtoe_connect_work): waiting for the neighbour, falling back.
 */
#include "vtoe.h"

#include <linux/inetdevice.h>
#include <linux/ipv6_route.h>
#include <linux/security.h>
#include <linux/wait_bit.h>
#include <net/ip6_fib.h>
#include <net/route.h>

struct way {
	struct vtoe_dev *dev;  /* with a reference */
	struct dst_entry *dst; /* likewise */
	bool local;	       /* the peer is this guest itself */
};

static struct dst_entry *route4(struct vtoe_sock *vs, bool *local, bool *unicast)
{
	struct sock *sk = vtoe_sock(vs);
	struct flowi4 fl4 = {
		.flowi4_oif = sk->sk_bound_dev_if,
		.flowi4_mark = sk->sk_mark,
		.flowi4_proto = IPPROTO_TCP,
		.flowi4_uid = sk->sk_uid,
		.fl4_dport = vs->remote.port,
		.fl4_sport = vs->local.port,
	};
	struct rtable *rt;

	memcpy(&fl4.daddr, vs->remote.addr, sizeof(fl4.daddr));
	if (vs->local.family == 4)
		memcpy(&fl4.saddr, vs->local.addr, sizeof(fl4.saddr));
	security_sk_classify_flow(sk, flowi4_to_flowi_common(&fl4));
	rt = ip_route_output_flow(sock_net(sk), &fl4, sk);
	if (IS_ERR(rt))
		return ERR_CAST(rt);
	*local = rt->rt_type == RTN_LOCAL;
	*unicast = rt->rt_type == RTN_UNICAST;
	vs->local.family = 4;
	memcpy(vs->local.addr, &fl4.saddr, sizeof(fl4.saddr));
	memcpy(vs->remote.addr, &fl4.daddr, sizeof(fl4.daddr)); /* was 0.0.0.0 */
	return &rt->dst;
}

static struct dst_entry *route6(struct vtoe_sock *vs, bool *local, bool *unicast)
{
	struct sock *sk = vtoe_sock(vs);
	struct flowi6 fl6 = {
		.flowi6_oif = sk->sk_bound_dev_if ?: le32_to_cpu(vs->remote.scope),
		.flowi6_mark = sk->sk_mark,
		.flowi6_proto = IPPROTO_TCP,
		.flowi6_uid = sk->sk_uid,
		.fl6_dport = vs->remote.port,
		.fl6_sport = vs->local.port,
	};
	struct dst_entry *dst;

	memcpy(&fl6.daddr, vs->remote.addr, sizeof(fl6.daddr));
	if (vs->local.family == 6)
		memcpy(&fl6.saddr, vs->local.addr, sizeof(fl6.saddr));
	if (ipv6_addr_any(&fl6.daddr)) /* as tcp_v6_connect() */
		fl6.daddr = in6addr_loopback;
	if (ipv6_addr_is_multicast(&fl6.daddr))
		return ERR_PTR(-ENETUNREACH);
	security_sk_classify_flow(sk, flowi6_to_flowi_common(&fl6));
	dst = vtoe_ip6_dst_lookup_flow(sock_net(sk), sk, &fl6, NULL);
	if (IS_ERR(dst))
		return dst;
	/* The route to a link-local address of ours is not over lo. */
	*local = container_of(dst, struct rt6_info, dst)->rt6i_flags & RTF_LOCAL ||
		 dst->dev->flags & IFF_LOOPBACK;
	*unicast = !*local;
	vs->local.family = 6;
	memcpy(vs->local.addr, &fl6.saddr, sizeof(fl6.saddr));
	memcpy(vs->remote.addr, &fl6.daddr, sizeof(fl6.daddr));
	if (ipv6_addr_type(&fl6.saddr) & IPV6_ADDR_LINKLOCAL)
		vs->local.scope = cpu_to_le32(dst->dev->ifindex);
	return dst;
}

/*
 * The device for a peer in this guest: that of the interface which has the
 * address, else (127.0.0.1, another interface's) any of the namespace, since
 * every listener is announced to all of them.
 */
static struct vtoe_dev *dev_to_self(struct vtoe_sock *vs, u32 *why_not)
{
	struct net *net = sock_net(vtoe_sock(vs));
	struct net_device *netdev;
	struct vtoe_dev *dev = NULL;

	rcu_read_lock();
	netdev = vtoe_addr_netdev(net, &vs->remote);
	if (netdev)
		dev = vtoe_dev_find(netdev, why_not);
	if (!dev)
		dev = vtoe_dev_any(net, why_not);
	if (dev)
		memcpy(vs->next_hop, dev->netdev->dev_addr, ETH_ALEN);
	rcu_read_unlock();
	return dev;
}

/* A link-local address says nothing without a link. As tcp_v6_connect() */
static bool has_link(const struct vtoe_sock *vs)
{
	const struct vtoe_addr *to = &vs->remote;
	u32 bound = vs->inet.sk.sk_bound_dev_if, scope = le32_to_cpu(to->scope);

	if (to->family != 6 || !(ipv6_addr_type((const void *)to->addr) & IPV6_ADDR_LINKLOCAL))
		return true;
	return bound && scope ? bound == scope : bound || scope;
}

/* Fills in vs->local, and vs->remote if it is 0.0.0.0 or [::]; the reason why not, or NONE. */
static u32 find_way(struct vtoe_sock *vs, struct way *way)
{
	u32 reason = VTOE_REASON_NO_DEVICE;
	bool unicast = false;

	way->dev = NULL;
	way->dst = NULL;
	way->local = false;
	if (!vs->remote.port || !has_link(vs))
		return VTOE_REASON_NO_DEVICE;
	if (vs->local.family && !vtoe_addr_any(&vs->local) &&
	    vs->local.family != vs->remote.family)
		return VTOE_REASON_ADDR_FAMILY;
	if (vtoe_sock(vs)->sk_family == AF_INET6 && vs->remote.family == 4 &&
	    ipv6_only_sock(vs->inner->sk))
		return VTOE_REASON_ADDR_FAMILY;

	way->dst = vs->remote.family == 4 ? route4(vs, &way->local, &unicast) :
					    route6(vs, &way->local, &unicast);
	if (IS_ERR(way->dst)) {
		way->dst = NULL;
		return VTOE_REASON_NO_DEVICE;
	}
	if (way->local)
		way->dev = dev_to_self(vs, &reason);
	else if (unicast)
		way->dev = vtoe_dev_find(way->dst->dev, &reason);
	if (!way->dev) {
		dst_release(way->dst);
		way->dst = NULL;
	}
	return way->dev ? VTOE_REASON_NONE : reason;
}

#define PORT_TRIES 8

static int bind_any_port(struct vtoe_sock *vs)
{
	struct sock *isk = vs->inner->sk;
	struct sockaddr_storage ss;
	u8 locks = isk->sk_userlocks;
	bool only6 = isk->sk_ipv6only;
	bool no_port = vtoe_bind_no_port(isk);
	int len, err;

	vs->local.port = 0;
	len = vtoe_addr_to_user(vtoe_sock(vs), &vs->local, &ss);
	vtoe_set_bind_no_port(isk, false);
	err = kernel_bind(vs->inner, (struct vtoe_sockaddr *)&ss, len);
	vtoe_set_bind_no_port(isk, no_port);
	isk->sk_userlocks = locks;
	isk->sk_ipv6only = only6;
	vs->local.port = inet_sk(isk)->inet_sport;
	return err;
}

/*
 * Takes a port, unless the program did, for the address that the route chose.
 * Neither is the program's choice: they go where those that TCP takes itself
 * would go (vtoe_inner_unbind, tcp_set_state). Never the one that is connected to:
 * TCP's connect() does not take what bind() would give a listener, and over it
 * the socket would connect to itself where there is none.
 */
static int take_port(struct vtoe_sock *vs)
{
	struct sock *isk = vs->inner->sk;
	int err, tries;

	if (inet_sk(isk)->inet_num) {
		vs->local.port = inet_sk(isk)->inet_sport;
		return 0;
	}
	for (tries = 0; tries < PORT_TRIES; tries++) {
		err = bind_any_port(vs);
		if (err || vs->local.port != vs->remote.port ||
		    !vtoe_addr_same_host(&vs->local, &vs->remote))
			return err;
		vtoe_inner_drop_port(isk);
	}
	vs->local.port = 0;
	return -EADDRNOTAVAIL;
}

static u32 give_connect(struct vtoe_sock *vs)
{
	vs->deadline = jiffies + VTOE_CONNECT_TIMEOUT;
	vtoe_work_in(vs, VTOE_CONNECT_TIMEOUT);
	return vtoe_cmd_connect(vs) ? VTOE_REASON_LIMIT : VTOE_REASON_NONE;
}

/* False: it is established in the meantime. */
static bool end_opening(struct vtoe_sock *vs)
{
	bool ended;

	vtoe_neigh_stop(vs);
	spin_lock_bh(&vs->lock);
	ended = vtoe_sock(vs)->sk_state == VTOE_SOCK_SYN_SENT;
	if (ended) {
		vs->failed = true;
		vtoe_set_state(vs, VTOE_SOCK_T_FAILED);
		vtoe_cmd_close(vs->conn, true);
		/* A peer that was quicker than CONNECT_ESTABLISHED: nobody reads it. */
		vtoe_rx_purge(vs);
		WRITE_ONCE(vs->rcv_nxt, vs->rx.consumed);
	}
	spin_unlock_bh(&vs->lock);
	return ended;
}

/*
 * Forgets an opening that failed, or a connection that connect(AF_UNSPEC)
 * ended. False: the agent has not answered its CLOSE.
 */
static bool forget_conn(struct vtoe_sock *vs)
{
	struct vtoe_sid *entry = vs->conn;

	if (!wait_var_event_timeout(&entry->gone, READ_ONCE(entry->gone), HZ))
		return false;
	WRITE_ONCE(vs->path, VNET_PATH_UNDECIDED);
	synchronize_rcu(); /* softirqs that found it, and sock_show() */
	spin_lock_bh(&vs->lock);
	vtoe_tx_purge(vs);
	vtoe_rx_purge(vs);
	memset(&vs->tx, 0, sizeof(vs->tx));
	vs->snd_nxt = 0;
	vs->snd_end = 0;
	vs->rcv_nxt = 0;
	WRITE_ONCE(vs->rx.consumed, 0);
	vs->rcv_final = U64_MAX;
	vs->urg = VTOE_URG_NONE;
	vs->want_told = false;
	vs->credit_owed = false;
	vs->conn = NULL;
	vs->cid = 0;
	vs->fabric = VTOE_FABRIC_NONE;
	vs->reason = VTOE_REASON_NONE;
	spin_unlock_bh(&vs->lock);
	vtoe_sid_put(entry);
	return true;
}

/*
 * A connection over TCP is over, or has not come to be: what is next decides
 * anew. Who still sees the old path finds a closed inner socket. lock_sock
 */
static void forget_path(struct socket *sock)
{
	struct sock *sk = sock->sk, *isk;
	struct vtoe_sock *vs = vtoe_sk(sk);

	if (!vtoe_is_tcp(vs) || sock->state != SS_UNCONNECTED ||
	    vs->inner->state != SS_UNCONNECTED)
		return;
	isk = vs->inner->sk;
	if (READ_ONCE(isk->sk_state) != TCP_CLOSE)
		return;
	if (READ_ONCE(vs->inner_err_copied)) {
		WRITE_ONCE(vs->inner_err_copied, false);
		WRITE_ONCE(isk->sk_err, 0);
	}
	WRITE_ONCE(sk->sk_shutdown, READ_ONCE(isk->sk_shutdown));
	vs->reason = VTOE_REASON_NONE;
	WRITE_ONCE(vs->path, VNET_PATH_UNDECIDED);
}

/* For bind() and listen(): what is left of an earlier connection goes. lock_sock */
int vtoe_renew(struct socket *sock)
{
	struct vtoe_sock *vs = vtoe_sk(sock->sk);

	forget_path(sock);
	if (vtoe_is_tcp(vs))
		return 0;
	if (vs->conn && (sock->state != SS_UNCONNECTED ||
			 vtoe_sock(vs)->sk_state != VTOE_SOCK_CLOSE))
		return -EINVAL;
	if (vs->conn && !forget_conn(vs)) /* its agent does not answer */
		return -EADDRINUSE;
	return vtoe_need_inner(vs);
}

/* lock_sock. NONE: SYN_SENT; else nothing has happened, and nothing shall if there is an *errno. */
static u32 start(struct vtoe_sock *vs, int *errno)
{
	struct vtoe_sid *entry;
	struct way way;
	u32 reason;
	int err;

	if (vs->mode == VNET_MODE_TCP)
		return VTOE_REASON_POLICY;
	if (vs->pinned)
		return vs->pinned;
	if (vs->conn && !forget_conn(vs)) /* an earlier one is still closing */
		return VTOE_REASON_LIMIT;
	vtoe_addr_of_inner(vs);
	if (vtoe_addr_any(&vs->local))
		vs->local.family = 0;
	reason = find_way(vs, &way);
	if (reason)
		return reason;

	reason = VTOE_REASON_LIMIT;
	err = take_port(vs);
	if (err)
		goto out;
	if (vs->inner->sk->sk_userlocks & SOCK_BINDPORT_LOCK && vtoe_sks_taken(vs)) {
		*errno = -EADDRNOTAVAIL;
		goto out;
	}
	reason = VTOE_REASON_FIREWALL;
	if (!vtoe_firewall_out(vs, way.dst))
		goto out;
	reason = VTOE_REASON_LIMIT;
	entry = vtoe_sid_create(vs, way.dev, GFP_KERNEL);
	if (!entry)
		goto out;
	reason = VTOE_REASON_NO_BUFFERS;
	WRITE_ONCE(vs->conn, entry);
	if (!vtoe_pool_open(way.dev, vs)) {
		WRITE_ONCE(vs->conn, NULL);
		vtoe_sid_remove(entry);
		vtoe_sid_put(entry);
		goto out;
	}
	vtoe_set_addrs(vs);
	vs->failed = false;
	spin_lock_bh(&vs->lock);
	vtoe_set_state(vs, VTOE_SOCK_T_CONNECT);
	spin_unlock_bh(&vs->lock);

	reason = VTOE_REASON_NONE;
	err = way.local ? 0 : vtoe_neigh_start(vs, way.dst, &vs->remote);
	if (!err) {
		reason = give_connect(vs);
	} else if (err == -EAGAIN) {
		vs->deadline = jiffies + VTOE_NEIGH_TIMEOUT;
		vtoe_work_in(vs, VTOE_NEIGH_TIMEOUT + 1);
	} else {
		reason = VTOE_REASON_NO_NEIGH;
	}
	if (reason)
		end_opening(vs);
out:
	dst_release(way.dst);
	vtoe_dev_put(way.dev);
	return reason;
}

/* Nothing establishes it any more. False: something has. */
static bool stop_opening(struct vtoe_sock *vs)
{
	bool stopped;

	spin_lock_bh(&vs->lock);
	stopped = vtoe_sock(vs)->sk_state == VTOE_SOCK_SYN_SENT;
	if (stopped)
		vs->failed = true;
	spin_unlock_bh(&vs->lock);
	return stopped;
}

/*
 * By the work: TCP from here on. The waiters see the path and go on there.
 * poll() and sendmsg() look without lock_sock: the inner socket connects before
 * they see the path, and the path and the error are there before SYN_SENT ends.
 * tests/model/fallback.pml is about this order.
 */
static void give_up(struct vtoe_sock *vs, u32 reason)
{
	struct sock *sk = vtoe_sock(vs);
	struct sockaddr_storage ss;
	int len, err;

	if (!stop_opening(vs))
		return;
	if (vtoe_may_fall_back(vs)) {
		len = vtoe_addr_to_user(sk, &vs->remote, &ss);
		err = vs->inner->ops->connect(vs->inner, (struct vtoe_sockaddr *)&ss, len,
					      O_NONBLOCK);
		if (err == -EINPROGRESS)
			err = 0;
		if (err)
			WRITE_ONCE(sk->sk_err, -err);
		vtoe_take_tcp(vs, reason);
		vtoe_inner_copy_err(vs); /* one that came before it was TCP's */
	} else {
		vs->reason = reason;
		err = vtoe_reason_errno(reason);
		WRITE_ONCE(sk->sk_err, -err);
	}
	end_opening(vs);
	if (err)
		sk_error_report(sk);
	sk->sk_state_change(sk);
}

void vtoe_connect_work(struct vtoe_sock *vs)
{
	u32 reason = VTOE_REASON_NONE;
	int err;

	if (READ_ONCE(vs->failed)) {
		reason = vs->fail_reason;
	} else if (vs->neigh) {
		err = vtoe_neigh_check(vs);
		if (!err) {
			vtoe_neigh_stop(vs);
			reason = give_connect(vs);
		} else if (err != -EAGAIN || time_after_eq(jiffies, vs->deadline)) {
			reason = VTOE_REASON_NO_NEIGH;
		} else {
			vtoe_work_in(vs, vs->deadline - jiffies);
		}
	} else if (time_after_eq(jiffies, vs->deadline)) {
		reason = VTOE_REASON_TIMEOUT;
	} else {
		vtoe_work_in(vs, vs->deadline - jiffies);
	}
	if (reason)
		give_up(vs, reason);
}

void vtoe_connect_failed(struct vtoe_sock *vs, u32 reason)
{
	spin_lock_bh(&vs->lock);
	if (vtoe_sock(vs)->sk_state == VTOE_SOCK_SYN_SENT && !vs->failed) {
		vs->fail_reason = reason ?: VTOE_REASON_PROTOCOL;
		WRITE_ONCE(vs->failed, true);
		vtoe_work_in(vs, 0);
	}
	spin_unlock_bh(&vs->lock);
}

void vtoe_connect_established(struct vtoe_sock *vs, const struct vtoe_event *ev)
{
	struct sock *sk = vtoe_sock(vs);
	bool ok = false, kick = false;

	spin_lock_bh(&vs->lock);
	if (sk->sk_state == VTOE_SOCK_SYN_SENT && !vs->failed) {
		ok = vtoe_tx_open(&vs->tx, ev->u.established.rwq_buf_size) &&
		     vtoe_tx_update(&vs->tx, &ev->u.established.credit, vs->snd_nxt);
	}
	if (ok) {
		vs->cid = le32_to_cpu(ev->cid);
		vs->fabric = le16_to_cpu(ev->u.established.fabric);
		WRITE_ONCE(vs->path, VNET_PATH_VTOE);
		vtoe_set_state(vs, VTOE_SOCK_T_ESTABLISHED);
		vtoe_rx_check_fin(vs);
		vtoe_work_cancel(vs);
		kick = vtoe_xmit(vs);
	}
	spin_unlock_bh(&vs->lock);
	if (!ok) {
		vtoe_connect_failed(vs, VTOE_REASON_PROTOCOL);
		return;
	}
	if (kick)
		vtoe_kick_swq(vs->conn->dev);
	vtoe_count(sk, VTOE_STAT_ACTIVE);
	sk->sk_state_change(sk);
	sk_wake_async(sk, SOCK_WAKE_IO, POLL_OUT);
}

int vtoe_bind(struct socket *sock, struct vtoe_sockaddr *uaddr, int len)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);
	int err;

	lock_sock(sk);
	err = vtoe_renew(sock);
	if (!err) {
		vtoe_sync_options(vs);
		err = vs->inner->ops->bind(vs->inner, uaddr, len);
		if (!err) {
			vtoe_addr_of_inner(vs);
			vtoe_set_addrs(vs);
		}
	}
	release_sock(sk);
	return err;
}

static int inner_connect(struct socket *sock, struct vtoe_sockaddr *uaddr, int len, int flags)
{
	struct vtoe_sock *vs = vtoe_sk(sock->sk);
	int err;

	/* What give_up() found stands for the first attempt. */
	if (vs->inner->state == SS_UNCONNECTED && sock->state == SS_CONNECTING) {
		err = sock_error(sock->sk);
		if (err) {
			sock->state = SS_UNCONNECTED;
			return err;
		}
	}
	vtoe_inner_sync_err(vs, 0);
	err = vs->inner->ops->connect(vs->inner, uaddr, len, flags);
	vtoe_inner_sync_err(vs, err);
	sock->state = vs->inner->state;
	if (!err || err == -EINPROGRESS)
		vtoe_inner_named(vs);
	return err;
}

/* Until it is no longer SYN_SENT; 0 or a signal's or the time limit's errno. */
static int wait_connected(struct sock *sk, long timeo)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	int err = 0;

	/* A later connect() that does not wait learns how the first ended. */
	if (sk->sk_state != VTOE_SOCK_SYN_SENT)
		return 0;
	if (!timeo)
		return -EINPROGRESS;
	add_wait_queue(sk_sleep(sk), &wait);
	while (sk->sk_state == VTOE_SOCK_SYN_SENT) {
		release_sock(sk);
		timeo = wait_woken(&wait, TASK_INTERRUPTIBLE, timeo);
		lock_sock(sk);
		if (sk->sk_state != VTOE_SOCK_SYN_SENT)
			break;
		if (signal_pending(current))
			err = sock_intr_errno(timeo);
		else if (!timeo)
			err = -EINPROGRESS;
		if (err)
			break;
	}
	remove_wait_queue(sk_sleep(sk), &wait);
	return err;
}

/*
 * The programs of BPF that a cgroup has for connect(): they may refuse, and
 * change the address. TCP, if it comes to that, asks them itself, again, with
 * the address that the program gave. lock_sock
 */
static int ask_cgroup(struct vtoe_sock *vs, const struct vtoe_sockaddr *uaddr, int len)
{
	struct sock *isk = vs->inner->sk;
	struct sockaddr_storage ss;
	int err = 0;

	if (!isk->sk_prot->pre_connect)
		return 0;
	len = min_t(int, len, sizeof(ss));
	memcpy(&ss, uaddr, len);
	lock_sock(isk);
	err = isk->sk_prot->pre_connect(isk, (struct vtoe_sockaddr *)&ss, len);
	release_sock(isk);
	return err ?: vtoe_addr_from_user(vtoe_sock(vs), (struct vtoe_sockaddr *)&ss, len,
					  &vs->remote);
}

/* lock_sock; path is not TCP */
static int connect_locked(struct socket *sock, struct vtoe_sockaddr *uaddr, int len, int flags,
			  bool *use_inner, bool *first)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);
	int disconnects = sk->sk_disconnects;
	u32 reason;
	int err;

	*first = false;
	switch (sock->state) {
	case SS_UNCONNECTED:
		if (sk->sk_state != VTOE_SOCK_CLOSE)
			return -EISCONN;
		err = vtoe_need_inner(vs); /* a child, disconnected */
		if (err)
			return err;
		/* What is wrong with the address, TCP says. */
		if (vtoe_addr_from_user(sk, uaddr, len, &vs->remote)) {
			*use_inner = true;
			return 0;
		}
		err = ask_cgroup(vs, uaddr, len);
		if (err)
			return err;
		*first = true;
		WRITE_ONCE(sk->sk_err, 0); /* an earlier connection's */
		vtoe_sync_options(vs);
		reason = start(vs, &err);
		if (err)
			return err;
		if (reason && vtoe_may_fall_back(vs)) {
			vtoe_take_tcp(vs, reason);
			sock->state = SS_CONNECTING; /* no other thread's forget_path() */
			*use_inner = true;
			return 0;
		}
		if (reason) {
			vtoe_inner_unbind(vs);
			vs->reason = reason;
			return vtoe_reason_errno(reason);
		}
		sock->state = SS_CONNECTING;
		break;
	case SS_CONNECTING:
		break;
	case SS_CONNECTED:
		return -EISCONN;
	default:
		return -EINVAL;
	}

	/* However fast it was: with TCP nobody is connected before he has asked again. */
	if (*first && flags & O_NONBLOCK)
		return -EINPROGRESS;
	err = wait_connected(sk, sock_sndtimeo(sk, flags & O_NONBLOCK));
	*use_inner = vtoe_is_tcp(vs);
	if (*use_inner)
		return 0;
	if (disconnects != sk->sk_disconnects)
		return -EPIPE;
	if (err)
		return err == -EINPROGRESS && !*first ? -EALREADY : err;
	if (sk->sk_state == VTOE_SOCK_CLOSE) {
		sock->state = SS_UNCONNECTED;
		err = sock_error(sk) ?: -ECONNABORTED;
		vtoe_disconnect(vs);
		return err;
	}
	sock->state = SS_CONNECTED;
	return 0;
}

int vtoe_connect(struct socket *sock, struct vtoe_sockaddr *uaddr, int len, int flags)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);
	bool use_inner, first = false;
	int err = 0;

	if (len < (int)sizeof(uaddr->sa_family))
		return -EINVAL;
	lock_sock(sk);
	/* From a port of its own it may try a simultaneous open: with TCP's timing. */
	if (uaddr->sa_family != AF_UNSPEC && vs->inner &&
	    !(vs->inner->sk->sk_userlocks & SOCK_BINDPORT_LOCK))
		forget_path(sock);
	use_inner = vtoe_is_tcp(vs);
	if (!use_inner && uaddr->sa_family == AF_UNSPEC) {
		if (vs->conn) {
			sk->sk_disconnects++; /* who waits for it is told: EPIPE */
			vtoe_disconnect(vs);
			sock->state = SS_UNCONNECTED;
		} else {
			if (sk->sk_state == VTOE_SOCK_LISTEN)
				vtoe_unlisten(vs);
			WRITE_ONCE(sk->sk_shutdown, 0); /* of one that was not connected */
			use_inner = vs->inner;
		}
	} else if (!use_inner) {
		err = connect_locked(sock, uaddr, len, flags, &use_inner, &first);
	}
	release_sock(sk);
	if (!use_inner)
		return err;
	err = inner_connect(sock, uaddr, len, flags);
	/* The inner one was begun by give_up(), but in this call. */
	return err == -EALREADY && first ? -EINPROGRESS : err;
}
