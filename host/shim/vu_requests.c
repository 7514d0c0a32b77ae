// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The requests of the vhost-user protocol: a handler each, and the table that
 * says what each may look like. How messages come and go: vhost_user.c, where
 * the threat model stands.
 *
 * A handler finds lengths and number of descriptors checked. It returns 0
 * (done), 1 (could not be done: the front end is told so, if it asked for an
 * answer, or else the session ends) or -EPROTO (the session ends).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "shim.h"
#include "vhost_user_proto.h"
#include "vu_requests.h"

#define OUR_PROTOCOL_FEATURES                                              \
	(VNET_BIT_MASK(VU_PROTOCOL_F_MQ_BIT) |                             \
	 VNET_BIT_MASK(VU_PROTOCOL_F_LOG_SHMFD_BIT) |                      \
	 VNET_BIT_MASK(VU_PROTOCOL_F_REPLY_ACK_BIT) |                      \
	 VNET_BIT_MASK(VU_PROTOCOL_F_BACKEND_REQ_BIT) |                    \
	 VNET_BIT_MASK(VU_PROTOCOL_F_CONFIG_BIT) |                         \
	 VNET_BIT_MASK(VU_PROTOCOL_F_RESET_DEVICE_BIT) |                   \
	 VNET_BIT_MASK(VU_PROTOCOL_F_STATUS_BIT))

int shim_vu_bad(const struct shim *shim, const char *fmt, ...)
{
	const struct shim_vu_row *row = shim_vu_find(shim->vu.msg.request);
	char text[160];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	log_warn("vm %s: front end: %s: %s", shim->conf->vm,
		 row ? row->name : "message", text);
	return -EPROTO;
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
		shim_vu_bad(shim, "queue %u of %u", index, shim->queue_count);
	return q;
}

static struct shim_queue *get_state(struct shim *shim, uint32_t *num)
{
	struct vu_vring_state s;

	memcpy(&s, shim->vu.msg.payload, sizeof(s));
	*num = s.num;
	return get_queue(shim, s.index);
}

/* ---- features ---- */

static int get_features(struct shim *shim)
{
	shim->dev.offered = shim_device_offer(shim);
	put_u64(&shim->vu.msg, shim->dev.offered |
					  VNET_BIT_MASK(VU_F_LOG_ALL_BIT) |
					  VNET_BIT_MASK(VU_F_PROTOCOL_FEATURES_BIT));
	return 0;
}

/*
 * QEMU's virtio-net keeps the control queue to itself: how many pairs the
 * driver uses shows only in the queues that are enabled.
 */
static void count_pairs(struct shim *shim)
{
	unsigned int n = 0;

	if (shim_device_has(&shim->dev, VIRTIO_NET_F_CTRL_VQ))
		return;
	while (shim_device_has(&shim->dev, VIRTIO_NET_F_MQ) &&
	       n < shim_config_net_pairs(shim->conf) &&
	       shim->queue[2 * n].enabled)
		n++;
	shim->dev.active_pairs = n ? n : 1;
}

/*
 * A front end that starts to migrate gives the log first; one that goes on with
 * a migration after a stop gives it later, and its queues wait for it.
 */
static int set_logging(struct shim *shim, bool on)
{
	if (shim->log.on == on)
		return 0;
	log_info("vm %s: log of written pages %s", shim->conf->vm,
		 on ? "on" : "off");
	shim->log.on = on;
	if (!on) {
		dirty_log_clear(&shim->log);
		/* those that waited for one */
		return shim_queues_resume(shim) < 0 ? 1 : 0;
	}
	if (dirty_log_missing(&shim->log))
		shim_queues_pause(shim);
	shim_attach_log_started(shim);
	return 0;
}

static int set_features(struct shim *shim)
{
	const uint64_t bit = VNET_BIT_MASK(VU_F_PROTOCOL_FEATURES_BIT);
	const uint64_t log = VNET_BIT_MASK(VU_F_LOG_ALL_BIT);
	const bool logging = get_u64(&shim->vu.msg) & log;
	const uint64_t features = get_u64(&shim->vu.msg) & ~log;
	unsigned int i;

	if ((features & ~bit) != shim->dev.features)
		for (i = 0; i < shim->queue_count; i++)
			if (shim->queue[i].state != SHIM_QUEUE_IDLE)
				return shim_vu_bad(shim, "queue %u is in use", i);
	if (shim_device_accept(shim, features & ~bit) < 0)
		return shim_vu_bad(shim, "not a part of the offer");
	shim->vu.enable_needed = features & bit;
	count_pairs(shim);
	shim_attach_features_set(shim);
	return set_logging(shim, logging);
}

static int get_protocol_features(struct shim *shim)
{
	put_u64(&shim->vu.msg, OUR_PROTOCOL_FEATURES);
	return 0;
}

