// SPDX-License-Identifier: MIT
/*
 * See bytes.h. A READ that is not aligned goes through a buffer. A WRITE or WRITE_ZEROES that is
 * not becomes up to three steps: the part of the first sector, whole sectors, the part of the last
 * one. A part is read, changed and written while it holds the disk's queue, so that two writers of
 * one sector do not undo each other. Writers of whole sectors need not wait: they overlap the part,
 * and overlapping requests in flight may give any mixture.
 */
#include "vhdtool/bytes.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void next_step(struct bytes_io *io);

static void finish(struct bytes_io *io, int result)
{
	struct bytes_queue *q = io->queue;

	free(io->own);
	io->own = NULL;
	if (io->holds) {
		io->holds = q->busy = false;
		if (!list_empty(&q->waiting)) {
			struct bytes_io *next = list_first(&q->waiting, struct bytes_io, node);

			list_remove(&next->node);
			loop_defer(next->disk->loop, &next->task);
		}
	}
	io->done(io, result);
}

static void submit(struct bytes_io *io, enum disk_op op, uint64_t offset, uint64_t length,
		   void (*done)(struct disk_request *, int))
{
	bool data = op == DISK_READ || op == DISK_WRITE;

	io->req = (struct disk_request){
		.op = op,
		.flags = op == DISK_WRITE || op == DISK_WRITE_ZEROES ? io->flags : 0,
		.offset = offset,
		.length = length,
		.iov = data ? &io->iov : NULL,
		.iovcnt = data,
		.done = done,
	};
	disk_submit(io->disk, &io->req);
}

static struct bytes_io *io_of(struct disk_request *req)
{
	return container_of(req, struct bytes_io, req);
}

static void on_done(struct disk_request *req, int result)
{
	finish(io_of(req), result);
}

/* --- parts of sectors --- */

static int take_sector(struct bytes_io *io)
{
	if (!io->own && posix_memalign((void **)&io->own, 4096, io->disk->geometry.logical_sector))
		return -ENOMEM;
	io->iov = (struct iovec){ io->own, io->disk->geometry.logical_sector };
	return 0;
}

static void on_part_written(struct disk_request *req, int result)
{
	struct bytes_io *io = io_of(req);

	if (result < 0)
		finish(io, result);
	else
		next_step(io);
}

static void on_part_read(struct disk_request *req, int result)
{
	struct bytes_io *io = io_of(req);
	uint64_t at = io->offset + io->at, sector = io->disk->geometry.logical_sector;
	uint64_t skip = at & (sector - 1), n = MIN(sector - skip, io->length - io->at);

	if (result < 0) {
		finish(io, result);
		return;
	}
	if (io->op == DISK_WRITE)
		memcpy(io->own + skip, (uint8_t *)io->buf + io->at, n);
	else
		memset(io->own + skip, 0, n);
	io->at += n;
	submit(io, DISK_WRITE, at - skip, sector, on_part_written);
}

static void part(struct bytes_io *io)
{
	struct bytes_queue *q = io->queue;
	uint64_t sector = io->disk->geometry.logical_sector;

	if (!io->holds && q->busy) {
		list_append(&q->waiting, &io->node);
		return;
	}
	io->holds = q->busy = true;
	if (take_sector(io) < 0)
		finish(io, -ENOMEM);
	else
		submit(io, DISK_READ, round_down64(io->offset + io->at, sector), sector,
		       on_part_read);
}

/* --- steps of a write --- */

static void next_step(struct bytes_io *io)
{
	uint64_t at = io->offset + io->at, left = io->length - io->at;
	uint64_t sector = io->disk->geometry.logical_sector;
	uint64_t whole = round_down64(left, sector);

	if (!left) {
		finish(io, 0);
	} else if ((at & (sector - 1)) || !whole) {
		part(io);
	} else {
		io->iov = (struct iovec){ (uint8_t *)io->buf + io->at, whole };
		io->at += whole;
		submit(io, io->op, at, whole, on_part_written);
	}
}

static void on_task(struct loop_task *t)
{
	struct bytes_io *io = container_of(t, struct bytes_io, task);

	if (io->op == DISK_WRITE || io->op == DISK_WRITE_ZEROES)
		next_step(io);
	else
		finish(io, io->op == DISK_READ && io->length ? -ENOMEM : 0);
}

/* --- reads and trims --- */

static void on_bounced(struct disk_request *req, int result)
{
	struct bytes_io *io = io_of(req);

	if (result >= 0)
		memcpy(io->buf, io->own + (io->offset - req->offset), io->length);
	finish(io, result);
}

static void read_unaligned(struct bytes_io *io)
{
	uint64_t sector = io->disk->geometry.logical_sector;
	uint64_t from = round_down64(io->offset, sector);
	uint64_t length = round_up64(io->offset + io->length, sector) - from;

	if (posix_memalign((void **)&io->own, 4096, length)) {
		io->own = NULL;
		loop_defer(io->disk->loop, &io->task);
		return;
	}
	io->iov = (struct iovec){ io->own, length };
	submit(io, DISK_READ, from, length, on_bounced);
}

static void on_trimmed(struct disk_request *req, int result)
{
	struct bytes_io *io = io_of(req);

	if (result < 0 || !(io->flags & DISK_FUA))
		finish(io, result);
	else
		submit(io, DISK_FLUSH, 0, 0, on_done);
}

/* Only whole sectors. */
static void trim(struct bytes_io *io)
{
	uint64_t sector = io->disk->geometry.logical_sector;
	uint64_t from = round_up64(io->offset, sector);
	uint64_t end = round_down64(io->offset + io->length, sector);

	if (from < end)
		submit(io, DISK_TRIM, from, end - from, on_trimmed);
	else
		loop_defer(io->disk->loop, &io->task);
}

void bytes_submit(struct bytes_queue *queue, struct disk *disk, struct bytes_io *io)
{
	uint64_t mask = disk->geometry.logical_sector - 1;

	if (!queue->ready)
		list_init(&queue->waiting);
	queue->ready = true;
	io->queue = queue;
	io->disk = disk;
	io->own = NULL;
	io->at = 0;
	io->holds = false;
	list_init(&io->node);
	loop_task_init(&io->task, on_task);
	if (io->op == DISK_TRIM) {
		trim(io);
	} else if (io->op == DISK_FLUSH) {
		submit(io, DISK_FLUSH, 0, 0, on_done);
	} else if (!io->length) {
		loop_defer(disk->loop, &io->task);
	} else if (!((io->offset | io->length) & mask)) {
		io->iov = (struct iovec){ io->buf, io->length };
		submit(io, io->op, io->offset, io->length, on_done);
	} else if (io->op == DISK_READ) {
		read_unaligned(io);
	} else {
		next_step(io);
	}
}
