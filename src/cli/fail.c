// SPDX-License-Identifier: MIT
/* What the verbs that do without the service share: messages, sizes. */
#include "cli/cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cli_fail(const char *verb, const struct error *err)
{
	fprintf(stderr, "partita %s: %s\n", verb, err->message);
	return CLI_FAILED;
}

int cli_parse_size(const char *text, uint64_t *ret, struct error *err)
{
	static const char units[] = "KMGT";
	char *end;
	double value = strtod(text, &end);
	uint64_t unit = 1;
	const char *u = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;

	if (u) {
		unit = UINT64_C(1) << (10 * (u - units + 1));
		end++;
		if (!strcasecmp(end, "ib") || !strcasecmp(end, "b"))
			end += strlen(end);
	}
	if (end == text || *end || value <= 0 || value * (double)unit >= 0x1p63)
		return error_set(err, -EINVAL,
				 "\"%s\" is not a size; write bytes, or a number with K, M, G or T",
				 text);
	*ret = (uint64_t)(value * (double)unit);
	return 0;
}
