// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Event loop: one thread, one epoll set.
 *
 * One turn: ask the pollers; epoll_wait(), without sleeping if a poller has
 * found work lately; call back for the ready descriptors; call back for the
 * timers that are due; free what was removed meanwhile.
 *
 * Removal is safe in any callback because nothing is freed during a turn: a
 * removed source, timer or poller is unlinked from its list, marked dead (fn is
 * NULL), and put on the list of the dead. A ready event that epoll has already
 * reported for it is skipped by the mark.
 *
 * Timers are a binary heap by deadline. Its array has room for every timer that
 * exists, so that arming cannot fail.
 */
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/queue.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"

#define EVENTS_PER_TURN 64
#define NOT_ARMED ((size_t)-1)

enum node_kind { NODE_FD, NODE_TIMER, NODE_POLLER };

/* What every kind has, so that they share the list of the dead. */
struct node {
	LIST_ENTRY(node) link;
	struct loop *loop;
	void *ctx;
};
LIST_HEAD(node_list, node);

struct loop_fd {
	struct node node;
	int fd;
	loop_fd_fn *fn;
};

struct loop_timer {
	struct node node;
	loop_timer_fn *fn;
	uint64_t deadline_us;
	size_t heap_pos; /* NOT_ARMED, or its place in loop->heap */
};

struct loop_poller {
	struct node node;
	loop_poll_fn *fn;
};

struct loop {
	int epoll_fd;
	int signal_fd; /* -1 until loop_stop_on_signals() */
	bool stop;
	struct node_list fds, timers, pollers, dead;
	struct node *next_poller; /* while they are being asked */
	struct loop_timer **heap;
	size_t heap_len, heap_room, timer_count;
	struct loop_stats stats;
};

uint64_t loop_now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void free_list(struct node_list *list)
{
	struct node *node;

	while ((node = LIST_FIRST(list))) {
		LIST_REMOVE(node, link);
		free(node); /* the node is each kind's first member */
	}
}
_Static_assert(offsetof(struct loop_fd, node) == 0 &&
		       offsetof(struct loop_timer, node) == 0 &&
		       offsetof(struct loop_poller, node) == 0,
	       "free_list() frees by the node");

/* calloc() of a kind's size, linked. */
static void *new_node(struct loop *loop, struct node_list *list, size_t size,
		      void *ctx)
{
	struct node *node = calloc(1, size);

	if (!node)
		return NULL;
	node->loop = loop;
	node->ctx = ctx;
	LIST_INSERT_HEAD(list, node, link);
	return node;
}

static void bury(struct node *node)
{
	LIST_REMOVE(node, link);
	LIST_INSERT_HEAD(&node->loop->dead, node, link);
}

struct loop *loop_create(void)
{
	struct loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return NULL;
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (loop->epoll_fd < 0) {
		free(loop);
		return NULL;
	}
	loop->signal_fd = -1;
	LIST_INIT(&loop->fds);
	LIST_INIT(&loop->timers);
	LIST_INIT(&loop->pollers);
	LIST_INIT(&loop->dead);
	return loop;
}

void loop_destroy(struct loop *loop)
{
	if (!loop)
		return;
	free_list(&loop->fds);
	free_list(&loop->timers);
	free_list(&loop->pollers);
	free_list(&loop->dead);
	free(loop->heap);
	if (loop->signal_fd >= 0)
		close(loop->signal_fd);
	close(loop->epoll_fd);
	free(loop);
}

/* ---- descriptors ---- */

struct loop_fd *loop_add_fd(struct loop *loop, int fd, uint32_t events,
			    loop_fd_fn *fn, void *ctx)
{
	struct loop_fd *source;
	struct epoll_event ev;
	int err;

	source = new_node(loop, &loop->fds, sizeof(*source), ctx);
	if (!source)
		return NULL;
	source->fd = fd;
	source->fn = fn;
	ev = (struct epoll_event){ .events = events, .data.ptr = source };
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		err = errno;
		LIST_REMOVE(&source->node, link);
		free(source);
		errno = err;
		return NULL;
	}
	return source;
}

int loop_set_events(struct loop_fd *source, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.ptr = source };

	if (epoll_ctl(source->node.loop->epoll_fd, EPOLL_CTL_MOD, source->fd,
		      &ev) < 0)
		return -errno;
	return 0;
}

