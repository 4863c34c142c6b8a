// SPDX-License-Identifier: MIT
/*
 * Chains of differencing images. An image names its parent by identity and by paths; the paths are
 * tried in order (relative to the image first, then absolute, then the caller's folders), and what
 * is found must have the identity: a parent that was changed or replaced would silently give wrong
 * data. Windows' paths have backslashes and drive letters; here only their parts are of use.
 */
#include "vhd/chain.h"

#include "lib/cleanup.h"
#include "vhd/store.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

/* --- what an image says of its parent --- */

void disk_parent_deinit(struct disk_parent *parent)
{
	free(parent->relative);
	free(parent->volume);
	free(parent->absolute);
	*parent = (struct disk_parent){ 0 };
}

static bool text_copy(const char *from, char **to)
{
	*to = from ? strdup(from) : NULL;
	return !from || *to;
}

int disk_parent_copy(const struct disk_parent *from, struct disk_parent *to)
{
	*to = (struct disk_parent){ .id = from->id,
				    .id2 = from->id2,
				    .timestamp = from->timestamp };
	if (text_copy(from->relative, &to->relative) && text_copy(from->volume, &to->volume) &&
	    text_copy(from->absolute, &to->absolute))
		return 0;
	disk_parent_deinit(to);
	return -ENOMEM;
}

/* --- paths --- */

static char *joined(const char *folder, size_t folder_length, const char *name)
{
	char *path;

	if (asprintf(&path, "%.*s%s%s", (int)folder_length, folder, folder_length ? "/" : "",
		     name) < 0)
		return NULL;
	return path;
}

/* The folder of a path, without its last slash ("" = the current one, "/" stays). */
static size_t folder_length(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? MAX((size_t)(slash - path), 1) : 0;
}

/* A copy with slashes; a drive letter or volume name is cut off where `relative` is wanted. */
static char *unix_path(const char *windows)
{
	char *path = strdup(windows);

	for (char *p = path; p && *p; p++)
		if (*p == '\\')
			*p = '/';
	return path;
}

