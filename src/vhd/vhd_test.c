// SPDX-License-Identifier: MIT
/*
 * VHD images against a plain array: random operations on every kind, chains of three included,
 * reopening and resizing in between; a disk that is full, and one that fails; the largest images;
 * and parents.
 */
#include "vhd/disk_drive.h"
#include "vhd/disk_model.h"
#include "vhd/vhd_internal.h"
#include "vhd/vhd_testing.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void resize_ok(struct disk *d, uint64_t size)
{
	struct error err = { 0 };

	if (d->ops->resize(d, size, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(d->geometry.size, size);
}

/* --- against a model --- */

#define LAYERS_MAX 3

struct stack {
	struct model m;
	struct store *stores[LAYERS_MAX]; /* the lowest first */
	unsigned layers;
};

static void stack_open(struct stack *t)
{
	struct disk *below = NULL;

	for (unsigned i = 0; i < t->layers; i++) {
		t->m.d = vhdtest_open_ok(t->stores[i]);
		if (below)
			t->m.d->ops->set_parent(t->m.d, below);
		below = t->m.d;
	}
	assert_int_equal(t->m.d->geometry.size, t->m.size);
}

/* Extents must say zeros only where there are zeros. */
static void model_extents(struct model *m)
{
	for (uint64_t at = 0, n; at < m->size; at += n) {
		enum disk_extent_kind kind;

		assert_int_equal(m->d->ops->extent(m->d, at, &kind, &n), 0);
		assert_true(n > 0 && n <= m->size - at && n % 512 == 0);
		for (uint64_t i = 0; kind != DISK_EXTENT_DATA && i < n; i++)
			assert_int_equal(m->expect[at + i], 0);
	}
}

static void stack_rounds(struct stack *t, uint64_t block, unsigned rounds)
{
	for (unsigned i = 0; i < rounds; i++) {
		stack_open(t);
		for (int n = 0; n < 300; n++)
			model_step(&t->m, block);
		model_settle(&t->m);
		model_compare(&t->m);
		model_extents(&t->m);
		vhdtest_close_ok(t->m.d);
		for (unsigned k = 0; k < t->layers; k++)
			assert_int_equal(vhdtest_damage_in(t->stores[k]), 0);
	}
	stack_open(t);
	model_compare(&t->m);
	vhdtest_close_ok(t->m.d);
}

static void stack_end(struct stack *t)
{
	free(t->m.expect);
	for (unsigned i = 0; i < t->layers; i++)
		store_memory_free(t->stores[i]);
}

static void model_run(const struct vhd_create_options *o, unsigned seed, unsigned rounds)
{
	struct stack t = { .m = { .size = o->size, .sector = 512, .seed = seed }, .layers = 1 };

	t.stores[0] = vhdtest_new_store(o->size * 2 + 256 * MIB, seed);
	vhdtest_create_ok(t.stores[0], o);
	t.m.expect = calloc(1, o->size);
	assert_non_null(t.m.expect);
	stack_rounds(&t, o->block_size, rounds);
	stack_end(&t);
}

static void test_model(void **state)
{
	static const struct vhd_create_options cases[] = {
		{ .size = 8 * MIB, .block_size = 512 * KIB, .kind = VHD_DYNAMIC },
		{ .size = 9 * MIB + 512, .block_size = 2 * MIB, .kind = VHD_DYNAMIC },
		{ .size = 9 * MIB + 4096, .block_size = 4 * MIB, .kind = VHD_DYNAMIC },
		{ .size = 5 * MIB, .block_size = 32 * MIB, .kind = VHD_DYNAMIC },
		{ .size = 6 * MIB + 512, .block_size = 2 * MIB, .kind = VHD_FIXED },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		model_run(&cases[i], i + 1, 6);
}

static void child_add(struct stack *t, uint64_t size, uint32_t block_size)
{
	struct vhd_create_options o = {
		.size = size,
		.block_size = block_size,
		.kind = VHD_DIFFERENCING,
		.relative = ".\\parent.vhd",
	};
	uint8_t *expect = calloc(1, size);

	assert_non_null(expect);
	memcpy(expect, t->m.expect, MIN(size, t->m.size));
	free(t->m.expect);
	t->m.expect = expect;
	t->m.size = size;
	t->stores[t->layers] = vhdtest_new_store(size * 3 + 64 * MIB, t->m.seed);
	vhdtest_create_ok(t->stores[t->layers++], &o);
}

static void chain_run(const uint64_t sizes[3], uint32_t block_size, unsigned seed)
{
	const struct vhd_create_options base = {
		.size = sizes[0],
		.block_size = 2 * MIB,
		.kind = seed % 2 ? VHD_DYNAMIC : VHD_FIXED,
	};
	struct stack t = { .m = { .size = sizes[0], .sector = 512, .seed = seed }, .layers = 1 };

	t.stores[0] = vhdtest_new_store(sizes[0] * 2 + 64 * MIB, seed);
	vhdtest_create_ok(t.stores[0], &base);
	t.m.expect = calloc(1, sizes[0]);
	assert_non_null(t.m.expect);
	stack_rounds(&t, 2 * MIB, 1);
	child_add(&t, sizes[1], block_size);
	stack_rounds(&t, block_size, 2);
	child_add(&t, sizes[2], 2 * MIB);
	stack_rounds(&t, 2 * MIB, 3);
	stack_end(&t);
}

static void test_chains(void **state)
{
	static const uint64_t same[] = { 9 * MIB + 512, 9 * MIB + 512, 9 * MIB + 512 };
	static const uint64_t up[] = { 3 * MIB + 512, 5 * MIB, 9 * MIB };
	static const uint64_t down[] = { 9 * MIB, 6 * MIB, 3 * MIB + 1024 };

	(void)state;
	for (unsigned seed = 1; seed <= 2; seed++) {
		chain_run(same, 512 * KIB, seed);
		chain_run(up, 2 * MIB, seed);
		chain_run(down, 8 * MIB, seed);
	}
}

/* --- sizes that change --- */

static void model_resize(struct model *m, uint64_t size)
{
	uint8_t *expect = calloc(1, size);

	assert_non_null(expect);
	memcpy(expect, m->expect, MIN(size, m->size));
	free(m->expect);
	m->expect = expect;
	m->size = size;
	resize_ok(m->d, size);
}

static void resize_run(struct stack *t, const uint64_t *sizes, size_t count, uint64_t block)
{
	for (size_t i = 0; i < count; i++) {
		stack_open(t);
		for (int n = 0; n < 100; n++)
			model_step(&t->m, block);
		model_settle(&t->m);
		model_resize(&t->m, sizes[i]);
		model_compare(&t->m);
		for (int n = 0; n < 50; n++)
			model_step(&t->m, block);
		model_settle(&t->m);
		model_compare(&t->m);
		vhdtest_close_ok(t->m.d);
		assert_int_equal(vhdtest_damage_in(t->stores[t->layers - 1]), 0);
	}
	stack_open(t);
	model_compare(&t->m);
	vhdtest_close_ok(t->m.d);
}

static void test_resize(void **state)
{
	static const uint64_t sizes[] = { 9 * MIB,  4 * MIB + 512,  300 * MIB, 5 * MIB,
					  80 * MIB, 80 * MIB + 512, 512,       3 * MIB };
	static const enum vhd_kind kinds[] = { VHD_DYNAMIC, VHD_FIXED };

	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
		const struct vhd_create_options o = {
			.size = 6 * MIB,
			.block_size = 512 * KIB,
			.kind = kinds[k],
		};
		struct stack t = { .m = { .size = o.size, .sector = 512, .seed = 5 }, .layers = 1 };

		t.stores[0] = vhdtest_new_store(2 * GIB, 7);
		vhdtest_create_ok(t.stores[0], &o);
		t.m.expect = calloc(1, o.size);
		resize_run(&t, sizes, ARRAY_SIZE(sizes), o.block_size);
		stack_end(&t);
	}
}

static void test_resize_child(void **state)
{
	static const uint64_t sizes[] = { 8 * MIB, 20 * MIB + 512, 10 * MIB };
	const struct vhd_create_options o = { .size = 4 * MIB, .kind = VHD_DYNAMIC };
	struct stack t = { .m = { .size = o.size, .sector = 512, .seed = 6 }, .layers = 1 };
	struct error err = { 0 };

	(void)state;
	t.stores[0] = vhdtest_new_store(64 * MIB, 3);
	vhdtest_create_ok(t.stores[0], &o);
	t.m.expect = calloc(1, o.size);
	stack_rounds(&t, 2 * MIB, 1);
	child_add(&t, 4 * MIB, 512 * KIB);
	resize_run(&t, sizes, ARRAY_SIZE(sizes), 512 * KIB);
	/* What the parent has behind the child's end must not appear. */
	stack_open(&t);
	resize_ok(t.m.d, 2 * MIB);
	assert_int_equal(t.m.d->ops->resize(t.m.d, 3 * MIB, &err), -ENOTSUP);
	vhdtest_close_ok(t.m.d);
	stack_end(&t);
}

/* --- compacting --- */

static void compact_ok(struct disk *d, bool zeros)
{
	const struct disk_compact_options o = { .zeros = zeros };
	struct error err = { 0 };

	if (d->ops->compact(d, &o, &err) < 0)
		fail_msg("%s", err.message);
}

/* In the middle of a session, and at its start; what follows finds its space. */
static void compact_run(struct stack *t, uint64_t block)
{
	for (unsigned i = 0; i < 6; i++) {
		uint64_t before;

		stack_open(t);
		for (int n = 0; n < 150; n++)
			model_step(&t->m, block);
		model_settle(&t->m);
		if (i % 2)
			compact_ok(t->m.d, i % 3);
		model_compare(&t->m);
		for (int n = 0; n < 50; n++)
			model_step(&t->m, block);
		model_settle(&t->m);
		vhdtest_close_ok(t->m.d);
		before = t->stores[t->layers - 1]->size;
		stack_open(t);
		compact_ok(t->m.d, true);
		vhdtest_close_ok(t->m.d);
		assert_true(t->stores[t->layers - 1]->size <= before);
		stack_open(t);
		model_compare(&t->m);
		vhdtest_close_ok(t->m.d);
		assert_int_equal(vhdtest_damage_in(t->stores[t->layers - 1]), 0);
	}
}

static void test_compact(void **state)
{
	const struct vhd_create_options o = {
		.size = 9 * MIB + 512,
		.block_size = 512 * KIB,
		.kind = VHD_DYNAMIC,
	};

	(void)state;
	for (unsigned seed = 1; seed <= 4; seed++) {
		struct stack t = { .m = { .size = o.size, .sector = 512, .seed = seed },
				   .layers = 1 };

		t.stores[0] = vhdtest_new_store(256 * MIB, seed);
		vhdtest_create_ok(t.stores[0], &o);
		t.m.expect = calloc(1, o.size);
		compact_run(&t, o.block_size);
		child_add(&t, o.size - MIB, 512 * KIB);
		compact_run(&t, 512 * KIB);
		stack_end(&t);
	}
}

/* Two of four blocks hold nothing: the file is as large as with two, and the last ones moved. */
static void test_compact_gives_back(void **state)
{
	struct store *s = vhdtest_new_store(256 * MIB, 0), *two = vhdtest_new_store(256 * MIB, 0);
	struct check_report report;
	uint8_t b[512];
	struct disk *d;

	(void)state;
	vhdtest_create_ok(s, &vhdtest_small);
	vhdtest_create_ok(two, &vhdtest_small);
	d = vhdtest_open_ok(s);
	for (unsigned i = 0; i < 4; i++) {
		memset(b, i % 2 ? 0 : 7, sizeof(b)); /* zeros that were written */
		assert_int_equal(drive_write(d, b, 512, i * MIB, 0), 0);
	}
	vhdtest_close_ok(d);
	d = vhdtest_open_ok(s);
	compact_ok(d, true);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(drive_read(d, b, 512, i * MIB), 0);
		assert_int_equal(b[100], i % 2 ? 0 : 7);
	}
	vhdtest_close_ok(d);
	d = vhdtest_open_ok(two);
	memset(b, 7, sizeof(b));
	assert_int_equal(drive_write(d, b, 512, 0, 0), 0);
	assert_int_equal(drive_write(d, b, 512, 2 * MIB, 0), 0);
	vhdtest_close_ok(d);
	assert_int_equal(s->size, two->size);
	report = vhdtest_report_of(s);
	assert_int_equal(report.blocks_present, 2);
	assert_int_equal(report.counts[CHECK_WASTE], 0);
	store_memory_free(s);
	store_memory_free(two);
}

/* Zeros of a child hide what the parent has; a block without a marked sector hides nothing. */
static void test_compact_child_keeps_zeros(void **state)
{
	const struct vhd_create_options o = { .size = 4 * MIB, .kind = VHD_DYNAMIC };
	struct stack t = { .m = { .size = o.size, .sector = 512, .seed = 6 }, .layers = 1 };
	uint8_t b[4096] = { 9 };
	uint32_t entry;
	be32 sector;

	(void)state;
	t.stores[0] = vhdtest_new_store(64 * MIB, 3);
	vhdtest_create_ok(t.stores[0], &o);
	t.m.expect = calloc(1, o.size);
	stack_open(&t);
	assert_int_equal(drive_write(t.m.d, b, 4096, 0, 0), 0);
	assert_int_equal(drive_write(t.m.d, b, 4096, MIB, 0), 0);
	vhdtest_close_ok(t.m.d);
	child_add(&t, 4 * MIB, 512 * KIB);
	stack_open(&t);
	assert_int_equal(drive_zero(t.m.d, MIB, 0), 0);
	assert_int_equal(drive_zero(t.m.d, 512 * KIB, MIB), 0);
	vhdtest_close_ok(t.m.d);
	assert_int_equal(store_read(t.stores[1], &entry, 4, 8192), 0);
	memcpy(&sector, &entry, sizeof(sector));
	memset(b, 0, sizeof(b));
	vhdtest_put(t.stores[1], be32_get(sector) * UINT64_C(512), b, 512); /* its bitmap */
	assert_int_equal(vhdtest_report_of(t.stores[1]).blocks_present, 3);
	stack_open(&t);
	compact_ok(t.m.d, true);
	assert_int_equal(drive_read(t.m.d, b, 4096, MIB), 0);
	assert_int_equal(b[0], 0);
	assert_int_equal(drive_read(t.m.d, b, 4096, 0), 0);
	assert_int_equal(b[0], 9);
	vhdtest_close_ok(t.m.d);
	assert_int_equal(vhdtest_report_of(t.stores[1]).blocks_present, 2);
	stack_end(&t);
}

static bool stop_later(void *context, uint64_t done, uint64_t total)
{
	unsigned *left = context;

	assert_true(done <= total);
	return *left && (*left)--;
}

static void test_compact_stops(void **state)
{
	const struct vhd_create_options o = {
		.size = 9 * MIB,
		.block_size = 512 * KIB,
		.kind = VHD_DYNAMIC,
	};
	struct stack t = { .m = { .size = o.size, .sector = 512, .seed = 8 }, .layers = 1 };

	(void)state;
	t.stores[0] = vhdtest_new_store(256 * MIB, 1);
	vhdtest_create_ok(t.stores[0], &o);
	t.m.expect = calloc(1, o.size);
	for (unsigned i = 0; i < 40; i++) {
		unsigned left = i;
		const struct disk_compact_options co = { true, stop_later, &left };
		struct error err = { 0 };
		int r;

		stack_open(&t);
		for (int n = 0; n < 40; n++)
			model_step(&t.m, o.block_size);
		model_settle(&t.m);
		r = t.m.d->ops->compact(t.m.d, &co, &err);
		assert_true(!r || r == -ECANCELED);
		model_compare(&t.m);
		vhdtest_close_ok(t.m.d);
		assert_int_equal(vhdtest_damage_in(t.stores[0]), 0);
	}
	stack_end(&t);
}

static void test_compact_refuses(void **state)
{
	const struct vhd_create_options o = { .size = MIB, .kind = VHD_FIXED };
	const struct disk_compact_options co = { .zeros = true };
	struct store *fixed = vhdtest_new_store(64 * MIB, 0), *s = vhdtest_small_image();
	struct error err = { 0 };
	struct disk *d;

	(void)state;
	vhdtest_create_ok(fixed, &o);
	d = vhdtest_open_ok(fixed);
	assert_int_equal(d->ops->compact(d, &co, &err), -ENOTSUP);
	vhdtest_close_ok(d);
	vhdtest_put32(s, 4096 + 4, 15 + 4); /* into block 0 */
	d = vhdtest_open_ok(s);
	assert_int_equal(d->ops->compact(d, &co, &err), -EUCLEAN);
	vhdtest_close_ok(d);
	store_memory_set_read_only(s, true);
	d = vhdtest_open_ok(s);
	assert_int_equal(d->ops->compact(d, &co, &err), -EROFS);
	vhdtest_close_ok(d);
	store_memory_free(fixed);
	store_memory_free(s);
}

static void test_resize_refuses(void **state)
{
	static const uint64_t bad[] = { 0, 511, MIB + 1, 2040 * GIB + 512 };
	struct vhd_create_options o = { .size = MIB, .kind = VHD_DYNAMIC };
	struct store *s = vhdtest_new_store(64 * MIB, 0);
	struct error err = { 0 };
	struct disk *d;

	(void)state;
	vhdtest_create_ok(s, &o);
	d = vhdtest_open_ok(s);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(d->ops->resize(d, bad[i], &err), -EINVAL);
	vhdtest_close_ok(d);
	store_memory_set_read_only(s, true);
	d = vhdtest_open_ok(s);
	assert_int_equal(d->ops->resize(d, 2 * MIB, &err), -EROFS);
	vhdtest_close_ok(d);
	store_memory_free(s);
}

/* --- a full disk, and failing hardware --- */

static void test_full(void **state)
{
	struct vhd_create_options o = { .size = 64 * MIB, .block_size = MIB, .kind = VHD_DYNAMIC };
	struct store *s = vhdtest_new_store(17 * MIB, 0);
	_cleanup_free_ uint8_t *b = calloc(1, MIB);
	unsigned failed = 0;
	struct disk *d;

	(void)state;
	vhdtest_create_ok(s, &o);
	d = vhdtest_open_ok(s);
	for (uint64_t i = 0; i < 64; i++) {
		int r;

		memset(b, (int)(i + 1), 64 * KIB);
		r = drive_write(d, b, 64 * KIB, i * MIB, 0);
		assert_true(r == 0 || r == -ENOSPC);
		failed += r < 0;
	}
	assert_int_equal(failed, 64 - 16);
	assert_int_equal(drive_flush(d), 0);
	assert_int_equal(drive_read(d, b, 64 * KIB, 0), 0);
	assert_int_equal(b[5], 1);
	/* Space given back is there for others once that is durable. */
	assert_int_equal(drive_trim(d, MIB, 0), 0);
	assert_int_equal(drive_flush(d), 0);
	assert_int_equal(drive_flush(d), 0);
	memset(b, 99, 64 * KIB);
	assert_int_equal(drive_write(d, b, 64 * KIB, 63 * MIB, 0), 0);
	vhdtest_close_ok(d);
	assert_int_equal(vhdtest_damage_in(s), 0);
	d = vhdtest_open_ok(s);
	assert_int_equal(drive_read(d, b, MIB, 63 * MIB), 0);
	assert_int_equal(b[7], 99);
	assert_int_equal(b[64 * KIB + 7], 0); /* not what the former owner had there */
	vhdtest_close_ok(d);
	store_memory_free(s);
}

/* Whatever step a full file system stops, what was flushed stays and the image is good. */
static void full_at(enum vhd_kind kind, unsigned skip)
{
	struct vhd_create_options o = {
		.size = 8 * MIB, .block_size = 512 * KIB, .kind = kind, .relative = "p.vhd"
	};
	struct store *s = vhdtest_new_store(64 * MIB, 0);
	uint8_t sector[512];
	struct error err = { 0 };
	struct disk *d;
	int r = 0;

	vhdtest_create_ok(s, &o);
	d = vhdtest_open_ok(s);
	memset(sector, 1, sizeof(sector));
	assert_int_equal(drive_write(d, sector, 512, 0, DISK_FUA), 0);
	memset(sector, 2, sizeof(sector));
	for (unsigned i = 0; i <= skip; i++) {
		if (i == skip)
			store_memory_fail_writes(s, 3, -ENOSPC);
		r = i % 2 ? drive_flush(d) : drive_write(d, sector, 512, (1 + i) * 512 * KIB, 0);
	}
	assert_int_equal(r, -ENOSPC);
	store_memory_fail_writes(s, 0, 0);
	assert_int_equal(drive_flush(d), 0);
	assert_int_equal(disk_close(d, &err), 0);
	assert_int_equal(vhdtest_damage_in(s), 0);
	d = vhdtest_open_ok(s);
	assert_int_equal(drive_read(d, sector, 512, 0), 0);
	assert_int_equal(sector[9], 1);
	if (skip % 2) {
		assert_int_equal(drive_read(d, sector, 512, skip * 512 * KIB), 0);
		assert_int_equal(sector[9], 2);
	}
	vhdtest_close_ok(d);
	store_memory_free(s);
}

static void test_full_at_any_step(void **state)
{
	(void)state;
	for (unsigned skip = 0; skip < 6; skip++) {
		full_at(VHD_DYNAMIC, skip);
		full_at(VHD_DIFFERENCING, skip);
	}
}

static void test_failing_store(void **state)
{
	struct store *s = vhdtest_small_image();
	struct error err = { 0 };
	uint8_t sector[512] = { 1 };
	struct disk *d = vhdtest_open_ok(s);

	(void)state;
	store_memory_fail_writes(s, 1, -ENOSPC);
	assert_int_equal(drive_write(d, sector, 512, 0, 0), -ENOSPC);
	assert_int_equal(drive_write(d, sector, 512, 0, 0), 0);
	/* The table cannot be written; later it can. */
	assert_int_equal(drive_write(d, sector, 512, 6 * MIB, 0), 0);
	store_memory_fail_writes(s, 1, -ENOSPC);
	assert_int_equal(drive_flush(d), -ENOSPC);
	assert_int_equal(drive_flush(d), 0);
	/* A failed flush is final, except for reading. */
	store_memory_fail_flushes(s, 1, -EIO);
	assert_int_equal(drive_flush(d), -ENOTRECOVERABLE);
	assert_int_equal(drive_flush(d), -ENOTRECOVERABLE);
	assert_int_equal(drive_write(d, sector, 512, 0, 0), -ENOTRECOVERABLE);
	assert_int_equal(d->ops->resize(d, 9 * MIB, &err), -ENOTRECOVERABLE);
	assert_int_equal(drive_read(d, sector, 512, 6 * MIB), 0);
	assert_int_equal(sector[0], 1);
	assert_int_equal(disk_close(d, &err), -ENOTRECOVERABLE);
	d = vhdtest_open_ok(s);
	assert_int_equal(drive_read(d, sector, 512, 6 * MIB), 0);
	assert_int_equal(sector[0], 1);
	vhdtest_close_ok(d);
	assert_int_equal(vhdtest_damage_in(s), 0);
	store_memory_free(s);
}

static void test_read_only(void **state)
{
	struct store *s = vhdtest_small_image();
	uint64_t size = s->size;
	uint8_t sector[512] = { 0 };
	struct disk *d;

	(void)state;
	assert_int_equal(store_resize(s, size - 512), 0);
	store_memory_set_read_only(s, true);
	d = vhdtest_open_ok(s);
	assert_true(d->geometry.read_only);
	assert_int_equal(drive_write(d, sector, 512, 0, 0), -EROFS);
	assert_int_equal(drive_zero(d, 512, 0), -EROFS);
	assert_int_equal(drive_trim(d, 512, 0), -EROFS);
	assert_int_equal(drive_flush(d), 0);
	assert_int_equal(drive_read(d, sector, 512, 0), 0);
	assert_int_equal(sector[0], 0x5a);
	vhdtest_close_ok(d);
	assert_int_equal(s->size, size - 512);
	store_memory_free(s);
}

/* --- writing, seen from outside --- */

static void test_layout(void **state)
{
	struct store *s = vhdtest_small_image();
	struct vhd_disk_footer first, last;
	uint8_t bits[512];
	be32 entry;

	(void)state;
	assert_int_equal(store_read(s, &first, 512, 0), 0);
	assert_int_equal(store_read(s, &last, 512, s->size - 512), 0);
	assert_memory_equal(&first, &last, 512);
	assert_int_equal(store_read(s, &entry, 4, 4096 + 6 * 4), 0);
	assert_int_equal(be32_get(entry) % 8, 7);
	assert_int_equal(store_read(s, bits, 512, be32_get(entry) * UINT64_C(512)), 0);
	for (unsigned i = 0; i < 128; i++) /* sectors of a block of 512 KiB, eight a byte */
		assert_int_equal(bits[i], 0xff);
	store_memory_free(s);
}

/* Old software left gaps in bitmaps: where we write, others must believe that there is data. */
static void test_bitmap_gaps_are_filled(void **state)
{
	struct store *s = vhdtest_small_image();
	uint8_t bits[128] = { 0 }, sector[512] = { 1 };
	struct disk *d;
	be32 entry;

	(void)state;
	vhdtest_put(s, 28, "d2v", 4);
	vhdtest_footers_resign(s);
	assert_int_equal(store_read(s, &entry, 4, 4096 + 6 * 4), 0);
	vhdtest_put(s, be32_get(entry) * UINT64_C(512), bits, sizeof(bits));
	d = vhdtest_open_ok(s);
	assert_int_equal(drive_read(d, sector, 512, 3 * MIB), 0);
	assert_int_equal(drive_flush(d), 0);
	assert_int_equal(store_read(s, bits, sizeof(bits), be32_get(entry) * UINT64_C(512)), 0);
	assert_int_equal(bits[5], 0);
	assert_int_equal(drive_write(d, sector, 512, 3 * MIB + 4096, 0), 0);
	assert_int_equal(drive_flush(d), 0);
	assert_int_equal(store_read(s, bits, sizeof(bits), be32_get(entry) * UINT64_C(512)), 0);
	for (unsigned i = 0; i < sizeof(bits); i++)
		assert_int_equal(bits[i], 0xff);
	vhdtest_close_ok(d);
	store_memory_free(s);
}

static void test_trim_gives_back(void **state)
{
	struct store *s = vhdtest_new_store(256 * MIB, 0);
	_cleanup_free_ uint8_t *b = malloc(MIB);
	uint64_t before, size;
	struct disk *d;

	(void)state;
	vhdtest_create_ok(s, &vhdtest_small);
	d = vhdtest_open_ok(s);
	memset(b, 1, MIB);
	for (uint64_t i = 0; i < 8; i++)
		assert_int_equal(drive_write(d, b, MIB, i * MIB, 0), 0);
	assert_int_equal(drive_flush(d), 0);
	before = store_memory_bytes(s);
	size = s->size;
	assert_int_equal(drive_trim(d, 3 * MIB, 5 * MIB), 0);
	assert_int_equal(drive_trim(d, 256 * KIB, 4 * MIB), 0);
	vhdtest_close_ok(d);
	assert_true(before - store_memory_bytes(s) >= 3 * MIB + 192 * KIB);
	assert_true(size - s->size >= 3 * MIB); /* the end is cut */
	assert_int_equal(vhdtest_damage_in(s), 0);
	store_memory_free(s);
}

/* Neither a trim nor zeros may bring back what the parent has. */
static void test_parent_stays_hidden(void **state)
{
	struct stack t = { .m = { .size = 4 * MIB, .sector = 512, .seed = 1 }, .layers = 1 };
	const struct vhd_create_options o = { .size = 4 * MIB, .kind = VHD_DYNAMIC };
	_cleanup_free_ uint8_t *b = malloc(4 * MIB);

	(void)state;
	t.stores[0] = vhdtest_new_store(64 * MIB, 0);
	vhdtest_create_ok(t.stores[0], &o);
	t.m.expect = calloc(1, 4 * MIB);
	t.m.d = vhdtest_open_ok(t.stores[0]);
	memset(b, 0xaa, 4 * MIB);
	assert_int_equal(drive_write(t.m.d, b, 4 * MIB, 0, 0), 0);
	vhdtest_close_ok(t.m.d);
	child_add(&t, 4 * MIB, 2 * MIB);
	stack_open(&t);
	memset(b, 0x55, MIB);
	assert_int_equal(drive_write(t.m.d, b, 2 * MIB, 0, 0), 0);
	assert_int_equal(drive_trim(t.m.d, 2 * MIB, 0), 0);
	assert_int_equal(drive_zero(t.m.d, MIB, 3 * MIB), 0);
	vhdtest_close_ok(t.m.d);
	stack_open(&t);
	assert_int_equal(drive_read(t.m.d, b, 4 * MIB, 0), 0);
	for (size_t i = 0; i < 4 * MIB; i++)
		assert_int_equal(b[i], i / MIB == 2 ? 0xaa : 0);
	vhdtest_close_ok(t.m.d);
	stack_end(&t);
}

/*
 * A block is trimmed while a write to it is under way, and its space goes to another one: neither
 * the old data nor that write may show up there, in whichever order the store works.
 */
static void trim_in_flight(unsigned seed)
{
	const struct vhd_create_options o = { .size = 8 * MIB,
					      .block_size = MIB,
					      .kind = VHD_DYNAMIC };
	struct store *s = vhdtest_new_store(64 * MIB, seed);
	_cleanup_free_ uint8_t *b = malloc(MIB);
	struct model m = { 0 };
	struct model_request *w = &m.requests[0], *t = &m.requests[1];

	vhdtest_create_ok(s, &o);
	m.d = vhdtest_open_ok(s);
	memset(b, 0xaa, MIB);
	assert_int_equal(drive_write(m.d, b, MIB, 0, DISK_FUA), 0);
	w->iov = (struct iovec){ b, 64 * KIB };
	w->req = (struct disk_request){ .op = DISK_WRITE,
					.length = 64 * KIB,
					.iov = &w->iov,
					.iovcnt = 1,
					.done = model_request_done };
	t->req =
		(struct disk_request){ .op = DISK_TRIM, .length = MIB, .done = model_request_done };
	w->m = t->m = &m;
	m.busy = 2;
	disk_submit(m.d, &w->req);
	disk_submit(m.d, &t->req);
	for (uint64_t i = 1; i < 8; i++) {
		assert_int_equal(drive_flush(m.d), 0);
		assert_int_equal(drive_write(m.d, b, 512, i * MIB + 512 * KIB, 0), 0);
	}
	model_settle(&m);
	assert_true(vhd_of(m.d)->space.end < 8 * MIB); /* the space was used again */
	for (uint64_t i = 1; i < 8; i++) {
		assert_int_equal(drive_read(m.d, b, MIB, i * MIB), 0);
		for (size_t k = 0; k < MIB; k++)
			if (b[k] != (k / 512 == 1024 ? 0xaa : 0))
				fail_msg("seed %u: block %u, byte %zu", seed, (unsigned)i, k);
		memset(b, 0xaa, 512);
	}
	vhdtest_close_ok(m.d);
	store_memory_free(s);
}

static void test_trim_in_flight(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 40; seed++)
		trim_in_flight(seed);
}

