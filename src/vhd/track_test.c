// SPDX-License-Identifier: MIT
/*
 * Tracked changes: against a plain set of granules, under a gate too, through power cuts of the
 * image and its track file at once (crash.h), with the largest disk, and with files that are
 * damaged or another image's. The tie of the image never changes unless a test says so: nothing may
 * depend on an unplanned change of it.
 */
#include "vhd/crash.h"
#include "vhd/disk_drive.h"
#include "vhd/gate.h"
#include "vhd/raw.h"
#include "vhd/track_format.h"
#include "vhd/vhdx.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SHIFT    12u
#define GRANULE  (UINT64_C(1) << SHIFT)
#define SIZE     (5 * MIB) /* five regions */
#define GRANULES (SIZE / GRANULE)
#define POINTS   12u
#define FLIGHT   6u

struct fake_image {
	struct track_image image;
	uint64_t now, modified;
};

static struct fake_image fake;

/* The image's format. */
static int create_raw(struct store *s, uint64_t size, struct error *err)
{
	int r = store_resize(s, size);

	if (r >= 0)
		r = store_sync(s);
	return r < 0 ? error_errno(err, r, "cannot make the image") : 0;
}

static int create_vhdx(struct store *s, uint64_t size, struct error *err)
{
	const struct vhdx_create_options o = { .size = size, .block_size = (uint32_t)MIB };

	return vhdx_store_create(s, &o, err);
}

static const struct crash_format raw = { .piece = 512, .create = create_raw, .open = raw_open };
static const struct crash_format vhdx = {
	.piece = 4096,
	.create = create_vhdx,
	.open = vhdx_open,
};
static const struct crash_format *format = &raw;

static int fake_look(struct track_image *image, bool last, struct track_tie *ret)
{
	(void)image, (void)last;
	*ret = (struct track_tie){ 1, SIZE, fake.modified, 1 };
	return 0;
}

static uint64_t fake_now(struct track_image *image)
{
	(void)image;
	return ++fake.now;
}

static void fake_free(struct track_image *image)
{
	(void)image;
}

static int open_on(struct store *image, struct store *file, bool create, bool read_only,
		   struct disk **ret, struct error *err)
{
	struct track_options o = { .read_only = read_only, .create = create, .shift = SHIFT };
	struct disk *below;
	int r;

	fake.image = (struct track_image){ fake_look, fake_now, fake_free };
	fake_look(&fake.image, false, &o.tie);
	assert_int_equal(format->open(image, &below, NULL), 0);
	r = track_new(below, file, &fake.image, &o, ret, err);
	if (r < 0)
		disk_close(below, NULL);
	return r;
}

static struct disk *open_ok(struct store *image, struct store *file, bool create)
{
	struct error err = { 0 };
	struct disk *d;

	if (open_on(image, file, create, false, &d, &err) < 0)
		fail_msg("%s", err.message);
	return d;
}

static int on_changed(void *context, uint64_t offset, uint64_t length)
{
	bool *changed = context;

	assert_true(length && !((offset | length) % GRANULE) && offset + length <= SIZE);
	for (uint64_t i = offset / GRANULE; i < (offset + length) / GRANULE; i++)
		changed[i] = true;
	return 0;
}

static int ask(struct disk *d, const struct guid *id, bool changed[static GRANULES],
	       struct error *err)
{
	memset(changed, 0, GRANULES);
	return track_query(track_of(d), id, 0, SIZE, on_changed, changed, err);
}

/* --- a session of a guest --- */

struct mark_point {
	struct guid id;
	uint64_t time;
	bool touched[GRANULES]; /* since */
	uint8_t content[SIZE];
};

struct world {
	struct store *image, *file;
	struct crash_record image_record, file_record;
	uint64_t clock;
	struct disk *d, *top; /* top: a gate's, or the same */
	unsigned seed, in_flight, count;
	struct mark_point *points;
	bool may_lose; /* points, by what it does */

	struct gate *gate; /* NULL = none */
	struct gate_freeze freeze;
	bool freezing, frozen;
	unsigned waiting;
	struct stretch {
		uint64_t offset, length;
	} waits[FLIGHT + 1]; /* changes behind the frozen gate */
};

struct op {
	struct disk_request req;
	struct world *w;
	struct iovec iov;
	uint8_t buf[2 * 4096];
};

