// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A VM on a device: its memory, its receive buffers, and what of them is promised.
 *
 * Theory of operation. Each region of the VM's memory is registered once; payload
 * goes straight from and to it. Each class has a shared receive queue (SRQ),
 * whose elements are [header, in our memory][the rest of an RWQ chain]: what the
 * agent judges by must not be changed by the guest meanwhile.
 *
 * A buffer that is on an SRQ cannot be taken back, and the same RWQ feeds the
 * VM's connections over other fabrics. So a buffer moves from the RWQ to the SRQ
 * only when it is promised: when a grant of the guest is forwarded to a peer.
 * Per class:
 *
 *   posted    buffers on the SRQ
 *   promised  messages that peers may still send: posted - suspect >= promised,
 *             so the SRQ never runs dry (no RNR), whatever a guest or one peer does
 *   ghosts    of the promised, those of connections that have ended; they are
 *             taken back when the peer has said how many it sent (RST)
 *
 * What is posted and not promised serves the next grant, and goes back to the RWQ
 * when another fabric finds that empty (verbs_loop.c). A guest that grants more
 * than all of this and its RWQ have loses that connection, unless ghosts hold the
 * buffers, or they are on their way back to the RWQ: then the grant waits
 * (vvm->starved).
 *
 * A queue pair that breaks in the middle of a message may have kept its element
 * (rxe does not flush it): one of each class is suspect from then on. When the
 * last lane has left the SRQs they are made anew, and none is. If a connection
 * cannot get any for STARVE_US and nobody else can have them, or another fabric
 * finds none, the VM's lanes end for that.
 *
 * Threat model. The guest is hostile: chains are read once by virtq.c; too small,
 * cut in too many pieces, or with something readable, one goes back with length
 * 0. The peer's agent is authenticated, not trusted: verbs_rx.c ends the lane of
 * one that sends what it was not promised.
 */
#include "verbs.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#define HDR ((uint32_t)sizeof(struct vtoe_msg_hdr))
#define STARVE_US (2 * 1000000ull)

/* ---- numbers ---- */

struct iba_vvm *iba_vvm_by_number(struct iba_verbs *v, uint32_t number)
{
	struct iba_vvm *vvm = v->vvm[number % IBA_V_VMS_MAX];

	return vvm && vvm->number == number ? vvm : NULL;
}

static bool number_assign(struct iba_verbs *v, struct iba_vvm *vvm)
{
	for (unsigned int i = 0; i < IBA_V_VMS_MAX; i++) {
		if (v->vvm[i])
			continue;
		vvm->number = ++v->vvm_generation * IBA_V_VMS_MAX + i;
		v->vvm[i] = vvm;
		return true;
	}
	return false;
}

/* ---- registration ---- */

static void log_reg_failed(const struct iba_vm *vm, uint64_t size, int err)
{
	uint64_t limit = vm->tenant->verbs->memlock;

	if (err == ENOMEM && limit != RLIM_INFINITY)
		log_err("vm %s: %llu MB of guest memory cannot be registered: RLIMIT_MEMLOCK is %llu kB; start the agent as root, or with LimitMEMLOCK=infinity",
			vm->name, (unsigned long long)size >> 20,
			(unsigned long long)limit >> 10);
	else
		log_err("vm %s: %llu MB of guest memory cannot be registered: %s%s",
			vm->name, (unsigned long long)size >> 20, strerror(err),
			err == EFAULT || err == EOPNOTSUPP ?
				" (it must be on tmpfs, hugetlbfs or a memfd)" : "");
}