/* More of table and bitmaps than is kept in memory. */
static void test_many_pages(void **state)
{
	struct vhd_create_options o = { .size = 2000 * GIB,
					.block_size = 512 * KIB,
					.kind = VHD_DIFFERENCING,
					.relative = "p.vhd" };
	struct store *s = vhdtest_new_store(2 * GIB, 0);
	uint8_t sector[512];
	struct disk *d;

	(void)state;
	vhdtest_create_ok(s, &o);
	for (unsigned pass = 0; pass < 2; pass++) {
		d = vhdtest_open_ok(s);
		for (uint64_t i = 0; i < 1500; i++) {
			memset(sector, (int)(i * 7 + 1), sizeof(sector));
			if (!pass)
				assert_int_equal(drive_write(d, sector, 512, i * 1300 * MIB, 0), 0);
			else
				assert_int_equal(drive_read(d, sector, 512, i * 1300 * MIB), 0);
			assert_int_equal(sector[3], (uint8_t)(i * 7 + 1));
		}
		assert_int_equal(drive_flush(d), 0);
		assert_true(vhd_of(d)->cache.bytes <= 8 * MIB);
		vhdtest_close_ok(d);
	}
	assert_int_equal(vhdtest_damage_in(s), 0);
	store_memory_free(s);
}

