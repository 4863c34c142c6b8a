/* SPDX-License-Identifier: MIT */
/*
 * What the files of an open VHD share. Each part below belongs to the file named there; others use
 * its functions. Everything runs on the disk's loop, so there are no locks.
 *
 * The format has no log. What is durable changes in commits, each for all that gathered since the
 * last one (vhd_commit.c):
 *
 *   1. bitmaps of new blocks are filled, and a footer is put behind the last block;
 *   2. flush: data, those bitmaps, and the file's size are durable;
 *   3. changed sectors of the block table, and of differencing images' bitmaps, are written;
 *   4. flush.
 *
 * Each entry and each bit that step 3 writes is right alone, in any order and mixture, because what
 * it refers to is durable since step 2. Space that a block gets reads as zeros, durably so: it is
 * new at the end of the file, or it was punched and that punch flushed. So a write neither waits
 * for an allocation nor for a commit.
 *
 * The footer at the end is not overwritten by new blocks: one starts a sector behind it at the
 * earliest. The data of new blocks is aligned to 4 KiB, so that this costs nothing with the usual
 * block sizes. Between commits the file may end elsewhere; then its first sector, a copy of the
 * footer, is what counts.
 */
#pragma once

#include "vhd/below.h"
#include "vhd/disk.h"
#include "vhd/later.h"
#include "vhd/store.h"
#include "vhd/vhd.h"
#include "vhd/vhd_meta.h"

struct vhd;

/* A transfer between a request and one place in the store, or the parent (vhd_io.c). */
struct vhd_piece {
	struct store_io io;
	struct below_read below;
	struct vhd_op *op;
	struct list node;      /* vhd.in_flight */
	uint64_t sequence;     /* rising with submission */
	struct iovec *iov;     /* owned; NULL = the request's */
	struct vhd_page *bits; /* pinned; sectors below are marked when the transfer is through */
	uint32_t mark_first, mark_count;
};

/* A request on its way (vhd_io.c). */
struct vhd_op {
	struct disk_request *req; /* NULL = ended inside of submit */
	struct vhd *v;
	struct list node; /* where it waits: page or flush */
	uint64_t at;      /* bytes of the request that are under way */
	unsigned pending; /* pieces, and one for the walk itself */
	int result;
	bool inside; /* disk_submit is on the stack: done must wait */
	bool first_used;
	struct vhd_piece first;
};

/* A piece of the block table, or the bitmap of a block (vhd_page.c). */
enum vhd_page_kind { VHD_PAGE_BAT, VHD_PAGE_BITMAP };

struct vhd_page {
	struct list hash;
	struct list lru;     /* cache.clean while it may be dropped */
	struct list dirty;   /* cache.dirty, or the commit's */
	struct list waiters; /* vhd_op.node, while loading */
	struct vhd *v;
	enum vhd_page_kind kind;
	uint64_t number; /* of the page in the table; of the block */
	uint64_t offset; /* in the file */
	uint32_t length;
	unsigned pins;
	bool loading, is_dirty;
	uint8_t *bytes;  /* as requests see them */
	uint8_t *commit; /* as they are being written; NULL = they are not */
	struct store_io io;
	struct iovec iov;
};

#define VHD_CACHE_BUCKETS 4096u

struct vhd_cache {
	struct list buckets[VHD_CACHE_BUCKETS];
	struct list clean, dirty;
	size_t bytes, dirty_count;
};

/* Space that was given back (vhd_space.c). */
struct vhd_space_extent {
	struct list node;
	uint64_t offset;
	uint64_t barrier; /* I/O from before this number may still be going there */
	uint64_t cycle;   /* free when this commit is complete */
};

struct vhd_space {
	uint64_t end;         /* the footer's place; everything from here on is unused */
	struct list draining; /* given back, but older I/O may still be on its way there */
	struct list punched;  /* but that is not durable yet */
	struct list free;
	struct vhd_space_extent *punching;
	struct store_io io;
};

