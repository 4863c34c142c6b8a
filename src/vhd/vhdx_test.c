// SPDX-License-Identifier: MIT
/*
 * VHDX images against a plain array: random operations on every geometry, reopening in between;
 * files that are wrong in one place each; a disk that is full; and the largest images.
 */
#include "vhd/disk_drive.h"
#include "vhd/disk_model.h"
#include "vhd/image.h"
#include "vhd/store_memory.h"
#include "vhd/vhdx_internal.h"

#include "lib/cleanup.h"
#include "lib/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct loop *loop;

static void check_print(struct check_report *r, enum check_kind kind, const char *text)
{
	(void)r;
	if (kind == CHECK_DAMAGE)
		print_message("check: %s\n", text);
}

static unsigned damage_in(struct store *s)
{
	struct check_report report = { .found = check_print };
	struct error err = { 0 };

	store_memory_set_read_only(s, true);
	assert_int_equal(vhdx_check(s, &report, &err), 0);
	store_memory_set_read_only(s, false);
	return report.counts[CHECK_DAMAGE];
}

static struct store *new_store(uint64_t size_max, unsigned shuffle)
{
	const struct store_memory_options o = {
		.size_max = size_max,
		.bytes_max = 512 * MIB,
		.shuffle = shuffle,
	};
	struct store *s = store_memory_new(loop, &o);

	assert_non_null(s);
	return s;
}

static struct disk *open_ok(struct store *s)
{
	struct disk *d = NULL;
	struct error err = { 0 };

	if (vhdx_open(s, &d, &err) < 0)
		fail_msg("%s", err.message);
	return d;
}

static void close_ok(struct disk *d)
{
	struct error err = { 0 };

	if (disk_close(d, &err) < 0)
		fail_msg("%s", err.message);
}

static void create_ok(struct store *s, const struct vhdx_create_options *o)
{
	struct error err = { 0 };

	if (vhdx_store_create(s, o, &err) < 0)
		fail_msg("%s", err.message);
}

/* --- against a model --- */

static void model_run(const struct vhdx_create_options *o, unsigned seed, unsigned rounds)
{
	struct store *s = new_store(o->size * 2 + 512 * MIB, seed);
	struct model m = { .size = o->size, .sector = o->logical_sector, .seed = seed };

	create_ok(s, o);
	m.expect = calloc(1, o->size);
	assert_non_null(m.expect);
	for (unsigned i = 0; i < rounds; i++) {
		m.d = open_ok(s);
		for (int n = 0; n < 300; n++)
			model_step(&m, o->block_size);
		model_settle(&m);
		model_compare(&m);
		close_ok(m.d);
		assert_int_equal(damage_in(s), 0);
	}
	m.d = open_ok(s);
	model_compare(&m);
	close_ok(m.d);
	free(m.expect);
	store_memory_free(s);
}

static void test_model(void **state)
{
	static const struct vhdx_create_options cases[] = {
		{ .size = 16 * MIB, .block_size = MIB, .logical_sector = 512 },
		{ .size = 16 * MIB, .block_size = MIB, .logical_sector = 4096 },
		{ .size = 7 * MIB + 512, .block_size = 2 * MIB, .logical_sector = 512 },
		{ .size = 9 * MIB + 4096, .block_size = 4 * MIB, .logical_sector = 4096 },
		{ .size = 5 * MIB, .block_size = 32 * MIB, .logical_sector = 512 },
		{ .size = 12 * MIB, .block_size = MIB, .logical_sector = 512, .fixed = true },
	};

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++)
		model_run(&cases[i], i + 1, 6);
}

/* --- arithmetic of the BAT --- */

static void test_bat_arithmetic(void **state)
{
	struct vhdx_params p = { .block_size = MIB, .logical_sector = 512 };

	(void)state;
	assert_int_equal(vhdx_chunk_ratio(&p), 4096);
	p.size = 4 * GIB; /* exactly one chunk: no bitmap entry is needed behind it */
	assert_int_equal(vhdx_bat_count(&p), 4096);
	p.size = 4 * GIB + 512;
	assert_int_equal(vhdx_bat_count(&p), 4098);
	assert_int_equal(vhdx_bat_index(&p, 4095), 4095);
	assert_int_equal(vhdx_bat_index(&p, 4096), 4097);
	p.block_size = 256 * MIB;
	p.size = 64 * TIB;
	assert_int_equal(vhdx_chunk_ratio(&p), 16);
	assert_int_equal(vhdx_bat_count(&p), 262144 + 262143 / 16);
	p.logical_sector = 4096;
	assert_int_equal(vhdx_chunk_ratio(&p), 128);
}

