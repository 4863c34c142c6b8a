// SPDX-License-Identifier: MIT
/* The I/O APIC: registers, edges and levels, masks, ends of interrupts, messages and routes. */
#include "devices/legacy/ioapic.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

struct chip {
	struct ioapic *a;
	unsigned delivered, routed;
	uint64_t address, route_address;
	uint32_t data, route_data;
	unsigned route_pin;
};

static void chip_deliver(void *context, uint64_t address, uint32_t data)
{
	struct chip *c = context;

	c->delivered++;
	c->address = address;
	c->data = data;
}

static void chip_route(void *context, unsigned pin, uint64_t address, uint32_t data)
{
	struct chip *c = context;

	c->routed++;
	c->route_pin = pin;
	c->route_address = address;
	c->route_data = data;
}

static void chip_open(struct chip *c)
{
	struct ioapic_config config = { .deliver = chip_deliver,
					.route = chip_route,
					.context = c };

	memset(c, 0, sizeof(*c));
	assert_int_equal(ioapic_new(&config, &c->a, NULL), 0);
}

static uint32_t get(struct chip *c, uint8_t reg)
{
	ioapic_write(c->a, 0, 4, reg);
	return (uint32_t)ioapic_read(c->a, 0x10, 4);
}

static void set(struct chip *c, uint8_t reg, uint32_t value)
{
	ioapic_write(c->a, 0, 4, reg);
	ioapic_write(c->a, 0x10, 4, value);
}

static void pin_set(struct chip *c, unsigned pin, uint32_t high, uint32_t low)
{
	set(c, (uint8_t)(0x11 + 2 * pin), high);
	set(c, (uint8_t)(0x10 + 2 * pin), low);
}

static void test_registers(void **state)
{
	struct chip c;

	(void)state;
	chip_open(&c);
	assert_int_equal(get(&c, 1), 0x00170020);
	set(&c, 0, UINT32_MAX);
	assert_int_equal(get(&c, 0), 0x0f000000);
	set(&c, 1, 0);
	assert_int_equal(get(&c, 1), 0x00170020);
	for (uint8_t reg = 0x10; reg < 0x40; reg++) {
		assert_int_equal(get(&c, reg), reg & 1 ? 0 : 0x10000);
		set(&c, reg, UINT32_MAX);
		assert_int_equal(get(&c, reg), reg & 1 ? 0xff000000 : 0x1afff);
	}
	assert_int_equal(get(&c, 0x40), 0);
	set(&c, 0xff, UINT32_MAX);
	assert_int_equal(ioapic_read(c.a, 0x20, 4), 0);
	ioapic_write(c.a, 0xffc, 8, UINT64_MAX);
	assert_int_equal(c.delivered, 0);
	ioapic_free(c.a);
}

static void test_edge(void **state)
{
	struct chip c;

	(void)state;
	chip_open(&c);
	pin_set(&c, 4, 0x03000000, 0x0831); /* vector 0x31, logical, to 3 */
	ioapic_set_line(c.a, 4, true);
	assert_int_equal(c.delivered, 1);
	assert_int_equal(c.address, 0xfee03004);
	assert_int_equal(c.data, 0x31);
	ioapic_set_line(c.a, 4, true);
	assert_int_equal(c.delivered, 1);
	ioapic_set_line(c.a, 4, false);
	ioapic_set_line(c.a, 4, true);
	assert_int_equal(c.delivered, 2);
	ioapic_eoi(c.a, 0x31);
	assert_int_equal(c.delivered, 2);
	assert_int_equal(c.routed, 0);
	ioapic_set_line(c.a, 24, true);
	ioapic_free(c.a);
}

static void test_edge_while_masked(void **state)
{
	struct chip c;

	(void)state;
	chip_open(&c);
	pin_set(&c, 4, 0, 0x10031);
	ioapic_set_line(c.a, 4, true);
	ioapic_set_line(c.a, 4, false);
	assert_int_equal(c.delivered, 0);
	pin_set(&c, 4, 0, 0x31);
	assert_int_equal(c.delivered, 1);
	pin_set(&c, 4, 0, 0x31);
	assert_int_equal(c.delivered, 1);
	ioapic_free(c.a);
}

static void test_level(void **state)
{
	struct chip c;

	(void)state;
	chip_open(&c);
	pin_set(&c, 9, 0x01000000, 0x8140); /* vector 0x40, lowest priority, level */
	assert_int_equal(c.routed, 1);
	assert_int_equal(c.route_pin, 9);
	assert_int_equal(c.route_address, 0xfee01000);
	assert_int_equal(c.route_data, 0xc140);
	ioapic_set_line(c.a, 9, true);
	assert_int_equal(c.delivered, 1);
	assert_int_equal(c.data, 0xc140);
	assert_int_equal(get(&c, 0x22), 0xc140); /* remote IRR */
	ioapic_set_line(c.a, 9, true);
	ioapic_eoi(c.a, 0x41);
	assert_int_equal(c.delivered, 1);
	ioapic_eoi(c.a, 0x40); /* still high: again */
	assert_int_equal(c.delivered, 2);
	ioapic_set_line(c.a, 9, false);
	ioapic_write(c.a, 0x40, 4, 0x40); /* the EOI register does the same */
	assert_int_equal(c.delivered, 2);
	assert_int_equal(get(&c, 0x22), 0x8140);
	ioapic_free(c.a);
}

static void test_level_masked(void **state)
{
	struct chip c;

	(void)state;
	chip_open(&c);
	pin_set(&c, 9, 0, 0x18040);
	ioapic_set_line(c.a, 9, true);
	assert_int_equal(c.delivered, 0);
	assert_int_equal(c.routed, 0);
	pin_set(&c, 9, 0, 0x8040);
	assert_int_equal(c.delivered, 1);
	set(&c, 0x22, 0x18040); /* masked in service: the end comes, the next waits */
	assert_int_equal(c.route_address | c.route_data, 0);
	ioapic_eoi(c.a, 0x40);
	assert_int_equal(c.delivered, 1);
	set(&c, 0x22, 0x8040);
	assert_int_equal(c.delivered, 2);
	set(&c, 0x22, 0x10040); /* edge: the interrupt in service is forgotten */
	assert_int_equal(get(&c, 0x22), 0x10040);
	ioapic_free(c.a);
}

static void test_delivery_modes(void **state)
{
	struct chip c;

	(void)state;
	chip_open(&c);
	pin_set(&c, 1, 0, 0x400); /* NMI */
	ioapic_set_line(c.a, 1, true);
	assert_int_equal(c.data, 0x400);
	pin_set(&c, 2, 0, 0x700); /* ExtINT: no 8259 to ask */
	ioapic_set_line(c.a, 2, true);
	assert_int_equal(c.delivered, 1);
	ioapic_free(c.a);
}

static void test_reset(void **state)
{
	struct chip c;

	(void)state;
	chip_open(&c);
	pin_set(&c, 9, 0, 0x8040);
	ioapic_set_line(c.a, 9, true);
	ioapic_reset(c.a);
	assert_int_equal(c.routed, 2);
	assert_int_equal(c.route_address | c.route_data, 0);
	assert_int_equal(get(&c, 0x22), 0x10000);
	pin_set(&c, 9, 0, 0x8050); /* the line is still high */
	assert_int_equal(c.delivered, 2);
	ioapic_free(c.a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers),
		cmocka_unit_test(test_edge),
		cmocka_unit_test(test_edge_while_masked),
		cmocka_unit_test(test_level),
		cmocka_unit_test(test_level_masked),
		cmocka_unit_test(test_delivery_modes),
		cmocka_unit_test(test_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
