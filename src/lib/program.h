/* SPDX-License-Identifier: MIT */
/* Programs of this tree that others of it start: most are in LIBEXECDIR/partita, not in PATH. */
#pragma once

#include "lib/error.h"

#include <limits.h>

/*
 * Where the program is that may be started: in the folder that PARTITA_LIBEXEC names; without that
 * beside the running program, in `built`, relative to that (NULL = no such), or where it is
 * installed, in folders for programs beside our own too. A set-uid program looks only where the
 * build said that it would be installed. -ENOENT with words when it is nowhere.
 */
int program_find(const char *name, const char *built, char ret[static PATH_MAX],
		 struct error *err) _must_check_;
