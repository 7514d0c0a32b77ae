// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * notify - receive what daemons of a virtual machine say by sd_notify(3), and pass it on as lines.
 *
 * usage: notify PATH...      a NOTIFY_SOCKET each; prints "PATH LINE" for every line that comes there
 *
 * The lab's supervisor reads the output; it cannot have the sockets itself, since it is not on that kernel.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int listen_at(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(un.sun_path)) {
		fprintf(stderr, "notify: %s is too long\n", path);
		exit(1);
	}
	strcpy(un.sun_path, path);
	unlink(path);
	/* A daemon that dropped its rights still reports. */
	if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) || chmod(path, 0666)) {
		perror(path);
		exit(1);
	}
	return fd;
}

static void relay(int fd, const char *path)
{
	char data[4096], *line, *rest;
	ssize_t n = recv(fd, data, sizeof(data) - 1, 0);

	if (n <= 0)
		return;
	data[n] = 0;
	for (line = strtok_r(data, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
		printf("%s %s\n", path, line);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	struct pollfd *pfd = calloc(argc, sizeof(*pfd));

	if (argc < 2 || !pfd) {
		fprintf(stderr, "usage: notify PATH...\n");
		return 2;
	}
	for (int i = 1; i < argc; i++)
		pfd[i - 1] = (struct pollfd){ .fd = listen_at(argv[i]), .events = POLLIN };
	printf("ready\n");
	fflush(stdout);
	for (;;) {
		if (poll(pfd, argc - 1, -1) < 0)
			continue;
		for (int i = 1; i < argc; i++)
			if (pfd[i - 1].revents)
				relay(pfd[i - 1].fd, argv[i]);
	}
}
