// SPDX-License-Identifier: MIT
/* partita host: what the service runs on, and its settings. Starting and ending it: host_up.c. */
#include "cli/host.h"
#include "cli/output.h"
#include "cli/vm.h"
#include "daemon/host_settings.h"

#include "lib/cleanup.h"

#include <string.h>

static const struct column columns[] = {
	{ "Name", "name", COLUMN_TEXT, false },
	{ "Version", "version", COLUMN_TEXT, false },
	{ "Kernel", "kernel", COLUMN_TEXT, false },
	{ "Up since", "begun", COLUMN_TIME, false },
	{ "A user's own", "user", COLUMN_TEXT, false },
	{ "Processors", "processors.count", COLUMN_NUMBER, false },
	{ "Model", "processors.model", COLUMN_TEXT, false },
	{ "Memory", "memory.total_mib", COLUMN_MIB, false },
	{ "Memory available", "memory.available_mib", COLUMN_MIB, false },
	{ "Memory assigned", "memory.assigned_mib", COLUMN_MIB, false },
	{ "Machines", "machines.all", COLUMN_NUMBER, false },
	{ "Running", "machines.running", COLUMN_NUMBER, false },
	{ "Broken", "machines.broken", COLUMN_NUMBER, false },
	{ "State", "state_folder", COLUMN_TEXT, false },
	{ "TLS is served", "remote.listening", COLUMN_TEXT, false },
	{ "TLS port", "remote.port", COLUMN_NUMBER, false },
	{ "Fingerprint", "remote.fingerprint", COLUMN_TEXT, false },
	{ "TLS error", "remote.error", COLUMN_TEXT, false },
	{ "Isolation", "isolation", COLUMN_TEXT, false },
	{ "Hint", "hint", COLUMN_TEXT, false },
};

static const struct column engine_columns[] = {
	{ "ENGINE", "name", COLUMN_TEXT, false },
	{ "USABLE", "usable", COLUMN_TEXT, false },
	{ "WORDS", "reason", COLUMN_TEXT, true },
};

static int run_show(struct command *c)
{
	json_t *host;
	int r;

	if (!command_client(c))
		return c->err.code;
	r = client_get(c->client, "/host", &host, &c->err);
	if (r < 0)
		return r;
	if (c->json) {
		print_json(host);
	} else {
		print_facts(host, columns, ARRAY_SIZE(columns));
		settings_print(&host_settings_schema, json_object_get(host, "settings"),
			       command_flag(c, "all"));
		r = print_table(json_object_get(host, "engines"), engine_columns,
				ARRAY_SIZE(engine_columns), &c->err);
	}
	json_decref(host);
	return r;
}

static int run_set(struct command *c)
{
	struct client_request q = { .method = "PATCH", .path = "/host", .body = c->settings };

	if (!json_object_size(c->settings))
		return command_usage(c, "say what to change; `partita host set --help` lists it");
	return ask_run(c, &q, NULL);
}

static const struct command_option show_options[] = {
	{ "all", WORD_NONE, NULL, "settings that have their defaults too" },
	{ 0 },
};

static const struct command_option down_options[] = {
	{ "stop-machines", WORD_NONE, NULL, "do each machine's stop action first" },
	{ 0 },
};

/* clang-format off */
static const struct command_verb verbs[] = {
	{ .name = "show", .summary = "Tell about the host, its figures and settings",
	  .examples = "partita host show\npartita host show --json\n", .options = show_options,
	  .run = run_show },
	{ .name = "set", .summary = "Change the host's settings", .settings = SETTINGS_CHANGE,
	  .schema = &host_settings_schema,
	  .examples = "partita host set --memory-reserve 2G\npartita host set --remote-enabled\n",
	  .run = run_set },
	{ .name = "up", .summary = "Start a service of one's own, without being root",
	  .notes = "It keeps its state in $XDG_STATE_HOME/partita (~/.local/state/partita) and its "
		   "socket in $XDG_RUNTIME_DIR/partita, goes on when one logs out, and is ended by "
		   "`partita host down`. It says which engine there is for machines.",
	  .examples = "partita host up\n", .run = host_run_up },
	{ .name = "down", .summary = "End the service of one's own",
	  .notes = "Its machines go on, and the next one finds them, unless --stop-machines is "
		   "given.",
	  .examples = "partita host down\npartita host down --stop-machines\n",
	  .options = down_options, .run = host_run_down },
};
/* clang-format on */

const struct command_noun noun_host = { "host", "The host, and the service on it", verbs,
					ARRAY_SIZE(verbs) };
