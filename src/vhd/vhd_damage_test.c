// SPDX-License-Identifier: MIT
/* VHD images that are wrong in one place each, or made by software with other habits. */
#include "vhd/disk_drive.h"
#include "vhd/repair.h"
#include "vhd/vhd_meta.h"
#include "vhd/vhd_testing.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static int open_error(struct store *s, bool read_only, const char *words)
{
	struct error err = { 0 };
	struct disk *d = NULL;
	int r;

	store_memory_set_read_only(s, read_only);
	r = vhd_open(s, &d, &err);
	if (r >= 0)
		fail_msg("opened, but should have said: %s", words);
	if (!strstr(err.message, words))
		fail_msg("said \"%s\", not \"%s\"", err.message, words);
	store_memory_set_read_only(s, false);
	return r;
}

static void small_content(struct store *s)
{
	struct disk *d = vhdtest_open_ok(s);
	uint8_t sector[512];

	assert_int_equal(drive_read(d, sector, 512, 3 * MIB), 0);
	assert_int_equal(sector[7], 0x5a);
	assert_int_equal(drive_read(d, sector, 512, 2 * MIB), 0);
	assert_int_equal(sector[7], 0);
	vhdtest_close_ok(d);
}

static void repair_print(struct repair_report *r, enum repair_kind kind, uint64_t offset,
			 uint64_t length, const char *text)
{
	(void)r, (void)kind, (void)offset, (void)length;
	assert_true(text[0]);
}

static struct repair_report repair(struct store *s)
{
	struct repair_report report = { .found = repair_print };
	struct error err = { 0 };

	if (vhd_repair(s, &report, &err) < 0)
		fail_msg("%s", err.message);
	return report;
}

/* So many findings and bytes lost; then the image is good. */
static void repair_ok(struct store *s, unsigned mended, unsigned risks, uint64_t lost)
{
	struct repair_report report = repair(s);
	struct check_report after;

	assert_int_equal(report.counts[REPAIR_MENDED], mended);
	assert_int_equal(report.counts[REPAIR_RISK], risks);
	assert_int_equal(report.lost, lost);
	after = vhdtest_report_of(s);
	assert_int_equal(after.counts[CHECK_DAMAGE], 0);
	assert_int_equal(after.counts[CHECK_NOTE], 0);
	report = repair(s);
	assert_int_equal(report.counts[0] + report.counts[1] + report.counts[2], 0);
}

static void repair_refuses(struct store *s, const char *words)
{
	struct repair_report report = { .found = repair_print };
	struct error err = { 0 };

	assert_true(vhd_repair(s, &report, &err) < 0);
	assert_non_null(strstr(err.message, words));
	assert_true(err.message[0]);
}

static void test_footer_at_end_is_lost(void **state)
{
	struct store *s = vhdtest_small_image();
	uint64_t size = s->size;
	struct check_report report;

	(void)state;
	vhdtest_put32(s, size - 512 + 8, 99);
	report = vhdtest_report_of(s);
	assert_int_equal(report.counts[CHECK_DAMAGE], 0);
	assert_int_equal(report.counts[CHECK_NOTE], 1);
	store_memory_set_read_only(s, true);
	small_content(s);
	store_memory_set_read_only(s, false);
	assert_int_equal(vhdtest_report_of(s).counts[CHECK_NOTE], 1);
	small_content(s);
	assert_int_equal(s->size, size);
	assert_int_equal(vhdtest_report_of(s).counts[CHECK_NOTE], 0);
	/* Cut off, and with something strange behind. */
	assert_int_equal(store_resize(s, size - 512), 0);
	small_content(s);
	assert_int_equal(s->size, size);
	vhdtest_put(s, size + 100 * KIB, "x", 1);
	small_content(s);
	assert_int_equal(s->size, size);
	assert_int_equal(vhdtest_report_of(s).counts[CHECK_NOTE], 0);
	store_memory_free(s);
}

static void test_footer_copy_is_lost(void **state)
{
	struct store *s = vhdtest_small_image();

	(void)state;
	vhdtest_put32(s, 8, 99);
	assert_int_equal(vhdtest_report_of(s).counts[CHECK_NOTE], 1);
	small_content(s);
	assert_int_equal(vhdtest_report_of(s).counts[CHECK_NOTE], 0);
	vhdtest_put32(s, 8, 99);
	vhdtest_put32(s, s->size - 512 + 8, 99);
	assert_int_equal(open_error(s, false, "both of its footers"), -EINVAL);
	assert_int_equal(vhdtest_damage_in(s), 1);
	store_memory_free(s);
}

