/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A VM as the agent sees it, played by a test: the shim's half of an attachment
 * (memory, queues, answers to RESOLVE) and a driver of the VTOE queues.
 *
 * One thread a guest. Everything that the agent does to the guest arrives in
 * guest_poll(), which the waiting functions call: events and messages are kept
 * in order until the test takes them.
 */
#ifndef AGENT_GUEST_H
#define AGENT_GUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "ring_driver.h"
#include "unix_msg.h"
#include "vnet_attach.h"
#include "vnet_peer.h"
#include "vnet_vtoe.h"

enum { G_CR, G_EQ, G_SWQ, G_RWQ, G_QUEUES = G_RWQ + VNET_RWQ_CLASSES };

#define G_SMALL 2048u
#define G_LARGE 65536u
/* For what must come: 4000, or AGENT_WAIT_MS where all is slow. */
int guest_wait_ms(void);
/* In ms, to wait by: what the test itself has stood still is not in it. */
int64_t guest_clock_ms(void);

/* A piece of guest memory that goes round through a ring. */
struct gbuf {
	uint8_t *at;
	uint64_t gpa;
	uint32_t room;
	unsigned int class;
	bool busy;
};

struct gmsg {
	struct vtoe_msg_hdr hdr;
	struct gbuf *buf; /* payload is behind the header in it */
};

struct guest_options {
	uint16_t swq_num, rwq_num[VNET_RWQ_CLASSES];
	uint32_t eq_buffers;
	uint32_t rwq_posted[VNET_RWQ_CLASSES];
	bool no_event_idx;
	bool pages; /* buffers of 4 KB pieces, as a kernel's */
	bool no_hello; /* of the driver */
	bool balloon; /* the VM has one */
};

struct guest {
	char name[VNET_NAME_LEN];
	uint8_t mac[VNET_MAC_LEN];
	uint32_t tenant;
	struct guest_options opt;
	struct ring_memory mem;
	struct ring_driver q[G_QUEUES];
	int fd;		/* attachment, -1: gone */
	int inflight;
	uint32_t seq;
	/* shim: where every MAC is; reason: it is nowhere; mute: no answer */
	struct vtoe_addr route;
	uint32_t route_reason;
	bool mute;
	unsigned int resolves;
	uint32_t resolve_seq; /* of the last */
	bool eof;
	/* driver */
	uint64_t cmd_gpa;
	struct gbuf *rwq_buf[VNET_RWQ_CLASSES], *swq_buf, *eq_buf;
	uint32_t swq_next;
	bool wants_buffer;
	bool cmd_done;
	uint32_t cmd_len;
	struct vtoe_event events[4096];
	uint32_t ev_in, ev_out;
	struct gmsg msgs[4096];
	uint32_t msg_in, msg_out;
	unsigned int eq_returned, rwq_returned; /* with length 0 */
	bool leaving; /* does not post event buffers again */
	struct vtoe_reply hello_reply;
};

/* Attaches and says HELLO on both levels. 0, or -errno / the reason refused. */
int guest_start(struct guest *g, const char *socket_path, const char *name,
		uint32_t tenant, uint8_t mac_last, const struct guest_options *opt);
/* QUEUE_START with these descriptors, QUEUE_STOP: the status, or -errno. */
int guest_queue_start(struct guest *g, int i, int kick_fd, int call_fd);
int guest_queue_stop(struct guest *g, int i);
/* As a shim whose machine is stopped, and continued: queues, then memory. */
int guest_rest(struct guest *g);
int guest_go_on(struct guest *g);
/* The VM goes: end of file for the agent. */
void guest_stop(struct guest *g);

/* Sees what is new; sleeps up to ms if nothing is. True: something was. */
bool guest_poll(struct guest *g, int ms);

/* A command and its answer; the status, or -1 if none came. */
int guest_command(struct guest *g, const struct vtoe_cmd *cmd,
		  struct vtoe_reply *reply);
int guest_simple(struct guest *g, unsigned int opcode, uint32_t sid,
		 unsigned int flags);
int guest_listen(struct guest *g, uint32_t sid, const struct vtoe_addr *local);
int guest_connect(struct guest *g, uint32_t sid, const struct vtoe_addr *local,
		  const struct vtoe_addr *remote, uint8_t mac_last,
		  const struct vtoe_credit *credit);
int guest_accept(struct guest *g, uint32_t cid, uint32_t sid,
		 const struct vtoe_credit *credit);
int guest_shutdown(struct guest *g, uint32_t sid, uint64_t final_offset);

/* The next event, but CREDIT events only if type asks for them. False: none came. */
bool guest_event(struct guest *g, struct vtoe_event *ev);
bool guest_wait_event(struct guest *g, unsigned int type, struct vtoe_event *ev);
/* The next message; give it back with guest_release(). */
bool guest_message(struct guest *g, struct gmsg *msg, int ms);
void guest_release(struct guest *g, const struct gmsg *msg); /* posts it again */

/* A free send buffer, waiting for one if need be; NULL: none came. */
struct gbuf *guest_send_buffer(struct guest *g);
/* Header and len bytes of it go into the SWQ; visible after guest_kick(). */
void guest_queue(struct guest *g, struct gbuf *buf, const struct vtoe_msg_hdr *hdr,
		 uint32_t chain_len);
void guest_kick(struct guest *g, unsigned int queue);

/* Buffers that the agent has. */
unsigned int guest_busy(const struct guest *g);

struct vtoe_addr addr4(uint8_t host, uint16_t port); /* 10.0.0.host */
struct vtoe_credit credit_of(uint64_t ack, uint64_t bytes, uint32_t small,
			     uint32_t large);

#endif /* AGENT_GUEST_H */
