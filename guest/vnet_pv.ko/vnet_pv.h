/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The paravirtual network driver: one struct vnpv_dev for each virtio device.
 *
 * Locks and lifetimes.
 *  - conf (what to build) is read under RCU by every packet and replaced by
 *    the config work alone, so a change under load affects whole packets.
 *  - sq: under the netdev tx queue's lock. rq: by its NAPI instance alone, or
 *    while that is disabled.
 *  - The control queue: under rtnl.
 *  - halted: under rtnl. It is set while the queues are not what the open interface
 *    thinks they are: frozen, or between two lives of the device (vnpv_restart()).
 *  - vtoe: vtoe_bus.c says.
 */
#ifndef VNET_PV_H
#define VNET_PV_H

#include <linux/mutex.h>
#include <linux/netdevice.h>
#include <linux/rcupdate.h>
#include <linux/scatterlist.h>
#include <linux/u64_stats_sync.h>
#include <linux/virtio.h>
#include <linux/virtio_net.h>
#include <linux/workqueue.h>

#include "compat.h"
#include "encap.h"
#include "message.h"
#include "vtoe_bus.h"

/* Why a packet was not sent. */
#define VNPV_TX_DROPS(X)                                                       \
	X(NOMEM, "nomem")	/* no memory for headers or segments */        \
	X(LENGTH, "length")	/* shorter than Ethernet, or over VNET_FRAME_MAX */ \
	X(OFFLOAD, "offload")	/* checksum or segmentation could not be done */ \
	X(RING, "ring")		/* no room in the ring */                      \
	X(BROKEN, "broken")	/* the device is lost */

enum vnpv_tx_drop {
#define X(name, str) VNPV_TX_DROP_##name,
	VNPV_TX_DROPS(X)
#undef X
	VNPV_TX_DROP_COUNT,
};

/* Counters of a queue; X(field), shown by ethtool -S. */
#define VNPV_TX_STATS(X) \
	X(packets) X(bytes) X(trains) X(kicks) X(stops) X(wakes) X(timeouts)
#define VNPV_RX_STATS(X) \
	X(packets) X(bytes) X(trains) X(kicks) X(copied) X(stale) X(refill_fails)

struct vnpv_tx_stats {
#define X(name) u64_stats_t name;
	VNPV_TX_STATS(X)
#undef X
	u64_stats_t drops[VNPV_TX_DROP_COUNT];
};

struct vnpv_rx_stats {
#define X(name) u64_stats_t name;
	VNPV_RX_STATS(X)
#undef X
	u64_stats_t drops[VNPV_RX_DROP_COUNT];
};

/*
 * What one entry of a ring refers to. The driver's own table of them, instead
 * of virtqueue_detach_unused_buf(): buffers must be found after the queues are
 * gone, since a transport may have no reset (virtio_uml) and the device lets
 * go of the rings only when they are deleted.
 */
struct vnpv_slot {
	union {
		struct sk_buff *skbs; /* tx: a train, linked by ->next */
		void *buf;	      /* rx: rq->buf_len bytes of a page */
		u32 next_free;
	};
	bool used;
	u32 packets; /* tx: for completion */
	u32 bytes;
};

struct vnpv_slots {
	struct vnpv_slot *slot;
	u32 num;
	u32 free; /* head of the free list; num: none */
};

/* Most scatterlist entries of one chain; the shim takes 256. */
#define VNPV_TX_SG_MAX 192

struct vnpv_sq {
	struct virtqueue *vq;
	struct napi_struct napi;
	struct vnpv_slots slots;
	u32 room;     /* ring entries that any one packet may need */
	bool indirect; /* a chain costs one ring entry */
	struct u64_stats_sync syncp;
	struct vnpv_tx_stats stats;
	char name[16];
	struct scatterlist sg[VNPV_TX_SG_MAX];
};

/* Most buffers of a train: 17 of the smallest size hold the longest. */
#define VNPV_RX_BUFS 17

/* The buffers of the train at hand, and how far they have been read. */
struct vnpv_chain {
	struct {
		u8 *data; /* NULL: a packet has it */
		u32 len;
		bool shared; /* packets have references to its page */
	} buf[VNPV_RX_BUFS];
	u32 bufs;
	u32 at;	 /* buffer */
	u32 off; /* in it */
};

/* Buffers of packets that were copied, to be posted again. */
#define VNPV_RX_SPARE 64

struct vnpv_rq {
	struct virtqueue *vq;
	struct napi_struct napi;
	struct vnpv_dev *vd;
	struct vnpv_slots slots;
	struct page_frag alloc;
	u32 buf_len;
	u32 spares;
	void *spare[VNPV_RX_SPARE];
	struct vnpv_chain chain; /* too large for the stack */
	struct delayed_work refill;
	struct u64_stats_sync syncp;
	struct vnpv_rx_stats stats;
	char name[16];
};

/*
 * Where the vendor block comes from. Both functions may sleep; bus errors show
 * as bytes that are no block. NULL where it comes in messages (hello.c).
 */
