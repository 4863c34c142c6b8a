// SPDX-License-Identifier: MIT
/*
 * Telling every structure of a VHD as it stands on disk, damaged ones too: both footers, the header
 * that counts, its locators, and the block table.
 */
#include "vhd/dump_tell.h"

#include "lib/cleanup.h"
#include "vhd/vhd.h"
#include "vhd/vhd_meta.h"

#include <errno.h>
#include <string.h>

#define PER_PAGE 1024u

/* Four characters, the first in the highest byte; what is no character is a point. */
static void code(struct dump *d, const char *name, uint32_t value)
{
	char s[5] = "";

	for (unsigned i = 0; i < 4; i++) {
		char c = (char)(value >> (24 - 8 * i));

		s[i] = c >= 32 && c < 127 ? c : '.';
	}
	dump_text(d, name, s);
}

static void unique_id(struct dump *d, const char *name, const uint8_t bytes[static 16])
{
	struct guid g = vhd_guid_get(bytes);

	dump_guid(d, name, &g);
}

static void dump_footer(struct dump *d, const struct vhd_disk_footer *f, uint64_t offset,
			bool valid)
{
	dump_begin(d, NULL, false);
	dump_number(d, "offset", offset);
	dump_text(d, "valid", valid ? "yes" : "no");
	if (be64_get(f->cookie) == VHD_FOOTER_COOKIE) {
		dump_number(d, "features", be32_get(f->features));
		dump_number(d, "file_format_version", be32_get(f->file_format_version));
		dump_number(d, "data_offset", be64_get(f->data_offset));
		dump_number(d, "time_stamp", be32_get(f->time_stamp));
		code(d, "creator_application", be32_get(f->creator_application));
		dump_number(d, "creator_version", be32_get(f->creator_version));
		code(d, "creator_host_os", be32_get(f->creator_host_os));
		dump_number(d, "original_size", be64_get(f->original_size));
		dump_number(d, "current_size", be64_get(f->current_size));
		dump_number(d, "cylinders", be16_get(f->cylinders));
		dump_number(d, "heads", f->heads);
		dump_number(d, "sectors_per_track", f->sectors_per_track);
		dump_number(d, "disk_type", be32_get(f->disk_type));
		dump_number(d, "checksum", be32_get(f->checksum));
		dump_number(d, "checksum_computed", vhd_checksum(f, sizeof(*f), f->checksum));
		unique_id(d, "unique_id", f->unique_id);
		dump_number(d, "saved_state", f->saved_state);
	}
	dump_end(d);
}

static void dump_locators(struct dump *d, const struct vhd_disk_header *h)
{
	struct disk_parent parent;

	dump_begin(d, "parent_locators", true);
	for (unsigned i = 0; i < VHD_LOCATORS; i++) {
		const struct vhd_locator *l = &h->parent_locators[i];

		if (!be32_get(l->platform_code))
			continue;
		dump_begin(d, NULL, false);
		code(d, "platform_code", be32_get(l->platform_code));
		dump_number(d, "platform_data_space", be32_get(l->platform_data_space));
		dump_number(d, "platform_data_length", be32_get(l->platform_data_length));
		dump_number(d, "platform_data_offset", be64_get(l->platform_data_offset));
		dump_end(d);
	}
	dump_end(d);
	if (vhd_parent_read(d->s, h, &parent) < 0)
		return;
	if (parent.relative)
		dump_text(d, "relative_path", parent.relative);
	if (parent.absolute)
		dump_text(d, "absolute_path", parent.absolute);
	disk_parent_deinit(&parent);
}

