/* SPDX-License-Identifier: MIT */
/*
 * The time of day, which people and NTP set forth and back, and time since the boot, which only
 * passes. How long something lasts is measured by the latter. What is removed for its age is
 * removed only while the former has been steady, so that a wrong clock loses nothing. [any]
 */
#pragma once

#include "lib/types.h"

int64_t time_ms(void);      /* now, in ms since 1970 */
int64_t time_boot_ms(void); /* since the host's boot, in suspension too */
/* For tests: what time_ms is ahead from now on. */
void time_shift(int64_t ms);

#define CLOCK_STEADY_MS (INT64_C(3600) * 1000)

struct clock_watch {
	int64_t ahead; /* of the time since boot, when it was looked at last */
	int64_t since; /* it has passed like that since; ms since boot */
};
void clock_watch_init(struct clock_watch *w);
/* Whether the clock has not been set for an hour; to be asked now and then. */
bool clock_steady(struct clock_watch *w);
