/* SPDX-License-Identifier: MIT */
/* What differencing images of all formats share: reading what they do not hold from their parent.
 */
#pragma once

#include "vhd/disk.h"

/* Owned by the caller and valid until done, which is never called from inside below_read. */
struct below_read {
	void (*done)(struct below_read *b, int result);
	/* below.c's: */
	struct disk_request req;
	struct iovec *iov;
};

/*
 * Reads the part [from, from + length) of a request to a child, which is inside of the child, from
 * `parent`. What lies beyond the parent's end becomes zeros at once. Returns 1 when done will be
 * called, 0 when nothing was left to read (done is not called), -ENODEV without a parent, or
 * -ENOMEM.
 */
int below_read(struct below_read *b, struct disk *parent, const struct disk_request *req,
	       uint64_t from, uint64_t length);
/* The same question of disk_ops.extent; without a parent, and beyond its end, there is a hole. */
int below_extent(struct disk *parent, uint64_t offset, enum disk_extent_kind *ret_kind,
		 uint64_t *ret_length);
