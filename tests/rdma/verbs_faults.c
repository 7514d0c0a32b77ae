// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Of verbs_test: what hangs, breaks or goes away, and what must not be left of it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <infiniband/verbs.h>

#include "tap.h"
#include "verbs_test.h"

/* ---- faults to order: the agent's code is linked in, and called through these ---- */

static bool bad_loop; /* the next queue pair to itself is to another, which is not there */

int __real_ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask);
int __wrap_ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask);

int __wrap_ibv_modify_qp(struct ibv_qp *qp, struct ibv_qp_attr *attr, int mask)
{
	if (bad_loop && (mask & IBV_QP_DEST_QPN) &&
	    attr->dest_qp_num == qp->qp_num) {
		attr->dest_qp_num ^= 0x800000;
		bad_loop = false;
	}
	return __real_ibv_modify_qp(qp, attr, mask);
}

/* In the agents' processes, too. While it is set, no buffer that is posted is there. */
static atomic_bool *unready;
static int (*post_srq_recv)(struct ibv_srq *srq, struct ibv_recv_wr *wr,
			    struct ibv_recv_wr **bad);

static int post_nothing(struct ibv_srq *srq, struct ibv_recv_wr *wr,
			struct ibv_recv_wr **bad)
{
	return atomic_load(unready) ? 0 : post_srq_recv(srq, wr, bad);
}

struct ibv_srq *__real_ibv_create_srq(struct ibv_pd *pd,
				      struct ibv_srq_init_attr *attr);
struct ibv_srq *__wrap_ibv_create_srq(struct ibv_pd *pd,
				      struct ibv_srq_init_attr *attr);

struct ibv_srq *__wrap_ibv_create_srq(struct ibv_pd *pd,
				      struct ibv_srq_init_attr *attr)
{
	struct ibv_srq *srq = __real_ibv_create_srq(pd, attr);

	if (srq && unready && srq->context->ops.post_srq_recv != post_nothing) {
		post_srq_recv = srq->context->ops.post_srq_recv;
		srq->context->ops.post_srq_recv = post_nothing;
	}
	return srq;
}

/* ---- the tests ---- */

/* c, which is on a's host, sends to a over memory. */
static bool local_exchange(struct guest *c, unsigned int nth)
{
	struct stream a, b;
	bool right;

	stream_init(&b, c, 100 + nth, &a);
	stream_init(&a, &bed.a, 200 + nth, &b);
	right = !stream_open(&b, &a, BED_LISTENER, BED_PORT,
			     (uint16_t)(7000 + nth)) &&
		fabric_of(&b) == VTOE_FABRIC_LOCAL &&
		stream_exchange(&a, &b, 300000, G_LARGE);
	stream_close(&b, 0);
	if (stream_wait_broken(&a))
		stream_close(&a, 0);
	streams_reset();
	return right;
}

static void open_over_verbs(struct stream *a, struct stream *b)
{
	if (is_int(bed_open(&bed, a, b), 0, "connection opens") &&
	    is_int(fabric_of(a), VTOE_FABRIC_VERBS, "over verbs"))
		return;
	agent_show_log(&bed.agent[0]);
	agent_show_log(&bed.agent[1]);
}

