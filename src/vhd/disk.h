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

#define DISK_FUA BIT(0) /* WRITE, WRITE_ZEROES: durable when done, as if a FLUSH followed */

/*
 * Owned by the submitter and valid until done. offset and length are multiples of the logical
 * sector size and inside the disk (the submitter checks; layers assert). For READ and WRITE the
 * iovec bytes sum up to length. `done` gets 0 or a negative errno (-EIO, -ENOSPC, -EROFS, ...),
 * exactly once, on the loop's thread and never from inside disk_submit.
 */
struct disk_request {
	enum disk_op op;
	unsigned flags;
	uint64_t offset, length; /* bytes */
	const struct iovec *iov;
	unsigned iovcnt;
	void (*done)(struct disk_request *req, int result);
	struct list node; /* the layer's, while it holds the request */
	void *layer;      /* the layer's */
};

struct disk_geometry {
	uint64_t size;           /* bytes, multiple of logical_sector */
	uint32_t logical_sector; /* 512 or 4096 */
	uint32_t physical_sector;
	uint32_t trim_granularity; /* bytes; 0 = TRIM does nothing useful */
	bool read_only;
	struct guid
		id; /* stable identity of the disk (SCSI page 0x83), all zero when there is none */
};

enum disk_extent_kind {
	DISK_EXTENT_DATA,
	DISK_EXTENT_ZERO, /* reads as zeros, may be allocated */
	DISK_EXTENT_HOLE, /* reads as zeros, takes no space */
};

struct disk;

struct disk_ops {
	const char *name; /* "raw", "vhdx" */
	void (*submit)(struct disk *disk, struct disk_request *req);
	/*
	 * What lies at `offset`: kind and length (> 0, to the next change or further on the disk).
	 * Synchronous: it may block on metadata; for tools, not for devices. 0 or negative errno.
	 */
	int (*extent)(struct disk *disk, uint64_t offset, enum disk_extent_kind *ret_kind,
		      uint64_t *ret_length);
	/*
	 * Makes everything durable and gives the image back in clean state. No request may be in
	 * flight, and no request's done may be on the stack. Blocks, running the loop meanwhile.
	 * Frees the layer and those below in any case; the error is for the log.
	 */
	int (*close)(struct disk *disk, struct error *err);
};

/* The common head of every layer. */
struct disk {
	const struct disk_ops *ops;
	struct loop *loop;
	struct disk_geometry geometry;
};

static inline void disk_submit(struct disk *disk, struct disk_request *req)
{
	disk->ops->submit(disk, req);
}

struct disk_open_options {
	bool read_only;
	/*
	 * NULL or "auto": by content; else "raw", "vhdx". What the guest of a raw disk writes
	 * decides what "auto" sees next time: name the format of a disk that a guest has written.
	 */
	const char *format;
	bool direct; /* past the page cache where the file system can */
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
