// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Virtqueue with a driver that keeps the rules: data both ways, indirect
 * descriptors, suppression of doorbells and interrupts, indices that wrap,
 * chains given back, and two threads that sleep on their eventfds.
 */
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>

#include "virtq_rig.h"

static void test_start(void)
{
	struct guest_mem *mem;
	struct virtq *vq;
	struct rig rig;
	uint64_t d, a, u;

	rig_prepare(&rig, 64, true);
	vq = &rig.vq;
	mem = &rig.mem;
	d = rig.driver.desc_gpa;
	a = rig.driver.avail_gpa;
	u = rig.driver.used_gpa;
#define START(num, d, a, u) virtq_start(vq, mem, num, d, a, u, 0, true, true, NULL)
	is_int(START(0, d, a, u), -EINVAL, "start: no ring of 0");
	is_int(START(48, d, a, u), -EINVAL, "start: no ring of 48");
	is_int(START(2 * VIRTQ_NUM_MAX, d, a, u), -EINVAL, "start: too large");
	is_int(START(64, d + 8, a, u), -EINVAL, "start: misaligned table");
	is_int(START(64, d, a + 1, u), -EINVAL, "start: misaligned avail");
	is_int(START(64, d, a, u + 2), -EINVAL, "start: misaligned used");
	is_int(START(64, 0, a, u), -EINVAL, "start: table outside memory");
	is_int(START(64, RIG_GPA2 - 16, a, u), -EINVAL,
	       "start: table across regions");
	is_int(START(64, d, RIG_GPA2 + RIG_SIZE2 - 128, u), -EINVAL,
	       "start: avail beyond the end");
	is_int(START(64, d, a, RIG_GPA2 + RIG_SIZE2 - 512), -EINVAL,
	       "start: used beyond the end");
	ok(!vq->running && virtq_pop(vq, &rig.chain) == 0 &&
		   !virtq_has_work(vq) && !virtq_enable_kicks(vq),
	   "start: nothing runs after a refusal");
	/* good addresses, but the mapping is not aligned as they are */
	guest_mem_add(mem, 0x10000000, 0x10000, 0, 1, dup(rig.memory.fd));
	is_int(START(64, 0x10000000, a, u), -EINVAL, "start: misaligned mapping");
	is_int(START(64, d, a, u), 0, "start: good");
	is_int(rig_pop(&rig), 0, "start: an empty ring");
	is_int(virtq_stop(vq), 0, "stop: at position 0");
	ok(vq->kick_fd == -1 && vq->call_fd == -1, "stop: closes");
#undef START
	rig_down(&rig);
}

