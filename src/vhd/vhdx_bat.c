// SPDX-License-Identifier: MIT
/*
 * The block allocation table (MS-VHDX 2.5) on the pages of vhdx_page.c: where the entries of
 * payload and sector bitmap blocks stand, and what they say. Entries are judged when they are used,
 * since a table of half a GiB cannot be judged on opening.
 */
#include "vhd/vhdx_internal.h"

#include "lib/cleanup.h"

#include <errno.h>

static uint64_t payload_index(const struct vhdx *v, uint64_t block)
{
	return block + block / v->chunk_ratio;
}

static uint64_t bitmap_index(const struct vhdx *v, uint64_t block)
{
	return block / v->chunk_ratio * (v->chunk_ratio + 1) + v->chunk_ratio;
}

static uint64_t page_of(const struct vhdx *v, uint64_t index)
{
	return v->regions.bat.offset + index / VHDX_BAT_PER_PAGE * VHDX_SECTOR;
}

uint64_t bat_page_of(const struct vhdx *v, uint64_t block)
{
	return page_of(v, payload_index(v, block));
}

uint64_t bat_bitmap_page_of(const struct vhdx *v, uint64_t block)
{
	return page_of(v, bitmap_index(v, block));
}

static bool overlaps(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

/* MS-VHDX 2.5.1.1: inside the file, and on none of the structures. */
static bool place_valid(const struct vhdx *v, uint64_t offset, uint64_t n)
{
	return offset >= VHDX_OBJECT_ALIGN && range_inside(offset, n, v->space.end) &&
	       !overlaps(offset, n, v->header.log_offset, v->header.log_length) &&
	       !overlaps(offset, n, v->regions.bat.offset, v->regions.bat.length) &&
	       !overlaps(offset, n, v->regions.metadata.offset, v->regions.metadata.length);
}

static le64 *entry_at(const struct page *p, uint64_t index)
{
	return (le64 *)p->bytes + index % VHDX_BAT_PER_PAGE;
}

int bat_get(struct vhdx *v, const struct page *p, uint64_t block, unsigned *ret_state,
	    uint64_t *ret_offset)
{
	uint64_t e = le64_get(*entry_at(p, payload_index(v, block)));

	*ret_state = VHDX_BAT_STATE(e);
	*ret_offset = 0;
	switch (VHDX_BAT_STATE(e)) {
	case 5: /* what the draft 0.95 called unmapped */
		*ret_state = VHDX_BLOCK_UNMAPPED;
		return 0;
	case VHDX_BLOCK_NOT_PRESENT:
	case VHDX_BLOCK_UNDEFINED:
	case VHDX_BLOCK_ZERO:
	case VHDX_BLOCK_UNMAPPED:
		return 0;
	case VHDX_BLOCK_PARTIALLY_PRESENT:
		if (!v->params.has_parent)
			return -EUCLEAN;
		__attribute__((fallthrough));
	case VHDX_BLOCK_FULLY_PRESENT:
		*ret_offset = VHDX_BAT_OFFSET(e);
		return place_valid(v, *ret_offset, v->params.block_size) ? 0 : -EUCLEAN;
	default:
		return -EUCLEAN;
	}
}

void bat_set(struct vhdx *v, struct page *p, uint64_t block, unsigned state, uint64_t offset)
{
	*entry_at(p, payload_index(v, block)) = le64_of(offset | state);
	page_dirty(v, p);
}

int bat_bitmap_get(struct vhdx *v, const struct page *p, uint64_t block, uint64_t *ret_offset)
{
	uint64_t e = le64_get(*entry_at(p, bitmap_index(v, block)));

	*ret_offset = 0;
	if (VHDX_BAT_STATE(e) == VHDX_BITMAP_NOT_PRESENT)
		return 0;
	*ret_offset = VHDX_BAT_OFFSET(e);
	if (VHDX_BAT_STATE(e) != VHDX_BITMAP_PRESENT ||
	    !place_valid(v, *ret_offset, VHDX_BITMAP_SIZE))
		return -EUCLEAN;
	return 0;
}

void bat_bitmap_set(struct vhdx *v, struct page *p, uint64_t block, uint64_t offset)
{
	*entry_at(p, bitmap_index(v, block)) = le64_of(offset | VHDX_BITMAP_PRESENT);
	page_dirty(v, p);
}

/* --- all of it --- */

/* Bytes from `at` on that are a hole of the file: entries there are all "not present". */
static uint64_t hole_at(struct store *s, uint64_t at)
{
	enum disk_extent_kind kind;
	uint64_t length;

	if (at >= s->size || store_extent(s, at, &kind, &length) < 0 || kind != DISK_EXTENT_HOLE)
		return 0;
	return round_down64(length, VHDX_SECTOR);
}

uint64_t bat_size_known(const struct vhdx *v)
{
	uint64_t end = v->regions.bat.offset + vhdx_bat_count(&v->params) * 8, known = 0;

	for (uint64_t at = v->regions.bat.offset; at < end;) {
		uint64_t hole = hole_at(v->store, at);

		if (!hole) {
			enum disk_extent_kind kind;

			if (at >= v->store->size || store_extent(v->store, at, &kind, &hole) < 0)
				return known + end - at;
			known += MIN(hole, end - at);
		}
		at += hole;
	}
	return known;
}

int bat_scan(struct vhdx *v,
	     void (*entry)(struct vhdx *v, void *context, uint64_t index, uint64_t e),
	     void *context)
{
	_cleanup_free_ le64 *buffer = malloc(VHDX_SECTOR);
	uint64_t count = vhdx_bat_count(&v->params), index = 0;

	if (!buffer)
		return -ENOMEM;
	while (index < count) {
		uint64_t at = v->regions.bat.offset + index * 8;
		uint64_t n = MIN(VHDX_BAT_PER_PAGE, count - index);
		struct page *p = page_find(v, at);
		uint64_t hole = p ? 0 : hole_at(v->store, at);
		const le64 *entries = p ? (const le64 *)p->bytes : buffer;
		int r = 0;

		if (hole) {
			index += hole / 8;
			continue;
		}
		if (!p)
			r = store_read(v->store, buffer, VHDX_SECTOR, at);
		if (r < 0)
			return r;
		for (uint64_t i = 0; i < n; i++)
			entry(v, context, index + i, le64_get(entries[i]));
		index += n;
	}
	return 0;
}
