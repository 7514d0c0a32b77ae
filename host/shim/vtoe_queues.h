/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The VTOE queues while the agent does not have them. */
#ifndef SHIM_VTOE_QUEUES_H
#define SHIM_VTOE_QUEUES_H

#include <stdbool.h>

struct shim;
struct shim_attach;
struct shim_queue;

/* Which of them: also the index of its record. */
unsigned int shim_vtoe_index(const struct shim_queue *q);
/* The queue goes on where its record stopped, and did something before. */
bool shim_vtoe_continues(const struct shim_attach *a, const struct shim_queue *q);
/* READY to LOCAL, and back to the guest what was posted; removal: it is told
 * that the agent has gone. 0 or -EINVAL. */
int shim_vtoe_serve_here(struct shim *shim, bool removal);
/* The guest rang for a queue that is served here. */
void shim_vtoe_kicked(struct shim_queue *q);
/* AGENT to READY: the agent has let go of, or lost, what it had. */
void shim_vtoe_take_back(struct shim *shim);
/* Where the queues that are READY stand now that the agent has closed. */
void shim_vtoe_reread(struct shim *shim);

#endif /* SHIM_VTOE_QUEUES_H */
