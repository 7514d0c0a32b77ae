// SPDX-License-Identifier: GPL-2.0-only
/*
 * Listeners. The inner socket listens for TCP peers; on every device that is
 * up, SOCKET, BIND and LISTEN announce the listener, again for each new epoch
 * of a device. A dual-stack listener is announced twice, as [::] and 0.0.0.0.
 *
 * CONNECT_REQUEST (softirq) makes a child in SYN_RECV and answers ACCEPT; when
 * that is answered the child is established and goes to the accept queue.
 * accept() takes from that queue and from the inner listener's, in turn while
 * both have something.
 */
#include "vtoe.h"

#include <linux/cgroup.h>
#include <linux/etherdevice.h>
#include <linux/security.h>
#include <net/inet_connection_sock.h>
#include <net/ipv6.h>

static LIST_HEAD(all_listeners); /* vtoe_devs_mutex */

static void announce_as(struct vtoe_sock *vs, struct vtoe_dev *dev,
			const struct vtoe_addr *local)
{
	struct vtoe_sid *entry = vtoe_sid_create(vs, dev, GFP_KERNEL);
	u32 backlog = vtoe_sock(vs)->sk_max_ack_backlog + 1; /* TCP lets in one more */

	if (!entry)
		return;
	entry->listener = true;
	list_add_tail(&entry->node, &vs->announced);
	if (vtoe_cmd_announce(entry, local, backlog)) {
		spin_lock_bh(&vs->lock);
		vtoe_cmd_close(entry, true);
		spin_unlock_bh(&vs->lock);
	}
}

static void forget(struct vtoe_sock *vs, struct vtoe_dev *dev)
{
	struct vtoe_sid *entry, *next;

	list_for_each_entry_safe(entry, next, &vs->announced, node) {
		if (entry->dev != dev)
			continue;
		list_del_init(&entry->node);
		vtoe_sid_put(entry);
	}
}

/* vtoe_devs_mutex; LISTEN */
static void announce(struct vtoe_sock *vs, struct vtoe_dev *dev)
{
	struct sock *sk = vtoe_sock(vs);
	struct vtoe_addr local = vs->local;
	struct vtoe_sid *entry;

	if (!READ_ONCE(dev->ready) || !net_eq(dev_net(dev->netdev), sock_net(sk)))
		return;
	if (sk->sk_bound_dev_if && sk->sk_bound_dev_if != dev->netdev->ifindex)
		return;
	list_for_each_entry(entry, &vs->announced, node)
		if (entry->dev == dev && vtoe_epoch_ok(entry))
			return;
	forget(vs, dev); /* what is of an earlier epoch */
	announce_as(vs, dev, &local);
	if (local.family == 6 && vtoe_addr_any(&local) && !sk->sk_ipv6only) {
		local.family = 4;
		announce_as(vs, dev, &local);
	}
}

/* A device came up, with a new epoch. vtoe_devs_mutex */
void vtoe_announce_all(struct vtoe_dev *dev)
{
	struct vtoe_sock *vs;

	list_for_each_entry(vs, &all_listeners, listeners)
		if (READ_ONCE(vtoe_sock(vs)->sk_state) == VTOE_SOCK_LISTEN)
			announce(vs, dev);
}

static void withdraw(struct vtoe_sock *vs, struct vtoe_dev *dev)
{
	struct vtoe_sid *entry;

	spin_lock_bh(&vs->lock);
	list_for_each_entry(entry, &vs->announced, node)
		if (entry->dev == dev)
			vtoe_cmd_close(entry, false);
	spin_unlock_bh(&vs->lock);
	forget(vs, dev);
}

/* To another network namespace, with all that listens there. vtoe_devs_mutex */
void vtoe_announce_moved(struct vtoe_dev *dev)
{
	struct vtoe_sock *vs;

	list_for_each_entry(vs, &all_listeners, listeners)
		if (!net_eq(dev_net(dev->netdev), sock_net(vtoe_sock(vs))))
			withdraw(vs, dev);
	vtoe_announce_all(dev);
}

