// SPDX-License-Identifier: MIT
/*
 * Machines that come, change and go, over a real database and real folders; nothing runs in here
 * (vm_act_test.c).
 */
#include "daemon/vm_testing.h"

#include "daemon/vm_file.h"
#include "daemon/vm_internal.h"

#include <sys/wait.h>
#include <time.h>

static char *below(struct test *t, const char *format, ...) _printf_(2, 3);

static char *below(struct test *t, const char *format, ...)
{
	static char paths[8][512];
	static unsigned next;
	char *path = paths[next++ % ARRAY_SIZE(paths)], rest[256];
	va_list ap;

	va_start(ap, format);
	vsnprintf(rest, sizeof(rest), format, ap);
	va_end(ap);
	snprintf(path, sizeof(paths[0]), "%s/%s", t->folder, rest);
	return path;
}

static bool is_there(const char *path)
{
	return faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void put(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

/* --- making --- */

static void test_a_machine_is_made_and_there_after_a_restart(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'web','memory':{'startup':2048},'notes':'n'}");
	char id[GUID_TEXT_SIZE];

	strcpy(id, vm->id);
	assert_string_equal(vm->folder, below(t, "state/machines/web"));
	assert_string_equal(vm->settings.creator, "ada");
	assert_true(vm->settings.created > 1700000000);
	assert_int_equal(vm->state, VM_OFF);
	assert_int_equal(vm->broken.code, 0);
	assert_int_equal(events_of(t, "vm-created"), 1);
	test_again(t);
	vm = only(t);
	assert_string_equal(vm->id, id);
	assert_string_equal(vm->settings.name, "web");
	assert_int_equal(vm->settings.memory.startup, 2048);
	assert_int_equal(vm->broken.code, 0);
	assert_ptr_equal(vm_by_id(t->d, id, NULL), vm);
}

static void test_what_is_wrong_with_a_new_machine(void **state)
{
	static const struct {
		const char *settings;
		int code;
		const char *property, *words;
	} rows[] = {
		{ "{}", -EINVAL, "name", "missing" },
		{ "{'name':''}", -EINVAL, "name", "0 characters" },
		{ "{'name':'a','colour':1}", -EINVAL, "", "unknown key" },
		{ "{'name':'a','id':'x'}", -EINVAL, "id", "leave it out" },
		{ "{'name':'a','creator':'eve'}", -EINVAL, "creator", "leave it out" },
		{ "{'name':'a','version':1}", -EINVAL, "version", "leave it out" },
		{ "{'name':'a','memory':{'startup':1}}", -EINVAL, "memory.startup", "range" },
		{ "{'name':'a','memory':{'dynamic':true,'startup':64}}", -EINVAL, "memory.minimum",
		  "more than" },
		{ "[]", -EINVAL, "", "object" },
		{ "3", -EINVAL, "", "object" },
	};
	struct test *t = *state;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct error err = { 0 };
		struct vm *vm = NULL;

		assert_int_equal(try_make(t, &ada, rows[i].settings, &vm, &err), rows[i].code);
		assert_null(vm);
		assert_string_equal(err.property, rows[i].property);
		assert_words(err, rows[i].words);
	}
	assert_int_equal(t->d->vm_count, 0);
	assert_false(is_there(below(t, "state/machines/a")));
}

static void test_folders_of_names(void **state)
{
	struct test *t = *state;
	struct vm *a = make(t, "{'name':'../a/b'}"), *b = make(t, "{'name':'../a/b'}");
	struct vm *c = make(t, "{'name':'...'}"), *d = make(t, "{'name':'-rf'}");
	char long_name[512] = "{'name':'x", expected[300];

	assert_string_equal(a->folder, below(t, "state/machines/_._a_b"));
	snprintf(expected, sizeof(expected), "state/machines/_._a_b-%.8s", b->id);
	assert_string_equal(b->folder, below(t, "%s", expected));
	assert_string_equal(c->folder, below(t, "state/machines/_._"));
	assert_string_equal(d->folder, below(t, "state/machines/_rf"));
	for (int i = 0; i < 99; i++)
		strcat(long_name, "ä");
	strcat(long_name, "'}");
	a = make(t, long_name);
	/* Cut between characters. */
	assert_int_equal(strlen(strrchr(a->folder, '/') + 1), 199);
	test_again(t);
	list_foreach(it, &t->d->vms)
		assert_int_equal(list_entry(it, struct vm, node)->broken.code, 0);
	assert_int_equal(t->d->vm_count, 5);
}

