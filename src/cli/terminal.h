/* SPDX-License-Identifier: MIT */
/* The terminal in front of a guest's console, for relay.c and vm_console.c. */
#pragma once

#include "lib/types.h"

#include <termios.h>

#define ESCAPE_KEY 1 /* Ctrl-A */

/* Raw mode when standard input is a terminal; whether it is. */
bool terminal_raw(struct termios *before);
void terminal_restore(const struct termios *before);
void write_all(int fd, const void *data, size_t size);
