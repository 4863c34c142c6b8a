// SPDX-License-Identifier: MIT
/*
 * FAT12, FAT16 and FAT32 (Microsoft's "FAT32 File System Specification" 1.03), for reading, without
 * a library. A file's id is the place of its entry; the root's is 1, where no entry can be. Every
 * number of the disk is checked where it is used, and a chain of clusters is never followed for
 * longer than the file or folder is said to be, so that rings end. Times have no zone and are taken
 * as UTC.
 */
#include "vhdtool/files.h"

#include "lib/cleanup.h"
#include "lib/cursor.h"
#include "lib/utf16.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define ROOT       1u
#define ENTRY      32u
#define FOLDER_MAX (65536u * ENTRY) /* the specification's limit */
#define LONG_PARTS 20u              /* of 13 characters: 255 and a rest */

#define ATTR_LABEL  0x08u
#define ATTR_FOLDER 0x10u
#define ATTR_LONG   0x0fu

struct fat {
	struct files files;
	unsigned bits; /* 12, 16, 32 */
	uint64_t table, table_size;
	uint64_t root, root_size; /* FAT12 and FAT16: bytes */
	uint32_t root_cluster;    /* FAT32 */
	uint64_t data;            /* where cluster 2 is */
	uint32_t cluster_size, clusters;
	/* how far the file that was read last was followed */
	uint64_t at_id;
	uint32_t at_first, at_cluster, at_index;
};

struct entry {
	uint64_t id;
	uint8_t attributes;
	uint32_t cluster, size;
	int64_t mtime;
	uint8_t short_name[11], case_flags;
};

static int damaged(struct error *err, const char *what, uint64_t offset)
{
	return error_set(err, -EIO, "%s (byte %llu of the file system) is damaged", what,
			 (unsigned long long)offset);
}

static int read_at(struct fat *f, void *buf, size_t n, uint64_t offset, struct error *err)
{
	struct files_volume *v = f->files.volume;
	int r;

	if (!range_inside(offset, n, v->size))
		return error_set(err, -EIO, "it goes on behind the end, at byte %llu",
				 (unsigned long long)offset);
	r = v->read(v, buf, n, offset);
	return r < 0 ? error_errno(err, r, "byte %llu of the file system",
				   (unsigned long long)offset)
		     : 0;
}

/* --- clusters --- */

static bool is_cluster(const struct fat *f, uint32_t c)
{
	return c >= 2 && c - 2 < f->clusters;
}

static uint64_t place_of(const struct fat *f, uint32_t c)
{
	return f->data + (uint64_t)(c - 2) * f->cluster_size;
}

/* What the table has for `c`; any value. */
static int table_entry(struct fat *f, uint32_t c, uint32_t *ret, struct error *err)
{
	uint64_t at = f->bits == 12 ? c + c / 2 : (uint64_t)c * (f->bits / 8);
	size_t n = f->bits == 32 ? 4 : 2;
	uint8_t bytes[4] = { 0 };
	int r;

	if (!range_inside(at, n, f->table_size))
		return damaged(err, "the table of clusters", f->table + at);
	r = read_at(f, bytes, n, f->table + at, err);
	if (r < 0)
		return r;
	*ret = bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
	       (uint32_t)bytes[3] << 24;
	if (f->bits == 12)
		*ret = c & 1 ? *ret >> 4 : *ret & 0xfff;
	else if (f->bits == 32)
		*ret &= 0x0fffffff;
	return 0;
}

/* The cluster after `c`: *ret = 0 at the chain's end. */
static int next_cluster(struct fat *f, uint32_t c, uint32_t *ret, struct error *err)
{
	uint32_t end = f->bits == 12 ? 0xff8 : f->bits == 16 ? 0xfff8 : 0x0ffffff8, next;
	int r = table_entry(f, c, &next, err);

	if (r < 0)
		return r;
	*ret = next >= end ? 0 : next;
	if (*ret && !is_cluster(f, *ret))
		return error_set(err, -EIO, "cluster %u leads to %u, which there is not", c, next);
	return 0;
}

/* --- entries --- */

