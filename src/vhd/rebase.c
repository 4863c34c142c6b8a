// SPDX-License-Identifier: MIT
/* See rebase.h. One piece at a time: what differs is little, or a merge were the better way. */
#include "vhd/rebase.h"

#include "lib/cleanup.h"
#include "vhd/disk_drive.h"

#include <errno.h>
#include <string.h>

#define PIECE MIB
#define GRAIN 4096u /* shorter stretches of the same are copied along */

struct rebasing {
	struct disk *child, *parent;
	uint8_t *old, *new; /* PIECE bytes each */
};

static int parent_read(struct disk *parent, void *buf, uint64_t n, uint64_t offset)
{
	uint64_t size = parent->geometry.size, have = offset < size ? MIN(n, size - offset) : 0;

	memset((char *)buf + have, 0, n - have);
	return have ? drive_read(parent, buf, have, offset) : 0;
}

/* Whether a disk is known to answer zeros for `offset`, and how far (at most *length). */
static int known_zero(struct disk *d, uint64_t offset, bool *ret, uint64_t *length)
{
	enum disk_extent_kind kind;
	uint64_t n;
	int r;

	*ret = true;
	if (offset >= d->geometry.size)
		return 0;
	r = d->ops->extent(d, offset, &kind, &n);
	*ret = kind != DISK_EXTENT_DATA;
	*length = MIN(*length, n);
	return r;
}

/* Writes the stretches of old that differ from new. */
static int piece_write(struct rebasing *b, uint64_t offset, uint64_t n)
{
	int r = 0;

	for (uint64_t at = 0, end; at < n && r >= 0; at = end) {
		bool same = !memcmp(b->old + at, b->new + at, MIN(GRAIN, n - at));

		for (end = at + MIN(GRAIN, n - at); end < n; end += MIN(GRAIN, n - end))
			if (!memcmp(b->old + end, b->new + end, MIN(GRAIN, n - end)) != same)
				break;
		if (!same)
			r = drive_write(b->child, b->old + at, end - at, offset + at, 0);
	}
	return r;
}

/* One stretch that the child does not hold; *length becomes what of it is done. */
static int piece_copy(struct rebasing *b, uint64_t offset, uint64_t *length)
{
	bool old_zero, new_zero;
	uint64_t n = *length;
	int r = known_zero(b->child, offset, &old_zero, &n);

	if (r >= 0)
		r = known_zero(b->parent, offset, &new_zero, &n);
	if (r < 0)
		return r;
	*length = n;
	if (old_zero && new_zero)
		return 0;
	if (old_zero)
		return drive_zero(b->child, n, offset);
	*length = n = MIN(n, PIECE);
	r = drive_read(b->child, b->old, n, offset);
	if (r >= 0)
		r = parent_read(b->parent, b->new, n, offset);
	return r < 0 ? r : piece_write(b, offset, n);
}

static int pieces_copy(struct rebasing *b, const struct rebase_options *o)
{
	uint64_t size = b->child->geometry.size, n;

	for (uint64_t at = 0; at < size; at += n) {
		enum disk_held held;
		int r = b->child->ops->held(b->child, at, &held, &n);

		n = MIN(n, size - at);
		if (r >= 0 && held == DISK_HELD_NOT)
			r = piece_copy(b, at, &n);
		if (r >= 0 && o->progress && !o->progress(o->context, at + n, size))
			r = -ECANCELED;
		if (r < 0)
			return r;
	}
	return drive_flush(b->child);
}

int rebase_copy(struct disk *child, struct disk *parent, const struct rebase_options *options,
		struct error *err)
{
	_cleanup_free_ uint8_t *old = malloc(PIECE), *new = malloc(PIECE);
	struct rebasing b = { child, parent, old, new };
	struct disk_identity id;
	int r;

	if (!old || !new)
		return error_set(err, -ENOMEM, "out of memory");
	if (parent->geometry.logical_sector > child->geometry.logical_sector)
		return error_set(err, -EINVAL,
				 "the parent has sectors of %u bytes, the child of %u",
				 parent->geometry.logical_sector, child->geometry.logical_sector);
	/* The contents stay, so that the child's own children stay right. */
	if (child->ops->set_next_identity) {
		child->ops->identity(child, &id);
		child->ops->set_next_identity(child, &id.id);
	}
	r = pieces_copy(&b, options);
	if (r == -ECANCELED)
		return error_set(err, r, "stopped; the image is as it was, with its old parent");
	return r < 0 ? error_errno(err, r, "cannot copy what the parents differ in") : 0;
}
