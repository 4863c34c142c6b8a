// SPDX-License-Identifier: MIT
/*
 * See vm_state.h. Pure: nothing here knows a machine. The two tables below are the whole of it:
 * what each state is, and where each action leads from it.
 */
#include "daemon/vm_state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* No action leads to off at once: nothing said about an action is a refusal. */
#define REFUSED VM_OFF

static const struct state_row {
	const char *name;
	unsigned hyperv;
	bool worker;
	enum vm_state end; /* itself: steady */
	enum vm_state next[VM_ACTION_COUNT];
} states[VM_STATE_COUNT] = {
	/* clang-format off */
	[VM_OFF] = { "off", 3, false, VM_OFF,
		{ [VM_START] = VM_STARTING } },
	[VM_STARTING] = { "starting", 10, true, VM_RUNNING,
		{ [VM_STOP] = VM_STOPPING } },
	[VM_RUNNING] = { "running", 2, true, VM_RUNNING,
		{ [VM_STOP] = VM_STOPPING, [VM_SHUT_DOWN] = VM_STOPPING, [VM_PAUSE] = VM_PAUSING,
		  [VM_SAVE] = VM_SAVING, [VM_RESET] = VM_RESETTING,
		  [VM_RESTART] = VM_RESETTING } },
	[VM_PAUSING] = { "pausing", 32776, true, VM_PAUSED,
		{ [VM_STOP] = VM_STOPPING } },
	[VM_PAUSED] = { "paused", 9, true, VM_PAUSED,
		{ [VM_START] = VM_RESUMING, [VM_RESUME] = VM_RESUMING, [VM_STOP] = VM_STOPPING,
		  [VM_SAVE] = VM_SAVING, [VM_RESET] = VM_RESETTING } },
	/* It runs on by itself. */
	[VM_PAUSED_CRITICAL] = { "paused-critical", 32785, true, VM_PAUSED_CRITICAL,
		{ [VM_STOP] = VM_STOPPING, [VM_RESET] = VM_RESETTING } },
	[VM_RESUMING] = { "resuming", 32777, true, VM_RUNNING,
		{ [VM_STOP] = VM_STOPPING } },
	[VM_SAVING] = { "saving", 32773, true, VM_SAVED, { REFUSED } },
	[VM_SAVED] = { "saved", 6, false, VM_SAVED,
		{ [VM_START] = VM_STARTING, [VM_DISCARD] = VM_STOPPING } },
	/* A guest that was asked to shut down and does not can be powered off. */
	[VM_STOPPING] = { "stopping", 4, true, VM_OFF,
		{ [VM_STOP] = VM_STOPPING } },
	[VM_RESETTING] = { "resetting", 11, true, VM_RUNNING,
		{ [VM_STOP] = VM_STOPPING } },
	[VM_CRITICAL] = { "critical", 32781, false, VM_CRITICAL,
		{ [VM_START] = VM_STARTING, [VM_STOP] = VM_STOPPING } },
	/* clang-format on */
};

static const char *const actions[VM_ACTION_COUNT] = {
	[VM_START] = "start", [VM_STOP] = "stop",       [VM_SHUT_DOWN] = "shut-down",
	[VM_PAUSE] = "pause", [VM_RESUME] = "resume",   [VM_SAVE] = "save",
	[VM_RESET] = "reset", [VM_RESTART] = "restart", [VM_DISCARD] = "discard",
};

const char *vm_state_name(enum vm_state s)
{
	return states[s].name;
}

unsigned vm_state_hyperv(enum vm_state s)
{
	return states[s].hyperv;
}

bool vm_state_steady(enum vm_state s)
{
	return states[s].end == s;
}

bool vm_state_has_worker(enum vm_state s)
{
	return states[s].worker;
}

enum vm_state vm_state_end(enum vm_state s)
{
	return states[s].end;
}

const char *vm_action_name(enum vm_action a)
{
	return actions[a];
}

int vm_action_find(const char *name, enum vm_action *ret)
{
	for (unsigned a = 0; a < VM_ACTION_COUNT; a++) {
		if (strcmp(actions[a], name))
			continue;
		*ret = a;
		return 0;
	}
	return -ENOENT;
}

int vm_state_next(enum vm_state from, enum vm_action a, enum vm_state *ret, struct error *err)
{
	char allowed[96] = "";
	size_t n = 0;

	if (states[from].next[a] != REFUSED) {
		*ret = states[from].next[a];
		return 0;
	}
	if (!err)
		return -EBADFD;
	for (unsigned b = 0; b < VM_ACTION_COUNT; b++)
		if (states[from].next[b] != REFUSED)
			n += (size_t)snprintf(allowed + n, sizeof(allowed) - n, "%s%s",
					      n ? ", " : "", actions[b]);
	return error_set(err, -EBADFD, "cannot %s while it is %s; %s%s", actions[a],
			 states[from].name, n ? "allowed now: " : "wait until that has ended",
			 allowed);
}
