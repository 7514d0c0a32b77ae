// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The policy file of libvnetsock: which decision follows from which lines, and
 * the exact words about a line that is not understood. TAP.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vns.h"

#define RULES 16

static int tests, failures;

static void check(int good, const char *what, const char *detail)
{
	printf("%sok %d - %s\n", good ? "" : "not ", ++tests, what);
	if (!good) {
		printf("# %s\n", detail);
		failures++;
	}
}

struct messages {
	char text[4096];
};

static void remember(void *arg, unsigned int line, const char *message)
{
	struct messages *m = arg;
	size_t at = strlen(m->text);

	snprintf(m->text + at, sizeof(m->text) - at, "%u: %s\n", line, message);
}

static void parse(struct vns_policy *p, struct vns_rule *rules, const char *text,
		  size_t len, const char *exe, struct messages *m)
{
	const char *base = strrchr(exe, '/');
	const struct vns_program program = { exe, base ? base + 1 : exe };
	char *copy = malloc(len ? len : 1); /* sanitizers see a read beyond it */

	memset(m, 0, sizeof(*m));
	memset(p, 0, sizeof(*p));
	p->rules = rules;
	p->max = RULES;
	p->log_level = -1;
	memcpy(copy, text, len);
	vns_policy_parse(p, copy, len, &program, remember, m);
	free(copy);
}

static socklen_t address(const char *text, int port, struct sockaddr_storage *ss)
{
	struct sockaddr_in *in = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET, text, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons((uint16_t)port);
		return sizeof(*in);
	}
	if (inet_pton(AF_INET6, text, &in6->sin6_addr) != 1)
		abort();
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons((uint16_t)port);
	return sizeof(*in6);
}

static const char *const mode_name[] = {
	[VNET_MODE_BOTH] = "both", [VNET_MODE_TCP] = "tcp", [VNET_MODE_VNET] = "vnet",
};

/* ---- line -> decision ---- */

