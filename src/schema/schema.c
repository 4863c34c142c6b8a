// SPDX-License-Identifier: MIT
/*
 * See schema.h. The JSON text is hostile: its size and nesting are bounded before the JSON library
 * sees it, and what it holds is refused with its place ("scsi[0].drives[3].lun") and what would be
 * right. A value is decoded into memory of our own first and handed over whole.
 *
 * Each type of field is one row of the table at the end of the file: how it gets its default, is
 * freed, read and written. Messages quote the input only as printable ASCII.
 */
#include "schema/schema.h"
#include "lib/cleanup.h"
#include "schema/json.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

/* Where in the document we are; a chain on the stack, printed only when something is wrong. */
struct place {
	const struct place *parent;
	const char *name; /* NULL: an item of an array */
	size_t index;
};

struct kind {
	const char *what; /* "must be ..." */
	int (*init)(const struct schema_field *f, void *dst);
	void (*deinit)(const struct schema_field *f, void *dst);
	int (*decode)(const struct schema_field *f, json_t *json, const struct place *at, void *dst,
		      struct error *err);
	/* Stores NULL when there is nothing to write; 0, -ENOMEM or -EILSEQ. */
	int (*encode)(const struct schema_field *f, const void *src, json_t **ret);
};

static const struct kind *kind_of(const struct schema_field *f);

static size_t place_format(const struct place *at, char *text, size_t size)
{
	size_t n = 0;
	int r;

	if (!at)
		return 0;
	n = place_format(at->parent, text, size);
	if (at->name)
		r = snprintf(text + n, size - n, "%s%s", n ? "." : "", at->name);
	else
		r = snprintf(text + n, size - n, "[%zu]", at->index);
	return MIN(n + (size_t)r, size - 1);
}

static int _printf_(3, 4) refuse(const struct place *at, struct error *err, const char *format, ...)
{
	char where[96] = "", what[sizeof(err->message)];
	va_list ap;

	place_format(at, where, sizeof(where));
	va_start(ap, format);
	vsnprintf(what, sizeof(what), format, ap);
	va_end(ap);
	error_set(err, -EINVAL, "%s: %s", where[0] ? where : "the document", what);
	if (err)
		snprintf(err->property, sizeof(err->property), "%s", where);
	return -EINVAL;
}

static const char *printable(const char *text, char *buffer, size_t size)
{
	size_t n = 0;

	for (; text[n] && n < size - 1; n++)
		buffer[n] = text[n] < ' ' || text[n] > '~' ? '?' : text[n];
	buffer[n] = '\0';
	if (text[n] && size > 4)
		memcpy(buffer + size - 4, "...", 4);
	return buffer;
}

static const char *type_name(const json_t *json)
{
	switch (json_typeof(json)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_INTEGER:
		return "an integer";
	case JSON_REAL:
		return "a number with a fraction or an exponent";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	case JSON_NULL:
		return "null";
	}
	return "something else";
}

static int refuse_type(const struct schema_field *f, const json_t *json, const struct place *at,
		       struct error *err)
{
	return refuse(at, err, "must be %s, not %s", kind_of(f)->what, type_name(json));
}

static void no_deinit(const struct schema_field *f, void *dst)
{
	(void)f;
	(void)dst;
}

static int encode_checked(json_t *json, json_t **ret)
{
	*ret = json;
	return json ? 0 : -ENOMEM;
}

static int init_bool(const struct schema_field *f, void *dst)
{
	*(bool *)dst = f->fallback;
	return 0;
}

static int decode_bool(const struct schema_field *f, json_t *json, const struct place *at,
		       void *dst, struct error *err)
{
	if (!json_is_boolean(json))
		return refuse_type(f, json, at, err);
	*(bool *)dst = json_is_true(json);
	return 0;
}

static int encode_bool(const struct schema_field *f, const void *src, json_t **ret)
{
	(void)f;
	return encode_checked(json_boolean(*(const bool *)src), ret);
}

static int decode_integer(const struct schema_field *f, json_t *json, const struct place *at,
			  struct error *err)
{
	json_int_t v = json_integer_value(json);

