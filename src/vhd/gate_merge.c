// SPDX-License-Identifier: MIT
/*
 * Merging the image below a gate into its parent, in one pass. The copy goes through the image from
 * its start to its end. What the guest changes behind it, it changes in the parent too, and is
 * answered when both have it; what it changes before it, the copy will find. When the copy is at
 * the end both are the same, and the gate freezes only for the switch.
 *
 * A change and a piece of the copy that overlap never run at once: each claims its range, and waits
 * for those of the other kind that overlap and came before. So the copy writes nothing that is
 * older than what the guest wrote, nobody waits for ever, and since waiting goes by age, not in
 * circles.
 *
 * What a TRIM leaves only the image knows, and also what a change leaves that failed there: what it
 * holds of such a range is copied again before the guest is answered.
 *
 * The guest never sees the parent change: reads of what the image holds go to the image, and the
 * rest changes only by what the guest itself has under way. For the same reason a power cut loses
 * nothing: flushes go to the image, from which the disk is opened until the switch.
 */
#include "vhd/gate_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

#define DEPTH      4u
#define DEPTH_MAX  64u
#define PIECE      MIB
#define ZERO_PIECE (64 * MIB)
/*
 * While the guest has requests under way one piece is copied at a time, a smaller one, and then
 * nothing for some times as long as that took: many times at the start, when what the guest writes
 * is written once, and few at the end, when nearly all of it is written twice.
 */
#define PACED_PIECE (256 * KIB)
#define REST_FIRST  12u
#define REST_LAST   1u

enum claim_kind { CLAIM_CHANGE, CLAIM_COPY, CLAIM_KINDS };

struct claim {
	struct list node;
	enum claim_kind kind;
	uint64_t offset, end;
	uint64_t order;
	unsigned ahead; /* of the other kind that overlap and are older */
};

/* A change that the guest has under way. */
struct change {
	struct claim claim;
	struct gate_merging *mg;
	struct disk_request *req;        /* the guest's */
	struct disk_request top, parent; /* the same for each image */
	uint64_t behind;                 /* up to here the range was copied, or is being */
	unsigned pending;
	int result;
	struct list node; /* in `again` */
};

struct slot {
	struct claim claim;
	struct gate_merging *mg;
	struct change *change; /* whose range is copied again; NULL = the pass's piece */
	uint64_t at;           /* in the claim */
	struct disk_request req;
	struct iovec iov;
	uint8_t *buf;
	uint64_t started; /* loop_now's */
	bool used;
	bool ready; /* its turn, and no I/O under way */
};

struct gate_merging {
	struct gate *g, *guest; /* guest: whose requests go first */
	struct gate_merge *m;
	struct disk *top, *parent;
	uint64_t size, at; /* at: where the copy is, with all that slots have claimed */
	struct list claims[CLAIM_KINDS];
	uint64_t order, ended;        /* claims that were made; changes that ended */
	struct list again;            /* changes whose range is to be copied again */
	unsigned depth, used, pieces; /* slots; used; used by the pass */
	int result;
	bool switching, freezing, frozen, flushing, flushed;
	bool finishing;      /* what `copied` began is not finished */
	bool running, rerun; /* run is on the stack; it was wanted meanwhile */
	struct gate_freeze freeze;
	struct disk_request flush;
	struct loop_timer turn; /* armed: there may be something to do */
	struct loop_timer rest; /* armed: the guest's turn */
	struct slot *slots;
};

/*
 * From a timer, since asking the image what it holds may run the loop: what it waits for must not
 * be among the callbacks of the same round that wait on the stack below.
 */
static void kick(struct gate_merging *mg)
{
	loop_timer_arm(&mg->turn, 1);
}

static void merge_fails(struct gate_merging *mg, int result)
{
	if (mg->result >= 0)
		mg->result = result;
	kick(mg);
}

/* --- claims --- */

