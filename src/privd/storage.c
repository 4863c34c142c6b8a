// SPDX-License-Identifier: MIT
/*
 * Operation "open": an image below one of the configured folders, or a configured disk. Inside of a
 * folder no symbolic link is followed and nothing leads out of it; a file with several names is
 * refused, as the others may lie elsewhere. A file is looked at before it is opened, so that
 * nothing happens to what is no image. What was configured is root's word: links in that are
 * followed.
 */
#include "lib/cleanup.h"
#include "privd/operation.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/openat2.h>
#include <seccomp.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

struct open_arguments {
	char path[PATH_MAX];
	const char *folder; /* configured; NULL = a disk */
	const char *below;  /* in `path` */
	bool write;
};

/* What of `path` is below `folder`; NULL = it is elsewhere. */
static const char *path_below(const char *path, const char *folder)
{
	size_t n = strlen(folder);

	while (n && folder[n - 1] == '/')
		n--;
	if (strncmp(path, folder, n) || path[n] != '/')
		return NULL;
	path += n + strspn(path + n, "/");
	return *path ? path : NULL;
}

static bool disk_configured(const struct privd_config *c, const char *path)
{
	for (unsigned i = 0; i < c->device_count; i++)
		if (!strcmp(c->devices[i], path))
			return true;
	return false;
}

static int open_decode(struct privd_call *c, struct error *err)
{
	struct open_arguments *a = c->arguments;
	const char *path;
	int write = 0, r;

	r = privd_unpack(c, err, "{s:s, s?b}", "path", &path, "write", &write);
	if (r < 0)
		return r;
	if (*path != '/' || strlen(path) >= sizeof(a->path))
		return error_set(err, -EINVAL,
				 "the path must begin at the root, and be shorter than %zu",
				 sizeof(a->path));
	strcpy(a->path, path);
	a->write = write;
	if (disk_configured(c->config, path))
		return 0;
	for (unsigned i = 0; i < c->config->storage_count && !a->below; i++) {
		a->folder = c->config->storage[i];
		a->below = path_below(a->path, a->folder);
	}
	return a->below ? 0
			: error_set(err, -EACCES,
				    "\"%.300s\" is in no folder that partita-privd may open files "
				    "in; name one in its configuration, or give the file to the "
				    "service's group",
				    path);
}

static int open_below(int folder, const char *path, int flags)
{
	struct open_how how = { .flags = (uint64_t)flags,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
					   RESOLVE_NO_MAGICLINKS };

	return (int)syscall(SYS_openat2, folder, path, &how, sizeof(how));
}

/* A handle that nothing can be done with but looking. */
static int handle_open(const struct open_arguments *a, struct error *err)
{
	_cleanup_close_ int folder = -1;
	int fd;

	if (!a->folder) {
		fd = openat(AT_FDCWD, a->path, O_PATH | O_CLOEXEC);
		return fd < 0 ? error_errno(err, -errno, "cannot open \"%.300s\"", a->path) : fd;
	}
	folder = openat(AT_FDCWD, a->folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		return error_errno(err, -errno, "cannot open the folder \"%.300s\"", a->folder);
	fd = open_below(folder, a->below, O_PATH | O_CLOEXEC);
	if (fd < 0 && (errno == ELOOP || errno == EXDEV))
		return error_set(err, -EACCES,
				 "\"%.300s\" goes through a link or out of \"%.150s\"", a->path,
				 a->folder);
	return fd < 0 ? error_errno(err, -errno, "cannot open \"%.300s\"", a->path) : fd;
}

static int handle_judge(const struct open_arguments *a, int handle, struct error *err)
{
	struct stat st;

	if (fstat(handle, &st) < 0)
		return error_errno(err, -errno, "cannot look at \"%.300s\"", a->path);
	if (!a->folder)
		return S_ISBLK(st.st_mode)
			       ? 0
			       : error_set(err, -EACCES, "\"%.300s\" is no disk", a->path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EACCES, "\"%.300s\" is no file", a->path);
	if (st.st_nlink != 1)
		return error_set(err, -EACCES,
				 "\"%.300s\" has %lu names, and only one of them is known to be in "
				 "a folder for images",
				 a->path, (unsigned long)st.st_nlink);
	return 0;
}

static int open_run(struct privd_call *c, struct error *err)
{
	const struct open_arguments *a = c->arguments;
	_cleanup_close_ int handle = handle_open(a, err);
	char again[48];
	int fd, r = handle;

	if (r >= 0)
		r = handle_judge(a, handle, err);
	if (r < 0)
		return r;
	snprintf(again, sizeof(again), "/proc/self/fd/%d", handle);
	fd = openat(AT_FDCWD, again, (a->write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%.300s\"%s", a->path,
				   a->write ? " for writing" : "");
	c->answer_fds[c->answer_fd_count++] = fd;
	return 0;
}

static const int calls[] = { SCMP_SYS(openat), SCMP_SYS(openat2) };

static const struct privd_operation operations[] = {
	{ "open", sizeof(struct open_arguments), 0, 0, open_decode, open_run },
};

const struct privd_group privd_storage = {
	operations,
	ARRAY_SIZE(operations),
	{ calls, ARRAY_SIZE(calls), NULL, 0 },
	BIT(CAP_DAC_OVERRIDE),
	NULL,
};
