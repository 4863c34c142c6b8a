// SPDX-License-Identifier: MIT
/*
 * vm.json as a stranger may write it: whatever passes the schema and the rules beyond it is written
 * back as the same, and what may start has a description. A second document after a NUL is a merge
 * patch for the first.
 */
#include "daemon/settings_change.h"
#include "daemon/vm_check.h"
#include "daemon/vm_describe.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int count_difference(void *context, const struct settings_difference *d)
{
	if (!d->path[0] || d->when == SCHEMA_AS_ABOVE)
		abort();
	++*(unsigned *)context;
	return 0;
}

static int count_path(void *context, const char *property, const char *path)
{
	if (!property[0] || !path)
		abort();
	++*(unsigned *)context;
	return 0;
}

/* The same after a round through JSON. */
static void check_round(const struct vm_settings *s)
{
	json_t *json = schema_encode(&vm_settings_schema, s), *again;
	struct vm_settings t;
	unsigned differences = 0;

	if (!json || schema_decode(&vm_settings_schema, json, &t, NULL) < 0 ||
	    vm_check(&t, NULL) < 0)
		abort();
	again = schema_encode(&vm_settings_schema, &t);
	settings_compare(&vm_settings_schema, json, again, count_difference, &differences);
	if (differences || !json_equal(json, again))
		abort();
	json_decref(json);
	json_decref(again);
	vm_settings_deinit(&t);
}

static void check_patch(const struct vm_settings *s, const char *text, size_t size)
{
	json_t *old = schema_encode(&vm_settings_schema, s);
	json_t *patch = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
	json_t *merged = patch ? merge_patch(old, patch) : NULL, *new;
	struct vm_settings t;
	unsigned differences = 0;

	if (merged && schema_decode(&vm_settings_schema, merged, &t, NULL) == 0) {
		new = schema_encode(&vm_settings_schema, &t);
		settings_compare(&vm_settings_schema, old, new, count_difference, &differences);
		if ((differences == 0) != json_equal(old, new))
			abort();
		json_decref(new);
		vm_settings_deinit(&t);
	}
	json_decref(merged);
	json_decref(patch);
	json_decref(old);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data, *nul = size ? memchr(text, 0, size) : NULL;
	size_t first = nul ? (size_t)(nul - text) : size;
	struct vm_settings s;
	unsigned paths = 0;
	json_t *description;

	if (vm_settings_parse(text, first, &s, NULL) < 0)
		return 0;
	vm_check_paths(&s, count_path, &paths);
	if (vm_check(&s, NULL) == 0) {
		check_round(&s);
		if (vm_check_start(&s, NULL) == 0) {
			description = vm_describe(&s, 1048576);
			if (!description)
				abort();
			json_decref(description);
		}
	}
	if (nul)
		check_patch(&s, nul + 1, size - first - 1);
	vm_settings_deinit(&s);
	return 0;
}
