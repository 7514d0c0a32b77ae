// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Theory of operation. A connection that cannot be accepted for want of a
 * descriptor stays in the listener's queue, and epoll reports it again at once.
 * So the listener rests then, and a timer has it look again: who connects waits
 * in the queue, and the loop serves the others meanwhile.
 *
 * Threat model: anybody who can connect, and hold connections open, can bring
 * this about. What he gets is that connections come in late.
 */
#include "accept.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define REST_MS 200

static void look_again(void *ctx)
{
	struct iba_acceptor *a = ctx;

	loop_set_events(a->source, EPOLLIN);
}

int iba_acceptor_start(struct iba_acceptor *a, struct loop *loop,
		       const char *what, int fd, loop_fd_fn *fn, void *ctx)
{
	int err;

	a->what = what;
	a->fd = fd;
	a->rest = loop_timer_create(loop, look_again, a);
	if (!a->rest) {
		iba_acceptor_stop(a);
		return -ENOMEM;
	}
	a->source = loop_add_fd(loop, fd, EPOLLIN, fn, ctx);
	if (a->source)
		return 0;
	err = -errno;
	iba_acceptor_stop(a);
	return err;
}

void iba_acceptor_stop(struct iba_acceptor *a)
{
	loop_remove_fd(a->source);
	a->source = NULL;
	loop_timer_destroy(a->rest);
	a->rest = NULL;
	if (a->fd >= 0)
		close(a->fd);
	a->fd = -1;
}

static void take_rest(struct iba_acceptor *a, int err)
{
	loop_set_events(a->source, 0);
	loop_timer_arm(a->rest, REST_MS);
	if (log_ratelimited_ok(&a->log, 1, 10))
		log_warn("%s: cannot accept: %s", a->what, strerror(err));
}

int iba_accept(struct iba_acceptor *a, struct sockaddr_storage *peer)
{
	socklen_t len = sizeof(*peer);
	int sock;

	if (peer)
		memset(peer, 0, sizeof(*peer));
	sock = accept4(a->fd, (struct sockaddr *)peer, peer ? &len : NULL,
		       SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (sock < 0 && (errno == EMFILE || errno == ENFILE ||
			 errno == ENOBUFS || errno == ENOMEM))
		take_rest(a, errno);
	return sock;
}
