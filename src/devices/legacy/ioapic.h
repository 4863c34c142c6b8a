/* SPDX-License-Identifier: MIT */
/*
 * The I/O APIC: 24 interrupt pins become messages to the local APICs, which an engine delivers.
 * Pins are set by devices from any thread, registers are used by VP threads.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#define IOAPIC_BASE UINT64_C(0xfec00000)
#define IOAPIC_SIZE 0x1000u
#define IOAPIC_PINS 24

struct ioapic;
struct save_writer; /* save/save.h */
struct save_reader;

/* Both are called with the I/O APIC's lock held and must not call back; see pio.h for the order. */
struct ioapic_config {
	/* An interrupt, as an x86 message: address with the destination, data with the vector. */
	void (*deliver)(void *context, uint64_t address, uint32_t data);
	/*
	 * What a level-triggered pin delivers has changed: the engine has to report the end of
	 * that interrupt (ioapic_eoi). 0, 0 when the pin is masked or edge-triggered. May be NULL.
	 */
	void (*route)(void *context, unsigned pin, uint64_t address, uint32_t data);
	void *context;
};

int ioapic_new(const struct ioapic_config *config, struct ioapic **ret,
	       struct error *err) _must_check_;
void ioapic_free(struct ioapic *a);  /* NULL is fine */
void ioapic_reset(struct ioapic *a); /* lines keep their level: they are the devices' */

/* While no VP runs. */
void ioapic_save(struct ioapic *a, struct save_writer *w);
int ioapic_restore(struct ioapic *a, struct save_reader *r, struct error *err) _must_check_;

void ioapic_set_line(struct ioapic *a, unsigned pin, bool level);
/* A local APIC has seen the end of a level-triggered interrupt with this vector. */
void ioapic_eoi(struct ioapic *a, uint8_t vector);

/* An access to the page at IOAPIC_BASE; `size` is 1 to 8. */
uint64_t ioapic_read(struct ioapic *a, uint64_t offset, unsigned size);
void ioapic_write(struct ioapic *a, uint64_t offset, unsigned size, uint64_t value);
