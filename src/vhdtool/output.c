// SPDX-License-Identifier: MIT
/* See output.h. */
#include "vhdtool/output.h"

#include "lib/cleanup.h"
#include "vhd/disk.h"
#include "vhd/vhd.h"
#include "vhd/vhdx.h"

#include <errno.h>
#include <fcntl.h>
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

int output_end(struct output *out, int result, struct error *err)
{
	if (result >= 0 && rename(out->partial, out->path) < 0)
		result = error_errno(err, -errno, "cannot rename \"%s\" to \"%s\"", out->partial,
				     out->path);
	if (result < 0)
		unlink(out->partial);
	return result;
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

static int make_raw(int fd, const struct output_options *o, struct error *err)
{
	if (o->parent)
		return error_set(err, -EINVAL, "a raw image cannot have a parent; choose vhdx");
	if (o->block_size || o->sector_size)
		return error_set(err, -EINVAL, "a raw image has neither blocks nor sectors");
	if (ftruncate(fd, (off_t)o->size) < 0 ||
	    (o->fixed && fallocate(fd, 0, 0, (off_t)o->size) < 0) || fsync(fd) < 0)
		return error_errno(err, -errno, "cannot make an image of %llu bytes",
				   (unsigned long long)o->size);
	return 0;
}

static int make_vhdx(int fd, const struct output_options *o, struct error *err)
{
	const struct vhdx_create_options vo = {
		.size = o->size,
		.block_size = (uint32_t)o->block_size,
		.logical_sector = (uint32_t)o->sector_size,
		.fixed = o->fixed,
		.parent = o->parent,
		.id = o->id,
	};

	if (o->block_size > UINT32_MAX || o->sector_size > UINT32_MAX)
		return error_set(err, -EINVAL,
				 "blocks have 1M to 256M and sectors 512 or 4096 bytes");
	return vhdx_create(fd, &vo, err);
}

/* A VHD has its own id; the disk has none, and sectors of 512 bytes. */
static int make_vhd(int fd, const struct output_options *o, struct error *err)
{
	struct vhd_create_options vo = {
		.size = o->size,
		.block_size = (uint32_t)o->block_size,
		.kind = o->fixed ? VHD_FIXED : VHD_DYNAMIC,
	};

	if (o->block_size > UINT32_MAX || (o->sector_size && o->sector_size != 512))
		return error_set(err, -EINVAL, "a VHD has sectors of 512 bytes; choose vhdx");
	if (o->parent) {
		vo.kind = VHD_DIFFERENCING;
		vo.parent = (struct disk_identity){ o->parent->id, o->parent->timestamp };
		vo.relative = o->parent->relative;
		vo.absolute = o->parent->absolute;
	}
	return vhd_create(fd, &vo, err);
}

static const struct maker {
	const char *format;
	int (*make)(int fd, const struct output_options *o, struct error *err);
} makers[] = {
	{ "raw", make_raw },
	{ "vhd", make_vhd },
	{ "vhdx", make_vhdx },
};

int output_make(const char *path, const struct output_options *o, struct error *err)
{
	const struct maker *m = NULL;
	_cleanup_close_ int fd = -1;
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(makers); i++)
		if (!strcmp(makers[i].format, o->format))
			m = &makers[i];
	if (!m)
		return error_set(err, -ENOTSUP, "images of format %s cannot be made", o->format);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		return error_errno(err, -errno, "cannot make \"%s\"", path);
	r = m->make(fd, o, err);
	if (r < 0) {
		error_prefix(err, "%s", path);
		unlink(path);
	}
	return r;
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
