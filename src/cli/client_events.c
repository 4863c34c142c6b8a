// SPDX-License-Identifier: MIT
/*
 * See client_events.h: text/event-stream (the HTML standard, 9.2), of which `data` matters here.
 * Lines end with LF or CR LF, as the service writes them. What is left of an event when the stream
 * ends never was one.
 */
#include "cli/client_events.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int end_event(struct events_reader *r, struct error *err)
{
	json_error_t e;
	json_t *event;
	int result;

	if (!r->data_size)
		return 0;
	event = json_loadb(r->data, r->data_size, JSON_REJECT_DUPLICATES, &e);
	r->data_size = 0;
	if (json_is_object(event))
		result = r->each(r->context, event);
	else
		result = error_set(err, -EPROTO, "the service's event is no JSON: %s",
				   event ? "no object" : e.text);
	json_decref(event);
	return result;
}

static int end_line(struct events_reader *r, struct error *err)
{
	const char *line = r->line;
	size_t n = r->line_size;

	r->line_size = 0;
	if (n && line[n - 1] == '\r')
		n--;
	if (!n)
		return end_event(r, err);
	if (n < 5 || memcmp(line, "data:", 5) != 0)
		return 0;
	line += 5;
	n -= 5;
	if (n && *line == ' ') {
		line++;
		n--;
	}
	if (r->data_size + n + 1 > EVENTS_LINE_MAX)
		return error_set(err, -EPROTO, "the service's event is too long");
	if (r->data_size)
		r->data[r->data_size++] = '\n';
	memcpy(r->data + r->data_size, line, n);
	r->data_size += n;
	return 0;
}

int events_read(struct events_reader *r, const char *data, size_t size, struct error *err)
{
	int result = 0;

	for (size_t i = 0; i < size && !result; i++) {
		if (data[i] == '\n')
			result = end_line(r, err);
		else if (r->line_size < EVENTS_LINE_MAX)
			r->line[r->line_size++] = data[i];
		else
			result = error_set(err, -EPROTO, "the service's line is too long");
	}
	return result;
}

int events_reader_init(struct events_reader *r, int (*each)(void *context, const json_t *event),
		       void *context)
{
	*r = (struct events_reader){ .each = each, .context = context };
	r->line = malloc(EVENTS_LINE_MAX);
	r->data = malloc(EVENTS_LINE_MAX);
	return r->line && r->data ? 0 : -ENOMEM;
}

void events_reader_deinit(struct events_reader *r)
{
	free(r->line);
	free(r->data);
}
