// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Configuration files, and addresses in and out of text.
 *
 * The operator writes the files, so a mistake is answered with its place, not
 * with distrust; still no file, however broken, may crash a daemon (control
 * tools hand text on from others), so the parser is a fuzz target.
 *
 * A line is cut in place, in a copy: blanks part words; a word that starts with
 * " ends at the next ", which a blank or the line's end must follow; there is no
 * escape character. A # that starts a word starts a comment.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "log.h"

#define FILE_BYTES_MAX (1u << 20)

int conf_error(const struct conf_line *line, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_err("%s:%u: %s", line->file, line->number, text);
	return -EINVAL;
}

/* ---- lines ---- */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

/*
 * Cuts the next word off *text. 1: *word is it; 0: no more; -EINVAL. A word's
 * end is overwritten, so *text must be writable.
 */
static int next_word(const struct conf_line *line, char **text, char **word)
{
	char *p = *text;

	while (is_blank(*p))
		p++;
	if (!*p || *p == '#')
		return 0;
	if (*p == '"') {
		*word = ++p;
		p = strchr(p, '"');
		if (!p)
			return conf_error(line, "\" without its end");
		*p++ = '\0';
		if (*p && !is_blank(*p))
			return conf_error(line, "a blank must follow \"");
		*text = p;
		return 1;
	}
	*word = p;
	while (*p && !is_blank(*p)) {
		if (*p == '"')
			return conf_error(line, "\" within a word");
		p++;
	}
	if (*p)
		*p++ = '\0';
	*text = p;
	return 1;
}

/* Splits text into line->argv. 0 or -EINVAL; no words: argc is 0. */
static int split_line(struct conf_line *line, char *text, size_t len)
{
	char *word;
	size_t i;
	int ret;

	for (i = 0; i < len; i++)
		if (((unsigned char)text[i] < ' ' && !is_blank(text[i])) ||
		    text[i] == 0x7f)
			return conf_error(line, "control character 0x%02x",
					  (unsigned char)text[i]);
	line->argc = 0;
	while ((ret = next_word(line, &text, &word)) > 0) {
		if (line->argc == CONF_WORDS_MAX)
			return conf_error(line, "more than %d words",
					  CONF_WORDS_MAX);
		line->argv[line->argc++] = word;
	}
	return ret;
}

static const struct conf_directive *find(const struct conf_directive *table,
					 const char *name)
{
	for (; table->name; table++)
		if (strcmp(table->name, name) == 0)
			return table;
	return NULL;
}

static int run_line(const struct conf_line *line,
		    const struct conf_directive *table, void *ctx)
{
	const struct conf_directive *directive = find(table, line->argv[0]);
	const int args = line->argc - 1;

	if (!directive)
		return conf_error(line, "there is no directive \"%s\"",
				  line->argv[0]);
	if (args < directive->min_args || args > directive->max_args)
		return conf_error(line, "usage: %s %s", directive->name,
				  directive->usage ? directive->usage : "");
	return directive->parse(line, ctx);
}

int conf_parse_text(const char *name, const char *text, size_t len,
		    const struct conf_directive *table, void *ctx)
{
	struct conf_line line = { .file = name };
	int result = 0;

	while (len) {
		const char *end = memchr(text, '\n', len);
		size_t line_len = end ? (size_t)(end - text) : len;
		size_t step = end ? line_len + 1 : line_len;
		char *copy = malloc(line_len + 1);

		if (!copy)
			return -ENOMEM;
		memcpy(copy, text, line_len);
		copy[line_len] = '\0';
		line.number++;
		if (split_line(&line, copy, line_len) < 0 ||
		    (line.argc && run_line(&line, table, ctx) != 0))
			result = -EINVAL;
		free(copy);
		text += step;
		len -= step;
	}
	return result;
}

/* Reads all of it; *text is the caller's to free. 0 or -errno. */
static int read_all(FILE *file, char **text, size_t *len)
{
	size_t room = 0;
	char *bigger;

	*text = NULL;
	*len = 0;
	do {
		room = room ? 2 * room : 4096;
		if (room > 2 * FILE_BYTES_MAX)
			return -EFBIG;
		bigger = realloc(*text, room);
		if (!bigger)
			return -ENOMEM;
		*text = bigger;
		errno = 0;
		*len += fread(*text + *len, 1, room - *len, file);
	} while (*len == room);
	if (ferror(file))
		return errno ? -errno : -EIO;
	return *len > FILE_BYTES_MAX ? -EFBIG : 0;
}