static int set_protocol_features(struct shim *shim)
{
	const uint64_t features = get_u64(&shim->vu.msg);

	if (features & ~OUR_PROTOCOL_FEATURES)
		return shim_vu_bad(shim, "%#" PRIx64 " was not offered",
			   (uint64_t)(features & ~OUR_PROTOCOL_FEATURES));
	shim->vu.protocol_features = features;
	return 0;
}

/*
 * A front end that does not read config space has a network device of its own,
 * and takes this for the number of pairs (QEMU's virtio-net does).
 */
static int get_queue_num(struct shim *shim)
{
	const bool generic = shim->vu.protocol_features &
			     VNET_BIT_MASK(VU_PROTOCOL_F_CONFIG_BIT);

	put_u64(&shim->vu.msg,
		generic ? shim->queue_count : shim_config_net_pairs(shim->conf));
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
	shim_device_reset_all(shim);
	return 0;
}

static int set_status(struct shim *shim)
{
	const uint64_t status = get_u64(&shim->vu.msg);

	if (status > UINT8_MAX)
		return shim_vu_bad(shim, "status %#" PRIx64, status);
	/* 0 is no sure sign of a reset: QEMU sends it on each stop. */
	shim->dev.status = status;
	return 0;
}

static int get_status(struct shim *shim)
{
	put_u64(&shim->vu.msg, shim->dev.status);
	return 0;
}

/* Offset and length within config space, payload as long as they say. */
static int config_header(struct shim *shim, struct vu_config *c)
{
	const struct shim_vu_msg *msg = &shim->vu.msg;

	memcpy(c, msg->payload, sizeof(*c));
	if (c->size > SHIM_CONFIG_SPACE || c->offset > SHIM_CONFIG_SPACE - c->size)
		return shim_vu_bad(shim, "offset %u, %u bytes", c->offset, c->size);
	if (msg->size != sizeof(*c) + c->size)
		return shim_vu_bad(shim, "%u bytes of payload for %u of config",
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
	memcpy(shim->vu.msg.payload + sizeof(c), config + c.offset, c.size);
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
	int fd = shim_front_take_fd(&shim->front, 0);
	int flags = fcntl(fd, F_GETFL);

	if (shim->vu.req_fd >= 0)
		close(shim->vu.req_fd);
	shim->vu.req_fd = fd;
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

	memcpy(&table, shim->vu.msg.payload, shim->vu.msg.size);
	if (table.count > VU_MEM_REGIONS_MAX || table.count != f->nfds ||
	    shim->vu.msg.size < offsetof(struct vu_mem_table, region) +
				  table.count * sizeof(table.region[0]))
		return shim_vu_bad(shim, "%u regions, %u descriptors, %u bytes",
			   table.count, f->nfds, shim->vu.msg.size);
	/* before anything is unmapped nobody may look at it, the agent neither */
	shim_queues_pause(shim);
	guest_mem_clear(&shim->mem);
	for (i = 0; i < table.count && ret == 0; i++) {
		const struct vu_mem_region *r = &table.region[i];

		ret = guest_mem_add(&shim->mem, r->gpa, r->size, r->user_addr,
				    r->mmap_offset, shim_front_take_fd(f, i));
		if (ret < 0)
			shim_vu_bad(shim, "region %u at %#" PRIx64 ", %#" PRIx64 " bytes: %s",
			    i, r->gpa, r->size, strerror(-ret));
	}
	if (ret < 0) {
		guest_mem_clear(&shim->mem);
		return 1;
	}
	return shim_queues_resume(shim) < 0 ? 1 : 0;
}

/* Answered when the log before is not touched any more. */
static int set_log_base(struct shim *shim)
{
	struct vu_log l;
	int ret;

	memcpy(&l, shim->vu.msg.payload, sizeof(l));
	ret = dirty_log_set(&shim->log, l.mmap_size, l.mmap_offset,
			    shim_front_take_fd(&shim->front, 0));
	if (ret < 0)
		return shim_vu_bad(shim, "%#" PRIx64 " bytes at %#" PRIx64 ": %s",
				   l.mmap_size, l.mmap_offset, strerror(-ret));
	put_u64(&shim->vu.msg, 0);
	if (shim->log.on && shim_queues_resume(shim) < 0)
		return -EPROTO;
	return 0;
}

/* It may be told of marks. Those that there are look by themselves. */
static int set_log_fd(struct shim *shim)
{
	close(shim_front_take_fd(&shim->front, 0));
	return 0;
}

/* ---- queues ---- */

static int stopped(struct shim *shim, const struct shim_queue *q)
{
	if (q->state == SHIM_QUEUE_LOCAL || q->state == SHIM_QUEUE_AGENT)
		return shim_vu_bad(shim, "queue %u is running", q->index);
	return 0;
}

static int set_vring_num(struct shim *shim)
{
	uint32_t num;
	struct shim_queue *q = get_state(shim, &num);

	if (!q || stopped(shim, q) < 0)
		return -EPROTO;
	if (!num || num > VIRTQ_NUM_MAX || (num & (num - 1)))
		return shim_vu_bad(shim, "queue %u: size %u", q->index, num);
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
		return shim_vu_bad(shim, "queue %u: base %u", q->index, base);
	shim_hello_base_set(q, base);
	q->base = base;
	if (q->kind == SHIM_QUEUE_VTOE)
		shim_attach_base_set(q);
	return 0;
}

/* A device that has stopped gets a new log before it goes on: the front end
 * gives the old one up without a word. */
static void forget_log(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < shim->queue_count; i++)
		if (shim->queue[i].state != SHIM_QUEUE_IDLE)
			return;
	dirty_log_clear(&shim->log);
}

