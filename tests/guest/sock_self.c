// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest and itself: every way to name it is offloaded, but in another network namespace; a socket that connects to
 * itself, and two that connect to each other at once, are TCP's.
 */
#include <net/if.h>
#include <sched.h>

#include "sock_common.h"

#define OWN_PORT 7004

static struct addr at_port(const char *text, int port)
{
	struct addr a;

	set_addr(&a, text, port);
	return a;
}

/* From a listener on one address to a connection to another: data passes, and the names are what TCP would say. */
static void talk(const char *listen_on, const char *to, const char *from)
{
	struct addr at = at_port(listen_on, OWN_PORT), dst = at_port(to, OWN_PORT), name;
	struct addr want = at_port(from, 0), seen = { .len = sizeof(seen.ss) };
	int listener = listener_on(&at, 5), fd, one;
	char c;

	if (IN6_IS_ADDR_LINKLOCAL(&((struct sockaddr_in6 *)&dst.ss)->sin6_addr) && dst.v6)
		((struct sockaddr_in6 *)&dst.ss)->sin6_scope_id = if_nametoindex("vnet0");
	fd = vnet_socket(dst.v6);
	check(connect(fd, sa(&dst), dst.len) == 0);
	check_offloaded(fd);
	one = accept(listener, (struct sockaddr *)&seen.ss, &seen.len);
	check(one >= 0);
	write_all(fd, "x", 1);
	check(recv(one, &c, 1, MSG_WAITALL) == 1 && c == 'x');
	write_all(one, "y", 1);
	check(recv(fd, &c, 1, MSG_WAITALL) == 1 && c == 'y');
	name = name_of(fd);
	set_port(&want, port_of(&name));
	if (!same_addr(&seen, &name) || !same_addr(&name, &want))
		printf("to %s: not from %s\n", to, from);
	check(same_addr(&seen, &name) && same_addr(&name, &want));
	close(fd);
	close(one);
	close(listener);
}

static void addresses(void)
{
	talk("127.0.0.1", "127.0.0.1", "127.0.0.1");
	talk("0.0.0.0", "127.0.0.1", "127.0.0.1");
	talk("127.0.0.2", "127.0.0.2", "127.0.0.1");
	talk("0.0.0.0", "0.0.0.0", "127.0.0.1");
	talk("::1", "::1", "::1");
	talk("::", "::1", "::1");
	talk("::", "::", "::1");
	talk("::", "::ffff:127.0.0.1", "::ffff:127.0.0.1");
	/* dual stack, from IPv4 */
	struct addr any = at_port("::", OWN_PORT), v4 = at_port("127.0.0.1", OWN_PORT);
	int listener = listener_on(&any, 5), fd = dial(&v4);

	close(fd);
	close(listener);
}

static void *serve_once(void *arg)
{
	int listener = *(int *)arg, fd = accept(listener, NULL, NULL);

	check(fd >= 0);
	write_all(fd, "hola", 4);
	check(shutdown(fd, SHUT_WR) == 0);
	close(fd);
	close(listener);
	return NULL;
}

/* Who was accepted is connected, however fast the server has gone. */
static void once(void)
{
	struct addr at = at_port("127.0.0.1", 0), name;
	pthread_t thread;
	char buf[8];

	for (int i = 0; i < 300; i++) {
		int listener = listener_on(&at, 5), fd;

		name = name_of(listener);
		check(pthread_create(&thread, NULL, serve_once, &listener) == 0);
		fd = dial(&name);
		check(read_full(fd, buf, sizeof(buf)) == 4 && !memcmp(buf, "hola", 4));
		close(fd);
		check(pthread_join(thread, NULL) == 0);
	}
}

/* Nobody listens: TCP says so. */
static void refused(const char *to)
{
	struct addr at = at_port(to, 7009);
	int fd = vnet_socket(at.v6);

	check(connect(fd, sa(&at), at.len) == -1 && errno == ECONNREFUSED);
	close(fd);
}

/* Who waits for it with poll() learns that it was refused, however it came about. */
static void refused_later(void)
{
	struct addr at = at_port("127.0.0.1", 7009);

	for (int i = 0; i < 300; i++) {
		int fd = vnet_socket(false);

		check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
		if (connect(fd, sa(&at), at.len) == 0 || errno != EINPROGRESS) {
			check(errno == ECONNREFUSED);
			close(fd);
			continue;
		}
		check(wait_poll(fd, POLLOUT, 5000) & POLLOUT);
		check(get_int(fd, SOL_SOCKET, SO_ERROR) == ECONNREFUSED);
		check(get_int(fd, SOL_SOCKET, SO_ERROR) == 0);
		close(fd);
	}
}

/* By a reset: the ports are free for whoever runs this next. */
static void reset(int fd)
{
	check(setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){ .l_onoff = 1 },
			 sizeof(struct linger)) == 0);
	close(fd);
}

