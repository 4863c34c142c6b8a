// SPDX-License-Identifier: MIT
/* vhd merge: a differencing image goes into its parent. */
#include "vhd/merge.h"
#include "vhdtool/verbs.h"

#include <errno.h>
#include <stdio.h>

static struct {
	bool keep;
	struct tool_list children, search;
} options;

static const struct tool_option table[] = {
	{ "child", TOOL_LIST, &options.children, "IMAGE",
	  "a child of IMAGE, which gets its parent; repeatable" },
	{ "keep", TOOL_FLAG, &options.keep, NULL, "do not delete IMAGE afterwards" },
	{ "search", TOOL_LIST, &options.search, "DIR", "look here too for the parent; repeatable" },
	{ 0 },
};

static int run(unsigned count, char **arguments, struct error *err)
{
	const struct merge_options mo = {
		.open.search = options.search.count ? options.search.items : NULL,
		.children = options.children.items,
		.keep = options.keep,
		.progress = tool_progress,
	};
	struct loop *loop;
	int r = loop_new(256, &loop, err);

	(void)count;
	if (r < 0)
		return r;
	tool_catch_signals();
	r = image_merge(loop, arguments[0], &mo, err);
	tool_progress_end();
	loop_free(loop);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_merge = {
	.name = "merge",
	.synopsis = "IMAGE [--child IMAGE...] [OPTION...]",
	.summary = "merge a differencing image into its parent",
	.notes = "IMAGE is deleted when its data is safe in the parent. Images that have it as "
		 "their\n"
		 "parent and are not named with --child cannot be opened any more. It can be "
		 "stopped\n"
		 "at any time: the chain opens as before, and merging can be started again.\n"
		 "Example: of base <- a <- b, the middle goes:\n"
		 "  vhd merge a.vhdx --child b.vhdx\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
