// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The VTOE ABI on real verbs: two processes, each a "host" with a guest (its
 * own shared memory, a user-space driver on real rings: guest.c) and an agent
 * (agent.c, lane.c) that serves those rings with queue pairs on shared receive
 * queues. This file starts them, has them play the scenes of spike.h at once,
 * and prints TAP.
 *
 * Usage: verbs_spike ADDRESS0 ADDRESS1 RDMA-DEVICE
 *
 * That no receive queue ever ran dry is asserted in three ways: rnr_retry is 0,
 * so one case would break a queue pair; the device's counters do not move; and
 * at the end they do move when a queue is run dry on purpose.
 */
#include "spike.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

/* Orders to a host beyond the scenes. */
enum { STEP_START = 100, STEP_SINK, STEP_BLAST, STEP_TEARDOWN };

/* The kernel keeps the values of hw_counters for a "lifespan" of 10 ms. */
#define COUNTERS_AGE_US 100000

struct answer {
	bool ok;
	uint32_t value;
	char fault[200], info[300];
};

static const char *device;
static unsigned int tests;
static bool failed;

static bool result(bool ok, const char *name)
{
	printf("%sok %u - %s\n", ok ? "" : "not ", ++tests, name);
	fflush(stdout);
	failed |= !ok;
	return ok;
}

static long counter(const char *name)
{
	char path[160];
	long value = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/infiniband/%s/ports/1/hw_counters/%s", device, name);
	file = fopen(path, "r");
	if (!file)
		return -1;
	if (fscanf(file, "%ld", &value) != 1)
		value = -1;
	fclose(file);
	return value;
}

static bool old_rxe(void)
{
	struct utsname name;

	return !uname(&name) && !strncmp(name.release, "6.1.", 4);
}

static void host_main(int host, const char *local, const char *remote, int sock)
{
	struct agent_config config = { .local = local, .remote = remote, .device = device };
	struct guest *guest = guest_create(host, &config);
	struct agent *agent = NULL;
	unsigned int step;

	while (recv(sock, &step, sizeof(step), 0) == sizeof(step)) {
		struct answer answer = { 0 };
		const char *fault = NULL;

		switch (step) {
		case STEP_START:
			agent = guest ? agent_start(&config) : NULL;
			fault = agent ? NULL : "it does not start";
			break;
		case STEP_SINK:
			fault = agent_order(agent, AGENT_SINK, NULL);
			break;
		case STEP_BLAST:
			fault = agent_order(agent, AGENT_BLAST, &answer.value);
			break;
		case STEP_TEARDOWN:
			fault = agent_order(agent, AGENT_TEARDOWN, NULL);
			answer.value = agent_get_stats(agent)->last_wqe_events;
			agent_join(agent);
			break;
		default:
			fault = guest_scene(guest, agent, step, answer.info, sizeof(answer.info));
		}
		answer.ok = !fault;
		if (fault)
			snprintf(answer.fault, sizeof(answer.fault), "%s", fault);
		if (send(sock, &answer, sizeof(answer), 0) < 0)
			break;
	}
	exit(0);
}

/* Has both hosts (mask 3), or one, do a step; prints what they say. */
static bool play(const int *sock, unsigned int mask, unsigned int step, struct answer *answer)
{
	bool ok = true;
	int i;

	for (i = 0; i < 2; i++)
		if (mask & 1u << i && send(sock[i], &step, sizeof(step), MSG_NOSIGNAL) < 0)
			ok = false;
	for (i = 0; i < 2; i++) {
		if (!(mask & 1u << i))
			continue;
		memset(&answer[i], 0, sizeof(answer[i]));
		if (recv(sock[i], &answer[i], sizeof(answer[i]), 0) != sizeof(answer[i]))
			snprintf(answer[i].fault, sizeof(answer[i].fault), "the host has died");
		if (answer[i].fault[0])
			printf("# host %d: %s\n", i, answer[i].fault);
		if (answer[i].info[0])
			printf("# host %d: %s\n", i, answer[i].info);
		ok &= answer[i].ok;
	}
	return ok;
}

int main(int argc, char **argv)
{
	static const char *const names[] = {
#define X(name, text) text,
		SCENES(X)
#undef X
	};
	static const char *const rnr[] = { "send_rnr_err", "rcvd_rnr_err", "retry_rnr_exceeded_err" };
	const struct rlimit unlimited = { RLIM_INFINITY, RLIM_INFINITY };
	struct answer answer[2];
	int sock[2], pair[2], i;
	double start = now_s(), began;
	unsigned int step;
	long count = 0;
	bool ok = true;
	pid_t pid[2];

	if (argc != 4) {
		fprintf(stderr, "usage: verbs_spike ADDRESS0 ADDRESS1 RDMA-DEVICE\n");
		return 2;
	}
	device = argv[3];
	setrlimit(RLIMIT_MEMLOCK, &unlimited);
	for (i = 0; i < 2; i++) {
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
			return 2;
		fflush(stdout);
		pid[i] = fork();
		if (!pid[i]) {
			close(pair[0]);
			if (i)
				close(sock[0]);
			host_main(i, argv[1 + i], argv[2 - i], pair[1]);
		}
		close(pair[1]);
		sock[i] = pair[0];
	}
	/* Host 0 listens before host 1 connects. */
	ok = play(sock, 1, STEP_START, answer) && play(sock, 2, STEP_START, answer);
	for (step = 0; step < SCENE_COUNT && ok; step++) {
		began = now_s();
		ok = play(sock, 3, step, answer);
		printf("# %.1f s\n", now_s() - began);
		result(ok, names[step]);
	}
	usleep(COUNTERS_AGE_US);
	for (i = 0; i < 3; i++) {
		long value = counter(rnr[i]);

		if (value)
			printf("# %s: %ld\n", rnr[i], value);
		count += value < 0 ? 1 : value;
	}
	printf("# out_of_seq_request %ld, duplicate_request %ld, completer_retry_err %ld\n",
	       counter("out_of_seq_request"), counter("duplicate_request"), counter("completer_retry_err"));
	result(ok && !count, "no message ever found a receive queue empty");
	if (ok) {
		ok = play(sock, 1, STEP_SINK, answer) && play(sock, 2, STEP_BLAST, answer);
		usleep(COUNTERS_AGE_US);
		printf("# %u messages taken; %s %ld, %s %ld\n", answer[1].value, rnr[0], counter(rnr[0]),
		       rnr[2], counter(rnr[2]));
		result(ok && answer[1].value == SMALL_BUFS && counter(rnr[0]) > 0,
		       "and it would have shown: a queue run dry on purpose");
	}
	if (ok) {
		ok = play(sock, 3, STEP_TEARDOWN, answer);
		printf("# LAST_WQE_REACHED on %u and %u queue pairs\n", answer[0].value, answer[1].value);
		if (ok && !answer[0].value && !answer[1].value && old_rxe())
			result(ok, "queue pairs leave the shared queues after LAST_WQE_REACHED"
				   " # skip rxe of Linux 6.1 does not raise it");
		else
			result(ok && answer[0].value == 2 * N_LANES && answer[1].value == 2 * N_LANES,
			       "queue pairs leave the shared queues after LAST_WQE_REACHED");
	}
	for (i = 0; i < 2; i++) {
		close(sock[i]);
		if (!ok)
			kill(pid[i], SIGKILL);
		waitpid(pid[i], NULL, 0);
	}
	printf("1..%d\n# %.1f s in all\n", SCENE_COUNT + 3, now_s() - start);
	return failed || tests != SCENE_COUNT + 3;
}
