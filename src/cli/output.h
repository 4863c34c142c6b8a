/* SPDX-License-Identifier: MIT */
/*
 * What the verbs print. Tables for people, fitted to the terminal; in a pipe nothing is cut off.
 * Programs take --json, which is the service's own answer. Text from the service is shown without
 * control characters.
 */
#pragma once

#include "cli/command.h"

enum column_format {
	COLUMN_TEXT,
	COLUMN_NUMBER,
	COLUMN_MIB, /* memory */
	COLUMN_PERCENT,
	COLUMN_DURATION, /* seconds */
	COLUMN_TIME,     /* ISO 8601, shown in local time */
	COLUMN_LIST,     /* an array of texts */
};

struct column {
	const char *title;
	const char *path; /* into the item: "status.uptime_s" */
	enum column_format format;
	bool shrinks; /* is cut when the terminal is narrow */
};

/* What a path leads to; NULL: nothing. */
const json_t *json_at(const json_t *o, const char *path);
/* As a column shows it, to be freed; "" for nothing. NULL: no memory. */
char *column_text(const struct column *column, const json_t *item);

void print_json(const json_t *value);
int print_table(const json_t *items, const struct column *columns, unsigned count,
		struct error *err) _must_check_;
/* One thing: a line for each column that has something. */
void print_facts(const json_t *item, const struct column *columns, unsigned count);
/* Text without what would move the terminal's cursor. */
void print_text(const char *text, FILE *out);

/*
 * One request. *ret (NULL is fine: printed with --json) is the answer's body, NULL when it has
 * none.
 */
int ask_run(struct command *c, const struct client_request *q, json_t **ret);
/* The thing at `path`, as JSON or its facts. */
int show_run(struct command *c, const char *path, const struct column *columns, unsigned count);
/* A list at `path` (freed): once, or with --watch until interrupted. */
int list_run(struct command *c, char *path, const struct column *columns, unsigned count);

/*
 * Waits for a job as the command line says: --no-wait prints its id, --timeout bounds it; a bar on
 * a terminal, lines in a pipe. `what` is the machine's name, for messages.
 */
int job_follow(struct command *c, const json_t *job, const char *what, json_t **ret);
#define JOB_OPTIONS                                                                                \
	{ "no-wait", WORD_NONE, NULL, "print the job's id and do not wait for its end" },          \
	{                                                                                          \
		"timeout", WORD_TEXT, "TIME",                                                      \
			"wait so long at most, like 90 or 5m; the job goes on"                     \
	}
