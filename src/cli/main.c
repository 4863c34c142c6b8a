// SPDX-License-Identifier: MIT
/* partita: one command line; a table of verbs, each in its own file. */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct cli_verb verbs[] = {
	{ "run", "run one virtual machine in the foreground", cli_run },
	{ "disk", "change disks of a running machine", cli_disk },
	{ "engines", "tell which engines can run virtual machines here", cli_engines },
};

static void print_usage(FILE *out)
{
	fputs("usage: partita VERB [OPTION...]\n\n", out);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		fprintf(out, "  %-10s %s\n", verbs[i].name, verbs[i].summary);
	fputs("\n`partita VERB --help` tells more; partita(1) is the manual.\n", out);
}

int cli_fail(const char *verb, const struct error *err)
{
	fprintf(stderr, "partita %s: %s\n", verb, err->message);
	return CLI_FAILED;
}

int cli_parse_size(const char *text, uint64_t *ret, struct error *err)
{
	static const char units[] = "KMGT";
	char *end;
	double value = strtod(text, &end);
	uint64_t unit = 1;
	const char *u = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;

	if (u) {
		unit = UINT64_C(1) << (10 * (u - units + 1));
		end++;
		if (!strcasecmp(end, "ib") || !strcasecmp(end, "b"))
			end += strlen(end);
	}
	if (end == text || *end || value <= 0 || value * (double)unit >= 0x1p63)
		return error_set(err, -EINVAL,
				 "\"%s\" is not a size; write bytes, or a number with K, M, G or T",
				 text);
	*ret = (uint64_t)(value * (double)unit);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		print_usage(stderr);
		return CLI_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		print_usage(stdout);
		return CLI_OK;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("partita " PARTITA_VERSION);
		return CLI_OK;
	}
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(argv[1], verbs[i].name))
			return verbs[i].main(argc - 1, argv + 1);
	fprintf(stderr, "partita: there is no verb \"%s\"\n", argv[1]);
	print_usage(stderr);
	return CLI_USAGE;
}
