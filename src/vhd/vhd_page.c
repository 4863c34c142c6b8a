// SPDX-License-Identifier: MIT
/*
 * The block table and the bitmaps of differencing images in memory: pieces of the file that are
 * read when first needed, so that the largest image opens as fast as a small one. What is clean is
 * dropped when there is much, the least recently used first. Entries are judged when they are used.
 * "Block Allocation Table" and "Sector bitmap" in vhd_format.h's document.
 */
#include "vhd/vhd_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

#define BYTES_MAX (4 * MIB) /* the table of 2040 GiB, or bitmaps of 16 GiB, in 2 MiB blocks */

void vhd_cache_init(struct vhd *v)
{
	for (unsigned i = 0; i < VHD_CACHE_BUCKETS; i++)
		list_init(&v->cache.buckets[i]);
	list_init(&v->cache.clean);
	list_init(&v->cache.dirty);
}

static struct list *bucket_of(struct vhd *v, enum vhd_page_kind kind, uint64_t number)
{
	uint64_t key = (number << 1 | kind) * UINT64_C(0x9e3779b97f4a7c15);

	return &v->cache.buckets[key >> 32 & (VHD_CACHE_BUCKETS - 1)];
}

static void page_free(struct vhd_page *p)
{
	if (p->is_dirty)
		p->v->cache.dirty_count--;
	p->v->cache.bytes -= p->length;
	list_remove(&p->hash);
	list_remove(&p->lru);
	list_remove(&p->dirty);
	free(p->bytes);
	free(p->commit);
	free(p);
}

void vhd_cache_deinit(struct vhd *v)
{
	for (unsigned i = 0; i < VHD_CACHE_BUCKETS; i++)
		while (!list_empty(&v->cache.buckets[i]))
			page_free(list_first(&v->cache.buckets[i], struct vhd_page, hash));
}

void vhd_cache_clear(struct vhd *v)
{
	vhd_cache_deinit(v);
}

static struct vhd_page *lookup(struct vhd *v, enum vhd_page_kind kind, uint64_t number)
{
	list_foreach(it, bucket_of(v, kind, number))
	{
		struct vhd_page *p = list_entry(it, struct vhd_page, hash);

		if (p->number == number && p->kind == kind)
			return p;
	}
	return NULL;
}

/* On the list of pages that may be dropped, as the last to go, if it may be. */
static void page_touch(struct vhd_page *p)
{
	list_remove(&p->lru);
	if (!p->loading && !p->is_dirty && !p->commit && !p->pins)
		list_append(&p->v->cache.clean, &p->lru);
}

struct vhd_page *vhd_page_find(struct vhd *v, enum vhd_page_kind kind, uint64_t number)
{
	struct vhd_page *p = lookup(v, kind, number);

	if (!p || p->loading)
		return NULL;
	if (p->lru.next != &v->cache.clean)
		page_touch(p);
	return p;
}

static uint8_t *bytes_new(size_t n)
{
	void *p;

	return posix_memalign(&p, 4096, n) ? NULL : p;
}

/* The last page of the table ends with the table: blocks may follow at once. */
static uint32_t page_length(const struct vhd *v, enum vhd_page_kind kind, uint64_t number)
{
	uint64_t table = vhd_bat_bytes(be32_get(v->header.max_table_entries));

	if (kind == VHD_PAGE_BITMAP)
		return v->bitmap_bytes;
	return (uint32_t)MIN(VHD_PAGE_BYTES, table - number * VHD_PAGE_BYTES);
}

static struct vhd_page *page_new(struct vhd *v, enum vhd_page_kind kind, uint64_t number,
				 uint64_t offset)
{
	struct vhd_page *p;

	while (v->cache.bytes >= BYTES_MAX && !list_empty(&v->cache.clean))
		page_free(list_first(&v->cache.clean, struct vhd_page, lru));
	p = calloc(1, sizeof(*p));
	if (!p)
		return NULL;
	p->length = page_length(v, kind, number);
	p->bytes = bytes_new(p->length);
	if (!p->bytes) {
		free(p);
		return NULL;
	}
	list_init(&p->lru);
	list_init(&p->dirty);
	list_init(&p->waiters);
	p->v = v;
	p->kind = kind;
	p->number = number;
	p->offset = offset;
	list_append(bucket_of(v, kind, number), &p->hash);
	v->cache.bytes += p->length;
	return p;
}

static void on_loaded(struct store_io *io, int result)
{
	struct vhd_page *p = container_of(io, struct vhd_page, io);
	struct list waiters;

	list_init(&waiters);
	list_splice(&waiters, &p->waiters);
	p->loading = false;
	if (result < 0)
		page_free(p);
	else
		page_touch(p);
	while (!list_empty(&waiters)) {
		struct vhd_op *op = list_first(&waiters, struct vhd_op, node);

		list_remove(&op->node);
		vhd_op_resume(op, result);
	}
}

int vhd_page_load(struct vhd *v, enum vhd_page_kind kind, uint64_t number, uint64_t offset,
		  struct vhd_op *op)
{
	struct vhd_page *p = lookup(v, kind, number);

