// SPDX-License-Identifier: MIT
/* See platform.h: the wiring between the legacy devices, the partition, the consoles and the
 * machine. It has no state of its own beyond who is connected to whom. */
#include "worker/platform.h"

#include "devices/legacy/ioapic.h"
#include "devices/legacy/pm.h"
#include "devices/legacy/rtc.h"
#include "devices/legacy/testdev.h"
#include "devices/legacy/uart16550.h"
#include "firmware/acpi.h"
#include "lib/cleanup.h"
#include "save/save.h"
#include "worker/machine.h"
#include "worker/synic_test.h"

#include <errno.h>
#include <string.h>

#define RESET_VECTOR UINT64_C(0xffff0) /* the last 16 bytes of the first MiB */

struct serial {
	struct platform *platform;
	struct uart *uart;
	struct console *console;
	unsigned pin;
};

struct platform {
	struct machine *machine;
	struct partition *partition;
	const struct memmap *map;
	struct pio_bus bus;
	struct ioapic *ioapic;
	struct rtc *rtc;
	struct pm pm;
	struct serial serial[2];
	bool test_devices;
	struct testdev testdev;
	struct synic_test *synic_test;
};

/* --- exits --- */

void platform_pio(struct platform *p, uint16_t port, unsigned size, bool write, void *data)
{
	uint32_t value = 0;

	if (write) {
		memcpy(&value, data, size);
		pio_bus_write(&p->bus, port, size, value);
		return;
	}
	value = pio_bus_read(&p->bus, port, size);
	memcpy(data, &value, size);
}

void platform_mmio(struct platform *p, uint64_t gpa, unsigned size, bool write, uint8_t *data)
{
	uint64_t value = UINT64_MAX;
	bool ioapic = gpa >= IOAPIC_BASE && gpa - IOAPIC_BASE <= IOAPIC_SIZE - size;

	if (write && ioapic) {
		value = 0;
		memcpy(&value, data, size);
		ioapic_write(p->ioapic, gpa - IOAPIC_BASE, size, value);
	} else if (!write) {
		if (ioapic)
			value = ioapic_read(p->ioapic, gpa - IOAPIC_BASE, size);
		memcpy(data, &value, size);
	}
}

void platform_ioapic_eoi(struct platform *p, uint8_t vector)
{
	ioapic_eoi(p->ioapic, vector);
}

/* --- wires --- */

static void wire_interrupt(void *context, uint64_t address, uint32_t data)
{
	struct engine_partition *e = partition_engine(((struct platform *)context)->partition);

	(void)e->engine->interrupt(e, address, data);
}

static void wire_route(void *context, unsigned pin, uint64_t address, uint32_t data)
{
	struct engine_partition *e = partition_engine(((struct platform *)context)->partition);

	(void)e->engine->ioapic_route(e, pin, address, data);
}

static void wire_serial_irq(void *context, bool level)
{
	struct serial *s = context;

	ioapic_set_line(s->platform->ioapic, s->pin, level);
}

static void wire_serial_output(void *context, const uint8_t *data, size_t len)
{
	console_output(((struct serial *)context)->console, data, len);
}

static void wire_serial_drained(void *context)
{
	console_resume(((struct serial *)context)->console);
}

static size_t wire_serial_input(void *context, const uint8_t *data, size_t size)
{
	return uart_receive(((struct serial *)context)->uart, data, size);
}

static void wire_power_off(void *context)
{
	machine_request(((struct platform *)context)->machine, REQUEST_POWER_OFF);
}

static void wire_reset(void *context)
{
	machine_request(((struct platform *)context)->machine, REQUEST_RESET);
}

static void wire_test_exit(void *context, int status)
{
	machine_test_exit(((struct platform *)context)->machine, status);
}

/* --- building --- */

