// SPDX-License-Identifier: MIT
/* Settings from JSON and back, by way of a schema that has something of each (test.schema.json). */
#include "lib/cleanup.h"
#include "schema/schema.h"
#include "schema/test_zoo.h"

#include <errno.h>
#include <jansson.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

static int parse(const char *text, struct zoo *ret, struct error *err)
{
	/* Without the NUL, so that an overrun shows under the sanitizers. */
	size_t size = strlen(text);
	_cleanup_free_ char *copy = malloc(size + !size);

	assert_non_null(copy);
	memcpy(copy, text, size);
	return zoo_parse(copy, size, ret, err);
}

static void accept(const char *text, struct zoo *ret)
{
	struct error err = { 0 };

	if (parse(text, ret, &err) < 0)
		fail_msg("%s: %s", text, err.message);
}

/* The message begins with `start` and holds `part`; nothing was written. */
static void refuse(const char *text, const char *start, const char *part)
{
	struct zoo zoo, before;
	struct error err = { 0 };

	memset(&zoo, 0xa5, sizeof(zoo));
	memset(&before, 0xa5, sizeof(before));
	assert_int_equal(parse(text, &zoo, &err), -EINVAL);
	assert_int_equal(err.code, -EINVAL);
	assert_memory_equal(&zoo, &before, sizeof(zoo));
	if (strncmp(err.message, start, strlen(start)) || !strstr(err.message, part))
		fail_msg("%s: the message is: %s", text, err.message);
	for (const char *p = err.message; *p; p++)
		assert_in_range(*p, ' ', '~');
	assert_int_equal(parse(text, &zoo, NULL), -EINVAL);
}

static void check_defaults(const struct zoo *zoo)
{
	assert_null(zoo->note);
	assert_string_equal(zoo->keeper, "Ada \"\\");
	assert_true(zoo->open);
	assert_int_equal(zoo->small, UINT32_MAX);
	assert_int_equal(zoo->wide, INT64_MIN);
	assert_int_equal(zoo->colour, ZOO_COLOUR_GREEN);
	assert_int_equal(zoo->numbers_count, 0);
	assert_null(zoo->numbers);
	assert_int_equal(zoo->cages_count, 0);
	assert_false(zoo->gate.present);
	assert_string_equal(zoo->gate.lock, "none");
	assert_int_equal(zoo->roof.slope, 30);
}

static void test_defaults(void **state)
{
	_cleanup_(zoo_deinit) struct zoo zoo, made;

	(void)state;
	accept("{\"name\":\"a\"}", &zoo);
	assert_string_equal(zoo.name, "a");
	check_defaults(&zoo);
	assert_int_equal(zoo_init(&made), 0);
	assert_null(made.name);
	check_defaults(&made);
	zoo_deinit(&made);
	assert_null(made.keeper);
}

static const char full[] =
	"{\"name\": \"\\u00e9\\u20acxy\", \"note\": \"\", \"keeper\": \"Bob\", \"open\": false,"
	" \"small\": 0, \"wide\": 9223372036854775807, \"colour\": \"red\", \"numbers\": [-5, 0, "
	"5],"
	" \"words\": [\"a\"], \"colours\": [\"very-dark\", \"light\"], \"cages\": ["
	" {\"id\": 9, \"gate\": {\"width\": 1}, \"animals\": [{\"kind\": \"emu\", \"legs\": 2},"
	" {\"kind\": \"cat\", \"tame\": true}]}, {\"gate\": {\"width\": 2}, \"id\": 0}],"
	" \"gate\": {\"width\": 9, \"lock\": \"iron\"}, \"roof\": {\"slope\": 90}}";

static void test_everything(void **state)
{
	_cleanup_(zoo_deinit) struct zoo zoo;

	(void)state;
	accept(full, &zoo);
	assert_string_equal(zoo.name, "\xc3\xa9\xe2\x82\xacxy");
	assert_string_equal(zoo.note, "");
	assert_string_equal(zoo.keeper, "Bob");
	assert_false(zoo.open);
	assert_int_equal(zoo.small, 0);
	assert_int_equal(zoo.wide, INT64_MAX);
	assert_int_equal(zoo.colour, ZOO_COLOUR_RED);
	assert_int_equal(zoo.numbers_count, 3);
	assert_int_equal(zoo.numbers[0], -5);
	assert_int_equal(zoo.words_count, 1);
	assert_string_equal(zoo.words[0], "a");
	assert_int_equal(zoo.colours[0], ZOO_SHADE_VERY_DARK);
	assert_int_equal(zoo.cages_count, 2);
	assert_int_equal(zoo.cages[0].animals_count, 2);
	assert_int_equal(zoo.cages[0].animals[0].kind, ZOO_ANIMAL_KIND_EMU);
	assert_int_equal(zoo.cages[0].animals[0].legs, 2);
	assert_true(zoo.cages[0].animals[1].tame);
	assert_int_equal(zoo.cages[1].gate.width, 2);
	assert_true(zoo.cages[1].gate.present);
	assert_true(zoo.gate.present);
	assert_string_equal(zoo.gate.lock, "iron");
	assert_int_equal(zoo.roof.slope, 90);
}

