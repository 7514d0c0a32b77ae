// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * pingpong - between rank 0 and rank 1: round trip of 1 byte, and bandwidth of
 * 64 KB to 1 MB messages, one at a time there and back.
 *
 * usage: pingpong [SECONDS]     for each size; default 1
 *
 * One JSON line a result, on rank 0:
 *   {"bench":"mpi-pingpong","metric":"rr","value":MEDIAN,"unit":"us","size":1,"n":COUNT,"p99":P99}
 *   {"bench":"mpi-pingpong","metric":"bandwidth","value":GBITS,"unit":"Gbit/s","size":BYTES,"n":COUNT}
 * The first and last message of each size are verified.
 *
 * Time is CLOCK_MONOTONIC: MPI_Wtime() stands still on processors without a
 * known frequency (user-mode Linux).
 */
#include <time.h>

#include "verify.h"

#define SAMPLES_MAX 200000
#define WARM_UP 20

static double samples[SAMPLES_MAX]; /* seconds of each round trip */

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Tag 0: one more; tag 1: the last one. */
static void ping(unsigned char *buf, size_t size, int last)
{
	MPI_Send(buf, (int)size, MPI_BYTE, 1, last, MPI_COMM_WORLD);
	MPI_Recv(buf, (int)size, MPI_BYTE, 1, last, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
}

static void pong(unsigned char *buf, size_t size)
{
	MPI_Status status;

	do {
		MPI_Recv(buf, (int)size, MPI_BYTE, 0, MPI_ANY_TAG, MPI_COMM_WORLD, &status);
		MPI_Send(buf, (int)size, MPI_BYTE, 0, status.MPI_TAG, MPI_COMM_WORLD);
	} while (!status.MPI_TAG);
}

static int measure(unsigned char *buf, size_t size, double seconds)
{
	double end, start;
	int i, n = 0;

	verify_fill(buf, size, size);
	for (i = 0; i < WARM_UP; i++)
		ping(buf, size, 0);
	verify_check(buf, size, size, "pingpong", 1, 0);
	end = now() + seconds;
	do {
		start = now();
		ping(buf, size, 0);
		samples[n++] = now() - start;
	} while (n < SAMPLES_MAX && samples[n - 1] + start < end);
	ping(buf, size, 1);
	verify_check(buf, size, size, "pingpong", 1, 0);
	return n;
}

/*
 * MPICH before 4.2 can hang in MPI_Finalize over UCX's tcp, whatever carries
 * the TCP (pmodels/mpich pull request 6596): to disconnect, a rank wants an
 * answer from its peer, but a peer that has its own answer sits in a barrier
 * of the launcher and reads nothing any more. Both get theirs if neither reads
 * the other's question before it has asked itself. So the last call of rank 1
 * is a send, which reads nothing, and it asks only when rank 0 surely has.
 */
static void leave(int rank)
{
#ifdef MPICH_NAME
	struct timespec nap = { .tv_sec = 1 };
	char bye = 0;

	if (rank == 0) {
		MPI_Recv(&bye, 1, MPI_CHAR, 1, 2, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
	} else {
		MPI_Send(&bye, 1, MPI_CHAR, 0, 2, MPI_COMM_WORLD);
		nanosleep(&nap, NULL);
	}
#endif
	MPI_Finalize();
}

int main(int argc, char **argv)
{
	static const size_t sizes[] = { 1, 65536, 131072, 262144, 524288, 1048576 };
	double seconds = argc > 1 ? atof(argv[1]) : 1.0, sum;
	unsigned char *buf = NULL;
	int rank, ranks, n, i;
	size_t s;

	MPI_Init(&argc, &argv);
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	MPI_Comm_size(MPI_COMM_WORLD, &ranks);
	if (ranks != 2) {
		if (!rank)
			fprintf(stderr, "pingpong: needs 2 ranks, has %d\n", ranks);
		MPI_Abort(MPI_COMM_WORLD, 1);
	}
	buf = verify_alloc(1 << 20);
	for (s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		if (rank == 1) {
			pong(buf, sizes[s]);
			continue;
		}
		n = measure(buf, sizes[s], seconds);
		sum = 0;
		for (i = 0; i < n; i++)
			sum += samples[i];
		qsort(samples, (size_t)n, sizeof(samples[0]), compare);
		if (sizes[s] == 1)
			printf("{\"bench\":\"mpi-pingpong\",\"metric\":\"rr\",\"value\":%.2f,\"unit\":\"us\",\"size\":1,\"n\":%d,\"p99\":%.2f}\n",
			       samples[n / 2] * 1e6, n, samples[n * 99 / 100] * 1e6);
		else
			printf("{\"bench\":\"mpi-pingpong\",\"metric\":\"bandwidth\",\"value\":%.3f,\"unit\":\"Gbit/s\",\"size\":%zu,\"n\":%d}\n",
			       2.0 * 8.0 * (double)sizes[s] * n / sum / 1e9, sizes[s], n);
		fflush(stdout);
	}
	free(buf);
	leave(rank);
	return 0;
}
