// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The main process: shims' connections, tenants' processes, and what both have
 * to say to peers' agents.
 *
 * Theory of operation. A shim connects to the unix socket and says HELLO; that
 * message is read here because it names the tenant, then the connection moves,
 * as a descriptor, to that tenant's process, which is forked when the first
 * shim of the tenant comes. All further talk is between shim and that process.
 * Lanes need this process, which alone holds the key and the control channels:
 *
 *   tenant's process A -LANE_ASK-> main A ==TLS== main B -TOKEN_ASK-> tenant's B
 *                     <-LANE_ANSWER-      ==TLS==       <-TOKEN_ANSWER-
 *
 * A forked child closes everything but its socket pair and wipes its copies of
 * the key and the sessions before it looks at a guest. When main ends, in
 * whatever way, the pair's end of file and PR_SET_PDEATHSIG take the children
 * along; when a child ends it is reaped, its shims see end of file and come
 * again. One that has closed its socket, or shall go, is killed at once and is a
 * zombie until a tick meets it: the loop never waits for a child. A process whose last VM has left says IDLE, and is let go unless an
 * attachment crossed that.
 *
 * Threat model: a shim may be taken over by its guest: it gets one HELLO, of
 * exact form, in five seconds, and the number of those that wait is bounded (as
 * is the number of tenants). What it says of its VM is believed if the
 * configuration has no "vm" row, else if it has just that one: then a shim cannot
 * come as a VM that is not of this host, or into a tenant that is not its VM's.
 * A tenant's process may be taken over too: internal.h.
 */
#include "control.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "conf.h"
#include "unix_msg.h"

#define SHIMS_MAX 64
#define PROCS_MAX 256
#define QUESTIONS_MAX 1024 /* tokens asked of one process */
#define HELLO_TIMEOUT_US (5 * 1000000ull)
#define TICK_MS 500
#define CHILD_END_MS 2000 /* of all of them, when main ends */
#define PROC_MESSAGES 32  /* of one process, before others are looked at */

struct iba_shim {
	struct iba_control *c;
	int fd;
	struct loop_fd *source;
	uint64_t deadline_us;
	TAILQ_ENTRY(iba_shim) link;
};

struct token_question {
	uint32_t seq;
	uint64_t peer;
	uint32_t peer_seq;
	TAILQ_ENTRY(token_question) link;
};

struct iba_tenant_proc {
	struct iba_control *c;
	uint64_t id;
	uint32_t tenant;
	pid_t pid;
	int fd;
	struct loop_fd *source;
	bool let_go; /* at its own wish */
	uint32_t attaches, seq;
	TAILQ_HEAD(, token_question) questions;
	unsigned int question_count;
	TAILQ_ENTRY(iba_tenant_proc) link;
};

/* ---- tenants' processes ---- */

static struct iba_tenant_proc *proc_find(struct iba_control *c, uint32_t tenant)
{
	struct iba_tenant_proc *proc;

	TAILQ_FOREACH(proc, &c->procs, link)
		if (proc->tenant == tenant)
			return proc;
	return NULL;
}

static void answer_token(struct iba_tenant_proc *proc, struct token_question *q,
			 const struct vnet_peer_lane_answer *answer)
{
	TAILQ_REMOVE(&proc->questions, q, link);
	proc->question_count--;
	iba_peer_token_answer(proc->c, q->peer, q->peer_seq, answer);
	free(q);
}

static void log_exit(const struct iba_tenant_proc *proc, int status)
{
	if (WIFSIGNALED(status))
		log_err("tenant %u: data plane (pid %d) died of signal %d",
			proc->tenant, proc->pid, WTERMSIG(status));
	else if (WEXITSTATUS(status))
		log_err("tenant %u: data plane (pid %d) failed, status %d",
			proc->tenant, proc->pid, WEXITSTATUS(status));
	else
		log_info("tenant %u: data plane (pid %d) ended", proc->tenant,
			 proc->pid);
}

/* Frees those that have ended. True: there are others. */
static bool reap(struct iba_control *c)
{
	struct iba_tenant_proc *proc, *next;
	int status;

	for (proc = TAILQ_FIRST(&c->zombies); proc; proc = next) {
		next = TAILQ_NEXT(proc, link);
		status = 0;
		if (waitpid(proc->pid, &status, WNOHANG) == 0)
			continue;
		if (!proc->let_go || !WIFSIGNALED(status) ||
		    WTERMSIG(status) != SIGKILL)
			log_exit(proc, status);
		else
			log_info("tenant %u: data plane (pid %d) ended",
				 proc->tenant, proc->pid);
		TAILQ_REMOVE(&c->zombies, proc, link);
		c->proc_count--;
		free(proc);
	}
	return !TAILQ_EMPTY(&c->zombies);
}

