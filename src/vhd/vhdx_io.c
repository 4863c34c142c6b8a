// SPDX-License-Identifier: MIT
/*
 * Requests on an open VHDX. An op walks over the blocks that its request touches. It waits (and is
 * resumed by whom it waits for) only for pages of BAT and sector bitmaps that are not in memory
 * and, once per image, for the activation that precedes the first change. Everything else is
 * decided at once: a piece of I/O, a read from the parent, zeros, or a changed BAT entry.
 */
#include "vhd/vhdx_internal.h"

#include "lib/cleanup.h"
#include "vhd/iov.h"

#include <errno.h>
#include <string.h>

/* --- the end of an op --- */

/* One that ends inside of submit is freed there. */
void vhdx_op_finish(struct vhdx_op *op, int result)
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

static void op_put(struct vhdx_op *op)
{
	if (--op->pending)
		return;
	if (op->result >= 0 && disk_op_changes(op->req->op) && op->req->flags & DISK_FUA)
		journal_flush(op->v, op);
	else
		vhdx_op_finish(op, op->result);
}

/* --- pages that an op needs --- */

/* Pins the page into *slot: 0; 1 when the op waits for it and comes again; or negative errno. */
static int hold(struct vhdx_op *op, enum vhdx_hold which, uint64_t offset)
{
	struct page **slot = &op->held[which];
	int r;

	if (*slot && (*slot)->offset == offset)
		return 0;
	if (*slot)
		page_unpin(*slot);
	*slot = page_find(op->v, offset);
	if (*slot) {
		page_pin(*slot);
		return 0;
	}
	r = page_load(op->v, offset, op);
	return r < 0 ? r : 1;
}

static void release(struct vhdx_op *op)
{
	for (unsigned i = 0; i < HOLD_COUNT; i++) {
		if (op->held[i])
			page_unpin(op->held[i]);
		op->held[i] = NULL;
	}
}

/* --- pieces --- */

static bool bit_get(const struct page *p, uint32_t bit)
{
	return p->bytes[bit / 8] & BIT(bit % 8);
}

/* The sectors are in this file from now on. */
static void bits_set(struct vhdx *v, struct page *p, uint32_t bit, uint32_t count)
{
	bool changed = false;

	for (uint32_t i = bit; i < bit + count; i++) {
		if (i % 8 == 0 && i + 8 <= bit + count) {
			changed |= p->bytes[i / 8] != 0xff;
			p->bytes[i / 8] = 0xff;
			i += 7;
		} else if (!bit_get(p, i)) {
			p->bytes[i / 8] |= (uint8_t)BIT(i % 8);
			changed = true;
		}
	}
	if (changed)
		page_dirty(v, p);
}

static void on_piece(struct store_io *io, int result)
{
	struct vhdx_piece *piece = container_of(io, struct vhdx_piece, io);
	struct vhdx_op *op = piece->op;
	struct vhdx *v = op->v;

	list_remove(&piece->node);
	if (piece->bitmap && result >= 0)
		bits_set(v, piece->bitmap, piece->bit, piece->bits);
	if (piece->bitmap)
		page_unpin(piece->bitmap);
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
	piece->bitmap = NULL;
	return piece;
}

/*
 * With a bitmap page (held for op->at): the sectors become this file's own, afterwards.
 */
static int piece_submit(struct vhdx_op *op, enum store_op store_op, uint64_t offset, uint64_t n,
			struct page *bitmap)
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
	if (moves && store_io_part(&piece->io, op->req, op->at, n, &piece->iov) < 0) {
		if (piece != &op->first)
			free(piece);
		return -ENOMEM;
	}
	piece->op = op;
	piece->sequence = op->v->io_sequence++;
	if (bitmap) {
		uint64_t sector = (op->req->offset + op->at) / op->v->params.logical_sector;

		piece->bitmap = bitmap;
		piece->bit = (uint32_t)(sector % VHDX_BITS_PER_PAGE);
		piece->bits = (uint32_t)(n / op->v->params.logical_sector);
		page_pin(bitmap);
	}
	list_append(&op->v->in_flight, &piece->node);
	op->pending++;
	store_submit(op->v->store, &piece->io);
	return 0;
}

