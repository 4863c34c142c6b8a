// SPDX-License-Identifier: MIT
/*
 * Local files into an image. Each file gets its name when it is whole, and the first error ends
 * the copy. New files belong to root, one that replaces another to who had that; the bits that
 * lend an owner's rights are not taken over.
 */
#include "vhdtool/cp.h"

#include "lib/cleanup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int copy(struct cp *c, const struct cp_source *from, uint64_t dir, const char *to,
		unsigned depth, struct error *err);

static uint8_t buffer[FILES_PAYLOAD_MAX];

static struct files_info info_of(const struct stat *st)
{
	return (struct files_info){
		.size = (uint64_t)st->st_size,
		.mtime = st->st_mtim.tv_sec,
		.mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
		.mode = st->st_mode & 01777,
	};
}

/* --- files --- */

/* Where the next data is, and its length; 0 = there is none. */
static int next_data(int fd, uint64_t *at, uint64_t size, uint64_t *ret_length)
{
	off_t data = lseek(fd, (off_t)*at, SEEK_DATA), hole;

	*ret_length = 0;
	if (data < 0 && errno == ENXIO)
		return 0;
	if (data < 0) { /* no such thing on this file system */
		*ret_length = size - *at;
		return 0;
	}
	hole = lseek(fd, data, SEEK_HOLE);
	if (hole < 0)
		return -errno;
	*at = (uint64_t)data;
	*ret_length = MIN((uint64_t)hole, size) - MIN(*at, size);
	return 0;
}

static int copy_stretch(struct cp *c, int fd, uint64_t at, uint64_t length, uint64_t size,
			struct error *err)
{
	while (length) {
		ssize_t n = pread(fd, buffer, MIN(length, sizeof(buffer)), (off_t)at);
		int r;

		if (n <= 0)
			return error_errno(err, n ? -errno : -EIO, "cannot read byte %llu",
					   (unsigned long long)at);
		r = session_write(c->session, buffer, (size_t)n, at, err);
		if (r < 0)
			return r;
		at += (uint64_t)n;
		length -= (uint64_t)n;
		if (!(c->recursive ? !tool_interrupted() : tool_progress(NULL, at, size)))
			return error_set(err, -ECANCELED, "stopped");
	}
	return 0;
}

static int copy_bytes(struct cp *c, int fd, uint64_t size, struct error *err)
{
	uint64_t at = 0, length;
	int r = 0;

	for (; at < size && r >= 0; at += length) {
		r = next_data(fd, &at, size, &length);
		if (r < 0)
			return error_errno(err, r, "cannot read");
		if (!length)
			break;
		r = copy_stretch(c, fd, at, length, size, err);
	}
	return r;
}

/* What has the name in the image may be replaced when it is a file. */
static int check_old(struct cp *c, uint64_t dir, const char *to, struct files_info *info,
		     struct error *err)
{
	struct files_node old;
	int r = session_child(c->session, dir, to, &old, err);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (old.info.kind == FILES_FOLDER)
		return error_set(err, -EISDIR, "a folder in the image has that name");
	if (!c->force)
		return error_set(err, -EEXIST, "it is in the image already; --force replaces it");
	if (old.info.kind != FILES_REGULAR)
		return error_set(err, -EEXIST,
				 "what is in the image is no plain file; name the "
				 "file that is meant");
	info->uid = old.info.uid;
	info->gid = old.info.gid;
	return 0;
}

static int copy_file(struct cp *c, int fd, struct files_info *info, uint64_t dir, const char *to,
		     struct error *err)
{
	struct error first, more = { 0 };
	int r = check_old(c, dir, to, info, err);

	if (r >= 0)
		r = session_create(c->session, dir, to, info, err);
	if (r < 0)
		return r;
	r = copy_bytes(c, fd, info->size, err);
	if (r >= 0)
		r = session_finish(c->session, info, err);
	if (r >= 0 || session_is_gone(c->session))
		return r;
	first = *err;
	if (session_discard(c->session, &more) < 0)
		return error_set(err, r, "%.200s; and removing what was copied failed: %.200s",
				 first.message, more.message);
	return error_set(err, r, "%.300s; what was copied of the file is removed", first.message);
}

/* --- folders and links --- */

static int copy_link(struct cp *c, const struct cp_source *from, const struct files_info *info,
		     uint64_t dir, const char *to, struct error *err)
{
	char target[FILES_LINK_MAX];
	struct files_node old;
	ssize_t n = readlinkat(from->dirfd, from->name, target, sizeof(target) - 1);
	int r;

	if (n < 0)
		return error_errno(err, -errno, "cannot read the link");
	target[n] = 0;
	r = session_child(c->session, dir, to, &old, err);
	if (r >= 0)
		return error_set(err, -EEXIST, "something in the image has that name");
	if (r != -ENOENT)
		return r;
	r = session_symlink(c->session, dir, to, target, info, err);
	if (r != -ENOTSUP)
		return r;
	cp_left_out(c, from->path, err->message);
	return 0;
}

