// SPDX-License-Identifier: MIT
/*
 * Making a VHDX. The layout is the one that Windows uses: log at 1 MiB, metadata at 2 MiB, BAT from
 * 3 MiB on, then blocks. A dynamic image's BAT stays a hole, which reads as "not present"
 * everywhere, so that the largest image is made as fast as the smallest. The file identifier is
 * written last: before that the file is no image.
 *
 * Blocks are 32 MiB unless asked otherwise, as with Windows. Here a block costs nothing but address
 * space until it is written, since the file is sparse, and zeros inside a block are given back by
 * punching; so large blocks only make the BAT small: one page of it covers 16 GiB of disk, and most
 * guests never dirty more than a few pages between two flushes.
 */
#include "vhd/vhdx.h"

#include "lib/cleanup.h"
#include "vhd/vhdx_meta.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define LOG_OFFSET      MIB
#define LOG_LENGTH      MIB
#define METADATA_OFFSET (2 * MIB)
#define METADATA_LENGTH MIB
#define BAT_OFFSET      (3 * MIB)
#define BLOCK_SIZE      (32 * MIB)

static struct vhdx_params params_of(const struct vhdx_create_options *o)
{
	return (struct vhdx_params){
		.block_size = o->block_size ? o->block_size : (uint32_t)BLOCK_SIZE,
		.leave_allocated = o->fixed,
		.has_parent = o->parent != NULL,
		.size = o->size,
		.id = guid_is_zero(&o->id) ? guid_random() : o->id,
		.logical_sector = o->logical_sector ? o->logical_sector : 512,
		.physical_sector = o->physical_sector ? o->physical_sector : 4096,
	};
}

static struct vhdx_regions regions_of(const struct vhdx_params *p)
{
	return (struct vhdx_regions){
		.bat = { BAT_OFFSET, round_up64(vhdx_bat_count(p) * 8, VHDX_OBJECT_ALIGN) },
		.metadata = { METADATA_OFFSET, METADATA_LENGTH },
	};
}

static int identifier_write(struct store *s)
{
	static const char creator[] = "Partita";
	struct vhdx_file_id id = { .signature = le64_of(VHDX_FILE_ID_SIGNATURE) };

	for (size_t i = 0; creator[i]; i++)
		id.creator[i] = le16_of((uint16_t)creator[i]);
	return store_write(s, &id, sizeof(id), 0);
}

static int headers_write(struct store *s)
{
	_cleanup_free_ void *bytes = malloc(VHDX_HEADER_SIZE);
	struct vhdx_header h = {
		.sequence = 1,
		.file_write = guid_random(),
		.data_write = guid_random(),
		.log_length = (uint32_t)LOG_LENGTH,
		.log_offset = LOG_OFFSET,
	};
	int r = bytes ? 0 : -ENOMEM;

	for (unsigned n = 0; n < 2 && r >= 0; n++, h.sequence++) {
		vhdx_header_encode(&h, bytes);
		r = store_write(s, bytes, VHDX_HEADER_SIZE, VHDX_HEADER_OFFSET(n));
	}
	return r;
}

/* The metadata: `bytes` has VHDX_PARAMS_BYTES. */
static int metadata_encode(const struct vhdx_params *p, const struct disk_parent *parent,
			   uint8_t *bytes, struct error *err)
{
	size_t n = 0;
	int r = 0;

	memset(bytes, 0, VHDX_PARAMS_BYTES);
	if (parent)
		r = vhdx_locator_encode(parent, bytes + VHDX_LOCATOR_OFFSET, VHDX_LOCATOR_MAX, &n,
					err);
	vhdx_params_encode(p, (uint32_t)n, bytes);
	return r;
}