static void on_lower(struct below_read *read, int result)
{
	struct vhdx_lower *lower = container_of(read, struct vhdx_lower, read);
	struct vhdx_op *op = lower->op;

	free(lower);
	if (result < 0 && op->result >= 0)
		op->result = result;
	op_put(op);
}

static int lower_submit(struct vhdx_op *op, uint64_t n)
{
	struct vhdx_lower *lower = malloc(sizeof(*lower));
	int r;

	if (!lower)
		return -ENOMEM;
	*lower = (struct vhdx_lower){ .read.done = on_lower, .op = op };
	r = below_read(&lower->read, op->v->disk.below, op->req, op->at, n);
	if (r <= 0)
		free(lower);
	else
		op->pending++;
	return r < 0 ? r : 0;
}

/* --- what an op does to one block --- */

/* The part of a block that a step is about; a step advances op->at by it. */
struct span {
	uint64_t block, at, length;
	unsigned state;
	uint64_t offset; /* of the block in the file, when it is there */
	uint64_t bitmap; /* of the chunk's bitmap, when it was asked for; 0 = there is none */
};

/* Bytes of the file's page with the bits of the sectors at op->at. */
static uint64_t bitmap_page(const struct vhdx_op *op, const struct span *s)
{
	uint64_t sector = (op->req->offset + op->at) / op->v->params.logical_sector;

	return s->bitmap + sector % VHDX_CHUNK_SECTORS / VHDX_BITS_PER_PAGE * VHDX_SECTOR;
}

/* Cuts the span where its bitmap page ends. */
static void span_cut(const struct vhdx_op *op, struct span *s)
{
	uint64_t reach = (uint64_t)VHDX_BITS_PER_PAGE * op->v->params.logical_sector;
	uint64_t disk_at = op->req->offset + op->at;

	s->length = MIN(s->length, reach - disk_at % reach);
}

static int find_bitmap(struct vhdx_op *op, struct span *s)
{
	int r = hold(op, HOLD_BITMAP_BAT, bat_bitmap_page_of(op->v, s->block));

	return r ? r : bat_bitmap_get(op->v, op->held[HOLD_BITMAP_BAT], s->block, &s->bitmap);
}

/* A bitmap for a PARTIALLY_PRESENT block: its page is held afterwards. */
static int hold_bitmap(struct vhdx_op *op, struct span *s)
{
	int r = find_bitmap(op, s);

	if (!r && !s->bitmap)
		return -EUCLEAN; /* the block says that there is one */
	return r ? r : hold(op, HOLD_BITMAP, bitmap_page(op, s));
}

static int read_partial(struct vhdx_op *op, struct span *s)
{
	uint32_t sector = op->v->params.logical_sector;
	uint64_t end;
	int r = hold_bitmap(op, s);

	if (r)
		return r;
	span_cut(op, s);
	for (end = op->at + s->length; op->at < end && r >= 0;) {
		const struct page *p = op->held[HOLD_BITMAP];
		uint32_t bit = (uint32_t)((op->req->offset + op->at) / sector % VHDX_BITS_PER_PAGE);
		bool here = bit_get(p, bit);
		uint64_t n = sector;

		while (op->at + n < end && bit_get(p, ++bit) == here)
			n += sector;
		r = here ? piece_submit(op, STORE_READ, s->offset + s->at, n, NULL)
			 : lower_submit(op, n);
		op->at += n;
		s->at += n;
	}
	s->length = 0;
	return r;
}

static int step_read(struct vhdx_op *op, struct span *s)
{
	if (s->state == VHDX_BLOCK_FULLY_PRESENT)
		return piece_submit(op, STORE_READ, s->offset + s->at, s->length, NULL);
	if (s->state == VHDX_BLOCK_PARTIALLY_PRESENT)
		return read_partial(op, s);
	if (s->state == VHDX_BLOCK_NOT_PRESENT && op->v->params.has_parent)
		return lower_submit(op, s->length);
	iov_zero(op->req->iov, op->req->iovcnt, op->at, s->length);
	return 0;
}

