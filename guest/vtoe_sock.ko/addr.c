// SPDX-License-Identifier: GPL-2.0-only
/*
 * Addresses: the user's sockaddr, the ABI's vtoe_addr and the fields of
 * inet_sock. An AF_INET6 socket with a vtoe_addr of family 4 shows it mapped.
 */
#include "vtoe.h"

#include <linux/inetdevice.h>
#include <net/addrconf.h>
#include <net/ip_fib.h>
#include <net/ipv6.h>
#include <net/route.h>

static __be32 addr4(const struct vtoe_addr *addr)
{
	__be32 ip;

	memcpy(&ip, addr->addr, sizeof(ip));
	return ip;
}

static void set_addr4(struct vtoe_addr *addr, __be32 ip, __be16 port)
{
	memset(addr, 0, sizeof(*addr));
	addr->family = 4;
	addr->port = port;
	memcpy(addr->addr, &ip, sizeof(ip));
}

static void set_addr6(struct vtoe_addr *addr, const struct in6_addr *ip, __be16 port,
		      u32 scope)
{
	if (ipv6_addr_v4mapped(ip)) {
		set_addr4(addr, ip->s6_addr32[3], port);
		return;
	}
	memset(addr, 0, sizeof(*addr));
	addr->family = 6;
	addr->port = port;
	memcpy(addr->addr, ip, sizeof(*ip));
	if (__ipv6_addr_needs_scope_id(ipv6_addr_type(ip)))
		addr->scope = cpu_to_le32(scope);
}

int vtoe_addr_from_user(const struct sock *sk, const struct vtoe_sockaddr *uaddr, int len,
			struct vtoe_addr *addr)
{
	const struct sockaddr_in *sin = (const void *)uaddr;
	const struct sockaddr_in6 *sin6 = (const void *)uaddr;

	if (len < (int)sizeof(uaddr->sa_family))
		return -EINVAL;
	if (sk->sk_family == AF_INET) {
		if (len < (int)sizeof(*sin))
			return -EINVAL;
		if (sin->sin_family != AF_INET)
			return -EAFNOSUPPORT;
		set_addr4(addr, sin->sin_addr.s_addr, sin->sin_port);
		return 0;
	}
	if (len < SIN6_LEN_RFC2133)
		return -EINVAL;
	if (sin6->sin6_family != AF_INET6)
		return -EAFNOSUPPORT;
	set_addr6(addr, &sin6->sin6_addr, sin6->sin6_port,
		  len >= (int)sizeof(*sin6) ? sin6->sin6_scope_id : 0);
	return 0;
}

int vtoe_addr_to_user(const struct sock *sk, const struct vtoe_addr *addr,
		      struct sockaddr_storage *out)
{
	struct sockaddr_in *sin = (void *)out;
	struct sockaddr_in6 *sin6 = (void *)out;

	if (sk->sk_family == AF_INET) {
		memset(sin, 0, sizeof(*sin));
		sin->sin_family = AF_INET;
		sin->sin_port = addr->port;
		sin->sin_addr.s_addr = addr4(addr);
		return sizeof(*sin);
	}
	memset(sin6, 0, sizeof(*sin6));
	sin6->sin6_family = AF_INET6;
	sin6->sin6_port = addr->port;
	if (addr->family == 4) {
		ipv6_addr_set_v4mapped(addr4(addr), &sin6->sin6_addr);
	} else {
		memcpy(&sin6->sin6_addr, addr->addr, sizeof(sin6->sin6_addr));
		sin6->sin6_scope_id = le32_to_cpu(addr->scope);
	}
	return sizeof(*sin6);
}

bool vtoe_addr_any(const struct vtoe_addr *addr)
{
	return !memchr_inv(addr->addr, 0, sizeof(addr->addr));
}

bool vtoe_addr_same_host(const struct vtoe_addr *a, const struct vtoe_addr *b)
{
	return a->family == b->family && !memcmp(a->addr, b->addr, sizeof(a->addr));
}

/* Is it an address of this guest, as netns net sees it through dev? RCU. */
bool vtoe_addr_is_local(struct net *net, struct net_device *dev,
			const struct vtoe_addr *addr)
{
	bool local = false;

	rcu_read_lock();
	if (addr->family == 4) {
		local = inet_addr_type_dev_table(net, dev, addr4(addr)) == RTN_LOCAL;
	} else if (addr->family == 6 && IS_ENABLED(CONFIG_IPV6)) {
		const struct in6_addr *ip = (const void *)addr->addr;
		bool link = ipv6_addr_type(ip) & IPV6_ADDR_LINKLOCAL;

		local = !IS_ERR_OR_NULL(vtoe_ipv6_dev_find(net, ip, link ? dev : NULL));
	}
	rcu_read_unlock();
	return local;
}

