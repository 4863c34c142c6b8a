/* SPDX-License-Identifier: MIT */
/* A stream that was read, for the decoder and the dumper. Shared by the files of this folder. */
#pragma once

#include "lib/cursor.h"
#include "save/save_format.h"

struct save_record {
	struct save_record_header header;
	uint64_t at, bulk_at; /* in the stream */
	uint8_t *body;
	uint32_t size;
	bool used;
};

struct save_reader {
	struct save_record *records;
	unsigned count, room;
	uint64_t bytes; /* of all bodies */
	char scope[SAVE_SCOPE_SIZE];
	/* Where to look for the next record of the table that was asked for last. */
	const struct save_table *hint_table;
	unsigned hint;
};

/* A field as it lies in a body; borrowed. */
struct save_item {
	const char *name;
	const void *value;
	size_t size;
	uint8_t type, flags, element_size, name_size;
};
/* False when what is left is no whole field. */
bool save_item_next(struct reader *r, struct save_item *ret);
