// SPDX-License-Identifier: MIT
/*
 * partita vm: machines of the management service. What makes and changes them is in vm_change.c,
 * the console in vm_console.c; the table of verbs is at the end.
 */
#include "cli/vm.h"
#include "cli/output.h"
#include "cli/setting.h"
#include "daemon/vm_settings.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* --- finding --- */

static const char *text_at(const json_t *o, const char *path)
{
	const char *text = json_string_value(json_at(o, path));

	return text ? text : "";
}

int vm_get(struct command *c, const char *name, struct client_answer *ret)
{
	_cleanup_free_ char *path = client_path("/vms/", name, "");

	if (!command_client(c))
		return c->err.code;
	return client_ask(c->client, &(struct client_request){ .method = "GET", .path = path }, ret,
			  &c->err);
}

/* A name without wildcards is the service's to find. */
static int machines_of_word(struct command *c, const char *word, json_t **ret)
{
	struct client_answer a;
	char *path;
	int r;

	if (!strpbrk(word, "*?")) {
		r = vm_get(c, word, &a);
		if (r < 0)
			return r;
		*ret = json_pack("[O]", a.body);
		client_answer_deinit(&a);
		return 0;
	}
	path = client_query(strdup("/vms?fields=id,name"), "pattern", word);
	r = client_list(c->client, path, ret, &c->err);
	free(path);
	if (r >= 0 && !json_array_size(*ret)) {
		json_decref(*ret);
		*ret = NULL;
		r = error_set(&c->err, -ENOENT, "no machine's name is like \"%s\"", word);
	}
	return r;
}

int vm_each_named(struct command *c,
		  int (*each)(struct command *c, const char *id, const char *name))
{
	int status = CLI_OK;

	if (!command_client(c))
		return c->err.code;
	for (unsigned i = 0; i < c->word_count; i++) {
		json_t *machines = NULL, *vm;
		size_t k;
		int r = machines_of_word(c, c->words[i], &machines);

		if (r < 0 && !status)
			status = command_fail(c, &c->err);
		else if (r < 0)
			command_fail(c, &c->err);
		json_array_foreach(r < 0 ? NULL : machines, k, vm)
		{
			c->err = (struct error){ 0 };
			r = each(c, text_at(vm, "id"), text_at(vm, "name"));
			if (r >= 0)
				continue;
			error_prefix(&c->err, "%s", text_at(vm, "name"));
			r = command_fail(c, &c->err);
			status = status ? status : r;
		}
		if (machines)
			json_decref(machines);
		c->err = (struct error){ 0 };
	}
	return status;
}

/* --- list and show --- */

static const struct column list_columns[] = {
	{ "NAME", "name", COLUMN_TEXT, true },
	{ "STATE", "state", COLUMN_TEXT, false },
	{ "CPUS", "settings.processors.count", COLUMN_NUMBER, false },
	{ "MEMORY", "settings.memory.startup", COLUMN_MIB, false },
	{ "CPU", "status.cpu_percent", COLUMN_PERCENT, false },
	{ "UPTIME", "status.uptime_s", COLUMN_DURATION, false },
	{ "HEARTBEAT", "status.guest.heartbeat", COLUMN_TEXT, false },
	{ "ADDRESSES", "status.guest.addresses", COLUMN_LIST, true },
	{ "GROUP", "settings.group", COLUMN_TEXT, true },
	{ "WORDS", "state_words", COLUMN_TEXT, true },
	{ "ID", "id", COLUMN_TEXT, true },
};

/* A table needs little of what a machine is. */
static char *fields_of_table(char *path)
{
	char fields[320] = "";

	for (size_t i = 0; i < ARRAY_SIZE(list_columns); i++) {
		size_t at = strlen(fields);

		snprintf(fields + at, sizeof(fields) - at, "%s%s", i ? "," : "",
			 list_columns[i].path);
	}
	return client_query(path, "fields", fields);
}

