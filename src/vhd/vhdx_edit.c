// SPDX-License-Identifier: MIT
/*
 * Changes of an open VHDX that are not a guest's: another size, another parent. They block, while
 * no request is in flight, and are atomic: whatever pages of metadata, region tables and BAT they
 * change become durable in one entry of the log.
 */
#include "lib/cleanup.h"
#include "lib/crc32c.h"
#include "vhd/chain.h"
#include "vhd/vhdx.h"
#include "vhd/vhdx_internal.h"

#include <errno.h>
#include <string.h>

static const struct guid guid_bat = VHDX_GUID_BAT;
static const struct guid guid_size = VHDX_GUID_DISK_SIZE;
static const struct guid guid_locator = VHDX_GUID_PARENT_LOCATOR;

/* --- what all have in common --- */

static int change_start(struct vhdx *v, bool renew, struct error *err)
{
	int r;

	if (v->store->read_only)
		return error_set(err, -EROFS, "the image was opened read-only");
	r = journal_start_change(v, renew);
	if (r >= 0)
		r = journal_sync(v, true);
	return r < 0 ? error_errno(err, r, "cannot start to change the image") : 0;
}

static int change_end(struct vhdx *v, struct error *err)
{
	int r = journal_sync(v, true);

	return r < 0 ? error_errno(err, r, "cannot write the image's changed structures") : 0;
}

/* New bytes at a place in the file, on the pages that differ. */
static int edit(struct vhdx *v, uint64_t offset, const void *bytes, size_t n)
{
	const uint8_t *from = bytes;

	while (n) {
		uint64_t in_page = offset % VHDX_SECTOR;
		size_t part = MIN(n, VHDX_SECTOR - in_page);
		struct page *p;
		int r = page_load_now(v, offset - in_page, &p);

		if (r < 0)
			return r;
		if (memcmp(p->bytes + in_page, from, part)) {
			memcpy(p->bytes + in_page, from, part);
			page_dirty(v, p);
		}
		from += part;
		offset += part;
		n -= part;
	}
	return 0;
}

/* --- the parent --- */

/* The place for a locator of n bytes in the region, behind all other items; and its table entry. */
static int locator_place(const uint8_t *table, uint64_t region_length, size_t n,
			 uint32_t *ret_offset, uint64_t *ret_entry)
{
	const struct vhdx_metadata_header *h = (const void *)table;
	uint64_t end = VHDX_METADATA_TABLE, entry = 0;

	for (unsigned i = 0; i < le16_get(h->entry_count) && i < VHDX_ENTRIES_MAX; i++) {
		uint64_t at = sizeof(*h) + i * sizeof(struct vhdx_metadata_entry);
		const struct vhdx_metadata_entry *e = (const void *)(table + at);

		if (guid_equal(&e->item, &guid_locator))
			entry = at;
		else
			end = MAX(end, (uint64_t)le32_get(e->offset) + le32_get(e->length));
	}
	end = MAX(round_up64(end, VHDX_SECTOR),
		  end <= VHDX_LOCATOR_OFFSET ? VHDX_LOCATOR_OFFSET : 0);
	if (!entry)
		return -EINVAL;
	if (!range_inside(end, n, region_length))
		return -ENOSPC;
	*ret_offset = (uint32_t)end;
	*ret_entry = entry;
	return 0;
}

/* 32 pages and the table's: one entry of the log holds them */
#define LOCATOR_EDIT_MAX (128 * KIB)

static int locator_edit(struct vhdx *v, const void *bytes, size_t n)
{
	_cleanup_free_ uint8_t *table = malloc(VHDX_METADATA_TABLE);
	struct vhdx_metadata_entry e;
	uint64_t entry;
	uint32_t offset;
	int r;

	if (!table)
		return -ENOMEM;
	r = store_read(v->store, table, VHDX_METADATA_TABLE, v->regions.metadata.offset);
	if (r >= 0)
		r = locator_place(table, v->regions.metadata.length, n, &offset, &entry);
	if (r < 0)
		return r;
	memcpy(&e, table + entry, sizeof(e));
	e.offset = le32_of(offset);
	e.length = le32_of((uint32_t)n);
	r = edit(v, v->regions.metadata.offset + offset, bytes, n);
	return r < 0 ? r : edit(v, v->regions.metadata.offset + entry, &e, sizeof(e));
}

