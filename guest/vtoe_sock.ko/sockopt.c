// SPDX-License-Identifier: GPL-2.0-only
/*
 * Options. SOL_SOCKET is set on our socket and on the inner one (that is what
 * SOCK_CUSTOM_SOCKOPT is for) and read by the core from ours. IP, IPV6 and TCP
 * options live in the inner socket, which checks and remembers them; a child
 * that has none gets one when a program first touches an option beyond the few
 * kept here. Options that would change what is on the wire pin the socket to
 * TCP, with the reason "option", or are refused once it is offloaded.
 */
#include "vtoe.h"

#include <linux/in6.h>
#include <linux/tcp.h>
#include <linux/uaccess.h>
#include <net/tcp.h>
#include <net/transp_v6.h>

/* One of the options kept in struct vtoe_sock, or NULL. */
static bool *bool_option(struct vtoe_sock *vs, int optname)
{
	switch (optname) {
	case TCP_NODELAY:
		return &vs->nodelay;
	case TCP_CORK:
		return &vs->cork;
	case TCP_QUICKACK:
		return &vs->quickack;
	}
	return NULL;
}

/* What such a number may be, and what it is if it was not set. */
struct limits {
	int dflt, min, max;
};

static int *int_option(struct vtoe_sock *vs, int optname, struct limits *limits)
{
	const struct netns_ipv4 *net = &sock_net(vtoe_sock(vs))->ipv4;

	switch (optname) {
	case TCP_KEEPIDLE:
		*limits = (struct limits){ READ_ONCE(net->sysctl_tcp_keepalive_time) / HZ,
					   1, MAX_TCP_KEEPIDLE };
		return &vs->keepidle;
	case TCP_KEEPINTVL:
		*limits = (struct limits){ READ_ONCE(net->sysctl_tcp_keepalive_intvl) / HZ,
					   1, MAX_TCP_KEEPINTVL };
		return &vs->keepintvl;
	case TCP_KEEPCNT:
		*limits = (struct limits){ READ_ONCE(net->sysctl_tcp_keepalive_probes),
					   1, MAX_TCP_KEEPCNT };
		return &vs->keepcnt;
	case TCP_USER_TIMEOUT:
		*limits = (struct limits){ 0, 0, INT_MAX };
		return &vs->user_timeout;
	}
	return NULL;
}

static bool pins(int level, int optname)
{
	switch (level) {
	case SOL_SOCKET:
		switch (optname) {
		case SO_MARK:
		case SO_TXTIME:
		case SO_ATTACH_FILTER:
		case SO_ATTACH_BPF:
		case SO_ATTACH_REUSEPORT_CBPF:
		case SO_ATTACH_REUSEPORT_EBPF:
		case SO_TIMESTAMP_OLD:
		case SO_TIMESTAMP_NEW:
		case SO_TIMESTAMPNS_OLD:
		case SO_TIMESTAMPNS_NEW:
		case SO_TIMESTAMPING_OLD:
		case SO_TIMESTAMPING_NEW:
			return true;
		}
		return false;
	case SOL_IP:
		return optname == IP_TRANSPARENT || optname == IP_OPTIONS || optname == IP_MINTTL ||
		       optname == IP_IPSEC_POLICY || optname == IP_XFRM_POLICY;
	case SOL_IPV6:
		return optname == IPV6_TRANSPARENT || optname == IPV6_HOPOPTS ||
		       optname == IPV6_DSTOPTS || optname == IPV6_RTHDR ||
		       optname == IPV6_MINHOPCOUNT ||
		       optname == IPV6_IPSEC_POLICY || optname == IPV6_XFRM_POLICY;
	case SOL_TCP:
		return optname == TCP_MD5SIG || optname == TCP_MD5SIG_EXT ||
		       optname == TCP_ULP || optname == TCP_REPAIR ||
		       optname == TCP_FASTOPEN_CONNECT || optname == TCP_SAVE_SYN ||
		       optname == VTOE_TCP_AO_ADD_KEY;
	}
	return false;
}

