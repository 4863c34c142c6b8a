// SPDX-License-Identifier: MIT
/* See disk_control.h. The table of commands comes last. */
#include "worker/disk_control.h"

#include "lib/cleanup.h"
#include "vhd/track.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define CHAIN_TOLD  8u    /* images of a chain in one answer */
#define DRIVES_TOLD 16u   /* on a page */
#define RANGES_MAX  1000u /* in one answer */
#define FREEZE_TIME 10u   /* seconds, when none are said */

/* A command about drives. */
struct disk_command {
	struct live *live; /* NULL until it is begun */
	struct command *asked;
	struct live_call call;
	struct live_part parts[LIVE_DRIVES_MAX];
};

/* --- what comes in --- */

static int drive_named(struct live *live, const json_t *o, struct drive **ret, struct error *err)
{
	uint64_t controller, lun;

	if (!json_is_object(o))
		return error_set(err, -EINVAL,
				 "a disk is named like {\"controller\": 0, \"lun\": 0}");
	if (take_number(o, "controller", 0, UINT32_MAX, &controller, err) < 0 ||
	    take_number(o, "lun", 0, UINT32_MAX, &lun, err) < 0)
		return -EINVAL;
	*ret = live_find(live, (unsigned)controller, (unsigned)lun, err);
	return *ret ? 0 : -ENOENT;
}

static struct live_part *part_add(struct disk_command *c, struct drive *drive)
{
	struct live_part *part = &c->parts[c->call.count++];

	*part = (struct live_part){
		.drive = drive, .fd = -1, .track_fd = -1, .image_fd = -1, .child_fd = -1
	};
	return part;
}

/* "disk", as the only part. */
static int take_disk(struct disk_command *c, struct error *err)
{
	struct drive *drive;
	int r = drive_named(c->live, json_object_get(c->asked->request, "disk"), &drive, err);

	if (r < 0)
		return error_prefix(err, "\"disk\"");
	part_add(c, drive);
	return 0;
}

/* "disks", a list of objects, each with more for `more`; or "disk". */
static int take_disks(struct disk_command *c,
		      int (*more)(struct disk_command *c, const json_t *o, struct live_part *part,
				  struct error *err),
		      struct error *err)
{
	const json_t *list = json_object_get(c->asked->request, "disks");
	size_t n = json_array_size(list);

	if (!list && !more)
		return take_disk(c, err);
	if (!n || n > LIVE_DRIVES_MAX)
		return error_set(err, -EINVAL, "\"disks\" must be a list of 1 to %u disks",
				 LIVE_DRIVES_MAX);
	for (size_t i = 0; i < n; i++) {
		const json_t *o = json_array_get(list, i);
		struct drive *drive;
		int r = drive_named(c->live, o, &drive, err);

		if (r >= 0) {
			struct live_part *part = part_add(c, drive);

			r = more ? more(c, o, part, err) : 0;
		}
		if (r < 0)
			return error_prefix(err, "disks[%zu]", i);
	}
	return 0;
}

/* --- what goes out --- */

/* Names of files are bytes; JSON has only characters. */
static json_t *text_of(const char *bytes)
{
	json_t *text = json_string(bytes);
	char *copy;

	if (text)
		return text;
	copy = strdup(bytes);
	for (char *p = copy; p && *p; p++)
		if (*p & 0x80)
			*p = '?';
	text = copy ? json_string(copy) : json_null();
	free(copy);
	return text;
}

static json_t *drive_name(const struct drive *d)
{
	return json_pack("{s:i,s:i}", "controller", (int)d->controller, "lun", (int)d->lun);
}

static json_t *disk_text(const struct guid *id)
{
	char text[GUID_TEXT_SIZE];

	return json_string(guid_format(id, text));
}

