/* SPDX-License-Identifier: MIT */
/* Programs of this tree that others of it start: most are in LIBEXECDIR/partita, not in PATH. */
#pragma once

#include "lib/error.h"

#include <limits.h>
#include <stddef.h>

/*
 * Where the program is that may be started: in the folder that PARTITA_LIBEXEC names; without that
 * beside the running program, in `built`, relative to that (NULL = no such), or where it is
 * installed, in folders for programs beside our own too. A set-uid program looks only where the
 * build said that it would be installed. -ENOENT with words when it is nowhere.
 */
int program_find(const char *name, const char *built, char ret[static PATH_MAX],
		 struct error *err) _must_check_;

/*
 * All of `fd` until its end: the description that a program is started with. The text (not ended by
 * a zero) is the caller's to free. -EFBIG when it is longer than `limit` bytes; errors have words.
 */
int program_description(int fd, size_t limit, char **ret_text, size_t *ret_size,
			struct error *err) _must_check_;