static int run_list(struct command *c)
{
	static const char *const filters[] = { "state", "group", "fields" };
	char *path = strdup("/vms");

	if (!c->json && command_option(c, "fields")) {
		free(path);
		return command_usage(c, "--fields goes with --json");
	}
	if (!c->json)
		path = fields_of_table(path);

	if (c->word_count)
		path = client_query(path, "pattern", c->words[0]);
	for (size_t i = 0; i < ARRAY_SIZE(filters); i++)
		if (command_option(c, filters[i]))
			path = client_query(path, filters[i], command_option(c, filters[i]));
	return list_run(c, path, list_columns, ARRAY_SIZE(list_columns));
}

static const struct column show_columns[] = {
	{ "Name", "name", COLUMN_TEXT, false },
	{ "Id", "id", COLUMN_TEXT, false },
	{ "State", "state", COLUMN_TEXT, false },
	{ "Since", "state_since", COLUMN_TIME, false },
	{ "Words", "state_words", COLUMN_TEXT, false },
	{ "Broken", "broken", COLUMN_TEXT, false },
	{ "Folder", "folder", COLUMN_TEXT, false },
	{ "Made by", "settings.creator", COLUMN_TEXT, false },
	{ "Job", "job", COLUMN_TEXT, false },
	{ "Uptime", "status.uptime_s", COLUMN_DURATION, false },
	{ "Memory assigned", "status.memory_assigned_mib", COLUMN_MIB, false },
	{ "Memory demand", "status.memory_demand_mib", COLUMN_MIB, false },
	{ "Memory status", "status.memory_status", COLUMN_TEXT, false },
	{ "Memory used", "status.memory_mib", COLUMN_MIB, false },
	{ "Processor use", "status.cpu_percent", COLUMN_PERCENT, false },
	{ "Process", "status.pid", COLUMN_NUMBER, false },
	{ "Heartbeat", "status.guest.heartbeat", COLUMN_TEXT, false },
	{ "Applications", "status.guest.application", COLUMN_TEXT, false },
	{ "Guest", "status.guest.name", COLUMN_TEXT, false },
	{ "System", "status.guest.os", COLUMN_TEXT, false },
	{ "System version", "status.guest.os_version", COLUMN_TEXT, false },
	{ "Addresses", "status.guest.addresses", COLUMN_LIST, false },
	{ "Allowed", "allowed", COLUMN_LIST, false },
};

static bool is_default(const struct schema_field *f, const json_t *v)
{
	switch (f->type) {
	case SCHEMA_BOOL:
		return json_is_true(v) == (f->fallback != 0);
	case SCHEMA_UINT32:
	case SCHEMA_INT64:
		return json_integer_value(v) == f->fallback;
	case SCHEMA_ENUM:
		return f->fallback >= 0 && f->fallback < (int64_t)f->name_count &&
		       json_is_string(v) && !strcmp(json_string_value(v), f->names[f->fallback]);
	case SCHEMA_STRING:
		return f->fallback_text && json_is_string(v) &&
		       !strcmp(json_string_value(v), f->fallback_text);
	case SCHEMA_OBJECT:
	case SCHEMA_ARRAY:
		break;
	}
	return false;
}

static void print_object(const struct schema_object *schema, const json_t *o, const char *above,
			 bool all);

static void print_setting(const struct schema_field *f, const json_t *v, const char *path, bool all)
{
	struct column column = { path, "v", COLUMN_TEXT, false };
	_cleanup_free_ char *text = NULL;
	char inner[256];
	json_t *item, *holder;
	size_t i;

	if (f->type == SCHEMA_OBJECT) {
		print_object(f->object, v, path, all);
		return;
	}
	if (f->type == SCHEMA_ARRAY) {
		json_array_foreach(v, i, item)
		{
			snprintf(inner, sizeof(inner), "%s[%zu]", path, i);
			print_setting(f->item, item, inner, all);
		}
		return;
	}
	if (!v || json_is_null(v) || (!all && is_default(f, v)))
		return;
	if (f->unit && !strcmp(f->unit, "MiB"))
		column.format = COLUMN_MIB;
	holder = json_pack("{s:O}", "v", v);
	text = column_text(&column, holder);
	json_decref(holder);
	printf("  %-38s ", path);
	print_text(text ? text : "", stdout);
	if (f->unit && column.format == COLUMN_TEXT)
		printf(" %s", f->unit);
	putchar('\n');
}

