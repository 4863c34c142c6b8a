/* SPDX-License-Identifier: MIT */
/* VHD images on a store: making, opening, examining. Most callers want disk.h and image.h. */
#pragma once

#include "vhd/disk.h"
#include "vhd/store.h"

enum vhd_kind { VHD_FIXED, VHD_DYNAMIC, VHD_DIFFERENCING };

struct vhd_create_options {
	uint64_t size;       /* bytes, a multiple of 512; at most 2040 GiB */
	uint32_t block_size; /* 0 = 2 MiB; not for fixed images */
	enum vhd_kind kind;
	struct guid id; /* all zero = random */
	/* The file gets its name when it is whole: its parts need no order among themselves. */
	bool named_later;
	/* Differencing images: what the parent's identity() says, and where it is (UTF-8). */
	struct disk_identity parent;
	const char *relative, *absolute; /* NULL = not said; one of them must be */
};

/* Makes an image in an empty store. What is there after a failure is no image. */
int vhd_store_create(struct store *store, const struct vhd_create_options *options,
		     struct error *err) _must_check_;
/* The same on an empty regular file; the descriptor stays the caller's. */
int vhd_create(int fd, const struct vhd_create_options *options, struct error *err) _must_check_;

/*
 * The store is the disk's from here on, also when this fails. A footer that is missing is written
 * again unless the store is read-only.
 */
int vhd_open(struct store *store, struct disk **ret, struct error *err) _must_check_;

/* Whether a store with these first and last bytes claims to be a VHD. */
#define VHD_PROBE_SIZE 512u
bool vhd_probe(const void *first, const void *last, size_t size);

struct vhd_info {
	enum vhd_kind kind;
	uint32_t block_size; /* 0 in fixed images */
	uint32_t creator;    /* four characters, the first in the highest byte */
	bool repaired;       /* one of the two footers was not as it must be */
	uint64_t file_size;
	struct disk_identity identity;
};
/* `disk` was opened by vhd_open. */
void vhd_info(struct disk *disk, struct vhd_info *ret);

struct check_report;
/* Examines everything in the image without changing it; returns 0 also when problems were found. */
int vhd_check(struct store *store, struct check_report *report, struct error *err);
