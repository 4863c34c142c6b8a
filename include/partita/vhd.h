/* SPDX-License-Identifier: MIT */
/*
 * Virtual hard disks: raw images, and VHDX and VHD of Microsoft's published formats, with all the
 * images of a chain. For programs that read and write disks in images; link with -lpartita-vhd.
 *
 * A handle may be used by several threads at once; its calls take turns. Handles do not share
 * anything. Every call blocks until it is done. Functions that can fail return 0 or a negative
 * errno; where the last parameter is a struct partita_vhd_error (NULL is fine) it also gets words
 * for a person. Sizes and offsets are bytes.
 */
#ifndef PARTITA_VHD_H
#define PARTITA_VHD_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PARTITA_VHD_VERSION "0.1.0"

struct partita_vhd; /* an open image, with its parents */

struct partita_vhd_error {
	int code;          /* negative errno */
	char message[512]; /* one line: what was wrong, where, what to do */
};

/* How an image is opened. */
#define PARTITA_VHD_READ_ONLY                                                                      \
	(1u << 0)                    /* nothing in the file changes; a log is replayed in memory */
#define PARTITA_VHD_DIRECT (1u << 1) /* past the page cache where the file system can */
#define PARTITA_VHD_ALONE  (1u << 2) /* a differencing image without its parents: for its info */
#define PARTITA_VHD_TRACK  (1u << 3) /* to ask what changed; -ENOENT when that is not tracked */

struct partita_vhd_info {
	char format[8]; /* "raw", "vhd" or "vhdx" */
	uint64_t size;  /* of the disk */
	uint32_t logical_sector, physical_sector;
	uint8_t id[16]; /* the disk's, as a SCSI target tells it; zero = none */
	unsigned depth; /* images in the chain: 1 = no parent */
	int read_only;
};

enum partita_vhd_extent {
	PARTITA_VHD_DATA,
	PARTITA_VHD_ZERO, /* reads as zeros, takes space */
	PARTITA_VHD_HOLE, /* reads as zeros, takes none */
};

struct partita_vhd_create_options {
	const char *format;        /* "vhdx", "vhd" or "raw"; NULL = vhdx */
	const char *parent;        /* path: makes a differencing image of it; NULL = none */
	const char *const *search; /* folders where the parent's own parents may be, ends with NULL;
				    * NULL = none */
	uint64_t size;             /* 0 = the parent's */
	uint32_t block_size;       /* a power of two; of a VHDX 1 to 256 MiB; 0 = 32 MiB, of a VHD
				    * 512 KiB to 256 MiB; 0 = 2 MiB */
	uint32_t logical_sector;   /* 512 or, in a VHDX, 4096; 0 = 512, or the parent's */
	int fixed;                 /* take all space now */
};

/* The version of the library that is in use. */
const char *partita_vhd_version(void);

/*
 * Opens the image at `path` and its parents, which are found beside it or in the folders of
 * `search` (ends with NULL; NULL = none). A writer excludes everybody else, -EBUSY. The handle is
 * the caller's.
 */
int partita_vhd_open(const char *path, unsigned flags, const char *const *search,
		     struct partita_vhd **ret, struct partita_vhd_error *err);
/* Makes all durable and gives the image back in clean state. Frees the handle in any case. */
int partita_vhd_close(struct partita_vhd *vhd, struct partita_vhd_error *err);

void partita_vhd_get_info(struct partita_vhd *vhd, struct partita_vhd_info *ret);

/*
 * `offset` and `n` are multiples of the logical sector and inside of the disk: -EINVAL. What was
 * written is durable after a flush. Trimmed ranges may become zeros, and their space is given back.
 */
int partita_vhd_read(struct partita_vhd *vhd, void *buffer, size_t n, uint64_t offset);
int partita_vhd_write(struct partita_vhd *vhd, const void *buffer, size_t n, uint64_t offset);
int partita_vhd_flush(struct partita_vhd *vhd);
int partita_vhd_trim(struct partita_vhd *vhd, uint64_t n, uint64_t offset);
int partita_vhd_zero(struct partita_vhd *vhd, uint64_t n, uint64_t offset);
/* What lies at `offset` (inside of the disk), and how far: at least one sector. */
int partita_vhd_extent(struct partita_vhd *vhd, uint64_t offset, enum partita_vhd_extent *ret_kind,
		       uint64_t *ret_length);

/* Changes the size of the disk in one durable step. What lies beyond a smaller one is lost. */
int partita_vhd_resize(struct partita_vhd *vhd, uint64_t size, struct partita_vhd_error *err);