static int64_t time_of(uint32_t date, uint32_t clock)
{
	struct tm tm = {
		.tm_year = 80 + (int)(date >> 9),
		.tm_mon = (int)(date >> 5 & 15) - 1,
		.tm_mday = (int)(date & 31),
		.tm_hour = (int)(clock >> 11),
		.tm_min = (int)(clock >> 5 & 63),
		.tm_sec = 2 * (int)(clock & 31),
	};

	if (tm.tm_mon < 0 || tm.tm_mon > 11 || !tm.tm_mday)
		return 0;
	return timegm(&tm);
}

static void decode(const struct fat *f, const uint8_t *bytes, uint64_t id, struct entry *ret)
{
	struct reader r = reader_of(bytes, ENTRY);
	uint32_t high, clock, date;

	reader_copy(&r, ret->short_name, sizeof(ret->short_name));
	ret->attributes = reader_u8(&r);
	ret->case_flags = reader_u8(&r);
	reader_skip(&r, 7);
	high = reader_le16(&r);
	clock = reader_le16(&r);
	date = reader_le16(&r);
	ret->cluster = reader_le16(&r) | (f->bits == 32 ? high << 16 : 0);
	ret->size = reader_le32(&r);
	ret->mtime = time_of(date, clock);
	ret->id = id;
}

static bool is_folder(const struct entry *e)
{
	return e->attributes & ATTR_FOLDER;
}

static int find_entry(struct fat *f, uint64_t id, struct entry *ret, struct error *err)
{
	uint8_t bytes[ENTRY];
	int r;

	*ret = (struct entry){ .id = ROOT, .attributes = ATTR_FOLDER, .cluster = f->root_cluster };
	if (id == ROOT)
		return 0;
	if (id % ENTRY || id < (f->root ? f->root : f->data))
		return error_set(err, -EINVAL, "there is no such file");
	r = read_at(f, bytes, sizeof(bytes), id, err);
	if (r < 0)
		return r;
	decode(f, bytes, id, ret);
	if (!bytes[0] || bytes[0] == 0xe5 || (ret->attributes & ATTR_LABEL))
		return error_set(err, -EINVAL, "there is no such file");
	return 0;
}

/* --- names --- */

/* "NAME.EXT", lower case where Windows NT's flags say so. */
static size_t short_text(const struct entry *e, char *to)
{
	size_t at = 0;

	for (unsigned i = 0; i < 11; i++) {
		bool lower = e->case_flags & (i < 8 ? 0x08 : 0x10);
		unsigned char c = e->short_name[i];
		bool blank = true;

		for (unsigned k = i; k < (i < 8 ? 8 : 11); k++)
			blank = blank && e->short_name[k] == ' ';
		if (blank)
			continue;
		if (i == 8)
			to[at++] = '.';
		if (!i && c == 0x05)
			c = 0xe5;
		to[at++] = (char)(lower && c < 0x80 ? tolower(c) : c);
	}
	return at;
}

static uint8_t checksum(const uint8_t name[11])
{
	uint8_t sum = 0;

	for (unsigned i = 0; i < 11; i++)
		sum = (uint8_t)((sum << 7 | sum >> 1) + name[i]);
	return sum;
}

/* The parts of a long name, which stand before its entry from the last to the first. */
struct long_name {
	unsigned expected; /* the number of the part that comes next; 0 = all are there */
	unsigned parts;    /* 0 = there is none */
	uint8_t sum;
	uint8_t units[LONG_PARTS * 26];
};

static void take_part(struct long_name *l, const uint8_t *b)
{
	unsigned number = b[0] & 0x3f;
	uint8_t *to;

	if (b[0] & 0x40)
		*l = (struct long_name){ .expected = number, .parts = number, .sum = b[13] };
	if (!number || number > LONG_PARTS || number != l->expected || b[13] != l->sum) {
		l->parts = 0;
		return;
	}
	to = l->units + (size_t)(number - 1) * 26;
	memcpy(to, b + 1, 10);
	memcpy(to + 10, b + 14, 12);
	memcpy(to + 22, b + 28, 4);
	l->expected--;
}

