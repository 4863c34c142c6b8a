/* SPDX-License-Identifier: MIT */
/*
 * What a request asks for: the path, in segments, and the query, decoded (RFC 3986, and + as a
 * blank in the query). Hostile text: what is not plainly right is refused.
 */
#pragma once

#include "lib/error.h"
#include "lib/types.h"

#define TARGET_TEXT_MAX  (8 * 1024) /* beyond it nobody's path and query */
#define TARGET_PARTS_MAX 8          /* segments; ours have 5 at most */
#define TARGET_QUERY_MAX 32         /* parameters */

struct target_parameter {
	const char *name, *value;
};

struct target_text {
	char *text; /* holds all strings below */
	unsigned part_count, parameter_count;
	const char *parts[TARGET_PARTS_MAX];
	struct target_parameter parameters[TARGET_QUERY_MAX];
};

/* -EINVAL or -E2BIG with words, -ENOMEM; *ret is then empty. */
int target_parse(const char *text, struct target_text *ret, struct error *err) _must_check_;
void target_deinit(struct target_text *t); /* an empty one is fine */
/* The value of a parameter, or NULL. */
const char *target_query(const struct target_text *t, const char *name);
/* Whether `text` is UTF-8 (no overlong forms, no surrogates, at most U+10FFFF). */
bool text_is_utf8(const char *text);
