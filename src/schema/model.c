// SPDX-License-Identifier: MIT
/*
 * Reads a schema file for schemagen. A keyword that is not in the subset, or that its type does not
 * take, is a mistake rather than ignored: a misspelt "maximum" must not become "no limit". For the
 * same reason everything has a limit (maxLength, maxItems, minimum and maximum), and every number,
 * boolean and enum is either required or has a default.
 *
 * What is read lives as long as the program, reachable from the model.
 */
#include "schema/model.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEMA_NESTING_MAX 16
#define ITEMS_MAX          65536
#define CHARACTERS_MAX     1048576

/* Keywords that are known, and for which "type" (or "$ref") they are. */
static const struct keyword {
	const char *name;
	const char *types;
} keywords[] = {
	{ "description", "$ref object array string integer boolean" },
	{ "type", "object array string integer boolean" },
	{ "default", "$ref string integer boolean" },
	{ "$ref", "$ref" },
	{ "c_name", "object string" },
	{ "properties", "object" },
	{ "required", "object" },
	{ "additionalProperties", "object" },
	{ "items", "array" },
	{ "maxItems", "array" },
	{ "minLength", "string" },
	{ "maxLength", "string" },
	{ "enum", "string" },
	{ "minimum", "integer" },
	{ "maximum", "integer" },
	{ "unit", "integer" },
	{ "operation", "$ref object array string integer boolean" },
	{ "option", "$ref string integer boolean" },
	{ "when", "$ref object array string integer boolean" },
	{ "$schema", "root" },
	{ "title", "root" },
	{ "$defs", "root" },
};

/* Where we are in the schema, for messages; kept by the functions that go down. */
struct spot {
	struct model *m;
	const struct spot *parent;
	const char *name;
};

static void spot_print(const struct spot *at)
{
	if (!at)
		return;
	spot_print(at->parent);
	fprintf(stderr, "%s%s", at->parent ? "." : "", at->name);
}

static _Noreturn void __attribute__((format(printf, 2, 3)))
mistake(const struct spot *at, const char *format, ...)
{
	va_list ap;

	spot_print(at);
	fputs(": ", stderr);
	va_start(ap, format);
	vfprintf(stderr, format, ap);
	va_end(ap);
	fputc('\n', stderr);
	exit(1);
}

static void *allocate(size_t count, size_t size)
{
	void *p = calloc(count ? count : 1, size);

	if (!p) {
		perror("schemagen");
		exit(1);
	}
	return p;
}

/* `word` is one of the space-separated `words`. */
static bool has_word(const char *words, const char *word)
{
	size_t n = strlen(word);

	for (const char *p = words; (p = strstr(p, word)); p += n)
		if ((p == words || p[-1] == ' ') && (p[n] == ' ' || p[n] == '\0'))
			return true;
	return false;
}

static void check_keywords(const struct spot *at, const json_t *json, const char *type)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)json, key, value)
	{
		size_t i = 0;

		while (i < ARRAY_SIZE(keywords) && strcmp(key, keywords[i].name))
			i++;
		if (i == ARRAY_SIZE(keywords))
			mistake(at, "\"%s\" is not in our subset of JSON Schema", key);
		if (!has_word(keywords[i].types, type) &&
		    !(json == at->m->root && has_word(keywords[i].types, "root")))
			mistake(at, "\"%s\" does not belong to a %s", key, type);
	}
}

/* Lower case, so that it can also be made upper case. */
static void check_c_name(const struct spot *at, const char *name)
{
	size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_");

	if (!islower((unsigned char)name[0]) || name[n])
		mistake(at, "\"%s\" is no name for C: use lower case, digits and _", name);
}