/* When main ends: they see that, and have a little time to tell their guests. */
static void reap_all(struct iba_control *c)
{
	struct iba_tenant_proc *proc;

	for (int ms = 0; reap(c) && ms < CHILD_END_MS; ms += 10)
		usleep(10000);
	TAILQ_FOREACH(proc, &c->zombies, link) {
		log_err("tenant %u: data plane (pid %d) does not end: killed",
			proc->tenant, proc->pid);
		kill(proc->pid, SIGKILL);
	}
	while (reap(c))
		usleep(10000);
}

/* Closes its socket: a zombie that is still alive. */
static void proc_forget(struct iba_tenant_proc *proc)
{
	struct vnet_peer_lane_answer gone = {
		.status = htole32(VTOE_REASON_PEER_NO_VTOE),
	};
	struct iba_control *c = proc->c;
	struct token_question *q;

	TAILQ_REMOVE(&c->procs, proc, link);
	loop_remove_fd(proc->source);
	close(proc->fd);
	while ((q = TAILQ_FIRST(&proc->questions)))
		answer_token(proc, q, &gone);
	TAILQ_INSERT_TAIL(&c->zombies, proc, link);
}

/* proc is freed here if it has ended already. */
static void proc_end(struct iba_tenant_proc *proc)
{
	struct iba_control *c = proc->c;

	proc_forget(proc);
	kill(proc->pid, SIGKILL);
	reap(c);
	iba_control_need_tick(c);
}

static int proc_send(struct iba_tenant_proc *proc, const struct iba_ctl *msg,
		     const int *fds, unsigned int nfds)
{
	int ret = unix_send_fds(proc->fd, msg, sizeof(*msg), fds, nfds);

	if (ret < 0)
		log_warn("tenant %u: data plane does not listen: %s",
			 proc->tenant, strerror(-ret));
	return ret;
}

static void proc_lane_ask(struct iba_tenant_proc *proc, const struct iba_ctl *msg)
{
	struct iba_ask ask = {
		.proc = proc->id,
		.tenant = proc->tenant, /* ours, not the message's */
		.seq = msg->seq,
		.want = msg->u.lane_ask.want,
	};

	iba_peer_lane_ask(proc->c, &msg->u.lane_ask.agent, &ask);
}

static void proc_token_answer(struct iba_tenant_proc *proc,
			      const struct iba_ctl *msg)
{
	struct token_question *q;

	TAILQ_FOREACH(q, &proc->questions, link)
		if (q->seq == msg->seq)
			break;
	if (q)
		answer_token(proc, q, &msg->u.answer);
}

/* False: the process is gone. */
static bool proc_message(struct iba_tenant_proc *proc, const struct iba_ctl *msg)
{
	switch (msg->type) {
	case IBA_CTL_LANE_ASK:
		proc_lane_ask(proc, msg);
		return true;
	case IBA_CTL_TOKEN_ANSWER:
		proc_token_answer(proc, msg);
		return true;
	case IBA_CTL_IDLE:
		if (msg->u.idle.attaches != proc->attaches)
			return true;
		log_info("tenant %u: no VM, its data plane may go",
			 proc->tenant);
		proc->let_go = true;
		break;
	default:
		log_err("tenant %u: bad message from its data plane",
			proc->tenant);
		break;
	}
	proc_end(proc);
	return false;
}

static void proc_readable(int fd, uint32_t events, void *ctx)
{
	struct iba_tenant_proc *proc = ctx;
	int fds[UNIX_FDS_MAX];
	unsigned int nfds;
	struct iba_ctl msg;
	ssize_t n;

	(void)events;
	for (unsigned int i = 0; i < PROC_MESSAGES; i++) {
		n = unix_recv_fds(fd, &msg, sizeof(msg), fds, &nfds, 0);
		if (n == -EAGAIN)
			return;
		close_fds(fds, nfds);
		if (n != sizeof(msg) || nfds) {
			proc_end(proc);
			return;
		}
		if (!proc_message(proc, &msg))
			return;
	}
}

