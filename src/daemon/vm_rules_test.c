// SPDX-License-Identifier: MIT
/*
 * Settings: what is refused and with which words, what a worker is told (the real one judges it),
 * and vm.json in folders of all sorts. The worker's program is the first argument.
 */
#include "daemon/vm_check.h"
#include "daemon/vm_describe.h"
#include "daemon/vm_file.h"
#include "lib/cleanup.h"
#include "lib/types.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define ID "0b1ec5a2-66c1-4a11-9d5c-8d0a2b7d3c10"

static const char *worker;
static char folder[] = "/tmp/vm_rules_test.XXXXXX";

/* The settings of `json`, in which ' stands for " and to which id and name are added. */
static int settings_of(const char *json, struct vm_settings *ret, struct error *err)
{
	_cleanup_free_ char *text = NULL;
	int n = asprintf(&text, "{'id':'" ID "','name':'web'%s%s}", *json ? "," : "", json);

	assert_true(n > 0);
	for (char *p = text; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	return vm_settings_parse(text, (size_t)n, ret, err);
}

static void settings_must(const char *json, struct vm_settings *ret)
{
	struct error err = { 0 };

	if (settings_of(json, ret, &err) < 0)
		fail_msg("%s: %s", json, err.message);
}

static const struct {
	const char *json, *property, *words; /* NULL: fine */
} checks[] = {
	{ "", NULL, NULL },
	{ "'notes':'two\\nlines\\tand a tab'", NULL, NULL },
	{ "'notes':'a bell \\u0007'", "notes", "control" },
	{ "'group':'lab/web'", NULL, NULL },
	{ "'group':'/lab'", "group", "lab/web" },
	{ "'group':'lab/'", "group", "lab/web" },
	{ "'group':'lab//web'", "group", "lab/web" },
	{ "'group':'la*'", "group", "lab/web" },
	{ "'group':'a\\u202eb'", "group", "control" },
	{ "'memory':{'startup':256}", NULL, NULL },
	{ "'memory':{'startup':256,'dynamic':true}", "memory.minimum", "512 MiB is more" },
	{ "'memory':{'startup':2048,'dynamic':true,'maximum':1024}", "memory.startup",
	  "2048 MiB is more" },
	{ "'memory':{'minimum':2048,'maximum':1024}", "memory.minimum",
	  "more than memory.maximum" },
	{ "'memory':{'dynamic':true,'locked':true}", "memory.locked", "choose one" },
	{ "'processors':{'reserve':60,'limit':50}", "processors.reserve", "60 % is more" },
	{ "'hardware':{'vmbus_version':'9.9'}", "hardware.vmbus_version", "6.0" },
	{ "'scsi_controllers':[{'drives':[{'location':0,'path':'a'},{'location':1,'path':'b'}]}]",
	  NULL, NULL },
	{ "'scsi_controllers':[{},{'drives':[{'location':3,'path':'a'},{'location':3,'path':'b'}]}"
	  "]",
	  "scsi_controllers[1].drives[1].location", "taken by drive 0" },
	{ "'scsi_controllers':[{'drives':[{'location':0}]}]", "scsi_controllers[0].drives[0].path",
	  "needs an image" },
	{ "'scsi_controllers':[{'drives':[{'location':0,'kind':'dvd'}]}]", NULL, NULL },
	{ "'scsi_controllers':[{'drives':[{'location':0,'kind':'dvd','path':''}]}]",
	  "scsi_controllers[0].drives[0].path", "empty" },
	{ "'scsi_controllers':[{'drives':[{'location':0,'path':'a\\nb'}]}]",
	  "scsi_controllers[0].drives[0].path", "control" },
	{ "'scsi_controllers':[{'drives':[{'location':0,'kind':'dvd','set':'x'}]}]",
	  "scsi_controllers[0].drives[0].set", "only for disks" },
	{ "'network_adapters':[{'mac':'00155D012345'},{'mac':'00-15-5d-01-23-46'}]", NULL, NULL },
	{ "'network_adapters':[{'mac':'00155D012345'},{'mac':'00:15:5d:01:23:45'}]",
	  "network_adapters[1].mac", "adapter 0" },
	{ "'network_adapters':[{'mac':'00155D01234'}]", NULL, "shorter than the schema has it" },
	{ "'network_adapters':[{'mac':'00155D01234G'}]", "network_adapters[0].mac", "12 hexadec" },
	{ "'network_adapters':[{'mac':'00:15-5d:01:23:45'}]", "network_adapters[0].mac", "12 hex" },
	{ "'network_adapters':[{'mac':'01155D012345'}]", "network_adapters[0].mac", "one adapter" },
	{ "'network_adapters':[{'mac':'000000000000'}]", "network_adapters[0].mac", "one adapter" },
	{ "'network_adapters':[{'name':'a\\u0085'}]", "network_adapters[0].name", "control" },
	{ "'com_ports':[{'kind':'console'},{'kind':'socket','path':'x'}]", NULL, NULL },
	{ "'com_ports':[{'kind':'console'},{'kind':'console'}]", "com_ports[1].kind", "only one" },
	{ "'com_ports':[{'kind':'pty'}]", "com_ports[0].path", "missing" },
	{ "'com_ports':[{'kind':'none','path':'x'}]", "com_ports[0].path", "only for kind" },
	{ "'boot':{'kernel':'vm\\u0001linuz'}", "boot.kernel", "control" },
	{ "'checkpoints':{'folder':''}", "checkpoints.folder", "empty" },
};

static void test_settings_that_make_no_sense_are_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(checks); i++) {
		struct vm_settings s;
		struct error err = { 0 };
		int r = settings_of(checks[i].json, &s, &err);

		if (checks[i].words && !checks[i].property) {
			assert_int_equal(r, -EINVAL);
			continue;
		}
		if (r < 0)
			fail_msg("%s: %s", checks[i].json, err.message);
		r = vm_check(&s, &err);
		if (r != (checks[i].property ? -EINVAL : 0))
			fail_msg("%s: %d %s", checks[i].json, r, err.message);
		if (checks[i].property) {
			assert_string_equal(err.property, checks[i].property);
			if (!strstr(err.message, checks[i].words))
				fail_msg("\"%s\" is not in: %s", checks[i].words, err.message);
		}
		vm_settings_deinit(&s);
	}
}

