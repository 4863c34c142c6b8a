// SPDX-License-Identifier: MIT
/* See tool.h. Options: the verb's table becomes one for getopt_long, whose `val` is the index. */
#include "vhdtool/tool.h"

#include "lib/cleanup.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define OPTIONS_MAX 40
#define VAL_FIRST   256 /* above every character, so that '?' and 'h' stay what they are */

static volatile sig_atomic_t interrupted;
static bool wrong_usage, progress_shown;

int tool_fail(const char *verb, const struct error *err)
{
	fprintf(stderr, "vhd %s: %s\n", verb,
		err->message[0] ? err->message : strerror(-err->code));
	return TOOL_FAILED;
}

int tool_usage(struct error *err, const char *format, ...)
{
	char text[sizeof(err->message)];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	wrong_usage = true;
	return error_set(err, -EINVAL, "%s", text);
}

int tool_parse_size(const char *text, uint64_t *ret, struct error *err)
{
	static const char units[] = "KMGTP";
	char *end;
	double value = isdigit((unsigned char)*text) ? strtod(text, &end) : 0;
	uint64_t unit = 1;
	const char *u;

	if (value > 0) {
		u = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
		if (u) {
			unit = UINT64_C(1) << (10 * (u - units + 1));
			end++;
			if (!strcasecmp(end, "ib") || !strcasecmp(end, "b"))
				end += strlen(end);
		}
	}
	if (value <= 0 || *end || value * (double)unit >= 0x1p63)
		return error_set(err, -EINVAL,
				 "\"%s\" is not a size; write bytes, or a number with K, M, G or T",
				 text);
	*ret = (uint64_t)(value * (double)unit);
	return 0;
}

void tool_print_json(json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(value);
}

/* --- options --- */

static unsigned option_count(const struct tool_verb *verb)
{
	unsigned n = 0;

	while (verb->options && verb->options[n].name)
		n++;
	return n;
}

static int set_choice(const struct tool_option *o, const char *text, struct error *err)
{
	size_t length = strlen(text);

	for (const char *at = o->value; at; at = strchr(at, '|') ? strchr(at, '|') + 1 : NULL) {
		if (strcspn(at, "|") == length && !strncmp(at, text, length)) {
			*(const char **)o->target = text;
			return 0;
		}
	}
	return error_set(err, -EINVAL, "--%s is one of %s, not \"%s\"", o->name, o->value, text);
}

static int set_number(const struct tool_option *o, const char *text, struct error *err)
{
	char *end;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (!isdigit((unsigned char)*text) || *end || errno)
		return error_set(err, -EINVAL, "--%s: \"%s\" is not a number", o->name, text);
	*(uint64_t *)o->target = value;
	return 0;
}

static int set_list(const struct tool_option *o, const char *text, struct error *err)
{
	struct tool_list *l = o->target;

	if (l->count >= TOOL_LIST_MAX)
		return error_set(err, -EINVAL, "--%s: at most %d times", o->name, TOOL_LIST_MAX);
	l->items[l->count++] = text;
	return 0;
}

static int set_option(const struct tool_option *o, const char *text, struct error *err)
{
	int r;

	switch (o->kind) {
	case TOOL_FLAG:
		*(bool *)o->target = true;
		return 0;
	case TOOL_STRING:
	case TOOL_FILE:
	case TOOL_FOLDER:
		*(const char **)o->target = text;
		return 0;
	case TOOL_CHOICE:
		return set_choice(o, text, err);
	case TOOL_SIZE:
		r = tool_parse_size(text, o->target, err);
		if (r < 0)
			error_prefix(err, "--%s", o->name);
		return r;
	case TOOL_NUMBER:
		return set_number(o, text, err);
	case TOOL_LIST:
		return set_list(o, text, err);
	}
	return error_set(err, -EINVAL, "--%s cannot be used", o->name);
}

static void print_help(const struct tool_verb *verb, FILE *out)
{
	fprintf(out, "usage: vhd %s %s\n\n%s.\n", verb->name, verb->synopsis, verb->summary);
	if (option_count(verb))
		fputc('\n', out);
	for (unsigned i = 0; i < option_count(verb); i++) {
		const struct tool_option *o = &verb->options[i];
		char left[80];

		snprintf(left, sizeof(left), "--%s%s%s", o->name, o->value ? " " : "",
			 o->value ? o->value : "");
		if (o->letter)
			snprintf(left, sizeof(left), "-%c, --%s", o->letter, o->name);
		fprintf(out, "  %-24s %s\n", left, o->help);
	}
	if (verb->notes)
		fprintf(out, "\n%s", verb->notes);
}

/* Options with letters are flags. */
static int option_of_letter(const struct tool_verb *verb, int c)
{
	for (unsigned i = 0; i < option_count(verb); i++)
		if (c && c == verb->options[i].letter)
			return VAL_FIRST + (int)i;
	return c;
}

