/* SPDX-License-Identifier: MIT */
/*
 * The commands of the control socket by which drives come and go (partita-worker(1)): JSON in front
 * of disks.h. Event loop's thread.
 */
#pragma once

#include "control/command.h"
#include "worker/disks.h"

struct command_family disk_hot_family(struct disks *disks);
