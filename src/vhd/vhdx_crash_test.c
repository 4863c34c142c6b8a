// SPDX-License-Identifier: MIT
/*
 * Power cuts. Everything that the library does to its store is recorded. For every point of that
 * record an image is built of what was flushed by then, plus a random part of what was not: writes
 * cut at 4 KiB and dropped or reordered piece by piece, zeroing and growth dropped. Each image must
 * open, pass the check, and hold in each place data that is allowed there: what was last made
 * durable, or something written later. Some places are never written: they must read as zeros,
 * whoever had the space before. Now and then the power fails again while the log is replayed.
 *
 * PARTITA_CRASH_SEED picks another sequence, PARTITA_CRASH_ROUNDS more of them.
 */
#include "vhd/disk_drive.h"
#include "vhd/image.h"
#include "vhd/store_memory.h"
#include "vhd/vhdx.h"

#include "lib/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define UNIT          4096u
#define BLOCK         MIB
#define BLOCKS        6u  /* that are used, of however many there are */
#define UNITS         12u /* places in each; the last ones are never written */
#define UNITS_WRITTEN 8u
#define PLACES        (BLOCKS * UNITS)
#define NEVER         SIZE_MAX
#define OPS_MAX       8192u
#define FLIGHT        6u

static struct loop *loop;

/* --- the record --- */

struct event {
	enum memory_event_kind kind;
	uint64_t offset, length;
	uint8_t *data;
};

struct record {
	struct event *events;
	size_t count, room;
};

static void on_event(void *context, const struct memory_event *e)
{
	struct record *r = context;

	if (r->count == r->room) {
		r->room = MAX(r->room * 2, 1024);
		r->events = reallocarray(r->events, r->room, sizeof(*r->events));
		assert_non_null(r->events);
	}
	r->events[r->count] = (struct event){ e->kind, e->offset, e->length, NULL };
	if (e->kind == MEMORY_WRITE) {
		r->events[r->count].data = malloc(e->length);
		assert_non_null(r->events[r->count].data);
		memcpy(r->events[r->count].data, e->data, e->length);
	}
	r->count++;
}

static void record_clear(struct record *r)
{
	for (size_t i = 0; i < r->count; i++)
		free(r->events[i].data);
	free(r->events);
	*r = (struct record){ 0 };
}

static struct store *new_store(struct record *record, unsigned shuffle)
{
	const struct store_memory_options o = {
		.size_max = 64 * MIB,
		.bytes_max = 64 * MIB,
		.shuffle = shuffle,
		.observe = record ? on_event : NULL,
		.context = record,
	};
	struct store *s = store_memory_new(loop, &o);

	assert_non_null(s);
	return s;
}

static void apply(struct store *s, const struct event *e, uint64_t from, uint64_t n)
{
	if (e->kind == MEMORY_WRITE)
		assert_int_equal(store_write(s, e->data + from, n, e->offset + from), 0);
	else if (e->kind == MEMORY_ZERO)
		assert_int_equal(store_zero(s, e->offset + from, n), 0);
	else if (e->kind == MEMORY_RESIZE)
		assert_int_equal(store_resize(s, e->length), 0);
}

static void apply_all(struct store *s, const struct record *r, size_t from, size_t to)
{
	for (size_t i = from; i < to; i++)
		apply(s, &r->events[i], 0, r->events[i].length);
}

static void store_copy(struct store *from, struct store *to)
{
	uint8_t b[UNIT];

	assert_int_equal(store_resize(to, from->size), 0);
	for (uint64_t at = 0; at < from->size;) {
		enum disk_extent_kind kind;
		uint64_t n;

		assert_int_equal(store_extent(from, at, &kind, &n), 0);
		for (uint64_t i = 0; kind == DISK_EXTENT_DATA && i < n; i += UNIT) {
			uint64_t part = MIN(UNIT, from->size - at - i);

			assert_int_equal(store_read(from, b, part, at + i), 0);
			assert_int_equal(store_write(to, b, part, at + i), 0);
		}
		at += n;
	}
}

/* --- what the guest does, and what may be read after it --- */

enum change_kind { CHANGE_WRITE, CHANGE_ZERO, CHANGE_TRIM };

struct change {
	enum change_kind kind;
	unsigned place;
	uint64_t value;
	size_t submitted, completed, durable; /* events before; NEVER = not yet */
};

