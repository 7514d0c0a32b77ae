/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Test Anything Protocol for the C tests: one line a result, the plan at the
 * end, exit status 0, 1 (something failed or nothing ran) or 77 (skipped).
 *
 *	ok(ret == 0, "starts");
 *	is_int(len, 12, "length");
 *	return tap_done();
 */
#ifndef TAP_H
#define TAP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned int tap_count, tap_failed;

__attribute__((unused, format(printf, 4, 5))) static bool
tap_ok(bool good, const char *file, int line, const char *fmt, ...)
{
	va_list ap;

	if (!tap_count)
		setvbuf(stdout, NULL, _IOLBF, 0); /* a crash loses no line */
	printf("%sok %u - ", good ? "" : "not ", ++tap_count);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	if (!good) {
		tap_failed++;
		printf("#   at %s:%d\n", file, line);
	}
	return good;
}

__attribute__((unused)) static bool tap_is_int(long long got, long long want,
					       const char *name,
					       const char *file, int line)
{
	bool good = tap_ok(got == want, file, line, "%s", name);

	if (!good)
		printf("#   got %lld, want %lld\n", got, want);
	return good;
}

__attribute__((unused)) static bool tap_is_str(const char *got, const char *want,
					       const char *name,
					       const char *file, int line)
{
	bool good = tap_ok(strcmp(got, want) == 0, file, line, "%s", name);

	if (!good)
		printf("#   got \"%s\", want \"%s\"\n", got, want);
	return good;
}

/* ok(condition, name format...) */
#define ok(good, ...) tap_ok(good, __FILE__, __LINE__, __VA_ARGS__)
#define is_int(got, want, name) \
	tap_is_int((long long)(got), (long long)(want), name, __FILE__, __LINE__)
#define is_str(got, want, name) tap_is_str(got, want, name, __FILE__, __LINE__)
#define note(...) (printf("# "), printf(__VA_ARGS__), putchar('\n'))

/* Counts one test as skipped; the runner wants the reason to be a known one. */
#define skip(name, reason) \
	printf("ok %u - %s # skip %s\n", ++tap_count, name, reason)

/* The whole program cannot run here. */
#define skip_all(reason)                             \
	do {                                         \
		printf("1..0 # skip %s\n", reason);  \
		exit(77);                            \
	} while (0)

/* Nothing after this makes sense. */
#define bail_out(reason)                          \
	do {                                      \
		printf("Bail out! %s\n", reason); \
		exit(1);                          \
	} while (0)

/* Prints the plan; what main() returns. */
__attribute__((unused)) static int tap_done(void)
{
	printf("1..%u\n", tap_count);
	return tap_count && !tap_failed ? 0 : 1;
}

#endif /* TAP_H */
