// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Dispatch. Each time the loop is awake, for whatever reason, the tx and control
 * queues are looked at before it sleeps again; while there is work the guest's
 * doorbells stay suppressed. Before sleeping, doorbells are enabled and the
 * queues looked at once more.
 *
 * With `poll USEC` the loop goes on looking for that long after the last work,
 * with doorbells suppressed: the guest then kicks at the start of a burst only.
 */
#include "ctrl.h"
#include "dispatch.h"
#include "log.h"
#include "shim.h"

/* One shim a process: what only this file knows of it. */
static struct loop_poller *poller;
static uint64_t last_work_us;

static bool run_all(struct shim *shim)
{
	struct shim_queue *ctrl = shim_queue_ctrl(shim);
	bool work = false;
	unsigned int i;

	for (i = 0; i < shim_device_pairs(shim); i++)
		work |= shim_tx_run(shim, i);
	if (!ctrl->vq.broken && virtq_has_work(&ctrl->vq)) {
		shim_ctrl_run(shim, ctrl);
		work = true;
	}
	return work;
}

/* True: something came in the meantime. */
static bool enable_kicks(struct shim *shim)
{
	bool work = false;
	unsigned int i;

	for (i = 0; i < shim_device_pairs(shim); i++) {
		struct virtq *vq = &shim_queue_tx(shim, i)->vq;

		if (vq->running && !vq->broken && !shim_hello_holds(shim, i))
			work |= virtq_enable_kicks(vq);
	}
	return work;
}

static bool look(void *ctx)
{
	struct shim *shim = ctx;
	const uint32_t poll_us = shim->conf->poll_us;

	if (run_all(shim)) {
		if (poll_us)
			last_work_us = loop_now_us();
		return true;
	}
	if (poll_us && loop_now_us() - last_work_us < poll_us)
		return true;
	return enable_kicks(shim);
}

int shim_dispatch_init(struct shim *shim)
{
	poller = loop_add_poller(shim->loop, look, shim);
	if (poller)
		return 0;
	log_err("no memory");
	return -1;
}

void shim_dispatch_destroy(struct shim *shim)
{
	(void)shim;
	loop_remove_poller(poller);
	poller = NULL;
}