static const struct decision {
	const char *text;
	const char *exe;
	unsigned int dir;
	const char *addr;
	int port;
	int mode;
} decisions[] = {
#define C VNS_DIR_CONNECT
#define L VNS_DIR_LISTEN
	{ "", "/bin/a", C, "10.0.0.1", 80, VNET_MODE_BOTH },
	{ "# tcp any * any any", "/bin/a", C, "10.0.0.1", 80, VNET_MODE_BOTH },
	{ "tcp any * any any", "/bin/a", C, "10.0.0.1", 80, VNET_MODE_TCP },
	{ "tcp any any any any", "/bin/a", C, "10.0.0.1", 80, VNET_MODE_TCP },
	{ "tcp any * any any", "", C, "10.0.0.1", 80, VNET_MODE_TCP },
	{ "  vnet\tany * any any # why\r", "/bin/a", L, "::1", 0, VNET_MODE_VNET },
	{ "tcp any * any any#why", "/bin/a", C, "10.0.0.1", 80, VNET_MODE_TCP },
	/* first match wins */
	{ "both any * any 80\ntcp any * any any", "/bin/a", C, "10.0.0.1", 80, VNET_MODE_BOTH },
	{ "both any * any 80\ntcp any * any any", "/bin/a", C, "10.0.0.1", 81, VNET_MODE_TCP },
	/* directions */
	{ "tcp connect * any any", "/bin/a", C, "10.0.0.1", 80, VNET_MODE_TCP },
	{ "tcp connect * any any", "/bin/a", L, "10.0.0.1", 80, VNET_MODE_BOTH },
	{ "tcp listen * any any", "/bin/a", L, "10.0.0.1", 80, VNET_MODE_TCP },
	{ "tcp listen * any any", "/bin/a", C, "10.0.0.1", 80, VNET_MODE_BOTH },
	/* programs: the file's name, or its whole path if the glob has a / */
	{ "tcp any ssh* any any", "/usr/bin/ssh", C, "10.0.0.1", 22, VNET_MODE_TCP },
	{ "tcp any ssh* any any", "/usr/sbin/sshd", C, "10.0.0.1", 22, VNET_MODE_TCP },
	{ "tcp any ssh any any", "/usr/sbin/sshd", C, "10.0.0.1", 22, VNET_MODE_BOTH },
	{ "tcp any /usr/sbin/* any any", "/usr/sbin/sshd", C, "10.0.0.1", 22, VNET_MODE_TCP },
	{ "tcp any /usr/bin/* any any", "/usr/sbin/sshd", C, "10.0.0.1", 22, VNET_MODE_BOTH },
	{ "tcp any python3.?? any any", "/usr/bin/python3.11", C, "10.0.0.1", 22, VNET_MODE_TCP },
	{ "tcp any [a-c]at any any", "/bin/bat", C, "10.0.0.1", 22, VNET_MODE_TCP },
	{ "tcp any [!a-c]at any any", "/bin/bat", C, "10.0.0.1", 22, VNET_MODE_BOTH },
	{ "tcp any [at any any", "/bin/[at", C, "10.0.0.1", 22, VNET_MODE_TCP },
	{ "tcp any *a*b any any", "/bin/aabxab", C, "10.0.0.1", 22, VNET_MODE_TCP },
	/* addresses */
	{ "tcp any * 10.0.0.1 any", "/bin/a", C, "10.0.0.1", 80, VNET_MODE_TCP },
	{ "tcp any * 10.0.0.1 any", "/bin/a", C, "10.0.0.2", 80, VNET_MODE_BOTH },
	{ "tcp any * 10.0.0.0/8 any", "/bin/a", C, "10.255.0.2", 80, VNET_MODE_TCP },
	{ "tcp any * 10.0.0.0/8 any", "/bin/a", C, "11.0.0.2", 80, VNET_MODE_BOTH },
	{ "tcp any * 10.0.0.77/25 any", "/bin/a", C, "10.0.0.127", 80, VNET_MODE_TCP },
	{ "tcp any * 10.0.0.77/25 any", "/bin/a", C, "10.0.0.128", 80, VNET_MODE_BOTH },
	{ "tcp any * 0.0.0.0/0 any", "/bin/a", C, "192.0.2.1", 80, VNET_MODE_TCP },
	{ "tcp any * 0.0.0.0/0 any", "/bin/a", C, "2001:db8::1", 80, VNET_MODE_BOTH },
	{ "tcp any * 0.0.0.0/0 any", "/bin/a", C, "::ffff:192.0.2.1", 80, VNET_MODE_TCP },
	{ "tcp any * ::ffff:192.0.2.0/120 any", "/bin/a", C, "192.0.2.9", 80, VNET_MODE_TCP },
	{ "tcp any * ::/0 any", "/bin/a", C, "192.0.2.1", 80, VNET_MODE_BOTH },
	{ "tcp any * ::/0 any", "/bin/a", L, "::", 80, VNET_MODE_TCP },
	{ "tcp any * fd00:77::/64 any", "/bin/a", C, "fd00:77::2", 80, VNET_MODE_TCP },
	{ "tcp any * fd00:77::/64 any", "/bin/a", C, "fd00:77:0:1::2", 80, VNET_MODE_BOTH },
	{ "tcp any * fd00:77::/127 any", "/bin/a", C, "fd00:77::2", 80, VNET_MODE_BOTH },
	/* ports */
	{ "tcp any * any 80", "/bin/a", C, "10.0.0.1", 80, VNET_MODE_TCP },
	{ "tcp any * any 80", "/bin/a", C, "10.0.0.1", 79, VNET_MODE_BOTH },
	{ "tcp any * any 80-90", "/bin/a", C, "10.0.0.1", 90, VNET_MODE_TCP },
	{ "tcp any * any 80-90", "/bin/a", C, "10.0.0.1", 91, VNET_MODE_BOTH },
	{ "tcp any * any 0-65535", "/bin/a", L, "10.0.0.1", 0, VNET_MODE_TCP },
	/* a bad line is left out, the others count */
	{ "tcp any * any 80\ntcp any * any eighty\nvnet any * any 81", "/bin/a", C, "10.0.0.1", 81, VNET_MODE_VNET },
#undef C
#undef L
};

static void test_decisions(void)
{
	struct vns_rule rules[RULES];
	struct sockaddr_storage ss;
	struct vns_policy p;
	struct messages m;
	char what[256], detail[64];
	socklen_t len;
	size_t i;
	int mode;

	for (i = 0; i < sizeof(decisions) / sizeof(decisions[0]); i++) {
		const struct decision *d = &decisions[i];
		char *nl;

		parse(&p, rules, d->text, strlen(d->text), d->exe, &m);
		len = address(d->addr, d->port, &ss);
		mode = vns_policy_decide(&p, d->dir, (struct sockaddr *)&ss, len);
		snprintf(what, sizeof(what), "'%s' %s %s %s:%d -> %s", d->text,
			 d->exe, d->dir == VNS_DIR_LISTEN ? "at" : "to", d->addr,
			 d->port, mode_name[d->mode]);
		/* TAP reads # as the start of a directive. */
		while ((nl = strpbrk(what, "\n\r\t#")))
			*nl = *nl == '#' ? '%' : *nl == '\n' ? ';' : ' ';
		snprintf(detail, sizeof(detail), "decided %s", mode_name[mode]);
		check(mode == d->mode, what, detail);
	}
}

/* ---- bad line -> message ---- */

