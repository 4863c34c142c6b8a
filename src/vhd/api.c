// SPDX-License-Identifier: MIT
/*
 * The public library (include/partita/vhd.h) on the disk layer: each handle has an event loop of
 * its own, which runs while a call waits. One mutex a handle makes threads take turns.
 */
#include <partita/vhd.h>

#include "lib/cleanup.h"
#include "vhd/create.h"
#include "vhd/disk_drive.h"
#include "vhd/track.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

struct partita_vhd {
	pthread_mutex_t lock;
	struct loop *loop;
	struct disk *disk;
};

const char *partita_vhd_version(void)
{
	return PARTITA_VHD_VERSION;
}

static int tell(struct partita_vhd_error *ret, int code, const struct error *err)
{
	if (code < 0 && ret) {
		ret->code = code;
		memcpy(ret->message, err->message, sizeof(ret->message));
	}
	return code;
}
_Static_assert(sizeof(((struct error *)0)->message) ==
		       sizeof(((struct partita_vhd_error *)0)->message),
	       "an error's words are copied whole");

/* --- opening and closing --- */

static void handle_free(struct partita_vhd *vhd)
{
	loop_free(vhd->loop);
	pthread_mutex_destroy(&vhd->lock);
	free(vhd);
}

static int open_disk(struct loop *loop, const char *path, const struct disk_open_options *o,
		     struct disk **ret, struct error *err)
{
	int fd = open(path, (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);

	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", path);
	return disk_open(loop, fd, path, o, ret, err);
}

int partita_vhd_open(const char *path, unsigned flags, const char *const *search,
		     struct partita_vhd **ret, struct partita_vhd_error *err)
{
	const struct disk_open_options o = {
		.read_only = flags & PARTITA_VHD_READ_ONLY,
		.direct = flags & PARTITA_VHD_DIRECT,
		.alone = flags & PARTITA_VHD_ALONE,
		.follow = !(flags & PARTITA_VHD_ALONE),
		.search = search,
		.tracking = flags & PARTITA_VHD_TRACK ? DISK_TRACK_ASK : DISK_TRACK_WRITES,
	};
	struct partita_vhd *vhd = calloc(1, sizeof(*vhd));
	struct error why = { 0 };
	int r;

	if (!vhd)
		return tell(err, error_set(&why, -ENOMEM, "out of memory"), &why);
	pthread_mutex_init(&vhd->lock, NULL);
	r = loop_new(64, &vhd->loop, &why);
	if (r >= 0)
		r = open_disk(vhd->loop, path, &o, &vhd->disk, &why);
	if (r < 0)
		handle_free(vhd);
	else
		*ret = vhd;
	return tell(err, r, &why);
}

int partita_vhd_close(struct partita_vhd *vhd, struct partita_vhd_error *err)
{
	struct error why = { 0 };
	int r;

	if (!vhd)
		return 0;
	r = disk_close(vhd->disk, &why);
	handle_free(vhd);
	return tell(err, r, &why);
}

void partita_vhd_get_info(struct partita_vhd *vhd, struct partita_vhd_info *ret)
{
	LOCK_SCOPE(&vhd->lock);
	*ret = (struct partita_vhd_info){
		.size = vhd->disk->geometry.size,
		.logical_sector = vhd->disk->geometry.logical_sector,
		.physical_sector = vhd->disk->geometry.physical_sector,
		.read_only = vhd->disk->geometry.read_only,
	};
	memcpy(ret->id, &vhd->disk->geometry.id, sizeof(ret->id));
	snprintf(ret->format, sizeof(ret->format), "%s", vhd->disk->ops->name);
	for (const struct disk *d = vhd->disk; d; d = d->below)
		ret->depth++;
}

/* --- requests --- */

static bool range_valid(const struct disk *disk, uint64_t n, uint64_t offset)
{
	return !((offset | n) % disk->geometry.logical_sector) &&
	       range_inside(offset, n, disk->geometry.size);
}

int partita_vhd_read(struct partita_vhd *vhd, void *buffer, size_t n, uint64_t offset)
{
	LOCK_SCOPE(&vhd->lock);
	if (!range_valid(vhd->disk, n, offset))
		return -EINVAL;
	return n ? drive_read(vhd->disk, buffer, n, offset) : 0;
}

int partita_vhd_write(struct partita_vhd *vhd, const void *buffer, size_t n, uint64_t offset)
{
	LOCK_SCOPE(&vhd->lock);
	if (!range_valid(vhd->disk, n, offset))
		return -EINVAL;
	return n ? drive_write(vhd->disk, buffer, n, offset, 0) : 0;
}

int partita_vhd_flush(struct partita_vhd *vhd)
{
	LOCK_SCOPE(&vhd->lock);
	return drive_flush(vhd->disk);
}

int partita_vhd_trim(struct partita_vhd *vhd, uint64_t n, uint64_t offset)
{
	LOCK_SCOPE(&vhd->lock);
	if (!range_valid(vhd->disk, n, offset))
		return -EINVAL;
	return n ? drive_trim(vhd->disk, n, offset) : 0;
}

int partita_vhd_zero(struct partita_vhd *vhd, uint64_t n, uint64_t offset)
{
	LOCK_SCOPE(&vhd->lock);
	if (!range_valid(vhd->disk, n, offset))
		return -EINVAL;
	return n ? drive_zero(vhd->disk, n, offset) : 0;
}

int partita_vhd_extent(struct partita_vhd *vhd, uint64_t offset, enum partita_vhd_extent *ret_kind,
		       uint64_t *ret_length)
{
	static const enum partita_vhd_extent kinds[] = {
		[DISK_EXTENT_DATA] = PARTITA_VHD_DATA,
		[DISK_EXTENT_ZERO] = PARTITA_VHD_ZERO,
		[DISK_EXTENT_HOLE] = PARTITA_VHD_HOLE,
	};
	enum disk_extent_kind kind;
	uint64_t length;
	int r;

	LOCK_SCOPE(&vhd->lock);
	if (offset >= vhd->disk->geometry.size || offset % vhd->disk->geometry.logical_sector)
		return -EINVAL;
	r = vhd->disk->ops->extent(vhd->disk, offset, &kind, &length);
	if (r < 0)
		return r;
	*ret_kind = kinds[kind];
	*ret_length = MIN(length, vhd->disk->geometry.size - offset);
	return 0;
}

int partita_vhd_resize(struct partita_vhd *vhd, uint64_t size, struct partita_vhd_error *err)
{
	struct error why = { 0 };
	int r;

	LOCK_SCOPE(&vhd->lock);
	if (vhd->disk->ops->resize)
		r = vhd->disk->ops->resize(vhd->disk, size, &why);
	else
		r = error_set(&why, -ENOTSUP, "%s images keep their size", vhd->disk->ops->name);
	return tell(err, r, &why);
}

/* --- tracking changes --- */

_Static_assert(PARTITA_VHD_POINTS_MAX == TRACK_POINTS_MAX, "the header says so");

static int tracked(struct partita_vhd *vhd, struct track **ret, struct error *err)
{
	*ret = track_of(vhd->disk);
	return *ret ? 0 : error_set(err, -ENOTTY, "the image was not opened to track its changes");
}

int partita_vhd_track_enable(const char *path, const char *const *search, uint8_t ret_id[16],
			     struct partita_vhd_error *err)
{
	const struct disk_open_options o = { .follow = true,
					     .search = search,
					     .tracking = DISK_TRACK_CREATE };
	struct error why = { 0 };
	struct loop *loop;
	struct disk *disk;
	struct guid id;
	int r = loop_new(64, &loop, &why), closed;

