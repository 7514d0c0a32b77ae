// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The back end of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst).
 *
 * Theory of operation. A message is a header and a payload on a stream socket,
 * descriptors ride with its first byte. It is collected without blocking, then
 * looked up in the table below, which has for each request the lengths and the
 * number of descriptors that it may have and what must have been negotiated;
 * then its handler runs. A handler returns 0 (done), 1 (the front end is told
 * so, if it asked for an answer, or else the session ends) or -EPROTO.
 *
 * Front ends differ:
 *  - user-mode Linux (virtio_uml) sends SET_MEM_TABLE with room for two regions
 *    whatever it has; takes queues out of use with SET_VRING_ENABLE 0 alone;
 *    its call descriptors are sockets; reads config space from 0 on; it asks
 *    for an answer even to SET_PROTOCOL_FEATURES;
 *  - QEMU keeps the control queue of its virtio-net to itself, and repeats
 *    SET_VRING_CALL when the guest moves interrupts.
 *
 * Threat model. The front end belongs to the guest's side: a VMM that its guest
 * has taken over may send anything. Lengths and counts are checked before a
 * handler sees them, queue indices pass one gate, addresses are only used
 * through guest_mem.h. Whatever is malformed ends the session, with a line in
 * the log, and the shim listens again; descriptors that nobody took are closed
 * in one place. Answers are small and never waited for.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "shim.h"
#include "vhost_user_proto.h"

#define HDR_LEN offsetof(struct shim_vu_msg, payload)
#define MESSAGES_PER_RUN 64
#define CONFIG_RETRY_MS 10
#define OUR_PROTOCOL_FEATURES                                              \
	(VNET_BIT_MASK(VU_PROTOCOL_F_MQ_BIT) |                             \
	 VNET_BIT_MASK(VU_PROTOCOL_F_REPLY_ACK_BIT) |                      \
	 VNET_BIT_MASK(VU_PROTOCOL_F_BACKEND_REQ_BIT) |                    \
	 VNET_BIT_MASK(VU_PROTOCOL_F_CONFIG_BIT) |                         \
	 VNET_BIT_MASK(VU_PROTOCOL_F_RESET_DEVICE_BIT) |                   \
	 VNET_BIT_MASK(VU_PROTOCOL_F_STATUS_BIT))

static const char *request_name(uint32_t request);

/* A line about the message at hand. Returns -EPROTO. */
__attribute__((format(printf, 2, 3))) static int
bad(const struct shim *shim, const char *fmt, ...)
{
	const struct shim_front *f = &shim->front;
	char text[160];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log_warn("vm %s: front end: %s: %s", shim->conf->vm,
		 request_name(f->msg.request), text);
	return -EPROTO;
}

static bool negotiated(const struct shim_front *f, unsigned int bit)
{
	return f->protocol_features & VNET_BIT_MASK(bit);
}

/* ---- payloads ---- */

static uint64_t get_u64(const struct shim_vu_msg *msg)
{
	uint64_t value;

	memcpy(&value, msg->payload, sizeof(value));
	return value;
}

static void put_u64(struct shim_vu_msg *msg, uint64_t value)
{
	memcpy(msg->payload, &value, sizeof(value));
	msg->size = sizeof(value);
}

/* The payload's queue; NULL, logged, if the device has no such queue. */
static struct shim_queue *get_queue(struct shim *shim, uint32_t index)
{
	struct shim_queue *q = shim_queue_at(shim, index);

	if (!q)
		bad(shim, "queue %u of %u", index, shim->queue_count);
	return q;
}

static struct shim_queue *get_state(struct shim *shim, uint32_t *num)
{
	struct vu_vring_state s;

	memcpy(&s, shim->front.msg.payload, sizeof(s));
	*num = s.num;
	return get_queue(shim, s.index);
}

/* Takes the i-th descriptor of the message. */
static int take_fd(struct shim_front *f, unsigned int i)
{
	int fd = f->fds[i];

	f->fds[i] = -1;
	return fd;
}

/* ---- features ---- */

static int get_features(struct shim *shim)
{
	shim->dev.offered = shim_device_offer(shim);
	put_u64(&shim->front.msg, shim->dev.offered |
					  VNET_BIT_MASK(VU_F_PROTOCOL_FEATURES_BIT));
	return 0;
}

