// SPDX-License-Identifier: MIT
/* Command lines against recorded answers of a service: what is asked, printed, and the status. */
#include "cli/image.h"
#include "cli/program.h"
#include "cli/testing.h"
#include "cli/vm.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define VM(name, state)                                                                            \
	"{\"id\":\"3f2504e0-4f89-11d3-9a0c-0305e82c3301\",\"name\":\"" name                        \
	"\",\"folder\":\"/m/" name "\",\"state\":\"" state "\",\"settings\":{\"name\":\"" name     \
	"\",\"processors\":{\"count\":2},"                                                         \
	"\"memory\":{\"startup\":2048},\"scsi_controllers\":[{\"drives\":"                         \
	"[{\"location\":0,\"path\":\"a.vhdx\"}]}]},\"allowed\":[\"start\"]}"
#define FIELDS                                                                                     \
	"fields=name%2Cstate%2Csettings.processors.count%2Csettings.memory.startup%2C"             \
	"status.cpu_percent%2Cstatus.uptime_s%2Cstatus.guest.heartbeat%2C"                         \
	"status.guest.addresses%2Csettings.group%2Cstate_words%2Cid"
#define JOB(state, percent)                                                                        \
	"{\"id\":\"j1\",\"type\":\"start-vm\",\"state\":\"" state "\",\"percent\":" percent "}"

/* Runs it against the exchanges; the texts must be in its output and its errors. */
#define partita(exchanges, status, out_has, err_has, ...)                                          \
	do {                                                                                       \
		struct recorded *r_ = recorded_new(exchanges, ARRAY_SIZE(exchanges));              \
		char *out_, *err_, *place_ = strdup(recorded_place(r_));                           \
		int status_ = partita_run(&out_, &err_, __VA_ARGS__, "--host", place_, NULL);      \
                                                                                                   \
		assert_true(recorded_end(r_));                                                     \
		if (status_ != (status) || !strstr(out_, out_has) || !strstr(err_, err_has))       \
			fail_msg("status %d, output \"%s\", errors \"%s\"", status_, out_, err_);  \
		free(out_);                                                                        \
		free(err_);                                                                        \
		free(place_);                                                                      \
	} while (0)

/* Without a service. */
#define wrong(words, ...)                                                                          \
	do {                                                                                       \
		char *out_, *err_;                                                                 \
		int status_ = partita_run(&out_, &err_, __VA_ARGS__, NULL);                        \
                                                                                                   \
		if (status_ != CLI_USAGE || !strstr(err_, words) || *out_)                         \
			fail_msg("status %d, \"%s\"", status_, err_);                              \
		free(out_);                                                                        \
		free(err_);                                                                        \
	} while (0)

static void test_what_is_mistyped_is_guessed(void **state)
{
	(void)state;
	wrong("did you mean \"list\"?", "vm", "lst");
	wrong("did you mean \"start\"?", "vm", "strat", "web");
	wrong("there are list, show", "job", "xyzzy");
	wrong("did you mean --json?", "vm", "list", "--jsno");
	wrong("did you mean --memory-minimum?", "vm", "create", "--memory-minumum", "4");
	wrong("`partita vm list --help` lists them", "vm", "list", "--qqqqqq");
}

static void test_wrong_usage_has_status_2_and_words(void **state)
{
	(void)state;
	wrong("a verb is missing", "vm");
	wrong("say NAME...", "vm", "start");
	wrong("\"b\" is one word too many", "vm", "set", "a", "b");
	wrong("--state wants an argument", "vm", "list", "--state");
	wrong("--all takes no argument", "vm", "show", "web", "--all=yes");
	wrong("--no-metering takes no argument", "vm", "set", "web", "--no-metering=1");
	wrong("--state is one of off|starting", "vm", "list", "--state", "of");
	wrong("all have two dashes", "vm", "list", "-x");
	wrong("say what to change", "vm", "set", "web");
	wrong("say the machine's name", "vm", "create");
	wrong("say the name once", "vm", "create", "a", "--name", "b");
	wrong("no place of a service", "vm", "list", "--host", "ftp://x");
	wrong("--fields goes with --json", "vm", "list", "--fields", "id");
	wrong("is no time", "vm", "wait", "web", "--timeout", "soon");
	wrong("either --user or --group", "role", "assign", "viewer");
	wrong("is no name of a user", "vm", "create", "web", "--user", "a b");
}