static bool overlap(const struct claim *a, const struct claim *b)
{
	return a->offset < b->end && b->offset < a->end;
}

/* Whoever finds `ahead` 0 afterwards may begin; else claim_end of another tells it. */
static void claim_make(struct gate_merging *mg, struct claim *c, uint64_t offset, uint64_t end)
{
	c->offset = offset;
	c->end = end;
	c->order = mg->order++;
	c->ahead = 0;
	list_foreach(it, &mg->claims[!c->kind])
	{
		const struct claim *other = list_entry(it, struct claim, node);

		c->ahead += overlap(c, other);
	}
	list_append(&mg->claims[c->kind], &c->node);
}

static void change_start(struct change *c);

static void claim_end(struct gate_merging *mg, struct claim *c)
{
	list_remove(&c->node);
	list_foreach(it, &mg->claims[!c->kind])
	{
		struct claim *other = list_entry(it, struct claim, node);

		if (other->order < c->order || !overlap(c, other) || --other->ahead)
			continue;
		if (other->kind == CLAIM_CHANGE)
			change_start(container_of(other, struct change, claim));
		else
			container_of(other, struct slot, claim)->ready = true;
	}
	kick(mg);
}

/* How far from `offset` on the guest changes nothing. */
static uint64_t unclaimed(const struct gate_merging *mg, uint64_t offset, uint64_t length)
{
	uint64_t end = offset + length;

	list_foreach(it, &mg->claims[CLAIM_CHANGE])
	{
		const struct claim *c = list_entry(it, struct claim, node);

		if (c->offset < end && c->end > offset)
			end = MAX(c->offset, offset);
	}
	return end - offset;
}

/* --- changes --- */

static void change_end(struct change *c)
{
	struct gate *g = c->mg->g;
	struct disk_request *req = c->req;
	int result = c->result;

	free(c);
	gate_request_end(g, req, result);
}

static void change_put(struct change *c)
{
	struct gate_merging *mg = c->mg;

	if (--c->pending)
		return;
	mg->ended++;
	claim_end(mg, &c->claim);
	if (mg->result >= 0 && c->behind > c->claim.offset &&
	    (c->result < 0 || c->req->op == DISK_TRIM))
		list_append(&mg->again, &c->node);
	else
		change_end(c);
}

static void on_changed(struct disk_request *req, int result)
{
	struct change *c = container_of(req, struct change, top);

	c->result = result;
	change_put(c);
}

/* The guest does not learn of it: its image has the change. */
static void on_mirrored(struct disk_request *req, int result)
{
	struct change *c = container_of(req, struct change, parent);

	if (result < 0)
		merge_fails(c->mg, result);
	change_put(c);
}

static void change_start(struct change *c)
{
	struct gate_merging *mg = c->mg;

	c->top = (struct disk_request){
		.op = c->req->op,
		.flags = c->req->flags,
		.offset = c->req->offset,
		.length = c->req->length,
		.iov = c->req->iov,
		.iovcnt = c->req->iovcnt,
		.done = on_changed,
	};
	c->pending = 1;
	if (mg->result >= 0 && c->behind > c->claim.offset && c->req->op != DISK_TRIM) {
		c->parent = c->top;
		c->parent.flags = 0; /* it is flushed before it counts */
		c->parent.done = on_mirrored;
		c->pending++;
		disk_submit(mg->parent, &c->parent);
	}
	disk_submit(mg->top, &c->top);
}

bool gate_merge_change(struct gate *g, struct disk_request *req)
{
	struct gate_merging *mg = g->merging;
	struct change *c;

	if (!mg || mg->result < 0 || req->op == DISK_READ || req->op == DISK_FLUSH)
		return false;
	c = malloc(sizeof(*c));
	if (!c) {
		merge_fails(mg, -ENOMEM);
		return false;
	}
	c->claim.kind = CLAIM_CHANGE;
	c->mg = mg;
	c->req = req;
	c->behind = MIN(mg->at, req->offset + req->length);
	claim_make(mg, &c->claim, req->offset, req->offset + req->length);
	if (!c->claim.ahead)
		change_start(c);
	return true;
}

