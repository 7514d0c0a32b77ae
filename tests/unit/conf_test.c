// SPDX-License-Identifier: GPL-2.0-or-later
/* Configuration text: lines, words, values, and what is said about mistakes. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include "conf.h"
#include "log.h"
#include "tap.h"

/* ---- what was logged ---- */

static int log_pipe[2];

static void capture_log(void)
{
	if (pipe2(log_pipe, O_CLOEXEC | O_NONBLOCK) ||
	    dup2(log_pipe[1], STDERR_FILENO) < 0)
		bail_out("pipe");
}

/* What was logged since the last time. */
static const char *logged(void)
{
	static char text[8192];
	ssize_t n = read(log_pipe[0], text, sizeof(text) - 1);

	text[n > 0 ? n : 0] = '\0';
	return text;
}

/* ---- lines ---- */

static char seen[4096];

static int see(const struct conf_line *line, void *ctx)
{
	size_t at = strlen(seen);
	int i;

	at += snprintf(seen + at, sizeof(seen) - at, "%u:", line->number);
	for (i = 0; i < line->argc; i++)
		at += snprintf(seen + at, sizeof(seen) - at, "<%s>",
			       line->argv[i]);
	return 0;
}

static int refuse(const struct conf_line *line, void *ctx)
{
	return conf_error(line, "no %s today", line->argv[0]);
}

static const struct conf_directive table[] = {
	{ "one", 1, 1, "ARG", see },
	{ "any", 0, CONF_WORDS_MAX, "[ARG...]", see },
	{ "bad", 0, 0, NULL, refuse },
	{ NULL, 0, 0, NULL, NULL },
};

static int parse(const char *text, size_t len)
{
	seen[0] = '\0';
	return conf_parse_text("t.conf", text, len, table, NULL);
}

/* Words are seen as given, and nothing is logged. */
static void good(const char *text, const char *want)
{
	char name[64];

	snprintf(name, sizeof(name), "good: %.40s", want);
	is_int(parse(text, strlen(text)), 0, name);
	is_str(seen, want, name);
	is_str(logged(), "", name);
}

/* Refused, and the message has this in it. */
static void bad_n(const char *text, size_t len, const char *what)
{
	char name[64];
	const char *log;

	snprintf(name, sizeof(name), "refused: %.50s", what);
	is_int(parse(text, len), -EINVAL, name);
	log = logged();
	if (!ok(strstr(log, what), "%s is said", name))
		note("%s", log);
}

static void bad(const char *text, const char *what)
{
	bad_n(text, strlen(text), what);
}

static void test_lines(void)
{
	char many[512] = "any";
	int i;

	good("", "");
	good("\n\n  \t\n# one two\n   # x\n", "");
	good("one x\n", "1:<one><x>");
	good("one x", "1:<one><x>");
	good("\r\n\n  one\t x \r\nany", "3:<one><x>4:<any>");
	good("any a#b c # d e\n", "1:<any><a#b><c>");
	good("any \"a b\" \"\" \"#\" \"\" # x\n", "1:<any><a b><><#><>");
	good("\"any\" \xc3\xa4", "1:<any><\xc3\xa4>");
	bad("two x\n", "t.conf:1: there is no directive \"two\"");
	bad("\none\n", "t.conf:2: usage: one ARG");
	bad("one a b", "usage: one ARG");
	bad("bad", "t.conf:1: no bad today");
	bad("one \"a", "without its end");
	bad("one \"a\"b", "a blank must follow");
	bad("one a\"b\"", "within a word");
	bad("one \x01", "control character 0x01");
	bad("one \x1b[31m", "control character 0x1b");
	bad_n("one a\0b\n", 8, "control character 0x00");
	for (i = 0; i < CONF_WORDS_MAX - 1; i++)
		strcat(many, " x");
	is_int(parse(many, strlen(many)), 0, "as many words as there may be");
	strcat(many, " x");
	bad(many, "more than 32 words");

	/* all mistakes are told, and the good lines run */
	bad("two\none 1\nthree\none 2\n", "t.conf:3: there is no directive");
	is_str(seen, "2:<one><1>4:<one><2>", "goes on after an error");
}

static void test_files(void)
{
	char path[] = "/tmp/conf_test.XXXXXX", big[1000];
	int fd = mkstemp(path), i;

	if (fd < 0 || write(fd, "one 1\nfour\n", 11) != 11)
		bail_out("temporary file");
	seen[0] = '\0';
	is_int(conf_parse_file(path, table, NULL), -EINVAL, "file: a mistake");
	is_str(seen, "1:<one><1>", "file: the good line ran");
	ok(strstr(logged(), ":2: there is no"), "file: its line is told");
	is_int(conf_parse_file("/nonexistent/x", table, NULL), -ENOENT,
	       "file: is not there");
	ok(strstr(logged(), "/nonexistent/x: No such file"), "file: and why");
	is_int(conf_parse_file("/tmp", table, NULL), -EISDIR, "file: a directory");
	memset(big, '\n', sizeof(big));
	for (i = 0; i < 1049; i++)
		if (write(fd, big, sizeof(big)) < 0)
			bail_out("temporary file");
	is_int(conf_parse_file(path, table, NULL), -EFBIG, "file: over a megabyte");
	if (ftruncate(fd, 6))
		bail_out("ftruncate");
	is_int(conf_parse_file(path, table, NULL), 0, "file: good");
	unlink(path);
	close(fd);
	logged();
}

