// SPDX-License-Identifier: MIT
/* The client as other programs have it: the shared library, against recorded answers. */
#include <partita/client.h>

#include "cli/testing.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define JOB(state, percent)                                                                        \
	"{\"id\":\"j\",\"type\":\"start-vm\",\"state\":\"" state "\",\"percent\":" percent         \
	",\"error\":null}"

static struct partita_client *open_to(struct recorded *server)
{
	struct partita_client_error err = { 0 };
	struct partita_client *c;

	if (partita_client_open(recorded_place(server), &c, &err) < 0)
		fail_msg("%s", err.message);
	return c;
}

static void test_requests_and_refusals(void **state)
{
	static const struct exchange exchanges[] = {
		{ "POST /api/v1/vms", "\"name\":\"web\"", 201, "ETag: \"7\"", "{\"id\":\"1\"}",
		  NULL, 0, false },
		{ "GET /api/v1/vms/a%2Fb", NULL, 404, NULL,
		  "{\"code\":\"not-found\",\"detail\":\"there is no a/b\"}", NULL, 0, false },
		{ "PATCH /api/v1/vms/1", NULL, 400, NULL,
		  "{\"code\":\"invalid\",\"detail\":\"too much\",\"property\":\"memory.startup\"}",
		  NULL, 0, false },
		{ "DELETE /api/v1/vms/1", NULL, 204, NULL, NULL, NULL, 0, false },
	};
	struct recorded *server = recorded_new(exchanges, ARRAY_SIZE(exchanges));
	struct partita_client *c = open_to(server);
	struct partita_client_request q = { .method = "POST",
					    .path = "/vms",
					    .body = "{\"settings\": {\"name\": \"web\"}}",
					    .key = "k" };
	struct partita_client_answer a;
	struct partita_client_error err;
	char *path = partita_client_path("/vms/", "a/b", "");

	(void)state;
	assert_int_equal(partita_client_ask(c, &q, &a, &err), 0);
	assert_int_equal(a.status, 201);
	assert_string_equal(a.body, "{\"id\":\"1\"}");
	assert_string_equal(a.etag, "\"7\"");
	free(a.body);
	q = (struct partita_client_request){ .method = "GET", .path = path };
	assert_int_equal(partita_client_ask(c, &q, &a, &err), -ENOENT);
	assert_string_equal(err.message, "there is no a/b");
	assert_string_equal(err.property, "");
	q = (struct partita_client_request){ .method = "PATCH", .path = "/vms/1", .body = "{}" };
	assert_int_equal(partita_client_ask(c, &q, &a, &err), -EINVAL);
	assert_string_equal(err.property, "memory.startup");
	q.body = "{";
	assert_int_equal(partita_client_ask(c, &q, &a, &err), -EINVAL);
	assert_non_null(strstr(err.message, "no JSON"));
	q = (struct partita_client_request){ .method = "DELETE", .path = "/vms/1" };
	assert_int_equal(partita_client_ask(c, &q, &a, NULL), 0);
	assert_int_equal(a.status, 204);
	assert_null(a.body);
	free(path);
	partita_client_close(c);
	assert_true(recorded_end(server));
}

static void test_a_list_has_all_its_pages(void **state)
{
	static const struct exchange pages[] = {
		{ "GET /api/v1/vms", NULL, 200, NULL, "{\"items\":[{\"id\":\"1\"}],\"next\":\"x\"}",
		  NULL, 0, false },
		{ "GET /api/v1/vms?cursor=x", NULL, 200, NULL,
		  "{\"items\":[{\"id\":\"2\"}],\"next\":null}", NULL, 0, false },
	};
	struct recorded *server = recorded_new(pages, ARRAY_SIZE(pages));
	struct partita_client *c = open_to(server);
	char *list;

	(void)state;
	assert_int_equal(partita_client_list(c, "/vms", &list, NULL), 0);
	assert_string_equal(list, "[{\"id\":\"1\"},{\"id\":\"2\"}]");
	free(list);
	partita_client_close(c);
	assert_true(recorded_end(server));
}

static void on_shown(void *context, const char *job)
{
	assert_non_null(strstr(job, "\"id\":\"j\""));
	++*(unsigned *)context;
}

