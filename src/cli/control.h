/* SPDX-License-Identifier: MIT */
/* The client's end of a worker's control socket: requests with descriptors, answers, events. */
#pragma once

#include "lib/error.h"

#include <jansson.h>
#include <stddef.h>

struct control_client {
	int fd;
	char *data; /* received, not used yet */
	size_t size, room;
	json_int_t id;
};

int control_connect(const char *path, struct control_client *ret, struct error *err) _must_check_;
void control_disconnect(struct control_client *c);

/*
 * Sends the request, which is this function's, with copies of the descriptors, and waits for its
 * answer, the caller's. An answer that is not "ok" is an error with the worker's words. Events that
 * come meanwhile are not kept.
 */
int control_ask(struct control_client *c, json_t *request, const int *fds, size_t fd_count,
		json_t **ret, struct error *err) _must_check_;
/* The next event; -EPIPE: the worker has ended. */
int control_event(struct control_client *c, json_t **ret, struct error *err) _must_check_;
