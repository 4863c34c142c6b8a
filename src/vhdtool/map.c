// SPDX-License-Identifier: MIT
/* vhd map: which stretches of a disk hold data, and which image of a chain answers for them. */
#include "vhdtool/verbs.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <stdio.h>

static struct {
	struct tool_image image;
	bool json;
} o;

static const struct tool_option table[] = {
	TOOL_IMAGE_OPTIONS(o.image),
	{ "json", TOOL_FLAG, &o.json, NULL, "print JSON" },
	{ 0 },
};

struct stretch {
	uint64_t start, length;
	enum disk_extent_kind kind;
	unsigned depth; /* 0 = the image itself, 1 = its parent, ... */
};

/* Which image answers at `at`, and for at most how many bytes. */
static int find_depth(struct disk *disk, uint64_t at, unsigned *ret_depth, uint64_t *length)
{
	*ret_depth = 0;
	while (disk->below && disk->ops->held && at < disk->geometry.size) {
		enum disk_held held;
		uint64_t n;
		int r = disk->ops->held(disk, at, &held, &n);

		if (r < 0)
			return r;
		*length = MIN(*length, n);
		if (held != DISK_HELD_NOT)
			break;
		disk = disk->below;
		++*ret_depth;
		if (at < disk->geometry.size)
			*length = MIN(*length, disk->geometry.size - at);
	}
	return 0;
}

static int find_stretch(struct disk *disk, uint64_t at, struct stretch *ret)
{
	int r;

	ret->start = at;
	r = disk->ops->extent(disk, at, &ret->kind, &ret->length);
	if (r >= 0)
		r = find_depth(disk, at, &ret->depth, &ret->length);
	ret->length = MIN(ret->length, disk->geometry.size - at);
	return r;
}

static void print_stretch(const struct stretch *s, json_t *list)
{
	static const char *const kinds[] = { "data", "zero", "hole" };

	if (!s->length)
		return;
	if (list)
		json_array_append_new(list, json_pack("{s:I,s:I,s:i,s:b,s:b,s:b}", "start",
						      (json_int_t)s->start, "length",
						      (json_int_t)s->length, "depth", (int)s->depth,
						      "present", s->kind != DISK_EXTENT_HOLE,
						      "zero", s->kind != DISK_EXTENT_DATA, "data",
						      s->kind == DISK_EXTENT_DATA));
	else
		printf("%#-18llx %#-18llx %-5s %u\n", (unsigned long long)s->start,
		       (unsigned long long)s->length, kinds[s->kind], s->depth);
}

static int print_map(struct disk *disk, json_t *list, struct error *err)
{
	struct stretch s = { 0 }, next;
	uint64_t at = 0;

	if (!list)
		printf("%-18s %-18s %-5s %s\n", "offset", "length", "kind", "depth");
	for (; at < disk->geometry.size && !tool_interrupted(); at += next.length) {
		int r = find_stretch(disk, at, &next);

		if (r < 0 || !next.length)
			return error_errno(err, r < 0 ? r : -EIO,
					   "cannot find out what lies at byte %llu of the disk",
					   (unsigned long long)at);
		if (s.length && s.kind == next.kind && s.depth == next.depth) {
			s.length += next.length;
			continue;
		}
		print_stretch(&s, list);
		s = next;
	}
	print_stretch(&s, list);
	return tool_interrupted() ? error_set(err, -ECANCELED, "stopped") : 0;
}

static int run(unsigned count, char **arguments, struct error *err)
{
	json_t *list = NULL;
	struct disk *disk;
	int r = tool_open(NULL, arguments[0], true, &o.image, &disk, err);

	(void)count;
	if (r < 0)
		return r;
	tool_catch_signals();
	list = o.json ? json_array() : NULL;
	r = print_map(disk, list, err);
	if (r >= 0 && list)
		tool_print_json(json_incref(list));
	json_decref(list);
	(void)disk_close(disk, NULL);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_map = {
	.name = "map",
	.synopsis = "IMAGE [OPTION...]",
	.summary = "list what of a disk is data and what is zeros",
	.notes = "Depth 0 is the image itself, 1 its parent, and so on.\n\n"
		 "Example:\n  vhd map disk.vhdx --json\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
