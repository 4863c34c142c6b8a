/* SPDX-License-Identifier: MIT */
/*
 * Disk requests of any alignment: what file systems and NBD clients send may begin and end in the
 * middle of a sector. Whole sectors go straight to the disk. The loop's thread.
 */
#pragma once

#include "vhd/disk.h"

/* One for each disk: writes of parts of sectors run one after the other. Zero at first. */
struct bytes_queue {
	struct list waiting; /* bytes_io.node */
	bool ready, busy;
};

/*
 * Owned by the caller and valid until done (0 or negative errno; never from inside bytes_submit).
 * The range must lie inside the disk; the caller checks. READ and WRITE have `buf`.
 */
struct bytes_io {
	enum disk_op op;
	unsigned flags; /* DISK_FUA, also on TRIM */
	uint64_t offset, length;
	void *buf;
	void (*done)(struct bytes_io *io, int result);
	/* bytes.c's: */
	struct disk *disk;
	struct bytes_queue *queue;
	struct list node;
	struct disk_request req;
	struct iovec iov;
	struct loop_task task;
	uint8_t *own;
	uint64_t at; /* what is through, of the caller's range */
	bool holds;  /* the queue */
};

void bytes_submit(struct bytes_queue *queue, struct disk *disk, struct bytes_io *io);