/*
 * How long work is watched. `report` is called now and then, may not use the handle, and stops the
 * work by a result other than 0: -ECANCELED, and the image is as good as before. A NULL in place of
 * the struct: nobody watches.
 */
struct partita_vhd_progress {
	int (*report)(void *context, uint64_t done, uint64_t total);
	void *context;
};

/* Gives back what the file need not hold; `zeros`: also looks for blocks that hold only zeros. */
int partita_vhd_compact(struct partita_vhd *vhd, int zeros,
			const struct partita_vhd_progress *progress, struct partita_vhd_error *err);

/* --- images that nobody has open --- */

enum partita_vhd_finding {
	PARTITA_VHD_NOTE,   /* unusual, but nothing is wrong */
	PARTITA_VHD_WASTE,  /* space is lost; data is fine */
	PARTITA_VHD_DAMAGE, /* data is lost or will be */
};

/*
 * Examines all of an image, and changes nothing. 0 when that could be done; `found` (NULL is
 * fine) gets what is wrong, a line for each.
 */
int partita_vhd_check(const char *path,
		      void (*found)(void *context, enum partita_vhd_finding kind, const char *text),
		      void *context, struct partita_vhd_error *err);

enum partita_vhd_repaired {
	PARTITA_VHD_MENDED, /* nothing is lost */
	PARTITA_VHD_RISK,   /* something may be lost; nobody can say what */
	PARTITA_VHD_LOST,   /* offset..offset+n of the disk has lost its data */
};

/*
 * Makes a damaged VHD or VHDX one that opens and passes the check, in place: work on a copy.
 * -EINVAL when too little is left of it.
 */
int partita_vhd_repair(const char *path,
		       void (*found)(void *context, enum partita_vhd_repaired kind, uint64_t offset,
				     uint64_t n, const char *text),
		       void *context, struct partita_vhd_error *err);

/*
 * Writes what the differencing image at `path` holds into its parent, and deletes the image. Other
 * images that have it as their parent cannot be opened afterwards.
 */
int partita_vhd_merge(const char *path, const char *const *search,
		      const struct partita_vhd_progress *progress, struct partita_vhd_error *err);

/*
 * Makes the image at `parent` that of the one at `path`, which keeps its own data. -ESTALE: it was
 * not made for that parent; `any` makes it so all the same, which is right only if both have the
 * same content.
 */
int partita_vhd_rebase(const char *path, const char *parent, int any, const char *const *search,
		       struct partita_vhd_error *err);

/*
 * What has changed since a point in time, for backups. It is kept in PATH.track while the image is
 * opened for writing by its path through this library, `vhd` or a virtual machine of Partita.
 * Nothing is missed, also when the power fails; more than what has changed may be reported.
 */
struct partita_vhd_point {
	uint8_t id[16];
	uint64_t time; /* ns since 1970 */
	int lost;      /* everything may have changed since */
};
#define PARTITA_VHD_POINTS_MAX 32

/* Begins, with a first point; nobody may have the image open. -EEXIST: it is tracked already. */
int partita_vhd_track_enable(const char *path, const char *const *search, uint8_t ret_id[16],
			     struct partita_vhd_error *err);
/* Ends, and deletes the file; -ENOENT: it is not tracked. */
int partita_vhd_track_disable(const char *path, struct partita_vhd_error *err);
/* A new point; later writes count as changes since. -ENOTTY: the image is not tracked. */
int partita_vhd_track_point(struct partita_vhd *vhd, uint8_t ret_id[16],
			    struct partita_vhd_error *err);
int partita_vhd_track_drop(struct partita_vhd *vhd, const uint8_t id[16],
			   struct partita_vhd_error *err);
/* Oldest first. *ret_count = how many there are; `room` of them at most are in `points`. */
int partita_vhd_track_list(struct partita_vhd *vhd, struct partita_vhd_point *points, unsigned room,
			   unsigned *ret_count, struct partita_vhd_error *err);
/*
 * Calls `changed` for each stretch of offset..offset+n that may have changed since the point; a
 * result other than 0 ends it and is returned. It may not use the handle. -ENOENT: there is no such
 * point; -ESTALE: everything may have changed.
 */
int partita_vhd_track_query(struct partita_vhd *vhd, const uint8_t id[16], uint64_t offset,
			    uint64_t n, int (*changed)(void *context, uint64_t offset, uint64_t n),
			    void *context, struct partita_vhd_error *err);

/* Makes a new image, durably; -EEXIST when there is a file of that name. A failure leaves none. */
int partita_vhd_create(const char *path, const struct partita_vhd_create_options *options,
		       struct partita_vhd_error *err);

#ifdef __cplusplus
}
#endif

#endif
