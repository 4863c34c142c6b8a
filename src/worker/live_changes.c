// SPDX-License-Identifier: MIT
/*
 * What is done to drives that stand still: another size, snapshots, tracking. All of it blocks, and
 * either is done to all drives of a call or to none.
 */
#include "lib/cleanup.h"
#include "vhd/chain.h"
#include "vhd/track.h"
#include "vhd/vhd.h"
#include "vhd/vhdx.h"
#include "worker/live_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* --- another size --- */

/* The end of what the disk holds beyond `size`, or 0. */
static int data_end(struct disk *disk, uint64_t size, uint64_t *ret)
{
	uint64_t at = size, n;

	*ret = 0;
	while (at < disk->geometry.size) {
		enum disk_extent_kind kind;
		int r = disk->ops->extent(disk, at, &kind, &n);

		if (r < 0)
			return r;
		at += n;
		if (kind == DISK_EXTENT_DATA)
			*ret = MIN(at, disk->geometry.size);
	}
	return 0;
}

static int end_free(struct disk *disk, uint64_t size, struct error *err)
{
	uint64_t end;
	int r = data_end(disk, size, &end);

	if (r < 0)
		return error_errno(err, r, "cannot find out whether the end of the disk is free");
	if (end)
		return error_set(
			err, -EBUSY,
			"there is data up to byte %llu: make partitions and file systems "
			"smaller in the guest and discard what is behind them (blkdiscard, "
			"fstrim) first",
			(unsigned long long)end);
	return 0;
}

static int resize_check(struct live *live, struct live_part *part, struct error *err)
{
	const struct disk_geometry *g = &part->drive->disk->geometry;

	(void)live;
	if (!part->size || part->size > INT64_MAX || part->size % g->logical_sector)
		return error_set(err, -EINVAL,
				 "a size of %llu bytes is not a multiple of its sectors of %u "
				 "bytes, or out of range",
				 (unsigned long long)part->size, g->logical_sector);
	return 0;
}

static int resize_run(struct live *live, struct live_call *call, struct error *err)
{
	struct live_part *part = &call->parts[0];
	struct drive *d = part->drive;
	struct disk *disk = gate_below(d->gate);
	uint64_t before = disk->geometry.size;
	int r = part->size < before ? end_free(disk, part->size, err) : 0;

	(void)live;
	if (r >= 0 && !disk->ops->resize)
		r = error_set(err, -ENOTSUP, "%s images keep their size", disk->ops->name);
	if (r < 0)
		return r;
	r = disk->ops->resize(disk, part->size, err);
	gate_refresh(d->gate);
	part->size = disk->geometry.size;
	if (part->size != before && d->resized)
		d->resized(d);
	return r;
}

const struct change live_change_resize = {
	.name = "resized",
	.writes = true,
	.check = resize_check,
	.run = resize_run,
};

/* --- snapshots --- */

static int snapshot_check(struct live *live, struct live_part *part, struct error *err)
{
	struct image *top = &part->drive->images[0];
	int r = image_fd_check(part->fd, err);

	(void)live;
	if (r >= 0 && lseek(part->fd, 0, SEEK_END) != 0)
		r = error_set(err, -EEXIST, "\"%s\" is not empty", part->file);
	if (r >= 0 && part->track_fd >= 0)
		r = image_fd_check(part->track_fd, err);
	if (r >= 0 && !top->disk->ops->identity)
		r = error_set(
			err, -ENOTSUP,
			"\"%s\" is a %s image, which cannot have children; convert it to VHDX",
			top->name, top->disk->ops->name);
	if (r >= 0 && !part->parent_file && !top->named)
		r = error_set(err, -EINVAL,
			      "its image was passed as a descriptor: say where it lies "
			      "(\"parent_file\"), so that the snapshot can name it");
	if (r >= 0 && part->drive->depth >= CHAIN_DEPTH_MAX)
		r = error_set(err, -ELOOP, "the chain has %u images, which is the most",
			      part->drive->depth);
	return r;
}