int vhdx_set_parent_ref(struct disk *disk, const struct disk_parent *parent, struct error *err)
{
	struct vhdx *v = vhdx_of(disk);
	_cleanup_free_ uint8_t *bytes = malloc(LOCATOR_EDIT_MAX);
	struct disk_parent copy = { 0 };
	size_t n;
	int r;

	if (!v->params.has_parent)
		return error_set(err, -EINVAL, "this is not a differencing image");
	if (!bytes || disk_parent_copy(parent, &copy) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	r = vhdx_locator_encode(parent, bytes, LOCATOR_EDIT_MAX, &n, err);
	if (r >= 0)
		r = change_start(v, false, err);
	if (r >= 0) {
		r = locator_edit(v, bytes, n);
		r = r < 0 ? error_errno(err, r, "cannot place the parent locator")
			  : change_end(v, err);
	}
	if (r < 0) {
		disk_parent_deinit(&copy);
		return r;
	}
	disk_parent_deinit(&v->parent);
	v->parent = copy;
	return 0;
}

/* --- a larger table --- */

/* What is no hole in the table; the new place reads as zeros. */
static int bat_copy(struct vhdx *v, uint64_t to)
{
	_cleanup_free_ uint8_t *bytes = malloc(64 * KIB);
	const struct vhdx_region *bat = &v->regions.bat;
	int r = bytes ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < bat->length && r >= 0;) {
		enum disk_extent_kind kind = DISK_EXTENT_HOLE;
		uint64_t n = bat->length - at;

		if (bat->offset + at < v->store->size)
			r = store_extent(v->store, bat->offset + at, &kind, &n);
		if (r < 0)
			break;
		n = MIN(round_up64(n, VHDX_SECTOR), bat->length - at);
		if (kind != DISK_EXTENT_HOLE) {
			n = MIN(n, 64 * KIB);
			r = store_read(v->store, bytes, n, bat->offset + at);
			if (r >= 0)
				r = store_write(v->store, bytes, n, to + at);
		}
		at += n;
	}
	return r < 0 ? r : store_sync(v->store);
}

/* Both region tables from the first good one, with another place for the BAT. */
static int regions_edit(struct vhdx *v, const struct vhdx_region *bat)
{
	_cleanup_free_ uint8_t *bytes = malloc(VHDX_REGION_SIZE);
	struct vhdx_region_header *h = (void *)bytes;
	struct vhdx_regions regions;
	int r = bytes ? -EINVAL : -ENOMEM;

	for (unsigned n = 0; n < 2 && bytes && r < 0; n++) {
		r = store_read(v->store, bytes, VHDX_REGION_SIZE, VHDX_REGION_OFFSET(n));
		if (r >= 0)
			r = vhdx_regions_decode(bytes, &regions, NULL);
	}
	if (r < 0)
		return r;
	for (unsigned i = 0; i < le32_get(h->entry_count); i++) {
		struct vhdx_region_entry *e =
			(void *)(bytes + sizeof(*h) + i * sizeof(struct vhdx_region_entry));

		if (!guid_equal(&e->guid, &guid_bat))
			continue;
		e->file_offset = le64_of(bat->offset);
		e->length = le32_of((uint32_t)bat->length);
	}
	h->checksum = le32_of(0);
	h->checksum = le32_of(crc32c(0, bytes, VHDX_REGION_SIZE));
	for (unsigned n = 0; n < 2 && r >= 0; n++)
		r = edit(v, VHDX_REGION_OFFSET(n), bytes, VHDX_REGION_SIZE);
	return r;
}

/* Moves the table to where it may have `need` bytes, as a part of the change at hand. */
static int bat_move(struct vhdx *v, uint64_t need, struct vhdx_region *ret)
{
	struct vhdx_region bat = { .length = round_up64(need, VHDX_OBJECT_ALIGN) };
	int r = space_take(v, bat.length, &bat.offset);

	if (r >= 0)
		r = bat_copy(v, bat.offset);
	if (r >= 0)
		r = regions_edit(v, &bat);
	if (r >= 0)
		*ret = bat;
	return r;
}

/* --- the size --- */

static int size_edit(struct vhdx *v, uint64_t size)
{
	const le64 bytes = le64_of(size);
	struct vhdx_region item;
	int r = vhdx_item_find(v->store, &v->regions.metadata, &guid_size, &item);

	return r < 0 ? r : edit(v, item.offset, &bytes, sizeof(bytes));
}

