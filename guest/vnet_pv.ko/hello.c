// SPDX-License-Identifier: GPL-2.0-only
/*
 * The in-band carrier of the vendor block (vnet_hello.h): for a virtio-net-pci of
 * QEMU's, which has neither our feature bit nor a place for the block.
 *
 * The hello is said while nobody else uses the queues: in probe, and when the
 * device begins anew under a running interface (vnpv_restart()), with NAPI
 * disabled and the tx queues stopped. Later messages arrive on rx0 among the
 * trains, in NAPI context; they are kept, newest block only, for the config work.
 *
 * Threat model: as encap.c's; message.c checks. A message is copied once; what is not understood is
 * dropped and counted as a train of another version is. Before the shim has
 * answered nothing says that there is one: any frame of a plain network may come,
 * and our own message may have gone out to it, which is why it is one small frame
 * to an address that bridges do not forward.
 */
#include <linux/delay.h>
#include <linux/netdevice.h>
#include <linux/random.h>
#include <linux/slab.h>

#include "vnet_pv.h"

/* Receive buffers for the answer, and for frames that come before it. */
#define BUFS 8
#define GOODBYE_WAIT (HZ / 5)
#define RESTART_RETRY HZ

const struct vnpv_carrier vnpv_carrier_in_band = { .name = "in-band" };

static void restart_again(struct work_struct *work)
{
	struct vnpv_dev *vd = container_of(to_delayed_work(work),
					   struct vnpv_dev, hello.again);

	schedule_work(&vd->config_work);
}

int vnpv_hello_init(struct vnpv_dev *vd)
{
	spin_lock_init(&vd->hello.lock);
	INIT_DELAYED_WORK(&vd->hello.again, restart_again);
	vd->hello.out = kmalloc(VNPV_MESSAGE_LEN, GFP_KERNEL);
	return vd->hello.out ? 0 : -ENOMEM;
}

void vnpv_hello_exit(struct vnpv_dev *vd)
{
	kfree(vd->hello.out);
}

/* ---- sending, while nobody else uses tx0 ---- */

static int send(struct vnpv_dev *vd, u8 type, u32 cookie)
{
	struct vnpv_sq *sq = &vd->sq[0];
	struct vnpv_slot *slot;
	struct scatterlist sg;
	int err;

	slot = vnpv_slot_get(&sq->slots);
	if (!slot)
		return -ENOSPC;
	slot->skbs = NULL; /* that is how reap() knows it */
	slot->packets = 0;
	slot->bytes = 0;
	vnpv_message_build(vd->hello.out, vd->netdev->dev_addr, type,
			   type == VNET_HELLO_HELLO ? vnpv_all_pairs(vd) : 0,
			   cookie);
	sg_init_one(&sg, vd->hello.out, VNPV_MESSAGE_LEN);
	err = virtqueue_add_outbuf(sq->vq, &sg, 1, slot, GFP_KERNEL);
	if (err) {
		vnpv_slot_put(&sq->slots, slot);
		return err;
	}
	virtqueue_kick(sq->vq);
	return 0;
}

/* Frees what was sent. True: the message, too. */
static bool reap(struct vnpv_sq *sq)
{
	struct vnpv_slot *slot;
	bool message = false;
	unsigned int len;

	while ((slot = virtqueue_get_buf(sq->vq, &len))) {
		message |= !slot->skbs;
		vnpv_tx_release(slot);
		vnpv_slot_put(&sq->slots, slot);
	}
	return message;
}

void vnpv_goodbye(struct vnpv_dev *vd)
{
	unsigned long end = jiffies + GOODBYE_WAIT;

	if (!vnpv_in_band(vd) || vd->halted)
		return;
	reap(&vd->sq[0]);
	/* Best effort: the reset that follows says the same. */
	if (send(vd, VNET_HELLO_GOODBYE, 0))
		return;
	while (!reap(&vd->sq[0]) && time_before(jiffies, end))
		usleep_range(50, 200);
}

/* ---- the answer ---- */

/* Until the answer is there. What else comes is dropped. */
static int wait_answer(struct vnpv_dev *vd, u32 cookie,
		       struct vnpv_block *block, const char **why)
{
	unsigned long end = jiffies + msecs_to_jiffies(VNET_HELLO_WAIT_MS);
	unsigned long again = jiffies + msecs_to_jiffies(VNET_HELLO_AGAIN_MS);
	struct vnpv_rq *rq = &vd->rq[0];
	u8 bytes[VNPV_MESSAGE_LEN];
	struct vnpv_message m;
	bool taken = false;
	int err;
	u32 len;

