// SPDX-License-Identifier: MIT
/* Options of settings, from the tables of the schemas. */
#include "cli/setting.h"
#include "daemon/host_settings.h"
#include "daemon/vm_settings.h"

#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* What options make of a patch; compared with JSON as text. */
static void applies(const char *expected, const char *name, const char *text)
{
	json_t *patch = json_object(), *want = json_loads(expected, 0, NULL);
	struct error err = { 0 };

	assert_int_equal(setting_apply(&vm_settings_schema, patch, name, text, &err), 0);
	assert_non_null(want);
	if (!json_equal(patch, want)) {
		json_dumpf(patch, stderr, 0);
		fail_msg("--%s %s is not %s", name, text, expected);
	}
	json_decref(patch);
	json_decref(want);
}

static void refuses(const char *words, const char *name, const char *text)
{
	json_t *patch = json_object();
	struct error err = { 0 };

	assert_int_equal(setting_apply(&vm_settings_schema, patch, name, text, &err), -EINVAL);
	if (!strstr(err.message, words))
		fail_msg("\"%s\" has not \"%s\"", err.message, words);
	assert_int_equal(json_object_size(patch), 0);
	json_decref(patch);
}

static void test_names_come_from_the_schema_or_the_path(void **state)
{
	char name[SETTING_NAME_MAX];
	bool flag;

	(void)state;
	setting_option(&vm_settings_schema, "processors.count", name);
	assert_string_equal(name, "cpus");
	setting_option(&vm_settings_schema, "memory.startup", name);
	assert_string_equal(name, "memory");
	setting_option(&vm_settings_schema, "memory.maximum_per_numa_node", name);
	assert_string_equal(name, "memory-maximum-per-numa-node");
	setting_option(&vm_settings_schema, "scsi_controllers[0].drives[1].path", name);
	assert_string_equal(name, "disk");
	setting_option(&vm_settings_schema, "no.such", name);
	assert_string_equal(name, "");
	assert_int_equal(setting_find(&vm_settings_schema, SETTINGS_ALL, "notes", &flag), 0);
	assert_false(flag);
	assert_int_equal(setting_find(&vm_settings_schema, SETTINGS_ALL, "metering", &flag), 0);
	assert_true(flag);
	assert_int_equal(setting_find(&host_settings_schema, SETTINGS_ALL, "disk", &flag), -ENOENT);
}

static void test_what_is_not_set_has_no_option(void **state)
{
	bool flag;

	(void)state;
	assert_int_equal(setting_find(&vm_settings_schema, SETTINGS_ALL, "id", &flag), -ENOENT);
	assert_int_equal(setting_find(&vm_settings_schema, SETTINGS_ALL, "created", &flag),
			 -ENOENT);
	assert_int_equal(setting_find(&vm_settings_schema, SETTINGS_ALL, "generation", &flag), 0);
	assert_int_equal(setting_find(&vm_settings_schema, SETTINGS_CHANGE, "generation", &flag),
			 -ENOENT);
}

static void test_numbers_take_their_units(void **state)
{
	(void)state;
	applies("{\"memory\":{\"startup\":512}}", "memory", "512");
	applies("{\"memory\":{\"startup\":2048}}", "memory", "2G");
	applies("{\"memory\":{\"startup\":1536}}", "memory", "1.5GiB");
	applies("{\"memory\":{\"startup\":512}}", "memory", "524288K");
	applies("{\"memory\":{\"startup\":512}}", "memory", "512MiB");
	applies("{\"processors\":{\"count\":4}}", "cpus", "4");
	applies("{\"processors\":{\"limit\":50}}", "processors-limit", "50%");
	applies("{\"automatic\":{\"start_delay\":90}}", "automatic-start-delay", "90s");
	applies("{\"automatic\":{\"start_delay\":300}}", "automatic-start-delay", "5m");
	applies("{\"automatic\":{\"critical_error_timeout\":120}}",
		"automatic-critical-error-timeout", "2h");
}

static void test_bad_numbers_are_refused_with_words(void **state)
{
	(void)state;
	refuses("K, M, G, T", "memory", "5x");
	refuses("K, M, G, T", "memory", "");
	refuses("outside 32 to 16777216 MiB", "memory", "16");
	refuses("outside", "memory", "99999999T");
	refuses("whole number of MiB", "memory", "1048577K");
	refuses("no number", "cpus", "two");
	refuses("no number", "cpus", "0x4");
	refuses("no number", "cpus", "-1");
	refuses("no number", "cpus", "4G");
	refuses("no number", "cpus", "nan");
}

