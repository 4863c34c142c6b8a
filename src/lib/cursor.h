/* SPDX-License-Identifier: MIT */
/*
 * Cursors over bytes from outside. Every access is bounds-checked; the first that does not fit sets
 * a sticky flag, after which reads give zeros and writes do nothing, so that a parser reads
 * straight down and asks once at the end (reader_ok, writer_ok). Little-endian unless the name says
 * be.
 */
#pragma once

#include "lib/types.h"

#include <string.h>

struct reader {
	const uint8_t *data;
	size_t size, at;
	bool overrun;
};

struct writer {
	uint8_t *data;
	size_t size, at;
	bool overrun;
};

static inline struct reader reader_of(const void *data, size_t size)
{
	return (struct reader){ .data = data, .size = size };
}

static inline struct writer writer_of(void *data, size_t size)
{
	return (struct writer){ .data = data, .size = size };
}

static inline bool reader_ok(const struct reader *r)
{
	return !r->overrun;
}

static inline bool writer_ok(const struct writer *w)
{
	return !w->overrun;
}

static inline size_t reader_left(const struct reader *r)
{
	return r->overrun ? 0 : r->size - r->at;
}

/* Borrowed pointer to the next n bytes, or NULL (and the flag) when they are not there. */
static inline const void *reader_take(struct reader *r, size_t n)
{
	const void *p;

	if (r->overrun || n > r->size - r->at) {
		r->overrun = true;
		return NULL;
	}
	p = r->data + r->at;
	r->at += n;
	return p;
}

static inline void reader_copy(struct reader *r, void *dst, size_t n)
{
	const void *p = reader_take(r, n);

	if (p)
		memcpy(dst, p, n);
	else
		memset(dst, 0, n);
}

static inline void reader_seek(struct reader *r, size_t at)
{
	if (at > r->size)
		r->overrun = true;
	else
		r->at = at;
}

static inline void reader_skip(struct reader *r, size_t n)
{
	(void)reader_take(r, n);
}

static inline void *writer_take(struct writer *w, size_t n)
{
	void *p;

	if (w->overrun || n > w->size - w->at) {
		w->overrun = true;
		return NULL;
	}
	p = w->data + w->at;
	w->at += n;
	return p;
}

static inline void writer_put(struct writer *w, const void *src, size_t n)
{
	void *p = writer_take(w, n);

	if (p && n)
		memcpy(p, src, n);
}

static inline void writer_zero(struct writer *w, size_t n)
{
	void *p = writer_take(w, n);

	if (p)
		memset(p, 0, n);
}

#define DEFINE_CURSOR_(order, bits)                                                                \
	static inline uint##bits##_t reader_##order##bits(struct reader *r)                        \
	{                                                                                          \
		order##bits v;                                                                     \
		reader_copy(r, &v, sizeof(v));                                                     \
		return order##bits##_get(v);                                                       \
	}                                                                                          \
	static inline void writer_##order##bits(struct writer *w, uint##bits##_t v)                \
	{                                                                                          \
		order##bits x = order##bits##_of(v);                                               \
		writer_put(w, &x, sizeof(x));                                                      \
	}

DEFINE_CURSOR_(le, 16)
DEFINE_CURSOR_(le, 32)
DEFINE_CURSOR_(le, 64)
DEFINE_CURSOR_(be, 16)
DEFINE_CURSOR_(be, 32)
DEFINE_CURSOR_(be, 64)

static inline uint8_t reader_u8(struct reader *r)
{
	uint8_t v;

	reader_copy(r, &v, 1);
	return v;
}

static inline void writer_u8(struct writer *w, uint8_t v)
{
	writer_put(w, &v, 1);
}
