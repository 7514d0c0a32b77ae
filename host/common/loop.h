/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Event loop of one thread over epoll: descriptors, timers, and pollers that
 * are asked between two sleeps (adaptive polling).
 */
#ifndef COMMON_LOOP_H
#define COMMON_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct loop;

/* events: EPOLLIN and so on. May remove any source, itself too. */
typedef void loop_fd_fn(int fd, uint32_t events, void *ctx);
typedef void loop_timer_fn(void *ctx);
/* Returns true if it found work. */
typedef bool loop_poll_fn(void *ctx);

struct loop_fd;
struct loop_timer;
struct loop_poller;

/* NULL and errno on failure. */
struct loop *loop_create(void);
void loop_destroy(struct loop *loop);

/* Watches fd (level-triggered; not owned). NULL and errno on failure. */
struct loop_fd *loop_add_fd(struct loop *loop, int fd, uint32_t events,
			    loop_fd_fn *fn, void *ctx);
/* Level-triggered mask for an fd already added. 0 or -errno. */
int loop_set_events(struct loop_fd *source, uint32_t events);
/* Takes NULL. Call before closing the fd; safe inside any callback. */
void loop_remove_fd(struct loop_fd *source);

/* One-shot; created disarmed. */
struct loop_timer *loop_timer_create(struct loop *loop, loop_timer_fn *fn,
				     void *ctx);
void loop_timer_arm(struct loop_timer *timer, uint64_t delay_ms);
void loop_timer_disarm(struct loop_timer *timer);
void loop_timer_destroy(struct loop_timer *timer); /* takes NULL */

/* Pollers run before each sleep. While one finds work, the loop does not sleep. */
struct loop_poller *loop_add_poller(struct loop *loop, loop_poll_fn *fn,
				    void *ctx);
void loop_remove_poller(struct loop_poller *poller); /* takes NULL */

/* Runs until loop_stop() (from a callback) or SIGTERM/SIGINT after
 * loop_stop_on_signals(). 0 or -errno. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);
int loop_stop_on_signals(struct loop *loop);

uint64_t loop_now_us(void); /* CLOCK_MONOTONIC */

/* How often loops of this process slept and woke: for statistics. */
struct loop_stats {
	uint64_t sleeps;
	uint64_t spins;
};
const struct loop_stats *loop_get_stats(const struct loop *loop);

#endif /* COMMON_LOOP_H */