static void test_help_tells_of_options_and_examples(void **state)
{
	char *out, *err;

	(void)state;
	assert_int_equal(partita_run(&out, &err, "vm", "create", "--help", NULL), CLI_OK);
	assert_non_null(strstr(out, "--cpus N"));
	assert_non_null(strstr(out, "--memory-minimum MiB"));
	assert_non_null(strstr(out, "--automatic-stop turn-off|save|shut-down"));
	assert_non_null(strstr(out, "Examples:\n  partita vm create web"));
	assert_string_equal(err, "");
	free(out);
	free(err);
}

static void test_every_verb_has_examples_and_a_summary(void **state)
{
	(void)state;
	for (unsigned i = 0; i < command_noun_count; i++)
		for (unsigned k = 0; k < command_nouns[i]->verb_count; k++) {
			const struct command_verb *v = &command_nouns[i]->verbs[k];
			char start[64];

			snprintf(start, sizeof(start), "partita %s %s", command_nouns[i]->name,
				 v->name);
			if (!v->examples || !strstr(v->examples, start) || !v->run ||
			    v->summary[strlen(v->summary) - 1] == '.')
				fail_msg("%s", start);
		}
}

/* Nothing is asked of the other host, and nothing is made on this one. */
static void test_files_are_made_on_the_services_own_host(void **state)
{
	static const char *const options[] = { "--image=debian", "--new-disk=1G", "--user=ada" };
	char *out, *err;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		assert_int_equal(partita_run(&out, &err, "vm", "create", "web", options[i],
					     "--host", "https://elsewhere.invalid:8443", NULL),
				 CLI_FAILED);
		assert_non_null(strstr(err, "the service's own host, which is "
					    "\"elsewhere.invalid:8443\": run this there"));
		free(out);
		free(err);
	}
	assert_int_equal(partita_run(&out, &err, "image", "import", "tiny", "/dev/null", "--host",
				     "https://elsewhere.invalid", NULL),
			 CLI_FAILED);
	assert_non_null(strstr(err, "which is \"elsewhere.invalid\": run this there"));
	free(out);
	free(err);
}

static void test_a_list_is_a_table_of_all_pages(void **state)
{
	static const struct exchange pages[] = {
		{ "GET /api/v1/vms?" FIELDS "&pattern=w%2A&state=off", NULL, 200, NULL,
		  "{\"items\":[" VM("web", "off") "],\"next\":\"a b\"}", NULL, 0 },
		{ "GET /api/v1/vms?" FIELDS "&pattern=w%2A&state=off&cursor=a%20b", NULL, 200, NULL,
		  "{\"items\":[" VM("w2", "off") "],\"next\":null}", NULL, 0 },
	};

	(void)state;
	partita(pages, CLI_OK, "web  off      2  2 GiB", "", "vm", "list", "w*", "--state", "off");
}

static void test_json_is_what_the_service_said(void **state)
{
	static const struct exchange pages[] = {
		{ "GET /api/v1/vms", NULL, 200, NULL,
		  "{\"items\":[{\"id\":\"x\",\"name\":\"web\"}],\"next\":null}", NULL, 0 },
	};

	(void)state;
	partita(pages, CLI_OK, "[\n  {\n    \"id\": \"x\",\n    \"name\": \"web\"\n  }\n]\n", "",
		"vm", "list", "--json");
}

static void test_control_characters_do_not_reach_the_terminal(void **state)
{
	static const struct exchange list[] = {
		{ "GET /api/v1/vms?" FIELDS, NULL, 200, NULL,
		  "{\"items\":[{\"name\":\"a\\u001b[2Jb\\u009bc\"}],\"next\":null}", NULL, 0 },
	};
	static const struct exchange show[] = {
		{ "GET /api/v1/vms/web", NULL, 200, NULL, "{\"name\":\"a\\u001b[2J\\u009bc\"}",
		  NULL, 0 },
	};

	(void)state;
	partita(list, CLI_OK, "a\\x1b[2Jb", "", "vm", "list");
	partita(show, CLI_OK, "a\\x1b[2J\\xc2\x9b", "", "vm", "show", "web");
}

