// SPDX-License-Identifier: MIT
/*
 * The policy file. Pure: it reads a text in memory and reports through a
 * callback, so that it can be unit-tested and fuzzed.
 *
 * The text may be anything: the file is the administrator's, or, through
 * VNET_POLICY, the user's own. Nothing is read beyond its length, no rule is
 * stored beyond policy->max, and a line that is not understood is reported and
 * left out; what then matches no rule goes on as VNET_MODE_BOTH.
 *
 * Only rules for the running program are kept: a decision is a walk over few.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "vns.h"

#define LINE_MAX_LEN 1000
#define WORDS_MAX 6
#define RELOAD_MAX 86400 /* seconds */
#define RULE_FORM \
	"\"vnet|tcp|both connect|listen|any PROGRAM ADDR[/PREFIX]|any PORT[-PORT]|any\""

struct word {
	const char *s;
	size_t len;
};

struct line {
	unsigned int number;
	size_t count; /* words on it; the first WORDS_MAX are in word[] */
	struct word word[WORDS_MAX];
	vns_bad_line *bad;
	void *arg;
};

static bool is(const struct word *w, const char *s)
{
	return w->len == strlen(s) && !memcmp(w->s, s, w->len);
}

static bool blank(char ch)
{
	return ch == ' ' || ch == '\t' || ch == '\r';
}

/* ---- messages ---- */

static void bad_text(const struct line *l, struct vns_text *t)
{
	l->bad(l->arg, l->number, vns_text_end(t));
}

static bool bad(const struct line *l, const char *message)
{
	l->bad(l->arg, l->number, message);
	return false;
}

static bool bad_word(const struct line *l, const struct word *w,
		     const char *message)
{
	struct vns_text t = { 0 };

	vns_put_quoted(&t, w->s, w->len);
	vns_put(&t, message);
	bad_text(l, &t);
	return false;
}

static bool bad_count(const struct line *l, const char *expected)
{
	struct vns_text t = { 0 };

	vns_put(&t, "expected ");
	vns_put(&t, expected);
	vns_put(&t, ", found ");
	vns_put_u(&t, l->count);
	vns_put(&t, l->count == 1 ? " word" : " words");
	bad_text(l, &t);
	return false;
}

/* ---- words ---- */

int vns_mode_parse(const char *word, size_t len)
{
	const struct word w = { word, len };

	if (is(&w, "both"))
		return VNET_MODE_BOTH;
	if (is(&w, "tcp"))
		return VNET_MODE_TCP;
	if (is(&w, "vnet"))
		return VNET_MODE_VNET;
	return -1;
}

int vns_log_level_parse(const char *word, size_t len)
{
	const struct word w = { word, len };

	if (is(&w, "off"))
		return VNS_LOG_OFF;
	if (is(&w, "errors"))
		return VNS_LOG_ERRORS;
	if (is(&w, "connections"))
		return VNS_LOG_CONNECTIONS;
	return -1;
}

/* A decimal number of at most max, -1 if it is none. */
static long number_parse(const char *s, size_t len, long max)
{
	long n = 0;
	size_t i;

	if (!len || len > 6)
		return -1;
	for (i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return -1;
		n = n * 10 + (s[i] - '0');
	}
	return n <= max ? n : -1;
}

static bool direction_parse(const struct line *l, const struct word *w,
			    struct vns_rule *rule)
{
	if (is(w, "connect"))
		rule->dirs = VNS_DIR_CONNECT;
	else if (is(w, "listen"))
		rule->dirs = VNS_DIR_LISTEN;
	else if (is(w, "any"))
		rule->dirs = VNS_DIR_CONNECT | VNS_DIR_LISTEN;
	else
		return bad_word(l, w, " is not a direction, expected connect, listen or any");
	return true;
}

/* IPv4 addresses in IPv6 clothes are IPv4 addresses, here and in decisions. */
static bool v4_mapped(const uint8_t addr[16])
{
	static const uint8_t prefix[12] = { [10] = 0xff, [11] = 0xff };

	return !memcmp(addr, prefix, sizeof(prefix));
}

static bool addr_parse(const struct line *l, const struct word *w,
		       struct vns_rule *rule)
{
	const char *slash = memchr(w->s, '/', w->len);
	size_t addr_len = slash ? (size_t)(slash - w->s) : w->len;
	char addr[INET6_ADDRSTRLEN];
	long prefix, max;

	if (is(w, "any"))
		return true;
	if (addr_len >= sizeof(addr))
		goto not_addr;
	memcpy(addr, w->s, addr_len);
	addr[addr_len] = '\0';
	if (memchr(addr, '\0', addr_len))
		goto not_addr;
	if (inet_pton(AF_INET, addr, rule->addr) == 1)
		rule->family = 4;
	else if (inet_pton(AF_INET6, addr, rule->addr) == 1)
		rule->family = 6;
	else
		goto not_addr;
	max = rule->family == 4 ? 32 : 128;
	prefix = max;
	if (slash)
		prefix = number_parse(slash + 1, w->len - addr_len - 1, max);
	if (prefix < 0)
		return bad_word(l, w, max == 32 ?
			" has a bad prefix length, expected 0 to 32" :
			" has a bad prefix length, expected 0 to 128");
	if (rule->family == 6 && prefix >= 96 && v4_mapped(rule->addr)) {
		rule->family = 4;
		prefix -= 96;
		memmove(rule->addr, rule->addr + 12, 4);
	}
	rule->prefix = (uint8_t)prefix;
	return true;
not_addr:
	return bad_word(l, w, " is not an address, expected ADDR or ADDR/PREFIX, IPv4 or IPv6, or any");
}

