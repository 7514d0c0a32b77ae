// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The window of rx buffers. It lets recvmsg() write to where a train will lie
 * before anything is known about the train: chains are taken ahead, stay in the
 * window while what arrived was dropped or copied elsewhere, and go to the used
 * ring only as a train that is delivered.
 *
 * A chain that has no writable byte cannot hold anything and is returned at
 * once: it would be a place that no cursor ever leaves.
 */
#include <string.h>

#include "window.h"

static struct virtq_chain *chain_at(const struct shim_window *w, unsigned int i)
{
	return (struct virtq_chain *)&w->chain[(w->first + i) %
					       SHIM_WINDOW_CHAINS];
}

bool shim_window_fill(struct shim_window *w, struct virtq *vq, uint32_t want)
{
	while (w->bytes < want && w->count < SHIM_WINDOW_CHAINS) {
		struct virtq_chain *chain = chain_at(w, w->count);
		int ret = virtq_pop(vq, chain);

		if (ret <= 0)
			return ret == 0;
		if (!chain->in_bytes || chain->in_bytes > UINT32_MAX / 2 - w->bytes) {
			virtq_push(vq, chain->head, 0);
			continue;
		}
		w->bytes += chain->in_bytes;
		w->count++;
	}
	return true;
}

void shim_window_return(struct shim_window *w, struct virtq *vq)
{
	while (w->count)
		virtq_unpop(vq, chain_at(w, --w->count));
	w->bytes = 0;
}

uint32_t shim_window_room(const struct shim_window *w, bool mergeable)
{
	if (mergeable)
		return w->bytes;
	return w->count ? chain_at(w, 0)->in_bytes : 0;
}

void shim_window_seek(const struct shim_window *w, uint32_t offset,
		      struct shim_window_pos *pos)
{
	*pos = (struct shim_window_pos){ 0 };
	while (pos->chain < w->count &&
	       offset >= chain_at(w, pos->chain)->in_bytes)
		offset -= chain_at(w, pos->chain++)->in_bytes;
	if (pos->chain == w->count)
		return;
	/* within the chain now */
	while (offset) {
		const struct virtq_chain *chain = chain_at(w, pos->chain);
		const size_t len = chain->iov[chain->out_count + pos->iov].iov_len;

		if (offset < len) {
			pos->offset = offset;
			return;
		}
		offset -= len;
		pos->iov++;
	}
}

/* The rest of the buffer at pos; false at the end of the window. */
static bool here(const struct shim_window *w, struct shim_window_pos *pos,
		 struct iovec *iov)
{
	const struct virtq_chain *chain;

	while (pos->chain < w->count) {
		chain = chain_at(w, pos->chain);
		if (pos->iov < chain->in_count) {
			*iov = chain->iov[chain->out_count + pos->iov];
			iov->iov_base = (char *)iov->iov_base + pos->offset;
			iov->iov_len -= pos->offset;
			return true;
		}
		pos->chain++;
		pos->iov = 0;
	}
	return false;
}

/* By n bytes, no more than here() said. */
static void advance(struct shim_window_pos *pos, const struct iovec *iov,
		    size_t n)
{
	if (n < iov->iov_len) {
		pos->offset += n;
	} else {
		pos->iov++;
		pos->offset = 0;
	}
}

uint32_t shim_window_iov(const struct shim_window *w,
			 struct shim_window_pos *pos, uint32_t len,
			 struct iovec *iov, unsigned int *count,
			 unsigned int max)
{
	uint32_t done = 0;
	struct iovec at;

	while (done < len && *count < max && here(w, pos, &at)) {
		size_t n = at.iov_len < len - done ? at.iov_len : len - done;

		iov[*count].iov_base = at.iov_base;
		iov[(*count)++].iov_len = n;
		advance(pos, &at, n);
		done += n;
	}
	return done;
}

void shim_window_copy_in(const struct shim_window *w, uint32_t offset,
			 const void *src, uint32_t len)
{
	struct shim_window_pos pos;
	const char *from = src;
	struct iovec at;

	shim_window_seek(w, offset, &pos);
	while (len && here(w, &pos, &at)) {
		size_t n = at.iov_len < len ? at.iov_len : len;

		memcpy(at.iov_base, from, n);
		advance(&pos, &at, n);
		from += n;
		len -= n;
	}
}

void shim_window_copy_out(const struct shim_window *w, uint32_t offset,
			  void *dst, uint32_t len)
{
	struct shim_window_pos pos;
	char *to = dst;
	struct iovec at;

	shim_window_seek(w, offset, &pos);
	while (len && here(w, &pos, &at)) {
		size_t n = at.iov_len < len ? at.iov_len : len;

		memcpy(to, at.iov_base, n);
		advance(&pos, &at, n);
		to += n;
		len -= n;
	}
}

unsigned int shim_window_chains(const struct shim_window *w, uint32_t total)
{
	unsigned int n = 0;

	while (total && n < w->count) {
		const uint32_t bytes = chain_at(w, n++)->in_bytes;

		total -= total < bytes ? total : bytes;
	}
	return n;
}

void shim_window_use(struct shim_window *w, struct virtq *vq, uint32_t total)
{
	while (total && w->count) {
		const struct virtq_chain *chain = chain_at(w, 0);
		const uint32_t n = total < chain->in_bytes ? total :
							     chain->in_bytes;

		virtq_push(vq, chain->head, n);
		w->bytes -= chain->in_bytes;
		w->first = (w->first + 1) % SHIM_WINDOW_CHAINS;
		w->count--;
		total -= n;
	}
}
