/* SPDX-License-Identifier: MIT */
/* What the loaders of this folder share. */
#pragma once

#include "firmware/boot.h"
#include "lib/cursor.h"

/*
 * The loader's own data in guest memory. A kernel image must not cover it; Linux keeps off (its
 * zero page and command line are reserved by itself, the rest is dead once it has its own tables).
 */
#define BOOT_AREA        UINT64_C(0x1000)
#define BOOT_GDT         UINT64_C(0x1000)
#define BOOT_PAGE_TABLES UINT64_C(0x2000) /* PML4, PDPT and four page directories */
#define BOOT_STACK_TOP   UINT64_C(0x9000)
#define BOOT_INFO        UINT64_C(0x9000) /* zero page, PVH start info or multiboot information */
#define BOOT_INFO_SIZE   4096
#define BOOT_CMDLINE     UINT64_C(0xa000)
#define BOOT_AREA_END    UINT64_C(0xc000)

#define BOOT_HEAD_SIZE 8192 /* multiboot 3.1: the header is in here */

struct boot_file {
	const char *what; /* for messages: "kernel", "initial RAM disk" */
	int fd;           /* -1 = none */
	uint64_t size;
};

struct boot {
	struct gmem *gm;
	const struct boot_config *config;
	const struct memmap *map;
	struct boot_file kernel, initrd;
	uint8_t head[BOOT_HEAD_SIZE]; /* copy of the kernel file's beginning; zeros after its end */
	size_t head_size;
	uint64_t image_end; /* guest address behind all that the kernel image occupies */
	uint64_t initrd_base;
	struct boot_state state;
};

/* All or -EIO; a file that is shorter (now) than it should be is reported as truncated. */
int boot_file_read(const struct boot_file *file, uint64_t offset, void *dst, size_t size,
		   struct error *err) _must_check_;
/* Straight into guest memory, which the caller has checked to be RAM. */
int boot_file_load(struct boot *b, const struct boot_file *file, uint64_t offset, uint64_t gpa,
		   uint64_t size, struct error *err) _must_check_;
/* Is [gpa, gpa + size) low RAM that a kernel may occupy? Moves image_end. */
int boot_image_claim(struct boot *b, uint64_t gpa, uint64_t size, struct error *err) _must_check_;
/* Loads the initial RAM disk, if there is one, as high as possible and at most up to `last`. */
int boot_initrd_high(struct boot *b, uint64_t last, bool above_4g, struct error *err) _must_check_;
/* The same, on the first page behind the kernel. */
int boot_initrd_low(struct boot *b, struct error *err) _must_check_;
int boot_cmdline_write(struct boot *b, const char *first, size_t max,
		       struct error *err) _must_check_;
/* A page of information for the kernel, at BOOT_INFO. */
int boot_info_write(struct boot *b, const uint8_t page[static BOOT_INFO_SIZE],
		    struct error *err) _must_check_;

bool bzimage_probe(const struct boot *b);
int bzimage_load(struct boot *b, struct error *err) _must_check_;

bool multiboot_probe(const struct boot *b);
int multiboot_load(struct boot *b, struct error *err) _must_check_;

bool elf_probe(const struct boot *b);
/*
 * Loads the segments of an ELF file at their physical addresses. *ret_entry is the entry point as a
 * physical address; *ret_pvh is what the PHYS32_ENTRY note says, 0 when there is none.
 */
int elf_load(struct boot *b, uint64_t *ret_entry, uint64_t *ret_pvh,
	     struct error *err) _must_check_;
int pvh_setup(struct boot *b, uint64_t entry, struct error *err) _must_check_;

static inline void put_le32(uint8_t *page, size_t at, uint32_t v)
{
	le32 x = le32_of(v);

	memcpy(page + at, &x, sizeof(x));
}

static inline void put_le64(uint8_t *page, size_t at, uint64_t v)
{
	le64 x = le64_of(v);

	memcpy(page + at, &x, sizeof(x));
}