	do {
		while (vnpv_rx_peek(rq, bytes, sizeof(bytes), &len)) {
			vnpv_rx_fill_some(rq, 1, GFP_KERNEL);
			if (!vnpv_message_parse(bytes, len, &m))
				continue;
			vd->hello.mtu = m.mtu;
			err = vnpv_message_answer(&m, vd->pairs, cookie, block,
						  why);
			if (err != -EAGAIN)
				return err;
		}
		taken |= reap(&vd->sq[0]);
		/* Unless it was taken, it still lies there for the next shim. */
		if (taken && time_after(jiffies, again)) {
			err = send(vd, VNET_HELLO_HELLO, cookie);
			if (err) {
				*why = "the device does not take frames";
				return err;
			}
			taken = false;
			again = jiffies + msecs_to_jiffies(VNET_HELLO_AGAIN_MS);
		}
		usleep_range(100, 500);
	} while (time_before(jiffies, end));
	*why = "no vnet-shim answers";
	return -ETIMEDOUT;
}

int vnpv_hello(struct vnpv_dev *vd, const char **why)
{
	struct virtqueue *const *q = vd->hello.reserved;
	struct virtqueue *vtoe[VNPV_VTOE_QUEUES] = {
		q[VNET_HELLO_CR], q[VNET_HELLO_EQ], q[VNET_HELLO_SWQ],
		q[VNET_HELLO_RWQ_SMALL], q[VNET_HELLO_RWQ_LARGE],
	};
	u32 cookie = get_random_u32();
	struct vnpv_block block;
	int err;

	*why = "no memory";
	if (!vnpv_rx_fill_some(&vd->rq[0], BUFS, GFP_KERNEL))
		return -ENOMEM;
	err = send(vd, VNET_HELLO_HELLO, cookie);
	if (err)
		return err;
	err = wait_answer(vd, cookie, &block, why);
	if (err)
		return err;
	*why = "no memory";
	err = vnpv_vendor_apply(vd, &block);
	if (!err && block.vtoe_state != VNET_VTOE_ABSENT)
		err = vnpv_vtoe_create(vd, vtoe);
	return err;
}

/* ---- later messages ---- */

bool vnpv_hello_received(struct vnpv_rq *rq, const void *data, u32 len)
{
	struct vnpv_dev *vd = rq->vd;
	struct vnpv_message m;

	if (!vnpv_in_band(vd) || rq != &vd->rq[0])
		return false;
	if (!vnpv_message_parse(data, len, &m) || !m.whole)
		return false;
	switch (m.type) {
	case VNET_HELLO_ANSWER: /* to a hello said twice */
	case VNET_HELLO_CHANGE:
		spin_lock_bh(&vd->hello.lock);
		vd->hello.news = m;
		vd->hello.fresh = true;
		spin_unlock_bh(&vd->hello.lock);
		break;
	case VNET_HELLO_ASK:
		WRITE_ONCE(vd->hello.asked, true);
		break;
	default:
		return false;
	}
	schedule_work(&vd->config_work);
	return true;
}

int vnpv_hello_block(struct vnpv_dev *vd, struct vnpv_block *block,
		     const char **why)
{
	struct vnpv_message m;
	bool fresh;

	spin_lock_bh(&vd->hello.lock);
	m = vd->hello.news;
	fresh = vd->hello.fresh;
	vd->hello.fresh = false;
	spin_unlock_bh(&vd->hello.lock);
	return fresh ? vnpv_message_block(&m, vd->pairs, block, why) : -ENODATA;
}

bool vnpv_hello_asked(struct vnpv_dev *vd)
{
	const char *why = "";
	int err;

	if (!READ_ONCE(vd->hello.asked))
		return false;
	if (!vd->halted)
		netdev_info(vd->netdev, "another vnet-shim serves the device: it begins anew\n");
	WRITE_ONCE(vd->hello.asked, false);
	err = vnpv_restart(vd, &why);
	if (!err)
		return false;
	netdev_err(vd->netdev, "the device does not begin anew: %s (%d); trying again\n",
		   why, err);
	WRITE_ONCE(vd->hello.asked, true);
	schedule_delayed_work(&vd->hello.again, RESTART_RETRY);
	return true;
}
