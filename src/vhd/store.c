// SPDX-License-Identifier: MIT
/* What all stores have in common. See store.h. */
#include "vhd/store.h"

static int data_copy(struct store *s, uint64_t from, uint64_t to, uint64_t n, void *buffer,
		     size_t room)
{
	int r = 0;

	if (s->ops->copy)
		return s->ops->copy(s, from, to, n);
	while (n && r >= 0) {
		uint64_t piece = MIN(n, room);

		r = store_read(s, buffer, piece, from);
		if (r >= 0)
			r = store_write(s, buffer, piece, to);
		from += piece;
		to += piece;
		n -= piece;
	}
	return r;
}

int store_copy(struct store *s, uint64_t from, uint64_t to, uint64_t length, void *buffer,
	       size_t room)
{
	int r = 0;

	for (uint64_t at = 0, n; at < length && r >= 0; at += n) {
		enum disk_extent_kind kind = DISK_EXTENT_HOLE;

		n = length - at;
		if (from + at < s->size)
			r = store_extent(s, from + at, &kind, &n);
		if (r < 0)
			break;
		n = MIN(n, length - at);
		if (kind == DISK_EXTENT_DATA)
			r = data_copy(s, from + at, to + at, n, buffer, room);
		else
			r = store_zero(s, to + at, n);
	}
	return r;
}
