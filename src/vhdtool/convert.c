// SPDX-License-Identifier: MIT
/*
 * vhd convert: makes an image of another one, in the same or another format. What reads as zeros
 * takes no space. With --resume an interrupted copy keeps what it has, and goes on from there.
 */
#include "vhdtool/verbs.h"

#include "lib/cleanup.h"
#include "vhd/create.h"
#include "vhd/image.h"
#include "vhdtool/convert.h"
#include "vhdtool/output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define CHECKPOINT (256 * MIB)

static struct {
	struct tool_image image;
	const char *to_format;
	uint64_t size, block_size, sector_size;
	bool fixed, force, resume, no_flush, no_space_check;
} o;

static const struct tool_option table[] = {
	{ "to", TOOL_CHOICE, &o.to_format, "raw|vhd|vhdx",
	  "format to make (by the name's ending)" },
	{ "size", TOOL_SIZE, &o.size, "SIZE", "make the disk larger" },
	{ "block-size", TOOL_SIZE, &o.block_size, "SIZE", "of a VHDX: 1M to 256M (32M)" },
	{ "sector-size", TOOL_SIZE, &o.sector_size, "N", "logical sectors: 512 or 4096" },
	{ "fixed", TOOL_FLAG, &o.fixed, NULL, "take all space now" },
	{ "force", TOOL_FLAG, &o.force, NULL, "replace FILE if it exists" },
	{ "resume", TOOL_FLAG, &o.resume, NULL, "keep what was copied when stopped, and go on" },
	{ "no-flush", TOOL_FLAG, &o.no_flush, NULL, "do not wait until the copy is durable" },
	{ "no-space-check", TOOL_FLAG, &o.no_space_check, NULL, "try even if space looks short" },
	TOOL_IMAGE_OPTIONS(o.image),
	{ 0 },
};

struct work {
	struct loop *loop;
	struct disk *from, *to;
	struct output out;
	struct image_create_options make;
	struct resume resume;
	uint64_t start; /* bytes that an earlier attempt copied */
};

static void on_checkpoint(void *context, uint64_t done)
{
	resume_save(&((struct work *)context)->resume, done);
}

static bool on_progress(void *context, uint64_t done, uint64_t total)
{
	(void)context;
	return tool_progress(NULL, done, total);
}

static int check_space(const struct work *w, struct error *err)
{
	uint64_t need = w->make.size;
	int r = 0;

	if (o.no_space_check)
		return 0;
	if (!o.fixed)
		r = disk_allocated(w->from, &need, err);
	need -= MIN(need, w->start);
	return r < 0 ? r : output_check_space(w->out.path, need, err);
}

static int resume_prepare(struct work *w, const char *source, struct error *err)
{
	char what[128];
	int r;

	if (w->from->below)
		return error_set(err, -ENOTSUP,
				 "\"%s\" has parents, whose changes --resume would not notice: "
				 "convert it without --resume",
				 source);
	snprintf(what, sizeof(what), "%s %llu %llu %llu %d", w->make.format,
		 (unsigned long long)w->make.size, (unsigned long long)w->make.block_size,
		 (unsigned long long)w->make.logical_sector, w->make.fixed);
	r = resume_init(&w->resume, source, w->out.partial, what, err);
	if (r < 0)
		return r;
	w->start = access(w->out.partial, F_OK) ? 0 : resume_load(&w->resume);
	if (w->start) {
		fprintf(stderr, "going on after %llu MiB\n", (unsigned long long)(w->start / MIB));
		return 0;
	}
	if (unlink(w->out.partial) < 0 && errno != ENOENT)
		return error_errno(err, -errno, "cannot remove \"%s\"", w->out.partial);
	resume_forget(&w->resume);
	return 0;
}

static int open_target(struct work *w, struct error *err)
{
	const struct disk_open_options options = {
		.format = w->make.format,
		.direct = true,
		.no_sync = o.no_flush,
	};
	int fd = open(w->out.partial, O_RDWR | O_CLOEXEC);

	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", w->out.partial);
	return disk_open(w->loop, fd, w->out.partial, &options, &w->to, err);
}