static void test_a_folder_that_is_given(void **state)
{
	struct test *t = *state;
	json_t *settings = quoted("{'name':'a'}");
	struct error err = { 0 };
	struct vm *vm;

	assert_int_equal(mkdir(below(t, "mine"), 0700), 0);
	put(below(t, "mine/disk.vhdx"), "x");
	assert_int_equal(vm_create(t->d, &ada, settings, below(t, "mine"), NULL, &vm, &err), 0);
	assert_true(is_there(below(t, "mine/vm.json")));
	assert_int_equal(vm_create(t->d, &ada, settings, below(t, "mine"), NULL, &vm, &err),
			 -EEXIST);
	assert_int_equal(vm_create(t->d, &ada, settings, below(t, "new"), NULL, &vm, &err), 0);
	assert_int_equal(vm_create(t->d, &ada, settings, below(t, "no/where"), NULL, &vm, &err),
			 -EINVAL);
	assert_words(err, "above");
	assert_int_equal(vm_create(t->d, &ada, settings, "relative", NULL, &vm, &err), -EINVAL);
	assert_string_equal(err.property, "folder");
	assert_int_equal(vm_create(t->d, &ada, settings, below(t, "a/../b"), NULL, &vm, &err),
			 -EINVAL);
	assert_int_equal(vm_create(t->d, &ada, settings, "/", NULL, &vm, &err), -EINVAL);
	put(below(t, "file"), "x");
	assert_int_equal(vm_create(t->d, &ada, settings, below(t, "file"), NULL, &vm, &err),
			 -EEXIST);
	assert_int_equal(t->d->vm_count, 2);
	test_again(t);
	assert_int_equal(t->d->vm_count, 2);
	json_decref(settings);
}

static void test_a_key_makes_one_machine(void **state)
{
	struct test *t = *state;
	json_t *settings = quoted("{'name':'a'}"), *other = quoted("{'name':'b'}");
	struct error err = { 0 };
	struct vm *first, *second;

	assert_int_equal(vm_create(t->d, &ada, settings, NULL, "k1", &first, &err), 0);
	assert_int_equal(vm_create(t->d, &ada, settings, NULL, "k1", &second, &err), 0);
	assert_ptr_equal(first, second);
	assert_int_equal(t->d->vm_count, 1);
	test_again(t);
	assert_int_equal(vm_create(t->d, &ada, settings, NULL, "k1", &second, &err), 0);
	assert_ptr_equal(second, only(t));
	assert_int_equal(vm_create(t->d, &ada, other, NULL, "k1", &first, &err), -EKEYREJECTED);
	/* Another's key is another one; so is a key whose machine is gone. */
	assert_int_equal(vm_create(t->d, &caller_service, settings, NULL, "k1", &first, &err), 0);
	assert_ptr_not_equal(first, second);
	assert_int_equal(vm_remove(t->d, &ada, second, true, &err), 0);
	assert_int_equal(vm_create(t->d, &ada, settings, NULL, "k1", &second, &err), 0);
	assert_int_equal(t->d->vm_count, 2);
	assert_int_equal(vm_create(t->d, &ada, settings, NULL, "", &second, &err), -EINVAL);
	assert_int_equal(vm_create(t->d, &ada, settings, NULL,
				   "12345678901234567890123456789012345678901234567890123456789012"
				   "345",
				   &second, &err),
			 -EINVAL);
	json_decref(settings);
	json_decref(other);
}

/* --- finding --- */

static int collect(void *context, struct vm *vm)
{
	char *names = context;

	strcat(names, vm->settings.name);
	strcat(names, " ");
	return 0;
}

static const char *found(struct test *t, const struct caller *c, const char *pattern)
{
	static char names[1024];

	names[0] = '\0';
	assert_true(vm_each(t->d, c, pattern, collect, names) >= 0);
	return names;
}

