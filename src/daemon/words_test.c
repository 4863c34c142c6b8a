// SPDX-License-Identifier: MIT
/* Text that is no UTF-8, times, and names of codes. */
#include "daemon/words.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void test_only_what_is_no_utf8_is_replaced(void **state)
{
	static const struct {
		const char *text, *clean;
	} cases[] = {
		{ "", "" },
		{ "plain", "plain" },
		{ "\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xa7", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xa7" },
		{ "cut \xe2\x82", "cut ??" },
		{ "\x80"
		  "a",
		  "?a" },
		{ "\xc0\xaf", "??" },           /* longer than due */
		{ "\xed\xa0\x80", "???" },      /* a surrogate */
		{ "\xf4\x90\x80\x80", "????" }, /* above U+10FFFF */
		{ "\xf0\x9f\x90", "???" },
		{ "\xff", "?" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[32];
		json_t *json;

		strcpy(text, cases[i].text);
		text_clean(text);
		assert_string_equal(text, cases[i].clean);
		json = json_text(cases[i].text);
		assert_string_equal(json_string_value(json), cases[i].clean);
		json_decref(json);
	}
	assert_true(json_is_null(json_text(NULL)));
}

static void test_times_are_iso_8601(void **state)
{
	json_t *json = json_time(1796058355007);

	(void)state;
	assert_string_equal(json_string_value(json), "2026-11-30T17:05:55.007Z");
	json_decref(json);
	assert_true(json_is_null(json_time(0)));
	assert_true(json_is_null(json_time(-1)));
	assert_true(json_is_null(json_time(INT64_MAX)));
}

static void test_codes_have_stable_names(void **state)
{
	(void)state;
	assert_string_equal(error_code_name(-ENOENT), "not-found");
	assert_string_equal(error_code_name(-EACCES), "forbidden");
	assert_string_equal(error_code_name(-ECANCELED), "cancelled");
	assert_string_equal(error_code_name(-EIO), "internal");
	assert_string_equal(error_code_name(0), "internal");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_what_is_no_utf8_is_replaced),
		cmocka_unit_test(test_times_are_iso_8601),
		cmocka_unit_test(test_codes_have_stable_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
