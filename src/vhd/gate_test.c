// SPDX-License-Identifier: MIT
/*
 * Merging under a guest that writes everywhere: the result is what a plain array says, the parent
 * is written little more than once, changes and the copy keep out of each other's way, and whatever
 * fails leaves the guest alone. Between gate and images, and between these, stand spies: layers
 * that count requests, hold them back, and let them fail.
 */
#include "vhd/gate.h"

#include "lib/cleanup.h"
#include "vhd/chain.h"
#include "vhd/disk_drive.h"
#include "vhd/disk_model.h"
#include "vhd/merge.h"
#include "vhd/store_memory.h"
#include "vhd/vhd.h"
#include "vhd/vhdx.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SIZE  (8 * MIB)
#define BLOCK MIB

static struct loop *loop;

/* --- spies --- */

struct spy {
	struct disk disk;
	struct disk *below;
	uint64_t requests, changed; /* bytes of changes */
	bool unflushed;             /* something was changed since the last flush */
	unsigned fail_after;        /* changes; 0 = never */
	bool fail_flush;
	int error;
	uint64_t hold, hold_end; /* changes in this range wait */
	struct list held, failed;
	struct loop_task task;
};

static struct spy *spy_of(struct disk *disk)
{
	return container_of(disk, struct spy, disk);
}

static void run_failed(struct loop_task *t)
{
	struct spy *s = container_of(t, struct spy, task);

	while (!list_empty(&s->failed)) {
		struct disk_request *req = list_first(&s->failed, struct disk_request, node);

		list_remove(&req->node);
		req->done(req, s->error);
	}
}

static void spy_submit(struct disk *disk, struct disk_request *req)
{
	struct spy *s = spy_of(disk);
	bool changes = req->op != DISK_READ && req->op != DISK_FLUSH;

	s->requests++;
	if (req->op == DISK_FLUSH)
		s->unflushed = false;
	if (changes) {
		s->changed += req->length;
		s->unflushed = true;
	}
	if ((changes && s->fail_after && !--s->fail_after) ||
	    (req->op == DISK_FLUSH && s->fail_flush)) {
		list_append(&s->failed, &req->node);
		loop_defer(loop, &s->task);
	} else if (changes && req->offset < s->hold_end && s->hold < req->offset + req->length) {
		list_append(&s->held, &req->node);
	} else {
		disk_submit(s->below, req);
	}
}

static void spy_release(struct spy *s)
{
	s->hold_end = 0;
	while (!list_empty(&s->held)) {
		struct disk_request *req = list_first(&s->held, struct disk_request, node);

		list_remove(&req->node);
		disk_submit(s->below, req);
	}
}

static int spy_held(struct disk *disk, uint64_t offset, enum disk_held *ret_held,
		    uint64_t *ret_length)
{
	struct disk *below = spy_of(disk)->below;

	return below->ops->held(below, offset, ret_held, ret_length);
}

static void spy_set_parent(struct disk *disk, struct disk *parent)
{
	struct disk *below = spy_of(disk)->below;

	below->ops->set_parent(below, parent);
	disk->below = parent;
}

static int spy_close(struct disk *disk, struct error *err)
{
	struct spy *s = spy_of(disk);

	assert_true(list_empty(&s->held) && list_empty(&s->failed));
	loop_cancel(loop, &s->task);
	return disk_close(s->below, err);
}

static const struct disk_ops spy_ops = {
	.name = "spy",
	.submit = spy_submit,
	.held = spy_held,
	.set_parent = spy_set_parent,
	.close = spy_close,
};

static void spy_init(struct spy *s, struct disk *below)
{
	*s = (struct spy){
		.disk = { .ops = &spy_ops, .loop = loop, .geometry = below->geometry },
		.below = below,
	};
	list_init(&s->held);
	list_init(&s->failed);
	loop_task_init(&s->task, run_failed);
}

/* --- the bed --- */

struct bed {
	bool vhd;
	struct store *stores[2]; /* of child and parent */
	struct spy top, parent;
	struct gate *gate;
	struct model m;
	struct gate_merge merge;
	bool copied, done;
	uint64_t written; /* to the parent until the switch */
	int result;
	struct disk *merged;
};

