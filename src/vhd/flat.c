// SPDX-License-Identifier: MIT
/*
 * The disk of flat.h. A request goes to the store as one transfer, or as several where it crosses
 * the border of extents. TRIM does nothing: space stays taken, so that no writer ever needs to get
 * it back.
 */
#include "vhd/flat.h"

#include "lib/cleanup.h"
#include "vhd/later.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

struct flat {
	struct disk disk;
	struct disk_ops ops; /* with the format's name */
	struct store *store;
	struct later later;
	size_t count;
	struct flat_extent extents[];
};

struct flat_piece {
	struct store_io io;
	struct flat_op *op;
	struct iovec *iov; /* owned; NULL = the request's */
};

struct flat_op {
	struct disk_request *req;
	struct store *store;
	unsigned pending;
	int result;
	struct flat_piece pieces[];
};

static struct flat *flat_of(struct disk *disk)
{
	return container_of(disk, struct flat, disk);
}

/* --- requests --- */

static void op_end(struct flat_op *op, int result)
{
	struct disk_request *req = op->req;

	free(op);
	req->done(req, result);
}

static void on_flush(struct store_io *io, int result)
{
	op_end(container_of(io, struct flat_piece, io)->op, result);
}

static void op_flush(struct flat_op *op)
{
	op->pieces[0].io = (struct store_io){ .op = STORE_FLUSH, .done = on_flush };
	op->pieces[0].op = op;
	store_submit(op->store, &op->pieces[0].io);
}

static void on_piece(struct store_io *io, int result)
{
	struct flat_piece *p = container_of(io, struct flat_piece, io);
	struct flat_op *op = p->op;

	free(p->iov);
	p->iov = NULL;
	if (result < 0 && op->result >= 0)
		op->result = result;
	if (--op->pending)
		return;
	if (op->result >= 0 && disk_op_changes(op->req->op) && op->req->flags & DISK_FUA)
		op_flush(op);
	else
		op_end(op, op->result);
}

/* The extent that has byte `at` of the disk. */
static size_t extent_find(const struct flat *f, uint64_t at)
{
	size_t low = 0, high = f->count;

	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;

		if (f->extents[middle].at <= at)
			low = middle;
		else
			high = middle;
	}
	return low;
}

static unsigned pieces_of(const struct flat *f, const struct disk_request *req, size_t first)
{
	unsigned n = 1;

	while (f->extents[first].at + f->extents[first].length < req->offset + req->length) {
		first++;
		n++;
	}
	return n;
}

static const enum store_op store_op_of[] = {
	[DISK_READ] = STORE_READ,
	[DISK_WRITE] = STORE_WRITE,
	[DISK_WRITE_ZEROES] = STORE_ZERO,
};

/* The part of the request that lies in extent `e`. */
static int piece_prepare(struct flat_piece *p, const struct disk_request *req,
			 const struct flat_extent *e)
{
	uint64_t from = MAX(req->offset, e->at),
		 end = MIN(req->offset + req->length, e->at + e->length);

	p->io = (struct store_io){
		.op = store_op_of[req->op],
		.offset = e->offset + (from - e->at),
		.length = end - from,
		.done = on_piece,
	};
	if (req->op == DISK_WRITE_ZEROES)
		return 0;
	return store_io_part(&p->io, req, from - req->offset, p->io.length, &p->iov);
}

static struct flat_op *op_new(struct flat *f, struct disk_request *req, unsigned pieces)
{
	struct flat_op *op = calloc(1, sizeof(*op) + pieces * sizeof(op->pieces[0]));

	if (!op)
		return NULL;
	op->req = req;
	op->store = f->store;
	op->pending = pieces;
	for (unsigned i = 0; i < pieces; i++)
		op->pieces[i].op = op;
	return op;
}

static void transfer(struct flat *f, struct disk_request *req)
{
	size_t first = extent_find(f, req->offset);
	unsigned pieces = pieces_of(f, req, first);
	struct flat_op *op = op_new(f, req, pieces);
	int r = op ? 0 : -ENOMEM;

	for (unsigned i = 0; i < pieces && r >= 0; i++)
		r = piece_prepare(&op->pieces[i], req, &f->extents[first + i]);
	if (r < 0) {
		for (unsigned i = 0; op && i < pieces; i++)
			free(op->pieces[i].iov);
		free(op);
		later_end(&f->later, req, r);
		return;
	}
	for (unsigned i = 0; i < pieces; i++)
		store_submit(f->store, &op->pieces[i].io);
}

static void flat_submit(struct disk *disk, struct disk_request *req)
{
	struct flat *f = flat_of(disk);
	struct flat_op *op;

	if (disk_op_changes(req->op) && disk->geometry.read_only) {
		later_end(&f->later, req, -EROFS);
	} else if (req->op == DISK_TRIM || (req->op != DISK_FLUSH && !req->length)) {
		later_end(&f->later, req, 0);
	} else if (req->op == DISK_FLUSH) {
		op = op_new(f, req, 1);
		if (op)
			op_flush(op);
		else
			later_end(&f->later, req, -ENOMEM);
	} else {
		transfer(f, req);
	}
}

/* --- the rest of a disk --- */

static int flat_extent(struct disk *disk, uint64_t offset, enum disk_extent_kind *ret_kind,
		       uint64_t *ret_length)
{
	struct flat *f = flat_of(disk);
	const struct flat_extent *e = &f->extents[extent_find(f, offset)];

	*ret_kind = DISK_EXTENT_DATA; /* others may be writing there now */
	*ret_length = e->at + e->length - offset;
	return 0;
}

static int flat_close(struct disk *disk, struct error *err)
{
	struct flat *f = flat_of(disk);
	int r = disk->geometry.read_only ? 0 : store_sync(f->store);

	if (r < 0)
		error_errno(err, r, "the image could not be written completely");
	later_deinit(&f->later);
	store_close(f->store);
	free(f);
	return r;
}

static const struct disk_ops flat_ops = {
	.submit = flat_submit,
	.extent = flat_extent,
	.close = flat_close,
};

int flat_open(struct store *store, const char *format, const struct disk_geometry *geometry,
	      const struct flat_extent *extents, size_t count, struct disk **ret, struct error *err)
{
	struct flat *f = calloc(1, sizeof(*f) + count * sizeof(extents[0]));
	uint64_t at = 0;

	if (!f) {
		store_close(store);
		return error_set(err, -ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < count; i++) {
		assert(extents[i].at == at && extents[i].length);
		at += extents[i].length;
	}
	assert(at == geometry->size);
	memcpy(f->extents, extents, count * sizeof(extents[0]));
	f->count = count;
	f->store = store;
	f->ops = flat_ops;
	f->ops.name = format;
	f->disk.ops = &f->ops;
	f->disk.loop = store->loop;
	f->disk.geometry = *geometry;
	f->disk.geometry.trim_granularity = 0;
	f->disk.geometry.trim_zeros = false;
	later_init(&f->later, store->loop);
	*ret = &f->disk;
	return 0;
}
