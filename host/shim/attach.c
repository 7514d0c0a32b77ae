// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The attachment to the agent (proto/vnet_attach.h).
 *
 *           all VTOE queues READY               connected
 *   IDLE ----------------------> (LOCAL) RETRY ----------> HELLO
 *    ^                                     ^                  │ HELLO_REPLY
 *    │ reset                               │ lost             v
 *    │                                     ├----------------- MEM
 *    ├----- from any state                 │                  │ DONE
 *    │                                     ├----------------- START
 *    │      suspend                        │                  │ DONE x queues
 *   SUSPENDED <--------------------------- │ ---------------- UP
 *       └---- READY again: MEM_TABLE ------------> MEM
 *
 * Who serves the VTOE queues: nobody while the front end has not set all of
 * them up; this process while there is no agent, which means that it returns
 * whatever the guest posts with length 0; the agent from QUEUE_START on. Their
 * in-flight records live in a memfd that both map, so the queues can be taken
 * over at any instant: after the agent's death the records say what it had.
 *
 * An agent that is given up but lives may be slow alone, and write into the rings
 * still. So it is told, by half a shutdown, and nobody serves the queues before
 * it has closed (LEAVING): two masters of a ring are worse than none.
 *
 * While the VM migrates nobody is connected to: RETRY, and the queues LOCAL
 * (vhost_user.c says why).
 *
 * Suspension is for what happens under a running VM: stop and continue, memory
 * hot-plug, a moved interrupt. The agent keeps the connections, and the guest
 * sees nothing. A driver that begins anew is told apart by the ring positions.
 *
 * Threat model: the agent is trusted with this VM's VTOE queues and memory, but
 * it may die, hang or be of another version at any point. It is waited for only
 * WAIT_MS, and only while taking the queues back; all else is asynchronous. A
 * malformed or unexpected message ends the attachment.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/virtio_ring.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "conf.h"
#include "log.h"
#include "shim.h"
#include "unix_msg.h"
#include "vtoe_queues.h"

#define RETRY_MS 100
#define WAIT_MS 2000

static void retry(void *ctx);
static void too_late(void *ctx);

/* ---- states ---- */

static void set_state(struct shim_attach *a, enum shim_attach_state state)
{
	static const char *const names[] = { "idle", "retry", "hello",
					     "mem",  "start", "up",
					     "suspended", "leaving" };

	_Static_assert(sizeof(names) / sizeof(names[0]) == SHIM_ATTACH_STATES,
		       "one name a state");
	if (a->state == state)
		return;
	log_debug("vm %s: attachment %s -> %s", a->shim->conf->vm,
		  names[a->state], names[state]);
	a->state = state;
	if (state == SHIM_ATTACH_HELLO || state == SHIM_ATTACH_MEM ||
	    state == SHIM_ATTACH_START)
		loop_timer_arm(a->deadline, WAIT_MS);
	else
		loop_timer_disarm(a->deadline);
	loop_timer_disarm(a->retry);
}

static void disconnect(struct shim_attach *a)
{
	if (a->sock < 0)
		return;
	loop_remove_fd(a->source);
	a->source = NULL;
	close(a->sock);
	a->sock = -1;
	a->pending_count = 0;
}

/* ---- losing the agent ---- */

static bool agent_has_queues(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < SHIM_VTOE_QUEUES; i++)
		if (shim_queue_vtoe(shim, i)->state == SHIM_QUEUE_AGENT)
			return true;
	return false;
}

/* Has it see end of file; true: so do we, and it touches nothing any more. */
static bool has_closed(struct shim_attach *a)
{
	unsigned int budget = 64;
	char rest[256];
	ssize_t n;

	shutdown(a->sock, SHUT_WR);
	do {
		n = recv(a->sock, rest, sizeof(rest), MSG_DONTWAIT);
	} while (n > 0 && --budget);
	return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
}

/* It is given up, lives, and has queues. */
static void leave(struct shim_attach *a)
{
	log_warn("vm %s: the agent has not closed: its queues rest until it has",
		 a->shim->conf->vm);
	a->pending_count = 0;
	a->owes_removal = true;
	set_state(a, SHIM_ATTACH_LEAVING);
	shim_vtoe_take_back(a->shim);
}

static bool all_ready(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < SHIM_VTOE_QUEUES; i++)
		if (shim_queue_vtoe(shim, i)->state != SHIM_QUEUE_READY)
			return false;
	return true;
}