static struct disk *store_open(struct bed *b, struct store *s)
{
	struct error err = { 0 };
	struct disk *d = NULL;

	if ((b->vhd ? vhd_open : vhdx_open)(s, &d, &err) < 0)
		fail_msg("%s", err.message);
	return d;
}

static void image_create(struct bed *b, struct store *s, const struct disk_parent *ref)
{
	const struct vhdx_create_options xo = { .size = SIZE, .block_size = BLOCK, .parent = ref };
	const struct vhd_create_options vo = {
		.size = SIZE,
		.block_size = BLOCK,
		.kind = ref ? VHD_DIFFERENCING : VHD_DYNAMIC,
		.relative = ref ? ref->relative : NULL,
	};

	assert_int_equal(b->vhd ? vhd_store_create(s, &vo, NULL) : vhdx_store_create(s, &xo, NULL),
			 0);
}

static void on_copied(struct gate_merge *m)
{
	struct bed *b = container_of(m, struct bed, merge);

	/* All that was answered is durable, in both. */
	assert_false(b->parent.unflushed || b->top.unflushed);
	assert_true(gate_is_frozen(b->gate));
	b->copied = true;
	b->written = b->parent.changed;
	b->parent.fail_after = 0;
	gate_merge_finish(m, 0);
}

static void on_merged(struct gate_merge *m, int result, struct disk *merged)
{
	struct bed *b = container_of(m, struct bed, merge);

	b->done = true;
	b->result = result;
	b->merged = merged;
}

static void steps(struct bed *b, unsigned n)
{
	while (n--)
		model_step(&b->m, BLOCK);
}

/* A parent full of data, holes and zeros, and a child that holds nothing. */
static struct bed *bed_fresh(bool vhd, unsigned seed)
{
	const struct disk_parent ref = { .id = { { 1 } }, .relative = (char[]){ "parent" } };
	const struct store_memory_options so = { .size_max = 32 * MIB,
						 .bytes_max = 32 * MIB,
						 .shuffle = seed };
	struct bed *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	b->vhd = vhd;
	b->merge = (struct gate_merge){ .done = on_merged, .copied = on_copied };
	b->m = (struct model){ .size = SIZE, .sector = 512, .seed = seed };
	b->m.expect = calloc(1, SIZE);
	for (unsigned i = 0; i < 2; i++) {
		b->stores[i] = store_memory_new(loop, &so);
		image_create(b, b->stores[i], i ? NULL : &ref);
	}
	b->m.d = store_open(b, b->stores[1]);
	steps(b, 200);
	model_settle(&b->m);
	spy_init(&b->parent, b->m.d);
	spy_init(&b->top, store_open(b, b->stores[0]));
	spy_set_parent(&b->top.disk, &b->parent.disk);
	b->m.d = gate_new(&b->top.disk);
	b->gate = gate_of(b->m.d);
	return b;
}

/* The child too is full of them. Nothing is under way. */
static struct bed *bed_new(bool vhd, unsigned seed)
{
	struct bed *b = bed_fresh(vhd, seed);

	steps(b, 300);
	model_settle(&b->m);
	return b;
}

static void merge_begin(struct bed *b)
{
	struct error err = { 0 };

	b->done = b->copied = false;
	b->parent.changed = b->top.changed = 0;
	if (gate_merge(b->gate, &b->merge, &err) < 0)
		fail_msg("%s", err.message);
}

/* The guest goes on meanwhile. */
static void merge_wait(struct bed *b)
{
	while (!b->done)
		steps(b, 1);
}

/* Ends a merge that went well, and compares with what the parent has by itself. */
static void bed_free(struct bed *b)
{
	assert_int_equal(b->result, 0);
	assert_true(b->copied);
	model_settle(&b->m);
	model_compare(&b->m);
	assert_ptr_equal(gate_below(b->gate), &b->parent.disk);
	assert_int_equal(disk_close(b->m.d, NULL), 0);
	assert_int_equal(disk_close(b->merged, NULL), 0);
	b->m.d = store_open(b, b->stores[1]);
	model_compare(&b->m);
	assert_int_equal(disk_close(b->m.d, NULL), 0);
	for (unsigned i = 0; i < 2; i++)
		store_memory_free(b->stores[i]);
	free(b->m.expect);
	free(b);
}

