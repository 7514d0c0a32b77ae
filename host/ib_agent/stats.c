// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Counters of a data-plane process as one JSON line on stderr, for SIGUSR1.
 *
 * Names of VMs are printable and without blanks (the attach messages are
 * checked for that), but may hold a quote or a backslash: escaped here.
 */
#include "agent.h"
#include "lane.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *const drop_names[] = {
#define X(name, str) [IBA_DROP_##name] = str,
	IBA_DROPS(X)
#undef X
};
_Static_assert(sizeof(drop_names) / sizeof(drop_names[0]) == IBA_DROP_COUNT,
	       "a drop without a name");

static void print_string(FILE *out, const char *s)
{
	fputc('"', out);
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			fputc('\\', out);
		fputc(*s, out);
	}
	fputc('"', out);
}

static void print_drops(FILE *out, const uint64_t drops[IBA_DROP_COUNT])
{
	const char *comma = "";

	fputs("\"drops\":{", out);
	for (unsigned int i = 0; i < IBA_DROP_COUNT; i++) {
		if (!drops[i])
			continue;
		fprintf(out, "%s\"%s\":%llu", comma, drop_names[i],
			(unsigned long long)drops[i]);
		comma = ",";
	}
	fputc('}', out);
}

#define FIELD(out, stats, field) \
	fprintf(out, "\"" #field "\":%llu,", (unsigned long long)(stats)->field)

static void print_queue(FILE *out, const char *name, const struct virtq *vq)
{
	fprintf(out, "\"%s\":{\"chains\":%llu,\"kicks\":%llu,\"calls\":%llu,\"calls_suppressed\":%llu,\"malformed\":%llu},",
		name, (unsigned long long)vq->stats.chains,
		(unsigned long long)vq->stats.kicks,
		(unsigned long long)vq->stats.calls,
		(unsigned long long)vq->stats.calls_suppressed,
		(unsigned long long)vq->stats.malformed);
}

static void print_vm(FILE *out, const struct iba_vm *vm)
{
	const struct iba_vm_stats *s = &vm->stats;

	fputs("{\"name\":", out);
	print_string(out, vm->name);
	fprintf(out, ",\"connections\":%u,", vm->conn_count);
	FIELD(out, s, cmds);
	FIELD(out, s, cmd_errors);
	FIELD(out, s, events);
	FIELD(out, s, opened);
	FIELD(out, s, accepted);
	FIELD(out, s, failed);
	FIELD(out, s, closed);
	FIELD(out, s, gave_way);
	FIELD(out, s, tx_msgs);
	FIELD(out, s, tx_bytes);
	FIELD(out, s, tx_credits);
	FIELD(out, s, tx_throttled);
	FIELD(out, vm, tx_queued);
	FIELD(out, s, rx_msgs);
	FIELD(out, s, rx_bytes);
	FIELD(out, s, rx_held);
	print_queue(out, "cr", &vm->queue[IBA_Q_CR].vq);
	print_queue(out, "eq", &vm->queue[IBA_Q_EQ].vq);
	print_queue(out, "swq", &vm->queue[IBA_Q_SWQ].vq);
	print_queue(out, "rwq_small", &vm->queue[IBA_Q_RWQ + VNET_RWQ_SMALL].vq);
	print_queue(out, "rwq_large", &vm->queue[IBA_Q_RWQ + VNET_RWQ_LARGE].vq);
	print_drops(out, s->drops);
	fputc('}', out);
}

static void print_lane(FILE *out, const struct iba_lane *lane)
{
	const struct iba_lane_stats *s = &lane->stats;

	fputs("{\"peer\":", out);
	print_string(out, lane->name);
	fprintf(out, ",\"fabric\":\"tcp\",\"state\":\"%s\",", iba_lane_state_name(lane->state));
	FIELD(out, s, tx_msgs);
	FIELD(out, s, tx_bytes);
	FIELD(out, s, tx_calls);
	FIELD(out, s, tx_blocked);
	FIELD(out, s, rx_msgs);
	FIELD(out, s, rx_bytes);
	FIELD(out, s, rx_calls);
	FIELD(out, s, rx_staged);
	fprintf(out, "\"queued\":%u}", lane->tx.count);
}

/* Whole: the watchdog (tenant.c) interrupts who waits for stderr's reader. */
static void write_all(const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(STDERR_FILENO, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			log_err("statistics: cannot write");
			return;
		}
		text += n;
		len -= (size_t)n;
	}
}

void iba_stats_print(const struct iba_tenant *t)
{
	const struct loop_stats *loop = loop_get_stats(t->loop);
	const struct iba_lane *lane;
	const struct iba_vm *vm;
	const char *comma = "";
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return;
	fprintf(out, "{\"process\":\"tenant\",\"tenant\":%u,\"sleeps\":%llu,\"spins\":%llu,\"vms\":[",
		t->id, (unsigned long long)loop->sleeps,
		(unsigned long long)loop->spins);
	TAILQ_FOREACH(vm, &t->vms, link) {
		fputs(comma, out);
		print_vm(out, vm);
		comma = ",";
	}
	fputs("],\"lanes\":[", out);
	comma = "";
	TAILQ_FOREACH(lane, &t->lanes, link) {
		fputs(comma, out);
		print_lane(out, lane);
		comma = ",";
	}
	iba_verbs_print(t, out, comma);
	fputs("],", out);
	print_drops(out, t->drops);
	fputs("}\n", out);
	if (fclose(out) == 0)
		write_all(text, len);
	free(text);
}
