/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * The socket family as programs and libvnetsock see it.
 *
 * socket(AF_INET_VNET, SOCK_STREAM, VNETPROTO_IP4 or VNETPROTO_IP6) takes, and
 * gives back, AF_INET respectively AF_INET6 addresses everywhere.
 */
#ifndef VNET_SOCK_H
#define VNET_SOCK_H

#include "vnet_types.h"

/* Default of the family; module parameter "family" of vtoe_sock, and
 * environment variable VNET_FAMILY of libvnetsock. 19 was AF_ECONET. */
#define AF_INET_VNET_DEFAULT 19

/* Third argument of socket(). */
#define VNETPROTO_IP4 0
#define VNETPROTO_IP6 41 /* IPPROTO_IPV6 */

/* Third argument of socket(AF_INET or AF_INET6, SOCK_STREAM, ...): the same
 * sockets, for what moves programs there that know nothing of the family
 * (vnet-run --bpf). Above 255: no IP packet can carry it. */
#define VNETPROTO_INET 261

/* getsockopt/setsockopt level. */
#define SOL_VNET 390

/* SOL_VNET options. */
#define VNET_SO_PATH 1 /* get: struct vnet_so_path, which way the socket runs */
#define VNET_SO_MODE 2 /* set before connect/listen: int, VNET_MODE_* */

#define VNET_MODE_BOTH 0 /* offload where it can be, else TCP */
#define VNET_MODE_TCP 1	 /* TCP only */
#define VNET_MODE_VNET 2 /* offload only: connect fails with ENETUNREACH instead of falling back */

/* struct vnet_so_path.path */
#define VNET_PATH_UNDECIDED 0
#define VNET_PATH_VTOE 1
#define VNET_PATH_TCP 2

struct vnet_so_path {
	__u32 path;	    /* VNET_PATH_* */
	__u32 reason;	    /* VTOE_REASON_* (vnet_vtoe.h): why TCP, 0 if offloaded */
	__u32 sid;	    /* the guest's name of the connection */
	__u32 fabric;	    /* VTOE_FABRIC_* */
	char reason_name[32]; /* of reason, NUL-terminated */
};
VNET_ASSERT_SIZE(vnet_so_path, 48);

/*
 * sock_diag(7): SOCK_DIAG_BY_FAMILY with NLM_F_DUMP and a struct inet_diag_req_v2
 * whose sdiag_family is the number of our family, and whose idiag_states is a set
 * of 1 << TCP_ESTABLISHED and so on, lists our sockets of the caller's network
 * namespace, each as a struct inet_diag_msg (idiag_family: AF_INET or AF_INET6) with
 * the attributes INET_DIAG_SHUTDOWN (u8) and VNET_DIAG_PATH (struct vnet_so_path).
 * Queues are in bytes; for a listener they are connections that wait, of those that
 * were offloaded, and how many may. A socket that runs over TCP is TCP_CLOSE here;
 * what it does stands in TCP's list.
 */
#define VNET_DIAG_PATH 64 /* beyond INET_DIAG_MAX */

#endif /* VNET_SOCK_H */
