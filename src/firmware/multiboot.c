// SPDX-License-Identifier: MIT
/*
 * Multiboot 1 (GNU Multiboot Specification 0.6.96; sections named below are its). The image is an
 * ELF file, or any file whose header says what is to be loaded where. 64-bit ELF files, which the
 * specification does not know, are loaded alike and entered, as all are, in 32-bit mode.
 */
#include "firmware/boot_internal.h"

#include <errno.h>

#define HEADER_MAGIC     0x1badb002 /* 3.1.1 */
#define HEADER_MIN       12
#define HEADER_REQUIRED  0x0000fff8 /* flags that a loader must know, beyond those below */
#define HEADER_ADDRESSES BIT(16)    /* 3.1.2: load as the header says */
/* Flags 0 (modules on pages), 1 (memory map) are always met; 2 (video mode) is not, which the
 * information's own flags tell the kernel. */

#define BOOT_MAGIC 0x2badb002 /* 3.2 */

/* 3.3: boot information */
#define INFO_FLAGS           0
#define INFO_MEM_LOWER       4
#define INFO_MEM_UPPER       8
#define INFO_CMDLINE         16
#define INFO_MODS_COUNT      20
#define INFO_MODS_ADDR       24
#define INFO_MMAP_LENGTH     44
#define INFO_MMAP_ADDR       48
#define INFO_LOADER_NAME     64
#define INFO_HAS_MEM         BIT(0)
#define INFO_HAS_CMDLINE     BIT(2)
#define INFO_HAS_MODS        BIT(3)
#define INFO_HAS_MMAP        BIT(6)
#define INFO_HAS_LOADER_NAME BIT(9)

#define MODULE_AT       128
#define NAME_AT         160
#define MMAP_AT         192
#define MMAP_ENTRY_SIZE 24 /* a size field of 4 bytes, which does not count itself, and 20 more */

struct header {
	size_t at; /* in the file */
	uint32_t flags;
	uint32_t header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr;
};

static bool header_find(const struct boot *b, struct header *ret)
{
	for (size_t at = 0; at + HEADER_MIN <= b->head_size; at += 4) {
		struct reader r = reader_of(b->head + at, b->head_size - at);
		uint32_t magic = reader_le32(&r), flags = reader_le32(&r);

		if (magic != HEADER_MAGIC || magic + flags + reader_le32(&r))
			continue;
		*ret = (struct header){ .at = at, .flags = flags };
		ret->header_addr = reader_le32(&r);
		ret->load_addr = reader_le32(&r);
		ret->load_end_addr = reader_le32(&r);
		ret->bss_end_addr = reader_le32(&r);
		ret->entry_addr = reader_le32(&r);
		return reader_ok(&r) || !(flags & HEADER_ADDRESSES);
	}
	return false;
}

bool multiboot_probe(const struct boot *b)
{
	struct header h = { 0 };

	return header_find(b, &h);
}

/* 3.1.3: a flat image; zero as an end means "to the end of the file", "no zeroed memory". */
static int flat_load(struct boot *b, const struct header *h, struct error *err)
{
	uint64_t offset, size, zeroed = 0;
	int r;

	if (h->load_addr > h->header_addr || h->header_addr - h->load_addr > h->at)
		return error_set(
			err, -ENOEXEC,
			"the kernel's multiboot header asks to load from before the file's "
			"beginning");
	offset = h->at - (h->header_addr - h->load_addr);
	size = h->load_end_addr ? (uint64_t)h->load_end_addr - h->load_addr
				: b->kernel.size - offset;
	if (h->load_end_addr && h->load_end_addr < h->load_addr)
		return error_set(err, -ENOEXEC,
				 "the kernel's multiboot header ends before it loads");
	if (h->bss_end_addr > h->load_addr + size)
		zeroed = h->bss_end_addr - (h->load_addr + size);
	r = boot_image_claim(b, h->load_addr, size + zeroed, err);
	if (r < 0)
		return r;
	r = boot_file_load(b, &b->kernel, offset, h->load_addr, size, err);
	if (r < 0)
		return r;
	if (gmem_fill(b->gm, h->load_addr + size, 0, zeroed) < 0)
		return error_set(err, -EFAULT, "no memory for the kernel's zeroed data");
	return 0;
}