static void test_names_and_ids(void **state)
{
	static const struct {
		const char *id, *name;
		bool fine;
	} rows[] = {
		{ ID, "web", true },
		{ ID, "Büro Ω 漢字", true },
		{ ID, "a/b", true },
		{ ID, " web", false },
		{ ID, "web ", false },
		{ ID, "w\033[31meb", false },
		{ ID, "w\u200beb", false },
		{ ID, "w\u2066eb", false },
		{ "0B1EC5A2-66C1-4A11-9D5C-8D0A2B7D3C10", "web", true },
		{ "00000000-0000-0000-0000-000000000000", "web", false },
		{ "0b1ec5a2-66c1-4a11-9d5c-8d0a2b7d3c1x", "web", false },
		{ "../../../../../../../../../../../etc", "web", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct vm_settings s;

		settings_must("", &s);
		free(s.id);
		free(s.name);
		s.id = strdup(rows[i].id);
		s.name = strdup(rows[i].name);
		if (vm_check(&s, NULL) != (rows[i].fine ? 0 : -EINVAL))
			fail_msg("row %zu: %s", i, rows[i].name);
		vm_settings_deinit(&s);
	}
}

#define KERNEL "'boot':{'kernel':'k'}"

static const struct {
	const char *json, *property, *words;
} lacks[] = {
	{ KERNEL, NULL, NULL },
	{ "", "boot.kernel", "no firmware" },
	{ KERNEL ",'generation':1", "generation", "no BIOS" },
	{ KERNEL ",'memory':{'startup':2000000}", "memory.startup", "1 TiB" },
	{ KERNEL ",'memory':{'maximum_per_numa_node':1}", "processors.maximum_per_numa_node",
	  "NUMA" },
	{ KERNEL ",'processors':{'expose_virtualization':true}", "processors.expose_virtualization",
	  "machines in machines" },
	{ KERNEL ",'processors':{'compatibility_for_migration':true}",
	  "processors.compatibility_for_migration", "reduced" },
	{ KERNEL ",'processors':{'threads_per_core':2}", "processors.threads_per_core", "threads" },
	{ KERNEL ",'security':{'secure_boot':true}", "security.secure_boot", "no secure boot" },
	{ KERNEL ",'security':{'tpm':true}", "security.tpm", "no virtual TPM" },
	{ KERNEL ",'security':{'shielded':true}", "security.encrypt_state", "shielded" },
	{ KERNEL ",'network_adapters':[{}]", NULL, NULL },
	{ KERNEL ",'com_ports':[{'kind':'console'}]", NULL, NULL },
	{ KERNEL ",'com_ports':[{},{'kind':'console'}]", "com_ports", "but COM1" },
	{ KERNEL ",'checkpoints':{'automatic':true}", "checkpoints.automatic", "no checkpoints" },
	{ KERNEL ",'hardware':{'guest_controlled_cache_types':true}",
	  "hardware.guest_controlled_cache_types", "caching" },
	{ KERNEL ",'scsi_controllers':[{'drives':[{'location':0,'path':'d','maximum_iops':9}]}]",
	  "scsi_controllers", "limits" },
};

static void test_what_cannot_be_served_is_refused_at_the_start_only(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(lacks); i++) {
		struct vm_settings s;
		struct error err = { 0 };

		settings_must(lacks[i].json, &s);
		assert_int_equal(vm_check(&s, &err), 0);
		assert_int_equal(vm_check_start(&s, &err), lacks[i].property ? -EOPNOTSUPP : 0);
		if (lacks[i].property) {
			assert_string_equal(err.property, lacks[i].property);
			if (!strstr(err.message, lacks[i].words) ||
			    !strstr(err.message, "this version has "))
				fail_msg("\"%s\" is not in: %s", lacks[i].words, err.message);
		}
		vm_settings_deinit(&s);
	}
}