static const char *last_part(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

struct search {
	const char *image; /* the child's path */
	const struct disk_open_options *options;
	char *found;
	int fd;
	int error; /* of one that is there, but cannot be opened; 0 = none */
};

static bool try_path(struct search *s, char *path)
{
	if (!path)
		return false;
	s->fd = open(path, O_RDONLY | O_CLOEXEC);
	if (s->fd >= 0) {
		s->found = path;
		return true;
	}
	if (errno != ENOENT && errno != ENOTDIR)
		s->error = errno;
	free(path);
	return false;
}

static bool try_relative(struct search *s, const char *windows)
{
	_cleanup_free_ char *path = windows ? unix_path(windows) : NULL;

	if (!path)
		return false;
	if (path[0] == '/')
		return try_path(s, strdup(path));
	return try_path(s, joined(s->image, folder_length(s->image), path));
}

/* An absolute path of this host; Windows' own only have their last part in common with it. */
static bool try_absolute(struct search *s, const char *text)
{
	return text && text[0] == '/' && try_path(s, strdup(text));
}

static bool try_folders(struct search *s, const char *text)
{
	_cleanup_free_ char *path = text ? unix_path(text) : NULL;
	const char *const *folder = s->options->search;

	if (!path || !*last_part(path))
		return false;
	if (try_path(s, joined(s->image, folder_length(s->image), last_part(path))))
		return true;
	for (; folder && *folder; folder++)
		if (try_path(s, joined(*folder, strlen(*folder), last_part(path))))
			return true;
	return false;
}

static const char *best_name(const struct disk_parent *p)
{
	if (p->relative)
		return p->relative;
	return p->absolute ? p->absolute : p->volume ? p->volume : "(no path)";
}

static int parent_find(struct search *s, const struct disk_parent *p, struct error *err)
{
	char id[GUID_TEXT_SIZE];

	if (try_relative(s, p->relative) || try_absolute(s, p->absolute) ||
	    try_absolute(s, p->volume) || try_folders(s, p->relative) ||
	    try_folders(s, p->absolute) || try_folders(s, p->volume))
		return 0;
	if (s->error)
		return error_errno(err, -s->error, "its parent \"%s\" (%s) cannot be opened",
				   best_name(p), guid_format(&p->id, id));
	return error_set(err, -ENOENT,
			 "its parent \"%s\" (%s) is not there; put it beside the image, name its "
			 "folder, or rebase the image",
			 best_name(p), guid_format(&p->id, id));
}

/* --- opening --- */

static bool identity_right(const struct disk_parent *p, struct disk *parent)
{
	struct disk_identity id = { 0 };

	if (parent->ops->identity)
		parent->ops->identity(parent, &id);
	return guid_equal(&id.id, &p->id) ||
	       (!guid_is_zero(&p->id2) && guid_equal(&id.id, &p->id2));
}

int chain_parent_check(struct disk *child, struct disk *parent, struct error *err)
{
	const struct disk_parent *p = child->ops->parent(child);
	struct disk_identity id = { 0 };
	char want[GUID_TEXT_SIZE], have[GUID_TEXT_SIZE];

	if (!identity_right(p, parent)) {
		if (parent->ops->identity)
			parent->ops->identity(parent, &id);
		return error_set(err, -ESTALE,
				 "it is not the parent that its child was made for: it has the "
				 "identity %s, wanted is %s; it was changed or replaced, and the "
				 "child's data is of no use with it",
				 guid_format(&id.id, have), guid_format(&p->id, want));
	}
	if (parent->geometry.logical_sector > child->geometry.logical_sector)
		return error_set(err, -ENOTSUP,
				 "it has sectors of %u bytes, its child has sectors of %u",
				 parent->geometry.logical_sector, child->geometry.logical_sector);
	return 0;
}

/* The files of a chain, so that one that leads into itself is noticed. */
struct visited {
	const struct visited *below;
	dev_t dev;
	ino_t ino;
	unsigned depth;
};

static int visit(struct visited *v, int fd, struct error *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return error_errno(err, -errno, "cannot look at the parent");
	v->dev = st.st_dev;
	v->ino = st.st_ino;
	v->depth = v->below ? v->below->depth + 1 : 1;
	if (v->depth > CHAIN_DEPTH_MAX)
		return error_set(err, -ELOOP, "the chain has more than %u images", CHAIN_DEPTH_MAX);
	for (const struct visited *o = v->below; o; o = o->below)
		if (o->dev == v->dev && o->ino == v->ino)
			return error_set(err, -ELOOP, "the chain leads back into itself");
	return 0;
}

static int parents_open(struct disk *disk, const char *path,
			const struct disk_open_options *options, const struct visited *above,
			struct error *err)
{
	const struct disk_parent *p = disk->ops->parent(disk);
	struct disk_open_options o = *options;
	struct search s = { .image = path, .options = options, .fd = -1 };
	struct visited here = { .below = above };
	struct disk *parent = NULL;
	int r = parent_find(&s, p, err);

	if (r < 0)
		return r;
	o.read_only = true;
	o.format = NULL;
	o.alone = true;
	o.tracking = DISK_TRACK_OFF;
	r = visit(&here, s.fd, err);
	if (r >= 0 && options->found)
		options->found(options->found_context, s.found, s.fd);
	if (r < 0)
		close(s.fd);
	else
		r = disk_open(disk->loop, s.fd, s.found, &o, &parent, err);
	if (r >= 0)
		r = chain_parent_check(disk, parent, err);
	if (r >= 0 && parent->ops->parent && parent->ops->parent(parent))
		r = parents_open(parent, s.found, options, &here, err);
	if (r < 0) {
		disk_close(parent, NULL);
		error_prefix(err, "%s", s.found);
	} else {
		disk->ops->set_parent(disk, parent);
	}
	free(s.found);
	return r;
}

int chain_parent_path(struct disk *disk, const char *path, const struct disk_open_options *options,
		      char **ret, struct error *err)
{
	struct search s = { .image = path, .options = options, .fd = -1 };
	int r = parent_find(&s, disk->ops->parent(disk), err);

	if (r < 0)
		return r;
	close(s.fd);
	*ret = s.found;
	return 0;
}

int chain_open_parents(struct disk *disk, int fd, const char *path,
		       const struct disk_open_options *options, struct error *err)
{
	struct visited here = { 0 };
	int r;

	if (options->alone || !disk->ops->parent || !disk->ops->parent(disk))
		return 0;
	if (!options->follow)
		return error_set(err, -ENOTSUP,
				 "this is a differencing image: it holds only what differs from a "
				 "parent image, which cannot be found from here; open it by its "
				 "path");
	r = visit(&here, fd, err);
	return r < 0 ? r : parents_open(disk, path, options, &here, err);
}

/* --- the other way: naming a parent --- */

/* From the child's folder to the parent's file, with backslashes; NULL when they share no root. */
static char *relative_path(const char *child, const char *parent)
{
	size_t common = 0, ups = 0, n;
	char *path, *out;

	for (size_t i = 0; child[i] && child[i] == parent[i]; i++)
		if (child[i] == '/')
			common = i + 1;
	for (const char *p = child + common; *p; p++)
		ups += *p == '/';
	n = strlen(parent + common);
	path = malloc(2 + 3 * ups + n + 1);
	if (!path)
		return NULL;
	out = path;
	if (!ups)
		out = stpcpy(out, ".\\");
	while (ups--)
		out = stpcpy(out, "..\\");
	memcpy(out, parent + common, n + 1);
	for (; *out; out++)
		if (*out == '/')
			*out = '\\';
	return path;
}

int chain_name_parent_real(struct disk *parent, const char *parent_path, const char *child_path,
			   struct disk_parent *ret, struct error *err)
{
	struct disk_identity id = { 0 };

	if (!parent->ops->identity)
		return error_set(err, -EINVAL,
				 "\"%s\" is a %s image, which has no identity: only VHD and VHDX "
				 "images can have children",
				 parent_path, parent->ops->name);
	parent->ops->identity(parent, &id);
	*ret = (struct disk_parent){ .id = id.id, .timestamp = id.timestamp };
	ret->relative = relative_path(child_path, parent_path);
	ret->absolute = strdup(parent_path);
	if (ret->relative && ret->absolute)
		return 0;
	disk_parent_deinit(ret);
	return error_set(err, -ENOMEM, "out of memory");
}

int chain_name_parent(struct disk *parent, const char *parent_path, const char *child_path,
		      struct disk_parent *ret, struct error *err)
{
	_cleanup_free_ char *folder = strndup(child_path, folder_length(child_path));
	_cleanup_free_ char *real = realpath(parent_path, NULL), *real_folder = NULL, *child = NULL;

	if (!real)
		return error_errno(err, -errno, "cannot find \"%s\"", parent_path);
	real_folder = folder ? realpath(*folder ? folder : ".", NULL) : NULL;
	if (!real_folder)
		return error_errno(err, -errno, "cannot find the folder of \"%s\"", child_path);
	child = joined(real_folder, strcmp(real_folder, "/") ? strlen(real_folder) : 0,
		       last_part(child_path));
	if (!child)
		return error_set(err, -ENOMEM, "out of memory");
	return chain_name_parent_real(parent, real, child, ret, err);
}