/* It would change the wire, or have somebody wait in vain, and the connection is offloaded. */
static bool too_late(const struct vtoe_sock *vs, int level, int optname)
{
	/* What came with a message, and does not come then, nobody waits for. */
	if (level == SOL_SOCKET &&
	    (optname == SO_TIMESTAMP_OLD || optname == SO_TIMESTAMP_NEW ||
	     optname == SO_TIMESTAMPNS_OLD || optname == SO_TIMESTAMPNS_NEW))
		return false;
	return pins(level, optname) && !vtoe_is_tcp(vs) && READ_ONCE(vs->conn);
}

/*
 * What the program has set that the inner socket alone knows: for children,
 * which begin without one. It never changes: another takes its place.
 */
struct vtoe_told {
	refcount_t ref;
	u32 n;
	struct {
		int level, name, value;
	} option[];
};

void vtoe_told_put(struct vtoe_told *told)
{
	if (told && refcount_dec_and_test(&told->ref))
		kfree(told);
}

void vtoe_told_inherit(struct vtoe_sock *child, struct vtoe_sock *listener)
{
	spin_lock_bh(&listener->lock);
	child->told = listener->told;
	if (child->told)
		refcount_inc(&child->told->ref);
	spin_unlock_bh(&listener->lock);
}

/*
 * Numbers that sk_clone() leaves as they are, but for those that we know
 * ourselves. Not TCP_CONGESTION: its setter may have had a right to it that who
 * uses the child has not.
 */
static bool told_to_children(int level, int optname)
{
	switch (level) {
	case SOL_TCP:
		switch (optname) {
		case TCP_SYNCNT:
		case TCP_LINGER2:
		case TCP_WINDOW_CLAMP:
		case TCP_THIN_LINEAR_TIMEOUTS:
		case TCP_FASTOPEN_NO_COOKIE:
		case TCP_TX_DELAY:
			return true;
		}
		return false;
	case SOL_IP:
		switch (optname) {
		case IP_RECVOPTS:
		case IP_RETOPTS:
		case IP_PKTINFO:
		case IP_RECVERR:
		case IP_RECVERR_RFC4884:
		case IP_RECVTTL:
		case IP_RECVTOS:
		case IP_RECVORIGDSTADDR:
		case IP_CHECKSUM:
		case IP_PASSSEC:
		case IP_MTU_DISCOVER:
		case IP_FREEBIND:
		case IP_BIND_ADDRESS_NO_PORT:
		case IP_UNICAST_IF:
		case IP_MULTICAST_LOOP:
		case IP_MULTICAST_ALL:
#ifdef IP_LOCAL_PORT_RANGE
		case IP_LOCAL_PORT_RANGE:
#endif
			return true;
		}
		return false;
	case SOL_IPV6:
		switch (optname) {
		case IPV6_UNICAST_HOPS:
		case IPV6_TCLASS:
		case IPV6_MTU_DISCOVER:
		case IPV6_MTU:
		case IPV6_DONTFRAG:
		case IPV6_AUTOFLOWLABEL:
		case IPV6_FLOWINFO:
		case IPV6_FLOWINFO_SEND:
		case IPV6_FREEBIND:
		case IPV6_UNICAST_IF:
		case IPV6_MULTICAST_LOOP:
		case IPV6_MULTICAST_ALL:
		case IPV6_ROUTER_ALERT_ISOLATE:
		case IPV6_RECVERR:
		case IPV6_RECVERR_RFC4884:
		case IPV6_RECVPKTINFO:
		case IPV6_RECVHOPLIMIT:
		case IPV6_RECVHOPOPTS:
		case IPV6_RECVDSTOPTS:
		case IPV6_RECVRTHDR:
		case IPV6_RECVTCLASS:
		case IPV6_RECVPATHMTU:
		case IPV6_RECVORIGDSTADDR:
		case IPV6_2292PKTINFO:
		case IPV6_2292HOPLIMIT:
		case IPV6_2292HOPOPTS:
		case IPV6_2292DSTOPTS:
		case IPV6_2292RTHDR:
			return true;
		}
		return false;
	default:
		return false;
	}
}

