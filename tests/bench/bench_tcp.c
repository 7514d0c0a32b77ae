// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * bench_tcp - streams, round trips and connections per second over plain
 * sockets, so that one program measures every path. Client and server use the
 * same binary; the client prints one JSON line.
 *
 * usage:
 *   bench_tcp server [--port P] [--bind ADDR] [--daemon]
 *   bench_tcp stream  ADDR PORT [--seconds N] [--size BYTES] [--conns N]
 *   bench_tcp rr      ADDR PORT [--seconds N] [--size BYTES]
 *   bench_tcp connect ADDR PORT [--seconds N]
 *   bench_tcp smc-setup NETDEV RDMA-DEVICE
 *
 * server   prints "listening PORT" once it does; --daemon then goes to the
 *          background, so that who started it can go on without waiting.
 * stream   writes for N seconds over each connection; the time ends when the
 *          server has read everything and said so.
 * rr       sends SIZE bytes and waits for them to come back: median and p99.
 * connect  connect, one byte there, one byte back, end of file, close.
 *
 * --smc: by sockets of AF_SMC, on both sides. smc-setup makes that RDMA, where the
 * kernel would fall back to TCP.
 *
 * The first byte of a connection says what it is: S, R or C. ADDR is numeric
 * (no resolver, so that the program can be linked statically).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "smc.h"
#include "vnet_sock.h"

#define SAMPLES_MAX 2000000
#define CONNS_MAX 256
#define ASK_EVERY 16

static double seconds = 3;
static size_t size;
static int conns = 1;
static int smc;
static struct sockaddr_storage addr;
static socklen_t addr_len;

__attribute__((noreturn, format(printf, 1, 2)))
static void die(const char *fmt, ...)
{
	int err = errno;
	va_list ap;

	fputs("bench_tcp: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, ": %s\n", strerror(err));
	exit(1);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void *alloc(size_t bytes)
{
	void *p = calloc(1, bytes);

	if (!p)
		die("%zu bytes", bytes);
	return p;
}

/* Reads exactly len bytes; 0 at end of file. */
static int read_all(int fd, void *buf, size_t len)
{
	size_t at = 0;
	ssize_t n;

	while (at < len) {
		n = read(fd, (char *)buf + at, len - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		if (!n)
			return 0;
		at += (size_t)n;
	}
	return 1;
}

static int write_all(int fd, const void *buf, size_t len)
{
	size_t at = 0;
	ssize_t n;

	while (at < len) {
		n = write(fd, (const char *)buf + at, len - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -1;
		at += (size_t)n;
	}
	return 0;
}

static void no_delay(int fd)
{
	int one = 1;

	if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)))
		die("TCP_NODELAY");
}

static int stream_socket(void)
{
	int fd = smc ? socket(AF_SMC, SOCK_STREAM, addr.ss_family == AF_INET6) :
		       socket(addr.ss_family, SOCK_STREAM, 0);

	if (fd < 0)
		die("socket");
	return fd;
}

/* ---- server ---- */

/* Reads a stream to its end and answers with its length. */
static void serve_stream(int fd)
{
	enum { CHUNK = 256 * 1024 };
	char *buf = alloc(CHUNK);
	uint64_t total = 0;
	ssize_t n;

	while ((n = read(fd, buf, CHUNK)) > 0)
		total += (uint64_t)n;
	if (!n)
		write_all(fd, &total, sizeof(total));
	free(buf);
}

static void serve_rr(int fd)
{
	enum { CHUNK = 64 * 1024 };
	char *buf = alloc(CHUNK);
	ssize_t n;

	no_delay(fd);
	while ((n = read(fd, buf, CHUNK)) > 0)
		if (write_all(fd, buf, (size_t)n))
			break;
	free(buf);
}

struct peer {
	int fd;
	char kind;
};

static void *serve(void *arg)
{
	struct peer *peer = arg;

	if (peer->kind == 'S')
		serve_stream(peer->fd);
	else if (peer->kind == 'R')
		serve_rr(peer->fd);
	close(peer->fd);
	free(peer);
	return NULL;
}

static void accept_forever(int l)
{
	const struct timeval patience = { .tv_sec = 5 };
	struct peer *peer;
	pthread_t thread;
	char kind;
	int fd;

	for (;;) {
		fd = accept(l, NULL, NULL);
		if (fd < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			die("accept");
		}
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
		if (read(fd, &kind, 1) != 1) {
			close(fd);
			continue;
		}
		if (kind == 'C') {
			/* Here, not in a thread: that would be measured too. */
			if (write(fd, &kind, 1) != 1)
				fprintf(stderr, "bench_tcp: reply: %s\n", strerror(errno));
			close(fd);
			continue;
		}
		setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){ 0 },
			   sizeof(struct timeval));
		peer = alloc(sizeof(*peer));
		*peer = (struct peer){ fd, kind };
		if (pthread_create(&thread, NULL, serve, peer))
			die("thread");
		pthread_detach(thread);
	}
}

