/* SPDX-License-Identifier: MIT */
/*
 * A stream of events (text/event-stream) without the connection: the caller gives bytes as they
 * come, in pieces of any size.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#include <jansson.h>

#define EVENTS_LINE_MAX (256 * KIB) /* of a line, and of an event's data */

struct events_reader {
	int (*each)(void *context, const json_t *event);
	void *context;
	char *line, *data; /* what has come of the line, and of the event */
	size_t line_size, data_size;
};

/* -ENOMEM; events_reader_deinit is called in any case. */
int events_reader_init(struct events_reader *r, int (*each)(void *context, const json_t *event),
		       void *context) _must_check_;
void events_reader_deinit(struct events_reader *r);
/*
 * Calls `each` for every event that has come to its end. Other than 0: what `each` said, or -EPROTO
 * with words; nothing more may be read then.
 */
int events_read(struct events_reader *r, const char *data, size_t size,
		struct error *err) _must_check_;