static int register_memory(struct iba_vvm *vvm)
{
	const struct guest_mem *mem = &vvm->vm->mem;
	uint64_t start = loop_now_us(), bytes = 0;

	for (unsigned int i = 0; i < mem->count; i++) {
		const struct guest_region *region = &mem->region[i];

		vvm->mr[i] = ibv_reg_mr(vvm->dev->pd, region->host,
					region->size, IBV_ACCESS_LOCAL_WRITE);
		if (!vvm->mr[i]) {
			int err = errno;

			log_reg_failed(vvm->vm, region->size, err);
			return -err;
		}
		vvm->mr_count = i + 1;
		bytes += region->size;
	}
	log_info("vm %s: %llu MB registered with %s in %llu ms", vvm->vm->name,
		 (unsigned long long)bytes >> 20,
		 ibv_get_device_name(vvm->dev->ctx->device),
		 (unsigned long long)(loop_now_us() - start) / 1000);
	return 0;
}

uint32_t iba_vvm_lkey(const struct iba_vvm *vvm, const void *at)
{
	for (unsigned int i = 0; i < vvm->mr_count; i++) {
		const struct ibv_mr *mr = vvm->mr[i];

		if ((const char *)at >= (const char *)mr->addr &&
		    (const char *)at < (const char *)mr->addr + mr->length)
			return mr->lkey;
	}
	return 0; /* the device refuses it */
}

/* ---- making it ---- */

/* Headers of ours: of the SWQ, then of both RWQs. */
static int create_headers(struct iba_vvm *vvm)
{
	size_t count = vvm->tx_num;
	struct vtoe_msg_hdr *hdr;

	for (int c = 0; c < VNET_RWQ_CLASSES; c++)
		count += vvm->rx_num[c];
	vvm->own = aligned_alloc(4096, (count * HDR + 4095) & ~4095ul);
	if (!vvm->own)
		return -ENOMEM;
	memset(vvm->own, 0, count * HDR);
	vvm->own_mr = ibv_reg_mr(vvm->dev->pd, vvm->own, count * HDR,
				 IBV_ACCESS_LOCAL_WRITE);
	if (!vvm->own_mr) {
		log_reg_failed(vvm->vm, count * HDR, errno);
		return -errno;
	}
	hdr = vvm->own;
	vvm->tx_hdr = hdr;
	hdr += vvm->tx_num;
	for (int c = 0; c < VNET_RWQ_CLASSES; c++)
		for (unsigned int i = 0; i < vvm->rx_num[c]; i++)
			vvm->rx[c][i].hdr = hdr++;
	return 0;
}

static int create_slots(struct iba_vvm *vvm)
{
	struct ibv_sge *sge;

	vvm->tx_lane = calloc(vvm->tx_num, sizeof(*vvm->tx_lane));
	vvm->rx_sge = calloc((size_t)vvm->rx_num[0] + vvm->rx_num[1],
			     IBA_V_SGE_MAX * sizeof(*sge));
	if (!vvm->tx_lane || !vvm->rx_sge)
		return -ENOMEM;
	sge = vvm->rx_sge;
	for (int c = 0; c < VNET_RWQ_CLASSES; c++) {
		vvm->rx[c] = calloc(vvm->rx_num[c], sizeof(*vvm->rx[c]));
		if (!vvm->rx[c])
			return -ENOMEM;
		for (unsigned int i = 0; i < vvm->rx_num[c]; i++) {
			vvm->rx[c][i].head = (uint16_t)i;
			vvm->rx[c][i].class = (uint8_t)c;
			vvm->rx[c][i].sge = sge;
			sge += IBA_V_SGE_MAX;
		}
	}
	return create_headers(vvm);
}

static int create_srqs(struct iba_vvm *vvm)
{
	for (int c = 0; c < VNET_RWQ_CLASSES; c++) {
		struct ibv_srq_init_attr init = { .attr = {
			.max_wr = vvm->rx_num[c],
			.max_sge = iba_verbs_pieces(vvm->vm->tenant) + 1u,
		} };

		vvm->srq[c] = ibv_create_srq(vvm->dev->pd, &init);
		if (!vvm->srq[c])
			return -errno;
	}
	return 0;
}