static void self_connect(void)
{
	struct addr at = at_port("127.0.0.1", OWN_PORT);
	int fd = vnet_socket(false);
	char c;

	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	check(bind(fd, sa(&at), at.len) == 0);
	check(connect(fd, sa(&at), at.len) == 0);
	write_all(fd, "s", 1);
	check(recv(fd, &c, 1, MSG_WAITALL) == 1 && c == 's');
	if (way == OFFLOAD)
		expect_tcp(fd, VTOE_REASON_NO_LISTENER);
	reset(fd);
}

static void port_range(const char *set, char *was, size_t size)
{
	int fd = open("/proc/sys/net/ipv4/ip_local_port_range", O_RDWR | O_CLOEXEC);
	ssize_t n = was ? read(fd, was, size - 1) : 0;

	check(fd >= 0 && n >= 0);
	if (was)
		was[n] = '\0';
	check(pwrite(fd, set, strlen(set), 0) == (ssize_t)strlen(set));
	close(fd);
}

/* A port that nobody listens at any more is refused: no socket takes it to connect to itself. */
static void not_itself(void)
{
	char was[64];
	int i;

	port_range("40000 40039", was, sizeof(was));
	for (i = 0; i < 200; i++) {
		struct addr at = at_port("127.0.0.1", 0);
		int fd = vnet_socket(false);

		check(bind(fd, sa(&at), at.len) == 0);
		check(getsockname(fd, (struct sockaddr *)&at.ss, &at.len) == 0);
		close(fd);
		fd = vnet_socket(false);
		check(connect(fd, sa(&at), at.len) == -1 && errno == ECONNREFUSED);
		close(fd);
	}
	port_range(was, NULL, 0);
}

#define DROP_RESETS "table ip vnet_self { chain resets { type filter hook input priority 0; " \
	"tcp dport { 7005, 7006 } tcp flags & rst == rst drop; }; }"

/*
 * Both connect, nobody listens. That both are under way at once is made so: the first one's SYN is answered by a reset,
 * which the guest's own rules drop.
 */
static void simultaneous(void)
{
	struct addr at[2] = { at_port("127.0.0.1", 7005), at_port("127.0.0.1", 7006) };
	struct addr name = { .len = sizeof(name.ss) };
	int fd[2], i;
	char c;

	check(system("nft '" DROP_RESETS "'") == 0);
	for (i = 0; i < 2; i++) {
		fd[i] = vnet_socket(false);
		set_int(fd[i], SOL_SOCKET, SO_REUSEADDR, 1);
		check(bind(fd[i], sa(&at[i]), at[i].len) == 0);
		check(fcntl(fd[i], F_SETFL, O_NONBLOCK) == 0);
	}
	check(connect(fd[0], sa(&at[1]), at[1].len) == -1 && errno == EINPROGRESS);
	check(wait_poll(fd[0], POLLOUT, 200) == 0);
	check(connect(fd[1], sa(&at[0]), at[0].len) == 0 || errno == EINPROGRESS);
	for (i = 0; i < 2; i++) {
		check(wait_poll(fd[i], POLLOUT, 20000) == POLLOUT);
		check(get_int(fd[i], SOL_SOCKET, SO_ERROR) == 0);
		check(fcntl(fd[i], F_SETFL, 0) == 0);
		name.len = sizeof(name.ss);
		check(getpeername(fd[i], (struct sockaddr *)&name.ss, &name.len) == 0);
		check(port_of(&name) == port_of(&at[!i]));
		write_all(fd[i], i ? "b" : "a", 1);
		if (way == OFFLOAD)
			expect_tcp(fd[i], VTOE_REASON_NO_LISTENER);
	}
	check(recv(fd[0], &c, 1, MSG_WAITALL) == 1 && c == 'b');
	check(recv(fd[1], &c, 1, MSG_WAITALL) == 1 && c == 'a');
	reset(fd[0]);
	reset(fd[1]);
	check(system("nft delete table ip vnet_self") == 0);
}

/* Its loopback is another one; there is no device, so it is TCP with that reason. */
static void namespace(void)
{
	struct addr at = at_port("127.0.0.1", OWN_PORT);
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int status, outside, ctl;
	pid_t pid;

	outside = listener_on(&at, 5);
	pid = fork();
	check(pid >= 0);
	if (!pid) {
		int listener, fd;

		check(unshare(CLONE_NEWNET) == 0);
		ctl = socket(AF_INET, SOCK_DGRAM, 0);
		check(ioctl(ctl, SIOCSIFFLAGS, &ifr) == 0);
		/* the listener outside is not to be seen from here */
		fd = vnet_socket(false);
		check(connect(fd, sa(&at), at.len) == -1 && errno == ECONNREFUSED);
		close(fd);
		listener = listener_on(&at, 5);
		fd = vnet_socket(false);
		check(connect(fd, sa(&at), at.len) == 0);
		expect_tcp(fd, VTOE_REASON_NO_DEVICE);
		check(accept(listener, NULL, NULL) >= 0);
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid && status == 0);
	check(wait_poll(outside, POLLIN, 0) == 0);
	close(outside);
}

static void client(void)
{
	addresses();
	once();
	refused("127.0.0.1");
	refused("::1");
	refused_later();
	self_connect();
	not_itself();
	simultaneous();
	if (way == OFFLOAD)
		namespace();
}
