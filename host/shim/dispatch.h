/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who starts work on the guest's tx queues: its doorbell, or our looking. */
#ifndef SHIM_DISPATCH_H
#define SHIM_DISPATCH_H

struct shim;

/* 0 or -1, logged. */
int shim_dispatch_init(struct shim *shim);
void shim_dispatch_destroy(struct shim *shim);

#endif /* SHIM_DISPATCH_H */
