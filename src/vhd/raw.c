// SPDX-License-Identifier: MIT
/*
 * The raw format: the disk's bytes are the store's bytes. A file whose size is no multiple of 512
 * is rounded up, so that no byte of it is out of reach: the rest of its last sector reads as zeros,
 * and the file gets the missing bytes when that sector is first written.
 */
#include "vhd/raw.h"

#include "lib/cleanup.h"
#include "vhd/later.h"

#include <errno.h>

#define SECTOR 512u

struct raw {
	struct disk disk;
	struct store *store;
	struct later later;
};

struct raw_io {
	struct store_io io;
	struct disk_request *req;
};

static struct raw *raw_of(struct disk *disk)
{
	return container_of(disk, struct raw, disk);
}

static void on_flush(struct store_io *io, int result)
{
	struct disk_request *req = container_of(io, struct raw_io, io)->req;

	free(container_of(io, struct raw_io, io));
	req->done(req, result < 0 ? -ENOTRECOVERABLE : 0);
}

static void on_io(struct store_io *io, int result)
{
	struct raw_io *rio = container_of(io, struct raw_io, io);
	struct disk_request *req = rio->req;

	if (result >= 0 && req->flags & DISK_FUA && req->op != DISK_READ) {
		*io = (struct store_io){ .op = STORE_FLUSH, .store = io->store, .done = on_flush };
		store_submit(io->store, io);
		return;
	}
	free(rio);
	req->done(req, result);
}

static const enum store_op store_ops_of[] = {
	[DISK_READ] = STORE_READ,  [DISK_WRITE] = STORE_WRITE,       [DISK_FLUSH] = STORE_FLUSH,
	[DISK_TRIM] = STORE_PUNCH, [DISK_WRITE_ZEROES] = STORE_ZERO,
};

static void raw_submit(struct disk *disk, struct disk_request *req)
{
	struct raw *raw = raw_of(disk);
	struct raw_io *rio;

	if (disk_op_changes(req->op) && disk->geometry.read_only) {
		later_end(&raw->later, req, -EROFS);
		return;
	}
	if (!req->length && req->op != DISK_FLUSH) {
		later_end(&raw->later, req, 0);
		return;
	}
	rio = malloc(sizeof(*rio));
	if (!rio) {
		later_end(&raw->later, req, -ENOMEM);
		return;
	}
	rio->req = req;
	rio->io = (struct store_io){
		.op = store_ops_of[req->op],
		.offset = req->offset,
		.length = req->length,
		.iov = req->iov,
		.iovcnt = req->iovcnt,
		.done = req->op == DISK_FLUSH ? on_flush : on_io,
	};
	store_submit(raw->store, &rio->io);
}

static int raw_extent(struct disk *disk, uint64_t offset, enum disk_extent_kind *ret_kind,
		      uint64_t *ret_length)
{
	struct store *s = raw_of(disk)->store;
	int r;

	if (offset >= s->size) {
		*ret_kind = DISK_EXTENT_HOLE;
		*ret_length = disk->geometry.size - offset;
		return 0;
	}
	r = store_extent(s, offset, ret_kind, ret_length);
	if (r < 0)
		return r;
	/* Changes inside a sector are none of the disk's: the sector is then data. */
	if (*ret_kind == DISK_EXTENT_DATA)
		*ret_length = round_up64(offset + *ret_length, SECTOR) - offset;
	else if (round_down64(offset + *ret_length, SECTOR) > offset)
		*ret_length = round_down64(offset + *ret_length, SECTOR) - offset;
	else
		*ret_kind = DISK_EXTENT_DATA, *ret_length = SECTOR;
	return 0;
}

static int raw_close(struct disk *disk, struct error *err)
{
	struct raw *raw = raw_of(disk);
	int r = disk->geometry.read_only ? 0 : store_sync(raw->store);

	if (r < 0)
		error_errno(err, r, "the image could not be written completely");
	later_deinit(&raw->later);
	store_close(raw->store);
	free(raw);
	return r;
}

static const struct disk_ops raw_ops = {
	.name = "raw",
	.submit = raw_submit,
	.extent = raw_extent,
	.close = raw_close,
};

int raw_open(struct store *store, struct disk **ret, struct error *err)
{
	struct raw *raw = calloc(1, sizeof(*raw));

	if (!raw) {
		store_close(store);
		return error_set(err, -ENOMEM, "out of memory");
	}
	raw->store = store;
	raw->disk.ops = &raw_ops;
	raw->disk.loop = store->loop;
	raw->disk.geometry = (struct disk_geometry){
		.size = round_up64(store->size, SECTOR),
		.logical_sector = SECTOR,
		.physical_sector = 4096,
		.trim_granularity = 4096,
		.trim_zeros = true,
		.read_only = store->read_only,
	};
	later_init(&raw->later, store->loop);
	*ret = &raw->disk;
	return 0;
}
