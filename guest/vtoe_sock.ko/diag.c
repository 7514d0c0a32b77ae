// SPDX-License-Identifier: GPL-2.0-only
/*
 * sock_diag: the sockets of a namespace as TCP's are listed, but under the number
 * of our family (proto/vnet_sock.h). vnet-ss(8) prints them. Those that run over
 * TCP are also in TCP's own list, with what their inner socket is doing.
 */
#include "vtoe.h"

#include <linux/inet_diag.h>
#include <linux/sock_diag.h>
#include <net/netlink.h>

#define DIAG_PAYLOAD (nla_total_size(sizeof(u8)) + nla_total_size(sizeof(struct vnet_so_path)))

static void fill_addr(__be16 *port, __be32 *ip, const struct vtoe_addr *addr)
{
	*port = addr->port;
	memcpy(ip, addr->addr, addr->family == 6 ? 16 : 4);
}

static void fill_msg(struct inet_diag_msg *msg, struct vtoe_sock *vs, struct user_namespace *ns)
{
	struct sock *sk = vtoe_sock(vs);

	memset(msg, 0, sizeof(*msg));
	msg->idiag_family = sk->sk_family;
	msg->idiag_state = READ_ONCE(sk->sk_state);
	fill_addr(&msg->id.idiag_sport, msg->id.idiag_src, &vs->local);
	fill_addr(&msg->id.idiag_dport, msg->id.idiag_dst, &vs->remote);
	msg->id.idiag_if = READ_ONCE(sk->sk_bound_dev_if);
	sock_diag_save_cookie(sk, msg->id.idiag_cookie);
	if (msg->idiag_state == VTOE_SOCK_LISTEN) {
		msg->idiag_rqueue = READ_ONCE(vs->accept_len);
		msg->idiag_wqueue = READ_ONCE(sk->sk_max_ack_backlog);
	} else {
		msg->idiag_rqueue = vtoe_readable(vs);
		msg->idiag_wqueue = READ_ONCE(vs->snd_end) - READ_ONCE(vs->tx.una);
	}
	msg->idiag_uid = from_kuid_munged(ns, sk->sk_uid);
	msg->idiag_inode = sock_i_ino(sk);
}

/* -EMSGSIZE: no room left. vtoe_sks_lock */
static int put_sock(struct sk_buff *skb, struct netlink_callback *cb, struct vtoe_sock *vs)
{
	struct vnet_so_path path;
	struct nlmsghdr *nlh;

	nlh = nlmsg_put(skb, NETLINK_CB(cb->skb).portid, cb->nlh->nlmsg_seq,
			SOCK_DIAG_BY_FAMILY, sizeof(struct inet_diag_msg), NLM_F_MULTI);
	if (!nlh)
		return -EMSGSIZE;
	fill_msg(nlmsg_data(nlh), vs, sk_user_ns(NETLINK_CB(cb->skb).sk));
	vtoe_path_of(vs, &path);
	if (nla_put_u8(skb, INET_DIAG_SHUTDOWN, READ_ONCE(vtoe_sock(vs)->sk_shutdown)) ||
	    nla_put(skb, VNET_DIAG_PATH, sizeof(path), &path)) {
		nlmsg_cancel(skb, nlh);
		return -EMSGSIZE;
	}
	nlmsg_end(skb, nlh);
	return 0;
}

static int dump(struct sk_buff *skb, struct netlink_callback *cb)
{
	const struct inet_diag_req_v2 *req = nlmsg_data(cb->nlh);
	struct net *net = sock_net(skb->sk);
	struct vtoe_sock *vs;
	long n = 0;

	spin_lock_bh(&vtoe_sks_lock);
	hlist_for_each_entry(vs, &vtoe_sks, sks_node) {
		struct sock *sk = vtoe_sock(vs);

		if (n++ < cb->args[0] || !net_eq(sock_net(sk), net) ||
		    !(req->idiag_states & (1 << READ_ONCE(sk->sk_state))))
			continue;
		if (put_sock(skb, cb, vs)) {
			n--; /* begins the next part */
			break;
		}
	}
	spin_unlock_bh(&vtoe_sks_lock);
	cb->args[0] = n;
	return skb->len;
}

static int handle(struct sk_buff *skb, struct nlmsghdr *nlh)
{
	struct netlink_dump_control control = {
		.dump = dump,
		.min_dump_alloc = NLMSG_SPACE(sizeof(struct inet_diag_msg)) + DIAG_PAYLOAD,
	};

	if (nlmsg_len(nlh) < (int)sizeof(struct inet_diag_req_v2))
		return -EINVAL;
	if (!(nlh->nlmsg_flags & NLM_F_DUMP))
		return -EOPNOTSUPP; /* one socket tells by SOL_VNET */
	return netlink_dump_start(sock_net(skb->sk)->diag_nlsk, skb, nlh, &control);
}

static struct sock_diag_handler handler = {
	.owner = THIS_MODULE,
	.dump = handle,
};

int vtoe_diag_init(void)
{
	handler.family = vtoe_family;
	return sock_diag_register(&handler);
}

void vtoe_diag_exit(void)
{
	sock_diag_unregister(&handler);
}

MODULE_ALIAS_NET_PF_PROTO_TYPE(PF_NETLINK, NETLINK_SOCK_DIAG, AF_INET_VNET_DEFAULT);
