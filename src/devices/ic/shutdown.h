/* SPDX-License-Identifier: MIT */
/*
 * Guest shutdown: asks the guest to power off, restart or hibernate. The guest answers whether it
 * will; that it has done it is seen by the machine ending or resetting.
 */
#pragma once

#include "devices/ic/ic.h"

#define SHUTDOWN_ANSWER_SECONDS 30u
#define SHUTDOWN_REASON_MAX     512u /* bytes of the text */

enum shutdown_action {
	SHUTDOWN_POWER_OFF,
	SHUTDOWN_RESTART_GUEST,
	SHUTDOWN_HIBERNATE_GUEST,
	SHUTDOWN_ACTIONS,
};

struct shutdown {
	struct ic ic;
	/* What is asked now; called once, from the loop. */
	void (*done)(void *context, int result, const struct error *err);
	void *context;
};

struct shutdown_request {
	enum shutdown_action action;
	bool force;
	unsigned patience;  /* seconds that the guest is told it has */
	const char *reason; /* NULL = none */
};

void shutdown_init(struct shutdown *s, struct loop *loop, struct vmbus *bus);
/* 0: `done` will be called with the guest's answer. Else words that say why it was not asked. */
int shutdown_ask(struct shutdown *s, const struct shutdown_request *request,
		 void (*done)(void *context, int result, const struct error *err), void *context,
		 struct error *err) _must_check_;
