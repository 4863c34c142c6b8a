/* SPDX-License-Identifier: MIT */
/* Mounting FUSE: by ourselves as root, else with the help of fusermount3(1). */
#pragma once

#include "lib/error.h"

/* Returns an open /dev/fuse that is mounted at `target`. */
int fuse_mount(const char *target, const char *source, struct error *err) _must_check_;
/* `lazy`: gone from the tree at once, ended when the last file is closed. */
int fuse_unmount(const char *target, int lazy, struct error *err);
/* Runs a program and waits; its exit status, 127 when there is none, or a negative errno. */
int run_program(const char *const *argv);
