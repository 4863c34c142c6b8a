/* SPDX-License-Identifier: MIT */
/* A 16550A serial port: COM1 and COM2, the guest's console. */
#pragma once

#include "devices/legacy/pio.h"

#define UART_COM1     0x3f8
#define UART_COM2     0x2f8
#define UART_COM1_GSI 4
#define UART_COM2_GSI 3
#define UART_FIFO     16u

struct uart;
struct save_writer; /* save/save.h */
struct save_reader;

/* The callbacks are made with the port's lock held, from VP threads or from uart_receive's caller.
 */
struct uart_config {
	const char *name;
	uint16_t base;
	void (*irq)(void *context, bool level);
	void (*output)(void *context, const uint8_t *data, size_t len);
	void (*drained)(void *context); /* there is room for input again; may be NULL */
	void *context;
};

int uart_new(const struct uart_config *config, struct uart **ret, struct error *err) _must_check_;
void uart_free(struct uart *u); /* NULL is fine */
void uart_reset(struct uart *u);
/* While no VP runs, and in a scope of its own: a machine has several. */
void uart_save(struct uart *u, struct save_writer *w);
int uart_restore(struct uart *u, struct save_reader *r, struct error *err) _must_check_;
struct pio_device *uart_pio(struct uart *u); /* borrowed */

/* Any thread. Returns how many of the bytes were taken; `drained` tells when to offer the rest. */
size_t uart_receive(struct uart *u, const uint8_t *data, size_t len);
bool uart_can_receive(struct uart *u);
/* While held it takes no input; what others want to send waits with them. Any thread. */
void uart_hold(struct uart *u, bool held);
