// SPDX-License-Identifier: MIT
/* Opening an image on a descriptor: lock it, find out what it is, and stack the layers. */
#include "vhd/disk.h"

#include "lib/cleanup.h"
#include "vhd/chain.h"
#include "vhd/dump.h"
#include "vhd/image.h"
#include "vhd/raw.h"
#include "vhd/repair.h"
#include "vhd/store.h"
#include "vhd/track.h"
#include "vhd/vhd.h"
#include "vhd/vhd_meta.h"
#include "vhd/vhdset.h"
#include "vhd/vhdx.h"
#include "vhd/vhdx_format.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct format {
	const char *name;
	/* The first and the last bytes of the store, PROBE_SIZE each or all that there are. */
	bool (*probe)(const void *first, const void *last, size_t size);
	int (*open)(struct store *store, struct disk **ret, struct error *err);
	/* NULL = there is nothing that could be wrong */
	int (*check)(struct store *store, struct check_report *report, struct error *err);
	int (*dump)(struct store *store, const struct dump_visitor *to, bool all_blocks,
		    struct error *err);
};

#define PROBE_SIZE 512u

static bool probe_vhdx(const void *first, const void *last, size_t size)
{
	(void)last;
	return vhdx_probe(first, size);
}

static bool probe_any(const void *first, const void *last, size_t size)
{
	(void)first, (void)last, (void)size;
	return true;
}

static const struct format formats[] = {
	{ "vhdx", probe_vhdx, vhdx_open, vhdx_check, vhdx_dump },
	{ "vhd", vhd_probe, vhd_open, vhd_check, vhd_dump },
	{ "raw", probe_any, raw_open, NULL, NULL },
};

static const struct format *format_named(const char *name, struct error *err)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (!strcmp(formats[i].name, name))
			return &formats[i];
	error_set(err, -EINVAL, "there is no image format \"%s\"; there are vhdx, vhd and raw",
		  name);
	return NULL;
}

static const struct format *format_probe(struct store *s, struct error *err)
{
	uint8_t first[PROBE_SIZE], last[PROBE_SIZE];
	size_t n = MIN(PROBE_SIZE, s->size);
	int r = store_read(s, first, n, 0);

	if (r >= 0)
		r = store_read(s, last, n, s->size - n);
	if (r < 0) {
		error_errno(err, r, "cannot read the image");
		return NULL;
	}
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (formats[i].probe(first, last, n))
			return formats[i].open == raw_open && vhd_footer_behind(s)
				       ? format_named("vhd", err)
				       : &formats[i];
	return NULL;
}

static int format_open(struct store *s, const char *name, struct disk **ret, struct error *err)
{
	struct error why = { 0 };
	const struct format *f =
		name && strcmp(name, "auto") ? format_named(name, &why) : format_probe(s, &why);

	if (f)
		return f->open(s, ret, err);
	store_close(s);
	return error_set(err, why.code, "%s", why.message);
}

/* The format and the parents on a store, which is this function's. */
static int layers_open(struct store *s, int fd, const char *name,
		       const struct disk_open_options *options, struct disk **ret,
		       struct error *err)
{
	struct disk *disk;
	int r = format_open(s, options->format, &disk, err);

	if (r < 0)
		return r;
	r = chain_open_parents(disk, fd, name, options, err);
	if (r < 0)
		disk_close(disk, NULL);
	else
		*ret = disk;
	return r;
}

/* Who names a format gets it. */
static int set_refuse(int fd, const char *name, const char *format, struct error *err)
{
	struct vhdset_info i;

	if ((format && strcmp(format, "auto")) || !vhdset_is(fd))
		return 0;
	if (vhdset_info(fd, &i, err) < 0)
		return error_prefix(err, "%s", name);
	return error_set(err, -EINVAL,
			 "%s: this is a set, through which machines share the image \"%s\", and no "
			 "image itself",
			 name, i.image);
}

int disk_open(struct loop *loop, int fd, const char *name, const struct disk_open_options *options,
	      struct disk **ret, struct error *err)
{
	struct store_file_options file = {
		.read_only = options->read_only,
		.direct = options->direct,
		.no_sync = options->no_sync,
		.writes_block = options->writes_block,
	};
	struct track_file *track = NULL;
	struct disk *disk;
	struct store *s;
	int r = set_refuse(fd, name, options->format, err);

	if (r < 0) {
		close(fd);
		if (options->tracking == DISK_TRACK_PASSED)
			close(options->track_fd);
		return r;
	}
	r = store_file_open(loop, fd, &file, &s, err);
	if (r < 0 && options->tracking == DISK_TRACK_PASSED)
		close(options->track_fd);
	/* Opening a format may write to the file: how it was left is looked at before. */
	if (r >= 0) {
		r = track_find(loop, fd, name, options, &track, err);
		if (r < 0)
			store_close(s);
		else
			r = layers_open(s, fd, name, options, &disk, err);
	}
	if (r >= 0 && track) {
		r = track_attach(steal_ptr(track), &disk, err);
		if (r < 0)
			disk_close(disk, NULL);
	}
	track_release(track);
	if (r < 0)
		error_prefix(err, "%s", name);
	else
		*ret = disk;
	return r;
}