struct guest {
	struct disk *d;
	struct disk *parent; /* NULL = the image has none */
	struct record *record;
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

static uint64_t place_offset(const struct guest *g, unsigned place)
{
	unsigned block = place / UNITS, unit = place % UNITS;

	/* Units lie differently in each block, so that written ones meet others' unwritten ones. */
	return block * g->stride + (unit * 5 + block * 2) % 64 * UNIT;
}

/* What a place holds before the guest writes to it. */
static uint64_t first_value(const struct guest *g, unsigned place)
{
	return g->parent ? UINT64_C(1000000) + place : 0;
}

static void stamp(uint8_t *buf, uint64_t value)
{
	for (size_t i = 0; i < UNIT; i += sizeof(value))
		memcpy(buf + i, &value, sizeof(value));
}

static size_t now(const struct guest *g)
{
	return g->record->count;
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
		assert_int_equal(loop_once(loop, -1), 0);
	if (what >= 13) {
		submit_flush(g);
	} else if (!g->busy_block[block]) {
		g->busy_block[block] = true;
		if (what == 0 || what == 1)
			submit_clear(g, block, DISK_TRIM, what);
		else if (what == 2 || what == 3)
			submit_clear(g, block, DISK_WRITE_ZEROES, what == 2);
		else
			submit_write(g, block, r);
	}
	for (unsigned n = (unsigned)rand_r(&g->seed) % 4; n; n--)
		assert_int_equal(loop_once(loop, 0), 0);
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
	return value == first_value(g, place);
}

/* --- the crash --- */

static void check_print(struct check_report *r, enum check_kind kind, const char *text)
{
	(void)r;
	if (kind == CHECK_DAMAGE)
		print_message("check: %s\n", text);
}

static struct disk *open_ok(const struct guest *g, struct store *s, size_t at)
{
	struct error err = { 0 };
	struct disk *d = NULL;

