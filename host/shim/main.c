// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vnet-shim: the thin device server of one VM. Command line; start-up and
 * shut-down stand in run.c, the way of a frame in shim.h.
 */
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

#include "log.h"
#include "shim.h"

#define EXIT_USAGE 2

struct options {
	const char *config;
	bool check, verbose, no_sandbox;
};

static void usage(FILE *out)
{
	fprintf(out, "usage: vnet-shim --config FILE [--check] [--verbose] [--no-sandbox]\n");
}

static void parse_options(int argc, char **argv, struct options *o)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "check", no_argument, NULL, 'n' },
		{ "verbose", no_argument, NULL, 'v' },
		{ "no-sandbox", no_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			o->config = optarg;
			break;
		case 'n':
			o->check = true;
			break;
		case 'v':
			o->verbose = true;
			break;
		case 's':
			o->no_sandbox = true;
			break;
		case 'h':
			usage(stdout);
			exit(EXIT_SUCCESS);
		default:
			usage(stderr);
			exit(EXIT_USAGE);
		}
	}
	if (!o->config || optind != argc) {
		usage(stderr);
		exit(EXIT_USAGE);
	}
}

int main(int argc, char **argv)
{
	struct options o = { 0 };
	struct shim_config *conf;

	parse_options(argc, argv, &o);
	log_init("vnet-shim", o.verbose ? LOG_DEBUG : LOG_INFO);
	conf = shim_config_load(o.config);
	if (!conf)
		return EXIT_FAILURE;
	if (o.check) {
		shim_config_free(conf);
		return EXIT_SUCCESS;
	}
	return shim_run(o.config, conf, !o.no_sandbox) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
