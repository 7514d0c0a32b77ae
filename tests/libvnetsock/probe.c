// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A program as others see it: it uses sockets in the ways that the tests of
 * libvnetsock are about, and knows nothing of the library.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern int early_sockets __attribute__((weak));

#define EXPECT(what)                                                        \
	do {                                                                \
		if (!(what)) {                                              \
			printf("line %d: not so: %s (errno %s)\n", __LINE__, \
			       #what, strerrorname_np(errno));              \
			exit(1);                                            \
		}                                                           \
	} while (0)

static int open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

static socklen_t address(const char *text, int port, struct sockaddr_storage *ss)
{
	struct sockaddr_in *in = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		return sizeof(*in);
	}
	EXPECT(inet_pton(AF_INET6, text, &in6->sin6_addr) == 1);
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons((uint16_t)port);
	return sizeof(*in6);
}

/* ---- one call each ---- */

static void sockets(void)
{
	static const int kinds[][3] = {
		{ AF_INET, SOCK_STREAM, 0 },
		{ AF_INET, SOCK_STREAM | SOCK_CLOEXEC, IPPROTO_TCP },
		{ AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0 },
		{ AF_INET, SOCK_DGRAM, 0 },
		{ AF_UNIX, SOCK_STREAM, 0 },
		{ AF_INET, SOCK_STREAM, IPPROTO_UDP },
	};
	int before = open_fds(), fd, flags;
	size_t i;

	for (i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		errno = EXDEV;
		fd = socket(kinds[i][0], kinds[i][1], kinds[i][2]);
		if (fd < 0) {
			printf("%s\n", strerrorname_np(errno));
			continue;
		}
		EXPECT(errno == EXDEV);
		flags = fcntl(fd, F_GETFL) & O_NONBLOCK;
		EXPECT(!flags == !(kinds[i][1] & SOCK_NONBLOCK));
		flags = fcntl(fd, F_GETFD) & FD_CLOEXEC;
		EXPECT(!flags == !(kinds[i][1] & SOCK_CLOEXEC));
		errno = EXDEV;
		EXPECT(!close(fd) && errno == EXDEV);
	}
	EXPECT(open_fds() == before);
}

/* Connects, blocking, and prints ok or the error. */
static void connect_to(int type, const char *addr, int port)
{
	struct sockaddr_storage ss;
	socklen_t len = address(addr, port, &ss);
	int fd = socket(ss.ss_family, type, 0);

	if (fd < 0 || connect(fd, (struct sockaddr *)&ss, len))
		printf("%s\n", strerrorname_np(errno));
	else
		printf("ok\n");
	close(fd);
}

/* A listener, a connection to it, one byte; every call that works leaves errno alone. */
static void pair(const char *addr)
{
	struct sockaddr_storage ss;
	socklen_t len = address(addr, 0, &ss);
	int l = socket(ss.ss_family, SOCK_STREAM, 0);
	int c = socket(ss.ss_family, SOCK_STREAM, 0), a;
	char byte = 'x';

	errno = EXDEV;
	EXPECT(l >= 0 && c >= 0);
	EXPECT(!bind(l, (struct sockaddr *)&ss, len));
	if (listen(l, 1)) {
		printf("listen %s\n", strerrorname_np(errno));
		exit(0);
	}
	EXPECT(errno == EXDEV);
	EXPECT(!getsockname(l, (struct sockaddr *)&ss, &len));
	EXPECT(!connect(c, (struct sockaddr *)&ss, len) && errno == EXDEV);
	a = accept(l, NULL, NULL);
	EXPECT(a >= 0 && write(c, &byte, 1) == 1 && read(a, &byte, 1) == 1);
	EXPECT(byte == 'x');
	EXPECT(!close(c) && errno == EXDEV);
	/* The accepted one is left for the exit. */
	EXPECT(!close(l));
	printf("ok\n");
}

/* ---- many at once ---- */

static void *churn(void *arg)
{
	int i, fd;

	for (i = 0; i < 2000; i++) {
		fd = socket(i % 2 ? AF_INET : AF_INET6, SOCK_STREAM, 0);
		EXPECT(fd >= 0);
		EXPECT(!close(fd));
	}
	return arg;
}

static void threads(void)
{
	int before = open_fds(), i;
	pthread_t thread[8];

	for (i = 0; i < 8; i++)
		EXPECT(!pthread_create(&thread[i], NULL, churn, NULL));
	for (i = 0; i < 8; i++)
		pthread_join(thread[i], NULL);
	EXPECT(open_fds() == before);
	printf("ok\n");
}