/* What is written reads back, and is written the same again; the defaults are in it. */
static void test_format(void **state)
{
	static const char *const texts[] = { "{\"name\":\"a\"}", full };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		_cleanup_(zoo_deinit) struct zoo one, two;
		_cleanup_free_ char *first = NULL, *second = NULL;

		accept(texts[i], &one);
		first = zoo_format(&one);
		assert_non_null(first);
		accept(first, &two);
		second = zoo_format(&two);
		assert_non_null(second);
		assert_string_equal(first, second);
		assert_non_null(strstr(second, "\"slope\": "));
		assert_true(!!strstr(second, "\"gate\"") == i);
		assert_true(!!strstr(second, "\"note\"") == i);
	}
}

/* As a program fills in a struct by itself. */
static void test_format_made(void **state)
{
	_cleanup_(zoo_deinit) struct zoo zoo;
	_cleanup_free_ char *text = NULL;
	struct zoo_cage *cage;

	(void)state;
	assert_int_equal(zoo_init(&zoo), 0);
	zoo.name = strdup("b");
	cage = schema_append(schema_find(&zoo_schema, "cages"), &zoo);
	assert_ptr_equal(cage, zoo.cages);
	cage->gate.width = 3;
	assert_non_null(schema_append(schema_find(&zoo_schema, "cages"), &zoo));
	assert_null(schema_append(schema_find(&zoo_schema, "cages"), &zoo));
	text = zoo_format(&zoo);
	assert_non_null(text);
	assert_non_null(strstr(text, "\"lock\": \"none\""));
	assert_non_null(strstr(text, "\"animals\": []"));
	zoo.name[0] = (char)0xff;
	errno = 0;
	assert_null(zoo_format(&zoo));
	assert_int_equal(errno, EILSEQ);
}

static void test_find(void **state)
{
	const struct schema_field *f = schema_find(&zoo_schema, "roof.slope");

	(void)state;
	assert_string_equal(f->name, "slope");
	assert_string_equal(f->unit, "degree");
	assert_string_equal(f->option, "steepness");
	assert_int_equal(f->when, SCHEMA_AS_ABOVE);
	f = schema_find(&zoo_schema, "roof");
	assert_string_equal(f->operation, "build");
	assert_int_equal(f->when, SCHEMA_ANY_TIME);
	assert_string_equal(schema_find(&zoo_schema, "cages[].animals[].legs")->name, "legs");
	assert_null(schema_find(&zoo_schema, "roo"));
	assert_null(schema_find(&zoo_schema, "roof.slopes"));
	assert_null(schema_find(&zoo_schema, "cages.id"));
	assert_null(schema_find(&zoo_schema, "name.x"));
	assert_null(schema_find(&zoo_schema, ""));
}

static void test_keys(void **state)
{
	(void)state;
	refuse("{\"name\":\"a\",\"nmae\":1}", "the document: unknown key \"nmae\"",
	       "known ones are name, note, keeper, open");
	refuse("{\"name\":\"a\",\"cages\":[{\"id\":1,\"gate\":{\"width\":1,\"w\":1}}]}",
	       "cages[0].gate: unknown key \"w\"", "are width, lock");
	refuse("{\"name\":\"a\",\"\\n\\u001b\\u009b\":1}", "the document: unknown key \"????\"",
	       "");
	refuse("{\"name\":\"a\",\"name\":\"b\"}", "line 1, column ", "duplicate");
	refuse("{\"name\":\"a\",\"cages\":[{\"id\":1,\n\"id\":1}]}", "line 2, column ",
	       "duplicate");
	refuse("{}", "name: is missing", "give a string");
	refuse("{\"name\":\"a\",\"gate\":{}}", "gate.width: is missing", "give an integer");
	refuse("{\"name\":\"a\",\"cages\":[{\"id\":1}]}", "cages[0].gate: is missing", "an object");
	refuse("{\"name\":\"a\",\"present\":true}", "the document: unknown key \"present\"", "");
	refuse("{\"name\":\"a\",\"words_count\":1}", "the document: unknown key", "");
}

