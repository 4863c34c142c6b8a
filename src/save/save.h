/* SPDX-License-Identifier: MIT */
/*
 * The state stream: what a machine is, as records that outlive the program that wrote them. Saved
 * state, checkpoints and migration use it; docs/save-format.md has the bytes.
 *
 * A record is a C struct with a description: a `struct save_table` names it, numbers its version
 * and lists its fields. Whoever owns state copies it into such a struct and calls save_put; the
 * other side calls save_get with the same table and checks what it got, like anything from outside:
 * the decoder promises the types and the bounds of the table, and nothing of the meaning.
 *
 *	struct fan_state {
 *		uint32_t speed;
 *		uint16_t blade_count;
 *		uint8_t blades[8];
 *		uint8_t mood;
 *	};
 *	static const struct save_field fan_fields[] = {
 *		SAVE_FIELD(struct fan_state, speed),
 *		SAVE_COUNTED(struct fan_state, blades, blade_count),
 *		SAVE_OPTIONAL(struct fan_state, mood),
 *	};
 *	static const struct save_table fan_table = SAVE_TABLE("fan", 1, struct fan_state,
 *fan_fields);
 *
 * What stays compatible: a field's identity is its name (a member is not renamed, and no name gets
 * another meaning). A new field is SAVE_OPTIONAL: a reader that does not know it skips it, and when
 * the stream does not have it the member keeps what was in the struct before save_get. Anything
 * else is another version of the record, and needs a table for each that is still read.
 *
 * One thread at a time uses a writer or a reader.
 */
#pragma once

#include "lib/error.h"
#include "lib/guid.h"

#include <stdio.h>

#define SAVE_NAME_SIZE   32          /* of a record or a field, with the NUL */
#define SAVE_SCOPE_SIZE  64          /* with the NUL */
#define SAVE_LIMIT       (256 * MIB) /* of all records together, bulk data not counted */
#define SAVE_RECORDS_MAX 2000000u    /* in one stream */
#define SAVE_DEPTH       4u          /* tables in tables */
#define SAVE_BULK_ALIGN  4096u       /* of bulk data and of records that have some */

/* --- descriptions --- */

/* On the wire; values never change. */
enum save_type {
	SAVE_TYPE_UINT = 1,   /* size 1, 2, 4 or 8; a bool is one of size 1 that is 0 or 1 */
	SAVE_TYPE_BYTES = 2,  /* as many as the member has */
	SAVE_TYPE_UINTS = 3,  /* an array of integers */
	SAVE_TYPE_BLOB = 4,   /* struct save_blob: any number of bytes */
	SAVE_TYPE_TABLES = 5, /* an array of structs with a table of their own, or one */
};

struct save_field {
	const char *name;
	uint8_t type;        /* enum save_type */
	uint8_t size;        /* of one integer */
	bool boolean;        /* must be 0 or 1 */
	bool optional;       /* see above */
	uint16_t count_size; /* size of the member that counts; 0 = always `max` of them */
	uint32_t offset, count_offset;
	uint32_t max;    /* elements, or bytes of SAVE_TYPE_BYTES */
	uint32_t stride; /* of one element */
	const struct save_table *table;
};

struct save_table {
	const char *name; /* "storvsp.controller": folder or device, dot, what */
	uint16_t version; /* 1 is the first */
	/* A reader that does not know such a record at all may go on without it. */
	bool optional;
	uint32_t size; /* of the struct */
	const struct save_field *fields;
	unsigned count;
};

/* Bytes of any number. In what save_get gives they are borrowed from the reader. */
struct save_blob {
	const void *data;
	size_t size;
};

#define SAVE_MEMBER_(T, m) (((T *)0)->m)
#define SAVE_IS_BOOL_(x)   _Generic((x), bool : true, default : false)
/* Not an integer: does not compile. */
#define SAVE_UINT_SIZE_(x)                                                                         \
	_Generic((x), bool : 1, uint8_t : 1, uint16_t : 2, uint32_t : 4, uint64_t : 8)