/* --- under load --- */

static void test_one_pass_under_load(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed < 20; seed++) {
		struct bed *b = bed_new(seed % 2, seed);

		merge_begin(b);
		merge_wait(b);
		/* once what was there, and once what the guest changed */
		assert_true(b->written <= SIZE + b->top.changed);
		steps(b, 100);
		bed_free(b);
	}
}

/* Whatever write of the parent fails: the guest sees nothing of it, and it can be begun again. */
static void test_the_parent_fails(void **state)
{
	(void)state;
	for (unsigned n = 1; n < 40; n++) {
		struct bed *b = bed_new(n % 2, n);

		b->parent.fail_after = n;
		b->parent.error = -ENOSPC;
		merge_begin(b);
		merge_wait(b);
		if (b->result < 0) {
			assert_int_equal(b->result, -ENOSPC);
			assert_null(b->merged);
			assert_false(gate_is_frozen(b->gate));
			steps(b, 50);
			model_settle(&b->m);
			model_compare(&b->m);
			merge_begin(b);
			merge_wait(b);
		}
		bed_free(b);
	}
}

static void test_the_last_flush_fails(void **state)
{
	struct bed *b = bed_new(false, 2);

	(void)state;
	b->parent.fail_flush = true;
	b->parent.error = -EIO;
	merge_begin(b);
	merge_wait(b);
	assert_int_equal(b->result, -EIO);
	assert_false(b->copied || gate_is_frozen(b->gate));
	model_settle(&b->m);
	model_compare(&b->m);
	b->parent.fail_flush = false;
	merge_begin(b);
	merge_wait(b);
	bed_free(b);
}

static void test_cancel(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 30; n++) {
		struct bed *b = bed_new(n % 2, n + 1);

		merge_begin(b);
		steps(b, 4 * n);
		if (!b->done)
			gate_merge_cancel(&b->merge);
		merge_wait(b);
		if (b->result < 0) {
			assert_int_equal(b->result, -ECANCELED);
			model_settle(&b->m);
			model_compare(&b->m);
			merge_begin(b);
			merge_wait(b);
		}
		bed_free(b);
	}
}

struct freezing {
	struct gate_freeze freeze;
	bool done;
};

static void on_frozen(struct gate_freeze *f, int result)
{
	assert_int_equal(result, 0);
	container_of(f, struct freezing, freeze)->done = true;
}

/* While somebody holds the gate both images stand still. */
static void test_freezes(void **state)
{
	(void)state;
	for (unsigned n = 0; n < 20; n++) {
		struct freezing f = { .freeze.frozen = on_frozen };
		struct bed *b = bed_new(n % 2, n + 1);
		uint64_t before;

		merge_begin(b);
		steps(b, 3 * n);
		if (gate_freeze(b->gate, &f.freeze) >= 0) {
			while (!f.done)
				assert_int_equal(loop_once(loop, -1), 0);
			before = b->top.requests + b->parent.requests;
			for (unsigned i = 0; i < 50; i++)
				assert_int_equal(loop_once(loop, 0), 0);
			assert_int_equal(b->top.requests + b->parent.requests, before);
			gate_thaw(b->gate);
		}
		merge_wait(b);
		bed_free(b);
	}
}

/* --- one change --- */

struct single {
	struct disk_request req;
	struct iovec iov;
	uint8_t buf[4096];
	bool done;
	int result;
};

static void on_single(struct disk_request *req, int result)
{
	struct single *s = container_of(req, struct single, req);

	s->done = true;
	s->result = result;
}