static void test_types(void **state)
{
	static const struct {
		const char *field, *value, *message;
	} cases[] = {
		{ "note", "1", "note: must be a string, not an integer" },
		{ "note", "null", "note: must be a string, not null" },
		{ "open", "1", "open: must be true or false, not an integer" },
		{ "open", "\"true\"", "open: must be true or false, not a string" },
		{ "small", "1.0", "small: must be an integer, not a number with a fraction" },
		{ "small", "1e3", "small: must be an integer, not a number with a fraction" },
		{ "small", "true", "small: must be an integer, not a boolean" },
		{ "wide", "[]", "wide: must be an integer, not an array" },
		{ "colour", "0", "colour: must be a string, not an integer" },
		{ "cages", "{}", "cages: must be an array, not an object" },
		{ "cages", "[[]]", "cages[0]: must be an object, not an array" },
		{ "numbers", "[0, null]", "numbers[1]: must be an integer, not null" },
		{ "gate", "null", "gate: must be an object, not null" },
		{ "roof", "[]", "roof: must be an object, not an array" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char text[128];

		snprintf(text, sizeof(text), "{\"name\":\"a\",\"%s\":%s}", cases[i].field,
			 cases[i].value);
		refuse(text, cases[i].message, "");
	}
	refuse("[]", "the document: must be an object, not an array", "");
}

static void test_ranges(void **state)
{
	(void)state;
	refuse("{\"name\":\"a\",\"small\":-1}", "small: -1 is out of range",
	       "give 0 to 4294967295");
	refuse("{\"name\":\"a\",\"small\":4294967296}", "small: 4294967296 is out of range", "");
	refuse("{\"name\":\"a\",\"numbers\":[1,6]}", "numbers[1]: 6 is out", "give -5 to 5");
	refuse("{\"name\":\"a\",\"wide\":9223372036854775808}", "line 1, column ", "too big");
	refuse("{\"name\":\"a\",\"wide\":-9223372036854775809}", "line 1, column ", "too ");
	refuse("{\"name\":\"a\",\"wide\":1e400}", "line 1, column ", "overflow");
	refuse("{\"name\":\"\"}", "name: has 0 characters", "give 1 to 4");
	refuse("{\"name\":\"\\u00e9\\u00e9\\u00e9\\u00e9\\u00e9\"}", "name: has 5 characters", "");
	refuse("{\"name\":\"a\",\"colour\":\"blue\"}", "colour: \"blue\" is not known",
	       "red, green");
	refuse("{\"name\":\"a\",\"colour\":\"\"}", "colour: \"\" is not known", "");
	refuse("{\"name\":\"a\",\"colour\":\"0123456789012345678901234567890123456789\"}",
	       "colour: \"012345678901234567890123456789012345...\" is not known", "");
	refuse("{\"name\":\"a\",\"words\":[\"a\",\"b\",\"c\"]}", "words: has 3 items",
	       "give at most 2");
	refuse("{\"name\":\"a\",\"cages\":[{\"id\":1,\"gate\":{\"width\":1},\"animals\":[{},{},{}]}"
	       "]}",
	       "cages[0].animals: has 3 items", "give at most 2");
}

static void test_malformed(void **state)
{
	struct error err = { 0 };
	struct zoo zoo;

	(void)state;
	refuse("", "line 1, column 0 of the JSON text", "correct it there");
	refuse("{\"name\":\"\xff\"}", "line 1, column ", "");
	refuse("{\"name\":\"\xc0\x80\"}", "line 1, column ", "");
	refuse("{\"name\":\"\\ud800\"}", "line 1, column ", "");
	refuse("{\"name\":\"\\u0000\"}", "line 1, column ", "");
	refuse("{\"name\":\"\\", "line 1, column ", "");
	refuse("{\"name\":\"a\"}}", "line 1, column ", "end of file");
	refuse("{\"name\":\"a\",}", "line 1, column ", "");
	refuse("\xef\xbb\xbf{\"name\":\"a\"}", "line 1, column ", "");
	assert_int_equal(zoo_parse("{\"name\":\0\"a\"}", 13, &zoo, &err), -EINVAL);
	assert_int_equal(zoo_parse(NULL, 0, &zoo, &err), -EINVAL);
}

/* A good text cut anywhere is refused. */
static void test_truncated(void **state)
{
	(void)state;
	for (size_t n = 0; n < sizeof(full) - 1; n++) {
		_cleanup_free_ char *text = strndup(full, n);

		assert_non_null(text);
		refuse(text, "line 1, column ", "");
	}
}

static void test_deep(void **state)
{
	_cleanup_(zoo_deinit) struct zoo zoo;
	char text[256], deep[201] = "";

	(void)state;
	memset(deep, '[', sizeof(deep) - 1);
	refuse(deep, "the JSON text nests deeper than 32", "flatter");
	snprintf(text, sizeof(text), "{\"name\":%s", deep);
	refuse(text, "the JSON text nests deeper than 32", "flatter");
	deep[SCHEMA_DEPTH_MAX] = '\0';
	refuse(deep, "line 1, column 32", "");
	/* Brackets in strings do not count. */
	deep[SCHEMA_DEPTH_MAX] = '[';
	snprintf(text, sizeof(text), "{\"name\":\"a\",\"note\":\"\\\"%s\"}", deep);
	accept(text, &zoo);
	assert_int_equal(strlen(zoo.note), 201);
}

static void test_big(void **state)
{
	_cleanup_free_ char *text = malloc(SCHEMA_TEXT_MAX + 1);
	struct error err = { 0 };
	struct zoo zoo;

	(void)state;
	assert_non_null(text);
	memset(text, ' ', SCHEMA_TEXT_MAX + 1);
	memcpy(text, "{\"name\":\"a\"}", 12);
	assert_int_equal(zoo_parse(text, SCHEMA_TEXT_MAX + 1, &zoo, &err), -EFBIG);
	assert_non_null(strstr(err.message, "1048577 bytes; give at most 1048576"));
	assert_int_equal(zoo_parse(text, SCHEMA_TEXT_MAX, &zoo, &err), 0);
	zoo_deinit(&zoo);
}

/* The texts that help and documentation are made from. */
static void test_descriptions(void **state)
{
	const struct schema_object *o = &zoo_schema;

	(void)state;
	assert_string_equal(o->fields[0].description, "A \"name\" \\ \xc3\xa9.");
	assert_true(o->fields[0].required);
	assert_string_equal(o->fields[11].name, "gate");
	assert_string_equal(o->fields[11].description, "The way in.");
	assert_string_equal(o->fields[11].object->description, "A gate.");
	assert_string_equal(zoo_shade_names[ZOO_SHADE_VERY_DARK], "very-dark");
}

static unsigned allocations_left;

static void *failing_malloc(size_t size)
{
	return allocations_left && allocations_left-- ? malloc(size) : NULL;
}

/* Each of the JSON library's allocations fails once. Now and then it takes that for bad syntax. */
static void test_no_memory(void **state)
{
	unsigned n = 0;
	int r = -ENOMEM;

	(void)state;
	for (; r < 0; n++) {
		struct error err = { 0 };
		struct zoo zoo;

		json_set_alloc_funcs(failing_malloc, free);
		allocations_left = n;
		r = parse(full, &zoo, &err);
		json_set_alloc_funcs(malloc, free);
		assert_true(r == 0 || r == -ENOMEM || r == -EINVAL);
		assert_true(r == 0 || (err.code == r && err.message[0]));
		if (r == 0)
			zoo_deinit(&zoo);
	}
	assert_in_range(n, 10, 10000);
}

static void test_format_no_memory(void **state)
{
	_cleanup_(zoo_deinit) struct zoo zoo;
	_cleanup_free_ char *text = NULL;

	(void)state;
	accept(full, &zoo);
	for (unsigned n = 0; !text; n++) {
		json_set_alloc_funcs(failing_malloc, free);
		allocations_left = n;
		text = zoo_format(&zoo);
		json_set_alloc_funcs(malloc, free);
		assert_true(text || errno == ENOMEM);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_everything),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_format_made),
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_types),
		cmocka_unit_test(test_ranges),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_deep),
		cmocka_unit_test(test_big),
		cmocka_unit_test(test_descriptions),
		cmocka_unit_test(test_no_memory),
		cmocka_unit_test(test_format_no_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