/* One request and its answer, each in pieces. */
static void echo(struct rig *rig, uint64_t table, const char *name)
{
	struct ring_piece p[5] = {
		rig_piece(rig, 4), rig_piece(rig, 1), rig_piece(rig, 7),
		rig_piece(rig, 5), rig_piece(rig, 64),
	};
	struct virtq_chain *chain = &rig->chain;
	char buf[16] = "";
	uint32_t len = 0;
	int cookie;

	memcpy(ring_memory_at(&rig->memory, p[0].gpa), "abcd", 4);
	memcpy(ring_memory_at(&rig->memory, p[1].gpa), "e", 1);
	memcpy(ring_memory_at(&rig->memory, p[2].gpa), "fghijkl", 7);
	ring_driver_add(&rig->driver, p, 3, 2, &cookie, table);
	ok(!virtq_has_work(&rig->vq), "%s: not before it is published", name);
	ring_driver_kick(&rig->driver);
	ok(virtq_has_work(&rig->vq), "%s: there is work", name);
	ok(rig_pop(rig) == 1 && chain->out_count == 3 && chain->in_count == 2 &&
		   chain->out_bytes == 12 && chain->in_bytes == 69,
	   "%s: taken, 3 readable, 2 writable", name);
	ok(virtq_copy_out(chain, 0, buf, sizeof(buf)) == 12 &&
		   memcmp(buf, "abcdefghijkl", 12) == 0,
	   "%s: all readable bytes", name);
	memset(buf, 0, sizeof(buf));
	ok(virtq_copy_out(chain, 3, buf, 3) == 3 && memcmp(buf, "def", 3) == 0,
	   "%s: readable bytes across pieces", name);
	ok(virtq_copy_out(chain, 12, buf, 1) == 0 &&
		   virtq_copy_in(chain, 69, buf, 1) == 0 &&
		   virtq_copy_in(chain, 68, "xy", 2) == 1,
	   "%s: nothing beyond the end", name);
	ok(virtq_copy_in(chain, 2, "0123456789", 10) == 10,
	   "%s: writable bytes across pieces", name);
	virtq_push(&rig->vq, chain->head, 12);
	ok(!ring_driver_get_used(&rig->driver, NULL),
	   "%s: used is not seen before publish", name);
	ok(virtq_publish_notify(&rig->vq), "%s: an interrupt", name);
	ok(ring_driver_get_used(&rig->driver, &len) == &cookie && len == 12,
	   "%s: used with its length", name);
	ok(memcmp((char *)ring_memory_at(&rig->memory, p[3].gpa) + 2, "012", 3) ==
			   0 &&
		   memcmp(ring_memory_at(&rig->memory, p[4].gpa), "3456789",
			  7) == 0,
	   "%s: the answer has arrived", name);
	is_int(rig_pop(rig), 0, "and the ring is empty");
}

static void test_echo(void)
{
	struct rig rig;

	rig_up(&rig, 8, false, true);
	echo(&rig, 0, "direct");
	echo(&rig, ring_memory_alloc(&rig.memory, 5 * 16, 1), "indirect");
	/* a table at an odd address, as 2.7.5.3 does not forbid */
	echo(&rig, ring_memory_alloc(&rig.memory, 6 * 16, 8) + 3, "odd table");
	rig_down(&rig);
}

/* 2.7.5.3.2: normal descriptors, then one that is indirect. */
static void test_mixed(void)
{
	struct ring_piece out, in;
	struct vring_desc *table;
	struct rig rig;
	uint64_t gpa;

	rig_up(&rig, 8, false, true);
	out = rig_piece(&rig, 3);
	in = rig_piece(&rig, 9);
	gpa = ring_memory_alloc(&rig.memory, 16, 16);
	table = ring_memory_at(&rig.memory, gpa);
	table[0] = (struct vring_desc){ in.gpa, in.len, VRING_DESC_F_WRITE, 0 };
	rig.driver.desc[2] = (struct vring_desc){ out.gpa, out.len,
						  VRING_DESC_F_NEXT, 7 };
	/* the device ignores WRITE beside INDIRECT */
	rig.driver.desc[7] = (struct vring_desc){
		gpa, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0
	};
	ring_driver_offer(&rig.driver, 2);
	ring_driver_publish(&rig.driver);
	ok(rig_pop(&rig) == 1 && rig.chain.head == 2 &&
		   rig.chain.out_bytes == 3 && rig.chain.in_bytes == 9,
	   "mixed: direct, then indirect");
	rig_down(&rig);
}

static void push_one(struct rig *rig, void *cookie)
{
	struct ring_piece p = rig_piece(rig, 1);

	ring_driver_add(&rig->driver, &p, 1, 0, cookie, 0);
	ring_driver_publish(&rig->driver);
	if (rig_pop(rig) == 1)
		virtq_push(&rig->vq, rig->chain.head, 0);
}

