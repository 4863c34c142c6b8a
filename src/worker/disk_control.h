/* SPDX-License-Identifier: MIT */
/*
 * The commands of the control socket that are about disks (partita-worker(1)): JSON in front of
 * live.h. Event loop's thread.
 */
#pragma once

#include "control/command.h"
#include "worker/live.h"

struct command_family disk_family(struct live *live);

/* An event as clients are told it, and whether one who is slow may miss it. The caller's. */
json_t *disk_event(const struct live_event *event, bool *ret_may_miss);
