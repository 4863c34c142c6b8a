// SPDX-License-Identifier: MIT
/*
 * Linux bzImage by the 64-bit boot protocol (Documentation/arch/x86/boot.rst, "THE LINUX/x86 BOOT
 * PROTOCOL" 2.12 and up; field offsets from there, structure of the zero page from zero-page.rst).
 * The real-mode part of the file is only read for its setup header; the rest is loaded where the
 * kernel prefers to run, so that it need not move itself, and entered 0x200 bytes in with paging
 * on.
 */
#include "firmware/boot_internal.h"

#include <errno.h>

/* Offsets in the file and, for the header, in the zero page too. */
#define HDR_SETUP_SECTS      0x1f1
#define HDR_SYSSIZE          0x1f4
#define HDR_VID_MODE         0x1fa
#define HDR_BOOT_FLAG        0x1fe
#define HDR_JUMP_LENGTH      0x201
#define HDR_MAGIC            0x202
#define HDR_VERSION          0x206
#define HDR_TYPE_OF_LOADER   0x210
#define HDR_LOADFLAGS        0x211
#define HDR_CODE32_START     0x214
#define HDR_RAMDISK_IMAGE    0x218
#define HDR_RAMDISK_SIZE     0x21c
#define HDR_CMD_LINE_PTR     0x228
#define HDR_INITRD_ADDR_MAX  0x22c
#define HDR_KERNEL_ALIGNMENT 0x230
#define HDR_RELOCATABLE      0x234
#define HDR_XLOADFLAGS       0x236
#define HDR_CMDLINE_SIZE     0x238
#define HDR_PREF_ADDRESS     0x258
#define HDR_INIT_SIZE        0x260
#define HDR_END_MIN          0x264 /* the fields above are all there since 2.10 */
#define HDR_END_MAX          0x290 /* what the zero page leaves for the header */

#define ZERO_ACPI_RSDP         0x70
#define ZERO_EXT_RAMDISK_IMAGE 0xc0
#define ZERO_EXT_RAMDISK_SIZE  0xc4
#define ZERO_E820_ENTRIES      0x1e8
#define ZERO_E820_TABLE        0x2d0
#define ZERO_E820_SIZE         20

#define VERSION_MIN                0x020c
#define LOADED_HIGH                BIT(0)
#define XLF_KERNEL_64              BIT(0)
#define XLF_CAN_BE_LOADED_ABOVE_4G BIT(1)
#define LOADER_UNDEFINED           0xff
#define VID_MODE_NORMAL            0xffff
#define ENTRY_64                   0x200
#define PARAGRAPH                  16u
#define SECTOR                     512u

struct bzimage {
	uint64_t payload, payload_size; /* the protected-mode kernel in the file */
	uint32_t initrd_addr_max, alignment, cmdline_size, init_size;
	uint16_t version, xloadflags;
	uint8_t loadflags;
	bool relocatable;
	uint64_t pref_address;
	size_t header_end;
};

static struct reader head_at(const struct boot *b, size_t at)
{
	struct reader r = reader_of(b->head, b->head_size);

	reader_seek(&r, at);
	return r;
}

static uint8_t head_u8(const struct boot *b, size_t at)
{
	struct reader r = head_at(b, at);

	return reader_u8(&r);
}

static uint16_t head_le16(const struct boot *b, size_t at)
{
	struct reader r = head_at(b, at);

	return reader_le16(&r);
}

static uint32_t head_le32(const struct boot *b, size_t at)
{
	struct reader r = head_at(b, at);

	return reader_le32(&r);
}

bool bzimage_probe(const struct boot *b)
{
	return b->head_size >= HDR_END_MIN && head_le16(b, HDR_BOOT_FLAG) == 0xaa55 &&
	       !memcmp(b->head + HDR_MAGIC, "HdrS", 4);
}

static struct bzimage bzimage_decode(const struct boot *b)
{
	uint8_t sects = head_u8(b, HDR_SETUP_SECTS);

	return (struct bzimage){
		.payload = ((sects ? sects : 4u) + 1) * SECTOR,
		.payload_size = (uint64_t)head_le32(b, HDR_SYSSIZE) * PARAGRAPH,
		.version = head_le16(b, HDR_VERSION),
		.loadflags = head_u8(b, HDR_LOADFLAGS),
		.xloadflags = head_le16(b, HDR_XLOADFLAGS),
		.initrd_addr_max = head_le32(b, HDR_INITRD_ADDR_MAX),
		.alignment = head_le32(b, HDR_KERNEL_ALIGNMENT),
		.relocatable = head_u8(b, HDR_RELOCATABLE),
		.cmdline_size = head_le32(b, HDR_CMDLINE_SIZE),
		.pref_address = head_le32(b, HDR_PREF_ADDRESS) |
				(uint64_t)head_le32(b, HDR_PREF_ADDRESS + 4) << 32,
		.init_size = head_le32(b, HDR_INIT_SIZE),
		.header_end = (size_t)HDR_MAGIC + head_u8(b, HDR_JUMP_LENGTH),
	};
}