static void test_footer_of_511_bytes(void **state)
{
	struct store *s = vhdtest_small_image();
	uint64_t size = s->size;

	(void)state;
	assert_int_equal(store_resize(s, size - 1), 0);
	vhdtest_put32(s, 8, 99); /* so that it counts */
	store_memory_set_read_only(s, true);
	small_content(s);
	store_memory_set_read_only(s, false);
	small_content(s);
	assert_int_equal(s->size, size);
	store_memory_free(s);
}

/* A guest's data lies at the end of a file that a power cut left, and claims to be a footer. */
static void test_foreign_footer_at_end(void **state)
{
	struct store *s = vhdtest_small_image();
	struct vhd_disk_footer f;

	(void)state;
	assert_int_equal(store_read(s, &f, sizeof(f), 0), 0);
	f.unique_id[3] ^= 1;
	vhd_footer_set_size(&f, 512);
	vhd_footer_sign(&f);
	vhdtest_put(s, s->size - 512, &f, sizeof(f));
	small_content(s);
	assert_int_equal(vhdtest_report_of(s).counts[CHECK_NOTE], 0);
	store_memory_free(s);
}

static void test_wrong_footer(void **state)
{
	struct store *s = vhdtest_small_image();

	(void)state;
	vhdtest_put32(s, 60, 7);
	vhdtest_footers_resign(s);
	assert_int_equal(open_error(s, true, "both of its footers"), -EINVAL);
	vhdtest_put32(s, 60, VHD_TYPE_DYNAMIC);
	vhdtest_put32(s, 12, 0x00020000);
	vhdtest_footers_resign(s);
	assert_int_equal(open_error(s, true, "both of its footers"), -EINVAL);
	vhdtest_put32(s, 12, VHD_VERSION);
	vhdtest_put64(s, 48, 0);
	vhdtest_footers_resign(s);
	assert_int_equal(open_error(s, true, "at least a sector"), -EINVAL);
	vhdtest_put64(s, 48, 2041 * GIB);
	vhdtest_footers_resign(s);
	assert_int_equal(open_error(s, true, "at most 2040 GiB"), -EINVAL);
	vhdtest_put64(s, 48, 9 * MIB);
	vhdtest_footers_resign(s);
	assert_int_equal(open_error(s, true, "block table has 16 entries"), -EINVAL);
	vhdtest_put64(s, 48, 8 * MIB);
	vhdtest_put64(s, 16, 100 * GIB);
	vhdtest_footers_resign(s);
	assert_int_equal(open_error(s, true, "header of the VHD should lie"), -EINVAL);
	vhdtest_put64(s, 16, 513);
	vhdtest_footers_resign(s);
	assert_int_equal(open_error(s, true, "header of the VHD should lie"), -EINVAL);
	vhdtest_put64(s, 16, 1024);
	vhdtest_footers_resign(s);
	assert_int_equal(open_error(s, true, "header of the VHD is damaged"), -EINVAL);
	vhdtest_put64(s, 16, 512);
	vhdtest_footers_resign(s);
	small_content(s);
	store_memory_free(s);
}

static void test_wrong_header(void **state)
{
	struct store *s = vhdtest_small_image();

	(void)state;
	vhdtest_put32(s, 512 + 100, 1);
	assert_int_equal(open_error(s, true, "header of the VHD is damaged"), -EINVAL);
	vhdtest_put32(s, 512 + 100, 0);
	vhdtest_put32(s, 512 + 24, 0x00020000);
	vhdtest_header_resign(s);
	assert_int_equal(open_error(s, true, "version"), -ENOTSUP);
	vhdtest_put32(s, 512 + 24, VHD_VERSION);
	for (uint32_t bad = 0, i = 0; i < 4; i++) {
		bad = (const uint32_t[]){ 0, 3 * 512 * 1024, 4096, 0x80000000 }[i];
		vhdtest_put32(s, 512 + 32, bad);
		vhdtest_header_resign(s);
		assert_int_equal(open_error(s, true, "block size"), -EINVAL);
	}
	vhdtest_put32(s, 512 + 32, 512 * KIB);
	vhdtest_put64(s, 512 + 16, 100 * GIB);
	vhdtest_header_resign(s);
	assert_int_equal(open_error(s, true, "block table should lie"), -EINVAL);
	vhdtest_put64(s, 512 + 16, 4097);
	vhdtest_header_resign(s);
	assert_int_equal(open_error(s, true, "block table should lie"), -EINVAL);
	vhdtest_put64(s, 512 + 16, 1024);
	vhdtest_header_resign(s);
	assert_int_equal(open_error(s, true, "overlap"), -EINVAL);
	vhdtest_put64(s, 512 + 16, 4096);
	vhdtest_header_resign(s);
	small_content(s);
	store_memory_free(s);
}