static void test_interrupts(bool event_idx)
{
	const char *mode = event_idx ? "event index" : "flags";
	struct rig rig;
	int cookie;

	rig_up(&rig, 16, event_idx, false);
	ok(!virtq_publish_notify(&rig.vq), "%s: nothing used, no interrupt",
	   mode);
	ring_driver_enable_calls(&rig.driver);
	push_one(&rig, &cookie);
	ok(virtq_publish_notify(&rig.vq), "%s: interrupt when wanted", mode);
	ok(!virtq_publish_notify(&rig.vq), "%s: but one", mode);
	is_int(ring_driver_ack_call(&rig.driver), 1, "one on the eventfd");
	ring_driver_get_used(&rig.driver, NULL);
	ring_driver_disable_calls(&rig.driver);
	push_one(&rig, &cookie);
	push_one(&rig, &cookie);
	ok(!virtq_publish_notify(&rig.vq), "%s: suppressed", mode);
	is_int(ring_driver_ack_call(&rig.driver), 0, "none on the eventfd");
	is_int(rig.vq.stats.calls_suppressed, 1, "suppression is counted");
	ok(ring_driver_enable_calls(&rig.driver),
	   "%s: enabling finds what was used meanwhile", mode);
	while (ring_driver_get_used(&rig.driver, NULL))
		;
	ok(!ring_driver_enable_calls(&rig.driver), "%s: nothing missed", mode);
	push_one(&rig, &cookie);
	ok(virtq_publish_notify(&rig.vq), "%s: interrupt again", mode);
	/* suppressed, and wanted only when there is nothing new */
	ring_driver_get_used(&rig.driver, NULL);
	ring_driver_disable_calls(&rig.driver);
	push_one(&rig, &cookie);
	ok(!virtq_publish_notify(&rig.vq), "%s: suppressed again", mode);
	ring_driver_enable_calls(&rig.driver);
	ok(!virtq_publish_notify(&rig.vq), "%s: nothing new, no interrupt", mode);
	is_int(rig.vq.stats.calls, 2, "two raised in all");
	rig_down(&rig);
}

/* With an event index the guest may ask for the n-th element from now. */
static void test_event_ahead(void)
{
	struct rig rig;
	int cookie, i;

	rig_up(&rig, 16, true, false);
	push_one(&rig, &cookie);
	virtq_publish_notify(&rig.vq); /* the first is always told */
	rig.driver.avail->ring[16] = htole16(4);
	for (i = 1; i < 4; i++) {
		push_one(&rig, &cookie);
		ok(!virtq_publish_notify(&rig.vq), "element %d: not yet", i);
	}
	push_one(&rig, &cookie);
	ok(virtq_publish_notify(&rig.vq), "element 4: the one asked for");
	push_one(&rig, &cookie);
	ok(!virtq_publish_notify(&rig.vq), "element 5: passed already");
	rig_down(&rig);
}

/* A batch that wraps all positions between two decisions must be told. */
static void test_no_decision(void)
{
	struct rig rig;
	int cookie;
	long i;

	rig_up(&rig, 16, true, false);
	for (i = 0; i < 65536 + 3; i++) {
		struct ring_piece p = { RIG_GPA, 1 };

		ring_driver_add(&rig.driver, &p, 1, 0, &cookie, 0);
		ring_driver_publish(&rig.driver);
		rig_pop(&rig);
		virtq_push(&rig.vq, rig.chain.head, 0);
		virtq_publish(&rig.vq);
		ring_driver_get_used(&rig.driver, NULL);
		if (i == 0)
			virtq_publish_notify(&rig.vq);
		if (i == 1) /* [2, 5] will look new only if 65536 are noticed */
			rig.driver.avail->ring[16] = htole16(40000);
	}
	ok(virtq_publish_notify(&rig.vq), "65538 elements and no decision: told");
	rig_down(&rig);
}

