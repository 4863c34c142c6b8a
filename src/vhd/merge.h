/* SPDX-License-Identifier: MIT */
/*
 * Changing chains: merging a differencing image into its parent, and giving one another parent.
 * A cut at any point leaves chains that open and hold the same data. All of it blocks.
 */
#pragma once

#include "vhd/disk.h"

/*
 * Before data of `child` is written into `parent` (open for writing, below it or not): makes the
 * identity that the parent gets by that one that the child accepts too, durably; and the parent at
 * least as large. No request may be in flight on either.
 */
int merge_prepare(struct disk *child, struct disk *parent, struct error *err) _must_check_;

/*
 * When all of `child` is in its parent, durably, and before anybody else writes there: makes it
 * name a parent that does not exist, durably. It will lack what is written, so it must not be
 * opened. No request may be in flight on it. Blocks.
 */
int merge_retire(struct disk *child, struct error *err) _must_check_;

struct merge_options {
	struct disk_open_options open; /* search folders, direct; not follow */
	const char *const *children;   /* images whose parent is the one to merge; NULL = none */
	bool keep;                     /* do not delete the merged image */
	/* Called now and then; false stops with -ECANCELED, and the chain is as good as before. */
	bool (*progress)(void *context, uint64_t done, uint64_t total);
	void *context;
};

/*
 * Merges the image at `path` into its parent, makes the parent that of `children`, and deletes the
 * image. Images of other names that have it as their parent cannot be opened afterwards.
 */
int image_merge(struct loop *loop, const char *path, const struct merge_options *options,
		struct error *err) _must_check_;

struct rebase_options {
	struct disk_open_options open;
	bool any_identity; /* the new parent need not be the one that the image was made for */
	/* Copies what the parents differ in, so that the contents stay; any parent will do then. */
	bool copy;
	bool (*progress)(void *context, uint64_t done, uint64_t total); /* of copy; as above */
	void *context;
};

/*
 * Makes the image at `parent` that of the one at `path`, which keeps its data. Without `copy` the
 * present parents need not be there.
 */
int image_rebase(struct loop *loop, const char *path, const char *parent,
		 const struct rebase_options *options, struct error *err) _must_check_;
