// SPDX-License-Identifier: GPL-2.0-or-later
/* Much data, in pieces of all sizes, both ways at once, every byte compared; sendfile and splice. */
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "sock_common.h"

static uint64_t total = 48u << 20; /* $BULK_MB */

static size_t piece(unsigned int *rnd)
{
	*rnd = *rnd * 1103515245 + 12345;
	switch (*rnd >> 16 & 3) {
	case 0:
		return 1 + (*rnd >> 18) % 100;
	case 1:
		return 1 + (*rnd >> 18) % 5000;
	default:
		return 1 + (*rnd >> 8) % 200000;
	}
}

static void *writer(void *arg)
{
	static uint8_t buf[200001];
	int fd = (int)(intptr_t)arg;
	unsigned int rnd = 1;
	uint64_t at = 0;

	while (at < total) {
		size_t n = piece(&rnd);

		if (n > total - at)
			n = total - at;
		fill(buf, n, 3, at);
		write_all(fd, buf, n);
		at += n;
	}
	shutdown(fd, SHUT_WR);
	return NULL;
}

static void both_ways(void)
{
	static uint8_t buf[200001];
	unsigned int rnd = 77;
	pthread_t thread;
	uint64_t at = 0;
	ssize_t n;
	int fd = call(ECHO);

	check(pthread_create(&thread, NULL, writer, (void *)(intptr_t)fd) == 0);
	while ((n = recv(fd, buf, piece(&rnd), 0)) > 0) {
		check(matches(buf, (size_t)n, 3, at));
		at += (uint64_t)n;
	}
	check(n == 0 && at == total);
	pthread_join(thread, NULL);
	close(fd);
}

static void one_way(void)
{
	static uint8_t buf[1 << 20];
	uint64_t count = total, at = 0;
	ssize_t n;
	int fd = call(SOURCE);

	write_all(fd, &count, sizeof(count));
	while ((n = recv(fd, buf, sizeof(buf), 0)) > 0) {
		check(matches(buf, (size_t)n, 7, at));
		at += (uint64_t)n;
	}
	check(n == 0 && at == total);
	close(fd);
}

static void from_file(void)
{
	static uint8_t buf[1 << 20], back[1 << 20];
	char name[] = "/tmp/sock_bulk.XXXXXX";
	int file = mkstemp(name), fd = call(ECHO), pipes[2];
	off_t at = 0;
	size_t got = 0;
	ssize_t n;

	check(file >= 0 && unlink(name) == 0);
	fill(buf, sizeof(buf), 9, 0);
	check(write(file, buf, sizeof(buf)) == sizeof(buf));
	while (at < (off_t)sizeof(buf)) {
		check(sendfile(fd, file, &at, 100000) > 0);
		/* keep the echo from filling up */
		while ((n = recv(fd, back + got, sizeof(back) - got, MSG_DONTWAIT)) > 0)
			got += (size_t)n;
	}
	check(read_full(fd, back + got, sizeof(back) - got) == sizeof(back) - got);
	check(!memcmp(buf, back, sizeof(buf)));

	/* out of the socket by splice */
	check(pipe(pipes) == 0);
	write_all(fd, buf, 4000);
	for (got = 0; got < 4000; got += (size_t)n) {
		n = splice(fd, NULL, pipes[1], NULL, 4000 - got, 0);
		check(n > 0);
		check(read(pipes[0], back + got, (size_t)n) == n);
	}
	check(!memcmp(buf, back, 4000));
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
}

/*
 * Much of it, in pieces that lie in the pipe while more comes into the buffers
 * that they came in.
 */
static void through_pipe(void)
{
	static uint8_t buf[65536];
	uint64_t count = 4u << 20, at = 0;
	int pipes[2], fd = call(SOURCE);
	unsigned int rnd = 5;
	ssize_t n = 1;

	/* room for many small pieces of a page each, as TCP gives them */
	check(pipe(pipes) == 0 && fcntl(pipes[0], F_SETPIPE_SZ, 1 << 20) == 1 << 20);
	write_all(fd, &count, sizeof(count));
	while (n > 0) {
		size_t inside = 0, want;

		for (int i = 0; i < 4; i++) {
			want = 1 + piece(&rnd) % 15000;
			n = splice(fd, NULL, pipes[1], NULL, want, 0);
			check(n >= 0 && (size_t)n <= want);
			inside += (size_t)n;
		}
		check(!inside || read(pipes[0], buf, sizeof(buf)) == (ssize_t)inside);
		check(matches(buf, inside, 7, at));
		at += inside;
	}
	check(at == count);
	close(pipes[0]);
	close(pipes[1]);
	close(fd);
}

static void client(void)
{
	const char *mb = getenv("BULK_MB");

	if (mb)
		total = strtoull(mb, NULL, 10) << 20;
	if (!getenv("BULK_ONE_WAY"))
		both_ways();
	one_way();
	from_file();
	through_pipe();
}