static bool queues_run(const struct iba_vm *vm)
{
	if (!vm->queue[IBA_Q_SWQ].vq.running)
		return false;
	for (int c = 0; c < VNET_RWQ_CLASSES; c++)
		if (!vm->queue[IBA_Q_RWQ + c].vq.running)
			return false;
	return true;
}

static int build(struct iba_vvm *vvm)
{
	struct iba_vm *vm = vvm->vm;
	int err;

	vvm->tx_num = vm->queue[IBA_Q_SWQ].vq.num;
	vvm->cqe = iba_vdev_sends(vvm->dev, vvm->tx_num);
	for (int c = 0; c < VNET_RWQ_CLASSES; c++) {
		vvm->rx_num[c] = vm->queue[IBA_Q_RWQ + c].vq.num;
		vvm->cqe += vvm->rx_num[c];
	}
	err = iba_vdev_reserve(vvm->dev, vvm->cqe);
	if (err) {
		vvm->cqe = 0;
		return err;
	}
	err = create_slots(vvm);
	if (!err)
		err = create_srqs(vvm);
	return err ? err : register_memory(vvm);
}

struct iba_vvm *iba_vvm_get(struct iba_verbs *v, struct iba_vm *vm,
			    struct iba_vdev *dev, enum vtoe_reason *reason)
{
	struct iba_vvm *vvm;
	int err;

	for (vvm = vm->vvm; vvm; vvm = vvm->next)
		if (vvm->dev == dev)
			return vvm;
	*reason = VTOE_REASON_PEER_NO_VTOE;
	if (!vm->hello || vm->fault || !queues_run(vm))
		return NULL;
	*reason = VTOE_REASON_NO_LANE;
	if (vm->balloon)
		return NULL;
	*reason = VTOE_REASON_LIMIT;
	vvm = calloc(1, sizeof(*vvm));
	if (!vvm)
		return NULL;
	vvm->vm = vm;
	vvm->dev = dev;
	TAILQ_INIT(&vvm->starved);
	if (!number_assign(v, vvm)) {
		free(vvm);
		return NULL;
	}
	vvm->next = vm->vvm;
	vm->vvm = vvm;
	err = build(vvm);
	if (!err)
		return vvm;
	if (log_ratelimited_ok(&vm->log_limit, 10, 10))
		log_warn("vm %s: not over %s: %s", vm->name,
			 ibv_get_device_name(dev->ctx->device), strerror(-err));
	iba_vvm_destroy(vvm);
	return NULL;
}

/* Empty queues in place of those that a broken queue pair may have robbed. */
static void renew_srqs(struct iba_vvm *vvm)
{
	struct iba_vdev *dev = vvm->dev;

	iba_vrx_drain(dev);
	for (unsigned int c = 0; c < VNET_RWQ_CLASSES && !dev->dead; c++)
		iba_vloop_destroy(vvm, c);
	/* nothing completes on them any more: what has, is counted */
	iba_vrx_drain(dev);
	if (dev->dead)
		return;
	for (unsigned int c = 0; c < VNET_RWQ_CLASSES; c++) {
		if (ibv_destroy_srq(vvm->srq[c])) {
			iba_vm_fault(vvm->vm, "shared receive queue in use");
			return;
		}
		vvm->srq[c] = NULL;
		for (unsigned int i = 0; i < vvm->rx_num[c]; i++)
			if (vvm->rx[c][i].posted) {
				vvm->rx[c][i].posted = false;
				iba_vm_keep(vvm->vm, c, (uint16_t)i);
			}
		vvm->posted[c] = vvm->suspect[c] = 0;
	}
	vvm->robbed = false;
	if (create_srqs(vvm))
		iba_vm_fault(vvm->vm, "no shared receive queue");
}

