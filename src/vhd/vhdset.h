/* SPDX-License-Identifier: MIT */
/*
 * Sets: an image that several virtual machines use at once, and the small file beside it through
 * which they agree who may do what (docs/vhd-set.md). The image is a fixed VHDX or raw. All of it
 * blocks but the disk's requests; one event loop's thread.
 */
#pragma once

#include "vhd/disk.h"
#include "vhd/reserve_file.h"

#define VHDSET_SIZE     (4096u * 3) /* bytes of the file: who it is, and two slots */
#define VHDSET_HEAD     4096u
#define VHDSET_NAME_MAX 255u

#define VHDSET_SIGNATURE "ptvhdset" /* the first bytes */

enum vhdset_format {
	VHDSET_RAW = 1,
	VHDSET_VHDX = 2,
};

struct vhdset_info {
	struct guid id;
	enum vhdset_format format;
	struct guid image_id;            /* a VHDX's virtual disk id; raw: zero */
	uint64_t image_size;             /* of the disk, bytes, when the set was made */
	char image[VHDSET_NAME_MAX + 1]; /* name of the image, which lies beside the set */
};

/* The first VHDSET_HEAD bytes of a set. -EINVAL or -ENOTSUP with words. */
int vhdset_decode(const void *bytes, struct vhdset_info *ret, struct error *err) _must_check_;
/* `fd` stays the caller's. */
int vhdset_info(int fd, struct vhdset_info *ret, struct error *err) _must_check_;

const char *vhdset_format_name(enum vhdset_format format); /* as in disk.h */

/*
 * For tools, which have no part in a set: descriptors may be open for reading only and stay the
 * caller's. Whoever uses the set meanwhile is not disturbed.
 */
struct check_report;
struct dump_visitor;
struct vhdset_status {
	struct vhdset_info info;
	struct reserve_state state;
	uint64_t change; /* counts the changes of that state */
	bool used;       /* somebody has it open */
};
bool vhdset_is(int fd); /* looks like a set, also a damaged one */
int vhdset_status(int fd, struct vhdset_status *ret, struct error *err) _must_check_;
int vhdset_check(int fd, struct check_report *report, struct error *err) _must_check_;
int vhdset_dump(int fd, const struct dump_visitor *to, struct error *err) _must_check_;
int vhdset_used(int fd, bool *ret) _must_check_;

/*
 * Makes a set in `fd`, an empty regular file that stays the caller's, for the image `image_fd`,
 * which is this function's from here on and must not be in use. `image_name` is the image's path;
 * its last part goes into the set. `format` as in disk.h.
 */
int vhdset_create(int fd, int image_fd, const char *image_name, const char *format,
		  struct error *err) _must_check_;

struct vhdset_options {
	struct guid initiator; /* not zero; of one virtual machine's controller, and stable */
	bool direct;           /* as in disk.h */
};

struct vhdset;

/*
 * Opens the image as one of several writers. Both descriptors (O_RDWR) are the set's from here on,
 * also when this fails.
 */
int vhdset_open(struct loop *loop, int fd, int image_fd, const struct vhdset_options *options,
		struct vhdset **ret, struct error *err) _must_check_;
/* Closes the disk too, under disk_close's conditions. NULL is fine. */
int vhdset_close(struct vhdset *s, struct error *err);
struct disk *vhdset_disk(struct vhdset *s);                 /* borrowed */
struct reserve_file *vhdset_reservations(struct vhdset *s); /* borrowed */
