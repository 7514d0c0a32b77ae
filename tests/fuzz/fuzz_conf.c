// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Any bytes as a configuration file whose directives use every word parser. What
 * a parser accepts must survive being formatted and parsed again.
 */
#include <string.h>

#include "conf.h"
#include "fuzz.h"

static int parse_number(const struct conf_line *line, void *ctx)
{
	uint32_t value = 0;

	if (conf_u32(line, "number", line->argv[1], 5, 1000, &value))
		return -1;
	must(value >= 5 && value <= 1000);
	return 0;
}

static int parse_mac(const struct conf_line *line, void *ctx)
{
	uint8_t mac[VNET_MAC_LEN];

	return conf_mac(line, line->argv[1], mac);
}

static int parse_addr(const struct conf_line *line, void *ctx)
{
	struct sockaddr_storage addr, again, from_vtoe;
	char buf[SOCKADDR_STRLEN];
	struct vtoe_addr vtoe;

	if (conf_sockaddr(line, line->argv[1], 7470, &addr))
		return -1;
	sockaddr_format(&addr, buf);
	must(!conf_sockaddr(line, buf, 0, &again));
	must(sockaddr_equal(&addr, &again));
	sockaddr_to_vtoe(&addr, &vtoe);
	must(!sockaddr_from_vtoe(&vtoe, &from_vtoe));
	must(sockaddr_equal(&addr, &from_vtoe));
	return 0;
}

static int parse_name(const struct conf_line *line, void *ctx)
{
	char name[VNET_NAME_LEN];

	if (conf_name(line, "name", line->argv[1], name))
		return -1;
	must(strcmp(name, line->argv[1]) == 0);
	return 0;
}

static int parse_path(const struct conf_line *line, void *ctx)
{
	char path[16];

	if (conf_path(line, "path", line->argv[1], path, sizeof(path)))
		return -1;
	must(strcmp(path, line->argv[1]) == 0);
	return 0;
}

static int parse_words(const struct conf_line *line, void *ctx)
{
	int i;

	must(line->argc >= 1 && line->argc <= CONF_WORDS_MAX);
	for (i = 0; i < line->argc; i++)
		must(!strpbrk(line->argv[i], "\"\n"));
	return 0;
}

static const struct conf_directive table[] = {
	{ "number", 1, 1, "N", parse_number },
	{ "mac", 1, 1, "MAC", parse_mac },
	{ "addr", 1, 1, "ADDRESS", parse_addr },
	{ "name", 1, 1, "NAME", parse_name },
	{ "path", 1, 1, "PATH", parse_path },
	{ "words", 0, CONF_WORDS_MAX, "[WORD...]", parse_words },
	{ NULL, 0, 0, NULL, NULL },
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	conf_parse_text("fuzz", (const char *)data, size, table, NULL);
	return 0;
}
