// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How fast the agent is by itself: two guests that are threads of this program,
 * no kernel of a guest, no shim in the data path.
 *
 * usage: agent_bench [local|tcp]... [--program VNET-IBAGENT] [--seconds S]
 *                    [--pages] [--extra CONFIG-LINE]
 *
 * One JSON line a result. stream: one connection, 64 KB messages, Gbit/s; cpu:
 * seconds of the agents' processes for each GB of it; rr: one byte there and
 * back, median and 99th percentile in microseconds; connect: opened and closed
 * connections a second.
 */
#include <signal.h>
#include <endian.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "hosts.h"
#include "stream.h"
#include "tap.h"

#define PORT 5001
#define LISTENER 1
#define MESSAGE 65536u

static struct test_agent agents[2];
static unsigned int agent_count;
static struct guest ga, gb;
static struct stream sa, sb;
static atomic_bool stop;
static double seconds = 3;
static const char *program, *extra = "";
static bool pages;
static uint32_t next_sid = 10;
static uint16_t next_port = 30000;

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec * 1e-9;
}

/* CPU seconds of one process, without its children. */
static double cpu_of(int pid)
{
	char path[64], line[512], *p;
	unsigned long user = 0, system = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return 0;
	if (fgets(line, sizeof(line), f) && (p = strrchr(line, ')')))
		sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu",
		       &user, &system);
	fclose(f);
	return (double)(user + system) / (double)sysconf(_SC_CLK_TCK);
}

static double cpu_of_agents(void)
{
	double sum = 0;

	for (unsigned int i = 0; i < agent_count; i++) {
		char path[64];
		int pid;
		FILE *f;

		sum += cpu_of(agents[i].pid);
		snprintf(path, sizeof(path), "/proc/%d/task/%d/children",
			 agents[i].pid, agents[i].pid);
		f = fopen(path, "r");
		while (f && fscanf(f, "%d", &pid) == 1)
			sum += cpu_of(pid);
		if (f)
			fclose(f);
	}
	return sum;
}

static void open_pair(void)
{
	int ret;

	streams_reset();
	stream_init(&sa, &ga, next_sid++, &sb);
	stream_init(&sb, &gb, next_sid++, &sa);
	sa.unchecked = sb.unchecked = true;
	sa.window = sb.window = 4 << 20;
	sa.msg_window[1] = sb.msg_window[1] = 56;
	ret = stream_open(&sa, &sb, LISTENER, PORT, next_port++);
	if (ret) {
		note("event %d, reasons %u and %u", ret, sa.reason, sb.reason);
		bail_out("cannot connect");
	}
}

/* What they were told last is nothing to the next connection. */
static void close_pair(void)
{
	guest_simple(&ga, VTOE_CMD_CLOSE, sa.sid, 0);
	guest_simple(&gb, VTOE_CMD_CLOSE, sb.sid, 0);
	ga.ev_out = ga.ev_in;
	gb.ev_out = gb.ev_in;
}

static void result(const char *fabric, const char *metric, double value,
		   const char *unit)
{
	printf("{\"bench\":\"agent\",\"config\":\"%s\",\"metric\":\"%s\",\"value\":%.3f,\"unit\":\"%s\"}\n",
	       fabric, metric, value, unit);
}

/* ---- stream ---- */

static void *receiver(void *arg)
{
	(void)arg;
	while (!stop)
		streams_pump(&gb, 20);
	return NULL;
}

static void bench_stream(const char *fabric)
{
	double start, took, cpu;
	pthread_t thread;

	open_pair();
	stop = false;
	pthread_create(&thread, NULL, receiver, NULL);
	cpu = cpu_of_agents();
	start = now_s();
	while (now_s() - start < seconds) {
		unsigned int sent = 0;

		while (sent < 8 && stream_send(&sa, MESSAGE))
			sent++;
		if (sent)
			guest_kick(&ga, G_SWQ);
		streams_pump(&ga, sent ? 0 : 20);
	}
	while (sb.rx < sa.tx && now_s() - start < seconds + 5)
		streams_pump(&ga, 1);
	took = now_s() - start;
	cpu = cpu_of_agents() - cpu;
	stop = true;
	pthread_join(thread, NULL);
	if (sb.wrong || sb.rx != sa.tx)
		bail_out("stream went wrong");
	result(fabric, "stream", (double)sb.rx * 8e-9 / took, "Gbit/s");
	result(fabric, "cpu", cpu / ((double)sb.rx * 1e-9), "s/GB");
	close_pair();
}

