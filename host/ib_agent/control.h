/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The main process: shims come in, tenants' processes are started, peers'
 * agents are talked to. It never touches a guest's memory or data.
 */
#ifndef IBA_CONTROL_H
#define IBA_CONTROL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include "accept.h"
#include "config.h"
#include "internal.h"
#include "log.h"
#include "loop.h"
#include "vnet_attach.h"
#include "vnet_peer.h"
#include "vnet_vtoe.h"

struct iba_shim;
struct iba_peer;
struct iba_tenant_proc;
struct iba_tls_ctx;

/* Who asked for a lane: numbers, since processes and peers come and go. */
struct iba_ask {
	uint64_t proc; /* iba_tenant_proc.id */
	uint32_t tenant;
	uint32_t seq; /* of the LANE_ASK */
	struct iba_lane_want want;
};

struct iba_control {
	const struct iba_config *cfg;
	struct loop *loop;
	/* control.c */
	struct iba_acceptor shim_in;
	struct log_ratelimit shim_log;
	struct loop_timer *tick;
	bool ticking;
	TAILQ_HEAD(, iba_shim) shims; /* HELLO not seen */
	unsigned int shim_count;
	TAILQ_HEAD(, iba_tenant_proc) procs, zombies;
	unsigned int proc_count; /* of both */
	uint64_t next_id; /* of processes, peers, questions */
	int signal_fd;
	struct loop_fd *signal_source;
	/* peer.c */
	struct log_ratelimit log_limit;
	struct iba_tls_ctx *tls;
	struct iba_acceptor peer_in;
	TAILQ_HEAD(, iba_peer) peers;
	unsigned int incoming; /* peers that have not said HELLO */
	struct {
		uint64_t shims_refused;
		uint64_t refused, handshake_failed, malformed; /* peers */
	} stats;
};

/* ---- control.c ---- */

/* Opens the listeners; the key has been loaded. 0 or -errno, logged. */
int iba_control_start(struct iba_control *c, const struct iba_config *cfg,
		      const uint8_t key[IBA_KEY_LEN]);
void iba_control_stop(struct iba_control *c);
void iba_control_need_tick(struct iba_control *c);
/* A peer's answer to what a tenant's process asked. */
void iba_control_lane_answer(struct iba_control *c, const struct iba_ask *ask,
			     const struct vnet_peer_lane_answer *answer);
/* A peer asks for a lane. 0: iba_peer_token_answer() follows; or why not. */
enum vtoe_reason iba_control_token_ask(struct iba_control *c, uint32_t tenant,
				       const struct iba_lane_want *want,
				       const struct sockaddr_storage *source,
				       uint64_t peer, uint32_t peer_seq);

/* ---- peer.c ---- */

int iba_peers_start(struct iba_control *c, const uint8_t key[IBA_KEY_LEN]);
void iba_peers_stop(struct iba_control *c);
void iba_peer_lane_ask(struct iba_control *c, const struct vtoe_addr *agent,
		       const struct iba_ask *ask);
void iba_peer_token_answer(struct iba_control *c, uint64_t peer,
			   uint32_t peer_seq,
			   const struct vnet_peer_lane_answer *answer);
bool iba_peers_tick(struct iba_control *c, uint64_t now_us);

#endif /* IBA_CONTROL_H */
