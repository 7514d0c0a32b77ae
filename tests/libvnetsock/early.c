// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * libearly.so: a library whose constructor runs before that of the preload
 * library and opens sockets, in several threads at once.
 */
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define THREADS 4

int early_sockets; /* how many it got */

static pthread_barrier_t barrier;

static void *open_one(void *arg)
{
	int fd;

	(void)arg;
	pthread_barrier_wait(&barrier);
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (fd >= 0) {
		__atomic_add_fetch(&early_sockets, 1, __ATOMIC_RELAXED);
		close(fd);
	}
	return NULL;
}

__attribute__((constructor)) static void early(void)
{
	pthread_t thread[THREADS];
	int i;

	if (!getenv("EARLY"))
		return;
	pthread_barrier_init(&barrier, NULL, THREADS);
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&thread[i], NULL, open_one, NULL))
			abort();
	for (i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
}
