/* SPDX-License-Identifier: MIT */
/*
 * The few instructions that C cannot say: the multiboot entry and the way into long mode with an
 * identity map of 4 GiB, the real-mode beginning of the other processors, and the interrupt gates.
 */
#define CODE64 0x08
#define DATA   0x10
#define CODE32 0x18
#define STACK_SIZE 16384

	.section .multiboot, "a"
	.balign 4
	.long 0x1badb002, 3, -(0x1badb002 + 3)

	.text
	.code32
	.globl start32
start32:
	cli
	cld
	movl	$stacks + STACK_SIZE, %esp
	movl	%eax, multiboot_magic
	movl	%ebx, multiboot_info

	/* 2 MiB pages; the last GiB, where the APICs are, uncached. */
	movl	$page_directories, %edi
	movl	$0x83, %eax
1:	movl	%eax, (%edi)
	movl	$0, 4(%edi)
	cmpl	$0xc0000000, %eax
	jb	2f
	orl	$0x10, (%edi)
2:	addl	$8, %edi
	addl	$0x200000, %eax
	jnc	1b
	movl	$page_directories + 3, %eax
	movl	$pdpt, %edi
	movl	$4, %ecx
3:	movl	%eax, (%edi)
	addl	$8, %edi
	addl	$4096, %eax
	loop	3b
	movl	$pdpt + 3, pml4

	call	long_mode
	ljmp	$CODE64, $start64

	/* Paging on; the caller's far jump then enters 64-bit code. */
long_mode:
	lgdt	gdt_pointer
	movl	$pml4, %eax
	movl	%eax, %cr3
	movl	%cr4, %eax
	orl	$0x20, %eax
	movl	%eax, %cr4
	movl	$0xc0000080, %ecx	/* EFER.LME */
	rdmsr
	orl	$0x100, %eax
	wrmsr
	movl	%cr0, %eax
	andl	$0x9fffffff, %eax	/* CD, NW: as after INIT */
	orl	$0x80000001, %eax
	movl	%eax, %cr0
	ret

	.code64
start64:
	call	data_segments
	xorl	%ebp, %ebp
	call	guest_main
	hlt

data_segments:
	movl	$DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	%eax, %fs
	movl	%eax, %gs
	ret

	/* Copied below 1 MiB; DS is made equal to CS, so offsets from its beginning do. */
	.code16
	.globl ap_start, ap_end
ap_start:
	cli
	movw	%cs, %ax
	movw	%ax, %ds
	lgdtl	ap_gdt_pointer - ap_start
	movl	%cr0, %eax
	orl	$1, %eax
	movl	%eax, %cr0
	ljmpl	$CODE32, $ap32
	.balign 4
ap_gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
ap_end:

	.code32
ap32:
	movl	$DATA, %eax
	movl	%eax, %ds
	movl	%eax, %ss
	movl	ap_stack, %esp
	call	long_mode
	ljmp	$CODE64, $ap64

	.code64
ap64:
	call	data_segments
	movl	ap_stack, %esp		/* clears the upper half */
	xorl	%ebp, %ebp
	call	ap_main
	hlt

	/* 256 gates of 16 bytes. Where the processor pushes no error code, a zero takes its place. */
	.balign 16
	.globl trap_gates
trap_gates:
vector = 0
	.rept 256
	.balign 16
	.if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21)
	pushq	$0
	.endif
	pushq	$vector
	jmp	trap_common
	vector = vector + 1
	.endr

trap_common:
	pushq	%rax
	pushq	%rbx
	pushq	%rcx
	pushq	%rdx
	pushq	%rsi
	pushq	%rdi
	pushq	%rbp
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	movq	%rsp, %rdi
	cld
	call	trap
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rbp
	popq	%rdi
	popq	%rsi
	popq	%rdx
	popq	%rcx
	popq	%rbx
	popq	%rax
	addq	$16, %rsp
	iretq

	.data
	.balign 8
gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* CODE64 */
	.quad	0x00cf93000000ffff	/* DATA */
	.quad	0x00cf9b000000ffff	/* CODE32 */
gdt_end:
gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
	.balign 8
	.globl multiboot_magic, multiboot_info, ap_stack
multiboot_magic:
	.long	0
multiboot_info:
	.long	0
ap_stack:
	.long	0

	.bss
	.balign 4096
pml4:	.skip	4096
pdpt:	.skip	4096
page_directories:
	.skip	4 * 4096

	.section .note.GNU-stack, "", @progbits
