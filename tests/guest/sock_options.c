// SPDX-License-Identifier: GPL-2.0-or-later
/* The options and ioctls that programs use on TCP sockets: before and after connecting, and on what accept() gives. */
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>

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

/* What MPICH, Open MPI and nginx ask; any socket will do. */
static void ioctls(int fd)
{
	struct ethtool_value link = { .cmd = ETHTOOL_GLINK };
	struct ifreq ifr = { .ifr_name = "vnet0" };
	struct ifconf list = {};
	int value = 1;

	check(ioctl(fd, SIOCGIFHWADDR, &ifr) == 0 && ifr.ifr_hwaddr.sa_family == 1);
	check(ioctl(fd, SIOCGIFMTU, &ifr) == 0 && ifr.ifr_mtu >= 1280);
	check(ioctl(fd, SIOCGIFINDEX, &ifr) == 0 && ifr.ifr_ifindex > 0);
	check(ioctl(fd, SIOCGIFFLAGS, &ifr) == 0 && ifr.ifr_flags & IFF_UP);
	ifr.ifr_data = (void *)&link;
	check(ioctl(fd, SIOCETHTOOL, &ifr) == 0 && link.data == 1);
	check(ioctl(fd, SIOCGIFCONF, &list) == 0 && list.ifc_len > 0);
	if (!peer.v6) {
		check(ioctl(fd, SIOCGIFADDR, &ifr) == 0 && ifr.ifr_addr.sa_family == AF_INET);
		check(ioctl(fd, SIOCGIFNETMASK, &ifr) == 0);
	}
	check(ioctl(fd, FIONBIO, &value) == 0 && fcntl(fd, F_GETFL) & O_NONBLOCK);
	value = 0;
	check(ioctl(fd, FIONBIO, &value) == 0 && !(fcntl(fd, F_GETFL) & O_NONBLOCK));
	check(ioctl(fd, 0x5499, &value) == -1 && errno == ENOTTY);
}

static void other_options(int fd)
{
	char text[64];
	socklen_t len;

	check(get_int(fd, SOL_SOCKET, SO_INCOMING_NAPI_ID) >= 0);
	check(get_int(fd, SOL_SOCKET, SO_ERROR) == 0);
	check(get_int(fd, SOL_SOCKET, SO_TYPE) == SOCK_STREAM);
	len = sizeof(text);
	if (!peer.v6)
		check(getsockopt(fd, IPPROTO_IP, IP_OPTIONS, text, &len) == 0 && len == 0);
	else
		check(get_int(fd, IPPROTO_IPV6, IPV6_V6ONLY) >= 0);
	check(get_int(fd, SOL_SOCKET, SO_REUSEPORT) == 0);
	len = sizeof(text);
	check(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, text, &len) == 0 && len == 0);
	both(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, 100000);
	both(fd, IPPROTO_TCP, TCP_LINGER2, 20);
	both(fd, SOL_SOCKET, SO_OOBINLINE, 1);
	both(fd, SOL_SOCKET, SO_PRIORITY, 2);
	if (!peer.v6) { /* a TOS that changes brings a priority */
		both(fd, IPPROTO_IP, IP_TOS, 0);
		both(fd, IPPROTO_IP, IP_TOS, 0x10);
		check(get_int(fd, SOL_SOCKET, SO_PRIORITY) == 6);
		both(fd, SOL_SOCKET, SO_PRIORITY, 2);
		both(fd, IPPROTO_IP, IP_TOS, 0x10);
		check(get_int(fd, SOL_SOCKET, SO_PRIORITY) == 2);
		both(fd, IPPROTO_IP, IP_TOS, 0);
	}
}

/* A child of a listener: its options are its own. */
static void accepted(void)
{
	int listener, fd, one, value = 1400;
	struct addr at;

	check(own_addr(&at, peer.v6));
	set_port(&at, 7003);
	listener = listener_on(&at, 5);
	set_int(listener, IPPROTO_TCP, TCP_DEFER_ACCEPT, 1);
	fd = dial(&at);
	write_all(fd, "x", 1);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	ioctls(one);
	other_options(one);
	tcp_options(one);
	/* for the segments of a connection that has some */
	check(setsockopt(one, IPPROTO_TCP, TCP_MAXSEG, &value, sizeof(value)) == 0 || way == OFFLOAD);
	check(recv(one, &value, 1, 0) == 1);
	write_all(one, "y", 1);
	check(recv(fd, &value, 1, 0) == 1);
	close(one);
	close(fd);
	close(listener);
}