static void test_lists_are_sorted_and_take_patterns(void **state)
{
	struct test *t = *state;
	char id[GUID_TEXT_SIZE + 2], upper[GUID_TEXT_SIZE];
	struct vm *vm;

	make(t, "{'name':'web2'}");
	make(t, "{'name':'Web1'}");
	make(t, "{'name':'db'}");
	make(t, "{'name':'größe'}");
	make(t, "{'name':'web2'}");
	vm = make(t, "{'name':'[x]'}");
	assert_string_equal(found(t, &ada, NULL), "[x] db größe Web1 web2 web2 ");
	assert_string_equal(found(t, &ada, "web*"), "Web1 web2 web2 ");
	assert_string_equal(found(t, &ada, "WEB?"), "Web1 web2 web2 ");
	assert_string_equal(found(t, &ada, "*e*2"), "web2 web2 ");
	assert_string_equal(found(t, &ada, "gr??e"), "größe ");
	assert_string_equal(found(t, &ada, "gr???e"), "");
	assert_string_equal(found(t, &ada, "[x]"), "[x] ");
	assert_string_equal(found(t, &ada, "*"), "[x] db größe Web1 web2 web2 ");
	assert_string_equal(found(t, &ada, ""), "");
	assert_string_equal(found(t, &ada, vm->id), "[x] ");
	snprintf(id, sizeof(id), "%.8s*", vm->id);
	assert_string_equal(found(t, &ada, id), "[x] ");
	snprintf(id, sizeof(id), "%.7s*", vm->id);
	assert_string_equal(found(t, &ada, id), "");
	assert_true(name_matches("a*b*c", "a-b-b-c"));
	assert_false(name_matches("a*b*c", "a-b-b-d"));
	assert_true(name_matches("**", ""));
	for (size_t i = 0; i < sizeof(upper); i++)
		upper[i] = (char)(vm->id[i] >= 'a' ? vm->id[i] - 32 : vm->id[i]);
	snprintf(id, sizeof(id), "{%s}", upper);
	assert_ptr_equal(vm_by_id(t->d, id, NULL), vm);
	assert_null(vm_by_id(t->d, "nonsense", NULL));
}

static void test_one_machine_by_its_name(void **state)
{
	struct test *t = *state;
	struct vm *a = make(t, "{'name':'a'}"), *b = make(t, "{'name':'b'}"), *vm;
	struct vm *b2 = make(t, "{'name':'B'}");
	struct error err = { 0 };

	assert_int_equal(vm_one(t->d, &ada, "A", &vm, &err), 0);
	assert_ptr_equal(vm, a);
	assert_int_equal(vm_one(t->d, &ada, b->id, &vm, &err), 0);
	assert_ptr_equal(vm, b);
	assert_int_equal(vm_one(t->d, &ada, "b", &vm, &err), -ENOTUNIQ);
	assert_words(err, b->id);
	assert_words(err, b2->id);
	assert_int_equal(vm_one(t->d, &ada, "c", &vm, &err), -ENOENT);
	/* What one may not see is not there. */
	assert_int_equal(vm_one(t->d, &bob, "a", &vm, &err), -ENOENT);
	assert_int_equal(vm_one(t->d, &bob, a->id, &vm, &err), -ENOENT);
	assert_string_equal(found(t, &bob, NULL), "");
}

/* --- changing --- */

static void test_a_change_is_a_merge_and_durable(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a','notes':'n','processors':{'count':2,'limit':50}}");
	struct error err = { 0 };
	uint64_t revision = vm->revision;

	make(t, "{'name':'m'}");
	assert_int_equal(change(vm, &ada,
				"{'name':'z','notes':null,'processors':{'count':4},"
				"'scsi_controllers':[{'drives':[{'location':0,'path':'d'}]}]}",
				revision, &err),
			 0);
	assert_true(vm->revision > revision);
	assert_string_equal(found(t, &ada, NULL), "m z ");
	test_again(t);
	assert_int_equal(vm_one(t->d, &ada, "z", &vm, &err), 0);
	assert_string_equal(vm->settings.notes, "");
	assert_int_equal(vm->settings.processors.count, 4);
	assert_int_equal(vm->settings.processors.limit, 50);
	assert_string_equal(vm->settings.scsi_controllers[0].drives[0].path, "d");
	assert_int_equal(events_of(t, "vm-changed"), 1);
}

