// SPDX-License-Identifier: GPL-2.0-or-later
/* The log of written pages (dirty_log.h). */
#include <string.h>

#include "dirty_log.h"

void dirty_log_init(struct dirty_log *log)
{
	memset(log, 0, sizeof(*log));
	guest_mem_init(&log->map);
}

int dirty_log_set(struct dirty_log *log, uint64_t size, uint64_t mmap_offset,
		  int fd)
{
	guest_mem_clear(&log->map);
	return guest_mem_add(&log->map, 0, size, 0, mmap_offset, fd);
}

void dirty_log_clear(struct dirty_log *log)
{
	guest_mem_clear(&log->map);
}

void dirty_log_mark(struct dirty_log *log, uint64_t gpa, uint64_t len)
{
	uint64_t page, last;

	if (!log->on || !len)
		return;
	page = gpa >> DIRTY_LOG_PAGE_SHIFT;
	last = (gpa + len - 1) >> DIRTY_LOG_PAGE_SHIFT;
	for (; page <= last; page++) {
		uint8_t *byte = guest_mem_at(&log->map, page / 8, 1);

		/* whoever else writes this guest's memory sets bits beside ours,
		 * and the VMM takes them */
		if (byte)
			__atomic_fetch_or(byte, 1u << (page % 8),
					  __ATOMIC_SEQ_CST);
		else
			log->beyond++;
	}
}