/* --- the end --- */

static void merging_free(struct gate_merging *mg)
{
	for (unsigned i = 0; mg->slots && i < mg->depth; i++)
		free(mg->slots[i].buf);
	loop_timer_disarm(&mg->turn);
	loop_timer_disarm(&mg->rest);
	free(mg->slots);
	free(mg);
}

void gate_merge_abandon(struct gate *g)
{
	if (!g->merging)
		return;
	g->merging->guest->copier = NULL;
	merging_free(g->merging);
	g->merging = NULL;
}

static void merge_end(struct gate_merging *mg)
{
	struct gate *g = mg->g, *guest = mg->guest;
	struct gate_merge *m = mg->m;
	struct disk *top = mg->top;
	int result = mg->result;
	bool frozen = mg->frozen;

	guest->copies -= mg->switching;
	if (result >= 0) {
		top->ops->set_parent(top, NULL);
		gate_replace(g, mg->parent);
	}
	m->merging = NULL;
	gate_merge_abandon(g);
	if (frozen)
		gate_thaw(g);
	gate_drained(guest);
	m->done(m, result, result >= 0 ? top : NULL);
}

/* --- copying --- */

static void on_rested(struct loop_timer *t)
{
	kick(container_of(t, struct gate_merging, rest));
}

static bool paced(const struct gate_merging *mg)
{
	return mg->guest->in_flight;
}

static void slot_end(struct slot *s)
{
	struct gate_merging *mg = s->mg;
	uint64_t now = loop_now(mg->g->disk.loop);
	uint64_t times = REST_LAST + (REST_FIRST - REST_LAST) * (mg->size - mg->at) / mg->size;

	if (paced(mg) && !s->change)
		loop_timer_arm(&mg->rest, now + times * (now - s->started));
	s->used = s->ready = false;
	mg->pieces -= !s->change;
	mg->used--;
	mg->guest->copies--;
	claim_end(mg, &s->claim);
	if (s->change)
		change_end(s->change);
	gate_drained(mg->guest);
}

static void slot_moved(struct slot *s, int result)
{
	s->at += s->req.length;
	s->ready = true;
	if (result < 0)
		merge_fails(s->mg, result);
	kick(s->mg);
}

static void on_written(struct disk_request *req, int result)
{
	slot_moved(container_of(req, struct slot, req), result);
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
		slot_moved(s, result);
	else
		slot_write(s, DISK_WRITE);
}

static void slot_copy(struct slot *s, enum disk_held held, uint64_t length)
{
	s->ready = false;
	s->iov = (struct iovec){ s->buf, length };
	s->req = (struct disk_request){
		.op = DISK_READ,
		.offset = s->at,
		.length = length,
		.iov = &s->iov,
		.iovcnt = 1,
		.done = on_read,
	};
	if (held == DISK_HELD_ZERO)
		slot_write(s, DISK_WRITE_ZEROES);
	else
		disk_submit(s->mg->top, &s->req);
}

/* The next of what the image holds in the claim; nothing in there changes meanwhile. */
static void slot_go_on(struct slot *s)
{
	struct gate_merging *mg = s->mg;

	while (s->at < s->claim.end && mg->result >= 0) {
		enum disk_held held;
		uint64_t n;
		int r = mg->top->ops->held(mg->top, s->at, &held, &n);

		if (r < 0) {
			merge_fails(mg, r);
			break;
		}
		n = MIN(n, s->claim.end - s->at);
		if (held != DISK_HELD_NOT) {
			slot_copy(s, held, held == DISK_HELD_DATA ? MIN(n, PIECE) : n);
			return;
		}
		s->at += n;
	}
	slot_end(s);
}