static void test_changes_that_are_refused_change_nothing(void **state)
{
	static const struct {
		const char *patch;
		int code;
		const char *words;
	} rows[] = {
		{ "{'memory':{'startup':7}}", -EINVAL, "out of range" },
		{ "{'colour':1}", -EINVAL, "unknown key" },
		{ "{'name':null}", -EINVAL, "name: is missing" },
		{ "{'generation':1}", -EINVAL, "given when the machine is made" },
		{ "{'creator':'eve'}", -EINVAL, "not set from outside" },
		{ "{'id':'0b1ec5a2-66c1-4a11-9d5c-8d0a2b7d3c10'}", -EINVAL, "not set" },
		{ "{'memory':{'dynamic':true,'startup':64}}", -EINVAL, "memory.minimum" },
		{ "{'notes':'new','group':'/'}", -EINVAL, "group" },
		{ "[]", -EINVAL, "object" },
		{ "{'memory':null,'processors':[]}", -EINVAL, "must be an object" },
	};
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a','notes':'old'}");
	uint64_t revision = vm->revision;

	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct error err = { 0 };

		assert_int_equal(change(vm, &ada, rows[i].patch, 0, &err), rows[i].code);
		assert_words(err, rows[i].words);
	}
	assert_int_equal(vm->revision, revision);
	assert_string_equal(vm->settings.notes, "old");
	assert_int_equal(events_of(t, "vm-changed"), 0);
	/* What is the same already is no change, whatever it is. */
	assert_int_equal(change(vm, &ada, "{'generation':2,'notes':'old'}", 0, NULL), 0);
	assert_int_equal(vm->revision, revision);
}

static void test_revisions_never_repeat(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a'}");
	struct error err = { 0 };
	uint64_t last = vm->revision;

	for (int i = 0; i < 3; i++) {
		assert_int_equal(
			change(vm, &ada, i % 2 ? "{'notes':'x'}" : "{'notes':'y'}", last, &err), 0);
		assert_true(vm->revision > last);
		assert_int_equal(change(vm, &ada, "{'notes':'z'}", last, &err), -ESTALE);
		assert_words(err, "changed meanwhile");
		last = vm->revision;
		test_again(t);
		vm = only(t);
		assert_true(vm->revision > last);
		last = vm->revision;
	}
	assert_true(last < UINT64_C(1) << 53);
}

/* Each reads, adds one, and tries until nobody was in between. */
static void test_no_update_of_many_changers_is_lost(void **state)
{
	enum { CHANGERS = 50 };
	struct {
		uint64_t revision;
		unsigned value, done;
	} changers[CHANGERS] = { 0 };
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a','memory':{'startup':1000}}");
	unsigned left = CHANGERS, conflicts = 0;

	srand(1);
	while (left) {
		unsigned i = (unsigned)rand() % CHANGERS;
		char patch[64];
		int r;

		if (changers[i].done)
			continue;
		if (!changers[i].revision) {
			changers[i].revision = vm->revision;
			changers[i].value = vm->settings.memory.startup;
			continue;
		}
		snprintf(patch, sizeof(patch), "{'memory':{'startup':%u}}", changers[i].value + 1);
		r = change(vm, &ada, patch, changers[i].revision, NULL);
		assert_true(r == 0 || r == -ESTALE);
		changers[i].revision = 0;
		changers[i].done = r == 0;
		left -= r == 0;
		conflicts += r == -ESTALE;
	}
	assert_int_equal(vm->settings.memory.startup, 1000 + CHANGERS);
	assert_true(conflicts > 0);
	test_again(t);
	assert_int_equal(only(t)->settings.memory.startup, 1000 + CHANGERS);
}

static void test_addresses_of_adapters_are_of_one_machine(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a','network_adapters':[{'mac':'00155D000001'}]}");
	struct error err = { 0 };

	assert_int_equal(try_make(t, &ada,
				  "{'name':'b','network_adapters':[{'mac':'00:15:5d:00:00:01'}]}",
				  &vm, &err),
			 -EINVAL);
	assert_words(err, "\"a\" has this address");
	assert_string_equal(err.property, "network_adapters[0].mac");
	assert_int_equal(change(vm, &ada, "{'notes':'its own is fine'}", 0, &err), 0);
}

/* --- rights --- */

