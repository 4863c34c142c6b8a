// SPDX-License-Identifier: MIT
/* partita engines: which engines can be used here, and if not, exactly why. */
#include "cli/cli.h"
#include "engine/engine.h"

#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
	"usage: partita engines [--json]\n"
	"\n"
	"Lists the engines that can run virtual machines and tells for each whether it can be\n"
	"used on this machine, and if not why. Exit status 0 if at least one can, else 1.\n"
	"\n"
	"Example:\n"
	"  partita engines --json | jq -r '.[] | select(.usable) | .name'\n";

static json_t *describe(const struct engine *engine, bool *usable)
{
	struct error err = { 0 };
	uint32_t caps;
	bool ok = !engine->probe(&caps, &err);

	*usable = *usable || ok;
	return json_pack("{s:s,s:s,s:b,s:s*}", "name", engine->name, "summary", engine->summary,
			 "usable", ok, "reason", ok ? NULL : err.message);
}

static void print_row(const json_t *row)
{
	const char *reason = json_string_value(json_object_get(row, "reason"));

	printf("%-5s %-10s %s\n", json_string_value(json_object_get(row, "name")),
	       reason ? "unusable" : "usable",
	       reason ? reason : json_string_value(json_object_get(row, "summary")));
}

int cli_engines(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	bool json = false, usable = false;
	json_t *list = json_array(), *row;
	size_t index;
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) >= 0) {
		if (c == 'j') {
			json = true;
			continue;
		}
		fputs(usage, c == 'h' ? stdout : stderr);
		json_decref(list);
		return c == 'h' ? CLI_OK : CLI_USAGE;
	}
	for (size_t i = 0; engines[i]; i++)
		json_array_append_new(list, describe(engines[i], &usable));
	if (json) {
		json_dumpf(list, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		json_array_foreach(list, index, row) print_row(row);
	}
	json_decref(list);
	return usable ? CLI_OK : CLI_FAILED;
}
