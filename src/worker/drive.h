/* SPDX-License-Identifier: MIT */
/*
 * A drive of the machine and the images behind it. A disk that the machine has for itself stands on
 * a gate, above its topmost image, and the images of its chain are known one by one, with copies of
 * their descriptors: so they can be changed while the guest uses the disk (live.h). Event loop's
 * thread.
 */
#pragma once

#include "vhd/gate.h"

enum drive_kind {
	DRIVE_DISK,
	DRIVE_DVD,
	DRIVE_SHARED, /* a disk with a set: other machines have its image open too */
};

/* One image of a chain. */
struct image {
	char *name; /* an absolute path without links, when it was opened by a path */
	bool named; /* whether it was; else name is for messages */
	int fd;     /* a copy; -1 = none was to be had */
	const char *format;
	struct disk *disk; /* with its track, if it has one; NULL while it is opened anew */
	bool writable;     /* open for writing */
};

struct vhdset;
struct drive_merge;

struct drive {
	struct loop *loop;
	unsigned controller, lun;
	enum drive_kind kind;
	bool read_only, direct;
	struct disk *disk;  /* what the guest's unit stands on; NULL = an empty DVD drive */
	struct vhdset *set; /* DRIVE_SHARED */
	struct gate *gate;  /* DRIVE_DISK */
	unsigned depth;
	struct image *images; /* the chain, the topmost first; none for a set */
	/* The size has changed: the guest is to be told. NULL is fine. */
	void (*resized)(struct drive *drive);
	void *resized_context;

	/* live.h's: */
	void *owner;
	struct gate_freeze freeze;
	bool frozen; /* by command */
	struct loop_timer thaw_timer;
	struct drive_merge *merge;
};

struct drive_options {
	struct loop *loop;
	unsigned controller, lun;
	enum drive_kind kind; /* not DRIVE_SHARED */
	bool read_only, direct;
	const char *format; /* as in disk_open_options */
};

/*
 * Opens the image on `fd`, which is the drive's from here on, also when this fails. `path` is where
 * it lies, NULL when that is not known: then it cannot be one with a parent.
 */
int drive_open(const struct drive_options *options, int fd, const char *path, struct drive **ret,
	       struct error *err) _must_check_;
/*
 * Opens a chain of images that were passed, the topmost first, down to one without a parent. They
 * are the drive's from here on, also when this fails. Nothing is looked up by a path: after the
 * system-call filter was entered this is the way. None, for a DVD drive: it is empty.
 */
struct drive_file {
	int fd;
	const char *path; /* absolute and without links, or NULL = not known */
};
int drive_open_files(const struct drive_options *options, const struct drive_file *files,
		     unsigned count, struct drive **ret, struct error *err) _must_check_;
/*
 * Another disc for a DVD drive, NULL = none: what the drive has open is exchanged with what
 * `other`, an opened drive of the same kind, has.
 */
void drive_exchange(struct drive *drive, struct drive *other);
/* For a disk that the machine shares with others; the set is the drive's from here on. */
int drive_open_shared(const struct drive_options *options, struct vhdset *set, struct drive **ret,
		      struct error *err) _must_check_;
/* Closes what is behind it and frees it. No request may be in flight, no merge running. */
int drive_close(struct drive *drive, struct error *err); /* NULL is fine */

/* --- images of a drive that is frozen, or that nobody uses yet; all of these block --- */

/* Whether `fd` can be an image (a regular file, open for reading and writing); words when not. */
int image_fd_check(int fd, struct error *err) _must_check_;
/* Room for one image more, in front; so that image_push cannot fail. */
int drive_reserve(struct drive *drive, struct error *err) _must_check_;
void image_push(struct drive *drive, const struct image *image);
/* Takes image `index` out of the list, and hands it over. */
struct image image_take(struct drive *drive, unsigned index);
/* Closes the image alone (not what is below it) and frees what it has. */
int image_close(struct image *image, struct error *err);
/*
 * Closes the image (not those below), if it is open, and opens it again, for reading only or for
 * writing. The next one of the list is below it then, what was above it has to be told by the
 * caller. After a failure image->disk may be NULL. A track ends with that; its file is closed
 * clean.
 */
int image_reopen(struct drive *drive, unsigned index, bool writable,
		 struct error *err) _must_check_;
/*
 * Opens image `index`, which is below another one, for writing, through `fd`: the same file, opened
 * by whoever may. `fd` and `track_fd` (-1 = no track) are the drive's, also when this fails; then
 * all is as before.
 */
int image_make_writable(struct drive *drive, unsigned index, int fd, int track_fd,
			struct error *err) _must_check_;
/* The image without its track. */
struct disk *image_format_disk(const struct image *image);
