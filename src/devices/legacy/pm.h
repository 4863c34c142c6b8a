/* SPDX-License-Identifier: MIT */
/*
 * Power off and reset: the ACPI sleep and reset registers of a hardware-reduced machine, and the
 * two older ways to reset a PC that guests fall back to (keyboard controller, port 0xcf9).
 */
#pragma once

#include "devices/legacy/pio.h"

#include <stdatomic.h>

#define PM_PORT               0x400
#define PM_SLEEP_CONTROL_PORT (PM_PORT + 0)
#define PM_SLEEP_STATUS_PORT  (PM_PORT + 1)
#define PM_RESET_PORT         (PM_PORT + 2)
#define PM_RESET_VALUE        0x01
#define PM_SLEEP_TYPE_OFF     5 /* SLP_TYPx in \_S5 */

struct save_writer; /* save/save.h */
struct save_reader;

/* Embedded in its owner. Callbacks come from VP threads, and may come more than once. */
struct pm {
	void (*power_off)(void *context);
	void (*reset)(void *context);
	void *context;
	struct pio_device acpi, keyboard, cf9;
	_Atomic uint8_t cf9_value;
};

/* Fills in the devices; the callbacks and the context are the owner's to set. */
void pm_init(struct pm *pm);
void pm_reset(struct pm *pm);
void pm_save(struct pm *pm, struct save_writer *w); /* while no VP runs */
int pm_restore(struct pm *pm, struct save_reader *r, struct error *err) _must_check_;
int pm_add_to(struct pm *pm, struct pio_bus *bus, struct error *err) _must_check_;
