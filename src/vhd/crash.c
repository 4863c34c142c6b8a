// SPDX-License-Identifier: MIT
/* See crash.h. */
#include "vhd/crash.h"

#include "lib/cleanup.h"
#include "vhd/chain.h"
#include "vhd/disk_drive.h"
#include "vhd/gate.h"
#include "vhd/merge.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define UNIT          CRASH_UNIT
#define BLOCK         CRASH_BLOCK
#define BLOCKS        CRASH_BLOCKS
#define UNITS         CRASH_UNITS
#define UNITS_WRITTEN 8u
#define PLACES        (BLOCKS * UNITS)
#define NEVER         SIZE_MAX
#define OPS_MAX       8192u
#define FLIGHT        6u
#define PIECES_MAX    16384u

struct loop *crash_loop;
size_t crash_points;

/* --- the record --- */

static void on_event(void *context, const struct memory_event *e)
{
	struct crash_record *r = context;

	if (r->count == r->room) {
		r->room = MAX(r->room * 2, 1024);
		r->events = reallocarray(r->events, r->room, sizeof(*r->events));
		assert_non_null(r->events);
	}
	r->events[r->count] = (struct crash_event){ e->kind, e->offset, e->length,
						    r->clock ? ++*r->clock : 0, NULL };
	if (e->kind == MEMORY_WRITE) {
		r->events[r->count].data = malloc(e->length);
		assert_non_null(r->events[r->count].data);
		memcpy(r->events[r->count].data, e->data, e->length);
	}
	r->count++;
}

void crash_record_clear(struct crash_record *r)
{
	for (size_t i = 0; i < r->count; i++)
		free(r->events[i].data);
	free(r->events);
	*r = (struct crash_record){ 0 };
}

size_t crash_events_until(const struct crash_record *r, uint64_t time)
{
	size_t n = 0;

	while (n < r->count && r->events[n].time <= time)
		n++;
	return n;
}

struct store *crash_store(struct crash_record *record, unsigned shuffle)
{
	const struct store_memory_options o = {
		.size_max = 64 * MIB,
		.bytes_max = 64 * MIB,
		.shuffle = shuffle,
		.observe = record ? on_event : NULL,
		.context = record,
	};
	struct store *s = store_memory_new(crash_loop, &o);

	assert_non_null(s);
	return s;
}

static void apply(struct store *s, const struct crash_event *e, uint64_t from, uint64_t n)
{
	if (e->kind == MEMORY_WRITE)
		assert_int_equal(store_write(s, e->data + from, n, e->offset + from), 0);
	else if (e->kind == MEMORY_ZERO)
		assert_int_equal(store_zero(s, e->offset + from, n), 0);
	else if (e->kind == MEMORY_RESIZE)
		assert_int_equal(store_resize(s, e->length), 0);
}

static void apply_all(struct store *s, const struct crash_record *r, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		apply(s, &r->events[i], 0, r->events[i].length);
}

/* --- what the guest does, and what may be read after it --- */

enum change_kind { CHANGE_WRITE, CHANGE_ZERO, CHANGE_TRIM };

struct change {
	enum change_kind kind;
	unsigned place;
	uint64_t value;
	size_t submitted, completed, durable; /* events before, by now(); NEVER = not yet */
};

struct guest {
	const struct crash_format *f;
	struct disk *d;
	struct crash_record *record;
	uint64_t stride; /* between the blocks that are used */
	unsigned seed;
	uint64_t value;
	struct change changes[OPS_MAX];
	size_t count;
	bool busy_block[BLOCKS];
	unsigned in_flight;
};

struct guest_op {
	struct disk_request req;
	struct iovec iov;
	struct guest *g;
	unsigned block;
	size_t first, count; /* changes; for FLUSH: all before first that were complete */
	uint8_t buf[UNIT];
	bool *covered;
};

uint64_t crash_place(uint64_t stride, unsigned place)
{
	unsigned block = place / UNITS, unit = place % UNITS;

	/* Units lie differently in each block, so that written ones meet others' unwritten ones. */
	return block * stride + (unit * 5 + block * 2) % 64 * UNIT;
}

static uint64_t place_offset(const struct guest *g, unsigned place)
{
	return crash_place(g->stride, place);
}

static void stamp(uint8_t *buf, uint64_t value)
{
	for (size_t i = 0; i < UNIT; i += sizeof(value))
		memcpy(buf + i, &value, sizeof(value));
}

