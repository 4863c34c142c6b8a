// SPDX-License-Identifier: MIT
/*
 * Opening and closing VHD images, and what lies where on them. Opening reads footers and header,
 * blocks while it does, and writes only when a footer is missing from an image that may be written.
 * The rest of the life of an image is in vhd_io.c (requests), vhd_page.c (table and bitmaps),
 * vhd_space.c and vhd_commit.c.
 */
#include "vhd/vhd.h"

#include "lib/cleanup.h"
#include "lib/cursor.h"
#include "vhd/vhd_internal.h"

#include <errno.h>
#include <string.h>

#define BLOCK_SIZE_MIN (512 * KIB)
#define BLOCK_SIZE_MAX (256 * MIB)

static bool starts_as_footer(const void *bytes, size_t size)
{
	struct reader r = reader_of(bytes, size);

	return reader_be64(&r) == VHD_FOOTER_COOKIE;
}

bool vhd_probe(const void *first, const void *last, size_t size)
{
	return starts_as_footer(first, size) || starts_as_footer(last, size) ||
	       (size > 1 && starts_as_footer((const char *)last + 1, size - 1));
}

/* --- opening --- */

static int header_read(struct store *s, const struct vhd_disk_footer *f,
		       struct vhd_disk_header *ret, struct error *err)
{
	uint64_t offset = be64_get(f->data_offset);
	int r;

	if (offset % VHD_SECTOR || offset < VHD_FOOTER_SIZE ||
	    !range_inside(offset, VHD_HEADER_SIZE, s->size))
		return error_set(err, -EINVAL,
				 "the file has %llu bytes, but the header of the VHD should lie at "
				 "%llu: it was cut short, or its footer is wrong",
				 (unsigned long long)s->size, (unsigned long long)offset);
	r = store_read(s, ret, sizeof(*ret), offset);
	if (r < 0)
		return error_errno(err, r, "cannot read the image");
	return vhd_header_check(ret, err);
}

/* Takes a footer, and the header that it names. */
static int footer_take(struct vhd *v, const struct vhd_disk_footer *f, struct error *err)
{
	static const enum vhd_kind kinds[] = { VHD_FIXED, VHD_DYNAMIC, VHD_DIFFERENCING };

	v->footer = *f;
	v->kind = kinds[be32_get(f->disk_type) - VHD_TYPE_FIXED];
	return v->kind == VHD_FIXED ? 0 : header_read(v->store, f, &v->header, err);
}

/*
 * The footer at the end counts. The copy counts where that one is damaged, where the header that it
 * names is, or where it is of another disk: then a guest's data may be at the end of a file that a
 * power cut left.
 */
static int footers_judge(struct vhd *v, const struct vhd_footers *f, struct error *err)
{
	bool foreign = f->end_valid && f->copy_valid &&
		       be32_get(f->end.disk_type) != VHD_TYPE_FIXED &&
		       memcmp(f->end.unique_id, f->copy.unique_id, sizeof(f->end.unique_id));
	int r = -EINVAL;

	if (!f->end_valid && !f->copy_valid)
		return error_set(err, -EINVAL,
				 "this is not a VHD image, or both of its footers are damaged: "
				 "there is none at the end and no copy at the start; `vhd check "
				 "--repair` may save a dynamic one");
	if (f->end_valid && !foreign)
		r = footer_take(v, &f->end, err);
	v->end_good = r >= 0 && !f->end_short;
	v->behind = r >= 0 ? f->behind : 0;
	if (r < 0 && f->copy_valid)
		r = footer_take(v, &f->copy, err);
	if (r < 0)
		return r;
	v->copy_good = v->kind == VHD_FIXED ||
		       (f->copy_valid && !memcmp(&f->copy, &v->footer, sizeof(f->copy)));
	v->repaired = !v->end_good || !v->copy_good;
	v->space.end = round_up64(f->end_at, VHD_SECTOR);
	return 0;
}

static int size_check(const struct vhd *v, uint64_t size, struct error *err)
{
	if (v->kind == VHD_FIXED && size > v->space.end)
		return error_set(err, -EINVAL,
				 "the disk has %llu bytes, the file only %llu: it was cut short",
				 (unsigned long long)size, (unsigned long long)v->space.end);
	if (!size || (v->kind != VHD_FIXED && size > VHD_DISK_SIZE_MAX))
		return error_set(err, -EINVAL,
				 "the VHD says that its disk has %llu bytes; there is at least a "
				 "sector and at most 2040 GiB",
				 (unsigned long long)size);
	return 0;
}

