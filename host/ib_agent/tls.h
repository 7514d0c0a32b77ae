/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * TLS 1.3 with an external pre-shared key over a non-blocking socket.
 */
#ifndef IBA_TLS_H
#define IBA_TLS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "config.h"

struct iba_tls_ctx;
struct iba_tls;

struct iba_tls_ctx *iba_tls_ctx_create(const uint8_t key[IBA_KEY_LEN]);
void iba_tls_ctx_destroy(struct iba_tls_ctx *ctx); /* wipes the key; takes NULL */

/* fd stays the caller's. NULL: no memory. */
struct iba_tls *iba_tls_create(struct iba_tls_ctx *ctx, int fd, bool server);
/* Wipes the session's keys; sends nothing. Takes NULL. */
void iba_tls_destroy(struct iba_tls *tls);
/* 1: done, both sides have proved that they know the key; 0: in progress; -EACCES. */
int iba_tls_handshake(struct iba_tls *tls);
/* Bytes; 0: end of file; -EAGAIN; -EIO. */
ssize_t iba_tls_read(struct iba_tls *tls, void *buf, size_t len);
ssize_t iba_tls_write(struct iba_tls *tls, const void *buf, size_t len);
/* The last call needs the socket to be writable (else readable). */
bool iba_tls_wants_write(const struct iba_tls *tls);
/* There is more to read that no epoll tells of. */
bool iba_tls_pending(const struct iba_tls *tls);
/* What the library says about the last failure. */
const char *iba_tls_error(void);

#endif /* IBA_TLS_H */
