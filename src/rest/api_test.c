// SPDX-License-Identifier: MIT
/*
 * What the interface answers, over a service with machines without processes: routes, parameters,
 * bodies, ETags, keys, pages, jobs, roles, and that openapi.json says the same.
 */
#include "rest/testing.h"

#include <fcntl.h>
#include <strings.h>

struct rig {
	struct test t;
	struct api *api;
};

static struct rig rig;
/* Roles are given to users that there are. */
static const struct caller nobody = { .name = "nobody", .uid = 65534 };
static struct asked a; /* the last request */

static int setup(void **state)
{
	void *folder;
	struct error err = { 0 };

	(void)state;
	if (test_folder_setup(&folder) < 0)
		return -1;
	rig.t.folder = folder;
	fake_reset();
	test_begin(&rig.t);
	if (api_new(rig.t.d, &rig.api, &err) < 0)
		fail_msg("%s", err.message);
	return 0;
}

static int teardown(void **state)
{
	void *folder = rig.t.folder;

	(void)state;
	asked_deinit(&a);
	api_detach(rig.api);
	api_free(rig.api);
	test_end(&rig.t);
	fake_reset();
	return test_folder_teardown(&folder);
}

static void send_now(void)
{
	api_handle(rig.api, &a.r);
}

/* The body has ' for ". */
static void prepare(const struct caller *c, const char *method, const char *path, const char *body)
{
	char *copy = body ? strdup(body) : NULL;

	for (char *p = copy; p && *p; p++)
		*p = *p == '\'' ? '"' : *p;
	asked_deinit(&a);
	asked_init(&a, c, method, path, copy);
	free(copy);
}

static unsigned ask_as(const struct caller *c, const char *method, const char *path,
		       const char *body)
{
	prepare(c, method, path, body);
	send_now();
	assert_true(a.answered);
	return a.status;
}

static unsigned ask(const char *method, const char *path, const char *body)
{
	return ask_as(&ada, method, path, body);
}

static unsigned ask_with(const char *method, const char *path, const char *body, const char *name,
			 const char *value)
{
	prepare(&ada, method, path, body);
	asked_add(&a, name, value);
	send_now();
	assert_true(a.answered);
	return a.status;
}

static void expect(unsigned status, const char *code)
{
	if (a.status != status || (code && strcmp(text_of(a.json, "code"), code)))
		fail_msg("wanted %u %s, not %u: %s", status, code ? code : "", a.status,
			 a.text ? a.text : "");
}

#define assert_ask(status, ...)                                                                    \
	do {                                                                                       \
		ask(__VA_ARGS__);                                                                  \
		expect(status, NULL);                                                              \
	} while (0)

static void make_vm(const char *name)
{
	char body[200];

	snprintf(body, sizeof(body), "{'settings':{'name':'%s','boot':{'kernel':'/k'}}}", name);
	assert_ask(201, "POST", "vms", body);
}

/* --- finding --- */

static void test_what_is_not_there(void **state)
{
	static const char *const missing[] = { "/",           "/api",         "/api/v1",
					       "/api/v1/",    "/api/v2/vms",  "nothing",
					       "vms/",        "vms/a/b",      "vms/a/start/b",
					       "/API/v1/vms", "/api/v1//vms", "openapi.json/" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(missing); i++) {
		ask("GET", missing[i], NULL);
		expect(404, "not-found");
		assert_string_equal(a.type, "application/problem+json");
	}
	ask("GET", "vms/absent", NULL);
	expect(404, "not-found");
}

static void test_methods(void **state)
{
	(void)state;
	ask("PATCH", "vms", "{}");
	expect(405, "method-not-allowed");
	assert_string_equal(asked_out(&a, "Allow"), "GET, POST");
	ask("", "jobs", NULL);
	expect(405, "method-not-allowed");
	assert_ask(200, "HEAD", "vms", NULL);
}