static void slot_start(struct slot *s, struct change *change, uint64_t offset, uint64_t end)
{
	struct gate_merging *mg = s->mg;

	s->used = true;
	mg->used++;
	mg->pieces += !change;
	mg->guest->copies++;
	s->change = change;
	s->at = offset;
	s->started = loop_now(mg->g->disk.loop);
	claim_make(mg, &s->claim, offset, end);
	s->ready = !s->claim.ahead;
	if (s->ready)
		slot_go_on(s);
}

/*
 * Moves to the next place where there may be something to copy: how much to claim there, 0 when
 * there is nothing now, negative errno. Asking may run the loop, so an answer counts only when no
 * change ended meanwhile; those under way are seen by their claims.
 */
static int64_t pass_next(struct gate_merging *mg)
{
	while (mg->at < mg->size) {
		uint64_t ended = mg->ended, n, free;
		enum disk_held held;
		int r = mg->top->ops->held(mg->top, mg->at, &held, &n);

		if (r < 0)
			return r;
		if (mg->ended != ended)
			continue;
		if (mg->guest->freeze || mg->result < 0)
			return 0;
		n = MIN(n, mg->size - mg->at);
		if (held == DISK_HELD_ZERO)
			return (int64_t)MIN(n, ZERO_PIECE);
		free = held == DISK_HELD_NOT ? unclaimed(mg, mg->at, n) : 0;
		if (!free)
			return (int64_t)MIN(paced(mg) ? PACED_PIECE : PIECE, mg->size - mg->at);
		mg->at += free;
	}
	return 0;
}

/*
 * The pass goes on when it is its turn. Between its pieces comes what the guest waits for, which
 * must not keep it from its end.
 */
static void slot_fill(struct slot *s)
{
	struct gate_merging *mg = s->mg;
	bool wait = mg->guest->freeze || (paced(mg) && (mg->pieces || mg->rest.deadline));
	int64_t n = wait ? 0 : pass_next(mg);

	if (n < 0) {
		merge_fails(mg, (int)n);
	} else if (n > 0) {
		mg->at += (uint64_t)n;
		slot_start(s, NULL, mg->at - (uint64_t)n, mg->at);
	} else if (!list_empty(&mg->again)) {
		struct change *c = list_first(&mg->again, struct change, node);

		list_remove(&c->node);
		slot_start(s, c, c->claim.offset, c->behind);
	}
}

static void slots_run(struct gate_merging *mg)
{
	for (unsigned i = 0; i < mg->depth; i++)
		if (mg->slots[i].ready)
			slot_go_on(&mg->slots[i]);
	for (unsigned i = 0; i < mg->depth && mg->result >= 0; i++)
		if (!mg->slots[i].used)
			slot_fill(&mg->slots[i]);
	while (mg->result < 0 && !list_empty(&mg->again)) {
		struct change *c = list_first(&mg->again, struct change, node);

		list_remove(&c->node);
		change_end(c);
	}
}

/* --- the switch --- */

static void on_flushed(struct disk_request *req, int result)
{
	struct gate_merging *mg = container_of(req, struct gate_merging, flush);

	if (result < 0)
		merge_fails(mg, result);
	mg->flushing = false;
	mg->flushed = true; /* the last thing to do */
	mg->finishing = mg->result >= 0 && mg->m->copied;
	if (mg->finishing)
		mg->m->copied(mg->m);
	else
		kick(mg);
}

static void parent_flush(struct gate_merging *mg)
{
	mg->flushing = true;
	mg->flush = (struct disk_request){ .op = DISK_FLUSH, .done = on_flushed };
	disk_submit(mg->parent, &mg->flush);
}

void gate_merge_finish(struct gate_merge *m, int result)
{
	struct gate_merging *mg = m->merging;

	assert(mg && mg->finishing);
	mg->finishing = false;
	if (result < 0)
		merge_fails(mg, result);
	kick(mg);
}

