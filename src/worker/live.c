// SPDX-License-Identifier: MIT
/*
 * See live.h: how a change is begun and ended; what each does is in live_changes.c and
 * live_merge.c.
 *
 * A change runs from a timer. There no other callback of the same round is waiting on the stack
 * below, which the loop that it runs meanwhile could wait for in vain, and no request's done is.
 */
#include "lib/cleanup.h"
#include "vhd/track.h"
#include "worker/live_internal.h"

#include <assert.h>
#include <errno.h>

#define SECOND UINT64_C(1000000000)

static const struct change change_freeze;

static const struct change *const changes[LIVE_CHANGES] = {
	[LIVE_RESIZE] = &live_change_resize,
	[LIVE_SNAPSHOT] = &live_change_snapshot,
	[LIVE_MERGE] = &live_change_merge,
	[LIVE_FREEZE] = &change_freeze,
	[LIVE_TRACK_ON] = &live_change_track_on,
	[LIVE_TRACK_OFF] = &live_change_track_off,
	[LIVE_TRACK_POINT] = &live_change_track_point,
	[LIVE_TRACK_DROP] = &live_change_track_drop,
	[LIVE_MERGE_END] = &live_change_merge_end,
};

/* --- events --- */

void live_on_event(struct live *live, void (*fn)(void *context, const struct live_event *event),
		   void *context)
{
	live->on_event = fn;
	live->event_context = context;
}

void live_tell(struct live *live, const struct live_event *event)
{
	if (live->on_event)
		live->on_event(live->event_context, event);
}

/* --- drives --- */

unsigned live_count(const struct live *live)
{
	return live->drive_count;
}

struct drive *live_drive(const struct live *live, unsigned index)
{
	return live->drives[index];
}

struct drive *live_find(const struct live *live, unsigned controller, unsigned lun,
			struct error *err)
{
	for (unsigned i = 0; i < live->drive_count; i++)
		if (live->drives[i]->controller == controller && live->drives[i]->lun == lun)
			return live->drives[i];
	error_set(err, -ENOENT,
		  "there is no drive at controller %u, LUN %u; disk-query tells which there are",
		  controller, lun);
	return NULL;
}

bool live_changing(const struct live *live)
{
	return live->change;
}

int live_part_error(const struct live_call *call, const struct live_part *part, struct error *err)
{
	int code = err && err->code < 0 ? err->code : -EIO;

	if (call->count > 1)
		error_prefix(err, "drive %u:%u", part->drive->controller, part->drive->lun);
	return code;
}

int live_quiet(const struct live *live, struct error *err)
{
	if (live->change)
		return error_set(err, -EBUSY, "a change of a disk is under way; wait for its end");
	for (unsigned i = 0; i < live->drive_count; i++)
		if (live->drives[i]->frozen)
			return error_set(err, -EBUSY, "drive %u:%u is frozen; thaw it first",
					 live->drives[i]->controller, live->drives[i]->lun);
	return 0;
}

/* --- thawing --- */

static void drive_thaw(struct drive *drive)
{
	drive->frozen = false;
	loop_timer_disarm(&drive->thaw_timer);
	gate_thaw(drive->gate);
}

static void thaw_told(struct live *live, struct drive *drive, const char *reason)
{
	const struct live_event e = { .type = LIVE_THAWED, .drive = drive, .reason = reason };

	drive_thaw(drive);
	live_tell(live, &e);
}

static void on_thaw_time(struct loop_timer *t)
{
	struct drive *drive = container_of(t, struct drive, thaw_timer);
	struct live *live = drive->owner;

	thaw_told(live, drive, "its time was over");
	live_ended(live);
}

int live_thaw(struct live *live, struct drive *drive, struct error *err)
{
	if (!drive->frozen)
		return error_set(err, -EINVAL,
				 "drive %u:%u is not frozen, or not any more: what was copied from "
				 "it may not be of one moment",
				 drive->controller, drive->lun);
	drive_thaw(drive);
	live_ended(live);
	return 0;
}

static void thaw_all(struct live *live, const char *reason)
{
	for (unsigned i = 0; i < live->drive_count; i++)
		if (live->drives[i]->frozen)
			thaw_told(live, live->drives[i], reason);
}

/* --- freezing, by command --- */

