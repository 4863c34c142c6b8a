// SPDX-License-Identifier: MIT
/*
 * Space in the image file. New blocks get space that was given back, else the end of the file,
 * which grows in larger steps than blocks and is cut when the image is closed.
 *
 * Space given back goes through three states, because a block that gets it must find durable zeros
 * and nobody else's I/O: it waits for the I/O that was on its way when it was given back, it is
 * punched, and it waits for a journal cycle that started after the punch, which makes durable both
 * the punch and the BAT page that no longer refers to it.
 *
 * Space that earlier sessions left unused is looked for once, before the first change, and goes the
 * same way. Space that an UNMAPPED or UNDEFINED block still names is left to it: Windows may put
 * the block back there.
 */
#include "vhd/vhdx_internal.h"

#include "lib/cleanup.h"

#include <errno.h>

#define GROW_MAX  (256 * MIB)
#define SCAN_MAX  (16 * MIB) /* bytes of table that are worth reading for it */
#define FOUND_MAX 65536u     /* extents; bounds the memory for them */

static void extents_free(struct list *l)
{
	while (!list_empty(l)) {
		struct space_extent *e = list_first(l, struct space_extent, node);

		list_remove(&e->node);
		free(e);
	}
}

void space_init(struct vhdx *v)
{
	list_init(&v->space.draining);
	list_init(&v->space.committing);
	list_init(&v->space.free);
}

void space_deinit(struct vhdx *v)
{
	extents_free(&v->space.draining);
	extents_free(&v->space.committing);
	extents_free(&v->space.free);
}

/* --- taking --- */

static int end_take(struct vhdx *v, uint64_t length, uint64_t *ret_offset)
{
	struct space *sp = &v->space;
	uint64_t need = sp->end + length;

	if (v->store->fixed_size)
		return -ENOSPC;
	if (need > v->store->size) {
		int r = store_resize(v->store, need + MIN(GROW_MAX, need & ~(MIB - 1)));

		/* A quota or file size limit may still have room for the block itself. */
		if (r < 0)
			r = store_resize(v->store, need);
		if (r < 0)
			return r == -EFBIG ? -ENOSPC : r;
	}
	*ret_offset = sp->end;
	sp->end = need;
	return 0;
}

int space_take(struct vhdx *v, uint64_t length, uint64_t *ret_offset)
{
	list_foreach(it, &v->space.free)
	{
		struct space_extent *e = list_entry(it, struct space_extent, node);

		if (e->length < length)
			continue;
		*ret_offset = e->offset;
		e->offset += length;
		e->length -= length;
		if (!e->length) {
			list_remove(&e->node);
			free(e);
		}
		return 0;
	}
	return end_take(v, length, ret_offset);
}

/* --- giving back --- */

static void on_punched(struct store_io *io, int result)
{
	struct vhdx *v = container_of(io, struct vhdx, space.io);
	struct space_extent *e = v->space.punching;

	v->space.punching = NULL;
	if (result < 0) {
		free(e); /* its bytes are not zeros: nobody may get it */
	} else {
		e->cycle = v->journal.started + 1;
		list_append(&v->space.committing, &e->node);
	}
	space_poll(v);
}

static bool drained(const struct vhdx *v, const struct space_extent *e)
{
	return list_empty(&v->in_flight) ||
	       list_first(&v->in_flight, struct vhdx_piece, node)->sequence >= e->barrier;
}

static void punch_next(struct vhdx *v)
{
	struct space *sp = &v->space;
	struct space_extent *e;

	if (sp->punching || list_empty(&sp->draining))
		return;
	e = list_first(&sp->draining, struct space_extent, node);
	if (!drained(v, e))
		return;
	list_remove(&e->node);
	sp->punching = e;
	sp->io = (struct store_io){
		.op = STORE_PUNCH,
		.offset = e->offset,
		.length = e->length,
		.done = on_punched,
	};
	store_submit(v->store, &sp->io);
}

