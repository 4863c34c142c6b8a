/* SPDX-License-Identifier: MIT */
/*
 * Time synchronisation: tells the guest the host's time, with the order to take it over right after
 * the guest has started, was paused or was put back to an earlier state, and as samples every five
 * seconds for those who discipline their clock by them.
 */
#pragma once

#include "devices/ic/ic.h"

#define TIMESYNC_SECONDS 5u

struct timesync {
	struct ic ic;
	bool sync_due; /* the next message carries the order */
	uint64_t messages, syncs;
	struct loop_timer timer;
};

void timesync_init(struct timesync *t, struct loop *loop, struct vmbus *bus);
void timesync_deinit(struct timesync *t);
void timesync_pause(struct timesync *t);
void timesync_resume(struct timesync *t); /* the guest's time has stood still: sync at once */