static void single_write(struct bed *b, struct single *s, uint64_t offset)
{
	memset(s, 0, sizeof(*s));
	memset(s->buf, 0xd7, sizeof(s->buf));
	s->iov = (struct iovec){ s->buf, sizeof(s->buf) };
	s->req = (struct disk_request){
		.op = DISK_WRITE,
		.offset = offset,
		.length = sizeof(s->buf),
		.iov = &s->iov,
		.iovcnt = 1,
		.done = on_single,
	};
	disk_submit(b->m.d, &s->req);
}

static void turns(unsigned n)
{
	while (n--)
		assert_int_equal(loop_once(loop, 1), 0);
}

/* All of the image is the child's own. */
static void fill(struct bed *b)
{
	for (uint64_t at = 0; at < SIZE; at += MIB) {
		memset(b->m.expect + at, 0x11 + (int)(at / MIB), MIB);
		assert_int_equal(drive_write(b->m.d, b->m.expect + at, MIB, at, 0), 0);
	}
}

/* The copy finds a write under way: it waits, and takes what was written. */
static void test_the_copy_waits(void **state)
{
	struct bed *b = bed_new(false, 3);
	const uint64_t place = 3 * MIB;
	struct single s;

	(void)state;
	fill(b);
	b->top.hold = place;
	b->top.hold_end = place + 1;
	b->parent.hold = place;
	b->parent.hold_end = place + 1;
	merge_begin(b);
	single_write(b, &s, place);
	turns(50);
	assert_false(s.done || b->done);
	assert_true(list_empty(&b->parent.held));
	assert_false(list_empty(&b->top.held));
	spy_release(&b->parent);
	spy_release(&b->top);
	while (!b->done)
		turns(1);
	assert_true(s.done && !s.result);
	memset(b->m.expect + place, 0xd7, sizeof(s.buf));
	bed_free(b);
}

/* The same where the image holds nothing yet. */
static void test_the_copy_skips_nothing(void **state)
{
	(void)state;
	for (unsigned vhd = 0; vhd < 2; vhd++) {
		struct bed *b = bed_fresh(vhd, 8);
		const uint64_t place = 3 * MIB;
		struct single s;

		b->top.hold = place;
		b->top.hold_end = place + 1;
		merge_begin(b);
		single_write(b, &s, place);
		turns(20);
		assert_false(s.done || b->done);
		spy_release(&b->top);
		while (!b->done)
			turns(1);
		assert_true(s.done && !s.result);
		memset(b->m.expect + place, 0xd7, sizeof(s.buf));
		bed_free(b);
	}
}

/* A write finds the copy at its place: it waits, others do not, and it is the last word. */
static void test_the_guest_waits(void **state)
{
	struct bed *b = bed_new(false, 4);
	const uint64_t place = 3 * MIB, before = MIB, behind = 7 * MIB;
	struct single s, first, last;
	uint64_t requests;

	(void)state;
	fill(b);
	b->parent.hold = place;
	b->parent.hold_end = place + 1;
	merge_begin(b);
	while (list_empty(&b->parent.held))
		turns(1);
	turns(20);
	requests = b->top.requests;
	single_write(b, &s, place);
	turns(20);
	assert_int_equal(b->top.requests, requests);
	single_write(b, &first, before);
	single_write(b, &last, behind);
	turns(20);
	assert_true(first.done && last.done && !s.done);
	spy_release(&b->parent);
	while (!b->done)
		turns(1);
	assert_true(s.done && !s.result);
	memset(b->m.expect + place, 0xd7, sizeof(s.buf));
	memset(b->m.expect + before, 0xd7, sizeof(s.buf));
	memset(b->m.expect + behind, 0xd7, sizeof(s.buf));
	bed_free(b);
}

/*
 * A write that the image refuses is the guest's affair. The parent may have taken it: it gets again
 * what the image shows.
 */
static void test_the_image_fails(void **state)
{
	struct bed *b = bed_new(false, 5);
	struct single s;

	(void)state;
	fill(b);
	/* all but the last piece is copied */
	b->parent.hold = SIZE - 1;
	b->parent.hold_end = SIZE;
	merge_begin(b);
	while (list_empty(&b->parent.held))
		turns(1);
	turns(20);
	b->top.fail_after = 1;
	b->top.error = -EIO;
	single_write(b, &s, MIB);
	while (!s.done)
		turns(1);
	assert_int_equal(s.result, -EIO);
	spy_release(&b->parent);
	while (!b->done)
		turns(1);
	bed_free(b);
}

