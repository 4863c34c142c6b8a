/* SPDX-License-Identifier: MIT */
/*
 * The saved state in a machine's folder, FOLDER/saved, and where it is on its way:
 *
 *	state.partial	being written; of no use before its worker has said that it is whole
 *	state		whole: the machine is saved
 *	state.used	a machine runs on from it, or did: its disks may have changed since
 *
 * A step is durable when its call returns. A state must not be used twice, so it is renamed before
 * its guest runs, and deleted when it does.
 */
#pragma once

#include "lib/error.h"

#define VM_SAVED_STATE "saved/state" /* in the folder */

enum vm_saved {
	VM_SAVED_NONE,
	VM_SAVED_PARTIAL,
	VM_SAVED_WHOLE,
	VM_SAVED_USED,
};
/* What there is; of several, the last of the list but for whole, which counts most. */
enum vm_saved vm_saved_look(const char *folder);
/* An empty file to be written, in place of what an earlier attempt left. */
int vm_saved_create(const char *folder, int *ret_fd, struct error *err) _must_check_;
/* It was written and is durable: the machine is saved from now on. */
int vm_saved_keep(const char *folder, struct error *err) _must_check_;
/* Before the guest goes on from it. */
int vm_saved_use(const char *folder, struct error *err) _must_check_;
/* What an attempt left; nothing else. */
void vm_saved_abandon(const char *folder);
/* All of it. */
int vm_saved_remove(const char *folder, struct error *err) _must_check_;
