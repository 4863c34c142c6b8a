/* SPDX-License-Identifier: MIT */
/*
 * Devices behind x86 I/O ports, and the table that finds them. Reads and writes come from VP
 * threads, several at once: a device with state has its own lock. The table is filled before VPs
 * run and does not change afterwards, so that looking up needs none.
 *
 * Locks are taken in this order: a device's, the I/O APIC's, the engine's. Callbacks out of a
 * device are made with its lock held, so that what they tell keeps its order; they must not call
 * back.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#define PIO_BUS_MAX 32

struct pio_device {
	const char *name;
	uint16_t base, length;
	/* `size` is 1, 2 or 4; offset + size may reach beyond `length`. */
	uint32_t (*read)(struct pio_device *d, uint16_t offset, unsigned size);
	void (*write)(struct pio_device *d, uint16_t offset, unsigned size, uint32_t value);
};

struct pio_bus {
	struct pio_device *devices[PIO_BUS_MAX]; /* borrowed */
	unsigned count;
};

/* -EEXIST when its ports overlap another's, -ENOSPC when the table is full; the error names both.
 */
int pio_bus_add(struct pio_bus *bus, struct pio_device *d, struct error *err) _must_check_;
/*
 * An access belongs to the device that has its first port (0xcf8, four bytes, is not the reset
 * register at 0xcf9). What nobody claims reads as all ones and swallows writes.
 */
uint32_t pio_bus_read(const struct pio_bus *bus, uint16_t port, unsigned size);
void pio_bus_write(const struct pio_bus *bus, uint16_t port, unsigned size, uint32_t value);