/* Names that a client sees may be words of C; the member then has a _ at its end. */
static void set_c_member(const struct spot *at, struct model_field *f)
{
	static const char words[] =
		"auto break case char const continue default do double else enum extern float for "
		"goto if inline int long register restrict return short signed sizeof static "
		"struct switch typedef union unsigned void volatile while asm typeof";
	int n = snprintf(f->c_member, sizeof(f->c_member), "%s%s", f->name,
			 has_word(words, f->name) ? "_" : "");

	if (n >= (int)sizeof(f->c_member))
		mistake(at, "the name is too long");
}

static const char *text_of(const struct spot *at, const json_t *json, const char *key)
{
	const json_t *value = json_object_get(json, key);

	if (!value)
		return NULL;
	if (!json_is_string(value))
		mistake(at, "\"%s\" must be a string", key);
	return json_string_value(value);
}

static const char *description_of(const struct spot *at, const json_t *json)
{
	const char *text = text_of(at, json, "description");

	if (text && (strstr(text, "*/") || strpbrk(text, "\n\t\r")))
		mistake(at, "the description must be one line and hold no \"*/\"");
	return text;
}

static bool integer_of(const struct spot *at, const json_t *json, const char *key, int64_t *ret)
{
	const json_t *value = json_object_get(json, key);

	if (!value)
		return false;
	if (!json_is_integer(value))
		mistake(at, "\"%s\" must be an integer", key);
	*ret = json_integer_value(value);
	return true;
}

static int64_t limit_of(const struct spot *at, const json_t *json, const char *key, int64_t most)
{
	int64_t v;

	if (!integer_of(at, json, key, &v))
		mistake(at, "\"%s\" is missing: everything has a limit", key);
	if (v < 1 || v > most)
		mistake(at, "\"%s\" must be 1 to %lld", key, (long long)most);
	return v;
}

/* What "#/$defs/NAME" means; other references are not in the subset. */
static const json_t *follow(const struct spot *at, const json_t *json)
{
	static const char prefix[] = "#/$defs/";
	const char *ref = text_of(at, json, "$ref");
	const json_t *target;

	if (strncmp(ref, prefix, strlen(prefix)))
		mistake(at, "\"$ref\" must be %sNAME", prefix);
	target = json_object_get(json_object_get(at->m->root, "$defs"), ref + strlen(prefix));
	if (!json_is_object(target))
		mistake(at, "%s is not there", ref);
	if (json_object_get(target, "$ref"))
		mistake(at, "%s is itself a reference; name its target", ref);
	return target;
}

static void read_integer(const struct spot *at, const json_t *json, struct model_field *f)
{
	if (!integer_of(at, json, "minimum", &f->min) || !integer_of(at, json, "maximum", &f->max))
		mistake(at, "an integer needs \"minimum\" and \"maximum\"");
	if (f->min > f->max)
		mistake(at, "\"minimum\" is more than \"maximum\"");
	f->type = f->min >= 0 && f->max <= UINT32_MAX ? MODEL_UINT32 : MODEL_INT64;
}

static void read_enum(const struct spot *at, const json_t *json, struct model_field *f)
{
	const char *c_name = text_of(at, json, "c_name");
	const json_t *value;
	size_t i;

	f->type = MODEL_ENUM;
	f->values = json_object_get(json, "enum");
	if (!json_array_size(f->values))
		mistake(at, "\"enum\" must be an array of strings");
	json_array_foreach((json_t *)f->values, i,
			   value) if (!json_is_string(value) || !json_string_value(value)[0])
		mistake(at, "\"enum\" must be an array of strings");
	if (c_name)
		snprintf(f->c_name, sizeof(f->c_name), "%s", c_name);
	check_c_name(at, f->c_name);
}

static void read_string(const struct spot *at, const json_t *json, struct model_field *f)
{
	f->type = MODEL_STRING;
	f->max = limit_of(at, json, "maxLength", CHARACTERS_MAX);
	integer_of(at, json, "minLength", &f->min);
	if (f->min < 0 || f->min > f->max)
		mistake(at, "\"minLength\" must be 0 to \"maxLength\"");
	if (json_object_get(json, "c_name"))
		mistake(at, "\"c_name\" is for objects and enums");
}

