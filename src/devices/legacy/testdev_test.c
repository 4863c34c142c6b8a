// SPDX-License-Identifier: MIT
/* Exit port and fw_cfg, as flat test kernels use them. */
#include "devices/legacy/testdev.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

static int exit_status;

static void on_exit_port(void *context, int status)
{
	(void)context;
	exit_status = status;
}

static uint64_t item(struct pio_bus *bus, uint16_t selector, unsigned bytes)
{
	uint64_t v = 0;

	pio_bus_write(bus, 0x510, 2, selector);
	for (unsigned i = 0; i < bytes; i++)
		v |= (uint64_t)pio_bus_read(bus, 0x511, 1) << (8 * i);
	return v;
}

static void test_fw_cfg(void **state)
{
	struct testdev t = { .exit = on_exit_port, .ram_size = 0x123456789abcdef0, .cpus = 0x102 };
	struct pio_bus bus = { 0 };

	(void)state;
	testdev_init(&t);
	assert_int_equal(testdev_add_to(&t, &bus, NULL), 0);
	assert_int_equal(item(&bus, 0, 4), 0x554d4551);
	assert_int_equal(item(&bus, 1, 4), 1);
	assert_int_equal(item(&bus, 3, 8), 0x123456789abcdef0);
	assert_int_equal(item(&bus, 5, 2), 0x102);
	assert_int_equal(item(&bus, 0x0f, 2), 0x102);
	assert_int_equal(item(&bus, 0xffff, 8), 0);
	(void)item(&bus, 3, 8);
	for (int i = 0; i < 100000; i++) /* far behind the end, no other item begins */
		assert_int_equal(pio_bus_read(&bus, 0x511, 1), 0);
	pio_bus_write(&bus, 0x511, 1, 1);
	pio_bus_write(&bus, 0x510, 1, 0); /* too narrow to select */
	assert_int_equal(pio_bus_read(&bus, 0x511, 1), 0);
}

static void test_exit(void **state)
{
	struct testdev t = { .exit = on_exit_port };
	struct pio_bus bus = { 0 };

	(void)state;
	testdev_init(&t);
	assert_int_equal(testdev_add_to(&t, &bus, NULL), 0);
	pio_bus_write(&bus, 0xf4, 1, 0);
	assert_int_equal(exit_status, 1);
	pio_bus_write(&bus, 0xf4, 4, 0x15);
	assert_int_equal(exit_status, 0x2b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fw_cfg),
		cmocka_unit_test(test_exit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
