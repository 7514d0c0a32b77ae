/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Both ends of connections as two guests' drivers hold them: grants and limits,
 * offsets, and a pattern by which every received byte is checked against its
 * place in its stream.
 */
#ifndef AGENT_STREAM_H
#define AGENT_STREAM_H

#include "guest.h"

struct stream {
	struct guest *g;
	uint32_t sid, cid;
	uint32_t seed;	/* of what this end sends */
	struct stream *peer; /* whose seed is expected */
	/* to the peer */
	uint64_t tx, tx_limit, tx_acked;
	uint32_t tx_msgs[VNET_RWQ_CLASSES], tx_msg_limit[VNET_RWQ_CLASSES];
	/* from the peer */
	uint64_t rx, window; /* rx: everything below has come */
	uint32_t msg_window[VNET_RWQ_CLASSES], rx_msgs[VNET_RWQ_CLASSES];
	/* came before their turn: classes overtake each other */
	struct { uint64_t offset; uint32_t len; } early[64];
	unsigned int early_count;
	uint64_t credited; /* rx at the last update sent */
	uint32_t credited_msgs;
	unsigned int wrong; /* bytes or offsets */
	bool unchecked; /* do not look at the payload (benchmarks) */
	bool hold;	/* grant nothing more */
	bool fin, broken;
	uint64_t final;
	uint32_t reason;
	uint32_t event; /* type of the event that broke it */
};

#define WINDOW (1u << 20)
#define SMALL_WINDOW 32
#define LARGE_WINDOW 16

/* Forgets all streams. */
void streams_reset(void);
/* What CONNECT and ACCEPT grant for a new stream. */
struct vtoe_credit stream_grant(const struct stream *s);
void stream_init(struct stream *s, struct guest *g, uint32_t sid, struct stream *peer);
/*
 * a connects from `guest a` to a listener on port of `guest b`, b accepts.
 * Listener SID is `listener`. 0, or an event type / -1.
 */
int stream_open(struct stream *a, struct stream *b, uint32_t listener,
		uint16_t port, uint16_t from_port);
/* Takes what came to g, for all of its streams; other events stay for others. */
bool streams_pump(struct guest *g, int ms);
bool stream_may_send(const struct stream *s, uint32_t len);
/* Queues len bytes of the pattern; false: no credit or no buffer now. */
bool stream_send(struct stream *s, uint32_t len);
void stream_header(const struct stream *s, struct vtoe_msg_hdr *hdr,
		   unsigned int type, uint32_t len);
void stream_credit(struct stream *s); /* sends an update now */
/* Sends total bytes each way, random sizes up to max; true: all arrived, right. */
bool stream_exchange(struct stream *a, struct stream *b, uint64_t total,
		     uint32_t max);
/* Pumps both until cond of s, or 4 s. */
bool stream_wait_fin(struct stream *s);
bool stream_wait_broken(struct stream *s);

uint8_t pattern(uint32_t seed, uint64_t offset);

#endif /* AGENT_STREAM_H */