static void print_object(const struct schema_object *schema, const json_t *o, const char *above,
			 bool all)
{
	for (unsigned i = 0; i < schema->field_count; i++) {
		const struct schema_field *f = &schema->fields[i];
		char path[256];

		/* what is told and not set stands above, if it matters */
		if (f->when == SCHEMA_NOT_SET && !all)
			continue;
		snprintf(path, sizeof(path), "%s%s%s", above, *above ? "." : "", f->name);
		print_setting(f, json_object_get(o, f->name), path, all);
	}
}

void settings_print(const struct schema_object *schema, const json_t *settings, bool all)
{
	puts(all ? "Settings" : "Settings that are not their defaults");
	print_object(schema, settings, "", all);
}

static int run_show(struct command *c)
{
	json_t *all = c->json && c->word_count > 1 ? json_array() : NULL;
	int r = 0;

	for (unsigned i = 0; i < c->word_count && r >= 0; i++) {
		struct client_answer a;

		r = vm_get(c, c->words[i], &a);
		if (r < 0)
			break;
		if (all) {
			json_array_append(all, a.body);
		} else if (c->json) {
			print_json(a.body);
		} else {
			if (i)
				putchar('\n');
			print_facts(a.body, show_columns, ARRAY_SIZE(show_columns));
			settings_print(&vm_settings_schema, json_object_get(a.body, "settings"),
				       command_flag(c, "all"));
		}
		client_answer_deinit(&a);
	}
	if (all && r >= 0)
		print_json(all);
	if (all)
		json_decref(all);
	return r;
}

/* --- actions --- */

int vm_do(struct command *c, const char *id, const char *name, const char *action)
{
	_cleanup_free_ char *path = NULL, *rest = NULL;
	struct client_answer a;
	json_t *job = NULL;
	int r;

	if (asprintf(&rest, "/%s", action) < 0)
		return error_set(&c->err, -ENOMEM, "out of memory");
	path = client_path("/vms/", id, rest);
	r = client_ask(c->client, &(struct client_request){ .method = "POST", .path = path }, &a,
		       &c->err);
	if (r < 0)
		return r;
	r = job_follow(c, a.body, name, &job);
	client_answer_deinit(&a);
	if (r >= 0 && c->json)
		print_json(job);
	if (job)
		json_decref(job);
	return r;
}

static int act_on(struct command *c, const char *id, const char *name)
{
	return vm_do(c, id, name, c->verb->name);
}

/* How long the guest has is said to it too; then the job ends one way or the other. */
static int ask_guest(struct command *c, const char *id, const char *name)
{
	bool restart = !strcmp(c->verb->name, "restart");
	const char *within = command_option(c, "within"), *reason = command_option(c, "reason");
	_cleanup_free_ char *action = NULL;
	char number[24];
	uint64_t seconds;

	if (command_flag(c, "turn-off") && !within)
		return vm_do(c, id, name, restart ? "reset" : "stop");
	action = strdup(restart ? "restart" : "shut-down");
	if (within) {
		if (parse_duration(within, &seconds, &c->err) < 0)
			return error_prefix(&c->err, "--within");
		snprintf(number, sizeof(number), "%llu", (unsigned long long)seconds);
		action = client_query(action, "timeout", number);
	}
	if (command_flag(c, "force"))
		action = client_query(action, "force", "true");
	if (command_flag(c, "turn-off"))
		action = client_query(action, "turn_off", "true");
	if (reason)
		action = client_query(action, "reason", reason);
	return vm_do(c, id, name, action);
}

static int run_ask_guest(struct command *c)
{
	return vm_each_named(c, ask_guest);
}

static int run_action(struct command *c)
{
	return vm_each_named(c, act_on);
}

/* --- remove, rename, register --- */

static bool confirmed(const struct command *c, const char *name)
{
	char line[16];

	if (command_flag(c, "yes") || !isatty(STDIN_FILENO))
		return true;
	fputs("Remove ", stderr);
	print_text(name, stderr);
	fputs(" with its folder and all disks in it? [y/N] ", stderr);
	return fgets(line, sizeof(line), stdin) && (*line == 'y' || *line == 'Y');
}