/* --- images that are wrong --- */

static const struct vhdx_create_options small = {
	.size = 8 * MIB,
	.block_size = MIB,
	.logical_sector = 512,
};

static struct store *small_image(void)
{
	struct store *s = new_store(256 * MIB, 0);
	struct disk *d;
	uint8_t sector[512];

	create_ok(s, &small);
	d = open_ok(s);
	memset(sector, 0x5a, sizeof(sector));
	assert_int_equal(drive_write(d, sector, 512, 0, 0), 0);
	assert_int_equal(drive_write(d, sector, 512, 3 * MIB, 0), 0);
	close_ok(d);
	return s;
}

static int open_error(struct store *s, bool read_only, const char *words)
{
	struct error err = { 0 };
	struct disk *d = NULL;
	int r;

	store_memory_set_read_only(s, read_only);
	r = vhdx_open(s, &d, &err);
	if (r >= 0)
		fail_msg("opened, but should have said: %s", words);
	if (!strstr(err.message, words))
		fail_msg("said \"%s\", not \"%s\"", err.message, words);
	store_memory_set_read_only(s, false);
	return r;
}

static void resign(struct store *s, uint64_t offset, size_t size)
{
	_cleanup_free_ uint8_t *b = malloc(size);
	le32 sum = le32_of(0);

	assert_non_null(b);
	assert_int_equal(store_read(s, b, size, offset), 0);
	memcpy(b + 4, &sum, 4);
	sum = le32_of(crc32c(0, b, size));
	memcpy(b + 4, &sum, 4);
	assert_int_equal(store_write(s, b, size, offset), 0);
}

static void put(struct store *s, uint64_t offset, const void *bytes, size_t n)
{
	assert_int_equal(store_write(s, bytes, n, offset), 0);
}

static void put32(struct store *s, uint64_t offset, uint32_t value)
{
	le32 v = le32_of(value);

	put(s, offset, &v, sizeof(v));
}

static void put64(struct store *s, uint64_t offset, uint64_t value)
{
	le64 v = le64_of(value);

	put(s, offset, &v, sizeof(v));
}

static void test_wrong_start(void **state)
{
	struct store *s = small_image();

	(void)state;
	put(s, 0, "conectix", 8);
	assert_int_equal(open_error(s, true, "not a VHDX"), -EINVAL);
	put(s, 0, "vhdxfile", 8);
	assert_int_equal(store_resize(s, 300 * KIB), 0);
	assert_int_equal(open_error(s, true, "cut short"), -EINVAL);
	assert_int_equal(store_resize(s, 2 * MIB), 0);
	assert_int_equal(open_error(s, true, "cut short"), -EINVAL);
	assert_int_equal(store_resize(s, 0), 0);
	assert_int_equal(open_error(s, true, "not a VHDX"), -EINVAL);
	store_memory_free(s);
}

static void test_headers(void **state)
{
	struct store *s = small_image();
	struct disk *d;

	(void)state;
	put32(s, 64 * KIB + 100, 1);
	d = open_ok(s);
	close_ok(d);
	put32(s, 128 * KIB + 100, 1);
	assert_int_equal(open_error(s, false, "both VHDX headers"), -EINVAL);
	resign(s, 128 * KIB, 4096);
	d = open_ok(s);
	close_ok(d);
	put64(s, 128 * KIB + 72, 3 * MIB + 5);
	resign(s, 128 * KIB, 4096);
	assert_int_equal(open_error(s, false, "places the log"), -EINVAL);
	store_memory_free(s);
}

