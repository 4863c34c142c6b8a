/* SPDX-License-Identifier: MIT */
/*
 * What flat test kernels made for other monitors expect (only with --test-devices): a port to end
 * the machine with an exit status, and a fw_cfg that tells memory and processors.
 */
#pragma once

#include "devices/legacy/pio.h"

#include <stdatomic.h>

#define TESTDEV_EXIT_PORT   0xf4
#define TESTDEV_FW_CFG_PORT 0x510

/* Embedded in its owner. `exit` comes from a VP thread, with value * 2 + 1. */
struct testdev {
	void (*exit)(void *context, int status);
	void *context;
	uint64_t ram_size;
	uint16_t cpus;
	struct pio_device exit_port, fw_cfg;
	_Atomic uint32_t cursor; /* item << 16 | offset in it */
};

/* Fills in the devices; callback, context and figures are the owner's to set. */
void testdev_init(struct testdev *t);
void testdev_reset(struct testdev *t);
int testdev_add_to(struct testdev *t, struct pio_bus *bus, struct error *err) _must_check_;
