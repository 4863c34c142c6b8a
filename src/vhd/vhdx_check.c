// SPDX-License-Identifier: MIT
/*
 * Examining a VHDX without changing it: both copies of what is there twice, and every entry of the
 * BAT against the file and against each other. Space is counted in a bitmap of MiB, which is what
 * the format aligns everything to. Parts of the BAT that are holes in the file are not read.
 */
#include "vhd/image.h"

#include "lib/cleanup.h"
#include "vhd/vhdx_internal.h"

#include <errno.h>
#include <stdarg.h>

#define FINDINGS_MAX 100u /* of one kind: more say nothing new */

void check_found(struct check_report *r, enum check_kind kind, const char *format, ...)
{
	char text[512];
	va_list ap;

	if (++r->counts[kind] > FINDINGS_MAX || !r->found)
		return;
	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	r->found(r, kind, text);
}

struct check {
	struct vhdx *v;
	struct check_report *report;
	struct space_map used;
	uint64_t partial_chunk; /* 1 + the last chunk with a partial block; 0 = none */
};

static void check_payload(struct check *c, uint64_t block, uint64_t entry)
{
	uint64_t offset = VHDX_BAT_OFFSET(entry);
	unsigned state = VHDX_BAT_STATE(entry);

	if (VHDX_BAT_RESERVED(entry))
		check_found(c->report, CHECK_NOTE, "block %llu: reserved bits are set",
			    (unsigned long long)block);
	if (state == 4 || (state == VHDX_BLOCK_PARTIALLY_PRESENT && !c->v->params.has_parent)) {
		check_found(c->report, CHECK_DAMAGE,
			    "block %llu: state %u, which this kind of image cannot have",
			    (unsigned long long)block, state);
	} else if (state == VHDX_BLOCK_ZERO && offset) {
		check_found(c->report, CHECK_NOTE,
			    "block %llu: is zeros, yet has a place in the file",
			    (unsigned long long)block);
	} else if (state == VHDX_BLOCK_FULLY_PRESENT || state == VHDX_BLOCK_PARTIALLY_PRESENT) {
		c->report->blocks_present++;
		if (offset < VHDX_OBJECT_ALIGN ||
		    !range_inside(offset, c->v->params.block_size, c->v->space.end))
			check_found(c->report, CHECK_DAMAGE,
				    "block %llu: lies at %llu MiB, outside the file",
				    (unsigned long long)block, (unsigned long long)(offset / MIB));
		else if (!space_map_use(&c->used, offset, c->v->params.block_size))
			check_found(c->report, CHECK_DAMAGE,
				    "block %llu: overlaps something else at %llu MiB",
				    (unsigned long long)block, (unsigned long long)(offset / MIB));
	}
}

/* The bitmap of chunk `chunk`: a differencing image's, when a block of the chunk is partial. */
static void check_bitmap(struct check *c, uint64_t chunk, uint64_t entry)
{
	uint64_t offset = VHDX_BAT_OFFSET(entry);
	unsigned state = VHDX_BAT_STATE(entry);

	if (!c->v->params.has_parent) {
		if (entry)
			check_found(c->report, CHECK_NOTE,
				    "sector bitmap %llu is set, though the image has no parent",
				    (unsigned long long)chunk);
	} else if (state == VHDX_BITMAP_PRESENT) {
		if (offset < VHDX_OBJECT_ALIGN ||
		    !range_inside(offset, VHDX_BITMAP_SIZE, c->v->space.end))
			check_found(c->report, CHECK_DAMAGE,
				    "sector bitmap %llu: lies at %llu MiB, outside the file",
				    (unsigned long long)chunk, (unsigned long long)(offset / MIB));
		else if (!space_map_use(&c->used, offset, VHDX_BITMAP_SIZE))
			check_found(c->report, CHECK_DAMAGE,
				    "sector bitmap %llu: overlaps something else at %llu MiB",
				    (unsigned long long)chunk, (unsigned long long)(offset / MIB));
	} else if (state != VHDX_BITMAP_NOT_PRESENT) {
		check_found(c->report, CHECK_DAMAGE, "sector bitmap %llu: state %u, which none has",
			    (unsigned long long)chunk, state);
	} else if (c->partial_chunk == chunk + 1) {
		check_found(c->report, CHECK_DAMAGE,
			    "sector bitmap %llu is missing, though a block needs it",
			    (unsigned long long)chunk);
	}
}

static void check_entry(struct vhdx *v, void *context, uint64_t index, uint64_t entry)
{
	struct check *c = context;
	uint64_t ratio = v->chunk_ratio, chunk = index / (ratio + 1);

	if (index % (ratio + 1) == ratio) {
		check_bitmap(c, chunk, entry);
		return;
	}
	if (index - chunk >= vhdx_block_count(&v->params))
		return;
	if (VHDX_BAT_STATE(entry) == VHDX_BLOCK_PARTIALLY_PRESENT)
		c->partial_chunk = chunk + 1;
	check_payload(c, index - chunk, entry);
}

static void check_copies(struct vhdx *v, struct check_report *report)
{
	struct vhdx_header h;
	struct vhdx_regions regions;
	unsigned slot, valid;

	if (!vhdx_header_read(v->store, &h, &slot, &valid, NULL) && valid != 3)
		check_found(report, CHECK_NOTE,
			    "header %u is damaged; the other one is good, and writing to the image "
			    "renews both",
			    valid == 1 ? 2u : 1u);
	if (!vhdx_regions_read(v->store, &regions, &valid, NULL) && valid != 3)
		check_found(report, CHECK_NOTE, "one copy of the region table is damaged");
	if (v->log_replayed)
		check_found(report, CHECK_NOTE,
			    "the image was not closed after its last use; its log is complete and "
			    "will be replayed when the image is next opened for writing");
}

static void check_waste(struct check *c)
{
	uint64_t free = 0, end = c->v->space.end / MIB;

	for (uint64_t i = 1; i < end; i++)
		free += !space_map_used(&c->used, i);
	if (free)
		check_found(c->report, CHECK_WASTE, "%llu MiB of the file belong to nothing",
			    (unsigned long long)free);
}

static int check_space(struct check *c, struct error *err)
{
	struct vhdx *v = c->v;
	int r = space_map_init(&c->used, v->space.end);

	if (r < 0)
		return error_set(err, r,
				 r == -EFBIG ? "the file is larger than any image can be"
					     : "out of memory");
	space_map_structures(&c->used, v);
	c->report->blocks = vhdx_block_count(&v->params);
	r = bat_scan(v, check_entry, c);
	if (r < 0)
		error_errno(err, r, "cannot read the block allocation table");
	else
		check_waste(c);
	free(c->used.bits);
	return r;
}

/* An image that cannot even be opened is damaged; that it could be examined is the result. */
int vhdx_check(struct store *store, struct check_report *report, struct error *err)
{
	struct check c = { .report = report };
	struct disk *disk;
	struct error why = { 0 };
	int r = vhdx_open(store, &disk, &why);

	if (r == -ENOMEM || r == -ENOTSUP || r == -EFBIG)
		return error_set(err, r, "%s", why.message);
	if (r < 0) {
		check_found(report, CHECK_DAMAGE, "%s", why.message);
		return 0;
	}
	c.v = vhdx_of(disk);
	check_copies(c.v, report);
	r = check_space(&c, err);
	disk_close(disk, NULL);
	return r;
}
