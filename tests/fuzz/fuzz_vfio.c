// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Any bytes as the messages of a vfio-user client. The input is a list of
 *
 *	byte 0	number of descriptors that ride with it (n % 4); bit 7: VERSION
 *		comes first, as if it had been said
 *	then	a message, as long as its header says, or as there is input
 *
 * Each descriptor is the same piece of memory. After every message the device's
 * registers are read, and at the end nothing may be left.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "log.h"
#include "shim.h"

static const char config[] =
	"vm f\ntenant 1\nmac 52:54:00:00:00:01\nmtu 1450\nencap vxlan\n"
	"front vfio-user /nowhere\n";

static struct shim *shim;
static int peer, memory;

static void set_up(void)
{
	int pair[2];

	if (shim)
		return;
	log_init("fuzz", LOG_ERR);
	shim = calloc(1, sizeof(*shim));
	must(shim);
	shim->conf = shim_config_parse("fuzz", config, sizeof(config) - 1);
	shim->loop = loop_create();
	must(shim->conf && shim->loop);
	shim_routes_set(&shim->routes, shim->conf);
	shim_queues_init(shim);
	must(shim_hello_init(shim) == 0);
	shim_device_init(shim);
	shim_tx_init(shim);
	must(shim_rx_init(shim) == 0 && shim_attach_init(shim) == 0);
	must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
			pair) == 0);
	shim->front.shim = shim;
	shim->front.ops = &shim_vfio_user_ops;
	shim->front.fd = pair[0];
	peer = pair[1];
	must(shim->front.ops->init(shim) == 0);
	memory = memfd_create("guest", MFD_CLOEXEC);
	must(memory >= 0 && ftruncate(memory, 1 << 20) == 0);
}

/* Reads replies; closes what came with them. */
static void drain(void)
{
	static uint8_t bytes[65536];
	int fds[UNIX_FDS_MAX];
	unsigned int nfds;

	while (unix_recv_fds(peer, bytes, sizeof(bytes), fds, &nfds, 0) > 0)
		close_fds(fds, nfds);
}

static void check_registers(void)
{
	uint8_t bytes[SHIM_PCI_CONFIG];
	unsigned int i;

	shim_pci_read(shim, 7, 0, sizeof(bytes), bytes);
	must(bytes[0] == 0xf4 && bytes[1] == 0x1a && bytes[0x34] == 0x40);
	shim_pci_read(shim, 0, 0, 64, bytes);
	must(bytes[18] == shim->queue_count);
	must(shim->mem.count <= GUEST_MEM_REGIONS_MAX);
	must(shim->vfio.blind_count <= SHIM_VFIO_BLIND_MAX);
	for (i = 0; i < shim->queue_count; i++)
		if (shim->queue[i].state == SHIM_QUEUE_LOCAL)
			must(shim->dev.status & 4 && shim->queue[i].vq.running);
}

/* Bytes of input that the message took; 0: the session ends. */
static size_t message(const uint8_t *data, size_t size)
{
	struct shim_front *f = &shim->front;
	const uint8_t flags = data[0];
	uint32_t want;
	size_t take;
	int ret;

	data++;
	size--;
	if (size < f->ops->hdr_len)
		return 0;
	if (flags & 0x80)
		shim->vfio.versioned = true;
	memcpy(f->msg, data, f->ops->hdr_len);
	want = f->ops->msg_len(shim);
	if (!want)
		return 0;
	take = want < size ? want : size;
	memset(f->msg, 0, want);
	memcpy(f->msg, data, take);
	for (f->nfds = 0; f->nfds < flags % 4; f->nfds++)
		f->fds[f->nfds] = fcntl(memory, F_DUPFD_CLOEXEC, 0);
	ret = f->ops->handle(shim);
	close_fds(f->fds, f->nfds);
	f->nfds = 0;
	drain();
	return ret < 0 ? 0 : take + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	unsigned int i;
	size_t n;

	set_up();
	must(shim->front.ops->begin(shim) == 0);
	while (size && (n = message(data, size))) {
		check_registers();
		data += n;
		size -= n;
	}
	shim->front.ops->end(shim);
	guest_mem_clear(&shim->mem);
	for (i = 0; i < shim->queue_count; i++)
		must(shim->queue[i].state == SHIM_QUEUE_IDLE &&
		     shim->queue[i].kick_fd < 0 && shim->queue[i].call_fd < 0);
	return 0;
}
