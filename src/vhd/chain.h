/* SPDX-License-Identifier: MIT */
/*
 * Chains of differencing images: finding and opening parents, and naming one. All of it blocks.
 */
#pragma once

#include "vhd/disk.h"

#define CHAIN_DEPTH_MAX 1024u

/*
 * Opens the parents of `disk`, which lies at `path` and is open as `fd`, down to one without, and
 * gives them to it. Does nothing for an image that is no child, or when options->alone.
 */
int chain_open_parents(struct disk *disk, int fd, const char *path,
		       const struct disk_open_options *options, struct error *err) _must_check_;

/* Where the parent of `disk`, a child at `path`, is; the string is the caller's. */
int chain_parent_path(struct disk *disk, const char *path, const struct disk_open_options *options,
		      char **ret, struct error *err) _must_check_;
/* Whether `parent` is the one that `child` was made for; -ESTALE with words when not. */
int chain_parent_check(struct disk *child, struct disk *parent, struct error *err) _must_check_;

/* What a child at `child_path` (it need not exist yet) says of `parent`, which lies at
 * `parent_path`. ret's strings are the caller's (disk_parent_deinit). */
int chain_name_parent(struct disk *parent, const char *parent_path, const char *child_path,
		      struct disk_parent *ret, struct error *err) _must_check_;

/* The same for paths that are absolute and without links; no file is looked at. */
int chain_name_parent_real(struct disk *parent, const char *parent_path, const char *child_path,
			   struct disk_parent *ret, struct error *err) _must_check_;

int disk_parent_copy(const struct disk_parent *from, struct disk_parent *to) _must_check_;