static void test_doorbells(bool event_idx)
{
	const char *mode = event_idx ? "event index" : "flags";
	struct ring_piece p = { RIG_GPA, 1 };
	struct rig rig;
	int cookie;

	rig_up(&rig, 16, event_idx, false);
	ring_driver_add(&rig.driver, &p, 1, 0, &cookie, 0);
	ok(ring_driver_kick(&rig.driver), "%s: doorbell after the start", mode);
	virtq_ack_kick(&rig.vq);
	virtq_ack_kick(&rig.vq); /* an empty eventfd does not block */
	is_int(rig.vq.stats.kicks, 1, "doorbell counted");
	rig_pop(&rig);
	virtq_disable_kicks(&rig.vq);
	ring_driver_add(&rig.driver, &p, 1, 0, &cookie, 0);
	ok(!ring_driver_kick(&rig.driver), "%s: suppressed", mode);
	ok(virtq_enable_kicks(&rig.vq), "%s: enabling finds the missed one",
	   mode);
	rig_pop(&rig);
	ok(!virtq_enable_kicks(&rig.vq), "%s: nothing missed", mode);
	ring_driver_add(&rig.driver, &p, 1, 0, &cookie, 0);
	ok(ring_driver_kick(&rig.driver), "%s: doorbell again", mode);
	ring_driver_add(&rig.driver, &p, 1, 0, &cookie, 0);
	/* with EVENT_IDX it says when, and that has been */
	ok(ring_driver_kick(&rig.driver) == !event_idx, "%s: and again", mode);
	virtq_ack_kick(&rig.vq);
	is_int(rig.vq.stats.kicks, 2, "found rung a second time");
	is_int(rig.vq.stats.rings, rig.driver.kicks, "doorbells that coalesced count");
	rig_pop(&rig);
	rig_pop(&rig);
	/* the one that served the ring before left it as if nobody need ring */
	virtq_disable_kicks(&rig.vq);
	rig.driver.used->ring[16].id = htole32(0xffff);
	is_int(rig_start(&rig, rig.vq.last_avail, false, NULL), 0, "restart");
	ring_driver_add(&rig.driver, &p, 0, 1, &cookie, 0);
	ok(ring_driver_kick(&rig.driver), "%s: doorbell after a restart", mode);
	rig_down(&rig);
}

/* A full pipe as call descriptor (user-mode Linux uses pipes) must not block. */
static void test_call_pipe(void)
{
	char junk[4096] = "";
	int fds[2], cookie;
	struct rig rig;

	rig_up(&rig, 16, false, false);
	if (pipe2(fds, O_CLOEXEC))
		bail_out("pipe");
	fcntl(fds[1], F_SETFL, O_NONBLOCK);
	while (write(fds[1], junk, sizeof(junk)) > 0)
		;
	fcntl(fds[1], F_SETFL, 0);
	virtq_set_call(&rig.vq, fds[1]);
	push_one(&rig, &cookie);
	alarm(5);
	ok(virtq_publish_notify(&rig.vq), "a full pipe counts as told");
	alarm(0);
	close(fds[0]);
	rig_down(&rig);
}

/* Uneven batches over more than 70 000 elements, checked one by one. */
static void test_wrap(bool event_idx, uint16_t num)
{
	static int cookies[80000];
	const int total = 80000;
	int added = 0, got = 0, bad = 0, i;
	struct ring_piece p;
	struct rig rig;
	void *cookie;

	rig_up(&rig, num, event_idx, false);
	p = rig_piece(&rig, 4);
	while (got < total) {
		int batch = 1 + (added * 7) % num;

		for (i = 0; i < batch && added < total; i++) {
			if (ring_driver_add(&rig.driver, &p, 0, 1,
					    &cookies[added], 0) < 0)
				break;
			added++;
		}
		ring_driver_kick(&rig.driver);
		for (i = 0; i < batch - 1 && rig_pop(&rig) == 1; i++)
			virtq_push(&rig.vq, rig.chain.head, i + 1);
		while (rig_pop(&rig) == 1)
			virtq_push(&rig.vq, rig.chain.head, ++i);
		virtq_publish_notify(&rig.vq);
		for (i = 1;; i++) {
			uint32_t len;

			cookie = ring_driver_get_used(&rig.driver, &len);
			if (!cookie)
				break;
			bad += cookie != &cookies[got] || len != (uint32_t)i;
			got++;
		}
		if (i == 1) {
			bad++;
			break;
		}
	}
	ok(!bad && got == total && rig.vq.stats.chains == (uint64_t)total,
	   "%d elements through a ring of %u, %s", total, num,
	   event_idx ? "event index" : "flags");
	rig_down(&rig);
}

