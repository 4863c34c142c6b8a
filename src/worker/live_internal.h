/* SPDX-License-Identifier: MIT */
/* What live.c, live_changes.c and live_merge.c share. */
#pragma once

#include "worker/live.h"

struct live {
	struct loop *loop;
	struct drive *const *drives;
	unsigned drive_count;
	void (*on_event)(void *context, const struct live_event *event);
	void *event_context;

	/* the change under way */
	const struct change *change; /* NULL = none */
	struct live_call *call;
	unsigned waiting; /* drives that are not frozen yet */
	int result;
	struct error err;
	struct loop_timer timer;

	struct live_storage *storage; /* NULL: errors are the guest's */
	struct loop_timer retry;
	bool patient;

	bool resetting, settling, saving;
	void (*settled)(void *context);
	void *settled_context;
};

/* How a change goes. Both may be called for a part of each drive; words in err when they fail. */
struct change {
	const char *name;
	bool writes;     /* refused where the guest may not write */
	bool keeps;      /* drives stay frozen after success */
	bool with_merge; /* may be done while the drive's images are being merged */
	bool internal;   /* a part of one that was begun before; also when the machine ends */
	/* Before anything is frozen; NULL is fine. */
	int (*check)(struct live *live, struct live_part *part, struct error *err);
	/* All drives are frozen; blocks. What it began and cannot end it undoes. */
	int (*run)(struct live *live, struct live_call *call, struct error *err);
};

extern const struct change live_change_resize, live_change_snapshot, live_change_merge,
	live_change_track_on, live_change_track_off, live_change_track_point,
	live_change_track_drop, live_change_merge_end;

void live_tell(struct live *live, const struct live_event *event);
/* Something ended: what waited for that goes on. */
void live_ended(struct live *live);
/* Error of part `part`, with the drive's place in front when there are several. */
int live_part_error(const struct live_call *call, const struct live_part *part, struct error *err);

/* live_storage.c */
void live_storage_init(struct live *live);
/* While it is not, and as long as nobody waits for storage, errors are told to the guest. */
void live_storage_patient(struct live *live, bool patient);
/* A drive does as the others do. */
void live_storage_follow(struct live *live, struct drive *drive);

/* live_merge.c */
void live_merge_cancel(struct drive *drive);
/* Whether a merge waits to put its result in place, and begins that when nothing is in the way. */
void live_merge_go_on(struct live *live);