static void test_rights_are_checked_and_refusals_told(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a','group':'lab'}"), *other;
	struct error err = { 0 };
	struct job *job;

	assert_int_equal(try_make(t, &bob, "{'name':'b'}", &other, &err), -EACCES);
	assert_int_equal(change(vm, &bob, "{'notes':'x'}", 0, &err), -EACCES);
	assert_int_equal(change(vm, &bob, "{}", 0, &err), -EACCES);
	assert_int_equal(vm_remove(t->d, &bob, vm, true, &err), -EACCES);
	assert_int_equal(vm_act(t->d, &bob, vm, VM_START, &job, &err), -EACCES);
	assert_int_equal(vm_register(t->d, &bob, below(t, "state/machines/x"), false, &other, &err),
			 -EACCES);
	assert_int_equal(vm_register(t->d, &bob, below(t, "elsewhere"), false, &other, &err),
			 -EACCES);
	assert_int_equal(
		vm_register(t->d, &bob, below(t, "state/machines/a/x"), false, &other, &err),
		-EACCES);
	assert_int_equal(events_of(t, "refused"), 6);
	grant(t, "nobody", "configurator", "group:lab");
	assert_int_equal(change(vm, &bob, "{'notes':'x'}", 0, &err), 0);
	assert_string_equal(found(t, &bob, NULL), "a ");
	/* Into a group where his role does not reach, nor out of reach of others. */
	assert_int_equal(change(vm, &bob, "{'group':'elsewhere'}", 0, &err), -EACCES);
	assert_string_equal(vm->settings.group, "lab");
	assert_int_equal(vm_remove(t->d, &bob, vm, true, &err), -EACCES);
}

/* A folder may say of itself what its writer likes. */
static void test_who_registers_becomes_the_creator(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a'}");
	struct error err = { 0 };

	assert_int_equal(vm_remove(t->d, &ada, vm, false, &err), 0);
	grant(t, "nobody", "administrator", "host");
	assert_int_equal(vm_register(t->d, &bob, below(t, "state/machines/a"), false, &vm, &err),
			 0);
	assert_string_equal(vm->settings.creator, "nobody");
	test_again(t);
	assert_string_equal(only(t)->settings.creator, "nobody");
}

static void test_others_name_no_files_of_the_host(void **state)
{
	static const struct {
		const char *path;
		bool fine;
	} rows[] = {
		{ "disk.vhdx", true },           { "sub/disk.vhdx", true },
		{ "../other/disk.vhdx", false }, { "/etc/shadow", false },
		{ "MACHINES/x/disk", true },     { "MACHINES/../partita.db", false },
		{ "IMAGES/debian.vhdx", true },  { "IMAGESX/debian.vhdx", false },
	};
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a'}");
	struct error err = { 0 };

	grant(t, "nobody", "configurator", "host");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char path[256], patch[512];
		const char *slash = strchr(rows[i].path, '/');

		snprintf(path, sizeof(path), "%s", rows[i].path);
		if (!strncmp(rows[i].path, "MACHINES", 8))
			snprintf(path, sizeof(path), "%s/state/machines%s", t->folder, slash);
		else if (!strncmp(rows[i].path, "IMAGES", 6))
			snprintf(path, sizeof(path), "%s/state/images%s%s", t->folder,
				 rows[i].path[6] == 'X' ? "X" : "", slash);
		snprintf(patch, sizeof(patch),
			 "{'scsi_controllers':[{'drives':[{'location':0,'path':'%s'}]}]}", path);
		if (change(vm, &bob, patch, 0, &err) != (rows[i].fine ? 0 : -EACCES))
			fail_msg("%s: %s", path, err.message);
	}
	/* What an administrator has set may stay. */
	assert_int_equal(change(vm, &ada, "{'boot':{'kernel':'/boot/vmlinuz'}}", 0, &err), 0);
	assert_int_equal(change(vm, &bob, "{'processors':{'count':3}}", 0, &err), 0);
	assert_int_equal(change(vm, &bob, "{'boot':{'initrd':'/boot/initrd'}}", 0, &err), -EACCES);
	assert_string_equal(err.property, "boot.initrd");
}

/* --- registering, removing --- */

