// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is left after dropping privileges and filtering system calls. Each case
 * is a child, since there is no way back.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "sandbox.h"
#include "tap.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* The child's exit status, or -signal. */
static int in_child(int (*fn)(void))
{
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		bail_out("fork");
	if (pid == 0)
		_exit(fn());
	if (waitpid(pid, &status, 0) != pid)
		bail_out("waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/* A word of /proc/self/status as a hexadecimal or decimal number. */
static unsigned long long status_field(const char *name, int base)
{
	FILE *file = fopen("/proc/self/status", "re");
	unsigned long long value = ~0ull;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (strncmp(line, name, strlen(name)) == 0)
			value = strtoull(line + strlen(name), NULL, base);
	if (file)
		fclose(file);
	return value;
}

static int nothing_left(bool root)
{
	if (status_field("CapEff:", 16) || status_field("CapPrm:", 16) ||
	    status_field("CapInh:", 16) || status_field("CapAmb:", 16))
		return 2;
	if (root && status_field("CapBnd:", 16))
		return 3;
	if (status_field("NoNewPrivs:", 10) != 1)
		return 4;
	return 0;
}

static int drop_to_nobody(void)
{
	if (sandbox_drop_privileges(NULL))
		return 1;
	if (getuid() == 0 || geteuid() == 0 || getgid() == 0 ||
	    getgroups(0, NULL) > 1)
		return 5;
	if (setuid(0) == 0 || open("/etc/shadow", O_RDONLY) >= 0)
		return 6;
	return nothing_left(true);
}

static int drop_as_root_user(void)
{
	if (sandbox_drop_privileges("root"))
		return 1;
	if (geteuid() != 0)
		return 5;
	return nothing_left(true);
}

static int drop_unprivileged(void)
{
	/* whoever runs the test is somebody else from here on */
	if (geteuid() == 0 && setresuid(65534, 65534, 65534))
		return 9;
	if (sandbox_drop_privileges("no such user, but it is ignored"))
		return 1;
	return nothing_left(false);
}

static int drop_to_nonesuch(void)
{
	return sandbox_drop_privileges("nonesuch-user") == -ENOENT ? 0 : 1;
}

/* ---- system calls ---- */

static const char *const extra[] = { "socket", "getppid", NULL };

static int allowed_calls(void)
{
	char *p;
	int ep;

	if (sandbox_restrict(extra))
		return 1;
	if (getppid() <= 0) /* asked for */
		return 2;
	ep = epoll_create1(0);
	if (ep < 0 || socket(AF_UNIX, SOCK_STREAM, 0) < 0)
		return 3;
	p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED || mprotect(p, 4096, PROT_READ))
		return 4;
	munmap(p, 1 << 20);
	p = malloc(10 << 20);
	if (!p)
		return 5;
	free(p);
	log_err("a line");
	usleep(10);
	return 0;
}

static int call_setscheduler(void)
{
	if (sandbox_restrict(extra))
		return 1;
	sched_setscheduler(0, SCHED_OTHER, NULL);
	return 0;
}

static int call_exec(void)
{
	if (sandbox_restrict(extra))
		return 1;
	execl("/bin/true", "true", NULL);
	return 0;
}

static int call_open(void)
{
	static const char *const none[] = { NULL };

	if (sandbox_restrict(none))
		return 1;
	open("/etc/passwd", O_RDONLY);
	return 0;
}

static int map_executable(void)
{
	if (sandbox_restrict(extra))
		return 1;
	mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1,
	     0);
	return 0;
}

static int make_executable(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (sandbox_restrict(extra))
		return 1;
	mprotect(p, 4096, PROT_READ | PROT_EXEC);
	return 0;
}

static int call_abort(void)
{
	if (sandbox_restrict(extra))
		return 1;
	abort();
}

