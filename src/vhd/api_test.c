// SPDX-License-Identifier: MIT
/*
 * The public library as its users see it: this includes the installed header alone, and links the
 * shared library.
 */
#include <partita/vhd.h>

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB (1024u * 1024u)

static char folder[] = "/var/tmp/partita-api-XXXXXX";

static const char *path_of(const char *name)
{
	static char paths[4][128];
	static unsigned next;
	char *path = paths[next++ % 4];

	snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
	return path;
}

static struct partita_vhd *open_ok(const char *name, unsigned flags)
{
	struct partita_vhd_error err = { 0 };
	struct partita_vhd *vhd = NULL;

	if (partita_vhd_open(path_of(name), flags, NULL, &vhd, &err) < 0)
		fail_msg("%s", err.message);
	return vhd;
}

static void create_ok(const char *name, const struct partita_vhd_create_options *o)
{
	struct partita_vhd_error err = { 0 };

	unlink(path_of(name));
	if (partita_vhd_create(path_of(name), o, &err) < 0)
		fail_msg("%s", err.message);
}

static void test_all_calls(void **state)
{
	const struct partita_vhd_create_options o = { .size = 64 * MIB, .block_size = MIB };
	struct partita_vhd_error err = { 0 };
	enum partita_vhd_extent kind;
	struct partita_vhd_info info;
	struct partita_vhd *vhd;
	static uint8_t a[4096], b[4096];
	uint64_t length;

	(void)state;
	assert_string_equal(partita_vhd_version(), PARTITA_VHD_VERSION);
	create_ok("a.vhdx", &o);
	assert_int_equal(partita_vhd_create(path_of("a.vhdx"), &o, &err), -EEXIST);
	assert_non_null(strstr(err.message, "a.vhdx"));
	vhd = open_ok("a.vhdx", 0);
	memset(a, 0x3c, sizeof(a));
	assert_int_equal(partita_vhd_write(vhd, a, sizeof(a), 5 * MIB), 0);
	assert_int_equal(partita_vhd_flush(vhd), 0);
	assert_int_equal(partita_vhd_read(vhd, b, sizeof(b), 5 * MIB), 0);
	assert_memory_equal(a, b, sizeof(a));
	assert_int_equal(partita_vhd_extent(vhd, 5 * MIB, &kind, &length), 0);
	assert_int_equal(kind, PARTITA_VHD_DATA);
	assert_int_equal(length, 4096);
	assert_int_equal(partita_vhd_zero(vhd, 512, 5 * MIB), 0);
	assert_int_equal(partita_vhd_trim(vhd, MIB, 7 * MIB), 0);
	assert_int_equal(partita_vhd_resize(vhd, 100 * MIB, &err), 0);
	partita_vhd_get_info(vhd, &info);
	assert_string_equal(info.format, "vhdx");
	assert_int_equal(info.size, 100 * MIB);
	assert_int_equal(info.depth, 1);
	assert_int_equal(partita_vhd_close(vhd, &err), 0);
	vhd = open_ok("a.vhdx", PARTITA_VHD_READ_ONLY);
	assert_int_equal(partita_vhd_read(vhd, b, sizeof(b), 5 * MIB), 0);
	assert_int_equal(b[0], 0);
	assert_int_equal(b[512], 0x3c);
	assert_int_equal(partita_vhd_write(vhd, a, sizeof(a), 0), -EROFS);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
}

static void test_child(void **state)
{
	const struct partita_vhd_create_options base = { .size = 8 * MIB };
	char parent[128];
	struct partita_vhd_create_options child = { .parent = parent };
	struct partita_vhd_error err = { 0 };
	struct partita_vhd_info info;
	struct partita_vhd *vhd;
	uint8_t b[512];

	(void)state;
	snprintf(parent, sizeof(parent), "%s", path_of("base.vhdx"));
	create_ok("base.vhdx", &base);
	vhd = open_ok("base.vhdx", 0);
	memset(b, 7, sizeof(b));
	assert_int_equal(partita_vhd_write(vhd, b, sizeof(b), 0), 0);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
	create_ok("child.vhdx", &child);
	vhd = open_ok("child.vhdx", 0);
	partita_vhd_get_info(vhd, &info);
	assert_int_equal(info.depth, 2);
	memset(b, 0, sizeof(b));
	assert_int_equal(partita_vhd_read(vhd, b, sizeof(b), 0), 0);
	assert_int_equal(b[9], 7);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
	child.format = "vhd";
	assert_int_equal(partita_vhd_create(path_of("child.vhd"), &child, &err), -EINVAL);
	assert_non_null(strstr(err.message, "is vhdx, so its child"));
	child.format = "raw";
	assert_int_equal(partita_vhd_create(path_of("raw"), &child, &err), -EINVAL);
	assert_int_equal(access(path_of("raw"), F_OK), -1);
}

