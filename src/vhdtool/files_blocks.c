// SPDX-License-Identifier: MIT
/*
 * The reader's view of the disk: ranges of bytes, which it asks the tool for. File systems read and
 * change many small things near each other, so lines of the volume are kept, and written when their
 * place is needed or all is made durable. Between two flushes writes so have no order. A write that
 * failed fails everything that is written afterwards.
 */
#include "vhdtool/files_proto.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LINE  FILES_PAYLOAD_MAX
#define LINES 256u /* 16 MiB */

struct line {
	uint64_t at; /* UINT64_MAX = empty */
	size_t dirty, dirty_end;
	uint8_t *bytes;
};

static struct blocks {
	struct files_volume volume;
	int fd, failed;
	struct line lines[LINES];
	uint8_t scratch[FILES_PAYLOAD_MAX];
} blocks;

static int ask(struct blocks *b, struct files_message *m, const void *out, size_t n_out)
{
	size_t n;
	int r = files_send(b->fd, m, out, n_out);

	if (r >= 0)
		r = files_receive(b->fd, m, b->scratch, &n);
	/* The tool is gone: nobody is left to tell. */
	if (r < 0 || m->type != ASK_BLOCK_DONE)
		_Exit(1);
	return m->result;
}

static int clean(struct blocks *b, struct line *l)
{
	struct files_message m = { .type = ASK_BLOCK_WRITE, .offset = l->at + l->dirty };
	size_t n = l->dirty_end - l->dirty;
	int r;

	if (!n)
		return 0;
	if (b->failed)
		return b->failed;
	m.length = n;
	r = ask(b, &m, l->bytes + l->dirty, n);
	if (r < 0)
		b->failed = r;
	l->dirty = l->dirty_end = 0;
	return r;
}

static int fetch(struct blocks *b, struct line *l, uint64_t at)
{
	size_t n = MIN(LINE, b->volume.size - at);
	struct files_message m = { .type = ASK_BLOCK_READ, .offset = at, .length = n };
	int r = ask(b, &m, NULL, 0);

	if (r >= 0)
		memcpy(l->bytes, b->scratch, n);
	return r;
}

/* The line that has the byte; read when it is not there, unless all of it will be written. */
static int line_at(struct blocks *b, uint64_t offset, bool whole, struct line **ret)
{
	uint64_t at = offset - offset % LINE;
	struct line *l = &b->lines[at / LINE % LINES];
	int r;

	*ret = l;
	if (l->at == at)
		return 0;
	r = clean(b, l);
	if (r < 0)
		return r;
	l->at = UINT64_MAX;
	if (!l->bytes)
		l->bytes = malloc(LINE);
	if (!l->bytes)
		return -ENOMEM;
	r = whole ? 0 : fetch(b, l, at);
	if (r >= 0)
		l->at = at;
	return r;
}

static int blocks_read(struct files_volume *v, void *buf, size_t n, uint64_t offset)
{
	struct blocks *b = container_of(v, struct blocks, volume);
	uint8_t *to = buf;

	if (!range_inside(offset, n, v->size))
		return -EIO;
	while (n) {
		size_t skip = offset % LINE, part = MIN(n, LINE - skip);
		struct line *l;
		int r = line_at(b, offset, false, &l);

		if (r < 0)
			return r;
		memcpy(to, l->bytes + skip, part);
		to += part;
		offset += part;
		n -= part;
	}
	return 0;
}

static int blocks_write(struct files_volume *v, const void *buf, size_t n, uint64_t offset)
{
	struct blocks *b = container_of(v, struct blocks, volume);
	const uint8_t *from = buf;

	if (!v->writable)
		return -EROFS;
	if (!range_inside(offset, n, v->size))
		return -EIO;
	while (n && !b->failed) {
		size_t skip = offset % LINE, part = MIN(n, LINE - skip);
		struct line *l;
		int r = line_at(b, offset, part == LINE, &l);

		if (r < 0)
			return r;
		memcpy(l->bytes + skip, from, part);
		l->dirty = l->dirty_end ? MIN(l->dirty, skip) : skip;
		l->dirty_end = MAX(l->dirty_end, skip + part);
		from += part;
		offset += part;
		n -= part;
	}
	return b->failed;
}

static int by_place(const void *a, const void *b)
{
	const struct line *const *x = a, *const *y = b;

	return (*x)->at < (*y)->at ? -1 : (*x)->at > (*y)->at;
}

/* In the order of the disk, which is the kindest to it. */
static int clean_all(struct blocks *b)
{
	struct line *order[LINES];
	int r = b->failed;

	for (unsigned i = 0; i < LINES; i++)
		order[i] = &b->lines[i];
	qsort(order, LINES, sizeof(order[0]), by_place);
	for (unsigned i = 0; i < LINES && r >= 0; i++)
		r = clean(b, order[i]);
	return r;
}

static int blocks_flush(struct files_volume *v)
{
	struct blocks *b = container_of(v, struct blocks, volume);
	struct files_message m = { .type = ASK_BLOCK_FLUSH };
	int r = clean_all(b);

	if (r < 0 || !v->writable)
		return r;
	r = ask(b, &m, NULL, 0);
	if (r < 0)
		b->failed = r;
	return r;
}

struct files_volume *files_blocks_open(int fd, uint64_t size, uint32_t sector, bool writable)
{
	struct blocks *b = &blocks;

	b->fd = fd;
	b->volume = (struct files_volume){
		.size = size,
		.sector = sector,
		.writable = writable,
		.read = blocks_read,
		.write = blocks_write,
		.flush = blocks_flush,
	};
	for (unsigned i = 0; i < LINES; i++)
		b->lines[i].at = UINT64_MAX;
	return &b->volume;
}