static void test_show_tells_settings_that_are_not_defaults(void **state)
{
	static const struct exchange show[] = {
		{ "GET /api/v1/vms/web%2Fa", NULL, 200, NULL, VM("web", "off"), NULL, 0 },
	};

	(void)state;
	partita(show, CLI_OK, "processors.count                       2\n", "", "vm", "show",
		"web/a");
	partita(show, CLI_OK, "scsi_controllers[0].drives[0].path     a.vhdx\n", "", "vm", "show",
		"web/a");
}

static void test_refusals_have_words_property_and_status(void **state)
{
	static const struct {
		const char *code;
		int http, status;
	} cases[] = {
		{ "invalid", 400, CLI_USAGE },     { "not-found", 404, CLI_NOT_FOUND },
		{ "forbidden", 403, CLI_DENIED },  { "wrong-state", 409, CLI_STATE },
		{ "changed", 412, CLI_STATE },     { "not-enough-memory", 503, CLI_NO_ROOM },
		{ "no-space", 507, CLI_NO_ROOM },  { "timeout", 504, CLI_TIMEOUT },
		{ "internal", 500, CLI_FAILED },   { "unsupported", 501, CLI_FAILED },
		{ "novel-code", 418, CLI_FAILED },
	};
	char problem[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct exchange set[] = {
			{ "PATCH /api/v1/vms/web", "{\"name\":\"b\"}", cases[i].http, NULL, problem,
			  NULL, 0 },
		};

		snprintf(problem, sizeof(problem),
			 "{\"type\":\"about:blank\",\"status\":%d,\"code\":\"%s\",\"detail\":\"it "
			 "is too large\",\"property\":\"memory.startup\"}",
			 cases[i].http, cases[i].code);
		partita(set, cases[i].status, "", "it is too large (memory.startup)", "vm",
			"rename", "web", "b");
	}
}

static void test_a_setting_at_fault_is_told_with_its_option(void **state)
{
	static const struct exchange set[] = {
		{ "GET /api/v1/vms/web", NULL, 200, "ETag: \"5\"", VM("web", "off"), NULL, 0 },
		{ "PATCH /api/v1/vms/3f2504e0-4f89-11d3-9a0c-0305e82c3301",
		  "{\"memory\":{\"startup\":4096}}", 400, NULL,
		  "{\"code\":\"invalid\",\"detail\":\"no\",\"property\":\"memory.startup\"}", NULL,
		  0 },
	};

	(void)state;
	partita(set, CLI_USAGE, "", "no (memory.startup); it is --memory", "vm", "set", "web",
		"--memory", "4G");
}

