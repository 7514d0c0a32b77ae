/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The device as a function on a PCI bus: config space with capabilities
 * (vfio_pci.c), and the registers of virtio behind BAR 0 (vfio_virtio.c).
 *
 *   BAR 0  0x0000 common configuration    BAR 1  0x000 MSI-X table
 *          0x1000 ISR                            0x800 pending bits
 *          0x2000 device configuration
 *          0x3000 doorbells, 4 bytes a queue
 */
#ifndef SHIM_VFIO_PCI_H
#define SHIM_VFIO_PCI_H

#include <stdbool.h>
#include <stdint.h>

#include "queue.h"

#define SHIM_PCI_CONFIG 256
#define SHIM_BAR0_SIZE 0x4000u
#define SHIM_BAR0_COMMON 0x0000u
#define SHIM_BAR0_ISR 0x1000u
#define SHIM_BAR0_DEVICE 0x2000u
#define SHIM_BAR0_NOTIFY 0x3000u
#define SHIM_NOTIFY_STRIDE 4u /* notify_off_multiplier */
#define SHIM_BAR1_SIZE 0x1000u
#define SHIM_BAR1_PBA 0x800u
#define SHIM_MSIX_ENTRY 16u

#define SHIM_NO_VECTOR 0xffffu
/* What a driver may make of a queue; as many as QEMU's own devices have. */
#define SHIM_PCI_RING_MAX 256

struct shim_pci {
	uint8_t config[SHIM_PCI_CONFIG];
	uint8_t msix_table[(SHIM_QUEUES_MAX + 1) * SHIM_MSIX_ENTRY];
	/* of virtio's common configuration */
	uint32_t device_feature_select, driver_feature_select;
	uint64_t driver_features;
	bool foreign_features; /* accepted behind the 64 that there are */
	uint16_t queue_select;
	uint16_t config_vector, vector[SHIM_QUEUES_MAX];
	uint8_t isr;
};

/* ---- vfio_pci.c ---- */

/* As after power-on. */
void shim_pci_init(struct shim *shim);
/* 0: there is no such region. */
uint64_t shim_pci_region_size(uint32_t region);
/* The caller has checked that the bytes lie in the region. */
void shim_pci_read(struct shim *shim, uint32_t region, uint32_t offset,
		   uint32_t len, uint8_t *data);
void shim_pci_write(struct shim *shim, uint32_t region, uint32_t offset,
		    uint32_t len, const uint8_t *data);

/* ---- vfio_virtio.c ---- */

/* The driver's reset: what it set up is forgotten, PCI's registers stay. */
void shim_virtio_reset(struct shim *shim);
void shim_virtio_read(struct shim *shim, uint32_t offset, uint32_t len,
		      uint8_t *data);
void shim_virtio_write(struct shim *shim, uint32_t offset, uint32_t len,
		       const uint8_t *data);
/* The configuration has changed. */
void shim_virtio_config_changed(struct shim *shim);
/* Says so to the driver, which may then reset the device. */
void shim_virtio_needs_reset(struct shim *shim);
/* The driver's part of what a queue needs to run. */
bool shim_virtio_may_run(const struct shim_queue *q);
/* Copies what [offset, offset + len) of a space has of an area in it. */
void shim_virtio_overlay(uint8_t *data, uint32_t offset, uint32_t len,
			 uint32_t area_offset, const void *area,
			 uint32_t area_len);

#endif /* SHIM_VFIO_PCI_H */
