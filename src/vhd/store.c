// SPDX-License-Identifier: MIT
/* What all stores have in common. See store.h. */
#include "vhd/store.h"

#include "lib/cleanup.h"
#include "vhd/iov.h"

#include <errno.h>

#define PIECES 4u /* of a copy that are under way at once */

struct copying {
	struct store *store;
	uint64_t from, to, length, at; /* at = begun so far */
	unsigned busy;
	int result;
};

struct piece {
	struct copying *copying;
	struct store_io io;
	struct iovec iov;
	uint64_t room, at;
};

static void piece_next(struct piece *p);

static void on_written(struct store_io *io, int result)
{
	struct piece *p = container_of(io, struct piece, io);
	struct copying *c = p->copying;

	c->busy--;
	c->result = MIN(c->result, result);
	piece_next(p);
}

static void piece_submit(struct piece *p, enum store_op op, uint64_t offset,
			 void (*done)(struct store_io *io, int result))
{
	p->io = (struct store_io){
		.op = op,
		.offset = offset,
		.length = p->iov.iov_len,
		.iov = &p->iov,
		.iovcnt = 1,
		.done = done,
	};
	store_submit(p->copying->store, &p->io);
}

static void on_read(struct store_io *io, int result)
{
	struct piece *p = container_of(io, struct piece, io);

	if (result < 0)
		on_written(io, result);
	else
		piece_submit(p, STORE_WRITE, p->copying->to + p->at, on_written);
}

static void piece_next(struct piece *p)
{
	struct copying *c = p->copying;

	if (c->at >= c->length || c->result < 0)
		return;
	p->at = c->at;
	p->iov.iov_len = MIN(c->length - c->at, p->room);
	c->at += p->iov.iov_len;
	c->busy++;
	piece_submit(p, STORE_READ, c->from + p->at, on_read);
}

static int copy_with_loop(struct copying *c, char *buffer, size_t room)
{
	struct piece pieces[PIECES];
	int r = 0;

	for (unsigned i = 0; i < PIECES; i++) {
		pieces[i] = (struct piece){
			.copying = c,
			.iov.iov_base = buffer + i * room,
			.room = room,
		};
		piece_next(&pieces[i]);
	}
	while (c->busy && r >= 0)
		r = loop_once(c->store->loop, -1);
	return r < 0 ? r : c->result;
}

static int data_copy(struct store *s, uint64_t from, uint64_t to, uint64_t n, void *buffer,
		     size_t room)
{
	struct copying c = { .store = s, .from = from, .to = to, .length = n };
	int r = s->ops->copy ? s->ops->copy(s, from, to, n) : -EOPNOTSUPP;

	if (r != -EOPNOTSUPP)
		return r;
	if (s->loop && room >= PIECES * 4096 && n > room / PIECES)
		return copy_with_loop(&c, buffer, round_down64(room / PIECES, 4096));
	for (r = 0; n && r >= 0;) {
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

int store_io_part(struct store_io *io, const struct disk_request *req, uint64_t from,
		  uint64_t length, struct iovec **ret_own)
{
	struct iovec *own = NULL;

	io->iov = req->iov;
	io->iovcnt = req->iovcnt;
	if (length < req->length) {
		io->iovcnt = iov_slice_count(req->iov, req->iovcnt, from, length);
		io->iov = own = calloc(io->iovcnt + 1, sizeof(*own));
		if (!own)
			return -ENOMEM;
		iov_slice(req->iov, req->iovcnt, from, length, own);
	}
	*ret_own = own;
	return 0;
}
