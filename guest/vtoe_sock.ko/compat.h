/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Everything that differs between the kernels we build for: Debian's 6.1 and
 * 6.12, and the newest of its backports (7.3). No other file asks for
 * LINUX_VERSION_CODE.
 */
#ifndef VTOE_COMPAT_H
#define VTOE_COMPAT_H

#include <linux/mm.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/uio.h>
#include <linux/version.h>
#include <linux/xarray.h>
#include <net/inet_common.h>
#include <net/inet_sock.h>
#include <net/ipv6.h>
#include <net/sock.h>

/* IPv6 is no module since 7.1, and needs no stubs. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 1, 0)
#include <net/addrconf.h>
#define vtoe_ip6_dst_lookup_flow ip6_dst_lookup_flow
#define vtoe_ipv6_dev_find ipv6_dev_find
#else
#include <net/ipv6_stubs.h>
#define vtoe_ip6_dst_lookup_flow ipv6_stub->ipv6_dst_lookup_flow
#define vtoe_ipv6_dev_find ipv6_stub->ipv6_dev_find
#endif

/* What bind() and connect() are given has a type of its own since 6.19. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 19, 0)
#define vtoe_sockaddr sockaddr_unsized
#else
#define vtoe_sockaddr sockaddr
#endif

/* The length is in the msghdr alone since 7.1. */
static inline int vtoe_inet_recv_error(struct sock *sk, struct msghdr *msg, int len)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(7, 1, 0)
	return inet_recv_error(sk, msg, len);
#else
	return inet_recv_error(sk, msg, len, &msg->msg_namelen);
#endif
}

/* accept() got a struct of arguments in 6.10. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#define VTOE_ACCEPT_ARGS struct proto_accept_arg *arg
#define vtoe_accept_flags (arg->flags)
#else
#define VTOE_ACCEPT_ARGS int flags, bool kern
#define vtoe_accept_flags flags
#endif

/*
 * sendpage() went in 6.5, MSG_SPLICE_PAGES came, and who splices says when he
 * has come to the end.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define VTOE_OPS_SENDPAGE .sendpage = sock_no_sendpage,
#define VTOE_OPS_SPLICE_EOF
static inline void vtoe_tell_splice_eof(struct socket *inner)
{
}
#else
#define VTOE_OPS_SENDPAGE
#define VTOE_OPS_SPLICE_EOF .splice_eof = vtoe_splice_eof,
static inline void vtoe_tell_splice_eof(struct socket *inner)
{
	if (inner->ops->splice_eof)
		inner->ops->splice_eof(inner);
}
#endif

/* Since 6.5 a protocol's ioctl() gives a number, and since 6.7 io_uring asks for it. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
#define VTOE_PROTO_IOCTL
static inline int vtoe_ask_inner(struct sock *isk, int cmd, int *value)
{
	return -ENOIOCTLCMD;
}
#else
#define VTOE_PROTO_IOCTL .ioctl = vtoe_queued,
static inline int vtoe_ask_inner(struct sock *isk, int cmd, int *value)
{
	return isk->sk_prot->ioctl(isk, cmd, value);
}
#endif

/*
 * Bytes of a receive buffer to a reader. Before 6.5 splice() reads into an
 * iterator over a pipe, and copy_page_to_iter() does not copy there: the pipe
 * gets our page itself, under operations meant for the page cache. Reading from
 * it then fails with ENODATA, and the host would write the next message into
 * it. So that reader's bytes are really copied. Our pages are never highmem.
 */
static inline size_t vtoe_page_to_iter(struct page *page, size_t offset,
				       size_t len, struct iov_iter *to)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 5, 0)
	if (iov_iter_is_pipe(to))
		return copy_to_iter(page_address(page) + offset, len, to);
#endif
	return copy_page_to_iter(page, offset, len, to);
}

/* The flags of inet_sock became bits in 6.6. */
static inline bool vtoe_bind_no_port(struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	return inet_test_bit(BIND_ADDRESS_NO_PORT, sk);
#else
	return inet_sk(sk)->bind_address_no_port;
#endif
}

static inline void vtoe_set_bind_no_port(struct sock *sk, bool on)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 6, 0)
	inet_assign_bit(BIND_ADDRESS_NO_PORT, sk, on);
#else
	inet_sk(sk)->bind_address_no_port = on;
#endif
}

/*
 * Since 6.6 a socket may ask for its setsockopt() to be called for SOL_SOCKET,
 * too. Before, what was set on ours is copied to the inner one when it is used.
 */
static inline void vtoe_custom_sockopt(struct socket *sock)
{
#ifdef SOCK_CUSTOM_SOCKOPT
	set_bit(SOCK_CUSTOM_SOCKOPT, &sock->flags);
#endif
}

static inline bool vtoe_has_custom_sockopt(void)
{
#ifdef SOCK_CUSTOM_SOCKOPT
	return true;
#else
	return false;
#endif
}

/* Memory of devices may be sent since 6.16. */
static inline struct ubuf_info *vtoe_zerocopy_alloc(struct sock *sk, size_t size)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 16, 0)
	return msg_zerocopy_realloc(sk, size, NULL, false);
#else
	return msg_zerocopy_realloc(sk, size, NULL);
#endif
}

/* TCP knows SO_PEEK_OFF since 6.10. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 10, 0)
#define VTOE_OPS_PEEK_OFF .set_peek_off = sk_set_peek_off,
#else
#define VTOE_OPS_PEEK_OFF
#endif

/* tcp_init_sock() sets this up; SO_DEVMEM_DONTNEED (6.12) uses it on what says it is TCP. */
static inline void vtoe_init_user_frags(struct sock *sk)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
	xa_init_flags(&sk->sk_user_frags, XA_FLAGS_ALLOC1);
#endif
}

/* TCP-AO came in 6.7. */
#define VTOE_TCP_AO_ADD_KEY 38

/* Where inet6 has its part. Before 6.5 it takes the end of the object for that. */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 5, 0)
#define VTOE_PROTO_SIZE(type, member)       \
	.obj_size = sizeof(type),           \
	.ipv6_pinfo_offset = offsetof(type, member),
#else
#define VTOE_PROTO_SIZE(type, member) \
	.obj_size = offsetof(type, member) + sizeof(struct ipv6_pinfo),
#endif

#endif /* VTOE_COMPAT_H */
