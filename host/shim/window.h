/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The guest's rx buffers that come next, taken from the ring but not used. */
#ifndef SHIM_WINDOW_H
#define SHIM_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtq.h"

#define SHIM_WINDOW_CHAINS 128 /* a power of two */

/*
 * Seen as one run of bytes: the writable buffers of all its chains, in order. A
 * train starts at offset 0 and uses whole chains.
 */
struct shim_window {
	unsigned int first, count;
	uint32_t bytes;
	struct virtq_chain chain[SHIM_WINDOW_CHAINS];
};

/* A place in it. */
struct shim_window_pos {
	unsigned int chain; /* from the first */
	unsigned int iov;   /* of the chain */
	size_t offset;	    /* in that */
};

/* Takes chains until there are `want` bytes or no more chains. False: the queue
 * is broken. */
bool shim_window_fill(struct shim_window *w, struct virtq *vq, uint32_t want);
/* Gives all back, newest first, as if never taken. */
void shim_window_return(struct shim_window *w, struct virtq *vq);
/* Bytes that one train may use: all, or one chain if buffers are not merged. */
uint32_t shim_window_room(const struct shim_window *w, bool mergeable);

void shim_window_seek(const struct shim_window *w, uint32_t offset,
		      struct shim_window_pos *pos);
/* Appends the buffers of len bytes at pos, and moves it. Fewer bytes if the
 * window, or room in iov[], ends. Returns bytes. */
uint32_t shim_window_iov(const struct shim_window *w,
			 struct shim_window_pos *pos, uint32_t len,
			 struct iovec *iov, unsigned int *count,
			 unsigned int max);
/* Copy at an offset; the caller knows that the bytes are there. */
void shim_window_copy_in(const struct shim_window *w, uint32_t offset,
			 const void *src, uint32_t len);
void shim_window_copy_out(const struct shim_window *w, uint32_t offset,
			  void *dst, uint32_t len);
/* How many chains `total` bytes take. */
unsigned int shim_window_chains(const struct shim_window *w, uint32_t total);
/* Puts those into the used ring (not published) and out of the window. */
void shim_window_use(struct shim_window *w, struct virtq *vq, uint32_t total);

#endif /* SHIM_WINDOW_H */
