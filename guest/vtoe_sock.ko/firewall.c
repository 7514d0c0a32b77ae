// SPDX-License-Identifier: GPL-2.0-only
/*
 * Offload is no hole in the guest's firewall.
 *
 * An offloaded connection has no packets, so netfilter would never see it. In
 * place of them its handshake is synthesised: where connect() runs, a SYN that
 * goes out and the SYN-ACK that answers it; where CONNECT_REQUEST arrives, a SYN
 * that comes in and the SYN-ACK that leaves. Each passes the hooks that TCP's
 * own segment would pass in that guest, and goes nowhere from there:
 *
 *	out	LOCAL_OUT, POST_ROUTING, programs of the socket's cgroup (egress)
 *	in	PRE_ROUTING, the reverse path filter, IPsec's policy, LOCAL_IN,
 *		programs of the listener's cgroup (ingress)
 *
 * What says that another socket is meant (tproxy, BPF's sk_lookup) ends it, too.
 *
 * Any of these ends the offload, with the reason "firewall", before a byte was
 * sent: a drop, a reject, a queue to user space; an address, a port or a route
 * that came out another (NAT, redirect, a mark that routes); a connection
 * tracking helper, which wants to read the stream; IPsec on the way. TCP then
 * meets the same rules with its own SYN, and its errno is the program's.
 *
 * What stays behind of a handshake that was looked at:
 *  - No connection tracking entry. Tracking runs, so that `ct state new` and
 *    NAT rules match, but the hook that confirms an entry is left out; the
 *    unconfirmed one goes with the packet. The SYN-ACK is given the SYN's
 *    entry, as a packet on the loopback device is: it is `established`.
 *  - What rules do by themselves: counters, limits, sets and logs see one SYN
 *    (and one SYN-ACK) for a connection that is offloaded. One that goes over
 *    TCP after all is seen twice, here and as itself.
 *  - What `reject` sends. In the output hook it goes to this guest; in the input
 *    hook to the peer, which has no socket for it: its TCP connects only after
 *    our answer, and from another sequence number.
 *  - An expectation that it fulfils (`ct state related`) is used up.
 *
 * Rules are asked when a connection is made. Those that come later do not end
 * it. `ct count` does not count it. Not asked are the netdev family's hooks,
 * bridge, tc and XDP: they see frames, which a connection inside the host or
 * over another fabric does not have.
 */
#include "vtoe.h"

#include <linux/bpf-cgroup.h>
#include <linux/etherdevice.h>
#include <linux/netfilter.h>
#include <linux/netfilter_ipv6.h>
#include <net/dsfield.h>
#include <net/ip6_checksum.h>
#include <net/ip6_route.h>
#include <net/ip_fib.h>
#include <net/netfilter/nf_conntrack.h>
#include <net/route.h>
#include <net/tcp.h>
#include <net/xfrm.h>

#define SYN_OPTIONS 20 /* those that Linux sends */

struct segment {
	struct net *net;
	struct sock *sk; /* whose it is when it goes out */
	const struct vtoe_addr *src, *dst;
	const u8 *src_mac; /* coming in; NULL: not known */
	bool reply;	/* SYN-ACK */
	u8 tos;
	struct sk_buff *skb; /* NULL once a hook has ended it */
};

static bool is_v6(const struct segment *seg)
{
	return seg->dst->family == 6;
}

static __be32 ip4(const struct vtoe_addr *addr)
{
	__be32 ip;

	memcpy(&ip, addr->addr, sizeof(ip));
	return ip;
}

static const struct in6_addr *ip6(const struct vtoe_addr *addr)
{
	return (const void *)addr->addr;
}

/* ---- the packet ---- */

