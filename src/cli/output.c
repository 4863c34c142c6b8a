// SPDX-License-Identifier: MIT
/* See output.h. Tables are laid out by libsmartcols, which also makes control characters visible.
 */
#include "cli/output.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <inttypes.h>
#include <libsmartcols.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PATH_PART_MAX 64
#define WATCH_IDLE_MS 2000 /* figures change without events */
#define BAR_WIDTH     40

/* --- values --- */

const json_t *json_at(const json_t *o, const char *path)
{
	char part[PATH_PART_MAX];

	while (o && *path) {
		size_t n = strcspn(path, ".");

		if (n >= sizeof(part))
			return NULL;
		memcpy(part, path, n);
		part[n] = 0;
		o = json_object_get(o, part);
		path += n + (path[n] == '.');
	}
	return json_is_null(o) ? NULL : o;
}

static char *text_mib(json_int_t mib)
{
	char *text;
	int r;

	if (mib >= 1024 && mib % 1024 == 0)
		r = asprintf(&text, "%lld GiB", mib / 1024);
	else
		r = asprintf(&text, "%lld MiB", mib);
	return r < 0 ? NULL : text;
}

static char *text_duration(json_int_t s)
{
	char *text;
	int r;

	if (s <= 0)
		return strdup("");
	if (s >= 86400)
		r = asprintf(&text, "%lldd %02lldh", s / 86400, s / 3600 % 24);
	else if (s >= 3600)
		r = asprintf(&text, "%lldh %02lldm", s / 3600, s / 60 % 60);
	else if (s >= 60)
		r = asprintf(&text, "%lldm %02llds", s / 60, s % 60);
	else
		r = asprintf(&text, "%llds", s);
	return r < 0 ? NULL : text;
}

/* What is no such time is shown as it came. */
static char *text_time(const char *iso)
{
	struct tm utc = { 0 }, local;
	char *text;
	time_t t;

	if (sscanf(iso, "%4d-%2d-%2dT%2d:%2d:%2d", &utc.tm_year, &utc.tm_mon, &utc.tm_mday,
		   &utc.tm_hour, &utc.tm_min, &utc.tm_sec) != 6)
		return strdup(iso);
	utc.tm_year -= 1900;
	utc.tm_mon--;
	t = timegm(&utc);
	if (!localtime_r(&t, &local) || !(text = malloc(32)))
		return NULL;
	strftime(text, 32, "%Y-%m-%d %H:%M:%S", &local);
	return text;
}

static char *text_list(const json_t *array)
{
	size_t size = 1, at = 0, i;
	const json_t *v;
	char *text;

	json_array_foreach(array, i, v) size += json_string_length(v) + 2;
	text = calloc(1, size);
	json_array_foreach(array, i, v) if (text && json_is_string(v)) at +=
		(size_t)sprintf(text + at, "%s%s", at ? ", " : "", json_string_value(v));
	return text;
}

static char *text_plain(const json_t *v)
{
	char *text;

	if (json_is_string(v))
		return strdup(json_string_value(v));
	if (json_is_boolean(v))
		return strdup(json_is_true(v) ? "yes" : "no");
	if (json_is_integer(v))
		return asprintf(&text, "%lld", json_integer_value(v)) < 0 ? NULL : text;
	if (json_is_real(v))
		return asprintf(&text, "%.1f", json_real_value(v)) < 0 ? NULL : text;
	return v ? json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY) : strdup("");
}

char *column_text(const struct column *column, const json_t *item)
{
	const json_t *v = json_at(item, column->path);
	char *text;

	if (column->format == COLUMN_MIB && json_is_integer(v))
		return text_mib(json_integer_value(v));
	if (column->format == COLUMN_DURATION && json_is_number(v))
		return text_duration((json_int_t)json_number_value(v));
	if (column->format == COLUMN_TIME && json_is_string(v))
		return text_time(json_string_value(v));
	if (column->format == COLUMN_PERCENT && json_is_number(v))
		return asprintf(&text, "%.0f %%", json_number_value(v)) < 0 ? NULL : text;
	if (column->format == COLUMN_LIST && json_is_array(v))
		return text_list(v);
	return text_plain(v);
}

/* --- printing --- */

void print_json(const json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
	putchar('\n');
}

void print_text(const char *text, FILE *out)
{
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		/* also the second byte of what UTF-8 makes of C1 controls */
		if (c < ' ' || c == 0x7f || (c == 0xc2 && (unsigned char)text[1] < 0xa0))
			fprintf(out, "\\x%02x", c);
		else
			fputc(c, out);
	}
}

static bool is_number(enum column_format f)
{
	return f == COLUMN_NUMBER || f == COLUMN_MIB || f == COLUMN_PERCENT || f == COLUMN_DURATION;
}

static int add_line(struct libscols_table *table, const json_t *item, const struct column *columns,
		    unsigned count)
{
	struct libscols_line *line = scols_table_new_line(table, NULL);

	for (unsigned i = 0; line && i < count; i++) {
		char *text = column_text(&columns[i], item);

		if (!text || scols_line_refer_data(line, i, text) < 0)
			return -ENOMEM;
	}
	return line ? 0 : -ENOMEM;
}

int print_table(const json_t *items, const struct column *columns, unsigned count,
		struct error *err)
{
	struct libscols_table *table = scols_new_table();
	bool terminal = isatty(STDOUT_FILENO);
	const json_t *item;
	int r = table ? 0 : -ENOMEM;
	size_t i;