/* A new block whose bitmap is to be filled (vhd_commit.c). */
struct vhd_fill {
	struct list node;
	struct vhd *v;
	uint64_t offset;
	struct store_io io;
	struct iovec iov;
};

struct vhd_commit {
	bool busy; /* a step is under way; its continuation is `next` */
	bool flush_wanted;
	int failed; /* negative errno: durability is lost, only reads go on */
	int result; /* of the last commit */
	void (*next)(struct vhd *v, int result);
	unsigned pending; /* transfers of the step at hand */
	int step_result;
	struct store_io io;
	struct iovec iov;
	struct loop_task task;
	struct list flush_waiters, flush_active; /* vhd_op.node */
	struct list fills, fills_active;
	size_t fill_count;
	struct list pages;              /* of this commit */
	uint64_t started, completed;    /* commits */
	uint64_t footer_at;             /* where the last footer was written */
	uint8_t *ones;                  /* a bitmap of a full block */
	struct vhd_disk_footer *sector; /* aligned copy of the footer, to write from */
};

struct vhd {
	struct disk disk;
	struct store *store;
	struct vhd_disk_footer footer;
	struct vhd_disk_header header; /* not in fixed images */
	enum vhd_kind kind;
	bool repaired;
	bool end_good, copy_good; /* footers, as found */
	uint64_t behind;          /* bytes that follow the footer: only reading is allowed */
	struct disk_parent parent;
	uint64_t header_offset, bat_offset;
	uint64_t blocks;       /* that the disk has; the table may have more entries */
	uint32_t bitmap_bytes; /* in front of each block */
	/*
	 * Old software set a sector's bit when it was written, so bitmaps of its dynamic images
	 * have gaps, and others may believe them: a bitmap is filled when its block is first
	 * written to. A bit per block, set when that has been done; NULL = there are no gaps.
	 */
	uint8_t *filled;
	unsigned block_shift;
	struct vhd_cache cache;
	struct vhd_space space;
	struct vhd_commit commit;
	struct list in_flight; /* vhd_piece.node, oldest first */
	uint64_t io_sequence;
	struct later later;
};

static inline struct vhd *vhd_of(struct disk *disk)
{
	return container_of(disk, struct vhd, disk);
}

static inline uint64_t vhd_block_size(const struct vhd *v)
{
	return BIT64(v->block_shift);
}

/* Of a block with its bitmap. */
static inline uint64_t vhd_block_bytes(const struct vhd *v)
{
	return v->bitmap_bytes + vhd_block_size(v);
}

/* Of the table, up to a whole sector. */
static inline uint64_t vhd_bat_bytes(uint64_t entries)
{
	return round_up64(entries * 4, VHD_SECTOR);
}

/* --- vhd.c --- */

/* Takes geometry, table and parent from v->footer and v->header; 0, or negative errno. */
int vhd_structures_set(struct vhd *v, struct error *err);

/* --- vhd_page.c --- */

#define VHD_PAGE_BYTES 4096u
#define VHD_PER_PAGE   (VHD_PAGE_BYTES / 4u)

void vhd_cache_init(struct vhd *v);
void vhd_cache_deinit(struct vhd *v);
/* Forgets all pages: none may be dirty, pinned or loading. */
void vhd_cache_clear(struct vhd *v);
/* NULL when it is not in memory (yet). */
struct vhd_page *vhd_page_find(struct vhd *v, enum vhd_page_kind kind, uint64_t number);
/* Brings a page into memory and then resumes op; 0, or negative errno and op does not wait. */
int vhd_page_load(struct vhd *v, enum vhd_page_kind kind, uint64_t number, uint64_t offset,
		  struct vhd_op *op);
/* Blocking; for tools and extents. */
int vhd_page_load_now(struct vhd *v, enum vhd_page_kind kind, uint64_t number, uint64_t offset,
		      struct vhd_page **ret);
/* A page of zeros that nobody has yet: the bitmap of a new block. */
struct vhd_page *vhd_page_add(struct vhd *v, enum vhd_page_kind kind, uint64_t number,
			      uint64_t offset);