static void put_tcp(struct segment *seg, unsigned int mss)
{
	const u8 options[SYN_OPTIONS] = {
		TCPOPT_MSS, TCPOLEN_MSS, mss >> 8, mss & 0xff,
		TCPOPT_SACK_PERM, TCPOLEN_SACK_PERM,
		TCPOPT_TIMESTAMP, TCPOLEN_TIMESTAMP, 0, 0, 0, 1, 0, 0, 0, 0,
		TCPOPT_NOP, TCPOPT_WINDOW, TCPOLEN_WINDOW, 7,
	};
	struct tcphdr *th = skb_put_zero(seg->skb, sizeof(*th));
	unsigned int len = sizeof(*th) + SYN_OPTIONS;
	__wsum sum;

	skb_put_data(seg->skb, options, SYN_OPTIONS);
	th->source = seg->src->port;
	th->dest = seg->dst->port;
	th->seq = htonl(get_random_u32());
	th->doff = len / 4;
	th->syn = 1;
	if (seg->reply) {
		th->ack = 1;
		th->ack_seq = htonl(get_random_u32());
	}
	th->window = htons(64240);
	sum = csum_partial(th, len, 0);
	th->check = is_v6(seg) ?
		    csum_ipv6_magic(ip6(seg->src), ip6(seg->dst), len, IPPROTO_TCP, sum) :
		    csum_tcpudp_magic(ip4(seg->src), ip4(seg->dst), len, IPPROTO_TCP, sum);
}

static void put_ip4(struct segment *seg, unsigned int payload)
{
	struct iphdr *iph = skb_put_zero(seg->skb, sizeof(*iph));

	iph->version = 4;
	iph->ihl = 5;
	iph->tos = seg->tos;
	iph->tot_len = htons(sizeof(*iph) + payload);
	iph->frag_off = htons(IP_DF);
	iph->ttl = IPDEFTTL;
	iph->protocol = IPPROTO_TCP;
	iph->saddr = ip4(seg->src);
	iph->daddr = ip4(seg->dst);
	ip_send_check(iph);
	seg->skb->protocol = htons(ETH_P_IP);
}

static void put_ip6(struct segment *seg, unsigned int payload)
{
	struct ipv6hdr *iph = skb_put_zero(seg->skb, sizeof(*iph));

	ip6_flow_hdr(iph, seg->tos, 0);
	iph->payload_len = htons(payload);
	iph->nexthdr = IPPROTO_TCP;
	iph->hop_limit = IPDEFTTL;
	iph->saddr = *ip6(seg->src);
	iph->daddr = *ip6(seg->dst);
	seg->skb->protocol = htons(ETH_P_IPV6);
}

static bool build(struct segment *seg, const struct net_device *dev)
{
	unsigned int header = is_v6(seg) ? sizeof(struct ipv6hdr) : sizeof(struct iphdr);
	unsigned int payload = sizeof(struct tcphdr) + SYN_OPTIONS;
	unsigned int mss = clamp_t(unsigned int, READ_ONCE(dev->mtu), 576, 65535) -
			   header - sizeof(struct tcphdr);

	seg->skb = alloc_skb(LL_MAX_HEADER + header + payload, GFP_ATOMIC);
	if (!seg->skb)
		return false;
	skb_reserve(seg->skb, LL_MAX_HEADER);
	skb_reset_network_header(seg->skb);
	if (is_v6(seg))
		put_ip6(seg, payload);
	else
		put_ip4(seg, payload);
	skb_set_transport_header(seg->skb, header);
	put_tcp(seg, mss);
	seg->skb->ip_summed = CHECKSUM_UNNECESSARY;
	return true;
}

static void drop(struct segment *seg)
{
	kfree_skb(seg->skb);
	seg->skb = NULL;
}

/* ---- through the hooks ---- */

#if IS_ENABLED(CONFIG_NETFILTER)
static const struct nf_hook_entries *hooks_of(struct net *net, bool v6, unsigned int hook)
{
	return v6 ? rcu_dereference(net->nf.hooks_ipv6[hook]) :
		    rcu_dereference(net->nf.hooks_ipv4[hook]);
}

static bool have_hooks(struct net *net, bool v6)
{
	return hooks_of(net, v6, NF_INET_PRE_ROUTING) || hooks_of(net, v6, NF_INET_LOCAL_IN) ||
	       hooks_of(net, v6, NF_INET_LOCAL_OUT) || hooks_of(net, v6, NF_INET_POST_ROUTING);
}

/*
 * Connection tracking's last hook, not a chain that asks for the same place. For
 * what comes in over IPv6 that is the last place but one.
 */
