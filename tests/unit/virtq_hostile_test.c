// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Virtqueue with a driver that breaks the rules, one class of offence a case: a
 * malformed chain comes back with length 0 and harms nobody; a ring that makes
 * no sense breaks its queue, and so does a descriptor that makes us wait. What
 * only a double fetch shows is left to review.
 */
#include <signal.h>
#include <sys/time.h>

#include "virtq_rig.h"

#define NUM 512
#define HEAD 3
#define BEHIND (NUM + 8) /* its entries of the avail ring are free by then */

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT

static void set(struct rig *rig, uint16_t i, uint64_t gpa, uint32_t len,
		uint16_t flags, uint16_t next)
{
	rig->driver.desc[i] = (struct vring_desc){ htole64(gpa), htole32(len),
						   htole16(flags),
						   htole16(next) };
}

/*
 * Makes descriptor HEAD point to a table of count entries; returns it. Behind
 * its end stands a good descriptor, for who goes on to read there.
 */
static struct vring_desc *set_table(struct rig *rig, unsigned int count)
{
	uint64_t gpa = ring_memory_alloc(&rig->memory, (count + 1) * 16, 16);
	struct vring_desc *table = ring_memory_at(&rig->memory, gpa);

	table[count] = (struct vring_desc){ RIG_GPA, 1, 0, 0 };
	set(rig, HEAD, gpa, count * 16, INDIRECT, 0);
	return table;
}

static void self_loop(struct rig *rig)
{
	set(rig, HEAD, RIG_GPA, 1, NEXT, HEAD);
}

static void loop_of_two(struct rig *rig)
{
	set(rig, HEAD, RIG_GPA, 1, NEXT, 9);
	set(rig, 9, RIG_GPA, 1, NEXT, HEAD);
}

/* In the avail ring behind the table stands what looks like a good one. */
static void next_out_of_range(struct rig *rig)
{
	struct vring_desc behind = { RIG_GPA, 1, 0, 0 };

	set(rig, HEAD, RIG_GPA, 1, NEXT, BEHIND);
	memcpy(&rig->driver.desc[BEHIND], &behind, sizeof(behind));
}

static void next_at_the_end(struct rig *rig)
{
	set(rig, HEAD, RIG_GPA, 1, NEXT, 0xffff);
}

static void zero_length(struct rig *rig)
{
	set(rig, HEAD, RIG_GPA, 0, 0, 0);
}

static void below_memory(struct rig *rig)
{
	set(rig, HEAD, RIG_GPA - 1, 2, 0, 0);
}

static void beyond_memory(struct rig *rig)
{
	set(rig, HEAD, RIG_GPA2 + RIG_SIZE2 - 4, 5, WRITE, 0);
}

static void wrapping_address(struct rig *rig)
{
	set(rig, HEAD, UINT64_MAX - 3, 16, 0, 0);
}

static void longest(struct rig *rig)
{
	set(rig, HEAD, RIG_GPA, UINT32_MAX, 0, 0);
}

static void crossing_regions(struct rig *rig)
{
	set(rig, HEAD, RIG_GPA2 - 8, 16, WRITE, 0);
}

static void second_outside(struct rig *rig)
{
	set(rig, HEAD, RIG_GPA, 1, NEXT, 4);
	set(rig, 4, 0, 1, 0, 0);
}

static void readable_after_writable(struct rig *rig)
{
	set(rig, HEAD, RIG_GPA, 1, NEXT | WRITE, 4);
	set(rig, 4, RIG_GPA, 1, 0, 0);
}

static void chain_too_long(struct rig *rig)
{
	unsigned int i;

	for (i = 0; i <= VIRTQ_CHAIN_MAX; i++)
		set(rig, HEAD + i, RIG_GPA, 1, i < VIRTQ_CHAIN_MAX ? NEXT : 0,
		    HEAD + i + 1);
}

static void bytes_overflow(struct rig *rig)
{
	unsigned int i;

	for (i = 0; i < 200; i++)
		set(rig, HEAD + i, RIG_GPA, RIG_SIZE - 1,
		    i < 199 ? NEXT | WRITE : WRITE, HEAD + i + 1);
}

static void indirect_and_next(struct rig *rig)
{
	set_table(rig, 1)[0] = (struct vring_desc){ RIG_GPA, 1, 0, 0 };
	rig->driver.desc[HEAD].flags |= NEXT;
}

