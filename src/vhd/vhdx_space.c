// SPDX-License-Identifier: MIT
/*
 * Space in the image file. New blocks get space that was given back in this session, else the end
 * of the file, which grows in larger steps than blocks and is cut when the image is closed.
 *
 * Space given back goes through three states, because a block that gets it must find durable zeros
 * and nobody else's I/O: it waits for the I/O that was on its way when it was given back, it is
 * punched, and it waits for a journal cycle that started after the punch, which makes durable both
 * the punch and the BAT page that no longer refers to it.
 *
 * Space that earlier sessions left unused is not searched for: that is the compactor's work.
 */
#include "vhd/vhdx_internal.h"

#include "lib/cleanup.h"

#include <errno.h>

#define GROW_MIN (64 * MIB)

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

static int end_take(struct vhdx *v, uint64_t *ret_offset)
{
	struct space *sp = &v->space;
	uint64_t need = sp->end + v->params.block_size;

	if (v->store->fixed_size)
		return -ENOSPC;
	if (need > v->store->size) {
		int r = store_resize(v->store, need + MIN(GROW_MIN, need / 8 & ~(MIB - 1)));

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

int space_take(struct vhdx *v, uint64_t *ret_offset)
{
	struct space_extent *e;

	if (list_empty(&v->space.free))
		return end_take(v, ret_offset);
	e = list_first(&v->space.free, struct space_extent, node);
	list_remove(&e->node);
	*ret_offset = e->offset;
	free(e);
	return 0;
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
		.length = v->params.block_size,
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

void space_give(struct vhdx *v, uint64_t offset)
{
	struct space_extent *e = malloc(sizeof(*e));

	if (!e)
		return; /* lost until the image is compacted */
	*e = (struct space_extent){ .offset = offset, .barrier = v->io_sequence };
	list_append(&v->space.draining, &e->node);
	punch_next(v);
}

static int later_first(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x < y) - (x > y);
}

void space_trim_end(struct vhdx *v)
{
	_cleanup_free_ uint64_t *offsets = NULL;
	size_t count = 0, n = 0;

	list_foreach(it, &v->space.free) count++;
	offsets = calloc(count + 1, sizeof(*offsets));
	if (!offsets)
		return;
	list_foreach(it, &v->space.free) offsets[n++] =
		list_entry(it, struct space_extent, node)->offset;
	qsort(offsets, count, sizeof(*offsets), later_first);
	for (n = 0; n < count && offsets[n] + v->params.block_size == v->space.end; n++)
		v->space.end = offsets[n];
	extents_free(&v->space.free);
}
