/* SPDX-License-Identifier: MIT */
/* The copying half of image_rebase (merge.h). */
#pragma once

#include "vhd/merge.h"

/*
 * Writes into `child`, which is open with its parents, what they answer for it and `parent` would
 * answer otherwise; so the child's contents are the same with either. Nobody who knows the child
 * sees a change of it, and a cut at any point leaves it as good as before. Blocks; durable.
 */
int rebase_copy(struct disk *child, struct disk *parent, const struct rebase_options *options,
		struct error *err) _must_check_;
