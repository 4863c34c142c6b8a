/* SPDX-License-Identifier: MIT */
/* What the files of `partita host` share. */
#pragma once

#include "cli/command.h"

int host_run_up(struct command *c);
int host_run_down(struct command *c);
