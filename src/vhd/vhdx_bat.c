// SPDX-License-Identifier: MIT
/*
 * The block allocation table (MS-VHDX 2.5) in memory: pages of 4 KiB, read when first needed, so
 * that an image of 64 TiB opens as fast as a small one. Clean pages are dropped when there are
 * many, the least recently used first. Entries are judged when they are used, since a table of half
 * a GiB cannot be judged on opening.
 */
#include "vhd/vhdx_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

#define PAGES_MAX 1024u /* 4 MiB; with 32 MiB blocks that is the table of 16 TiB */

int bat_init(struct vhdx *v)
{
	uint64_t count = vhdx_bat_count(&v->params);

	list_init(&v->bat.clean);
	list_init(&v->bat.dirty);
	list_init(&v->bat.unapplied);
	v->bat.page_count = (count + VHDX_BAT_PER_PAGE - 1) / VHDX_BAT_PER_PAGE;
	v->bat.pages = calloc(v->bat.page_count, sizeof(*v->bat.pages));
	return v->bat.pages ? 0 : -ENOMEM;
}

static void page_free(struct vhdx *v, struct bat_page *p)
{
	if (!p)
		return;
	v->bat.pages[p->index] = NULL;
	v->bat.loaded--;
	list_remove(&p->lru);
	list_remove(&p->dirty_node);
	list_remove(&p->unapplied_node);
	free(p->entries);
	free(p->logged);
	free(p);
}

void bat_deinit(struct vhdx *v)
{
	if (!v->bat.pages)
		return;
	for (uint64_t i = 0; v->bat.loaded && i < v->bat.page_count; i++)
		page_free(v, v->bat.pages[i]);
	free(v->bat.pages);
	v->bat.pages = NULL;
}

static le64 *entries_new(void)
{
	void *p;

	return posix_memalign(&p, VHDX_SECTOR, VHDX_SECTOR) ? NULL : p;
}

static struct bat_page *page_new(struct vhdx *v, uint64_t index)
{
	struct bat_page *p;

	if (v->bat.loaded >= PAGES_MAX && !list_empty(&v->bat.clean))
		page_free(v, list_first(&v->bat.clean, struct bat_page, lru));
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->entries = entries_new();
	if (!p->entries) {
		free(p);
		return NULL;
	}
	list_init(&p->lru);
	list_init(&p->dirty_node);
	list_init(&p->unapplied_node);
	list_init(&p->waiters);
	p->v = v;
	p->index = index;
	v->bat.pages[index] = p;
	v->bat.loaded++;
	return p;
}

/* On the list of pages that may be dropped, as the last to go, if it may be. */
static void page_touch(struct vhdx *v, struct bat_page *p)
{
	list_remove(&p->lru);
	if (!p->loading && !p->dirty && !p->logged)
		list_append(&v->bat.clean, &p->lru);
}

uint64_t bat_page_offset(const struct vhdx *v, const struct bat_page *p)
{
	return v->regions.bat.offset + p->index * VHDX_SECTOR;
}

static uint64_t page_index(const struct vhdx *v, uint64_t block)
{
	return (block + block / v->chunk_ratio) / VHDX_BAT_PER_PAGE;
}

struct bat_page *bat_page_find(struct vhdx *v, uint64_t block)
{
	struct bat_page *p = v->bat.pages[page_index(v, block)];

	if (!p || p->loading)
		return NULL;
	if (p->lru.next != &v->bat.clean && !p->dirty && !p->logged)
		page_touch(v, p);
	return p;
}

static void on_loaded(struct store_io *io, int result)
{
	struct bat_page *p = container_of(io, struct bat_page, io);
	struct list waiters;

	list_init(&waiters);
	list_splice(&waiters, &p->waiters);
	p->loading = false;
	if (result < 0)
		page_free(p->v, p);
	else
		page_touch(p->v, p);
	while (!list_empty(&waiters)) {
		struct vhdx_op *op = list_first(&waiters, struct vhdx_op, node);

		list_remove(&op->node);
		vhdx_op_resume(op, result);
	}
}