static int set_features(struct shim *shim)
{
	const uint64_t bit = VNET_BIT_MASK(VU_F_PROTOCOL_FEATURES_BIT);
	const uint64_t features = get_u64(&shim->front.msg);
	unsigned int i;

	if ((features & ~bit) != shim->dev.features)
		for (i = 0; i < shim->queue_count; i++)
			if (shim->queue[i].state != SHIM_QUEUE_IDLE)
				return bad(shim, "queue %u is in use", i);
	if (shim_device_accept(shim, features & ~bit) < 0)
		return bad(shim, "not a part of the offer");
	shim->front.enable_needed = features & bit;
	return 0;
}

static int get_protocol_features(struct shim *shim)
{
	put_u64(&shim->front.msg, OUR_PROTOCOL_FEATURES);
	return 0;
}

static int set_protocol_features(struct shim *shim)
{
	const uint64_t features = get_u64(&shim->front.msg);

	if (features & ~OUR_PROTOCOL_FEATURES)
		return bad(shim, "%#" PRIx64 " was not offered",
			   (uint64_t)(features & ~OUR_PROTOCOL_FEATURES));
	shim->front.protocol_features = features;
	return 0;
}

static int get_queue_num(struct shim *shim)
{
	put_u64(&shim->front.msg, shim->queue_count);
	return 0;
}

/* ---- whole device ---- */

static int set_owner(struct shim *shim)
{
	(void)shim;
	return 0;
}

static int reset_device(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < shim->queue_count; i++)
		shim_queue_reset(&shim->queue[i]);
	shim_attach_reset(shim);
	shim_device_reset(shim);
	return 0;
}

static int set_status(struct shim *shim)
{
	const uint64_t status = get_u64(&shim->front.msg);

	if (status > UINT8_MAX)
		return bad(shim, "status %#" PRIx64, status);
	/* 0 is no sure sign of a reset: QEMU sends it on each stop. */
	shim->dev.status = status;
	return 0;
}

static int get_status(struct shim *shim)
{
	put_u64(&shim->front.msg, shim->dev.status);
	return 0;
}

/* Offset and length within config space, payload as long as they say. */
static int config_header(struct shim *shim, struct vu_config *c)
{
	const struct shim_vu_msg *msg = &shim->front.msg;

	memcpy(c, msg->payload, sizeof(*c));
	if (c->size > SHIM_CONFIG_SPACE || c->offset > SHIM_CONFIG_SPACE - c->size)
		return bad(shim, "offset %u, %u bytes", c->offset, c->size);
	if (msg->size != sizeof(*c) + c->size)
		return bad(shim, "%u bytes of payload for %u of config",
			   msg->size, c->size);
	return 0;
}

static int get_config(struct shim *shim)
{
	uint8_t config[SHIM_CONFIG_SPACE];
	struct vu_config c;

	if (config_header(shim, &c) < 0)
		return -EPROTO;
	shim_device_config(shim, config);
	memcpy(shim->front.msg.payload + sizeof(c), config + c.offset, c.size);
	return 0;
}

static int set_config(struct shim *shim)
{
	struct vu_config c;

	/* Nothing in it is the driver's to write. */
	return config_header(shim, &c);
}

static int set_backend_req_fd(struct shim *shim)
{
	struct shim_front *f = &shim->front;
	int fd = take_fd(f, 0);
	int flags = fcntl(fd, F_GETFL);

	if (f->req_fd >= 0)
		close(f->req_fd);
	f->req_fd = fd;
	/* a full pipe of the front end's must not stop us */
	if (flags >= 0)
		fcntl(fd, F_SETFL, flags | O_NONBLOCK);
	return 0;
}

/* ---- memory ---- */

static int set_mem_table(struct shim *shim)
{
	struct shim_front *f = &shim->front;
	struct vu_mem_table table = { 0 };
	unsigned int i;
	int ret = 0;

	memcpy(&table, f->msg.payload, f->msg.size);
	if (table.count > VU_MEM_REGIONS_MAX || table.count != f->nfds ||
	    f->msg.size < offsetof(struct vu_mem_table, region) +
				  table.count * sizeof(table.region[0]))
		return bad(shim, "%u regions, %u descriptors, %u bytes",
			   table.count, f->nfds, f->msg.size);
	/* before anything is unmapped nobody may look at it, the agent neither */
	shim_queues_pause(shim);
	guest_mem_clear(&shim->mem);
	for (i = 0; i < table.count && ret == 0; i++) {
		const struct vu_mem_region *r = &table.region[i];

		ret = guest_mem_add(&shim->mem, r->gpa, r->size, r->user_addr,
				    r->mmap_offset, take_fd(f, i));
		if (ret < 0)
			bad(shim, "region %u at %#" PRIx64 ", %#" PRIx64 " bytes: %s",
			    i, r->gpa, r->size, strerror(-ret));
	}
	if (ret < 0) {
		guest_mem_clear(&shim->mem);
		return 1;
	}
	return shim_queues_resume(shim) < 0 ? 1 : 0;
}