static bool confirms(const struct nf_hook_ops *ops)
{
	return ops->priority >= NF_IP6_PRI_LAST - 1 &&
	       ops->hook_ops_type == NF_HOOK_OP_UNDEFINED;
}

/* As nf_hook(), but for the hook that confirms, and nothing is queued. */
static bool pass(struct segment *seg, unsigned int hook, struct net_device *in,
		 struct net_device *out)
{
	const struct nf_hook_entries *entries = hooks_of(seg->net, is_v6(seg), hook);
	struct nf_hook_ops **ops;
	struct nf_hook_state state;
	unsigned int i;

	if (!entries)
		return true;
	ops = nf_hook_entries_get_hook_ops(entries);
	nf_hook_state_init(&state, hook, is_v6(seg) ? NFPROTO_IPV6 : NFPROTO_IPV4, in, out,
			   out ? seg->sk : NULL, seg->net, NULL);
	for (i = 0; i < entries->num_hook_entries; i++) {
		if (confirms(READ_ONCE(ops[i])))
			continue;
		switch (nf_hook_entry_hookfn(&entries->hooks[i], seg->skb, &state) &
			NF_VERDICT_MASK) {
		case NF_ACCEPT:
			continue;
		case NF_STOLEN:
			seg->skb = NULL;
			return false;
		default:
			drop(seg);
			return false;
		}
	}
	return true;
}
#else
static bool have_hooks(struct net *net, bool v6)
{
	return false;
}

static bool pass(struct segment *seg, unsigned int hook, struct net_device *in,
		 struct net_device *out)
{
	return true;
}
#endif

/* Is it still what it was, or has a rule made another connection of it? */
static bool unchanged(const struct segment *seg)
{
	const struct tcphdr *th = tcp_hdr(seg->skb);

	if (th->source != seg->src->port || th->dest != seg->dst->port)
		return false;
	if (is_v6(seg))
		return ipv6_addr_equal(&ipv6_hdr(seg->skb)->saddr, ip6(seg->src)) &&
		       ipv6_addr_equal(&ipv6_hdr(seg->skb)->daddr, ip6(seg->dst));
	return ip_hdr(seg->skb)->saddr == ip4(seg->src) &&
	       ip_hdr(seg->skb)->daddr == ip4(seg->dst);
}

static bool wants_stream(const struct sk_buff *skb)
{
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
	enum ip_conntrack_info info;
	const struct nf_conn *ct = nf_ct_get(skb, &info);

	return ct && ct->status & IPS_HELPER;
#else
	return false;
#endif
}

/* The SYN-ACK belongs to the connection that the SYN began. */
static void follow(struct sk_buff *reply, const struct sk_buff *syn)
{
#if IS_ENABLED(CONFIG_NF_CONNTRACK)
	enum ip_conntrack_info info;
	struct nf_conn *ct = nf_ct_get(syn, &info);

	if (ct) {
		nf_conntrack_get(&ct->ct_general);
		info = IP_CT_ESTABLISHED_REPLY;
	}
	nf_ct_set(reply, ct, info);
#endif
}

static bool leave(struct segment *seg, struct dst_entry *dst)
{
	struct sk_buff *skb = seg->skb;
	struct sock *sk = seg->sk; /* so named for a macro of 6.1 */
	int err;

	if (dst_xfrm(dst))
		return false;
	/* Not with its memory charged to the socket, as TCP's is. */
	sock_hold(sk);
	skb->sk = sk;
	skb->destructor = sock_efree;
	skb->mark = READ_ONCE(sk->sk_mark);
	skb->priority = READ_ONCE(sk->sk_priority);
	skb_dst_set(skb, dst_clone(dst));
	if (!pass(seg, NF_INET_LOCAL_OUT, NULL, dst->dev) || !unchanged(seg) ||
	    skb_dst(skb) != dst)
		return false;
	skb->dev = dst->dev;
	if (!pass(seg, NF_INET_POST_ROUTING, NULL, dst->dev) || !unchanged(seg))
		return false;
	err = BPF_CGROUP_RUN_PROG_INET_EGRESS(sk, skb);
	return (!err || err == NET_XMIT_CN) && !wants_stream(skb);
}

