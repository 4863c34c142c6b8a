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
	unsigned in_flight;   /* below */
	struct gate_freeze *freeze;
	bool flushing;
	int frozen_result;
	struct loop_task task;
	struct gate_merging *merging; /* owned */
};

/* A guest's change of this range is complete. */
void gate_merge_mark(struct gate *g, uint64_t offset, uint64_t length);
/* Somebody else's freeze, which the merge had to wait for, is over. */
void gate_merge_thawed(struct gate *g);
/* Forgets the merge of a gate that is closed; nothing of it is under way. */
void gate_merge_abandon(struct gate *g);
