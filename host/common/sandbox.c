// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is left to a daemon that a guest has taken over: the descriptors that it
 * holds, the calls that its path needs, an unprivileged user, and nothing to be
 * gained by executing another program.
 *
 * Order at start-up: open and raise whatever needs privileges (devices, limits;
 * RLIMIT_MEMLOCK, since CAP_IPC_LOCK goes), load what libraries load late, then
 * sandbox_drop_privileges(), then sandbox_restrict(). A call that is not allowed
 * kills the process and leaves a line in the audit log.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <pwd.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "log.h"
#include "sandbox.h"

/* Nobody includes <sys/capability.h> for one call. */
static int clear_capabilities(void)
{
	struct __user_cap_header_struct hdr = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	memset(data, 0, sizeof(data));
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	return syscall(SYS_capset, &hdr, data) < 0 ? -errno : 0;
}

/* In a user namespace without setgroups() there are none to drop. */
static bool setgroups_denied(void)
{
	char word[8] = "";
	int fd = open("/proc/self/setgroups", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return false;
	if (read(fd, word, sizeof(word) - 1) < 0)
		word[0] = '\0';
	close(fd);
	return strncmp(word, "deny", 4) == 0;
}

static int change_user(const char *user)
{
	struct passwd *pw;
	int cap;

	errno = 0;
	pw = getpwnam(user);
	if (!pw) {
		log_err("there is no user \"%s\"", user);
		return errno ? -errno : -ENOENT;
	}
	/* Needs CAP_SETPCAP, so before anything else; ends with EINVAL. */
	for (cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
		;
	if (setgroups(1, &pw->pw_gid) < 0 &&
	    !(errno == EPERM && setgroups_denied()))
		goto failed;
	if (setresgid(pw->pw_gid, pw->pw_gid, pw->pw_gid) < 0 ||
	    setresuid(pw->pw_uid, pw->pw_uid, pw->pw_uid) < 0)
		goto failed;
	return 0;

failed:
	cap = -errno;
	log_err("cannot become user \"%s\": %s", user, strerror(-cap));
	return cap;
}

int sandbox_drop_privileges(const char *user)
{
	int ret = 0;

	if (geteuid() == 0)
		ret = change_user(user ? user : "nobody");
	if (ret < 0)
		return ret;
	ret = clear_capabilities();
	if (ret < 0) {
		log_err("cannot drop capabilities: %s", strerror(-ret));
		return ret;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		ret = -errno;
		log_err("cannot set no_new_privs: %s", strerror(-ret));
		return ret;
	}
	return 0;
}

/* What any event loop with sockets, descriptors, memory and a log needs. */
static const char *const base_syscalls[] = {
	/* the loop */
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait",
	"epoll_pwait2", "poll", "ppoll", "eventfd2", "timerfd_settime",
	"signalfd4", "rt_sigreturn", "restart_syscall",
	/* descriptors that others made */
	"read", "readv", "write", "writev", "close", "fcntl", "dup", "lseek",
	"fstat", "newfstatat", "fstatfs",
	/* sockets that are open already */
	"sendmsg", "recvmsg", "sendto", "recvfrom", "accept4", "getsockopt",
	"setsockopt", "getsockname", "getpeername", "shutdown",
	/* memory; mmap and mprotect below */
	"brk", "munmap", "mremap", "madvise",
	/* time, random bytes, the C library's locks */
	"clock_gettime", "clock_nanosleep", "nanosleep", "gettimeofday",
	"getrandom", "futex", "sched_yield", "getpid", "gettid",
	/* sd_notify() sends its credentials */
	"getuid", "geteuid", "getgid", "getegid",
	/* the end: exit() and abort() */
	"exit", "exit_group", "rt_sigprocmask", "rt_sigaction",
#if defined(__SANITIZE_ADDRESS__)
	"sigaltstack", "readlink", "readlinkat", "openat", "prctl",
	"sched_getaffinity", "getrlimit", "prlimit64",
#endif
	NULL,
};

/* Sockets of the internet alone: none of this host's services. */
static int allow_inet(scmp_filter_ctx filter)
{
	int ret;

	ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
			       SCMP_A0(SCMP_CMP_EQ, AF_INET));
	if (ret < 0)
		return ret;
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(socket), 1,
				SCMP_A0(SCMP_CMP_EQ, AF_INET6));
}

static int allow_verbs(scmp_filter_ctx filter)
{
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				SCMP_A1(SCMP_CMP_MASKED_EQ, UINT32_MAX,
					SANDBOX_VERBS_IOCTL_NR));
}

static int allow(scmp_filter_ctx filter, const char *const *names)
{
	int nr, ret;

	for (; *names; names++) {
		if (!strcmp(*names, SANDBOX_SOCKET_INET)) {
			ret = allow_inet(filter);
			if (ret < 0)
				return ret;
			continue;
		}
		if (!strcmp(*names, SANDBOX_IOCTL_VERBS)) {
			ret = allow_verbs(filter);
			if (ret < 0)
				return ret;
			continue;
		}
		nr = seccomp_syscall_resolve_name(*names);
		if (nr == __NR_SCMP_ERROR) {
			log_err("there is no system call \"%s\"", *names);
			return -EINVAL;
		}
		ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, nr, 0);
		/* -EACCES, -EEXIST: allowed without conditions already */
		if (ret < 0 && ret != -EACCES && ret != -EEXIST) {
			log_err("cannot allow \"%s\": %s", *names,
				strerror(-ret));
			return ret;
		}
	}
	return 0;
}

/* Memory, but nothing to execute. */
static int allow_memory(scmp_filter_ctx filter)
{
	int ret;

	ret = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
			       SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	if (ret < 0)
		return ret;
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

/* abort() signals this process; nobody else is to be signalled by it. */
static int allow_abort(scmp_filter_ctx filter)
{
	return seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()));
}

int sandbox_restrict(const char *const *syscalls)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int ret;

	if (!filter) {
		log_err("seccomp: out of memory");
		return -ENOMEM;
	}
	/* All threads that there are. */
	ret = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);
	if (ret == 0)
		ret = allow(filter, base_syscalls);
	if (ret == 0)
		ret = allow_memory(filter);
	if (ret == 0)
		ret = allow_abort(filter);
	if (ret == 0)
		ret = allow(filter, syscalls);
	if (ret == 0)
		ret = seccomp_load(filter);
	seccomp_release(filter);
	if (ret < 0)
		log_err("seccomp: %s", strerror(-ret));
	return ret;
}
