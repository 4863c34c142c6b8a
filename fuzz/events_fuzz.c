// SPDX-License-Identifier: MIT
/*
 * A service's stream of events, for its client: the first byte says in which pieces the rest comes.
 * The same bytes in other pieces must give the same events and the same end. Every event is an
 * object, and nothing comes after the end.
 */
#include "cli/client_events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct seen {
	json_t *events;
	int end;
	struct error err;
};

static int on_event(void *context, const json_t *event)
{
	struct seen *seen = context;

	if (seen->end || !json_is_object(event))
		abort();
	json_array_append(seen->events, (json_t *)event);
	/* a reader may have enough */
	return json_object_get(event, "stop") ? 1 : 0;
}

static void feed(struct seen *s, const uint8_t *data, size_t size, size_t piece)
{
	struct events_reader reader;

	*s = (struct seen){ .events = json_array() };
	if (events_reader_init(&reader, on_event, s) < 0)
		abort();
	for (size_t at = 0; at < size && !s->end; at += piece)
		s->end = events_read(&reader, (const char *)data + at, MIN(piece, size - at),
				     &s->err);
	if (s->end && s->end != 1 && (s->end != -EPROTO || !*s->err.message))
		abort();
	events_reader_deinit(&reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seen whole, pieces;

	if (!size || size > 64 * 1024)
		return 0;
	feed(&whole, data + 1, size - 1, size);
	feed(&pieces, data + 1, size - 1, data[0] % 64u + 1);
	if (whole.end != pieces.end || !json_equal(whole.events, pieces.events) ||
	    strcmp(whole.err.message, pieces.err.message) != 0)
		abort();
	json_decref(whole.events);
	json_decref(pieces.events);
	return 0;
}
