// SPDX-License-Identifier: MIT
/* See clock.h. */
#include "daemon/clock.h"

#include <stdlib.h>
#include <time.h>

#define DRIFT_MS 60000 /* more between two looks is no correction of a clock that is right */

static int64_t shift;

static int64_t ms_of(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t time_ms(void)
{
	return ms_of(CLOCK_REALTIME) + shift;
}

int64_t time_boot_ms(void)
{
	return ms_of(CLOCK_BOOTTIME);
}

void time_shift(int64_t ms)
{
	shift = ms;
}

void clock_watch_init(struct clock_watch *w)
{
	w->since = time_boot_ms();
	w->ahead = time_ms() - w->since;
}

bool clock_steady(struct clock_watch *w)
{
	int64_t boot = time_boot_ms(), ahead = time_ms() - boot;

	if (llabs(ahead - w->ahead) > DRIFT_MS)
		w->since = boot;
	w->ahead = ahead;
	return boot - w->since >= CLOCK_STEADY_MS;
}
