// SPDX-License-Identifier: MIT
/*
 * Merging one image of a drive in use into the next of its chain (gate.h does the copying).
 *
 * The topmost image: when all is copied, and before the guest writes to the parent, the image is
 * made to name a parent that does not exist: it lacks what the guest writes from then on, so it
 * must not be opened any more.
 *
 * An image below others does not change while it is merged, so it gets a gate of its own. At the
 * end the drive stands still once more, and the image above takes the merged one's parent.
 *
 * Wherever the machine ends, also by a power cut, the chain on the disk can be opened from its
 * topmost image, or after the end of the first kind of merge, from that image's parent.
 */
#include "lib/cleanup.h"
#include "vhd/chain.h"
#include "vhd/merge.h"
#include "vhd/track.h"
#include "worker/live_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define TELL_EVERY UINT64_C(500000000) /* ns */

struct drive_merge {
	struct gate_merge m;
	struct live *live;
	struct drive *drive;
	unsigned index;    /* of the image */
	struct gate *gate; /* the drive's, or the image's own */
	uint64_t copied, total, told;
	bool copied_all, ended; /* what the timer has to do */
	bool waits;             /* for the drive to stand still once more */
	int result;
	struct loop_timer timer;
	struct image merged; /* without its place in the chain */
	struct live_call call;
	struct live_part part;
	char why[sizeof(((struct error *)0)->message)];
};

struct live_merge_state live_merge_state(const struct drive *drive)
{
	const struct drive_merge *dm = drive->merge;

	return dm ? (struct live_merge_state){ true, dm->index, dm->copied, dm->total }
		  : (struct live_merge_state){ 0 };
}

void live_merge_cancel(struct drive *drive)
{
	gate_merge_cancel(&drive->merge->m);
}

/* --- the end --- */

static void merge_fails(struct drive_merge *dm, int result, const char *words)
{
	if (dm->result >= 0)
		dm->result = result;
	if (!*dm->why)
		snprintf(dm->why, sizeof(dm->why), "%s", words);
}

static void result_fails(struct drive_merge *dm, int result)
{
	struct error err = { 0 };

	if (result == -ECANCELED)
		error_set(&err, result,
			  "it was stopped; the chain is as it was, and the merge can be started "
			  "again");
	else
		error_errno(&err, result,
			    "the chain is as it was, and the merge can be started again when the "
			    "cause is gone; I/O failed");
	merge_fails(dm, result, err.message);
}

/* Tells, and frees what is left. */
static void merge_over(struct drive_merge *dm)
{
	struct drive *d = dm->drive;
	struct live *live = dm->live;
	_cleanup_free_ char *file = dm->merged.name ? strdup(dm->merged.name) : NULL;
	struct live_event e = { .type = LIVE_MERGED, .drive = d };
	struct error err = { 0 };
	const char *into = NULL;

	if (dm->merged.disk) {
		into = *dm->why ? NULL : d->images[dm->index].name;
		if (image_close(&dm->merged, &err) < 0)
			merge_fails(dm, 0, err.message);
	}
	e.file = file ? file : d->images[dm->index].name;
	e.into = into;
	e.reason = *dm->why ? dm->why : NULL;
	d->merge = NULL;
	if (into && !dm->index && d->resized && d->disk->geometry.size != dm->total)
		d->resized(d);
	live_tell(live, &e);
	free(dm);
	live_ended(live);
}

/* --- the topmost image --- */

static void on_copied(struct gate_merge *m)
{
	struct drive_merge *dm = container_of(m, struct drive_merge, m);

	dm->copied_all = true;
	loop_timer_arm(&dm->timer, 1);
}

/* --- an image below --- */

/* The images above and below the merged one become neighbours, in their files first. */
static int neighbours_join(struct drive_merge *dm, struct error *err)
{
	struct drive *d = dm->drive;
	struct image *above = &d->images[dm->index - 1], *below = &d->images[dm->index + 1];
	struct disk_parent ref;
	int r = chain_name_parent_real(below->disk, below->name, above->name, &ref, err);

	if (r < 0)
		return r;
	r = above->disk->ops->set_parent_ref(above->disk, &ref, err);
	disk_parent_deinit(&ref);
	return r;
}