/* lock_sock; LISTEN */
static void announce_everywhere(struct vtoe_sock *vs)
{
	struct vtoe_dev *dev;

	mutex_lock(&vtoe_devs_mutex);
	if (list_empty(&vs->listeners)) /* not so after shutdown() */
		list_add_tail(&vs->listeners, &all_listeners);
	list_for_each_entry(dev, &vtoe_devs, node)
		announce(vs, dev);
	mutex_unlock(&vtoe_devs_mutex);
}

int vtoe_listen(struct socket *sock, int backlog)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);
	int err;

	lock_sock(sk);
	err = vtoe_renew(sock);
	if (err)
		goto out;
	vtoe_sync_options(vs);
	vtoe_inner_set_file(vs);
	err = vs->inner->ops->listen(vs->inner, backlog);
	if (err || vtoe_is_tcp(vs))
		goto out;
	WRITE_ONCE(sk->sk_max_ack_backlog, vs->inner->sk->sk_max_ack_backlog);
	sk->sk_ipv6only = vs->inner->sk->sk_ipv6only;
	/* What a child keeps of its address when it is disconnected. */
	sk->sk_userlocks |= vs->inner->sk->sk_userlocks & SOCK_BINDADDR_LOCK;
	if (sk->sk_state == VTOE_SOCK_CLOSE) {
		vtoe_addr_of_inner(vs);
		vtoe_set_addrs(vs);
		spin_lock_bh(&vs->lock);
		vtoe_set_state(vs, VTOE_SOCK_T_LISTEN);
		spin_unlock_bh(&vs->lock);
		if (vs->mode != VNET_MODE_TCP && !vs->pinned)
			announce_everywhere(vs);
	}
out:
	release_sock(sk);
	return err;
}

/* A child that nobody will accept. */
static void drop_child(struct sock *child)
{
	struct vtoe_sock *vs = vtoe_sk(child);

	vtoe_reset(vs, VTOE_REASON_RESET);
	sock_orphan(child);
	sock_put(child);
}

/* lock_sock; the socket is taken out of all_listeners already, or will be */
void vtoe_unlisten(struct vtoe_sock *vs)
{
	struct vtoe_sid *entry, *next;
	struct vtoe_sock *child, *tmp;
	LIST_HEAD(children);

	mutex_lock(&vtoe_devs_mutex);
	spin_lock_bh(&vs->lock);
	vtoe_set_state(vs, VTOE_SOCK_T_UNLISTEN);
	list_splice_init(&vs->accept_queue, &children);
	list_for_each_entry(child, &children, accept_node)
		vs->accept_len--; /* those under way give their places back themselves */
	list_for_each_entry(entry, &vs->announced, node)
		vtoe_cmd_close(entry, false);
	spin_unlock_bh(&vs->lock);

	list_for_each_entry_safe(entry, next, &vs->announced, node) {
		list_del_init(&entry->node);
		vtoe_sid_put(entry);
	}
	mutex_unlock(&vtoe_devs_mutex);
	list_for_each_entry_safe(child, tmp, &children, accept_node) {
		list_del_init(&child->accept_node);
		drop_child(vtoe_sock(child));
	}
}

/* Interrupts make sockets of the root group; the references are those that go with the socket. */
static void inherit_cgroup(struct sock *sk, const struct sock *from)
{
#ifdef CONFIG_SOCK_CGROUP_DATA
	struct sock_cgroup_data data = from->sk_cgrp_data;
	struct cgroup *old = sock_cgroup_ptr(&sk->sk_cgrp_data);
	struct cgroup *new = sock_cgroup_ptr(&data);

	cgroup_get(new);
	cgroup_bpf_get(new);
	sk->sk_cgrp_data = data;
	cgroup_bpf_put(old);
	cgroup_put(old);
#endif
}