static int remove_one(struct command *c, const char *id, const char *name)
{
	bool files = command_flag(c, "files");
	_cleanup_free_ char *path = client_path("/vms/", id, files ? "?files=true" : "");

	if (files && !confirmed(c, name))
		return error_set(&c->err, -ECANCELED, "it was not removed");
	return ask_run(c, &(struct client_request){ .method = "DELETE", .path = path }, NULL);
}

static int run_remove(struct command *c)
{
	return vm_each_named(c, remove_one);
}

int vm_patch(struct command *c, const char *id, json_t *patch, const char *etag, json_t **ret)
{
	_cleanup_free_ char *path = client_path("/vms/", id, "");
	_cleanup_free_ char *forced = client_path("/vms/", id, "?force=true");
	struct client_request q = { .method = "PATCH", .body = patch, .if_match = etag };
	struct client_answer a;
	int r;

	if (!command_client(c))
		return c->err.code;
	q.path = command_flag(c, "force") ? forced : path;
	r = client_ask(c->client, &q, &a, &c->err);
	if (r < 0)
		return r;
	if (a.status == 202)
		r = job_follow(c, a.body, id, NULL);
	if (r >= 0 && ret && a.status == 202)
		r = client_get(c->client, path, ret, &c->err);
	else if (r >= 0 && ret)
		*ret = json_incref(a.body);
	client_answer_deinit(&a);
	return r;
}

static int run_rename(struct command *c)
{
	json_t *patch = json_pack("{s:s}", "name", c->words[1]), *vm = NULL;
	int r = patch ? vm_patch(c, c->words[0], patch, NULL, &vm)
		      : command_usage(c, "the name is not UTF-8");

	if (r >= 0 && c->json)
		print_json(vm);
	json_decref(patch);
	if (vm)
		json_decref(vm);
	return r;
}

static int run_register(struct command *c)
{
	_cleanup_free_ char *folder = realpath(c->words[0], NULL);
	json_t *body = json_pack("{s:s,s:b}", "folder", folder ? folder : c->words[0], "new_id",
				 command_flag(c, "new-id"));
	struct client_request q = { .method = "POST", .path = "/vms/register", .body = body };
	json_t *vm;
	int r = body ? ask_run(c, &q, &vm) : command_usage(c, "the folder's name is not UTF-8");

	json_decref(body);
	if (r < 0)
		return r;
	if (c->json)
		print_json(vm);
	else
		puts(text_at(vm, "id"));
	json_decref(vm);
	return 0;
}

/* --- wait --- */

struct waiting {
	struct command *command;
	const char *name, *state;
	time_t end; /* CLOCK_MONOTONIC; 0: none */
};

static time_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec;
}

/* 1: it is in that state. */
static int look(void *context, const json_t *event)
{
	struct waiting *w = context;
	struct command *c = w->command;
	struct client_answer a;
	int r;

	(void)event;
	r = vm_get(c, w->name, &a);
	if (r < 0)
		return r;
	r = !strcmp(text_at(a.body, "state"), w->state);
	if (!r && w->end && now() >= w->end)
		r = error_set(&c->err, -ETIMEDOUT, "%s is still %s", w->name,
			      text_at(a.body, "state"));
	client_answer_deinit(&a);
	return r;
}

static int run_wait(struct command *c)
{
	const char *state = command_option(c, "state"), *timeout = command_option(c, "timeout");
	uint64_t seconds = 0;
	int r = 0;

	if (timeout && parse_duration(timeout, &seconds, &c->err) < 0)
		return error_prefix(&c->err, "--timeout");
	if (!command_client(c))
		return c->err.code;
	for (unsigned i = 0; i < c->word_count && r >= 0; i++) {
		struct waiting w = { c, c->words[i], state ? state : "off",
				     timeout ? now() + (time_t)seconds : 0 };
		/* The machine is looked at when the stream is open, so that nothing is missed. */
		struct client_stream s = { "/events", -1, 1000, look, &w };

		r = client_stream(c->client, &s, &c->err);
	}
	return r < 0 ? r : CLI_OK;
}

/* --- metering --- */

