// SPDX-License-Identifier: MIT
/*
 * Decoding and encoding of VHDX headers (MS-VHDX 2.2), region tables (2.2.3) and metadata (2.6).
 * What real files do against the specification is let through on purpose and said at the place.
 */
#include "vhd/vhdx_meta.h"

#include "lib/cleanup.h"
#include "lib/crc32c.h"
#include "lib/cursor.h"

#include <errno.h>

static const struct guid guid_bat = VHDX_GUID_BAT;
static const struct guid guid_metadata = VHDX_GUID_METADATA;

/* The checksum of a structure whose own checksum field (at byte 4) counts as zero. */
static uint32_t checksum_of(const uint8_t *bytes, size_t size)
{
	static const uint8_t none[4];
	uint32_t crc = crc32c(0, bytes, 4);

	crc = crc32c(crc, none, 4);
	return crc32c(crc, bytes + 8, size - 8);
}

static void checksum_set(uint8_t *bytes, size_t size)
{
	le32 sum = le32_of(checksum_of(bytes, size));

	memcpy(bytes + 4, &sum, sizeof(sum));
}

/* --- headers --- */

int vhdx_header_decode(const void *bytes, struct vhdx_header *ret)
{
	const struct vhdx_disk_header *d = bytes;

	if (le32_get(d->signature) != VHDX_HEADER_SIGNATURE ||
	    le32_get(d->checksum) != checksum_of(bytes, VHDX_HEADER_SIZE) ||
	    le16_get(d->version) != VHDX_VERSION)
		return -EINVAL;
	*ret = (struct vhdx_header){
		.sequence = le64_get(d->sequence_number),
		.file_write = d->file_write_guid,
		.data_write = d->data_write_guid,
		.log = d->log_guid,
		.log_version = le16_get(d->log_version),
		.log_length = le32_get(d->log_length),
		.log_offset = le64_get(d->log_offset),
	};
	return 0;
}

void vhdx_header_encode(const struct vhdx_header *h, void *bytes)
{
	struct vhdx_disk_header *d = bytes;

	memset(d, 0, sizeof(*d));
	d->signature = le32_of(VHDX_HEADER_SIGNATURE);
	d->sequence_number = le64_of(h->sequence);
	d->file_write_guid = h->file_write;
	d->data_write_guid = h->data_write;
	d->log_guid = h->log;
	d->log_version = le16_of(h->log_version);
	d->version = le16_of(VHDX_VERSION);
	d->log_length = le32_of(h->log_length);
	d->log_offset = le64_of(h->log_offset);
	checksum_set(bytes, VHDX_HEADER_SIZE);
}

static int log_place_check(const struct vhdx_header *h, uint64_t size, struct error *err)
{
	if ((h->log_offset | h->log_length) & (VHDX_OBJECT_ALIGN - 1) ||
	    (h->log_length && h->log_offset < VHDX_OBJECT_ALIGN) ||
	    !range_inside(h->log_offset, h->log_length, size))
		return error_set(err, -EINVAL,
				 "the header places the log at %llu MiB + %llu bytes, which is "
				 "not a place in this file: it is cut short or damaged",
				 (unsigned long long)(h->log_offset / MIB),
				 (unsigned long long)h->log_length);
	if (guid_is_zero(&h->log))
		return 0;
	if (!h->log_length)
		return error_set(err, -EINVAL, "the header names a log but gives it no space");
	if (h->log_version != VHDX_LOG_VERSION)
		return error_set(err, -ENOTSUP,
				 "the log has version %u, only 0 is known; let the program that "
				 "wrote the image close it first",
				 h->log_version);
	return 0;
}