void iba_vvm_lane_gone(struct iba_vvm *vvm, bool broken)
{
	struct iba_vdev *dev = vvm->dev;

	vvm->lanes--;
	for (int c = 0; c < VNET_RWQ_CLASSES; c++)
		vvm->suspect[c] += broken && vvm->posted[c];
	if (!vvm->lanes && (vvm->suspect[0] || vvm->suspect[1]) && !dev->dead)
		renew_srqs(vvm);
	if (!dev->dead) /* else vvm has gone with it */
		iba_vvm_feed_starved(vvm);
}

void iba_vvm_tx_start(struct iba_vvm *vvm, uint16_t head, struct iba_vlane *lane)
{
	vvm->tx_lane[head] = lane;
	vvm->dev->awaited++;
}

void iba_vvm_tx_done(struct iba_vvm *vvm, uint16_t head)
{
	if (!vvm->tx_lane[head])
		return;
	vvm->tx_lane[head] = NULL;
	vvm->dev->awaited--;
	iba_slot_done(&vvm->vm->slot[head]);
}

/* Of queue pairs that are gone: what the device has not told of is not sent. */
void iba_vvm_forget_tx(struct iba_vvm *vvm, const struct iba_vlane *lane)
{
	for (unsigned int i = 0; i < vvm->tx_num; i++)
		if (vvm->tx_lane[i] == lane)
			iba_vvm_tx_done(vvm, (uint16_t)i);
}

static void unlink_vvm(struct iba_vvm *vvm)
{
	struct iba_vvm **at = &vvm->vm->vvm;

	while (*at != vvm)
		at = &(*at)->next;
	*at = vvm->next;
	vvm->dev->v->vvm[vvm->number % IBA_V_VMS_MAX] = NULL;
}

/* What the device had is the guest's again, or a later fabric's. */
static void give_back(struct iba_vvm *vvm)
{
	for (unsigned int i = 0; vvm->tx_lane && i < vvm->tx_num; i++)
		iba_vvm_tx_done(vvm, (uint16_t)i);
	for (unsigned int c = 0; c < VNET_RWQ_CLASSES; c++)
		for (unsigned int i = 0; vvm->rx[c] && i < vvm->rx_num[c]; i++)
			if (vvm->rx[c][i].posted)
				iba_vm_keep(vvm->vm, c, (uint16_t)i);
}

static void warn_left(const char *what, int err)
{
	if (err)
		log_err("verbs: %s cannot be given back: %s", what,
			strerror(err));
}

void iba_vvm_destroy(struct iba_vvm *vvm)
{
	for (unsigned int c = 0; c < VNET_RWQ_CLASSES; c++) {
		iba_vloop_destroy(vvm, c);
		if (vvm->srq[c] && !vvm->dev->dead)
			warn_left("a shared receive queue",
				  ibv_destroy_srq(vvm->srq[c]));
	}
	for (unsigned int i = 0; i < vvm->mr_count; i++)
		if (!vvm->dev->dead)
			warn_left("guest memory", ibv_dereg_mr(vvm->mr[i]));
	if (vvm->own_mr && !vvm->dev->dead)
		warn_left("memory", ibv_dereg_mr(vvm->own_mr));
	give_back(vvm);
	iba_vdev_release(vvm->dev, vvm->cqe);
	unlink_vvm(vvm);
	for (int c = 0; c < VNET_RWQ_CLASSES; c++)
		free(vvm->rx[c]);
	free(vvm->rx_sge);
	free(vvm->tx_lane);
	free(vvm->own);
	free(vvm);
}

/* ---- buffers ---- */

