// SPDX-License-Identifier: MIT
/*
 * openapi.json (OpenAPI 3.1): the routes with their parameters, bodies and answers, and the
 * components. Made once when the service starts; whatever is missing for lack of memory makes it
 * fail as a whole, when it is written out.
 */
#include "rest/api.h"

#include <errno.h>
#include <string.h>

#define REF "#/components/schemas/"

static json_t *ref_to(const char *component)
{
	char text[100];

	snprintf(text, sizeof(text), REF "%s", component);
	return json_pack("{s:s}", "$ref", text);
}

static json_t *content(const char *type, json_t *schema)
{
	return json_pack("{s:{s:o}}", type, "schema", schema);
}

static json_t *page_of(const char *component)
{
	return json_pack("{s:s,s:[s,s],s:b,s:{s:{s:s,s:o},s:{s:[s,s]}}}", "type", "object",
			 "required", "items", "next", "additionalProperties", 0, "properties",
			 "items", "type", "array", "items", ref_to(component), "next", "type",
			 "string", "null");
}

static json_t *parameter_schema(const struct parameter *p)
{
	json_t *json;

	if (p->type == PARAMETER_BOOL)
		return json_pack("{s:s}", "type", "boolean");
	if (p->type == PARAMETER_INTEGER)
		return json_pack("{s:s,s:I,s:I}", "type", "integer", "minimum", (json_int_t)p->min,
				 "maximum", (json_int_t)p->max);
	json = json_pack("{s:s}", "type", "string");
	if (p->names) {
		json_t *names = json_array();

		for (const char *const *name = p->names; *name; name++)
			json_array_append_new(names, json_string(*name));
		json_object_set_new(json, "enum", names);
		return json;
	}
	json_object_set_new(json, "minLength", json_integer(p->min));
	json_object_set_new(json, "maxLength", json_integer(p->max));
	return json;
}

static json_t *parameter(const char *in, const char *name, const char *description, json_t *schema)
{
	return json_pack("{s:s,s:s,s:s,s:b,s:o}", "in", in, "name", name, "description",
			 description, "required", !strcmp(in, "path"), "schema", schema);
}

static json_t *text_schema(unsigned max)
{
	return json_pack("{s:s,s:i,s:i}", "type", "string", "minLength", 1, "maxLength", (int)max);
}

static json_t *parameters(const struct route *route)
{
	const char *open = strchr(route->path, '{');
	json_t *list = json_array();
	char name[20];

	if (open) {
		snprintf(name, sizeof(name), "%.*s", (int)strcspn(open + 1, "}"), open + 1);
		json_array_append_new(list,
				      parameter("path", name, "Which one.", text_schema(400)));
	}
	for (unsigned group = 0; group < ROUTE_PARAMETER_GROUPS; group++) {
		for (const struct parameter *p = route_parameters(route, group); p && p->name; p++)
			json_array_append_new(list, parameter("query", p->name, p->description,
							      parameter_schema(p)));
	}
	if (route->flags & ROUTE_IF_MATCH)
		json_array_append_new(list,
				      parameter("header", "If-Match", "Only if it is still this.",
						text_schema(1000)));
	if (route->flags & ROUTE_KEY)
		json_array_append_new(list, parameter("header", "Idempotency-Key",
						      "The same for a request that is repeated.",
						      text_schema(64)));
	if (route->flags & ROUTE_STREAM)
		json_array_append_new(list,
				      parameter("header", "Last-Event-ID",
						"A stream goes on after it.", text_schema(20)));
	return list;
}

static json_t *body(const struct route *route)
{
	json_t *types = content("application/json", ref_to(route->body));

	if (route->flags & ROUTE_PATCH_TYPE)
		json_object_set_new(types, "application/merge-patch+json",
				    json_pack("{s:o}", "schema", ref_to(route->body)));
	return json_pack("{s:b,s:o}", "required", 1, "content", types);
}

static json_t *success(const struct route *route)
{
	json_t *answer = json_pack("{s:s}", "description", route->summary), *types;

	if (route->flags & ROUTE_UPGRADE || !route->answer)
		return answer;
	types = content("application/json",
			route->flags & ROUTE_LIST ? page_of(route->answer) : ref_to(route->answer));
	if (route->flags & ROUTE_STREAM)
		json_object_set_new(types, "text/event-stream",
				    json_pack("{s:{s:s}}", "schema", "type", "string"));
	json_object_set_new(answer, "content", types);
	if (route->flags & ROUTE_ETAG)
		json_object_set_new(answer, "headers",
				    json_pack("{s:{s:{s:s}}}", "ETag", "schema", "type", "string"));
	return answer;
}

