// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One connection that is expected to go over TCP: sock_reason client ADDR, the
 * reason's name in $REASON, "none" if it should be offloaded. Data passes over
 * it, and /proc says why. $NOBODY: it fails on TCP as well. $MANY: as many at once, the first offloaded, some of
 * the others, if that is expected, not.
 */
#include "sock_common.h"

/* /proc/net/vnet_sock has a line for the local port, with its path and reason. */
static bool told(const char *reason, int local_port)
{
	char line[512], name[64], path[16], local[64];
	FILE *f = fopen("/proc/net/vnet_sock", "r");
	bool found = false;

	check(f);
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %63s %*s %15s %63s", local, path, name) == 3 &&
		    atoi(strrchr(local, ':') ? strrchr(local, ':') + 1 : "") == local_port &&
		    !strcmp(name, reason) && !strcmp(path, strcmp(reason, "none") ? "tcp" : "vtoe"))
			found = true;
	fclose(f);
	return found;
}

/* Whether it is offloaded. */
static bool talk(int fd)
{
	struct vnet_so_path path = path_of(fd);
	struct addr own = name_of(fd);
	char buf[8] = { ECHO };

	write_all(fd, buf, 1);
	write_all(fd, "reason", 6);
	check(read_full(fd, buf, 6) == 6 && !memcmp(buf, "reason", 6));
	if (!told(path.reason_name, port_of(&own)))
		printf("no line in /proc for port %d, reason %s\n", port_of(&own), path.reason_name);
	check(told(path.reason_name, port_of(&own)));
	return path.path == VNET_PATH_VTOE;
}

static void client(void)
{
	const char *reason = getenv("REASON"), *many = getenv("MANY");
	int count = many ? atoi(many) : 1, fd[1000], i, fallen = 0;
	struct vnet_so_path path;

	check(reason && count >= 1 && count <= 1000);
	for (i = 0; i < count; i++) {
		fd[i] = vnet_socket(peer.v6);
		errno = 0;
		if (connect(fd[i], sa(&peer), peer.len))
			printf("connection %d: %s\n", i, strerror(errno));
		/* an address that nobody has: TCP says so */
		if (getenv("NOBODY")) {
			check(errno == EHOSTUNREACH);
			check(!strcmp(path_of(fd[i]).reason_name, reason));
			return;
		}
		check(!errno);
		path = path_of(fd[i]);
		if (!many || path.path != VNET_PATH_VTOE) {
			if (strcmp(path.reason_name, reason))
				printf("reason %s, not %s\n", path.reason_name, reason);
			check(!strcmp(path.reason_name, reason));
		}
		fallen += !talk(fd[i]);
	}
	if (many) {
		check(path_of(fd[0]).path == VNET_PATH_VTOE);
		check(strcmp(reason, "none") ? fallen > 0 : !fallen);
		/* those that are offloaded do not starve for it */
		for (i = 0; i < count; i++) {
			char c = 'x';

			write_all(fd[i], &c, 1);
			check(recv(fd[i], &c, 1, 0) == 1);
		}
		printf("%d of %d over TCP\n", fallen, count);
	}
}