/* What a child has from its listener. */
static void inherited(void)
{
	int listener, fd, one;
	struct addr at;

	check(own_addr(&at, peer.v6));
	set_port(&at, 7003);
	listener = listener_on(&at, 5);
	set_int(listener, IPPROTO_TCP, TCP_NODELAY, 1);
	set_int(listener, IPPROTO_TCP, TCP_KEEPIDLE, 77);
	set_int(listener, IPPROTO_TCP, TCP_USER_TIMEOUT, 4321);
	set_int(listener, SOL_SOCKET, SO_KEEPALIVE, 1);
	set_int(listener, SOL_SOCKET, SO_OOBINLINE, 1);
	set_int(listener, SOL_SOCKET, SO_ZEROCOPY, 1);
	if (!peer.v6)
		set_int(listener, IPPROTO_IP, IP_TOS, 0x10);
	fd = dial(&at);
	one = accept(listener, NULL, NULL);
	check(one >= 0);
	check(get_int(one, IPPROTO_TCP, TCP_NODELAY) == 1);
	check(get_int(one, SOL_SOCKET, SO_KEEPALIVE) == 1);
	check(get_int(one, SOL_SOCKET, SO_OOBINLINE) == 1);
	check(get_int(one, SOL_SOCKET, SO_ZEROCOPY) == 1);
	if (!peer.v6)
		check(get_int(one, IPPROTO_IP, IP_TOS) == 0x10);
	set_int(one, IPPROTO_TCP, TCP_CORK, 1);
	/* again, now that an option beyond the few has been asked for */
	check(get_int(one, IPPROTO_TCP, TCP_WINDOW_CLAMP) >= 0);
	check(get_int(one, IPPROTO_TCP, TCP_CORK) == 1);
	set_int(one, IPPROTO_TCP, TCP_CORK, 0);
	check(get_int(one, IPPROTO_TCP, TCP_NODELAY) == 1);
	check(get_int(one, IPPROTO_TCP, TCP_KEEPIDLE) == 77);
	check(get_int(one, IPPROTO_TCP, TCP_USER_TIMEOUT) == 4321);
	if (peer.v6) /* set by bind() to an address of IPv6 */
		check(get_int(listener, IPPROTO_IPV6, IPV6_V6ONLY) == 1 && get_int(one, IPPROTO_IPV6, IPV6_V6ONLY) == 1);
	write_all(fd, "x", 1);
	check(wait_poll(one, POLLIN, 5000) == POLLIN);
	check(get_int(one, SOL_SOCKET, SO_INCOMING_CPU) >= 0);
	close(one);
	close(fd);
	close(listener);
}

static void client(void)
{
	struct tcp_info info;
	socklen_t len = sizeof(info);
	char buf[100] = { ECHO };
	int fd = vnet_socket(peer.v6), value;

	ioctls(fd);
	other_options(fd);
	tcp_options(fd);
	check(connect(fd, sa(&peer), peer.len) == 0);
	check_offloaded(fd);
	ioctls(fd);
	other_options(fd);
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
	if (way != OFFLOAD) {
		close(fd);
		accepted();
		inherited();
		return;
	}
	/* wire options of TCP have no meaning here */
	check(setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", 3) == -1);
	value = VNET_MODE_TCP;
	check(setsockopt(fd, SOL_VNET, VNET_SO_MODE, &value, sizeof(value)) == -1);
	close(fd);

	/* one that changes the wire pins a socket to TCP */
	fd = vnet_socket(peer.v6);
	value = 7;
	check(setsockopt(fd, SOL_SOCKET, SO_MARK, &value, sizeof(value)) == 0);
	check(connect(fd, sa(&peer), peer.len) == 0);
	expect_tcp(fd, VTOE_REASON_OPTION);
	close(fd);
	accepted();
	inherited();
}