/* As inet and inet6 read it: who gives too little they refuse, or take for 0. */
static int get_number(int level, sockptr_t optval, unsigned int optlen, int *value)
{
	u8 byte;

	*value = 0;
	if (sockptr_is_null(optval))
		return 0;
	if (optlen >= sizeof(*value))
		return copy_from_sockptr(value, optval, sizeof(*value)) ? -EFAULT : 0;
	if (level != SOL_IP || !optlen)
		return 0;
	if (copy_from_sockptr(&byte, optval, sizeof(byte)))
		return -EFAULT;
	*value = byte;
	return 0;
}

/* vs->told with one more, or another, number; NULL: no memory. lock_sock */
static struct vtoe_told *told_with(const struct vtoe_sock *vs, int level, int optname, int value)
{
	const struct vtoe_told *old = vs->told;
	u32 n = old ? old->n : 0, at = n, i;
	struct vtoe_told *told;

	for (i = 0; i < n; i++)
		if (old->option[i].level == level && old->option[i].name == optname)
			at = i;
	told = kmalloc(struct_size(told, option, n + 1), GFP_KERNEL_ACCOUNT);
	if (!told)
		return NULL;
	refcount_set(&told->ref, 1);
	for (i = 0; i < n; i++)
		told->option[i] = old->option[i];
	told->n = max(n, at + 1);
	told->option[at].level = level;
	told->option[at].name = optname;
	told->option[at].value = value;
	return told;
}

/* To the inner socket, and to children that come. lock_sock */
static int tell(struct vtoe_sock *vs, int level, int optname, sockptr_t optval,
		unsigned int optlen)
{
	struct vtoe_told *told = NULL;
	int value, err;

	if (told_to_children(level, optname)) {
		err = get_number(level, optval, optlen, &value);
		if (err)
			return err;
		told = told_with(vs, level, optname, value);
		if (!told)
			return -ENOMEM;
	}
	err = vs->inner->ops->setsockopt(vs->inner, level, optname, optval, optlen);
	if (!err && told) {
		spin_lock_bh(&vs->lock);
		swap(vs->told, told);
		spin_unlock_bh(&vs->lock);
	}
	vtoe_told_put(told);
	return err;
}

/* A flag that TCP acts upon when it changes. */
static void tell_flag(struct socket *inner, const struct sock *sk, enum sock_flags flag,
		      int optname)
{
	int on = sock_flag(sk, flag);

	if (sock_flag(inner->sk, flag) != on)
		sock_setsockopt(inner, SOL_SOCKET, optname, KERNEL_SOCKPTR(&on), sizeof(on));
}

/* Flags are no atomic bits, and TCP changes others: written only for a change. */
static void copy_flag(struct sock *to, const struct sock *from, enum sock_flags flag)
{
	if (sock_flag(to, flag) != sock_flag(from, flag))
		sock_valbool_flag(to, flag, sock_flag(from, flag));
}

static int timestamp_option(const struct sock *sk)
{
	if (sock_flag(sk, SOCK_RCVTSTAMPNS))
		return sock_flag(sk, SOCK_TSTAMP_NEW) ? SO_TIMESTAMPNS_NEW : SO_TIMESTAMPNS_OLD;
	return sock_flag(sk, SOCK_TSTAMP_NEW) ? SO_TIMESTAMP_NEW : SO_TIMESTAMP_OLD;
}

