// SPDX-License-Identifier: MIT
/* See create.h. */
#include "vhd/create.h"

#include "lib/cleanup.h"
#include "lib/folder.h"
#include "vhd/chain.h"
#include "vhd/vhd.h"
#include "vhd/vhdx.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

/* What the image takes over from the disk that it is a child of. */
struct parentage {
	struct disk_parent ref;
	struct guid disk_id;
	uint32_t physical_sector;
};

static int make_raw(int fd, const struct image_create_options *o, const struct parentage *p,
		    struct error *err)
{
	if (p)
		return error_set(err, -EINVAL, "a raw image cannot have a parent; choose vhdx");
	if (o->block_size || o->logical_sector)
		return error_set(err, -EINVAL, "a raw image has neither blocks nor sectors");
	if (!o->size || o->size > INT64_MAX || o->size % 512)
		return error_set(err, -EINVAL,
				 "a raw image has a size that is a multiple of 512 bytes");
	if (ftruncate(fd, (off_t)o->size) < 0 ||
	    (o->fixed && fallocate(fd, 0, 0, (off_t)o->size) < 0) || fsync(fd) < 0)
		return error_errno(err, -errno, "cannot make an image of %llu bytes",
				   (unsigned long long)o->size);
	return 0;
}

static int make_vhdx(int fd, const struct image_create_options *o, const struct parentage *p,
		     struct error *err)
{
	struct vhdx_create_options vo = {
		.size = o->size,
		.block_size = (uint32_t)o->block_size,
		.logical_sector = (uint32_t)o->logical_sector,
		.fixed = o->fixed,
		.named_later = o->later,
	};

	if (o->block_size > UINT32_MAX || o->logical_sector > UINT32_MAX)
		return error_set(err, -EINVAL,
				 "blocks have 1M to 256M and sectors 512 or 4096 bytes");
	if (p) {
		vo.parent = &p->ref;
		vo.id = p->disk_id;
		vo.physical_sector = p->physical_sector;
	}
	return vhdx_create(fd, &vo, err);
}

/* A VHD has its own id; the disk has none, and sectors of 512 bytes. */
static int make_vhd(int fd, const struct image_create_options *o, const struct parentage *p,
		    struct error *err)
{
	struct vhd_create_options vo = {
		.size = o->size,
		.block_size = (uint32_t)o->block_size,
		.kind = o->fixed ? VHD_FIXED : VHD_DYNAMIC,
		.named_later = o->later,
	};

	if (o->block_size > UINT32_MAX || (o->logical_sector && o->logical_sector != 512))
		return error_set(err, -EINVAL, "a VHD has sectors of 512 bytes; choose vhdx");
	if (p) {
		vo.kind = VHD_DIFFERENCING;
		vo.parent = (struct disk_identity){ p->ref.id, p->ref.timestamp };
		vo.relative = p->ref.relative;
		vo.absolute = p->ref.absolute;
	}
	return vhd_create(fd, &vo, err);
}

static const struct maker {
	const char *format;
	int (*make)(int fd, const struct image_create_options *o, const struct parentage *p,
		    struct error *err);
} makers[] = {
	{ "raw", make_raw },
	{ "vhd", make_vhd },
	{ "vhdx", make_vhdx },
};

static int file_make(const struct maker *m, const char *path, const struct image_create_options *o,
		     const struct parentage *p, struct error *err)
{
	_cleanup_close_ int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	int r;

	if (fd < 0)
		return error_errno(err, -errno, "cannot make \"%s\"", path);
	r = m->make(fd, o, p, err);
	if (r >= 0 && !o->later) {
		r = folder_sync(path);
		if (r < 0)
			error_errno(err, r, "cannot make the name of the new image durable");
	}
	if (r < 0) {
		error_prefix(err, "%s", path);
		unlink(path);
	}
	return r;
}

/* A child has its parent's sectors and identity, and its size unless another one is asked for. */
static int child_make(const struct maker *m, const char *path, const struct image_create_options *o,
		      struct disk *parent, struct error *err)
{
	struct image_create_options child = *o;
	struct parentage p = {
		.disk_id = parent->geometry.id,
		.physical_sector = parent->geometry.physical_sector,
	};
	int r;

	if (o->fixed)
		return error_set(err, -EINVAL, "a differencing image cannot be fixed");
	if (strcmp(parent->ops->name, m->format))
		return error_set(err, -EINVAL, "\"%s\" is %s, so its child must be too, not %s",
				 o->parent, parent->ops->name, m->format);
	child.size = o->size ? o->size : parent->geometry.size;
	if (!o->logical_sector)
		child.logical_sector = parent->geometry.logical_sector;
	r = chain_name_parent(parent, o->parent, o->later ? o->later : path, &p.ref, err);
	if (r < 0)
		return r;
	r = file_make(m, path, &child, &p, err);
	disk_parent_deinit(&p.ref);
	return r;
}

int image_create(const char *path, const struct image_create_options *o, struct error *err)
{
	const struct disk_open_options open_options = {
		.read_only = true,
		.follow = true,
		.search = o->search,
	};
	const struct maker *m = NULL;
	struct disk *parent;
	int fd, r;

	for (size_t i = 0; i < ARRAY_SIZE(makers); i++)
		if (!strcmp(makers[i].format, o->format))
			m = &makers[i];
	if (!m)
		return error_set(err, -ENOTSUP, "images of format \"%s\" cannot be made",
				 o->format);
	if (!o->parent)
		return file_make(m, path, o, NULL, err);
	fd = open(o->parent, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_errno(err, -errno, "cannot open the parent \"%s\"", o->parent);
	r = disk_open(NULL, fd, o->parent, &open_options, &parent, err);
	if (r < 0)
		return r;
	r = child_make(m, path, o, parent, err);
	(void)disk_close(parent, NULL);
	return r;
}
