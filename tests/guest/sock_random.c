// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Random socket calls, to find what makes a kernel with KASAN and lockdep complain: many threads in some processes, on
 * descriptors that they share, close and replace under each other; arguments that are right, wrong, or bad pointers.
 * (Debian's trinity does not know the family.)
 *
 *   sock_random SECONDS [SEED]
 *
 * Nothing is expected of a single call. Expected is that the processes end when they are told to, that calls succeeded
 * and connections were offloaded meanwhile, and that afterwards a new connection is offloaded and moves data.
 * Calls that block are ended by a signal, twenty times a second.
 */
#define SOCK_OWN_MAIN
#include <linux/sockios.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "sock_common.h"

#define PROCESSES 3
#define THREADS 5
#define SLOTS 48
#define AREA (64 << 10)

struct shared {
	_Atomic uint64_t calls, good, sockets;
	_Atomic int stop, port[8]; /* of listeners */
};

static struct shared *shared;
static _Atomic int slots[SLOTS];
static char *area;		     /* AREA bytes, then a page that is not there */
static int pipes[2], epoll_fd, file; /* for splice, epoll, sendfile */
static __thread uint64_t state;

static uint32_t rnd(uint32_t below)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (uint32_t)((state * 2685821657736338717ull) >> 33) % below;
}

#define ONE_OF(...)                                                                         \
	({                                                                                  \
		const long list[] = { __VA_ARGS__ };                                        \
		list[rnd(sizeof(list) / sizeof(list[0]))];                                  \
	})

/* A place for size bytes: mostly one, or what only looks like one. */
static void *place(size_t size)
{
	switch (rnd(24)) {
	case 0: return NULL;
	case 1: return (void *)1;
	case 2: return (void *)0xffff888000000000ul; /* the kernel's */
	case 3: return area + AREA;		     /* not mapped */
	case 4: return area + AREA - rnd((uint32_t)size + 1); /* its end is not */
	default: return area + rnd(AREA / 2);
	}
}

static size_t length(void)
{
	return (size_t)ONE_OF(0, 1, 2, 16, 28, 100, 1448, 4096, 4097, 30000, rnd(AREA / 2), 0x7fffffff, -1);
}

static int some_fd(void)
{
	return rnd(60) ? slots[rnd(SLOTS)] : (int)ONE_OF(-1, 1 << 20, pipes[0], file);
}

/* Whoever had the descriptor before may be in the middle of a call. */
static void keep(long fd)
{
	int before;

	if (fd < 0)
		return;
	shared->sockets++;
	before = atomic_exchange(&slots[rnd(SLOTS)], (int)fd);
	if (before >= 0)
		close(before);
}

static socklen_t some_addr(struct sockaddr_storage *ss)
{
	*ss = peer.ss;
	set_port((struct addr *)ss, rnd(8) ? shared->port[rnd(8)] : (int)rnd(65536));
	switch (rnd(20)) {
	case 0: ss->ss_family = AF_UNSPEC; break;
	case 1: ss->ss_family = (sa_family_t)rnd(50); break;
	case 2: ((struct sockaddr_in *)ss)->sin_addr.s_addr = htonl(INADDR_LOOPBACK); break;
	case 3: ((struct sockaddr_in *)ss)->sin_addr.s_addr = rnd(2) ? rnd(1u << 31) : 0; break;
	}
	return rnd(20) ? peer.len : rnd(200);
}

/* ---- calls ---- */

static long call_socket(void)
{
	int type = (int)ONE_OF(SOCK_STREAM, SOCK_STREAM, SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, 77);
	int protocol = (int)ONE_OF(VNETPROTO_IP4, VNETPROTO_IP4, VNETPROTO_IP4, VNETPROTO_IP6, IPPROTO_TCP, -1, 260);
	int fd = socket(family(), type | (rnd(4) ? SOCK_NONBLOCK : 0) | (rnd(2) ? SOCK_CLOEXEC : 0), protocol);

	keep(fd);
	return fd;
}

