// SPDX-License-Identifier: GPL-2.0-only
/*
 * Commands: the CR queue. The agent executes them in order, so SOCKET and
 * CONNECT go out together. NAPI collects the answers; a command's done() runs
 * there, or, with REMOVED, when the epoch ends. What finds the ring full waits
 * in a list.
 *
 * Most answers are no news: an event follows, or only memory waits for them.
 * Such commands are lazy. While there are no others under way the queue does not
 * interrupt; their answers are collected whenever NAPI runs, LAZY_DELAY later
 * at the latest. CLOSE at the orderly end of a connection only frees: it does
 * not even ring (quiet), but goes along with the next command or by that time.
 *
 * The same work reaps the SWQ, twice a second, until it is empty: what the host has
 * given back of a connection that is over would wait for the next message of
 * another, and hold its socket until then.
 */
#include "vtoe.h"

#include <linux/scatterlist.h>
#include <linux/slab.h>

#define LAZY_DELAY msecs_to_jiffies(4)
#define REAP_DELAY (HZ / 2)

struct vtoe_cr *vtoe_cr_alloc(u16 opcode, struct vtoe_sid *entry, gfp_t gfp)
{
	struct vtoe_cr *cr = kzalloc(sizeof(*cr), gfp);

	if (!cr)
		return NULL;
	cr->cmd.opcode = cpu_to_le16(opcode);
	cr->entry = entry;
	cr->lazy = true;
	if (entry)
		cr->cmd.sid = cpu_to_le32(entry->sid);
	return cr;
}

/* cr_lock */
static int cr_add(struct vtoe_dev *dev, struct vtoe_cr *cr)
{
	struct scatterlist out, in, *sgs[] = { &out, &in };
	int err;

	sg_init_one(&out, &cr->cmd, sizeof(cr->cmd));
	sg_init_one(&in, &cr->reply, sizeof(cr->reply));
	err = virtqueue_add_sgs(dev->cr, sgs, 1, 1, cr, GFP_ATOMIC);
	if (!err)
		dev->cr_used++;
	return err;
}

/* False: the queue is closed, and the command is still the caller's. */
bool vtoe_cr_send(struct vtoe_dev *dev, struct vtoe_cr *cr)
{
	bool open, lazy = cr->lazy, quiet = cr->quiet, collect = false;

	spin_lock_bh(&dev->cr_lock);
	open = dev->cr_open;
	if (open) {
		if (cr->entry) {
			vtoe_sid_get(cr->entry);
			cr->sk = vtoe_sock(cr->entry->vs);
			sock_hold(cr->sk);
		}
		if (!list_empty(&dev->cr_queue) || cr_add(dev, cr))
			list_add_tail(&cr->node, &dev->cr_queue);
		/* Those whose answers were not looked at must be collected first. */
		if (!cr->lazy && !dev->cr_urgent++)
			collect = !virtqueue_enable_cb(dev->cr);
		vtoe_stat_add(dev_net(dev->netdev), VTOE_STAT_COMMANDS, 1);
		/* In here: who closes the queue cancels the work then. */
		if (lazy && (!delayed_work_pending(&dev->lazy_work) || dev->lazy_slow)) {
			dev->lazy_slow = false;
			mod_delayed_work(vtoe_wq, &dev->lazy_work, LAZY_DELAY);
		}
	}
	if (collect)
		napi_schedule(&dev->napi);
	spin_unlock_bh(&dev->cr_lock);
	if (!open)
		return false;
	if (!quiet)
		vtoe_kick(dev, dev->cr, &dev->cr_lock);
	return true;
}

void vtoe_cr_lazy_work(struct work_struct *work)
{
	struct vtoe_dev *dev = container_of(to_delayed_work(work), struct vtoe_dev, lazy_work);
	bool commands = READ_ONCE(dev->cr_used);

	if (!READ_ONCE(dev->cr_open) || (!commands && !READ_ONCE(dev->swq_used)))
		return;
	if (commands)
		vtoe_kick(dev, dev->cr, &dev->cr_lock);
	local_bh_disable();
	napi_schedule(&dev->napi);
	local_bh_enable();
	WRITE_ONCE(dev->lazy_slow, !commands);
	queue_delayed_work(vtoe_wq, &dev->lazy_work, commands ? LAZY_DELAY : REAP_DELAY);
}

/* Answers, oldest first. */
void vtoe_cr_collect(struct vtoe_dev *dev, struct list_head *done)
{
	struct vtoe_cr *cr;
	bool kick = false;
	u32 len;

	spin_lock_bh(&dev->cr_lock);
	while ((cr = vtoe_get_buf(dev, dev->cr, &len))) {
		dev->cr_used--;
		if (!cr->lazy)
			dev->cr_urgent--;
		cr->status = len < offsetofend(struct vtoe_reply, sid) ?
			     VTOE_REASON_REMOVED : le32_to_cpu(cr->reply.status);
		list_add_tail(&cr->node, done);
	}
	while (dev->cr_open && !list_empty(&dev->cr_queue)) {
		cr = list_first_entry(&dev->cr_queue, struct vtoe_cr, node);
		if (cr_add(dev, cr))
			break;
		list_del(&cr->node);
		kick = true;
	}
	spin_unlock_bh(&dev->cr_lock);
	if (kick)
		vtoe_kick(dev, dev->cr, &dev->cr_lock);
}

