/* SPDX-License-Identifier: MIT */
/*
 * The parts of the machine that are not on VMBus: serial ports, clock, power management, I/O APIC,
 * and the test devices when asked for. VP threads call in with their exits; each part locks itself.
 */
#pragma once

#include "firmware/memmap.h"
#include "partition/partition.h"
#include "worker/console.h"

struct platform;
struct machine;

struct platform_options {
	struct machine *machine; /* gets requests: reset, power off, test exit */
	struct partition *partition;
	const struct memmap *memmap;
	struct console_options serial[2]; /* input and context are filled in here */
	bool test_devices;
};

int platform_new(struct loop *loop, const struct platform_options *options, struct platform **ret,
		 struct error *err) _must_check_;
void platform_free(struct platform *p); /* NULL is fine */
/* Devices as after platform_new, and the ACPI tables written again; no VP is running. */
int platform_reset(struct platform *p, struct error *err) _must_check_;
uint64_t platform_rsdp(const struct platform *p); /* where the guest finds ACPI */

/* Input to the serial ports waits outside: what came now would not be in the saved state. */
void platform_hold_input(struct platform *p, bool held);

struct save_writer; /* save/save.h */
struct save_reader;
/* While no VP runs: the devices' records; and back, into a new platform. */
int platform_save(struct platform *p, struct save_writer *w, struct error *err) _must_check_;
int platform_restore(struct platform *p, struct save_reader *r, struct error *err) _must_check_;

/* [any] Exits. Nothing there: reads give all ones, writes are ignored. */
void platform_pio(struct platform *p, uint16_t port, unsigned size, bool write, void *data);
void platform_mmio(struct platform *p, uint64_t gpa, unsigned size, bool write, uint8_t *data);
void platform_ioapic_eoi(struct platform *p, uint8_t vector);
