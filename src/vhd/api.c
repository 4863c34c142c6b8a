// SPDX-License-Identifier: MIT
/*
 * The public library (include/partita/vhd.h) on the disk layer: each handle has an event loop of
 * its own, which runs while a call waits. One mutex a handle makes threads take turns.
 */
#include "vhd/api.h"

#include "lib/cleanup.h"
#include "vhd/disk_drive.h"
#include "vhd/track.h"

#include <errno.h>
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

/* --- opening and closing --- */

static void handle_free(struct partita_vhd *vhd)
{
	loop_free(vhd->loop);
	pthread_mutex_destroy(&vhd->lock);
	free(vhd);
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
		return api_tell(err, error_set(&why, -ENOMEM, "out of memory"), &why);
	pthread_mutex_init(&vhd->lock, NULL);
	r = loop_new(64, &vhd->loop, &why);
	if (r >= 0)
		r = api_open(vhd->loop, path, &o, &vhd->disk, &why);
	if (r < 0)
		handle_free(vhd);
	else
		*ret = vhd;
	return api_tell(err, r, &why);
}

int partita_vhd_close(struct partita_vhd *vhd, struct partita_vhd_error *err)
{
	struct error why = { 0 };
	int r;

	if (!vhd)
		return 0;
	r = disk_close(vhd->disk, &why);
	handle_free(vhd);
	return api_tell(err, r, &why);
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
	return api_tell(err, r, &why);
}

int partita_vhd_compact(struct partita_vhd *vhd, int zeros,
			const struct partita_vhd_progress *progress, struct partita_vhd_error *err)
{
	const struct disk_compact_options o = {
		.zeros = zeros,
		.progress = progress ? api_progress : NULL,
		.context = (void *)(uintptr_t)progress,
	};
	struct error why = { 0 };
	int r;

	LOCK_SCOPE(&vhd->lock);
	if (vhd->disk->geometry.read_only)
		r = error_set(&why, -EROFS, "the image was opened only for reading");
	else if (vhd->disk->ops->compact)
		r = vhd->disk->ops->compact(vhd->disk, &o, &why);
	else
		r = error_set(&why, -ENOTSUP, "%s images have nothing to give back",
			      vhd->disk->ops->name);
	return api_tell(err, r, &why);
}

/* --- tracking changes --- */

_Static_assert(PARTITA_VHD_POINTS_MAX == TRACK_POINTS_MAX, "the header says so");

static int tracked(struct partita_vhd *vhd, struct track **ret, struct error *err)
{
	*ret = track_of(vhd->disk);
	return *ret ? 0 : error_set(err, -ENOTTY, "the image was not opened to track its changes");
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
	return api_tell(err, r, &why);
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
	return api_tell(err, r, &why);
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
		return api_tell(err, r, &why);
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
	return api_tell(err, r, &why);
}
