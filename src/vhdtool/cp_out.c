// SPDX-License-Identifier: MIT
/*
 * Out of an image into local folders. The names come from a stranger: each is one name in a folder
 * that is open, made anew under a name of ours and renamed when whole; no link is ever followed, so
 * nothing outside of the target is reached. What cannot be copied is told and left out.
 */
#include "vhdtool/cp.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static int copy(struct cp *c, const struct files_node *node, int dirfd, const char *name,
		const char *path, unsigned depth, struct error *err);

static uint8_t buffer[FILES_PAYLOAD_MAX];

static void times_of(const struct files_info *info, struct timespec ret[2])
{
	ret[0] = (struct timespec){ .tv_nsec = UTIME_OMIT };
	ret[1] = (struct timespec){ .tv_sec = info->mtime, .tv_nsec = info->mtime_ns };
}

/* Without the bits that would give away the rights of whoever copies. */
static int set_mode(int fd, const struct files_info *info)
{
	return info->mode == FILES_NO_MODE ? 0 : fchmod(fd, info->mode & 0777);
}

static mode_t first_mode(const struct files_info *info, mode_t otherwise)
{
	return info->mode == FILES_NO_MODE ? otherwise : otherwise & 0700;
}

/* Whether the name could be given without taking it from anything. */
static int rename_to_new(int dirfd, const char *from, const char *name)
{
	struct stat st;

	if (!renameat2(dirfd, from, dirfd, name, RENAME_NOREPLACE))
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (!fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW))
		return -EEXIST;
	return renameat(dirfd, from, dirfd, name) < 0 ? -errno : 0;
}

static int put_name(struct cp *c, int dirfd, const char *from, const char *name, struct error *err)
{
	int r;

	if (!c->force)
		r = rename_to_new(dirfd, from, name);
	else
		r = renameat(dirfd, from, dirfd, name) < 0 ? -errno : 0;
	if (r == -EEXIST)
		return error_set(err, r, "it is there already; --force replaces it");
	return r < 0 ? error_errno(err, r, "cannot give it its name") : 0;
}