/* In the child: what belongs to main goes, without a word to anybody. */
static void forget_main(struct iba_control *c, int keep)
{
	struct iba_tenant_proc *proc;
	struct iba_shim *shim;

	/* first of all the descriptors: epoll's set is shared with the parent */
	if (keep != 3)
		dup2(keep, 3);
	close_range(4, ~0U, 0);
	iba_peers_stop(c);
	while ((shim = TAILQ_FIRST(&c->shims))) {
		TAILQ_REMOVE(&c->shims, shim, link);
		free(shim);
	}
	while ((proc = TAILQ_FIRST(&c->procs))) {
		struct token_question *q;

		while ((q = TAILQ_FIRST(&proc->questions))) {
			TAILQ_REMOVE(&proc->questions, q, link);
			free(q);
		}
		TAILQ_REMOVE(&c->procs, proc, link);
		free(proc);
	}
	while ((proc = TAILQ_FIRST(&c->zombies))) {
		TAILQ_REMOVE(&c->zombies, proc, link);
		free(proc);
	}
}

static __attribute__((noreturn)) void child(struct iba_control *c,
					    uint32_t tenant, int fd, pid_t main_pid)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != main_pid) /* it has died before the line above */
		_exit(1);
	forget_main(c, fd);
	exit(iba_tenant_main(c->cfg, tenant, 3));
}

static struct iba_tenant_proc *proc_start(struct iba_control *c, uint32_t tenant)
{
	struct iba_tenant_proc *proc;
	pid_t main_pid = getpid();
	int pair[2];

	if (c->proc_count >= PROCS_MAX)
		return NULL;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
		       pair) < 0)
		return NULL;
	proc = calloc(1, sizeof(*proc));
	if (!proc)
		goto close_pair;
	proc->c = c;
	proc->id = ++c->next_id;
	proc->tenant = tenant;
	proc->fd = pair[0];
	TAILQ_INIT(&proc->questions);
	proc->source = loop_add_fd(c->loop, proc->fd, EPOLLIN, proc_readable,
				   proc);
	if (!proc->source)
		goto free_proc;
	proc->pid = fork();
	if (proc->pid == 0) {
		free(proc);
		child(c, tenant, pair[1], main_pid);
	}
	if (proc->pid < 0)
		goto remove_source;
	close(pair[1]);
	TAILQ_INSERT_TAIL(&c->procs, proc, link);
	c->proc_count++;
	return proc;

remove_source:
	loop_remove_fd(proc->source);
free_proc:
	free(proc);
close_pair:
	close(pair[0]);
	close(pair[1]);
	return NULL;
}

/* ---- shims ---- */

static void shim_end(struct iba_shim *shim)
{
	struct iba_control *c = shim->c;

	TAILQ_REMOVE(&c->shims, shim, link);
	c->shim_count--;
	loop_remove_fd(shim->source);
	if (shim->fd >= 0)
		close(shim->fd);
	free(shim);
}

/* Any shim can provoke this, as often as it likes. */
static void log_refused(struct iba_control *c,
			const struct vnet_attach_hello *hello,
			enum vtoe_reason reason)
{
	const uint8_t *mac = hello->mac;
	char row[128];

	if (!log_ratelimited_ok(&c->shim_log, 10, 10))
		return;
	snprintf(row, sizeof(row),
		 "vm %s tenant %u mac %02x:%02x:%02x:%02x:%02x:%02x", hello->vm,
		 le32toh(hello->tenant), mac[0], mac[1], mac[2], mac[3], mac[4],
		 mac[5]);
	if (reason == VTOE_REASON_TENANT && c->cfg->vm_count)
		log_warn("vm %s: refused: tenant: if it is right, add \"%s\" to %s (in place of what that has for its name or MAC) and start the agent again",
			 hello->vm, row, c->cfg->file);
	else
		log_warn("vm %s: refused: %s (%s)", hello->vm,
			 vtoe_reason_name(reason), row);
}

static void shim_refuse(struct iba_shim *shim, const struct attach_msg *msg,
			enum vtoe_reason reason)
{
	struct vnet_attach_hello_reply reply = {
		.status = htole32(reason),
		.version = htole16(VNET_ATTACH_VERSION),
	};

	memcpy(reply.host, shim->c->cfg->host, sizeof(reply.host));
	attach_send(shim->fd, VNET_ATTACH_HELLO_REPLY, le32toh(msg->hdr.seq),
		    &reply, NULL, 0);
	shim->c->stats.shims_refused++;
	log_refused(shim->c, &msg->u.hello, reason);
}

