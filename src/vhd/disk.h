/* SPDX-License-Identifier: MIT */
/*
 * The disk layer: what a virtual disk is to those who use it (a storage device, a tool) and to
 * those who implement it (raw file, VHDX, later caches and filters). Layers stack: a format layer
 * owns the layer that holds its bytes. All requests are asynchronous and belong to one event loop's
 * thread.
 *
 * Order: requests in flight have no order among themselves. A FLUSH makes durable every write that
 * was completed before the FLUSH was submitted. Overlapping requests in flight give any mixture.
 */
#pragma once

#include "event/loop.h"
#include "lib/error.h"
#include "lib/guid.h"

enum disk_op {
	DISK_READ,
	DISK_WRITE,
	DISK_FLUSH,
	DISK_TRIM,         /* content may become zeros and space is given back where it can */
	DISK_WRITE_ZEROES, /* reads as zeros afterwards */
};

/* Whether the disk may be another one afterwards. */
static inline bool disk_op_changes(enum disk_op op)
{
	return op != DISK_READ && op != DISK_FLUSH;
}

#define DISK_FUA BIT(0) /* WRITE, WRITE_ZEROES: durable when done, as if a FLUSH followed */

/*
 * Owned by the submitter and valid until done. offset and length are multiples of the logical
 * sector size and inside the disk (the submitter checks; layers assert). For READ and WRITE the
 * iovec bytes sum up to length. `done` gets 0 or a negative errno (-EIO, -ENOSPC, -EROFS, ...),
 * exactly once, on the loop's thread and never from inside disk_submit.
 *
 * What failed may be sent again when the reason is gone; nothing of it counts as done. Two errors
 * stay: -EUCLEAN, the image is damaged there; -ENOTRECOVERABLE, the host failed to flush, and
 * nobody knows what of earlier writes is on its disk.
 */
struct disk_request {
	enum disk_op op;
	unsigned flags;
	uint64_t offset, length; /* bytes */
	const struct iovec *iov;
	unsigned iovcnt;
	void (*done)(struct disk_request *req, int result);
	struct list node;  /* the layer's, while it holds the request */
	void *layer;       /* the layer's */
	struct disk *gate; /* a gate's (gate.h): itself, and the submitter's done */
	void (*gate_done)(struct disk_request *req, int result);
	bool gate_kept;       /* it failed before, and was kept */
	struct disk *tracker; /* the same of a track (track.h), and its list */
	void (*tracker_done)(struct disk_request *req, int result);
	struct list tracker_node;
};

struct disk_geometry {
	uint64_t size;           /* bytes, multiple of logical_sector */
	uint32_t logical_sector; /* 512 or 4096 */
	uint32_t physical_sector;
	uint32_t trim_granularity; /* bytes; 0 = TRIM does nothing useful */
	bool trim_zeros;           /* whole sectors read as zeros after TRIM; else they may not */
	bool read_only;
	struct guid
		id; /* stable identity of the disk (SCSI page 0x83), all zero when there is none */
};

enum disk_extent_kind {
	DISK_EXTENT_DATA,
	DISK_EXTENT_ZERO, /* reads as zeros, may be allocated */
	DISK_EXTENT_HOLE, /* reads as zeros, takes no space */
};

enum disk_held {
	DISK_HELD_NOT,  /* the parent answers */
	DISK_HELD_DATA, /* in this image */
	DISK_HELD_ZERO, /* zeros by this image's word, whatever the parent has */
};

/* What makes an image the parent that a child was made for. */
struct disk_identity {
	struct guid id;     /* VHDX: DataWriteGuid; VHD: the footer's unique id; raw: zero */
	uint32_t timestamp; /* VHD: seconds since 2000-01-01 UTC; else 0 */
};

/* What a differencing image says of its parent. Strings are UTF-8 and as they stand in the image,
 * with backslashes; NULL = not there. */
struct disk_parent {
	struct guid id, id2; /* identities that are right; id2 zero = no second one */
	uint32_t timestamp;  /* 0 = not said; another one is worth a warning only */
	char *relative, *volume, *absolute;
};

void disk_parent_deinit(struct disk_parent *parent); /* frees the strings */

struct disk;

struct disk_compact_options {
	bool zeros;
	bool (*progress)(void *context, uint64_t done, uint64_t total);
	void *context;
};