/* The queue pair that fetches buffers back fails: another does it later. */
void test_loop_broken(void)
{
	static const struct guest_options few = {
		.swq_num = 64, .rwq_num = { 64, 32 }, .eq_buffers = 64,
		.rwq_posted = { 32, 16 },
	};
	static struct guest c;
	struct stream a, b;
	bool right = false;

	if (program)
		return;
	bad_loop = true;
	if (!start(&few, ""))
		return;
	bad_loop = false;
	is_int(guest_start(&c, bed.agent[0].socket, "c", BED_TENANT, 3, NULL), 0,
	       "a third VM beside the first");
	is_int(bed_open(&bed, &a, &b), 0, "a opens");
	ok(stream_exchange(&a, &b, 300000, G_LARGE),
	   "data passes, all buffers of a are granted");
	is_int(stream_close(&a, 0), 0, "it closes");
	ok(stream_wait_broken(&b) && !stream_close(&b, 0), "at both ends");
	streams_reset();
	/* the first has what it needs only if it never runs short of one class */
	local_exchange(&c, 0);
	/* the agent learns of it when the device gives up, and rests first */
	for (unsigned int i = 1; i < 100 && !right; i++) {
		bed_pump(&bed, 100);
		right = local_exchange(&c, i);
	}
	ok(right, "later they can");
	ok(agent_logged(&bed.agent[0], "receive buffers stay with"),
	   "the log says what was");
	if (!is_int(bed_open(&bed, &a, &b), 0, "a opens again"))
		agent_show_log(&bed.agent[0]);
	is_int(fabric_of(&a), VTOE_FABRIC_VERBS, "over verbs");
	ok(stream_exchange(&a, &b, 100000, G_LARGE), "data passes");
	guest_stop(&c);
	stop();
}

/*
 * A peer's agent that promises what it does not have: the device gives up asking.
 * iWARP does not ask.
 */
void test_not_ready(void)
{
	struct stream a, b;

	if (program)
		return;
	unready = mmap(NULL, sizeof(*unready), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (unready == MAP_FAILED)
		bail_out("no memory");
	atomic_store(unready, true);
	if (!start(NULL, "")) {
		atomic_store(unready, false);
		return;
	}
	open_over_verbs(&a, &b);
	send_a_lot(&a);
	ok(stream_wait_broken(&a) && a.reason == VTOE_REASON_LANE_LOST,
	   "no buffer is there: LANE_LOST");
	ok(stream_wait_broken(&b) && b.reason == VTOE_REASON_LANE_LOST,
	   "at both ends");
	is_int(b.rx, 0, "and nothing has come");
	rnr_exhausted();
	is_int(stream_close(&a, 0) + stream_close(&b, 0), 0, "both close");
	atomic_store(unready, false);
	streams_reset();
	is_int(bed_open(&bed, &a, &b), 0, "a new connection opens");
	ok(stream_exchange(&a, &b, 200000, G_LARGE), "data passes");
	over_verbs(&a, &b);
	is_int(bed.a.rwq_returned + bed.b.rwq_returned, 0,
	       "no buffer came back unused");
	stop();
	renew_device();
	munmap(unready, sizeof(*unready));
	unready = NULL;
}

static bool hasty; /* the agents' watchdogs, begun, ring every millisecond; begun again, after a second */

int __real_setitimer(int which, const struct itimerval *it, struct itimerval *was);
int __wrap_setitimer(int which, const struct itimerval *it, struct itimerval *was);

int __wrap_setitimer(int which, const struct itimerval *it, struct itimerval *was)
{
	struct itimerval often = { { 0, 1000 }, { 0, 1000 } };
	static bool begun; /* in this process */

	if (!hasty || !it->it_value.tv_sec)
		return __real_setitimer(which, it, was);
	if (begun)
		often.it_value = it->it_value;
	begun = true;
	return __real_setitimer(which, &often, was);
}

/* The watchdog rings while a queue pair connects, which sleeps over iWARP. */
void test_watchdog(void)
{
	struct stream a, b;

	if (program)
		return;
	hasty = true;
	for (int i = 0; i < 4 && start(NULL, ""); i++) {
		open_over_verbs(&a, &b);
		ok(stream_exchange(&a, &b, 200000, G_LARGE), "data passes");
		over_verbs(&a, &b);
		stop();
	}
	hasty = false;
}

#define FIRST_PORT 40000
#define PORTS 128
#define PORT_RANGE "/proc/sys/net/ipv4/ip_local_port_range"

/* Or somebody else has it, which is as good. */
static void take_port(int fd, unsigned int port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET,
				    .sin_port = htons((uint16_t)port) };

	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0 &&
	    listen(fd, 1) == 0)
		return;
	if (errno != EADDRINUSE)
		bail_out("a port cannot be had");
}

