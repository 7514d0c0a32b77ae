// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Many connections open at once ($SCALE_CONNS, 1000), all moving data: more than there are receive buffers. Then one more
 * whose program does not read, which must not keep the others from it. Says what a connection takes of the kernel's memory
 * when it is idle, and how long a round over all of them takes.
 *
 * The server is one process with epoll: it sends back what comes, but to who begins with MUTE it does not listen any more.
 */
#include <sys/resource.h>

static void serve_all(int listener);
#define SOCK_SERVE serve_all

#include "sock_common.h"

#define ROUNDS 5
#define LENGTH 600

static void more_files(void)
{
	struct rlimit limit = { .rlim_cur = 100000, .rlim_max = 100000 };

	check(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void watch(int ep, int fd)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = fd };

	check(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
}

static void serve_all(int listener)
{
	static char buf[LENGTH];
	struct epoll_event ev[64];
	int ep = epoll_create1(0), i, n;

	more_files();
	check(ep >= 0 && fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
	watch(ep, listener);
	for (;;) {
		n = epoll_wait(ep, ev, 64, -1);
		for (i = 0; i < n; i++) {
			int fd = ev[i].data.fd;
			ssize_t got;

			if (fd == listener) {
				while ((fd = accept(listener, NULL, NULL)) >= 0)
					watch(ep, fd);
				continue;
			}
			got = recv(fd, buf, sizeof(buf), 0);
			if (got > 0 && buf[0] == MUTE)
				epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL);
			else if (got <= 0 || send(fd, buf, (size_t)got, MSG_NOSIGNAL) != got)
				close(fd);
		}
	}
}

/* KB; everything but what programs and the page cache have. */
static long kernel_memory(void)
{
	static const char *const mine[] = { "MemTotal:", "MemFree:", "AnonPages:", "Cached:", "Buffers:" };
	long sum = 0, value;
	char line[128], name[64];
	FILE *f = fopen("/proc/meminfo", "r");

	check(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %ld", name, &value) != 2)
			continue;
		for (unsigned int i = 0; i < sizeof(mine) / sizeof(mine[0]); i++)
			if (!strcmp(name, mine[i]))
				sum += i ? -value : value;
	}
	fclose(f);
	return sum;
}

struct slab {
	char name[32];
	long bytes;
};

/* What the kernel's caches hold, used or not; none in a kernel that does not tell. */
static int read_slabs(struct slab *slab, int max)
{
	FILE *f = fopen("/proc/slabinfo", "r");
	long pages, slabs;
	char line[256];
	int n = 0;

	while (f && n < max && fgets(line, sizeof(line), f))
		if (sscanf(line, "%31s %*d %*d %*d %*d %ld : tunables %*d %*d %*d : slabdata %*d %ld", slab[n].name,
			   &pages, &slabs) == 3)
			slab[n++].bytes = pages * slabs * sysconf(_SC_PAGESIZE);
	if (f)
		fclose(f);
	return n;
}

/* Where it went: the caches that grew by more than 50 bytes a connection. */
static void print_slabs(const struct slab *before, int n, int count)
{
	static struct slab after[400];
	long sum = 0, grown;
	int m = read_slabs(after, 400), i, k;

	printf("of that in caches:");
	for (i = 0; i < m; i++) {
		for (k = 0; k < n && strcmp(before[k].name, after[i].name); k++)
			;
		grown = (after[i].bytes - (k < n ? before[k].bytes : 0)) / count;
		sum += grown;
		if (grown > 50)
			printf(" %s %ld,", after[i].name, grown);
	}
	printf(" sum %ld\n", sum);
}

/* Something to all of them, then what all of them send back. Milliseconds. */
static int64_t one_round(const int *fd, int count, unsigned int seed)
{
	uint8_t buf[LENGTH], back[LENGTH];
	int64_t start = now_ms();
	int i;

	for (i = 0; i < count; i++) {
		fill(buf, sizeof(buf), seed + (unsigned int)i, 0);
		buf[0] = ECHO;
		write_all(fd[i], buf, sizeof(buf));
	}
	for (i = 0; i < count; i++) {
		check(read_full(fd[i], back, sizeof(back)) == sizeof(back));
		check(back[0] == ECHO && matches(back + 1, sizeof(back) - 1, seed + (unsigned int)i, 1));
	}
	return now_ms() - start;
}

static int64_t rounds(const int *fd, int count)
{
	int64_t sum = 0;

	for (unsigned int i = 0; i < ROUNDS; i++)
		sum += one_round(fd, count, i * 7919);
	return sum / ROUNDS;
}

static void client(void)
{
	const char *env = getenv("SCALE_CONNS");
	int count = env ? atoi(env) : 1000, i, slow;
	int *fd = calloc((size_t)count, sizeof(*fd));
	static struct slab slabs[400];
	int64_t start;
	long memory;
	int nr_slabs;
	char c = MUTE;

	check(fd);
	more_files();
	alarm(600);
	nr_slabs = read_slabs(slabs, 400);
	memory = kernel_memory();
	start = now_ms();
	for (i = 0; i < count; i++) {
		fd[i] = vnet_socket(peer.v6);
		check(connect(fd[i], sa(&peer), peer.len) == 0);
	}
	printf("%d connections after %lld ms; idle, each takes %ld bytes of this kernel\n", count,
	       (long long)(now_ms() - start), (kernel_memory() - memory) * 1024 / count);
	print_slabs(slabs, nr_slabs, count);
	for (i = 0; i < count; i++)
		check_offloaded(fd[i]);
	printf("a round over all of them: %lld ms\n", (long long)rounds(fd, count));

	slow = vnet_socket(peer.v6);
	check(connect(slow, sa(&peer), peer.len) == 0);
	check_offloaded(slow);
	write_all(slow, &c, 1);
	choke(slow);
	printf("with one that does not read: %lld ms\n", (long long)rounds(fd, count));
	for (i = 0; i < count; i++)
		close(fd[i]);
	close(slow);
}
