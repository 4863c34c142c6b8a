// SPDX-License-Identifier: MIT
/* partita switch: virtual switches (docs/networks.md). */
#include "cli/output.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

static const struct column columns[] = {
	{ "NAME", "name", COLUMN_TEXT, false },
	{ "TYPE", "type", COLUMN_TEXT, false },
	{ "NOTES", "notes", COLUMN_TEXT, true },
};

static const struct column facts[] = {
	{ "Name", "name", COLUMN_TEXT, false },
	{ "Type", "type", COLUMN_TEXT, false },
	{ "Notes", "notes", COLUMN_TEXT, false },
	{ "Id", "id", COLUMN_TEXT, false },
};

static int run_list(struct command *c)
{
	return list_run(c, strdup("/switches"), columns, ARRAY_SIZE(columns));
}

static int run_show(struct command *c)
{
	_cleanup_free_ char *path = client_path("/switches/", c->words[0], "");

	return show_run(c, path, facts, ARRAY_SIZE(facts));
}

/* What the options say. */
static json_t *settings(const struct command *c)
{
	static const char *const options[] = { "name", "type", "notes" };
	json_t *o = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
		const char *value = command_option(c, options[i]);

		if (value)
			json_object_set_new(o, options[i], json_string(value));
	}
	return o;
}

static int run_create(struct command *c)
{
	struct client_request q = { .method = "POST", .path = "/switches" };
	json_t *made;
	int r;

	q.body = settings(c);
	json_object_set_new(q.body, "name", json_string(c->words[0]));
	r = ask_run(c, &q, &made);
	json_decref(q.body);
	if (r < 0)
		return r;
	if (c->json)
		print_json(made);
	else
		puts(json_string_value(json_object_get(made, "id")));
	json_decref(made);
	return 0;
}

static int run_set(struct command *c)
{
	_cleanup_free_ char *path = client_path("/switches/", c->words[0], "");
	struct client_request q = { .method = "PATCH", .path = path };
	int r;

	q.body = settings(c);
	if (json_object_size(q.body))
		r = ask_run(c, &q, NULL);
	else
		r = command_usage(c, "say what to change: --name, --type or --notes");
	json_decref(q.body);
	return r;
}

static int run_remove(struct command *c)
{
	_cleanup_free_ char *path = client_path("/switches/", c->words[0], "");

	return ask_run(c, &(struct client_request){ .method = "DELETE", .path = path }, NULL);
}

#define TYPE_OPTION                                                                                \
	{                                                                                          \
		"type", WORD_TEXT, "TYPE", "private, nat, internal or external (private)"          \
	}
#define NOTES_OPTION                                                                               \
	{                                                                                          \
		"notes", WORD_TEXT, "TEXT", "for people"                                           \
	}

static const struct command_option create_options[] = { TYPE_OPTION, NOTES_OPTION, { 0 } };

static const struct command_option set_options[] = {
	{ "name", WORD_TEXT, "NAME", "another name" },
	TYPE_OPTION,
	NOTES_OPTION,
	{ 0 },
};

#define ONE .words = "NAME", .words_min = 1, .words_max = 1, .word = WORD_TEXT

/* clang-format off */
static const struct command_verb verbs[] = {
	{ .name = "list", .summary = "List virtual switches", .list = true,
	  .examples = "partita switch list\n", .run = run_list },
	{ .name = "show", ONE, .summary = "Tell what a switch is",
	  .examples = "partita switch show 'Default Switch'\n", .run = run_show },
	{ .name = "create", ONE, .summary = "Make a switch; prints its id",
	  .examples = "partita switch create lab\npartita switch create out --type nat\n",
	  .options = create_options, .run = run_create },
	{ .name = "set", ONE, .summary = "Change a switch",
	  .examples = "partita switch set lab --notes 'for tests'\n",
	  .options = set_options, .run = run_set },
	{ .name = "remove", ONE, .summary = "Remove a switch that no machine uses",
	  .examples = "partita switch remove lab\n", .run = run_remove },
};
/* clang-format on */

const struct command_noun noun_switch = { "switch", "Virtual switches", verbs, ARRAY_SIZE(verbs) };