json_t *disk_event(const struct live_event *e, bool *ret_may_miss)
{
	json_t *o = json_object();

	*ret_may_miss = e->type == LIVE_MERGING;
	json_object_set_new(o, "disk", drive_name(e->drive));
	switch (e->type) {
	case LIVE_MERGING:
		json_object_set_new(o, "event", json_string("disk-merging"));
		json_object_set_new(o, "copied", json_integer((json_int_t)e->copied));
		json_object_set_new(o, "total", json_integer((json_int_t)e->total));
		break;
	case LIVE_MERGED:
		json_object_set_new(o, "event", json_string("disk-merged"));
		json_object_set_new(o, "ok", json_boolean(!e->reason));
		json_object_set_new(o, "file", text_of(e->file));
		if (e->into) {
			json_object_set_new(o, "into", text_of(e->into));
			json_object_set_new(o, "delete", json_pack("[o]", text_of(e->file)));
		}
		if (e->reason)
			json_object_set_new(o, "error", text_of(e->reason));
		break;
	case LIVE_THAWED:
		json_object_set_new(o, "event", json_string("disk-thawed"));
		json_object_set_new(o, "reason", text_of(e->reason));
		break;
	}
	return o;
}

/* --- commands --- */

static json_t *image_tell(const struct image *image)
{
	json_t *o = json_object();

	json_object_set_new(o, "file", text_of(image->name));
	json_object_set_new(o, "path_known", json_boolean(image->named));
	json_object_set_new(o, "format", json_string(image->format));
	json_object_set_new(o, "writable", json_boolean(image->writable));
	if (image->disk)
		json_object_set_new(o, "size",
				    json_integer((json_int_t)image->disk->geometry.size));
	return o;
}

static void chain_tell(const struct drive *d, uint64_t from, unsigned count, json_t *o)
{
	json_t *list = json_array();

	for (uint64_t i = from; i < d->depth && i < from + count; i++)
		json_array_append_new(list, image_tell(&d->images[i]));
	json_object_set_new(o, "chain_depth", json_integer(d->depth));
	json_object_set_new(o, "chain_from", json_integer((json_int_t)from));
	json_object_set_new(o, "chain", list);
}

static json_t *merge_tell(const struct drive *d)
{
	struct live_merge_state m = live_merge_state(d);

	if (!m.running)
		return json_null();
	return json_pack("{s:i,s:I,s:I}", "image", (int)m.image, "copied", (json_int_t)m.copied,
			 "total", (json_int_t)m.total);
}

static json_t *track_tell(const struct drive *d)
{
	struct track *t = d->gate && d->images[0].disk ? track_of(d->images[0].disk) : NULL;
	unsigned count;

	if (!t)
		return json_null();
	track_points(t, &count);
	return json_pack("{s:i,s:I}", "points", (int)count, "granularity",
			 (json_int_t)track_granularity(t));
}

static json_t *drive_tell(const struct drive *d, uint64_t chain_from, unsigned chain_count)
{
	static const char *const kinds[] = {
		[DRIVE_DISK] = "disk", [DRIVE_DVD] = "dvd", [DRIVE_SHARED] = "shared"
	};
	json_t *o = drive_name(d);

	json_object_set_new(o, "kind", json_string(kinds[d->kind]));
	json_object_set_new(o, "empty", json_boolean(!d->disk));
	if (d->disk) {
		const struct disk_geometry *g = &d->disk->geometry;

		json_object_set_new(o, "size", json_integer((json_int_t)g->size));
		json_object_set_new(o, "sector", json_integer(g->logical_sector));
	}
	json_object_set_new(o, "read_only", json_boolean(d->read_only));
	chain_tell(d, chain_from, chain_count, o);
	json_object_set_new(o, "frozen", json_boolean(d->frozen));
	json_object_set_new(o, "merge", merge_tell(d));
	json_object_set_new(o, "track", track_tell(d));
	return o;
}

/* --- the end of a change --- */

static void resize_told(struct disk_command *c)
{
	json_object_set_new(c->asked->answer, "size", json_integer((json_int_t)c->parts[0].size));
}

static void points_told(struct disk_command *c)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < c->call.count; i++) {
		json_t *o = drive_name(c->parts[i].drive);

		json_object_set_new(o, "point", disk_text(&c->parts[i].point));
		json_array_append_new(list, o);
	}
	json_object_set_new(c->asked->answer, "disks", list);
}

