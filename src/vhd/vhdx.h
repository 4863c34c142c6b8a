/* SPDX-License-Identifier: MIT */
/* VHDX images on a store: making, opening, examining. Most callers want disk.h and image.h. */
#pragma once

#include "vhd/disk.h"
#include "vhd/store.h"

struct vhdx_create_options {
	uint64_t size;            /* bytes */
	uint32_t block_size;      /* 0 = 32 MiB */
	uint32_t logical_sector;  /* 0 = 512 */
	uint32_t physical_sector; /* 0 = 4096 */
	bool fixed;               /* all space is taken now */
	struct guid id;           /* all zero = random; a child has its parent's */
	/* The file gets its name when it is whole: its parts need no order among themselves. */
	bool named_later;
	/*
	 * Makes a differencing image. `parent.id` is the parent's identity, and at least one path
	 * says where it is. Borrowed; NULL = none.
	 */
	const struct disk_parent *parent;
};

/* Makes an image in an empty store. What is there after a failure is no image. */
int vhdx_store_create(struct store *store, const struct vhdx_create_options *options,
		      struct error *err) _must_check_;
/* The same on an empty regular file; the descriptor stays the caller's. */
int vhdx_create(int fd, const struct vhdx_create_options *options, struct error *err) _must_check_;

/*
 * The store is the disk's from here on, also when this fails. A log is replayed: into the image, or
 * when the store is read-only into memory.
 */
int vhdx_open(struct store *store, struct disk **ret, struct error *err) _must_check_;

/* Whether a file that starts with these bytes claims to be a VHDX. */
bool vhdx_probe(const void *bytes, size_t size);

struct vhdx_info {
	uint32_t block_size;
	bool fixed, differencing;
	bool log_replayed; /* the image was not closed when it was last written */
	uint64_t file_size;
	struct guid data_write_guid, file_write_guid;
};
/* `disk` was opened by vhdx_open. */
void vhdx_info(struct disk *disk, struct vhdx_info *ret);

struct check_report;
/* Examines everything in the image without changing it; returns 0 also when problems were found. */
int vhdx_check(struct store *store, struct check_report *report, struct error *err);