static void test_a_folder_is_forgotten_and_registered_again(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a','notes':'n'}"), *copy;
	struct error err = { 0 };
	char id[GUID_TEXT_SIZE], *folder = below(t, "state/machines/a");

	strcpy(id, vm->id);
	assert_int_equal(vm_register(t->d, &ada, folder, false, &copy, &err), -EEXIST);
	assert_int_equal(vm_remove(t->d, &ada, vm, false, &err), 0);
	assert_int_equal(t->d->vm_count, 0);
	assert_true(is_there(below(t, "state/machines/a/vm.json")));
	assert_int_equal(vm_register(t->d, &ada, folder, false, &vm, &err), 0);
	assert_string_equal(vm->id, id);
	assert_string_equal(vm->settings.notes, "n");
	/* A copy is another machine, with a new id, or none. */
	assert_int_equal(mkdir(below(t, "copy"), 0700), 0);
	assert_int_equal(vm_file_write(below(t, "copy"), &vm->settings, &err), 0);
	assert_int_equal(vm_register(t->d, &ada, below(t, "copy"), false, &copy, &err), -EEXIST);
	assert_words(err, "new id");
	assert_int_equal(vm_register(t->d, &ada, below(t, "copy"), true, &copy, &err), 0);
	assert_string_not_equal(copy->id, id);
	assert_int_equal(vm_register(t->d, &ada, below(t, "nowhere"), false, &copy, &err), -ENOENT);
	test_again(t);
	assert_int_equal(t->d->vm_count, 2);
	list_foreach(it, &t->d->vms)
		assert_int_equal(list_entry(it, struct vm, node)->broken.code, 0);
}

static void test_removing_takes_the_folder_only_when_told(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a'}");
	struct error err = { 0 };

	put(below(t, "state/machines/a/disk.vhdx"), "x");
	assert_int_equal(vm_remove(t->d, &ada, vm, true, &err), 0);
	assert_false(is_there(below(t, "state/machines/a")));
	assert_true(is_there(below(t, "state/machines")));
	assert_int_equal(events_of(t, "vm-removed"), 1);
	test_again(t);
	assert_int_equal(t->d->vm_count, 0);
}

static void test_a_folder_that_holds_more_is_not_removed(void **state)
{
	struct test *t = *state;
	json_t *settings = quoted("{'name':'outer'}");
	struct error err = { 0 };
	struct vm *outer, *inner, *top;

	assert_int_equal(vm_create(t->d, &ada, settings, below(t, "o"), NULL, &outer, &err), 0);
	assert_int_equal(vm_create(t->d, &ada, settings, below(t, "o/i"), NULL, &inner, &err), 0);
	assert_int_equal(vm_remove(t->d, &ada, outer, true, &err), -EBUSY);
	assert_words(err, "holds the machine");
	assert_int_equal(vm_create(t->d, &ada, settings, t->folder, NULL, &top, &err), 0);
	assert_int_equal(vm_remove(t->d, &ada, top, true, &err), -EBUSY);
	assert_words(err, "service's own files");
	assert_int_equal(vm_remove(t->d, &ada, inner, true, &err), 0);
	assert_int_equal(vm_remove(t->d, &ada, outer, true, &err), 0);
	assert_int_equal(vm_remove(t->d, &ada, top, false, &err), 0);
	assert_false(is_there(below(t, "o")));
	json_decref(settings);
}

/* --- broken ones --- */

static void test_a_broken_machine_says_why_and_hides_no_other(void **state)
{
	static const struct {
		const char *name, *text, *words; /* NULL: no file; "": no folder */
	} rows[] = {
		{ "b1", NULL, "no vm.json" },
		{ "b2", "", "is missing" },
		{ "b3", "{", "line 1" },
		{ "b4", "{\"version\":9}", "version 9" },
		{ "b5", "{\"id\":\"0b1ec5a2-66c1-4a11-9d5c-8d0a2b7d3c10\",\"name\":\"x\"}",
		  "another machine" },
		{ "b6", "{\"id\":\"0b1ec5a2-66c1-4a11-9d5c-8d0a2b7d3c10\",\"name\":\" \"}",
		  "space" },
	};
	struct test *t = *state;
	struct error err = { 0 };
	struct job *job;
	struct vm *vm;

	make(t, "{'name':'good'}");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char settings[64], *file = below(t, "state/machines/%s/vm.json", rows[i].name);

		snprintf(settings, sizeof(settings), "{'name':'%s'}", rows[i].name);
		make(t, settings);
		assert_int_equal(unlink(file), 0);
		if (rows[i].text && !*rows[i].text)
			assert_int_equal(rmdir(below(t, "state/machines/%s", rows[i].name)), 0);
		else if (rows[i].text)
			put(file, rows[i].text);
	}
	test_again(t);
	assert_int_equal(t->d->vm_count, ARRAY_SIZE(rows) + 1);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		json_t *json;

		assert_int_equal(vm_one(t->d, &ada, rows[i].name, &vm, &err), 0);
		assert_true(vm->broken.code < 0);
		assert_words(vm->broken, rows[i].words);
		assert_int_equal(change(vm, &ada, "{'notes':'x'}", 0, &err), -EUCLEAN);
		assert_int_equal(vm_act(t->d, &ada, vm, VM_START, &job, &err), -EUCLEAN);
		json = vm_json(vm);
		assert_string_equal(json_string_value(json_object_get(json, "broken")),
				    vm->broken.message);
		assert_int_equal(json_array_size(json_object_get(json, "allowed")), 0);
		json_decref(json);
	}
	assert_int_equal(vm_one(t->d, &ada, "good", &vm, &err), 0);
	assert_int_equal(vm->broken.code, 0);
}