static int merge_end_run(struct live *live, struct live_call *call, struct error *err)
{
	struct drive_merge *dm = container_of(call, struct drive_merge, call);
	struct drive *d = dm->drive;
	struct image *above = &d->images[dm->index - 1], *image = above + 1, *below = above + 2;

	(void)live;
	gate_remove(dm->gate);
	dm->gate = NULL;
	if (dm->result >= 0 && neighbours_join(dm, err) >= 0) {
		above->disk->ops->set_parent(above->disk, below->disk);
		dm->merged = image_take(d, dm->index);
		return 0;
	}
	/* All of it is below still. */
	if (dm->result >= 0) {
		image->disk->ops->set_parent(image->disk, below->disk);
		merge_fails(dm, -EIO, err->message);
	}
	above->disk->ops->set_parent(above->disk, image->disk);
	return 0;
}

const struct change live_change_merge_end = {
	.name = "merged",
	.with_merge = true,
	.internal = true,
	.run = merge_end_run,
};

static void on_ended(struct live_call *call, int result, const struct error *err)
{
	struct drive_merge *dm = container_of(call, struct drive_merge, call);

	if (result < 0) {
		/* The disk refuses to flush: in its files the chain stays as it was. */
		if (dm->result >= 0)
			dm->merged = image_take(dm->drive, dm->index);
		merge_fails(dm, result, err->message);
	}
	dm->ended = true;
	loop_timer_arm(&dm->timer, 1);
}

static void inner_end(struct drive_merge *dm)
{
	struct error err = { 0 };

	dm->part = (struct live_part){
		.drive = dm->drive, .fd = -1, .track_fd = -1, .image_fd = -1, .child_fd = -1
	};
	dm->call = (struct live_call){
		.change = LIVE_MERGE_END, .count = 1, .parts = &dm->part, .done = on_ended
	};
	dm->waits = live_begin(dm->live, &dm->call, &err) < 0;
}

void live_merge_go_on(struct live *live)
{
	for (unsigned i = 0; i < live->drive_count && !live->change; i++)
		if (live->drives[i]->merge && live->drives[i]->merge->waits)
			inner_end(live->drives[i]->merge);
}

/* --- what the gate tells --- */

static void on_progress(struct gate_merge *m, uint64_t copied, uint64_t total)
{
	struct drive_merge *dm = container_of(m, struct drive_merge, m);
	struct live_event e = {
		.type = LIVE_MERGING, .drive = dm->drive, .copied = copied, .total = total
	};

	dm->copied = copied;
	dm->total = total;
	if (loop_now(dm->live->loop) - dm->told < TELL_EVERY)
		return;
	dm->told = loop_now(dm->live->loop);
	live_tell(dm->live, &e);
}

/* A gate replaces what is below it before it tells. */
static void on_done(struct gate_merge *m, int result, struct disk *merged)
{
	struct drive_merge *dm = container_of(m, struct drive_merge, m);

	if (result < 0)
		result_fails(dm, result);
	if (dm->index) {
		inner_end(dm);
		return;
	}
	if (merged)
		dm->merged = image_take(dm->drive, 0);
	dm->ended = true;
	loop_timer_arm(&dm->timer, 1);
}

static void on_timer(struct loop_timer *t)
{
	struct drive_merge *dm = container_of(t, struct drive_merge, timer);
	struct error err = { 0 };
	int r;

	if (dm->ended) {
		merge_over(dm);
		return;
	}
	assert(dm->copied_all);
	r = merge_retire(dm->drive->images[0].disk, &err);
	if (r < 0)
		merge_fails(dm, r, err.message);
	gate_merge_finish(&dm->m, r);
}

/* --- the beginning --- */

