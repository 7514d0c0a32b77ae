// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mpich_finalize - preloaded by the programs of tests/vm/mpich-tests: a rank
 * that leaves goes on to answer the others for a moment.
 *
 * MPICH before 4.2 can hang in MPI_Finalize over UCX's tcp, whatever carries
 * the TCP (pmodels/mpich pull request 6596; more in tests/mpi/pingpong.c), and
 * every second run does. There it disconnects, progresses UCX until its peers
 * have answered, and then sits in a barrier of the launcher, where it answers
 * nobody. With this, the first of these calls for progress lasts longer.
 */
#include <dlfcn.h>
#include <mpi.h>
#include <time.h>

#define LINGER 0.5 /* seconds */

static int asked; /* and not progressed since */

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

unsigned int ucp_worker_progress(void *worker);

unsigned int ucp_worker_progress(void *worker)
{
	static unsigned int (*progress)(void *worker);
	double end;

	if (!progress)
		progress = (unsigned int (*)(void *))dlsym(RTLD_NEXT, "ucp_worker_progress");
	if (asked) {
		asked = 0;
		for (end = now() + LINGER; now() < end;)
			progress(worker);
	}
	return progress(worker);
}

void *ucp_disconnect_nb(void *ep);

void *ucp_disconnect_nb(void *ep)
{
	void *(*disconnect)(void *) = (void *(*)(void *))dlsym(RTLD_NEXT, "ucp_disconnect_nb");

	asked = 1;
	return disconnect(ep);
}

int MPI_Finalize(void)
{
	PMPI_Barrier(MPI_COMM_WORLD);
	return PMPI_Finalize();
}
