// SPDX-License-Identifier: GPL-2.0-or-later
/* Signals and time limits for those who wait: in connect, accept, recv, send; with SA_RESTART and without. */
#include <sys/time.h>

#include "sock_common.h"

static struct addr nobody; /* an address of the subnet that nobody has */
static volatile sig_atomic_t alarms;
static int wake_fd = -1; /* what the handler writes to */

static void on_alarm(int sig)
{
	(void)sig;
	alarms++;
	if (wake_fd >= 0)
		send(wake_fd, "w", 1, MSG_NOSIGNAL);
}

static void handler(int flags)
{
	struct sigaction action = { .sa_handler = on_alarm, .sa_flags = flags };

	check(sigaction(SIGALRM, &action, NULL) == 0);
}

/* A signal, in a tenth of a second. */
static void soon(void)
{
	struct itimerval in = { .it_value.tv_usec = 100000 };

	alarms = 0;
	check(setitimer(ITIMER_REAL, &in, NULL) == 0);
}

static void receiving(void)
{
	struct timeval tv = { .tv_sec = 20 };
	int fd = call(ECHO);
	char c;

	handler(0);
	soon();
	check(recv(fd, &c, 1, 0) == -1 && errno == EINTR && alarms == 1);
	soon();
	check(wait_poll(fd, POLLIN, 5000) == 0 && errno == EINTR && alarms == 1);

	/* begun again, and there is something then */
	handler(SA_RESTART);
	wake_fd = fd;
	soon();
	check(recv(fd, &c, 1, 0) == 1 && c == 'w' && alarms == 1);
	wake_fd = -1;
	/* never where there is a time limit */
	check(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)) == 0);
	soon();
	check(recv(fd, &c, 1, 0) == -1 && errno == EINTR && alarms == 1);
	close(fd);
}

static void sending(void)
{
	static char buf[200000];
	int fd = call(MUTE);

	handler(0);
	choke(fd);
	soon();
	check(send(fd, buf, sizeof(buf), MSG_NOSIGNAL) == -1 && errno == EINTR && alarms == 1);
	close(fd);
}

static void accepting(void)
{
	struct addr at;
	int listener, fd;

	check(own_addr(&at, peer.v6));
	set_port(&at, 7003);
	listener = listener_on(&at, 5);
	handler(0);
	soon();
	check(accept(listener, NULL, NULL) == -1 && errno == EINTR && alarms == 1);

	handler(SA_RESTART);
	pid_t pid = fork();

	if (!pid) {
		usleep(400000); /* after the signal */
		_exit(close(dial(&at)));
	}
	soon();
	fd = accept(listener, NULL, NULL);
	check(fd >= 0 && alarms == 1);
	check(waitpid(pid, NULL, 0) == pid);
	close(fd);
	close(listener);
}

/* An address of the peer's network that nobody has, and nobody was looked for at. */
static void choose_nobody(uint8_t last)
{
	if (peer.v6)
		((struct sockaddr_in6 *)&nobody.ss)->sin6_addr.s6_addr[15] = last;
	else
		((uint8_t *)&((struct sockaddr_in *)&nobody.ss)->sin_addr)[3] = last;
}

static void connecting(void)
{
	struct timeval tv = { .tv_usec = 200000 };
	int fd = vnet_socket(nobody.v6);
	int64_t start = now_ms();

	check(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv)) == 0);
	check(connect(fd, sa(&nobody), nobody.len) == -1 && errno == EINPROGRESS);
	check(now_ms() - start >= 190);
	check(connect(fd, sa(&nobody), nobody.len) == -1 && errno == EALREADY);
	close(fd);

	/* it goes on connecting after EINTR, as POSIX has it */
	fd = vnet_socket(nobody.v6);
	handler(0);
	soon();
	check(connect(fd, sa(&nobody), nobody.len) == -1 && errno == EINTR && alarms == 1);
	check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	check(connect(fd, sa(&nobody), nobody.len) == -1 && errno == EALREADY);
	close(fd);

	/* or in the same call: until nobody answers */
	choose_nobody(98);
	fd = vnet_socket(nobody.v6);
	handler(SA_RESTART);
	soon();
	check(connect(fd, sa(&nobody), nobody.len) == -1);
	check(errno == EHOSTUNREACH && alarms == 1);
	if (way == OFFLOAD)
		expect_tcp(fd, VTOE_REASON_NO_NEIGH);
	close(fd);
}

static void client(void)
{
	check(own_addr(&nobody, peer.v6));
	choose_nobody(99);
	alarm(0);
	receiving();
	sending();
	accepting();
	connecting();
}
