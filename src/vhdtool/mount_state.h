/* SPDX-License-Identifier: MIT */
/*
 * What is mounted: one JSON file for each mount in a run directory, written before anything is done
 * that would have to be undone. It outlives its server, so that `vhd unmount` can clean up.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"
#include "vhdtool/loopdev.h"

#include <limits.h>
#include <sys/types.h>

struct mount_state {
	char id[17];
	char image[PATH_MAX];
	char target[PATH_MAX]; /* of a file system, or of the FUSE file; else "" */
	char device[LOOPDEV_NAME_SIZE];
	bool file; /* only FUSE, at target */
	bool read_only;
	pid_t pid;        /* the server's; 0 = not started yet */
	uint64_t started; /* tells it from another process with that number */
};

int mount_state_new(struct mount_state *s, struct error *err) _must_check_;
int mount_state_save(const struct mount_state *s, struct error *err) _must_check_;
void mount_state_remove(const struct mount_state *s);
/* Calls fn for each mount until it returns not 0; returns that. */
int mount_state_each(int (*fn)(void *context, const struct mount_state *s), void *context,
		     struct error *err);

/* Paths beside the state: kind "d" the server's own mount point, "error" what closing said. */
void mount_state_path(const struct mount_state *s, const char *kind, char ret[PATH_MAX]);
/* A loop device's label. */
void mount_state_label(const struct mount_state *s, char ret[32]);
bool mount_state_alive(const struct mount_state *s);
/* When the process started, in the kernel's ticks; 0 = there is none. */
uint64_t mount_process_start(pid_t pid);
