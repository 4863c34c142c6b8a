/* SPDX-License-Identifier: MIT */
/* The structures of an image as they stand on disk, told to a visitor. All of it blocks. */
#pragma once

#include "vhd/store.h"

/*
 * An object or a list begins, its members follow, it ends; in a list the members have no names
 * (NULL). The outermost object is not told.
 */
struct dump_visitor {
	void (*begin)(void *context, const char *name, bool list);
	void (*end)(void *context);
	void (*number)(void *context, const char *name, uint64_t value);
	void (*text)(void *context, const char *name, const char *value);
	void *context;
};

/* `all_blocks`: each used entry of the block table, not only sums. The descriptor is taken. */
int image_dump(int fd, const char *name, const struct dump_visitor *to, bool all_blocks,
	       struct error *err) _must_check_;

/* Of a VHD or VHDX; the store stays the caller's. */
int vhd_dump(struct store *store, const struct dump_visitor *to, bool all_blocks,
	     struct error *err) _must_check_;
int vhdx_dump(struct store *store, const struct dump_visitor *to, bool all_blocks,
	      struct error *err) _must_check_;