static void test_vhd_child(void **state)
{
	const struct partita_vhd_create_options base = { .size = 8 * MIB, .format = "vhd" };
	char parent[128];
	struct partita_vhd_create_options child = { .parent = parent, .format = "vhd" };
	struct partita_vhd_info info;
	struct partita_vhd *vhd;

	(void)state;
	snprintf(parent, sizeof(parent), "%s", path_of("base.vhd"));
	create_ok("base.vhd", &base);
	create_ok("child.vhd", &child);
	vhd = open_ok("child.vhd", 0);
	partita_vhd_get_info(vhd, &info);
	assert_string_equal(info.format, "vhd");
	assert_int_equal(info.size, 8 * MIB);
	assert_int_equal(info.depth, 2);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
}

static void test_refusals(void **state)
{
	const struct partita_vhd_create_options o = { .size = 8 * MIB, .format = "raw" };
	struct partita_vhd_error err = { 0 };
	struct partita_vhd *vhd, *second;
	uint8_t b[512];

	(void)state;
	create_ok("r.raw", &o);
	assert_int_equal(partita_vhd_open(path_of("none"), 0, NULL, &vhd, &err), -ENOENT);
	assert_non_null(strstr(err.message, "none"));
	vhd = open_ok("r.raw", 0);
	assert_int_equal(partita_vhd_open(path_of("r.raw"), 0, NULL, &second, &err), -EBUSY);
	assert_int_equal(partita_vhd_read(vhd, b, 511, 0), -EINVAL);
	assert_int_equal(partita_vhd_read(vhd, b, 512, 8 * MIB), -EINVAL);
	assert_int_equal(partita_vhd_read(vhd, b, 512, UINT64_MAX - 511), -EINVAL);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
	assert_int_equal(partita_vhd_close(NULL, NULL), 0);
}

struct worker {
	struct partita_vhd *vhd;
	unsigned index;
	int result;
};

static void *work(void *context)
{
	struct worker *w = context;
	uint8_t b[512];

	for (unsigned i = 0; i < 200 && !w->result; i++) {
		uint64_t at = (uint64_t)(i * 4 + w->index) * 4096;

		memset(b, (int)(w->index + i), sizeof(b));
		w->result = partita_vhd_write(w->vhd, b, sizeof(b), at);
		if (!w->result)
			w->result = partita_vhd_read(w->vhd, b, sizeof(b), at);
		if (!w->result && b[100] != (uint8_t)(w->index + i))
			w->result = -EIO;
	}
	return NULL;
}

static void test_threads(void **state)
{
	const struct partita_vhd_create_options o = { .size = 64 * MIB, .block_size = MIB };
	struct worker workers[4] = { 0 };
	struct partita_vhd *vhd;
	pthread_t threads[4];

	(void)state;
	create_ok("t.vhdx", &o);
	vhd = open_ok("t.vhdx", 0);
	for (unsigned i = 0; i < 4; i++) {
		workers[i] = (struct worker){ .vhd = vhd, .index = i };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_int_equal(workers[i].result, 0);
	}
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
}

struct seen {
	uint64_t first, bytes;
	unsigned count;
};

static int on_changed(void *context, uint64_t offset, uint64_t n)
{
	struct seen *s = context;

	s->first = s->count++ ? s->first : offset;
	s->bytes += n;
	return 0;
}

static struct seen changed_since(const uint8_t *id)
{
	struct partita_vhd *vhd = open_ok("t.vhdx", PARTITA_VHD_READ_ONLY | PARTITA_VHD_TRACK);
	struct seen s = { 0 };