void vtoe_cr_set_open(struct vtoe_dev *dev, bool open, struct list_head *rest)
{
	struct vtoe_cr *cr;

	spin_lock_bh(&dev->cr_lock);
	dev->cr_open = open;
	if (!open) {
		list_for_each_entry(cr, &dev->cr_queue, node) {
			cr->status = VTOE_REASON_REMOVED;
			if (!cr->lazy)
				dev->cr_urgent--;
		}
		list_splice_tail_init(&dev->cr_queue, rest);
	}
	spin_unlock_bh(&dev->cr_lock);
}

void vtoe_cr_complete(struct vtoe_dev *dev, struct list_head *done)
{
	struct vtoe_cr *cr, *next;

	list_for_each_entry_safe(cr, next, done, node) {
		struct vtoe_sid *entry = cr->entry;
		struct sock *sk = cr->sk;
		bool embedded = cr->embedded;

		list_del(&cr->node);
		if (cr->done)
			cr->done(dev, cr, cr->status);
		if (!embedded)
			kfree(cr);
		if (entry) {
			vtoe_sid_put(entry);
			sock_put(sk);
		}
	}
}

/* ---- commands that somebody waits for ---- */

struct call {
	struct completion done;
	struct vtoe_reply reply;
	u32 status;
};

static void call_done(struct vtoe_dev *dev, struct vtoe_cr *cr, u32 status)
{
	struct call *call;

	spin_lock_bh(&dev->cr_lock);
	call = (struct call *)cr->waiter;
	if (call) {
		call->reply = cr->reply;
		call->status = status;
		complete(&call->done);
	}
	spin_unlock_bh(&dev->cr_lock);
}

u32 vtoe_cr_call(struct vtoe_dev *dev, struct vtoe_cmd *cmd, struct vtoe_reply *reply,
		 unsigned long timeout)
{
	struct vtoe_cr *cr = vtoe_cr_alloc(0, NULL, GFP_KERNEL);
	struct call call;

	if (!cr)
		return VTOE_REASON_LIMIT;
	init_completion(&call.done);
	cr->cmd = *cmd;
	cr->lazy = false;
	cr->waiter = (struct completion *)&call;
	cr->done = call_done;
	if (!vtoe_cr_send(dev, cr)) {
		kfree(cr);
		return VTOE_REASON_REMOVED;
	}
	if (!wait_for_completion_timeout(&call.done, timeout)) {
		spin_lock_bh(&dev->cr_lock);
		if (!completion_done(&call.done)) {
			cr->waiter = NULL; /* an answer that comes after all frees it */
			spin_unlock_bh(&dev->cr_lock);
			return VTOE_REASON_TIMEOUT;
		}
		spin_unlock_bh(&dev->cr_lock);
	}
	*reply = call.reply;
	return call.status;
}

/* ---- the commands ---- */

static void opening_done(struct vtoe_dev *dev, struct vtoe_cr *cr, u32 status)
{
	if (status)
		vtoe_connect_failed(cr->entry->vs, status);
}

/* lock_sock */
int vtoe_cmd_connect(struct vtoe_sock *vs)
{
	struct vtoe_sid *entry = vs->conn;
	struct vtoe_dev *dev = entry->dev;
	struct vtoe_cr *sock = vtoe_cr_alloc(VTOE_CMD_SOCKET, entry, GFP_KERNEL);
	struct vtoe_cr *conn = vtoe_cr_alloc(VTOE_CMD_CONNECT, entry, GFP_KERNEL);

	if (!sock || !conn)
		goto err;
	sock->done = opening_done;
	conn->done = opening_done;
	conn->cmd.u.connect.local = vs->local;
	conn->cmd.u.connect.remote = vs->remote;
	memcpy(conn->cmd.u.connect.next_hop, vs->next_hop, ETH_ALEN);
	spin_lock_bh(&vs->lock);
	spin_lock(&dev->pool_lock);
	if (vtoe_epoch_ok(entry))
		vtoe_rx_grant(&dev->pool, &vs->rx, &conn->cmd.u.connect.credit);
	spin_unlock(&dev->pool_lock);
	spin_unlock_bh(&vs->lock);

	if (!vtoe_cr_send(dev, sock))
		goto err;
	entry->known = true;
	if (vtoe_cr_send(dev, conn))
		return 0;
	sock = NULL;
err:
	kfree(sock);
	kfree(conn);
	return -ENODEV;
}

static void announce_done(struct vtoe_dev *dev, struct vtoe_cr *cr, u32 status)
{
	if (status && status != VTOE_REASON_REMOVED)
		pr_info_ratelimited("listener on port %u is not offloaded: %s\n",
				    ntohs(cr->entry->vs->local.port),
				    vtoe_reason_name(status));
}

