// SPDX-License-Identifier: MIT
/*
 * Power cuts of VHD images (crash.h): dynamic ones, differencing ones over a parent whose data must
 * show where nothing durable was written and nowhere else, and the changes of structures, which
 * leave the old ones or the new ones.
 */
#include "vhd/crash.h"
#include "vhd/disk_drive.h"
#include "vhd/vhd_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* --- formats --- */

static int create_dynamic(struct store *s, uint64_t size, struct error *err)
{
	const struct vhd_create_options o = {
		.size = size,
		.block_size = (uint32_t)CRASH_BLOCK,
		.kind = VHD_DYNAMIC,
	};

	return vhd_store_create(s, &o, err);
}

/* Others believe the bitmaps of dynamic images, and nothing fills them later. */
static void bitmap_check(struct vhd *v, uint64_t block, struct check_report *report)
{
	uint8_t bits[512];
	struct vhd_page *p;
	uint64_t offset;

	assert_int_equal(vhd_page_load_now(v, VHD_PAGE_BAT, block / VHD_PER_PAGE,
					   vhd_bat_page_offset(v, block), &p),
			 0);
	if (vhd_bat_get(v, p, block, &offset) <= 0)
		return;
	assert_int_equal(store_read(v->store, bits, sizeof(bits), offset), 0);
	for (size_t i = 0; i < vhd_block_size(v) / VHD_SECTOR / 8; i++)
		if (bits[i] != 0xff) {
			check_found(report, CHECK_DAMAGE, "block %llu: bits are missing",
				    (unsigned long long)block);
			return;
		}
}

static int check_dynamic(struct store *s, struct check_report *report, struct error *err)
{
	struct disk *d;
	int r = vhd_open(s, &d, err);

	if (r < 0)
		return r;
	for (uint64_t block = 0; block < vhd_of(d)->blocks; block++)
		bitmap_check(vhd_of(d), block, report);
	assert_int_equal(disk_close(d, NULL), 0);
	return vhd_check(s, report, err);
}

static const struct crash_format dynamic = {
	.piece = 512,
	.create = create_dynamic,
	.open = vhd_open,
	.check = check_dynamic,
};

static struct store *parent;

static uint64_t parent_value(unsigned place)
{
	return UINT64_C(1) << 40 | place;
}

static int create_child(struct store *s, uint64_t size, struct error *err)
{
	const struct vhd_create_options o = {
		.size = size,
		.block_size = (uint32_t)CRASH_BLOCK,
		.kind = VHD_DIFFERENCING,
		.relative = ".\\parent.vhd",
	};

	return vhd_store_create(s, &o, err);
}

static int open_child(struct store *s, struct disk **ret, struct error *err)
{
	struct disk *below;
	int r = vhd_open(s, ret, err);

	if (r < 0)
		return r;
	assert_int_equal(vhd_open(parent, &below, NULL), 0);
	(*ret)->ops->set_parent(*ret, below);
	return 0;
}

static const struct crash_format child = {
	.piece = 512,
	.create = create_child,
	.open = open_child,
	.check = vhd_check,
	.initial = parent_value,
};

/* Without its parent, which is opened beside it. */
static const struct crash_format child_alone = {
	.piece = 512,
	.create = create_child,
	.open = vhd_open,
	.check = vhd_check,
	.initial = parent_value,
};

static const struct crash_format written_child = {
	.piece = 512,
	.create = create_child,
	.open = open_child,
	.check = vhd_check,
	.only_writes = true,
	.initial = parent_value,
};

/* --- sessions of a guest --- */

static void test_one_page(void **state)
{
	(void)state;
	crash_rounds(&dynamic, 8 * MIB, CRASH_BLOCK, 250);
}

/* Every block has its entry in another page of the table. */
static void test_many_pages(void **state)
{
	(void)state;
	crash_rounds(&dynamic, 30 * GIB, 5 * GIB, 250);
}

static void test_child(void **state)
{
	(void)state;
	parent = crash_parent(&dynamic, parent_value, 8 * MIB, CRASH_BLOCK);
	crash_rounds(&child, 8 * MIB, CRASH_BLOCK, 250);
	store_memory_free(parent);
}

static void test_child_many_pages(void **state)
{
	(void)state;
	parent = crash_parent(&dynamic, parent_value, 30 * GIB, 5 * GIB);
	crash_rounds(&child, 30 * GIB, 5 * GIB, 250);
	store_memory_free(parent);
}

/* A bit must not reach the disk before its data: zeros would be in the parent's place. */
static void test_child_no_zeros(void **state)
{
	(void)state;
	parent = crash_parent(&dynamic, parent_value, 8 * MIB, CRASH_BLOCK);
	for (unsigned i = 0; i < 8; i++)
		crash_rounds(&written_child, 8 * MIB, CRASH_BLOCK, 40 + i);
	store_memory_free(parent);
}

/* --- changes of structures --- */

#define OLD_SIZE (4 * MIB)
/* Of each point: one image is megabytes, and sanitizers look at every byte. */
#define CUTS (8 * crash_number("PARTITA_CRASH_ROUNDS", 1))

static void fill_disk(struct disk *d)
{
	_cleanup_free_ uint8_t *b = malloc(OLD_SIZE);

	for (size_t i = 0; i < OLD_SIZE; i++)
		b[i] = (uint8_t)(i >> 9 | 1);
	assert_int_equal(drive_write(d, b, OLD_SIZE, 0, DISK_FUA), 0);
}