static void test_regions(void **state)
{
	const uint64_t at = 192 * KIB;
	static const struct guid strange = GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
	struct store *s = small_image();
	struct disk *d;

	(void)state;
	put(s, at + 16 + 64, &strange, 16);
	put64(s, at + 16 + 64 + 16, 100 * MIB);
	put32(s, at + 16 + 64 + 24, MIB);
	put32(s, at + 8, 3);
	resign(s, at, 64 * KIB);
	d = open_ok(s); /* unknown, but not required */
	close_ok(d);
	put32(s, at + 16 + 64 + 28, 1);
	resign(s, at, 64 * KIB);
	assert_int_equal(open_error(s, true, "feature that is not known"), -ENOTSUP);
	put32(s, at + 8, 1);
	resign(s, at, 64 * KIB);
	d = open_ok(s); /* the second copy is good */
	close_ok(d);
	put32(s, at + 64 * KIB + 200, 1);
	assert_int_equal(open_error(s, true, "region"), -EINVAL);
	put32(s, at + 8, 2);
	put64(s, at + 16 + 16, 1 * TIB);
	resign(s, at, 64 * KIB);
	assert_int_equal(open_error(s, true, "cut short"), -EINVAL);
	put64(s, at + 16 + 16, 2 * MIB); /* the BAT on top of the metadata */
	resign(s, at, 64 * KIB);
	assert_int_equal(open_error(s, true, "overlap"), -EINVAL);
	store_memory_free(s);
}

static void test_metadata(void **state)
{
	static const struct guid incomplete = VHDX_GUID_INCOMPLETE_FILE;
	static const struct guid strange = GUID(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11);
	const uint64_t table = 2 * MIB, entry6 = table + 32 + 5 * 32, items = table + 64 * KIB;
	struct store *s = small_image();
	uint8_t six[] = { 6, 0 };

	(void)state;
	put32(s, items + 4, VHDX_PARAM_HAS_PARENT);
	assert_int_equal(open_error(s, true, "does not say what its parent is"), -EINVAL);
	put32(s, items + 4, 0);
	put32(s, items, 3 * MIB);
	assert_int_equal(open_error(s, true, "block size"), -EINVAL);
	put32(s, items, MIB);
	put64(s, items + 8, 64 * TIB);
	assert_int_equal(open_error(s, true, "block allocation table has"), -EINVAL);
	put64(s, items + 8, 65 * TIB);
	assert_int_equal(open_error(s, true, "at most 64 TiB"), -EINVAL);
	put64(s, items + 8, 8 * MIB);
	put32(s, items + 32, 1024);
	assert_int_equal(open_error(s, true, "sector sizes"), -EINVAL);
	put32(s, items + 32, 512);
	put(s, entry6, &incomplete, 16);
	put32(s, entry6 + 24, VHDX_META_IS_REQUIRED);
	put(s, table + 10, six, 2);
	assert_int_equal(open_error(s, true, "never finished"), -EINVAL);
	put(s, entry6, &strange, 16);
	assert_int_equal(open_error(s, true, "feature that is not known"), -ENOTSUP);
	put32(s, entry6 + 24, 0);
	close_ok(open_ok(s)); /* unknown, but not required */
	put64(s, table, 0);
	assert_int_equal(open_error(s, true, "metadata table is damaged"), -EINVAL);
	store_memory_free(s);
}

static void test_bat_entries(void **state)
{
	static const uint64_t bad[] = {
		VHDX_BLOCK_FULLY_PRESENT,              /* at 0 */
		100 * GIB | VHDX_BLOCK_FULLY_PRESENT,  /* behind the end */
		1 * MIB | VHDX_BLOCK_FULLY_PRESENT,    /* on the log */
		3 * MIB | VHDX_BLOCK_FULLY_PRESENT,    /* on the BAT itself */
		~(MIB - 1) | VHDX_BLOCK_FULLY_PRESENT, /* offset + block overflows */
		4,
		VHDX_BLOCK_PARTIALLY_PRESENT,
	};
	struct store *s = small_image();
	uint8_t sector[512];
	struct disk *d;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		put64(s, 3 * MIB + 8, bad[i]);
		assert_int_equal(damage_in(s), 1);
		d = open_ok(s);
		assert_int_equal(drive_read(d, sector, 512, MIB), -EUCLEAN);
		assert_int_equal(drive_write(d, sector, 512, MIB, 0), -EUCLEAN);
		assert_int_equal(drive_read(d, sector, 512, 0), 0); /* others are not touched */
		assert_int_equal(sector[0], 0x5a);
		close_ok(d);
	}
	put64(s, 3 * MIB + 8, 4 * MIB | VHDX_BLOCK_FULLY_PRESENT); /* where block 0 is */
	assert_int_equal(damage_in(s), 1);
	store_memory_free(s);
}

