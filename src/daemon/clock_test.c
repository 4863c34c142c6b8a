// SPDX-License-Identifier: MIT
/* When the clock is to be trusted. */
#include "daemon/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define HOUR (INT64_C(3600) * 1000)

static void test_a_clock_is_steady_after_an_hour(void **state)
{
	struct clock_watch w;

	(void)state;
	clock_watch_init(&w);
	assert_false(clock_steady(&w));
	w.since -= HOUR - 5000;
	assert_false(clock_steady(&w));
	w.since -= 5000;
	assert_true(clock_steady(&w));
	/* NTP's small corrections are none of anybody's business */
	time_shift(2000);
	assert_true(clock_steady(&w));
	time_shift(0);
	assert_true(clock_steady(&w));
}

static void test_a_clock_that_was_set_is_not_steady(void **state)
{
	static const int64_t shifts[] = { 90000, -90000, 100 * 24 * HOUR, -100 * 24 * HOUR };
	struct clock_watch w;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(shifts); i++) {
		clock_watch_init(&w);
		w.since -= 2 * HOUR;
		assert_true(clock_steady(&w));
		time_shift(shifts[i]);
		assert_false(clock_steady(&w));
		assert_false(clock_steady(&w));
		/* set right again: from then on it has to be steady anew */
		w.since -= 2 * HOUR;
		time_shift(0);
		assert_false(clock_steady(&w));
		w.since -= HOUR;
		assert_true(clock_steady(&w));
	}
}

static void test_time_since_boot_passes(void **state)
{
	int64_t before = time_boot_ms();

	(void)state;
	time_shift(-1000000);
	assert_true(time_boot_ms() >= before);
	assert_true(time_ms() < before + INT64_C(4102444800000)); /* and is another thing */
	time_shift(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_clock_is_steady_after_an_hour),
		cmocka_unit_test(test_a_clock_that_was_set_is_not_steady),
		cmocka_unit_test(test_time_since_boot_passes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
