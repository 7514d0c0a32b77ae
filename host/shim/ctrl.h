/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The control virtqueue. */
#ifndef SHIM_CTRL_H
#define SHIM_CTRL_H

struct shim;
struct shim_queue;

/* Answers all commands that are in the queue. */
void shim_ctrl_run(struct shim *shim, struct shim_queue *q);

#endif /* SHIM_CTRL_H */