/* The length of the text: the long name when it is whole and this entry's. */
static size_t name_of(const struct long_name *l, const struct entry *e, char to[FILES_NAME_MAX])
{
	_cleanup_free_ char *text = NULL;
	size_t n;

	if (l->parts && !l->expected && l->sum == checksum(e->short_name))
		text = utf16_decode(l->units, (size_t)l->parts * 26, UTF16_LE);
	n = text ? strlen(text) : 0;
	if (!n || n > FILES_NAME_MAX)
		return short_text(e, to);
	memcpy(to, text, n);
	return n;
}

/* --- folders --- */

/* Returns 0 to go on. */
typedef int fat_entry_fn(void *context, const struct entry *e, const char *name, size_t n);

struct walk {
	struct fat *fat;
	fat_entry_fn *fn;
	void *context;
	struct long_name name;
	bool end;
};

static int walk_entry(struct walk *w, const uint8_t *b, uint64_t id)
{
	char text[FILES_NAME_MAX];
	struct entry e;
	int r = 0;

	if (!b[0]) {
		w->end = true;
		return 0;
	}
	if (b[0] == 0xe5) {
		w->name.parts = 0;
		return 0;
	}
	if ((b[11] & 0x3f) == ATTR_LONG) {
		take_part(&w->name, b);
		return 0;
	}
	decode(w->fat, b, id, &e);
	if (!(e.attributes & ATTR_LABEL) && e.short_name[0] != '.')
		r = w->fn(w->context, &e, text, name_of(&w->name, &e, text));
	w->name.parts = 0;
	return r;
}

static int walk_stretch(struct walk *w, uint64_t at, uint64_t length, struct error *err)
{
	uint8_t bytes[128 * ENTRY];

	while (length >= ENTRY && !w->end) {
		size_t n = MIN(length, sizeof(bytes));
		int r = read_at(w->fat, bytes, n, at, err);

		for (size_t i = 0; i + ENTRY <= n && r >= 0 && !w->end; i += ENTRY)
			r = walk_entry(w, bytes + i, at + i);
		if (r)
			return r;
		at += n;
		length -= n;
	}
	return 0;
}

/* 0, or what the function returned, or an error with words. */
static int walk_folder(struct fat *f, uint64_t id, fat_entry_fn *fn, void *context,
		       struct error *err)
{
	struct walk w = { .fat = f, .fn = fn, .context = context };
	struct entry e;
	uint32_t c;
	int r = find_entry(f, id, &e, err);

	if (r < 0)
		return r;
	if (!is_folder(&e))
		return error_set(err, -ENOTDIR, "it is no folder");
	if (id == ROOT && f->bits != 32)
		return walk_stretch(&w, f->root, f->root_size, err);
	c = e.cluster;
	if (!is_cluster(f, c))
		return damaged(err, "the folder's first cluster", id);
	for (uint64_t done = 0; c && !w.end; done += f->cluster_size) {
		if (done >= FOLDER_MAX)
			return error_set(err, -EIO, "the folder has no end");
		r = walk_stretch(&w, place_of(f, c), f->cluster_size, err);
		if (!r && !w.end)
			r = next_cluster(f, c, &c, err);
		if (r)
			return r;
	}
	return 0;
}

struct listing {
	files_entry_fn *fn;
	void *context;
};

static int list_entry(void *context, const struct entry *e, const char *name, size_t n)
{
	const struct listing *l = context;

	return n ? l->fn(l->context, name, n, e->id) : 0;
}

static int fat_list(struct files *files, uint64_t dir, files_entry_fn *fn, void *context,
		    struct error *err)
{
	struct fat *f = container_of(files, struct fat, files);
	struct listing l = { fn, context };

	return walk_folder(f, dir, list_entry, &l, err);
}

struct search {
	const char *name;
	size_t length;
	uint64_t found; /* 0 = not */
};

static int compare_entry(void *context, const struct entry *e, const char *name, size_t n)
{
	struct search *s = context;
	char alias[13];
	size_t alias_length = short_text(e, alias);

	if ((n == s->length && !strncasecmp(name, s->name, n)) ||
	    (alias_length == s->length && !strncasecmp(alias, s->name, alias_length))) {
		s->found = e->id;
		return 1;
	}
	return 0;
}