/* What has been set of SOL_SOCKET. lock_sock */
static void give_options(struct vtoe_sock *vs)
{
	const struct sock *sk = vtoe_sock(vs);
	struct sock *isk = vs->inner->sk;
	unsigned long rate = sk->sk_max_pacing_rate;

	WRITE_ONCE(isk->sk_rcvtimeo, READ_ONCE(sk->sk_rcvtimeo));
	WRITE_ONCE(isk->sk_sndtimeo, READ_ONCE(sk->sk_sndtimeo));
	WRITE_ONCE(isk->sk_rcvlowat, READ_ONCE(sk->sk_rcvlowat));
	WRITE_ONCE(isk->sk_priority, READ_ONCE(sk->sk_priority));
	WRITE_ONCE(isk->sk_lingertime, READ_ONCE(sk->sk_lingertime));
	copy_flag(isk, sk, SOCK_LINGER);
	copy_flag(isk, sk, SOCK_ZEROCOPY);
	copy_flag(isk, sk, SOCK_LOCALROUTE);
	tell_flag(vs->inner, sk, SOCK_KEEPOPEN, SO_KEEPALIVE);
	tell_flag(vs->inner, sk, SOCK_URGINLINE, SO_OOBINLINE);
	if (isk->sk_state != TCP_CLOSE)
		return;
	WRITE_ONCE(isk->sk_peek_off, READ_ONCE(sk->sk_peek_off));
	isk->sk_reuse = sk->sk_reuse;
	isk->sk_reuseport = sk->sk_reuseport;
	isk->sk_mark = sk->sk_mark;
	isk->sk_bound_dev_if = sk->sk_bound_dev_if;
#ifdef CONFIG_NET_RX_BUSY_POLL
	WRITE_ONCE(isk->sk_ll_usec, READ_ONCE(sk->sk_ll_usec));
	WRITE_ONCE(isk->sk_prefer_busy_poll, READ_ONCE(sk->sk_prefer_busy_poll));
	WRITE_ONCE(isk->sk_busy_poll_budget, READ_ONCE(sk->sk_busy_poll_budget));
#endif
	if (isk->sk_max_pacing_rate != rate)
		sock_setsockopt(vs->inner, SOL_SOCKET, SO_MAX_PACING_RATE, KERNEL_SOCKPTR(&rate),
				sizeof(rate));
	tell_flag(vs->inner, sk, SOCK_RCVTSTAMP, timestamp_option(sk));
	/* as pins(); TCP itself makes nothing of SO_TXTIME */
	if (sk->sk_mark || sock_flag(sk, SOCK_TXTIME) || sock_flag(sk, SOCK_RCVTSTAMP) ||
	    rcu_access_pointer(sk->sk_filter) || rcu_access_pointer(sk->sk_reuseport_cb))
		vs->pinned = VTOE_REASON_OPTION;
	if (sk->sk_userlocks & SOCK_SNDBUF_LOCK) {
		isk->sk_userlocks |= SOCK_SNDBUF_LOCK;
		WRITE_ONCE(isk->sk_sndbuf, sk->sk_sndbuf);
	}
	if (sk->sk_userlocks & SOCK_RCVBUF_LOCK) {
		isk->sk_userlocks |= SOCK_RCVBUF_LOCK;
		WRITE_ONCE(isk->sk_rcvbuf, sk->sk_rcvbuf);
	}
}

/* What a child was told, or has from its listener, before it had an inner socket. */
static void tell_inner(struct vtoe_sock *vs)
{
	static const int names[] = {
		TCP_NODELAY, TCP_CORK, TCP_QUICKACK, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT,
		TCP_USER_TIMEOUT,
	};
	struct limits limits;
	int value, *number;
	unsigned int i;
	bool *flag;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		flag = bool_option(vs, names[i]);
		number = int_option(vs, names[i], &limits);
		value = flag ? *flag : *number;
		if (value || flag) /* each was checked, or set there before */
			vs->inner->ops->setsockopt(vs->inner, SOL_TCP, names[i],
						   KERNEL_SOCKPTR(&value), sizeof(value));
	}
	for (i = 0; vs->told && i < vs->told->n; i++) {
		value = vs->told->option[i].value;
		vs->inner->ops->setsockopt(vs->inner, vs->told->option[i].level,
					   vs->told->option[i].name,
					   KERNEL_SOCKPTR(&value), sizeof(value));
	}
}

/*
 * What sk_clone() and tcp_disconnect() leave of a child's name: the address that
 * its listener was bound to, and no port, though the listener's is still shown.
 */
