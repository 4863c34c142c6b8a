// SPDX-License-Identifier: MIT
/* The serial port as drivers probe and use it: registers, interrupt order, FIFO, loopback. */
#include "devices/legacy/uart16550.h"

#include <setjmp.h>
#include <string.h>

#include <cmocka.h>

enum { DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR };
#define FCR IIR

struct port {
	struct uart *uart;
	struct pio_bus bus;
	bool irq;
	unsigned edges, drained;
	char out[64];
	size_t out_len;
};

static void port_irq(void *context, bool level)
{
	struct port *p = context;

	assert_true(level != p->irq); /* only changes are told */
	p->irq = level;
	p->edges += level;
}

static void port_output(void *context, const uint8_t *data, size_t len)
{
	struct port *p = context;

	assert_true(p->out_len + len <= sizeof(p->out));
	memcpy(p->out + p->out_len, data, len);
	p->out_len += len;
}

static void port_drained(void *context)
{
	struct port *p = context;

	p->drained++;
}

static void port_open(struct port *p)
{
	struct uart_config config = { .name = "COM1",
				      .base = UART_COM1,
				      .irq = port_irq,
				      .output = port_output,
				      .drained = port_drained,
				      .context = p };

	memset(p, 0, sizeof(*p));
	assert_int_equal(uart_new(&config, &p->uart, NULL), 0);
	assert_int_equal(pio_bus_add(&p->bus, uart_pio(p->uart), NULL), 0);
}

static uint8_t in(struct port *p, unsigned reg)
{
	return (uint8_t)pio_bus_read(&p->bus, (uint16_t)(UART_COM1 + reg), 1);
}

static void out(struct port *p, unsigned reg, uint8_t value)
{
	pio_bus_write(&p->bus, (uint16_t)(UART_COM1 + reg), 1, value);
}

static size_t feed(struct port *p, const char *text)
{
	return uart_receive(p->uart, (const uint8_t *)text, strlen(text));
}

/* The steps by which Linux (drivers/tty/serial/8250) decides that this is a 16550A. */
static void test_linux_probe(void **state)
{
	struct port p;

	(void)state;
	port_open(&p);
	out(&p, IER, 0);
	assert_int_equal(in(&p, IER) & 0x0f, 0);
	out(&p, IER, 0x0f);
	assert_int_equal(in(&p, IER) & 0x0f, 0x0f);
	out(&p, IER, 0);
	out(&p, MCR, 0x1a); /* loopback, OUT2, RTS */
	assert_int_equal(in(&p, MSR) & 0xf0, 0x90);
	out(&p, MCR, 0);
	out(&p, LCR, 0xbf); /* an EFR would be at FCR's place now */
	assert_int_not_equal(in(&p, FCR), 0);
	out(&p, LCR, 0);
	out(&p, FCR, 0x01);
	assert_int_equal(in(&p, IIR) >> 6, 3);
	out(&p, IER, 0x40); /* bit 6 sticks on an XScale */
	assert_int_equal(in(&p, IER), 0);
	out(&p, SCR, 0x5a);
	assert_int_equal(in(&p, SCR), 0x5a);
	out(&p, LCR, 0x80);
	out(&p, DATA, 1);
	out(&p, IER, 2);
	assert_int_equal(in(&p, DATA), 1);
	assert_int_equal(in(&p, IER), 2);
	out(&p, LCR, 3);
	assert_int_equal(in(&p, IER), 0);
	assert_int_equal(p.out_len, 0);
	uart_free(p.uart);
}

/* Linux's test for chips that do not raise the transmitter interrupt again. */
static void test_thre_reasserted(void **state)
{
	struct port p;

	(void)state;
	port_open(&p);
	out(&p, MCR, 0x08);
	out(&p, IER, 0x02);
	assert_true(p.irq);
	assert_int_equal(in(&p, IIR) & 0x0f, 0x02);
	assert_false(p.irq);
	assert_int_equal(in(&p, IIR) & 0x0f, 0x01);
	out(&p, IER, 0);
	out(&p, IER, 0x02);
	assert_int_equal(in(&p, IIR) & 0x0f, 0x02);
	out(&p, IER, 0x02); /* writing the same again raises nothing */
	assert_int_equal(in(&p, IIR) & 0x0f, 0x01);
	out(&p, DATA, 'a');
	assert_true(p.irq);
	assert_int_equal(in(&p, LSR), 0x60);
	assert_true(p.irq); /* only IIR, or writing data, answers */
	assert_int_equal(in(&p, IIR) & 0x0f, 0x02);
	assert_int_equal(p.out_len, 1);
	uart_free(p.uart);
}

