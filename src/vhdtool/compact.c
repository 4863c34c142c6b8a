// SPDX-License-Identifier: MIT
/* vhd compact: makes an image's file as small as what it holds. */
#include "vhdtool/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

static struct {
	bool zeros, json;
	struct tool_image image;
} options;

static const struct tool_option table[] = {
	{ "zeros", TOOL_FLAG, &options.zeros, NULL, "also read all data and drop blocks of zeros" },
	{ "json", TOOL_FLAG, &options.json, NULL, "machine-readable output" },
	{ "format", TOOL_CHOICE, &options.image.format, "raw|vhd|vhdx",
	  "format of the image (by content)" },
	{ 0 },
};

static uint64_t file_size(const char *path)
{
	struct stat st;

	return stat(path, &st) < 0 ? 0 : (uint64_t)st.st_size;
}

static int compact(struct disk *disk, struct error *err)
{
	const struct disk_compact_options o = { .zeros = options.zeros, .progress = tool_progress };
	int r;

	if (!disk->ops->compact)
		return error_set(err, -ENOTSUP, "%s images cannot be compacted", disk->ops->name);
	tool_catch_signals();
	r = disk->ops->compact(disk, &o, err);
	tool_progress_end();
	return r;
}

static void report(const char *path, uint64_t before)
{
	uint64_t after = file_size(path);

	if (options.json)
		tool_print_json(json_pack("{s:s,s:I,s:I}", "file", path, "size_before",
					  (json_int_t)before, "size_after", (json_int_t)after));
	else
		printf("%s: %llu bytes, were %llu\n", path, (unsigned long long)after,
		       (unsigned long long)before);
}

static int run(unsigned count, char **arguments, struct error *err)
{
	uint64_t before = file_size(arguments[0]);
	struct tool_image image = options.image;
	struct loop *loop;
	struct disk *disk;
	int r = loop_new(64, &loop, err), closed;

	(void)count;
	if (r < 0)
		return r;
	image.alone = true;
	image.direct = true; /* what moves would only push other things out of the page cache */
	r = tool_open(loop, arguments[0], false, &image, &disk, err);
	if (r >= 0) {
		r = compact(disk, err);
		if (r < 0)
			error_prefix(err, "%s", arguments[0]);
		closed = disk_close(disk, r < 0 ? NULL : err);
		r = r < 0 ? r : closed;
	}
	loop_free(loop);
	if (r < 0)
		return r;
	report(arguments[0], before);
	return TOOL_OK;
}

const struct tool_verb verb_compact = {
	.name = "compact",
	.synopsis = "IMAGE [OPTION...]",
	.summary = "make an image's file as small as it can be",
	.notes = "No data changes, and children of the image stay good. It can be stopped at any "
		 "time.\n"
		 "Example:\n"
		 "  vhd compact --zeros data.vhdx\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