void space_poll(struct vhdx *v)
{
	while (!list_empty(&v->space.committing)) {
		struct space_extent *e =
			list_first(&v->space.committing, struct space_extent, node);

		if (e->cycle > v->journal.completed)
			break;
		list_remove(&e->node);
		list_append(&v->space.free, &e->node);
	}
	punch_next(v);
}

void space_give(struct vhdx *v, uint64_t offset, uint64_t length)
{
	struct space_extent *e = malloc(sizeof(*e));

	if (!e)
		return; /* lost until the image is compacted */
	*e = (struct space_extent){
		.offset = offset,
		.length = length,
		.barrier = v->io_sequence,
	};
	list_append(&v->space.draining, &e->node);
	punch_next(v);
}

/* --- what nobody uses --- */

int space_map_init(struct space_map *m, uint64_t size)
{
	m->count = size / MIB;
	m->bits = size > SPACE_FILE_MAX ? NULL : calloc(m->count / 8 + 1, 1);
	if (m->bits)
		return 0;
	return size > SPACE_FILE_MAX ? -EFBIG : -ENOMEM;
}

bool space_map_use(struct space_map *m, uint64_t offset, uint64_t length)
{
	bool free = true;

	for (uint64_t i = offset / MIB; i < (offset + length) / MIB && i < m->count; i++) {
		if (m->bits[i / 8] & BIT(i % 8))
			free = false;
		m->bits[i / 8] |= (uint8_t)BIT(i % 8);
	}
	return free;
}

bool space_map_used(const struct space_map *m, uint64_t mib)
{
	return m->bits[mib / 8] & BIT(mib % 8);
}

void space_map_structures(struct space_map *m, const struct vhdx *v)
{
	space_map_use(m, 0, MIB);
	space_map_use(m, v->header.log_offset, v->header.log_length);
	space_map_use(m, v->regions.bat.offset, v->regions.bat.length);
	space_map_use(m, v->regions.metadata.offset, v->regions.metadata.length);
}

static void scan_entry(struct vhdx *v, void *context, uint64_t index, uint64_t entry)
{
	bool bitmap = index % (v->chunk_ratio + 1) == v->chunk_ratio;

	if (VHDX_BAT_OFFSET(entry))
		space_map_use(context, VHDX_BAT_OFFSET(entry),
			      bitmap ? VHDX_BITMAP_SIZE : v->params.block_size);
}

static void give_unused(struct vhdx *v, const struct space_map *m)
{
	uint64_t start = 0, found = 0;

	for (uint64_t i = 1; i <= m->count && found < FOUND_MAX; i++) {
		bool used = i == m->count || space_map_used(m, i);

		if (!used && !start)
			start = i;
		if (used && start) {
			space_give(v, start * MIB, (i - start) * MIB);
			start = 0;
			found++;
		}
	}
}

void space_scan(struct vhdx *v)
{
	struct space_map m = { 0 };

	/* Failing loses nothing but space; the same goes for a table that is too large to read. */
	if (v->space.scanned || v->params.leave_allocated || bat_size_known(v) > SCAN_MAX ||
	    space_map_init(&m, v->space.end) < 0)
		return;
	v->space.scanned = true;
	space_map_structures(&m, v);
	if (!bat_scan(v, scan_entry, &m))
		give_unused(v, &m);
	free(m.bits);
}

/* --- closing --- */

static int later_first(const void *a, const void *b)
{
	const struct space_extent *x = *(struct space_extent *const *)a;
	const struct space_extent *y = *(struct space_extent *const *)b;

	return (x->offset < y->offset) - (x->offset > y->offset);
}

void space_trim_end(struct vhdx *v)
{
	_cleanup_free_ struct space_extent **all = NULL;
	size_t count = 0, n = 0;

	list_foreach(it, &v->space.free) count++;
	all = calloc(count + 1, sizeof(*all));
	if (!all)
		return;
	list_foreach(it, &v->space.free) all[n++] = list_entry(it, struct space_extent, node);
	qsort(all, count, sizeof(*all), later_first);
	for (n = 0; n < count && all[n]->offset + all[n]->length == v->space.end; n++)
		v->space.end = all[n]->offset;
	extents_free(&v->space.free);
}
