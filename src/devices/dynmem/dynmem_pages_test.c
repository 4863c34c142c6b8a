// SPDX-License-Identifier: MIT
/* The set of pages against a plain array, at word edges and at random. */
#include "devices/dynmem/dynmem_pages.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define END 1000u

static struct dynmem_pages make(void)
{
	struct dynmem_pages p;

	assert_int_equal(dynmem_pages_init(&p, END), 0);
	return p;
}

static void test_runs(void **state)
{
	struct dynmem_pages p = make();
	uint64_t page, count;

	(void)state;
	assert_false(dynmem_pages_pop(&p, END, &page, &count));
	dynmem_pages_add(&p, 63, 2);
	dynmem_pages_add(&p, 128, 200);
	dynmem_pages_add(&p, END - 1, 1);
	assert_int_equal(p.count, 203);
	assert_true(dynmem_pages_any(&p, 0, 64));
	assert_false(dynmem_pages_any(&p, 0, 63));
	assert_false(dynmem_pages_any(&p, 65, 63));
	assert_true(dynmem_pages_any(&p, 65, 64));
	assert_true(dynmem_pages_pop(&p, END, &page, &count));
	assert_int_equal(page, 63);
	assert_int_equal(count, 2);
	assert_true(dynmem_pages_pop(&p, 130, &page, &count));
	assert_int_equal(page, 128);
	assert_int_equal(count, 130);
	assert_true(dynmem_pages_find(&p, 300, END, &page, &count));
	assert_int_equal(page, 300);
	assert_int_equal(count, 28);
	assert_false(dynmem_pages_pop(&p, 0, &page, &count));
	assert_true(dynmem_pages_pop(&p, END, &page, &count));
	assert_int_equal(count, 70);
	assert_true(dynmem_pages_pop(&p, END, &page, &count));
	assert_int_equal(page, END - 1);
	assert_false(dynmem_pages_pop(&p, END, &page, &count));
	assert_int_equal(p.count, 0);
	dynmem_pages_deinit(&p);
}

static void test_against_an_array(void **state)
{
	struct dynmem_pages p = make();
	bool is[END] = { 0 };
	uint64_t page, count;

	(void)state;
	srand(7);
	for (int i = 0; i < 20000; i++) {
		uint64_t at = (unsigned)rand() % END, n = 1 + (unsigned)rand() % 150, total = 0;
		bool any = false;

		n = MIN(n, END - at);
		for (uint64_t j = at; j < at + n; j++)
			any = any || is[j];
		assert_int_equal(dynmem_pages_any(&p, at, n), any);
		if (!any) {
			dynmem_pages_add(&p, at, n);
			memset(is + at, true, n);
		} else if (dynmem_pages_pop(&p, n, &page, &count)) {
			assert_true(count && count <= n);
			for (uint64_t j = 0; j < page; j++)
				assert_false(is[j]);
			for (uint64_t j = page; j < page + count; j++) {
				assert_true(is[j]);
				is[j] = false;
			}
			assert_true(count == n || page + count == END || !is[page + count]);
		}
		for (unsigned j = 0; j < END; j++)
			total += is[j];
		assert_int_equal(p.count, total);
	}
	dynmem_pages_clear(&p);
	assert_false(dynmem_pages_any(&p, 0, END));
	assert_int_equal(p.count, 0);
	dynmem_pages_deinit(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_runs),
		cmocka_unit_test(test_against_an_array),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