/* The worker itself says whether it is a description. */
static void assert_worker_takes(json_t *description)
{
	_cleanup_free_ char *command = NULL;
	char path[64];

	snprintf(path, sizeof(path), "%s/description", folder);
	assert_int_equal(json_dump_file(description, path, 0), 0);
	assert_true(asprintf(&command, "'%s' --check --description %s >/dev/null", worker, path) >
		    0);
	assert_int_equal(system(command), 0);
	unlink(path);
}

static void test_a_worker_takes_what_it_is_told(void **state)
{
	json_t *d, *e;
	struct vm_settings s;

	(void)state;
	settings_must("'engine':'kvm','processors':{'count':3},'memory':{'startup':2048,"
		      "'locked':true},'boot':{'kernel':'vmlinuz','initrd':'/boot/initrd',"
		      "'command_line':'console=ttyS0'},'scsi_controllers':[{'drives':["
		      "{'location':4,'path':'d.vhdx','set':'d.set'},{'location':5,'kind':'dvd',"
		      "'path':'/x.iso'},{'location':6,'path':'r','format':'raw','direct':false,"
		      "'read_only':true}]},{}],'com_ports':[{'kind':'console'},"
		      "{'kind':'socket','path':'com2'}],'hardware':{'sub_channels':2,"
		      "'vmbus_version':'5.3','on_guest_reset':'stop'}",
		      &s);
	d = vm_describe(&s, 1048576);
	assert_non_null(d);
	e = json_pack(
		"{s:s,s:s,s:i,s:i,s:b,s:s,s:{s:{s:s},s:{s:s},s:s},s:[{s:[{s:i,s:{s:s},s:{s:s},s:s,"
		"s:s,s:b,s:b},{s:i,s:{s:s},s:s,s:s,s:b,s:b},{s:i,s:{s:s},s:s,s:s,s:b,s:b}]},"
		"{s:[]}],s:[{s:s},{s:s,s:s}],s:{s:s},s:{s:i},s:s,s:s}",
		"name", "web", "id", ID, "processors", 3, "memory", 2048, "memory_locked", 1,
		"engine", "kvm", "boot", "kernel", "path", "vmlinuz", "initrd", "path",
		"/boot/initrd", "command_line", "console=ttyS0", "scsi", "drives", "lun", 4, "file",
		"path", "d.vhdx", "set", "path", "d.set", "kind", "disk", "format", "auto",
		"read_only", 0, "direct", 1, "lun", 5, "file", "path", "/x.iso", "kind", "dvd",
		"format", "auto", "read_only", 1, "direct", 0, "lun", 6, "file", "path", "r",
		"kind", "disk", "format", "raw", "read_only", 1, "direct", 0, "drives", "serial",
		"kind", "none", "kind", "socket", "path", "com2", "vmbus", "max_version", "5.3",
		"storvsp", "sub_channels", 2, "on_reset", "stop", "on_storage_error", "wait");
	assert_non_null(e);
	json_object_set_new(e, "memory_maximum", json_integer(2048));
	json_object_set_new(e, "network", json_array());
	json_object_set_new(e, "integration_services",
			    json_pack("{s:b,s:b,s:b,s:b,s:b,s:b}", "heartbeat", 1, "shutdown", 1,
				      "time_synchronization", 1, "key_value_exchange", 1, "vss", 1,
				      "guest_services", 0));
	assert_true(json_equal(d, e));
	assert_worker_takes(d);
	json_decref(d);
	json_decref(e);
	vm_settings_deinit(&s);
	settings_must(KERNEL ",'memory':{'startup':512,'dynamic':true,'maximum':4096}", &s);
	d = vm_describe(&s, 2048);
	assert_int_equal(json_integer_value(json_object_get(d, "memory_maximum")), 2048);
	assert_worker_takes(d);
	json_decref(d);
	vm_settings_deinit(&s);
	settings_must(KERNEL, &s);
	d = vm_describe(&s, 1048576);
	assert_worker_takes(d);
	json_decref(d);
	vm_settings_deinit(&s);
}