/* LEAVING is over: the records say how far it came. */
static void has_left(struct shim_attach *a)
{
	struct shim *shim = a->shim;

	disconnect(a);
	set_state(a, SHIM_ATTACH_IDLE);
	shim_vtoe_reread(shim);
	if (!all_ready(shim))
		return;
	shim_vtoe_serve_here(shim, a->owes_removal);
	set_state(a, SHIM_ATTACH_RETRY);
	loop_timer_arm(a->retry, RETRY_MS);
}

static void lost(struct shim_attach *a, const char *why)
{
	struct shim *shim = a->shim;
	/* MEM: it may be a resumption, then nobody serves them */
	const bool had_queues = a->state == SHIM_ATTACH_MEM ||
				a->state == SHIM_ATTACH_START ||
				a->state == SHIM_ATTACH_UP;
	const bool suspended = a->state == SHIM_ATTACH_SUSPENDED;

	if (a->state == SHIM_ATTACH_UP || suspended) {
		log_warn("vm %s: agent lost: %s", shim->conf->vm, why);
		shim->stats.agent_losses++;
	} else if (!a->complained) {
		log_warn("vm %s: no attachment: %s; going on trying",
			 shim->conf->vm, why);
		a->complained = true;
	}
	a->same_epoch = false;
	if (agent_has_queues(shim) && !has_closed(a)) {
		leave(a);
		shim_device_set_vtoe(shim, VNET_VTOE_DOWN, false);
		return;
	}
	disconnect(a);
	set_state(a, suspended ? SHIM_ATTACH_IDLE : SHIM_ATTACH_RETRY);
	if (!suspended)
		loop_timer_arm(a->retry, RETRY_MS);
	if (had_queues) {
		shim_vtoe_take_back(shim);
		shim_vtoe_serve_here(shim, true);
	}
	shim_device_set_vtoe(shim, VNET_VTOE_DOWN, false);
}

static void lost_errno(struct shim_attach *a, const char *what, int err)
{
	char why[128];

	snprintf(why, sizeof(why), "%s: %s", what, strerror(err));
	lost(a, why);
}

static void too_late(void *ctx)
{
	lost(ctx, "it does not answer");
}

/* ---- requests ---- */

static int request(struct shim_attach *a, enum vnet_attach_type type,
		   const void *body, const int *fds, unsigned int nfds)
{
	int ret;

	if (a->pending_count == SHIM_ATTACH_PENDING_MAX)
		return -ENOBUFS;
	a->seq++;
	ret = attach_send(a->sock, type, a->seq, body, fds, nfds);
	if (ret == 0)
		a->pending[a->pending_count++] = a->seq;
	return ret;
}

static int send_hello(struct shim_attach *a)
{
	const struct shim_config *conf = a->shim->conf;
	struct vnet_attach_hello h = {
		.version = htole16(VNET_ATTACH_VERSION),
		.tenant = htole32(conf->tenant),
	};
	unsigned int i;

	memcpy(h.mac, conf->mac, VNET_MAC_LEN);
	for (i = 0; i < VNET_RWQ_CLASSES; i++)
		h.rwq_buf_size[i] = htole32(conf->rwq_buf_size[i]);
	snprintf(h.vm, sizeof(h.vm), "%s", conf->vm);
	return request(a, VNET_ATTACH_HELLO, &h, NULL, 0);
}

/* empty: the agent unmaps everything. */
static int send_mem_table(struct shim_attach *a, bool empty)
{
	const struct guest_mem *mem = &a->shim->mem;
	struct vnet_attach_mem_table t = { 0 };
	int fds[VNET_ATTACH_REGIONS_MAX];
	unsigned int i, count = empty ? 0 : mem->count;

	_Static_assert(GUEST_MEM_REGIONS_MAX <= VNET_ATTACH_REGIONS_MAX,
		       "every region has a place");
	t.count = htole32(count);
	for (i = 0; i < count; i++) {
		t.region[i].gpa = htole64(mem->region[i].gpa);
		t.region[i].size = htole64(mem->region[i].size);
		t.region[i].mmap_offset = htole64(mem->region[i].mmap_offset);
		fds[i] = mem->region[i].fd;
	}
	return request(a, VNET_ATTACH_MEM_TABLE, &t, fds, count);
}

