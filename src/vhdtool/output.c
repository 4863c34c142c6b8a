// SPDX-License-Identifier: MIT
/* See output.h. */
#include "vhdtool/output.h"

#include "lib/cleanup.h"
#include "lib/folder.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

int output_begin(struct output *out, const char *path, bool force, bool resumable,
		 struct error *err)
{
	int n;

	if (!force && !access(path, F_OK))
		return error_set(err, -EEXIST, "\"%s\" exists; --force replaces it", path);
	out->path = path;
	n = resumable
		    ? snprintf(out->partial, sizeof(out->partial), "%s.partial", path)
		    : snprintf(out->partial, sizeof(out->partial), "%s.partial-%d", path, getpid());
	if (n >= (int)sizeof(out->partial))
		return error_set(err, -ENAMETOOLONG, "the name \"%.60s...\" is too long", path);
	return 0;
}

int output_end(struct output *out, int result, bool durable, struct error *err)
{
	if (result >= 0 && rename(out->partial, out->path) < 0)
		result = error_errno(err, -errno, "cannot rename \"%s\" to \"%s\"", out->partial,
				     out->path);
	if (result < 0) {
		unlink(out->partial);
		return result;
	}
	result = durable ? folder_sync(out->path) : 0;
	return result < 0 ? error_errno(err, result, "the name of \"%s\" may not be durable",
					out->path)
			  : 0;
}

const char *output_format(const char *path, const char *given)
{
	const char *dot = strrchr(path, '.');

	if (given)
		return given;
	if (dot && (!strcasecmp(dot, ".raw") || !strcasecmp(dot, ".img")))
		return "raw";
	return dot && !strcasecmp(dot, ".vhd") ? "vhd" : "vhdx";
}

/* Length of the folder's part of a path, its last slash included. */
static int folder_length(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? (int)(slash - path + 1) : 0;
}

int output_check_space(const char *path, uint64_t need, struct error *err)
{
	char folder[PATH_MAX];
	struct statvfs st;
	uint64_t room;

	snprintf(folder, sizeof(folder), "./%.*s", folder_length(path), path);
	if (statvfs(path[0] == '/' ? folder + 2 : folder, &st) < 0)
		return error_errno(err, -errno, "cannot look at the folder of \"%s\"", path);
	room = (uint64_t)st.f_bavail * st.f_frsize;
	if (need <= room)
		return 0;
	return error_set(err, -ENOSPC,
			 "\"%s\" needs up to %llu MiB, its file system has %llu MiB left: %llu MiB "
			 "are missing; free them, or choose another place (--no-space-check tries "
			 "all the same)",
			 path, (unsigned long long)(need / MIB), (unsigned long long)(room / MIB),
			 (unsigned long long)((need - room + MIB - 1) / MIB));
}
