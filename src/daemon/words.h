/* SPDX-License-Identifier: MIT */
/* How the service tells of things: text, times and errors as JSON. [any] */
#pragma once

#include "daemon/clock.h"

#include <jansson.h>

/* Replaces each byte that is not UTF-8 by '?', as when a message was cut inside of a character. */
void text_clean(char *text);
/* A JSON string of text that may be no UTF-8; null of NULL. NULL: no memory. */
json_t *json_text(const char *text);
/* "2026-11-30T17:05:55.123Z"; null of 0, and of what no calendar has. */
json_t *json_time(int64_t ms);
/* The stable name of an errno code ("not-found", docs/rest.md); "internal" of those without one. */
const char *error_code_name(int code);
