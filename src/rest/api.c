// SPDX-License-Identifier: MIT
/*
 * The router. A request's head is admitted first: it must come from somebody (auth.c), and not from
 * a page of another site in a browser (Origin). When all of it is there its path is looked up in
 * the routes, its parameters and body are checked against the route, and the handler is called. All
 * that is wrong on the way is answered here, as is what a handler returns as an error.
 */
#include "rest/api.h"
#include "daemon/thing.h"
#include "rest/auth.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

/* --- finding the route --- */

static bool part_matches(const char *pattern, size_t n, const char *part)
{
	return *pattern == '{' ? *part != '\0' : strlen(part) == n && !memcmp(pattern, part, n);
}

/* Whether the path is this route's; *ret_id what stands for its {...}. */
static bool path_matches(const struct route *route, const struct target_text *t,
			 const char **ret_id)
{
	const char *p = route->path;
	unsigned i = 2;

	*ret_id = "";
	for (; *p && i < t->part_count; i++) {
		size_t n = strcspn(p, "/");

		if (!part_matches(p, n, t->parts[i]))
			return false;
		if (*p == '{')
			*ret_id = t->parts[i];
		p += n + (p[n] == '/');
	}
	return !*p && i == t->part_count;
}

static const char *method_of(const struct http_request *r)
{
	return !strcmp(r->method, "HEAD") ? "GET" : r->method;
}

/* NULL with err, and the methods that there are instead in `allow`. */
static const struct route *route_find(const struct http_request *r, const char **ret_id,
				      char *allow, size_t size, struct error *err)
{
	const struct target_text *t = &r->target;
	size_t n = 0;

	*allow = '\0';
	if (t->part_count < 3 || strcmp(t->parts[0], "api") || strcmp(t->parts[1], "v1")) {
		error_set(err, -ENOENT,
			  "there is nothing here; what there is is below " API_PREFIX
			  ", see " API_PREFIX "/openapi.json");
		return NULL;
	}
	for (unsigned i = 0; i < route_count; i++) {
		if (!path_matches(&routes[i], t, ret_id))
			continue;
		if (!strcmp(routes[i].method, method_of(r)))
			return &routes[i];
		if (n < size)
			n += (size_t)snprintf(allow + n, size - n, "%s%s", n ? ", " : "",
					      routes[i].method);
	}
	if (n)
		error_set(err, -ENOTSUP, "only %s can be asked for here", allow);
	else
		error_set(err, -ENOENT,
			  "there is nothing at this address, see " API_PREFIX "/openapi.json");
	return NULL;
}

/* --- checking it --- */

static bool type_is_json(const char *type, bool patch)
{
	size_t n = type ? strcspn(type, "; \t") : 0;

	return (n == 16 && !strncasecmp(type, "application/json", n)) ||
	       (patch && n == 28 && !strncasecmp(type, "application/merge-patch+json", n));
}

/* The parser stops at 2,048; nothing of ours is a tenth as deep. */
static bool too_deep(const json_t *json, unsigned depth)
{
	const char *name;
	json_t *value;
	size_t i;

	if (depth > API_JSON_DEPTH_MAX)
		return true;
	json_object_foreach((json_t *)json, name, value)
	{
		if (too_deep(value, depth + 1))
			return true;
	}
	json_array_foreach(json, i, value)
	{
		if (too_deep(value, depth + 1))
			return true;
	}
	return false;
}

static int read_body(struct call *call, const char **ret_code, struct error *err)
{
	const struct http_request *r = call->r;
	json_error_t at;

	if (!call->route->body && r->body_size)
		return error_set(err, -EINVAL, "this request has no body");
	if (!call->route->body)
		return 0;
	if (!r->body_size)
		return error_set(err, -EINVAL, "the body is missing");
	if (!type_is_json(http_header(call->r, "Content-Type"),
			  call->route->flags & ROUTE_PATCH_TYPE)) {
		*ret_code = "unsupported-media-type";
		return error_set(err, -EINVAL, "Content-Type must be application/json");
	}
	call->body = json_loadb(r->body, r->body_size, JSON_REJECT_DUPLICATES, &at);
	if (!call->body)
		return error_set(err, -EINVAL, "the body is no JSON: line %d, column %d: %s",
				 at.line, at.column, at.text);
	if (!json_is_object(call->body))
		return error_set(err, -EINVAL, "the body must be a JSON object");
	if (too_deep(call->body, 1))
		return error_set(err, -EINVAL, "the body is nested too deep");
	if (call->route->flags & ROUTE_BODY_UNCHECKED)
		return 0;
	return check_component(call->api->components, call->route->body, call->body, err);
}

static int check_call(struct call *call, const char **ret_code, struct error *err)
{
	const char *key = http_header(call->r, "Idempotency-Key");
	int r = call_check_query(call, err);

	if (r >= 0 && call->route->flags & ROUTE_KEY && key &&
	    (!*key || strlen(key) > 64 || !text_is_utf8(key)))
		r = error_set(err, -EINVAL, "Idempotency-Key must have 1 to 64 characters");
	if (r >= 0)
		r = read_body(call, ret_code, err);
	return r;
}

