/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A 64 KiB ROM that stands for a guest: enter long mode with paging, loop ten
 * million times, report through the debug-exit port.
 *
 * A guest that only runs a few real-mode instructions proves little: the
 * hypervisor may emulate those and yet never manage to enter the guest.
 */
.code16
.org 0
start16:
	cli
	lgdtl %cs:(gdtr - start16)
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $8, $(0xffff0000 + start32 - start16)
.code32
start32:
	movw $16, %ax
	movw %ax, %ds
	movw %ax, %es
	movl $0x10000, %edi
	xorl %eax, %eax
	movl $(3*1024), %ecx
	cld
	rep stosl
	movl $0x11003, 0x10000
	movl $0x12003, 0x11000
	movl $0x12003, 0x11018
	movl $0x00000083, 0x12000
	movl $0xffe00083, 0x12ff8
	movl %cr4, %eax
	orl $0x20, %eax
	movl %eax, %cr4
	movl $0x10000, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x100, %eax
	wrmsr
	movl %cr0, %eax
	orl $0x80000000, %eax
	movl %eax, %cr0
	ljmpl $24, $(0xffff0000 + start64 - start16)
.code64
start64:
	movl $10000000, %ecx
1:	movq %rcx, 0x20000
	addq $1, 0x20008
	decl %ecx
	jnz 1b
	movb $0x10, %al
	outb %al, $0xf4
2:	hlt
	jmp 2b
.balign 8
gdt:
	.quad 0
	.quad 0x00cf9b000000ffff
	.quad 0x00cf93000000ffff
	.quad 0x00af9b000000ffff
gdtr:
	.word 31
	.long 0xffff0000 + gdt - start16
.org 0xfff0
.code16
	jmp start16
.org 0x10000