static void test_booleans_are_switched_on_and_off(void **state)
{
	(void)state;
	applies("{\"metering\":true}", "metering", "");
	applies("{\"metering\":false}", "no-metering", "");
	applies("{\"metering\":false}", "metering", "no");
	applies("{\"integration_services\":{\"vss\":false}}", "no-integration-services-vss", "");
	refuses("neither yes nor no", "metering", "perhaps");
}

static void test_words_of_an_enum_are_listed(void **state)
{
	(void)state;
	applies("{\"automatic\":{\"stop\":\"shut-down\"}}", "automatic-stop", "shut-down");
	refuses("turn-off, save or shut-down; did you mean save?", "automatic-stop", "sav");
	refuses("turn-off, save or shut-down", "automatic-stop", "zzzzzzz");
}

static void test_an_empty_text_takes_a_setting_away(void **state)
{
	(void)state;
	applies("{\"boot\":{\"initrd\":null}}", "initrd", "");
	applies("{\"notes\":\"\"}", "notes", "");
	refuses("may not be empty", "name", "");
	refuses("UTF-8", "notes", "\xff");
}

static void test_drives_are_written_in_one_word(void **state)
{
	(void)state;
	applies("{\"scsi_controllers\":[{\"kind\":\"disk\",\"path\":\"no-such.vhdx\"}]}", "disk",
		"no-such.vhdx");
	applies("{\"scsi_controllers\":[{\"kind\":\"disk\",\"path\":\"/a\",\"read_only\":true,"
		"\"location\":3,\"controller\":1,\"format\":\"raw\",\"direct\":false}]}",
		"disk", "/a,read-only,location=3,controller=1,format=raw,direct=no");
	applies("{\"scsi_controllers\":[{\"kind\":\"dvd\"}]}", "dvd", "");
	refuses("there is no \"foo=1\"; there are controller=", "disk", "/a,foo=1");
	refuses("format: \"rwa\" is none of", "disk", "/a,format=rwa");
	refuses("outside 0 to 63", "disk", "/a,location=64");
	refuses("outside 0 to 3", "disk", "/a,controller=4");
}

static void test_adapters_and_ports_are_written_in_one_word(void **state)
{
	(void)state;
	applies("{\"network_adapters\":[{\"switch\":\"lan\",\"vlan\":7,\"mac_spoofing\":true}]}",
		"adapter", "lan,vlan=7,mac-spoofing");
	applies("{\"network_adapters\":[{}]}", "adapter", "");
	applies("{\"com_ports\":[{\"kind\":\"socket\",\"path\":\"/run/x\"}]}", "com",
		"socket,path=/run/x");
	refuses("there is no \"x\"; there are id=, name=", "adapter", "lan,x");
}

static void test_files_that_are_here_get_their_full_path(void **state)
{
	char here[PATH_MAX], expected[PATH_MAX + 64], name[] = "settingXXXXXX";
	int fd = mkstemp(name);

	(void)state;
	assert_true(fd >= 0);
	close(fd);
	assert_non_null(realpath(name, here));
	snprintf(expected, sizeof(expected), "{\"boot\":{\"kernel\":\"%s\"}}", here);
	applies(expected, "kernel", name);
	unlink(name);
	applies("{\"boot\":{\"kernel\":\"no-such-file\"}}", "kernel", "no-such-file");
}

static void count_option(void *context, const struct command_option *o)
{
	unsigned *count = context;
	bool flag;

	(*count)++;
	assert_true(*o->name && *o->help);
	assert_int_equal(o->kind == WORD_NONE, !o->value);
	assert_int_equal(setting_find(&vm_settings_schema, SETTINGS_ALL, o->name, &flag), 0);
}

static void test_every_option_is_found_by_its_name(void **state)
{
	unsigned all = 0, change = 0;

	(void)state;
	setting_each(&vm_settings_schema, SETTINGS_ALL, count_option, &all);
	setting_each(&vm_settings_schema, SETTINGS_CHANGE, count_option, &change);
	assert_true(all > 70);
	assert_int_equal(all, change + 1); /* generation */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_come_from_the_schema_or_the_path),
		cmocka_unit_test(test_what_is_not_set_has_no_option),
		cmocka_unit_test(test_numbers_take_their_units),
		cmocka_unit_test(test_bad_numbers_are_refused_with_words),
		cmocka_unit_test(test_booleans_are_switched_on_and_off),
		cmocka_unit_test(test_words_of_an_enum_are_listed),
		cmocka_unit_test(test_an_empty_text_takes_a_setting_away),
		cmocka_unit_test(test_drives_are_written_in_one_word),
		cmocka_unit_test(test_adapters_and_ports_are_written_in_one_word),
		cmocka_unit_test(test_files_that_are_here_get_their_full_path),
		cmocka_unit_test(test_every_option_is_found_by_its_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