static int table_check(const struct vhd *v, struct error *err)
{
	uint32_t entries = be32_get(v->header.max_table_entries);
	uint64_t bytes = vhd_bat_bytes(entries), header = v->header_offset;

	if (v->blocks > entries)
		return error_set(err, -EINVAL,
				 "the block table has %u entries, a disk of this size needs %llu",
				 entries, (unsigned long long)v->blocks);
	if (v->bat_offset % VHD_SECTOR || v->bat_offset < VHD_FOOTER_SIZE ||
	    !range_inside(v->bat_offset, vhd_bat_bytes(v->blocks), v->store->size))
		return error_set(err, -EINVAL,
				 "the block table should lie at %llu, the file has %llu bytes: it "
				 "was cut short",
				 (unsigned long long)v->bat_offset,
				 (unsigned long long)v->store->size);
	if (v->bat_offset < header + VHD_HEADER_SIZE && header < v->bat_offset + bytes)
		return error_set(err, -EINVAL, "header and block table overlap");
	return 0;
}

static int dynamic_set(struct vhd *v, uint64_t size, struct error *err)
{
	uint32_t block_size = be32_get(v->header.block_size);

	if (!is_power_of_2(block_size) || block_size < BLOCK_SIZE_MIN ||
	    block_size > BLOCK_SIZE_MAX)
		return error_set(err, -EINVAL,
				 "the block size is %u; it must be a power of two from 512 KiB to "
				 "256 MiB",
				 block_size);
	v->block_shift = (unsigned)__builtin_ctz(block_size);
	v->bitmap_bytes = (uint32_t)round_up64(block_size / VHD_SECTOR / 8, VHD_SECTOR);
	v->blocks = (size + block_size - 1) / block_size;
	v->header_offset = be64_get(v->footer.data_offset);
	v->bat_offset = be64_get(v->header.table_offset);
	return table_check(v, err);
}

static int filled_init(struct vhd *v)
{
	uint32_t creator = be32_get(v->footer.creator_application);

	free(v->filled);
	v->filled = NULL;
	if (v->kind != VHD_DYNAMIC || creator == VHD_CREATOR_WINDOWS || v->store->read_only)
		return 0;
	v->filled = calloc(v->blocks / 8 + 1, 1);
	return v->filled ? 0 : -ENOMEM;
}

int vhd_structures_set(struct vhd *v, struct error *err)
{
	uint64_t size = vhd_footer_size(&v->footer);
	int r = size_check(v, size, err);

	if (r >= 0 && v->kind != VHD_FIXED)
		r = dynamic_set(v, size, err);
	if (r < 0)
		return r;
	disk_parent_deinit(&v->parent);
	if (v->kind == VHD_DIFFERENCING)
		r = vhd_parent_read(v->store, &v->header, &v->parent);
	if (r >= 0)
		r = filled_init(v);
	if (r < 0)
		return error_set(err, -ENOMEM, "out of memory");
	v->disk.geometry = (struct disk_geometry){
		.size = size,
		.logical_sector = VHD_SECTOR,
		.physical_sector = 4096,
		.trim_granularity = v->kind == VHD_FIXED ? 0 : 4096,
		.read_only = v->store->read_only,
		.id = vhd_guid_get(v->footer.unique_id),
	};
	return 0;
}

/*
 * Makes both footers right. Without one at the end the file ends somewhere: blocks that no entry
 * names were never finished, and are cut off.
 */
static int footers_repair(struct vhd *v)
{
	uint64_t bat_end = v->bat_offset + vhd_bat_bytes(be32_get(v->header.max_table_entries));
	uint64_t least = MAX(v->header_offset + VHD_HEADER_SIZE, bat_end), end;
	int r = 0;

	for (unsigned i = 0; v->kind == VHD_DIFFERENCING && i < VHD_LOCATORS; i++) {
		const struct vhd_locator *l = &v->header.parent_locators[i];
		uint64_t at = be64_get(l->platform_data_offset);

		if (range_inside(at, be32_get(l->platform_data_length), v->store->size))
			least = MAX(least, at + be32_get(l->platform_data_length));
	}
	if (!v->end_good && v->kind != VHD_FIXED) {
		r = vhd_space_used_end(v, least, &end);
		if (r >= 0) {
			v->space.end = round_up64(end, VHD_SECTOR);
			r = store_resize(v->store, v->space.end);
		}
	}
	if (r >= 0 && !v->end_good)
		r = vhd_footer_write(v, &v->footer, v->space.end);
	if (r >= 0 && !v->end_good)
		r = store_resize(v->store, v->space.end + VHD_FOOTER_SIZE);
	if (r >= 0 && !v->copy_good)
		r = vhd_footer_write(v, &v->footer, 0);
	if (r >= 0)
		r = store_sync(v->store);
	if (r >= 0)
		v->commit.footer_at = v->space.end;
	return r;
}

