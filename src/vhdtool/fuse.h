/* SPDX-License-Identifier: MIT */
/*
 * A disk as one file of a FUSE file system, spoken to the kernel directly (linux/fuse.h): requests
 * are answered in any order, from one event loop, with many in flight. The loop's thread.
 */
#pragma once

#include "vhdtool/bytes.h"

#define FUSE_FILE_NAME "disk" /* in the root */
#define FUSE_IN_FLIGHT 128u   /* requests; more wait in the kernel */
#define FUSE_DATA_MAX  MIB    /* of one request */

struct fuse_export {
	struct disk *disk;
	bool writable;
	uint32_t uid, gid; /* whom the file belongs to */
};

struct fuse;

/*
 * `fd` is an open, mounted /dev/fuse, and stays the caller's. When the file system is gone (or the
 * kernel breaks the protocol) and no request is in flight, the loop is stopped.
 */
int fuse_new(struct loop *loop, int fd, const struct fuse_export *export, struct fuse **ret,
	     struct error *err) _must_check_;
void fuse_free(struct fuse *f); /* after the loop has stopped; NULL is fine */
