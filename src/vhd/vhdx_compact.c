// SPDX-License-Identifier: MIT
/*
 * Compacting a VHDX while nobody uses it. Blocks that hold nothing are dropped; then the blocks
 * that lie last move into the first places that are free before them, in rounds: copy some, flush,
 * log their new BAT entries, flush. Until the entries are durable the old places hold the same
 * data, and no place that was left is used again, so a cut at any point loses nothing. What is free
 * at the end is cut off when the image is closed.
 */
#include "lib/cleanup.h"
#include "vhd/iov.h"
#include "vhd/vhdx_internal.h"

#include <errno.h>
#include <string.h>

#define ROUND_BYTES GIB /* copied between two flushes */
#define ROUND_COUNT 4096u
#define SCAN_PIECE  (4 * MIB)
#define AS_IT_IS    UINT64_MAX

/* A payload or bitmap block in the file; or, of no length, a place that a block only remembers. */
struct object {
	uint64_t index; /* in the BAT */
	uint64_t offset;
	uint32_t length;
};

struct compact {
	struct vhdx *v;
	const struct disk_compact_options *options;
	struct object *objects; /* in the order of the BAT, then by offset */
	size_t count, room;
	struct space_map used;
	uint8_t *buffer;
	uint64_t done, total; /* progress: steps */
	int failed;
};

static bool go_on(struct compact *c)
{
	const struct disk_compact_options *o = c->options;

	return !o->progress || o->progress(o->context, c->done, c->total);
}

/* --- what is there --- */

static void collect(struct vhdx *v, void *context, uint64_t index, uint64_t entry)
{
	struct compact *c = context;
	bool bitmap = index % (v->chunk_ratio + 1) == v->chunk_ratio;
	unsigned state = VHDX_BAT_STATE(entry);
	struct object o = { index, VHDX_BAT_OFFSET(entry),
			    bitmap ? (uint32_t)VHDX_BITMAP_SIZE : v->params.block_size };

	if (c->failed || !o.offset)
		return;
	if (state != VHDX_BLOCK_FULLY_PRESENT && state != VHDX_BLOCK_PARTIALLY_PRESENT)
		o.length = 0;
	if (!range_inside(o.offset, o.length, v->space.end) ||
	    !space_map_use(&c->used, o.offset, o.length))
		c->failed = -EUCLEAN;
	if (c->count == c->room) {
		size_t room = MAX(c->room * 2, 1024);
		struct object *p = reallocarray(c->objects, room, sizeof(*p));

		if (!p) {
			c->failed = -ENOMEM;
			return;
		}
		c->objects = p;
		c->room = room;
	}
	c->objects[c->count++] = o;
}

/* 1 when the whole block is a hole of the file or, where that is asked for, reads as zeros. */
static int holds_nothing(struct compact *c, const struct object *o)
{
	struct store *s = c->v->store;

	for (uint64_t at = 0; at < o->length;) {
		enum disk_extent_kind kind;
		uint64_t n;
		int r;

		if (o->offset + at >= s->size)
			return 1;
		r = store_extent(s, o->offset + at, &kind, &n);
		if (r < 0)
			return r;
		n = MIN(n, o->length - at);
		if (kind == DISK_EXTENT_DATA) {
			if (!c->options->zeros)
				return 0;
			n = MIN(n, SCAN_PIECE);
			r = store_read(s, c->buffer, n, o->offset + at);
			if (r < 0 || !bytes_zero(c->buffer, n))
				return r;
		}
		at += n;
	}
	return 1;
}

/* Of the entry's state and offset the given one is changed (~0 = as it is). */
static int entry_set(struct vhdx *v, uint64_t index, uint64_t state, uint64_t offset)
{
	uint64_t at = v->regions.bat.offset + index * 8;
	struct page *p;
	le64 *e;
	int r = page_load_now(v, round_down64(at, VHDX_SECTOR), &p);

	if (r < 0)
		return r;
	e = (le64 *)p->bytes + index % VHDX_BAT_PER_PAGE;
	if (state == AS_IT_IS)
		state = VHDX_BAT_STATE(le64_get(*e));
	*e = le64_of(offset | state);
	page_dirty(v, p);
	return 0;
}

/* 1 when it goes, 0 when it stays; only without a parent do zeros and absence mean the same. */
static int drop(struct compact *c, const struct object *o)
{
	bool payload = o->length == c->v->params.block_size;
	int r;

	if (!o->length)
		r = entry_set(c->v, o->index, AS_IT_IS, 0);
	else if (c->v->params.has_parent || !payload)
		return 0;
	else
		r = holds_nothing(c, o);
	if (r > 0)
		r = entry_set(c->v, o->index, VHDX_BLOCK_ZERO, 0);
	else if (!r && o->length)
		return 0;
	return r < 0 ? r : 1;
}

static int drop_all(struct compact *c)
{
	for (size_t i = 0; i < c->count; i++, c->done++) {
		int r = go_on(c) ? drop(c, &c->objects[i]) : -ECANCELED;

		if (r < 0)
			return r;
	}
	return journal_sync(c->v, false);
}

/* --- moving --- */

static int last_first(const void *a, const void *b)
{
	const struct object *x = a, *y = b;

	return (x->offset < y->offset) - (x->offset > y->offset);
}