static struct dst_entry *route_out4(const struct segment *seg, int oif)
{
	struct flowi4 fl4 = {
		.flowi4_oif = oif,
		.flowi4_proto = IPPROTO_TCP,
		.daddr = ip4(seg->dst),
		.saddr = ip4(seg->src),
		.fl4_dport = seg->dst->port,
		.fl4_sport = seg->src->port,
	};
	struct rtable *rt = ip_route_output_flow(seg->net, &fl4, seg->sk);

	return IS_ERR(rt) ? ERR_CAST(rt) : &rt->dst;
}

static struct dst_entry *route_out6(const struct segment *seg, int oif,
				    const struct net_device *dev)
{
	bool link = ipv6_addr_type(ip6(seg->dst)) & IPV6_ADDR_LINKLOCAL;
	struct flowi6 fl6 = {
		.flowi6_oif = link ? dev->ifindex : oif,
		.flowi6_proto = IPPROTO_TCP,
		.daddr = *ip6(seg->dst),
		.saddr = *ip6(seg->src),
		.fl6_dport = seg->dst->port,
		.fl6_sport = seg->src->port,
	};

	return vtoe_ip6_dst_lookup_flow(seg->net, seg->sk, &fl6, NULL);
}

/* The route by which it leaves, the peer being behind dev; with a reference, or an error. */
static struct dst_entry *route_out(const struct segment *seg, const struct net_device *dev)
{
	int oif = seg->sk ? READ_ONCE(seg->sk->sk_bound_dev_if) : 0;

	return is_v6(seg) ? route_out6(seg, oif, dev) : route_out4(seg, oif);
}

static bool route_in4(struct segment *seg, struct net_device *dev)
{
	struct dst_entry *dst;

	if (!(dev->flags & IFF_LOOPBACK))
		return !ip_route_input_noref(seg->skb, ip4(seg->dst), ip4(seg->src), 0, dev);
	/* There a packet keeps the route by which it left. */
	dst = route_out(seg, dev);
	if (IS_ERR(dst))
		return false;
	skb_dst_set(seg->skb, dst);
	return true;
}

static bool route_in6(struct segment *seg, struct net_device *dev)
{
#if IS_ENABLED(CONFIG_IPV6)
	struct flowi6 fl6 = {
		.flowi6_iif = dev->ifindex,
		.flowi6_proto = IPPROTO_TCP,
		.daddr = *ip6(seg->dst),
		.saddr = *ip6(seg->src),
	};
	struct dst_entry *dst = ip6_route_input_lookup(seg->net, dev, &fl6, seg->skb,
						       RT6_LOOKUP_F_HAS_SADDR);

	skb_dst_set(seg->skb, dst);
	return !dst->error;
#else
	return false;
#endif
}

static bool come_in(struct segment *seg, struct net_device *dev, struct sock *listener)
{
	struct sk_buff *skb = seg->skb;
	struct ethhdr *eth;

	skb->dev = dev;
	skb->skb_iif = dev->ifindex;
	eth = (struct ethhdr *)(skb->data - ETH_HLEN);
	ether_addr_copy(eth->h_dest, dev->dev_addr);
	if (seg->src_mac)
		ether_addr_copy(eth->h_source, seg->src_mac);
	else
		eth_zero_addr(eth->h_source);
	eth->h_proto = skb->protocol;
	skb_set_mac_header(skb, -ETH_HLEN);
	skb->mac_len = ETH_HLEN;
	if (is_v6(seg))
		IP6CB(skb)->iif = dev->ifindex;
	if (!pass(seg, NF_INET_PRE_ROUTING, dev, NULL) || !unchanged(seg))
		return false;
	if (skb->sk) /* a rule gave it to another socket (tproxy) */
		return false;
	if (!(is_v6(seg) ? route_in6(seg, dev) : route_in4(seg, dev)))
		return false;
	if (!pass(seg, NF_INET_LOCAL_IN, dev, NULL) || !unchanged(seg) ||
	    !xfrm_policy_check(NULL, XFRM_POLICY_IN, skb, is_v6(seg) ? AF_INET6 : AF_INET))
		return false;
	return !BPF_CGROUP_RUN_PROG_INET_INGRESS(listener, skb) && !wants_stream(skb);
}

