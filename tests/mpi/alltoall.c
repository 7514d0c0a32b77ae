// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * alltoall - every rank sends a part of its own to every rank, with equal parts
 * and with parts of a different length for each pair. Every byte is verified.
 *
 * usage: alltoall [ROUNDS]  prints "alltoall: N ranks, M exchanges, B bytes verified"
 */
#include "verify.h"

static const int sizes[] = { 1, 100, 4096, 65536, 300000 };
#define SIZES ((int)(sizeof(sizes) / sizeof(sizes[0])))

/* Bytes from one rank to another in the uneven exchange. */
static int uneven(int from, int to, int size)
{
	return (from * 31 + to * 17 + size) % (size + 1);
}

static unsigned long long check_parts(const unsigned char *in, const int *count,
				      const int *at, int ranks, int rank, int tag)
{
	unsigned long long bytes = 0;
	int i;

	for (i = 0; i < ranks; i++) {
		verify_check(in + at[i], (size_t)count[i], verify_key(i, rank, tag),
			     "alltoall", i, rank);
		bytes += (unsigned long long)count[i];
	}
	return bytes;
}

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 3;
	int rank, ranks, r, s, i, even, exchanges = 0;
	int *out_count, *out_at, *in_count, *in_at;
	unsigned long long bytes = 0, sum = 0;
	unsigned char *out, *in;
	size_t room;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	room = (size_t)sizes[SIZES - 1] * (size_t)ranks;
	out = verify_alloc(room);
	in = verify_alloc(room);
	out_count = (int *)verify_alloc(4 * (size_t)ranks * sizeof(int));
	out_at = out_count + ranks;
	in_count = out_at + ranks;
	in_at = in_count + ranks;
	for (r = 0; r < rounds; r++) {
		for (s = 0; s < SIZES * 2; s++) {
			int size = sizes[s / 2], tag = r * SIZES * 2 + s;

			even = s % 2 == 0;
			for (i = 0; i < ranks; i++) {
				out_count[i] = even ? size : uneven(rank, i, size);
				in_count[i] = even ? size : uneven(i, rank, size);
				out_at[i] = i ? out_at[i - 1] + out_count[i - 1] : 0;
				in_at[i] = i ? in_at[i - 1] + in_count[i - 1] : 0;
				verify_fill(out + out_at[i], (size_t)out_count[i],
					    verify_key(rank, i, tag));
			}
			memset(in, 0x55, room);
			if (even)
				MPI_Alltoall(out, size, MPI_BYTE, in, size,
					     MPI_BYTE, MPI_COMM_WORLD);
			else
				MPI_Alltoallv(out, out_count, out_at, MPI_BYTE,
					      in, in_count, in_at, MPI_BYTE,
					      MPI_COMM_WORLD);
			bytes += check_parts(in, in_count, in_at, ranks, rank, tag);
			exchanges++;
		}
	}
	MPI_Reduce(&bytes, &sum, 1, MPI_UNSIGNED_LONG_LONG, MPI_SUM, 0, MPI_COMM_WORLD);
	if (!rank)
		printf("alltoall: %d ranks, %d exchanges, %llu bytes verified\n",
		       ranks, exchanges, sum);
	free(out);
	free(in);
	free(out_count);
	MPI_Finalize();
	return 0;
}
