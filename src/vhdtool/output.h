/* SPDX-License-Identifier: MIT */
/*
 * Images that verbs make. Whatever is made is written beside its final name first, so that an
 * interrupted command leaves nothing that looks finished.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#include <limits.h>

struct output {
	const char *path; /* the final name; borrowed */
	char partial[PATH_MAX];
};

/*
 * Chooses the partial name: one of this process's own, or when `resumable` the same every time.
 * -EEXIST with words when `path` is there and `force` is not set.
 */
int output_begin(struct output *out, const char *path, bool force, bool resumable,
		 struct error *err) _must_check_;
/* Gives the image its name when result >= 0, durably if asked to, else removes it; the result. */
int output_end(struct output *out, int result, bool durable, struct error *err);

/* The format of an image to make: `given`, or what the name's ending says, else vhdx. */
const char *output_format(const char *path, const char *given);
/* -ENOSPC with words when the file system of `path` has less than `need` bytes left. */
int output_check_space(const char *path, uint64_t need, struct error *err) _must_check_;
