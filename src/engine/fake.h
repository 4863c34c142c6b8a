/* SPDX-License-Identifier: MIT */
/*
 * Engine fake: a partition without a CPU, for unit tests and fuzzers. What a guest would do is done
 * by the test: it writes guest memory, calls these functions, and reads what was raised. A worker
 * takes it when its description names it: such a machine halts from its first instruction on, but
 * can be paused, reset and powered off like any, on a host without KVM, and costs next to nothing.
 */
#pragma once

#include "engine/engine.h"

/* The guest's HvCallSignalEvent. 0, or -ENOENT when nothing is bound to the connection. */
int fake_signal_connection(struct engine_partition *p, uint32_t connection_id);
/* How often the SINT was raised since the last call. */
unsigned fake_take_sint(struct engine_partition *p, unsigned vp, unsigned sint);
/* How many interrupts were requested as MSI, and the last one's data. */
unsigned fake_interrupts(const struct engine_partition *p, uint32_t *ret_last_data);
/* Bytes added since it was made or reset; and whether more is refused (-ENOSPC). */
uint64_t fake_memory_added(const struct engine_partition *p);
void fake_refuse_memory(struct engine_partition *p, bool refuse);
