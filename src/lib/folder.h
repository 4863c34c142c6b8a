/* SPDX-License-Identifier: MIT */
#pragma once

#include "lib/error.h"

/*
 * Makes durable that the file at `path` was made, renamed or deleted: a power cut may otherwise
 * undo that, although its content is on the disk. 0 or a negative errno.
 */
int folder_sync(const char *path) _must_check_;
/*
 * Makes a folder, for ourselves alone, and what is missing above it, as usual; durably. One that is
 * there already is left as it is.
 */
int folder_make_all(const char *path, struct error *err) _must_check_;
