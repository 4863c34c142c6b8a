// SPDX-License-Identifier: MIT
/*
 * The encoder: structs and their tables to records, in a buffer that grows. The first thing that
 * goes wrong is remembered, and all later calls do nothing. Owned by whoever saves; one thread.
 */
#include "save/save_format.h"

#include "lib/cleanup.h"
#include "lib/crc32c.h"

#include <errno.h>

struct save_writer {
	uint8_t *data;
	size_t size, room;
	uint64_t offset;  /* of data in the stream */
	uint64_t records; /* since the stream began */
	char scope[SAVE_SCOPE_SIZE];
	struct error error;
};

static void *reserve(struct save_writer *w, size_t n)
{
	size_t room = w->room ? w->room : 4096;
	uint8_t *grown;

	if (w->error.code)
		return NULL;
	if (n > SAVE_LIMIT || w->size + n > SAVE_LIMIT) {
		error_set(&w->error, -E2BIG, "the state is larger than %llu MiB",
			  (unsigned long long)(SAVE_LIMIT / MIB));
		return NULL;
	}
	while (room < w->size + n)
		room *= 2;
	if (room != w->room) {
		grown = realloc(w->data, room);
		if (!grown) {
			error_set(&w->error, -ENOMEM, "out of memory");
			return NULL;
		}
		w->data = grown;
		w->room = room;
	}
	w->size += n;
	return w->data + w->size - n;
}

static void put(struct save_writer *w, const void *src, size_t n)
{
	void *to = reserve(w, n);

	if (to && n)
		memcpy(to, src, n);
}

static void pad(struct save_writer *w, uint64_t align)
{
	uint64_t at = w->offset + w->size;
	size_t n = (size_t)(round_up64(at, align) - at);
	void *to = reserve(w, n);

	if (to)
		memset(to, 0, n);
}

/* --- fields --- */

static void put_body(struct save_writer *w, const struct save_table *table, const void *value,
		     unsigned depth);

/* How many elements, or UINT64_MAX and the words for it. */
static uint64_t count_of(struct save_writer *w, const struct save_field *f, const uint8_t *value)
{
	uint64_t n =
		f->count_size ? save_load_uint(value + f->count_offset, f->count_size) : f->max;

	if (n <= f->max)
		return n;
	if (!w->error.code)
		error_set(&w->error, -EINVAL, "field %s has %llu elements and room for %u", f->name,
			  (unsigned long long)n, f->max);
	return UINT64_MAX;
}

static void put_tables(struct save_writer *w, const struct save_field *f, const uint8_t *value,
		       unsigned depth)
{
	uint64_t n = count_of(w, f, value);

	for (uint64_t i = 0; i < n && !w->error.code; i++) {
		size_t start = w->size;
		le32 size;

		put(w, &(le32){ 0 }, sizeof(size));
		put_body(w, f->table, value + f->offset + i * f->stride, depth + 1);
		size = le32_of((uint32_t)(w->size - start - sizeof(size)));
		if (!w->error.code)
			memcpy(w->data + start, &size, sizeof(size));
	}
}

static void put_blob(struct save_writer *w, const struct save_field *f, const uint8_t *value)
{
	struct save_blob blob;

	memcpy(&blob, value + f->offset, sizeof(blob));
	if (blob.size > f->max && !w->error.code)
		error_set(&w->error, -EINVAL, "field %s has %zu bytes and room for %u", f->name,
			  blob.size, f->max);
	put(w, blob.data, blob.size);
}

static void put_value(struct save_writer *w, const struct save_field *f, const uint8_t *value,
		      unsigned depth)
{
	uint64_t n;

	switch ((enum save_type)f->type) {
	case SAVE_TYPE_UINT:
		put(w, value + f->offset, f->size);
		break;
	case SAVE_TYPE_BYTES:
		put(w, value + f->offset, f->max);
		break;
	case SAVE_TYPE_UINTS:
		n = count_of(w, f, value);
		if (n <= f->max)
			put(w, value + f->offset, n * f->size);
		break;
	case SAVE_TYPE_BLOB:
		put_blob(w, f, value);
		break;
	case SAVE_TYPE_TABLES:
		put_tables(w, f, value, depth);
		break;
	}
}

static void put_field(struct save_writer *w, const struct save_field *f, const uint8_t *value,
		      unsigned depth)
{
	struct save_field_header h = {
		.name_size = (uint8_t)strlen(f->name),
		.type = f->type,
		.flags = f->optional ? SAVE_FLAG_OPTIONAL : 0,
		.element_size = f->size,
	};
	size_t start = w->size, from;

	put(w, &h, sizeof(h));
	put(w, f->name, h.name_size);
	from = w->size;
	put_value(w, f, value, depth);
	h.value_size = le32_of((uint32_t)(w->size - from));
	if (!w->error.code)
		memcpy(w->data + start, &h, sizeof(h));
}

