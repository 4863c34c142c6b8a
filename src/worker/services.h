/* SPDX-License-Identifier: MIT */
/*
 * The integration services of a machine (devices/ic): which are on, what goes along with the
 * machine's pauses, and what the host tells the guest of itself. Event loop's thread.
 */
#pragma once

#include "devices/ic/fcopy.h"
#include "devices/ic/heartbeat.h"
#include "devices/ic/kvp.h"
#include "devices/ic/shutdown.h"
#include "devices/ic/timesync.h"
#include "devices/ic/vss.h"

#include <jansson.h>

struct vm_description;

enum service_kind {
	SERVICE_HEARTBEAT,
	SERVICE_SHUTDOWN,
	SERVICE_TIMESYNC,
	SERVICE_KVP,
	SERVICE_VSS,
	SERVICE_FCOPY,
	SERVICE_COUNT,
};

#define HOST_ITEMS 5 /* that every guest is told: names of host and machine */

struct services {
	struct loop *loop;
	struct heartbeat heartbeat;
	struct shutdown shutdown;
	struct timesync timesync;
	struct kvp kvp;
	struct vss vss;
	struct fcopy fcopy;
	/* What the guest is told when it comes, one after the other. */
	struct {
		const char *key;
		char value[256];
	} host_items[HOST_ITEMS];
	unsigned host_next;
	struct kvp_call host_call;
	/* service_control.c's */
	uint64_t copy_told; /* loop_now of the last progress */
	char copy_path[600];
	void (*tell)(void *context, json_t *event, bool may_miss); /* takes the event */
	void *tell_context;
};

/* Offers those that the description has on. `tell`: what clients are told (service_control.c). */
int services_new(struct loop *loop, struct vmbus *bus, const struct vm_description *description,
		 struct services **ret, struct error *err) _must_check_;
/* The bus is quiet, or nothing was started. NULL is fine. */
void services_free(struct services *s);
void services_pause(struct services *s);   /* the VPs stand still */
void services_resume(struct services *s);  /* they run; harmless when they did */
void services_restart(struct services *s); /* the guest is that of an earlier time */

/* The guest's daemon answers: what it is to know of the host goes to it, once. */
void services_guest_known(struct services *s);

struct ic *services_ic(struct services *s, enum service_kind kind);
const char *services_name(enum service_kind kind); /* as in the description */