static void keep_name(struct vtoe_sock *vs)
{
	struct sock *sk = vtoe_sock(vs), *isk = vs->inner->sk;
	struct inet_sock *inet = inet_sk(isk);

	lock_sock(isk);
	inet->inet_sport = vs->local.port;
	if (sk->sk_userlocks & SOCK_BINDADDR_LOCK) {
		isk->sk_userlocks |= SOCK_BINDADDR_LOCK;
		inet->inet_rcv_saddr = vs->inet.inet_rcv_saddr;
#if IS_ENABLED(CONFIG_IPV6)
		if (sk->sk_family == AF_INET6) {
			isk->sk_v6_rcv_saddr = sk->sk_v6_rcv_saddr;
			inet6_sk(isk)->saddr = vs->pinet6.saddr;
		}
		if (vs->local.family == 6)
			inet->inet_rcv_saddr = LOOPBACK4_IPV6;
#endif
		inet->inet_saddr = inet->inet_rcv_saddr;
	}
	release_sock(isk);
}

/* lock_sock */
int vtoe_need_inner(struct vtoe_sock *vs)
{
	int err;

	if (vs->inner)
		return 0;
	err = vtoe_inner_create(vs, true);
	if (err)
		return err;
	tell_inner(vs); /* before an interface: IP_UNICAST_IF */
	give_options(vs);
	keep_name(vs);
	return 0;
}

static int set_vnet(struct vtoe_sock *vs, int optname, sockptr_t optval, unsigned int optlen)
{
	int mode;

	if (optname != VNET_SO_MODE)
		return -ENOPROTOOPT;
	if (optlen < sizeof(mode))
		return -EINVAL;
	if (copy_from_sockptr(&mode, optval, sizeof(mode)))
		return -EFAULT;
	if (mode < VNET_MODE_BOTH || mode > VNET_MODE_VNET)
		return -EINVAL;
	if (vs->path != VNET_PATH_UNDECIDED || vtoe_sock(vs)->sk_state != VTOE_SOCK_CLOSE)
		return -EISCONN;
	vs->mode = mode;
	return 0;
}

/* What we act upon ourselves. lock_sock; true: the inner socket need not know. */
static bool note_option(struct vtoe_sock *vs, int level, int optname, int value)
{
	struct limits limits;
	bool *flag, release;
	int *number;

	if (level != SOL_TCP)
		return false;
	flag = bool_option(vs, optname);
	if (flag) {
		release = optname == TCP_NODELAY; /* set; CORK: cleared */
		*flag = value;
		if (optname != TCP_QUICKACK && vs->conn && *flag == release)
			vtoe_push(vs); /* nothing is held any more */
		return true;
	}
	number = int_option(vs, optname, &limits);
	if (!number)
		return false;
	WRITE_ONCE(*number, value);
	if (optname == TCP_USER_TIMEOUT && vs->conn)
		vtoe_work_in(vs, 0); /* it may be over */
	return true;
}

/* What we and children need of the inner socket, which softirq must not look at. lock_sock */
static void mirror(struct vtoe_sock *vs)
{
	const struct sock *isk = vs->inner->sk;
	u8 times = READ_ONCE(inet_csk(isk)->icsk_accept_queue.rskq_defer_accept);

	vs->inet.tos = inet_sk(isk)->tos;
	vs->inet.uc_ttl = inet_sk(isk)->uc_ttl;
	vs->as_tcp.rx_opt.user_mss = tcp_sk(isk)->rx_opt.user_mss;
	WRITE_ONCE(vs->as_tcp.notsent_lowat, READ_ONCE(tcp_sk(isk)->notsent_lowat));
	vs->as_tcp.recvmsg_inq = tcp_sk(isk)->recvmsg_inq;
	/* as TCP counts it: by the retransmissions of a SYN-ACK */
	vs->defer = times ? (1u << min_t(u8, times, 6)) - 1 : 0;
}

