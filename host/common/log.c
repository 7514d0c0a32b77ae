// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Log lines: each is put together in one buffer and leaves in one write(), so
 * that lines of several processes on one stderr do not mix. Text that came
 * from a guest or a peer may stand in a line, so control characters are
 * replaced: nobody forges a line or sends escapes to a terminal.
 *
 * Under systemd stderr is a stream of the journal; JOURNAL_STREAM names its
 * device and inode (systemd.exec(5)), and a redirected stderr does not match.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

#define LINE_MAX_BYTES 1024

static const char *program_name = "vnet";
static enum log_level least_urgent = LOG_INFO;
static bool journal;

/* sd-daemon(3): the priorities of syslog(3) */
static const char *const priority_prefix[] = {
	[LOG_ERR] = "<3>",
	[LOG_WARN] = "<4>",
	[LOG_INFO] = "<6>",
	[LOG_DEBUG] = "<7>",
};
_Static_assert(sizeof(priority_prefix) / sizeof(priority_prefix[0]) ==
		       LOG_DEBUG + 1,
	       "a prefix for every level");

static bool stderr_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return stream && sscanf(stream, "%llu:%llu", &dev, &ino) == 2 &&
	       fstat(STDERR_FILENO, &st) == 0 && st.st_dev == dev &&
	       st.st_ino == ino;
}

void log_init(const char *program, enum log_level level)
{
	const char *slash = strrchr(program, '/');

	program_name = slash ? slash + 1 : program;
	least_urgent = level;
	journal = stderr_is_journal();
}

bool log_enabled(enum log_level level)
{
	return level <= least_urgent;
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	int saved_errno = errno;
	char line[LINE_MAX_BYTES];
	size_t len, start, i;
	va_list ap;
	int n;

	if (!log_enabled(level))
		return;
	if (journal)
		n = snprintf(line, sizeof(line), "%s", priority_prefix[level]);
	else
		n = snprintf(line, sizeof(line), "%.64s: ", program_name);
	start = n;

	va_start(ap, fmt);
	errno = saved_errno; /* for %m */
	n = vsnprintf(line + start, sizeof(line) - start, fmt, ap);
	va_end(ap);
	if (n < 0)
		n = 0;
	len = start + n;
	if (len > sizeof(line) - 1)
		len = sizeof(line) - 1; /* cut; the newline takes the NUL's place */
	for (i = start; i < len; i++)
		if ((unsigned char)line[i] < ' ' || line[i] == 0x7f)
			line[i] = '?';
	line[len++] = '\n';

	/* Nobody to tell if this fails. */
	if (write(STDERR_FILENO, line, len) < 0) {
	}
	errno = saved_errno;
}

bool log_ratelimited_ok(struct log_ratelimit *state, unsigned int burst,
			unsigned int interval_s)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	/* shown is 0 only before the first line: the clock may stand near 0 */
	if (!state->shown || now.tv_sec - state->interval_start_s >= interval_s) {
		if (state->held_back)
			log_warn("%u more lines of this kind were held back",
				 state->held_back);
		state->interval_start_s = now.tv_sec;
		state->shown = 0;
		state->held_back = 0;
	}
	if (state->shown >= burst) {
		state->held_back++;
		return false;
	}
	state->shown++;
	return true;
}