/* Closing makes the copy durable. */
static int copy(struct work *w, struct error *err)
{
	const struct disk_copy_options co = {
		.target_zeroed = true,
		.no_flush = true,
		.start = w->start,
		.progress = on_progress,
		.checkpoint = on_checkpoint,
		.checkpoint_every = o.resume ? CHECKPOINT : 0,
		.context = w,
	};
	int r = disk_copy(w->from, w->to, &co, err), closed;

	closed = disk_close(w->to, r < 0 ? NULL : err);
	tool_progress_end();
	return r < 0 ? r : closed;
}

static int finish(struct work *w, int result, struct error *err)
{
	bool keep = result < 0 && o.resume && resume_load(&w->resume);

	if (keep) {
		fprintf(stderr, "what was copied is kept in \"%s\"; the same command goes on\n",
			w->out.partial);
		return result;
	}
	if (o.resume)
		resume_forget(&w->resume);
	return output_end(&w->out, result, !o.no_flush, err);
}

static int convert(struct work *w, const char *source, struct error *err)
{
	uint64_t size = w->from->geometry.size;
	int r = 0;

	if (o.size && o.size < size)
		return error_set(err, -EINVAL,
				 "--size is smaller than the disk in \"%s\" (%llu bytes)", source,
				 (unsigned long long)size);
	w->make.size = MAX(o.size, size);
	if (!strcmp(w->make.format, "vhdx") && !w->make.logical_sector)
		w->make.logical_sector = w->from->geometry.logical_sector;
	if (o.resume)
		r = resume_prepare(w, source, err);
	if (r >= 0)
		r = check_space(w, err);
	if (r >= 0 && !w->start)
		r = image_create(w->out.partial, &w->make, err);
	if (r < 0)
		return r;
	r = open_target(w, err);
	if (r >= 0)
		r = copy(w, err);
	return finish(w, r, err);
}

static int convert_image(struct work *w, const char *source, const char *format, struct error *err)
{
	struct tool_image image = o.image;
	int r;

	image.format = format ? format : image.format;
	r = tool_open(w->loop, source, true, &image, &w->from, err);
	if (r >= 0)
		r = convert(w, source, err);
	(void)disk_close(w->from, NULL);
	return r;
}

/* Another program makes a raw image beside the one that is wanted. */
static int convert_external(struct work *w, const char *source, const char *format,
			    struct error *err)
{
	char raw[PATH_MAX + 8];
	int r;

	if (o.resume)
		return error_set(err, -ENOTSUP, "a %s image cannot be converted with --resume",
				 format);
	snprintf(raw, sizeof(raw), "%s.raw", w->out.partial);
	r = external_to_raw(source, format, raw, err);
	if (r >= 0)
		r = convert_image(w, raw, "raw", err);
	unlink(raw);
	return r;
}

static int run(unsigned count, char **arguments, struct error *err)
{
	const char *source = arguments[0];
	const char *external = o.image.format ? NULL : external_format(source);
	struct work w = {
		.make = {
			.format = output_format(arguments[1], o.to_format),
			.block_size = o.block_size,
			.logical_sector = o.sector_size,
			.later = arguments[1],
			.fixed = o.fixed,
		},
	};
	int r = output_begin(&w.out, arguments[1], o.force, o.resume, err);

	(void)count;
	if (r >= 0)
		r = loop_new(256, &w.loop, err);
	if (r < 0)
		return r;
	tool_catch_signals();
	r = external ? convert_external(&w, source, external, err)
		     : convert_image(&w, source, NULL, err);
	loop_free(w.loop);
	return r;
}

const struct tool_verb verb_convert = {
	.name = "convert",
	.synopsis = "IMAGE FILE [OPTION...]",
	.summary = "copy an image into another format",
	.notes = "IMAGE is raw, VHD or VHDX; qcow2, VMDK and VDI are read with qemu-img.\n\n"
		 "Examples:\n"
		 "  vhd convert debian.raw debian.vhdx\n"
		 "  vhd convert huge.vhdx huge.raw --resume\n",
	.options = table,
	.arguments_min = 2,
	.arguments_max = 2,
	.run = run,
};
