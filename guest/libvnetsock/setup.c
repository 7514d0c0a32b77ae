// SPDX-License-Identifier: MIT
/*
 * What a process finds out: the calls below this library, the environment, the
 * policy file.
 *
 * The constructor does it, before main(). But constructors of other libraries
 * may open sockets before ours runs, so every interposed call comes through
 * vns_config() and the first one does the work. There is no lock to be held
 * across fork() or in a signal handler: `owner` is the thread id of who is at
 * it. Another thread waits for it; the thread itself (a signal handler, or a
 * malloc below dlsym() that opens sockets) gets plain system calls; and if the
 * owner does not exist (a fork in the middle), the finder starts over. A child
 * of vfork() takes its parent's threads for dead, so two may be at it in one
 * memory: each works in pages of its own, and `current` is what is complete.
 *
 * A policy that says `reload` is looked at again by the calls that come later.
 * Who moves the time of the next look is the one to look; a policy that changed
 * becomes a new config, and `current` that. The old one stays for the calls
 * that are still in it: nobody could tell when the last is out. That is a page
 * or two for each change.
 *
 * A set-uid program (AT_SECURE) looks at no variable and not at argv[0]: the
 * caller must not choose which way a privileged program's connections go, nor
 * have it read or write a file.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "vns.h"

#define OWNER_NOBODY 0u
#define OWNER_DONE UINT32_MAX

/* What is found out once, and the policy is put on top of. */
struct start {
	struct vns_config config; /* as the environment wants it */
	bool off;	    /* VNET_MODE is off */
	bool level_is_fixed; /* by the environment */
	char exe[4096], invoked[256];
	char policy[4096];
};

static const struct start *_Atomic started;
static const struct vns_config *_Atomic current;
static _Atomic uint32_t owner = OWNER_NOBODY;
static _Atomic int64_t next_look; /* at the policy file, seconds */

/* ---- the calls below ---- */

static int raw_socket(int domain, int type, int protocol)
{
	return (int)syscall(SYS_socket, domain, type, protocol);
}

static int raw_connect(int fd, const struct sockaddr *sa, socklen_t len)
{
	return (int)syscall(SYS_connect, fd, sa, len);
}

static int raw_listen(int fd, int backlog)
{
	return (int)syscall(SYS_listen, fd, backlog);
}

static int raw_close(int fd)
{
	return (int)syscall(SYS_close, fd);
}

/* For calls from within set_up(). */
static const struct vns_config early = {
	.next = {
		.socket = raw_socket,
		.connect = raw_connect,
		.listen = raw_listen,
		.close = raw_close,
	},
	.mode = -1,
	.log_level = VNS_LOG_OFF,
};

