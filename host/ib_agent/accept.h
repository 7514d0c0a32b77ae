/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A listening socket in a loop, for whoever may connect as often as he likes.
 */
#ifndef IBA_ACCEPT_H
#define IBA_ACCEPT_H

#include <sys/socket.h>

#include "log.h"
#include "loop.h"

struct iba_acceptor {
	const char *what; /* comes, for log lines */
	int fd;		  /* owned, -1: none */
	struct loop_fd *source;
	struct loop_timer *rest;
	struct log_ratelimit log;
};

/* Takes fd, also on failure; fn calls iba_accept(). 0 or -errno. */
int iba_acceptor_start(struct iba_acceptor *a, struct loop *loop,
		       const char *what, int fd, loop_fd_fn *fn, void *ctx);
void iba_acceptor_stop(struct iba_acceptor *a);
/* The next connection, non-blocking; -1: none now. peer: may be NULL. */
int iba_accept(struct iba_acceptor *a, struct sockaddr_storage *peer);

#endif /* IBA_ACCEPT_H */
