// SPDX-License-Identifier: MIT
/*
 * vnet-run - start a program on AF_INET_VNET: set the environment of
 * libvnetsock.so and become the program; or, with --bpf, become vnet-bpf, which
 * has the kernel do it.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef VNET_LIBDIR
#define VNET_LIBDIR "/usr/lib/vnet"
#endif
#define LIBRARY "libvnetsock.so"
#define BPF_PROGRAM "vnet-bpf"

/* As a shell: not found, found but not started, everything else. */
enum { EXIT_NOT_FOUND = 127, EXIT_NOT_STARTED = 126, EXIT_USAGE = 125 };

static const char usage[] =
	"usage: vnet-run [OPTIONS] PROGRAM [ARGUMENT...]\n"
	"\n"
	"Run PROGRAM with its TCP connections offloaded where they can be.\n"
	"\n"
	"  -m, --mode MODE      both: offload, else TCP (the default, unless a policy says more)\n"
	"                       vnet: offload only    tcp: the family's TCP path only\n"
	"                       off: ordinary sockets, as without vnet-run\n"
	"  -p, --policy FILE    use FILE instead of /etc/vnet/policy.conf\n"
	"  -l, --log            report which way each connection goes, on stderr\n"
	"  -L, --log-file FILE  the same, to FILE\n"
	"  -h, --help           print this\n"
	"\n"
	"  -b, --bpf            without the preload library: the kernel moves the TCP sockets of PROGRAM and\n"
	"                       of all that it starts, static programs too (needs root, and more than Linux 6.1)\n"
	"      --cgroup DIR     with --bpf, in place of PROGRAM: those of a cgroup, until vnet-run is ended\n"
	"      --netns NS       the same for a network namespace, a file or a name of ip-netns(8)\n"
	"\n"
	"Environment: VNET_MODE, VNET_POLICY, VNET_LOG, VNET_LOG_FILE, VNET_FAMILY; see libvnetsock(7).\n";

__attribute__((noreturn, format(printf, 2, 3)))
static void die(int status, const char *fmt, ...)
{
	va_list ap;

	fputs("vnet-run: ", stderr);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(status);
}

static void set(const char *name, const char *value)
{
	if (setenv(name, value, 1))
		die(EXIT_USAGE, "cannot set %s: %s", name, strerror(errno));
}

static void set_mode(const char *mode)
{
	if (strcmp(mode, "both") && strcmp(mode, "vnet") && strcmp(mode, "tcp") &&
	    strcmp(mode, "off"))
		die(EXIT_USAGE, "mode '%s' is not known, expected both, vnet, tcp or off", mode);
	set("VNET_MODE", mode);
}

static void set_policy(const char *file)
{
	char path[PATH_MAX];

	/* The program may change its directory before it starts others. */
	if (!realpath(file, path) || access(path, R_OK))
		die(EXIT_USAGE, "cannot read the policy file %s: %s", file,
		    strerror(errno));
	set("VNET_POLICY", path);
}

static void set_log_file(const char *file)
{
	char path[PATH_MAX];
	FILE *f = fopen(file, "ae");

	if (!f || !realpath(file, path))
		die(EXIT_USAGE, "cannot write the log file %s: %s", file,
		    strerror(errno));
	fclose(f);
	set("VNET_LOG", "connections");
	set("VNET_LOG_FILE", path);
}

/* What is beside this program goes behind the slash that ends path. */
static ssize_t own_directory(char path[PATH_MAX], size_t room)
{
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - room);

	while (n > 0 && path[n - 1] != '/')
		n--;
	return n;
}

/* Beside this program (a build tree), in its prefix's lib, or as configured. */
static void find_library(char path[PATH_MAX])
{
	static const char *const places[] = { LIBRARY, "../lib/" LIBRARY };
	ssize_t n = own_directory(path, sizeof("../lib/" LIBRARY));
	size_t i;

	for (i = 0; n > 0 && i < sizeof(places) / sizeof(places[0]); i++) {
		strcpy(path + n, places[i]);
		if (!access(path, R_OK))
			return;
	}
	strcpy(path, VNET_LIBDIR "/" LIBRARY);
	if (access(path, R_OK))
		die(EXIT_USAGE, "cannot read %s: %s; nor is it beside vnet-run or in ../lib",
		    path, strerror(errno));
}

