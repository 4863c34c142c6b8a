// SPDX-License-Identifier: MIT
/*
 * Merging the image below a gate into its parent, in passes. The first pass copies what the image
 * holds; meanwhile granules that the guest changes are marked, when their change is complete, since
 * the copy may have read them before. Each further pass copies what is marked. When that is little,
 * or it does not get less, the gate freezes for the last one. A pass ends when nothing of it is
 * under way, so that no granule is copied twice at a time.
 *
 * The guest never sees the parent change: reads of what the image holds go to the image, and only
 * that is copied.
 */
#include "vhd/gate_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

#define DEPTH        4u
#define DEPTH_MAX    64u
#define PIECE        MIB
#define ZERO_PIECE   GIB
#define GRANULE_MIN  (256 * KIB)
#define GRANULES_MAX BIT64(24)  /* bounds the bitmap to 2 MiB */
#define LAST_PASS    (32 * MIB) /* that may be left for the time when the guest waits */
#define PASSES_MAX   10u
/*
 * While the guest has requests under way one piece is copied at a time, a smaller one, and then
 * nothing for so many times as long as that took.
 */
#define PACED_PIECE (256 * KIB)
#define REST        2u

struct slot {
	struct gate_merging *mg;
	struct disk_request req;
	struct iovec iov;
	uint8_t *buf;
	uint64_t started; /* loop_now's */
	bool busy;
};

struct gate_merging {
	struct gate *g;
	struct gate_merge *m;
	struct disk *top, *parent;
	uint64_t size, granule, granules;
	uint8_t *marks;
	uint64_t marked;            /* granules */
	uint64_t at, limit, copied; /* the pass: next place; up to where it is to be copied */
	unsigned pass, depth, busy;
	int result;
	bool last, freezing;
	bool waiting;        /* for the end of somebody else's freeze */
	bool finishing;      /* what `copied` began is not finished */
	bool running, again; /* run is on the stack; it was wanted meanwhile */
	struct gate_freeze freeze;
	struct disk_request flush;
	struct loop_task task;
	struct loop_timer rest; /* armed: the guest's turn */
	struct slot *slots;
};

/* --- marks --- */

void gate_merge_mark(struct gate *g, uint64_t offset, uint64_t length)
{
	struct gate_merging *mg = g->merging;
	uint64_t end = MIN(offset + length, mg->size);

	for (uint64_t i = offset / mg->granule; i * mg->granule < end; i++) {
		if (mg->marks[i / 8] & BIT(i % 8))
			continue;
		mg->marks[i / 8] |= (uint8_t)BIT(i % 8);
		mg->marked++;
	}
}

/* Takes the next mark at or behind `at`; false when there is none. */
static bool mark_take(struct gate_merging *mg)
{
	for (uint64_t i = mg->at / mg->granule; i < mg->granules; i++) {
		if (!(i % 8) && !mg->marks[i / 8]) {
			i += 7;
			continue;
		}
		if (!(mg->marks[i / 8] & BIT(i % 8)))
			continue;
		mg->marks[i / 8] &= (uint8_t)~BIT(i % 8);
		mg->marked--;
		mg->at = i * mg->granule;
		mg->limit = MIN(mg->at + mg->granule, mg->size);
		return true;
	}
	return false;
}

/* --- the end --- */

static void merging_free(struct gate_merging *mg)
{
	for (unsigned i = 0; mg->slots && i < mg->depth; i++)
		free(mg->slots[i].buf);
	loop_cancel(mg->g->disk.loop, &mg->task);
	loop_timer_disarm(&mg->rest);
	free(mg->slots);
	free(mg->marks);
	free(mg);
}

void gate_merge_abandon(struct gate *g)
{
	if (g->merging)
		merging_free(g->merging);
	g->merging = NULL;
}

static void merge_end(struct gate_merging *mg)
{
	struct gate *g = mg->g;
	struct gate_merge *m = mg->m;
	struct disk *top = mg->top;
	int result = mg->result;
	bool frozen = mg->last;

	if (result >= 0) {
		top->ops->set_parent(top, NULL);
		gate_replace(g, mg->parent);
	}
	m->merging = NULL;
	gate_merge_abandon(g);
	if (frozen)
		gate_thaw(g);
	m->done(m, result, result >= 0 ? top : NULL);
}

/* --- copying --- */

static void kick(struct gate_merging *mg)
{
	loop_defer(mg->g->disk.loop, &mg->task);
}

