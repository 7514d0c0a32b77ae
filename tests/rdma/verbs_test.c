// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is special about the verbs fabric, over real verbs (soft RDMA), with two
 * agents on two addresses of one device: tests/rdma/run starts this in a VM. What
 * all fabrics have in common is in tests/agent, which runs there as well.
 *
 * Usage: verbs_test [--program AGENT] [--write] [TEST...]: these tests alone, of the
 * real daemon in place of the code linked in, with `rdma-transfer write`.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bed.h"
#include "cm_by_hand.h"
#include "tap.h"
#include "verbs_test.h"

#define MANY 2000

struct bed bed;
const char *program;
bool transfer_write;

/* ---- the device ---- */

static long hw_counter(const char *name)
{
	char path[160];
	long value = -1;
	FILE *f;

	/* the kernel keeps what it read for 10 ms */
	usleep(20000);
	snprintf(path, sizeof(path),
		 "/sys/class/infiniband/%s/ports/1/hw_counters/%s", DEVICE, name);
	f = fopen(path, "r");
	if (!f)
		return -1;
	if (fscanf(f, "%ld", &value) != 1)
		value = -1;
	fclose(f);
	return value;
}

/* Soft iWARP: without such counters, inline data, or a quiet end of a queue pair. */
static bool iwarp(void)
{
	const char *type = getenv("RDMA_DEVICE");

	return type && !strcmp(type, "siw");
}

#define RNR_COUNTERS 3

static const char *const rnr_counters[RNR_COUNTERS] = {
	"send_rnr_err", "rcvd_rnr_err", "retry_rnr_exceeded_err",
};

void no_rnr(void)
{
	for (int i = 0; i < RNR_COUNTERS && !iwarp(); i++)
		is_int(hw_counter(rnr_counters[i]), 0, rnr_counters[i]);
}

void rnr_exhausted(void)
{
	for (int i = 0; i < RNR_COUNTERS && !iwarp(); i++) {
		note("%s: %ld", rnr_counters[i], hw_counter(rnr_counters[i]));
		ok(hw_counter(rnr_counters[i]) > 0, rnr_counters[i]);
	}
}

void renew_device(void)
{
	if (!iwarp())
		is_int(shell("/rdma link del " DEVICE " && /rdma link add " DEVICE
			     " type rxe netdev d0"), 0, "a new device");
}

