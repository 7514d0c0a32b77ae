// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A VM whose rings rest, as they do when it is stopped, gets memory or moves an
 * interrupt: its connections live, and no byte is lost of what was under way
 * from it, came for it meanwhile, or had come in part. What it may make us hold
 * is bounded.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "by_hand.h"
#include "tap.h"

static struct bed bed;

static long long held(unsigned int agent, const char *vm)
{
	return agent_vm_counter(&bed.agent[agent], vm, "rx_held");
}

/* Messages of all sizes, fewer than a guest has buffers for. */
static void fill(struct stream *s)
{
	static const uint32_t len[] = { 1, G_SMALL, G_LARGE, 3000, 7, 50000 };

	for (unsigned int i = 0; i < 12 && stream_may_send(s, len[i % 6]); i++)
		stream_send(s, len[i % 6]);
	guest_kick(s->g, G_SWQ);
}

/* Everything that was sent has come, and is right. */
static bool all_came(struct stream *a, struct stream *b)
{
	for (int i = 0; i < 400 && (a->rx != b->tx || b->rx != a->tx); i++) {
		streams_pump(a->g, 5);
		streams_pump(b->g, 5);
	}
	note("a sent %llu, b received %llu; b sent %llu, a received %llu",
	     (unsigned long long)a->tx, (unsigned long long)b->rx,
	     (unsigned long long)b->tx, (unsigned long long)a->rx);
	return a->rx == b->tx && b->rx == a->tx && !a->wrong && !b->wrong &&
	       !a->broken && !b->broken;
}

/* For b, which rests, more than before. */
static bool comes_to_be_held(unsigned int agent, long long before)
{
	for (int i = 0; i < 20; i++) {
		for (int k = 0; k < 20; k++)
			streams_pump(&bed.a, 5);
		if (held(agent, "b") > before)
			return true;
	}
	return false;
}

/* b rests while both send. */
static void test_both_send(unsigned int agents)
{
	const unsigned int last = agents - 1;
	struct stream a, b;
	long long before;

	is_int(bed_open(&bed, &a, &b), 0, "a connection");
	ok(stream_exchange(&a, &b, 1 << 20, G_LARGE), "which carries data");
	for (int round = 0; round < 3; round++) {
		before = held(last, "b");
		fill(&b);
		is_int(guest_rest(&bed.b), 0, "one end rests, having sent");
		fill(&a);
		ok(comes_to_be_held(last, before), "what comes for it is held");
		is_int(guest_go_on(&bed.b), 0, "it goes on");
		ok(all_came(&a, &b), "every byte has come, both ways");
	}
	is_int(guest_rest(&bed.b), 0, "it rests again");
	fill(&a);
	for (int i = 0; i < 20; i++)
		streams_pump(&bed.a, 5);
	stream_close(&a, VTOE_CLOSE_F_ABORT);
	is_int(guest_go_on(&bed.b), 0, "the peer leaves meanwhile");
	ok(stream_wait_broken(&b) && b.reason == VTOE_REASON_RESET && !b.wrong,
	   "which it is told when it goes on");
	stream_close(&b, 0);
	is_int(bed.a.rwq_returned + bed.b.rwq_returned, 0,
	       "no buffer came back unused");
	streams_reset();
}

/* A message half of which has come when it rests; late: and half after that. */
static void test_half(bool late)
{
	struct vtoe_credit grant = credit_of(0, 1 << 20, 10, 10);
	struct vtoe_msg_hdr hdr = { .type = VTOE_MSG_DATA,
				    .len = htole32(60000) };
	static uint8_t body[60000];
	struct lane_by_hand l;
	struct stream a;
	uint32_t sid = bed.next_sid++;

	hdr.id = htole32(open_conn(&l, &bed.a, sid, &grant, &grant));
	stream_init(&a, &bed.a, sid, &a);
	for (unsigned int i = 0; i < sizeof(body); i++)
		body[i] = pattern(a.peer->seed, i);
	lane_send(&l, &hdr, body, 30000);
	bed_pump(&bed, 20);
	is_int(guest_rest(&bed.a), 0, "half a message has come when it rests");
	if (!late) {
		send(l.fd, body + 30000, 30000, MSG_NOSIGNAL);
		usleep(20000);
	}
	is_int(guest_go_on(&bed.a), 0, "it goes on");
	if (late)
		send(l.fd, body + 30000, 30000, MSG_NOSIGNAL);
	for (int i = 0; i < 400 && a.rx < 60000; i++)
		streams_pump(&bed.a, 5);
	ok(a.rx == 60000 && !a.wrong && !a.broken, "%s",
	   late ? "the other half follows" : "the other half had come");
	hdr.offset = htole64(60000);
	lane_send(&l, &hdr, body, 100);
	bed_pump(&bed, 20);
	is_int(guest_rest(&bed.a), 0, "it rests in another one");
	lane_end(&l);
	usleep(20000);
	is_int(guest_go_on(&bed.a), 0, "which never ends");
	ok(stream_wait_broken(&a) && a.reason == VTOE_REASON_LANE_LOST,
	   "the lane's loss is told then");
	stream_close(&a, 0);
	is_int(bed.a.rwq_returned, 0, "no buffer came back unused");
	streams_reset();
}

