// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The back end of the vhost-user protocol (QEMU's docs/interop/vhost-user.rst).
 *
 * Theory of operation. A message is a header and a payload on a stream socket,
 * descriptors ride with its first byte. It is collected without blocking, then
 * looked up in the table of vu_requests.c, which has for each request the
 * lengths and the number of descriptors that it may have and what must have
 * been negotiated; then its handler runs.
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
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "shim.h"
#include "vhost_user_proto.h"
#include "vu_requests.h"

#define HDR_LEN offsetof(struct shim_vu_msg, payload)
#define MESSAGES_PER_RUN 64
#define CONFIG_RETRY_MS 10

static bool negotiated(const struct shim_front *f, unsigned int bit)
{
	return f->protocol_features & VNET_BIT_MASK(bit);
}

/* ---- the session ---- */

static void end_session(struct shim_front *f)
{
	struct shim *shim = f->shim;

	shim_vu_reset_device(shim);
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
static int check(struct shim *shim, const struct shim_vu_row *row)
{
	const struct shim_front *f = &shim->front;
	const struct shim_vu_msg *msg = &f->msg;

	if (!row)
		return shim_vu_bad(shim, "unknown request %u", msg->request);
	if ((msg->flags & ~VU_FLAG_NEED_REPLY) != VU_VERSION)
		return shim_vu_bad(shim, "flags %#x", msg->flags);
	if (row->feature >= 0 && !negotiated(f, row->feature))
		return shim_vu_bad(shim, "its protocol feature (%d) was not negotiated",
			   row->feature);
	if (msg->size < row->size_min || msg->size > row->size_max)
		return shim_vu_bad(shim, "payload of %u bytes", msg->size);
	if (f->nfds < row->fds_min || f->nfds > row->fds_max)
		return shim_vu_bad(shim, "%u descriptors", f->nfds);
	return 0;
}

static int handle(struct shim *shim)
{
	struct shim_front *f = &shim->front;
	const struct shim_vu_row *row = shim_vu_find(f->msg.request);
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
		memcpy(f->msg.payload, &(uint64_t){ ret }, sizeof(uint64_t));
		f->msg.size = sizeof(uint64_t);
	}
	ret = send_answer(f);
	if (ret < 0)
		return shim_vu_bad(shim, "answering: %s", strerror(-ret));
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
		return shim_vu_bad(f->shim, "payload of %u bytes", f->msg.size);
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