struct vnpv_carrier {
	const char *name; /* in sysfs and ethtool */
	/* Where in its space the block begins; negative: this device has none. */
	int (*find)(struct virtio_device *vdev);
	/* Bytes of that space as they are on the wire; len: 4 or 8. */
	void (*get)(struct virtio_device *vdev, u32 at, void *to, u32 len);
};

/* A snapshot of the vendor block. */
struct vnpv_conf {
	struct vnpv_block block;
	struct rcu_head rcu;
};

/* Control command buffers, in memory the device may read and write. */
struct vnpv_ctrl {
	struct virtio_net_ctrl_hdr hdr;
	virtio_net_ctrl_ack status;
	struct virtio_net_ctrl_mq mq;
};

/* Of the in-band carrier. */
struct vnpv_hello {
	void *out; /* a message to be sent, in memory that the device may read */
	struct virtqueue *reserved[2 * VNET_HELLO_RESERVED_PAIRS];
	u16 mtu; /* that the shim said */
	spinlock_t lock; /* the next two */
	struct vnpv_message news; /* the newest block that came */
	bool fresh; /* and nobody has looked at it */
	bool asked; /* a new shim wants to know who we are; READ_ONCE */
	struct delayed_work again; /* it did not answer */
};

struct vnpv_dev {
	struct virtio_device *vdev;
	struct net_device *netdev;
	const struct vnpv_carrier *carrier;
	struct vnpv_conf __rcu *conf;
	struct vnpv_sq *sq;
	struct vnpv_rq *rq;
	struct vnpv_hello hello;
	u16 pairs;	   /* queue pairs for frames */
	u16 active_pairs;  /* in use */
	u16 vtoe_queue;	   /* first VTOE queue, 0: none */
	bool lost;	   /* the device broke; said once */
	bool cvq_lost;	   /* a command was never answered */
	bool halted;
	bool leaving;	   /* the config work does nothing any more */
	struct virtqueue *cvq;
	struct vnpv_ctrl *ctrl;
	struct work_struct config_work;
	struct vnpv_vtoe_port *vtoe_port; /* NULL: no offload */
	u64 vendor_errors; /* changes of the vendor block that were refused */
};

#define VNPV_VTOE_QUEUES (3 + VNET_RWQ_CLASSES) /* CR, EQ, SWQ, RWQs */

extern const struct vnpv_carrier vnpv_carrier_in_band; /* hello.c */

static inline bool vnpv_in_band(const struct vnpv_dev *vd)
{
	return vd->carrier == &vnpv_carrier_in_band;
}

/* Pairs of the device, with those reserved for VTOE. */
static inline u16 vnpv_all_pairs(const struct vnpv_dev *vd)
{
	return vd->pairs + (vnpv_in_band(vd) ? VNET_HELLO_RESERVED_PAIRS : 0);
}

/*
 * Pairs whose rx queues have buffers. In band the device cannot be told how many
 * of them are in use: it is told that all are, since reserved ones must be.
 */
static inline u16 vnpv_rx_pairs(const struct vnpv_dev *vd)
{
	return vnpv_in_band(vd) ? vd->pairs : vd->active_pairs;
}

/* ---- main.c ---- */
extern const struct net_device_ops vnpv_netdev_ops;
int vnpv_set_pairs(struct vnpv_dev *vd, u16 pairs);
int vnpv_open(struct net_device *netdev);
int vnpv_stop(struct net_device *netdev);
/* From now on, until vd->leaving is false again, the config work does nothing. */
void vnpv_stop_config_work(struct vnpv_dev *vd);

/* ---- restart.c ---- */
int vnpv_freeze(struct virtio_device *vdev);
int vnpv_restore(struct virtio_device *vdev);
/*
 * Resets the device under the interface and sets it up again. Connections that
 * are offloaded are reset, packets in the rings lost. Config work only. On an error
 * the interface stays out of use: call it again.
 */
int vnpv_restart(struct vnpv_dev *vd, const char **why);

/* ---- vendor.c: the vendor block ---- */
/* The carrier to use for this device; NULL: it has no vendor block. */
const struct vnpv_carrier *vnpv_vendor_carrier(struct virtio_device *vdev);
/* Reads and checks the block; -EPROTO or -ENODEV with *why. May sleep. */
int vnpv_vendor_read(const struct vnpv_carrier *carrier,
		     struct virtio_device *vdev, struct vnpv_block *block,
		     const char **why);
/* Makes it the one that packets are built by. Probe and config work only. */
int vnpv_vendor_apply(struct vnpv_dev *vd, const struct vnpv_block *block);
void vnpv_vendor_forget(struct vnpv_dev *vd);
void vnpv_config_work(struct work_struct *work);

/* ---- vendor_pci.c: the vendor block in PCI config space ---- */
extern const struct vnpv_carrier vnpv_pci_config;
bool vnpv_on_pci(const struct virtio_device *vdev);
/*
 * Where in config space a virtio capability of that type is, 0: nowhere. Of
 * vendor capabilities: ours. The device is on PCI.
 */
