// SPDX-License-Identifier: MIT
/* An address of a request: what is taken is UTF-8, lies in its copy, and names nothing twice. */
#include "rest/target.h"

#include <stdlib.h>
#include <string.h>

static void check(const struct target_text *t, const char *text, size_t size)
{
	if (text < t->text || text + strlen(text) > t->text + size || !text_is_utf8(text))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size);
	struct error err = { 0 };
	struct target_text t;

	if (target_parse(text, &t, &err) < 0) {
		if (err.code >= 0 || !err.message[0])
			abort();
	} else {
		if (!t.part_count || t.part_count > TARGET_PARTS_MAX ||
		    t.parameter_count > TARGET_QUERY_MAX)
			abort();
		for (unsigned i = 0; i < t.part_count; i++)
			check(&t, t.parts[i], strlen(text));
		for (unsigned i = 0; i < t.parameter_count; i++) {
			check(&t, t.parameters[i].name, strlen(text));
			if (target_query(&t, t.parameters[i].name) != t.parameters[i].value)
				abort();
		}
		target_deinit(&t);
	}
	free(text);
	return 0;
}