/* An integer or bool: bool, uint8_t to uint64_t. */
#define SAVE_FIELD(T, m)                                                                           \
	{                                                                                          \
		.name = #m, .type = SAVE_TYPE_UINT, .size = SAVE_UINT_SIZE_(SAVE_MEMBER_(T, m)),   \
		.boolean = SAVE_IS_BOOL_(SAVE_MEMBER_(T, m)), .offset = offsetof(T, m), .max = 1   \
	}
/* One that was not there in the record's first edition, or may be done without. */
#define SAVE_OPTIONAL(T, m)                                                                        \
	{                                                                                          \
		.name = #m, .type = SAVE_TYPE_UINT, .size = SAVE_UINT_SIZE_(SAVE_MEMBER_(T, m)),   \
		.boolean = SAVE_IS_BOOL_(SAVE_MEMBER_(T, m)), .offset = offsetof(T, m), .max = 1,  \
		.optional = true                                                                   \
	}
/* All bytes of a member as they lie: GUIDs, arrays of uint8_t, structs of the wire. */
#define SAVE_BYTES(T, m)                                                                           \
	{                                                                                          \
		.name = #m, .type = SAVE_TYPE_BYTES, .offset = offsetof(T, m),                     \
		.max = sizeof(SAVE_MEMBER_(T, m)), .stride = 1                                     \
	}
#define SAVE_GUID(T, m) SAVE_BYTES(T, m)
/* An array of integers, all of it. */
#define SAVE_ARRAY(T, m)                                                                           \
	{                                                                                          \
		.name = #m, .type = SAVE_TYPE_UINTS,                                               \
		.size = SAVE_UINT_SIZE_(SAVE_MEMBER_(T, m)[0]), .offset = offsetof(T, m),          \
		.max = ARRAY_SIZE(SAVE_MEMBER_(T, m)), .stride = sizeof(SAVE_MEMBER_(T, m)[0])     \
	}
/* An array of integers, the first `n` of it; `n` is a member too, and gets no field of its own. */
#define SAVE_COUNTED(T, m, n)                                                                      \
	{                                                                                          \
		.name = #m, .type = SAVE_TYPE_UINTS,                                               \
		.size = SAVE_UINT_SIZE_(SAVE_MEMBER_(T, m)[0]), .offset = offsetof(T, m),          \
		.max = ARRAY_SIZE(SAVE_MEMBER_(T, m)), .stride = sizeof(SAVE_MEMBER_(T, m)[0]),    \
		.count_offset = offsetof(T, n), .count_size = SAVE_UINT_SIZE_(SAVE_MEMBER_(T, n))  \
	}
/* struct save_blob of at most `most` bytes. */
#define SAVE_BLOB(T, m, most)                                                                      \
	{                                                                                          \
		.name = #m, .type = SAVE_TYPE_BLOB, .offset = offsetof(T, m), .max = (most)        \
	}
/* A struct inside, with its own table (whose version is not looked at). */
#define SAVE_NESTED(T, m, t)                                                                       \
	{                                                                                          \
		.name = #m, .type = SAVE_TYPE_TABLES, .offset = offsetof(T, m), .max = 1,          \
		.stride = sizeof(SAVE_MEMBER_(T, m)), .table = (t)                                 \
	}
/* An array of such, the first `n` of it. */
#define SAVE_NESTED_COUNTED(T, m, n, t)                                                            \
	{                                                                                          \
		.name = #m, .type = SAVE_TYPE_TABLES, .offset = offsetof(T, m),                    \
		.max = ARRAY_SIZE(SAVE_MEMBER_(T, m)), .stride = sizeof(SAVE_MEMBER_(T, m)[0]),    \
		.count_offset = offsetof(T, n), .count_size = SAVE_UINT_SIZE_(SAVE_MEMBER_(T, n)), \
		.table = (t)                                                                       \
	}
