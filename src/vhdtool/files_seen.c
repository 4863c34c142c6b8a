// SPDX-License-Identifier: MIT
/* See files_seen.h: a hash table with open addresses, at most half full. */
#include "vhdtool/files_seen.h"

#include <errno.h>
#include <stdlib.h>

void seen_free(struct seen *s)
{
	free(s->slots);
	*s = (struct seen){ 0 };
}

static uint64_t *slot_of(const struct seen *s, uint64_t id)
{
	size_t at = (size_t)(id * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (s->room - 1);

	while (s->slots[at] && s->slots[at] != id)
		at = (at + 1) & (s->room - 1);
	return &s->slots[at];
}

static int grow(struct seen *s)
{
	struct seen more = { .room = s->room ? 2 * s->room : 256, .count = s->count };

	more.slots = calloc(more.room, sizeof(*more.slots));
	if (!more.slots)
		return -ENOMEM;
	for (size_t i = 0; i < s->room; i++)
		if (s->slots[i])
			*slot_of(&more, s->slots[i]) = s->slots[i];
	free(s->slots);
	*s = more;
	return 0;
}

int seen_add(struct seen *s, uint64_t id)
{
	uint64_t *slot;

	if (2 * s->count >= s->room && grow(s) < 0)
		return -ENOMEM;
	slot = slot_of(s, id);
	if (*slot || !id)
		return 0;
	*slot = id;
	s->count++;
	return 1;
}
