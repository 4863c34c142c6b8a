// SPDX-License-Identifier: MIT
/* Addresses taken apart, and refused; rates of clients. */
#include "rest/rate.h"
#include "rest/target.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_path_and_query(void **state)
{
	struct target_text t;
	struct error err = { 0 };

	(void)state;
	assert_int_equal(
		target_parse("/api/v1/vms/a%2Fb%20c+d?name=w%2A+x&&files=true&flag", &t, &err), 0);
	assert_int_equal(t.part_count, 4);
	assert_string_equal(t.parts[2], "vms");
	assert_string_equal(t.parts[3], "a/b c+d");
	assert_int_equal(t.parameter_count, 3);
	assert_string_equal(target_query(&t, "name"), "w* x");
	assert_string_equal(target_query(&t, "files"), "true");
	assert_string_equal(target_query(&t, "flag"), "");
	assert_null(target_query(&t, "Name"));
	target_deinit(&t);
	assert_int_equal(target_parse("/", &t, &err), 0);
	assert_int_equal(t.part_count, 1);
	assert_string_equal(t.parts[0], "");
	target_deinit(&t);
}

static void test_refuses_what_is_not_plainly_right(void **state)
{
	static const char *const bad[] = {
		"",
		"*",
		"http://x/",
		"/%",
		"/%4",
		"/%4g",
		"/%00",
		"/a?b=%00",
		"/%80",
		"/%c0%af",
		"/%ed%a0%80",
		"/%f4%90%80%80",
		"/%e2%82",
		"/?%ff=1",
		"/?a=1&a=1",
		"/?a&a",
		"/?%61=1&a=2",
		"/1/2/3/4/5/6/7/8/9",
		"/?1&2&3&4&5&6&7&8&9&10&11&12&13&14&15&16&17&18&19&20&21&22&23&24&25&26&27&28&29&30"
		"&31&32&33",
	};
	static char long_one[TARGET_TEXT_MAX + 2];
	struct target_text t;
	struct error err;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		err = (struct error){ 0 };
		if (target_parse(bad[i], &t, &err) >= 0)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_true(err.code < 0 && err.message[0]);
	}
	memset(long_one, '/', sizeof(long_one) - 1);
	assert_int_equal(target_parse(long_one, &t, &err), -E2BIG);
}

#define SECOND UINT64_C(1000000000)

static void test_a_client_has_a_burst_then_a_rate(void **state)
{
	struct rate *r = rate_new(10, 20);
	unsigned taken = 0;

	(void)state;
	for (unsigned i = 0; i < 100; i++)
		taken += rate_take(r, "a", 1, SECOND);
	assert_int_equal(taken, 20);
	assert_true(rate_take(r, "b", 1, SECOND));
	assert_false(rate_take(r, "a", 1, SECOND + SECOND / 20));
	for (unsigned i = taken = 0; i < 100; i++)
		taken += rate_take(r, "a", 1, 2 * SECOND + SECOND / 10);
	assert_in_range(taken, 10, 11);
	for (unsigned i = taken = 0; i < 100; i++)
		taken += rate_take(r, "a", 1, 1000 * SECOND);
	assert_int_equal(taken, 20);
	rate_free(r);
}

static void test_many_clients_share_a_fixed_table(void **state)
{
	struct rate *r = rate_new(1, 2);

	(void)state;
	for (uint32_t i = 0; i < 100000; i++)
		assert_true(rate_take(r, &i, sizeof(i), SECOND + i));
	rate_free(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_path_and_query),
		cmocka_unit_test(test_refuses_what_is_not_plainly_right),
		cmocka_unit_test(test_a_client_has_a_burst_then_a_rate),
		cmocka_unit_test(test_many_clients_share_a_fixed_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