/* What TCP's sk_clone() would have given the child. */
static void inherit(struct vtoe_sock *child, struct vtoe_sock *listener)
{
	static const enum sock_flags inherited[] = {
		SOCK_LINGER, SOCK_KEEPOPEN, SOCK_URGINLINE, SOCK_ZEROCOPY,
		SOCK_DBG, SOCK_LOCALROUTE, SOCK_BROADCAST, SOCK_RXQ_OVFL,
		SOCK_WIFI_STATUS, SOCK_NOFCS, SOCK_SELECT_ERR_QUEUE,
		SOCK_FILTER_LOCKED, SOCK_RCVMARK,
	};
	struct sock *sk = vtoe_sock(child);
	const struct sock *from = &listener->inet.sk;
	unsigned int i;

	sk->sk_sndbuf = from->sk_sndbuf;
	sk->sk_rcvbuf = from->sk_rcvbuf;
	sk->sk_rcvlowat = from->sk_rcvlowat;
	sk->sk_rcvtimeo = from->sk_rcvtimeo;
	sk->sk_sndtimeo = from->sk_sndtimeo;
	sk->sk_userlocks = from->sk_userlocks;
	sk->sk_reuse = from->sk_reuse;
	sk->sk_reuseport = from->sk_reuseport;
	sk->sk_bound_dev_if = from->sk_bound_dev_if;
	sk->sk_lingertime = from->sk_lingertime;
	sk->sk_max_pacing_rate = from->sk_max_pacing_rate;
	sk->sk_peek_off = READ_ONCE(from->sk_peek_off);
	sk->sk_txrehash = from->sk_txrehash;
	sk->sk_no_check_tx = from->sk_no_check_tx;
	for (i = 0; i < ARRAY_SIZE(inherited); i++)
		if (sock_flag(from, inherited[i]))
			sock_set_flag(sk, inherited[i]);
#ifdef CONFIG_NET_RX_BUSY_POLL
	sk->sk_ll_usec = from->sk_ll_usec;
	sk->sk_prefer_busy_poll = from->sk_prefer_busy_poll;
	sk->sk_busy_poll_budget = from->sk_busy_poll_budget;
#endif
	inherit_cgroup(sk, from);
	child->mode = listener->mode;
	child->nodelay = listener->nodelay;
	child->cork = listener->cork;
	child->quickack = listener->quickack;
	child->keepidle = listener->keepidle;
	child->keepintvl = listener->keepintvl;
	child->keepcnt = listener->keepcnt;
	child->user_timeout = listener->user_timeout;
	child->defer = listener->defer;
	/* Of the others what an inner socket, if it ever gets one, begins with. */
	sk->sk_ipv6only = from->sk_ipv6only;
	child->inet.tos = listener->inet.tos;
	child->inet.uc_ttl = listener->inet.uc_ttl;
	child->as_tcp.rx_opt.user_mss = listener->as_tcp.rx_opt.user_mss;
	child->as_tcp.recvmsg_inq = listener->as_tcp.recvmsg_inq;
	child->as_tcp.notsent_lowat = READ_ONCE(listener->as_tcp.notsent_lowat);
	vtoe_told_inherit(child, listener);
	security_sk_clone(from, sk);
}

/* NONE: a place in the backlog is taken. */
static u32 take_place(struct vtoe_sock *vs)
{
	struct sock *sk = vtoe_sock(vs);
	u32 reason = VTOE_REASON_NO_LISTENER, len;

	spin_lock_bh(&vs->lock);
	/* The inner socket is there as long as we are LISTEN. */
	if (sk->sk_state == VTOE_SOCK_LISTEN) {
		len = vs->accept_len + READ_ONCE(vs->inner->sk->sk_ack_backlog);
		if (len > READ_ONCE(sk->sk_max_ack_backlog)) {
			reason = VTOE_REASON_BACKLOG;
		} else {
			reason = VTOE_REASON_NONE;
			vs->accept_len++;
		}
	}
	spin_unlock_bh(&vs->lock);
	return reason;
}

static void give_place(struct vtoe_sock *vs)
{
	spin_lock_bh(&vs->lock);
	if (vs->accept_len)
		vs->accept_len--;
	spin_unlock_bh(&vs->lock);
}

