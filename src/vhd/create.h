/* SPDX-License-Identifier: MIT */
/* Making the files of images, of any format. All of it blocks. */
#pragma once

#include "vhd/disk.h"

struct image_create_options {
	const char *format;      /* "raw", "vhd" or "vhdx" */
	uint64_t size;           /* bytes; 0 = the parent's */
	uint64_t block_size;     /* bytes; 0 = the format's default */
	uint64_t logical_sector; /* 0 = 512, or the parent's */
	bool fixed;              /* all space is taken now */
	/*
	 * Makes a differencing image over the one at this path, which has the same format; NULL =
	 * none. Its own parents are looked for in the folders of `search` (NULL = none) too.
	 */
	const char *parent;
	const char *const *search;
	/*
	 * The path that the image will have once it is renamed, from where its parent is looked
	 * for. Whoever renames it makes that durable (lib/folder.h). NULL = it stays at `path`.
	 */
	const char *later;
};

/*
 * Makes the image at `path`, durably; -EEXIST when a file is there. A failure leaves none, and its
 * words name the path.
 */
int image_create(const char *path, const struct image_create_options *options,
		 struct error *err) _must_check_;
