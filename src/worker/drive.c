// SPDX-License-Identifier: MIT
/*
 * See drive.h. Once the system-call filter is entered nothing can be opened by its path any more:
 * an image is opened again through a copy of its descriptor, or through one that a client passes.
 * The lock of an image belongs to the open file description, which such copies share.
 */
#include "worker/drive.h"

#include "lib/cleanup.h"
#include "vhd/chain.h"
#include "vhd/store.h"
#include "vhd/track.h"
#include "vhd/vhdset.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

/* Longer chains keep no more descriptors: a process has not many. Their images stay as they are. */
#define KEPT_DESCRIPTORS 64u

static int fd_copy(int fd)
{
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

/* --- the list --- */

int drive_reserve(struct drive *drive, struct error *err)
{
	struct image *images = realloc(drive->images, (drive->depth + 1) * sizeof(*images));

	if (!images)
		return error_set(err, -ENOMEM, "out of memory");
	drive->images = images;
	return 0;
}

void image_push(struct drive *drive, const struct image *image)
{
	memmove(drive->images + 1, drive->images, drive->depth * sizeof(*image));
	drive->images[0] = *image;
	drive->depth++;
}

struct image image_take(struct drive *drive, unsigned index)
{
	struct image taken = drive->images[index];

	drive->depth--;
	memmove(drive->images + index, drive->images + index + 1,
		(drive->depth - index) * sizeof(taken));
	return taken;
}

static void image_forget(struct image *image)
{
	if (image->fd >= 0)
		close(image->fd);
	free(image->name);
	*image = (struct image){ .fd = -1 };
}

struct disk *image_format_disk(const struct image *image)
{
	struct track *t = track_of(image->disk);

	return t ? track_below(t) : image->disk;
}

/* --- opening a drive --- */

struct opening {
	struct drive *drive;
	bool failed;
};

/* `real`: the path is known to be absolute and without links; else that is looked up. */
static bool image_add(struct drive *drive, const char *path, bool real, int fd)
{
	struct image image = { .fd = -1 };
	struct error err;

	if (drive_reserve(drive, &err) < 0)
		return false;
	image.named = path != NULL;
	image.name = path && !real ? realpath(path, NULL) : NULL;
	if (!image.name)
		image.name = strdup(path ? path : "(passed descriptor)");
	if (drive->depth <= KEPT_DESCRIPTORS)
		image.fd = fd_copy(fd);
	drive->images[drive->depth++] = image;
	return image.name;
}

static void on_found(void *context, const char *path, int fd)
{
	struct opening *o = context;

	o->failed |= !image_add(o->drive, path, false, fd);
}

static int disk_behind(struct drive *drive, const struct drive_options *o, int fd, const char *path,
		       struct error *err)
{
	struct opening opening = { .drive = drive };
	const struct disk_open_options oo = {
		.read_only = o->read_only,
		.direct = o->direct,
		.follow = path != NULL,
		.format = o->format,
		.found = on_found,
		.found_context = &opening,
	};
	struct disk *disk;
	int r;

	if (!image_add(drive, path, false, fd)) {
		close(fd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	r = disk_open(drive->loop, fd, path ? path : "(passed descriptor)", &oo, &disk, err);
	if (r < 0)
		return r;
	if (opening.failed) {
		disk_close(disk, NULL);
		return error_set(err, -ENOMEM, "out of memory");
	}
	drive->images[0].writable = !o->read_only;
	for (unsigned i = 0; i < drive->depth; i++, disk = disk->below) {
		drive->images[i].disk = disk;
		drive->images[i].format = disk->ops->name;
	}
	return 0;
}

static struct drive *drive_new(const struct drive_options *o)
{
	struct drive *drive = calloc(1, sizeof(*drive));

	if (!drive)
		return NULL;
	drive->loop = o->loop;
	drive->controller = o->controller;
	drive->lun = o->lun;
	drive->kind = o->kind;
	drive->read_only = o->read_only;
	drive->direct = o->direct;
	return drive;
}

static void drive_free(struct drive *drive)
{
	while (drive->depth)
		image_forget(&drive->images[--drive->depth]);
	free(drive->images);
	free(drive);
}

/* The images are open. The drive goes when this fails. */
static int gate_put(struct drive *drive, struct drive **ret, struct error *err)
{
	drive->disk = drive->depth ? drive->images[0].disk : NULL;
	if (drive->kind == DRIVE_DISK) {
		drive->disk = gate_new(drive->disk);
		if (!drive->disk) {
			disk_close(drive->images[0].disk, NULL);
			drive_free(drive);
			return error_set(err, -ENOMEM, "out of memory");
		}
		drive->gate = gate_of(drive->disk);
	}
	*ret = drive;
	return 0;
}

int drive_open(const struct drive_options *o, int fd, const char *path, struct drive **ret,
	       struct error *err)
{
	struct drive *drive = drive_new(o);
	int r;

	if (!drive) {
		close(fd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	r = disk_behind(drive, o, fd, path, err);
	if (r < 0) {
		drive_free(drive);
		return r;
	}
	return gate_put(drive, ret, err);
}

static bool is_child(struct disk *disk)
{
	return disk->ops->parent && disk->ops->parent(disk);
}

/* The images are opened one by one, each below the one before. */
static int image_behind(struct drive *drive, const struct drive_options *o,
			const struct drive_file *file, struct error *err)
{
	const bool top = !drive->depth;
	const struct disk_open_options oo = {
		.read_only = o->read_only || !top,
		.direct = o->direct,
		.alone = true,
		.format = top ? o->format : NULL,
		.tracking = DISK_TRACK_OFF,
	};
	struct disk *above = top ? NULL : drive->images[drive->depth - 1].disk, *disk;
	struct image *image;
	int r;

	if (above && !is_child(above)) {
		close(file->fd);
		return error_set(err, -EINVAL, "\"%s\" has no parent, but a file is passed for it",
				 drive->images[drive->depth - 1].name);
	}
	if (!image_add(drive, file->path, true, file->fd)) {
		close(file->fd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	image = &drive->images[drive->depth - 1];
	r = disk_open(drive->loop, file->fd, image->name, &oo, &disk, err);
	if (r >= 0 && above) {
		r = chain_parent_check(above, disk, err);
		if (r < 0)
			disk_close(disk, NULL);
		else
			above->ops->set_parent(above, disk);
	}
	if (r < 0)
		return r;
	image->disk = disk;
	image->format = disk->ops->name;
	image->writable = !oo.read_only;
	return 0;
}

int drive_open_files(const struct drive_options *o, const struct drive_file *files, unsigned count,
		     struct drive **ret, struct error *err)
{
	struct drive *drive = drive_new(o);
	unsigned i = 0;
	int r = drive ? 0 : error_set(err, -ENOMEM, "out of memory");

	for (; i < count && r >= 0; i++)
		r = image_behind(drive, o, &files[i], err);
	for (; i < count; i++)
		close(files[i].fd);
	if (r >= 0 && count && is_child(drive->images[count - 1].disk))
		r = error_set(err, -EINVAL,
			      "\"%s\" is a differencing image; pass its parents' files too",
			      drive->images[count - 1].name);
	if (r < 0) {
		if (drive && drive->depth)
			disk_close(drive->images[0].disk, NULL);
		if (drive)
			drive_free(drive);
		return r;
	}
	return gate_put(drive, ret, err);
}

void drive_exchange(struct drive *drive, struct drive *other)
{
	const struct drive was = *drive;

	drive->disk = other->disk, other->disk = was.disk;
	drive->depth = other->depth, other->depth = was.depth;
	drive->images = other->images, other->images = was.images;
}

int drive_open_shared(const struct drive_options *o, struct vhdset *set, struct drive **ret,
		      struct error *err)
{
	struct drive *drive = drive_new(o);

	if (!drive) {
		vhdset_close(set, NULL);
		return error_set(err, -ENOMEM, "out of memory");
	}
	drive->kind = DRIVE_SHARED;
	drive->set = set;
	drive->disk = vhdset_disk(set);
	*ret = drive;
	return 0;
}

int drive_close(struct drive *drive, struct error *err)
{
	int r;

	if (!drive)
		return 0;
	assert(!drive->merge);
	r = drive->set ? vhdset_close(drive->set, err) : disk_close(drive->disk, err);
	/* Without the topmost image, which was lost, nobody closes the others. */
	if (drive->gate && !drive->images[0].disk && drive->depth > 1)
		disk_close(drive->images[1].disk, NULL);
	drive_free(drive);
	return r;
}

/* --- images --- */

int image_fd_check(int fd, struct error *err)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot look at the descriptor");
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, "the descriptor is not that of a regular file");
	if ((flags & O_ACCMODE) != O_RDWR)
		return error_set(err, -EINVAL,
				 "the descriptor must be open for reading and writing");
	return 0;
}

/* So that closing it leaves those below it open. */
static struct disk *parent_unlink(struct disk *disk)
{
	struct disk *below = disk->below;

	if (below)
		disk->ops->set_parent(disk, NULL);
	return below;
}

int image_close(struct image *image, struct error *err)
{
	struct disk *disk = steal_ptr(image->disk);
	int r;

	if (disk)
		parent_unlink(disk);
	r = disk_close(disk, err);
	image_forget(image);
	return r;
}

int image_reopen(struct drive *drive, unsigned index, bool writable, struct error *err)
{
	struct image *image = &drive->images[index];
	struct disk_open_options o = {
		.read_only = !writable,
		.direct = drive->direct,
		.alone = true,
		.format = image->format,
		.tracking = DISK_TRACK_OFF,
	};
	int fd = image->fd < 0 ? -1 : fd_copy(image->fd), r, closed = 0;
	struct disk *old, *disk;

	if (fd < 0)
		return error_set(err, -EMFILE,
				 "\"%s\" cannot be opened again: there are too many open files",
				 image->name);
	old = steal_ptr(image->disk);
	if (old) {
		parent_unlink(old);
		closed = disk_close(old, err);
	}
	r = disk_open(drive->loop, fd, image->name, &o, &disk, closed < 0 ? NULL : err);
	if (r < 0)
		return closed < 0 ? closed : r;
	if (index + 1 < drive->depth)
		disk->ops->set_parent(disk, drive->images[index + 1].disk);
	image->disk = disk;
	image->writable = writable;
	return closed;
}

static int same_file(const struct image *image, int fd, struct error *err)
{
	struct stat a, b;
	int r = image_fd_check(fd, err);

	if (r < 0)
		return error_prefix(err, "%s", image->name);
	if (image->fd < 0)
		return error_set(err, -EMFILE, "\"%s\" is too deep in its chain", image->name);
	if (fstat(image->fd, &a) < 0 || fstat(fd, &b) < 0)
		return error_errno(err, -errno, "cannot look at \"%s\"", image->name);
	if (a.st_dev != b.st_dev || a.st_ino != b.st_ino)
		return error_set(err, -EINVAL,
				 "the descriptor is not that of \"%s\"; was the file replaced?",
				 image->name);
	return 0;
}

/* While nobody has its lock; the old opening still answers. */
static int open_for_writing(struct drive *drive, unsigned index, int fd, int track_fd,
			    struct disk **ret, struct error *err)
{
	struct image *image = &drive->images[index];
	struct disk_open_options o = {
		.direct = drive->direct,
		.alone = true,
		.format = image->format,
		.tracking = track_fd < 0 ? DISK_TRACK_OFF : DISK_TRACK_PASSED,
		.track_fd = track_fd,
	};
	int r = disk_open(drive->loop, fd, image->name, &o, ret, err);

	if (r < 0)
		return r;
	r = chain_parent_check(drive->images[index - 1].disk, *ret, err);
	if (r < 0) {
		disk_close(*ret, NULL);
		return error_prefix(err, "%s", image->name);
	}
	return 0;
}

static int writable_swap(struct drive *drive, unsigned index, int fd, int track_fd,
			 struct error *err)
{
	struct flock unlock = { .l_type = F_UNLCK, .l_whence = SEEK_SET };
	struct image *image = &drive->images[index];
	struct disk *above = drive->images[index - 1].disk, *old = image->disk, *disk, *below;
	int r;

	fcntl(image->fd, F_OFD_SETLK, &unlock);
	r = open_for_writing(drive, index, fd, track_fd, &disk, err);
	if (r < 0) {
		if (store_file_lock(image->fd, true, NULL) < 0)
			error_prefix(err, "(another process took the lock of the image)");
		return r;
	}
	below = parent_unlink(old);
	if (below)
		disk->ops->set_parent(disk, below);
	above->ops->set_parent(above, disk);
	image->disk = disk;
	image->writable = true;
	disk_close(old, NULL);
	return 0;
}

int image_make_writable(struct drive *drive, unsigned index, int fd, int track_fd,
			struct error *err)
{
	struct image *image = &drive->images[index];
	_cleanup_close_ int keep = -1;
	int r = same_file(image, fd, err);

	if (r >= 0) {
		keep = fd_copy(fd);
		if (keep < 0)
			r = error_errno(err, -errno, "cannot keep \"%s\" open", image->name);
	}
	if (r < 0) {
		close(fd);
		if (track_fd >= 0)
			close(track_fd);
		return r;
	}
	r = writable_swap(drive, index, fd, track_fd, err);
	if (r < 0)
		return r;
	close(image->fd);
	image->fd = steal_fd(&keep);
	return 0;
}
