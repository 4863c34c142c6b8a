// SPDX-License-Identifier: MIT
/* Partition tables, good and bad. sfdisk's own are in mount_test.sh. */
#include "vhdtool/ptable.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SIZE MIB

static uint8_t disk[SIZE];

static int read_disk(void *context, void *buf, size_t n, uint64_t offset)
{
	(void)context;
	assert_true(range_inside(offset, n, SIZE));
	memcpy(buf, disk + offset, n);
	return 0;
}

static int read_broken(void *context, void *buf, size_t n, uint64_t offset)
{
	(void)context;
	(void)buf;
	(void)n;
	(void)offset;
	return -EIO;
}

static struct ptable read_table(uint32_t sector)
{
	const struct ptable_source s = { .size = SIZE, .sector = sector, .read = read_disk };
	struct ptable t;

	assert_int_equal(ptable_read(&s, &t, NULL), 0);
	return t;
}

static void put32(size_t at, uint32_t v)
{
	le32 x = le32_of(v);

	memcpy(disk + at, &x, sizeof(x));
}

static void put64(size_t at, uint64_t v)
{
	le64 x = le64_of(v);

	memcpy(disk + at, &x, sizeof(x));
}

static void put_mbr(size_t sector, unsigned i, uint8_t type, uint32_t first, uint32_t count)
{
	size_t at = sector * 512 + 446 + 16 * (size_t)i;

	disk[sector * 512 + 510] = 0x55;
	disk[sector * 512 + 511] = 0xaa;
	disk[at + 4] = type;
	put32(at + 8, first);
	put32(at + 12, count);
}

static uint32_t crc32(const uint8_t *p, size_t n)
{
	uint32_t c = ~0u;

	while (n--) {
		c ^= *p++;
		for (int i = 0; i < 8; i++)
			c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
	}
	return ~c;
}

/* A header at sector `at` for a table of four entries at sector `table`. */
static void put_gpt(uint32_t sector, uint64_t at, uint64_t table)
{
	size_t h = at * sector, e = table * sector;

	memcpy(disk + h, "EFI PART\0\0\1\0", 12);
	put32(h + 12, 92);
	put32(h + 16, 0);
	put64(h + 24, at);
	put64(h + 40, 3);
	put64(h + 48, SIZE / sector - 3);
	put64(h + 72, table);
	put32(h + 80, 4);
	put32(h + 84, 128);
	memset(disk + e, 0, 512);
	memset(disk + e, 0xab, 16);
	put64(e + 32, 4);
	put64(e + 40, 19);
	memset(disk + e + 256, 0xcd, 16);
	put64(e + 256 + 32, 20);
	put64(e + 256 + 40, 20);
	memset(disk + e + 384, 0xcd, 16);
	put64(e + 384 + 32, 21);
	put64(e + 384 + 40, UINT64_MAX);
	put32(h + 88, crc32(disk + e, 512));
	put32(h + 16, crc32(disk + h, 92));
}

static void clear(void)
{
	memset(disk, 0, sizeof(disk));
}

static void test_mbr(void **state)
{
	struct ptable t;

	(void)state;
	clear();
	assert_int_equal(read_table(512).kind, PTABLE_NONE);
	put_mbr(0, 0, 0x83, 8, 16);
	put_mbr(0, 1, 0x83, 2000, 1000); /* reaches beyond the end */
	put_mbr(0, 2, 0x0f, 100, 900);
	put_mbr(100, 0, 7, 1, 10);
	put_mbr(100, 1, 5, 50, 60);
	put_mbr(150, 0, 7, 2, 20);
	t = read_table(512);
	assert_int_equal(t.kind, PTABLE_MBR);
	assert_int_equal(t.count, 3);
	assert_true(ptable_find(&t, 1)->offset == 8 * 512);
	assert_true(ptable_find(&t, 5)->offset == 101 * 512);
	assert_true(ptable_find(&t, 6)->offset == 152 * 512);
	assert_true(ptable_find(&t, 6)->length == 20 * 512);
	assert_null(ptable_find(&t, 2));
	assert_ptr_equal(ptable_main(&t), &t.entries[0]);
}

static void test_a_ring_of_extended_partitions_ends(void **state)
{
	struct ptable t;

	(void)state;
	clear();
	put_mbr(0, 0, 0x05, 100, 900);
	put_mbr(100, 0, 7, 1, 10);
	put_mbr(100, 1, 5, 50, 60);
	put_mbr(150, 0, 7, 1, 10);
	put_mbr(150, 1, 5, 50, 60);
	t = read_table(512);
	assert_int_equal(t.count, PTABLE_MAX);
}

static void test_a_boot_sector_is_no_table(void **state)
{
	(void)state;
	clear();
	put_mbr(0, 0, 0x83, 8, 16);
	memcpy(disk + 3, "NTFS    ", 8);
	assert_int_equal(read_table(512).kind, PTABLE_NONE);
	memset(disk, 0, 16);
	disk[446] = 0x33;
	assert_int_equal(read_table(512).kind, PTABLE_NONE);
}

static void check_gpt(uint32_t sector)
{
	uint64_t last = SIZE / sector - 1;
	struct ptable t;

	clear();
	put_mbr(0, 0, 0xee, 1, UINT32_MAX);
	put_gpt(sector, 1, 2);
	put_gpt(sector, last, last - 1);
	t = read_table(sector);
	assert_int_equal(t.kind, PTABLE_GPT);
	assert_false(t.backup);
	assert_int_equal(t.count, 2);
	assert_true(t.entries[0].offset == 4 * sector && t.entries[0].length == 16 * sector);
	assert_int_equal(t.entries[1].number, 3);
	disk[2 * sector] ^= 1; /* the first table's checksum is wrong now */
	t = read_table(sector);
	assert_true(t.backup);
	assert_int_equal(t.count, 2);
	disk[last * sector + 50] ^= 1;
	assert_int_equal(read_table(sector).kind, PTABLE_NONE);
}

static void test_gpt_and_its_backup(void **state)
{
	(void)state;
	check_gpt(512);
	check_gpt(4096);
}

static void test_huge_numbers_of_a_gpt(void **state)
{
	(void)state;
	clear();
	put_mbr(0, 0, 0xee, 1, UINT32_MAX);
	put_gpt(512, 1, 2);
	put32(512 + 80, UINT32_MAX);
	put32(512 + 16, 0);
	put32(512 + 16, crc32(disk + 512, 92));
	assert_int_equal(read_table(512).kind, PTABLE_NONE);
	put_gpt(512, 1, 2);
	put64(512 + 72, UINT64_MAX / 512);
	put32(512 + 16, 0);
	put32(512 + 16, crc32(disk + 512, 92));
	assert_int_equal(read_table(512).kind, PTABLE_NONE);
}

static void test_errors_of_the_disk(void **state)
{
	const struct ptable_source s = { .size = SIZE, .sector = 512, .read = read_broken };
	struct error err = { 0 };
	struct ptable t;

	(void)state;
	assert_int_equal(ptable_read(&s, &t, &err), -EIO);
	assert_true(err.message[0]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mbr),
		cmocka_unit_test(test_a_ring_of_extended_partitions_ends),
		cmocka_unit_test(test_a_boot_sector_is_no_table),
		cmocka_unit_test(test_gpt_and_its_backup),
		cmocka_unit_test(test_huge_numbers_of_a_gpt),
		cmocka_unit_test(test_errors_of_the_disk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