static void put_body(struct save_writer *w, const struct save_table *table, const void *value,
		     unsigned depth)
{
	if (depth >= SAVE_DEPTH && !w->error.code)
		error_set(&w->error, -EINVAL, "%s lies in too many other tables", table->name);
	for (unsigned i = 0; i < table->count && !w->error.code; i++)
		put_field(w, &table->fields[i], value, depth);
}

/* --- records --- */

static void put_record(struct save_writer *w, const struct save_table *table, const void *value,
		       const struct save_record_header *header)
{
	struct save_record_header h = *header;
	size_t start = w->size, body;

	h.magic = le32_of(SAVE_RECORD_MAGIC);
	h.version = le16_of(table->version);
	if (table->optional)
		h.flags = le16_of(le16_get(h.flags) | SAVE_FLAG_OPTIONAL);
	strncpy(h.name, table->name, sizeof(h.name) - 1);
	memcpy(h.scope, w->scope, sizeof(h.scope));
	put(w, &h, sizeof(h));
	put_body(w, table, value, 0);
	if (w->error.code) {
		if (w->error.code == -EINVAL)
			error_prefix(&w->error, "%s", table->name);
		return;
	}
	body = w->size - start - sizeof(h);
	h.body_size = le32_of((uint32_t)body);
	h.crc = le32_of(crc32c(crc32c(0, &h, sizeof(h)), w->data + start + sizeof(h), body));
	memcpy(w->data + start, &h, sizeof(h));
	pad(w, SAVE_RECORD_ALIGN);
	w->records++;
}

void save_put(struct save_writer *w, const struct save_table *table, const void *value)
{
	if (!w->error.code)
		put_record(w, table, value, &(struct save_record_header){ 0 });
}

void save_put_bulk(struct save_writer *w, const struct save_table *table, const void *value,
		   const struct save_bulk *bulk)
{
	const struct save_record_header h = {
		.flags = le16_of(SAVE_FLAG_BULK),
		.bulk_size = le64_of(bulk->size),
		.bulk_crc = le32_of(bulk->crc),
	};

	if (w->error.code)
		return;
	pad(w, SAVE_BULK_ALIGN);
	put_record(w, table, value, &h);
	pad(w, SAVE_BULK_ALIGN);
}

void save_put_end(struct save_writer *w)
{
	static const struct save_field fields[] = {
		{ .name = "records", .type = SAVE_TYPE_UINT, .size = 8, .max = 1 },
	};
	static const struct save_table table = { .name = SAVE_END_NAME,
						 .version = 1,
						 .size = sizeof(uint64_t),
						 .fields = fields,
						 .count = ARRAY_SIZE(fields) };
	const struct save_record_header h = { .flags = le16_of(SAVE_FLAG_END) };

	save_writer_scope(w, "");
	if (!w->error.code)
		put_record(w, &table, &w->records, &h);
}

/* --- life --- */

static void put_stream_header(struct save_writer *w)
{
	struct save_stream_header h = { .format = le32_of(SAVE_FORMAT) };

	memcpy(h.magic, SAVE_MAGIC, sizeof(h.magic));
	h.crc = le32_of(crc32c(0, &h, sizeof(h)));
	put(w, &h, sizeof(h));
}

int save_writer_new(struct save_writer **ret, struct error *err)
{
	struct save_writer *w = calloc(1, sizeof(*w));

	if (!w)
		return error_set(err, -ENOMEM, "out of memory");
	put_stream_header(w);
	*ret = w;
	return 0;
}

void save_writer_free(struct save_writer *w)
{
	if (!w)
		return;
	free(w->data);
	free(w);
}

void save_writer_scope(struct save_writer *w, const char *scope)
{
	memset(w->scope, 0, sizeof(w->scope));
	strncpy(w->scope, scope, sizeof(w->scope) - 1);
}

void save_writer_restart(struct save_writer *w, uint64_t offset)
{
	w->size = 0;
	w->offset = offset;
	if (!offset) {
		w->records = 0;
		put_stream_header(w);
	}
}

int save_writer_check(const struct save_writer *w, struct error *err)
{
	if (w->error.code && err)
		*err = w->error;
	return w->error.code;
}

const void *save_writer_bytes(const struct save_writer *w, size_t *ret_size)
{
	*ret_size = w->size;
	return w->data;
}

int save_writer_write(const struct save_writer *w, int fd, struct error *err)
{
	int r = save_writer_check(w, err);

	for (size_t at = 0; at < w->size && !r;) {
		ssize_t n = write(fd, w->data + at, w->size - at);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_errno(err, n ? -errno : -EIO, "cannot write the state");
		at += (size_t)n;
	}
	return r;
}