/*
 * Sees to it that all bits of an absent block are 0, page by page; nobody sets one before the block
 * is PARTIALLY_PRESENT, and a step that waits starts again with the block's entry.
 */
static int clear_bits(struct vhdx_op *op, const struct span *s)
{
	struct vhdx *v = op->v;
	uint64_t bits = v->params.block_size / v->params.logical_sector;
	uint64_t first = s->block * bits % VHDX_CHUNK_SECTORS;

	while (op->cleared < bits) {
		uint64_t bit = first + op->cleared, in_page = bit % VHDX_BITS_PER_PAGE;
		uint64_t n = MIN(bits - op->cleared, VHDX_BITS_PER_PAGE - in_page);
		int r = hold(op, HOLD_BITMAP, s->bitmap + bit / VHDX_BITS_PER_PAGE * VHDX_SECTOR);
		uint8_t *p;

		if (r)
			return r;
		p = op->held[HOLD_BITMAP]->bytes + in_page / 8;
		if (!bytes_zero(p, n / 8)) {
			memset(p, 0, n / 8);
			page_dirty(v, op->held[HOLD_BITMAP]);
		}
		op->cleared += n;
	}
	return 0;
}

/* Gives an absent block of a differencing image a place, where no sector is its own yet. */
static int allocate_partial(struct vhdx_op *op, struct span *s)
{
	struct vhdx *v = op->v;
	uint64_t bitmap = 0;
	int r = find_bitmap(op, s);

	if (!r && s->bitmap)
		r = clear_bits(op, s);
	if (r)
		return r;
	if (!s->bitmap) {
		r = space_take(v, VHDX_BITMAP_SIZE, &bitmap);
		if (r < 0)
			return r;
	}
	r = space_take(v, v->params.block_size, &s->offset);
	if (r < 0) {
		if (bitmap)
			space_give(v, bitmap, VHDX_BITMAP_SIZE);
		return r;
	}
	if (bitmap)
		bat_bitmap_set(v, op->held[HOLD_BITMAP_BAT], s->block, bitmap);
	s->state = VHDX_BLOCK_PARTIALLY_PRESENT;
	bat_set(v, op->held[HOLD_BAT], s->block, s->state, s->offset);
	return 0;
}

static int allocate(struct vhdx_op *op, struct span *s)
{
	struct vhdx *v = op->v;
	int r;

	if (s->state == VHDX_BLOCK_NOT_PRESENT && v->params.has_parent)
		return allocate_partial(op, s);
	r = space_take(v, v->params.block_size, &s->offset);
	if (r < 0)
		return r;
	s->state = VHDX_BLOCK_FULLY_PRESENT;
	bat_set(v, op->held[HOLD_BAT], s->block, s->state, s->offset);
	return 0;
}

/* Submits a change of the block's bytes, and of its bitmap if it has one. */
static int change(struct vhdx_op *op, struct span *s, enum store_op store_op)
{
	struct page *bitmap = NULL;

	if (s->state == VHDX_BLOCK_PARTIALLY_PRESENT) {
		int r = hold_bitmap(op, s);

		if (r)
			return r;
		span_cut(op, s);
		bitmap = op->held[HOLD_BITMAP];
	}
	return piece_submit(op, store_op, s->offset + s->at, s->length, bitmap);
}

static bool in_file(const struct span *s)
{
	return s->state == VHDX_BLOCK_FULLY_PRESENT || s->state == VHDX_BLOCK_PARTIALLY_PRESENT;
}

static int step_write(struct vhdx_op *op, struct span *s)
{
	int r = in_file(s) ? 0 : allocate(op, s);

	return r ? r : change(op, s, STORE_WRITE);
}