static void test_what_is_not_a_service_is_told(void **state)
{
	static const struct exchange cases[][1] = {
		{ { "GET /api/v1/vms?" FIELDS, NULL, 200, NULL, "<html>", NULL, 0 } },
		{ { "GET /api/v1/vms?" FIELDS, NULL, 500, NULL, "{}", NULL, 0 } },
		{ { "GET /api/v1/vms?" FIELDS, NULL, 200, NULL, "[]", NULL, 0 } },
		{ { "GET /api/v1/vms?" FIELDS, NULL, 200, NULL, NULL, NULL, 0 } },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
		partita(cases[i], CLI_FAILED, "", "partita vm list: the service", "vm", "list");
}

static void test_changes_of_others_are_not_undone(void **state)
{
	static const char changed[] = "{\"code\":\"changed\",\"detail\":\"meanwhile\"}";
	static const struct exchange set[] = {
		{ "GET /api/v1/vms/web", NULL, 200, "ETag: \"5\"", VM("web", "off"), NULL, 0 },
		{ "PATCH /api/v1/vms/3f2504e0-4f89-11d3-9a0c-0305e82c3301", NULL, 412, NULL,
		  changed, NULL, 0 },
		{ "GET /api/v1/vms/web", NULL, 200, "ETag: \"6\"", VM("web", "off"), NULL, 0 },
		{ "PATCH /api/v1/vms/3f2504e0-4f89-11d3-9a0c-0305e82c3301",
		  "{\"scsi_controllers\":[{\"drives\":[{\"location\":0,\"path\":\"a.vhdx\"},"
		  "{\"kind\":\"disk\",\"path\":\"/b\",\"location\":1}]}]}",
		  200, NULL, VM("web", "off"), NULL, 0 },
	};

	(void)state;
	partita(set, CLI_OK, "", "", "vm", "set", "web", "--disk", "/b");
}

static void test_an_action_follows_its_job(void **state)
{
	static const struct exchange start[] = {
		{ "GET /api/v1/vms/web", NULL, 200, NULL, VM("web", "off"), NULL, 0 },
		{ "POST /api/v1/vms/3f2504e0-4f89-11d3-9a0c-0305e82c3301/start", NULL, 202, NULL,
		  JOB("running", "0"), NULL, 0 },
		{ "GET /api/v1/jobs/j1", NULL, 200, NULL, JOB("running", "10"), NULL, 0 },
		{ "GET /api/v1/jobs/j1?wait=1", NULL, 200, NULL, JOB("running", "55"), NULL, 0 },
		{ "GET /api/v1/jobs/j1?wait=1", NULL, 200, NULL, JOB("completed", "100"), NULL, 0 },
	};

	(void)state;
	partita(start, CLI_OK, "", "start-vm web: 10 %\nstart-vm web: 55 %\nstart-vm web: 100 %\n",
		"vm", "start", "web");
}

static void test_a_failed_job_is_a_failure_with_its_status(void **state)
{
	static const struct exchange start[] = {
		{ "GET /api/v1/vms/web", NULL, 200, NULL, VM("web", "off"), NULL, 0 },
		{ "POST /api/v1/vms/3f2504e0-4f89-11d3-9a0c-0305e82c3301/start", NULL, 202, NULL,
		  JOB("running", "0"), NULL, 0 },
		{ "GET /api/v1/jobs/j1", NULL, 200, NULL,
		  "{\"id\":\"j1\",\"type\":\"start-vm\",\"state\":\"failed\",\"percent\":10,"
		  "\"error\":{\"code\":\"not-enough-memory\",\"detail\":\"8 GiB are needed\"}}",
		  NULL, 0 },
	};
	static const struct exchange cancelled[] = {
		{ "GET /api/v1/jobs/j1", NULL, 200, NULL,
		  "{\"id\":\"j1\",\"type\":\"x\",\"state\":\"cancelled\",\"percent\":10}", NULL,
		  0 },
	};

	(void)state;
	partita(start, CLI_NO_ROOM, "", "vm start: web: 8 GiB are needed", "vm", "start", "web");
	partita(cancelled, CLI_CANCELLED, "", "it was cancelled", "job", "wait", "j1");
}

static void test_no_wait_prints_the_job(void **state)
{
	static const struct exchange start[] = {
		{ "GET /api/v1/vms/web", NULL, 200, NULL, VM("web", "off"), NULL, 0 },
		{ "POST /api/v1/vms/3f2504e0-4f89-11d3-9a0c-0305e82c3301/start", NULL, 202, NULL,
		  JOB("running", "0"), NULL, 0 },
	};

	(void)state;
	partita(start, CLI_OK, "j1\n", "", "vm", "start", "web", "--no-wait");
}

#define WEB "/api/v1/vms/3f2504e0-4f89-11d3-9a0c-0305e82c3301"

static void test_stop_asks_the_guest_unless_told_otherwise(void **state)
{
	static const struct exchange asked[] = {
		{ "GET /api/v1/vms/web", NULL, 200, NULL, VM("web", "running"), NULL, 0 },
		{ "POST " WEB "/shut-down?timeout=90&force=true&turn_off=true&reason=so", NULL, 202,
		  NULL, JOB("running", "0"), NULL, 0 },
	};
	static const struct exchange off[] = {
		{ "GET /api/v1/vms/web", NULL, 200, NULL, VM("web", "running"), NULL, 0 },
		{ "POST " WEB "/stop", NULL, 202, NULL, JOB("running", "0"), NULL, 0 },
	};
	static const struct exchange restart[] = {
		{ "GET /api/v1/vms/web", NULL, 200, NULL, VM("web", "running"), NULL, 0 },
		{ "POST " WEB "/restart", NULL, 202, NULL, JOB("running", "0"), NULL, 0 },
	};

	(void)state;
	partita(asked, CLI_OK, "j1\n", "", "vm", "stop", "web", "--no-wait", "--within", "90s",
		"--force", "--turn-off", "--reason", "so");
	partita(off, CLI_OK, "j1\n", "", "vm", "stop", "web", "--no-wait", "--turn-off");
	partita(restart, CLI_OK, "j1\n", "", "vm", "restart", "web", "--no-wait");
}

static void test_facts_and_items_of_a_guest(void **state)
{
	static const struct exchange info[] = {
		{ "GET /api/v1/vms/web/guest", NULL, 200, NULL,
		  "{\"known\":true,\"heartbeat\":{\"state\":\"ok\"},\"items\":{\"OSName\":"
		  "\"De\\u001bbian\"},\"services\":{\"vss\":{\"state\":\"ready\","
		  "\"version\":\"5.0\"}}}",
		  NULL, 0 },
	};
	static const struct exchange get[] = {
		{ "GET /api/v1/vms/web/guest/items?from=0&pool=guest", NULL, 200, NULL,
		  "{\"items\":[{\"key\":\"a\",\"value\":\"1\"}],\"next\":1}", NULL, 0 },
		{ "GET /api/v1/vms/web/guest/items?from=1&pool=guest", NULL, 200, NULL,
		  "{\"items\":[{\"key\":\"b\",\"value\":\"2\"}]}", NULL, 0 },
	};
	static const struct exchange set[] = {
		{ "PUT /api/v1/vms/web/guest/items", "{\"key\":\"a\",\"value\":\"b\"}", 204, NULL,
		  NULL, NULL, 0 },
	};
	static const struct exchange delete[] = {
		{ "PUT /api/v1/vms/web/guest/items", "{\"key\":\"a\",\"value\":null}", 204, NULL,
		  NULL, NULL, 0 },
	};
	static const struct exchange copy[] = {
		{ "POST /api/v1/vms/web/guest/copy",
		  "{\"source\":\"/nowhere/f\",\"path\":\"/srv/f\",\"overwrite\":true,"
		  "\"create_path\":false}",
		  202, NULL, JOB("running", "0"), NULL, 0 },
	};

	(void)state;
	partita(info, CLI_OK, "De\\x1bbian", "", "vm", "guest", "info", "web");
	partita(get, CLI_OK, "2\n", "", "vm", "guest", "get", "web", "b", "--pool", "guest");
	partita(set, CLI_OK, "", "", "vm", "guest", "set", "web", "a", "b");
	partita(delete, CLI_OK, "", "", "vm", "guest", "delete", "web", "a");
	partita(copy, CLI_OK, "j1\n", "", "vm", "guest", "copy", "web", "/nowhere/f", "/srv/",
		"--overwrite", "--no-wait");
}

static void test_wildcards_are_all_that_match(void **state)
{
	static const struct exchange remove[] = {
		{ "GET /api/v1/vms?fields=id,name&pattern=w%2A", NULL, 200, NULL,
		  "{\"items\":[{\"id\":\"a\",\"name\":\"w1\"},{\"id\":\"b\",\"name\":\"w2\"}],"
		  "\"next\":null}",
		  NULL, 0 },
		{ "DELETE /api/v1/vms/a", NULL, 409, NULL,
		  "{\"code\":\"wrong-state\",\"detail\":\"it is running\"}", NULL, 0 },
		{ "DELETE /api/v1/vms/b", NULL, 204, NULL, NULL, NULL, 0 },
	};
	static const struct exchange none[] = {
		{ "GET /api/v1/vms?fields=id,name&pattern=z%2A", NULL, 200, NULL,
		  "{\"items\":[],\"next\":null}", NULL, 0 },
	};

	(void)state;
	/* one that fails does not keep the others back */
	partita(remove, CLI_STATE, "", "vm remove: w1: it is running", "vm", "remove", "w*");
	partita(none, CLI_NOT_FOUND, "", "no machine's name is like", "vm", "remove", "z*");
}

static void test_create_sends_settings_and_prints_the_id(void **state)
{
	static const struct exchange create[] = {
		{ "POST /api/v1/vms",
		  "{\"settings\":{\"memory\":{\"startup\":2048},\"scsi_controllers\":[{\"drives\":"
		  "[{\"kind\":\"disk\",\"path\":\"/a\",\"location\":0},{\"kind\":\"disk\",\"path\":"
		  "\"/b\",\"location\":1}]}],\"name\":\"web\"},\"folder\":\"/m/x\"}",
		  201, NULL, VM("web", "off"), NULL, 0 },
	};

	(void)state;
	partita(create, CLI_OK, "3f2504e0-4f89-11d3-9a0c-0305e82c3301\n", "", "vm", "create", "web",
		"--memory", "2G", "--disk", "/a", "--disk", "/b", "--folder", "/m/x");
}

static void test_events_are_lines_as_they_come(void **state)
{
	static const struct exchange stream[] = {
		{ "GET /api/v1/events?kind=vm-started", NULL, 200,
		  "Content-Type: text/event-stream",
		  ": hello\r\n\r\nid: 7\ndata: {\"id\":7,\"kind\":\"vm-started\",\n"
		  "data: \"words\":\"web runs\"}\n\n"
		  "id: 8\ndata:{\"id\":8,\"kind\":\"vm-started\",\"words\":\"late\"}\n\n",
		  NULL, 0 },
	};
	static const struct exchange gone[] = {
		{ "GET /api/v1/events", NULL, 200, "Content-Type: text/event-stream", "", NULL, 0 },
	};
	static const struct exchange refused[] = {
		{ "GET /api/v1/events", NULL, 403, NULL, "{}", NULL, 0 },
	};

	(void)state;
	partita(stream, CLI_OK, "web runs\n", "", "event", "watch", "--kind", "vm-started",
		"--count", "1");
	partita(stream, CLI_OK, "late\n", "", "event", "watch", "--kind", "vm-started", "--count",
		"2");
	partita(gone, CLI_FAILED, "", "has closed its events", "event", "watch");
	partita(refused, CLI_DENIED, "", "refuses its events", "event", "watch");
}

static void test_roles_are_put_and_assigned(void **state)
{
	static const struct exchange set[] = {
		{ "PUT /api/v1/roles/backup", "{\"operations\":[\"view-vm\",\"checkpoint\"]}", 200,
		  NULL, "{}", NULL, 0 },
	};
	static const struct exchange assign[] = {
		{ "GET /api/v1/vms/web", NULL, 200, NULL, VM("web", "off"), NULL, 0 },
		{ "POST /api/v1/assignments",
		  "{\"user\":\"ada\",\"role\":\"operator\",\"scope\":"
		  "\"vm:3f2504e0-4f89-11d3-9a0c-0305e82c3301\"}",
		  201, NULL, "{\"id\":3}", NULL, 0 },
	};

	(void)state;
	partita(set, CLI_OK, "", "", "role", "set", "backup", "--operation", "view-vm",
		"--operation", "checkpoint");
	partita(assign, CLI_OK, "3\n", "", "role", "assign", "operator", "--user", "ada", "--scope",
		"vm:web");
}

/* --- pure parts --- */

static void test_drives_find_their_places(void **state)
{
	json_t *controllers =
		json_loads("[{\"drives\":[{\"location\":0},{\"location\":2}]}]", 0, NULL);
	json_t *drives = json_loads("[{\"path\":\"a\"},{\"path\":\"b\"},"
				    "{\"path\":\"c\",\"controller\":2,\"location\":5}]",
				    0, NULL);
	json_t *taken = json_loads("[{\"path\":\"a\",\"location\":2}]", 0, NULL);
	json_t *want =
		json_loads("[{\"drives\":[{\"location\":0},{\"location\":2},"
			   "{\"path\":\"a\",\"location\":1},{\"path\":\"b\",\"location\":3}]},"
			   "{\"drives\":[]},{\"drives\":[{\"path\":\"c\",\"location\":5}]}]",
			   0, NULL);
	struct error err = { 0 };

	(void)state;
	assert_int_equal(drives_place(controllers, drives, &err), 0);
	assert_true(json_equal(controllers, want));
	assert_int_equal(drives_place(controllers, taken, &err), -EEXIST);
	assert_non_null(strstr(err.message, "--remove-disk 0:2"));
	assert_int_equal(drive_remove(controllers, "0:2", &err), 0);
	assert_int_equal(drive_remove(controllers, "0:2", &err), -ENOENT);
	assert_int_equal(drive_remove(controllers, "0:2x", &err), -EINVAL);
	assert_int_equal(drives_place(controllers, taken, &err), 0);
	json_decref(controllers);
	json_decref(drives);
	json_decref(taken);
	json_decref(want);
}

static void test_seeds_cannot_be_broken_out_of(void **state)
{
	const struct seed s = { .instance = "i-1",
				.hostname = "web",
				.user = "ada",
				.keys = { "ssh-ed25519 AAAA a\"b: {c}" },
				.key_count = 1 };
	_cleanup_free_ char *user = seed_user_data(&s), *meta = seed_meta_data(&s);
	json_t *config, *data;

	(void)state;
	assert_memory_equal(user, "#cloud-config\n", 14);
	config = json_loads(user + 14, 0, NULL);
	data = json_loads(meta, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(config, "hostname")), "web");
	assert_string_equal(
		json_string_value(json_array_get(
			json_object_get(json_array_get(json_object_get(config, "users"), 0),
					"ssh_authorized_keys"),
			0)),
		s.keys[0]);
	assert_string_equal(json_string_value(json_object_get(data, "instance-id")), "i-1");
	json_decref(config);
	json_decref(data);
	assert_true(seed_name_ok("web-1.lab"));
	assert_false(seed_name_ok(""));
	assert_false(seed_name_ok("-x"));
	assert_false(seed_name_ok("a/b"));
	assert_false(seed_name_ok("a\nb"));
}

