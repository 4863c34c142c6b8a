/* SPDX-License-Identifier: MIT */
/* Sockets in the file system that a program listens on. */
#pragma once

#include "lib/error.h"

#include <sys/types.h>

/*
 * A non-blocking listening socket at `path`, with `mode` (0 = by the umask) before anybody can
 * connect; the descriptor. A socket that is there already is
 * replaced when nobody listens on it (its program was killed), and refused when somebody does. It
 * is the caller's to remove, or whoever's that started a program which may not.
 */
int unix_listen(const char *path, mode_t mode, int backlog, struct error *err) _must_check_;
/* Takes over a socket that was passed and listens already: `fd`, or negative with words. */
int unix_listener_take(int fd, const char *where, struct error *err) _must_check_;