static int writable_check(const struct vhd *v, struct error *err)
{
	if (!v->store->read_only && v->behind)
		return error_set(err, -EROFS,
				 "%llu bytes that do not belong to the VHD follow its footer: it "
				 "can only be read; `vhd check --repair` makes a good image of it",
				 (unsigned long long)v->behind);
	if (v->store->read_only || v->kind == VHD_FIXED || !v->store->fixed_size)
		return 0;
	return error_set(err, -ENOTSUP,
			 "dynamic VHD images on block devices can only be read; copy it to a file");
}

static int structures_read(struct vhd *v, struct error *err)
{
	struct vhd_footers f;
	int r = vhd_footers_read(v->store, &f, err);

	if (r >= 0)
		r = footers_judge(v, &f, err);
	if (r >= 0)
		r = vhd_structures_set(v, err);
	if (r >= 0)
		r = writable_check(v, err);
	if (r < 0)
		return r;
	r = vhd_commit_start(v);
	if (r < 0)
		return error_set(err, r, "out of memory");
	if (v->repaired && !v->store->read_only)
		r = footers_repair(v);
	if (r == -EUCLEAN)
		return error_set(err, r,
				 "the footer at the end is missing and blocks lie behind the end: "
				 "the file was cut short; open it read-only, or let `vhd check "
				 "--repair` save what is left");
	return r < 0 ? error_errno(err, r, "cannot repair the footers of the image") : 0;
}

static void vhd_free(struct vhd *v)
{
	later_deinit(&v->later);
	vhd_commit_deinit(v);
	vhd_space_deinit(v);
	vhd_cache_deinit(v);
	disk_parent_deinit(&v->parent);
	free(v->filled);
	store_close(v->store);
	free(v);
}

static const struct disk_ops vhd_ops;

int vhd_open(struct store *store, struct disk **ret, struct error *err)
{
	struct vhd *v = calloc(1, sizeof(*v));
	int r;

	if (!v) {
		store_close(store);
		return error_set(err, -ENOMEM, "out of memory");
	}
	v->store = store;
	v->disk.ops = &vhd_ops;
	v->disk.loop = store->loop;
	vhd_io_init(v);
	vhd_cache_init(v);
	vhd_space_init(v);
	vhd_commit_init(v);
	r = structures_read(v, err);
	if (r < 0) {
		vhd_free(v);
		return r;
	}
	*ret = &v->disk;
	return 0;
}

void vhd_info(struct disk *disk, struct vhd_info *ret)
{
	struct vhd *v = vhd_of(disk);

	*ret = (struct vhd_info){
		.kind = v->kind,
		.block_size = v->kind == VHD_FIXED ? 0 : be32_get(v->header.block_size),
		.creator = be32_get(v->footer.creator_application),
		.repaired = v->repaired,
		.file_size = v->store->size,
	};
	disk->ops->identity(disk, &ret->identity);
}

/* --- parents --- */

static void vhd_identity(struct disk *disk, struct disk_identity *ret)
{
	struct vhd *v = vhd_of(disk);

	ret->id = vhd_guid_get(v->footer.unique_id);
	ret->timestamp = be32_get(v->footer.time_stamp);
}

static const struct disk_parent *vhd_parent(struct disk *disk)
{
	struct vhd *v = vhd_of(disk);

	return v->kind == VHD_DIFFERENCING ? &v->parent : NULL;
}

static void vhd_set_parent(struct disk *disk, struct disk *parent)
{
	disk->below = parent;
}

/* --- extents --- */

/* What is in the file at `offset`. */
static int stored_extent(struct vhd *v, uint64_t offset, enum disk_extent_kind *ret_kind,
			 uint64_t *ret_length)
{
	uint64_t left = *ret_length;
	int r;

	*ret_kind = DISK_EXTENT_HOLE;
	if (offset >= v->store->size)
		return 0;
	r = store_extent(v->store, offset, ret_kind, ret_length);
	if (r < 0)
		return r;
	/* Holes in the file end at its pages; what is told here must end at sectors. */
	if (*ret_length % VHD_SECTOR) {
		*ret_kind = DISK_EXTENT_DATA;
		*ret_length = round_up64(*ret_length, VHD_SECTOR);
	}
	*ret_length = MIN(*ret_length, left);
	return 0;
}