/* `json` holds the default: the reference or, without one there, its target. */
static void read_default(const struct spot *at, const json_t *json, struct model_field *f)
{
	const json_t *value = json_object_get(json, "default");
	bool fits = false;
	size_t i;

	switch (f->type) {
	case MODEL_BOOL:
		fits = json_is_boolean(value);
		f->fallback = json_is_true(value);
		break;
	case MODEL_UINT32:
	case MODEL_INT64:
		f->fallback = json_integer_value(value);
		fits = json_is_integer(value) && f->fallback >= f->min && f->fallback <= f->max;
		break;
	case MODEL_ENUM:
		for (i = 0; i < json_array_size(f->values) && !fits; i++) {
			f->fallback = (int64_t)i;
			fits = json_equal(value, json_array_get(f->values, i));
		}
		break;
	case MODEL_STRING:
		f->fallback_text = json_string_value(value);
		fits = f->fallback_text && (int64_t)strlen(f->fallback_text) >= f->min &&
		       (int64_t)strlen(f->fallback_text) <= f->max;
		break;
	case MODEL_OBJECT:
		f->fallback_object = fits = json_is_object(value) && !json_object_size(value);
		for (i = 0; i < f->object->field_count; i++)
			if (f->object->fields[i].required)
				mistake(at, "{} is no default: it lacks \"%s\"",
					f->object->fields[i].name);
		break;
	case MODEL_ARRAY:
		break;
	}
	if (!fits)
		mistake(at, "the default is not a value that the schema allows");
}

static struct model_object *read_object(const struct spot *at, const json_t *json);
static void read_field(const struct spot *at, const json_t *json, struct model_field *f);

static void read_array(const struct spot *at, const json_t *json, struct model_field *f)
{
	const struct spot here = { at->m, at, "items" };
	const json_t *items = json_object_get(json, "items");

	f->type = MODEL_ARRAY;
	f->max = limit_of(at, json, "maxItems", ITEMS_MAX);
	f->item = allocate(1, sizeof(*f->item));
	f->item->required = true;
	snprintf(f->item->c_name, sizeof(f->item->c_name), "%s", f->c_name);
	read_field(&here, items, f->item);
	if (f->item->type == MODEL_ARRAY)
		mistake(&here, "an array of arrays is not in our subset of JSON Schema");
}

/* What a reference says of its own goes before what its target says. */
static void read_notes(const struct spot *at, const json_t *outer, const json_t *json,
		       struct model_field *f)
{
	static const char *const names[] = { "unit", "operation", "option", "when" };
	const char **values[] = { &f->unit, &f->operation, &f->option, &f->when };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const char *own = text_of(at, outer, names[i]);

		*values[i] = own ? own : text_of(at, json, names[i]);
	}
	if (f->when && !has_word("off any-time never not-set", f->when))
		mistake(at, "\"when\" must be off, any-time, never or not-set");
}

/* f->c_name comes in as what an enum is called unless it says otherwise. */
static void read_field(const struct spot *at, const json_t *json, struct model_field *f)
{
	const json_t *outer = json, *own;
	const char *type;

	if (!json_is_object(json))
		mistake(at, "must be an object with \"type\" or \"$ref\"");
	if (json_object_get(json, "$ref")) {
		check_keywords(at, json, "$ref");
		json = follow(at, json);
	}
	f->description = description_of(at, json_object_get(outer, "description") ? outer : json);
	type = text_of(at, json, "type");
	if (!type || !has_word("object array string integer boolean", type))
		mistake(at, "\"type\" must be object, array, string, integer or boolean");
	check_keywords(at, json, type);
	read_notes(at, outer, json, f);
	if (!strcmp(type, "object")) {
		f->type = MODEL_OBJECT;
		f->object = read_object(at, json);
	} else if (!strcmp(type, "array")) {
		read_array(at, json, f);
	} else if (!strcmp(type, "integer")) {
		read_integer(at, json, f);
	} else if (!strcmp(type, "boolean")) {
		f->type = MODEL_BOOL;
	} else if (json_object_get(json, "enum")) {
		read_enum(at, json, f);
	} else {
		read_string(at, json, f);
	}
	own = json_object_get(outer, "default") ? outer : json;
	if (json_object_get(own, "default"))
		read_default(at, own, f);
	else if (!f->required && (f->type < MODEL_STRING))
		mistake(at, "must be required or have a default");
	if (f->type == MODEL_OBJECT && !f->required && !f->fallback_object)
		f->object->optional = true;
}