static int send_queue_start(struct shim_attach *a, unsigned int i)
{
	struct shim *shim = a->shim;
	struct shim_queue *q = shim_queue_vtoe(shim, i);
	const uint8_t kind = i < 3 ? VNET_QUEUE_CR + i : VNET_QUEUE_RWQ;
	struct vnet_attach_queue_start s = {
		.queue = htole16(q->index),
		.kind = kind,
		.index = kind == VNET_QUEUE_RWQ ? i - 3 : 0,
		.num = htole16(q->num),
		.inflight_offset = htole64(i * (uint64_t)VNET_INFLIGHT_STRIDE),
	};
	struct shim_ring ring;
	uint16_t flags = 0;
	int fds[3];

	if (shim_queue_ring(q, &ring) < 0)
		return -EINVAL;
	if (q->call_fd < 0) /* polled by the guest: an interrupt into the void */
		q->call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (shim_device_has(&shim->dev, VIRTIO_RING_F_EVENT_IDX))
		flags |= VNET_QUEUE_F_EVENT_IDX;
	if (shim_device_has(&shim->dev, VIRTIO_RING_F_INDIRECT_DESC))
		flags |= VNET_QUEUE_F_INDIRECT;
	s.flags = htole16(flags);
	s.desc = htole64(ring.desc);
	s.avail = htole64(ring.avail);
	s.used = htole64(ring.used);
	fds[0] = q->kick_fd;
	fds[1] = q->call_fd;
	fds[2] = a->inflight_fd;
	return request(a, VNET_ATTACH_QUEUE_START, &s, fds, 3);
}

static int send_queue_stop(struct shim_attach *a, struct shim_queue *q)
{
	struct vnet_attach_queue_stop s = { .queue = htole16(q->index) };

	return request(a, VNET_ATTACH_QUEUE_STOP, &s, NULL, 0);
}

static int hand_out(struct shim_attach *a)
{
	struct shim *shim = a->shim;
	unsigned int i;
	int ret;

	for (i = 0; i < SHIM_VTOE_QUEUES; i++) {
		struct shim_queue *q = shim_queue_vtoe(shim, i);
		struct vnet_inflight *r = &a->inflight[i];

		/* Nothing that was posted before is for the new agent. */
		if (q->state == SHIM_QUEUE_LOCAL)
			shim_vtoe_kicked(q);
		shim_queue_stop_local(q);
		if (le16toh(r->version) != VNET_INFLIGHT_VERSION) {
			/* never served here: a resume from position 0 */
			if (shim_queue_start_local(q, r) < 0)
				return -EINVAL;
			shim_queue_stop_local(q);
		}
		ret = send_queue_start(a, i);
		if (ret < 0)
			return ret;
		shim_queue_set_state(q, SHIM_QUEUE_AGENT);
	}
	return 0;
}

/* ---- messages ---- */

static int take_pending(struct shim_attach *a, uint32_t seq)
{
	unsigned int i;

	for (i = 0; i < a->pending_count; i++) {
		if (a->pending[i] != seq)
			continue;
		a->pending[i] = a->pending[--a->pending_count];
		return 0;
	}
	return -EPROTO;
}

static int got_hello_reply(struct shim_attach *a, const struct attach_msg *msg)
{
	const struct vnet_attach_hello_reply *r = &msg->u.hello_reply;
	const uint32_t status = le32toh(r->status);

	if (a->state != SHIM_ATTACH_HELLO ||
	    take_pending(a, le32toh(msg->hdr.seq)) < 0)
		return -EPROTO;
	if (status != VTOE_REASON_NONE ||
	    le16toh(r->version) != VNET_ATTACH_VERSION) {
		char why[96];

		snprintf(why, sizeof(why), "agent refuses: %s (its version is %u)",
			 vtoe_reason_name(status), le16toh(r->version));
		lost(a, why);
		return 1;
	}
	log_info("vm %s: agent of host %.*s, fabrics %#x", a->shim->conf->vm,
		 VNET_NAME_LEN, r->host, le16toh(r->fabrics));
	set_state(a, SHIM_ATTACH_MEM);
	return send_mem_table(a, false);
}