int shell(const char *command)
{
	int status = system(command);

	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* ---- a probe on memcpy(), in the agents' processes; the device's driver is not in it ---- */

#define LARGE_COPY 256u /* bytes: what is not payload is less */

static struct probe {
	pid_t test; /* which is no agent */
	atomic_long bytes; /* of large copies */
} *probe;

void *__real_memcpy(void *to, const void *from, size_t n);
void *__wrap_memcpy(void *to, const void *from, size_t n);

void *__wrap_memcpy(void *to, const void *from, size_t n)
{
	if (n >= LARGE_COPY && probe && getpid() != probe->test)
		atomic_fetch_add(&probe->bytes, (long)n);
	return __real_memcpy(to, from, n);
}

static void probe_start(void)
{
	probe = mmap(NULL, sizeof(*probe), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (probe == MAP_FAILED)
		bail_out("no memory");
	probe->test = getpid();
}

/* bytes have gone each way since the probe was at `before`. */
static void probe_says(long before, long bytes)
{
#ifndef __SANITIZE_ADDRESS__ /* which has a memcpy() of its own */
	long copied = atomic_load(&probe->bytes) - before;

	if (program)
		return;
	note("%ld bytes copied", copied);
	if (transfer_write)
		ok(copied > bytes, "a probe on memcpy: it was copied out of the rings");
	else
		ok(copied < bytes / 50, "a probe on memcpy: it was not copied");
#else
	(void)before;
	(void)bytes;
#endif
}

/* ---- the bed ---- */

static const struct guest_options many_buffers = {
	.swq_num = 64, .rwq_num = { 4096, 256 }, .eq_buffers = 64,
	.rwq_posted = { 4096, 256 },
};

bool start(const struct guest_options *opt, const char *extra)
{
	char text[160];

	snprintf(text, sizeof(text), "%s%s",
		 transfer_write ? "rdma-transfer write\n" : "", extra);
	return ok(bed_make_program(&bed, 2, opt, text, program),
		  "two guests on two hosts");
}

void stop(void)
{
	streams_reset();
	for (unsigned int i = 0; i < 2; i++)
		is_int(bed_end(&bed, i), 0, "agent ends cleanly");
}

void over_verbs(const struct stream *a, const struct stream *b)
{
	is_int(agent_lanes_counter(&bed.agent[0], "verbs", "tx_bytes"), a->tx,
	       "what a sent went by verbs");
	is_int(agent_lanes_counter(&bed.agent[0], "verbs", "rx_bytes"), b->tx,
	       "and so did what b sent");
	is_int(agent_lanes_counter(&bed.agent[0], "tcp", "tx_bytes"), 0,
	       "nothing by tcp");
}

/* ---- the tests ---- */

static void test_data(void)
{
	struct stream a, b;
	long before = hw_counter("sent_pkts"), copied;

	if (!start(NULL, ""))
		return;
	if (!is_int(bed_open(&bed, &a, &b), 0, "connection opens")) {
		agent_show_log(&bed.agent[0]);
		agent_show_log(&bed.agent[1]);
		stop();
		return;
	}
	copied = atomic_load(&probe->bytes);
	ok(stream_exchange(&a, &b, 3 << 20, G_LARGE), "3 MB each way, all sizes");
	probe_says(copied, 3 << 20);
	over_verbs(&a, &b);
	by_transfer();
	if (!iwarp()) {
		ok(hw_counter("sent_pkts") - before > (6 << 20) / 4096,
		   "the device has sent it");
		ok(agent_lanes_counter(&bed.agent[0], "verbs", "tx_inline") > 0,
		   "small ones inline");
	}
	is_int(stream_close(&a, 0), 0, "a closes");
	ok(stream_wait_broken(&b) && b.reason == VTOE_REASON_RESET, "b is told");
	is_int(stream_close(&b, 0), 0, "and closes");
	no_rnr();
	stop();
}

/* Who does not read holds his own credit, and nobody else's. */
static void test_slow_reader(void)
{
	struct stream slow[2], a[3], b[3];

	if (!start(NULL, ""))
		return;
	is_int(bed_open(&bed, &slow[0], &slow[1]), 0, "one that does not read");
	slow[1].hold = true;
	bed.msg_window[0] = 16;
	bed.msg_window[1] = 8;
	for (int i = 0; i < 3; i++)
		is_int(bed_open(&bed, &a[i], &b[i]), 0, "another opens");
	while (stream_send(&slow[0], 1000))
		;
	guest_kick(&bed.a, G_SWQ);
	for (int i = 0; i < 3; i++) {
		ok(stream_exchange(&a[i], &b[i], 1 << 20, G_LARGE),
		   "it moves 1 MB each way");
	}
	is_int(slow[1].rx, 32 * 1000, "the first has what was granted, no more");
	ok(!stream_may_send(&slow[0], 1), "and no credit");
	slow[1].hold = false;
	stream_credit(&slow[1]);
	ok(stream_exchange(&slow[0], &slow[1], 100000, G_LARGE),
	   "it goes on when it reads");
	bed.msg_window[0] = 0;
	no_rnr();
	stop();
}

static void test_many(void)
{
	static struct stream a[MANY], b[MANY];
	unsigned int opened = 0, right = 0, closed = 0;
	double start_s;

	if (!start(&many_buffers, ""))
		return;
	bed.msg_window[0] = 1;
	bed.msg_window[1] = 0;
	start_s = now_s();
	while (opened < MANY && !bed_open(&bed, &a[opened], &b[opened]))
		opened++;
	is_int(opened, MANY, "2000 connections on one pair of VMs");
	note("%.0f a second", opened / (now_s() - start_s));
	is_int(agent_lanes_counter(&bed.agent[0], "verbs", "paths"), opened,
	       "they share a lane");
	while (right < opened &&
	       stream_exchange(&a[right], &b[right], 64, 64))
		right++;
	is_int(right, MANY, "all of them carry data");
	for (unsigned int i = 0; i < opened; i++) {
		guest_shutdown(&bed.a, a[i].sid, a[i].tx);
		guest_shutdown(&bed.b, b[i].sid, b[i].tx);
	}
	while (closed < opened && stream_wait_fin(&a[closed]) &&
	       stream_wait_fin(&b[closed]) && !stream_close(&a[closed], 0) &&
	       !stream_close(&b[closed], 0))
		closed++;
	is_int(closed, MANY, "all of them close");
	is_int(agent_lanes_counter(&bed.agent[0], "verbs", "paths"), 0,
	       "nothing of them is left");
	is_int(agent_lanes_counter(&bed.agent[0], "verbs", "promised"), 0,
	       "no buffer is promised");
	streams_reset();
	/* and what that costs one after another */
	start_s = now_s();
	for (closed = 0; closed < 200; closed++) {
		struct stream c, d;

		streams_reset();
		if (bed_open(&bed, &c, &d) || stream_close(&c, 0) ||
		    !stream_wait_broken(&d) || stream_close(&d, 0))
			break;
	}
	is_int(closed, 200, "200 connections, one after the other");
	note("%.0f connect+close a second", closed / (now_s() - start_s));
	no_rnr();
	bed.msg_window[0] = 0;
	stop();
}

void send_a_lot(struct stream *s)
{
	for (int i = 0; i < 12; i++)
		stream_send(s, G_LARGE);
	guest_kick(s->g, G_SWQ);
}

bool broken_alone(struct stream *s)
{
	for (int i = 0; i < guest_wait_ms() / 5 && !s->broken; i++)
		streams_pump(s->g, 5);
	return s->broken;
}

/* A VM that goes while its data is on its way; then another of that name. */
static void test_vm_gone(void)
{
	struct stream a, b;

	if (!start(NULL, ""))
		return;
	for (int i = 0; i < 2; i++) {
		is_int(bed_open(&bed, &a, &b), 0, "connection opens");
		send_a_lot(&a);
		guest_stop(&bed.a);
		ok(broken_alone(&b), "the VM has gone: its peer is told");
		/* iWARP's connection ends with the queue pair, the word is on another */
		ok(b.reason == VTOE_REASON_PEER_GONE ||
		   (iwarp() && b.reason == VTOE_REASON_LANE_LOST), "and why");
		is_int(stream_close(&b, 0), 0, "and closes");
		streams_reset();
		is_int(guest_start(&bed.a, bed.agent[0].socket, "a", BED_TENANT,
				   1, NULL), 0, "the VM comes again");
		bed.a.route = bed.agent[1].addr;
		bed.a.route_reason = VTOE_REASON_NONE;
	}
	is_int(bed_open(&bed, &a, &b), 0, "connection opens");
	ok(stream_exchange(&a, &b, 200000, G_LARGE), "data passes");
	no_rnr();
	stop();
}

/* The other agent dies: all at once, or the process of the tenant alone. */
static void test_agent_killed(void)
{
	struct stream a, b;
	pid_t tenant;

	if (!start(NULL, ""))
		return;
	is_int(bed_open(&bed, &a, &b), 0, "connection opens");
	send_a_lot(&a);
	is_int(agent_tenants(&bed.agent[1], &tenant, 1), 1, "a tenant's process");
	kill(tenant, SIGKILL);
	ok(broken_alone(&a) && a.reason == VTOE_REASON_LANE_LOST,
	   "it is killed: the peer is told LANE_LOST");
	is_int(stream_close(&a, 0), 0, "and closes");
	guest_stop(&bed.b);
	streams_reset();
	is_int(guest_start(&bed.b, bed.agent[1].socket, "b", BED_TENANT, 2, NULL),
	       0, "its VM attaches again");
	bed.b.route = bed.agent[0].addr;
	bed.b.route_reason = VTOE_REASON_NONE;
	is_int(guest_listen(&bed.b, BED_LISTENER,
			    &(struct vtoe_addr){ .family = 4,
						 .port = htons(BED_PORT) }),
	       0, "and listens");
	is_int(bed_open(&bed, &a, &b), 0, "a new connection opens");
	ok(stream_exchange(&a, &b, 200000, G_LARGE), "data passes");
	over_verbs(&a, &b);
	send_a_lot(&a);
	agent_kill(&bed.agent[1]);
	ok(broken_alone(&a) && a.reason == VTOE_REASON_LANE_LOST,
	   "the agent is killed: LANE_LOST");
	is_int(stream_close(&a, 0), 0, "and closes");
	guest_stop(&bed.a);
	guest_stop(&bed.b);
	streams_reset();
	is_int(agent_stop(&bed.agent[0]), 0, "agent ends cleanly");
}

/* Requests for queue pairs by whoever reaches the network. */
static void test_hostile_cm(void)
{
	struct vnet_lane_cm good = {
		.magic = htole32(VNET_PEER_MAGIC),
		.version = htole16(VNET_PEER_VERSION),
		.kind = VNET_LANE_QP_CONTROL,
		.recv_bufs = htole32(16),
	};
	struct vnet_lane_cm bad;
	unsigned int refused = 0;
	struct stream a, b;
	uint16_t port;

	if (!start(NULL, ""))
		return;
	is_int(bed_open(&bed, &a, &b), 0, "connection opens");
	port = cm_port_in_log(&bed.agent[1]);
	ok(port, "the log says where lanes come in");
	is_int(cm_request(3, 2, port, &good, sizeof(good)), VTOE_REASON_PROTOCOL,
	       "no token");
	bad = good;
	bad.version = htole16(VNET_PEER_VERSION + 1);
	is_int(cm_request(3, 2, port, &bad, sizeof(bad)), VTOE_REASON_VERSION,
	       "another version");
	bad = good;
	bad.kind = 3;
	is_int(cm_request(3, 2, port, &bad, sizeof(bad)), VTOE_REASON_PROTOCOL,
	       "a kind that does not exist");
	bad = good;
	bad.flags = 0x80;
	is_int(cm_request(3, 2, port, &bad, sizeof(bad)), VTOE_REASON_PROTOCOL,
	       "a flag that does not exist");
	bad = good;
	bad.reserved1 = 1;
	is_int(cm_request(3, 2, port, &bad, sizeof(bad)), VTOE_REASON_PROTOCOL,
	       "a reserved field");
	is_int(cm_request(3, 2, port, "x", 1), VTOE_REASON_PROTOCOL,
	       "one byte");
	is_int(cm_request(3, 2, port, NULL, 0), VTOE_REASON_PROTOCOL,
	       "no private data");
	for (int i = 0; i < 100; i++) {
		memset(good.token, i, sizeof(good.token));
		refused += cm_request(3, 2, port, &good, sizeof(good)) ==
			   VTOE_REASON_PROTOCOL;
	}
	is_int(refused, 100, "a flood of wrong tokens");
	ok(agent_logged(&bed.agent[1], "is refused: bad token"), "the log says so");
	kill(bed.agent[1].pid, SIGUSR1);
	ok(agent_logged(&bed.agent[1], "\"lane_refused\":107"),
	   "every one is counted");
	ok(stream_exchange(&a, &b, 1 << 20, G_LARGE),
	   "the lane that is up is not disturbed");
	stop();
}

unsigned int fabric_of(const struct stream *s)
{
	struct vtoe_cmd info = { .opcode = htole16(VTOE_CMD_INFO),
				 .sid = htole32(s->sid) };
	struct vtoe_reply reply;

	return guest_command(s->g, &info, &reply) ?
		       0 : le16toh(reply.u.info.fabric);
}

/* The buffers of a VM serve its connections over all fabrics, in turn. */
static void test_mixed(void)
{
	static const struct guest_options few = {
		.swq_num = 64, .rwq_num = { 64, 32 }, .eq_buffers = 64,
		.rwq_posted = { 32, 16 },
	};
	static struct guest c;
	struct stream a, b;

	if (!start(&few, ""))
		return;
	is_int(guest_start(&c, bed.agent[0].socket, "c", BED_TENANT, 3, NULL), 0,
	       "a third VM beside the first");
	for (int i = 0; i < 3; i++) {
		is_int(bed_open(&bed, &a, &b), 0, "a opens");
		is_int(fabric_of(&a), VTOE_FABRIC_VERBS, "over verbs");
		ok(stream_exchange(&a, &b, 300000, G_LARGE),
		   "data passes, all buffers of a are granted");
		is_int(stream_close(&a, 0), 0, "it closes");
		ok(stream_wait_broken(&b) && !stream_close(&b, 0), "at both ends");
		stream_init(&b, &c, 100 + (uint32_t)i, &a);
		stream_init(&a, &bed.a, 200 + (uint32_t)i, &b);
		is_int(stream_open(&b, &a, BED_LISTENER, BED_PORT,
				   (uint16_t)(7000 + i)), 0, "c opens to a");
		is_int(fabric_of(&b), VTOE_FABRIC_LOCAL, "over memory");
		ok(stream_exchange(&a, &b, 300000, G_LARGE),
		   "data passes, through the same buffers");
		is_int(stream_close(&b, 0), 0, "it closes");
		ok(stream_wait_broken(&a) && !stream_close(&a, 0), "at both ends");
		streams_reset();
	}
	is_int(bed.a.rwq_returned, 0, "no buffer came back unused");
	no_rnr();
	guest_stop(&c);
	stop();
}

/* Where a path fails to come up the next one is taken, and the log says why. */
static void test_next_fabric(void)
{
	struct stream a, b;

	if (!start(NULL, "rdma 10.9.9.9\n"))
		return;
	ok(agent_logged(&bed.agent[0],
			"10.9.9.9:7470: no RDMA device has this address"),
	   "no device has the address: the log says so");
	is_int(bed_open(&bed, &a, &b), 0, "a connection opens all the same");
	is_int(fabric_of(&a), VTOE_FABRIC_TCP, "over tcp");
	ok(stream_exchange(&a, &b, 200000, G_LARGE), "data passes");
	stop();
}

/* Its pages are not the device's: another fabric, and the log says why. */
static void test_balloon(void)
{
	static const struct guest_options balloon = {
		.swq_num = 64, .rwq_num = { 256, 64 }, .eq_buffers = 64,
		.rwq_posted = { 256, 64 }, .balloon = true,
	};
	struct stream a, b;

	if (!start(&balloon, ""))
		return;
	ok(agent_logged(&bed.agent[0], "vm a: not over verbs: it has a memory balloon"),
	   "a VM with a balloon: the log says that it is not over verbs");
	is_int(bed_open(&bed, &a, &b), 0, "a connection opens all the same");
	is_int(fabric_of(&a), VTOE_FABRIC_TCP, "over tcp");
	ok(stream_exchange(&a, &b, 200000, G_LARGE), "data passes");
	stop();
}

/* ---- two devices on two links ---- */

#define LANES_OF(device) "verbs\",\"device\":\"" device

static void carries(struct guest *from, struct guest *to, uint32_t sid)
{
	struct stream a, b;

	streams_reset();
	stream_init(&a, from, sid, &b);
	stream_init(&b, to, sid + 100, &a);
	if (!is_int(stream_open(&a, &b, BED_LISTENER, BED_PORT,
				(uint16_t)(7000 + sid)), 0, "a connection opens")) {
		agent_show_log(&bed.agent[0]);
		agent_show_log(&bed.agent[1]);
		return;
	}
	is_int(fabric_of(&a), VTOE_FABRIC_VERBS, "over verbs");
	ok(stream_exchange(&a, &b, 300000, G_LARGE), "data passes");
	ok(!stream_close(&a, 0) && stream_wait_broken(&b) && !stream_close(&b, 0),
	   "it closes");
}

/* Three lanes between agents with these addresses. */
static void over_rails(const char *addresses, bool both)
{
	static struct guest c;
	long long first;

	if (!start(NULL, addresses))
		return;
	is_int(guest_start(&c, bed.agent[0].socket, "c", BED_TENANT, 3, NULL), 0,
	       "a third VM beside the first");
	c.route = bed.agent[1].addr;
	c.route_reason = VTOE_REASON_NONE;
	carries(&bed.a, &bed.b, 20);
	carries(&bed.b, &bed.a, 21);
	carries(&c, &bed.b, 22);
	first = agent_lanes_counter(&bed.agent[1], LANES_OF("rxed"), "tx_bytes");
	if (both)
		ok(first > 0, "by one device");
	else
		is_int(first, 0, "not by the device that does not meet");
	ok(agent_lanes_counter(&bed.agent[1], LANES_OF("rxee"), "tx_bytes") > 0,
	   "by the other");
	streams_reset();
	guest_stop(&c);
	stop();
}

static void test_rails(void)
{
	note("each agent has two ports: they meet in pairs");
	over_rails("rdma 10.0.2.@ 10.0.3.@\n", true);
	note("the first has one port, which meets one of the second's");
	over_rails("rdma 10.0.3.@ 10.0.@.@\n", false);
}

static const struct {
	const char *name;
	void (*fn)(void);
} tests[] = {
	{ "data", test_data },
	{ "slow-reader", test_slow_reader },
	{ "many", test_many },
	{ "vm-gone", test_vm_gone },
	{ "agent-killed", test_agent_killed },
	{ "hostile-cm", test_hostile_cm },
	{ "mixed", test_mixed },
	{ "loop-broken", test_loop_broken },
	{ "peer-hangs", test_peer_hangs },
	{ "not-ready", test_not_ready },
	{ "ports-taken", test_ports_taken },
	{ "watchdog", test_watchdog },
	{ "robbed", test_robbed },
	{ "write-wraps", test_write_wraps },
	{ "write-one-side", test_write_one_side },
	{ "write-offers", test_write_offers },
	{ "write-faults", test_write_faults },
	{ "next-fabric", test_next_fabric },
	{ "rails", test_rails },
	{ "balloon", test_balloon },
	{ "device-removed", test_device_removed },
};
#define TESTS (sizeof(tests) / sizeof(tests[0]))

static bool wanted(const char *name, int argc, char **argv)
{
	for (int i = 0; i < argc; i++)
		if (!strcmp(argv[i], name))
			return true;
	return !argc;
}

int main(int argc, char **argv)
{
	argc--;
	argv++;
	if (argc > 1 && !strcmp(argv[0], "--program")) {
		program = argv[1];
		argc -= 2;
		argv += 2;
	}
	if (argc > 0 && !strcmp(argv[0], "--write")) {
		transfer_write = true;
		argc--;
		argv++;
	}
	probe_start();
	for (unsigned int i = 0; i < TESTS; i++) {
		if (!wanted(tests[i].name, argc, argv))
			continue;
		note("%s", tests[i].name);
		tests[i].fn();
	}
	return tap_done();
}