static void test_largest(void **state)
{
	const struct vhd_create_options o = { .size = 2040 * GIB, .kind = VHD_DYNAMIC };
	struct store *s = vhdtest_new_store(GIB, 0);
	enum disk_extent_kind kind;
	uint8_t sector[4096] = { 1 };
	uint64_t length;
	struct disk *d;

	(void)state;
	vhdtest_create_ok(s, &o);
	d = vhdtest_open_ok(s);
	assert_int_equal(d->geometry.size, 2040 * GIB);
	assert_int_equal(vhd_of(d)->cache.bytes, 0); /* opening reads nothing of the table */
	assert_int_equal(drive_write(d, sector, 4096, 2040 * GIB - 4096, 0), 0);
	assert_int_equal(drive_write(d, sector, 4096, TIB + 8192, DISK_FUA), 0);
	assert_int_equal(d->ops->extent(d, 0, &kind, &length), 0);
	assert_int_equal(kind, DISK_EXTENT_HOLE);
	assert_int_equal(length, TIB + 8192);
	assert_int_equal(d->ops->extent(d, length, &kind, &length), 0);
	assert_int_equal(kind, DISK_EXTENT_DATA);
	assert_int_equal(length, 4096);
	vhdtest_close_ok(d);
	assert_int_equal(vhdtest_damage_in(s), 0);
	store_memory_free(s);
}

