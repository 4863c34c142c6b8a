// SPDX-License-Identifier: MIT
/*
 * partita completion: what shells need, and the option lists of the manuals, from the tables of
 * nouns and verbs. Names of machines and the like are asked from the service when Tab is pressed.
 */
#include "cli/command.h"
#include "cli/setting.h"

#include <getopt.h>
#include <string.h>

const char *const completion_words[] = { "bash", "zsh", "options", "mdoc", NULL };

/* What lists the names of a kind: a noun that can `list --json`, and the member. */
static const struct {
	enum word_kind kind;
	const char *noun, *member;
} listed[] = {
	{ WORD_VM, "vm", "name" },
	{ WORD_JOB, "job", "id" },
	{ WORD_ROLE, "role", "name" },
	{ WORD_IMAGE, "image", "name" },
};

static const struct command_noun *noun_find(const char *name)
{
	for (unsigned i = 0; i < command_noun_count; i++)
		if (!strcmp(command_nouns[i]->name, name))
			return command_nouns[i];
	return NULL;
}

/* --- shell --- */

static void print_name(void *context, const struct command_option *o)
{
	fprintf(context, "--%s ", o->name);
}

static void print_answer(enum word_kind kind, const char *value, FILE *out)
{
	switch (kind) {
	case WORD_FILE:
		fputs("_partita_files -f", out);
		return;
	case WORD_FOLDER:
		fputs("_partita_files -d", out);
		return;
	case WORD_CHOICE:
		fputs("_partita_words '", out);
		for (const char *c = value; *c; c++)
			fputc(*c == '|' ? ' ' : *c, out);
		fputc('\'', out);
		return;
	case WORD_NONE:
	case WORD_TEXT:
		fputc(':', out);
		return;
	case WORD_VM:
	case WORD_JOB:
	case WORD_ROLE:
	case WORD_IMAGE:
		break;
	}
	for (size_t i = 0; i < ARRAY_SIZE(listed); i++)
		if (listed[i].kind == kind)
			fprintf(out, "_partita_names %s %s", listed[i].noun, listed[i].member);
}

struct argument {
	const struct command_noun *noun;
	const struct command_verb *verb;
	FILE *out;
};

static void print_argument(void *context, const struct command_option *o)
{
	const struct argument *a = context;

	if (o->kind == WORD_NONE)
		return;
	fprintf(a->out, "\t%s:%s:--%s) ", a->noun->name, a->verb->name, o->name);
	print_answer(o->kind, o->value, a->out);
	fputs("; return ;;\n", a->out);
}

static void each_verb(void (*fn)(const struct argument *a), FILE *out)
{
	for (unsigned i = 0; i < command_noun_count; i++)
		for (unsigned j = 0; j < command_nouns[i]->verb_count; j++)
			fn(&(struct argument){ command_nouns[i], &command_nouns[i]->verbs[j],
					       out });
}

static void print_arguments(const struct argument *a)
{
	command_each_option(a->verb, print_argument, (void *)a);
}

static void print_options(const struct argument *a)
{
	fprintf(a->out, "\t%s:%s:-*) _partita_words '", a->noun->name, a->verb->name);
	command_each_option(a->verb, print_name, a->out);
	fputs("' ;;\n", a->out);
}

static void print_word(const struct argument *a)
{
	if (a->verb->word == WORD_NONE || a->verb->word == WORD_TEXT)
		return;
	fprintf(a->out, "\t%s:%s:*) ", a->noun->name, a->verb->name);
	print_answer(a->verb->word, NULL, a->out);
	fputs(" ;;\n", a->out);
}

/* The verbs that do without the service have a table for getopt_long, or none. */
static void print_plain(FILE *out)
{
	for (unsigned i = 0; i < cli_verb_count; i++) {
		fprintf(out, "\t%s:*:-*) _partita_words '", cli_verbs[i].name);
		for (const struct option *o = cli_verbs[i].options; o && o->name; o++)
			fprintf(out, "--%s ", o->name);
		fputs("--help' ;;\n", out);
		fprintf(out, "\t%s:*) _partita_files -f ;;\n", cli_verbs[i].name);
	}
}

