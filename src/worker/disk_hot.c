// SPDX-License-Identifier: MIT
/* See disk_hot.h. The table of commands comes last. */
#include "worker/disk_hot.h"

#include "control/server.h"
#include "lib/cleanup.h"
#include "worker/live.h"

#include <errno.h>
#include <string.h>

#define FILES_MAX CONTROL_MAX_FDS

/* --- what comes in --- */

static int take_place(const json_t *request, unsigned *ret_controller, unsigned *ret_lun,
		      struct error *err)
{
	const json_t *o = json_object_get(request, "disk");
	uint64_t controller, lun;

	if (!json_is_object(o))
		return error_set(err, -EINVAL,
				 "\"disk\" must be like {\"controller\": 0, \"lun\": 0}");
	if (take_number(o, "controller", 0, UINT32_MAX, &controller, err) < 0 ||
	    take_number(o, "lun", 0, UINT32_MAX, &lun, err) < 0)
		return error_prefix(err, "\"disk\"");
	*ret_controller = (unsigned)controller;
	*ret_lun = (unsigned)lun;
	return 0;
}

static int take_drive(struct command *c, struct drive **ret, struct error *err)
{
	unsigned controller, lun;
	int r = take_place(c->request, &controller, &lun, err);

	if (r < 0)
		return r;
	*ret = live_find(disks_live(c->context), controller, lun, err);
	return *ret ? 0 : -ENOENT;
}

/* {"descriptor": place, "path": where it lies}. */
static int take_file(struct command *c, const json_t *o, struct drive_file *ret, struct error *err)
{
	if (!json_is_object(o))
		return error_set(err, -EINVAL,
				 "a file is like {\"descriptor\": 0, \"path\": \"/x\"}");
	if (take_path(o, "path", false, &ret->path, err) < 0)
		return -EINVAL;
	return take_fd(c, o, "descriptor", true, &ret->fd, err);
}

/* A word of a list; the first when there is none. */
static int take_word(const json_t *o, const char *key, const char *const *words, unsigned *ret,
		     struct error *err)
{
	const char *text;

	*ret = 0;
	if (take_text(o, key, false, &text, err) < 0)
		return -EINVAL;
	if (!text)
		return 0;
	for (unsigned i = 0; words[i]; i++)
		if (!strcmp(text, words[i])) {
			*ret = i;
			return 0;
		}
	return error_set(err, -EINVAL, "\"%s\" cannot be \"%.20s\"", key, text);
}

/* --- attaching --- */

struct attaching {
	struct disks_drive drive;
	struct drive_file files[FILES_MAX];
};

static int take_options(const json_t *o, struct drive_options *ret, struct error *err)
{
	static const char *const kinds[] = { "disk", "dvd", NULL };
	static const char *const formats[] = { "auto", "raw", "vhd", "vhdx", NULL };
	unsigned kind, format;
	bool read_only;

	if (take_place(o, &ret->controller, &ret->lun, err) < 0 ||
	    take_word(o, "kind", kinds, &kind, err) < 0 ||
	    take_word(o, "format", formats, &format, err) < 0 ||
	    take_bool_or(o, "read_only", false, &read_only, err) < 0 ||
	    take_bool_or(o, "direct", false, &ret->direct, err) < 0)
		return -EINVAL;
	ret->kind = kind ? DRIVE_DVD : DRIVE_DISK;
	ret->read_only = read_only || kind;
	ret->format = formats[format];
	return 0;
}

static int take_files(struct command *c, struct attaching *a, struct error *err)
{
	const json_t *list = json_object_get(c->request, "files");
	size_t n = json_array_size(list);

	if (list && (!json_is_array(list) || n > FILES_MAX))
		return error_set(
			err, -EINVAL,
			"\"files\" must be a list of at most %u, the image and its parents",
			FILES_MAX);
	for (size_t i = 0; i < n; i++) {
		if (take_file(c, json_array_get(list, i), &a->files[i], err) < 0)
			return error_prefix(err, "files[%zu]", i);
		a->drive.file_count++;
	}
	return take_fd(c, c->request, "set", false, &a->drive.set_fd, err);
}

static int run_attach(struct command *c, struct error *err)
{
	struct attaching a = { .drive = { .set_fd = -1 } };
	int r = take_options(c->request, &a.drive.options, err);

	a.drive.files = a.files;
	if (r >= 0)
		r = take_files(c, &a, err);
	if (r < 0) {
		for (unsigned i = 0; i < a.drive.file_count; i++)
			close(a.files[i].fd);
		return r;
	}
	return disks_attach(c->context, &a.drive, err);
}

/* --- detaching, and discs --- */

static void on_left(void *context, int result, const struct error *err)
{
	struct command *c = context;

	c->done(c, result, err);
}

static int take_end(struct command *c, struct disks_end *ret, struct error *err)
{
	ret->done = on_left;
	ret->context = c;
	return take_bool_or(c->request, "force", false, &ret->force, err);
}

static int run_detach(struct command *c, struct error *err)
{
	struct disks_end end;
	struct drive *drive;
	int r = take_end(c, &end, err);

	if (r >= 0)
		r = take_drive(c, &drive, err);
	if (r >= 0)
		r = disks_detach(c->context, drive, &end, err);
	return r < 0 ? r : 1;
}

static int run_media(struct command *c, struct error *err)
{
	const json_t *o = json_object_get(c->request, "file");
	struct drive_file file;
	struct disks_end end;
	struct drive *drive;
	int r = take_end(c, &end, err);

	if (r >= 0)
		r = take_drive(c, &drive, err);
	if (r >= 0 && drive->kind != DRIVE_DVD)
		r = error_set(err, -EINVAL, "drive %u:%u is no DVD drive", drive->controller,
			      drive->lun);
	if (r >= 0 && o)
		r = take_file(c, o, &file, err);
	if (r >= 0)
		r = disks_load(c->context, drive, o ? &file : NULL, &end, err);
	return r < 0 ? r : 1;
}

static const struct command_type commands[] = {
	{ "disk-attach", " disk kind format read_only direct files set ", run_attach },
	{ "disk-detach", " disk force ", run_detach },
	{ "disk-media", " disk file force ", run_media },
	{ 0 },
};

struct command_family disk_hot_family(struct disks *disks)
{
	return (struct command_family){ .types = commands, .context = disks };
}