static size_t now(const struct guest *g)
{
	return g->record->clock ? *g->record->clock : g->record->count;
}

static void changes_durable(struct guest *g, const struct guest_op *op)
{
	for (size_t i = 0; op->covered && i < op->first; i++)
		if (op->covered[i] && g->changes[i].durable == NEVER)
			g->changes[i].durable = now(g);
}

static void on_done(struct disk_request *req, int result)
{
	struct guest_op *op = container_of(req, struct guest_op, req);
	struct guest *g = op->g;

	assert_int_equal(result, 0);
	for (size_t i = op->first; i < op->first + op->count; i++) {
		g->changes[i].completed = now(g);
		if (req->flags & DISK_FUA)
			g->changes[i].durable = now(g);
	}
	changes_durable(g, op);
	if (req->op != DISK_FLUSH)
		g->busy_block[op->block] = false;
	g->in_flight--;
	free(op->covered);
	free(op);
}

static struct guest_op *op_new(struct guest *g, enum disk_op what)
{
	struct guest_op *op = calloc(1, sizeof(*op));

	assert_non_null(op);
	op->g = g;
	op->first = g->count;
	op->req.op = what;
	op->req.done = on_done;
	g->in_flight++;
	return op;
}

static void add_change(struct guest *g, struct guest_op *op, enum change_kind kind, unsigned place,
		       uint64_t value)
{
	assert_true(g->count < OPS_MAX);
	g->changes[g->count++] = (struct change){ kind, place, value, now(g), NEVER, NEVER };
	op->count++;
}

static void submit_flush(struct guest *g)
{
	struct guest_op *op = op_new(g, DISK_FLUSH);

	op->covered = calloc(g->count + 1, sizeof(*op->covered));
	assert_non_null(op->covered);
	for (size_t i = 0; i < g->count; i++)
		op->covered[i] = g->changes[i].completed != NEVER;
	disk_submit(g->d, &op->req);
}

static void submit_write(struct guest *g, unsigned block, unsigned r)
{
	struct guest_op *op = op_new(g, DISK_WRITE);
	unsigned place = block * UNITS + r % UNITS_WRITTEN;

	op->block = block;
	stamp(op->buf, ++g->value);
	op->iov = (struct iovec){ op->buf, UNIT };
	op->req.iov = &op->iov;
	op->req.iovcnt = 1;
	op->req.offset = place_offset(g, place);
	op->req.length = UNIT;
	op->req.flags = r / 16 % 6 ? 0 : DISK_FUA;
	add_change(g, op, CHANGE_WRITE, place, g->value);
	disk_submit(g->d, &op->req);
}

/* Whole blocks, or the first half of one. */
static void submit_clear(struct guest *g, unsigned block, enum disk_op what, bool whole)
{
	struct guest_op *op = op_new(g, what);

	op->block = block;
	op->req.offset = block * g->stride;
	op->req.length = whole ? BLOCK : 32 * UNIT;
	for (unsigned u = 0; u < UNITS; u++) {
		unsigned place = block * UNITS + u;

		if (place_offset(g, place) < op->req.offset + op->req.length)
			add_change(g, op, what == DISK_TRIM ? CHANGE_TRIM : CHANGE_ZERO, place, 0);
	}
	disk_submit(g->d, &op->req);
}

static void guest_step(struct guest *g)
{
	unsigned r = (unsigned)rand_r(&g->seed), block = r % BLOCKS, what = r / BLOCKS % 16;

	r /= BLOCKS * 16;
	while (g->in_flight >= FLIGHT)
		assert_int_equal(loop_once(crash_loop, -1), 0);
	if (what >= 13) {
		submit_flush(g);
	} else if (!g->busy_block[block]) {
		g->busy_block[block] = true;
		if (what < 4 && g->f->only_writes)
			submit_write(g, block, r);
		else if (what == 0 || what == 1)
			submit_clear(g, block, DISK_TRIM, what);
		else if (what == 2 || what == 3)
			submit_clear(g, block, DISK_WRITE_ZEROES, what == 2);
		else
			submit_write(g, block, r);
	}
	for (unsigned n = (unsigned)rand_r(&g->seed) % 4; n; n--)
		assert_int_equal(loop_once(crash_loop, 0), 0);
}

/*
 * Whether `value` may be in `place` after a crash at event `at`: backwards through the changes,
 * until one that is durable and certain.
 */
