// SPDX-License-Identifier: MIT
/*
 * Power management ports (ACPI 4.8.3.6, 4.8.3.7). Used from VP threads; the only state is one byte.
 * The callbacks tell the machine, which stops the VPs in its own time: until then a guest may write
 * again.
 */
#include "devices/legacy/pm.h"

#include "save/save.h"

enum {
	ACPI_SLEEP_CONTROL,
	ACPI_SLEEP_STATUS,
	ACPI_RESET,
	ACPI_COUNT,
};

/* ACPI 4.8.3.7, table 4.19: sleep control register */
#define SLEEP_TYPE(v) ((v) >> 2 & 7)
#define SLEEP_ENABLE  BIT(5)

#define KEYBOARD_PORT        0x64
#define KEYBOARD_PULSE_RESET 0xfe /* 8042: pulse output line 0, which is the processor's reset */

#define CF9_PORT      0xcf9
#define CF9_RESET_CPU BIT(2) /* its rising edge resets; bits 1 and 3 say how thoroughly */
#define CF9_MASK      0x0e

/* Nothing is ever asleep here, so no register has anything to say. */
static uint32_t pm_read_zero(struct pio_device *d, uint16_t offset, unsigned size)
{
	(void)d, (void)offset, (void)size;
	return 0;
}

static void acpi_write(struct pio_device *d, uint16_t offset, unsigned size, uint32_t value)
{
	struct pm *pm = container_of(d, struct pm, acpi);

	(void)size;
	value &= 0xff;
	if (offset == ACPI_SLEEP_CONTROL && value & SLEEP_ENABLE &&
	    SLEEP_TYPE(value) == PM_SLEEP_TYPE_OFF)
		pm->power_off(pm->context);
	if (offset == ACPI_RESET && value == PM_RESET_VALUE)
		pm->reset(pm->context);
}

/* Its status register reads as zero: ready for a command, nothing to fetch. */
static void keyboard_write(struct pio_device *d, uint16_t offset, unsigned size, uint32_t value)
{
	struct pm *pm = container_of(d, struct pm, keyboard);

	(void)offset, (void)size;
	if ((value & 0xff) == KEYBOARD_PULSE_RESET)
		pm->reset(pm->context);
}

static uint32_t cf9_read(struct pio_device *d, uint16_t offset, unsigned size)
{
	struct pm *pm = container_of(d, struct pm, cf9);

	(void)offset, (void)size;
	return atomic_load(&pm->cf9_value);
}

static void cf9_write(struct pio_device *d, uint16_t offset, unsigned size, uint32_t value)
{
	struct pm *pm = container_of(d, struct pm, cf9);
	uint8_t old = atomic_exchange(&pm->cf9_value, (uint8_t)(value & CF9_MASK));

	(void)offset, (void)size;
	if (value & CF9_RESET_CPU && !(old & CF9_RESET_CPU))
		pm->reset(pm->context);
}

void pm_reset(struct pm *pm)
{
	atomic_store(&pm->cf9_value, 0);
}

void pm_init(struct pm *pm)
{
	pm->acpi = (struct pio_device){
		.name = "acpi",
		.base = PM_PORT,
		.length = ACPI_COUNT,
		.read = pm_read_zero,
		.write = acpi_write,
	};
	pm->keyboard = (struct pio_device){
		.name = "keyboard reset",
		.base = KEYBOARD_PORT,
		.length = 1,
		.read = pm_read_zero,
		.write = keyboard_write,
	};
	pm->cf9 = (struct pio_device){
		.name = "reset control",
		.base = CF9_PORT,
		.length = 1,
		.read = cf9_read,
		.write = cf9_write,
	};
	pm_reset(pm);
}

/* --- saved state --- */

struct saved_pm {
	uint8_t cf9;
};

static const struct save_field pm_fields[] = { SAVE_FIELD(struct saved_pm, cf9) };
static const struct save_table pm_table = SAVE_TABLE("pm", 1, struct saved_pm, pm_fields);

void pm_save(struct pm *pm, struct save_writer *w)
{
	const struct saved_pm s = { pm->cf9_value };

	save_put(w, &pm_table, &s);
}

int pm_restore(struct pm *pm, struct save_reader *r, struct error *err)
{
	struct saved_pm s;
	int n = save_get(r, &pm_table, &s, err);

	if (n >= 0)
		pm->cf9_value = s.cf9 & CF9_MASK;
	return n;
}

int pm_add_to(struct pm *pm, struct pio_bus *bus, struct error *err)
{
	int r = pio_bus_add(bus, &pm->acpi, err);

	if (!r)
		r = pio_bus_add(bus, &pm->keyboard, err);
	if (!r)
		r = pio_bus_add(bus, &pm->cf9, err);
	return r;
}