	if (!json_is_integer(json))
		return refuse_type(f, json, at, err);
	if (v < f->min || v > f->max)
		return refuse(at, err,
			      "%" JSON_INTEGER_FORMAT " is out of range; give %" PRId64
			      " to %" PRId64,
			      v, f->min, f->max);
	return 0;
}

static int init_uint32(const struct schema_field *f, void *dst)
{
	*(uint32_t *)dst = (uint32_t)f->fallback;
	return 0;
}

static int decode_uint32(const struct schema_field *f, json_t *json, const struct place *at,
			 void *dst, struct error *err)
{
	int r = decode_integer(f, json, at, err);

	if (r < 0)
		return r;
	*(uint32_t *)dst = (uint32_t)json_integer_value(json);
	return 0;
}

static int encode_uint32(const struct schema_field *f, const void *src, json_t **ret)
{
	(void)f;
	return encode_checked(json_integer(*(const uint32_t *)src), ret);
}

static int init_int64(const struct schema_field *f, void *dst)
{
	*(int64_t *)dst = f->fallback;
	return 0;
}

static int decode_int64(const struct schema_field *f, json_t *json, const struct place *at,
			void *dst, struct error *err)
{
	int r = decode_integer(f, json, at, err);

	if (r < 0)
		return r;
	*(int64_t *)dst = json_integer_value(json);
	return 0;
}

static int encode_int64(const struct schema_field *f, const void *src, json_t **ret)
{
	(void)f;
	return encode_checked(json_integer(*(const int64_t *)src), ret);
}

/* An enum without negative values is stored as an unsigned int by gcc and clang. */
static int init_enum(const struct schema_field *f, void *dst)
{
	*(unsigned *)dst = (unsigned)f->fallback;
	return 0;
}

/* "a, b, c", cut where it does not fit. */
static void list_append_name(char *text, size_t size, const char *name)
{
	size_t n = strlen(text);

	snprintf(text + n, size - n, "%s%s", n ? ", " : "", name);
}

static int decode_enum(const struct schema_field *f, json_t *json, const struct place *at,
		       void *dst, struct error *err)
{
	char known[256] = "", got[40];

	if (!json_is_string(json))
		return refuse_type(f, json, at, err);
	for (unsigned i = 0; i < f->name_count; i++) {
		if (!strcmp(json_string_value(json), f->names[i])) {
			*(unsigned *)dst = i;
			return 0;
		}
		list_append_name(known, sizeof(known), f->names[i]);
	}
	return refuse(at, err, "\"%s\" is not known; give one of %s",
		      printable(json_string_value(json), got, sizeof(got)), known);
}

static int encode_enum(const struct schema_field *f, const void *src, json_t **ret)
{
	unsigned v = *(const unsigned *)src;

	assert(v < f->name_count);
	return encode_checked(json_string(f->names[v]), ret);
}

static int init_string(const struct schema_field *f, void *dst)
{
	if (!f->fallback_text)
		return 0;
	*(char **)dst = strdup(f->fallback_text);
	return *(char **)dst ? 0 : -ENOMEM;
}

static void deinit_string(const struct schema_field *f, void *dst)
{
	(void)f;
	free(*(char **)dst);
	*(char **)dst = NULL;
}

/* Of valid UTF-8. */
static int64_t count_characters(const char *text)
{
	int64_t n = 0;

	for (; *text; text++)
		n += ((uint8_t)*text & 0xc0) != 0x80;
	return n;
}

static int decode_string(const struct schema_field *f, json_t *json, const struct place *at,
			 void *dst, struct error *err)
{
	int64_t length;
	char *copy;

	if (!json_is_string(json))
		return refuse_type(f, json, at, err);
	length = count_characters(json_string_value(json));
	if (length < f->min || length > f->max)
		return refuse(at, err, "has %" PRId64 " characters; give %" PRId64 " to %" PRId64,
			      length, f->min, f->max);
	copy = strdup(json_string_value(json));
	if (!copy)
		return error_set(err, -ENOMEM, "not enough memory for the settings");
	free(*(char **)dst);
	*(char **)dst = copy;
	return 0;
}