static bool allowed(const struct guest *g, unsigned place, uint64_t value, size_t at)
{
	for (size_t i = g->count; i-- > 0;) {
		const struct change *c = &g->changes[i];

		if (c->place != place || c->submitted > at)
			continue;
		if (value == c->value)
			return true;
		if (c->durable <= at && c->kind != CHANGE_TRIM)
			return false;
	}
	return value == (g->f->initial ? g->f->initial(place) : 0);
}

/* --- the crash --- */

static void check_print(struct check_report *r, enum check_kind kind, const char *text)
{
	(void)r;
	if (kind == CHECK_DAMAGE)
		print_message("check: %s\n", text);
}

/* Pieces of a place may be of different ages, the bytes of one may not. */
static void verify_place(const struct guest *g, struct disk *d, unsigned place, size_t at)
{
	const size_t words = g->f->piece / sizeof(uint64_t);
	uint64_t b[UNIT / sizeof(uint64_t)];

	assert_int_equal(drive_read(d, b, UNIT, place_offset(g, place)), 0);
	for (size_t i = 0; i < ARRAY_SIZE(b); i++) {
		if (b[i] != b[i - i % words])
			fail_msg("crash at event %zu: place %u is torn", at, place);
		if (!(i % words) && !allowed(g, place, b[i], at))
			fail_msg("crash at event %zu: place %u holds %llu", at, place,
				 (unsigned long long)b[i]);
	}
}

static void verify(const struct guest *g, struct store *s, size_t at)
{
	struct check_report report = { .found = check_print };
	struct error err = { 0 };
	struct disk *d = NULL;

	crash_points++;
	if (g->f->open(s, &d, &err) < 0)
		fail_msg("crash at event %zu: %s", at, err.message);
	for (unsigned p = 0; p < PLACES; p++)
		verify_place(g, d, p, at);
	assert_int_equal(disk_close(d, &err), 0);
	assert_int_equal(g->f->check(s, &report, &err), 0);
	if (report.counts[CHECK_DAMAGE])
		fail_msg("crash at event %zu: the image is damaged", at);
}

/* A piece of an event that was not flushed. */
struct piece {
	const struct crash_event *e;
	uint64_t from, length;
};

static size_t pieces_of(const struct crash_event *e, uint32_t size, struct piece *out, size_t room)
{
	size_t n = 0;

	if (e->kind == MEMORY_FLUSH || e->kind == MEMORY_FLUSH_START)
		return 0;
	if (e->kind != MEMORY_WRITE) {
		out[n++] = (struct piece){ e, 0, e->length };
		return n;
	}
	for (uint64_t at = 0; at < e->length && n < room; at += size)
		out[n++] = (struct piece){ e, at, MIN(size, e->length - at) };
	return n;
}

/* Applies some of what was not flushed, in some order. */
static void apply_some(const struct crash_format *f, struct store *s, const struct crash_record *r,
		       size_t from, size_t to, unsigned *seed)
{
	static struct piece pieces[PIECES_MAX];
	size_t n = 0;
	unsigned mode = (unsigned)rand_r(seed) % 4;

	for (size_t i = from; i < to; i++)
		n += pieces_of(&r->events[i], f->piece, pieces + n, ARRAY_SIZE(pieces) - n - 1);
	for (size_t i = 0; i < n; i++) {
		size_t other = i + (size_t)rand_r(seed) % (n - i);
		struct piece p = pieces[i];

		/* 0: all in order; 1: none; 2: some in order; 3: some in any order */
		if (mode == 3) {
			pieces[i] = pieces[other];
			pieces[other] = p;
			p = pieces[i];
		}
		if (mode == 0 || (mode >= 2 && rand_r(seed) % 2))
			apply(s, p.e, p.from, p.length);
	}
}

/* Everything before *ret_durable is on the disk when the power fails after `at` events. */
static size_t durable_before(const struct crash_record *r, size_t at)
{
	while (at && r->events[at - 1].kind != MEMORY_FLUSH)
		at--;
	while (at && r->events[at - 1].kind != MEMORY_FLUSH_START)
		at--;
	return at;
}

void crash_apply(const struct crash_format *f, struct store *to, const struct crash_record *r,
		 size_t start, size_t at, unsigned *seed)
{
	size_t durable = MAX(durable_before(r, at), start);

	apply_all(to, r, start, durable);
	apply_some(f, to, r, durable, at, seed);
}