int disk_open_store(struct store *store, struct disk **ret, struct error *err)
{
	return format_open(store, NULL, ret, err);
}

int disk_close(struct disk *disk, struct error *err)
{
	return disk ? disk->ops->close(disk, err) : 0;
}

int image_info(int fd, const char *name, struct image_info *ret, struct error *err)
{
	const struct disk_open_options options = { .read_only = true, .alone = true };
	struct disk *disk;
	struct stat st = { 0 };
	int r;

	fstat(fd, &st);
	r = disk_open(NULL, fd, name, &options, &disk, err);
	if (r < 0)
		return r;
	*ret = (struct image_info){
		.format = disk->ops->name,
		.geometry = disk->geometry,
		.file_size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : disk->geometry.size,
		.allocated = (uint64_t)st.st_blocks * 512,
	};
	if (!strcmp(disk->ops->name, "vhdx"))
		vhdx_info(disk, &ret->vhdx);
	else if (!strcmp(disk->ops->name, "vhd"))
		vhd_info(disk, &ret->vhd);
	return disk_close(disk, err);
}

static bool header_of_vhd(struct store *s)
{
	be64 cookie = be64_of(0);

	return store_read(s, &cookie, sizeof(cookie), VHD_FOOTER_SIZE) >= 0 &&
	       be64_get(cookie) == VHD_HEADER_COOKIE;
}

/* A raw image has nothing that could be wrong, unless it is one that has lost its start. */
static int check_raw(struct store *s, struct check_report *report)
{
	le32 head = le32_of(0), regions = le32_of(0);
	int r = store_read(s, &head, sizeof(head), VHDX_HEADER_OFFSET(0));

	if (r >= 0)
		r = store_read(s, &regions, sizeof(regions), VHDX_REGION_OFFSET(0));
	if (r >= 0 && le32_get(head) == VHDX_HEADER_SIGNATURE &&
	    le32_get(regions) == VHDX_REGION_SIGNATURE)
		check_found(report, CHECK_DAMAGE,
			    "has the structures of a VHDX, but does not start with \"vhdxfile\"");
	else if (r >= 0 && header_of_vhd(s))
		check_found(report, CHECK_DAMAGE,
			    "has the header of a VHD, but neither of its footers");
	return r;
}

int store_check(struct store *s, struct check_report *report, struct error *err)
{
	const struct format *f = format_probe(s, err);
	int r;

	if (f && f->check)
		return f->check(s, report, err);
	r = f ? check_raw(s, report) : -EIO;
	store_close(s);
	return r;
}

int image_check(int fd, const char *name, struct check_report *report, struct error *err)
{
	const struct store_file_options file = { .read_only = true };
	struct store *s;
	int r;

	if (vhdset_is(fd)) {
		r = vhdset_check(fd, report, err);
		close(fd);
	} else {
		r = store_file_open(NULL, fd, &file, &s, err);
		if (r >= 0)
			r = store_check(s, report, err);
	}
	if (r < 0)
		error_prefix(err, "%s", name);
	return r;
}

static int store_dump(struct store *s, const struct dump_visitor *to, bool all_blocks,
		      struct error *err)
{
	const struct format *f = format_probe(s, err);

	if (!f)
		return -EIO;
	if (!f->dump)
		return error_set(err, -ENOTSUP, "a %s image has no structures that could be shown",
				 f->name);
	return f->dump(s, to, all_blocks, err);
}

int image_dump(int fd, const char *name, const struct dump_visitor *to, bool all_blocks,
	       struct error *err)
{
	const struct store_file_options file = { .read_only = true };
	struct store *s;
	int r;

	if (vhdset_is(fd)) {
		r = vhdset_dump(fd, to, err);
		close(fd);
	} else {
		r = store_file_open(NULL, fd, &file, &s, err);
		if (r >= 0) {
			r = store_dump(s, to, all_blocks, err);
			store_close(s);
		}
	}
	if (r < 0)
		error_prefix(err, "%s", name);
	return r;
}

/*
 * The first bytes of a damaged image may be anything: what nothing else speaks for is taken for a
 * VHDX, which has most copies of itself.
 */
int store_repair(struct store *s, struct repair_report *report, struct error *err)
{
	const struct format *f = format_probe(s, err);

	if (!f)
		return -EIO;
	if (f->open == vhd_open || (f->open == raw_open && header_of_vhd(s)))
		return vhd_repair(s, report, err);
	return vhdx_repair(s, report, err);
}

int image_repair(int fd, const char *name, struct repair_report *report, struct error *err)
{
	const struct store_file_options file = { 0 };
	struct store *s;
	int r;

	if (vhdset_is(fd)) {
		close(fd);
		return error_set(
			err, -ENOTSUP,
			"%s: a set holds no data and is not repaired; when nobody uses the "
			"image, make a new one with vhd share",
			name);
	}
	r = store_file_open(NULL, fd, &file, &s, err);
	if (r >= 0) {
		r = store_repair(s, report, err);
		store_close(s);
	}
	if (r < 0)
		error_prefix(err, "%s", name);
	return r;
}