static int freeze_run(struct live *live, struct live_call *call, struct error *err)
{
	if (live->resetting || live->settling)
		return error_set(err, -EINVAL, "the machine is being reset, or ends");
	for (unsigned i = 0; i < call->count; i++) {
		struct drive *drive = call->parts[i].drive;

		drive->frozen = true;
		loop_timer_arm(&drive->thaw_timer, loop_now(live->loop) + call->seconds * SECOND);
	}
	return 0;
}

static const struct change change_freeze = {
	.name = "frozen",
	.keeps = true,
	.with_merge = true,
	.run = freeze_run,
};

/* --- the course of a change --- */

static void parts_drop(struct live_call *call)
{
	for (unsigned i = 0; i < call->count; i++) {
		int *const fds[] = { &call->parts[i].fd, &call->parts[i].track_fd,
				     &call->parts[i].image_fd, &call->parts[i].child_fd };

		for (size_t n = 0; n < ARRAY_SIZE(fds); n++) {
			if (*fds[n] >= 0)
				close(*fds[n]);
			*fds[n] = -1;
		}
	}
}

static void change_end(struct live *live, int result)
{
	struct live_call *call = steal_ptr(live->call);
	struct error err = live->err;
	const struct change *change = steal_ptr(live->change);

	for (unsigned i = 0; i < call->count; i++)
		if (call->parts[i].held && !(result >= 0 && change->keeps))
			gate_thaw(call->parts[i].drive->gate);
	parts_drop(call);
	call->done(call, result, &err);
	live_ended(live);
}

static void on_timer(struct loop_timer *t)
{
	struct live *live = container_of(t, struct live, timer);
	int r = live->result;

	if (r < 0)
		error_errno(&live->err, r, "the disk could not be made to stand still");
	else
		r = live->change->run(live, live->call, &live->err);
	change_end(live, r);
}

static void on_frozen(struct gate_freeze *f, int result)
{
	struct drive *drive = container_of(f, struct drive, freeze);
	struct live *live = drive->owner;

	for (unsigned i = 0; i < live->call->count; i++)
		if (live->call->parts[i].drive == drive)
			live->call->parts[i].held = result >= 0;
	if (result < 0 && live->result >= 0)
		live->result = result;
	if (!--live->waiting)
		loop_timer_arm(&live->timer, 1);
}

static int part_check(struct live *live, const struct change *change, struct live_part *part,
		      struct error *err)
{
	static const char *const why[] = {
		[DRIVE_DVD] = "it is a DVD drive",
		[DRIVE_SHARED] = "other machines have its image open too",
	};
	struct drive *d = part->drive;

	if (d->kind != DRIVE_DISK)
		return error_set(err, -ENOTSUP, "it cannot be %s: %s", change->name, why[d->kind]);
	if (change->writes && d->read_only)
		return error_set(err, -EROFS, "it cannot be %s: it is read-only", change->name);
	if (d->frozen)
		return error_set(err, -EBUSY, "it is frozen; thaw it first");
	if (d->merge && !change->with_merge)
		return error_set(err, -EBUSY,
				 "its images are being merged; wait for the end of that, or cancel "
				 "it");
	if (gate_is_frozen(d->gate))
		return error_set(err, -EBUSY,
				 "a merge of its images is about to end; try again in a moment");
	if (!d->images[0].disk)
		return error_set(err, -EIO, "its image was lost; see the worker's log");
	return change->check ? change->check(live, part, err) : 0;
}

static int call_check(struct live *live, struct live_call *call, struct error *err)
{
	const struct change *change = changes[call->change];

	if (live->settling && !change->internal)
		return error_set(err, -EINVAL, "the machine is ending");
	if (live->change)
		return error_set(err, -EBUSY,
				 "another change of a disk is under way; wait for its answer");
	for (unsigned i = 0; i < call->count; i++) {
		for (unsigned j = 0; j < i; j++)
			if (call->parts[i].drive == call->parts[j].drive)
				return error_set(err, -EINVAL, "drive %u:%u is named twice",
						 call->parts[i].drive->controller,
						 call->parts[i].drive->lun);
		if (part_check(live, change, &call->parts[i], err) < 0) {
			struct drive *d = call->parts[i].drive;

			return error_prefix(err, "drive %u:%u", d->controller, d->lun);
		}
	}
	return 0;
}

