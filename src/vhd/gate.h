/* SPDX-License-Identifier: MIT */
/*
 * A gate stands above an image that is in use, so that the image below can change while its user
 * knows nothing of it: it holds requests back, waits until none is under way, and lets what is
 * below be changed or replaced. Snapshots, merging, resizing and consistent copies of a running
 * machine's disks are made behind one. Like all layers it belongs to one loop's thread.
 */
#pragma once

#include "vhd/disk.h"

struct gate;

/* `below` is the gate's from here on, also when this fails. A NULL result: there is no memory. */
struct disk *gate_new(struct disk *below);
struct gate *gate_of(struct disk *disk);

struct gate_freeze {
	/* Nothing is under way now and what was completed is durable; or a negative errno. */
	void (*frozen)(struct gate_freeze *f, int result);
	struct list node;
	struct disk_request flush; /* the gate's */
	struct gate *gate;
};

/*
 * Holds back all requests from now on; `frozen` is called from the loop, never from here. Until
 * gate_thaw nothing reaches the image. One freeze at a time: -EBUSY. A result below 0 has thawed
 * the gate already.
 */
int gate_freeze(struct gate *g, struct gate_freeze *f) _must_check_;
void gate_thaw(struct gate *g);
bool gate_is_frozen(const struct gate *g); /* or on the way to it */

/*
 * While frozen: what is below, and another one in its place. The first is the caller's then. NULL:
 * the image was lost, and all requests fail from now on. Requests that wait and lie beyond the end
 * of a smaller one fail with -ENXIO.
 */
struct disk *gate_below(struct gate *g);
void gate_replace(struct gate *g, struct disk *below);
/* While frozen: the size below, which may have changed. */
void gate_refresh(struct gate *g);
/* What is below, without its gate, which is gone. No request is under way, waits or is kept. */
struct disk *gate_remove(struct gate *g);

/*
 * Patience: an error that the host's storage may get over (no space, a share or device that is
 * gone) is not told to whoever sent the request. The request is kept, and sent again by gate_retry.
 * Both are called from the loop, perhaps with a request's done on the stack.
 */
struct gate_patience {
	void (*lost)(struct gate_patience *p, int error); /* the first one is kept */
	void (*back)(struct gate_patience *p);            /* none is kept any more */
};
/* NULL: what is kept fails now, from the loop, and errors are told from now on. */
void gate_be_patient(struct gate *g, struct gate_patience *p);
void gate_retry(struct gate *g);
bool gate_waits(const struct gate *g); /* lost, and not back */

/*
 * Merging the image below into its parent while requests go on. What the image holds is copied to
 * the parent once; what is changed behind the copy is changed in both. Then the gate freezes, and
 * the parent takes the image's place. `parent` is the image's own parent, opened for writing, with
 * its parents below it; the image reads from it too. The caller has made sure that a cut at any
 * point leaves a chain that opens (merge.h).
 *
 * When the parent cannot be written the merge fails, and requests go on as if there had been none.
 * Nothing is copied while somebody else has frozen the gate.
 */
struct gate_merge {
	/* Called on the loop's thread. The image that was merged is not closed: it is `merged`'s
	 * owner's. On failure or cancellation nothing has changed but the parent's content. */
	void (*done)(struct gate_merge *m, int result, struct disk *merged);
	void (*progress)(struct gate_merge *m, uint64_t copied, uint64_t total); /* NULL is fine */
	/*
	 * NULL is fine. Else it is called when the parent has everything, durably, and the guest
	 * waits; what must be done before it writes to the parent is done then, and ended by
	 * gate_merge_finish: now or later, but not while other callbacks are to run.
	 */
	void (*copied)(struct gate_merge *m);
	unsigned depth; /* pieces under way; 0 = 4 */
	/*
	 * Whose requests go first, and whose freezes the copy waits for; NULL = the gate that the
	 * image is below. For images further down that have a gate of their own.
	 */
	struct gate *guest;
	/* the gate's */
	struct gate_merging *merging;
};

/* No request is under way below. */
int gate_merge(struct gate *g, struct gate_merge *m, struct error *err) _must_check_;
void gate_merge_cancel(struct gate_merge *m);
/* After `copied`: the parent takes the image's place; a result below 0 ends the merge without. */
void gate_merge_finish(struct gate_merge *m, int result);
