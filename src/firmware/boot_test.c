// SPDX-License-Identifier: MIT
/*
 * Loaders over tiny images made here: what lands where, what the kernel is told, and that a broken
 * or unfitting file is refused with the reason.
 */
#include "firmware/boot.h"

#include "lib/cleanup.h"

#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define RSDP 0xe0000
#define INFO 0x9000 /* where the loader puts what it tells the kernel */

struct fixture {
	struct memmap map;
	struct gmem *gm;
	struct boot_config config;
	struct boot_state state;
	struct error err;
};

static void fixture_open(struct fixture *f, uint64_t ram)
{
	memset(f, 0, sizeof(*f));
	assert_int_equal(memmap_init(ram, 40, &f->map, &f->err), 0);
	assert_int_equal(gmem_new(f->map.ranges, f->map.range_count, &f->gm, &f->err), 0);
	f->config = (struct boot_config){
		.kernel_fd = -1,
		.initrd_fd = -1,
		.cmdline = "console=ttyS0",
		.memmap = &f->map,
		.rsdp = RSDP,
	};
}

static void fixture_close(struct fixture *f)
{
	gmem_free(f->gm);
	close_p(&f->config.kernel_fd);
	close_p(&f->config.initrd_fd);
}

static int file_of(const void *data, size_t size)
{
	int fd = memfd_create("boot-test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, data, size, 0), size);
	return fd;
}

static int load(struct fixture *f, const void *kernel, size_t size)
{
	close_p(&f->config.kernel_fd);
	f->config.kernel_fd = file_of(kernel, size);
	f->err = (struct error){ 0 };
	return boot_load(f->gm, &f->config, &f->state, &f->err);
}

static void refused(struct fixture *f, const void *kernel, size_t size, int code, const char *says)
{
	assert_int_equal(load(f, kernel, size), code);
	if (!strstr(f->err.message, says))
		fail_msg("\"%s\" does not say \"%s\"", f->err.message, says);
}

static uint64_t peek(struct fixture *f, uint64_t gpa, size_t n)
{
	uint64_t v = 0;

	assert_int_equal(gmem_read(f->gm, gpa, &v, n), 0);
	return v;
}

static void poke(uint8_t *image, size_t at, uint64_t v, size_t n)
{
	memcpy(image + at, &v, n);
}

static void memory_is(struct fixture *f, uint64_t gpa, const char *text)
{
	char buffer[64] = { 0 };

	assert_int_equal(gmem_read(f->gm, gpa, buffer, strlen(text)), 0);
	assert_string_equal(buffer, text);
}

/* --- bzImage --- */

#define SETUP_SIZE (2 * 512)
#define BZ_SIZE    (SETUP_SIZE + 4096)

static void bzimage_make(uint8_t image[static BZ_SIZE])
{
	memset(image, 0, BZ_SIZE);
	image[0x1f1] = 1;                 /* setup sectors */
	poke(image, 0x1f4, 4096 / 16, 4); /* syssize */
	poke(image, 0x1fe, 0xaa55, 2);
	image[0x200] = 0xeb;
	image[0x201] = 0x6a; /* the header ends at 0x26c */
	memcpy(image + 0x202, "HdrS", 4);
	poke(image, 0x206, 0x20f, 2);
	image[0x211] = 1; /* loaded high */
	poke(image, 0x22c, 0x7fffffff, 4);
	poke(image, 0x230, 0x200000, 4);
	image[0x234] = 1;
	poke(image, 0x236, 3, 2); /* 64-bit, may be above 4 GiB */
	poke(image, 0x238, 2047, 4);
	poke(image, 0x258, 0x1000000, 8);
	poke(image, 0x260, 0x200000, 4);
	memcpy(image + SETUP_SIZE, "kernel", 6);
}

static void test_bzimage(void **state)
{
	uint8_t image[BZ_SIZE];
	struct fixture f;

	(void)state;
	bzimage_make(image);
	fixture_open(&f, 64 * MIB);
	f.config.initrd_fd = file_of("initrd", 6);
	assert_int_equal(load(&f, image, sizeof(image)), 0);
	assert_int_equal(f.state.mode, BOOT_LONG64);
	assert_int_equal(f.state.rip, 0x1000200);
	assert_int_equal(f.state.rsi, INFO);
	memory_is(&f, 0x1000000, "kernel");
	memory_is(&f, INFO + 0x202, "HdrS");
	assert_int_equal(peek(&f, INFO + 0x70, 8), RSDP);
	assert_int_equal(peek(&f, INFO + 0x1e8, 1), 4);
	assert_int_equal(peek(&f, INFO + 0x2d0 + 3 * 20, 8), MIB);
	assert_int_equal(peek(&f, INFO + 0x2d0 + 3 * 20 + 8, 8), 63 * MIB);
	assert_int_equal(peek(&f, INFO + 0x2d0 + 3 * 20 + 16, 4), 1);
	assert_int_equal(peek(&f, INFO + 0x210, 1), 0xff);
	assert_int_equal(peek(&f, INFO + 0x218, 4), 64 * MIB - 4096);
	assert_int_equal(peek(&f, INFO + 0x21c, 4), 6);
	assert_int_equal(peek(&f, INFO + 0x26c, 4), 0); /* nothing behind the header is copied */
	memory_is(&f, 64 * MIB - 4096, "initrd");
	memory_is(&f, peek(&f, INFO + 0x228, 4), "console=ttyS0");
	fixture_close(&f);
}

/* Walks the loader's page tables as the processor would. */
static void test_page_tables_are_the_identity(void **state)
{
	static const uint64_t addresses[] = {
		0, 0x9000, 0x1000200, GIB, 3 * GIB + 0x345678, 4 * GIB - 1
	};
	uint8_t image[BZ_SIZE];
	struct fixture f;

	(void)state;
	bzimage_make(image);
	fixture_open(&f, 64 * MIB);
	assert_int_equal(load(&f, image, sizeof(image)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
		uint64_t a = addresses[i], e = f.state.cr3;

		e = peek(&f, e + 8 * (a >> 39 & 511), 8);
		assert_int_equal(e & 0x83, 0x03);
		e = peek(&f, (e & ~0xfffull) + 8 * (a >> 30 & 511), 8);
		assert_int_equal(e & 0x83, 0x03);
		e = peek(&f, (e & ~0xfffull) + 8 * (a >> 21 & 511), 8);
		assert_int_equal(e & 0x83, 0x83);
		assert_int_equal((e & ~0x1fffffull) | (a & 0x1fffff), a);
	}
	assert_int_equal(f.state.gdt_limit, 31);
	assert_int_equal(peek(&f, f.state.gdt_base + BOOT_CODE_SELECTOR, 8), 0x00af9b000000ffff);
	fixture_close(&f);
}

static void test_bzimage_refusals(void **state)
{
	static const struct {
		size_t at, n;
		uint64_t value;
		int code;
		const char *says;
	} cases[] = {
		{ 0x206, 2, 0x20b, -ENOEXEC, "protocol 2.11" },
		{ 0x211, 1, 0, -ENOEXEC, "zImage" },
		{ 0x236, 2, 0, -ENOEXEC, "32-bit" },
		{ 0x230, 4, 0x300000, -ENOEXEC, "damaged" },
		{ 0x230, 4, 0, -ENOEXEC, "damaged" },
		{ 0x201, 1, 0x10, -ENOEXEC, "damaged" },
		{ 0x201, 1, 0xff, -ENOEXEC, "damaged" },
		{ 0x1f4, 4, 0, -ENOEXEC, "damaged" },
		{ 0x1f4, 4, 4096 / 16 + 2, -EIO, "truncated" },
		{ 0x1f4, 4, 0xffffffff, -EIO, "truncated" },
		{ 0x1f1, 1, 200, -EIO, "truncated" },
		{ 0x258, 8, 0x100000000, -ENOSPC, "beyond the end" },
		{ 0x258, 8, UINT64_MAX, -ENOEXEC, "damaged" },
		{ 0x258, 8, 0x3e00001, -ENOSPC, "64 MiB" },
		{ 0x260, 4, 0xffffffff, -ENOSPC, "beyond the end" },
		{ 0x238, 4, 12, -E2BIG, "command line has 13 bytes; at most 12" },
	};
	struct fixture f;

	(void)state;
	fixture_open(&f, 64 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t image[BZ_SIZE];

		bzimage_make(image);
		poke(image, cases[i].at, cases[i].value, cases[i].n);
		refused(&f, image, sizeof(image), cases[i].code, cases[i].says);
	}
	fixture_close(&f);
}

static void test_bzimage_low_preference(void **state)
{
	uint8_t image[BZ_SIZE];
	struct fixture f;

	(void)state;
	fixture_open(&f, 64 * MIB);
	bzimage_make(image);
	poke(image, 0x258, 0, 8);
	assert_int_equal(load(&f, image, sizeof(image)), 0);
	assert_int_equal(f.state.rip, 0x200200);
	image[0x234] = 0; /* not relocatable: it would have to be at 0 */
	refused(&f, image, sizeof(image), -ENOSPC, "over the loader's own data");
	fixture_close(&f);
}

static int initrd_of(uint64_t size)
{
	int fd = memfd_create("initrd", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static void test_initrd_too_large(void **state)
{
	uint8_t image[BZ_SIZE];
	struct fixture f;

	(void)state;
	bzimage_make(image);
	fixture_open(&f, 64 * MIB);
	f.config.initrd_fd = initrd_of(46 * MIB); /* what the kernel leaves, exactly */
	assert_int_equal(load(&f, image, sizeof(image)), 0);
	assert_int_equal(peek(&f, INFO + 0x218, 4), 18 * MIB);
	close(f.config.initrd_fd);
	f.config.initrd_fd = initrd_of(46 * MIB + 1);
	refused(&f, image, sizeof(image), -ENOSPC, "initial RAM disk (47104 KiB) does not fit");
	fixture_close(&f);
}

/* A hole of 4 GiB costs nothing in a memfd, and reading it costs only zeros: 3 MiB are enough. */
static void test_initrd_above_4g(void **state)
{
	uint8_t image[BZ_SIZE];
	struct fixture f;

	(void)state;
	bzimage_make(image);
	poke(image, 0x22c, 0x13fffff, 4); /* at most to 20 MiB: 2 MiB are free below */
	fixture_open(&f, MEMMAP_LOW_GAP + 4 * MIB);
	f.config.initrd_fd = initrd_of(3 * MIB);
	assert_int_equal(pwrite(f.config.initrd_fd, "initrd", 6, 0), 6);
	assert_int_equal(load(&f, image, sizeof(image)), 0);
	assert_int_equal(peek(&f, INFO + 0x218, 4), MIB);
	assert_int_equal(peek(&f, INFO + 0xc0, 4), 1);
	memory_is(&f, 4 * GIB + MIB, "initrd");
	poke(image, 0x236, 1, 2); /* 64-bit, but not above 4 GiB */
	refused(&f, image, sizeof(image), -ENOSPC, "does not fit");
	fixture_close(&f);
}

/* --- ELF: PVH and multiboot --- */

#define ELF_SIZE 4096
#define ELF_TEXT 1024
#define ELF_NOTE 512

/* One segment of 64 bytes in the file and 8192 in memory at 1 MiB; a note segment. */
static void elf64_make(uint8_t image[static ELF_SIZE], uint32_t note_type)
{
	Elf64_Ehdr *e = (void *)image;
	Elf64_Phdr *p = (void *)(image + sizeof(*e));

	memset(image, 0, ELF_SIZE);
	memcpy(e->e_ident, ELFMAG, SELFMAG);
	e->e_ident[EI_CLASS] = ELFCLASS64;
	e->e_ident[EI_DATA] = ELFDATA2LSB;
	e->e_type = ET_EXEC;
	e->e_machine = EM_X86_64;
	e->e_entry = 0xffffffff80000010;
	e->e_phoff = sizeof(*e);
	e->e_phentsize = sizeof(*p);
	e->e_phnum = 2;
	p[0] = (Elf64_Phdr){ .p_type = PT_LOAD,
			     .p_offset = ELF_TEXT,
			     .p_vaddr = 0xffffffff80000000,
			     .p_paddr = MIB,
			     .p_filesz = 64,
			     .p_memsz = 8192 };
	p[1] = (Elf64_Phdr){
		.p_type = PT_NOTE, .p_offset = ELF_NOTE, .p_filesz = 48, .p_memsz = 48
	};
	poke(image, ELF_NOTE, 4, 4); /* another note first */
	poke(image, ELF_NOTE + 4, 6, 4);
	memcpy(image + ELF_NOTE + 12, "Xen", 4);
	poke(image, ELF_NOTE + 24, 4, 4);
	poke(image, ELF_NOTE + 28, 8, 4);
	poke(image, ELF_NOTE + 32, note_type, 4);
	memcpy(image + ELF_NOTE + 36, "Xen", 4);
	poke(image, ELF_NOTE + 40, MIB + 0x20, 8);
	memcpy(image + ELF_TEXT, "text", 4);
}

static void test_pvh(void **state)
{
	uint8_t image[ELF_SIZE];
	struct fixture f;

	(void)state;
	elf64_make(image, 18);
	fixture_open(&f, 64 * MIB);
	assert_int_equal(gmem_fill(f.gm, MIB, 0xee, 16384), 0);
	f.config.initrd_fd = file_of("initrd", 6);
	assert_int_equal(load(&f, image, sizeof(image)), 0);
	assert_int_equal(f.state.mode, BOOT_PROT32);
	assert_int_equal(f.state.rip, MIB + 0x20);
	assert_int_equal(f.state.rbx, INFO);
	assert_int_equal(f.state.cr3, 0);
	assert_int_equal(peek(&f, f.state.gdt_base + BOOT_CODE_SELECTOR, 8), 0x00cf9b000000ffff);
	memory_is(&f, MIB, "text");
	assert_int_equal(peek(&f, MIB + 64, 8), 0);
	assert_int_equal(peek(&f, MIB + 8184, 8), 0);
	assert_int_equal(peek(&f, MIB + 8192, 1), 0xee);
	assert_int_equal(peek(&f, INFO, 4), 0x336ec578);
	assert_int_equal(peek(&f, INFO + 4, 4), 1);
	assert_int_equal(peek(&f, INFO + 12, 4), 1);
	memory_is(&f, peek(&f, peek(&f, INFO + 16, 8), 8), "initrd");
	memory_is(&f, peek(&f, INFO + 24, 8), "console=ttyS0");
	assert_int_equal(peek(&f, INFO + 32, 8), RSDP);
	assert_int_equal(peek(&f, INFO + 48, 4), 4);
	assert_int_equal(peek(&f, peek(&f, INFO + 40, 8) + 3 * 24, 8), MIB);
	fixture_close(&f);
}

static void test_elf_refusals(void **state)
{
	static const struct {
		size_t at, n;
		uint64_t value;
		int code;
		const char *says;
	} cases[] = {
		{ 18, 2, EM_AARCH64, -ENOEXEC, "another processor (machine 183)" },
		{ 5, 1, ELFDATA2MSB, -ENOEXEC, "another processor" },
		{ 56, 2, 0, -ENOEXEC, "0 segments" },
		{ 56, 2, 0xffff, -ENOEXEC, "65535 segments" },
		{ 54, 2, 32, -ENOEXEC, "of 32 bytes" },
		{ 32, 8, UINT64_MAX - 8, -EIO, "truncated" },
		{ 32, 8, ELF_SIZE - 56, -EIO, "truncated" },
		{ 64, 4, PT_NULL, -ENOEXEC, "nothing to load" },
		{ 64 + 8, 8, ELF_SIZE - 32, -EIO, "truncated" },
		{ 64 + 8, 8, UINT64_MAX, -EIO, "truncated" },
		{ 64 + 24, 8, 0x8000, -ENOSPC, "loader's own data" },
		{ 64 + 24, 8, 0xb0000, -ENOSPC, "reserved memory" },
		{ 64 + 24, 8, 64 * MIB - 4096, -ENOSPC, "beyond the end" },
		{ 64 + 24, 8, UINT64_MAX, -ENOSPC, "beyond the end" },
		{ 64 + 32, 8, 8193, -ENOEXEC, "larger in the file" },
		{ 64 + 40, 8, UINT64_MAX, -ENOSPC, "do not fit" },
		{ 64 + 56 + 8, 8, ELF_SIZE, -EIO, "truncated" },
		{ ELF_NOTE + 24, 4, UINT32_MAX, -ENOEXEC, "neither a PVH" },
		{ ELF_NOTE + 28, 4, UINT32_MAX, -ENOEXEC, "neither a PVH" },
		{ ELF_NOTE + 28, 4, 3, -ENOEXEC, "neither a PVH" },
		{ ELF_NOTE + 32, 4, 17, -ENOEXEC, "neither a PVH" },
		{ ELF_NOTE + 40, 8, UINT64_MAX, -ENOEXEC, "entry point" },
	};
	struct fixture f;

	(void)state;
	fixture_open(&f, 64 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t image[ELF_SIZE];

		elf64_make(image, 18);
		poke(image, cases[i].at, cases[i].value, cases[i].n);
		refused(&f, image, sizeof(image), cases[i].code, cases[i].says);
	}
	fixture_close(&f);
}

static void multiboot_header(uint8_t *at, uint32_t flags)
{
	poke(at, 0, 0x1badb002, 4);
	poke(at, 4, flags, 4);
	poke(at, 8, -(0x1badb002 + flags), 4);
}

static void test_multiboot_elf(void **state)
{
	uint8_t image[ELF_SIZE];
	struct fixture f;

	(void)state;
	elf64_make(image, 0);
	multiboot_header(image + 800, 3);
	fixture_open(&f, 64 * MIB);
	f.config.initrd_fd = file_of("initrd", 6);
	f.config.kernel_name = "test.elf";
	assert_int_equal(load(&f, image, sizeof(image)), 0);
	assert_int_equal(f.state.mode, BOOT_PROT32);
	assert_int_equal(f.state.rip, MIB + 0x10); /* a virtual entry, as a physical one */
	assert_int_equal(f.state.rax, 0x2badb002);
	assert_int_equal(f.state.rbx, INFO);
	memory_is(&f, MIB, "text");
	assert_int_equal(peek(&f, INFO, 4), 0x24d);
	assert_int_equal(peek(&f, INFO + 4, 4), 640);
	assert_int_equal(peek(&f, INFO + 8, 4), 63 * 1024);
	memory_is(&f, peek(&f, INFO + 16, 4), "test.elf console=ttyS0");
	assert_int_equal(peek(&f, INFO + 20, 4), 1);
	assert_int_equal(peek(&f, peek(&f, INFO + 24, 4), 4), MIB + 8192);
	assert_int_equal(peek(&f, peek(&f, INFO + 24, 4) + 4, 4), MIB + 8192 + 6);
	memory_is(&f, MIB + 8192, "initrd");
	assert_int_equal(peek(&f, INFO + 44, 4), 4 * 24);
	assert_int_equal(peek(&f, peek(&f, INFO + 48, 4), 4), 20);
	multiboot_header(image + 800, 0x8003);
	refused(&f, image, sizeof(image), -ENOEXEC, "flags 0x8003");
	fixture_close(&f);
}

#define FLAT_SIZE   4096
#define FLAT_HEADER 64

static void flat_make(uint8_t image[static FLAT_SIZE])
{
	memset(image, 0x90, FLAT_SIZE);
	multiboot_header(image + FLAT_HEADER, 0x10003);
	poke(image, FLAT_HEADER + 12, 2 * MIB + 32, 4);   /* header */
	poke(image, FLAT_HEADER + 16, 2 * MIB, 4);        /* load: 32 bytes into the file */
	poke(image, FLAT_HEADER + 20, 2 * MIB + 100, 4);  /* load end */
	poke(image, FLAT_HEADER + 24, 2 * MIB + 4096, 4); /* bss end */
	poke(image, FLAT_HEADER + 28, 2 * MIB + 64, 4);   /* entry */
}

static void test_multiboot_flat(void **state)
{
	uint8_t image[FLAT_SIZE];
	struct fixture f;

	(void)state;
	flat_make(image);
	fixture_open(&f, 64 * MIB);
	assert_int_equal(gmem_fill(f.gm, 2 * MIB, 0xee, 8192), 0);
	assert_int_equal(load(&f, image, sizeof(image)), 0);
	assert_int_equal(f.state.rip, 2 * MIB + 64);
	assert_int_equal(peek(&f, 2 * MIB + 32, 4), 0x1badb002);
	assert_int_equal(peek(&f, 2 * MIB + 99, 2), 0x90);
	assert_int_equal(peek(&f, 2 * MIB + 4095, 2), 0xee00);
	poke(image, FLAT_HEADER + 20, 0, 4); /* to the end of the file */
	assert_int_equal(load(&f, image, sizeof(image)), 0);
	assert_int_equal(peek(&f, 2 * MIB + FLAT_SIZE - 33, 2), 0x90);
	fixture_close(&f);
}

static void test_multiboot_flat_refusals(void **state)
{
	static const struct {
		size_t at;
		uint32_t value;
		int code;
		const char *says;
	} cases[] = {
		{ 12, 2 * MIB - 1, -ENOEXEC, "before the file's beginning" },
		{ 12, 2 * MIB + 65, -ENOEXEC, "before the file's beginning" },
		{ 20, 2 * MIB - 1, -ENOEXEC, "ends before" },
		{ 20, 2 * MIB + 4096, -EIO, "truncated" },
		{ 24, UINT32_MAX, -ENOSPC, "beyond the end" },
		{ 28, UINT32_MAX, -ENOEXEC, "entry point" },
	};
	struct fixture f;

	(void)state;
	fixture_open(&f, 64 * MIB);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		uint8_t image[FLAT_SIZE];

		flat_make(image);
		poke(image, FLAT_HEADER + cases[i].at, cases[i].value, 4);
		refused(&f, image, sizeof(image), cases[i].code, cases[i].says);
	}
	fixture_close(&f);
}

static void test_not_kernels(void **state)
{
	struct fixture f;
	int pipes[2];

	(void)state;
	fixture_open(&f, 16 * MIB);
	refused(&f, "", 0, -ENOEXEC, "it is empty");
	refused(&f, "\x1f\x8b\x08", 3, -ENOEXEC, "gzip");
	refused(&f, "vhdxfile", 8, -ENOEXEC, "VHDX");
	refused(&f, "hello", 5, -ENOEXEC, "beginning with 68 65 6c 6c");
	refused(&f,
		"\x7f"
		"ELF",
		4, -ENOEXEC, "not a kernel");
	refused(&f,
		"\x7f"
		"ELF\x02\x01            ",
		18, -EIO, "truncated");
	assert_int_equal(pipe(pipes), 0);
	close_p(&f.config.kernel_fd);
	f.config.kernel_fd = pipes[0];
	assert_int_equal(boot_load(f.gm, &f.config, &f.state, &f.err), -EINVAL);
	assert_non_null(strstr(f.err.message, "not a regular file"));
	close(pipes[1]);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bzimage),
		cmocka_unit_test(test_page_tables_are_the_identity),
		cmocka_unit_test(test_bzimage_refusals),
		cmocka_unit_test(test_bzimage_low_preference),
		cmocka_unit_test(test_initrd_too_large),
		cmocka_unit_test(test_initrd_above_4g),
		cmocka_unit_test(test_pvh),
		cmocka_unit_test(test_elf_refusals),
		cmocka_unit_test(test_multiboot_elf),
		cmocka_unit_test(test_multiboot_flat),
		cmocka_unit_test(test_multiboot_flat_refusals),
		cmocka_unit_test(test_not_kernels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