/* --- the log of an image that was not closed --- */

static void copy_store(struct store *from, struct store *to)
{
	_cleanup_free_ uint8_t *b = malloc(MIB);

	assert_non_null(b);
	assert_int_equal(store_resize(to, from->size), 0);
	for (uint64_t at = 0; at < from->size; at += MIB) {
		assert_int_equal(store_read(from, b, MIB, at), 0);
		assert_int_equal(store_write(to, b, MIN(MIB, from->size - at), at), 0);
	}
}

static struct store *dirty_image(void)
{
	struct store *s = small_image(), *dirty = new_store(256 * MIB, 0);
	struct disk *d = open_ok(s);
	uint8_t sector[512];

	memset(sector, 0xa5, sizeof(sector));
	assert_int_equal(drive_write(d, sector, 512, 5 * MIB, DISK_FUA), 0);
	copy_store(s, dirty);
	close_ok(d);
	store_memory_free(s);
	return dirty;
}

static void dirty_content(struct store *s)
{
	struct disk *d = open_ok(s);
	uint8_t sector[512];

	assert_int_equal(drive_read(d, sector, 512, 5 * MIB), 0);
	assert_int_equal(sector[7], 0xa5);
	assert_int_equal(drive_read(d, sector, 512, 3 * MIB), 0);
	assert_int_equal(sector[7], 0x5a);
	close_ok(d);
}

static void test_dirty_read_only(void **state)
{
	struct store *s = dirty_image();
	_cleanup_free_ uint8_t *before = malloc(s->size), *after = malloc(s->size);
	uint64_t size = s->size;

	(void)state;
	assert_int_equal(store_read(s, before, size, 0), 0);
	store_memory_set_read_only(s, true);
	dirty_content(s);
	assert_int_equal(s->size, size);
	assert_int_equal(store_read(s, after, size, 0), 0);
	assert_memory_equal(before, after, size);
	store_memory_set_read_only(s, false);
	dirty_content(s);
	assert_int_equal(store_read(s, after, size, 0), 0);
	assert_true(memcmp(before, after, size));
	store_memory_free(s);
}

static void test_log_damage(void **state)
{
	struct store *s = dirty_image();

	(void)state;
	/* The last entry damaged: as if it had never been written whole. */
	put32(s, MIB + 2 * 4096 + 100, 77);
	close_ok(open_ok(s));
	store_memory_free(s);

	s = dirty_image();
	put32(s, MIB, 0);
	put32(s, MIB + 4096, 0);
	assert_int_equal(open_error(s, false, "no valid sequence"), -EINVAL);
	assert_int_equal(open_error(s, true, "no valid sequence"), -EINVAL);
	store_memory_free(s);

	s = dirty_image();
	assert_int_equal(store_resize(s, 4 * MIB), 0);
	assert_int_equal(open_error(s, false, "cut short"), -EINVAL);
	store_memory_free(s);

	/* An entry that writes to the headers. */
	s = dirty_image();
	put64(s, MIB + 4096 + 64 + 16, 64 * KIB);
	resign(s, MIB + 4096, 8192);
	assert_int_equal(open_error(s, false, "no log entry may"), -EINVAL);
	store_memory_free(s);
}

/* --- a full disk, and failing hardware --- */

static void test_full(void **state)
{
	struct store *s = new_store(20 * MIB, 0);
	_cleanup_free_ uint8_t *b = calloc(1, 64 * KIB);
	struct vhdx_create_options o = small;
	unsigned failed = 0;
	struct disk *d;

	(void)state;
	o.size = 64 * MIB;
	create_ok(s, &o);
	d = open_ok(s);
	for (uint64_t i = 0; i < 64; i++) {
		int r;

		memset(b, (int)(i + 1), 64 * KIB);
		r = drive_write(d, b, 64 * KIB, i * MIB, 0);
		assert_true(r == 0 || r == -ENOSPC);
		failed += r < 0;
	}
	assert_int_equal(failed, 64 - 16);
	assert_int_equal(drive_flush(d), 0);
	assert_int_equal(drive_read(d, b, 64 * KIB, 0), 0);
	assert_int_equal(b[5], 1);
	/* Space given back is there for others once that is durable. */
	assert_int_equal(drive_trim(d, MIB, 0), 0);
	assert_int_equal(drive_flush(d), 0);
	assert_int_equal(drive_flush(d), 0);
	memset(b, 99, 64 * KIB);
	assert_int_equal(drive_write(d, b, 64 * KIB, 63 * MIB, 0), 0);
	close_ok(d);
	assert_int_equal(damage_in(s), 0);
	d = open_ok(s);
	assert_int_equal(drive_read(d, b, 64 * KIB, 63 * MIB), 0);
	assert_int_equal(b[7], 99);
	assert_int_equal(drive_read(d, b, 64 * KIB, 63 * MIB + 64 * KIB), 0);
	assert_int_equal(b[7], 0); /* not what the former owner had there */
	close_ok(d);
	store_memory_free(s);
}