static long call_listen(void)
{
	struct addr name = { .len = sizeof(name.ss) };
	int fd = some_fd();
	long ret = listen(fd, (int)ONE_OF(0, 1, 5, 128, -1));

	if (!ret && !getsockname(fd, sa(&name), &name.len))
		shared->port[rnd(8)] = port_of(&name);
	return ret;
}

static long call_bind(void)
{
	struct sockaddr_storage ss;
	socklen_t len = some_addr(&ss);

	if (rnd(3))
		((struct sockaddr_in *)&ss)->sin_port = 0;
	return bind(some_fd(), rnd(20) ? (void *)&ss : place(len), len);
}

static long call_connect(void)
{
	struct sockaddr_storage ss;
	socklen_t len = some_addr(&ss);

	return connect(some_fd(), rnd(20) ? (void *)&ss : place(len), len);
}

static long call_accept(void)
{
	socklen_t len = rnd(200);
	int fd = rnd(2) ? accept4(some_fd(), NULL, NULL, rnd(2) ? SOCK_NONBLOCK : 0) :
			  accept4(some_fd(), place(16), rnd(8) ? &len : place(4), (int)rnd(4) << 11);

	keep(fd);
	return fd;
}

static int some_flags(void)
{
	int flags = MSG_NOSIGNAL | (rnd(4) ? MSG_DONTWAIT : 0);

	return rnd(2) ? flags : flags | (int)ONE_OF(MSG_PEEK, MSG_TRUNC, MSG_WAITALL, MSG_OOB, MSG_MORE, MSG_ERRQUEUE,
						  MSG_ZEROCOPY, MSG_EOR, MSG_FASTOPEN, MSG_CMSG_CLOEXEC, rnd(1u << 30));
}

static void fill_msg(struct msghdr *msg, struct iovec *iov, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		iov[i] = (struct iovec){ place(64), rnd(3) ? rnd(5000) : length() };
	*msg = (struct msghdr){ .msg_iov = iov, .msg_iovlen = count };
	if (!rnd(4)) {
		msg->msg_control = place(64);
		msg->msg_controllen = rnd(300);
	}
	if (!rnd(4)) {
		msg->msg_name = place(28);
		msg->msg_namelen = rnd(200);
	}
}

static long call_send(void)
{
	struct mmsghdr many[4];
	struct iovec iov[4][3];

	switch (rnd(4)) {
	case 0: return write(some_fd(), place(64), length());
	case 1: return send(some_fd(), place(64), length(), some_flags());
	}
	for (int i = 0; i < 4; i++)
		fill_msg(&many[i].msg_hdr, iov[i], rnd(4));
	return rnd(2) ? sendmsg(some_fd(), &many[0].msg_hdr, some_flags()) : sendmmsg(some_fd(), many, 4, some_flags());
}

static long call_recv(void)
{
	struct timespec limit = { 0, 1000000 };
	struct mmsghdr many[4];
	struct iovec iov[4][3];

	switch (rnd(4)) {
	case 0: return read(some_fd(), place(64), length());
	case 1: return recv(some_fd(), place(64), length(), some_flags());
	}
	for (int i = 0; i < 4; i++)
		fill_msg(&many[i].msg_hdr, iov[i], rnd(4));
	return rnd(2) ? recvmsg(some_fd(), &many[0].msg_hdr, some_flags()) :
			recvmmsg(some_fd(), many, 4, some_flags(), &limit);
}