void vhd_page_pin(struct vhd_page *p);
void vhd_page_unpin(struct vhd_page *p);
void vhd_page_dirty(struct vhd_page *p);
/* Called by the commit. */
int vhd_page_commit_start(struct vhd_page *p, struct list *pages);
void vhd_page_commit_end(struct vhd_page *p, int result);

/* The page with a block's entry. */
static inline struct vhd_page *vhd_bat_find(struct vhd *v, uint64_t block)
{
	return vhd_page_find(v, VHD_PAGE_BAT, block / VHD_PER_PAGE);
}
static inline uint64_t vhd_bat_page_offset(const struct vhd *v, uint64_t block)
{
	return v->bat_offset + block / VHD_PER_PAGE * VHD_PAGE_BYTES;
}
/* 1 and the checked offset of the block with its bitmap; 0 = absent; -EIO = not valid. */
int vhd_bat_get(const struct vhd *v, const struct vhd_page *p, uint64_t block,
		uint64_t *ret_offset);
/* Offset 0 = absent. */
void vhd_bat_set(struct vhd_page *p, uint64_t block, uint64_t offset);
/* How many sectors from `first` on, at most `count`, are alike; *ret_here says how. */
uint32_t vhd_bits_run(const struct vhd_page *p, uint32_t first, uint32_t count, bool *ret_here);
void vhd_bits_mark(struct vhd_page *p, uint32_t first, uint32_t count);

/* --- vhd_space.c --- */

void vhd_space_init(struct vhd *v);
void vhd_space_deinit(struct vhd *v);
int vhd_space_take(struct vhd *v, uint64_t *ret_offset);
void vhd_space_give(struct vhd *v, uint64_t offset);
void vhd_space_poll(struct vhd *v); /* after I/O or a commit has completed */
/* When closing: moves space.end before what is free there and forgets all free space. */
void vhd_space_trim_end(struct vhd *v);
/* The file ends at `end` from now on: what is behind is no free space either. */
void vhd_space_cut(struct vhd *v, uint64_t end);
/* Forgets what is free; blocks while some of that is being punched. */
int vhd_space_forget(struct vhd *v);
/* The end of the last block in the file, or `least`; reads the whole
 * table. -EIO when a block is not in the file. */
int vhd_space_used_end(struct vhd *v, uint64_t least, uint64_t *ret);

/* --- vhd_commit.c --- */

void vhd_commit_init(struct vhd *v);
int vhd_commit_start(struct vhd *v); /* once the header is read */
void vhd_commit_deinit(struct vhd *v);
/* A block at `offset` is new: its bitmap will be filled before its entry is written. */
int vhd_commit_fill(struct vhd *v, uint64_t offset);
/* Finishes op when everything that is completed now is durable. */
void vhd_commit_flush(struct vhd *v, struct vhd_op *op);
void vhd_commit_poll(struct vhd *v); /* pages have changed: enough of them? */
/* Blocks until nothing is left to commit. */
int vhd_commit_drain(struct vhd *v);
int vhd_commit_close(struct vhd *v, struct error *err);
/* Blocking, no flush. */
int vhd_footer_write(struct vhd *v, const struct vhd_disk_footer *f, uint64_t offset);

/* --- vhd_resize.c --- */

int vhd_resize(struct disk *disk, uint64_t size, struct error *err);
int vhd_set_parent_ref(struct disk *disk, const struct disk_parent *parent, struct error *err);

/* --- vhd_compact.c --- */

int vhd_compact(struct disk *disk, const struct disk_compact_options *options, struct error *err);

/* --- vhd_io.c --- */

void vhd_io_init(struct vhd *v);
void vhd_submit(struct disk *disk, struct disk_request *req);
/* Goes on with an op that waited; a negative result ends it. */
void vhd_op_resume(struct vhd_op *op, int result);
void vhd_op_finish(struct vhd_op *op, int result);