static enum vtoe_reason hand_over(struct iba_shim *shim,
				  const struct attach_msg *msg)
{
	struct iba_ctl ctl = { .type = IBA_CTL_ATTACH };
	uint32_t tenant = le32toh(msg->u.hello.tenant);
	struct iba_control *c = shim->c;
	struct iba_tenant_proc *proc;

	if (le16toh(msg->u.hello.version) != VNET_ATTACH_VERSION)
		return VTOE_REASON_VERSION;
	if (tenant > 0xffffff ||
	    !iba_config_vm_ok(c->cfg, msg->u.hello.vm, tenant,
			      msg->u.hello.mac))
		return VTOE_REASON_TENANT;
	proc = proc_find(c, tenant);
	if (!proc)
		proc = proc_start(c, tenant);
	if (!proc)
		return VTOE_REASON_LIMIT;
	ctl.seq = le32toh(msg->hdr.seq);
	ctl.u.attach = msg->u.hello;
	if (proc_send(proc, &ctl, &shim->fd, 1) < 0)
		return VTOE_REASON_LIMIT;
	proc->attaches++;
	return VTOE_REASON_NONE;
}

static void shim_readable(int fd, uint32_t events, void *ctx)
{
	struct iba_shim *shim = ctx;
	enum vtoe_reason refuse;
	struct attach_msg msg;
	int ret;

	(void)events;
	ret = attach_recv(fd, &msg);
	if (ret == -EAGAIN)
		return;
	if (ret > 0 && le16toh(msg.hdr.type) == VNET_ATTACH_HELLO) {
		/* the loop lets go of it before another process has it */
		loop_remove_fd(shim->source);
		shim->source = NULL;
		refuse = hand_over(shim, &msg);
		if (refuse)
			shim_refuse(shim, &msg, refuse);
	} else if (ret != 0) {
		if (ret > 0)
			close_fds(msg.fds, msg.nfds);
		if (log_ratelimited_ok(&shim->c->shim_log, 10, 10))
			log_warn("shim: bad first message");
	}
	shim_end(shim);
}

static void shim_accept(int fd, uint32_t events, void *ctx)
{
	struct iba_control *c = ctx;
	struct iba_shim *shim;
	int sock = iba_accept(&c->shim_in, NULL);

	(void)fd;
	(void)events;
	if (sock < 0)
		return;
	shim = c->shim_count < SHIMS_MAX ? calloc(1, sizeof(*shim)) : NULL;
	if (!shim) {
		close(sock);
		return;
	}
	shim->c = c;
	shim->fd = sock;
	shim->deadline_us = loop_now_us() + HELLO_TIMEOUT_US;
	TAILQ_INSERT_TAIL(&c->shims, shim, link);
	c->shim_count++;
	shim->source = loop_add_fd(c->loop, sock, EPOLLIN, shim_readable, shim);
	if (!shim->source)
		shim_end(shim);
	else
		iba_control_need_tick(c);
}

/* ---- between tenants' processes and peers ---- */

void iba_control_lane_answer(struct iba_control *c, const struct iba_ask *ask,
			     const struct vnet_peer_lane_answer *answer)
{
	struct iba_tenant_proc *proc = proc_find(c, ask->tenant);
	struct iba_ctl msg = { .type = IBA_CTL_LANE_ANSWER, .seq = ask->seq };

	if (!proc || proc->id != ask->proc)
		return;
	msg.u.answer = *answer;
	proc_send(proc, &msg, NULL, 0);
	explicit_bzero(&msg, sizeof(msg));
}

enum vtoe_reason iba_control_token_ask(struct iba_control *c, uint32_t tenant,
				       const struct iba_lane_want *want,
				       const struct sockaddr_storage *source,
				       uint64_t peer, uint32_t peer_seq)
{
	struct iba_tenant_proc *proc = proc_find(c, tenant);
	struct iba_ctl msg = { .type = IBA_CTL_TOKEN_ASK };
	struct token_question *q;

	if (!proc)
		return VTOE_REASON_PEER_NO_VTOE;
	q = proc->question_count < QUESTIONS_MAX ? calloc(1, sizeof(*q)) : NULL;
	if (!q)
		return VTOE_REASON_LIMIT;
	msg.seq = ++proc->seq;
	msg.u.token_ask.source = *source;
	msg.u.token_ask.want = *want;
	if (proc_send(proc, &msg, NULL, 0) < 0) {
		free(q);
		return VTOE_REASON_LIMIT;
	}
	q->seq = msg.seq;
	q->peer = peer;
	q->peer_seq = peer_seq;
	TAILQ_INSERT_TAIL(&proc->questions, q, link);
	proc->question_count++;
	return VTOE_REASON_NONE;
}