static int got_done(struct shim_attach *a, const struct attach_msg *msg)
{
	const uint32_t status = le32toh(msg->u.done.status);
	int ret;

	if (take_pending(a, le32toh(msg->hdr.seq)) < 0)
		return -EPROTO;
	if (status != VTOE_REASON_NONE) {
		char why[96];

		snprintf(why, sizeof(why), "agent refuses memory or queue: %s",
			 vtoe_reason_name(status));
		lost(a, why);
		return 1;
	}
	if (a->pending_count)
		return 0;
	switch (a->state) {
	case SHIM_ATTACH_MEM:
		set_state(a, SHIM_ATTACH_START);
		ret = hand_out(a);
		return ret;
	case SHIM_ATTACH_START:
		set_state(a, SHIM_ATTACH_UP);
		a->complained = false;
		a->shim->stats.agent_attaches++;
		shim_device_set_vtoe(a->shim, VNET_VTOE_UP, !a->same_epoch);
		a->same_epoch = true;
		return 0;
	default:
		return 0;
	}
}

/* The one link that leads to a station, NULL if none or several do. */
static const struct shim_link_conf *link_to(struct shim *shim,
					    const uint8_t *mac)
{
	uint8_t key[2 * VNET_MAC_LEN];
	uint64_t links;

	memcpy(key, mac, VNET_MAC_LEN);
	memcpy(key + VNET_MAC_LEN, shim->conf->mac, VNET_MAC_LEN);
	links = shim_routes_lookup(&shim->routes, key);
	if (!links || (links & (links - 1)))
		return NULL;
	return shim->links.link[__builtin_ctzll(links)].conf;
}

static int got_resolve(struct shim_attach *a, const struct attach_msg *msg)
{
	const struct shim_link_conf *link = link_to(a->shim,
						    msg->u.resolve.mac);
	struct vnet_attach_resolve_reply r = {
		.status = htole32(link ? VTOE_REASON_NONE :
					 VTOE_REASON_NO_ROUTE),
	};

	if (a->state == SHIM_ATTACH_HELLO)
		return -EPROTO;
	if (link)
		sockaddr_to_vtoe(&link->agent, &r.agent);
	return attach_send(a->sock, VNET_ATTACH_RESOLVE_REPLY,
			   le32toh(msg->hdr.seq), &r, NULL, 0);
}

/* 1: the attachment ended, 0, -errno: it must. */
static int dispatch(struct shim_attach *a, const struct attach_msg *msg)
{
	switch (le16toh(msg->hdr.type)) {
	case VNET_ATTACH_HELLO_REPLY:
		return got_hello_reply(a, msg);
	case VNET_ATTACH_DONE:
		return got_done(a, msg);
	case VNET_ATTACH_RESOLVE:
		return got_resolve(a, msg);
	}
	return -EPROTO;
}

/* Handles one message. 1: got one; 0: none there; -1: the attachment ended. */
static int receive(struct shim_attach *a)
{
	struct attach_msg msg;
	int ret;

	if (a->state == SHIM_ATTACH_LEAVING) {
		if (!has_closed(a))
			return 0;
		has_left(a);
		return -1;
	}
	ret = attach_recv(a->sock, &msg);
	if (ret == -EAGAIN)
		return 0;
	if (ret <= 0) {
		if (ret == 0)
			lost(a, "it closed the connection");
		else
			lost_errno(a, "receiving", -ret);
		return -1;
	}
	ret = dispatch(a, &msg);
	close_fds(msg.fds, msg.nfds);
	if (ret < 0)
		lost_errno(a, ret == -EPROTO ? "unexpected message" : "sending",
			   -ret);
	return ret ? -1 : 1;
}

static void readable(int fd, uint32_t events, void *ctx)
{
	struct shim_attach *a = ctx;
	unsigned int budget = 32;

	(void)fd;
	(void)events;
	while (budget-- && receive(a) > 0)
		;
}

/* ---- connecting ---- */

static void try_connect(struct shim_attach *a)
{
	struct shim *shim = a->shim;
	char why[256];
	int ret;

	if (shim->log.on) { /* the agent does not mark what it writes */
		set_state(a, SHIM_ATTACH_RETRY);
		loop_timer_arm(a->retry, RETRY_MS);
		return;
	}
	ret = unix_connect(shim->conf->agent, SOCK_SEQPACKET);
	if (ret == -EACCES) {
		snprintf(why, sizeof(why),
			 "%s: user %u may not open it (run both daemons as one user, or chown it)",
			 shim->conf->agent, geteuid());
		lost(a, why);
		return;
	}
	if (ret < 0) {
		lost_errno(a, shim->conf->agent, -ret);
		return;
	}
	a->sock = ret;
	a->source = loop_add_fd(shim->loop, a->sock, EPOLLIN, readable, a);
	set_state(a, SHIM_ATTACH_HELLO);
	ret = a->source ? send_hello(a) : -errno;
	if (ret < 0)
		lost_errno(a, "hello", -ret);
}

