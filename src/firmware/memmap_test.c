// SPDX-License-Identifier: MIT
/* The memory map at its edges: sizes, the gap below 4 GiB, few physical address bits. */
#include "firmware/memmap.h"

#include <errno.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

static void check_invariants(const struct memmap *m)
{
	uint64_t ram = 0, end = 0;

	for (size_t i = 0; i < m->range_count; i++)
		ram += m->ranges[i].size;
	assert_int_equal(ram, m->ram_size);
	for (unsigned i = 0; i < m->e820_count; i++) {
		assert_true(m->e820[i].base >= end);
		end = m->e820[i].base + m->e820[i].size;
	}
	assert_int_equal(end, m->high_ram_end);
	assert_true(m->mmio_high_base >= m->high_ram_end);
	assert_true(m->mmio_high_base >= 4 * GIB);
	assert_int_equal(m->mmio_high_base % m->mmio_high_size, 0);
	assert_true(m->low_ram_end <= m->mmio_low_base);
	assert_int_equal(m->mmio_low_base + m->mmio_low_size, MEMMAP_IOAPIC);
}

static void test_small(void **state)
{
	struct memmap m;

	(void)state;
	assert_int_equal(memmap_init(16 * MIB, 36, &m, NULL), 0);
	check_invariants(&m);
	assert_int_equal(m.range_count, 1);
	assert_int_equal(m.low_ram_end, 16 * MIB);
	assert_int_equal(m.high_ram_end, 16 * MIB);
	assert_int_equal(m.e820_count, 4);
	assert_int_equal(m.e820[2].type, MEMMAP_ACPI);
	assert_int_equal(m.mmio_high_base, 32 * GIB);
	assert_int_equal(m.mmio_high_size, 32 * GIB);
}

static void test_around_the_gap(void **state)
{
	struct memmap m;

	(void)state;
	assert_int_equal(memmap_init(MEMMAP_LOW_GAP, 40, &m, NULL), 0);
	check_invariants(&m);
	assert_int_equal(m.range_count, 1);
	assert_int_equal(memmap_init(MEMMAP_LOW_GAP + MIB, 40, &m, NULL), 0);
	check_invariants(&m);
	assert_int_equal(m.range_count, 2);
	assert_int_equal(m.ranges[1].gpa, 4 * GIB);
	assert_int_equal(m.ranges[1].size, MIB);
	assert_int_equal(m.e820_count, 5);
	assert_int_equal(m.mmio_high_base, 64 * GIB);
}

static void test_few_address_bits(void **state)
{
	struct error err = { 0 };
	struct memmap m;

	(void)state;
	assert_int_equal(memmap_init(62 * GIB, 36, &m, NULL), 0);
	check_invariants(&m);
	assert_int_equal(m.mmio_high_size, GIB);
	assert_int_equal(memmap_init(64 * GIB, 36, &m, &err), -ERANGE);
	assert_non_null(strstr(err.message, "36 bits"));
	assert_int_equal(memmap_init(2 * TIB, 46, &m, NULL), 0);
	check_invariants(&m);
	assert_int_equal(m.mmio_high_size, 64 * GIB);
}

static void test_room_to_grow(void **state)
{
	struct error err = { 0 };
	struct memmap m;

	(void)state;
	assert_int_equal(memmap_init_growing(256 * MIB, GIB, 40, &m, NULL), 0);
	check_invariants(&m);
	assert_int_equal(m.grow_base, 256 * MIB);
	assert_int_equal(m.grow_size, 768 * MIB);
	assert_int_equal(m.range_count, 2);
	assert_int_equal(m.ranges[1].gpa, 256 * MIB);
	assert_int_equal(m.ranges[1].most, 768 * MIB);
	/* to the last block below the window, and one MiB more */
	assert_int_equal(memmap_init_growing(200 * MIB, 3912 * MIB, 40, &m, NULL), 0);
	check_invariants(&m);
	assert_int_equal(m.grow_base, 256 * MIB);
	assert_int_equal(m.grow_base + m.grow_size, MEMMAP_LOW_GAP);
	assert_int_equal(memmap_init_growing(200 * MIB, 3913 * MIB, 40, &m, NULL), 0);
	check_invariants(&m);
	assert_int_equal(m.grow_base, 4 * GIB);
	assert_true(m.mmio_high_base >= m.grow_base + m.grow_size);
	assert_int_equal(memmap_init_growing(5 * GIB, 80 * GIB, 40, &m, NULL), 0);
	check_invariants(&m);
	assert_int_equal(m.grow_base, 6 * GIB);
	assert_true(m.mmio_high_base >= m.grow_base + m.grow_size);
	assert_int_equal(memmap_init_growing(GIB, GIB, 40, &m, NULL), 0);
	assert_int_equal(m.grow_size, 0);
	assert_int_equal(memmap_init_growing(GIB, 64 * GIB, 36, &m, &err), -ERANGE);
	assert_int_equal(memmap_init_growing(GIB, 13 * TIB, 52, &m, &err), -ERANGE);
	assert_int_equal(memmap_init_growing(GIB, GIB + 4096, 40, &m, &err), -ERANGE);
}

static void test_refusals(void **state)
{
	struct error err = { 0 };
	struct memmap m;

	(void)state;
	assert_int_equal(memmap_init(15 * MIB, 40, &m, &err), -ERANGE);
	assert_int_equal(memmap_init(0, 40, &m, &err), -ERANGE);
	assert_int_equal(memmap_init(UINT64_MAX, 40, &m, &err), -ERANGE);
	assert_int_equal(memmap_init(64 * MIB + 4096, 40, &m, &err), -EINVAL);
	assert_int_equal(memmap_init(64 * MIB, 32, &m, &err), -EINVAL);
	assert_int_equal(memmap_init(64 * MIB, 64, &m, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small),
		cmocka_unit_test(test_around_the_gap),
		cmocka_unit_test(test_few_address_bits),
		cmocka_unit_test(test_room_to_grow),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
