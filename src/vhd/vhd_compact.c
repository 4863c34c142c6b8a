// SPDX-License-Identifier: MIT
/*
 * Compacting a VHD while nobody uses it. Blocks that hold nothing are dropped; then the blocks that
 * lie last move into the first places that are free before them, in rounds: copy some, commit their
 * new entries (which flushes the copies first, vhd_commit.c). Until the entries are durable the old
 * places hold the same, and no place that was left is used again, so a cut at any point loses
 * nothing. In the end the footer goes behind the last block, and once it is durable the file is cut
 * there. Header, table and locators stay where they are.
 */
#include "lib/cleanup.h"
#include "vhd/iov.h"
#include "vhd/vhd_internal.h"

#include <errno.h>
#include <string.h>

#define DATA_ALIGN  UINT64_C(4096)
#define ROUND_BYTES GIB /* copied between two commits */
#define ROUND_COUNT 4096u
#define SCAN_PIECE  (4 * MIB)
#define STRUCTURE   UINT64_MAX /* in the place of a block's number */

/* What is used of the file. */
struct range {
	uint64_t offset, length;
	uint64_t kept;  /* at least length: what others may write here one day */
	uint64_t block; /* or STRUCTURE */
};

struct compact {
	struct vhd *v;
	const struct disk_compact_options *options;
	struct range *ranges; /* by offset */
	size_t count, room;
	uint64_t lowest; /* no place is free before */
	uint8_t *buffer;
	uint64_t done, total; /* progress: steps */
};

static bool go_on(struct compact *c)
{
	const struct disk_compact_options *o = c->options;

	return !o->progress || o->progress(o->context, c->done, c->total);
}

/* --- what is there --- */

static int range_add(struct compact *c, uint64_t offset, uint64_t length, uint64_t block)
{
	if (c->count == c->room) {
		size_t room = MAX(c->room * 2, 1024);
		struct range *p = reallocarray(c->ranges, room, sizeof(*p));

		if (!p)
			return -ENOMEM;
		c->ranges = p;
		c->room = room;
	}
	c->ranges[c->count++] = (struct range){ offset, length, length, block };
	return 0;
}

/* The space of a locator is another program's to write a longer path to. */
static int locators_add(struct compact *c)
{
	const struct vhd *v = c->v;
	int r = 0;

	for (unsigned i = 0; v->kind == VHD_DIFFERENCING && i < VHD_LOCATORS && r >= 0; i++) {
		const struct vhd_locator *l = &v->header.parent_locators[i];
		uint64_t length = be32_get(l->platform_data_length);
		uint64_t space = be32_get(l->platform_data_space);
		uint64_t offset = be64_get(l->platform_data_offset);

		if (!be32_get(l->platform_code) || !range_inside(offset, length, v->space.end))
			continue;
		r = range_add(c, offset, length, STRUCTURE);
		if (r >= 0)
			c->ranges[c->count - 1].kept =
				MAX(length, space < length ? space * VHD_SECTOR : space);
	}
	return r;
}

static int blocks_add(struct compact *c)
{
	struct vhd *v = c->v;
	int r = 0;

	for (uint64_t block = 0; block < v->blocks && r >= 0; block++) {
		struct vhd_page *p;
		uint64_t offset;

		r = vhd_page_load_now(v, VHD_PAGE_BAT, block / VHD_PER_PAGE,
				      vhd_bat_page_offset(v, block), &p);
		if (r < 0)
			return r;
		r = vhd_bat_get(v, p, block, &offset);
		if (r > 0)
			r = range_add(c, offset, vhd_block_bytes(v), block);
		else if (r < 0)
			r = -EUCLEAN;
	}
	return r;
}

static int by_place(const void *a, const void *b)
{
	const struct range *x = a, *y = b;

	return (x->offset > y->offset) - (x->offset < y->offset);
}

static int ranges_set(struct compact *c)
{
	struct vhd *v = c->v;
	uint64_t table = vhd_bat_bytes(be32_get(v->header.max_table_entries)), end = 0;
	int r;

	c->count = 0;
	r = range_add(c, 0, VHD_FOOTER_SIZE, STRUCTURE);
	if (r >= 0)
		r = range_add(c, v->header_offset, VHD_HEADER_SIZE, STRUCTURE);
	if (r >= 0)
		r = range_add(c, v->bat_offset, table, STRUCTURE);
	if (r >= 0)
		r = locators_add(c);
	if (r >= 0)
		r = blocks_add(c);
	if (r < 0)
		return r;
	qsort(c->ranges, c->count, sizeof(*c->ranges), by_place);
	for (size_t i = 0; i < c->count; i++) {
		if (c->ranges[i].offset < end)
			return -EUCLEAN;
		end = c->ranges[i].offset + c->ranges[i].length;
	}
	return 0;
}

