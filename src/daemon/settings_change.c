// SPDX-License-Identifier: MIT
/* See settings_change.h. Patches are hostile, but as deep as their reader allows; pure. */
#include "daemon/settings_change.h"

#include <stdio.h>
#include <string.h>

#define MERGE_DEPTH_MAX 64

static json_t *merge(const json_t *target, const json_t *patch, unsigned depth)
{
	json_t *result, *value;
	const char *key;

	if (!json_is_object(patch) || depth > MERGE_DEPTH_MAX)
		return json_incref((json_t *)patch);
	result = json_is_object(target) ? json_copy((json_t *)target) : json_object();
	json_object_foreach((json_t *)patch, key, value)
	{
		if (json_is_null(value)) {
			json_object_del(result, key);
			continue;
		}
		value = merge(json_object_get(target, key), value, depth + 1);
		if (json_object_set_new(result, key, value) < 0) {
			json_decref(result);
			return NULL;
		}
	}
	return result;
}

json_t *merge_patch(const json_t *target, const json_t *patch)
{
	return merge(target, patch, 0);
}

struct compare {
	int (*each)(void *context, const struct settings_difference *d);
	void *context;
};

/* Where we are, and what is inherited there. */
struct spot {
	const char *path;
	enum schema_when when;
	const char *operation;
};

static int compare_field(const struct compare *c, const struct schema_field *f,
			 const struct spot *at, const json_t *old, const json_t *new);

static int compare_object(const struct compare *c, const struct schema_object *o,
			  const struct spot *at, const json_t *old, const json_t *new)
{
	char path[128];
	int r = 0;

	for (unsigned i = 0; i < o->field_count && r == 0; i++) {
		const struct schema_field *f = &o->fields[i];
		const struct spot here = {
			path,
			f->when == SCHEMA_AS_ABOVE ? at->when : f->when,
			f->operation ? f->operation : at->operation,
		};

		snprintf(path, sizeof(path), "%s%s%s", at->path, *at->path ? "." : "", f->name);
		r = compare_field(c, f, &here, json_object_get(old, f->name),
				  json_object_get(new, f->name));
	}
	return r;
}

static int compare_array(const struct compare *c, const struct schema_field *f,
			 const struct spot *at, const json_t *old, const json_t *new)
{
	char path[128];
	const struct spot here = { path, at->when, at->operation };
	int r = 0;

	for (size_t i = 0; i < json_array_size(old) && r == 0; i++) {
		snprintf(path, sizeof(path), "%s[%zu]", at->path, i);
		r = compare_field(c, f->item, &here, json_array_get(old, i),
				  json_array_get(new, i));
	}
	return r;
}

static int compare_field(const struct compare *c, const struct schema_field *f,
			 const struct spot *at, const json_t *old, const json_t *new)
{
	const struct settings_difference d = { at->path, old, new, at->when, at->operation, f };

	if (old == new || (old && new &&json_equal(old, new)))
		return 0;
	if (f->type == SCHEMA_OBJECT && old && new)
		return compare_object(c, f->object, at, old, new);
	if (f->type == SCHEMA_ARRAY && json_array_size(old) == json_array_size(new))
		return compare_array(c, f, at, old, new);
	return c->each(c->context, &d);
}

int settings_compare(const struct schema_object *schema, const json_t *old, const json_t *new,
		     int (*each)(void *context, const struct settings_difference *d), void *context)
{
	const struct compare c = { each, context };
	const struct spot top = { "", SCHEMA_OFF, NULL };

	return compare_object(&c, schema, &top, old, new);
}