/* Fails the power again in the middle of opening what a first power cut left. */
static void crash_again(const struct guest *g, struct store *s, size_t at, unsigned *seed)
{
	struct crash_record record = { 0 };
	struct store *recorded = crash_store(&record, 0);
	size_t start;
	struct error err = { 0 };
	struct disk *d = NULL;

	store_memory_copy(s, recorded);
	start = record.count;
	if (g->f->open(recorded, &d, &err) < 0)
		fail_msg("crash at event %zu: %s", at, err.message);
	assert_int_equal(disk_close(d, &err), 0);
	for (size_t k = start; k <= record.count; k++) {
		struct store *again = crash_store(NULL, 0);

		store_memory_copy(s, again);
		crash_apply(g->f, again, &record, start, k, seed);
		verify(g, again, at);
		store_memory_free(again);
	}
	store_memory_free(recorded);
	crash_record_clear(&record);
}

static void crash_everywhere(const struct guest *g, size_t start, unsigned seed)
{
	struct store *durable_store = crash_store(NULL, 0);
	size_t applied = 0;

	for (size_t k = start; k <= g->record->count; k++) {
		struct store *s = crash_store(NULL, 0);
		size_t durable = MAX(durable_before(g->record, k), start);

		apply_all(durable_store, g->record, applied, durable);
		applied = durable;
		store_memory_copy(durable_store, s);
		apply_some(g->f, s, g->record, durable, k, &seed);
		if (!(rand_r(&seed) % 20))
			crash_again(g, s, k, &seed);
		verify(g, s, k);
		store_memory_free(s);
	}
	store_memory_free(durable_store);
}

/* --- the cases --- */

static void guest_close(struct guest *g)
{
	struct error err = { 0 };

	while (g->in_flight)
		assert_int_equal(loop_once(crash_loop, -1), 0);
	if (disk_close(g->d, &err) < 0)
		fail_msg("%s", err.message);
	/* Closing is a flush of everything. */
	for (size_t c = 0; c < g->count; c++)
		if (g->changes[c].durable == NEVER)
			g->changes[c].durable = now(g);
}

static void guest_run(struct guest *g, struct store *s, unsigned sessions, unsigned steps)
{
	struct error err = { 0 };

	for (unsigned i = 0; i < sessions; i++) {
		if (g->f->open(s, &g->d, &err) < 0)
			fail_msg("%s", err.message);
		for (unsigned n = 0; n < steps; n++)
			guest_step(g);
		guest_close(g);
	}
}

/* A guest with a new image in *ret_store, all of whose changes go into `record`. */
static struct guest *guest_new(const struct crash_format *f, struct crash_record *record,
			       uint64_t size, unsigned seed, struct store **ret_store)
{
	struct guest *g = calloc(1, sizeof(*g));
	struct error err = { 0 };

	assert_non_null(g);
	*g = (struct guest){ .f = f, .record = record, .seed = seed };
	*ret_store = crash_store(record, seed);
	if (f->create(*ret_store, size, &err) < 0)
		fail_msg("%s", err.message);
	return g;
}

static void run_case(const struct crash_format *f, uint64_t size, uint64_t stride, unsigned seed,
		     unsigned steps)
{
	struct crash_record record = { 0 };
	struct store *s;
	_cleanup_free_ struct guest *g = guest_new(f, &record, size, seed, &s);
	size_t start = record.count;

	g->stride = stride;
	guest_run(g, s, 2, steps);
	crash_everywhere(g, start, seed);
	print_message("%zu changes, %zu crash points\n", g->count, record.count - start + 1);
	store_memory_free(s);
	crash_record_clear(&record);
}