static void on_rested(struct loop_timer *t)
{
	kick(container_of(t, struct gate_merging, rest));
}

static bool paced(const struct gate_merging *mg)
{
	return mg->g->in_flight && !mg->last;
}

static void slot_end(struct slot *s, int result)
{
	struct gate_merging *mg = s->mg;
	uint64_t now = loop_now(mg->g->disk.loop);

	if (paced(mg))
		loop_timer_arm(&mg->rest, now + REST * (now - s->started));
	if (result < 0 && mg->result >= 0)
		mg->result = result;
	mg->copied += s->req.length;
	s->busy = false;
	mg->busy--;
	kick(mg);
}

static void on_written(struct disk_request *req, int result)
{
	slot_end(container_of(req, struct slot, req), result);
}

static void slot_write(struct slot *s, enum disk_op op)
{
	s->req.op = op;
	s->req.done = on_written;
	disk_submit(s->mg->parent, &s->req);
}

static void on_read(struct disk_request *req, int result)
{
	struct slot *s = container_of(req, struct slot, req);

	if (result < 0 || s->mg->result < 0)
		slot_end(s, result);
	else
		slot_write(s, DISK_WRITE);
}

static void slot_start(struct slot *s, enum disk_held held, uint64_t offset, uint64_t length)
{
	struct gate_merging *mg = s->mg;

	s->busy = true;
	mg->busy++;
	s->started = loop_now(mg->g->disk.loop);
	s->iov = (struct iovec){ s->buf, length };
	s->req = (struct disk_request){
		.op = DISK_READ,
		.offset = offset,
		.length = length,
		.iov = &s->iov,
		.iovcnt = 1,
		.done = on_read,
	};
	if (held == DISK_HELD_ZERO)
		slot_write(s, DISK_WRITE_ZEROES);
	else
		disk_submit(mg->top, &s->req);
}

/* The next piece of the pass: 1 and what it is, 0 at the end of the pass, negative errno. */
static int piece_next(struct gate_merging *mg, enum disk_held *ret_held, uint64_t *ret_length)
{
	for (;;) {
		uint64_t n;
		int r;

		if (mg->at >= mg->limit && (mg->pass == 0 || !mark_take(mg)))
			return 0;
		r = mg->top->ops->held(mg->top, mg->at, ret_held, &n);
		if (r < 0)
			return r;
		n = MIN(n, mg->limit - mg->at);
		if (*ret_held == DISK_HELD_NOT) {
			mg->at += n;
			continue;
		}
		*ret_length = MIN(n, *ret_held != DISK_HELD_DATA ? ZERO_PIECE
				     : paced(mg)                 ? PACED_PIECE
								 : PIECE);
		return 1;
	}
}

/* Gives idle slots something to do; false when there is nothing more in this pass. */
static bool slots_fill(struct gate_merging *mg)
{
	for (unsigned i = 0; i < mg->depth && mg->result >= 0; i++) {
		bool wait = paced(mg) && (mg->busy || mg->rest.deadline);
		enum disk_held held;
		uint64_t n;
		int r;

		if (wait)
			return true;
		if (mg->slots[i].busy)
			continue;
		r = piece_next(mg, &held, &n);
		if (r < 0)
			mg->result = r;
		if (r <= 0)
			return false;
		slot_start(&mg->slots[i], held, mg->at, n);
		mg->at += n;
	}
	return mg->result >= 0;
}

/* --- passes --- */

static void on_flushed(struct disk_request *req, int result)
{
	struct gate_merging *mg = container_of(req, struct gate_merging, flush);

	if (result < 0 && mg->result >= 0)
		mg->result = result;
	mg->busy--;
	mg->at = mg->limit = UINT64_MAX; /* the flush was the last thing to do */
	mg->finishing = mg->result >= 0 && mg->m->copied;
	if (mg->finishing)
		mg->m->copied(mg->m);
	else
		kick(mg);
}

void gate_merge_finish(struct gate_merge *m, int result)
{
	struct gate_merging *mg = m->merging;

	assert(mg && mg->finishing);
	mg->finishing = false;
	if (result < 0 && mg->result >= 0)
		mg->result = result;
	kick(mg);
}

static void on_frozen(struct gate_freeze *f, int result)
{
	struct gate_merging *mg = container_of(f, struct gate_merging, freeze);

	mg->freezing = false;
	mg->last = result >= 0;
	if (result < 0 && mg->result >= 0)
		mg->result = result;
	mg->at = mg->limit = 0;
	kick(mg);
}

