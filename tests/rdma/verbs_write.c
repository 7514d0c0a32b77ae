// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Of verbs_test: peers that write into rings (`rdma-transfer write`), and what a
 * bad one does to the other.
 */
#include <endian.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "tap.h"
#include "verbs.h"
#include "verbs_test.h"

#define WRITE "rdma-transfer write\n"

/* ---- faults to order: the agent's code is linked in, and called through these ---- */

static enum {
	RING_GOOD,
	RING_TOO_MANY,	  /* slots are offered by a */
	RING_WRONG_SLOT,  /* the fourth WRITE of a names another */
	RING_WRONG_KEY,	  /* the fourth WRITE of a has another */
	RING_NOT_OFFERED, /* a writes all the same */
	RING_ONE_SIDE,	  /* a offers rings that do not exist: slots 0 */
} ring_fault;
static unsigned int nth; /* WRITE of a */

void __real_iba_wring_fill_offer(const struct iba_vlane *lane,
				 struct vnet_lane_ring *offer);
void __wrap_iba_wring_fill_offer(const struct iba_vlane *lane,
				 struct vnet_lane_ring *offer);
bool __real_iba_wring_place(struct iba_vlane *lane, unsigned int class,
			    uint32_t bytes, struct ibv_send_wr *wr,
			    struct ibv_send_wr *tell);
bool __wrap_iba_wring_place(struct iba_vlane *lane, unsigned int class,
			    uint32_t bytes, struct ibv_send_wr *wr,
			    struct ibv_send_wr *tell);

static bool is_a(const struct iba_vlane *lane)
{
	return lane->local_mac[5] == 1;
}

void __wrap_iba_wring_fill_offer(const struct iba_vlane *lane,
				 struct vnet_lane_ring *offer)
{
	__real_iba_wring_fill_offer(lane, offer);
	if (ring_fault == RING_ONE_SIDE && is_a(lane))
		memset(offer, 0, sizeof(*offer));
	if (ring_fault == RING_TOO_MANY && is_a(lane))
		offer->ring[VNET_RWQ_LARGE].slots = htole32(VIRTQ_NUM_MAX + 1);
}

bool __wrap_iba_wring_place(struct iba_vlane *lane, unsigned int class,
			    uint32_t bytes, struct ibv_send_wr *wr,
			    struct ibv_send_wr *tell)
{
	bool write = __real_iba_wring_place(lane, class, bytes, wr, tell);

	if (!is_a(lane) || ++nth < 4)
		return write;
	if (ring_fault == RING_WRONG_SLOT)
		wr->imm_data = htobe32(be32toh(wr->imm_data) + 1);
	if (ring_fault == RING_WRONG_KEY)
		wr->wr.rdma.rkey ^= 0x5a5a00;
	if (ring_fault == RING_NOT_OFFERED) {
		wr->opcode = IBV_WR_RDMA_WRITE_WITH_IMM;
		wr->imm_data = 0;
		wr->num_sge = 0; /* no bytes, so no key is asked for */
	}
	return write;
}

static bool start_with(int fault, const struct guest_options *opt,
		       const char *extra)
{
	bool write = transfer_write, started;

	ring_fault = fault;
	nth = 0;
	transfer_write = false; /* extra says it */
	started = start(opt, extra);
	transfer_write = write;
	return started;
}

/* ---- data ---- */

static long of_a(const char *counter)
{
	return agent_lanes_counter(&bed.agent[0], "verbs", counter);
}

/* All that has gone through a's lane so far. */
void by_transfer(void)
{
	long in = transfer_write ? of_a("rx_msgs") : 0;

	ok(of_a("tx_msgs") > 0 &&
	   of_a("tx_writes") == (transfer_write ? of_a("tx_msgs") : 0),
	   transfer_write ? "all of it was written" : "all of it was sent");
	is_int(of_a("rx_writes"), in,
	       transfer_write ? "what came was written, too" :
				"what came was sent, too");
	is_int(of_a("rx_copied_bytes"), transfer_write ? of_a("rx_bytes") : 0,
	       transfer_write ? "and copied once" : "and not copied");
}

/*
 * As few slots as buffers, all of them granted: slots are written again as soon as
 * may be, also behind a receiver that has not looked for a while.
 */