static void add_problem(json_t *answers, const char *code)
{
	char status[12];
	json_t *answer;

	snprintf(status, sizeof(status), "%u", problem_status(code));
	answer = json_object_get(answers, status);
	if (!answer) {
		answer = json_pack("{s:s,s:o}", "description", "", "content",
				   content("application/problem+json", ref_to("Problem")));
		json_object_set_new(answers, status, answer);
	}
	if (answer) {
		const char *words = json_string_value(json_object_get(answer, "description"));
		char both[200];

		snprintf(both, sizeof(both), "%s%s%s", words ? words : "",
			 words && *words ? ", " : "", code);
		json_object_set_new(answer, "description", json_string(both));
	}
}

static void add_problems(json_t *answers, const char *codes)
{
	char code[40];

	while (*codes) {
		size_t n = strcspn(codes, " ");

		snprintf(code, sizeof(code), "%.*s", (int)n, codes);
		add_problem(answers, code);
		codes += n + (codes[n] == ' ');
	}
}

static json_t *answers(const struct route *route)
{
	json_t *all = json_object();
	char status[12];

	snprintf(status, sizeof(status), "%u", route->status);
	json_object_set_new(all, status, success(route));
	if (route->flags & ROUTE_WAIT && route->status != 200)
		json_object_set_new(all, "200", success(route));
	if (route->flags & ROUTE_OR_JOB)
		json_object_set_new(all, "202",
				    json_pack("{s:s,s:o}", "description", "It goes on as a job.",
					      "content",
					      content("application/json", ref_to("Job"))));
	add_problems(all, "invalid not-authenticated forbidden too-many-requests "
			  "not-enough-memory too-large");
	if (strchr(route->path, '{'))
		add_problems(all, "not-found");
	if (route->body)
		add_problems(all, "unsupported-media-type");
	if (strcmp(route->method, "GET"))
		add_problems(all, "no-space");
	if (route->flags & ROUTE_IF_MATCH)
		add_problems(all, "changed");
	if (route->flags & ROUTE_UPGRADE)
		add_problems(all, "upgrade-required");
	if (route->errors)
		add_problems(all, route->errors);
	return all;
}

static json_t *operation(const struct route *route)
{
	json_t *json = json_pack("{s:s,s:s,s:o,s:o}", "operationId", route->operation, "summary",
				 route->summary, "parameters", parameters(route), "responses",
				 answers(route));

	if (route->body)
		json_object_set_new(json, "requestBody", body(route));
	return json;
}

static json_t *paths(void)
{
	json_t *all = json_object();
	char path[100], method[10];

	for (unsigned i = 0; i < route_count; i++) {
		json_t *methods;
		size_t n = 0;

		snprintf(path, sizeof(path), "/%s", routes[i].path);
		methods = json_object_get(all, path);
		if (!methods) {
			methods = json_object();
			json_object_set_new(all, path, methods);
		}
		for (; routes[i].method[n] && n < sizeof(method) - 1; n++)
			method[n] = (char)(routes[i].method[n] | 0x20);
		method[n] = '\0';
		json_object_set_new(methods, method, operation(&routes[i]));
	}
	return all;
}

char *openapi_new(const json_t *components)
{
	_cleanup_json_ json_t *json = json_pack(
		"{s:s,s:{s:s,s:s,s:s},s:[{s:s}],s:o,s:{s:O,s:{s:{s:s,s:s}}},s:[{},{s:[]}]}",
		"openapi", "3.1.0", "info", "title", "Partita", "version", PARTITA_VERSION,
		"description", "Virtual machines, managed over HTTP.", "servers", "url", API_PREFIX,
		"paths", paths(), "components", "schemas", components, "securitySchemes",
		"password", "type", "http", "scheme", "basic", "security", "password");

	return json ? json_dumps(json, JSON_COMPACT) : NULL;
}

int get_openapi(struct call *call, struct error *err)
{
	struct http_answer a = { .status = 200,
				 .type = "application/json",
				 .size = call->api->document_size };
	struct http_request *r = call->r;

	a.body = malloc(a.size);
	if (!a.body)
		return error_errno(err, -ENOMEM, "cannot send the document");
	memcpy(a.body, call->api->document, a.size);
	call_free(call);
	http_answer(r, &a);
	return 0;
}
