// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A front end that migrates its VM while another one sends frames to it: it
 * copies the guest's memory, then again the pages that the shim's log names, and
 * compares what the guest would find on the new host with what it has here. A
 * buffer that the device has not given back may differ: its content is nobody's.
 */
#include "shim_rig.h"

#define LOG_BYTES (((RIG_GPA + RIG_MEM) >> 12) / 8)
#define LOG_OFFSET 4096
#define RX_LEN 3000 /* begins and ends anywhere in a page */
#define FRAMES 20

static struct vm a, b;
static uint8_t *copy;
static uint8_t *bits;
static int log_fd = -1;

static void body(char *text, size_t size, int me, const char *peer_mac)
{
	snprintf(text, size,
		 "tenant 77\nmtu 9000\nencap vxlan\n"
		 "link peer udp local 127.0.0.1:%d remote 127.0.0.1:%d form whole mtu 1500\n"
		 "route dst %s link peer\nroute dst any link peer\n",
		 21030 + me, 21031 - me, peer_mac);
}

static void log_create(void)
{
	log_fd = memfd_create("log", MFD_CLOEXEC);
	if (log_fd < 0 || ftruncate(log_fd, LOG_OFFSET + LOG_BYTES) < 0)
		bail_out("log");
	bits = mmap(NULL, LOG_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, log_fd,
		    LOG_OFFSET);
	if (bits == MAP_FAILED)
		bail_out("log");
}

static bool send_log(int fd, uint64_t size, uint64_t offset, int pass)
{
	const struct vu_log l = { size, offset };
	uint64_t answer = 1;

	return vu_send(fd, VU_SET_LOG_BASE, VU_VERSION, &l, sizeof(l), &pass, 1) ==
		       0 &&
	       vu_recv(fd, VU_SET_LOG_BASE, &answer, sizeof(answer)) ==
		       sizeof(answer) &&
	       answer == 0;
}

static int set_logging(bool on)
{
	return vu_u64(a.sock, VU_SET_FEATURES,
		      a.features | VNET_BIT_MASK(VU_F_PROTOCOL_FEATURES_BIT) |
			      (on ? VNET_BIT_MASK(VU_F_LOG_ALL_BIT) : 0));
}

static bool marked(uint64_t gpa)
{
	const uint64_t page = gpa >> 12;

	return bits[page / 8] & (1 << (page % 8));
}

static unsigned int marks(void)
{
	unsigned int i, n = 0;

	for (i = 0; i < LOG_BYTES; i++)
		n += __builtin_popcount(bits[i]);
	return n;
}

/* The rounds of a migration: everything, then what was written since. */
static void copy_all(void)
{
	memset(bits, 0, LOG_BYTES);
	memcpy(copy, a.mem.map, RIG_MEM);
}

static void copy_marked(void)
{
	uint64_t at;

	for (at = 0; at < RIG_MEM; at += 4096)
		if (marked(RIG_GPA + at))
			memcpy(copy + at, a.mem.map + at, 4096);
}

static uint16_t used_idx(const struct ring_driver *q)
{
	return le16toh(__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE));
}

static bool same(uint64_t gpa, size_t len)
{
	return !memcmp(copy + (gpa - RIG_GPA), ring_memory_at(&a.mem, gpa), len);
}

/* The rings, and the used buffers from position `from` on, are the same. */
static bool guest_same(uint16_t from)
{
	const struct ring_driver *q = &a.q[0];
	bool good = true;
	unsigned int i;

	for (i = 0; i < a.queues; i++)
		good &= same(a.q[i].used_gpa,
			     sizeof(struct vring_used) + 2 +
				     sizeof(struct vring_used_elem) * RIG_RING);
	for (; good && from != used_idx(q); from++) {
		const struct vring_used_elem *e = &q->used->ring[from % RIG_RING];
		const struct buf *buf = q->cookie[le32toh(e->id)];

		good = buf && same(buf->gpa, le32toh(e->len));
	}
	return good;
}

/* Sends frames to a, which a's driver does not look at. False: they did not come. */
static bool fill(unsigned int frames, uint8_t seed)
{
	static uint8_t frame[9000], out[9100];
	const uint16_t before = used_idx(&a.q[0]);
	const unsigned int each = 2; /* buffers that a frame takes */
	unsigned int i;

	for (i = 0; i < frames; i++) {
		const uint32_t len = make_frame(frame, a.mac, b.mac, RX_LEN + 500 + i,
						seed + i);

		if (!vm_send(&b, out, make_stock(out, frame, len), 65536))
			return false;
	}
	return wait_until((uint16_t)(used_idx(&a.q[0]) - before) ==
			  each * frames);
}

