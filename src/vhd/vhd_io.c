// SPDX-License-Identifier: MIT
/*
 * Requests on an open VHD. An op walks over the blocks that its request touches, in differencing
 * images over runs of sectors that are here or not. It waits (and is resumed by whom it waits for)
 * only for a part of the table or a bitmap that is not in memory. Everything else is decided at
 * once: a piece of I/O, zeros, or a changed entry.
 *
 * In a differencing image a sector's bit is set in memory when what was written there is through,
 * and on the disk by a commit whose first flush made that durable: a power cut shows what the
 * parent has, or what was written. A block that is there stays, also when a guest trims it, because
 * the parent's old data would come back; its space is given back to the host's file system.
 */
#include "vhd/vhd_internal.h"

#include "lib/cleanup.h"
#include "vhd/iov.h"

#include <errno.h>
#include <string.h>

/* --- the end of an op --- */

/* One that ends inside of submit is freed there. */
void vhd_op_finish(struct vhd_op *op, int result)
{
	struct disk_request *req = op->req;

	if (op->inside) {
		op->req = NULL;
		later_end(&op->v->later, req, result);
		return;
	}
	free(op);
	req->done(req, result);
}

static void op_put(struct vhd_op *op)
{
	if (--op->pending)
		return;
	if (op->result >= 0 && disk_op_changes(op->req->op) && op->req->flags & DISK_FUA)
		vhd_commit_flush(op->v, op);
	else
		vhd_op_finish(op, op->result);
}

/* --- pieces --- */

static void piece_end(struct vhd_piece *piece, int result)
{
	struct vhd_op *op = piece->op;
	struct vhd *v = op->v;

	list_remove(&piece->node);
	free(piece->iov);
	if (piece->bits) {
		if (result >= 0)
			vhd_bits_mark(piece->bits, piece->mark_first, piece->mark_count);
		vhd_page_unpin(piece->bits);
	}
	if (piece != &op->first)
		free(piece);
	if (result < 0 && op->result >= 0)
		op->result = result;
	if (!list_empty(&v->space.draining))
		vhd_space_poll(v);
	op_put(op);
}

static void on_piece(struct store_io *io, int result)
{
	piece_end(container_of(io, struct vhd_piece, io), result);
}

static void on_below(struct below_read *b, int result)
{
	piece_end(container_of(b, struct vhd_piece, below), result);
}

static struct vhd_piece *piece_new(struct vhd_op *op)
{
	struct vhd_piece *piece = &op->first;

	if (op->first_used)
		return calloc(1, sizeof(*piece));
	op->first_used = true;
	*piece = (struct vhd_piece){ 0 };
	return piece;
}

static void piece_drop(struct vhd_op *op, struct vhd_piece *piece)
{
	if (piece != &op->first)
		free(piece);
}

static void piece_count(struct vhd_op *op, struct vhd_piece *piece)
{
	piece->op = op;
	piece->sequence = op->v->io_sequence++;
	list_append(&op->v->in_flight, &piece->node);
	op->pending++;
}

/* What an op does to one block, or a run of its sectors. */
struct span {
	uint64_t block, at, length;
	struct vhd_page *page;
	bool present;
	uint64_t offset;       /* of the block's data in the file, when it is there */
	struct vhd_page *bits; /* differencing images, when it is there */
	bool here;             /* the sectors' bits are set; in other images: present */
};

static int piece_submit(struct vhd_op *op, enum store_op store_op, const struct span *s)
{
	struct vhd_piece *piece = piece_new(op);
	bool moves = store_op == STORE_READ || store_op == STORE_WRITE;

	if (!piece)
		return -ENOMEM;
	piece->io = (struct store_io){
		.op = store_op,
		.offset = s->offset + s->at,
		.length = s->length,
		.done = on_piece,
	};
	if (moves && store_io_part(&piece->io, op->req, op->at, s->length, &piece->iov) < 0) {
		piece_drop(op, piece);
		return -ENOMEM;
	}
	if (s->bits && (store_op == STORE_WRITE || store_op == STORE_ZERO)) {
		piece->bits = s->bits;
		piece->mark_first = (uint32_t)(s->at / VHD_SECTOR);
		piece->mark_count = (uint32_t)(s->length / VHD_SECTOR);
		vhd_page_pin(s->bits);
	}
	piece_count(op, piece);
	store_submit(op->v->store, &piece->io);
	return 0;
}

