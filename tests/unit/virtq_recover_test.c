// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Recovery of a queue whose server died, at every instruction: a child serves
 * the queue and is single-stepped; whenever ring or record have changed, the
 * parent recovers a copy of both, as if the child had been killed there. Then
 * every buffer that the driver made available must be in the used ring exactly
 * once, what was published must stand unchanged, the record must agree with the
 * ring, and the driver must have been told.
 */
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/wait.h>

#include "virtq_rig.h"

#define NUM 32 /* no scenario makes that many available: nothing wraps */
#define RING_BYTES 4096

static struct rig live, copy;
static struct vnet_inflight *record, *record_copy;

static struct vnet_inflight *new_record(void)
{
	struct vnet_inflight *map = mmap(NULL, sizeof(*map),
					 PROT_READ | PROT_WRITE,
					 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (map == MAP_FAILED)
		bail_out("mmap");
	return map;
}

/* ---- what the child does; buffers it made available beforehand: see run() ---- */

static int cookie;

static void offer(unsigned int count)
{
	struct ring_piece p = { RIG_GPA, 1 };

	while (count--)
		ring_driver_add(&live.driver, &p, 0, 1, &cookie, 0);
	ring_driver_publish(&live.driver);
}

static struct virtq_chain chain[8];

static void take(unsigned int i)
{
	if (virtq_pop(&live.vq, &chain[i]) != 1)
		_exit(2);
}

static void give(unsigned int i)
{
	virtq_push(&live.vq, chain[i].head, 7 + i);
}

static void serve(void)
{
	take(0);
	give(0);
	virtq_publish_notify(&live.vq);
	take(1);
	take(2);
	take(3);
	give(3); /* not in order */
	give(1);
	virtq_publish_notify(&live.vq);
	/* the driver uses those heads again, one of them taken at once */
	while (ring_driver_get_used(&live.driver, NULL))
		;
	offer(3);
	take(4);
	take(5);
	virtq_unpop(&live.vq, &chain[5]);
	take(5);
	give(5);
	give(2);
	virtq_publish(&live.vq);
	give(4);
	virtq_publish_notify(&live.vq);
}

static void serve_bad_chain(void)
{
	take(0);
	/* length 0, between two good ones */
	live.driver.desc[30] = (struct vring_desc){ RIG_GPA, 0, 0, 0 };
	ring_driver_offer(&live.driver, 30);
	offer(1);
	while (virtq_pop(&live.vq, &chain[1]) == 1)
		give(1);
	virtq_publish(&live.vq);
}

static void recover(void)
{
	take(0);
	take(1);
	take(2);
	give(1);
	virtq_publish(&live.vq);
	give(2); /* never published */
	virtq_start(&live.vq, &live.mem, NUM, live.driver.desc_gpa,
		    live.driver.avail_gpa, live.driver.used_gpa,
		    record->last_avail, live.driver.event_idx, false, record);
	virtq_recover(&live.vq);
}

/* ---- what must hold ---- */

/* How often each head stands in the used and in the avail ring. */
static bool each_once(const struct ring_driver *driver)
{
	int balance[NUM] = { 0 };
	unsigned int i;

	for (i = 0; i < le16toh(driver->avail->idx); i++)
		balance[le16toh(driver->avail->ring[i])]++;
	for (i = 0; i < le16toh(driver->used->idx); i++) {
		if (le32toh(driver->used->ring[i].id) >= NUM)
			return false;
		balance[le32toh(driver->used->ring[i].id)]--;
	}
	for (i = 0; i < NUM; i++)
		if (balance[i])
			return false;
	return true;
}

static bool nothing_taken(const struct vnet_inflight *r)
{
	unsigned int i;

	for (i = 0; i < VNET_INFLIGHT_HEADS; i++)
		if (r->taken[i])
			return false;
	return true;
}

/* Recovers a copy of what there is; NULL, or what is wrong. */
static const char *recover_copy(void)
{
	const struct ring_driver *driver = &copy.driver;
	uint8_t before[RING_BYTES];
	uint16_t used;
	int ret;

	memcpy(copy.memory.map, live.memory.map, RING_BYTES);
	memcpy(record_copy, record, sizeof(*record));
	memcpy(before, driver->used, sizeof(*driver->used) + 8 * NUM);
	used = le16toh(driver->used->idx);
	ring_driver_ack_call(&copy.driver);
	if (rig_start(&copy, le16toh(record_copy->last_avail), false,
		      record_copy))
		return "does not start";
	ret = virtq_recover(&copy.vq);
	if (ret < 0)
		return "recovery refused";
	if (ret != (uint16_t)(le16toh(driver->used->idx) - used))
		return "wrong number of heads";
	if (memcmp(before + 4, driver->used->ring, 8 * used))
		return "published elements have changed";
	if (!each_once(driver))
		return "a head lost or returned twice";
	if (!nothing_taken(record_copy) ||
	    record_copy->last_avail != driver->avail->idx ||
	    record_copy->used_idx != driver->used->idx)
		return "the record disagrees with the ring";
	if (!ring_driver_ack_call(&copy.driver))
		return "the driver was not told";
	if (virtq_recover(&copy.vq) != 0)
		return "a second recovery found more";
	return NULL;
}

/* ---- stepping ---- */

static bool changed(void)
{
	static uint8_t ring[RING_BYTES], rec[sizeof(struct vnet_inflight)];

	if (memcmp(ring, live.memory.map, RING_BYTES) == 0 &&
	    memcmp(rec, record, sizeof(rec)) == 0)
		return false;
	memcpy(ring, live.memory.map, RING_BYTES);
	memcpy(rec, record, sizeof(rec));
	return true;
}

static pid_t start_child(void (*scenario)(void))
{
	pid_t child = fork();
	int status;

	if (child < 0)
		bail_out("fork");
	if (child == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		raise(SIGSTOP);
		scenario();
		_exit(0);
	}
	if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
		bail_out("the child does not stop");
	return child;
}

static void run(const char *name, void (*scenario)(void), bool event_idx)
{
	const char *why = NULL;
	long steps = 0, crashes = 0;
	int status;
	pid_t child;

	rig_prepare(&live, NUM, event_idx);
	rig_prepare(&copy, NUM, event_idx);
	record = new_record();
	record_copy = new_record();
	if (rig_start(&live, 0, false, record))
		bail_out("cannot start a queue");
	offer(6);

	child = start_child(scenario);
	for (;;) {
		if (ptrace(PTRACE_SINGLESTEP, child, NULL, NULL) < 0)
			bail_out("ptrace");
		if (waitpid(child, &status, 0) != child)
			bail_out("waitpid");
		if (!WIFSTOPPED(status))
			break;
		steps++;
		if (!changed() || why)
			continue;
		crashes++;
		why = recover_copy();
		if (why)
			note("crash %ld, instruction %ld: %s", crashes, steps,
			     why);
	}
	ok(!why, "%s, %s: a crash at any instruction", name,
	   event_idx ? "event index" : "flags");
	ok(WIFEXITED(status) && WEXITSTATUS(status) == 0,
	   "%s: ran to its end", name);
	ok(crashes > 20, "%s: enough different states", name);
	note("%ld instructions, %ld different states", steps, crashes);
	munmap(record, sizeof(*record));
	munmap(record_copy, sizeof(*record));
	rig_down(&live);
	rig_down(&copy);
}

/* ---- records that make no sense ---- */

static void bad_records(void)
{
	struct rig rig;
	struct vnet_inflight *r = new_record();

	rig_prepare(&rig, NUM, false);
	r->version = htole16(2);
	is_int(rig_start(&rig, 0, false, r), -EINVAL, "a record of version 2");
	r->version = htole16(VNET_INFLIGHT_VERSION);
	r->num = htole16(2 * NUM);
	is_int(rig_start(&rig, 0, false, r), -EINVAL, "a record of another size");
	memset(r, 0xff, sizeof(*r));
	r->version = 0;
	is_int(rig_start(&rig, 0, false, r), 0, "a fresh record");
	ok(le16toh(r->version) == VNET_INFLIGHT_VERSION &&
		   le16toh(r->num) == NUM && !r->last_avail && !r->used_idx &&
		   !r->taken[0] && !r->taken[VNET_INFLIGHT_HEADS - 1],
	   "is initialised");
	is_int(virtq_recover(&rig.vq), 0, "nothing to recover");
	r->used_idx = htole16(0x8000);
	is_int(virtq_recover(&rig.vq), -EPROTO, "used index far away");
	ok(rig.vq.broken, "breaks the queue");
	rig_start(&rig, 0, false, r);
	r->used_idx = 0;
	r->last_avail = htole16(1);
	is_int(virtq_recover(&rig.vq), -EPROTO, "available index far away");
	rig_start(&rig, 0, false, r);
	r->last_avail = 0;
	ring_driver_offer(&rig.driver, NUM);
	ring_driver_publish(&rig.driver);
	is_int(virtq_recover(&rig.vq), -EPROTO, "a head out of range");
	rig_start(&rig, 0, false, NULL);
	is_int(virtq_recover(&rig.vq), -EPROTO, "no record, no recovery");
	munmap(r, sizeof(*r));
	rig_down(&rig);
}

/* Positions that wrap while a record is kept. */
static void wrap_with_record(void)
{
	struct ring_piece p = { RIG_GPA, 1 };
	struct vnet_inflight *r = new_record();
	struct rig rig;
	long i, bad = 0;

	rig_prepare(&rig, 4, true);
	rig_start(&rig, 0, false, r);
	for (i = 0; i < 70000; i++) {
		ring_driver_add(&rig.driver, &p, 0, 1, &cookie, 0);
		ring_driver_publish(&rig.driver);
		bad += rig_pop(&rig) != 1 || r->taken[rig.chain.head] != 1;
		if (i % 1000 == 999) {
			rig_start(&rig, le16toh(r->last_avail), false, r);
			bad += virtq_recover(&rig.vq) != 1;
		} else {
			virtq_push(&rig.vq, rig.chain.head, 0);
			virtq_publish_notify(&rig.vq);
		}
		bad += ring_driver_get_used(&rig.driver, NULL) != &cookie;
	}
	ok(!bad && nothing_taken(r), "70000 elements with a record");
	munmap(r, sizeof(*r));
	rig_down(&rig);
}

int main(void)
{
	bad_records();
	wrap_with_record();
	run("serve", serve, true);
	run("serve", serve, false);
	run("bad chain", serve_bad_chain, true);
	run("recovery itself", recover, true);
	return tap_done();
}
