/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * Frame trains: what stands in front of a frame in a guest's rx and tx
 * buffers, and what stands in front of it on a link between two shims.
 *
 *  tx/rx buffer:   [vnet_train_hdr][encapsulation header][inner Ethernet frame]
 *  whole form on a UDP link, cut into datagrams of one size:
 *                  [vnet_seg_hdr][part 0][vnet_seg_hdr][part 1]...
 *      where the parts joined are [vnet_wire_meta][encapsulation][frame]
 *  segmented form on a UDP link, one datagram per segment:
 *                  [encapsulation][frame 0] | [encapsulation][frame 1] | ...
 *
 * The length of the encapsulation header of a frame is what its own header
 * says, never what the vendor block says now.
 */
#ifndef VNET_TRAIN_H
#define VNET_TRAIN_H

#include "vnet_types.h"

/* Never 0: that is how a message of vnet_hello.h begins. */
#define VNET_TRAIN_VERSION 1

/* Forms. */
#define VNET_TRAIN_WHOLE 0     /* one frame of up to 64 KB, nobody segments it */
#define VNET_TRAIN_SEGMENTED 1 /* frames of one size, each with its own encapsulation */

/* Largest inner Ethernet frame of a train of form whole, bytes. */
#define VNET_FRAME_MAX (65535 + 14 + 4)
#define VNET_MTU_MIN 68
#define VNET_MTU_MAX 65000

/* flags; values and meaning of virtio 1.2 section 5.1.6 */
#define VNET_TRAIN_F_NEEDS_CSUM 0x01
#define VNET_TRAIN_F_DATA_VALID 0x02

/* gso_type; values and meaning of virtio 1.2 section 5.1.6 */
#define VNET_GSO_NONE 0
#define VNET_GSO_TCPV4 1
#define VNET_GSO_TCPV6 4
#define VNET_GSO_ECN 0x80

/*
 * Between guest and shim, little-endian. In rx it is written by the shim at
 * the start of the first buffer of a chain of num_buffers buffers (as with
 * VIRTIO_NET_F_MRG_RXBUF); the frame goes on at the start of the next buffer.
 * csum_start counts from the first byte of the inner Ethernet frame.
 */
struct vnet_train_hdr {
	__u8 version;	    /* VNET_TRAIN_VERSION */
	__u8 form;	    /* VNET_TRAIN_* */
	__u8 flags;	    /* VNET_TRAIN_F_* */
	__u8 gso_type;	    /* VNET_GSO_*, NONE in the segmented form */
	__le16 encap_len;   /* bytes of encapsulation in front of each inner frame */
	__le16 gso_size;    /* bytes of TCP payload per segment */
	__le16 hdr_len;	    /* inner Ethernet + IP + TCP headers, a hint */
	__le16 csum_start;
	__le16 csum_offset;
	__le16 num_buffers; /* rx: buffers used; tx: 0 */
	__le32 generation;  /* of the vendor block the train was built for */
	__le32 link;	    /* tx: 0, the shim routes; rx: number of the arriving link */
	__le32 train_len;   /* bytes behind this header */
	__le16 seg_size;    /* segmented: bytes per segment, encapsulation included;
			       the last may be shorter. whole: 0 */
	__le16 reserved;
};
VNET_ASSERT_SIZE(vnet_train_hdr, 32);
VNET_ASSERT_OFFSET(vnet_train_hdr, generation, 16);
VNET_ASSERT_OFFSET(vnet_train_hdr, train_len, 24);

/* First in each datagram of the whole form; network byte order. */
#define VNET_SEG_VERSION 1
struct vnet_seg_hdr {
	__u8 version;	  /* VNET_SEG_VERSION */
	__u8 reserved;
	__be16 index;	  /* of this part, from 0 */
	__be32 train_id;  /* the sender's, unique among trains in flight */
	__be32 train_len; /* bytes of all parts */
	__be16 part_len;  /* bytes of every part but the last: part i starts at i * part_len */
	__be16 reserved1;
};
VNET_ASSERT_SIZE(vnet_seg_hdr, 16);

/* First bytes of the joined parts; network byte order. */
#define VNET_WIRE_META_VERSION 1
struct vnet_wire_meta {
	__u8 version;	 /* VNET_WIRE_META_VERSION */
	__u8 flags;	 /* VNET_TRAIN_F_NEEDS_CSUM or 0 */
	__u8 gso_type;	 /* VNET_GSO_* */
	__u8 encap_type; /* VNET_ENCAP_* of the header that follows */
	__be16 encap_len;
	__be16 gso_size;
	__be16 hdr_len;
	__be16 csum_start;
	__be16 csum_offset;
	__be16 reserved;
};
VNET_ASSERT_SIZE(vnet_wire_meta, 16);

/* RFC 7348 section 5. */
#define VNET_VXLAN_FLAG_VNI 0x08000000u
#define VNET_VXLAN_LEN 8
#define VNET_VXLAN_PORT 4789
struct vnet_vxlan_hdr {
	__be32 flags; /* VNET_VXLAN_FLAG_VNI, all else zero */
	__be32 vni;   /* VNI << 8 */
};
VNET_ASSERT_SIZE(vnet_vxlan_hdr, VNET_VXLAN_LEN);

/* VNET-UDP: the Ethernet frame is the UDP payload. */
#define VNET_UDP_PORT 9000

#endif /* VNET_TRAIN_H */