/* Splits a chain behind the header. False: not one that we can use. */
static bool split(struct iba_vvm *vvm, struct iba_vrx *rx,
		  const struct virtq_chain *chain)
{
	unsigned int max = iba_verbs_pieces(vvm->vm->tenant) + 1u;
	uint32_t left = HDR;

	if (chain->out_count ||
	    chain->in_bytes < HDR + vvm->vm->rwq_buf_size[rx->class])
		return false;
	rx->room = chain->in_bytes - HDR;
	rx->hdr_count = 0;
	rx->sge_count = 1;
	rx->sge[0] = (struct ibv_sge){ (uintptr_t)rx->hdr, HDR,
				       vvm->own_mr->lkey };
	for (unsigned int i = 0; i < chain->in_count; i++) {
		char *base = chain->iov[i].iov_base;
		uint32_t len = (uint32_t)chain->iov[i].iov_len;
		uint32_t hdr = len < left ? len : left;

		if (hdr) {
			if (rx->hdr_count == IBA_V_HDR_PIECES)
				return false;
			rx->hdr_iov[rx->hdr_count].iov_base = base;
			rx->hdr_iov[rx->hdr_count++].iov_len = hdr;
			left -= hdr;
		}
		if (len == hdr)
			continue;
		if (rx->sge_count == max)
			return false;
		rx->sge[rx->sge_count++] = (struct ibv_sge){
			(uintptr_t)base + hdr, len - hdr,
			iba_vvm_lkey(vvm, base),
		};
	}
	return true;
}

static bool post(struct iba_vvm *vvm, struct iba_vrx *rx)
{
	struct ibv_recv_wr wr = {
		.wr_id = iba_v_id(IBA_V_RX, rx->class, rx->head, vvm->number),
		.sg_list = rx->sge,
		.num_sge = rx->sge_count,
	}, *bad;

	rx->posted = true; /* if not, it is lost to the guest until the end */
	if (ibv_post_srq_recv(vvm->srq[rx->class], &wr, &bad)) {
		iba_vm_fault(vvm->vm, "its receive buffers cannot be posted");
		return false;
	}
	vvm->posted[rx->class]++;
	return true;
}

/* One more buffer from the RWQ. False: there is none. */
static bool feed(struct iba_vvm *vvm, unsigned int class)
{
	struct iba_queue *q = &vvm->vm->queue[IBA_Q_RWQ + class];
	struct virtq_chain *chain = &vvm->vm->tenant->chain_in;

	/* a guest that posts bad ones as fast as they come back gets one ring */
	for (unsigned int i = 0; i < q->vq.num; i++) {
		struct iba_vrx *rx;
		int ret = iba_deliver_next(q, chain);

		if (ret < 0)
			iba_vm_fault(vvm->vm, "receive queue broken");
		if (ret <= 0)
			return false;
		rx = &vvm->rx[class][chain->head];
		if (rx->posted) {
			iba_vm_fault(vvm->vm,
				     "receive buffer posted again while in use");
			return false;
		}
		if (split(vvm, rx, chain))
			return post(vvm, rx);
		iba_vm_drop(vvm->vm, IBA_DROP_RWQ_SMALL);
		virtq_push(&q->vq, chain->head, 0);
		iba_tenant_dirty(vvm->vm);
	}
	return false;
}

uint32_t iba_vvm_spare(const struct iba_vvm *vvm, unsigned int class)
{
	uint32_t spare = vvm->posted[class] - vvm->suspect[class] -
			 vvm->promised[class] - vvm->loop_pending[class];

	return (int32_t)spare > 0 ? spare : 0;
}

void iba_vvm_recycle(struct iba_vvm *vvm, struct iba_vrx *rx)
{
	post(vvm, rx);
}

/* ---- promises ---- */

static void starve(struct iba_vvm *vvm, struct iba_vpath *path)
{
	if (path->starved)
		return;
	path->starved = true;
	vvm->grants_deferred++;
	TAILQ_INSERT_TAIL(&vvm->starved, path, starved_link);
}

