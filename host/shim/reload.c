// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A new configuration under a running VM. It is read and checked whole, the
 * sockets that it needs are opened, and only then does anything change; until
 * there an error leaves the old one in force. Afterwards the guest is told
 * (encapsulation and train form are in the vendor block) and the agent forgets
 * what it asked about routes.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "log.h"
#include "reload.h"
#include "shim.h"

static int signal_fd = -1;
static struct loop_fd *signal_source;

/* A stock driver was promised that the host takes unsegmented frames. */
static bool breaks_promise(const struct shim *shim,
			   const struct shim_config *next)
{
	const struct shim_device *dev = &shim->dev;

	return shim_config_has_segmented(next) && !shim_device_paravirt(dev) &&
	       (shim_device_has(dev, VIRTIO_NET_F_CSUM) ||
		shim_device_has(dev, VIRTIO_NET_F_HOST_TSO4) ||
		shim_device_has(dev, VIRTIO_NET_F_HOST_TSO6));
}

int shim_reload(struct shim *shim)
{
	struct shim_config *next = shim_config_load(shim->conf_path);
	bool told;

	if (!next ||
	    shim_config_may_replace(shim->conf, next, shim->conf_path) < 0)
		goto keep;
	if (breaks_promise(shim, next)) {
		log_err("%s: segmented links cannot come while a stock driver uses segmentation or checksum offload",
			shim->conf_path);
		goto keep;
	}
	if (!shim_links_keep(shim, next)) {
		shim_rx_flush(shim); /* trains under way refer to links */
		if (shim_links_set(shim, next) < 0)
			goto keep;
	}
	shim_routes_set(&shim->routes, next);
	told = next->encap != shim->conf->encap ||
	       shim_config_has_segmented(next) !=
		       shim_config_has_segmented(shim->conf);
	shim_config_free(shim->conf);
	shim->conf = next;
	shim->dev.encap_types |= 1u << next->encap;
	if (told)
		shim_device_changed(shim);
	shim_attach_routes_changed(shim);
	log_info("vm %s: %s: new configuration in force: %u links, %u routes",
		 next->vm, shim->conf_path, next->link_count,
		 next->route_count);
	return 0;

keep:
	log_err("vm %s: %s: not used; the configuration before stays in force",
		shim->conf->vm, shim->conf_path);
	shim_config_free(next);
	return -EINVAL;
}

static void signalled(int fd, uint32_t events, void *ctx)
{
	struct signalfd_siginfo info;
	struct shim *shim = ctx;

	(void)events;
	if (read(fd, &info, sizeof(info)) != sizeof(info))
		return;
	if (info.ssi_signo == SIGHUP)
		shim_reload(shim);
	else
		shim_stats_dump(shim);
}

int shim_signals_init(struct shim *shim)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN); /* peers that go away are errors of calls */
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (signal_fd >= 0)
		signal_source = loop_add_fd(shim->loop, signal_fd, EPOLLIN,
					    signalled, shim);
	if (signal_source)
		return loop_stop_on_signals(shim->loop);
	log_err("signals: %s", strerror(errno));
	return -errno;
}

void shim_signals_destroy(void)
{
	loop_remove_fd(signal_source);
	signal_source = NULL;
	if (signal_fd >= 0)
		close(signal_fd);
	signal_fd = -1;
}
