/* SPDX-License-Identifier: MIT */
/*
 * What the files of an open VHDX share. Each part below belongs to the file named there; others use
 * its functions. Everything runs on the disk's loop, so there are no locks.
 *
 * How a write becomes durable. A write to a block that is not in the file takes space, changes the
 * BAT in memory and goes to the file at once: nothing waits for an allocation. Changed BAT pages
 * reach the log when the guest flushes, when many have gathered, or at the end: all of them in one
 * entry, made durable by the same fdatasync as the data. From the log they go to their place in the
 * BAT later. This is safe without ordering data before log, because space that a block gets reads
 * as zeros, durably so, before the block can refer to it: it is either new at the end of the file
 * or was punched, and its punch flushed, since it was given back.
 *
 * In a differencing image zeros are not what was there before: the parent's data was. A sector's
 * bit in the sector bitmap is therefore set when its data has been written, not before, and an
 * entry of the log is written only after a flush that follows the copying of its pages.
 */
#pragma once

#include "vhd/below.h"
#include "vhd/disk.h"
#include "vhd/later.h"
#include "vhd/store.h"
#include "vhd/vhdx_log.h"
#include "vhd/vhdx_meta.h"

/* Space that was given back (vhdx_space.c). */
struct space_extent {
	struct list node;
	uint64_t offset, length;
	uint64_t barrier; /* I/O from before this number may still be going there */
	uint64_t cycle;   /* free when this journal cycle is complete */
};

struct vhdx;

/* A transfer between a request and one place in the store (vhdx_io.c). */
struct vhdx_piece {
	struct store_io io;
	struct vhdx_op *op;
	struct list node;    /* vhdx.in_flight */
	uint64_t sequence;   /* rising with submission */
	struct iovec *iov;   /* owned; NULL = the request's */
	struct page *bitmap; /* pinned: bits to set when the data is written; NULL = none */
	uint32_t bit, bits;
};

/* A transfer between a request and the parent (vhdx_io.c). */
struct vhdx_lower {
	struct below_read read;
	struct vhdx_op *op;
};

/* Pages that one step of an op may need at once. */
enum vhdx_hold { HOLD_BAT, HOLD_BITMAP_BAT, HOLD_BITMAP, HOLD_COUNT };

/* A request on its way (vhdx_io.c). */
struct vhdx_op {
	struct disk_request *req; /* NULL = ended inside of submit */
	struct vhdx *v;
	struct list node; /* where it waits: page, activation or flush */
	uint64_t at;      /* bytes of the request that are under way */
	uint64_t cleared; /* bits of the bitmap of the block at hand that are certainly 0 */
	struct page *held[HOLD_COUNT]; /* pinned while the step at hand waits for the others */
	unsigned pending;              /* pieces, and one for the walk itself */
	int result;
	bool inside; /* disk_submit is on the stack: done must wait */
	bool first_used;
	struct vhdx_piece first;
};

/* A 4 KiB page of BAT, sector bitmap, metadata or region table (vhdx_page.c). */
struct page {
	struct list hash;
	struct list lru;            /* pages.clean while it may be dropped */
	struct list dirty_node;     /* pages.dirty or the journal's cycle */
	struct list unapplied_node; /* pages.unapplied */
	struct list waiters;        /* vhdx_op.node, while loading */
	struct vhdx *v;
	uint64_t offset; /* in the file */
	unsigned pins;   /* by those who rely on finding it */
	bool loading, dirty;
	bool unlogged;   /* `logged` did not reach the log: it must not reach its place either */
	uint8_t *bytes;  /* as requests see them */
	uint8_t *logged; /* as the log has them and the file not yet; NULL = nothing to apply */
	struct store_io io;
	struct iovec iov;
};

#define PAGE_BUCKETS 1024u

struct pages {
	struct list *buckets; /* page.hash, by offset */
	struct list clean, dirty, unapplied;
	size_t loaded, dirty_count, unapplied_count;
};

