// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The data-plane process of one tenant: its loop and its talk with main.
 *
 * Theory of operation. Callbacks of the loop do little: a doorbell puts its VM
 * on the ready list, a readable lane delivers into receive queues and puts VMs
 * on the dirty list. The pass (tenant_poll), which the loop runs before each
 * sleep, does the rest in one go for everybody:
 *
 *   ready VMs: commands, then send queue ─► lanes: what was queued, in one
 *   sendmsg each ─► dirty VMs: events, used buffers, one interrupt a queue ─►
 *   bury what ended
 *
 * so interrupts and system calls are counted per pass, not per message. When a
 * pass finds nothing, doorbells are switched on again, and only if nothing came
 * in meanwhile may the loop sleep. With `poll adaptive` it goes on polling, with
 * doorbells off, for the configured time after the last work, and offers the CPU
 * to others between looks: the guest's virtual CPU, which makes the work, may
 * have no other. Who does not get it back soon is in the way of somebody busy,
 * and lets it be for a while.
 *
 * Watchdog. Nothing here waits but the loop, and what a VM's front end makes wait
 * (virtq.h). So that it does not stop the tenant's other VMs for ever a signal
 * comes once in a second: whatever waits then returns EINTR. All other calls are
 * non-blocking, for which there is no EINTR, or are made again; but for a log
 * line, which is lost if nobody has read stderr for so long.
 *
 * References: see agent.h. VMs with a fault, dead connections and lanes are
 * freed at the end of the pass only.
 */
#include "agent.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "conf.h"
#include "internal.h"
#include "sandbox.h"

#define TICK_MS 100
#define LATE_US 500000u /* for a tick: we have stood */
#define IDLE_LIFE_US (60 * 1000000ull)
#define WATCHDOG_S 1
#define ROUNDS_MAX 4 /* of a pass, before the loop looks at sockets again */
#define CONTENDED_US 500 /* so long without the CPU */
#define SPIN_REST_MS 10	 /* then no polling; doubled each time, up to ... */
#define SPIN_REST_MAX_MS 640

/* ---- lists ---- */

void iba_tenant_ready(struct iba_vm *vm)
{
	if (vm->ready || vm->gone)
		return;
	vm->ready = true;
	TAILQ_INSERT_TAIL(&vm->tenant->ready, vm, ready_link);
}

void iba_tenant_dirty(struct iba_vm *vm)
{
	if (vm->dirty || vm->gone)
		return;
	vm->dirty = true;
	TAILQ_INSERT_TAIL(&vm->tenant->dirty, vm, dirty_link);
}

struct iba_vm *iba_tenant_vm_by_mac(struct iba_tenant *t,
				    const uint8_t mac[VNET_MAC_LEN])
{
	struct iba_vm *vm;

	TAILQ_FOREACH(vm, &t->vms, link)
		if (!vm->fault && !memcmp(vm->mac, mac, VNET_MAC_LEN))
			return vm;
	return NULL;
}

/* ---- the pass ---- */

static bool run_ready(struct iba_tenant *t)
{
	struct iba_vm *vm;
	bool work = false;

	TAILQ_FOREACH(vm, &t->ready, ready_link) {
		if (vm->fault)
			continue;
		work |= iba_cmd_run(vm);
		if (!vm->fault)
			work |= iba_send_run(vm);
	}
	return work;
}

static void end_faulty(struct iba_tenant *t)
{
	struct iba_vm *vm, *next;

	for (vm = TAILQ_FIRST(&t->vms); vm; vm = next) {
		next = TAILQ_NEXT(vm, link);
		if (vm->fault)
			iba_vm_destroy(vm);
	}
	if (!t->vm_count && !t->empty_since_us) {
		t->empty_since_us = iba_clock_us(t);
		iba_tenant_need_tick(t);
	}
}

static void publish_dirty(struct iba_tenant *t)
{
	struct iba_vm *vm;
	bool fault = false;

	while ((vm = TAILQ_FIRST(&t->dirty))) {
		TAILQ_REMOVE(&t->dirty, vm, dirty_link);
		vm->dirty = false;
		if (!vm->fault)
			iba_vm_publish(vm);
		fault |= vm->fault;
	}
	if (fault)
		end_faulty(t);
}