static const struct bad {
	const char *text;
	const char *message;
} bads[] = {
	{ "vnt any * any any",
	  "1: \"vnt\" is not known, expected vnet, tcp, both, log, log-file or reload\n" },
	{ "\n\ntcp any *\n",
	  "3: expected \"vnet|tcp|both connect|listen|any PROGRAM ADDR[/PREFIX]|any PORT[-PORT]|any\", found 3 words\n" },
	{ "tcp",
	  "1: expected \"vnet|tcp|both connect|listen|any PROGRAM ADDR[/PREFIX]|any PORT[-PORT]|any\", found 1 word\n" },
	{ "tcp any * any 80 81 82",
	  "1: expected \"vnet|tcp|both connect|listen|any PROGRAM ADDR[/PREFIX]|any PORT[-PORT]|any\", found 7 words\n" },
	{ "tcp server * any any",
	  "1: \"server\" is not a direction, expected connect, listen or any\n" },
	{ "tcp any * example.org any",
	  "1: \"example.org\" is not an address, expected ADDR or ADDR/PREFIX, IPv4 or IPv6, or any\n" },
	{ "tcp any * 10.0.0.256 any",
	  "1: \"10.0.0.256\" is not an address, expected ADDR or ADDR/PREFIX, IPv4 or IPv6, or any\n" },
	{ "tcp any * /8 any",
	  "1: \"/8\" is not an address, expected ADDR or ADDR/PREFIX, IPv4 or IPv6, or any\n" },
	{ "tcp any * 10.0.0.0/33 any",
	  "1: \"10.0.0.0/33\" has a bad prefix length, expected 0 to 32\n" },
	{ "tcp any * 10.0.0.0/ any",
	  "1: \"10.0.0.0/\" has a bad prefix length, expected 0 to 32\n" },
	{ "tcp any * ::/129 any",
	  "1: \"::/129\" has a bad prefix length, expected 0 to 128\n" },
	{ "tcp any * ::/-1 any",
	  "1: \"::/-1\" has a bad prefix length, expected 0 to 128\n" },
	{ "tcp any * any http",
	  "1: \"http\" is not a port, expected PORT or LOW-HIGH of 0 to 65535, or any\n" },
	{ "tcp any * any 65536",
	  "1: \"65536\" is not a port, expected PORT or LOW-HIGH of 0 to 65535, or any\n" },
	{ "tcp any * any 1-",
	  "1: \"1-\" is not a port, expected PORT or LOW-HIGH of 0 to 65535, or any\n" },
	{ "tcp any * any 99999999999999999999",
	  "1: \"99999999999999999999\" is not a port, expected PORT or LOW-HIGH of 0 to 65535, or any\n" },
	{ "tcp any * any 90-80",
	  "1: \"90-80\" is no range of ports, expected the lower one first\n" },
	{ "tcp any other any 90-80",
	  "1: \"90-80\" is no range of ports, expected the lower one first\n" },
	{ "log", "1: expected \"log off|errors|connections\", found 1 word\n" },
	{ "log loud",
	  "1: \"loud\" is not a log level, expected off, errors or connections\n" },
	{ "log-file", "1: expected \"log-file PATH\", found 1 word\n" },
	{ "log-file log.txt",
	  "1: \"log.txt\" is not a log file, expected a path that starts with /\n" },
	{ "reload", "1: expected \"reload SECONDS|never\", found 1 word\n" },
	{ "reload 0", "1: \"0\" is no time, expected 1 to 86400 seconds, or never\n" },
	{ "reload 86401", "1: \"86401\" is no time, expected 1 to 86400 seconds, or never\n" },
	{ "reload 99999999999", "1: \"99999999999\" is no time, expected 1 to 86400 seconds, or never\n" },
	{ "reload 5s", "1: \"5s\" is no time, expected 1 to 86400 seconds, or never\n" },
	{ "a\001b\377 any",
	  "1: \"a?b?\" is not known, expected vnet, tcp, both, log, log-file or reload\n" },
	{ "0123456789012345678901234567890123456789012345678901234567890123456789",
	  "1: \"0123456789012345678901234567890123456789012345678901234567890123...\" is not known, expected vnet, tcp, both, log, log-file or reload\n" },
};

static void test_bad_lines(void)
{
	struct vns_rule rules[RULES];
	struct vns_policy p;
	struct messages m;
	char what[256];
	size_t i;

	for (i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
		parse(&p, rules, bads[i].text, strlen(bads[i].text), "/bin/a", &m);
		snprintf(what, sizeof(what), "bad line: %.*s",
			 (int)strcspn(bads[i].message, "\n"), bads[i].message);
		check(!strcmp(m.text, bads[i].message) && !p.count, what, m.text);
	}
}

/* ---- the rest ---- */