/* It has granted more than it has posted, or than there are places. */
static void test_limit(void)
{
	struct vtoe_credit grant = credit_of(0, 100 << 20, 5000, 5000);
	struct vtoe_msg_hdr hdr = { .type = VTOE_MSG_DATA, .len = htole32(10) };
	static const uint8_t body[10];
	struct lane_by_hand l;
	struct stream a, c, d;
	uint32_t sid = bed.next_sid++;

	hdr.id = htole32(open_conn(&l, &bed.a, sid, &grant, &grant));
	stream_init(&a, &bed.a, sid, &a);
	a.unchecked = a.hold = true;
	is_int(bed_open(&bed, &c, &d), 0, "another connection");
	is_int(guest_rest(&bed.a), 0, "it rests, and has granted 5000 messages");
	for (unsigned int i = 0; i < 600; i++) {
		hdr.offset = htole64(10 * i);
		lane_send(&l, &hdr, body, sizeof(body));
	}
	is_int(lane_rejected(&l, VTOE_MSG_RST), VTOE_REASON_CREDIT,
	       "the peer is told that it has them not");
	is_int(agent_vm_counter(&bed.agent[0], "a", "rwq_empty"), 1,
	       "which is counted");
	is_int(guest_go_on(&bed.a), 0, "it goes on");
	ok(stream_wait_broken(&a) && a.reason == VTOE_REASON_CREDIT,
	   "and has lost that connection");
	stream_close(&a, 0);
	ok(stream_exchange(&c, &d, 1 << 20, G_LARGE), "no other one");
	stream_close(&c, VTOE_CLOSE_F_ABORT);
	ok(stream_wait_broken(&d), "reset");
	stream_close(&d, 0);
	lane_end(&l);
	streams_reset();
}

/* It leaves while it rests. */
static void test_never(void)
{
	struct stream a, b;

	is_int(bed_open(&bed, &a, &b), 0, "a connection");
	is_int(guest_rest(&bed.b), 0, "one end rests");
	fill(&a);
	bed_pump(&bed, 20);
	close(bed.b.fd);
	bed.b.fd = -1;
	ok(stream_wait_broken(&a) && a.reason == VTOE_REASON_PEER_GONE,
	   "and leaves: the other is told");
	stream_close(&a, 0);
	streams_reset();
}

/* What its first descriptor was told, the guest was not, perhaps. */
static void test_interrupt_moves(void)
{
	unsigned int rung = 0;
	uint64_t count;

	for (int i = 0; i < G_QUEUES; i++) {
		int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

		is_int(guest_queue_stop(&bed.a, i) |
		       guest_queue_start(&bed.a, i, bed.a.q[i].kick_fd, fd), 0,
		       "a queue gets another interrupt");
		rung += read(fd, &count, sizeof(count)) == sizeof(count);
		dup2(fd, bed.a.q[i].call_fd);
		close(fd);
	}
	is_int(rung, G_QUEUES, "each rings");
}

static void run(unsigned int agents, const struct guest_options *opt)
{
	hand_init(&bed);
	if (!ok(bed_make(&bed, agents, opt, ""), "two guests on %u hosts", agents))
		return;
	test_interrupt_moves();
	test_both_send(agents);
	if (agents == 2) {
		test_half(false);
		test_half(true);
		test_limit();
	}
	test_never();
	for (unsigned int i = 0; i < agents; i++)
		is_int(bed_end(&bed, i), 0, "agent ends cleanly");
}

int main(void)
{
	static const struct guest_options pages = {
		.swq_num = 16, .rwq_num = { 256, 64 }, .eq_buffers = 4,
		.rwq_posted = { 256, 64 }, .pages = true,
	};

	signal(SIGPIPE, SIG_IGN);
	run(1, NULL);
	run(2, NULL);
	run(2, &pages);
	return tap_done();
}
