// SPDX-License-Identifier: MIT
/*
 * Whether JSON is as a component of openapi.json says. Of JSON Schema it knows what our components
 * use: $ref, type (a name or several), enum, properties, required, additionalProperties, items,
 * minimum, maximum, minLength, maxLength, minItems, maxItems. What it does not know it ignores, so
 * a component must not rely on more.
 *
 * Bodies of requests are held to it before a handler sees them; tests hold answers to it.
 */
#include "rest/api.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

struct at {
	const json_t *components;
	const struct at *parent;
	const char *name; /* NULL: an item */
	size_t index;
	unsigned depth;
};

static size_t place(const struct at *at, char *text, size_t size)
{
	size_t n;
	int r;

	if (!at->parent)
		return 0;
	n = place(at->parent, text, size);
	if (n >= size - 1)
		return n;
	if (at->name)
		r = snprintf(text + n, size - n, "%s%s", n ? "." : "", at->name);
	else
		r = snprintf(text + n, size - n, "[%zu]", at->index);
	return MIN(n + (size_t)r, size - 1);
}

static int _printf_(3, 4) refuse(const struct at *at, struct error *err, const char *format, ...)
{
	char where[sizeof(err->property)] = "", what[300];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	place(at, where, sizeof(where));
	error_set(err, -EINVAL, "%s%s%s", where, where[0] ? ": " : "the body: ", what);
	if (err)
		snprintf(err->property, sizeof(err->property), "%s", where);
	return -EINVAL;
}

static const char *type_of(const json_t *json)
{
	switch (json_typeof(json)) {
	case JSON_OBJECT:
		return "object";
	case JSON_ARRAY:
		return "array";
	case JSON_STRING:
		return "string";
	case JSON_INTEGER:
		return "integer";
	case JSON_REAL:
		return "number";
	case JSON_TRUE:
	case JSON_FALSE:
		return "boolean";
	case JSON_NULL:
		break;
	}
	return "null";
}

static bool type_is(const json_t *json, const char *type)
{
	return !strcmp(type_of(json), type) || (json_is_integer(json) && !strcmp(type, "number"));
}

static int check_type(const struct at *at, const json_t *schema, const json_t *json,
		      struct error *err)
{
	const json_t *type = json_object_get(schema, "type"), *one;
	size_t i;

	if (!type || (json_is_string(type) && type_is(json, json_string_value(type))))
		return 0;
	json_array_foreach(type, i, one)
	{
		if (type_is(json, json_string_value(one)))
			return 0;
	}
	return refuse(at, err, "must be %s %s, not %s",
		      strchr("aeio", *json_string_value(
					     json_is_array(type) ? json_array_get(type, 0) : type))
			      ? "an"
			      : "a",
		      json_string_value(json_is_array(type) ? json_array_get(type, 0) : type),
		      type_of(json));
}

static int check_enum(const struct at *at, const json_t *schema, const json_t *json,
		      struct error *err)
{
	const json_t *names = json_object_get(schema, "enum"), *one;
	char all[200] = "";
	size_t i, n = 0;

	if (!names)
		return 0;
	json_array_foreach(names, i, one)
	{
		if (json_equal(one, json))
			return 0;
		if (n < sizeof(all))
			n += (size_t)snprintf(all + n, sizeof(all) - n, "%s%s", i ? ", " : "",
					      json_is_string(one) ? json_string_value(one)
								  : "null");
	}
	return refuse(at, err, "must be one of: %s", all);
}

/* A limit of the schema against `value`. */
static int check_limits(const struct at *at, const json_t *schema, const char *const names[2],
			int64_t value, struct error *err)
{
	const json_t *min = json_object_get(schema, names[0]);
	const json_t *max = json_object_get(schema, names[1]);

	if (min && value < json_integer_value(min))
		return refuse(at, err, "%s is %" JSON_INTEGER_FORMAT, names[0],
			      json_integer_value(min));
	if (max && value > json_integer_value(max))
		return refuse(at, err, "%s is %" JSON_INTEGER_FORMAT, names[1],
			      json_integer_value(max));
	return 0;
}

static int64_t characters(const char *text)
{
	int64_t n = 0;

	for (; *text; text++)
		n += ((uint8_t)*text & 0xc0) != 0x80;
	return n;
}

static int check(const struct at *at, const json_t *schema, const json_t *json, struct error *err);

static int check_members(const struct at *at, const json_t *schema, const json_t *json,
			 struct error *err)
{
	const json_t *properties = json_object_get(schema, "properties");
	const json_t *others = json_object_get(schema, "additionalProperties");
	const char *name;
	json_t *value;
	int r = 0;

	json_object_foreach((json_t *)json, name, value)
	{
		const json_t *property = json_object_get(properties, name);
		struct at in = { at->components, at, name, 0, at->depth + 1 };

		if (property)
			r = check(&in, property, value, err);
		else if (json_is_false(others))
			r = refuse(&in, err, "is unknown");
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_object(const struct at *at, const json_t *schema, const json_t *json,
			struct error *err)
{
	json_t *one;
	size_t i;

	json_array_foreach(json_object_get(schema, "required"), i, one)
	{
		struct at in = { at->components, at, json_string_value(one), 0, at->depth + 1 };

		if (!json_object_get(json, json_string_value(one)))
			return refuse(&in, err, "is missing");
	}
	return check_members(at, schema, json, err);
}

static int check_array(const struct at *at, const json_t *schema, const json_t *json,
		       struct error *err)
{
	static const char *const names[] = { "minItems", "maxItems" };
	const json_t *items = json_object_get(schema, "items");
	int r = check_limits(at, schema, names, (int64_t)json_array_size(json), err);

	for (size_t i = 0; items && r >= 0 && i < json_array_size(json); i++) {
		struct at in = { at->components, at, NULL, i, at->depth + 1 };

		r = check(&in, items, json_array_get(json, i), err);
	}
	return r;
}

static const json_t *follow(const struct at *at, const json_t *schema)
{
	const char *ref = json_string_value(json_object_get(schema, "$ref"));

	return ref ? json_object_get(at->components, strrchr(ref, '/') + 1) : schema;
}

static int check(const struct at *at, const json_t *schema, const json_t *json, struct error *err)
{
	static const char *const value[] = { "minimum", "maximum" };
	static const char *const length[] = { "minLength", "maxLength" };
	int r;

	schema = follow(at, schema);
	if (!schema || at->depth > API_JSON_DEPTH_MAX)
		return refuse(at, err, "is nested too deep");
	r = check_type(at, schema, json, err);
	if (r >= 0)
		r = check_enum(at, schema, json, err);
	if (r >= 0 && json_is_integer(json))
		r = check_limits(at, schema, value, json_integer_value(json), err);
	if (r >= 0 && json_is_string(json))
		r = check_limits(at, schema, length, characters(json_string_value(json)), err);
	if (r >= 0 && json_is_object(json))
		r = check_object(at, schema, json, err);
	if (r >= 0 && json_is_array(json))
		r = check_array(at, schema, json, err);
	return r;
}

int check_schema(const json_t *components, const json_t *schema, const json_t *json,
		 struct error *err)
{
	struct at at = { .components = components };

	return check(&at, schema, json, err);
}

int check_component(const json_t *components, const char *name, const json_t *json,
		    struct error *err)
{
	struct at at = { .components = components };

	return check(&at, json_object_get(components, name), json, err);
}
