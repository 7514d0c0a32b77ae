/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which pages of its guest's memory a device has written: the log by which a VMM
 * that migrates a running VM knows what to send again. One bit a page of 4 KiB,
 * bit n of byte n / 8 first (vhost-user's "Live migration"), in memory that the
 * VMM shares with all that write the guest's memory.
 *
 * A page is marked behind the write to it: the VMM takes a bit away and then
 * reads the page, so a mark in front of the write could be lost with it.
 *
 * Threat model: the VMM can shorten the file behind the log at any time, as it
 * can that of the guest's memory; guest_mem.c says what comes of it. A log too
 * short for the guest's memory harms the VM alone: counted.
 */
#ifndef COMMON_DIRTY_LOG_H
#define COMMON_DIRTY_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "guest_mem.h"

#define DIRTY_LOG_PAGE_SHIFT 12

struct dirty_log {
	bool on;	      /* the VMM wants to know */
	struct guest_mem map; /* of the log itself, from 0 on; none: no log yet */
	uint64_t beyond;      /* pages that have no bit in it */
};

void dirty_log_init(struct dirty_log *log);
/*
 * A log in place of the one before, which is forgotten whatever the result.
 * Takes fd. 0 or -errno, as guest_mem_add().
 */
int dirty_log_set(struct dirty_log *log, uint64_t size, uint64_t mmap_offset,
		  int fd);
void dirty_log_clear(struct dirty_log *log);
/* On, but nowhere to write it down: the guest's memory must not be touched. */
static inline bool dirty_log_missing(const struct dirty_log *log)
{
	return log->on && !log->map.count;
}

/* len bytes at gpa have been written. Does nothing while it is off. */
void dirty_log_mark(struct dirty_log *log, uint64_t gpa, uint64_t len);

#endif /* COMMON_DIRTY_LOG_H */
