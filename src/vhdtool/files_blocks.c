// SPDX-License-Identifier: MIT
/*
 * The reader's view of the disk: ranges of bytes, which it asks the tool for. File systems read
 * many small things near each other, so lines of the volume are kept; they write file data in small
 * pieces one behind the other, so these are joined into one write until something else is written,
 * read there, or made durable. A write that failed fails everything that is written afterwards.
 */
#include "vhdtool/files_proto.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LINE  FILES_PAYLOAD_MAX
#define LINES 64u /* 4 MiB */

struct line {
	uint64_t at; /* UINT64_MAX = empty */
	uint8_t *bytes;
};

static struct blocks {
	struct files_volume volume;
	int fd, failed;
	struct line lines[LINES];
	uint64_t joined_at;
	size_t joined;
	uint8_t join[LINE];
} blocks;

static int ask(struct blocks *b, struct files_message *m, const void *out, size_t n_out, void *in)
{
	size_t n;
	int r = files_send(b->fd, m, out, n_out);

	if (r >= 0)
		r = files_receive(b->fd, m, in, &n);
	/* The tool is gone: nobody is left to tell. */
	if (r < 0 || m->type != ASK_BLOCK_DONE)
		_Exit(1);
	return m->result;
}

static uint8_t scratch[FILES_PAYLOAD_MAX];

static int write_joined(struct blocks *b)
{
	struct files_message m = { .type = ASK_BLOCK_WRITE, .offset = b->joined_at };
	int r;

	if (b->failed || !b->joined)
		return b->failed;
	m.length = b->joined;
	r = ask(b, &m, b->join, b->joined, scratch);
	b->joined = 0;
	if (r < 0)
		b->failed = r;
	return r;
}

static int fetch(struct blocks *b, void *buf, size_t n, uint64_t offset)
{
	struct files_message m = { .type = ASK_BLOCK_READ, .offset = offset, .length = n };
	int r = ask(b, &m, NULL, 0, scratch);

	if (r >= 0)
		memcpy(buf, scratch, n);
	return r;
}

static bool overlaps(const struct blocks *b, uint64_t offset, size_t n)
{
	return b->joined && offset < b->joined_at + b->joined && b->joined_at < offset + n;
}

/* The line that has the byte, read when it is not there. */
static struct line *line_at(struct blocks *b, uint64_t offset, int *ret)
{
	uint64_t at = offset - offset % LINE;
	struct line *l = &b->lines[at / LINE % LINES];

	*ret = 0;
	if (l->at == at)
		return l;
	l->at = UINT64_MAX;
	if (!l->bytes)
		l->bytes = malloc(LINE);
	if (!l->bytes)
		*ret = -ENOMEM;
	else if (overlaps(b, at, LINE))
		*ret = write_joined(b);
	if (*ret >= 0)
		*ret = fetch(b, l->bytes, MIN(LINE, b->volume.size - at), at);
	if (*ret >= 0)
		l->at = at;
	return l;
}

static int blocks_read(struct files_volume *v, void *buf, size_t n, uint64_t offset)
{
	struct blocks *b = container_of(v, struct blocks, volume);
	uint8_t *to = buf;
	int r = 0;

	if (!range_inside(offset, n, v->size))
		return -EIO;
	while (n && r >= 0) {
		struct line *l = line_at(b, offset, &r);
		size_t skip = offset % LINE, part = MIN(n, LINE - skip);

		if (r < 0)
			break;
		memcpy(to, l->bytes + skip, part);
		to += part;
		offset += part;
		n -= part;
	}
	return r;
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
		struct line *l = &b->lines[offset / LINE % LINES];
		size_t skip = offset % LINE, part = MIN(n, LINE - skip);

		if (l->at == offset - skip)
			memcpy(l->bytes + skip, from, part);
		if (b->joined && (offset != b->joined_at + b->joined || b->joined + part > LINE))
			write_joined(b);
		if (!b->joined)
			b->joined_at = offset;
		memcpy(b->join + b->joined, from, part);
		b->joined += part;
		from += part;
		offset += part;
		n -= part;
	}
	return b->failed;
}

static int blocks_flush(struct files_volume *v)
{
	struct blocks *b = container_of(v, struct blocks, volume);
	struct files_message m = { .type = ASK_BLOCK_FLUSH };
	int r = write_joined(b);

	if (r < 0 || !v->writable)
		return r;
	r = ask(b, &m, NULL, 0, scratch);
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
