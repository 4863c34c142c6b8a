/* SPDX-License-Identifier: MIT */
/*
 * The control socket: lines of JSON. A request is {"id": any, "command": "query" | "pause" |
 * "resume" | "reset" | "power-off"}, or one of disk_control.h's; the answer repeats the id and has
 * "ok" and "state", and "error" with words when not ok. Files come with a request as descriptors
 * (SCM_RIGHTS). State changes come unasked as {"event": "state", "state": ...}, what happens to
 * disks likewise. Who can connect controls the machine.
 */
#pragma once

#include "worker/machine.h"

struct control;
struct vm_control;

int control_new(struct loop *loop, struct machine *machine, const struct vm_control *description,
		struct control **ret, struct error *err) _must_check_;
void control_free(struct control *c); /* NULL is fine */
