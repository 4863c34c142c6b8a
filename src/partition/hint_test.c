// SPDX-License-Identifier: MIT
/* Cold hints: what is freed, and that a call with anything wrong in it frees nothing. */
#include "partition/hint.h"

#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define RAM   (16 * MIB)
#define INPUT 0x1000u
#define COLD  HV_HEAT_HINT_COLD_DISCARD

static struct gmem *make(void)
{
	const struct gmem_range ram = { .gpa = 0, .size = RAM };
	struct gmem *gm;

	assert_int_equal(gmem_new(&ram, 1, &gm, NULL), 0);
	assert_int_equal(gmem_fill(gm, 2 * MIB, 0x5a, 14 * MIB), 0);
	return gm;
}

static unsigned resident(struct gmem *gm, uint64_t gpa, size_t pages)
{
	unsigned char in[4096];
	unsigned n = 0;

	assert_int_equal(mincore(gmem_page(gm, gpa), pages * GMEM_PAGE_SIZE, in), 0);
	for (size_t i = 0; i < pages; i++)
		n += in[i] & 1;
	return n;
}

static uint64_t large(uint64_t gpa, unsigned pages)
{
	return gpa | HV_GPA_RANGE_LARGE | (pages - 1);
}

static uint64_t small(uint64_t gpa, unsigned pages)
{
	return gpa | (pages - 1);
}

static uint16_t call(struct gmem *gm, uint64_t head, const uint64_t *ranges, unsigned count,
		     uint64_t *ret_bytes)
{
	struct vp_exit x = { .hypercall = { .control = HVCALL_EXT_HEAT_HINT | (uint64_t)count << 32,
					    .input = INPUT } };

	assert_int_equal(gmem_write(gm, INPUT, &head, 8), 0);
	assert_int_equal(gmem_write(gm, INPUT + 8, ranges, 8 * count), 0);
	return hint_discard(gm, &x, ret_bytes).value;
}

static void test_cold_pages_are_freed(void **state)
{
	struct gmem *gm = make();
	const uint64_t ranges[] = { large(4 * MIB, 2), small(10 * MIB + 4096, 3) };
	uint64_t bytes;

	(void)state;
	assert_int_equal(call(gm, COLD, ranges, 2, &bytes), 0);
	assert_int_equal(bytes, 4 * MIB + 3 * 4096);
	assert_int_equal(resident(gm, 2 * MIB, 512), 512);
	assert_int_equal(resident(gm, 4 * MIB, 1024), 0);
	assert_int_equal(resident(gm, 8 * MIB, 512), 512);
	assert_int_equal(resident(gm, 10 * MIB, 5), 2);
	gmem_free(gm);
}

static void test_anything_wrong_frees_nothing(void **state)
{
	struct gmem *gm = make();
	const uint64_t lies[] = {
		large(16 * MIB, 1),                         /* beyond RAM */
		large(14 * MIB, 2),                         /* over its end */
		large(4 * MIB, 1) | HV_GPA_RANGE_1G,        /* pages of 1 GiB */
		large(UINT64_MAX & ~(2 * MIB - 1), 1),      /* the last there is */
		small(UINT64_MAX & ~UINT64_C(0xfff), 2048), /* wraps */
	};
	uint64_t ranges[2] = { large(4 * MIB, 1) }, bytes;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lies); i++) {
		ranges[1] = lies[i];
		assert_int_equal(call(gm, COLD, ranges, 2, &bytes), 5);
		assert_int_equal(bytes, 0);
	}
	assert_int_equal(call(gm, 1, ranges, 1, &bytes), 5); /* hot */
	assert_int_equal(call(gm, COLD | 4, ranges, 1, &bytes), 5);
	assert_int_equal(call(gm, COLD, ranges, 0, &bytes), 3);
	assert_int_equal(resident(gm, 4 * MIB, 512), 512);
	gmem_free(gm);
}

static void test_bad_input(void **state)
{
	struct gmem *gm = make();
	struct vp_exit x = { .hypercall.input = INPUT };
	uint64_t bytes;

	(void)state;
	x.hypercall.control = HVCALL_EXT_HEAT_HINT | UINT64_C(512) << 32; /* more than a page */
	assert_int_equal(hint_discard(gm, &x, &bytes).value, 3);
	x.hypercall.control = HVCALL_EXT_HEAT_HINT | UINT64_C(1) << 32 | UINT64_C(1) << 48;
	assert_int_equal(hint_discard(gm, &x, &bytes).value, 3);
	x.hypercall.control = HVCALL_EXT_HEAT_HINT | UINT64_C(1) << 32 | HV_HYPERCALL_FAST;
	assert_int_equal(hint_discard(gm, &x, &bytes).value, 3);
	x.hypercall.control = HVCALL_EXT_HEAT_HINT | UINT64_C(1) << 32;
	x.hypercall.input = INPUT + 4;
	assert_int_equal(hint_discard(gm, &x, &bytes).value, 4);
	x.hypercall.input = INPUT + 4096 - 8; /* crosses the page */
	assert_int_equal(hint_discard(gm, &x, &bytes).value, 4);
	x.hypercall.input = RAM;
	assert_int_equal(hint_discard(gm, &x, &bytes).value, 5);
	gmem_free(gm);
}

static void test_query(void **state)
{
	struct gmem *gm = make();
	struct vp_exit x = { .hypercall = { .control = HVCALL_EXT_QUERY, .output = 0x3000 } };
	uint64_t word = 0;

	(void)state;
	assert_int_equal(hint_query(gm, &x).value, 0);
	assert_int_equal(gmem_read(gm, 0x3000, &word, 8), 0);
	assert_int_equal(word, 0x100);
	x.hypercall.output = 0x3001;
	assert_int_equal(hint_query(gm, &x).value, 4);
	x.hypercall.output = RAM;
	assert_int_equal(hint_query(gm, &x).value, 5);
	x.hypercall.control |= HV_HYPERCALL_FAST;
	assert_int_equal(hint_query(gm, &x).value, 3);
	gmem_free(gm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cold_pages_are_freed),
		cmocka_unit_test(test_anything_wrong_frees_nothing),
		cmocka_unit_test(test_bad_input),
		cmocka_unit_test(test_query),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