static void test_a_broken_machine_is_repaired_or_removed(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a','notes':'n'}"), *again;
	char *file = below(t, "state/machines/a/vm.json"), *saved = below(t, "saved");
	struct error err = { 0 };

	assert_int_equal(rename(file, saved), 0);
	put(file, "garbage");
	test_again(t);
	assert_int_equal(vm_register(t->d, &ada, only(t)->folder, false, &again, &err), -EUCLEAN);
	assert_int_equal(rename(saved, file), 0);
	assert_int_equal(vm_register(t->d, &ada, only(t)->folder, false, &again, &err), 0);
	assert_ptr_equal(again, only(t));
	assert_int_equal(again->broken.code, 0);
	assert_string_equal(again->settings.notes, "n");
	put(file, "garbage");
	test_again(t);
	vm = only(t);
	assert_true(vm->broken.code < 0);
	assert_int_equal(vm_remove(t->d, &ada, vm, true, &err), 0);
	assert_false(is_there(below(t, "state/machines/a")));
}

static void test_a_missing_disk_is_a_warning(void **state)
{
	struct test *t = *state;
	struct vm *vm = make(t, "{'name':'a','scsi_controllers':[{'drives':[{'location':0,"
				"'path':'here'},{'location':1,'path':'gone'}]}]}");
	json_t *json, *warnings;

	put(below(t, "state/machines/a/here"), "x");
	json = vm_json(vm);
	warnings = json_object_get(json_object_get(json, "status"), "warnings");
	assert_int_equal(json_array_size(warnings), 1);
	assert_non_null(
		strstr(json_string_value(json_array_get(warnings, 0)), "a/gone is missing"));
	json_decref(json);
	json = vm_json_parts(vm, 0);
	assert_null(json_object_get(json, "settings"));
	assert_null(json_object_get(json, "status"));
	assert_non_null(json_object_get(json, "allowed"));
	json_decref(json);
}

/* --- the host --- */

static void test_settings_of_the_host(void **state)
{
	struct test *t = *state;
	json_t *patch = quoted("{'memory_reserve':100,'machine_folder':'/somewhere'}");
	json_t *bad = quoted("{'disk_folder':'relative'}"), *json;
	uint64_t revision = t->d->host_revision;
	struct error err = { 0 };

	assert_int_equal(host_change(t->d, &bob, patch, 0, &err), -EACCES);
	assert_int_equal(host_change(t->d, &ada, bad, 0, &err), -EINVAL);
	assert_string_equal(err.property, "disk_folder");
	assert_int_equal(host_change(t->d, &ada, patch, revision, &err), 0);
	assert_int_equal(host_change(t->d, &ada, patch, revision, &err), -ESTALE);
	test_again(t);
	assert_int_equal(t->d->host.memory_reserve, 100);
	assert_string_equal(t->d->host.machine_folder, "/somewhere");
	assert_true(t->d->host_revision > revision);
	assert_int_equal(events_of(t, "host-changed"), 1);
	assert_int_equal(host_json(t->d, &bob, &json, &err), -EACCES);
	assert_int_equal(host_json(t->d, &ada, &json, &err), 0);
	assert_true(json_integer_value(
			    json_object_get(json_object_get(json, "memory"), "total_mib")) > 0);
	assert_true(json_array_size(json_object_get(json, "engines")) > 0);
	assert_true(json_array_size(json_object_get(json, "capabilities")) > 0);
	json_decref(json);
	json_decref(patch);
	json_decref(bad);
}

