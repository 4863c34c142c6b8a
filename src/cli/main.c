// SPDX-License-Identifier: MIT
/*
 * partita: one command line. Nouns with verbs go through the management service (command.h); some
 * verbs do without it, each in its own file.
 */
#include "cli/command.h"

#include "lib/cleanup.h"

#include <string.h>

#include <curl/curl.h>

static void print_usage(FILE *out)
{
	fputs("usage: partita NOUN VERB [OPTION...]\n"
	      "       partita VERB [OPTION...]\n\nNouns, which the management service knows:\n",
	      out);
	for (unsigned i = 0; i < command_noun_count; i++)
		fprintf(out, "  %-12s%s\n", command_nouns[i]->name, command_nouns[i]->summary);
	fputs("\nVerbs that do without it:\n", out);
	for (unsigned i = 0; i < cli_verb_count; i++)
		fprintf(out, "  %-12s%s\n", cli_verbs[i].name, cli_verbs[i].summary);
	fputs("\n`partita NOUN --help` tells more; partita(1) is the manual. `partita host up`\n"
	      "starts a service of one's own.\n",
	      out);
}

static int no_noun(const char *word)
{
	struct nearest n = { .word = word };

	for (unsigned i = 0; i < command_noun_count; i++)
		nearest_try(&n, command_nouns[i]->name);
	for (unsigned i = 0; i < cli_verb_count; i++)
		nearest_try(&n, cli_verbs[i].name);
	if (n.best)
		fprintf(stderr, "partita: there is no noun \"%s\"; did you mean \"%s\"?\n", word,
			n.best);
	else
		fprintf(stderr, "partita: there is no noun \"%s\"; `partita --help` lists them\n",
			word);
	return CLI_USAGE;
}

static int run(int argc, char **argv)
{
	for (unsigned i = 0; i < command_noun_count; i++)
		if (!strcmp(argv[0], command_nouns[i]->name))
			return command_run(command_nouns[i], argc, argv);
	for (unsigned i = 0; i < cli_verb_count; i++)
		if (!strcmp(argv[0], cli_verbs[i].name))
			return cli_verbs[i].main(argc, argv);
	return no_noun(argv[0]);
}

/* `partita help vm create` is `partita vm create --help`. */
static int help(int argc, char **argv)
{
	char *words[3] = { argc > 0 ? argv[0] : NULL, argc > 1 ? argv[1] : (char *)"--help",
			   (char *)"--help" };

	if (argc < 1) {
		print_usage(stdout);
		return CLI_OK;
	}
	return run(argc > 1 ? 3 : 2, words);
}

int main(int argc, char **argv)
{
	int status;

	if (argc < 2) {
		print_usage(stderr);
		return CLI_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return help(0, NULL);
	if (!strcmp(argv[1], "help"))
		return help(argc - 2, argv + 2);
	if (!strcmp(argv[1], "--version")) {
		puts("partita " PARTITA_VERSION);
		return CLI_OK;
	}
	curl_global_init(CURL_GLOBAL_DEFAULT);
	status = run(argc - 1, argv + 1);
	curl_global_cleanup();
	return status;
}