static bool port_parse(const struct line *l, const struct word *w,
		       struct vns_rule *rule)
{
	const char *dash = memchr(w->s, '-', w->len);
	size_t low_len = dash ? (size_t)(dash - w->s) : w->len;
	long low, high;

	rule->port_high = 65535;
	if (is(w, "any"))
		return true;
	low = number_parse(w->s, low_len, 65535);
	high = dash ? number_parse(dash + 1, w->len - low_len - 1, 65535) : low;
	if (low < 0 || high < 0)
		return bad_word(l, w, " is not a port, expected PORT or LOW-HIGH of 0 to 65535, or any");
	if (low > high)
		return bad_word(l, w, " is no range of ports, expected the lower one first");
	rule->port_low = (uint16_t)low;
	rule->port_high = (uint16_t)high;
	return true;
}

/* ---- the program ---- */

/* One [...] at *at; *hit says whether ch is in it. False: it has no end. */
static bool glob_set(const char *glob, size_t len, size_t *at, char ch,
		     bool *hit)
{
	size_t i = *at + 1;
	bool invert = i < len && (glob[i] == '!' || glob[i] == '^');
	size_t first;

	*hit = false;
	i += invert;
	for (first = i; i < len; i++) {
		if (glob[i] == ']' && i > first) {
			*hit ^= invert;
			*at = i + 1;
			return true;
		}
		if (i + 2 < len && glob[i + 1] == '-' && glob[i + 2] != ']') {
			*hit |= glob[i] <= ch && ch <= glob[i + 2];
			i += 2;
		} else {
			*hit |= glob[i] == ch;
		}
	}
	return false;
}

bool vns_glob(const char *glob, size_t glob_len, const char *name)
{
	size_t at = 0, star_at = 0;
	const char *star_name = NULL; /* where the last * stopped eating */

	while (*name) {
		bool hit = false;
		size_t next = at;

		if (at < glob_len && glob[at] == '*') {
			star_at = ++at;
			star_name = name;
			continue;
		}
		if (at < glob_len) {
			if (glob[at] == '?') {
				hit = true;
				next = at + 1;
			} else if (glob[at] != '[' ||
				   !glob_set(glob, glob_len, &next, *name, &hit)) {
				/* A [ without its ] is a letter. */
				hit = glob[at] == *name;
				next = at + 1;
			}
		}
		if (hit) {
			at = next;
			name++;
		} else if (star_name) {
			at = star_at;
			name = ++star_name;
		} else {
			return false;
		}
	}
	while (at < glob_len && glob[at] == '*')
		at++;
	return at == glob_len;
}

static bool program_matches(const struct word *w,
			    const struct vns_program *program)
{
	const char *base = strrchr(program->exe, '/');

	if (is(w, "any"))
		return true;
	if (memchr(w->s, '/', w->len))
		return vns_glob(w->s, w->len, program->exe);
	return vns_glob(w->s, w->len, base ? base + 1 : program->exe) ||
	       vns_glob(w->s, w->len, program->invoked);
}

/* ---- lines ---- */

static void rule_line(const struct line *l, int mode, struct vns_policy *policy,
		      const struct vns_program *program)
{
	struct vns_rule rule = { .mode = (uint8_t)mode };

	if (l->count != 5) {
		bad_count(l, RULE_FORM);
		return;
	}
	if (!direction_parse(l, &l->word[1], &rule) ||
	    !addr_parse(l, &l->word[3], &rule) ||
	    !port_parse(l, &l->word[4], &rule) ||
	    !program_matches(&l->word[2], program))
		return;
	if (policy->count == policy->max) {
		bad(l, "more rules than there is room for");
		return;
	}
	policy->rules[policy->count++] = rule;
}

static void log_file_line(const struct line *l, struct vns_policy *policy)
{
	const struct word *w = &l->word[1];

	if (l->count != 2) {
		bad_count(l, "\"log-file PATH\"");
	} else if (w->s[0] != '/') {
		bad_word(l, w, " is not a log file, expected a path that starts with /");
	} else if (w->len >= sizeof(policy->log_file) ||
		   memchr(w->s, '\0', w->len)) {
		bad_word(l, w, " is too long for a log file, expected at most 255 bytes");
	} else {
		memcpy(policy->log_file, w->s, w->len);
		policy->log_file[w->len] = '\0';
	}
}

