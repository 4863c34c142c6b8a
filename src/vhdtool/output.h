/* SPDX-License-Identifier: MIT */
/*
 * Images that verbs make. Whatever is made is written beside its final name first, so that an
 * interrupted command leaves nothing that looks finished.
 */
#pragma once

#include "lib/error.h"
#include "lib/guid.h"

#include <limits.h>

struct disk_parent;

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
/* Gives the image its name when result >= 0, else removes it; the result. */
int output_end(struct output *out, int result, struct error *err);

struct output_options {
	const char *format; /* as output_format says */
	uint64_t size, block_size, sector_size;
	bool fixed;
	const struct disk_parent *parent; /* NULL = no differencing image */
	struct guid id;                   /* of the disk; zero = a new one */
};

/* The format of an image to make: `given`, or what the name's ending says, else vhdx. */
const char *output_format(const char *path, const char *given);
/* Makes an empty image in a file that is not there yet. */
int output_make(const char *path, const struct output_options *o, struct error *err) _must_check_;
/* -ENOSPC with words when the file system of `path` has less than `need` bytes left. */
int output_check_space(const char *path, uint64_t need, struct error *err) _must_check_;