static void running(void)
{
	uint16_t from;
	unsigned int n;

	copy_all();
	ok(fill(FRAMES, 1) && marks() == 0, "no log, nothing is marked");
	ok(send_log(a.sock, LOG_BYTES, LOG_OFFSET, log_fd), "a log is taken, and answered");
	ok(fill(1, 2) && marks() == 0, "which alone changes nothing");
	is_int(set_logging(true), 0, "LOG_ALL while the rings run");
	copy_all();
	from = used_idx(&a.q[0]);
	ok(fill(FRAMES, 3), "frames come on");
	ok(!guest_same(from), "the first copy is of no use any more");
	n = marks();
	copy_marked();
	ok(guest_same(from), "what is marked makes it good");
	ok(n >= FRAMES && n <= 3 * FRAMES + 8, "and it is not everything (%u)", n);
	ok(marked(a.q[0].used_gpa), "the used ring is marked");
	ok(!marked(RIG_GPA + RIG_MEM - 4096), "unused memory is not");
}

static void second_round(void)
{
	uint16_t from = used_idx(&a.q[0]);

	memset(bits, 0, LOG_BYTES);
	ok(fill(5, 90), "pages are taken, then written once more");
	copy_marked();
	ok(marks() > 0 && guest_same(from), "they are marked again");
}

/* The guest's memory grows: another log, another file. */
static void another_log(void)
{
	uint8_t *old = bits;
	int old_fd = log_fd;
	uint16_t from = used_idx(&a.q[0]);

	memset(bits, 0, LOG_BYTES);
	log_create();
	ok(send_log(a.sock, LOG_BYTES, LOG_OFFSET, log_fd), "another log while it is on");
	ok(fill(5, 120), "frames come on");
	copy_marked();
	ok(marks() > 0 && guest_same(from), "the new one is marked");
	memset(bits, 0, LOG_BYTES);
	ok(ftruncate(old_fd, 0) == 0 && fill(1, 1) && marks() > 0,
	   "the old one is not touched any more");
	munmap(old, LOG_BYTES);
	close(old_fd);
}

/* Stopped and continued while it migrates: the log comes after the queues. */
static void stopped(void)
{
	uint16_t base[3];
	bool good = true;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		struct vu_vring_state s = { i, 0 };

		good &= vu_send(a.sock, VU_GET_VRING_BASE, VU_VERSION, &s,
				sizeof(s), NULL, 0) == 0 &&
			vu_recv(a.sock, VU_GET_VRING_BASE, &s, sizeof(s)) == 8;
		base[i] = s.num;
	}
	ok(good, "the VM stops");
	is_int(base[0], used_idx(&a.q[0]), "all that was taken is given back");
	copy_all();
	is_int(set_logging(true), 0, "it goes on, and still migrates");
	for (i = 0; i < 3; i++)
		good &= vm_queue_base(&a, i, base[i]);
	ok(good, "its queues are set up");
	for (i = 0; i < 3; i++)
		good &= same(a.q[i].used_gpa, sizeof(struct vring_used) + 2 +
				     sizeof(struct vring_used_elem) * RIG_RING);
	ok(good, "they are not touched while there is no log");
	ok(send_log(a.sock, LOG_BYTES, LOG_OFFSET, log_fd) && fill(1, 7) &&
		   marks() > 0,
	   "with one the queues go on");
}

static void off(void)
{
	is_int(set_logging(false), 0, "no LOG_ALL any more");
	memset(bits, 0, LOG_BYTES);
	ok(fill(2, 8) && marks() == 0, "nothing is marked, frames come on");
}

static void short_log(void)
{
	ok(send_log(a.sock, 4096, 0, log_fd) && set_logging(true) == 0,
	   "a log shorter than the memory");
	memset(bits, 0, LOG_BYTES);
	ok(fill(2, 9) && marks() == 0, "nothing is marked behind its end");
	is_int(set_logging(false), 0, "off");
}

int main(void)
{
	char text[512];

	rig_init();
	copy = malloc(RIG_MEM);
	log_create();
	body(text, sizeof(text), 0, "52:54:00:4e:50:02");
	vm_start(&a, "a", 1, text);
	body(text, sizeof(text), 1, "52:54:00:4e:50:01");
	vm_start(&b, "b", 2, text);
	ok(vm_connect(&a, STOCK_FEATURES, 3) && vm_connect(&b, STOCK_FEATURES, 3),
	   "front ends connect");
	vm_post_rx(&a, 160, RX_LEN);
	running();
	second_round();
	another_log();
	stopped();
	off();
	short_log();
	vm_free_bufs(&a);
	vm_free_bufs(&b);
	vm_disconnect(&a);
	vm_disconnect(&b);
	ok(vm_stop(&a) == 0, "shim a ends well");
	ok(vm_stop(&b) == 0, "shim b ends well");
	munmap(bits, LOG_BYTES);
	close(log_fd);
	free(copy);
	rig_done();
	return tap_done();
}
