// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * slowtick - a preload library for user-mode Linux on an emulated processor: its timer fires at most every 50 ms.
 *
 * Its kernel ticks a thousand times a second while a program runs. Each tick is a signal and some switches between two
 * processes, which take a millisecond there, so nothing but ticks would run. The kernel copes with late timers by itself: it
 * counts the ticks that it has missed.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LEAST_NS 50000000

typedef int settime_fn(timer_t timer, int flags, const struct itimerspec *value, struct itimerspec *old);

static settime_fn *settime;

__attribute__((constructor)) static void find(void)
{
	settime = (settime_fn *)dlsym(RTLD_NEXT, "timer_settime");
	if (!settime) {
		fprintf(stderr, "slowtick: no timer_settime\n");
		exit(1);
	}
}

int timer_settime(timer_t timer, int flags, const struct itimerspec *value, struct itimerspec *old)
{
	struct itimerspec late = *value;

	/* 0 stops it */
	if (!late.it_value.tv_sec && late.it_value.tv_nsec && late.it_value.tv_nsec < LEAST_NS)
		late.it_value.tv_nsec = LEAST_NS;
	return settime(timer, flags, &late, old);
}
