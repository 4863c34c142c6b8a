// SPDX-License-Identifier: MIT
/*
 * The decoder of state streams. The first byte chooses: the input as a stream, or its pieces as
 * bodies of records whose headers and checksums are right, so that the fields are reached. Whatever
 * comes, what is decoded obeys its table, and the dumper ends.
 */
#include "lib/crc32c.h"
#include "save/save_format.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct inner {
	uint32_t a;
	bool b;
};

struct outer {
	uint8_t small;
	uint64_t large;
	bool flag;
	uint8_t bytes[5];
	uint16_t list_count;
	uint32_t list[4];
	uint8_t inner_count;
	struct inner inner[3];
	struct save_blob blob;
};

static const struct save_field inner_fields[] = {
	SAVE_FIELD(struct inner, a),
	SAVE_FIELD(struct inner, b),
};
static const struct save_table inner_table = SAVE_TABLE("inner", 1, struct inner, inner_fields);
static const struct save_field outer_fields[] = {
	SAVE_FIELD(struct outer, small),
	SAVE_FIELD(struct outer, flag),
	SAVE_OPTIONAL(struct outer, large),
	{ .name = "bytes",
	  .type = SAVE_TYPE_BYTES,
	  .optional = true,
	  .offset = offsetof(struct outer, bytes),
	  .max = 5,
	  .stride = 1 },
	SAVE_COUNTED(struct outer, list, list_count),
	SAVE_NESTED_COUNTED(struct outer, inner, inner_count, &inner_table),
	SAVE_BLOB(struct outer, blob, 64),
};
static const struct save_table outer_table = SAVE_TABLE("outer", 1, struct outer, outer_fields);

static void append(uint8_t *out, size_t *at, const void *src, size_t n)
{
	if (n)
		memcpy(out + *at, src, n);
	*at += n;
}

/* Bodies of up to 255 bytes, each behind a byte with its length. */
static size_t wrap(const uint8_t *data, size_t size, uint8_t *out)
{
	struct save_stream_header s = { .format = le32_of(SAVE_FORMAT) };
	size_t at = 0;

	memcpy(s.magic, SAVE_MAGIC, sizeof(s.magic));
	s.crc = le32_of(crc32c(0, &s, sizeof(s)));
	append(out, &at, &s, sizeof(s));
	while (size) {
		struct save_record_header h = { .magic = le32_of(SAVE_RECORD_MAGIC),
						.version = le16_of(1),
						.name = "outer" };
		size_t body = MIN(data[0], size - 1);

		data++, size--;
		h.body_size = le32_of((uint32_t)body);
		h.crc = le32_of(crc32c(crc32c(0, &h, sizeof(h)), data, body));
		append(out, &at, &h, sizeof(h));
		append(out, &at, data, body);
		memset(out + at, 0, -at % SAVE_RECORD_ALIGN);
		at += -at % SAVE_RECORD_ALIGN;
		data += body, size -= body;
	}
	return at;
}

static void check(const struct outer *o)
{
	bool flag_valid, inner_valid = true;
	uint8_t flag;

	memcpy(&flag, &o->flag, 1);
	flag_valid = flag <= 1;
	for (unsigned i = 0; i < o->inner_count && i < 3; i++) {
		memcpy(&flag, &o->inner[i].b, 1);
		inner_valid = inner_valid && flag <= 1;
	}
	if (!flag_valid || !inner_valid || o->list_count > 4 || o->inner_count > 3 ||
	    o->blob.size > 64)
		abort();
	for (size_t i = 0; i < o->blob.size; i++)
		(void)((const volatile uint8_t *)o->blob.data)[i];
}

static void use(const void *data, size_t size)
{
	struct save_reader *r;
	struct outer o = { 0 };
	char *text;
	size_t length;
	FILE *out;

	if (save_reader_of(data, size, &r, NULL) < 0)
		return;
	while (save_has(r, &outer_table)) {
		/* One that does not decode stays, and would be asked for again. */
		if (save_next(r, &outer_table, &o, NULL) <= 0)
			break;
		check(&o);
	}
	out = open_memstream(&text, &length);
	if (out) {
		save_dump(r, out);
		fclose(out);
		free(text);
	}
	(void)!save_reader_finish(r, NULL);
	save_reader_free(r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *wrapped;

	if (!size)
		return 0;
	if (data[0] & 1) {
		use(data + 1, size - 1);
		return 0;
	}
	/* A byte may become a whole record. */
	wrapped = malloc(64 + size * (sizeof(struct save_record_header) + 8));
	if (wrapped)
		use(wrapped, wrap(data + 1, size - 1, wrapped));
	free(wrapped);
	return 0;
}
