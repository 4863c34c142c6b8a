// SPDX-License-Identifier: MIT
/* partita event: what happened, from the service's log, and what happens. */
#include "cli/output.h"

#include "lib/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

static const struct column columns[] = {
	{ "ID", "id", COLUMN_NUMBER, false },           { "TIME", "time", COLUMN_TIME, false },
	{ "SEVERITY", "severity", COLUMN_TEXT, false }, { "KIND", "kind", COLUMN_TEXT, false },
	{ "ACTOR", "actor", COLUMN_TEXT, true },        { "WORDS", "words", COLUMN_TEXT, true },
};

/* "2h" ago, or a time in UTC as ISO 8601 has it, into milliseconds since 1970. */
static int since_text(struct command *c, const char *text, char ms[static 32])
{
	struct tm utc = { 0 };
	uint64_t seconds;
	time_t t;
	int n = sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d", &utc.tm_year, &utc.tm_mon, &utc.tm_mday,
		       &utc.tm_hour, &utc.tm_min, &utc.tm_sec);

	if (n == 3 || n == 6) {
		utc.tm_year -= 1900;
		utc.tm_mon--;
		t = timegm(&utc);
	} else if (parse_duration(text, &seconds, &c->err) < 0) {
		return error_prefix(&c->err, "--since");
	} else {
		t = time(NULL) - (time_t)MIN(seconds, (uint64_t)INT32_MAX);
	}
	snprintf(ms, 32, "%lld", t < 0 ? 0 : (long long)t * 1000);
	return 0;
}

static char *filtered(struct command *c, char *path)
{
	static const char *const filters[] = { "severity", "kind", "limit" };
	const char *since = command_option(c, "since"), *name = command_option(c, "vm");

	for (size_t i = 0; i < ARRAY_SIZE(filters); i++)
		if (command_option(c, filters[i]))
			path = client_query(path, filters[i], command_option(c, filters[i]));
	if (since) {
		char ms[32];

		if (since_text(c, since, ms) < 0) {
			free(path);
			return NULL;
		}
		path = client_query(path, "since", ms);
	}
	if (name) {
		_cleanup_free_ char *one = client_path("/vms/", name, "");
		json_t *vm;

		if (client_get(c->client, one, &vm, &c->err) < 0) {
			free(path);
			return NULL;
		}
		path = client_query(path, "vm", json_string_value(json_object_get(vm, "id")));
		json_decref(vm);
	}
	return path;
}

static int run_list(struct command *c)
{
	_cleanup_free_ char *path = NULL;
	json_t *page, *items;
	int r;

	if (!command_client(c))
		return c->err.code;
	path = filtered(c, strdup("/events"));
	if (!path)
		return c->err.code ? c->err.code : error_set(&c->err, -ENOMEM, "out of memory");
	/* with a limit, so many and not all pages */
	if (command_option(c, "limit")) {
		r = client_get(c->client, path, &page, &c->err);
		if (r < 0)
			return r;
		items = json_incref(json_object_get(page, "items"));
		json_decref(page);
	} else {
		r = client_list(c->client, path, &items, &c->err);
		if (r < 0)
			return r;
	}
	if (c->json)
		print_json(items);
	else
		r = print_table(items, columns, ARRAY_SIZE(columns), &c->err);
	json_decref(items);
	return r;
}

struct watch {
	struct command *command;
	unsigned left; /* 0: no limit */
};

/* A line each, so that a pipe gets them at once. */
static int show(void *context, const json_t *event)
{
	struct watch *w = context;

	if (!event)
		return 0;
	if (w->command->json) {
		json_dumpf(event, stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		for (unsigned i = 1; i < ARRAY_SIZE(columns); i++) {
			_cleanup_free_ char *text = column_text(&columns[i], event);

			print_text(text ? text : "", stdout);
			putchar(i + 1 == ARRAY_SIZE(columns) ? '\n' : ' ');
		}
	}
	fflush(stdout);
	return w->left && !--w->left ? 1 : 0;
}

static int run_watch(struct command *c)
{
	const char *after = command_option(c, "after");
	struct watch w = { .command = c };
	struct client_stream s = { .after = -1, .each = show, .context = &w };
	_cleanup_free_ char *path = NULL;
	char *end = NULL;
	int r = command_number(c, "count", UINT32_MAX, &w.left);

	if (r < 0)
		return r;
	if (after) {
		s.after = strtoll(after, &end, 10);
		if (!isdigit((unsigned char)*after) || *end)
			return command_usage(c, "--after takes an event's id, not \"%s\"", after);
	}
	if (!command_client(c))
		return c->err.code;
	path = filtered(c, strdup("/events"));
	if (!path)
		return c->err.code ? c->err.code : error_set(&c->err, -ENOMEM, "out of memory");
	s.path = path;
	r = client_stream(c->client, &s, &c->err);
	return r < 0 ? r : CLI_OK;
}

#define FILTERS                                                                                    \
	{ "severity", WORD_CHOICE, "information|warning|error|critical|audit",                     \
	  "only of this severity or a worse one" },                                                \
		{ "kind", WORD_TEXT, "KIND", "only of this kind, like vm-started" },               \
	{                                                                                          \
		"vm", WORD_VM, "NAME", "only of this machine"                                      \
	}

/* clang-format off */
static const struct command_option list_options[] = {
	FILTERS,
	{ "since", WORD_TEXT, "TIME", "not older: 2h, or 2026-11-30T12:00:00Z" },
	{ "limit", WORD_TEXT, "N", "so many at most" },
	{ 0 },
};

static const struct command_option watch_options[] = {
	FILTERS,
	{ "after", WORD_TEXT, "ID", "begin after this event; without it, from now on" },
	{ "count", WORD_TEXT, "N", "end after so many" },
	{ 0 },
};

static const struct command_verb verbs[] = {
	{ .name = "list", .summary = "List events, the oldest first",
	  .examples = "partita event list --since 2h --vm web\n"
		      "partita event list --severity audit --json\n",
	  .options = list_options, .run = run_list },
	{ .name = "watch", .summary = "Print events as they happen",
	  .notes = "One line each; with --json one object a line.",
	  .examples = "partita event watch\npartita event watch --kind vm-started --json --count 1\n",
	  .options = watch_options, .run = run_watch },
};
/* clang-format on */

const struct command_noun noun_event = { "event", "What happened, and what happens", verbs,
					 ARRAY_SIZE(verbs) };
