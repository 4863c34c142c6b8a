/* SPDX-License-Identifier: MIT */
/*
 * A machine's folder and the vm.json in it. What is written is durable when the call returns, and a
 * crash or power cut before that leaves the old file whole. Folders appear and disappear at once,
 * by renaming: while one is made or removed it has a name that only we give, with the machine's id.
 */
#pragma once

#include "daemon/vm_settings.h"
#include "lib/error.h"

#define VM_FILE_NAME "vm.json"
#define VM_SETTINGS_VERSION                                                                        \
	1 /* of vm.json, that this service writes; it reads none that is newer */

/*
 * Reads FOLDER/vm.json, which may be anything. -ENOENT no folder or no file, -EUCLEAN it is not
 * what it should be (or newer), else what the system says; always with words.
 */
int vm_file_read(const char *folder, struct vm_settings *ret, struct error *err) _must_check_;
/* Replaces it. */
int vm_file_write(const char *folder, const struct vm_settings *settings,
		  struct error *err) _must_check_;
/* Makes the file in a folder that is there; -EEXIST when it has one. */
int vm_file_add(const char *folder, const struct vm_settings *settings,
		struct error *err) _must_check_;

/* Makes `folder` with the file in it; -EEXIST when something has that name. */
int vm_folder_make(const char *folder, const struct vm_settings *settings,
		   struct error *err) _must_check_;
/* Removes the folder of machine `id` and all that is in it; fine when it is gone already. */
int vm_folder_remove(const char *folder, const char *id, struct error *err) _must_check_;
/* After a crash: takes away what an unfinished vm_file_write or vm_file_add left. */
void vm_file_tidy(const char *folder);
/* The same, and what an unfinished vm_folder_make or vm_folder_remove left beside it. */
void vm_folder_recover(const char *folder, const char *id);
