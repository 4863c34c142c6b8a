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

#define FILE_SIZE_MAX (128 * TIB) /* bounds the bitmap to 16 MiB */
#define FINDINGS_MAX  100u        /* of one kind: more say nothing new */

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
	uint8_t *used; /* a bit per MiB of the file */
};

static bool use(struct check *c, uint64_t offset, uint64_t length)
{
	bool free = true;

	for (uint64_t i = offset / MIB; i < (offset + length) / MIB; i++) {
		if (c->used[i / 8] & BIT(i % 8))
			free = false;
		c->used[i / 8] |= (uint8_t)BIT(i % 8);
	}
	return free;
}

static void check_payload(struct check *c, uint64_t block, uint64_t entry)
{
	uint64_t offset = VHDX_BAT_OFFSET(entry);
	unsigned state = VHDX_BAT_STATE(entry);

	if (VHDX_BAT_RESERVED(entry))
		check_found(c->report, CHECK_NOTE, "block %llu: reserved bits are set",
			    (unsigned long long)block);
	if (state == 4 || state == VHDX_BLOCK_PARTIALLY_PRESENT) {
		check_found(c->report, CHECK_DAMAGE,
			    "block %llu: state %u, which this kind of image cannot have",
			    (unsigned long long)block, state);
	} else if (state == VHDX_BLOCK_ZERO && offset) {
		check_found(c->report, CHECK_NOTE,
			    "block %llu: is zeros, yet has a place in the file",
			    (unsigned long long)block);
	} else if (state == VHDX_BLOCK_FULLY_PRESENT) {
		c->report->blocks_present++;
		if (offset < VHDX_OBJECT_ALIGN ||
		    !range_inside(offset, c->v->params.block_size, c->v->space.end))
			check_found(c->report, CHECK_DAMAGE,
				    "block %llu: lies at %llu MiB, outside the file",
				    (unsigned long long)block, (unsigned long long)(offset / MIB));
		else if (!use(c, offset, c->v->params.block_size))
			check_found(c->report, CHECK_DAMAGE,
				    "block %llu: overlaps something else at %llu MiB",
				    (unsigned long long)block, (unsigned long long)(offset / MIB));
	}
}

static void check_entry(struct check *c, uint64_t index, uint64_t entry)
{
	uint64_t ratio = c->v->chunk_ratio;

	if (index % (ratio + 1) != ratio)
		check_payload(c, index - index / (ratio + 1), entry);
	else if (entry)
		check_found(c->report, CHECK_NOTE,
			    "sector bitmap %llu is set, though the image has no parent",
			    (unsigned long long)(index / (ratio + 1)));
}

/* Bytes from `at` on that are a hole of the file: entries there are all "not present". */
static uint64_t hole_at(struct store *s, uint64_t at)
{
	enum disk_extent_kind kind;
	uint64_t length;

	if (at >= s->size || store_extent(s, at, &kind, &length) < 0 || kind != DISK_EXTENT_HOLE)
		return 0;
	return round_down64(length, VHDX_SECTOR);
}

static int check_bat(struct check *c, struct error *err)
{
	_cleanup_free_ le64 *page = malloc(VHDX_SECTOR);
	struct vhdx *v = c->v;
	uint64_t count = vhdx_bat_count(&v->params), index = 0;

	if (!page)
		return error_set(err, -ENOMEM, "out of memory");
	c->report->blocks = vhdx_block_count(&v->params);
	while (index < count) {
		uint64_t at = v->regions.bat.offset + index * 8, hole = hole_at(v->store, at);
		uint64_t n = MIN(VHDX_BAT_PER_PAGE, count - index);
		int r;

		if (hole) {
			index += hole / 8;
			continue;
		}
		r = store_read(v->store, page, VHDX_SECTOR, at);
		if (r < 0)
			return error_errno(err, r, "cannot read the block allocation table");
		for (uint64_t i = 0; i < n; i++)
			check_entry(c, index + i, le64_get(page[i]));
		index += n;
	}
	return 0;
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
		free += !(c->used[i / 8] & BIT(i % 8));
	if (free)
		check_found(c->report, CHECK_WASTE, "%llu MiB of the file belong to nothing",
			    (unsigned long long)free);
}

static int check_space(struct check *c, struct error *err)
{
	struct vhdx *v = c->v;
	int r;

	if (v->space.end > FILE_SIZE_MAX)
		return error_set(err, -EFBIG, "the file is larger than any image can be");
	c->used = calloc(v->space.end / MIB / 8 + 1, 1);
	if (!c->used)
		return error_set(err, -ENOMEM, "out of memory");
	use(c, 0, MIB);
	use(c, v->header.log_offset, v->header.log_length);
	use(c, v->regions.bat.offset, v->regions.bat.length);
	use(c, v->regions.metadata.offset, v->regions.metadata.length);
	r = check_bat(c, err);
	if (r >= 0)
		check_waste(c);
	free(c->used);
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
