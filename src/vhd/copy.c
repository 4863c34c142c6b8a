// SPDX-License-Identifier: MIT
/*
 * Copying one disk to another: a few slots, each of which reads a chunk and writes the runs of it
 * that are not zeros. What the source knows to be zeros is not even read. Callbacks only move their
 * own slot on; everything else is done by disk_copy itself, which runs the loop.
 */
#include "lib/cleanup.h"
#include "vhd/image.h"
#include "vhd/iov.h"

#include <errno.h>
#include <string.h>

#define DEPTH 8u
#define CHUNK MIB
#define GRAIN (64 * KIB) /* shorter runs of zeros inside data are copied as data */

struct copy;

struct slot {
	struct copy *copy;
	struct disk_request req;
	struct iovec iov;
	uint8_t *buf;
	uint64_t offset;     /* of the chunk on both disks */
	uint64_t length, at; /* at = written or skipped so far */
	bool busy;
};

struct copy {
	struct disk *from, *to;
	const struct disk_copy_options *options;
	uint64_t at, total, done;
	uint64_t checkpoint_at; /* the next one */
	uint64_t extent_end;    /* the source is `extent_kind` up to here */
	enum disk_extent_kind extent_kind;
	unsigned busy;
	int result;
	struct slot *slots;
};

static bool grain_zero(const struct slot *s, uint64_t at)
{
	return bytes_zero(s->buf + at, MIN(GRAIN, s->length - at));
}

/* The end of the run of equal kind that starts at `at`. */
static uint64_t run_end(const struct slot *s, uint64_t at, bool *ret_zero)
{
	*ret_zero = grain_zero(s, at);
	do
		at += MIN(GRAIN, s->length - at);
	while (at < s->length && grain_zero(s, at) == *ret_zero);
	return at;
}

static void slot_end(struct slot *s, int result)
{
	struct copy *c = s->copy;

	if (result < 0 && c->result >= 0)
		c->result = result;
	c->done += s->length;
	c->busy--;
	s->busy = false;
}

static void slot_write(struct slot *s);

static void on_written(struct disk_request *req, int result)
{
	struct slot *s = container_of(req, struct slot, req);

	if (result < 0 || s->at >= s->length || s->copy->result < 0)
		slot_end(s, result);
	else
		slot_write(s);
}

static void slot_write_run(struct slot *s, enum disk_op op, uint64_t end)
{
	s->iov = (struct iovec){ s->buf + s->at, end - s->at };
	s->req = (struct disk_request){
		.op = op,
		.offset = s->offset + s->at,
		.length = end - s->at,
		.iov = &s->iov,
		.iovcnt = 1,
		.done = on_written,
	};
	s->at = end;
	disk_submit(s->copy->to, &s->req);
}

static void slot_write(struct slot *s)
{
	bool zero;
	uint64_t end = run_end(s, s->at, &zero);

	if (zero && s->copy->options->target_zeroed) {
		s->at = end;
		if (end == s->length) {
			slot_end(s, 0);
			return;
		}
		end = run_end(s, s->at, &zero);
	}
	slot_write_run(s, zero ? DISK_WRITE_ZEROES : DISK_WRITE, end);
}

static void on_read(struct disk_request *req, int result)
{
	struct slot *s = container_of(req, struct slot, req);

	if (result < 0 || s->copy->result < 0)
		slot_end(s, result);
	else
		slot_write(s);
}

static void slot_start(struct slot *s, uint64_t offset, uint64_t length)
{
	struct copy *c = s->copy;

	s->busy = true;
	c->busy++;
	s->offset = offset;
	s->length = length;
	s->at = 0;
	if (c->extent_kind != DISK_EXTENT_DATA) {
		slot_write_run(s, DISK_WRITE_ZEROES, length);
		return;
	}
	s->iov = (struct iovec){ s->buf, length };
	s->req = (struct disk_request){
		.op = DISK_READ,
		.offset = offset,
		.length = length,
		.iov = &s->iov,
		.iovcnt = 1,
		.done = on_read,
	};
	disk_submit(c->from, &s->req);
}

/* Looks at what lies at c->at; false when the end is reached. */
static bool extent_next(struct copy *c)
{
	uint64_t length;

	while (c->at < c->total) {
		if (c->at >= c->extent_end) {
			if (c->from->ops->extent(c->from, c->at, &c->extent_kind, &length) < 0) {
				c->extent_kind = DISK_EXTENT_DATA;
				length = CHUNK;
			}
			c->extent_end = MIN(c->at + length, c->total);
		}
		if (c->extent_kind == DISK_EXTENT_DATA || !c->options->target_zeroed)
			return true;
		c->done += c->extent_end - c->at;
		c->at = c->extent_end;
	}
	return false;
}