/* In a child that is forked inside, as the agent's are. */
static int abort_of_child(void)
{
	static const char *const forks[] = { "clone", "clone3", "wait4",
					     "set_robust_list", "rseq",
					     "prctl", "seccomp", "tgkill",
					     NULL };
	static const char *const none[] = { NULL };
	int status;
	pid_t pid;

	if (sandbox_drop_privileges("root") || sandbox_restrict(forks))
		return 1;
	pid = fork();
	if (pid == 0) {
		if (sandbox_restrict(none))
			_exit(2);
		abort();
	}
	if (waitpid(pid, &status, 0) != pid)
		return 3;
	return WIFSIGNALED(status) ? WTERMSIG(status) : 4;
}

static int signal_another(void)
{
	pid_t other = getppid();

	if (sandbox_restrict(extra))
		return 1;
	syscall(SYS_tgkill, other, other, 0);
	return 0;
}

static const char *const inet[] = { SANDBOX_SOCKET_INET, NULL };

static int socket_inet(void)
{
	if (sandbox_restrict(inet))
		return 1;
	return socket(AF_INET, SOCK_STREAM, 0) < 0 ||
	       (socket(AF_INET6, SOCK_STREAM, 0) < 0 && errno != EAFNOSUPPORT);
}

static int socket_unix(void)
{
	if (sandbox_restrict(inet))
		return 1;
	socket(AF_UNIX, SOCK_STREAM, 0);
	return 0;
}

static const char *const verbs[] = { SANDBOX_IOCTL_VERBS, NULL };

/* On a descriptor that knows neither of them. */
static int ioctl_verbs(void)
{
	if (sandbox_restrict(verbs))
		return 1;
	return ioctl(STDERR_FILENO, SANDBOX_VERBS_IOCTL_NR, NULL) >= 0;
}

static int ioctl_other(void)
{
	if (sandbox_restrict(verbs))
		return 1;
	ioctl(STDERR_FILENO, SANDBOX_VERBS_IOCTL_NR + 1, NULL);
	return 0;
}

static int unknown_call(void)
{
	static const char *const wrong[] = { "read", "nonesuch", NULL };

	/* and nothing is in force then */
	return sandbox_restrict(wrong) == -EINVAL && getppid() > 0 ? 0 : 1;
}

int main(void)
{
	log_init("sandbox_test", LOG_ERR);
	if (geteuid() == 0) {
		is_int(in_child(drop_to_nobody), 0, "root becomes nobody");
		is_int(in_child(drop_as_root_user), 0,
		       "root may stay root, without capabilities");
		is_int(in_child(drop_to_nonesuch), 0, "no such user");
	} else {
		skip("root becomes nobody", "not root");
	}
	is_int(in_child(drop_unprivileged), 0, "an ordinary user");
	is_int(in_child(allowed_calls), 0, "what a loop needs is allowed");
	is_int(in_child(call_setscheduler), -SIGSYS, "an unlisted call kills");
	is_int(in_child(call_exec), -SIGSYS, "so does execve");
	if (!SANITIZED) /* in the plain build (Makefile.inc) */
		is_int(in_child(call_open), -SIGSYS, "and open");
	is_int(in_child(map_executable), -SIGSYS, "no executable mapping");
	is_int(in_child(make_executable), -SIGSYS, "nor one made so later");
	is_int(in_child(call_abort), -SIGABRT, "abort() works");
	is_int(in_child(abort_of_child), SIGABRT, "in a child as well");
	is_int(in_child(signal_another), -SIGSYS,
	       "the call it needs reaches nobody else");
	is_int(in_child(socket_inet), 0, "internet sockets alone are allowed");
	is_int(in_child(socket_unix), -SIGSYS, "and no others");
	is_int(in_child(ioctl_verbs), 0, "the ioctl of verbs is allowed");
	is_int(in_child(ioctl_other), -SIGSYS, "and no other");
	is_int(in_child(unknown_call), 0, "a call that does not exist");
	return tap_done();
}
