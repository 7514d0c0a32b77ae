// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * guestd - first process of a lab guest, and its command server.
 *
 * As init it mounts a writable root (an overlay of tmpfs over the shared, read-only root) and what programs expect. The
 * root is there already (hostfs), or, where it was started from an initramfs, it loads the modules of /modules in the
 * order of /modules/order and mounts the 9p share `root`. An initramfs with programs (lab.d/movable.py) is a root itself.
 * Then it serves commands over one line, /dev/ttyS0 or what the kernel's parameter guestd_line names (a virtio serial
 * port), whose other end the lab's supervisor holds: any number of commands at once, each with its own stdin, stdout and
 * stderr, exit status and signals, binary clean.
 *
 * Frames, little-endian, both ways: u32 length of the payload, u16 session, u8 type, u8 zero, payload. The types are the
 * enum below; lab.d/common.py is the other side. A session lives from START until EXIT or KILL, and the host numbers them.
 *
 * Flow control: a sender of stdin or output may have WINDOW_* bytes under way per session; ACK returns what the receiver
 * has passed on. So a command that does not read, or a client that does not, stops itself alone and never the line.
 *
 * A session ends when its command has exited and the output that was there by then is sent. What the command left in the
 * background keeps running, and its output is thrown away from then on: it must neither block nor get SIGPIPE.
 *
 * It is one thread around poll(). The peer is the lab itself, so a malformed frame is a bug: say so and stop the guest.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

enum frame_type {
	F_HELLO = 1,	/* guest: u32 version; the host says nothing before it */
	F_START = 2,	/* host: struct start, cwd, arguments, environment, each string ended by NUL */
	F_STDIN = 3,	/* host: data; empty is end of file */
	F_STDOUT = 4,	/* guest: data */
	F_STDERR = 5,	/* guest: data */
	F_EXIT = 6,	/* guest: u8 1 if killed by a signal, u8 exit status or signal */
	F_SIGNAL = 7,	/* host: u8 signal for the command's process group; u8 1, if there: for its process alone */
	F_WINSIZE = 8,	/* host: u16 rows, u16 columns */
	F_ACK = 9,	/* both: u32 bytes that the receiver has passed on */
	F_KILL = 10,	/* host: kill the process group, send nothing more for this session */
};

struct frame {
	uint32_t len;
	uint16_t id;
	uint8_t type;
	uint8_t zero;
};

struct start {
	uint16_t pty;	/* 1: on a terminal of its own, stderr joins stdout */
	uint16_t rows, cols;
	uint16_t argc, envc;
};

#define VERSION		1
#define MAX_PAYLOAD	(1u << 20)	/* START with a long command line; data frames are shorter */
#define MAX_SESSIONS	128
#define WINDOW_STDIN	65536u
#define WINDOW_OUTPUT	262144u
#define CHUNK		16384u
#define LINE_WAIT_MS	20000
#define LINE_HIGH	131072u		/* stop reading commands' output above this much unsent */

struct session {
	bool used;
	bool exited;		/* status is known, EXIT not sent yet */
	bool orphan;		/* EXIT sent; drain what background processes still write */
	bool pty;
	bool in_eof;		/* close stdin when its queue is empty */
	uint16_t id;
	pid_t pid;
	int status;
	int in, out, err;	/* -1 when closed; with a pty `in` is a dup of `out` */
	uint32_t window;	/* output bytes we may still send */
	uint32_t in_len;
	char *in_queue;		/* WINDOW_STDIN bytes */
};

static struct session sessions[MAX_SESSIONS];
static int line = -1;
static char *line_out;		/* unsent frames */
static size_t line_len, line_cap;
static char *line_in;		/* received, not yet a whole frame */
static size_t line_in_len;

