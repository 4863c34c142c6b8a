// SPDX-License-Identifier: MIT
/*
 * See client.h: what lasts. Jobs are waited for by asking with ?wait=, which the service answers
 * when the job has ended; events are a stream that client_events.c takes apart.
 */
#include "cli/client_events.h"
#include "cli/client_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

/* --- jobs --- */

/* 1: goes on. */
static int job_result(const json_t *job, struct error *err)
{
	const char *state = json_string_value(json_object_get(job, "state"));
	const json_t *error = json_object_get(job, "error");
	const char *detail = json_string_value(json_object_get(error, "detail"));
	const char *property = json_string_value(json_object_get(error, "property"));
	int r;

	if (!state)
		return error_set(err, -EPROTO, "the service's answer is no job");
	if (!strcmp(state, "running"))
		return 1;
	if (!strcmp(state, "completed"))
		return 0;
	r = !strcmp(state, "cancelled")
		    ? -ECANCELED
		    : client_problem(json_string_value(json_object_get(error, "code")));
	error_set(err, r, "%s",
		  detail            ? detail
		  : r == -ECANCELED ? "it was cancelled"
				    : "it failed");
	if (property)
		snprintf(err->property, sizeof(err->property), "%s", property);
	return r;
}

/* Asks again; a service that does not wait as it was asked to must not make us spin. */
static int job_next(struct client *c, const char *path, json_t **job, struct error *err)
{
	uint64_t begin = now_ms();
	json_t *next;
	int r = client_get(c, path, &next, err);

	if (r < 0)
		return r;
	json_decref(*job);
	*job = next;
	r = job_result(next, err);
	if (r == 1 && now_ms() - begin < 200)
		nanosleep(&(struct timespec){ .tv_nsec = 200000000 }, NULL);
	return r;
}

int client_wait(struct client *c, const char *id, const struct client_wait *w, json_t **ret,
		struct error *err)
{
	_cleanup_free_ char *path = client_path("/jobs/", id, "");
	_cleanup_free_ char *waiting = client_path("/jobs/", id, "?wait=1");
	uint64_t end = w->timeout_s ? now_ms() + w->timeout_s * UINT64_C(1000) : UINT64_MAX;
	json_t *job = NULL;
	int r;

	if (!path || !waiting)
		return error_set(err, -ENOMEM, "out of memory");
	r = client_get(c, path, &job, err);
	if (r >= 0)
		r = job_result(job, err);
	while (r == 1) {
		if (w->shown)
			w->shown(w->context, job);
		if (now_ms() >= end)
			r = error_set(err, -ETIMEDOUT,
				      "it has not ended after %u s, and goes on as job %s",
				      w->timeout_s, id);
		else
			r = job_next(c, waiting, &job, err);
	}
	if (job && w->shown)
		w->shown(w->context, job);
	if (r >= 0 && ret)
		*ret = json_incref(job);
	json_decref(job);
	return r;
}

/* --- events --- */

struct reader {
	const struct client_stream *stream;
	CURL *curl;
	struct events_reader events;
	uint64_t last; /* ms: when something was told */
	bool opened;
	int result; /* other than 0: it is over */
	struct error err;
};

static int tell(struct reader *r, const json_t *event)
{
	r->last = now_ms();
	r->result = r->stream->each(r->stream->context, event);
	return r->result;
}

static int on_event(void *context, const json_t *event)
{
	return tell(context, event);
}

/* Once its headers have come, nothing that happens from now on is missed. */
static int look_at_status(struct reader *r)
{
	long status = 0;

	curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, &status);
	if (!status || r->opened || r->result)
		return r->result;
	r->opened = true;
	if (status != 200)
		r->result = error_set(&r->err, status == 401 || status == 403 ? -EACCES : -EPROTO,
				      "the service refuses its events (status %ld)", status);
	else
		tell(r, NULL);
	return r->result;
}

static size_t receive(char *data, size_t one, size_t size, void *context)
{
	struct reader *r = context;

	(void)one;
	if (!look_at_status(r))
		r->result = events_read(&r->events, data, size, &r->err);
	return r->result ? 0 : size;
}

static int stream_ended(struct client *c, CURLM *multi, struct reader *r)
{
	int left;
	CURLMsg *m = curl_multi_info_read(multi, &left);

	if (!m || m->msg != CURLMSG_DONE || r->result)
		return r->result;
	if (m->data.result && !r->opened)
		r->result = client_transfer_failed(c, m->data.result, &r->err);
	else
		r->result = error_set(&r->err, -EPIPE, "the service has closed its events");
	return r->result;
}

static int stream_loop(struct client *c, CURLM *multi, struct reader *r)
{
	unsigned idle = r->stream->idle_ms;

	while (!r->result) {
		int running;

		if (curl_multi_perform(multi, &running) ||
		    curl_multi_poll(multi, NULL, 0, idle ? (int)MIN(idle, 1000u) : 1000, NULL))
			return error_set(&r->err, -EIO, "cannot read the service's events");
		if (look_at_status(r) || stream_ended(c, multi, r))
			break;
		if (idle && r->opened && now_ms() - r->last >= idle)
			tell(r, NULL);
	}
	return r->result;
}

static struct curl_slist *stream_headers(const struct client_stream *s)
{
	struct curl_slist *headers = curl_slist_append(NULL, "Accept: text/event-stream"), *longer;
	char line[64];

	snprintf(line, sizeof(line), "Last-Event-ID: %" PRId64, s->after);
	if (!headers || s->after < 0)
		return headers;
	longer = curl_slist_append(headers, line);
	if (!longer)
		curl_slist_free_all(headers);
	return longer;
}

int client_stream(struct client *c, const struct client_stream *s, struct error *err)
{
	struct reader reader = { .stream = s, .last = now_ms() };
	struct curl_slist *headers = stream_headers(s);
	CURLM *multi = curl_multi_init();
	CURL *curl = curl_easy_init();
	int r = -ENOMEM;

	reader.curl = curl;
	if (events_reader_init(&reader.events, on_event, &reader) < 0 || !headers || !multi ||
	    !curl)
		error_set(err, -ENOMEM, "out of memory");
	else
		r = client_prepare(c, curl, s->path, err);
	if (r >= 0) {
		curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
		curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
		curl_easy_setopt(curl, CURLOPT_WRITEDATA, &reader);
		curl_multi_add_handle(multi, curl);
		r = stream_loop(c, multi, &reader);
		if (reader.err.code && err)
			*err = reader.err;
		curl_multi_remove_handle(multi, curl);
	}
	curl_easy_cleanup(curl);
	curl_multi_cleanup(multi);
	curl_slist_free_all(headers);
	events_reader_deinit(&reader.events);
	return r;
}