/* --- parents --- */

static struct store *child_image(const char *relative, const char *absolute)
{
	const struct vhd_create_options o = {
		.size = 4 * MIB,
		.kind = VHD_DIFFERENCING,
		.parent = { GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11), 77 },
		.relative = relative,
		.absolute = absolute,
	};
	struct store *s = vhdtest_new_store(64 * MIB, 0);

	vhdtest_create_ok(s, &o);
	return s;
}

static void parent_is(struct store *s, const char *relative, const char *absolute)
{
	struct disk *d = vhdtest_open_ok(s);
	const struct disk_parent *p = d->ops->parent(d);

	assert_non_null(p);
	assert_int_equal(!!p->relative, !!relative);
	assert_int_equal(!!p->absolute, !!absolute);
	if (relative)
		assert_string_equal(p->relative, relative);
	if (absolute)
		assert_string_equal(p->absolute, absolute);
	vhdtest_close_ok(d);
}

static void test_parent_is_named(void **state)
{
	static const struct guid id = GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
	struct store *s = child_image(".\\b\xc3\xa4se \xf0\x9f\x92\xbe.vhd", "C:\\x\\base.vhd");
	uint8_t sector[512];
	struct disk *d;

	(void)state;
	parent_is(s, ".\\b\xc3\xa4se \xf0\x9f\x92\xbe.vhd", "C:\\x\\base.vhd");
	d = vhdtest_open_ok(s);
	assert_true(guid_equal(&d->ops->parent(d)->id, &id));
	assert_int_equal(d->ops->parent(d)->timestamp, 77);
	assert_int_equal(drive_read(d, sector, 512, 0), -ENODEV); /* it is not open */
	assert_int_equal(drive_write(d, sector, 512, 0, 0), 0);
	assert_int_equal(drive_read(d, sector, 512, 0), 0);
	vhdtest_close_ok(d);
	assert_int_equal(vhdtest_damage_in(s), 0);
	store_memory_free(s);
	s = vhdtest_small_image();
	d = vhdtest_open_ok(s);
	assert_null(d->ops->parent(d));
	vhdtest_close_ok(d);
	store_memory_free(s);
}

