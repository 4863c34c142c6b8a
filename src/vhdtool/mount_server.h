/* SPDX-License-Identifier: MIT */
/* The process behind a mount: it holds the image and answers the kernel's FUSE requests, boxed. */
#pragma once

#include "vhdtool/mount_state.h"
#include "vhdtool/tool.h"

/*
 * Starts it and waits until it has opened the image; `fuse_fd` (mounted) is its own from here on.
 * It ends by itself when the file system is unmounted; then the image is closed, and its
 * keeper removes the state, unless closing failed. Fills s->pid and s->started.
 */
int mount_server_start(struct mount_state *s, const struct tool_image *image, int fuse_fd,
		       struct disk_geometry *ret, struct error *err) _must_check_;
/*
 * 0 when it has ended; what it said when the image could not be closed is in err. Killed: it did
 * not come to closing the image.
 */
int mount_server_wait(const struct mount_state *s, unsigned seconds, bool *ret_killed,
		      struct error *err);