	if (!p) {
		p = page_new(v, kind, number, offset);
		if (!p)
			return -ENOMEM;
		p->loading = true;
		p->iov = (struct iovec){ p->bytes, p->length };
		p->io = (struct store_io){
			.op = STORE_READ,
			.offset = offset,
			.length = p->length,
			.iov = &p->iov,
			.iovcnt = 1,
			.done = on_loaded,
		};
		store_submit(v->store, &p->io);
	}
	list_append(&p->waiters, &op->node);
	return 0;
}

int vhd_page_load_now(struct vhd *v, enum vhd_page_kind kind, uint64_t number, uint64_t offset,
		      struct vhd_page **ret)
{
	struct vhd_page *p = vhd_page_find(v, kind, number);
	int r;

	/* A page that is just being loaded has waiters: let the loop finish it. */
	while (!p && lookup(v, kind, number)) {
		r = loop_once(v->disk.loop, -1);
		if (r < 0)
			return r;
		p = vhd_page_find(v, kind, number);
	}
	if (!p) {
		p = page_new(v, kind, number, offset);
		if (!p)
			return -ENOMEM;
		r = store_read(v->store, p->bytes, p->length, offset);
		if (r < 0) {
			page_free(p);
			return r;
		}
		page_touch(p);
	}
	*ret = p;
	return 0;
}

struct vhd_page *vhd_page_add(struct vhd *v, enum vhd_page_kind kind, uint64_t number,
			      uint64_t offset)
{
	struct vhd_page *p = page_new(v, kind, number, offset);

	if (!p)
		return NULL;
	memset(p->bytes, 0, p->length);
	page_touch(p);
	return p;
}

void vhd_page_pin(struct vhd_page *p)
{
	p->pins++;
	list_remove(&p->lru);
}

void vhd_page_unpin(struct vhd_page *p)
{
	p->pins--;
	page_touch(p);
}

void vhd_page_dirty(struct vhd_page *p)
{
	if (p->is_dirty)
		return;
	p->is_dirty = true;
	p->v->cache.dirty_count++;
	list_remove(&p->lru);
	if (!p->commit) /* else the end of that commit puts it there */
		list_append(&p->v->cache.dirty, &p->dirty);
	vhd_commit_poll(p->v);
}

/* --- on the way to the disk --- */

int vhd_page_commit_start(struct vhd_page *p, struct list *pages)
{
	p->commit = bytes_new(p->length);
	if (!p->commit)
		return -ENOMEM;
	memcpy(p->commit, p->bytes, p->length);
	p->is_dirty = false;
	p->v->cache.dirty_count--;
	list_remove(&p->dirty);
	list_append(pages, &p->dirty);
	return 0;
}

void vhd_page_commit_end(struct vhd_page *p, int result)
{
	free(p->commit);
	p->commit = NULL;
	list_remove(&p->dirty);
	if (result < 0 || p->is_dirty) {
		/* Changed meanwhile, or still not on the disk. */
		if (!p->is_dirty)
			p->v->cache.dirty_count++;
		p->is_dirty = true;
		list_append(&p->v->cache.dirty, &p->dirty);
	}
	page_touch(p);
}

/* --- entries --- */

static bool overlaps(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
	return a < b + b_length && b < a + a_length;
}

int vhd_bat_get(const struct vhd *v, const struct vhd_page *p, uint64_t block, uint64_t *ret_offset)
{
	const be32 *entries = (const be32 *)(const void *)p->bytes;
	uint32_t sector = be32_get(entries[block % VHD_PER_PAGE]);
	uint64_t offset = (uint64_t)sector * VHD_SECTOR, n = vhd_block_bytes(v);

	if (sector == VHD_BAT_UNUSED)
		return 0;
	if (!sector || !range_inside(offset, n, v->space.end) ||
	    overlaps(offset, n, v->header_offset, VHD_HEADER_SIZE) ||
	    overlaps(offset, n, v->bat_offset,
		     vhd_bat_bytes(be32_get(v->header.max_table_entries))))
		return -EUCLEAN;
	*ret_offset = offset;
	return 1;
}

void vhd_bat_set(struct vhd_page *p, uint64_t block, uint64_t offset)
{
	be32 *entries = (be32 *)(void *)p->bytes;

	entries[block % VHD_PER_PAGE] =
		be32_of(offset ? (uint32_t)(offset / VHD_SECTOR) : VHD_BAT_UNUSED);
	vhd_page_dirty(p);
}

/* --- bits, the first sector in the highest bit of the first byte --- */

static bool bit_get(const struct vhd_page *p, uint32_t i)
{
	return p->bytes[i / 8] >> (7 - i % 8) & 1;
}

uint32_t vhd_bits_run(const struct vhd_page *p, uint32_t first, uint32_t count, bool *ret_here)
{
	bool here = bit_get(p, first);
	uint8_t same = here ? 0xff : 0;
	uint32_t i = first + 1, end = first + count;

	while (i < end)
		if (!(i % 8) && end - i >= 8 && p->bytes[i / 8] == same)
			i += 8;
		else if (bit_get(p, i) == here)
			i++;
		else
			break;
	*ret_here = here;
	return i - first;
}

void vhd_bits_mark(struct vhd_page *p, uint32_t first, uint32_t count)
{
	bool changed = false;

	for (uint32_t i = first; i < first + count; i++) {
		uint8_t bit = (uint8_t)(0x80u >> i % 8);

		changed |= !(p->bytes[i / 8] & bit);
		p->bytes[i / 8] |= bit;
	}
	if (changed)
		vhd_page_dirty(p);
}
