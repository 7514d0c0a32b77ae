// SPDX-License-Identifier: GPL-2.0-or-later
/* connect and accept, names, what the socket says it is, blocking and not. */
#include "sock_common.h"

static void client(void)
{
	struct sockaddr_storage ss;
	struct pollfd pfd;
	socklen_t len = sizeof(ss);
	char buf[16];
	int fd, ret;

	/* what it says it is */
	fd = vnet_socket(peer.v6);
	check(get_int(fd, SOL_SOCKET, SO_DOMAIN) == (peer.v6 ? AF_INET6 : AF_INET));
	check(get_int(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM);
	check(get_int(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP);
	check(way == PLAIN || path_of(fd).path == VNET_PATH_UNDECIDED);
	check(getpeername(fd, (void *)&ss, &len) == -1 && errno == ENOTCONN);
	check(recv(fd, buf, 1, 0) == -1 && errno == ENOTCONN);
	check(send(fd, buf, 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
	check(connect(fd, sa(&peer), 3) == -1 && errno == EINVAL);
	close(fd);
	check(way == PLAIN || socket(family(), SOCK_DGRAM, 0) == -1);

	/* echo, names */
	fd = call(ECHO);
	write_all(fd, "hello", 5);
	check(read_full(fd, buf, 5) == 5 && !memcmp(buf, "hello", 5));
	len = sizeof(ss);
	check(getpeername(fd, (void *)&ss, &len) == 0 && len == peer.len);
	check(((struct sockaddr_in *)&ss)->sin_port == htons(PORT));
	check(ss.ss_family == (peer.v6 ? AF_INET6 : AF_INET));
	len = sizeof(ss);
	check(getsockname(fd, (void *)&ss, &len) == 0);
	check(((struct sockaddr_in *)&ss)->sin_port != 0);
	check(connect(fd, sa(&peer), peer.len) == -1 && errno == EISCONN);
	check(shutdown(fd, SHUT_WR) == 0);
	check(recv(fd, buf, sizeof(buf), 0) == 0);
	close(fd);

	/* non-blocking connect */
	fd = vnet_socket(peer.v6);
	check(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
	ret = connect(fd, sa(&peer), peer.len);
	check(ret == 0 || errno == EINPROGRESS);
	pfd.fd = fd;
	pfd.events = POLLOUT;
	check(poll(&pfd, 1, 10000) == 1 && pfd.revents == POLLOUT);
	check(get_int(fd, SOL_SOCKET, SO_ERROR) == 0);
	check(connect(fd, sa(&peer), peer.len) == 0 || errno == EISCONN);
	check_offloaded(fd);
	check(recv(fd, buf, 1, 0) == -1 && errno == EAGAIN);
	close(fd);
}