static void test_parameters_are_checked(void **state)
{
	static const char *const bad[] = { "vms?colour=red",
					   "vms?limit=0",
					   "vms?limit=1001",
					   "vms?limit=",
					   "vms?limit=1x",
					   "vms?limit=+1",
					   "vms?limit=99999999999999999999",
					   "vms?state=happy",
					   "vms?cursor=xyz",
					   "vms?cursor=00",
					   "vms?cursor=4142",
					   "vms?cursor=f",
					   "events?severity=bad",
					   "jobs?vm=x",
					   "events?newest=perhaps",
					   "host?fields=a",
					   "vms?%" };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		ask("GET", bad[i], NULL);
		if (a.status != 400)
			fail_msg("%s: %u %s", bad[i], a.status, a.text);
	}
	assert_int_equal(ask("GET", "vms?colour=red", NULL), 400);
	assert_string_equal(text_of(a.json, "property"), "colour");
}

static void test_bodies_are_checked(void **state)
{
	static const char *const bad[] = { "",
					   "{",
					   "[]",
					   "null",
					   "{'a':1,'a':2}",
					   "{'name':1}",
					   "{'name':''}",
					   "{'name':'x','colour':1}",
					   "{}",
					   "{'name':'x','type':'strange'}",
					   "{'name':null}",
					   "{'name':'\\u0000'}",
					   "{'name':'x'} x" };

	static const char open[] = "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[";
	static const char shut[] = "]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]";
	char deep[100];

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		ask("POST", "switches", bad[i]);
		if (a.status != 400)
			fail_msg("%s: %u %s", bad[i], a.status, a.text);
	}
	snprintf(deep, sizeof(deep), "{'a':%.*s%.*s}", 40, open, 40, shut);
	ask("PATCH", "host", deep);
	expect(400, "invalid");
	assert_non_null(strstr(a.text, "too deep"));
	ask("POST", "switches", "{'name':'x','type':'strange'}");
	assert_string_equal(text_of(a.json, "property"), "type");
	ask("POST", "switches", NULL);
	expect(400, "invalid");
	ask("GET", "switches", "{}");
	expect(400, "invalid");
	prepare(&ada, "POST", "switches", "{'name':'x'}");
	a.headers[0][1] = "text/plain";
	send_now();
	expect(415, "unsupported-media-type");
	prepare(&ada, "POST", "switches", "{'name':'x'}");
	a.headers[0][1] = "application/json; charset=utf-8";
	send_now();
	expect(201, NULL);
	prepare(&ada, "POST", "switches", NULL);
	a.r.body_too_large = true;
	send_now();
	expect(413, "too-large");
}

/* --- machines --- */

static void test_a_machine_comes_and_goes(void **state)
{
	char etag[64], where[300];

	(void)state;
	make_vm("web");
	assert_string_equal(text_of(a.json, "name"), "web");
	snprintf(etag, sizeof(etag), "%s", asked_out(&a, "ETag"));
	snprintf(where, sizeof(where), "%s", asked_out(&a, "Location"));
	assert_ask(200, "GET", where, NULL);
	assert_string_equal(asked_out(&a, "ETag"), etag);
	assert_ask(200, "GET", "vms/web", NULL);
	assert_ask(200, "PATCH", "vms/web", "{'notes':'hello'}");
	assert_string_not_equal(asked_out(&a, "ETag"), etag);
	ask_with("PATCH", "vms/web", "{'notes':'lost'}", "If-Match", etag);
	expect(412, "changed");
	ask_with("DELETE", "vms/web", NULL, "If-Match", etag);
	expect(412, "changed");
	ask_with("PATCH", "vms/web", "{'notes':'x'}", "If-Match", "unquoted");
	expect(400, "invalid");
	assert_ask(200, "GET", "vms/web", NULL);
	snprintf(etag, sizeof(etag), "\"1\", %s", asked_out(&a, "ETag"));
	ask_with("PATCH", "vms/web", "{'notes':'kept'}", "If-Match", etag);
	expect(200, NULL);
	assert_string_equal(text_of(json_object_get(a.json, "settings"), "notes"), "kept");
	ask("PATCH", "vms/web", "{'memory':{'startup':1}}");
	expect(400, "invalid");
	assert_string_equal(text_of(a.json, "property"), "memory.startup");
	assert_ask(204, "DELETE", "vms/web?files=true", NULL);
	assert_null(a.text);
	ask("DELETE", "vms/web", NULL);
	expect(404, "not-found");
}

