// SPDX-License-Identifier: MIT
/* See store_memory.h. Data is in chunks that exist from their first write on. */
#include "vhd/store_memory.h"

#include "lib/cleanup.h"
#include "vhd/iov.h"

#include <errno.h>
#include <string.h>

#define CHUNK 4096u

struct memory {
	struct store store;
	struct store_memory_options options;
	uint8_t **chunks;
	uint64_t bytes;
	unsigned random;
	struct loop_task task;
	struct list queue; /* store_io.node */
	unsigned fail_writes, fail_flushes;
	int write_error, flush_error;
};

static struct memory *memory_of(struct store *s)
{
	return container_of(s, struct memory, store);
}

static void observe(struct memory *m, enum memory_event_kind kind, uint64_t offset, uint64_t length,
		    const void *data)
{
	const struct memory_event e = { kind, offset, length, data };

	if (m->options.observe)
		m->options.observe(m->options.context, &e);
}

/* --- the blocking calls, which the others use too --- */

static int memory_read(struct store *s, void *buf, size_t n, uint64_t offset)
{
	struct memory *m = memory_of(s);
	uint8_t *p = buf;

	while (n) {
		size_t at = offset % CHUNK, part = MIN(n, CHUNK - at);
		uint64_t i = offset / CHUNK;

		if (offset < s->size && i < m->options.size_max / CHUNK && m->chunks[i])
			memcpy(p, m->chunks[i] + at, part);
		else
			memset(p, 0, part);
		/* A chunk may reach beyond the end; what is there is zeros (see memory_resize). */
		p += part;
		offset += part;
		n -= part;
	}
	return 0;
}

static int memory_write(struct store *s, const void *buf, size_t n, uint64_t offset)
{
	struct memory *m = memory_of(s);
	const uint8_t *p = buf;

	if (m->fail_writes) {
		m->fail_writes--;
		return m->write_error;
	}
	if (!range_inside(offset, n, m->options.size_max))
		return -ENOSPC;
	for (size_t done = 0; done < n;) {
		size_t at = (offset + done) % CHUNK, part = MIN(n - done, CHUNK - at);
		uint8_t **chunk = &m->chunks[(offset + done) / CHUNK];

		if (!*chunk) {
			if (m->bytes + CHUNK > m->options.bytes_max)
				return -ENOSPC;
			*chunk = calloc(1, CHUNK);
			if (!*chunk)
				return -ENOMEM;
			m->bytes += CHUNK;
		}
		memcpy(*chunk + at, p + done, part);
		done += part;
	}
	s->size = MAX(s->size, offset + n);
	observe(m, MEMORY_WRITE, offset, n, buf);
	return 0;
}

static void zero_range(struct memory *m, uint64_t offset, uint64_t end)
{
	while (offset < end) {
		uint64_t at = offset % CHUNK, part = MIN(end - offset, CHUNK - at);
		uint8_t **chunk = &m->chunks[offset / CHUNK];

		if (*chunk && part == CHUNK) {
			free(*chunk);
			*chunk = NULL;
			m->bytes -= CHUNK;
		} else if (*chunk) {
			memset(*chunk + at, 0, part);
		}
		offset += part;
	}
}

static int memory_zero(struct store *s, uint64_t offset, uint64_t length)
{
	struct memory *m = memory_of(s);

	if (offset < s->size)
		zero_range(m, offset, MIN(offset + length, s->size));
	observe(m, MEMORY_ZERO, offset, length, NULL);
	return 0;
}

static int flush_end(struct store *s)
{
	struct memory *m = memory_of(s);

	if (m->fail_flushes) {
		m->fail_flushes--;
		return m->flush_error;
	}
	observe(m, MEMORY_FLUSH, 0, 0, NULL);
	return 0;
}

static int memory_sync(struct store *s)
{
	observe(memory_of(s), MEMORY_FLUSH_START, 0, 0, NULL);
	return flush_end(s);
}

static int memory_resize(struct store *s, uint64_t size)
{
	struct memory *m = memory_of(s);

	if (size > m->options.size_max)
		return -ENOSPC;
	if (size < s->size)
		zero_range(m, size, s->size);
	s->size = size;
	observe(m, MEMORY_RESIZE, 0, size, NULL);
	return 0;
}

static int memory_reserve(struct store *s, uint64_t offset, uint64_t length)
{
	return offset + length > s->size ? memory_resize(s, offset + length) : 0;
}

static int memory_extent(struct store *s, uint64_t offset, enum disk_extent_kind *ret_kind,
			 uint64_t *ret_length)
{
	struct memory *m = memory_of(s);
	uint64_t i = offset / CHUNK, end = (s->size + CHUNK - 1) / CHUNK;
	bool data = m->chunks[i];

	while (i < end && !!m->chunks[i] == data)
		i++;
	*ret_kind = data ? DISK_EXTENT_DATA : DISK_EXTENT_HOLE;
	*ret_length = MIN(i * CHUNK, s->size) - offset;
	return 0;
}