static void world_start(struct world *w, unsigned seed)
{
	*w = (struct world){ .seed = seed };
	w->image_record.clock = w->file_record.clock = &w->clock;
	w->points = calloc(POINTS, sizeof(*w->points));
	assert_non_null(w->points);
	w->image = crash_store(&w->image_record, seed);
	w->file = crash_store(&w->file_record, seed + 1);
	assert_int_equal(format->create(w->image, SIZE, NULL), 0);
	fake = (struct fake_image){ .modified = 1 };
	w->d = w->top = open_ok(w->image, w->file, true);
}

static void gate_put(struct world *w)
{
	w->top = gate_new(w->d);
	assert_non_null(w->top);
	w->gate = gate_of(w->top);
}

static void world_end(struct world *w)
{
	store_memory_free(w->image);
	store_memory_free(w->file);
	crash_record_clear(&w->image_record);
	crash_record_clear(&w->file_record);
	free(w->points);
}

static void touch(struct world *w, uint64_t offset, uint64_t length)
{
	for (unsigned p = 0; p < w->count; p++)
		for (uint64_t i = offset / GRANULE; i * GRANULE < offset + length; i++)
			w->points[p].touched[i] = true;
}

static void on_op(struct disk_request *req, int result)
{
	struct op *op = container_of(req, struct op, req);

	assert_int_equal(result, 0);
	op->w->in_flight--;
	free(op);
}

static void submit(struct world *w, enum disk_op what, uint64_t offset, uint64_t length)
{
	struct op *op = calloc(1, sizeof(*op));

	assert_non_null(op);
	op->w = w;
	memset(op->buf, rand_r(&w->seed) | 1, sizeof(op->buf));
	op->iov = (struct iovec){ op->buf, length };
	op->req = (struct disk_request){
		.op = what,
		.flags = what == DISK_WRITE && !(rand_r(&w->seed) % 8) ? DISK_FUA : 0,
		.offset = offset,
		.length = length,
		.iov = &op->iov,
		.iovcnt = 1,
		.done = on_op,
	};
	w->in_flight++;
	if (what != DISK_FLUSH && w->freezing)
		w->waits[w->waiting++] = (struct stretch){ offset, length };
	else if (what != DISK_FLUSH)
		touch(w, offset, length);
	disk_submit(w->top, &op->req);
}

static void on_frozen(struct gate_freeze *f, int result)
{
	assert_int_equal(result, 0);
	container_of(f, struct world, freeze)->frozen = true;
}

static void freeze(struct world *w)
{
	w->freeze.frozen = on_frozen;
	w->freezing = true;
	assert_int_equal(gate_freeze(w->gate, &w->freeze), 0);
}

static void freeze_wait(struct world *w)
{
	while (!w->frozen)
		assert_int_equal(loop_once(crash_loop, -1), 0);
}

/* What waited changes the disk now, after points that were made meanwhile. */
static void thaw(struct world *w)
{
	if (!w->freezing)
		return;
	freeze_wait(w);
	while (w->waiting) {
		w->waiting--;
		touch(w, w->waits[w->waiting].offset, w->waits[w->waiting].length);
	}
	w->freezing = w->frozen = false;
	gate_thaw(w->gate);
}

static void settle(struct world *w)
{
	thaw(w);
	while (w->in_flight)
		assert_int_equal(loop_once(crash_loop, -1), 0);
}

/* Of a copy, since reading takes time, in which what is under way goes on. */
static void content_of(struct store *image, uint8_t content[static SIZE])
{
	struct store *copy = crash_store(NULL, 0);
	struct disk *d;

	store_memory_copy(image, copy);
	assert_int_equal(format->open(copy, &d, NULL), 0);
	assert_int_equal(drive_read(d, content, SIZE, 0), 0);
	assert_int_equal(disk_close(d, NULL), 0);
	store_memory_free(copy);
}

static void point(struct world *w)
{
	struct mark_point *p = &w->points[w->count];
	struct error err = { 0 };

	if (w->count == POINTS)
		return;
	if (track_point(track_of(w->d), &p->id, &err) < 0)
		fail_msg("%s", err.message);
	p->time = w->clock;
	content_of(w->image, p->content);
	w->count++;
}

