// SPDX-License-Identifier: MIT
/* See folder.h. */
#include "lib/folder.h"

#include "lib/cleanup.h"
#include "lib/types.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

int folder_sync(const char *path)
{
	const char *slash = strrchr(path, '/');
	_cleanup_free_ char *folder =
		slash ? strndup(path, MAX((size_t)(slash - path), 1u)) : strdup(".");
	_cleanup_close_ int fd = -1;

	if (!folder)
		return -ENOMEM;
	fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int folder_make_all(const char *path, struct error *err)
{
	_cleanup_free_ char *part = strdup(path);
	struct stat st;

	if (!part)
		return error_set(err, -ENOMEM, "out of memory");
	if (!stat(path, &st) && S_ISDIR(st.st_mode))
		return 0;
	for (char *slash = part; slash;) {
		int r = 0;

		slash = strchr(slash + 1, '/');
		if (slash)
			*slash = '\0';
		if (*part && !mkdir(part, slash ? 0755 : 0700))
			r = folder_sync(part);
		else if (*part && errno != EEXIST)
			r = -errno;
		if (r < 0)
			return error_errno(err, r, "cannot make the folder \"%s\"", part);
		if (slash)
			*slash = '/';
	}
	return 0;
}