void test_write_wraps(void)
{
	static const struct guest_options eight = {
		.swq_num = 64, .rwq_num = { 8, 8 }, .eq_buffers = 64,
		.rwq_posted = { 8, 8 },
	};
	struct stream a, b;
	pid_t tenant;

	if (!start_with(RING_GOOD, &eight, WRITE))
		return;
	bed.msg_window[0] = bed.msg_window[1] = 8;
	is_int(bed_open(&bed, &a, &b), 0, "connection opens");
	ok(stream_exchange(&a, &b, 4 << 20, G_LARGE), "4 MB each way, all sizes");
	over_verbs(&a, &b);
	ok(of_a("tx_writes") > 4 * 16, "through 16 slots, over and over");
	is_int(agent_tenants(&bed.agent[1], &tenant, 1), 1, "a tenant's process");
	for (int i = 0; i < 3; i++) {
		kill(tenant, SIGSTOP);
		send_a_lot(&a);
		streams_pump(&bed.a, 500);
		kill(tenant, SIGCONT);
		ok(stream_exchange(&a, &b, 100000, G_LARGE),
		   "b's host stands still for a while: nothing is overwritten");
	}
	send_a_lot(&a);
	is_int(stream_close(&b, 0), 0, "b closes while more comes");
	ok(stream_wait_broken(&a) && !stream_close(&a, 0), "a is told");
	is_int(bed_open(&bed, &a, &b), 0, "another connection opens");
	ok(stream_exchange(&a, &b, 1 << 20, G_LARGE), "the slots are in step");
	bed.msg_window[0] = bed.msg_window[1] = 0;
	no_rnr();
	stop();
}

/* Each side decides how it is given data. */
void test_write_one_side(void)
{
	struct stream a, b;

	if (program)
		return;
	if (!start_with(RING_ONE_SIDE, NULL, WRITE))
		return;
	is_int(bed_open(&bed, &a, &b), 0, "connection opens");
	ok(stream_exchange(&a, &b, 1 << 20, G_LARGE), "1 MB each way, all sizes");
	over_verbs(&a, &b);
	is_int(of_a("tx_writes"), of_a("tx_msgs"), "b has rings and is written to");
	is_int(of_a("rx_writes"), 0, "a has none and is sent to");
	no_rnr();
	stop();
	ring_fault = RING_GOOD;
}

/* ---- bad peers ---- */

static void one_fault(int fault, const char *extra, unsigned int who,
		      const char *logged, const char *what)
{
	struct stream a, b;

	note("%s", what);
	if (!start_with(fault, NULL, extra))
		return;
	is_int(bed_open(&bed, &a, &b), 0, "connection opens");
	send_a_lot(&a);
	ok(stream_wait_broken(&a) && a.reason == VTOE_REASON_LANE_LOST &&
	   stream_wait_broken(&b) && b.reason == VTOE_REASON_LANE_LOST,
	   "the lane ends, both ends are told");
	ok(agent_logged(&bed.agent[who], logged), "the log says why");
	is_int(stream_close(&a, 0) + stream_close(&b, 0), 0, "both close");
	stop();
	ring_fault = RING_GOOD;
}

void test_write_faults(void)
{
	struct stream a, b;

	if (program)
		return;
	one_fault(RING_WRONG_SLOT, WRITE, 1, "WRITE out of place",
		  "a WRITE into another slot");
	one_fault(RING_WRONG_KEY, WRITE, 0, "remote access error",
		  "a WRITE with another key");
	one_fault(RING_NOT_OFFERED, "", 1, "WRITE out of place",
		  "a WRITE into no ring");
	note("a ring with too many slots");
	if (!start_with(RING_TOO_MANY, NULL, WRITE))
		return;
	ok(bed_open(&bed, &a, &b) != 0, "no connection opens");
	ok(agent_logged(&bed.agent[1], "bad RING"), "the log says why");
	stop();
	ring_fault = RING_GOOD;
}

static bool offered(uint32_t slots, uint32_t size, uint32_t reserved)
{
	struct vnet_lane_ring offer = { .ring[VNET_RWQ_SMALL] = {
		.slots = htole32(slots),
		.slot_size = htole32(size),
		.reserved = htole32(reserved),
	} };
	struct iba_vlane *lane = calloc(1, sizeof(*lane));
	bool good;

	if (!lane)
		bail_out("no memory");
	good = iba_wring_offered(lane, &offer);
	if (good && slots) /* a second one is refused */
		good = !iba_wring_offered(lane, &offer);
	free(lane);
	return good;
}

void test_write_offers(void)
{
	uint32_t hdr = sizeof(struct vtoe_msg_hdr);

	if (program)
		return;
	ok(offered(1, hdr + 1, 0), "the smallest ring");
	ok(offered(VIRTQ_NUM_MAX, hdr + VTOE_MSG_LEN_MAX, 0), "the largest");
	ok(offered(0, 0, 0), "none");
	ok(!offered(VIRTQ_NUM_MAX + 1, hdr + 1, 0), "too many slots");
	ok(!offered(UINT32_MAX, hdr + 1, 0), "far too many");
	ok(!offered(1, hdr, 0), "no room for a byte");
	ok(!offered(1, 0, 0), "no room at all");
	ok(!offered(1, 2 * VTOE_MSG_LEN_MAX, 0), "slots that are too large");
	ok(!offered(1, hdr + 1, 1), "a reserved field");
}
