/* SPDX-License-Identifier: MIT */
/*
 * The interface on the service's functions: one table of routes (routes.c), a router that checks
 * what comes against it (api.c), and what handlers answer with (answer.c). Private to src/rest.
 */
#pragma once

#include "daemon/daemon.h"
#include "lib/cleanup.h"
#include "rest/http.h"
#include "schema/json.h"

#include <jansson.h>

#define API_PREFIX         "/api/v1"
#define API_WAIT_MAX       300  /* seconds */
#define API_LIST_MAX       1000 /* things in an answer */
#define API_JSON_DEPTH_MAX 32

struct call;
struct api;
struct auth;
struct remote;

enum parameter_type {
	PARAMETER_TEXT,
	PARAMETER_INTEGER,
	PARAMETER_BOOL,
};

/* A parameter of the query. Names and limits are all that is said of it anywhere. */
struct parameter {
	const char *name;
	const char *description;
	enum parameter_type type;
	int64_t min, max;         /* value, or characters */
	const char *const *names; /* of text: one of these, ended by NULL; or NULL */
};

enum route_flags {
	ROUTE_LIST = BIT(0),           /* limit, cursor, fields; answers a page of `answer` */
	ROUTE_WAIT = BIT(1),           /* wait; answers a job */
	ROUTE_IF_MATCH = BIT(2),       /* -ESTALE is 412 */
	ROUTE_KEY = BIT(3),            /* Idempotency-Key */
	ROUTE_ETAG = BIT(4),           /* the answer has one */
	ROUTE_STREAM = BIT(5),         /* text/event-stream when it is asked for */
	ROUTE_UPGRADE = BIT(6),        /* a WebSocket */
	ROUTE_PATCH_TYPE = BIT(7),     /* application/merge-patch+json is fine too */
	ROUTE_OR_JOB = BIT(9),         /* 202 with a job instead, when it goes on as one */
	ROUTE_BODY_UNCHECKED = BIT(8), /* the service itself checks it, with better words */
};

struct route {
	const char *method;
	const char *path; /* below API_PREFIX; {id} or {name} is a part that is asked for */
	const char *operation, *summary;
	const char *body, *answer; /* names of components, NULL = none */
	unsigned status;           /* of success */
	unsigned flags;
	const struct parameter *parameters; /* ended by one without a name; NULL = none */
	const char *errors;                 /* codes beside the usual ones, "exists wrong-state" */
	/*
	 * 0 when it is answered, or will be (call_later). Negative with words: the router answers;
	 * the call is the router's then.
	 */
	int (*fn)(struct call *call, struct error *err);
	int argument;
};

extern const struct route routes[];
extern const unsigned route_count;

/* A request on its way; freed when it is answered, or was left. */
struct call {
	struct api *api;
	struct daemon *d;
	struct http_request *r;
	const struct caller *caller;
	const struct route *route;
	const char *id;                  /* what stands for {id} or {name}; "" without */
	json_t *body;                    /* or NULL */
	json_t *allowed;                 /* for a refusal: what is, instead */
	struct list node;                /* of those that are answered later */
	void (*left)(struct call *call); /* answered later: the client has left */
	void *context;
};

struct api {
	struct daemon *d;
	struct http *http;
	struct auth *auth;
	struct remote *remote;
	json_t *components; /* name -> JSON Schema */
	char *document;     /* openapi.json */
	size_t document_size;
	struct list later; /* calls */
	struct list waits, streams, consoles;
	struct job_watch job_watch;
	struct event_watch event_watch;
	struct vm_text *texts; /* on_vms.c: of machines, kept for lists */
};

int api_new(struct daemon *d, struct api **ret, struct error *err) _must_check_;
/* Before http_free, which tells of requests that are left. */
void api_detach(struct api *api);
void api_free(struct api *api);
struct rest;
struct api *rest_api(struct rest *rest); /* for tests */
/* For http_options. */
enum http_admission api_admit(void *api, struct http_request *r);
void api_handle(void *api, struct http_request *r);
void api_refuse(void *api, struct http_request *r, unsigned status);

/* --- answers (answer.c) --- */

#define ETAG_SIZE 24

/* "json" is taken over; NULL: there was no memory for it. All return 0 and end the call. */
int call_answer(struct call *call, unsigned status, json_t *json);
int call_answer_text(struct call *call, char *text, size_t size);
int call_answer_etag(struct call *call, unsigned status, json_t *json, const char *etag);
int call_answer_created(struct call *call, json_t *json, const char *etag, const char *format, ...)
	_printf_(4, 5);
int call_answer_job(struct call *call, struct job *job, unsigned status);
int call_answer_empty(struct call *call);
void call_problem(struct call *call, const struct error *err);
/* It is answered later. */
void call_later(struct call *call, void (*left)(struct call *));
void call_free(struct call *call);
/* problem+json without a call. */
void problem_answer(struct http_request *r, const char *code, const struct error *err,
		    json_t *allowed, const struct http_header *more);
/* The status for a code of docs/rest.md. */
unsigned problem_status(const char *code);