/*
 * The connection manager chooses ports that TCP has given to others, which iWARP
 * finds out when it binds them: half of all that there are. It takes another.
 */
void test_ports_taken(void)
{
	char range[64] = "", command[128];
	FILE *was = fopen(PORT_RANGE, "r");
	struct stream a, b;
	int fd[PORTS / 2];

	if (!was || !fgets(range, sizeof(range), was) || fclose(was))
		bail_out("no " PORT_RANGE);
	snprintf(command, sizeof(command), "echo %d %d >" PORT_RANGE, FIRST_PORT,
		 FIRST_PORT + PORTS - 1);
	is_int(shell(command), 0, "there are few ports");
	for (unsigned int i = 0; i < PORTS / 2; i++) {
		fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		take_port(fd[i], FIRST_PORT + i / 2 * 4 + i % 2);
	}
	for (int i = 0; i < 4 && start(NULL, ""); i++) {
		open_over_verbs(&a, &b);
		ok(stream_exchange(&a, &b, 200000, G_LARGE), "data passes");
		over_verbs(&a, &b);
		by_transfer();
		stop();
	}
	for (unsigned int i = 0; i < PORTS / 2; i++)
		close(fd[i]);
	range[strcspn(range, "\n")] = '\0';
	snprintf(command, sizeof(command), "echo '%s' >" PORT_RANGE, range);
	is_int(shell(command), 0, "there are many again");
}

/* What takes a while. */
static bool logged_in_time(const struct test_agent *agent, const char *text)
{
	for (int i = 0; i < 20; i++)
		if (agent_logged(agent, text))
			return true;
	return false;
}

/*
 * A peer's agent that hangs: its device acknowledges, but nobody says anything.
 * What it could still send is not kept for it for ever.
 */
void test_peer_hangs(void)
{
	struct stream a, b;
	pid_t tenant;

	if (!start(NULL, ""))
		return;
	is_int(bed_open(&bed, &a, &b), 0, "connection opens");
	ok(stream_exchange(&a, &b, 100000, G_LARGE), "data passes");
	is_int(agent_tenants(&bed.agent[1], &tenant, 1), 1, "a tenant's process");
	kill(tenant, SIGSTOP);
	is_int(stream_close(&a, 0), 0, "its peer hangs: a closes");
	ok(agent_lanes_counter(&bed.agent[0], "verbs", "promised") > 0,
	   "buffers are kept for what may come");
	ok(logged_in_time(&bed.agent[0], "nothing heard of the peer"),
	   "not for ever: the lane ends");
	kill(tenant, SIGCONT);
	ok(stream_wait_broken(&b) && !stream_close(&b, 0),
	   "it goes on: b is told");
	streams_reset();
	is_int(bed_open(&bed, &a, &b), 0, "a new connection opens");
	ok(stream_exchange(&a, &b, 100000, G_LARGE), "data passes");
	over_verbs(&a, &b);
	stop();
}

/*
 * Two connections at once. While the other end of the lane that has ended is still
 * being cleared away its buffers are missed there, too, and that ends this lane.
 */
static bool two_pass(struct stream *a, struct stream *b)
{
	bool good = true;

	for (int tries = 0; tries < 3; tries++) {
		streams_reset();
		for (int i = 0; i < 2; i++)
			good = !bed_open(&bed, &a[i], &b[i]) && good;
		for (int i = 0; i < 2 && good; i++)
			good = stream_exchange(&a[i], &b[i], 10000, G_LARGE);
		if (good)
			return true;
		for (int i = 0; i < 2; i++) {
			stream_close(&a[i], 0);
			stream_close(&b[i], 0);
		}
		bed_pump(&bed, 2000); /* on Linux 6.1 that takes a second */
		good = true;
	}
	return false;
}

/*
 * A lane that breaks may cost a buffer of each class, which comes back when no
 * lane is left. If a connection cannot do without, that is made so.
 */
