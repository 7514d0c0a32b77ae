// SPDX-License-Identifier: GPL-2.0-only
/*
 * Devices: the driver of the auxiliary device "vnet_pv.vtoe", and what happens
 * when the agent behind it comes and goes.
 *
 * An epoch of ours begins when the state is UP: buffers are posted, HELLO is
 * answered, listeners are announced. It ends with DOWN, with another epoch of
 * the host, with DEVICE_REMOVAL, or with the device: every connection of it is
 * reset, and what the host gives back is collected. NAPI runs during an epoch
 * only. All of that is done by state_work, one at a time.
 */
#include "vtoe.h"

#include <linux/rculist.h>
#include <linux/slab.h>
#include <linux/virtio_ids.h>

static unsigned int small_bufs = 512;
module_param(small_bufs, uint, 0644);
MODULE_PARM_DESC(small_bufs, "small receive buffers per device to begin with");
static unsigned int large_bufs = 64;
module_param(large_bufs, uint, 0644);
MODULE_PARM_DESC(large_bufs, "large receive buffers per device to begin with");

/* An agent with RDMA registers the guest's memory first, which may take many seconds. */
#define HELLO_TIMEOUT (30 * HZ)
/* Unbind, suspend and a new balloon wait for it: without it the agent has our buffers still. */
#define BYE_TIMEOUT (10 * HZ)

LIST_HEAD(vtoe_devs);
DEFINE_MUTEX(vtoe_devs_mutex); /* vtoe_devs, and the list of listeners */

void vtoe_dev_get(struct vtoe_dev *dev)
{
	kref_get(&dev->ref);
}

static void dev_free(struct kref *ref)
{
	struct vtoe_dev *dev = container_of(ref, struct vtoe_dev, ref);

	kfree_rcu(dev, rcu);
}

void vtoe_dev_put(struct vtoe_dev *dev)
{
	if (dev)
		kref_put(&dev->ref, dev_free);
}

/* The device behind an interface, if it can take connections now. */
struct vtoe_dev *vtoe_dev_find(const struct net_device *netdev, u32 *why_not)
{
	struct vtoe_dev *dev, *found = NULL;

	*why_not = VTOE_REASON_NO_DEVICE;
	rcu_read_lock();
	list_for_each_entry_rcu(dev, &vtoe_devs, node) {
		if (dev->netdev != netdev)
			continue;
		if (!READ_ONCE(dev->ready))
			*why_not = READ_ONCE(dev->why_not);
		else if (kref_get_unless_zero(&dev->ref))
			found = dev;
		break;
	}
	rcu_read_unlock();
	return found;
}

/* Any device of the namespace that can take connections now. */
struct vtoe_dev *vtoe_dev_any(struct net *net, u32 *why_not)
{
	struct vtoe_dev *dev, *found = NULL;

	*why_not = VTOE_REASON_NO_DEVICE;
	rcu_read_lock();
	list_for_each_entry_rcu(dev, &vtoe_devs, node) {
		if (!net_eq(dev_net(dev->netdev), net))
			continue;
		if (!READ_ONCE(dev->ready)) {
			*why_not = READ_ONCE(dev->why_not);
		} else if (kref_get_unless_zero(&dev->ref)) {
			found = dev;
			break;
		}
	}
	rcu_read_unlock();
	return found;
}

/* softirq: the agent is gone */
void vtoe_dev_removal(struct vtoe_dev *dev)
{
	WRITE_ONCE(dev->dead_epoch, dev->host_epoch);
	queue_work(vtoe_wq, &dev->state_work);
}

static u32 pool_size(struct vtoe_dev *dev, u32 class)
{
	u32 num = virtqueue_get_vring_size(dev->rwq[class]);
	u32 want = class == VNET_RWQ_SMALL ? small_bufs : large_bufs;

	return clamp(READ_ONCE(want), 4u, num);
}

static void epoch_end(struct vtoe_dev *dev)
{
	LIST_HEAD(rest);

	WRITE_ONCE(dev->ready, false);
	vtoe_cr_set_open(dev, false, &rest);
	napi_disable(&dev->napi);
	cancel_work_sync(&dev->grow_work);
	cancel_delayed_work_sync(&dev->lazy_work);
	spin_lock_bh(&dev->pool_lock);
	WRITE_ONCE(dev->epoch, 0);
	memset(&dev->pool, 0, sizeof(dev->pool));
	spin_unlock_bh(&dev->pool_lock);
	local_bh_disable();
	vtoe_sid_reset_all(dev);
	vtoe_cr_complete(dev, &rest);
	local_bh_enable();
	vtoe_rings_drain(dev);
}