static void server(int background)
{
	int l = stream_socket(), one = 1;
	struct sockaddr_storage local;
	socklen_t len = sizeof(local);
	uint16_t port;

	setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(l, (struct sockaddr *)&addr, addr_len))
		die("bind");
	if (listen(l, 1024))
		die("listen");
	if (getsockname(l, (struct sockaddr *)&local, &len))
		die("getsockname");
	port = local.ss_family == AF_INET ? ((struct sockaddr_in *)&local)->sin_port :
					    ((struct sockaddr_in6 *)&local)->sin6_port;
	printf("listening %d\n", ntohs(port));
	fflush(stdout);
	if (background && daemon(0, 0))
		die("daemon");
	accept_forever(l);
}

/* ---- client ---- */

static int connect_kind(char kind)
{
	int fd = stream_socket();

	if (connect(fd, (struct sockaddr *)&addr, addr_len))
		die("connect");
	if (write(fd, &kind, 1) != 1)
		die("write");
	return fd;
}

/* Which way the socket runs: vtoe, plain, tcp:REASON (a socket of AF_INET_VNET that fell back), or smc_path()'s. */
static const char *path_of(int fd)
{
	struct vnet_so_path path;
	socklen_t len = sizeof(path);
	char *text;

	if (smc)
		return smc_path(fd);
	if (getsockopt(fd, SOL_VNET, VNET_SO_PATH, &path, &len))
		return "plain";
	if (path.path == VNET_PATH_VTOE)
		return "vtoe";
	text = alloc(5 + sizeof(path.reason_name));
	sprintf(text, "tcp:%.31s", path.reason_name);
	return text; /* for as long as the program runs */
}

static double cpu_used(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

struct stream {
	pthread_t thread;
	uint64_t bytes;
	const char *path;
	double end;
};

static pthread_barrier_t start_line;
static volatile sig_atomic_t time_is_up;

static void on_alarm(int sig)
{
	(void)sig;
	time_is_up = 1;
}

/* To read the clock after each write would be measured, too. */
static void start_alarm(void)
{
	const struct sigaction action = { .sa_handler = on_alarm, .sa_flags = SA_RESTART };
	struct itimerval after = { { 0 }, { 0 } };

	after.it_value.tv_sec = (time_t)seconds;
	after.it_value.tv_usec = (suseconds_t)((seconds - (double)(time_t)seconds) * 1e6);
	if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &after, NULL))
		die("timer");
}

static void *run_stream(void *arg)
{
	struct stream *s = arg;
	char *buf = alloc(size);
	uint64_t got = 0;
	int fd = connect_kind('S');

	pthread_barrier_wait(&start_line);
	do {
		if (write_all(fd, buf, size))
			die("write");
		s->bytes += size;
	} while (!time_is_up);
	if (shutdown(fd, SHUT_WR))
		die("shutdown");
	if (read_all(fd, &got, sizeof(got)) != 1)
		die("the server's count did not come");
	s->end = now();
	if (got != s->bytes) {
		fprintf(stderr, "bench_tcp: sent %llu bytes, the server read %llu\n",
			(unsigned long long)s->bytes, (unsigned long long)got);
		exit(1);
	}
	s->path = path_of(fd);
	close(fd);
	free(buf);
	return NULL;
}

static void stream(void)
{
	struct stream *all = alloc(sizeof(*all) * (size_t)conns);
	double start, end = 0;
	uint64_t bytes = 0;
	int i;

	pthread_barrier_init(&start_line, NULL, (unsigned int)conns + 1);
	for (i = 0; i < conns; i++)
		if (pthread_create(&all[i].thread, NULL, run_stream, &all[i]))
			die("thread");
	start_alarm();
	pthread_barrier_wait(&start_line);
	start = now();
	for (i = 0; i < conns; i++) {
		pthread_join(all[i].thread, NULL);
		bytes += all[i].bytes;
		end = all[i].end > end ? all[i].end : end;
		if (strcmp(all[i].path, all[0].path))
			all[0].path = "mixed";
	}
	printf("{\"bench\":\"stream\",\"value\":%.4f,\"unit\":\"Gbit/s\",\"bytes\":%llu,\"seconds\":%.3f,\"size\":%zu,\"conns\":%d,\"path\":\"%s\",\"cpu_s\":%.3f}\n",
	       (double)bytes * 8 / (end - start) / 1e9, (unsigned long long)bytes,
	       end - start, size, conns, all[0].path, cpu_used());
	free(all);
}

static int compare(const void *a, const void *b)
{
	float x = *(const float *)a, y = *(const float *)b;

	return (x > y) - (x < y);
}

