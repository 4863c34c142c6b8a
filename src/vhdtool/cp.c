// SPDX-License-Identifier: MIT
/* vhd cp: files out of an image, and into it, without mounting it. */
#include "vhdtool/cp.h"
#include "vhdtool/verbs.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static struct {
	struct files_open open;
	bool recursive, force;
} o;

static const struct tool_option table[] = {
	{ "recursive", TOOL_FLAG, &o.recursive, NULL, "folders, with all that is in them", 'r' },
	{ "force", TOOL_FLAG, &o.force, NULL, "replace files, and copy into folders that are there",
	  'f' },
	{ "partition", TOOL_NUMBER, &o.open.partition, "N", "this partition (the one that fits)" },
	TOOL_IMAGE_OPTIONS(o.open.image),
	{ 0 },
};

void cp_left_out(struct cp *c, const char *path, const char *why)
{
	char shown[FILES_SHOWN_MAX];

	fprintf(stderr, "vhd cp: \"%s\" is left out: %s\n", files_shown(path, shown), why);
	c->failed++;
}

/* The last name of a path, without slashes behind it; "" when there is none. The caller frees. */
static char *last_name(const char *path)
{
	size_t end = strlen(path), from;

	while (end && path[end - 1] == '/')
		end--;
	from = end;
	while (from && path[from - 1] != '/')
		from--;
	return strndup(path + from, end - from);
}

/* What stands before it: "." when there is nothing. The caller frees. */
static char *folder_of(const char *path)
{
	size_t end = strlen(path);

	while (end && path[end - 1] == '/')
		end--;
	while (end && path[end - 1] != '/')
		end--;
	return end ? strndup(path, end) : strdup(".");
}

static bool is_name(const char *name)
{
	return *name && strcmp(name, ".") && strcmp(name, "..");
}

/* --- out --- */

/* The folder and the name that `to` means for something that is called `name`. */
static int find_local(struct cp *c, const char *to, const char *name, char **ret_name,
		      struct error *err)
{
	_cleanup_free_ char *own = last_name(to), *folder = folder_of(to);
	struct stat st;
	int fd;

	if (!own || !folder)
		return error_set(err, -ENOMEM, "out of memory");
	if (!stat(to, &st) && S_ISDIR(st.st_mode)) {
		fd = open(to, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		c->merge = !is_name(name);
		*ret_name = strdup(is_name(name) ? name : ".");
	} else {
		fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		*ret_name = steal_ptr(own);
	}
	if (fd < 0)
		return error_errno(err, -errno, "cannot open the folder of \"%s\"", to);
	return fd;
}

static int copy_out(struct cp *c, const char *path, const char *to, struct error *err)
{
	_cleanup_free_ char *name = last_name(path), *local = NULL;
	_cleanup_close_ int dirfd = -1;
	struct files_node node;
	int r;

	if (!name)
		return error_set(err, -ENOMEM, "out of memory");
	if (*name && !is_name(name))
		return error_set(err, -EINVAL, "\"%s\" does not say a name", path);
	r = session_find(c->session, path, path[strlen(path) - 1] == '/', &node, err);
	if (r >= 0)
		r = dirfd = find_local(c, to, name, &local, err);
	if (r < 0)
		return r;
	if (!local || !*local)
		return error_set(err, -EINVAL, "\"%s\" does not say a name", to);
	return cp_out(c, &node, dirfd, local, path, err);
}

/* --- in --- */

/* The folder in the image and the name that `to` means for something that is called `name`. */
static int find_inside(struct cp *c, const char *to, const char *name, uint64_t *ret_dir,
		       char **ret_name, struct error *err)
{
	_cleanup_free_ char *own = last_name(to), *folder = folder_of(to);
	struct files_node node;
	int r;

	if (!own || !folder)
		return error_set(err, -ENOMEM, "out of memory");
	r = session_find(c->session, to, true, &node, err);
	if (r >= 0 && node.info.kind == FILES_FOLDER) {
		if (!is_name(name))
			return error_set(err, -EINVAL, "\"%s\" does not say a name", name);
		*ret_name = strdup(name);
	} else {
		if (to[strlen(to) - 1] == '/' || !is_name(own))
			return r < 0 ? r : error_set(err, -ENOTDIR, "\"%s\" is no folder", to);
		r = session_find(c->session, folder, true, &node, err);
		if (r < 0)
			return r;
		*ret_name = steal_ptr(own);
	}
	*ret_dir = node.id;
	return *ret_name ? 0 : error_set(err, -ENOMEM, "out of memory");
}

static int copy_in(struct cp *c, const char *path, const char *to, struct error *err)
{
	const struct cp_source from = {
		.dirfd = AT_FDCWD,
		.name = path,
		.path = path,
		.follow = true,
	};
	_cleanup_free_ char *name = last_name(path), *inside = NULL;
	uint64_t dir = 0;
	int r;

	if (!name)
		return error_set(err, -ENOMEM, "out of memory");
	if (access(path, R_OK) < 0)
		return error_errno(err, -errno, "cannot read \"%s\"", path);
	r = find_inside(c, to, name, &dir, &inside, err);
	return r < 0 ? r : cp_in(c, &from, dir, inside, err);
}

/* --- both --- */

/* IMAGE:/PATH becomes two texts; what has no ":/" is a local path. */
static char *split(char *argument)
{
	char *colon = strstr(argument, ":/");

	if (!colon || colon == argument)
		return NULL;
	*colon = 0;
	return colon + 1;
}

static int run(unsigned count, char **arguments, struct error *err)
{
	char *from = split(arguments[0]), *to = split(arguments[1]);
	struct cp c = { .recursive = o.recursive, .force = o.force };
	struct error closing = { 0 };
	int r, closed;

	(void)count;
	if (!from == !to)
		return tool_usage(err, from ? "both are in images; copy through a local file"
					    : "one of both is IMAGE:/PATH");
	o.open.verb = "cp";
	o.open.writable = to;
	tool_catch_signals();
	r = session_open(to ? arguments[1] : arguments[0], &o.open, &c.session, err);
	if (r < 0)
		return r;
	if (to)
		r = copy_in(&c, arguments[0], to, err);
	else
		r = copy_out(&c, from, arguments[1], err);
	tool_progress_end();
	seen_free(&c.seen);
	closed = session_close(c.session, &closing);
	if (r >= 0 && closed < 0)
		return error_set(err, closed, "%s", closing.message);
	if (r < 0 && closed < 0)
		fprintf(stderr, "vhd cp: %s\n", closing.message);
	if (r >= 0 && c.failed)
		r = error_set(err, -EIO, "%u of %llu are left out", c.failed,
			      (unsigned long long)(c.copied + c.failed));
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_cp = {
	.name = "cp",
	.synopsis = "IMAGE:/PATH LOCAL | LOCAL IMAGE:/PATH [OPTION...]",
	.summary = "copy files out of an image or into it",
	.notes =
		"Reads ext2/3/4, FAT and NTFS and writes ext2/3/4 and NTFS, without root. Nothing\n"
		"that is there is replaced without --force.\n\n"
		"Examples:\n"
		"  vhd cp disk.vhdx:/var/log log --recursive\n"
		"  vhd cp interfaces disk.vhdx:/etc/network/ --force\n",
	.options = table,
	.arguments_min = 2,
	.arguments_max = 2,
	.run = run,
};
