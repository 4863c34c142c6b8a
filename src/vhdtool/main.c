// SPDX-License-Identifier: MIT
/* vhd: one command line for virtual hard disks; a table of verbs, each in its own file. */
#include "vhdtool/files_reader.h"
#include "vhdtool/verbs.h"

#include <stdio.h>
#include <string.h>

static const struct tool_verb verb_completion;

static const struct tool_verb *const verbs[] = {
	&verb_create,  &verb_info,  &verb_check,  &verb_convert, &verb_map,
	&verb_compare, &verb_dump,  &verb_resize, &verb_compact, &verb_merge,
	&verb_rebase,  &verb_share, &verb_track,  &verb_serve,   &verb_mount,
	&verb_unmount, &verb_ls,    &verb_cat,    &verb_cp,      &verb_completion,
};

static int run_completion(unsigned count, char **arguments, struct error *err)
{
	(void)count;
	(void)arguments;
	(void)err;
	tool_print_completion(verbs, ARRAY_SIZE(verbs));
	return TOOL_OK;
}

static const struct tool_verb verb_completion = {
	.name = "completion",
	.synopsis = "",
	.summary = "print the completion for bash",
	.hidden = true,
	.run = run_completion,
};

static void print_file_systems(void)
{
	static const enum files_system all[] = { FILES_EXT, FILES_NTFS, FILES_FAT };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		const struct files_reader *r = files_reader_of(all[i]);

		printf("%s: %s%s%s%s\n", r->name, r->program, r->library ? ", with " : "",
		       r->library ? r->library : "",
		       files_reader_installed(r) ? "" : " (not installed)");
	}
}

static void print_usage(FILE *out)
{
	fputs("usage: vhd VERB [OPTION...]\n\n", out);
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!verbs[i]->hidden)
			fprintf(out, "  %-10s %s\n", verbs[i]->name, verbs[i]->summary);
	fputs("\n`vhd VERB --help` tells more; vhd(1) is the manual.\n", out);
}

int main(int argc, char **argv)
{
	if (argc < 2) {
		print_usage(stderr);
		return TOOL_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		print_usage(stdout);
		return TOOL_OK;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("vhd " PARTITA_VERSION);
		print_file_systems();
		return TOOL_OK;
	}
	for (size_t i = 0; i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(argv[1], verbs[i]->name))
			return tool_run(verbs[i], argc - 1, argv + 1);
	fprintf(stderr, "vhd: there is no verb \"%s\"\n", argv[1]);
	print_usage(stderr);
	return TOOL_USAGE;
}