struct disk_ops {
	const char *name; /* "raw", "vhd", "vhdx" */
	void (*submit)(struct disk *disk, struct disk_request *req);
	/*
	 * What lies at `offset`: kind and length (> 0, to the next change or further on the disk).
	 * Synchronous: it may block on metadata; for tools, not for devices. 0 or negative errno.
	 */
	int (*extent)(struct disk *disk, uint64_t offset, enum disk_extent_kind *ret_kind,
		      uint64_t *ret_length);
	/* Which layer of a chain answers for `offset`, and how far; else like extent. May be NULL.
	 */
	int (*held)(struct disk *disk, uint64_t offset, enum disk_held *ret_held,
		    uint64_t *ret_length);
	void (*identity)(struct disk *disk, struct disk_identity *ret); /* NULL = has none */
	/* NULL, or returns NULL: not a differencing image. Borrowed. */
	const struct disk_parent *(*parent)(struct disk *disk);
	/*
	 * Gives a differencing image the layer that answers what it does not hold; owned from here
	 * on, unless `parent` is NULL: then the one that it had is the caller's again. A parent may
	 * be smaller (what lies beyond reads as zeros) or larger; its logical sectors are not
	 * larger (chain.c sees to that). Before the first call reads of what is not held fail with
	 * -ENODEV. No request may be in flight.
	 */
	void (*set_parent)(struct disk *disk, struct disk *parent);
	/*
	 * Changes what a differencing image says of its parent, durably and at once, and nothing
	 * that a child of it would notice. Blocks; no request may be in flight.
	 */
	int (*set_parent_ref)(struct disk *disk, const struct disk_parent *parent,
			      struct error *err);
	/*
	 * Chooses the identity that the image gets by a guest's first write to it; called before
	 * there was one. NULL: writing does not change the identity.
	 */
	void (*set_next_identity)(struct disk *disk, const struct guid *id);
	/*
	 * Changes the size of the disk, durably. No request may be in flight. Shrinking loses what
	 * lies beyond; formats that cannot do either answer -ENOTSUP. May be NULL. Blocks.
	 */
	int (*resize)(struct disk *disk, uint64_t size, struct error *err);
	/*
	 * Gives back what the file need not hold, durably: moves blocks into what is free, and cuts
	 * the end. `zeros`: also looks for blocks that hold only zeros. Blocks; no request may be
	 * in flight. `progress` (NULL is fine) may stop it by false: -ECANCELED, and all is well.
	 */
	int (*compact)(struct disk *disk, const struct disk_compact_options *options,
		       struct error *err);
	/*
	 * Makes everything durable and gives the image back in clean state. No request may be in
	 * flight, and no request's done may be on the stack. Blocks, running the loop meanwhile.
	 * Frees the layer and those below (its parent too) in any case; the error is for the log.
	 */
	int (*close)(struct disk *disk, struct error *err);
};

/* The common head of every layer. */
struct disk {
	const struct disk_ops *ops;
	struct loop *loop;
	struct disk_geometry geometry;
	struct disk *below; /* the parent of a differencing image, else NULL */
};

static inline void disk_submit(struct disk *disk, struct disk_request *req)
{
	disk->ops->submit(disk, req);
}

/* Whether changes are noted in the image's track file (track.h). */
enum disk_tracking {
	DISK_TRACK_WRITES, /* if there is one and the image is opened by its path for writing */
	DISK_TRACK_ASK,    /* also when it is only read, so that it can be asked; -ENOENT: none */
	DISK_TRACK_CREATE, /* makes one; -EEXIST */
	DISK_TRACK_OFF,    /* no: the points are of no use after a write */
	DISK_TRACK_PASSED, /* in the file open as track_fd, for those who cannot open any */
};

struct disk_open_options {
	bool read_only;
	/*
	 * NULL or "auto": by content; else "raw", "vhd", "vhdx". What the guest of a raw disk
	 * writes decides what "auto" sees next time: name the format of a disk that a guest has
	 * written.
	 */
	const char *format;
	bool direct; /* past the page cache where the file system can */
	/*
	 * Flushes do nothing: for images that are made again after a power cut. With direct the
	 * page cache and the disk then take writes at the same time.
	 */
	bool no_sync;
	bool writes_block; /* for servers of this one disk (store.h) */
	/*
	 * Differencing images: `name` is the image's path, from which relative parents are found;
	 * then these folders are searched for the parent's file name (NULL-terminated; NULL =
	 * none). Without follow a differencing image is refused; `alone` opens it without its
	 * parent.
	 */
	bool follow, alone;
	const char *const *search;
	enum disk_tracking tracking; /* only where `name` is a path: follow or alone */
	int track_fd;                /* DISK_TRACK_PASSED; the layer's, also when opening fails */
	bool track_new;              /* it is empty, and tracking begins */
	/* Called for each parent that is found by follow, nearest first. NULL is fine. */
	void (*found)(void *context, const char *path, int fd);
	void *found_context;
};

/*
 * Opens an image on a descriptor that the caller opened (O_RDWR or O_RDONLY) and keeps it locked
 * against other writers (open file description lock; -EBUSY with words when another process has
 * it). The descriptor is the layer's from here on, also when this fails. `name` is used in messages
 * only.
 */
int disk_open(struct loop *loop, int fd, const char *name, const struct disk_open_options *options,
	      struct disk **ret, struct error *err) _must_check_;
int disk_close(struct disk *disk, struct error *err); /* NULL is fine */
