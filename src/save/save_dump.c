// SPDX-License-Identifier: MIT
/*
 * A stream as text, from the stream alone: fields have their names in it. What does not parse is
 * said, and the next record goes on. For people and for tests that compare.
 */
#include "save/save_get.h"

#include <ctype.h>
#include <inttypes.h>

#define BYTES_SHOWN 64u

static void dump_body(FILE *out, struct reader r, unsigned depth);

static void indent(FILE *out, unsigned depth)
{
	fprintf(out, "%*s", (int)(2 * depth + 2), "");
}

static void dump_bytes(FILE *out, const struct save_item *item)
{
	const uint8_t *p = item->value;
	size_t shown = MIN(item->size, BYTES_SHOWN);

	for (size_t i = 0; i < shown; i++)
		fprintf(out, "%02x", p[i]);
	if (shown < item->size)
		fprintf(out, "... (%zu bytes)", item->size);
	fputc('\n', out);
}

static void dump_uints(FILE *out, const struct save_item *item)
{
	const uint8_t *p = item->value;
	unsigned n = item->element_size;
	size_t count;

	if (!n || n > 8 || !is_power_of_2(n)) {
		dump_bytes(out, item);
		return;
	}
	count = MIN(item->size / n, BYTES_SHOWN);
	for (size_t i = 0; i < count; i++)
		fprintf(out, "%s0x%" PRIx64, i ? " " : "", save_load_uint(p + i * n, n));
	if (count < item->size / n)
		fprintf(out, " ... (%zu of them)", item->size / n);
	fputc('\n', out);
}

static void dump_tables(FILE *out, const struct save_item *item, unsigned depth)
{
	struct reader list = reader_of(item->value, item->size);

	fputc('\n', out);
	for (unsigned i = 0; reader_left(&list); i++) {
		uint32_t size = reader_le32(&list);
		const void *body = reader_take(&list, size);

		indent(out, depth);
		fprintf(out, "[%u]\n", i);
		if (body)
			dump_body(out, reader_of(body, size), depth + 1);
	}
}

static void dump_item(FILE *out, const struct save_item *item, unsigned depth)
{
	indent(out, depth);
	for (unsigned i = 0; i < item->name_size; i++)
		fputc(isprint((unsigned char)item->name[i]) ? item->name[i] : '?', out);
	fputs(" = ", out);
	switch (item->type) {
	case SAVE_TYPE_UINT:
	case SAVE_TYPE_UINTS:
		dump_uints(out, item);
		break;
	case SAVE_TYPE_TABLES:
		dump_tables(out, item, depth);
		break;
	default:
		dump_bytes(out, item);
	}
}

static void dump_body(FILE *out, struct reader r, unsigned depth)
{
	struct save_item item;

	while (reader_left(&r)) {
		if (depth > SAVE_DEPTH || !save_item_next(&r, &item)) {
			indent(out, depth);
			fputs("(no field)\n", out);
			return;
		}
		dump_item(out, &item, depth);
	}
}

void save_dump(const struct save_reader *r, FILE *out)
{
	for (unsigned i = 0; i < r->count; i++) {
		const struct save_record *rec = &r->records[i];
		uint16_t flags = le16_get(rec->header.flags);

		fprintf(out, "%s%s%s version %u%s", rec->header.name,
			*rec->header.scope ? " of " : "", rec->header.scope,
			le16_get(rec->header.version),
			flags & SAVE_FLAG_OPTIONAL ? " (optional)" : "");
		if (flags & SAVE_FLAG_BULK)
			fprintf(out, ", %" PRIu64 " bytes at %" PRIu64,
				le64_get(rec->header.bulk_size), rec->bulk_at);
		fputc('\n', out);
		dump_body(out, reader_of(rec->body, rec->size), 0);
	}
}