static void table_of_nothing(struct rig *rig)
{
	set_table(rig, 1);
	rig->driver.desc[HEAD].len = 0;
}

static void table_of_odd_length(struct rig *rig)
{
	set_table(rig, 2)[0] = (struct vring_desc){ RIG_GPA, 1, 0, 0 };
	rig->driver.desc[HEAD].len = htole32(24);
}

static void table_too_long(struct rig *rig)
{
	set_table(rig, VIRTQ_CHAIN_MAX + 1)[0] =
		(struct vring_desc){ RIG_GPA, 1, 0, 0 };
}

static void table_outside(struct rig *rig)
{
	set(rig, HEAD, RIG_GPA2 + RIG_SIZE2 - 16, 32, INDIRECT, 0);
}

static void table_crossing_regions(struct rig *rig)
{
	set(rig, HEAD, RIG_GPA2 - 16, 32, INDIRECT, 0);
}

static void nested_indirect(struct rig *rig)
{
	struct vring_desc *table = set_table(rig, 2);

	/* the inner table is the descriptor behind the outer one: a good one */
	table[0] = (struct vring_desc){ RIG_GPA, 1, NEXT, 1 };
	table[1] = (struct vring_desc){
		le64toh(rig->driver.desc[HEAD].addr) + 32, 16, INDIRECT, 0
	};
}

/* Nested without an end, though no table but the ring's own is used. */
static void indirect_to_the_ring_itself(struct rig *rig)
{
	set(rig, HEAD, rig->driver.desc_gpa, 16 * 16, INDIRECT, 0);
	set(rig, 0, rig->driver.desc_gpa, 16 * 16, INDIRECT, 0);
}

static void table_next_out_of_range(struct rig *rig)
{
	struct vring_desc *table = set_table(rig, 2);

	table[0] = (struct vring_desc){ RIG_GPA, 1, NEXT, 1 };
	table[1] = (struct vring_desc){ RIG_GPA, 1, NEXT, 2 };
}

static void table_loop(struct rig *rig)
{
	struct vring_desc *table = set_table(rig, 2);

	table[0] = (struct vring_desc){ RIG_GPA, 1, NEXT, 1 };
	table[1] = (struct vring_desc){ RIG_GPA, 1, NEXT, 0 };
}

static const struct offence {
	const char *name;
	void (*commit)(struct rig *rig);
} offences[] = {
	{ "descriptor loop of one", self_loop },
	{ "descriptor loop of two", loop_of_two },
	{ "next just out of range", next_out_of_range },
	{ "next 65535", next_at_the_end },
	{ "length 0", zero_length },
	{ "address below memory", below_memory },
	{ "range beyond memory", beyond_memory },
	{ "range that wraps", wrapping_address },
	{ "length 2^32 - 1", longest },
	{ "range across two regions", crossing_regions },
	{ "second descriptor outside", second_outside },
	{ "readable after writable", readable_after_writable },
	{ "longer than VIRTQ_CHAIN_MAX", chain_too_long },
	{ "sum of lengths over 2^32", bytes_overflow },
	{ "INDIRECT with NEXT", indirect_and_next },
	{ "indirect table of length 0", table_of_nothing },
	{ "indirect table of odd length", table_of_odd_length },
	{ "indirect table too long", table_too_long },
	{ "indirect table outside", table_outside },
	{ "indirect table across regions", table_crossing_regions },
	{ "nested indirect", nested_indirect },
	{ "indirect to the ring itself", indirect_to_the_ring_itself },
	{ "next out of the indirect table", table_next_out_of_range },
	{ "loop in the indirect table", table_loop },
};

/* The ring as the driver would have it behind an offence. */
static void restore(struct rig *rig)
{
	unsigned int i;

	for (i = 0; i < NUM; i++)
		set(rig, i, 0, 0, 0, i + 1);
	rig->driver.free_head = 0;
	rig->driver.free_count = NUM;
}