	if (vhdx_open(s, &d, &err) < 0)
		fail_msg("crash at event %zu: %s", at, err.message);
	if (g->parent)
		d->ops->set_parent(d, g->parent);
	return d;
}

static void close_ok(struct disk *d)
{
	struct error err = { 0 };

	if (d->ops->parent(d))
		d->ops->set_parent(d, NULL);
	if (disk_close(d, &err) < 0)
		fail_msg("%s", err.message);
}

static void verify(const struct guest *g, struct store *s, size_t at)
{
	struct check_report report = { .found = check_print };
	struct error err = { 0 };
	struct disk *d = open_ok(g, s, at);
	uint64_t b[UNIT / 8];

	for (unsigned p = 0; p < PLACES; p++) {
		assert_int_equal(drive_read(d, b, UNIT, place_offset(g, p)), 0);
		if (!allowed(g, p, b[0], at))
			fail_msg("crash at event %zu: place %u holds %llu", at, p,
				 (unsigned long long)b[0]);
		for (size_t i = 1; i < ARRAY_SIZE(b); i++)
			assert_int_equal(b[i], b[0]);
	}
	close_ok(d);
	assert_int_equal(vhdx_check(s, &report, &err), 0);
	if (report.counts[CHECK_DAMAGE])
		fail_msg("crash at event %zu: the image is damaged", at);
}

/* A piece of an event that was not flushed. */
struct piece {
	const struct event *e;
	uint64_t from, length;
};

static size_t pieces_of(const struct event *e, struct piece *out, size_t room)
{
	size_t n = 0;

	if (e->kind == MEMORY_FLUSH || e->kind == MEMORY_FLUSH_START)
		return 0;
	if (e->kind != MEMORY_WRITE) {
		out[n++] = (struct piece){ e, 0, e->length };
		return n;
	}
	for (uint64_t at = 0; at < e->length && n < room; at += UNIT)
		out[n++] = (struct piece){ e, at, MIN(UNIT, e->length - at) };
	return n;
}

/* Applies some of what was not flushed, in some order. */
static void apply_some(struct store *s, const struct record *r, size_t from, size_t to,
		       unsigned *seed)
{
	struct piece pieces[1024];
	size_t n = 0;
	unsigned mode = (unsigned)rand_r(seed) % 4;

	for (size_t i = from; i < to; i++)
		n += pieces_of(&r->events[i], pieces + n, ARRAY_SIZE(pieces) - n - 1);
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
static size_t durable_before(const struct record *r, size_t at)
{
	while (at && r->events[at - 1].kind != MEMORY_FLUSH)
		at--;
	while (at && r->events[at - 1].kind != MEMORY_FLUSH_START)
		at--;
	return at;
}

/* Fails the power again in the middle of opening what a first power cut left. */
static void crash_again(const struct guest *g, struct store *s, size_t at, unsigned *seed)
{
	struct record record = { 0 };
	struct store *recorded = new_store(&record, 0);
	size_t start;

	store_copy(s, recorded);
	start = record.count;
	close_ok(open_ok(g, recorded, at));
	for (size_t k = start; k <= record.count; k++) {
		struct store *again = new_store(NULL, 0);
		size_t durable = MAX(durable_before(&record, k), start);

		store_copy(s, again);
		apply_all(again, &record, start, durable);
		apply_some(again, &record, durable, k, seed);
		verify(g, again, at);
		store_memory_free(again);
	}
	store_memory_free(recorded);
	record_clear(&record);
}

static void crash_everywhere(const struct guest *g, size_t start, unsigned seed)
{
	struct store *durable_store = new_store(NULL, 0);
	size_t applied = 0;

	for (size_t k = start; k <= g->record->count; k++) {
		struct store *s = new_store(NULL, 0);
		size_t durable = MAX(durable_before(g->record, k), start);

		apply_all(durable_store, g->record, applied, durable);
		applied = durable;
		store_copy(durable_store, s);
		apply_some(s, g->record, durable, k, &seed);
		if (!(rand_r(&seed) % 20))
			crash_again(g, s, k, &seed);
		verify(g, s, k);
		store_memory_free(s);
	}
	store_memory_free(durable_store);
}

/* --- the cases --- */

static void guest_run(struct guest *g, struct store *s, unsigned sessions, unsigned steps)
{
	for (unsigned i = 0; i < sessions; i++) {
		g->d = open_ok(g, s, 0);
		for (unsigned n = 0; n < steps; n++)
			guest_step(g);
		while (g->in_flight)
			assert_int_equal(loop_once(loop, -1), 0);
		close_ok(g->d);
		/* Closing is a flush of everything. */
		for (size_t c = 0; c < g->count; c++)
			if (g->changes[c].durable == NEVER)
				g->changes[c].durable = now(g);
	}
}

/* A parent in which every place holds its first value. */
static struct store *parent_new(struct guest *g, const struct vhdx_create_options *o)
{
	struct store *s = new_store(NULL, 0);
	uint8_t b[UNIT];
	struct disk *parent;

	assert_int_equal(vhdx_store_create(s, o, NULL), 0);
	assert_int_equal(vhdx_open(s, &parent, NULL), 0);
	g->parent = parent;
	for (unsigned p = 0; p < PLACES; p++) {
		stamp(b, first_value(g, p));
		assert_int_equal(drive_write(parent, b, UNIT, place_offset(g, p), 0), 0);
	}
	return s;
}

struct shape {
	uint64_t size, stride;
	bool child;
};

static void run_case(const struct shape *shape, unsigned seed, unsigned steps)
{
	struct disk_parent parent = { .id = guid_random(), .relative = (char[]){ "parent.vhdx" } };
	struct vhdx_create_options o = { .size = shape->size, .block_size = (uint32_t)BLOCK };
	struct record record = { 0 };
	struct store *s = new_store(&record, seed), *parent_store = NULL;
	_cleanup_free_ struct guest *g = calloc(1, sizeof(*g));
	struct error err = { 0 };
	size_t start;

	assert_non_null(g);
	g->record = &record;
	g->stride = shape->stride;
	g->seed = seed;
	if (shape->child) {
		parent_store = parent_new(g, &o);
		o.parent = &parent;
	}
	if (vhdx_store_create(s, &o, &err) < 0)
		fail_msg("%s", err.message);
	start = record.count;
	guest_run(g, s, 2, steps);
	crash_everywhere(g, start, seed);
	print_message("%zu changes, %zu crash points\n", g->count, record.count - start + 1);
	store_memory_free(s);
	if (g->parent)
		assert_int_equal(disk_close(g->parent, NULL), 0);
	if (parent_store)
		store_memory_free(parent_store);
	record_clear(&record);
}

static unsigned number(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);

	return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

static void run_rounds(const struct shape *shape, unsigned steps)
{
	unsigned seed = number("PARTITA_CRASH_SEED", 1);

	for (unsigned i = 0; i < number("PARTITA_CRASH_ROUNDS", 1); i++)
		run_case(shape, seed + i, steps);
}

static const struct shape one_page = { 8 * MIB, BLOCK, false };
/* Every block has its entry in another page of the BAT. */
static const struct shape many_pages = { 4 * TIB, 600 * GIB, false };
static const struct shape child_one_page = { 8 * MIB, BLOCK, true };
static const struct shape child_many_pages = { 4 * TIB, 600 * GIB, true };

static void test_one_page(void **state)
{
	(void)state;
	run_rounds(&one_page, 250);
}

static void test_many_pages(void **state)
{
	(void)state;
	run_rounds(&many_pages, 250);
}

/* The log goes round several times. */
static void test_long(void **state)
{
	(void)state;
	run_rounds(&many_pages, 1200);
}

/* Data of the parent never turns into zeros. */
static void test_child_one_page(void **state)
{
	(void)state;
	run_rounds(&child_one_page, 250);
}

static void test_child_many_pages(void **state)
{
	(void)state;
	run_rounds(&child_many_pages, 250);
}

/* --- changes that are not a guest's --- */

static int edit_grow(struct disk *d, struct error *err)
{
	return d->ops->resize(d, 40 * MIB, err);
}

/* The BAT moves: a MiB of it is 128 GiB with blocks of this size. */
static int edit_move_table(struct disk *d, struct error *err)
{
	return d->ops->resize(d, 300 * GIB, err);
}

static int edit_grow_and_shrink(struct disk *d, struct error *err)
{
	int r = d->ops->resize(d, 40 * MIB, err);

	return r < 0 ? r : d->ops->resize(d, BLOCKS * BLOCK + 512, err);
}

static int edit_compact(struct disk *d, struct error *err)
{
	const struct disk_compact_options o = { .zeros = true };

	return d->ops->compact(d, &o, err);
}

static int edit_parent(struct disk *d, struct error *err)
{
	struct disk_parent parent = *d->ops->parent(d);

	parent.relative = (char[]){ "another/place.vhdx" };
	return d->ops->set_parent_ref(d, &parent, err);
}

static const struct {
	const char *name;
	int (*run)(struct disk *d, struct error *err);
	bool child, parentless;
} edits[] = {
	{ "grow", edit_grow, true, true },
	{ "move the table", edit_move_table, true, true },
	{ "grow and shrink", edit_grow_and_shrink, false, true },
	{ "compact", edit_compact, true, true },
	{ "another parent", edit_parent, true, false },
};

/* A guest's session, all of it durable, and then one edit: cuts are in the edit only. */
static void edit_case(const struct shape *shape, unsigned which, unsigned seed)
{
	struct disk_parent parent = { .id = guid_random(), .relative = (char[]){ "parent.vhdx" } };
	struct vhdx_create_options o = { .size = shape->size, .block_size = (uint32_t)BLOCK };
	struct record record = { 0 };
	struct store *s = new_store(&record, seed), *parent_store = NULL;
	_cleanup_free_ struct guest *g = calloc(1, sizeof(*g));
	struct error err = { 0 };
	size_t start;

	assert_non_null(g);
	*g = (struct guest){ .record = &record, .stride = shape->stride, .seed = seed };
	if (shape->child) {
		parent_store = parent_new(g, &o);
		o.parent = &parent;
	}
	assert_int_equal(vhdx_store_create(s, &o, &err), 0);
	guest_run(g, s, 2, 60);
	start = record.count;
	g->d = open_ok(g, s, 0);
	if (edits[which].run(g->d, &err) < 0)
		fail_msg("%s: %s", edits[which].name, err.message);
	close_ok(g->d);
	crash_everywhere(g, start, seed);
	print_message("%s: %zu crash points\n", edits[which].name, record.count - start + 1);
	store_memory_free(s);
	if (g->parent)
		assert_int_equal(disk_close(g->parent, NULL), 0);
	if (parent_store)
		store_memory_free(parent_store);
	record_clear(&record);
}

static void test_edits(void **state)
{
	unsigned seed = number("PARTITA_CRASH_SEED", 1);

	(void)state;
	for (unsigned n = 0; n < 4 * number("PARTITA_CRASH_ROUNDS", 1); n++) {
		for (unsigned i = 0; i < ARRAY_SIZE(edits); i++) {
			if (edits[i].parentless)
				edit_case(&one_page, i, seed + n);
			if (edits[i].child)
				edit_case(&child_one_page, i, seed + n);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_page),
		cmocka_unit_test(test_many_pages),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_child_one_page),
		cmocka_unit_test(test_child_many_pages),
		cmocka_unit_test(test_edits),
	};
	int r;

	if (loop_new(0, &loop, NULL) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(loop);
	return r;
}