/* Children of a process whose threads are in the middle of it. */
static void forks(void)
{
	pthread_t thread[2];
	int i, status;
	pid_t child;

	alarm(60);
	for (i = 0; i < 2; i++)
		EXPECT(!pthread_create(&thread[i], NULL, churn, NULL));
	for (i = 0; i < 200; i++) {
		child = fork();
		EXPECT(child >= 0);
		if (!child) {
			alarm(10);
			_exit(socket(AF_INET, SOCK_STREAM, 0) < 0);
		}
		EXPECT(waitpid(child, &status, 0) == child && status == 0);
	}
	for (i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	printf("ok\n");
}

static volatile sig_atomic_t ticks;

static void on_tick(int sig)
{
	int saved = errno, fd = socket(AF_INET, SOCK_STREAM, 0);

	(void)sig;
	if (fd < 0 || close(fd))
		abort();
	errno = saved;
	ticks++;
}

static void signals(void)
{
	struct itimerval timer = { { 0, 50 }, { 0, 50 } };
	struct sigaction action = { .sa_handler = on_tick, .sa_flags = SA_RESTART };

	alarm(60);
	EXPECT(!sigaction(SIGALRM, &action, NULL));
	EXPECT(!setitimer(ITIMER_REAL, &timer, NULL));
	while (ticks < 500) {
		void *p = malloc(3000);
		int fd = socket(AF_INET, SOCK_STREAM, 0);

		EXPECT(fd >= 0 && !close(fd));
		free(p);
	}
	printf("ok\n");
}

static pid_t vfork_one(void)
{
	pid_t child = vfork();

	if (!child)
		_exit(close(socket(AF_INET, SOCK_STREAM, 0)) != 0);
	return child;
}

/* A child that has its parent's memory, while its other threads go on. */
static void vforks(void)
{
	pthread_t thread[2];
	int i, status;
	pid_t child;

	alarm(60);
	for (i = 0; i < 2; i++)
		EXPECT(!pthread_create(&thread[i], NULL, churn, NULL));
	for (i = 0; i < 200; i++) {
		child = vfork_one();
		EXPECT(child > 0 && waitpid(child, &status, 0) == child && status == 0);
	}
	for (i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	printf("ok\n");
}

/* System calls that no library sees, and calls of libc on what they made. */
static void raw(void)
{
	struct sockaddr_storage ss;
	socklen_t len = address("127.0.0.1", 0, &ss);
	int l = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
	int c = (int)syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);

	EXPECT(l >= 0 && c >= 0);
	EXPECT(!bind(l, (struct sockaddr *)&ss, len) && !listen(l, 1));
	EXPECT(!getsockname(l, (struct sockaddr *)&ss, &len));
	EXPECT(!connect(c, (struct sockaddr *)&ss, len));
	EXPECT(!syscall(SYS_close, c) && !close(l));
	EXPECT(close(c) == -1 && errno == EBADF);
	printf("ok\n");
}

/* ---- a policy that changes ---- */

/* How a connect to a port where nobody listens ends; ENETUNREACH if it must be offloaded. */
static int refusal(void)
{
	struct sockaddr_storage ss;
	socklen_t len = address("127.0.0.1", 1, &ss);
	int fd = socket(AF_INET, SOCK_STREAM, 0), err;

	EXPECT(fd >= 0 && connect(fd, (struct sockaddr *)&ss, len));
	err = errno;
	EXPECT(!close(fd));
	return err;
}

/*
 * Renames `to` to the policy file, or removes that for "-", and tries until connects end in another way, or, for as long
 * as `seconds`, do not.
 */
static void reload(const char *policy, const char *to, int seconds)
{
	struct timespec start, now;
	int first = refusal(), fds = open_fds();

	if (strcmp(to, "-"))
		EXPECT(!rename(to, policy));
	else
		EXPECT(!unlink(policy));
	clock_gettime(CLOCK_MONOTONIC, &start);
	do {
		if (refusal() != first) {
			EXPECT(open_fds() == fds);
			printf("%s, then %s\n", strerrorname_np(first), strerrorname_np(refusal()));
			return;
		}
		usleep(10000);
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while (now.tv_sec - start.tv_sec < seconds);
	printf("%s\n", strerrorname_np(first));
}

/* ---- stderr ---- */

/* A daemon that closed stderr and got another file in its place. */
static void stolen_stderr(void)
{
	int pipe_fd[2];
	char byte;

	EXPECT(!pipe2(pipe_fd, O_NONBLOCK));
	EXPECT(dup2(pipe_fd[1], STDERR_FILENO) == STDERR_FILENO);
	pair("127.0.0.1");
	EXPECT(read(pipe_fd[0], &byte, 1) < 0 && errno == EAGAIN);
}

/* A program whose stderr nobody reads any more. */
static void no_reader(char *self)
{
	char *argv[] = { self, (char *)"pair", (char *)"127.0.0.1", NULL };
	int pipe_fd[2];

	EXPECT(!pipe(pipe_fd));
	close(pipe_fd[0]);
	EXPECT(dup2(pipe_fd[1], STDERR_FILENO) == STDERR_FILENO);
	execv("/proc/self/exe", argv);
	EXPECT(!"exec");
}

int main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (!strcmp(what, "sockets"))
		sockets();
	else if (!strcmp(what, "connect") && argc == 4)
		connect_to(SOCK_STREAM, argv[2], atoi(argv[3]));
	else if (!strcmp(what, "udp") && argc == 4)
		connect_to(SOCK_DGRAM, argv[2], atoi(argv[3]));
	else if (!strcmp(what, "pair") && argc == 3)
		pair(argv[2]);
	else if (!strcmp(what, "threads"))
		threads();
	else if (!strcmp(what, "forks"))
		forks();
	else if (!strcmp(what, "vforks"))
		vforks();
	else if (!strcmp(what, "raw"))
		raw();
	else if (!strcmp(what, "reload") && argc == 5)
		reload(argv[2], argv[3], atoi(argv[4]));
	else if (!strcmp(what, "signals"))
		signals();
	else if (!strcmp(what, "stolen-stderr"))
		stolen_stderr();
	else if (!strcmp(what, "no-reader"))
		no_reader(argv[0]);
	else if (!strcmp(what, "early"))
		printf("%d\n", &early_sockets ? early_sockets : -1);
	else
		return 2;
	return 0;
}
