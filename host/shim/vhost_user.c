// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The back end of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst).
 *
 * Theory of operation. A message that has come whole (front.c) is looked up in
 * the table of vu_requests.c, which has for each request the lengths and the
 * number of descriptors that it may have and what must have been negotiated;
 * then its handler runs.
 *
 * Front ends differ:
 *  - user-mode Linux (virtio_uml) sends SET_MEM_TABLE with room for two regions
 *    whatever it has; takes queues out of use with SET_VRING_ENABLE 0 alone;
 *    its call descriptors are sockets; reads config space from 0 on; it asks
 *    for an answer even to SET_PROTOCOL_FEATURES;
 *  - QEMU keeps the control queue of its virtio-net to itself, and repeats
 *    SET_VRING_CALL when the guest moves interrupts.
 *
 * Migration. While LOG_ALL is among the features, all that is written to guest
 * memory is marked in the front end's log (dirty_log.h). The virtqueues do that,
 * and this process must be the only one that serves them: it takes the VTOE
 * queues back from the agent, which has no log, and lends them again when LOG_ALL
 * has gone. Offloaded connections end with that, at the beginning of a migration
 * and not at its end, where they cannot live on another host's agent anyway. A
 * queue does not run with LOG_ALL but without a log. SEND_RARP is not offered:
 * nobody on the overlay learns from a frame where a station is.
 *
 * Threat model. The front end belongs to the guest's side: a VMM that its guest
 * has taken over may send anything. Lengths and counts are checked before a
 * handler sees them, queue indices pass one gate, addresses are only used
 * through guest_mem.h. Whatever is malformed ends the session, with a line in
 * the log. Answers are small and never waited for.
 */
#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "log.h"
#include "shim.h"
#include "vhost_user_proto.h"
#include "vu_requests.h"

#define HDR_LEN offsetof(struct shim_vu_msg, payload)
#define CONFIG_RETRY_MS 10

static bool negotiated(const struct shim_vu *vu, unsigned int bit)
{
	return vu->protocol_features & VNET_BIT_MASK(bit);
}

/* ---- messages ---- */

static int send_answer(struct shim *shim)
{
	struct shim_vu_msg *msg = &shim->vu.msg;

	msg->flags = VU_VERSION | VU_FLAG_REPLY;
	return unix_send_fds(shim->front.fd, msg, HDR_LEN + msg->size, NULL, 0);
}

/* 0, or -EPROTO: the session must end. */
static int check(struct shim *shim, const struct shim_vu_row *row)
{
	const struct shim_vu_msg *msg = &shim->vu.msg;
	const unsigned int nfds = shim->front.nfds;

	if (!row)
		return shim_vu_bad(shim, "unknown request %u", msg->request);
	if ((msg->flags & ~VU_FLAG_NEED_REPLY) != VU_VERSION)
		return shim_vu_bad(shim, "flags %#x", msg->flags);
	if (row->feature >= 0 && !negotiated(&shim->vu, row->feature))
		return shim_vu_bad(shim, "its protocol feature (%d) was not negotiated",
			   row->feature);
	if (msg->size < row->size_min || msg->size > row->size_max)
		return shim_vu_bad(shim, "payload of %u bytes", msg->size);
	if (nfds < row->fds_min || nfds > row->fds_max)
		return shim_vu_bad(shim, "%u descriptors", nfds);
	return 0;
}

static uint32_t msg_len(struct shim *shim)
{
	const uint32_t size = shim->vu.msg.size;

	if (size <= SHIM_VU_PAYLOAD_MAX)
		return HDR_LEN + size;
	shim_vu_bad(shim, "payload of %u bytes", size);
	return 0;
}

