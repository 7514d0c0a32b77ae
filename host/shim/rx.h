/* SPDX-License-Identifier: GPL-2.0-or-later */
/* From the links to the guest. */
#ifndef SHIM_RX_H
#define SHIM_RX_H

#include <stdbool.h>
#include <stdint.h>

#include "link.h"
#include "loop.h"
#include "window.h"
#include "wire.h"

struct shim;

/* A train whose first parts lie in the window, at its start. */
struct shim_rx_open {
	struct shim_sock *sock; /* NULL: none */
	struct shim_link *link;
	uint32_t id, len;
	uint16_t part_len;
	unsigned int next; /* part that comes next */
	uint8_t head[SHIM_HEAD_MAX];
	bool old; /* was there at the last tick */
};

/* Datagrams in our memory that wait to be delivered by copying. */
struct shim_rx_linear {
	struct shim_link *link; /* NULL: none */
	size_t bytes, at;
	uint16_t size;
	uint8_t *data; /* SHIM_RX_LINEAR_MAX bytes */
};
#define SHIM_RX_LINEAR_MAX 65536

/* One for each rx queue. */
struct shim_rx {
	struct shim *shim;
	struct shim_queue *queue;
	struct shim_window window;
	struct shim_rx_open open;
	struct shim_rx_linear linear;
	bool waiting; /* a socket is paused until there are buffers */
	bool force;   /* the guest had its time to post buffers: drop */
	struct loop_timer *stall_timer, *open_timer;
	bool open_timer_armed;
	uint32_t unsignalled; /* bytes delivered since the last interrupt decision */
};

/* What verification found about a frame that has arrived. */
struct shim_arrival {
	struct shim_link *link;
	struct shim_meta meta;
	const uint8_t *encap; /* our copy */
	uint16_t encap_len;
	const uint8_t *eth; /* our copy, SHIM_ETH_LEN bytes at least */
	uint32_t frame_len;
};

/* ---- rx.c: when to receive ---- */

int shim_rx_init(struct shim *shim);
void shim_rx_destroy(struct shim *shim);
/* The driver has set the queue up; stops using it. */
void shim_rx_start(struct shim *shim, unsigned int pair);
void shim_rx_stop(struct shim *shim, unsigned int pair);
/* Forgets what has arrived and is not delivered: the links change. */
void shim_rx_flush(struct shim *shim);
/* A socket is readable. */
void shim_rx_run(struct shim *shim, struct shim_sock *sock);
/* The guest has posted buffers that we asked for. */
void shim_rx_kicked(struct shim *shim, unsigned int pair);
/* Watches sockets again that waited for buffers. */
void shim_rx_resume(struct shim *shim);

/* ---- rx_direct.c: recvmsg() into the guest's buffers ---- */

/* 1: something came, 0: nothing, -errno. */
int shim_rx_direct(struct shim_rx *rx, struct shim_sock *sock);
/* Moves the open train to the reassembly table. */
void shim_rx_close_open(struct shim_rx *rx);

/* ---- rx_linear.c: receiving by copying ---- */

/* As shim_rx_direct(), into our memory. */
int shim_rx_receive_linear(struct shim_rx *rx, struct shim_sock *sock);
/* Delivers what waits there. False: the guest must post buffers first. */
bool shim_rx_run_linear(struct shim_rx *rx);

/* ---- rx_deliver.c: checks, and the guest's header ---- */

/* A train of form whole; head holds its first bytes, head_len of them. False:
 * dropped and counted. */
bool shim_rx_verify_whole(struct shim *shim, const uint8_t *head,
			  uint32_t head_len, uint32_t train_len,
			  struct shim_arrival *a);
/* A datagram of form segmented. */
bool shim_rx_verify_segment(struct shim *shim, const uint8_t *bytes,
			    uint32_t len, struct shim_arrival *a);
/* The driver left this frame's checksum to be completed by us. */
bool shim_rx_needs_checksum(const struct shim *shim,
			    const struct shim_arrival *a);
/* Bytes in front of the Ethernet header in the guest's buffer. */
uint32_t shim_rx_lead(const struct shim *shim, uint16_t encap_len);
/* The frame's other bytes are in place in the window: writes the headers, gives
 * it to the guest. */
void shim_rx_deliver(struct shim_rx *rx, const struct shim_arrival *a);
/* Copies a whole frame to the guest; may complete its checksum in place. False:
 * not enough buffers. */
bool shim_rx_deliver_copy(struct shim_rx *rx, struct shim_arrival *a,
			  uint8_t *frame);

#endif /* SHIM_RX_H */
