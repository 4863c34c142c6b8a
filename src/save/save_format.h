/* SPDX-License-Identifier: MIT */
/*
 * The bytes of a state stream; docs/save-format.md says them in words. Integers are little-endian.
 * Shared by the files of this folder only.
 */
#pragma once

#include "save/save.h"

#define SAVE_MAGIC         "PtaState"
#define SAVE_FORMAT        1u
#define SAVE_RECORD_MAGIC  0x43455250u /* "PREC" */
#define SAVE_RECORD_ALIGN  8u
#define SAVE_END_NAME      "end"
#define SAVE_FIELDS_MAX    128u /* in one table */
#define SAVE_FLAG_OPTIONAL BIT(0)
#define SAVE_FLAG_BULK     BIT(1)
#define SAVE_FLAG_END      BIT(2)
#define SAVE_FLAGS         (SAVE_FLAG_OPTIONAL | SAVE_FLAG_BULK | SAVE_FLAG_END)

struct save_stream_header {
	char magic[8];
	le32 format;
	le32 crc; /* of this header with zero here */
	uint8_t reserved[48];
};
_Static_assert(sizeof(struct save_stream_header) == 64, "");

struct save_record_header {
	le32 magic;
	le32 crc; /* of this header with zero here, and of the body without its padding */
	le32 body_size;
	le16 version;
	le16 flags;
	le64 bulk_size;
	le32 bulk_crc;
	le32 reserved;
	char name[SAVE_NAME_SIZE]; /* with zeros behind */
	char scope[SAVE_SCOPE_SIZE];
};
_Static_assert(sizeof(struct save_record_header) == 128, "");

/* In a body, without padding: this, the name, the value. */
struct save_field_header {
	uint8_t name_size; /* without a NUL */
	uint8_t type;
	uint8_t flags;        /* SAVE_FLAG_OPTIONAL */
	uint8_t element_size; /* of integers */
	le32 value_size;
};
_Static_assert(sizeof(struct save_field_header) == 8, "");

/* The member that counts, in a struct of the table's. */
static inline uint64_t save_load_uint(const void *at, unsigned size)
{
	uint64_t v = 0;

	memcpy(&v, at, size); /* the host is little-endian: x86 */
	return v;
}

static inline void save_store_uint(void *at, unsigned size, uint64_t v)
{
	memcpy(at, &v, size);
}
_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "integers are copied as they lie");
