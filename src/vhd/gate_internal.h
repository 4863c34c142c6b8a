/* SPDX-License-Identifier: MIT */
/* What gate.c and gate_merge.c share. */
#pragma once

#include "vhd/gate.h"

#include <assert.h>

struct gate {
	struct disk disk;
	struct disk *below;
	struct list held;   /* disk_request.node, in order */
	unsigned in_flight; /* below */
	struct gate_freeze *freeze;
	bool flushing;
	int frozen_result;
	struct loop_task task;
	struct gate_merging *merging; /* owned */
};

/* A guest's change of this range is complete. */
void gate_merge_mark(struct gate *g, uint64_t offset, uint64_t length);
/* Forgets the merge of a gate that is closed; nothing of it is under way. */
void gate_merge_abandon(struct gate *g);