static void test_other_programs_get_no_descriptors(void **state)
{
	const char *const looks[] = { "sh", "-c", "[ ! -e /proc/self/fd/9 ]", NULL };
	const char *const fails[] = { "sh", "-c", "exit 3", NULL };
	const char *const missing[] = { "no-such-program-anywhere", NULL };
	struct error err = { 0 };

	(void)state;
	assert_int_equal(dup2(1, 9), 9);
	assert_int_equal(program_run(looks, &err), 0);
	close(9);
	assert_int_equal(program_run(fails, &err), -EIO);
	assert_non_null(strstr(err.message, "status 3"));
	assert_int_equal(program_run(missing, &err), -ENOENT);
	assert_false(program_exists(missing[0]));
	assert_true(program_exists("sh"));
}

static void test_durations(void **state)
{
	uint64_t s;

	(void)state;
	assert_int_equal(parse_duration("90", &s, NULL), 0);
	assert_int_equal(s, 90);
	assert_int_equal(parse_duration("2h", &s, NULL), 0);
	assert_int_equal(s, 7200);
	assert_int_equal(parse_duration("", &s, NULL), -EINVAL);
	assert_int_equal(parse_duration("-5", &s, NULL), -EINVAL);
	assert_int_equal(parse_duration("5y", &s, NULL), -EINVAL);
	assert_int_equal(parse_duration("99999999999999999999", &s, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_mistyped_is_guessed),
		cmocka_unit_test(test_wrong_usage_has_status_2_and_words),
		cmocka_unit_test(test_help_tells_of_options_and_examples),
		cmocka_unit_test(test_every_verb_has_examples_and_a_summary),
		cmocka_unit_test(test_files_are_made_on_the_services_own_host),
		cmocka_unit_test(test_a_list_is_a_table_of_all_pages),
		cmocka_unit_test(test_json_is_what_the_service_said),
		cmocka_unit_test(test_control_characters_do_not_reach_the_terminal),
		cmocka_unit_test(test_show_tells_settings_that_are_not_defaults),
		cmocka_unit_test(test_refusals_have_words_property_and_status),
		cmocka_unit_test(test_a_setting_at_fault_is_told_with_its_option),
		cmocka_unit_test(test_what_is_not_a_service_is_told),
		cmocka_unit_test(test_changes_of_others_are_not_undone),
		cmocka_unit_test(test_an_action_follows_its_job),
		cmocka_unit_test(test_a_failed_job_is_a_failure_with_its_status),
		cmocka_unit_test(test_no_wait_prints_the_job),
		cmocka_unit_test(test_stop_asks_the_guest_unless_told_otherwise),
		cmocka_unit_test(test_facts_and_items_of_a_guest),
		cmocka_unit_test(test_wildcards_are_all_that_match),
		cmocka_unit_test(test_create_sends_settings_and_prints_the_id),
		cmocka_unit_test(test_events_are_lines_as_they_come),
		cmocka_unit_test(test_roles_are_put_and_assigned),
		cmocka_unit_test(test_drives_find_their_places),
		cmocka_unit_test(test_seeds_cannot_be_broken_out_of),
		cmocka_unit_test(test_other_programs_get_no_descriptors),
		cmocka_unit_test(test_durations),
	};

	setenv("TZ", "UTC", 1);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
