// SPDX-License-Identifier: MIT
/* The list of engines, in the order in which "auto" tries them; fake only by its name. */
#include "engine/engine.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

const struct engine *const engines[] = { &engine_kvm, NULL };

static const struct engine *find_usable(struct error *err)
{
	char all[sizeof(err->message) / 2] = "";
	struct error why = { 0 };
	uint32_t caps;

	for (size_t i = 0; engines[i]; i++) {
		size_t n = strlen(all);

		if (!engines[i]->probe(&caps, &why))
			return engines[i];
		snprintf(all + n, sizeof(all) - n, "%s%s: %.200s", n ? "; " : "", engines[i]->name,
			 why.message);
	}
	error_set(err, -ENODEV, "no engine can be used here: %s", all);
	return NULL;
}

const struct engine *engine_find(const char *name, struct error *err)
{
	uint32_t caps;

	if (!name || !strcmp(name, "auto"))
		return find_usable(err);
	if (!strcmp(name, engine_fake.name))
		return &engine_fake;
	for (size_t i = 0; engines[i]; i++) {
		if (strcmp(engines[i]->name, name))
			continue;
		if (engines[i]->probe(&caps, err) < 0) {
			error_prefix(err, "engine %s cannot be used here", name);
			return NULL;
		}
		return engines[i];
	}
	error_set(err, -EINVAL, "there is no engine \"%s\"; \"partita engines\" lists them", name);
	return NULL;
}