	if (r < 0)
		return tell(err, r, &why);
	r = open_disk(loop, path, &o, &disk, &why);
	if (r >= 0) {
		r = track_point(track_of(disk), &id, &why);
		closed = disk_close(disk, r < 0 ? NULL : &why);
		r = r < 0 ? r : closed;
	}
	loop_free(loop);
	if (r >= 0)
		memcpy(ret_id, &id, sizeof(id));
	return tell(err, r, &why);
}

int partita_vhd_track_disable(const char *path, struct partita_vhd_error *err)
{
	const struct disk_open_options o = { .alone = true, .tracking = DISK_TRACK_OFF };
	struct error why = { 0 };
	struct loop *loop;
	struct disk *disk;
	int r = loop_new(8, &loop, &why);

	if (r < 0)
		return tell(err, r, &why);
	r = open_disk(loop, path, &o, &disk, &why);
	if (r >= 0) {
		r = track_delete(path, &why);
		disk_close(disk, NULL);
	}
	loop_free(loop);
	return tell(err, r, &why);
}

int partita_vhd_track_point(struct partita_vhd *vhd, uint8_t ret_id[16],
			    struct partita_vhd_error *err)
{
	struct error why = { 0 };
	struct track *t;
	struct guid id;
	int r;

	LOCK_SCOPE(&vhd->lock);
	r = tracked(vhd, &t, &why);
	if (r >= 0)
		r = track_point(t, &id, &why);
	if (r >= 0)
		memcpy(ret_id, &id, sizeof(id));
	return tell(err, r, &why);
}

int partita_vhd_track_drop(struct partita_vhd *vhd, const uint8_t id[16],
			   struct partita_vhd_error *err)
{
	struct error why = { 0 };
	struct track *t;
	struct guid point;
	int r;

	memcpy(&point, id, sizeof(point));
	LOCK_SCOPE(&vhd->lock);
	r = tracked(vhd, &t, &why);
	if (r >= 0)
		r = track_drop(t, &point, &why);
	return tell(err, r, &why);
}

int partita_vhd_track_list(struct partita_vhd *vhd, struct partita_vhd_point *points, unsigned room,
			   unsigned *ret_count, struct partita_vhd_error *err)
{
	const struct track_point *p;
	struct error why = { 0 };
	struct track *t;
	int r;

	LOCK_SCOPE(&vhd->lock);
	r = tracked(vhd, &t, &why);
	if (r < 0)
		return tell(err, r, &why);
	p = track_points(t, ret_count);
	for (unsigned i = 0; i < MIN(room, *ret_count); i++) {
		memcpy(points[i].id, &p[i].id, sizeof(points[i].id));
		points[i].time = p[i].time;
		points[i].lost = p[i].lost != TRACK_KNOWN;
	}
	return 0;
}

int partita_vhd_track_query(struct partita_vhd *vhd, const uint8_t id[16], uint64_t offset,
			    uint64_t n, int (*changed)(void *context, uint64_t offset, uint64_t n),
			    void *context, struct partita_vhd_error *err)
{
	struct error why = { 0 };
	struct track *t;
	struct guid point;
	int r;

	memcpy(&point, id, sizeof(point));
	LOCK_SCOPE(&vhd->lock);
	r = tracked(vhd, &t, &why);
	if (r >= 0)
		r = track_query(t, &point, offset, n, changed, context, &why);
	return tell(err, r, &why);
}

/* --- creating --- */

int partita_vhd_create(const char *path, const struct partita_vhd_create_options *options,
		       struct partita_vhd_error *err)
{
	const struct image_create_options o = {
		.format = options->format ? options->format : "vhdx",
		.size = options->size,
		.block_size = options->block_size,
		.logical_sector = options->logical_sector,
		.fixed = options->fixed,
		.parent = options->parent,
		.search = options->search,
	};
	struct error why = { 0 };

	return tell(err, image_create(path, &o, &why), &why);
}