static void test_names_that_repeat(void **state)
{
	(void)state;
	make_vm("twin");
	make_vm("twin");
	ask("GET", "vms/twin", NULL);
	expect(409, "not-unique");
	make_vm("%2F?&= \xc3\xa4");
	assert_ask(200, "GET", "vms/%252F%3F&=%20%c3%a4", NULL);
}

static void test_a_key_makes_one_machine(void **state)
{
	static const char body[] = "{'settings':{'name':'once'}}";
	char id[64], long_key[66];

	(void)state;
	ask_with("POST", "vms", body, "Idempotency-Key", "k1");
	expect(201, NULL);
	snprintf(id, sizeof(id), "%s", text_of(a.json, "id"));
	ask_with("POST", "vms", body, "Idempotency-Key", "k1");
	expect(201, NULL);
	assert_string_equal(text_of(a.json, "id"), id);
	ask_with("POST", "vms", body, "Idempotency-Key", "k2");
	expect(201, NULL);
	assert_string_not_equal(text_of(a.json, "id"), id);
	memset(long_key, 'k', 65);
	long_key[65] = '\0';
	ask_with("POST", "vms", body, "Idempotency-Key", long_key);
	expect(400, "invalid");
	ask_with("POST", "switches", "{'name':'s'}", "Idempotency-Key", "k3");
	snprintf(id, sizeof(id), "%s", text_of(a.json, "id"));
	ask_with("POST", "switches", "{'name':'s'}", "Idempotency-Key", "k3");
	expect(201, NULL);
	assert_string_equal(text_of(a.json, "id"), id);
	ask_with("POST", "pools", "{'name':'s'}", "Idempotency-Key", "k3");
	expect(422, "key-reused");
}

static void test_a_key_is_for_one_body(void **state)
{
	static const char role[] = "{'user':'nobody','role':'viewer','scope':'host'}";

	(void)state;
	ask_with("POST", "vms", "{'settings':{'name':'a','notes':'x'}}", "Idempotency-Key", "k1");
	expect(201, NULL);
	/* the order of members is nobody's intention */
	ask_with("POST", "vms", "{'settings':{'notes':'x','name':'a'}}", "Idempotency-Key", "k1");
	expect(201, NULL);
	ask_with("POST", "vms", "{'settings':{'name':'b','notes':'x'}}", "Idempotency-Key", "k1");
	expect(422, "key-reused");
	ask_with("POST", "vms", "{'settings':{'name':'a','notes':'x'},'folder':'/tmp/other'}",
		 "Idempotency-Key", "k1");
	expect(422, "key-reused");
	ask_with("POST", "switches", "{'name':'a'}", "Idempotency-Key", "k1");
	expect(422, "key-reused");
	ask_with("POST", "switches", "{'name':'s'}", "Idempotency-Key", "k2");
	expect(201, NULL);
	ask_with("POST", "switches", "{'name':'t'}", "Idempotency-Key", "k2");
	expect(422, "key-reused");
	ask_with("POST", "vms", "{'settings':{'name':'s'}}", "Idempotency-Key", "k2");
	expect(422, "key-reused");
	ask_with("POST", "assignments", role, "Idempotency-Key", "k4");
	expect(201, NULL);
	ask_with("POST", "assignments", role, "Idempotency-Key", "k4");
	expect(201, NULL);
	ask_with("POST", "assignments", "{'user':'nobody','role':'operator','scope':'host'}",
		 "Idempotency-Key", "k4");
	expect(422, "key-reused");
}