static int make_vhdx(const struct live_part *part, struct disk *top, const struct disk_parent *ref,
		     struct error *err)
{
	struct vhdx_create_options o = {
		.size = top->geometry.size,
		.block_size = part->block_size,
		.logical_sector = top->geometry.logical_sector,
		.physical_sector = top->geometry.physical_sector,
		.id = top->geometry.id,
		.parent = ref,
	};
	struct vhdx_info info;

	/* What the guest was told of the space that it gives back stays so. */
	vhdx_info(top, &info);
	if (!o.block_size)
		o.block_size = info.block_size;
	return vhdx_create(part->fd, &o, err);
}

static int make_vhd(const struct live_part *part, struct disk *top, const struct disk_parent *ref,
		    struct error *err)
{
	const struct vhd_create_options o = {
		.size = top->geometry.size,
		.block_size = part->block_size,
		.kind = VHD_DIFFERENCING,
		.parent = { ref->id, ref->timestamp },
		.relative = ref->relative,
		.absolute = ref->absolute,
	};

	return vhd_create(part->fd, &o, err);
}

static int child_make(struct live_part *part, struct error *err)
{
	const struct image *top = &part->drive->images[0];
	struct disk *disk = image_format_disk(top);
	const char *parent = part->parent_file ? part->parent_file : top->name;
	struct disk_parent ref;
	int r = chain_name_parent_real(disk, parent, part->file, &ref, err);

	if (r < 0)
		return r;
	r = strcmp(disk->ops->name, "vhd") ? make_vhdx(part, disk, &ref, err)
					   : make_vhd(part, disk, &ref, err);
	disk_parent_deinit(&ref);
	if (r >= 0 && fsync(part->fd) < 0)
		r = error_errno(err, -errno, "cannot write \"%s\"", part->file);
	return r;
}

static int child_open(struct live_part *part, struct error *err)
{
	struct drive *d = part->drive;
	struct disk_open_options o = {
		.direct = d->direct,
		.alone = true,
		.format = d->images[0].format,
		.tracking = part->track_fd < 0 ? DISK_TRACK_OFF : DISK_TRACK_PASSED,
		.track_fd = steal_fd(&part->track_fd),
		.track_new = true,
	};
	int r;

	part->child = (struct image){
		.name = strdup(part->file),
		.named = true,
		.format = d->images[0].format,
	};
	part->child.fd = fcntl(part->fd, F_DUPFD_CLOEXEC, 3);
	if (!part->child.name || part->child.fd < 0) {
		if (o.track_fd >= 0)
			close(o.track_fd);
		return error_set(err, -ENOMEM, "out of memory or file descriptors");
	}
	r = disk_open(d->loop, steal_fd(&part->fd), part->file, &o, &part->child.disk, err);
	part->child.writable = r >= 0;
	return r < 0 ? r : drive_reserve(d, err);
}

static int children_make(struct live_call *call, struct error *err)
{
	for (unsigned i = 0; i < call->count; i++) {
		int r = child_make(&call->parts[i], err);

		if (r >= 0)
			r = child_open(&call->parts[i], err);
		if (r < 0)
			return live_part_error(call, &call->parts[i], err);
	}
	return 0;
}

/*
 * From here on others may read it: its file is clean, and its lock shared. The frozen gate does not
 * look at what is below it; what the guest is told of the disk stays what it was.
 */
static int top_seal(struct live_part *part, struct error *err)
{
	struct drive *d = part->drive;
	int r = image_reopen(d, 0, false, err);

	return r < 0 ? r : chain_parent_check(part->child.disk, d->images[0].disk, err);
}

/* The way back. When that is not to be had the guest sees errors, and nothing wrong. */
static void top_unseal(struct live_part *part, struct error *err)
{
	struct drive *d = part->drive;
	struct error again = { 0 };

	if (d->images[0].disk && d->images[0].writable)
		return;
	if (image_reopen(d, 0, true, &again) < 0)
		error_prefix(err,
			     "the disk %u:%u is lost to the guest until the machine is "
			     "started again (%s)",
			     d->controller, d->lun, again.message);
	gate_replace(d->gate, d->images[0].disk);
}

