/* SPDX-License-Identifier: MIT */
/* Programs that the command line uses; where those of Partita are, lib/program.h knows. */
#pragma once

#include "lib/error.h"

#include <stdbool.h>

/* Whether PATH has it. */
bool program_exists(const char *name);
/*
 * Runs it (a path, or a name in PATH) to its end, its output on our standard error: 0, or -EIO
 * with how it ended. `argv` ends with NULL.
 */
int program_run(const char *const *argv, struct error *err) _must_check_;