static struct call *call_new(struct api *api, struct http_request *r, const struct route *route,
			     const char *id)
{
	struct call *call = calloc(1, sizeof(*call));

	if (!call)
		return NULL;
	call->api = api;
	call->d = api->d;
	call->r = r;
	call->caller = r->caller;
	call->route = route;
	call->id = id;
	list_init(&call->node);
	return call;
}

static void refuse(struct http_request *r, const char *code, const struct error *err,
		   const char *header, const char *value)
{
	struct http_header more[2] = { { .name = header } };

	if (header)
		snprintf(more[0].value, sizeof(more[0].value), "%s", value);
	problem_answer(r, code, err, NULL, header ? more : NULL);
}

static const char *code_of(const struct error *err)
{
	return err->code == -ENOTSUP ? "method-not-allowed" : NULL;
}

static void handle(struct api *api, struct http_request *r)
{
	struct error err = { 0 };
	const struct route *route;
	const char *id, *code = NULL;
	char allow[100];
	struct call *call;

	route = route_find(r, &id, allow, sizeof(allow), &err);
	if (!route) {
		code = code_of(&err);
		refuse(r, code ? code : "not-found", &err, code ? "Allow" : NULL, allow);
		return;
	}
	call = call_new(api, r, route, id);
	if (!call) {
		error_set(&err, -ENOMEM, "not enough memory");
		refuse(r, "not-enough-memory", &err, NULL, NULL);
		return;
	}
	if (check_call(call, &code, &err) < 0 && code) {
		call_free(call);
		refuse(r, code, &err, NULL, NULL);
	} else if (err.code || route->fn(call, &err) < 0) {
		call_problem(call, &err);
	}
}

void api_handle(void *context, struct http_request *r)
{
	struct error err = { 0 };

	if (r->body_too_large) {
		error_set(&err, -EFBIG, "the body is larger than %u bytes",
			  (unsigned)HTTP_BODY_MAX);
		refuse(r, "too-large", &err, NULL, NULL);
	} else if (r->target_error.code) {
		refuse(r, "invalid", &r->target_error, NULL, NULL);
	} else {
		handle(context, r);
	}
}

void api_refuse(void *context, struct http_request *r, unsigned status)
{
	struct error err = { 0 };

	(void)context;
	if (status == 429) {
		error_set(&err, -EBUSY, "you ask too often: wait a second");
		refuse(r, "too-many-requests", &err, "Retry-After", "1");
	} else {
		error_set(&err, -ENOMEM, "not enough memory");
		refuse(r, "not-enough-memory", &err, NULL, NULL);
	}
}

/* --- who asks --- */

/*
 * A browser says from which site's page a request comes. It adds passwords and certificates by
 * itself, so a page of any site could ask in its user's name: only our own may.
 */
static bool origin_is_ours(struct http_request *r)
{
	const char *origin = http_header(r, "Origin"), *host = http_header(r, "Host");

	if (!origin)
		return true;
	return host && !strncmp(origin, "https://", 8) && !strcasecmp(origin + 8, host);
}

enum http_admission api_admit(void *context, struct http_request *r)
{
	struct api *api = context;
	struct error err = { 0 };

	if (!origin_is_ours(r)) {
		error_set(&err, -EACCES, "pages of other sites may not ask here");
		refuse(r, "forbidden", &err, NULL, NULL);
		return HTTP_ANSWERED;
	}
	return auth_admit(api->auth, r);
}

/* --- the whole --- */

int api_new(struct daemon *d, struct api **ret, struct error *err)
{
	struct api *api = calloc(1, sizeof(*api));

	if (!api)
		return error_errno(err, -ENOMEM, "cannot serve REST");
	api->d = d;
	list_init(&api->later);
	list_init(&api->waits);
	list_init(&api->streams);
	list_init(&api->consoles);
	job_watch(d->jobs, &api->job_watch, waits_on_job);
	event_watch(d->events, &api->event_watch, streams_on_event);
	if (things_init(d, err) < 0) {
		api_free(api);
		return err->code;
	}
	api->components = components_new();
	if (api->components)
		api->document = openapi_new(api->components);
	if (!api->document) {
		api_free(api);
		return error_set(err, -ENOMEM, "cannot describe the interface: not enough memory");
	}
	api->document_size = strlen(api->document);
	*ret = api;
	return 0;
}

void api_detach(struct api *api)
{
	streams_end(api);
	consoles_end(api);
}

void api_free(struct api *api)
{
	if (!api)
		return;
	job_unwatch(&api->job_watch);
	event_unwatch(&api->event_watch);
	vm_texts_free(api);
	json_decref(api->components);
	free(api->document);
	free(api);
}
