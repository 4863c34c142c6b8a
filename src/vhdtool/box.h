/* SPDX-License-Identifier: MIT */
/*
 * The box of the servers (`vhd serve`, `vhd mount`): what a process still may do when it begins to
 * serve a stranger's image to clients. It removes no files, so a keeper outside waits for it and
 * cleans up. Any thread.
 */
#pragma once

#include "lib/error.h"

#include <stdbool.h>
#include <stddef.h>

/* Standard input, output and error lead nowhere from here on. */
void box_mute(void);
/*
 * For ever: no new privileges, no core dumps, no memory shown to other processes, and a
 * system-call filter that leaves work on what is open; with `sockets` also taking clients.
 */
int box_enter(bool sockets, struct error *err) _must_check_;
/* What a boxed process said, before it is printed: it ends, and has no control characters. */
void box_clean(char *text, size_t size);
