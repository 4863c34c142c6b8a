// SPDX-License-Identifier: MIT
/*
 * Changes to the structures of an image: its size, and who its parent is. They block.
 *
 * There is one header, so it cannot be overwritten while a footer names it. A new header goes
 * behind everything else, with a new footer that names it at the end. Once both are durable the
 * copy of the footer follows, then the header at its usual place is overwritten, the copy names
 * that one, and what lies behind everything else is cut off. At each cut one of the two footers is
 * good and names a header that is.
 */
#include "vhd/vhd_internal.h"

#include "lib/cleanup.h"

#include <errno.h>
#include <string.h>

#define ALIGN UINT64_C(4096)

/* --- the switch --- */

static int write_sync(struct vhd *v, const void *bytes, size_t n, uint64_t offset)
{
	int r = store_write(v->store, bytes, n, offset);

	return r >= 0 ? store_sync(v->store) : r;
}

static int footer_sync(struct vhd *v, const struct vhd_disk_footer *f, uint64_t offset)
{
	int r = vhd_footer_write(v, f, offset);

	return r >= 0 ? store_sync(v->store) : r;
}

static int resize_sync(struct vhd *v, uint64_t size)
{
	int r = store_resize(v->store, size);

	return r >= 0 ? store_sync(v->store) : r;
}

/* Everything before `end` is in place. The footer gets its place there. */
static int structures_switch(struct vhd *v, const struct vhd_disk_footer *footer,
			     const struct vhd_disk_header *header, uint64_t end)
{
	struct vhd_disk_footer away = *footer, home = *footer;
	struct vhd_disk_header h = *header;
	int r;

	vhd_header_sign(&h);
	away.data_offset = be64_of(end);
	vhd_footer_sign(&away);
	home.data_offset = be64_of(v->header_offset);
	vhd_footer_sign(&home);
	v->commit.footer_at = UINT64_MAX;
	r = store_write(v->store, &h, sizeof(h), end);
	if (r >= 0)
		r = vhd_footer_write(v, &away, end + sizeof(h));
	if (r >= 0)
		r = resize_sync(v, end + sizeof(h) + VHD_FOOTER_SIZE);
	if (r >= 0)
		r = footer_sync(v, &away, 0);
	if (r >= 0)
		r = write_sync(v, &h, sizeof(h), v->header_offset);
	if (r >= 0)
		r = footer_sync(v, &home, 0);
	if (r >= 0)
		r = resize_sync(v, end);
	if (r >= 0)
		r = footer_sync(v, &home, end);
	if (r < 0)
		return r;
	v->footer = home;
	v->header = h;
	v->space.end = end;
	v->commit.footer_at = end;
	vhd_cache_clear(v);
	return 0;
}

/* After a failure in between only reading goes on: which structures hold is not known. */
static int switch_end(struct vhd *v, int r, struct error *err)
{
	if (r >= 0)
		return vhd_structures_set(v, err);
	v->commit.failed = r;
	return error_errno(err, r,
			   "cannot change the structures of the image; the next opening finds the "
			   "old or the new ones");
}

/* --- a larger table --- */

/* Where what lies behind the table begins; UINT64_MAX = nothing does. */
static int table_limit(struct vhd *v, uint64_t *ret)
{
	uint64_t limit = v->header_offset > v->bat_offset ? v->header_offset : UINT64_MAX;

	for (unsigned i = 0; i < VHD_LOCATORS; i++) {
		uint64_t at = be64_get(v->header.parent_locators[i].platform_data_offset);

		if (at > v->bat_offset)
			limit = MIN(limit, at);
	}
	for (uint64_t block = 0; block < v->blocks; block++) {
		struct vhd_page *p;
		uint64_t offset;
		int r = vhd_page_load_now(v, VHD_PAGE_BAT, block / VHD_PER_PAGE,
					  vhd_bat_page_offset(v, block), &p);

		if (r >= 0)
			r = vhd_bat_get(v, p, block, &offset);
		if (r < 0)
			return r;
		if (r && offset > v->bat_offset)
			limit = MIN(limit, offset);
	}
	*ret = limit;
	return 0;
}

