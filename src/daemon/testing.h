/* SPDX-License-Identifier: MIT */
/*
 * For tests only: a folder of their own, which is gone afterwards; and for those that start workers
 * a kernel that is just enough for one to be loaded.
 */
#pragma once

#include "lib/types.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <elf.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static inline int test_remove(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

/* *state becomes the folder's path. */
static inline int test_folder_setup(void **state)
{
	const char *above = getenv("TMPDIR");
	char path[512];

	snprintf(path, sizeof(path), "%s/partita-test-XXXXXX", above ? above : "/tmp");
	*state = mkdtemp(path) ? strdup(path) : NULL;
	return *state ? 0 : -1;
}

static inline int test_folder_teardown(void **state)
{
	int r;

	chmod(*state, 0700);
	r = nftw(*state, test_remove, 8, FTW_DEPTH | FTW_PHYS);
	free(*state);
	return r;
}

#define TESTING_ENTRY UINT32_C(0x100000)

/* An ELF file with a PVH note; its code halts. For engine fake, which does not even run that. */
struct testing_kernel {
	Elf64_Ehdr header;
	Elf64_Phdr segments[2];
	uint8_t code[4];
	struct {
		Elf64_Nhdr header;
		char name[4];
		uint32_t entry;
	} note;
};

static inline int testing_kernel_write(const char *path)
{
	struct testing_kernel k = {
		.header = { .e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64,
					 ELFDATA2LSB, EV_CURRENT },
			    .e_type = ET_EXEC,
			    .e_machine = EM_X86_64,
			    .e_version = EV_CURRENT,
			    .e_entry = TESTING_ENTRY,
			    .e_phoff = offsetof(struct testing_kernel, segments),
			    .e_ehsize = sizeof(Elf64_Ehdr),
			    .e_phentsize = sizeof(Elf64_Phdr),
			    .e_phnum = 2 },
		.segments = { { .p_type = PT_LOAD,
				.p_flags = PF_R | PF_X,
				.p_offset = offsetof(struct testing_kernel, code),
				.p_vaddr = TESTING_ENTRY,
				.p_paddr = TESTING_ENTRY,
				.p_filesz = sizeof(k.code),
				.p_memsz = sizeof(k.code),
				.p_align = 4096 },
			      { .p_type = PT_NOTE,
				.p_flags = PF_R,
				.p_offset = offsetof(struct testing_kernel, note),
				.p_filesz = sizeof(k.note),
				.p_memsz = sizeof(k.note),
				.p_align = 4 } },
		.code = { 0xf4, 0xf4, 0xeb, 0xfe },
		.note = { .header = { 4, 4, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */ },
			  .name = "Xen",
			  .entry = TESTING_ENTRY },
	};
	FILE *f = fopen(path, "we");
	bool good = f && fwrite(&k, sizeof(k), 1, f) == 1;

	return f && !fclose(f) && good ? 0 : -1;
}

static inline int testing_remove_one(const char *path, const struct stat *st, int type,
				     struct FTW *ftw)
{
	(void)st, (void)type, (void)ftw;
	return remove(path);
}

static inline void testing_folder_remove(const char *path)
{
	nftw(path, testing_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}