static void test_sizes(void)
{
	struct vns_rule rules[RULES];
	char text[2048], many[RULES * 32 + 64] = "";
	struct vns_policy p;
	struct messages m;
	size_t i;

	memset(text, 'x', sizeof(text));
	parse(&p, rules, text, sizeof(text), "/bin/a", &m);
	check(!strcmp(m.text, "1: the line is longer than 1000 bytes\n"),
	      "a long line is reported and left out", m.text);

	for (i = 0; i <= RULES; i++)
		strcat(many, "tcp any * any 80\n");
	parse(&p, rules, many, strlen(many), "/bin/a", &m);
	check(p.count == RULES &&
	      !strcmp(m.text, "17: more rules than there is room for\n"),
	      "no rule is stored beyond the room there is", m.text);
	check(vns_policy_lines(many, strlen(many)) >= RULES + 1,
	      "the count of lines is enough room", "");

	parse(&p, rules, "tcp any * any 80\0tcp", 20, "/bin/a", &m);
	check(!p.count && *m.text, "a NUL byte ends no line", m.text);
}

static void test_log_lines(void)
{
	static const char text[] = "log errors\nlog connections\nlog-file /var/log/vnet.log\n";
	struct vns_rule rules[RULES];
	struct vns_policy p;
	struct messages m;

	parse(&p, rules, text, strlen(text), "/bin/a", &m);
	check(p.log_level == VNS_LOG_CONNECTIONS && !*m.text,
	      "log: the last line counts", m.text);
	check(!strcmp(p.log_file, "/var/log/vnet.log"), "log-file", p.log_file);
}

static void test_reload(void)
{
	struct vns_rule rules[RULES];
	struct vns_policy p;
	struct messages m;

	parse(&p, rules, "", 0, "/bin/a", &m);
	check(!p.reload, "reload: never, if the file does not say", "");
	parse(&p, rules, "reload 86400", 12, "/bin/a", &m);
	check(p.reload == 86400 && !*m.text, "reload: a day at most", m.text);
	parse(&p, rules, "reload 5\nreload never", 21, "/bin/a", &m);
	check(!p.reload && !*m.text, "reload: the last line counts", m.text);
}

static const struct {
	const char *text;
	int mode;
} constants[] = {
	{ "", VNET_MODE_BOTH },
	{ "both any * any 80", VNET_MODE_BOTH },
	{ "tcp any * any any", VNET_MODE_TCP },
	{ "tcp any * any any\nvnet any * any any", VNET_MODE_TCP },
	{ "tcp connect * any any\ntcp listen * any any", VNET_MODE_TCP },
	{ "tcp any * any 80\ntcp any * any any", VNET_MODE_TCP },
	{ "tcp connect * any any", -1 },
	{ "tcp any * any 80", -1 },
	{ "tcp any * 0.0.0.0/0 any", -1 },
	{ "both any * any 22\ntcp any * any any", -1 },
	{ "vnet any * any any", VNET_MODE_VNET },
	{ "tcp any other any any", VNET_MODE_BOTH },
};

static void test_constants(void)
{
	struct vns_rule rules[RULES];
	struct vns_policy p;
	struct messages m;
	char what[160], *nl;
	size_t i;

	for (i = 0; i < sizeof(constants) / sizeof(constants[0]); i++) {
		parse(&p, rules, constants[i].text, strlen(constants[i].text),
		      "/bin/a", &m);
		snprintf(what, sizeof(what), "'%s' makes every connection %s",
			 constants[i].text, constants[i].mode < 0 ? "its own case" :
			 mode_name[constants[i].mode]);
		while ((nl = strchr(what, '\n')))
			*nl = ';';
		check(vns_policy_constant(&p) == constants[i].mode, what, m.text);
	}
}

static void test_addresses(void)
{
	struct vns_rule rules[RULES];
	struct sockaddr_storage ss = { .ss_family = AF_UNIX };
	struct vns_policy p;
	struct messages m;
	socklen_t len;

	parse(&p, rules, "tcp any * any any", 17, "/bin/a", &m);
	check(vns_policy_decide(&p, VNS_DIR_CONNECT, (struct sockaddr *)&ss,
				sizeof(ss)) == VNET_MODE_BOTH,
	      "another address family is none of the policy's business", "");
	len = address("::1", 1, &ss);
	check(vns_policy_decide(&p, VNS_DIR_CONNECT, (struct sockaddr *)&ss,
				len - 12) == VNET_MODE_BOTH,
	      "a short address is left to the kernel", "");
}

int main(void)
{
	test_decisions();
	test_bad_lines();
	test_sizes();
	test_log_lines();
	test_reload();
	test_constants();
	test_addresses();
	printf("1..%d\n", tests);
	return failures != 0;
}