__attribute__((format(printf, 1, 2), noreturn))
static void fatal(const char *fmt, ...)
{
	char msg[256];
	va_list ap;
	int fd;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		fd = 2;
	dprintf(fd, "<0>guestd: fatal: %s\n", msg);
	sync();
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void *grow(void *p, size_t n)
{
	p = realloc(p, n);
	if (!p)
		fatal("out of memory");
	return p;
}

/* ---- the line ---- */

static void send_frame(uint16_t id, enum frame_type type, const void *data, uint32_t len)
{
	struct frame f = { .len = htole32(len), .id = htole16(id), .type = type };

	if (line_len + sizeof(f) + len > line_cap) {
		line_cap = (line_len + sizeof(f) + len) * 2;
		line_out = grow(line_out, line_cap);
	}
	memcpy(line_out + line_len, &f, sizeof(f));
	memcpy(line_out + line_len + sizeof(f), data, len);
	line_len += sizeof(f) + len;
}

static void send_ack(uint16_t id, uint32_t n)
{
	n = htole32(n);
	send_frame(id, F_ACK, &n, sizeof(n));
}

static void flush_line(void)
{
	size_t done = 0;

	while (done < line_len) {
		ssize_t n = write(line, line_out + done, line_len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0)
			fatal("writing the line: %s", strerror(errno));
		done += n;
	}
	memmove(line_out, line_out + done, line_len - done);
	line_len -= done;
}

/* ---- sessions ---- */

static struct session *find_session(uint16_t id)
{
	for (int i = 0; i < MAX_SESSIONS; i++)
		if (sessions[i].used && !sessions[i].orphan && sessions[i].id == id)
			return &sessions[i];
	return NULL;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void free_session(struct session *s)
{
	close_fd(&s->in);
	close_fd(&s->out);
	close_fd(&s->err);
	free(s->in_queue);
	memset(s, 0, sizeof(*s));
}

static void end_session(struct session *s)
{
	uint8_t how[2] = { WIFSIGNALED(s->status), WIFSIGNALED(s->status) ? WTERMSIG(s->status) : WEXITSTATUS(s->status) };

	send_frame(s->id, F_EXIT, how, sizeof(how));
	close_fd(&s->in);
	s->orphan = true;
	if (s->out < 0 && s->err < 0)
		free_session(s);
}

/* What follows fork() in the child; never returns. */
__attribute__((noreturn))
static void run_command(const int fd[3], bool pty, const char *cwd, char **argv, char **envp)
{
	sigset_t none;

	setsid();
	for (int i = 0; i < 3; i++)
		dup2(fd[i], i);
	if (pty)
		ioctl(0, TIOCSCTTY, 0);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	signal(SIGPIPE, SIG_DFL);
	if (*cwd && chdir(cwd)) {
		dprintf(2, "lab: %s: %s\n", cwd, strerror(errno));
		_exit(126);
	}
	environ = envp;
	execvp(argv[0], argv);
	dprintf(2, "lab: %s: %s\n", argv[0], strerror(errno));
	_exit(errno == ENOENT ? 127 : 126);
}

static int open_pty(int *master, int *slave, uint16_t rows, uint16_t cols)
{
	struct winsize ws = { .ws_row = rows, .ws_col = cols };
	int unlock = 0, n;
	char name[32];

	*master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*master < 0 || ioctl(*master, TIOCSPTLCK, &unlock) || ioctl(*master, TIOCGPTN, &n))
		return -1;
	snprintf(name, sizeof(name), "/dev/pts/%d", n);
	*slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*slave < 0)
		return -1;
	return ioctl(*master, TIOCSWINSZ, &ws);
}

/* The next string of a START payload, or the end of the guest: the lab does not send bad ones. */
static char *next_string(char **p, const char *end)
{
	char *s = *p, *nul = memchr(s, 0, end - s);

	if (!nul)
		fatal("malformed START");
	*p = nul + 1;
	return s;
}