static void print_verbs(FILE *out)
{
	for (unsigned i = 0; i < command_noun_count; i++) {
		fprintf(out, "\t\t%s) _partita_words '", command_nouns[i]->name);
		for (unsigned j = 0; j < command_nouns[i]->verb_count; j++)
			fprintf(out, "%s ", command_nouns[i]->verbs[j].name);
		fputs("--help' ;;\n", out);
	}
	for (unsigned i = 0; i < cli_verb_count; i++) {
		if (!cli_verbs[i].words)
			continue;
		fprintf(out, "\t\t%s) _partita_words '", cli_verbs[i].name);
		for (const char *const *w = cli_verbs[i].words; *w; w++)
			fprintf(out, "%s ", *w);
		fputs("--help' ;;\n", out);
	}
}

static void print_nouns(FILE *out)
{
	for (unsigned i = 0; i < command_noun_count; i++)
		fprintf(out, "%s ", command_nouns[i]->name);
	for (unsigned i = 0; i < cli_verb_count; i++)
		fprintf(out, "%s ", cli_verbs[i].name);
}

static void print_bash(FILE *out)
{
	fputs("# completion of partita(1), made by `partita completion`\n"
	      "_partita_words() { COMPREPLY=($(compgen -W \"$1\" -- \"$word\")); }\n"
	      "_partita_files() { COMPREPLY=($(compgen $1 -- \"$word\")); }\n"
	      "_partita_names() {\n"
	      "\t_partita_words \"$(\"${COMP_WORDS[0]}\" \"$1\" list --json 2>/dev/null |\n"
	      "\t\tsed -n \"s/^    \\\"$2\\\": \\\"\\([A-Za-z0-9._-]*\\)\\\",*$/\\1/p\")\"\n"
	      "}\n"
	      "_partita() {\n"
	      "\tlocal word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}\n"
	      "\tlocal noun=${COMP_WORDS[1]} verb=${COMP_WORDS[2]}\n"
	      "\tCOMPREPLY=()\n"
	      "\tcase $COMP_CWORD in\n\t1) _partita_words '",
	      out);
	print_nouns(out);
	fputs("--help --version'; return ;;\n\t2)\n\t\tcase $noun in\n", out);
	print_verbs(out);
	fputs("\t\tesac\n\t\treturn ;;\n\tesac\n\tcase $noun:$verb:$before in\n", out);
	each_verb(print_arguments, out);
	fputs("\tesac\n\tcase $noun:$verb:$word in\n", out);
	each_verb(print_options, out);
	each_verb(print_word, out);
	print_plain(out);
	fputs("\tesac\n}\ncomplete -o filenames -F _partita partita\n", out);
}

/* zsh takes bash's, as its manual says under compatibility. */
static void print_zsh(FILE *out)
{
	fputs("#compdef partita\nautoload -U +X bashcompinit && bashcompinit\n", out);
	print_bash(out);
	/* Loaded by the first key press, which is to be answered as well. */
	fputs("if (( $+compstate )); then _bash_complete -o filenames -F _partita; fi\n", out);
}

/* --- manuals --- */

static void print_line(void *context, const struct command_option *o)
{
	const struct argument *a = context;

	fprintf(a->out, "%s %s --%s\n", a->noun->name, a->verb->name, o->name);
}

static void print_lines(const struct argument *a)
{
	command_each_option(a->verb, print_line, (void *)a);
}

/* Text for roff: no line begins with a control character, and backslashes stay. */
static void print_roff(const char *text, FILE *out)
{
	if (*text == '.' || *text == '\'')
		fputs("\\&", out);
	for (; *text; text++) {
		if (*text == '\\')
			fputs("\\e", out);
		else if (*text == '`')
			fputs("\\(oq", out);
		else
			fputc(*text, out);
	}
}

/* Sentences have lines of their own in manuals. */
static void print_sentences(const char *text, FILE *out)
{
	while (*text) {
		const char *end = strstr(text, ". ");
		char sentence[1024];
		size_t n = end ? (size_t)(end - text) + 1 : strlen(text);

		snprintf(sentence, sizeof(sentence), "%.*s", (int)n, text);
		print_roff(sentence, out);
		fputc('\n', out);
		text += n;
		text += strspn(text, " ");
	}
}