static int get_vring_base(struct shim *shim)
{
	struct vu_vring_state s;
	uint32_t unused;
	struct shim_queue *q = get_state(shim, &unused);

	if (!q)
		return -EPROTO;
	shim_queue_stop(q);
	q->base_told = true;
	/* the queue begins anew with a new kick descriptor */
	if (q->kick_fd >= 0)
		close(q->kick_fd);
	q->kick_fd = -1;
	forget_log(shim);
	s = (struct vu_vring_state){ .index = q->index, .num = q->base };
	memcpy(shim->vu.msg.payload, &s, sizeof(s));
	shim->vu.msg.size = sizeof(s);
	return 0;
}

static int set_vring_addr(struct shim *shim)
{
	struct vu_vring_addr a;
	struct shim_queue *q;

	memcpy(&a, shim->vu.msg.payload, sizeof(a));
	q = get_queue(shim, a.index);
	if (!q)
		return -EPROTO;
	/* with LOG_ALL the used ring is logged where it is, whatever a.log says */
	if (a.flags & ~VU_VRING_F_LOG)
		return shim_vu_bad(shim, "flags %#x", a.flags);
	if (q->addr_set && q->desc_addr == a.desc && q->avail_addr == a.avail &&
	    q->used_addr == a.used)
		return 0;
	if (stopped(shim, q) < 0)
		return -EPROTO;
	q->desc_addr = a.desc;
	q->avail_addr = a.avail;
	q->used_addr = a.used;
	q->addr_set = true;
	return shim_queue_update(q) < 0 ? 1 : 0;
}

/* Queue and descriptor of SET_VRING_KICK, _CALL, _ERR; fd -1: none. */
static struct shim_queue *get_vring_fd(struct shim *shim, int *fd)
{
	struct shim_front *f = &shim->front;
	const uint64_t value = get_u64(&shim->vu.msg);
	const unsigned int want = value & VU_VRING_NOFD_MASK ? 0 : 1;
	struct shim_queue *q;

	if (value & ~(VU_VRING_INDEX_MASK | VU_VRING_NOFD_MASK)) {
		shim_vu_bad(shim, "value %#" PRIx64, value);
		return NULL;
	}
	q = get_queue(shim, value & VU_VRING_INDEX_MASK);
	if (!q)
		return NULL;
	if (f->nfds != want) {
		shim_vu_bad(shim, "%u descriptors, not %u", f->nfds, want);
		return NULL;
	}
	*fd = want ? shim_front_take_fd(f, 0) : -1;
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
		return shim_vu_bad(shim, "queue %u: no descriptor; queues are not polled",
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
		return shim_vu_bad(shim, "queue %u: %u", q->index, enable);
	q->enabled = enable;
	count_pairs(shim);
	return shim_queue_update(q) < 0 ? 1 : 0;
}

/* ---- the table ---- */

#define ROW(request, fn, min, max, fmin, fmax, ans, feat)            \
	[VU_##request] = { #request, fn, min, max, fmin, fmax, ans, feat }
#define U64 sizeof(uint64_t)
#define STATE sizeof(struct vu_vring_state)
#define CONFIG sizeof(struct vu_config)

static const struct shim_vu_row rows[] = {
	ROW(GET_FEATURES, get_features, 0, 0, 0, 0, true, -1),
	ROW(SET_FEATURES, set_features, U64, U64, 0, 0, false, -1),
	ROW(SET_OWNER, set_owner, 0, 0, 0, 0, false, -1),
	ROW(RESET_OWNER, reset_device, 0, 0, 0, 0, false, -1),
	ROW(SET_MEM_TABLE, set_mem_table, offsetof(struct vu_mem_table, region),
	    sizeof(struct vu_mem_table), 0, VU_MEM_REGIONS_MAX, false, -1),
	ROW(SET_LOG_BASE, set_log_base, sizeof(struct vu_log),
	    sizeof(struct vu_log), 1, 1, true, VU_PROTOCOL_F_LOG_SHMFD_BIT),
	ROW(SET_LOG_FD, set_log_fd, 0, U64, 1, 1, false,
	    VU_PROTOCOL_F_LOG_SHMFD_BIT),
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

const struct shim_vu_row *shim_vu_find(uint32_t request)
{
	if (request >= sizeof(rows) / sizeof(rows[0]) || !rows[request].handle)
		return NULL;
	return &rows[request];
}