/* ---- time and signals ---- */

void iba_control_need_tick(struct iba_control *c)
{
	if (c->ticking)
		return;
	c->ticking = true;
	loop_timer_arm(c->tick, TICK_MS);
}

static void tick(void *ctx)
{
	struct iba_control *c = ctx;
	uint64_t now = loop_now_us();
	struct iba_shim *shim, *next;
	bool more;

	c->ticking = false;
	more = iba_peers_tick(c, now);
	more |= reap(c);
	for (shim = TAILQ_FIRST(&c->shims); shim; shim = next) {
		next = TAILQ_NEXT(shim, link);
		if (shim->deadline_us <= now)
			shim_end(shim);
	}
	if (more || !TAILQ_EMPTY(&c->shims))
		iba_control_need_tick(c);
}

static void print_stats(struct iba_control *c)
{
	struct iba_ctl msg = { .type = IBA_CTL_STATS };
	struct iba_tenant_proc *proc;

	dprintf(STDERR_FILENO,
		"{\"process\":\"main\",\"tenants\":%u,\"shims_refused\":%llu,\"peers_refused\":%llu,\"handshakes_failed\":%llu,\"malformed\":%llu}\n",
		c->proc_count, (unsigned long long)c->stats.shims_refused,
		(unsigned long long)c->stats.refused,
		(unsigned long long)c->stats.handshake_failed,
		(unsigned long long)c->stats.malformed);
	TAILQ_FOREACH(proc, &c->procs, link)
		proc_send(proc, &msg, NULL, 0);
}

static void signalled(int fd, uint32_t events, void *ctx)
{
	struct signalfd_siginfo info;

	(void)events;
	while (read(fd, &info, sizeof(info)) == sizeof(info))
		print_stats(ctx);
}

/* The children inherit the blocked signal: it is main that is asked. */
static int watch_signal(struct iba_control *c)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	c->signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (c->signal_fd < 0)
		return -errno;
	c->signal_source = loop_add_fd(c->loop, c->signal_fd, EPOLLIN,
				       signalled, c);
	return c->signal_source ? 0 : -errno;
}

/* ---- start and stop ---- */

int iba_control_start(struct iba_control *c, const struct iba_config *cfg,
		      const uint8_t key[IBA_KEY_LEN])
{
	int err, fd;

	memset(c, 0, sizeof(*c));
	c->cfg = cfg;
	c->shim_in.fd = c->signal_fd = c->peer_in.fd = -1;
	TAILQ_INIT(&c->shims);
	TAILQ_INIT(&c->procs);
	TAILQ_INIT(&c->zombies);
	/* a peer that resets its connection, a guest's pipe that nobody reads:
	 * here and, as they inherit it, in the tenants' processes */
	signal(SIGPIPE, SIG_IGN);
	c->loop = loop_create();
	if (!c->loop)
		return -errno;
	c->tick = loop_timer_create(c->loop, tick, c);
	if (!c->tick)
		return -ENOMEM;
	err = loop_stop_on_signals(c->loop);
	if (!err)
		err = watch_signal(c);
	if (!err)
		err = iba_peers_start(c, key);
	if (err)
		return err;
	fd = unix_listen(cfg->socket_path, SOCK_SEQPACKET);
	if (fd < 0) {
		log_err("socket %s: %s", cfg->socket_path, strerror(-fd));
		return fd;
	}
	return iba_acceptor_start(&c->shim_in, c->loop, "shims", fd,
				  shim_accept, c);
}

void iba_control_stop(struct iba_control *c)
{
	struct iba_tenant_proc *proc;
	struct iba_shim *shim;

	while ((proc = TAILQ_FIRST(&c->procs)))
		proc_forget(proc);
	reap_all(c);
	while ((shim = TAILQ_FIRST(&c->shims)))
		shim_end(shim);
	iba_peers_stop(c);
	iba_acceptor_stop(&c->shim_in);
	loop_destroy(c->loop);
	if (c->signal_fd >= 0)
		close(c->signal_fd);
}