static void retry(void *ctx)
{
	try_connect(ctx);
}

static bool any_shim_vtoe_continues(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < SHIM_VTOE_QUEUES; i++)
		if (shim_vtoe_continues(&shim->attach, shim_queue_vtoe(shim, i)))
			return true;
	return false;
}

int shim_attach_queue_ready(struct shim *shim)
{
	struct shim_attach *a = &shim->attach;
	int ret;

	if (!all_ready(shim) || a->state == SHIM_ATTACH_LEAVING)
		return 0;
	if (a->state == SHIM_ATTACH_SUSPENDED && any_shim_vtoe_continues(shim)) {
		set_state(a, SHIM_ATTACH_MEM);
		ret = send_mem_table(a, false);
		if (ret < 0)
			lost_errno(a, "resuming", -ret);
		return 0;
	}
	if (a->state == SHIM_ATTACH_SUSPENDED)
		shim_attach_reset(shim);
	ret = shim_vtoe_serve_here(shim, false);
	if (ret == 0)
		try_connect(a);
	return ret;
}

/* ---- taking the queues back ---- */

/* Until nothing is pending. 0, or -1: the attachment ended. */
static int wait_done(struct shim_attach *a)
{
	const uint64_t end = loop_now_us() + WAIT_MS * 1000ull;

	while (a->pending_count) {
		struct pollfd pfd = { .fd = a->sock, .events = POLLIN };
		const uint64_t now = loop_now_us();

		if (now >= end) {
			lost(a, "it does not give the queues back");
			return -1;
		}
		if (poll(&pfd, 1, (end - now + 999) / 1000) > 0 &&
		    receive(a) < 0)
			return -1;
	}
	return 0;
}

/* QUEUE_STOP for all, MEM_TABLE with nothing. 0, or -1: it ended instead. */
static int let_go(struct shim_attach *a)
{
	struct shim *shim = a->shim;
	unsigned int i;
	int ret;

	/* DONEs that are still to come must not move the state on. */
	set_state(a, SHIM_ATTACH_SUSPENDED);
	if (wait_done(a) < 0)
		return -1;
	for (i = 0; i < SHIM_VTOE_QUEUES; i++) {
		struct shim_queue *q = shim_queue_vtoe(shim, i);

		if (q->state != SHIM_QUEUE_AGENT)
			continue;
		ret = send_queue_stop(a, q);
		if (ret < 0)
			goto fail;
	}
	if (wait_done(a) < 0)
		return -1;
	shim_vtoe_take_back(shim);
	ret = send_mem_table(a, true);
	if (ret < 0)
		goto fail;
	return wait_done(a);

fail:
	lost_errno(a, "taking the queues back", -ret);
	return -1;
}

void shim_attach_suspend(struct shim *shim)
{
	struct shim_attach *a = &shim->attach;
	unsigned int i;

	if (a->state == SHIM_ATTACH_MEM || a->state == SHIM_ATTACH_START ||
	    a->state == SHIM_ATTACH_UP) {
		if (let_go(a) < 0)
			shim_vtoe_take_back(shim);
	} else if (a->state != SHIM_ATTACH_SUSPENDED &&
		   a->state != SHIM_ATTACH_LEAVING) {
		disconnect(a);
		set_state(a, SHIM_ATTACH_IDLE);
	}
	for (i = 0; i < SHIM_VTOE_QUEUES; i++)
		shim_queue_stop_local(shim_queue_vtoe(shim, i));
}

/*
 * In the order of a suspension, at whose end the agent has nothing mapped. One
 * that does not answer in time loses the connection instead, as ever; should it
 * come to life again and write before it sees that, then unmarked.
 */
