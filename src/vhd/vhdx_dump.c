// SPDX-License-Identifier: MIT
/*
 * Telling every structure of a VHDX as it stands on disk, damaged ones too. Nothing is replayed: an
 * unfinished log is shown, and what it would change is shown as it is before that.
 */
#include "vhd/dump.h"

#include "lib/cleanup.h"
#include "vhd/dump_tell.h"
#include "vhd/vhdx.h"
#include "vhd/vhdx_log.h"

#include <errno.h>
#include <string.h>

#define LOG_ENTRIES_MAX 4096u /* of the output */

/* --- identifier, headers --- */

static int dump_identifier(struct dump *d)
{
	struct vhdx_file_id id;
	char creator[VHDX_CREATOR_SIZE / 2 + 1] = "";
	int r = store_read(d->s, &id, sizeof(id), 0);

	if (r < 0)
		return r;
	for (size_t i = 0; i < VHDX_CREATOR_SIZE / 2; i++) {
		uint16_t c = le16_get(id.creator[i]);

		if (!c)
			break;
		creator[i] = c >= 32 && c < 127 ? (char)c : '?';
	}
	dump_begin(d, "identifier", false);
	dump_text(d, "valid", le64_get(id.signature) == VHDX_FILE_ID_SIGNATURE ? "yes" : "no");
	dump_text(d, "creator", creator);
	dump_end(d);
	return 0;
}

static int dump_header(struct dump *d, unsigned n)
{
	struct vhdx_disk_header h;
	struct vhdx_header decoded;
	int r = store_read(d->s, &h, sizeof(h), VHDX_HEADER_OFFSET(n));

	if (r < 0)
		return r;
	dump_begin(d, NULL, false);
	dump_number(d, "offset", VHDX_HEADER_OFFSET(n));
	dump_text(d, "valid", vhdx_header_decode(&h, &decoded) < 0 ? "no" : "yes");
	dump_number(d, "checksum", le32_get(h.checksum));
	dump_number(d, "sequence_number", le64_get(h.sequence_number));
	dump_guid(d, "file_write_guid", &h.file_write_guid);
	dump_guid(d, "data_write_guid", &h.data_write_guid);
	dump_guid(d, "log_guid", &h.log_guid);
	dump_number(d, "log_version", le16_get(h.log_version));
	dump_number(d, "version", le16_get(h.version));
	dump_number(d, "log_length", le32_get(h.log_length));
	dump_number(d, "log_offset", le64_get(h.log_offset));
	dump_end(d);
	return 0;
}

static int dump_headers(struct dump *d)
{
	int r = 0;

	dump_begin(d, "headers", true);
	for (unsigned n = 0; n < 2 && r >= 0; n++)
		r = dump_header(d, n);
	dump_end(d);
	return r;
}

/* --- log --- */

static void dump_entries(struct dump *d, const struct vhdx_log *log)
{
	dump_begin(d, "entries", true);
	for (size_t i = 0; i < MIN(log->count, LOG_ENTRIES_MAX); i++) {
		const struct vhdx_log_entry *e = &log->entries[i];

		dump_begin(d, NULL, false);
		dump_number(d, "sequence_number", e->sequence);
		dump_number(d, "offset_in_log", (uint64_t)e->start * VHDX_SECTOR);
		dump_number(d, "length", (uint64_t)e->sectors * VHDX_SECTOR);
		dump_number(d, "tail", (uint64_t)e->tail * VHDX_SECTOR);
		dump_number(d, "descriptors", e->descriptors);
		dump_number(d, "flushed_file_offset", e->flushed_size);
		dump_number(d, "last_file_offset", e->last_size);
		dump_end(d);
	}
	dump_end(d);
}

static void dump_log(struct dump *d)
{
	struct error why = { 0 };
	struct vhdx_header h;
	struct vhdx_log log;
	unsigned slot, valid;

	dump_begin(d, "log", false);
	if (vhdx_header_read(d->s, &h, &slot, &valid, &why) < 0) {
		dump_damage(d, &why);
	} else if (guid_is_zero(&h.log)) {
		dump_number(d, "current_header", slot + 1);
		dump_text(d, "state", "empty");
	} else {
		dump_number(d, "current_header", slot + 1);
		dump_text(d, "state", "in use");
		if (vhdx_log_read(d->s, &h, &log, &why) < 0) {
			dump_damage(d, &why);
		} else {
			dump_entries(d, &log);
			vhdx_log_deinit(&log);
		}
	}
	dump_end(d);
}

/* --- tables --- */

static const struct {
	struct guid guid;
	const char *name;
} known[] = {
	{ VHDX_GUID_BAT, "block allocation table" },
	{ VHDX_GUID_METADATA, "metadata" },
	{ VHDX_GUID_FILE_PARAMETERS, "file parameters" },
	{ VHDX_GUID_DISK_SIZE, "virtual disk size" },
	{ VHDX_GUID_DISK_ID, "virtual disk id" },
	{ VHDX_GUID_LOGICAL_SECTOR, "logical sector size" },
	{ VHDX_GUID_PHYSICAL_SECTOR, "physical sector size" },
	{ VHDX_GUID_PARENT_LOCATOR, "parent locator" },
	{ VHDX_GUID_CHS, "CHS geometry" },
	{ VHDX_GUID_INCOMPLETE_FILE, "incomplete file" },
	{ VHDX_GUID_PMEM_LABELS, "persistent memory labels" },
};