/* ---- queues ---- */

static int stopped(struct shim *shim, const struct shim_queue *q)
{
	if (q->state == SHIM_QUEUE_LOCAL || q->state == SHIM_QUEUE_AGENT)
		return bad(shim, "queue %u is running", q->index);
	return 0;
}

static int set_vring_num(struct shim *shim)
{
	uint32_t num;
	struct shim_queue *q = get_state(shim, &num);

	if (!q || stopped(shim, q) < 0)
		return -EPROTO;
	if (!num || num > VIRTQ_NUM_MAX || (num & (num - 1)))
		return bad(shim, "queue %u: size %u", q->index, num);
	q->num = num;
	return 0;
}

static int set_vring_base(struct shim *shim)
{
	uint32_t base;
	struct shim_queue *q = get_state(shim, &base);

	if (!q || stopped(shim, q) < 0)
		return -EPROTO;
	if (base > UINT16_MAX)
		return bad(shim, "queue %u: base %u", q->index, base);
	q->base = base;
	if (q->kind == SHIM_QUEUE_VTOE)
		shim_attach_base_set(q);
	return 0;
}

static int get_vring_base(struct shim *shim)
{
	struct vu_vring_state s;
	uint32_t unused;
	struct shim_queue *q = get_state(shim, &unused);

	if (!q)
		return -EPROTO;
	shim_queue_stop(q);
	/* the queue begins anew with a new kick descriptor */
	if (q->kick_fd >= 0)
		close(q->kick_fd);
	q->kick_fd = -1;
	s = (struct vu_vring_state){ .index = q->index, .num = q->base };
	memcpy(shim->front.msg.payload, &s, sizeof(s));
	shim->front.msg.size = sizeof(s);
	return 0;
}

static int set_vring_addr(struct shim *shim)
{
	struct vu_vring_addr a;
	struct shim_queue *q;

	memcpy(&a, shim->front.msg.payload, sizeof(a));
	q = get_queue(shim, a.index);
	if (!q)
		return -EPROTO;
	if (a.flags)
		return bad(shim, "flags %#x (logging was not offered)", a.flags);
	if (q->addr_set && q->desc_user == a.desc && q->avail_user == a.avail &&
	    q->used_user == a.used)
		return 0;
	if (stopped(shim, q) < 0)
		return -EPROTO;
	q->desc_user = a.desc;
	q->avail_user = a.avail;
	q->used_user = a.used;
	q->addr_set = true;
	return shim_queue_update(q) < 0 ? 1 : 0;
}

/* Queue and descriptor of SET_VRING_KICK, _CALL, _ERR; fd -1: none. */
static struct shim_queue *get_vring_fd(struct shim *shim, int *fd)
{
	struct shim_front *f = &shim->front;
	const uint64_t value = get_u64(&f->msg);
	const unsigned int want = value & VU_VRING_NOFD_MASK ? 0 : 1;
	struct shim_queue *q;

	if (value & ~(VU_VRING_INDEX_MASK | VU_VRING_NOFD_MASK)) {
		bad(shim, "value %#" PRIx64, value);
		return NULL;
	}
	q = get_queue(shim, value & VU_VRING_INDEX_MASK);
	if (!q)
		return NULL;
	if (f->nfds != want) {
		bad(shim, "%u descriptors, not %u", f->nfds, want);
		return NULL;
	}
	*fd = want ? take_fd(f, 0) : -1;
	return q;
}

static int set_vring_kick(struct shim *shim)
{
	struct shim_queue *q;
	int fd;

	q = get_vring_fd(shim, &fd);
	if (!q)
		return -EPROTO;
	if (fd < 0)
		return bad(shim, "queue %u: no descriptor; queues are not polled",
			   q->index);
	shim_queue_stop(q);
	if (q->kick_fd >= 0)
		close(q->kick_fd);
	q->kick_fd = fd;
	return shim_queue_update(q) < 0 ? 1 : 0;
}

