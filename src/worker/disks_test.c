// SPDX-License-Identifier: MIT
/*
 * Drives that come and go while a machine is there, through the commands of the control socket: on
 * a bus of engine fake, with real image files.
 */
#include "worker/disks.h"

#include "lib/cleanup.h"
#include "vhd/create.h"
#include "vmbus/testing.h"
#include "worker/disk_control.h"
#include "worker/disk_hot.h"
#include "worker/vm_description.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define SIZE MIB

static char folder[] = "/dev/shm/partita-disks-XXXXXX";

struct bed {
	unsigned files;
	struct test_guest *guest;
	struct vm_description description;
	struct disks *disks;
	struct command_family families[2];
	struct command command;
	int fds[4];
	bool done;
	int result;
	struct error err;
};

static const char *path_of(const char *name)
{
	static char paths[8][256];
	static unsigned next;
	char *path = paths[next++ % ARRAY_SIZE(paths)];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static unsigned open_files(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void make(const char *name, const char *parent)
{
	const struct image_create_options o = { .size = parent ? 0 : SIZE,
						.format = "vhdx",
						.parent = parent };
	struct error err = { 0 };

	if (image_create(path_of(name), &o, &err) < 0)
		fail_msg("%s", err.message);
}

static void make_iso(const char *name, char content)
{
	_cleanup_close_ int fd = open(path_of(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	for (unsigned i = 0; i < SIZE; i += 4096)
		assert_int_equal(pwrite(fd, &content, 1, i + 4095), 1);
}

/* --- the bed --- */

static int bed_new(void **state)
{
	static const char text[] = "{\"name\": \"x\", \"boot\": {\"kernel\": {\"path\": \"/x\"}}, "
				   "\"id\": \"11111111-2222-3333-4444-555555555555\", \"scsi\": "
				   "[{\"drives\": [{\"lun\": 5, \"kind\": \"dvd\"}]}, {}]}";
	struct bed *b = calloc(1, sizeof(*b));
	struct disks_options o = { .description = &b->description };

	b->files = open_files();
	b->guest = test_guest_new(1, 0, 64);
	assert_int_equal(vm_description_parse(text, strlen(text), &b->description, &b->err), 0);
	o.loop = b->guest->loop;
	o.bus = b->guest->bus;
	if (disks_open(&o, &b->disks, &b->err) < 0)
		fail_msg("%s", b->err.message);
	b->families[0] = disk_family(disks_live(b->disks));
	b->families[1] = disk_hot_family(b->disks);
	*state = b;
	return 0;
}

static int bed_free(void **state)
{
	struct bed *b = *state;

	test_guest_stop(b->guest);
	assert_int_equal(disks_close(b->disks, &b->err), 0);
	disks_free(b->disks);
	test_guest_free(b->guest);
	vm_description_deinit(&b->description);
	json_decref((json_t *)b->command.request);
	json_decref(b->command.answer);
	free(b->command.state);
	assert_int_equal(open_files(), b->files);
	free(b);
	return 0;
}

static void on_done(struct command *c, int result, const struct error *err)
{
	struct bed *b = container_of(c, struct bed, command);

	b->done = true;
	b->result = result;
	b->err = *err;
}

static void pass(struct bed *b, const char *name)
{
	int fd = open(path_of(name), O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	b->fds[b->command.fd_count++] = fd;
}

/* The words of ' ' are those of JSON's ". */
static int run(struct bed *b, const char *text)
{
	const struct command_family *family;
	const struct command_type *type;
	_cleanup_free_ char *json = strdup(text);

	for (char *p = json; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	json_decref((json_t *)b->command.request);
	json_decref(b->command.answer);
	free(b->command.state);
	b->command = (struct command){ .request = json_loads(json, 0, NULL),
				       .answer = json_object(),
				       .fds = b->fds,
				       .fd_count = b->command.fd_count,
				       .done = on_done };
	assert_non_null(b->command.request);
	type = command_find(b->families, 2,
			    json_string_value(json_object_get(b->command.request, "command")),
			    &family);
	assert_non_null(type);
	b->err = (struct error){ 0 };
	b->done = false;
	b->result = command_run(family, type, &b->command, &b->err);
	while (b->result > 0 && !b->done)
		assert_int_equal(loop_once(b->guest->loop, 100), 0);
	for (unsigned i = 0; i < b->command.fd_count; i++)
		if (b->fds[i] >= 0)
			close(b->fds[i]);
	b->command.fd_count = 0;
	return b->result;
}

static void ok(struct bed *b, const char *text)
{
	if (run(b, text) < 0)
		fail_msg("%s: %s", text, b->err.message);
}

static void refused(struct bed *b, const char *text, int code, const char *words)
{
	assert_int_equal(run(b, text), code);
	if (!strstr(b->err.message, words))
		fail_msg("\"%s\" has not \"%s\"", b->err.message, words);
}

static json_t *told(struct bed *b, unsigned index)
{
	ok(b, "{'command': 'disk-query'}");
	return json_array_get(json_object_get(b->command.answer, "disks"), index);
}

static int64_t number(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

/* --- tests --- */

static void test_disk(void **state)
{
	struct bed *b = *state;
	unsigned files = open_files();

	pass(b, "a.vhdx");
	ok(b, "{'command': 'disk-attach', 'disk': {'controller': 1, 'lun': 63}, "
	      "'files': [{'descriptor': 0, 'path': '/a'}]}");
	assert_int_equal(number(told(b, 1), "size"), SIZE);
	assert_int_equal(number(told(b, 1), "lun"), 63);
	pass(b, "a.vhdx");
	refused(b,
		"{'command': 'disk-attach', 'disk': {'controller': 1, 'lun': 63}, "
		"'files': [{'descriptor': 0}]}",
		-EBUSY, "there is a drive");
	pass(b, "a.vhdx");
	refused(b,
		"{'command': 'disk-attach', 'disk': {'controller': 0, 'lun': 1}, "
		"'files': [{'descriptor': 0}]}",
		-EBUSY, "");
	/* It is one of those that can be changed: and not while it is. */
	ok(b, "{'command': 'disk-freeze', 'disk': {'controller': 1, 'lun': 63}}");
	refused(b, "{'command': 'disk-detach', 'disk': {'controller': 1, 'lun': 63}}", -EBUSY,
		"frozen");
	ok(b, "{'command': 'disk-thaw', 'disk': {'controller': 1, 'lun': 63}}");
	ok(b, "{'command': 'disk-detach', 'disk': {'controller': 1, 'lun': 63}}");
	assert_int_equal(open_files(), files);
	assert_null(told(b, 1));
	refused(b, "{'command': 'disk-detach', 'disk': {'controller': 1, 'lun': 63}}", -ENOENT,
		"there is no drive");
	pass(b, "a.vhdx"); /* its lock is free again */
	ok(b, "{'command': 'disk-attach', 'disk': {'controller': 0, 'lun': 1}, "
	      "'files': [{'descriptor': 0}]}");
}

static void test_refusals(void **state)
{
	struct bed *b = *state;
	unsigned files = open_files();

	refused(b, "{'command': 'disk-attach', 'disk': {'controller': 0, 'lun': 1}}", -EINVAL,
		"needs the file");
	pass(b, "a.vhdx");
	refused(b,
		"{'command': 'disk-attach', 'disk': {'controller': 2, 'lun': 1}, "
		"'files': [{'descriptor': 0}]}",
		-ENOENT, "there is no controller 2");
	pass(b, "a.vhdx");
	refused(b,
		"{'command': 'disk-attach', 'disk': {'controller': 0, 'lun': 64}, "
		"'files': [{'descriptor': 0}]}",
		-EINVAL, "not below 64");
	pass(b, "a.vhdx");
	refused(b,
		"{'command': 'disk-attach', 'disk': {'controller': 0, 'lun': 1}, "
		"'files': [{'descriptor': 0}, {'descriptor': 0}]}",
		-EBADF, "named twice");
	pass(b, "a.iso");
	refused(b,
		"{'command': 'disk-attach', 'disk': {'controller': 0, 'lun': 1}, "
		"'format': 'vhdx', 'files': [{'descriptor': 0}]}",
		-EINVAL, "");
	refused(b, "{'command': 'disk-media', 'disk': {'controller': 0, 'lun': 1}}", -ENOENT, "");
	assert_int_equal(open_files(), files);
}

static void test_chain(void **state)
{
	struct bed *b = *state;
	unsigned files = open_files();

	pass(b, "c.vhdx");
	refused(b,
		"{'command': 'disk-attach', 'disk': {'controller': 0, 'lun': 1}, "
		"'files': [{'descriptor': 0, 'path': '/c'}]}",
		-EINVAL, "pass its parents");
	pass(b, "c.vhdx");
	pass(b, "b.vhdx");
	refused(b,
		"{'command': 'disk-attach', 'disk': {'controller': 0, 'lun': 1}, "
		"'files': [{'descriptor': 0}, {'descriptor': 1}]}",
		-ESTALE, "");
	pass(b, "b.vhdx");
	pass(b, "a.vhdx");
	refused(b,
		"{'command': 'disk-attach', 'disk': {'controller': 0, 'lun': 1}, "
		"'files': [{'descriptor': 0}, {'descriptor': 1}]}",
		-EINVAL, "has no parent");
	assert_int_equal(open_files(), files);
	pass(b, "c.vhdx");
	pass(b, "a.vhdx");
	ok(b, "{'command': 'disk-attach', 'disk': {'controller': 0, 'lun': 1}, "
	      "'files': [{'descriptor': 0, 'path': '/c'}, {'descriptor': 1, 'path': '/a'}]}");
	assert_int_equal(number(told(b, 1), "chain_depth"), 2);
	ok(b, "{'command': 'disk-detach', 'disk': {'controller': 0, 'lun': 1}, 'force': true}");
	assert_int_equal(open_files(), files);
}

static void test_discs(void **state)
{
	struct bed *b = *state;
	unsigned files = open_files();

	assert_true(json_is_true(json_object_get(told(b, 0), "empty")));
	pass(b, "a.iso");
	ok(b, "{'command': 'disk-media', 'disk': {'controller': 0, 'lun': 5}, "
	      "'file': {'descriptor': 0, 'path': '/a.iso'}}");
	assert_false(json_is_true(json_object_get(told(b, 0), "empty")));
	pass(b, "b.iso");
	ok(b, "{'command': 'disk-media', 'disk': {'controller': 0, 'lun': 5}, "
	      "'file': {'descriptor': 0, 'path': '/b.iso'}}");
	assert_string_equal(
		json_string_value(json_object_get(
			json_array_get(json_object_get(told(b, 0), "chain"), 0), "file")),
		"/b.iso");
	refused(b,
		"{'command': 'disk-media', 'disk': {'controller': 0, 'lun': 5}, "
		"'file': {'descriptor': 0}}",
		-EBADF, "not passed");
	ok(b, "{'command': 'disk-media', 'disk': {'controller': 0, 'lun': 5}}");
	assert_int_equal(open_files(), files);
	pass(b, "a.iso");
	ok(b, "{'command': 'disk-attach', 'disk': {'controller': 1, 'lun': 0}, 'kind': 'dvd', "
	      "'files': [{'descriptor': 0}]}");
	ok(b, "{'command': 'disk-detach', 'disk': {'controller': 0, 'lun': 5}}");
	ok(b, "{'command': 'disk-detach', 'disk': {'controller': 1, 'lun': 0}}");
	assert_int_equal(open_files(), files);
}

/* All that four controllers could hold comes and goes, in another order. */
static void test_many(void **state)
{
	struct bed *b = *state;
	unsigned files = open_files();
	char text[256];

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < 64; i++) {
			pass(b, "ro.vhdx");
			snprintf(text, sizeof(text),
				 "{'command': 'disk-attach', 'disk': {'controller': 1, 'lun': %u}, "
				 "'read_only': true, 'files': [{'descriptor': 0}]}",
				 (i * 29 + round) % 64);
			ok(b, text);
		}
		for (unsigned i = 0; i < 64; i++) {
			snprintf(text, sizeof(text),
				 "{'command': 'disk-detach', 'disk': {'controller': 1, 'lun': %u}}",
				 (i * 37 + 5) % 64);
			ok(b, text);
		}
		assert_int_equal(open_files(), files);
	}
}

static int folder_make(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(folder));
	make("a.vhdx", NULL);
	make("b.vhdx", NULL);
	make("ro.vhdx", NULL);
	make("c.vhdx", path_of("a.vhdx"));
	make_iso("a.iso", 'a');
	make_iso("b.iso", 'b');
	return 0;
}

static int folder_remove(void **state)
{
	static const char *const names[] = { "a.vhdx",  "b.vhdx", "c.vhdx",
					     "ro.vhdx", "a.iso",  "b.iso" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		unlink(path_of(names[i]));
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_disk, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(test_refusals, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(test_chain, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(test_discs, bed_new, bed_free),
		cmocka_unit_test_setup_teardown(test_many, bed_new, bed_free),
	};

	return cmocka_run_group_tests(tests, folder_make, folder_remove);
}
