/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * The device as the guest's driver sees it: a virtio network device (device
 * id 1, virtio 1.2 section 5.1) with a vendor block and, behind the network
 * queues, the queues of the virtual TCP offload engine (VTOE).
 *
 * Carriers of the vendor block:
 *  - virtio config space at VNET_VENDOR_CONFIG_OFFSET (transports without PCI;
 *    one read fetches it whole);
 *  - a VIRTIO_PCI_CAP_VENDOR_CFG capability in PCI config space, struct
 *    vnet_pci_vendor_cap. It is read in pieces: read the generation before and
 *    after, and again if they differ. A PCI device that has this capability
 *    may have the block in its config space as well; vnet_pv reads the
 *    capability then;
 *  - messages in its queues, where the device is another's (vnet_hello.h, which
 *    also has other queue numbers).
 * The device announces VNET_F_PARAVIRT_BIT; a driver that accepts it puts a
 * struct vnet_train_hdr (vnet_train.h) instead of a virtio_net_hdr in front of
 * every buffer. One that does not is a stock virtio_net driver, and the host
 * encapsulates.
 *
 * Queue numbers with P = max_virtqueue_pairs of struct virtio_net_config:
 *   0 .. 2P-1  rx0, tx0, rx1, tx1, ...
 *   2P         control (always present)
 *   F          CR, command register queue     F = vendor block's vtoe_first_queue
 *   F+1        EQ, event queue
 *   F+2 ..     SWQ x vtoe_swq_count, then RWQ x vtoe_rwq_count
 */
#ifndef VNET_DEV_H
#define VNET_DEV_H

#include "vnet_types.h"

/*
 * Device-specific feature bit of a virtio network device that no virtio
 * specification up to 1.3 assigns (50 is DEVICE_STATS, 52 VQ_NOTF_COAL).
 */
#define VNET_F_PARAVIRT_BIT 51

/* A vhost-user config ends at 256 bytes and virtio_net_config grows. */
#define VNET_VENDOR_CONFIG_OFFSET 0x80
#define VNET_VENDOR_MAGIC 0x54454e56u /* "VNET", little-endian */
#define VNET_VENDOR_VERSION 1

/* struct vnet_vendor_block.encap_type: what the guest builds and strips. */
#define VNET_ENCAP_VNET_UDP 0 /* the Ethernet frame is the payload, length 0 */
#define VNET_ENCAP_VXLAN 1    /* RFC 7348 section 5, 8 bytes */

/* Bytes a driver must always be able to reserve. */
#define VNET_ENCAP_LEN_MAX 330

/* struct vnet_vendor_block.vtoe_state */
#define VNET_VTOE_ABSENT 0  /* this VM has no offload; there are no VTOE queues */
#define VNET_VTOE_DOWN 1    /* the agent is away; commands are not answered */
#define VNET_VTOE_UP 2	    /* the agent serves the queues */

/* Receive work queue classes; a message's length decides its class. */
#define VNET_RWQ_SMALL 0
#define VNET_RWQ_LARGE 1
#define VNET_RWQ_CLASSES 2

/*
 * Written by the host only. A change raises a configuration-change interrupt
 * and a new generation; frames in flight race with that, so every train says
 * which header length it was really built with.
 */
struct vnet_vendor_block {
	__le32 magic;		 /* VNET_VENDOR_MAGIC */
	__le16 version;		 /* VNET_VENDOR_VERSION */
	__le16 size;		 /* valid bytes from the start of this struct */
	__le64 features;	 /* none defined in version 1: zero */
	__le32 generation;	 /* changes with every other field */
	__le32 tenant;		 /* 24 bit; the VNI where the encapsulation has one */
	__le16 encap_len;	 /* bytes to build in front of the inner Ethernet frame */
	__le16 encap_len_max;	 /* encap_len never exceeds this while the device lives */
	__u8 encap_type;	 /* VNET_ENCAP_* */
	__u8 train_form;	 /* VNET_TRAIN_* the guest should build, vnet_train.h */
	__u8 vtoe_state;	 /* VNET_VTOE_* */
	__u8 reserved0;
	__le16 vtoe_first_queue; /* F, see above; 0 if VNET_VTOE_ABSENT */
	__le16 vtoe_swq_count;	 /* 1 in version 1 */
	__le16 vtoe_rwq_count;	 /* VNET_RWQ_CLASSES in version 1 */
	__le16 reserved1;
	__le32 rwq_buf_size[VNET_RWQ_CLASSES]; /* payload bytes of one buffer */
	__le32 vtoe_epoch;	 /* counts attachments of an agent; 0 = none yet */
	__u8 reserved2[12];
};
VNET_ASSERT_SIZE(vnet_vendor_block, 64);
VNET_ASSERT_OFFSET(vnet_vendor_block, generation, 16);
VNET_ASSERT_OFFSET(vnet_vendor_block, encap_len, 24);
VNET_ASSERT_OFFSET(vnet_vendor_block, vtoe_first_queue, 32);
VNET_ASSERT_OFFSET(vnet_vendor_block, rwq_buf_size, 40);

/*
 * The block as a vendor data capability (virtio 1.2 section 4.1.4.8). Reading it
 * has no side effects; it is written by the host only. vendor_id is not assigned
 * to us by the PCI-SIG: a driver looks at it, cap_len and the block's magic.
 */
#define VNET_PCI_CAP_VNDR 0x09	     /* PCI_CAP_ID_VNDR */
#define VNET_PCI_CAP_VENDOR_CFG 0x09 /* VIRTIO_PCI_CAP_VENDOR_CFG */
#define VNET_PCI_CAP_VENDOR_ID 0x4e50

struct vnet_pci_vendor_cap {
	__u8 cap_vndr; /* VNET_PCI_CAP_VNDR */
	__u8 cap_next;
	__u8 cap_len;  /* of this struct, or more in later versions */
	__u8 cfg_type; /* VNET_PCI_CAP_VENDOR_CFG */
	__le16 vendor_id; /* VNET_PCI_CAP_VENDOR_ID */
	__le16 reserved;
	struct vnet_vendor_block block;
};
VNET_ASSERT_SIZE(vnet_pci_vendor_cap, 72);
VNET_ASSERT_OFFSET(vnet_pci_vendor_cap, block, 8);

/*
 * Record of a split virtqueue that outlives the process that serves it: one
 * per VTOE queue, in a memfd that the shim makes and the agent maps (and the
 * shim keeps one for its own queues). Their order in the memfd is that of the
 * queues: CR, EQ, SWQ, RWQ small, RWQ large; each takes VNET_INFLIGHT_STRIDE.
 *
 * The server sets taken[head] and only then advances last_avail; it writes
 * used elements, advances used->idx, clears taken[] of those heads and only
 * then advances used_idx here. After a crash the successor clears taken[] of
 * the heads in used entries [used_idx, used->idx) and returns what is still
 * taken, and what is available but not taken, with length 0.
 */
#define VNET_INFLIGHT_VERSION 1
#define VNET_INFLIGHT_HEADS 4096
#define VNET_INFLIGHT_STRIDE 8192

struct vnet_inflight {
	__le16 version;
	__le16 num;	   /* ring size */
	__le16 last_avail; /* next avail ring position to take, free running */
	__le16 used_idx;   /* used entries fully accounted for, free running */
	__u8 taken[VNET_INFLIGHT_HEADS];
	__u8 reserved[VNET_INFLIGHT_STRIDE - 8 - VNET_INFLIGHT_HEADS];
};
VNET_ASSERT_SIZE(vnet_inflight, VNET_INFLIGHT_STRIDE);

#endif /* VNET_DEV_H */
