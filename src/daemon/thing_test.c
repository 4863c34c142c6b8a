// SPDX-License-Identifier: MIT
/* Switches and pools: names, revisions, keys, and who may. */
#include "daemon/thing.h"
#include "daemon/vm_testing.h"

static int create(struct test *t, const struct caller *c, const char *text, const char *key,
		  char ret_id[static GUID_TEXT_SIZE], struct error *err)
{
	json_t *json = quoted(text), *thing;
	uint64_t revision;
	int r = thing_create(t->d, c, THING_SWITCH, json, key, &thing, &revision, err);

	json_decref(json);
	if (r < 0)
		return r;
	strcpy(ret_id, json_string_value(json_object_get(thing, "id")));
	json_decref(thing);
	return 0;
}

static uint64_t revision_of(struct test *t, const char *name)
{
	struct error err = { 0 };
	uint64_t revision;
	json_t *thing;

	if (thing_get(t->d, &ada, THING_SWITCH, name, &thing, &revision, &err) < 0)
		fail_msg("%s", err.message);
	json_decref(thing);
	return revision;
}

static int change_to(struct test *t, const char *id, const char *text, uint64_t revision,
		     struct error *err)
{
	json_t *patch = quoted(text);
	int r = thing_change(t->d, &ada, THING_SWITCH, id, patch, revision, err);

	json_decref(patch);
	return r;
}

static void test_names_do_not_repeat(void **state)
{
	struct test *t = *state;
	char id[GUID_TEXT_SIZE], other[GUID_TEXT_SIZE];
	struct error err = { 0 };

	assert_int_equal(create(t, &ada, "{'name':'lan'}", NULL, id, &err), 0);
	assert_int_equal(create(t, &ada, "{'name':'lan'}", NULL, other, &err), -EEXIST);
	assert_string_equal(err.property, "name");
	assert_int_equal(create(t, &ada, "{'name':'wan'}", NULL, other, &err), 0);
	assert_int_equal(change_to(t, other, "{'name':'lan'}", 0, &err), -EEXIST);
	assert_int_equal(change_to(t, other, "{'name':'wan'}", 0, &err), 0);
}

static void test_a_change_needs_the_revision(void **state)
{
	struct test *t = *state;
	char id[GUID_TEXT_SIZE];
	struct error err = { 0 };
	uint64_t first;

	assert_int_equal(create(t, &ada, "{'name':'lan'}", NULL, id, &err), 0);
	first = revision_of(t, id);
	assert_int_equal(change_to(t, id, "{'notes':'a'}", first, &err), 0);
	assert_true(revision_of(t, "lan") > first);
	assert_int_equal(change_to(t, id, "{'notes':'b'}", first, &err), -ESTALE);
	assert_int_equal(thing_remove(t->d, &ada, THING_SWITCH, id, first, &err), -ESTALE);
	test_again(t); /* and all that is kept */
	assert_int_equal(change_to(t, id, "{'notes':'b'}", revision_of(t, id), &err), 0);
	assert_int_equal(thing_remove(t->d, &ada, THING_SWITCH, id, 0, &err), 0);
	assert_int_equal(thing_remove(t->d, &ada, THING_SWITCH, id, 0, &err), -ENOENT);
	assert_int_equal(change_to(t, id, "{}", 0, &err), -ENOENT);
}

static void test_a_key_makes_one(void **state)
{
	struct test *t = *state;
	char id[GUID_TEXT_SIZE], again[GUID_TEXT_SIZE];
	struct error err = { 0 };

	assert_int_equal(create(t, &ada, "{'name':'lan'}", "k", id, &err), 0);
	assert_int_equal(create(t, &ada, "{'name':'lan'}", "k", again, &err), 0);
	assert_string_equal(id, again);
	assert_int_equal(events_of(t, "switch-created"), 1);
	assert_int_equal(create(t, &ada, "{'name':'wan'}", "k", again, &err), -EKEYREJECTED);
	assert_int_equal(thing_remove(t->d, &ada, THING_SWITCH, id, 0, &err), 0);
	assert_int_equal(create(t, &ada, "{'name':'lan'}", "k", again, &err), 0);
	assert_string_not_equal(id, again);
}

static json_t *make_pool(struct test *t, const char *name)
{
	json_t *settings = json_pack("{s:s}", "name", name), *pool;
	struct error err = { 0 };
	uint64_t revision;

	if (thing_create(t->d, &ada, THING_POOL, settings, NULL, &pool, &revision, &err) < 0)
		fail_msg("%s", err.message);
	json_decref(settings);
	return pool;
}

