/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The machine as far as the payload needs it: serial port, end, PCI, MSI-X, local
 * APIC. One CPU, no paging, no heap. Interrupts are off but in wait_interrupt().
 */
#ifndef KVM_HW_H
#define KVM_HW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* MSI-X vectors of the payload, which has one handler for each. Of several
 * pending interrupts the local APIC delivers that of the highest vector first. */
enum vector {
	VECTOR_CONFIG,
	VECTOR_RX,
	VECTOR_TX,
	VECTORS,
};

/* Interrupts taken, for each vector. */
extern volatile uint32_t interrupts[VECTORS];

void interrupts_init(void);
/* Sleeps until an interrupt has been handled. start.S */
void wait_interrupt(void);
/* Handles those that wait in the local APIC. */
void drain_interrupts(void);

/* ---- serial port, and the end ---- */

void print(const char *text);
void print_value(const char *name, uint32_t value); /* " name=value" */
void print_hex(const char *name, uint32_t value);
/* Waits for a byte from the test. */
char read_command(void);
/* Ends QEMU with status 2 * status + 1. */
void quit(uint8_t status) __attribute__((noreturn));
/* Says why and ends. */
void fail(const char *why, uint32_t got, uint32_t want) __attribute__((noreturn));

/* ---- PCI ---- */

#define PCI_NOT_FOUND 0xffffffffu

/* First function with this vendor and device in bus 0; PCI_NOT_FOUND. */
uint32_t pci_find(uint16_t vendor, uint16_t device);
uint32_t pci_read32(uint32_t function, uint32_t offset);
uint16_t pci_read16(uint32_t function, uint32_t offset);
uint8_t pci_read8(uint32_t function, uint32_t offset);
void pci_write32(uint32_t function, uint32_t offset, uint32_t value);
/* Where the firmware put a memory BAR. */
uint32_t pci_bar(uint32_t function, unsigned int bar);
/* Vector i of the device to handler i, unmasked; MSI-X on. */
void msix_enable(uint32_t function, uint32_t capability);

/* ---- memory ---- */

void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);

/* All before is seen by the device before all behind. */
static inline void fence(void)
{
	__asm__ volatile("mfence" ::: "memory");
}

#endif /* KVM_HW_H */