static void pass_end(struct gate_merging *mg)
{
	mg->pass++;
	mg->at = mg->limit = 0;
	if (mg->last) {
		mg->busy++;
		mg->flush = (struct disk_request){ .op = DISK_FLUSH, .done = on_flushed };
		disk_submit(mg->parent, &mg->flush);
	} else if (mg->marked * mg->granule <= LAST_PASS || mg->pass >= PASSES_MAX) {
		mg->freezing = true;
		if (gate_freeze(mg->g, &mg->freeze) < 0) {
			/* Somebody else holds the gate: another pass when that is over. */
			mg->freezing = false;
			mg->pass = 1;
			mg->waiting = true;
		}
	} else {
		kick(mg);
	}
}

void gate_merge_thawed(struct gate *g)
{
	g->merging->waiting = false;
	kick(g->merging);
}

static void run(struct loop_task *t)
{
	struct gate_merging *mg = container_of(t, struct gate_merging, task);
	bool more;

	if (mg->freezing || mg->finishing || (mg->waiting && mg->result >= 0))
		return;
	/* Asking who holds a range may run the loop: what it finishes meanwhile is seen after. */
	if (mg->running) {
		mg->again = true;
		return;
	}
	mg->running = true;
	more = mg->at != UINT64_MAX && slots_fill(mg);
	mg->running = false;
	if (mg->again) {
		mg->again = false;
		kick(mg);
	}
	if (mg->m->progress)
		mg->m->progress(mg->m, mg->pass ? mg->size : mg->at, mg->size);
	if (mg->busy || more)
		return;
	if (mg->result < 0 || mg->at == UINT64_MAX)
		merge_end(mg);
	else
		pass_end(mg);
}

static int slots_new(struct gate_merging *mg)
{
	mg->slots = calloc(mg->depth, sizeof(*mg->slots));
	if (!mg->slots)
		return -ENOMEM;
	for (unsigned i = 0; i < mg->depth; i++) {
		void *p;

		mg->slots[i].mg = mg;
		if (posix_memalign(&p, 4096, PIECE))
			return -ENOMEM;
		mg->slots[i].buf = p;
	}
	return 0;
}

static int merge_check(struct gate *g, struct error *err)
{
	struct disk *top = g->below, *parent = top->below;

	if (g->merging)
		return error_set(err, -EBUSY, "the image is being merged already");
	if (!parent || !top->ops->held || !top->ops->set_parent)
		return error_set(err, -EINVAL,
				 "the image has no parent that it could be merged into");
	if (parent->geometry.read_only)
		return error_set(err, -EROFS, "the parent was opened read-only");
	if (parent->geometry.size < top->geometry.size)
		return error_set(err, -EINVAL, "the parent is smaller: make it larger first");
	return 0;
}

int gate_merge(struct gate *g, struct gate_merge *m, struct error *err)
{
	struct gate_merging *mg;
	int r = merge_check(g, err);

	if (r < 0)
		return r;
	mg = calloc(1, sizeof(*mg));
	if (!mg)
		return error_set(err, -ENOMEM, "out of memory");
	*mg = (struct gate_merging){
		.g = g,
		.m = m,
		.top = g->below,
		.parent = g->below->below,
		.size = g->below->geometry.size,
		.granule = GRANULE_MIN,
		.depth = MIN(m->depth ? m->depth : DEPTH, DEPTH_MAX),
		.freeze.frozen = on_frozen,
	};
	mg->limit = mg->size;
	while (mg->size / mg->granule > GRANULES_MAX)
		mg->granule *= 2;
	mg->granules = (mg->size + mg->granule - 1) / mg->granule;
	mg->marks = calloc(mg->granules / 8 + 1, 1);
	loop_task_init(&mg->task, run);
	loop_timer_init(g->disk.loop, &mg->rest, on_rested);
	if (!mg->marks || slots_new(mg) < 0) {
		merging_free(mg);
		return error_set(err, -ENOMEM, "out of memory");
	}
	g->merging = m->merging = mg;
	kick(mg);
	return 0;
}

void gate_merge_cancel(struct gate_merge *m)
{
	/* Once all is copied it is too late: the image may already be marked as merged. */
	if (!m->merging || m->merging->result < 0 || m->merging->at == UINT64_MAX)
		return;
	m->merging->result = -ECANCELED;
	kick(m->merging);
}
