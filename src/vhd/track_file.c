// SPDX-License-Identifier: MIT
/*
 * Track files by path: found beside the image whose links are resolved, so that every name of it
 * leads to the same one. Whoever has the image's lock has the track file too. A copy of the image's
 * descriptor keeps that lock until the last slot is written, so that nobody's change can come in
 * between and be taken for ours.
 */
#include "vhd/track.h"

#include "lib/cleanup.h"
#include "lib/folder.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define SUFFIX ".track"

struct file_image {
	struct track_image image;
	int fd;
};

struct track_file {
	struct file_image *image;
	struct store *store;
	struct track_options options;
	char *path, *partial; /* partial: a new one, until it is whole */
};

static uint64_t ns_of(const struct timespec *ts)
{
	return (uint64_t)ts->tv_sec * UINT64_C(1000000000) + (uint64_t)ts->tv_nsec;
}

/* --- the image's file --- */

static int tie_of(int fd, struct track_tie *ret)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	*ret = (struct track_tie){
		.inode = st.st_ino,
		.size = (uint64_t)st.st_size,
		.modified = ns_of(&st.st_mtim),
		.changed = ns_of(&st.st_ctim),
	};
	return 0;
}

/* The clock that file systems take their times from. */
static uint64_t file_now(struct track_image *image)
{
	struct timespec ts;

	(void)image;
	clock_gettime(CLOCK_REALTIME_COARSE, &ts);
	return ns_of(&ts);
}

/*
 * A file's times have the ticks of that clock: somebody's change in the same tick as our last one
 * would not be seen. So the tick has to end, which it mostly has, while we have the lock.
 */
static int file_look(struct track_image *image, bool last, struct track_tie *ret)
{
	int fd = container_of(image, struct file_image, image)->fd;
	/* The longest tick of Linux (100 Hz). */
	const struct timespec tick = { .tv_nsec = 10000000 };
	int r = tie_of(fd, ret);

	for (int i = 0; last && r >= 0 && i < 3; i++) {
		if (MAX(ret->modified, ret->changed) < file_now(image))
			break;
		nanosleep(&tick, NULL);
	}
	return r;
}

static void file_free(struct track_image *image)
{
	struct file_image *f = container_of(image, struct file_image, image);

	close(f->fd);
	free(f);
}

static int image_new(int fd, struct file_image **ret, struct track_tie *ret_tie, struct error *err)
{
	struct file_image *f = calloc(1, sizeof(*f));
	int r;

	if (!f)
		return error_set(err, -ENOMEM, "out of memory");
	f->image = (struct track_image){ file_look, file_now, file_free };
	f->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	r = f->fd < 0 ? -errno : tie_of(f->fd, ret_tie);
	if (r < 0) {
		file_free(&f->image);
		return error_errno(err, r, "cannot look at the image");
	}
	*ret = f;
	return 0;
}

/* --- paths --- */

char *track_path(const char *path)
{
	_cleanup_free_ char *real = realpath(path, NULL);
	char *track;

	return real && asprintf(&track, "%s" SUFFIX, real) >= 0 ? track : NULL;
}

int track_delete(const char *path, struct error *err)
{
	_cleanup_free_ char *track = track_path(path);
	int r = track && unlink(track) >= 0 ? 0 : -errno;

	if (r == -ENOENT)
		return error_set(err, r, "the changes of \"%s\" are not tracked", path);
	if (r >= 0)
		r = folder_sync(track);
	return r < 0 ? error_errno(err, r, "cannot delete \"%s" SUFFIX "\"", path) : 0;
}

/* --- opening --- */

void track_release(struct track_file *f)
{
	if (!f)
		return;
	if (f->partial)
		unlink(f->partial);
	if (f->image)
		f->image->image.free(&f->image->image);
	store_close(f->store);
	free(f->path);
	free(f->partial);
	free(f);
}