static void step(struct world *w, bool exact)
{
	unsigned what = (unsigned)rand_r(&w->seed) % 32;
	uint64_t n = (1 + (uint64_t)rand_r(&w->seed) % 16) * 512;
	uint64_t at = (uint64_t)rand_r(&w->seed) % ((SIZE - n) / 512) * 512;

	if (what == 0) {
		if (w->freezing)
			freeze_wait(w);
		else if (exact)
			settle(w);
		point(w);
	} else if (what > 28 && w->gate) {
		if (w->freezing)
			thaw(w);
		else
			freeze(w);
	} else if (what < 4) {
		submit(w, DISK_FLUSH, 0, 0);
	} else if (what < 6) {
		submit(w, what == 4 ? DISK_TRIM : DISK_WRITE_ZEROES, at, n);
	} else if (what < 20) {
		submit(w, DISK_WRITE, at, n);
	}
	if (w->waiting > FLIGHT)
		thaw(w);
	if (w->freezing) {
		assert_int_equal(loop_once(crash_loop, 0), 0);
		return;
	}
	while (w->in_flight > FLIGHT || (w->in_flight && !(rand_r(&w->seed) % 3)))
		assert_int_equal(loop_once(crash_loop, -1), 0);
}

static void reopen(struct world *w)
{
	settle(w);
	assert_int_equal(disk_close(w->top, NULL), 0);
	w->d = w->top = open_ok(w->image, w->file, false);
	if (w->gate)
		gate_put(w);
}

/* --- the model --- */

static void check_exact(struct world *w)
{
	bool changed[GRANULES];
	struct error err = { 0 };

	for (unsigned p = 0; p < w->count; p++) {
		if (ask(w->d, &w->points[p].id, changed, &err) < 0)
			fail_msg("%s", err.message);
		assert_memory_equal(changed, w->points[p].touched, sizeof(changed));
	}
}

static void history(unsigned seed, bool gate)
{
	struct world w;

	world_start(&w, seed);
	if (gate)
		gate_put(&w);
	point(&w);
	for (unsigned i = 0; i < 400; i++) {
		step(&w, true);
		if (i % 90 == 89) {
			settle(&w);
			check_exact(&w);
			reopen(&w);
			check_exact(&w);
		}
	}
	reopen(&w);
	assert_int_equal(disk_close(w.top, NULL), 0);
	world_end(&w);
}

static void test_reports_what_was_touched(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 8; seed++)
		history(seed, false);
}

/* What a frozen gate holds back changes nothing before it thaws: points are exact then too. */
static void test_under_a_gate(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 12; seed++)
		history(seed, true);
}

static void test_known_regions_cost_nothing(void **state)
{
	struct world w;
	size_t before;

	(void)state;
	world_start(&w, 3);
	point(&w);
	before = w.file_record.count;
	for (unsigned i = 0; i < 5; i++)
		submit(&w, DISK_WRITE, i * MIB, 4096);
	settle(&w);
	/* One slot for the first write, one for all that came while it was under way. */
	assert_true(w.file_record.count - before <= 6);
	before = w.file_record.count;
	for (unsigned i = 0; i < 200; i++)
		submit(&w, DISK_WRITE, i % 5 * MIB + i * 4096, 4096);
	settle(&w);
	assert_int_equal(w.file_record.count, before);
	assert_int_equal(disk_close(w.d, NULL), 0);
	world_end(&w);
}

/* --- power cuts --- */

static void check_cut(const struct world *w, struct store *image, struct store *file, uint64_t at)
{
	_cleanup_free_ uint8_t *now = malloc(SIZE);
	struct disk *d = open_ok(image, file, false);
	bool changed[GRANULES];
	struct error err = { 0 };

	assert_int_equal(drive_read(track_below(track_of(d)), now, SIZE, 0), 0);
	for (unsigned p = 0; p < w->count && w->points[p].time <= at; p++) {
		int r = ask(d, &w->points[p].id, changed, &err);

		if (r == -ESTALE && w->may_lose)
			continue;
		if (r < 0)
			fail_msg("cut at %llu: %s", (unsigned long long)at, err.message);
		for (uint64_t i = 0; i < GRANULES; i++)
			if (!changed[i] &&
			    memcmp(now + i * GRANULE, w->points[p].content + i * GRANULE, GRANULE))
				fail_msg("cut at %llu: point %u, granule %llu is not reported",
					 (unsigned long long)at, p, (unsigned long long)i);
	}
	assert_int_equal(disk_close(d, NULL), 0);
}

static void cut_everywhere(const struct world *w, uint64_t start)
{
	unsigned seed = w->seed;

	for (uint64_t at = start; at <= w->clock; at++) {
		struct store *image = crash_store(NULL, 0), *file = crash_store(NULL, 0);

		crash_apply(format, image, &w->image_record, 0,
			    crash_events_until(&w->image_record, at), &seed);
		crash_apply(&raw, file, &w->file_record, 0, crash_events_until(&w->file_record, at),
			    &seed);
		check_cut(w, image, file, at);
		store_memory_free(image);
		store_memory_free(file);
	}
}

