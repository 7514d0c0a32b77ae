// SPDX-License-Identifier: GPL-2.0-only
/*
 * The second front door: the sockets of the family as a private protocol of
 * AF_INET and AF_INET6, socket(AF_INET, SOCK_STREAM, VNETPROTO_INET).
 *
 * Where the family needs a program that asks for it, or a preload library, here
 * whatever may change the third argument of socket() is enough. vnet-run --bpf
 * does, by the hook that the kernel has there, and so reaches programs that make
 * their system calls themselves. The socket is the same in all else: it is born
 * in inet_create() in place of vtoe_create(), and says that its protocol is TCP.
 *
 * The number is none of IP's. One that exists must not be taken: the core puts
 * TCP in front for protocol 0, and will not part with its own.
 */
#include "vtoe.h"

#include <net/inet_common.h>
#include <net/protocol.h>
#include <net/transp_v6.h>

/* From inet_create() and inet6_create(): what vtoe_create() does. */
int vtoe_inet_init_sock(struct sock *sk)
{
	int err;

	vtoe_sk_init(sk);
	err = vtoe_inner_create(vtoe_sk(sk), false);
	if (err)
		return err;
	vtoe_socket_init(sk->sk_socket);
	vtoe_count(sk, VTOE_STAT_SOCKETS);
	return 0;
}

/* Of one that they do not give to the program after all. */
void vtoe_inet_destroy_sock(struct sock *sk)
{
	vtoe_inner_release(vtoe_sk(sk));
}

/* We are in no hash of the core's. */
void vtoe_inet_unhash(struct sock *sk)
{
}

static struct inet_protosw protosw4 = {
	.type = SOCK_STREAM,
	.protocol = VNETPROTO_INET,
	.prot = &vtoe_prot,
	.ops = &vtoe_ops,
};

#if IS_ENABLED(CONFIG_IPV6)
static struct inet_protosw protosw6 = {
	.type = SOCK_STREAM,
	.protocol = VNETPROTO_INET,
	.prot = &vtoe_prot,
	.ops = &vtoe_ops,
};
#endif

int vtoe_inet_init(void)
{
	int err = 0;

	inet_register_protosw(&protosw4);
#if IS_ENABLED(CONFIG_IPV6)
	err = inet6_register_protosw(&protosw6);
	if (err)
		inet_unregister_protosw(&protosw4);
#endif
	return err;
}

void vtoe_inet_exit(void)
{
#if IS_ENABLED(CONFIG_IPV6)
	inet6_unregister_protosw(&protosw6);
#endif
	inet_unregister_protosw(&protosw4);
}

/* 1 is SOCK_STREAM, an enum. */
MODULE_ALIAS_NET_PF_PROTO_TYPE(PF_INET, VNETPROTO_INET, 1);
MODULE_ALIAS_NET_PF_PROTO_TYPE(PF_INET6, VNETPROTO_INET, 1);
