// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The front door (front.h): listening, the session, collecting messages.
 *
 * Both protocols put a header and a payload on a stream socket; descriptors ride
 * with the first byte. A message is collected without blocking, in as many reads
 * as it takes, and handled when it is whole. A session ends when the front end
 * goes or when a handler says so; the shim then listens again. While there is
 * one the next front end waits in the backlog.
 *
 * Threat model: see the protocols. Here: a header says how long its message is,
 * the protocol bounds that before anything is read into the buffer; descriptors
 * that nobody took are closed in one place.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "shim.h"

#define MESSAGES_PER_RUN 64

static void next_message(struct shim_front *f)
{
	close_fds(f->fds, f->nfds);
	f->nfds = 0;
	f->have = 0;
	f->want = f->ops->hdr_len;
}

static void end_session(struct shim_front *f)
{
	f->ops->end(f->shim);
	guest_mem_clear(&f->shim->mem);
	loop_remove_fd(f->source);
	f->source = NULL;
	close(f->fd);
	f->fd = -1;
	next_message(f);
	if (f->listen_source)
		loop_set_events(f->listen_source, EPOLLIN);
}

/* Collects more of the message. 1: it is whole; 0: not yet; -errno; -EPIPE: the
 * front end has gone. */
static int collect(struct shim_front *f)
{
	int fds[UNIX_FDS_MAX];
	unsigned int nfds;
	ssize_t n;

	n = unix_recv_fds(f->fd, (uint8_t *)f->msg + f->have, f->want - f->have,
			  fds, &nfds, 0);
	if (n <= 0)
		return n == -EAGAIN ? 0 : n == 0 ? -EPIPE : (int)n;
	if (f->nfds + nfds > UNIX_FDS_MAX) {
		close_fds(fds, nfds);
		return -EPROTO;
	}
	memcpy(f->fds + f->nfds, fds, nfds * sizeof(fds[0]));
	f->nfds += nfds;
	f->have += n;
	if (f->have == f->ops->hdr_len) {
		f->want = f->ops->msg_len(f->shim);
		if (!f->want)
			return -EPROTO;
	}
	return f->have == f->want;
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
			ret = f->ops->handle(shim);
			next_message(f);
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
	int ret, sock;

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
	/* the next one waits until this one has gone */
	loop_set_events(f->listen_source, 0);
	ret = f->ops->begin(shim);
	if (ret < 0) {
		log_err("vm %s: no session with the front end: %s",
			shim->conf->vm, strerror(-ret));
		end_session(f);
		return;
	}
	shim->stats.front_sessions++;
	log_info("vm %s: front end has come", shim->conf->vm);
}

int shim_front_take_fd(struct shim_front *front, unsigned int i)
{
	int fd = front->fds[i];

	front->fds[i] = -1;
	return fd;
}

int shim_front_init(struct shim *shim)
{
	struct shim_front *f = &shim->front;
	int ret;

	f->shim = shim;
	f->fd = -1;
	f->ops = shim->conf->front_kind == SHIM_FRONT_VFIO_USER ?
			 &shim_vfio_user_ops :
			 &shim_vhost_user_ops;
	f->want = f->ops->hdr_len;
	ret = f->ops->init(shim);
	if (ret < 0)
		goto fail;
	f->listen_fd = unix_listen(shim->conf->front, SOCK_STREAM);
	if (f->listen_fd < 0) {
		ret = f->listen_fd;
		goto fail;
	}
	f->listen_source = loop_add_fd(shim->loop, f->listen_fd, EPOLLIN,
				       connecting, f);
	if (f->listen_source)
		return 0;
	ret = -ENOMEM;
fail:
	log_err("vm %s: %s: %s", shim->conf->vm, shim->conf->front,
		strerror(-ret));
	return ret;
}

void shim_front_destroy(struct shim *shim)
{
	struct shim_front *f = &shim->front;

	if (!f->ops)
		return;
	loop_remove_fd(f->listen_source);
	f->listen_source = NULL;
	if (f->fd >= 0)
		end_session(f);
	f->ops->destroy(shim);
	if (f->listen_fd < 0)
		return;
	close(f->listen_fd);
	unlink(shim->conf->front);
}