static int set_vring_call(struct shim *shim)
{
	struct shim_queue *q;
	int fd;

	q = get_vring_fd(shim, &fd);
	if (!q)
		return -EPROTO;
	return shim_queue_set_call(q, fd) < 0 ? 1 : 0;
}

static int set_vring_err(struct shim *shim)
{
	struct shim_queue *q;
	int fd;

	q = get_vring_fd(shim, &fd);
	if (!q)
		return -EPROTO;
	if (fd >= 0)
		close(fd); /* what goes wrong is in the log */
	return 0;
}

static int set_vring_enable(struct shim *shim)
{
	uint32_t enable;
	struct shim_queue *q = get_state(shim, &enable);

	if (!q)
		return -EPROTO;
	if (enable > 1)
		return bad(shim, "queue %u: %u", q->index, enable);
	q->enabled = enable;
	return shim_queue_update(q) < 0 ? 1 : 0;
}

/* ---- the table ---- */

struct row {
	const char *name;
	int (*handle)(struct shim *shim);
	uint16_t size_min, size_max;
	uint8_t fds_min, fds_max;
	bool answers;	/* with a payload */
	int8_t feature; /* protocol feature that brings it; -1: none */
};

#define ROW(request, fn, min, max, fmin, fmax, ans, feat)            \
	[VU_##request] = { #request, fn, min, max, fmin, fmax, ans, feat }
#define U64 sizeof(uint64_t)
#define STATE sizeof(struct vu_vring_state)
#define CONFIG sizeof(struct vu_config)

static const struct row rows[] = {
	ROW(GET_FEATURES, get_features, 0, 0, 0, 0, true, -1),
	ROW(SET_FEATURES, set_features, U64, U64, 0, 0, false, -1),
	ROW(SET_OWNER, set_owner, 0, 0, 0, 0, false, -1),
	ROW(RESET_OWNER, reset_device, 0, 0, 0, 0, false, -1),
	ROW(SET_MEM_TABLE, set_mem_table, offsetof(struct vu_mem_table, region),
	    sizeof(struct vu_mem_table), 0, VU_MEM_REGIONS_MAX, false, -1),
	ROW(SET_VRING_NUM, set_vring_num, STATE, STATE, 0, 0, false, -1),
	ROW(SET_VRING_ADDR, set_vring_addr, sizeof(struct vu_vring_addr),
	    sizeof(struct vu_vring_addr), 0, 0, false, -1),
	ROW(SET_VRING_BASE, set_vring_base, STATE, STATE, 0, 0, false, -1),
	ROW(GET_VRING_BASE, get_vring_base, STATE, STATE, 0, 0, true, -1),
	ROW(SET_VRING_KICK, set_vring_kick, U64, U64, 0, 1, false, -1),
	ROW(SET_VRING_CALL, set_vring_call, U64, U64, 0, 1, false, -1),
	ROW(SET_VRING_ERR, set_vring_err, U64, U64, 0, 1, false, -1),
	ROW(GET_PROTOCOL_FEATURES, get_protocol_features, 0, 0, 0, 0, true, -1),
	ROW(SET_PROTOCOL_FEATURES, set_protocol_features, U64, U64, 0, 0, false,
	    -1),
	ROW(GET_QUEUE_NUM, get_queue_num, 0, 0, 0, 0, true,
	    VU_PROTOCOL_F_MQ_BIT),
	ROW(SET_VRING_ENABLE, set_vring_enable, STATE, STATE, 0, 0, false, -1),
	ROW(SET_BACKEND_REQ_FD, set_backend_req_fd, 0, 0, 1, 1, false,
	    VU_PROTOCOL_F_BACKEND_REQ_BIT),
	ROW(GET_CONFIG, get_config, CONFIG, CONFIG + SHIM_CONFIG_SPACE, 0, 0,
	    true, VU_PROTOCOL_F_CONFIG_BIT),
	ROW(SET_CONFIG, set_config, CONFIG, CONFIG + SHIM_CONFIG_SPACE, 0, 0,
	    false, VU_PROTOCOL_F_CONFIG_BIT),
	ROW(RESET_DEVICE, reset_device, 0, 0, 0, 0, false,
	    VU_PROTOCOL_F_RESET_DEVICE_BIT),
	ROW(SET_STATUS, set_status, U64, U64, 0, 0, false,
	    VU_PROTOCOL_F_STATUS_BIT),
	ROW(GET_STATUS, get_status, 0, 0, 0, 0, true, VU_PROTOCOL_F_STATUS_BIT),
};
_Static_assert(CONFIG + SHIM_CONFIG_SPACE <= SHIM_VU_PAYLOAD_MAX &&
		       sizeof(struct vu_mem_table) <= SHIM_VU_PAYLOAD_MAX,
	       "payloads fit");

static const struct row *find_row(uint32_t request)
{
	if (request >= sizeof(rows) / sizeof(rows[0]) || !rows[request].handle)
		return NULL;
	return &rows[request];
}

static const char *request_name(uint32_t request)
{
	const struct row *row = find_row(request);

	return row ? row->name : "message";
}

/* ---- the session ---- */

static void end_session(struct shim_front *f)
{
	struct shim *shim = f->shim;

	reset_device(shim);
	guest_mem_clear(&shim->mem);
	loop_remove_fd(f->source);
	f->source = NULL;
	close(f->fd);
	f->fd = -1;
	if (f->req_fd >= 0)
		close(f->req_fd);
	f->req_fd = -1;
	close_fds(f->fds, f->nfds);
	f->nfds = 0;
	f->have = 0;
	f->protocol_features = 0;
	f->enable_needed = false;
	f->config_pending = false;
	loop_timer_disarm(f->req_timer);
	if (f->listen_source)
		loop_set_events(f->listen_source, EPOLLIN);
}

static int send_answer(struct shim_front *f)
{
	struct shim_vu_msg *msg = &f->msg;

	msg->flags = VU_VERSION | VU_FLAG_REPLY;
	return unix_send_fds(f->fd, msg, HDR_LEN + msg->size, NULL, 0);
}

/* 0, or -EPROTO: the session must end. */
static int check(struct shim *shim, const struct row *row)
{
	const struct shim_front *f = &shim->front;
	const struct shim_vu_msg *msg = &f->msg;

	if (!row)
		return bad(shim, "unknown request %u", msg->request);
	if ((msg->flags & ~VU_FLAG_NEED_REPLY) != VU_VERSION)
		return bad(shim, "flags %#x", msg->flags);
	if (row->feature >= 0 && !negotiated(f, row->feature))
		return bad(shim, "its protocol feature (%d) was not negotiated",
			   row->feature);
	if (msg->size < row->size_min || msg->size > row->size_max)
		return bad(shim, "payload of %u bytes", msg->size);
	if (f->nfds < row->fds_min || f->nfds > row->fds_max)
		return bad(shim, "%u descriptors", f->nfds);
	return 0;
}

static int handle(struct shim *shim)
{
	struct shim_front *f = &shim->front;
	const struct row *row = find_row(f->msg.request);
	bool wants_ack;
	int ret;

	ret = check(shim, row);
	if (ret < 0)
		return ret;
	log_debug("vm %s: front end: %s, %u bytes, %u descriptors",
		  shim->conf->vm, row->name, f->msg.size, f->nfds);
	ret = row->handle(shim);
	if (ret < 0)
		return ret;
	wants_ack = (f->msg.flags & VU_FLAG_NEED_REPLY) &&
		    negotiated(f, VU_PROTOCOL_F_REPLY_ACK_BIT);
	if (!row->answers) {
		if (!wants_ack)
			return ret ? -EPROTO : 0;
		put_u64(&f->msg, ret);
	}
	ret = send_answer(f);
	if (ret < 0)
		return bad(shim, "answering: %s", strerror(-ret));
	return 0;
}

/* Collects more of the message. 1: it is whole; 0: not yet; -errno; -EPIPE: the
 * front end has gone. */
static int collect(struct shim_front *f)
{
	uint8_t *const bytes = (uint8_t *)&f->msg;
	int fds[UNIX_FDS_MAX];
	unsigned int nfds;
	uint32_t want = HDR_LEN;
	ssize_t n;

	if (f->have >= HDR_LEN)
		want += f->msg.size;
	n = unix_recv_fds(f->fd, bytes + f->have, want - f->have, fds, &nfds, 0);
	if (n <= 0)
		return n == -EAGAIN ? 0 : n == 0 ? -EPIPE : (int)n;
	if (f->nfds + nfds > UNIX_FDS_MAX) {
		close_fds(fds, nfds);
		return -EPROTO;
	}
	memcpy(f->fds + f->nfds, fds, nfds * sizeof(fds[0]));
	f->nfds += nfds;
	f->have += n;
	if (f->have < want)
		return 0;
	if (want == HDR_LEN && f->msg.size > SHIM_VU_PAYLOAD_MAX)
		return bad(f->shim, "payload of %u bytes", f->msg.size);
	return f->have == HDR_LEN + f->msg.size;
}

static void readable(int fd, uint32_t events, void *ctx)
{
	struct shim_front *f = ctx;
	struct shim *shim = f->shim;
	unsigned int budget = MESSAGES_PER_RUN;
	int ret;

	(void)fd;
	(void)events;
	while (budget--) {
		const uint32_t before = f->have;

		ret = collect(f);
		if (ret == 0 && f->have != before)
			continue;
		if (ret == 0)
			return;
		if (ret > 0) {
			ret = handle(shim);
			close_fds(f->fds, f->nfds);
			f->nfds = 0;
			f->have = 0;
		}
		if (ret >= 0)
			continue;
		if (ret == -EPIPE) {
			log_info("vm %s: front end has gone", shim->conf->vm);
		} else {
			shim->stats.front_errors++;
			log_warn("vm %s: session with the front end ends: %s",
				 shim->conf->vm, strerror(-ret));
		}
		end_session(f);
		return;
	}
}

static void connecting(int fd, uint32_t events, void *ctx)
{
	struct shim_front *f = ctx;
	struct shim *shim = f->shim;
	int sock;

	(void)events;
	sock = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (sock < 0)
		return;
	f->source = loop_add_fd(shim->loop, sock, EPOLLIN, readable, f);
	if (!f->source) {
		close(sock);
		return;
	}
	f->fd = sock;
	shim->stats.front_sessions++;
	log_info("vm %s: front end has come", shim->conf->vm);
	/* the next one waits until this one has gone */
	loop_set_events(f->listen_source, 0);
}

/* ---- to the front end ---- */

static void tell_config_changed(void *ctx)
{
	struct shim_front *f = ctx;
	const struct {
		uint32_t request, flags, size;
	} msg = { VU_BACKEND_CONFIG_CHANGE_MSG, VU_VERSION, 0 };
	ssize_t n;

	if (f->req_fd < 0 || !f->config_pending)
		return;
	n = write(f->req_fd, &msg, sizeof(msg));
	if (n < 0 && errno == EAGAIN) {
		loop_timer_arm(f->req_timer, CONFIG_RETRY_MS);
		return;
	}
	f->config_pending = false;
	if (n == (ssize_t)sizeof(msg))
		return;
	/* a part of a message, or nobody there: of no use any more */
	log_warn("vm %s: front end: request channel: %s", f->shim->conf->vm,
		 n < 0 ? strerror(errno) : "short write");
	close(f->req_fd);
	f->req_fd = -1;
}

void shim_front_config_changed(struct shim_front *front)
{
	front->config_pending = true;
	tell_config_changed(front);
}

/* ---- start and end ---- */

int shim_front_init(struct shim *shim)
{
	struct shim_front *f = &shim->front;
	int ret;

	f->shim = shim;
	f->fd = -1;
	f->req_fd = -1;
	f->listen_fd = unix_listen(shim->conf->front, SOCK_STREAM);
	if (f->listen_fd < 0) {
		ret = f->listen_fd;
		goto fail;
	}
	f->req_timer = loop_timer_create(shim->loop, tell_config_changed, f);
	f->listen_source = loop_add_fd(shim->loop, f->listen_fd, EPOLLIN,
				       connecting, f);
	ret = -ENOMEM;
	if (f->req_timer && f->listen_source)
		return 0;
fail:
	log_err("vm %s: %s: %s", shim->conf->vm, shim->conf->front,
		strerror(-ret));
	return ret;
}

void shim_front_destroy(struct shim *shim)
{
	struct shim_front *f = &shim->front;

	loop_remove_fd(f->listen_source);
	f->listen_source = NULL;
	if (f->fd >= 0)
		end_session(f);
	loop_timer_destroy(f->req_timer);
	if (f->listen_fd < 0)
		return;
	close(f->listen_fd);
	unlink(shim->conf->front);
}