static bool good_chain_passes(struct rig *rig)
{
	struct ring_piece p = { RIG_GPA, 1 };
	uint32_t len = 0;
	int cookie;

	if (ring_driver_add(&rig->driver, &p, 0, 1, &cookie, 0) < 0)
		return false;
	ring_driver_publish(&rig->driver);
	if (rig_pop(rig) != 1)
		return false;
	virtq_push(&rig->vq, rig->chain.head, 1);
	virtq_publish(&rig->vq);
	return ring_driver_get_used(&rig->driver, &len) == &cookie && len == 1;
}

static void try_offence(struct rig *rig, const struct offence *offence)
{
	const uint64_t malformed = rig->vq.stats.malformed;
	struct vring_used_elem *elem =
		&rig->driver.used->ring[rig->driver.last_used % NUM];
	bool returned;

	restore(rig);
	ring_driver_ack_call(&rig->driver);
	elem->len = htole32(0xabcd);
	offence->commit(rig);
	ring_driver_offer(&rig->driver, HEAD);
	ring_driver_publish(&rig->driver);
	ok(rig_pop(rig) == 0 && !rig->vq.broken &&
		   rig->vq.stats.malformed == malformed + 1,
	   "%s: malformed", offence->name);
	returned = le16toh(rig->driver.used->idx) ==
			   (uint16_t)(rig->driver.last_used + 1) &&
		   le32toh(elem->id) == HEAD && elem->len == 0;
	ok(returned && ring_driver_ack_call(&rig->driver) == 1,
	   "%s: returned with length 0 and an interrupt", offence->name);
	rig->driver.last_used++;
	restore(rig);
	ok(good_chain_passes(rig), "%s: the queue goes on", offence->name);
}

static void not_negotiated(void)
{
	struct rig rig;

	rig_up(&rig, NUM, false, false);
	set_table(&rig, 1)[0] = (struct vring_desc){ RIG_GPA, 1, 0, 0 };
	ring_driver_offer(&rig.driver, HEAD);
	ring_driver_publish(&rig.driver);
	ok(rig_pop(&rig) == 0 && rig.vq.stats.malformed == 1,
	   "indirect, not negotiated: malformed");
	rig_down(&rig);
}

/* The longest that is allowed, direct and indirect. */
static void longest_allowed(void)
{
	struct vring_desc *table;
	struct rig rig;
	unsigned int i;

	rig_up(&rig, NUM, false, true);
	chain_too_long(&rig);
	set(&rig, HEAD + VIRTQ_CHAIN_MAX - 1, RIG_GPA, 1, 0, 0);
	ring_driver_offer(&rig.driver, HEAD);
	ring_driver_publish(&rig.driver);
	ok(rig_pop(&rig) == 1 && rig.chain.out_count == VIRTQ_CHAIN_MAX,
	   "a chain of VIRTQ_CHAIN_MAX");
	table = set_table(&rig, VIRTQ_CHAIN_MAX);
	for (i = 0; i < VIRTQ_CHAIN_MAX; i++)
		table[i] = (struct vring_desc){
			RIG_GPA, 1, WRITE | (i < VIRTQ_CHAIN_MAX - 1 ? NEXT : 0),
			i + 1
		};
	ring_driver_offer(&rig.driver, HEAD);
	ring_driver_publish(&rig.driver);
	ok(rig_pop(&rig) == 1 && rig.chain.in_count == VIRTQ_CHAIN_MAX,
	   "an indirect table of VIRTQ_CHAIN_MAX");
	rig_down(&rig);
}

static void expect_broken(struct rig *rig, const char *name)
{
	const uint16_t used = rig->driver.used->idx;

	ok(rig_pop(rig) == -EPROTO && rig->vq.broken, "%s: broken", name);
	ok(rig_pop(rig) == -EPROTO && !virtq_has_work(&rig->vq) &&
		   !virtq_enable_kicks(&rig->vq) &&
		   rig->driver.used->idx == used,
	   "%s: and stays so", name);
}