static void (*const told[LIVE_CHANGES])(struct disk_command *c) = {
	[LIVE_RESIZE] = resize_told,
	[LIVE_TRACK_ON] = points_told,
	[LIVE_TRACK_POINT] = points_told,
};

static void on_done(struct live_call *call, int result, const struct error *err)
{
	struct disk_command *c = container_of(call, struct disk_command, call);

	if (result >= 0 && told[call->change])
		told[call->change](c);
	c->asked->done(c->asked, result, err);
}

/* Descriptors of a request that was refused on the way. */
static void parts_drop(struct command *asked)
{
	struct disk_command *c = asked->state;

	for (unsigned i = 0; i < c->call.count; i++) {
		const struct live_part *p = &c->parts[i];
		const int fds[] = { p->fd, p->track_fd, p->image_fd, p->child_fd };

		for (size_t n = 0; n < ARRAY_SIZE(fds); n++)
			if (fds[n] >= 0)
				close(fds[n]);
	}
}

static struct disk_command *disk_begin(struct command *asked)
{
	struct disk_command *c = asked->state;

	c->live = asked->context;
	c->asked = asked;
	c->call = (struct live_call){ .parts = c->parts, .done = on_done };
	return c;
}

/* --- commands --- */

/* A page of the list, for one who wants to know what there is: it fits into any answer. */
static int query_page(struct disk_command *c, struct error *err)
{
	json_t *list;
	uint64_t from;
	int r = take_number(c->asked->request, "from", 0, UINT32_MAX, &from, err);

	if (r < 0)
		return r;
	list = json_array();
	for (uint64_t i = from; i < live_count(c->live) && i < from + DRIVES_TOLD; i++)
		json_array_append_new(list, drive_tell(live_drive(c->live, (unsigned)i), 0, 1));
	json_object_set_new(c->asked->answer, "disks", list);
	json_object_set_new(c->asked->answer, "total", json_integer(live_count(c->live)));
	return 0;
}

static int run_query(struct command *asked, struct error *err)
{
	struct disk_command *c = disk_begin(asked);
	json_t *list;
	uint64_t from;
	int r;

	if (json_object_get(asked->request, "from"))
		return query_page(c, err);
	r = take_number_or(c->asked->request, "chain_from", 0, UINT32_MAX, &from, err);
	if (r >= 0 && json_object_get(c->asked->request, "disk"))
		r = take_disk(c, err);
	if (r < 0)
		return r;
	list = json_array();
	for (unsigned i = 0; i < live_count(c->live); i++)
		if (!c->call.count || c->parts[0].drive == live_drive(c->live, i))
			json_array_append_new(list,
					      drive_tell(live_drive(c->live, i), from, CHAIN_TOLD));
	json_object_set_new(c->asked->answer, "disks", list);
	return 0;
}

static int begin(struct disk_command *c, enum live_change change, struct error *err)
{
	int r;

	c->call.change = change;
	r = live_begin(c->live, &c->call, err);
	return r < 0 ? r : 1;
}

static int run_resize(struct command *asked, struct error *err)
{
	struct disk_command *c = disk_begin(asked);
	int r = take_disk(c, err);

	if (r >= 0)
		r = take_number(c->asked->request, "size", 1, INT64_MAX, &c->parts[0].size, err);
	return r < 0 ? r : begin(c, LIVE_RESIZE, err);
}

static int snapshot_more(struct disk_command *c, const json_t *o, struct live_part *part,
			 struct error *err)
{
	uint64_t block_size;
	int r = take_path(o, "file", true, &part->file, err);

	if (r >= 0)
		r = take_path(o, "parent_file", false, &part->parent_file, err);
	if (r >= 0)
		r = take_number_or(o, "block_size", 0, 256 * MIB, &block_size, err);
	if (r >= 0)
		r = take_fd(c->asked, o, "descriptor", true, &part->fd, err);
	if (r >= 0)
		r = take_fd(c->asked, o, "track", false, &part->track_fd, err);
	if (r >= 0)
		part->block_size = (uint32_t)block_size;
	return r;
}

