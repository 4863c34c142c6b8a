// SPDX-License-Identifier: MIT
/*
 * The decoder. First the stream as a whole: every record's place, size and checksum, until the end
 * record or the end of what there is; nothing is decoded before that. Then records, on demand, into
 * structs by their tables. Bodies are copied once, into memory of the reader's own, which never
 * becomes larger than SAVE_LIMIT whatever the stream says. One thread.
 */
#include "save/save_get.h"

#include "lib/cleanup.h"
#include "lib/crc32c.h"

#include <errno.h>

#define WINDOW (32 * KIB)

/* Where a stream comes from: memory, or a descriptor with a window of it at hand. */
struct source {
	const uint8_t *data; /* NULL = fd */
	size_t size;
	int fd;
	uint64_t window_at;
	size_t window_size;
	uint8_t window[WINDOW];
};

/* --- getting bytes --- */

static int damaged(struct error *err, uint64_t at, const char *what)
{
	return error_set(err, -EBADMSG, "the saved state is damaged at byte %llu: %s",
			 (unsigned long long)at, what);
}

static int pread_all(int fd, void *to, size_t n, uint64_t at)
{
	size_t have = 0;

	while (have < n) {
		ssize_t r = pread(fd, (uint8_t *)to + have, n - have, (off_t)(at + have));

		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return -errno;
		if (!r)
			break;
		have += (size_t)r;
	}
	return (int)have;
}

/* How many of the n bytes there are, at most WINDOW; or a negative errno. */
static int source_read_fd(struct source *s, uint64_t at, void *to, size_t n)
{
	if (n > WINDOW)
		return pread_all(s->fd, to, n, at);
	if (at < s->window_at || !range_inside(at - s->window_at, n, s->window_size)) {
		int r = pread_all(s->fd, s->window, WINDOW, at);

		if (r < 0)
			return r;
		s->window_at = at;
		s->window_size = (size_t)r;
		n = MIN(n, s->window_size);
	}
	memcpy(to, s->window + (at - s->window_at), n);
	return (int)n;
}

static int source_read(struct source *s, uint64_t at, void *to, size_t n)
{
	if (at > INT64_MAX - SAVE_LIMIT)
		return 0;
	if (!s->data)
		return source_read_fd(s, at, to, n);
	if (at >= s->size)
		return 0;
	n = MIN(n, s->size - (size_t)at);
	memcpy(to, s->data + at, n);
	return (int)n;
}

static int read_failed(struct error *err, int r)
{
	return error_errno(err, r, "cannot read the saved state");
}

/* --- the stream --- */

static int read_stream_header(struct source *s, struct error *err)
{
	struct save_stream_header h;
	uint32_t crc;
	int r = source_read(s, 0, &h, sizeof(h));

	if (r < 0)
		return read_failed(err, r);
	if (r < (int)sizeof(h) || memcmp(h.magic, SAVE_MAGIC, sizeof(h.magic)))
		return error_set(err, -EBADMSG, "this is no saved state of a virtual machine");
	crc = le32_get(h.crc);
	h.crc = le32_of(0);
	if (crc32c(0, &h, sizeof(h)) != crc)
		return damaged(err, 0, "checksum");
	if (le32_get(h.format) != SAVE_FORMAT)
		return error_set(err, -ENOTSUP,
				 "the saved state is of format %u; this version reads format %u",
				 le32_get(h.format), SAVE_FORMAT);
	return 0;
}

