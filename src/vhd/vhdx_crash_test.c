// SPDX-License-Identifier: MIT
/*
 * Power cuts of VHDX images (crash.h): a guest's sessions, on an image of its own and on a child
 * whose parent's data must never turn into zeros; and the changes that are not a guest's.
 */
#include "vhd/crash.h"
#include "vhd/vhdx.h"

#include "lib/cleanup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* --- formats --- */

static int create_dynamic(struct store *s, uint64_t size, struct error *err)
{
	const struct vhdx_create_options o = { .size = size, .block_size = (uint32_t)CRASH_BLOCK };

	return vhdx_store_create(s, &o, err);
}

static const struct crash_format dynamic = {
	.piece = 4096,
	.create = create_dynamic,
	.open = vhdx_open,
	.check = vhdx_check,
};

static struct store *parent;

static uint64_t parent_value(unsigned place)
{
	return UINT64_C(1000000) + place;
}

static int create_child(struct store *s, uint64_t size, struct error *err)
{
	const struct disk_parent ref = { .id = { { 1 } }, .relative = (char[]){ "parent.vhdx" } };
	const struct vhdx_create_options o = {
		.size = size,
		.block_size = (uint32_t)CRASH_BLOCK,
		.parent = &ref,
	};

	return vhdx_store_create(s, &o, err);
}

static int open_child(struct store *s, struct disk **ret, struct error *err)
{
	struct disk *below;
	int r = vhdx_open(s, ret, err);

	if (r < 0)
		return r;
	assert_int_equal(vhdx_open(parent, &below, NULL), 0);
	(*ret)->ops->set_parent(*ret, below);
	return 0;
}

static const struct crash_format child = {
	.piece = 4096,
	.create = create_child,
	.open = open_child,
	.check = vhdx_check,
	.initial = parent_value,
};

/* Without its parent, which is opened beside it. */
static const struct crash_format child_alone = {
	.piece = 4096,
	.create = create_child,
	.open = vhdx_open,
	.check = vhdx_check,
	.initial = parent_value,
};

/* --- sessions of a guest --- */

static void test_one_page(void **state)
{
	(void)state;
	crash_rounds(&dynamic, 8 * MIB, CRASH_BLOCK, 250);
}

/* Every block has its entry in another page of the BAT. */
static void test_many_pages(void **state)
{
	(void)state;
	crash_rounds(&dynamic, 4 * TIB, 600 * GIB, 250);
}

/* The log goes round several times. */
static void test_long(void **state)
{
	(void)state;
	crash_rounds(&dynamic, 4 * TIB, 600 * GIB, 1200);
}

static void test_child_one_page(void **state)
{
	(void)state;
	parent = crash_parent(&dynamic, parent_value, 8 * MIB, CRASH_BLOCK);
	crash_rounds(&child, 8 * MIB, CRASH_BLOCK, 250);
	store_memory_free(parent);
}

static void test_child_many_pages(void **state)
{
	(void)state;
	parent = crash_parent(&dynamic, parent_value, 4 * TIB, 600 * GIB);
	crash_rounds(&child, 4 * TIB, 600 * GIB, 250);
	store_memory_free(parent);
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

	return r < 0 ? r : d->ops->resize(d, CRASH_BLOCKS * CRASH_BLOCK + 512, err);
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
	struct crash_edit edit;
	bool child, parentless;
} edits[] = {
	{ { "grow", edit_grow }, true, true },
	{ { "move the table", edit_move_table }, true, true },
	{ { "grow and shrink", edit_grow_and_shrink }, false, true },
	{ { "compact", edit_compact }, true, true },
	{ { "another parent", edit_parent }, true, false },
};

static void test_edits(void **state)
{
	unsigned seed = crash_number("PARTITA_CRASH_SEED", 1);

	(void)state;
	parent = crash_parent(&dynamic, parent_value, 8 * MIB, CRASH_BLOCK);
	for (unsigned n = 0; n < 4 * crash_number("PARTITA_CRASH_ROUNDS", 1); n++) {
		for (unsigned i = 0; i < ARRAY_SIZE(edits); i++) {
			if (edits[i].parentless)
				crash_edit(&dynamic, &edits[i].edit, 8 * MIB, CRASH_BLOCK,
					   seed + n);
			if (edits[i].child)
				crash_edit(&child, &edits[i].edit, 8 * MIB, CRASH_BLOCK, seed + n);
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
		cmocka_unit_test(test_one_page),
		cmocka_unit_test(test_many_pages),
		cmocka_unit_test(test_long),
		cmocka_unit_test(test_child_one_page),
		cmocka_unit_test(test_child_many_pages),
		cmocka_unit_test(test_edits),
		cmocka_unit_test(test_merge),
	};
	int r;

	if (loop_new(0, &crash_loop, NULL) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(crash_loop);
	return r;
}