/* Nothing to do: the guests must ring again. True: one has just not rung. */
static bool rest_ready(struct iba_tenant *t)
{
	struct iba_vm *vm, *next;

	for (vm = TAILQ_FIRST(&t->ready); vm; vm = next) {
		struct virtq *cr = &vm->queue[IBA_Q_CR].vq;
		struct virtq *swq = &vm->queue[IBA_Q_SWQ].vq;
		bool more = false;

		next = TAILQ_NEXT(vm, ready_link);
		/* one that is throttled becomes ready without a doorbell */
		if (cr->running && !(vm->tx_throttled && vm->cmd_waits))
			more |= virtq_enable_kicks(cr);
		if (swq->running && vm->hello && !vm->tx_throttled)
			more |= virtq_enable_kicks(swq);
		if (more)
			return true;
		vm->ready = false;
		TAILQ_REMOVE(&t->ready, vm, ready_link);
	}
	return false;
}

static bool run_pass(struct iba_tenant *t)
{
	bool work = iba_verbs_run(t);

	work |= run_ready(t);
	/* a lane or VM that ends here makes work for others */
	do {
		iba_tcp_flush(t);
		iba_verbs_flush(t);
		publish_dirty(t);
	} while (!TAILQ_EMPTY(&t->dirty) || !TAILQ_EMPTY(&t->dirty_lanes) ||
		 iba_verbs_dirty(t));
	iba_conn_bury(t);
	iba_lane_bury(t);
	iba_verbs_bury(t);
	return work;
}

/* Polls on: true, having offered the CPU to others. */
static bool spin(struct iba_tenant *t)
{
	uint64_t now;

	if (t->cfg->spin_us == IBA_SPIN_BUSY) {
		sched_yield();
		return true;
	}
	now = loop_now_us();
	if (now - t->last_work_us >= t->cfg->spin_us || now < t->spin_after_us)
		return false;
	sched_yield();
	if (loop_now_us() - now < CONTENDED_US)
		return true;
	t->spin_after_us = now + 1000 * t->spin_rest_ms;
	if (t->spin_rest_ms < SPIN_REST_MAX_MS)
		t->spin_rest_ms *= 2;
	t->spinning = false;
	return false;
}

/* True: do not sleep. */
static bool tenant_poll(void *ctx)
{
	struct iba_tenant *t = ctx;
	uint32_t spin_us = t->cfg->spin_us;

	for (int round = 0; round < ROUNDS_MAX; round++) {
		bool work = run_pass(t);

		if (spin_us && (work || t->received)) {
			t->last_work_us = loop_now_us();
			t->received = false;
			if (t->spinning) /* it was worth it */
				t->spin_rest_ms = SPIN_REST_MS;
		}
		if (work)
			continue;
		t->spinning = spin_us && spin(t);
		if (t->spinning)
			return true;
		if (!rest_ready(t) && !iba_verbs_rest(t))
			return false;
	}
	return true;
}

/* ---- deadlines ---- */

void iba_tenant_need_tick(struct iba_tenant *t)
{
	if (t->ticking)
		return;
	t->ticking = true;
	t->tick_due_us = loop_now_us() + TICK_MS * 1000u;
	loop_timer_arm(t->tick, TICK_MS);
}

/* When the tick that is armed is so late that what comes behind is not counted. */
static uint64_t stands_from_us(const struct iba_tenant *t)
{
	return t->tick_due_us + LATE_US;
}

uint64_t iba_clock_us(const struct iba_tenant *t)
{
	uint64_t now = loop_now_us();

	if (t->ticking && now > stands_from_us(t))
		now = stands_from_us(t);
	return now - t->lost_us;
}

static void send_ctl(struct iba_tenant *t, const struct iba_ctl *msg)
{
	/* a full socket: main is stuck, deadlines will tell */
	unix_send_fds(t->ctl_fd, msg, sizeof(*msg), NULL, 0);
}

/* Main ends this process, unless an attachment is on its way to it. */
static void say_idle(struct iba_tenant *t)
{
	struct iba_ctl msg = { .type = IBA_CTL_IDLE };

	msg.u.idle.attaches = t->attaches;
	send_ctl(t, &msg);
}