/* Text, and nothing behind its end. */
static bool text_valid(const char *text, size_t size, size_t least)
{
	size_t n = strnlen(text, size);

	if (n < least || n == size)
		return false;
	for (size_t i = 0; i < n; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return false;
	for (size_t i = n; i < size; i++)
		if (text[i])
			return false;
	return true;
}

static bool header_valid(const struct save_record_header *h)
{
	uint16_t flags = le16_get(h->flags);

	return le32_get(h->magic) == SAVE_RECORD_MAGIC && !(flags & ~SAVE_FLAGS) &&
	       le16_get(h->version) && text_valid(h->name, sizeof(h->name), 1) &&
	       text_valid(h->scope, sizeof(h->scope), 0) && le32_get(h->body_size) <= SAVE_LIMIT &&
	       le64_get(h->bulk_size) <= INT64_MAX / 2 &&
	       (flags & SAVE_FLAG_BULK || !le64_get(h->bulk_size));
}

static int append_record(struct save_reader *r, const struct save_record *rec, struct error *err)
{
	unsigned room = r->room ? r->room * 2 : 64;
	struct save_record *grown;

	if (r->count == SAVE_RECORDS_MAX)
		return error_set(err, -E2BIG, "the saved state has more than %u records",
				 SAVE_RECORDS_MAX);
	if (r->count == r->room) {
		grown = realloc(r->records, room * sizeof(*grown));
		if (!grown)
			return error_set(err, -ENOMEM, "out of memory");
		r->records = grown;
		r->room = room;
	}
	r->records[r->count++] = *rec;
	return 0;
}

/* The body, at `at`, whole and as its checksum says. */
static int read_body(struct save_reader *r, struct source *s, uint64_t at, struct save_record *rec,
		     struct error *err)
{
	struct save_record_header h = rec->header;
	uint32_t size = le32_get(h.body_size), crc = le32_get(h.crc);
	_cleanup_free_ uint8_t *body = NULL;
	int n;

	if (size > SAVE_LIMIT - r->bytes)
		return error_set(err, -E2BIG, "the saved state has more than %llu MiB of records",
				 (unsigned long long)(SAVE_LIMIT / MIB));
	body = malloc(size ? size : 1);
	if (!body)
		return error_set(err, -ENOMEM, "out of memory");
	n = source_read(s, at, body, size);
	if (n < 0)
		return read_failed(err, n);
	if ((uint32_t)n < size)
		return error_set(err, -EBADMSG, "the saved state is truncated");
	h.crc = le32_of(0);
	if (crc32c(crc32c(0, &h, sizeof(h)), body, size) != crc)
		return damaged(err, rec->at, "checksum");
	r->bytes += size;
	rec->body = steal_ptr(body);
	rec->size = size;
	return 0;
}

static int check_end(const struct save_reader *r, const struct save_record *rec, struct error *err)
{
	uint64_t count = r->count - 1;
	size_t at = sizeof(struct save_field_header) + strlen("records");
	le64 told;

	if (strcmp(rec->header.name, SAVE_END_NAME) || rec->size != at + sizeof(told))
		return damaged(err, rec->at, "end");
	memcpy(&told, rec->body + at, sizeof(told));
	return le64_get(told) == count ? 0 : damaged(err, rec->at, "records are missing");
}

/*
 * The record at *at, and where the next one may be. 1, or 0 when there is nothing more.
 */
static int read_record(struct save_reader *r, struct source *s, uint64_t *at, struct error *err)
{
	struct save_record rec = { .at = *at };
	uint64_t next;
	int n = source_read(s, *at, &rec.header, sizeof(rec.header));

	if (n < 0)
		return read_failed(err, n);
	if (!n)
		return 0;
	/* Zeros before a record with bulk data. */
	if (n >= 4 && !le32_get(rec.header.magic) && *at % SAVE_BULK_ALIGN) {
		*at = round_up64(*at, SAVE_BULK_ALIGN);
		return 1;
	}
	if (n < (int)sizeof(rec.header))
		return error_set(err, -EBADMSG, "the saved state is truncated");
	if (!header_valid(&rec.header))
		return damaged(err, *at, "no record begins there");
	n = read_body(r, s, *at + sizeof(rec.header), &rec, err);
	if (n < 0)
		return n;
	next = round_up64(*at + sizeof(rec.header) + rec.size, SAVE_RECORD_ALIGN);
	if (le16_get(rec.header.flags) & SAVE_FLAG_BULK) {
		rec.bulk_at = round_up64(next, SAVE_BULK_ALIGN);
		next = round_up64(rec.bulk_at + le64_get(rec.header.bulk_size), SAVE_BULK_ALIGN);
	}
	*at = next;
	n = append_record(r, &rec, err);
	if (n < 0)
		free(rec.body);
	return n < 0 ? n : 1;
}

static int read_all(struct save_reader *r, struct source *s, bool *ret_end, struct error *err)
{
	uint64_t at = sizeof(struct save_stream_header);
	int n = read_stream_header(s, err);

	*ret_end = false;
	if (n < 0)
		return n;
	while ((n = read_record(r, s, &at, err)) > 0) {
		struct save_record *last = r->count ? &r->records[r->count - 1] : NULL;

		if (!last || !(le16_get(last->header.flags) & SAVE_FLAG_END))
			continue;
		n = check_end(r, last, err);
		*ret_end = n >= 0;
		if (n >= 0)
			free(r->records[--r->count].body);
		return n;
	}
	return n;
}

static int reader_new(struct source *s, bool whole, struct save_reader **ret, struct error *err)
{
	struct save_reader *r = calloc(1, sizeof(*r));
	bool end;
	int n;

	if (!r)
		return error_set(err, -ENOMEM, "out of memory");
	n = read_all(r, s, &end, err);
	if (n >= 0 && whole && !end)
		n = error_set(err, -EBADMSG, "the saved state is truncated: its end is missing");
	if (n < 0) {
		save_reader_free(r);
		return n;
	}
	*ret = r;
	return 0;
}

int save_reader_of(const void *data, size_t size, struct save_reader **ret, struct error *err)
{
	_cleanup_free_ struct source *s = calloc(1, sizeof(*s));

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	s->data = data;
	s->size = size;
	s->fd = -1;
	return reader_new(s, false, ret, err);
}

int save_reader_open(int fd, struct save_reader **ret, struct error *err)
{
	_cleanup_free_ struct source *s = calloc(1, sizeof(*s));

	if (!s)
		return error_set(err, -ENOMEM, "out of memory");
	s->fd = fd;
	return reader_new(s, true, ret, err);
}

void save_reader_free(struct save_reader *r)
{
	if (!r)
		return;
	for (unsigned i = 0; i < r->count; i++)
		free(r->records[i].body);
	free(r->records);
	free(r);
}

void save_reader_scope(struct save_reader *r, const char *scope)
{
	memset(r->scope, 0, sizeof(r->scope));
	strncpy(r->scope, scope, sizeof(r->scope) - 1);
	r->hint = 0;
	r->hint_table = NULL;
}

/* --- fields --- */

/* What is being decoded, for words. */
struct decode {
	const struct save_record *record;
	struct error *err;
};

static int field_bad(const struct decode *d, const char *name, size_t size, const char *what)
{
	return error_set(d->err, -EBADMSG, "the saved state does not fit: %s%s%s: field %.*s: %s",
			 d->record->header.scope, *d->record->header.scope ? ": " : "",
			 d->record->header.name, (int)size, name, what);
}

static int bad(const struct decode *d, const struct save_field *f, const char *what)
{
	return field_bad(d, f->name, strlen(f->name), what);
}

/* A struct being filled. */
struct frame {
	const struct save_table *table;
	uint8_t *ret;
	unsigned depth;
	unsigned expected; /* fields come in the order of their table */
	bool seen[SAVE_FIELDS_MAX];
};

static int decode_body(const struct decode *d, struct frame *frame, struct reader r);

static int decode_uint(const struct decode *d, const struct save_field *f,
		       const struct save_item *item, uint8_t *ret)
{
	uint64_t v;

	if (item->element_size != item->size || item->size > 8 || !is_power_of_2(item->size))
		return bad(d, f, "is no integer");
	v = save_load_uint(item->value, item->size);
	if (f->size < 8 && v >> (8 * f->size))
		return bad(d, f, "its number is too large");
	if (f->boolean && v > 1)
		return bad(d, f, "is neither true nor false");
	save_store_uint(ret + f->offset, f->size, v);
	return 0;
}

static int store_count(const struct decode *d, const struct save_field *f, uint64_t count,
		       uint8_t *ret)
{
	if (count > f->max)
		return bad(d, f, "has too many elements");
	if (!f->count_size)
		return count == f->max ? 0 : bad(d, f, "has another number of elements");
	save_store_uint(ret + f->count_offset, f->count_size, count);
	return 0;
}

static int decode_uints(const struct decode *d, const struct save_field *f,
			const struct save_item *item, uint8_t *ret)
{
	int r;

	if (item->element_size != f->size || item->size % f->size)
		return bad(d, f, "has integers of another size");
	r = store_count(d, f, item->size / f->size, ret);
	if (r >= 0 && item->size)
		memcpy(ret + f->offset, item->value, item->size);
	return r;
}

static int decode_blob(const struct decode *d, const struct save_field *f,
		       const struct save_item *item, uint8_t *ret)
{
	struct save_blob blob = { item->value, item->size };

	if (item->size > f->max)
		return bad(d, f, "is too long");
	memcpy(ret + f->offset, &blob, sizeof(blob));
	return 0;
}

static int decode_tables(const struct decode *d, const struct save_field *f,
			 const struct save_item *item, uint8_t *ret, unsigned depth)
{
	struct reader list = reader_of(item->value, item->size);
	uint64_t count = 0;
	int r = 0;

	for (; reader_left(&list) && r >= 0; count++) {
		uint32_t size = reader_le32(&list);
		const void *body = reader_take(&list, size);
		struct frame inner = { .table = f->table,
				       .ret = ret + f->offset + count * f->stride,
				       .depth = depth + 1 };

		if (!body)
			return bad(d, f, "is cut off");
		if (count == f->max)
			return bad(d, f, "has too many elements");
		r = decode_body(d, &inner, reader_of(body, size));
	}
	return r < 0 ? r : store_count(d, f, count, ret);
}

static int decode_value(const struct decode *d, const struct save_field *f,
			const struct save_item *item, struct frame *frame)
{
	uint8_t *ret = frame->ret;

	if (item->type != f->type)
		return bad(d, f, "is of another type");
	switch ((enum save_type)f->type) {
	case SAVE_TYPE_UINT:
		return decode_uint(d, f, item, ret);
	case SAVE_TYPE_BYTES:
		if (item->size != f->max)
			return bad(d, f, "has another length");
		memcpy(ret + f->offset, item->value, item->size);
		return 0;
	case SAVE_TYPE_UINTS:
		return decode_uints(d, f, item, ret);
	case SAVE_TYPE_BLOB:
		return decode_blob(d, f, item, ret);
	case SAVE_TYPE_TABLES:
		return decode_tables(d, f, item, ret, frame->depth);
	}
	return bad(d, f, "is of an unknown type");
}

bool save_item_next(struct reader *r, struct save_item *ret)
{
	struct save_field_header h;

	reader_copy(r, &h, sizeof(h));
	*ret = (struct save_item){
		.type = h.type,
		.flags = h.flags,
		.element_size = h.element_size,
		.name_size = h.name_size,
		.size = le32_get(h.value_size),
	};
	ret->name = reader_take(r, h.name_size);
	ret->value = reader_take(r, ret->size);
	return reader_ok(r) && h.name_size && h.name_size < SAVE_NAME_SIZE &&
	       !(h.flags & ~SAVE_FLAG_OPTIONAL);
}

static int field_find(const struct frame *frame, const struct save_item *item)
{
	const struct save_table *table = frame->table;

	for (unsigned i = 0; i < table->count; i++) {
		unsigned at = (frame->expected + i) % table->count;
		const char *name = table->fields[at].name;

		if (strlen(name) == item->name_size && !memcmp(name, item->name, item->name_size))
			return (int)at;
	}
	return -1;
}

static int decode_item(const struct decode *d, struct frame *frame, const struct save_item *item)
{
	int at = field_find(frame, item);

	if (at < 0 && item->flags & SAVE_FLAG_OPTIONAL)
		return 0;
	if (at < 0)
		return field_bad(d, item->name, item->name_size,
				 "this version does not know it and may not leave it out");
	if (frame->seen[at])
		return field_bad(d, item->name, item->name_size, "is there twice");
	frame->seen[at] = true;
	frame->expected = (unsigned)at + 1;
	return decode_value(d, &frame->table->fields[at], item, frame);
}

static int decode_body(const struct decode *d, struct frame *frame, struct reader r)
{
	const struct save_table *table = frame->table;
	struct save_item item;
	int error;

	if (table->count > SAVE_FIELDS_MAX || frame->depth >= SAVE_DEPTH)
		return error_set(d->err, -EINVAL, "the table %s is too large", table->name);
	while (reader_left(&r)) {
		if (!save_item_next(&r, &item))
			return error_set(d->err, -EBADMSG,
					 "the saved state does not fit: %s is cut off",
					 table->name);
		error = decode_item(d, frame, &item);
		if (error < 0)
			return error;
	}
	for (unsigned i = 0; i < table->count; i++)
		if (!frame->seen[i] && !table->fields[i].optional)
			return bad(d, &table->fields[i], "is missing");
	return 0;
}

/* --- records --- */

static struct save_record *record_find(const struct save_reader *r, const struct save_table *table)
{
	unsigned first = r->hint_table == table ? r->hint : 0;

	for (unsigned i = first; i < r->count; i++) {
		struct save_record *rec = &r->records[i];

		if (!rec->used && !strcmp(rec->header.name, table->name) &&
		    !strcmp(rec->header.scope, r->scope))
			return rec;
	}
	return NULL;
}

bool save_has(const struct save_reader *r, const struct save_table *table)
{
	return record_find(r, table);
}

static int record_decode(const struct save_record *rec, const struct save_table *table, void *ret,
			 struct error *err)
{
	const struct decode d = { rec, err };
	_cleanup_free_ uint8_t *copy = malloc(table->size);
	struct frame frame = { .table = table, .ret = copy };
	int r;

	if (!copy)
		return error_set(err, -ENOMEM, "out of memory");
	if (le16_get(rec->header.version) > table->version)
		return error_set(err, -ENOTSUP,
				 "the saved state was written by a newer version: %s is of version "
				 "%u, known are versions up to %u",
				 table->name, le16_get(rec->header.version), table->version);
	memcpy(copy, ret, table->size);
	r = decode_body(&d, &frame, reader_of(rec->body, rec->size));
	if (r >= 0)
		memcpy(ret, copy, table->size);
	return r;
}

int save_next_bulk(struct save_reader *r, const struct save_table *table, void *ret,
		   struct save_bulk *ret_bulk, uint64_t *ret_offset, struct error *err)
{
	struct save_record *rec = record_find(r, table);
	int error;

	if (!rec)
		return 0;
	error = record_decode(rec, table, ret, err);
	if (error < 0)
		return error;
	rec->used = true;
	r->hint_table = table;
	r->hint = (unsigned)(rec - r->records) + 1;
	*ret_bulk = (struct save_bulk){ le64_get(rec->header.bulk_size),
					le32_get(rec->header.bulk_crc) };
	*ret_offset = rec->bulk_at;
	return 1;
}

int save_next(struct save_reader *r, const struct save_table *table, void *ret, struct error *err)
{
	struct save_bulk bulk;
	uint64_t offset;

	return save_next_bulk(r, table, ret, &bulk, &offset, err);
}

int save_get(struct save_reader *r, const struct save_table *table, void *ret, struct error *err)
{
	int n = save_next(r, table, ret, err);

	if (n)
		return n < 0 ? n : 0;
	return error_set(err, -ENOENT, "the saved state has no %s%s%s", table->name,
			 *r->scope ? " of " : "", r->scope);
}

static int finish(const struct save_reader *r, const char *scope, struct error *err)
{
	for (unsigned i = 0; i < r->count; i++) {
		const struct save_record *rec = &r->records[i];

		if (rec->used || le16_get(rec->header.flags) & SAVE_FLAG_OPTIONAL ||
		    (scope && strcmp(rec->header.scope, scope)))
			continue;
		return error_set(err, -ENOTSUP,
				 "the saved state has a record %s%s%s that this version or this "
				 "machine has no use for and that may not be left out",
				 rec->header.name, *rec->header.scope ? " of " : "",
				 rec->header.scope);
	}
	return 0;
}

int save_scope_finish(const struct save_reader *r, struct error *err)
{
	return finish(r, r->scope, err);
}

int save_reader_finish(const struct save_reader *r, struct error *err)
{
	return finish(r, NULL, err);
}