static void verify(struct store *s, uint64_t new_size, size_t at)
{
	struct check_report report = { 0 };
	struct error err = { 0 };
	_cleanup_free_ uint8_t *b = NULL;
	struct disk *d = NULL;
	uint64_t size;

	if (vhd_open(s, &d, &err) < 0)
		fail_msg("cut after event %zu: %s", at, err.message);
	size = d->geometry.size;
	assert_true(size == OLD_SIZE || size == new_size);
	size = MIN(size, OLD_SIZE);
	b = malloc(size);
	assert_int_equal(drive_read(d, b, size, 0), 0);
	for (size_t i = 0; i < MIN(size, new_size); i++)
		if (b[i] != (uint8_t)(i >> 9 | 1))
			fail_msg("cut after event %zu: byte %zu", at, i);
	if (d->ops->parent(d)) {
		const char *name = d->ops->parent(d)->relative;

		assert_true(!strcmp(name, ".\\parent.vhd") || !strcmp(name, "..\\other.vhd"));
	}
	assert_int_equal(disk_close(d, NULL), 0);
	assert_int_equal(vhd_check(s, &report, &err), 0);
	if (report.counts[CHECK_DAMAGE])
		fail_msg("cut after event %zu: the image is damaged", at);
}

static void change(struct disk *d, uint64_t new_size)
{
	struct disk_parent p = { .relative = (char[]){ "..\\other.vhd" } };
	struct error err = { 0 };
	int r = new_size == OLD_SIZE ? d->ops->set_parent_ref(d, &p, &err)
				     : d->ops->resize(d, new_size, &err);

	if (r < 0)
		fail_msg("%s", err.message);
}

static void change_run(enum vhd_kind kind, uint64_t new_size)
{
	const struct vhd_create_options o = {
		.size = OLD_SIZE,
		.block_size = 512 * KIB,
		.kind = kind,
		.relative = ".\\parent.vhd",
	};
	const struct crash_format f = { .piece = 512 };
	struct crash_record record = { 0 };
	struct store *s = crash_store(&record, 0), *before = crash_store(NULL, 0);
	struct disk *d;
	size_t start;
	unsigned seed = crash_number("PARTITA_CRASH_SEED", 1);

	assert_int_equal(vhd_store_create(s, &o, NULL), 0);
	assert_int_equal(vhd_open(s, &d, NULL), 0);
	fill_disk(d);
	assert_int_equal(disk_close(d, NULL), 0);
	assert_int_equal(vhd_open(s, &d, NULL), 0);
	store_memory_copy(s, before);
	start = record.count;
	change(d, new_size);
	assert_int_equal(disk_close(d, NULL), 0);
	for (size_t k = start; k <= record.count; k++) {
		for (unsigned i = 0; i < CUTS; i++) {
			struct store *cut = crash_store(NULL, 0);

			store_memory_copy(before, cut);
			crash_apply(&f, cut, &record, start, k, &seed);
			verify(cut, new_size, k);
			store_memory_free(cut);
			crash_points++;
		}
	}
	store_memory_free(s);
	store_memory_free(before);
	crash_record_clear(&record);
}

static void test_structures(void **state)
{
	static const uint64_t sizes[] = { 5 * MIB, 900 * MIB, 30 * GIB, MIB + 512 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++)
		change_run(VHD_DYNAMIC, sizes[i]);
	change_run(VHD_FIXED, 6 * MIB);
	change_run(VHD_FIXED, MIB + 512);
	change_run(VHD_DIFFERENCING, MIB + 512);
	change_run(VHD_DIFFERENCING, OLD_SIZE); /* another parent */
}

static int edit_compact(struct disk *d, struct error *err)
{
	const struct disk_compact_options o = { .zeros = true };

	return d->ops->compact(d, &o, err);
}

static bool stop_at(void *context, uint64_t done, uint64_t total)
{
	(void)context;
	return done <= total * 3 / 4;
}

static int edit_compact_stopped(struct disk *d, struct error *err)
{
	const struct disk_compact_options o = { .zeros = true, .progress = stop_at };
	int r = d->ops->compact(d, &o, err);

	return r == -ECANCELED ? 0 : r;
}

static void test_compact(void **state)
{
	static const struct crash_edit edits[] = {
		{ "compact", edit_compact },
		{ "compact, stopped", edit_compact_stopped },
	};
	unsigned seed = crash_number("PARTITA_CRASH_SEED", 1);

	(void)state;
	parent = crash_parent(&dynamic, parent_value, 8 * MIB, CRASH_BLOCK);
	for (unsigned n = 0; n < 6 * crash_number("PARTITA_CRASH_ROUNDS", 1); n++) {
		for (unsigned i = 0; i < ARRAY_SIZE(edits); i++) {
			crash_edit(&dynamic, &edits[i], 8 * MIB, CRASH_BLOCK, seed + n);
			crash_edit(&child, &edits[i], 8 * MIB, CRASH_BLOCK, seed + n);
		}
	}
	store_memory_free(parent);
}

static void test_merge(void **state)
{
	unsigned seed = crash_number("PARTITA_CRASH_SEED", 1);

	(void)state;
	for (unsigned n = 0; n < 6 * crash_number("PARTITA_CRASH_ROUNDS", 1); n++)
		crash_merge(&child_alone, &dynamic, 8 * MIB, CRASH_BLOCK, seed + n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_page),       cmocka_unit_test(test_many_pages),
		cmocka_unit_test(test_child),          cmocka_unit_test(test_child_many_pages),
		cmocka_unit_test(test_child_no_zeros), cmocka_unit_test(test_structures),
		cmocka_unit_test(test_compact),        cmocka_unit_test(test_merge),
	};
	int r;

	if (loop_new(0, &crash_loop, NULL) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	print_message("%zu power cuts in all\n", crash_points);
	loop_free(crash_loop);
	return r;
}