static int piece_below(struct vhd_op *op, const struct span *s)
{
	struct vhd_piece *piece = piece_new(op);
	int r;

	if (!piece)
		return -ENOMEM;
	piece->below.done = on_below;
	piece_count(op, piece);
	r = below_read(&piece->below, op->v->disk.below, op->req, op->at, s->length);
	if (r > 0)
		return 0;
	op->pending--;
	list_remove(&piece->node);
	piece_drop(op, piece);
	return r;
}

/* --- what an op does to one span --- */

static int step_read(struct vhd_op *op, const struct span *s)
{
	if (s->here)
		return piece_submit(op, STORE_READ, s);
	if (op->v->kind == VHD_DIFFERENCING)
		return piece_below(op, s);
	iov_zero(op->req->iov, op->req->iovcnt, op->at, s->length);
	return 0;
}

/* Space for a block that is not in the file. */
static int block_add(struct vhd *v, struct span *s)
{
	uint64_t offset;
	int r = vhd_space_take(v, &offset);

	if (r < 0)
		return r;
	if (v->kind == VHD_DIFFERENCING) {
		vhd_page_pin(s->page); /* room for the new page must not be made of this one */
		s->bits = vhd_page_add(v, VHD_PAGE_BITMAP, s->block, offset);
		vhd_page_unpin(s->page);
		r = s->bits ? 0 : -ENOMEM;
	} else {
		r = vhd_commit_fill(v, offset);
	}
	if (r < 0) {
		vhd_space_give(v, offset);
		return r;
	}
	vhd_bat_set(s->page, s->block, offset);
	s->present = true;
	s->offset = offset + v->bitmap_bytes;
	return 0;
}

/* The first write to a block whose bitmap may have gaps. */
static int block_fill(struct vhd *v, const struct span *s)
{
	uint8_t bit = (uint8_t)BIT(s->block % 8);
	int r = 0;

	if (!v->filled || v->filled[s->block / 8] & bit)
		return 0;
	r = vhd_commit_fill(v, s->offset - v->bitmap_bytes);
	if (r >= 0)
		v->filled[s->block / 8] |= bit;
	return r;
}

static int step_write(struct vhd_op *op, const struct span *s)
{
	struct span here = *s;
	int r = s->present ? block_fill(op->v, s) : block_add(op->v, &here);

	return r < 0 ? r : piece_submit(op, STORE_WRITE, &here);
}

static bool whole_block(const struct vhd *v, const struct span *s)
{
	uint64_t start = s->block << v->block_shift;

	return !s->at && s->length == MIN(vhd_block_size(v), v->disk.geometry.size - start);
}

/* Takes a whole block out of the file. Its space is punched later, without anybody waiting. */
static int block_drop(struct vhd *v, const struct span *s)
{
	vhd_bat_set(s->page, s->block, 0);
	vhd_space_give(v, s->offset - v->bitmap_bytes);
	return 0;
}

static int step_trim(struct vhd_op *op, const struct span *s)
{
	struct vhd *v = op->v;

	if (!s->here || v->kind == VHD_FIXED)
		return 0;
	if (v->kind == VHD_DYNAMIC && whole_block(v, s))
		return block_drop(v, s);
	return piece_submit(op, STORE_PUNCH, s);
}

static int step_zero(struct vhd_op *op, const struct span *s)
{
	struct vhd *v = op->v;
	struct span here = *s;
	int r;

	if (v->kind == VHD_DYNAMIC && (!s->present || whole_block(v, s)))
		return s->present ? block_drop(v, s) : 0;
	if (s->present)
		return piece_submit(op, STORE_ZERO, s);
	/* The parent is hidden by a block of zeros, which is what a new one is. */
	r = block_add(v, &here);
	if (r >= 0)
		vhd_bits_mark(here.bits, (uint32_t)(s->at / VHD_SECTOR),
			      (uint32_t)(s->length / VHD_SECTOR));
	return r;
}

