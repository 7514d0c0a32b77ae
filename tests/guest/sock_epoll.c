// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * epoll, level and edge: readable, writable after EAGAIN, RDHUP, HUP, a
 * listener; EXCLUSIVE and ONESHOT. select, pselect and ppoll.
 */
#include <sys/select.h>
#include <sys/syscall.h>

#include "sock_common.h"

static int ep;

static uint32_t wait_for(int timeout)
{
	struct epoll_event ev = {};

	return epoll_wait(ep, &ev, 1, timeout) == 1 ? ev.events : 0;
}

static void add(int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events };

	check(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == 0);
}

static void listener(void)
{
	struct addr at;
	int fd[3], one, i, got, listener;

	check(own_addr(&at, peer.v6));
	set_port(&at, 7003);
	listener = listener_on(&at, 10);
	check(fcntl(listener, F_SETFL, O_NONBLOCK) == 0);
	add(listener, EPOLLIN);
	check(wait_for(0) == 0);
	fd[0] = dial(&at);
	check(wait_for(5000) == EPOLLIN);
	check(wait_for(0) == EPOLLIN);
	one = accept(listener, NULL, NULL);
	check(one >= 0 && wait_for(0) == 0);
	close(one);
	close(fd[0]);
	check(epoll_ctl(ep, EPOLL_CTL_DEL, listener, NULL) == 0);

	/* edge: none is lost between one and the next */
	add(listener, EPOLLIN | EPOLLET);
	for (i = 0; i < 3; i++)
		fd[i] = dial(&at);
	for (got = 0; got < 3;) {
		check(wait_for(5000) == EPOLLIN);
		while ((one = accept(listener, NULL, NULL)) >= 0) {
			got++;
			close(one);
		}
		check(errno == EAGAIN);
	}
	for (i = 0; i < 3; i++)
		close(fd[i]);
	close(listener);
}

static void *wait_exclusive(void *arg)
{
	int *state = arg; /* set, thread id, number of wake-ups */
	struct epoll_event ev;

	__atomic_store_n(&state[1], (int)syscall(SYS_gettid), __ATOMIC_RELEASE);
	state[2] = epoll_wait(state[0], &ev, 1, 1500);
	return NULL;
}

static bool asleep(int tid)
{
	char path[64], text[256] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
	f = fopen(path, "r");
	check(f && fgets(text, sizeof(text), f));
	fclose(f);
	return strstr(text, ") S ");
}

/* Two sets with one listener: one connection wakes one of them. */
static void exclusive(void)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLEXCLUSIVE };
	int state[2][3] = {}, fd, i, listener;
	pthread_t thread[2];
	struct addr at;

	check(own_addr(&at, peer.v6));
	set_port(&at, 7003);
	listener = listener_on(&at, 10);
	for (i = 0; i < 2; i++) {
		state[i][0] = epoll_create1(0);
		check(epoll_ctl(state[i][0], EPOLL_CTL_ADD, listener, &ev) == 0);
		check(pthread_create(&thread[i], NULL, wait_exclusive, state[i]) == 0);
		while (!__atomic_load_n(&state[i][1], __ATOMIC_ACQUIRE) || !asleep(state[i][1]))
			usleep(1000);
	}
	fd = dial(&at);
	for (i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	if (state[0][2] + state[1][2] != 1)
		printf("woken: %d and %d\n", state[0][2], state[1][2]);
	check(state[0][2] + state[1][2] == 1);
	close(fd);
	close(listener);
	for (i = 0; i < 2; i++)
		close(state[i][0]);
}

static void oneshot(void)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLONESHOT };
	int fd = call(ECHO);
	char c;

	add(fd, EPOLLIN | EPOLLONESHOT);
	write_all(fd, "a", 1);
	check(wait_for(5000) == EPOLLIN);
	check(wait_for(0) == 0);
	write_all(fd, "b", 1);
	check(wait_for(200) == 0);
	check(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) == 0);
	check(wait_for(5000) == EPOLLIN);
	check(recv(fd, &c, 1, MSG_WAITALL) == 1 && recv(fd, &c, 1, MSG_WAITALL) == 1);
	check(epoll_ctl(ep, EPOLL_CTL_MOD, fd, &ev) == 0);
	check(wait_for(0) == 0);
	write_all(fd, "c", 1);
	check(wait_for(5000) == EPOLLIN);
	close(fd);
}