static int image_load(struct boot *b, const struct header *h, uint64_t *ret_entry,
		      struct error *err)
{
	uint64_t pvh;

	if (h->flags & HEADER_ADDRESSES) {
		*ret_entry = h->entry_addr;
		return flat_load(b, h, err);
	}
	if (!elf_probe(b))
		return error_set(err, -ENOEXEC,
				 "the kernel has a multiboot header without load addresses, and is "
				 "not an ELF file either");
	return elf_load(b, ret_entry, &pvh, err);
}

static void mmap_put(const struct memmap *map, uint8_t *page)
{
	put_le32(page, INFO_MMAP_ADDR, BOOT_INFO + MMAP_AT);
	put_le32(page, INFO_MMAP_LENGTH, map->e820_count * MMAP_ENTRY_SIZE);
	for (unsigned i = 0; i < map->e820_count; i++) {
		size_t at = MMAP_AT + (size_t)i * MMAP_ENTRY_SIZE;

		put_le32(page, at, MMAP_ENTRY_SIZE - 4);
		put_le64(page, at + 4, map->e820[i].base);
		put_le64(page, at + 12, map->e820[i].size);
		put_le32(page, at + 20, map->e820[i].type);
	}
}

static int info_write(struct boot *b, struct error *err)
{
	uint8_t page[BOOT_INFO_SIZE] = { 0 };
	uint32_t flags = INFO_HAS_MEM | INFO_HAS_CMDLINE | INFO_HAS_MMAP | INFO_HAS_LOADER_NAME;

	put_le32(page, INFO_MEM_LOWER, (uint32_t)(MEMMAP_LEGACY_HOLE / KIB));
	put_le32(page, INFO_MEM_UPPER, (uint32_t)((b->map->low_ram_end - MIB) / KIB));
	put_le32(page, INFO_CMDLINE, BOOT_CMDLINE);
	put_le32(page, INFO_LOADER_NAME, BOOT_INFO + NAME_AT);
	memcpy(page + NAME_AT, "Partita", sizeof("Partita"));
	if (b->initrd.size) {
		flags |= INFO_HAS_MODS;
		put_le32(page, INFO_MODS_COUNT, 1);
		put_le32(page, INFO_MODS_ADDR, BOOT_INFO + MODULE_AT);
		put_le32(page, MODULE_AT, (uint32_t)b->initrd_base);
		put_le32(page, MODULE_AT + 4, (uint32_t)(b->initrd_base + b->initrd.size));
		/* Its name: an empty string, which lies in the page's zeros. */
		put_le32(page, MODULE_AT + 8, BOOT_INFO + MODULE_AT + 12);
	}
	put_le32(page, INFO_FLAGS, flags);
	mmap_put(b->map, page);
	return boot_info_write(b, page, err);
}

int multiboot_load(struct boot *b, struct error *err)
{
	const char *name = b->config->kernel_name ? b->config->kernel_name : "kernel";
	struct header h = { 0 };
	uint64_t entry = 0;
	int r;

	if (!header_find(b, &h) || h.flags & HEADER_REQUIRED)
		return error_set(err, -ENOEXEC,
				 "the kernel's multiboot header asks for features that are not "
				 "specified (flags 0x%x)",
				 h.flags);
	r = image_load(b, &h, &entry, err);
	if (r < 0)
		return r;
	if (entry >= b->map->low_ram_end)
		return error_set(err, -ENOEXEC, "the kernel's entry point 0x%llx is not in memory",
				 (unsigned long long)entry);
	r = boot_initrd_low(b, err);
	if (r < 0)
		return r;
	r = boot_cmdline_write(b, name, BOOT_CMDLINE_MAX, err);
	if (r < 0)
		return r;
	r = info_write(b, err);
	if (r < 0)
		return r;
	b->state.mode = BOOT_PROT32;
	b->state.rip = entry;
	b->state.rax = BOOT_MAGIC;
	b->state.rbx = BOOT_INFO;
	return 0;
}
