// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ring - every rank sends to its right neighbour and receives from its left,
 * in messages around the sizes where transports change their ways (eager,
 * rendezvous, fragments, odd ends). Every byte is verified.
 *
 * usage: ring [ROUNDS]     prints "ring: N ranks, M messages, B bytes verified"
 */
#include "verify.h"

static const size_t sizes[] = {
	0, 1, 7, 64, 1000, 1448, 4095, 4096, 4097, 16384, 65535, 65536, 65537,
	131071, 262144, 1000003, 1 << 20,
};
#define SIZES ((int)(sizeof(sizes) / sizeof(sizes[0])))

int main(int argc, char **argv)
{
	int rounds = argc > 1 ? atoi(argv[1]) : 4;
	unsigned long long total[2] = { 0, 0 }, sum[2]; /* messages, bytes */
	unsigned char *out, *in;
	int rank, ranks, r, s;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	out = verify_alloc(sizes[SIZES - 1]);
	in = verify_alloc(sizes[SIZES - 1]);
	for (r = 0; r < rounds; r++) {
		for (s = 0; s < SIZES; s++) {
			int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;
			int tag = r * SIZES + s, count;
			MPI_Status status;

			verify_fill(out, sizes[s], verify_key(rank, right, tag));
			memset(in, 0x55, sizes[s]);
			MPI_Sendrecv(out, (int)sizes[s], MPI_BYTE, right, tag, in,
				     (int)sizes[SIZES - 1], MPI_BYTE, left, tag,
				     MPI_COMM_WORLD, &status);
			MPI_Get_count(&status, MPI_BYTE, &count);
			if ((size_t)count != sizes[s]) {
				fprintf(stderr, "ring: rank %d got %d bytes of %zu\n",
					rank, count, sizes[s]);
				MPI_Abort(MPI_COMM_WORLD, 1);
			}
			verify_check(in, sizes[s], verify_key(left, rank, tag),
				     "ring", left, rank);
			total[0]++;
			total[1] += sizes[s];
		}
	}
	MPI_Reduce(total, sum, 2, MPI_UNSIGNED_LONG_LONG, MPI_SUM, 0, MPI_COMM_WORLD);
	if (!rank)
		printf("ring: %d ranks, %llu messages, %llu bytes verified\n", ranks,
		       sum[0], sum[1]);
	free(out);
	free(in);
	MPI_Finalize();
	return 0;
}