static int build_serial(struct loop *loop, struct serial *s, const struct console_options *o,
			bool second, struct error *err)
{
	const struct uart_config config = {
		.name = second ? "COM2" : "COM1",
		.base = second ? UART_COM2 : UART_COM1,
		.irq = wire_serial_irq,
		.output = wire_serial_output,
		.drained = wire_serial_drained,
		.context = s,
	};
	struct console_options options = *o;
	int r;

	s->pin = second ? UART_COM2_GSI : UART_COM1_GSI;
	options.input = wire_serial_input;
	options.context = s;
	r = console_new(loop, &options, &s->console, err);
	if (r >= 0)
		r = uart_new(&config, &s->uart, err);
	return r < 0 ? r : pio_bus_add(&s->platform->bus, uart_pio(s->uart), err);
}

static int build_test_devices(struct platform *p, struct error *err)
{
	int r;

	testdev_init(&p->testdev);
	p->testdev.exit = wire_test_exit;
	p->testdev.context = p;
	p->testdev.ram_size = p->map->ram_size;
	p->testdev.cpus = (uint16_t)partition_vp_count(p->partition);
	r = testdev_add_to(&p->testdev, &p->bus, err);
	if (r >= 0)
		r = synic_test_new(p->partition, &p->synic_test, err);
	return r < 0 ? r : pio_bus_add(&p->bus, synic_test_pio(p->synic_test), err);
}

static int build(struct loop *loop, struct platform *p, const struct platform_options *o,
		 struct error *err)
{
	const struct ioapic_config ioapic = { .deliver = wire_interrupt,
					      .route = wire_route,
					      .context = p };
	const struct rtc_config rtc = { 0 };
	int r = ioapic_new(&ioapic, &p->ioapic, err);

	if (r >= 0)
		r = rtc_new(&rtc, &p->rtc, err);
	if (r >= 0)
		r = pio_bus_add(&p->bus, rtc_pio(p->rtc), err);
	pm_init(&p->pm);
	p->pm.power_off = wire_power_off;
	p->pm.reset = wire_reset;
	p->pm.context = p;
	if (r >= 0)
		r = pm_add_to(&p->pm, &p->bus, err);
	for (int i = 0; i < 2 && r >= 0; i++) {
		p->serial[i].platform = p;
		if (i == 0 || o->serial[i].kind != CONSOLE_NONE)
			r = build_serial(loop, &p->serial[i], &o->serial[i], i, err);
	}
	if (r >= 0 && o->test_devices)
		r = build_test_devices(p, err);
	return r;
}

int platform_new(struct loop *loop, const struct platform_options *o, struct platform **ret,
		 struct error *err)
{
	struct platform *p = calloc(1, sizeof(*p));
	int r;