void etag_of_revision(uint64_t revision, char ret[static ETAG_SIZE]);
void etag_of_json(const json_t *json, char ret[static ETAG_SIZE]);
/* -ESTALE when there is an If-Match that says another; -EINVAL when it says nothing. */
int call_if_match(struct call *call, const char *etag, struct error *err) _must_check_;

/* --- parameters and bodies (query.c, check.c) --- */

const char *call_text(struct call *call, const char *name); /* NULL: not given */
int64_t call_integer(struct call *call, const char *name, int64_t fallback);
bool call_bool(struct call *call, const char *name, bool fallback);
/* A route's parameters are in groups, each NULL or ended like route.parameters. */
#define ROUTE_PARAMETER_GROUPS 3
const struct parameter *route_parameters(const struct route *route, unsigned which);
/* Checks all parameters against the route. */
int call_check_query(struct call *call, struct error *err) _must_check_;

/* -EINVAL with the place, when `json` is not as the component says. Also for tests. */
int check_schema(const json_t *components, const json_t *schema, const json_t *json,
		 struct error *err) _must_check_;
int check_component(const json_t *components, const char *name, const json_t *json,
		    struct error *err) _must_check_;

/* --- pages of lists (page.c) --- */

struct page {
	struct call *call;
	unsigned limit, count;
	char *cursor; /* of the last one seen before; NULL = from the start */
	char *fields; /* as they were asked for */
	bool full, failed;
	char *next; /* cursor of the last one on it */
	char *text; /* what is answered, as far as it is made */
	size_t size, capacity;
};

int page_begin(struct page *p, struct call *call, struct error *err) _must_check_;
/* Adds an item, which is taken over, or learns that there is more (then false). */
bool page_add(struct page *p, json_t *item, const char *cursor);
/* The same of text that is a JSON object, when all fields are asked for; the text is borrowed. */
bool page_add_text(struct page *p, const char *item, const char *cursor);
/* Whether there is room, so that `page_add` is worth the making of an item. */
bool page_room(struct page *p);
int page_answer(struct page *p);
void page_deinit(struct page *p);
/* Whether `fields` names `name`, or something in it or around it; true when all are asked for. */
bool page_wants(const struct page *p, const char *name);
bool name_matches_pattern(const char *pattern, const char *name);

/* --- the rest of it --- */

/* Components: those that are written down, and those made of the schemas. NULL: no memory. */
json_t *components_new(void);
/* openapi.json as text. NULL: no memory. */
char *openapi_new(const json_t *components);

/* on_jobs.c: answers with the job when it has ended, or at the end of ?wait=. */
int call_wait_for_job(struct call *call, struct job *job, struct error *err);
void waits_on_job(struct job_watch *w, struct job *job);
/* on_vms.c */
struct vm;
/* The state decides what is allowed; a refusal says it. */
void call_tell_allowed(struct call *call, const struct vm *vm);
void vm_texts_free(struct api *api);
/* on_events.c */
void streams_on_event(struct event_watch *w, const struct event *event);
void streams_end(struct api *api);
/* on_console.c */
void consoles_end(struct api *api);
void consoles_look(struct api *api); /* roles have changed */

/* Handlers, by the routes' nouns. */
int get_openapi(struct call *call, struct error *err);
int get_host(struct call *call, struct error *err);
int patch_host(struct call *call, struct error *err);
int list_vms(struct call *call, struct error *err);
int create_vm(struct call *call, struct error *err);
int register_vm(struct call *call, struct error *err);
int get_vm(struct call *call, struct error *err);
int patch_vm(struct call *call, struct error *err);
int delete_vm(struct call *call, struct error *err);
int act_on_vm(struct call *call, struct error *err);
int shut_down_vm(struct call *call, struct error *err);
int get_guest(struct call *call, struct error *err);
int get_guest_items(struct call *call, struct error *err);
int put_guest_item(struct call *call, struct error *err);
int get_guest_ip(struct call *call, struct error *err);
int put_guest_ip(struct call *call, struct error *err);
int freeze_guest(struct call *call, struct error *err);
int thaw_guest(struct call *call, struct error *err);
int copy_to_guest(struct call *call, struct error *err);
int open_socket(struct call *call, struct error *err);
int get_metering(struct call *call, struct error *err);
int delete_metering(struct call *call, struct error *err);
int open_console(struct call *call, struct error *err);
int list_jobs(struct call *call, struct error *err);
int get_job(struct call *call, struct error *err);
int delete_job(struct call *call, struct error *err);
int list_events(struct call *call, struct error *err);
int list_operations(struct call *call, struct error *err);
int list_roles(struct call *call, struct error *err);
int get_role(struct call *call, struct error *err);
int put_role(struct call *call, struct error *err);
int delete_role(struct call *call, struct error *err);
int list_assignments(struct call *call, struct error *err);
int create_assignment(struct call *call, struct error *err);
int delete_assignment(struct call *call, struct error *err);
int list_things(struct call *call, struct error *err);
int create_thing(struct call *call, struct error *err);
int get_thing(struct call *call, struct error *err);
int patch_thing(struct call *call, struct error *err);
int delete_thing(struct call *call, struct error *err);
int list_images(struct call *call, struct error *err);
int get_image(struct call *call, struct error *err);
int delete_image(struct call *call, struct error *err);
