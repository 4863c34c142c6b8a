// SPDX-License-Identifier: MIT
/*
 * What handlers answer with: JSON with its ETag and Location, jobs, and problems (RFC 9457). A
 * problem's code is the name of an errno code; its status is a row of the table below.
 */
#include "daemon/words.h"
#include "rest/api.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

struct problem {
	const char *code;
	unsigned status;
	const char *title;
};

static const struct problem problems[] = {
	{ "invalid", 400, "The request is not valid" },
	{ "not-authenticated", 401, "Who are you?" },
	{ "forbidden", 403, "You may not do this" },
	{ "not-found", 404, "There is no such thing" },
	{ "method-not-allowed", 405, "This is not done to such things" },
	{ "not-unique", 409, "More than one thing has this name" },
	{ "exists", 409, "It is there already" },
	{ "wrong-state", 409, "Its state does not allow this" },
	{ "busy", 409, "It is in use" },
	{ "broken", 409, "It is damaged" },
	{ "changed", 412, "It was changed meanwhile" },
	{ "too-large", 413, "The request is too large" },
	{ "unsupported-media-type", 415, "The body must be JSON" },
	{ "key-reused", 422, "The Idempotency-Key was for another request" },
	{ "upgrade-required", 426, "This is for WebSockets" },
	{ "too-many-requests", 429, "Too many requests" },
	{ "internal", 500, "Something went wrong in the service" },
	{ "unsupported", 501, "This cannot be done here" },
	{ "not-enough-memory", 503, "There is not enough memory" },
	{ "timeout", 504, "It took too long" },
	{ "no-space", 507, "There is not enough space" },
};

static const struct problem *problem_find(const char *code)
{
	for (unsigned i = 0; i < ARRAY_SIZE(problems); i++) {
		if (!strcmp(problems[i].code, code))
			return &problems[i];
	}
	return problem_find("internal");
}

unsigned problem_status(const char *code)
{
	return problem_find(code)->status;
}

static void answer_json(struct http_request *r, struct http_answer *a, json_t *json)
{
	a->body = json ? json_dumps(json, JSON_COMPACT) : NULL;
	if (!a->body) {
		a->status = 503;
		a->type = "application/problem+json";
		a->body =
			strdup("{\"type\":\"about:blank\",\"title\":\"There is not enough memory\","
			       "\"status\":503,\"code\":\"not-enough-memory\","
			       "\"detail\":\"not enough memory for the answer\"}");
	}
	a->size = a->body ? strlen(a->body) : 0;
	http_answer(r, a);
}

void problem_answer(struct http_request *r, const char *code, const struct error *err,
		    json_t *allowed, const struct http_header *more)
{
	const struct problem *p = problem_find(code);
	struct http_answer a = { .status = p->status, .type = "application/problem+json" };
	_cleanup_json_ json_t *json = json_pack("{s:s,s:s,s:i,s:s,s:o}", "type", "about:blank",
						"title", p->title, "status", (int)p->status, "code",
						p->code, "detail", json_text(err->message));

	if (json && err->property[0])
		json_object_set_new(json, "property", json_text(err->property));
	if (json && allowed)
		json_object_set(json, "allowed", allowed);
	for (; more && more->name; more++)
		a.headers[a.header_count++] = *more;
	answer_json(r, &a, json);
}

static void call_end(struct call *call, struct http_answer *a, json_t *json)
{
	struct http_request *r = call->r;

	call_free(call);
	if (a->status == 204)
		http_answer(r, a);
	else
		answer_json(r, a, json);
	json_decref(json);
}

static void header_add(struct http_answer *a, const char *name, const char *value)
{
	struct http_header *h = &a->headers[a->header_count++];

	h->name = name;
	snprintf(h->value, sizeof(h->value), "%s", value);
}

int call_answer(struct call *call, unsigned status, json_t *json)
{
	struct http_answer a = { .status = status, .type = "application/json" };

	call_end(call, &a, json);
	return 0;
}

