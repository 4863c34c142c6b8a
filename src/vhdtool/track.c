// SPDX-License-Identifier: MIT
/* vhd track: what of a disk has changed since a point in time (docs/track-format.md). */
#include "vhd/track.h"
#include "vhdtool/verbs.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

static struct {
	bool enable, disable, point, list, json;
	const char *since, *drop;
	struct tool_image image;
} o;

static const struct tool_option table[] = {
	{ "enable", TOOL_FLAG, &o.enable, NULL, "begin, and print the id of the first point" },
	{ "disable", TOOL_FLAG, &o.disable, NULL, "end, and forget all points" },
	{ "point", TOOL_FLAG, &o.point, NULL, "make a point, and print its id" },
	{ "list", TOOL_FLAG, &o.list, NULL, "list the points" },
	{ "since", TOOL_STRING, &o.since, "ID", "list what has changed since that point" },
	{ "drop", TOOL_STRING, &o.drop, "ID", "forget that point" },
	{ "json", TOOL_FLAG, &o.json, NULL, "print JSON" },
	TOOL_IMAGE_OPTIONS(o.image),
	{ 0 },
};

static int parse_id(const char *text, struct guid *ret, struct error *err)
{
	return guid_parse(text, ret) < 0
		       ? tool_usage(err, "\"%s\" is no id of a point; --list has them", text)
		       : 0;
}

static void print_id(const struct guid *id)
{
	char text[GUID_TEXT_SIZE];

	guid_format(id, text);
	if (o.json)
		tool_print_json(json_pack("{s:s}", "id", text));
	else
		puts(text);
}

static int run_point(struct disk *disk, struct error *err)
{
	struct guid id;
	int r = track_point(track_of(disk), &id, err);

	if (r >= 0)
		print_id(&id);
	return r;
}

static int run_drop(struct disk *disk, struct error *err)
{
	struct guid id;
	int r = parse_id(o.drop, &id, err);

	return r < 0 ? r : track_drop(track_of(disk), &id, err);
}

static int run_list(struct disk *disk, struct error *err)
{
	json_t *list = o.json ? json_array() : NULL;
	const struct track_point *p;
	unsigned count;

	(void)err;
	p = track_points(track_of(disk), &count);
	for (unsigned i = 0; i < count; i++) {
		char id[GUID_TEXT_SIZE], when[32];
		time_t seconds = (time_t)(p[i].time / 1000000000);
		struct tm tm;

		guid_format(&p[i].id, id);
		gmtime_r(&seconds, &tm);
		strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
		if (list)
			json_array_append_new(list, json_pack("{s:s,s:s,s:b}", "id", id, "time",
							      when, "lost", p[i].lost != 0));
		else
			printf("%s %s %s\n", id, when,
			       p[i].lost ? track_lost_words(p[i].lost) : "known");
	}
	if (list)
		tool_print_json(list);
	return 0;
}

static int on_changed(void *context, uint64_t offset, uint64_t length)
{
	if (context)
		json_array_append_new(context, json_pack("{s:I,s:I}", "offset", (json_int_t)offset,
							 "length", (json_int_t)length));
	else
		printf("%#-18llx %#llx\n", (unsigned long long)offset, (unsigned long long)length);
	return 0;
}

static int run_since(struct disk *disk, struct error *err)
{
	json_t *list = o.json ? json_array() : NULL;
	struct guid id;
	int r = parse_id(o.since, &id, err);

	if (r >= 0)
		r = track_query(track_of(disk), &id, 0, disk->geometry.size, on_changed, list, err);
	if (r >= 0 && list)
		tool_print_json(json_pack(
			"{s:I,s:I,s:O}", "size", (json_int_t)disk->geometry.size, "granularity",
			(json_int_t)track_granularity(track_of(disk)), "changed", list));
	json_decref(list);
	/* Not a failure: an answer, and the bad one. */
	if (r == -ESTALE) {
		tool_fail("track", err);
		return TOOL_DIFFERS;
	}
	return r;
}

static int run_disable(const char *path, struct error *err)
{
	struct disk *disk;
	struct loop *loop;
	int r = loop_new(8, &loop, err);

	if (r < 0)
		return r;
	o.image.tracking = DISK_TRACK_OFF;
	o.image.alone = true;
	r = tool_open(loop, path, false, &o.image, &disk, err);
	if (r >= 0) {
		r = track_delete(path, err);
		disk_close(disk, NULL);
	}
	loop_free(loop);
	return r;
}

static int run_open(const char *path, struct error *err)
{
	bool reads = o.list || o.since;
	struct disk *disk;
	struct loop *loop;
	int r = loop_new(64, &loop, err), closed;

	if (r < 0)
		return r;
	o.image.tracking = o.enable ? DISK_TRACK_CREATE : DISK_TRACK_ASK;
	o.image.alone = true;
	r = tool_open(loop, path, reads, &o.image, &disk, err);
	if (r >= 0) {
		r = o.list    ? run_list(disk, err)
		    : o.since ? run_since(disk, err)
		    : o.drop  ? run_drop(disk, err)
			      : run_point(disk, err);
		closed = disk_close(disk, r < 0 ? NULL : err);
		r = r < 0 ? r : closed < 0 ? closed : r;
	}
	loop_free(loop);
	return r;
}

static int run(unsigned count, char **arguments, struct error *err)
{
	(void)count;
	if (o.enable + o.disable + o.point + o.list + !!o.since + !!o.drop != 1)
		return tool_usage(err, "say one of --enable, --disable, --point, --list, --since, "
				       "--drop");
	return o.disable ? run_disable(arguments[0], err) : run_open(arguments[0], err);
}

const struct tool_verb verb_track = {
	.name = "track",
	.synopsis = "IMAGE --enable | --disable | --point | --list | --since ID | --drop ID "
		    "[OPTION...]",
	.summary = "track the changes of a disk for backups",
	.notes =
		"What changes is noted in IMAGE.track by all who open IMAGE by its path to write "
		"it.\n"
		"Status 3: everything may have changed since ID.\n\n"
		"Example: a full backup, and later what has changed since\n"
		"  full=$(vhd track disk.vhdx --enable)\n"
		"  next=$(vhd track disk.vhdx --point); vhd track disk.vhdx --since $full --json\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
