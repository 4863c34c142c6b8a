// SPDX-License-Identifier: MIT
/* vhd dump: every structure of an image as it stands on disk. */
#include "vhdtool/verbs.h"

#include "vhd/dump.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#define DEPTH_MAX 8

static struct {
	bool bat, json;
} o;

static const struct tool_option table[] = {
	{ "bat", TOOL_FLAG, &o.bat, NULL, "every used entry of the block table" },
	{ "json", TOOL_FLAG, &o.json, NULL, "print JSON" },
	{ 0 },
};

/* What is being told: the objects and lists that have begun. */
struct telling {
	json_t *open[DEPTH_MAX];
	unsigned depth;
};

static void add(struct telling *t, const char *name, json_t *value)
{
	json_t *in = t->open[t->depth];

	if (json_is_array(in))
		json_array_append_new(in, value);
	else
		json_object_set_new(in, name, value);
}

static void json_begin(void *context, const char *name, bool list)
{
	struct telling *t = context;
	json_t *value = list ? json_array() : json_object();

	add(t, name, value);
	t->open[++t->depth] = value;
}

static void json_end(void *context)
{
	((struct telling *)context)->depth--;
}

static void json_number(void *context, const char *name, uint64_t value)
{
	add(context, name, json_integer((json_int_t)value));
}

static void json_text(void *context, const char *name, const char *value)
{
	json_t *text = json_string(value);

	add(context, name, text ? text : json_string("(no valid text)"));
}

static void text_begin(void *context, const char *name, bool list)
{
	struct telling *t = context;

	(void)list;
	if (name)
		printf("%*s%s:\n", 2 * (int)t->depth, "", name);
	else
		printf("%*s-\n", 2 * (int)t->depth, "");
	t->depth++;
}

static void text_number(void *context, const char *name, uint64_t value)
{
	const struct telling *t = context;

	printf("%*s%-22s %llu", 2 * (int)t->depth, "", name, (unsigned long long)value);
	if (value >= 1024)
		printf(" (%#llx)", (unsigned long long)value);
	putchar('\n');
}

static void text_text(void *context, const char *name, const char *value)
{
	const struct telling *t = context;

	printf("%*s%-22s %s\n", 2 * (int)t->depth, "", name, value);
}

static int run(unsigned count, char **arguments, struct error *err)
{
	struct telling t = { 0 };
	const struct dump_visitor text = { text_begin, json_end, text_number, text_text, &t };
	const struct dump_visitor json = { json_begin, json_end, json_number, json_text, &t };
	const char *path = arguments[0];
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;

	(void)count;
	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", path);
	t.open[0] = o.json ? json_object() : NULL;
	r = image_dump(fd, path, o.json ? &json : &text, o.bat, err);
	if (r >= 0 && o.json)
		tool_print_json(json_incref(t.open[0]));
	json_decref(t.open[0]);
	return r < 0 ? r : TOOL_OK;
}

const struct tool_verb verb_dump = {
	.name = "dump",
	.synopsis = "IMAGE [--bat] [--json]",
	.summary = "show an image's structures as they stand on disk",
	.notes = "Example:\n  vhd dump disk.vhdx --bat\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