static void test_two_services_on_one_folder(void **state)
{
	struct test *t = *state;
	char *folder = below(t, "state"), *run = below(t, "run");
	const struct daemon_options o = { .state_folder = folder, .run_folder = run };
	struct error err = { 0 };
	struct daemon *d;
	int status;
	pid_t pid = fork();

	if (!pid)
		_exit(daemon_new(t->loop, &o, &d, &err) == -EBUSY ? 0 : 1);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

/* --- thousands --- */

static long resident_kib(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	long size, resident = 0;

	assert_int_equal(fscanf(f, "%ld %ld", &size, &resident), 2);
	fclose(f);
	return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* In a process of its own, whose memory is only its own. */
static void measure(struct test *t, unsigned count)
{
	double begun = seconds();
	long empty = resident_kib();
	json_t *list = json_array();

	test_begin(t);
	printf("%u machines: the service began in %.3f s, resident %ld KiB (%ld without it)\n",
	       t->d->vm_count, seconds() - begun, resident_kib(), empty);
	begun = seconds();
	list_foreach(it, &t->d->vms)
	{
		struct vm *vm = list_entry(it, struct vm, node);

		if (vm->broken.code)
			_exit(1);
		json_array_append_new(list, vm_json_parts(vm, 0));
	}
	printf("%zu machines listed in %.4f s\n", json_array_size(list), seconds() - begun);
	fflush(stdout);
	_exit(t->d->vm_count == count ? 0 : 1);
}

static void test_a_thousand_machines(void **state)
{
	enum { COUNT = 1000 };
	struct test *t = *state;
	double begun = seconds();
	int status;
	pid_t pid;

	for (int i = 0; i < COUNT; i++) {
		char settings[256];

		snprintf(settings, sizeof(settings),
			 "{'name':'vm%04d','boot':{'kernel':'k'},'scsi_controllers':[{'drives':["
			 "{'location':0,'path':'d.vhdx'}]}],'com_ports':[{'kind':'console'}]}",
			 i * 7919 % COUNT);
		make(t, settings);
	}
	printf("%d machines made in %.2f s\n", COUNT, seconds() - begun);
	fflush(stdout);
	test_end(t);
	pid = fork();
	if (!pid)
		measure(t, COUNT);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	test_begin(t);
	assert_string_equal(list_first(&t->d->vms, struct vm, node)->settings.name, "vm0000");
	assert_string_equal(list_entry(t->d->vms.prev, struct vm, node)->settings.name, "vm0999");
}

/* Where flushing costs nothing: what counts here is how many. */
static int setup_in_memory(void **state)
{
	const char *before = getenv("TMPDIR");
	int r;

	if (access("/dev/shm", W_OK) == 0)
		setenv("TMPDIR", "/dev/shm", 1);
	r = test_setup(state);
	if (before)
		setenv("TMPDIR", before, 1);
	else
		unsetenv("TMPDIR");
	return r;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, test_setup, test_teardown)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_a_machine_is_made_and_there_after_a_restart),
		TEST(test_what_is_wrong_with_a_new_machine),
		TEST(test_folders_of_names),
		TEST(test_a_folder_that_is_given),
		TEST(test_a_key_makes_one_machine),
		TEST(test_lists_are_sorted_and_take_patterns),
		TEST(test_one_machine_by_its_name),
		TEST(test_a_change_is_a_merge_and_durable),
		TEST(test_changes_that_are_refused_change_nothing),
		TEST(test_revisions_never_repeat),
		TEST(test_no_update_of_many_changers_is_lost),
		TEST(test_addresses_of_adapters_are_of_one_machine),
		TEST(test_rights_are_checked_and_refusals_told),
		TEST(test_who_registers_becomes_the_creator),
		TEST(test_others_name_no_files_of_the_host),
		TEST(test_a_folder_is_forgotten_and_registered_again),
		TEST(test_removing_takes_the_folder_only_when_told),
		TEST(test_a_folder_that_holds_more_is_not_removed),
		TEST(test_a_broken_machine_says_why_and_hides_no_other),
		TEST(test_a_broken_machine_is_repaired_or_removed),
		TEST(test_a_missing_disk_is_a_warning),
		TEST(test_settings_of_the_host),
		TEST(test_two_services_on_one_folder),
		cmocka_unit_test_setup_teardown(test_a_thousand_machines, setup_in_memory,
						test_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
