// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The counters as one line of JSON, put together in memory and written with one
 * call, as log.c does for lines that fit its buffer. Names of VMs and links are
 * checked by the configuration parser, so that nothing needs quoting here.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "shim.h"

static void put(FILE *out, const char *name, uint64_t value)
{
	fprintf(out, ",\"%s\":%" PRIu64, name, value);
}

static void put_links(FILE *out, const struct shim *shim)
{
	unsigned int i;

	fputs(",\"links\":[", out);
	for (i = 0; i < shim->links.count; i++) {
		const struct shim_link *link = &shim->links.link[i];

		fprintf(out, "%s{\"name\":\"%s\"", i ? "," : "",
			link->conf->name);
		put(out, "tx_datagrams", link->tx_datagrams);
		put(out, "tx_bytes", link->tx_bytes);
		put(out, "rx_datagrams", link->rx_datagrams);
		put(out, "rx_bytes", link->rx_bytes);
		fputc('}', out);
	}
	fputc(']', out);
}

static void put_queues(FILE *out, const struct shim *shim)
{
	unsigned int i;

	fputs(",\"queues\":[", out);
	for (i = 0; i < shim->queue_count; i++) {
		const struct shim_queue *q = &shim->queue[i];
		const struct virtq_stats *s = &q->vq.stats;

		fprintf(out, "%s{\"queue\":%u,\"kind\":\"%s\",\"state\":\"%s\"",
			i ? "," : "", i, shim_queue_kind_name(q->kind),
			shim_queue_state_name(q->state));
		put(out, "chains", s->chains);
		put(out, "malformed", s->malformed);
		put(out, "kicks", s->kicks);
		put(out, "rings", s->rings);
		put(out, "calls", s->calls);
		put(out, "calls_suppressed", s->calls_suppressed);
		fputc('}', out);
	}
	fputc(']', out);
}

void shim_stats_dump(const struct shim *shim)
{
	const struct loop_stats *loop = loop_get_stats(shim->loop);
	char *line = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&line, &size);

	if (!out) {
		log_err("vm %s: no memory for the statistics", shim->conf->vm);
		return;
	}
	fprintf(out, "vnet-shim: vm %s: stats {\"vm\":\"%s\"", shim->conf->vm,
		shim->conf->vm);
	put(out, "loop_sleeps", loop->sleeps);
	put(out, "loop_spins", loop->spins);
#define X(name) put(out, #name, shim->stats.name);
	SHIM_COUNTERS(X)
#undef X
	put(out, "generation", shim->dev.generation);
	put(out, "vtoe_state", shim->dev.vtoe_state);
	put(out, "vtoe_epoch", shim->dev.vtoe_epoch);
	put_links(out, shim);
	put_queues(out, shim);
	fputs("}\n", out);
	/* nobody to tell if this fails */
	if (fclose(out) == 0 && write(STDERR_FILENO, line, size) < 0) {
	}
	free(line);
}
