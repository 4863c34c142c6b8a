// SPDX-License-Identifier: MIT
/* vmbus_math.h, exhaustively over small sizes, and at the top of each type. */
#include "lib/types.h"
#include "vmbus/vmbus_math.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void test_ring_indices(void **state)
{
	(void)state;
	for (uint32_t size = 8; size <= 256; size += 8)
		for (uint32_t in = 0; in < size; in += 8)
			for (uint32_t out = 0; out < size; out += 8) {
				uint32_t used = ring_used(in, out, size);

				assert_true(used < size);
				assert_int_equal(ring_advance(out, used, size), in);
				for (uint32_t n = 0; n <= size; n += 8)
					assert_int_equal(ring_advance(out, n, size),
							 (out + n) % size);
			}
}

static void test_ring_index_validity(void **state)
{
	(void)state;
	for (uint32_t size = 0; size <= 300; size++)
		for (uint32_t index = 0; index <= 300; index++)
			assert_int_equal(ring_index_valid(index, size),
					 index < size && !(index & 7));
	assert_false(ring_index_valid(UINT32_MAX, UINT32_MAX));
}

/* Where sums would wrap. */
static void test_ring_indices_at_the_top(void **state)
{
	const uint32_t size = UINT32_MAX - 7;

	(void)state;
	assert_int_equal(ring_advance(UINT32_MAX - 15, 8, size), 0);
	assert_int_equal(ring_advance(UINT32_MAX - 15, 16, size), 8);
	assert_int_equal(ring_advance(size - 8, size, size), size - 8);
	assert_int_equal(ring_used(0, size - 8, size), 8);
	assert_int_equal(ring_used(size - 8, 0, size), size - 8);
	assert_int_equal(ring_used(size - 16, size - 8, size), size - 8);
}

/* Against counting: the pages of the first and the last byte. */
static void test_range_pages(void **state)
{
	(void)state;
	for (uint32_t offset = 0; offset < 4096; offset++)
		for (uint32_t bytes = 1; bytes <= 3 * 4096 + 2;
		     bytes += bytes < 4 || bytes % 4096 < 3 || bytes % 4096 > 4092 ? 1 : 97)
			assert_int_equal(range_pages(bytes, offset),
					 (offset + bytes - 1) / 4096 + 1);
	assert_int_equal(range_pages(0, 0), 0);
	assert_int_equal(range_pages(UINT32_MAX, 4095),
			 (UINT64_C(4095) + UINT32_MAX - 1) / 4096 + 1);
}

static void test_page_numbers(void **state)
{
	(void)state;
	assert_true(pfn_addressable(0));
	assert_true(pfn_addressable(UINT64_MAX >> 12));
	assert_false(pfn_addressable((UINT64_MAX >> 12) + 1));
	assert_false(pfn_addressable(UINT64_MAX));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ring_indices),
		cmocka_unit_test(test_ring_index_validity),
		cmocka_unit_test(test_ring_indices_at_the_top),
		cmocka_unit_test(test_range_pages),
		cmocka_unit_test(test_page_numbers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