static bool is_required(const struct spot *at, const json_t *json, const char *name)
{
	const json_t *list = json_object_get(json, "required");
	size_t i;
	json_t *value;

	if (list && !json_is_array(list))
		mistake(at, "\"required\" must be an array of names");
	json_array_foreach((json_t *)list, i, value)
	{
		if (!json_is_string(value) ||
		    !json_object_get(json_object_get(json, "properties"), json_string_value(value)))
			mistake(at, "\"required\" names what is not in \"properties\"");
		if (!strcmp(json_string_value(value), name))
			return true;
	}
	return false;
}

static void read_properties(const struct spot *at, const json_t *json, struct model_object *o)
{
	json_t *properties = json_object_get(json, "properties");
	const char *name;
	json_t *value;

	if (!json_object_size(properties))
		mistake(at, "\"properties\" must be an object with at least one member");
	o->fields = allocate(json_object_size(properties), sizeof(*o->fields));
	json_object_foreach(properties, name, value)
	{
		const struct spot here = { at->m, at, name };
		struct model_field *f = &o->fields[o->field_count];

		check_c_name(&here, name);
		if (!strcmp(name, "present"))
			mistake(&here, "the name is taken by the generated struct");
		f->name = name;
		set_c_member(&here, f);
		f->required = is_required(at, json, name);
		snprintf(f->c_name, sizeof(f->c_name), "%s_%s", o->c_name, name);
		read_field(&here, value, f);
		o->field_count++;
	}
}

static struct model_object *find_object(const struct spot *at, const json_t *json)
{
	const char *c_name = text_of(at, json, "c_name");
	struct model_object *o = at->m->objects;

	if (!c_name)
		mistake(at, "an object needs \"c_name\", the name of its struct");
	check_c_name(at, c_name);
	while (o && o->json != json) {
		if (!strcmp(o->c_name, c_name))
			mistake(at, "\"c_name\": \"%s\" is taken by another object", c_name);
		o = o->next;
	}
	return o;
}

/* Once for each definition, however often it is referred to; after the objects that it holds. */
static struct model_object *read_object(const struct spot *at, const json_t *json)
{
	struct model_object *o = find_object(at, json);

	if (o)
		return o;
	if (++at->m->depth > SCHEMA_NESTING_MAX)
		mistake(at, "nests deeper than %d objects, or holds itself", SCHEMA_NESTING_MAX);
	if (!json_is_false(json_object_get(json, "additionalProperties")))
		mistake(at, "an object needs \"additionalProperties\": false");
	o = allocate(1, sizeof(*o));
	o->json = json;
	o->c_name = text_of(at, json, "c_name");
	o->description = description_of(at, json);
	read_properties(at, json, o);
	*at->m->end = o;
	at->m->end = &o->next;
	at->m->depth--;
	return o;
}

void model_read(struct model *m, const char *path)
{
	const struct spot at = { m, NULL, path };
	struct model_field root = { .required = true };
	json_error_t e;

	m->path = path;
	m->end = &m->objects;
	m->root = json_load_file(path, JSON_REJECT_DUPLICATES, &e);
	if (!m->root)
		mistake(&at, "line %d, column %d: %s", e.line, e.column, e.text);
	read_field(&at, m->root, &root);
	if (root.type != MODEL_OBJECT)
		mistake(&at, "the document must be an object");
}