/* No more is started before a checkpoint, so that all that lies before it is written. */
static bool checkpoint_due(const struct copy *c)
{
	return c->options->checkpoint_every && c->at >= c->checkpoint_at && c->at < c->total;
}

static void slots_fill(struct copy *c)
{
	for (unsigned i = 0; i < DEPTH && c->result >= 0 && !checkpoint_due(c); i++) {
		uint64_t n;

		if (c->slots[i].busy)
			continue;
		if (!extent_next(c))
			return;
		/* Zeros need no buffer: as much as there is, but progress should be seen. */
		n = c->extent_kind == DISK_EXTENT_DATA ? CHUNK : GIB;
		n = MIN(n - c->at % n, c->extent_end - c->at);
		slot_start(&c->slots[i], c->at, n);
		c->at += n;
	}
}

static void on_flushed(struct disk_request *req, int result)
{
	struct slot *s = container_of(req, struct slot, req);

	slot_end(s, result);
}

static int copy_flush(struct copy *c)
{
	struct slot *s = &c->slots[0];

	s->busy = true;
	s->length = 0;
	c->busy++;
	s->req = (struct disk_request){ .op = DISK_FLUSH, .done = on_flushed };
	disk_submit(c->to, &s->req);
	while (c->busy) {
		int r = loop_once(c->to->loop, -1);

		if (r < 0)
			return r;
	}
	return c->result;
}

static int copy_checkpoint(struct copy *c)
{
	int r = copy_flush(c);

	c->checkpoint_at = c->at + c->options->checkpoint_every;
	if (r >= 0)
		c->options->checkpoint(c->options->context, c->at);
	return r;
}

static int copy_run(struct copy *c)
{
	const struct disk_copy_options *o = c->options;

	for (;;) {
		int r = 0;

		slots_fill(c);
		if (!c->busy && (c->result < 0 || !checkpoint_due(c)))
			return c->result;
		r = c->busy ? loop_once(c->from->loop, -1) : copy_checkpoint(c);
		if (r < 0)
			return r;
		if (o->progress && c->result >= 0 && !o->progress(o->context, c->done, c->total))
			c->result = -ECANCELED;
	}
}

static int slots_new(struct copy *c)
{
	c->slots = calloc(DEPTH, sizeof(*c->slots));
	if (!c->slots)
		return -ENOMEM;
	for (unsigned i = 0; i < DEPTH; i++) {
		void *p;

		c->slots[i].copy = c;
		if (posix_memalign(&p, 4096, CHUNK))
			return -ENOMEM;
		c->slots[i].buf = p;
	}
	return 0;
}

static void slots_free(struct copy *c)
{
	for (unsigned i = 0; c->slots && i < DEPTH; i++)
		free(c->slots[i].buf);
	free(c->slots);
}

static int copy_error(int r, struct error *err)
{
	if (r == -ENOSPC)
		return error_set(err, r,
				 "there is no space left for the copy; what was written of it is "
				 "not complete");
	if (r == -ECANCELED)
		return error_set(err, r, "the copy was stopped; what was written is not complete");
	return error_errno(err, r, "the copy failed");
}

int disk_copy(struct disk *from, struct disk *to, const struct disk_copy_options *options,
	      struct error *err)
{
	struct copy c = {
		.from = from,
		.to = to,
		.options = options,
		.total = from->geometry.size,
		.at = options->start,
		.done = options->start,
		.checkpoint_at = options->start + options->checkpoint_every,
	};
	int r;

	if (to->geometry.size < from->geometry.size)
		return error_set(err, -ENOSPC,
				 "the disk to copy to has %llu bytes, the one to copy has %llu",
				 (unsigned long long)to->geometry.size,
				 (unsigned long long)from->geometry.size);
	if (from->geometry.size % to->geometry.logical_sector)
		return error_set(err, -EINVAL,
				 "a disk of %llu bytes has no whole number of sectors of %u bytes",
				 (unsigned long long)from->geometry.size,
				 to->geometry.logical_sector);
	r = slots_new(&c);
	if (r >= 0)
		r = copy_run(&c);
	if (r >= 0 && !options->no_flush)
		r = copy_flush(&c);
	slots_free(&c);
	return r < 0 ? copy_error(r, err) : 0;
}

int disk_allocated(struct disk *disk, uint64_t *ret, struct error *err)
{
	uint64_t at = 0, length, sum = 0;

	for (; at < disk->geometry.size; at += length) {
		enum disk_extent_kind kind;
		int r = disk->ops->extent(disk, at, &kind, &length);

		if (r < 0)
			return error_errno(err, r,
					   "cannot find out what lies at byte %llu of the disk",
					   (unsigned long long)at);
		length = MIN(length, disk->geometry.size - at);
		sum += kind == DISK_EXTENT_DATA ? length : 0;
	}
	*ret = sum;
	return 0;
}
