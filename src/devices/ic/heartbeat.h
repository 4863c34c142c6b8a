/* SPDX-License-Identifier: MIT */
/*
 * Heartbeat: the host asks every two seconds whether the guest's kernel is there, the guest answers
 * with what it knows of its applications. One timer while the guest answers, none when it is lost.
 */
#pragma once

#include "devices/ic/ic.h"

#define HEARTBEAT_SECONDS    2u
#define HEARTBEAT_LOST_AFTER 5u /* beats in a row without an answer */

enum heartbeat_state {
	HEARTBEAT_DISABLED,
	HEARTBEAT_NO_CONTACT, /* the guest has not answered since it started */
	HEARTBEAT_OK,
	HEARTBEAT_LOST,
	HEARTBEAT_PAUSED,
	HEARTBEAT_ERROR, /* no version in common */
};

enum heartbeat_application {
	HEARTBEAT_UNKNOWN,
	HEARTBEAT_HEALTHY,
	HEARTBEAT_CRITICAL,
	HEARTBEAT_STOPPED,
};

struct heartbeat {
	struct ic ic;
	enum heartbeat_state told;
	enum heartbeat_application application;
	bool heard, lost;
	unsigned missed;
	uint64_t sequence, beats; /* beats: answers so far */
	struct loop_timer timer;
	void (*changed)(struct heartbeat *h);
};

void heartbeat_init(struct heartbeat *h, struct loop *loop, struct vmbus *bus);
void heartbeat_deinit(struct heartbeat *h);
void heartbeat_pause(struct heartbeat *h);
void heartbeat_resume(struct heartbeat *h);
enum heartbeat_state heartbeat_state(const struct heartbeat *h);
const char *heartbeat_state_name(enum heartbeat_state state);
const char *heartbeat_application_name(enum heartbeat_application application);