static void named_guid(struct dump *d, const struct guid *g)
{
	dump_guid(d, "guid", g);
	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (guid_equal(&known[i].guid, g))
			dump_text(d, "name", known[i].name);
}

static void dump_region_entries(struct dump *d, const void *bytes)
{
	const struct vhdx_region_header *h = bytes;
	const struct vhdx_region_entry *e = (const void *)((const uint8_t *)bytes + 16);

	dump_begin(d, "entries", true);
	for (uint32_t i = 0; i < MIN(le32_get(h->entry_count), VHDX_ENTRIES_MAX); i++) {
		dump_begin(d, NULL, false);
		named_guid(d, &e[i].guid);
		dump_number(d, "file_offset", le64_get(e[i].file_offset));
		dump_number(d, "length", le32_get(e[i].length));
		dump_number(d, "required", le32_get(e[i].required));
		dump_end(d);
	}
	dump_end(d);
}

static int dump_regions(struct dump *d)
{
	_cleanup_free_ void *bytes = malloc(VHDX_REGION_SIZE);
	int r = bytes ? 0 : -ENOMEM;

	dump_begin(d, "region_tables", true);
	for (unsigned n = 0; n < 2 && r >= 0; n++) {
		struct error why = { 0 };
		struct vhdx_regions regions;

		r = store_read(d->s, bytes, VHDX_REGION_SIZE, VHDX_REGION_OFFSET(n));
		if (r < 0)
			break;
		dump_begin(d, NULL, false);
		dump_number(d, "offset", VHDX_REGION_OFFSET(n));
		if (vhdx_regions_decode(bytes, &regions, &why) < 0)
			dump_damage(d, &why);
		if (le32_get(((struct vhdx_region_header *)bytes)->signature) ==
		    VHDX_REGION_SIGNATURE)
			dump_region_entries(d, bytes);
		dump_end(d);
	}
	dump_end(d);
	return r;
}

static int dump_items(struct dump *d, const struct vhdx_region *metadata)
{
	_cleanup_free_ uint8_t *table = malloc(VHDX_METADATA_TABLE);
	const struct vhdx_metadata_header *h = (const void *)table;
	const struct vhdx_metadata_entry *e = (const void *)(table + sizeof(*h));
	int r = table ? store_read(d->s, table, VHDX_METADATA_TABLE, metadata->offset) : -ENOMEM;

	if (r < 0 || le64_get(h->signature) != VHDX_METADATA_SIGNATURE)
		return r;
	dump_begin(d, "items", true);
	for (unsigned i = 0; i < MIN(le16_get(h->entry_count), VHDX_ENTRIES_MAX); i++) {
		uint32_t flags = le32_get(e[i].flags);

		dump_begin(d, NULL, false);
		named_guid(d, &e[i].item);
		dump_number(d, "offset", le32_get(e[i].offset));
		dump_number(d, "length", le32_get(e[i].length));
		dump_number(d, "user", !!(flags & VHDX_META_IS_USER));
		dump_number(d, "virtual_disk", !!(flags & VHDX_META_IS_VIRTUAL_DISK));
		dump_number(d, "required", !!(flags & VHDX_META_IS_REQUIRED));
		dump_end(d);
	}
	dump_end(d);
	return 0;
}

static void dump_params(struct dump *d, const struct vhdx_params *p)
{
	dump_number(d, "block_size", p->block_size);
	dump_number(d, "leave_blocks_allocated", p->leave_allocated);
	dump_number(d, "has_parent", p->has_parent);
	dump_number(d, "virtual_disk_size", p->size);
	dump_guid(d, "virtual_disk_id", &p->id);
	dump_number(d, "logical_sector_size", p->logical_sector);
	dump_number(d, "physical_sector_size", p->physical_sector);
}

static void dump_locator(struct dump *d, const struct vhdx_region *metadata)
{
	struct error why = { 0 };
	struct disk_parent parent;

	dump_begin(d, "parent_locator", false);
	if (vhdx_locator_read(d->s, metadata, &parent, &why) < 0) {
		dump_damage(d, &why);
	} else {
		dump_guid(d, "parent_linkage", &parent.id);
		if (!guid_is_zero(&parent.id2))
			dump_guid(d, "parent_linkage2", &parent.id2);
		if (parent.relative)
			dump_text(d, "relative_path", parent.relative);
		if (parent.volume)
			dump_text(d, "volume_path", parent.volume);
		if (parent.absolute)
			dump_text(d, "absolute_win32_path", parent.absolute);
		disk_parent_deinit(&parent);
	}
	dump_end(d);
}

