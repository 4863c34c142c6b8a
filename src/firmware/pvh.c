// SPDX-License-Identifier: MIT
/*
 * The PVH boot protocol (Xen docs/misc/pvh.pandoc, public/arch-x86/hvm/start_info.h): a 32-bit
 * entry point without paging, EBX pointing to a start info structure with memory map and modules.
 * The structure, its one module and its map lie in one page.
 */
#include "firmware/boot_internal.h"

#include <errno.h>

#define START_MAGIC   0x336ec578
#define START_VERSION 1 /* has the memory map */

/* start_info.h: struct hvm_start_info, version 1 */
#define START_NR_MODULES     12
#define START_MODLIST        16
#define START_CMDLINE        24
#define START_RSDP           32
#define START_MEMMAP         40
#define START_MEMMAP_ENTRIES 48

#define MODULE_AT         64 /* struct hvm_modlist_entry: address, size, command line, reserved */
#define MEMMAP_AT         128
#define MEMMAP_ENTRY_SIZE 24 /* struct hvm_memmap_table_entry: address, size, type, reserved */

static void start_info_fill(const struct boot *b, uint8_t *page)
{
	const struct memmap *map = b->map;

	put_le32(page, 0, START_MAGIC);
	put_le32(page, 4, START_VERSION);
	if (b->initrd.size) {
		put_le32(page, START_NR_MODULES, 1);
		put_le64(page, START_MODLIST, BOOT_INFO + MODULE_AT);
		put_le64(page, MODULE_AT, b->initrd_base);
		put_le64(page, MODULE_AT + 8, b->initrd.size);
	}
	put_le64(page, START_CMDLINE, BOOT_CMDLINE);
	put_le64(page, START_RSDP, b->config->rsdp);
	put_le64(page, START_MEMMAP, BOOT_INFO + MEMMAP_AT);
	put_le32(page, START_MEMMAP_ENTRIES, map->e820_count);
	for (unsigned i = 0; i < map->e820_count; i++) {
		size_t at = MEMMAP_AT + (size_t)i * MEMMAP_ENTRY_SIZE;

		put_le64(page, at, map->e820[i].base);
		put_le64(page, at + 8, map->e820[i].size);
		put_le32(page, at + 16, map->e820[i].type);
	}
}

int pvh_setup(struct boot *b, uint64_t entry, struct error *err)
{
	uint8_t page[BOOT_INFO_SIZE] = { 0 };
	int r;

	if (entry >= b->map->low_ram_end)
		return error_set(err, -ENOEXEC,
				 "the kernel's PVH entry point 0x%llx is not in memory",
				 (unsigned long long)entry);
	r = boot_initrd_high(b, UINT32_MAX, false, err);
	if (r < 0)
		return r;
	r = boot_cmdline_write(b, "", BOOT_CMDLINE_MAX, err);
	if (r < 0)
		return r;
	start_info_fill(b, page);
	r = boot_info_write(b, page, err);
	if (r < 0)
		return r;
	b->state.mode = BOOT_PROT32;
	b->state.rip = entry;
	b->state.rbx = BOOT_INFO;
	return 0;
}