static u32 make_child(struct vtoe_dev *dev, struct vtoe_sock *listener,
		      const struct vtoe_event *ev)
{
	struct sock *lsk = vtoe_sock(listener), *sk;
	struct vtoe_sid *entry;
	struct vtoe_sock *vs;
	u32 class;

	sk = vtoe_sk_alloc(sock_net(lsk), lsk->sk_family, GFP_ATOMIC, 0);
	if (!sk)
		return VTOE_REASON_LIMIT;
	vs = vtoe_sk(sk);
	inherit(vs, listener);
	vs->local = ev->u.request.local;
	vs->remote = ev->u.request.remote;
	vs->local.scope = 0;
	vs->remote.scope = 0;
	if (vs->local.family == 6 &&
	    ipv6_addr_type((void *)vs->local.addr) & IPV6_ADDR_LINKLOCAL) {
		vs->local.scope = cpu_to_le32(dev->netdev->ifindex);
		vs->remote.scope = vs->local.scope;
		if (!sk->sk_bound_dev_if)
			sk->sk_bound_dev_if = dev->netdev->ifindex;
	}
	vtoe_set_addrs(vs);
	vs->cid = le32_to_cpu(ev->cid);
	if (!vtoe_tx_open(&vs->tx, ev->u.request.rwq_buf_size) ||
	    !vtoe_tx_update(&vs->tx, &ev->u.request.credit, 0)) {
		class = VTOE_REASON_PROTOCOL;
		goto err_sk;
	}
	class = VTOE_REASON_LIMIT;
	entry = vtoe_sid_create(vs, dev, GFP_ATOMIC);
	if (!entry)
		goto err_sk;
	vs->conn = entry;
	class = VTOE_REASON_NO_BUFFERS;
	if (!vtoe_pool_open(dev, vs))
		goto err_sid;
	vs->listener = lsk;
	sock_hold(lsk);
	vs->path = VNET_PATH_VTOE;
	spin_lock_bh(&vs->lock);
	vtoe_set_state(vs, VTOE_SOCK_T_REQUEST);
	spin_unlock_bh(&vs->lock);
	/* The first reference is that of the answer, then of the accept queue. */
	if (!vtoe_cmd_accept(entry, vs->cid))
		return VTOE_REASON_NONE;

	class = VTOE_REASON_LIMIT;
	vs->listener = NULL;
	sock_put(lsk);
	spin_lock_bh(&vs->lock);
	if (sk->sk_state == VTOE_SOCK_SYN_RECV)
		vtoe_set_state(vs, VTOE_SOCK_T_FAILED);
	vtoe_cmd_close(entry, true); /* never given to the agent */
	spin_unlock_bh(&vs->lock);
	goto err_sk;
err_sid:
	vs->conn = NULL;
	vtoe_sid_remove(entry);
	vtoe_sid_put(entry);
err_sk:
	sock_orphan(sk);
	sock_put(sk);
	return class;
}

/* The agent vouches for the MAC: nobody but the VM that has it can ask with it. */
static bool comes_from_us(const struct vtoe_dev *dev, const struct vtoe_event *ev)
{
	return ether_addr_equal(ev->u.request.remote_mac, dev->netdev->dev_addr);
}

