// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The hardware of QEMU's q35 machine by polling where nobody waits for speed: the
 * first serial port, PCI configuration mechanism 1, the local APIC at its usual
 * place, isa-debug-exit at its default port.
 */
#include <linux/pci_regs.h>

#include "hw.h"

#define SERIAL 0x3f8
#define SERIAL_STATUS (SERIAL + 5)
#define SERIAL_HAS_DATA 0x01
#define SERIAL_MAY_SEND 0x20
#define DEBUG_EXIT 0x501
#define PIC1_MASK 0x21
#define PIC2_MASK 0xa1
#define PCI_ADDRESS 0xcf8
#define PCI_DATA 0xcfc
#define PCI_ENABLE 0x80000000u

#define LAPIC 0xfee00000u /* also where MSIs for CPU 0 are written to */
#define LAPIC_TASK_PRIORITY 0x80
#define LAPIC_END_OF_INTERRUPT 0xb0
#define LAPIC_SPURIOUS 0xf0
#define LAPIC_REQUESTS(vector) (0x200 + (vector) / 32 * 0x10) /* 32 bits each */
#define LAPIC_ENABLE 0x100
#define SPURIOUS_VECTOR 0xff
#define FIRST_VECTOR 0x30
#define IDT_VECTORS 256
#define INTERRUPT_GATE 0x8e00

volatile uint32_t interrupts[VECTORS];

/* start.S */
void handler_0(void);
void handler_1(void);
void handler_2(void);
void handler_unexpected(void);
/* and what it calls */
void interrupt(uint32_t vector);
void unexpected(uint32_t first, uint32_t second);

static void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "d"(port));
}

static uint8_t in8(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "d"(port));
	return value;
}

static void out32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "d"(port));
}

static uint32_t in32(uint16_t port)
{
	uint32_t value;

	__asm__ volatile("inl %1, %0" : "=a"(value) : "d"(port));
	return value;
}

/* ---- serial port, and the end ---- */

void print(const char *text)
{
	for (; *text; text++) {
		while (!(in8(SERIAL_STATUS) & SERIAL_MAY_SEND))
			;
		out8(SERIAL, *text);
	}
}

