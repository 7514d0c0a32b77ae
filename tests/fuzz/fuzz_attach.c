// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Any bytes, with any number of descriptors, as a message to the agent. The
 * first byte is the number of descriptors, the rest the packet. What is
 * accepted must be what attach_send() would send; no descriptor may stay open.
 */
#include <endian.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "unix_msg.h"

#define PACKET_MAX 600

static int ends[2];
static int null_fd = -1;

static void set_up(void)
{
	if (null_fd >= 0)
		return;
	must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC,
			0, ends) == 0);
	null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	must(null_fd >= 0);
}

/* The lowest number that is free: higher after a leak. */
static int lowest_free_fd(void)
{
	int fd = dup(null_fd);

	must(fd >= 0);
	close(fd);
	return fd;
}

static void send_packet(const uint8_t *data, size_t size, unsigned int nfds)
{
	int fds[UNIX_FDS_MAX];
	unsigned int i;

	for (i = 0; i < UNIX_FDS_MAX; i++)
		fds[i] = null_fd;
	must(unix_send_fds(ends[0], data, size, fds, nfds) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct attach_msg msg, again;
	unsigned int nfds;
	int lowest;

	set_up();
	if (size < 2 || size > 1 + PACKET_MAX)
		return 0;
	nfds = data[0] % (UNIX_FDS_MAX + 1);
	lowest = lowest_free_fd();
	send_packet(data + 1, size - 1, nfds);
	if (attach_recv(ends[1], &msg) == 1) {
		must(msg.nfds == nfds);
		must(attach_check(&msg, size - 1) == 0);
		must(attach_send(ends[0], le16toh(msg.hdr.type),
				 le32toh(msg.hdr.seq), &msg.u, msg.fds,
				 msg.nfds) == 0);
		close_fds(msg.fds, msg.nfds);
		must(attach_recv(ends[1], &again) == 1);
		must(memcmp(&again, data + 1, size - 1) == 0);
		close_fds(again.fds, again.nfds);
	} else {
		must(msg.nfds == 0);
	}
	must(lowest_free_fd() == lowest);
	return 0;
}