static int is_balloon(struct device *dev, void *unused)
{
	u32 id = dev_to_virtio(dev)->id.device;

	return id == VIRTIO_ID_BALLOON || id == VIRTIO_ID_MEM;
}

/* What comes after this look, balloon_event() sees. */
static bool has_balloon(struct vtoe_dev *dev)
{
	WRITE_ONCE(dev->balloon, false);
	return bus_for_each_dev(dev->vtoe->vdev->dev.bus, NULL, NULL, is_balloon);
}

/* Probed behind us, or plugged in: the agent must know before it is used. */
static int balloon_event(struct notifier_block *nb, unsigned long event, void *ptr)
{
	struct vtoe_dev *dev = container_of(nb, struct vtoe_dev, balloon_nb);

	if (event == BUS_NOTIFY_ADD_DEVICE && is_balloon(ptr, NULL)) {
		WRITE_ONCE(dev->balloon, true);
		queue_work(vtoe_wq, &dev->state_work);
	}
	return NOTIFY_DONE;
}

static u32 hello(struct vtoe_dev *dev)
{
	struct vtoe_cmd cmd = { .opcode = cpu_to_le16(VTOE_CMD_HELLO) };
	struct vtoe_reply reply;
	u32 status;

	cmd.u.hello.version = cpu_to_le16(VTOE_VERSION);
	if (has_balloon(dev))
		cmd.flags = cpu_to_le16(VTOE_HELLO_F_BALLOON);
	status = vtoe_cr_call(dev, &cmd, &reply, HELLO_TIMEOUT);
	if (status)
		return status;
	if (le16_to_cpu(reply.u.hello.version) != VTOE_VERSION)
		return VTOE_REASON_VERSION;
	if (le16_to_cpu(reply.u.hello.max_pieces) < VTOE_CHUNK_FRAGS) {
		netdev_warn(dev->netdev, "vtoe: the host takes messages of %u pieces, we make %u\n",
			    le16_to_cpu(reply.u.hello.max_pieces), VTOE_CHUNK_FRAGS);
		return VTOE_REASON_LIMIT;
	}
	dev->max_sockets = le32_to_cpu(reply.u.hello.max_sockets);
	dev->features = le64_to_cpu(reply.u.hello.features);
	return dev->max_sockets ? VTOE_REASON_NONE : VTOE_REASON_LIMIT;
}

static void epoch_begin(struct vtoe_dev *dev, u32 host_epoch)
{
	struct net_device *netdev = dev->netdev;
	u32 class, left, status = VTOE_REASON_NO_BUFFERS;

	vtoe_rings_drain(dev); /* what came back late */
	dev->host_epoch = host_epoch;
	if (!++dev->last_epoch)
		dev->last_epoch = 1;
	WRITE_ONCE(dev->epoch, dev->last_epoch);
	if (vtoe_eq_fill(dev))
		netdev_warn(netdev, "vtoe: event queue is full of old buffers\n");
	for (class = 0; class < VNET_RWQ_CLASSES; class++) {
		left = dev->rwq_posted[class]; /* reposted as the agent died */
		spin_lock_bh(&dev->pool_lock);
		vtoe_pool_add(&dev->pool, class, left);
		spin_unlock_bh(&dev->pool_lock);
		if (left < pool_size(dev, class))
			vtoe_rwq_fill(dev, class, pool_size(dev, class) - left, GFP_KERNEL);
	}
	vtoe_cr_set_open(dev, true, NULL);
	napi_enable(&dev->napi);
	local_bh_disable();
	napi_schedule(&dev->napi); /* arms the interrupts */
	local_bh_enable();

	if (dev->pool.total[VNET_RWQ_SMALL])
		status = hello(dev);
	if (status) {
		WRITE_ONCE(dev->why_not, status == VTOE_REASON_TIMEOUT ?
			   VTOE_REASON_AGENT_DOWN : status);
		netdev_warn(netdev, "vtoe: no offload, HELLO failed: %s\n",
			    vtoe_reason_name(status));
		dev->dead_epoch = host_epoch;
		epoch_end(dev);
		return;
	}
	/* whoever sees it ready sees max_sockets; vtoe_dev_find() */
	smp_store_release(&dev->ready, true);
	netdev_info(netdev, "vtoe: up, %u small and %u large buffers, %u sockets\n",
		    dev->pool.total[VNET_RWQ_SMALL], dev->pool.total[VNET_RWQ_LARGE],
		    dev->max_sockets);
	mutex_lock(&vtoe_devs_mutex);
	vtoe_announce_all(dev);
	mutex_unlock(&vtoe_devs_mutex);
}