/* --- the asynchronous ones --- */

static int perform_transfer(struct store *s, struct store_io *io)
{
	_cleanup_free_ void *buf = malloc(io->length + 1);
	int r;

	if (!buf)
		return -ENOMEM;
	if (io->op == STORE_WRITE) {
		iov_get(io->iov, io->iovcnt, 0, buf, io->length);
		return memory_write(s, buf, io->length, io->offset);
	}
	r = memory_read(s, buf, io->length, io->offset);
	if (r >= 0)
		iov_put(io->iov, io->iovcnt, 0, buf, io->length);
	return r;
}

static int perform(struct store *s, struct store_io *io)
{
	switch (io->op) {
	case STORE_READ:
	case STORE_WRITE:
		return perform_transfer(s, io);
	case STORE_FLUSH:
		return flush_end(s);
	case STORE_PUNCH:
	case STORE_ZERO:
		return memory_zero(s, io->offset, io->length);
	}
	return -EINVAL;
}

static struct store_io *pick(struct memory *m)
{
	struct list *it = m->queue.next;
	unsigned count = 0;

	if (!m->options.shuffle)
		return list_entry(it, struct store_io, node);
	list_foreach(n, &m->queue) count++;
	for (count = (unsigned)rand_r(&m->random) % count; count; count--)
		it = it->next;
	return list_entry(it, struct store_io, node);
}

/* One completion a round, so that callers see I/O in flight. */
static void run_queue(struct loop_task *t)
{
	struct memory *m = container_of(t, struct memory, task);
	struct store_io *io = pick(m);
	int r = perform(&m->store, io);

	list_remove(&io->node);
	if (!list_empty(&m->queue))
		loop_defer(m->store.loop, &m->task);
	io->done(io, r);
}

static void memory_submit(struct store *s, struct store_io *io)
{
	struct memory *m = memory_of(s);

	if (io->op == STORE_FLUSH)
		observe(m, MEMORY_FLUSH_START, 0, 0, NULL);
	list_append(&m->queue, &io->node);
	loop_defer(s->loop, &m->task);
}

static void memory_close(struct store *s)
{
	(void)s;
}

static const struct store_ops memory_ops = {
	.name = "memory",
	.submit = memory_submit,
	.read = memory_read,
	.write = memory_write,
	.zero = memory_zero,
	.sync = memory_sync,
	.resize = memory_resize,
	.reserve = memory_reserve,
	.extent = memory_extent,
	.close = memory_close,
};

struct store *store_memory_new(struct loop *loop, const struct store_memory_options *options)
{
	struct memory *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->options = *options;
	m->options.size_max = round_up64(options->size_max, CHUNK);
	m->random = options->shuffle;
	m->store.ops = &memory_ops;
	m->store.loop = loop;
	m->chunks = calloc(m->options.size_max / CHUNK + 1, sizeof(*m->chunks));
	list_init(&m->queue);
	loop_task_init(&m->task, run_queue);
	if (!m->chunks) {
		free(m);
		return NULL;
	}
	return &m->store;
}

void store_memory_fail_writes(struct store *s, unsigned count, int error)
{
	memory_of(s)->fail_writes = count;
	memory_of(s)->write_error = error;
}

void store_memory_fail_flushes(struct store *s, unsigned count, int error)
{
	memory_of(s)->fail_flushes = count;
	memory_of(s)->flush_error = error;
}

void store_memory_set_read_only(struct store *s, bool read_only)
{
	s->read_only = read_only;
}

uint64_t store_memory_bytes(struct store *s)
{
	return memory_of(s)->bytes;
}

void store_memory_free(struct store *s)
{
	struct memory *m;

	if (!s)
		return;
	m = memory_of(s);
	for (uint64_t i = 0; i <= m->options.size_max / CHUNK; i++)
		free(m->chunks[i]);
	free(m->chunks);
	free(m);
}

void store_memory_copy(struct store *from, struct store *to)
{
	static uint8_t b[4096];

	if (store_resize(to, from->size) < 0)
		abort();
	for (uint64_t at = 0, n; at < from->size; at += n) {
		enum disk_extent_kind kind;

		if (store_extent(from, at, &kind, &n) < 0)
			abort();
		for (uint64_t i = 0; kind == DISK_EXTENT_DATA && i < n; i += sizeof(b)) {
			uint64_t part = MIN(sizeof(b), from->size - at - i);

			if (store_read(from, b, part, at + i) < 0 ||
			    store_write(to, b, part, at + i) < 0)
				abort();
		}
	}
}
