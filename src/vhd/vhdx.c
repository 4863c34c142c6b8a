// SPDX-License-Identifier: MIT
/*
 * Opening and closing VHDX images (MS-VHDX 2.1 to 2.6), and what lies where on them. Opening reads
 * headers, log, region table and metadata, blocks while it does, and writes only when there is a
 * log to replay into an image that may be written. The rest of the life of an image is in
 * vhdx_io.c (requests), vhdx_bat.c, vhdx_space.c and vhdx_journal.c.
 */
#include "vhd/vhdx.h"

#include "lib/cleanup.h"
#include "lib/cursor.h"
#include "vhd/vhdx_internal.h"

#include <errno.h>
#include <string.h>

bool vhdx_probe(const void *bytes, size_t size)
{
	struct reader r = reader_of(bytes, size);

	return reader_le64(&r) == VHDX_FILE_ID_SIGNATURE;
}

/* --- opening --- */

static int identifier_check(struct store *s, struct error *err)
{
	uint8_t bytes[8];
	int r = store_read(s, bytes, sizeof(bytes), 0);

	if (r < 0)
		return error_errno(err, r, "cannot read the image");
	if (!vhdx_probe(bytes, sizeof(bytes)))
		return error_set(err, -EINVAL,
				 "this is not a VHDX image: it does not start with \"vhdxfile\"");
	if (s->size < VHDX_OBJECT_ALIGN)
		return error_set(err, -EINVAL,
				 "the file has %llu bytes, less than the first MiB of a VHDX: it "
				 "was cut short",
				 (unsigned long long)s->size);
	return 0;
}

/*
 * Makes the image what its log says (MS-VHDX 2.3.3). FileWriteGuid is new before the first change;
 * LogGuid goes only after all is durable, so that a crash here is followed by the same replay.
 */
static int replay_into_image(struct vhdx *v, const struct vhdx_log *log, struct error *err)
{
	struct vhdx_header h = v->header;
	int r;

	h.file_write = guid_random();
	r = journal_headers_write(v, &h);
	if (r < 0)
		return error_errno(err, r, "cannot write the headers");
	r = vhdx_log_replay(log, &v->header, v->store, err);
	if (r < 0)
		return r;
	r = store_sync(v->store);
	h = v->header;
	h.log = (struct guid){ 0 };
	if (r >= 0)
		r = journal_headers_write(v, &h);
	return r < 0 ? error_errno(err, r, "cannot finish replaying the log") : 0;
}

static int replay_into_memory(struct vhdx *v, const struct vhdx_log *log, struct error *err)
{
	struct store *overlay;
	int r = store_overlay_new(steal_ptr(v->store), &overlay);

	if (r < 0)
		return error_set(err, r, "out of memory");
	v->store = overlay;
	return vhdx_log_replay(log, &v->header, overlay, err);
}

static int log_open(struct vhdx *v, struct error *err)
{
	struct vhdx_log log;
	int r;

	if (guid_is_zero(&v->header.log))
		return 0;
	r = vhdx_log_read(v->store, &v->header, &log, err);
	if (r < 0)
		return r;
	r = v->store->read_only ? replay_into_memory(v, &log, err)
				: replay_into_image(v, &log, err);
	vhdx_log_deinit(&log);
	v->log_replayed = true;
	return r;
}

