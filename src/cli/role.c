// SPDX-License-Identifier: MIT
/* partita role: who may do what (docs/rest.md, roles and assignments). */
#include "cli/output.h"

#include "lib/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

static const struct column columns[] = {
	{ "NAME", "name", COLUMN_TEXT, false },
	{ "BUILT IN", "built_in", COLUMN_TEXT, false },
	{ "DESCRIPTION", "description", COLUMN_TEXT, true },
};

static const struct column facts[] = {
	{ "Name", "name", COLUMN_TEXT, false },
	{ "Built in", "built_in", COLUMN_TEXT, false },
	{ "Description", "description", COLUMN_TEXT, false },
	{ "Operations", "operations", COLUMN_LIST, false },
	{ "On one's own", "own_operations", COLUMN_LIST, false },
};

static const struct column assignment_columns[] = {
	{ "ID", "id", COLUMN_NUMBER, false },    { "USER", "user", COLUMN_TEXT, true },
	{ "GROUP", "group", COLUMN_TEXT, true }, { "ROLE", "role", COLUMN_TEXT, false },
	{ "SCOPE", "scope", COLUMN_TEXT, true },
};

static const struct column operation_columns[] = {
	{ "NAME", "name", COLUMN_TEXT, false },
	{ "DESCRIPTION", "description", COLUMN_TEXT, true },
};

static int run_list(struct command *c)
{
	return list_run(c, strdup("/roles"), columns, ARRAY_SIZE(columns));
}

static int run_operations(struct command *c)
{
	return list_run(c, strdup("/operations"), operation_columns, ARRAY_SIZE(operation_columns));
}

static int run_assignments(struct command *c)
{
	return list_run(c, strdup("/assignments"), assignment_columns,
			ARRAY_SIZE(assignment_columns));
}

static int run_show(struct command *c)
{
	_cleanup_free_ char *path = client_path("/roles/", c->words[0], "");

	return show_run(c, path, facts, ARRAY_SIZE(facts));
}

static json_t *operations(const struct command *c, const char *option)
{
	json_t *list = json_array();
	const char *name;
	unsigned at = 0;

	while ((name = command_option_next(c, option, &at)))
		json_array_append_new(list, json_string(name));
	return list;
}

static int run_set(struct command *c)
{
	_cleanup_free_ char *path = client_path("/roles/", c->words[0], "");
	json_t *role;
	int r;

	if (!command_option(c, "operation") && !command_option(c, "own-operation"))
		return command_usage(c, "say what it may do with --operation; `partita role "
					"operations` lists what there is");
	role = json_pack("{s:o}", "operations", operations(c, "operation"));
	if (command_option(c, "own-operation"))
		json_object_set_new(role, "own_operations", operations(c, "own-operation"));
	if (command_option(c, "description"))
		json_object_set_new(role, "description",
				    json_string(command_option(c, "description")));
	r = ask_run(c, &(struct client_request){ .method = "PUT", .path = path, .body = role },
		    NULL);
	json_decref(role);
	return r;
}

static int run_remove(struct command *c)
{
	_cleanup_free_ char *path = client_path("/roles/", c->words[0], "");

	return ask_run(c, &(struct client_request){ .method = "DELETE", .path = path }, NULL);
}

/* A machine's name is turned into its id, which stays. */
static int scope_text(struct command *c, const char *scope, char **ret)
{
	_cleanup_free_ char *path = NULL;
	json_t *vm;
	int r;

	if (!scope || !strcmp(scope, "host") || !strncmp(scope, "group:", 6)) {
		*ret = strdup(scope ? scope : "host");
		return *ret ? 0 : error_set(&c->err, -ENOMEM, "out of memory");
	}
	if (strncmp(scope, "vm:", 3))
		return command_usage(c, "--scope: say host, group:NAME or vm:NAME, not \"%s\"",
				     scope);
	path = client_path("/vms/", scope + 3, "");
	r = client_get(c->client, path, &vm, &c->err);
	if (r < 0)
		return r;
	if (asprintf(ret, "vm:%s", json_string_value(json_object_get(vm, "id"))) < 0)
		r = error_set(&c->err, -ENOMEM, "out of memory");
	json_decref(vm);
	return r;
}

