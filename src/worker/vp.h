/* SPDX-License-Identifier: MIT */
/*
 * The threads that run VPs. Each waits at a gate until the machine lets it run, then runs its VP
 * and hands exits to the platform's devices; it never does I/O and never waits for it.
 */
#pragma once

#include "partition/partition.h"

struct vps;
struct platform;

struct vps_callbacks {
	void (*parked)(void *context); /* from some VP's thread: all of them are at the gate */
	void (*crashed)(void *context, const uint64_t parameters[5]);
	void (*reset)(void *context);
	void (*failed)(void *context, const struct error *err);
	void *context;
};

/* Starts the threads, all at the closed gate. */
int vps_new(struct partition *p, struct platform *platform, const struct vps_callbacks *callbacks,
	    struct vps **ret, struct error *err) _must_check_;
void vps_free(struct vps *v); /* ends the threads; NULL is fine */
void vps_run(struct vps *v);  /* opens the gate */
/* Closes the gate and fetches the VPs out of the guest; `parked` is called when all have come. */
void vps_hold(struct vps *v); /* any thread */
/*
 * While the gate is closed: calls `fn` for each VP on its own thread, all at the same time, and
 * waits for them; the first error. The loop's thread.
 */
int vps_each(struct vps *v, int (*fn)(void *arg, unsigned vp, struct error *err), void *arg,
	     struct error *err);
uint64_t vps_exits(const struct vps *v);
