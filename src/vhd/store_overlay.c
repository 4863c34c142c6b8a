// SPDX-License-Identifier: MIT
/*
 * The overlay store: blocking writes, zeroing and resizing are kept in memory as patches, in the
 * order in which they came, and laid over everything that is read. It exists so that an image with
 * a log can be opened without a single write to it, and holds at most what such a log holds.
 */
#include "lib/cleanup.h"
#include "vhd/iov.h"
#include "vhd/store.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define PATCH_BYTES_MAX (128 * MIB) /* a limit for hostile logs, far above real ones */

struct patch {
	uint64_t offset, length;
	uint8_t *data; /* NULL = zeros */
};

struct overlay {
	struct store store;
	struct store *below;
	struct patch *patches;
	size_t count, room;
	uint64_t bytes;
	uint64_t low, high; /* all patches lie in here */
};

static struct overlay *overlay_of(struct store *s)
{
	return container_of(s, struct overlay, store);
}

static void patches_lay(const struct overlay *o, uint64_t offset, uint64_t length,
			const struct iovec *iov, unsigned iovcnt)
{
	if (offset >= o->high || offset + length <= o->low)
		return;
	for (size_t i = 0; i < o->count; i++) {
		const struct patch *p = &o->patches[i];
		uint64_t start = MAX(offset, p->offset);
		uint64_t end = MIN(offset + length, p->offset + p->length);

		if (start >= end)
			continue;
		if (p->data)
			iov_put(iov, iovcnt, start - offset, p->data + (start - p->offset),
				end - start);
		else
			iov_zero(iov, iovcnt, start - offset, end - start);
	}
}

static void on_lower(struct store_io *io, int result)
{
	struct overlay *o = overlay_of(io->upper);

	io->store = io->upper;
	io->done = io->upper_done;
	if (result >= 0 && io->op == STORE_READ)
		patches_lay(o, io->offset, io->length, io->iov, io->iovcnt);
	io->done(io, result);
}

static void overlay_submit(struct store *s, struct store_io *io)
{
	assert(io->op == STORE_READ || io->op == STORE_FLUSH);
	io->upper = s;
	io->upper_done = io->done;
	io->done = on_lower;
	store_submit(overlay_of(s)->below, io);
}

static int overlay_read(struct store *s, void *buf, size_t n, uint64_t offset)
{
	const struct iovec iov = { buf, n };
	int r = store_read(overlay_of(s)->below, buf, n, offset);

	if (r >= 0)
		patches_lay(overlay_of(s), offset, n, &iov, 1);
	return r;
}

static int patch_add(struct overlay *o, uint64_t offset, uint64_t length, const void *data)
{
	_cleanup_free_ uint8_t *copy = NULL;

	if (data && length > PATCH_BYTES_MAX - o->bytes)
		return -EFBIG;
	if (o->count == o->room) {
		size_t room = MAX(o->room * 2, 64);
		struct patch *p = reallocarray(o->patches, room, sizeof(*p));

		if (!p)
			return -ENOMEM;
		o->patches = p;
		o->room = room;
	}
	if (data) {
		copy = malloc(length);
		if (!copy)
			return -ENOMEM;
		memcpy(copy, data, length);
		o->bytes += length;
	}
	o->low = o->count ? MIN(o->low, offset) : offset;
	o->high = MAX(o->high, offset + length);
	o->patches[o->count++] = (struct patch){ offset, length, steal_ptr(copy) };
	o->store.size = MAX(o->store.size, offset + length);
	return 0;
}

static int overlay_write(struct store *s, const void *buf, size_t n, uint64_t offset)
{
	return patch_add(overlay_of(s), offset, n, buf);
}

static int overlay_zero(struct store *s, uint64_t offset, uint64_t length)
{
	uint64_t end = MIN(offset + length, s->size);

	return offset < end ? patch_add(overlay_of(s), offset, end - offset, NULL) : 0;
}

static int overlay_sync(struct store *s)
{
	(void)s;
	return 0;
}

/* Only grows: a replayed log never cuts. */
static int overlay_resize(struct store *s, uint64_t size)
{
	s->size = MAX(s->size, size);
	return 0;
}

static int overlay_reserve(struct store *s, uint64_t offset, uint64_t length)
{
	(void)s, (void)offset, (void)length;
	return 0;
}

static uint64_t patch_distance(const struct overlay *o, uint64_t offset, bool *ret_inside)
{
	uint64_t nearest = UINT64_MAX;

	*ret_inside = false;
	for (size_t i = 0; i < o->count; i++) {
		const struct patch *p = &o->patches[i];

		if (p->offset > offset) {
			nearest = MIN(nearest, p->offset - offset);
		} else if (offset < p->offset + p->length) {
			*ret_inside = true;
			return p->offset + p->length - offset;
		}
	}
	return nearest;
}

static int overlay_extent(struct store *s, uint64_t offset, enum disk_extent_kind *ret_kind,
			  uint64_t *ret_length)
{
	struct overlay *o = overlay_of(s);
	bool inside;
	uint64_t n = patch_distance(o, offset, &inside);
	int r;

	if (inside) {
		*ret_kind = DISK_EXTENT_DATA;
		*ret_length = n;
		return 0;
	}
	if (offset >= o->below->size) {
		*ret_kind = DISK_EXTENT_HOLE;
		*ret_length = MIN(n, s->size - offset);
		return 0;
	}
	r = store_extent(o->below, offset, ret_kind, ret_length);
	if (r >= 0)
		*ret_length = MIN(*ret_length, n);
	return r;
}

static void overlay_close(struct store *s)
{
	struct overlay *o = overlay_of(s);

	for (size_t i = 0; i < o->count; i++)
		free(o->patches[i].data);
	free(o->patches);
	store_close(o->below);
	free(o);
}

static const struct store_ops overlay_ops = {
	.name = "overlay",
	.submit = overlay_submit,
	.read = overlay_read,
	.write = overlay_write,
	.zero = overlay_zero,
	.sync = overlay_sync,
	.resize = overlay_resize,
	.reserve = overlay_reserve,
	.extent = overlay_extent,
	.close = overlay_close,
};

int store_overlay_new(struct store *below, struct store **ret)
{
	struct overlay *o = calloc(1, sizeof(*o));

	if (!o) {
		store_close(below);
		return -ENOMEM;
	}
	o->store = (struct store){
		.ops = &overlay_ops,
		.loop = below->loop,
		.size = below->size,
		.read_only = true,
	};
	o->below = below;
	*ret = &o->store;
	return 0;
}
