/* SPDX-License-Identifier: MIT */
/*
 * What tools do with images: say what they are, check them, copy between them. All of it blocks.
 * Descriptors belong to these functions from the call on, as with disk_open.
 */
#pragma once

#include "vhd/disk.h"
#include "vhd/vhd.h"
#include "vhd/vhdx.h"

struct image_info {
	const char *format; /* "raw", "vhd", "vhdx" */
	struct disk_geometry geometry;
	uint64_t file_size, allocated; /* bytes; allocated = what the file takes on the host */
	struct vhdx_info vhdx;         /* format "vhdx" only */
	struct vhd_info vhd;           /* format "vhd" only */
};

int image_info(int fd, const char *name, struct image_info *ret, struct error *err) _must_check_;

enum check_kind {
	CHECK_NOTE,   /* unusual, but nothing is wrong */
	CHECK_WASTE,  /* space is lost; data is fine */
	CHECK_DAMAGE, /* data is lost or will be */
};

struct check_report {
	/* The caller's: called for each finding. `text` is one line. */
	void (*found)(struct check_report *r, enum check_kind kind, const char *text);
	unsigned counts[3];
	uint64_t blocks, blocks_present;
};

void check_found(struct check_report *r, enum check_kind kind, const char *format, ...)
	_printf_(3, 4);

/* 0 when the image could be examined; what is wrong with it is in the report. Changes nothing. */
int image_check(int fd, const char *name, struct check_report *report,
		struct error *err) _must_check_;

/* The same; the store is closed. */
int store_check(struct store *store, struct check_report *report, struct error *err) _must_check_;

/* An image alone, by its content; the store is the disk's from here on, also when this fails. */
int disk_open_store(struct store *store, struct disk **ret, struct error *err) _must_check_;

struct disk_copy_options {
	bool target_zeroed; /* `to` is new and reads as zeros: zeros need not be written */
	bool no_flush;      /* the caller flushes (closing does), or does not want it */
	uint64_t start;     /* everything before is there already; multiple of 4096 */
	/* Called now and then; false stops the copy with -ECANCELED. May be NULL. */
	bool (*progress)(void *context, uint64_t done, uint64_t total);
	/* Called about every `checkpoint_every` bytes: what lies before `done` is durable. */
	void (*checkpoint)(void *context, uint64_t done);
	uint64_t checkpoint_every; /* 0 = never */
	void *context;
};

/*
 * Copies the whole of `from` to the start of `to`, which must be at least as large, and flushes.
 * What reads as zeros is not written. Runs the loop that both share.
 */
int disk_copy(struct disk *from, struct disk *to, const struct disk_copy_options *options,
	      struct error *err) _must_check_;

/* Bytes of `disk` that may be no zeros, as far as is known without reading them: what a sparse copy
 * takes at most. */
int disk_allocated(struct disk *disk, uint64_t *ret, struct error *err) _must_check_;

struct disk_compare_options {
	bool allow_size; /* the shorter one counts as if zeros followed */
	bool (*progress)(void *context, uint64_t done, uint64_t total);
	void *context;
};

#define DISK_SAME UINT64_MAX

/*
 * Compares the content of two disks; *ret_offset is the first byte that differs or DISK_SAME. What
 * both know to be zeros is not read. -EINVAL with words when their sizes differ and that is not
 * allowed. Runs the loop that both share.
 */
int disk_compare(struct disk *a, struct disk *b, const struct disk_compare_options *options,
		 uint64_t *ret_offset, struct error *err) _must_check_;