#define TRIMS 6u

struct trimmer {
	struct bed *b;
	struct disk_request reqs[TRIMS];
	unsigned busy;
};

static void on_trimmed(struct disk_request *req, int result)
{
	struct trimmer *t = req->layer;

	assert_int_equal(result, 0);
	t->busy--;
	if (t->b->done)
		return;
	req->layer = t;
	t->busy++;
	disk_submit(t->b->m.d, req);
}

/* Ranges that are copied again and again do not keep the pass from its end. */
static void test_trims_all_the_time(void **state)
{
	struct bed *b = bed_new(false, 9);
	struct trimmer t = { .b = b };

	(void)state;
	fill(b);
	merge_begin(b);
	for (unsigned i = 0; i < TRIMS; i++) {
		t.reqs[i] = (struct disk_request){ .op = DISK_TRIM,
						   .offset = i * 4096,
						   .length = 4096,
						   .done = on_trimmed,
						   .layer = &t };
		t.busy++;
		disk_submit(b->m.d, &t.reqs[i]);
	}
	while (!b->done || t.busy)
		turns(1);
	assert_int_equal(drive_read(b->m.d, b->m.expect, MIB, 0), 0);
	bed_free(b);
}

static unsigned held_count(const struct spy *s)
{
	unsigned n = 0;

	list_foreach(it, &s->held) n++;
	return n;
}

/*
 * A guest further up, which sends nothing through this gate: while it has requests under way one
 * piece is copied at a time, and its freezes wait for the copy.
 */
static void test_a_guest_further_up(void **state)
{
	struct bed *b = bed_new(false, 6);
	struct store *store =
		store_memory_new(loop, &(struct store_memory_options){ .size_max = 32 * MIB,
								       .bytes_max = MIB * 32 });
	struct freezing f = { .freeze.frozen = on_frozen };
	struct spy spy;
	struct disk *guest;
	struct single s;

	(void)state;
	fill(b);
	image_create(b, store, NULL);
	spy_init(&spy, store_open(b, store));
	guest = gate_new(&spy.disk);
	b->merge.guest = gate_of(guest);
	b->parent.hold_end = SIZE;
	merge_begin(b);
	turns(20);
	assert_int_equal(held_count(&b->parent), 4);
	gate_merge_cancel(&b->merge);
	spy_release(&b->parent);
	while (!b->done)
		turns(1);
	/* again, and it is not idle */
	spy.hold_end = SIZE;
	single_write(&(struct bed){ .m.d = guest }, &s, 0);
	b->parent.hold_end = SIZE;
	merge_begin(b);
	turns(20);
	assert_int_equal(held_count(&b->parent), 1);
	assert_int_equal(gate_freeze(gate_of(guest), &f.freeze), 0);
	spy_release(&spy);
	turns(20);
	assert_true(s.done && !f.done);
	spy_release(&b->parent);
	turns(20);
	assert_true(f.done && !b->done);
	gate_thaw(gate_of(guest));
	while (!b->done)
		turns(1);
	assert_int_equal(disk_close(guest, NULL), 0);
	store_memory_free(store);
	bed_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_pass_under_load),
		cmocka_unit_test(test_the_parent_fails),
		cmocka_unit_test(test_the_last_flush_fails),
		cmocka_unit_test(test_cancel),
		cmocka_unit_test(test_freezes),
		cmocka_unit_test(test_the_copy_waits),
		cmocka_unit_test(test_the_copy_skips_nothing),
		cmocka_unit_test(test_the_guest_waits),
		cmocka_unit_test(test_the_image_fails),
		cmocka_unit_test(test_trims_all_the_time),
		cmocka_unit_test(test_a_guest_further_up),
	};
	int r;

	if (loop_new(0, &loop, NULL) < 0)
		return 1;
	cmocka_set_test_filter(getenv("PARTITA_TEST"));
	r = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(loop);
	return r;
}
