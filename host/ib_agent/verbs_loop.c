// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Buffers back from a shared receive queue, for the other fabrics.
 *
 * Theory of operation. What is on an SRQ and promised to nobody any more (its
 * connection has closed) serves the next grant over verbs. But the guest may grant
 * it to a connection over `tcp` or `local`, which takes from the RWQ, where it is
 * not. Verbs cannot take a posted element back; a message can use it up. So when
 * the RWQ is empty and such a buffer is there, a queue pair that is connected to
 * itself sends empty messages to it. That takes microseconds, is waited for, and
 * happens only in that shortage.
 *
 * If that queue pair breaks it is thrown away, and made anew when it is needed again.
 * A wait in vain is not repeated for a second: a peer that does not answer must not
 * keep the process from everybody else.
 *
 * Reentrancy: waiting handles completions of others, in the middle of a delivery
 * over another fabric. They touch connections of this fabric alone.
 */
#include "verbs.h"

#include <errno.h>
#include <string.h>

#define BATCH 16u
#define WAIT_US 200000u
#define REST_US 1000000u /* after that in vain: the process has others to serve */

static const struct iba_vport *a_port(const struct iba_vdev *dev)
{
	for (unsigned int i = 0; i < dev->v->port_count; i++)
		if (dev->v->port[i].dev == dev && dev->v->port[i].listen)
			return &dev->v->port[i];
	return NULL;
}

static int connect_to_itself(struct iba_vdev *dev, struct ibv_qp *qp)
{
	const struct iba_vport *ours = a_port(dev);
	const struct rdma_cm_id *id = ours ? ours->listen : NULL;
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_INIT };
	struct ibv_port_attr port;
	int gid;

	if (!id || ibv_query_port(dev->ctx, id->port_num, &port))
		return -ENODEV;
	gid = ours->gid_index;
	if (gid < 0 && port.link_layer == IBV_LINK_LAYER_ETHERNET)
		return -EADDRNOTAVAIL;
	attr.port_num = id->port_num;
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
				     IBV_QP_PORT | IBV_QP_ACCESS_FLAGS))
		return -errno;
	attr.qp_state = IBV_QPS_RTR;
	attr.path_mtu = port.active_mtu;
	attr.dest_qp_num = qp->qp_num;
	attr.min_rnr_timer = 1;
	attr.ah_attr.port_num = id->port_num;
	attr.ah_attr.dlid = port.lid;
	if (gid >= 0) {
		attr.ah_attr.is_global = 1;
		attr.ah_attr.grh.sgid_index = (uint8_t)gid;
		attr.ah_attr.grh.dgid = id->route.addr.addr.ibaddr.sgid;
		attr.ah_attr.grh.hop_limit = 1;
	}
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_AV | IBV_QP_PATH_MTU |
				     IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
				     IBV_QP_MAX_DEST_RD_ATOMIC |
				     IBV_QP_MIN_RNR_TIMER))
		return -errno;
	attr.qp_state = IBV_QPS_RTS;
	attr.timeout = 14;
	attr.retry_cnt = 6; /* 7 is for ever to rxe */
	if (ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT |
				     IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
				     IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC))
		return -errno;
	return 0;
}

static int create(struct iba_vvm *vvm, unsigned int class)
{
	struct iba_vdev *dev = vvm->dev;
	struct ibv_qp_init_attr init = {
		.send_cq = dev->cq,
		.recv_cq = dev->cq,
		.srq = vvm->srq[class],
		.qp_type = IBV_QPT_RC,
		.sq_sig_all = 1,
		.cap = { .max_send_wr = BATCH, .max_send_sge = 1 },
	};
	int err = iba_vdev_reserve(dev, BATCH);

	if (err)
		return err;
	vvm->loop[class] = ibv_create_qp(dev->pd, &init);
	if (!vvm->loop[class]) {
		err = -errno;
		iba_vdev_release(dev, BATCH);
		return err;
	}
	err = connect_to_itself(dev, vvm->loop[class]);
	if (err)
		iba_vloop_destroy(vvm, class);
	return err;
}

void iba_vloop_destroy(struct iba_vvm *vvm, unsigned int class)
{
	if (!vvm->loop[class])
		return;
	if (!vvm->dev->dead)
		ibv_destroy_qp(vvm->loop[class]);
	vvm->loop[class] = NULL;
	vvm->loop_pending[class] = 0;
	vvm->loop_broken[class] = false;
	iba_vdev_release(vvm->dev, BATCH);
}