/* Writable as long as there is room; in time after there was none. */
static void level_out(void)
{
	static char buf[200000];
	size_t sent = 0, got = 0;
	int fd = call(ECHO);
	ssize_t n;

	add(fd, EPOLLOUT);
	check(wait_for(0) == EPOLLOUT);
	check(wait_for(0) == EPOLLOUT);
	/* until the echo is stuck as well: full for good */
	do {
		while ((n = send(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0)
			sent += (size_t)n;
		check(errno == EAGAIN);
	} while (wait_for(300) == EPOLLOUT);
	while (got < sent) {
		n = recv(fd, buf, sizeof(buf), 0);
		check(n > 0);
		got += (size_t)n;
	}
	check(wait_for(5000) == EPOLLOUT);
	close(fd);
}

static void on_signal(int sig)
{
	(void)sig;
}

/* select and its like; a signal that only they let through interrupts them. */
static void selects(void)
{
	struct timespec ts = { .tv_sec = 5 }, none = {};
	struct timeval tv = { .tv_sec = 5 };
	struct sigaction action = { .sa_handler = on_signal };
	int fd = call(ECHO);
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	fd_set in, out, except;
	sigset_t block, open;
	char c;

	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_ZERO(&except);
	FD_SET(fd, &in);
	FD_SET(fd, &out);
	FD_SET(fd, &except);
	check(select(fd + 1, &in, &out, &except, &tv) == 1);
	check(!FD_ISSET(fd, &in) && FD_ISSET(fd, &out) && !FD_ISSET(fd, &except));
	write_all(fd, "s", 1);
	FD_SET(fd, &in);
	check(select(fd + 1, &in, NULL, NULL, &tv) == 1 && FD_ISSET(fd, &in));
	FD_SET(fd, &in);
	check(pselect(fd + 1, &in, NULL, NULL, &none, NULL) == 1 && FD_ISSET(fd, &in));
	check(ppoll(&pfd, 1, &none, NULL) == 1 && pfd.revents == POLLIN);
	check(recv(fd, &c, 1, 0) == 1);
	FD_SET(fd, &in);
	check(pselect(fd + 1, &in, NULL, NULL, &none, NULL) == 0 && !FD_ISSET(fd, &in));
	check(ppoll(&pfd, 1, &none, NULL) == 0);

	check(sigaction(SIGUSR1, &action, NULL) == 0);
	sigemptyset(&block);
	sigemptyset(&open);
	sigaddset(&block, SIGUSR1);
	check(sigprocmask(SIG_BLOCK, &block, NULL) == 0);
	raise(SIGUSR1);
	FD_SET(fd, &in);
	check(pselect(fd + 1, &in, NULL, NULL, &ts, &open) == -1 && errno == EINTR);
	raise(SIGUSR1);
	check(ppoll(&pfd, 1, &ts, &open) == -1 && errno == EINTR);
	check(shutdown(fd, SHUT_WR) == 0);
	FD_SET(fd, &in);
	check(select(fd + 1, &in, NULL, NULL, &tv) == 1 && recv(fd, &c, 1, 0) == 0);
	close(fd);
}

static void client(void)
{
	static char big[1 << 20];
	char buf[65536];
	size_t sent = 0, got = 0;
	ssize_t n;
	int fd;

	ep = epoll_create1(0);

	/* level: readable as long as there is something */
	fd = call(ECHO);
	add(fd, EPOLLIN);
	check(wait_for(0) == 0);
	write_all(fd, "ab", 2);
	check(wait_for(5000) == EPOLLIN);
	check(recv(fd, buf, 1, 0) == 1);
	check(wait_for(0) == EPOLLIN);
	while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	/* the second byte may have come on its own; it is read by now or comes */
	check(epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL) == 0);
	close(fd);

	/* edge: once per arrival */
	fd = call(ECHO);
	add(fd, EPOLLIN | EPOLLET);
	write_all(fd, "a", 1);
	check(wait_for(5000) == EPOLLIN);
	check(wait_for(100) == 0);
	write_all(fd, "b", 1);
	check(wait_for(5000) == EPOLLIN);
	check(read_full(fd, buf, 2) == 2);
	close(fd);

	/* edge: writable again after EAGAIN, with a peer that echoes */
	fd = call(ECHO);
	check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	add(fd, EPOLLIN | EPOLLOUT | EPOLLET);
	for (;;) {
		uint32_t ev;

		while (sent < 20u << 20 && (n = send(fd, big, sizeof(big), 0)) > 0)
			sent += (size_t)n;
		check(sent >= 20u << 20 || errno == EAGAIN);
		while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
			got += (size_t)n;
		check(n == -1 && errno == EAGAIN);
		if (got >= sent && sent >= 20u << 20)
			break;
		ev = wait_for(20000);
		check(ev & (EPOLLIN | EPOLLOUT));
	}
	check(got == sent);
	close(fd);

	/* the peer's half closes: RDHUP and IN, not HUP; both halves: HUP */
	fd = call(SHUT);
	add(fd, EPOLLIN | EPOLLRDHUP | EPOLLET);
	check(wait_for(5000) == (EPOLLIN | EPOLLRDHUP));
	check(recv(fd, buf, 1, 0) == 0);
	check(shutdown(fd, SHUT_WR) == 0);
	check(wait_for(5000) & EPOLLHUP);
	close(fd);

	/* reset: ERR */
	fd = call(RESET);
	add(fd, EPOLLIN);
	check((wait_for(5000) & (EPOLLERR | EPOLLHUP)) == (EPOLLERR | EPOLLHUP));
	check(recv(fd, buf, 1, 0) == -1 && errno == ECONNRESET);
	check(recv(fd, buf, 1, 0) == 0);
	close(fd);

	listener();
	exclusive();
	oneshot();
	level_out();
	selects();
}
