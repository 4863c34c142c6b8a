/* SPDX-License-Identifier: MIT */
/* Sockets in the file system that the worker listens on. Made before the door closes. */
#pragma once

#include "lib/error.h"

/*
 * A non-blocking listening socket at `path`; the descriptor. A socket that is there already is
 * replaced when nobody listens on it (its worker was killed), and refused when somebody does. Who
 * started the worker removes it afterwards: the worker itself may not.
 */
int unix_listen(const char *path, struct error *err) _must_check_;
/* Takes over a socket that was passed and listens already: `fd`, or negative with words. */
int unix_listener_take(int fd, const char *where, struct error *err) _must_check_;
