// SPDX-License-Identifier: MIT
/* Raw images and the store beneath them, on real files through io_uring. */
#include "vhd/disk_drive.h"
#include "vhd/image.h"
#include "vhd/store.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct loop *loop;

static int temp_file(uint64_t size)
{
	char name[] = "/var/tmp/partita-raw-XXXXXX";
	int fd = mkstemp(name);

	assert_true(fd >= 0);
	unlink(name);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, flags | O_CLOEXEC);
}

static struct disk *open_raw(int fd, bool read_only, bool direct)
{
	const struct disk_open_options o = {
		.format = "raw",
		.read_only = read_only,
		.direct = direct,
	};
	struct error err = { 0 };
	struct disk *d = NULL;

	if (disk_open(loop, reopen(fd, read_only ? O_RDONLY : O_RDWR), "test", &o, &d, &err) < 0)
		fail_msg("%s", err.message);
	return d;
}

static uint64_t allocated(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void fill(uint8_t *p, size_t n, unsigned seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(rand_r(&seed) >> 8);
}

static void round_trip(bool direct)
{
	_cleanup_close_ int fd = temp_file(8 * MIB);
	struct disk *d = open_raw(fd, false, direct);
	_cleanup_free_ uint8_t *expect = calloc(1, 8 * MIB), *got = malloc(8 * MIB);
	unsigned seed = 5;

	for (unsigned i = 0; i < 200; i++) {
		uint64_t offset = (uint64_t)rand_r(&seed) % (8 * MIB / 512 - 300) * 512;
		uint64_t n = (1 + (uint64_t)rand_r(&seed) % 256) * 512;

		/* Where memory is aligned to depends on the offset: both kinds occur. */
		fill(expect + offset, n, i);
		assert_int_equal(drive_write(d, expect + offset, n, offset, i % 9 ? 0 : DISK_FUA),
				 0);
		assert_int_equal(drive_read(d, got + 1, n, offset), 0);
		assert_memory_equal(got + 1, expect + offset, n);
	}
	assert_int_equal(drive_flush(d), 0);
	assert_int_equal(drive_read(d, got, 8 * MIB, 0), 0);
	assert_memory_equal(got, expect, 8 * MIB);
	assert_int_equal(disk_close(d, NULL), 0);
}

static void test_round_trip(void **state)
{
	(void)state;
	round_trip(false);
}

static void test_direct(void **state)
{
	(void)state;
	round_trip(true);
}

/* The bytes of a last sector that is not whole are there, followed by zeros. */
static void test_odd_size(void **state)
{
	_cleanup_close_ int fd = temp_file(1000);
	uint8_t sector[1024];
	struct disk *d;
	struct stat st;

	(void)state;
	assert_int_equal(pwrite(fd, "end", 3, 997), 3);
	d = open_raw(fd, false, false);
	assert_int_equal(d->geometry.size, 1024);
	memset(sector, 0xff, sizeof(sector));
	assert_int_equal(drive_read(d, sector, 1024, 0), 0);
	assert_memory_equal(sector + 997, "end\0\0", 5);
	assert_int_equal(sector[1023], 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 1000);
	assert_int_equal(drive_write(d, sector, 512, 512, 0), 0);
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_size, 1024);
	assert_int_equal(disk_close(d, NULL), 0);
}

static void test_trim_and_zero(void **state)
{
	_cleanup_close_ int fd = temp_file(4 * MIB);
	_cleanup_free_ uint8_t *b = malloc(4 * MIB);
	enum disk_extent_kind kind;
	uint64_t before, length;
	struct disk *d;

	(void)state;
	d = open_raw(fd, false, false);
	assert_true(d->geometry.trim_zeros);
	memset(b, 7, 4 * MIB);
	assert_int_equal(drive_write(d, b, 4 * MIB, 0, DISK_FUA), 0);
	before = allocated(fd);
	assert_int_equal(drive_trim(d, 2 * MIB, MIB), 0);
	assert_true(before - allocated(fd) >= 2 * MIB);
	assert_int_equal(d->ops->extent(d, MIB, &kind, &length), 0);
	assert_int_equal(kind, DISK_EXTENT_HOLE);
	assert_int_equal(length, 2 * MIB);
	assert_int_equal(drive_zero(d, 512, 512), 0);
	assert_int_equal(drive_trim(d, 512, 3 * MIB + 512), 0);
	assert_int_equal(drive_read(d, b, 4 * MIB, 0), 0);
	assert_int_equal(b[3 * MIB + 512], 0);
	assert_int_equal(b[3 * MIB + 1024], 7);
	assert_int_equal(b[511], 7);
	assert_int_equal(b[512], 0);
	assert_int_equal(b[1023], 0);
	assert_int_equal(b[1024], 7);
	assert_int_equal(b[2 * MIB], 0);
	assert_int_equal(b[3 * MIB], 7);
	assert_int_equal(disk_close(d, NULL), 0);
}

struct many {
	struct disk_request req;
	bool done;
};

static void on_many(struct disk_request *req, int result)
{
	struct many *m = container_of(req, struct many, req);

	assert_int_equal(result, 0);
	m->done = true;
}

