// SPDX-License-Identifier: MIT
/*
 * The log: problems, and at level `connections` which way each connection went.
 *
 * The kernel decides a connection's path late (a connect that does not block
 * returns before), so it is asked when the path is sure to be known: after a
 * connect that succeeded, at close(), and at exit for what is still open. That
 * needs no table of descriptors to keep true through dup(), fork() and exec();
 * a small hash of socket inodes keeps a process from reporting one twice.
 *
 * Lines go out by one write(). stderr is written to only while descriptor 2 is
 * the file that it was at the start: a daemon may have closed it and got a
 * connection in its place. A log file is opened for each line, so the program
 * has no descriptor that it does not know.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vns.h"

#define REPORTED_SLOTS 1024

/* ---- lines ---- */

void vns_log_start(const struct vns_config *c, struct vns_text *t)
{
	vns_put(t, "libvnetsock: ");
	vns_put(t, c->program);
	vns_put(t, "[");
	vns_put_u(t, (unsigned long)getpid());
	vns_put(t, "]: ");
}

/* write(), with no SIGPIPE for a program whose stderr has no reader. */
static void write_quietly(int fd, const char *s, size_t len)
{
	static const struct timespec now;
	sigset_t pipe, old, pending;
	bool was_pending;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	sigpending(&pending);
	was_pending = sigismember(&pending, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &pipe, &old);
	if (syscall(SYS_write, fd, s, len) < 0 && errno == EPIPE && !was_pending)
		sigtimedwait(&pipe, NULL, &now);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
}

static bool stderr_is_stderr(const struct vns_config *c)
{
	struct stat st;

	return c->stderr_ino && !fstat(STDERR_FILENO, &st) &&
	       st.st_dev == c->stderr_dev && st.st_ino == c->stderr_ino;
}

void vns_log_line(const struct vns_config *c, int level, struct vns_text *t)
{
	int saved = errno;
	long fd = -1;

	if (c->log_level < level)
		return;
	if (t->len > sizeof(t->buf) - 2)
		t->len = sizeof(t->buf) - 2;
	vns_put(t, "\n");
	if (*c->log_file)
		fd = syscall(SYS_openat, AT_FDCWD, c->log_file,
			     O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC |
			     O_NOCTTY | O_NONBLOCK | O_NOFOLLOW, 0644);
	if (fd >= 0) {
		write_quietly((int)fd, t->buf, t->len);
		syscall(SYS_close, fd);
	} else if (stderr_is_stderr(c)) {
		write_quietly(STDERR_FILENO, t->buf, t->len);
	}
	errno = saved;
}

/* ---- paths ---- */

/* False if this process has reported the socket. */
static bool first_report(int fd)
{
	static _Atomic uint64_t reported[REPORTED_SLOTS];
	struct stat st;
	uint64_t key;

	if (fstat(fd, &st))
		return false;
	key = (uint64_t)st.st_ino;
	return atomic_exchange(&reported[key % REPORTED_SLOTS], key) != key;
}

/* An option of the socket, -1 if it is none. */
static int socket_option(int fd, int option)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, SOL_SOCKET, option, &value, &len) ? -1 : value;
}

static void put_path(struct vns_text *t, const struct vnet_so_path *path)
{
	if (path->path == VNET_PATH_VTOE) {
		vns_put(t, "offload (fabric ");
		vns_put_u(t, path->fabric);
		vns_put(t, ", sid ");
		vns_put_u(t, path->sid);
		vns_put(t, ")");
	} else {
		vns_put(t, "tcp (");
		vns_put(t, path->reason_name);
		vns_put(t, ")");
	}
}

static void report(const struct vns_config *c, int fd)
{
	struct vnet_so_path path = { .path = VNET_PATH_TCP };
	struct sockaddr_storage local, peer;
	socklen_t len = sizeof(path), local_len = sizeof(local);
	socklen_t peer_len = sizeof(peer);
	struct vns_text t = { 0 };
	bool connected;

	if (getsockopt(fd, SOL_VNET, VNET_SO_PATH, &path, &len)) {
		if (errno == EBADF || errno == ENOTSOCK ||
		    socket_option(fd, SO_PROTOCOL) != IPPROTO_TCP)
			return;
		strcpy(path.reason_name, "ordinary socket");
	}
	if (path.path == VNET_PATH_UNDECIDED || socket_option(fd, SO_ACCEPTCONN) == 1)
		return;
	connected = !getpeername(fd, (struct sockaddr *)&peer, &peer_len);
	/* Of a connection that was reset the path is worth a line all the same. */
	if (!connected && path.path != VNET_PATH_VTOE)
		return;
	if (getsockname(fd, (struct sockaddr *)&local, &local_len))
		local_len = 0;
	if (!first_report(fd))
		return;
	path.reason_name[sizeof(path.reason_name) - 1] = '\0';
	vns_log_start(c, &t);
	vns_put(&t, "local ");
	vns_put_addr(&t, (struct sockaddr *)&local, local_len);
	vns_put(&t, " peer ");
	vns_put_addr(&t, (struct sockaddr *)&peer, connected ? peer_len : 0);
	vns_put(&t, ": ");
	put_path(&t, &path);
	vns_log_line(c, VNS_LOG_CONNECTIONS, &t);
}

void vns_log_path(const struct vns_config *c, int fd)
{
	int saved = errno;

	report(c, fd);
	errno = saved;
}

void vns_log_remaining(const struct vns_config *c)
{
	/* struct linux_dirent64: u64 inode, s64 offset, u16 length, u8 type, name */
	enum { LENGTH_AT = 16, NAME_AT = 19 };
	_Alignas(8) char buf[1024];
	long dir, len, at;
	uint16_t step;

	dir = syscall(SYS_openat, AT_FDCWD, "/proc/self/fd",
		      O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return;
	while ((len = syscall(SYS_getdents64, dir, buf, sizeof(buf))) > 0) {
		for (at = 0; at < len; at += step) {
			const char *name = buf + at + NAME_AT;
			int fd = 0;

			memcpy(&step, buf + at + LENGTH_AT, sizeof(step));
			while (*name >= '0' && *name <= '9')
				fd = fd * 10 + (*name++ - '0');
			if (!*name && fd != dir)
				vns_log_path(c, fd);
		}
	}
	syscall(SYS_close, dir);
}