/* --- files --- */

static char *below(const char *name)
{
	static char paths[4][128];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static void put(const char *name, const char *text, size_t size)
{
	_cleanup_close_ int fd = open(below(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, size), size);
}

static void assert_unreadable(const char *name, int code, const char *words)
{
	struct vm_settings s;
	struct error err = { 0 };

	assert_int_equal(vm_file_read(below(name), &s, &err), code);
	if (!strstr(err.message, words))
		fail_msg("\"%s\" is not in: %s", words, err.message);
}

static void test_a_file_that_is_not_ours_is_refused_with_words(void **state)
{
	static char large[1024 * 1024 + 1];
	static const struct {
		const char *text, *words;
	} rows[] = {
		{ "", "vm.json: " },
		{ "{", "line 1" },
		{ "[]", "must be an object" },
		{ "{\"name\":\"x\"}", "id: is missing" },
		{ "{\"id\":\"" ID "\",\"name\":\"x\",\"colour\":1}", "unknown key \"colour\"" },
		{ "{\"id\":\"" ID "\",\"name\":\"x\",\"version\":2,\"colour\":1}",
		  "is of version 2" },
		{ "{\"id\":\"" ID "\",\"name\":\"x\",\"memory\":{\"startup\":1}}",
		  "memory.startup: 1 is out of range" },
	};

	(void)state;
	assert_unreadable("none", -ENOENT, "folder");
	assert_int_equal(mkdir(below("m"), 0700), 0);
	assert_unreadable("m", -ENOENT, "no vm.json");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		put("m/vm.json", rows[i].text, strlen(rows[i].text));
		assert_unreadable("m", -EUCLEAN, rows[i].words);
	}
	put("m/vm.json", large, sizeof(large));
	assert_unreadable("m", -EUCLEAN, "larger than 1 MiB");
	assert_int_equal(unlink(below("m/vm.json")), 0);
	assert_int_equal(mkdir(below("m/vm.json"), 0700), 0);
	assert_unreadable("m", -EUCLEAN, "not a plain file");
	assert_int_equal(rmdir(below("m/vm.json")), 0);
	assert_int_equal(mkfifo(below("m/vm.json"), 0600), 0);
	assert_unreadable("m", -EUCLEAN, "not a plain file");
	assert_int_equal(unlink(below("m/vm.json")), 0);
	assert_int_equal(symlink("/dev/zero", below("m/vm.json")), 0);
	assert_unreadable("m", -EUCLEAN, "not a plain file");
	assert_int_equal(vm_folder_remove(below("m"), ID, NULL), 0);
}

