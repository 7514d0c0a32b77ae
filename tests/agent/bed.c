// SPDX-License-Identifier: GPL-2.0-or-later
/* See bed.h. */
#include "bed.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *bed_fabric(void)
{
	const char *fabric = getenv("AGENT_FABRIC");

	return fabric ? fabric : "tcp";
}

unsigned int bed_fabric_id(void)
{
	return strstr(bed_fabric(), "verbs") ? VTOE_FABRIC_VERBS :
						VTOE_FABRIC_TCP;
}

bool bed_make(struct bed *bed, unsigned int agents,
	      const struct guest_options *opt, const char *extra)
{
	return bed_make_program(bed, agents, opt, extra, NULL);
}

bool bed_make_program(struct bed *bed, unsigned int agents,
		      const struct guest_options *opt, const char *extra,
		      const char *program)
{
	const char *fabric = agents == 2 ? bed_fabric() : "local";
	struct vtoe_addr any = { .family = 4, .port = htons(BED_PORT) };
	char text[256];
	int ra, rb;

	streams_reset();
	memset(bed, 0, sizeof(*bed));
	bed->agents = agents;
	bed->next_port = 40000;
	bed->next_sid = 10;
	snprintf(text, sizeof(text), "fabric %s\n%s", fabric, extra);
	for (unsigned int i = 0; i < agents; i++)
		if (agent_start(&bed->agent[i], i + 1, TEST_KEY, text, program))
			return false;
	ra = guest_start(&bed->a, bed->agent[0].socket, "a", BED_TENANT, 1, opt);
	rb = guest_start(&bed->b, bed->agent[agents - 1].socket, "b",
			 BED_TENANT, 2, opt);
	bed->a.route = bed->agent[agents - 1].addr;
	bed->b.route = bed->agent[0].addr;
	bed->a.route_reason = bed->b.route_reason = VTOE_REASON_NONE;
	return !ra && !rb && !guest_listen(&bed->b, BED_LISTENER, &any) &&
	       !guest_listen(&bed->a, BED_LISTENER, &any);
}

int bed_end(struct bed *bed, unsigned int i)
{
	if (i == 0) {
		guest_stop(&bed->a);
		guest_stop(&bed->b);
	}
	return agent_stop(&bed->agent[i]);
}

int bed_open(struct bed *bed, struct stream *a, struct stream *b)
{
	stream_init(a, &bed->a, bed->next_sid++, b);
	stream_init(b, &bed->b, bed->next_sid++, a);
	if (bed->msg_window[0])
		for (int c = 0; c < VNET_RWQ_CLASSES; c++)
			a->msg_window[c] = b->msg_window[c] = bed->msg_window[c];
	return stream_open(a, b, BED_LISTENER, BED_PORT, bed->next_port++);
}

void bed_pump(struct bed *bed, int ms)
{
	for (int i = 0; i < ms; i += 2) {
		streams_pump(&bed->a, 1);
		streams_pump(&bed->b, 1);
	}
}

int stream_close(struct stream *s, unsigned int flags)
{
	return guest_simple(s->g, VTOE_CMD_CLOSE, s->sid, flags);
}
