/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The whole of one VM's shim.
 *
 *   front end ── front.c ── vhost_user.c, vu_requests.c ── queue.c ── device.c,
 *                       └── vfio_*.c ──────────────────────── │       ctrl.c, hello.c
 *                                  ┌──────────────────────────┘
 *   guest tx ring ── tx.c ── routes.c ── wire.c ── link.c ── UDP
 *   guest rx ring ── rx*.c (window.c, reasm.c) ──── link.c ── UDP
 *   VTOE rings ───── attach.c (vtoe_queues.c) ── agent
 *
 * queue.c tells who serves a ring, dispatch.c when tx rings are looked at. One
 * thread, one event loop; nothing here needs a lock.
 */
#ifndef SHIM_H
#define SHIM_H

#include "attach.h"
#include "config.h"
#include "device.h"
#include "dirty_log.h"
#include "front.h"
#include "guest_mem.h"
#include "hello.h"
#include "link.h"
#include "loop.h"
#include "queue.h"
#include "reasm.h"
#include "routes.h"
#include "rx.h"
#include "stats.h"
#include "tx.h"
#include "vfio_user.h"
#include "vhost_user.h"

struct shim {
	const char *conf_path;
	struct shim_config *conf; /* in force */
	struct loop *loop;
	struct shim_stats stats;

	struct shim_front front;
	struct shim_vu vu;     /* what belongs to its protocol: one of these */
	struct shim_vfio vfio;
	struct guest_mem mem;
	struct dirty_log log; /* of mem, while the VM migrates */
	struct shim_device dev;
	struct shim_hello hello;
	unsigned int queue_count;
	struct shim_queue queue[SHIM_QUEUES_MAX];
	struct shim_attach attach;

	struct shim_routes routes;
	struct shim_links links;
	struct shim_tx tx;
	struct shim_rx rx[SHIM_NET_PAIRS_MAX];
	struct shim_reasm reasm;
};

/* Serves the VM until SIGTERM or SIGINT. Takes conf. 0 or -1. */
int shim_run(const char *conf_path, struct shim_config *conf, bool sandbox);

#endif /* SHIM_H */
