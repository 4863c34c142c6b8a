// SPDX-License-Identifier: MIT
/*
 * What a machine's disks can do while a guest uses them, through the commands of the control
 * socket. The guest is a model (vhd/disk_model.h): random requests all the time, against an array.
 */
#include "lib/cleanup.h"
#include "vhd/disk_drive.h"
#include "vhd/disk_model.h"
#include "vhd/image.h"
#include "vhd/vhd.h"
#include "vhd/vhdx.h"
#include "worker/disk_control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SIZE   (16 * MIB)
#define LARGE  (24 * MIB)
#define DRIVES 2

static char folder[] = "/dev/shm/partita-live-XXXXXX";

struct bed {
	struct loop *loop;
	struct live *live;
	struct drive *drives[DRIVES];
	struct model models[DRIVES];
	bool guest; /* sends requests while commands run */
	unsigned resized, events, files;
	json_t *last; /* event that ended something */
	const struct command_type *type;
	struct command_family family;
	struct command command;
	int fds[8];
	bool done;
	int result;
	struct error err;
};

/* --- files --- */

static const char *path_of(const char *name)
{
	static char paths[8][256];
	static unsigned next;
	char *path = paths[next++ % ARRAY_SIZE(paths)];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static int open_new(const char *name)
{
	int fd = open(path_of(name), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	return fd;
}

static int open_again(const char *name)
{
	int fd = open(path_of(name), O_RDWR | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static int try_disk(struct loop *loop, const char *name, bool read_only, struct disk **ret)
{
	const struct disk_open_options o = { .read_only = read_only, .follow = true };
	struct error err = { 0 };
	int fd = open(path_of(name), (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);

	assert_true(fd >= 0);
	return disk_open(loop, fd, path_of(name), &o, ret, &err);
}

static void on_finding(struct check_report *r, enum check_kind kind, const char *text)
{
	(void)r;
	if (kind == CHECK_DAMAGE)
		fail_msg("%s", text);
}

static void check_ok(const char *name)
{
	struct check_report report = { .found = on_finding };
	struct error err = { 0 };
	int fd = open(path_of(name), O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	if (image_check(fd, path_of(name), &report, &err) < 0)
		fail_msg("%s", err.message);
}

/* --- the bed --- */

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

static void on_resized(struct drive *drive)
{
	((struct bed *)drive->resized_context)->resized++;
}

static void on_event(void *context, const struct live_event *event)
{
	struct bed *b = context;
	bool may_miss;
	json_t *o = disk_event(event, &may_miss);

	b->events++;
	if (may_miss) {
		json_decref(o);
		return;
	}
	json_decref(b->last);
	b->last = o;
}

static void drive_make(struct bed *b, unsigned index, const char *name, bool vhd)
{
	const struct vhdx_create_options xo = { .size = SIZE, .block_size = MIB };
	const struct vhd_create_options vo = { .size = SIZE,
					       .block_size = 512 * KIB,
					       .kind = VHD_DYNAMIC };
	const struct drive_options o = { .loop = b->loop, .lun = index };
	int fd = open_new(name);

	assert_int_equal(vhd ? vhd_create(fd, &vo, NULL) : vhdx_create(fd, &xo, NULL), 0);
	close(fd);
	if (drive_open(&o, open_again(name), path_of(name), &b->drives[index], &b->err) < 0)
		fail_msg("%s", b->err.message);
	b->drives[index]->resized = on_resized;
	b->drives[index]->resized_context = b;
	b->models[index] = (struct model){ .d = b->drives[index]->disk,
					   .expect = calloc(1, LARGE),
					   .size = SIZE,
					   .sector = 512,
					   .seed = 11 + index };
}

static struct bed *bed_new(bool vhd)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct live_options o = { .drives = b->drives, .drive_count = DRIVES };
	struct error err = { 0 };
	char clear[64];

	b->files = open_files();
	snprintf(clear, sizeof(clear), "rm -f %s/*", folder);
	assert_int_equal(system(clear), 0);
	assert_int_equal(loop_new(64, &b->loop, &err), 0);
	drive_make(b, 0, vhd ? "a0.vhd" : "a0.vhdx", vhd);
	drive_make(b, 1, vhd ? "b0.vhd" : "b0.vhdx", vhd);
	o.loop = b->loop;
	assert_int_equal(live_new(&o, &b->live, &err), 0);
	live_on_event(b->live, on_event, b);
	b->guest = true;
	return b;
}

static void guest_step(struct bed *b)
{
	for (unsigned i = 0; i < DRIVES && b->guest; i++) {
		/* A guest is asked that before it writes, the model is not. */
		assert_false(b->drives[i]->disk->geometry.read_only);
		model_step(&b->models[i], MIB);
	}
	assert_int_equal(loop_once(b->loop, b->guest ? 0 : 20), 0);
}

static void guest_steps(struct bed *b, unsigned n)
{
	while (n--)
		guest_step(b);
}

static void guest_settle(struct bed *b)
{
	for (unsigned i = 0; i < DRIVES; i++)
		model_settle(&b->models[i]);
}

static void guest_compare(struct bed *b)
{
	guest_settle(b);
	for (unsigned i = 0; i < DRIVES; i++)
		model_compare(&b->models[i]);
}

static void on_settled(void *context)
{
	*(bool *)context = true;
}

static void bed_free(struct bed *b)
{
	bool settled = false;

	guest_settle(b);
	live_settle(b->live, on_settled, &settled);
	while (!settled)
		assert_int_equal(loop_once(b->loop, 20), 0);
	for (unsigned i = 0; i < DRIVES; i++) {
		if (drive_close(b->drives[i], &b->err) < 0)
			fail_msg("%s", b->err.message);
		free(b->models[i].expect);
	}
	live_free(b->live);
	loop_free(b->loop);
	assert_int_equal(open_files(), b->files);
	json_decref(b->last);
	json_decref((json_t *)b->command.request);
	json_decref(b->command.answer);
	free(b->command.state);
	free(b);
}

/* --- commands --- */

static void on_done(struct command *c, int result, const struct error *err)
{
	struct bed *b = container_of(c, struct bed, command);

	b->done = true;
	b->result = result;
	b->err = *err;
}

/* The words of ' ' are those of JSON's ". */
static void start(struct bed *b, const char *format, ...)
{
	const struct command_family *family;
	char text[4096];
	json_error_t e;
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	for (char *p = text; *p; p++)
		*p = *p == '\'' ? '"' : *p;
	json_decref((json_t *)b->command.request);
	json_decref(b->command.answer);
	free(b->command.state);
	b->command = (struct command){ .request = json_loads(text, 0, &e),
				       .answer = json_object(),
				       .fds = b->fds,
				       .fd_count = b->command.fd_count,
				       .done = on_done };
	if (!b->command.request)
		fail_msg("%s: %s", text, e.text);
	b->family = disk_family(b->live);
	b->type = command_find(&b->family, 1,
			       json_string_value(json_object_get(b->command.request, "command")),
			       &family);
	assert_non_null(b->type);
	b->err = (struct error){ 0 };
	b->done = false;
	b->result = command_run(family, b->type, &b->command, &b->err);
	b->done = b->result <= 0;
}

static int wait_done(struct bed *b)
{
	while (!b->done)
		guest_step(b);
	for (unsigned i = 0; i < b->command.fd_count; i++)
		if (b->fds[i] >= 0)
			close(b->fds[i]);
	b->command.fd_count = 0;
	return b->result;
}

static void pass(struct bed *b, int fd)
{
	b->fds[b->command.fd_count++] = fd;
}

static void ok(struct bed *b)
{
	if (wait_done(b) < 0)
		fail_msg("%s", b->err.message);
}

static void refused(struct bed *b, int code, const char *words)
{
	int r = wait_done(b);

	if (!strstr(b->err.message, words))
		fail_msg("\"%s\" is not in: %s", words, b->err.message);
	assert_int_equal(r, code);
}

static json_t *answer(struct bed *b, const char *key)
{
	json_t *v = json_object_get(b->command.answer, key);

	assert_non_null(v);
	return v;
}

static json_t *drive_told(struct bed *b, unsigned lun)
{
	start(b, "{'command': 'disk-query', 'disk': {'controller': 0, 'lun': %u}}", lun);
	ok(b);
	return json_array_get(answer(b, "disks"), 0);
}

/* Until the merge has ended; its event's "ok". */
static bool merge_end(struct bed *b, unsigned lun)
{
	while (b->drives[lun]->merge)
		guest_step(b);
	assert_string_equal(json_string_value(json_object_get(b->last, "event")), "disk-merged");
	return json_is_true(json_object_get(b->last, "ok"));
}

#define DISK(lun) "'disk': {'controller': 0, 'lun': " #lun "}"

static void snapshot(struct bed *b, unsigned lun, const char *name)
{
	pass(b, open_new(name));
	start(b,
	      "{'command': 'disk-snapshot', 'disks': [{'controller': 0, 'lun': %u, "
	      "'file': '%s', 'descriptor': 0}]}",
	      lun, path_of(name));
	ok(b);
}

/* --- tests --- */

static void test_query(void **state)
{
	struct bed *b = bed_new(false);
	json_t *d;

	(void)state;
	start(b, "{'command': 'disk-query'}");
	ok(b);
	assert_int_equal(json_array_size(answer(b, "disks")), 2);
	snapshot(b, 1, "b1.vhdx");
	d = drive_told(b, 1);
	assert_int_equal(json_integer_value(json_object_get(d, "chain_depth")), 2);
	assert_string_equal(json_string_value(json_object_get(
				    json_array_get(json_object_get(d, "chain"), 1), "file")),
			    path_of("b0.vhdx"));
	assert_int_equal(json_integer_value(json_object_get(d, "size")), SIZE);
	assert_int_equal(json_integer_value(json_object_get(d, "sector")), 512);
	assert_true(json_is_null(json_object_get(d, "merge")));
	assert_true(json_is_null(json_object_get(d, "track")));
	assert_true(json_is_false(json_object_get(d, "frozen")));
	start(b, "{'command': 'disk-query', " DISK(1) ", 'chain_from': 4000000000}");
	ok(b);
	bed_free(b);
}

static void test_resize(void **state)
{
	struct bed *b = bed_new(false);

	(void)state;
	guest_steps(b, 200);
	start(b, "{'command': 'disk-resize', " DISK(0) ", 'size': %llu}",
	      (unsigned long long)LARGE);
	ok(b);
	assert_int_equal(b->resized, 1);
	assert_int_equal(json_integer_value(answer(b, "size")), LARGE);
	b->models[0].size = LARGE;
	guest_steps(b, 200);
	guest_settle(b);
	b->guest = false;
	/* data at the new end */
	assert_int_equal(drive_write(b->drives[0]->disk, b->models[0].expect, 512, LARGE - 512, 0),
			 0);
	memcpy(b->models[0].expect + LARGE - 512, b->models[0].expect, 512);
	start(b, "{'command': 'disk-resize', " DISK(0) ", 'size': %llu}", (unsigned long long)SIZE);
	refused(b, -EBUSY, "there is data up to byte");
	assert_int_equal(b->resized, 1);
	assert_int_equal(drive_trim(b->drives[0]->disk, LARGE - SIZE, SIZE), 0);
	start(b, "{'command': 'disk-resize', " DISK(0) ", 'size': %llu}", (unsigned long long)SIZE);
	ok(b);
	assert_int_equal(b->resized, 2);
	b->models[0].size = SIZE;
	start(b, "{'command': 'disk-resize', " DISK(0) ", 'size': 1000}");
	refused(b, -EINVAL, "multiple of its sectors");
	start(b, "{'command': 'disk-resize', " DISK(0) ", 'size': 9223372036854775296}");
	assert_true(wait_done(b) < 0);
	guest_compare(b);
	bed_free(b);
	check_ok("a0.vhdx");
}

static void test_resize_of_a_raw_image(void **state)
{
	struct bed *b = bed_new(false);
	const struct drive_options o = { .loop = b->loop, .lun = 1, .format = "raw" };
	int fd = open_new("raw");

	(void)state;
	assert_int_equal(drive_close(b->drives[1], NULL), 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	assert_int_equal(drive_open(&o, fd, NULL, &b->drives[1], &b->err), 0);
	b->drives[1]->owner = b->live;
	loop_timer_init(b->loop, &b->drives[1]->thaw_timer, NULL);
	b->models[1].d = b->drives[1]->disk;
	start(b, "{'command': 'disk-resize', " DISK(1) ", 'size': %llu}",
	      (unsigned long long)LARGE);
	refused(b, -ENOTSUP, "raw images keep their size");
	pass(b, open_new("child"));
	start(b, "{'command': 'disk-snapshot', 'disks': [{'controller': 0, 'lun': 1, "
		 "'file': '/x', 'descriptor': 0}]}");
	refused(b, -ENOTSUP, "cannot have children");
	guest_steps(b, 50);
	bed_free(b);
}

static void snapshot_both(struct bed *b, const char *a, const char *c)
{
	pass(b, open_new(a));
	pass(b, open_new(c));
	start(b,
	      "{'command': 'disk-snapshot', 'disks': [{'controller': 0, 'lun': 0, 'file': '%s', "
	      "'descriptor': 0}, {'controller': 0, 'lun': 1, 'file': '%s', 'descriptor': 1}]}",
	      path_of(a), path_of(c));
}

static void test_snapshots_and_merges(bool vhd)
{
	struct bed *b = bed_new(vhd);
	const char *base = vhd ? "a0.vhd" : "a0.vhdx", *child = vhd ? "a1.vhd" : "a1.vhdx";
	struct disk *d;

	guest_steps(b, 300);
	snapshot_both(b, child, "b1.x");
	ok(b);
	assert_int_equal(b->drives[0]->depth, 2);
	assert_int_equal(b->drives[1]->depth, 2);
	guest_steps(b, 300);
	/* the parent may be read by others now, the child not */
	assert_int_equal(try_disk(b->loop, base, true, &d), 0);
	assert_int_equal(disk_close(d, NULL), 0);
	assert_int_equal(try_disk(b->loop, child, true, &d), -EBUSY);
	/* a snapshot of the snapshot, and both back */
	snapshot(b, 0, "a2.x");
	guest_steps(b, 300);
	for (unsigned depth = 3; depth > 1; depth--) {
		pass(b, open_again(depth == 3 ? child : base));
		start(b, "{'command': 'disk-merge', " DISK(0) ", 'parent': 0}");
		ok(b);
		assert_true(merge_end(b, 0));
		assert_int_equal(b->drives[0]->depth, depth - 1);
		guest_steps(b, 100);
	}
	assert_string_equal(
		json_string_value(json_array_get(json_object_get(b->last, "delete"), 0)),
		path_of(child));
	guest_compare(b);
	/* who opens the merged image is told no */
	assert_true(try_disk(b->loop, child, true, &d) < 0);
	b->guest = false;
	bed_free(b);
	check_ok(base);
	check_ok("b1.x");
}

static void test_vhdx(void **state)
{
	(void)state;
	test_snapshots_and_merges(false);
}

static void test_vhd(void **state)
{
	(void)state;
	test_snapshots_and_merges(true);
}

/* What is on the disk afterwards is what a guest that starts again finds. */
static void test_all_is_found_again(void **state)
{
	struct bed *b = bed_new(false);
	_cleanup_free_ uint8_t *expect = malloc(SIZE), *found = malloc(SIZE);
	struct loop *loop;
	struct disk *d;

	(void)state;
	guest_steps(b, 200);
	snapshot_both(b, "a1.vhdx", "b1.vhdx");
	ok(b);
	guest_steps(b, 200);
	guest_settle(b);
	memcpy(expect, b->models[0].expect, SIZE);
	bed_free(b);
	assert_int_equal(loop_new(64, &loop, NULL), 0);
	assert_int_equal(try_disk(loop, "a1.vhdx", false, &d), 0);
	assert_int_equal(drive_read(d, found, SIZE, 0), 0);
	assert_memory_equal(found, expect, SIZE);
	assert_int_equal(disk_close(d, NULL), 0);
	loop_free(loop);
	for (int i = 0; i < 2; i++)
		check_ok(i ? "a1.vhdx" : "a0.vhdx");
}

static void assert_unchanged(struct bed *b)
{
	for (unsigned i = 0; i < DRIVES; i++) {
		assert_int_equal(b->drives[i]->depth, 1);
		assert_true(b->drives[i]->images[0].writable);
	}
	guest_steps(b, 100);
	guest_compare(b);
}

static void test_a_snapshot_of_all_or_none(void **state)
{
	struct bed *b = bed_new(false);
	int fd;

	(void)state;
	guest_steps(b, 100);
	/* the second file has something in it */
	pass(b, open_new("a1.vhdx"));
	fd = open_new("b1.vhdx");
	assert_int_equal(write(fd, "x", 1), 1);
	pass(b, fd);
	start(b, "{'command': 'disk-snapshot', 'disks': [{'controller': 0, 'lun': 0, 'file': '/a', "
		 "'descriptor': 0}, {'controller': 0, 'lun': 1, 'file': '/b', 'descriptor': 1}]}");
	refused(b, -EEXIST, "drive 0:1: \"/b\" is not empty");
	assert_unchanged(b);
	/* it cannot be made: found out when all stand still */
	pass(b, open_new("a2.vhdx"));
	pass(b, open_new("b2.vhdx"));
	start(b, "{'command': 'disk-snapshot', 'disks': [{'controller': 0, 'lun': 0, 'file': '/a', "
		 "'descriptor': 0}, {'controller': 0, 'lun': 1, 'file': '/b', 'descriptor': 1, "
		 "'block_size': 1000}]}");
	assert_true(wait_done(b) < 0);
	assert_non_null(strstr(b->err.message, "drive 0:1"));
	assert_unchanged(b);
	/* the second image cannot be opened again, when the first has been */
	close(b->drives[1]->images[0].fd);
	b->drives[1]->images[0].fd = -1;
	snapshot_both(b, "a3.vhdx", "b3.vhdx");
	refused(b, -EMFILE, "drive 0:1");
	assert_unchanged(b);
	bed_free(b);
	check_ok("a0.vhdx");
	check_ok("b0.vhdx");
}

static void chain_of_four(struct bed *b)
{
	const char *names[] = { "a1.vhdx", "a2.vhdx", "a3.vhdx" };

	for (unsigned i = 0; i < 3; i++) {
		guest_steps(b, 150);
		snapshot(b, 0, names[i]);
	}
	guest_steps(b, 150);
}

static void inner_merge(struct bed *b)
{
	pass(b, open_again("a0.vhdx"));
	pass(b, open_again("a1.vhdx"));
	pass(b, open_again("a2.vhdx"));
	start(b, "{'command': 'disk-merge', " DISK(0) ", 'image': 2, 'parent': 0, 'self': 1, "
						      "'child': 2}");
	ok(b);
}

/* A merge may be through before it can be stopped: another one then. */
static struct bed *inner_merge_stopped(void)
{
	for (;;) {
		struct bed *b = bed_new(false);

		chain_of_four(b);
		inner_merge(b);
		if (b->drives[0]->merge) {
			start(b, "{'command': 'disk-cancel', " DISK(0) "}");
			ok(b);
		}
		if (!merge_end(b, 0))
			return b;
		bed_free(b);
	}
}

static void test_merge_of_an_inner_image(void **state)
{
	struct bed *b = inner_merge_stopped();
	struct loop *loop;
	struct disk *d;

	(void)state;
	/* begun again */
	assert_int_equal(b->drives[0]->depth, 4);
	guest_steps(b, 100);
	start(b, "{'command': 'disk-merge', " DISK(0) ", 'image': 2}");
	ok(b);
	/* meanwhile, if it is not through: also refused when its end is under way */
	if (b->drives[0]->merge) {
		const char *why = live_changing(b->live) ? "another change" : "merge";

		start(b, "{'command': 'disk-resize', " DISK(0) ", 'size': %llu}",
		      (unsigned long long)LARGE);
		refused(b, -EBUSY, why);
	}
	assert_true(merge_end(b, 0));
	assert_string_equal(json_string_value(json_object_get(b->last, "file")),
			    path_of("a1.vhdx"));
	assert_string_equal(json_string_value(json_object_get(b->last, "into")),
			    path_of("a0.vhdx"));
	assert_int_equal(b->drives[0]->depth, 3);
	guest_steps(b, 100);
	guest_compare(b);
	assert_int_equal(unlink(path_of("a1.vhdx")), 0);
	bed_free(b);
	assert_int_equal(loop_new(8, &loop, NULL), 0);
	assert_int_equal(try_disk(loop, "a3.vhdx", true, &d), 0);
	assert_int_equal(disk_close(d, NULL), 0);
	loop_free(loop);
}

static void test_wrong_descriptors(void **state)
{
	struct bed *b = bed_new(false);

	(void)state;
	snapshot(b, 0, "a1.vhdx");
	start(b, "{'command': 'disk-merge', " DISK(0) "}");
	refused(b, -EINVAL, "must be opened for writing and passed");
	start(b, "{'command': 'disk-merge', " DISK(0) ", 'parent': 0}");
	refused(b, -EBADF, "not passed");
	pass(b, open_again("b0.vhdx"));
	start(b, "{'command': 'disk-merge', " DISK(0) ", 'parent': 0}");
	refused(b, -EINVAL, "was the file replaced?");
	pass(b, open(path_of("a0.vhdx"), O_RDONLY));
	start(b, "{'command': 'disk-merge', " DISK(0) ", 'parent': 0}");
	refused(b, -EINVAL, "reading and writing");
	pass(b, open("/dev/zero", O_RDWR));
	start(b, "{'command': 'disk-track', 'action': 'on', " DISK(0) ", 'descriptor': 0}");
	refused(b, -EINVAL, "regular file");
	pass(b, open_again("a0.vhdx"));
	start(b, "{'command': 'disk-merge', " DISK(0) ", 'image': 1, 'parent': 0}");
	refused(b, -EINVAL, "has no parent");
	guest_steps(b, 50);
	/* somebody reads the parent */
	{
		struct disk *d;

		assert_int_equal(try_disk(b->loop, "a0.vhdx", true, &d), 0);
		pass(b, open_again("a0.vhdx"));
		start(b, "{'command': 'disk-merge', " DISK(0) ", 'parent': 0}");
		refused(b, -EBUSY, "another process");
		assert_int_equal(disk_close(d, NULL), 0);
	}
	guest_steps(b, 50);
	guest_compare(b);
	bed_free(b);
}

struct waiting {
	struct disk_request req;
	struct iovec iov;
	bool done;
};

static void on_waited(struct disk_request *req, int result)
{
	assert_int_equal(result, 0);
	container_of(req, struct waiting, req)->done = true;
}

static void test_freeze(void **state)
{
	struct bed *b = bed_new(false);
	uint8_t bytes[512];
	struct waiting w = { .iov = { bytes, sizeof(bytes) } };
	unsigned events;

	(void)state;
	w.req = (struct disk_request){
		.op = DISK_READ, .length = 512, .iov = &w.iov, .iovcnt = 1, .done = on_waited
	};
	guest_steps(b, 50);
	guest_settle(b);
	b->guest = false;
	start(b, "{'command': 'disk-freeze', 'disks': [{'controller': 0, 'lun': 0}, "
		 "{'controller': 0, 'lun': 1}], 'seconds': 60}");
	ok(b);
	disk_submit(b->drives[0]->disk, &w.req);
	guest_steps(b, 10);
	assert_false(w.done);
	start(b, "{'command': 'disk-freeze', " DISK(0) "}");
	refused(b, -EBUSY, "frozen");
	start(b, "{'command': 'disk-resize', " DISK(0) ", 'size': %llu}",
	      (unsigned long long)LARGE);
	refused(b, -EBUSY, "thaw it first");
	start(b, "{'command': 'disk-thaw', 'disks': [{'controller': 0, 'lun': 0}, "
		 "{'controller': 0, 'lun': 1}]}");
	ok(b);
	guest_steps(b, 10);
	assert_true(w.done);
	start(b, "{'command': 'disk-thaw', " DISK(0) "}");
	refused(b, -EINVAL, "is not frozen");
	/* nobody comes to thaw it: the request waits a second, and no longer */
	start(b, "{'command': 'disk-freeze', " DISK(0) ", 'seconds': 1}");
	ok(b);
	events = b->events;
	assert_int_equal(drive_read(b->drives[0]->disk, bytes, 512, 0), 0);
	assert_int_equal(b->events, events + 1);
	assert_string_equal(json_string_value(json_object_get(b->last, "event")), "disk-thawed");
	/* a reset does not wait for that */
	start(b, "{'command': 'disk-freeze', " DISK(0) ", 'seconds': 60}");
	ok(b);
	live_reset(b->live);
	assert_int_equal(drive_read(b->drives[0]->disk, bytes, 512, 0), 0);
	start(b, "{'command': 'disk-freeze', " DISK(0) "}");
	refused(b, -EINVAL, "being reset");
	live_running(b->live);
	bed_free(b);
}

/* A merge waits for a frozen disk, and the end of the machine for neither. */
static void test_freeze_during_a_merge(void **state)
{
	struct bed *b = bed_new(false);

	(void)state;
	guest_steps(b, 200);
	snapshot(b, 0, "a1.vhdx");
	guest_steps(b, 300);
	guest_settle(b);
	pass(b, open_again("a0.vhdx"));
	start(b, "{'command': 'disk-merge', " DISK(0) ", 'parent': 0}");
	ok(b);
	guest_settle(b);
	start(b, "{'command': 'disk-freeze', " DISK(0) "}");
	b->guest = false;
	if (wait_done(b) < 0) {
		/* it was quicker */
		assert_true(merge_end(b, 0));
	} else {
		for (int i = 0; i < 100; i++)
			assert_int_equal(loop_once(b->loop, 5), 0);
		assert_non_null(b->drives[0]->merge);
		start(b, "{'command': 'disk-thaw', " DISK(0) "}");
		ok(b);
		assert_true(merge_end(b, 0));
	}
	guest_compare(b);
	bed_free(b);
}

static void test_the_end_stops_a_merge(void **state)
{
	struct bed *b = bed_new(false);
	struct loop *loop;
	struct disk *d;

	(void)state;
	chain_of_four(b);
	inner_merge(b);
	bed_free(b); /* settles, whatever is under way */
	assert_int_equal(loop_new(8, &loop, NULL), 0);
	assert_int_equal(try_disk(loop, "a3.vhdx", true, &d), 0);
	assert_int_equal(disk_close(d, NULL), 0);
	loop_free(loop);
}

static void test_the_end_comes_in_a_change(void **state)
{
	struct bed *b = bed_new(false);
	bool settled = false;

	(void)state;
	guest_steps(b, 100);
	snapshot_both(b, "a1.vhdx", "b1.vhdx");
	live_settle(b->live, on_settled, &settled);
	assert_false(settled);
	ok(b);
	assert_true(settled);
	start(b, "{'command': 'disk-resize', " DISK(0) ", 'size': %llu}",
	      (unsigned long long)LARGE);
	refused(b, -EINVAL, "ending");
	guest_compare(b);
	bed_free(b);
}

static const char *point_told(struct bed *b)
{
	return json_string_value(json_object_get(json_array_get(answer(b, "disks"), 0), "point"));
}

static void test_track(void **state)
{
	struct bed *b = bed_new(false);
	uint8_t bytes[512] = { 1 };
	char point[64];

	(void)state;
	guest_steps(b, 100);
	start(b, "{'command': 'disk-track', 'action': 'list', " DISK(0) "}");
	refused(b, -ENOENT, "not tracked");
	pass(b, open_new("a0.vhdx.track"));
	start(b, "{'command': 'disk-track', 'action': 'on', " DISK(0) ", 'descriptor': 0}");
	ok(b);
	guest_steps(b, 100);
	guest_settle(b);
	b->guest = false;
	start(b, "{'command': 'disk-track', 'action': 'point', " DISK(0) "}");
	ok(b);
	snprintf(point, sizeof(point), "%s", point_told(b));
	start(b, "{'command': 'disk-track', 'action': 'query', " DISK(0) ", 'point': '%s'}", point);
	ok(b);
	assert_int_equal(json_array_size(answer(b, "changed")), 0);
	for (uint64_t at = 0; at < SIZE; at += 4 * MIB) {
		assert_int_equal(drive_write(b->drives[0]->disk, bytes, 512, at, 0), 0);
		memcpy(b->models[0].expect + at, bytes, 512);
	}
	start(b,
	      "{'command': 'disk-track', 'action': 'query', " DISK(0) ", 'point': '%s', "
								      "'limit': 3}",
	      point);
	ok(b);
	assert_int_equal(json_array_size(answer(b, "changed")), 3);
	assert_int_equal(json_integer_value(answer(b, "next")), 12 * MIB);
	start(b,
	      "{'command': 'disk-track', 'action': 'query', " DISK(0) ", 'point': '%s', "
								      "'offset': %llu}",
	      point, (unsigned long long)(12 * MIB));
	ok(b);
	assert_int_equal(json_array_size(answer(b, "changed")), 1);
	assert_null(json_object_get(b->command.answer, "next"));
	start(b, "{'command': 'disk-track', 'action': 'list', " DISK(0) "}");
	ok(b);
	assert_int_equal(json_array_size(answer(b, "points")), 2);
	start(b, "{'command': 'disk-track', 'action': 'drop', " DISK(0) ", 'point': '%s'}", point);
	ok(b);
	b->guest = true;
	guest_steps(b, 50);
	start(b, "{'command': 'disk-track', 'action': 'off', " DISK(0) "}");
	ok(b);
	guest_steps(b, 50);
	guest_compare(b);
	bed_free(b);
	check_ok("a0.vhdx");
}

/* A tracked disk: its snapshot with a track of its own, and back into a parent with its. */
static void test_tracked_snapshot(void **state)
{
	struct bed *b = bed_new(false);
	char point[64];

	(void)state;
	pass(b, open_new("a0.vhdx.track"));
	start(b, "{'command': 'disk-track', 'action': 'on', " DISK(0) ", 'descriptor': 0}");
	ok(b);
	snprintf(point, sizeof(point), "%s", point_told(b));
	pass(b, open_new("a1.vhdx"));
	pass(b, open_new("a1.vhdx.track"));
	start(b,
	      "{'command': 'disk-snapshot', 'disks': [{'controller': 0, 'lun': 0, 'file': '%s', "
	      "'descriptor': 0, 'track': 1}]}",
	      path_of("a1.vhdx"));
	ok(b);
	guest_steps(b, 100);
	start(b, "{'command': 'disk-track', 'action': 'point', " DISK(0) "}");
	ok(b);
	pass(b, open_again("a0.vhdx"));
	pass(b, open_again("a0.vhdx.track"));
	start(b, "{'command': 'disk-merge', " DISK(0) ", 'parent': 0, 'track': 1}");
	ok(b);
	assert_true(merge_end(b, 0));
	start(b, "{'command': 'disk-track', 'action': 'query', " DISK(0) ", 'point': '%s'}", point);
	ok(b);
	assert_true(json_array_size(answer(b, "changed")) > 0);
	guest_compare(b);
	bed_free(b);
}

static const struct {
	const char *request, *words;
} hostile[] = {
	{ "{'command': 'disk-resize'}", "a disk is named like" },
	{ "{'command': 'disk-resize', 'disk': 7}", "a disk is named like" },
	{ "{'command': 'disk-resize', 'disk': {}}", "\"controller\" must be a whole number" },
	{ "{'command': 'disk-resize', 'disk': {'controller': -1, 'lun': 0}}", "whole number" },
	{ "{'command': 'disk-resize', 'disk': {'controller': 0, 'lun': 0.5}}", "\"lun\" must be" },
	{ "{'command': 'disk-resize', 'disk': {'controller': 4294967296, 'lun': 0}}", "from 0 to" },
	{ "{'command': 'disk-resize', 'disk': {'controller': 4294967295, 'lun': 4294967295}}",
	  "there is no drive at controller 4294967295, LUN 4294967295" },
	{ "{'command': 'disk-resize', " DISK(9) ", 'size': 1}", "there is no drive" },
	{ "{'command': 'disk-resize', " DISK(0) "}", "\"size\" must be a whole number" },
	{ "{'command': 'disk-resize', " DISK(0) ", 'size': '1G'}", "\"size\" must be" },
	{ "{'command': 'disk-resize', " DISK(0) ", 'size': 1e300}", "\"size\" must be" },
	{ "{'command': 'disk-resize', " DISK(0) ", 'size': 0}", "\"size\" must be" },
	{ "{'command': 'disk-resize', " DISK(0) ", 'sizes': 0}", "has no \"sizes\"; it has disk" },
	{ "{'command': 'disk-resize', " DISK(0) ", 'disk size': 0}", "has no \"disk size\"" },
	{ "{'command': 'disk-resize', " DISK(0) ", '': 0}", "has no \"\"" },
	{ "{'command': 'disk-query', 'chain_from': []}", "\"chain_from\" must be" },
	{ "{'command': 'disk-snapshot'}", "a list of 1 to" },
	{ "{'command': 'disk-snapshot', 'disks': []}", "a list of 1 to" },
	{ "{'command': 'disk-snapshot', 'disks': {}}", "a list of 1 to" },
	{ "{'command': 'disk-snapshot', 'disks': [[]]}", "disks[0]: a disk is named like" },
	{ "{'command': 'disk-snapshot', 'disks': [{'controller': 0, 'lun': 0}]}",
	  "\"file\" must be an absolute path" },
	{ "{'command': 'disk-snapshot', 'disks': [{'controller': 0, 'lun': 0, 'file': 'a'}]}",
	  "\"file\" must be an absolute path" },
	{ "{'command': 'disk-snapshot', 'disks': [{'controller': 0, 'lun': 0, 'file': '/a'}]}",
	  "\"descriptor\" must be" },
	{ "{'command': 'disk-snapshot', 'disks': [{'controller': 0, 'lun': 0, 'file': '/a', "
	  "'descriptor': 0}]}",
	  "was not passed" },
	{ "{'command': 'disk-snapshot', 'disks': [{'controller': 0, 'lun': 0, 'file': '/a', "
	  "'descriptor': 2147483648}]}",
	  "\"descriptor\" must be" },
	{ "{'command': 'disk-merge', " DISK(0) ", 'image': 65536}", "\"image\" must be" },
	{ "{'command': 'disk-merge', " DISK(0) "}", "has no parent" },
	{ "{'command': 'disk-cancel', " DISK(0) "}", "nothing is being merged" },
	{ "{'command': 'disk-freeze', " DISK(0) ", 'seconds': 0}", "\"seconds\" must be" },
	{ "{'command': 'disk-freeze', " DISK(0) ", 'seconds': 61}", "from 1 to 60" },
	{ "{'command': 'disk-freeze', 'disks': [{'controller': 0, 'lun': 0}, {'controller': 0, "
	  "'lun': 0}]}",
	  "named twice" },
	{ "{'command': 'disk-thaw', " DISK(0) "}", "is not frozen" },
	{ "{'command': 'disk-track', " DISK(0) "}", "\"action\" is one of" },
	{ "{'command': 'disk-track', " DISK(0) ", 'action': 3}", "\"action\" is one of" },
	{ "{'command': 'disk-track', " DISK(0) ", 'action': 'off'}", "not tracked" },
	{ "{'command': 'disk-track', " DISK(0) ", 'action': 'query', 'point': 'x'}",
	  "not tracked" },
};

static void test_hostile_requests(void **state)
{
	struct bed *b = bed_new(false);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(hostile); i++) {
		start(b, "%s", hostile[i].request);
		assert_true(wait_done(b) < 0);
		if (!strstr(b->err.message, hostile[i].words))
			fail_msg("%s: \"%s\" is not in: %s", hostile[i].request, hostile[i].words,
				 b->err.message);
	}
	assert_unchanged(b);
	bed_free(b);
}

static int teardown(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_query),
		cmocka_unit_test(test_resize),
		cmocka_unit_test(test_resize_of_a_raw_image),
		cmocka_unit_test(test_vhdx),
		cmocka_unit_test(test_vhd),
		cmocka_unit_test(test_all_is_found_again),
		cmocka_unit_test(test_a_snapshot_of_all_or_none),
		cmocka_unit_test(test_merge_of_an_inner_image),
		cmocka_unit_test(test_wrong_descriptors),
		cmocka_unit_test(test_freeze),
		cmocka_unit_test(test_freeze_during_a_merge),
		cmocka_unit_test(test_the_end_stops_a_merge),
		cmocka_unit_test(test_the_end_comes_in_a_change),
		cmocka_unit_test(test_track),
		cmocka_unit_test(test_tracked_snapshot),
		cmocka_unit_test(test_hostile_requests),
	};

	if (!mkdtemp(folder))
		return 1;
	cmocka_set_test_filter(getenv("PARTITA_TEST"));
	return cmocka_run_group_tests(tests, NULL, teardown);
}
