// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Start-up and shut-down. What needs privileges comes first (socket buffers
 * beyond the limits, the sockets' files); then they are given up.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "dispatch.h"
#include "log.h"
#include "reload.h"
#include "sandbox.h"
#include "shim.h"

/* On top of the common base: the agent's connection, comparing interrupts, and
 * what a reload of the configuration and the end need. */
static const char *const syscalls[] = {
	"bind", "connect", "eventfd2", "kcmp", "openat", "socket", "unlink", NULL,
};

static int start(struct shim *shim, bool sandbox)
{
	shim->loop = loop_create();
	if (!shim->loop) {
		log_err("event loop: %s", strerror(errno));
		return -1;
	}
	shim_routes_set(&shim->routes, shim->conf);
	shim_queues_init(shim);
	if (shim_hello_init(shim) < 0)
		return -1;
	shim_device_init(shim);
	shim_tx_init(shim);
	shim->links.max_segs = shim_links_probe_segs();
	if (shim_signals_init(shim) < 0 || shim_rx_init(shim) < 0 ||
	    shim_reasm_init(shim) < 0 || shim_dispatch_init(shim) < 0 ||
	    shim_attach_init(shim) < 0 ||
	    shim_links_set(shim, shim->conf) < 0 || shim_front_init(shim) < 0)
		return -1;
	if (sandbox && (sandbox_drop_privileges(NULL) < 0 ||
			       sandbox_restrict(syscalls) < 0))
		return -1;
	return 0;
}

/* In the reverse order; each takes what never came to be. */
static void stop(struct shim *shim)
{
	shim_front_destroy(shim);
	shim_links_close(shim);
	shim_attach_destroy(shim);
	shim_dispatch_destroy(shim);
	shim_hello_destroy(shim);
	shim_reasm_destroy(shim);
	shim_rx_destroy(shim);
	shim_signals_destroy();
	loop_destroy(shim->loop);
}

int shim_run(const char *conf_path, struct shim_config *conf, bool sandbox)
{
	struct shim *shim = calloc(1, sizeof(*shim));
	int ret = -1;

	if (!shim) {
		log_err("no memory");
		shim_config_free(conf);
		return -1;
	}
	shim->conf_path = conf_path;
	shim->conf = conf;
	shim->front.fd = -1;
	shim->front.listen_fd = -1;
	shim->attach.sock = -1;
	shim->attach.inflight_fd = -1;
	if (start(shim, sandbox) == 0) {
		log_info("vm %s: listening at %s (%s); %u links, %u segments a call",
			 conf->vm, conf->front, shim->front.ops->name,
			 conf->link_count, shim->links.max_segs);
		sd_notify(0, "READY=1");
		ret = loop_run(shim->loop);
		sd_notify(0, "STOPPING=1");
		shim_stats_dump(shim);
	}
	if (shim->loop)
		stop(shim);
	shim_config_free(shim->conf);
	free(shim);
	return ret;
}
