// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Rings that the peer writes into, in place of sending (`rdma-transfer write`).
 *
 * Theory of operation. Who wants to be written to has, for each lane and class, a
 * ring in the agent's memory: as many slots as the VM's receive queue has
 * descriptors, each for a header and the largest payload. A control message (RING)
 * offers them before any connection is opened. The peer then carries DATA by RDMA
 * WRITE with immediate, message n in slot n modulo their number. The immediate uses up an
 * element of the SRQ, as a SEND does, and so the rest is as with SENDs (verbs_rx.c):
 * that element is the guest's buffer into which the payload is copied. Devices
 * without immediates (iWARP) send an empty message behind each WRITE, which does
 * the same.
 *
 * A slot is written again `slots` messages later. Those had to be promised, and
 * promises never exceed the buffers that are posted (verbs_mem.c), of which there
 * are no more than slots: so the message that was there before has been handled,
 * and nobody needs to say that a slot is free.
 *
 * The payload is copied once, which SEND does not: a key to the guest's own
 * memory in its place would let the peer's agent write there at any time, also
 * when the guest has the buffer back.
 *
 * Each side offers for itself. A tenant's rings have a limit in all; a lane that
 * would be beyond it, or whose ring cannot be registered, offers none, and the
 * peer sends.
 *
 * Threat model. A key is good for every queue pair of the protection domain: any
 * agent that has a lane to this tenant, and guesses key and address, may write
 * anything into the rings of all its lanes at any time. So the header is copied
 * before it is looked at, and the payload is the guest's to mistrust, as ever; but
 * a peer can forge what another peer has written and we have not taken yet. Where
 * hosts of one cluster do not trust each other that far, let them send. What a peer
 * offers are numbers for our device, which can only break the lane with them.
 */
#include "verbs.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define HDR ((uint32_t)sizeof(struct vtoe_msg_hdr))
#define SLOT_ALIGN 64u
#define RINGS_MAX ((size_t)256 << 20) /* bytes, of all lanes of a tenant */

/* ---- ours ---- */

static size_t bytes_of(const struct iba_wring *ring)
{
	return (size_t)ring->slots * ring->slot_size;
}

