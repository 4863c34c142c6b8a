// SPDX-License-Identifier: MIT
/*
 * Repairing a VHDX. What stands twice is taken from the good copy; what has no good copy is rebuilt
 * from what the rest of the file says: the header from nothing, the region table by looking for the
 * metadata and for a table that could be the BAT. The metadata itself has no copy and no check
 * value: without it nothing can be done. Of two blocks that claim one place the later one loses.
 * The headers are written last: until then the image is as damaged as before.
 */
#include "vhd/repair.h"

#include "lib/cleanup.h"
#include "vhd/repair_tell.h"
#include "vhd/vhdx.h"
#include "vhd/vhdx_log.h"

#include <errno.h>
#include <string.h>

#define SCAN_MAX   (64 * GIB) /* of the file, for tables: they lie before the blocks */
#define FILE_MAX   (128 * TIB)
#define BAT_STATES 0xefu /* the states that exist; 5 is an old UNMAPPED */

struct repair {
	struct store *s;
	struct repair_tell tell;
	struct vhdx_header header;
	struct vhdx_regions regions;
	struct vhdx_params params;
	unsigned headers_valid, regions_valid;
	uint64_t size;   /* of the file before the repair */
	uint64_t extent; /* of the file after it */
	uint8_t *used;   /* a bit for each MiB of the file */
};

/* --- header and log --- */

static bool log_inside(const struct repair *r)
{
	const struct vhdx_header *h = &r->header;

	return h->log_length && h->log_offset >= VHDX_OBJECT_ALIGN &&
	       !((h->log_offset | h->log_length) & (VHDX_OBJECT_ALIGN - 1)) &&
	       range_inside(h->log_offset, h->log_length, r->size);
}

static int header_find(struct repair *r, struct error *err)
{
	_cleanup_free_ void *bytes = malloc(VHDX_HEADER_SIZE);
	struct vhdx_header h;

	if (!bytes)
		return error_set(err, -ENOMEM, "out of memory");
	for (unsigned n = 0; n < 2; n++) {
		int e = store_read(r->s, bytes, VHDX_HEADER_SIZE, VHDX_HEADER_OFFSET(n));

		if (e < 0)
			return error_errno(err, e, "cannot read header %u", n + 1);
		if (vhdx_header_decode(bytes, &h) < 0)
			continue;
		if (!r->headers_valid || h.sequence > r->header.sequence)
			r->header = h;
		r->headers_valid |= BIT(n);
	}
	if (r->headers_valid == 1 || r->headers_valid == 2)
		repair_found(&r->tell, REPAIR_MENDED,
			     "header %u is written again from the other one",
			     r->headers_valid == 1 ? 2 : 1);
	if (!r->headers_valid) {
		r->header = (struct vhdx_header){ .data_write = guid_random() };
		repair_found(&r->tell, REPAIR_RISK,
			     "both headers are damaged: new ones are made; an unfinished log is "
			     "given up, "
			     "and differencing images over this one need `vhd rebase`");
	}
	if (r->header.sequence > VHDX_SEQUENCE_MAX) {
		r->header.sequence = 0;
		r->headers_valid = 0;
		repair_found(&r->tell, REPAIR_MENDED, "the headers' sequence starts again");
	}
	return 0;
}

static int log_finish(struct repair *r, struct error *err)
{
	struct error why = { 0 };
	struct vhdx_log log;
	int e;

	if (guid_is_zero(&r->header.log))
		return 0;
	if (!log_inside(r)) {
		repair_found(&r->tell, REPAIR_RISK,
			     "the log lies outside the file and is given up: what was written last "
			     "may be "
			     "lost");
		return 0;
	}
	e = vhdx_log_read(r->s, &r->header, &log, &why);
	if (e == -ENOMEM)
		return error_set(err, e, "out of memory");
	if (e < 0) {
		repair_found(&r->tell, REPAIR_RISK,
			     "the log is given up (%s): what was written last may be lost",
			     why.message);
		return 0;
	}
	e = vhdx_log_replay(&log, &r->header, r->s, err);
	vhdx_log_deinit(&log);
	if (e < 0)
		return e;
	r->size = r->s->size;
	repair_found(&r->tell, REPAIR_MENDED,
		     "the log was complete; its changes are in the image now");
	return 0;
}

