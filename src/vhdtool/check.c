// SPDX-License-Identifier: MIT
/* vhd check: examines an image without changing it. */
#include "vhdtool/verbs.h"

#include "vhd/image.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

static struct {
	bool json;
} o;

static const struct tool_option table[] = {
	{ "json", TOOL_FLAG, &o.json, NULL, "print JSON" },
	{ 0 },
};

struct findings {
	struct check_report report;
	json_t *list; /* NULL = print */
};

static void on_found(struct check_report *r, enum check_kind kind, const char *text)
{
	static const char *const kinds[] = { "note", "waste", "damage" };
	struct findings *f = container_of(r, struct findings, report);

	if (f->list)
		json_array_append_new(f->list,
				      json_pack("{s:s,s:s}", "kind", kinds[kind], "text", text));
	else
		printf("%s: %s\n", kinds[kind], text);
}

static void print_sum(struct findings *f, const char *path)
{
	const struct check_report *r = &f->report;

	if (f->list)
		tool_print_json(json_pack("{s:s,s:o,s:I,s:I,s:I,s:I,s:I}", "file", path, "findings",
					  json_incref(f->list), "damage",
					  (json_int_t)r->counts[CHECK_DAMAGE], "waste",
					  (json_int_t)r->counts[CHECK_WASTE], "notes",
					  (json_int_t)r->counts[CHECK_NOTE], "blocks",
					  (json_int_t)r->blocks, "blocks_present",
					  (json_int_t)r->blocks_present));
	else
		printf("%s: %u damaged, %u wasted, %u notes; %llu of %llu blocks present\n", path,
		       r->counts[CHECK_DAMAGE], r->counts[CHECK_WASTE], r->counts[CHECK_NOTE],
		       (unsigned long long)r->blocks_present, (unsigned long long)r->blocks);
}

static int run(unsigned count, char **arguments, struct error *err)
{
	struct findings f = { .report.found = on_found, .list = o.json ? json_array() : NULL };
	const char *path = arguments[0];
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;

	(void)count;
	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", path);
	r = image_check(fd, path, &f.report, err);
	if (r >= 0)
		print_sum(&f, path);
	json_decref(f.list);
	if (r < 0)
		return r;
	return f.report.counts[CHECK_DAMAGE] ? TOOL_DIFFERS : TOOL_OK;
}

const struct tool_verb verb_check = {
	.name = "check",
	.synopsis = "IMAGE [--json]",
	.summary = "examine an image",
	.notes = "Exit status: 0 nothing is wrong, 1 it could not be examined, 3 it is damaged.\n\n"
		 "Example:\n  vhd check disk.vhdx\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