static int run_metering(struct command *c)
{
	bool reset = command_flag(c, "reset");
	_cleanup_free_ char *path = client_path("/vms/", c->words[0], "/metering");
	struct client_request q = { .method = reset ? "DELETE" : "GET", .path = path };
	json_t *used = NULL, *v;
	const char *key;
	int r = ask_run(c, &q, c->json ? NULL : &used);

	json_object_foreach(used, key, v)
	{
		struct column column = { key, key, COLUMN_TEXT, false };

		print_facts(used, &column, 1);
	}
	json_decref(used);
	return r;
}

/* --- verbs --- */

static const struct command_option list_options[] = {
	{ "state", WORD_CHOICE,
	  "off|starting|running|pausing|paused|paused-critical|resuming|saving|saved|stopping|"
	  "resetting|critical",
	  "only machines in this state" },
	{ "group", WORD_TEXT, "GROUP", "only machines of this group" },
	{ "fields", WORD_TEXT, "FIELDS", "with --json: only these, like id,name,memory.startup" },
	{ 0 },
};

static const struct command_option show_options[] = {
	{ "all", WORD_NONE, NULL, "settings that have their defaults too" },
	{ 0 },
};

static const struct command_option action_options[] = { JOB_OPTIONS, { 0 } };

static const struct command_option stop_options[] = {
	{ "force", WORD_NONE, NULL, "the guest ends its programs without asking them" },
	{ "turn-off", WORD_NONE, NULL,
	  "do not ask the guest; with --within: only when it has not done it by then" },
	{ "within", WORD_TEXT, "TIME", "the guest has so long (5m)" },
	{ "reason", WORD_TEXT, "TEXT", "words that the guest shows" },
	JOB_OPTIONS,
	{ 0 },
};

static const struct command_option guest_options[] = {
	{ "pool", WORD_CHOICE, "external|guest|auto|auto-external|auto-internal",
	  "which items (external, the host's)" },
	{ "overwrite", WORD_NONE, NULL, "copy: over a file that is there" },
	{ "create-path", WORD_NONE, NULL, "copy: make the folders that are missing" },
	JOB_OPTIONS,
	{ 0 },
};

static const struct command_option remove_options[] = {
	{ "files", WORD_NONE, NULL, "with its folder and the disks in it" },
	{ "yes", WORD_NONE, NULL, "do not ask" },
	{ 0 },
};

static const struct command_option register_options[] = {
	{ "new-id", WORD_NONE, NULL, "it is a copy: make another machine of it" },
	{ 0 },
};

static const struct command_option wait_options[] = {
	{ "state", WORD_CHOICE, "off|running|paused|paused-critical|saved|critical",
	  "the state (off)" },
	{ "timeout", WORD_TEXT, "TIME", "wait so long at most, like 90 or 5m" },
	{ 0 },
};

static const struct command_option metering_options[] = {
	{ "reset", WORD_NONE, NULL, "begin anew" },
	{ 0 },
};

static const struct command_option console_options[] = {
	{ "read-only", WORD_NONE, NULL, "look on, without typing" },
	{ 0 },
};

static const struct command_option create_options[] = {
	{ "folder", WORD_FOLDER, "FOLDER", "the machine's folder (its name, below the host's)" },
	{ "key", WORD_TEXT, "TEXT", "asked again with it within a day, the same machine is told" },
	{ "new-disk", WORD_TEXT, "SIZE", "an empty dynamic VHDX of its own, like 20G; repeatable" },
	{ "image", WORD_IMAGE, "NAME", "a disk and boot files from the catalogue (partita image)" },
	{ "differencing", WORD_NONE, NULL, "the disk has the image's as its parent; no copy" },
	{ "disk-size", WORD_TEXT, "SIZE", "of the image's disk, made larger" },
	{ "hostname", WORD_TEXT, "NAME", "first boot: its host name (the machine's name)" },
	{ "user", WORD_TEXT, "NAME", "first boot: a user who may do everything" },
	{ "ssh-key", WORD_FILE, "FILE", "first boot: a public key of that user; repeatable" },
	{ "start", WORD_NONE, NULL, "start it then" },
	JOB_OPTIONS,
	{ 0 },
};