#define SAVE_TABLE(n, v, T, f)                                                                     \
	{                                                                                          \
		.name = (n), .version = (v), .size = sizeof(T), .fields = (f),                     \
		.count = ARRAY_SIZE(f)                                                             \
	}

/* --- writing --- */

/* Gathers records in memory. What cannot be written is remembered and told at the end. */
struct save_writer;

int save_writer_new(struct save_writer **ret, struct error *err) _must_check_;
void save_writer_free(struct save_writer *w); /* NULL is fine */
/*
 * Whose records follow: "" is the machine's own, "device/<GUID>" a device's. Set by the bus around
 * a device's `save`; a device does not call it.
 */
void save_writer_scope(struct save_writer *w, const char *scope);
/* Appends the struct at `value`. A second one of the same name is the next of its kind. */
void save_put(struct save_writer *w, const struct save_table *table, const void *value);
/*
 * Whether all went well: -ENOMEM; -E2BIG above SAVE_LIMIT; -EINVAL when a count was above its
 * array (a bug of the owner, and named).
 */
int save_writer_check(const struct save_writer *w, struct error *err) _must_check_;
/* What was written so far, without an end; borrowed until the next call. */
const void *save_writer_bytes(const struct save_writer *w, size_t *ret_size);

/*
 * For who puts a whole stream together. The next record has bulk data: it begins, as does its data,
 * at a multiple of SAVE_BULK_ALIGN of the stream; the data itself is the caller's to append, padded
 * with zeros to that multiple. `crc` is its CRC-32C without the padding.
 */
struct save_bulk {
	uint64_t size;
	uint32_t crc;
};
void save_put_bulk(struct save_writer *w, const struct save_table *table, const void *value,
		   const struct save_bulk *bulk);
/* Starts over with an empty writer whose first byte is at `offset` of the stream. */
void save_writer_restart(struct save_writer *w, uint64_t offset);
/* The last record of a stream; without it a stream is truncated. */
void save_put_end(struct save_writer *w);
/* Appends what was written to a descriptor, all of it. */
int save_writer_write(const struct save_writer *w, int fd, struct error *err) _must_check_;

/* --- reading --- */

/*
 * All records of a stream, checked for their checksums, in the order in which they were written.
 * Bulk data stays where it is.
 */
struct save_reader;

/* From memory: with or without an end, as save_writer_bytes gives it; borrowed. */
int save_reader_of(const void *data, size_t size, struct save_reader **ret,
		   struct error *err) _must_check_;
/* From a descriptor that can be read at offsets: -EBADMSG with words, also when it has no end. */
int save_reader_open(int fd, struct save_reader **ret, struct error *err) _must_check_;
void save_reader_free(struct save_reader *r); /* NULL is fine */
void save_reader_scope(struct save_reader *r, const char *scope);
/*
 * The next record of that name in this scope, into the struct at `ret` (which is not touched on
 * failure): -ENOENT when there is none, -EBADMSG when it does not fit the table, -ENOTSUP when it
 * is of a newer version; all with words.
 */
int save_get(struct save_reader *r, const struct save_table *table, void *ret,
	     struct error *err) _must_check_;
/* For records that may come any number of times: 1, or 0 when there are no more. */
int save_next(struct save_reader *r, const struct save_table *table, void *ret,
	      struct error *err) _must_check_;
/* save_next for those with bulk data: where in the stream that begins. */
int save_next_bulk(struct save_reader *r, const struct save_table *table, void *ret,
		   struct save_bulk *ret_bulk, uint64_t *ret_offset,
		   struct error *err) _must_check_;
bool save_has(const struct save_reader *r, const struct save_table *table); /* one more of these */
/* -ENOTSUP when something in this scope that may not be left out was not asked for. */
int save_scope_finish(const struct save_reader *r, struct error *err) _must_check_;
/* The same for all scopes. */
int save_reader_finish(const struct save_reader *r, struct error *err) _must_check_;

/* All of it as text, whatever it is: names, numbers, bytes. */
void save_dump(const struct save_reader *r, FILE *out);