int vhdx_header_read(struct store *s, struct vhdx_header *ret, unsigned *ret_slot,
		     unsigned *ret_valid, struct error *err)
{
	_cleanup_free_ void *bytes = malloc(VHDX_HEADER_SIZE);
	struct vhdx_header h[2];
	unsigned valid = 0, slot;

	if (!bytes)
		return error_set(err, -ENOMEM, "out of memory");
	for (unsigned n = 0; n < 2; n++) {
		int r = store_read(s, bytes, VHDX_HEADER_SIZE, VHDX_HEADER_OFFSET(n));

		if (r < 0)
			return error_errno(err, r, "cannot read header %u", n + 1);
		if (!vhdx_header_decode(bytes, &h[n]))
			valid |= BIT(n);
	}
	if (!valid)
		return error_set(err, -EINVAL,
				 "both VHDX headers (at 64 and 128 KiB) are damaged: the image "
				 "cannot be opened without repair");
	/* Disk2vhd leaves equal sequence numbers behind: then the first is as good. */
	slot = valid == 3 ? h[1].sequence > h[0].sequence : valid >> 1;
	if (h[slot].sequence > VHDX_SEQUENCE_MAX && !s->read_only)
		return error_set(err, -EINVAL,
				 "the headers' sequence number is used up: `vhd check --repair` "
				 "begins it anew");
	*ret = h[slot];
	*ret_slot = slot;
	*ret_valid = valid;
	return log_place_check(ret, s->size, err);
}

/* --- region table --- */

static int region_take(const struct vhdx_region_entry *e, struct vhdx_region *ret,
		       struct error *err)
{
	uint64_t offset = le64_get(e->file_offset), length = le32_get(e->length);
	uint64_t end;

	if (ret->length)
		return error_set(err, -EINVAL, "the region table lists a region twice");
	if (offset < VHDX_OBJECT_ALIGN || !length || (offset | length) & (VHDX_OBJECT_ALIGN - 1) ||
	    add_overflow(offset, length, &end) || end > INT64_MAX)
		return error_set(err, -EINVAL,
				 "the region table has a region at an impossible place");
	*ret = (struct vhdx_region){ .offset = offset, .length = length };
	return 0;
}

static int region_decode(const struct vhdx_region_entry *e, struct vhdx_regions *regions,
			 struct error *err)
{
	char text[GUID_TEXT_SIZE];

	if (guid_equal(&e->guid, &guid_bat))
		return region_take(e, &regions->bat, err);
	if (guid_equal(&e->guid, &guid_metadata))
		return region_take(e, &regions->metadata, err);
	if (!(le32_get(e->required) & VHDX_REGION_REQUIRED))
		return 0;
	return error_set(err, -ENOTSUP,
			 "the image needs a feature that is not known here (region %s); convert "
			 "it with the program that made it",
			 guid_format(&e->guid, text));
}

/* qemu leaves the Required flag of both known regions clear; nothing depends on it. */
int vhdx_regions_decode(const void *bytes, struct vhdx_regions *ret, struct error *err)
{
	struct reader r = reader_of(bytes, VHDX_REGION_SIZE);
	const struct vhdx_region_header *h = reader_take(&r, sizeof(*h));
	struct vhdx_regions regions = { 0 };
	uint32_t count = le32_get(h->entry_count);

	if (le32_get(h->signature) != VHDX_REGION_SIGNATURE ||
	    le32_get(h->checksum) != checksum_of(bytes, VHDX_REGION_SIZE) ||
	    count > VHDX_ENTRIES_MAX)
		return error_set(err, -EINVAL, "the region table is damaged");
	for (uint32_t i = 0; i < count; i++) {
		const struct vhdx_region_entry *e = reader_take(&r, sizeof(*e));
		int n = e ? region_decode(e, &regions, err) : -EINVAL;

		if (n < 0)
			return n;
	}
	if (!regions.bat.length || !regions.metadata.length)
		return error_set(err, -EINVAL, "the region table has no %s region",
				 regions.bat.length ? "metadata" : "block allocation table");
	*ret = regions;
	return 0;
}

void vhdx_regions_encode(const struct vhdx_regions *regions, void *bytes)
{
	const struct vhdx_region_header h = {
		.signature = le32_of(VHDX_REGION_SIGNATURE),
		.entry_count = le32_of(2),
	};
	const struct vhdx_region_entry e[] = {
		{ guid_bat, le64_of(regions->bat.offset), le32_of((uint32_t)regions->bat.length),
		  le32_of(VHDX_REGION_REQUIRED) },
		{ guid_metadata, le64_of(regions->metadata.offset),
		  le32_of((uint32_t)regions->metadata.length), le32_of(VHDX_REGION_REQUIRED) },
	};
	struct writer w = writer_of(bytes, VHDX_REGION_SIZE);

	memset(bytes, 0, VHDX_REGION_SIZE);
	writer_put(&w, &h, sizeof(h));
	writer_put(&w, e, sizeof(e));
	checksum_set(bytes, VHDX_REGION_SIZE);
}