void shim_attach_log_started(struct shim *shim)
{
	struct shim_attach *a = &shim->attach;
	const bool held = a->state == SHIM_ATTACH_MEM ||
			  a->state == SHIM_ATTACH_START ||
			  a->state == SHIM_ATTACH_UP;

	if (!shim_queues_vtoe(shim))
		return;
	if (held && let_go(a) < 0)
		shim_vtoe_take_back(shim);
	if (a->state == SHIM_ATTACH_LEAVING)
		return;
	if (a->state == SHIM_ATTACH_SUSPENDED || a->state == SHIM_ATTACH_HELLO)
		lost(a, "the VM migrates, its connections are reset");
	if (!held)
		return;
	shim_vtoe_serve_here(shim, true);
	set_state(a, SHIM_ATTACH_RETRY);
	loop_timer_arm(a->retry, RETRY_MS);
}

void shim_attach_reset(struct shim *shim)
{
	struct shim_attach *a = &shim->attach;
	unsigned int i;

	if (!shim_queues_vtoe(shim))
		return;
	shim_attach_suspend(shim);
	if (a->state != SHIM_ATTACH_LEAVING) {
		disconnect(a);
		set_state(a, SHIM_ATTACH_IDLE);
	}
	a->owes_removal = false;
	a->same_epoch = false;
	for (i = 0; i < SHIM_VTOE_QUEUES; i++)
		a->inflight[i].version = 0;
	shim_device_set_vtoe(shim, VNET_VTOE_DOWN, false);
}

void shim_attach_base_set(struct shim_queue *q)
{
	struct shim_attach *a = &q->shim->attach;
	const struct vnet_inflight *r = &a->inflight[shim_vtoe_index(q)];

	if (le16toh(r->version) == VNET_INFLIGHT_VERSION &&
	    le16toh(r->last_avail) != q->base)
		shim_attach_reset(q->shim);
}

void shim_attach_features_set(struct shim *shim)
{
	unsigned int i;

	if (shim->attach.state != SHIM_ATTACH_SUSPENDED &&
	    shim->attach.state != SHIM_ATTACH_LEAVING)
		return;
	/* QEMU asks when it stops a VM; virtio_uml, whose driver has gone, does
	 * not. The next driver reads the state before it sets up its queues. */
	for (i = 0; i < SHIM_VTOE_QUEUES; i++)
		if (shim_queue_vtoe(shim, i)->base_told)
			return;
	shim_attach_reset(shim);
}

void shim_attach_routes_changed(struct shim *shim)
{
	struct shim_attach *a = &shim->attach;
	int ret;

	if (a->sock < 0 || a->state == SHIM_ATTACH_HELLO ||
	    a->state == SHIM_ATTACH_LEAVING)
		return;
	ret = attach_send(a->sock, VNET_ATTACH_ROUTE_CHANGED, ++a->seq, NULL,
			  NULL, 0);
	if (ret < 0)
		lost_errno(a, "routes changed", -ret);
}

/* ---- start and end ---- */

int shim_attach_init(struct shim *shim)
{
	const size_t size = SHIM_VTOE_QUEUES * VNET_INFLIGHT_STRIDE;
	struct shim_attach *a = &shim->attach;
	void *map;

	a->shim = shim;
	a->sock = -1;
	a->inflight_fd = -1;
	if (!shim->conf->agent[0])
		return 0;
	a->retry = loop_timer_create(shim->loop, retry, a);
	a->deadline = loop_timer_create(shim->loop, too_late, a);
	a->inflight_fd = memfd_create("vtoe-inflight",
				      MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (!a->retry || !a->deadline || a->inflight_fd < 0 ||
	    ftruncate(a->inflight_fd, size) < 0)
		goto fail;
	/* neither side can take the other's mapping away */
	fcntl(a->inflight_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW);
	map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED,
		   a->inflight_fd, 0);
	if (map == MAP_FAILED)
		goto fail;
	a->inflight = map;
	return 0;

fail:
	log_err("vm %s: in-flight records: %s", shim->conf->vm,
		strerror(errno));
	return -errno;
}

void shim_attach_destroy(struct shim *shim)
{
	struct shim_attach *a = &shim->attach;

	if (!shim->conf->agent[0])
		return;
	disconnect(a);
	loop_timer_destroy(a->retry);
	loop_timer_destroy(a->deadline);
	if (a->inflight)
		munmap(a->inflight, SHIM_VTOE_QUEUES * VNET_INFLIGHT_STRIDE);
	if (a->inflight_fd >= 0)
		close(a->inflight_fd);
}