static int write_all(int fd, const uint8_t *data, size_t n, uint64_t offset)
{
	while (n) {
		ssize_t done = pwrite(fd, data, n, (off_t)offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return done ? -errno : -EIO;
		data += done;
		n -= (size_t)done;
		offset += (uint64_t)done;
	}
	return 0;
}

static int copy_bytes(struct cp *c, const struct files_node *node, int fd, struct error *err)
{
	struct files_piece p;

	for (uint64_t at = 0; at < node->info.size; at += p.length) {
		int r = session_read(c->session, node->id, buffer, sizeof(buffer), at, &p, err);

		if (r < 0)
			return r;
		if (!p.length)
			return error_set(err, -EIO, "it ends at byte %llu of %llu",
					 (unsigned long long)at,
					 (unsigned long long)node->info.size);
		if (!p.hole)
			r = write_all(fd, buffer, p.length, at);
		if (r < 0)
			return error_errno(err, r, "cannot write");
		if (!(c->recursive ? !tool_interrupted()
				   : tool_progress(NULL, at + p.length, node->info.size)))
			return error_set(err, -ECANCELED, "stopped");
	}
	return ftruncate(fd, (off_t)node->info.size) < 0 ? error_errno(err, -errno, "cannot write")
							 : 0;
}

static int copy_file(struct cp *c, const struct files_node *node, int dirfd, const char *name,
		     struct error *err)
{
	struct timespec times[2];
	char partial[40];
	_cleanup_close_ int fd = -1;
	int r;

	snprintf(partial, sizeof(partial), ".vhd-cp.%d.partial", (int)getpid());
	fd = openat(dirfd, partial, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
		    first_mode(&node->info, 0666));
	if (fd < 0)
		return error_errno(err, -errno, "cannot make a file");
	r = copy_bytes(c, node, fd, err);
	times_of(&node->info, times);
	if (r >= 0 && (set_mode(fd, &node->info) < 0 || futimens(fd, times) < 0))
		r = error_errno(err, -errno, "cannot set mode and time");
	if (r >= 0)
		r = put_name(c, dirfd, partial, name, err);
	if (r < 0)
		unlinkat(dirfd, partial, 0);
	return r;
}

static int copy_link(struct cp *c, const struct files_node *node, int dirfd, const char *name,
		     struct error *err)
{
	char target[FILES_LINK_MAX], partial[40];
	struct timespec times[2];
	int r = session_readlink(c->session, node->id, target, err);

	if (r < 0)
		return r;
	snprintf(partial, sizeof(partial), ".vhd-cp.%d.partial", (int)getpid());
	if (symlinkat(target, dirfd, partial) < 0)
		return error_errno(err, -errno, "cannot make a symbolic link");
	times_of(&node->info, times);
	(void)utimensat(dirfd, partial, times, AT_SYMLINK_NOFOLLOW);
	r = put_name(c, dirfd, partial, name, err);
	if (r < 0)
		unlinkat(dirfd, partial, 0);
	return r;
}

/* --- folders --- */

static bool is_name(const char *name)
{
	return *name && !strchr(name, '/') && strcmp(name, ".") && strcmp(name, "..");
}

static int copy_entries(struct cp *c, const struct files_list *list, int fd, const char *path,
			unsigned depth, struct error *err)
{
	int r = 0;

	for (size_t i = 0; i < list->count && r >= 0; i++) {
		const struct files_entry *e = &list->entries[i];
		_cleanup_free_ char *inside = NULL;

		if (asprintf(&inside, "%s%s%s", path, path[strlen(path) - 1] == '/' ? "" : "/",
			     e->name) < 0) {
			inside = NULL;
			return error_set(err, -ENOMEM, "out of memory");
		}
		if (e->bad)
			cp_left_out(c, inside, "its inode is damaged");
		else if (!is_name(e->name))
			cp_left_out(c, inside, "a name that no file can have");
		else
			r = copy(c, &e->node, fd, e->name, inside, depth + 1, err);
	}
	return r;
}

static int open_folder(struct cp *c, const struct files_info *info, int dirfd, const char *name,
		       bool may_be_there, struct error *err)
{
	int fd;

	if (mkdirat(dirfd, name, first_mode(info, 0777)) < 0) {
		if (errno != EEXIST)
			return error_errno(err, -errno, "cannot make the folder");
		if (!may_be_there && !c->force)
			return error_set(err, -EEXIST,
					 "it is there already; --force copies into it");
	}
	fd = openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? error_errno(err, -errno, "cannot open the folder") : fd;
}

static int copy_folder(struct cp *c, const struct files_node *node, int dirfd, const char *name,
		       const char *path, unsigned depth, struct error *err)
{
	_cleanup_(files_list_free) struct files_list list = { 0 };
	struct timespec times[2];
	_cleanup_close_ int fd = -1;
	int r;

	if (!c->recursive)
		return error_set(err, -EISDIR, "it is a folder; --recursive copies it");
	if (depth > CP_DEPTH_MAX)
		return error_set(err, -ELOOP, "folders are more than %u deep", CP_DEPTH_MAX);
	r = seen_add(&c->seen, node->id);
	if (r <= 0)
		return error_set(err, r < 0 ? r : -ELOOP,
				 r < 0 ? "out of memory" : "a folder that is in two places");
	r = session_list(c->session, node->id, &list, err);
	if (r >= 0)
		r = fd = open_folder(c, &node->info, dirfd, name, !depth && c->merge, err);
	if (r < 0)
		return r;
	r = copy_entries(c, &list, fd, path, depth, err);
	times_of(&node->info, times);
	if (r >= 0 && !(c->merge && !depth) &&
	    (set_mode(fd, &node->info) < 0 || futimens(fd, times) < 0))
		r = error_errno(err, -errno, "cannot set mode and time");
	return r;
}

/* --- everything --- */

/* Whether the next thing can be copied although this one could not. */
static bool goes_on(struct cp *c, int r)
{
	return r != -ECANCELED && r != -ENOSPC && r != -EDQUOT && r != -EROFS && r != -ENOMEM &&
	       !session_is_gone(c->session);
}

static int copy(struct cp *c, const struct files_node *node, int dirfd, const char *name,
		const char *path, unsigned depth, struct error *err)
{
	char shown[FILES_SHOWN_MAX];
	struct error own = { 0 };
	unsigned kind = node->info.kind;
	int r;

	if (kind == FILES_OTHER) {
		cp_left_out(c, path, "a device, pipe or socket");
		return 0;
	}
	if (kind == FILES_FOLDER)
		r = copy_folder(c, node, dirfd, name, path, depth, &own);
	else if (kind == FILES_SYMLINK)
		r = copy_link(c, node, dirfd, name, &own);
	else
		r = copy_file(c, node, dirfd, name, &own);
	if (r >= 0) {
		c->copied++;
		return 0;
	}
	if (depth && goes_on(c, r)) {
		cp_left_out(c, path, own.message);
		return 0;
	}
	/* Of a folder's errors the innermost says where. */
	if (own.message[0] == '"')
		return error_set(err, r, "%s", own.message);
	return error_set(err, r, "\"%.150s\": %s", files_shown(path, shown), own.message);
}

int cp_out(struct cp *c, const struct files_node *node, int dirfd, const char *name,
	   const char *path, struct error *err)
{
	return copy(c, node, dirfd, name, path, 0, err);
}