#define FORCE_OPTION                                                                               \
	{                                                                                          \
		"force", WORD_NONE, NULL,                                                          \
			"while it runs: also what its guest holds, like a disc it has mounted"     \
	}
static const struct command_option set_options[] = {
	{ "remove-disk", WORD_TEXT, "DISK", "take this drive away, like 0:1; repeatable" },
	{ "remove-adapter", WORD_TEXT, "NAME", "take this network adapter away; repeatable" },
	FORCE_OPTION,
	JOB_OPTIONS,
	{ 0 },
};

static const struct command_option disc_options[] = {
	{ "drive", WORD_TEXT, "DRIVE", "which, like 0:1; not needed when there is one" },
	FORCE_OPTION,
	JOB_OPTIONS,
	{ 0 },
};

#define MANY .words = "NAME...", .words_min = 1, .words_max = COMMAND_WORDS_MAX, .word = WORD_VM
#define ONE  .words = "NAME", .words_min = 1, .words_max = 1, .word = WORD_VM
#define ACTION(verb, text, example)                                                                \
	{                                                                                          \
		.name = verb, MANY, .summary = text, .examples = example,                          \
		.options = action_options, .run = run_action,                                      \
	}

/* clang-format off */
static const struct command_verb verbs[] = {
	{ .name = "create", .words = "[NAME]", .words_max = 1, .word = WORD_TEXT,
	  .summary = "Make a machine", .settings = SETTINGS_ALL, .schema = &vm_settings_schema,
	  .notes = "A FILE that is in the present folder is named to the service by its full path; "
		   "another is taken relative to the machine's folder. Prints the machine's id.",
	  .examples = "partita vm create web --cpus 2 --memory 2G --new-disk 20G --kernel vmlinuz\n"
		      "partita vm create --name web --image debian-12 --user ada --ssh-key ~/.ssh/id_ed25519.pub\n"
		      "partita vm create db --disk /images/db.vhdx,location=0 --disk log.vhdx,read-only --adapter lan\n",
	  .options = create_options, .run = vm_run_create },
	{ .name = "list", .words = "[PATTERN]", .words_max = 1, .word = WORD_VM, .list = true,
	  .summary = "List machines",
	  .notes = "PATTERN is an id or a name, with * and ?.",
	  .examples = "partita vm list\npartita vm list 'web*' --state running --watch\n"
		      "partita vm list --json --fields id,name,state\n",
	  .options = list_options, .run = run_list },
	{ .name = "show", MANY, .summary = "Tell all about machines",
	  .examples = "partita vm show web\npartita vm show web --all\npartita vm show web --json\n",
	  .options = show_options, .run = run_show },
	{ .name = "set", ONE, .summary = "Change a machine's settings", .settings = SETTINGS_CHANGE,
	  .schema = &vm_settings_schema,
	  .notes = "Disks and adapters that are named are added; an adapter of the same name is changed. "
		   "COM ports replace those that there are. An empty text takes a setting away. Drives "
		   "come and go also while the machine runs.",
	  .examples = "partita vm set web --cpus 4 --memory 4G\n"
		      "partita vm set web --notes 'front of the shop' --automatic-start start\n"
		      "partita vm set web --disk data.vhdx --remove-disk 0:3\n",
	  .options = set_options, .run = vm_run_set },
	{ .name = "insert", .words = "NAME ISO", .words_min = 2, .words_max = 2, .word = WORD_VM,
	  .summary = "Put a disc into a machine's DVD drive, also while it runs",
	  .examples = "partita vm insert web debian-12.iso\n"
		      "partita vm insert web tools.iso --drive 0:5 --force\n",
	  .options = disc_options, .run = vm_run_insert },
	{ .name = "eject", ONE, .summary = "Take the disc out of a machine's DVD drive",
	  .examples = "partita vm eject web\npartita vm eject web --drive 0:5 --force\n",
	  .options = disc_options, .run = vm_run_eject },
	ACTION("start", "Start machines; a saved one is restored, a paused one goes on",
	       "partita vm start web\npartita vm start 'lab-*' --no-wait\n"),
	{ .name = "stop", MANY, .summary = "Ask guests to shut down, or turn machines off",
	  .notes = "The guest is asked, and has five minutes. When it refuses, cannot be asked or has "
		   "not done it, the machine runs on and the command fails.",
	  .examples = "partita vm stop web\npartita vm stop web --within 1m --turn-off\n"
		      "partita vm stop web --turn-off\n",
	  .options = stop_options, .run = run_ask_guest },
	{ .name = "restart", MANY, .summary = "Ask guests to restart, or reset machines",
	  .examples = "partita vm restart web\npartita vm restart web --turn-off\n",
	  .options = stop_options, .run = run_ask_guest },
	ACTION("pause", "Halt machines, in memory", "partita vm pause web\n"),
	ACTION("resume", "Let paused machines go on", "partita vm resume web\n"),
	ACTION("save", "Save machines to disk and stop them", "partita vm save web\n"),
	ACTION("discard", "Delete the saved state of machines, which are off then",
	       "partita vm discard web\n"),
	ACTION("reset", "Reset machines, as by their button", "partita vm reset web\n"),
	{ .name = "remove", MANY, .summary = "Forget machines that are off",
	  .notes = "Without --files the folder stays, and `partita vm register` takes it up again.",
	  .examples = "partita vm remove web\npartita vm remove web --files --yes\n",
	  .options = remove_options, .run = run_remove },
	{ .name = "rename", .words = "NAME NEW", .words_min = 2, .words_max = 2, .word = WORD_VM,
	  .summary = "Give a machine another name",
	  .examples = "partita vm rename web web-old\n", .run = run_rename },
	{ .name = "register", .words = "FOLDER", .words_min = 1, .words_max = 1,
	  .word = WORD_FOLDER, .summary = "Take up a machine's folder that is there already",
	  .examples = "partita vm register /srv/machines/web\n"
		      "partita vm register /backup/web --new-id\n",
	  .options = register_options, .run = run_register },
	{ .name = "console", ONE, .summary = "Be at a machine's serial console",
	  .notes = "Ctrl-A then: d leave, x power off, r reset, p pause, c continue, Ctrl-A a Ctrl-A "
		   "for the guest, h help. Several may be at one console.",
	  .examples = "partita vm console web\npartita vm console web --read-only\n",
	  .options = console_options, .run = vm_run_console },
	{ .name = "guest", .words = "info|get|set|delete|copy NAME [WORD...]", .words_min = 2,
	  .words_max = 5, .word = WORD_VM, .summary = "Facts, items and files of a guest",
	  .notes = "info NAME tells what the guest says of itself; get NAME [KEY] its items, or one; "
		   "set NAME KEY VALUE and delete NAME KEY change one; copy NAME FILE PATH makes a "
		   "file of the host one of the guest. A PATH that ends with / or \\ is a folder.",
	  .examples = "partita vm guest info web\npartita vm guest set web role frontend\n"
		      "partita vm guest copy web site.tar /srv/ --create-path\n",
	  .options = guest_options, .run = vm_run_guest },
	{ .name = "socket", .words = "NAME SERVICE", .words_min = 2, .words_max = 2, .word = WORD_VM,
	  .summary = "Be connected to a program of a guest",
	  .notes = "SERVICE is the vsock port where it listens, or a GUID. What is read from the input "
		   "goes there, what comes is written to the output.",
	  .examples = "partita vm socket web 22\n"
		      "ssh -o ProxyCommand='partita vm socket web 22' ada@web\n",
	  .run = vm_run_socket },
	{ .name = "wait", MANY, .summary = "Wait until machines are in a state",
	  .examples = "partita vm wait web --state off --timeout 10m\n",
	  .options = wait_options, .run = run_wait },
	{ .name = "metering", ONE, .summary = "Tell what a machine used of the host",
	  .notes = "It is measured while the setting `metering` is on.",
	  .examples = "partita vm set web --metering\npartita vm metering web\n"
		      "partita vm metering web --reset\n",
	  .options = metering_options, .run = run_metering },
};
/* clang-format on */

const struct command_noun noun_vm = { "vm", "Make, change, start and watch virtual machines", verbs,
				      ARRAY_SIZE(verbs) };