/* Space in the file that holds no block (vhdx_space.c). */
struct space {
	uint64_t end;           /* everything from here on is unused */
	struct list draining;   /* given back, but older I/O may still be on its way there */
	struct list committing; /* punched, but that is not durable yet */
	struct list free;
	struct space_extent *punching;
	bool scanned; /* for what earlier sessions left unused */
	struct store_io io;
};

/* The log while the image is open, and the header (vhdx_journal.c). */
struct journal {
	bool warm;    /* the headers say that the image is being written */
	bool renewed; /* DataWriteGuid is new: a guest may write */
	bool busy;    /* a step is under way; its continuation is `next` */
	bool drain;   /* apply everything */
	bool flush_wanted, activate_wanted, renew_wanted;
	int activate_result;
	int failed;       /* negative errno: durability is lost, only reads go on */
	int cycle_result; /* of the last cycle */
	void (*next)(struct vhdx *v, int result);
	struct store_io io;
	struct iovec iov;
	struct loop_task task;
	struct list activation_waiters, flush_waiters, flush_active; /* vhdx_op.node */

	/* the cycle at hand */
	struct list cycle_pages;
	uint64_t started, completed; /* cycles */
	struct page **batch;         /* pages of the entry at hand */
	uint32_t batch_count, entry_sectors;
	bool apply_tried;
	size_t applying;
	int apply_result;

	/* the ring, in sectors ever written */
	uint32_t sectors;                    /* its size */
	uint64_t head, tail;                 /* next entry; oldest entry that is not applied */
	uint64_t written_tail, durable_tail; /* tail in the last entry written; made durable */
	uint64_t sequence;                   /* of the next entry */
	uint64_t flushed_size, flushing_size;
	uint8_t *buffer;
	struct vhdx_header next_header;
	struct guid next_data; /* the next DataWriteGuid; zero = a random one */
};

struct vhdx {
	struct disk disk;
	struct store *store;
	struct vhdx_params params;
	struct vhdx_regions regions;
	struct vhdx_header header;
	unsigned header_slot;
	bool log_replayed;
	unsigned block_shift;
	uint64_t chunk_ratio;
	struct disk_parent parent; /* a differencing image's; its strings are owned */
	struct pages pages;
	struct space space;
	struct journal journal;
	struct list in_flight; /* vhdx_piece.node, oldest first */
	uint64_t io_sequence;
	struct later later;
};

static inline struct vhdx *vhdx_of(struct disk *disk)
{
	return container_of(disk, struct vhdx, disk);
}

/* --- vhdx_page.c --- */

int pages_init(struct vhdx *v);
void pages_deinit(struct vhdx *v);
bool page_cached(struct vhdx *v, uint64_t offset);
/* The page at `offset` in the file, or NULL when it is not in memory. */
struct page *page_find(struct vhdx *v, uint64_t offset);
/* Brings that page into memory and then resumes op; 0, or negative errno and op does not wait. */
int page_load(struct vhdx *v, uint64_t offset, struct vhdx_op *op);
/* Blocking; for tools and extents. */
int page_load_now(struct vhdx *v, uint64_t offset, struct page **ret);
void page_pin(struct page *p);
void page_unpin(struct page *p);
/* `bytes` have changed. */
void page_dirty(struct vhdx *v, struct page *p);
/* Drops the clean pages of a range; there are no others there. */
void pages_forget(struct vhdx *v, uint64_t offset, uint64_t length);
/* Called by the journal when an entry with the page is built; -ENOMEM changes nothing. */
int page_log(struct vhdx *v, struct page *p);
void page_relog(struct vhdx *v, struct page *p); /* that entry could not be written */
void page_applied(struct vhdx *v, struct page *p);

/* --- vhdx_bat.c --- */

/* Offsets of the pages with a payload block's entry, and with that of its sector bitmap. */
uint64_t bat_page_of(const struct vhdx *v, uint64_t block);
uint64_t bat_bitmap_page_of(const struct vhdx *v, uint64_t block);
/* State, and for PRESENT ones the checked offset. -EIO when the entry is not valid. */
int bat_get(struct vhdx *v, const struct page *p, uint64_t block, unsigned *ret_state,
	    uint64_t *ret_offset);
