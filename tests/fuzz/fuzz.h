/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a fuzz target exports (libFuzzer's interface), and how it complains.
 * Linked with clang -fsanitize=fuzzer it is a fuzzer; with replay.c it runs over
 * files. Targets keep nothing from one input to the next but what they set up
 * once.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* For what must hold whatever the input is: stands without NDEBUG too. */
#define must(condition)                                               \
	do {                                                          \
		if (!(condition)) {                                   \
			fprintf(stderr, "%s:%d: must be: %s\n",       \
				__FILE__, __LINE__, #condition);      \
			abort();                                      \
		}                                                     \
	} while (0)

#endif /* FUZZ_H */
