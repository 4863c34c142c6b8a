// SPDX-License-Identifier: MIT
/* See iov.h. One walk serves all: it visits the pieces of iov that overlap a byte range. */
#include "vhd/iov.h"

#include <string.h>

struct walk {
	const struct iovec *iov, *end;
	size_t skip, left;
};

static struct walk walk_of(const struct iovec *iov, unsigned iovcnt, size_t from, size_t length)
{
	return (struct walk){ .iov = iov, .end = iov + iovcnt, .skip = from, .left = length };
}

static bool walk_next(struct walk *w, struct iovec *ret)
{
	for (; w->left && w->iov < w->end; w->iov++) {
		size_t n;

		if (w->skip >= w->iov->iov_len) {
			w->skip -= w->iov->iov_len;
			continue;
		}
		n = MIN(w->iov->iov_len - w->skip, w->left);
		ret->iov_base = (char *)w->iov->iov_base + w->skip;
		ret->iov_len = n;
		w->left -= n;
		w->skip = 0;
		w->iov++;
		return true;
	}
	return false;
}

size_t iov_bytes(const struct iovec *iov, unsigned iovcnt)
{
	size_t n = 0;

	for (unsigned i = 0; i < iovcnt; i++)
		n += iov[i].iov_len;
	return n;
}

unsigned iov_slice_count(const struct iovec *iov, unsigned iovcnt, size_t from, size_t length)
{
	struct walk w = walk_of(iov, iovcnt, from, length);
	struct iovec piece;
	unsigned n = 0;

	while (walk_next(&w, &piece))
		n++;
	return n;
}

unsigned iov_slice(const struct iovec *iov, unsigned iovcnt, size_t from, size_t length,
		   struct iovec *out)
{
	struct walk w = walk_of(iov, iovcnt, from, length);
	unsigned n = 0;

	while (walk_next(&w, &out[n]))
		n++;
	return n;
}

bool bytes_zero(const void *bytes, size_t n)
{
	/* If the first 16 bytes are zeros, and each byte equals the one 16 before it, all are. */
	static const uint8_t zeros[16];
	const uint8_t *p = bytes;

	if (n <= sizeof(zeros))
		return !memcmp(p, zeros, n);
	return !memcmp(p, zeros, sizeof(zeros)) && !memcmp(p, p + sizeof(zeros), n - sizeof(zeros));
}

void iov_zero(const struct iovec *iov, unsigned iovcnt, size_t from, size_t length)
{
	struct walk w = walk_of(iov, iovcnt, from, length);
	struct iovec piece;

	while (walk_next(&w, &piece))
		memset(piece.iov_base, 0, piece.iov_len);
}

void iov_put(const struct iovec *iov, unsigned iovcnt, size_t from, const void *src, size_t length)
{
	struct walk w = walk_of(iov, iovcnt, from, length);
	const char *p = src;
	struct iovec piece;

	while (walk_next(&w, &piece)) {
		memcpy(piece.iov_base, p, piece.iov_len);
		p += piece.iov_len;
	}
}

void iov_get(const struct iovec *iov, unsigned iovcnt, size_t from, void *dst, size_t length)
{
	struct walk w = walk_of(iov, iovcnt, from, length);
	char *p = dst;
	struct iovec piece;

	while (walk_next(&w, &piece)) {
		memcpy(p, piece.iov_base, piece.iov_len);
		p += piece.iov_len;
	}
}