static void test_failing_store(void **state)
{
	struct store *s = small_image();
	struct error err = { 0 };
	uint8_t sector[512] = { 1 };
	struct disk *d = open_ok(s);

	(void)state;
	/* Activation fails, and works when tried again. */
	store_memory_fail_writes(s, 1, -ENOSPC);
	assert_int_equal(drive_write(d, sector, 512, 0, 0), -ENOSPC);
	assert_int_equal(drive_write(d, sector, 512, 0, 0), 0);
	/* The log cannot be written; later it can. */
	assert_int_equal(drive_write(d, sector, 512, 6 * MIB, 0), 0);
	store_memory_fail_writes(s, 1, -ENOSPC);
	assert_int_equal(drive_flush(d), -ENOSPC);
	assert_int_equal(drive_flush(d), 0);
	/* A failed flush is final, except for reading. */
	store_memory_fail_flushes(s, 1, -EIO);
	assert_int_equal(drive_flush(d), -ENOTRECOVERABLE);
	assert_int_equal(drive_flush(d), -ENOTRECOVERABLE);
	assert_int_equal(drive_write(d, sector, 512, 0, 0), -ENOTRECOVERABLE);
	assert_int_equal(drive_read(d, sector, 512, 6 * MIB), 0);
	assert_int_equal(sector[0], 1);
	assert_int_equal(disk_close(d, &err), -ENOTRECOVERABLE);
	d = open_ok(s);
	assert_int_equal(drive_read(d, sector, 512, 6 * MIB), 0);
	assert_int_equal(sector[0], 1);
	close_ok(d);
	assert_int_equal(damage_in(s), 0);
	store_memory_free(s);
}

/* --- writing, seen from outside --- */

static void test_guids_change(void **state)
{
	struct store *s = small_image();
	struct vhdx_info before, after;
	uint8_t sector[512] = { 0 };
	struct disk *d = open_ok(s);

	(void)state;
	vhdx_info(d, &before);
	assert_int_equal(drive_read(d, sector, 512, 0), 0);
	assert_int_equal(drive_flush(d), 0);
	close_ok(d);
	d = open_ok(s);
	vhdx_info(d, &after);
	assert_true(guid_equal(&before.file_write_guid, &after.file_write_guid));
	assert_int_equal(drive_write(d, sector, 512, 0, 0), 0);
	vhdx_info(d, &after);
	assert_false(guid_equal(&before.file_write_guid, &after.file_write_guid));
	assert_false(guid_equal(&before.data_write_guid, &after.data_write_guid));
	close_ok(d);
	store_memory_set_read_only(s, true);
	d = open_ok(s);
	assert_int_equal(drive_write(d, sector, 512, 0, 0), -EROFS);
	assert_int_equal(drive_trim(d, 512, 0), -EROFS);
	close_ok(d);
	store_memory_free(s);
}

static void test_trim_gives_back(void **state)
{
	struct store *s = new_store(256 * MIB, 0);
	_cleanup_free_ uint8_t *b = malloc(MIB);
	struct disk *d;
	uint64_t before;

	(void)state;
	create_ok(s, &small);
	d = open_ok(s);
	memset(b, 1, MIB);
	for (uint64_t i = 0; i < 8; i++)
		assert_int_equal(drive_write(d, b, MIB, i * MIB, 0), 0);
	assert_int_equal(drive_flush(d), 0);
	before = store_memory_bytes(s);
	assert_int_equal(drive_trim(d, 3 * MIB, 5 * MIB), 0);
	assert_int_equal(drive_trim(d, 512 * KIB, 4 * MIB), 0);
	close_ok(d);
	assert_true(before - store_memory_bytes(s) >= 3 * MIB + 448 * KIB);
	assert_int_equal(s->size, 9 * MIB); /* 4 MiB of structures and 5 blocks: the end is cut */
	store_memory_free(s);
}

