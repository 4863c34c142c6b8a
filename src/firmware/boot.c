// SPDX-License-Identifier: MIT
/*
 * Recognises a kernel file and loads it. Runs on the worker's main thread before any VP does, and
 * again at a reset. What the protocols have in common is here; each protocol has its own file.
 *
 * The files come from users: everything read from them is checked as a copy, and a range that is
 * loaded is first claimed in the memory map. Bulk data goes from the file straight into guest
 * memory.
 */
#include "firmware/boot_internal.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define LOAD_CHUNK GIB /* one preadv takes at most 2 GiB */

/* AMD64 volume 2, 4.7 and 4.8: segment descriptors; 5.3: page table entries */
#define DESCRIPTOR_CODE32 UINT64_C(0x00cf9b000000ffff)
#define DESCRIPTOR_CODE64 UINT64_C(0x00af9b000000ffff)
#define DESCRIPTOR_DATA   UINT64_C(0x00cf93000000ffff)
#define PTE_PRESENT       BIT64(0)
#define PTE_WRITE         BIT64(1)
#define PTE_LARGE         BIT64(7)

static int truncated(const struct boot_file *file, struct error *err)
{
	return error_set(err, -EIO,
			 "the %s file is truncated: more was expected than its %llu bytes",
			 file->what, (unsigned long long)file->size);
}

int boot_file_read(const struct boot_file *file, uint64_t offset, void *dst, size_t size,
		   struct error *err)
{
	uint8_t *to = dst;

