// SPDX-License-Identifier: GPL-2.0-or-later
/* One socket under several descriptors and processes: dup, dup2, fork, exec, passing it on. */
#include "sock_common.h"

static void pass(int over, int fd)
{
	char c = 'x', control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { &c, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			      .msg_controllen = sizeof(control) };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	check(sendmsg(over, &msg, 0) == 1);
}

static int take(int from)
{
	char c, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &c, 1 };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			      .msg_controllen = sizeof(control) };
	int fd;

	check(recvmsg(from, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

static void client(void)
{
	int fd = call(ECHO), other, pair[2], status;
	char buf[16];
	pid_t pid;

	/* a duplicate outlives the original */
	other = dup(fd);
	check(close(fd) == 0);
	write_all(other, "dup", 3);
	check(read_full(other, buf, 3) == 3);

	/* a child writes, the parent reads; the child's exit closes nothing */
	pid = fork();
	if (!pid) {
		write_all(other, "child", 5);
		_exit(0);
	}
	check(waitpid(pid, &status, 0) == pid && status == 0);
	check(read_full(other, buf, 5) == 5 && !memcmp(buf, "child", 5));

	/* a program that knows nothing of sockets has it as stdout */
	pid = fork();
	if (!pid) {
		dup2(other, 1);
		execlp("echo", "echo", "exec", (char *)NULL);
		_exit(127);
	}
	check(waitpid(pid, &status, 0) == pid && status == 0);
	check(read_full(other, buf, 5) == 5 && !memcmp(buf, "exec\n", 5));

	/* passed to another process, closed here */
	check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
	pid = fork();
	if (!pid) {
		close(other);
		fd = take(pair[1]);
		write_all(fd, "pass", 4);
		check(read_full(fd, buf, 4) == 4 && !memcmp(buf, "pass", 4));
		check(shutdown(fd, SHUT_WR) == 0 && recv(fd, buf, 1, 0) == 0);
		_exit(0);
	}
	pass(pair[0], other);
	close(other);
	check(waitpid(pid, &status, 0) == pid && status == 0);
}
