/* SPDX-License-Identifier: MIT */
/*
 * What of a disk has changed since a point in time, for backups: a layer above an image keeps it in
 * a small file beside it, IMAGE.track (docs/track-format.md; the format is ours). A change is never
 * missed, also when the power fails; it may be reported although there was none. Points and queries
 * block; the layer belongs to its loop's thread like all layers.
 *
 * disk_open puts the layer there for everybody who opens an image by its path to write it.
 */
#pragma once

#include "vhd/disk.h"
#include "vhd/store.h"

#define TRACK_POINTS_MAX 32u

/* Why nothing is known of the changes since a point. */
enum track_lost {
	TRACK_KNOWN,
	TRACK_LOST_OTHER,  /* the image was changed or replaced where nobody tracked it */
	TRACK_LOST_PARENT, /* it got another parent */
	TRACK_LOST_SIZE,   /* the disk grew beyond what the map can take at its granularity */
	TRACK_LOST_AGE,    /* there were too many points since */
	TRACK_LOST_REASONS
};

struct track_point {
	struct guid id;
	uint64_t time;       /* ns since 1970 */
	uint16_t generation; /* of the changes after it */
	uint8_t lost;        /* enum track_lost */
};

/* The image's file as it was left; times in ns. */
struct track_tie {
	uint64_t inode, size, modified, changed;
};

/* The image's file as the layer sees it; tests have one of their own. Owned by the layer. */
struct track_image {
	/* `last`: nobody changes the file any more, and later changes must give another tie. */
	int (*look)(struct track_image *image, bool last, struct track_tie *ret);
	uint64_t (*now)(struct track_image *image); /* ns since 1970 */
	void (*free)(struct track_image *image);
};

struct track_options {
	bool read_only;       /* only to be asked: nothing in `file` changes */
	bool create;          /* `file` is empty and begins now */
	unsigned shift;       /* create: a granule has 1 << shift bytes; 0 = by the disk's size */
	struct track_tie tie; /* of the image before it was opened */
};

/*
 * Puts the layer above `below`. All three are the layer's on success, and the caller's when this
 * fails. -EINVAL: the file is no track file; -ENOTSUP: a later version's; -EBADMSG: damaged, only
 * when read_only. A writer begins anew with a damaged one, and the points are gone.
 */
int track_new(struct disk *below, struct store *file, struct track_image *image,
	      const struct track_options *options, struct disk **ret,
	      struct error *err) _must_check_;

struct track;
struct track *track_of(struct disk *disk); /* NULL: not such a layer */

/* From now on; requests may be under way, their changes count as later ones. */
int track_point(struct track *t, struct guid *ret_id, struct error *err) _must_check_;
int track_drop(struct track *t, const struct guid *id, struct error *err) _must_check_;
/* Oldest first; borrowed until the next call. */
const struct track_point *track_points(const struct track *t, unsigned *ret_count);
uint64_t track_granularity(const struct track *t); /* bytes */
struct disk *track_below(struct track *t);         /* the image; borrowed */
const char *track_lost_words(enum track_lost lost);

/*
 * Calls `changed` for each stretch of offset..offset+length that may have changed since that point,
 * in order; a result other than 0 stops it and is returned. -ENOENT: there is no such point;
 * -ESTALE: everything may have changed. Both with words.
 */
int track_query(struct track *t, const struct guid *since, uint64_t offset, uint64_t length,
		int (*changed)(void *context, uint64_t offset, uint64_t length), void *context,
		struct error *err) _must_check_;

/* --- by path (track_file.c) --- */

/* The track file of the image at `path`, links resolved; the string is the caller's. */
char *track_path(const char *path);
/* Deletes it; -ENOENT when there is none. The caller has made sure that nobody uses the image. */
int track_delete(const char *path, struct error *err) _must_check_;

/* A track file that was found, before its image's format is known. */
struct track_file;
/*
 * With the image's lock held on `fd`. *ret is NULL when there is nothing to do. What is found goes
 * to track_attach or track_release.
 */
int track_find(struct loop *loop, int fd, const char *path, const struct disk_open_options *options,
	       struct track_file **ret, struct error *err) _must_check_;
/* Puts the layer above *disk, which stays the caller's to close, and frees f in any case. */
int track_attach(struct track_file *f, struct disk **disk, struct error *err) _must_check_;
void track_release(struct track_file *f); /* NULL is fine */

/*
 * Begins to track an image that is open for writing as *disk, in the empty file open as `fd`, which
 * is the layer's from here on, also when this fails. `image_fd` is the image's, and stays the
 * caller's. No request may be in flight on *disk; the layer is above it afterwards.
 */
int track_begin(struct disk **disk, int image_fd, int fd, struct error *err) _must_check_;
/* Ends it: the image, without its layer, which is gone. The points are of no use afterwards. No
 * request may be in flight. Blocks. */
int track_end(struct track *t, struct disk **ret, struct error *err) _must_check_;