static void preload(void)
{
	const char *others = getenv("LD_PRELOAD");
	char path[PATH_MAX];
	char *all;

	find_library(path);
	/* ld.so splits LD_PRELOAD there, and knows no way to quote. */
	if (strpbrk(path, " :\t\n"))
		die(EXIT_USAGE, "%s: ld.so cannot preload a path with blanks or colons", path);
	if (!others || !*others) {
		set("LD_PRELOAD", path);
		return;
	}
	if (asprintf(&all, "%s:%s", path, others) < 0)
		die(EXIT_USAGE, "out of memory");
	set("LD_PRELOAD", all);
	free(all);
}

/* What vnet-bpf moves. */
struct scope {
	bool bpf, log;
	const char *cgroup, *netns;
};

static void run_bpf(const struct scope *scope, char **program)
{
	char path[PATH_MAX], ns[PATH_MAX];
	size_t count = 0, at = 0;
	const char **argv;
	ssize_t n;

	if ((scope->cgroup != NULL) + (scope->netns != NULL) + (*program != NULL) != 1)
		die(EXIT_USAGE, "--bpf takes one of PROGRAM, --cgroup and --netns");
	n = own_directory(path, sizeof(BPF_PROGRAM));
	if (n <= 0)
		die(EXIT_USAGE, "cannot find vnet-run itself: %s", strerror(errno));
	strcpy(path + n, BPF_PROGRAM);
	while (program[count])
		count++;
	argv = calloc(count + 5, sizeof(*argv));
	if (!argv)
		die(EXIT_USAGE, "out of memory");
	argv[at++] = BPF_PROGRAM;
	if (scope->log)
		argv[at++] = "-l";
	if (scope->cgroup) {
		argv[at++] = "cgroup";
		argv[at++] = scope->cgroup;
	} else if (scope->netns) {
		snprintf(ns, sizeof(ns), "%s%s", strchr(scope->netns, '/') ? "" : "/run/netns/",
			 scope->netns);
		argv[at++] = "netns";
		argv[at++] = ns;
	} else {
		argv[at++] = "tree";
		memcpy(argv + at, program, count * sizeof(*argv));
	}
	execv(path, (char **)argv);
	die(EXIT_USAGE, "cannot start %s: %s", path, strerror(errno));
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "mode", required_argument, NULL, 'm' },
		{ "policy", required_argument, NULL, 'p' },
		{ "log", no_argument, NULL, 'l' },
		{ "log-file", required_argument, NULL, 'L' },
		{ "bpf", no_argument, NULL, 'b' },
		{ "cgroup", required_argument, NULL, 'C' },
		{ "netns", required_argument, NULL, 'N' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct scope scope = { 0 };
	bool preloads = false; /* an option of the library's was given */
	int opt;

	/* +: what follows PROGRAM belongs to it. */
	while ((opt = getopt_long(argc, argv, "+m:p:lL:bh", options, NULL)) != -1) {
		switch (opt) {
		case 'm':
			set_mode(optarg);
			preloads = true;
			break;
		case 'p':
			set_policy(optarg);
			preloads = true;
			break;
		case 'l':
			set("VNET_LOG", "connections");
			scope.log = true;
			break;
		case 'L':
			set_log_file(optarg);
			preloads = true;
			break;
		case 'b':
			scope.bpf = true;
			break;
		case 'C':
			scope.cgroup = optarg;
			break;
		case 'N':
			scope.netns = optarg;
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default: /* getopt has said what */
			fputs("vnet-run: try 'vnet-run --help'\n", stderr);
			return EXIT_USAGE;
		}
	}
	if (scope.bpf && preloads)
		die(EXIT_USAGE, "--mode, --policy and --log-file are the preload library's, not for --bpf");
	if (scope.bpf)
		run_bpf(&scope, argv + optind);
	if (scope.cgroup || scope.netns)
		die(EXIT_USAGE, "--cgroup and --netns are for --bpf");
	if (optind == argc)
		die(EXIT_USAGE, "no program given; try 'vnet-run --help'");
	preload();
	execvp(argv[optind], argv + optind);
	die(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_STARTED,
	    "cannot start %s: %s", argv[optind], strerror(errno));
}
