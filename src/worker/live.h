/* SPDX-License-Identifier: MIT */
/*
 * What is done to the drives of a machine while its guest uses them: another size, snapshots,
 * merges, freezing, tracking. Each change waits until nothing is under way on the drives that it is
 * about (gate.h), holds what their guest sends meanwhile, and lets it go on afterwards. One change
 * at a time; merges and freezes last longer than the change that begins them.
 *
 * Changes block, running the event loop meanwhile, so everything else goes on and callbacks may
 * come in between. Event loop's thread.
 */
#pragma once

#include "worker/drive.h"

struct live;

#define LIVE_FREEZE_MAX 60u /* seconds: a guest's own patience with a disk is of that size */
#define LIVE_DRIVES_MAX 64u /* in one change */

enum live_event_type {
	LIVE_MERGING,      /* progress */
	LIVE_MERGED,       /* the end, also when it failed */
	LIVE_THAWED,       /* by its time limit, or because the machine is reset or ends */
	LIVE_STORAGE_LOST, /* the host's: `file`, and `reason` what it says */
	LIVE_STORAGE_BACK,
};

struct live_event {
	enum live_event_type type;
	const struct drive *drive;
	uint64_t copied, total;  /* LIVE_MERGING */
	const char *file, *into; /* LIVE_MERGED; `into` is NULL when it failed */
	const char *reason;      /* LIVE_MERGED: what was wrong, NULL = nothing */
};

struct live_options {
	struct loop *loop;
	/* Borrowed; the drives stay the caller's, who closes them after live_settle, or
	 * live_remove.
	 */
	struct drive *const *drives;
	unsigned drive_count;
};

int live_new(const struct live_options *options, struct live **ret, struct error *err) _must_check_;
void live_free(struct live *live); /* NULL is fine; after live_settle, or when nothing was begun */
void live_on_event(struct live *live, void (*fn)(void *context, const struct live_event *event),
		   void *context);

/*
 * The machine waits for its storage: what fails because the host's is lost or full is sent again
 * each second, from live_running on until the machine is reset or ends; then it fails. `lost` and
 * `back` are about all drives together, and come from the loop, perhaps with a request's done on
 * the stack. Drives with a set, and DVD drives, tell the guest.
 */
struct live_storage {
	void (*lost)(struct live_storage *s);
	void (*back)(struct live_storage *s);
};
void live_on_storage(struct live *live, struct live_storage *storage);
bool live_storage_lost(const struct live *live);

/* The list of drives has one more at its end, or one of them is about to leave it. */
void live_added(struct live *live);
/* -EBUSY with words when something is being done to it, or it is frozen. */
int live_remove(struct live *live, struct drive *drive, struct error *err) _must_check_;

unsigned live_count(const struct live *live);
struct drive *live_drive(const struct live *live, unsigned index);
/* NULL with words when there is none. */
struct drive *live_find(const struct live *live, unsigned controller, unsigned lun,
			struct error *err);
bool live_changing(const struct live *live); /* a change is under way */

/* -EBUSY with words while the drives cannot be left as they are: a change is under way, or one is
 * frozen. */
int live_quiet(const struct live *live, struct error *err) _must_check_;

/* The machine is reset: frozen drives are thawed, and stay so until live_running. */
void live_reset(struct live *live);
void live_running(struct live *live);
/*
 * The machine ends: nothing new is begun, frozen drives are thawed, merges stop where they are.
 * `fn` is called when nothing is under way any more, perhaps at once; the drives can be closed
 * then.
 */
void live_settle(struct live *live, void (*fn)(void *context), void *context);

/* --- changes --- */

/*
 * One drive's part of a change. Descriptors are the change's from live_begin on, also when that
 * fails; -1 = none. Strings are the caller's until `done`.
 */
struct live_part {
	struct drive *drive;
	/* resize */
	uint64_t size;
	/* snapshot: the file of the child (empty) and of its track, their places; merge: the
	 * parent's; track: the track's */
	int fd, track_fd;
	const char *file, *parent_file;
	uint32_t block_size;
	/* merge: the image (0 = the topmost), its own file and its child's when they are below */
	unsigned image;
	int image_fd, child_fd;
	/* track */
	struct guid point; /* to drop; or that was made */

	/* live.c's */
	bool held; /* frozen for this change */
	struct image child;
};

enum live_change {
	LIVE_RESIZE,
	LIVE_SNAPSHOT,
	LIVE_MERGE,
	LIVE_FREEZE,
	LIVE_TRACK_ON,
	LIVE_TRACK_OFF,
	LIVE_TRACK_POINT,
	LIVE_TRACK_DROP,
	LIVE_MERGE_END, /* live.c's own */
	LIVE_CHANGES
};

struct live_call {
	enum live_change change;
	unsigned seconds; /* freeze */
	unsigned count;
	struct live_part *parts;
	/* Once, unless live_begin failed; never from inside it. */
	void (*done)(struct live_call *call, int result, const struct error *err);
};

/* -EBUSY with words while another change is under way or a part does not allow it. */
int live_begin(struct live *live, struct live_call *call, struct error *err) _must_check_;

/* What needs no waiting. */
int live_thaw(struct live *live, struct drive *drive, struct error *err) _must_check_;
int live_cancel(struct live *live, struct drive *drive, struct error *err) _must_check_;
struct track;
/* The track of a drive's topmost image, to be asked now; NULL with words. */
struct track *live_track(struct live *live, struct drive *drive, struct error *err);

struct live_merge_state {
	bool running;
	unsigned image;
	uint64_t copied, total;
};
struct live_merge_state live_merge_state(const struct drive *drive);
