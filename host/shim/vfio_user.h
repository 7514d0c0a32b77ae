/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The vfio-user front door: a whole PCI device for a VMM. */
#ifndef SHIM_VFIO_USER_H
#define SHIM_VFIO_USER_H

#include <stdbool.h>
#include <stdint.h>

#include "queue.h"
#include "vfio_pci.h"
#include "vfio_user_proto.h"

/* Bytes of one region access (max_data_xfer_size). */
#define SHIM_VFIO_XFER_MAX 4096
#define SHIM_VFIO_PAYLOAD_MAX \
	(sizeof(struct vfu_write_multi) + VFU_WRITE_MULTI_MAX * sizeof(struct vfu_write_one))
/* DMA windows that cannot be mapped: ROMs, other devices' BARs. */
#define SHIM_VFIO_BLIND_MAX 64
#define SHIM_VFIO_VECTORS_MAX (SHIM_QUEUES_MAX + 1)

struct shim_vfio_msg {
	struct vfu_hdr hdr;
	uint8_t payload[SHIM_VFIO_PAYLOAD_MAX];
};

struct shim_vfio_irq {
	int fd; /* owned, -1: none */
	bool masked;
};

/* A session. */
struct shim_vfio {
	bool versioned;		 /* VERSION has come */
	unsigned int client_fds; /* that the client takes in a message */
	int kick_fd[SHIM_QUEUES_MAX]; /* the doorbells; queues have duplicates */
	struct shim_vfio_irq irq[SHIM_VFIO_VECTORS_MAX];
	struct {
		uint64_t gpa, size;
	} blind[SHIM_VFIO_BLIND_MAX];
	unsigned int blind_count;
	struct shim_pci pci;
	struct shim_vfio_msg msg; /* request, and in its place the reply */
	uint32_t reply_len;	  /* of its payload */
	int reply_fds[UNIX_FDS_MAX]; /* not owned */
	unsigned int reply_nfds;
};

/* ---- vfio_user.c ---- */

/* A log line about the message at hand. Returns -EPROTO. */
int shim_vfio_bad(const struct shim *shim, const char *fmt, ...)
	__attribute__((format(printf, 2, 3)));

/*
 * Handlers of messages. Lengths and number of descriptors are checked. 0; an
 * errno for the client; -EPROTO: the session must end.
 */
/* ---- vfio_dma.c ---- */
int shim_vfio_dma_map(struct shim *shim);
int shim_vfio_dma_unmap(struct shim *shim);

/* ---- vfio_irq.c ---- */
int shim_vfio_get_irq_info(struct shim *shim);
int shim_vfio_set_irqs(struct shim *shim);
unsigned int shim_vfio_vectors(const struct shim *shim);
/* An interrupt of ours; SHIM_NO_VECTOR: none. */
void shim_vfio_fire(struct shim *shim, uint16_t vector);
/* The queue is to interrupt by the vector that it has now. */
void shim_vfio_route(struct shim *shim, struct shim_queue *q);
void shim_vfio_irqs_init(struct shim *shim);
void shim_vfio_irqs_close(struct shim *shim);

#endif /* SHIM_VFIO_USER_H */
