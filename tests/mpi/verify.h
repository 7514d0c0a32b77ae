/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Bytes that say where they come from: a wrong, lost, repeated or moved byte
 * shows in whatever message it stands.
 */
#ifndef VERIFY_H
#define VERIFY_H

#include <mpi.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static inline uint64_t verify_word(uint64_t key, uint64_t at)
{
	uint64_t x = key * 0x9e3779b97f4a7c15u + at;

	x ^= x >> 31;
	x *= 0xbf58476d1ce4e5b9u;
	return x ^ x >> 27;
}

/* A key for what one rank sends to another in one round. */
static inline uint64_t verify_key(int from, int to, int round)
{
	return (uint64_t)from << 40 | (uint64_t)to << 20 | (uint64_t)round;
}

static inline void verify_fill(unsigned char *buf, size_t len, uint64_t key)
{
	size_t i;

	for (i = 0; i < len; i += 8) {
		uint64_t word = verify_word(key, i);

		memcpy(buf + i, &word, len - i < 8 ? len - i : 8);
	}
}

/* Ends the whole job at the first byte that is not what was sent. */
static inline void verify_check(const unsigned char *buf, size_t len, uint64_t key,
				const char *what, int from, int to)
{
	size_t i, j;

	for (i = 0; i < len; i += 8) {
		uint64_t word = verify_word(key, i);
		size_t part = len - i < 8 ? len - i : 8;

		if (!memcmp(buf + i, &word, part))
			continue;
		for (j = 0; buf[i + j] == ((unsigned char *)&word)[j]; j++)
			;
		fprintf(stderr, "%s: byte %zu of %zu from rank %d to %d is %#x, sent was %#x\n",
			what, i + j, len, from, to, buf[i + j],
			((unsigned char *)&word)[j]);
		MPI_Abort(MPI_COMM_WORLD, 1);
	}
}

static inline unsigned char *verify_alloc(size_t len)
{
	unsigned char *p = malloc(len ? len : 1);

	if (!p) {
		fprintf(stderr, "out of memory (%zu bytes)\n", len);
		MPI_Abort(MPI_COMM_WORLD, 1);
	}
	return p;
}

#endif /* VERIFY_H */