/* ---- round trips ---- */

static void *echo(void *arg)
{
	uint64_t seen = 0;

	(void)arg;
	while (!stop) {
		streams_pump(&gb, 20);
		while (seen < sb.rx) {
			if (!stream_send(&sb, 1))
				break;
			seen++;
			guest_kick(&gb, G_SWQ);
		}
	}
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

#define TRIPS_MAX 2000000

static void bench_rr(const char *fabric)
{
	static double trip[TRIPS_MAX];
	unsigned int n = 0;
	pthread_t thread;
	double start;

	open_pair();
	stop = false;
	pthread_create(&thread, NULL, echo, NULL);
	start = now_s();
	while (now_s() - start < seconds && n < TRIPS_MAX) {
		double sent = now_s();
		uint64_t want = sa.rx + 1;

		if (!stream_send(&sa, 1))
			bail_out("no credit for a round trip");
		guest_kick(&ga, G_SWQ);
		while (sa.rx < want && now_s() - sent < 2)
			streams_pump(&ga, 20);
		if (sa.rx < want)
			bail_out("a round trip was lost");
		trip[n++] = (now_s() - sent) * 1e6;
	}
	stop = true;
	pthread_join(thread, NULL);
	qsort(trip, n, sizeof(*trip), by_value);
	result(fabric, "rr", trip[n / 2], "us");
	result(fabric, "rr_p99", trip[n - 1 - n / 100], "us");
	close_pair();
}

/* ---- connections ---- */

static void bench_connect(const char *fabric)
{
	double start = now_s();
	unsigned int n = 0;

	while (now_s() - start < seconds) {
		open_pair();
		close_pair();
		n++;
	}
	result(fabric, "connect", n / (now_s() - start), "1/s");
}

static void bench(const char *fabric)
{
	struct guest_options opt = {
		.swq_num = 64, .rwq_num = { 256, 64 }, .eq_buffers = 64,
		.rwq_posted = { 256, 64 }, .pages = pages,
	};
	struct vtoe_addr any = { .family = 4, .port = htobe16(PORT) };
	char text[256];

	agent_count = strcmp(fabric, "local") ? 2 : 1;
	snprintf(text, sizeof(text), "fabric %s\n%s\n", fabric, extra);
	for (unsigned int i = 0; i < agent_count; i++)
		if (agent_start(&agents[i], i + 1, TEST_KEY, text, program))
			bail_out("no agent");
	if (guest_start(&ga, agents[0].socket, "a", 7, 1, &opt) ||
	    guest_start(&gb, agents[agent_count - 1].socket, "b", 7, 2, &opt) ||
	    guest_listen(&gb, LISTENER, &any))
		bail_out("no guests");
	ga.route = agents[agent_count - 1].addr;
	gb.route = agents[0].addr;
	ga.route_reason = gb.route_reason = VTOE_REASON_NONE;
	bench_stream(fabric);
	bench_rr(fabric);
	bench_connect(fabric);
	if (getenv("AGENT_STATS")) {
		for (unsigned int i = 0; i < agent_count; i++) {
			kill(agents[i].pid, SIGUSR1);
			agent_logged(&agents[i], "\"process\":\"tenant\"");
			agent_show_log(&agents[i]);
		}
	}
	guest_stop(&ga);
	guest_stop(&gb);
	for (unsigned int i = 0; i < agent_count; i++)
		agent_stop(&agents[i]);
}

int main(int argc, char **argv)
{
	const char *fabrics[8];
	int n = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--program") && i + 1 < argc)
			program = argv[++i];
		else if (!strcmp(argv[i], "--seconds") && i + 1 < argc)
			seconds = atof(argv[++i]);
		else if (!strcmp(argv[i], "--extra") && i + 1 < argc)
			extra = argv[++i];
		else if (!strcmp(argv[i], "--pages"))
			pages = true;
		else if (n < 8)
			fabrics[n++] = argv[i];
	}
	if (!n) {
		fabrics[n++] = "local";
		fabrics[n++] = "tcp";
	}
	for (int i = 0; i < n; i++)
		bench(fabrics[i]);
	return 0;
}
