/* SPDX-License-Identifier: MIT */
/*
 * The commands of the control socket that are about the guest (partita-worker(1)), and what clients
 * are told of it: JSON in front of services.h. Event loop's thread.
 */
#pragma once

#include "control/command.h"
#include "worker/services.h"

/* From here on `tell` is called with events; it takes them. */
struct command_family service_family(struct services *s,
				     void (*tell)(void *context, json_t *event, bool may_miss),
				     void *context);
