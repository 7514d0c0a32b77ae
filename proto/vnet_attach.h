/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * Shim to agent: how a VM's VTOE queues and memory are handed over.
 *
 * An AF_UNIX SOCK_SEQPACKET connection per VM, made by the shim. One message a
 * packet: struct vnet_attach_hdr and a body of exactly the length that its
 * type has; descriptors ride as SCM_RIGHTS, exactly as many as the type says.
 * Same host, same build machine: native byte order is little-endian by
 * VNET_ATTACH_MAGIC, which a peer of the other order would not recognise.
 *
 *  shim                                agent
 *  HELLO ---------------------------->  (the agent's main process moves the
 *  <---------------------- HELLO_REPLY   connection to the tenant's process)
 *  MEM_TABLE + n fds ----------------->
 *  <------------------------------ DONE
 *  QUEUE_START + kick, call, inflight ->  for each VTOE queue
 *  <------------------------------ DONE
 *  ...
 *  <--------------------------- RESOLVE  which host has this MAC?
 *  RESOLVE_REPLY --------------------->
 *  ROUTE_CHANGED --------------------->  forget what RESOLVE_REPLY said
 *  QUEUE_STOP ------------------------>
 *  <------------------------------ DONE  the ring is not touched any more
 *  MEM_TABLE (n = 0) ----------------->
 *  <------------------------------ DONE  nothing is mapped any more
 *
 * MEM_TABLE replaces the whole table; queues are stopped before. Either side
 * closes on a malformed message. End of file ends the attachment: the agent
 * lets go of queues and memory and resets the VM's connections; the shim
 * recovers the queues from their inflight records, tells the guest
 * (VTOE_EV_DEVICE_REMOVAL, VNET_VTOE_DOWN) and tries to attach again.
 */
#ifndef VNET_ATTACH_H
#define VNET_ATTACH_H

#include "vnet_types.h"
#include "vnet_vtoe.h"

#define VNET_ATTACH_MAGIC 0x41544356u /* "VCTA" */
#define VNET_ATTACH_VERSION 1
#define VNET_ATTACH_REGIONS_MAX 8 /* as VHOST_USER_MAX_RAM_SLOTS of old */
#define VNET_NAME_LEN 32	  /* VM and host names, NUL included */

enum vnet_attach_type {
	VNET_ATTACH_HELLO = 1,
	VNET_ATTACH_HELLO_REPLY = 2,
	VNET_ATTACH_MEM_TABLE = 3,
	VNET_ATTACH_QUEUE_START = 4,
	VNET_ATTACH_QUEUE_STOP = 5,
	VNET_ATTACH_DONE = 6,
	VNET_ATTACH_RESOLVE = 7,
	VNET_ATTACH_RESOLVE_REPLY = 8,
	VNET_ATTACH_ROUTE_CHANGED = 9,
};

struct vnet_attach_hdr {
	__le32 magic;
	__le16 type; /* enum vnet_attach_type */
	__le16 reserved;
	__le32 len; /* bytes of body */
	__le32 seq; /* of the request; a reply repeats it */
};
VNET_ASSERT_SIZE(vnet_attach_hdr, 16);

struct vnet_attach_hello { /* no fds */
	__le16 version;
	__le16 reserved;
	__le32 tenant;
	__le64 features; /* zero in version 1 */
	__u8 mac[VNET_MAC_LEN];
	__u8 reserved1[2];
	__le32 rwq_buf_size[VNET_RWQ_CLASSES];
	char vm[VNET_NAME_LEN];
};
VNET_ASSERT_SIZE(vnet_attach_hello, 64);

struct vnet_attach_hello_reply { /* no fds */
	__le32 status; /* enum vtoe_reason; not NONE: the agent closes */
	__le16 version;
	__le16 fabrics; /* mask of 1 << VTOE_FABRIC_* */
	__le64 features;
	char host[VNET_NAME_LEN];
};
VNET_ASSERT_SIZE(vnet_attach_hello_reply, 48);

struct vnet_attach_region {
	__le64 gpa;	    /* guest physical address */
	__le64 size;	    /* bytes */
	__le64 mmap_offset; /* in its fd */
};

struct vnet_attach_mem_table { /* count fds, one a region */
	__le32 count;
	__le32 reserved;
	struct vnet_attach_region region[VNET_ATTACH_REGIONS_MAX];
};
VNET_ASSERT_SIZE(vnet_attach_mem_table, 8 + 24 * VNET_ATTACH_REGIONS_MAX);

/* struct vnet_attach_queue_start.kind */
#define VNET_QUEUE_CR 1
#define VNET_QUEUE_EQ 2
#define VNET_QUEUE_SWQ 3
#define VNET_QUEUE_RWQ 4

/* struct vnet_attach_queue_start.flags */
#define VNET_QUEUE_F_EVENT_IDX 0x0001 /* VIRTIO_F_EVENT_IDX was negotiated */
#define VNET_QUEUE_F_INDIRECT 0x0002  /* VIRTIO_F_INDIRECT_DESC was negotiated */

struct vnet_attach_queue_start { /* 3 fds: kick, call, inflight memfd */
	__le16 queue; /* queue number of the device */
	__u8 kind;    /* VNET_QUEUE_* */
	__u8 index;   /* among those of its kind; for an RWQ its class */
	__le16 num;   /* ring size, a power of two */
	__le16 flags; /* VNET_QUEUE_F_* */
	__le64 desc;  /* guest physical addresses of the three areas */
	__le64 avail;
	__le64 used;
	__le64 inflight_offset; /* of this queue's struct vnet_inflight in the memfd */
};
VNET_ASSERT_SIZE(vnet_attach_queue_start, 40);

struct vnet_attach_queue_stop { /* no fds */
	__le16 queue;
	__u8 reserved[6];
};
VNET_ASSERT_SIZE(vnet_attach_queue_stop, 8);

struct vnet_attach_done { /* no fds; answers MEM_TABLE, QUEUE_START, QUEUE_STOP */
	__le32 status; /* enum vtoe_reason */
	__le32 reserved;
};
VNET_ASSERT_SIZE(vnet_attach_done, 8);

struct vnet_attach_resolve { /* no fds */
	__u8 mac[VNET_MAC_LEN];
	__u8 reserved[2];
};
VNET_ASSERT_SIZE(vnet_attach_resolve, 8);

struct vnet_attach_resolve_reply { /* no fds */
	__le32 status; /* enum vtoe_reason: NONE, NO_ROUTE */
	__le32 reserved;
	struct vtoe_addr agent; /* of the peer's host: its agent's control address */
};
VNET_ASSERT_SIZE(vnet_attach_resolve_reply, 32);

/* ROUTE_CHANGED has no body and no fds. */

#endif /* VNET_ATTACH_H */