/*
 * A block is trimmed while a write to it is under way, and its space goes to another one: neither
 * the old data nor that write may show up there, in whichever order the store works.
 */
static void trim_in_flight(unsigned seed)
{
	struct store *s = new_store(64 * MIB, seed);
	_cleanup_free_ uint8_t *b = malloc(MIB);
	struct model m = { 0 };
	struct model_request *w = &m.requests[0], *t = &m.requests[1];

	create_ok(s, &small);
	m.d = open_ok(s);
	memset(b, 0xaa, MIB);
	assert_int_equal(drive_write(m.d, b, MIB, 0, DISK_FUA), 0);
	w->iov = (struct iovec){ b, 64 * KIB };
	w->req = (struct disk_request){ .op = DISK_WRITE,
					.length = 64 * KIB,
					.iov = &w->iov,
					.iovcnt = 1,
					.done = model_request_done };
	t->req =
		(struct disk_request){ .op = DISK_TRIM, .length = MIB, .done = model_request_done };
	w->m = t->m = &m;
	m.busy = 2;
	disk_submit(m.d, &w->req);
	disk_submit(m.d, &t->req);
	for (uint64_t i = 1; i < 8; i++) {
		assert_int_equal(drive_flush(m.d), 0);
		assert_int_equal(drive_write(m.d, b, 512, i * MIB + 512 * KIB, 0), 0);
	}
	model_settle(&m);
	assert_true(vhdx_of(m.d)->space.end < 12 * MIB); /* the space was used again */
	for (uint64_t i = 1; i < 8; i++) {
		assert_int_equal(drive_read(m.d, b, MIB, i * MIB), 0);
		for (size_t k = 0; k < MIB; k++)
			if (b[k] != (k / 512 == 1024 ? 0xaa : 0))
				fail_msg("seed %u: block %u, byte %zu", seed, (unsigned)i, k);
		memset(b, 0xaa, 512);
	}
	close_ok(m.d);
	store_memory_free(s);
}

static void test_trim_in_flight(void **state)
{
	(void)state;
	for (unsigned seed = 1; seed <= 40; seed++)
		trim_in_flight(seed);
}

/* Many BAT pages dirty at once: several entries, the ring goes round, pages are dropped. */
static void test_many_pages(void **state)
{
	struct store *s = new_store(8 * GIB, 0);
	struct vhdx_create_options o = { .size = 4 * TIB, .block_size = MIB };
	uint8_t sector[512];
	struct disk *d;

	(void)state;
	create_ok(s, &o);
	d = open_ok(s);
	for (uint64_t i = 0; i < 3000; i++) {
		memset(sector, (int)(i * 7 + 1), sizeof(sector));
		assert_int_equal(drive_write(d, sector, 512, i * 1300 * MIB, 0), 0);
		if (i % 500 == 499)
			assert_int_equal(drive_flush(d), 0);
	}
	for (uint64_t i = 0; i < 3000; i++) {
		assert_int_equal(drive_read(d, sector, 512, i * 1300 * MIB), 0);
		assert_int_equal(sector[3], (uint8_t)(i * 7 + 1));
	}
	assert_true(vhdx_of(d)->pages.loaded <= 1100);
	close_ok(d);
	assert_int_equal(damage_in(s), 0);
	d = open_ok(s);
	for (uint64_t i = 0; i < 3000; i++) {
		assert_int_equal(drive_read(d, sector, 512, i * 1300 * MIB), 0);
		assert_int_equal(sector[3], (uint8_t)(i * 7 + 1));
	}
	close_ok(d);
	store_memory_free(s);
}