void loop_remove_fd(struct loop_fd *source)
{
	if (!source)
		return;
	epoll_ctl(source->node.loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	source->fn = NULL;
	bury(&source->node);
}

/* ---- timers ---- */

static void heap_set(struct loop *loop, size_t pos, struct loop_timer *timer)
{
	loop->heap[pos] = timer;
	timer->heap_pos = pos;
}

static void heap_up(struct loop *loop, size_t pos, struct loop_timer *timer)
{
	while (pos) {
		size_t parent = (pos - 1) / 2;

		if (loop->heap[parent]->deadline_us <= timer->deadline_us)
			break;
		heap_set(loop, pos, loop->heap[parent]);
		pos = parent;
	}
	heap_set(loop, pos, timer);
}

static void heap_down(struct loop *loop, size_t pos, struct loop_timer *timer)
{
	for (;;) {
		size_t child = 2 * pos + 1;

		if (child >= loop->heap_len)
			break;
		if (child + 1 < loop->heap_len &&
		    loop->heap[child + 1]->deadline_us <
			    loop->heap[child]->deadline_us)
			child++;
		if (timer->deadline_us <= loop->heap[child]->deadline_us)
			break;
		heap_set(loop, pos, loop->heap[child]);
		pos = child;
	}
	heap_set(loop, pos, timer);
}

struct loop_timer *loop_timer_create(struct loop *loop, loop_timer_fn *fn,
				     void *ctx)
{
	struct loop_timer *timer;

	if (loop->timer_count == loop->heap_room) {
		size_t room = loop->heap_room ? 2 * loop->heap_room : 16;
		struct loop_timer **heap;

		heap = reallocarray(loop->heap, room, sizeof(*heap));
		if (!heap)
			return NULL;
		loop->heap = heap;
		loop->heap_room = room;
	}
	timer = new_node(loop, &loop->timers, sizeof(*timer), ctx);
	if (!timer)
		return NULL;
	timer->fn = fn;
	timer->heap_pos = NOT_ARMED;
	loop->timer_count++;
	return timer;
}

void loop_timer_disarm(struct loop_timer *timer)
{
	struct loop *loop = timer->node.loop;
	size_t pos = timer->heap_pos;
	struct loop_timer *last;

	if (pos == NOT_ARMED)
		return;
	timer->heap_pos = NOT_ARMED;
	last = loop->heap[--loop->heap_len];
	if (last == timer)
		return;
	if (pos && loop->heap[(pos - 1) / 2]->deadline_us > last->deadline_us)
		heap_up(loop, pos, last);
	else
		heap_down(loop, pos, last);
}

void loop_timer_arm(struct loop_timer *timer, uint64_t delay_ms)
{
	struct loop *loop = timer->node.loop;

	loop_timer_disarm(timer);
	if (delay_ms > UINT64_MAX / 4000)
		delay_ms = UINT64_MAX / 4000;
	timer->deadline_us = loop_now_us() + delay_ms * 1000;
	heap_up(loop, loop->heap_len++, timer);
}

void loop_timer_destroy(struct loop_timer *timer)
{
	if (!timer)
		return;
	loop_timer_disarm(timer);
	timer->fn = NULL;
	timer->node.loop->timer_count--;
	bury(&timer->node);
}

static void run_timers(struct loop *loop)
{
	/* One that is armed again with delay 0 waits for the next turn. */
	size_t left = loop->heap_len;
	uint64_t now;

	if (!left)
		return;
	now = loop_now_us();
	while (left-- && loop->heap_len && !loop->stop) {
		struct loop_timer *timer = loop->heap[0];

		if (timer->deadline_us > now)
			break;
		loop_timer_disarm(timer);
		timer->fn(timer->node.ctx);
	}
}

/* ---- pollers ---- */

struct loop_poller *loop_add_poller(struct loop *loop, loop_poll_fn *fn,
				    void *ctx)
{
	struct loop_poller *poller;

	poller = new_node(loop, &loop->pollers, sizeof(*poller), ctx);
	if (poller)
		poller->fn = fn;
	return poller;
}

void loop_remove_poller(struct loop_poller *poller)
{
	if (!poller)
		return;
	if (poller->node.loop->next_poller == &poller->node)
		poller->node.loop->next_poller = LIST_NEXT(&poller->node, link);
	poller->fn = NULL;
	bury(&poller->node);
}

static bool ask_pollers(struct loop *loop)
{
	struct node *node = LIST_FIRST(&loop->pollers);
	bool work = false;

	while (node) {
		struct loop_poller *poller = (struct loop_poller *)node;

		loop->next_poller = LIST_NEXT(node, link);
		work |= poller->fn(node->ctx);
		node = loop->next_poller;
	}
	loop->next_poller = NULL;
	return work;
}

/* ---- the loop itself ---- */

static int sleep_ms(const struct loop *loop)
{
	uint64_t now, left_ms;

	if (!loop->heap_len)
		return -1;
	now = loop_now_us();
	if (loop->heap[0]->deadline_us <= now)
		return 0;
	/* upwards: never early */
	left_ms = (loop->heap[0]->deadline_us - now + 999) / 1000;
	return left_ms > 3600000 ? 3600000 : (int)left_ms;
}

static int turn(struct loop *loop)
{
	struct epoll_event events[EVENTS_PER_TURN];
	int timeout = 0;
	int i, n;

	if (!ask_pollers(loop))
		timeout = sleep_ms(loop);
	if (loop->stop)
		return 0;
	if (timeout)
		loop->stats.sleeps++;
	else
		loop->stats.spins++;
	n = epoll_wait(loop->epoll_fd, events, EVENTS_PER_TURN, timeout);
	if (n < 0 && errno != EINTR)
		return -errno;
	for (i = 0; i < n && !loop->stop; i++) {
		struct loop_fd *source = events[i].data.ptr;

		if (source->fn)
			source->fn(source->fd, events[i].events,
				   source->node.ctx);
	}
	if (!loop->stop)
		run_timers(loop);
	free_list(&loop->dead);
	return 0;
}

int loop_run(struct loop *loop)
{
	int ret = 0;

	while (!loop->stop && ret == 0)
		ret = turn(loop);
	loop->stop = false;
	return ret;
}

void loop_stop(struct loop *loop)
{
	loop->stop = true;
}

static void stop_signal(int fd, uint32_t events, void *ctx)
{
	struct signalfd_siginfo info;

	(void)events;
	if (read(fd, &info, sizeof(info)) == sizeof(info))
		loop_stop(ctx);
}

int loop_stop_on_signals(struct loop *loop)
{
	sigset_t set;
	int err;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
		return -errno;
	loop->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (loop->signal_fd < 0)
		return -errno;
	if (!loop_add_fd(loop, loop->signal_fd, EPOLLIN, stop_signal, loop)) {
		err = errno;
		close(loop->signal_fd);
		loop->signal_fd = -1;
		return -err;
	}
	return 0;
}

const struct loop_stats *loop_get_stats(const struct loop *loop)
{
	return &loop->stats;
}