static void say_bye(struct vtoe_dev *dev)
{
	struct vtoe_cmd cmd = { .opcode = cpu_to_le16(VTOE_CMD_BYE) };
	struct vtoe_reply reply;

	WRITE_ONCE(dev->ready, false);
	WRITE_ONCE(dev->why_not, VTOE_REASON_NO_DEVICE);
	local_bh_disable();
	vtoe_sid_reset_all(dev);
	local_bh_enable();
	if (vtoe_cr_call(dev, &cmd, &reply, BYE_TIMEOUT))
		netdev_warn(dev->netdev, "vtoe: BYE was not answered\n");
}

static void state_work(struct work_struct *work)
{
	struct vtoe_dev *dev = container_of(work, struct vtoe_dev, state_work);
	u32 host_epoch = READ_ONCE(dev->vtoe->epoch);
	bool up = READ_ONCE(dev->vtoe->state) == VNET_VTOE_UP;

	if (dev->removed)
		return;
	if (!up)
		WRITE_ONCE(dev->dead_epoch, 0);
	up = up && host_epoch != READ_ONCE(dev->dead_epoch);
	if (dev->epoch && (!up || dev->host_epoch != host_epoch)) {
		WRITE_ONCE(dev->why_not, VTOE_REASON_AGENT_DOWN);
		epoch_end(dev);
		netdev_info(dev->netdev, "vtoe: down, connections are reset\n");
	}
	if (dev->epoch && READ_ONCE(dev->balloon)) {
		say_bye(dev);
		epoch_end(dev);
		netdev_info(dev->netdev, "vtoe: a memory balloon came, connections are reset\n");
	}
	if (up && !dev->epoch)
		epoch_begin(dev, host_epoch);
}

/* A quarter more of each class that runs low, up to the ring's size. */
static void grow_work(struct work_struct *work)
{
	struct vtoe_dev *dev = container_of(work, struct vtoe_dev, grow_work);
	u32 class, total, count, num;

	if (READ_ONCE(dev->ready))
		vtoe_rwq_retry(dev);
	for (class = 0; class < VNET_RWQ_CLASSES; class++) {
		num = virtqueue_get_vring_size(dev->rwq[class]);
		spin_lock_bh(&dev->pool_lock);
		total = dev->pool.total[class];
		count = dev->pool.free[class] < total / 4 ? max(total / 4, 1u) : 0;
		spin_unlock_bh(&dev->pool_lock);
		if (READ_ONCE(dev->ready) && total < num && count)
			vtoe_rwq_fill(dev, class, min(count, num - total), GFP_KERNEL);
	}
}

static void vq_event(struct vnpv_vtoe *vtoe, struct virtqueue *vq)
{
	struct vtoe_dev *dev = vtoe->priv;

	vtoe_stat_add(dev_net(dev->netdev), VTOE_STAT_INTERRUPTS, 1);
	virtqueue_disable_cb(vq);
	napi_schedule_irqoff(&dev->napi);
}

static void state_changed(struct vnpv_vtoe *vtoe, u8 state, u32 epoch)
{
	struct vtoe_dev *dev = vtoe->priv;

	queue_work(vtoe_wq, &dev->state_work);
}

static const struct vnpv_vtoe_ops vtoe_bus_ops = {
	.vq_event = vq_event,
	.state_changed = state_changed,
};

static int vtoe_probe(struct auxiliary_device *adev, const struct auxiliary_device_id *id)
{
	struct vnpv_vtoe *vtoe = vnpv_vtoe_from_adev(adev);
	struct vtoe_dev *dev;

	if (vtoe->priv) /* the host still has buffers of an earlier time: vtoe_remove() */
		return -EBUSY;
	dev = kzalloc(sizeof(*dev), GFP_KERNEL);
	if (!dev)
		return -ENOMEM;
	kref_init(&dev->ref);
	dev->vtoe = vtoe;
	dev->netdev = vtoe->netdev;
	dev->cr = vtoe->cr;
	dev->eq = vtoe->eq;
	dev->swq = vtoe->swq;
	memcpy(dev->rwq, vtoe->rwq, sizeof(dev->rwq));
	memcpy(dev->rwq_buf_size, vtoe->rwq_buf_size, sizeof(dev->rwq_buf_size));
	dev->mtu = READ_ONCE(vtoe->netdev->mtu);
	dev->why_not = VTOE_REASON_AGENT_DOWN;
	dev->nr_events = min(virtqueue_get_vring_size(vtoe->eq), 256u);
	dev->events = kcalloc(dev->nr_events, sizeof(*dev->events), GFP_KERNEL);
	if (!dev->events) {
		kfree(dev);
		return -ENOMEM;
	}
	INIT_WORK(&dev->state_work, state_work);
	INIT_WORK(&dev->grow_work, grow_work);
	INIT_DELAYED_WORK(&dev->lazy_work, vtoe_cr_lazy_work);
	spin_lock_init(&dev->cr_lock);
	spin_lock_init(&dev->swq_lock);
	spin_lock_init(&dev->rwq_lock);
	spin_lock_init(&dev->pool_lock);
	INIT_LIST_HEAD(&dev->cr_queue);
	INIT_LIST_HEAD(&dev->swq_waiters);
	INIT_LIST_HEAD(&dev->unposted);
	INIT_LIST_HEAD(&dev->credit_waiters);
	netif_napi_add(dev->netdev, &dev->napi, vtoe_poll_napi);
	virtqueue_disable_cb(vtoe->swq);

	vtoe->priv = dev;
	dev->balloon_nb.notifier_call = balloon_event;
	bus_register_notifier(vtoe->vdev->dev.bus, &dev->balloon_nb);
	vnpv_vtoe_set_ops(vtoe, &vtoe_bus_ops);
	mutex_lock(&vtoe_devs_mutex);
	list_add_tail_rcu(&dev->node, &vtoe_devs);
	mutex_unlock(&vtoe_devs_mutex);
	queue_work(vtoe_wq, &dev->state_work);
	flush_work(&dev->state_work); /* who loads the module finds it ready */
	return 0;
}