static void power_cuts(unsigned steps)
{
	unsigned seed = crash_number("PARTITA_CRASH_SEED", 1);

	for (unsigned i = 0; i < crash_number("PARTITA_CRASH_ROUNDS", 3); i++) {
		struct world w;
		uint64_t start;

		world_start(&w, seed + 10 * i);
		point(&w);
		start = w.clock;
		for (unsigned n = 0; n < steps; n++) {
			step(&w, false);
			if (n % (steps / 3) == steps / 3 - 1)
				reopen(&w);
		}
		settle(&w);
		assert_int_equal(disk_close(w.d, NULL), 0);
		cut_everywhere(&w, start);
		print_message("%u points, %llu cuts\n", w.count,
			      (unsigned long long)(w.clock - start + 1));
		world_end(&w);
	}
}

static void test_power_cuts_lose_no_change(void **state)
{
	(void)state;
	power_cuts(240);
}

/* Its log, its table and its new identity are cut too. */
static void test_power_cuts_of_a_vhdx(void **state)
{
	(void)state;
	format = &vhdx;
	power_cuts(90);
	format = &raw;
}

/* --- limits --- */

static void generation_set(struct store *file, uint16_t generation)
{
	_cleanup_free_ struct track_slot *s = malloc(sizeof(*s));
	uint8_t bytes[TRACK_SLOT_SIZE];

	assert_non_null(s);
	for (unsigned n = 0; n < 2; n++) {
		assert_int_equal(store_read(file, bytes, sizeof(bytes), TRACK_SLOT(n)), 0);
		assert_int_equal(track_slot_decode(bytes, s), 0);
		s->generation = generation;
		track_slot_encode(s, bytes);
		assert_int_equal(store_write(file, bytes, sizeof(bytes), TRACK_SLOT(n)), 0);
	}
	assert_int_equal(store_sync(file), 0);
}

/* The points before are lost, with words; later ones are as good as ever; also after power cuts. */
static void test_generations_are_used_up(void **state)
{
	bool changed[GRANULES];
	struct error err = { 0 };
	struct world w;
	uint64_t start;

	(void)state;
	world_start(&w, 5);
	point(&w);
	assert_int_equal(disk_close(w.d, NULL), 0);
	generation_set(w.file, TRACK_GENERATION_MAX - 1);
	w.d = w.top = open_ok(w.image, w.file, false);
	start = w.clock;
	submit(&w, DISK_WRITE, MIB, 4096);
	settle(&w);
	point(&w);
	submit(&w, DISK_WRITE, 2 * MIB, 4096);
	settle(&w);
	check_exact(&w);
	/* the last generation */
	submit(&w, DISK_WRITE, 3 * MIB, 4096);
	point(&w);
	for (unsigned p = 0; p < 2; p++) {
		assert_int_equal(ask(w.d, &w.points[p].id, changed, &err), -ESTALE);
		assert_non_null(strstr(err.message, "too many points since"));
	}
	submit(&w, DISK_WRITE, 4 * MIB, 4096);
	settle(&w);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(ask(w.d, &w.points[2].id, changed, &err), 0);
		assert_false(changed[0] || changed[MIB / GRANULE] || changed[2 * MIB / GRANULE]);
		assert_true(changed[3 * MIB / GRANULE] && changed[4 * MIB / GRANULE]);
		reopen(&w);
	}
	assert_int_equal(disk_close(w.d, NULL), 0);
	w.may_lose = true;
	cut_everywhere(&w, start);
	world_end(&w);
}

#define LARGEST     (64 * TIB)
#define LARGE_WRITE 16u
#define LARGE_FILE  (9 * MIB)  /* of the track */
#define LARGE_HEAP  (12 * MIB) /* of the disk and its track, without what their files hold */

struct large {
	uint64_t granule, offsets[LARGE_WRITE];
	unsigned found;
};

static int on_large_changed(void *context, uint64_t offset, uint64_t length)
{
	struct large *l = context;

	for (unsigned i = 0; i < LARGE_WRITE; i++)
		l->found += l->offsets[i] >= offset && l->offsets[i] < offset + length;
	assert_true(length <= LARGE_WRITE * l->granule);
	return 0;
}