int vhdx_regions_read(struct store *s, struct vhdx_regions *ret, unsigned *ret_valid,
		      struct error *err)
{
	_cleanup_free_ void *bytes = malloc(VHDX_REGION_SIZE);
	struct vhdx_regions regions;
	int first = -EINVAL;

	if (!bytes)
		return error_set(err, -ENOMEM, "out of memory");
	*ret_valid = 0;
	for (unsigned n = 0; n < 2; n++) {
		int r = store_read(s, bytes, VHDX_REGION_SIZE, VHDX_REGION_OFFSET(n));

		if (r < 0)
			return error_errno(err, r, "cannot read region table %u", n + 1);
		r = vhdx_regions_decode(bytes, &regions, *ret_valid ? NULL : err);
		if (r == -ENOTSUP && !*ret_valid)
			return r;
		if (r < 0)
			continue;
		if (!*ret_valid)
			*ret = regions;
		*ret_valid |= BIT(n);
		first = 0;
	}
	return first;
}

/* --- metadata --- */

enum item {
	ITEM_FILE_PARAMETERS,
	ITEM_DISK_SIZE,
	ITEM_DISK_ID,
	ITEM_LOGICAL_SECTOR,
	ITEM_PHYSICAL_SECTOR,
	ITEM_NEEDED, /* the items above must be there */
	ITEM_PARENT_LOCATOR = ITEM_NEEDED,
	ITEM_CHS,
	ITEM_INCOMPLETE_FILE,
	ITEM_PMEM_LABELS,
	ITEM_COUNT,
};

static const struct {
	struct guid guid;
	const char *name;
	uint32_t size; /* 0 = not read */
	uint32_t flags;
} items[] = {
#define DISK (VHDX_META_IS_VIRTUAL_DISK | VHDX_META_IS_REQUIRED)
	[ITEM_FILE_PARAMETERS] = { VHDX_GUID_FILE_PARAMETERS, "file parameters", 8,
				   VHDX_META_IS_REQUIRED },
	[ITEM_DISK_SIZE] = { VHDX_GUID_DISK_SIZE, "disk size", 8, DISK },
	[ITEM_DISK_ID] = { VHDX_GUID_DISK_ID, "disk id", 16, DISK },
	[ITEM_LOGICAL_SECTOR] = { VHDX_GUID_LOGICAL_SECTOR, "logical sector size", 4, DISK },
	[ITEM_PHYSICAL_SECTOR] = { VHDX_GUID_PHYSICAL_SECTOR, "physical sector size", 4, DISK },
	[ITEM_PARENT_LOCATOR] = { VHDX_GUID_PARENT_LOCATOR, "parent locator", 0, 0 },
	[ITEM_CHS] = { VHDX_GUID_CHS, "CHS geometry", 0, 0 },
	[ITEM_INCOMPLETE_FILE] = { VHDX_GUID_INCOMPLETE_FILE, "incomplete file", 0, 0 },
	[ITEM_PMEM_LABELS] = { VHDX_GUID_PMEM_LABELS, "persistent memory labels", 0, 0 },
#undef DISK
};

struct item_place {
	bool there;
	uint32_t offset, length;
};

static int item_find(const struct guid *guid)
{
	for (int i = 0; i < ITEM_COUNT; i++)
		if (guid_equal(guid, &items[i].guid))
			return i;
	return -ENOENT;
}

static int item_decode(const struct vhdx_metadata_entry *e, uint64_t region_length,
		       struct item_place places[static ITEM_COUNT], struct error *err)
{
	uint32_t flags = le32_get(e->flags), offset = le32_get(e->offset);
	uint32_t length = le32_get(e->length);
	int i = flags & VHDX_META_IS_USER ? -ENOENT : item_find(&e->item);
	char text[GUID_TEXT_SIZE];

