// SPDX-License-Identifier: MIT
/* The legacy devices saved and restored: the same registers, and no interrupt too many. */
#include "devices/legacy/ioapic.h"
#include "devices/legacy/pm.h"
#include "devices/legacy/rtc.h"
#include "devices/legacy/uart16550.h"
#include "save/save.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

struct board {
	struct pio_bus bus;
	struct ioapic *ioapic;
	struct uart *uart;
	struct rtc *rtc;
	struct pm pm;
	unsigned delivered, routed, resets;
};

static void deliver(void *context, uint64_t address, uint32_t data)
{
	(void)address, (void)data;
	((struct board *)context)->delivered++;
}

static void route(void *context, unsigned pin, uint64_t address, uint32_t data)
{
	(void)pin, (void)address, (void)data;
	((struct board *)context)->routed++;
}

static void irq(void *context, bool level)
{
	ioapic_set_line(((struct board *)context)->ioapic, UART_COM1_GSI, level);
}

static void output(void *context, const uint8_t *data, size_t len)
{
	(void)context, (void)data, (void)len;
}

static void reset(void *context)
{
	((struct board *)context)->resets++;
}

static int64_t now(void *context)
{
	(void)context;
	return INT64_C(1700000000) * 1000000000;
}

static void board_open(struct board *b)
{
	const struct ioapic_config ic = { .deliver = deliver, .route = route, .context = b };
	const struct uart_config uc = {
		.name = "COM1", .base = UART_COM1, .irq = irq, .output = output, .context = b
	};
	const struct rtc_config rc = { .now = now };

	memset(b, 0, sizeof(*b));
	assert_int_equal(ioapic_new(&ic, &b->ioapic, NULL), 0);
	assert_int_equal(uart_new(&uc, &b->uart, NULL), 0);
	assert_int_equal(rtc_new(&rc, &b->rtc, NULL), 0);
	pm_init(&b->pm);
	b->pm.reset = reset;
	b->pm.context = b;
	assert_int_equal(pio_bus_add(&b->bus, uart_pio(b->uart), NULL), 0);
	assert_int_equal(pio_bus_add(&b->bus, rtc_pio(b->rtc), NULL), 0);
	assert_int_equal(pm_add_to(&b->pm, &b->bus, NULL), 0);
}

static void board_close(struct board *b)
{
	ioapic_free(b->ioapic);
	uart_free(b->uart);
	rtc_free(b->rtc);
}

static void out(struct board *b, unsigned port, uint8_t value)
{
	pio_bus_write(&b->bus, (uint16_t)port, 1, value);
}

static uint8_t in(struct board *b, unsigned port)
{
	return (uint8_t)pio_bus_read(&b->bus, (uint16_t)port, 1);
}

static struct save_writer *save(struct board *b)
{
	struct save_writer *w;

	assert_int_equal(save_writer_new(&w, NULL), 0);
	ioapic_save(b->ioapic, w);
	uart_save(b->uart, w);
	rtc_save(b->rtc, w);
	pm_save(&b->pm, w);
	assert_int_equal(save_writer_check(w, NULL), 0);
	return w;
}

static void restore(struct board *b, const struct save_writer *w)
{
	struct save_reader *r;
	const void *data;
	size_t size;

	data = save_writer_bytes(w, &size);
	assert_int_equal(save_reader_of(data, size, &r, NULL), 0);
	assert_int_equal(ioapic_restore(b->ioapic, r, NULL), 0);
	assert_int_equal(uart_restore(b->uart, r, NULL), 0);
	assert_int_equal(rtc_restore(b->rtc, r, NULL), 0);
	assert_int_equal(pm_restore(&b->pm, r, NULL), 0);
	assert_int_equal(save_reader_finish(r, NULL), 0);
	save_reader_free(r);
}

/* A guest in the middle of things: a level interrupt that it has not ended, input not read. */
static void use(struct board *b)
{
	ioapic_write(b->ioapic, 0, 4, 0x10 + 2 * UART_COM1_GSI);
	ioapic_write(b->ioapic, 0x10, 4, 0x8000 | 0x35); /* level, vector 0x35 */
	out(b, UART_COM1 + 2, 0xc1);
	out(b, UART_COM1 + 4, 0x0b);
	out(b, UART_COM1 + 1, 1);
	out(b, UART_COM1 + 7, 0x5a);
	assert_int_equal(uart_receive(b->uart, (const uint8_t *)"abcd", 4), 4);
	assert_int_equal(in(b, UART_COM1), 'a');
	assert_int_equal(b->delivered, 1);
	out(b, 0x70, 0x20);
	out(b, 0x71, 0x77); /* CMOS memory */
	out(b, 0x70, 0x0b);
	out(b, 0x71, 0x82); /* the clock stands still */
	out(b, 0x70, 4);
	out(b, 0x71, 0x15);
	out(b, 0xcf9, 0x02);
}

static void test_everything_comes_back(void **state)
{
	struct board a, b;
	struct save_writer *w, *again;
	size_t size, size_again;
	const void *bytes, *bytes_again;

	(void)state;
	board_open(&a);
	board_open(&b);
	use(&a);
	w = save(&a);
	restore(&b, w);
	assert_int_equal(b.delivered, 0); /* it was, before */
	assert_int_equal(b.routed, 1);
	again = save(&b);
	bytes = save_writer_bytes(w, &size);
	bytes_again = save_writer_bytes(again, &size_again);
	assert_int_equal(size, size_again);
	assert_memory_equal(bytes, bytes_again, size);
	save_writer_free(again);
	save_writer_free(w);

	for (const char *p = "bcd"; *p; p++)
		assert_int_equal(in(&b, UART_COM1), *p);
	ioapic_eoi(b.ioapic, 0x35);
	assert_int_equal(b.delivered, 0);
	assert_int_equal(uart_receive(b.uart, (const uint8_t *)"e", 1), 1);
	assert_int_equal(b.delivered, 1);
	uart_hold(b.uart, true);
	assert_int_equal(uart_receive(b.uart, (const uint8_t *)"f", 1), 0);
	uart_hold(b.uart, false);
	assert_int_equal(uart_receive(b.uart, (const uint8_t *)"f", 1), 1);
	assert_int_equal(in(&b, UART_COM1 + 7), 0x5a);
	assert_int_equal(in(&b, 0x71), 0x15);
	out(&b, 0x70, 0x20);
	assert_int_equal(in(&b, 0x71), 0x77);
	assert_int_equal(in(&b, 0xcf9), 0x02);
	out(&b, 0xcf9, 0x06);
	assert_int_equal(b.resets, 1);
	board_close(&a);
	board_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_everything_comes_back) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
