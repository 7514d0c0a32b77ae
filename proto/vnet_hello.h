/* SPDX-License-Identifier: (GPL-2.0-only WITH Linux-syscall-note) OR MIT */
/*
 * The in-band carrier of the vendor block: for a virtio network device that is
 * not the shim's own, QEMU's virtio-net-pci over vhost-user. It shows the guest
 * neither the vendor block nor VNET_F_PARAVIRT_BIT, and its control queue ends in
 * QEMU. What remains are queue pairs, and messages in them.
 *
 * Queues. The VM is started with N = P + VNET_HELLO_RESERVED_PAIRS pairs. To a
 * stock driver all are ordinary. From a HELLO that is answered on, with
 * F = 2P = vtoe_first_queue of the block:
 *   0 .. F-1  rx0, tx0, ... of P pairs, as ever
 *   F         EQ                 F+1  CR
 *   F+2       RWQ, small         F+3  SWQ
 *   F+4       RWQ, large         F+5  not used
 *   2N        control, QEMU's
 *
 * Messages are Ethernet frames in the framing of virtio 1.2 section 5.1.6:
 *   [struct virtio_net_hdr_v1, flags 0][dst, src, EtherType][struct vnet_hello]
 * in one buffer of queue rx0 or tx0, whatever else runs there. Since a train
 * (vnet_train.h) begins with VNET_TRAIN_VERSION, the first byte tells them apart.
 * Neither side forwards them. A stock driver's stack drops them.
 *
 *            driver                          shim
 *   probe    HELLO ------------------------>        cookie, pairs of the device
 *                  <------------------------ ANSWER the block; or REFUSE, a reason
 *            the frames that the driver sends behind HELLO are trains, and those
 *            that arrive behind ANSWER; what arrives before it is dropped. The
 *            driver enables all N pairs when it has the answer.
 *   later          <------------------------ CHANGE a new block
 *   remove   GOODBYE ---------------------->        all pairs are ordinary again
 *
 * A reset of the device is a GOODBYE, too: rings that begin anew. Rings that go
 * on where they stopped (stop and continue of a VM) change nothing. A shim that
 * finds rings in use and does not know by whom, since it has been restarted, says
 * ASK. A vnet_pv driver then resets the device, which gives it back whatever the
 * last shim and agent had of the reserved queues, and begins with HELLO; frames
 * meet nobody until then. A stock driver's next frame tells the shim what it is.
 *
 * CHANGE: only the newest block matters. If rx0 has no buffer, it waits for one.
 */
#ifndef VNET_HELLO_H
#define VNET_HELLO_H

#include "vnet_dev.h"
#include "vnet_types.h"

/* IEEE 802, local experimental EtherType 1 */
#define VNET_HELLO_ETHERTYPE 0x88b5
/* IEEE 802.1AB-2016 table 7-1, nearest bridge: no bridge forwards it. */
#define VNET_HELLO_DST { 0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e }

#define VNET_HELLO_MAGIC 0x4948564eu /* "NVHI", little-endian */
#define VNET_HELLO_VERSION 1

#define VNET_HELLO_RESERVED_PAIRS 3

/* Queue numbers from vtoe_first_queue on. */
#define VNET_HELLO_EQ 0
#define VNET_HELLO_CR 1
#define VNET_HELLO_RWQ_SMALL 2
#define VNET_HELLO_SWQ 3
#define VNET_HELLO_RWQ_LARGE 4
#define VNET_HELLO_UNUSED 5

/* type */
#define VNET_HELLO_HELLO 1   /* from the driver */
#define VNET_HELLO_GOODBYE 2
#define VNET_HELLO_ANSWER 3  /* from the shim */
#define VNET_HELLO_REFUSE 4
#define VNET_HELLO_CHANGE 5
#define VNET_HELLO_ASK 6

/* reason, of REFUSE */
#define VNET_HELLO_R_NONE 0
#define VNET_HELLO_R_VERSION 1 /* the driver's version is not the shim's, which is in `version` */
#define VNET_HELLO_R_LAYOUT 2  /* the shim is not set up for this carrier */
#define VNET_HELLO_R_PAIRS 3   /* the device has another number of pairs than the shim: its number is in `pairs` */
#define VNET_HELLO_R_MAC 4     /* the driver's MAC is not this VM's */
#define VNET_HELLO_R_QUEUE 5   /* HELLO came on another queue than tx0 */
#define VNET_HELLO_REASONS 6

/* How long a driver waits for the answer, and says HELLO again meanwhile. */
#define VNET_HELLO_WAIT_MS 3000
#define VNET_HELLO_AGAIN_MS 500

/* Little-endian. What a type does not use is zero. */
struct vnet_hello {
	__le32 magic;	/* VNET_HELLO_MAGIC */
	__le16 version; /* VNET_HELLO_VERSION, the sender's */
	__le16 size;	/* of this struct, or more in later versions */
	__u8 type;	/* VNET_HELLO_* */
	__u8 reason;	/* VNET_HELLO_R_* */
	__le16 pairs;	/* HELLO, REFUSE: N; ANSWER: P */
	__le16 mtu;	/* ANSWER: of the inner network, bytes; VNET_MTU_MIN to _MAX */
	__le16 reserved;
	__le32 cookie;	/* HELLO: any; ANSWER and REFUSE repeat it */
	__le32 reserved1;
	struct vnet_vendor_block block; /* ANSWER, CHANGE */
};
VNET_ASSERT_SIZE(vnet_hello, 88);
VNET_ASSERT_OFFSET(vnet_hello, type, 8);
VNET_ASSERT_OFFSET(vnet_hello, cookie, 16);
VNET_ASSERT_OFFSET(vnet_hello, block, 24);

#endif /* VNET_HELLO_H */