static void test_pages(void **state)
{
	char path[1100];
	unsigned seen = 0, pages = 0;

	(void)state;
	for (unsigned i = 0; i < 25; i++) {
		char name[20];

		snprintf(name, sizeof(name), "%s-%u", i % 2 ? "odd" : "Even", i / 4);
		make_vm(name);
	}
	snprintf(path, sizeof(path), "vms?limit=4&fields=name,settings.memory.startup");
	for (;;) {
		const char *next;
		json_t *items;

		assert_ask(200, "GET", path, NULL);
		items = json_object_get(a.json, "items");
		for (size_t i = 0; i < json_array_size(items); i++) {
			json_t *item = json_array_get(items, i);

			assert_int_equal(json_object_size(item), 2);
			assert_int_equal(json_object_size(json_object_get(item, "settings")), 1);
		}
		seen += (unsigned)json_array_size(items);
		pages++;
		next = json_string_value(json_object_get(a.json, "next"));
		if (!next)
			break;
		snprintf(path, sizeof(path),
			 "vms?limit=4&fields=name,settings.memory.startup&cursor=%s", next);
	}
	assert_int_equal(seen, 25);
	assert_int_equal(pages, 7);
	assert_ask(200, "GET", "vms?name=even*&state=off", NULL);
	assert_int_equal(json_array_size(json_object_get(a.json, "items")), 13);
	assert_ask(200, "GET", "vms?state=running", NULL);
	assert_int_equal(json_array_size(json_object_get(a.json, "items")), 0);
	assert_ask(200, "GET", "vms?limit=25", NULL);
	assert_true(json_is_null(json_object_get(a.json, "next")));
}

/* Lists are made in another way than single machines. */
static void expect_list_of_one(void)
{
	json_t *all, *one;

	assert_ask(200, "GET", "vms", NULL);
	all = json_incref(json_object_get(a.json, "items"));
	assert_int_equal(json_array_size(all), 1);
	assert_ask(200, "GET", "vms?fields=settings", NULL);
	one = json_array_get(json_object_get(a.json, "items"), 0);
	assert_true(json_equal(json_object_get(one, "settings"),
			       json_object_get(json_array_get(all, 0), "settings")));
	assert_ask(200, "GET", "vms/a", NULL);
	assert_true(json_equal(a.json, json_array_get(all, 0)));
	json_decref(all);
}

static void test_lists_say_what_is_now(void **state)
{
	(void)state;
	make_vm("a");
	expect_list_of_one();
	expect_list_of_one();
	assert_ask(200, "PATCH", "vms/a", "{'notes':'new','memory':{'startup':64}}");
	expect_list_of_one();
	assert_ask(202, "POST", "vms/a/start", NULL);
	expect_list_of_one();
	fake_state(text_of(a.json, "id"), "running");
	expect_list_of_one();
	assert_string_equal(text_of(a.json, "state"), "running");
	assert_ask(202, "POST", "vms/a/stop", NULL);
	expect_list_of_one();
}

static void test_groups(void **state)
{
	(void)state;
	assert_ask(201, "POST", "vms", "{'settings':{'name':'a','group':'lab/web'}}");
	assert_ask(201, "POST", "vms", "{'settings':{'name':'b','group':'lab'}}");
	assert_ask(201, "POST", "vms", "{'settings':{'name':'c','group':'laboratory'}}");
	assert_ask(200, "GET", "vms?group=lab", NULL);
	assert_int_equal(json_array_size(json_object_get(a.json, "items")), 2);
}

/* --- jobs --- */

static void turn_until_answered(void)
{
	for (int i = 0; i < 2000 && !a.answered; i++)
		loop_once(rig.t.loop, 5);
	assert_true(a.answered);
}

static void test_starting_is_a_job(void **state)
{
	char id[64], job[64], path[200];

	(void)state;
	make_vm("web");
	snprintf(id, sizeof(id), "%s", text_of(a.json, "id"));
	assert_ask(202, "POST", "vms/web/start", NULL);
	assert_string_equal(text_of(a.json, "type"), "start-vm");
	snprintf(job, sizeof(job), "%s", text_of(a.json, "id"));
	snprintf(path, sizeof(path), API_PREFIX "/jobs/%s", job);
	assert_string_equal(asked_out(&a, "Location"), path);
	snprintf(path, sizeof(path), "jobs/%s?wait=10", job);
	prepare(&ada, "GET", path, NULL);
	send_now();
	assert_false(a.answered);
	fake_state(id, "running");
	turn_until_answered();
	expect(200, NULL);
	assert_string_equal(text_of(a.json, "state"), "completed");
	ask("POST", "vms/web/start", NULL);
	expect(409, "wrong-state");
	assert_true(json_array_size(json_object_get(a.json, "allowed")) > 0);
	assert_ask(200, "GET", "jobs?state=completed", NULL);
	assert_int_equal(json_array_size(json_object_get(a.json, "items")), 1);
	ask("GET", "jobs/none", NULL);
	expect(404, "not-found");
	ask("DELETE", "vms/web", NULL);
	expect(409, "wrong-state");
}