/* --- regions --- */

static bool overlap(const struct vhdx_region *a, const struct vhdx_region *b)
{
	return a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

/* Where the metadata is, by what it begins with; its parameters must make sense. */
static int metadata_scan(struct repair *r, struct error *err)
{
	uint64_t end = MIN(r->size, SCAN_MAX);

	for (uint64_t at = VHDX_OBJECT_ALIGN; at < end; at += VHDX_OBJECT_ALIGN) {
		struct vhdx_region place = { at, MIB };
		le64 signature;
		int e = store_read(r->s, &signature, sizeof(signature), at);

		if (e < 0)
			return error_errno(err, e, "cannot read the image");
		if (le64_get(signature) == VHDX_METADATA_SIGNATURE &&
		    !vhdx_params_read(r->s, &place, &r->params, NULL)) {
			r->regions.metadata = place;
			return 0;
		}
	}
	return error_set(err, -EINVAL,
			 "both region tables are damaged and no metadata was found: the size of "
			 "the disk and of its blocks is unknown, and nothing can be saved");
}

/* Blocks in a table that begins at `at`; -1 when it cannot be a BAT. */
static int64_t bat_score(struct repair *r, const struct vhdx_region *place)
{
	uint64_t count = vhdx_bat_count(&r->params);
	int64_t score = 0;
	le64 page[VHDX_BAT_PER_PAGE];

	for (uint64_t i = 0; i < count; i++) {
		uint64_t e;

		if (i % VHDX_BAT_PER_PAGE == 0 &&
		    store_read(r->s, page, sizeof(page), place->offset + i * 8) < 0)
			return -1;
		e = le64_get(page[i % VHDX_BAT_PER_PAGE]);
		if (!e)
			continue;
		if (VHDX_BAT_RESERVED(e) || !(BAT_STATES & BIT(VHDX_BAT_STATE(e))))
			return -1;
		if (VHDX_BAT_STATE(e) < VHDX_BLOCK_FULLY_PRESENT)
			continue;
		if (VHDX_BAT_OFFSET(e) < VHDX_OBJECT_ALIGN ||
		    overlap(place, &(struct vhdx_region){ VHDX_BAT_OFFSET(e), MIB }))
			return -1;
		score += VHDX_BAT_OFFSET(e) < r->size;
	}
	return score;
}

static int bat_scan_places(struct repair *r, struct error *err)
{
	uint64_t length = round_up64(vhdx_bat_count(&r->params) * 8, VHDX_OBJECT_ALIGN);
	uint64_t end = MIN(r->size, SCAN_MAX);
	int64_t best = -1;

	for (uint64_t at = VHDX_OBJECT_ALIGN; at + length <= end; at += VHDX_OBJECT_ALIGN) {
		struct vhdx_region place = { at, length };
		const struct vhdx_region log = { r->header.log_offset, r->header.log_length };
		int64_t score;

		if (overlap(&place, &r->regions.metadata) || overlap(&place, &log) ||
		    (!log.length && at == MIB))
			continue;
		score = bat_score(r, &place);
		if (score <= best)
			continue;
		best = score;
		r->regions.bat = place;
	}
	if (best < 0)
		return error_set(err, -EINVAL,
				 "both region tables are damaged and no block allocation table was "
				 "found: where the disk's blocks lie is unknown");
	repair_found(&r->tell, REPAIR_RISK,
		     "the region table is made anew: metadata at %llu MiB, block allocation table "
		     "at %llu "
		     "MiB with %lld blocks, by what they look like; compare the result with what "
		     "you know",
		     (unsigned long long)(r->regions.metadata.offset / MIB),
		     (unsigned long long)(r->regions.bat.offset / MIB), (long long)best);
	return 0;
}

static int regions_find(struct repair *r, struct error *err)
{
	struct error why = { 0 };
	int e = vhdx_regions_read(r->s, &r->regions, &r->regions_valid, &why);

	if (e == -ENOTSUP || e == -ENOMEM)
		return error_set(err, e, "%s", why.message);
	if (e < 0) {
		e = metadata_scan(r, err);
		return e < 0 ? e : bat_scan_places(r, err);
	}
	if (r->regions_valid != 3)
		repair_found(&r->tell, REPAIR_MENDED,
			     "region table %u is written again from the other one",
			     r->regions_valid == 1 ? 2 : 1);
	if (!range_inside(r->regions.metadata.offset, r->regions.metadata.length, r->size))
		return error_set(err, -EINVAL,
				 "the file ends at byte %llu, before its metadata at %llu: too "
				 "little is left",
				 (unsigned long long)r->size,
				 (unsigned long long)r->regions.metadata.offset);
	return vhdx_params_read(r->s, &r->regions.metadata, &r->params, err);
}

/* A file that ends in its BAT has lost the rest of it; what is not there reads as zeros. */
static int regions_settle(struct repair *r, struct error *err)
{
	const struct vhdx_region *bat = &r->regions.bat, *metadata = &r->regions.metadata;
	uint64_t first;

	r->tell.disk_size = r->params.size;
	if (overlap(bat, metadata))
		return error_set(err, -EINVAL, "metadata and block allocation table overlap");
	if (bat->length < vhdx_bat_count(&r->params) * 8)
		return error_set(err, -EINVAL,
				 "the block allocation table is too small for a disk of %llu bytes",
				 (unsigned long long)r->params.size);
	if (range_inside(bat->offset, bat->length, r->size))
		return 0;
	first = r->size > bat->offset ? (r->size - bat->offset) / 8 : 0;
	first -= first / (vhdx_chunk_ratio(&r->params) + 1);
	r->extent = MAX(r->extent, bat->offset + bat->length);
	if (first < vhdx_block_count(&r->params))
		repair_lost(&r->tell, first * r->params.block_size, r->params.size,
			    "the file ends inside its block allocation table");
	else
		repair_found(&r->tell, REPAIR_MENDED,
			     "the file gets the rest of its block allocation table");
	return 0;
}

/* --- space --- */

static bool space_use(struct repair *r, uint64_t offset, uint64_t length)
{
	for (uint64_t i = offset / MIB; i < (offset + length) / MIB; i++)
		if (r->used[i / 8] & BIT(i % 8))
			return false;
	for (uint64_t i = offset / MIB; i < (offset + length) / MIB; i++)
		r->used[i / 8] |= (uint8_t)BIT(i % 8);
	return true;
}

static int space_init(struct repair *r, struct error *err)
{
	uint64_t end = round_up64(MAX(r->size, r->extent), MIB) + VHDX_BLOCK_SIZE_MAX +
		       r->regions.bat.length + MIB;

	if (end > FILE_MAX)
		return error_set(err, -EFBIG, "the file is larger than any image can be");
	r->used = calloc(end / MIB / 8 + 1, 1);
	if (!r->used)
		return error_set(err, -ENOMEM, "out of memory");
	space_use(r, 0, MIB);
	space_use(r, r->regions.bat.offset, r->regions.bat.length);
	space_use(r, r->regions.metadata.offset, r->regions.metadata.length);
	return 0;
}

/* The log's place is the old one where that can be, else behind everything else. */
static void log_place(struct repair *r, bool settled)
{
	struct vhdx_header *h = &r->header;

	if (!settled) {
		if (!r->headers_valid || !log_inside(r))
			*h = (struct vhdx_header){
				.sequence = h->sequence,
				.data_write = h->data_write,
				.log_offset = MIB,
				.log_length = (uint32_t)MIB,
			};
		if (!space_use(r, h->log_offset, h->log_length))
			h->log_length = 0;
	} else if (!h->log_length) {
		h->log_offset = round_up64(MAX(r->size, r->extent), MIB);
		h->log_length = (uint32_t)MIB;
		r->extent = h->log_offset + MIB;
		repair_found(&r->tell, REPAIR_MENDED, "the log has a new place at %llu MiB",
			     (unsigned long long)(h->log_offset / MIB));
	}
}

/* --- block allocation table --- */

static bool block_keep(struct repair *r, uint64_t block, uint64_t e, bool bitmap_there)
{
	uint64_t offset = VHDX_BAT_OFFSET(e), size = r->params.block_size, at = block * size;
	unsigned state = VHDX_BAT_STATE(e);

	if (state == 4 || (state == VHDX_BLOCK_PARTIALLY_PRESENT && !r->params.has_parent)) {
		repair_lost(&r->tell, at, size,
			    "its block is in a state that this image cannot have");
		return false;
	}
	if (state < VHDX_BLOCK_FULLY_PRESENT)
		return true;
	if (offset < VHDX_OBJECT_ALIGN || offset >= r->size) {
		repair_lost(&r->tell, at, size, "its block lies outside the file");
		return false;
	}
	if (state == VHDX_BLOCK_PARTIALLY_PRESENT && !bitmap_there) {
		repair_lost(&r->tell, at, size,
			    "which of its sectors are in this image is not known any more");
		return false;
	}
	if (!space_use(r, offset, size)) {
		repair_lost(&r->tell, at, size, "its block lies where something else is");
		return false;
	}
	if (!range_inside(offset, size, r->size)) {
		if (r->size - offset < MIN(size, r->params.size - at))
			repair_lost(&r->tell, at + (r->size - offset), size - (r->size - offset),
				    "the file ends inside its block");
		r->extent = MAX(r->extent, offset + size);
	}
	return true;
}

static bool bitmap_keep(struct repair *r, uint64_t chunk, uint64_t e)
{
	uint64_t offset = VHDX_BAT_OFFSET(e);

	if (!e || !r->params.has_parent)
		return true;
	if (VHDX_BAT_STATE(e) == VHDX_BLOCK_FULLY_PRESENT && offset >= VHDX_OBJECT_ALIGN &&
	    range_inside(offset, MIB, r->size) && space_use(r, offset, MIB))
		return true;
	repair_found(&r->tell, REPAIR_RISK, "the sector bitmap of chunk %llu is lost",
		     (unsigned long long)chunk);
	return false;
}

/* An entry, changed or not. Bitmaps are looked at in the first pass, blocks in the second. */
static uint64_t entry_repair(struct repair *r, uint64_t index, uint64_t e, bool blocks)
{
	uint64_t ratio = vhdx_chunk_ratio(&r->params), chunk = index / (ratio + 1);
	bool bitmap = index % (ratio + 1) == ratio;
	uint64_t of_chunk = chunk * (ratio + 1) + ratio;
	le64 b = le64_of(0);

	if (bitmap == blocks)
		return e;
	if (bitmap)
		return bitmap_keep(r, chunk, e) ? e : 0;
	if (VHDX_BAT_STATE(e) == VHDX_BLOCK_PARTIALLY_PRESENT && r->params.has_parent &&
	    store_read(r->s, &b, sizeof(b), r->regions.bat.offset + of_chunk * 8) < 0)
		b = le64_of(0);
	if (index - chunk >= vhdx_block_count(&r->params))
		return e;
	return block_keep(r, index - chunk, e,
			  VHDX_BAT_STATE(le64_get(b)) == VHDX_BLOCK_FULLY_PRESENT)
		       ? e
		       : VHDX_BLOCK_ZERO;
}

static int page_repair(struct repair *r, uint64_t first, uint64_t count, bool blocks)
{
	uint64_t at = r->regions.bat.offset + first * 8;
	le64 page[VHDX_BAT_PER_PAGE];
	bool dirty = false;
	int n = store_read(r->s, page, sizeof(page), at);

	for (uint64_t i = 0; n >= 0 && i < VHDX_BAT_PER_PAGE && first + i < count; i++) {
		uint64_t e = le64_get(page[i]), good = entry_repair(r, first + i, e, blocks);

		dirty = dirty || good != e;
		page[i] = le64_of(good);
	}
	return n >= 0 && dirty ? store_write(r->s, page, sizeof(page), at) : n;
}

static int bat_repair(struct repair *r, bool blocks)
{
	uint64_t count = vhdx_bat_count(&r->params);

	for (uint64_t i = 0; i < count; i += VHDX_BAT_PER_PAGE) {
		uint64_t at = r->regions.bat.offset + i * 8, length = 0;
		enum disk_extent_kind kind = DISK_EXTENT_DATA;
		int n;

		if (at >= r->s->size)
			return 0;
		if (!store_extent(r->s, at, &kind, &length) && kind == DISK_EXTENT_HOLE &&
		    length >= VHDX_SECTOR) {
			i += (length / VHDX_SECTOR - 1) * VHDX_BAT_PER_PAGE;
			continue;
		}
		n = page_repair(r, i, count, blocks);
		if (n < 0)
			return n;
	}
	return 0;
}

/* --- writing --- */

static int regions_write(struct repair *r)
{
	_cleanup_free_ void *bytes = malloc(VHDX_REGION_SIZE);
	int n = bytes ? 0 : -ENOMEM;

	/* A good copy may list regions that are not known here. */
	if (n >= 0 && r->regions_valid)
		n = store_read(r->s, bytes, VHDX_REGION_SIZE,
			       VHDX_REGION_OFFSET(r->regions_valid == 2));
	else if (n >= 0)
		vhdx_regions_encode(&r->regions, bytes);
	for (unsigned i = 0; i < 2 && n >= 0; i++)
		n = store_write(r->s, bytes, VHDX_REGION_SIZE, VHDX_REGION_OFFSET(i));
	return n;
}

static int headers_write(struct repair *r)
{
	_cleanup_free_ void *bytes = malloc(VHDX_HEADER_SIZE);
	int n = bytes ? store_sync(r->s) : -ENOMEM;

	r->header.log = (struct guid){ 0 };
	r->header.file_write = guid_random();
	for (unsigned i = 0; i < 2 && n >= 0; i++) {
		r->header.sequence++;
		vhdx_header_encode(&r->header, bytes);
		n = store_write(r->s, bytes, VHDX_HEADER_SIZE, VHDX_HEADER_OFFSET(i));
		if (n >= 0)
			n = store_sync(r->s);
	}
	return n;
}

static int identifier_write(struct repair *r)
{
	const le64 signature = le64_of(VHDX_FILE_ID_SIGNATURE);
	le64 there;
	int n = store_read(r->s, &there, sizeof(there), 0);

	if (n < 0 || le64_get(there) == VHDX_FILE_ID_SIGNATURE)
		return n;
	repair_found(&r->tell, REPAIR_MENDED, "the file's first bytes say again that it is a VHDX");
	return store_write(r->s, &signature, sizeof(signature), 0);
}

/* The locator is metadata: it has no copy, and without it the image cannot be opened. */
static int locator_check(struct repair *r, struct error *err)
{
	struct disk_parent parent;
	int n;

	if (!r->params.has_parent)
		return 0;
	n = vhdx_locator_read(r->s, &r->regions.metadata, &parent, err);
	if (n >= 0)
		disk_parent_deinit(&parent);
	return n;
}

static int find_all(struct repair *r, struct error *err)
{
	int n;

	if (r->size < VHDX_OBJECT_ALIGN)
		return error_set(err, -EINVAL,
				 "the file has %llu bytes, less than the first MiB of a VHDX: too "
				 "little is left",
				 (unsigned long long)r->size);
	n = header_find(r, err);
	if (n >= 0)
		n = log_finish(r, err);
	if (n >= 0)
		n = regions_find(r, err);
	if (n >= 0)
		n = regions_settle(r, err);
	if (n >= 0)
		n = locator_check(r, err);
	return n < 0 ? n : space_init(r, err);
}

static int mend(struct repair *r)
{
	int n;

	log_place(r, false);
	n = bat_repair(r, false);
	if (n >= 0)
		n = bat_repair(r, true);
	log_place(r, true);
	if (n >= 0)
		n = identifier_write(r);
	if (n < 0 || !r->tell.changed)
		return n;
	r->extent = round_up64(MAX(r->extent, r->s->size), MIB);
	if (r->extent > r->s->size)
		n = store_resize(r->s, r->extent);
	if (n >= 0 && r->regions_valid != 3)
		n = regions_write(r);
	return n < 0 ? n : headers_write(r);
}

int vhdx_repair(struct store *store, struct repair_report *report, struct error *err)
{
	struct repair r = { .s = store, .tell = { .report = report }, .size = store->size };
	int n = find_all(&r, err);

	if (n >= 0) {
		n = mend(&r);
		if (n < 0)
			error_errno(err, n, "cannot write the repaired image");
	}
	free(r.used);
	return n;
}
