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
 */
#pragma once

#include "vhd/disk.h"
#include "vhd/store.h"
#include "vhd/vhdx_log.h"
#include "vhd/vhdx_meta.h"

/* Space that was given back (vhdx_space.c). */
struct space_extent {
	struct list node;
	uint64_t offset;
	uint64_t barrier; /* I/O from before this number may still be going there */
	uint64_t cycle;   /* free when this journal cycle is complete */
};

struct vhdx;

/* A transfer between a request and one place in the store (vhdx_io.c). */
struct vhdx_piece {
	struct store_io io;
	struct vhdx_op *op;
	struct list node;  /* vhdx.in_flight */
	uint64_t sequence; /* rising with submission */
	struct iovec *iov; /* owned; NULL = the request's */
};

/* A request on its way (vhdx_io.c). */
struct vhdx_op {
	struct disk_request *req;
	struct vhdx *v;
	struct list node; /* where it waits: BAT page, activation, flush, or finished */
	uint64_t at;      /* bytes of the request that are under way */
	unsigned pending; /* pieces, and one for the walk itself */
	int result;
	bool inside; /* disk_submit is on the stack: done must wait */
	bool first_used;
	struct vhdx_piece first;
};

/* A 4 KiB page of the BAT (vhdx_bat.c). */
struct bat_page {
	struct list lru;            /* bat.clean while it may be dropped */
	struct list dirty_node;     /* bat.dirty or the journal's cycle */
	struct list unapplied_node; /* bat.unapplied */
	struct list waiters;        /* vhdx_op.node, while loading */
	struct vhdx *v;
	uint64_t index;
	bool loading, dirty;
	bool unlogged; /* `logged` did not reach the log: it must not reach the BAT either */
	le64 *entries; /* as requests see them */
	le64 *logged;  /* as the log has them and the BAT not yet; NULL = nothing to apply */
	struct store_io io;
	struct iovec iov;
};

struct bat {
	struct bat_page **pages; /* by index; NULL = not in memory */
	uint64_t page_count;
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
	struct store_io io;
};

/* The log while the image is open, and the header (vhdx_journal.c). */
struct journal {
	bool warm;  /* the headers say that the image is being written */
	bool busy;  /* a step is under way; its continuation is `next` */
	bool drain; /* closing: apply everything */
	bool flush_wanted;
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
	struct bat_page **batch;     /* pages of the entry at hand */
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
	struct bat bat;
	struct space space;
	struct journal journal;
	struct list in_flight; /* vhdx_piece.node, oldest first */
	uint64_t io_sequence;
	struct list finished; /* ops whose done must not be called from inside submit */
	struct list unserved; /* disk_request.node: there was no memory for an op */
	struct loop_task finished_task;
};

static inline struct vhdx *vhdx_of(struct disk *disk)
{
	return container_of(disk, struct vhdx, disk);
}

/* --- vhdx_bat.c --- */

int bat_init(struct vhdx *v);
void bat_deinit(struct vhdx *v);
/* The page with a payload block's entry, or NULL when it is not in memory. */
struct bat_page *bat_page_find(struct vhdx *v, uint64_t block);
/* Brings that page into memory and then resumes op; 0, or negative errno and op does not wait. */
int bat_page_load(struct vhdx *v, uint64_t block, struct vhdx_op *op);
/* Blocking; for tools and extents. */
int bat_page_load_now(struct vhdx *v, uint64_t block, struct bat_page **ret);
/* State, and for FULLY_PRESENT the checked offset. -EIO when the entry is not valid. */
int bat_get(struct vhdx *v, const struct bat_page *p, uint64_t block, unsigned *ret_state,
	    uint64_t *ret_offset);
void bat_set(struct vhdx *v, struct bat_page *p, uint64_t block, unsigned state, uint64_t offset);
uint64_t bat_page_offset(const struct vhdx *v, const struct bat_page *p);
/* Called by the journal when an entry with the page is built; -ENOMEM changes nothing. */
int bat_page_log(struct vhdx *v, struct bat_page *p);
void bat_page_relog(struct vhdx *v, struct bat_page *p); /* that entry could not be written */
void bat_page_applied(struct vhdx *v, struct bat_page *p);

/* --- vhdx_space.c --- */

void space_init(struct vhdx *v);
void space_deinit(struct vhdx *v);
int space_take(struct vhdx *v, uint64_t *ret_offset);
void space_give(struct vhdx *v, uint64_t offset);
void space_poll(struct vhdx *v); /* after I/O or a journal cycle has completed */
/* When closing: moves space.end before what is free there and forgets all free space. */
void space_trim_end(struct vhdx *v);

/* --- vhdx_journal.c --- */

void journal_init(struct vhdx *v);
int journal_start(struct vhdx *v); /* once the header is read */
void journal_deinit(struct vhdx *v);
/* Resumes op when the image may be changed; -errno when it never may, and op does not wait. */
int journal_activate(struct vhdx *v, struct vhdx_op *op);
/* Finishes op when everything that is completed now is durable. */
void journal_flush(struct vhdx *v, struct vhdx_op *op);
void journal_poll(struct vhdx *v); /* BAT pages have changed: enough of them? */
/* Blocks until the log is empty and the headers say so. */
int journal_close(struct vhdx *v, struct error *err);
/* Blocking: writes both headers as `h` with new sequence numbers, each followed by a flush. */
int journal_headers_write(struct vhdx *v, const struct vhdx_header *h);

/* --- vhdx_io.c --- */

void vhdx_io_init(struct vhdx *v);
void vhdx_submit(struct disk *disk, struct disk_request *req);
/* Goes on with an op that waited; a negative result ends it. */
void vhdx_op_resume(struct vhdx_op *op, int result);
void vhdx_op_finish(struct vhdx_op *op, int result);