/* *ret_length comes in as what is left, here and in the next one. */
static int absent_extent(struct vhd *v, uint64_t disk_at, enum disk_extent_kind *ret_kind,
			 uint64_t *ret_length)
{
	uint64_t left = *ret_length;
	int r = 0;

	*ret_kind = DISK_EXTENT_HOLE;
	if (v->kind == VHD_DIFFERENCING) {
		r = below_extent(v->disk.below, disk_at, ret_kind, ret_length);
		*ret_length = MIN(*ret_length, left);
	}
	return r;
}

/* 1 when sectors from `disk_at` on are in the file at *ret_offset, 0 when they are not. */
static int sectors_find(struct vhd *v, uint64_t disk_at, uint64_t *ret_offset, uint64_t *ret_length)
{
	uint64_t block = disk_at >> v->block_shift, at = disk_at & (vhd_block_size(v) - 1), offset;
	uint64_t length = vhd_block_size(v) - at;
	struct vhd_page *p;
	bool here = true;
	int r = vhd_page_load_now(v, VHD_PAGE_BAT, block / VHD_PER_PAGE,
				  vhd_bat_page_offset(v, block), &p);

	if (r >= 0)
		r = vhd_bat_get(v, p, block, &offset);
	*ret_length = length;
	if (r <= 0)
		return r;
	*ret_offset = offset + v->bitmap_bytes + at;
	if (v->kind != VHD_DIFFERENCING)
		return 1;
	r = vhd_page_load_now(v, VHD_PAGE_BITMAP, block, offset, &p);
	if (r < 0)
		return r;
	*ret_length = (uint64_t)vhd_bits_run(p, (uint32_t)(at / VHD_SECTOR),
					     (uint32_t)(length / VHD_SECTOR), &here) *
		      VHD_SECTOR;
	return here;
}

static int block_extent(struct vhd *v, uint64_t disk_at, enum disk_extent_kind *ret_kind,
			uint64_t *ret_length)
{
	uint64_t offset;
	int r = sectors_find(v, disk_at, &offset, ret_length);

	if (r < 0)
		return r;
	return r ? stored_extent(v, offset, ret_kind, ret_length)
		 : absent_extent(v, disk_at, ret_kind, ret_length);
}

static int vhd_extent(struct disk *disk, uint64_t offset, enum disk_extent_kind *ret_kind,
		      uint64_t *ret_length)
{
	struct vhd *v = vhd_of(disk);
	uint64_t total = 0, left = disk->geometry.size - offset;
	int r;

	while (total < left) {
		enum disk_extent_kind kind;
		uint64_t n = left - total;

		if (v->kind == VHD_FIXED)
			r = stored_extent(v, offset + total, &kind, &n);
		else
			r = block_extent(v, offset + total, &kind, &n);
		if (r < 0)
			return r;
		if (!total)
			*ret_kind = kind;
		if (kind != *ret_kind)
			break;
		total += n;
	}
	*ret_length = MIN(total, left);
	return 0;
}

static int vhd_held(struct disk *disk, uint64_t offset, enum disk_held *ret_held,
		    uint64_t *ret_length)
{
	struct vhd *v = vhd_of(disk);
	uint64_t total = 0, left = disk->geometry.size - offset;

	while (total < left) {
		uint64_t place, n = left;
		int here = v->kind == VHD_FIXED ? 1 : sectors_find(v, offset + total, &place, &n);
		enum disk_held held = here                     ? DISK_HELD_DATA
				      : v->kind == VHD_DYNAMIC ? DISK_HELD_ZERO
							       : DISK_HELD_NOT;

		if (here < 0)
			return here;
		if (total && held != *ret_held)
			break;
		*ret_held = held;
		total += n;
	}
	*ret_length = MIN(total, left);
	return 0;
}

/* --- closing --- */

static int vhd_close(struct disk *disk, struct error *err)
{
	struct vhd *v = vhd_of(disk);
	struct disk *below = disk->below;
	int r = vhd_commit_close(v, err), below_r;

	vhd_free(v);
	below_r = disk_close(below, r < 0 ? NULL : err);
	return r < 0 ? r : below_r;
}

static const struct disk_ops vhd_ops = {
	.name = "vhd",
	.submit = vhd_submit,
	.extent = vhd_extent,
	.held = vhd_held,
	.identity = vhd_identity,
	.parent = vhd_parent,
	.set_parent = vhd_set_parent,
	.set_parent_ref = vhd_set_parent_ref,
	.resize = vhd_resize,
	.compact = vhd_compact,
	.close = vhd_close,
};
