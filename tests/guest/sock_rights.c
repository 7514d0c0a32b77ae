// SPDX-License-Identifier: GPL-2.0-or-later
/* What nobody in particular may not do: the same as with TCP. */
#include "sock_common.h"

static void nobody(void)
{
	struct addr low, high;
	int fd, value = 7;

	check(own_addr(&low, peer.v6));
	high = low;
	set_port(&low, 443);
	set_port(&high, 7006);
	check(setgid(65534) == 0 && setuid(65534) == 0);

	fd = vnet_socket(peer.v6);
	check(bind(fd, sa(&low), low.len) == -1 && errno == EACCES);
	check(setsockopt(fd, SOL_SOCKET, SO_MARK, &value, sizeof(value)) == -1 && errno == EPERM);
	check(setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &value, sizeof(value)) == -1 &&
	      errno == EPERM);
	check(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &value, sizeof(value)) == -1 &&
	      errno == EPERM);
	check(setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &value, sizeof(value)) == -1 &&
	      errno == EPERM);
	check(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &value, sizeof(value)) == -1 &&
	      errno == EPERM);
	/* once it may, to begin with; not to change it */
	check(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "vnet0", 6) == 0);
	check(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "lo", 3) == -1 && errno == EPERM);
	close(fd);

	/* what was refused has changed nothing: it is offloaded */
	fd = vnet_socket(peer.v6);
	check(setsockopt(fd, SOL_SOCKET, SO_MARK, &value, sizeof(value)) == -1 && errno == EPERM);
	check(setsockopt(fd, IPPROTO_TCP, TCP_REPAIR, &value, sizeof(value)) == -1 &&
	      errno == EPERM);
	check(setsockopt(fd, IPPROTO_IP, IP_TRANSPARENT, &value, sizeof(value)) == -1 &&
	      errno == EPERM);
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	check(bind(fd, sa(&high), high.len) == 0);
	check(connect(fd, sa(&peer), peer.len) == 0);
	check_offloaded(fd);
	close(fd);
}

static void client(void)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		nobody();
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid && status == 0);
}
