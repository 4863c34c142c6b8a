/* SPDX-License-Identifier: MIT */
/* What gate.c and gate_merge.c share. */
#pragma once

#include "vhd/gate.h"
#include "vhd/later.h"

#include <assert.h>

struct gate {
	struct disk disk;
	struct disk *below;
	bool read_only;       /* as what stands above was told at first */
	struct list held;     /* disk_request.node, in order */
	struct later refused; /* those that fail without the image */
	unsigned in_flight;   /* below, waiting for a merge's copy, or kept */
	struct gate_patience *patience;
	struct list kept;    /* disk_request.node; their errors in disk_request.layer */
	unsigned kept_count; /* with those that were sent again and have not ended yet */
	struct gate_freeze *freeze;
	bool flushing;
	int frozen_result;
	struct loop_task task;
	struct gate_merging *merging; /* owned */
	struct gate_merging *copier; /* that gives way to these requests: it, or one further down */
	unsigned copies;             /* pieces that it has under way: a freeze waits for them */
};

/* Ends a freeze's waiting, when nothing is under way any more. */
void gate_drained(struct gate *g);
/* Answers a request that gate_merge_change took. */
void gate_request_end(struct gate *g, struct disk_request *req, int result);
/* Takes a request that changes what is being merged; false when it is none, or nothing is. */
bool gate_merge_change(struct gate *g, struct disk_request *req);
/* The requests of the merge's guest go on. */
void gate_merge_thawed(struct gate *guest);
/* Forgets the merge of a gate that is closed; nothing of it is under way. */
void gate_merge_abandon(struct gate *g);
