/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Two guests of tenant 7, on one host (fabric local) or on two (bed_fabric()),
 * that both listen on BED_PORT.
 */
#ifndef AGENT_BED_H
#define AGENT_BED_H

#include "hosts.h"
#include "stream.h"

#define BED_PORT 5001
#define BED_LISTENER 1
#define BED_TENANT 7

struct bed {
	struct test_agent agent[2];
	unsigned int agents;
	struct guest a, b; /* MACs 02:00:00:00:00:01 and :02 */
	uint16_t next_port;
	uint32_t msg_window[VNET_RWQ_CLASSES]; /* of new streams; 0: as stream_init() */
	uint32_t next_sid;
};

/* Between two agents: tcp, or what AGENT_FABRIC says. */
const char *bed_fabric(void);
unsigned int bed_fabric_id(void);

/* Also forgets all streams. */
bool bed_make(struct bed *bed, unsigned int agents,
	      const struct guest_options *opt, const char *extra);
/* The same with agents of a program, in place of the code linked in. */
bool bed_make_program(struct bed *bed, unsigned int agents,
		      const struct guest_options *opt, const char *extra,
		      const char *program);
/* Ends agent i, first of all the guests; its exit status. */
int bed_end(struct bed *bed, unsigned int i);
/* a of guest a connects to b of guest b; as stream_open(). */
int bed_open(struct bed *bed, struct stream *a, struct stream *b);
void bed_pump(struct bed *bed, int ms); /* both guests, for ms */
int stream_close(struct stream *s, unsigned int flags);

#endif /* AGENT_BED_H */