static void test_a_file_reads_back_and_is_replaced(void **state)
{
	struct vm_settings s, t;
	struct error err = { 0 };
	struct stat st;

	(void)state;
	settings_must("'notes':'one','memory':{'startup':4096}", &s);
	assert_int_equal(vm_folder_make(below("new"), &s, &err), 0);
	assert_int_equal(stat(below("new/vm.json"), &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(vm_folder_make(below("new"), &s, &err), -EEXIST);
	assert_int_equal(access(below(".partita-" ID), F_OK), -1);
	assert_int_equal(vm_file_add(below("new"), &s, &err), -EEXIST);
	free(s.notes);
	s.notes = strdup("two");
	assert_int_equal(vm_file_write(below("new"), &s, &err), 0);
	assert_int_equal(vm_file_read(below("new"), &t, &err), 0);
	assert_string_equal(t.notes, "two");
	assert_int_equal(t.memory.startup, 4096);
	vm_settings_deinit(&t);
	assert_int_equal(access(below("new/vm.json.new"), F_OK), -1);
	assert_int_equal(vm_file_write(below("nowhere"), &s, &err), -ENOENT);
	assert_int_equal(vm_folder_remove(below("new"), ID, &err), 0);
	assert_int_equal(access(below("new"), F_OK), -1);
	assert_int_equal(vm_folder_remove(below("new"), ID, &err), 0);
	vm_settings_deinit(&s);
}

static void test_removing_does_not_follow_links(void **state)
{
	struct vm_settings s;

	(void)state;
	settings_must("", &s);
	assert_int_equal(mkdir(below("other"), 0700), 0);
	put("other/precious", "x", 1);
	assert_int_equal(vm_folder_make(below("m"), &s, NULL), 0);
	assert_int_equal(symlink("../other", below("m/link")), 0);
	assert_int_equal(mkdir(below("m/disks"), 0700), 0);
	put("m/disks/a.vhdx", "x", 1);
	assert_int_equal(symlink("../../other", below("m/disks/link")), 0);
	assert_int_equal(vm_folder_remove(below("m"), ID, NULL), 0);
	assert_int_equal(access(below("m"), F_OK), -1);
	assert_int_equal(access(below("other/precious"), F_OK), 0);
	assert_int_equal(vm_folder_remove(below("other"), ID, NULL), 0);
	vm_settings_deinit(&s);
}

static void test_recovery_takes_away_only_what_is_ours(void **state)
{
	(void)state;
	assert_int_equal(mkdir(below(".partita-" ID), 0700), 0);
	put(".partita-" ID "/vm.json", "x", 1);
	assert_int_equal(mkdir(below("m"), 0700), 0);
	put("m/vm.json.new", "half", 4);
	put("m/vm.json.mine", "kept", 4);
	vm_folder_recover(below("m"), ID);
	assert_int_equal(access(below(".partita-" ID), F_OK), -1);
	assert_int_equal(access(below("m/vm.json.new"), F_OK), -1);
	assert_int_equal(access(below("m/vm.json.mine"), F_OK), 0);
	assert_int_equal(vm_folder_remove(below("m"), ID, NULL), 0);
}

static int set_up(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	return rmdir(folder);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_settings_that_make_no_sense_are_refused),
		cmocka_unit_test(test_names_and_ids),
		cmocka_unit_test(test_what_cannot_be_served_is_refused_at_the_start_only),
		cmocka_unit_test(test_a_worker_takes_what_it_is_told),
		cmocka_unit_test(test_a_file_that_is_not_ours_is_refused_with_words),
		cmocka_unit_test(test_a_file_reads_back_and_is_replaced),
		cmocka_unit_test(test_removing_does_not_follow_links),
		cmocka_unit_test(test_recovery_takes_away_only_what_is_ours),
	};

	worker = argc > 1 ? argv[1] : "partita-worker";
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