static void test_interrupt_needs_out2(void **state)
{
	struct port p;

	(void)state;
	port_open(&p);
	out(&p, IER, 0x02);
	assert_false(p.irq);
	out(&p, MCR, 0x08);
	assert_true(p.irq);
	out(&p, MCR, 0x18); /* loopback cuts the outputs off */
	assert_false(p.irq);
	uart_free(p.uart);
}

static void test_receive_fifo(void **state)
{
	struct port p;

	(void)state;
	port_open(&p);
	out(&p, MCR, 0x08);
	out(&p, FCR, 0x81); /* FIFO, trigger at 8 */
	out(&p, IER, 0x01);
	assert_int_equal(feed(&p, "abc"), 3);
	assert_true(p.irq);
	assert_int_equal(in(&p, IIR), 0xcc); /* below the trigger: a timeout */
	assert_int_equal(feed(&p, "defgh"), 5);
	assert_int_equal(in(&p, IIR), 0xc4);
	assert_int_equal(feed(&p, "0123456789"), 8); /* backpressure, no overrun */
	assert_false(uart_can_receive(p.uart));
	assert_int_equal(p.drained, 0);
	assert_int_equal(in(&p, LSR), 0x61);
	assert_int_equal(in(&p, DATA), 'a');
	assert_int_equal(p.drained, 1);
	for (const char *s = "bcdefgh01234567"; *s; s++) {
		assert_true(p.irq);
		assert_int_equal(in(&p, DATA), *s);
	}
	assert_int_equal(p.drained, 1);
	assert_false(p.irq);
	assert_int_equal(in(&p, IIR), 0xc1);
	assert_int_equal(in(&p, LSR), 0x60);
	assert_int_equal(in(&p, DATA), 0);
	feed(&p, "xyz");
	out(&p, FCR, 0x03); /* clear */
	assert_int_equal(in(&p, LSR), 0x60);
	uart_free(p.uart);
}

static void test_receive_without_fifo(void **state)
{
	struct port p;

	(void)state;
	port_open(&p);
	assert_int_equal(feed(&p, "ab"), 1);
	assert_int_equal(in(&p, DATA), 'a');
	assert_int_equal(p.drained, 1);
	uart_free(p.uart);
}

static void test_interrupt_priority(void **state)
{
	struct port p;

	(void)state;
	port_open(&p);
	out(&p, MCR, 0x18); /* loopback */
	out(&p, DATA, 'a');
	out(&p, DATA, 'b'); /* one too many without the FIFO */
	out(&p, MCR, 0x1f);
	out(&p, IER, 0x0f);
	assert_int_equal(in(&p, IIR), 0x06);
	assert_int_equal(in(&p, LSR), 0x63);
	assert_int_equal(in(&p, IIR), 0x04);
	assert_int_equal(in(&p, DATA), 'a');
	assert_int_equal(in(&p, IIR), 0x02);
	assert_int_equal(in(&p, IIR), 0x00);
	assert_int_not_equal(in(&p, MSR) & 0x0f, 0);
	assert_int_equal(in(&p, IIR), 0x01);
	uart_free(p.uart);
}

static void test_loopback(void **state)
{
	struct port p;

	(void)state;
	port_open(&p);
	assert_int_equal(in(&p, MSR), 0xb0);
	out(&p, MCR, 0x14); /* OUT1 becomes RI; CTS, DSR and DCD fall */
	assert_int_equal(in(&p, MSR), 0x4b);
	assert_int_equal(in(&p, MSR), 0x40);
	out(&p, MCR, 0x10);
	assert_int_equal(in(&p, MSR), 0x04); /* RI's trailing edge */
	out(&p, FCR, 0x01);
	out(&p, DATA, 'x');
	assert_int_equal(p.out_len, 0);
	assert_int_equal(feed(&p, "no"), 0);
	assert_int_equal(in(&p, DATA), 'x');
	out(&p, MCR, 0x03);
	assert_int_equal(p.drained, 1);
	assert_int_equal(feed(&p, "yes"), 3);
	uart_reset(p.uart);
	assert_int_equal(in(&p, LSR), 0x60);
	assert_int_equal(in(&p, MCR), 0);
	uart_free(p.uart);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linux_probe),
		cmocka_unit_test(test_thre_reasserted),
		cmocka_unit_test(test_interrupt_needs_out2),
		cmocka_unit_test(test_receive_fifo),
		cmocka_unit_test(test_receive_without_fifo),
		cmocka_unit_test(test_interrupt_priority),
		cmocka_unit_test(test_loopback),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