	assert_int_equal(partita_vhd_track_query(vhd, id, 0, UINT64_MAX, on_changed, &s, NULL), 0);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
	return s;
}

static void write_at(uint64_t offset)
{
	static const uint8_t b[4096] = { 7 };
	struct partita_vhd *vhd = open_ok("t.vhdx", 0);

	assert_int_equal(partita_vhd_write(vhd, b, sizeof(b), offset), 0);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
}

static void test_tracked_changes(void **state)
{
	const struct partita_vhd_create_options o = { .size = 64 * MIB, .block_size = MIB };
	struct partita_vhd_point points[PARTITA_VHD_POINTS_MAX];
	struct partita_vhd_error err = { 0 };
	uint8_t first[16], second[16];
	struct partita_vhd *vhd;
	unsigned count;
	FILE *f;

	(void)state;
	create_ok("t.vhdx", &o);
	assert_int_equal(partita_vhd_open(path_of("t.vhdx"), PARTITA_VHD_TRACK, NULL, &vhd, &err),
			 -ENOENT);
	if (partita_vhd_track_enable(path_of("t.vhdx"), NULL, first, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(partita_vhd_track_enable(path_of("t.vhdx"), NULL, second, &err), -EEXIST);
	assert_int_equal(changed_since(first).count, 0);
	write_at(5 * MIB);
	assert_true(changed_since(first).first == 5 * MIB);
	assert_true(changed_since(first).bytes == 65536);
	vhd = open_ok("t.vhdx", 0);
	assert_int_equal(partita_vhd_track_point(vhd, second, &err), 0);
	assert_int_equal(partita_vhd_resize(vhd, 65 * MIB, &err), 0);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
	assert_true(changed_since(second).first == 64 * MIB && changed_since(second).bytes == MIB);
	/* Somebody who does not track. */
	f = fopen(path_of("t.vhdx"), "r+b");
	assert_non_null(f);
	assert_int_equal(fseek(f, 400, SEEK_SET), 0);
	assert_int_equal(fputc(0, f), 0);
	assert_int_equal(fclose(f), 0);
	vhd = open_ok("t.vhdx", 0);
	assert_int_equal(partita_vhd_track_query(vhd, first, 0, MIB, on_changed, NULL, &err),
			 -ESTALE);
	assert_non_null(strstr(err.message, "everything may have changed"));
	assert_int_equal(partita_vhd_track_list(vhd, points, 32, &count, NULL), 0);
	assert_int_equal(count, 2);
	assert_true(points[0].lost && points[1].lost);
	assert_int_equal(partita_vhd_track_drop(vhd, first, &err), 0);
	assert_int_equal(partita_vhd_track_drop(vhd, first, &err), -ENOENT);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
	assert_int_equal(partita_vhd_track_disable(path_of("t.vhdx"), &err), 0);
	assert_int_equal(partita_vhd_track_disable(path_of("t.vhdx"), &err), -ENOENT);
}

static void write_sector(const char *name, uint8_t value, uint64_t offset)
{
	struct partita_vhd *vhd = open_ok(name, 0);
	uint8_t b[512];

	memset(b, value, sizeof(b));
	assert_int_equal(partita_vhd_write(vhd, b, sizeof(b), offset), 0);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
}

static uint8_t first_byte(const char *name, uint64_t offset)
{
	struct partita_vhd *vhd = open_ok(name, PARTITA_VHD_READ_ONLY);
	uint8_t b[512];

	assert_int_equal(partita_vhd_read(vhd, b, sizeof(b), offset), 0);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
	return b[0];
}

static int stop_at_once(void *context, uint64_t done, uint64_t total)
{
	assert_true(done <= total);
	++*(unsigned *)context;
	return 1;
}

static void test_merge_and_rebase(void **state)
{
	const struct partita_vhd_create_options base = { .size = 64 * MIB, .block_size = MIB };
	char names[3][128];
	struct partita_vhd_create_options child = { .parent = names[0] };
	struct partita_vhd_error err = { 0 };
	unsigned calls = 0;
	const struct partita_vhd_progress stop = { stop_at_once, &calls };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		const char *const files[] = { "m0.vhdx", "m1.vhdx", "other.vhdx" };

		snprintf(names[i], sizeof(names[i]), "%s", path_of(files[i]));
	}
	create_ok("m0.vhdx", &base);
	create_ok("other.vhdx", &base);
	create_ok("m1.vhdx", &child);
	write_sector("m1.vhdx", 0x77, 3 * MIB);
	assert_int_equal(partita_vhd_rebase(names[1], names[2], 0, NULL, &err), -ESTALE);
	assert_int_equal(partita_vhd_rebase(names[1], names[2], 1, NULL, &err), 0);
	assert_int_equal(first_byte("m1.vhdx", 3 * MIB), 0x77);
	assert_int_equal(partita_vhd_merge(names[1], NULL, &stop, &err), -ECANCELED);
	assert_true(calls > 0);
	assert_int_equal(first_byte("m1.vhdx", 3 * MIB), 0x77);
	assert_int_equal(partita_vhd_merge(names[1], NULL, NULL, &err), 0);
	assert_int_equal(first_byte("other.vhdx", 3 * MIB), 0x77);
	assert_int_equal(first_byte("m0.vhdx", 3 * MIB), 0);
	assert_int_equal(access(names[1], F_OK), -1);
	assert_int_equal(partita_vhd_merge(names[2], NULL, NULL, &err), -EINVAL);
}

static unsigned damages, losses;

static void on_damage(void *context, enum partita_vhd_finding kind, const char *text)
{
	assert_true(!strcmp(context, "c") && text[0]);
	damages += kind == PARTITA_VHD_DAMAGE;
}

static void on_repaired(void *context, enum partita_vhd_repaired kind, uint64_t offset, uint64_t n,
			const char *text)
{
	assert_true(!strcmp(context, "r") && text[0]);
	losses += kind == PARTITA_VHD_LOST && n && offset + n <= 64 * MIB;
}

static uint64_t file_size(const char *name)
{
	struct stat st;

	assert_int_equal(stat(path_of(name), &st), 0);
	return (uint64_t)st.st_size;
}

static void test_compact_check_and_repair(void **state)
{
	const struct partita_vhd_create_options o = { .size = 64 * MIB, .block_size = MIB };
	struct partita_vhd_error err = { 0 };
	struct partita_vhd *vhd;
	uint64_t before;

	(void)state;
	create_ok("c.vhdx", &o);
	for (uint64_t i = 0; i < 8; i++)
		write_sector("c.vhdx", (uint8_t)(i & 1), i * MIB);
	before = file_size("c.vhdx");
	vhd = open_ok("c.vhdx", PARTITA_VHD_READ_ONLY);
	assert_int_equal(partita_vhd_compact(vhd, 1, NULL, &err), -EROFS);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
	vhd = open_ok("c.vhdx", 0);
	assert_int_equal(partita_vhd_compact(vhd, 1, NULL, &err), 0);
	assert_int_equal(partita_vhd_close(vhd, NULL), 0);
	assert_true(file_size("c.vhdx") + 4 * MIB <= before);
	assert_int_equal(first_byte("c.vhdx", 7 * MIB), 1);

	assert_int_equal(partita_vhd_check(path_of("none"), NULL, NULL, &err), -ENOENT);
	assert_int_equal(partita_vhd_check(path_of("c.vhdx"), on_damage, "c", &err), 0);
	assert_int_equal(damages, 0);
	assert_int_equal(truncate(path_of("c.vhdx"), (off_t)(file_size("c.vhdx") - MIB)), 0);
	assert_int_equal(partita_vhd_check(path_of("c.vhdx"), on_damage, "c", &err), 0);
	assert_true(damages > 0);
	assert_int_equal(partita_vhd_repair(path_of("c.vhdx"), on_repaired, "r", &err), 0);
	assert_true(losses > 0);
	damages = 0;
	assert_int_equal(partita_vhd_check(path_of("c.vhdx"), on_damage, "c", &err), 0);
	assert_int_equal(damages, 0);
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
		cmocka_unit_test(test_all_calls),
		cmocka_unit_test(test_child),
		cmocka_unit_test(test_vhd_child),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_tracked_changes),
		cmocka_unit_test(test_merge_and_rebase),
		cmocka_unit_test(test_compact_check_and_repair),
	};

	if (!mkdtemp(folder))
		return 1;
	return cmocka_run_group_tests(tests, NULL, teardown);
}
