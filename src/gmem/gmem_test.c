// SPDX-License-Identifier: MIT
/* Every access at and around the edges of ranges and holes, and sums that overflow. */
#include "gmem/gmem.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>

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

#define GROW_GPA (64 * (uint64_t)GMEM_PAGE_SIZE)

static struct gmem *make_growing(uint64_t size, uint64_t most)
{
	const struct gmem_range ranges[] = {
		{ .gpa = 0, .size = LOW_SIZE },
		{ .gpa = GROW_GPA, .size = size, .most = most },
	};
	struct gmem *gm;

	assert_int_equal(gmem_new(ranges, 2, &gm, NULL), 0);
	return gm;
}

static void test_grows_and_shrinks(void **state)
{
	struct gmem *gm = make_growing(0, 2 * MIB);
	uint64_t word = 0x1234, back = 0;
	void *page;

	(void)state;
	assert_int_equal(gmem_size(gm), LOW_SIZE);
	assert_int_equal(gmem_write(gm, GROW_GPA, &word, 8), -EFAULT);
	assert_null(gmem_page(gm, GROW_GPA));
	assert_int_equal(gmem_grow(gm, 3 * MIB), -ERANGE);
	assert_int_equal(gmem_grow(gm, 5), -ERANGE);
	assert_int_equal(gmem_grow(gm, MIB), 0);
	assert_int_equal(gmem_size(gm), LOW_SIZE + MIB);
	assert_int_equal(gmem_write(gm, GROW_GPA + MIB - 8, &word, 8), 0);
	assert_int_equal(gmem_write(gm, GROW_GPA + MIB - 4, &word, 8), -EFAULT);
	page = gmem_page(gm, GROW_GPA + MIB - GMEM_PAGE_SIZE);
	assert_int_equal(gmem_grow(gm, 2 * MIB), 0);
	/* what was handed out stays good */
	assert_ptr_equal(page, gmem_page(gm, GROW_GPA + MIB - GMEM_PAGE_SIZE));
	assert_int_equal(gmem_grow(gm, MIB), -ERANGE); /* only upwards */
	assert_int_equal(gmem_read(gm, GROW_GPA + MIB - 8, &back, 8), 0);
	assert_int_equal(back, word);
	gmem_shrink(gm);
	assert_int_equal(gmem_size(gm), LOW_SIZE);
	assert_int_equal(gmem_read(gm, GROW_GPA, &back, 8), -EFAULT);
	/* it comes back empty */
	assert_int_equal(gmem_grow(gm, 2 * MIB), 0);
	assert_int_equal(gmem_read(gm, GROW_GPA + MIB - 8, &back, 8), 0);
	assert_int_equal(back, 0);
	gmem_free(gm);
}

/* Pages of the map that are in RAM, asked of the kernel. */
static unsigned resident(struct gmem *gm, uint64_t gpa, unsigned pages)
{
	unsigned char in[1024];
	unsigned n = 0;

	assert_true(pages <= sizeof(in));
	assert_int_equal(mincore(gmem_page(gm, gpa), pages * (size_t)GMEM_PAGE_SIZE, in), 0);
	for (unsigned i = 0; i < pages; i++)
		n += in[i] & 1;
	return n;
}

static void test_discarded_pages_are_gone(void **state)
{
	struct gmem *gm = make_growing(4 * MIB, 8 * MIB);
	uint8_t byte = 1;

	(void)state;
	assert_int_equal(gmem_fill(gm, GROW_GPA, 0xaa, 4 * MIB), 0);
	assert_int_equal(resident(gm, GROW_GPA, 1024), 1024);
	assert_int_equal(gmem_discard(gm, GROW_GPA + MIB, 2 * MIB), 0);
	assert_int_equal(resident(gm, GROW_GPA, 1024), 512);
	assert_int_equal(gmem_read(gm, GROW_GPA + MIB, &byte, 1), 0);
	assert_int_equal(byte, 0);
	assert_int_equal(gmem_read(gm, GROW_GPA + MIB - 1, &byte, 1), 0);
	assert_int_equal(byte, 0xaa);
	assert_int_equal(gmem_read(gm, GROW_GPA + 3 * MIB, &byte, 1), 0);
	assert_int_equal(byte, 0xaa);
	/* all or nothing, and only RAM */
	assert_int_equal(gmem_discard(gm, GROW_GPA + 3 * MIB, 2 * MIB), -EFAULT);
	assert_int_equal(gmem_read(gm, GROW_GPA + 3 * MIB, &byte, 1), 0);
	assert_int_equal(byte, 0xaa);
	assert_int_equal(gmem_discard(gm, GROW_GPA + 1, GMEM_PAGE_SIZE), -EINVAL);
	assert_int_equal(gmem_discard(gm, UINT64_MAX - 4095, 8192), -EFAULT);
	assert_int_equal(gmem_discard(gm, GROW_GPA, 0), 0);
	gmem_free(gm);
}

static void *reader_thread(void *arg)
{
	struct gmem *gm = arg;
	uint64_t top = 0, word;

	while (top < 64 * MIB) {
		word = 0;
		/* what was RAM once stays RAM, while it grows */
		if (top)
			assert_int_equal(gmem_read(gm, GROW_GPA + top - 8, &word, 8), 0);
		if (!gmem_read(gm, GROW_GPA + top, &word, 8))
			top += MIB;
	}
	return NULL;
}

static void test_others_look_while_it_grows(void **state)
{
	struct gmem *gm = make_growing(0, 64 * MIB);
	pthread_t threads[2];

	(void)state;
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, reader_thread, gm), 0);
	for (uint64_t size = MIB; size <= 64 * MIB; size += MIB)
		assert_int_equal(gmem_grow(gm, size), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	gmem_free(gm);
}

static void test_bad_growth(void **state)
{
	const struct gmem_range first[] = { { .gpa = 0, .size = 4096, .most = 8192 },
					    { .gpa = MIB, .size = 4096 } };
	const struct gmem_range less = { .gpa = 0, .size = 8192, .most = 4096 };
	const struct gmem_range wraps = { .gpa = UINT64_MAX - 8191, .size = 4096, .most = 16384 };
	struct gmem *gm;

	(void)state;
	assert_int_equal(gmem_new(first, 2, &gm, NULL), -EINVAL);
	assert_int_equal(gmem_new(&less, 1, &gm, NULL), -EINVAL);
	assert_int_equal(gmem_new(&wraps, 1, &gm, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_was_touched_is_not_passed_over),
		cmocka_unit_test(test_edges),
		cmocka_unit_test(test_adjacent_ranges_are_crossed),
		cmocka_unit_test(test_iov_limits),
		cmocka_unit_test(test_bad_maps),
		cmocka_unit_test(test_grows_and_shrinks),
		cmocka_unit_test(test_discarded_pages_are_gone),
		cmocka_unit_test(test_others_look_while_it_grows),
		cmocka_unit_test(test_bad_growth),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