static void rr(void)
{
	float *samples = alloc(sizeof(*samples) * SAMPLES_MAX);
	char *buf = alloc(size);
	int fd = connect_kind('R'), i;
	double start, stop, end;
	const char *path;
	size_t n = 0;

	no_delay(fd);
	stop = now() + seconds;
	for (i = -50; n < SAMPLES_MAX; i++) {
		start = now();
		if (write_all(fd, buf, size) || read_all(fd, buf, size) != 1)
			die("round trip");
		end = now();
		if (i >= 0) /* the first ones warm up */
			samples[n++] = (float)((end - start) * 1e6);
		if (end > stop && n)
			break;
	}
	path = path_of(fd);
	close(fd);
	qsort(samples, n, sizeof(*samples), compare);
	printf("{\"bench\":\"rr\",\"value\":%.2f,\"unit\":\"us\",\"p99\":%.2f,\"min\":%.2f,\"count\":%zu,\"size\":%zu,\"conns\":1,\"path\":\"%s\",\"cpu_s\":%.3f}\n",
	       (double)samples[n / 2], (double)samples[n * 99 / 100], (double)samples[0],
	       n, size, path, cpu_used());
	free(samples);
	free(buf);
}

static void connects(void)
{
	double start = now(), stop = start + seconds, end;
	unsigned long n = 0;
	const char *path = "";
	char byte;
	int fd;

	do {
		fd = connect_kind('C');
		if (read(fd, &byte, 1) != 1 || byte != 'C')
			die("reply");
		/* The server closes first, so that our ports are free at once. */
		if (read(fd, &byte, 1) != 0)
			die("end of file");
		/*
		 * Which way it went is asked of some: it is a system call, which
		 * would be measured with the offload alone. The reason of the
		 * first that was not offloaded is worth keeping.
		 */
		if (n % ASK_EVERY == 0 && (!n || !strcmp(path, "vtoe") || !strcmp(path, "smc-r")))
			path = path_of(fd);
		close(fd);
		n++;
		end = now();
	} while (end < stop);
	printf("{\"bench\":\"connect\",\"value\":%.1f,\"unit\":\"1/s\",\"count\":%lu,\"seconds\":%.3f,\"size\":1,\"conns\":1,\"path\":\"%s\",\"cpu_s\":%.3f}\n",
	       (double)n / (end - start), n, end - start, path, cpu_used());
}

/* ---- command line ---- */

__attribute__((noreturn)) static void usage(const char *what)
{
	if (what)
		fprintf(stderr, "bench_tcp: %s\n", what);
	fputs("usage: bench_tcp server [--port P] [--bind ADDR] [--daemon]\n"
	      "       bench_tcp stream|rr|connect ADDR PORT [--seconds N] [--size BYTES] [--conns N]\n"
	      "       bench_tcp smc-setup NETDEV RDMA-DEVICE\n"
	      "--smc: by sockets of AF_SMC\n",
	      stderr);
	exit(2);
}

static void set_addr(const char *text, const char *port_text)
{
	struct sockaddr_in *in = (void *)&addr;
	struct sockaddr_in6 *in6 = (void *)&addr;
	char *rest;
	unsigned long port = strtoul(port_text, &rest, 10);

	if (*rest || port > 65535)
		usage("bad port");
	if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		addr_len = sizeof(*in);
	} else if (inet_pton(AF_INET6, text, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons((uint16_t)port);
		addr_len = sizeof(*in6);
	} else {
		usage("bad address: it must be numeric");
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },
		{ "bind", required_argument, NULL, 'b' },
		{ "daemon", no_argument, NULL, 'd' },
		{ "seconds", required_argument, NULL, 's' },
		{ "size", required_argument, NULL, 'z' },
		{ "conns", required_argument, NULL, 'c' },
		{ "smc", no_argument, &smc, 1 },
		{ NULL, 0, NULL, 0 },
	};
	const char *port = "5201", *bind_addr = "0.0.0.0", *what;
	int opt, background = 0;

	signal(SIGPIPE, SIG_IGN);
	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 0:
			break;
		case 'p':
			port = optarg;
			break;
		case 'b':
			bind_addr = optarg;
			break;
		case 'd':
			background = 1;
			break;
		case 's':
			seconds = atof(optarg);
			break;
		case 'z':
			size = strtoul(optarg, NULL, 10);
			break;
		case 'c':
			conns = atoi(optarg);
			break;
		default:
			usage(NULL);
		}
	}
	if (seconds <= 0 || conns < 1 || conns > CONNS_MAX || size > 1 << 28)
		usage("--seconds, --size or --conns out of range");
	what = optind < argc ? argv[optind] : "";
	if (!strcmp(what, "server") && argc - optind == 1) {
		set_addr(bind_addr, port);
		server(background);
	}
	if (argc - optind != 3)
		usage(NULL);
	if (!strcmp(what, "smc-setup"))
		return smc_setup(argv[optind + 1], argv[optind + 2]) ? 1 : 0;
	set_addr(argv[optind + 1], argv[optind + 2]);
	if (!strcmp(what, "stream")) {
		size = size ? size : 128 * 1024;
		stream();
	} else if (!strcmp(what, "rr")) {
		size = size ? size : 1;
		rr();
	} else if (!strcmp(what, "connect")) {
		connects();
	} else {
		usage(NULL);
	}
	return 0;
}
