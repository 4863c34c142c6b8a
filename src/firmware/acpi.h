/* SPDX-License-Identifier: MIT */
/*
 * The ACPI tables of a machine without PCI: hardware-reduced ACPI, an I/O APIC, VMBus under a
 * module device that owns the MMIO windows, and the few ISA devices that are there.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#define ACPI_MAX_CPUS 2048

struct acpi_config {
	unsigned cpus;     /* APIC id = index; 1..ACPI_MAX_CPUS */
	uint64_t base;     /* guest-physical address of the tables, 16-aligned; the RSDP is first */
	uint32_t ioapic;   /* address of the I/O APIC; its GSIs start at 0 */
	uint32_t lapic;    /* address of the local APICs */
	bool com_ports[2]; /* COM1 at 0x3f8 GSI 4, COM2 at 0x2f8 GSI 3 */
	uint8_t sleep_type; /* SLP_TYPx of the state "off", 0..7 */
	uint8_t reset_value;
	uint16_t sleep_control_port, sleep_status_port, reset_port;
	/*
	 * All RAM, and where more may come while the machine runs, for the SRAT; grow_size 0 = no
	 * SRAT. What is added is of the one node that there is.
	 */
	uint64_t low_ram_end, high_ram_base, high_ram_end; /* base == end: none above 4 GiB */
	uint64_t grow_base, grow_size;
	/* Windows that VMBus hands out; size 0 = none. The low one ends below 4 GiB. */
	uint64_t mmio_low_base, mmio_low_size, mmio_high_base, mmio_high_size;
};

/*
 * Writes the tables, as they have to lie at config->base, into a buffer. -E2BIG when it is too
 * small: 128 KiB hold the tables for ACPI_MAX_CPUS.
 */
int acpi_build(const struct acpi_config *config, void *buffer, size_t capacity, size_t *ret_size,
	       struct error *err) _must_check_;
