// SPDX-License-Identifier: MIT
/*
 * Repairing a VHD. Each footer comes from the other one; without any, from the header. A header
 * whose checksum is wrong is believed when its fields make sense. Entries of the block table that
 * lie outside the file or where something else is are dropped; where the file was cut the missing
 * part of a block is lost. The footers are written last: until then the image is as damaged as
 * before. Sections named are those of the specification that vhd_format.h names.
 */
#include "vhd/repair.h"

#include "lib/cleanup.h"
#include "lib/utf16.h"
#include "vhd/repair_tell.h"
#include "vhd/vhd.h"
#include "vhd/vhd_meta.h"

#include <errno.h>
#include <string.h>

#define BLOCK_SIZE_MIN (512 * KIB)
#define BLOCK_SIZE_MAX (256 * MIB)
#define BLOCKS_MAX     (VHD_DISK_SIZE_MAX / BLOCK_SIZE_MIN)
#define HEADER_USUAL   UINT64_C(512)
#define PLACEHOLDER    "parent-is-lost.vhd"

struct repair {
	struct store *s;
	struct repair_tell tell;
	struct vhd_footers found;
	struct vhd_disk_footer footer;
	struct vhd_disk_header header;
	uint64_t header_offset, bat_offset, blocks, block_size, bitmap_bytes;
	uint64_t limit; /* of what is the image's in the file before the repair */
	uint64_t end;   /* of what is used after it */
	be32 *table;
	uint64_t *used; /* first sector << 32 | block */
	size_t count;
	bool table_changed, header_changed;
};

static uint64_t block_bytes(const struct repair *r)
{
	return r->bitmap_bytes + r->block_size;
}

static uint64_t bat_bytes(uint64_t entries)
{
	return round_up64(entries * 4, VHD_SECTOR);
}