static int encode_string(const struct schema_field *f, const void *src, json_t **ret)
{
	const char *text = *(char *const *)src;

	(void)f;
	*ret = NULL;
	if (!text)
		return 0;
	*ret = json_string(text);
	if (*ret)
		return 0;
	*ret = json_string_nocheck(text);
	if (!*ret)
		return -ENOMEM;
	json_decref(steal_ptr(*ret));
	return -EILSEQ;
}

static int init_object(const struct schema_field *f, void *dst)
{
	const struct schema_object *o = f->object;
	int r = 0;

	if (o->optional)
		*(bool *)dst = f->required || f->fallback_object;
	for (unsigned i = 0; i < o->field_count && r == 0; i++)
		r = kind_of(&o->fields[i])->init(&o->fields[i], (char *)dst + o->fields[i].offset);
	return r;
}

static void deinit_object(const struct schema_field *f, void *dst)
{
	const struct schema_object *o = f->object;

	for (unsigned i = 0; i < o->field_count; i++)
		kind_of(&o->fields[i])->deinit(&o->fields[i], (char *)dst + o->fields[i].offset);
}

static int check_keys(const struct schema_object *o, json_t *json, const struct place *at,
		      struct error *err)
{
	char known[320] = "", got[40];
	const char *key;
	json_t *value;

	json_object_foreach(json, key, value)
	{
		unsigned i = 0;

		while (i < o->field_count && strcmp(key, o->fields[i].name))
			i++;
		if (i < o->field_count)
			continue;
		for (i = 0; i < o->field_count; i++)
			list_append_name(known, sizeof(known), o->fields[i].name);
		return refuse(at, err, "unknown key \"%s\"; the known ones are %s",
			      printable(key, got, sizeof(got)), known);
	}
	return 0;
}

static int decode_object(const struct schema_field *f, json_t *json, const struct place *at,
			 void *dst, struct error *err)
{
	const struct schema_object *o = f->object;
	int r;

	if (!json_is_object(json))
		return refuse_type(f, json, at, err);
	r = check_keys(o, json, at, err);
	for (unsigned i = 0; i < o->field_count && r == 0; i++) {
		const struct schema_field *g = &o->fields[i];
		struct place here = { .parent = at, .name = g->name };
		json_t *value = json_object_get(json, g->name);

		if (value)
			r = kind_of(g)->decode(g, value, &here, (char *)dst + g->offset, err);
		else if (g->required)
			r = refuse(&here, err, "is missing; give %s", kind_of(g)->what);
	}
	if (r == 0 && o->optional)
		*(bool *)dst = true;
	return r;
}

static int encode_members(const struct schema_object *o, const void *src, uint64_t members,
			  json_t **ret)
{
	_cleanup_json_ json_t *object = json_object();

	if (!object)
		return -ENOMEM;
	for (unsigned i = 0; i < o->field_count; i++) {
		const struct schema_field *g = &o->fields[i];
		json_t *value;
		int r;

		if (i < 64 && !(members & BIT64(i)))
			continue;
		r = kind_of(g)->encode(g, (const char *)src + g->offset, &value);
		if (r < 0)
			return r;
		if (value && json_object_set_new(object, g->name, value) < 0)
			return -ENOMEM;
	}
	*ret = steal_ptr(object);
	return 0;
}

static int encode_object(const struct schema_field *f, const void *src, json_t **ret)
{
	const struct schema_object *o = f->object;

	*ret = NULL;
	if (o->optional && !*(const bool *)src)
		return 0;
	return encode_members(o, src, UINT64_MAX, ret);
}

static unsigned *array_count(const struct schema_field *f, void *array)
{
	return (unsigned *)((char *)array - f->offset + f->count_offset);
}

static int init_array(const struct schema_field *f, void *dst)
{
	(void)f;
	(void)dst;
	return 0;
}