unsigned crash_number(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

void crash_rounds(const struct crash_format *f, uint64_t size, uint64_t stride, unsigned steps)
{
	unsigned seed = crash_number("PARTITA_CRASH_SEED", 1);

	for (unsigned i = 0; i < crash_number("PARTITA_CRASH_ROUNDS", 1); i++)
		run_case(f, size, stride, seed + i, steps);
}

void crash_edit(const struct crash_format *f, const struct crash_edit *edit, uint64_t size,
		uint64_t stride, unsigned seed)
{
	struct crash_record record = { 0 };
	struct store *s;
	_cleanup_free_ struct guest *g = guest_new(f, &record, size, seed, &s);
	struct error err = { 0 };
	size_t start;

	g->stride = stride;
	guest_run(g, s, 2, 60);
	start = record.count;
	if (f->open(s, &g->d, &err) < 0 || edit->run(g->d, &err) < 0 || disk_close(g->d, &err) < 0)
		fail_msg("%s: %s", edit->name, err.message);
	crash_everywhere(g, start, seed);
	print_message("%s: %zu crash points\n", edit->name, record.count - start + 1);
	store_memory_free(s);
	crash_record_clear(&record);
}

static void parent_fill(const struct crash_format *f, struct store *s,
			uint64_t (*initial)(unsigned place), uint64_t size, uint64_t stride)
{
	uint8_t b[UNIT];
	struct disk *d;

	assert_int_equal(f->create(s, size, NULL), 0);
	assert_int_equal(f->open(s, &d, NULL), 0);
	for (unsigned p = 0; p < PLACES; p++) {
		stamp(b, initial(p));
		assert_int_equal(drive_write(d, b, UNIT, crash_place(stride, p), 0), 0);
	}
	assert_int_equal(disk_close(d, NULL), 0);
}

struct store *crash_parent(const struct crash_format *f, uint64_t (*initial)(unsigned place),
			   uint64_t size, uint64_t stride)
{
	struct store *s = crash_store(NULL, 0);

	parent_fill(f, s, initial, size, stride);
	store_memory_set_read_only(s, true);
	return s;
}

/* --- merging --- */

enum { CHILD, PARENT, IMAGES };

struct crash_merging {
	struct gate_merge m;
	const struct crash_format *formats[IMAGES];
	struct crash_record records[IMAGES];
	struct store *stores[IMAGES];
	struct store *bases[IMAGES]; /* as they were at the beginning */
	size_t starts[IMAGES];
	uint64_t clock;
	uint64_t retiring, retired; /* when that began and ended */
	struct guest *g;
	struct disk *merged;
	bool copied, done;
};

static void on_copied(struct gate_merge *m)
{
	container_of(m, struct crash_merging, m)->copied = true;
}

static void on_merged(struct gate_merge *m, int result, struct disk *merged)
{
	struct crash_merging *cm = container_of(m, struct crash_merging, m);

	assert_int_equal(result, 0);
	cm->merged = merged;
	cm->done = true;
}

/* The child, and below it the parent that it names; NULL when it names another one. */
static struct disk *chain_open(struct crash_merging *cm, struct store **stores)
{
	struct disk *d[IMAGES];
	struct error err = { 0 };

	for (unsigned i = 0; i < IMAGES; i++)
		if (cm->formats[i]->open(stores[i], &d[i], &err) < 0)
			fail_msg("%s", err.message);
	if (chain_parent_check(d[CHILD], d[PARENT], &err) < 0) {
		for (unsigned i = 0; i < IMAGES; i++)
			assert_int_equal(disk_close(d[i], NULL), 0);
		return NULL;
	}
	d[CHILD]->ops->set_parent(d[CHILD], d[PARENT]);
	return d[CHILD];
}

static void chain_create(struct crash_merging *cm, uint64_t size)
{
	struct disk_parent ref;
	struct disk_identity id;
	struct disk *d[IMAGES];

	parent_fill(cm->formats[PARENT], cm->stores[PARENT], cm->formats[CHILD]->initial, size,
		    cm->g->stride);
	assert_int_equal(cm->formats[CHILD]->create(cm->stores[CHILD], size, NULL), 0);
	for (unsigned i = 0; i < IMAGES; i++)
		assert_int_equal(cm->formats[i]->open(cm->stores[i], &d[i], NULL), 0);
	d[PARENT]->ops->identity(d[PARENT], &id);
	assert_int_equal(disk_parent_copy(d[CHILD]->ops->parent(d[CHILD]), &ref), 0);
	ref.id = id.id;
	ref.timestamp = id.timestamp;
	assert_int_equal(d[CHILD]->ops->set_parent_ref(d[CHILD], &ref, NULL), 0);
	disk_parent_deinit(&ref);
	for (unsigned i = 0; i < IMAGES; i++)
		assert_int_equal(disk_close(d[i], NULL), 0);
}

/* Sessions before, of which all is durable; then the merge and what follows it. */
static void merge_play(struct crash_merging *cm)
{
	struct guest *g = cm->g;
	struct disk *top = chain_open(cm, cm->stores);
	struct error err = { 0 };

	assert_non_null(top);
	g->d = top;
	for (unsigned n = 0; n < 100; n++)
		guest_step(g);
	guest_close(g);
	for (unsigned i = 0; i < IMAGES; i++) {
		store_memory_copy(cm->stores[i], cm->bases[i]);
		cm->starts[i] = cm->records[i].count;
	}
	top = chain_open(cm, cm->stores);
	assert_non_null(top);
	assert_int_equal(merge_prepare(top, top->below, &err), 0);
	g->d = gate_new(top);
	assert_non_null(g->d);
	assert_int_equal(gate_merge(gate_of(g->d), &cm->m, &err), 0);
	while (!cm->copied)
		guest_step(g);
	cm->retiring = cm->clock;
	assert_int_equal(merge_retire(top, &err), 0);
	cm->retired = cm->clock;
	gate_merge_finish(&cm->m, 0);
	while (!cm->done)
		assert_int_equal(loop_once(crash_loop, -1), 0);
	for (unsigned n = 0; n < 40; n++)
		guest_step(g);
	guest_close(g);
	assert_int_equal(disk_close(cm->merged, &err), 0);
}

static void merge_verify(struct crash_merging *cm, struct store **stores, uint64_t at)
{
	struct check_report report = { .found = check_print };
	struct disk *d = chain_open(cm, stores);
	struct error err = { 0 };

	crash_points++;
	if (d && at >= cm->retired)
		fail_msg("cut at %llu: a merged image can be opened", (unsigned long long)at);
	if (!d && at < cm->retiring)
		fail_msg("cut at %llu: the chain is broken", (unsigned long long)at);
	if (!d)
		assert_int_equal(cm->formats[PARENT]->open(stores[PARENT], &d, &err), 0);
	for (unsigned p = 0; p < PLACES; p++)
		verify_place(cm->g, d, p, at);
	assert_int_equal(disk_close(d, &err), 0);
	for (unsigned i = 0; i < IMAGES; i++) {
		assert_int_equal(cm->formats[i]->check(stores[i], &report, &err), 0);
		if (report.counts[CHECK_DAMAGE])
			fail_msg("cut at %llu: image %u is damaged", (unsigned long long)at, i);
	}
}

static void merge_cut_everywhere(struct crash_merging *cm, uint64_t start, unsigned seed)
{
	for (uint64_t at = start; at <= cm->clock; at++) {
		struct store *stores[IMAGES];

		for (unsigned i = 0; i < IMAGES; i++) {
			stores[i] = crash_store(NULL, 0);
			store_memory_copy(cm->bases[i], stores[i]);
			crash_apply(cm->formats[i], stores[i], &cm->records[i], cm->starts[i],
				    crash_events_until(&cm->records[i], at), &seed);
		}
		merge_verify(cm, stores, at);
		for (unsigned i = 0; i < IMAGES; i++)
			store_memory_free(stores[i]);
	}
}

void crash_merge(const struct crash_format *child, const struct crash_format *parent, uint64_t size,
		 uint64_t stride, unsigned seed)
{
	struct crash_merging cm = {
		.m = { .copied = on_copied, .done = on_merged },
		.formats = { child, parent },
	};
	_cleanup_free_ struct guest *g = calloc(1, sizeof(*g));
	uint64_t start = 0;

	assert_non_null(g);
	*g = (struct guest){ .f = child, .record = &cm.records[CHILD], .stride = stride };
	g->seed = seed;
	cm.g = g;
	for (unsigned i = 0; i < IMAGES; i++) {
		cm.records[i].clock = &cm.clock;
		cm.stores[i] = crash_store(&cm.records[i], seed + i);
		cm.bases[i] = crash_store(NULL, 0);
	}
	chain_create(&cm, size);
	merge_play(&cm);
	for (unsigned i = 0; i < IMAGES; i++)
		start = MAX(start, cm.records[i].events[cm.starts[i] - 1].time);
	merge_cut_everywhere(&cm, start, seed);
	print_message("merging: %zu changes, %llu cuts\n", g->count,
		      (unsigned long long)(cm.clock - start + 1));
	for (unsigned i = 0; i < IMAGES; i++) {
		store_memory_free(cm.stores[i]);
		store_memory_free(cm.bases[i]);
		crash_record_clear(&cm.records[i]);
	}
}