static int make(struct track_file *f, struct error *err)
{
	int fd;

	if (access(f->path, F_OK) >= 0)
		return error_set(err, -EEXIST, "the changes are tracked already, in \"%s\"",
				 f->path);
	if (asprintf(&f->partial, "%s.partial", f->path) < 0) {
		f->partial = NULL;
		return error_set(err, -ENOMEM, "out of memory");
	}
	/* A rest of an earlier try: whoever has the image's lock is alone with it. */
	unlink(f->partial);
	fd = open(f->partial, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	return fd < 0 ? error_errno(err, -errno, "cannot make \"%s\"", f->partial) : fd;
}

static int file_open(struct track_file *f, struct loop *loop, struct error *err)
{
	const struct store_file_options so = { .read_only = f->options.read_only, .no_lock = true };
	int fd, r;

	if (f->options.create) {
		fd = make(f, err);
	} else {
		fd = open(f->path, (so.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);
		if (fd < 0)
			fd = error_errno(err, -errno,
					 "cannot open \"%s\", which has the image's changes; make "
					 "it accessible, or delete it",
					 f->path);
	}
	if (fd < 0)
		return fd;
	r = store_file_open(loop, fd, &so, &f->store, err);
	return r < 0 ? error_prefix(err, "%s", f->path) : 0;
}

/* Whether there is a track file to open or to make. */
static int wanted(const struct disk_open_options *o, int fd, const char *track, struct error *err)
{
	bool there = access(track, F_OK) >= 0;
	struct stat st;

	if (o->tracking == DISK_TRACK_WRITES && o->read_only)
		return 0;
	if (o->tracking == DISK_TRACK_ASK && !there)
		return error_set(err, -ENOENT,
				 "the changes are not tracked; enable that first, and make a full "
				 "backup");
	if (!there && o->tracking != DISK_TRACK_CREATE)
		return 0;
	if (o->read_only && o->tracking == DISK_TRACK_CREATE)
		return error_set(err, -EROFS, "the image is opened for reading only");
	if (fstat(fd, &st) < 0 || S_ISREG(st.st_mode))
		return 1;
	return o->tracking == DISK_TRACK_WRITES
		       ? 0
		       : error_set(err, -ENOTSUP,
				   "only images in files are tracked: who writes to a block device "
				   "leaves no trace by which that would be noticed");
}

/* The store of a track file that somebody else has opened. */
static int passed_open(struct track_file *f, struct loop *loop, int fd, struct error *err)
{
	const struct store_file_options so = { .read_only = f->options.read_only, .no_lock = true };
	int r = store_file_open(loop, fd, &so, &f->store, err);

	if (r >= 0 && f->options.create && f->store->size)
		r = error_set(err, -EEXIST, "it is not empty");
	return r < 0 ? error_prefix(err, "the track file that was passed") : 0;
}

static int passed_find(struct loop *loop, int fd, const struct disk_open_options *options,
		       struct track_file **ret, struct error *err)
{
	struct track_file *f = calloc(1, sizeof(*f));
	int track_fd = options->track_fd, r;

	if (!f) {
		close(track_fd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	f->options.read_only = options->read_only;
	f->options.create = options->track_new;
	r = image_new(fd, &f->image, &f->options.tie, err);
	if (r < 0)
		close(track_fd);
	else
		r = passed_open(f, loop, track_fd, err);
	if (r < 0)
		track_release(f);
	else
		*ret = f;
	return r;
}

int track_find(struct loop *loop, int fd, const char *path, const struct disk_open_options *options,
	       struct track_file **ret, struct error *err)
{
	_cleanup_free_ char *track = NULL;
	struct track_file *f;
	int r;

	if (options->tracking == DISK_TRACK_OFF)
		return 0;
	if (options->tracking == DISK_TRACK_PASSED)
		return passed_find(loop, fd, options, ret, err);
	if (options->follow || options->alone)
		track = track_path(path);
	r = track ? wanted(options, fd, track, err) : 0;
	if (r <= 0)
		return r;
	f = calloc(1, sizeof(*f));
	if (!f)
		return error_set(err, -ENOMEM, "out of memory");
	f->path = steal_ptr(track);
	f->options.read_only = options->read_only;
	f->options.create = options->tracking == DISK_TRACK_CREATE;
	r = image_new(fd, &f->image, &f->options.tie, err);
	if (r >= 0)
		r = file_open(f, loop, err);
	if (r < 0)
		track_release(f);
	else
		*ret = f;
	return r;
}

/* The name comes last: a track file that can be seen is whole. */
static int show(struct track_file *f, struct error *err)
{
	int r = rename(f->partial, f->path) < 0 ? -errno : folder_sync(f->path);

	return r < 0 ? error_errno(err, r, "cannot make \"%s\"", f->path) : 0;
}

int track_attach(struct track_file *f, struct disk **disk, struct error *err)
{
	struct disk *tracked;
	int r = track_new(*disk, f->store, &f->image->image, &f->options, &tracked, err);

	if (r < 0) {
		error_prefix(err, "%s", f->path ? f->path : "the track file that was passed");
		track_release(f);
		return r;
	}
	f->store = NULL;
	f->image = NULL;
	*disk = tracked;
	if (f->partial)
		r = show(f, err);
	if (r >= 0) {
		free(f->partial);
		f->partial = NULL;
	}
	track_release(f);
	return r;
}

int track_begin(struct disk **disk, int image_fd, int fd, struct error *err)
{
	const struct disk_open_options o = { .track_fd = fd, .track_new = true };
	struct track_file *f;
	int r = passed_find((*disk)->loop, image_fd, &o, &f, err);

	return r < 0 ? r : track_attach(f, disk, err);
}