static void start_session(uint16_t id, char *p, uint32_t len)
{
	int theirs[3] = { -1, -1, -1 }, ours[3] = { -1, -1, -1 };
	struct session *s = NULL;
	const char *end = p + len, *why = "too many commands at once";
	char **argv, **envp, *cwd;
	struct start st;

	if (len < sizeof(st) || find_session(id))
		fatal("malformed START of session %u", id);
	memcpy(&st, p, sizeof(st));
	p += sizeof(st);
	argv = grow(NULL, sizeof(*argv) * (le16toh(st.argc) + 1));
	envp = grow(NULL, sizeof(*envp) * (le16toh(st.envc) + 1));
	cwd = next_string(&p, end);
	for (int i = 0; i < le16toh(st.argc); i++)
		argv[i] = next_string(&p, end);
	argv[le16toh(st.argc)] = NULL;
	for (int i = 0; i < le16toh(st.envc); i++)
		envp[i] = next_string(&p, end);
	envp[le16toh(st.envc)] = NULL;
	if (!argv[0])
		fatal("START without a command");

	for (int i = 0; i < MAX_SESSIONS && !s; i++)
		if (!sessions[i].used)
			s = &sessions[i];
	if (!s)
		goto refuse;
	why = strerror(ENFILE);
	if (st.pty) {
		if (open_pty(&ours[1], &theirs[0], le16toh(st.rows), le16toh(st.cols)))
			goto refuse;
		ours[0] = fcntl(ours[1], F_DUPFD_CLOEXEC, 3);
		theirs[1] = fcntl(theirs[0], F_DUPFD_CLOEXEC, 3);
		theirs[2] = fcntl(theirs[0], F_DUPFD_CLOEXEC, 3);
	} else {
		int in[2], out[2], err[2];

		if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC) || pipe2(err, O_CLOEXEC))
			goto refuse;
		theirs[0] = in[0];
		ours[0] = in[1];
		ours[1] = out[0];
		theirs[1] = out[1];
		ours[2] = err[0];
		theirs[2] = err[1];
	}
	*s = (struct session){
		.used = true, .id = id, .pty = st.pty, .in = ours[0], .out = ours[1], .err = ours[2],
		.window = WINDOW_OUTPUT, .in_queue = grow(NULL, WINDOW_STDIN),
	};
	for (int i = 0; i < 3; i++)
		if (ours[i] >= 0)
			fcntl(ours[i], F_SETFL, O_NONBLOCK);
	s->pid = fork();
	if (s->pid == 0)
		run_command(theirs, s->pty, cwd, argv, envp);
	if (s->pid < 0) {
		why = strerror(errno);
		free_session(s);
		memset(ours, -1, sizeof(ours));
		goto refuse;
	}
	for (int i = 0; i < 3; i++)
		close_fd(&theirs[i]);
	free(argv);
	free(envp);
	return;

refuse:
	for (int i = 0; i < 3; i++) {
		close_fd(&theirs[i]);
		close_fd(&ours[i]);
	}
	{
		char msg[128];
		const uint8_t how[2] = { 0, 126 };

		snprintf(msg, sizeof(msg), "lab: cannot start %.60s: %s\n", argv[0], why);
		send_frame(id, F_STDERR, msg, strlen(msg));
		send_frame(id, F_EXIT, how, sizeof(how));
	}
	free(argv);
	free(envp);
}

static void write_stdin(struct session *s)
{
	ssize_t n = s->in_len;

	if (s->in >= 0 && s->in_len) {
		n = write(s->in, s->in_queue, s->in_len);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n < 0) {
			/* nobody reads any more: swallow the rest */
			close_fd(&s->in);
			n = s->in_len;
		}
	}
	if (n) {
		memmove(s->in_queue, s->in_queue + n, s->in_len - n);
		s->in_len -= n;
		send_ack(s->id, n);
	}
	if (!s->in_len && s->in_eof)
		close_fd(&s->in);
}

/* Pass on what a command wrote. Returns true once nothing more is there now. */
static bool read_output(struct session *s, int *fd, enum frame_type type)
{
	static char buf[CHUNK];
	uint32_t room = s->orphan ? CHUNK : s->window;
	ssize_t n;

	if (*fd < 0)
		return true;
	if (!room)
		return false;
	n = read(*fd, buf, room < CHUNK ? room : CHUNK);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return errno == EAGAIN;
	if (n <= 0) {
		close_fd(fd);
		return true;
	}
	if (!s->orphan) {
		s->window -= n;
		send_frame(s->id, type, buf, n);
	}
	return false;
}