static int fat_lookup(struct files *files, uint64_t dir, const char *name, uint64_t *ret,
		      struct error *err)
{
	struct fat *f = container_of(files, struct fat, files);
	struct search s = { .name = name, .length = strlen(name) };
	int r = walk_folder(f, dir, compare_entry, &s, err);

	if (r < 0)
		return r;
	*ret = s.found;
	return s.found ? 0 : error_set(err, -ENOENT, "it is not there");
}

static int fat_stat(struct files *files, uint64_t id, struct files_info *ret, struct error *err)
{
	struct fat *f = container_of(files, struct fat, files);
	struct entry e;
	int r = find_entry(f, id, &e, err);

	if (r < 0)
		return r;
	*ret = (struct files_info){
		.kind = is_folder(&e) ? FILES_FOLDER : FILES_REGULAR,
		.size = is_folder(&e) ? 0 : e.size,
		.mtime = e.mtime,
		.mode = FILES_NO_MODE,
		.links = 1,
	};
	return 0;
}

static int fat_readlink(struct files *files, uint64_t id, char ret[FILES_LINK_MAX],
			struct error *err)
{
	(void)files;
	(void)id;
	(void)ret;
	return error_set(err, -EINVAL, "FAT has no symbolic links");
}

/* --- files --- */

/* Moves the cursor to the cluster that has byte `offset` of the file. */
static int seek_to(struct fat *f, const struct entry *e, uint64_t offset, struct error *err)
{
	uint32_t wanted = (uint32_t)(offset / f->cluster_size);
	int r = 0;

	if (f->at_id != e->id || f->at_first != e->cluster || f->at_index > wanted) {
		f->at_id = e->id;
		f->at_first = f->at_cluster = e->cluster;
		f->at_index = 0;
	}
	if (wanted >= f->clusters)
		r = error_set(err, -EIO, "it is larger than the file system");
	else if (!is_cluster(f, f->at_cluster))
		r = error_set(err, -EIO, "its first cluster is %u, which there is not", e->cluster);
	while (r >= 0 && f->at_index < wanted) {
		uint32_t next;

		r = next_cluster(f, f->at_cluster, &next, err);
		if (r >= 0 && !next)
			r = error_set(err, -EIO, "its chain of clusters ends at byte %llu of %u",
				      (unsigned long long)(f->at_index + 1) * f->cluster_size,
				      e->size);
		if (r < 0)
			break;
		f->at_cluster = next;
		f->at_index++;
	}
	if (r < 0)
		f->at_id = 0;
	return r;
}

static int fat_read(struct files *files, uint64_t id, void *buf, size_t n, uint64_t offset,
		    struct files_piece *ret, struct error *err)
{
	struct fat *f = container_of(files, struct fat, files);
	uint64_t skip = offset % f->cluster_size, done = 0;
	struct entry e;
	int r = find_entry(f, id, &e, err);

	if (r < 0)
		return r;
	if (is_folder(&e))
		return error_set(err, -EISDIR, "it is a folder");
	*ret = (struct files_piece){ 0 };
	n = offset < e.size ? MIN(n, e.size - offset) : 0;
	while (done < n) {
		size_t part = MIN(n - done, f->cluster_size - skip);

		r = seek_to(f, &e, offset + done, err);
		if (r >= 0)
			r = read_at(f, (uint8_t *)buf + done, part,
				    place_of(f, f->at_cluster) + skip, err);
		if (r < 0)
			break;
		done += part;
		skip = 0;
	}
	ret->length = done;
	return done ? 0 : r;
}

/* --- opening --- */

struct bpb {
	uint32_t sector, cluster_sectors, reserved, tables, root_entries, sectors, table_sectors;
	uint32_t flags, root_cluster;
};