static void test_waiting_ends(void **state)
{
	struct call *left;

	(void)state;
	make_vm("web");
	prepare(&ada, "POST", "vms/web/start?wait=1", NULL);
	send_now();
	assert_false(a.answered);
	turn_until_answered();
	expect(202, NULL);
	prepare(&ada, "GET", "jobs?state=running", NULL);
	send_now();
	expect(200, NULL);
	make_vm("other");
	prepare(&ada, "POST", "vms/other/start?wait=100", NULL);
	send_now();
	assert_false(a.answered);
	left = list_first(&rig.api->later, struct call, node);
	assert_ptr_equal(left->r, &a.r);
	a.r.gone(&a.r); /* the client has left */
	assert_true(list_empty(&rig.api->later));
	assert_true(list_empty(&rig.api->waits));
}

/* Fifty clients add one each to the same number; whoever comes too late reads it again. */
static void test_no_update_is_lost(void **state)
{
	char etags[50][64];
	bool done[50] = { 0 };
	unsigned left = 50, rounds = 0;

	(void)state;
	make_vm("web");
	while (left && rounds++ < 60) {
		for (unsigned i = 0; i < 50; i++) {
			assert_ask(200, "GET", "vms/web", NULL);
			snprintf(etags[i], sizeof(etags[i]), "%s", asked_out(&a, "ETag"));
		}
		for (unsigned i = 0; i < 50; i++) {
			json_int_t is;
			char body[60];

			if (done[i])
				continue;
			assert_ask(200, "GET", "vms/web", NULL);
			is = json_integer_value(json_object_get(
				json_object_get(json_object_get(a.json, "settings"), "memory"),
				"weight"));
			snprintf(body, sizeof(body), "{'memory':{'weight':%d}}", (int)is + 1);
			ask_with("PATCH", "vms/web", body, "If-Match", etags[i]);
			done[i] = a.status == 200;
			left -= done[i];
			if (!done[i])
				expect(412, "changed");
		}
	}
	assert_int_equal(left, 0);
	assert_int_equal(rounds, 50); /* one gets through each time */
	assert_ask(200, "GET", "vms/web", NULL);
	assert_int_equal(
		json_integer_value(json_object_get(
			json_object_get(json_object_get(a.json, "settings"), "memory"), "weight")),
		100);
}

/* --- who may --- */

static void test_roles(void **state)
{
	char path[100];
	json_int_t id;

	(void)state;
	make_vm("web");
	ask_as(&nobody, "GET", "vms/web", NULL);
	assert_true(a.status == 403 || a.status == 404);
	ask_as(&nobody, "POST", "vms", "{'settings':{'name':'mine'}}");
	expect(403, "forbidden");
	ask_as(&nobody, "GET", "host", NULL);
	expect(403, "forbidden");
	ask_as(&nobody, "GET", "assignments", NULL);
	expect(403, "forbidden");
	ask_as(&nobody, "PUT", "roles/evil", "{'operations':['start-vm']}");
	expect(403, "forbidden");
	ask_as(&nobody, "POST", "assignments",
	       "{'user':'nobody','role':'administrator','scope':'host'}");
	expect(403, "forbidden");
	ask_as(&nobody, "POST", "switches", "{'name':'x'}");
	expect(403, "forbidden");
	ask_as(&nobody, "GET", "events", NULL);
	expect(403, "forbidden");
	ask_as(&nobody, "GET", "vms", NULL);
	expect(200, NULL);
	assert_int_equal(json_array_size(json_object_get(a.json, "items")), 0);
	assert_ask(200, "PUT", "roles/looker", "{'operations':['view-vm','view-host']}");
	assert_ask(201, "POST", "assignments", "{'user':'nobody','role':'looker','scope':'host'}");
	id = json_integer_value(json_object_get(a.json, "id"));
	snprintf(path, sizeof(path), API_PREFIX "/assignments/%lld", (long long)id);
	assert_string_equal(asked_out(&a, "Location"), path);
	assert_int_equal(ask_as(&nobody, "GET", "vms/web", NULL), 200);
	assert_int_equal(ask_as(&nobody, "GET", "host", NULL), 200);
	ask_as(&nobody, "POST", "vms/web/start", NULL);
	expect(403, "forbidden");
	ask_as(&nobody, "GET", "vms/web/console", NULL);
	expect(403, "forbidden");
	assert_ask(200, "GET", "assignments?user=nobody", NULL);
	assert_int_equal(json_array_size(json_object_get(a.json, "items")), 1);
	assert_ask(204, "DELETE", path, NULL);
	ask("DELETE", path, NULL);
	expect(404, "not-found");
	assert_int_equal(ask_as(&nobody, "GET", "host", NULL), 403);
	assert_int_equal(events_of(&rig.t, "role-assigned"), 1);
	assert_int_equal(events_of(&rig.t, "role-unassigned"), 1);
	assert_int_equal(events_of(&rig.t, "role-changed"), 1);
}