/* A fixed image's new blocks; their entries count once the size does. */
static int blocks_add(struct vhdx *v, uint64_t from, uint64_t to)
{
	uint32_t n = v->params.block_size;

	for (uint64_t block = from; block < to; block++) {
		struct page *p;
		uint64_t offset;
		int r = space_take(v, n, &offset);

		if (r >= 0)
			r = store_reserve(v->store, offset, n);
		if (r >= 0)
			r = page_load_now(v, bat_page_of(v, block), &p);
		if (r < 0)
			return r;
		bat_set(v, p, block, VHDX_BLOCK_FULLY_PRESENT, offset);
	}
	return 0;
}

static int grow(struct vhdx *v, const struct vhdx_params *new)
{
	struct vhdx_region old = v->regions.bat, bat = old;
	uint64_t need = vhdx_bat_count(new) * 8;
	int r = need > old.length ? bat_move(v, need, &bat) : 0;

	if (r >= 0)
		r = size_edit(v, new->size);
	if (r >= 0)
		r = journal_sync(v, true);
	if (r < 0)
		return r;
	v->params = *new;
	v->regions.bat = bat;
	if (bat.offset != old.offset) {
		pages_forget(v, old.offset, old.length);
		space_give(v, old.offset, old.length);
	}
	return 0;
}

/* The blocks come after the size when the table moves, since they need its new place. */
static int grow_fixed(struct vhdx *v, const struct vhdx_params *new)
{
	uint64_t from = vhdx_block_count(&v->params), to = vhdx_block_count(new);
	int r = store_reserve(v->store, v->space.end, (to - from) * new->block_size);

	if (r >= 0)
		r = grow(v, new);
	if (r >= 0)
		r = blocks_add(v, from, to);
	return r < 0 ? r : journal_sync(v, true);
}

/* What of the last block lies beyond the new end must not come back when the disk grows again. */
static int tail_zero(struct vhdx *v, uint64_t size)
{
	uint64_t block = size >> v->block_shift, at = size & (v->params.block_size - 1), offset;
	struct page *p;
	unsigned state;
	int r = at ? page_load_now(v, bat_page_of(v, block), &p) : 0;

	if (!at || r < 0)
		return r;
	r = bat_get(v, p, block, &state, &offset);
	if (r < 0 || state != VHDX_BLOCK_FULLY_PRESENT)
		return r;
	return store_zero(v->store, offset + at, v->params.block_size - at);
}

/* First the blocks, durably, then the size: a cut in between loses only what is to go anyway. */
static int shrink(struct vhdx *v, const struct vhdx_params *new)
{
	int r = 0;

	for (uint64_t block = vhdx_block_count(new); block < vhdx_block_count(&v->params);
	     block++) {
		struct page *p;
		unsigned state;
		uint64_t offset;

		r = page_load_now(v, bat_page_of(v, block), &p);
		if (r >= 0)
			r = bat_get(v, p, block, &state, &offset);
		if (r < 0)
			return r;
		if (state != VHDX_BLOCK_NOT_PRESENT)
			bat_set(v, p, block, VHDX_BLOCK_NOT_PRESENT, 0);
		if (offset)
			space_give(v, offset, new->block_size);
	}
	r = journal_sync(v, true);
	if (r >= 0)
		r = tail_zero(v, new->size);
	if (r >= 0)
		r = size_edit(v, new->size);
	if (r >= 0)
		r = journal_sync(v, true);
	if (r >= 0)
		v->params = *new;
	return r;
}

static int resize_check(const struct vhdx *v, const struct vhdx_params *new, struct error *err)
{
	if (!v->params.has_parent)
		return vhdx_params_check(new, err);
	if (new->size < v->params.size)
		return error_set(err, -ENOTSUP,
				 "a differencing image cannot be made smaller; merge it first");
	if (!v->disk.below || v->disk.below->geometry.size > v->params.size)
		return error_set(
			err, -ENOTSUP,
			"a differencing image can only grow when its parent is open and not "
			"larger: its data would come to light; merge the two first");
	return vhdx_params_check(new, err);
}

int vhdx_resize(struct disk *disk, uint64_t size, struct error *err)
{
	struct vhdx *v = vhdx_of(disk);
	struct vhdx_params new = v->params;
	int r;

	new.size = size;
	r = resize_check(v, &new, err);
	if (r < 0 || size == v->params.size)
		return r;
	r = change_start(v, true, err);
	if (r < 0)
		return r;
	if (size < v->params.size)
		r = shrink(v, &new);
	else
		r = v->params.leave_allocated ? grow_fixed(v, &new) : grow(v, &new);
	disk->geometry.size = v->params.size;
	return r < 0 ? error_errno(err, r, "cannot change the size of the disk") : 0;
}