/* --- block allocation table --- */

struct bat_sum {
	uint64_t states[8], bitmaps;
};

static void dump_bat_entry(struct dump *d, const struct vhdx_params *p, uint64_t index, uint64_t e,
			   struct bat_sum *sum)
{
	uint64_t ratio = vhdx_chunk_ratio(p), chunk = index / (ratio + 1);
	bool bitmap = index % (ratio + 1) == ratio;

	if (bitmap)
		sum->bitmaps += VHDX_BAT_STATE(e) == VHDX_BLOCK_FULLY_PRESENT;
	else
		sum->states[VHDX_BAT_STATE(e)]++;
	if (!e || !d->all_blocks)
		return;
	dump_begin(d, NULL, false);
	dump_number(d, bitmap ? "bitmap" : "block", bitmap ? chunk : index - chunk);
	dump_number(d, "state", VHDX_BAT_STATE(e));
	dump_number(d, "file_offset", VHDX_BAT_OFFSET(e));
	if (VHDX_BAT_RESERVED(e))
		dump_number(d, "reserved", VHDX_BAT_RESERVED(e));
	dump_end(d);
}

/* Holes of the file are "not present" everywhere, and a table may be large. */
static int scan_bat(struct dump *d, const struct vhdx_params *p, const struct vhdx_region *bat,
		    struct bat_sum *sum)
{
	uint64_t count = vhdx_bat_count(p), page[VHDX_BAT_PER_PAGE];

	for (uint64_t i = 0; i < count; i += VHDX_BAT_PER_PAGE) {
		uint64_t at = bat->offset + i * 8, length = 0;
		enum disk_extent_kind kind = DISK_EXTENT_HOLE;
		int r;

		if (at >= d->s->size)
			return 0;
		if (!store_extent(d->s, at, &kind, &length) && kind == DISK_EXTENT_HOLE &&
		    length >= VHDX_SECTOR) {
			i += (length / VHDX_SECTOR - 1) * VHDX_BAT_PER_PAGE;
			continue;
		}
		r = store_read(d->s, page, sizeof(page), at);
		if (r < 0)
			return r;
		for (uint64_t n = 0; n < VHDX_BAT_PER_PAGE && i + n < count; n++) {
			le64 e;

			memcpy(&e, &page[n], sizeof(e));
			dump_bat_entry(d, p, i + n, le64_get(e), sum);
		}
	}
	return 0;
}

static int dump_bat(struct dump *d, const struct vhdx_params *p, const struct vhdx_region *bat)
{
	static const char *const names[] = { "not_present",   "undefined",        "zero",
					     "unmapped",      "reserved_4",       "reserved_5",
					     "fully_present", "partially_present" };
	struct bat_sum sum = { 0 };
	uint64_t told = 0;
	int r;

	dump_begin(d, "block_allocation_table", false);
	dump_number(d, "entries_needed", vhdx_bat_count(p));
	dump_number(d, "chunk_ratio", vhdx_chunk_ratio(p));
	if (d->all_blocks)
		dump_begin(d, "entries", true);
	r = scan_bat(d, p, bat, &sum);
	if (d->all_blocks)
		dump_end(d);
	for (unsigned i = 1; i < ARRAY_SIZE(names); i++)
		told += sum.states[i];
	sum.states[0] = vhdx_block_count(p) - told;
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (sum.states[i] || !(i == 4 || i == 5))
			dump_number(d, names[i], sum.states[i]);
	dump_number(d, "sector_bitmaps", sum.bitmaps);
	dump_end(d);
	return r;
}

static int dump_content(struct dump *d)
{
	struct error why = { 0 };
	struct vhdx_regions regions;
	struct vhdx_params p;
	unsigned valid;
	int r;

	if (vhdx_regions_read(d->s, &regions, &valid, &why) < 0)
		return 0; /* said already */
	dump_begin(d, "metadata", false);
	r = dump_items(d, &regions.metadata);
	if (r >= 0 && vhdx_params_read(d->s, &regions.metadata, &p, &why) < 0) {
		dump_damage(d, &why);
		dump_end(d);
		return 0;
	}
	if (r >= 0)
		dump_params(d, &p);
	if (r >= 0 && p.has_parent)
		dump_locator(d, &regions.metadata);
	dump_end(d);
	return r < 0 ? r : dump_bat(d, &p, &regions.bat);
}

int vhdx_dump(struct store *store, const struct dump_visitor *to, bool all_blocks,
	      struct error *err)
{
	struct dump d = { .to = to, .s = store, .all_blocks = all_blocks };
	int r;

	dump_number(&d, "file_size", store->size);
	r = dump_identifier(&d);
	if (r >= 0)
		r = dump_headers(&d);
	if (r >= 0) {
		dump_log(&d);
		r = dump_regions(&d);
	}
	if (r >= 0)
		r = dump_content(&d);
	return r < 0 ? error_errno(err, r, "cannot read the image") : 0;
}