static void test_unpop(void)
{
	struct ring_piece p = { RIG_GPA, 1 };
	struct virtq_chain taken[3];
	struct rig rig;
	int cookies[3], i;

	rig_up(&rig, 4, false, false);
	for (i = 0; i < 3; i++)
		ring_driver_add(&rig.driver, &p, 0, 1, &cookies[i], 0);
	ring_driver_publish(&rig.driver);
	for (i = 0; i < 3; i++)
		if (virtq_pop(&rig.vq, &taken[i]) != 1)
			bail_out("pop");
	ok(!virtq_has_work(&rig.vq), "unpop: all taken");
	virtq_unpop(&rig.vq, &taken[2]);
	virtq_unpop(&rig.vq, &taken[1]);
	ok(virtq_has_work(&rig.vq), "unpop: work again");
	ok(rig_pop(&rig) == 1 && rig.chain.head == taken[1].head &&
		   rig_pop(&rig) == 1 && rig.chain.head == taken[2].head &&
		   rig_pop(&rig) == 0,
	   "unpop: the same two, in the same order");
	rig_down(&rig);
}

/* ---- two threads that sleep ---- */

/* Enough for a missing fence to show in about every second run. */
#define STRESS_TOTAL 100000

static bool wait_readable(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, 10000) == 1;
}

static bool gave_up; /* a side that sleeps found nothing in time */

static void *stress_device(void *ctx)
{
	struct rig *rig = ctx;
	long done = 0;

	while (done < STRESS_TOTAL) {
		virtq_disable_kicks(&rig->vq);
		do {
			while (rig_pop(rig) == 1) {
				virtq_push(&rig->vq, rig->chain.head, 0);
				if (++done % 3 == 0)
					virtq_publish_notify(&rig->vq);
			}
			virtq_publish_notify(&rig->vq);
		} while (virtq_enable_kicks(&rig->vq));
		if (done == STRESS_TOTAL)
			break;
		if (!wait_readable(rig->vq.kick_fd)) {
			gave_up = true;
			return "the device missed a doorbell";
		}
		virtq_ack_kick(&rig->vq);
	}
	return NULL;
}

static void *stress_driver(void *ctx)
{
	struct ring_piece p = { RIG_GPA, 1 };
	struct rig *rig = ctx;
	static int cookie;
	long got = 0;

	while (got < STRESS_TOTAL) {
		if (ring_driver_add(&rig->driver, &p, 0, 1, &cookie, 0) >= 0)
			ring_driver_publish(&rig->driver);
		while (!ring_driver_enable_calls(&rig->driver)) {
			if (!wait_readable(rig->driver.call_fd)) {
				gave_up = true;
				return "the driver missed an interrupt";
			}
			ring_driver_ack_call(&rig->driver);
		}
		ring_driver_disable_calls(&rig->driver);
		while (ring_driver_get_used(&rig->driver, NULL))
			got++;
	}
	return NULL;
}

/* A delay that wanders, so that the two sides meet at every offset. */
static void dither(long i)
{
	long n = i % 397;

	while (n--)
		__asm__ volatile("" ::: "memory");
}

static void spin_driver(struct rig *rig)
{
	struct ring_piece p = { RIG_GPA, 1 };
	static int cookie;
	long i;

	ring_driver_disable_calls(&rig->driver);
	for (i = 0; i < STRESS_TOTAL; i++) {
		ring_driver_add(&rig->driver, &p, 0, 1, &cookie, 0);
		dither(i);
		ring_driver_kick(&rig->driver);
		while (!ring_driver_get_used(&rig->driver, NULL))
			if (__atomic_load_n(&gave_up, __ATOMIC_RELAXED))
				return;
	}
}