static void test_extents(void **state)
{
	struct store *s = new_store(4 * GIB, 0);
	struct vhdx_create_options o = { .size = 64 * TIB, .block_size = 4 * MIB };
	enum disk_extent_kind kind;
	uint8_t sector[4096] = { 1 };
	uint64_t length;
	struct disk *d;

	(void)state;
	create_ok(s, &o);
	d = open_ok(s);
	assert_int_equal(d->ops->extent(d, 0, &kind, &length), 0);
	assert_int_equal(kind, DISK_EXTENT_HOLE);
	assert_int_equal(length, 64 * TIB);
	assert_int_equal(drive_write(d, sector, 4096, 9 * TIB + 8192, 0), 0);
	assert_int_equal(d->ops->extent(d, 0, &kind, &length), 0);
	assert_int_equal(kind, DISK_EXTENT_HOLE);
	assert_int_equal(length, 9 * TIB + 8192);
	assert_int_equal(d->ops->extent(d, length, &kind, &length), 0);
	assert_int_equal(kind, DISK_EXTENT_DATA);
	assert_int_equal(length, 4096);
	assert_int_equal(d->ops->extent(d, 9 * TIB + 12288, &kind, &length), 0);
	assert_int_equal(length, 55 * TIB - 12288);
	close_ok(d);
	store_memory_free(s);
}

static void test_copy(void **state)
{
	struct store *a = new_store(256 * MIB, 3), *b = new_store(256 * MIB, 4);
	struct vhdx_create_options o = small;
	struct disk_copy_options copy = { .target_zeroed = true };
	_cleanup_free_ uint8_t *x = malloc(8 * MIB), *y = malloc(8 * MIB);
	struct error err = { 0 };
	struct disk *from, *to;

	(void)state;
	create_ok(a, &small);
	o.block_size = 2 * MIB;
	create_ok(b, &o);
	from = open_ok(a);
	to = open_ok(b);
	for (size_t i = 0; i < 8 * MIB; i++)
		x[i] = i >> 17 & 1 ? (uint8_t)(i * 3 + (i >> 12)) : 0;
	memset(x + 5 * MIB, 0, 2 * MIB);
	assert_int_equal(drive_write(from, x, 8 * MIB, 0, 0), 0);
	if (disk_copy(from, to, &copy, &err) < 0)
		fail_msg("%s", err.message);
	assert_int_equal(drive_read(to, y, 8 * MIB, 0), 0);
	assert_memory_equal(x, y, 8 * MIB);
	memset(x, 0, 4 * MIB);
	assert_int_equal(drive_zero(from, 4 * MIB, 0), 0);
	copy.target_zeroed = false;
	assert_int_equal(disk_copy(from, to, &copy, &err), 0);
	assert_int_equal(drive_read(to, y, 8 * MIB, 0), 0);
	assert_memory_equal(x, y, 8 * MIB);
	close_ok(from);
	close_ok(to);
	store_memory_free(a);
	store_memory_free(b);
}

static void test_bad_options(void **state)
{
	static const struct vhdx_create_options bad[] = {
		{ .size = 0 },
		{ .size = 65 * TIB },
		{ .size = 1000 },
		{ .size = 512, .logical_sector = 4096 },
		{ .size = MIB, .block_size = 512 * KIB },
		{ .size = MIB, .block_size = 3 * MIB },
		{ .size = MIB, .logical_sector = 1024 },
		{ .size = MIB, .physical_sector = 8192 },
	};
	struct store *s = new_store(64 * MIB, 0);
	struct error err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		err = (struct error){ 0 };
		assert_int_equal(vhdx_store_create(s, &bad[i], &err), -EINVAL);
		assert_true(err.message[0]);
	}
	store_memory_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_bat_arithmetic),
		cmocka_unit_test(test_wrong_start),
		cmocka_unit_test(test_headers),
		cmocka_unit_test(test_regions),
		cmocka_unit_test(test_metadata),
		cmocka_unit_test(test_bat_entries),
		cmocka_unit_test(test_dirty_read_only),
		cmocka_unit_test(test_log_damage),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_failing_store),
		cmocka_unit_test(test_guids_change),
		cmocka_unit_test(test_trim_gives_back),
		cmocka_unit_test(test_trim_in_flight),
		cmocka_unit_test(test_many_pages),
		cmocka_unit_test(test_extents),
		cmocka_unit_test(test_copy),
		cmocka_unit_test(test_bad_options),
	};
	int r;

	if (loop_new(0, &loop, NULL) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(loop);
	return r;
}