	if (i < 0 && !(flags & VHDX_META_IS_REQUIRED))
		return 0;
	if (i < 0)
		return error_set(err, -ENOTSUP,
				 "the image needs a feature that is not known here (metadata %s); "
				 "convert it with the program that made it",
				 guid_format(&e->item, text));
	if (places[i].there)
		return error_set(err, -EINVAL, "the metadata lists the %s twice", items[i].name);
	if (length > VHDX_METADATA_LENGTH_MAX || !length != !offset ||
	    (length && offset < VHDX_METADATA_TABLE) ||
	    !range_inside(offset, length, region_length) || length < items[i].size)
		return error_set(err, -EINVAL, "the metadata places the %s wrongly", items[i].name);
	places[i] = (struct item_place){ .there = true, .offset = offset, .length = length };
	return 0;
}

static int items_decode(const void *table, uint64_t region_length,
			struct item_place places[static ITEM_COUNT], struct error *err)
{
	struct reader r = reader_of(table, VHDX_METADATA_TABLE);
	const struct vhdx_metadata_header *h = reader_take(&r, sizeof(*h));
	uint16_t count = le16_get(h->entry_count);

	if (le64_get(h->signature) != VHDX_METADATA_SIGNATURE || count > VHDX_ENTRIES_MAX)
		return error_set(err, -EINVAL, "the metadata table is damaged");
	for (unsigned i = 0; i < count; i++) {
		const struct vhdx_metadata_entry *e = reader_take(&r, sizeof(*e));
		int n = e ? item_decode(e, region_length, places, err) : -EINVAL;

		if (n < 0)
			return n;
	}
	if (places[ITEM_INCOMPLETE_FILE].there)
		return error_set(err, -EINVAL,
				 "the making of this image was never finished: make it again");
	for (int i = 0; i < ITEM_NEEDED; i++)
		if (!places[i].there)
			return error_set(err, -EINVAL, "the metadata has no %s", items[i].name);
	return 0;
}

int vhdx_params_check(const struct vhdx_params *p, struct error *err)
{
	if (!is_power_of_2(p->block_size) || p->block_size < VHDX_BLOCK_SIZE_MIN ||
	    p->block_size > VHDX_BLOCK_SIZE_MAX)
		return error_set(err, -EINVAL,
				 "a block size of %u bytes: it must be a power of two from 1 MiB "
				 "to 256 MiB",
				 p->block_size);
	if ((p->logical_sector != 512 && p->logical_sector != 4096) ||
	    (p->physical_sector != 512 && p->physical_sector != 4096))
		return error_set(err, -EINVAL,
				 "sector sizes of %u (logical) and %u (physical) bytes: each must "
				 "be 512 or 4096",
				 p->logical_sector, p->physical_sector);
	if (!p->size || p->size > VHDX_DISK_SIZE_MAX || p->size % p->logical_sector)
		return error_set(err, -EINVAL,
				 "a disk size of %llu bytes: it must be a multiple of %u and at "
				 "most 64 TiB",
				 (unsigned long long)p->size, p->logical_sector);
	return 0;
}

static int table_read(struct store *s, const struct vhdx_region *metadata,
		      struct item_place places[static ITEM_COUNT], struct error *err)
{
	_cleanup_free_ void *table = malloc(VHDX_METADATA_TABLE);
	int r;

	if (!table)
		return error_set(err, -ENOMEM, "out of memory");
	r = store_read(s, table, VHDX_METADATA_TABLE, metadata->offset);
	if (r < 0)
		return error_errno(err, r, "cannot read the metadata");
	return items_decode(table, metadata->length, places, err);
}

int vhdx_item_find(struct store *s, const struct vhdx_region *metadata, const struct guid *guid,
		   struct vhdx_region *ret)
{
	struct item_place places[ITEM_COUNT] = { 0 };
	int i = item_find(guid), r = table_read(s, metadata, places, NULL);