bool iba_vvm_grant(struct iba_vpath *path)
{
	struct iba_vvm *vvm = path->lane->vvm;
	struct iba_conn *conn = path->conn;
	bool all = true;

	for (unsigned int c = 0; vvm && c < VNET_RWQ_CLASSES; c++) {
		uint32_t limit = conn->rx_credit.msg_limit[c];

		while ((int32_t)(limit - path->granted[c]) > 0) {
			if (vvm->promised[c] < vvm->rx_num[c] &&
			    (iba_vvm_spare(vvm, c) || feed(vvm, c))) {
				vvm->promised[c]++;
				path->granted[c]++;
				continue;
			}
			if (vvm->ghosts[c] || vvm->suspect[c] ||
			    vvm->loop_pending[c]) {
				starve(vvm, path);
				all = false;
				break;
			}
			iba_vm_drop(vvm->vm, IBA_DROP_RWQ_EMPTY);
			if (log_ratelimited_ok(&vvm->vm->log_limit, 10, 10))
				log_warn("vm %s: conn %#x sid %#x: guest: granted a buffer that it did not post",
					 vvm->vm->name, conn->cid, conn->sid);
			iba_conn_fail(conn, VTOE_REASON_CREDIT, true);
			return false;
		}
	}
	if (all)
		path->dry_us = 0;
	return true;
}

void iba_vvm_feed_starved(struct iba_vvm *vvm)
{
	struct iba_vpath_list waiting = TAILQ_HEAD_INITIALIZER(waiting);
	struct iba_vpath *path;

	TAILQ_CONCAT(&waiting, &vvm->starved, starved_link);
	while ((path = TAILQ_FIRST(&waiting))) {
		TAILQ_REMOVE(&waiting, path, starved_link);
		path->starved = false;
		/* it is told by a CREDIT, which asks once more for the rest */
		if (path->conn)
			iba_vctrl_credit(path, false);
	}
}

void iba_vvm_unpromise(struct iba_vvm *vvm, unsigned int class, uint32_t n)
{
	vvm->promised[class] -= n;
	vvm->ghosts[class] -= n;
}

/* ---- time ---- */

/* Of some class that it waits for there is a buffer now. */
static bool may_grant(const struct iba_vvm *vvm, const struct iba_vpath *path)
{
	for (unsigned int c = 0; c < VNET_RWQ_CLASSES; c++) {
		const struct iba_queue *q = &vvm->vm->queue[IBA_Q_RWQ + c];

		if (path->conn->rx_credit.msg_limit[c] != path->granted[c] &&
		    (iba_vvm_spare(vvm, c) || q->kept_count ||
		     virtq_has_work(&q->vq)))
			return true;
	}
	return false;
}

/* Its peer can send nothing of some class. */
static bool is_dry(const struct iba_vpath *path)
{
	for (unsigned int c = 0; path->conn && c < VNET_RWQ_CLASSES; c++)
		if (path->granted[c] == path->received[c] &&
		    path->conn->rx_credit.msg_limit[c] != path->granted[c])
			return true;
	return false;
}

/* It has been so for long, and nothing but broken queue pairs has the buffers. */
static bool is_robbed(struct iba_vpath *path, uint64_t now_us)
{
	const struct iba_vvm *vvm = path->lane->vvm;

	if (!is_dry(path))
		path->dry_us = 0;
	else if (!path->dry_us)
		path->dry_us = now_us;
	return path->dry_us && now_us - path->dry_us >= STARVE_US &&
	       (vvm->suspect[VNET_RWQ_SMALL] || vvm->suspect[VNET_RWQ_LARGE]) &&
	       !vvm->ghosts[VNET_RWQ_SMALL] && !vvm->ghosts[VNET_RWQ_LARGE];
}

bool iba_vvm_tick(struct iba_vvm *vvm, uint64_t now_us)
{
	struct iba_vpath *path, *next;

	if (vvm->robbed)
		return false;
	for (path = TAILQ_FIRST(&vvm->starved); path; path = next) {
		next = TAILQ_NEXT(path, starved_link);
		if (is_robbed(path, now_us))
			return false;
		/* the guest may have posted some, without a word of this one */
		if (!path->conn || !may_grant(vvm, path))
			continue;
		TAILQ_REMOVE(&vvm->starved, path, starved_link);
		path->starved = false;
		iba_vctrl_credit(path, false);
	}
	return true;
}
