// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sockets of the family by way of AF_INET and AF_INET6, with no preload library: sock_nopreload client ADDR. Also built
 * static, so that there is nothing to preload into.
 *
 * EXPECT    vtoe: they are ours, and offloaded; ordinary: they are TCP's own
 * PROTOCOL  what socket() is asked for; 0 as most programs do, if it is not set
 */
#include "sock_common.h"

static void client(void)
{
	const char *expect = getenv("EXPECT") ?: "", *protocol = getenv("PROTOCOL");
	bool ours = !strcmp(expect, "vtoe");
	struct vnet_so_path path;
	socklen_t len = sizeof(path);
	char buf[16] = { ECHO };
	int fd, flags = SOCK_CLOEXEC | SOCK_NONBLOCK;

	check(ours || !strcmp(expect, "ordinary"));
	fd = socket(peer.ss.ss_family, SOCK_STREAM | flags, protocol ? atoi(protocol) : 0);
	check(fd >= 0);
	check(fcntl(fd, F_GETFL) & O_NONBLOCK && fcntl(fd, F_GETFD) & FD_CLOEXEC);
	check(fcntl(fd, F_SETFL, 0) == 0);
	check(get_int(fd, SOL_SOCKET, SO_DOMAIN) == peer.ss.ss_family);
	check(get_int(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM);
	check(get_int(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_TCP);
	if (peer.v6)
		set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
	check(connect(fd, sa(&peer), peer.len) == 0);
	write_all(fd, buf, 1);
	write_all(fd, "no preload", 10);
	check(read_full(fd, buf, 10) == 10 && !memcmp(buf, "no preload", 10));
	if (ours) {
		path = path_of(fd);
		if (path.path != VNET_PATH_VTOE)
			printf("not offloaded: %s\n", path.reason_name);
		check(path.path == VNET_PATH_VTOE);
	} else {
		check(getsockopt(fd, SOL_VNET, VNET_SO_PATH, &path, &len) == -1);
	}
	/* Datagrams and other protocols are left alone. */
	check((fd = socket(AF_INET, SOCK_DGRAM, 0)) >= 0);
	check(get_int(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_UDP);
	check(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP) == -1 && errno == EPROTONOSUPPORT);
}
