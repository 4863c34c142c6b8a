// SPDX-License-Identifier: MIT
/* See ptable.h. A table is believed whole or not at all; its single entries are checked each. */
#include "vhdtool/ptable.h"

#include "lib/cleanup.h"
#include "lib/cursor.h"

#include <errno.h>
#include <string.h>

#define MBR_SIZE      512u
#define MBR_TABLE     446u
#define MBR_ENTRIES   4u
#define MBR_GPT       0xeeu
#define GPT_SIGNATURE UINT64_C(0x5452415020494645) /* "EFI PART" */
#define GPT_HEADER    92u
#define GPT_TABLE_MAX MIB /* usual: 16 KiB */

struct mbr_entry {
	uint8_t status, type;
	uint64_t first, sectors;
};

static uint32_t crc32_ieee(const uint8_t *p, size_t size)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < size; i++) {
		crc ^= p[i];
		for (unsigned bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

static void add(const struct ptable_source *s, struct ptable *t, const struct ptable_entry *e)
{
	if (t->count < PTABLE_MAX && e->length && range_inside(e->offset, e->length, s->size))
		t->entries[t->count++] = *e;
}

/* --- MBR --- */

static bool is_extended(uint8_t type)
{
	return type == 0x05 || type == 0x0f || type == 0x85;
}

/* Whether the sector is a table at all; the boot sectors of file systems end with 55 AA too. */
static bool mbr_decode(const uint8_t *sector, struct mbr_entry ret[MBR_ENTRIES])
{
	struct reader r = reader_of(sector, MBR_SIZE);

	if (sector[510] != 0x55 || sector[511] != 0xaa)
		return false;
	reader_seek(&r, MBR_TABLE);
	for (unsigned i = 0; i < MBR_ENTRIES; i++) {
		ret[i].status = reader_u8(&r);
		reader_skip(&r, 3);
		ret[i].type = reader_u8(&r);
		reader_skip(&r, 3);
		ret[i].first = reader_le32(&r);
		ret[i].sectors = reader_le32(&r);
		if (ret[i].status & 0x7f)
			return false;
	}
	return true;
}

static bool is_file_system(const uint8_t *b)
{
	return !memcmp(b + 3, "NTFS    ", 8) || !memcmp(b + 3, "EXFAT   ", 8) ||
	       !memcmp(b + 54, "FAT1", 4) || !memcmp(b + 82, "FAT32", 5);
}

static void add_mbr(const struct ptable_source *s, struct ptable *t, unsigned number,
		    const struct mbr_entry *m)
{
	const struct ptable_entry e = {
		.number = number,
		.mbr_type = m->type,
		.offset = m->first * s->sector,
		.length = m->sectors * s->sector,
	};

	if (m->first)
		add(s, t, &e);
}

/*
 * A chain of tables: the first entry is a partition, relative to its table; the second the next
 * table, relative to the extended partition. Its length is limited, so it may be a ring.
 */
static int read_logical(const struct ptable_source *s, const struct mbr_entry *extended,
			struct ptable *t)
{
	uint64_t base = extended->first, at = base;

	for (unsigned i = 0; i < PTABLE_MAX; i++) {
		uint8_t sector[MBR_SIZE];
		struct mbr_entry e[MBR_ENTRIES];
		int r;

		if (!range_inside(at * s->sector, s->sector, s->size))
			return 0;
		r = s->read(s->context, sector, sizeof(sector), at * s->sector);
		if (r < 0)
			return r;
		if (!mbr_decode(sector, e))
			return 0;
		if (e[0].type && e[0].sectors) {
			e[0].first += at;
			add_mbr(s, t, 5 + i, &e[0]);
		}
		if (!is_extended(e[1].type) || !e[1].first)
			return 0;
		at = base + e[1].first;
	}
	return 0;
}

static int read_mbr(const struct ptable_source *s, const struct mbr_entry *e, struct ptable *t)
{
	int r = 0;

	t->kind = PTABLE_MBR;
	for (unsigned i = 0; i < MBR_ENTRIES; i++)
		if (e[i].type && !is_extended(e[i].type))
			add_mbr(s, t, i + 1, &e[i]);
	for (unsigned i = 0; i < MBR_ENTRIES && r >= 0; i++)
		if (is_extended(e[i].type))
			r = read_logical(s, &e[i], t);
	return r;
}

/* --- GPT --- */

struct gpt {
	uint64_t first, last; /* sectors that partitions may take */
	uint64_t table;       /* sector */
	uint32_t count, entry_size, table_crc;
};

/* 1 = a good header of the sector `at`; 0 = none. */
static int gpt_decode(const struct ptable_source *s, uint8_t *sector, uint64_t at, struct gpt *ret)
{
	struct reader r = reader_of(sector, s->sector);
	uint32_t size, crc;

	if (reader_le64(&r) != GPT_SIGNATURE || reader_le32(&r) >> 16 != 1)
		return 0;
	size = reader_le32(&r);
	crc = reader_le32(&r);
	if (size < GPT_HEADER || size > s->sector)
		return 0;
	memset(sector + 16, 0, 4);
	if (crc32_ieee(sector, size) != crc)
		return 0;
	reader_skip(&r, 4);
	if (reader_le64(&r) != at)
		return 0;
	reader_skip(&r, 8); /* where the other one is */
	ret->first = reader_le64(&r);
	ret->last = reader_le64(&r);
	reader_skip(&r, 16); /* the disk's identity */
	ret->table = reader_le64(&r);
	ret->count = reader_le32(&r);
	ret->entry_size = reader_le32(&r);
	ret->table_crc = reader_le32(&r);
	return reader_ok(&r) && ret->entry_size >= 128 && is_power_of_2(ret->entry_size) &&
	       ret->count && ret->entry_size <= GPT_TABLE_MAX / ret->count;
}

static void gpt_add(const struct ptable_source *s, const struct gpt *g, const uint8_t *entry,
		    struct ptable_entry *e, struct ptable *t)
{
	struct reader r = reader_of(entry, g->entry_size);
	uint64_t first, last;

	reader_copy(&r, &e->type, sizeof(e->type));
	reader_skip(&r, 16);
	first = reader_le64(&r);
	last = reader_le64(&r);
	if (guid_is_zero(&e->type) || first < g->first || last > g->last || last < first ||
	    last >= s->size / s->sector)
		return;
	e->offset = first * s->sector;
	e->length = (last - first + 1) * s->sector;
	add(s, t, e);
}

static int gpt_read_at(const struct ptable_source *s, uint64_t at, struct ptable *t)
{
	_cleanup_free_ uint8_t *table = NULL;
	uint8_t sector[4096];
	struct gpt g;
	size_t size;
	int r = s->read(s->context, sector, s->sector, at * s->sector);

	if (r < 0 || !gpt_decode(s, sector, at, &g))
		return r;
	size = (size_t)g.count * g.entry_size;
	if (g.table >= s->size / s->sector || !range_inside(g.table * s->sector, size, s->size))
		return 0;
	table = malloc(size);
	if (!table)
		return -ENOMEM;
	r = s->read(s->context, table, size, g.table * s->sector);
	if (r < 0 || crc32_ieee(table, size) != g.table_crc)
		return r;
	t->kind = PTABLE_GPT;
	for (uint32_t i = 0; i < g.count; i++) {
		struct ptable_entry e = { .number = i + 1 };

		gpt_add(s, &g, table + (size_t)i * g.entry_size, &e, t);
	}
	return 0;
}

/* --- both --- */

static bool has_gpt_entry(const struct mbr_entry *e)
{
	for (unsigned i = 0; i < MBR_ENTRIES; i++)
		if (e[i].type == MBR_GPT)
			return true;
	return false;
}

static int read_table(const struct ptable_source *s, struct ptable *t)
{
	uint8_t sector[4096];
	struct mbr_entry e[MBR_ENTRIES];
	int r;

	if (s->size < 4 * (uint64_t)s->sector)
		return 0;
	r = s->read(s->context, sector, s->sector, 0);
	if (r < 0 || !mbr_decode(sector, e) || is_file_system(sector))
		return r;
	if (!has_gpt_entry(e))
		return read_mbr(s, e, t);
	r = gpt_read_at(s, 1, t);
	if (r < 0 || t->kind != PTABLE_NONE)
		return r;
	r = gpt_read_at(s, s->size / s->sector - 1, t);
	t->backup = t->kind != PTABLE_NONE;
	return r;
}

int ptable_read(const struct ptable_source *s, struct ptable *ret, struct error *err)
{
	struct ptable t = { 0 };
	int r;

	if (s->sector != 512 && s->sector != 4096)
		return error_set(err, -EINVAL, "sectors of %u bytes", s->sector);
	r = read_table(s, &t);
	if (r < 0)
		return error_errno(err, r, "cannot read the partition table");
	*ret = t;
	return 0;
}

const struct ptable_entry *ptable_find(const struct ptable *t, unsigned number)
{
	for (unsigned i = 0; i < t->count; i++)
		if (t->entries[i].number == number)
			return &t->entries[i];
	return NULL;
}

/* Partitions that firmware, boot loaders and Windows keep for themselves, and swap space. */
static const struct guid not_main[] = {
	GUID(0xc12a7328, 0xf81f, 0x11d2, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b),
	GUID(0xe3c9e316, 0x0b5c, 0x4db8, 0x81, 0x7d, 0xf9, 0x2d, 0xf0, 0x02, 0x15, 0xae),
	GUID(0xde94bba4, 0x06d1, 0x4d40, 0xa1, 0x6a, 0xbf, 0xd5, 0x01, 0x79, 0xd6, 0xac),
	GUID(0x21686148, 0x6449, 0x6e6f, 0x74, 0x4e, 0x65, 0x65, 0x64, 0x45, 0x46, 0x49),
	GUID(0x0657fd6d, 0xa4ab, 0x43c4, 0x84, 0xe5, 0x09, 0x33, 0xc8, 0x4b, 0x4f, 0x4f),
};

bool ptable_is_main(const struct ptable *t, const struct ptable_entry *e)
{
	if (t->kind == PTABLE_MBR)
		return e->mbr_type != 0x82 && e->mbr_type != 0xef && e->mbr_type != 0x27;
	for (unsigned i = 0; i < ARRAY_SIZE(not_main); i++)
		if (guid_equal(&e->type, &not_main[i]))
			return false;
	return true;
}

const struct ptable_entry *ptable_main(const struct ptable *t)
{
	for (unsigned i = 0; i < t->count; i++)
		if (ptable_is_main(t, &t->entries[i]))
			return &t->entries[i];
	return NULL;
}