void vtoe_connect_request(struct vtoe_dev *dev, struct vtoe_sid *entry,
			  const struct vtoe_event *ev)
{
	struct vtoe_sock *vs = entry->vs;
	struct sock *sk = vtoe_sock(vs);
	const struct vtoe_addr *local = &ev->u.request.local;
	u32 reason;

	if ((local->family != 4 && local->family != 6) ||
	    local->family != ev->u.request.remote.family) {
		reason = VTOE_REASON_ADDR_FAMILY;
	} else if (!net_eq(dev_net(dev->netdev), sock_net(sk))) {
		reason = VTOE_REASON_NOT_LOCAL; /* the device was moved since */
	} else if (READ_ONCE(vs->pinned)) {
		reason = VTOE_REASON_OPTION; /* since it listens */
	} else if (local->port != vs->local.port ||
		   (local->family == 4 && sk->sk_family == AF_INET6 && ipv6_only_sock(sk))) {
		reason = VTOE_REASON_NO_LISTENER; /* the agent tries [::] for IPv4, too */
	} else if (sk->sk_bound_dev_if && comes_from_us(dev, ev) &&
		   !vtoe_addr_is_on(sock_net(sk), dev->netdev, local)) {
		reason = VTOE_REASON_NO_LISTENER; /* TCP would come over lo */
	} else if (!comes_from_us(dev, ev) &&
		   vtoe_addr_is_martian(sock_net(sk), dev->netdev, local,
					&ev->u.request.remote)) {
		reason = VTOE_REASON_NOT_LOCAL;
	} else if (!vtoe_addr_is_local(sock_net(sk), dev->netdev, local) ||
		   (!vtoe_addr_any(&vs->local) && !vtoe_addr_same_host(local, &vs->local))) {
		reason = VTOE_REASON_NOT_LOCAL;
	} else if (!vtoe_firewall_in(sk, dev, ev)) {
		reason = VTOE_REASON_FIREWALL;
	} else {
		reason = take_place(vs);
		if (!reason) {
			reason = make_child(dev, vs, ev);
			if (reason)
				give_place(vs);
		}
	}
	if (reason) {
		vtoe_count(sk, VTOE_STAT_REJECTS);
		vtoe_cmd_reject(dev, le32_to_cpu(ev->cid), reason);
	}
}

/* To the accept queue, or not. The child's own reference is ours. */
static void queue_child(struct vtoe_sock *vs, bool good)
{
	struct sock *sk = vtoe_sock(vs), *lsk = vs->listener;
	struct vtoe_sock *listener = vtoe_sk(lsk);
	bool queued = false;

	vs->listener = NULL;
	/* One that was reset since is still accepted, as in TCP. */
	spin_lock_bh(&listener->lock);
	if (good && lsk->sk_state == VTOE_SOCK_LISTEN) {
		list_add_tail(&vs->accept_node, &listener->accept_queue);
		queued = true;
	} else if (listener->accept_len) {
		listener->accept_len--;
	}
	spin_unlock_bh(&listener->lock);
	if (queued) {
		vtoe_count(sk, VTOE_STAT_PASSIVE);
		lsk->sk_data_ready(lsk);
	} else {
		drop_child(sk);
	}
	sock_put(lsk);
}

/* Nobody waits any more for its first bytes: they are here, or time is over. */
void vtoe_child_ready(struct vtoe_sock *vs, bool good)
{
	bool deferred;

	spin_lock_bh(&vs->lock);
	deferred = vs->deferred;
	WRITE_ONCE(vs->deferred, false);
	spin_unlock_bh(&vs->lock);
	if (deferred) {
		vtoe_work_cancel(vs); /* nobody else needs it of a child that is not accepted */
		queue_child(vs, good);
	}
}

/* ACCEPT was answered. */
void vtoe_child_answered(struct vtoe_sock *vs, u32 status)
{
	struct sock *sk = vtoe_sock(vs);
	u32 seconds = 0;

	spin_lock_bh(&vs->lock);
	if (sk->sk_state == VTOE_SOCK_SYN_RECV) {
		if (status) {
			vtoe_set_state(vs, VTOE_SOCK_T_FAILED);
			vtoe_cmd_close(vs->conn, true);
		} else {
			vtoe_set_state(vs, VTOE_SOCK_T_ESTABLISHED);
			vtoe_rx_check_fin(vs);
		}
	}
	if (!status)
		seconds = vs->defer;
	if (seconds && !vs->rcv_nxt && vs->rcv_final == U64_MAX &&
	    sk->sk_state == VTOE_SOCK_ESTABLISHED) {
		WRITE_ONCE(vs->deferred, true);
		vtoe_work_in(vs, seconds * HZ);
	} else {
		seconds = 0;
	}
	spin_unlock_bh(&vs->lock);
	if (!seconds)
		queue_child(vs, !status);
}

static struct sock *dequeue_child(struct vtoe_sock *vs)
{
	struct vtoe_sock *child;