/* ---- the two sides ---- */

/* Is there anybody to ask? */
static bool needed(struct net *net, bool v6)
{
#ifdef CONFIG_XFRM
	if (READ_ONCE(net->xfrm.policy_count[XFRM_POLICY_IN]) ||
	    READ_ONCE(net->xfrm.policy_count[XFRM_POLICY_OUT]) ||
	    READ_ONCE(net->xfrm.policy_default[XFRM_POLICY_IN]) == XFRM_USERPOLICY_BLOCK ||
	    READ_ONCE(net->xfrm.policy_default[XFRM_POLICY_OUT]) == XFRM_USERPOLICY_BLOCK)
		return true;
#endif
#ifdef CONFIG_CGROUP_BPF
	if (cgroup_bpf_enabled(CGROUP_INET_EGRESS) || cgroup_bpf_enabled(CGROUP_INET_INGRESS))
		return true;
#endif
	return have_hooks(net, v6);
}

/* A BPF program says which socket a SYN is for (BPF_PROG_TYPE_SK_LOOKUP). */
static bool steered(struct net *net)
{
	return rcu_access_pointer(net->bpf.run_array[NETNS_BPF_SK_LOOKUP]);
}

/* The device that packets from a neighbour or from this guest itself come through. */
static struct net_device *enters_by(struct net *net, struct net_device *dev,
				    const struct vtoe_addr *from)
{
	return vtoe_addr_is_local(net, dev, from) ? net->loopback_dev : dev;
}

/* IP_TOS or IPV6_TCLASS */
static u8 tos_of(const struct vtoe_sock *vs)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (vs->remote.family == 6)
		return inet6_sk(vs->inner->sk)->tclass;
#endif
	return inet_sk(vs->inner->sk)->tos;
}

/* connect() in this guest, by way of dst. lock_sock */
bool vtoe_firewall_out(struct vtoe_sock *vs, struct dst_entry *dst)
{
	struct sock *sk = vtoe_sock(vs);
	struct segment syn = {
		.net = sock_net(sk), .sk = sk, .src = &vs->local, .dst = &vs->remote,
		.tos = tos_of(vs),
	};
	struct segment ack = {
		.net = sock_net(sk), .src = &vs->remote, .dst = &vs->local, .reply = true,
	};
	bool ok = false;

	rcu_read_lock();
	if (!needed(syn.net, is_v6(&syn))) {
		rcu_read_unlock();
		return true;
	}
	if (build(&syn, dst->dev) && leave(&syn, dst) && build(&ack, dst->dev)) {
		follow(ack.skb, syn.skb);
		ok = come_in(&ack, dst->dev, sk);
	}
	drop(&ack);
	drop(&syn);
	rcu_read_unlock();
	return ok;
}

/* A peer asks for listener. Softirq. */
bool vtoe_firewall_in(struct sock *listener, struct vtoe_dev *dev,
		      const struct vtoe_event *ev)
{
	const struct vtoe_addr *local = &ev->u.request.local;
	const struct vtoe_addr *remote = &ev->u.request.remote;
	struct net *net = sock_net(listener);
	struct segment syn = {
		.net = net, .src = remote, .dst = local, .src_mac = ev->u.request.remote_mac,
	};
	struct segment ack = {
		.net = net, .sk = listener, .src = local, .dst = remote, .reply = true,
	};
	struct dst_entry *back = NULL;
	struct net_device *in;
	bool ok = false;

	rcu_read_lock();
	if (steered(net)) {
		rcu_read_unlock();
		return false;
	}
	if (!needed(net, is_v6(&syn))) {
		rcu_read_unlock();
		return true;
	}
	in = enters_by(net, dev->netdev, remote);
	if (build(&syn, in) && come_in(&syn, in, listener)) {
		back = route_out(&ack, dev->netdev);
		if (!IS_ERR(back) && build(&ack, back->dev)) {
			follow(ack.skb, syn.skb);
			ok = leave(&ack, back);
		}
	}
	drop(&ack);
	drop(&syn);
	if (!IS_ERR(back))
		dst_release(back);
	rcu_read_unlock();
	return ok;
}