static void tick(void *ctx)
{
	struct iba_tenant *t = ctx;
	uint64_t now = loop_now_us();
	bool more;

	if (now > stands_from_us(t))
		t->lost_us += now - stands_from_us(t);
	t->ticking = false;
	now = iba_clock_us(t);
	more = iba_open_tick(t, now);
	more |= iba_lane_tick(t, now);
	more |= iba_verbs_tick(t, now);
	if (!t->vm_count && t->empty_since_us) {
		if (now - t->empty_since_us >= IDLE_LIFE_US) {
			say_idle(t);
			t->empty_since_us = now; /* again, if it comes to nothing */
		}
		more = true;
	}
	if (more)
		iba_tenant_need_tick(t);
}

/* ---- the watchdog ---- */

static void watchdog_rings(int sig)
{
	(void)sig; /* it is the interruption that counts */
}

static int watchdog_prepare(void)
{
	const struct sigaction action = { .sa_handler = watchdog_rings };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	if (sigaction(SIGALRM, &action, NULL) < 0 ||
	    sigprocmask(SIG_UNBLOCK, &set, NULL) < 0)
		return -errno;
	return 0;
}

void iba_tenant_watchdog(bool on)
{
	struct itimerval it = { { 0, 0 }, { 0, 0 } };

	if (on)
		it.it_value.tv_sec = it.it_interval.tv_sec = WATCHDOG_S;
	if (setitimer(ITIMER_REAL, &it, NULL) < 0)
		log_err("watchdog: %s", strerror(errno));
}

/* ---- main ---- */

int iba_tenant_ask_lane(struct iba_tenant *t, const struct vtoe_addr *agent,
			const struct iba_lane_want *want, uint32_t *seq)
{
	struct iba_ctl msg = { .type = IBA_CTL_LANE_ASK };

	msg.seq = *seq = ++t->ctl_seq;
	msg.u.lane_ask.agent = *agent;
	msg.u.lane_ask.want = *want;
	return unix_send_fds(t->ctl_fd, &msg, sizeof(msg), NULL, 0);
}

static void give_token(struct iba_tenant *t, const struct iba_ctl *ask)
{
	struct iba_ctl msg = { .type = IBA_CTL_TOKEN_ANSWER, .seq = ask->seq };

	if (ask->u.token_ask.want.fabric == VTOE_FABRIC_VERBS)
		iba_verbs_token(t, &ask->u.token_ask.source,
				&ask->u.token_ask.want, &msg.u.answer);
	else
		iba_lane_token(t, &ask->u.token_ask.source, &msg.u.answer);
	send_ctl(t, &msg);
	explicit_bzero(&msg, sizeof(msg));
}

static void from_main(struct iba_tenant *t, const struct iba_ctl *msg, int fd)
{
	if (msg->type == IBA_CTL_ATTACH && fd >= 0) {
		t->attaches++;
		t->empty_since_us = 0;
		iba_vm_attach(t, fd, msg->seq, &msg->u.attach);
		return;
	}
	if (fd >= 0)
		close(fd);
	switch (msg->type) {
	case IBA_CTL_LANE_ANSWER:
		iba_lane_answer(t, msg->seq, &msg->u.answer);
		iba_verbs_answer(t, msg->seq, &msg->u.answer);
		break;
	case IBA_CTL_TOKEN_ASK:
		give_token(t, msg);
		break;
	case IBA_CTL_STATS:
		iba_stats_print(t);
		break;
	default:
		log_err("main sent a message of type %u", msg->type);
		break;
	}
}

static void main_readable(int fd, uint32_t events, void *ctx)
{
	struct iba_tenant *t = ctx;
	int fds[UNIX_FDS_MAX];
	unsigned int nfds;
	struct iba_ctl msg;
	ssize_t n;

	(void)events;
	for (;;) {
		n = unix_recv_fds(fd, &msg, sizeof(msg), fds, &nfds, 0);
		if (n == -EAGAIN)
			return;
		if (n == -EMFILE) { /* whoever attaches sees end of file */
			if (log_ratelimited_ok(&t->ctl_log, 1, 10))
				log_warn("tenant %u: an attachment is lost: %s",
					 t->id, strerror(EMFILE));
			continue;
		}
		if (n <= 0) { /* main has ended, or has no use for us */
			loop_stop(t->loop);
			return;
		}
		if (n != sizeof(msg) || nfds > 1) {
			log_err("main sent %zd bytes", n);
			close_fds(fds, nfds);
			continue;
		}
		from_main(t, &msg, nfds ? fds[0] : -1);
	}
}