int live_begin(struct live *live, struct live_call *call, struct error *err)
{
	int r = call_check(live, call, err);

	if (r < 0) {
		parts_drop(call);
		return r;
	}
	live->change = changes[call->change];
	live->call = call;
	live->result = 0;
	live->err = (struct error){ 0 };
	live->waiting = call->count;
	for (unsigned i = 0; i < call->count; i++) {
		struct drive *d = call->parts[i].drive;

		call->parts[i].held = false;
		d->freeze.frozen = on_frozen;
		r = gate_freeze(d->gate, &d->freeze);
		assert(r >= 0);
	}
	return 0;
}

int live_cancel(struct live *live, struct drive *drive, struct error *err)
{
	(void)live;
	if (!drive->merge)
		return error_set(err, -EINVAL, "nothing is being merged on drive %u:%u",
				 drive->controller, drive->lun);
	live_merge_cancel(drive);
	return 0;
}

struct track *live_track(struct live *live, struct drive *drive, struct error *err)
{
	struct track *t;

	if (live->change) {
		error_set(err, -EBUSY,
			  "another change of a disk is under way; wait for its answer");
		return NULL;
	}
	t = drive->kind == DRIVE_DISK && drive->images[0].disk ? track_of(drive->images[0].disk)
							       : NULL;
	if (!t)
		error_set(err, -ENOENT,
			  "the changes of drive %u:%u are not tracked; begin that first, and make "
			  "a full backup",
			  drive->controller, drive->lun);
	return t;
}

/* --- the machine's life --- */

static bool busy(const struct live *live)
{
	for (unsigned i = 0; i < live->drive_count; i++)
		if (live->drives[i]->merge)
			return true;
	return live->change;
}

void live_ended(struct live *live)
{
	void (*settled)(void *) = live->settled;

	live_merge_go_on(live);
	if (!settled || busy(live))
		return;
	live->settled = NULL;
	settled(live->settled_context);
}

void live_reset(struct live *live)
{
	live->resetting = true;
	live_storage_patient(live, false);
	thaw_all(live, "the machine is reset");
	live_ended(live);
}

void live_running(struct live *live)
{
	live->resetting = false;
	live_storage_patient(live, true);
}

void live_settle(struct live *live, void (*fn)(void *context), void *context)
{
	live->settling = true;
	live->settled = fn;
	live->settled_context = context;
	live_storage_patient(live, false);
	thaw_all(live, "the machine ends");
	for (unsigned i = 0; i < live->drive_count; i++)
		if (live->drives[i]->merge)
			live_merge_cancel(live->drives[i]);
	live_ended(live);
}

static void drive_adopt(struct live *live, struct drive *drive)
{
	drive->owner = live;
	loop_timer_init(live->loop, &drive->thaw_timer, on_thaw_time);
	live_storage_follow(live, drive);
}

void live_added(struct live *live)
{
	drive_adopt(live, live->drives[live->drive_count++]);
}

int live_remove(struct live *live, struct drive *drive, struct error *err)
{
	const char *why = NULL;

	if (live->change)
		why = "another change of a disk is under way; wait for its answer";
	else if (drive->merge)
		why = "its images are being merged; wait for the end of that, or cancel it";
	else if (drive->frozen || (drive->gate && gate_is_frozen(drive->gate)))
		why = "it is frozen; thaw it first";
	else if (drive->storage_lost)
		why = "its requests wait for its storage; see to that first, or stop the machine";
	else if (live->settling)
		why = "the machine is ending";
	if (why)
		return error_set(err, -EBUSY, "drive %u:%u: %s", drive->controller, drive->lun,
				 why);
	live->drive_count--;
	return 0;
}

int live_new(const struct live_options *o, struct live **ret, struct error *err)
{
	struct live *live = calloc(1, sizeof(*live));

	if (!live)
		return error_set(err, -ENOMEM, "out of memory");
	live->loop = o->loop;
	live->drives = o->drives;
	live->drive_count = o->drive_count;
	loop_timer_init(o->loop, &live->timer, on_timer);
	live_storage_init(live);
	for (unsigned i = 0; i < o->drive_count; i++)
		drive_adopt(live, o->drives[i]);
	*ret = live;
	return 0;
}

void live_free(struct live *live)
{
	if (!live)
		return;
	assert(!live->change);
	free(live);
}
