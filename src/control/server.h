/* SPDX-License-Identifier: MIT */
/*
 * A control socket: lines of JSON. A request is {"id": any, "command": "name", ...}; the answer
 * repeats the id and has "ok", and "error" with words when not ok. Files come with a request as
 * descriptors (SCM_RIGHTS); those that go with an answer come with its first byte or before, and it
 * says in "descriptors" how many. Events come unasked. What there is to command is in families
 * (command.h). Everything that a client can make us keep is bounded; one that does not read its
 * answers is dropped. Event loop's thread.
 */
#pragma once

#include "control/command.h"
#include "event/loop.h"

#define CONTROL_MAX_LINE 16384u /* bytes of a request, with its end */
#define CONTROL_MAX_FDS  32u    /* descriptors that come with one */

struct control_server;

struct control_options {
	struct loop *loop;
	int listener;   /* listens already; taken in any case; -1 = none */
	int descriptor; /* of a connection that is there already, taken; -1 = none */
	/* Looked up for each request. */
	const struct command_family *(*families)(void *context, unsigned *ret_count);
	/* Adds to each answer what all have; NULL = nothing. */
	void (*stamp)(void *context, json_t *answer);
	/* Whether this peer may connect; NULL = all who can. */
	bool (*admit)(void *context, int fd);
	void *context;
};

int control_server_new(const struct control_options *options, struct control_server **ret,
		       struct error *err) _must_check_;
void control_server_free(struct control_server *s); /* NULL is fine */
/* To all clients; `may_miss`: not to those who have not read what was there before. */
void control_server_tell(struct control_server *s, json_t *event, bool may_miss);
