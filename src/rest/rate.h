/* SPDX-License-Identifier: MIT */
/* How often each client may ask: token buckets, in a table of fixed size. */
#pragma once

#include "lib/types.h"

struct rate;

/* `rate` tokens per second, at most `burst` at once. NULL: no memory. */
struct rate *rate_new(unsigned rate, unsigned burst);
void rate_free(struct rate *r); /* NULL is fine */
/* Whether the client with this key may ask once more; `now` in ns. */
bool rate_take(struct rate *r, const void *key, size_t size, uint64_t now);
