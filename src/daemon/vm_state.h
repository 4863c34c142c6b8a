/* SPDX-License-Identifier: MIT */
/*
 * The states of a virtual machine and what leads from one to another, as a table, with Hyper-V's
 * codes beside ours (Msvm_ComputerSystem.EnabledState and RequestStateChange).
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

enum vm_state {
	VM_OFF,
	VM_STARTING,
	VM_RUNNING,
	VM_PAUSING,
	VM_PAUSED,
	VM_PAUSED_CRITICAL, /* until its storage is back */
	VM_RESUMING,
	VM_SAVING,
	VM_SAVED,
	VM_STOPPING, /* powered off, or asked to shut down */
	VM_RESETTING,
	VM_CRITICAL, /* its storage or its process was lost while it ran; see vm's words */
	VM_STATE_COUNT,
};

enum vm_action {
	VM_START,     /* also resumes and restores */
	VM_STOP,      /* power off, now */
	VM_SHUT_DOWN, /* asks the guest */
	VM_PAUSE,
	VM_RESUME,
	VM_SAVE,
	VM_RESET,
	VM_RESTART, /* asks the guest to restart */
	VM_DISCARD, /* the saved state */
	VM_ACTION_COUNT,
};

const char *vm_state_name(enum vm_state s);   /* "running" */
unsigned vm_state_hyperv(enum vm_state s);    /* EnabledState, extended codes where there are */
bool vm_state_steady(enum vm_state s);        /* stays so by itself */
bool vm_state_has_worker(enum vm_state s);    /* a process holds it */
const char *vm_action_name(enum vm_action a); /* "shut-down" */
int vm_action_find(const char *name, enum vm_action *ret); /* 0 or -ENOENT */

/*
 * The state while `a` is under way from `from`. -EBADFD with the state that it is in and the
 * actions that are allowed there.
 */
int vm_state_next(enum vm_state from, enum vm_action a, enum vm_state *ret,
		  struct error *err) _must_check_;
/* The steady state that a state under way ends in when all goes well. */
enum vm_state vm_state_end(enum vm_state s);