static void test_table_entries(void **state)
{
	struct store *s = vhdtest_small_image();
	const uint32_t bad[] = { 0, 1, 8, 0xfffffffe, (uint32_t)(s->size / 512 - 2) };
	uint8_t sector[512];
	struct disk *d;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		vhdtest_put32(s, 4096 + 4, bad[i]);
		assert_int_equal(vhdtest_damage_in(s), 1);
		d = vhdtest_open_ok(s);
		assert_int_equal(drive_read(d, sector, 512, 512 * KIB), -EUCLEAN);
		assert_int_equal(drive_write(d, sector, 512, 512 * KIB, 0), -EUCLEAN);
		assert_int_equal(drive_read(d, sector, 512, 0), 0); /* others are not touched */
		assert_int_equal(sector[0], 0x5a);
		vhdtest_close_ok(d);
	}
	vhdtest_put32(s, 4096 + 4, 15 + 4); /* into block 0 */
	assert_int_equal(vhdtest_damage_in(s), 1);
	store_memory_free(s);
}

static void test_file_cut_short(void **state)
{
	struct store *s = vhdtest_small_image();

	(void)state;
	assert_int_equal(store_resize(s, s->size - 100 * KIB), 0);
	assert_int_equal(open_error(s, false, "cut short"), -EUCLEAN);
	assert_int_equal(vhdtest_damage_in(s), 1);
	assert_int_equal(store_resize(s, 1000), 0);
	assert_int_equal(open_error(s, true, "cut short"), -EINVAL);
	assert_int_equal(store_resize(s, 100), 0);
	assert_int_equal(open_error(s, true, "not a VHD"), -EINVAL);
	store_memory_free(s);
}

static void test_fixed_cut_short(void **state)
{
	const struct vhd_create_options o = { .size = MIB, .kind = VHD_FIXED };
	struct store *s = vhdtest_new_store(4 * MIB, 0);
	struct vhd_disk_footer f;

	(void)state;
	vhdtest_create_ok(s, &o);
	assert_int_equal(store_read(s, &f, sizeof(f), MIB), 0);
	assert_int_equal(store_resize(s, MIB - 4096), 0);
	assert_int_equal(open_error(s, true, "not a VHD"), -EINVAL);
	vhdtest_put(s, MIB - 4096, &f, sizeof(f));
	assert_int_equal(open_error(s, true, "cut short"), -EINVAL);
	store_memory_free(s);
}

/* Virtual PC shows what the geometry can express, others the size. */
static void test_size_by_creator(void **state)
{
	static const struct {
		const char *creator;
		uint64_t size;
	} cases[] = { { "win ", 8 * MIB },
		      { "qem2", 8 * MIB },
		      { "d2v\0", 8 * MIB },
		      { "vs  ", 8 * MIB },
		      { "vpc ", UINT64_C(240) * 4 * 17 * 512 },
		      { "qemu", UINT64_C(240) * 4 * 17 * 512 } };
	struct store *s = vhdtest_small_image();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct disk *d;

		vhdtest_put(s, 28, cases[i].creator, 4);
		vhdtest_footers_resign(s);
		d = vhdtest_open_ok(s);
		assert_int_equal(d->geometry.size, cases[i].size);
		vhdtest_close_ok(d);
	}
	store_memory_free(s);
}