int bat_page_load(struct vhdx *v, uint64_t block, struct vhdx_op *op)
{
	uint64_t index = page_index(v, block);
	struct bat_page *p = v->bat.pages[index];

	if (!p) {
		p = page_new(v, index);
		if (!p)
			return -ENOMEM;
		p->loading = true;
		p->iov = (struct iovec){ p->entries, VHDX_SECTOR };
		p->io = (struct store_io){
			.op = STORE_READ,
			.offset = bat_page_offset(v, p),
			.length = VHDX_SECTOR,
			.iov = &p->iov,
			.iovcnt = 1,
			.done = on_loaded,
		};
		store_submit(v->store, &p->io);
	}
	list_append(&p->waiters, &op->node);
	return 0;
}

int bat_page_load_now(struct vhdx *v, uint64_t block, struct bat_page **ret)
{
	struct bat_page *p = bat_page_find(v, block);
	int r;

	/* A page that is just being loaded has waiters: let the loop finish it. */
	while (!p && v->bat.pages[page_index(v, block)]) {
		r = loop_once(v->disk.loop, -1);
		if (r < 0)
			return r;
		p = bat_page_find(v, block);
	}
	if (!p) {
		p = page_new(v, page_index(v, block));
		if (!p)
			return -ENOMEM;
		r = store_read(v->store, p->entries, VHDX_SECTOR, bat_page_offset(v, p));
		if (r < 0) {
			page_free(v, p);
			return r;
		}
		page_touch(v, p);
	}
	*ret = p;
	return 0;
}

/* --- entries --- */

static le64 *entry_of(const struct vhdx *v, const struct bat_page *p, uint64_t block)
{
	return &p->entries[(block + block / v->chunk_ratio) % VHDX_BAT_PER_PAGE];
}

static bool overlaps(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

/* MS-VHDX 2.5.1.1: inside the file, and on none of the structures. */
static bool place_valid(const struct vhdx *v, uint64_t offset)
{
	uint32_t n = v->params.block_size;

	return offset >= VHDX_OBJECT_ALIGN && range_inside(offset, n, v->space.end) &&
	       !overlaps(offset, n, v->header.log_offset, v->header.log_length) &&
	       !overlaps(offset, n, v->regions.bat.offset, v->regions.bat.length) &&
	       !overlaps(offset, n, v->regions.metadata.offset, v->regions.metadata.length);
}

int bat_get(struct vhdx *v, const struct bat_page *p, uint64_t block, unsigned *ret_state,
	    uint64_t *ret_offset)
{
	uint64_t e = le64_get(*entry_of(v, p, block));

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
	case VHDX_BLOCK_FULLY_PRESENT:
		*ret_offset = VHDX_BAT_OFFSET(e);
		return place_valid(v, *ret_offset) ? 0 : -EIO;
	default: /* 4; and 7, which only differencing images have */
		return -EIO;
	}
}

void bat_set(struct vhdx *v, struct bat_page *p, uint64_t block, unsigned state, uint64_t offset)
{
	*entry_of(v, p, block) = le64_of(offset | state);
	if (p->dirty)
		return;
	p->dirty = true;
	list_remove(&p->lru);
	list_append(&v->bat.dirty, &p->dirty_node);
	v->bat.dirty_count++;
	journal_poll(v);
}

/* --- on the way to the disk --- */

int bat_page_log(struct vhdx *v, struct bat_page *p)
{
	if (!p->logged) {
		p->logged = entries_new();
		if (!p->logged)
			return -ENOMEM;
		list_append(&v->bat.unapplied, &p->unapplied_node);
		v->bat.unapplied_count++;
	}
	memcpy(p->logged, p->entries, VHDX_SECTOR);
	p->dirty = false;
	p->unlogged = false;
	list_remove(&p->dirty_node);
	v->bat.dirty_count--;
	return 0;
}

void bat_page_relog(struct vhdx *v, struct bat_page *p)
{
	p->unlogged = true;
	if (p->dirty)
		return;
	p->dirty = true;
	list_append(&v->bat.dirty, &p->dirty_node);
	v->bat.dirty_count++;
}

void bat_page_applied(struct vhdx *v, struct bat_page *p)
{
	free(p->logged);
	p->logged = NULL;
	list_remove(&p->unapplied_node);
	v->bat.unapplied_count--;
	page_touch(v, p);
}