static void handle_frame(const struct frame *f, char *data, uint32_t len)
{
	uint16_t id = le16toh(f->id);
	struct session *s = find_session(id);
	uint32_t n;

	if (f->type == F_START) {
		start_session(id, data, len);
		return;
	}
	if (!s)
		return;		/* it ended while this was on its way */
	switch (f->type) {
	case F_STDIN:
		if (len > WINDOW_STDIN - s->in_len)
			fatal("session %u overran its stdin window", id);
		memcpy(s->in_queue + s->in_len, data, len);
		s->in_len += len;
		if (!len && s->pty && s->in >= 0)
			s->in_queue[s->in_len++] = 4;	/* a terminal's end of file */
		else if (!len)
			s->in_eof = true;
		write_stdin(s);
		break;
	case F_SIGNAL:
		if (len >= 1 && s->pid > 0 && !s->exited)
			kill(len >= 2 && data[1] ? s->pid : -s->pid, (uint8_t)data[0]);
		break;
	case F_WINSIZE:
		if (len >= 4 && s->pty && s->out >= 0) {
			struct winsize ws = { .ws_row = (uint8_t)data[0] | (uint8_t)data[1] << 8,
					      .ws_col = (uint8_t)data[2] | (uint8_t)data[3] << 8 };

			ioctl(s->out, TIOCSWINSZ, &ws);
		}
		break;
	case F_ACK:
		if (len < 4)
			fatal("malformed ACK");
		memcpy(&n, data, 4);
		s->window += le32toh(n);
		break;
	case F_KILL:
		/* Also when the command itself is gone: its group may live on */
		if (!s->exited)
			kill(-s->pid, SIGKILL);
		close_fd(&s->in);
		s->orphan = true;
		break;
	default:
		fatal("unknown frame type %u", f->type);
	}
}

static void read_line(void)
{
	size_t off = 0;
	ssize_t n;

	n = read(line, line_in + line_in_len, sizeof(struct frame) + MAX_PAYLOAD - line_in_len);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0)
		fatal("the lab closed the line");
	line_in_len += n;
	while (line_in_len - off >= sizeof(struct frame)) {
		struct frame f;
		uint32_t len;

		memcpy(&f, line_in + off, sizeof(f));
		len = le32toh(f.len);
		if (len > MAX_PAYLOAD || f.zero)
			fatal("malformed frame: type %u length %u", f.type, len);
		if (line_in_len - off < sizeof(f) + len)
			break;
		handle_frame(&f, line_in + off + sizeof(f), len);
		off += sizeof(f) + len;
	}
	memmove(line_in, line_in + off, line_in_len - off);
	line_in_len -= off;
}

static void reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (int i = 0; i < MAX_SESSIONS; i++)
			if (sessions[i].used && sessions[i].pid == pid && !sessions[i].exited) {
				sessions[i].exited = true;
				sessions[i].status = status;
			}
}

static void serve(void)
{
	static struct pollfd pfd[2 + 3 * MAX_SESSIONS];
	struct signalfd_siginfo si;
	sigset_t set;
	int sfd;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sfd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (sfd < 0)
		fatal("signalfd: %s", strerror(errno));
	for (;;) {
		int n = 2, timeout = -1;

		pfd[0] = (struct pollfd){ .fd = line, .events = POLLIN | (line_len ? POLLOUT : 0) };
		pfd[1] = (struct pollfd){ .fd = sfd, .events = POLLIN };
		for (int i = 0; i < MAX_SESSIONS; i++) {
			struct session *s = &sessions[i];
			bool room = line_len < LINE_HIGH && (s->orphan || s->window);

			if (!s->used)
				continue;
			if (s->in >= 0 && s->in_len)
				pfd[n++] = (struct pollfd){ .fd = s->in, .events = POLLOUT };
			if (s->out >= 0 && room)
				pfd[n++] = (struct pollfd){ .fd = s->out, .events = POLLIN };
			if (s->err >= 0 && room)
				pfd[n++] = (struct pollfd){ .fd = s->err, .events = POLLIN };
			if (s->exited && !s->orphan && room)
				timeout = 0;
		}
		if (poll(pfd, n, timeout) < 0 && errno != EINTR)
			fatal("poll: %s", strerror(errno));
		while (read(sfd, &si, sizeof(si)) > 0)
			;
		reap();
		if (pfd[0].revents & (POLLIN | POLLHUP | POLLERR))
			read_line();
		for (int i = 0; i < MAX_SESSIONS; i++) {
			struct session *s = &sessions[i];
			bool idle;

			if (!s->used)
				continue;
			write_stdin(s);
			if (line_len >= LINE_HIGH)
				continue;
			idle = read_output(s, &s->out, F_STDOUT) & read_output(s, &s->err, F_STDERR);
			if (s->exited && idle && !s->orphan)
				end_session(s);
			else if (s->orphan && s->exited && s->out < 0 && s->err < 0)
				free_session(s);
		}
		flush_line();
	}
}

