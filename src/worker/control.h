/* SPDX-License-Identifier: MIT */
/*
 * The worker's control socket (control/server.h): "query", "pause", "resume", "reset", "power-off",
 * and the commands that the machine's parts have. Each answer has the machine's "state", and
 * changes of it come unasked as {"event": "state", "state": ...}; what happens to its parts
 * likewise. Who can connect controls the machine.
 */
#pragma once

#include "worker/machine.h"

struct control;
struct vm_control;

int control_new(struct loop *loop, struct machine *machine, const struct vm_control *description,
		struct control **ret, struct error *err) _must_check_;
void control_free(struct control *c); /* NULL is fine */