	if (r < 0)
		return r;
	if (i < 0 || !places[i].there)
		return -ENOENT;
	*ret = (struct vhdx_region){ metadata->offset + places[i].offset, places[i].length };
	return 0;
}

int vhdx_params_read(struct store *s, const struct vhdx_region *metadata, struct vhdx_params *ret,
		     struct error *err)
{
	struct item_place places[ITEM_COUNT] = { 0 };
	uint8_t bytes[ITEM_NEEDED][16] = { 0 };
	struct reader r = reader_of(bytes[ITEM_FILE_PARAMETERS], 8);
	uint32_t flags;
	int n = table_read(s, metadata, places, err);

	if (n < 0)
		return n;
	for (int i = 0; i < ITEM_NEEDED; i++) {
		n = store_read(s, bytes[i], items[i].size, metadata->offset + places[i].offset);
		if (n < 0)
			return error_errno(err, n, "cannot read the metadata");
	}
	*ret = (struct vhdx_params){ .block_size = reader_le32(&r) };
	flags = reader_le32(&r);
	ret->leave_allocated = flags & VHDX_PARAM_LEAVE_BLOCKS_ALLOCATED;
	ret->has_parent = flags & VHDX_PARAM_HAS_PARENT;
	r = reader_of(bytes[ITEM_DISK_SIZE], 8);
	ret->size = reader_le64(&r);
	memcpy(&ret->id, bytes[ITEM_DISK_ID], sizeof(ret->id));
	r = reader_of(bytes[ITEM_LOGICAL_SECTOR], 4);
	ret->logical_sector = reader_le32(&r);
	r = reader_of(bytes[ITEM_PHYSICAL_SECTOR], 4);
	ret->physical_sector = reader_le32(&r);
	return vhdx_params_check(ret, err);
}

static void item_encode(struct writer *table, struct writer *content, enum item i,
			const void *bytes)
{
	const struct vhdx_metadata_entry e = {
		.item = items[i].guid,
		.offset = le32_of((uint32_t)(VHDX_METADATA_TABLE + content->at)),
		.length = le32_of(items[i].size),
		.flags = le32_of(items[i].flags),
	};

	writer_put(table, &e, sizeof(e));
	writer_put(content, bytes, items[i].size);
}

void vhdx_params_encode(const struct vhdx_params *p, uint32_t locator_size, void *bytes)
{
	const struct vhdx_metadata_header h = {
		.signature = le64_of(VHDX_METADATA_SIGNATURE),
		.entry_count = le16_of(ITEM_NEEDED + (locator_size ? 1 : 0)),
	};
	const struct vhdx_metadata_entry locator = {
		.item = items[ITEM_PARENT_LOCATOR].guid,
		.offset = le32_of((uint32_t)VHDX_LOCATOR_OFFSET),
		.length = le32_of(locator_size),
		.flags = le32_of(VHDX_META_IS_REQUIRED),
	};
	const le32 file[] = { le32_of(p->block_size),
			      le32_of((p->leave_allocated ? VHDX_PARAM_LEAVE_BLOCKS_ALLOCATED : 0) |
				      (p->has_parent ? VHDX_PARAM_HAS_PARENT : 0)) };
	const le64 size = le64_of(p->size);
	const le32 logical = le32_of(p->logical_sector), physical = le32_of(p->physical_sector);
	struct writer table = writer_of(bytes, VHDX_METADATA_TABLE);
	struct writer content = writer_of((char *)bytes + VHDX_METADATA_TABLE, 64 * KIB);

	memset(bytes, 0, VHDX_METADATA_TABLE + 64 * KIB);
	writer_put(&table, &h, sizeof(h));
	item_encode(&table, &content, ITEM_FILE_PARAMETERS, file);
	item_encode(&table, &content, ITEM_DISK_SIZE, &size);
	item_encode(&table, &content, ITEM_DISK_ID, &p->id);
	item_encode(&table, &content, ITEM_LOGICAL_SECTOR, &logical);
	item_encode(&table, &content, ITEM_PHYSICAL_SECTOR, &physical);
	if (locator_size)
		writer_put(&table, &locator, sizeof(locator));
}