static int run_assign(struct command *c)
{
	const char *user = command_option(c, "user"), *group = command_option(c, "group");
	_cleanup_free_ char *scope = NULL;
	struct client_request q = { .method = "POST", .path = "/assignments" };
	json_t *given;
	int r;

	if (!user == !group)
		return command_usage(c, "say either --user or --group");
	if (!command_client(c))
		return c->err.code;
	r = scope_text(c, command_option(c, "scope"), &scope);
	if (r < 0)
		return r;
	q.body = json_pack("{s:s,s:s,s:s}", user ? "user" : "group", user ? user : group, "role",
			   c->words[0], "scope", scope);
	if (!q.body)
		return command_usage(c, "the names are not UTF-8");
	r = ask_run(c, &q, &given);
	json_decref(q.body);
	if (r < 0)
		return r;
	if (c->json)
		print_json(given);
	else
		printf("%lld\n", json_integer_value(json_object_get(given, "id")));
	json_decref(given);
	return 0;
}

static int run_unassign(struct command *c)
{
	_cleanup_free_ char *path = client_path("/assignments/", c->words[0], "");

	if (!isdigit((unsigned char)c->words[0][0]))
		return command_usage(c, "say the assignment's number; `partita role assignments` "
					"tells it");
	return ask_run(c, &(struct client_request){ .method = "DELETE", .path = path }, NULL);
}

static const struct command_option set_options[] = {
	{ "operation", WORD_TEXT, "NAME", "what it may do; repeatable" },
	{ "own-operation", WORD_TEXT, "NAME",
	  "what one may do to machines that one made by it; repeatable" },
	{ "description", WORD_TEXT, "TEXT", "for people" },
	{ 0 },
};

static const struct command_option assign_options[] = {
	{ "user", WORD_TEXT, "NAME", "to this user of the host" },
	{ "group", WORD_TEXT, "NAME", "or to this group of the host" },
	{ "scope", WORD_TEXT, "SCOPE", "host, group:NAME of machines, or vm:NAME (host)" },
	{ 0 },
};

#define ROLE .words = "ROLE", .words_min = 1, .words_max = 1, .word = WORD_ROLE

/* clang-format off */
static const struct command_verb verbs[] = {
	{ .name = "list", .summary = "List roles", .list = true, .examples = "partita role list\n",
	  .run = run_list },
	{ .name = "show", ROLE, .summary = "Tell what a role may do",
	  .examples = "partita role show operator\n", .run = run_show },
	{ .name = "operations", .summary = "List what roles are made of", .list = true,
	  .examples = "partita role operations\n", .run = run_operations },
	{ .name = "set", ROLE, .summary = "Make a role, or change one that is not built in",
	  .examples = "partita role set backup --operation view-vm --operation checkpoint\n",
	  .options = set_options, .run = run_set },
	{ .name = "remove", ROLE, .summary = "Remove a role that is not built in",
	  .examples = "partita role remove backup\n", .run = run_remove },
	{ .name = "assign", ROLE, .summary = "Give a role to a user or a group; prints its number",
	  .examples = "partita role assign operator --user ada --scope group:lab\n"
		      "partita role assign viewer --group staff\n",
	  .options = assign_options, .run = run_assign },
	{ .name = "unassign", .words = "NUMBER", .words_min = 1, .words_max = 1, .word = WORD_TEXT,
	  .summary = "Take a role away again", .examples = "partita role unassign 3\n",
	  .run = run_unassign },
	{ .name = "assignments", .summary = "List who has which role", .list = true,
	  .examples = "partita role assignments\n", .run = run_assignments },
};
/* clang-format on */

const struct command_noun noun_role = { "role", "Who may do what", verbs, ARRAY_SIZE(verbs) };
