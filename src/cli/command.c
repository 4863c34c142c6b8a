// SPDX-License-Identifier: MIT
/*
 * See command.h: parsing by the tables, help from them, exit statuses of errors. Options may stand
 * anywhere after the verb; "--" ends them.
 */
#include "cli/command.h"
#include "cli/setting.h"

#include "lib/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <strings.h>

#define HELP_COLUMN 34
#define HELP_WIDTH  100

const struct command_noun *const command_nouns[] = { &noun_vm,    &noun_job,  &noun_event,
						     &noun_role,  &noun_host, &noun_image,
						     &noun_switch };
const unsigned command_noun_count = ARRAY_SIZE(command_nouns);

const struct command_option command_common[] = {
	{ "host", WORD_TEXT, "PLACE", "which service: unix:PATH or https://[USER@]NAME[:PORT]" },
	{ "json", WORD_NONE, NULL, "print JSON, as the service gives it" },
	{ "help", WORD_NONE, NULL, "print this" },
	{ 0 },
};

const struct command_option command_list_options[] = {
	{ "watch", WORD_NONE, NULL, "go on, and print the list again whenever it changes" },
	{ 0 },
};

/* --- errors --- */

static const struct {
	int code, status;
} exits[] = {
	{ -EINVAL, CLI_USAGE },      { -ENOENT, CLI_NOT_FOUND },    { -EACCES, CLI_DENIED },
	{ -EBADFD, CLI_STATE },      { -EBUSY, CLI_STATE },         { -EEXIST, CLI_STATE },
	{ -ENOTUNIQ, CLI_STATE },    { -EUCLEAN, CLI_STATE },       { -ESTALE, CLI_STATE },
	{ -ECONNREFUSED, CLI_AWAY }, { -ETIMEDOUT, CLI_TIMEOUT },   { -ENOMEM, CLI_NO_ROOM },
	{ -ENOSPC, CLI_NO_ROOM },    { -ECANCELED, CLI_CANCELLED },
};

int command_exit(int code)
{
	for (size_t i = 0; i < ARRAY_SIZE(exits); i++)
		if (exits[i].code == code)
			return exits[i].status;
	return CLI_FAILED;
}

int command_fail(const struct command *c, const struct error *err)
{
	char option[SETTING_NAME_MAX] = "";

	if (err->property[0] && c->verb && c->verb->schema)
		setting_option(c->verb->schema, err->property, option);
	fprintf(stderr, "partita %s%s%s: %s", c->noun ? c->noun->name : "", c->verb ? " " : "",
		c->verb ? c->verb->name : "",
		err->message[0] ? err->message : strerror(-err->code));
	if (err->property[0] && !strstr(err->message, err->property))
		fprintf(stderr, " (%s)", err->property);
	if (option[0] && c->verb->settings)
		fprintf(stderr, "; it is --%s", option);
	fputc('\n', stderr);
	return command_exit(err->code);
}

int command_usage(struct command *c, const char *format, ...)
{
	char text[sizeof(c->err.message)];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return error_set(&c->err, -EINVAL, "%s", text);
}

/* --- what was said --- */

const char *command_option_next(const struct command *c, const char *name, unsigned *at)
{
	while (*at < c->option_count) {
		unsigned i = (*at)++;

		if (!strcmp(c->options[i].name, name))
			return c->options[i].text;
	}
	return NULL;
}

const char *command_option(const struct command *c, const char *name)
{
	const char *last = NULL, *text;
	unsigned at = 0;

	while ((text = command_option_next(c, name, &at)))
		last = text;
	return last;
}

bool command_flag(const struct command *c, const char *name)
{
	return command_option(c, name);
}

int command_number(struct command *c, const char *name, unsigned max, unsigned *value)
{
	const char *text = command_option(c, name);
	char *end;
	unsigned long long n;

	if (!text)
		return 0;
	errno = 0;
	n = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno || n > max)
		return command_usage(c, "--%s takes a number from 0 to %u, not \"%s\"", name, max,
				     text);
	*value = (unsigned)n;
	return 0;
}

int parse_duration(const char *text, uint64_t *ret, struct error *err)
{
	static const struct {
		const char *suffix;
		unsigned factor;
	} suffixes[] = { { "", 1 }, { "s", 1 }, { "m", 60 }, { "h", 3600 }, { "d", 86400 } };
	char *end = (char *)text;
	unsigned long long n = isdigit((unsigned char)*text) ? strtoull(text, &end, 10) : 0;

	for (size_t i = 0; end != text && n <= UINT32_MAX && i < ARRAY_SIZE(suffixes); i++) {
		if (strcmp(end, suffixes[i].suffix))
			continue;
		*ret = n * suffixes[i].factor;
		return 0;
	}
	return error_set(err, -EINVAL, "\"%s\" is no time; write seconds, or like 90s, 5m, 2h, 1d",
			 text);
}

struct client *command_client(struct command *c)
{
	if (!c->client && client_new(command_option(c, "host"), &c->client, &c->err) < 0)
		return NULL;
	return c->client;
}