/* ---- values ---- */

static const struct conf_line line = { .file = "v", .number = 7, .argc = 1 };

static void number(const char *word, uint32_t min, uint32_t max, long want)
{
	uint32_t out = 4711;
	char name[64];
	int ret;

	snprintf(name, sizeof(name), "number \"%s\" of %u..%u", word, min, max);
	ret = conf_u32(&line, "n", word, min, max, &out);
	if (want < 0)
		ok(ret == -EINVAL && out == 4711 && strstr(logged(), "v:7: n:"),
		   "%s: refused", name);
	else
		ok(ret == 0 && out == want, "%s", name);
}

static void test_numbers(void)
{
	number("0", 0, 9, 0);
	number("9", 0, 9, 9);
	number("10", 0, 9, -1);
	number("4", 5, 9, -1);
	number("0x1F", 0, 99, 31);
	number("017", 0, 99, 17); /* not octal */
	number("4294967295", 0, UINT32_MAX, UINT32_MAX);
	number("4294967296", 0, UINT32_MAX, -1);
	number("18446744073709551617", 0, UINT32_MAX, -1);
	number("", 0, 9, -1);
	number("-1", 0, UINT32_MAX, -1);
	number("+1", 0, 9, -1);
	number(" 1", 0, 9, -1);
	number("1k", 0, 9000, -1);
	number("0x", 0, 9, -1);
	number("0x0x1", 0, 9, -1);
	number("0x-1", 0, UINT32_MAX, -1);
}

static void test_macs(void)
{
	static const char *const bad_macs[] = {
		"", "02:00:00:00:00", "02:00:00:00:00:01:", "2:0:0:0:0:1",
		"02-00-00-00-00-01", "02:00:00:00:00:0g", "02:00:00:00:00: 1",
		"02:00:00:00:00:001", "02:00:00:00:00:0x",
	};
	uint8_t mac[6] = { 0 };
	unsigned int i;

	ok(conf_mac(&line, "02:0a:FF:00:7f:80", mac) == 0 &&
		   memcmp(mac, "\x02\x0a\xff\x00\x7f\x80", 6) == 0,
	   "MAC address");
	for (i = 0; i < sizeof(bad_macs) / sizeof(bad_macs[0]); i++)
		ok(conf_mac(&line, bad_macs[i], mac) == -EINVAL &&
			   mac[0] == 2 && strstr(logged(), "is no MAC"),
		   "no MAC address: \"%s\"", bad_macs[i]);
}

/* There and back through text, and through the ABI's form. */
static void address(const char *word, uint16_t port, const char *want)
{
	struct sockaddr_storage addr = { 0 }, back;
	char buf[SOCKADDR_STRLEN];
	struct vtoe_addr vtoe;
	int ret;

	ret = conf_sockaddr(&line, word, port, &addr);
	if (!want) {
		ok(ret == -EINVAL && addr.ss_family == 0 &&
			   strstr(logged(), "is not ADDRESS"),
		   "no address: \"%s\"", word);
		return;
	}
	if (!ok(ret == 0, "address: \"%s\"", word))
		return;
	is_str(sockaddr_format(&addr, buf), want, "formatted");
	sockaddr_to_vtoe(&addr, &vtoe);
	ok(sockaddr_from_vtoe(&vtoe, &back) == 0 && sockaddr_equal(&addr, &back),
	   "there and back");
}