/*
 * Gives the table room for `blocks` entries, those that are new unused: where it is when nothing
 * is in the way, else behind everything. *ret_end is what is then used of the file.
 */
static int table_grow(struct vhd *v, uint64_t blocks, uint64_t *ret_offset, uint64_t *ret_end)
{
	uint64_t bytes = vhd_bat_bytes(blocks), offset = v->bat_offset, limit;
	uint64_t old = v->blocks * 4, first = 0;
	_cleanup_free_ uint8_t *table = malloc(bytes);
	int r = table ? table_limit(v, &limit) : -ENOMEM;

	if (r < 0)
		return r;
	memset(table, 0xff, bytes);
	r = store_read(v->store, table, old, v->bat_offset);
	if (bytes > limit - offset)
		offset = round_up64(v->space.end + VHD_FOOTER_SIZE, ALIGN);
	else
		first = round_down64(old, VHD_SECTOR);
	if (r >= 0 && bytes > first)
		r = store_write(v->store, table + first, bytes - first, offset + first);
	if (r >= 0)
		r = store_sync(v->store);
	*ret_offset = offset;
	*ret_end = MAX(v->space.end, offset + bytes);
	return r;
}

/* What lies behind the end of a disk in its last block would show when the disk gets larger. */
static int tail_zero(struct vhd *v)
{
	uint64_t size = v->disk.geometry.size, at = size & (vhd_block_size(v) - 1), offset;
	uint64_t block = v->blocks - 1;
	struct vhd_page *p;
	int r;

	if (!at)
		return 0;
	r = vhd_page_load_now(v, VHD_PAGE_BAT, block / VHD_PER_PAGE, vhd_bat_page_offset(v, block),
			      &p);
	if (r >= 0)
		r = vhd_bat_get(v, p, block, &offset);
	if (r <= 0)
		return r;
	return store_zero(v->store, offset + v->bitmap_bytes + at, vhd_block_size(v) - at);
}

/* --- sizes --- */

static struct vhd_disk_footer footer_with(const struct vhd *v, uint64_t size)
{
	struct vhd_disk_footer f = v->footer;
	uint32_t creator = be32_get(f.creator_application);

	/* The new size is exact, the geometry is not. */
	if (creator == VHD_CREATOR_VIRTUAL_PC || creator == VHD_CREATOR_QEMU)
		f.creator_application = be32_of(VHD_CREATOR_WINDOWS);
	vhd_footer_set_size(&f, size);
	vhd_footer_sign(&f);
	return f;
}

/*
 * A fixed image has one footer. The new one is durable before the old one is lost; writing it
 * behind the end is what makes the file longer.
 */
static int fixed_resize(struct vhd *v, uint64_t size)
{
	struct vhd_disk_footer f = footer_with(v, size);
	uint64_t old_end = v->space.end;
	int r = footer_sync(v, &f, size);

	if (r >= 0 && size > old_end) {
		r = store_zero(v->store, old_end, VHD_FOOTER_SIZE);
		if (r >= 0)
			r = store_reserve(v->store, old_end, size - old_end);
		if (r >= 0)
			r = store_sync(v->store);
	} else if (r >= 0) {
		r = resize_sync(v, size + VHD_FOOTER_SIZE);
	}
	if (r >= 0) {
		v->footer = f;
		v->space.end = v->commit.footer_at = size;
	}
	return r;
}

/* Cuts what the file has behind its last block. */
static int end_cut(struct vhd *v, uint64_t least)
{
	uint64_t end;
	int r = vhd_space_used_end(v, least, &end);

	end = round_up64(end, VHD_SECTOR);
	if (r < 0 || end >= v->space.end)
		return r;
	vhd_space_cut(v, end);
	v->commit.footer_at = end;
	r = vhd_footer_write(v, &v->footer, end);
	return r >= 0 ? resize_sync(v, end + VHD_FOOTER_SIZE) : r;
}