static void spin_device(struct rig *rig)
{
	long i;

	virtq_disable_kicks(&rig->vq);
	for (i = 0; i < STRESS_TOTAL; i++) {
		while (rig_pop(rig) != 1)
			if (__atomic_load_n(&gave_up, __ATOMIC_RELAXED))
				return;
		virtq_push(&rig->vq, rig->chain.head, 0);
		dither(i);
		virtq_publish_notify(&rig->vq);
	}
}

/*
 * One side sleeps and the other spins, one buffer at a time, so that the one is
 * just about to sleep when the other has something for it: without the fences,
 * or with a look in the wrong order, a wake-up is soon lost.
 */
static void test_race(bool event_idx, bool device_sleeps)
{
	pthread_t thread;
	struct rig rig;
	char *why;

	gave_up = false;
	rig_up(&rig, 1, event_idx, false);
	if (device_sleeps) {
		pthread_create(&thread, NULL, stress_device, &rig);
		spin_driver(&rig);
	} else {
		pthread_create(&thread, NULL, stress_driver, &rig);
		spin_device(&rig);
	}
	pthread_join(thread, (void **)&why);
	ok(!why, "%s sleeps, the other spins, %s",
	   device_sleeps ? "device" : "driver",
	   event_idx ? "event index" : "flags");
	if (why)
		note("%s", why);
	rig_down(&rig);
}

/* A lost wake-up of either side is a time-out. */
static void test_stress(bool event_idx)
{
	struct ring_piece p = { RIG_GPA, 1 };
	long added = 0, got = 0;
	const char *why = NULL;
	pthread_t device;
	struct rig rig;
	int cookie;

	rig_up(&rig, 16, event_idx, false);
	pthread_create(&device, NULL, stress_device, &rig);
	while (got < STRESS_TOTAL && !why) {
		while (added < STRESS_TOTAL &&
		       ring_driver_add(&rig.driver, &p, 0, 1, &cookie, 0) >= 0)
			if (++added % 5 == 0)
				ring_driver_kick(&rig.driver);
		ring_driver_kick(&rig.driver);
		ring_driver_disable_calls(&rig.driver);
		do {
			while (ring_driver_get_used(&rig.driver, NULL))
				got++;
		} while (ring_driver_enable_calls(&rig.driver));
		if (added - got < 16 && added < STRESS_TOTAL)
			continue;
		if (got < STRESS_TOTAL && !wait_readable(rig.driver.call_fd))
			why = "the driver missed an interrupt";
		ring_driver_ack_call(&rig.driver);
	}
	if (!why)
		pthread_join(device, (void **)&why);
	ok(!why, "two sleeping threads, %s", event_idx ? "event index" : "flags");
	if (why)
		bail_out(why);
	note("%d buffers: %llu doorbells of %llu, %llu interrupts of %llu",
	     STRESS_TOTAL, (unsigned long long)rig.driver.kicks,
	     (unsigned long long)(rig.driver.kicks +
				  rig.driver.kicks_suppressed),
	     (unsigned long long)rig.vq.stats.calls,
	     (unsigned long long)(rig.vq.stats.calls +
				  rig.vq.stats.calls_suppressed));
	rig_down(&rig);
}

int main(void)
{
	test_start();
	test_echo();
	test_mixed();
	test_interrupts(false);
	test_interrupts(true);
	test_event_ahead();
	test_no_decision();
	test_doorbells(false);
	test_doorbells(true);
	test_call_pipe();
	test_wrap(false, 256);
	test_wrap(true, 256);
	test_wrap(true, VIRTQ_NUM_MAX);
	test_wrap(true, 1);
	test_unpop();
	test_stress(false);
	test_stress(true);
	test_race(false, true);
	test_race(true, true);
	test_race(false, false);
	test_race(true, false);
	return tap_done();
}
