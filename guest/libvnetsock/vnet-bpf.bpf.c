// SPDX-License-Identifier: MIT
/*
 * The BPF side of vnet-run --bpf. The kernel asks a function that does nothing,
 * update_socket_protocol(), for the protocol of each socket() call; a program on
 * it answers VNETPROTO_INET for TCP sockets of the processes that are wanted.
 *
 * A process tree is known by a mark on its tasks, which goes on to what they
 * fork, and goes away with them. So a daemon that left its parents is still of
 * the tree, and no number of a process is ever taken for another's.
 *
 * Of the kernel's structs only the members that are read are declared; libbpf
 * finds out where they are.
 */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "vnet-bpf.h"
#include "vnet_sock.h"

#define AF_INET 2
#define AF_INET6 10
#define SOCK_STREAM 1
#define SOCK_TYPE_MASK 0xf
#define IPPROTO_TCP 6

#define OF_THE_KERNEL __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} OF_THE_KERNEL;

struct net {
	struct ns_common ns;
} OF_THE_KERNEL;

struct nsproxy {
	struct net *net_ns;
} OF_THE_KERNEL;

struct task_struct {
	struct nsproxy *nsproxy;
} OF_THE_KERNEL;

const volatile struct vnet_bpf_wanted wanted SEC(".rodata.wanted");
struct vnet_bpf_told told SEC(".bss.told");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, __u32);
} tree SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} cgroup SEC(".maps");

static int is_wanted(void)
{
	struct task_struct *task = bpf_get_current_task_btf();

	switch (wanted.scope) {
	case VNET_BPF_TREE:
		return bpf_task_storage_get(&tree, task, 0, 0) != 0;
	case VNET_BPF_CGROUP:
		return bpf_current_task_under_cgroup(&cgroup, 0) == 1;
	case VNET_BPF_NETNS:
		return task->nsproxy->net_ns->ns.inum == wanted.netns;
	}
	return 0;
}

/* 0: leave it as it is */
SEC("fmod_ret/update_socket_protocol")
int BPF_PROG(move_socket, int family, int type, int protocol)
{
	if ((family != AF_INET && family != AF_INET6) ||
	    (type & SOCK_TYPE_MASK) != SOCK_STREAM ||
	    (protocol != 0 && protocol != IPPROTO_TCP) || !is_wanted())
		return 0;
	__sync_fetch_and_add(&told.moved, 1);
	return VNETPROTO_INET;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(mark_child, struct task_struct *parent, struct task_struct *child)
{
	__u32 mark = 1;

	if (bpf_task_storage_get(&tree, parent, 0, 0))
		bpf_task_storage_get(&tree, child, &mark, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return 0;
}

char _license[] SEC("license") = "Dual MIT/GPL";
