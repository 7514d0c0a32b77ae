// SPDX-License-Identifier: GPL-2.0-or-later
/* Event loop: descriptors, timers, pollers, and removal inside callbacks. */
#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fd_count.h"
#include "loop.h"
#include "tap.h"

static struct loop *loop;

static int ready_fd(void)
{
	int fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);

	if (fd < 0)
		bail_out("eventfd");
	return fd;
}

static void stop_timer(void *ctx)
{
	loop_stop(loop);
}

/* Runs the loop for so long. */
static void run_ms(uint64_t ms)
{
	struct loop_timer *timer = loop_timer_create(loop, stop_timer, NULL);

	loop_timer_arm(timer, ms);
	if (loop_run(loop))
		bail_out("loop_run");
	loop_timer_destroy(timer);
}

/* ---- descriptors ---- */

struct watched {
	struct loop_fd *source;
	struct watched *victim; /* removed in the callback */
	int fd, calls;
	bool drain;
};

static void on_fd(int fd, uint32_t events, void *ctx)
{
	struct watched *w = ctx;
	uint64_t count;

	w->calls++;
	if (fd != w->fd || !(events & (EPOLLIN | EPOLLOUT)))
		w->calls += 1000;
	if (w->drain && read(fd, &count, sizeof(count)) < 0)
		w->calls += 1000;
	if (w->victim) {
		loop_remove_fd(w->victim->source);
		close(w->victim->fd);
		w->victim->source = NULL;
		w->victim = NULL;
	}
}

static void watch(struct watched *w, bool drain)
{
	w->fd = ready_fd();
	w->drain = drain;
	w->source = loop_add_fd(loop, w->fd, EPOLLIN, on_fd, w);
}

static void unwatch(struct watched *w)
{
	if (!w->source)
		return;
	loop_remove_fd(w->source);
	close(w->fd);
}

static void test_fds(void)
{
	struct watched once = { 0 }, level = { 0 }, self = { 0 };
	struct watched a = { 0 }, b = { 0 };

	watch(&once, true);
	watch(&level, false);
	watch(&self, false);
	self.victim = &self;
	run_ms(50);
	is_int(once.calls, 1, "a drained descriptor is reported once");
	ok(level.calls > 1, "an undrained one again and again");
	is_int(self.calls, 1, "one that removes itself, once");
	loop_set_events(level.source, 0);
	level.calls = 0;
	run_ms(5);
	is_int(level.calls, 0, "mask 0: not at all");
	is_int(loop_set_events(level.source, EPOLLOUT), 0, "another mask");
	run_ms(50);
	ok(level.calls > 0, "and for writing");
	unwatch(&once);
	unwatch(&level);

	/* Both are ready in the same turn; whoever runs first ends the other. */
	watch(&a, false);
	watch(&b, false);
	a.victim = &b;
	b.victim = &a;
	run_ms(5);
	ok((a.calls == 0) != (b.calls == 0),
	   "an event already fetched for a removed source is dropped");
	unwatch(&a);
	unwatch(&b);

	errno = 0;
	ok(!loop_add_fd(loop, -1, EPOLLIN, on_fd, NULL) && errno == EBADF,
	   "no descriptor, no source");
	loop_remove_fd(NULL);
}

/* ---- timers ---- */

static int fired[64], fired_count;

struct numbered {
	struct loop_timer *timer;
	struct numbered *victim;
	int number;
	int again; /* arms itself so often, with delay 0 */
};

static void on_timer(void *ctx)
{
	struct numbered *n = ctx;

	if (fired_count < 64)
		fired[fired_count++] = n->number;
	if (n->again-- > 0)
		loop_timer_arm(n->timer, 0);
	if (n->victim) {
		loop_timer_destroy(n->victim->timer);
		n->victim->timer = NULL;
	}
}

/* Disarming the fourth moves the last one up, past the second. */
static void test_heap(void)
{
	static const int delays[] = { 5, 50, 10, 55, 60, 15, 20 };
	struct numbered n[7] = { 0 };
	int i, good = 1;

	fired_count = 0;
	for (i = 0; i < 7; i++) {
		n[i].number = delays[i];
		n[i].timer = loop_timer_create(loop, on_timer, &n[i]);
		loop_timer_arm(n[i].timer, delays[i]);
	}
	loop_timer_disarm(n[3].timer);
	run_ms(80);
	for (i = 0; i < 6; i++)
		good &= fired[i] == (int[]){ 5, 10, 15, 20, 50, 60 }[i];
	ok(good && fired_count == 6, "disarmed in the middle: order stays");
	for (i = 0; i < 7; i++)
		loop_timer_destroy(n[i].timer);
}