static bool whole_block(const struct vhdx *v, const struct span *s)
{
	uint64_t start = s->block << v->block_shift;

	return !s->at && s->length == MIN(v->params.block_size, v->params.size - start);
}

/* Takes a whole block out of the file. Its space is punched later, without anybody waiting. */
static int block_drop(struct vhdx_op *op, const struct span *s, unsigned state)
{
	bat_set(op->v, op->held[HOLD_BAT], s->block, state, 0);
	if (s->offset)
		space_give(op->v, s->offset, op->v->params.block_size);
	return 0;
}

static bool from_parent(const struct vhdx *v, const struct span *s)
{
	return s->state == VHDX_BLOCK_NOT_PRESENT && v->params.has_parent;
}

/* Parts of a block that the parent has are left alone: they would take space to become zeros. */
static int step_trim(struct vhdx_op *op, struct span *s)
{
	if (op->v->params.leave_allocated || !(in_file(s) || from_parent(op->v, s)))
		return 0;
	if (whole_block(op->v, s))
		return block_drop(op, s, VHDX_BLOCK_UNMAPPED);
	return in_file(s) ? piece_submit(op, STORE_PUNCH, s->offset + s->at, s->length, NULL) : 0;
}

static int step_zero(struct vhdx_op *op, struct span *s)
{
	struct vhdx *v = op->v;
	int r = 0;

	if (s->state == VHDX_BLOCK_ZERO ||
	    (s->state == VHDX_BLOCK_NOT_PRESENT && !v->params.has_parent))
		return 0;
	/* Here it reads as zeros, but others may show old data in it (MS-VHDX 2.5.1.1): say it. */
	if (!in_file(s) && !from_parent(v, s)) {
		bat_set(v, op->held[HOLD_BAT], s->block, VHDX_BLOCK_ZERO, 0);
		return 0;
	}
	if (whole_block(v, s) && !v->params.leave_allocated)
		return block_drop(op, s, VHDX_BLOCK_ZERO);
	if (!in_file(s))
		r = allocate(op, s);
	return r ? r : change(op, s, STORE_ZERO);
}

static int (*const steps[])(struct vhdx_op *op, struct span *s) = {
	[DISK_READ] = step_read,
	[DISK_WRITE] = step_write,
	[DISK_TRIM] = step_trim,
	[DISK_WRITE_ZEROES] = step_zero,
};

/* --- the walk --- */

/*
 * Returns 1 when the op waits for something, 0 when it goes on, or a negative errno. What waits
 * has not changed anything yet that coming again would change twice.
 */
static int op_step(struct vhdx_op *op)
{
	struct vhdx *v = op->v;
	uint64_t disk_at = op->req->offset + op->at;
	struct span s = { .block = disk_at >> v->block_shift };
	int r;

	s.at = disk_at & (v->params.block_size - 1);
	s.length = MIN(v->params.block_size - s.at, op->req->length - op->at);
	r = hold(op, HOLD_BAT, bat_page_of(v, s.block));
	if (!r)
		r = bat_get(v, op->held[HOLD_BAT], s.block, &s.state, &s.offset);
	if (!r)
		r = steps[op->req->op](op, &s);
	if (r > 0)
		return r;
	release(op);
	op->cleared = 0;
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
		release(op);
		op->result = op->result < 0 ? op->result : result;
		op_put(op);
		return;
	}
	op_run(op);
}

static void op_start(struct vhdx_op *op)
{
	struct vhdx *v = op->v;
	bool writes = disk_op_changes(op->req->op);
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
	} else if (writes && !v->journal.renewed) {
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
	later_init(&v->later, v->disk.loop);
}

void vhdx_submit(struct disk *disk, struct disk_request *req)
{
	struct vhdx *v = vhdx_of(disk);
	struct vhdx_op *op = malloc(sizeof(*op));

	if (!op) {
		later_end(&v->later, req, -ENOMEM);
		return;
	}
	op->req = req;
	op->v = v;
	op->at = 0;
	op->cleared = 0;
	memset(op->held, 0, sizeof(op->held));
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