static int set_locked(struct socket *sock, int level, int optname, sockptr_t optval,
		      unsigned int optlen)
{
	struct vtoe_sock *vs = vtoe_sk(sock->sk);
	struct limits limits;
	int value = 0, err;
	bool ours;

	if (level == SOL_VNET)
		return set_vnet(vs, optname, optval, optlen);
	if (level == SOL_IPV6 && optname == IPV6_ADDRFORM)
		return -EINVAL;
	if (too_late(vs, level, optname))
		return -EOPNOTSUPP;

	ours = level == SOL_TCP && (bool_option(vs, optname) ||
				    int_option(vs, optname, &limits));
	if (ours) {
		if (optlen < sizeof(value))
			return -EINVAL;
		if (copy_from_sockptr(&value, optval, sizeof(value)))
			return -EFAULT;
	}
	if (!vs->inner && ours) {
		if (int_option(vs, optname, &limits) &&
		    (value < limits.min || value > limits.max))
			return -EINVAL;
	} else {
		err = vtoe_need_inner(vs);
		if (err)
			return err;
		/* a TOS that changes brings a priority */
		if (level == SOL_IP && optname == IP_TOS)
			WRITE_ONCE(vs->inner->sk->sk_priority, READ_ONCE(sock->sk->sk_priority));
		err = tell(vs, level, optname, optval, optlen);
		if (err)
			return err;
		mirror(vs);
		if (level == SOL_IP && optname == IP_TOS)
			WRITE_ONCE(sock->sk->sk_priority, READ_ONCE(vs->inner->sk->sk_priority));
	}
	if (ours)
		note_option(vs, level, optname, value);
	if (pins(level, optname) && !vtoe_is_tcp(vs))
		vs->pinned = VTOE_REASON_OPTION;
	return 0;
}

int vtoe_setsockopt(struct socket *sock, int level, int optname, sockptr_t optval,
		    unsigned int optlen)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);
	int err;

	if (level == SOL_SOCKET) {
		/* The core would change under lock_sock() what our softirq does under vs->lock. */
		if (optname == SO_RESERVE_MEM || too_late(vs, level, optname))
			return -EOPNOTSUPP;
		err = sock_setsockopt(sock, level, optname, optval, optlen);
		if (err)
			return err;
		lock_sock(sk);
		if (vs->inner)
			err = sock_setsockopt(vs->inner, level, optname, optval, optlen);
		if (!err && pins(level, optname) && !vs->conn)
			vs->pinned = VTOE_REASON_OPTION;
		release_sock(sk);
		return err;
	}
	lock_sock(sk);
	err = set_locked(sock, level, optname, optval, optlen);
	release_sock(sk);
	return err;
}

/* Where the core keeps SOL_SOCKET to itself (compat.h). */
void vtoe_sync_options(struct vtoe_sock *vs)
{
	if (!vtoe_has_custom_sockopt() && vs->inner)
		give_options(vs);
}

/* As tcp_set_rcvlowat(). lock_sock */
int vtoe_set_rcvlowat(struct sock *sk, int val)
{
	bool locked = sk->sk_userlocks & SOCK_RCVBUF_LOCK;
	int most = locked ? sk->sk_rcvbuf : READ_ONCE(sock_net(sk)->ipv4.sysctl_tcp_rmem[2]);

	val = min(val, most / 2);
	WRITE_ONCE(sk->sk_rcvlowat, val ?: 1);
	if (!locked && 2 * val > sk->sk_rcvbuf)
		WRITE_ONCE(sk->sk_rcvbuf, 2 * val);
	if (vtoe_rx_ready(vtoe_sk(sk)))
		sk->sk_data_ready(sk);
	return 0;
}

static int put_opt(char __user *optval, int __user *optlen, int len, const void *value,
		   size_t size)
{
	len = min_t(int, len, size);
	if (put_user(len, optlen) || copy_to_user(optval, value, len))
		return -EFAULT;
	return 0;
}

static void fill_info(struct vtoe_sock *vs, struct tcp_info *info)
{
	struct sock *sk = vtoe_sock(vs);

	memset(info, 0, sizeof(*info));
	spin_lock_bh(&vs->lock);
	info->tcpi_state = sk->sk_state;
	info->tcpi_snd_mss = vs->tx.buf_size[VNET_RWQ_LARGE];
	info->tcpi_rcv_mss = vs->conn->dev->rwq_buf_size[VNET_RWQ_LARGE];
	info->tcpi_advmss = info->tcpi_rcv_mss;
	info->tcpi_pmtu = vs->conn->dev->mtu;
	info->tcpi_snd_cwnd = vs->tx.limit[VNET_RWQ_LARGE] - vs->tx.sent[VNET_RWQ_LARGE];
	info->tcpi_rcv_space = vs->rx.window;
	info->tcpi_notsent_bytes = vs->snd_end - vs->snd_nxt;
	info->tcpi_bytes_acked = vs->tx.una;
	info->tcpi_bytes_sent = vs->snd_nxt;
	info->tcpi_bytes_received = vs->rcv_nxt;
	info->tcpi_data_segs_in = vs->rx.got[0] + vs->rx.got[1];
	info->tcpi_data_segs_out = vs->tx.sent[0] + vs->tx.sent[1];
	info->tcpi_segs_in = info->tcpi_data_segs_in;
	info->tcpi_segs_out = info->tcpi_data_segs_out;
	spin_unlock_bh(&vs->lock);
}