/* lock_sock */
int vtoe_cmd_announce(struct vtoe_sid *entry, const struct vtoe_addr *local, u32 backlog)
{
	struct vtoe_dev *dev = entry->dev;
	struct vtoe_cr *cr[3];
	int i;

	cr[0] = vtoe_cr_alloc(VTOE_CMD_SOCKET, entry, GFP_KERNEL);
	cr[1] = vtoe_cr_alloc(VTOE_CMD_BIND, entry, GFP_KERNEL);
	cr[2] = vtoe_cr_alloc(VTOE_CMD_LISTEN, entry, GFP_KERNEL);
	i = 0;
	if (!cr[0] || !cr[1] || !cr[2])
		goto err;
	cr[1]->cmd.u.bind.local = *local;
	cr[2]->cmd.u.listen.backlog = cpu_to_le32(backlog);
	cr[2]->done = announce_done;
	for (i = 0; i < 3; i++) {
		if (!vtoe_cr_send(dev, cr[i]))
			goto err;
		entry->known = true;
	}
	return 0;

err:
	for (; i < 3; i++)
		kfree(cr[i]);
	return -ENODEV;
}

static void accept_done(struct vtoe_dev *dev, struct vtoe_cr *cr, u32 status)
{
	/* An agent that says more than the status says which fabric it is. */
	if (!status)
		cr->entry->vs->fabric = le16_to_cpu(cr->reply.u.info.fabric);
	vtoe_child_answered(cr->entry->vs, status);
}

/* softirq */
int vtoe_cmd_accept(struct vtoe_sid *entry, u32 cid)
{
	struct vtoe_cr *cr = vtoe_cr_alloc(VTOE_CMD_ACCEPT, entry, GFP_ATOMIC);
	struct vtoe_dev *dev = entry->dev;
	struct vtoe_sock *vs = entry->vs;

	if (!cr)
		return -ENOMEM;
	cr->done = accept_done;
	cr->lazy = false; /* accept() waits for the child */
	cr->cmd.u.accept.cid = cpu_to_le32(cid);
	spin_lock_bh(&vs->lock);
	spin_lock(&dev->pool_lock);
	if (vtoe_epoch_ok(entry))
		vtoe_rx_grant(&dev->pool, &vs->rx, &cr->cmd.u.accept.credit);
	spin_unlock(&dev->pool_lock);
	entry->known = true;
	spin_unlock_bh(&vs->lock);
	if (vtoe_cr_send(dev, cr))
		return 0;
	entry->known = false;
	kfree(cr);
	return -ENODEV;
}

/* softirq. If there is no memory the agent's own time limit answers the peer. */
void vtoe_cmd_reject(struct vtoe_dev *dev, u32 cid, u32 reason)
{
	struct vtoe_cr *cr = vtoe_cr_alloc(VTOE_CMD_REJECT, NULL, GFP_ATOMIC);

	if (!cr)
		return;
	cr->cmd.u.reject.cid = cpu_to_le32(cid);
	cr->cmd.u.reject.reason = cpu_to_le32(reason);
	if (!vtoe_cr_send(dev, cr))
		kfree(cr);
}

static void shutdown_done(struct vtoe_dev *dev, struct vtoe_cr *cr, u32 status)
{
	if (status)
		vtoe_reset(cr->entry->vs, status);
}

int vtoe_cmd_shutdown(struct vtoe_sid *entry, u64 final, gfp_t gfp)
{
	struct vtoe_cr *cr = vtoe_cr_alloc(VTOE_CMD_SHUTDOWN, entry, gfp);

	if (!cr)
		return -ENOBUFS;
	cr->cmd.u.shutdown.final_offset = cpu_to_le64(final);
	cr->done = shutdown_done;
	if (!vtoe_cr_send(entry->dev, cr))
		kfree(cr); /* the reset of everything is on its way */
	return 0;
}

static void forget(struct vtoe_sid *entry)
{
	vtoe_pool_close(entry);
	if (!entry->listener && !READ_ONCE(entry->gone)) /* the socket may have another */
		vtoe_work_cancel(entry->vs); /* or it keeps the sock for its time limit */
	vtoe_sid_remove(entry);
}

/* No message can come for the SID any more: NAPI drained the RWQ after the answer. */
static void close_done(struct vtoe_dev *dev, struct vtoe_cr *cr, u32 status)
{
	forget(cr->entry);
}

/* vs->lock; once is enough, more do no harm. Never fails. */
void vtoe_cmd_close(struct vtoe_sid *entry, bool abort)
{
	struct vtoe_cr *cr = &entry->close_cr;

	lockdep_assert_held(&entry->vs->lock);
	if (entry->closing)
		return;
	entry->closing = true;
	cr->embedded = true;
	cr->lazy = true;
	cr->quiet = !abort && !entry->listener;
	cr->entry = entry;
	cr->done = close_done;
	cr->cmd.opcode = cpu_to_le16(VTOE_CMD_CLOSE);
	cr->cmd.flags = cpu_to_le16(abort ? VTOE_CLOSE_F_ABORT : 0);
	cr->cmd.sid = cpu_to_le32(entry->sid);
	if (entry->known && vtoe_epoch_ok(entry) && vtoe_cr_send(entry->dev, cr))
		return;
	forget(entry);
}