static void test_timers(void)
{
	static const int delays[] = { 9, 3, 7, 1, 5, 8, 2, 6, 4, 0 };
	struct numbered n[10] = { 0 }, many[200] = { 0 };
	uint64_t start, spins;
	int i, good = 1;

	fired_count = 0;
	for (i = 0; i < 10; i++) {
		n[i].number = delays[i];
		n[i].timer = loop_timer_create(loop, on_timer, &n[i]);
	}
	do { /* within what lies between two of them */
		start = loop_now_us();
		for (i = 0; i < 10; i++)
			loop_timer_arm(n[i].timer, 2 * delays[i]);
	} while (loop_now_us() - start >= 1000);
	loop_timer_arm(n[2].timer, 60000); /* again: replaces */
	loop_timer_disarm(n[1].timer);
	loop_timer_disarm(n[1].timer);
	run_ms(40);
	for (i = 0; i < 8; i++)
		good &= fired[i] == (int[]){ 0, 1, 2, 4, 5, 6, 8, 9 }[i];
	ok(good && fired_count == 8, "timers fire in order of their deadlines");
	run_ms(30);
	is_int(fired_count, 8, "and once");
	for (i = 0; i < 10; i++)
		loop_timer_destroy(n[i].timer);
	loop_timer_destroy(NULL);

	fired_count = 0;
	n[0] = (struct numbered){ .number = 1, .again = 10 };
	n[0].timer = loop_timer_create(loop, on_timer, &n[0]);
	loop_timer_arm(n[0].timer, 0);
	run_ms(50);
	is_int(fired_count, 11, "a timer that arms itself");
	loop_timer_destroy(n[0].timer);

	/* Both due at once; the first ends the second, the third itself. */
	fired_count = 0;
	for (i = 0; i < 3; i++) {
		n[i] = (struct numbered){ .number = i };
		n[i].timer = loop_timer_create(loop, on_timer, &n[i]);
		loop_timer_arm(n[i].timer, i);
	}
	n[0].victim = &n[1];
	n[2].victim = &n[2];
	usleep(5000);
	run_ms(50);
	ok(fired_count == 2 && fired[0] == 0 && fired[1] == 2,
	   "destroyed inside a callback: does not fire");
	loop_timer_destroy(n[0].timer);

	/* the heap under removal in every order */
	fired_count = 0;
	for (i = 0; i < 200; i++) {
		many[i].number = i;
		many[i].timer = loop_timer_create(loop, on_timer, &many[i]);
	}
	do { /* within the same millisecond, or their order is another */
		start = loop_now_us();
		for (i = 0; i < 200; i++)
			loop_timer_arm(many[i].timer, (i * 37) % 50);
	} while (loop_now_us() - start >= 1000);
	for (i = 0; i < 200; i++)
		if (i % 4)
			loop_timer_destroy(many[(i * 7) % 200].timer);
	run_ms(70);
	for (i = 1, good = 1; i < fired_count; i++)
		good &= fired[i - 1] * 37 % 50 <= fired[i] * 37 % 50;
	ok(good && fired_count == 50, "fifty left of two hundred, in order");
	for (i = 0; i < 200; i += 4)
		loop_timer_destroy(many[(i * 7) % 200].timer);

	test_heap();

	start = loop_now_us();
	spins = loop_get_stats(loop)->spins;
	run_ms(20);
	ok(loop_now_us() - start >= 20000, "never early");
	ok(loop_get_stats(loop)->spins - spins <= 2,
	   "and without spinning through the last millisecond");
}

/* ---- pollers ---- */

struct counted {
	struct loop_poller *poller;
	struct counted *victim;
	int calls, work; /* finds work that often */
};

static bool on_poll(void *ctx)
{
	struct counted *c = ctx;

	c->calls++;
	if (c->victim) {
		loop_remove_poller(c->victim->poller);
		c->victim = NULL;
	}
	return c->work-- > 0;
}

static void test_pollers(void)
{
	const struct loop_stats *stats = loop_get_stats(loop);
	struct counted a = { 0 }, b = { 0 }, c = { 0 };
	struct watched level = { 0 };
	uint64_t sleeps, spins;

	a.poller = loop_add_poller(loop, on_poll, &a);
	sleeps = stats->sleeps;
	run_ms(20);
	ok(a.calls > 0 && a.calls <= 5 && stats->sleeps - sleeps <= 5,
	   "a poller without work runs once before each sleep");
	a.work = 100;
	a.calls = 0;
	spins = stats->spins;
	run_ms(100);
	ok(a.calls > 100 && stats->spins - spins >= 100,
	   "no sleep while it finds work");

	a.work = 0;
	sleeps = stats->sleeps;
	run_ms(30);
	ok(stats->sleeps > sleeps, "then it sleeps");
	/* others get their turn while it spins */
	watch(&level, true);
	a.work = 1000000;
	run_ms(50);
	is_int(level.calls, 1, "descriptors are served while pollers work");
	unwatch(&level);
	a.work = 0;

	b.poller = loop_add_poller(loop, on_poll, &b);
	c.poller = loop_add_poller(loop, on_poll, &c);
	a.victim = &b;
	b.victim = &a;
	c.victim = &c;
	a.calls = 0;
	run_ms(5);
	ok((a.calls == 0) != (b.calls == 0), "a poller that removes another");
	is_int(c.calls, 1, "a poller that removes itself");
	loop_remove_poller(a.calls ? a.poller : b.poller);
	loop_remove_poller(NULL);
}

/* ---- the end ---- */

static void send_signal(void *ctx)
{
	kill(getpid(), *(int *)ctx);
}

static void test_signals(void)
{
	int number[2] = { SIGTERM, SIGINT }, i;

	is_int(loop_stop_on_signals(loop), 0, "signals stop the loop");
	for (i = 0; i < 2; i++) {
		struct loop_timer *timer =
			loop_timer_create(loop, send_signal, &number[i]);

		loop_timer_arm(timer, 1);
		is_int(loop_run(loop), 0, i ? "SIGINT" : "SIGTERM");
		loop_timer_destroy(timer);
	}
	kill(getpid(), SIGTERM);
	is_int(loop_run(loop), 0, "a signal before the loop runs");
}

int main(void)
{
	int before = count_fds();

	loop = loop_create();
	if (!loop)
		bail_out("loop_create");
	test_fds();
	test_timers();
	test_pollers();
	test_signals();
	loop_stop(loop);
	is_int(loop_run(loop), 0, "stopped before it runs");
	/* what nobody removed goes with it */
	loop_add_poller(loop, on_poll, NULL);
	loop_timer_arm(loop_timer_create(loop, on_timer, NULL), 1);
	loop_destroy(loop);
	loop_destroy(NULL);
	is_int(count_fds(), before, "no descriptor leaked");
	return tap_done();
}
