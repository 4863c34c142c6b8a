/* SPDX-License-Identifier: MIT */
/* Saving and restoring a partition. Event loop's thread, while all VPs stand still. */
#pragma once

#include "engine/state.h"
#include "partition/partition.h"
#include "save/save.h"

/* Who has the VPs' threads: calls `fn` for each VP on its own, and waits; the first error. */
struct partition_threads {
	int (*each)(void *context, int (*fn)(void *arg, unsigned vp, struct error *err), void *arg,
		    struct error *err);
	void *context;
};

/*
 * Hands on what the guest has posted and nobody has seen yet; a partition is saved after this,
 * before its VPs run again.
 */
void partition_drain(struct partition *p);
/* Appends its records. Nothing changes: the machine may go on. */
int partition_save(struct partition *p, const struct partition_threads *threads,
		   struct save_writer *w, struct error *err) _must_check_;
/*
 * Into a partition that has not run, in two steps. First everything is read and judged: words say
 * why another engine, processor or host will not do. Then, when guest memory and all devices are
 * as they were, the clock and the VPs: from there on the guest can run, and its time goes on. On
 * failure the partition cannot be used any more.
 */
int partition_restore(struct partition *p, struct save_reader *r, struct error *err) _must_check_;
int partition_restore_vps(struct partition *p, const struct partition_threads *threads,
			  struct error *err) _must_check_;