static uint64_t structures_end(const struct vhd *v)
{
	uint64_t end = MAX(v->header_offset + VHD_HEADER_SIZE,
			   v->bat_offset + vhd_bat_bytes(be32_get(v->header.max_table_entries)));

	for (unsigned i = 0; v->kind == VHD_DIFFERENCING && i < VHD_LOCATORS; i++) {
		const struct vhd_locator *l = &v->header.parent_locators[i];

		if (be32_get(l->platform_code))
			end = MAX(end, be64_get(l->platform_data_offset) +
					       be32_get(l->platform_data_length));
	}
	return end;
}

static int dynamic_resize(struct vhd *v, uint64_t size, struct error *err)
{
	uint64_t blocks = (size + vhd_block_size(v) - 1) >> v->block_shift;
	uint64_t offset = v->bat_offset, end = v->space.end;
	bool grow = size > v->disk.geometry.size;
	struct vhd_disk_footer f = footer_with(v, size);
	struct vhd_disk_header h = v->header;
	int r = 0;

	if (grow)
		r = tail_zero(v);
	if (r >= 0 && blocks > v->blocks)
		r = table_grow(v, blocks, &offset, &end);
	if (r < 0)
		return error_errno(err, r, "cannot make room for the larger disk");
	h.max_table_entries = be32_of((uint32_t)blocks);
	h.table_offset = be64_of(offset);
	r = switch_end(v, structures_switch(v, &f, &h, end), err);
	if (r < 0 || grow)
		return r;
	r = end_cut(v, structures_end(v));
	return r < 0 ? error_errno(err, r, "cannot cut the image's file") : 0;
}

static int size_allowed(const struct vhd *v, uint64_t size, struct error *err)
{
	const struct disk *below = v->disk.below;

	if (v->store->read_only)
		return error_set(err, -EROFS, "the image was opened read-only");
	if (v->store->fixed_size)
		return error_set(err, -ENOTSUP, "an image on a block device has its size for good");
	if (!size || size % VHD_SECTOR || size > VHD_DISK_SIZE_MAX)
		return error_set(err, -EINVAL,
				 "a VHD has a size of at most 2040 GiB that is a multiple of 512 "
				 "bytes; for larger disks convert it to VHDX");
	/* The parent's data would appear in the part that is new. */
	if (v->kind == VHD_DIFFERENCING && size > v->disk.geometry.size &&
	    (!below || below->geometry.size > v->disk.geometry.size))
		return error_set(err, -ENOTSUP,
				 "a differencing disk can only grow when its parent is open and "
				 "not larger than it");
	return 0;
}

int vhd_resize(struct disk *disk, uint64_t size, struct error *err)
{
	struct vhd *v = vhd_of(disk);
	int r = size_allowed(v, size, err);

	if (r < 0 || size == disk->geometry.size)
		return r;
	r = vhd_commit_drain(v);
	if (r >= 0)
		r = v->commit.failed;
	if (r < 0)
		return error_errno(err, r, "cannot write what came before the new size");
	if (v->kind == VHD_FIXED)
		return switch_end(v, fixed_resize(v, size), err);
	return dynamic_resize(v, size, err);
}

int vhd_set_parent_ref(struct disk *disk, const struct disk_parent *parent, struct error *err)
{
	struct vhd *v = vhd_of(disk);
	struct vhd_disk_header h = v->header;
	uint64_t offset;
	struct vhd_parent_bytes b;
	int r;

	if (v->kind != VHD_DIFFERENCING || v->store->read_only)
		return error_set(err, v->store->read_only ? -EROFS : -EINVAL,
				 "only a differencing image that may be written can name another "
				 "parent");
	if (!parent->relative && !parent->absolute)
		return error_set(err, -EINVAL, "a differencing VHD must say where its parent is");
	r = vhd_commit_drain(v);
	if (r >= 0)
		r = v->commit.failed;
	if (r < 0)
		return error_errno(err, r, "cannot write what came before the new parent");
	offset = round_up64(v->space.end + VHD_FOOTER_SIZE, ALIGN);
	r = vhd_parent_encode(parent, offset, &h, &b, err);
	if (r < 0)
		return r;
	r = store_write(v->store, b.bytes, b.size, offset);
	if (r >= 0)
		r = store_sync(v->store);
	if (r >= 0)
		r = structures_switch(v, &v->footer, &h, offset + b.size);
	free(b.bytes);
	return switch_end(v, r, err);
}
