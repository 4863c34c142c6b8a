/* SPDX-License-Identifier: MIT */
/*
 * A disk whose every byte has its place in the store, for good: requests move data and nothing
 * else. This is how an image is used that has several writers at once (vhdset.h); none of them may
 * then change anything that says where data lies.
 */
#pragma once

#include "vhd/store.h"

#define FLAT_EXTENTS_MAX 65536u /* 1.5 MiB of memory for each opener */

/* Consecutive bytes of the disk that are consecutive in the store too. */
struct flat_extent {
	uint64_t at, offset, length; /* on the disk, in the store */
};

/*
 * `extents` are in order and cover the geometry's size; they are copied. The store is the disk's
 * from here on, also when this fails.
 */
int flat_open(struct store *store, const char *format, const struct disk_geometry *geometry,
	      const struct flat_extent *extents, size_t count, struct disk **ret,
	      struct error *err) _must_check_;

/*
 * Where the blocks of a fixed VHDX lie; *ret is the caller's. -ENOTSUP with words when the image
 * has blocks without a place, a parent, a log, or is too scattered.
 */
int vhdx_flatten(struct disk *disk, struct flat_extent **ret, size_t *ret_count,
		 struct error *err) _must_check_;
/* Gives the image new write identities, durably, as a guest's first write would. Blocks. */
int vhdx_renew(struct disk *disk, struct error *err) _must_check_;
