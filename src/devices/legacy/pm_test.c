// SPDX-License-Identifier: MIT
/* The ways to power off and to reset, as Linux walks them; and the table of ports itself. */
#include "devices/legacy/pm.h"

#include <errno.h>
#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

struct board {
	struct pm pm;
	struct pio_bus bus;
	unsigned offs, resets;
};

static void board_off(void *context)
{
	struct board *b = context;

	b->offs++;
}

static void board_reset(void *context)
{
	struct board *b = context;

	b->resets++;
}

static void board_open(struct board *b)
{
	memset(b, 0, sizeof(*b));
	b->pm.power_off = board_off;
	b->pm.reset = board_reset;
	b->pm.context = b;
	pm_init(&b->pm);
	assert_int_equal(pm_add_to(&b->pm, &b->bus, NULL), 0);
}

static void test_sleep(void **state)
{
	struct board b;

	(void)state;
	board_open(&b);
	assert_int_equal(pio_bus_read(&b.bus, PM_SLEEP_STATUS_PORT, 1), 0);
	pio_bus_write(&b.bus, PM_SLEEP_STATUS_PORT, 1, 0x80);
	pio_bus_write(&b.bus, PM_SLEEP_CONTROL_PORT, 1, 5 << 2);        /* not enabled */
	pio_bus_write(&b.bus, PM_SLEEP_CONTROL_PORT, 1, 3 << 2 | 0x20); /* not S5 */
	assert_int_equal(b.offs, 0);
	pio_bus_write(&b.bus, PM_SLEEP_CONTROL_PORT, 1, 5 << 2 | 0x20);
	assert_int_equal(b.offs, 1);
	assert_int_equal(b.resets, 0);
}

static void test_resets(void **state)
{
	struct board b;

	(void)state;
	board_open(&b);
	pio_bus_write(&b.bus, PM_RESET_PORT, 1, 0);
	assert_int_equal(b.resets, 0);
	pio_bus_write(&b.bus, PM_RESET_PORT, 1, PM_RESET_VALUE);
	assert_int_equal(b.resets, 1);
	assert_int_equal(pio_bus_read(&b.bus, 0x64, 1) & 2, 0); /* Linux waits for this */
	pio_bus_write(&b.bus, 0x64, 1, 0xfe);
	assert_int_equal(b.resets, 2);
	pio_bus_write(&b.bus, 0xcf9, 1, 0x02);
	assert_int_equal(pio_bus_read(&b.bus, 0xcf9, 1), 0x02);
	assert_int_equal(b.resets, 2);
	pio_bus_write(&b.bus, 0xcf9, 1, 0x06);
	assert_int_equal(b.resets, 3);
	pio_bus_write(&b.bus, 0xcf9, 1, 0x06); /* no edge */
	assert_int_equal(b.resets, 3);
	pm_reset(&b.pm);
	pio_bus_write(&b.bus, 0xcf9, 1, 0x0e);
	assert_int_equal(b.resets, 4);
}

/* PCI configuration space would be at 0xcf8, four bytes wide: probing for it resets nothing. */
static void test_pci_probe_is_not_a_reset(void **state)
{
	struct board b;

	(void)state;
	board_open(&b);
	pio_bus_write(&b.bus, 0xcf8, 4, 0x80000400);
	assert_int_equal(pio_bus_read(&b.bus, 0xcf8, 4), 0xffffffff);
	assert_int_equal(b.resets, 0);
}

static void test_bus(void **state)
{
	struct pio_device many[PIO_BUS_MAX + 1],
		clash = { .name = "clash", .base = 2, .length = 8 };
	struct pio_bus bus = { 0 };
	struct error err = { 0 };

	(void)state;
	for (unsigned i = 0; i <= PIO_BUS_MAX; i++)
		many[i] = (struct pio_device){ .name = "many",
					       .base = (uint16_t)(8 * i),
					       .length = 8 };
	for (unsigned i = 0; i < PIO_BUS_MAX; i++)
		assert_int_equal(pio_bus_add(&bus, &many[i], &err), 0);
	assert_int_equal(pio_bus_add(&bus, &many[PIO_BUS_MAX], &err), -ENOSPC);
	assert_int_equal(pio_bus_add(&bus, &clash, &err), -EEXIST);
	assert_non_null(strstr(err.message, "clash"));
	assert_int_equal(pio_bus_read(&bus, 9, 2), 0xffff); /* claimed, but has no read */
	pio_bus_write(&bus, 9, 2, 0);
	assert_int_equal(pio_bus_read(&bus, 0xffff, 4), 0xffffffff);
	assert_int_equal(pio_bus_read(&bus, 0xffff, 1), 0xff);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sleep),
		cmocka_unit_test(test_resets),
		cmocka_unit_test(test_pci_probe_is_not_a_reset),
		cmocka_unit_test(test_bus),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
