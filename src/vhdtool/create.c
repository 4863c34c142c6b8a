// SPDX-License-Identifier: MIT
/* vhd create: makes an empty image, or a differencing one that starts as its parent. */
#include "vhdtool/verbs.h"

#include "lib/cleanup.h"
#include "vhd/chain.h"
#include "vhdtool/output.h"

#include <errno.h>
#include <string.h>

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

static int make(struct output *out, struct output_options *oo, struct error *err)
{
	int r;

	if (oo->fixed) {
		r = output_check_space(out->path, oo->size, err);
		if (r < 0)
			return r;
	}
	r = output_make(out->partial, oo, err);
	return output_end(out, r, err);
}

/* A child has its parent's sectors, and its size unless another one is asked for. */
static int make_child(struct output *out, struct output_options *oo, struct error *err)
{
	const struct tool_image image = { .search = o.search };
	struct disk_parent ref;
	struct disk *parent;
	int r = tool_open(NULL, o.parent, true, &image, &parent, err);

	if (r < 0)
		return r;
	if (strcmp(parent->ops->name, oo->format))
		r = error_set(err, -EINVAL, "\"%s\" is %s, so its child must be too, not %s",
			      o.parent, parent->ops->name, oo->format);
	else
		r = chain_name_parent(parent, o.parent, out->path, &ref, err);
	if (r >= 0) {
		oo->parent = &ref;
		oo->id = parent->geometry.id;
		oo->size = oo->size ? oo->size : parent->geometry.size;
		if (!oo->sector_size)
			oo->sector_size = parent->geometry.logical_sector;
		r = make(out, oo, err);
		disk_parent_deinit(&ref);
	}
	(void)disk_close(parent, NULL);
	return r;
}

static int run(unsigned count, char **arguments, struct error *err)
{
	struct output_options oo = {
		.format = output_format(arguments[0], o.format),
		.size = o.size,
		.block_size = o.block_size,
		.sector_size = o.sector_size,
		.fixed = o.fixed,
	};
	struct output out;
	int r;

	(void)count;
	if (!o.size && !o.parent)
		return tool_usage(err, "say --size, or --parent for a differencing image");
	if (o.parent && o.fixed)
		return tool_usage(err, "a differencing image cannot be --fixed");
	r = output_begin(&out, arguments[0], o.force, false, err);
	if (r < 0)
		return r;
	return o.parent ? make_child(&out, &oo, err) : make(&out, &oo, err);
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