static int handle(struct shim *shim)
{
	struct shim_vu *vu = &shim->vu;
	const struct shim_vu_row *row = shim_vu_find(vu->msg.request);
	bool wants_ack;
	int ret;

	ret = check(shim, row);
	if (ret < 0)
		return ret;
	log_debug("vm %s: front end: %s, %u bytes, %u descriptors",
		  shim->conf->vm, row->name, vu->msg.size, shim->front.nfds);
	ret = row->handle(shim);
	if (ret < 0)
		return ret;
	wants_ack = (vu->msg.flags & VU_FLAG_NEED_REPLY) &&
		    negotiated(vu, VU_PROTOCOL_F_REPLY_ACK_BIT);
	if (!row->answers) {
		if (!wants_ack)
			return ret ? -EPROTO : 0;
		memcpy(vu->msg.payload, &(uint64_t){ ret }, sizeof(uint64_t));
		vu->msg.size = sizeof(uint64_t);
	}
	ret = send_answer(shim);
	if (ret < 0)
		return shim_vu_bad(shim, "answering: %s", strerror(-ret));
	return 0;
}

/* ---- to the front end ---- */

static void tell_config_changed(void *ctx)
{
	struct shim *shim = ctx;
	struct shim_vu *vu = &shim->vu;
	const struct {
		uint32_t request, flags, size;
	} msg = { VU_BACKEND_CONFIG_CHANGE_MSG, VU_VERSION, 0 };
	ssize_t n;

	if (vu->req_fd < 0 || !vu->config_pending)
		return;
	n = write(vu->req_fd, &msg, sizeof(msg));
	if (n < 0 && errno == EAGAIN) {
		loop_timer_arm(vu->req_timer, CONFIG_RETRY_MS);
		return;
	}
	vu->config_pending = false;
	if (n == (ssize_t)sizeof(msg))
		return;
	/* a part of a message, or nobody there: of no use any more */
	log_warn("vm %s: front end: request channel: %s", shim->conf->vm,
		 n < 0 ? strerror(errno) : "short write");
	close(vu->req_fd);
	vu->req_fd = -1;
}

static void config_changed(struct shim *shim)
{
	shim->vu.config_pending = true;
	tell_config_changed(shim);
}

/* ---- the session ---- */

static int begin(struct shim *shim)
{
	(void)shim;
	return 0;
}

static void end(struct shim *shim)
{
	struct shim_vu *vu = &shim->vu;

	shim_device_reset_all(shim);
	dirty_log_clear(&shim->log);
	shim->log.on = false;
	if (vu->req_fd >= 0)
		close(vu->req_fd);
	vu->req_fd = -1;
	vu->protocol_features = 0;
	vu->enable_needed = false;
	vu->config_pending = false;
	loop_timer_disarm(vu->req_timer);
}

static int init(struct shim *shim)
{
	struct shim_vu *vu = &shim->vu;

	shim->front.msg = &vu->msg;
	dirty_log_init(&shim->log);
	vu->req_fd = -1;
	vu->req_timer = loop_timer_create(shim->loop, tell_config_changed, shim);
	return vu->req_timer ? 0 : -ENOMEM;
}

static void destroy(struct shim *shim)
{
	loop_timer_destroy(shim->vu.req_timer);
}

/* ---- queues ---- */

static bool may_run(const struct shim_queue *q)
{
	return (q->enabled || !q->shim->vu.enable_needed) &&
	       !dirty_log_missing(&q->shim->log);
}

/* The protocol has no message for it; the log has a line. */
static void queue_broken(struct shim_queue *q)
{
	(void)q;
}

static uint64_t to_gpa(const struct shim *shim, uint64_t addr, uint64_t len)
{
	return guest_mem_user_to_gpa(&shim->mem, addr, len);
}

const struct shim_front_ops shim_vhost_user_ops = {
	.name = "vhost-user",
	.hdr_len = HDR_LEN,
	.init = init,
	.destroy = destroy,
	.begin = begin,
	.end = end,
	.msg_len = msg_len,
	.handle = handle,
	.config_changed = config_changed,
	.queue_broken = queue_broken,
	.may_run = may_run,
	.to_gpa = to_gpa,
};