/* `text` is taken over; NULL: there was no memory for it. */
int call_answer_text(struct call *call, char *text, size_t size)
{
	struct http_answer a = {
		.status = 200, .type = "application/json", .body = text, .size = size
	};
	struct http_request *r = call->r;

	if (!text)
		return call_answer(call, 200, NULL);
	call_free(call);
	http_answer(r, &a);
	return 0;
}

int call_answer_etag(struct call *call, unsigned status, json_t *json, const char *etag)
{
	struct http_answer a = { .status = status, .type = "application/json" };

	header_add(&a, "ETag", etag);
	call_end(call, &a, json);
	return 0;
}

int call_answer_created(struct call *call, json_t *json, const char *etag, const char *format, ...)
{
	struct http_answer a = { .status = 201, .type = "application/json" };
	char path[sizeof(a.headers[0].value)];
	va_list args;

	va_start(args, format);
	vsnprintf(path, sizeof(path), format, args);
	va_end(args);
	header_add(&a, "Location", path);
	if (etag)
		header_add(&a, "ETag", etag);
	call_end(call, &a, json);
	return 0;
}

int call_answer_job(struct call *call, struct job *job, unsigned status)
{
	struct http_answer a = { .status = status, .type = "application/json" };
	char path[sizeof(a.headers[0].value)];

	snprintf(path, sizeof(path), API_PREFIX "/jobs/%s", job->id);
	header_add(&a, "Location", path);
	call_end(call, &a, job_json(job));
	return 0;
}

int call_answer_empty(struct call *call)
{
	struct http_answer a = { .status = 204 };

	call_end(call, &a, NULL);
	return 0;
}

void call_problem(struct call *call, const struct error *err)
{
	struct http_request *r = call->r;
	_cleanup_json_ json_t *allowed = json_incref(call->allowed);
	static const struct http_header version[] = { { "Sec-WebSocket-Version", "13" }, { 0 } };
	bool upgrade = err->code == -EPROTO && call->route->flags & ROUTE_UPGRADE;

	call_free(call);
	problem_answer(r, upgrade ? "upgrade-required" : error_code_name(err->code), err, allowed,
		       upgrade ? version : NULL);
}

static void on_gone(struct http_request *r)
{
	struct call *call = r->data;

	if (call->left)
		call->left(call);
	call_free(call);
}

void call_later(struct call *call, void (*left)(struct call *))
{
	call->left = left;
	call->r->data = call;
	call->r->gone = on_gone;
	list_append(&call->api->later, &call->node);
}

void call_free(struct call *call)
{
	list_remove(&call->node);
	json_decref(call->body);
	json_decref(call->allowed);
	free(call);
}

/* --- ETags --- */

void etag_of_revision(uint64_t revision, char ret[static ETAG_SIZE])
{
	snprintf(ret, ETAG_SIZE, "\"%" PRIu64 "\"", revision);
}

void etag_of_json(const json_t *json, char ret[static ETAG_SIZE])
{
	_cleanup_free_ char *text = json_dumps(json, JSON_COMPACT | JSON_SORT_KEYS);
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (const char *p = text ? text : ""; *p; p++)
		h = (h ^ (uint8_t)*p) * UINT64_C(0x100000001b3);
	snprintf(ret, ETAG_SIZE, "\"%016" PRIx64 "\"", h);
}

int call_if_match(struct call *call, const char *etag, struct error *err)
{
	const char *header = http_header(call->r, "If-Match"), *p = header;
	size_t n = strlen(etag);

	if (!header || !strcmp(header, "*"))
		return 0;
	while (*p) {
		const char *end;

		p += strspn(p, " \t,");
		end = *p == '"' ? strchr(p + 1, '"') : NULL;
		if (!end)
			return error_set(err, -EINVAL,
					 "If-Match must be * or what ETag said, in its quotes");
		if ((size_t)(end - p) + 1 == n && !memcmp(p, etag, n))
			return 0;
		p = end + 1 + strspn(end + 1, " \t");
		if (*p && *p != ',')
			return error_set(err, -EINVAL, "If-Match has something after its quotes");
	}
	return error_set(err, -ESTALE,
			 "it was changed since you read it: read it again (it is %s now)", etag);
}
