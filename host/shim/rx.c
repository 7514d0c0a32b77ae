// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * When to receive. A socket is read while the guest has buffers; each pair's
 * sockets feed that pair's rx queue (socket i, of the order of the links, feeds
 * pair i modulo the pairs in use: a flow stays in order).
 *
 * Buffers. The window (window.c) is kept filled for the longest train. Without
 * a single buffer the queue's sockets are not watched and the guest is asked to
 * kick; nothing spins and nothing is lost that the socket can hold. A frame
 * that has been read and finds too few waits the same way (rx_linear.c), for
 * STALL_MS, after which it is dropped: a guest may post buffers that never
 * suffice.
 *
 * Without a driver datagrams are read and dropped, so that it does not meet old
 * ones.
 */
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "shim.h"

#define RECVS_PER_RUN 32
/* A guest that is not scheduled for long must not lose frames for it. */
#define STALL_MS 200
/* Bytes of window that take the longest train. */
#define WINDOW_BYTES (sizeof(struct vnet_train_hdr) + SHIM_TRAIN_MAX)

static void stalled_for_long(void *ctx);
static void open_for_long(void *ctx);

int shim_rx_init(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < shim_config_net_pairs(shim->conf); i++) {
		struct shim_rx *rx = &shim->rx[i];

		rx->shim = shim;
		rx->queue = shim_queue_rx(shim, i);
		rx->linear.data = malloc(SHIM_RX_LINEAR_MAX);
		rx->stall_timer = loop_timer_create(shim->loop,
						    stalled_for_long, rx);
		rx->open_timer = loop_timer_create(shim->loop, open_for_long,
						   rx);
		if (!rx->linear.data || !rx->stall_timer || !rx->open_timer)
			return -1;
	}
	return 0;
}

void shim_rx_destroy(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < shim_config_net_pairs(shim->conf); i++) {
		loop_timer_destroy(shim->rx[i].stall_timer);
		loop_timer_destroy(shim->rx[i].open_timer);
		free(shim->rx[i].linear.data);
	}
}

void shim_rx_resume(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < shim->links.sock_count; i++)
		shim_sock_pause(&shim->links.sock[i], false);
}

static void forget(struct shim_rx *rx)
{
	rx->open.sock = NULL;
	rx->linear.link = NULL;
	rx->force = false;
	rx->waiting = false;
}

void shim_rx_start(struct shim *shim, unsigned int pair)
{
	struct shim_rx *rx = &shim->rx[pair];

	forget(rx);
	rx->unsignalled = 0;
	if (!pair)
		shim_hello_flush(shim);
	shim_rx_resume(shim);
}

void shim_rx_stop(struct shim *shim, unsigned int pair)
{
	struct shim_rx *rx = &shim->rx[pair];

	forget(rx);
	shim_reasm_flush(&shim->reasm); /* a train may be complete but for a buffer */
	loop_timer_disarm(rx->stall_timer);
	shim_window_return(&rx->window, &rx->queue->vq);
	virtq_publish_notify(&rx->queue->vq);
	shim_rx_resume(shim);
}

void shim_rx_flush(struct shim *shim)
{
	unsigned int i;

	for (i = 0; i < shim_config_net_pairs(shim->conf); i++)
		forget(&shim->rx[i]);
	shim_reasm_flush(&shim->reasm);
	shim_rx_resume(shim);
}

/* ---- waiting for buffers ---- */

static void hold(struct shim_rx *rx, struct shim_sock *sock)
{
	rx->waiting = true;
	shim_sock_pause(sock, true);
}

/* Asks for a kick. False: the guest has just posted some. */
static bool wait_for_buffers(struct shim_rx *rx, struct shim_sock *sock)
{
	if (virtq_enable_kicks(&rx->queue->vq))
		return false;
	if (!sock->paused)
		rx->shim->stats.rx_starved++;
	hold(rx, sock);
	return true;
}

