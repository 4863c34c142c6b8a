// SPDX-License-Identifier: MIT
/* vhd resize: another size of the disk in an image; the file systems on it are their owner's. */
#include "vhdtool/verbs.h"

#include <errno.h>
#include <stdio.h>

static struct {
	bool shrink;
	struct tool_image image;
} options;

static const struct tool_option table[] = {
	{ "shrink", TOOL_FLAG, &options.shrink, NULL,
	  "allow a smaller size: what lies beyond goes" },
	TOOL_IMAGE_OPTIONS(options.image),
	{ 0 },
};

/* "20G", or what is to be added, "+5G". */
static int size_wanted(const char *text, uint64_t now, uint64_t *ret, struct error *err)
{
	uint64_t n;
	int r = tool_parse_size(*text == '+' ? text + 1 : text, &n, err);

	if (r < 0)
		return r;
	if (*text == '+' && add_overflow(now, n, &n))
		return error_set(err, -EINVAL, "the disk cannot be larger by %s", text + 1);
	*ret = n;
	return 0;
}

static int resize(struct disk *disk, const char *text, struct error *err)
{
	uint64_t now = disk->geometry.size, size;
	int r = size_wanted(text, now, &size, err);

	if (r < 0)
		return r;
	if (size < now && !options.shrink)
		return error_set(
			err, -EINVAL,
			"the disk has %llu bytes; making it smaller loses what lies beyond "
			"%llu: shrink partitions and file systems first, then say --shrink",
			(unsigned long long)now, (unsigned long long)size);
	if (!disk->ops->resize)
		return error_set(err, -ENOTSUP, "%s images keep their size", disk->ops->name);
	return disk->ops->resize(disk, size, err);
}

static int run(unsigned count, char **arguments, struct error *err)
{
	struct loop *loop;
	struct disk *disk;
	int r = loop_new(64, &loop, err), closed;

	(void)count;
	if (r < 0)
		return r;
	r = tool_open(loop, arguments[0], false, &options.image, &disk, err);
	if (r >= 0) {
		r = resize(disk, arguments[1], err);
		if (r < 0)
			error_prefix(err, "%s", arguments[0]);
		closed = disk_close(disk, r < 0 ? NULL : err);
		r = r < 0 ? r : closed;
	}
	loop_free(loop);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_resize = {
	.name = "resize",
	.synopsis = "IMAGE [+]SIZE [OPTION...]",
	.summary = "make a disk larger or smaller",
	.notes = "Examples:\n"
		 "  vhd resize data.vhdx +20G\n"
		 "  vhd resize data.vhdx 64T\n",
	.options = table,
	.arguments_min = 2,
	.arguments_max = 2,
	.run = run,
};
