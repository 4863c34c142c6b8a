// SPDX-License-Identifier: MIT
/*
 * Images that go to and come from qemu-img, which nobody here wrote: it must find ours without
 * fault, also after replaying our log, and read from them what we wrote; we must read its images as
 * it does. Skipped where qemu-img is not installed.
 */
#include "vhd/disk_drive.h"
#include "vhd/image.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define DISK_SIZE (96 * MIB + 512)

static struct loop *loop;
static char folder[] = "/var/tmp/partita-interop-XXXXXX";

static int run(const char *format, ...)
{
	char command[1024];
	va_list ap;
	int n;

	n = snprintf(command, sizeof(command), "cd %s && exec >log 2>&1; ", folder);
	va_start(ap, format);
	vsnprintf(command + n, sizeof(command) - (size_t)n, format, ap);
	va_end(ap);
	return system(command);
}

static void run_ok(const char *command)
{
	if (run("%s", command)) {
		fprintf(stderr, "failed: %s\n", command);
		assert_int_equal(run("cat log >&2"), 0);
		fail();
	}
}

static int open_in(const char *name, int flags)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, flags | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	return fd;
}

static struct disk *open_disk(const char *name, bool read_only)
{
	const struct disk_open_options o = { .read_only = read_only };
	struct error err = { 0 };
	struct disk *d = NULL;

	if (disk_open(loop, open_in(name, read_only ? O_RDONLY : O_RDWR), name, &o, &d, &err) < 0)
		fail_msg("%s", err.message);
	return d;
}

static void create(const char *name, const struct vhdx_create_options *o)
{
	_cleanup_close_ int fd = open_in(name, O_RDWR | O_CREAT | O_TRUNC);
	struct error err = { 0 };

	if (vhdx_create(fd, o, &err) < 0)
		fail_msg("%s", err.message);
}

static void check(const char *name)
{
	struct check_report report = { 0 };
	struct error err = { 0 };

	assert_int_equal(image_check(open_in(name, O_RDONLY), name, &report, &err), 0);
	assert_int_equal(report.counts[CHECK_DAMAGE], 0);
}

/* Writes the same to both: here and there, over block borders, with a trim in between. */
static void write_both(struct disk *a, struct disk *b)
{
	_cleanup_free_ uint8_t *p = malloc(MIB);
	unsigned seed = 11;

	for (unsigned i = 0; i < 60; i++) {
		uint64_t n = (1 + (uint64_t)rand_r(&seed) % 512) * 512;
		uint64_t offset = (uint64_t)rand_r(&seed) % ((DISK_SIZE - n) / 512) * 512;

		for (uint64_t k = 0; k < n; k++)
			p[k] = (uint8_t)(rand_r(&seed) >> 4);
		assert_int_equal(drive_write(a, p, n, offset, i % 7 ? 0 : DISK_FUA), 0);
		assert_int_equal(drive_write(b, p, n, offset, 0), 0);
		if (i % 20 == 19) {
			assert_int_equal(drive_zero(a, 5 * MIB, i * MIB), 0);
			assert_int_equal(drive_zero(b, 5 * MIB, i * MIB), 0);
		}
	}
	assert_int_equal(drive_flush(a), 0);
}

static void ours_to_qemu(const struct vhdx_create_options *o)
{
	struct disk *a, *b;

	create("ours.vhdx", o);
	run_ok("qemu-img check -f vhdx ours.vhdx");
	run_ok("rm -f same.raw; truncate -s 100663808 same.raw");
	a = open_disk("ours.vhdx", false);
	b = open_disk("same.raw", false);
	write_both(a, b);
	/* As a power cut would leave it: qemu must replay what we logged. */
	run_ok("cp --sparse=always ours.vhdx cut.vhdx");
	assert_int_equal(disk_close(b, NULL), 0);
	run_ok("qemu-img check -r all -f vhdx cut.vhdx");
	run_ok("qemu-img compare -f vhdx -F raw cut.vhdx same.raw");
	assert_int_equal(disk_close(a, NULL), 0);
	run_ok("qemu-img check -f vhdx ours.vhdx");
	run_ok("qemu-img compare -f vhdx -F raw ours.vhdx same.raw");
	check("ours.vhdx");
	check("cut.vhdx");
}

static void test_ours(void **state)
{
	static const struct vhdx_create_options cases[] = {
		{ .size = DISK_SIZE, .block_size = MIB },
		{ .size = DISK_SIZE },
		{ .size = DISK_SIZE, .block_size = 256 * MIB },
		{ .size = DISK_SIZE, .block_size = 2 * MIB, .fixed = true },
		{ .size = DISK_SIZE, .physical_sector = 512 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		ours_to_qemu(&cases[i]);
}

static void qemu_to_ours(const char *options)
{
	_cleanup_free_ uint8_t *x = malloc(DISK_SIZE), *y = malloc(DISK_SIZE);
	struct disk *a, *b;

	assert_int_equal(run("qemu-img convert -f raw -O vhdx -o %s same.raw theirs.vhdx", options),
			 0);
	a = open_disk("theirs.vhdx", true);
	b = open_disk("same.raw", true);
	assert_true(a->geometry.size >= DISK_SIZE);
	assert_int_equal(drive_read(a, x, DISK_SIZE, 0), 0);
	assert_int_equal(drive_read(b, y, DISK_SIZE, 0), 0);
	assert_memory_equal(x, y, DISK_SIZE);
	assert_int_equal(disk_close(a, NULL), 0);
	assert_int_equal(disk_close(b, NULL), 0);
	check("theirs.vhdx");
	a = open_disk("theirs.vhdx", false);
	assert_int_equal(drive_write(a, y, 512, 64 * MIB, 0), 0);
	assert_int_equal(disk_close(a, NULL), 0);
	run_ok("qemu-img check -f vhdx theirs.vhdx");
	check("theirs.vhdx");
}

static void test_theirs(void **state)
{
	(void)state;
	qemu_to_ours("subformat=dynamic");
	qemu_to_ours("subformat=dynamic,block_size=1M");
	qemu_to_ours("subformat=fixed,block_size=16M");
	qemu_to_ours("subformat=dynamic,block_size=2M,block_state_zero=off");
}

static void test_largest(void **state)
{
	const struct vhdx_create_options o = { .size = 64 * TIB, .block_size = MIB };
	struct image_info info;
	struct error err = { 0 };

	(void)state;
	create("large.vhdx", &o);
	assert_int_equal(image_info(open_in("large.vhdx", O_RDONLY), "large.vhdx", &info, &err), 0);
	assert_int_equal(info.geometry.size, 64 * TIB);
	assert_true(info.allocated < 4 * MIB);
	check("large.vhdx");
}

static int set_up(void **state)
{
	(void)state;
	return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ours),
		cmocka_unit_test(test_theirs),
		cmocka_unit_test(test_largest),
	};
	struct error err = { 0 };
	int r;

	if (system("command -v qemu-img >/dev/null")) {
		fprintf(stderr, "skipped: there is no qemu-img\n");
		return 77;
	}
	if (loop_new(64, &loop, &err) < 0) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	r = cmocka_run_group_tests(tests, set_up, tear_down);
	loop_free(loop);
	return r;
}
