// SPDX-License-Identifier: MIT
/*
 * Space in the image file. New blocks get space that was given back in this session, else the end
 * of the file. Both read as zeros.
 *
 * Space given back goes through three states, because a block that gets it must find durable zeros
 * and nobody else's I/O: it waits for the I/O that was on its way when it was given back, it is
 * punched, and it waits for a commit that started after the punch, which makes durable both the
 * punch and the entry that no longer refers to it. The bitmap in front is not punched: until then
 * the block may come back by a power cut, and a dynamic image's bitmaps are full and stay so.
 *
 * Space that earlier sessions left unused is not searched for: vhd_compact.c gives it back.
 */
#include "vhd/vhd_internal.h"

#include "lib/cleanup.h"

#include <errno.h>

#define DATA_ALIGN UINT64_C(4096)
#define GAP_MAX    (2 * DATA_ALIGN) /* between a block and what was allocated after it */

static void extents_free(struct list *l)
{
	while (!list_empty(l)) {
		struct vhd_space_extent *e = list_first(l, struct vhd_space_extent, node);

		list_remove(&e->node);
		free(e);
	}
}

void vhd_space_init(struct vhd *v)
{
	list_init(&v->space.draining);
	list_init(&v->space.punched);
	list_init(&v->space.free);
}

void vhd_space_deinit(struct vhd *v)
{
	extents_free(&v->space.draining);
	extents_free(&v->space.punched);
	extents_free(&v->space.free);
}

/* --- taking --- */

/* Behind the footer that is or may be at the end; the block's data is aligned, its bitmap not. */
static int end_take(struct vhd *v, uint64_t *ret_offset)
{
	struct vhd_space *sp = &v->space;
	uint64_t at = round_up64(sp->end + VHD_FOOTER_SIZE + v->bitmap_bytes, DATA_ALIGN) -
		      v->bitmap_bytes;
	uint64_t need = at + vhd_block_bytes(v);
	int r;

	if (at / VHD_SECTOR >= VHD_BAT_UNUSED)
		return -ENOSPC;
	r = store_resize(v->store, need + VHD_FOOTER_SIZE);
	if (r < 0)
		return r == -EFBIG ? -ENOSPC : r;
	*ret_offset = at;
	sp->end = need;
	return 0;
}

int vhd_space_take(struct vhd *v, uint64_t *ret_offset)
{
	struct vhd_space_extent *e;

	if (list_empty(&v->space.free))
		return end_take(v, ret_offset);
	e = list_first(&v->space.free, struct vhd_space_extent, node);
	list_remove(&e->node);
	*ret_offset = e->offset;
	free(e);
	return 0;
}

/* --- giving back --- */

static void on_punched(struct store_io *io, int result)
{
	struct vhd *v = container_of(io, struct vhd, space.io);
	struct vhd_space_extent *e = v->space.punching;

	v->space.punching = NULL;
	if (result < 0) {
		free(e); /* its bytes are not zeros: nobody may get it */
	} else {
		e->cycle = v->commit.started + 1;
		list_append(&v->space.punched, &e->node);
	}
	vhd_space_poll(v);
}

static bool drained(const struct vhd *v, const struct vhd_space_extent *e)
{
	return list_empty(&v->in_flight) ||
	       list_first(&v->in_flight, struct vhd_piece, node)->sequence >= e->barrier;
}

static void punch_next(struct vhd *v)
{
	struct vhd_space *sp = &v->space;
	struct vhd_space_extent *e;

	if (sp->punching || list_empty(&sp->draining))
		return;
	e = list_first(&sp->draining, struct vhd_space_extent, node);
	if (!drained(v, e))
		return;
	list_remove(&e->node);
	sp->punching = e;
	sp->io = (struct store_io){
		.op = STORE_PUNCH,
		.offset = e->offset + v->bitmap_bytes,
		.length = vhd_block_size(v),
		.done = on_punched,
	};
	store_submit(v->store, &sp->io);
}

void vhd_space_poll(struct vhd *v)
{
	while (!list_empty(&v->space.punched)) {
		struct vhd_space_extent *e =
			list_first(&v->space.punched, struct vhd_space_extent, node);

		if (e->cycle > v->commit.completed)
			break;
		list_remove(&e->node);
		list_append(&v->space.free, &e->node);
	}
	punch_next(v);
}

void vhd_space_give(struct vhd *v, uint64_t offset)
{
	struct vhd_space_extent *e = malloc(sizeof(*e));

	if (!e)
		return; /* lost until the image is compacted */
	*e = (struct vhd_space_extent){ .offset = offset, .barrier = v->io_sequence };
	list_append(&v->space.draining, &e->node);
	punch_next(v);
}

static void extents_cut(struct vhd *v, struct list *l)
{
	list_foreach_safe(it, l)
	{
		struct vhd_space_extent *e = list_entry(it, struct vhd_space_extent, node);

		if (e->offset + vhd_block_bytes(v) > v->space.end) {
			list_remove(&e->node);
			free(e);
		}
	}
}

void vhd_space_cut(struct vhd *v, uint64_t end)
{
	v->space.end = end;
	extents_cut(v, &v->space.draining);
	extents_cut(v, &v->space.punched);
	extents_cut(v, &v->space.free);
}

int vhd_space_forget(struct vhd *v)
{
	int r = 0;

	extents_free(&v->space.draining);
	while (v->space.punching && r >= 0)
		r = loop_once(v->disk.loop, -1);
	vhd_space_deinit(v);
	return r;
}

static int later_first(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x < y) - (x > y);
}

void vhd_space_trim_end(struct vhd *v)
{
	_cleanup_free_ uint64_t *offsets = NULL;
	size_t count = 0, n = 0;

	list_foreach(it, &v->space.free) count++;
	offsets = calloc(count + 1, sizeof(*offsets));
	if (!offsets)
		return;
	list_foreach(it, &v->space.free) offsets[n++] =
		list_entry(it, struct vhd_space_extent, node)->offset;
	qsort(offsets, count, sizeof(*offsets), later_first);
	for (n = 0; n < count; n++) {
		uint64_t end = offsets[n] + vhd_block_bytes(v);

		if (end > v->space.end || v->space.end - end >= GAP_MAX)
			break;
		v->space.end = offsets[n];
	}
	extents_free(&v->space.free);
}

int vhd_space_used_end(struct vhd *v, uint64_t least, uint64_t *ret)
{
	uint64_t end = least;

	for (uint64_t block = 0; block < v->blocks; block++) {
		struct vhd_page *p;
		uint64_t offset;
		int r = vhd_page_load_now(v, VHD_PAGE_BAT, block / VHD_PER_PAGE,
					  vhd_bat_page_offset(v, block), &p);

		if (r >= 0)
			r = vhd_bat_get(v, p, block, &offset);
		if (r < 0)
			return r;
		if (r)
			end = MAX(end, offset + vhd_block_bytes(v));
	}
	*ret = end;
	return 0;
}