	if (table)
		scols_table_set_termforce(table, terminal ? SCOLS_TERMFORCE_ALWAYS
							  : SCOLS_TERMFORCE_NEVER);
	for (i = 0; i < count && r >= 0; i++)
		if (!scols_table_new_column(
			    table, columns[i].title, 0,
			    (is_number(columns[i].format) ? SCOLS_FL_RIGHT : 0) |
				    (columns[i].shrinks && terminal ? SCOLS_FL_TRUNC : 0)))
			r = -ENOMEM;
	json_array_foreach(items, i, item) if (r >= 0) r = add_line(table, item, columns, count);
	if (r >= 0 && scols_print_table(table) < 0)
		r = -EIO;
	scols_unref_table(table);
	return r < 0 ? error_errno(err, r, "cannot print the table") : 0;
}

void print_facts(const json_t *item, const struct column *columns, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		_cleanup_free_ char *text = column_text(&columns[i], item);

		if (!text || !*text)
			continue;
		printf("%-20s ", columns[i].title);
		print_text(text, stdout);
		putchar('\n');
	}
}

/* --- lists --- */

struct list_view {
	struct command *command;
	const char *path;
	const struct column *columns;
	unsigned count;
	json_t *shown; /* last */
};

static int list_print(struct list_view *v)
{
	struct command *c = v->command;
	json_t *items;
	int r = client_list(c->client, v->path, &items, &c->err);

	if (r < 0)
		return r;
	if (v->shown && json_equal(v->shown, items)) {
		json_decref(items);
		return 0;
	}
	if (v->shown && !c->json)
		fputs(isatty(STDOUT_FILENO) ? "\033[H\033[2J" : "\n", stdout);
	if (c->json && command_flag(c, "watch")) {
		json_dumpf(items, stdout, JSON_COMPACT);
		putchar('\n');
	} else if (c->json) {
		print_json(items);
	} else {
		r = print_table(items, v->columns, v->count, &c->err);
	}
	json_decref(v->shown);
	v->shown = items;
	fflush(stdout);
	return r;
}

static int list_changed(void *context, const json_t *event)
{
	(void)event;
	return list_print(context);
}

int list_run(struct command *c, char *path, const struct column *columns, unsigned count)
{
	_cleanup_free_ char *own = path;
	struct list_view v = { c, own, columns, count, NULL };
	struct client_stream s = { "/events", -1, WATCH_IDLE_MS, list_changed, &v };
	int r;

	if (!own)
		return error_set(&c->err, -ENOMEM, "out of memory");
	if (!command_client(c))
		return c->err.code;
	r = command_flag(c, "watch") ? client_stream(c->client, &s, &c->err) : list_print(&v);
	json_decref(v.shown);
	return r;
}

/* --- one thing --- */

int ask_run(struct command *c, const struct client_request *q, json_t **ret)
{
	struct client_answer a;
	int r;

	if (!command_client(c))
		return c->err.code;
	r = client_ask(c->client, q, &a, &c->err);
	if (r < 0)
		return r;
	if (ret)
		*ret = json_incref(a.body);
	else if (c->json && a.body)
		print_json(a.body);
	client_answer_deinit(&a);
	return 0;
}

int show_run(struct command *c, const char *path, const struct column *columns, unsigned count)
{
	json_t *thing;
	int r;

	if (!command_client(c))
		return c->err.code;
	r = client_get(c->client, path, &thing, &c->err);
	if (r < 0)
		return r;
	if (c->json)
		print_json(thing);
	else
		print_facts(thing, columns, count);
	json_decref(thing);
	return 0;
}

/* --- jobs --- */

struct follow {
	const char *what;
	int last; /* percent */
	bool terminal, drawn;
};

static void show_job(void *context, const json_t *job)
{
	struct follow *f = context;
	const char *type = json_string_value(json_object_get(job, "type"));
	const char *state = json_string_value(json_object_get(job, "state"));
	int percent = (int)json_integer_value(json_object_get(job, "percent"));

	percent = percent < 0 ? 0 : MIN(percent, 100);
	if (f->terminal) {
		int full = percent * BAR_WIDTH / 100;

		if (state && strcmp(state, "running")) {
			fputs(f->drawn ? "\r\033[K" : "", stderr);
			return;
		}
		fprintf(stderr, "\r[%.*s%*s] %3d %%  %s %s\033[K", full,
			"########################################", BAR_WIDTH - full, "", percent,
			type ? type : "job", f->what);
		f->drawn = true;
		return;
	}
	if (percent / 10 == f->last / 10 && f->last >= 0)
		return;
	f->last = percent;
	fprintf(stderr, "%s %s: %d %%\n", type ? type : "job", f->what, percent);
}

int job_follow(struct command *c, const json_t *job, const char *what, json_t **ret)
{
	struct follow f = { what, -1, isatty(STDERR_FILENO), false };
	struct client_wait w = { show_job, &f, 0 };
	const char *id = json_string_value(json_object_get(job, "id"));
	const char *timeout = command_option(c, "timeout");
	uint64_t seconds = 0;

	if (!id)
		return error_set(&c->err, -EPROTO, "the service's answer is no job");
	if (command_flag(c, "no-wait")) {
		if (!c->json)
			puts(id);
		if (ret)
			*ret = json_incref((json_t *)job);
		return 0;
	}
	if (timeout && parse_duration(timeout, &seconds, &c->err) < 0)
		return error_prefix(&c->err, "--timeout");
	w.timeout_s = (unsigned)MIN(seconds, (uint64_t)UINT32_MAX);
	return client_wait(c->client, id, &w, ret, &c->err);
}