static int run_snapshot(struct command *asked, struct error *err)
{
	struct disk_command *c = disk_begin(asked);
	int r = take_disks(c, snapshot_more, err);

	return r < 0 ? r : begin(c, LIVE_SNAPSHOT, err);
}

static int run_merge(struct command *asked, struct error *err)
{
	struct disk_command *c = disk_begin(asked);
	struct live_part *part = &c->parts[0];
	uint64_t image;
	int r = take_disk(c, err);

	if (r >= 0)
		r = take_number_or(c->asked->request, "image", 0, 65535, &image, err);
	if (r >= 0)
		r = take_fd(c->asked, c->asked->request, "parent", false, &part->fd, err);
	if (r >= 0)
		r = take_fd(c->asked, c->asked->request, "self", false, &part->image_fd, err);
	if (r >= 0)
		r = take_fd(c->asked, c->asked->request, "child", false, &part->child_fd, err);
	if (r >= 0)
		r = take_fd(c->asked, c->asked->request, "track", false, &part->track_fd, err);
	if (r < 0)
		return r;
	part->image = (unsigned)image;
	return begin(c, LIVE_MERGE, err);
}

static int run_cancel(struct command *asked, struct error *err)
{
	struct disk_command *c = disk_begin(asked);
	int r = take_disk(c, err);

	return r < 0 ? r : live_cancel(c->live, c->parts[0].drive, err);
}

static int run_freeze(struct command *asked, struct error *err)
{
	struct disk_command *c = disk_begin(asked);
	uint64_t seconds = FREEZE_TIME;
	int r = take_disks(c, NULL, err);

	if (r >= 0 && json_object_get(c->asked->request, "seconds"))
		r = take_number(c->asked->request, "seconds", 1, LIVE_FREEZE_MAX, &seconds, err);
	if (r < 0)
		return r;
	c->call.seconds = (unsigned)seconds;
	json_object_set_new(c->asked->answer, "seconds", json_integer((json_int_t)seconds));
	return begin(c, LIVE_FREEZE, err);
}

/* All that can be; the first that cannot is told. */
static int run_thaw(struct command *asked, struct error *err)
{
	struct disk_command *c = disk_begin(asked);
	int r = take_disks(c, NULL, err);
	struct error first = { 0 };

	if (r < 0)
		return r;
	for (unsigned i = 0; i < c->call.count; i++) {
		int one = live_thaw(c->live, c->parts[i].drive, &first);

		if (one < 0 && r >= 0) {
			r = one;
			*err = first;
		}
	}
	return r;
}

/* --- tracking --- */

static int track_on(struct disk_command *c, struct error *err)
{
	int r = take_disk(c, err);

	if (r >= 0)
		r = take_fd(c->asked, c->asked->request, "descriptor", true, &c->parts[0].fd, err);
	return r < 0 ? r : begin(c, LIVE_TRACK_ON, err);
}

static int track_off(struct disk_command *c, struct error *err)
{
	int r = take_disk(c, err);

	return r < 0 ? r : begin(c, LIVE_TRACK_OFF, err);
}

static int track_point_make(struct disk_command *c, struct error *err)
{
	int r = take_disks(c, NULL, err);

	return r < 0 ? r : begin(c, LIVE_TRACK_POINT, err);
}

static int track_point_drop(struct disk_command *c, struct error *err)
{
	int r = take_disk(c, err);

	if (r >= 0)
		r = take_guid(c->asked->request, "point", &c->parts[0].point, err);
	return r < 0 ? r : begin(c, LIVE_TRACK_DROP, err);
}

static int track_to_ask(struct disk_command *c, struct track **ret, struct error *err)
{
	int r = take_disk(c, err);

	if (r < 0)
		return r;
	*ret = live_track(c->live, c->parts[0].drive, err);
	return *ret ? 0 : -ENOENT;
}