/* The interface that has the address, or NULL. RCU */
struct net_device *vtoe_addr_netdev(struct net *net, const struct vtoe_addr *addr)
{
	struct net_device *netdev = NULL;

	if (addr->family == 4)
		netdev = __ip_dev_find(net, addr4(addr), false);
	else if (IS_ENABLED(CONFIG_IPV6))
		netdev = vtoe_ipv6_dev_find(net, (const void *)addr->addr, NULL);
	return IS_ERR(netdev) ? NULL : netdev;
}

bool vtoe_addr_is_on(struct net *net, const struct net_device *dev,
		     const struct vtoe_addr *addr)
{
	bool on;

	rcu_read_lock();
	on = vtoe_addr_netdev(net, addr) == dev;
	rcu_read_unlock();
	return on;
}

static bool is_loopback(const struct vtoe_addr *addr)
{
	return addr->family == 4 ? ipv4_is_loopback(addr4(addr)) :
				   ipv6_addr_loopback((const void *)addr->addr);
}

/*
 * What IP drops of a packet that comes in from outside: to a loopback address,
 * and from one, from an address of our own, or from one that nobody can have.
 * A program may take such a peer for one in this guest. RCU.
 */
bool vtoe_addr_is_martian(struct net *net, struct net_device *dev,
			  const struct vtoe_addr *local, const struct vtoe_addr *remote)
{
	int type;

	if (is_loopback(local) || is_loopback(remote) ||
	    vtoe_addr_is_local(net, dev, remote))
		return true;
	if (remote->family == 4)
		return inet_addr_type_dev_table(net, dev, addr4(remote)) != RTN_UNICAST;
	type = ipv6_addr_type((const void *)remote->addr);
	return type == IPV6_ADDR_ANY || type & (IPV6_ADDR_MULTICAST | IPV6_ADDR_MAPPED);
}

/* Where the inner socket is bound. */
void vtoe_addr_of_inner(struct vtoe_sock *vs)
{
	const struct sock *isk = vs->inner->sk;
	const struct inet_sock *inet = inet_sk(isk);

#if IS_ENABLED(CONFIG_IPV6)
	if (isk->sk_family == AF_INET6)
		set_addr6(&vs->local, &isk->sk_v6_rcv_saddr, inet->inet_sport,
			  isk->sk_bound_dev_if);
	else
#endif
		set_addr4(&vs->local, inet->inet_rcv_saddr, inet->inet_sport);
	vtoe_sock(vs)->sk_bound_dev_if = isk->sk_bound_dev_if;
}

/* vs->local and vs->remote to where the core, BPF and diag look for them. */
void vtoe_set_addrs(struct vtoe_sock *vs)
{
	struct sock *sk = vtoe_sock(vs);
	struct inet_sock *inet = &vs->inet;

	inet->inet_num = ntohs(vs->local.port);
	inet->inet_sport = vs->local.port;
	inet->inet_dport = vs->remote.port;
	if (vs->local.family == 4) {
		inet->inet_saddr = addr4(&vs->local);
		inet->inet_rcv_saddr = inet->inet_saddr;
	}
	if (vs->remote.family == 4)
		inet->inet_daddr = addr4(&vs->remote);
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		struct sockaddr_storage ss;
		struct sockaddr_in6 *sin6 = (void *)&ss;

		vtoe_addr_to_user(sk, &vs->local, &ss);
		sk->sk_v6_rcv_saddr = sin6->sin6_addr;
		vs->pinet6.saddr = sin6->sin6_addr;
		vtoe_addr_to_user(sk, &vs->remote, &ss);
		sk->sk_v6_daddr = sin6->sin6_addr;
	}
#endif
}

/* CLOSING and LAST_ACK only wait for the peer's program: TCP would be CLOSE. */
#define NAMELESS (TCPF_CLOSE | TCPF_SYN_SENT | TCPF_CLOSING | TCPF_LAST_ACK)

int vtoe_getname(struct socket *sock, struct sockaddr *uaddr, int peer)
{
	struct sock *sk = sock->sk;
	struct vtoe_sock *vs = vtoe_sk(sk);
	struct sockaddr_storage *out = (struct sockaddr_storage *)uaddr;
	int len;

	lock_sock(sk);
	/* What is not connected over the offload is known best to the inner socket. */
	if (vtoe_is_tcp(vs) || (!vs->conn && vs->inner)) {
		release_sock(sk);
		return vs->inner->ops->getname(vs->inner, uaddr, peer);
	}
	if (!peer) {
		len = vtoe_addr_to_user(sk, &vs->local, out);
	} else if (!vs->remote.family ||
		   ((1 << sk->sk_state) & NAMELESS && peer == 1)) {
		len = -ENOTCONN;
	} else {
		len = vtoe_addr_to_user(sk, &vs->remote, out);
	}
	release_sock(sk);
	return len;
}