static void broken_rings(void)
{
	struct rig rig;

	rig_up(&rig, NUM, true, false);
	rig.driver.avail->idx = htole16(NUM + 1);
	expect_broken(&rig, "index one ring and one ahead");
	virtq_stop(&rig.vq);
	is_int(rig_start(&rig, NUM + 1, false, NULL), 0, "a new start heals");
	rig.driver.avail->idx = htole16(NUM);
	expect_broken(&rig, "index that goes back");
	rig_down(&rig);

	rig_up(&rig, NUM, false, false);
	ring_driver_offer(&rig.driver, NUM);
	ring_driver_publish(&rig.driver);
	expect_broken(&rig, "head just out of range");
	rig_down(&rig);

	rig_up(&rig, NUM, false, false);
	self_loop(&rig);
	ring_driver_offer(&rig.driver, HEAD);
	ring_driver_offer(&rig.driver, 0xffff);
	ring_driver_publish(&rig.driver);
	rig.vq.stats.malformed = 0;
	is_int(rig_pop(&rig), -EPROTO, "malformed, then a head out of range");
	is_int(rig.driver.used->idx, 1, "the malformed one was returned");
	rig_down(&rig);
}

/* The ring is full of one bad chain: a pop ends soon, and tells that there is
 * more. */
static void full_of_bad_ones(void)
{
	unsigned int i, pops = 0;
	struct rig rig;
	uint16_t mark;

	rig_up(&rig, NUM, true, false);
	self_loop(&rig);
	for (i = 0; i < NUM; i++)
		ring_driver_offer(&rig.driver, HEAD);
	ring_driver_publish(&rig.driver);
	ring_driver_enable_calls(&rig.driver);
	mark = virtq_mark(&rig.vq);
	is_int(rig_pop(&rig), 0, "a ring full of bad chains");
	is_int(rig.vq.stats.malformed, VIRTQ_SKIP_MAX, "some of them");
	is_int(rig.driver.used->idx, VIRTQ_SKIP_MAX, "are returned");
	is_int(ring_driver_ack_call(&rig.driver), 1, "with one interrupt");
	ok(virtq_enable_kicks(&rig.vq), "the rest is told of");
	for (; virtq_before(&rig.vq, mark) && pops < NUM; pops++)
		rig_pop(&rig);
	is_int(pops, NUM / VIRTQ_SKIP_MAX - 1, "and met in steps");
	is_int(rig.vq.stats.malformed, NUM, "each counted");
	is_int(rig.driver.used->idx, NUM, "each returned");
	rig_down(&rig);
}

/* A chain that stays taken and is read again, as the guest has it then. */
static void read_again(void)
{
	struct ring_piece p = { RIG_GPA, 100 };
	struct virtq_chain again;
	struct rig rig;
	int a;

	rig_up(&rig, NUM, false, false);
	ring_driver_add(&rig.driver, &p, 0, 1, &a, 0);
	ring_driver_publish(&rig.driver);
	is_int(rig_pop(&rig), 1, "one is taken");
	ok(virtq_reread(&rig.vq, rig.chain.head, &again) &&
		   again.in_bytes == 100 && again.head == rig.chain.head,
	   "and read again");
	rig.driver.desc[rig.chain.head].addr = htole64(1);
	ok(!virtq_reread(&rig.vq, rig.chain.head, &again),
	   "unless the guest has spoilt it");
	ok(!virtq_reread(&rig.vq, NUM, &again), "or it is no head");
	is_int(rig_pop(&rig), 0, "the ring goes on");
	rig_down(&rig);
}

/* A bad chain between two good ones, which are then given back. */
static void unpop_across_a_bad_one(void)
{
	struct ring_piece p = { RIG_GPA, 1 };
	struct virtq_chain first, second;
	struct rig rig;
	int a, b;

	rig_up(&rig, NUM, false, false);
	set(&rig, 100, RIG_GPA, 0, 0, 0);
	ring_driver_add(&rig.driver, &p, 0, 1, &a, 0);
	ring_driver_offer(&rig.driver, 100);
	ring_driver_add(&rig.driver, &p, 0, 1, &b, 0);
	ring_driver_publish(&rig.driver);
	if (virtq_pop(&rig.vq, &first) != 1 || virtq_pop(&rig.vq, &second) != 1)
		bail_out("pop");
	virtq_unpop(&rig.vq, &second);
	virtq_unpop(&rig.vq, &first);
	ok(rig_pop(&rig) == 1 && rig.chain.head == first.head &&
		   rig_pop(&rig) == 1 && rig.chain.head == second.head,
	   "given back across a bad chain: both come again");
	rig_down(&rig);
}

/* ---- descriptors that wait ---- */

static void rings(int sig)
{
	(void)sig;
}