static void find_next(struct vns_next *next)
{
	*next = early.next;
	/* The detour is POSIX's way to turn an object pointer into a function's. */
#define FIND(name)                                                            \
	do {                                                                  \
		void *symbol = dlsym(RTLD_NEXT, #name);                       \
									      \
		if (symbol)                                                   \
			*(void **)&next->name = symbol;                       \
	} while (0)
	FIND(socket);
	FIND(connect);
	FIND(listen);
	FIND(close);
#undef FIND
}

/* ---- the environment ---- */

static void bad_variable(struct vns_config *c, const char *name,
			 const char *value, const char *expected)
{
	struct vns_text t = { 0 };

	vns_log_start(c, &t);
	vns_put(&t, name);
	vns_put(&t, "=");
	vns_put_quoted(&t, value, strlen(value));
	vns_put(&t, " is not known, expected ");
	vns_put(&t, expected);
	vns_put(&t, "; the variable is ignored");
	vns_log_line(c, VNS_LOG_ERRORS, &t);
}

/* True if VNET_MODE is off. */
static bool read_mode(struct vns_config *c, const char *value)
{
	if (!value || !*value)
		return false;
	if (!strcmp(value, "off"))
		return true;
	c->mode = vns_mode_parse(value, strlen(value));
	if (c->mode < 0)
		bad_variable(c, "VNET_MODE", value, "both, vnet, tcp or off");
	return false;
}

static void read_family(struct vns_config *c, const char *value)
{
	unsigned long n = 0;
	size_t i;

	if (!value || !*value)
		return;
	for (i = 0; value[i] >= '0' && value[i] <= '9' && i < 4; i++)
		n = n * 10 + (unsigned long)(value[i] - '0');
	if (!value[i] && n > 0 && n < 256)
		c->family = (int)n;
	else
		bad_variable(c, "VNET_FAMILY", value, "a number of 1 to 255");
}

/* The level that the environment asks for, -1 if it does not. */
static int read_log(struct vns_config *c, const char *level, const char *file)
{
	int n = -1;

	if (file && *file == '/' && strlen(file) < sizeof(c->log_file))
		strcpy(c->log_file, file);
	else if (file && *file)
		bad_variable(c, "VNET_LOG_FILE", file,
			     "a path that starts with / and has at most 255 bytes");
	if (level && *level) {
		n = vns_log_level_parse(level, strlen(level));
		if (n < 0)
			bad_variable(c, "VNET_LOG", level,
				     "off, errors or connections");
		else
			c->log_level = n;
	}
	return n;
}

/* ---- the policy file ---- */

struct reader {
	struct vns_config *c;
	const char *path;
	bool level_is_fixed; /* by the environment */
	bool again;	     /* a reload: what cannot be read changes nothing */
	bool failed;
};

static void use_log_settings(struct reader *r)
{
	struct vns_config *c = r->c;

	if (!r->level_is_fixed && c->policy.log_level >= 0)
		c->log_level = c->policy.log_level;
}

static void bad_line(void *arg, unsigned int line, const char *message)
{
	struct reader *r = arg;
	struct vns_text t = { 0 };

	use_log_settings(r);
	vns_log_start(r->c, &t);
	vns_put(&t, r->path);
	vns_put(&t, ":");
	vns_put_u(&t, line);
	vns_put(&t, ": ");
	vns_put(&t, message);
	vns_put(&t, "; the line is ignored, what no rule matches goes on as both");
	vns_log_line(r->c, VNS_LOG_ERRORS, &t);
}

static void bad_file(struct reader *r, const char *what, int err)
{
	static atomic_flag said = ATOMIC_FLAG_INIT; /* of a reload, which is tried again */
	struct vns_text t = { 0 };

	r->failed = true;
	if (r->again && atomic_flag_test_and_set(&said))
		return;
	vns_log_start(r->c, &t);
	vns_put(&t, r->path);
	vns_put(&t, ": ");
	vns_put(&t, what);
	if (err)
		vns_put_error(&t, err);
	vns_put(&t, r->again ? "; the policy stays as it was" :
			       "; going on without a policy: both");
	vns_log_line(r->c, VNS_LOG_ERRORS, &t);
}

static void *get_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

static size_t read_all(int fd, char *text, size_t size)
{
	size_t len = 0;
	ssize_t n;

	while (len < size) {
		n = syscall(SYS_read, fd, text + len, size - len);
		if (n > 0)
			len += (size_t)n;
		else if (n == 0 || errno != EINTR)
			break;
	}
	return len;
}

static void read_open_policy(struct reader *r, int fd,
			     const struct vns_program *program)
{
	struct vns_policy *policy = &r->c->policy;
	struct stat st;
	size_t size, len;
	char *text;

	if (fstat(fd, &st)) {
		bad_file(r, "cannot be read: ", errno);
		return;
	}
	if (!S_ISREG(st.st_mode)) {
		bad_file(r, "is not a regular file", 0);
		return;
	}
	if (st.st_size > VNS_POLICY_MAX) {
		bad_file(r, "is larger than 1 MB", 0);
		return;
	}
	r->c->stamp.dev = st.st_dev;
	r->c->stamp.ino = st.st_ino;
	r->c->stamp.size = st.st_size;
	r->c->stamp.changed = st.st_ctim;
	size = (size_t)st.st_size;
	if (!size)
		return;
	text = get_pages(size);
	if (!text) {
		bad_file(r, "cannot be read: ", errno);
		return;
	}
	len = read_all(fd, text, size);
	policy->max = vns_policy_lines(text, len);
	/* Kept for the life of the process: decisions walk them. */
	policy->rules = get_pages(policy->max * sizeof(*policy->rules));
	if (policy->rules)
		vns_policy_parse(policy, text, len, program, bad_line, r);
	else
		bad_file(r, "cannot be read: ", errno);
	munmap(text, size);
}

static void read_policy(struct reader *r, const struct vns_program *program)
{
	struct vns_config *c = r->c;
	long fd = syscall(SYS_openat, AT_FDCWD, r->path,
			  O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd >= 0) {
		read_open_policy(r, (int)fd, program);
		raw_close((int)fd);
	} else if (errno != ENOENT || r->again || strcmp(r->path, VNS_POLICY_DEFAULT)) {
		bad_file(r, "cannot be opened: ", errno);
	}
	use_log_settings(r);
	if (!*c->log_file)
		strcpy(c->log_file, c->policy.log_file);
}

/* ---- once ---- */

static void find_program(struct start *s, bool secure)
{
	struct vns_config *c = &s->config;
	ssize_t n = readlink("/proc/self/exe", s->exe, sizeof(s->exe) - 1);
	const char *name = program_invocation_short_name;
	const char *base;

	s->exe[n > 0 ? n : 0] = '\0';
	base = strrchr(s->exe, '/');
	/* A copy: programs write to their argv. */
	if (!secure && name)
		strncpy(s->invoked, name, sizeof(s->invoked) - 1);
	name = *s->invoked ? s->invoked : base ? base + 1 : "?";
	memcpy(c->program, name, strnlen(name, sizeof(c->program) - 1));
}

static void find_stderr(struct vns_config *c)
{
	struct stat st;

	if (!fstat(STDERR_FILENO, &st)) {
		c->stderr_dev = st.st_dev;
		c->stderr_ino = st.st_ino;
	}
}

static void read_environment(struct start *s)
{
	struct vns_config *c = &s->config;
	const char *path = getenv("VNET_POLICY");

	s->level_is_fixed = read_log(c, getenv("VNET_LOG"), getenv("VNET_LOG_FILE")) >= 0;
	s->off = read_mode(c, getenv("VNET_MODE"));
	read_family(c, getenv("VNET_FAMILY"));
	if (path && strlen(path) >= sizeof(s->policy))
		bad_variable(c, "VNET_POLICY", path, "a path of at most 4095 bytes");
	else if (path && *path)
		strcpy(s->policy, path);
}

static struct start *find_out(void)
{
	struct start *s = get_pages(sizeof(*s));
	bool secure = getauxval(AT_SECURE);
	struct vns_config *c;

	if (!s)
		return NULL;
	c = &s->config;
	c->mode = -1;
	c->family = AF_INET_VNET_DEFAULT;
	c->log_level = VNS_LOG_ERRORS;
	c->policy.log_level = -1;
	strcpy(s->policy, VNS_POLICY_DEFAULT);
	find_next(&c->next);
	find_stderr(c);
	find_program(s, secure);
	if (!secure)
		read_environment(s);
	return s;
}

/* The policy on top of what is known: a new config, or NULL. */
static const struct vns_config *with_policy(const struct start *s, bool again)
{
	struct vns_config *c = get_pages(sizeof(*c));
	struct vns_program program = { .exe = s->exe, .invoked = s->invoked };
	struct reader r = {
		.c = c, .path = s->policy, .level_is_fixed = s->level_is_fixed, .again = again,
	};
	int constant;

	if (!c)
		return NULL;
	*c = s->config;
	/* Even when a mode is given: the file may set the log. */
	read_policy(&r, &program);
	if (again && r.failed) {
		munmap(c, sizeof(*c));
		return NULL;
	}
	constant = c->mode >= 0 ? c->mode : vns_policy_constant(&c->policy);
	/*
	 * A program all of whose connections are TCP by policy needs nothing
	 * from the family. VNET_MODE=tcp does ask for it: that is how its TCP
	 * path is tried.
	 */
	c->offload = !s->off && !(c->mode < 0 && constant == VNET_MODE_TCP);
	c->steer = c->offload && constant != VNET_MODE_BOTH;
	return c;
}

static const struct vns_config *set_up_once(void)
{
	uint32_t me = (uint32_t)syscall(SYS_gettid);
	const struct vns_config *c = NULL;
	const struct start *s;
	int saved = errno;
	uint32_t now = OWNER_NOBODY;

	while (!atomic_compare_exchange_strong(&owner, &now, me)) {
		if (now == OWNER_DONE || now == me) {
			errno = saved;
			return now == me ? &early : atomic_load(&current);
		}
		if (syscall(SYS_tgkill, getpid(), now, 0) && errno == ESRCH)
			continue; /* nobody's: take it over from `now` */
		sched_yield();
		now = OWNER_NOBODY;
	}
	s = find_out();
	if (s)
		c = with_policy(s, false);
	if (c) {
		atomic_store(&started, s);
		atomic_store(&current, c);
	}
	/* Without memory: as if it had been too early. */
	atomic_store(&owner, c ? OWNER_DONE : OWNER_NOBODY);
	errno = saved;
	return c ? c : &early;
}

/* ---- again ---- */

static bool is_current(const struct vns_config *c, const char *path)
{
	struct stat st;

	/* What cannot be found is for with_policy() to say. */
	return !stat(path, &st) && st.st_dev == c->stamp.dev && st.st_ino == c->stamp.ino &&
	       st.st_size == c->stamp.size &&
	       st.st_ctim.tv_sec == c->stamp.changed.tv_sec &&
	       st.st_ctim.tv_nsec == c->stamp.changed.tv_nsec;
}

static const struct vns_config *look_again(const struct vns_config *c)
{
	const struct start *s = atomic_load(&started);
	int64_t due = atomic_load_explicit(&next_look, memory_order_relaxed);
	const struct vns_config *newer = NULL;
	struct timespec now = { 0 };
	int saved = errno;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
	/* The first call only sets the time. */
	if (now.tv_sec < due ||
	    !atomic_compare_exchange_strong(&next_look, &due, now.tv_sec + c->policy.reload) || !due)
		return c;
	if (!is_current(c, s->policy))
		newer = with_policy(s, true);
	if (newer)
		atomic_store(&current, newer);
	errno = saved;
	return newer ? newer : c;
}

const struct vns_config *vns_config(void)
{
	const struct vns_config *c = atomic_load_explicit(&current, memory_order_acquire);

	if (!c)
		c = set_up_once();
	return c->policy.reload ? look_again(c) : c;
}