/* ---- start and end ---- */

/* What the loop, the fabrics and libc need, on top of the sandbox's base. */
static const char *const syscalls[] = {
	"accept4", "bind", "connect", "listen", SANDBOX_SOCKET_INET, "shutdown",
	"getsockname", "getpeername", "getsockopt", "setsockopt",
	"sendmsg", "recvmsg", "sendto", "recvfrom", "readv", "writev",
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait",
	"fcntl", "fstat", "newfstatat", "mmap", "munmap", "mremap", "madvise",
	"getrandom", "poll", "ppoll", "signalfd4", "setitimer",
	SANDBOX_IOCTL_VERBS,
	NULL,
};

static int tenant_start(struct iba_tenant *t)
{
	int err;

	t->spin_rest_ms = SPIN_REST_MS;

	t->loop = loop_create();
	if (!t->loop)
		return -errno;
	t->tick = loop_timer_create(t->loop, tick, t);
	t->poller = loop_add_poller(t->loop, tenant_poll, t);
	t->ctl_source = loop_add_fd(t->loop, t->ctl_fd, EPOLLIN, main_readable,
				    t);
	if (!t->tick || !t->poller || !t->ctl_source)
		return -ENOMEM;
	err = loop_stop_on_signals(t->loop);
	if (!err)
		err = watchdog_prepare();
	if (err)
		return err;
	if (iba_config_allows(t->cfg, VTOE_FABRIC_TCP)) {
		err = iba_lane_listen(t);
		if (err)
			return err;
	}
	if (iba_config_allows(t->cfg, VTOE_FABRIC_VERBS)) {
		err = iba_verbs_start(t);
		if (err)
			return err;
	}
	return t->cfg->sandbox ? sandbox_restrict(syscalls) : 0;
}

static void tenant_end(struct iba_tenant *t)
{
	struct iba_vm *vm;

	TAILQ_FOREACH(vm, &t->vms, link)
		vm->fault = true;
	end_faulty(t);
	iba_lane_destroy_all(t);
	iba_verbs_stop(t);
	iba_conn_bury(t);
	iba_lane_bury(t);
	iba_conn_tables_free(t);
	loop_remove_fd(t->ctl_source);
	close(t->ctl_fd);
	loop_remove_poller(t->poller);
	loop_timer_destroy(t->tick);
	loop_destroy(t->loop);
}

const struct iba_fabric *iba_fabric_by_id(uint16_t id)
{
	switch (id) {
	case VTOE_FABRIC_LOCAL:
		return &iba_fabric_local;
	case VTOE_FABRIC_TCP:
		return &iba_fabric_tcp;
	case VTOE_FABRIC_VERBS:
		return &iba_fabric_verbs;
	default:
		return NULL;
	}
}

/* A freshly forked process that has nothing open but ctl_fd and stderr. */
int iba_tenant_main(const struct iba_config *cfg, uint32_t tenant, int ctl_fd)
{
	struct iba_tenant *t = calloc(1, sizeof(*t));
	int err;

	if (!t)
		return 1;
	t->cfg = cfg;
	t->id = tenant;
	t->ctl_fd = ctl_fd;
	t->data_in.fd = -1;
	t->empty_since_us = iba_clock_us(t);
	TAILQ_INIT(&t->vms);
	TAILQ_INIT(&t->ready);
	TAILQ_INIT(&t->dirty);
	TAILQ_INIT(&t->opening);
	TAILQ_INIT(&t->orphans);
	TAILQ_INIT(&t->dead);
	TAILQ_INIT(&t->lanes);
	TAILQ_INIT(&t->dirty_lanes);
	TAILQ_INIT(&t->dead_lanes);
	err = tenant_start(t);
	if (err) {
		log_err("tenant %u: cannot start: %s", tenant, strerror(-err));
		return 1;
	}
	log_info("tenant %u: data plane started", tenant);
	err = loop_run(t->loop);
	log_info("tenant %u: data plane ends", tenant);
	tenant_end(t);
	free(t);
	return err ? 1 : 0;
}