/* More pieces than one system call takes, as a guest's page lists have. */
static void test_many_pieces(void **state)
{
	enum { PIECES = 3000 };
	_cleanup_close_ int fd = temp_file(PIECES * 512);
	_cleanup_free_ uint8_t *b = malloc(PIECES * 512), *got = malloc(PIECES * 512);
	_cleanup_free_ struct iovec *iov = calloc(PIECES, sizeof(*iov));
	struct disk *d = open_raw(fd, false, false);
	struct many m = { .req = { .op = DISK_WRITE,
				   .length = PIECES * 512,
				   .iov = iov,
				   .iovcnt = PIECES,
				   .done = on_many } };

	(void)state;
	fill(b, PIECES * 512, 1);
	for (size_t i = 0; i < PIECES; i++) /* backwards in memory, so that none can be merged */
		iov[i] = (struct iovec){ b + (PIECES - 1 - i) * 512, 512 };
	disk_submit(d, &m.req);
	assert_false(m.done);
	while (!m.done)
		assert_int_equal(loop_once(loop, -1), 0);
	assert_int_equal(drive_read(d, got, PIECES * 512, 0), 0);
	for (size_t i = 0; i < PIECES; i++)
		assert_memory_equal(got + i * 512, b + (PIECES - 1 - i) * 512, 512);
	assert_int_equal(disk_close(d, NULL), 0);
}

static int try_open(int fd, bool read_only, const char *words)
{
	const struct disk_open_options o = { .read_only = read_only };
	struct error err = { 0 };
	struct disk *d;
	int r = disk_open(loop, reopen(fd, read_only ? O_RDONLY : O_RDWR), "disk.img", &o, &d,
			  &err);

	if (r >= 0) {
		assert_int_equal(disk_close(d, NULL), 0);
		return 0;
	}
	if (!strstr(err.message, words) || !strstr(err.message, "disk.img"))
		fail_msg("said \"%s\"", err.message);
	return r;
}

static void test_locks(void **state)
{
	_cleanup_close_ int fd = temp_file(MIB);
	struct disk *d = open_raw(fd, false, false), *other;

	(void)state;
	assert_int_equal(try_open(fd, false, "another process"), -EBUSY);
	assert_int_equal(try_open(fd, true, "for writing"), -EBUSY);
	assert_int_equal(disk_close(d, NULL), 0);
	d = open_raw(fd, true, false);
	other = open_raw(fd, true, false);
	assert_int_equal(try_open(fd, false, "another process"), -EBUSY);
	assert_int_equal(disk_close(d, NULL), 0);
	assert_int_equal(disk_close(other, NULL), 0);
	assert_int_equal(try_open(fd, false, ""), 0);
}

static void test_refusals(void **state)
{
	const struct disk_open_options strange = { .format = "qcow2" }, plain = { 0 };
	_cleanup_close_ int fd = temp_file(MIB);
	struct disk *d = open_raw(fd, true, false);
	struct error err = { 0 };
	uint8_t sector[512];

	(void)state;
	assert_int_equal(drive_write(d, sector, 512, 0, 0), -EROFS);
	assert_int_equal(drive_trim(d, 512, 0), -EROFS);
	assert_int_equal(drive_read(d, sector, 512, 0), 0);
	assert_int_equal(drive_flush(d), 0);
	assert_int_equal(disk_close(d, NULL), 0);
	assert_int_equal(disk_open(loop, reopen(fd, O_RDWR), "x", &strange, &d, &err), -EINVAL);
	assert_non_null(strstr(err.message, "qcow2"));
	assert_int_equal(disk_open(loop, reopen(fd, O_RDONLY), "x", &plain, &d, &err), -EBADF);
	assert_int_equal(disk_open(loop, open("/dev/null", O_RDWR), "x", &plain, &d, &err),
			 -EINVAL);
	assert_non_null(strstr(err.message, "neither a regular file"));
}

/* tmpfs knows neither O_DIRECT (in older kernels) nor ZERO_RANGE: both have a way out. */
static void test_memory_file(void **state)
{
	_cleanup_close_ int fd = memfd_create("partita-test", MFD_CLOEXEC);
	_cleanup_free_ uint8_t *b = malloc(MIB);
	struct disk *d;

	(void)state;
	assert_int_equal(ftruncate(fd, MIB), 0);
	d = open_raw(fd, false, true);
	memset(b, 3, MIB);
	assert_int_equal(drive_write(d, b, MIB, 0, 0), 0);
	assert_int_equal(drive_zero(d, MIB - 512, 512), 0);
	assert_int_equal(drive_read(d, b, MIB, 0), 0);
	assert_int_equal(b[511], 3);
	assert_int_equal(b[512], 0);
	assert_int_equal(b[MIB - 1], 0);
	assert_int_equal(disk_close(d, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),  cmocka_unit_test(test_direct),
		cmocka_unit_test(test_odd_size),    cmocka_unit_test(test_trim_and_zero),
		cmocka_unit_test(test_many_pieces), cmocka_unit_test(test_locks),
		cmocka_unit_test(test_refusals),    cmocka_unit_test(test_memory_file),
	};
	struct error err = { 0 };
	int r;

	if (loop_new(64, &loop, &err) < 0) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	r = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(loop);
	return r;
}
