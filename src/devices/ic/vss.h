/* SPDX-License-Identifier: MIT */
/*
 * Backup (VSS): the guest makes its file systems consistent on disk and holds them still while the
 * host takes a copy. The guest's kernel asks its daemon. A freeze has a time limit, after which the
 * guest is thawed: a client that forgot it must not leave a guest standing.
 */
#pragma once

#include "devices/ic/ic.h"

#define VSS_FREEZE_DEFAULT 60u  /* seconds */
#define VSS_FREEZE_MAX     900u /* Linux thaws by itself then: drivers/hv/hv_snapshot.c */
#define VSS_ANSWER_SECONDS 120u /* of a freeze: file systems write what they have */

enum vss_state {
	VSS_IDLE,
	VSS_ASKING, /* whether the guest can be backed up */
	VSS_FREEZING,
	VSS_FROZEN,
	VSS_THAWING,
};

struct vss {
	struct ic ic;
	enum vss_state state;
	unsigned limit;   /* seconds */
	bool can_recover; /* the guest would recover a copy by itself (Linux: no) */
	struct loop_timer limit_timer;
	void (*done)(void *context, int result, const struct error *err);
	void *context;
	/* Thawed without having been asked; why. NULL is fine. */
	void (*thawed)(struct vss *v, const char *reason);
};

void vss_init(struct vss *v, struct loop *loop, struct vmbus *bus);
void vss_deinit(struct vss *v);
const char *vss_state_name(enum vss_state state);
/* 0: `done` is called from the loop with how it went. */
int vss_freeze(struct vss *v, unsigned seconds,
	       void (*done)(void *context, int result, const struct error *err), void *context,
	       struct error *err) _must_check_;
int vss_thaw(struct vss *v, void (*done)(void *context, int result, const struct error *err),
	     void *context, struct error *err) _must_check_;
