// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vnet-ibagent: start-up and shut-down.
 */
#include <errno.h>
#include <getopt.h>
#include <pwd.h>
#include <stdio.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <systemd/sd-daemon.h>

#include "control.h"
#include "sandbox.h"

#define SLICE_NS 100000

/*
 * Main's own, and what a tenant's process needs: it inherits this filter and
 * adds its narrower one.
 */
static const char *const syscalls[] = {
	"socket", "connect", "bind", "listen", "socketpair",
	"clone", "clone3", "wait4", "kill", "getppid", "set_robust_list", "rseq",
	"prctl", "seccomp", "close_range", "dup2", "dup3", "set_tid_address",
	/* a child's abort(): its own filter has this for itself alone, and "kill"
	 * above would leave no less to main */
	"tgkill",
	/* a tenant's process alone: its watchdog */
	"setitimer",
	NULL,
};

/*
 * The same with fabric verbs: what a tenant's process opens when it starts, before
 * its own filter, which has only the ioctl() of these.
 */
static const char *const verbs_syscalls[] = {
	"openat", "open", "access", "faccessat", "faccessat2", "getdents64",
	"readlink", "readlinkat", "statx", "stat", "lstat", "uname", "ioctl",
	"getrlimit", "prlimit64", "sched_getaffinity", "pread64", "sysinfo",
	NULL,
};

static void usage(FILE *out)
{
	fputs("usage: vnet-ibagent --config FILE [--check] [--verbose] [--no-sandbox]\n",
	      out);
}

struct options {
	const char *config;
	bool check, verbose, no_sandbox;
};

/* 0, or the exit status + 1. */
static int parse_options(int argc, char **argv, struct options *opt)
{
	static const struct option table[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "check", no_argument, NULL, 'n' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "no-sandbox", no_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int o;

	while ((o = getopt_long(argc, argv, "c:vh", table, NULL)) != -1) {
		switch (o) {
		case 'c':
			opt->config = optarg;
			break;
		case 'n':
			opt->check = true;
			break;
		case 'v':
			opt->verbose = true;
			break;
		case 's':
			opt->no_sandbox = true;
			break;
		case 'h':
			usage(stdout);
			return 1;
		default:
			usage(stderr);
			return 3;
		}
	}
	if (!opt->config || optind != argc) {
		usage(stderr);
		return 3;
	}
	return 0;
}

/* The shims run as this user too, and attach again after we were restarted. */
static int give_socket(const struct iba_config *cfg, const char *user)
{
	struct passwd *pw;
	int err;

	if (geteuid() == 0) {
		pw = getpwnam(user);
		if (!pw) {
			log_err("there is no user \"%s\"", user);
			return -ENOENT;
		}
		if (chown(cfg->socket_path, pw->pw_uid, pw->pw_gid) < 0)
			goto failed;
	}
	if (chmod(cfg->socket_path, 0660) == 0)
		return 0;
failed:
	err = -errno;
	log_err("socket %s: %s", cfg->socket_path, strerror(-err));
	return err;
}

static int restrict_main(const struct iba_config *cfg)
{
	const size_t a = sizeof(syscalls) / sizeof(syscalls[0]) - 1;
	const size_t b = sizeof(verbs_syscalls) / sizeof(verbs_syscalls[0]);
	const char *all[sizeof(syscalls) / sizeof(syscalls[0]) +
			sizeof(verbs_syscalls) / sizeof(verbs_syscalls[0])];

	if (!iba_config_allows(cfg, VTOE_FABRIC_VERBS))
		return sandbox_restrict(syscalls);
	memcpy(all, syscalls, a * sizeof(*all));
	memcpy(&all[a], verbs_syscalls, b * sizeof(*all));
	return sandbox_restrict(all);
}

static int enter_sandbox(const struct iba_config *cfg)
{
	const char *user = cfg->user[0] ? cfg->user : "nobody";
	int err = give_socket(cfg, user);

	iba_verbs_prepare(cfg);

	if (!err && cfg->sandbox)
		err = sandbox_drop_privileges(user);
	if (!err && cfg->sandbox)
		err = restrict_main(cfg);
	return err;
}

/*
 * What waits for an agent are virtual CPUs and peers, and what it does is short:
 * with a small slice it runs soon after a wake-up, also where a guest polls.
 * Its children inherit it. Kernels before 6.12 do without.
 */
static void take_small_slices(void)
{
	/* struct sched_attr; the headers that have it do not go with libc's */
	struct {
		uint32_t size, policy;
		uint64_t flags;
		int32_t nice;
		uint32_t priority;
		uint64_t runtime, deadline, period;
	} attr;

	/* What an operator chose otherwise stays: nice, or another policy. */
	if (syscall(SYS_sched_getattr, 0, &attr, sizeof(attr), 0) < 0 ||
	    attr.policy != SCHED_OTHER)
		return;
	attr.flags = 0;
	attr.runtime = SLICE_NS;
	if (syscall(SYS_sched_setattr, 0, &attr, 0) < 0)
		log_debug("no small slices: %s", strerror(errno));
}

/* A VM has up to 19 in its tenant's process, a lane one or, over verbs, more. */
static void take_all_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) == 0)
			return;
	}
	log_warn("limit of open files: %s", strerror(errno));
}

static int serve(struct iba_config *cfg, uint8_t key[IBA_KEY_LEN])
{
	struct iba_control control;
	int err;

	take_small_slices();
	take_all_files();
	err = iba_control_start(&control, cfg, key);
	OPENSSL_cleanse(key, IBA_KEY_LEN);
	if (!err)
		err = enter_sandbox(cfg);
	if (err) {
		log_err("cannot start: %s", strerror(-err));
		return 1;
	}
	log_info("host %s: serving shims on %s", cfg->host, cfg->socket_path);
	sd_notify(0, "READY=1");
	err = loop_run(control.loop);
	sd_notify(0, "STOPPING=1");
	iba_control_stop(&control);
	return err ? 1 : 0;
}

int main(int argc, char **argv)
{
	static struct iba_config cfg;
	uint8_t key[IBA_KEY_LEN];
	struct options opt = { 0 };
	int status;

	status = parse_options(argc, argv, &opt);
	if (status)
		return status - 1;
	log_init("vnet-ibagent", opt.verbose ? LOG_DEBUG : LOG_INFO);
	status = iba_config_load(opt.config, &cfg) ||
		 iba_key_load(cfg.key_file, key);
	cfg.sandbox = !opt.no_sandbox;
	if (!status && !opt.check)
		status = serve(&cfg, key);
	iba_config_free(&cfg);
	return status;
}
