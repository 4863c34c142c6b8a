// SPDX-License-Identifier: MIT
/* See below.h. */
#include "vhd/below.h"

#include "lib/cleanup.h"
#include "vhd/iov.h"

#include <errno.h>

static void on_done(struct disk_request *req, int result)
{
	struct below_read *b = container_of(req, struct below_read, req);

	free(b->iov);
	b->done(b, result);
}

int below_read(struct below_read *b, struct disk *parent, const struct disk_request *req,
	       uint64_t from, uint64_t length)
{
	uint64_t offset = req->offset + from, n;
	unsigned count;

	if (!parent)
		return -ENODEV;
	n = offset < parent->geometry.size ? MIN(length, parent->geometry.size - offset) : 0;
	iov_zero(req->iov, req->iovcnt, from + n, length - n);
	if (!n)
		return 0;
	count = iov_slice_count(req->iov, req->iovcnt, from, n);
	b->iov = calloc(count, sizeof(*b->iov));
	if (!b->iov)
		return -ENOMEM;
	iov_slice(req->iov, req->iovcnt, from, n, b->iov);
	b->req = (struct disk_request){
		.op = DISK_READ,
		.offset = offset,
		.length = n,
		.iov = b->iov,
		.iovcnt = count,
		.done = on_done,
	};
	disk_submit(parent, &b->req);
	return 1;
}

int below_extent(struct disk *parent, uint64_t offset, enum disk_extent_kind *ret_kind,
		 uint64_t *ret_length)
{
	if (parent && offset < parent->geometry.size)
		return parent->ops->extent(parent, offset, ret_kind, ret_length);
	*ret_kind = DISK_EXTENT_HOLE;
	*ret_length = UINT64_MAX - offset;
	return 0;
}