/*
 * Some creators keep structures of their own between table and blocks, which the specification does
 * not know.
 */
static uint64_t lowest_place(const struct compact *c)
{
	static const uint32_t plain[] = { VHD_CREATOR_WINDOWS, VHD_CREATOR_VIRTUAL_PC,
					  VHD_CREATOR_QEMU, VHD_CREATOR_QEMU_EXACT };
	uint32_t creator = be32_get(c->v->footer.creator_application);

	for (size_t i = 0; i < ARRAY_SIZE(plain); i++)
		if (plain[i] == creator)
			return 0;
	for (size_t i = 0; i < c->count; i++)
		if (c->ranges[i].block != STRUCTURE)
			return c->ranges[i].offset;
	return c->v->space.end;
}

/* --- dropping --- */

/* 1 when so much of the file is a hole or, where that is asked for, reads as zeros. */
static int reads_zero(struct compact *c, uint64_t offset, uint64_t length)
{
	struct store *s = c->v->store;

	for (uint64_t at = 0, n; at < length; at += n) {
		enum disk_extent_kind kind;
		int r;

		if (offset + at >= s->size)
			return 1;
		r = store_extent(s, offset + at, &kind, &n);
		if (r < 0)
			return r;
		n = MIN(n, length - at);
		if (kind != DISK_EXTENT_DATA)
			continue;
		if (!c->options->zeros)
			return 0;
		n = MIN(n, SCAN_PIECE);
		r = store_read(s, c->buffer, n, offset + at);
		if (r < 0 || !bytes_zero(c->buffer, n))
			return r;
	}
	return 1;
}

/*
 * Of a dynamic image a block of zeros is as good as none. In a differencing one zeros hide the
 * parent's data, but a block of which no sector is marked holds nothing, whatever its bytes are.
 */
static int holds_nothing(struct compact *c, const struct range *o)
{
	const struct vhd *v = c->v;
	uint64_t left = v->disk.geometry.size - (o->block << v->block_shift);
	int r;

	if (v->kind == VHD_DYNAMIC)
		return reads_zero(c, o->offset + v->bitmap_bytes, MIN(left, vhd_block_size(v)));
	r = store_read(v->store, c->buffer, v->bitmap_bytes, o->offset);
	return r < 0 ? r : bytes_zero(c->buffer, v->bitmap_bytes);
}

static int entry_set(struct vhd *v, uint64_t block, uint64_t offset)
{
	struct vhd_page *p;
	int r = vhd_page_load_now(v, VHD_PAGE_BAT, block / VHD_PER_PAGE,
				  vhd_bat_page_offset(v, block), &p);

	if (r >= 0)
		vhd_bat_set(p, block, offset);
	return r;
}

static int drop_all(struct compact *c)
{
	int r = 0;

	for (size_t i = 0; i < c->count && r >= 0; i++, c->done++) {
		const struct range *o = &c->ranges[i];

		if (o->block == STRUCTURE)
			continue;
		r = go_on(c) ? holds_nothing(c, o) : -ECANCELED;
		if (r > 0)
			r = entry_set(c->v, o->block, 0);
	}
	return r;
}

/* --- moving --- */

/* Where the search for places is: in front of ranges[next]. */
struct cursor {
	uint64_t at;
	size_t next;
};

/* The first place for a block that ends at `limit` at most; 0 = none. Its data is aligned if that
 * costs nothing. */
static uint64_t place_find(const struct compact *c, struct cursor *u, uint64_t limit)
{
	uint64_t need = vhd_block_bytes(c->v), bitmap = c->v->bitmap_bytes;

	for (; u->at + need <= limit; u->next++) {
		const struct range *o = &c->ranges[u->next];
		uint64_t aligned = round_up64(u->at + bitmap, DATA_ALIGN) - bitmap;
		uint64_t end = u->next < c->count ? MIN(o->offset, limit) : limit;
		uint64_t to = aligned + need <= end ? aligned : u->at;

		if (to + need <= end) {
			u->at = to + need;
			return to;
		}
		if (u->next >= c->count)
			return 0;
		u->at = MAX(u->at, round_up64(o->offset + o->kept, VHD_SECTOR));
	}
	return 0;
}

struct move {
	uint64_t block, to;
};

static int round_commit(struct compact *c, const struct move *moves, size_t count)
{
	int r = 0;

	for (size_t i = 0; i < count && r >= 0; i++)
		r = entry_set(c->v, moves[i].block, moves[i].to);
	return r < 0 ? r : vhd_commit_drain(c->v);
}