int conf_parse_file(const char *path, const struct conf_directive *table,
		    void *ctx)
{
	FILE *file = fopen(path, "re");
	char *text = NULL;
	size_t len;
	int ret;

	if (!file) {
		ret = -errno;
		log_err("%s: %s", path, strerror(-ret));
		return ret;
	}
	ret = read_all(file, &text, &len);
	fclose(file);
	if (ret < 0)
		log_err("%s: %s", path, strerror(-ret));
	else
		ret = conf_parse_text(path, text, len, table, ctx);
	free(text);
	return ret;
}

/* ---- words ---- */

/* Digits only, to their end: strtoul() would take blanks and signs. */
static bool parse_u64(const char *word, uint64_t *out)
{
	const bool hex = word[0] == '0' && (word[1] == 'x' || word[1] == 'X');
	const char *p = hex ? word + 2 : word;
	char *end;

	if (!(hex ? isxdigit((unsigned char)*p) : isdigit((unsigned char)*p)))
		return false;
	errno = 0;
	*out = strtoull(p, &end, hex ? 16 : 10);
	/* "0x" would be taken again behind our own */
	return !errno && !*end && !strpbrk(p, "xX");
}

int conf_u32(const struct conf_line *line, const char *what, const char *word,
	     uint32_t min, uint32_t max, uint32_t *out)
{
	uint64_t value;

	if (!parse_u64(word, &value) || value < min || value > max)
		return conf_error(line, "%s: \"%s\" is no number from %u to %u",
				  what, word, min, max);
	*out = value;
	return 0;
}

int conf_mac(const struct conf_line *line, const char *word,
	     uint8_t out[VNET_MAC_LEN])
{
	const char *p = word;
	uint8_t mac[VNET_MAC_LEN];
	int i;

	for (i = 0; i < VNET_MAC_LEN; i++) {
		unsigned int byte;

		if (!isxdigit((unsigned char)p[0]) ||
		    !isxdigit((unsigned char)p[1]) ||
		    p[2] != (i == VNET_MAC_LEN - 1 ? '\0' : ':'))
			return conf_error(line, "\"%s\" is no MAC address", word);
		sscanf(p, "%2x", &byte);
		mac[i] = byte;
		p += 3;
	}
	memcpy(out, mac, sizeof(mac));
	return 0;
}

/* "fe80::1%eth0" or "fe80::1%3": cuts the scope off host. */
static bool parse_scope(char *host, uint32_t *scope)
{
	char *percent = strchr(host, '%');
	uint64_t number;

	*scope = 0;
	if (!percent)
		return true;
	*percent = '\0';
	*scope = if_nametoindex(percent + 1);
	if (!*scope && parse_u64(percent + 1, &number) && number <= UINT32_MAX)
		*scope = number;
	return *scope != 0;
}

static bool parse_host(char *host, bool v6, uint16_t port,
		       struct sockaddr_storage *out)
{
	struct sockaddr_in *in = (struct sockaddr_in *)out;
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	if (v6) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(port);
		return parse_scope(host, &in6->sin6_scope_id) &&
		       inet_pton(AF_INET6, host, &in6->sin6_addr) == 1;
	}
	in->sin_family = AF_INET;
	in->sin_port = htons(port);
	return inet_pton(AF_INET, host, &in->sin_addr) == 1;
}

/*
 * Parts word into host and port text within buf. *port is NULL if there is
 * none. False: no such form.
 */
static bool split_host_port(char *buf, char **host, char **port, bool *v6)
{
	char *end;

	*v6 = buf[0] == '[';
	*host = buf;
	if (*v6) {
		*host = buf + 1;
		end = strchr(buf, ']');
		if (!end)
			return false;
		*end++ = '\0';
		if (*end && *end != ':')
			return false;
	} else {
		end = strchrnul(buf, ':');
	}
	*port = *end ? end + 1 : NULL;
	*end = '\0';
	return true;
}

int conf_sockaddr(const struct conf_line *line, const char *word,
		  uint16_t default_port, struct sockaddr_storage *out)
{
	char buf[INET6_ADDRSTRLEN + IF_NAMESIZE + sizeof("[%]:65535")];
	struct sockaddr_storage addr;
	uint64_t port = default_port;
	char *host, *port_text;
	bool v6;

	if (strlen(word) >= sizeof(buf))
		goto bad;
	strcpy(buf, word);
	if (!split_host_port(buf, &host, &port_text, &v6))
		goto bad;
	if (port_text && !parse_u64(port_text, &port))
		goto bad;
	if (!port || port > UINT16_MAX || !parse_host(host, v6, port, &addr))
		goto bad;
	*out = addr;
	return 0;

bad:
	return conf_error(line, "\"%s\" is not ADDRESS%s or [IPV6]%s", word,
			  default_port ? "[:PORT]" : ":PORT",
			  default_port ? "[:PORT]" : ":PORT");
}