struct client *command_client_here(struct command *c, const char *what, const char *instead)
{
	const char *elsewhere = command_client(c) ? client_elsewhere(c->client) : NULL;

	if (!elsewhere)
		return c->client;
	error_set(&c->err, -EOPNOTSUPP,
		  "%s by files of the service's own host, which is \"%s\": %s", what, elsewhere,
		  instead);
	return NULL;
}

/* --- options --- */

void command_each_option(const struct command_verb *verb,
			 void (*each)(void *context, const struct command_option *o), void *context)
{
	for (const struct command_option *o = verb->options; o && o->name; o++)
		each(context, o);
	if (verb->settings)
		setting_each(verb->schema, verb->settings, each, context);
	for (const struct command_option *o = command_list_options; verb->list && o->name; o++)
		each(context, o);
	for (const struct command_option *o = command_common; o->name; o++)
		each(context, o);
}

static const struct command_option *option_in(const struct command_option *o, const char *name)
{
	for (; o && o->name; o++)
		if (!strcmp(o->name, name))
			return o;
	return NULL;
}

static const struct command_option *option_find(const struct command_verb *v, const char *name)
{
	const struct command_option *o = option_in(v->options, name);

	if (!o && v->list)
		o = option_in(command_list_options, name);
	return o ? o : option_in(command_common, name);
}

static void try_option(void *context, const struct command_option *o)
{
	struct nearest *n = context;
	const char *before = n->best;

	nearest_try(n, o->name);
	/* names of settings live only until the next */
	if (n->best != before)
		n->best = strdup(n->best);
}

static int no_option(struct command *c, const char *name)
{
	struct nearest n = { .word = name };
	int r;

	command_each_option(c->verb, try_option, &n);
	if (n.best)
		r = command_usage(c, "there is no option --%s; did you mean --%s?", name, n.best);
	else
		r = command_usage(c, "there is no option --%s; `partita %s %s --help` lists them",
				  name, c->noun->name, c->verb->name);
	free((char *)n.best);
	return r;
}

/* What the argument of a choice may be: "a|b|c". */
static bool is_choice(const char *value, const char *text)
{
	size_t n = strlen(text);

	for (const char *at = value; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL)
		if (strcspn(at, "|") == n && !strncmp(at, text, n))
			return true;
	return false;
}

static int option_given(struct command *c, const struct command_option *o, const char *text)
{
	if (o->kind == WORD_CHOICE && !is_choice(o->value, text))
		return command_usage(c, "--%s is one of %s, not \"%s\"", o->name, o->value, text);
	if (c->option_count >= COMMAND_OPTIONS_MAX)
		return command_usage(c, "these are too many options");
	c->options[c->option_count].name = o->name;
	c->options[c->option_count++].text = text;
	return 0;
}

/* The option at argv[0], and the argument that may follow. How many were used, or negative. */
static int parse_option(struct command *c, int argc, char **argv)
{
	char *equals = strchr(argv[0], '=');
	_cleanup_free_ char *name =
		strndup(argv[0] + 2, equals ? (size_t)(equals - argv[0]) - 2 : strlen(argv[0]));
	const struct command_option *o = option_find(c->verb, name ? name : "");
	const char *text = equals ? equals + 1 : NULL;
	bool flag, setting;
	int used = 1, r;

	setting = !o && c->verb->settings &&
		  !setting_find(c->verb->schema, c->verb->settings, name ? name : "", &flag);
	if (!o && !setting)
		return no_option(c, name ? name : "");
	if (o)
		flag = o->kind == WORD_NONE;
	if (flag && text && (o || !strncmp(name, "no-", 3)))
		return command_usage(c, "--%s takes no argument", name);
	if (!flag && !text) {
		if (argc < 2)
			return command_usage(c, "--%s wants an argument", name);
		text = argv[1];
		used = 2;
	}
	r = o ? option_given(c, o, text ? text : "")
	      : setting_apply(c->verb->schema, c->settings, name, text ? text : "", &c->err);
	return r < 0 ? r : used;
}

/* --- verbs --- */

static const struct command_verb *verb_find(const struct command_noun *n, const char *name)
{
	for (unsigned i = 0; i < n->verb_count; i++)
		if (!strcmp(n->verbs[i].name, name))
			return &n->verbs[i];
	return NULL;
}

static int no_verb(struct command *c, const char *name)
{
	struct nearest n = { .word = name };
	char list[256] = "";

	for (unsigned i = 0; i < c->noun->verb_count; i++) {
		size_t at = strlen(list);

		nearest_try(&n, c->noun->verbs[i].name);
		snprintf(list + at, sizeof(list) - at, "%s%s", i ? ", " : "",
			 c->noun->verbs[i].name);
	}
	if (n.best)
		return command_usage(c, "there is no verb \"%s\"; did you mean \"%s\"?", name,
				     n.best);
	return command_usage(c, "there is no verb \"%s\"; there are %s", name, list);
}