static int move_all(struct compact *c)
{
	_cleanup_free_ struct move *moves = calloc(ROUND_COUNT, sizeof(*moves));
	struct cursor u = { .at = c->lowest };
	uint64_t bytes = 0;
	size_t count = 0;
	int r = moves ? 0 : -ENOMEM;

	for (size_t i = c->count; i-- > 0 && r >= 0; c->done++) {
		const struct range *o = &c->ranges[i];
		uint64_t to;

		if (o->block == STRUCTURE)
			continue;
		to = place_find(c, &u, o->offset);
		if (!to)
			break;
		r = go_on(c) ? store_copy(c->v->store, o->offset, to, vhd_block_bytes(c->v),
					  c->buffer, SCAN_PIECE)
			     : -ECANCELED;
		if (r < 0)
			break;
		moves[count++] = (struct move){ o->block, to };
		bytes += o->length;
		if (count == ROUND_COUNT || bytes >= ROUND_BYTES) {
			r = round_commit(c, moves, count);
			count = bytes = 0;
		}
	}
	return r < 0 ? r : round_commit(c, moves, count);
}

/* --- the end --- */

/* Holes for what stays free between structures: at least as much as a block. */
static int rest_free(struct compact *c)
{
	uint64_t at = c->lowest;
	int r = 0;

	for (size_t i = 0; i < c->count && r >= 0; i++) {
		const struct range *o = &c->ranges[i];

		if (o->offset > at && o->offset - at >= vhd_block_bytes(c->v))
			r = store_zero(c->v->store, at, o->offset - at);
		at = MAX(at, o->offset + o->kept);
	}
	return r;
}

static int end_cut(struct compact *c)
{
	struct vhd *v = c->v;
	uint64_t end = 0;
	int r;

	for (size_t i = 0; i < c->count; i++)
		end = MAX(end, c->ranges[i].offset + c->ranges[i].kept);
	end = MAX(round_up64(end, VHD_SECTOR), c->lowest == v->space.end ? c->lowest : 0);
	if (end >= v->space.end)
		return 0;
	r = vhd_footer_write(v, &v->footer, end);
	if (r >= 0)
		r = store_sync(v->store);
	if (r < 0)
		return r; /* unused space has other bytes: that is all */
	vhd_space_cut(v, end);
	v->commit.footer_at = end;
	r = store_resize(v->store, end + VHD_FOOTER_SIZE);
	if (r >= 0)
		r = store_sync(v->store);
	return r;
}

static int compact_run(struct compact *c)
{
	int r, dropped;

	c->buffer = aligned_alloc(4096, SCAN_PIECE);
	if (!c->buffer)
		return -ENOMEM;
	r = ranges_set(c);
	if (r < 0)
		return r;
	c->lowest = lowest_place(c);
	c->total = 2 * c->count;
	dropped = drop_all(c);
	/* What was dropped before it was stopped is dropped for good. */
	r = vhd_commit_drain(c->v);
	r = dropped < 0 ? dropped : r;
	if (r >= 0)
		r = ranges_set(c);
	c->total = c->done + c->count;
	if (r >= 0)
		r = move_all(c);
	if (r >= 0)
		r = ranges_set(c);
	if (r >= 0)
		r = rest_free(c);
	return r < 0 ? r : end_cut(c);
}

int vhd_compact(struct disk *disk, const struct disk_compact_options *options, struct error *err)
{
	struct compact c = { .v = vhd_of(disk), .options = options };
	int r;

	if (c.v->kind == VHD_FIXED)
		return error_set(err, -ENOTSUP, "a fixed image keeps its space; convert it");
	if (c.v->store->read_only)
		return error_set(err, -EROFS, "the image was opened read-only");
	r = vhd_commit_drain(c.v);
	if (r >= 0)
		r = c.v->commit.failed;
	if (r < 0)
		return error_errno(err, r, "cannot write what came before compacting");
	/* What is free is found here; nothing else may use or punch it meanwhile. Bitmaps move. */
	r = vhd_space_forget(c.v);
	vhd_cache_clear(c.v);
	if (r >= 0)
		r = compact_run(&c);
	free(c.ranges);
	free(c.buffer);
	if (r < 0 && c.v->cache.dirty_count)
		c.v->commit.failed = r; /* entries in memory and on the disk differ */
	if (r == -ECANCELED)
		return error_set(err, r, "compacting was stopped; the image is whole");
	if (r == -EUCLEAN)
		return error_set(err, r,
				 "blocks of the image overlap or lie outside the file: it is "
				 "damaged, repair it first (vhd check --repair)");
	return r < 0 ? error_errno(err, r, "compacting failed; the image is whole") : 0;
}