static int (*const steps[])(struct vhd_op *op, const struct span *s) = {
	[DISK_READ] = step_read,
	[DISK_WRITE] = step_write,
	[DISK_TRIM] = step_trim,
	[DISK_WRITE_ZEROES] = step_zero,
};

/* --- the walk --- */

/* Finds the run of sectors at the start of a span of a block that is there; 1 = op waits. */
static int span_bits(struct vhd_op *op, struct span *s)
{
	uint64_t offset = s->offset - op->v->bitmap_bytes;

	s->bits = vhd_page_find(op->v, VHD_PAGE_BITMAP, s->block);
	if (!s->bits) {
		int r = vhd_page_load(op->v, VHD_PAGE_BITMAP, s->block, offset, op);

		return r < 0 ? r : 1;
	}
	if (op->req->op == DISK_READ || op->req->op == DISK_TRIM)
		s->length = (uint64_t)vhd_bits_run(s->bits, (uint32_t)(s->at / VHD_SECTOR),
						   (uint32_t)(s->length / VHD_SECTOR), &s->here) *
			    VHD_SECTOR;
	return 0;
}

/* Returns 1 when the op waits for something, 0 when the span is known, or a negative errno. */
static int span_find(struct vhd_op *op, struct span *s)
{
	struct vhd *v = op->v;
	uint64_t disk_at = op->req->offset + op->at;
	int r;

	*s = (struct span){ .at = disk_at, .length = op->req->length - op->at };
	if (v->kind == VHD_FIXED) {
		s->present = s->here = true;
		return 0;
	}
	s->block = disk_at >> v->block_shift;
	s->at = disk_at & (vhd_block_size(v) - 1);
	s->length = MIN(s->length, vhd_block_size(v) - s->at);
	s->page = vhd_bat_find(v, s->block);
	if (!s->page) {
		r = vhd_page_load(v, VHD_PAGE_BAT, s->block / VHD_PER_PAGE,
				  vhd_bat_page_offset(v, s->block), op);
		return r < 0 ? r : 1;
	}
	r = vhd_bat_get(v, s->page, s->block, &s->offset);
	if (r <= 0)
		return r;
	s->present = s->here = true;
	s->offset += v->bitmap_bytes;
	return v->kind == VHD_DIFFERENCING ? span_bits(op, s) : 0;
}

static void op_run(struct vhd_op *op)
{
	int r = 0;

	while (!r && op->result >= 0 && op->at < op->req->length) {
		struct span s;

		r = span_find(op, &s);
		if (!r) {
			r = steps[op->req->op](op, &s);
			op->at += s.length;
		}
	}
	if (r > 0)
		return;
	if (r < 0 && op->result >= 0)
		op->result = r;
	op_put(op);
}

void vhd_op_resume(struct vhd_op *op, int result)
{
	if (result < 0) {
		op->result = op->result < 0 ? op->result : result;
		op_put(op);
		return;
	}
	op_run(op);
}

static void op_start(struct vhd_op *op)
{
	struct vhd *v = op->v;
	bool writes = disk_op_changes(op->req->op);
	int r = 0;

	if (writes && v->disk.geometry.read_only)
		r = -EROFS;
	else if (writes && v->commit.failed)
		r = v->commit.failed;
	if (r < 0)
		vhd_op_finish(op, r);
	else if (op->req->op != DISK_FLUSH)
		op_run(op);
	else if (v->disk.geometry.read_only)
		vhd_op_finish(op, 0);
	else
		vhd_commit_flush(v, op);
}

void vhd_io_init(struct vhd *v)
{
	list_init(&v->in_flight);
	later_init(&v->later, v->disk.loop);
}

void vhd_submit(struct disk *disk, struct disk_request *req)
{
	struct vhd *v = vhd_of(disk);
	struct vhd_op *op = malloc(sizeof(*op));

	if (!op) {
		later_end(&v->later, req, -ENOMEM);
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
	if (!op->req)
		free(op);
}
