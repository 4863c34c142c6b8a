// SPDX-License-Identifier: MIT
/* See vm_saved.h. Only names are dealt with here: a worker writes and reads what is in the file. */
#include "daemon/vm_saved.h"

#include "lib/cleanup.h"
#include "lib/folder.h"
#include "lib/types.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define PARTIAL VM_SAVED_STATE ".partial"
#define USED    VM_SAVED_STATE ".used"

static char *path_of(const char *folder, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", folder, name) < 0 ? NULL : path;
}

static bool there(const char *folder, const char *name)
{
	_cleanup_free_ char *path = path_of(folder, name);
	struct stat st;

	return path && !lstat(path, &st) && S_ISREG(st.st_mode);
}

enum vm_saved vm_saved_look(const char *folder)
{
	if (there(folder, VM_SAVED_STATE))
		return VM_SAVED_WHOLE;
	if (there(folder, USED))
		return VM_SAVED_USED;
	return there(folder, PARTIAL) ? VM_SAVED_PARTIAL : VM_SAVED_NONE;
}

int vm_saved_create(const char *folder, int *ret_fd, struct error *err)
{
	_cleanup_free_ char *path = path_of(folder, PARTIAL), *sub = path_of(folder, "saved");
	int fd, r;

	if (!path || !sub)
		return error_set(err, -ENOMEM, "out of memory");
	r = folder_make_all(sub, err);
	if (r < 0)
		return r;
	if (unlink(path) < 0 && errno != ENOENT)
		return error_errno(err, -errno, "cannot replace \"%s\"", path);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return error_errno(err, -errno, "cannot make \"%s\"", path);
	*ret_fd = fd;
	return 0;
}

static int move(const char *folder, const char *from, const char *to, struct error *err)
{
	_cleanup_free_ char *a = path_of(folder, from), *b = path_of(folder, to);
	int r;

	if (!a || !b)
		return error_set(err, -ENOMEM, "out of memory");
	if (rename(a, b) < 0)
		return error_errno(err, -errno, "cannot rename \"%s\" to \"%s\"", a, b);
	r = folder_sync(b);
	return r < 0 ? error_errno(err, r, "cannot make \"%s\" durable", b) : 0;
}

int vm_saved_keep(const char *folder, struct error *err)
{
	return move(folder, PARTIAL, VM_SAVED_STATE, err);
}

int vm_saved_use(const char *folder, struct error *err)
{
	return move(folder, VM_SAVED_STATE, USED, err);
}

/* The folder stays while there is anything else in it. */
static void folder_tidy(const char *folder)
{
	_cleanup_free_ char *sub = path_of(folder, "saved");

	if (sub && !rmdir(sub))
		(void)!folder_sync(sub);
}

static int file_remove(const char *folder, const char *name, struct error *err)
{
	_cleanup_free_ char *path = path_of(folder, name);
	int r;

	if (!path)
		return error_set(err, -ENOMEM, "out of memory");
	if (unlink(path) < 0)
		return errno == ENOENT || errno == ENOTDIR
			       ? 0
			       : error_errno(err, -errno, "cannot delete \"%s\"", path);
	r = folder_sync(path);
	return r < 0 ? error_errno(err, r, "cannot make it durable that \"%s\" is gone", path) : 0;
}

void vm_saved_abandon(const char *folder)
{
	(void)!file_remove(folder, PARTIAL, NULL);
	folder_tidy(folder);
}

int vm_saved_remove(const char *folder, struct error *err)
{
	static const char *const names[] = { VM_SAVED_STATE, USED, PARTIAL };
	int r = 0;

	for (size_t i = 0; i < ARRAY_SIZE(names) && r >= 0; i++)
		r = file_remove(folder, names[i], err);
	folder_tidy(folder);
	return r;
}
