/* SPDX-License-Identifier: MIT */
/* From a machine's settings to what its worker is told (partita-vm(5), src/worker/vm.schema.json).
 */
#pragma once

#include "daemon/vm_settings.h"

#include <jansson.h>

/*
 * A new reference, NULL without memory. `s` has passed vm_check_start. Paths are as in the
 * settings: relative ones are below the machine's folder. The console is COM1, which is "none"
 * here: who starts the worker connects it. `host_mib`: memory of the host, more than which no
 * machine has room for.
 */
json_t *vm_describe(const struct vm_settings *s, uint64_t host_mib);
/* MiB that its memory can grow to while it runs. */
uint64_t vm_memory_most(const struct vm_settings *s, uint64_t host_mib);
/*
 * The same, and with it in "ports" what adapters are plugged into, [{id, switch?, port:
 * partita-switchd(8)'s}]: for changes while it runs (hot.h).
 */
json_t *vm_describe_parts(const struct vm_settings *s);
