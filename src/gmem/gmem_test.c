// SPDX-License-Identifier: MIT
/* Every access at and around the edges of ranges and holes, and sums that overflow. */
#include "gmem/gmem.h"

#include <errno.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

#define LOW_SIZE (4 * (uint64_t)GMEM_PAGE_SIZE)
#define HIGH_GPA (16 * (uint64_t)GMEM_PAGE_SIZE)

static struct gmem *make(void)
{
	const struct gmem_range ranges[] = {
		{ .gpa = 0, .size = LOW_SIZE },
		{ .gpa = HIGH_GPA, .size = LOW_SIZE },
		{ .gpa = HIGH_GPA + LOW_SIZE, .size = GMEM_PAGE_SIZE },
	};
	struct gmem *gm;
	struct error err = { 0 };

	assert_int_equal(gmem_new(ranges, 3, &gm, &err), 0);
	return gm;
}

static void test_edges(void **state)
{
	struct gmem *gm = make();
	uint8_t buf[32] = { 0 };

	(void)state;
	assert_int_equal(gmem_write(gm, LOW_SIZE - 16, buf, 16), 0);
	assert_int_equal(gmem_write(gm, LOW_SIZE - 15, buf, 16), -EFAULT);
	assert_int_equal(gmem_write(gm, HIGH_GPA - 1, buf, 2), -EFAULT);
	assert_int_equal(gmem_read(gm, UINT64_MAX, buf, 2), -EFAULT);
	assert_int_equal(gmem_read(gm, UINT64_MAX - 1, buf, 2), -EFAULT);
	assert_int_equal(gmem_read(gm, 0, buf, SIZE_MAX), -EFAULT);
	assert_int_equal(gmem_read(gm, UINT64_MAX, buf, 0), 0);
	assert_null(gmem_page(gm, LOW_SIZE));
	assert_null(gmem_page(gm, 1));
	assert_non_null(gmem_page(gm, HIGH_GPA));
	gmem_free(gm);
}

static void test_adjacent_ranges_are_crossed(void **state)
{
	struct gmem *gm = make();
	struct iovec iov[4];
	unsigned n = 0;
	char out[8];

	(void)state;
	assert_int_equal(gmem_write(gm, HIGH_GPA + LOW_SIZE - 4, "abcdefgh", 8), 0);
	assert_int_equal(gmem_read(gm, HIGH_GPA + LOW_SIZE - 4, out, 8), 0);
	assert_memory_equal(out, "abcdefgh", 8);
	assert_int_equal(gmem_iov(gm, HIGH_GPA + LOW_SIZE - 4, 8, iov, 4, &n), 0);
	assert_int_equal(n, 1); /* adjacent in the backing memory too */
	assert_int_equal(iov[0].iov_len, 8);
	gmem_free(gm);
}

static void test_iov_limits(void **state)
{
	struct gmem *gm = make();
	struct iovec iov[2];
	unsigned n = 0;

	(void)state;
	assert_int_equal(gmem_iov(gm, 0, 8, iov, 2, &n), 0);
	assert_int_equal(gmem_iov(gm, 4096, 8, iov, 2, &n), 0);
	assert_int_equal(gmem_iov(gm, 8192, 8, iov, 2, &n), -E2BIG);
	assert_int_equal(n, 2);
	assert_int_equal(gmem_iov(gm, LOW_SIZE - 4, 8, iov, 2, &n), -EFAULT);
	gmem_free(gm);
}

static void test_bad_maps(void **state)
{
	const struct gmem_range overlap[] = { { .gpa = 0, .size = LOW_SIZE },
					      { .gpa = 4096, .size = LOW_SIZE } };
	const struct gmem_range odd = { .gpa = 1, .size = LOW_SIZE };
	const struct gmem_range wraps = { .gpa = UINT64_MAX - 4095, .size = 8192 };
	struct error err = { 0 };
	struct gmem *gm;

	(void)state;
	assert_int_equal(gmem_new(overlap, 2, &gm, &err), -EINVAL);
	assert_int_equal(gmem_new(&odd, 1, &gm, &err), -EINVAL);
	assert_int_equal(gmem_new(&wraps, 1, &gm, &err), -EINVAL);
	assert_int_equal(gmem_new(NULL, 0, &gm, &err), -EINVAL);
	assert_true(strlen(err.message) > 0);
}

static void test_what_was_touched_is_not_passed_over(void **state)
{
	struct gmem *gm = make();
	uint64_t at = 2 * (uint64_t)GMEM_PAGE_SIZE;

	(void)state;
	assert_int_equal(gmem_write(gm, HIGH_GPA + at, "x", 1), 0);
	assert_true(gmem_next_touched(gm, 1, 0) <= at);
	assert_int_equal(gmem_next_touched(gm, 1, at), at);
	assert_true(gmem_next_touched(gm, 1, at + GMEM_PAGE_SIZE) > at);
	assert_true(gmem_next_touched(gm, 0, 0) <= LOW_SIZE);
	gmem_free(gm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_was_touched_is_not_passed_over),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_adjacent_ranges_are_crossed),
		cmocka_unit_test(test_iov_limits),
		cmocka_unit_test(test_bad_maps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
