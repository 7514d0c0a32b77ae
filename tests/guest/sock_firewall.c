// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One connection over plain TCP and one of ours, at the same time, through what firewalls the guests have: both must end
 * alike. sock_firewall client ADDR
 *
 * ERRNO     how they end: the name of an errno, else they connect and carry data
 * REASON    ours goes over TCP for that; "none": it is offloaded
 * AS_USER   a number: they are this user's
 * ALONE     no plain one; and nothing of ours may be left in the table of tracked connections
 */
#include "sock_common.h"

struct attempt {
	int fd, err;
	int64_t ms;
};

static long long number_in(const char *path, const char *key)
{
	char line[128], name[64];
	long long value;
	FILE *f = fopen(path, "r");

	check(f);
	while (fgets(line, sizeof(line), f)) {
		if (!key && sscanf(line, "%lld", &value) == 1)
			break;
		if (key && sscanf(line, "%63s %lld", name, &value) == 2 && !strcmp(name, key))
			break;
		value = -1;
	}
	fclose(f);
	check(value >= 0);
	return value;
}

static void *try(void *arg)
{
	struct attempt *a = arg;
	int64_t start = now_ms();

	a->err = connect(a->fd, sa(&peer), peer.len) ? errno : 0;
	a->ms = now_ms() - start;
	return NULL;
}

static void talk(int fd)
{
	char buf[8] = { ECHO };

	write_all(fd, buf, 1);
	write_all(fd, "through", 7);
	check(read_full(fd, buf, 7) == 7 && !memcmp(buf, "through", 7));
}

static void end(struct attempt *a, const char *expected)
{
	const char *name = a->err ? strerrorname_np(a->err) : "";

	if (strcmp(name, expected))
		printf("ended with \"%s\", not \"%s\"\n", name, expected);
	check(!strcmp(name, expected));
	if (!a->err)
		talk(a->fd);
}

static void client(void)
{
	const char *tracked = "/proc/sys/net/netfilter/nf_conntrack_count";
	const char *stat = "/proc/net/vnet_stat", *counter = "fallback_firewall";
	const char *reason = getenv("REASON"), *expected = getenv("ERRNO") ?: "";
	const char *user = getenv("AS_USER");
	bool alone = getenv("ALONE"), stopped;
	struct attempt ours, plain = { 0 };
	struct vnet_so_path path;
	long long before, entries = alone ? number_in(tracked, NULL) : 0;
	pthread_t thread;

	check(reason);
	if (user)
		check(setresuid((uid_t)atoi(user), (uid_t)atoi(user), (uid_t)atoi(user)) == 0);
	before = number_in(stat, counter);
	ours.fd = vnet_socket(peer.v6);
	if (!alone) {
		plain.fd = socket(peer.ss.ss_family, SOCK_STREAM, 0);
		check(plain.fd >= 0);
		check(pthread_create(&thread, NULL, try, &plain) == 0);
	}
	try(&ours);
	if (!alone) {
		pthread_join(thread, NULL);
		printf("plain TCP: %d after %lld ms, ours: %d after %lld ms\n", plain.err,
		       (long long)plain.ms, ours.err, (long long)ours.ms);
		end(&plain, expected);
		/* What TCP only finds out by trying again. */
		check(plain.ms < 1000 || ours.ms >= 1000);
	}
	path = path_of(ours.fd);
	if (strcmp(path.reason_name, reason))
		printf("reason %s, not %s\n", path.reason_name, reason);
	check(!strcmp(path.reason_name, reason));
	stopped = !strcmp(reason, "firewall");
	/* Another of these may run at the same time, for the same end. */
	check((number_in(stat, counter) > before) == stopped);
	end(&ours, expected);
	if (!strcmp(reason, "none"))
		check(path.path == VNET_PATH_VTOE);
	if (alone)
		check(number_in(tracked, NULL) <= entries);
}
