/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Log lines on stderr, one an event, with a syslog priority prefix ("<3>")
 * when stderr is the journal. A line names its subject first: "vm g1: ...",
 * "conn 7: ...", "peer h2: ...".
 */
#ifndef COMMON_LOG_H
#define COMMON_LOG_H

#include <stdbool.h>

enum log_level { LOG_ERR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* program: argv[0]'s last part, kept by reference. level: least urgent shown. */
void log_init(const char *program, enum log_level level);
bool log_enabled(enum log_level level);
void log_msg(enum log_level level, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

#define log_err(...) log_msg(LOG_ERR, __VA_ARGS__)
#define log_warn(...) log_msg(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_msg(LOG_INFO, __VA_ARGS__)
#define log_debug(...)                                 \
	do {                                           \
		if (log_enabled(LOG_DEBUG))            \
			log_msg(LOG_DEBUG, __VA_ARGS__); \
	} while (0)

/*
 * True at most `burst` times in `interval_s` seconds for one *state: for lines
 * that a guest or a peer could provoke. The first line of a new interval is
 * preceded by one that counts what was held back.
 */
struct log_ratelimit {
	long long interval_start_s;
	unsigned int shown;
	unsigned int held_back;
};
bool log_ratelimited_ok(struct log_ratelimit *state, unsigned int burst,
			unsigned int interval_s);

#endif /* COMMON_LOG_H */