static int tables_write(struct store *s, const struct vhdx_regions *regions, const void *metadata)
{
	_cleanup_free_ void *bytes = malloc(VHDX_REGION_SIZE);
	int r = bytes ? 0 : -ENOMEM;

	if (r >= 0)
		vhdx_regions_encode(regions, bytes);
	for (unsigned n = 0; n < 2 && r >= 0; n++)
		r = store_write(s, bytes, VHDX_REGION_SIZE, VHDX_REGION_OFFSET(n));
	if (r >= 0)
		r = store_write(s, metadata, VHDX_PARAMS_BYTES, METADATA_OFFSET);
	return r;
}

/* Fills one page of a fixed image's BAT: every payload block is there, one after the other. */
static void fixed_page(const struct vhdx_params *p, uint64_t page, uint64_t first_block, le64 *out)
{
	uint64_t ratio = vhdx_chunk_ratio(p), blocks = vhdx_block_count(p);

	for (uint64_t i = 0; i < VHDX_BAT_PER_PAGE; i++) {
		uint64_t index = page * VHDX_BAT_PER_PAGE + i;
		uint64_t block = index - index / (ratio + 1);
		bool bitmap = index % (ratio + 1) == ratio;

		out[i] = le64_of(0);
		if (!bitmap && block < blocks)
			out[i] = le64_of((first_block + block * p->block_size) |
					 VHDX_BLOCK_FULLY_PRESENT);
	}
}

static int fixed_write(struct store *s, const struct vhdx_params *p, const struct vhdx_region *bat)
{
	_cleanup_free_ le64 *page = malloc(VHDX_SECTOR);
	uint64_t first = bat->offset + bat->length;
	uint64_t pages = (vhdx_bat_count(p) + VHDX_BAT_PER_PAGE - 1) / VHDX_BAT_PER_PAGE;
	int r = page ? store_reserve(s, first, vhdx_block_count(p) * p->block_size) : -ENOMEM;

	for (uint64_t i = 0; i < pages && r >= 0; i++) {
		fixed_page(p, i, first, page);
		r = store_write(s, page, VHDX_SECTOR, bat->offset + i * VHDX_SECTOR);
	}
	return r;
}

int vhdx_store_create(struct store *s, const struct vhdx_create_options *options, struct error *err)
{
	struct vhdx_params p = params_of(options);
	struct vhdx_regions regions;
	_cleanup_free_ uint8_t *metadata = malloc(VHDX_PARAMS_BYTES);
	int r = vhdx_params_check(&p, err);

	if (r >= 0 && !metadata)
		r = error_set(err, -ENOMEM, "out of memory");
	if (r >= 0 && p.has_parent && p.leave_allocated)
		r = error_set(err, -EINVAL, "a differencing image cannot be fixed");
	if (r >= 0)
		r = metadata_encode(&p, options->parent, metadata, err);
	if (r < 0)
		return r;
	if (s->size || s->fixed_size)
		return error_set(err, -EEXIST,
				 "a VHDX is made in an empty file, this one holds something "
				 "already");
	regions = regions_of(&p);
	r = store_resize(s, regions.bat.offset + regions.bat.length);
	if (r >= 0)
		r = store_reserve(s, LOG_OFFSET, LOG_LENGTH);
	if (r >= 0)
		r = tables_write(s, &regions, metadata);
	if (r >= 0 && p.leave_allocated)
		r = fixed_write(s, &p, &regions.bat);
	if (r >= 0)
		r = headers_write(s);
	if (r >= 0 && !options->named_later)
		r = store_sync(s);
	if (r >= 0)
		r = identifier_write(s);
	if (r >= 0)
		r = store_sync(s);
	return r < 0 ? error_errno(err, r, "cannot write the new image") : 0;
}

int vhdx_create(int fd, const struct vhdx_create_options *options, struct error *err)
{
	struct store_file_options file = { 0 };
	struct store *s;
	int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3), r;

	if (copy < 0)
		return error_errno(err, -errno, "cannot use the new image's file");
	r = store_file_open(NULL, copy, &file, &s, err);
	if (r < 0)
		return r;
	r = vhdx_store_create(s, options, err);
	store_close(s);
	return r;
}