static bool decode_bpb(const uint8_t *bytes, struct bpb *ret)
{
	struct reader r = reader_of(bytes, 512);
	uint32_t large;

	reader_seek(&r, 11);
	ret->sector = reader_le16(&r);
	ret->cluster_sectors = reader_u8(&r);
	ret->reserved = reader_le16(&r);
	ret->tables = reader_u8(&r);
	ret->root_entries = reader_le16(&r);
	ret->sectors = reader_le16(&r);
	reader_skip(&r, 1);
	ret->table_sectors = reader_le16(&r);
	reader_skip(&r, 8);
	large = reader_le32(&r);
	if (!ret->sectors)
		ret->sectors = large;
	ret->flags = ret->root_cluster = 0;
	if (!ret->table_sectors) {
		ret->table_sectors = reader_le32(&r);
		ret->flags = reader_le16(&r);
		reader_skip(&r, 2);
		ret->root_cluster = reader_le32(&r);
	}
	return is_power_of_2(ret->sector) && ret->sector >= 512 && ret->sector <= 4096 &&
	       is_power_of_2(ret->cluster_sectors) && ret->reserved && ret->tables &&
	       ret->table_sectors && ret->sectors;
}

/* Sums of 32-bit numbers times a sector's size: they fit into 64 bits. */
static bool lay_out(struct fat *f, const struct bpb *b)
{
	uint64_t table_size = (uint64_t)b->table_sectors * b->sector;
	uint64_t first = b->reserved * (uint64_t)b->sector, clusters;
	/* With mirroring off only one of the tables is kept up. */
	uint32_t active = b->root_cluster && (b->flags & 0x80) ? b->flags & 15 : 0;

	f->table = first + active * table_size;
	f->table_size = table_size;
	f->root = first + b->tables * table_size;
	f->root_size = (uint64_t)b->root_entries * ENTRY;
	f->data = f->root + round_up64(f->root_size, b->sector);
	f->cluster_size = b->cluster_sectors * b->sector;
	if (active >= b->tables || f->data >= (uint64_t)b->sectors * b->sector ||
	    !range_inside(f->table, f->table_size, f->files.volume->size))
		return false;
	clusters = ((uint64_t)b->sectors * b->sector - f->data) / f->cluster_size;
	f->bits = b->root_cluster ? 32 : clusters < 4085 ? 12 : 16;
	if (f->bits != 32 && (!f->root_size || clusters >= 65525))
		return false;
	/* A file system may be cut off: what is there is read. */
	clusters = MIN(clusters, (f->files.volume->size - MIN(f->data, f->files.volume->size)) /
					 f->cluster_size);
	f->clusters = (uint32_t)MIN(clusters, 0x0ffffff5u);
	f->root_cluster = b->root_cluster;
	if (f->bits == 32)
		f->root = f->root_size = 0;
	return true;
}

/* The second entry of the table has a bit that Windows and Linux clear while it is mounted. */
static void look_at_state(struct fat *f)
{
	uint32_t state;

	if (f->bits == 12 || table_entry(f, 1, &state, NULL) < 0)
		return;
	if (!(state & (f->bits == 16 ? 0x8000u : 0x08000000u)))
		snprintf(f->files.note, sizeof(f->files.note),
			 "the file system was not unmounted, and is read as it lies: what was "
			 "written last may be missing");
}

static int fat_open(struct files_volume *v, struct files **ret, struct error *err)
{
	struct fat *f = calloc(1, sizeof(*f));
	uint8_t sector[512];
	struct bpb b;
	int r;

	if (!f)
		return error_set(err, -ENOMEM, "out of memory");
	f->files = (struct files){ .ops = &files_fat, .volume = v, .root = ROOT };
	*ret = &f->files;
	if (v->writable)
		return error_set(err, -EROFS,
				 "it is only read here; `vhd mount --writable` lets "
				 "the kernel write");
	r = read_at(f, sector, sizeof(sector), 0, err);
	if (r < 0)
		return r;
	if (!decode_bpb(sector, &b) || !lay_out(f, &b))
		return error_set(err, -EIO,
				 "its boot sector (byte 0) is damaged; fsck.fat knows "
				 "its copy, and `vhd mount --file` shows it the disk");
	look_at_state(f);
	return 0;
}

static int fat_close(struct files *files, struct error *err)
{
	(void)err;
	free(container_of(files, struct fat, files));
	return 0;
}

const struct files_ops files_fat = {
	.name = "FAT",
	.open = fat_open,
	.lookup = fat_lookup,
	.list = fat_list,
	.stat = fat_stat,
	.readlink = fat_readlink,
	.read = fat_read,
	.close = fat_close,
};