/* ---- init ---- */

static void must_mount(const char *what, const char *where, const char *type, unsigned long flags, const char *options)
{
	if (mkdir(where, 0755) && errno != EEXIST && errno != EROFS)
		fatal("mkdir %s: %s", where, strerror(errno));
	if (mount(what, where, type, flags, options))
		fatal("mount %s on %s: %s", type ? type : what, where, strerror(errno));
}

static void load_module(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/modules/%s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
		fatal("loading %s: %s", path, strerror(errno));
	close(fd);
}

/* The initramfs is all that there is. */
static bool whole;

static void leave_initramfs(void)
{
	FILE *order = fopen("/modules/order", "re");
	char name[96];

	if (!order)
		return;
	must_mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
	while (fscanf(order, "%95s", name) == 1)
		load_module(name);
	fclose(order);
	if (!access("/usr", F_OK)) {
		whole = true;
		return;
	}
	/* The root does not change while a lab runs: it may be cached without asking. */
	must_mount("root", "/newroot", "9p", MS_RDONLY, "trans=virtio,version=9p2000.L,msize=262144,cache=loose");
	if (chdir("/newroot") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		fatal("changing to the root: %s", strerror(errno));
}

/* The root is shared and read-only: what a guest writes goes to its own memory. */
static void cover_root(void)
{
	must_mount("tmpfs", "/mnt", "tmpfs", 0, "mode=755");
	if (mkdir("/mnt/upper", 0755) || mkdir("/mnt/work", 0755))
		fatal("mkdir /mnt/upper: %s", strerror(errno));
	must_mount("overlay", "/mnt/root", "overlay", 0, "lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work");
	if (chdir("/mnt/root") || mount(".", "/", NULL, MS_MOVE, NULL) || chroot(".") || chdir("/"))
		fatal("changing to the new root: %s", strerror(errno));
}

static void mount_the_rest(void)
{
	must_mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	must_mount("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
	/* A file system is mounted only once in one place: an initramfs that stays has it. */
	if (!whole)
		must_mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=755");
	must_mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
	must_mount("tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, NULL);
	must_mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
	must_mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, NULL);
	/* Only some kernels have these. */
	mount("debugfs", "/sys/kernel/debug", "debugfs", 0, NULL);
	mount("tracefs", "/sys/kernel/tracing", "tracefs", 0, NULL);
	symlink("/proc/self/fd", "/dev/fd");
	symlink("/proc/self/fd/0", "/dev/stdin");
	symlink("/proc/self/fd/1", "/dev/stdout");
	symlink("/proc/self/fd/2", "/dev/stderr");
}

static void open_line(void)
{
	const char *path = getenv("guestd_line");
	struct pollfd pfd = { .events = POLLOUT };
	struct termios t;

	if (!path)
		path = "/dev/ttyS0";
	/* A virtio port appears, and is connected, some time after its driver was loaded. */
	for (int i = 0; i < LINE_WAIT_MS; i++) {
		if (line < 0)
			line = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
		pfd.fd = line;
		if (line >= 0 && poll(&pfd, 1, 0) >= 0 && !(pfd.revents & POLLHUP))
			break;
		usleep(1000);
	}
	if (line < 0)
		fatal("%s: %s", path, strerror(errno));
	if (!isatty(line))
		return;
	if (tcgetattr(line, &t))
		fatal("%s: %s", path, strerror(errno));
	cfmakeraw(&t);
	t.c_cflag |= CLOCAL;
	if (tcsetattr(line, TCSANOW, &t))
		fatal("%s: %s", path, strerror(errno));
}

int main(void)
{
	const uint32_t version = htole32(VERSION);
	int null;

	if (getpid() != 1) {
		fprintf(stderr, "guestd is the first process of a lab guest; start one with tests/lab up\n");
		return 2;
	}
	umask(022);
	leave_initramfs();
	if (!whole)
		cover_root();
	mount_the_rest();
	null = open("/dev/null", O_RDWR);
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	if (null > 2)
		close(null);
	signal(SIGPIPE, SIG_IGN);
	line_in = grow(NULL, sizeof(struct frame) + MAX_PAYLOAD);
	open_line();
	send_frame(0, F_HELLO, &version, sizeof(version));
	serve();
}
