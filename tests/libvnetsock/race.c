// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The library's functions in one program with the thread sanitizer: threads that call and call while the policy file
 * (the argument) is replaced. Prints "ok"; a data race makes the sanitizer speak.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "vns.h"

#define THREADS 6

static atomic_bool stop;
static pthread_barrier_t barrier;

static void put_policy(const char *path, unsigned int n)
{
	char tmp[256];
	FILE *f;

	snprintf(tmp, sizeof(tmp), "%s.new", path);
	f = fopen(tmp, "we");
	if (!f)
		abort();
	fprintf(f, "reload 1\nlog off\ntcp connect race 127.0.0.1 %u\n", n + 1);
	if (fclose(f) || rename(tmp, path))
		abort();
}

static void *work(void *arg)
{
	struct sockaddr_in sa = { .sin_family = AF_INET, .sin_port = htons(1) };
	unsigned int *calls = arg;
	int fd;

	sa.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	pthread_barrier_wait(&barrier);
	while (!atomic_load(&stop)) {
		fd = socket(AF_INET, SOCK_STREAM, 0);
		if (fd < 0)
			abort();
		connect(fd, (struct sockaddr *)&sa, sizeof(sa));
		close(fd);
		++*calls;
	}
	return NULL;
}

static unsigned int reads(const struct vns_config **last)
{
	const struct vns_config *now = vns_config();
	bool other = now != *last;

	*last = now;
	return other;
}

int main(int argc, char **argv)
{
	const struct vns_config *last = NULL;
	unsigned int calls[THREADS] = { 0 }, i, changes = 0;
	pthread_t thread[THREADS];

	if (argc != 2)
		return 2;
	/* The library has looked for it before main(). */
	if (!getenv("VNET_POLICY")) {
		put_policy(argv[1], 0);
		setenv("VNET_POLICY", argv[1], 1);
		execv("/proc/self/exe", argv);
		return 2;
	}
	pthread_barrier_init(&barrier, NULL, THREADS);
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&thread[i], NULL, work, &calls[i]))
			abort();
	/* Until three policies have come into force. */
	for (i = 1; changes < 4; i++) {
		put_policy(argv[1], i);
		usleep(20000);
		changes += reads(&last); /* the first time, too */
	}
	atomic_store(&stop, true);
	for (i = 0; i < THREADS; i++) {
		pthread_join(thread[i], NULL);
		if (!calls[i])
			abort();
	}
	puts("ok");
	return 0;
}
