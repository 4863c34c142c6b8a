// SPDX-License-Identifier: MIT
/*
 * Requests on an open VHDX. An op walks over the blocks that its request touches. It waits (and is
 * resumed by whom it waits for) only for a BAT page that is not in memory and, once per image, for
 * the activation that precedes the first change. Everything else is decided at once: a piece of
 * I/O, zeros, or a changed BAT entry.
 */
#include "vhd/vhdx_internal.h"

#include "lib/cleanup.h"
#include "vhd/iov.h"

#include <errno.h>
#include <string.h>

static bool op_writes(enum disk_op op)
{
	return op == DISK_WRITE || op == DISK_TRIM || op == DISK_WRITE_ZEROES;
}

/* --- the end of an op --- */

void vhdx_op_finish(struct vhdx_op *op, int result)
{
	struct disk_request *req = op->req;

	if (op->inside) {
		op->result = result;
		list_append(&op->v->finished, &op->node);
		loop_defer(op->v->disk.loop, &op->v->finished_task);
		return;
	}
	free(op);
	req->done(req, result);
}

static void run_finished(struct loop_task *t)
{
	struct vhdx *v = container_of(t, struct vhdx, finished_task);
	struct list batch;

	list_init(&batch);
	list_splice(&batch, &v->finished);
	while (!list_empty(&batch)) {
		struct vhdx_op *op = list_first(&batch, struct vhdx_op, node);

		list_remove(&op->node);
		op->inside = false;
		vhdx_op_finish(op, op->result);
	}
	list_splice(&batch, &v->unserved);
	while (!list_empty(&batch)) {
		struct disk_request *req = list_first(&batch, struct disk_request, node);

		list_remove(&req->node);
		req->done(req, -ENOMEM);
	}
}

static void op_put(struct vhdx_op *op)
{
	if (--op->pending)
		return;
	if (op->result >= 0 && op_writes(op->req->op) && op->req->flags & DISK_FUA)
		journal_flush(op->v, op);
	else
		vhdx_op_finish(op, op->result);
}

/* --- pieces --- */

static void on_piece(struct store_io *io, int result)
{
	struct vhdx_piece *piece = container_of(io, struct vhdx_piece, io);
	struct vhdx_op *op = piece->op;
	struct vhdx *v = op->v;

	list_remove(&piece->node);
	free(piece->iov);
	if (piece != &op->first)
		free(piece);
	if (result < 0 && op->result >= 0)
		op->result = result;
	if (!list_empty(&v->space.draining))
		space_poll(v);
	op_put(op);
}

static struct vhdx_piece *piece_new(struct vhdx_op *op)
{
	struct vhdx_piece *piece;

	if (op->first_used)
		return calloc(1, sizeof(*piece));
	op->first_used = true;
	piece = &op->first;
	piece->iov = NULL;
	return piece;
}

/* The piece's own iovec, when it moves only a part of the request. */
static int piece_iov(struct vhdx_piece *piece, const struct disk_request *req, uint64_t from,
		     uint64_t n)
{
	piece->io.iov = req->iov;
	piece->io.iovcnt = req->iovcnt;
	if (n == req->length)
		return 0;
	piece->io.iovcnt = iov_slice_count(req->iov, req->iovcnt, from, n);
	piece->iov = calloc(piece->io.iovcnt + 1, sizeof(*piece->iov));
	if (!piece->iov)
		return -ENOMEM;
	iov_slice(req->iov, req->iovcnt, from, n, piece->iov);
	piece->io.iov = piece->iov;
	return 0;
}

static int piece_submit(struct vhdx_op *op, enum store_op store_op, uint64_t offset, uint64_t n)
{
	struct vhdx_piece *piece = piece_new(op);
	bool moves = store_op == STORE_READ || store_op == STORE_WRITE;

	if (!piece)
		return -ENOMEM;
	piece->io = (struct store_io){
		.op = store_op,
		.offset = offset,
		.length = n,
		.done = on_piece,
	};
	if (moves && piece_iov(piece, op->req, op->at, n) < 0) {
		if (piece != &op->first)
			free(piece);
		return -ENOMEM;
	}
	piece->op = op;
	piece->sequence = op->v->io_sequence++;
	list_append(&op->v->in_flight, &piece->node);
	op->pending++;
	store_submit(op->v->store, &piece->io);
	return 0;
}

/* --- what an op does to one block --- */

/* The part of a block that a step is about. */
struct span {
	struct bat_page *page;
	uint64_t block, at, length;
	unsigned state;
	uint64_t offset; /* of the block in the file, when it is there */
};

static int step_read(struct vhdx_op *op, const struct span *s)
{
	if (s->state == VHDX_BLOCK_FULLY_PRESENT)
		return piece_submit(op, STORE_READ, s->offset + s->at, s->length);
	iov_zero(op->req->iov, op->req->iovcnt, op->at, s->length);
	return 0;
}

