// SPDX-License-Identifier: MIT
/* partita job: the service's long operations. */
#include "cli/output.h"

#include "lib/cleanup.h"

#include <string.h>

static const struct column columns[] = {
	{ "ID", "id", COLUMN_TEXT, false },       { "TYPE", "type", COLUMN_TEXT, false },
	{ "STATE", "state", COLUMN_TEXT, false }, { "%", "percent", COLUMN_NUMBER, false },
	{ "OWNER", "owner", COLUMN_TEXT, true },  { "BEGUN", "begun", COLUMN_TIME, false },
	{ "MACHINE", "vm", COLUMN_TEXT, true },   { "ERROR", "error.detail", COLUMN_TEXT, true },
};

static const struct column facts[] = {
	{ "Id", "id", COLUMN_TEXT, false },
	{ "Type", "type", COLUMN_TEXT, false },
	{ "State", "state", COLUMN_TEXT, false },
	{ "Percent", "percent", COLUMN_NUMBER, false },
	{ "Machine", "vm", COLUMN_TEXT, false },
	{ "Owner", "owner", COLUMN_TEXT, false },
	{ "Begun", "begun", COLUMN_TIME, false },
	{ "Ended", "ended", COLUMN_TIME, false },
	{ "Error", "error.detail", COLUMN_TEXT, false },
	{ "Can be cancelled", "cancellable", COLUMN_TEXT, false },
};

static int run_list(struct command *c)
{
	char *path = strdup("/jobs");

	if (command_option(c, "state"))
		path = client_query(path, "state", command_option(c, "state"));
	return list_run(c, path, columns, ARRAY_SIZE(columns));
}

static int run_show(struct command *c)
{
	_cleanup_free_ char *path = client_path("/jobs/", c->words[0], "");

	return show_run(c, path, facts, ARRAY_SIZE(facts));
}

static int run_wait(struct command *c)
{
	json_t *job = json_pack("{s:s}", "id", c->words[0]), *ended = NULL;
	int r = command_client(c) ? job_follow(c, job, c->words[0], &ended) : c->err.code;

	if (r >= 0 && c->json)
		print_json(ended);
	json_decref(job);
	if (ended)
		json_decref(ended);
	return r;
}

static int run_cancel(struct command *c)
{
	_cleanup_free_ char *path = client_path("/jobs/", c->words[0], "");

	return ask_run(c, &(struct client_request){ .method = "DELETE", .path = path }, NULL);
}

static const struct command_option list_options[] = {
	{ "state", WORD_CHOICE, "running|completed|failed|cancelled", "only jobs in this state" },
	{ 0 },
};

static const struct command_option wait_options[] = {
	{ "timeout", WORD_TEXT, "TIME", "wait so long at most, like 90 or 5m" },
	{ 0 },
};

#define ONE .words = "ID", .words_min = 1, .words_max = 1, .word = WORD_JOB

/* clang-format off */
static const struct command_verb verbs[] = {
	{ .name = "list", .summary = "List jobs, those that ended within the hour too", .list = true,
	  .examples = "partita job list\npartita job list --state running --watch\n",
	  .options = list_options, .run = run_list },
	{ .name = "show", ONE, .summary = "Tell all about a job",
	  .examples = "partita job show 1c2e7a52-9a3e-4a6b-8a1d-0d3c86b1f0aa\n", .run = run_show },
	{ .name = "wait", ONE, .summary = "Wait for a job's end",
	  .notes = "The exit status is that of what the job did.",
	  .examples = "partita job wait \"$(partita vm start web --no-wait)\" --timeout 5m\n",
	  .options = wait_options, .run = run_wait },
	{ .name = "cancel", ONE, .summary = "Ask a job to stop",
	  .examples = "partita job cancel 1c2e7a52-9a3e-4a6b-8a1d-0d3c86b1f0aa\n",
	  .run = run_cancel },
};
/* clang-format on */

const struct command_noun noun_job = { "job", "Long operations of the service", verbs,
				       ARRAY_SIZE(verbs) };