static void reload_line(const struct line *l, struct vns_policy *policy)
{
	const struct word *w = &l->word[1];
	unsigned int n = 0;
	size_t i;

	if (l->count != 2) {
		bad_count(l, "\"reload SECONDS|never\"");
		return;
	}
	if (is(w, "never")) {
		policy->reload = 0;
		return;
	}
	for (i = 0; i < w->len && i < 6 && w->s[i] >= '0' && w->s[i] <= '9'; i++)
		n = n * 10 + (unsigned int)(w->s[i] - '0');
	if (i < w->len || n < 1 || n > RELOAD_MAX)
		bad_word(l, w, " is no time, expected 1 to 86400 seconds, or never");
	else
		policy->reload = n;
}

static void parse_line(const struct line *l, struct vns_policy *policy,
		       const struct vns_program *program)
{
	int mode = vns_mode_parse(l->word[0].s, l->word[0].len);
	int level;

	if (mode >= 0) {
		rule_line(l, mode, policy, program);
	} else if (is(&l->word[0], "log-file")) {
		log_file_line(l, policy);
	} else if (is(&l->word[0], "reload")) {
		reload_line(l, policy);
	} else if (!is(&l->word[0], "log")) {
		bad_word(l, &l->word[0], " is not known, expected vnet, tcp, both, log, log-file or reload");
	} else if (l->count != 2) {
		bad_count(l, "\"log off|errors|connections\"");
	} else {
		level = vns_log_level_parse(l->word[1].s, l->word[1].len);
		if (level < 0)
			bad_word(l, &l->word[1], " is not a log level, expected off, errors or connections");
		else
			policy->log_level = level;
	}
}

static void split(struct line *l, const char *s, const char *end)
{
	l->count = 0;
	while (s < end) {
		const char *start;

		while (s < end && blank(*s))
			s++;
		if (s == end || *s == '#')
			return;
		start = s;
		while (s < end && !blank(*s) && *s != '#')
			s++;
		if (l->count < WORDS_MAX)
			l->word[l->count] = (struct word){ start, (size_t)(s - start) };
		l->count++;
	}
}

size_t vns_policy_lines(const char *text, size_t len)
{
	size_t lines = 1, i;

	for (i = 0; i < len; i++)
		lines += text[i] == '\n';
	return lines;
}

void vns_policy_parse(struct vns_policy *policy, const char *text, size_t len,
		      const struct vns_program *program, vns_bad_line *bad_fn,
		      void *arg)
{
	struct line l = { .bad = bad_fn, .arg = arg };
	const char *end = text + len;

	while (text < end) {
		const char *nl = memchr(text, '\n', (size_t)(end - text));
		const char *stop = nl ? nl : end;

		l.number++;
		if (stop - text > LINE_MAX_LEN) {
			bad(&l, "the line is longer than 1000 bytes");
		} else {
			split(&l, text, stop);
			if (l.count)
				parse_line(&l, policy, program);
		}
		text = nl ? nl + 1 : end;
	}
}

/* ---- decisions ---- */

static bool prefix_equal(const uint8_t *a, const uint8_t *b, unsigned int bits)
{
	unsigned int whole = bits / 8, rest = bits % 8;

	if (memcmp(a, b, whole))
		return false;
	return !rest || !((a[whole] ^ b[whole]) >> (8 - rest));
}

int vns_policy_decide(const struct vns_policy *policy, unsigned int dir,
		      const struct sockaddr *sa, socklen_t len)
{
	const struct vns_rule *r;
	const uint8_t *addr;
	uint8_t family;
	uint16_t port;

	if (len >= sizeof(struct sockaddr_in) && sa->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)sa;

		family = 4;
		addr = (const void *)&in->sin_addr;
		port = ntohs(in->sin_port);
	} else if (len >= sizeof(struct sockaddr_in6) &&
		   sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)sa;

		family = v4_mapped(in6->sin6_addr.s6_addr) ? 4 : 6;
		addr = in6->sin6_addr.s6_addr + (family == 4 ? 12 : 0);
		port = ntohs(in6->sin6_port);
	} else {
		return VNET_MODE_BOTH;
	}
	for (r = policy->rules; r < policy->rules + policy->count; r++) {
		if (!(r->dirs & dir) || port < r->port_low || port > r->port_high)
			continue;
		if (r->family &&
		    (r->family != family || !prefix_equal(r->addr, addr, r->prefix)))
			continue;
		return r->mode;
	}
	return VNET_MODE_BOTH;
}

int vns_policy_constant(const struct vns_policy *policy)
{
	unsigned int open = VNS_DIR_CONNECT | VNS_DIR_LISTEN;
	const struct vns_rule *r = policy->rules;
	int mode = policy->count ? r->mode : VNET_MODE_BOTH;

	for (; r < policy->rules + policy->count && open; r++) {
		if (!(r->dirs & open))
			continue; /* never reached */
		if (r->mode != mode)
			return -1;
		if (!r->family && !r->port_low && r->port_high == 65535)
			open &= ~(unsigned int)r->dirs;
	}
	/* What falls through every rule is VNET_MODE_BOTH. */
	return !open || mode == VNET_MODE_BOTH ? mode : -1;
}
