/* SPDX-License-Identifier: MIT */
/*
 * The log of a program: whole lines on standard error, each naming the program and the instance.
 * Libraries do not log; a program does, once, where an error stops. Any thread.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

/* Both are borrowed for the program's life; `instance` may be NULL ("vm=web" in a worker). */
void log_init(const char *program, const char *instance);
/* "partita-worker vm=web: text" */
void log_line(const char *format, ...) _printf_(1, 2);

/* What a guest can cause is logged at most so often; what is left out is counted. */
struct log_limit {
	uint64_t window; /* start of the current second, CLOCK_MONOTONIC_COARSE in s */
	unsigned count, dropped;
};
#define LOG_LIMIT_PER_SECOND 5

/* Whether to log now. *ret_dropped: lines left out since the last one. One thread per limit. */
bool log_allowed(struct log_limit *limit, unsigned *ret_dropped);
