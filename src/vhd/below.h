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
 * Reads [offset, offset + length) of `parent` into the part of `iov` that starts at byte `from`.
 * What lies beyond the parent's end becomes zeros at once. Returns 1 when done will be called, 0
 * when nothing was left to read (done is not called), -ENODEV without a parent, or -ENOMEM.
 */
int below_read(struct below_read *b, struct disk *parent, const struct iovec *iov, unsigned iovcnt,
	       uint64_t from, uint64_t offset, uint64_t length);