/* 0; 1 when help was asked for; or a negative errno. */
static int parse_options(const struct tool_verb *verb, int argc, char **argv, struct error *err)
{
	struct option longs[OPTIONS_MAX + 2] = { { "help", no_argument, NULL, 'h' } };
	char letters[2 * OPTIONS_MAX + 3] = ":h", *next = letters + 2;
	unsigned count = option_count(verb);
	int c, r;

	if (count > OPTIONS_MAX)
		return error_set(err, -EINVAL, "too many options in the table");
	for (unsigned i = 0; i < count; i++) {
		if (verb->options[i].letter)
			*next++ = verb->options[i].letter;
		longs[i + 1] = (struct option){
			.name = verb->options[i].name,
			.has_arg = verb->options[i].kind == TOOL_FLAG ? no_argument
								      : required_argument,
			.val = VAL_FIRST + (int)i,
		};
	}
	opterr = 0;
	while ((c = getopt_long(argc, argv, letters, longs, NULL)) >= 0) {
		if (c == 'h')
			return 1;
		c = option_of_letter(verb, c);
		if (c == ':')
			return error_set(err, -EINVAL, "%s wants an argument", argv[optind - 1]);
		if (c < VAL_FIRST)
			return error_set(err, -EINVAL, "there is no option %s", argv[optind - 1]);
		r = set_option(&verb->options[c - VAL_FIRST], optarg, err);
		if (r < 0)
			return r;
	}
	return 0;
}

int tool_run(const struct tool_verb *verb, int argc, char **argv)
{
	struct error err = { 0 };
	int r = parse_options(verb, argc, argv, &err);
	unsigned count = (unsigned)(argc - optind);

	if (r > 0) {
		print_help(verb, stdout);
		return TOOL_OK;
	}
	if (r >= 0 && (count < verb->arguments_min || count > verb->arguments_max))
		r = tool_usage(&err, "usage: vhd %s %s", verb->name, verb->synopsis);
	else if (r < 0)
		wrong_usage = true;
	if (r >= 0)
		r = verb->run(count, argv + optind, &err);
	if (r >= 0)
		return r;
	err.code = r;
	tool_fail(verb->name, &err);
	return wrong_usage ? TOOL_USAGE : TOOL_FAILED;
}

/* --- completion --- */

static void print_option_words(const struct tool_verb *verb)
{
	for (unsigned i = 0; i < option_count(verb); i++)
		printf("--%s ", verb->options[i].name);
	fputs("--help", stdout);
}

static void print_argument_case(const struct tool_verb *verb, const struct tool_option *o)
{
	printf("\t%s:--%s) ", verb->name, o->name);
	if (o->kind == TOOL_CHOICE) {
		fputs("COMPREPLY=($(compgen -W '", stdout);
		for (const char *c = o->value; *c; c++)
			putchar(*c == '|' ? ' ' : *c);
		fputs("' -- \"$word\"))", stdout);
	} else if (o->kind == TOOL_FILE) {
		fputs("COMPREPLY=($(compgen -f -- \"$word\"))", stdout);
	} else if (o->kind == TOOL_FOLDER || o->kind == TOOL_LIST) {
		fputs("COMPREPLY=($(compgen -d -- \"$word\"))", stdout);
	} else {
		fputs("COMPREPLY=()", stdout);
	}
	puts("; return ;;");
}

void tool_print_completion(const struct tool_verb *const *verbs, unsigned count)
{
	fputs("# bash completion of vhd(1), made by `vhd completion`\n"
	      "_vhd() {\n"
	      "\tlocal word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
	      "\tif [ \"$COMP_CWORD\" = 1 ]; then\n\t\tCOMPREPLY=($(compgen -W '",
	      stdout);
	for (unsigned i = 0; i < count; i++)
		if (!verbs[i]->hidden)
			printf("%s ", verbs[i]->name);
	fputs("--help --version' -- \"$word\"))\n\t\treturn\n\tfi\n"
	      "\tcase ${COMP_WORDS[1]}:$before in\n",
	      stdout);
	for (unsigned i = 0; i < count; i++)
		for (unsigned j = 0; j < option_count(verbs[i]); j++)
			if (verbs[i]->options[j].kind != TOOL_FLAG)
				print_argument_case(verbs[i], &verbs[i]->options[j]);
	fputs("\tesac\n\tcase ${COMP_WORDS[1]}:$word in\n", stdout);
	for (unsigned i = 0; i < count; i++) {
		printf("\t%s:-*) COMPREPLY=($(compgen -W '", verbs[i]->name);
		print_option_words(verbs[i]);
		puts("' -- \"$word\")) ;;");
	}
	fputs("\t*) COMPREPLY=($(compgen -f -- \"$word\")) ;;\n\tesac\n}\n"
	      "complete -o filenames -F _vhd vhd\n",
	      stdout);
}

/* --- images --- */

int tool_open(struct loop *loop, const char *path, bool read_only, const struct tool_image *image,
	      struct disk **ret, struct error *err)
{
	struct disk_open_options o = { .read_only = read_only, .follow = true };
	int fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);

	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"%s", path,
				   read_only ? "" : " for writing");
	if (image) {
		o.format = image->format;
		o.direct = image->direct;
		o.writes_block = image->server;
		o.alone = image->alone;
		o.tracking = image->tracking;
		o.follow = !image->alone;
		o.search = image->search.count ? image->search.items : NULL;
	}
	return disk_open(loop, fd, path, &o, ret, err);
}

/* --- long work --- */

static void on_signal(int signo)
{
	(void)signo;
	interrupted = 1;
}

void tool_catch_signals(void)
{
	const struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

bool tool_interrupted(void)
{
	return interrupted;
}

bool tool_progress(void *context, uint64_t done, uint64_t total)
{
	static unsigned last = 101;
	unsigned percent = total ? (unsigned)((double)done * 100 / (double)total) : 100;

	if (isatty(STDERR_FILENO) && (!progress_shown || percent != last)) {
		fprintf(stderr, "\r%s%s%3u %%", context ? (const char *)context : "",
			context ? ": " : "", percent);
		progress_shown = true;
		last = percent;
	}
	return !interrupted;
}

void tool_progress_end(void)
{
	if (progress_shown)
		fputc('\n', stderr);
	progress_shown = false;
}