	spin_lock_bh(&vs->lock);
	child = list_first_entry_or_null(&vs->accept_queue, struct vtoe_sock, accept_node);
	if (child) {
		list_del_init(&child->accept_node);
		vs->accept_len--;
	}
	spin_unlock_bh(&vs->lock);
	return child ? vtoe_sock(child) : NULL;
}

/* A connection that came over plain TCP, as a socket of ours. */
static struct sock *accept_inner(struct vtoe_sock *vs)
{
	struct sock *lsk = vtoe_sock(vs), *sk;
	struct vtoe_sock *child;
	struct socket *inner;
	int err;

	/* kernel_accept() makes a socket before it looks. */
	if (vs->inner->sk->sk_state == TCP_LISTEN &&
	    reqsk_queue_empty(&inet_csk(vs->inner->sk)->icsk_accept_queue))
		return ERR_PTR(-EAGAIN);
	err = kernel_accept(vs->inner, &inner, O_NONBLOCK);
	if (err)
		return ERR_PTR(err);
	sk = vtoe_sk_alloc(sock_net(lsk), lsk->sk_family, GFP_KERNEL, 0);
	if (!sk) {
		/* Our callbacks without a socket, as before accept(): harmless. */
		sock_release(inner);
		return ERR_PTR(-ENOBUFS);
	}
	child = vtoe_sk(sk);
	inherit(child, vs);
	child->reason = VTOE_REASON_PEER_NO_VTOE;
	child->path = VNET_PATH_TCP;
	vtoe_inner_adopt(child, inner, vs);
	vtoe_addr_of_inner(child);
	vtoe_set_addrs(child);
	vtoe_count(sk, VTOE_STAT_ACCEPT_TCP);
	return sk;
}

static struct sock *accept_any(struct vtoe_sock *vs)
{
	struct sock *child;

	vs->accept_turn = !vs->accept_turn;
	if (vs->accept_turn) {
		child = dequeue_child(vs);
		return child ?: accept_inner(vs);
	}
	child = accept_inner(vs);
	if (child == ERR_PTR(-EAGAIN))
		child = dequeue_child(vs) ?: child;
	return child;
}

/* One that is pinned to TCP listens there alone. */
static bool is_listening(const struct vtoe_sock *vs)
{
	return vtoe_is_tcp(vs) ? vs->inner->sk->sk_state == TCP_LISTEN :
				 vs->inet.sk.sk_state == VTOE_SOCK_LISTEN;
}

int vtoe_accept(struct socket *sock, struct socket *newsock, VTOE_ACCEPT_ARGS)
{
	struct sock *sk = sock->sk, *child;
	struct vtoe_sock *vs = vtoe_sk(sk);
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	long timeo;
	int err = 0;

	lock_sock(sk);
	timeo = sock_rcvtimeo(sk, vtoe_accept_flags & O_NONBLOCK);
	/* Listed before looking, so that no wake-up falls in between. */
	if (timeo)
		add_wait_queue_exclusive(sk_sleep(sk), &wait);
	for (;;) {
		if (!is_listening(vs)) {
			err = -EINVAL;
			break;
		}
		child = accept_any(vs);
		if (child != ERR_PTR(-EAGAIN)) {
			err = PTR_ERR_OR_ZERO(child);
			break;
		}
		if (!timeo) {
			err = -EAGAIN;
			break;
		}
		if (signal_pending(current)) {
			err = sock_intr_errno(timeo);
			break;
		}
		release_sock(sk);
		timeo = wait_woken(&wait, TASK_INTERRUPTIBLE, timeo);
		lock_sock(sk);
	}
	if (!list_empty(&wait.entry))
		remove_wait_queue(sk_sleep(sk), &wait);
	release_sock(sk);
	if (err)
		return err;

	lock_sock(child);
	sock_graft(child, newsock);
	if (vtoe_sk(child)->inner)
		vtoe_inner_set_file(vtoe_sk(child));
	newsock->state = SS_CONNECTED;
	vtoe_socket_init(newsock);
	release_sock(child);
	return 0;
}
