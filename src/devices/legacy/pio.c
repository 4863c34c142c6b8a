// SPDX-License-Identifier: MIT
/* The table of port devices. See pio.h for threads and locks. */
#include "devices/legacy/pio.h"

#include <errno.h>

static uint32_t size_mask(unsigned size)
{
	return size >= 4 ? UINT32_MAX : BIT(8 * size) - 1;
}

static struct pio_device *device_at(const struct pio_bus *bus, uint16_t port)
{
	for (unsigned i = 0; i < bus->count; i++) {
		struct pio_device *d = bus->devices[i];

		if (port >= d->base && port - d->base < d->length)
			return d;
	}
	return NULL;
}

int pio_bus_add(struct pio_bus *bus, struct pio_device *d, struct error *err)
{
	for (unsigned i = 0; i < bus->count; i++) {
		const struct pio_device *o = bus->devices[i];

		if (d->base < o->base + o->length && o->base < d->base + d->length)
			return error_set(err, -EEXIST, "ports 0x%x of %s and 0x%x of %s overlap",
					 d->base, d->name, o->base, o->name);
	}
	if (bus->count == PIO_BUS_MAX)
		return error_set(err, -ENOSPC, "no room for ports of %s: there are %d devices",
				 d->name, PIO_BUS_MAX);
	bus->devices[bus->count++] = d;
	return 0;
}

uint32_t pio_bus_read(const struct pio_bus *bus, uint16_t port, unsigned size)
{
	struct pio_device *d = device_at(bus, port);
	uint32_t value = UINT32_MAX;

	if (d && d->read)
		value = d->read(d, (uint16_t)(port - d->base), size);
	return value & size_mask(size);
}

void pio_bus_write(const struct pio_bus *bus, uint16_t port, unsigned size, uint32_t value)
{
	struct pio_device *d = device_at(bus, port);

	if (d && d->write)
		d->write(d, (uint16_t)(port - d->base), size, value & size_mask(size));
}