void test_robbed(void)
{
	static const struct guest_options two = {
		.swq_num = 64, .rwq_num = { 64, 32 }, .eq_buffers = 64,
		.rwq_posted = { 2, 2 },
	};
	static struct guest c;
	struct test_agent third;
	struct stream a[2], b[2], to_c, of_c;
	char text[64];

	if (!start(&two, ""))
		return;
	bed.msg_window[0] = bed.msg_window[1] = 1;
	snprintf(text, sizeof(text), "fabric %s\n", bed_fabric());
	is_int(agent_start(&third, 3, TEST_KEY, text, program), 0, "a third host");
	is_int(guest_start(&c, third.socket, "c", BED_TENANT, 3, &two), 0,
	       "a VM on it");
	is_int(guest_listen(&c, BED_LISTENER,
			    &(struct vtoe_addr){ .family = 4,
						 .port = htons(BED_PORT) }),
	       0, "that listens");
	is_int(bed_open(&bed, &a[0], &b[0]), 0, "a connection from a to b");
	bed.a.route = third.addr;
	stream_init(&to_c, &bed.a, 300, &of_c);
	stream_init(&of_c, &c, 301, &to_c);
	memcpy(to_c.msg_window, bed.msg_window, sizeof(to_c.msg_window));
	memcpy(of_c.msg_window, bed.msg_window, sizeof(of_c.msg_window));
	is_int(stream_open(&to_c, &of_c, BED_LISTENER, BED_PORT, 7000), 0,
	       "and one to c: all buffers of a are promised");
	agent_kill(&third);
	ok(broken_alone(&to_c) && !stream_close(&to_c, 0), "c's host dies");
	guest_stop(&c);
	bed.a.route = bed.agent[1].addr;
	is_int(bed_open(&bed, &a[1], &b[1]), 0, "another one from a to b");
	ok(stream_wait_broken(&a[0]) && a[0].reason == VTOE_REASON_LANE_LOST &&
	   stream_wait_broken(&a[1]) && a[1].reason == VTOE_REASON_LANE_LOST,
	   "which would wait for ever: the lane ends");
	ok(agent_logged(&bed.agent[0],
			"broken queue pairs have the guest's buffers"),
	   "the log says why");
	for (int i = 0; i < 2; i++)
		ok(stream_wait_broken(&b[i]) && !stream_close(&a[i], 0) &&
		   !stream_close(&b[i], 0), "it is over at both ends");
	ok(two_pass(a, b), "others in their place: data passes");
	bed.msg_window[0] = bed.msg_window[1] = 0;
	no_rnr();
	stop();
}

/* The device goes while it is busy. */
void test_device_removed(void)
{
	struct stream a, b;
	pid_t pid;
	int status = -1;

	if (!start(NULL, ""))
		return;
	open_over_verbs(&a, &b);
	send_a_lot(&a);
	send_a_lot(&b);
	fflush(stdout);
	pid = fork();
	if (!pid)
		_exit(shell("/rdma link del " DEVICE));
	ok(stream_wait_broken(&a) && a.reason == VTOE_REASON_LANE_LOST,
	   "the device is removed: LANE_LOST");
	ok(stream_wait_broken(&b) && b.reason == VTOE_REASON_LANE_LOST,
	   "at both ends");
	for (int i = 0; i < 200 && waitpid(pid, &status, WNOHANG) == 0; i++)
		usleep(100000);
	is_int(status, 0, "nobody holds the device");
	is_int(stream_close(&a, 0) + stream_close(&b, 0), 0, "both close");
	streams_reset();
	is_int(bed_open(&bed, &a, &b), 0, "a new connection opens");
	is_int(fabric_of(&a), VTOE_FABRIC_TCP, "over tcp");
	ok(stream_exchange(&a, &b, 200000, G_LARGE), "data passes");
	is_int(bed.a.rwq_returned + bed.b.rwq_returned, 0,
	       "no buffer came back unused");
	stop();
	is_int(shell("/rdma link add " DEVICE " type rxe netdev d0"), 0,
	       "the device comes back");
}