static int merge_check(struct live *live, struct live_part *part, struct error *err)
{
	const struct drive *d = part->drive;
	const struct image *image = d->images + part->image;

	(void)live;
	if (part->image + 1 >= d->depth)
		return error_set(err, -EINVAL,
				 "image %u of a chain of %u has no parent that it could be merged "
				 "into",
				 part->image, d->depth);
	if (part->fd < 0 && !image[1].writable)
		return error_set(err, -EINVAL,
				 "\"%s\" must be opened for writing and passed (\"parent\")",
				 image[1].name);
	if (part->image && part->image_fd < 0 && !image[0].writable)
		return error_set(err, -EINVAL,
				 "\"%s\" must be opened for writing and passed (\"self\")",
				 image[0].name);
	if (part->image > 1 && part->child_fd < 0 && !image[-1].writable)
		return error_set(err, -EINVAL,
				 "\"%s\" must be opened for writing and passed (\"child\")",
				 image[-1].name);
	if (part->image && !image[-1].named)
		return error_set(err, -EINVAL, "where \"%s\" lies is not known", image[-1].name);
	return 0;
}

static int make_writable(struct live_part *part, unsigned index, int *fd, int track_fd,
			 struct error *err)
{
	if (part->drive->images[index].writable) {
		if (track_fd >= 0)
			close(track_fd);
		return 0;
	}
	return image_make_writable(part->drive, index, steal_fd(fd), track_fd, err);
}

static int chain_make_writable(struct live_part *part, struct error *err)
{
	unsigned i = part->image;
	int r = make_writable(part, i + 1, &part->fd, steal_fd(&part->track_fd), err);

	if (r >= 0 && i)
		r = make_writable(part, i, &part->image_fd, -1, err);
	if (r >= 0 && i > 1)
		r = make_writable(part, i - 1, &part->child_fd, -1, err);
	return r;
}

/* A gate between the image and the one above it: only reads come through. */
static int inner_gate(struct drive_merge *dm, struct error *err)
{
	struct image *image = &dm->drive->images[dm->index];
	struct disk *above = dm->drive->images[dm->index - 1].disk, *gate;

	/* Taken out first: a gate that cannot be made closes what is to be below it. */
	above->ops->set_parent(above, NULL);
	gate = gate_new(image->disk);
	if (!gate) {
		for (unsigned i = dm->index; i < dm->drive->depth; i++)
			dm->drive->images[i].disk = NULL;
		return error_set(err, -ENOMEM,
				 "out of memory; the disk is lost to the guest until the machine "
				 "is started again");
	}
	above->ops->set_parent(above, gate);
	dm->gate = gate_of(gate);
	return 0;
}

static int merge_start(struct live *live, struct live_part *part, struct drive_merge *dm,
		       struct error *err)
{
	struct drive *d = part->drive;
	struct image *image = &d->images[part->image];
	int r = chain_make_writable(part, err);

	if (r >= 0)
		r = merge_prepare(image->disk, image[1].disk, err);
	if (r < 0)
		return r;
	*dm = (struct drive_merge){
		.m = { .done = on_done, .progress = on_progress },
		.live = live,
		.drive = d,
		.index = part->image,
		.gate = d->gate,
		.total = image->disk->geometry.size,
		.merged.fd = -1,
	};
	loop_timer_init(live->loop, &dm->timer, on_timer);
	if (dm->index) {
		r = inner_gate(dm, err);
		dm->m.guest = d->gate;
	} else {
		dm->m.copied = on_copied;
	}
	return r < 0 ? r : gate_merge(dm->gate, &dm->m, err);
}

static int merge_run(struct live *live, struct live_call *call, struct error *err)
{
	struct drive *d = call->parts[0].drive;
	struct drive_merge *dm = calloc(1, sizeof(*dm));
	int r = dm ? merge_start(live, &call->parts[0], dm, err)
		   : error_set(err, -ENOMEM, "out of memory");

	if (r < 0 && dm && dm->gate && dm->index) {
		struct disk *above = d->images[dm->index - 1].disk;

		above->ops->set_parent(above, gate_remove(dm->gate));
	}
	if (r < 0)
		free(dm);
	else
		d->merge = dm;
	return r;
}

const struct change live_change_merge = {
	.name = "merged",
	.writes = true,
	.check = merge_check,
	.run = merge_run,
};
