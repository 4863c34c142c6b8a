/* SPDX-License-Identifier: MIT */
#pragma once

#include "lib/types.h"

/*
 * Makes durable that the file at `path` was made, renamed or deleted: a power cut may otherwise
 * undo that, although its content is on the disk. 0 or a negative errno.
 */
int folder_sync(const char *path) __attribute__((warn_unused_result));