bool iba_vloop_is(const struct iba_vvm *vvm, unsigned int class,
		  uint32_t qp_num)
{
	return vvm->loop[class] && vvm->loop[class]->qp_num == qp_num;
}

/* A SEND of it has completed; that its message has come says all but a failure. */
void iba_vloop_sent(struct iba_vdev *dev, const struct ibv_wc *wc)
{
	struct iba_vvm *vvm = iba_vvm_by_number(dev->v, (uint32_t)wc->wr_id);
	unsigned int class = wc->wr_id >> 48 & 0xff;

	if (!wc->status || !vvm || !vvm->loop[class] || vvm->loop_broken[class])
		return;
	vvm->loop_broken[class] = true;
	vvm->loop_pending[class] = 0;
	log_warn("vm %s: receive buffers stay with %s for now: %s",
		 vvm->vm->name, ibv_get_device_name(dev->ctx->device),
		 ibv_wc_status_str(wc->status));
}

/*
 * It has kept no buffer: an empty message is one packet. False: the device has
 * gone meanwhile, and vvm.
 */
static bool discard(struct iba_vvm *vvm, unsigned int class)
{
	struct iba_vdev *dev = vvm->dev;

	/* some drivers drop what a destroyed queue pair has completed */
	iba_vrx_drain(dev);
	if (dev->dead)
		return false;
	iba_vloop_destroy(vvm, class);
	iba_vrx_drain(dev);
	return !dev->dead;
}

void iba_vloop_received(struct iba_vvm *vvm, struct iba_vrx *rx)
{
	rx->posted = false;
	if (vvm->loop_pending[rx->class]) /* else its SEND is said to have failed */
		vvm->loop_pending[rx->class]--;
	iba_vm_keep(vvm->vm, rx->class, rx->head);
}

/* Sends for as many as may be missed, at most a batch at a time. */
static void send_some(struct iba_vvm *vvm, unsigned int class)
{
	struct ibv_send_wr wr = {
		.wr_id = iba_v_id(IBA_V_LOOP, class, 0, vvm->number),
		.opcode = IBV_WR_SEND,
		.send_flags = IBV_SEND_SOLICITED,
	}, *bad;
	uint32_t n = iba_vvm_spare(vvm, class);

	if (n > BATCH)
		n = BATCH;
	for (uint32_t i = 0; i < n; i++) {
		if (ibv_post_send(vvm->loop[class], &wr, &bad))
			return;
		vvm->loop_pending[class]++;
	}
}

/* Now, or when the peers of connections that have ended have said their last. */
static bool may_come(const struct iba_vvm *vvm, unsigned int class)
{
	return iba_vvm_spare(vvm, class) || vvm->loop_pending[class] ||
	       vvm->ghosts[class];
}

static bool have_loop(struct iba_vvm *vvm, unsigned int class)
{
	int err = vvm->loop[class] ? 0 : create(vvm, class);

	if (err)
		log_warn("vm %s: receive buffers stay with %s: %s",
			 vvm->vm->name,
			 ibv_get_device_name(vvm->dev->ctx->device),
			 strerror(-err));
	return !err;
}

static bool reclaim(struct iba_vvm *vvm, unsigned int class)
{
	const struct iba_queue *q = &vvm->vm->queue[IBA_Q_RWQ + class];
	struct iba_vdev *dev = vvm->dev;
	uint64_t now = loop_now_us(), end = now + WAIT_US;

	if (!may_come(vvm, class))
		vvm->robbed |= vvm->suspect[class] > 0;
	if (now < vvm->loop_rest_us || !may_come(vvm, class))
		return false;
	if (vvm->loop_broken[class] && !discard(vvm, class))
		return q->kept_count;
	if (!have_loop(vvm, class))
		return false;
	/* the peers answer what this pass has said */
	iba_verbs_flush(vvm->vm->tenant);
	while (!q->kept_count && may_come(vvm, class) &&
	       !vvm->loop_broken[class] && loop_now_us() < end) {
		if (!vvm->loop_pending[class])
			send_some(vvm, class);
		iba_vrx_poll(dev, IBA_V_WC);
		if (dev->dead) /* and vvm gone, and its buffers given back */
			return q->kept_count;
	}
	if (!q->kept_count)
		vvm->loop_rest_us = loop_now_us() + REST_US;
	return q->kept_count;
}

bool iba_verbs_reclaim(struct iba_vm *vm, unsigned int class)
{
	struct iba_vvm *vvm, *next;

	for (vvm = vm->vvm; vvm; vvm = next) {
		next = vvm->next;
		if (reclaim(vvm, class))
			return true;
	}
	return false;
}
