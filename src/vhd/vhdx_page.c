// SPDX-License-Identifier: MIT
/*
 * Pages of the file in memory, 4 KiB each: of the block allocation table, of sector bitmaps, of
 * metadata and region tables. They are read when first needed, so that an image of 64 TiB opens as
 * fast as a small one; clean ones are dropped when there are many, the least recently used first.
 * Changed ones reach the file through the journal only.
 */
#include "vhd/vhdx_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

#define PAGES_MAX 1024u /* 4 MiB; with 32 MiB blocks that is the table of 16 TiB */

static struct list *bucket_of(struct vhdx *v, uint64_t offset)
{
	return &v->pages.buckets[offset / VHDX_SECTOR % PAGE_BUCKETS];
}

int pages_init(struct vhdx *v)
{
	list_init(&v->pages.clean);
	list_init(&v->pages.dirty);
	list_init(&v->pages.unapplied);
	v->pages.buckets = calloc(PAGE_BUCKETS, sizeof(*v->pages.buckets));
	if (!v->pages.buckets)
		return -ENOMEM;
	for (size_t i = 0; i < PAGE_BUCKETS; i++)
		list_init(&v->pages.buckets[i]);
	return 0;
}

static void page_free(struct vhdx *v, struct page *p)
{
	v->pages.loaded--;
	list_remove(&p->hash);
	list_remove(&p->lru);
	list_remove(&p->dirty_node);
	list_remove(&p->unapplied_node);
	free(p->bytes);
	free(p->logged);
	free(p);
}

void pages_deinit(struct vhdx *v)
{
	for (size_t i = 0; v->pages.buckets && i < PAGE_BUCKETS; i++)
		while (!list_empty(&v->pages.buckets[i]))
			page_free(v, list_first(&v->pages.buckets[i], struct page, hash));
	free(v->pages.buckets);
	v->pages.buckets = NULL;
}

static struct page *lookup(struct vhdx *v, uint64_t offset)
{
	list_foreach(it, bucket_of(v, offset))
	{
		struct page *p = list_entry(it, struct page, hash);

		if (p->offset == offset)
			return p;
	}
	return NULL;
}

static void *bytes_new(void)
{
	void *p;

	return posix_memalign(&p, VHDX_SECTOR, VHDX_SECTOR) ? NULL : p;
}

static struct page *page_new(struct vhdx *v, uint64_t offset)
{
	struct page *p;

	if (v->pages.loaded >= PAGES_MAX && !list_empty(&v->pages.clean))
		page_free(v, list_first(&v->pages.clean, struct page, lru));
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->bytes = bytes_new();
	if (!p->bytes) {
		free(p);
		return NULL;
	}
	list_init(&p->lru);
	list_init(&p->dirty_node);
	list_init(&p->unapplied_node);
	list_init(&p->waiters);
	p->v = v;
	p->offset = offset;
	list_append(bucket_of(v, offset), &p->hash);
	v->pages.loaded++;
	return p;
}

static bool droppable(const struct page *p)
{
	return !p->loading && !p->dirty && !p->logged && !p->pins;
}

/* On the list of pages that may be dropped, as the last to go, if it may be. */
static void page_touch(struct vhdx *v, struct page *p)
{
	list_remove(&p->lru);
	if (droppable(p))
		list_append(&v->pages.clean, &p->lru);
}

bool page_cached(struct vhdx *v, uint64_t offset)
{
	return lookup(v, offset);
}

struct page *page_find(struct vhdx *v, uint64_t offset)
{
	struct page *p = lookup(v, offset);

	if (!p || p->loading)
		return NULL;
	if (p->lru.next != &v->pages.clean && droppable(p))
		page_touch(v, p);
	return p;
}

void page_pin(struct page *p)
{
	p->pins++;
	list_remove(&p->lru);
}

void page_unpin(struct page *p)
{
	p->pins--;
	page_touch(p->v, p);
}

static void on_loaded(struct store_io *io, int result)
{
	struct page *p = container_of(io, struct page, io);
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

int page_load(struct vhdx *v, uint64_t offset, struct vhdx_op *op)
{
	struct page *p = lookup(v, offset);

	if (!p) {
		p = page_new(v, offset);
		if (!p)
			return -ENOMEM;
		p->loading = true;
		p->iov = (struct iovec){ p->bytes, VHDX_SECTOR };
		p->io = (struct store_io){
			.op = STORE_READ,
			.offset = offset,
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

int page_load_now(struct vhdx *v, uint64_t offset, struct page **ret)
{
	struct page *p = page_find(v, offset);
	int r;

	/* A page that is just being loaded has waiters: let the loop finish it. */
	while (!p && lookup(v, offset)) {
		r = loop_once(v->disk.loop, -1);
		if (r < 0)
			return r;
		p = page_find(v, offset);
	}
	if (!p) {
		p = page_new(v, offset);
		if (!p)
			return -ENOMEM;
		r = store_read(v->store, p->bytes, VHDX_SECTOR, offset);
		if (r < 0) {
			page_free(v, p);
			return r;
		}
		page_touch(v, p);
	}
	*ret = p;
	return 0;
}

void pages_forget(struct vhdx *v, uint64_t offset, uint64_t length)
{
	for (size_t i = 0; i < PAGE_BUCKETS; i++) {
		list_foreach_safe(it, &v->pages.buckets[i])
		{
			struct page *p = list_entry(it, struct page, hash);

			if (p->offset >= offset && p->offset - offset < length)
				page_free(v, p);
		}
	}
}

/* --- on the way to the disk --- */

void page_dirty(struct vhdx *v, struct page *p)
{
	if (p->dirty)
		return;
	p->dirty = true;
	list_remove(&p->lru);
	list_append(&v->pages.dirty, &p->dirty_node);
	v->pages.dirty_count++;
	journal_poll(v);
}

int page_log(struct vhdx *v, struct page *p)
{
	if (!p->logged) {
		p->logged = bytes_new();
		if (!p->logged)
			return -ENOMEM;
		list_append(&v->pages.unapplied, &p->unapplied_node);
		v->pages.unapplied_count++;
	}
	memcpy(p->logged, p->bytes, VHDX_SECTOR);
	p->dirty = false;
	p->unlogged = false;
	list_remove(&p->dirty_node);
	v->pages.dirty_count--;
	return 0;
}

void page_relog(struct vhdx *v, struct page *p)
{
	p->unlogged = true;
	if (p->dirty)
		return;
	p->dirty = true;
	list_append(&v->pages.dirty, &p->dirty_node);
	v->pages.dirty_count++;
}

void page_applied(struct vhdx *v, struct page *p)
{
	free(p->logged);
	p->logged = NULL;
	list_remove(&p->unapplied_node);
	v->pages.unapplied_count--;
	page_touch(v, p);
}
