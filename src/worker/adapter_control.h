/* SPDX-License-Identifier: MIT */
/*
 * The commands of the control socket that are about network adapters (partita-worker(1)): JSON in
 * front of adapters.h. Event loop's thread.
 */
#pragma once

#include "control/command.h"
#include "worker/adapters.h"

struct command_family adapter_family(struct adapters *adapters);

/* An event as clients are told it. The caller's. */
json_t *adapter_event(const struct adapter *adapter, const char *event, int error);