static void test_roles_have_etags(void **state)
{
	char etag[64];

	(void)state;
	assert_ask(200, "PUT", "roles/r", "{'operations':['view-vm']}");
	snprintf(etag, sizeof(etag), "%s", asked_out(&a, "ETag"));
	assert_ask(200, "PUT", "roles/r", "{'operations':['view-vm','start-vm']}");
	ask_with("PUT", "roles/r", "{'operations':[]}", "If-Match", etag);
	expect(412, "changed");
	ask("PUT", "roles/r", "{'operations':['fly']}");
	expect(400, NULL);
	ask("PUT", "roles/r", "{'name':'other','operations':[]}");
	expect(400, "invalid");
	ask("PUT", "roles/administrator", "{'operations':[]}");
	assert_true(a.status >= 400 && a.status < 500);
	assert_ask(204, "DELETE", "roles/r", NULL);
	ask("DELETE", "roles/r", NULL);
	expect(404, "not-found");
}

/* --- the rest --- */

static void test_things(void **state)
{
	char etag[64];

	(void)state;
	assert_ask(201, "POST", "switches", "{'name':'lan','type':'internal'}");
	snprintf(etag, sizeof(etag), "%s", asked_out(&a, "ETag"));
	ask("POST", "switches", "{'name':'lan'}");
	expect(409, "exists");
	assert_ask(200, "PATCH", "switches/lan", "{'notes':'n'}");
	assert_string_equal(text_of(a.json, "type"), "internal");
	ask_with("PATCH", "switches/lan", "{'notes':'m'}", "If-Match", etag);
	expect(412, "changed");
	assert_ask(200, "PATCH", "switches/lan", "{'notes':null}");
	assert_string_equal(text_of(a.json, "notes"), "");
	assert_ask(200, "GET", "switches?type=internal&name=L*", NULL);
	assert_int_equal(json_array_size(json_object_get(a.json, "items")), 1);
	assert_ask(204, "DELETE", "switches/lan", NULL);
	assert_ask(200, "GET", "pools/Primordial", NULL);
	ask("DELETE", "pools/Primordial", NULL);
	assert_int_equal(a.status, 409);
	assert_int_equal(events_of(&rig.t, "switch-created"), 1);
	assert_int_equal(events_of(&rig.t, "switch-removed"), 1);
}

static void write_file(const char *folder, const char *name, const char *text)
{
	char path[600];
	FILE *f;

	snprintf(path, sizeof(path), "%s/state/images/%s", folder, name);
	f = fopen(path, "we");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
}

