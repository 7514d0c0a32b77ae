/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Links: UDP sockets, one for each local address, shared by the links that
 * have it. */
#ifndef SHIM_LINK_H
#define SHIM_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "config.h"
#include "loop.h"

/* Largest UDP payload over IPv4, and so of one send or receive call. */
#define SHIM_UDP_MAX 65507
/* Segments of one call; the kernel may take fewer (shim_links.max_segs). */
#define SHIM_SEGS_MAX 128

struct shim;
struct shim_sock;

struct shim_link {
	const struct shim_link_conf *conf;
	struct shim_sock *sock;
	uint32_t number; /* from 1, as the guest sees it */
	uint64_t tx_datagrams, tx_bytes, rx_datagrams, rx_bytes;
};

struct shim_sock {
	struct shim *shim;
	int fd;
	struct sockaddr_storage local;
	struct loop_fd *source;
	bool paused;		/* not watched: the guest has no buffers */
	bool linear;		/* has a segmented link: receive by copying */
	unsigned int link_count;
	struct shim_link *last; /* source of the last datagram, or its only link */
	struct shim_link *only; /* connected to its remote */
	unsigned int small;	/* single datagrams in a row */
	uint16_t part_len;	/* of whole trains, as last seen; 0: none yet */
	unsigned int pair;	/* rx queue pair that it feeds, of those active */
};

struct shim_links {
	unsigned int count, sock_count, max_segs;
	struct shim_link link[SHIM_LINKS_MAX];
	struct shim_sock sock[SHIM_LINKS_MAX];
};

/*
 * Where conf has the very links that are in force: they are from conf now, and
 * nothing that is on its way through them is touched. Otherwise false.
 */
bool shim_links_keep(struct shim *shim, const struct shim_config *conf);
/*
 * Opens the sockets of the links of conf, keeping those of the table in force
 * whose local address is still used, and puts the new table in force. On
 * failure (-errno, logged) the old one stays.
 */
int shim_links_set(struct shim *shim, const struct shim_config *conf);
void shim_links_close(struct shim *shim);
/* Asks the kernel how many segments it takes a call. */
unsigned int shim_links_probe_segs(void);

/*
 * Sends datagrams of `size` bytes each, the last may be shorter, in one call.
 * 0 or -errno, counted.
 */
int shim_link_send(struct shim *shim, struct shim_link *link,
		   struct iovec *iov, unsigned int iov_count, size_t bytes,
		   uint16_t size);

struct shim_batch {
	struct shim_link *link; /* NULL: from nobody we know */
	size_t bytes;
	uint16_t size; /* of each datagram but the last */
	unsigned int count;
};
/* Receives what the kernel has joined. 1, 0: nothing there, -errno. */
int shim_sock_recv(struct shim_sock *sock, struct iovec *iov,
		   unsigned int iov_count, struct shim_batch *batch);
/* Watches the socket, or not. */
void shim_sock_pause(struct shim_sock *sock, bool pause);

#endif /* SHIM_LINK_H */
