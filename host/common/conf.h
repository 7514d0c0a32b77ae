/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Line-based configuration files: one directive a line, words separated by
 * blanks, "..." around a word with blanks, # starts a comment. Errors name
 * file and line.
 */
#ifndef COMMON_CONF_H
#define COMMON_CONF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <netinet/in.h>

#include "vnet_attach.h"

#define CONF_WORDS_MAX 32

struct conf_line {
	const char *file;
	unsigned int number; /* from 1 */
	int argc;	     /* at least 1 */
	char *argv[CONF_WORDS_MAX]; /* valid during the callback */
};

/* A directive of a program's table; ends with name NULL. */
struct conf_directive {
	const char *name;
	int min_args, max_args; /* besides the name */
	const char *usage;	/* what follows the name, for messages */
	/* 0, or -EINVAL after conf_error(). */
	int (*parse)(const struct conf_line *line, void *ctx);
};

/*
 * Runs the table over a file. Goes on after an error, so that all of them are
 * reported. Returns 0, -EINVAL if any line was bad, -errno if it can't be read.
 */
int conf_parse_file(const char *path, const struct conf_directive *table,
		    void *ctx);

/* The same over text in memory (tests, fuzzing); name stands for the file. */
int conf_parse_text(const char *name, const char *text, size_t len,
		    const struct conf_directive *table, void *ctx);

/* Reports "file:line: ..." at LOG_ERR; returns -EINVAL. */
int conf_error(const struct conf_line *line, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/* Word parsers; what names the value in the message. 0 or -EINVAL, reported. */
int conf_u32(const struct conf_line *line, const char *what, const char *word,
	     uint32_t min, uint32_t max, uint32_t *out);
int conf_mac(const struct conf_line *line, const char *word,
	     uint8_t out[VNET_MAC_LEN]);
/* ADDR:PORT or [ADDR6]:PORT; default_port 0 means that the port is required. */
int conf_sockaddr(const struct conf_line *line, const char *word,
		  uint16_t default_port, struct sockaddr_storage *out);
int conf_name(const struct conf_line *line, const char *what, const char *word,
	      char out[VNET_NAME_LEN]);
int conf_path(const struct conf_line *line, const char *what, const char *word,
	      char *out, size_t out_size);

/* Formats for log lines; buf is returned. */
#define SOCKADDR_STRLEN 64
char *sockaddr_format(const struct sockaddr_storage *addr,
		      char buf[SOCKADDR_STRLEN]);
socklen_t sockaddr_len(const struct sockaddr_storage *addr);
/* Same family, address and port. */
bool sockaddr_equal(const struct sockaddr_storage *a,
		    const struct sockaddr_storage *b);
void sockaddr_to_vtoe(const struct sockaddr_storage *in, struct vtoe_addr *out);
/* -EINVAL if family is neither 4 nor 6. */
int sockaddr_from_vtoe(const struct vtoe_addr *in, struct sockaddr_storage *out);

#endif /* COMMON_CONF_H */
