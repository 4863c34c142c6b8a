// SPDX-License-Identifier: MIT
/* vhd info: what an image or a set is, and with --chain what its parents are. */
#include "vhdtool/verbs.h"

#include "lib/cleanup.h"
#include "vhd/chain.h"
#include "vhd/image.h"
#include "vhd/vhdset.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static struct {
	struct tool_list search;
	bool chain, json;
} o;

static const struct tool_option table[] = {
	{ "chain", TOOL_FLAG, &o.chain, NULL, "the parents of a differencing image too" },
	{ "search", TOOL_LIST, &o.search, "DIR", "look here too for a parent; repeatable" },
	{ "json", TOOL_FLAG, &o.json, NULL, "print JSON" },
	{ 0 },
};

static json_t *describe(const char *path, const struct image_info *i)
{
	char id[GUID_TEXT_SIZE];
	json_t *j = json_pack("{s:s,s:s,s:I,s:I,s:I,s:i,s:i}", "file", path, "format", i->format,
			      "size", (json_int_t)i->geometry.size, "file_size",
			      (json_int_t)i->file_size, "allocated", (json_int_t)i->allocated,
			      "logical_sector", (int)i->geometry.logical_sector, "physical_sector",
			      (int)i->geometry.physical_sector);

	if (!guid_is_zero(&i->geometry.id))
		json_object_set_new(j, "id", json_string(guid_format(&i->geometry.id, id)));
	if (!strcmp(i->format, "vhdx")) {
		json_object_set_new(j, "block_size", json_integer(i->vhdx.block_size));
		json_object_set_new(j, "fixed", json_boolean(i->vhdx.fixed));
		json_object_set_new(j, "differencing", json_boolean(i->vhdx.differencing));
		json_object_set_new(j, "dirty_log", json_boolean(i->vhdx.log_replayed));
		json_object_set_new(j, "data_write_id",
				    json_string(guid_format(&i->vhdx.data_write_guid, id)));
	}
	return j;
}

/* The path of the image's parent in *ret, NULL when it has none; what it says of it goes to j. */
static int find_parent(const char *path, json_t *j, char **ret, struct error *err)
{
	const struct tool_image image = { .alone = true };
	const struct disk_open_options options = {
		.read_only = true,
		.follow = true,
		.search = o.search.count ? o.search.items : NULL,
	};
	const struct disk_parent *p;
	char id[GUID_TEXT_SIZE];
	struct disk *disk;
	int r = tool_open(NULL, path, true, &image, &disk, err);

	*ret = NULL;
	if (r < 0)
		return r;
	p = disk->ops->parent ? disk->ops->parent(disk) : NULL;
	if (p) {
		json_t *says = json_pack("{s:s}", "id", guid_format(&p->id, id));

		if (p->relative)
			json_object_set_new(says, "relative", json_string(p->relative));
		if (p->volume)
			json_object_set_new(says, "volume", json_string(p->volume));
		if (p->absolute)
			json_object_set_new(says, "absolute", json_string(p->absolute));
		json_object_set_new(j, "parent", says);
		if (o.chain)
			r = chain_parent_path(disk, path, &options, ret, err);
	}
	(void)disk_close(disk, NULL);
	return r;
}

static json_t *registrants(const struct reserve_state *s)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < RESERVE_NEXUS_MAX; i++) {
		const struct reserve_nexus *n = &s->nexus[i];
		char id[GUID_TEXT_SIZE], key[24];

		if (!n->key)
			continue;
		snprintf(key, sizeof(key), "0x%016llx", (unsigned long long)n->key);
		json_array_append_new(list, json_pack("{s:s,s:s,s:b}", "initiator",
						      guid_format(&n->id, id), "key", key, "holder",
						      reserve_holds(s, n)));
	}
	return list;
}

static int add_set(json_t *list, const char *path, int fd, struct error *err)
{
	char id[GUID_TEXT_SIZE];
	struct vhdset_status s;
	json_t *j;
	int r = vhdset_status(fd, &s, err);

	if (r < 0)
		return error_prefix(err, "%s", path);
	j = json_pack("{s:s,s:s,s:s,s:s,s:s,s:I}", "file", path, "format", "set", "id",
		      guid_format(&s.info.id, id), "image", s.info.image, "image_format",
		      vhdset_format_name(s.info.format), "size", (json_int_t)s.info.image_size);
	if (!guid_is_zero(&s.info.image_id))
		json_object_set_new(j, "image_id", json_string(guid_format(&s.info.image_id, id)));
	json_object_set_new(j, "used", json_boolean(s.used));
	json_object_set_new(j, "changes", json_integer((json_int_t)s.change));
	json_object_set_new(j, "generation", json_integer(s.state.generation));
	json_object_set_new(j, "reservation", json_string(reserve_type_name(s.state.type)));
	json_object_set_new(j, "registrations", json_integer(reserve_registered(&s.state)));
	json_object_set_new(j, "registrants", registrants(&s.state));
	return json_array_append_new(list, j);
}

static int add_image(json_t *list, const char *path, char **ret_parent, struct error *err)
{
	struct image_info i;
	json_t *j;
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;

	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", path);
	if (vhdset_is(fd)) {
		r = add_set(list, path, fd, err);
		close(fd);
		return r;
	}
	r = image_info(fd, path, &i, err);
	if (r < 0)
		return r;
	j = describe(path, &i);
	json_array_append_new(list, j);
	return find_parent(path, j, ret_parent, err);
}

static void print_registrants(const json_t *list)
{
	size_t i;
	json_t *n;

	json_array_foreach(list, i, n)
		printf("%-16s %s key %s%s\n", "registrant",
		       json_string_value(json_object_get(n, "initiator")),
		       json_string_value(json_object_get(n, "key")),
		       json_is_true(json_object_get(n, "holder")) ? ", holds the reservation" : "");
}

static void print_text(const json_t *object, const char *prefix)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, key, value)
	{
		_cleanup_free_ char *text = json_dumps(value, JSON_ENCODE_ANY);
		char name[64];

		snprintf(name, sizeof(name), "%s%s", prefix, key);
		if (json_is_object(value))
			print_text(value, "parent_");
		else if (json_is_array(value))
			print_registrants(value);
		else
			printf("%-16s %s\n", name,
			       json_is_string(value) ? json_string_value(value) : text);
	}
}

static void print_list(json_t *list)
{
	size_t i;
	json_t *j;

	if (o.json) {
		tool_print_json(o.chain ? json_incref(list) : json_incref(json_array_get(list, 0)));
		return;
	}
	json_array_foreach(list, i, j)
	{
		if (i)
			putchar('\n');
		print_text(j, "");
	}
}

static int run(unsigned count, char **arguments, struct error *err)
{
	_cleanup_free_ char *path = strdup(arguments[0]);
	json_t *list = json_array();
	unsigned depth = 0;
	int r = 0;

	(void)count;
	while (path && r >= 0) {
		char *next = NULL;

		r = add_image(list, path, &next, err);
		free(path);
		path = next;
		if (r >= 0 && path && ++depth > CHAIN_DEPTH_MAX)
			r = error_set(err, -ELOOP, "the chain of parents goes round in a circle");
	}
	if (json_array_size(list))
		print_list(list);
	json_decref(list);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_info = {
	.name = "info",
	.synopsis = "IMAGE [OPTION...]",
	.summary = "say what an image or a set is",
	.notes = "Example:\n  vhd info today.vhdx --chain --json\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