void bat_set(struct vhdx *v, struct page *p, uint64_t block, unsigned state, uint64_t offset);
/* Place of the bitmap of the block's chunk; 0 = there is none yet. */
int bat_bitmap_get(struct vhdx *v, const struct page *p, uint64_t block, uint64_t *ret_offset);
void bat_bitmap_set(struct vhdx *v, struct page *p, uint64_t block, uint64_t offset);
/* Bytes of the table that are no holes of the file. */
uint64_t bat_size_known(const struct vhdx *v);
/* Calls `entry` for each that is not in a hole, in order; blocks. 0 or negative errno. */
int bat_scan(struct vhdx *v,
	     void (*entry)(struct vhdx *v, void *context, uint64_t index, uint64_t e),
	     void *context);

/* --- vhdx_space.c --- */

void space_init(struct vhdx *v);
void space_deinit(struct vhdx *v);
int space_take(struct vhdx *v, uint64_t length, uint64_t *ret_offset);
void space_give(struct vhdx *v, uint64_t offset, uint64_t length);
void space_poll(struct vhdx *v); /* after I/O or a journal cycle has completed */
/* Before the first change: finds what earlier sessions left unused. */
void space_scan(struct vhdx *v);
/* When closing: moves space.end before what is free there and forgets all free space. */
void space_trim_end(struct vhdx *v);

#define SPACE_FILE_MAX (128 * TIB) /* bounds a map to 16 MiB */

/* A bit for each MiB of the file. */
struct space_map {
	uint8_t *bits; /* owned */
	uint64_t count;
};
int space_map_init(struct space_map *m, uint64_t size);
/* False when some of it was used already. */
bool space_map_use(struct space_map *m, uint64_t offset, uint64_t length);
bool space_map_used(const struct space_map *m, uint64_t mib);
void space_map_structures(struct space_map *m, const struct vhdx *v);

/* --- vhdx_journal.c --- */

void journal_init(struct vhdx *v);
int journal_start(struct vhdx *v); /* once the header is read */
void journal_deinit(struct vhdx *v);
/* Resumes op when the image may be changed; -errno when it never may, and op does not wait. */
int journal_activate(struct vhdx *v, struct vhdx_op *op);
/* Finishes op when everything that is completed now is durable. */
void journal_flush(struct vhdx *v, struct vhdx_op *op);
void journal_poll(struct vhdx *v); /* pages have changed: enough of them? */
/* Blocks until the image may be changed; `renew` = in ways that a guest sees. */
int journal_start_change(struct vhdx *v, bool renew);
/* Blocks until all that was changed is durable, and in its place when `apply`. */
int journal_sync(struct vhdx *v, bool apply);
/*
 * Blocks until the log is empty and the headers say so, and cuts the file's unused end. The next
 * change starts anew.
 */
int journal_rest(struct vhdx *v);
/* The same, for the last time. */
int journal_close(struct vhdx *v, struct error *err);
/* Blocking: writes both headers as `h` with new sequence numbers, each followed by a flush. */
int journal_headers_write(struct vhdx *v, const struct vhdx_header *h);

/* --- vhdx_io.c --- */

void vhdx_io_init(struct vhdx *v);
void vhdx_submit(struct disk *disk, struct disk_request *req);
/* Goes on with an op that waited; a negative result ends it. */
void vhdx_op_resume(struct vhdx_op *op, int result);
void vhdx_op_finish(struct vhdx_op *op, int result);

/* --- vhdx_edit.c --- */

int vhdx_resize(struct disk *disk, uint64_t size, struct error *err);
int vhdx_set_parent_ref(struct disk *disk, const struct disk_parent *parent, struct error *err);

/* --- vhdx_compact.c --- */

int vhdx_compact(struct disk *disk, const struct disk_compact_options *options, struct error *err);