static void test_jobs_are_waited_for(void **state)
{
	static const struct exchange asked[] = {
		{ "GET /api/v1/jobs/j", NULL, 200, NULL, JOB("running", "10"), NULL, 0, false },
		{ "GET /api/v1/jobs/j?wait=1", NULL, 200, NULL, JOB("completed", "100"), NULL, 0,
		  false },
		{ "GET /api/v1/jobs/k", NULL, 200, NULL,
		  "{\"id\":\"k\",\"state\":\"failed\",\"error\":{\"code\":\"no-space\","
		  "\"detail\":\"no room\"}}",
		  NULL, 0, false },
	};
	struct recorded *server = recorded_new(asked, ARRAY_SIZE(asked));
	struct partita_client *c = open_to(server);
	unsigned times = 0;
	struct partita_client_wait how = { .shown = on_shown, .context = &times };
	struct partita_client_error err;
	char *job;

	(void)state;
	assert_int_equal(partita_client_wait(c, "j", &how, &job, NULL), 0);
	assert_non_null(strstr(job, "completed"));
	assert_int_equal(times, 2);
	free(job);
	assert_int_equal(partita_client_wait(c, "k", NULL, NULL, &err), -ENOSPC);
	assert_string_equal(err.message, "no room");
	partita_client_close(c);
	assert_true(recorded_end(server));
}

static int on_event(void *context, const char *event)
{
	strcat(context, event ? event : "(open)");
	return event ? 5 : 0;
}

static void test_events_are_told(void **state)
{
	static const struct exchange stream = { "GET /api/v1/events?kind=x",
						NULL,
						200,
						"Content-Type: text/event-stream",
						"id: 7\nevent: x\ndata: {\"id\":7}\n\n",
						NULL,
						0,
						false };
	struct recorded *server = recorded_new(&stream, 1);
	struct partita_client *c = open_to(server);
	char told[100] = "";
	const struct partita_client_events what = {
		.path = "/events?kind=x", .after = -1, .each = on_event, .context = told
	};

	(void)state;
	assert_int_equal(partita_client_events(c, &what, NULL), 5);
	assert_string_equal(told, "(open){\"id\":7}");
	partita_client_close(c);
	assert_true(recorded_end(server));
}

static void test_a_console(void **state)
{
	static const struct exchange console = { "GET /api/v1/vms/1/console",
						 NULL,
						 101,
						 "Upgrade: websocket",
						 NULL,
						 "\x82\x03hi\n",
						 5,
						 true };
	struct recorded *server = recorded_new(&console, 1);
	struct partita_client *c = open_to(server);
	struct partita_console *k;
	struct partita_client_error err;
	char data[8];
	ssize_t n = 0;

	(void)state;
	assert_int_equal(partita_console_open(c, "/vms/1/console", &k, &err), 0);
	for (unsigned i = 0; i < 100 && !n; i++) {
		struct pollfd p = { .fd = partita_console_fd(k), .events = POLLIN };

		if (!partita_console_pending(k))
			poll(&p, 1, 1000);
		n = partita_console_read(k, data, sizeof(data), &err);
	}
	assert_int_equal(n, 3);
	assert_memory_equal(data, "hi\n", 3);
	assert_int_equal(partita_console_write(k, "x", 1, &err), 0);
	do
		n = partita_console_read(k, data, sizeof(data), &err);
	while (!n);
	assert_int_equal(n, -EPIPE);
	partita_console_close(k);
	partita_client_close(c);
	assert_true(recorded_end(server));
}

static void test_nobody_is_asked(void **state)
{
	struct partita_client_error err;
	struct partita_client *c;

	(void)state;
	assert_int_equal(partita_client_open("gopher://x", &c, &err), -EINVAL);
	assert_non_null(strstr(err.message, "no place of a service"));
	unsetenv("PARTITA_PASSWORD");
	assert_int_equal(partita_client_open("https://ada@host", &c, &err), -EACCES);
	assert_non_null(strstr(err.message, "PARTITA_PASSWORD"));
	assert_int_equal(partita_client_open("unix:/nowhere/at/all", &c, &err), 0);
	assert_int_equal(partita_client_list(c, "/vms", NULL, &err), -ECONNREFUSED);
	partita_client_close(c);
	partita_client_close(NULL);
	partita_console_close(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests_and_refusals),
		cmocka_unit_test(test_a_list_has_all_its_pages),
		cmocka_unit_test(test_jobs_are_waited_for),
		cmocka_unit_test(test_events_are_told),
		cmocka_unit_test(test_a_console),
		cmocka_unit_test(test_nobody_is_asked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
