// SPDX-License-Identifier: MIT
/*
 * vnet-run - start a program on AF_INET_VNET: set the environment of
 * libvnetsock.so and become the program.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef VNET_LIBDIR
#define VNET_LIBDIR "/usr/lib/vnet"
#endif
#define LIBRARY "libvnetsock.so"

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

/* Beside this program (a build tree), in its prefix's lib, or as configured. */
static void find_library(char path[PATH_MAX])
{
	static const char *const places[] = { LIBRARY, "../lib/" LIBRARY };
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - sizeof("../lib/" LIBRARY));
	size_t i;

	while (n > 0 && path[n - 1] != '/')
		n--;
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

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "mode", required_argument, NULL, 'm' },
		{ "policy", required_argument, NULL, 'p' },
		{ "log", no_argument, NULL, 'l' },
		{ "log-file", required_argument, NULL, 'L' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int opt;

	/* +: what follows PROGRAM belongs to it. */
	while ((opt = getopt_long(argc, argv, "+m:p:lL:h", options, NULL)) != -1) {
		switch (opt) {
		case 'm':
			set_mode(optarg);
			break;
		case 'p':
			set_policy(optarg);
			break;
		case 'l':
			set("VNET_LOG", "connections");
			break;
		case 'L':
			set_log_file(optarg);
			break;
		case 'h':
			fputs(usage, stdout);
			return 0;
		default: /* getopt has said what */
			fputs("vnet-run: try 'vnet-run --help'\n", stderr);
			return EXIT_USAGE;
		}
	}
	if (optind == argc)
		die(EXIT_USAGE, "no program given; try 'vnet-run --help'");
	preload();
	execvp(argv[optind], argv + optind);
	die(errno == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_STARTED,
	    "cannot start %s: %s", argv[optind], strerror(errno));
}