static void locator_put(struct store *s, unsigned i, const char *code, const void *bytes, size_t n)
{
	const uint64_t at = 512 + 576 + i * 24, data = MIB + i * 4096;

	vhdtest_put(s, at, code, 4);
	vhdtest_put32(s, at + 4, 1);
	vhdtest_put32(s, at + 8, (uint32_t)n);
	vhdtest_put64(s, at + 16, data);
	vhdtest_put(s, data, bytes, n);
	vhdtest_header_resign(s);
}

static void test_parent_locators(void **state)
{
	static const char url[] = "file://localhost/Users/me/b%C3%A4se%20x.vhd";
	struct store *s = child_image(NULL, "D:\\somewhere\\p.vhd");
	const struct vhd_locator none[VHD_LOCATORS] = { 0 };
	struct vhd_disk_footer f;

	(void)state;
	assert_int_equal(store_read(s, &f, sizeof(f), 0), 0);
	vhdtest_put(s, 2 * MIB, &f, sizeof(f));
	vhdtest_put(s, 512 + 576, none, sizeof(none));
	vhdtest_header_resign(s);
	parent_is(s, NULL, "D:\\somewhere\\p.vhd"); /* from the name */
	locator_put(s, 7, "MacX", url, strlen(url));
	vhdtest_put(s, s->size, &f, sizeof(f));
	parent_is(s, NULL, "/Users/me/b\xc3\xa4se x.vhd");
	locator_put(s, 0, "Wi2k", "C:\\\xe4.vhd", 8);
	locator_put(s, 1, "Wi2r", "..\\y.vhd\0zz", 11);
	parent_is(s, "..\\y.vhd", "C:\\\xc3\xa4.vhd");
	locator_put(s, 2, "W2ru", ".\0\\\0z\0", 6);
	parent_is(s, ".\\z", "C:\\\xc3\xa4.vhd");
	locator_put(s, 2, "W2ru", "\0\xd8", 2); /* half a surrogate */
	parent_is(s, "..\\y.vhd", "C:\\\xc3\xa4.vhd");
	vhdtest_put32(s, 512 + 576 + 24 + 8, 0x10000000);
	vhdtest_header_resign(s);
	parent_is(s, NULL, "C:\\\xc3\xa4.vhd");
	store_memory_free(s);
}

