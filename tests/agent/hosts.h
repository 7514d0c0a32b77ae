/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Agents for a test: each a process of its own, made from the code under test
 * (or of a given program), on 127.0.0.N.
 */
#ifndef AGENT_HOSTS_H
#define AGENT_HOSTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "vnet_vtoe.h"

struct test_agent {
	pid_t pid;
	unsigned int number; /* listens on number in agent_net() */
	uint16_t port;
	char dir[64];
	char socket[96];
	char log[96];
	struct vtoe_addr addr; /* for RESOLVE_REPLY */
};

/* 127.0.0.0, or what AGENT_NET says. */
uint32_t agent_net(void);

#define TEST_KEY "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"
#define OTHER_KEY "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

/*
 * extra: more lines of configuration, e.g. "fabric tcp\n"; @ in them is the
 * agent's number. program: NULL for
 * the code linked into this test. 0 or -errno.
 */
int agent_start(struct test_agent *agent, unsigned int number, const char *key,
		const char *extra, const char *program);
/* SIGTERM; its exit status, or -1 if a signal ended it. */
int agent_stop(struct test_agent *agent);
void agent_kill(struct test_agent *agent); /* SIGKILL of the main process */
/* Waits until the log has text; false: it did not come. */
bool agent_logged(const struct test_agent *agent, const char *text);
/* A counter of a VM, as SIGUSR1 prints it now; -1: it did not come. */
long long agent_vm_counter(const struct test_agent *agent, const char *vm,
			   const char *key);
/* The same of the lanes over a fabric that are up, all of them together. */
long long agent_lanes_counter(const struct test_agent *agent,
			      const char *fabric, const char *key);
/* Processes of the agent (main and tenants) and their descriptors. */
unsigned int agent_processes(const struct test_agent *agent, unsigned int *fds);
/* The tenants' processes alone. */
unsigned int agent_tenants(const struct test_agent *agent, pid_t *pid,
			   unsigned int max);
/* What each of them may have of those; UINT_MAX: what it had at first. */
void agent_limit_files(const struct test_agent *agent, unsigned int max);
/* What they have used of the CPU. */
unsigned int agent_cpu_ms(const struct test_agent *agent);
void agent_show_log(const struct test_agent *agent);

#endif /* AGENT_HOSTS_H */