static void test_geometry(void **state)
{
	static const struct {
		uint64_t size;
		unsigned cylinders, heads, sectors;
	} cases[] = {
		{ 8 * MIB, 240, 4, 17 },       { 127 * MIB, 1019, 15, 17 },
		{ 200 * MIB, 825, 16, 31 },    { GIB, 2080, 16, 63 },
		{ 127 * GIB, 65278, 16, 255 }, { 2040 * GIB, 65535, 16, 255 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct vhd_disk_footer f = { 0 };
		uint64_t chs;

		vhd_footer_set_size(&f, cases[i].size);
		chs = (uint64_t)be16_get(f.cylinders) * f.heads * f.sectors_per_track * 512;
		assert_true(chs <= cases[i].size);
		assert_int_equal(be16_get(f.cylinders), cases[i].cylinders);
		assert_int_equal(f.heads, cases[i].heads);
		assert_int_equal(f.sectors_per_track, cases[i].sectors);
	}
}

/* --- something behind the footer --- */

static void test_bytes_behind_a_fixed_image(void **state)
{
	const struct vhd_create_options o = { .size = MIB, .kind = VHD_FIXED };
	static const uint64_t behind[] = { 1, 300, 512, 4096, 60 * KIB };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(behind); i++) {
		struct store *s = vhdtest_new_store(4 * MIB, 0);
		struct disk *d;

		vhdtest_create_ok(s, &o);
		assert_int_equal(store_resize(s, s->size + behind[i]), 0);
		assert_true(vhd_footer_behind(s));
		assert_int_equal(vhdtest_damage_in(s), 1);
		assert_int_equal(open_error(s, false, "check --repair"), -EROFS);
		store_memory_set_read_only(s, true);
		d = vhdtest_open_ok(s);
		assert_int_equal(d->geometry.size, MIB);
		vhdtest_close_ok(d);
		store_memory_set_read_only(s, false);
		repair_ok(s, 1, 0, 0);
		assert_int_equal(s->size, MIB + 512);
		store_memory_free(s);
	}
}

/* A footer that a guest keeps in its own files does not make a VHD of its disk. */
static void test_footer_in_a_raw_disk(void **state)
{
	struct store *s = vhdtest_small_image(), *raw = vhdtest_new_store(4 * MIB, 0);
	struct vhd_disk_footer f;

	(void)state;
	assert_int_equal(store_read(s, &f, sizeof(f), 0), 0);
	assert_int_equal(store_resize(raw, 2 * MIB), 0);
	vhdtest_put(raw, 2 * MIB - 4096, &f, sizeof(f));
	assert_false(vhd_footer_behind(raw));
	f.disk_type = be32_of(VHD_TYPE_FIXED);
	vhd_footer_sign(&f);
	vhdtest_put(raw, 2 * MIB - 4096, &f, sizeof(f));
	assert_false(vhd_footer_behind(raw));
	store_memory_free(s);
	store_memory_free(raw);
}

/* --- repairs --- */

static void test_repair_leaves_a_good_image(void **state)
{
	struct store *s = vhdtest_small_image();
	uint64_t size = s->size;

	(void)state;
	repair_ok(s, 0, 0, 0);
	assert_int_equal(s->size, size);
	small_content(s);
	store_memory_free(s);
}

static void test_repair_footers(void **state)
{
	struct store *s = vhdtest_small_image();
	uint64_t size = s->size;
	struct disk *d;

	(void)state;
	vhdtest_put32(s, 8, 99);
	repair_ok(s, 1, 0, 0);
	vhdtest_put32(s, s->size - 512 + 8, 99);
	repair_ok(s, 1, 0, 0);
	assert_int_equal(s->size, size);
	assert_int_equal(store_resize(s, size - 1), 0);
	repair_ok(s, 1, 0, 0);
	assert_int_equal(s->size, size);
	vhdtest_put32(s, 8, 99);
	vhdtest_put32(s, s->size - 512 + 8, 99);
	repair_ok(s, 0, 1, 0);
	d = vhdtest_open_ok(s);
	assert_int_equal(d->geometry.size, 8 * MIB);
	vhdtest_close_ok(d);
	small_content(s);
	store_memory_free(s);
}

static void test_repair_header(void **state)
{
	struct store *s = vhdtest_small_image();

	(void)state;
	vhdtest_put32(s, 512 + 36, 7);
	repair_ok(s, 0, 1, 0);
	small_content(s);
	vhdtest_put64(s, 16, 4096);
	vhdtest_footers_resign(s);
	repair_ok(s, 1, 0, 0);
	small_content(s);
	vhdtest_put64(s, 512, 4096);
	repair_refuses(s, "no header was found");
	store_memory_free(s);
}

