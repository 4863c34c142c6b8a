// SPDX-License-Identifier: MIT
/*
 * Making a VHD. A fixed image is a footer behind the disk. Others have header, locators and table
 * at the start and no block. The footers are written last: before that the file is no image.
 *
 * The creator is given as Windows: other software decides by it whether the size or the geometry
 * counts, and takes the geometry, which is smaller, from creators that it does not know.
 */
#include "vhd/vhd.h"

#include "lib/cleanup.h"
#include "vhd/vhd_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define BLOCK_SIZE     (2 * MIB)
#define HEADER_OFFSET  UINT64_C(512)
#define TABLE_OFFSET   UINT64_C(4096) /* or behind the locators, which then begin here */
#define TABLE_PART     (64 * KIB)
#define WINDOWS_10     0x000a0000u
#define BLOCK_SIZE_MIN (512 * KIB)
#define BLOCK_SIZE_MAX (256 * MIB)

static int options_check(const struct vhd_create_options *o, struct error *err)
{
	if (!o->size || o->size % VHD_SECTOR || o->size > VHD_DISK_SIZE_MAX)
		return error_set(err, -EINVAL,
				 "a VHD has a size of at most 2040 GiB that is a multiple of 512 "
				 "bytes; for larger disks take VHDX");
	if (o->kind != VHD_FIXED && o->block_size &&
	    (!is_power_of_2(o->block_size) || o->block_size < BLOCK_SIZE_MIN ||
	     o->block_size > BLOCK_SIZE_MAX))
		return error_set(err, -EINVAL,
				 "the block size of a VHD is a power of two from 512 KiB to 256 "
				 "MiB");
	if (o->kind == VHD_DIFFERENCING && !o->relative && !o->absolute)
		return error_set(err, -EINVAL, "a differencing VHD must say where its parent is");
	return 0;
}

static struct vhd_disk_footer footer_of(const struct vhd_create_options *o)
{
	static const uint32_t types[] = { VHD_TYPE_FIXED, VHD_TYPE_DYNAMIC, VHD_TYPE_DIFFERENCING };
	struct guid id = guid_is_zero(&o->id) ? guid_random() : o->id;
	struct vhd_disk_footer f = {
		.cookie = be64_of(VHD_FOOTER_COOKIE),
		.features = be32_of(VHD_FEATURE_RESERVED),
		.file_format_version = be32_of(VHD_VERSION),
		.data_offset = be64_of(o->kind == VHD_FIXED ? VHD_NO_OFFSET : HEADER_OFFSET),
		.time_stamp = be32_of(vhd_time_now()),
		.creator_application = be32_of(VHD_CREATOR_WINDOWS),
		.creator_version = be32_of(WINDOWS_10),
		.creator_host_os = be32_of(VHD_OS_WINDOWS),
		.original_size = be64_of(o->size),
		.disk_type = be32_of(types[o->kind]),
	};

	vhd_guid_put(&id, f.unique_id);
	vhd_footer_set_size(&f, o->size);
	vhd_footer_sign(&f);
	return f;
}

static int fixed_write(struct store *s, uint64_t size)
{
	return store_reserve(s, 0, size);
}

/* Entries that are all unused, up to a whole sector. */
static int table_write(struct store *s, uint64_t offset, uint64_t bytes)
{
	_cleanup_free_ uint8_t *part = malloc(TABLE_PART);
	int r = part ? 0 : -ENOMEM;

	if (part)
		memset(part, 0xff, TABLE_PART);
	for (uint64_t at = 0; at < bytes && r >= 0; at += TABLE_PART)
		r = store_write(s, part, MIN(TABLE_PART, bytes - at), offset + at);
	return r;
}

/* Header, locators and table; *ret_end is where blocks may begin. */
static int tables_write(struct store *s, const struct vhd_create_options *o, uint64_t *ret_end,
			struct error *err)
{
	uint32_t block_size = o->block_size ? o->block_size : (uint32_t)BLOCK_SIZE;
	uint64_t blocks = (o->size + block_size - 1) / block_size;
	struct vhd_disk_header h = {
		.cookie = be64_of(VHD_HEADER_COOKIE),
		.data_offset = be64_of(VHD_NO_OFFSET),
		.header_version = be32_of(VHD_VERSION),
		.max_table_entries = be32_of((uint32_t)blocks),
		.block_size = be32_of(block_size),
	};
	const struct disk_parent parent = {
		.id = o->parent.id,
		.timestamp = o->parent.timestamp,
		.relative = (char *)(uintptr_t)o->relative,
		.absolute = (char *)(uintptr_t)o->absolute,
	};
	struct vhd_parent_bytes locators = { 0 };
	uint64_t table;
	int r = 0;

	if (o->kind == VHD_DIFFERENCING)
		r = vhd_parent_encode(&parent, TABLE_OFFSET, &h, &locators, err);
	if (r < 0)
		return r;
	table = TABLE_OFFSET + locators.size;
	h.table_offset = be64_of(table);
	vhd_header_sign(&h);
	r = store_write(s, &h, sizeof(h), HEADER_OFFSET);
	if (r >= 0 && locators.size)
		r = store_write(s, locators.bytes, locators.size, TABLE_OFFSET);
	if (r >= 0)
		r = table_write(s, table, vhd_bat_bytes(blocks));
	*ret_end = table + vhd_bat_bytes(blocks);
	free(locators.bytes);
	return r < 0 ? error_errno(err, r, "cannot write the new image") : 0;
}

static int footers_write(struct store *s, const struct vhd_create_options *o, uint64_t end)
{
	struct vhd_disk_footer f = footer_of(o);
	int r = o->named_later ? 0 : store_sync(s);

	if (r >= 0 && o->kind != VHD_FIXED)
		r = store_write(s, &f, sizeof(f), 0);
	if (r >= 0)
		r = store_write(s, &f, sizeof(f), end);
	return r >= 0 ? store_sync(s) : r;
}

int vhd_store_create(struct store *s, const struct vhd_create_options *options, struct error *err)
{
	uint64_t end = options->size;
	int r = options_check(options, err);

	if (r < 0)
		return r;
	if (s->size || s->fixed_size)
		return error_set(err, -EEXIST,
				 "a VHD is made in an empty file, this one holds something "
				 "already");
	if (options->kind != VHD_FIXED) {
		r = tables_write(s, options, &end, err);
		if (r < 0)
			return r;
	} else {
		r = fixed_write(s, options->size);
	}
	if (r >= 0)
		r = footers_write(s, options, end);
	return r < 0 ? error_errno(err, r, "cannot write the new image") : 0;
}

int vhd_create(int fd, const struct vhd_create_options *options, struct error *err)
{
	struct store_file_options file = { 0 };
	struct store *s;
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3), r;

	if (copy < 0)
		return error_errno(err, -errno, "cannot use the new image's file");
	r = store_file_open(NULL, copy, &file, &s, err);
	if (r < 0)
		return r;
	r = vhd_store_create(s, options, err);
	store_close(s);
	return r;
}