static int used_again(struct compact *c)
{
	memset(c->used.bits, 0, c->used.count / 8 + 1);
	space_map_structures(&c->used, c->v);
	free(c->objects);
	c->objects = NULL;
	c->count = c->room = 0;
	return bat_scan(c->v, collect, c);
}

/* The first free place of so many bytes from *at on that lies before `end`; 0 = none. */
static uint64_t place_find(const struct compact *c, uint64_t *at, uint64_t length, uint64_t end)
{
	uint64_t need = length / MIB, run = 0;

	for (uint64_t i = *at / MIB; i < end / MIB; i++) {
		run = space_map_used(&c->used, i) ? 0 : run + 1;
		if (run == need) {
			*at = (i + 1 - need) * MIB;
			return *at;
		}
	}
	return 0;
}

struct move {
	uint64_t index, to;
};

static int round_commit(struct compact *c, const struct move *moves, size_t count)
{
	int r = count ? store_sync(c->v->store) : 0;

	for (size_t i = 0; i < count && r >= 0; i++)
		r = entry_set(c->v, moves[i].index, AS_IT_IS, moves[i].to);
	return r < 0 || !count ? r : journal_sync(c->v, false);
}

static int move_all(struct compact *c)
{
	_cleanup_free_ struct move *moves = calloc(ROUND_COUNT, sizeof(*moves));
	uint64_t bytes = 0, first[2] = { MIB, MIB }; /* nothing is free before: block, bitmap */
	size_t count = 0, i;
	int r = moves ? 0 : -ENOMEM;

	if (c->count)
		qsort(c->objects, c->count, sizeof(*c->objects), last_first);
	for (i = 0; i < c->count && r >= 0; i++, c->done++) {
		const struct object *o = &c->objects[i];
		uint64_t *from = &first[o->length != c->v->params.block_size];
		uint64_t to = place_find(c, from, o->length, o->offset);

		if (!to)
			continue;
		r = go_on(c) ? store_copy(c->v->store, o->offset, to, o->length, c->buffer,
					  SCAN_PIECE)
			     : -ECANCELED;
		if (r < 0)
			break;
		space_map_use(&c->used, to, o->length);
		moves[count++] = (struct move){ o->index, to };
		bytes += o->length;
		if (count == ROUND_COUNT || bytes >= ROUND_BYTES) {
			r = round_commit(c, moves, count);
			count = bytes = 0;
		}
	}
	return r < 0 ? r : round_commit(c, moves, count);
}

/* --- the end --- */

/* Holes for what stays free, and the end of what is used. */
static int rest_free(struct compact *c)
{
	uint64_t end = 0;
	int r = used_again(c);

	for (uint64_t i = 0; i < c->used.count; i++)
		end = space_map_used(&c->used, i) ? (i + 1) * MIB : end;
	for (uint64_t i = 1; i < end / MIB && r >= 0; i++) {
		uint64_t n = i;

		while (n < end / MIB && !space_map_used(&c->used, n))
			n++;
		if (n > i)
			r = store_zero(c->v->store, i * MIB, (n - i) * MIB);
		i = n;
	}
	if (r < 0 || c->failed)
		return r < 0 ? r : c->failed;
	/* The end holds old data until it is cut: no block may get it before. */
	c->v->space.end = MAX(end, MIB);
	return journal_rest(c->v);
}

static int compact_run(struct compact *c)
{
	int r = space_map_init(&c->used, c->v->space.end);

	c->buffer = aligned_alloc(4096, SCAN_PIECE);
	if (r < 0 || !c->buffer)
		return r < 0 ? r : -ENOMEM;
	r = used_again(c);
	if (r < 0 || c->failed)
		return r < 0 ? r : c->failed;
	c->total = 2 * c->count;
	r = drop_all(c);
	if (r >= 0)
		r = used_again(c);
	c->total = c->done + c->count;
	if (r >= 0)
		r = move_all(c);
	if (r >= 0)
		r = journal_sync(c->v, true);
	/* Pages of bitmaps that have moved would be found where something else will be. */
	if (r >= 0)
		pages_forget(c->v, 0, UINT64_MAX);
	return r < 0 ? r : rest_free(c);
}

int vhdx_compact(struct disk *disk, const struct disk_compact_options *options, struct error *err)
{
	struct compact c = { .v = vhdx_of(disk), .options = options };
	int r;

	if (c.v->store->read_only)
		return error_set(err, -EROFS, "the image was opened read-only");
	if (c.v->params.leave_allocated)
		return error_set(err, -ENOTSUP, "a fixed image keeps its space; convert it");
	if (c.v->journal.warm)
		return error_set(err, -EBUSY, "the image has been written to; open it again first");
	/* What is free is found here; nothing else may use or punch it meanwhile. */
	c.v->space.scanned = true;
	r = journal_start_change(c.v, false);
	if (r >= 0)
		r = compact_run(&c);
	free(c.objects);
	free(c.used.bits);
	free(c.buffer);
	if (r == -ECANCELED)
		return error_set(err, r, "compacting was stopped; the image is whole");
	if (r == -EUCLEAN)
		return error_set(err, r,
				 "blocks of the image overlap: it is damaged, repair it first");
	return r < 0 ? error_errno(err, r, "compacting failed; the image is whole") : 0;
}