static int check_words(struct command *c)
{
	const struct command_verb *v = c->verb;
	const char *what = v->words ? v->words : "no words";

	if (c->word_count < v->words_min)
		return command_usage(c, "say %s; `partita %s %s --help` tells more", what,
				     c->noun->name, v->name);
	if (c->word_count > v->words_max)
		return command_usage(c, "\"%s\" is one word too many: it takes %s",
				     c->words[v->words_max], what);
	return 0;
}

static bool asks_for_help(const char *word)
{
	return !strcmp(word, "-h") || !strcmp(word, "--help");
}

static int parse_words(struct command *c, int argc, char **argv)
{
	bool options = true;

	for (int i = 0; i < argc;) {
		int used = 1;

		if (options && !strcmp(argv[i], "--")) {
			options = false;
		} else if (options && asks_for_help(argv[i])) {
			return 1;
		} else if (options && argv[i][0] == '-' && argv[i][1] == '-') {
			used = parse_option(c, argc - i, argv + i);
		} else if (options && argv[i][0] == '-' && argv[i][1]) {
			return command_usage(c, "there is no option %s; all have two dashes",
					     argv[i]);
		} else if (c->word_count >= COMMAND_WORDS_MAX) {
			return command_usage(c, "these are too many words");
		} else {
			c->words[c->word_count++] = argv[i];
		}
		if (used < 0)
			return used;
		i += used;
	}
	return check_words(c);
}

int command_parse(struct command *c, int argc, char **argv)
{
	int r;

	c->settings = json_object();
	if (argc < 2)
		return command_usage(c, "a verb is missing; `partita %s --help` lists them",
				     c->noun->name);
	if (asks_for_help(argv[1]) || !strcmp(argv[1], "help"))
		return 1;
	c->verb = verb_find(c->noun, argv[1]);
	if (!c->verb)
		return no_verb(c, argv[1]);
	r = parse_words(c, argc - 2, argv + 2);
	c->json = command_flag(c, "json");
	return r;
}

void command_deinit(struct command *c)
{
	client_free(c->client);
	json_decref(c->settings);
	c->client = NULL;
	c->settings = NULL;
}

int command_run(const struct command_noun *noun, int argc, char **argv)
{
	struct command c = { .noun = noun };
	int r = command_parse(&c, argc, argv);

	if (r > 0) {
		if (c.verb)
			command_print_help(noun, c.verb, stdout);
		else
			command_print_noun(noun, stdout);
		r = CLI_OK;
	} else if (r >= 0) {
		r = c.verb->run(&c);
	}
	if (r >= 0 && (fflush(stdout) || ferror(stdout)))
		r = error_errno(&c.err, -EIO, "cannot write the output");
	if (r < 0)
		r = command_fail(&c, &c.err);
	command_deinit(&c);
	return r;
}

/* --- help --- */

/* Words of the text in a column of their own. */
static void print_wrapped(const char *text, int column, FILE *out)
{
	int at = column;

	while (*text) {
		int n = (int)strcspn(text, " ");

		if (at > column && at + 1 + n > HELP_WIDTH) {
			fprintf(out, "\n%*s", column, "");
			at = column;
		}
		at += fprintf(out, "%s%.*s", at > column ? " " : "", n, text);
		text += n;
		text += strspn(text, " ");
	}
	fputc('\n', out);
}

static void print_option(void *context, const struct command_option *o)
{
	FILE *out = context;
	int n;

	if (!strncmp(o->name, "no-", 3) && !strcmp(o->help, SETTING_NOT))
		return;
	n = fprintf(out, "  --%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");

	if (n + 2 > HELP_COLUMN) {
		fputc('\n', out);
		n = 0;
	}
	fprintf(out, "%*s", HELP_COLUMN - n, "");
	print_wrapped(o->help, HELP_COLUMN, out);
}

void command_print_help(const struct command_noun *noun, const struct command_verb *v, FILE *out)
{
	fprintf(out, "usage: partita %s %s%s%s [OPTION...]\n\n%s.\n", noun->name, v->name,
		v->words ? " " : "", v->words ? v->words : "", v->summary);
	if (v->notes) {
		fputc('\n', out);
		print_wrapped(v->notes, 0, out);
	}
	fputc('\n', out);
	command_each_option(v, print_option, out);
	if (v->settings)
		fputs("\nA setting that is on is switched off with --no- before its name.\n", out);
	fprintf(out, "\nExamples:\n");
	for (const char *e = v->examples; e && *e;) {
		int n = (int)strcspn(e, "\n");

		fprintf(out, "  %.*s\n", n, e);
		e += n + (e[n] == '\n');
	}
	fprintf(out, "\npartita-%s(1) is the manual.\n", noun->name);
}

void command_print_noun(const struct command_noun *noun, FILE *out)
{
	fprintf(out, "usage: partita %s VERB [OPTION...]\n\n%s.\n\n", noun->name, noun->summary);
	for (unsigned i = 0; i < noun->verb_count; i++)
		fprintf(out, "  %-14s%s\n", noun->verbs[i].name, noun->verbs[i].summary);
	fprintf(out, "\n`partita %s VERB --help` tells more; partita-%s(1) is the manual.\n",
		noun->name, noun->name);
}