static void test_addresses(void)
{
	struct sockaddr_storage a, b;
	struct vtoe_addr vtoe;
	char buf[SOCKADDR_STRLEN];

	address("10.1.2.3:80", 0, "10.1.2.3:80");
	address("10.1.2.3", 7470, "10.1.2.3:7470");
	address("10.1.2.3:65535", 7470, "10.1.2.3:65535");
	address("[fd00::1]:80", 0, "[fd00::1]:80");
	address("[fd00::1]", 7470, "[fd00::1]:7470");
	address("[fe80::1%7]:80", 0, "[fe80::1%7]:80");
	address("[::ffff:10.1.2.3]:80", 0, "[::ffff:10.1.2.3]:80");
	address("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535", 0,
		"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535");
	address("10.1.2.3", 0, NULL);
	address("[fd00::1]", 0, NULL);
	address("10.1.2.3:0", 7470, NULL);
	address("10.1.2.3:65536", 7470, NULL);
	address("10.1.2.3:", 7470, NULL);
	address("10.1.2.3:8x", 7470, NULL);
	address("10.1.2:80", 0, NULL);
	address("fd00::1", 7470, NULL);
	address("[fd00::1", 7470, NULL);
	address("[fd00::1]80", 7470, NULL);
	address("[10.1.2.3]:80", 0, NULL);
	address("[fe80::1%nonesuch]:80", 0, NULL);
	address("[fe80::1%]:80", 0, NULL);
	address("localhost:80", 0, NULL);
	address("", 7470, NULL);
	address("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%42949672950000000000]:65535",
		0, NULL);

	conf_sockaddr(&line, "10.1.2.3:80", 0, &a);
	conf_sockaddr(&line, "10.1.2.3:81", 0, &b);
	ok(!sockaddr_equal(&a, &b), "another port");
	is_int(sockaddr_len(&a), sizeof(struct sockaddr_in), "length, IPv4");
	conf_sockaddr(&line, "10.1.2.4:80", 0, &b);
	ok(!sockaddr_equal(&a, &b), "another address");
	conf_sockaddr(&line, "[::1]:80", 0, &b);
	ok(!sockaddr_equal(&a, &b), "another family");
	is_int(sockaddr_len(&b), sizeof(struct sockaddr_in6), "length, IPv6");
	memset(&a, 0, sizeof(a));
	is_str(sockaddr_format(&a, buf), "none", "no address");
	ok(!sockaddr_equal(&a, &a), "no address equals none");
	sockaddr_to_vtoe(&a, &vtoe);
	ok(vtoe.family == 0 && sockaddr_from_vtoe(&vtoe, &b) == -EINVAL,
	   "no address there and back");
	conf_sockaddr(&line, "10.1.2.3:258", 0, &a);
	sockaddr_to_vtoe(&a, &vtoe);
	ok(vtoe.family == 4 && memcmp(&vtoe.port, "\1\2", 2) == 0 &&
		   memcmp(vtoe.addr, "\12\1\2\3\0\0\0\0\0\0\0\0\0\0\0\0", 16) == 0,
	   "in the ABI's form, bytes behind the IPv4 address zero");
}

static void test_words(void)
{
	char name[VNET_NAME_LEN], path[8];
	char longest[VNET_NAME_LEN + 1];

	memset(name, 'x', sizeof(name));
	ok(conf_name(&line, "vm", "g1.a_b-c", name) == 0 &&
		   strcmp(name, "g1.a_b-c") == 0 && !name[VNET_NAME_LEN - 1] &&
		   !name[9],
	   "name, with zeros behind");
	memset(longest, 'a', sizeof(longest));
	longest[VNET_NAME_LEN - 1] = '\0';
	is_int(conf_name(&line, "vm", longest, name), 0, "the longest name");
	memset(longest, 'a', VNET_NAME_LEN);
	longest[VNET_NAME_LEN] = '\0';
	is_int(conf_name(&line, "vm", longest, name), -EINVAL, "too long a name");
	is_int(conf_name(&line, "vm", "", name), -EINVAL, "an empty name");
	is_int(conf_name(&line, "vm", "-a", name), -EINVAL, "-a is no name");
	is_int(conf_name(&line, "vm", "..", name), -EINVAL, ".. is no name");
	is_int(conf_name(&line, "vm", "a/b", name), -EINVAL, "a/b is no name");
	is_int(conf_name(&line, "vm", "a b", name), -EINVAL, "a b is no name");
	is_int(conf_name(&line, "vm", "\xc3\xa4", name), -EINVAL, "ASCII only");
	ok(conf_path(&line, "key", "/a b", path, 8) == 0 &&
		   strcmp(path, "/a b") == 0,
	   "path");
	is_int(conf_path(&line, "key", "1234567", path, 8), 0, "the longest path");
	is_int(conf_path(&line, "key", "12345678", path, 8), -EINVAL,
	       "too long a path");
	is_int(conf_path(&line, "key", "", path, 8), -EINVAL, "an empty path");
	logged();
}

/* ---- the log itself ---- */

static void test_log(void)
{
	struct log_ratelimit limit = { 0 };
	char text[2000];
	int i, shown = 0;

	log_init("/usr/sbin/prog", LOG_WARN);
	log_err("conn %d: broke", 7);
	is_str(logged(), "prog: conn 7: broke\n", "a line");
	log_info("x");
	log_debug("x");
	is_str(logged(), "", "less urgent ones are not shown");
	ok(log_enabled(LOG_WARN) && !log_enabled(LOG_INFO), "levels");
	log_warn("a\nb\x1b[1m\tc");
	is_str(logged(), "prog: a?b?[1m?c\n", "control characters are replaced");
	errno = ENOENT;
	log_err("%m");
	is_str(logged(), "prog: No such file or directory\n", "errno");
	ok(errno == ENOENT, "errno is kept");
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	log_err("%s", text);
	ok(strlen(logged()) == 1024, "a long line is cut, newline and all");

	for (i = 0; i < 10; i++)
		shown += log_ratelimited_ok(&limit, 3, 3600);
	is_int(shown, 3, "three in an hour");
	limit.interval_start_s -= 3600;
	ok(log_ratelimited_ok(&limit, 3, 3600), "an hour later");
	is_str(logged(), "prog: 7 more lines of this kind were held back\n",
	       "those held back are counted");
	is_int(log_ratelimited_ok(&limit, 0, 3600), 0, "none");
}

int main(void)
{
	capture_log();
	test_lines();
	test_files();
	test_numbers();
	test_macs();
	test_addresses();
	test_words();
	test_log();
	return tap_done();
}