static void dump_header(struct dump *d, const struct vhd_disk_header *h, uint64_t offset,
			bool child)
{
	struct error why = { 0 };

	dump_begin(d, "header", false);
	dump_number(d, "offset", offset);
	if (vhd_header_check(h, &why) < 0)
		dump_damage(d, &why);
	dump_number(d, "data_offset", be64_get(h->data_offset));
	dump_number(d, "table_offset", be64_get(h->table_offset));
	dump_number(d, "header_version", be32_get(h->header_version));
	dump_number(d, "max_table_entries", be32_get(h->max_table_entries));
	dump_number(d, "block_size", be32_get(h->block_size));
	dump_number(d, "checksum", be32_get(h->checksum));
	if (child) {
		unique_id(d, "parent_unique_id", h->parent_unique_id);
		dump_number(d, "parent_time_stamp", be32_get(h->parent_time_stamp));
		dump_locators(d, h);
	}
	dump_end(d);
}

/* Counts what is used, up to the end of the file. */
static int scan_table(struct dump *d, uint64_t offset, uint64_t count, uint64_t *ret_present)
{
	be32 page[PER_PAGE];

	for (uint64_t i = 0; i < count && offset + i * 4 < d->s->size; i += PER_PAGE) {
		int r = store_read(d->s, page, sizeof(page), offset + i * 4);

		if (r < 0)
			return r;
		for (uint64_t n = 0; n < PER_PAGE && i + n < count; n++) {
			uint32_t sector = be32_get(page[n]);

			if (sector == VHD_BAT_UNUSED)
				continue;
			(*ret_present)++;
			if (!d->all_blocks)
				continue;
			dump_begin(d, NULL, false);
			dump_number(d, "block", i + n);
			dump_number(d, "file_offset", (uint64_t)sector * VHD_SECTOR);
			dump_end(d);
		}
	}
	return 0;
}

static int dump_table(struct dump *d, const struct vhd_disk_header *h)
{
	uint64_t offset = be64_get(h->table_offset), entries = be32_get(h->max_table_entries);
	uint64_t present = 0;
	int r;

	dump_begin(d, "block_allocation_table", false);
	dump_number(d, "entries", entries);
	if (!range_inside(offset, entries * 4, d->s->size))
		dump_text(d, "damage", "the file ends before the end of the table");
	if (d->all_blocks)
		dump_begin(d, "entries_used", true);
	r = offset < d->s->size ? scan_table(d, offset, entries, &present) : 0;
	if (d->all_blocks)
		dump_end(d);
	dump_number(d, "present", present);
	dump_end(d);
	return r;
}

static int dump_content(struct dump *d, const struct vhd_disk_footer *f)
{
	uint64_t offset = be64_get(f->data_offset);
	struct vhd_disk_header h;
	int r;

	if (be32_get(f->disk_type) == VHD_TYPE_FIXED)
		return 0;
	if (!range_inside(offset, sizeof(h), d->s->size)) {
		dump_text(d, "damage", "the header would lie outside the file");
		return 0;
	}
	r = store_read(d->s, &h, sizeof(h), offset);
	if (r < 0)
		return r;
	dump_header(d, &h, offset, be32_get(f->disk_type) == VHD_TYPE_DIFFERENCING);
	return be64_get(h.cookie) == VHD_HEADER_COOKIE ? dump_table(d, &h) : 0;
}

int vhd_dump(struct store *store, const struct dump_visitor *to, bool all_blocks, struct error *err)
{
	struct dump d = { .to = to, .s = store, .all_blocks = all_blocks };
	struct vhd_footers f;
	int r = vhd_footers_read(store, &f, err);

	if (r < 0)
		return r;
	dump_number(&d, "file_size", store->size);
	dump_begin(&d, "footers", true);
	if (be64_get(f.copy.cookie) == VHD_FOOTER_COOKIE)
		dump_footer(&d, &f.copy, 0, f.copy_valid);
	dump_footer(&d, &f.end, f.end_at, f.end_valid);
	dump_end(&d);
	if (f.behind)
		dump_number(&d, "bytes_behind", f.behind);
	/* The same choice as in opening, without its judgement. */
	r = f.end_valid || !f.copy_valid ? dump_content(&d, &f.end) : dump_content(&d, &f.copy);
	return r < 0 ? error_errno(err, r, "cannot read the image") : 0;
}