void vtoe_path_of(struct vtoe_sock *vs, struct vnet_so_path *path)
{
	const struct vtoe_sid *conn = READ_ONCE(vs->conn);

	memset(path, 0, sizeof(*path));
	path->path = READ_ONCE(vs->path);
	path->reason = READ_ONCE(vs->reason);
	if (path->path == VNET_PATH_VTOE && conn) {
		path->sid = conn->sid;
		path->fabric = vs->fabric;
	}
	strscpy(path->reason_name, vtoe_reason_name(path->reason), sizeof(path->reason_name));
}

static int get_vnet(struct vtoe_sock *vs, int optname, char __user *optval,
		    int __user *optlen, int len)
{
	struct vnet_so_path path;
	int mode = vs->mode;

	switch (optname) {
	case VNET_SO_MODE:
		return put_opt(optval, optlen, len, &mode, sizeof(mode));
	case VNET_SO_PATH:
		vtoe_path_of(vs, &path);
		return put_opt(optval, optlen, len, &path, sizeof(path));
	}
	return -ENOPROTOOPT;
}

static int mtu_of(const struct vtoe_sock *vs)
{
	if (vtoe_addr_same_host(&vs->local, &vs->remote))
		return READ_ONCE(sock_net(&vs->inet.sk)->loopback_dev->mtu);
	return vs->conn->dev->mtu;
}

/* lock_sock; -EREMOTE: ask the inner socket */
static int get_offloaded(struct vtoe_sock *vs, int level, int optname, char __user *optval,
			 int __user *optlen, int len)
{
	struct limits limits;
	struct tcp_info info;
	int value, *number;
	bool *flag;

	if (!vs->conn)
		return -EREMOTE;
	if ((level == SOL_IP && optname == IP_MTU) ||
	    (level == SOL_IPV6 && optname == IPV6_MTU)) {
		value = mtu_of(vs);
		return put_opt(optval, optlen, len, &value, sizeof(value));
	}
	if (level != SOL_TCP)
		return -EREMOTE;
	switch (optname) {
	case TCP_INFO:
		fill_info(vs, &info);
		return put_opt(optval, optlen, len, &info, sizeof(info));
	case TCP_MAXSEG:
		value = vs->conn->dev->mtu - 40;
		return put_opt(optval, optlen, len, &value, sizeof(value));
	}
	flag = bool_option(vs, optname);
	number = int_option(vs, optname, &limits);
	if (vs->inner || (!flag && !number))
		return -EREMOTE;
	value = flag ? *flag : *number ?: limits.dflt;
	return put_opt(optval, optlen, len, &value, sizeof(value));
}

int vtoe_getsockopt(struct socket *sock, int level, int optname, char __user *optval,
		    int __user *optlen)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);
	int len, err = -EREMOTE;

	if (get_user(len, optlen))
		return -EFAULT;
	if (len < 0)
		return -EINVAL;
	lock_sock(sk);
	if (level == SOL_VNET)
		err = get_vnet(vs, optname, optval, optlen, len);
	else if (!vtoe_is_tcp(vs))
		err = get_offloaded(vs, level, optname, optval, optlen, len);
	if (err == -EREMOTE) {
		err = vtoe_need_inner(vs);
		if (!err)
			err = vs->inner->ops->getsockopt(vs->inner, level, optname, optval,
							 optlen);
	}
	release_sock(sk);
	return err;
}