	if (!range_inside(offset, size, file->size))
		return truncated(file, err);
	while (size) {
		ssize_t n = pread(file->fd, to, size, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(err, -errno, "cannot read the %s file", file->what);
		if (n == 0)
			return truncated(file, err);
		to += n, offset += (uint64_t)n, size -= (size_t)n;
	}
	return 0;
}

int boot_file_load(struct boot *b, const struct boot_file *file, uint64_t offset, uint64_t gpa,
		   uint64_t size, struct error *err)
{
	if (!range_inside(offset, size, file->size))
		return truncated(file, err);
	while (size) {
		struct iovec iov;
		unsigned count = 0;
		ssize_t n;

		if (gmem_iov(b->gm, gpa, MIN(size, LOAD_CHUNK), &iov, 1, &count) < 0)
			return error_set(err, -EFAULT, "the %s does not lie in memory at 0x%llx",
					 file->what, (unsigned long long)gpa);
		n = preadv(file->fd, &iov, 1, (off_t)offset);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return error_errno(err, -errno, "cannot read the %s file", file->what);
		if (n == 0)
			return truncated(file, err);
		offset += (uint64_t)n, gpa += (uint64_t)n, size -= (uint64_t)n;
	}
	return 0;
}

int boot_image_claim(struct boot *b, uint64_t gpa, uint64_t size, struct error *err)
{
	uint64_t end;
	const char *why = NULL;

	if (add_overflow(gpa, size, &end) || end > b->map->low_ram_end)
		why = "beyond the end of memory";
	else if (gpa < BOOT_AREA_END && end > BOOT_AREA)
		why = "over the loader's own data (0x1000 to 0xc000)";
	else if (gpa < MEMMAP_ACPI_BASE + MEMMAP_ACPI_SIZE && end > MEMMAP_LEGACY_HOLE)
		why = "over reserved memory (0xa0000 to 0x100000)";
	if (why)
		return error_set(
			err, -ENOSPC,
			"the kernel wants %llu bytes of memory at 0x%llx, which is %s; the "
			"machine has %llu MiB",
			(unsigned long long)size, (unsigned long long)gpa, why,
			(unsigned long long)(b->map->ram_size / MIB));
	b->image_end = MAX(b->image_end, end);
	return 0;
}

static int initrd_load_at(struct boot *b, uint64_t base, struct error *err)
{
	b->initrd_base = base;
	return boot_file_load(b, &b->initrd, 0, base, b->initrd.size, err);
}

static int initrd_too_large(const struct boot *b, struct error *err)
{
	return error_set(err, -ENOSPC,
			 "the initial RAM disk (%llu KiB) does not fit between the kernel's end at "
			 "%llu KiB and the end of the machine's %llu MiB of memory",
			 (unsigned long long)(b->initrd.size / KIB),
			 (unsigned long long)(b->image_end / KIB),
			 (unsigned long long)(b->map->ram_size / MIB));
}

int boot_initrd_high(struct boot *b, uint64_t last, bool above_4g, struct error *err)
{
	uint64_t size = b->initrd.size, end, high;

	if (!size)
		return 0;
	end = MIN(last, b->map->low_ram_end - 1) + 1;
	if (size <= end && round_down64(end - size, GMEM_PAGE_SIZE) >= MAX(b->image_end, MIB))
		return initrd_load_at(b, round_down64(end - size, GMEM_PAGE_SIZE), err);
	high = b->map->high_ram_end;
	if (above_4g && high > MEMMAP_HIGH_RAM && size <= high - MEMMAP_HIGH_RAM)
		return initrd_load_at(b, round_down64(high - size, GMEM_PAGE_SIZE), err);
	return initrd_too_large(b, err);
}

int boot_initrd_low(struct boot *b, struct error *err)
{
	uint64_t base = round_up64(MAX(b->image_end, MIB), GMEM_PAGE_SIZE);

	if (!b->initrd.size)
		return 0;
	if (!range_inside(base, b->initrd.size, b->map->low_ram_end))
		return initrd_too_large(b, err);
	return initrd_load_at(b, base, err);
}

int boot_cmdline_write(struct boot *b, const char *first, size_t max, struct error *err)
{
	const char *cmdline = b->config->cmdline ? b->config->cmdline : "";
	char text[BOOT_CMDLINE_MAX + 1];
	int n = snprintf(text, sizeof(text), "%s%s%s", first, *first && *cmdline ? " " : "",
			 cmdline);

	max = MIN(max, BOOT_CMDLINE_MAX);
	if (n < 0 || (size_t)n > max)
		return error_set(err, -E2BIG,
				 "the kernel command line has %d bytes; at most %zu fit", n, max);
	if (gmem_write(b->gm, BOOT_CMDLINE, text, (size_t)n + 1) < 0)
		return error_set(err, -EFAULT, "no memory for the kernel command line");
	return 0;
}

int boot_info_write(struct boot *b, const uint8_t page[static BOOT_INFO_SIZE], struct error *err)
{
	if (gmem_write(b->gm, BOOT_INFO, page, BOOT_INFO_SIZE) < 0)
		return error_set(err, -EFAULT, "no memory for the kernel's boot information");
	return 0;
}

/* Maps the first 4 GiB onto themselves with pages of 2 MiB, which every x86-64 processor has. */
static int page_tables_write(struct boot *b)
{
	uint64_t entries[512] = { 0 };
	uint64_t pdpt = BOOT_PAGE_TABLES + 0x1000, pd = BOOT_PAGE_TABLES + 0x2000;
	int r;

	entries[0] = pdpt | PTE_PRESENT | PTE_WRITE;
	r = gmem_write(b->gm, BOOT_PAGE_TABLES, entries, sizeof(entries));
	for (unsigned i = 0; i < 4; i++)
		entries[i] = (pd + i * 0x1000) | PTE_PRESENT | PTE_WRITE;
	if (!r)
		r = gmem_write(b->gm, pdpt, entries, sizeof(entries));
	for (unsigned i = 0; !r && i < 4; i++) {
		for (unsigned j = 0; j < 512; j++)
			entries[j] = (i * GIB + j * 2 * MIB) | PTE_PRESENT | PTE_WRITE | PTE_LARGE;
		r = gmem_write(b->gm, pd + i * 0x1000, entries, sizeof(entries));
	}
	b->state.cr3 = BOOT_PAGE_TABLES;
	return r;
}

/* The descriptors behind BOOT_CODE_SELECTOR and BOOT_DATA_SELECTOR, and what else the mode needs.
 */
static int mode_setup(struct boot *b, struct error *err)
{
	uint64_t gdt[4] = { 0 };
	int r;

	gdt[BOOT_CODE_SELECTOR / 8] =
		b->state.mode == BOOT_LONG64 ? DESCRIPTOR_CODE64 : DESCRIPTOR_CODE32;
	gdt[BOOT_DATA_SELECTOR / 8] = DESCRIPTOR_DATA;
	r = gmem_write(b->gm, BOOT_GDT, gdt, sizeof(gdt));
	if (!r && b->state.mode == BOOT_LONG64)
		r = page_tables_write(b);
	if (r < 0)
		return error_set(err, r, "no memory for the boot tables");
	b->state.gdt_base = BOOT_GDT;
	b->state.gdt_limit = sizeof(gdt) - 1;
	b->state.rsp = BOOT_STACK_TOP;
	return 0;
}

static int elf_boot(struct boot *b, struct error *err)
{
	uint64_t entry = 0, pvh = 0;
	int r = elf_load(b, &entry, &pvh, err);

	if (r < 0)
		return r;
	if (!pvh)
		return error_set(
			err, -ENOEXEC,
			"the kernel is an ELF file without a way to start it: it has neither "
			"a PVH entry note nor a multiboot header; use the bzImage (vmlinuz)");
	return pvh_setup(b, pvh, err);
}

/* What people pass by mistake. */
static const struct {
	const char *magic;
	size_t size;
	const char *what;
} not_kernels[] = {
	{ "\x1f\x8b", 2, "gzip data" },
	{ "\xfd"
	  "7zXZ",
	  5, "xz data" },
	{ "\x28\xb5\x2f\xfd", 4, "Zstandard data" },
	{ "070701", 6, "a cpio archive (an initial RAM disk?)" },
	{ "vhdxfile", 8, "a VHDX disk image" },
	{ "conectix", 8, "a VHD disk image" },
	{ "QFI\xfb", 4, "a qcow2 disk image" },
	{ "KDMV", 4, "a VMDK disk image" },
	{ "!<arch>", 7, "an ar archive or Debian package" },
	{ "MZ", 2, "an EFI or Windows program" },
	{ "#!", 2, "a script" },
};

static int not_a_kernel(const struct boot *b, struct error *err)
{
	const char *what = "of no kind known here";

	if (!b->kernel.size)
		what = "empty";
	for (size_t i = 0; i < ARRAY_SIZE(not_kernels); i++)
		if (b->head_size >= not_kernels[i].size &&
		    !memcmp(b->head, not_kernels[i].magic, not_kernels[i].size)) {
			what = not_kernels[i].what;
			break;
		}
	return error_set(
		err, -ENOEXEC,
		"the kernel file is not a kernel: it is %s (%llu bytes, beginning with %02x "
		"%02x %02x %02x); give a Linux bzImage, a PVH or a multiboot image",
		what, (unsigned long long)b->kernel.size, b->head[0], b->head[1], b->head[2],
		b->head[3]);
}

static int file_open(struct boot_file *file, const char *what, int fd, struct error *err)
{
	struct stat st;

	file->what = what;
	file->fd = fd;
	if (fd < 0)
		return 0;
	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot examine the %s file", what);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "the %s is not a regular file", what);
	file->size = (uint64_t)st.st_size;
	return 0;
}

static int files_open(struct boot *b, struct error *err)
{
	int r = file_open(&b->kernel, "kernel", b->config->kernel_fd, err);

	if (r < 0)
		return r;
	r = file_open(&b->initrd, "initial RAM disk", b->config->initrd_fd, err);
	if (r < 0)
		return r;
	b->head_size = MIN(b->kernel.size, sizeof(b->head));
	return boot_file_read(&b->kernel, 0, b->head, b->head_size, err);
}

int boot_load(struct gmem *gm, const struct boot_config *config, struct boot_state *ret,
	      struct error *err)
{
	struct boot b = { .gm = gm, .config = config, .map = config->memmap };
	int r = files_open(&b, err);

	if (r < 0)
		return r;
	if (bzimage_probe(&b))
		r = bzimage_load(&b, err);
	else if (multiboot_probe(&b))
		r = multiboot_load(&b, err);
	else if (elf_probe(&b))
		r = elf_boot(&b, err);
	else
		r = not_a_kernel(&b, err);
	if (r < 0)
		return r;
	r = mode_setup(&b, err);
	if (r < 0)
		return r;
	*ret = b.state;
	return 0;
}