static long call_splice(void)
{
	off_t at = rnd(1000);

	switch (rnd(3)) {
	case 0: return sendfile(some_fd(), file, rnd(2) ? &at : NULL, rnd(70000));
	case 1: return splice(some_fd(), NULL, pipes[1], NULL, rnd(70000), SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
	default: return splice(pipes[0], NULL, some_fd(), NULL, rnd(70000), SPLICE_F_NONBLOCK | SPLICE_F_MORE);
	}
}

static int some_level(void)
{
	return (int)ONE_OF(SOL_SOCKET, SOL_SOCKET, SOL_TCP, SOL_TCP, SOL_IP, SOL_IPV6, SOL_VNET, rnd(400));
}

static long call_setsockopt(void)
{
	int *value = place(64);

	if (value >= (int *)area && value < (int *)(area + AREA / 2))
		*value = (int)ONE_OF(0, 1, 2, 100, -1, rnd(1u << 30));
	return setsockopt(some_fd(), some_level(), (int)rnd(80), value, (socklen_t)ONE_OF(0, 1, 4, 4, 4, 8, 16, 40, 5000, -1));
}

static long call_getsockopt(void)
{
	socklen_t len = (socklen_t)ONE_OF(0, 1, 4, 4, 16, 48, 300, 5000, -1);

	return getsockopt(some_fd(), some_level(), (int)rnd(80), place(64), rnd(8) ? &len : place(4));
}

static long call_name(void)
{
	socklen_t len = rnd(200);

	return rnd(2) ? getsockname(some_fd(), place(28), rnd(8) ? &len : place(4)) :
			getpeername(some_fd(), place(28), rnd(8) ? &len : place(4));
}

static long call_ioctl(void)
{
	int pid = getpid();

	/* none that sets something of an interface */
	if (!rnd(4))
		return ioctl(some_fd(), (unsigned long)ONE_OF(FIOSETOWN, SIOCSPGRP), &pid);
	return ioctl(some_fd(), (unsigned long)ONE_OF(FIONREAD, SIOCOUTQ, SIOCOUTQNSD, SIOCATMARK, FIONBIO, FIOASYNC, SIOCGIFCONF,
				 SIOCGIFMTU, SIOCGIFINDEX, SIOCGSTAMP_OLD, 0xdeadbeef), place(64));
}

static long call_poll(void)
{
	struct epoll_event ev = { .events = rnd(2) ? EPOLLIN | EPOLLOUT | EPOLLET : rnd(1u << 31) }, out[8];
	struct pollfd pfd[4];

	switch (rnd(4)) {
	case 0: return epoll_ctl(epoll_fd, (int)rnd(4), some_fd(), &ev);
	case 1: return epoll_wait(epoll_fd, out, 8, (int)rnd(3));
	}
	for (int i = 0; i < 4; i++)
		pfd[i] = (struct pollfd){ .fd = some_fd(), .events = (short)rnd(1 << 15) };
	return poll(pfd, 4, (int)rnd(3));
}

/* A descriptor travels, or stays in a socket that nobody reads any more. */
static long call_pass(void)
{
	union {
		char room[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} u = { .align = { .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	char c = 0;
	struct iovec iov = { &c, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof(u) };
	int fd = some_fd(), ends[2];
	long ret;

	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends))
		return -1;
	memcpy(CMSG_DATA(&u.align), &fd, sizeof(fd));
	ret = sendmsg(ends[0], &msg, MSG_NOSIGNAL);
	if (ret > 0 && rnd(2) && recvmsg(ends[1], &msg, 0) > 0) {
		memcpy(&fd, CMSG_DATA(&u.align), sizeof(fd));
		keep(fd);
	}
	close(ends[0]);
	close(ends[1]);
	return ret;
}

static long call_close(void)
{
	int fd = atomic_exchange(&slots[rnd(SLOTS)], -1);

	return fd < 0 ? -1 : close(fd);
}

static long call_dup(void)
{
	int fd = fcntl(some_fd(), F_DUPFD_CLOEXEC, 10);

	keep(fd);
	return fd;
}

static long call_fcntl(void)
{
	return fcntl(some_fd(), F_SETFL, ONE_OF(O_NONBLOCK, O_NONBLOCK, O_ASYNC, 0));
}

static long call_shutdown(void)
{
	return shutdown(some_fd(), (int)rnd(5) - 1);
}

static const struct {
	long (*call)(void);
	int weight;
} calls[] = {
	{ call_socket, 8 }, { call_bind, 5 }, { call_listen, 8 }, { call_connect, 14 }, { call_accept, 14 },
	{ call_send, 14 }, { call_recv, 14 }, { call_splice, 4 }, { call_setsockopt, 8 }, { call_getsockopt, 6 },
	{ call_name, 3 }, { call_ioctl, 3 }, { call_poll, 6 }, { call_pass, 2 }, { call_close, 6 }, { call_dup, 2 },
	{ call_fcntl, 2 }, { call_shutdown, 3 },
};

static void *thread(void *seed)
{
	int total = 0;

	state = (uint64_t)(uintptr_t)seed * 0x9e3779b97f4a7c15ull + 1;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		total += calls[i].weight;
	while (!shared->stop) {
		int at = (int)rnd((uint32_t)total), i = 0;

		while (at >= calls[i].weight)
			at -= calls[i++].weight;
		shared->calls++;
		if (calls[i].call() >= 0)
			shared->good++;
	}
	return NULL;
}

static void nothing(int sig)
{
	(void)sig;
}

static void process(uint64_t seed)
{
	struct sigaction act = { .sa_handler = nothing };
	pthread_t threads[THREADS];

	check(prctl(PR_SET_PDEATHSIG, SIGKILL) == 0);
	for (int sig = 1; sig < 32; sig++) /* whatever an own socket may send */
		if (sig != SIGKILL && sig != SIGSTOP && sig != SIGSEGV && sig != SIGBUS && sig != SIGTERM && sig != SIGINT)
			sigaction(sig, &act, NULL);
	area = mmap(NULL, AREA + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	check(area != MAP_FAILED && munmap(area + AREA, 4096) == 0);
	file = memfd_create("file", 0);
	check(file >= 0 && ftruncate(file, 100000) == 0);
	check(pipe2(pipes, O_NONBLOCK) == 0);
	epoll_fd = epoll_create1(0);
	for (int i = 0; i < SLOTS; i++)
		slots[i] = -1;
	for (int i = 0; i < THREADS; i++)
		check(pthread_create(&threads[i], NULL, thread, (void *)(uintptr_t)(seed * 100 + (uint64_t)i)) == 0);
	while (!shared->stop) {
		for (int i = 0; i < THREADS; i++)
			pthread_kill(threads[i], SIGALRM);
		usleep(50000);
	}
	for (int i = 0; i < THREADS; i++) {
		while (pthread_tryjoin_np(threads[i], NULL) == EBUSY) {
			pthread_kill(threads[i], SIGALRM);
			usleep(10000);
		}
	}
	_exit(0);
}

static long stat_of(const char *counter)
{
	FILE *f = fopen("/proc/net/vnet_stat", "r");
	char name[64];
	long value, found = -1;

	check(f);
	while (fscanf(f, "%63s %ld", name, &value) == 2)
		if (!strcmp(name, counter))
			found = value;
	fclose(f);
	check(found >= 0);
	return found;
}

/* A connection as any other, after all that: what was taken away has been given back. */
static void still_works(void)
{
	int listener, fd, one;
	struct addr at = peer;
	char c = 0;

	set_port(&at, 0);
	listener = listener_on(&at, 5);
	at = name_of(listener);
	fd = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	check_offloaded(one);
	write_all(fd, "x", 1);
	check(recv(one, &c, 1, 0) == 1 && c == 'x');
	close(fd);
	close(one);
	close(listener);
}

int main(int argc, char **argv)
{
	long seconds = argc > 1 ? atol(argv[1]) : 10, active;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	pid_t pids[PROCESSES];
	int status;

	check(own_addr(&peer, false));
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	check(shared != MAP_FAILED);
	still_works();
	active = stat_of("offloaded_active");
	for (int i = 0; i < PROCESSES; i++) {
		pids[i] = fork();
		check(pids[i] >= 0);
		if (!pids[i])
			process(seed * 10 + (uint64_t)i);
	}
	sleep((unsigned int)seconds); /* that long, as asked */
	shared->stop = 1;
	for (int i = 0; i < PROCESSES; i++) {
		check(waitpid(pids[i], &status, 0) == pids[i]);
		if (status)
			printf("process %d ended with %#x\n", i, (unsigned int)status);
		check(status == 0);
	}
	active = stat_of("offloaded_active") - active;
	printf("seed %llu: %llu calls, %llu of them good, %llu sockets, %ld connections offloaded\n",
	       (unsigned long long)seed, (unsigned long long)shared->calls, (unsigned long long)shared->good,
	       (unsigned long long)shared->sockets, active);
	check(shared->good > 100 && active > 0);
	still_works();
	return 0;
}