static void test_repair_table(void **state)
{
	struct store *s = vhdtest_small_image();
	const uint32_t bad[] = { 0, 1, 8, 0xfffffffe, (uint32_t)(s->size / 512 - 1) };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		vhdtest_put32(s, 4096 + 4, bad[i]);
		repair_ok(s, 0, 0, 512 * KIB);
		small_content(s);
	}
	vhdtest_put32(s, 4096 + 4, 15 + 4); /* into block 0 */
	repair_ok(s, 0, 0, 512 * KIB);
	small_content(s);
	store_memory_free(s);
}

static void test_repair_bitmaps(void **state)
{
	struct store *s = vhdtest_small_image();
	be32 sector;

	(void)state;
	assert_int_equal(store_read(s, &sector, 4, 4096), 0);
	vhdtest_put32(s, be32_get(sector) * UINT64_C(512) + 8, 0x00ff00ff);
	repair_ok(s, 1, 0, 0);
	small_content(s);
	store_memory_free(s);
}

/* At every length: what is left can be read, or there are words. */
static void test_repair_of_every_length(void **state)
{
	struct store *whole = vhdtest_small_image();

	(void)state;
	for (uint64_t size = 0; size < whole->size; size += size < 16 * KIB ? 300 : 100 * KIB) {
		struct store *s = vhdtest_new_store(256 * MIB, 0);

		store_memory_copy(whole, s);
		assert_int_equal(store_resize(s, size), 0);
		if (size <= 4096)
			repair_refuses(s, "");
		else
			(void)repair(s);
		if (size > 4096)
			assert_int_equal(vhdtest_damage_in(s), 0);
		store_memory_free(s);
	}
	store_memory_free(whole);
}

static void test_repair_fixed_cut_short(void **state)
{
	const struct vhd_create_options o = { .size = MIB, .kind = VHD_FIXED };
	struct store *s = vhdtest_new_store(4 * MIB, 0);
	struct vhd_disk_footer f;
	struct disk *d;

	(void)state;
	vhdtest_create_ok(s, &o);
	assert_int_equal(store_read(s, &f, sizeof(f), MIB), 0);
	assert_int_equal(store_resize(s, MIB - 4096), 0);
	vhdtest_put(s, MIB - 4096, &f, sizeof(f));
	repair_ok(s, 0, 0, 4096);
	d = vhdtest_open_ok(s);
	assert_int_equal(d->geometry.size, MIB);
	vhdtest_close_ok(d);
	store_memory_free(s);
}

static void test_repair_lost_parent(void **state)
{
	const struct vhd_create_options o = {
		.size = 4 * MIB,
		.kind = VHD_DIFFERENCING,
		.relative = ".\\p.vhd",
	};
	struct store *s = vhdtest_new_store(64 * MIB, 0);
	struct vhd_disk_header h;

	(void)state;
	vhdtest_create_ok(s, &o);
	assert_int_equal(store_read(s, &h, sizeof(h), 512), 0);
	memset(h.parent_unicode_name, 0, sizeof(h.parent_unicode_name));
	h.parent_locators[0].platform_data_offset = be64_of(GIB);
	vhdtest_put(s, 512, &h, sizeof(h));
	vhdtest_header_resign(s);
	assert_true(vhdtest_damage_in(s) > 0);
	repair_ok(s, 0, 2, 0);
	store_memory_free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_footer_at_end_is_lost),
		cmocka_unit_test(test_footer_copy_is_lost),
		cmocka_unit_test(test_footer_of_511_bytes),
		cmocka_unit_test(test_foreign_footer_at_end),
		cmocka_unit_test(test_wrong_footer),
		cmocka_unit_test(test_wrong_header),
		cmocka_unit_test(test_table_entries),
		cmocka_unit_test(test_file_cut_short),
		cmocka_unit_test(test_fixed_cut_short),
		cmocka_unit_test(test_size_by_creator),
		cmocka_unit_test(test_geometry),
		cmocka_unit_test(test_bytes_behind_a_fixed_image),
		cmocka_unit_test(test_footer_in_a_raw_disk),
		cmocka_unit_test(test_repair_leaves_a_good_image),
		cmocka_unit_test(test_repair_footers),
		cmocka_unit_test(test_repair_header),
		cmocka_unit_test(test_repair_table),
		cmocka_unit_test(test_repair_bitmaps),
		cmocka_unit_test(test_repair_of_every_length),
		cmocka_unit_test(test_repair_fixed_cut_short),
		cmocka_unit_test(test_repair_lost_parent),
	};
	int r;

	if (loop_new(0, &vhdtest_loop, NULL) < 0)
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	loop_free(vhdtest_loop);
	return r;
}