static void print_mdoc_option(void *context, const struct command_option *o)
{
	FILE *out = context;

	fprintf(out, ".It Fl -%s", o->name);
	if (o->value)
		fputs(" Ar ", out);
	/* a line may break between the words of a choice */
	for (const char *v = o->value; v && *v; v++)
		if (*v == '|')
			fputs(" | ", out);
		else
			fputc(*v, out);
	fputc('\n', out);
	print_roff(o->help, out);
	fputc('\n', out);
}

static void print_mdoc_verb(const struct command_noun *noun, const struct command_verb *v,
			    FILE *out)
{
	fprintf(out, ".Ss partita %s %s%s%s\n", noun->name, v->name, v->words ? " " : "",
		v->words ? v->words : "");
	fprintf(out, "%s.\n", v->summary);
	if (v->notes)
		print_sentences(v->notes, out);
	if (!v->list && (!v->options || !v->options->name))
		return;
	fputs(".Bl -tag -width Ds\n", out);
	for (const struct command_option *o = v->options; o && o->name; o++)
		print_mdoc_option(out, o);
	for (const struct command_option *o = command_list_options; v->list && o->name; o++)
		print_mdoc_option(out, o);
	fputs(".El\n", out);
}

static void print_mdoc_setting(void *context, const struct command_option *o)
{
	/* --no-x is told of once, for all */
	if (strncmp(o->name, "no-", 3))
		print_mdoc_option(context, o);
}

static const struct command_verb *settings_verb(const struct command_noun *noun)
{
	for (unsigned i = 0; i < noun->verb_count; i++)
		if (noun->verbs[i].settings)
			return &noun->verbs[i];
	return NULL;
}

/* The generated middle of partita-NOUN(1). */
static void print_mdoc(const struct command_noun *noun, FILE *out)
{
	const struct command_verb *v = settings_verb(noun);

	fputs(".Sh VERBS\n", out);
	for (unsigned i = 0; i < noun->verb_count; i++)
		print_mdoc_verb(noun, &noun->verbs[i], out);
	if (v) {
		fputs(".Sh SETTINGS\n"
		      "In brackets is what holds when nothing is said.\n"
		      "A setting that is on is switched off by its name with\n"
		      ".Fl -no-\n"
		      "in front.\n"
		      ".Bl -tag -width Ds\n",
		      out);
		setting_each(v->schema, v->settings, print_mdoc_setting, out);
		fputs(".El\n", out);
	}
	fputs(".Sh OPTIONS OF ALL VERBS\n.Bl -tag -width Ds\n", out);
	for (const struct command_option *o = command_common; o->name; o++)
		print_mdoc_option(out, o);
	fputs(".El\n.Sh EXIT STATUS\nAs in\n.Xr partita 1 .\n.Sh EXAMPLES\n.Bd -literal -offset "
	      "indent\n",
	      out);
	for (unsigned i = 0; i < noun->verb_count; i++)
		print_roff(noun->verbs[i].examples, out);
	fputs(".Ed\n", out);
}

int cli_completion(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	const struct command_noun *noun = argc == 3 ? noun_find(argv[2]) : NULL;

	if (argc == 2 && !strcmp(what, "bash")) {
		print_bash(stdout);
	} else if (argc == 2 && !strcmp(what, "zsh")) {
		print_zsh(stdout);
	} else if (argc == 2 && !strcmp(what, "options")) {
		each_verb(print_lines, stdout);
	} else if (noun && !strcmp(what, "mdoc")) {
		print_mdoc(noun, stdout);
	} else {
		FILE *out = !strcmp(what, "--help") ? stdout : stderr;

		fputs("usage: partita completion bash|zsh|options|mdoc NOUN\n\n"
		      "Prints the completion for a shell, a line for each option, or the middle "
		      "of\n"
		      "a manual.\n\nExamples:\n"
		      "  source <(partita completion bash)\n"
		      "  partita completion zsh >~/.zfunc/_partita\n",
		      out);
		return out == stdout ? CLI_OK : CLI_USAGE;
	}
	return CLI_OK;
}