static bool overlap(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

/* --- footers and header --- */

enum trust { NOT_THERE, PLAUSIBLE, GOOD };

static enum trust header_at(const struct repair *r, uint64_t offset, struct vhd_disk_header *h)
{
	uint64_t table;
	uint32_t size;

	if (offset % VHD_SECTOR || offset < VHD_FOOTER_SIZE ||
	    !range_inside(offset, VHD_HEADER_SIZE, r->s->size) ||
	    store_read(r->s, h, sizeof(*h), offset) < 0)
		return NOT_THERE;
	table = be64_get(h->table_offset);
	size = be32_get(h->block_size);
	if (be64_get(h->cookie) != VHD_HEADER_COOKIE ||
	    be32_get(h->header_version) >> 16 != VHD_VERSION >> 16 || !is_power_of_2(size) ||
	    size < BLOCK_SIZE_MIN || size > BLOCK_SIZE_MAX || table % VHD_SECTOR ||
	    table < VHD_FOOTER_SIZE || table >= r->s->size || !be32_get(h->max_table_entries))
		return NOT_THERE;
	return vhd_header_check(h, NULL) < 0 ? PLAUSIBLE : GOOD;
}

/* Takes the footer whose header is trusted most; the one at the end first. */
static enum trust footer_choose(struct repair *r)
{
	const struct vhd_disk_footer *footers[] = {
		r->found.end_valid ? &r->found.end : NULL,
		r->found.copy_valid ? &r->found.copy : NULL,
	};
	bool foreign = footers[0] && footers[1] &&
		       be32_get(footers[0]->disk_type) != VHD_TYPE_FIXED &&
		       memcmp(footers[0]->unique_id, footers[1]->unique_id, 16);
	enum trust best = NOT_THERE;

	for (unsigned i = foreign; i < 4; i++) {
		const struct vhd_disk_footer *f = footers[i % 2];
		uint64_t offset = f && i < 2 ? be64_get(f->data_offset) : HEADER_USUAL;
		struct vhd_disk_header h;
		enum trust trust;

		if (!f || (foreign && !(i % 2)))
			continue;
		trust = header_at(r, offset, &h);
		if (trust <= best)
			continue;
		best = trust;
		r->footer = *f;
		r->header = h;
		r->header_offset = offset;
	}
	if (foreign)
		r->found.end_valid = false;
	return best;
}

/* "Hard Disk Footer Format": all that cannot be known is as for a new image. */
static enum trust footer_make(struct repair *r)
{
	enum trust trust = header_at(r, HEADER_USUAL, &r->header);
	uint64_t size =
		(uint64_t)be32_get(r->header.max_table_entries) * be32_get(r->header.block_size);
	bool child = be32_get(r->header.parent_locators[0].platform_code);
	struct guid id = guid_random();
	struct vhd_disk_footer f = {
		.cookie = be64_of(VHD_FOOTER_COOKIE),
		.features = be32_of(VHD_FEATURE_RESERVED),
		.file_format_version = be32_of(VHD_VERSION),
		.data_offset = be64_of(HEADER_USUAL),
		.time_stamp = be32_of(vhd_time_now()),
		.creator_application = be32_of(VHD_CREATOR_WINDOWS),
		.creator_host_os = be32_of(VHD_OS_WINDOWS),
		.disk_type = be32_of(child ? VHD_TYPE_DIFFERENCING : VHD_TYPE_DYNAMIC),
	};

	if (trust == NOT_THERE)
		return trust;
	size = MIN(size, VHD_DISK_SIZE_MAX);
	vhd_guid_put(&id, f.unique_id);
	f.original_size = be64_of(size);
	vhd_footer_set_size(&f, size);
	vhd_footer_sign(&f);
	r->footer = f;
	r->header_offset = HEADER_USUAL;
	repair_found(&r->tell, REPAIR_RISK,
		     "both footers are damaged: new ones are made; the disk's size is taken from "
		     "the block table and may be a little too large, and differencing images over "
		     "this one need `vhd rebase`");
	return trust;
}

static int structures_find(struct repair *r, struct error *err)
{
	bool none = !r->found.end_valid && !r->found.copy_valid;
	enum trust trust = none ? footer_make(r) : footer_choose(r);

	if (trust == NOT_THERE)
		return error_set(err, -EINVAL,
				 none ? "there is neither a footer nor a header of a VHD: too "
					"little is left, or this is a raw image"
				      : "no header was found where the footers say or at byte 512: "
					"where the disk's blocks lie is unknown");
	if (trust == PLAUSIBLE) {
		r->header_changed = true;
		repair_found(
			&r->tell, REPAIR_RISK,
			"the header's checksum is wrong; its fields make sense and are kept "
			"(blocks of %u bytes, table at %llu): compare the result with what you "
			"know",
			be32_get(r->header.block_size),
			(unsigned long long)be64_get(r->header.table_offset));
	}
	if (be64_get(r->footer.data_offset) != r->header_offset) {
		r->footer.data_offset = be64_of(r->header_offset);
		vhd_footer_sign(&r->footer);
		repair_found(&r->tell, REPAIR_MENDED, "the footers name the header at byte %llu",
			     (unsigned long long)r->header_offset);
	}
	return 0;
}

static int size_set(struct repair *r, struct error *err)
{
	uint64_t size = vhd_footer_size(&r->footer);

	if (!size || size > VHD_DISK_SIZE_MAX)
		return error_set(
			err, -EINVAL,
			"the footer says that the disk has %llu bytes; there is at least a "
			"sector and at most 2040 GiB",
			(unsigned long long)size);
	r->tell.disk_size = size;
	return 0;
}

static int layout_set(struct repair *r, struct error *err)
{
	uint64_t size = vhd_footer_size(&r->footer), entries;
	int e = size_set(r, err);

	if (e < 0)
		return e;
	r->block_size = be32_get(r->header.block_size);
	r->bitmap_bytes = round_up64(r->block_size / VHD_SECTOR / 8, VHD_SECTOR);
	r->blocks = (size + r->block_size - 1) / r->block_size;
	r->bat_offset = be64_get(r->header.table_offset);
	entries = be32_get(r->header.max_table_entries);
	if (entries < r->blocks)
		return error_set(err, -EINVAL,
				 "the block table has %llu entries, a disk of this size needs %llu",
				 (unsigned long long)entries, (unsigned long long)r->blocks);
	if (entries > BLOCKS_MAX) {
		r->header.max_table_entries = be32_of((uint32_t)r->blocks);
		r->header_changed = true;
		repair_found(&r->tell, REPAIR_MENDED,
			     "the block table had %llu entries, more than any disk has blocks",
			     (unsigned long long)entries);
		entries = r->blocks;
	}
	r->end = MAX(r->header_offset + VHD_HEADER_SIZE, r->bat_offset + bat_bytes(entries));
	if (overlap(r->bat_offset, bat_bytes(r->blocks), r->header_offset, VHD_HEADER_SIZE))
		return error_set(err, -EINVAL, "header and block table overlap");
	return 0;
}

/* --- the parent --- */

/* What is not in the file says nothing; something must be said ("Parent Locator Entry"). */
static int parent_repair(struct repair *r)
{
	struct disk_parent parent;
	int e;

	for (unsigned i = 0; i < VHD_LOCATORS; i++) {
		struct vhd_locator *l = &r->header.parent_locators[i];
		uint64_t at = be64_get(l->platform_data_offset);
		uint64_t length = be32_get(l->platform_data_length);

		if (!be32_get(l->platform_code))
			continue;
		if (range_inside(at, length, r->limit)) {
			r->end = MAX(r->end, at + length);
			continue;
		}
		*l = (struct vhd_locator){ 0 };
		r->header_changed = true;
		repair_found(&r->tell, REPAIR_RISK,
			     "parent locator %u lay outside the file and is dropped", i);
	}
	e = vhd_parent_read(r->s, &r->header, &parent);
	if (e < 0)
		return e;
	if (!parent.relative && !parent.absolute) {
		memset(r->header.parent_unicode_name, 0, sizeof(r->header.parent_unicode_name));
		utf16_encode(PLACEHOLDER, r->header.parent_unicode_name,
			     sizeof(r->header.parent_unicode_name) - 2, UTF16_BE);
		r->header_changed = true;
		repair_found(&r->tell, REPAIR_RISK,
			     "where the parent is is lost; `vhd rebase` names it again");
	}
	disk_parent_deinit(&parent);
	return 0;
}

/* --- the block table --- */

static int table_read(struct repair *r, struct error *err)
{
	uint64_t bytes = r->blocks * 4,
		 there = r->limit > r->bat_offset ? r->limit - r->bat_offset : 0;
	int e;

	r->table = malloc(bytes + VHD_SECTOR);
	r->used = calloc(r->blocks + 1, sizeof(*r->used));
	if (!r->table || !r->used)
		return error_set(err, -ENOMEM, "out of memory");
	memset(r->table, 0xff, bytes + VHD_SECTOR);
	there = round_down64(MIN(there, bytes), 4);
	e = store_read(r->s, r->table, there, r->bat_offset);
	if (e < 0)
		return error_errno(err, e, "cannot read the block table");
	if (there < bytes) {
		r->table_changed = true;
		repair_lost(&r->tell, there / 4 * r->block_size, UINT64_MAX / 2,
			    "the file ends inside its block table");
	}
	for (uint64_t i = 0; i < there / 4; i++)
		if (be32_get(r->table[i]) != VHD_BAT_UNUSED)
			r->used[r->count++] = (uint64_t)be32_get(r->table[i]) << 32 | i;
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static const char *block_fault(const struct repair *r, uint64_t offset, uint64_t taken)
{
	uint64_t n = block_bytes(r);

	if (!offset || overlap(offset, n, r->header_offset, VHD_HEADER_SIZE) ||
	    overlap(offset, n, r->bat_offset, bat_bytes(be32_get(r->header.max_table_entries))))
		return "its block lies on the structures of the image";
	if (offset + r->bitmap_bytes >= r->limit)
		return "its block lies outside the file";
	return offset < taken ? "its block lies where another one is" : NULL;
}

/* Of two blocks that claim one place the later one loses. */
static void table_repair(struct repair *r)
{
	uint64_t taken = 0, kept = 0, n = block_bytes(r);

	qsort(r->used, r->count, sizeof(*r->used), by_place);
	for (size_t i = 0; i < r->count; i++) {
		uint64_t block = r->used[i] & UINT32_MAX;
		uint64_t offset = (r->used[i] >> 32) * VHD_SECTOR, at = block * r->block_size,
			 there;
		const char *fault = block_fault(r, offset, taken);

		if (fault) {
			repair_lost(&r->tell, at, r->block_size, fault);
			r->table[block] = be32_of(VHD_BAT_UNUSED);
			r->table_changed = true;
			continue;
		}
		r->used[kept++] = r->used[i];
		taken = offset + n;
		r->end = MAX(r->end, taken);
		if (taken <= r->limit)
			continue;
		there = r->limit - offset - r->bitmap_bytes;
		repair_lost(&r->tell, at + there, r->block_size - there,
			    "the file ends inside its block");
		repair_changed(&r->tell);
	}
	r->count = kept;
}

/*
 * "Sector bitmap": in a dynamic image of this creator all sectors of a block are marked. Where
 * they are not, others take for zeros what we read.
 */
static int bitmaps_repair(struct repair *r)
{
	uint64_t mended = 0;
	uint8_t *ones, *bits;
	int e = 0;

	if (be32_get(r->footer.disk_type) != VHD_TYPE_DYNAMIC ||
	    be32_get(r->footer.creator_application) != VHD_CREATOR_WINDOWS)
		return 0;
	ones = malloc(2 * r->bitmap_bytes);
	if (!ones)
		return -ENOMEM;
	bits = ones + r->bitmap_bytes;
	memset(ones, 0xff, r->bitmap_bytes);
	for (size_t i = 0; i < r->count && e >= 0; i++) {
		uint64_t offset = (r->used[i] >> 32) * VHD_SECTOR;

		e = store_read(r->s, bits, r->bitmap_bytes, offset);
		if (e < 0 || !memcmp(bits, ones, r->block_size / VHD_SECTOR / 8))
			continue;
		e = store_write(r->s, ones, r->bitmap_bytes, offset);
		mended++;
	}
	free(ones);
	if (mended)
		repair_found(&r->tell, REPAIR_MENDED,
			     "the sector bitmaps of %llu blocks mark all sectors again",
			     (unsigned long long)mended);
	return e;
}

/* --- writing --- */

/* Everything but the footers; `end` is where the last one will be. */
static int structures_write(struct repair *r, uint64_t end)
{
	int e = 0;

	/* An old footer is not a block's data. */
	if (r->end > r->limit && r->s->size > r->limit)
		e = store_zero(r->s, r->limit, r->s->size - r->limit);
	if (e >= 0 && r->s->size < end + VHD_FOOTER_SIZE)
		e = store_resize(r->s, end + VHD_FOOTER_SIZE);
	if (e >= 0 && r->table_changed)
		e = store_write(r->s, r->table, r->blocks * 4, r->bat_offset);
	vhd_header_sign(&r->header);
	if (e >= 0 && r->header_changed)
		e = store_write(r->s, &r->header, sizeof(r->header), r->header_offset);
	return e >= 0 ? store_sync(r->s) : e;
}

static int footers_write(struct repair *r, uint64_t end, bool copy)
{
	int e = 0;

	if (copy)
		e = store_write(r->s, &r->footer, VHD_FOOTER_SIZE, 0);
	if (e >= 0 && copy)
		e = store_sync(r->s);
	if (e >= 0)
		e = store_write(r->s, &r->footer, VHD_FOOTER_SIZE, end);
	if (e >= 0)
		e = store_sync(r->s);
	if (e >= 0)
		e = store_resize(r->s, end + VHD_FOOTER_SIZE);
	return e >= 0 ? store_sync(r->s) : e;
}

/* What was wrong with the footers. */
static void footers_tell(struct repair *r, bool copy_counts)
{
	const struct vhd_footers *f = &r->found;

	if (f->behind)
		repair_found(&r->tell, REPAIR_MENDED,
			     "%llu bytes that followed the footer are cut off",
			     (unsigned long long)f->behind);
	if (f->end_valid && f->end_short)
		repair_found(&r->tell, REPAIR_MENDED, "the footer of 511 bytes gets its last one");
	if (!copy_counts || (!f->end_valid && !f->copy_valid))
		return;
	if (!f->end_valid)
		repair_found(&r->tell, REPAIR_MENDED,
			     "the footer at the end is written again from its copy");
	else if (!f->copy_valid)
		repair_found(&r->tell, REPAIR_MENDED,
			     "the copy of the footer at the start is written again");
	else if (memcmp(&f->end, &f->copy, sizeof(f->end)))
		repair_found(&r->tell, REPAIR_MENDED, "footer and copy are made the same again");
}

static int fixed_repair(struct repair *r, struct error *err)
{
	uint64_t size = vhd_footer_size(&r->found.end), at = r->found.end_at;
	int e;

	r->footer = r->found.end;
	e = size_set(r, err);
	if (e < 0)
		return e;
	footers_tell(r, false);
	if (size > at)
		repair_lost(&r->tell, at, size - at, "the file was cut short");
	if (!r->tell.changed)
		return 0;
	e = size > at ? store_zero(r->s, at, r->s->size - at) : 0;
	if (e >= 0)
		e = footers_write(r, MAX(at, size), false);
	return e < 0 ? error_errno(err, e, "cannot write the repaired image") : 0;
}

static int dynamic_repair(struct repair *r, struct error *err)
{
	uint64_t end;
	int e = structures_find(r, err);

	r->limit = r->found.end_valid ? r->found.end_at : r->s->size;
	if (e >= 0)
		e = layout_set(r, err);
	if (e >= 0)
		e = table_read(r, err);
	if (e < 0)
		return e;
	table_repair(r);
	footers_tell(r, true);
	if (be32_get(r->footer.disk_type) == VHD_TYPE_DIFFERENCING)
		e = parent_repair(r);
	if (e >= 0)
		e = bitmaps_repair(r);
	end = round_up64(r->end, VHD_SECTOR);
	if (r->found.end_valid)
		end = MAX(end, r->found.end_at);
	if (e >= 0 && r->tell.changed)
		e = structures_write(r, end);
	if (e >= 0 && r->tell.changed)
		e = footers_write(r, end, true);
	return e < 0 ? error_errno(err, e, "cannot write the repaired image") : 0;
}

int vhd_repair(struct store *store, struct repair_report *report, struct error *err)
{
	struct repair r = { .s = store, .tell = { .report = report } };
	int e = vhd_footers_read(store, &r.found, err);

	if (e >= 0 && r.found.end_valid && be32_get(r.found.end.disk_type) == VHD_TYPE_FIXED)
		e = fixed_repair(&r, err);
	else if (e >= 0)
		e = dynamic_repair(&r, err);
	free(r.table);
	free(r.used);
	return e;
}
