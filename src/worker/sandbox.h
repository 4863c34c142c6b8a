/* SPDX-License-Identifier: MIT */
/* The worker's last step before the guest runs: nothing new can be opened, executed or traced. */
#pragma once

#include "lib/error.h"

/*
 * For the whole process, threads that exist included: no new privileges, and only the system calls
 * listed in sandbox.c and lib/sandbox.c; any other kills the process. What is open stays usable.
 */
int worker_sandbox_enter(struct error *err) _must_check_;