static void test_parent_changes(void **state)
{
	struct store *s = child_image(".\\a.vhd", "C:\\a.vhd");
	struct disk_parent p = {
		.id = GUID(9, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
		.timestamp = 5,
		.relative = (char[]){ "..\\other.vhd" },
	};
	uint8_t sector[512] = { 42 };
	struct error err = { 0 };
	struct disk *d = vhdtest_open_ok(s);

	(void)state;
	assert_int_equal(drive_write(d, sector, 512, MIB, 0), 0);
	for (unsigned i = 0; i < 3; i++) {
		if (d->ops->set_parent_ref(d, &p, &err) < 0)
			fail_msg("%s", err.message);
		assert_string_equal(d->ops->parent(d)->relative, "..\\other.vhd");
		assert_int_equal(drive_write(d, sector, 512, 3 * MIB, 0), 0);
	}
	vhdtest_close_ok(d);
	parent_is(s, "..\\other.vhd", NULL);
	d = vhdtest_open_ok(s);
	assert_true(guid_equal(&d->ops->parent(d)->id, &p.id));
	assert_int_equal(d->ops->parent(d)->timestamp, 5);
	sector[0] = 0;
	assert_int_equal(drive_read(d, sector, 512, MIB), 0);
	assert_int_equal(sector[0], 42);
	p.relative = NULL;
	assert_int_equal(d->ops->set_parent_ref(d, &p, &err), -EINVAL);
	vhdtest_close_ok(d);
	assert_int_equal(vhdtest_damage_in(s), 0);
	store_memory_free(s);
}

static void test_bad_options(void **state)
{
	static const struct vhd_create_options bad[] = {
		{ .size = 0 },
		{ .size = 2040 * GIB + 512, .kind = VHD_DYNAMIC },
		{ .size = 1000 },
		{ .size = MIB, .block_size = 256 * KIB, .kind = VHD_DYNAMIC },
		{ .size = MIB, .block_size = 3 * MIB, .kind = VHD_DYNAMIC },
		{ .size = MIB, .block_size = 512 * MIB, .kind = VHD_DYNAMIC },
		{ .size = MIB, .kind = VHD_DIFFERENCING },
		{ .size = MIB, .kind = VHD_DIFFERENCING, .relative = "\xff" },
		{ .size = MIB, .kind = VHD_DIFFERENCING, .relative = "" },
	};
	struct store *s = vhdtest_new_store(64 * MIB, 0);
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err = (struct error){ 0 };
		assert_int_equal(vhd_store_create(s, &bad[i], &err), -EINVAL);
		assert_true(err.message[0]);
	}
	store_memory_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_chains),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_resize_child),
		cmocka_unit_test(test_resize_refuses),
		cmocka_unit_test(test_compact),
		cmocka_unit_test(test_compact_gives_back),
		cmocka_unit_test(test_compact_child_keeps_zeros),
		cmocka_unit_test(test_compact_stops),
		cmocka_unit_test(test_compact_refuses),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_full_at_any_step),
		cmocka_unit_test(test_failing_store),
		cmocka_unit_test(test_read_only),
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_bitmap_gaps_are_filled),
		cmocka_unit_test(test_trim_gives_back),
		cmocka_unit_test(test_parent_stays_hidden),
		cmocka_unit_test(test_trim_in_flight),
		cmocka_unit_test(test_many_pages),
		cmocka_unit_test(test_largest),
		cmocka_unit_test(test_parent_is_named),
		cmocka_unit_test(test_parent_locators),
		cmocka_unit_test(test_parent_changes),
		cmocka_unit_test(test_bad_options),
	};
	int r;

	if (loop_new(0, &vhdtest_loop, NULL) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(vhdtest_loop);
	return r;
}
