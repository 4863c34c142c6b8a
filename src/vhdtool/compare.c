// SPDX-License-Identifier: MIT
/* vhd compare: whether two images hold the same disk, whatever their formats. */
#include "vhdtool/verbs.h"

#include "vhd/image.h"

#include <errno.h>
#include <stdio.h>

static struct {
	struct tool_image image;
	bool allow_size, json;
} o;

static const struct tool_option table[] = {
	{ "allow-size", TOOL_FLAG, &o.allow_size, NULL, "zeros follow the shorter disk" },
	{ "search", TOOL_LIST, &o.image.search, "DIR", "look here too for parents; repeatable" },
	{ "direct", TOOL_FLAG, &o.image.direct, NULL, "past the page cache" },
	{ "json", TOOL_FLAG, &o.json, NULL, "print JSON" },
	{ 0 },
};

static int print_result(uint64_t at)
{
	json_t *j;

	if (o.json) {
		j = json_pack("{s:b}", "same", at == DISK_SAME);
		if (at != DISK_SAME)
			json_object_set_new(j, "first_difference", json_integer((json_int_t)at));
		tool_print_json(j);
	} else if (at == DISK_SAME) {
		puts("the disks hold the same");
	} else {
		printf("the disks differ; the first difference is at byte %llu\n",
		       (unsigned long long)at);
	}
	return at == DISK_SAME ? TOOL_OK : TOOL_DIFFERS;
}

static int compare(struct disk *a, struct disk *b, struct error *err)
{
	const struct disk_compare_options co = {
		.allow_size = o.allow_size,
		.progress = tool_progress,
	};
	uint64_t at;
	int r;

	if (a->geometry.size != b->geometry.size && !o.allow_size) {
		fprintf(stderr,
			"the disks have %llu and %llu bytes; --allow-size compares them as if "
			"zeros followed the shorter one\n",
			(unsigned long long)a->geometry.size, (unsigned long long)b->geometry.size);
		return print_result(MIN(a->geometry.size, b->geometry.size));
	}
	r = disk_compare(a, b, &co, &at, err);
	tool_progress_end();
	return r < 0 ? r : print_result(at);
}

static int run(unsigned count, char **arguments, struct error *err)
{
	struct disk *a = NULL, *b = NULL;
	struct loop *loop;
	int r = loop_new(64, &loop, err);

	(void)count;
	if (r < 0)
		return r;
	tool_catch_signals();
	r = tool_open(loop, arguments[0], true, &o.image, &a, err);
	if (r >= 0)
		r = tool_open(loop, arguments[1], true, &o.image, &b, err);
	if (r >= 0)
		r = compare(a, b, err);
	(void)disk_close(a, NULL);
	(void)disk_close(b, NULL);
	loop_free(loop);
	return r;
}

const struct tool_verb verb_compare = {
	.name = "compare",
	.synopsis = "IMAGE IMAGE [OPTION...]",
	.summary = "say whether two images hold the same disk",
	.notes = "Exit status: 0 the same, 1 an error, 3 they differ.\n\n"
		 "Example:\n  vhd compare disk.vhdx disk.raw\n",
	.options = table,
	.arguments_min = 2,
	.arguments_max = 2,
	.run = run,
};