static void on_frozen(struct gate_freeze *f, int result)
{
	struct gate_merging *mg = container_of(f, struct gate_merging, freeze);

	mg->freezing = false;
	mg->frozen = result >= 0;
	if (result < 0)
		merge_fails(mg, result);
	kick(mg);
}

/* While somebody else holds the guest's requests nothing is copied; gate_merge_thawed ends that. */
static void switch_begin(struct gate_merging *mg)
{
	if (mg->guest->freeze)
		return;
	mg->freezing = gate_freeze(mg->g, &mg->freeze) >= 0;
	/* Another gate's freeze waits for this as for a piece: the parent is written. */
	mg->switching = mg->freezing && mg->guest != mg->g;
	mg->guest->copies += mg->switching;
}

void gate_merge_thawed(struct gate *guest)
{
	kick(guest->copier);
}

static void run(struct loop_timer *t)
{
	struct gate_merging *mg = container_of(t, struct gate_merging, turn);

	/* The loop runs in here: what it finishes meanwhile is seen after. */
	if (mg->running) {
		mg->rerun = true;
		return;
	}
	if (mg->flushing || mg->finishing)
		return;
	mg->running = true;
	slots_run(mg);
	mg->running = false;
	if (mg->rerun)
		kick(mg);
	mg->rerun = false;
	if (mg->m->progress)
		mg->m->progress(mg->m, mg->at, mg->size);
	if (mg->freezing)
		return;
	if (mg->result < 0 || mg->flushed) {
		if (!mg->used && list_empty(&mg->claims[CLAIM_CHANGE]))
			merge_end(mg);
	} else if (mg->frozen) {
		parent_flush(mg);
	} else if (mg->at == mg->size && !mg->pieces) {
		switch_begin(mg);
	}
}

static int slots_new(struct gate_merging *mg)
{
	mg->slots = calloc(mg->depth, sizeof(*mg->slots));
	if (!mg->slots)
		return -ENOMEM;
	for (unsigned i = 0; i < mg->depth; i++) {
		void *p;

		mg->slots[i].mg = mg;
		mg->slots[i].claim.kind = CLAIM_COPY;
		if (posix_memalign(&p, 4096, PIECE))
			return -ENOMEM;
		mg->slots[i].buf = p;
	}
	return 0;
}

static int merge_check(struct gate *g, struct gate *guest, struct error *err)
{
	struct disk *top = g->below, *parent = top->below;

	if (g->merging || guest->copier)
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
	struct gate *guest = m->guest ? m->guest : g;
	struct gate_merging *mg;
	int r = merge_check(g, guest, err);

	if (r < 0)
		return r;
	assert(!g->in_flight);
	mg = calloc(1, sizeof(*mg));
	if (!mg)
		return error_set(err, -ENOMEM, "out of memory");
	*mg = (struct gate_merging){
		.g = g,
		.guest = guest,
		.m = m,
		.top = g->below,
		.parent = g->below->below,
		.size = g->below->geometry.size,
		.depth = MIN(m->depth ? m->depth : DEPTH, DEPTH_MAX),
		.freeze.frozen = on_frozen,
	};
	for (unsigned i = 0; i < CLAIM_KINDS; i++)
		list_init(&mg->claims[i]);
	list_init(&mg->again);
	loop_timer_init(g->disk.loop, &mg->turn, run);
	loop_timer_init(g->disk.loop, &mg->rest, on_rested);
	if (slots_new(mg) < 0) {
		merging_free(mg);
		return error_set(err, -ENOMEM, "out of memory");
	}
	g->merging = m->merging = guest->copier = mg;
	kick(mg);
	return 0;
}

void gate_merge_cancel(struct gate_merge *m)
{
	/* Once all is copied it is too late: the image may already be marked as merged. */
	if (m->merging && m->merging->result >= 0 && !m->merging->flushed)
		merge_fails(m->merging, -ECANCELED);
}
