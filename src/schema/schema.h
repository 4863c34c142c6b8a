/* SPDX-License-Identifier: MIT */
/*
 * Settings described as data. schemagen turns a schema file into C structs and into the tables
 * below; whatever is done with settings (defaults, JSON, help texts, descriptions of an API) walks
 * the tables. See README.md for what a schema file may say.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#include <jansson.h>

#define SCHEMA_TEXT_MAX  MIB /* longest JSON text that is read */
#define SCHEMA_DEPTH_MAX 32  /* deepest nesting of arrays and objects in it */

enum schema_type {
	SCHEMA_BOOL,   /* bool */
	SCHEMA_UINT32, /* uint32_t */
	SCHEMA_INT64,  /* int64_t */
	SCHEMA_ENUM,   /* a C enum, numbered like `names` */
	SCHEMA_STRING, /* char *, owned; NULL when absent and without a default */
	SCHEMA_OBJECT, /* a struct */
	SCHEMA_ARRAY,  /* a pointer to items, owned, NULL without any, and an unsigned count */
};

/* When a setting may be changed. */
enum schema_when {
	SCHEMA_AS_ABOVE, /* as the object that it is in; at the top: off */
	SCHEMA_OFF,      /* while the machine is off */
	SCHEMA_ANY_TIME,
	SCHEMA_NEVER,   /* only given when the thing is made */
	SCHEMA_NOT_SET, /* told, not set: refused from outside */
};

/* A member of a struct; also the item of an array, which has no name and offset 0. */
struct schema_field {
	const char *name;
	const char *description; /* what it is, for people; "" when the schema says nothing */
	const char *unit;        /* of an integer, or NULL */
	const char *operation; /* what one must be allowed to do to change it, or NULL: as above */
	const char *option;    /* its name on a command line; NULL: made of its path */
	enum schema_when when;
	enum schema_type type;
	bool required;
	bool fallback_object; /* an object that, when it is not given, counts as given and empty */
	size_t offset;
	int64_t min, max;          /* integers: value; strings: characters; arrays: items */
	int64_t fallback;          /* default of integers, booleans and enums */
	const char *fallback_text; /* default of strings, or NULL */
	const char *const *names;  /* enums */
	unsigned name_count;
	const struct schema_object *object; /* objects */
	const struct schema_field *item;    /* arrays, with the next two */
	size_t item_size;
	size_t count_offset;
};

struct schema_object {
	const char *name; /* of the struct */
	const char *description;
	size_t size;
	bool optional; /* somewhere it may be left out: its first member is "bool present" */
	const struct schema_field *fields;
	unsigned field_count;
};

/* Defaults everywhere, arrays empty. 0 or -ENOMEM, after which *ret is zero. */
int schema_init(const struct schema_object *schema, void *ret) _must_check_;
/* Frees the strings and zeroes the struct; a zeroed struct is fine. */
void schema_deinit(const struct schema_object *schema, void *value);
/*
 * Reads hostile JSON text. -EFBIG, -EINVAL or -ENOMEM, and *ret untouched, when it is not what the
 * schema says. Afterwards schema_deinit is due.
 */
int schema_parse(const struct schema_object *schema, const char *text, size_t size, void *ret,
		 struct error *err) _must_check_;
/* The same from a JSON tree, which stays the caller's. */
int schema_decode(const struct schema_object *schema, json_t *json, void *ret,
		  struct error *err) _must_check_;
/* One more item at the end of an array of `object`, which is what `array` is in; NULL: no memory,
 * or as many as may be. */
void *schema_append(const struct schema_field *array, void *object) _must_check_;
/*
 * JSON text with the defaults written out, to be freed; reads back as the same value. NULL with
 * errno ENOMEM, or EILSEQ when a string is not UTF-8, which JSON cannot say.
 */
char *schema_format(const struct schema_object *schema, const void *value) _must_check_;
/* The same as a tree, to be released. */
json_t *schema_encode(const struct schema_object *schema, const void *value) _must_check_;
/* Some of its members: bit i is the schema's field i; those from 64 on are always there. */
json_t *schema_encode_some(const struct schema_object *schema, const void *value,
			   uint64_t members) _must_check_;
/* The field at "memory.startup" or "drives" (of an array's items: "drives[].path"), or NULL. */
const struct schema_field *schema_find(const struct schema_object *schema, const char *path);
