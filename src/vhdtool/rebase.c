// SPDX-License-Identifier: MIT
/* vhd rebase: tells a differencing image where its parent is, or that it has another one. */
#include "vhd/merge.h"
#include "vhdtool/verbs.h"

#include <errno.h>

static struct {
	const char *parent;
	bool force, copy;
} options;

static const struct tool_option table[] = {
	{ "parent", TOOL_FILE, &options.parent, "PARENT", "the image's parent from now on" },
	{ "force", TOOL_FLAG, &options.force, NULL,
	  "though it is not the image that this one was made for" },
	{ "copy", TOOL_FLAG, &options.copy, NULL,
	  "copy to IMAGE what the parents differ in, so that its contents stay" },
	{ 0 },
};

static int run(unsigned count, char **arguments, struct error *err)
{
	const struct rebase_options ro = {
		.any_identity = options.force,
		.copy = options.copy,
		.progress = tool_progress,
	};
	struct loop *loop;
	int r;

	(void)count;
	if (!options.parent)
		return tool_usage(err, "say --parent");
	if (options.copy && options.force)
		return tool_usage(err, "--copy takes any parent: leave out --force");
	tool_catch_signals();
	r = loop_new(64, &loop, err);
	if (r < 0)
		return r;
	r = image_rebase(loop, arguments[0], options.parent, &ro, err);
	tool_progress_end();
	loop_free(loop);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_rebase = {
	.name = "rebase",
	.synopsis = "IMAGE --parent PARENT [--force | --copy]",
	.summary = "tell a differencing image where its parent is",
	.notes = "Only the image's note of its parent changes, no data. With --force the two must "
		 "have\n"
		 "the same contents as far as IMAGE does not hold its own: nobody checks that.\n"
		 "With --copy IMAGE gets what they differ in, and keeps its contents over any "
		 "parent.\n"
		 "Example: the parent was moved\n"
		 "  vhd rebase child.vhdx --parent /srv/images/base.vhdx\n"
		 "Example: over the newer base\n"
		 "  vhd rebase child.vhdx --parent base-2.vhdx --copy\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