static void deinit_array(const struct schema_field *f, void *dst)
{
	unsigned *count = array_count(f, dst);
	char **items = dst;

	for (unsigned i = 0; i < *count; i++)
		kind_of(f->item)->deinit(f->item, *items + i * f->item_size);
	free(*items);
	*items = NULL;
	*count = 0;
}

/* Items are counted as soon as they can be freed. */
static int decode_array(const struct schema_field *f, json_t *json, const struct place *at,
			void *dst, struct error *err)
{
	size_t count = json_array_size(json);
	char **items = dst;

	if (!json_is_array(json))
		return refuse_type(f, json, at, err);
	if (count > (uint64_t)f->max)
		return refuse(at, err, "has %zu items; give at most %" PRId64, count, f->max);
	*items = count ? calloc(count, f->item_size) : NULL;
	if (count && !*items)
		return error_set(err, -ENOMEM, "not enough memory for the settings");
	for (size_t i = 0; i < count; i++) {
		struct place here = { .parent = at, .index = i };
		void *item = *items + i * f->item_size;
		int r = kind_of(f->item)->init(f->item, item);

		++*array_count(f, dst);
		if (r < 0)
			return error_set(err, r, "not enough memory for the settings");
		r = kind_of(f->item)->decode(f->item, json_array_get(json, i), &here, item, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int encode_array(const struct schema_field *f, const void *src, json_t **ret)
{
	_cleanup_json_ json_t *array = json_array();
	unsigned count = *array_count(f, (void *)src);
	const char *items = *(char *const *)src;

	assert(count <= f->max);
	*ret = NULL;
	if (!array)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++) {
		json_t *value;
		int r = kind_of(f->item)->encode(f->item, items + i * f->item_size, &value);

		if (r < 0)
			return r;
		/* An item without a value can only come from our own code. */
		assert(value);
		if (json_array_append_new(array, value) < 0)
			return -ENOMEM;
	}
	*ret = steal_ptr(array);
	return 0;
}

int schema_init(const struct schema_object *schema, void *ret)
{
	const struct schema_field root = { .object = schema, .required = true };
	int r;

	memset(ret, 0, schema->size);
	r = init_object(&root, ret);
	if (r < 0)
		schema_deinit(schema, ret);
	return r;
}

void schema_deinit(const struct schema_object *schema, void *value)
{
	const struct schema_field root = { .object = schema };

	deinit_object(&root, value);
	memset(value, 0, schema->size);
}

/* Brackets outside strings. The JSON library has a limit of its own, but one of thousands. */
static bool too_deep(const char *text, size_t size)
{
	unsigned depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < size; i++) {
		if (quoted && text[i] == '\\')
			i++;
		else if (text[i] == '"')
			quoted = !quoted;
		else if (!quoted && (text[i] == '[' || text[i] == '{') &&
			 ++depth > SCHEMA_DEPTH_MAX)
			return true;
		else if (!quoted && (text[i] == ']' || text[i] == '}') && depth > 0)
			depth--;
	}
	return false;
}

static int load_text(const char *text, size_t size, json_t **ret, struct error *err)
{
	char what[JSON_ERROR_TEXT_LENGTH];
	json_error_t e;

	if (size > SCHEMA_TEXT_MAX)
		return error_set(err, -EFBIG, "the JSON text has %zu bytes; give at most %" PRIu64,
				 size, SCHEMA_TEXT_MAX);
	if (too_deep(text, size))
		return error_set(
			err, -EINVAL,
			"the JSON text nests deeper than %d arrays and objects; make it flatter",
			SCHEMA_DEPTH_MAX);
	*ret = json_loadb(text, size, JSON_REJECT_DUPLICATES, &e);
	if (*ret)
		return 0;
	/* Where the library runs out of memory it often doesn't say so, or anything. */
	if (json_error_code(&e) == json_error_out_of_memory || !e.text[0])
		return error_set(err, -ENOMEM, "not enough memory for the settings");
	return error_set(err, -EINVAL, "line %d, column %d of the JSON text: %s; correct it there",
			 e.line, e.column, printable(e.text, what, sizeof(what)));
}

int schema_decode(const struct schema_object *schema, json_t *json, void *ret, struct error *err)
{
	const struct schema_field root = { .type = SCHEMA_OBJECT, .object = schema };
	_cleanup_free_ void *value = malloc(schema->size);
	int r;

	if (!value || schema_init(schema, value) < 0)
		return error_set(err, -ENOMEM, "not enough memory for the settings");
	r = decode_object(&root, json, NULL, value, err);
	if (r < 0) {
		schema_deinit(schema, value);
		return r;
	}
	memcpy(ret, value, schema->size);
	return 0;
}

int schema_parse(const struct schema_object *schema, const char *text, size_t size, void *ret,
		 struct error *err)
{
	_cleanup_json_ json_t *json = NULL;
	int r = load_text(text, size, &json, err);

	return r < 0 ? r : schema_decode(schema, json, ret, err);
}

void *schema_append(const struct schema_field *array, void *object)
{
	char **items = (char **)((char *)object + array->offset);
	unsigned *count = (unsigned *)((char *)object + array->count_offset);
	void *item, *more;

	if (*count >= array->max)
		return NULL;
	more = realloc(*items, (*count + 1) * array->item_size);
	if (!more)
		return NULL;
	*items = more;
	item = *items + *count * array->item_size;
	memset(item, 0, array->item_size);
	if (kind_of(array->item)->init(array->item, item) < 0) {
		kind_of(array->item)->deinit(array->item, item);
		return NULL;
	}
	++*count;
	return item;
}

json_t *schema_encode(const struct schema_object *schema, const void *value)
{
	const struct schema_field root = { .object = schema };
	json_t *json;
	int r = encode_object(&root, value, &json);

	if (r < 0)
		errno = -r;
	return r < 0 ? NULL : json;
}

json_t *schema_encode_some(const struct schema_object *schema, const void *value, uint64_t members)
{
	json_t *json;
	int r = encode_members(schema, value, members, &json);

	if (r < 0)
		errno = -r;
	return r < 0 ? NULL : json;
}

char *schema_format(const struct schema_object *schema, const void *value)
{
	_cleanup_json_ json_t *json = schema_encode(schema, value);
	char *text;

	if (!json)
		return NULL;
	text = json_dumps(json, JSON_INDENT(2));
	if (!text)
		errno = ENOMEM;
	return text;
}

const struct schema_field *schema_find(const struct schema_object *schema, const char *path)
{
	while (schema) {
		size_t n = strcspn(path, ".[");
		const struct schema_field *f = NULL;

		for (unsigned i = 0; i < schema->field_count && !f; i++)
			if (!strncmp(schema->fields[i].name, path, n) && !schema->fields[i].name[n])
				f = &schema->fields[i];
		path += n;
		if (f && f->type == SCHEMA_ARRAY && !strncmp(path, "[]", 2)) {
			f = f->item;
			path += 2;
		}
		if (!f || !*path)
			return f;
		schema = f->type == SCHEMA_OBJECT && *path == '.' ? f->object : NULL;
		path++;
	}
	return NULL;
}

/* clang-format off */
static const struct kind kinds[] = {
	[SCHEMA_BOOL] = { "true or false", init_bool, no_deinit, decode_bool, encode_bool },
	[SCHEMA_UINT32] = { "an integer", init_uint32, no_deinit, decode_uint32, encode_uint32 },
	[SCHEMA_INT64] = { "an integer", init_int64, no_deinit, decode_int64, encode_int64 },
	[SCHEMA_ENUM] = { "a string", init_enum, no_deinit, decode_enum, encode_enum },
	[SCHEMA_STRING] = { "a string", init_string, deinit_string, decode_string, encode_string },
	[SCHEMA_OBJECT] = { "an object", init_object, deinit_object, decode_object, encode_object },
	[SCHEMA_ARRAY] = { "an array", init_array, deinit_array, decode_array, encode_array },
};
/* clang-format on */

static const struct kind *kind_of(const struct schema_field *f)
{
	return &kinds[f->type];
}
