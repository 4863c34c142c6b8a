/* SPDX-License-Identifier: MIT */
/*
 * The nouns and verbs that go through the management service, as tables: parsing, help,
 * completions and the option lists of the manuals all come from them, and options for settings from
 * the schemas (setting.h). A noun is one file that ends with its table.
 */
#pragma once

#include "cli/cli.h"
#include "cli/client.h"
#include "schema/schema.h"

#include <stdio.h>

/* What a word or an option's argument is: for completion. */
enum word_kind {
	WORD_NONE, /* for an option: a flag */
	WORD_TEXT,
	WORD_FILE,
	WORD_FOLDER,
	WORD_CHOICE, /* the option's `value` has the words: "tcp|unix" */
	WORD_VM,
	WORD_JOB,
	WORD_ROLE,
	WORD_IMAGE,
};

struct command_option {
	const char *name; /* without dashes; NULL ends the table */
	enum word_kind kind;
	const char *value; /* what help calls the argument; NULL for a flag */
	const char *help;
};

/* Which settings a verb takes as options. */
enum command_settings {
	SETTINGS_NONE,
	SETTINGS_ALL,    /* something is made */
	SETTINGS_CHANGE, /* without those that are only given when it is made */
};

struct command;

struct command_verb {
	const char *name;
	const char *words; /* "NAME...", for usage; NULL: none */
	unsigned words_min, words_max;
	enum word_kind word;
	const char *summary;
	const char *notes;    /* more for help and manual; NULL: none */
	const char *examples; /* lines that begin with "partita" */
	const struct command_option *options;
	enum command_settings settings;
	const struct schema_object *schema; /* of the settings */
	bool list;                          /* takes --watch */
	/* An exit status, or a negative errno with words in c->err. */
	int (*run)(struct command *c);
};

struct command_noun {
	const char *name, *summary;
	const struct command_verb *verbs;
	unsigned verb_count;
};

#define COMMAND_WORDS_MAX   1024
#define COMMAND_OPTIONS_MAX 256 /* given on one line */

/* One command line, parsed. Texts are borrowed from argv. */
struct command {
	const struct command_noun *noun;
	const struct command_verb *verb;
	unsigned word_count, option_count;
	const char *words[COMMAND_WORDS_MAX + 1];
	struct {
		const char *name, *text;
	} options[COMMAND_OPTIONS_MAX];
	bool json;
	json_t *settings;      /* what was said of settings: a merge patch; arrays: what to add */
	struct client *client; /* NULL until command_client */
	struct error err;
};

/* The last argument of --NAME, or NULL; a flag's is "". NAME is one of the verb's or of all. */
const char *command_option(const struct command *c, const char *name);
/* The next one from *at on, which begins as 0. NULL: no more. */
const char *command_option_next(const struct command *c, const char *name, unsigned *at);
bool command_flag(const struct command *c, const char *name);
/* The number that --NAME gives, or `fallback`. -EINVAL with words. */
int command_number(struct command *c, const char *name, unsigned max, unsigned *value);
/* Seconds, from 90, 90s, 5m, 2h, 1d. */
int parse_duration(const char *text, uint64_t *ret, struct error *err) _must_check_;

/* Connects, once. NULL with words in c->err. */
struct client *command_client(struct command *c);
/*
 * The same for verbs that make files, which must be on the service's own host: NULL with words when
 * that is another one. `what` is made, `instead` what can be done: "... run it there".
 */
struct client *command_client_here(struct command *c, const char *what, const char *instead);
/* For wrong usage: sets the words, and the exit status becomes 2. */
int command_usage(struct command *c, const char *format, ...) _printf_(2, 3);

/* argv[0] is the noun. The exit status. */
int command_run(const struct command_noun *noun, int argc, char **argv);
/* The exit status of an error. */
int command_exit(int code);
/* Prints "partita NOUN VERB: words"; the exit status. */
int command_fail(const struct command *c, const struct error *err);
/* Parses without running; for tests. 0; 1 when help was asked for; negative with words. */
int command_parse(struct command *c, int argc, char **argv);
void command_deinit(struct command *c);

/* All nouns, in the order of help. */
extern const struct command_noun *const command_nouns[];
extern const unsigned command_noun_count;
extern const struct command_noun noun_vm, noun_job, noun_event, noun_role, noun_host, noun_image,
	noun_switch;
/* The options that every verb has. */
extern const struct command_option command_common[];
extern const struct command_option command_list_options[];

/* Calls `each` with every option of a verb: its own, those of its settings, the common ones. */
void command_each_option(const struct command_verb *verb,
			 void (*each)(void *context, const struct command_option *o),
			 void *context);
void command_print_help(const struct command_noun *noun, const struct command_verb *verb,
			FILE *out);
void command_print_noun(const struct command_noun *noun, FILE *out);

/* The word of `words` that is nearest to one that was mistyped, when it is near enough. */
struct nearest {
	const char *word, *best;
	unsigned distance;
};
void nearest_try(struct nearest *n, const char *candidate);

/* completion.c: `partita completion bash|zsh|mdoc NOUN|options`. */
int cli_completion(int argc, char **argv);