static void print_number(const char *name, const char *prefix, uint32_t value,
			 unsigned int base)
{
	char digits[11], *at = digits + sizeof(digits);

	*--at = '\0';
	do {
		*--at = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	print(" ");
	print(name);
	print("=");
	print(prefix);
	print(at);
}

void print_value(const char *name, uint32_t value)
{
	print_number(name, "", value, 10);
}

void print_hex(const char *name, uint32_t value)
{
	print_number(name, "0x", value, 16);
}

char read_command(void)
{
	while (!(in8(SERIAL_STATUS) & SERIAL_HAS_DATA))
		;
	return in8(SERIAL);
}

void quit(uint8_t status)
{
	out8(DEBUG_EXIT, status);
	for (;;)
		__asm__ volatile("cli; hlt");
}

void fail(const char *why, uint32_t got, uint32_t want)
{
	print("@fail");
	print_value("got", got);
	print_value("want", want);
	print(" why=");
	print(why);
	print("\n");
	quit(1);
}

/* ---- interrupts ---- */

void interrupt(uint32_t vector)
{
	interrupts[vector]++;
	*(volatile uint32_t *)(LAPIC + LAPIC_END_OF_INTERRUPT) = 0;
}

void drain_interrupts(void)
{
	const uint32_t ours = ((1u << VECTORS) - 1) << FIRST_VECTOR % 32;
	volatile uint32_t *requests =
		(void *)(LAPIC + LAPIC_REQUESTS(FIRST_VECTOR));

	while (*requests & ours)
		wait_interrupt();
}

/* An exception without an error code has EIP first, one with it has it second. */
void unexpected(uint32_t first, uint32_t second)
{
	print_hex("stack", first);
	print_hex("stack", second);
	fail("unexpected exception or interrupt", 0, 0);
}

static void set_gate(uint64_t *idt, unsigned int vector, void (*handler)(void))
{
	const uint32_t entry = (uint32_t)handler;
	uint16_t code;

	__asm__("mov %%cs, %0" : "=r"(code));
	idt[vector] = (uint64_t)((entry & 0xffff0000u) | INTERRUPT_GATE) << 32 |
		      (uint32_t)code << 16 | (entry & 0xffffu);
}

void interrupts_init(void)
{
	static void (*const handlers[])(void) = { handler_0, handler_1, handler_2 };
	static uint64_t idt[IDT_VECTORS] __attribute__((aligned(8)));
	const struct {
		uint16_t limit;
		uint32_t base;
	} __attribute__((packed)) pointer = { sizeof(idt) - 1, (uint32_t)idt };
	unsigned int i;

	_Static_assert(sizeof(handlers) / sizeof(handlers[0]) == VECTORS,
		       "one handler a vector");
	out8(PIC1_MASK, 0xff);
	out8(PIC2_MASK, 0xff);
	for (i = 0; i < IDT_VECTORS; i++)
		set_gate(idt, i, handler_unexpected);
	for (i = 0; i < VECTORS; i++)
		set_gate(idt, FIRST_VECTOR + i, handlers[i]);
	__asm__ volatile("lidt %0" : : "m"(pointer));
	*(volatile uint32_t *)(LAPIC + LAPIC_SPURIOUS) =
		LAPIC_ENABLE | SPURIOUS_VECTOR;
	*(volatile uint32_t *)(LAPIC + LAPIC_TASK_PRIORITY) = 0;
}

/* ---- PCI ---- */

uint32_t pci_read32(uint32_t function, uint32_t offset)
{
	out32(PCI_ADDRESS, PCI_ENABLE | function << 8 | (offset & ~3u));
	return in32(PCI_DATA);
}

void pci_write32(uint32_t function, uint32_t offset, uint32_t value)
{
	out32(PCI_ADDRESS, PCI_ENABLE | function << 8 | (offset & ~3u));
	out32(PCI_DATA, value);
}

uint16_t pci_read16(uint32_t function, uint32_t offset)
{
	return pci_read32(function, offset) >> (offset & 2) * 8;
}

uint8_t pci_read8(uint32_t function, uint32_t offset)
{
	return pci_read32(function, offset) >> (offset & 3) * 8;
}

uint32_t pci_find(uint16_t vendor, uint16_t device)
{
	uint32_t function;

	for (function = 0; function < 256; function++)
		if (pci_read32(function, PCI_VENDOR_ID) ==
		    ((uint32_t)device << 16 | vendor))
			return function;
	return PCI_NOT_FOUND;
}

uint32_t pci_bar(uint32_t function, unsigned int bar)
{
	const uint32_t at = PCI_BASE_ADDRESS_0 + 4 * bar;
	const uint32_t low = pci_read32(function, at);

	if (low & PCI_BASE_ADDRESS_SPACE_IO)
		fail("a BAR is of I/O ports", bar, 0);
	if ((low & PCI_BASE_ADDRESS_MEM_TYPE_MASK) ==
		    PCI_BASE_ADDRESS_MEM_TYPE_64 &&
	    pci_read32(function, at + 4))
		fail("a BAR lies above 4 GB", bar, 0);
	return low & (uint32_t)PCI_BASE_ADDRESS_MEM_MASK;
}

void msix_enable(uint32_t function, uint32_t capability)
{
	const uint32_t flags = pci_read32(function, capability);
	const uint32_t where = pci_read32(function, capability + PCI_MSIX_TABLE);
	const uint32_t count = (flags >> 16 & PCI_MSIX_FLAGS_QSIZE) + 1;
	volatile uint32_t *entry;
	unsigned int i;

	if (count < VECTORS)
		fail("too few MSI-X vectors", count, VECTORS);
	pci_write32(function, capability,
		    flags | (uint32_t)PCI_MSIX_FLAGS_ENABLE << 16);
	entry = (void *)(pci_bar(function, where & PCI_MSIX_TABLE_BIR) +
			 (where & PCI_MSIX_TABLE_OFFSET));
	for (i = 0; i < VECTORS; i++, entry += PCI_MSIX_ENTRY_SIZE / 4) {
		entry[PCI_MSIX_ENTRY_LOWER_ADDR / 4] = LAPIC;
		entry[PCI_MSIX_ENTRY_UPPER_ADDR / 4] = 0;
		entry[PCI_MSIX_ENTRY_DATA / 4] = FIRST_VECTOR + i;
		entry[PCI_MSIX_ENTRY_VECTOR_CTRL / 4] = 0;
	}
}

/* ---- memory; the compiler may call these, too ---- */

void *memcpy(void *to, const void *from, size_t n)
{
	void *ret = to;
	size_t words = n / 4;

	__asm__ volatile("rep movsl"
			 : "+D"(to), "+S"(from), "+c"(words)
			 :
			 : "memory");
	n %= 4;
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
	return ret;
}

void *memset(void *to, int byte, size_t n)
{
	void *ret = to;

	__asm__ volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(byte) : "memory");
	return ret;
}

/* Only whether they differ. */
int memcmp(const void *a, const void *b, size_t n)
{
	size_t words = n / 4;
	bool differ;

	/* with nothing to compare REPE leaves the flags alone: equal */
	__asm__ volatile("cmp %%eax, %%eax\n\t"
			 "repe cmpsl\n\t"
			 "jne 1f\n\t"
			 "mov %[rest], %%ecx\n\t"
			 "repe cmpsb\n"
			 "1:"
			 : "+S"(a), "+D"(b), "+c"(words), "=@ccne"(differ)
			 : [rest] "r"(n % 4)
			 : "memory");
	return differ;
}
