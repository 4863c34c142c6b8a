// SPDX-License-Identifier: MIT
/* vhd create: makes an empty image, or a differencing one that starts as its parent. */
#include "vhdtool/verbs.h"

#include "vhd/create.h"
#include "vhdtool/output.h"

static struct {
	uint64_t size, block_size, sector_size;
	const char *format, *parent;
	struct tool_list search;
	bool fixed, force;
} o;

static const struct tool_option table[] = {
	{ "size", TOOL_SIZE, &o.size, "SIZE", "size of the disk, like 20G" },
	{ "format", TOOL_CHOICE, &o.format, "raw|vhd|vhdx", "format (by the name's ending)" },
	{ "block-size", TOOL_SIZE, &o.block_size, "SIZE", "of a VHDX: 1M to 256M (32M)" },
	{ "sector-size", TOOL_SIZE, &o.sector_size, "N", "logical sectors: 512 or 4096 (512)" },
	{ "fixed", TOOL_FLAG, &o.fixed, NULL, "take all space now" },
	{ "parent", TOOL_FILE, &o.parent, "IMAGE", "make a differencing image over this one" },
	{ "search", TOOL_LIST, &o.search, "DIR", "look here too for the parent's parents" },
	{ "force", TOOL_FLAG, &o.force, NULL, "replace FILE if it exists" },
	{ 0 },
};

static int make(struct output *out, struct error *err)
{
	const struct image_create_options make = {
		.format = output_format(out->path, o.format),
		.size = o.size,
		.block_size = o.block_size,
		.logical_sector = o.sector_size,
		.fixed = o.fixed,
		.parent = o.parent,
		.search = o.search.count ? o.search.items : NULL,
		.later = out->path,
	};
	int r = o.fixed ? output_check_space(out->path, o.size, err) : 0;

	if (r < 0)
		return r;
	r = image_create(out->partial, &make, err);
	return output_end(out, r, true, err);
}

static int run(unsigned count, char **arguments, struct error *err)
{
	struct output out;
	int r;

	(void)count;
	if (!o.size && !o.parent)
		return tool_usage(err, "say --size, or --parent for a differencing image");
	if (o.parent && o.fixed)
		return tool_usage(err, "a differencing image cannot be --fixed");
	r = output_begin(&out, arguments[0], o.force, false, err);
	return r < 0 ? r : make(&out, err);
}

const struct tool_verb verb_create = {
	.name = "create",
	.synopsis = "FILE --size SIZE [OPTION...]",
	.summary = "make an image",
	.notes = "Examples:\n"
		 "  vhd create data.vhdx --size 2T\n"
		 "  vhd create today.vhdx --parent base.vhdx\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
