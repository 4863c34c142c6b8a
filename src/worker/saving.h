/* SPDX-License-Identifier: MIT */
/*
 * Saving a machine to a file and restoring it, as courses of steps that end by themselves: devices
 * come to rest, disks are flushed, state and memory are written and made durable; or read, judged
 * and put back in an order that a guest can live with. Event loop's thread; all VPs are at the
 * gate. The machine (machine.c) decides what comes before and after.
 */
#pragma once

#include "firmware/memmap.h"
#include "vmbus/vmbus.h"
#include "worker/platform.h"
#include "worker/vp.h"

struct disks;
struct saving;

/* The parts of a machine; borrowed. */
struct saving_machine {
	struct loop *loop;
	const struct memmap *map;
	struct gmem *gm;
	struct partition *partition;
	struct vmbus *bus;
	struct platform *platform;
	struct disks *disks;
	struct vps *vps;
};

struct saving_options {
	struct saving_machine machine;
	int fd; /* of the state file; borrowed */
	void (*progress)(void *context, unsigned percent);
	/* Once, from the loop. */
	void (*done)(void *context, int result, const struct error *err);
	void *context;
};

/* Whether the machine, as it is now, could be saved; asked before anything is stopped. */
int saving_possible(const struct saving_machine *m, struct error *err) _must_check_;
/*
 * When it is done with 0 the file is complete and durable, and the machine must not run any more.
 * Otherwise the bus runs again, and the machine can go on as if nothing was.
 */
int saving_begin(const struct saving_options *options, struct saving **ret,
		 struct error *err) _must_check_;
/*
 * Into a machine that was just made. When it is done with 0 the bus is at rest (vmbus_resume), and
 * VPs may run. Otherwise the machine is of no more use: its bus must be reset, and it ends.
 */
int restoring_begin(const struct saving_options *options, struct saving **ret,
		    struct error *err) _must_check_;
void saving_cancel(struct saving *s); /* `done` comes with -ECANCELED, or was on its way */
void saving_free(struct saving *s);   /* after `done`; NULL is fine */