static void test_images(void **state)
{
	char path[300];

	(void)state;
	assert_ask(200, "GET", "images", NULL);
	snprintf(path, sizeof(path), "%s/state/images", rig.t.folder);
	assert_int_equal(mkdir(path, 0700), 0);
	write_file(rig.t.folder, "debian-12.vhdx", "disk");
	write_file(rig.t.folder, "debian-12.json", "{\"os\":\"Debian\"}");
	write_file(rig.t.folder, "bare.vhdx", "");
	write_file(rig.t.folder, "bare.json", "not json");
	write_file(rig.t.folder, ".hidden.vhdx", "");
	assert_ask(200, "GET", "images?name=*", NULL);
	assert_ask(200, "GET", "images/debian-12", NULL);
	assert_string_equal(text_of(json_object_get(a.json, "metadata"), "os"), "Debian");
	assert_int_equal(json_integer_value(json_object_get(a.json, "size")), 4);
	assert_ask(200, "GET", "images/bare", NULL);
	ask("GET", "images/..%2Fimages%2Fbare", NULL);
	expect(404, "not-found");
	ask("GET", "images/.hidden", NULL);
	expect(404, "not-found");
	ask_as(&nobody, "DELETE", "images/bare", NULL);
	expect(403, "forbidden");
	assert_ask(204, "DELETE", "images/debian-12", NULL);
	assert_ask(200, "GET", "images?limit=5", NULL);
	ask("GET", "images/debian-12", NULL);
	expect(404, "not-found");
}

static void test_events(void **state)
{
	json_t *items;

	(void)state;
	make_vm("web");
	make_vm("db");
	test_turn(&rig.t);
	assert_ask(200, "GET", "events?limit=1", NULL);
	assert_int_equal(json_array_size(json_object_get(a.json, "items")), 1);
	assert_true(json_is_string(json_object_get(a.json, "next")));
	assert_ask(200, "GET", "events?newest=true&limit=1", NULL);
	items = json_object_get(a.json, "items");
	assert_int_equal(json_array_size(items), 1);
	assert_ask(200, "GET", "events?kind=none", NULL);
	assert_int_equal(json_array_size(json_object_get(a.json, "items")), 0);
	assert_ask(200, "GET", "events?vm=00000000-0000-0000-0000-000000000000", NULL);
	assert_int_equal(json_array_size(json_object_get(a.json, "items")), 0);
}

/* All of them, newest first, by pages of three; they go on while new ones come. */
static void test_the_newest_events_have_pages(void **state)
{
	json_int_t last = 0, first = 0;
	char path[300];
	unsigned seen = 0;
	json_t *items, *item;
	size_t i;

	(void)state;
	for (unsigned n = 0; n < 4; n++)
		make_vm("web");
	test_turn(&rig.t);
	snprintf(path, sizeof(path), "events?newest=true&kind=vm-created&limit=3");
	for (;;) {
		const char *next;

		assert_ask(200, "GET", path, NULL);
		items = json_object_get(a.json, "items");
		json_array_foreach(items, i, item)
		{
			json_int_t id = json_integer_value(json_object_get(item, "id"));

			assert_true(!last || id < last);
			last = id;
			first = first ? first : id;
			seen++;
		}
		next = json_string_value(json_object_get(a.json, "next"));
		if (!next)
			break;
		snprintf(path, sizeof(path), "events?newest=true&kind=vm-created&limit=3&cursor=%s",
			 next);
		make_vm("later");
		test_turn(&rig.t);
	}
	assert_true(seen == 4 && first > last);
}

static void test_host(void **state)
{
	char etag[64];

	(void)state;
	assert_ask(200, "GET", "host", NULL);
	snprintf(etag, sizeof(etag), "%s", asked_out(&a, "ETag"));
	assert_ask(200, "PATCH", "host", "{'memory_reserve':100}");
	ask_with("PATCH", "host", "{'memory_reserve':200}", "If-Match", etag);
	expect(412, "changed");
	ask("PATCH", "host", "{'memory_reserve':-1}");
	expect(400, "invalid");
	assert_ask(200, "GET", "host", NULL);
	assert_int_equal(json_integer_value(json_object_get(json_object_get(a.json, "settings"),
							    "memory_reserve")),
			 100);
}

static void test_metering(void **state)
{
	(void)state;
	make_vm("web");
	ask("GET", "vms/web/metering", NULL);
	expect(409, "wrong-state");
	assert_ask(200, "PATCH", "vms/web", "{'metering':true}");
	assert_ask(200, "GET", "vms/web/metering", NULL);
	assert_true(json_is_string(json_object_get(a.json, "since")));
	ask_as(&nobody, "DELETE", "vms/web/metering", NULL);
	assert_true(a.status == 403 || a.status == 404);
	assert_ask(204, "DELETE", "vms/web/metering", NULL);
	assert_int_equal(events_of(&rig.t, "metering-reset"), 1);
}