static int bzimage_check(const struct boot *b, struct bzimage *k, struct error *err)
{
	if (k->version < VERSION_MIN)
		return error_set(err, -ENOEXEC,
				 "the kernel speaks Linux boot protocol %u.%u; 2.12 (Linux 3.8) or "
				 "later is needed",
				 k->version >> 8, k->version & 0xff);
	if (!(k->loadflags & LOADED_HIGH))
		return error_set(err, -ENOEXEC, "the kernel is a zImage; a bzImage is needed");
	if (!(k->xloadflags & XLF_KERNEL_64))
		return error_set(err, -ENOEXEC,
				 "the kernel is a 32-bit one; a 64-bit (x86-64) Linux is needed");
	if (k->header_end < HDR_END_MIN || k->header_end > HDR_END_MAX ||
	    !is_power_of_2(k->alignment) || k->payload_size <= ENTRY_64)
		return error_set(err, -ENOEXEC, "the kernel's setup header is damaged");
	/* syssize counts whole paragraphs, the last of which may be partly there. */
	if (b->kernel.size < k->payload ||
	    b->kernel.size - k->payload + PARAGRAPH <= k->payload_size)
		return error_set(err, -EIO,
				 "the kernel file is truncated: it has %llu of %llu bytes",
				 (unsigned long long)b->kernel.size,
				 (unsigned long long)(k->payload + k->payload_size));
	k->payload_size = MIN(k->payload_size, b->kernel.size - k->payload);
	return 0;
}

/*
 * Loads the kernel at the address it prefers. Lower would not help a small machine: a kernel loaded
 * below moves itself up to there.
 */
static int kernel_load(struct boot *b, const struct bzimage *k, uint64_t *ret_base,
		       struct error *err)
{
	uint64_t base = k->pref_address, run, size;
	int r;

	if (base < MIB && k->relocatable)
		base = round_up64(MIB, k->alignment);
	run = k->relocatable ? round_up64(base, k->alignment) : base;
	size = MAX(k->payload_size, k->init_size);
	if (run < base || add_overflow(size, run - base, &size))
		return error_set(err, -ENOEXEC, "the kernel's setup header is damaged");
	r = boot_image_claim(b, base, size, err);
	if (r < 0)
		return r;
	*ret_base = base;
	return boot_file_load(b, &b->kernel, k->payload, base, k->payload_size, err);
}

static void e820_put(const struct memmap *map, uint8_t *zero)
{
	zero[ZERO_E820_ENTRIES] = (uint8_t)map->e820_count;
	for (unsigned i = 0; i < map->e820_count; i++) {
		size_t at = ZERO_E820_TABLE + (size_t)i * ZERO_E820_SIZE;

		put_le64(zero, at, map->e820[i].base);
		put_le64(zero, at + 8, map->e820[i].size);
		put_le32(zero, at + 16, map->e820[i].type);
	}
}

static int zero_page_write(struct boot *b, const struct bzimage *k, uint64_t base,
			   struct error *err)
{
	uint8_t zero[BOOT_INFO_SIZE] = { 0 };

	memcpy(zero + HDR_SETUP_SECTS, b->head + HDR_SETUP_SECTS, k->header_end - HDR_SETUP_SECTS);
	zero[HDR_VID_MODE] = zero[HDR_VID_MODE + 1] = (uint8_t)VID_MODE_NORMAL;
	zero[HDR_TYPE_OF_LOADER] = LOADER_UNDEFINED;
	put_le32(zero, HDR_CODE32_START, (uint32_t)base);
	put_le32(zero, HDR_CMD_LINE_PTR, BOOT_CMDLINE);
	if (b->initrd.size) {
		put_le32(zero, HDR_RAMDISK_IMAGE, (uint32_t)b->initrd_base);
		put_le32(zero, HDR_RAMDISK_SIZE, (uint32_t)b->initrd.size);
		put_le32(zero, ZERO_EXT_RAMDISK_IMAGE, (uint32_t)(b->initrd_base >> 32));
		put_le32(zero, ZERO_EXT_RAMDISK_SIZE, (uint32_t)(b->initrd.size >> 32));
	}
	put_le64(zero, ZERO_ACPI_RSDP, b->config->rsdp);
	e820_put(b->map, zero);
	return boot_info_write(b, zero, err);
}

int bzimage_load(struct boot *b, struct error *err)
{
	struct bzimage k = bzimage_decode(b);
	uint64_t base = 0;
	int r;

	r = bzimage_check(b, &k, err);
	if (r < 0)
		return r;
	r = kernel_load(b, &k, &base, err);
	if (r < 0)
		return r;
	r = boot_initrd_high(b, k.initrd_addr_max, k.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G, err);
	if (r < 0)
		return r;
	r = boot_cmdline_write(b, "", k.cmdline_size, err);
	if (r < 0)
		return r;
	r = zero_page_write(b, &k, base, err);
	if (r < 0)
		return r;
	b->state.mode = BOOT_LONG64;
	b->state.rip = base + ENTRY_64;
	b->state.rsi = BOOT_INFO;
	return 0;
}
