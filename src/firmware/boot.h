/* SPDX-License-Identifier: MIT */
/*
 * Starting a kernel without firmware: the file is recognised by its content, put into guest memory
 * with its initial RAM disk and command line, and the state in which its protocol wants the first
 * processor is returned.
 *
 *	bzImage		Linux boot protocol 2.12 and up, 64-bit entry
 *	PVH		ELF with the Xen note PHYS32_ENTRY
 *	multiboot 1	32- and 64-bit ELF, or any file whose header gives load addresses
 */
#pragma once

#include "firmware/memmap.h"
#include "gmem/gmem.h"
#include "lib/error.h"

#define BOOT_CMDLINE_MAX 4095

#define BOOT_CODE_SELECTOR 0x10 /* as the Linux boot protocol demands; used for all kernels */
#define BOOT_DATA_SELECTOR 0x18 /* DS, ES, SS, and FS and GS too */

struct boot_config {
	int kernel_fd;           /* borrowed; a regular file, read by offset */
	int initrd_fd;           /* likewise; -1 = none */
	const char *kernel_name; /* first word of a multiboot command line; NULL = "kernel" */
	const char *cmdline;     /* NULL = "" */
	const struct memmap *memmap;
	uint64_t rsdp; /* guest address of the ACPI root pointer; 0 = none */
};

/*
 * Both modes: interrupts off (RFLAGS = 2), flat segments whose descriptors are in the GDT: base 0,
 * limit 4 GiB, code execute/read, data read/write. The IDT is empty. Registers not named are 0.
 */
enum boot_mode {
	BOOT_LONG64, /* CR0.PE|PG, CR4.PAE, EFER.LME|LMA, cr3 below; 64-bit code segment */
	BOOT_PROT32, /* CR0.PE, no paging; TR is a 32-bit TSS with base 0 and limit 0x67 */
};

struct boot_state {
	enum boot_mode mode;
	uint64_t rip, rsp, rax, rbx, rsi;
	uint64_t cr3; /* identity map of the first 4 GiB; 0 in BOOT_PROT32 */
	uint64_t gdt_base;
	uint16_t gdt_limit;
};

/*
 * Guest memory is not cleared first: after a reset its owner does that. On failure it holds a part
 * of what was to be loaded.
 */
int boot_load(struct gmem *gm, const struct boot_config *config, struct boot_state *ret,
	      struct error *err) _must_check_;