static int make_folder(struct cp *c, const struct files_info *info, uint64_t dir, const char *to,
		       uint64_t *ret, struct error *err)
{
	struct files_node old;
	int r = session_child(c->session, dir, to, &old, err);

	if (r == -ENOENT)
		return session_mkdir(c->session, dir, to, info, ret, err);
	if (r < 0)
		return r;
	if (old.info.kind != FILES_FOLDER)
		return error_set(err, -ENOTDIR, "a file in the image has that name");
	if (!c->force)
		return error_set(err, -EEXIST,
				 "it is in the image already; --force copies into "
				 "it");
	*ret = old.id;
	return 0;
}

static void close_folder(DIR **d)
{
	if (*d)
		closedir(*d);
}

static int copy_entries(struct cp *c, int fd, const char *path, uint64_t dir, unsigned depth,
			struct error *err)
{
	_cleanup_(close_folder) DIR *d = fdopendir(fd);
	struct dirent *e;
	int r = 0;

	if (!d) {
		r = -errno;
		close(fd);
		return error_errno(err, r, "cannot read the folder");
	}
	while (r >= 0 && (errno = 0, e = readdir(d))) {
		_cleanup_free_ char *inside = NULL;
		struct cp_source s = { .dirfd = fd, .name = e->d_name };

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (asprintf(&inside, "%s/%s", path, e->d_name) < 0) {
			inside = NULL;
			return error_set(err, -ENOMEM, "out of memory");
		}
		s.path = inside;
		r = copy(c, &s, dir, e->d_name, depth + 1, err);
	}
	return r >= 0 && errno ? error_errno(err, -errno, "cannot read the folder") : r;
}

static int copy_folder(struct cp *c, const struct cp_source *from, int fd,
		       const struct files_info *info, uint64_t dir, const char *to, unsigned depth,
		       struct error *err)
{
	uint64_t made;
	int r;

	if (!c->recursive)
		r = error_set(err, -EISDIR, "it is a folder; --recursive copies it");
	else if (depth > CP_DEPTH_MAX)
		r = error_set(err, -ELOOP, "folders are more than %u deep", CP_DEPTH_MAX);
	else
		r = make_folder(c, info, dir, to, &made, err);
	if (r < 0) {
		close(fd);
		return r;
	}
	r = copy_entries(c, fd, from->path, made, depth, err);
	return r < 0 ? r : session_set_time(c->session, made, info, err);
}

/* --- everything --- */

/* `fd` is taken. */
static int copy_open(struct cp *c, const struct cp_source *from, int fd, uint64_t dir,
		     const char *to, unsigned depth, struct error *err)
{
	_cleanup_close_ int own = fd;
	struct files_info info;
	struct stat st;

	if (fstat(own, &st) < 0)
		return error_errno(err, -errno, "cannot look at it");
	info = info_of(&st);
	if (S_ISREG(st.st_mode))
		return copy_file(c, own, &info, dir, to, err);
	if (S_ISDIR(st.st_mode))
		return copy_folder(c, from, steal_fd(&own), &info, dir, to, depth, err);
	cp_left_out(c, from->path, "a device, pipe or socket");
	return 0;
}

static int copy(struct cp *c, const struct cp_source *from, uint64_t dir, const char *to,
		unsigned depth, struct error *err)
{
	char shown[FILES_SHOWN_MAX];
	struct error own = { 0 };
	struct files_info info;
	struct stat st;
	int fd, r;

	/* What is no file is not opened, only a device could mind. */
	if (fstatat(from->dirfd, from->name, &st, from->follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0) {
		r = error_errno(&own, -errno, "cannot look at it");
	} else if (S_ISLNK(st.st_mode)) {
		info = info_of(&st);
		r = copy_link(c, from, &info, dir, to, &own);
	} else {
		fd = openat(from->dirfd, from->name,
			    O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC |
				    (from->follow ? 0 : O_NOFOLLOW));
		r = fd < 0 ? error_errno(&own, -errno, "cannot open it")
			   : copy_open(c, from, fd, dir, to, depth, &own);
	}
	if (r >= 0) {
		c->copied++;
		return 0;
	}
	if (own.message[0] == '"')
		return error_set(err, r, "%s", own.message);
	return error_set(err, r, "\"%.150s\": %s", files_shown(from->path, shown), own.message);
}

int cp_in(struct cp *c, const struct cp_source *from, uint64_t dir, const char *to,
	  struct error *err)
{
	return copy(c, from, dir, to, 0, err);
}