static void vtoe_remove(struct auxiliary_device *adev)
{
	struct vnpv_vtoe *vtoe = vnpv_vtoe_from_adev(adev);
	struct vtoe_dev *dev = vtoe->priv;
	u32 left = 0, class, i;

	mutex_lock(&vtoe_devs_mutex);
	list_del_rcu(&dev->node);
	mutex_unlock(&vtoe_devs_mutex);
	WRITE_ONCE(dev->removed, true);
	bus_unregister_notifier(vtoe->vdev->dev.bus, &dev->balloon_nb);
	cancel_work_sync(&dev->state_work);
	if (dev->epoch) {
		/* else nobody would answer */
		if (!READ_ONCE(vtoe->reset) && !virtqueue_is_broken(dev->cr))
			say_bye(dev);
		epoch_end(dev);
	}
	vnpv_vtoe_set_ops(vtoe, NULL);
	cancel_work_sync(&dev->state_work);
	cancel_work_sync(&dev->grow_work);
	vtoe_rings_drain(dev);
	for (class = 0; class < VNET_RWQ_CLASSES; class++)
		left += dev->rwq_posted[class];
	for (i = 0; i < dev->nr_events; i++)
		left += dev->events[i].posted;
	left += dev->swq_used + dev->cr_used;
	netif_napi_del(&dev->napi);
	vtoe->priv = NULL;
	if (left) {
		/* The host may still write to them: they stay, and nobody binds again. */
		netdev_warn(dev->netdev, "vtoe: %u buffers did not come back\n", left);
		vtoe->priv = ERR_PTR(-EBUSY);
	} else {
		kfree(dev->events);
	}
	vtoe_dev_put(dev);
}

static const struct auxiliary_device_id vtoe_ids[] = {
	{ .name = "vnet_pv." VNPV_VTOE_DEV_NAME },
	{}
};
MODULE_DEVICE_TABLE(auxiliary, vtoe_ids);

static struct auxiliary_driver vtoe_driver = {
	.name = "vtoe",
	.probe = vtoe_probe,
	.remove = vtoe_remove,
	.id_table = vtoe_ids,
};

/* A device that is moved to another namespace is registered there. */
static int netdev_event(struct notifier_block *nb, unsigned long event, void *ptr)
{
	const struct net_device *netdev = netdev_notifier_info_to_dev(ptr);
	struct vtoe_dev *dev;

	if (event != NETDEV_REGISTER)
		return NOTIFY_DONE;
	mutex_lock(&vtoe_devs_mutex);
	list_for_each_entry(dev, &vtoe_devs, node)
		if (dev->netdev == netdev)
			vtoe_announce_moved(dev);
	mutex_unlock(&vtoe_devs_mutex);
	return NOTIFY_DONE;
}

static struct notifier_block netdev_notifier = {
	.notifier_call = netdev_event,
};

int vtoe_dev_init(void)
{
	int err = register_netdevice_notifier(&netdev_notifier);

	if (err)
		return err;
	err = auxiliary_driver_register(&vtoe_driver);
	if (err)
		unregister_netdevice_notifier(&netdev_notifier);
	return err;
}

void vtoe_dev_exit(void)
{
	auxiliary_driver_unregister(&vtoe_driver);
	unregister_netdevice_notifier(&netdev_notifier);
}
