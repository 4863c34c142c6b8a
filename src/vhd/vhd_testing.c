// SPDX-License-Identifier: MIT
/* See vhd_testing.h. */
#include "vhd/vhd_testing.h"

#include "vhd/disk_drive.h"
#include "vhd/vhd_meta.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

struct loop *vhdtest_loop;

static void check_print(struct check_report *r, enum check_kind kind, const char *text)
{
	(void)r;
	if (kind == CHECK_DAMAGE)
		print_message("check: %s\n", text);
}

struct check_report vhdtest_report_of(struct store *s)
{
	struct check_report report = { .found = check_print };
	struct error err = { 0 };

	store_memory_set_read_only(s, true);
	assert_int_equal(vhd_check(s, &report, &err), 0);
	store_memory_set_read_only(s, false);
	return report;
}

unsigned vhdtest_damage_in(struct store *s)
{
	return vhdtest_report_of(s).counts[CHECK_DAMAGE];
}

struct store *vhdtest_new_store(uint64_t size_max, unsigned shuffle)
{
	const struct store_memory_options o = {
		.size_max = size_max,
		.bytes_max = 512 * MIB,
		.shuffle = shuffle,
	};
	struct store *s = store_memory_new(vhdtest_loop, &o);

	assert_non_null(s);
	return s;
}

struct disk *vhdtest_open_ok(struct store *s)
{
	struct disk *d = NULL;
	struct error err = { 0 };

	if (vhd_open(s, &d, &err) < 0)
		fail_msg("%s", err.message);
	return d;
}

void vhdtest_close_ok(struct disk *d)
{
	struct error err = { 0 };

	if (disk_close(d, &err) < 0)
		fail_msg("%s", err.message);
}

void vhdtest_create_ok(struct store *s, const struct vhd_create_options *o)
{
	struct error err = { 0 };

	if (vhd_store_create(s, o, &err) < 0)
		fail_msg("%s", err.message);
}

const struct vhd_create_options vhdtest_small = {
	.size = 8 * MIB,
	.block_size = 512 * KIB,
	.kind = VHD_DYNAMIC,
};

struct store *vhdtest_small_image(void)
{
	struct store *s = vhdtest_new_store(256 * MIB, 0);
	struct disk *d;
	uint8_t sector[512];

	vhdtest_create_ok(s, &vhdtest_small);
	d = vhdtest_open_ok(s);
	memset(sector, 0x5a, sizeof(sector));
	assert_int_equal(drive_write(d, sector, 512, 0, 0), 0);
	assert_int_equal(drive_write(d, sector, 512, 3 * MIB, 0), 0);
	vhdtest_close_ok(d);
	return s;
}

void vhdtest_put(struct store *s, uint64_t offset, const void *bytes, size_t n)
{
	assert_int_equal(store_write(s, bytes, n, offset), 0);
}

void vhdtest_put32(struct store *s, uint64_t offset, uint32_t value)
{
	be32 v = be32_of(value);

	vhdtest_put(s, offset, &v, sizeof(v));
}

void vhdtest_put64(struct store *s, uint64_t offset, uint64_t value)
{
	be64 v = be64_of(value);

	vhdtest_put(s, offset, &v, sizeof(v));
}

void vhdtest_footers_resign(struct store *s)
{
	struct vhd_disk_footer f;

	assert_int_equal(store_read(s, &f, sizeof(f), 0), 0);
	vhd_footer_sign(&f);
	vhdtest_put(s, 0, &f, sizeof(f));
	vhdtest_put(s, s->size - 512, &f, sizeof(f));
}

void vhdtest_header_resign(struct store *s)
{
	struct vhd_disk_header h;

	assert_int_equal(store_read(s, &h, sizeof(h), 512), 0);
	vhd_header_sign(&h);
	vhdtest_put(s, 512, &h, sizeof(h));
}
