/* SPDX-License-Identifier: MIT */
/*
 * libvnetsock: the parts of the preload library, grouped by the file that
 * implements them.
 *
 *	preload.c	the interposed calls: socket, connect, listen, close
 *	setup.c		what a process finds out: real calls, environment, policy
 *	policy.c	the policy file: text -> rules, address -> mode
 *	log.c		which way each connection went, and what is wrong
 *	text.c		lines of text without stdio
 *
 * Everything here may run in a signal handler, before main(), in a thread and
 * after fork(): no malloc, no stdio, no locks, no thread-local storage.
 */
#ifndef VNS_H
#define VNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <time.h>

#include "vnet_sock.h"

#define VNS_POLICY_DEFAULT "/etc/vnet/policy.conf"
#define VNS_POLICY_MAX (1u << 20) /* bytes of a policy file */
#define VNS_PATH_LEN 256	  /* of a log file's name, NUL included */
#define VNS_EXPORT __attribute__((visibility("default")))

/* ---- text.c ---- */

/* A line in the making; what does not fit is cut. */
struct vns_text {
	size_t len;
	char buf[640];
};

void vns_put(struct vns_text *t, const char *s);
void vns_put_u(struct vns_text *t, unsigned long n);
/* s in double quotes, cut after 64 bytes, unprintable bytes as ?. */
void vns_put_quoted(struct vns_text *t, const char *s, size_t len);
/* ADDR:PORT or [ADDR6]:PORT, "?" for anything else. */
void vns_put_addr(struct vns_text *t, const struct sockaddr *sa, socklen_t len);
/* The system's words for an error number. */
void vns_put_error(struct vns_text *t, int err);
/* The text, NUL-terminated. */
const char *vns_text_end(struct vns_text *t);

/* ---- policy.c ---- */

#define VNS_DIR_CONNECT 1u
#define VNS_DIR_LISTEN 2u

#define VNS_LOG_OFF 0
#define VNS_LOG_ERRORS 1
#define VNS_LOG_CONNECTIONS 2

struct vns_rule {
	uint8_t mode;	/* VNET_MODE_* */
	uint8_t dirs;	/* mask of VNS_DIR_* */
	uint8_t family; /* 0 any address, 4, 6 */
	uint8_t prefix; /* bits of addr that count */
	uint16_t port_low, port_high; /* host byte order */
	uint8_t addr[16]; /* network byte order */
};

struct vns_policy {
	struct vns_rule *rules; /* those for this program, in file order */
	size_t count, max;	/* max is for the caller to set */
	int log_level;		/* VNS_LOG_*, -1: the file does not say */
	char log_file[VNS_PATH_LEN]; /* "": the file does not say */
	unsigned int reload;	/* look at the file again after so many seconds, 0: never */
};

/* What PROGRAM of a rule is compared with. */
struct vns_program {
	const char *exe;     /* path of the running file, "" if unknown */
	const char *invoked; /* last part of argv[0], "" if it must not count */
};

/* Told of each bad line. */
typedef void vns_bad_line(void *arg, unsigned int line, const char *message);

/* Adds the rules of a text to policy; a bad line is reported and left out. */
void vns_policy_parse(struct vns_policy *policy, const char *text, size_t len,
		      const struct vns_program *program, vns_bad_line *bad,
		      void *arg);
/* Rules that a text can have at most. */
size_t vns_policy_lines(const char *text, size_t len);

/* First match wins; no match is VNET_MODE_BOTH. */
int vns_policy_decide(const struct vns_policy *policy, unsigned int dir,
		      const struct sockaddr *sa, socklen_t len);
/* The mode of every connection of this program, -1 if it depends on addresses. */
int vns_policy_constant(const struct vns_policy *policy);

/* Words of the policy file and of the environment; -1: not one of them. */
int vns_mode_parse(const char *word, size_t len);
int vns_log_level_parse(const char *word, size_t len);
/* PROGRAM of a rule: * ? [a-z] [!a-z], over the whole of name. */
bool vns_glob(const char *glob, size_t glob_len, const char *name);

/* ---- setup.c ---- */

/* The calls below this library: libc's, or another preload library's. */
struct vns_next {
	int (*socket)(int domain, int type, int protocol);
	int (*connect)(int fd, const struct sockaddr *sa, socklen_t len);
	int (*listen)(int fd, int backlog);
	int (*close)(int fd);
};

/* Which file a policy came from, and in which state. */
struct vns_stamp {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec changed;
};

/* Constant: a policy that changes makes a new one. */
struct vns_config {
	struct vns_next next;
	bool offload;	/* ask for the family at all */
	bool steer;	/* some connection is not VNET_MODE_BOTH */
	int family;	/* AF_INET_VNET */
	int mode;	/* of every connection, -1: policy.rules say it */
	int log_level;	/* VNS_LOG_* */
	struct vns_policy policy;
	struct vns_stamp stamp;
	char log_file[VNS_PATH_LEN]; /* "": stderr */
	char program[32];
	dev_t stderr_dev; /* which file stderr was at the start */
	ino_t stderr_ino; /* 0: there was none */
};

/* Never NULL; sets the process up if that has not been done yet. A caller uses what it got. */
const struct vns_config *vns_config(void);

/* ---- log.c ---- */

/* "libvnetsock: PROGRAM[PID]: " */
void vns_log_start(const struct vns_config *c, struct vns_text *t);
/* Writes one line at the given level; keeps errno. */
void vns_log_line(const struct vns_config *c, int level, struct vns_text *t);
/* Reports which way fd runs, once per process, if it is a connection. */
void vns_log_path(const struct vns_config *c, int fd);
/* vns_log_path() for what a process leaves open when it ends. */
void vns_log_remaining(const struct vns_config *c);

#endif /* VNS_H */
