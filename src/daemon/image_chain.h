/* SPDX-License-Identifier: MIT */
/*
 * The files behind an image, which may be a differencing one. Images are what guests and strangers
 * wrote: they are read by `vhd` in a process of its own, not by the service.
 */
#pragma once

#include "lib/error.h"

/*
 * Paths of the image and its parents, nearest first. -EINVAL when it is not of `format` (vhd, vhdx;
 * any other, or NULL, is not looked at) or cannot be attached. `ret` has room for `max` and its
 * strings are the caller's (image_chain_free). -E2BIG when there are more, -ETIMEDOUT when the
 * storage does not answer. Blocks for as long as that, ten seconds at most.
 */
int image_chain(const char *path, const char *format, char **ret, unsigned max, unsigned *ret_count,
		struct error *err) _must_check_;
void image_chain_free(char **paths, unsigned count);
