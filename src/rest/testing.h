/* SPDX-License-Identifier: MIT */
/* For tests: requests that come from no connection, and what was answered to them. */
#pragma once

#include "daemon/vm_testing.h"
#include "rest/api.h"

struct asked {
	struct http_request r;
	struct http_client client;
	const char *headers[8][2];
	unsigned header_count;
	bool answered, streamed;
	unsigned status;
	char type[64];
	struct http_header out[4];
	unsigned out_count;
	char *text;   /* the body */
	json_t *json; /* the same, or NULL */
};

static inline const char *asked_header(struct http_request *r, const char *name)
{
	struct asked *a = container_of(r, struct asked, r);

	for (unsigned i = 0; i < a->header_count; i++) {
		if (!strcasecmp(a->headers[i][0], name))
			return a->headers[i][1];
	}
	return NULL;
}

static inline void asked_answer(struct http_request *r, struct http_answer *answer)
{
	struct asked *a = container_of(r, struct asked, r);

	assert_false(a->answered);
	a->answered = true;
	a->status = answer->status;
	snprintf(a->type, sizeof(a->type), "%s", answer->type ? answer->type : "");
	memcpy(a->out, answer->headers, sizeof(a->out));
	a->out_count = answer->header_count;
	if (answer->body) {
		a->text = strndup(answer->body, answer->size);
		a->json = json_loadb(answer->body, answer->size, JSON_REJECT_DUPLICATES, NULL);
		free(answer->body);
	}
}

static inline struct http_stream *asked_stream(struct http_request *r, const char *type)
{
	(void)r;
	(void)type;
	return NULL;
}

static inline int asked_upgrade(struct http_request *r, const struct websocket_events *events,
				void *context, struct websocket **ret, struct error *err)
{
	(void)r;
	(void)events;
	(void)context;
	(void)ret;
	return error_set(err, -EINVAL, "this is for WebSockets");
}

static const struct http_transport asked_transport = { asked_header, asked_answer, asked_stream,
						       asked_upgrade };

static inline void asked_deinit(struct asked *a)
{
	free(a->text);
	json_decref(a->json);
	target_deinit(&a->r.target);
	free(a->r.body);
	*a = (struct asked){ 0 };
}

/* "path" below the prefix, or whole when it begins with a slash. */
static inline void asked_init(struct asked *a, const struct caller *c, const char *method,
			      const char *path, const char *body)
{
	char target[TARGET_TEXT_MAX + 64];

	*a = (struct asked){ .r = { .transport = &asked_transport, .caller = c } };
	a->r.client = &a->client;
	snprintf(a->r.method, sizeof(a->r.method), "%s", method);
	snprintf(target, sizeof(target), "%s%s", *path == '/' ? "" : API_PREFIX "/", path);
	(void)!target_parse(target, &a->r.target, &a->r.target_error);
	if (body) {
		a->r.body = strdup(body);
		a->r.body_size = strlen(body);
		a->headers[0][0] = "Content-Type";
		a->headers[0][1] = "application/json";
		a->header_count = 1;
	}
}

static inline void asked_add(struct asked *a, const char *name, const char *value)
{
	a->headers[a->header_count][0] = name;
	a->headers[a->header_count++][1] = value;
}

static inline const char *asked_out(const struct asked *a, const char *name)
{
	for (unsigned i = 0; i < a->out_count; i++) {
		if (!strcmp(a->out[i].name, name))
			return a->out[i].value;
	}
	return NULL;
}

static inline const char *text_of(const json_t *json, const char *name)
{
	const char *text = json_string_value(json_object_get(json, name));

	return text ? text : "(none)";
}