/* --- openapi.json --- */

/* Every $ref leads somewhere. */
static void check_refs(const json_t *json, const json_t *components)
{
	const char *name;
	json_t *value;
	size_t i;

	json_object_foreach((json_t *)json, name, value)
	{
		if (!strcmp(name, "$ref") &&
		    !json_object_get(components, strrchr(json_string_value(value), '/') + 1))
			fail_msg("%s leads nowhere", json_string_value(value));
		check_refs(value, components);
	}
	json_array_foreach(json, i, value) check_refs(value, components);
}

static void test_the_document(void **state)
{
	json_t *components, *path, *vm;

	(void)state;
	assert_ask(200, "GET", "openapi.json", NULL);
	assert_non_null(a.json);
	assert_string_equal(text_of(a.json, "openapi"), "3.1.0");
	components = json_object_get(json_object_get(a.json, "components"), "schemas");
	check_refs(a.json, components);
	for (unsigned i = 0; i < route_count; i++) {
		char name[100], method[8] = "";

		snprintf(name, sizeof(name), "/%s", routes[i].path);
		for (unsigned n = 0; routes[i].method[n]; n++)
			method[n] = (char)(routes[i].method[n] | 0x20);
		path = json_object_get(json_object_get(json_object_get(a.json, "paths"), name),
				       method);
		assert_string_equal(text_of(path, "operationId"), routes[i].operation);
	}
	vm = json_object_get(json_object_get(components, "VmSettings"), "properties");
	assert_string_equal(text_of(json_object_get(vm, "name"), "x-when"), "any-time");
	assert_null(json_object_get(
		json_object_get(json_object_get(components, "VmSettingsNew"), "properties"), "id"));
	vm = json_object_get(json_object_get(components, "VmMemory"), "properties");
	assert_string_equal(text_of(json_object_get(vm, "startup"), "x-unit"), "MiB");
	assert_int_equal(
		json_integer_value(json_object_get(json_object_get(vm, "startup"), "default")),
		1024);
}

/* What each route answers when all is well is what the document says. */
static void test_answers_are_as_documented(void **state)
{
	(void)state;
	make_vm("web");
	assert_ask(201, "POST", "switches", "{'name':'s'}");
	for (unsigned i = 0; i < route_count; i++) {
		const struct route *r = &routes[i];
		struct error err = { 0 };
		json_t *items;
		size_t n;

		if (strcmp(r->method, "GET") || strchr(r->path, '{') || !r->answer)
			continue;
		assert_ask(200, "GET", r->path, NULL);
		items = json_object_get(a.json, "items");
		if (!(r->flags & ROUTE_LIST) &&
		    check_component(rig.api->components, r->answer, a.json, &err) < 0)
			fail_msg("%s: %s", r->path, err.message);
		for (n = 0; r->flags & ROUTE_LIST && n < json_array_size(items); n++) {
			if (check_component(rig.api->components, r->answer,
					    json_array_get(items, n), &err) < 0)
				fail_msg("%s: %s", r->path, err.message);
		}
	}
	assert_ask(200, "GET", "vms/web", NULL);
	assert_int_equal(check_component(rig.api->components, "VmSettings",
					 json_object_get(a.json, "settings"), NULL),
			 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_what_is_not_there),
		TEST(test_methods),
		TEST(test_parameters_are_checked),
		TEST(test_bodies_are_checked),
		TEST(test_a_machine_comes_and_goes),
		TEST(test_names_that_repeat),
		TEST(test_a_key_makes_one_machine),
		TEST(test_a_key_is_for_one_body),
		TEST(test_pages),
		TEST(test_lists_say_what_is_now),
		TEST(test_groups),
		TEST(test_starting_is_a_job),
		TEST(test_waiting_ends),
		TEST(test_no_update_is_lost),
		TEST(test_roles),
		TEST(test_roles_have_etags),
		TEST(test_things),
		TEST(test_images),
		TEST(test_events),
		TEST(test_the_newest_events_have_pages),
		TEST(test_host),
		TEST(test_metering),
		TEST(test_the_document),
		TEST(test_answers_are_as_documented),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