/* The timer by which a process with several VMs saves itself. */
static void watchdog_on(void)
{
	const struct sigaction action = { .sa_handler = rings };
	const struct itimerval it = { { 0, 20000 }, { 0, 20000 } };

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &it, NULL);
}

static void watchdog_off(void)
{
	alarm(60); /* the same timer, */
	signal(SIGALRM, SIG_DFL); /* to end what waits for ever */
}

/* O_NONBLOCK goes after the start, through the front end's own descriptor. */
static void make_blocking(int fd)
{
	if (fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK))
		bail_out("fcntl");
}

static void fill(int fd)
{
	const uint64_t most = UINT64_MAX - 1;

	if (write(fd, &most, sizeof(most)) != sizeof(most))
		bail_out("write to an eventfd");
}

static void test_blocked_call(void)
{
	struct ring_piece p = { RIG_GPA, 1 };
	struct rig rig;
	int a;

	rig_up(&rig, NUM, true, false);
	ring_driver_add(&rig.driver, &p, 1, 0, &a, 0);
	ring_driver_publish(&rig.driver);
	ring_driver_enable_calls(&rig.driver);
	is_int(rig_pop(&rig), 1, "one is taken");
	virtq_push(&rig.vq, rig.chain.head, 0);
	fill(rig.driver.call_fd);
	ok(virtq_publish_notify(&rig.vq) && !rig.vq.blocked,
	   "a full eventfd is as good as an interrupt");
	ring_driver_add(&rig.driver, &p, 1, 0, &a, 0);
	ring_driver_publish(&rig.driver);
	rig_pop(&rig);
	virtq_push(&rig.vq, rig.chain.head, 0);
	ring_driver_get_used(&rig.driver, NULL);
	ring_driver_enable_calls(&rig.driver);
	make_blocking(rig.driver.call_fd);
	watchdog_on();
	ok(!virtq_publish_notify(&rig.vq) && rig.vq.blocked,
	   "one that is full and blocks is found out");
	watchdog_off();
	is_int(rig.driver.used->idx, 2, "what was used is seen all the same");
	expect_broken(&rig, "blocked interrupt");
	virtq_push(&rig.vq, 0, 0);
	ok(!virtq_publish_notify(&rig.vq), "and it is not tried again");
	is_int(rig.vq.stats.calls, 1, "nor counted");
	rig_down(&rig);
}

/* The interrupt for bad chains, which virtq_pop() raises itself. */
static void test_blocked_in_pop(void)
{
	struct rig rig;

	rig_up(&rig, NUM, true, false);
	self_loop(&rig);
	ring_driver_offer(&rig.driver, HEAD);
	ring_driver_publish(&rig.driver);
	ring_driver_enable_calls(&rig.driver);
	fill(rig.driver.call_fd);
	make_blocking(rig.driver.call_fd);
	watchdog_on();
	ok(rig_pop(&rig) == -EPROTO && rig.vq.blocked,
	   "blocked while it gives back a bad chain");
	watchdog_off();
	rig_down(&rig);
}

static void test_blocked_kick(void)
{
	struct rig rig;

	rig_up(&rig, NUM, true, false);
	virtq_ack_kick(&rig.vq);
	ok(!rig.vq.blocked, "a doorbell that did not ring");
	make_blocking(rig.driver.kick_fd);
	watchdog_on();
	virtq_ack_kick(&rig.vq);
	watchdog_off();
	ok(rig.vq.blocked, "and one that waits until it does");
	virtq_ack_kick(&rig.vq);
	expect_broken(&rig, "blocked doorbell");
	virtq_stop(&rig.vq);
	is_int(rig_start(&rig, 0, false, NULL), 0, "a new start");
	ok(!rig.vq.blocked && !rig.vq.broken, "heals");
	rig_down(&rig);
}

int main(void)
{
	struct rig rig;
	unsigned int i;

	alarm(60); /* a chain without an end */
	rig_up(&rig, NUM, false, true);
	for (i = 0; i < sizeof(offences) / sizeof(offences[0]); i++)
		try_offence(&rig, &offences[i]);
	rig_down(&rig);
	not_negotiated();
	longest_allowed();
	broken_rings();
	full_of_bad_ones();
	unpop_across_a_bad_one();
	read_again();
	test_blocked_call();
	test_blocked_in_pop();
	test_blocked_kick();
	return tap_done();
}
