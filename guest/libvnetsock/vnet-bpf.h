/* SPDX-License-Identifier: MIT */
/* What vnet-bpf tells its BPF programs, and what they tell it. */
#ifndef VNET_BPF_H
#define VNET_BPF_H

enum vnet_bpf_scope {
	VNET_BPF_TREE = 1, /* tasks that have a mark, and what they fork */
	VNET_BPF_CGROUP,   /* those below the cgroup in the map */
	VNET_BPF_NETNS,	   /* those in a network namespace */
};

struct vnet_bpf_wanted {
	__u32 scope; /* enum vnet_bpf_scope */
	__u32 netns; /* inode number */
};

struct vnet_bpf_told {
	__u64 moved; /* sockets */
};

#endif /* VNET_BPF_H */