	if (!p)
		return error_set(err, -ENOMEM, "out of memory");
	p->machine = o->machine;
	p->partition = o->partition;
	p->map = o->memmap;
	p->test_devices = o->test_devices;
	r = build(loop, p, o, err);
	if (r < 0) {
		platform_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

void platform_free(struct platform *p)
{
	if (!p)
		return;
	synic_test_free(p->synic_test);
	for (int i = 0; i < 2; i++) {
		uart_free(p->serial[i].uart);
		console_free(p->serial[i].console);
	}
	rtc_free(p->rtc);
	ioapic_free(p->ioapic);
	free(p);
}

uint64_t platform_rsdp(const struct platform *p)
{
	(void)p;
	return MEMMAP_ACPI_BASE;
}

static int write_acpi(struct platform *p, struct error *err)
{
	const struct acpi_config config = {
		.cpus = partition_vp_count(p->partition),
		.base = MEMMAP_ACPI_BASE,
		.ioapic = MEMMAP_IOAPIC,
		.lapic = MEMMAP_LAPIC,
		.com_ports = { true, p->serial[1].uart },
		.sleep_type = PM_SLEEP_TYPE_OFF,
		.reset_value = PM_RESET_VALUE,
		.sleep_control_port = PM_SLEEP_CONTROL_PORT,
		.sleep_status_port = PM_SLEEP_STATUS_PORT,
		.reset_port = PM_RESET_PORT,
		.low_ram_end = p->map->low_ram_end,
		.high_ram_base = MEMMAP_HIGH_RAM,
		.high_ram_end = p->map->high_ram_end,
		.grow_base = p->map->grow_base,
		.grow_size = p->map->grow_size,
		.mmio_low_base = p->map->mmio_low_base,
		.mmio_low_size = p->map->mmio_low_size,
		.mmio_high_base = p->map->mmio_high_base,
		.mmio_high_size = p->map->mmio_high_size,
	};
	_cleanup_free_ void *tables = malloc(MEMMAP_ACPI_SIZE);
	size_t size;
	int r;

	if (!tables)
		return error_set(err, -ENOMEM, "out of memory");
	r = acpi_build(&config, tables, RESET_VECTOR - MEMMAP_ACPI_BASE, &size, err);
	if (r >= 0 && gmem_write(partition_gmem(p->partition), MEMMAP_ACPI_BASE, tables, size) < 0)
		r = error_set(err, -EINVAL, "the ACPI tables do not fit into RAM");
	return r;
}

/*
 * Linux takes it that a machine with hardware-reduced ACPI has UEFI to reset it and, as there is
 * none, ends in the oldest way: a jump in real mode to where a PC's firmware starts.
 */
static int write_reset_vector(struct platform *p, struct error *err)
{
	/* mov dx, port; mov al, value; out dx, al; hlt; jmp to the hlt */
	static const uint8_t code[] = { 0xba,
					PM_RESET_PORT & 0xff,
					PM_RESET_PORT >> 8,
					0xb0,
					PM_RESET_VALUE,
					0xee,
					0xf4,
					0xeb,
					0xfd };

	if (gmem_write(partition_gmem(p->partition), RESET_VECTOR, code, sizeof(code)) < 0)
		return error_set(err, -EINVAL, "the reset vector is not in RAM");
	return 0;
}

int platform_reset(struct platform *p, struct error *err)
{
	int r;

	ioapic_reset(p->ioapic);
	rtc_reset(p->rtc);
	pm_reset(&p->pm);
	for (int i = 0; i < 2; i++)
		if (p->serial[i].uart)
			uart_reset(p->serial[i].uart);
	if (p->test_devices) {
		testdev_reset(&p->testdev);
		synic_test_reset(p->synic_test);
	}
	r = write_acpi(p, err);
	return r < 0 ? r : write_reset_vector(p, err);
}

/* --- saved state --- */

void platform_hold_input(struct platform *p, bool held)
{
	for (int i = 0; i < 2; i++)
		if (p->serial[i].uart)
			uart_hold(p->serial[i].uart, held);
}

/* The ACPI tables are in guest memory. */
static const char *const serial_scopes[] = { "serial/COM1", "serial/COM2" };

int platform_save(struct platform *p, struct save_writer *w, struct error *err)
{
	if (p->test_devices)
		return error_set(err, -ENOTSUP, "a machine with test devices cannot be saved");
	ioapic_save(p->ioapic, w);
	rtc_save(p->rtc, w);
	pm_save(&p->pm, w);
	for (int i = 0; i < 2; i++) {
		if (!p->serial[i].uart)
			continue;
		save_writer_scope(w, serial_scopes[i]);
		uart_save(p->serial[i].uart, w);
	}
	save_writer_scope(w, "");
	return 0;
}

int platform_restore(struct platform *p, struct save_reader *r, struct error *err)
{
	int n = ioapic_restore(p->ioapic, r, err);

	if (n >= 0)
		n = rtc_restore(p->rtc, r, err);
	if (n >= 0)
		n = pm_restore(&p->pm, r, err);
	for (int i = 0; i < 2 && n >= 0; i++) {
		if (!p->serial[i].uart)
			continue;
		save_reader_scope(r, serial_scopes[i]);
		n = uart_restore(p->serial[i].uart, r, err);
	}
	save_reader_scope(r, "");
	return n;
}