static int create(struct iba_vlane *lane, struct iba_wring *ring,
		  unsigned int class)
{
	uint32_t size = HDR + lane->vvm->vm->rwq_buf_size[class];
	size_t bytes;
	void *mem;

	ring->slot_size = (size + SLOT_ALIGN - 1) & ~(SLOT_ALIGN - 1);
	ring->slots = lane->vvm->rx_num[class];
	bytes = bytes_of(ring);
	if (bytes > RINGS_MAX - lane->v->ring_bytes)
		return -ENOSPC;
	/* zeros: what no peer has written must not be another's */
	mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return -errno;
	ring->mr = ibv_reg_mr(lane->dev->pd, mem, bytes,
			      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	if (!ring->mr) {
		int err = errno;

		munmap(mem, bytes);
		return -err;
	}
	ring->mem = mem;
	lane->v->ring_bytes += bytes;
	return 0;
}

/* Memory that the device does not give back stays: peers may have its key. */
static void destroy(struct iba_vlane *lane, struct iba_wring *ring)
{
	int err = lane->dev->dead ? 0 : ibv_dereg_mr(ring->mr);

	if (err)
		log_err("verbs: a ring cannot be given back: %s", strerror(err));
	else
		munmap(ring->mem, bytes_of(ring));
	lane->v->ring_bytes -= bytes_of(ring);
}

void iba_wring_create(struct iba_vlane *lane, unsigned int class)
{
	struct iba_wring *ring = &lane->in_ring[class];
	int err;

	if (!lane->v->t->cfg->rdma_write || ring->mem)
		return;
	err = create(lane, ring, class);
	if (!err)
		return;
	memset(ring, 0, sizeof(*ring));
	if (log_ratelimited_ok(&lane->v->t->lane_log, 10, 10))
		log_warn("lane %s: tenant %u: no ring to write into (%s): it is sent to",
			 lane->name, lane->v->t->id, strerror(-err));
}

void iba_wring_destroy(struct iba_vlane *lane)
{
	for (int c = 0; c < VNET_RWQ_CLASSES; c++) {
		if (lane->in_ring[c].mem)
			destroy(lane, &lane->in_ring[c]);
		memset(&lane->in_ring[c], 0, sizeof(lane->in_ring[c]));
	}
}

void iba_wring_fill_offer(const struct iba_vlane *lane,
			  struct vnet_lane_ring *offer)
{
	memset(offer, 0, sizeof(*offer));
	for (int c = 0; c < VNET_RWQ_CLASSES; c++) {
		const struct iba_wring *ring = &lane->in_ring[c];

		if (!ring->mem)
			continue;
		offer->ring[c].addr = htole64((uintptr_t)ring->mem);
		offer->ring[c].rkey = htole32(ring->mr->rkey);
		offer->ring[c].slots = htole32(ring->slots);
		offer->ring[c].slot_size = htole32(ring->slot_size);
	}
}

bool iba_wring_written(const struct iba_vdev *dev, const struct ibv_wc *wc)
{
	return wc->opcode == IBV_WC_RECV_RDMA_WITH_IMM ||
	       (!dev->immediates && !wc->byte_len);
}

const void *iba_wring_take(struct iba_vlane *lane, unsigned int class,
			   const struct ibv_wc *wc)
{
	struct iba_wring *ring = &lane->in_ring[class];
	uint32_t slot = ring->next;

	if (!ring->mem || ((wc->wc_flags & IBV_WC_WITH_IMM) &&
			   be32toh(wc->imm_data) != slot))
		return NULL;
	ring->next = (slot + 1) % ring->slots;
	return ring->mem + (size_t)slot * ring->slot_size;
}

void iba_wring_copy(const struct iba_vrx *rx, const void *payload, uint32_t len)
{
	const char *from = payload;

	for (unsigned int i = 1; len; i++) {
		uint32_t n = rx->sge[i].length;

		if (n > len)
			n = len;
		memcpy((void *)(uintptr_t)rx->sge[i].addr, from, n);
		from += n;
		len -= n;
	}
}

/* ---- the peer's ---- */

bool iba_wring_offered(struct iba_vlane *lane, const struct vnet_lane_ring *offer)
{
	for (int c = 0; c < VNET_RWQ_CLASSES; c++) {
		struct iba_wring_peer *ring = &lane->out_ring[c];
		uint32_t slots = le32toh(offer->ring[c].slots);
		uint32_t size = le32toh(offer->ring[c].slot_size);

		if (ring->slots || offer->ring[c].reserved)
			return false;
		if (!slots)
			continue;
		if (slots > VIRTQ_NUM_MAX || size <= HDR ||
		    size > HDR + VTOE_MSG_LEN_MAX + SLOT_ALIGN)
			return false;
		ring->addr = le64toh(offer->ring[c].addr);
		ring->rkey = le32toh(offer->ring[c].rkey);
		ring->slots = slots;
		ring->slot_size = size;
	}
	return true;
}

bool iba_wring_place(struct iba_vlane *lane, unsigned int class, uint32_t bytes,
		     struct ibv_send_wr *wr, struct ibv_send_wr *tell)
{
	struct iba_wring_peer *ring = &lane->out_ring[class];

	if (bytes > ring->slot_size)
		return false;
	wr->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
	wr->imm_data = htobe32(ring->next);
	if (!lane->dev->immediates) {
		memset(tell, 0, sizeof(*tell));
		tell->wr_id = wr->wr_id;
		tell->opcode = IBV_WR_SEND;
		tell->send_flags = IBV_SEND_SOLICITED;
		wr->send_flags &= ~(unsigned int)IBV_SEND_SOLICITED;
		wr->wr_id = iba_v_id(IBA_V_WRITE, class, 0, 0);
		wr->opcode = IBV_WR_RDMA_WRITE;
		wr->next = tell;
	}
	wr->wr.rdma.remote_addr = ring->addr +
				  (uint64_t)ring->next * ring->slot_size;
	wr->wr.rdma.rkey = ring->rkey;
	ring->next = (ring->next + 1) % ring->slots;
	return true;
}
