// SPDX-License-Identifier: MIT
/*
 * A fixed VHDX as an image with several writers (flat.h): where its blocks lie, and the one change
 * to its headers that precedes all their writes. After that nobody touches headers, log or block
 * table while the image is shared.
 */
#include "vhd/flat.h"

#include "lib/cleanup.h"
#include "vhd/vhdx.h"
#include "vhd/vhdx_internal.h"

#include <errno.h>
#include <string.h>

static int image_check(const struct vhdx *v, struct error *err)
{
	if (v->params.has_parent)
		return error_set(err, -ENOTSUP,
				 "a differencing image cannot be shared: two writers would change "
				 "what says where data lies; merge it into a fixed one");
	if (!v->params.leave_allocated)
		return error_set(err, -ENOTSUP,
				 "a dynamic VHDX cannot be shared: two writers would change its "
				 "block table; convert it to a fixed one");
	if (v->log_replayed)
		return error_set(err, -EBUSY,
				 "the image was not closed when it was last written; open it once "
				 "alone, or check it");
	return 0;
}

/* Lengthens the last extent, or adds one. */
static int extent_add(struct flat_extent **extents, size_t *count, const struct flat_extent *e)
{
	struct flat_extent *last = *count ? &(*extents)[*count - 1] : NULL;

	if (last && last->offset + last->length == e->offset) {
		last->length += e->length;
		return 0;
	}
	if (*count == FLAT_EXTENTS_MAX)
		return -E2BIG;
	if (is_power_of_2(*count) || !*count) {
		size_t room = *count ? 2 * *count : 1;
		struct flat_extent *more = realloc(*extents, room * sizeof(*more));

		if (!more)
			return -ENOMEM;
		*extents = more;
	}
	(*extents)[(*count)++] = *e;
	return 0;
}

static int block_add(struct vhdx *v, uint64_t block, struct flat_extent **extents, size_t *count,
		     struct error *err)
{
	struct flat_extent e = { .at = block << v->block_shift };
	unsigned state;
	struct page *p;
	int r = page_load_now(v, bat_page_of(v, block), &p);

	if (r >= 0)
		r = bat_get(v, p, block, &state, &e.offset);
	if (r < 0)
		return error_errno(err, r, "cannot find block %llu", (unsigned long long)block);
	if (state != VHDX_BLOCK_FULLY_PRESENT)
		return error_set(err, -ENOTSUP,
				 "block %llu of the image has no space of its own, although it is "
				 "a fixed one; convert it to a new fixed one",
				 (unsigned long long)block);
	e.length = MIN(v->params.block_size, v->params.size - e.at);
	r = extent_add(extents, count, &e);
	if (r == -E2BIG)
		return error_set(err, r,
				 "the image's blocks lie in more than %u pieces; convert it to a "
				 "new fixed one",
				 FLAT_EXTENTS_MAX);
	return r < 0 ? error_set(err, r, "out of memory") : 0;
}

int vhdx_flatten(struct disk *disk, struct flat_extent **ret, size_t *ret_count, struct error *err)
{
	struct vhdx *v = vhdx_of(disk);
	struct flat_extent *extents = NULL;
	uint64_t blocks = vhdx_block_count(&v->params);
	size_t count = 0;
	int r = image_check(v, err);

	for (uint64_t block = 0; block < blocks && r >= 0; block++)
		r = block_add(v, block, &extents, &count, err);
	if (r < 0) {
		free(extents);
		return r;
	}
	*ret = extents;
	*ret_count = count;
	return 0;
}

int vhdx_renew(struct disk *disk, struct error *err)
{
	int r = journal_start_change(vhdx_of(disk), true);

	return r < 0 ? error_errno(err, r, "cannot write the image's headers") : 0;
}