int vnpv_pci_cap_find(struct virtio_device *vdev, u8 cfg_type);
/* ---- hello.c: the vendor block in band ---- */
int vnpv_hello_init(struct vnpv_dev *vd);
void vnpv_hello_exit(struct vnpv_dev *vd);
/*
 * Says hello and takes the block from the answer. The device is live, its queues
 * are new, and nobody else uses them. -ENODEV, -ETIMEDOUT, -EPROTO, -ENOMEM; *why.
 */
int vnpv_hello(struct vnpv_dev *vd, const char **why);
/* Before the reset that ends our time; nobody uses the queues. */
void vnpv_goodbye(struct vnpv_dev *vd);
/* Bytes that are no train. False: they are no message, either. NAPI. */
bool vnpv_hello_received(struct vnpv_rq *rq, const void *data, u32 len);
/* The newest block, once; -ENODATA: it is known. Config work. */
int vnpv_hello_block(struct vnpv_dev *vd, struct vnpv_block *block,
		     const char **why);
/* Answers a new shim's question. True: the device is not usable yet. Config work. */
bool vnpv_hello_asked(struct vnpv_dev *vd);

/* ---- queue.c: virtqueues and what they refer to ---- */
int vnpv_queues_create(struct vnpv_dev *vd);
void vnpv_queues_destroy(struct vnpv_dev *vd);
/* A free slot; NULL cannot be while the ring has a free entry. */
struct vnpv_slot *vnpv_slot_get(struct vnpv_slots *slots);
void vnpv_slot_put(struct vnpv_slots *slots, struct vnpv_slot *slot);
void vnpv_napi_schedule(struct napi_struct *napi, struct virtqueue *vq);
void vnpv_napi_enable(struct napi_struct *napi, struct virtqueue *vq);
bool vnpv_napi_complete(struct napi_struct *napi, struct virtqueue *vq,
			int work);
int vnpv_ctrl_set_pairs(struct vnpv_dev *vd, u16 pairs);
/* Takes the carrier away once the device is lost. Any context. */
void vnpv_lost(struct vnpv_dev *vd);

/* ---- tx.c ---- */
netdev_tx_t vnpv_start_xmit(struct sk_buff *skb, struct net_device *netdev);
int vnpv_tx_poll(struct napi_struct *napi, int budget);
/* Frees what was sent, from the poll of the rx queue beside it. */
void vnpv_tx_clean(struct vnpv_dev *vd, u16 index, int budget);
void vnpv_tx_init(struct vnpv_dev *vd, struct vnpv_sq *sq);
/* Segmentation limits that suit ring and form; before registration. */
void vnpv_tx_limits(struct vnpv_dev *vd, const struct vnpv_block *block);
void vnpv_tx_release(struct vnpv_slot *slot);
void vnpv_tx_timeout(struct net_device *netdev, unsigned int index);
netdev_features_t vnpv_features_check(struct sk_buff *skb,
				      struct net_device *netdev,
				      netdev_features_t features);

/* ---- rx.c ---- */
int vnpv_rx_poll(struct napi_struct *napi, int budget);
void vnpv_rx_init(struct vnpv_rq *rq);
/* Posts buffers until the ring is full; false if memory ran out. */
bool vnpv_rx_fill(struct vnpv_rq *rq, gfp_t gfp);
bool vnpv_rx_fill_some(struct vnpv_rq *rq, u32 count, gfp_t gfp);
/*
 * Copies what one used buffer begins with, at most max bytes, and takes the buffer
 * out; *len: bytes that were in it. False: there is none. While NAPI is disabled.
 */
bool vnpv_rx_peek(struct vnpv_rq *rq, void *to, u32 max, u32 *len);
void vnpv_rx_refill_work(struct work_struct *work);
void vnpv_rx_release(struct vnpv_rq *rq);

/* ---- ethtool.c, sysfs.c ---- */
extern const struct ethtool_ops vnpv_ethtool_ops;
extern const struct attribute_group vnpv_sysfs_group;
extern const char *const vnpv_rx_drop_names[VNPV_RX_DROP_COUNT];
extern const char *const vnpv_tx_drop_names[VNPV_TX_DROP_COUNT];
const char *vnpv_encap_type_name(u8 type);
const char *vnpv_train_form_name(u8 form);
const char *vnpv_vtoe_state_name(u8 state);

/* ---- vtoe_bus.c ---- */
/* Virtqueue callback of every VTOE queue. */
void vnpv_vtoe_event(struct virtqueue *vq);
int vnpv_vtoe_create(struct vnpv_dev *vd, struct virtqueue *vqs[]);
/* Shows the queues to vtoe_sock; a failure costs the offload alone. */
void vnpv_vtoe_publish(struct vnpv_dev *vd);
/* The bound driver is gone on return; interrupts may still come. */
void vnpv_vtoe_withdraw(struct vnpv_dev *vd);
/* Before the withdrawal, if the device was reset: nothing will come back. */
void vnpv_vtoe_lost(struct vnpv_dev *vd);
/* After the virtqueues are gone. */
void vnpv_vtoe_destroy(struct vnpv_dev *vd);
void vnpv_vtoe_state(struct vnpv_dev *vd, const struct vnpv_block *block);

#endif /* VNET_PV_H */