static int tops_seal(struct live_call *call, struct error *err)
{
	for (unsigned i = 0; i < call->count; i++) {
		int r = top_seal(&call->parts[i], err);

		if (r >= 0)
			continue;
		r = live_part_error(call, &call->parts[i], err);
		for (unsigned j = 0; j <= i; j++)
			top_unseal(&call->parts[j], err);
		return r;
	}
	return 0;
}

static void child_switch(struct live_part *part)
{
	struct drive *d = part->drive;

	part->child.disk->ops->set_parent(part->child.disk, d->images[0].disk);
	gate_replace(d->gate, part->child.disk);
	image_push(d, &part->child);
	part->child = (struct image){ .fd = -1 };
}

static int snapshot_run(struct live *live, struct live_call *call, struct error *err)
{
	int r;

	(void)live;
	for (unsigned i = 0; i < call->count; i++)
		call->parts[i].child = (struct image){ .fd = -1 };
	r = children_make(call, err);
	if (r >= 0)
		r = tops_seal(call, err);
	for (unsigned i = 0; i < call->count; i++) {
		if (r >= 0)
			child_switch(&call->parts[i]);
		else
			image_close(&call->parts[i].child, NULL);
	}
	return r;
}

const struct change live_change_snapshot = {
	.name = "snapshotted",
	.writes = true,
	.check = snapshot_check,
	.run = snapshot_run,
};

/* --- tracking --- */

static int track_on_check(struct live *live, struct live_part *part, struct error *err)
{
	int r = image_fd_check(part->fd, err);

	(void)live;
	if (r >= 0 && track_of(part->drive->images[0].disk))
		r = error_set(err, -EEXIST, "its changes are tracked already");
	if (r >= 0 && part->drive->images[0].fd < 0)
		r = error_set(err, -EMFILE, "there are too many open files");
	return r;
}

static int track_on_run(struct live *live, struct live_call *call, struct error *err)
{
	struct live_part *part = &call->parts[0];
	struct drive *d = part->drive;
	struct image *top = &d->images[0];
	int r = track_begin(&top->disk, top->fd, steal_fd(&part->fd), err);

	(void)live;
	if (r >= 0) {
		r = track_point(track_of(top->disk), &part->point, err);
		if (r < 0)
			(void)!track_end(track_of(top->disk), &top->disk, NULL);
	}
	gate_replace(d->gate, top->disk);
	return r;
}

const struct change live_change_track_on = {
	.name = "tracked",
	.writes = true,
	.check = track_on_check,
	.run = track_on_run,
};

static int tracked_check(struct live *live, struct live_part *part, struct error *err)
{
	return live_track(live, part->drive, err) ? 0 : -ENOENT;
}

static int track_off_run(struct live *live, struct live_call *call, struct error *err)
{
	struct drive *d = call->parts[0].drive;
	struct image *top = &d->images[0];
	int r = track_end(track_of(top->disk), &top->disk, err);

	(void)live;
	gate_replace(d->gate, top->disk);
	return r;
}

const struct change live_change_track_off = {
	.name = "tracked",
	.writes = true,
	.check = tracked_check,
	.run = track_off_run,
};

/* Points that were made are dropped again when a later one cannot be. */
static int track_point_run(struct live *live, struct live_call *call, struct error *err)
{
	(void)live;
	for (unsigned i = 0; i < call->count; i++) {
		struct live_part *part = &call->parts[i];
		int r = track_point(track_of(part->drive->images[0].disk), &part->point, err);

		if (r >= 0)
			continue;
		r = live_part_error(call, part, err);
		while (i--) {
			part = &call->parts[i];
			(void)!track_drop(track_of(part->drive->images[0].disk), &part->point,
					  NULL);
		}
		return r;
	}
	return 0;
}

const struct change live_change_track_point = {
	.name = "tracked",
	.writes = true,
	.with_merge = true,
	.check = tracked_check,
	.run = track_point_run,
};

static int track_drop_run(struct live *live, struct live_call *call, struct error *err)
{
	struct live_part *part = &call->parts[0];

	(void)live;
	return track_drop(track_of(part->drive->images[0].disk), &part->point, err);
}

const struct change live_change_track_drop = {
	.name = "tracked",
	.writes = true,
	.with_merge = true,
	.check = tracked_check,
	.run = track_drop_run,
};
