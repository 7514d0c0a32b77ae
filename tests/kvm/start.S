/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Entry and interrupts. A multiboot loader (version 0.6.96, section 3.2) enters
 * with protected mode on, paging and interrupts off, flat segments, and no
 * stack. Its descriptor table need not be there any more, so there is one here.
 *
 * An interrupt handler returns with RET, not with IRET: KVM's instruction
 * emulator, which is all there is of KVM on some machines, has IRET for real
 * mode only. The interrupted code finds its flags changed and interrupts off.
 * That is what it expects: interrupts are on nowhere but in wait_interrupt().
 */
#define MULTIBOOT_MAGIC 0x1badb002
#define MULTIBOOT_FLAGS 0x00010001 /* page-aligned; the addresses below count */

	.section .multiboot, "a"
	.align	4
header:
	.long	MULTIBOOT_MAGIC, MULTIBOOT_FLAGS
	.long	-(MULTIBOOT_MAGIC + MULTIBOOT_FLAGS)
	.long	header, header, load_end, bss_end, start

	.text
	.globl	start
start:
	cli
	lgdt	gdt_pointer
	ljmp	$8, $1f
1:	mov	$16, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$stack_end, %esp
	call	payload_main
2:	hlt
	jmp	2b

/* Sleeps until an interrupt has been handled. */
	.globl	wait_interrupt
wait_interrupt:
	sti
	hlt
	cli
	ret

/* EIP goes where EFLAGS were, and all below it from the stack. */
	.macro	handler vector
	.globl	handler_\vector
handler_\vector:
	pusha
	cld
	push	$\vector
	call	interrupt
	add	$4, %esp
	popa
	push	%eax
	mov	4(%esp), %eax
	mov	%eax, 12(%esp)
	pop	%eax
	lea	8(%esp), %esp
	ret
	.endm

	handler	0
	handler	1
	handler	2

/* Anything else: an exception, or an interrupt that nobody asked for. */
	.globl	handler_unexpected
handler_unexpected:
	mov	(%esp), %eax
	mov	4(%esp), %edx
	push	%edx
	push	%eax
	call	unexpected

	.section .rodata
	.align	8
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff /* code, 4 GB from 0 */
	.quad	0x00cf93000000ffff /* data */
gdt_pointer:
	.word	. - gdt - 1
	.long	gdt

	.bss
	.align	16
	.skip	16384
stack_end:

	.section .note.GNU-stack, "", @progbits
