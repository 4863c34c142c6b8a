/* SPDX-License-Identifier: MIT */
/* From a machine's settings to what its worker is told (partita-vm(5), src/worker/vm.schema.json).
 */
#pragma once

#include "daemon/vm_settings.h"

#include <jansson.h>

/*
 * A new reference, NULL without memory. `s` has passed vm_check_start. Paths are as in the
 * settings: relative ones are below the machine's folder. The console is COM1, which is "none"
 * here: who starts the worker connects it.
 */
json_t *vm_describe(const struct vm_settings *s);