/* A letter or digit, then those and . _ - */
int conf_name(const struct conf_line *line, const char *what, const char *word,
	      char out[VNET_NAME_LEN])
{
	size_t i, len = strlen(word);

	if (!len || len >= VNET_NAME_LEN)
		return conf_error(line, "%s: a name has 1 to %d characters",
				  what, VNET_NAME_LEN - 1);
	for (i = 0; i < len; i++) {
		unsigned char c = word[i];

		if (c > 0x7f || !(isalnum(c) || (i && strchr("._-", c))))
			return conf_error(line, "%s: \"%s\" is no name", what,
					  word);
	}
	memset(out, 0, VNET_NAME_LEN); /* it goes into messages whole */
	memcpy(out, word, len);
	return 0;
}

int conf_path(const struct conf_line *line, const char *what, const char *word,
	      char *out, size_t out_size)
{
	size_t len = strlen(word);

	if (!len)
		return conf_error(line, "%s: an empty path", what);
	if (len >= out_size)
		return conf_error(line, "%s: a path of more than %zu bytes", what,
				  out_size - 1);
	memcpy(out, word, len + 1);
	return 0;
}

/* ---- addresses ---- */

char *sockaddr_format(const struct sockaddr_storage *addr,
		      char buf[SOCKADDR_STRLEN])
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)addr;
	char host[INET6_ADDRSTRLEN] = "?";
	char scope[12] = "";

	switch (addr->ss_family) {
	case AF_INET:
		inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
		snprintf(buf, SOCKADDR_STRLEN, "%s:%u", host,
			 ntohs(in->sin_port));
		break;
	case AF_INET6:
		inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
		if (in6->sin6_scope_id)
			snprintf(scope, sizeof(scope), "%%%u",
				 in6->sin6_scope_id);
		snprintf(buf, SOCKADDR_STRLEN, "[%s%s]:%u", host, scope,
			 ntohs(in6->sin6_port));
		break;
	default:
		snprintf(buf, SOCKADDR_STRLEN, "none");
	}
	return buf;
}

socklen_t sockaddr_len(const struct sockaddr_storage *addr)
{
	switch (addr->ss_family) {
	case AF_INET:
		return sizeof(struct sockaddr_in);
	case AF_INET6:
		return sizeof(struct sockaddr_in6);
	default:
		return sizeof(*addr);
	}
}

bool sockaddr_equal(const struct sockaddr_storage *a,
		    const struct sockaddr_storage *b)
{
	const struct sockaddr_in *a4 = (const struct sockaddr_in *)a;
	const struct sockaddr_in *b4 = (const struct sockaddr_in *)b;
	const struct sockaddr_in6 *a6 = (const struct sockaddr_in6 *)a;
	const struct sockaddr_in6 *b6 = (const struct sockaddr_in6 *)b;

	if (a->ss_family != b->ss_family)
		return false;
	switch (a->ss_family) {
	case AF_INET:
		return a4->sin_port == b4->sin_port &&
		       a4->sin_addr.s_addr == b4->sin_addr.s_addr;
	case AF_INET6:
		return a6->sin6_port == b6->sin6_port &&
		       a6->sin6_scope_id == b6->sin6_scope_id &&
		       memcmp(&a6->sin6_addr, &b6->sin6_addr,
			      sizeof(a6->sin6_addr)) == 0;
	default:
		return false;
	}
}

void sockaddr_to_vtoe(const struct sockaddr_storage *in, struct vtoe_addr *out)
{
	const struct sockaddr_in *in4 = (const struct sockaddr_in *)in;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)in;

	memset(out, 0, sizeof(*out));
	switch (in->ss_family) {
	case AF_INET:
		out->family = 4;
		out->port = in4->sin_port;
		memcpy(out->addr, &in4->sin_addr, sizeof(in4->sin_addr));
		break;
	case AF_INET6:
		out->family = 6;
		out->port = in6->sin6_port;
		out->scope = htole32(in6->sin6_scope_id);
		memcpy(out->addr, &in6->sin6_addr, sizeof(in6->sin6_addr));
		break;
	}
}

int sockaddr_from_vtoe(const struct vtoe_addr *in, struct sockaddr_storage *out)
{
	struct sockaddr_in *out4 = (struct sockaddr_in *)out;
	struct sockaddr_in6 *out6 = (struct sockaddr_in6 *)out;

	memset(out, 0, sizeof(*out));
	switch (in->family) {
	case 4:
		out4->sin_family = AF_INET;
		out4->sin_port = in->port;
		memcpy(&out4->sin_addr, in->addr, sizeof(out4->sin_addr));
		return 0;
	case 6:
		out6->sin6_family = AF_INET6;
		out6->sin6_port = in->port;
		out6->sin6_scope_id = le32toh(in->scope);
		memcpy(&out6->sin6_addr, in->addr, sizeof(out6->sin6_addr));
		return 0;
	default:
		return -EINVAL;
	}
}
