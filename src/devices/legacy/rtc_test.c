// SPDX-License-Identifier: MIT
/* The clock under a scripted host clock: reading, setting, both number formats, flags. */
#include "devices/legacy/rtc.h"

#include <setjmp.h>

#include <cmocka.h>

#define SECOND INT64_C(1000000000)
#define START  INT64_C(1719792000) /* 2024-07-01 00:00:00 UTC, a Monday */

struct clock {
	struct rtc *rtc;
	struct pio_bus bus;
	int64_t now;
};

static int64_t clock_now(void *context)
{
	struct clock *c = context;

	return c->now;
}

static void clock_open(struct clock *c, int64_t offset)
{
	struct rtc_config config = { .offset = offset, .now = clock_now, .context = c };

	*c = (struct clock){ .now = START * SECOND };
	assert_int_equal(rtc_new(&config, &c->rtc, NULL), 0);
	assert_int_equal(pio_bus_add(&c->bus, rtc_pio(c->rtc), NULL), 0);
}

static uint8_t get(struct clock *c, uint8_t index)
{
	pio_bus_write(&c->bus, 0x70, 1, index);
	return (uint8_t)pio_bus_read(&c->bus, 0x71, 1);
}

static void set(struct clock *c, uint8_t index, uint8_t value)
{
	pio_bus_write(&c->bus, 0x70, 1, index);
	pio_bus_write(&c->bus, 0x71, 1, value);
}

static void time_is(struct clock *c, const uint8_t fields[8])
{
	static const uint8_t index[8] = { 0x32, 9, 8, 7, 6, 4, 2, 0 };

	for (size_t i = 0; i < ARRAY_SIZE(index); i++)
		assert_int_equal(get(c, index[i]), fields[i]);
}

static void test_time(void **state)
{
	struct clock c;

	(void)state;
	clock_open(&c, 0);
	time_is(&c, (uint8_t[]){ 0x20, 0x24, 0x07, 0x01, 2, 0, 0, 0 });
	c.now += (13 * 3600 + 37 * 60 + 59) * SECOND;
	time_is(&c, (uint8_t[]){ 0x20, 0x24, 0x07, 0x01, 2, 0x13, 0x37, 0x59 });
	set(&c, 0x0b, 0x06); /* binary */
	time_is(&c, (uint8_t[]){ 20, 24, 7, 1, 2, 13, 37, 59 });
	assert_int_equal(get(&c, 0x0b), 0x06);
	set(&c, 0x0b, 0x01); /* 12 hours, daylight saving: not here */
	assert_int_equal(get(&c, 0x0b), 0x02);
	assert_int_equal(get(&c, 0x8d), 0x80); /* bit 7 of the index masks NMIs */
	rtc_free(c.rtc);
}

static void test_offset(void **state)
{
	struct clock c;

	(void)state;
	clock_open(&c, -86400);
	time_is(&c, (uint8_t[]){ 0x20, 0x24, 0x06, 0x30, 1, 0, 0, 0 });
	assert_int_equal(rtc_offset(c.rtc), -86400);
	rtc_free(c.rtc);
}

static void test_set(void **state)
{
	struct clock c;

	(void)state;
	clock_open(&c, 0);
	set(&c, 0x0b, 0x82);
	set(&c, 0x32, 0x19);
	set(&c, 9, 0x99);
	set(&c, 8, 0x12);
	set(&c, 7, 0x31);
	set(&c, 4, 0x23);
	set(&c, 2, 0x59);
	set(&c, 0, 0x59);
	c.now += 10 * SECOND; /* stands still meanwhile */
	assert_int_equal(get(&c, 0), 0x59);
	set(&c, 0x0b, 0x02);
	time_is(&c, (uint8_t[]){ 0x19, 0x99, 0x12, 0x31, 6, 0x23, 0x59, 0x59 });
	c.now += SECOND;
	time_is(&c, (uint8_t[]){ 0x20, 0x00, 0x01, 0x01, 7, 0, 0, 0 });
	assert_int_equal(rtc_offset(c.rtc), 946684800 - START - 11);
	set(&c, 2, 0x30); /* also while it runs */
	time_is(&c, (uint8_t[]){ 0x20, 0x00, 0x01, 0x01, 7, 0, 0x30, 0 });
	rtc_free(c.rtc);
}

static void test_update_in_progress(void **state)
{
	struct clock c;

	(void)state;
	clock_open(&c, 0);
	assert_int_equal(get(&c, 0x0a), 0x26);
	c.now += SECOND - 100000;
	assert_int_equal(get(&c, 0x0a), 0xa6);
	assert_int_equal(get(&c, 0), 0);
	c.now += 100000;
	assert_int_equal(get(&c, 0x0a), 0x26);
	assert_int_equal(get(&c, 0), 1);
	rtc_free(c.rtc);
}

static void test_update_flag(void **state)
{
	struct clock c;

	(void)state;
	clock_open(&c, 0);
	assert_int_equal(get(&c, 0x0c), 0);
	c.now += SECOND;
	assert_int_equal(get(&c, 0x0c), 0x10);
	assert_int_equal(get(&c, 0x0c), 0);
	set(&c, 0x0b, 0x12);
	c.now += 3 * SECOND;
	assert_int_equal(get(&c, 0x0c), 0x90);
	rtc_free(c.rtc);
}

static void test_cmos(void **state)
{
	struct clock c;

	(void)state;
	clock_open(&c, 0);
	set(&c, 0x7f, 0xa5);
	set(&c, 0x0f, 0x5a);
	set(&c, 0x0d, 0);
	rtc_reset(c.rtc);
	assert_int_equal(get(&c, 0x7f), 0xa5);
	assert_int_equal(get(&c, 0x0f), 0x5a);
	assert_int_equal(get(&c, 0x0d), 0x80);
	rtc_free(c.rtc);
}

/* Whatever is written anywhere, the clock gives some date and goes on. */
static void test_nonsense(void **state)
{
	struct clock c;

	(void)state;
	clock_open(&c, 0);
	for (unsigned value = 0; value < 256; value++) {
		for (unsigned index = 0; index < 128; index++) {
			set(&c, (uint8_t)index, (uint8_t)value);
			(void)get(&c, (uint8_t)index);
		}
		c.now += SECOND / 3;
	}
	set(&c, 0x0b, 0x02);
	assert_true(get(&c, 0) <= 0x59);
	rtc_free(c.rtc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_time),        cmocka_unit_test(test_offset),
		cmocka_unit_test(test_set),         cmocka_unit_test(test_update_in_progress),
		cmocka_unit_test(test_update_flag), cmocka_unit_test(test_cmos),
		cmocka_unit_test(test_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
