// SPDX-License-Identifier: MIT
/*
 * vhd check: examines an image without changing it, and with --repair makes one of it that is good
 * again: a copy, unless --in-place.
 */
#include "vhdtool/verbs.h"

#include "lib/cleanup.h"
#include "vhd/image.h"
#include "vhd/repair.h"
#include "vhdtool/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

static struct {
	const char *output;
	bool json, repair, in_place, force;
} o;

static const struct tool_option table[] = {
	{ "json", TOOL_FLAG, &o.json, NULL, "print JSON" },
	{ "repair", TOOL_FLAG, &o.repair, NULL, "make a good image of a damaged one" },
	{ "output", TOOL_FILE, &o.output, "FILE", "the repaired copy" },
	{ "in-place", TOOL_FLAG, &o.in_place, NULL, "repair the image itself" },
	{ "force", TOOL_FLAG, &o.force, NULL, "replace the --output if it exists" },
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
		tool_print_json(json_pack(
			"{s:s,s:o,s:I,s:I,s:I,s:I,s:I}", "file", path, "findings",
			json_incref(f->list), "damage", (json_int_t)r->counts[CHECK_DAMAGE],
			"waste", (json_int_t)r->counts[CHECK_WASTE], "notes",
			(json_int_t)r->counts[CHECK_NOTE], "blocks", (json_int_t)r->blocks,
			"blocks_present", (json_int_t)r->blocks_present));
	else
		printf("%s: %u damaged, %u wasted, %u notes; %llu of %llu blocks present\n", path,
		       r->counts[CHECK_DAMAGE], r->counts[CHECK_WASTE], r->counts[CHECK_NOTE],
		       (unsigned long long)r->blocks_present, (unsigned long long)r->blocks);
}

static int check(const char *path, struct error *err)
{
	struct findings f = { .report.found = on_found, .list = o.json ? json_array() : NULL };
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;

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

/* --- repair --- */

struct losses {
	struct repair_report report;
	json_t *list; /* NULL = print */
};

static void on_repaired(struct repair_report *r, enum repair_kind kind, uint64_t offset,
			uint64_t length, const char *text)
{
	static const char *const kinds[] = { "mended", "risk", "lost" };
	struct losses *l = container_of(r, struct losses, report);
	json_t *j;

	if (!l->list) {
		printf("%s: %s\n", kinds[kind], text);
		return;
	}
	j = json_pack("{s:s,s:s}", "kind", kinds[kind], "text", text);
	if (kind == REPAIR_LOST) {
		json_object_set_new(j, "offset", json_integer((json_int_t)offset));
		json_object_set_new(j, "length", json_integer((json_int_t)length));
	}
	json_array_append_new(l->list, j);
}

static int open_raw(struct loop *loop, const char *path, bool read_only, struct disk **ret,
		    struct error *err)
{
	const struct tool_image raw = { .format = "raw" };

	return tool_open(loop, path, read_only, &raw, ret, err);
}

/* A copy of the file's bytes, holes included. */
static int copy_file(const char *from, const char *to, struct error *err)
{
	const struct disk_copy_options options = {
		.target_zeroed = true,
		.no_flush = true,
		.progress = tool_progress,
	};
	struct disk *source = NULL, *target = NULL;
	struct loop *loop;
	int r = loop_new(64, &loop, err), closed;

	if (r < 0)
		return r;
	r = open_raw(loop, from, true, &source, err);
	if (r >= 0) {
		_cleanup_close_ int fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);

		if (fd < 0 || ftruncate(fd, (off_t)source->geometry.size) < 0)
			r = error_errno(err, -errno, "cannot make \"%s\"", to);
	}
	if (r >= 0)
		r = open_raw(loop, to, false, &target, err);
	if (r >= 0)
		r = disk_copy(source, target, &options, err);
	closed = disk_close(target, r < 0 ? NULL : err);
	(void)disk_close(source, NULL);
	loop_free(loop);
	tool_progress_end();
	return r < 0 ? r : closed;
}

/* `name` is what messages call it. */
static int repair_file(const char *path, const char *name, struct losses *l, struct error *err)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\" for writing", path);
	return image_repair(fd, name, &l->report, err);
}

static int repair_copy(const char *path, struct losses *l, struct error *err)
{
	struct output out;
	int r = output_begin(&out, o.output, o.force, false, err);

	if (r < 0)
		return r;
	r = copy_file(path, out.partial, err);
	if (r >= 0)
		r = repair_file(out.partial, path, l, err);
	return output_end(&out, r, true, err);
}

static int repair(const char *path, struct error *err)
{
	struct losses l = { .report.found = on_repaired, .list = o.json ? json_array() : NULL };
	const unsigned *counts = l.report.counts;
	int r = o.in_place ? repair_file(path, path, &l, err) : repair_copy(path, &l, err);

	if (r >= 0 && l.list)
		tool_print_json(json_pack("{s:s,s:O,s:I}", "file", o.in_place ? path : o.output,
					  "repairs", l.list, "lost", (json_int_t)l.report.lost));
	else if (r >= 0)
		printf("%s: %u mended, %u risks, %u ranges lost (%llu bytes of the disk)\n",
		       o.in_place ? path : o.output, counts[REPAIR_MENDED], counts[REPAIR_RISK],
		       counts[REPAIR_LOST], (unsigned long long)l.report.lost);
	json_decref(l.list);
	if (r < 0)
		return r;
	return counts[REPAIR_RISK] || counts[REPAIR_LOST] ? TOOL_DIFFERS : TOOL_OK;
}

static int run(unsigned count, char **arguments, struct error *err)
{
	(void)count;
	if (!o.repair && (o.output || o.in_place))
		return tool_usage(err, "--output and --in-place belong to --repair");
	if (o.repair && !o.output == !o.in_place)
		return tool_usage(err, "--repair wants --output FILE for the repaired copy, or "
				       "--in-place");
	if (!o.repair)
		return check(arguments[0], err);
	tool_catch_signals();
	return repair(arguments[0], err);
}

const struct tool_verb verb_check = {
	.name = "check",
	.synopsis = "IMAGE [--json] [--repair --output FILE]",
	.summary = "examine an image",
	.notes =
		"Exit status: 0 nothing is wrong, 1 it could not be examined, 3 it is damaged, or\n"
		"data was lost by the repair.\n\n"
		"Examples:\n"
		"  vhd check disk.vhdx\n"
		"  vhd check disk.vhdx --repair --output repaired.vhdx\n",
	.options = table,
	.arguments_min = 1,
	.arguments_max = 1,
	.run = run,
};