/* Goes on with what waits in the linear buffer. True: nothing waits any more. */
static bool go_on(struct shim_rx *rx)
{
	while (!shim_rx_run_linear(rx)) {
		if (virtq_enable_kicks(&rx->queue->vq) &&
		    rx->window.count < SHIM_WINDOW_CHAINS)
			continue;
		loop_timer_arm(rx->stall_timer, STALL_MS);
		return false;
	}
	loop_timer_disarm(rx->stall_timer);
	return true;
}

static void run_stalled(struct shim_rx *rx)
{
	if (rx->queue->state != SHIM_QUEUE_LOCAL || rx->queue->vq.broken)
		return;
	shim_hello_flush(rx->shim);
	if (shim_hello_holds_rx(rx->shim))
		return;
	virtq_disable_kicks(&rx->queue->vq);
	if (go_on(rx))
		shim_rx_resume(rx->shim);
	virtq_publish_notify(&rx->queue->vq);
	rx->unsignalled = 0;
}

void shim_rx_kicked(struct shim *shim, unsigned int pair)
{
	run_stalled(&shim->rx[pair]);
}

static void stalled_for_long(void *ctx)
{
	struct shim_rx *rx = ctx;

	rx->force = true;
	run_stalled(rx);
	rx->force = false;
}

static void open_for_long(void *ctx)
{
	struct shim_rx *rx = ctx;

	rx->open_timer_armed = false;
	if (!rx->open.sock)
		return;
	if (rx->open.old) {
		rx->open.sock = NULL;
		rx->shim->stats.rx_drop_timeout++;
		return;
	}
	rx->open.old = true;
	rx->open_timer_armed = true;
	loop_timer_arm(rx->open_timer, SHIM_REASM_MS);
}

/* ---- receiving ---- */

/* Reads and drops; MSG_TRUNC makes it cheap. */
static void discard(struct shim *shim, struct shim_sock *sock)
{
	uint8_t byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct shim_batch batch;
	unsigned int i;

	for (i = 0; i < RECVS_PER_RUN; i++) {
		const uint64_t truncated = shim->stats.rx_drop_truncated;

		if (shim_sock_recv(sock, &iov, 1, &batch) <= 0)
			return;
		shim->stats.rx_drop_truncated = truncated;
		shim->stats.rx_drop_no_driver += batch.count;
	}
}

/* One system call, and what comes of it. False: enough for now. */
static bool receive(struct shim_rx *rx, struct shim_sock *sock)
{
	int ret;

	if (!go_on(rx)) {
		hold(rx, sock);
		return false;
	}
	if (!shim_window_fill(&rx->window, &rx->queue->vq, WINDOW_BYTES)) {
		shim_queue_broken(rx->queue);
		return false;
	}
	if (!rx->window.count)
		return !wait_for_buffers(rx, sock);
	if (rx->waiting) {
		/* other sockets wait for what is here now */
		rx->waiting = false;
		shim_rx_resume(rx->shim);
	}
	if (sock->linear || !shim_device_mergeable(&rx->shim->dev))
		ret = shim_rx_receive_linear(rx, sock);
	else
		ret = shim_rx_direct(rx, sock);
	if (ret <= 0)
		return false;
	if (!go_on(rx)) {
		hold(rx, sock);
		return false;
	}
	return true;
}

void shim_rx_run(struct shim *shim, struct shim_sock *sock)
{
	struct shim_rx *rx = &shim->rx[sock->pair % shim_device_active_pairs(shim)];
	struct virtq *vq = &rx->queue->vq;
	unsigned int i;

	if (rx->queue->state != SHIM_QUEUE_LOCAL || vq->broken) {
		discard(shim, sock);
		return;
	}
	shim_hello_flush(shim);
	if (shim_hello_holds_rx(shim)) {
		shim_sock_pause(sock, true);
		return;
	}
	virtq_disable_kicks(vq);
	for (i = 0; i < RECVS_PER_RUN; i++)
		if (!receive(rx, sock))
			break;
	virtq_publish_notify(vq);
	rx->unsignalled = 0;
}
