// SPDX-License-Identifier: GPL-2.0-or-later
/* The options that programs set on TCP sockets: set before and after connecting, and read back. */
#include "sock_common.h"

static void both(int fd, int level, int name, int value)
{
	int back = -1;
	socklen_t len = sizeof(back);

	if (setsockopt(fd, level, name, &value, sizeof(value)) ||
	    getsockopt(fd, level, name, &back, &len) || back != value)
		printf("level %d option %d: set %d, got %d\n", level, name, value, back);
	check(back == value);
}

static void tcp_options(int fd)
{
	char name[16] = "reno";
	struct tcp_info info;
	socklen_t len = sizeof(name);
	int value;

	both(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	both(fd, IPPROTO_TCP, TCP_CORK, 0);
	both(fd, IPPROTO_TCP, TCP_KEEPIDLE, 100);
	both(fd, IPPROTO_TCP, TCP_KEEPINTVL, 10);
	both(fd, IPPROTO_TCP, TCP_KEEPCNT, 4);
	both(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, 5000);
	both(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	both(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (!peer.v6)
		both(fd, IPPROTO_IP, IP_TOS, 0x10);
	value = 0;
	check(setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &value, sizeof(value)) == -1 &&
	      errno == EINVAL);
	check(setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &value, sizeof(value)) == 0);
	check(setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, 4) == 0);
	check(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &len) == 0);
	check(!strcmp(name, "reno"));
	len = sizeof(info);
	check(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
	len = sizeof(value);
	check(getsockopt(fd, IPPROTO_TCP, TCP_MAXSEG, &value, &len) == 0 && value > 0);
	check(setsockopt(fd, IPPROTO_TCP, 9999, &value, sizeof(value)) == -1 &&
	      errno == ENOPROTOOPT);
}

static void client(void)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	char buf[100] = { ECHO };
	int fd = vnet_socket(peer.v6), value;

	tcp_options(fd);
	check(connect(fd, sa(&peer), peer.len) == 0);
	check_offloaded(fd);
	tcp_options(fd);
	write_all(fd, buf, sizeof(buf));
	check(read_full(fd, buf, 99) == 99);
	check(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) == 0);
	check(info.tcpi_state == TCP_ESTABLISHED);
	value = 64 << 10;
	check(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, sizeof(value)) == 0);
	check(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &value, sizeof(value)) == 0);
	len = sizeof(value);
	check(getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, &len) == 0 && value == 128 << 10);
	/* wire options of TCP have no meaning here */
	check(setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", 3) == -1);
	value = 1;
	check(setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &value, sizeof(value)) == -1 &&
	      errno == EOPNOTSUPP);
	value = VNET_MODE_TCP;
	check(setsockopt(fd, SOL_VNET, VNET_SO_MODE, &value, sizeof(value)) == -1);
	close(fd);

	/* one that changes the wire pins a socket to TCP */
	fd = vnet_socket(peer.v6);
	value = 7;
	check(setsockopt(fd, SOL_SOCKET, SO_MARK, &value, sizeof(value)) == 0);
	check(connect(fd, sa(&peer), peer.len) == 0);
	check(path_of(fd).path == VNET_PATH_TCP && path_of(fd).reason == VTOE_REASON_OPTION);
	close(fd);
}
