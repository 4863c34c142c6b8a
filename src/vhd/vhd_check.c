// SPDX-License-Identifier: MIT
/*
 * Examining a VHD without changing it: both footers, and every entry of the table against the file
 * and against each other. Ranges of the file that are used are gathered and sorted: eight bytes a
 * block, of which there are at most four million.
 */
#include "vhd/image.h"

#include "lib/cleanup.h"
#include "vhd/vhd_internal.h"

#include <errno.h>
#include <string.h>

#define GAP_MAX UINT64_C(8192) /* in front of a block: footer and alignment */

struct check {
	struct vhd *v;
	struct check_report *report;
	uint64_t *used; /* first sector << 32 | block */
	size_t count;
};

static void check_entry(struct check *c, const struct vhd_page *p, uint64_t block)
{
	uint64_t offset;
	int r = vhd_bat_get(c->v, p, block, &offset);

	if (!r)
		return;
	c->report->blocks_present++;
	if (r > 0) {
		c->used[c->count++] = offset / VHD_SECTOR << 32 | block;
		return;
	}
	check_found(c->report, CHECK_DAMAGE,
		    "block %llu: lies outside the file, or on its structures",
		    (unsigned long long)block);
}

static int check_table(struct check *c, struct error *err)
{
	struct vhd *v = c->v;

	c->report->blocks = v->blocks;
	for (uint64_t block = 0; block < v->blocks; block++) {
		struct vhd_page *p;
		int r = vhd_page_load_now(v, VHD_PAGE_BAT, block / VHD_PER_PAGE,
					  vhd_bat_page_offset(v, block), &p);

		if (r < 0)
			return error_errno(err, r, "cannot read the block table");
		check_entry(c, p, block);
	}
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void check_overlaps(struct check *c)
{
	uint64_t end = 0;

	qsort(c->used, c->count, sizeof(*c->used), by_place);
	for (size_t i = 0; i < c->count; i++) {
		uint64_t at = (c->used[i] >> 32) * VHD_SECTOR;

		if (at < end)
			check_found(c->report, CHECK_DAMAGE,
				    "block %llu: overlaps another one at %llu",
				    (unsigned long long)(c->used[i] & UINT32_MAX),
				    (unsigned long long)at);
		end = MAX(end, at + vhd_block_bytes(c->v));
	}
}

static uint64_t gap(uint64_t from, uint64_t to)
{
	return to > from && to - from > GAP_MAX ? to - from : 0;
}

/* What lies between blocks, after the structures at the start. */
static void check_waste(struct check *c)
{
	struct vhd *v = c->v;
	uint64_t at = v->bat_offset + vhd_bat_bytes(be32_get(v->header.max_table_entries));
	uint64_t waste = 0;

	for (size_t i = 0; i < c->count; i++) {
		uint64_t start = (c->used[i] >> 32) * VHD_SECTOR;

		waste += gap(at, start);
		at = MAX(at, start + vhd_block_bytes(v));
	}
	waste += gap(at, v->space.end);
	if (waste)
		check_found(c->report, CHECK_WASTE, "%llu KiB of the file belong to nothing",
			    (unsigned long long)(waste / KIB));
}

static void check_locators(struct check *c)
{
	struct vhd *v = c->v;

	for (unsigned i = 0; i < VHD_LOCATORS; i++) {
		const struct vhd_locator *l = &v->header.parent_locators[i];

		if (be32_get(l->platform_code) &&
		    !range_inside(be64_get(l->platform_data_offset),
				  be32_get(l->platform_data_length), v->space.end))
			check_found(c->report, CHECK_DAMAGE,
				    "parent locator %u lies outside the file", i);
	}
	if (!v->parent.relative && !v->parent.absolute)
		check_found(c->report, CHECK_DAMAGE, "no locator says where the parent is");
}

static void check_footers(struct check *c)
{
	const struct vhd *v = c->v;

	if (v->behind)
		check_found(c->report, CHECK_DAMAGE,
			    "%llu bytes that do not belong to the image follow its footer; vhd "
			    "check --repair cuts them off",
			    (unsigned long long)v->behind);
	else if (!v->end_good)
		check_found(c->report, CHECK_NOTE,
			    "the footer at the end is missing or damaged; its copy is good, and "
			    "opening the image for writing repairs it");
	else if (!v->copy_good)
		check_found(c->report, CHECK_NOTE,
			    "the copy of the footer at the start is not like the one at the end; "
			    "opening the image for writing repairs it");
}

static int check_dynamic(struct check *c, struct error *err)
{
	int r;

	c->used = calloc(c->v->blocks + 1, sizeof(*c->used));
	if (!c->used)
		return error_set(err, -ENOMEM, "out of memory");
	r = check_table(c, err);
	if (r >= 0) {
		check_overlaps(c);
		check_waste(c);
	}
	free(c->used);
	if (r >= 0 && c->v->kind == VHD_DIFFERENCING)
		check_locators(c);
	return r;
}

/* An image that cannot even be opened is damaged; that it could be examined is the result. */
int vhd_check(struct store *store, struct check_report *report, struct error *err)
{
	struct check c = { .report = report };
	struct disk *disk;
	struct error why = { 0 };
	int r = vhd_open(store, &disk, &why);

	if (r == -ENOMEM || r == -ENOTSUP || r == -EFBIG)
		return error_set(err, r, "%s", why.message);
	if (r < 0) {
		check_found(report, CHECK_DAMAGE, "%s", why.message);
		return 0;
	}
	c.v = vhd_of(disk);
	check_footers(&c);
	r = c.v->kind == VHD_FIXED ? 0 : check_dynamic(&c, err);
	disk_close(disk, NULL);
	return r;
}