static int step_write(struct vhdx_op *op, const struct span *s)
{
	uint64_t offset = s->offset;

	if (s->state != VHDX_BLOCK_FULLY_PRESENT) {
		int r = space_take(op->v, &offset);

		if (r < 0)
			return r;
		bat_set(op->v, s->page, s->block, VHDX_BLOCK_FULLY_PRESENT, offset);
	}
	return piece_submit(op, STORE_WRITE, offset + s->at, s->length);
}

static bool whole_block(const struct vhdx *v, const struct span *s)
{
	uint64_t start = s->block << v->block_shift;

	return !s->at && s->length == MIN(v->params.block_size, v->params.size - start);
}

/* Takes a whole block out of the file. Its space is punched later, without anybody waiting. */
static int block_drop(struct vhdx_op *op, const struct span *s, unsigned state)
{
	bat_set(op->v, s->page, s->block, state, 0);
	space_give(op->v, s->offset);
	return 0;
}

static int step_trim(struct vhdx_op *op, const struct span *s)
{
	if (s->state != VHDX_BLOCK_FULLY_PRESENT || op->v->params.leave_allocated)
		return 0;
	if (whole_block(op->v, s))
		return block_drop(op, s, VHDX_BLOCK_UNMAPPED);
	return piece_submit(op, STORE_PUNCH, s->offset + s->at, s->length);
}

static int step_zero(struct vhdx_op *op, const struct span *s)
{
	if (s->state == VHDX_BLOCK_NOT_PRESENT || s->state == VHDX_BLOCK_ZERO)
		return 0;
	/* Here it reads as zeros, but others may show old data in it (MS-VHDX 2.5.1.1): say it. */
	if (s->state != VHDX_BLOCK_FULLY_PRESENT) {
		bat_set(op->v, s->page, s->block, VHDX_BLOCK_ZERO, 0);
		return 0;
	}
	if (whole_block(op->v, s) && !op->v->params.leave_allocated)
		return block_drop(op, s, VHDX_BLOCK_ZERO);
	return piece_submit(op, STORE_ZERO, s->offset + s->at, s->length);
}

static int (*const steps[])(struct vhdx_op *op, const struct span *s) = {
	[DISK_READ] = step_read,
	[DISK_WRITE] = step_write,
	[DISK_TRIM] = step_trim,
	[DISK_WRITE_ZEROES] = step_zero,
};

/* --- the walk --- */

/* Returns 1 when the op waits for something, 0 when it goes on, or a negative errno. */
static int op_step(struct vhdx_op *op)
{
	struct vhdx *v = op->v;
	uint64_t disk_at = op->req->offset + op->at;
	struct span s = { .block = disk_at >> v->block_shift };
	int r;

	s.at = disk_at & (v->params.block_size - 1);
	s.length = MIN(v->params.block_size - s.at, op->req->length - op->at);
	s.page = bat_page_find(v, s.block);
	if (!s.page) {
		r = bat_page_load(v, s.block, op);
		return r < 0 ? r : 1;
	}
	r = bat_get(v, s.page, s.block, &s.state, &s.offset);
	if (r >= 0)
		r = steps[op->req->op](op, &s);
	op->at += s.length;
	return r;
}

static void op_run(struct vhdx_op *op)
{
	int r = 0;

	while (!r && op->result >= 0 && op->at < op->req->length)
		r = op_step(op);
	if (r > 0)
		return;
	if (r < 0 && op->result >= 0)
		op->result = r;
	op_put(op);
}

void vhdx_op_resume(struct vhdx_op *op, int result)
{
	if (result < 0) {
		op->result = op->result < 0 ? op->result : result;
		op_put(op);
		return;
	}
	op_run(op);
}

static void op_start(struct vhdx_op *op)
{
	struct vhdx *v = op->v;
	bool writes = op_writes(op->req->op);
	int r = 0;

	if (writes && v->disk.geometry.read_only)
		r = -EROFS;
	else if (writes && v->journal.failed)
		r = v->journal.failed;
	if (r < 0) {
		vhdx_op_finish(op, r);
	} else if (op->req->op == DISK_FLUSH) {
		if (v->disk.geometry.read_only)
			vhdx_op_finish(op, 0);
		else
			journal_flush(v, op);
	} else if (writes && !v->journal.warm) {
		r = journal_activate(v, op);
		if (r < 0)
			vhdx_op_finish(op, r);
	} else {
		op_run(op);
	}
}

void vhdx_io_init(struct vhdx *v)
{
	list_init(&v->in_flight);
	list_init(&v->finished);
	list_init(&v->unserved);
	loop_task_init(&v->finished_task, run_finished);
}

void vhdx_submit(struct disk *disk, struct disk_request *req)
{
	struct vhdx *v = vhdx_of(disk);
	struct vhdx_op *op = malloc(sizeof(*op));

	if (!op) {
		list_append(&v->unserved, &req->node);
		loop_defer(disk->loop, &v->finished_task);
		return;
	}
	op->req = req;
	op->v = v;
	op->at = 0;
	op->pending = 1;
	op->result = 0;
	op->inside = true;
	op->first_used = false;
	list_init(&op->node);
	op_start(op);
	op->inside = false;
}