static bool overlap(const struct vhdx_region *a, const struct vhdx_region *b)
{
	return a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

static int regions_check(const struct vhdx *v, struct error *err)
{
	const struct vhdx_region *bat = &v->regions.bat, *metadata = &v->regions.metadata;
	const struct vhdx_region log = { v->header.log_offset, v->header.log_length };

	if (!range_inside(bat->offset, bat->length, v->store->size) ||
	    !range_inside(metadata->offset, metadata->length, v->store->size))
		return error_set(err, -EINVAL,
				 "the file has %llu bytes, but its region table names a region "
				 "behind that: it was cut short",
				 (unsigned long long)v->store->size);
	if (overlap(bat, metadata) || overlap(bat, &log) || overlap(metadata, &log))
		return error_set(err, -EINVAL, "log, metadata and block allocation table overlap");
	return 0;
}

static int bat_check(const struct vhdx *v, struct error *err)
{
	uint64_t need = vhdx_bat_count(&v->params) * 8;

	if (need <= v->regions.bat.length)
		return 0;
	return error_set(err, -EINVAL,
			 "the block allocation table has %llu bytes, a disk of this size needs "
			 "%llu",
			 (unsigned long long)v->regions.bat.length, (unsigned long long)need);
}

static int writable_check(const struct vhdx *v, struct error *err)
{
	if (v->store->read_only)
		return 0;
	if (!v->header.log_length)
		return error_set(err, -ENOTSUP,
				 "the image has no log, so it cannot be written safely; open it "
				 "read-only, or convert it");
	if (v->store->fixed_size)
		return error_set(
			err, -ENOTSUP,
			"VHDX images on block devices can only be read; copy it to a file");
	return 0;
}

static int structures_read(struct vhdx *v, struct error *err)
{
	unsigned valid;
	int r = identifier_check(v->store, err);

	if (r >= 0)
		r = vhdx_header_read(v->store, &v->header, &v->header_slot, &valid, err);
	if (r >= 0)
		r = writable_check(v, err);
	if (r >= 0)
		r = log_open(v, err);
	if (r >= 0)
		r = vhdx_regions_read(v->store, &v->regions, &valid, err);
	if (r >= 0)
		r = regions_check(v, err);
	if (r >= 0)
		r = vhdx_params_read(v->store, &v->regions.metadata, &v->params, err);
	if (r >= 0 && v->params.has_parent)
		r = vhdx_locator_read(v->store, &v->regions.metadata, &v->parent, err);
	if (r >= 0)
		r = bat_check(v, err);
	return r;
}

static void geometry_set(struct vhdx *v)
{
	v->block_shift = (unsigned)__builtin_ctz(v->params.block_size);
	v->chunk_ratio = vhdx_chunk_ratio(&v->params);
	v->space.end = round_up64(v->store->size, VHDX_OBJECT_ALIGN);
	v->disk.geometry = (struct disk_geometry){
		.size = v->params.size,
		.logical_sector = v->params.logical_sector,
		.physical_sector = MAX(v->params.physical_sector, v->params.logical_sector),
		.trim_granularity = v->params.leave_allocated ? 0 : 4096,
		.read_only = v->store->read_only,
		.id = v->params.id,
	};
}

static void vhdx_free(struct vhdx *v)
{
	later_deinit(&v->later);
	journal_deinit(v);
	space_deinit(v);
	pages_deinit(v);
	store_close(v->store);
	disk_parent_deinit(&v->parent);
	disk_close(v->disk.below, NULL);
	free(v);
}

static const struct disk_ops vhdx_ops;

int vhdx_open(struct store *store, struct disk **ret, struct error *err)
{
	struct vhdx *v = calloc(1, sizeof(*v));
	int r;

	if (!v) {
		store_close(store);
		return error_set(err, -ENOMEM, "out of memory");
	}
	v->store = store;
	v->disk.ops = &vhdx_ops;
	v->disk.loop = store->loop;
	vhdx_io_init(v);
	space_init(v);
	journal_init(v);
	r = structures_read(v, err);
	if (r >= 0) {
		geometry_set(v);
		r = pages_init(v);
		if (r >= 0)
			r = journal_start(v);
		if (r < 0)
			error_set(err, r, "out of memory");
	}
	if (r < 0) {
		vhdx_free(v);
		return r;
	}
	*ret = &v->disk;
	return 0;
}

void vhdx_info(struct disk *disk, struct vhdx_info *ret)
{
	struct vhdx *v = vhdx_of(disk);

	*ret = (struct vhdx_info){
		.block_size = v->params.block_size,
		.fixed = v->params.leave_allocated,
		.differencing = v->params.has_parent,
		.log_replayed = v->log_replayed,
		.file_size = v->store->size,
		.data_write_guid = v->header.data_write,
		.file_write_guid = v->header.file_write,
	};
}

/* --- extents --- */

#define EXTENT_STRETCHES 1024u

/* Who answers for a stretch of the disk. */
struct held {
	enum disk_held kind;
	uint64_t offset, length; /* offset: in the file, of DATA */
};

/* A run of sectors that are all in this file or all the parent's, from byte `at` of the block on.
 */
static int partial_run(struct vhdx *v, uint64_t block, uint64_t at, bool *ret_here,
		       uint64_t *ret_length)
{
	uint32_t sector = v->params.logical_sector;
	uint64_t bit = ((block << v->block_shift) + at) / sector % VHDX_CHUNK_SECTORS, bitmap,
		 n = 0;
	struct page *p;
	int r = page_load_now(v, bat_bitmap_page_of(v, block), &p);

	if (r >= 0)
		r = bat_bitmap_get(v, p, block, &bitmap);
	if (r >= 0 && !bitmap)
		r = -EIO;
	if (r >= 0)
		r = page_load_now(v, bitmap + bit / VHDX_BITS_PER_PAGE * VHDX_SECTOR, &p);
	if (r < 0)
		return r;
	bit %= VHDX_BITS_PER_PAGE;
	*ret_here = p->bytes[bit / 8] & BIT(bit % 8);
	while (at + n < v->params.block_size && bit < VHDX_BITS_PER_PAGE &&
	       !!(p->bytes[bit / 8] & BIT(bit % 8)) == *ret_here) {
		n += sector;
		bit++;
	}
	*ret_length = n;
	return 0;
}

/* Bytes of the file: holes in it end at its pages; what is told here must end at sectors. */
static int file_extent(struct vhdx *v, uint64_t offset, enum disk_extent_kind *ret_kind,
		       uint64_t *ret_length)
{
	uint64_t most = *ret_length;
	int r;

	*ret_kind = DISK_EXTENT_HOLE;
	if (offset >= v->store->size)
		return 0;
	r = store_extent(v->store, offset, ret_kind, ret_length);
	if (r < 0)
		return r;
	*ret_length = MIN(*ret_length, most);
	if (*ret_length % v->params.logical_sector) {
		*ret_kind = DISK_EXTENT_DATA;
		*ret_length = round_up64(*ret_length, v->params.logical_sector);
	}
	return 0;
}

static int parent_extent(struct vhdx *v, uint64_t offset, enum disk_extent_kind *ret_kind,
			 uint64_t *ret_length)
{
	uint64_t most = *ret_length;
	int r = below_extent(v->disk.below, offset, ret_kind, ret_length);

	*ret_length = MIN(*ret_length, most);
	return r;
}

/* One block: who has it, where it lies in the file, and how much of it is so from `at` on. */
static int block_held(struct vhdx *v, uint64_t block, uint64_t at, struct held *ret)
{
	struct page *p;
	unsigned state;
	bool here = true;
	int r = page_load_now(v, bat_page_of(v, block), &p);

	if (r >= 0)
		r = bat_get(v, p, block, &state, &ret->offset);
	if (r < 0)
		return r;
	ret->offset += at;
	ret->length = v->params.block_size - at;
	if (state == VHDX_BLOCK_PARTIALLY_PRESENT)
		r = partial_run(v, block, at, &here, &ret->length);
	if (!here || (state == VHDX_BLOCK_NOT_PRESENT && v->params.has_parent))
		ret->kind = DISK_HELD_NOT;
	else if (state == VHDX_BLOCK_FULLY_PRESENT || state == VHDX_BLOCK_PARTIALLY_PRESENT)
		ret->kind = DISK_HELD_DATA;
	else
		ret->kind = DISK_HELD_ZERO;
	return r;
}

/*
 * Blocks from `block` on whose BAT entries lie in a hole of the file, so that nobody needs to read
 * them: 0 when that cannot be said of the first.
 */
static uint64_t absent_blocks(struct vhdx *v, uint64_t block)
{
	uint64_t at = bat_page_of(v, block), length, index, entries = 0;
	uint64_t end = v->regions.bat.offset + vhdx_bat_count(&v->params) * 8;
	enum disk_extent_kind kind;

	if (page_cached(v, at) || at >= v->store->size ||
	    store_extent(v->store, at, &kind, &length) < 0 || kind != DISK_EXTENT_HOLE)
		return 0;
	for (; entries < length / VHDX_SECTOR && at < end; entries++, at += VHDX_SECTOR)
		if (page_cached(v, at))
			break;
	if (!entries)
		return 0;
	/* Entries up to the end of those pages, less those that are not of payload blocks. */
	index = (at - v->regions.bat.offset) / 8;
	index -= index / (v->chunk_ratio + 1);
	return index > block ? index - block : 0;
}

/* The same of any place on the disk, as far as it can be said at once. */
static int held_at(struct vhdx *v, uint64_t at, struct held *ret)
{
	uint64_t block = at >> v->block_shift, in_block = at & (v->params.block_size - 1);
	uint64_t n = absent_blocks(v, block);
	int r;

	if (n) {
		ret->length = (n << v->block_shift) - in_block;
		ret->kind = v->params.has_parent ? DISK_HELD_NOT : DISK_HELD_ZERO;
	} else {
		r = block_held(v, block, in_block, ret);
		if (r < 0)
			return r;
	}
	ret->length = MIN(ret->length, v->params.size - at);
	return 0;
}

/*
 * Of data it tells no more than a few pieces of a copy: whoever copies asks again for each, and
 * would look through the bits of all that follows every time.
 */
#define HELD_DATA_MAX (16 * MIB)

static int vhdx_held(struct disk *disk, uint64_t offset, enum disk_held *ret_held,
		     uint64_t *ret_length)
{
	struct vhdx *v = vhdx_of(disk);
	uint64_t total = 0;

	while (offset + total < v->params.size) {
		struct held h;
		int r = held_at(v, offset + total, &h);

		if (r < 0)
			return r;
		if (total && h.kind != *ret_held)
			break;
		*ret_held = h.kind;
		total += h.length;
		if (h.kind == DISK_HELD_DATA && total >= HELD_DATA_MAX)
			break;
	}
	*ret_length = total;
	return 0;
}

/* One stretch of vhdx_extent's answer. */
static int extent_at(struct vhdx *v, uint64_t at, enum disk_extent_kind *ret_kind,
		     uint64_t *ret_length)
{
	struct held h;
	int r = held_at(v, at, &h);

	if (r < 0)
		return r;
	*ret_kind = DISK_EXTENT_HOLE;
	*ret_length = h.length;
	if (h.kind == DISK_HELD_NOT)
		return parent_extent(v, at, ret_kind, ret_length);
	return h.kind == DISK_HELD_DATA ? file_extent(v, h.offset, ret_kind, ret_length) : 0;
}

/*
 * A child asks its parent again for each stretch of its own: so a child tells one stretch, and who
 * has no parent some at once, or the work would multiply with every image of a chain.
 */
static int vhdx_extent(struct disk *disk, uint64_t offset, enum disk_extent_kind *ret_kind,
		       uint64_t *ret_length)
{
	struct vhdx *v = vhdx_of(disk);
	unsigned most = v->params.has_parent ? 1 : EXTENT_STRETCHES;
	uint64_t total = 0;

	while (offset + total < v->params.size && most--) {
		enum disk_extent_kind kind;
		uint64_t n;
		int r = extent_at(v, offset + total, &kind, &n);

		if (r < 0)
			return r;
		if (total && kind != *ret_kind)
			break;
		*ret_kind = kind;
		total += n;
	}
	*ret_length = total;
	return 0;
}

/* --- the parent --- */

static void vhdx_identity(struct disk *disk, struct disk_identity *ret)
{
	*ret = (struct disk_identity){ .id = vhdx_of(disk)->header.data_write };
}

static const struct disk_parent *vhdx_parent(struct disk *disk)
{
	struct vhdx *v = vhdx_of(disk);

	return v->params.has_parent ? &v->parent : NULL;
}

static void vhdx_set_parent(struct disk *disk, struct disk *parent)
{
	disk->below = parent;
}

static void vhdx_set_next_identity(struct disk *disk, const struct guid *id)
{
	vhdx_of(disk)->journal.next_data = *id;
}

/* --- closing --- */

static int vhdx_close(struct disk *disk, struct error *err)
{
	struct vhdx *v = vhdx_of(disk);
	int r = journal_close(v, err);

	vhdx_free(v);
	return r;
}

static const struct disk_ops vhdx_ops = {
	.name = "vhdx",
	.submit = vhdx_submit,
	.extent = vhdx_extent,
	.held = vhdx_held,
	.identity = vhdx_identity,
	.parent = vhdx_parent,
	.set_parent = vhdx_set_parent,
	.set_parent_ref = vhdx_set_parent_ref,
	.set_next_identity = vhdx_set_next_identity,
	.resize = vhdx_resize,
	.compact = vhdx_compact,
	.close = vhdx_close,
};
