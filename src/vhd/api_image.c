// SPDX-License-Identifier: MIT
/* The public library (include/partita/vhd.h) on images that nobody has open: a call does it all. */
#include "vhd/api.h"

#include "lib/cleanup.h"
#include "vhd/create.h"
#include "vhd/image.h"
#include "vhd/merge.h"
#include "vhd/repair.h"
#include "vhd/track.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

int api_tell(struct partita_vhd_error *ret, int code, const struct error *err)
{
	if (code < 0 && ret) {
		ret->code = code;
		memcpy(ret->message, err->message, sizeof(ret->message));
	}
	return code;
}
_Static_assert(sizeof(((struct error *)0)->message) ==
		       sizeof(((struct partita_vhd_error *)0)->message),
	       "an error's words are copied whole");

int api_open(struct loop *loop, const char *path, const struct disk_open_options *o,
	     struct disk **ret, struct error *err)
{
	int fd = open(path, (o->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);

	if (fd < 0)
		return error_errno(err, -errno, "cannot open \"%s\"", path);
	return disk_open(loop, fd, path, o, ret, err);
}

bool api_progress(void *context, uint64_t done, uint64_t total)
{
	const struct partita_vhd_progress *p = context;

	return !p->report(p->context, done, total);
}

int partita_vhd_create(const char *path, const struct partita_vhd_create_options *options,
		       struct partita_vhd_error *err)
{
	const struct image_create_options o = {
		.format = options->format ? options->format : "vhdx",
		.size = options->size,
		.block_size = options->block_size,
		.logical_sector = options->logical_sector,
		.fixed = options->fixed,
		.parent = options->parent,
		.search = options->search,
	};
	struct error why = { 0 };

	return api_tell(err, image_create(path, &o, &why), &why);
}

/* --- checking and repairing --- */

struct checking {
	struct check_report report;
	void (*found)(void *context, enum partita_vhd_finding kind, const char *text);
	void *context;
};

static void on_found(struct check_report *r, enum check_kind kind, const char *text)
{
	static const enum partita_vhd_finding kinds[] = {
		[CHECK_NOTE] = PARTITA_VHD_NOTE,
		[CHECK_WASTE] = PARTITA_VHD_WASTE,
		[CHECK_DAMAGE] = PARTITA_VHD_DAMAGE,
	};
	struct checking *c = container_of(r, struct checking, report);

	if (c->found)
		c->found(c->context, kinds[kind], text);
}

int partita_vhd_check(const char *path,
		      void (*found)(void *context, enum partita_vhd_finding kind, const char *text),
		      void *context, struct partita_vhd_error *err)
{
	struct checking c = { { .found = on_found }, found, context };
	int fd = open(path, O_RDONLY | O_CLOEXEC), r;
	struct error why = { 0 };

	if (fd < 0)
		r = error_errno(&why, -errno, "cannot open \"%s\"", path);
	else
		r = image_check(fd, path, &c.report, &why);
	return api_tell(err, r, &why);
}

struct repairing {
	struct repair_report report;
	void (*found)(void *context, enum partita_vhd_repaired kind, uint64_t offset, uint64_t n,
		      const char *text);
	void *context;
};

static void on_repaired(struct repair_report *r, enum repair_kind kind, uint64_t offset,
			uint64_t length, const char *text)
{
	static const enum partita_vhd_repaired kinds[] = {
		[REPAIR_MENDED] = PARTITA_VHD_MENDED,
		[REPAIR_RISK] = PARTITA_VHD_RISK,
		[REPAIR_LOST] = PARTITA_VHD_LOST,
	};
	struct repairing *p = container_of(r, struct repairing, report);

	if (p->found)
		p->found(p->context, kinds[kind], offset, length, text);
}

int partita_vhd_repair(const char *path,
		       void (*found)(void *context, enum partita_vhd_repaired kind, uint64_t offset,
				     uint64_t n, const char *text),
		       void *context, struct partita_vhd_error *err)
{
	struct repairing p = { { .found = on_repaired }, found, context };
	int fd = open(path, O_RDWR | O_CLOEXEC), r;
	struct error why = { 0 };

	if (fd < 0)
		r = error_errno(&why, -errno, "cannot open \"%s\"", path);
	else
		r = image_repair(fd, path, &p.report, &why);
	return api_tell(err, r, &why);
}

/* --- chains --- */

int partita_vhd_merge(const char *path, const char *const *search,
		      const struct partita_vhd_progress *progress, struct partita_vhd_error *err)
{
	const struct merge_options o = {
		.open = { .search = search },
		.progress = progress ? api_progress : NULL,
		.context = (void *)(uintptr_t)progress,
	};
	struct error why = { 0 };
	struct loop *loop;
	int r = loop_new(64, &loop, &why);

	if (r >= 0) {
		r = image_merge(loop, path, &o, &why);
		loop_free(loop);
	}
	return api_tell(err, r, &why);
}

int partita_vhd_rebase(const char *path, const char *parent, int any, const char *const *search,
		       struct partita_vhd_error *err)
{
	const struct rebase_options o = { .open = { .search = search }, .any_identity = any };
	struct error why = { 0 };
	struct loop *loop;
	int r = loop_new(64, &loop, &why);

	if (r >= 0) {
		r = image_rebase(loop, path, parent, &o, &why);
		loop_free(loop);
	}
	return api_tell(err, r, &why);
}

/* --- tracking changes --- */

int partita_vhd_track_enable(const char *path, const char *const *search, uint8_t ret_id[16],
			     struct partita_vhd_error *err)
{
	const struct disk_open_options o = { .follow = true,
					     .search = search,
					     .tracking = DISK_TRACK_CREATE };
	struct error why = { 0 };
	struct loop *loop;
	struct disk *disk;
	struct guid id;
	int r = loop_new(64, &loop, &why), closed;

	if (r < 0)
		return api_tell(err, r, &why);
	r = api_open(loop, path, &o, &disk, &why);
	if (r >= 0) {
		r = track_point(track_of(disk), &id, &why);
		closed = disk_close(disk, r < 0 ? NULL : &why);
		r = r < 0 ? r : closed;
	}
	loop_free(loop);
	if (r >= 0)
		memcpy(ret_id, &id, sizeof(id));
	return api_tell(err, r, &why);
}

int partita_vhd_track_disable(const char *path, struct partita_vhd_error *err)
{
	const struct disk_open_options o = { .alone = true, .tracking = DISK_TRACK_OFF };
	struct error why = { 0 };
	struct loop *loop;
	struct disk *disk;
	int r = loop_new(8, &loop, &why);

	if (r < 0)
		return api_tell(err, r, &why);
	r = api_open(loop, path, &o, &disk, &why);
	if (r >= 0) {
		r = track_delete(path, &why);
		disk_close(disk, NULL);
	}
	loop_free(loop);
	return api_tell(err, r, &why);
}