static json_t *point_tell(const struct track_point *p)
{
	json_t *o = json_object();
	time_t seconds = (time_t)(p->time / 1000000000);
	char when[32];
	struct tm tm;

	gmtime_r(&seconds, &tm);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", &tm);
	json_object_set_new(o, "id", disk_text(&p->id));
	json_object_set_new(o, "time", json_string(when));
	json_object_set_new(o, "lost", json_boolean(p->lost));
	if (p->lost)
		json_object_set_new(o, "reason", json_string(track_lost_words(p->lost)));
	return o;
}

static int track_list(struct disk_command *c, struct error *err)
{
	const struct track_point *points;
	struct track *t;
	unsigned count;
	json_t *list;
	int r = track_to_ask(c, &t, err);

	if (r < 0)
		return r;
	list = json_array();
	points = track_points(t, &count);
	for (unsigned i = 0; i < count; i++)
		json_array_append_new(list, point_tell(&points[i]));
	json_object_set_new(c->asked->answer, "points", list);
	return 0;
}

struct page {
	json_t *ranges;
	uint64_t limit, next;
};

static int on_changed(void *context, uint64_t offset, uint64_t length)
{
	struct page *page = context;

	if (json_array_size(page->ranges) == page->limit) {
		page->next = offset;
		return 1;
	}
	json_array_append_new(page->ranges,
			      json_pack("[I,I]", (json_int_t)offset, (json_int_t)length));
	return 0;
}

static int track_ask(struct disk_command *c, struct error *err)
{
	struct page page = { .limit = RANGES_MAX };
	uint64_t offset;
	struct guid point;
	struct track *t;
	int r = track_to_ask(c, &t, err);

	if (r >= 0)
		r = take_guid(c->asked->request, "point", &point, err);
	if (r >= 0)
		r = take_number_or(c->asked->request, "offset", 0, INT64_MAX, &offset, err);
	if (r >= 0 && json_object_get(c->asked->request, "limit"))
		r = take_number(c->asked->request, "limit", 1, RANGES_MAX, &page.limit, err);
	if (r < 0)
		return r;
	page.ranges = json_array();
	r = track_query(t, &point, offset, UINT64_MAX / 2, on_changed, &page, err);
	if (r < 0) {
		json_decref(page.ranges);
		return r;
	}
	json_object_set_new(c->asked->answer, "changed", page.ranges);
	json_object_set_new(c->asked->answer, "granularity",
			    json_integer((json_int_t)track_granularity(t)));
	json_object_set_new(c->asked->answer, "size",
			    json_integer((json_int_t)c->parts[0].drive->disk->geometry.size));
	if (r)
		json_object_set_new(c->asked->answer, "next", json_integer((json_int_t)page.next));
	return 0;
}

static const struct {
	const char *name;
	int (*run)(struct disk_command *c, struct error *err);
} track_actions[] = {
	{ "on", track_on },           { "off", track_off },   { "point", track_point_make },
	{ "drop", track_point_drop }, { "list", track_list }, { "query", track_ask },
};

static int run_track(struct command *asked, struct error *err)
{
	struct disk_command *c = disk_begin(asked);
	const char *action = json_string_value(json_object_get(c->asked->request, "action"));

	for (size_t i = 0; i < ARRAY_SIZE(track_actions) && action; i++)
		if (!strcmp(action, track_actions[i].name))
			return track_actions[i].run(c, err);
	return error_set(err, -EINVAL, "\"action\" is one of on, off, point, drop, list and query");
}

/* --- the table --- */

const struct command_type disk_commands[] = {
	{ "disk-query", " disk chain_from from ", run_query },
	{ "disk-resize", " disk size ", run_resize },
	{ "disk-snapshot", " disks ", run_snapshot },
	{ "disk-merge", " disk image parent self child track ", run_merge },
	{ "disk-cancel", " disk ", run_cancel },
	{ "disk-freeze", " disk disks seconds ", run_freeze },
	{ "disk-thaw", " disk disks ", run_thaw },
	{ "disk-track", " action disk disks descriptor point offset limit ", run_track },
	{ 0 },
};

struct command_family disk_family(struct live *live)
{
	return (struct command_family){ .types = disk_commands,
					.context = live,
					.state_size = sizeof(struct disk_command),
					.refused = parts_drop };
}
