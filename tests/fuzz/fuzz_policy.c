// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: the policy file of libvnetsock, as text and as decisions.
 * No text may make it read or write out of bounds, store more rules than there
 * is room for, or say that a program's mode is constant when it is not.
 */
#include <netinet/in.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "vns.h"

#define RULES 32

static void on_bad_line(void *arg, unsigned int line, const char *message)
{
	size_t *messages = arg;

	if (!line || !*message || strchr(message, '\n'))
		abort();
	++*messages;
}

static void check_decisions(const struct vns_policy *p)
{
	static const uint8_t addrs[][16] = {
		{ 0 }, { [15] = 1 }, { 0xfd, 0x00, 0x00, 0x77, [15] = 2 },
		{ [10] = 0xff, [11] = 0xff, 192, 168, 77, 2 },
	};
	static const uint16_t ports[] = { 0, 22, 80, 6379, 65535 };
	int constant = vns_policy_constant(p), mode;
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6 };
	struct sockaddr_in in = { .sin_family = AF_INET };
	unsigned int dir;
	size_t i, j;

	for (i = 0; i < sizeof(addrs) / sizeof(addrs[0]); i++) {
		for (j = 0; j < sizeof(ports) / sizeof(ports[0]); j++) {
			for (dir = VNS_DIR_CONNECT; dir <= VNS_DIR_LISTEN; dir++) {
				memcpy(&in6.sin6_addr, addrs[i], 16);
				in6.sin6_port = htons(ports[j]);
				mode = vns_policy_decide(p, dir, (void *)&in6, sizeof(in6));
				if (constant >= 0 && mode != constant)
					abort();
				memcpy(&in.sin_addr, addrs[i] + 12, 4);
				in.sin_port = htons(ports[j]);
				mode = vns_policy_decide(p, dir, (void *)&in, sizeof(in));
				if (constant >= 0 && mode != constant)
					abort();
			}
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct vns_program program = {
		"/usr/bin/python3.11", "python3",
	};
	struct vns_rule rules[RULES];
	struct vns_policy p = { .rules = rules, .max = RULES, .log_level = -1 };
	size_t messages = 0;

	vns_policy_parse(&p, (const char *)data, size, &program, on_bad_line,
			 &messages);
	if (p.count > p.max ||
	    p.count + messages > vns_policy_lines((const char *)data, size))
		abort();
	if (p.log_level < -1 || p.log_level > VNS_LOG_CONNECTIONS ||
	    !memchr(p.log_file, '\0', sizeof(p.log_file)))
		abort();
	check_decisions(&p);
	return 0;
}
