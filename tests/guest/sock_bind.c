// SPDX-License-Identifier: GPL-2.0-or-later
/* Ports and addresses that the program chooses: one space with the guest's TCP, true names at both ends. */
#include "sock_common.h"

#define LOCAL_PORT 7004

static struct addr own;

static int plain(bool v6)
{
	int fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);

	check(fd >= 0);
	return fd;
}

/* Bound to at, then connected: the peer sees want. */
static void from(const struct addr *at, const struct addr *want, bool late)
{
	struct addr told[3], name;
	int fd = vnet_socket(own.v6), other;
	char c = NAMES;

	set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (late)
		set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
	check(bind(fd, (const struct sockaddr *)&at->ss, at->len) == 0);
	if (!late) /* it has a port */
		check(bind(fd, (const struct sockaddr *)&at->ss, at->len) == -1 &&
		      errno == EINVAL);
	check(connect(fd, sa(&peer), peer.len) == 0);
	check_offloaded(fd);
	write_all(fd, &c, 1);
	check(read_full(fd, told, sizeof(told)) == sizeof(told));
	name = name_of(fd);
	if (port_of(want))
		check(same_addr(&name, want));
	check(port_of(&name) != 0 && port_of(&told[0]) == port_of(&name));
	/* the port is taken, for plain TCP as well */
	other = plain(own.v6);
	check(bind(other, sa(&name), name.len) == -1 && errno == EADDRINUSE);
	close(other);
	other = vnet_socket(own.v6);
	check(bind(other, sa(&name), name.len) == -1 && errno == EADDRINUSE);
	close(other);
	close(fd);
}

static void client(void)
{
	struct addr any, at;
	int fd, other;

	check(own_addr(&own, peer.v6));
	any = own;
	if (own.v6)
		((struct sockaddr_in6 *)&any.ss)->sin6_addr = in6addr_any;
	else
		((struct sockaddr_in *)&any.ss)->sin_addr.s_addr = 0;

	set_port(&own, LOCAL_PORT);
	from(&own, &own, false); /* address and port */
	set_port(&own, LOCAL_PORT + 3);
	set_port(&any, LOCAL_PORT + 3);
	from(&any, &own, false); /* the port */
	set_port(&own, 0);
	set_port(&any, 0);
	from(&own, &own, false); /* the address; any port */
	from(&own, &own, true);	 /* which connect() chooses */
	from(&any, &any, false);

	/* not ours */
	fd = vnet_socket(own.v6);
	set_addr(&at, own.v6 ? "2001:db8::1" : "192.0.2.77", 0);
	check(bind(fd, sa(&at), at.len) == -1 && errno == EADDRNOTAVAIL);
	close(fd);

	/* a port that waits to be used, and one that listens, are taken for plain TCP */
	set_port(&own, LOCAL_PORT + 1);
	fd = vnet_socket(own.v6);
	check(bind(fd, sa(&own), own.len) == 0);
	other = plain(own.v6);
	check(bind(other, sa(&own), own.len) == -1 && errno == EADDRINUSE);
	check(listen(fd, 1) == 0);
	check(bind(other, sa(&own), own.len) == -1 && errno == EADDRINUSE);
	close(fd);
	check(bind(other, sa(&own), own.len) == 0);
	close(other);

	/* to a device */
	fd = vnet_socket(own.v6);
	check(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "vnet0", 6) == 0);
	char name[16] = "";
	socklen_t len = sizeof(name);

	check(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, name, &len) == 0);
	check(!strcmp(name, "vnet0") && len == 6);
	/* TCP's own packets to this guest come in by lo */
	set_port(&own, port_of(&peer));
	if (!same_addr(&own, &peer)) {
		check(connect(fd, sa(&peer), peer.len) == 0);
		check_offloaded(fd);
	}
	close(fd);
	fd = vnet_socket(own.v6);
	check(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "nosuch0", 8) == -1 && errno == ENODEV);
	close(fd);
}