/* What machines are to name must be there, whichever setting names it. */
static void test_what_is_named_must_be_there(void **state)
{
	static const struct {
		const char *settings, *property;
	} cases[] = {
		{ "{'name':'a','pool':'gold'}", "pool" },
		{ "{'name':'a','scsi_controllers':[{},{'drives':[{'location':1,'path':'a'},"
		  "{'location':2,'path':'b','pool':'gold'}]}]}",
		  "scsi_controllers[1].drives[1].pool" },
		{ "{'name':'a','network_adapters':[{'pool':'gold'}]}", "network_adapters[0].pool" },
		{ "{'name':'a','network_adapters':[{},{'switch':'gold'}]}",
		  "network_adapters[1].switch" },
	};
	struct test *t = *state;
	char id[GUID_TEXT_SIZE];
	struct error err;
	struct vm *vm;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		err = (struct error){ 0 };
		assert_int_equal(try_make(t, &ada, cases[i].settings, &vm, &err), -EINVAL);
		assert_string_equal(err.property, cases[i].property);
		assert_words(err, "\"gold\"; make it first");
	}
	assert_int_equal(t->d->vm_count, 0);
	json_decref(make_pool(t, "gold"));
	assert_int_equal(create(t, &ada, "{'name':'gold'}", NULL, id, &err), 0);
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		make(t, cases[i].settings);
	vm = make(t, "{'name':'b','pool':'Primordial'}");
	assert_int_equal(change(vm, &ada, "{'pool':'silver'}", 0, &err), -EINVAL);
	assert_string_equal(err.property, "pool");
	assert_int_equal(change(vm, &ada, "{'pool':'gold'}", 0, &err), 0);
}

static void test_what_is_used_stays(void **state)
{
	struct test *t = *state;
	json_t *pool = make_pool(t, "gold");
	const char *id = json_string_value(json_object_get(pool, "id"));
	json_t *patch = quoted("{'name':'silver'}"), *notes = quoted("{'notes':'x'}");
	struct vm *vm = make(t, "{'name':'a','pool':'gold'}");
	struct error err = { 0 };
	char by_id[64];

	assert_int_equal(thing_remove(t->d, &ada, THING_POOL, id, 0, &err), -EBUSY);
	assert_words(err, "used by 1 machine, the first of them \"a\"");
	assert_int_equal(thing_change(t->d, &ada, THING_POOL, id, patch, 0, &err), -EBUSY);
	assert_int_equal(thing_change(t->d, &ada, THING_POOL, id, notes, 0, &err), 0);
	test_again(t);
	assert_int_equal(thing_remove(t->d, &ada, THING_POOL, id, 0, &err), -EBUSY);
	vm = only(t);
	assert_int_equal(change(vm, &ada, "{'pool':'Primordial'}", 0, &err), 0);
	assert_int_equal(thing_change(t->d, &ada, THING_POOL, id, patch, 0, &err), 0);
	/* By its id it may have any name. */
	snprintf(by_id, sizeof(by_id), "{'pool':'%s'}", id);
	assert_int_equal(change(vm, &ada, by_id, 0, &err), 0);
	json_object_set_new(notes, "name", json_string("gold"));
	assert_int_equal(thing_change(t->d, &ada, THING_POOL, id, notes, 0, &err), 0);
	assert_int_equal(thing_remove(t->d, &ada, THING_POOL, id, 0, &err), -EBUSY);
	assert_int_equal(vm_remove(t->d, &ada, vm, true, &err), 0);
	assert_int_equal(thing_remove(t->d, &ada, THING_POOL, id, 0, &err), 0);
	json_decref(pool);
	json_decref(patch);
	json_decref(notes);
}

static void test_who_may(void **state)
{
	struct test *t = *state;
	char id[GUID_TEXT_SIZE];
	struct error err = { 0 };
	uint64_t revision;
	json_t *thing;

	assert_int_equal(create(t, &bob, "{'name':'lan'}", NULL, id, &err), -EACCES);
	assert_int_equal(create(t, &ada, "{'name':'lan'}", NULL, id, &err), 0);
	assert_int_equal(thing_get(t->d, &bob, THING_SWITCH, id, &thing, &revision, &err), -EACCES);
	assert_int_equal(thing_remove(t->d, &bob, THING_SWITCH, id, 0, &err), -EACCES);
	assert_int_equal(revision_of(t, "lan"), revision_of(t, id));
}

static int count_one(void *context, json_t *thing, uint64_t revision)
{
	(void)thing;
	(void)revision;
	++*(unsigned *)context;
	return 0;
}

static void test_primordial_stays(void **state)
{
	struct test *t = *state;
	struct error err = { 0 };
	unsigned count = 0;
	json_t *patch = quoted("{'name':'other'}");

	assert_int_equal(things_init(t->d, &err), 0);
	assert_int_equal(things_init(t->d, &err), 0);
	assert_int_equal(things_each(t->d, &ada, THING_POOL, count_one, &count, &err), 0);
	assert_int_equal(count, 1);
	assert_int_equal(thing_change(t->d, &ada, THING_POOL, "Primordial", patch, 0, &err),
			 -EEXIST);
	assert_int_equal(thing_remove(t->d, &ada, THING_POOL, "Primordial", 0, &err), -EEXIST);
	json_decref(patch);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, test_setup, test_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_names_do_not_repeat),
		TEST(test_a_change_needs_the_revision),
		TEST(test_a_key_makes_one),
		TEST(test_who_may),
		TEST(test_what_is_named_must_be_there),
		TEST(test_what_is_used_stays),
		TEST(test_primordial_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
