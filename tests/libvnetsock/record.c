// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * librecord.so: preloaded below libvnetsock.so, it stands for a kernel that has
 * (or has not) the socket family, and writes down what it is asked for.
 *
 * RECORD_FILE    appended: "socket DOMAIN TYPE PROTOCOL", "mode FD-FAMILY MODE"
 * RECORD_FAMILY  this family "exists": its sockets are ordinary TCP sockets that
 *                take VNET_SO_MODE and say that they are offloaded
 * RECORD_ERRNO   a socket of RECORD_FAMILY fails with this error number
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vnet_sock.h"

static int number(const char *name)
{
	const char *value = getenv(name);

	return value ? atoi(value) : 0;
}

static void record(const char *line)
{
	const char *path = getenv("RECORD_FILE");
	long fd;

	if (!path)
		return;
	fd = syscall(SYS_openat, AT_FDCWD, path,
		     O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0 || syscall(SYS_write, fd, line, strlen(line)) < 0)
		abort();
	syscall(SYS_close, fd);
}

int socket(int domain, int type, int protocol)
{
	int saved = errno;
	char line[80];

	snprintf(line, sizeof(line), "socket %d %#x %d\n", domain, type, protocol);
	record(line);
	errno = saved;
	if (domain != AF_INET && domain == number("RECORD_FAMILY")) {
		if (number("RECORD_ERRNO")) {
			errno = number("RECORD_ERRNO");
			return -1;
		}
		domain = protocol == VNETPROTO_IP6 ? AF_INET6 : AF_INET;
		protocol = 0;
	}
	return (int)syscall(SYS_socket, domain, type, protocol);
}

static int is_tcp(int fd)
{
	int protocol = 0;
	socklen_t len = sizeof(protocol);

	return !syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_PROTOCOL, &protocol,
			&len) && protocol == IPPROTO_TCP;
}

int setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
	char line[80];

	if (level != SOL_VNET || !number("RECORD_FAMILY") || !is_tcp(fd))
		return (int)syscall(SYS_setsockopt, fd, level, option, value, len);
	if (option != VNET_SO_MODE || len != sizeof(int))
		abort();
	snprintf(line, sizeof(line), "mode %d\n", *(const int *)value);
	record(line);
	return 0;
}

int getsockopt(int fd, int level, int option, void *value, socklen_t *len)
{
	struct vnet_so_path path = {
		.path = VNET_PATH_VTOE, .sid = 7, .fabric = 2, .reason_name = "none",
	};

	if (level != SOL_VNET || !number("RECORD_FAMILY") || !is_tcp(fd))
		return (int)syscall(SYS_getsockopt, fd, level, option, value, len);
	if (option != VNET_SO_PATH || *len != sizeof(path))
		abort();
	memcpy(value, &path, sizeof(path));
	return 0;
}
