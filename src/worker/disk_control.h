/* SPDX-License-Identifier: MIT */
/*
 * The commands of the control socket that are about disks (partita-worker(1)): JSON in front of
 * live.h. What comes in is judged whole before anything is done. Event loop's thread.
 */
#pragma once

#include "worker/live.h"

#include <jansson.h>

/* A request. Owned by the caller, and valid until `done` when that is to come. */
struct disk_command {
	const char *name;
	const json_t *request;
	json_t *answer; /* what the command has to say is added */
	int *fds;       /* that came with it; those that are taken become -1 */
	unsigned fd_count;
	void (*done)(struct disk_command *c, int result, const struct error *err);

	/* disk_control.c's */
	struct live_call call;
	struct live_part parts[LIVE_DRIVES_MAX];
};

/* Whether there is such a command. */
bool disk_command_known(const char *name);
/* 0 = it is done, 1 = `done` will be called; -errno with words. */
int disk_command_run(struct live *live, struct disk_command *c, struct error *err) _must_check_;

/* An event as clients are told it, and whether one who is slow may miss it. The caller's. */
json_t *disk_event(const struct live_event *event, bool *ret_may_miss);