static size_t heap(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static struct disk *large_open(struct store *image, struct store *file, bool create)
{
	struct track_options o = { .create = create };
	struct disk *below, *d;
	struct error err = { 0 };

	fake_look(&fake.image, false, &o.tie);
	assert_int_equal(vhdx_open(image, &below, NULL), 0);
	if (track_new(below, file, &fake.image, &o, &d, &err) < 0)
		fail_msg("%s", err.message);
	return d;
}

static void large_check(struct disk *d, const struct guid *id, struct large *l)
{
	struct error err = { 0 };

	l->found = 0;
	assert_int_equal(track_query(track_of(d), id, 0, LARGEST, on_large_changed, l, &err), 0);
	assert_int_equal(l->found, LARGE_WRITE);
}

static void test_the_largest_disk_takes_little_memory(void **state)
{
	const struct store_memory_options io = { .size_max = 8 * GIB, .bytes_max = 64 * MIB };
	const struct store_memory_options fo = { .size_max = LARGE_FILE, .bytes_max = LARGE_FILE };
	const struct vhdx_create_options xo = { .size = LARGEST, .block_size = 256 * MIB };
	struct store *image = store_memory_new(crash_loop, &io);
	struct store *file = store_memory_new(crash_loop, &fo);
	struct large l = { 0 };
	unsigned seed = 9;
	uint8_t b[4096] = { 1 };
	size_t before;
	struct error err = { 0 };
	struct disk *d;
	struct guid id;

	(void)state;
	fake = (struct fake_image){ { fake_look, fake_now, fake_free }, .modified = 1 };
	assert_int_equal(vhdx_store_create(image, &xo, &err), 0);
	before = heap();
	d = large_open(image, file, true);
	l.granule = track_granularity(track_of(d));
	assert_int_equal(l.granule, 16 * MIB);
	assert_int_equal(track_point(track_of(d), &id, &err), 0);
	for (unsigned i = 0; i < LARGE_WRITE; i++) {
		l.offsets[i] = (uint64_t)rand_r(&seed) * 32768;
		assert_int_equal(drive_write(d, b, sizeof(b), l.offsets[i], 0), 0);
	}
	large_check(d, &id, &l);
	assert_true(heap() <=
		    before + LARGE_HEAP + store_memory_bytes(image) + store_memory_bytes(file));
	assert_int_equal(disk_close(d, NULL), 0);
	d = large_open(image, file, false);
	large_check(d, &id, &l);
	assert_int_equal(disk_close(d, NULL), 0);
	store_memory_free(image);
	store_memory_free(file);
}

/* --- what is wrong --- */

static void expect(struct world *w, bool read_only, int code, const char *words)
{
	struct error err = { 0 };
	struct disk *d;

	assert_int_equal(open_on(w->image, w->file, false, read_only, &d, &err), code);
	if (!strstr(err.message, words))
		fail_msg("\"%s\" does not say \"%s\"", err.message, words);
}

static void poke(struct world *w, uint64_t at)
{
	uint8_t b;

	assert_int_equal(store_read(w->file, &b, 1, at), 0);
	b ^= 0x55;
	assert_int_equal(store_write(w->file, &b, 1, at), 0);
}

static void test_damage(void **state)
{
	bool changed[GRANULES];
	struct error err = { 0 };
	struct world w;

	(void)state;
	world_start(&w, 1);
	point(&w);
	assert_int_equal(disk_close(w.d, NULL), 0);
	/* One slot: the other one is there, and says that everything of its regions changed. */
	poke(&w, TRACK_SLOT(0) + 100);
	w.d = open_ok(w.image, w.file, false);
	assert_int_equal(disk_close(w.d, NULL), 0);
	/* A page: all that it has is reported. */
	poke(&w, TRACK_PAGE(0) + 1000);
	w.d = open_ok(w.image, w.file, false);
	assert_int_equal(ask(w.d, &w.points[0].id, changed, &err), 0);
	for (unsigned i = 0; i < GRANULES; i++)
		assert_true(changed[i]);
	assert_int_equal(disk_close(w.d, NULL), 0);
	/* Both slots. */
	poke(&w, TRACK_SLOT(0) + 100);
	poke(&w, TRACK_SLOT(1) + 100);
	expect(&w, true, -EBADMSG, "damaged");
	w.d = open_ok(w.image, w.file, false);
	assert_int_equal(ask(w.d, &w.points[0].id, changed, &err), -ENOENT);
	assert_non_null(strstr(err.message, "everything may have changed"));
	assert_int_equal(disk_close(w.d, NULL), 0);
	/* No slots at all. */
	poke(&w, TRACK_SLOT(0));
	poke(&w, TRACK_SLOT(1));
	expect(&w, false, -EINVAL, "no track file");
	assert_int_equal(store_resize(w.file, 0), 0);
	expect(&w, false, -EINVAL, "no track file");
	world_end(&w);
}

static void test_image_changed_elsewhere(void **state)
{
	bool changed[GRANULES];
	struct error err = { 0 };
	struct world w;

	(void)state;
	world_start(&w, 1);
	point(&w);
	assert_int_equal(disk_close(w.d, NULL), 0);
	fake.modified++;
	w.d = open_ok(w.image, w.file, false);
	assert_int_equal(ask(w.d, &w.points[0].id, changed, &err), -ESTALE);
	assert_non_null(strstr(err.message, "everything may have changed"));
	/* A new point is good. */
	point(&w);
	assert_int_equal(ask(w.d, &w.points[1].id, changed, &err), 0);
	assert_int_equal(disk_close(w.d, NULL), 0);
	w.d = open_ok(w.image, w.file, false);
	assert_int_equal(ask(w.d, &w.points[0].id, changed, &err), -ESTALE);
	assert_int_equal(ask(w.d, &w.points[1].id, changed, &err), 0);
	assert_int_equal(disk_close(w.d, NULL), 0);
	world_end(&w);
}

/* After a crash a raw image has only its time of change: later than the lease is somebody else. */
static void test_image_changed_after_a_crash(void **state)
{
	struct store *file = crash_store(NULL, 0);
	bool changed[GRANULES];
	struct error err = { 0 };
	struct world w;
	struct disk *d;

	(void)state;
	world_start(&w, 1);
	point(&w);
	store_memory_copy(w.file, file);
	fake.modified = fake.now + UINT64_C(100000000000);
	d = open_ok(w.image, file, false);
	assert_int_equal(ask(d, &w.points[0].id, changed, &err), 0);
	assert_int_equal(disk_close(d, NULL), 0);
	store_memory_free(file);
	file = crash_store(NULL, 0);
	store_memory_copy(w.file, file);
	fake.modified = fake.now + UINT64_C(200000000000);
	d = open_ok(w.image, file, false);
	assert_int_equal(ask(d, &w.points[0].id, changed, &err), -ESTALE);
	assert_int_equal(disk_close(d, NULL), 0);
	store_memory_free(file);
	assert_int_equal(disk_close(w.d, NULL), 0);
	world_end(&w);
}

/* A write does not go down before it is noted; when that works again, so do writes. */
static void test_full_file_system(void **state)
{
	struct error err = { 0 };
	uint8_t b[4096] = { 1 }, got[4096];
	struct guid id;
	struct world w;

	(void)state;
	world_start(&w, 1);
	point(&w);
	store_memory_fail_writes(w.file, 1, -ENOSPC);
	assert_int_equal(drive_write(w.d, b, sizeof(b), MIB, 0), -ENOSPC);
	assert_int_equal(store_read(w.image, got, sizeof(got), MIB), 0);
	assert_true(got[0] == 0);
	assert_int_equal(drive_write(w.d, b, sizeof(b), MIB, 0), 0);
	store_memory_fail_writes(w.file, 1, -ENOSPC);
	assert_int_equal(track_point(track_of(w.d), &id, &err), -ENOSPC);
	assert_non_null(strstr(err.message, "No space left"));
	assert_int_equal(drive_write(w.d, b, sizeof(b), 2 * MIB, 0), 0);
	for (unsigned i = 1; i < TRACK_POINTS_MAX; i++)
		assert_int_equal(track_point(track_of(w.d), &id, &err), 0);
	assert_int_equal(track_point(track_of(w.d), &id, &err), -ENOSPC);
	assert_non_null(strstr(err.message, "drop"));
	assert_int_equal(track_drop(track_of(w.d), &id, &err), 0);
	assert_int_equal(disk_close(w.d, NULL), 0);
	world_end(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reports_what_was_touched),
		cmocka_unit_test(test_known_regions_cost_nothing),
		cmocka_unit_test(test_under_a_gate),
		cmocka_unit_test(test_power_cuts_lose_no_change),
		cmocka_unit_test(test_power_cuts_of_a_vhdx),
		cmocka_unit_test(test_generations_are_used_up),
		cmocka_unit_test(test_the_largest_disk_takes_little_memory),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_image_changed_elsewhere),
		cmocka_unit_test(test_image_changed_after_a_crash),
		cmocka_unit_test(test_full_file_system),
	};
	int r;

	if (loop_new(0, &crash_loop, NULL) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(crash_loop);
	return r;
}
